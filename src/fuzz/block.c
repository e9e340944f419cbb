/*
 * block.c - any bytes as the payloads of a table's blocks, behind the checksum: data, index, range
 * tombstones, filter, properties, and compressed bytes. The first byte says which.
 *
 * Whatever is read lies in the block, and no walk is longer than it. Restarts that lead elsewhere than
 * the entries do are found by table_verify, not by readers: a checksum stands before them.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include "engine/sstable/sstable_internal.h"

#include <stdlib.h>

/* Touches every byte, so that the address sanitizer sees a slice that leaves its block. */
static void touch(Slice slice)
{
    static volatile uint8_t sum;
    for (size_t i = 0; i < slice.size; i++)
        sum = (uint8_t)(sum + slice.data[i]);
}

static void check_data(Slice payload)
{
    BlockView view;
    BlockCursor cursor = {0};
    Entry entry;
    uint64_t forwards = 0, backwards = 0;
    bool good = block_cursor_init(&cursor, payload);
    fuzz_require(good == block_view_init(&view, payload));
    if (!good)
        goto out;
    for (good = block_cursor_first(&cursor); good && cursor.valid;
         good = block_cursor_next(&cursor)) {
        touch(cursor.entry.key);
        touch(cursor.entry.value);
        forwards++;
        fuzz_require(forwards <= payload.size);
    }
    for (good = block_cursor_last(&cursor); good && cursor.valid;
         good = block_cursor_prev(&cursor)) {
        touch(cursor.entry.key);
        touch(cursor.entry.value);
        backwards++;
        fuzz_require(backwards <= payload.size);
    }
    /* Keys to look for: out of the block itself. */
    for (size_t at = 0; at < payload.size && at < 64; at += 7) {
        Slice key = slice_make(payload.data + at, payload.size - at < 5 ? payload.size - at : 5);
        BlockFind find = block_find(&view, key, 120, &entry);
        if (find == BLOCK_FOUND) {
            fuzz_require(entry.lsn <= 120);
            touch(entry.value);
        }
        if (block_cursor_seek(&cursor, key, 120) && cursor.valid) {
            touch(cursor.entry.key);
            touch(cursor.entry.value);
            if (block_cursor_prev(&cursor) && cursor.valid)
                touch(cursor.entry.key);
        }
        if (block_cursor_seek_before(&cursor, key, 120) && cursor.valid) {
            touch(cursor.entry.key);
            if (block_cursor_next(&cursor) && cursor.valid)
                touch(cursor.entry.value);
        }
    }
out:
    block_cursor_deinit(&cursor);
}

static void check_index(Slice payload)
{
    IndexView view;
    Buffer key = {0};
    if (!index_view_init(&view, payload))
        return;
    for (uint32_t i = 0; i < view.count; i++) {
        BlockHandle handle;
        uint64_t lsn;
        (void)index_handle(&view, i, &handle);
        if (index_separator_at(&view, i, &key, &lsn) != INDEX_OK)
            continue;
        touch(buffer_slice(&key));
        uint32_t position;
        if (index_find(&view, buffer_slice(&key), lsn, &position))
            fuzz_require(position <= view.count);
    }
    for (size_t at = 0; at < payload.size && at < 64; at += 9) {
        uint32_t position;
        if (index_find(&view, slice_make(payload.data + at, payload.size - at), 7, &position))
            fuzz_require(position <= view.count);
    }
    buffer_deinit(&key);
}

static void check_ranges(Slice payload)
{
    RangeView view;
    if (!range_view_init(&view, payload))
        return;
    for (uint32_t i = 0; i < view.count; i++) {
        RangeItem item;
        if (!range_view_item(&view, i, &item))
            continue;
        touch(item.from);
        touch(item.to);
        touch(slice_make(item.lsns, (size_t)item.lsn_count * 8));
        uint64_t lsn;
        (void)range_view_cover(&view, item.from, 120, &lsn);
    }
    uint64_t lsn;
    (void)range_view_cover(&view, payload, UINT64_MAX, &lsn);
}

static void check_properties(Slice payload)
{
    TableProperties properties, again;
    Buffer bytes = {0};
    if (!table_properties_decode(payload, &properties))
        return;
    touch(properties.smallest);
    touch(properties.largest);
    fuzz_require(table_properties_encode(&properties, &bytes) == AIDB_OK);
    fuzz_require(table_properties_decode(buffer_slice(&bytes), &again));
    buffer_deinit(&bytes);
}

static void check_compressed(uint8_t compression, Slice bytes)
{
    static TableDecompressor *decompressor;
    if (decompressor == NULL)
        decompressor = decompressor_create();
    if (decompressor == NULL || bytes.size < 3)
        return;
    BlockTrailer trailer = {.raw_size = (uint32_t)bytes.data[0] | (uint32_t)bytes.data[1] << 8,
                            .plain = bytes.data[2],
                            .compression = compression};
    size_t size = bytes.size - 3;
    if (trailer.plain > trailer.raw_size || trailer.plain > size)
        return; /* block_check refuses it */
    uint8_t *to = malloc(trailer.raw_size > 0 ? trailer.raw_size : 1);
    fuzz_require(to != NULL);
    if (block_unpack(decompressor, &trailer, NULL, bytes.data + 3, size, to) == NULL)
        touch(slice_make(to, trailer.raw_size));
    free(to);
}

void fuzz_block(const uint8_t *data, size_t size)
{
    if (size < 1)
        return;
    Slice payload = slice_make(data + 1, size - 1);
    switch (data[0] % 8) {
    case 0:
    case 1:
        check_data(payload);
        break;
    case 2:
        check_index(payload);
        break;
    case 3:
        check_ranges(payload);
        break;
    case 4:
        (void)filter_may_contain(payload, size > 9 ? get_fixed64(data + 1) : size);
        break;
    case 5:
        check_properties(payload);
        break;
    case 6:
        check_compressed(COMPRESSION_ZSTD, payload);
        break;
    default:
        check_compressed(COMPRESSION_SNAPPY, payload);
        break;
    }
}
