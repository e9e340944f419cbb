/*
 * log.h - the server log: one line an event.
 *
 * Engine and library code report through server_log; where it goes is the sink's business. Without
 * a sink (the embedded library) messages are dropped. The sink is set once, before any thread or
 * child exists; it and the level are the only mutable globals below the programs.
 */
#ifndef AIDB_COMMON_LOG_H
#define AIDB_COMMON_LOG_H

#include <stdarg.h>
#include <stdbool.h>

typedef enum LogLevel {
    LOG_LEVEL_DEBUG = 0,
    LOG_LEVEL_INFO = 1,
    LOG_LEVEL_WARNING = 2,
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_FATAL = 4
} LogLevel;

typedef void (*LogSink)(LogLevel level, const char *message);

void server_log_set_sink(LogSink sink, LogLevel level);
bool server_log_wanted(LogLevel level);
/* One event; the message has no line end and is cut at 2 KiB. Keeps errno and the error record. */
void server_log(LogLevel level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
