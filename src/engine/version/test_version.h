/*
 * test_version.h - what the tests of this folder share: a store of a manifest and of files that stand for
 * tables.
 */
#ifndef AIDB_ENGINE_VERSION_TEST_VERSION_H
#define AIDB_ENGINE_VERSION_TEST_VERSION_H

#include "engine/version/version_internal.h"

#include "testlib/testlib.h"

#include <check.h>

typedef struct Store {
    char *directory;
    StoreIdentity identity;
    void *memory;
    SlotTable slots;
    EpochDomain *epochs;
    Slot *slot;
    Slot *reader;
    Arena *arena;
    VersionSet *set;
    Versions *versions;
} Store;

extern const StoreIdentity test_identity;

/* As a process that ends, and one that starts: region and handle go, and come as after a reset. */
void store_detach(Store *store);
Status store_reopen(Store *store);
void store_create(Store *store);
void store_destroy(Store *store);
Slice text(const char *string);
/* An empty file of the size, by the next number. */
uint64_t make_table(Store *store, uint64_t size);
bool table_exists(const Store *store, uint64_t number);
/* Bounds as text: "[a,c]", "[a,c)" or "[a,". */
FileBounds parse_bounds(const char *bounds);
uint64_t add_table(Store *store, VersionEdit *edit, uint8_t level, const char *bounds,
                   uint64_t lsn);
/* Applies and makes it current, as engine/db does. */
Status apply(Store *store, const VersionEdit *edit, uint64_t durable);
/* Everything that must survive, as text. */
char *describe(const Store *store);
void check_same(const Store *store, const char *expected);
char *manifest_path(const Store *store);
/* Creates one with a few edits in its manifest. */
void store_with_history(Store *store);
Buffer read_file(const char *path);
void write_file(const char *path, const void *data, size_t size);
/* For verification: counts in an int. */
void count_reports(void *arg, const char *path, uint64_t offset, const char *what);

/* One for each file of tests. */
TCase *edit_cases(void);
/* Both are cases of damage. */
void add_damage_tests(TCase *tests);
void add_fault_tests(TCase *tests);

#endif
