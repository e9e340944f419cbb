/*
 * pidfile.h - postmaster.pid: the lock on a data directory and what its holder says about itself.
 *
 * Whether a directory is in use is told by the lock alone (flock on the file; children inherit it);
 * the text is for people and tools. Whoever opens a store for writing holds it: the postmaster, a program
 * with the library, an offline tool. Line by line: pid; "aidb+unix:PATH" or empty; "aidb://HOST:PORT"
 * or empty; start time in seconds since 1970; state; version; restarts after crashes.
 *
 * A file that nobody has locked is what a holder that died, or a server that could not stop cleanly, left.
 * The file is written in place: replacing it would leave the lock on a file that nobody sees.
 */
#ifndef AIDB_CONFIG_PIDFILE_H
#define AIDB_CONFIG_PIDFILE_H

#include "common/status.h"
#include <stdint.h>

#define PIDFILE_NAME "postmaster.pid"

typedef struct PidInfo {
    int pid;
    char unix_uri[256];
    char tcp_uri[320];
    uint64_t started; /* seconds since 1970 */
    char state[16];   /* starting recovering ready stopping; embedded */
    char version[16];
    uint32_t crash_restarts;
} PidInfo;

typedef struct PidFile {
    int fd; /* -1: not locked */
    char *path;
} PidFile;

/* Takes the lock. AIDB_LOCKED: somebody has it; the message says who, the hint where to connect.
 * AIDB_NO_DATABASE: there is no such directory. The descriptor is inherited by children. */
Status pidfile_lock(const char *directory, PidFile *file) MUST_CHECK;
Status pidfile_write(const PidFile *file, const PidInfo *info) MUST_CHECK;
/* Removes the file and gives the lock back. Safe when not locked. */
void pidfile_release(PidFile *file);
/* Closes the descriptor and leaves the file: in a forked child of a program, whose parent keeps the lock,
 * and in a server whose stop was not clean. */
void pidfile_forget(PidFile *file);

/* What the file says, and whether anybody holds the lock. A missing file is AIDB_NOT_FOUND,
 * one that cannot be read an error; `held` is told then too. Takes nothing; text that is not as expected
 * leaves its fields empty. */
Status pidfile_read(const char *directory, PidInfo *info, bool *held) MUST_CHECK;

#endif
