/*
 * sstable_test.c - names and whole tables against simple models; one program with the tests of blocks, files
 * and damage.
 *
 * Random tests print their seed; AIDB_TEST_SEED repeats one.
 */
#include "config.h"

#include "engine/sstable/test_table.h"

#include "common/hash.h"

#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- names and info -------------------------------------------------------------------------- */

START_TEST(names)
{
    char name[TABLE_NAME_SIZE];
    table_name(TABLE_NUMBER(1, 42), name);
    ck_assert_str_eq(name, "00000001-000042.sst");
    uint64_t number;
    ck_assert(table_name_parse(name, &number));
    ck_assert_uint_eq(number, TABLE_NUMBER(1, 42));
    table_name(UINT64_MAX, name);
    ck_assert(table_name_parse(name, &number));
    ck_assert_uint_eq(number, UINT64_MAX);
    static const char *bad[] = {"",
                                "00000001-000042",
                                "00000001-000042.ss",
                                "00000001-000042.sst.tmp",
                                "00000001-42.sst",
                                "0000001-000042.sst",
                                "00000001_000042.sst",
                                "0000000A-000042.sst",
                                "01000000-000042.sst",
                                "00000001-0000042.sst",
                                "00000001--00042.sst",
                                "00000001-99999999999999999999999999.sst",
                                "00000001-.sst"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!table_name_parse(bad[i], &number), "%s", bad[i]);
}
END_TEST

START_TEST(info_round_trip)
{
    TableInfo info = {.number = TABLE_NUMBER(3, 9),
                      .id = {UINT64_MAX, 1},
                      .file_size = 1u << 30,
                      .lsn_min = 1ull << 40,
                      .lsn_max = 1ull << 41,
                      .entries = 5,
                      .deletes = 2,
                      .range_deletes = 1,
                      .raw_bytes = 12345,
                      .data_size = 4000,
                      .index_offset = 9000,
                      .index_size = 70,
                      .index_levels = 2,
                      .filter_offset = 5000,
                      .filter_section_size = 100,
                      .filter_sections = 3,
                      .range_offset = 6000,
                      .range_size = 99,
                      .dictionary_offset = 4100,
                      .dictionary_size = 50};
    Buffer buffer = {0};
    OK(table_info_encode(&info, &buffer));
    TableInfo again;
    ck_assert_ptr_eq(table_info_decode(buffer.data, buffer.data + buffer.size, &again),
                     buffer.data + buffer.size);
    ck_assert_mem_eq(&info, &again, sizeof info);
    ck_assert(table_info_sane(&again));
    for (size_t size = 0; size < buffer.size; size++) {
        uint8_t *copy = malloc(size + 1);
        memcpy(copy, buffer.data, size);
        ck_assert_ptr_null(table_info_decode(copy, copy + size, &again));
        free(copy);
    }
    info.index_offset = info.file_size;
    ck_assert(!table_info_sane(&info));
    buffer_deinit(&buffer);
}
END_TEST

/* ---- a cache for tests ----------------------------------------------------------------------- */

typedef struct TestCache {
    SlotTable slots;
    EpochDomain epochs;
    void *memory;
    void *slot_memory;
    BlockCache *cache;
    Slot *slot;
} TestCache;

static void test_cache_init(TestCache *test, size_t size)
{
    test->slot_memory = aligned_alloc(PORT_CACHE_LINE, slot_table_size(4));
    slot_table_init(&test->slots, test->slot_memory, 4, NULL);
    epoch_init(&test->epochs, &test->slots);
    test->memory = size > 0 ? malloc(size) : NULL;
    test->cache = cache_init(test->memory, size, &test->epochs);
    test->slot = slot_claim(&test->slots, 0, SLOT_THREAD);
    ck_assert_ptr_nonnull(test->slot);
}

static void test_cache_deinit(TestCache *test)
{
    slot_release(test->slot);
    free(test->memory);
    free(test->slot_memory);
}

/* ---- whole tables ---------------------------------------------------------------------------- */

static const Shape table_shapes[] = {
    {"none", 0, 0, 8, 10, 1, 4096},
    {"one", 1, 0, 8, 10, 1, 4096},
    {"counters", 5000, 3, 0, 100, 1, 4096},
    {"versions across blocks", 300, 4, 0, 300, 30, 512},
    {"short keys", 2000, 0, 9, 40, 3, 1024},
    {"binary keys", 2000, 2, 12, 60, 2, 4096},
    {"prefixes, two index levels", 1500, 1, 200, 3000, 2, 4096},
    {"long keys, two index levels", 150, 1, 4000, 10, 1, 4096},
    {"large values", 25, 0, 12, 300000, 2, 4096},
    {"large blocks", 3000, 0, 12, 100, 2, 65536},
};

static void check_gets(TableReader *reader, const TableInfo *info, const Model *model,
                       uint32_t tries)
{
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    uint64_t last_offset = 0;
    for (uint32_t i = 0; i < tries; i++) {
        Slice key = probe_key(model, room);
        uint64_t lsn = model->count > 0 ? probe_lsn(model) : 9;
        Entry entry;
        bool found;
        if (reader->cache != NULL)
            epoch_enter(reader->epochs, reader->slot);
        OK(table_get(reader, info, key, table_key_hash(key), lsn, &entry, &found));
        size_t at = model_seek(model, key, lsn);
        bool there = at < model->count && slice_equal(model->entries[at].key, key);
        ck_assert_int_eq(found, there);
        if (there)
            ck_assert(entry_equal(&entry, &model->entries[at]));
        uint64_t offset;
        OK(table_offset_of(reader, info, key, &offset));
        ck_assert_uint_le(offset, info->data_size);
        last_offset = offset;
        if (reader->cache != NULL)
            epoch_leave(reader->slot);
        table_reader_release(reader);
        if (last_offset > info->data_size)
            break;
    }
    free(room);
}

/* Several lookups together say what each says alone. */
static void check_many_gets(TableReader *reader, const TableInfo *info, const Model *model)
{
    enum { MANY = 40 };
    static uint8_t rooms[MANY][AIDB_KEY_MAX + 1];
    TableGet gets[MANY], *places[MANY];
    Entry entries[MANY];
    size_t count = test_draw_below(MANY + 1);
    uint64_t lsn = model->count > 0 ? probe_lsn(model) : 9;
    for (size_t i = 0; i < count; i++) {
        Slice key = probe_key(model, rooms[i]);
        gets[i] = (TableGet){
            .info = info, .key = key, .key_hash = table_key_hash(key), .entry = &entries[i]};
        places[i] = &gets[i];
    }
    if (reader->cache != NULL)
        epoch_enter(reader->epochs, reader->slot);
    OK(table_get_many(reader, count, places, lsn));
    for (size_t i = 0; i < count; i++) {
        size_t at = model_seek(model, gets[i].key, lsn);
        bool there = at < model->count && slice_equal(model->entries[at].key, gets[i].key);
        ck_assert_int_eq(gets[i].found, there);
        if (there)
            ck_assert(entry_equal(&entries[i], &model->entries[at]));
    }
    if (reader->cache != NULL)
        epoch_leave(reader->slot);
    table_reader_release(reader);
}

static void check_iterator(TableReader *reader, const TableInfo *info, const Model *model,
                           bool readahead, uint32_t steps)
{
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    Iter *iter;
    if (reader->cache != NULL)
        epoch_enter(reader->epochs, reader->slot);
    uint32_t ahead = reader->cache != NULL ? TABLE_READAHEAD_SCAN : TABLE_READAHEAD_JOB;
    OK(table_iter_create(reader, info, readahead ? ahead : 0, &iter));
    ck_assert(!iter->valid);
    size_t place = 0;
    OK(iter->ops->seek_first(iter));
    for (; iter->valid; place++) {
        ck_assert_uint_lt(place, model->count);
        ck_assert(entry_equal(&iter->entry, &model->entries[place]));
        OK(iter->ops->next(iter));
    }
    ck_assert_uint_eq(place, model->count);
    OK(iter->ops->seek_last(iter));
    for (; iter->valid; place--) {
        ck_assert_uint_gt(place, 0);
        ck_assert(entry_equal(&iter->entry, &model->entries[place - 1]));
        OK(iter->ops->prev(iter));
    }
    ck_assert_uint_eq(place, 0);

    place = model->count;
    for (uint32_t i = 0; i < steps && model->count > 0; i++) {
        Slice key = probe_key(model, room);
        uint64_t lsn = probe_lsn(model);
        switch (test_draw_below(16)) {
        case 0:
            OK(iter->ops->seek_first(iter));
            place = 0;
            break;
        case 1:
            OK(iter->ops->seek_last(iter));
            place = model->count - 1;
            break;
        case 2:
        case 3:
            OK(iter->ops->seek(iter, key, lsn));
            place = model_seek(model, key, lsn);
            break;
        case 4:
        case 5:
            OK(iter->ops->seek_before(iter, key, lsn));
            place = model_seek(model, key, lsn);
            place = place == 0 ? model->count : place - 1;
            break;
        default: {
            bool forward = test_draw_below(2) == 0;
            for (uint32_t n = test_draw_below(30); n > 0 && place < model->count; n--) {
                ck_assert(iter->valid);
                if (forward) {
                    OK(iter->ops->next(iter));
                    place++;
                } else {
                    OK(iter->ops->prev(iter));
                    place = place == 0 ? model->count : place - 1;
                }
            }
        }
        }
        ck_assert_int_eq(iter->valid, place < model->count);
        if (iter->valid)
            ck_assert(entry_equal(&iter->entry, &model->entries[place]));
    }
    iter_destroy(iter);
    if (reader->cache != NULL)
        epoch_leave(reader->slot);
    table_reader_release(reader);
    free(room);
}

static void check_ranges(TableReader *reader, const TableInfo *info, const Model *model,
                         const RangeFragment *fragments, size_t count)
{
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    RangeFragments read;
    if (reader->cache != NULL)
        epoch_enter(reader->epochs, reader->slot);
    OK(table_fragments(reader, info, &read));
    ck_assert_uint_eq(read.count, count);
    for (size_t i = 0; i < count; i++) {
        ck_assert(slice_equal(read.items[i].from, fragments[i].from));
        ck_assert(slice_equal(read.items[i].to, fragments[i].to));
        ck_assert_uint_eq(read.items[i].lsn_count, fragments[i].lsn_count);
        ck_assert_mem_eq(read.items[i].lsns, fragments[i].lsns,
                         fragments[i].lsn_count * sizeof(uint64_t));
    }
    for (int i = 0; i < 1000; i++) {
        Slice key = probe_key(model, room);
        uint64_t visible = model->lsn_floor + test_draw_below(6000);
        uint64_t lsn;
        OK(table_cover(reader, info, key, visible, &lsn));
        ck_assert_uint_eq(lsn, range_fragments_cover(fragments, count, key, visible));
        table_reader_release(reader);
    }
    range_fragments_deinit(&read);
    if (reader->cache != NULL)
        epoch_leave(reader->slot);
    table_reader_release(reader);
    free(room);
}

static void fail_on_damage(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)arg;
    ck_abort_msg("%s: %" PRIu64 ": %s", path, offset, what);
}

START_TEST(table_model)
{
    test_draw_seed("table_model");
    const Shape *shape = &table_shapes[_i];
    make_directory();
    bool had_two_levels = false;
    for (int kind = 0; kind < 3; kind++) {
        Model model;
        model_build(&model, shape);
        RangeFragment *fragments = calloc(4000, sizeof *fragments);
        uint64_t *lsns = calloc(12000, sizeof *lsns);
        size_t fragment_count = kind == 2 ? 0 : make_fragments(&model, fragments, lsns, 4000);
        Compression compression = (Compression)kind;
        if (!compression_supported(compression))
            compression = COMPRESSION_NONE;
        TableOptions options = options_of(compression, shape->block_size, (uint32_t)kind * 5);
        options.hasty = test_draw_below(2) == 1;
        uint64_t number = TABLE_NUMBER(1, 100 + kind);
        TableInfo info = build_table(&model, &options, number, fragments, fragment_count);
        had_two_levels |= info.index_levels == 2;

        char path[400];
        table_path(number, path);
        OK(table_verify(path, system_id, &info, fail_on_damage, NULL));
        TableInfo read;
        OK(table_info_read(path, system_id, &read));
        ck_assert_mem_eq(&read, &info, sizeof info);
        ck_assert_int_eq(table_info_read(path, (const uint8_t *)"another database", &read),
                         AIDB_CORRUPTION);

        FileCache *files;
        OK(file_cache_create(directory, 4, &files));
        TableReader reader = {.files = files};
        check_gets(&reader, &info, &model, 700);
        for (int round = 0; round < 20; round++)
            check_many_gets(&reader, &info, &model);
        check_iterator(&reader, &info, &model, true, 500);
        check_iterator(&reader, &info, &model, false, 500);
        check_ranges(&reader, &info, &model, fragments, fragment_count);
        table_reader_deinit(&reader);

        /* A cache that holds everything, one that holds little, and one that holds nothing. */
        static const size_t sizes[] = {64u << 20, 5u << 20, 0};
        for (int i = 0; i < 3; i++) {
            TestCache cache;
            test_cache_init(&cache, sizes[i]);
            TableReader cached = {
                .files = files, .cache = cache.cache, .epochs = &cache.epochs, .slot = cache.slot};
            check_gets(&cached, &info, &model, 700);
            check_iterator(&cached, &info, &model, i == 1, 500);
            check_gets(&cached, &info, &model, 300);
            for (int round = 0; round < 20; round++)
                check_many_gets(&cached, &info, &model);
            check_ranges(&cached, &info, &model, fragments, fragment_count);
            table_reader_deinit(&cached);
            test_cache_deinit(&cache);
        }
        file_cache_destroy(files);
        free(fragments);
        free(lsns);
        model_free(&model);
    }
    if (strstr(shape->name, "two index levels") != NULL)
        ck_assert(had_two_levels);
    remove_directory();
}
END_TEST

/* Values of 0 B to 64 MiB, keys of 1 B to 64 KiB. */
START_TEST(table_limits)
{
    make_directory();
    for (int kind = 0; kind < 3; kind++) {
        Compression compression = (Compression)kind;
        if (!compression_supported(compression))
            continue;
        uint8_t *big = malloc(AIDB_VALUE_MAX);
        for (size_t i = 0; i < AIDB_VALUE_MAX; i++)
            big[i] = (uint8_t)(i * i >> 7);
        uint8_t *long_key[2] = {malloc(AIDB_KEY_MAX), malloc(AIDB_KEY_MAX)};
        memset(long_key[0], 'k', AIDB_KEY_MAX);
        memset(long_key[1], 'k', AIDB_KEY_MAX);
        long_key[1][AIDB_KEY_MAX - 1] = 'l';
        Entry entries[] = {
            {.key = slice_make("\0", 1), .lsn = 10, .type = OP_PUT},
            {.key = slice_make("b", 1),
             .value = slice_make(big, AIDB_VALUE_MAX),
             .lsn = 1ull << 60,
             .type = OP_PUT},
            {.key = slice_make("b", 1), .value = slice_make(big, 0), .lsn = 11, .type = OP_PUT},
            {.key = slice_make(long_key[0], AIDB_KEY_MAX),
             .value = slice_make("v", 1),
             .lsn = 12,
             .type = OP_PUT},
            {.key = slice_make(long_key[1], AIDB_KEY_MAX),
             .value = slice_make(big, 1 << 20),
             .lsn = 13,
             .type = OP_PUT},
            {.key = slice_make("\xff\xff", 2), .lsn = 14, .type = OP_DELETE},
        };
        Model model = {
            .entries = entries, .count = sizeof entries / sizeof *entries, .lsn_floor = 10};
        TableOptions options = options_of(compression, 4096, 10);
        uint64_t number = TABLE_NUMBER(1, 1 + kind);
        TableInfo info = build_table(&model, &options, number, NULL, 0);
        char path[400];
        table_path(number, path);
        OK(table_verify(path, system_id, &info, fail_on_damage, NULL));
        FileCache *files;
        OK(file_cache_create(directory, 4, &files));
        TestCache cache;
        test_cache_init(&cache, 8u << 20);
        TableReader readers[2] = {
            {.files = files},
            {.files = files, .cache = cache.cache, .epochs = &cache.epochs, .slot = cache.slot}};
        for (int r = 0; r < 2; r++) {
            for (size_t i = 0; i < model.count; i++) {
                Entry entry;
                bool found;
                if (r == 1)
                    epoch_enter(&cache.epochs, cache.slot);
                OK(table_get(&readers[r], &info, entries[i].key, table_key_hash(entries[i].key),
                             entries[i].lsn, &entry, &found));
                ck_assert(found && entry_equal(&entry, &entries[i]));
                if (r == 1)
                    epoch_leave(cache.slot);
                table_reader_release(&readers[r]);
            }
            check_iterator(&readers[r], &info, &model, r == 0, 20);
            table_reader_deinit(&readers[r]);
        }
        file_cache_destroy(files);
        test_cache_deinit(&cache);
        free(big);
        free(long_key[0]);
        free(long_key[1]);
        ck_assert_int_eq(unlink(path), 0);
    }
    remove_directory();
}
END_TEST

/* A walk inside one epoch may pass over more than fits in memory: blocks that the cache does not take
 * are the iterator's, one at a time. */
START_TEST(walking_keeps_no_blocks)
{
    static const Shape shape = {"large values", 60, 0, 12, 400000, 1, 4096};
    Model model;
    make_directory();
    test_draw_seed("walking_keeps_no_blocks");
    model_build(&model, &shape);
    for (int kind = 0; kind < 3; kind++) {
        if (!compression_supported((Compression)kind))
            continue;
        TableOptions options = options_of((Compression)kind, shape.block_size, 10);
        TableInfo info = build_table(&model, &options, TABLE_NUMBER(1, 1 + kind), NULL, 0);
        FileCache *files;
        OK(file_cache_create(directory, 4, &files));
        static const size_t sizes[] = {0, 4u << 20};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            TestCache cache;
            test_cache_init(&cache, sizes[i]);
            TableReader reader = {
                .files = files, .cache = cache.cache, .epochs = &cache.epochs, .slot = cache.slot};
            epoch_enter(&cache.epochs, cache.slot);
            Iter *iter;
            OK(table_iter_create(&reader, &info, 0, &iter));
            size_t seen = 0;
            for (OK(iter->ops->seek_first(iter)); iter->valid; OK(iter->ops->next(iter)))
                ck_assert(entry_equal(&iter->entry, &model.entries[seen++]));
            ck_assert_uint_eq(seen, model.count);
            for (OK(iter->ops->seek_last(iter)); iter->valid; OK(iter->ops->prev(iter)))
                ck_assert(entry_equal(&iter->entry, &model.entries[--seen]));
            ck_assert_uint_eq(seen, 0);
            for (size_t n = 0; n < 40; n++) { /* with no run in one direction */
                size_t at = test_draw_below((uint32_t)model.count);
                OK(iter->ops->seek(iter, model.entries[at].key, model.entries[at].lsn));
                ck_assert(iter->valid && entry_equal(&iter->entry, &model.entries[at]));
            }
            ck_assert_ptr_null(reader.private_blocks);
            iter_destroy(iter);
            epoch_leave(cache.slot);
            table_reader_deinit(&reader);
            test_cache_deinit(&cache);
        }
        file_cache_destroy(files);
    }
    model_free(&model);
    remove_directory();
}
END_TEST

/* A block that does not shrink by an eighth is stored as it is; stored blocks keep to their size. */
START_TEST(block_sizes)
{
    test_draw_seed("block_sizes");
    make_directory();
    Model model;
    Shape shape = {"random values", 1000, 3, 0, 800, 1, 4096};
    model_build(&model, &shape);
    for (size_t i = 0; i < model.count; i++) /* nothing to compress */
        for (size_t j = 0; j < model.entries[i].value.size; j++)
            ((uint8_t *)(uintptr_t)model.entries[i].value.data)[j] = (uint8_t)test_draw();
    for (int kind = 0; kind < 3; kind++) {
        Compression compression = (Compression)kind;
        if (!compression_supported(compression))
            continue;
        TableOptions options = options_of(compression, 4096, 0);
        TableInfo info = build_table(&model, &options, TABLE_NUMBER(1, 1 + kind), NULL, 0);
        FileCache *files;
        OK(file_cache_create(directory, 4, &files));
        TableReader reader = {.files = files};
        Slice payload;
        BlockHandle handle = {.offset = info.index_offset, .size = info.index_size};
        OK(table_block_read(&reader, &info, &(BlockRead){.kind = BLOCK_INDEX, .handle = handle},
                            &payload));
        IndexView view;
        ck_assert(index_view_init(&view, payload));
        uint64_t expected = TABLE_HEADER_SIZE;
        for (uint32_t i = 0; i < view.count; i++) {
            ck_assert(index_handle(&view, i, &handle));
            ck_assert_uint_eq(handle.offset, expected);
            ck_assert_uint_le(handle.size, 4096);
            ck_assert(i + 1 == view.count || handle.size > 3600 - 800);
            ck_assert_msg(handle.raw || i + 1 == view.count, "block %u of %u, %u bytes, kind %d", i,
                          view.count, handle.size, kind);
            expected += handle.size;
        }
        ck_assert_uint_eq(expected, TABLE_HEADER_SIZE + info.data_size);
        table_reader_deinit(&reader);
        file_cache_destroy(files);
    }
    model_free(&model);
    remove_directory();
}
END_TEST

/* ---- many readers at once -------------------------------------------------------------------- */

typedef struct Reading {
    const Model *model;
    const TableInfo *info;
    BlockCache *cache;
    EpochDomain *epochs;
    Slot *slot;
    uint64_t seed;
    const char *problem;
} Reading;

static void *read_randomly(void *arg)
{
    Reading *reading = arg;
    const Model *model = reading->model;
    uint64_t state = reading->seed;
    TableReader reader = {
        .cache = reading->cache, .epochs = reading->epochs, .slot = reading->slot};
    if (file_cache_create(directory, 2, &reader.files) != AIDB_OK) {
        reading->problem = "file cache";
        return NULL;
    }
    for (int i = 0; i < 4000 && reading->problem == NULL; i++) {
        state = hash_mix(state, (uint64_t)i);
        size_t place = state % model->count;
        const Entry *expected = &model->entries[place];
        epoch_enter(reading->epochs, reading->slot);
        Entry entry;
        bool found;
        if (table_get(&reader, reading->info, expected->key, table_key_hash(expected->key),
                      expected->lsn, &entry, &found) != AIDB_OK ||
            !found || !entry_equal(&entry, expected))
            reading->problem = "get";
        if (i % 16 == 0) {
            Iter *iter;
            bool good =
                table_iter_create(&reader, reading->info, i % 32 == 0 ? TABLE_READAHEAD_SCAN : 0,
                                  &iter) == AIDB_OK &&
                iter->ops->seek(iter, expected->key, expected->lsn) == AIDB_OK;
            for (int n = 0; good && n < 100 && place < model->count; n++, place++)
                good = iter->valid && entry_equal(&iter->entry, &model->entries[place]) &&
                       iter->ops->next(iter) == AIDB_OK;
            if (!good)
                reading->problem = "iterator";
            iter_destroy(iter);
        }
        epoch_leave(reading->slot);
        table_reader_release(&reader);
    }
    table_reader_deinit(&reader);
    file_cache_destroy(reader.files);
    return NULL;
}

/* Through one cache that holds a part of the table, dictionary included. */
/* What is read of the file is bounded by what is walked over, also when that is little. */
START_TEST(scans_read_ahead_in_proportion)
{
    static const Shape shape = {"scanned", 4000, 3, 0, 1000, 1, 4096};
    Model model;
    make_directory();
    test_draw_seed("scans_read_ahead_in_proportion");
    model_build(&model, &shape);
    TableOptions options = options_of(COMPRESSION_NONE, shape.block_size, 10);
    TableInfo info = build_table(&model, &options, TABLE_NUMBER(1, 1), NULL, 0);
    FileCache *files;
    OK(file_cache_create(directory, 4, &files));
    for (size_t steps = 1; steps < 2000; steps *= 3) {
        for (int backward = 0; backward < 2; backward++) {
            TestCache cache;
            test_cache_init(&cache, 16u << 20);
            TableReader reader = {
                .files = files, .cache = cache.cache, .epochs = &cache.epochs, .slot = cache.slot};
            epoch_enter(&cache.epochs, cache.slot);
            Iter *iter;
            OK(table_iter_create(&reader, &info, 0, &iter));
            const Entry *entry = &model.entries[0]; /* brings the index */
            OK(iter->ops->seek(iter, entry->key, entry->lsn));
            uint64_t before = slot_stat_sum(&cache.slots, STAT_BLOCK_READ_BYTES), walked = 0;
            entry = &model.entries[model.count / 2];
            OK(iter->ops->seek(iter, entry->key, entry->lsn));
            for (size_t i = 0; i < steps; i++) {
                ck_assert(iter->valid);
                walked += iter->entry.key.size + iter->entry.value.size;
                OK(backward != 0 ? iter->ops->prev(iter) : iter->ops->next(iter));
            }
            uint64_t read = slot_stat_sum(&cache.slots, STAT_BLOCK_READ_BYTES) - before;
            ck_assert_uint_ge(read + 2 * shape.block_size, walked);
            ck_assert_uint_le(read, 3 * walked + 4 * shape.block_size);
            iter_destroy(iter);
            epoch_leave(cache.slot);
            table_reader_deinit(&reader);
            test_cache_deinit(&cache);
        }
    }
    file_cache_destroy(files);
    model_free(&model);
    remove_directory();
}
END_TEST

START_TEST(concurrent_readers)
{
    test_draw_seed("concurrent_readers");
    make_directory();
    Model model;
    Shape shape = {"readers", 40000, 3, 0, 250, 1, 4096};
    model_build(&model, &shape);
    TableOptions options = options_of(COMPRESSION_ZSTD, 4096, 10);
    TableInfo info = build_table(&model, &options, TABLE_NUMBER(1, 1), NULL, 0);
    ck_assert_uint_gt(info.dictionary_size, 0);
    TestCache cache;
    test_cache_init(&cache, 5u << 20);
    enum { THREADS = 4 };
    Reading readings[THREADS];
    pthread_t ids[THREADS];
    slot_release(cache.slot);
    for (uint32_t i = 0; i < THREADS; i++) {
        readings[i] = (Reading){.model = &model,
                                .info = &info,
                                .cache = cache.cache,
                                .epochs = &cache.epochs,
                                .slot = slot_claim(&cache.slots, i, SLOT_THREAD),
                                .seed = test_draw()};
        ck_assert_int_eq(pthread_create(&ids[i], NULL, read_randomly, &readings[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(ids[i], NULL);
        ck_assert_msg(readings[i].problem == NULL, "%s", readings[i].problem);
        slot_release(readings[i].slot);
    }
    uint64_t used;
    uint64_t capacity;
    uint64_t blocks;
    cache_usage(cache.cache, &used, &capacity, &blocks);
    ck_assert_uint_gt(blocks, 100);
    cache.slot = slot_claim(&cache.slots, 0, SLOT_THREAD);
    test_cache_deinit(&cache);
    model_free(&model);
    remove_directory();
}
END_TEST

/* Blocks of records that resemble each other shrink by the dictionary; noise goes without. */
START_TEST(dictionary_use)
{
    test_draw_seed("dictionary_use");
    make_directory();
    Model model = {.lsn_floor = 1};
    enum { COUNT = 20000 };
    model.entries = calloc(COUNT, sizeof *model.entries);
    for (int noise = 0; noise < 2; noise++) {
        model.count = 0;
        for (uint64_t i = 0; i < COUNT; i++) {
            uint8_t *key = model_bytes(&model, 16);
            sprintf((char *)key, "user:%010" PRIu64, i);
            uint8_t *value = model_bytes(&model, 200);
            size_t size = (size_t)sprintf(
                (char *)value, "{\"name\": \"n%x\", \"city\": \"%s\", \"balance\": %u}",
                (unsigned)test_draw(), test_draw_below(2) ? "Bern" : "Oslo",
                test_draw_below(1000000));
            if (noise == 1)
                size = 200;
            for (size_t j = 0; noise == 1 && j < size; j++)
                value[j] = (uint8_t)test_draw();
            model.entries[model.count++] = (Entry){.key = slice_make(key, 15),
                                                   .value = slice_make(value, size),
                                                   .lsn = i + 1,
                                                   .type = OP_PUT};
        }
        TableOptions options = options_of(COMPRESSION_ZSTD, 4096, 0);
        TableInfo info = build_table(&model, &options, TABLE_NUMBER(1, 1 + noise), NULL, 0);
        printf("dictionary: %u bytes, table %" PRIu64 " of %" PRIu64 "\n", info.dictionary_size,
               info.file_size, info.raw_bytes);
        ck_assert_int_eq(info.dictionary_size > 0, noise == 0);
        if (noise == 0)
            ck_assert_uint_lt(info.data_size * 2, info.raw_bytes);
        /* In haste the same, but larger. */
        options.compression_level = 19;
        TableInfo careful = build_table(&model, &options, TABLE_NUMBER(1, 3 + noise), NULL, 0);
        options.hasty = true;
        TableInfo hasty = build_table(&model, &options, TABLE_NUMBER(1, 5 + noise), NULL, 0);
        ck_assert_int_eq(hasty.dictionary_size > 0, noise == 0);
        if (noise == 0) {
            ck_assert_uint_gt(hasty.data_size, careful.data_size + careful.data_size / 50);
            ck_assert_uint_lt(hasty.data_size * 2, hasty.raw_bytes);
        }
    }
    model_free(&model);
    remove_directory();
}
END_TEST
static Suite *sstable_suite(void)
{
    Suite *suite = suite_create("sstable");
    TCase *parts = tcase_create("parts");
    tcase_set_timeout(parts, 120);
    tcase_add_test(parts, names);
    tcase_add_test(parts, info_round_trip);
    suite_add_tcase(suite, parts);
    suite_add_tcase(suite, block_cases());
    TCase *tables = tcase_create("tables");
    tcase_set_timeout(tables, 300);
    tcase_add_loop_test(tables, table_model, 0, (int)(sizeof table_shapes / sizeof *table_shapes));
    tcase_add_test(tables, table_limits);
    tcase_add_test(tables, walking_keeps_no_blocks);
    tcase_add_test(tables, scans_read_ahead_in_proportion);
    tcase_add_test(tables, block_sizes);
    tcase_add_test(tables, dictionary_use);
    suite_add_tcase(suite, tables);
    suite_add_tcase(suite, file_cases());
    TCase *readers = tcase_create("readers");
    tcase_set_timeout(readers, 300);
    tcase_add_test(readers, concurrent_readers);
    suite_add_tcase(suite, readers);
    suite_add_tcase(suite, damage_cases());
    return suite;
}

int main(void)
{
    return test_run(sstable_suite());
}
