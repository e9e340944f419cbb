/*
 * index.c - index blocks: from a key to the block that may hold it.
 *
 *   payload: count u32 | size of the shared prefix u32 | base offset u64
 *            | for each entry: the next 8 bytes of its separator as a number (u64)
 *            | for each entry: offset - base (u32), size << 1 | raw (u32)
 *            | for each entry: where its tail begins in the payload (u32)
 *            | shared prefix | tails
 *   tail:    rest size << 1 | has LSN (varint) | bytes of the rest from the 9th on | LSN (varint)
 *
 * The prefix that all separators of the block have in common is stripped, and the 8 bytes that
 * follow it (zeroes where the key ends) stand in one dense array of numbers that compare as the bytes
 * do. A search therefore touches a few cache lines of that array and decodes a tail only among
 * entries whose 8 bytes tie; where the block is stands in an array as well.
 *
 * Entry i leads to block i, and its separator lies at or after the last entry of block i and before
 * the first of block i + 1. Where both have the same user key, the separator carries the LSN of the
 * last entry; without an LSN it stands behind all versions of its key.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#define INDEX_HEAD   16u
#define INDEX_FIXED  20u /* of an entry, in the arrays */
#define HANDLES_NEAR 4u

/* ---- building -------------------------------------------------------------------------------- */

void index_builder_deinit(IndexBuilder *builder)
{
    buffer_deinit(&builder->records);
    buffer_deinit(&builder->offsets);
}

Status index_builder_add(IndexBuilder *builder, Slice key, uint64_t lsn, const BlockHandle *handle)
{
    RETURN_IF_FAILED(buffer_append_fixed32(&builder->offsets, (uint32_t)builder->records.size));
    RETURN_IF_FAILED(buffer_append_fixed64(&builder->records, handle->offset));
    RETURN_IF_FAILED(buffer_append_fixed32(&builder->records, handle->size));
    RETURN_IF_FAILED(buffer_append_byte(&builder->records, handle->raw));
    RETURN_IF_FAILED(buffer_append_fixed64(&builder->records, lsn));
    RETURN_IF_FAILED(buffer_append_fixed32(&builder->records, (uint32_t)key.size));
    RETURN_IF_FAILED(buffer_append(&builder->records, key.data, key.size));
    if (builder->records.size > UINT32_MAX - 2 * AIDB_KEY_MAX)
        return status_set(AIDB_LIMIT, "the index of a table is too large");
    builder->count++;
    return AIDB_OK;
}

void index_builder_set_handle(IndexBuilder *builder, uint32_t i, const BlockHandle *handle)
{
    uint8_t *at = builder->records.data + get_fixed32(builder->offsets.data + (size_t)i * 4);
    put_fixed64(at, handle->offset);
    put_fixed32(at + 8, handle->size);
    at[12] = handle->raw;
}

void index_builder_entry(const IndexBuilder *builder, uint32_t i, Slice *key, uint64_t *lsn,
                         BlockHandle *handle)
{
    const uint8_t *at = builder->records.data + get_fixed32(builder->offsets.data + (size_t)i * 4);
    *handle =
        (BlockHandle){.offset = get_fixed64(at), .size = get_fixed32(at + 8), .raw = at[12] != 0};
    *lsn = get_fixed64(at + 13);
    *key = slice_make(at + 25, get_fixed32(at + 21));
}

size_t index_builder_entry_size(const IndexBuilder *builder, uint32_t i)
{
    Slice key;
    uint64_t lsn;
    BlockHandle handle;
    index_builder_entry(builder, i, &key, &lsn, &handle);
    return 20 + 2 + key.size + (lsn != 0 ? 6 : 0);
}

/* The first 8 bytes of `rest`, zeroes behind its end, as a number that orders as the bytes do. */
static uint64_t prefix_number(const uint8_t *rest, size_t size)
{
    uint64_t number = 0;
    if (size >= 8) {
        memcpy(&number, rest, 8);
    } else if (size > 0) {
        memcpy(&number, rest, size);
    }
    return be64toh(number);
}

Status index_builder_block(const IndexBuilder *builder, uint32_t from, uint32_t to, Buffer *payload)
{
    Slice first = {0};
    Slice last = {0};
    uint64_t lsn = 0;
    BlockHandle handle = {0};
    uint64_t base = UINT64_MAX;
    for (uint32_t i = from; i < to; i++) {
        index_builder_entry(builder, i, &last, &lsn, &handle);
        if (i == from)
            first = last;
        if (handle.offset < base)
            base = handle.offset;
    }
    if (from == to)
        base = 0;
    /* Separators rise, so what the first and the last share is shared by all. */
    size_t shared = 0;
    while (shared < first.size && shared < last.size && first.data[shared] == last.data[shared])
        shared++;

    uint32_t count = to - from;
    size_t start = payload->size;
    RETURN_IF_FAILED(buffer_append_fixed32(payload, count));
    RETURN_IF_FAILED(buffer_append_fixed32(payload, (uint32_t)shared));
    RETURN_IF_FAILED(buffer_append_fixed64(payload, base));
    RETURN_IF_FAILED(buffer_reserve(payload, (size_t)count * INDEX_FIXED + shared));
    payload->size += (size_t)count * INDEX_FIXED;
    if (shared > 0)
        RETURN_IF_FAILED(buffer_append(payload, first.data, shared));
    for (uint32_t i = from; i < to; i++) {
        Slice key;
        index_builder_entry(builder, i, &key, &lsn, &handle);
        const uint8_t *rest = key.data + shared;
        size_t rest_size = key.size - shared;
        size_t at = i - from;
        uint8_t *prefixes = payload->data + start + INDEX_HEAD;
        uint8_t *handles = prefixes + (size_t)count * 8;
        uint8_t *tails = handles + (size_t)count * 8;
        if (payload->size - start > BLOCK_RAW_MAX - 2 * AIDB_KEY_MAX ||
            handle.offset - base > UINT32_MAX)
            return status_set(AIDB_LIMIT, "the index of a table is too large");
        put_fixed64(prefixes + at * 8, prefix_number(rest, rest_size));
        put_fixed32(handles + at * 8, (uint32_t)(handle.offset - base));
        put_fixed32(handles + at * 8 + 4, handle.size << 1 | handle.raw);
        put_fixed32(tails + at * 4, (uint32_t)(payload->size - start));
        RETURN_IF_FAILED(buffer_append_varint(payload, rest_size << 1 | (lsn != 0)));
        if (rest_size > 8)
            RETURN_IF_FAILED(buffer_append(payload, rest + 8, rest_size - 8));
        if (lsn != 0)
            RETURN_IF_FAILED(buffer_append_varint(payload, lsn));
    }
    return AIDB_OK;
}

Status index_separator(Slice last, Slice next, Buffer *to)
{
    size_t i = 0;
    while (i < last.size && i < next.size && last.data[i] == next.data[i])
        i++;
    /* last < next: either last ends here, or its byte is the smaller one. Nothing shorter than i + 1
     * bytes lies between the two. */
    if (i + 1 < last.size) {
        if (next.size > i + 1)
            return buffer_append(to, next.data, i + 1);
        if (last.data[i] + 1 < next.data[i]) {
            RETURN_IF_FAILED(buffer_append(to, last.data, i));
            return buffer_append_byte(to, (uint8_t)(last.data[i] + 1));
        }
        for (size_t j = i + 1; j + 1 < last.size; j++) {
            if (last.data[j] == 0xff)
                continue;
            RETURN_IF_FAILED(buffer_append(to, last.data, j));
            return buffer_append_byte(to, (uint8_t)(last.data[j] + 1));
        }
    }
    return buffer_append(to, last.data, last.size);
}

/* ---- reading --------------------------------------------------------------------------------- */

bool index_view_init(IndexView *view, Slice payload)
{
    *view = (IndexView){.payload = payload};
    if (payload.size < INDEX_HEAD || payload.size > BLOCK_RAW_MAX)
        return false;
    uint32_t count = get_fixed32(payload.data);
    uint32_t shared = get_fixed32(payload.data + 4);
    if (count > (payload.size - INDEX_HEAD) / INDEX_FIXED)
        return false;
    size_t heads = INDEX_HEAD + (size_t)count * INDEX_FIXED;
    if (shared > AIDB_KEY_MAX || shared > payload.size - heads)
        return false;
    view->base = get_fixed64(payload.data + 8);
    view->prefixes = payload.data + INDEX_HEAD;
    view->handles = view->prefixes + (size_t)count * 8;
    view->tails = view->handles + (size_t)count * 8;
    view->shared = slice_make(payload.data + heads, shared);
    view->count = count;
    return true;
}

static uint64_t prefix_at(const IndexView *view, uint32_t i)
{
    return get_fixed64(view->prefixes + (size_t)i * 8);
}

typedef struct Tail {
    size_t rest_size;
    const uint8_t *beyond; /* bytes of the rest behind the first 8 */
    uint64_t lsn;          /* 0: behind all versions */
} Tail;

static bool tail_decode(const IndexView *view, uint32_t i, Tail *tail)
{
    uint32_t offset = get_fixed32(view->tails + (size_t)i * 4);
    if (offset >= view->payload.size)
        return false;
    const uint8_t *at = view->payload.data + offset;
    const uint8_t *end = view->payload.data + view->payload.size;
    uint64_t head = 0;
    at = decode_varint64(at, end, &head);
    if (at == NULL || head >> 1 > AIDB_KEY_MAX)
        return false;
    tail->rest_size = (size_t)(head >> 1);
    size_t beyond = tail->rest_size > 8 ? tail->rest_size - 8 : 0;
    if (beyond > (size_t)(end - at))
        return false;
    tail->beyond = at;
    at += beyond;
    tail->lsn = 0;
    if ((head & 1) != 0)
        at = decode_varint64(at, end, &tail->lsn);
    return at != NULL;
}

/* Order of entry i, whose 8 bytes equal those of `rest`, against (rest, lsn). */
static bool compare_tied(const IndexView *view, uint32_t i, Slice rest, uint64_t lsn, int *order)
{
    Tail tail;
    if (!tail_decode(view, i, &tail))
        return false;
    if (tail.rest_size <= 8 || rest.size <= 8) {
        *order = (tail.rest_size > rest.size) - (tail.rest_size < rest.size);
    } else {
        *order = slice_compare(slice_make(tail.beyond, tail.rest_size - 8),
                               slice_make(rest.data + 8, rest.size - 8));
    }
    if (*order == 0)
        *order = (tail.lsn < lsn) - (tail.lsn > lsn);
    return true;
}

bool index_find(const IndexView *view, Slice key, uint64_t lsn, uint32_t *position)
{
    size_t common = key.size < view->shared.size ? key.size : view->shared.size;
    int order = common > 0 ? memcmp(key.data, view->shared.data, common) : 0;
    if (order < 0 || (order == 0 && key.size < view->shared.size)) {
        *position = 0;
        return true;
    }
    if (order > 0) {
        *position = view->count;
        return true;
    }
    /* An empty key may have no address. */
    Slice rest = common > 0 ? slice_make(key.data + common, key.size - common) : key;
    uint64_t wanted = prefix_number(rest.data, rest.size);
    /* Branch-free lower bound over the numbers: the loop runs a fixed number of times for a block, and what
     * a compare says is a mask, because nobody can guess it. */
    uint32_t low = 0;
    uint32_t left = view->count;
    while (left > 1) {
        uint32_t half = left / 2;
        low += half & (0u - (prefix_at(view, low + half - 1) < wanted));
        left -= half;
        if (left <= HANDLES_NEAR) /* the caller wants one of these next */
            __builtin_prefetch(view->handles + (size_t)low * 8);
    }
    if (left == 1 && prefix_at(view, low) < wanted)
        low++;
    if (low == view->count || prefix_at(view, low) != wanted) {
        *position = low;
        return true;
    }
    /* Ties: find where they end by doubling steps, then compare whole keys among them. */
    uint32_t step = 1;
    uint32_t high = low + 1;
    while (high < view->count && prefix_at(view, high) == wanted) {
        step *= 2;
        high = view->count - high > step ? high + step : view->count;
    }
    /* [low, high) holds all ties and perhaps greater ones behind them. */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (prefix_at(view, middle) == wanted) {
            if (!compare_tied(view, middle, rest, lsn, &order))
                return false;
        } else {
            order = 1;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *position = low;
    return true;
}

bool index_handle(const IndexView *view, uint32_t position, BlockHandle *handle)
{
    if (position >= view->count)
        return false;
    const uint8_t *at = view->handles + (size_t)position * 8;
    uint32_t size = get_fixed32(at + 4);
    *handle = (BlockHandle){
        .offset = view->base + get_fixed32(at), .size = size >> 1, .raw = (size & 1) != 0};
    return true;
}

IndexRead index_separator_at(const IndexView *view, uint32_t position, Buffer *key, uint64_t *lsn)
{
    Tail tail;
    if (position >= view->count || !tail_decode(view, position, &tail))
        return INDEX_DAMAGED;
    key->size = 0;
    uint64_t head = htobe64(prefix_at(view, position));
    size_t head_size = tail.rest_size < 8 ? tail.rest_size : 8;
    if (buffer_append(key, view->shared.data, view->shared.size) != AIDB_OK ||
        buffer_append(key, &head, head_size) != AIDB_OK ||
        buffer_append(key, tail.beyond, tail.rest_size - head_size) != AIDB_OK)
        return INDEX_NO_MEMORY;
    *lsn = tail.lsn;
    return INDEX_OK;
}
