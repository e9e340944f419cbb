/*
 * copy.h - \copy: files of keys and values into the store, and back.
 *
 *     \copy from FILE [csv|tsv|jsonl] [header]
 *     \copy [PREFIX p | FROM a | TO b | FROM a TO b] to FILE [csv|tsv|jsonl] [header]
 *
 * An import is no transaction: rows go in as batches of many rows, several of them under way at a
 * time, and an error leaves what came before it written. Within BEGIN they go into the open batch
 * instead. An export reads at one point in time and replaces its file only once it is whole.
 */
#ifndef AIDBSQL_COPY_H
#define AIDBSQL_COPY_H

#include "bin/aidbsql/lexer.h"
#include "bin/aidbsql/session.h"

/* `args` are the words of the line, with the name of the command first. */
Outcome copy_run(Session *session, const TokenList *args, Diagnostic *diagnostic);

#endif
