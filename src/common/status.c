/*
 * status.c - the error record: one per thread, of fixed size, so that reporting a failure cannot
 * fail itself.
 */
#include "config.h"

#include "common/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct ErrorRecord {
    char message[1024];
    char hint[512];
    char text[1600];
} ErrorRecord;

static _Thread_local ErrorRecord record;

/* The arguments may point into the record itself: a message is often made from the one before. */
__attribute__((format(printf, 1, 0))) static void set_message(const char *format, va_list arguments)
{
    char message[sizeof record.message];
    vsnprintf(message, sizeof message, format, arguments);
    memcpy(record.message, message, sizeof message);
    record.hint[0] = '\0';
}

Status status_set(Status code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_message(format, arguments);
    va_end(arguments);
    return code;
}

Status status_set_errno(int err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_message(format, arguments);
    va_end(arguments);
    size_t used = strlen(record.message);
    char reason[128];
    snprintf(record.message + used, sizeof record.message - used, ": %s",
             strerror_r(err, reason, sizeof reason));
    switch (err) {
    case ENOSPC:
    case EDQUOT:
        return AIDB_NO_SPACE;
    case ENOMEM:
        return AIDB_NO_MEMORY;
    default:
        return AIDB_IO;
    }
}

void status_hint(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(record.hint, sizeof record.hint, format, arguments);
    va_end(arguments);
}

const char *status_message(void)
{
    return record.message;
}

const char *status_text(void)
{
    if (record.hint[0] == '\0')
        return record.message;
    snprintf(record.text, sizeof record.text, "%s\nhint: %s", record.message, record.hint);
    return record.text;
}

void status_clear(void)
{
    record.message[0] = '\0';
    record.hint[0] = '\0';
}

const char *status_name(Status code)
{
    static const char *const names[] = {
        [AIDB_OK] = "ok",
        [AIDB_NOT_FOUND] = "not found",
        [AIDB_EXPECTATION] = "expectation failed",
        [AIDB_INVALID] = "invalid argument",
        [AIDB_LIMIT] = "limit reached",
        [AIDB_IO] = "input/output error",
        [AIDB_CORRUPTION] = "damaged data",
        [AIDB_NO_SPACE] = "no space left",
        [AIDB_NO_MEMORY] = "out of memory",
        [AIDB_BUSY] = "busy",
        [AIDB_LOCKED] = "in use",
        [AIDB_NO_DATABASE] = "no database",
        [AIDB_EXISTS] = "already exists",
        [AIDB_CONNECTION] = "no connection",
        [AIDB_UNKNOWN] = "outcome unknown",
        [AIDB_AUTHENTICATION] = "authentication failed",
        [AIDB_TIMEOUT] = "timed out",
        [AIDB_CANCELED] = "canceled",
        [AIDB_FAILED] = "store failed",
        [AIDB_CLOSED] = "closed",
        [AIDB_UNSUPPORTED] = "not supported",
        [AIDB_PROTOCOL] = "protocol violation",
        [AIDB_INTERNAL] = "internal error",
    };
    if ((unsigned)code >= sizeof names / sizeof names[0])
        return "unknown status";
    return names[code];
}
