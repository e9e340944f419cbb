/*
 * values.h - what a store with one writer must hold: every operation that was acknowledged, in order.
 *
 * A state is that up to some LSN, so snapshots need no copies. Slow and simple on purpose.
 */
#ifndef AIDB_FUZZ_VALUES_H
#define AIDB_FUZZ_VALUES_H

#include "protocol/protocol.h"

typedef struct KnownOp {
    uint64_t lsn;
    uint8_t type;
    Slice key, value; /* as in a BatchOp; own memory */
} KnownOp;

typedef struct Values {
    KnownOp *ops;
    size_t count, capacity;
    uint64_t newest; /* LSN */
    uint64_t work;   /* operations looked at */
    bool lost;       /* what the store holds cannot be told any more, or takes too long */
} Values;

/* Whether to compare any further. */
bool values_known(Values *values);
/* A batch whose last operation was acknowledged with this LSN. */
void values_write(Values *values, const Message *request, uint64_t lsn);
/* Requires that the reply is what the store must answer. `from` and `to` are what is left of a scan's range
 * before this chunk. */
void values_check_read(Values *values, const Message *request, const Message *reply);
void values_check_chunk(Values *values, const Message *request, const Message *reply, Slice from,
                        Slice to);
void values_check_commit(Values *values, const Message *request, const Message *reply);
void values_deinit(Values *values);

#endif
