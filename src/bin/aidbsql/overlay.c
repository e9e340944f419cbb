#include "config.h"
#include "bin/aidbsql/overlay.h"

#include <stdlib.h>

#include "bin/aidbsql/mem.h"

#define HEIGHT_MAX 20 /* enough for 4^20 points */

/* The point comes first, so that a pointer to it is a pointer to its node. */
typedef struct Node {
    OverlayPoint point;
    int height;
    struct Node *next[];
} Node;

struct Overlay {
    Node *head; /* of full height, without a point */
    OverlayRange *ranges;
    size_t range_count;
    size_t range_capacity;
    uint64_t random;
    size_t point_count;
};

static Node *create_node(int height)
{
    Node *node = mem_alloc_zero(sizeof(Node) + (size_t)height * sizeof(Node *));
    node->height = height;
    return node;
}

static Slice copy_slice(Slice bytes)
{
    return slice_make(mem_copy_bytes(bytes), bytes.size);
}

static void free_slice(Slice bytes)
{
    free((void *)(uintptr_t)bytes.data);
}

static void destroy_node(Node *node)
{
    free_slice(node->point.key);
    free_slice(node->point.value);
    free(node);
}

Overlay *overlay_create(void)
{
    Overlay *overlay = mem_alloc_zero(sizeof *overlay);
    overlay->head = create_node(HEIGHT_MAX);
    overlay->random = 0x9e3779b97f4a7c15u;
    return overlay;
}

void overlay_destroy(Overlay *overlay)
{
    if (overlay == NULL)
        return;
    for (Node *node = overlay->head->next[0]; node != NULL;) {
        Node *next = node->next[0];
        destroy_node(node);
        node = next;
    }
    for (size_t i = 0; i < overlay->range_count; i++) {
        free_slice(overlay->ranges[i].from);
        free_slice(overlay->ranges[i].to);
    }
    free(overlay->ranges);
    free(overlay->head);
    free(overlay);
}

/* One level more with a probability of a quarter. */
static int random_height(Overlay *overlay)
{
    overlay->random ^= overlay->random << 13;
    overlay->random ^= overlay->random >> 7;
    overlay->random ^= overlay->random << 17;
    int height = 1;
    for (uint64_t bits = overlay->random; height < HEIGHT_MAX && (bits & 3) == 0; bits >>= 2)
        height++;
    return height;
}

/* On every level the last node before the key. */
static void find_before(const Overlay *overlay, Slice key, Node *before[HEIGHT_MAX])
{
    Node *node = overlay->head;
    for (int level = HEIGHT_MAX - 1; level >= 0; level--) {
        while (node->next[level] != NULL && slice_compare(node->next[level]->point.key, key) < 0)
            node = node->next[level];
        before[level] = node;
    }
}

/* The node of a key, made when there is none. */
static Node *find_or_add(Overlay *overlay, Slice key)
{
    Node *before[HEIGHT_MAX];
    find_before(overlay, key, before);
    Node *node = before[0]->next[0];
    if (node != NULL && slice_equal(node->point.key, key))
        return node;
    node = create_node(random_height(overlay));
    node->point.key = copy_slice(key);
    for (int level = 0; level < node->height; level++) {
        node->next[level] = before[level]->next[level];
        before[level]->next[level] = node;
    }
    overlay->point_count++;
    return node;
}

/* Unlinks and frees the node behind before[0], which must exist. */
static void remove_after(Overlay *overlay, Node *before[HEIGHT_MAX])
{
    Node *node = before[0]->next[0];
    for (int level = 0; level < node->height; level++)
        before[level]->next[level] = node->next[level];
    destroy_node(node);
    overlay->point_count--;
}

void overlay_put(Overlay *overlay, Slice key, Slice value)
{
    Node *node = find_or_add(overlay, key);
    free_slice(node->point.value);
    node->point.value = copy_slice(value);
    node->point.deleted = false;
}

void overlay_delete(Overlay *overlay, Slice key)
{
    if (overlay_covering(overlay, key) != NULL) {
        Node *before[HEIGHT_MAX];
        find_before(overlay, key, before);
        Node *node = before[0]->next[0];
        if (node != NULL && slice_equal(node->point.key, key))
            remove_after(overlay, before);
        return;
    }
    Node *node = find_or_add(overlay, key);
    free_slice(node->point.value);
    node->point.value = (Slice){0};
    node->point.deleted = true;
}

static bool ends_before(const OverlayRange *range, Slice key)
{
    return !range->to_end && slice_compare(range->to, key) < 0;
}

/* The number of ranges that end before the key: where a search among them begins. */
static size_t ranges_before(const Overlay *overlay, Slice key)
{
    size_t low = 0, high = overlay->range_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ends_before(&overlay->ranges[middle], key))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void overlay_delete_range(Overlay *overlay, Slice from, Slice to, bool to_end)
{
    if (!to_end && slice_compare(from, to) >= 0)
        return;

    Node *before[HEIGHT_MAX];
    find_before(overlay, from, before);
    for (Node *node; (node = before[0]->next[0]) != NULL;) {
        if (!to_end && slice_compare(node->point.key, to) >= 0)
            break;
        remove_after(overlay, before);
    }

    /* The new range takes in every range that it overlaps or touches: first .. last-1. */
    size_t first = ranges_before(overlay, from);
    size_t last = first;
    OverlayRange merged = {.from = copy_slice(from), .to = copy_slice(to), .to_end = to_end};
    while (last < overlay->range_count) {
        OverlayRange *old = &overlay->ranges[last];
        if (!merged.to_end && slice_compare(old->from, merged.to) > 0)
            break;
        if (slice_compare(old->from, merged.from) < 0) {
            Slice spare = merged.from;
            merged.from = old->from;
            old->from = spare;
        }
        if (!merged.to_end && (old->to_end || slice_compare(old->to, merged.to) > 0)) {
            Slice spare = merged.to;
            merged.to = old->to;
            merged.to_end = old->to_end;
            old->to = spare;
        }
        free_slice(old->from);
        free_slice(old->to);
        last++;
    }
    if (overlay->range_count == overlay->range_capacity) {
        overlay->range_capacity = overlay->range_capacity > 0 ? overlay->range_capacity * 2 : 4;
        overlay->ranges =
            mem_resize(overlay->ranges, overlay->range_capacity * sizeof *overlay->ranges);
    }
    memmove(&overlay->ranges[first + 1], &overlay->ranges[last],
            (overlay->range_count - last) * sizeof *overlay->ranges);
    overlay->range_count = overlay->range_count - (last - first) + 1;
    overlay->ranges[first] = merged;
}

bool overlay_is_empty(const Overlay *overlay)
{
    return overlay->point_count == 0 && overlay->range_count == 0;
}

const OverlayPoint *overlay_find(const Overlay *overlay, Slice key)
{
    const OverlayPoint *point = overlay_at_or_after(overlay, key);
    return point != NULL && slice_equal(point->key, key) ? point : NULL;
}

const OverlayRange *overlay_covering(const Overlay *overlay, Slice key)
{
    /* A range that ends exactly at the key does not cover it, but the one behind it may. */
    for (size_t i = ranges_before(overlay, key); i < overlay->range_count; i++) {
        const OverlayRange *range = &overlay->ranges[i];
        if (slice_compare(range->from, key) > 0)
            break;
        if (range->to_end || slice_compare(range->to, key) > 0)
            return range;
    }
    return NULL;
}

const OverlayPoint *overlay_at_or_after(const Overlay *overlay, Slice key)
{
    Node *before[HEIGHT_MAX];
    find_before(overlay, key, before);
    return before[0]->next[0] != NULL ? &before[0]->next[0]->point : NULL;
}

const OverlayPoint *overlay_next(const OverlayPoint *point)
{
    const Node *next = ((const Node *)point)->next[0];
    return next != NULL ? &next->point : NULL;
}

const OverlayPoint *overlay_before(const Overlay *overlay, Slice key)
{
    Node *before[HEIGHT_MAX];
    find_before(overlay, key, before);
    return before[0] != overlay->head ? &before[0]->point : NULL;
}

const OverlayPoint *overlay_last(const Overlay *overlay)
{
    Node *node = overlay->head;
    for (int level = HEIGHT_MAX - 1; level >= 0; level--) {
        while (node->next[level] != NULL)
            node = node->next[level];
    }
    return node != overlay->head ? &node->point : NULL;
}

aidb_status overlay_write(const Overlay *overlay, aidb_batch *batch)
{
    for (size_t i = 0; i < overlay->range_count; i++) {
        const OverlayRange *range = &overlay->ranges[i];
        aidb_range bounds = {.from = {.data = range->from.size > 0 ? range->from.data : NULL,
                                      .size = range->from.size},
                             .to = {.data = range->to_end ? NULL : range->to.data,
                                    .size = range->to_end ? 0 : range->to.size}};
        RETURN_IF_FAILED(aidb_batch_delete_range(batch, &bounds));
    }
    for (const Node *node = overlay->head->next[0]; node != NULL; node = node->next[0]) {
        const OverlayPoint *point = &node->point;
        if (point->deleted)
            RETURN_IF_FAILED(aidb_batch_delete(batch, point->key.data, point->key.size));
        else
            RETURN_IF_FAILED(aidb_batch_put(batch, point->key.data, point->key.size,
                                            point->value.data, point->value.size));
    }
    return AIDB_OK;
}
