/*
 * diagnostic.h - what is wrong with a statement, and at which byte of it.
 *
 * Filled by the lexer, the parser and the executor; printed in one place (script.c), which knows
 * the name of the file and the line that the statement began on.
 */
#ifndef AIDBSQL_DIAGNOSTIC_H
#define AIDBSQL_DIAGNOSTIC_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct Diagnostic {
    size_t offset; /* of the word it is about, in bytes from the start of the statement's text */
    size_t length; /* of that word; 0 where a word is missing */
    char message[512];
    char hint[384]; /* a sentence, or empty */
} Diagnostic;

/* Fills everything but the hint, which it clears. Always false, so that callers can return it. */
static inline bool __attribute__((format(printf, 4, 5)))
diagnostic_set(Diagnostic *diagnostic, size_t offset, size_t length, const char *format, ...)
{
    va_list args;
    diagnostic->offset = offset;
    diagnostic->length = length;
    diagnostic->hint[0] = '\0';
    va_start(args, format);
    vsnprintf(diagnostic->message, sizeof diagnostic->message, format, args);
    va_end(args);
    return false;
}

static inline bool __attribute__((format(printf, 2, 3)))
diagnostic_hint(Diagnostic *diagnostic, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(diagnostic->hint, sizeof diagnostic->hint, format, args);
    va_end(args);
    return false;
}

#endif
