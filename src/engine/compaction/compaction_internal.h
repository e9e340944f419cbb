/*
 * compaction_internal.h - key ranges, which picker and jobs share.
 */
#ifndef AIDB_ENGINE_COMPACTION_COMPACTION_INTERNAL_H
#define AIDB_ENGINE_COMPACTION_COMPACTION_INTERNAL_H

#include "engine/compaction/compaction.h"

/* Outputs are cut when they overlap more of the level below than this many tables' worth. */
#define GRANDPARENT_TABLES 10u

/* A key range as files have it: from `smallest` on, up to `largest` or, when exclusive, before it. */
typedef struct Range {
    Slice smallest;
    Slice largest;
    bool exclusive;
    bool unbounded;
} Range;

Range range_of_file(const FileMeta *file);
/* Whether all of `a` is below all of `b`. */
bool range_before(const Range *a, const Range *b);
static inline bool ranges_overlap(const Range *a, const Range *b)
{
    return !range_before(a, b) && !range_before(b, a);
}
/* Makes `range` the hull of both. */
void range_extend(Range *range, const Range *other);

#endif
