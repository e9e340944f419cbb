/*
 * overlay.h - what a batch between BEGIN and COMMIT has written so far.
 *
 * The writes of an open batch live here and nowhere else: reads lay them over the store, and
 * COMMIT turns them into one aidb_batch. Two parts keep that small and exact:
 *
 *   - the newest put or delete of each key, in key order (a skip list);
 *   - ranges that were deleted, disjoint and in order.
 *
 * A point is always newer than a range that covers it, because deleting a range drops the points in
 * it; so the batch is all ranges and then all points.
 */
#ifndef AIDBSQL_OVERLAY_H
#define AIDBSQL_OVERLAY_H

#include <aidb.h>

#include "common/slice.h"

typedef struct Overlay Overlay;

/* The newest write of one key. Its memory is the overlay's until the key is written again. */
typedef struct OverlayPoint {
    Slice key;
    Slice value;
    bool deleted;
} OverlayPoint;

/* Keys in [from, to), or from `from` on when `to_end`. */
typedef struct OverlayRange {
    Slice from;
    Slice to;
    bool to_end;
} OverlayRange;

Overlay *overlay_create(void);
void overlay_destroy(Overlay *overlay);

void overlay_put(Overlay *overlay, Slice key, Slice value);
void overlay_delete(Overlay *overlay, Slice key);
/* An empty range changes nothing. */
void overlay_delete_range(Overlay *overlay, Slice from, Slice to, bool to_end);

bool overlay_is_empty(const Overlay *overlay);

/* The newest write of a key, null when there is none. */
const OverlayPoint *overlay_find(const Overlay *overlay, Slice key);

/* The deleted range that covers a key, null when none does. A point of the same key counts first. */
const OverlayRange *overlay_covering(const Overlay *overlay, Slice key);

/* Points in order: the first at or after a key, the last before it, and their neighbours. Null
 * where there is none. overlay_before searches anew, so a step back costs as much as a find. */
const OverlayPoint *overlay_at_or_after(const Overlay *overlay, Slice key);
const OverlayPoint *overlay_next(const OverlayPoint *point);
const OverlayPoint *overlay_before(const Overlay *overlay, Slice key);
const OverlayPoint *overlay_last(const Overlay *overlay);

/* Adds everything to a batch. */
aidb_status overlay_write(const Overlay *overlay, aidb_batch *batch);

#endif
