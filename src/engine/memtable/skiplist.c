/*
 * skiplist.c - the entries of a memtable: a skip list in internal order.
 *
 * One writer inserts; readers walk without locks. A node is complete before a release store links
 * it at level 0, and then at the levels above; a reader's acquire load of a link therefore sees
 * all of the node. Nodes never change or move afterwards, but for their links. A reader that meets
 * a node before its operation is visible steps over it, because its LSN is greater than any that
 * the reader may see.
 *
 * Most of the time of a search is waiting for memory. A node carries the first eight bytes of its
 * key beside its links, so that one cache line decides most comparisons, and a node that was found
 * too great at one level is not compared again at the next.
 *
 * The writer remembers where it inserted last. A key that belongs right behind (as in a load in
 * key order) is linked without any search: the remembered node and its follower bracket it at level
 * 0, and then so do the remembered predecessors at all levels above.
 */
#include "config.h"
#include "engine/memtable/memtable_internal.h"

#include <stdlib.h>

#define KEY_SIZE_BITS 17 /* keys have up to 65536 bytes */
#define TYPE_BITS     3

typedef struct Node {
    uint64_t prefix;
    uint64_t lsn;
    uint32_t value_size;
    uint32_t shape;     /* key size | type | height */
    _Atomic Ref next[]; /* `height` links, then the key, then the value */
} Node;

_Static_assert(AIDB_KEY_MAX < 1u << KEY_SIZE_BITS, "key sizes fit");

static inline Node *node_at(const Memtable *memtable, Ref ref)
{
    return ref_pointer(memtable, ref);
}

static inline uint32_t node_height(const Node *node)
{
    return node->shape >> (KEY_SIZE_BITS + TYPE_BITS);
}

static inline uint8_t node_type(const Node *node)
{
    return node->shape >> KEY_SIZE_BITS & ((1u << TYPE_BITS) - 1);
}

static inline Slice node_key(const Node *node)
{
    return slice_make(&node->next[node_height(node)], node->shape & ((1u << KEY_SIZE_BITS) - 1));
}

static inline size_t node_size(uint32_t height, size_t key_size, size_t value_size)
{
    return sizeof(Node) + height * sizeof(Ref) + key_size + value_size;
}

/* Whether the node comes before (key, lsn) in internal order. */
static inline bool node_before(const Node *node, uint64_t prefix, Slice key, uint64_t lsn)
{
    if (node->prefix != prefix)
        return node->prefix < prefix;
    int order = compare_behind_prefix(node_key(node), key);
    return order < 0 || (order == 0 && node->lsn > lsn);
}

/* The link of a node, or of the head when `ref` is REF_NONE. */
static inline _Atomic Ref *link_of(const Memtable *memtable, Ref ref, uint32_t level)
{
    if (ref == REF_NONE)
        return (_Atomic Ref *)&memtable->head[level];
    return &node_at(memtable, ref)->next[level];
}

static inline Ref follow(const Memtable *memtable, Ref ref, uint32_t level)
{
    return atomic_load_explicit(link_of(memtable, ref, level), memory_order_acquire);
}

/* The first node at or after (key, lsn). `before`, when given, gets the last node before it at each
 * level of the list; *last the one at level 0. */
static inline Ref search(const Memtable *memtable, Slice key, uint64_t lsn, Ref *before, Ref *last)
{
    uint64_t prefix = key_prefix(key);
    Ref at = REF_NONE;
    Ref bound = REF_NONE; /* known to be at or after the place */
    for (uint32_t level = atomic_load_explicit(&memtable->height, memory_order_relaxed);
         level-- > 0;) {
        for (;;) {
            Ref next = follow(memtable, at, level);
            if (next == bound || next == REF_NONE)
                break;
            const Node *node = node_at(memtable, next);
            /* Where the walk will be next, whichever way this comparison goes. */
            if (level > 0)
                __builtin_prefetch(node_at(memtable, follow(memtable, at, level - 1)));
            if (!node_before(node, prefix, key, lsn)) {
                bound = next;
                break;
            }
            at = next;
        }
        if (before != NULL)
            before[level] = at;
    }
    *last = at;
    /* A node that is linked between the walk and here is not missed by anybody who may see it. */
    return bound;
}

/* ---- writing --------------------------------------------------------------------------------- */

void entries_init(Memtable *memtable)
{
    atomic_store_explicit(&memtable->height, 1, memory_order_relaxed);
    for (uint32_t level = 0; level < HEIGHT_MAX; level++) {
        atomic_store_explicit(&memtable->head[level], REF_NONE, memory_order_relaxed);
        memtable->finger[level] = REF_NONE;
    }
    memtable->has_finger = false;
}

uint64_t entries_need(size_t op_count)
{
    return op_count * (node_size(HEIGHT_MAX, 0, 0) + REF_UNIT - 1);
}

/* Whether (key, lsn) belongs right behind the last inserted node. */
static bool finger_fits(const Memtable *memtable, uint64_t prefix, Slice key, uint64_t lsn)
{
    if (!memtable->has_finger)
        return false;
    Ref last = memtable->finger[0];
    if (!node_before(node_at(memtable, last), prefix, key, lsn))
        return false;
    Ref next = follow(memtable, last, 0);
    return next == REF_NONE || !node_before(node_at(memtable, next), prefix, key, lsn);
}

void entries_add(Memtable *memtable, OpType type, Slice key, Slice value, uint64_t lsn)
{
    uint32_t height = memtable_random_height(memtable, HEIGHT_MAX);
    uint64_t prefix = key_prefix(key);
    Ref *before = memtable->finger;
    if (!finger_fits(memtable, prefix, key, lsn)) {
        Ref last;
        (void)search(memtable, key, lsn, before, &last);
    }
    uint32_t list_height = atomic_load_explicit(&memtable->height, memory_order_relaxed);
    for (; list_height < height; list_height++)
        before[list_height] = REF_NONE;
    atomic_store_explicit(&memtable->height, list_height, memory_order_relaxed);

    Ref ref = memtable_allocate(memtable, node_size(height, key.size, value.size));
    Node *node = node_at(memtable, ref);
    node->prefix = prefix;
    node->lsn = lsn;
    node->value_size = (uint32_t)value.size;
    node->shape = (uint32_t)key.size | (uint32_t)type << KEY_SIZE_BITS |
                  height << (KEY_SIZE_BITS + TYPE_BITS);
    uint8_t *bytes = (uint8_t *)&node->next[height];
    memcpy(bytes, key.data, key.size);
    if (value.size > 0)
        memcpy(bytes + key.size, value.data, value.size);
    for (uint32_t level = 0; level < height; level++) {
        Ref next =
            atomic_load_explicit(link_of(memtable, before[level], level), memory_order_relaxed);
        atomic_store_explicit(&node->next[level], next, memory_order_relaxed);
    }
    for (uint32_t level = 0; level < height; level++) {
        atomic_store_explicit(link_of(memtable, before[level], level), ref, memory_order_release);
        before[level] = ref;
    }
    memtable->has_finger = true;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void node_entry(const Node *node, Entry *entry)
{
    entry->key = node_key(node);
    entry->value = slice_make(entry->key.data + entry->key.size, node->value_size);
    entry->lsn = node->lsn;
    entry->type = node_type(node);
}

bool memtable_get(const Memtable *memtable, Slice key, uint64_t visible, Entry *entry)
{
    Ref last;
    Ref ref = search(memtable, key, visible, NULL, &last);
    if (ref == REF_NONE)
        return false;
    const Node *node = node_at(memtable, ref);
    if (!slice_equal(node_key(node), key))
        return false;
    node_entry(node, entry);
    return true;
}

typedef struct MemtableIter {
    Iter base;
    const Memtable *memtable;
    Ref at;
} MemtableIter;

static Status iter_show(MemtableIter *iter, Ref ref)
{
    iter->at = ref;
    iter->base.valid = ref != REF_NONE;
    if (iter->base.valid)
        node_entry(node_at(iter->memtable, ref), &iter->base.entry);
    return AIDB_OK;
}

static Status iter_seek_first(Iter *base)
{
    MemtableIter *iter = (MemtableIter *)base;
    return iter_show(iter, follow(iter->memtable, REF_NONE, 0));
}

static Status iter_seek_last(Iter *base)
{
    MemtableIter *iter = (MemtableIter *)base;
    Ref at = REF_NONE;
    for (uint32_t level = HEIGHT_MAX; level-- > 0;) {
        Ref next;
        while ((next = follow(iter->memtable, at, level)) != REF_NONE)
            at = next;
    }
    return iter_show(iter, at);
}

static Status iter_seek(Iter *base, Slice key, uint64_t lsn)
{
    MemtableIter *iter = (MemtableIter *)base;
    Ref last;
    return iter_show(iter, search(iter->memtable, key, lsn, NULL, &last));
}

static Status iter_seek_before(Iter *base, Slice key, uint64_t lsn)
{
    MemtableIter *iter = (MemtableIter *)base;
    Ref last;
    (void)search(iter->memtable, key, lsn, NULL, &last);
    return iter_show(iter, last);
}

static Status iter_next(Iter *base)
{
    MemtableIter *iter = (MemtableIter *)base;
    Ref next = follow(iter->memtable, iter->at, 0);
    Status status = iter_show(iter, next);
    if (next != REF_NONE)
        __builtin_prefetch(node_at(iter->memtable, follow(iter->memtable, next, 0)));
    return status;
}

static Status iter_prev(Iter *base)
{
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
    MemtableIter *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate an iterator of a memtable");
    fresh->base.ops = &iter_ops;
    fresh->memtable = memtable;
    *iter = &fresh->base;
    return AIDB_OK;
}
