#include "config.h"
#include "bin/aidbsql/session.h"

#include <stdlib.h>
#include <time.h>

#include "bin/aidbsql/interrupt.h"
#include "bin/aidbsql/mem.h"

/* How long to wait for a server that is starting or recovering. */
#define START_WAIT_SECONDS 30
/* For a server that was ready and no longer answers: it may be about to say that it recovers. */
#define READY_WAIT_SECONDS 3

void sql_session_init(Session *session)
{
    *session = (Session){0};
    output_init(&session->output);
}

void sql_session_deinit(Session *session)
{
    output_deinit(&session->output);
    for (size_t i = 0; i < session->variable_count; i++) {
        free(session->variables[i].name);
        free(session->variables[i].value);
    }
    free(session->variables);
    free(session->conditions);
    free(session->target);
    buffer_deinit(&session->last_statement);
    *session = (Session){0};
}

void session_set_target(Session *session, const char *target)
{
    char *copy = mem_copy_string(target);
    free(session->target);
    session->target = copy;
    session->target_is_directory =
        strstr(target, "://") == NULL && strncmp(target, "aidb+", 5) != 0;
}

/* --- Opening -------------------------------------------------------------------------------- */

/* What postmaster.pid says: the addresses of the server, the unix socket first, and its state. All
 * are empty when there is no such file or it says nothing. */
typedef struct PidFile {
    char uris[2][512];
    char state[32];
} PidFile;

static void read_pid_file(const char *directory, PidFile *pid_file)
{
    *pid_file = (PidFile){0};
    char *path = mem_format("%s/postmaster.pid", directory);
    FILE *file = fopen(path, "re");
    free(path);
    if (file == NULL)
        return;
    char line[512];
    for (int number = 1; number <= 5 && fgets(line, sizeof line, file) != NULL; number++) {
        line[strcspn(line, "\r\n")] = '\0';
        if ((number == 2 || number == 3) && strncmp(line, "aidb", 4) == 0)
            snprintf(pid_file->uris[number - 2], sizeof pid_file->uris[0], "%s", line);
        else if (number == 5)
            snprintf(pid_file->state, sizeof pid_file->state, "%.*s",
                     (int)sizeof pid_file->state - 1, line);
    }
    fclose(file);
}

static const aidb_option server_options[] = {{"application", "aidbsql"}, {NULL, NULL}};

static aidb_status open_name(Session *session, const char *name, const aidb_option *options)
{
    aidb_status status = aidb_open(name, options, &session->db);
    if (status != AIDB_OK)
        return status;
    free(session->address);
    session->address = mem_copy_string(name);
    session->embedded = options != server_options;
    session->lost = false;
    return AIDB_OK;
}

/* Opens the directory in this process. A mistake in its aidb.yaml is no reason to keep its owner from
 * the data: it is pointed out, and the settings are left at their defaults. */
static aidb_status open_embedded(Session *session)
{
    static const aidb_option no_file[] = {{"read_config", "false"}, {NULL, NULL}};
    aidb_status status = open_name(session, session->target, NULL);
    if (status != AIDB_INVALID)
        return status;
    Diagnostic reason;
    session_explain(&reason, status, 0, 0);
    status = open_name(session, session->target, no_file);
    if (status == AIDB_OK)
        fprintf(stderr, "aidbsql: warning: %s; all settings are at their defaults\n",
                reason.message);
    return status;
}

/* Whether the server that was reached serves the directory: the port or socket of one that is gone
 * may be another server's by now. */
static bool serves_target(const Session *session)
{
    static const char mark[] = "\ndata_directory\t";
    char *text = NULL;
    char *real = realpath(session->target, NULL);
    bool serves = true;
    if (real != NULL && aidb_property(session->db, "status", &text) == AIDB_OK) {
        const char *line = strstr(text, mark);
        if (line != NULL) {
            Slice directory = slice_make((const uint8_t *)line + sizeof mark - 1,
                                         strcspn(line + sizeof mark - 1, "\n"));
            serves = slice_equal(directory, slice_from_string(real));
        }
    }
    aidb_free(text);
    free(real);
    return serves;
}

/* Connects to the server that postmaster.pid names. AIDB_CONNECTION when there is none. */
static aidb_status open_server(Session *session, const PidFile *pid_file)
{
    aidb_status status = AIDB_CONNECTION;
    bool named = false;
    for (size_t i = 0; i < 2 && status == AIDB_CONNECTION; i++) {
        if (pid_file->uris[i][0] == '\0')
            continue;
        named = true;
        status = open_name(session, pid_file->uris[i], server_options);
        if (status == AIDB_OK && !serves_target(session)) {
            session_close(session);
            status = status_set(AIDB_CONNECTION, "%s is the server of another directory",
                                pid_file->uris[i]);
        }
    }
    if (!named)
        return status_set(AIDB_CONNECTION, "no server runs on %s", session->target);
    return status;
}

static aidb_status open_directory(Session *session)
{
    for (int waited_ms = 0;; waited_ms += 100) {
        PidFile pid_file;
        read_pid_file(session->target, &pid_file);
        aidb_status status = open_server(session, &pid_file);
        if ((status != AIDB_CONNECTION && status != AIDB_BUSY) || session->server_only)
            return status;
        status = open_embedded(session);
        if (status != AIDB_LOCKED)
            return status;
        /* Somebody has it: a server that does not listen yet, or another program. */
        int wait_seconds = 0;
        if (strcmp(pid_file.state, "starting") == 0 || strcmp(pid_file.state, "recovering") == 0)
            wait_seconds = START_WAIT_SECONDS;
        else if (strcmp(pid_file.state, "ready") == 0)
            wait_seconds = READY_WAIT_SECONDS;
        if (waited_ms >= wait_seconds * 1000 || interrupt_pending())
            return status;
        const struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
        nanosleep(&pause, NULL);
    }
}

aidb_status session_open(Session *session)
{
    if (!session->target_is_directory && strncmp(session->target, "aidb://", 7) != 0 &&
        strncmp(session->target, "aidb+unix:", 10) != 0)
        return status_set(AIDB_INVALID,
                          "%s is neither aidb://HOST:PORT nor aidb+unix:SOCKET nor a directory",
                          session->target);
    aidb_status status = session->target_is_directory
                             ? open_directory(session)
                             : open_name(session, session->target, server_options);
    if (status == AIDB_OK)
        interrupt_watch(session->db);
    return status;
}

aidb_status session_close(Session *session)
{
    interrupt_watch(NULL);
    session_end_batch(session);
    aidb_batch_destroy(session->writes);
    session->writes = NULL;
    aidb_snapshot_destroy(session->snapshot);
    session->snapshot = NULL;
    aidb *db = session->db;
    session->db = NULL;
    free(session->address);
    session->address = NULL;
    return aidb_close(db);
}

/* --- Batch ------------------------------------------------------------------------------------ */

void session_begin_batch(Session *session)
{
    session->batch = overlay_create();
    session->batch_failed = false;
    session->batch_durability = AIDB_DEFAULT;
}

void session_end_batch(Session *session)
{
    overlay_destroy(session->batch);
    session->batch = NULL;
    session->batch_failed = false;
    for (size_t i = 0; i < session->condition_count; i++)
        free(session->conditions[i].key);
    session->condition_count = 0;
}

void session_add_condition(Session *session, Slice key, aidb_expect expect, uint64_t version)
{
    if (session->condition_count == session->condition_capacity) {
        session->condition_capacity =
            session->condition_capacity > 0 ? session->condition_capacity * 2 : 8;
        session->conditions = mem_resize(session->conditions,
                                         session->condition_capacity * sizeof *session->conditions);
    }
    session->conditions[session->condition_count++] = (Condition){
        .key = mem_copy_bytes(key), .key_size = key.size, .expect = expect, .version = version};
}

/* --- Variables -------------------------------------------------------------------------------- */

static Variable *find_variable(const Session *session, const char *name)
{
    for (size_t i = 0; i < session->variable_count; i++) {
        if (strcmp(session->variables[i].name, name) == 0)
            return &session->variables[i];
    }
    return NULL;
}

const char *session_variable(const Session *session, const char *name)
{
    const Variable *variable = find_variable(session, name);
    return variable != NULL ? variable->value : NULL;
}

void session_set_variable(Session *session, const char *name, const char *value)
{
    Variable *variable = find_variable(session, name);
    if (value == NULL) {
        if (variable == NULL)
            return;
        free(variable->name);
        free(variable->value);
        *variable = session->variables[--session->variable_count];
        return;
    }
    if (variable == NULL) {
        session->variables = mem_resize(session->variables,
                                        (session->variable_count + 1) * sizeof *session->variables);
        variable = &session->variables[session->variable_count++];
        *variable = (Variable){.name = mem_copy_string(name)};
    }
    char *copy = mem_copy_string(value);
    free(variable->value);
    variable->value = copy;
}

/* --- Failures --------------------------------------------------------------------------------- */

void session_explain(Diagnostic *diagnostic, aidb_status status, size_t offset, size_t length)
{
    static const char mark[] = "\nhint: ";
    const char *text = aidb_error_message();
    const char *hint = strstr(text, mark);
    size_t size = hint != NULL ? (size_t)(hint - text) : strlen(text);
    if (size == 0)
        diagnostic_set(diagnostic, offset, length, "%s", status_name(status));
    else
        diagnostic_set(diagnostic, offset, length, "%.*s", (int)size, text);
    if (hint != NULL)
        diagnostic_hint(diagnostic, "%s", hint + sizeof mark - 1);
}

Outcome session_outcome(const Session *session, aidb_status status)
{
    switch (status) {
    case AIDB_OK:
        return OUTCOME_OK;
    case AIDB_EXPECTATION:
        return OUTCOME_UNMET;
    case AIDB_CONNECTION:
    case AIDB_PROTOCOL:
    case AIDB_CLOSED:
        return OUTCOME_LOST;
    case AIDB_UNKNOWN:
    case AIDB_FAILED:
        return session->embedded ? OUTCOME_ERROR : OUTCOME_LOST;
    default:
        return OUTCOME_ERROR;
    }
}
