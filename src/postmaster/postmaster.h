/*
 * postmaster.h - the server's first process: listens, forks, reaps, restarts, stops.
 */
#ifndef AIDB_POSTMASTER_POSTMASTER_H
#define AIDB_POSTMASTER_POSTMASTER_H

/* Serves the database in `directory` until it is told to stop. Returns the exit code of the program: 0
 * stopped as asked, 1 anything else (said on standard error or in the server log). */
int postmaster_run(const char *directory);

#endif
