/*
 * test_memtable.h - what the tests of this folder share: a pool of memtables and what is done with it.
 */
#ifndef AIDB_ENGINE_MEMTABLE_TEST_MEMTABLE_H
#define AIDB_ENGINE_MEMTABLE_TEST_MEMTABLE_H

#include "engine/memtable/memtable_internal.h"

#include "testlib/testlib.h"

#include <check.h>

#define SLOTS 8

/* A pool in shared memory that was full of rubbish before, as after a reset of the region. */
typedef struct World {
    void *memory;
    size_t size;
    SlotTable slots;
    EpochDomain *epochs;
    MemPool *pool;
    Slot *slot; /* the test's own */
} World;

uint64_t mix(uint64_t word);
Slice text(const char *string);
void seek_first(Iter *iter);
void seek_last(Iter *iter);

void world_init(World *world, uint64_t capacity);
void world_deinit(World *world);
Memtable *world_create(World *world);
/* Both check that what they take is at most what memtable_need said. */
void put(World *world, Memtable *memtable, Slice key, Slice value, uint64_t lsn);
void delete_range(World *world, Memtable *memtable, Slice from, Slice to, uint64_t lsn);

/* One for each file of tests. */
TCase *range_cases(void);
TCase *room_cases(void);
TCase *sharing_cases(void);

#endif
