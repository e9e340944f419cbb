#include "config.h"
#include "bin/aidbsql/cursor.h"

#include "bin/aidbsql/mem.h"

static aidb_key key_of(Slice bytes)
{
    return (aidb_key){.data = bytes.data, .size = bytes.size};
}

static Slice slice_of(aidb_key key)
{
    return slice_make(key.data, key.size);
}

void cursor_range_init(CursorRange *range, const Bounds *bounds)
{
    *range = (CursorRange){0};
    if (bounds->has_prefix && bounds->prefix.size > 0) {
        range->range.from = key_of(bounds->prefix);
        /* The first key behind is the prefix with its last byte that is not 0xff raised by one;
         * when there is no such byte the prefix reaches to the end. */
        size_t size = bounds->prefix.size;
        while (size > 0 && bounds->prefix.data[size - 1] == 0xff)
            size--;
        if (size > 0) {
            mem_append(&range->prefix_end, bounds->prefix.data, size);
            range->prefix_end.data[size - 1]++;
            range->range.to = key_of(buffer_slice(&range->prefix_end));
        }
    }
    if (bounds->has_from && bounds->from.size > 0)
        range->range.from = key_of(bounds->from);
    if (bounds->has_to) {
        range->range.to = key_of(bounds->to);
        range->empty = bounds->to.size == 0 ||
                       (bounds->has_from && slice_compare(bounds->from, bounds->to) >= 0);
    }
}

void cursor_range_deinit(CursorRange *range)
{
    buffer_deinit(&range->prefix_end);
}

static Slice entry_key(const aidb_entry *entry)
{
    return slice_make(entry->key, entry->key_size);
}

/* Moves the store's entry to the next one that no deleted range of the batch covers. */
static aidb_status step_store(Cursor *cursor)
{
    RETURN_IF_FAILED(cursor->reverse ? aidb_iter_prev(cursor->iter, &cursor->entry)
                                     : aidb_iter_next(cursor->iter, &cursor->entry));
    while (cursor->overlay != NULL && cursor->entry != NULL) {
        const OverlayRange *deleted = overlay_covering(cursor->overlay, entry_key(cursor->entry));
        if (deleted == NULL)
            break;
        if (!cursor->reverse) {
            if (deleted->to_end) {
                cursor->entry = NULL;
                break;
            }
            RETURN_IF_FAILED(aidb_iter_seek(cursor->iter, AIDB_SEEK_GE, deleted->to.data,
                                            deleted->to.size, &cursor->entry));
        } else {
            if (deleted->from.size == 0) {
                cursor->entry = NULL;
                break;
            }
            RETURN_IF_FAILED(aidb_iter_seek(cursor->iter, AIDB_SEEK_LE, deleted->from.data,
                                            deleted->from.size, &cursor->entry));
            if (cursor->entry != NULL && slice_equal(entry_key(cursor->entry), deleted->from))
                RETURN_IF_FAILED(aidb_iter_prev(cursor->iter, &cursor->entry));
        }
    }
    return AIDB_OK;
}

/* Drops the batch's point when it lies outside of the range. */
static void bound_point(Cursor *cursor)
{
    const OverlayPoint *point = cursor->point;
    if (point == NULL)
        return;
    if (cursor->range.to.data != NULL && slice_compare(point->key, slice_of(cursor->range.to)) >= 0)
        cursor->point = NULL;
    if (cursor->range.from.data != NULL &&
        slice_compare(point->key, slice_of(cursor->range.from)) < 0)
        cursor->point = NULL;
}

static void first_point(Cursor *cursor)
{
    if (!cursor->reverse)
        cursor->point = overlay_at_or_after(cursor->overlay, slice_of(cursor->range.from));
    else if (cursor->range.to.data != NULL)
        cursor->point = overlay_before(cursor->overlay, slice_of(cursor->range.to));
    else
        cursor->point = overlay_last(cursor->overlay);
    bound_point(cursor);
}

static void step_point(Cursor *cursor)
{
    cursor->point = cursor->reverse ? overlay_before(cursor->overlay, cursor->point->key)
                                    : overlay_next(cursor->point);
    bound_point(cursor);
}

aidb_status cursor_open(Cursor *cursor, aidb *db, const CursorRange *range,
                        const CursorOptions *options)
{
    *cursor = (Cursor){.range = range->range, .reverse = options->reverse};
    if (range->empty)
        return AIDB_OK;
    if (options->overlay != NULL && !overlay_is_empty(options->overlay))
        cursor->overlay = options->overlay;
    aidb_scan scan = {.range = range->range,
                      .keys_only = options->keys_only,
                      .limit = cursor->overlay == NULL ? options->limit : 0};
    RETURN_IF_FAILED(aidb_iter_create(db, options->snapshot, &scan, &cursor->iter));
    if (cursor->overlay != NULL)
        first_point(cursor);
    cursor->entry_used = true;
    return AIDB_OK;
}

aidb_status cursor_next(Cursor *cursor, CursorRow *row, bool *found)
{
    *found = false;
    if (cursor->iter == NULL)
        return AIDB_OK;
    for (;;) {
        if (cursor->entry_used) {
            RETURN_IF_FAILED(step_store(cursor));
            cursor->entry_used = false;
        }
        const aidb_entry *entry = cursor->entry;
        const OverlayPoint *point = cursor->point;
        if (entry == NULL && point == NULL)
            return AIDB_OK;
        int order = entry == NULL   ? 1
                    : point == NULL ? -1
                                    : slice_compare(entry_key(entry), point->key);
        if (entry != NULL && point != NULL && cursor->reverse)
            order = -order;
        if (order < 0) {
            *row = (CursorRow){.key = entry_key(entry),
                               .value = slice_make(entry->value, entry->value_size),
                               .lsn = entry->lsn};
            if (entry->value == NULL)
                row->value = (Slice){0};
            cursor->entry_used = true;
            *found = true;
            return AIDB_OK;
        }
        cursor->entry_used = order == 0;
        step_point(cursor);
        if (!point->deleted) {
            *row = (CursorRow){.key = point->key, .value = point->value};
            *found = true;
            return AIDB_OK;
        }
    }
}

void cursor_close(Cursor *cursor)
{
    aidb_iter_destroy(cursor->iter);
    cursor->iter = NULL;
}
