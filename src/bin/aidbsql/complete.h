/* complete.h - what may come next: statements, clauses, and keys of the store. */
#ifndef AIDBSQL_COMPLETE_H
#define AIDBSQL_COMPLETE_H

#include "bin/aidbsql/session.h"

/* `before` is everything from the start of the statement up to `word`. Calls add() for each word
 * that could stand there. False when a file's name is due. */
bool complete_word(Session *session, const char *before, const char *word,
                   void (*add)(void *list, const char *text), void *list);

#endif
