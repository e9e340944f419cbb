/*
 * line.h - reading a line from a terminal: with GNU readline, with libedit, or plainly.
 *
 * The only file of AiDb that knows line editing libraries; both may be left out of a build.
 */
#ifndef AIDBSQL_LINE_H
#define AIDBSQL_LINE_H

#include <stdbool.h>

/* Offers completions of `word`, whose line up to it is `before`: calls add() for each. Returns
 * false when names of files should be offered instead. */
typedef bool (*LineCompleter)(void *arg, const char *before, const char *word,
                              void (*add)(void *list, const char *text), void *list);

/* history_path may be null: nothing is kept then. */
void line_open(const char *history_path, LineCompleter completer, void *arg);
/* Writes the history. */
void line_close(void);

/* A line without its end, to be freed; null at the end of the input. After Ctrl-C it is an empty
 * line, and interrupt_pending() is set. */
char *line_read(const char *prompt);

/* Adds a statement, which may have several lines, to the history. */
void line_remember(const char *text);

#endif
