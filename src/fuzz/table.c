/*
 * table.c - any bytes as a whole table file: footer, properties, index, filter, blocks.
 *
 * Input: a byte of choices, then the file. The checksums of everything that the footer leads to are
 * computed anew, so that what stands in the blocks is believed. The file is then opened, verified, and
 * read by all the ways that the engine reads: no way may leave the blocks, loop, or find what a scan
 * does not.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include "engine/sstable/sstable_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TABLE_BYTES_MAX 65536u
#define HANDLES_MAX     64u
#define STEPS_MAX       100000u

enum { LEAVE_CHECKSUMS = 1, READAHEAD = 2 };

typedef struct Image {
    uint8_t *data;
    size_t size;
    uint64_t id[2];
} Image;

static bool inside(const Image *image, uint64_t offset, uint64_t size)
{
    return size >= TRAILER_SIZE && offset <= image->size && size <= image->size - offset;
}

static void seal_block(const Image *image, uint64_t offset, uint64_t size)
{
    if (!inside(image, offset, size))
        return;
    uint8_t *tail = image->data + offset + size - TRAILER_SIZE;
    if ((tail[8] & 15) == COMPRESSION_NONE)
        put_fixed32(tail, (uint32_t)(size - TRAILER_SIZE));
    put_fixed64(tail + 9,
                table_checksum(image->id, offset, image->data + offset, (size_t)size - 8));
}

/* Seals what an index leads to, `levels` deep. */
static void seal_index(const Image *image, uint64_t offset, uint64_t size, uint32_t levels)
{
    IndexView view;
    seal_block(image, offset, size);
    if (!inside(image, offset, size) ||
        !index_view_init(&view, slice_make(image->data + offset, (size_t)size - TRAILER_SIZE)))
        return;
    for (uint32_t i = 0; i < view.count && i < HANDLES_MAX; i++) {
        BlockHandle handle;
        if (!index_handle(&view, i, &handle) || handle.offset == offset)
            continue;
        if (levels > 1)
            seal_index(image, handle.offset, handle.size, levels - 1);
        else
            seal_block(image, handle.offset, handle.size);
    }
    seal_block(image, offset, size); /* in case one of them overlaps it */
}

/* Header, footer and blocks as their contents say. */
static void seal_file(Image *image)
{
    uint8_t *footer = image->data + image->size - TABLE_FOOTER_SIZE;
    const uint8_t *header = image->data;
    image->id[0] = get_fixed64(header + 40);
    image->id[1] = get_fixed64(header + 48);
    TableProperties properties;
    uint64_t offset = get_fixed64(footer), size = get_fixed32(footer + 8);
    uint8_t kept[TABLE_HEADER_SIZE];
    memcpy(kept, header, sizeof kept);
    if (inside(image, offset, size) &&
        table_properties_decode(slice_make(image->data + offset, (size_t)size - TRAILER_SIZE),
                                &properties)) {
        const TableInfo *info = &properties.info;
        seal_index(image, info->index_offset, info->index_size, info->index_levels);
        for (uint32_t i = 0; i < info->filter_sections && i < HANDLES_MAX; i++)
            seal_block(image, info->filter_offset + (uint64_t)i * info->filter_section_size,
                       info->filter_section_size);
        if (info->range_size > 0)
            seal_index(image, info->range_offset, info->range_size, 1);
        if (info->dictionary_size > 0) {
            seal_block(image, info->dictionary_offset, info->dictionary_size);
            seal_block(image, table_dictionary_copy(info), info->dictionary_size);
        }
    }
    seal_block(image, offset, size);
    table_header_encode(image->data, kept + 16, get_fixed64(kept + 32), image->id);
    table_footer_encode(image->data + image->size - TABLE_FOOTER_SIZE, get_fixed64(kept + 32),
                        image->id, image->size, offset, (uint32_t)size);
}

static void touch(Slice slice)
{
    static volatile uint8_t sum;
    for (size_t i = 0; i < slice.size; i++)
        sum = (uint8_t)(sum + slice.data[i]);
}

static void read_table(TableReader *reader, const TableInfo *info, bool readahead)
{
    Iter *iter;
    Buffer key = {0};
    uint32_t steps = 0;
    if (table_iter_create(reader, info, readahead ? TABLE_READAHEAD_JOB : 0, &iter) != AIDB_OK)
        return;
    Status status = iter->ops->seek_first(iter);
    for (; status == AIDB_OK && iter->valid; status = iter->ops->next(iter)) {
        fuzz_require(++steps < STEPS_MAX);
        touch(iter->entry.key);
        touch(iter->entry.value);
        buffer_clear(&key);
        fuzz_require(buffer_append(&key, iter->entry.key.data, iter->entry.key.size) == AIDB_OK);
        if (steps < 64) {
            Entry entry;
            bool found;
            uint64_t lsn, offset;
            Slice wanted = buffer_slice(&key);
            if (table_get(reader, info, wanted, table_key_hash(wanted), LSN_MAX, &entry, &found) ==
                    AIDB_OK &&
                found)
                touch(entry.value);
            (void)!table_cover(reader, info, wanted, LSN_MAX, &lsn);
            (void)!table_offset_of(reader, info, wanted, &offset);
        }
    }
    for (status = iter->ops->seek_last(iter), steps = 0; status == AIDB_OK && iter->valid;
         status = iter->ops->prev(iter)) {
        fuzz_require(++steps < STEPS_MAX);
        touch(iter->entry.key);
        touch(iter->entry.value);
    }
    status = iter->ops->seek(iter, buffer_slice(&key), info->lsn_max);
    if (status == AIDB_OK && iter->valid)
        touch(iter->entry.value);
    status = iter->ops->seek_before(iter, buffer_slice(&key), info->lsn_min);
    if (status == AIDB_OK && iter->valid)
        touch(iter->entry.value);
    RangeFragments fragments;
    if (table_fragments(reader, info, &fragments) == AIDB_OK) {
        for (size_t i = 0; i < fragments.count; i++) {
            touch(fragments.items[i].from);
            touch(fragments.items[i].to);
        }
        range_fragments_deinit(&fragments);
    }
    iter_destroy(iter);
    buffer_deinit(&key);
}

static void report(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)path;
    (void)offset;
    fuzz_require(what[0] != '\0');
    ++*(uint32_t *)arg;
}

static void count_loss(void *arg, const TableLoss *loss)
{
    fuzz_require(loss->what[0] != '\0');
    touch(loss->from);
    touch(loss->to);
    ++*(uint32_t *)arg;
}

static Status touch_range(void *arg, const RangeTombstone *tombstone)
{
    (void)arg;
    touch(tombstone->from);
    touch(tombstone->to);
    return AIDB_OK;
}

/* Reads what repair would: in order, and of a sound table everything. */
static void salvage_table(const char *path, const TableInfo *expected, bool sound)
{
    TableSalvage *salvage;
    const Entry *entry;
    Buffer last = {0};
    uint64_t last_lsn = 0;
    uint32_t losses = 0, steps = 0;
    if (table_salvage_open(path, NULL, expected, count_loss, &losses, &salvage) != AIDB_OK) {
        fuzz_require(!sound);
        return;
    }
    (void)!table_salvage_ranges(salvage, touch_range, NULL);
    Status status = table_salvage_first(salvage, &entry);
    for (; status == AIDB_OK && entry != NULL; status = table_salvage_next(salvage, &entry)) {
        fuzz_require(++steps < STEPS_MAX);
        touch(entry->value);
        fuzz_require(steps == 1 ||
                     entry_compare(buffer_slice(&last), last_lsn, entry->key, entry->lsn) < 0);
        buffer_clear(&last);
        fuzz_require(buffer_append(&last, entry->key.data, entry->key.size) == AIDB_OK);
        last_lsn = entry->lsn;
    }
    fuzz_require(!sound || (losses == 0 && steps == expected->entries));
    table_salvage_close(salvage);
    buffer_deinit(&last);
}

void fuzz_table(const uint8_t *data, size_t size)
{
    static uint8_t bytes[TABLE_BYTES_MAX];
    if (size < 1 + TABLE_HEADER_SIZE + TABLE_FOOTER_SIZE || size - 1 > sizeof bytes)
        return;
    Image image = {.data = bytes, .size = size - 1};
    memcpy(bytes, data + 1, image.size);
    if (!(data[0] & LEAVE_CHECKSUMS))
        seal_file(&image);

    /* The reader finds a table by its number, and checks the name. */
    TableInfo info;
    char name[TABLE_NAME_SIZE], path[400];
    uint64_t number = get_fixed64(bytes + 32);
    if (TABLE_TERM(number) > 0xffffff)
        return;
    table_name(number, name);
    snprintf(path, sizeof path, "%s/%s", fuzz_directory(), name);
    fuzz_write_file(path, bytes, image.size);
    uint32_t damage = 0;
    Status status = table_info_read(path, NULL, &info);
    fuzz_require(status == AIDB_OK || status_message()[0] != '\0');
    (void)!table_verify(path, NULL, NULL, report, &damage);
    if (status == AIDB_OK) {
        TableReader reader = {0};
        fuzz_require(file_cache_create(fuzz_directory(), 4, &reader.files) == AIDB_OK);
        read_table(&reader, &info, data[0] & READAHEAD);
        table_reader_release(&reader);
        table_reader_deinit(&reader);
        file_cache_destroy(reader.files);
    }
    salvage_table(path, NULL, false);
    if (status == AIDB_OK)
        salvage_table(path, &info, damage == 0);
    fuzz_require(unlink(path) == 0);
}
