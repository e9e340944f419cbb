/*
 * blocks.c - the entries of a memtable: a skip list of blocks, in internal order.
 *
 * A plain skip list waits for memory at every step, because each node is a cache miss. Here a node
 * is a block of up to BLOCK_ENTRIES references, sorted, with eight bytes of each key beside them, so
 * that a search touches one block a level and one record at its end. Level 0 refers to records, the
 * levels above to the blocks below them. The blocks of a level form a list; a block that is full
 * splits, and the new one, to its right, is entered in the level above. Every block but the leftmost
 * of a level has a `low`: the entry it began with, which bounds it from below for good and is its
 * first entry at level 0. The block's keys end where the next block's low begins.
 *
 * What the eight bytes are. Keys of one block mostly begin alike ("user:0000..."), so a block sets
 * aside up to SHARED_MAX bytes that its keys share, and keeps the eight bytes behind them, as a
 * number. A key that does not begin with the shared bytes gets the least or the greatest number,
 * whichever side it lies on: numbers order as keys do, equal numbers decide nothing, and then the
 * records are compared. A block is encoded anew when it splits and its numbers have become too much
 * alike.
 *
 * Concurrency. One writer; any number of readers, in any process, without locks, and never waiting.
 * The truth is in `refs`, `next` and the records; `count`, `shared` and `prefixes` are hints.
 *
 * - Records and new blocks are complete before a release store makes them reachable; readers load
 *   references with acquire. Neither is ever given back while readers may be there (epochs).
 * - An entry is inserted by moving those behind it to the right, the last one first, each with one
 *   store. So at any moment the references are sorted, perhaps with one of them twice, and end at the
 *   first REF_NONE; and an entry only ever moves to the right, or, when the block splits, into the
 *   next block, which is linked before the entries are taken away here, the last one first.
 * - A reader that saw an entry smaller than its target in some place, and then looks at the places to
 *   the right of it one after the other, therefore finds the first entry that is not smaller, if that
 *   was there before it began; newer ones it may see or not, they are not visible to it. This way
 *   compares records, and is the slow one.
 * - The fast way uses the hints. They are changed only while `version` is odd, so a reader that found
 *   the same even version before and after has read a consistent block; otherwise it goes the slow
 *   way in this block. All loads in between are acquire and all stores release, which is what orders
 *   them against the version without fences, and costs nothing on x86.
 * - A block may have split, and its new neighbour not be entered above yet: a reader that comes to
 *   the end of a block looks whether the next block's low is before its target, and moves there.
 *
 * The writer remembers where it inserted last. A key that belongs right behind needs no search; when
 * the block is full then, it stays full, and a new one begins with the key, so that a load in key
 * order fills its blocks.
 */
#include "config.h"
#include "engine/memtable/memtable_internal.h"

#include <stdlib.h>

#define KEY_SIZE_BITS 20 /* keys have up to 65536 bytes */

typedef struct Record {
    uint64_t lsn;
    uint32_t value_size;
    uint32_t shape;  /* key size | type */
    uint8_t bytes[]; /* the key, then the value */
} Record;

_Static_assert(AIDB_KEY_MAX < 1u << KEY_SIZE_BITS, "key sizes fit");
_Static_assert(offsetof(Block, prefixes) == BLOCK_ALIGN, "the head of a block is one cache line");

/* What is searched for: a place in internal order. */
typedef struct Target {
    Slice key;
    uint64_t lsn;
    uint64_t prefix; /* of the whole key: for blocks that share nothing */
} Target;

static inline Target target_make(Slice key, uint64_t lsn)
{
    return (Target){.key = key, .lsn = lsn, .prefix = key_prefix(key)};
}

static inline Record *record_at(const Memtable *memtable, Ref ref)
{
    return ref_pointer(memtable, ref);
}

static inline Block *block_at(const Memtable *memtable, Ref ref)
{
    return ref_pointer(memtable, ref);
}

static inline Slice record_key(const Record *record)
{
    return slice_make(record->bytes, record->shape & ((1u << KEY_SIZE_BITS) - 1));
}

static inline uint8_t record_type(const Record *record)
{
    return (uint8_t)(record->shape >> KEY_SIZE_BITS);
}

static inline bool record_before(const Memtable *memtable, Ref ref, const Target *target)
{
    const Record *record = record_at(memtable, ref);
    return entry_compare(record_key(record), record->lsn, target->key, target->lsn) < 0;
}

/* The record that stands for an entry of a block: itself, or the low of the block it refers to. */
static inline Ref entry_record(const Memtable *memtable, const Block *block, Ref ref)
{
    return block->level == 0 ? ref : block_at(memtable, ref)->low;
}

/* Whether an entry is before the target; the leftmost block of a level is before everything. */
static inline bool entry_before(const Memtable *memtable, const Block *block, Ref ref,
                                const Target *target)
{
    Ref record = entry_record(memtable, block, ref);
    return record == REF_NONE || record_before(memtable, record, target);
}

static inline Ref load_ref(const _Atomic Ref *ref)
{
    return atomic_load_explicit(ref, memory_order_acquire);
}

/* ---- the hints ------------------------------------------------------------------------------- */

/* The number that a key has in a block. */
static inline uint64_t block_prefix(const Block *block, Slice key, uint64_t whole_prefix)
{
    uint32_t shared_size = atomic_load_explicit(&block->shared_size, memory_order_acquire);
    if (shared_size == 0)
        return whole_prefix;
    uint64_t words[SHARED_WORDS];
    for (uint32_t i = 0; i < SHARED_WORDS; i++)
        words[i] = atomic_load_explicit(&block->shared[i], memory_order_acquire);
    if (shared_size > SHARED_MAX)
        shared_size = SHARED_MAX; /* never so, but a reader does not rely on hints */
    size_t common = key.size < shared_size ? key.size : shared_size;
    int order = memcmp(key.data, words, common);
    if (order != 0)
        return order < 0 ? 0 : UINT64_MAX;
    if (key.size < shared_size)
        return 0;
    return key_prefix(slice_make(key.data + shared_size, key.size - shared_size));
}

static inline uint64_t load_prefix(const Block *block, uint32_t index)
{
    return atomic_load_explicit(&block->prefixes[index], memory_order_acquire);
}

/* How many of the first `count` entries are before the target, by the hints, and by records where
 * they tie. *tied tells whether the entry at that place has the target's number. */
static inline uint32_t block_rank(const Memtable *memtable, const Block *block, uint32_t count,
                                  const Target *target, bool *tied)
{
    uint64_t prefix = block_prefix(block, target->key, target->prefix);
    uint32_t low = 0;
    for (uint32_t rest = count; rest > 0;) {
        uint32_t half = (rest + 1) / 2;
        low = load_prefix(block, low + half - 1) < prefix ? low + half : low;
        rest -= half;
    }
    *tied = low < count && load_prefix(block, low) == prefix;
    if (!*tied)
        return low;
    uint32_t high = low + 1;
    if (high < count && load_prefix(block, high) == prefix) {
        high = count;
        for (uint32_t after = low + 1; after < high;) {
            uint32_t middle = after + (high - after) / 2;
            if (load_prefix(block, middle) <= prefix)
                after = middle + 1;
            else
                high = middle;
        }
    }
    uint32_t end = high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        Ref ref = load_ref(&block->refs[middle]);
        if (ref != REF_NONE && entry_before(memtable, block, ref, target))
            low = middle + 1;
        else
            high = middle;
    }
    *tied = low < end;
    return low;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A place in a block: the last entry before the target and the first that is not. */
typedef struct Place {
    Ref before; /* REF_NONE: none in this block */
    Ref at;     /* REF_NONE: the end of the block */
    Ref next;   /* the block to the right, read after `at` was */
    bool apart; /* the entry at `at` surely has another key than the target */
} Place;

/* The slow way: by references and records alone, right whatever the writer does. */
static __attribute__((noinline)) void block_find_slow(const Memtable *memtable, const Block *block,
                                                      const Target *target, Place *place)
{
    uint32_t low = 0; /* places below it held entries before the target when they were looked at */
    Ref before = REF_NONE;
    for (uint32_t high = BLOCK_ENTRIES; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        Ref ref = load_ref(&block->refs[middle]);
        if (ref != REF_NONE && entry_before(memtable, block, ref, target)) {
            low = middle + 1;
            before = ref;
        } else {
            high = middle;
        }
    }
    Ref at = REF_NONE;
    for (; low < BLOCK_ENTRIES; low++) {
        at = load_ref(&block->refs[low]);
        if (at == REF_NONE || !entry_before(memtable, block, at, target))
            break;
        before = at;
        at = REF_NONE;
    }
    *place = (Place){.before = before, .at = at, .next = load_ref(&block->next)};
}

static inline void block_find(const Memtable *memtable, const Block *block, const Target *target,
                              Place *place)
{
    uint32_t version = atomic_load_explicit(&block->version, memory_order_acquire);
    uint32_t count = atomic_load_explicit(&block->count, memory_order_acquire);
    if (__builtin_expect(version % 2 == 0 && count <= BLOCK_ENTRIES, 1)) {
        bool tied;
        uint32_t rank = block_rank(memtable, block, count, target, &tied);
        place->before = rank > 0 ? load_ref(&block->refs[rank - 1]) : REF_NONE;
        place->at = rank < count ? load_ref(&block->refs[rank]) : REF_NONE;
        place->next = load_ref(&block->next);
        place->apart = !tied;
        if (__builtin_expect(atomic_load_explicit(&block->version, memory_order_relaxed) == version,
                             1))
            return;
    }
    block_find_slow(memtable, block, target, place);
}

static inline void block_prefetch(const Block *block)
{
    const uint8_t *bytes = (const uint8_t *)block;
    for (size_t at = 0; at < sizeof(Block); at += 64)
        __builtin_prefetch(bytes + at);
}

/* Looks into one block. False when it is the target's block at level 0, and *place its place in it; else
 * *ref is the next block to look into, which is being fetched. */
static inline bool search_step(const Memtable *memtable, const Target *target, Ref *ref,
                               Place *place)
{
    const Block *block = block_at(memtable, *ref);
    block_find(memtable, block, target, place);
    if (place->at == REF_NONE && place->next != REF_NONE) {
        Ref low = block_at(memtable, place->next)->low;
        if (record_before(memtable, low, target)) {
            *ref = place->next;
            return true;
        }
        if (block->level == 0) {
            place->at = low; /* the first entry of that block */
            place->apart = false;
        }
    }
    if (block->level == 0)
        return false;
    *ref = place->before; /* there is one: the target is not before the block's low */
    block_prefetch(block_at(memtable, *ref));
    return true;
}

/* Finds the target's block at level 0 and its place in it. *block is REF_NONE when the memtable has
 * no entries. */
static void search(const Memtable *memtable, const Target *target, Ref *found, Place *place)
{
    *found = load_ref(&memtable->root);
    *place = (Place){0};
    while (*found != REF_NONE && search_step(memtable, target, found, place))
        ;
}

static void record_entry(const Record *record, Entry *entry)
{
    entry->key = record_key(record);
    entry->value = slice_make(record->bytes + entry->key.size, record->value_size);
    entry->lsn = record->lsn;
    entry->type = record_type(record);
}

static bool take_found(const Memtable *memtable, const Place *place, Slice key, Entry *entry)
{
    if (place->at == REF_NONE || place->apart)
        return false;
    const Record *record = record_at(memtable, place->at);
    if (!slice_equal(record_key(record), key))
        return false;
    record_entry(record, entry);
    return true;
}

bool memtable_get(const Memtable *memtable, Slice key, uint64_t visible, Entry *entry)
{
    Target target = target_make(key, visible);
    Ref block;
    Place place;
    search(memtable, &target, &block, &place);
    return take_found(memtable, &place, key, entry);
}

/* One block of each search in turn, so that the next block of every search is fetched while the others
 * look into theirs. */
void memtable_get_many(const Memtable *memtable, size_t count, const Slice *keys, uint64_t visible,
                       Entry *const *entries, bool *found)
{
    Target targets[MEMTABLE_GETS_MAX];
    Place places[MEMTABLE_GETS_MAX];
    Ref refs[MEMTABLE_GETS_MAX];
    uint8_t running[MEMTABLE_GETS_MAX];
    size_t left = 0;
    Ref root = load_ref(&memtable->root);
    for (size_t i = 0; i < count; i++) {
        targets[i] = target_make(keys[i], visible);
        places[i] = (Place){0};
        refs[i] = root;
        if (root != REF_NONE)
            running[left++] = (uint8_t)i;
    }
    while (left > 0) {
        size_t still = 0;
        for (size_t r = 0; r < left; r++) {
            uint8_t i = running[r];
            if (search_step(memtable, &targets[i], &refs[i], &places[i]))
                running[still++] = i;
            else if (places[i].at != REF_NONE)
                __builtin_prefetch(record_at(memtable, places[i].at));
        }
        left = still;
    }
    for (size_t i = 0; i < count; i++)
        found[i] = take_found(memtable, &places[i], keys[i], entries[i]);
}

/* ---- iterator -------------------------------------------------------------------------------- */

/*
 * Holds a copy of the references of the block that it stands in. The copy has all entries that were
 * in the memtable before the iterator was positioned, in order, which is all that its user may see;
 * so it needs no second look at the block, whatever happens to that.
 */
typedef struct BlockIter {
    Iter base;
    const Memtable *memtable;
    uint32_t count;
    uint32_t position;
    Ref next; /* the block to the right of what was copied */
    Ref refs[BLOCK_ENTRIES];
} BlockIter;

/* Copies by references alone: an entry met again, because it moved to the right, is left out. */
static __attribute__((noinline)) void iter_load_slow(BlockIter *iter, const Block *block)
{
    const Memtable *memtable = iter->memtable;
    iter->count = 0;
    for (uint32_t i = 0; i < BLOCK_ENTRIES; i++) {
        Ref ref = load_ref(&block->refs[i]);
        if (ref == REF_NONE)
            break;
        if (iter->count > 0) {
            const Record *record = record_at(memtable, ref);
            Target target = {.key = record_key(record), .lsn = record->lsn};
            if (!record_before(memtable, iter->refs[iter->count - 1], &target))
                continue;
        }
        iter->refs[iter->count++] = ref;
    }
    iter->next = load_ref(&block->next);
}

static void iter_load(BlockIter *iter, Ref ref)
{
    const Block *block = block_at(iter->memtable, ref);
    uint32_t version = atomic_load_explicit(&block->version, memory_order_acquire);
    uint32_t count = atomic_load_explicit(&block->count, memory_order_acquire);
    if (version % 2 == 0 && count <= BLOCK_ENTRIES) {
        for (uint32_t i = 0; i < count; i++)
            iter->refs[i] = load_ref(&block->refs[i]);
        iter->count = count;
        iter->next = load_ref(&block->next);
        if (atomic_load_explicit(&block->version, memory_order_relaxed) == version)
            return;
    }
    iter_load_slow(iter, block);
}

static Status iter_show(BlockIter *iter, uint32_t position)
{
    iter->position = position;
    iter->base.valid = position < iter->count;
    if (iter->base.valid)
        record_entry(record_at(iter->memtable, iter->refs[position]), &iter->base.entry);
    return AIDB_OK;
}

static Status iter_end(BlockIter *iter)
{
    iter->count = 0;
    iter->next = REF_NONE;
    return iter_show(iter, 0);
}

/* The number of copied entries that are before the target. */
static uint32_t iter_rank(const BlockIter *iter, const Target *target)
{
    uint32_t low = 0;
    for (uint32_t high = iter->count; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        if (record_before(iter->memtable, iter->refs[middle], target))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Goes to the first entry at or after the target in the blocks from iter->next on. */
static Status iter_cross(BlockIter *iter, const Target *target)
{
    while (iter->next != REF_NONE) {
        iter_load(iter, iter->next);
        for (uint32_t i = 0; i < iter->count; i++)
            __builtin_prefetch(record_at(iter->memtable, iter->refs[i]));
        uint32_t position = 0;
        while (position < iter->count &&
               record_before(iter->memtable, iter->refs[position], target))
            position++;
        if (position < iter->count)
            return iter_show(iter, position);
    }
    return iter_end(iter);
}

/* Loads the block that the target belongs in; false when there is none. */
static bool iter_descend(BlockIter *iter, const Target *target, Place *place)
{
    Ref block;
    search(iter->memtable, target, &block, place);
    if (block == REF_NONE)
        return false;
    iter_load(iter, block);
    return true;
}

static Status iter_seek(Iter *base, Slice key, uint64_t lsn)
{
    BlockIter *iter = (BlockIter *)base;
    Target target = target_make(key, lsn);
    Place place;
    if (!iter_descend(iter, &target, &place))
        return iter_end(iter);
    /* Most often what the search found is in the copy too, and looking for it touches no record. */
    for (uint32_t i = 0; i < iter->count; i++) {
        if (iter->refs[i] == place.at)
            return iter_show(iter, i);
    }
    uint32_t position = iter_rank(iter, &target);
    return position < iter->count ? iter_show(iter, position) : iter_cross(iter, &target);
}

static Status iter_seek_before(Iter *base, Slice key, uint64_t lsn)
{
    BlockIter *iter = (BlockIter *)base;
    Target target = target_make(key, lsn);
    Place place;
    if (!iter_descend(iter, &target, &place))
        return iter_end(iter);
    for (uint32_t i = 0; i < iter->count; i++) {
        if (iter->refs[i] == place.before)
            return iter_show(iter, i);
    }
    /* The block has changed since, and may have split. */
    while (iter->next != REF_NONE &&
           record_before(iter->memtable, block_at(iter->memtable, iter->next)->low, &target))
        iter_load(iter, iter->next);
    /* Its low is before the target, so none here means none at all. */
    uint32_t rank = iter_rank(iter, &target);
    return rank > 0 ? iter_show(iter, rank - 1) : iter_end(iter);
}

static Status iter_seek_first(Iter *base)
{
    BlockIter *iter = (BlockIter *)base;
    Ref ref = load_ref(&iter->memtable->root);
    if (ref == REF_NONE)
        return iter_end(iter);
    while (block_at(iter->memtable, ref)->level > 0)
        ref = load_ref(&block_at(iter->memtable, ref)->refs[0]);
    iter_load(iter, ref);
    while (iter->count == 0 && iter->next != REF_NONE)
        iter_load(iter, iter->next);
    return iter_show(iter, 0);
}

static Status iter_seek_last(Iter *base)
{
    BlockIter *iter = (BlockIter *)base;
    Ref ref = load_ref(&iter->memtable->root);
    if (ref == REF_NONE)
        return iter_end(iter);
    for (;;) {
        const Block *block = block_at(iter->memtable, ref);
        Ref next = load_ref(&block->next);
        if (next != REF_NONE) {
            ref = next;
            continue;
        }
        if (block->level == 0)
            break;
        Ref last = REF_NONE;
        for (uint32_t i = 0; i < BLOCK_ENTRIES; i++) {
            Ref below = load_ref(&block->refs[i]);
            if (below == REF_NONE)
                break;
            last = below;
        }
        /* Empty only while it is being split; then there is a next one by now. */
        if (last != REF_NONE)
            ref = last;
    }
    iter_load(iter, ref);
    while (iter->next != REF_NONE)
        iter_load(iter, iter->next);
    return iter->count > 0 ? iter_show(iter, iter->count - 1) : iter_end(iter);
}

static Status iter_next(Iter *base)
{
    BlockIter *iter = (BlockIter *)base;
    if (iter->position + 1 < iter->count)
        return iter_show(iter, iter->position + 1);
    /* An entry right behind this one in internal order, whatever block it is in. */
    const Entry *entry = &base->entry;
    Target target = {.key = entry->key, .lsn = entry->lsn - 1};
    return iter_cross(iter, &target);
}

static Status iter_prev(Iter *base)
{
    BlockIter *iter = (BlockIter *)base;
    if (iter->position > 0)
        return iter_show(iter, iter->position - 1);
    const Entry *entry = &base->entry;
    return iter_seek_before(base, entry->key, entry->lsn);
}

static void iter_free(Iter *base)
{
    free(base);
}

static const IterOps iter_ops = {
    .seek_first = iter_seek_first,
    .seek_last = iter_seek_last,
    .seek = iter_seek,
    .seek_before = iter_seek_before,
    .next = iter_next,
    .prev = iter_prev,
    .destroy = iter_free,
};

Status memtable_iter_create(const Memtable *memtable, Iter **iter)
{
    *iter = NULL;
    BlockIter *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate an iterator of a memtable");
    fresh->base.ops = &iter_ops;
    fresh->memtable = memtable;
    *iter = &fresh->base;
    return AIDB_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

void entries_init(Memtable *memtable)
{
    atomic_store_explicit(&memtable->root, REF_NONE, memory_order_relaxed);
    atomic_store_explicit(&memtable->height, 0, memory_order_relaxed);
    memtable->finger_block = REF_NONE;
    memtable->finger_index = 0;
    atomic_store_explicit(&memtable->leaf_count, 0, memory_order_relaxed);
    atomic_store_explicit(&memtable->branch_count, 0, memory_order_relaxed);
}

/*
 * The most that `op_count` inserts can take. Each takes a record and splits at most one block a
 * level. How many splits there can be in all follows from what fills blocks: a split in the middle
 * leaves two blocks that are half empty, and a block splits at its end or beginning once each time
 * it was filled. So of the blocks there are each can split twice at once, and otherwise each split
 * stands for at least BLOCK_ENTRIES / 4 inserts.
 */
uint64_t entries_need(const Memtable *memtable, size_t op_count)
{
    if (op_count > UINT32_MAX)
        return UINT64_MAX;
    uint64_t leaf_count = atomic_load_explicit(&memtable->leaf_count, memory_order_relaxed);
    uint64_t branch_count = atomic_load_explicit(&memtable->branch_count, memory_order_relaxed);
    uint64_t height = atomic_load_explicit(&memtable->height, memory_order_relaxed);
    uint64_t leaves = 3 * leaf_count + op_count / (BLOCK_ENTRIES / 8) + 2;
    uint64_t leaves_max = op_count + (leaf_count == 0);
    if (leaves > leaves_max)
        leaves = leaves_max;
    uint64_t roots = 1 + leaves / (BLOCK_ENTRIES / 2);
    uint64_t branches = 3 * branch_count + leaves / (BLOCK_ENTRIES / 9) + 2 * roots;
    if (branches > leaves * (height + roots))
        branches = leaves * (height + roots);
    return op_count * (sizeof(Record) + REF_UNIT - 1) +
           (leaves + branches) * (sizeof(Block) + BLOCK_ALIGN - REF_UNIT);
}

/* The writer's view of a block: what only it changes, it reads without ceremony. */
static inline uint32_t writer_count(const Block *block)
{
    return atomic_load_explicit(&block->count, memory_order_relaxed);
}

static inline Ref writer_ref(const Block *block, uint32_t index)
{
    return atomic_load_explicit(&block->refs[index], memory_order_relaxed);
}

static inline uint32_t writer_height(const Memtable *memtable)
{
    return atomic_load_explicit(&memtable->height, memory_order_relaxed);
}

static inline uint64_t writer_prefix(const Block *block, uint32_t index)
{
    return atomic_load_explicit(&block->prefixes[index], memory_order_relaxed);
}

static inline void set_entry(Block *block, uint32_t index, uint64_t prefix, Ref ref)
{
    atomic_store_explicit(&block->prefixes[index], prefix, memory_order_release);
    atomic_store_explicit(&block->refs[index], ref, memory_order_release);
}

/* Readers that overlap with what comes between these two go the slow way. */
static inline void begin_change(Block *block)
{
    uint32_t version = atomic_load_explicit(&block->version, memory_order_relaxed);
    atomic_store_explicit(&block->version, version + 1, memory_order_relaxed);
}

static inline void end_change(Block *block)
{
    uint32_t version = atomic_load_explicit(&block->version, memory_order_relaxed);
    atomic_store_explicit(&block->version, version + 1, memory_order_release);
}

static Ref block_create(Memtable *memtable, uint32_t level, Ref low, Ref next)
{
    uint64_t misfit = memtable->position % BLOCK_ALIGN;
    if (misfit != 0)
        (void)memtable_allocate(memtable, BLOCK_ALIGN - misfit);
    Ref ref = memtable_allocate(memtable, sizeof(Block));
    Block *block = block_at(memtable, ref);
    atomic_store_explicit(&block->version, 0, memory_order_relaxed);
    atomic_store_explicit(&block->count, 0, memory_order_relaxed);
    atomic_store_explicit(&block->next, next, memory_order_relaxed);
    atomic_store_explicit(&block->shared_size, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < SHARED_WORDS; i++)
        atomic_store_explicit(&block->shared[i], 0, memory_order_relaxed);
    for (uint32_t i = 0; i < BLOCK_ENTRIES; i++)
        atomic_store_explicit(&block->refs[i], REF_NONE, memory_order_relaxed);
    block->low = low;
    block->level = level;
    _Atomic uint64_t *blocks = level == 0 ? &memtable->leaf_count : &memtable->branch_count;
    atomic_store_explicit(blocks, atomic_load_explicit(blocks, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    return ref;
}

/* The number of an entry in its block; the leftmost block of a level has no key and comes first. */
static uint64_t entry_prefix(const Memtable *memtable, const Block *block, Ref ref)
{
    Ref record = entry_record(memtable, block, ref);
    if (record == REF_NONE)
        return 0;
    Slice key = record_key(record_at(memtable, record));
    return block_prefix(block, key, key_prefix(key));
}

static void set_shared(Block *block, Slice key, uint32_t size)
{
    uint64_t words[SHARED_WORDS] = {0};
    memcpy(words, key.data, size);
    for (uint32_t i = 0; i < SHARED_WORDS; i++)
        atomic_store_explicit(&block->shared[i], words[i], memory_order_release);
    atomic_store_explicit(&block->shared_size, size, memory_order_release);
}

static uint32_t shared_prefix_size(Slice a, Slice b)
{
    size_t end = a.size < b.size ? a.size : b.size;
    if (end > SHARED_MAX)
        end = SHARED_MAX;
    size_t size = 0;
    while (size < end && a.data[size] == b.data[size])
        size++;
    return (uint32_t)size;
}

/* Chooses the shared bytes of a block anew when its numbers tell its keys apart badly: when they
 * vary in their last bytes only, or tie often. The block is new or being changed. */
static void block_encode(Memtable *memtable, Block *block)
{
    uint32_t count = writer_count(block);
    uint32_t first = entry_record(memtable, block, writer_ref(block, 0)) == REF_NONE ? 1 : 0;
    if (first + 1 >= count)
        return;
    uint32_t ties = 0;
    for (uint32_t i = first + 1; i < count; i++)
        ties += writer_prefix(block, i) == writer_prefix(block, i - 1);
    uint64_t varying = writer_prefix(block, first) ^ writer_prefix(block, count - 1);
    if (ties <= BLOCK_ENTRIES / 8 && varying >> 32 != 0)
        return;
    Ref first_record = entry_record(memtable, block, writer_ref(block, first));
    Ref last_record = entry_record(memtable, block, writer_ref(block, count - 1));
    Slice first_key = record_key(record_at(memtable, first_record));
    Slice last_key = record_key(record_at(memtable, last_record));
    uint32_t size = shared_prefix_size(first_key, last_key);
    if (size == atomic_load_explicit(&block->shared_size, memory_order_relaxed))
        return;
    set_shared(block, first_key, size);
    for (uint32_t i = 0; i < count; i++)
        atomic_store_explicit(&block->prefixes[i],
                              entry_prefix(memtable, block, writer_ref(block, i)),
                              memory_order_release);
}

/* Inserts into a block that has room. */
static void block_insert(Block *block, uint32_t index, uint64_t prefix, Ref ref)
{
    uint32_t count = writer_count(block);
    MEMTABLE_ASSERT(count < BLOCK_ENTRIES && index <= count);
    if (index == count) {
        /* Nothing moves: readers see the entry from when they see the count. */
        set_entry(block, index, prefix, ref);
        atomic_store_explicit(&block->count, count + 1, memory_order_release);
        return;
    }
    begin_change(block);
    for (uint32_t i = count; i > index; i--)
        set_entry(block, i, writer_prefix(block, i - 1), writer_ref(block, i - 1));
    set_entry(block, index, prefix, ref);
    atomic_store_explicit(&block->count, count + 1, memory_order_release);
    end_change(block);
}

/* Fills a new block with the entries of `from` from `index` on, encoded as they are there. */
static void copy_tail(Block *to, const Block *from, uint32_t index)
{
    uint32_t count = writer_count(from);
    uint64_t words[SHARED_WORDS];
    for (uint32_t i = 0; i < SHARED_WORDS; i++)
        words[i] = atomic_load_explicit(&from->shared[i], memory_order_relaxed);
    set_shared(to, slice_make(words, SHARED_MAX), SHARED_MAX);
    atomic_store_explicit(&to->shared_size,
                          atomic_load_explicit(&from->shared_size, memory_order_relaxed),
                          memory_order_relaxed);
    for (uint32_t i = index; i < count; i++)
        set_entry(to, i - index, writer_prefix(from, i), writer_ref(from, i));
    atomic_store_explicit(&to->count, count - index, memory_order_relaxed);
}

/* Takes the entries from `index` on out of a block; they are in its new neighbour. */
static void cut_tail(Block *block, uint32_t index, Ref neighbour)
{
    atomic_store_explicit(&block->next, neighbour, memory_order_release);
    for (uint32_t i = writer_count(block); i-- > index;)
        atomic_store_explicit(&block->refs[i], REF_NONE, memory_order_release);
    atomic_store_explicit(&block->count, index, memory_order_release);
}

typedef struct Path {
    Ref blocks[HEIGHT_MAX];       /* at each level */
    uint32_t indexes[HEIGHT_MAX]; /* of the place in it */
} Path;

/* Splits a full block while inserting `ref` at `index`. Returns the new block to the right. `rising`:
 * the insert before was the block's last entry. *where and *where_index tell where the entry went. */
static Ref block_split(Memtable *memtable, Ref full, uint32_t index, Ref ref, bool rising,
                       Ref *where, uint32_t *where_index)
{
    Block *block = block_at(memtable, full);
    Ref next = atomic_load_explicit(&block->next, memory_order_relaxed);
    uint32_t cut;
    if (index == BLOCK_ENTRIES && (rising || next == REF_NONE))
        cut = BLOCK_ENTRIES; /* the block stays as it is */
    else if (index == 0)
        cut = 0; /* keys fall: the leftmost block keeps the new entry alone */
    else
        cut = BLOCK_ENTRIES / 2;

    Ref first = cut == BLOCK_ENTRIES ? ref : writer_ref(block, cut);
    Ref fresh = block_create(memtable, block->level, entry_record(memtable, block, first), next);
    Block *right = block_at(memtable, fresh);
    if (cut == BLOCK_ENTRIES) {
        /* Keys rise. Share less than the full block's keys do, so that those to come share it. */
        Ref old = entry_record(memtable, block, writer_ref(block, BLOCK_ENTRIES / 2));
        Slice old_key = record_key(record_at(memtable, old));
        Slice new_key = record_key(record_at(memtable, right->low));
        uint32_t size = shared_prefix_size(old_key, new_key);
        set_shared(right, new_key, size > 0 ? size - 1 : 0);
        set_entry(right, 0, entry_prefix(memtable, right, ref), ref);
        atomic_store_explicit(&right->count, 1, memory_order_relaxed);
        begin_change(block);
        block_encode(memtable, block);
        end_change(block);
        atomic_store_explicit(&block->next, fresh, memory_order_release);
        *where = fresh;
        *where_index = 0;
        return fresh;
    }
    copy_tail(right, block, cut);
    block_encode(memtable, right);
    if (index > cut) {
        *where = fresh;
        *where_index = index - cut;
        block_insert(right, *where_index, entry_prefix(memtable, right, ref), ref);
    }
    begin_change(block);
    cut_tail(block, cut, fresh);
    if (cut > 0)
        block_encode(memtable, block);
    end_change(block);
    if (index <= cut) {
        *where = full;
        *where_index = index;
        block_insert(block, index, entry_prefix(memtable, block, ref), ref);
    }
    return fresh;
}

/* The way from the root to the place of the target. The writer needs no neighbours: it never leaves
 * a block without its entry in the level above. */
static void writer_search(const Memtable *memtable, const Target *target, Path *path)
{
    Ref ref = atomic_load_explicit(&memtable->root, memory_order_relaxed);
    for (uint32_t level = writer_height(memtable); level-- > 0;) {
        const Block *block = block_at(memtable, ref);
        bool tied;
        path->blocks[level] = ref;
        path->indexes[level] = block_rank(memtable, block, writer_count(block), target, &tied);
        if (level > 0) {
            ref = writer_ref(block, path->indexes[level] - 1);
            block_prefetch(block_at(memtable, ref));
        }
    }
}

/* Whether the target belongs right behind the last inserted entry. */
static bool finger_fits(const Memtable *memtable, const Target *target)
{
    if (memtable->finger_block == REF_NONE)
        return false;
    const Block *block = block_at(memtable, memtable->finger_block);
    uint32_t index = memtable->finger_index;
    uint64_t prefix = block_prefix(block, target->key, target->prefix);
    uint64_t last = writer_prefix(block, index);
    if (prefix < last ||
        (prefix == last && !record_before(memtable, writer_ref(block, index), target)))
        return false;
    if (index + 1 < writer_count(block)) {
        uint64_t behind = writer_prefix(block, index + 1);
        return prefix < behind ||
               (prefix == behind && !record_before(memtable, writer_ref(block, index + 1), target));
    }
    Ref next = atomic_load_explicit(&block->next, memory_order_relaxed);
    return next == REF_NONE || !record_before(memtable, block_at(memtable, next)->low, target);
}

/* Inserts a block, split off to the right of path->blocks[level - 1], into the levels above. */
static void insert_above(Memtable *memtable, Path *path, uint32_t level, Ref fresh)
{
    uint32_t height = writer_height(memtable);
    for (; level < height; level++) {
        Ref ref = path->blocks[level];
        Block *block = block_at(memtable, ref);
        uint32_t index = path->indexes[level]; /* right behind the block that was split */
        if (writer_count(block) < BLOCK_ENTRIES) {
            block_insert(block, index, entry_prefix(memtable, block, fresh), fresh);
            return;
        }
        Ref where;
        uint32_t where_index;
        fresh = block_split(memtable, ref, index, fresh, false, &where, &where_index);
    }
    Ref old = atomic_load_explicit(&memtable->root, memory_order_relaxed);
    Ref root = block_create(memtable, height, REF_NONE, REF_NONE);
    Block *block = block_at(memtable, root);
    set_entry(block, 0, 0, old);
    set_entry(block, 1, entry_prefix(memtable, block, fresh), fresh);
    atomic_store_explicit(&block->count, 2, memory_order_relaxed);
    atomic_store_explicit(&memtable->root, root, memory_order_release);
    MEMTABLE_ASSERT(height < HEIGHT_MAX);
    atomic_store_explicit(&memtable->height, height + 1, memory_order_relaxed);
}

static Ref record_create(Memtable *memtable, OpType type, Slice key, Slice value, uint64_t lsn)
{
    Ref ref = memtable_allocate(memtable, sizeof(Record) + key.size + value.size);
    Record *record = record_at(memtable, ref);
    record->lsn = lsn;
    record->value_size = (uint32_t)value.size;
    record->shape = (uint32_t)key.size | (uint32_t)type << KEY_SIZE_BITS;
    memcpy(record->bytes, key.data, key.size);
    if (value.size > 0)
        memcpy(record->bytes + key.size, value.data, value.size);
    return ref;
}

void entries_add(Memtable *memtable, OpType type, Slice key, Slice value, uint64_t lsn)
{
    Target target = target_make(key, lsn);
    Ref ref = record_create(memtable, type, key, value, lsn);
    if (writer_height(memtable) == 0) {
        Ref leaf = block_create(memtable, 0, REF_NONE, REF_NONE);
        block_insert(block_at(memtable, leaf), 0, target.prefix, ref);
        atomic_store_explicit(&memtable->height, 1, memory_order_relaxed);
        memtable->finger_block = leaf;
        memtable->finger_index = 0;
        atomic_store_explicit(&memtable->root, leaf, memory_order_release);
        return;
    }
    bool fits = finger_fits(memtable, &target);
    if (fits) {
        Block *block = block_at(memtable, memtable->finger_block);
        if (writer_count(block) < BLOCK_ENTRIES) {
            uint64_t prefix = block_prefix(block, key, target.prefix);
            block_insert(block, ++memtable->finger_index, prefix, ref);
            return;
        }
    }
    Path path;
    writer_search(memtable, &target, &path);
    Ref leaf = path.blocks[0];
    uint32_t index = path.indexes[0];
    Block *block = block_at(memtable, leaf);
    if (writer_count(block) < BLOCK_ENTRIES) {
        block_insert(block, index, block_prefix(block, key, target.prefix), ref);
        memtable->finger_block = leaf;
        memtable->finger_index = index;
        return;
    }
    Ref fresh = block_split(memtable, leaf, index, ref, fits, &memtable->finger_block,
                            &memtable->finger_index);
    insert_above(memtable, &path, 1, fresh);
}
