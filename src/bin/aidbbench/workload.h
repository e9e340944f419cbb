/*
 * workload.h - the workloads: which operation comes next.
 *
 * A workload is a row of a table: its name, how its operations are made, and a few facts that the
 * options parser, the worker and the run need. Carrying operations out is the worker's business.
 */
#ifndef AIDB_BENCH_WORKLOAD_H
#define AIDB_BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bin/aidbbench/options.h"

struct Worker;

typedef enum OperationKind {
    OPERATION_GET,
    OPERATION_PUT,
    OPERATION_INSERT, /* a put of a key that no workload of this run has written */
    OPERATION_DELETE,
    OPERATION_SEEK,   /* a seek and then `count` steps */
    OPERATION_SCAN,   /* `count` entries from the key on */
    OPERATION_MODIFY, /* a get, then a put of the same key */
    OPERATION_CONNECT /* a new connection and a get on it */
} OperationKind;

typedef struct Operation {
    OperationKind kind;
    uint64_t key; /* its number */
    uint64_t count;
} Operation;

typedef enum WorkloadShape {
    SHAPE_OPERATIONS, /* `next` says what to do, over and over */
    SHAPE_FORWARD,    /* one iterator over all entries */
    SHAPE_REVERSE,
    SHAPE_COMPACT
} WorkloadShape;

/* The YCSB workloads: the share of each kind of operation. */
typedef struct Mix {
    double put, insert, scan, modify; /* the rest are gets */
    Distribution distribution;
} Mix;

typedef struct Workload {
    const char *name;
    const char *summary;
    WorkloadShape shape;
    void (*next)(struct Worker *worker, Operation *operation);
    const Mix *mix;
    bool fills;       /* wants an empty store */
    bool writes;      /* changes the store */
    bool reads;       /* counts its operations by --reads and has warm-up passes */
    bool in_order;    /* ends with its operations even when there is time left */
    bool one_by_one;  /* an operation is more than one request: not pipelined, not batched */
    bool inserts;     /* adds keys past num */
    bool key_longer;  /* keys are one byte longer than those written, so that none is found */
    bool with_writer; /* one more thread writes while the others read */
    bool remote;      /* means something on a server only */
    bool synced;      /* every write waits for stable storage */
    unsigned divisor; /* of num, for both the keys drawn from and the operations; 0 is 1 */
} Workload;

extern const Workload workload_table[];
extern const size_t workload_table_size;

/* The workload called `name` (not null-terminated, `size` bytes), or NULL. */
const Workload *workload_find(const char *name, size_t size);

/* What the writer beside readwhilewriting does. */
void workload_next_put(struct Worker *worker, Operation *operation);

#endif
