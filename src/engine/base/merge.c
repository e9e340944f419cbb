/*
 * merge.c - many sorted sources as one iterator.
 *
 * The valid sources stand in a binary heap whose top is the current entry: the smallest while
 * moving forward, the greatest while moving backward. Each heap item carries the first eight bytes
 * of its source's key as a number, so that most comparisons touch no key. While one source yields a
 * run of entries, which is the common case, a step costs one comparison: the better of the top's
 * children does not change as long as only the top moves, so it is remembered.
 *
 * Turning round repositions every other source beside the current entry. That is exact because no
 * two sources hold the same (key, LSN), and safe because the current entry's key belongs to the
 * source on top, which is moved last.
 *
 * When a source fails, the merge is left invalid and has no direction: it must be positioned again,
 * which positions every source again.
 */
#include "config.h"
#include "engine/base/base.h"

#include <endian.h>
#include <stdlib.h>

typedef struct MergeItem {
    uint64_t prefix; /* of source->entry.key; orders as the keys do, ties undecided */
    Iter *source;
} MergeItem;

typedef struct MergeIter {
    Iter base;
    bool backward;
    size_t runner_up; /* heap index of the better child of the top; 0: not known */
    size_t heap_count;
    size_t source_count;
    Iter **sources;
    MergeItem heap[]; /* room for all sources */
} MergeIter;

static uint64_t key_prefix(Slice key)
{
    uint64_t word = 0;
    memcpy(&word, key.data, key.size < sizeof word ? key.size : sizeof word);
    return be64toh(word);
}

static MergeItem item_make(Iter *source)
{
    return (MergeItem){.prefix = key_prefix(source->entry.key), .source = source};
}

/* Whether a comes before b in the direction of the merge. */
static inline bool item_before(const MergeIter *merge, const MergeItem *a, const MergeItem *b)
{
    if (a->prefix != b->prefix)
        return (a->prefix < b->prefix) != merge->backward;
    int order = entry_compare(a->source->entry.key, a->source->entry.lsn, b->source->entry.key,
                              b->source->entry.lsn);
    return (order < 0) != merge->backward;
}

/* Moves the item at `index` down to its place. */
static void heap_sink(MergeIter *merge, size_t index)
{
    MergeItem *heap = merge->heap;
    size_t count = merge->heap_count;
    MergeItem item = heap[index];
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= count)
            break;
        if (child + 1 < count && item_before(merge, &heap[child + 1], &heap[child]))
            child++;
        if (item_before(merge, &item, &heap[child]))
            break;
        heap[index] = heap[child];
        index = child;
    }
    heap[index] = item;
}

/* Shows the top as the current entry. */
static void merge_show(MergeIter *merge)
{
    merge->base.valid = merge->heap_count > 0;
    if (merge->base.valid)
        merge->base.entry = merge->heap[0].source->entry;
}

/* Makes a heap of all sources that are valid, after each was positioned. */
static void merge_build(MergeIter *merge, bool backward)
{
    merge->backward = backward;
    merge->runner_up = 0;
    merge->heap_count = 0;
    for (size_t i = 0; i < merge->source_count; i++) {
        if (merge->sources[i]->valid)
            merge->heap[merge->heap_count++] = item_make(merge->sources[i]);
    }
    for (size_t i = merge->heap_count / 2; i-- > 0;)
        heap_sink(merge, i);
    merge_show(merge);
}

/* Puts the top back in order after its source moved by one. */
static void merge_settle(MergeIter *merge)
{
    MergeItem *heap = merge->heap;
    if (!heap[0].source->valid) {
        heap[0] = heap[--merge->heap_count];
        merge->runner_up = 0;
        if (merge->heap_count > 1)
            heap_sink(merge, 0);
    } else if (merge->heap_count > 1) {
        heap[0] = item_make(heap[0].source);
        if (merge->runner_up == 0) {
            merge->runner_up = 1;
            if (merge->heap_count > 2 && item_before(merge, &heap[2], &heap[1]))
                merge->runner_up = 2;
        }
        if (!item_before(merge, &heap[0], &heap[merge->runner_up])) {
            merge->runner_up = 0;
            heap_sink(merge, 0);
        }
    }
    merge_show(merge);
}

static Status merge_seek_first(Iter *iter)
{
    MergeIter *merge = (MergeIter *)iter;
    iter->valid = false;
    for (size_t i = 0; i < merge->source_count; i++)
        RETURN_IF_FAILED(merge->sources[i]->ops->seek_first(merge->sources[i]));
    merge_build(merge, false);
    return AIDB_OK;
}

static Status merge_seek_last(Iter *iter)
{
    MergeIter *merge = (MergeIter *)iter;
    iter->valid = false;
    for (size_t i = 0; i < merge->source_count; i++)
        RETURN_IF_FAILED(merge->sources[i]->ops->seek_last(merge->sources[i]));
    merge_build(merge, true);
    return AIDB_OK;
}

static Status merge_seek(Iter *iter, Slice key, uint64_t lsn)
{
    MergeIter *merge = (MergeIter *)iter;
    iter->valid = false;
    for (size_t i = 0; i < merge->source_count; i++)
        RETURN_IF_FAILED(merge->sources[i]->ops->seek(merge->sources[i], key, lsn));
    merge_build(merge, false);
    return AIDB_OK;
}

static Status merge_seek_before(Iter *iter, Slice key, uint64_t lsn)
{
    MergeIter *merge = (MergeIter *)iter;
    iter->valid = false;
    for (size_t i = 0; i < merge->source_count; i++)
        RETURN_IF_FAILED(merge->sources[i]->ops->seek_before(merge->sources[i], key, lsn));
    merge_build(merge, true);
    return AIDB_OK;
}

/* Moves by one against the direction so far. */
static Status merge_turn(MergeIter *merge, bool backward)
{
    Iter *current = merge->heap[0].source;
    Entry entry = current->entry;
    for (size_t i = 0; i < merge->source_count; i++) {
        Iter *source = merge->sources[i];
        if (source == current)
            continue;
        RETURN_IF_FAILED(backward ? source->ops->seek_before(source, entry.key, entry.lsn)
                                  : source->ops->seek(source, entry.key, entry.lsn));
    }
    RETURN_IF_FAILED(backward ? current->ops->prev(current) : current->ops->next(current));
    merge_build(merge, backward);
    return AIDB_OK;
}

static Status merge_next(Iter *iter)
{
    MergeIter *merge = (MergeIter *)iter;
    iter->valid = false;
    if (merge->backward)
        return merge_turn(merge, false);
    Iter *top = merge->heap[0].source;
    RETURN_IF_FAILED(top->ops->next(top));
    merge_settle(merge);
    return AIDB_OK;
}

static Status merge_prev(Iter *iter)
{
    MergeIter *merge = (MergeIter *)iter;
    iter->valid = false;
    if (!merge->backward)
        return merge_turn(merge, true);
    Iter *top = merge->heap[0].source;
    RETURN_IF_FAILED(top->ops->prev(top));
    merge_settle(merge);
    return AIDB_OK;
}

static Status merge_resume(Iter *iter)
{
    MergeIter *merge = (MergeIter *)iter;
    for (size_t i = 0; i < merge->heap_count; i++) {
        Status status = iter_resume(merge->heap[i].source);
        if (status != AIDB_OK) {
            iter->valid = false;
            return status;
        }
    }
    merge_show(merge);
    return AIDB_OK;
}

static void merge_destroy(Iter *iter)
{
    MergeIter *merge = (MergeIter *)iter;
    for (size_t i = 0; i < merge->source_count; i++)
        iter_destroy(merge->sources[i]);
    free(merge->sources);
    free(merge);
}

static const IterOps merge_ops = {
    .seek_first = merge_seek_first,
    .seek_last = merge_seek_last,
    .seek = merge_seek,
    .seek_before = merge_seek_before,
    .next = merge_next,
    .prev = merge_prev,
    .resume = merge_resume,
    .destroy = merge_destroy,
};

Status merge_iter_create(Iter **sources, size_t count, Iter **iter)
{
    *iter = NULL;
    if (count == 1) {
        *iter = sources[0];
        return AIDB_OK;
    }
    MergeIter *merge = calloc(1, sizeof *merge + count * sizeof merge->heap[0]);
    Iter **copy = malloc((count > 0 ? count : 1) * sizeof(Iter *));
    if (merge == NULL || copy == NULL) {
        free(merge);
        free(copy);
        for (size_t i = 0; i < count; i++)
            iter_destroy(sources[i]);
        return status_set(AIDB_NO_MEMORY, "could not allocate an iterator over %zu sources", count);
    }
    for (size_t i = 0; i < count; i++)
        copy[i] = sources[i];
    merge->base.ops = &merge_ops;
    merge->sources = copy;
    merge->source_count = count;
    *iter = &merge->base;
    return AIDB_OK;
}
