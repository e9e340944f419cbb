/*
 * server_log.h - where the server log goes: standard error or a file, as text or as JSON.
 *
 * Every process writes its own lines, each with one write to a descriptor opened for appending, so
 * lines of different processes do not mix. For rotation the file is opened anew by its name: in the
 * postmaster on SIGHUP and SIGUSR1, in its children when they log the next line after being told.
 */
#ifndef AIDB_POSTMASTER_SERVER_LOG_H
#define AIDB_POSTMASTER_SERVER_LOG_H

#include "config/settings.h"

/* Begins to log as configured. AIDB_IO when the file cannot be opened: nothing has changed then. */
Status server_log_open(const char *directory, const ServerSettings *settings) MUST_CHECK;
/* The process that lines are from: a literal. */
void server_log_set_process(const char *name);
/* Takes over a new configuration; a file that cannot be opened is said where lines went so far. */
void server_log_reload(const Config *config);
/* Opens the file anew before the next line. Safe in a signal handler. */
void server_log_reopen_later(void);

#endif
