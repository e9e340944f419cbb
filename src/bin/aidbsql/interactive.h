/* interactive.h - a conversation at a terminal. */
#ifndef AIDBSQL_INTERACTIVE_H
#define AIDBSQL_INTERACTIVE_H

#include "bin/aidbsql/session.h"

/* Reads statements until \q or the end of the input. Runs the file of start-up commands first when
 * `read_rc`. Always OUTCOME_OK but for a batch that was left open. */
Outcome interactive_run(Session *session, bool read_rc);

#endif
