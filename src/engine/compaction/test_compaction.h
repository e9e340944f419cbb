/*
 * test_compaction.h - what the tests of jobs share: a small store, whose compactions they run.
 */
#ifndef AIDB_ENGINE_COMPACTION_TEST_COMPACTION_H
#define AIDB_ENGINE_COMPACTION_TEST_COMPACTION_H

#include "engine/compaction/compaction_internal.h"

#include "testlib/testlib.h"

#include <check.h>

#define SNAPSHOTS_MAX 8

typedef struct Store {
    char *directory;
    char *tables;
    void *memory;
    void *pool_memory;
    SlotTable slots;
    EpochDomain *epochs;
    Slot *slot;
    Arena *arena;
    VersionSet *set;
    Versions *versions;
    MemPool *pool;
    FileCache *files;
    TableReader reader;
    TableOptions table;
    JobContext context;
    PickOptions options;
    PickCursor cursors[LEVELS];
    uint64_t snapshots[SNAPSHOTS_MAX]; /* ascending */
    size_t snapshot_count;
    uint64_t lsn;
    uint32_t job;
    SplitKey split;
} Store;

void store_create(Store *store);
void store_destroy(Store *store);
/* As a process that starts, and one that ends. */
void store_attach(Store *store);
void store_detach(Store *store);
size_t count_tables(const Store *store);
size_t count_files(const Store *store);
/* Makes the edit the current version and unlinks the tables that nobody needs any more. */
void install(Store *store, const VersionEdit *edit);
/* What outputs must be: sound, inside their bounds, honest about garbage. */
void check_outputs(Store *store, const VersionEdit *edit);
void run_pick(Store *store, const Pick *pick);
void compact_all(Store *store);
/* Reads as the store does: newest level first, stopping at the first answer. */
bool store_get(Store *store, Slice key, uint64_t visible, Entry *entry);

/* One for each file of tests. */
TCase *picker_cases(void);
TCase *model_cases(void);

#endif
