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
    test_expect(path != NULL && what != NULL, "a report without path or reason");
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
        test_expect(slice_equal(fragments.items[i].from, sample->fragments[i].from) &&
                        slice_equal(fragments.items[i].to, sample->fragments[i].to),
                    "range tombstone %zu has other bounds", i);
    OUT_IF_FAILED(table_iter_create(&reader, &info, TABLE_READAHEAD_JOB, &iter));
    OUT_IF_FAILED(iter->ops->seek_first(iter));
    while (iter->valid) {
        const Entry *expected = &sample->model.entries[place];
        test_expect(place < sample->model.count && entry_equal(&iter->entry, expected),
                    "the iterator has another entry %zu", place);
        uint64_t hash = table_key_hash(expected->key);
        uint8_t *asked = &sections[filter_section_of(hash, info.filter_sections)];
        if (all_gets || !*asked) {
            Entry entry;
            bool found;
            OUT_IF_FAILED(
                table_get(&reader, &info, expected->key, hash, expected->lsn, &entry, &found));
            test_expect(found && entry_equal(&entry, expected), "get finds another entry %zu",
                        place);
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

/* What a read of the damaged table came to. `message`: what it must begin with; NULL: any that names file and
 * offset. */
static void expect_refused(const Sample *sample, Status status, const char *message,
                           const char *change, uint64_t where)
{
    test_expect(status == AIDB_CORRUPTION, "%s at %" PRIu64 ": reading gives %s", change, where,
                status_name(status));
    bool named = message != NULL ? strncmp(status_message(), message, strlen(message)) == 0
                                 : strstr(status_message(), sample->path) != NULL &&
                                       strstr(status_message(), "offset") != NULL;
    test_expect(named, "%s at %" PRIu64 ": reading says %s, not %s", change, where,
                status_message(), message != NULL ? message : "where");
}

static void expect_reported(const Sample *sample, const TableInfo *known, const char *change,
                            uint64_t where)
{
    Found found = {0};
    OK(table_verify(sample->path, system_id, known, count_damage, &found));
    test_expect(found.count > 0, "%s at %" PRIu64 " is not found by verify", change, where);
}

static void expect_detected(const Sample *sample, const char *change, uint64_t where)
{
    expect_refused(sample, read_table(sample, true), NULL, change, where);
    expect_reported(sample, NULL, change, where);
    expect_reported(sample, &sample->info, change, where);
}

/* What a byte is changed by: one bit, all bits, any others. */
static void draw_xors(uint8_t xors[3])
{
    xors[0] = (uint8_t)(1u << test_draw_below(8));
    xors[1] = 0xff;
    do
        xors[2] = (uint8_t)(1 + test_draw_below(254));
    while (xors[2] == xors[0]);
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
        uint8_t xors[3];
        draw_xors(xors);
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

/* ---- larger tables, part by part ----------------------------------------------------------------- */

typedef enum PartKind {
    PART_FRAME,  /* header, properties, footer: read when nothing is known of the table */
    PART_LOOKUP, /* data, index, dictionary */
    PART_FILTER,
    PART_RANGES,
    PART_COPY /* of the dictionary */
} PartKind;

/* Bytes under one checksum. */
typedef struct Part {
    PartKind kind;
    uint64_t offset;
    uint64_t size;
    const Entry *entry; /* of lookups and filters: its get reads the part */
    bool data;
} Part;

typedef struct Parts {
    const Sample *sample;
    TableReader reader;
    Part *items;
    size_t count;
    const Entry *compressed; /* some entry of a compressed block */
} Parts;

static Part *add_part(Parts *parts, PartKind kind, uint64_t offset, uint64_t size,
                      const Entry *entry)
{
    parts->items = realloc(parts->items, (parts->count + 1) * sizeof *parts->items);
    ck_assert_ptr_nonnull(parts->items);
    parts->items[parts->count] =
        (Part){.kind = kind, .offset = offset, .size = size, .entry = entry};
    return &parts->items[parts->count++];
}

static IndexView read_view(Parts *parts, BlockKind kind, const BlockHandle *handle)
{
    Slice payload;
    IndexView view;
    OK(table_block_read(&parts->reader, &parts->sample->info,
                        &(BlockRead){.kind = kind, .handle = *handle}, &payload));
    ck_assert(index_view_init(&view, payload));
    return view;
}

/* Returns the first entry of the block. */
static const Entry *add_data_block(Parts *parts, const BlockHandle *handle)
{
    const Model *model = &parts->sample->model;
    BlockCursor cursor = {0};
    Slice payload;
    OK(table_block_read(&parts->reader, &parts->sample->info,
                        &(BlockRead){.kind = BLOCK_DATA, .handle = *handle}, &payload));
    ck_assert(block_cursor_init(&cursor, payload) && block_cursor_first(&cursor) && cursor.valid);
    size_t place = model_seek(model, cursor.entry.key, cursor.entry.lsn);
    ck_assert(place < model->count && entry_equal(&model->entries[place], &cursor.entry));
    block_cursor_deinit(&cursor);
    const Entry *entry = &model->entries[place];
    add_part(parts, PART_LOOKUP, handle->offset, handle->size, entry)->data = true;
    if (!handle->raw)
        parts->compressed = entry;
    return entry;
}

/* Adds an index block and all below it; returns the first entry there. */
static const Entry *add_index(Parts *parts, BlockKind kind, const BlockHandle *handle)
{
    IndexView view = read_view(parts, kind, handle);
    const Entry *first = NULL;
    for (uint32_t i = 0; i < view.count; i++) {
        BlockHandle below;
        ck_assert(index_handle(&view, i, &below));
        const Entry *entry = kind == BLOCK_INDEX_TOP ? add_index(parts, BLOCK_INDEX, &below)
                                                     : add_data_block(parts, &below);
        first = i == 0 ? entry : first;
    }
    add_part(parts, PART_LOOKUP, handle->offset, handle->size, first);
    return first;
}

static void add_filter(Parts *parts)
{
    const TableInfo *info = &parts->sample->info;
    const Model *model = &parts->sample->model;
    for (uint32_t section = 0; section < info->filter_sections; section++) {
        size_t i = 0;
        while (i < model->count && filter_section_of(table_key_hash(model->entries[i].key),
                                                     info->filter_sections) != section)
            i++;
        ck_assert_uint_lt(i, model->count);
        add_part(parts, PART_FILTER,
                 info->filter_offset + (uint64_t)section * info->filter_section_size,
                 info->filter_section_size, &model->entries[i]);
    }
}

static void add_ranges(Parts *parts)
{
    const TableInfo *info = &parts->sample->info;
    BlockHandle top = {.offset = info->range_offset, .size = info->range_size};
    IndexView view = read_view(parts, BLOCK_RANGE_TOP, &top);
    for (uint32_t i = 0; i < view.count; i++) {
        BlockHandle handle;
        ck_assert(index_handle(&view, i, &handle));
        add_part(parts, PART_RANGES, handle.offset, handle.size, NULL);
    }
    add_part(parts, PART_RANGES, top.offset, top.size, NULL);
}

static int compare_parts(const void *a, const void *b)
{
    const Part *one = a;
    const Part *two = b;
    return (one->offset > two->offset) - (one->offset < two->offset);
}

/* Finds all parts. They cover the file without a gap: what is not read as part of a block is not there. */
static void parts_find(Parts *parts, const Sample *sample)
{
    const TableInfo *info = &sample->info;
    FileCache *files;
    OK(file_cache_create(directory, 2, &files));
    *parts = (Parts){.sample = sample, .reader = {.files = files}};
    add_part(parts, PART_FRAME, 0, TABLE_HEADER_SIZE, NULL);
    add_index(parts, info->index_levels == 2 ? BLOCK_INDEX_TOP : BLOCK_INDEX,
              &(BlockHandle){.offset = info->index_offset, .size = info->index_size});
    add_filter(parts);
    add_ranges(parts);
    uint64_t end = info->index_offset + info->index_size;
    if (info->dictionary_size > 0) {
        ck_assert_ptr_nonnull(parts->compressed);
        add_part(parts, PART_LOOKUP, info->dictionary_offset, info->dictionary_size,
                 parts->compressed);
        add_part(parts, PART_COPY, end, info->dictionary_size, NULL);
        end += info->dictionary_size;
    }
    uint64_t footer = info->file_size - TABLE_FOOTER_SIZE;
    add_part(parts, PART_FRAME, end, footer - end, NULL); /* properties */
    add_part(parts, PART_FRAME, footer, TABLE_FOOTER_SIZE, NULL);
    table_reader_release(&parts->reader);

    qsort(parts->items, parts->count, sizeof *parts->items, compare_parts);
    uint64_t covered = 0;
    for (size_t i = 0; i < parts->count; i++) {
        ck_assert_uint_eq(parts->items[i].offset, covered);
        covered += parts->items[i].size;
    }
    ck_assert_uint_eq(covered, sample->bytes.size);
}

static void parts_deinit(Parts *parts)
{
    FileCache *files = parts->reader.files;
    table_reader_deinit(&parts->reader);
    file_cache_destroy(files);
    free(parts->items);
}

static Status get_entry(Parts *parts, const Entry *wanted)
{
    Entry entry;
    bool found;
    return table_get(&parts->reader, &parts->sample->info, wanted->key, table_key_hash(wanted->key),
                     wanted->lsn, &entry, &found);
}

static Status seek_entry(Parts *parts, const Entry *wanted)
{
    Iter *iter;
    OK(table_iter_create(&parts->reader, &parts->sample->info, 0, &iter));
    Status status = iter->ops->seek(iter, wanted->key, wanted->lsn);
    iter_destroy(iter);
    return status;
}

/* Reads a changed part in each way that meets it, without what meets other parts only: each must name the file
 * and where the part begins. */
static void expect_met(Parts *parts, const Part *part, uint64_t at)
{
    const Sample *sample = parts->sample;
    const TableInfo *info = &sample->info;
    char message[600];
    snprintf(message, sizeof message, "table file \"%s\" is damaged at offset %" PRIu64 ": ",
             sample->path, part->offset);
    TableInfo read;
    RangeFragments fragments;
    uint64_t lsn;
    switch (part->kind) {
    case PART_FRAME:
        expect_refused(sample, table_info_read(sample->path, system_id, &read), message, "flip",
                       at);
        break;
    case PART_LOOKUP:
        expect_refused(sample, seek_entry(parts, part->entry), message, "flip", at);
        expect_refused(sample, get_entry(parts, part->entry), message, "flip", at);
        break;
    case PART_FILTER:
        expect_refused(sample, get_entry(parts, part->entry), message, "flip", at);
        break;
    case PART_RANGES:
        expect_refused(sample, table_fragments(&parts->reader, info, &fragments), message, "flip",
                       at);
        expect_refused(
            sample, table_cover(&parts->reader, info, sample->model.entries[0].key, LSN_MAX, &lsn),
            message, "flip", at);
        break;
    case PART_COPY:
        expect_refused(sample, read_dictionary_copy(&parts->reader, info), message, "flip", at);
        break;
    }
    table_reader_release(&parts->reader);
}

#define BLOCKS_VERIFIED 30u

/* Each byte with three values when there is time, else first, last and any byte of a part. The reads that meet
 * it are made with the file open; they keep no block. A full read and a verification, which take a hundred times as
 * long, follow at those three bytes only, and of data blocks only in some: they check each block as a whole, so that
 * no byte of it is found and another not; and damage_every_byte has them at each byte. */
START_TEST(damage_parts)
{
    static const struct {
        Shape shape;
        Compression compression;
    } tables[] = {{{"plain", 1900, 1, 60, 200, 2, 4096}, COMPRESSION_NONE},
                  {{"compressed", 3700, 1, 60, 200, 2, 4096}, COMPRESSION_ZSTD},
                  {{"two levels", 110, 1, 1500, 600, 1, 1024}, COMPRESSION_NONE},
                  {{"dictionary", 4500, 3, 0, 150, 1, 1024}, COMPRESSION_ZSTD}};
    test_draw_seed("damage_parts");
    make_directory();
    Sample sample;
    Parts parts;
    sample_make(&sample, &tables[_i].shape, tables[_i].compression, TABLE_NUMBER(1, 9));
    OK(read_table(&sample, true));
    parts_find(&parts, &sample);
    ck_assert(_i == 3 || sample.bytes.size >= 256u << 10);
    ck_assert(_i != 2 || sample.info.index_levels == 2);
    ck_assert(_i != 3 || sample.info.dictionary_size > 0);
    int fd = open(sample.path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    uint64_t changes = 0, verified = 0;
    for (size_t i = 0; i < parts.count; i++) {
        const Part *part = &parts.items[i];
        bool whole = !part->data || i % (parts.count / BLOCKS_VERIFIED + 1) == 0;
        uint64_t any = part->offset + test_draw_below((uint32_t)part->size);
        for (uint64_t at = part->offset; at < part->offset + part->size; at++) {
            bool chosen = at == part->offset || at == part->offset + part->size - 1 || at == any;
            if (!chosen && !test_damage("each"))
                continue;
            uint8_t xors[3];
            draw_xors(xors);
            for (int j = 0; j < 3; j++) {
                uint8_t byte = sample.bytes.data[at] ^ xors[j];
                test_expect(pwrite(fd, &byte, 1, (off_t)at) == 1, "could not change the table");
                expect_met(&parts, part, at);
                if (chosen && whole) {
                    expect_refused(&sample, read_table(&sample, false), NULL, "flip", at);
                    expect_reported(&sample, &sample.info, "flip", at);
                    verified++;
                }
                changes++;
            }
            test_expect(pwrite(fd, &sample.bytes.data[at], 1, (off_t)at) == 1,
                        "could not mend the table");
        }
    }
    close(fd);
    OK(read_table(&sample, true));
    printf("%s: table of %zu bytes in %zu parts: %" PRIu64 " changes, all found by reads; %" PRIu64
           " of them looked for and found by verification\n",
           tables[_i].shape.name, (size_t)sample.bytes.size, parts.count, changes, verified);
    parts_deinit(&parts);
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

    int moves = test_damage("full") ? 100000 : 1000, moved = 0;
    for (int i = 0; moved < moves; i++) {
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
        moved++;
    }
    printf("%d blocks and runs of bytes moved, all found\n", moved);
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
    tcase_add_loop_test(damage, damage_parts, 0, 4);
    tcase_add_test(damage, damage_truncation);
    tcase_add_test(damage, damage_swaps);
    tcase_add_test(damage, verify_goes_on);
    return damage;
}
