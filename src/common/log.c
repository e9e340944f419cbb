/* log.c - the server log's front: formats a line and hands it to the sink. */
#include "config.h"

#include "common/log.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>

static LogSink log_sink;
static LogLevel log_level = LOG_LEVEL_INFO;

void server_log_set_sink(LogSink sink, LogLevel level)
{
    log_sink = sink;
    log_level = level;
}

bool server_log_wanted(LogLevel level)
{
    return log_sink != NULL && level >= log_level;
}

void server_log(LogLevel level, const char *format, ...)
{
    if (!server_log_wanted(level))
        return;
    int err = errno;
    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    log_sink(level, message);
    errno = err;
}
