/*
 * script.h - runs input: cuts it into statements and backslash commands, carries them out, reports
 * errors with their place.
 *
 * Input arrives line by line, from a string, a file, standard input or a terminal; a statement runs
 * as soon as its `;` has been read, so a program that feeds statements through a pipe gets each
 * answer before it writes the next line.
 */
#ifndef AIDBSQL_SCRIPT_H
#define AIDBSQL_SCRIPT_H

#include "bin/aidbsql/lexer.h"
#include "bin/aidbsql/session.h"

typedef struct Script {
    Session *session;
    const char *name; /* for messages; null for a terminal */
    Splitter splitter;
    Buffer text;          /* of the statement so far */
    uint64_t text_line;   /* where it began, from 1 */
    uint64_t text_column; /* in characters, from 1 */
    uint64_t line;        /* of the next byte */
    uint64_t column;
    bool stopped; /* an error ended it, or \q: feed nothing more */
    Outcome worst;
} Script;

void script_init(Script *script, Session *session, const char *name);
void script_deinit(Script *script);

/* Takes one line with its end, or the last piece of the input, and runs what is complete. */
void script_feed(Script *script, Slice line);

/* The end of the input: runs what is left, with or without a `;`. Not for a terminal. */
void script_finish(Script *script);

/* Forgets an unfinished statement. */
void script_reset(Script *script);

/* Whether a statement has begun that is not finished. */
bool script_is_pending(const Script *script);

/* Whole inputs. A file named "-" is standard input. */
Outcome script_run_text(Session *session, const char *name, Slice text);
Outcome script_run_file(Session *session, const char *path);

/* Runs one statement; `\watch` uses it for the last one. */
Outcome script_run_statement(Script *script, Slice text);

/* Prints a message about a place in `text`, which began at text_line and text_column. */
void script_report(const Script *script, Slice text, Outcome outcome, const Diagnostic *diagnostic);

#endif
