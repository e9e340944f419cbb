/*
 * ranges.c - the range tombstones of a memtable: a map from bounds to what covers the keys from one
 * bound to the next.
 *
 * The bounds of all tombstones stand in a skip list, sorted. Each carries the head of a list of
 * cells, newest first, one for each tombstone that covers all of [this bound, next bound); what lies
 * before the first bound has a list of its own. Cells never change, so lists share their tails:
 *
 * - A new bound inside [a, b) splits it in two by copying a's head. Nothing is covered differently.
 * - A new tombstone [from, to) first makes its two bounds, then prepends a cell to every list from
 *   `from` up to but not including `to`.
 *
 * One writer, readers without locks. Between the steps above a reader finds, for every key, a list
 * that holds all older tombstones and perhaps the new one, whose LSN it cannot see yet and skips.
 * A bound is complete before a release store links it, a cell before a release store makes it the
 * head; readers load both with acquire.
 *
 * A lookup is a search and one step down the list for each tombstone that is too new. Adding costs a
 * cell for each stretch inside the range, which is what ranges_need counts; nested tombstones make
 * that grow with their square, and as cells are part of memtable_bytes they also fill the memtable
 * sooner: that bounds both the work of a later tombstone and the size of the fragments.
 */
#include "config.h"
#include "engine/memtable/memtable_internal.h"

#include <stdlib.h>

typedef struct Cell {
    uint64_t lsn;
    Ref next; /* older; never changes */
} Cell;

typedef struct Bound {
    uint64_t prefix;
    uint32_t key_size;
    uint32_t height;
    _Atomic Ref cells;
    _Atomic Ref next[]; /* `height` links, then the key */
} Bound;

static inline Bound *bound_at(const Memtable *memtable, Ref ref)
{
    return ref_pointer(memtable, ref);
}

static inline Slice bound_key(const Bound *bound)
{
    return slice_make(&bound->next[bound->height], bound->key_size);
}

static inline size_t bound_size(uint32_t height, size_t key_size)
{
    return sizeof(Bound) + height * sizeof(Ref) + key_size;
}

static inline _Atomic Ref *bound_link(const Memtable *memtable, Ref ref, uint32_t level)
{
    if (ref == REF_NONE)
        return (_Atomic Ref *)&memtable->range_head[level];
    return &bound_at(memtable, ref)->next[level];
}

static inline Ref bound_follow(const Memtable *memtable, Ref ref, uint32_t level)
{
    return atomic_load_explicit(bound_link(memtable, ref, level), memory_order_acquire);
}

/* The cells of a bound, or of what lies before the first when `ref` is REF_NONE. */
static inline _Atomic Ref *cells_of(const Memtable *memtable, Ref ref)
{
    if (ref == REF_NONE)
        return (_Atomic Ref *)&memtable->range_cells;
    return &bound_at(memtable, ref)->cells;
}

static inline int bound_compare(const Bound *bound, uint64_t prefix, Slice key)
{
    if (bound->prefix != prefix)
        return bound->prefix < prefix ? -1 : 1;
    return compare_behind_prefix(bound_key(bound), key);
}

/* The last bound at or before key, REF_NONE when there is none. `before`, when given, gets the last
 * bound at or before key at each level of the list. */
static Ref bound_search(const Memtable *memtable, Slice key, Ref *before)
{
    uint64_t prefix = key_prefix(key);
    Ref at = REF_NONE;
    Ref behind = REF_NONE; /* known to be after key */
    for (uint32_t level = atomic_load_explicit(&memtable->range_height, memory_order_relaxed);
         level-- > 0;) {
        for (;;) {
            Ref next = bound_follow(memtable, at, level);
            if (next == behind || next == REF_NONE)
                break;
            if (bound_compare(bound_at(memtable, next), prefix, key) > 0) {
                behind = next;
                break;
            }
            at = next;
        }
        if (before != NULL)
            before[level] = at;
    }
    return at;
}

/* ---- writing --------------------------------------------------------------------------------- */

void ranges_init(Memtable *memtable)
{
    atomic_store_explicit(&memtable->bound_count, 0, memory_order_relaxed);
    atomic_store_explicit(&memtable->range_height, 1, memory_order_relaxed);
    for (uint32_t level = 0; level < RANGE_HEIGHT_MAX; level++)
        atomic_store_explicit(&memtable->range_head[level], REF_NONE, memory_order_relaxed);
    atomic_store_explicit(&memtable->range_cells, REF_NONE, memory_order_relaxed);
}

/* Each adds at most two bounds. A cell is made for each stretch between its bounds, which there are when all
 * of the batch are added; a bound that is here already splits one more stretch, for each tombstone around it. */
uint64_t ranges_need(const Memtable *memtable, RangeLoad ranges)
{
    uint64_t bounds = 2 * (bound_size(RANGE_HEIGHT_MAX, 0) + REF_UNIT - 1);
    uint64_t present = atomic_load_explicit(&memtable->bound_count, memory_order_relaxed);
    uint64_t cells;
    uint64_t need;
    if (__builtin_mul_overflow(present, (uint64_t)ranges.depth, &cells) ||
        __builtin_add_overflow(cells, ranges.pieces, &cells) ||
        __builtin_mul_overflow(cells, sizeof(Cell), &cells) ||
        __builtin_mul_overflow(bounds, (uint64_t)ranges.count, &need) ||
        __builtin_add_overflow(need, cells, &need))
        return UINT64_MAX;
    return need;
}

/* Makes sure that there is a bound at key, and returns it. */
static Ref bound_add(Memtable *memtable, Slice key)
{
    Ref before[RANGE_HEIGHT_MAX];
    Ref at = bound_search(memtable, key, before);
    if (at != REF_NONE && slice_equal(bound_key(bound_at(memtable, at)), key))
        return at;
    uint32_t height = memtable_random_height(memtable, RANGE_HEIGHT_MAX);
    uint32_t list_height = atomic_load_explicit(&memtable->range_height, memory_order_relaxed);
    for (; list_height < height; list_height++)
        before[list_height] = REF_NONE;
    atomic_store_explicit(&memtable->range_height, list_height, memory_order_relaxed);

    Ref ref = memtable_allocate(memtable, bound_size(height, key.size));
    Bound *bound = bound_at(memtable, ref);
    bound->prefix = key_prefix(key);
    bound->key_size = (uint32_t)key.size;
    bound->height = height;
    memcpy(&bound->next[height], key.data, key.size);
    Ref cells = atomic_load_explicit(cells_of(memtable, at), memory_order_relaxed);
    atomic_store_explicit(&bound->cells, cells, memory_order_relaxed);
    for (uint32_t level = 0; level < height; level++) {
        Ref next =
            atomic_load_explicit(bound_link(memtable, before[level], level), memory_order_relaxed);
        atomic_store_explicit(&bound->next[level], next, memory_order_relaxed);
    }
    for (uint32_t level = 0; level < height; level++)
        atomic_store_explicit(bound_link(memtable, before[level], level), ref,
                              memory_order_release);
    atomic_store_explicit(&memtable->bound_count,
                          atomic_load_explicit(&memtable->bound_count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    return ref;
}

static void cell_prepend(Memtable *memtable, _Atomic Ref *cells, uint64_t lsn)
{
    Ref ref = memtable_allocate(memtable, sizeof(Cell));
    Cell *cell = ref_pointer(memtable, ref);
    cell->lsn = lsn;
    cell->next = atomic_load_explicit(cells, memory_order_relaxed);
    atomic_store_explicit(cells, ref, memory_order_release);
}

void ranges_add(Memtable *memtable, Slice from, Slice to, uint64_t lsn)
{
    Ref end = to.size > 0 ? bound_add(memtable, to) : REF_NONE;
    Ref at = from.size > 0 ? bound_add(memtable, from) : REF_NONE;
    do {
        cell_prepend(memtable, cells_of(memtable, at), lsn);
        at = bound_follow(memtable, at, 0);
    } while (at != end && at != REF_NONE);
}

/* ---- reading --------------------------------------------------------------------------------- */

bool memtable_has_ranges(const Memtable *memtable)
{
    /* Acquire: nothing that a reader may see is missed, because its LSN became visible later. */
    return atomic_load_explicit(&memtable->bound_count, memory_order_relaxed) > 0 ||
           atomic_load_explicit(&memtable->range_cells, memory_order_acquire) != REF_NONE;
}

uint64_t memtable_cover(const Memtable *memtable, Slice key, uint64_t visible)
{
    if (!memtable_has_ranges(memtable))
        return 0;
    Ref at = bound_search(memtable, key, NULL);
    Ref ref = atomic_load_explicit(cells_of(memtable, at), memory_order_acquire);
    while (ref != REF_NONE) {
        const Cell *cell = ref_pointer(memtable, ref);
        if (cell->lsn <= visible)
            return cell->lsn;
        ref = cell->next;
    }
    return 0;
}

/* What one walk over the bounds saw. The lists behind `cells` do not change any more, so that they
 * can be measured first and copied after, whatever the writer does meanwhile. */
typedef struct Stretch {
    Slice from; /* in the pool */
    Ref cells;
} Stretch;

static Status collect_stretches(const Memtable *memtable, Stretch **stretches, size_t *count)
{
    size_t capacity = 0;
    Ref at = REF_NONE;
    do {
        if (*count == capacity) {
            capacity = capacity == 0 ? 16 : 2 * capacity;
            Stretch *larger = realloc(*stretches, capacity * sizeof **stretches);
            if (larger == NULL)
                return status_set(AIDB_NO_MEMORY,
                                  "could not allocate room for %zu bounds of range tombstones",
                                  capacity);
            *stretches = larger;
        }
        (*stretches)[(*count)++] = (Stretch){
            .from = at == REF_NONE ? slice_make(NULL, 0) : bound_key(bound_at(memtable, at)),
            .cells = atomic_load_explicit(cells_of(memtable, at), memory_order_acquire),
        };
        at = bound_follow(memtable, at, 0);
    } while (at != REF_NONE);
    return AIDB_OK;
}

/* One block of memory: fragments, LSNs, the bytes of the bounds. */
static Status build_fragments(const Memtable *memtable, const Stretch *stretches, size_t count,
                              RangeFragments *out)
{
    size_t lsn_count = 0;
    size_t key_bytes = 0;
    size_t covered = 0;
    for (size_t i = 0; i < count; i++) {
        key_bytes += stretches[i].from.size;
        covered += stretches[i].cells != REF_NONE;
        for (Ref ref = stretches[i].cells; ref != REF_NONE;) {
            lsn_count++;
            ref = ((const Cell *)ref_pointer(memtable, ref))->next;
        }
    }
    if (covered == 0)
        return AIDB_OK;
    size_t item_bytes = covered * sizeof(RangeFragment);
    size_t lsn_bytes = lsn_count * sizeof(uint64_t);
    uint8_t *memory = malloc(item_bytes + lsn_bytes + key_bytes);
    if (memory == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate %zu fragments of range tombstones",
                          covered);
    RangeFragment *items = (RangeFragment *)(void *)memory;
    uint64_t *lsns = (uint64_t *)(void *)(memory + item_bytes);
    uint8_t *keys = memory + item_bytes + lsn_bytes;
    size_t made = 0;
    bool open = false; /* the fragment before waits for its upper bound */
    for (size_t i = 0; i < count; i++) {
        Slice bound = slice_make(NULL, 0);
        if (stretches[i].from.size > 0) {
            memcpy(keys, stretches[i].from.data, stretches[i].from.size);
            bound = slice_make(keys, stretches[i].from.size);
            keys += bound.size;
        }
        if (open)
            items[made - 1].to = bound;
        open = stretches[i].cells != REF_NONE;
        if (!open)
            continue;
        RangeFragment *item = &items[made++];
        *item = (RangeFragment){.from = bound, .lsns = lsns};
        for (Ref ref = stretches[i].cells; ref != REF_NONE;) {
            const Cell *cell = ref_pointer(memtable, ref);
            *lsns++ = cell->lsn;
            item->lsn_count++;
            ref = cell->next;
        }
    }
    *out = (RangeFragments){.items = items, .count = made, .memory = memory};
    return AIDB_OK;
}

Status memtable_fragments(const Memtable *memtable, RangeFragments *out)
{
    *out = (RangeFragments){0};
    if (!memtable_has_ranges(memtable))
        return AIDB_OK;
    Stretch *stretches = NULL;
    size_t count = 0;
    Status status = collect_stretches(memtable, &stretches, &count);
    if (status == AIDB_OK)
        status = build_fragments(memtable, stretches, count, out);
    free(stretches);
    return status;
}
