/*
 * damage_test.c - tables with changed, missing and exchanged bytes: every reader tells.
 */
#include "config.h"

#include "engine/sstable/test_table.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

/* Reads every block of the table: all entries, fragments, both dictionaries; by gets one entry of each filter
 * section, or with `all_gets` every entry. Wrong data fails the test; an error is returned, and must name
 * the file and an offset. */
static Status read_table(const Sample *sample, bool all_gets)
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
    ck_assert(info.filter_sections > 0 && info.filter_sections <= sizeof sections);
    OUT_IF_FAILED(table_fragments(&reader, &info, &fragments));
    ck_assert_uint_eq(fragments.count, sample->fragment_count);
    for (size_t i = 0; i < fragments.count; i++)
        ck_assert(slice_equal(fragments.items[i].from, sample->fragments[i].from) &&
                  slice_equal(fragments.items[i].to, sample->fragments[i].to));
    OUT_IF_FAILED(table_iter_create(&reader, &info, true, &iter));
    OUT_IF_FAILED(iter->ops->seek_first(iter));
    while (iter->valid) {
        const Entry *expected = &sample->model.entries[place];
        ck_assert(place < sample->model.count && entry_equal(&iter->entry, expected));
        uint64_t hash = table_key_hash(expected->key);
        uint8_t *asked = &sections[filter_section_of(hash, info.filter_sections)];
        if (all_gets || !*asked) {
            Entry entry;
            bool found;
            OUT_IF_FAILED(
                table_get(&reader, &info, expected->key, hash, expected->lsn, &entry, &found));
            ck_assert(found && entry_equal(&entry, expected));
            *asked = 1;
        }
        place++;
        OUT_IF_FAILED(iter->ops->next(iter));
    }
    ck_assert_uint_eq(place, sample->model.count);
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
    Status status = read_table(sample, true);
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

START_TEST(damage_every_byte)
{
    test_draw_seed("damage_every_byte");
    make_directory();
    Sample sample;
    Compression compression = (Compression)_i;
    if (!compression_supported(compression))
        compression = COMPRESSION_NONE;
    sample_make(&sample, &small_shape, compression, TABLE_NUMBER(1, 7));
    OK(read_table(&sample, true));
    for (uint64_t i = 0; i < sample.bytes.size; i++) {
        uint8_t xors[3] = {(uint8_t)(1u << test_draw_below(8)), 0xff,
                           (uint8_t)(1 + test_draw_below(255))};
        for (int j = 0; j < 3; j++) {
            uint8_t byte = sample.bytes.data[i] ^ xors[j];
            overwrite(sample.path, i, &byte, 1);
            expect_detected(&sample, "flip", i);
        }
        overwrite(sample.path, i, &sample.bytes.data[i], 1);
    }
    OK(read_table(&sample, true));
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
    test_draw_seed("damage_random");
    make_directory();
    Sample sample;
    sample_make(&sample, &shapes[_i], _i == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD,
                TABLE_NUMBER(1, 8));
    ck_assert_uint_eq(sample.info.index_levels, _i == 0 ? 2 : 1);
    ck_assert_int_eq(sample.info.dictionary_size > 0, _i == 1);
    uint64_t data_end = TABLE_HEADER_SIZE + sample.info.data_size;
    for (int i = 0; i < (_i == 0 ? 300 : 60); i++) {
        uint64_t at = test_draw_below((uint32_t)sample.bytes.size);
        if (i % 3 == 0) /* behind the data */
            at = data_end + test_draw_below((uint32_t)(sample.bytes.size - data_end));
        else if (i % 3 == 1 && _i == 1)
            at = sample.info.dictionary_offset + test_draw_below(sample.info.dictionary_size);
        uint8_t byte = sample.bytes.data[at] ^ (uint8_t)(1 + test_draw_below(255));
        overwrite(sample.path, at, &byte, 1);
        expect_detected(&sample, "flip", at);
        overwrite(sample.path, at, &sample.bytes.data[at], 1);
    }
    OK(read_table(&sample, true));
    sample_free(&sample);
    remove_directory();
}
END_TEST

/* A table of 256 KiB: every byte with three values when there is time, else a sample. */
START_TEST(damage_large)
{
    test_draw_seed("damage_large");
    make_directory();
    Sample sample;
    Shape shape = {"large", 2100, 1, 60, 200, 2, 4096};
    Compression compression = _i == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD;
    sample_make(&sample, &shape, compression, TABLE_NUMBER(1, 9));
    OK(read_table(&sample, false));
    uint64_t size = sample.bytes.size;
    uint64_t places = test_damage("full") ? size : 300;
    for (uint64_t i = 0; i < places; i++) {
        uint64_t at = test_damage("full") ? i : test_draw_below((uint32_t)size);
        for (int j = 0; j < 3; j++) {
            uint8_t byte = sample.bytes.data[at] ^ (uint8_t)(j == 0   ? 1u << test_draw_below(8)
                                                             : j == 1 ? 0xff
                                                                      : 1 + test_draw_below(255));
            overwrite(sample.path, at, &byte, 1);
            Status status = read_table(&sample, false);
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

START_TEST(damage_truncation)
{
    test_draw_seed("damage_truncation");
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
    test_draw_seed("damage_swaps");
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

    int moves = test_damage("full") ? 100000 : 1000;
    for (int i = 0; i < moves; i++) {
        uint32_t a = test_draw_below(count);
        uint32_t b = test_draw_below(count);
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
            from = test_draw_below((uint32_t)bytes->size - 64);
            to = test_draw_below((uint32_t)bytes->size - 64);
            size = 1 + test_draw_below(64);
            break;
        default: /* tails: footers and properties of another file */
            source = &samples[1].bytes;
            size = 1 + test_draw_below(400);
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
    OK(read_table(&samples[0], true));

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

TCase *damage_cases(void)
{
    TCase *damage = tcase_create("damage");
    tcase_set_timeout(damage, 7200);
    tcase_add_loop_test(damage, damage_every_byte, 0, 3);
    tcase_add_loop_test(damage, damage_random, 0, 2);
    tcase_add_loop_test(damage, damage_large, 0, 2);
    tcase_add_test(damage, damage_truncation);
    tcase_add_test(damage, damage_swaps);
    tcase_add_test(damage, verify_goes_on);
    return damage;
}
