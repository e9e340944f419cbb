/*
 * command.h - backslash commands: what is asked of this program and not of the store.
 *
 * A command stands where a statement could begin and takes the rest of its line. Its words follow
 * the rules of statements, so '...' quotes and $1 work.
 */
#ifndef AIDBSQL_COMMAND_H
#define AIDBSQL_COMMAND_H

#include "bin/aidbsql/script.h"

/* `line` begins with the backslash. *diagnostic is filled when the command itself is at fault; it
 * stays empty when something that it ran has reported its errors already. */
Outcome command_run(Script *script, Slice line, Diagnostic *diagnostic);

/* Whether the line begins with the name of a command. */
bool command_is_known(Slice line);

typedef struct CommandHelp {
    const char *name; /* without the backslash */
    const char *syntax;
    const char *text;
} CommandHelp;

/* Ends with a null name. */
extern const CommandHelp command_help[];

/* Things that \pset sets; ends with null. */
extern const char *const pset_names[];

/* For -v NAME=VALUE and \set: also changes the settings that STRICT, QUIET and ON_ERROR_STOP stand
 * for. False when such a variable is given something else than on or off. */
bool command_set_variable(Session *session, const char *name, const char *value);

#endif
