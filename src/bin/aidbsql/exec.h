/* exec.h - carries out one parsed statement on a session and writes its result. */
#ifndef AIDBSQL_EXEC_H
#define AIDBSQL_EXEC_H

#include "bin/aidbsql/cursor.h"
#include "bin/aidbsql/session.h"

/* *diagnostic is filled unless the outcome is OUTCOME_OK. */
Outcome exec_statement(Session *session, const Statement *statement, Diagnostic *diagnostic);

#endif
