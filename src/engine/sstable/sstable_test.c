/*
 * sstable_test.c - blocks, index, filter and whole tables against simple models; damage of every
 * byte; file cache; failing writes.
 *
 * Random tests print their seed; AIDB_TEST_SEED repeats one.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include "common/hash.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* ---- helpers --------------------------------------------------------------------------------- */

#define OK(expression) ck_assert_msg((expression) == AIDB_OK, "%s: %s", #expression, status_text())

static uint64_t random_state;

static void random_seed(const char *test)
{
    const char *given = getenv("AIDB_TEST_SEED");
    random_state = given != NULL ? strtoull(given, NULL, 10)
                                 : (uint64_t)time(NULL) * 1000003 + (uint64_t)clock();
    printf("%s: AIDB_TEST_SEED=%" PRIu64 "\n", test, random_state);
    fflush(stdout);
}

static uint64_t random_next(void)
{
    uint64_t mixed = random_state += 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

static uint32_t random_below(uint32_t bound)
{
    return (uint32_t)(random_next() % bound);
}

static char directory[256];
static const uint8_t system_id[16] = "a test database";

static void make_directory(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/aidb-sstable-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static Status remove_name(void *arg, const char *name)
{
    (void)arg;
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return file_unlink(path);
}

static void remove_directory(void)
{
    OK(directory_list(directory, remove_name, NULL));
    ck_assert_int_eq(rmdir(directory), 0);
}

static void table_path(uint64_t number, char path[400])
{
    char name[TABLE_NAME_SIZE];
    table_name(number, name);
    snprintf(path, 400, "%s/%s", directory, name);
}

/* ---- the model: a sorted array of entries ---------------------------------------------------- */

typedef struct Model {
    Entry *entries;
    size_t count;
    uint8_t **memory;
    size_t memory_count;
    uint64_t lsn_floor;
} Model;

static uint8_t *model_bytes(Model *model, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    ck_assert_ptr_nonnull(bytes);
    if ((model->memory_count & (model->memory_count + 1)) == 0) { /* room for twice as many */
        model->memory =
            realloc(model->memory, (model->memory_count + 1) * 2 * sizeof *model->memory);
        ck_assert_ptr_nonnull(model->memory);
    }
    model->memory[model->memory_count++] = bytes;
    return bytes;
}

static void model_free(Model *model)
{
    for (size_t i = 0; i < model->memory_count; i++)
        free(model->memory[i]);
    free(model->memory);
    free(model->entries);
    *model = (Model){0};
}

static int entry_order(const void *a, const void *b)
{
    const Entry *left = a;
    const Entry *right = b;
    return entry_compare(left->key, left->lsn, right->key, right->lsn);
}

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

static size_t random_key(const Shape *shape, size_t i, uint8_t *to)
{
    size_t size;
    switch (shape->key_kind) {
    case 0:
        size = 1 + random_below(shape->key_max);
        for (size_t j = 0; j < size; j++)
            to[j] = (uint8_t)('a' + random_below(3));
        return size;
    case 1:
        size = shape->key_max - random_below(8);
        memset(to, 'p', size);
        to[size / 2] = (uint8_t)('0' + random_below(4));
        for (size_t j = 0; j < 4 && j < size; j++)
            to[size - 1 - j] = (uint8_t)('0' + random_below(10));
        return size;
    case 2:
        size = 1 + random_below(shape->key_max);
        for (size_t j = 0; j < size; j++)
            to[j] = random_below(4) == 0 ? 0 : random_below(4) == 0 ? 0xff : (uint8_t)random_next();
        return size;
    case 3:
        return (size_t)sprintf((char *)to, "key:%012zu", i * 3);
    default:
        return (size_t)sprintf((char *)to, "k%u", random_below(5));
    }
}

static void model_build(Model *model, const Shape *shape)
{
    *model = (Model){.lsn_floor = 1000};
    model->entries = calloc(shape->entries * (shape->versions + 1) + 1, sizeof *model->entries);
    ck_assert_ptr_nonnull(model->entries);
    uint8_t *key = malloc(AIDB_KEY_MAX + 32);
    ck_assert_ptr_nonnull(key);
    uint64_t lsn = model->lsn_floor;
    for (size_t i = 0; i < shape->entries; i++) {
        size_t size = random_key(shape, i, key);
        uint8_t *kept = model_bytes(model, size);
        memcpy(kept, key, size);
        uint32_t versions = 1 + random_below(shape->versions);
        for (uint32_t j = 0; j < versions; j++) {
            Entry *entry = &model->entries[model->count++];
            entry->key = slice_make(kept, size);
            entry->lsn = lsn;
            lsn += 1 + (random_below(10) == 0 ? random_below(1u << 20) : random_below(40));
            entry->type = random_below(6) == 0 ? OP_DELETE : OP_PUT;
            if (entry->type == OP_PUT) {
                size_t value_size = random_below(shape->value_max + 1);
                uint8_t *value = model_bytes(model, value_size);
                for (size_t k = 0; k < value_size; k++)
                    value[k] = k % 3 == 0 ? (uint8_t)random_next() : (uint8_t)'v';
                entry->value = slice_make(value, value_size);
            }
        }
    }
    free(key);
    if (model->count > 0)
        qsort(model->entries, model->count, sizeof *model->entries, entry_order);
}

/* The first entry at or after (key, lsn). */
static size_t model_seek(const Model *model, Slice key, uint64_t lsn)
{
    size_t low = 0;
    size_t high = model->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (entry_compare(model->entries[middle].key, model->entries[middle].lsn, key, lsn) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool entry_equal(const Entry *a, const Entry *b)
{
    return slice_equal(a->key, b->key) && slice_equal(a->value, b->value) && a->lsn == b->lsn &&
           a->type == b->type;
}

static TableOptions options_of(Compression compression, uint32_t block_size, uint32_t filter_bits)
{
    TableOptions options = {.block_size = block_size,
                            .compression = compression,
                            .compression_level = 1,
                            .filter_bits = filter_bits};
    memcpy(options.system_id, system_id, 16);
    return options;
}

static TableInfo build_table(const Model *model, const TableOptions *options, uint64_t number,
                             const RangeFragment *fragments, size_t fragment_count)
{
    TableBuilder *builder;
    OK(table_builder_create(options, directory, number, model->lsn_floor, &builder));
    for (size_t i = 0; i < model->count; i++)
        OK(table_builder_add(builder, &model->entries[i]));
    OK(table_builder_add_fragments(builder, fragments, fragment_count));
    ck_assert_uint_eq(table_builder_entries(builder), model->count);
    Slice smallest;
    Slice largest;
    table_builder_bounds(builder, &smallest, &largest);
    if (model->count > 0) {
        ck_assert(slice_equal(smallest, model->entries[0].key));
        ck_assert(slice_equal(largest, model->entries[model->count - 1].key));
    } else {
        ck_assert_uint_eq(smallest.size + largest.size, 0);
    }
    TableInfo info;
    OK(table_builder_finish(builder, &info));
    TableInfo again;
    ck_assert_int_eq(table_builder_finish(builder, &again), AIDB_INTERNAL);
    table_builder_destroy(builder);
    return info;
}

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

/* ---- data blocks ----------------------------------------------------------------------------- */

static const Shape block_shapes[] = {
    {"one", 1, 0, 8, 20, 1, 4096},        {"short keys", 60, 0, 6, 30, 4, 4096},
    {"prefixes", 80, 1, 40, 30, 2, 4096}, {"binary", 70, 2, 9, 200, 3, 4096},
    {"versions", 30, 4, 0, 5, 40, 4096},  {"long keys", 20, 1, 3000, 0, 2, 4096},
};

/* The payload of one block with all entries that differ; duplicates of (key, lsn) do not occur. */
static void build_block(const Model *model, Buffer *payload)
{
    BlockBuilder builder = {0};
    size_t expected = 0;
    for (size_t i = 0; i < model->count; i++) {
        const Entry *entry = &model->entries[i];
        size_t shared = i > 0 ? key_shared_prefix(model->entries[i - 1].key, entry->key) : 0;
        expected = block_builder_size_with(&builder, entry, shared);
        OK(block_builder_add(&builder, entry, shared));
    }
    Slice last = model->count > 0 ? model->entries[model->count - 1].key : (Slice){0};
    size_t plain;
    OK(block_builder_finish(&builder, last, &plain));
    ck_assert_uint_eq(expected, builder.payload.size);
    ck_assert_uint_lt(plain, expected);
    *payload = builder.payload;
    builder.payload = (Buffer){0};
    block_builder_deinit(&builder);
}

/* A key near those of the model: one of them, changed or cut, or a random one. */
static Slice probe_key(const Model *model, uint8_t *room)
{
    if (model->count == 0 || random_below(8) == 0) {
        size_t size = 1 + random_below(10);
        for (size_t i = 0; i < size; i++)
            room[i] = (uint8_t)random_next();
        return slice_make(room, size);
    }
    Slice key = model->entries[random_below((uint32_t)model->count)].key;
    memcpy(room, key.data, key.size);
    switch (random_below(5)) {
    case 0:
        room[random_below((uint32_t)key.size)] ^= (uint8_t)(1u << random_below(8));
        break;
    case 1:
        key.size = 1 + random_below((uint32_t)key.size);
        break;
    case 2:
        if (key.size < AIDB_KEY_MAX)
            room[key.size++] = (uint8_t)(random_below(2) == 0 ? 0 : random_next());
        break;
    default:
        break;
    }
    return slice_make(room, key.size);
}

static uint64_t probe_lsn(const Model *model)
{
    switch (random_below(4)) {
    case 0:
        return LSN_MAX;
    case 1:
        return 0;
    default:
        return model->entries[random_below((uint32_t)model->count)].lsn + random_below(3) - 1;
    }
}

START_TEST(block_model)
{
    random_seed("block_model");
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    for (int round = 0; round < 20; round++) {
        const Shape *shape = &block_shapes[_i];
        Model model;
        model_build(&model, shape);
        Buffer payload;
        build_block(&model, &payload);
        BlockCursor cursor = {0};
        ck_assert(block_cursor_init(&cursor, buffer_slice(&payload)));
        BlockView view;
        ck_assert(block_view_init(&view, buffer_slice(&payload)));

        size_t place = model.count; /* model.count: invalid */
        for (int step = 0; step < 2000; step++) {
            Slice key = probe_key(&model, room);
            uint64_t lsn = probe_lsn(&model);
            switch (random_below(8)) {
            case 0:
                ck_assert(block_cursor_first(&cursor));
                place = 0;
                break;
            case 1:
                ck_assert(block_cursor_last(&cursor));
                place = model.count - 1;
                break;
            case 2:
                ck_assert(block_cursor_seek(&cursor, key, lsn));
                place = model_seek(&model, key, lsn);
                break;
            case 3:
                ck_assert(block_cursor_seek_before(&cursor, key, lsn));
                place = model_seek(&model, key, lsn);
                place = place == 0 ? model.count : place - 1;
                break;
            case 4:
            case 5:
                if (place == model.count)
                    continue;
                ck_assert(block_cursor_next(&cursor));
                place++;
                break;
            case 6:
                if (place == model.count)
                    continue;
                ck_assert(block_cursor_prev(&cursor));
                place = place == 0 ? model.count : place - 1;
                break;
            default: {
                Entry entry;
                size_t at = model_seek(&model, key, lsn);
                bool there = at < model.count && slice_equal(model.entries[at].key, key);
                BlockFind found = block_find(&view, key, lsn, &entry);
                ck_assert_int_eq(found, there ? BLOCK_FOUND : BLOCK_MISSING);
                if (there)
                    ck_assert(entry_equal(&entry, &model.entries[at]));
                continue;
            }
            }
            ck_assert_int_eq(cursor.valid, place < model.count);
            if (cursor.valid)
                ck_assert(entry_equal(&cursor.entry, &model.entries[place]));
        }
        block_cursor_deinit(&cursor);
        buffer_deinit(&payload);
        model_free(&model);
    }
    free(room);
}
END_TEST

/* Any bytes: no read outside (sanitizers tell), and every walk ends. */
START_TEST(block_total)
{
    random_seed("block_total");
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    Model model;
    model_build(&model, &block_shapes[2]);
    Buffer payload;
    build_block(&model, &payload);
    for (int round = 0; round < 20000; round++) {
        size_t size = random_below(4) == 0 ? random_below((uint32_t)payload.size) : payload.size;
        uint8_t *copy = malloc(size + 1);
        memcpy(copy, payload.data, size);
        for (uint32_t flips = 1 + random_below(4); size > 0 && flips > 0; flips--)
            copy[random_below((uint32_t)size)] = (uint8_t)random_next();
        if (size >= 8 && random_below(3) == 0)
            put_fixed32(copy, random_below(40));
        BlockCursor cursor = {0};
        BlockView view;
        Slice key = probe_key(&model, room);
        Entry entry;
        if (block_view_init(&view, slice_make(copy, size)))
            (void)block_find(&view, key, LSN_MAX, &entry);
        if (block_cursor_init(&cursor, slice_make(copy, size))) {
            uint32_t steps = 0;
            for (bool good = block_cursor_first(&cursor); good && cursor.valid;
                 good = block_cursor_next(&cursor))
                ck_assert_uint_lt(steps++, size);
            steps = 0;
            for (bool good = block_cursor_last(&cursor); good && cursor.valid;
                 good = block_cursor_prev(&cursor))
                ck_assert_uint_lt(steps++, size * 2);
            (void)block_cursor_seek(&cursor, key, 5);
            (void)block_cursor_seek_before(&cursor, key, 5);
        }
        block_cursor_deinit(&cursor);
        free(copy);
    }
    buffer_deinit(&payload);
    model_free(&model);
    free(room);
}
END_TEST

/* ---- index blocks ---------------------------------------------------------------------------- */

START_TEST(separators)
{
    random_seed("separators");
    Buffer separator = {0};
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[2][8];
        Slice keys[2];
        for (int i = 0; i < 2; i++) {
            size_t size = 1 + random_below(7);
            for (size_t j = 0; j < size; j++)
                bytes[i][j] = random_below(3) == 0 ? (uint8_t)(random_below(2) * 255)
                                                   : (uint8_t)random_below(3);
            keys[i] = slice_make(bytes[i], size);
        }
        int order = slice_compare(keys[0], keys[1]);
        if (order == 0)
            continue;
        Slice last = order < 0 ? keys[0] : keys[1];
        Slice next = order < 0 ? keys[1] : keys[0];
        separator.size = 0;
        OK(index_separator(last, next, &separator));
        ck_assert_int_ge(slice_compare(buffer_slice(&separator), last), 0);
        ck_assert_int_lt(slice_compare(buffer_slice(&separator), next), 0);
        ck_assert_uint_le(separator.size, last.size);
    }
    buffer_deinit(&separator);
}
END_TEST

START_TEST(index_model)
{
    random_seed("index_model");
    static const Shape shapes[] = {
        {"none", 0, 0, 5, 0, 1, 0},      {"one", 1, 0, 5, 0, 1, 0},
        {"short", 200, 0, 12, 0, 3, 0},  {"prefixes", 300, 1, 30, 0, 2, 0},
        {"binary", 300, 2, 14, 0, 2, 0}, {"counters", 500, 3, 0, 0, 1, 0},
        {"few", 20, 4, 0, 0, 30, 0},     {"long", 40, 1, 5000, 0, 1, 0}};
    uint8_t *room = malloc(AIDB_KEY_MAX + 1);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        Model model;
        model_build(&model, &shapes[s]);
        IndexBuilder builder = {0};
        for (size_t i = 0; i < model.count; i++) {
            /* As tables do: no LSN when the next user key is another one. */
            if (i + 1 == model.count ||
                !slice_equal(model.entries[i].key, model.entries[i + 1].key))
                model.entries[i].lsn = 0;
            BlockHandle handle = {
                .offset = 64 + i * 4000, .size = 3000 + (uint32_t)i, .raw = i % 3 == 0};
            OK(index_builder_add(&builder, model.entries[i].key, model.entries[i].lsn, &handle));
        }
        Buffer payload = {0};
        OK(index_builder_block(&builder, 0, builder.count, &payload));
        IndexView view;
        ck_assert(index_view_init(&view, buffer_slice(&payload)));
        ck_assert_uint_eq(view.count, model.count);
        Buffer separator = {0};
        for (uint32_t i = 0; i < view.count; i++) {
            BlockHandle handle;
            uint64_t lsn;
            ck_assert(index_handle(&view, i, &handle));
            ck_assert_uint_eq(handle.offset, 64 + (uint64_t)i * 4000);
            ck_assert_uint_eq(handle.size, 3000 + i);
            ck_assert_int_eq(handle.raw, i % 3 == 0);
            ck_assert_int_eq(index_separator_at(&view, i, &separator, &lsn), INDEX_OK);
            ck_assert(slice_equal(buffer_slice(&separator), model.entries[i].key));
            ck_assert_uint_eq(lsn, model.entries[i].lsn);
        }
        for (int i = 0; i < 5000; i++) {
            Slice key = probe_key(&model, room);
            uint64_t lsn = model.count > 0 ? probe_lsn(&model) : 5;
            uint32_t position;
            ck_assert(index_find(&view, key, lsn, &position));
            ck_assert_uint_eq(position, model_seek(&model, key, lsn));
        }
        /* Any bytes. */
        for (int i = 0; i < 3000 && payload.size > 0; i++) {
            size_t size =
                random_below(3) == 0 ? random_below((uint32_t)payload.size) : payload.size;
            uint8_t *copy = malloc(size + 1);
            memcpy(copy, payload.data, size);
            for (uint32_t flips = 1 + random_below(6); size > 0 && flips > 0; flips--)
                copy[random_below((uint32_t)(random_below(2) == 0 && size > 32 ? 32 : size))] =
                    (uint8_t)random_next();
            IndexView damaged;
            if (index_view_init(&damaged, slice_make(copy, size))) {
                uint32_t position = 0;
                uint64_t lsn;
                BlockHandle handle;
                if (index_find(&damaged, probe_key(&model, room), 7, &position)) {
                    ck_assert_uint_le(position, damaged.count);
                    (void)index_handle(&damaged, position, &handle);
                }
                (void)index_separator_at(&damaged, random_below(damaged.count + 1), &separator,
                                         &lsn);
            }
            free(copy);
        }
        buffer_deinit(&separator);
        buffer_deinit(&payload);
        index_builder_deinit(&builder);
        model_free(&model);
    }
    free(room);
}
END_TEST

/* ---- filter ---------------------------------------------------------------------------------- */

static void check_filter(uint32_t keys, uint32_t bits, double most)
{
    FilterShape shape = filter_shape(keys, bits);
    ck_assert_uint_gt(shape.sections, 0);
    ck_assert_uint_le(filter_payload_size(shape.lines) + TRAILER_SIZE, 32768);
    size_t size = filter_payload_size(shape.lines);
    uint8_t *sections = calloc(shape.sections, size);
    for (uint32_t i = 0; i < shape.sections; i++)
        sections[i * size + size - 1] = (uint8_t)shape.probes;
    char key[32];
    for (uint32_t i = 0; i < keys; i++) {
        uint64_t hash = table_key_hash(slice_make(key, (size_t)sprintf(key, "key:%012u", i)));
        filter_add(sections + filter_section_of(hash, shape.sections) * size, shape.lines,
                   shape.probes, hash);
    }
    uint32_t wrong = 0;
    uint32_t tries = 100000;
    for (uint32_t i = 0; i < keys + tries; i++) {
        uint64_t hash = table_key_hash(slice_make(key, (size_t)sprintf(key, "key:%012u", i)));
        uint32_t section = filter_section_of(hash, shape.sections);
        ck_assert_uint_lt(section, shape.sections);
        bool may = filter_may_contain(slice_make(sections + section * size, size), hash);
        if (i < keys)
            ck_assert(may);
        else
            wrong += may;
    }
    free(sections);
    double rate = (double)wrong / tries;
    printf("filter: %u keys, %u bits, %u sections: false positives %.3f%%\n", keys, bits,
           shape.sections, rate * 100);
    ck_assert_msg(rate <= most, "%u keys, %u bits: %f", keys, bits, rate);
}

START_TEST(filter_rates)
{
    check_filter(100000, 10, 0.015);
    check_filter(100000, 5, 0.12);
    check_filter(100000, 16, 0.0035);
    check_filter(1000, 10, 0.02);
    check_filter(3, 10, 0.05);
    check_filter(1, 1, 0.05);
    ck_assert_uint_eq(filter_shape(0, 10).sections, 0);
    ck_assert_uint_eq(filter_shape(10, 0).sections, 0);
    uint8_t odd[130] = {0};
    ck_assert(filter_may_contain(slice_make(odd, 0), 1)); /* no section: no answer */
    ck_assert(filter_may_contain(slice_make(odd, 64), 1));
    ck_assert(filter_may_contain(slice_make(odd, 130), 1));
    odd[64] = 200;
    ck_assert(filter_may_contain(slice_make(odd, 65), 1));
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

static size_t make_fragments(const Model *model, RangeFragment *fragments, uint64_t *lsns,
                             size_t most)
{
    size_t count = 0;
    for (size_t i = 0; i + 1 < model->count && count < most; i += 1 + random_below(40)) {
        Slice from = model->entries[i].key;
        Slice to = model->entries[i + 1].key;
        if (slice_compare(from, to) >= 0 ||
            (count > 0 && slice_compare(fragments[count - 1].to, from) > 0))
            continue;
        uint32_t lsn_count = 1 + random_below(3);
        for (uint32_t j = 0; j < lsn_count; j++)
            lsns[count * 3 + j] = model->lsn_floor + 5000 - j * 100 - random_below(50);
        fragments[count] = (RangeFragment){
            .from = from, .to = to, .lsns = lsns + count * 3, .lsn_count = lsn_count};
        count++;
    }
    if (count > 0 && random_below(2) == 0)
        fragments[count - 1].to = (Slice){0};
    if (count > 0 && random_below(2) == 0)
        fragments[0].from = (Slice){0};
    return count;
}

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
    size_t count = random_below(MANY + 1);
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
    OK(table_iter_create(reader, info, readahead, &iter));
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
        switch (random_below(16)) {
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
            bool forward = random_below(2) == 0;
            for (uint32_t n = random_below(30); n > 0 && place < model->count; n--) {
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
        uint64_t visible = model->lsn_floor + random_below(6000);
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
    random_seed("table_model");
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
        options.hasty = random_below(2) == 1;
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
    random_seed("walking_keeps_no_blocks");
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
            OK(table_iter_create(&reader, &info, false, &iter));
            size_t seen = 0;
            for (OK(iter->ops->seek_first(iter)); iter->valid; OK(iter->ops->next(iter)))
                ck_assert(entry_equal(&iter->entry, &model.entries[seen++]));
            ck_assert_uint_eq(seen, model.count);
            for (OK(iter->ops->seek_last(iter)); iter->valid; OK(iter->ops->prev(iter)))
                ck_assert(entry_equal(&iter->entry, &model.entries[--seen]));
            ck_assert_uint_eq(seen, 0);
            for (size_t n = 0; n < 40; n++) { /* with no run in one direction */
                size_t at = random_below((uint32_t)model.count);
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
    random_seed("block_sizes");
    make_directory();
    Model model;
    Shape shape = {"random values", 1000, 3, 0, 800, 1, 4096};
    model_build(&model, &shape);
    for (size_t i = 0; i < model.count; i++) /* nothing to compress */
        for (size_t j = 0; j < model.entries[i].value.size; j++)
            ((uint8_t *)(uintptr_t)model.entries[i].value.data)[j] = (uint8_t)random_next();
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
            bool good = table_iter_create(&reader, reading->info, i % 32 == 0, &iter) == AIDB_OK &&
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
START_TEST(concurrent_readers)
{
    random_seed("concurrent_readers");
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
                                .seed = random_next()};
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

/* ---- damage ---------------------------------------------------------------------------------- */

typedef struct Found {
    uint32_t count;
    uint64_t offset;
} Found;

static void count_damage(void *arg, const char *path, uint64_t offset, const char *what)
{
    Found *found = arg;
    ck_assert_ptr_nonnull(path);
    ck_assert_ptr_nonnull(what);
    found->count++;
    found->offset = offset;
}

typedef struct Sample {
    Model model;
    RangeFragment fragments[64];
    uint64_t lsns[192];
    size_t fragment_count;
    TableOptions options;
    TableInfo info;
    char path[400];
    Buffer bytes;
} Sample;

static void sample_make(Sample *sample, const Shape *shape, Compression compression,
                        uint64_t number)
{
    *sample = (Sample){0};
    model_build(&sample->model, shape);
    sample->fragment_count = make_fragments(&sample->model, sample->fragments, sample->lsns, 20);
    sample->options = options_of(compression, shape->block_size, 10);
    sample->info = build_table(&sample->model, &sample->options, number, sample->fragments,
                               sample->fragment_count);
    table_path(number, sample->path);
    OK(file_read_whole(sample->path, 64u << 20, &sample->bytes));
}

static void sample_free(Sample *sample)
{
    model_free(&sample->model);
    buffer_deinit(&sample->bytes);
}

/* Readers never look at the copy of a dictionary: repair does. */
static Status read_dictionary_copy(TableReader *reader, const TableInfo *info)
{
    if (info->dictionary_size == 0)
        return AIDB_OK;
    Slice copy;
    BlockRead read = {.kind = BLOCK_DICTIONARY,
                      .handle = {.offset = table_dictionary_copy(info),
                                 .size = info->dictionary_size,
                                 .raw = true}};
    return table_block_read(reader, info, &read, &copy);
}

/* Reads everything there is to read. Wrong data fails the test; an error is returned, and must name the
 * file and an offset. */
static Status read_everything(const Sample *sample)
{
    TableInfo info;
    RETURN_IF_FAILED(table_info_read(sample->path, system_id, &info));
    ck_assert_mem_eq(&info, &sample->info, sizeof info);
    FileCache *files;
    OK(file_cache_create(directory, 2, &files));
    TableReader reader = {.files = files};
    Iter *iter = NULL;
    RangeFragments fragments = {0};
    Status status = AIDB_OK;
    OUT_IF_FAILED(table_iter_create(&reader, &info, true, &iter));
    size_t place = 0;
    OUT_IF_FAILED(iter->ops->seek_first(iter));
    while (iter->valid) {
        ck_assert(place < sample->model.count &&
                  entry_equal(&iter->entry, &sample->model.entries[place]));
        place++;
        OUT_IF_FAILED(iter->ops->next(iter));
    }
    ck_assert_uint_eq(place, sample->model.count);
    for (size_t i = 0; i < sample->model.count; i++) {
        const Entry *expected = &sample->model.entries[i];
        Entry entry;
        bool found;
        OUT_IF_FAILED(table_get(&reader, &info, expected->key, table_key_hash(expected->key),
                                expected->lsn, &entry, &found));
        ck_assert(found && entry_equal(&entry, expected));
    }
    OUT_IF_FAILED(table_fragments(&reader, &info, &fragments));
    ck_assert_uint_eq(fragments.count, sample->fragment_count);
    for (size_t i = 0; i < fragments.count; i++)
        ck_assert(slice_equal(fragments.items[i].from, sample->fragments[i].from) &&
                  slice_equal(fragments.items[i].to, sample->fragments[i].to));
    OUT_IF_FAILED(info.filter_sections > 0 ? AIDB_OK : AIDB_INTERNAL);
    OUT_IF_FAILED(read_dictionary_copy(&reader, &info));
out:
    iter_destroy(iter);
    range_fragments_deinit(&fragments);
    table_reader_deinit(&reader);
    file_cache_destroy(files);
    return status;
}

static void expect_detected(const Sample *sample, const char *change, uint64_t where)
{
    Status status = read_everything(sample);
    ck_assert_msg(status == AIDB_CORRUPTION, "%s at %" PRIu64 ": reading gives %s", change, where,
                  status_name(status));
    ck_assert_ptr_nonnull(strstr(status_message(), sample->path));
    ck_assert_ptr_nonnull(strstr(status_message(), "offset"));
    Found found = {0};
    OK(table_verify(sample->path, system_id, NULL, count_damage, &found));
    ck_assert_msg(found.count > 0, "%s at %" PRIu64 " is not found by verify", change, where);
    found = (Found){0};
    OK(table_verify(sample->path, system_id, &sample->info, count_damage, &found));
    ck_assert_msg(found.count > 0, "%s at %" PRIu64 " is not found by verify", change, where);
}

static void overwrite(const char *path, uint64_t offset, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, size, (off_t)offset), (ssize_t)size);
    close(fd);
}

static const Shape small_shape = {"small", 25, 0, 10, 60, 2, 512};

START_TEST(damage_every_byte)
{
    random_seed("damage_every_byte");
    make_directory();
    Sample sample;
    Compression compression = (Compression)_i;
    if (!compression_supported(compression))
        compression = COMPRESSION_NONE;
    sample_make(&sample, &small_shape, compression, TABLE_NUMBER(1, 7));
    OK(read_everything(&sample));
    for (uint64_t i = 0; i < sample.bytes.size; i++) {
        uint8_t xors[3] = {(uint8_t)(1u << random_below(8)), 0xff,
                           (uint8_t)(1 + random_below(255))};
        for (int j = 0; j < 3; j++) {
            uint8_t byte = sample.bytes.data[i] ^ xors[j];
            overwrite(sample.path, i, &byte, 1);
            expect_detected(&sample, "flip", i);
        }
        overwrite(sample.path, i, &sample.bytes.data[i], 1);
    }
    OK(read_everything(&sample));
    printf("%zu bytes, 3 changes each, all found\n", (size_t)sample.bytes.size);
    sample_free(&sample);
    remove_directory();
}
END_TEST

/* The same for parts that a small table does not have: random places of one with two index levels,
 * and of one with a dictionary. */
START_TEST(damage_random)
{
    static const Shape shapes[] = {{"two levels", 150, 1, 1500, 2000, 1, 1024},
                                   {"dictionary", 4500, 3, 0, 150, 1, 1024}};
    random_seed("damage_random");
    make_directory();
    Sample sample;
    sample_make(&sample, &shapes[_i], _i == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD,
                TABLE_NUMBER(1, 8));
    ck_assert_uint_eq(sample.info.index_levels, _i == 0 ? 2 : 1);
    ck_assert_int_eq(sample.info.dictionary_size > 0, _i == 1);
    uint64_t data_end = TABLE_HEADER_SIZE + sample.info.data_size;
    for (int i = 0; i < (_i == 0 ? 300 : 60); i++) {
        uint64_t at = random_below((uint32_t)sample.bytes.size);
        if (i % 3 == 0) /* behind the data */
            at = data_end + random_below((uint32_t)(sample.bytes.size - data_end));
        else if (i % 3 == 1 && _i == 1)
            at = sample.info.dictionary_offset + random_below(sample.info.dictionary_size);
        uint8_t byte = sample.bytes.data[at] ^ (uint8_t)(1 + random_below(255));
        overwrite(sample.path, at, &byte, 1);
        expect_detected(&sample, "flip", at);
        overwrite(sample.path, at, &sample.bytes.data[at], 1);
    }
    OK(read_everything(&sample));
    sample_free(&sample);
    remove_directory();
}
END_TEST

/* Whether to try everything, not what there is time for in each run of the tests. */
static bool try_everything(void)
{
    const char *text = getenv("AIDB_DAMAGE");
    return text != NULL && strcmp(text, "full") == 0;
}

/* What meets each part of a table, without reading blocks twice: properties, filter sections, all entries,
 * range tombstones. */
static Status read_once(const Sample *sample)
{
    TableInfo info;
    RETURN_IF_FAILED(table_info_read(sample->path, system_id, &info));
    ck_assert_mem_eq(&info, &sample->info, sizeof info);
    FileCache *files;
    OK(file_cache_create(directory, 2, &files));
    TableReader reader = {.files = files};
    Iter *iter = NULL;
    RangeFragments fragments = {0};
    uint8_t sections[64] = {0};
    size_t place = 0;
    Status status = AIDB_OK;
    OUT_IF_FAILED(table_fragments(&reader, &info, &fragments));
    ck_assert_uint_eq(fragments.count, sample->fragment_count);
    ck_assert_uint_le(info.filter_sections, sizeof sections);
    OUT_IF_FAILED(table_iter_create(&reader, &info, true, &iter));
    for (status = iter->ops->seek_first(iter); status == AIDB_OK && iter->valid;
         status = iter->ops->next(iter), place++) {
        const Entry *expected = &sample->model.entries[place];
        ck_assert(place < sample->model.count && entry_equal(&iter->entry, expected));
        uint64_t hash = table_key_hash(expected->key);
        uint8_t *asked = &sections[filter_section_of(hash, info.filter_sections)];
        if (!*asked) {
            Entry entry;
            bool found;
            OUT_IF_FAILED(
                table_get(&reader, &info, expected->key, hash, expected->lsn, &entry, &found));
            ck_assert(found && entry_equal(&entry, expected));
            *asked = 1;
        }
    }
    if (status == AIDB_OK) {
        ck_assert_uint_eq(place, sample->model.count);
        OUT_IF_FAILED(read_dictionary_copy(&reader, &info));
    }
out:
    iter_destroy(iter);
    range_fragments_deinit(&fragments);
    table_reader_deinit(&reader);
    file_cache_destroy(files);
    return status;
}

/* A table of 256 KiB: every byte with three values when there is time, else a sample. */
START_TEST(damage_large)
{
    random_seed("damage_large");
    make_directory();
    Sample sample;
    Shape shape = {"large", 2100, 1, 60, 200, 2, 4096};
    Compression compression = _i == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD;
    sample_make(&sample, &shape, compression, TABLE_NUMBER(1, 9));
    OK(read_once(&sample));
    uint64_t size = sample.bytes.size;
    uint64_t places = try_everything() ? size : 300;
    for (uint64_t i = 0; i < places; i++) {
        uint64_t at = try_everything() ? i : random_below((uint32_t)size);
        for (int j = 0; j < 3; j++) {
            uint8_t byte = sample.bytes.data[at] ^ (uint8_t)(j == 0   ? 1u << random_below(8)
                                                             : j == 1 ? 0xff
                                                                      : 1 + random_below(255));
            overwrite(sample.path, at, &byte, 1);
            Status status = read_once(&sample);
            ck_assert_msg(status == AIDB_CORRUPTION, "flip at %" PRIu64 ": reading gives %s", at,
                          status_name(status));
            ck_assert_ptr_nonnull(strstr(status_message(), sample.path));
            Found found = {0};
            OK(table_verify(sample.path, system_id, &sample.info, count_damage, &found));
            ck_assert_msg(found.count > 0, "flip at %" PRIu64 " is not found by verify", at);
        }
        overwrite(sample.path, at, &sample.bytes.data[at], 1);
    }
    printf("table of %" PRIu64 " bytes changed at %" PRIu64 " places, 3 values each, all found\n",
           size, places);
    sample_free(&sample);
    remove_directory();
}
END_TEST

/* Blocks of records that resemble each other shrink by the dictionary; noise goes without. */
START_TEST(dictionary_use)
{
    random_seed("dictionary_use");
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
                (unsigned)random_next(), random_below(2) ? "Bern" : "Oslo", random_below(1000000));
            if (noise == 1)
                size = 200;
            for (size_t j = 0; noise == 1 && j < size; j++)
                value[j] = (uint8_t)random_next();
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

START_TEST(damage_truncation)
{
    random_seed("damage_truncation");
    make_directory();
    Sample sample;
    sample_make(&sample, &small_shape, COMPRESSION_ZSTD, TABLE_NUMBER(1, 7));
    for (uint64_t size = sample.bytes.size; size-- > 0;) {
        ck_assert_int_eq(truncate(sample.path, (off_t)size), 0);
        expect_detected(&sample, "truncation", size);
        /* A session that knows the table from the manifest, and has not opened the file yet. */
        FileCache *files;
        OK(file_cache_create(directory, 2, &files));
        TableReader reader = {.files = files};
        Entry entry;
        bool found;
        Slice key = sample.model.entries[0].key;
        ck_assert_int_eq(
            table_get(&reader, &sample.info, key, table_key_hash(key), LSN_MAX, &entry, &found),
            AIDB_CORRUPTION);
        table_reader_deinit(&reader);
        file_cache_destroy(files);
    }
    /* Longer than it should be. */
    overwrite(sample.path, 0, sample.bytes.data, sample.bytes.size);
    overwrite(sample.path, sample.bytes.size, "x", 1);
    expect_detected(&sample, "growth", sample.bytes.size);
    sample_free(&sample);
    remove_directory();
}
END_TEST

START_TEST(damage_swaps)
{
    random_seed("damage_swaps");
    make_directory();
    Sample samples[2];
    Shape shape = {"swaps", 300, 3, 0, 100, 1, 512};
    sample_make(&samples[0], &shape, COMPRESSION_NONE, TABLE_NUMBER(1, 7));
    sample_make(&samples[1], &shape, COMPRESSION_NONE, TABLE_NUMBER(1, 8));
    const Buffer *bytes = &samples[0].bytes;

    /* Where the data blocks are. */
    BlockHandle handles[512];
    uint32_t count = 0;
    FileCache *files;
    OK(file_cache_create(directory, 2, &files));
    TableReader reader = {.files = files};
    Slice payload;
    BlockHandle root = {.offset = samples[0].info.index_offset, .size = samples[0].info.index_size};
    OK(table_block_read(&reader, &samples[0].info,
                        &(BlockRead){.kind = BLOCK_INDEX, .handle = root}, &payload));
    IndexView view;
    ck_assert(index_view_init(&view, payload));
    for (; count < view.count && count < 512; count++)
        ck_assert(index_handle(&view, count, &handles[count]));
    table_reader_deinit(&reader);
    file_cache_destroy(files);
    ck_assert_uint_gt(count, 20);

    int moves = try_everything() ? 100000 : 1000;
    for (int i = 0; i < moves; i++) {
        uint32_t a = random_below(count);
        uint32_t b = random_below(count);
        uint64_t size = handles[a].size < handles[b].size ? handles[a].size : handles[b].size;
        uint64_t from = handles[a].offset;
        uint64_t to = handles[b].offset;
        const Buffer *source = bytes;
        switch (i % 4) {
        case 0: /* block over block of the same file */
            break;
        case 1: /* the same place of another file */
            source = &samples[1].bytes;
            from = to;
            size = 200;
            break;
        case 2: /* any run of bytes over any other */
            from = random_below((uint32_t)bytes->size - 64);
            to = random_below((uint32_t)bytes->size - 64);
            size = 1 + random_below(64);
            break;
        default: /* tails: footers and properties of another file */
            source = &samples[1].bytes;
            size = 1 + random_below(400);
            from = source->size - size;
            to = bytes->size - size;
            break;
        }
        if (to + size > bytes->size || from + size > source->size ||
            memcmp(source->data + from, bytes->data + to, size) == 0)
            continue;
        overwrite(samples[0].path, to, source->data + from, size);
        expect_detected(&samples[0], "move", to);
        overwrite(samples[0].path, to, bytes->data + to, size);
    }
    printf("%d blocks and runs of bytes moved, all found\n", moves);
    /* Zeroed pages. */
    uint8_t zeroes[4096] = {0};
    for (uint64_t at = 0; at < bytes->size; at += sizeof zeroes) {
        uint64_t size = bytes->size - at < sizeof zeroes ? bytes->size - at : sizeof zeroes;
        overwrite(samples[0].path, at, zeroes, size);
        expect_detected(&samples[0], "zeroes", at);
        overwrite(samples[0].path, at, bytes->data + at, size);
    }
    OK(read_everything(&samples[0]));

    /* A whole other table under this name, and no file at all. */
    ck_assert_int_eq(rename(samples[1].path, samples[0].path), 0);
    TableInfo info;
    ck_assert_int_eq(table_info_read(samples[0].path, system_id, &info), AIDB_CORRUPTION);
    Found found = {0};
    OK(table_verify(samples[0].path, system_id, &samples[0].info, count_damage, &found));
    ck_assert_uint_gt(found.count, 0);
    ck_assert_int_eq(unlink(samples[0].path), 0);
    OK(file_cache_create(directory, 2, &files));
    reader = (TableReader){.files = files};
    Entry entry;
    bool there;
    Slice key = samples[0].model.entries[0].key;
    ck_assert_int_eq(
        table_get(&reader, &samples[0].info, key, table_key_hash(key), LSN_MAX, &entry, &there),
        AIDB_CORRUPTION);
    table_reader_deinit(&reader);
    file_cache_destroy(files);
    sample_free(&samples[0]);
    sample_free(&samples[1]);
    remove_directory();
}
END_TEST

/* Verify goes on after damage: every damaged block is named. */
START_TEST(verify_goes_on)
{
    make_directory();
    Sample sample;
    Shape shape = {"many blocks", 2000, 3, 0, 100, 1, 512};
    sample_make(&sample, &shape, COMPRESSION_NONE, TABLE_NUMBER(1, 7));
    for (uint64_t i = 0; i < 20; i++) {
        uint64_t at = TABLE_HEADER_SIZE + sample.info.data_size / 20 * i + 7;
        uint8_t byte = sample.bytes.data[at] ^ 0x20;
        overwrite(sample.path, at, &byte, 1);
    }
    uint64_t filter_at = sample.info.filter_offset + 5;
    uint8_t byte = sample.bytes.data[filter_at] ^ 1;
    overwrite(sample.path, filter_at, &byte, 1);
    Found found = {0};
    OK(table_verify(sample.path, system_id, &sample.info, count_damage, &found));
    ck_assert_uint_eq(found.count, 21);
    sample_free(&sample);
    remove_directory();
}
END_TEST

/* ---- building: what is refused, and failing files -------------------------------------------- */

START_TEST(builder_refuses)
{
    make_directory();
    TableOptions options = options_of(COMPRESSION_NONE, 4096, 10);
    static const struct {
        const char *first;
        uint64_t first_lsn;
        const char *second;
        uint64_t second_lsn;
    } bad[] = {{"b", 5, "a", 6},  {"a", 5, "a", 5}, {"a", 5, "a", 6},
               {"ab", 5, "a", 4}, {"a", 5, "", 6},  {"a", 5, "b", 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        TableBuilder *builder;
        OK(table_builder_create(&options, directory, TABLE_NUMBER(1, 1), 2, &builder));
        TableBuilder *second;
        ck_assert_int_eq(table_builder_create(&options, directory, TABLE_NUMBER(1, 1), 2, &second),
                         AIDB_IO);
        ck_assert_ptr_null(second);
        Entry entry = {
            .key = slice_from_string(bad[i].first), .lsn = bad[i].first_lsn, .type = OP_PUT};
        OK(table_builder_add(builder, &entry));
        entry = (Entry){
            .key = slice_from_string(bad[i].second), .lsn = bad[i].second_lsn, .type = OP_PUT};
        ck_assert_int_eq(table_builder_add(builder, &entry), AIDB_INTERNAL);
        entry = (Entry){.key = slice_from_string("z"), .lsn = 9, .type = OP_PUT};
        ck_assert_int_eq(table_builder_add(builder, &entry), AIDB_INTERNAL); /* it stays failed */
        TableInfo info;
        ck_assert_int_eq(table_builder_finish(builder, &info), AIDB_INTERNAL);
        table_builder_destroy(builder);
        char path[400];
        table_path(TABLE_NUMBER(1, 1), path);
        ck_assert(!file_exists(path));
    }
    TableBuilder *builder;
    OK(table_builder_create(&options, directory, TABLE_NUMBER(1, 2), 2, &builder));
    uint64_t lsns[2] = {9, 8};
    RangeFragment overlap[2] = {{slice_from_string("a"), slice_from_string("c"), lsns, 2},
                                {slice_from_string("b"), slice_from_string("d"), lsns, 2}};
    ck_assert_int_eq(table_builder_add_fragments(builder, overlap, 2), AIDB_INTERNAL);
    table_builder_destroy(builder);
#ifndef HAVE_SNAPPY
    options.compression = COMPRESSION_SNAPPY;
    ck_assert_int_eq(table_builder_create(&options, directory, TABLE_NUMBER(1, 3), 2, &builder),
                     AIDB_UNSUPPORTED);
#endif
    OK(directory_list(directory, remove_name, NULL));
    remove_directory();
}
END_TEST

/* The file cannot grow past a limit: every limit gives an error, no file stays, nothing leaks. */
START_TEST(builder_full_disk)
{
    make_directory();
    Model model;
    Shape shape = {"full", 3000, 3, 0, 800, 1, 4096};
    random_seed("builder_full_disk");
    model_build(&model, &shape);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (uint64_t limit = 0; limit < 1400000; limit += 100000 + random_below(10000)) {
        struct rlimit small = {.rlim_cur = limit, .rlim_max = before.rlim_max};
        TableOptions options = options_of(COMPRESSION_NONE, 4096, 10);
        TableBuilder *builder;
        OK(table_builder_create(&options, directory, TABLE_NUMBER(1, 1), model.lsn_floor,
                                &builder));
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
        Status status = AIDB_OK;
        for (size_t i = 0; i < model.count && status == AIDB_OK; i++)
            status = table_builder_add(builder, &model.entries[i]);
        TableInfo info;
        Status end = table_builder_finish(builder, &info);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
        if (status == AIDB_OK && end == AIDB_OK) {
            ck_assert_uint_le(info.file_size, limit);
        } else {
            ck_assert_int_ne(end, AIDB_OK);
            ck_assert_int_eq(status != AIDB_OK ? status : end, AIDB_IO);
        }
        table_builder_destroy(builder);
        char path[400];
        table_path(TABLE_NUMBER(1, 1), path);
        ck_assert_int_eq(file_exists(path), end == AIDB_OK);
        if (end == AIDB_OK)
            OK(file_unlink(path));
    }
    model_free(&model);
    remove_directory();
}
END_TEST

/* ---- open files ------------------------------------------------------------------------------ */

static uint32_t open_descriptors(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

START_TEST(file_cache_bounded)
{
    random_seed("file_cache_bounded");
    make_directory();
    enum { TABLES = 12 };
    TableInfo infos[TABLES];
    Model model;
    model_build(&model, &small_shape);
    TableOptions options = options_of(COMPRESSION_NONE, 4096, 0);
    for (uint64_t i = 0; i < TABLES; i++)
        infos[i] = build_table(&model, &options, TABLE_NUMBER(1, i + 1), NULL, 0);
    for (uint32_t capacity = 0; capacity < 6; capacity++) {
        uint32_t before = open_descriptors();
        FileCache *files;
        OK(file_cache_create(directory, capacity, &files));
        for (int i = 0; i < 500; i++) {
            uint32_t which = random_below(TABLES);
            const File *file;
            OK(file_cache_get(files, &infos[which], &file));
            char name[TABLE_NAME_SIZE];
            table_name(infos[which].number, name);
            ck_assert_ptr_nonnull(strstr(file->path, name));
            ck_assert_uint_le(open_descriptors() - before, capacity == 0 ? 1 : capacity);
            if (random_below(10) == 0)
                file_cache_forget(files, infos[random_below(TABLES)].number);
        }
        file_cache_destroy(files);
        ck_assert_uint_eq(open_descriptors(), before);
    }
    /* Out of descriptors: the cache gives back its own and goes on. */
    FileCache *files;
    OK(file_cache_create(directory, 100, &files));
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct rlimit few = {.rlim_cur = 3, .rlim_max = limit.rlim_max};
    while (fcntl((int)few.rlim_cur, F_GETFD) >= 0)
        few.rlim_cur++;
    few.rlim_cur += 3;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    for (int i = 0; i < 100; i++) {
        const File *file;
        OK(file_cache_get(files, &infos[random_below(TABLES)], &file));
    }
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    file_cache_destroy(files);
    model_free(&model);
    remove_directory();
}
END_TEST

static void damage_is_none(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)arg;
    ck_abort_msg("%s: %llu: %s", path, (unsigned long long)offset, what);
}

/* A table of another format is no damaged one: whoever opens it says which format it has. */
START_TEST(another_format_is_named)
{
    random_seed("another_format_is_named");
    make_directory();
    Model model;
    model_build(&model, &small_shape);
    TableOptions options = options_of(COMPRESSION_NONE, 4096, 0);
    TableInfo info = build_table(&model, &options, TABLE_NUMBER(1, 1), NULL, 0);
    char path[400];
    table_path(info.number, path);
    static const uint32_t versions[] = {TABLE_VERSION - 1, TABLE_VERSION + 1};
    for (size_t i = 0; i < 2; i++) {
        uint8_t header[TABLE_HEADER_SIZE];
        table_header_encode(header, system_id, info.number, info.id);
        put_fixed32(header + 8, versions[i]);
        put_fixed64(header + 56, table_checksum(info.id, 0, header, 56));
        overwrite(path, 0, header, sizeof header);
        char expected[100];
        snprintf(expected, sizeof expected, "has format %u, this version of AiDb reads format %u",
                 versions[i], TABLE_VERSION);
        FileCache *files;
        const File *file;
        OK(file_cache_create(directory, 1, &files));
        ck_assert_int_eq(file_cache_get(files, &info, &file), AIDB_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(status_text(), path));
        ck_assert_ptr_nonnull(strstr(status_text(), expected));
        ck_assert_ptr_nonnull(strstr(status_text(), i == 0 ? "an older" : "a newer"));
        file_cache_destroy(files);
        TableInfo read;
        ck_assert_int_eq(table_info_read(path, system_id, &read), AIDB_UNSUPPORTED);
        TableSalvage *salvage;
        ck_assert_int_eq(table_salvage_open(path, NULL, NULL, NULL, NULL, &salvage),
                         AIDB_UNSUPPORTED);
        status_clear();
        ck_assert_int_eq(table_verify(path, system_id, &info, damage_is_none, NULL),
                         AIDB_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(status_text(), expected));
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
    tcase_add_loop_test(parts, block_model, 0, (int)(sizeof block_shapes / sizeof *block_shapes));
    tcase_add_test(parts, block_total);
    tcase_add_test(parts, separators);
    tcase_add_test(parts, index_model);
    tcase_add_test(parts, filter_rates);
    suite_add_tcase(suite, parts);
    TCase *tables = tcase_create("tables");
    tcase_set_timeout(tables, 300);
    tcase_add_loop_test(tables, table_model, 0, (int)(sizeof table_shapes / sizeof *table_shapes));
    tcase_add_test(tables, table_limits);
    tcase_add_test(tables, walking_keeps_no_blocks);
    tcase_add_test(tables, block_sizes);
    tcase_add_test(tables, dictionary_use);
    tcase_add_test(tables, builder_refuses);
    tcase_add_test(tables, builder_full_disk);
    tcase_add_test(tables, file_cache_bounded);
    tcase_add_test(tables, another_format_is_named);
    suite_add_tcase(suite, tables);
    TCase *readers = tcase_create("readers");
    tcase_set_timeout(readers, 300);
    tcase_add_test(readers, concurrent_readers);
    suite_add_tcase(suite, readers);
    TCase *damage = tcase_create("damage");
    tcase_set_timeout(damage, 7200);
    tcase_add_loop_test(damage, damage_every_byte, 0, 3);
    tcase_add_loop_test(damage, damage_random, 0, 2);
    tcase_add_loop_test(damage, damage_large, 0, 2);
    tcase_add_test(damage, damage_truncation);
    tcase_add_test(damage, damage_swaps);
    tcase_add_test(damage, verify_goes_on);
    suite_add_tcase(suite, damage);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(sstable_suite());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
