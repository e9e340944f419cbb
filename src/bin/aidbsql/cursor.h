/*
 * cursor.h - the keys of a range in order, as a statement sees them.
 *
 * Lays the writes of an open batch over the store: two ordered streams are merged, the batch wins
 * where both have a key, and store entries inside a deleted range are skipped with a seek rather
 * than read one by one.
 */
#ifndef AIDBSQL_CURSOR_H
#define AIDBSQL_CURSOR_H

#include <aidb.h>

#include "bin/aidbsql/overlay.h"
#include "bin/aidbsql/parser.h"

/* Bounds as the library takes them. `range` borrows from the bounds and from `prefix_end`. */
typedef struct CursorRange {
    aidb_range range;
    bool empty;        /* no key can be in it */
    Buffer prefix_end; /* the first key behind the prefix */
} CursorRange;

void cursor_range_init(CursorRange *range, const Bounds *bounds);
void cursor_range_deinit(CursorRange *range);

typedef struct Cursor {
    aidb_iter *iter;
    const aidb_entry *entry; /* of the store; null at its end */
    bool entry_used;         /* it was handed out: step before looking at it */
    const Overlay *overlay;  /* may be null */
    const OverlayPoint *point;
    aidb_range range;
    bool reverse;
} Cursor;

typedef struct CursorRow {
    Slice key;
    Slice value;  /* empty when only keys are read */
    uint64_t lsn; /* 0 for what the open batch wrote */
} CursorRow;

typedef struct CursorOptions {
    const aidb_snapshot *snapshot;
    const Overlay *overlay;
    bool reverse;
    bool keys_only;
    uint64_t limit; /* a hint, 0 for none */
} CursorOptions;

/* The range must outlive the cursor, and the overlay must not change while it is open. */
aidb_status cursor_open(Cursor *cursor, aidb *db, const CursorRange *range,
                        const CursorOptions *options);
/* *found is false at the end. The row is valid until the next call. */
aidb_status cursor_next(Cursor *cursor, CursorRow *row, bool *found);
void cursor_close(Cursor *cursor);

#endif
