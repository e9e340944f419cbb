/*
 * session.h - what aidbsql is connected to, and what it remembers between statements.
 *
 * A session has a target (a directory or the address of a server), at most one open handle on it, at
 * most one open batch and one snapshot, and the settings that options and backslash commands change.
 * Losing the connection ends batch and snapshot.
 *
 * A directory that a server is running on is used through that server: its postmaster.pid names the
 * addresses. Whether the file is true is found out by connecting and asking for the directory; a
 * stale one leads to opening the directory in this process, as does its absence.
 */
#ifndef AIDBSQL_SESSION_H
#define AIDBSQL_SESSION_H

#include <aidb.h>

#include "bin/aidbsql/diagnostic.h"
#include "bin/aidbsql/output.h"
#include "bin/aidbsql/overlay.h"

/* What became of a statement, a file or a run: the exit codes of the program. The greater is the
 * worse. */
typedef enum Outcome {
    OUTCOME_OK = 0,
    OUTCOME_ERROR = 1,
    OUTCOME_LOST = 2, /* no connection */
    OUTCOME_UNMET = 4 /* a condition was not met, or with --strict a key was missing */
} Outcome;

static inline Outcome outcome_worse(Outcome a, Outcome b)
{
    return a > b ? a : b;
}

/* A condition of the open batch, kept to say later which one was not met. */
typedef struct Condition {
    char *key;
    size_t key_size;
    aidb_expect expect;
    uint64_t version;
} Condition;

typedef struct Variable {
    char *name;
    char *value;
} Variable;

typedef struct Session {
    char *target;
    bool target_is_directory;
    aidb *db;         /* null while there is no connection */
    char *address;    /* what db is open on */
    bool embedded;    /* db is a directory in this process */
    bool lost;        /* the connection broke: db is of no further use */
    bool server_only; /* a directory is used through its server, never opened in this process */

    aidb_snapshot *snapshot;
    Overlay *batch; /* null outside of BEGIN ... COMMIT */
    bool batch_failed;
    aidb_durability batch_durability;
    Condition *conditions;
    size_t condition_count;
    size_t condition_capacity;
    aidb_batch *writes; /* built anew for each write */

    aidb_durability durability;
    Output output;
    bool quiet;
    bool strict;
    bool timing;
    bool stop_on_error;
    bool interactive;
    bool quit;               /* \q was given */
    char *const *parameters; /* $1..$9 */
    size_t parameter_count;
    Variable *variables;
    size_t variable_count;
    Buffer last_statement; /* for \watch */
    int depth;             /* of \i */
} Session;

void sql_session_init(Session *session);
void sql_session_deinit(Session *session);

/* Names what to use from now on: an address with a scheme, or else a directory. */
void session_set_target(Session *session, const char *target);

/* Opens the target. The message is in aidb_error_message() unless this is AIDB_OK. */
aidb_status session_open(Session *session);

/* Closes the handle, and with it batch and snapshot. */
aidb_status session_close(Session *session);

void session_begin_batch(Session *session);
void session_end_batch(Session *session);
void session_add_condition(Session *session, Slice key, aidb_expect expect, uint64_t version);

/* Null when there is no such variable. */
const char *session_variable(const Session *session, const char *name);
/* A null value removes it. */
void session_set_variable(Session *session, const char *name, const char *value);

/* The library's message about a failed call, as a diagnostic about the given place. */
void session_explain(Diagnostic *diagnostic, aidb_status status, size_t offset, size_t length);

/* What a failed call means for the statement. */
Outcome session_outcome(const Session *session, aidb_status status);

#endif
