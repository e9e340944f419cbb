/*
 * failpoint.h - named places at which a test can make a process die, wait, stop or fail.
 *
 * Only in builds configured with --enable-failpoints; in all others every macro here is nothing. A
 * place names itself where it stands, and the linker collects the names: whoever is linked into a
 * program is in its list, without a table to keep up to date.
 *
 * What a place does is a word in a file of the data directory, `failpoints`, that every process maps. So
 * it can be set from outside at any time (`aidbctl failpoint`), it counts the hits of all processes
 * together, and both last over crashes and restarts. A database has that file when one of its programs
 * was started with AIDB_FAILPOINTS in its environment ("" is enough), which also says what to set:
 *
 *     AIDB_FAILPOINTS='wal.synced=kill@3; manifest.record_written=sleep(500)/10:7'
 *
 *     off              nothing
 *     kill             SIGKILL to the own process
 *     exit(CODE)       _exit
 *     stop             SIGSTOP to the own process
 *     sleep(MS)
 *     error(NAME)      the place fails: io (when left out), no_space, no_memory, failed
 *     flip             one bit of the bytes that the place shows is turned over
 *     value(N)         the number used there is N
 *     @N               at the Nth hit from now on only; without it at every one
 *     /N:SEED          at one hit in N, by chance
 */
#ifndef AIDB_COMMON_FAILPOINT_H
#define AIDB_COMMON_FAILPOINT_H

#include "common/status.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#ifdef AIDB_FAILPOINTS

typedef enum FailPointKind {
    FAILPOINT_STEP = 1, /* a step that a process can die at */
    FAILPOINT_LOCK,     /* the same, holding a lock */
    FAILPOINT_DATA,     /* bytes to damage */
    FAILPOINT_NUMBER    /* a constant that tests want otherwise */
} FailPointKind;

typedef enum FailPointAction {
    FAILPOINT_OFF = 0,
    FAILPOINT_KILL,
    FAILPOINT_EXIT,
    FAILPOINT_STOP,
    FAILPOINT_SLEEP,
    FAILPOINT_FAIL,
    FAILPOINT_FLIP,
    FAILPOINT_VALUE
} FailPointAction;

typedef struct FailPoint {
    const char *name;
    FailPointKind kind;
    uint32_t index; /* of its record; set when a directory is attached */
} FailPoint;

/* What stands in the file for each place. `armed` is written last when a place is set. */
typedef struct FailRecord {
    char name[48];
    _Atomic uint32_t kind;
    _Atomic uint32_t armed; /* FailPointAction */
    _Atomic int64_t argument;
    _Atomic uint64_t at;     /* the hit that counts, 0: every one */
    _Atomic uint32_t one_in; /* 0: not by chance */
    _Atomic uint64_t random;
    _Atomic uint64_t hits;  /* since it was set */
    _Atomic uint64_t fired; /* ever */
} FailRecord;

#define FAILPOINT_RECORDS 256u

typedef struct FailTable {
    _Atomic uint64_t magic;
    _Atomic uint32_t count;
    FailRecord records[FAILPOINT_RECORDS];
} FailTable;

#define FAILPOINT_REGISTER __attribute__((section("aidb_failpoints"), used))

/* Maps the directory's file when it has one or AIDB_FAILPOINTS asks for it. Before the first fork. */
void failpoint_attach(const char *directory);
#define FAILPOINT_ATTACH(directory) failpoint_attach(directory)
/* For programs that watch: maps the file, making it when `create`. NULL (errno) when it cannot. */
FailTable *failpoint_table_map(const char *directory, bool create);
void failpoint_table_unmap(FailTable *table);
/* "NAME=ACTION", several of them between semicolons. */
Status failpoint_set(FailTable *table, const char *text) MUST_CHECK;
FailRecord *failpoint_find(FailTable *table, const char *name);

/* AIDB_OK, or what error() says. */
Status failpoint_hit(FailPoint *point);
void failpoint_data(FailPoint *point, void *data, size_t size);
uint64_t failpoint_number(FailPoint *point, uint64_t otherwise);

#define FAILPOINT_HERE(text, what)                                               \
    static FailPoint point_ = {.name = text, .kind = what, .index = UINT32_MAX}; \
    static FailPoint *const entry_ FAILPOINT_REGISTER = &point_;                 \
    (void)entry_

#define FAILPOINT_STATUS(text)                \
    ({                                        \
        FAILPOINT_HERE(text, FAILPOINT_STEP); \
        failpoint_hit(&point_);               \
    })
#define FAILPOINT(text) ((void)FAILPOINT_STATUS(text))
#define FAILPOINT_BYTES(text, data, size)        \
    ({                                           \
        FAILPOINT_HERE(text, FAILPOINT_DATA);    \
        failpoint_data(&point_, (data), (size)); \
    })
#define FAILPOINT_CONSTANT(text, otherwise)     \
    ({                                          \
        FAILPOINT_HERE(text, FAILPOINT_NUMBER); \
        failpoint_number(&point_, (otherwise)); \
    })

#else

#define FAILPOINT_ATTACH(directory)         ((void)0)
#define FAILPOINT(text)                     ((void)0)
#define FAILPOINT_STATUS(text)              AIDB_OK
#define FAILPOINT_BYTES(text, data, size)   ((void)0)
#define FAILPOINT_CONSTANT(text, otherwise) (otherwise)

#endif

#endif
