/*
 * test_table.h - what the tests of this folder share: a directory, a model of a table's entries, tables
 * built from it.
 */
#ifndef AIDB_ENGINE_SSTABLE_TEST_TABLE_H
#define AIDB_ENGINE_SSTABLE_TEST_TABLE_H

#include "engine/sstable/sstable_internal.h"

#include "testlib/testlib.h"

#include <check.h>

#define OK(expression) test_expect((expression) == AIDB_OK, "%s: %s", #expression, status_text())

extern char directory[256]; /* the test's */
extern const uint8_t system_id[16];

/* ---- the model: a sorted array of entries ---------------------------------------------------- */

typedef struct Model {
    Entry *entries;
    size_t count;
    uint8_t **memory;
    size_t memory_count;
    uint64_t lsn_floor;
} Model;

typedef struct Shape {
    const char *name;
    size_t entries;
    uint32_t
        key_kind; /* 0 short random, 1 long shared prefixes, 2 binary, 3 counters, 4 few keys */
    uint32_t key_max;
    uint32_t value_max;
    uint32_t versions; /* at most, of a key */
    uint32_t block_size;
} Shape;

/* 25 entries. */
extern const Shape small_shape;

void make_directory(void);
void remove_directory(void);
void table_path(uint64_t number, char path[400]);
/* Bytes that go with the model. */
uint8_t *model_bytes(Model *model, size_t size);
void model_free(Model *model);
void model_build(Model *model, const Shape *shape);
size_t model_seek(const Model *model, Slice key, uint64_t lsn);
bool entry_equal(const Entry *a, const Entry *b);
TableOptions options_of(Compression compression, uint32_t block_size, uint32_t filter_bits);
TableInfo build_table(const Model *model, const TableOptions *options, uint64_t number,
                      const RangeFragment *fragments, size_t fragment_count);
/* A key near those of the model, and an LSN near theirs. */
Slice probe_key(const Model *model, uint8_t *room);
uint64_t probe_lsn(const Model *model);
size_t make_fragments(const Model *model, RangeFragment *fragments, uint64_t *lsns, size_t most);
void overwrite(const char *path, uint64_t offset, const void *bytes, size_t size);

/* One for each file of tests. */
TCase *block_cases(void);
TCase *damage_cases(void);
TCase *file_cases(void);

#endif
