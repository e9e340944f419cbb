/*
 * range_block.c - blocks of range tombstone fragments.
 *
 *   payload: count u32 | where each fragment begins in the payload (u32) | fragments
 *   fragment: from (varint size, bytes) | to (same; empty: no upper bound) | number of LSNs (varint)
 *            | LSNs (u64 each), newest first
 *
 * Fragments are sorted and do not overlap, so at most one of them covers a key. A table with many
 * keeps them in several blocks of about 32 KiB under an index block, whose separator i is the `from`
 * of block i + 1 (with the greatest LSN: before every version of that key).
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

size_t range_fragment_size(const RangeFragment *item)
{
    return 4 + varint_size(item->from.size) + item->from.size + varint_size(item->to.size) +
           item->to.size + varint_size(item->lsn_count) + (size_t)item->lsn_count * 8;
}

Status range_block_build(const RangeFragment *items, size_t count, Buffer *payload)
{
    size_t start = payload->size;
    RETURN_IF_FAILED(buffer_append_fixed32(payload, (uint32_t)count));
    RETURN_IF_FAILED(buffer_reserve(payload, count * 4));
    payload->size += count * 4;
    for (size_t i = 0; i < count; i++) {
        size_t offset = payload->size - start;
        if (offset > BLOCK_RAW_MAX)
            return status_set(AIDB_LIMIT, "the range tombstones of a table are too large");
        put_fixed32(payload->data + start + 4 + i * 4, (uint32_t)offset);
        RETURN_IF_FAILED(buffer_append_slice(payload, items[i].from));
        RETURN_IF_FAILED(buffer_append_slice(payload, items[i].to));
        RETURN_IF_FAILED(buffer_append_varint(payload, items[i].lsn_count));
        RETURN_IF_FAILED(buffer_reserve(payload, (size_t)items[i].lsn_count * 8));
        for (uint32_t j = 0; j < items[i].lsn_count; j++) {
            put_fixed64(payload->data + payload->size, items[i].lsns[j]);
            payload->size += 8;
        }
    }
    return AIDB_OK;
}

bool range_view_init(RangeView *view, Slice payload)
{
    *view = (RangeView){.payload = payload};
    if (payload.size < 4)
        return false;
    uint32_t count = get_fixed32(payload.data);
    if (count > (payload.size - 4) / 4)
        return false;
    view->count = count;
    return true;
}

bool range_view_item(const RangeView *view, uint32_t position, RangeItem *item)
{
    *item = (RangeItem){0};
    if (position >= view->count)
        return false;
    uint32_t offset = get_fixed32(view->payload.data + 4 + (size_t)position * 4);
    if (offset >= view->payload.size)
        return false;
    const uint8_t *end = view->payload.data + view->payload.size;
    const uint8_t *at = decode_slice(view->payload.data + offset, end, &item->from);
    if (at != NULL)
        at = decode_slice(at, end, &item->to);
    at = decode_varint32(at, end, &item->lsn_count);
    if (at == NULL || item->lsn_count == 0 || item->lsn_count > (size_t)(end - at) / 8)
        return false;
    item->lsns = at;
    return true;
}

bool range_view_cover(const RangeView *view, Slice key, uint64_t visible, uint64_t *lsn)
{
    *lsn = 0;
    uint32_t low = 0; /* the first fragment that begins behind key */
    uint32_t high = view->count;
    RangeItem item;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (!range_view_item(view, middle, &item))
            return false;
        if (slice_compare(item.from, key) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return true;
    if (!range_view_item(view, low - 1, &item))
        return false;
    if (item.to.size > 0 && slice_compare(key, item.to) >= 0)
        return true;
    uint32_t first = 0; /* the first LSN at or below visible */
    uint32_t last = item.lsn_count;
    while (first < last) {
        uint32_t middle = first + (last - first) / 2;
        if (get_fixed64(item.lsns + (size_t)middle * 8) <= visible)
            last = middle;
        else
            first = middle + 1;
    }
    if (first < item.lsn_count)
        *lsn = get_fixed64(item.lsns + (size_t)first * 8);
    return true;
}
