/*
 * table_iter.c - walks a table in both directions.
 *
 * Place: top index entry (tables with two levels) -> index entry -> entry of the data block. With a
 * cache, blocks come from frames and live until the epoch is left; resume fetches them again. Without one, or when it has no
 * frame for a block, they lie in three buffers of the iterator, which are reused for the next block.
 *
 * Stored blocks that are not in the cache are read ahead: 64 KiB at a time (256 in a compaction) when the caller asked for
 * it, and then data blocks are not put into the cache either; otherwise the iterator begins after two
 * blocks in a row in one direction and reads as much again as it walked over.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include <stdlib.h>

typedef struct TableIter {
    Iter base;
    TableReader *reader;
    const TableInfo *info;
    uint32_t readahead;

    bool opened;      /* top or, with one level, leaf was read */
    bool leaf_loaded; /* `leaf` is the partition at top_position */
    bool backward;    /* direction of the last step from block to block */
    uint32_t run;     /* steps from block to block in that direction */
    IndexView top;
    IndexView leaf;
    uint32_t top_position;
    uint32_t leaf_position;
    BlockHandle block; /* the current data block */
    BlockCursor cursor;
    BlockBuffer top_buffer;
    BlockBuffer leaf_buffer;
    BlockBuffer data_buffer;
} TableIter;

static Status at_end(TableIter *it)
{
    it->base.valid = false;
    return AIDB_OK;
}

static Status block_failed(TableIter *it)
{
    it->base.valid = false;
    if (it->cursor.no_memory)
        return AIDB_NO_MEMORY; /* the record was filled where memory was asked for */
    return table_damage(it->reader, it->info, it->block.offset, "data block makes no sense");
}

/* Shows where the cursor stands, which is valid. */
static inline Status show(TableIter *it)
{
    it->base.valid = true;
    it->base.entry = it->cursor.entry;
    return AIDB_OK;
}

static Status read_index(TableIter *it, BlockKind kind, const BlockHandle *handle, BlockBuffer *own,
                         IndexView *view)
{
    Slice payload;
    BlockRead read = {.kind = kind, .handle = *handle, .own = own};
    RETURN_IF_FAILED(table_block_read(it->reader, it->info, &read, &payload));
    if (!index_view_init(view, payload))
        return table_damage(it->reader, it->info, handle->offset, "index block makes no sense");
    return AIDB_OK;
}

static Status open_index(TableIter *it)
{
    if (it->opened)
        return AIDB_OK;
    BlockHandle handle = {.offset = it->info->index_offset, .size = it->info->index_size};
    if (it->info->index_levels == 2) {
        RETURN_IF_FAILED(read_index(it, BLOCK_INDEX_TOP, &handle, &it->top_buffer, &it->top));
    } else {
        RETURN_IF_FAILED(read_index(it, BLOCK_INDEX, &handle, &it->leaf_buffer, &it->leaf));
        it->leaf_loaded = true;
    }
    it->opened = true;
    return AIDB_OK;
}

/* Index blocks above the leaves; a table with one level has one leaf. */
static uint32_t leaf_count(const TableIter *it)
{
    return it->info->index_levels == 2 ? it->top.count : 1;
}

static Status load_leaf(TableIter *it, uint32_t position)
{
    if (it->leaf_loaded && it->top_position == position)
        return AIDB_OK;
    BlockHandle handle;
    it->leaf_loaded = false;
    if (!index_handle(&it->top, position, &handle))
        return table_damage(it->reader, it->info, it->info->index_offset,
                            "index block makes no sense");
    RETURN_IF_FAILED(read_index(it, BLOCK_INDEX, &handle, &it->leaf_buffer, &it->leaf));
    it->top_position = position;
    it->leaf_loaded = true;
    return AIDB_OK;
}

/* The blocks of the index that lead on from here, which may be gone since the iterator was resumed. */
static Status reload_index(TableIter *it)
{
    RETURN_IF_FAILED(open_index(it));
    return it->leaf_loaded ? AIDB_OK : load_leaf(it, it->top_position);
}

/* As much as was walked over so far in this direction, so that not much more is read than asked for. */
static uint32_t readahead_size(const TableIter *it, uint32_t block_size)
{
    if (it->readahead > 0)
        return it->readahead;
    if (it->run < 2)
        return 0;
    uint64_t walked = (uint64_t)it->run * block_size;
    return walked < TABLE_READAHEAD_SCAN ? (uint32_t)walked : TABLE_READAHEAD_SCAN;
}

/* Reads the data block at an entry of the leaf. */
static Status load_block(TableIter *it, uint32_t position)
{
    BlockHandle handle;
    it->leaf_position = position;
    it->base.valid = false;
    if (!index_handle(&it->leaf, position, &handle))
        return table_damage(it->reader, it->info, it->info->index_offset,
                            "index block makes no sense");
    it->block = handle;
    uint32_t readahead = readahead_size(it, handle.size);
    BlockRead read = {.kind = BLOCK_DATA,
                      .handle = handle,
                      .own = &it->data_buffer,
                      .readahead = readahead,
                      .backward = it->backward,
                      .passing = it->readahead > 0};
    Slice payload;
    RETURN_IF_FAILED(table_block_read(it->reader, it->info, &read, &payload));
    if (!block_cursor_init(&it->cursor, payload))
        return block_failed(it);
    if (it->reader->cache != NULL && it->run > 0) {
        /* The next block in this direction, while this one is walked over. */
        uint32_t follower =
            it->backward ? position - 1 : position + 1; /* wraps to behind the end */
        if (index_handle(&it->leaf, follower, &handle))
            cache_prefetch(it->reader->cache,
                           &(CachePlace){.table = it->info->number, .offset = handle.offset}, 1);
    }
    return AIDB_OK;
}

static void note_step(TableIter *it, bool backward)
{
    if (it->backward != backward)
        it->run = 0;
    it->backward = backward;
    it->run++;
}

/* Goes on to the first entry of the next block that has one. */
static Status next_block(TableIter *it)
{
    note_step(it, false);
    RETURN_IF_FAILED(reload_index(it));
    uint32_t position = it->leaf_position + 1;
    for (;;) {
        while (position >= it->leaf.count) {
            if (it->top_position + 1 >= leaf_count(it))
                return at_end(it);
            RETURN_IF_FAILED(load_leaf(it, it->top_position + 1));
            position = 0;
        }
        RETURN_IF_FAILED(load_block(it, position));
        if (!block_cursor_first(&it->cursor))
            return block_failed(it);
        if (it->cursor.valid)
            return show(it);
        position++;
    }
}

static Status previous_block(TableIter *it)
{
    note_step(it, true);
    RETURN_IF_FAILED(reload_index(it));
    uint32_t position = it->leaf_position; /* one behind the block to load */
    for (;;) {
        while (position == 0) {
            if (it->top_position == 0)
                return at_end(it);
            RETURN_IF_FAILED(load_leaf(it, it->top_position - 1));
            position = it->leaf.count;
        }
        RETURN_IF_FAILED(load_block(it, --position));
        if (!block_cursor_last(&it->cursor))
            return block_failed(it);
        if (it->cursor.valid)
            return show(it);
    }
}

static Status seek_first(Iter *iter)
{
    TableIter *it = (TableIter *)iter;
    it->base.valid = false;
    RETURN_IF_FAILED(open_index(it));
    if (leaf_count(it) == 0)
        return AIDB_OK;
    if (it->info->index_levels == 2)
        RETURN_IF_FAILED(load_leaf(it, 0));
    it->run = 0;
    it->leaf_position = UINT32_MAX; /* the block before the first */
    return next_block(it);
}

static Status seek_last(Iter *iter)
{
    TableIter *it = (TableIter *)iter;
    it->base.valid = false;
    RETURN_IF_FAILED(open_index(it));
    if (leaf_count(it) == 0)
        return AIDB_OK;
    if (it->info->index_levels == 2)
        RETURN_IF_FAILED(load_leaf(it, it->top.count - 1));
    it->run = 0;
    it->leaf_position = it->leaf.count;
    return previous_block(it);
}

/* Loads the block that may hold (key, lsn); *behind when it lies behind the last one. */
static Status seek_block(TableIter *it, Slice key, uint64_t lsn, bool *behind)
{
    it->base.valid = false;
    *behind = true;
    RETURN_IF_FAILED(open_index(it));
    uint32_t position = 0;
    if (it->info->index_levels == 2) {
        if (!index_find(&it->top, key, lsn, &position))
            return table_damage(it->reader, it->info, it->info->index_offset,
                                "index block makes no sense");
        if (position == it->top.count)
            return AIDB_OK;
        RETURN_IF_FAILED(load_leaf(it, position));
    }
    if (!index_find(&it->leaf, key, lsn, &position))
        return table_damage(it->reader, it->info, it->info->index_offset,
                            "index block makes no sense");
    if (position == it->leaf.count)
        return AIDB_OK; /* with two levels: a leaf never ends before its separator */
    *behind = false;
    it->run = 0;
    return load_block(it, position);
}

static Status seek(Iter *iter, Slice key, uint64_t lsn)
{
    TableIter *it = (TableIter *)iter;
    bool behind;
    RETURN_IF_FAILED(seek_block(it, key, lsn, &behind));
    if (behind)
        return AIDB_OK;
    if (!block_cursor_seek(&it->cursor, key, lsn))
        return block_failed(it);
    return it->cursor.valid ? show(it) : next_block(it);
}

static Status seek_before(Iter *iter, Slice key, uint64_t lsn)
{
    TableIter *it = (TableIter *)iter;
    bool behind;
    RETURN_IF_FAILED(seek_block(it, key, lsn, &behind));
    if (behind)
        return seek_last(iter);
    if (!block_cursor_seek_before(&it->cursor, key, lsn))
        return block_failed(it);
    return it->cursor.valid ? show(it) : previous_block(it);
}

static Status next(Iter *iter)
{
    TableIter *it = (TableIter *)iter;
    if (!block_cursor_next(&it->cursor))
        return block_failed(it);
    return it->cursor.valid ? show(it) : next_block(it);
}

static Status prev(Iter *iter)
{
    TableIter *it = (TableIter *)iter;
    if (!block_cursor_prev(&it->cursor))
        return block_failed(it);
    return it->cursor.valid ? show(it) : previous_block(it);
}

/* Frames of the cache are let go with the epoch. The data block is fetched again, those of the index when
 * the next one is looked for. */
static Status resume(Iter *iter)
{
    TableIter *it = (TableIter *)iter;
    if (it->top_buffer.framed || (it->info->index_levels == 1 && it->leaf_buffer.framed))
        it->opened = false;
    if (it->leaf_buffer.framed)
        it->leaf_loaded = false;
    if (!iter->valid || !it->data_buffer.framed)
        return AIDB_OK;
    iter->valid = false;
    BlockRead read = {.kind = BLOCK_DATA,
                      .handle = it->block,
                      .own = &it->data_buffer,
                      .passing = it->readahead > 0};
    Slice payload;
    RETURN_IF_FAILED(table_block_read(it->reader, it->info, &read, &payload));
    if (!block_cursor_rebase(&it->cursor, payload))
        return block_failed(it);
    return show(it);
}

static void destroy(Iter *iter)
{
    TableIter *it = (TableIter *)iter;
    block_cursor_deinit(&it->cursor);
    block_buffer_deinit(&it->top_buffer);
    block_buffer_deinit(&it->leaf_buffer);
    block_buffer_deinit(&it->data_buffer);
    free(it);
}

Status table_iter_create(TableReader *reader, const TableInfo *info, uint32_t readahead,
                         Iter **iter)
{
    static const IterOps ops = {.seek_first = seek_first,
                                .seek_last = seek_last,
                                .seek = seek,
                                .seek_before = seek_before,
                                .next = next,
                                .prev = prev,
                                .resume = resume,
                                .destroy = destroy};
    *iter = NULL;
    TableIter *it = malloc(sizeof *it); /* glibc's calloc would be several times as slow */
    if (it == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for an iterator");
    *it = (TableIter){.base.ops = &ops, .reader = reader, .info = info, .readahead = readahead};
    *iter = &it->base;
    return AIDB_OK;
}
