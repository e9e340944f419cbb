/*
 * iter.c - iterators, and the chunks of rows that they walk.
 *
 * An iterator reads at one registered snapshot: the caller's, or its own from creation to end. It asks
 * its driver for one chunk of rows at a time, in the direction it is going, and walks inside the chunk
 * for free. Nothing of the engine or the server is held between two calls but the snapshot. Chunks
 * start small, because many iterators are used for one row, and grow while the scan goes on: until they are
 * worth finding the place again or, when the driver keeps it, only a little, so that no step takes long.
 */
#include "config.h"

#include "libaidb/handle_internal.h"
#include "protocol/protocol.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_ROWS_SCAN   128u /* first chunk of a scan from an end of the range */
#define CHUNK_ROWS_MAX    65536u
#define CHUNK_ROWS_GROWTH 8u
#define CHUNK_BYTES_MAX   ((size_t)256 << 10)
#define CHUNK_BYTES_KEPT  ((size_t)4 << 10) /* with the place kept */

typedef enum IterPlace {
    PLACE_NEW,    /* not positioned yet */
    PLACE_AT,     /* on row `index` of the chunk */
    PLACE_BEFORE, /* went past the first entry */
    PLACE_AFTER,  /* went past the last entry */
    PLACE_LOST    /* a chunk could not be read: not an end, and not to be taken for one */
} IterPlace;

struct aidb_iter {
    aidb *db;
    aidb_iter *previous;
    aidb_iter *next;
    uint64_t lsn;
    bool own_snapshot;
    bool keys_only;
    bool empty;  /* no key can be in the range */
    Buffer from; /* bounds; empty: none */
    Buffer to;
    uint64_t limit;

    IterPlace place;
    RowChunk chunk;
    bool reverse; /* the chunk's rows go down */
    size_t index;
    uint32_t rows;   /* to ask for next */
    uint64_t walked; /* bytes of the chunks since it was placed or turned round */
    Buffer bound;    /* where the next chunk begins */
    void *kept;      /* the driver's place there; NULL: none */
    aidb_entry entry;
};

/* ---- chunks ---------------------------------------------------------------------------------- */

Status row_chunk_add(RowChunk *chunk, const Entry *entry)
{
    if (chunk->bytes.size > UINT32_MAX)
        return status_set(AIDB_LIMIT, "a chunk of rows is larger than 4GiB");
    if (chunk->count == chunk->capacity) {
        size_t capacity = chunk->capacity == 0 ? 16 : chunk->capacity * 2;
        uint32_t *offsets = realloc(chunk->offsets, capacity * sizeof *offsets);
        if (offsets == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory for a chunk of rows");
        chunk->offsets = offsets;
        chunk->capacity = capacity;
    }
    uint32_t offset = (uint32_t)chunk->bytes.size;
    RETURN_IF_FAILED(entry_row_append(&chunk->bytes, entry->key, entry->value, entry->lsn));
    chunk->offsets[chunk->count++] = offset;
    return AIDB_OK;
}

void row_chunk_clear(RowChunk *chunk)
{
    buffer_clear(&chunk->bytes);
    chunk->count = 0;
    chunk->ended = false;
}

void row_chunk_deinit(RowChunk *chunk)
{
    buffer_deinit(&chunk->bytes);
    free(chunk->offsets);
    *chunk = (RowChunk){0};
}

/* ---- life ------------------------------------------------------------------------------------ */

/* The first key behind all that begin with `prefix`; empty when there is none. */
static Status prefix_end(Slice prefix, Buffer *end)
{
    RETURN_IF_FAILED(buffer_append(end, prefix.data, prefix.size));
    while (end->size > 0 && end->data[end->size - 1] == 0xff)
        end->size--;
    if (end->size > 0)
        end->data[end->size - 1]++;
    return AIDB_OK;
}

static Status set_bounds(aidb_iter *iter, const aidb_scan *scan)
{
    iter->keys_only = scan->keys_only != 0;
    iter->limit = scan->limit;
    if (scan->prefix.data != NULL && scan->prefix.size > 0) {
        if (scan->range.from.data != NULL || scan->range.to.data != NULL)
            return status_set(AIDB_INVALID, "a scan has a prefix or a range, not both");
        if (scan->prefix.size > AIDB_KEY_MAX)
            return status_set(AIDB_INVALID, "the prefix has more than %u bytes", AIDB_KEY_MAX);
        RETURN_IF_FAILED(buffer_append(&iter->from, scan->prefix.data, scan->prefix.size));
        return prefix_end(slice_make(scan->prefix.data, scan->prefix.size), &iter->to);
    }
    Slice from, to;
    RETURN_IF_FAILED(range_bounds(&scan->range, &from, &to, &iter->empty));
    RETURN_IF_FAILED(buffer_append(&iter->from, from.data, from.size));
    return buffer_append(&iter->to, to.data, to.size);
}

static void forget_place(aidb_iter *iter)
{
    if (iter->kept != NULL)
        iter->db->driver->scan_forget(iter->db->state, iter->kept);
    iter->kept = NULL;
}

static void iter_free(aidb_iter *iter)
{
    forget_place(iter);
    buffer_deinit(&iter->from);
    buffer_deinit(&iter->to);
    buffer_deinit(&iter->bound);
    row_chunk_deinit(&iter->chunk);
    free(iter);
}

aidb_status aidb_iter_create(aidb *db, const aidb_snapshot *snapshot, const aidb_scan *scan,
                             aidb_iter **created)
{
    if (created != NULL)
        *created = NULL;
    RETURN_IF_FAILED(handle_enter(db));
    if (created == NULL)
        return status_set(AIDB_INVALID, "there is no place to put the iterator");
    aidb_iter *iter = malloc(sizeof *iter);
    if (iter == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    *iter = (aidb_iter){.db = db};
    Status status = scan != NULL ? set_bounds(iter, scan) : AIDB_OK;
    if (status == AIDB_OK && snapshot != NULL) {
        iter->lsn = snapshot->lsn;
    } else if (status == AIDB_OK) {
        status = db->driver->snapshot_acquire(db->state, &iter->lsn);
        iter->own_snapshot = status == AIDB_OK;
    }
    if (status != AIDB_OK) {
        iter_free(iter);
        return status;
    }
    pthread_mutex_lock(&db->mutex);
    iter->next = db->iters;
    if (db->iters != NULL)
        db->iters->previous = iter;
    db->iters = iter;
    pthread_mutex_unlock(&db->mutex);
    *created = iter;
    return AIDB_OK;
}

void iter_unlink_and_free(aidb_iter *iter)
{
    if (iter->previous != NULL)
        iter->previous->next = iter->next;
    else
        iter->db->iters = iter->next;
    if (iter->next != NULL)
        iter->next->previous = iter->previous;
    iter_free(iter);
}

void aidb_iter_destroy(aidb_iter *iter)
{
    if (iter == NULL)
        return;
    aidb *db = iter->db;
    if (handle_enter(db) != AIDB_OK)
        return; /* a forked child: aidb_close frees it */
    if (iter->own_snapshot)
        db->driver->snapshot_release(db->state, iter->lsn);
    pthread_mutex_lock(&db->mutex);
    iter_unlink_and_free(iter);
    pthread_mutex_unlock(&db->mutex);
}

/* ---- moving ---------------------------------------------------------------------------------- */

static void decode_row(aidb_iter *iter)
{
    Slice row = buffer_slice(&iter->chunk.bytes), key = {0}, value = {0};
    size_t cursor = iter->chunk.offsets[iter->index];
    bool damaged;
    (void)entry_row_next(row, &cursor, &key, &value, &iter->entry.lsn, &damaged);
    iter->entry.key = key.data;
    iter->entry.key_size = key.size;
    iter->entry.value = iter->keys_only ? NULL : value.data;
    iter->entry.value_size = iter->keys_only ? 0 : value.size;
}

/* Settles on row `index` of the chunk. */
static void settle(aidb_iter *iter, size_t index, const aidb_entry **entry)
{
    iter->place = PLACE_AT;
    iter->index = index;
    decode_row(iter);
    *entry = &iter->entry;
}

/* Reads the next chunk: rows from `bound` on, or downward from before it (empty: the range's end in
 * that direction), and settles on its first row or past the end. The driver's place, if any, is there. */
static Status fetch_on(aidb_iter *iter, bool reverse, const aidb_entry **entry)
{
    Slice from = buffer_slice(&iter->from), to = buffer_slice(&iter->to);
    Slice bound = buffer_slice(&iter->bound);
    if (bound.size > 0 && !reverse && slice_compare(bound, from) > 0)
        from = bound;
    if (bound.size > 0 && reverse && (to.size == 0 || slice_compare(bound, to) < 0))
        to = bound;
    iter->place = reverse ? PLACE_BEFORE : PLACE_AFTER;
    row_chunk_clear(&iter->chunk);
    if (iter->empty || (to.size > 0 && slice_compare(from, to) >= 0))
        return AIDB_OK;

    ScanRequest request = {
        .from = from,
        .to = to,
        .reverse = reverse,
        .keys_only = iter->keys_only,
        .rows_max = iter->rows,
        .bytes_max = CHUNK_BYTES_MAX,
        .walked = iter->walked,
        .place = &iter->kept,
    };
    if (iter->limit > 0 && request.rows_max > iter->limit)
        request.rows_max = iter->limit > CHUNK_ROWS_MAX ? CHUNK_ROWS_MAX : (uint32_t)iter->limit;
    if (iter->walked == 0 && iter->limit > 0)
        request.place = NULL; /* these are mostly all rows that are wanted */
    else if (iter->kept != NULL || (iter->walked == 0 && iter->db->driver->scan_forget != NULL))
        request.bytes_max = CHUNK_BYTES_KEPT;
    Status status = iter->db->driver->scan(iter->db->state, iter->lsn, &request, &iter->chunk);
    if (status != AIDB_OK) {
        row_chunk_clear(&iter->chunk);
        iter->place = PLACE_LOST;
        return status;
    }
    iter->rows = iter->rows < CHUNK_ROWS_MAX / CHUNK_ROWS_GROWTH ? iter->rows * CHUNK_ROWS_GROWTH
                                                                 : CHUNK_ROWS_MAX;
    iter->reverse = reverse;
    iter->walked += iter->chunk.bytes.size;
    if (iter->chunk.count > 0)
        settle(iter, 0, entry);
    return AIDB_OK;
}

/* The same where nothing was read yet. */
static Status fetch(aidb_iter *iter, bool reverse, const aidb_entry **entry)
{
    forget_place(iter);
    iter->walked = 0;
    return fetch_on(iter, reverse, entry);
}

static uint32_t first_rows(const aidb_iter *iter)
{
    if (iter->limit > 0)
        return iter->limit > CHUNK_ROWS_MAX ? CHUNK_ROWS_MAX : (uint32_t)iter->limit;
    return iter->db->driver->first_rows > 0 ? iter->db->driver->first_rows : 1;
}

/* Begins at an end of the range. */
static Status begin(aidb_iter *iter, bool reverse, const aidb_entry **entry)
{
    buffer_clear(&iter->bound);
    iter->rows = iter->limit > 0 ? first_rows(iter) : CHUNK_ROWS_SCAN;
    return fetch(iter, reverse, entry);
}

/* One step from the current row, up or down. */
static Status step(aidb_iter *iter, bool reverse, const aidb_entry **entry)
{
    bool along = iter->reverse == reverse;
    if (along && iter->index + 1 < iter->chunk.count) {
        settle(iter, iter->index + 1, entry);
        return AIDB_OK;
    }
    if (!along && iter->index > 0) {
        settle(iter, iter->index - 1, entry);
        return AIDB_OK;
    }
    if (along && iter->chunk.ended) {
        iter->place = reverse ? PLACE_BEFORE : PLACE_AFTER;
        return AIDB_OK;
    }
    /* The current key is copied: the chunk that it stands in is about to be replaced. */
    buffer_clear(&iter->bound);
    RETURN_IF_FAILED(buffer_append(&iter->bound, iter->entry.key, iter->entry.key_size));
    if (!reverse)
        RETURN_IF_FAILED(buffer_append_byte(&iter->bound, 0));
    if (along)
        return fetch_on(iter, reverse, entry);
    iter->rows = first_rows(iter);
    return fetch(iter, reverse, entry);
}

static Status move(aidb_iter *iter, bool reverse, const aidb_entry **entry)
{
    if (entry == NULL || iter == NULL)
        return status_set(AIDB_INVALID, "the iterator or the place for the entry is NULL");
    *entry = NULL;
    RETURN_IF_FAILED(handle_enter(iter->db));
    if (iter->place == PLACE_AT)
        return step(iter, reverse, entry);
    if (iter->place == PLACE_LOST)
        return status_set(AIDB_INVALID, "the iterator lost its place in an error: seek first");
    if (iter->place == (reverse ? PLACE_BEFORE : PLACE_AFTER))
        return AIDB_OK;
    return begin(iter, reverse, entry);
}

aidb_status aidb_iter_next(aidb_iter *iter, const aidb_entry **entry)
{
    return move(iter, false, entry);
}

aidb_status aidb_iter_prev(aidb_iter *iter, const aidb_entry **entry)
{
    return move(iter, true, entry);
}

aidb_status aidb_iter_seek(aidb_iter *iter, aidb_seek mode, const void *key, size_t key_size,
                           const aidb_entry **entry)
{
    if (entry == NULL || iter == NULL)
        return status_set(AIDB_INVALID, "the iterator or the place for the entry is NULL");
    *entry = NULL;
    RETURN_IF_FAILED(handle_enter(iter->db));
    switch (mode) {
    case AIDB_SEEK_FIRST:
        return begin(iter, false, entry);
    case AIDB_SEEK_LAST:
        return begin(iter, true, entry);
    case AIDB_SEEK_GE:
    case AIDB_SEEK_LE:
        break;
    default:
        return status_set(AIDB_INVALID, "unknown seek mode %d", (int)mode);
    }
    if (key_size > AIDB_KEY_MAX || (key == NULL && key_size > 0))
        return status_set(AIDB_INVALID, "the key to seek has more than %u bytes", AIDB_KEY_MAX);
    buffer_clear(&iter->bound);
    RETURN_IF_FAILED(buffer_append(&iter->bound, key, key_size));
    if (mode == AIDB_SEEK_LE)
        RETURN_IF_FAILED(buffer_append_byte(&iter->bound, 0));
    iter->rows = first_rows(iter);
    return fetch(iter, mode == AIDB_SEEK_LE, entry);
}
