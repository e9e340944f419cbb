/*
 * scan.c - reading a range: one chunk of rows inside one epoch.
 *
 * Sources (memtables, tables of level 0, one concatenation for each deeper level) are merged in
 * internal order; of each key the newest version at or below the read LSN counts, unless it is a
 * tombstone or a range tombstone that is newer covers it. The caller remembers its last key and comes
 * again for the next chunk. A cursor may keep the sources in between, outside any epoch: nothing in
 * them is touched again before the next chunk found, inside an epoch, that the read view is still the same
 * one, so that memtables and version are still there; if it is not, they are freed without a look.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include <stdlib.h>

#define CANCEL_STEPS   1024u
#define LONG_SCAN_PART 16u         /* of the block cache */
#define LARGE_VALUE    (64u << 10) /* an iterator's memory for one is not kept from chunk to chunk */

/* ---- a level as one iterator -------------------------------------------------------------------- */

typedef struct LevelIter {
    Iter base;
    TableReader *reader;
    FileMeta **files;
    uint32_t count;
    uint32_t index; /* of the open table */
    Iter *table;    /* NULL: none open */
    uint32_t readahead;
} LevelIter;

static void level_take(LevelIter *iter)
{
    iter->base.valid = iter->table != NULL && iter->table->valid;
    if (iter->base.valid)
        iter->base.entry = iter->table->entry;
}

static Status level_open(LevelIter *iter, uint32_t index)
{
    if (iter->table != NULL && iter->index == index)
        return AIDB_OK;
    iter_destroy(iter->table);
    iter->table = NULL;
    iter->index = index;
    return table_iter_create(iter->reader, &iter->files[index]->info, iter->readahead,
                             &iter->table);
}

/* Moves to the first entry of the tables after the open one until there is an entry. */
static Status level_forward(LevelIter *iter)
{
    while (!iter->table->valid && iter->index + 1 < iter->count) {
        RETURN_IF_FAILED(level_open(iter, iter->index + 1));
        RETURN_IF_FAILED(iter->table->ops->seek_first(iter->table));
    }
    level_take(iter);
    return AIDB_OK;
}

static Status level_backward(LevelIter *iter)
{
    while (!iter->table->valid && iter->index > 0) {
        RETURN_IF_FAILED(level_open(iter, iter->index - 1));
        RETURN_IF_FAILED(iter->table->ops->seek_last(iter->table));
    }
    level_take(iter);
    return AIDB_OK;
}

static Status level_seek_first(Iter *base)
{
    LevelIter *iter = (LevelIter *)base;
    base->valid = false;
    RETURN_IF_FAILED(level_open(iter, 0));
    RETURN_IF_FAILED(iter->table->ops->seek_first(iter->table));
    return level_forward(iter);
}

static Status level_seek_last(Iter *base)
{
    LevelIter *iter = (LevelIter *)base;
    base->valid = false;
    RETURN_IF_FAILED(level_open(iter, iter->count - 1));
    RETURN_IF_FAILED(iter->table->ops->seek_last(iter->table));
    return level_backward(iter);
}

/* The first table whose last key may be at or after key. */
static uint32_t level_find(const LevelIter *iter, Slice key)
{
    uint32_t low = 0, high = iter->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const FileMeta *file = iter->files[middle];
        if (!file->unbounded && slice_compare(file->largest, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static Status level_seek(Iter *base, Slice key, uint64_t lsn)
{
    LevelIter *iter = (LevelIter *)base;
    base->valid = false;
    uint32_t index = level_find(iter, key);
    if (index == iter->count)
        return AIDB_OK;
    RETURN_IF_FAILED(level_open(iter, index));
    RETURN_IF_FAILED(iter->table->ops->seek(iter->table, key, lsn));
    return level_forward(iter);
}

static Status level_seek_before(Iter *base, Slice key, uint64_t lsn)
{
    LevelIter *iter = (LevelIter *)base;
    base->valid = false;
    uint32_t index = level_find(iter, key);
    if (index == iter->count)
        return level_seek_last(base);
    RETURN_IF_FAILED(level_open(iter, index));
    RETURN_IF_FAILED(iter->table->ops->seek_before(iter->table, key, lsn));
    return level_backward(iter);
}

static Status level_next(Iter *base)
{
    LevelIter *iter = (LevelIter *)base;
    base->valid = false;
    RETURN_IF_FAILED(iter->table->ops->next(iter->table));
    return level_forward(iter);
}

static Status level_prev(Iter *base)
{
    LevelIter *iter = (LevelIter *)base;
    base->valid = false;
    RETURN_IF_FAILED(iter->table->ops->prev(iter->table));
    return level_backward(iter);
}

static Status level_resume(Iter *base)
{
    LevelIter *iter = (LevelIter *)base;
    base->valid = false;
    if (iter->table != NULL)
        RETURN_IF_FAILED(iter_resume(iter->table));
    level_take(iter);
    return AIDB_OK;
}

static void level_destroy(Iter *base)
{
    LevelIter *iter = (LevelIter *)base;
    iter_destroy(iter->table);
    free(iter);
}

static Status level_iter_create(TableReader *reader, FileMeta **files, uint32_t count,
                                uint32_t readahead, Iter **out)
{
    static const IterOps ops = {
        .seek_first = level_seek_first,
        .seek_last = level_seek_last,
        .seek = level_seek,
        .seek_before = level_seek_before,
        .next = level_next,
        .prev = level_prev,
        .resume = level_resume,
        .destroy = level_destroy,
    };
    *out = NULL;
    LevelIter *iter = malloc(sizeof *iter);
    if (iter == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    *iter = (LevelIter){
        .base.ops = &ops, .reader = reader, .files = files, .count = count, .readahead = readahead};
    *out = &iter->base;
    return AIDB_OK;
}

/* ---- sources ----------------------------------------------------------------------------------- */

typedef struct Sources {
    Iter **iters;
    size_t count, capacity;
    size_t merged_count;    /* of them, the first, which `merged` owns */
    RangeFragments *ranges; /* one for each source that has range tombstones */
    size_t range_count, range_capacity;
    Iter *merged;
} Sources;

static Status sources_add(Sources *sources, Iter *iter)
{
    if (sources->count == sources->capacity) {
        size_t capacity = sources->capacity == 0 ? 16 : sources->capacity * 2;
        Iter **iters = realloc(sources->iters, capacity * sizeof(Iter *));
        if (iters == NULL) {
            iter_destroy(iter);
            return status_set(AIDB_NO_MEMORY, "out of memory");
        }
        sources->iters = iters;
        sources->capacity = capacity;
    }
    sources->iters[sources->count++] = iter;
    return AIDB_OK;
}

static Status sources_add_range(Sources *sources, RangeFragments **place)
{
    if (sources->range_count == sources->range_capacity) {
        size_t capacity = sources->range_capacity == 0 ? 8 : sources->range_capacity * 2;
        RangeFragments *ranges = realloc(sources->ranges, capacity * sizeof *ranges);
        if (ranges == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory");
        sources->ranges = ranges;
        sources->range_capacity = capacity;
    }
    *place = &sources->ranges[sources->range_count++];
    **place = (RangeFragments){0};
    return AIDB_OK;
}

static Status add_memtable(Sources *sources, const Memtable *memtable, uint64_t visible)
{
    uint64_t first = memtable_first_lsn(memtable);
    if (first == 0 || first > visible)
        return AIDB_OK; /* all that it has or may get meanwhile is newer */
    if (memtable_has_ranges(memtable)) {
        RangeFragments *fragments;
        RETURN_IF_FAILED(sources_add_range(sources, &fragments));
        RETURN_IF_FAILED(memtable_fragments(memtable, fragments));
    }
    Iter *iter;
    RETURN_IF_FAILED(memtable_iter_create(memtable, &iter));
    return sources_add(sources, iter);
}

static Status add_table_ranges(Session *session, Sources *sources, const FileMeta *file)
{
    if (file->info.range_size == 0)
        return AIDB_OK;
    RangeFragments *fragments;
    RETURN_IF_FAILED(sources_add_range(sources, &fragments));
    return table_fragments(&session->reader, &file->info, fragments);
}

/* Whether a table can hold something of [from, to); `to` empty is no bound. */
static bool in_range(const FileMeta *file, const DbScan *scan)
{
    if (scan->from.size > 0 && !file->unbounded && slice_compare(file->largest, scan->from) < 0)
        return false;
    return scan->to.size == 0 || slice_compare(file->smallest, scan->to) < 0;
}

static Status sources_open(Session *session, const DbScan *scan, uint32_t readahead,
                           Sources *sources)
{
    const ReadView *view = session->view;
    RETURN_IF_FAILED(add_memtable(sources, view->active, session->read_lsn));
    for (uint32_t i = 0; i < view->immutable_count; i++)
        RETURN_IF_FAILED(add_memtable(sources, view->immutables[i], session->read_lsn));
    const Version *version = view->version;
    for (uint32_t i = 0; i < version->levels[0].count; i++) {
        const FileMeta *file = version->levels[0].files[i];
        if (!in_range(file, scan))
            continue;
        RETURN_IF_FAILED(add_table_ranges(session, sources, file));
        Iter *iter;
        RETURN_IF_FAILED(table_iter_create(&session->reader, &file->info, readahead, &iter));
        RETURN_IF_FAILED(sources_add(sources, iter));
    }
    for (int level = 1; level < LEVELS; level++) {
        FileMeta **files = version->levels[level].files;
        uint32_t first = 0, last = version->levels[level].count;
        if (scan->from.size > 0 && last > 0)
            first = version_find_file(version, level, scan->from);
        uint32_t end = first;
        while (end < last && in_range(files[end], scan)) {
            RETURN_IF_FAILED(add_table_ranges(session, sources, files[end]));
            end++;
        }
        if (end == first)
            continue;
        Iter *iter;
        RETURN_IF_FAILED(
            level_iter_create(&session->reader, files + first, end - first, readahead, &iter));
        RETURN_IF_FAILED(sources_add(sources, iter));
    }
    size_t count = sources->count;
    sources->count = 0; /* the merging iterator owns them from here */
    RETURN_IF_FAILED(merge_iter_create(sources->iters, count, &sources->merged));
    sources->merged_count = count;
    return AIDB_OK;
}

static void sources_close(Sources *sources)
{
    iter_destroy(sources->merged);
    for (size_t i = 0; i < sources->count; i++)
        iter_destroy(sources->iters[i]);
    for (size_t i = 0; i < sources->range_count; i++)
        range_fragments_deinit(&sources->ranges[i]);
    free(sources->iters);
    free(sources->ranges);
    *sources = (Sources){0};
}

/* Whether a source stands on a large value: then a block of that size is in its memory. */
static bool sources_large(const Sources *sources)
{
    for (size_t i = 0; i < sources->merged_count; i++)
        if (sources->iters[i]->valid && sources->iters[i]->entry.value.size > LARGE_VALUE)
            return true;
    return false;
}

static uint64_t sources_cover(const Sources *sources, Slice key, uint64_t visible)
{
    uint64_t cover = 0;
    for (size_t i = 0; i < sources->range_count; i++) {
        uint64_t lsn =
            range_fragments_cover(sources->ranges[i].items, sources->ranges[i].count, key, visible);
        if (lsn > cover)
            cover = lsn;
    }
    return cover;
}

/* ---- walking ------------------------------------------------------------------------------------ */

static bool is_live(const Sources *sources, const Entry *entry, uint64_t visible)
{
    return entry->type == OP_PUT &&
           (sources->range_count == 0 || sources_cover(sources, entry->key, visible) < entry->lsn);
}

static Status buffer_set(Buffer *buffer, Slice bytes)
{
    buffer_clear(buffer);
    return buffer_append(buffer, bytes.data, bytes.size);
}

struct DbCursor {
    Sources sources; /* merged is NULL when there is no place */
    const Session *session;
    uint64_t generation; /* of the read view */
    bool long_scan;
    Buffer key; /* of the row that the last chunk ended with, walking up */
    Buffer value;
};

typedef struct Walk {
    const DbScan *scan;
    bool (*row)(void *arg, const Entry *entry);
    void *arg;
    Buffer *key;
    Buffer *value;
    uint64_t visible;
    uint64_t rows;
    uint64_t steps;
    size_t largest; /* value that was passed */
    bool ended;
} Walk;

/* Called for each entry. Rows ask their receiver whether to go on; a walk may also pass over much that is no
 * row. */
static Status pass(const Session *session, Walk *walk, const Entry *entry)
{
    if (entry->value.size > walk->largest)
        walk->largest = entry->value.size;
    if (++walk->steps % CANCEL_STEPS != 0 || atomic_load(&session->slot->interrupt) == 0)
        return AIDB_OK;
    return status_set(AIDB_CANCELED, "canceled");
}

static bool emit(Walk *walk, const Entry *entry)
{
    walk->rows++;
    if (!walk->scan->keys_only)
        return walk->row(walk->arg, entry);
    Entry bare = *entry;
    bare.value = slice_make(NULL, 0);
    return walk->row(walk->arg, &bare);
}

/* Versions of a key come newest first: the first visible one decides. Stops at the last row, and goes on
 * behind it. */
static Status walk_forward(Session *session, Sources *sources, Walk *walk, bool going_on)
{
    Iter *iter = sources->merged;
    const DbScan *scan = walk->scan;
    if (going_on)
        RETURN_IF_FAILED(iter->ops->next(iter));
    else if (scan->from.size > 0)
        RETURN_IF_FAILED(iter->ops->seek(iter, scan->from, LSN_MAX));
    else
        RETURN_IF_FAILED(iter->ops->seek_first(iter));
    bool decided = going_on; /* walk->key holds a key whose newest visible version was met */
    while (iter->valid) {
        const Entry *entry = &iter->entry;
        if (scan->to.size > 0 && slice_compare(entry->key, scan->to) >= 0)
            break;
        if (entry->lsn <= walk->visible &&
            !(decided && slice_equal(entry->key, buffer_slice(walk->key)))) {
            decided = true;
            RETURN_IF_FAILED(buffer_set(walk->key, entry->key));
            if (is_live(sources, entry, walk->visible) && !emit(walk, entry))
                return AIDB_OK;
        }
        RETURN_IF_FAILED(pass(session, walk, entry));
        RETURN_IF_FAILED(iter->ops->next(iter));
    }
    walk->ended = true;
    return AIDB_OK;
}

/* Versions of a key come oldest first: the last visible one counts, known when the key changes. Stops
 * behind the last row already. */
static Status walk_backward(Session *session, Sources *sources, Walk *walk, bool going_on)
{
    Iter *iter = sources->merged;
    const DbScan *scan = walk->scan;
    if (going_on)
        ;
    else if (scan->to.size > 0)
        RETURN_IF_FAILED(iter->ops->seek_before(iter, scan->to, LSN_MAX));
    else
        RETURN_IF_FAILED(iter->ops->seek_last(iter));
    bool pending = false; /* walk->key and value hold the newest visible version met of a key */
    Entry best = {0};
    for (;;) {
        bool more = iter->valid &&
                    (scan->from.size == 0 || slice_compare(iter->entry.key, scan->from) >= 0);
        if (pending && (!more || !slice_equal(iter->entry.key, buffer_slice(walk->key)))) {
            pending = false;
            best.key = buffer_slice(walk->key);
            best.value = buffer_slice(walk->value);
            if (is_live(sources, &best, walk->visible) && !emit(walk, &best))
                return AIDB_OK;
        }
        if (!more)
            break;
        const Entry *entry = &iter->entry;
        if (entry->lsn <= walk->visible) {
            best = *entry;
            RETURN_IF_FAILED(buffer_set(walk->key, entry->key));
            RETURN_IF_FAILED(
                buffer_set(walk->value, scan->keys_only ? slice_make(NULL, 0) : entry->value));
            pending = true;
        }
        RETURN_IF_FAILED(pass(session, walk, entry));
        RETURN_IF_FAILED(iter->ops->prev(iter));
    }
    walk->ended = true;
    return AIDB_OK;
}

DbCursor *db_cursor_create(void)
{
    DbCursor *cursor = malloc(sizeof *cursor);
    if (cursor != NULL)
        *cursor = (DbCursor){0};
    return cursor;
}

/* A place is worth keeping while its memory is that of small blocks: a program may have many. */
static bool worth_keeping(const DbCursor *cursor, const Walk *walk)
{
    return walk->largest <= LARGE_VALUE && !sources_large(&cursor->sources);
}

bool db_cursor_stands(const DbCursor *cursor)
{
    return cursor->sources.merged != NULL;
}

void db_cursor_destroy(DbCursor *cursor)
{
    if (cursor == NULL)
        return;
    sources_close(&cursor->sources);
    buffer_deinit(&cursor->key);
    buffer_deinit(&cursor->value);
    free(cursor);
}

/* Opens the sources, or makes those of the chunk before good again. */
static Status sources_ready(Session *session, const DbScan *scan, DbCursor *cursor, bool *going_on)
{
    bool long_scan = scan->walked >= session->shared->cache_size / LONG_SCAN_PART;
    *going_on = cursor->sources.merged != NULL && cursor->session == session &&
                cursor->generation == session->view->generation && cursor->long_scan == long_scan;
    if (*going_on)
        return iter_resume(cursor->sources.merged);
    sources_close(&cursor->sources);
    cursor->session = session;
    cursor->generation = session->view->generation;
    cursor->long_scan = long_scan;
    slot_count(session->slot, STAT_SCANS, 1);
    return sources_open(session, scan, long_scan ? TABLE_READAHEAD_SCAN : 0, &cursor->sources);
}

Status db_scan(Session *session, uint64_t snapshot, const DbScan *scan,
               bool (*row)(void *arg, const Entry *entry), void *arg, bool *ended, uint64_t *at)
{
    *ended = false;
    DbCursor passing = {0};
    DbCursor *cursor = scan->cursor != NULL ? scan->cursor : &passing;
    Walk walk = {.scan = scan,
                 .row = row,
                 .arg = arg,
                 .key = scan->cursor != NULL ? &cursor->key : &session->key,
                 .value = scan->cursor != NULL ? &cursor->value : &session->value};
    bool going_on = false;
    Status status = db_read_begin(session, snapshot, at);
    if (status != AIDB_OK) {
        sources_close(&cursor->sources);
        return status;
    }
    walk.visible = session->read_lsn;
    if (scan->to.size > 0 && slice_compare(scan->from, scan->to) >= 0) {
        walk.ended = true;
        goto out;
    }
    OUT_IF_FAILED(sources_ready(session, scan, cursor, &going_on));
    OUT_IF_FAILED(scan->reverse ? walk_backward(session, &cursor->sources, &walk, going_on)
                                : walk_forward(session, &cursor->sources, &walk, going_on));
out:
    *ended = walk.ended;
    if (scan->cursor == NULL || walk.ended || status != AIDB_OK || !worth_keeping(cursor, &walk))
        sources_close(&cursor->sources);
    db_read_end(session);
    slot_count(session->slot, STAT_SCAN_ROWS, walk.rows);
    return status;
}

/* ---- counting ----------------------------------------------------------------------------------- */

#define COUNT_STEP_MIN (64u << 10)
#define COUNT_STEP_MAX (4u << 20)

typedef struct Counting {
    const Session *session;
    uint64_t rows;
    uint64_t bytes, step_end;
    Buffer last; /* key of the step's last row, and the zero byte that leads behind it */
    Status status;
} Counting;

static bool count_row(void *arg, const Entry *entry)
{
    Counting *counting = arg;
    counting->rows++;
    counting->bytes += entry->key.size + entry->value.size;
    if (counting->bytes < counting->step_end &&
        atomic_load_explicit(&counting->session->slot->interrupt, memory_order_relaxed) == 0)
        return true;
    counting->status = buffer_set(&counting->last, entry->key);
    if (counting->status == AIDB_OK)
        counting->status = buffer_append_byte(&counting->last, 0);
    return false;
}

Status db_count(Session *session, uint64_t snapshot, Slice from, Slice to, uint64_t *count)
{
    *count = 0;
    /* The first step ends where it is known that this is a long walk. */
    uint64_t step = session->shared->cache_size / LONG_SCAN_PART;
    step = step < COUNT_STEP_MIN ? COUNT_STEP_MIN : step > COUNT_STEP_MAX ? COUNT_STEP_MAX : step;
    Counting counting = {.session = session};
    DbScan scan = {.from = from, .to = to};
    Status status = AIDB_OK;
    for (bool ended = false; !ended;) {
        uint64_t at;
        scan.walked = counting.bytes;
        counting.step_end = counting.bytes + step;
        OUT_IF_FAILED(db_scan(session, snapshot, &scan, count_row, &counting, &ended, &at));
        OUT_IF_FAILED(counting.status);
        if (atomic_load(&session->slot->interrupt) != 0) {
            status = status_set(AIDB_CANCELED, "canceled");
            goto out;
        }
        scan.from = buffer_slice(&counting.last);
    }
    *count = counting.rows;
out:
    buffer_deinit(&counting.last);
    return status;
}

Status db_approximate_size(Session *session, Slice from, Slice to, uint64_t *bytes)
{
    *bytes = 0;
    uint64_t at;
    RETURN_IF_FAILED(db_read_begin(session, DB_NOW, &at));
    Status status = AIDB_OK;
    const ReadView *view = session->view;
    const DbScan scan = {.from = from, .to = to};
    for (int level = 0; level < LEVELS; level++) {
        for (uint32_t i = 0; i < view->version->levels[level].count; i++) {
            const FileMeta *file = view->version->levels[level].files[i];
            if (!in_range(file, &scan))
                continue;
            uint64_t first = 0, last = file->info.data_size;
            if (from.size > 0)
                OUT_IF_FAILED(table_offset_of(&session->reader, &file->info, from, &first));
            if (to.size > 0)
                OUT_IF_FAILED(table_offset_of(&session->reader, &file->info, to, &last));
            if (last > first)
                *bytes += last - first;
        }
    }
    /* Memtables are not measured by range: all or nothing would mislead, so only the whole counts. */
    if (from.size == 0 && to.size == 0) {
        *bytes += memtable_bytes(view->active);
        for (uint32_t i = 0; i < view->immutable_count; i++)
            *bytes += memtable_bytes(view->immutables[i]);
    }
out:
    db_read_end(session);
    return status;
}
