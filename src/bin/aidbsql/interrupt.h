/*
 * interrupt.h - Ctrl-C: ends the statement, not the program.
 *
 * The handler sets a flag and cancels the call that runs on the watched handle; loops over rows ask
 * for the flag. Only interactive sessions install it: a script is ended by the signal itself.
 */
#ifndef AIDBSQL_INTERRUPT_H
#define AIDBSQL_INTERRUPT_H

#include <aidb.h>
#include <stdbool.h>

void interrupt_install(void);
bool interrupt_pending(void);
void interrupt_clear(void);
/* The handle whose calls Ctrl-C cancels; null for none. Called before it is closed. */
void interrupt_watch(aidb *db);

#endif
