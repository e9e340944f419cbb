/*
 * disk.h - the control page and the journal of the faulty disk (disk.c, preloaded into a process).
 *
 * The disk watches the files below AIDB_DISK_ROOT. AIDB_DISK_CONTROL names a file that is mapped as the
 * control page: it counts calls, and tells which call fails how, also while the process runs.
 * AIDB_DISK_JOURNAL, when set, names a file that gets one record for each call that changes something or
 * makes it durable, in the order in which they were carried out.
 */
#ifndef AIDB_TORTURE_DISK_H
#define AIDB_TORTURE_DISK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Kinds of calls, as bits of DiskControl.kinds. */
enum {
    DISK_CREATE = 1, /* open that may create */
    DISK_OPEN = 2,
    DISK_READ = 4,
    DISK_WRITE = 8,
    DISK_SYNC = 16, /* fsync, fdatasync, msync, of files and directories; writes that sync */
    DISK_TRUNCATE = 32,
    DISK_RENAME = 64,
    DISK_UNLINK = 128,
    DISK_MKDIR = 256,
    DISK_MEMORY = 512,  /* malloc and its like, mmap: memory.c */
    DISK_SOCKET = 1024, /* sends that do not wait, accept */
    DISK_WAIT = 2048    /* poll, epoll_wait, receiving, where they may wait */
};

typedef enum DiskFault {
    DISK_NO_FAULT = 0,
    DISK_ERROR, /* the call fails with `code` and does nothing */
    DISK_SHORT, /* reads, writes and sends transfer a part; one byte is one byte */
    DISK_FULL,  /* what makes a file longer fails with `code` */
    DISK_KILL   /* the process is killed once the call, which is none that only reads, is done */
} DiskFault;

typedef struct DiskControl {
    _Atomic uint32_t
        calls; /* that change something or make it durable, all kinds but open and read */
    _Atomic uint32_t matched; /* calls of the kinds in `kinds`, on paths with `path` */
    _Atomic uint32_t fired;
    _Atomic uint32_t fault; /* DiskFault */
    _Atomic uint32_t kinds;
    _Atomic uint32_t code; /* errno */
    _Atomic uint32_t from; /* the matched calls with these numbers fail: from <= n < until */
    _Atomic uint32_t until;
    _Atomic uint32_t permille; /* of the calls between these; 0: all */
    _Atomic uint32_t random;   /* seed of the choice */
    char path[64];             /* part of the path; empty: all */
    _Atomic uint32_t
        slow_read_ms; /* calls that do not fail, on any path, take so long: a slow disk; 0: as ever */
    _Atomic uint32_t slow_write_ms;
    _Atomic uint32_t slow_sync_ms; /* at most: a tenth of it to all of it */
    _Atomic uint64_t journal_size;
    _Atomic uint64_t
        torn; /* 0, or how much of the journal holds: a process was killed in a call then */
    _Atomic uint32_t killed; /* who held the mutex last was killed behind its call (DISK_KILL) */
    pthread_mutex_t mutex;   /* held while a call is carried out and noted; robust */
} DiskControl;

/* Zeroes the page: no faults, an empty journal. Nobody uses it. */
void disk_reset(DiskControl *control);

typedef enum DiskRecordType {
    DISK_RECORD_CREATE = 1, /* path */
    DISK_RECORD_WRITE,      /* offset, data; also pages of mapped files that changed */
    DISK_RECORD_TRUNCATE,   /* offset: the new size */
    DISK_RECORD_SYNC,
    DISK_RECORD_RENAME, /* path, then data: the other path */
    DISK_RECORD_UNLINK,
    DISK_RECORD_MKDIR,
    DISK_RECORD_DIRECTORY_SYNC,
    DISK_RECORD_SYNC_FAILED,  /* the kernel drops what was to be synced, and calls it clean */
    DISK_RECORD_WRITE_SYNCED, /* as WRITE, durable with the call */
    DISK_RECORD_LINK          /* path: one more name of the inode */
} DiskRecordType;

/* Followed by path_size bytes of path, relative to the root, and data_size bytes of data. */
typedef struct DiskRecord {
    uint32_t type;
    uint32_t call; /* its number */
    uint64_t inode;
    uint64_t offset;
    uint32_t path_size;
    uint32_t data_size;
} DiskRecord;

/* Maps a file as memory shared by processes; `create` makes it, zeroed. NULL: errno. */
void *disk_map(const char *path, size_t size, bool create);

#endif
