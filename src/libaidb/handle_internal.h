/* handle_internal.h - the handle and what is made from it, shared by libaidb.c and iter.c. */
#ifndef AIDB_LIBAIDB_HANDLE_INTERNAL_H
#define AIDB_LIBAIDB_HANDLE_INTERNAL_H

#include "common/coding.h"
#include "libaidb/libaidb_internal.h"

#include <pthread.h>
#include <stdatomic.h>

struct aidb {
    const Driver *driver;
    void *state;
    _Atomic uint32_t *owner; /* 1 in the process that opened it, 0 in its forked children */
    char *name;              /* as given to aidb_open */
    pthread_mutex_t mutex;   /* guards the two lists */
    aidb_snapshot *snapshots;
    aidb_iter *iters;
};

struct aidb_snapshot {
    aidb *db;
    uint64_t lsn;
    aidb_snapshot *previous;
    aidb_snapshot *next;
};

/* Clears the error record and checks that the handle may be used here. */
Status handle_enter(const aidb *db) MUST_CHECK;

/* A public range as slices, where an empty one is no bound. *empty: no key can be in it. */
Status range_bounds(const aidb_range *range, Slice *from, Slice *to, bool *empty) MUST_CHECK;

/* Frees an iterator without telling the driver; the caller holds the mutex or is the last. */
void iter_unlink_and_free(aidb_iter *iter);

#endif
