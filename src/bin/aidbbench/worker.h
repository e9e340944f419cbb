/*
 * worker.h - one thread of a workload: it carries operations out and keeps the figures.
 *
 * A worker belongs to its thread from worker_run to its end, but for `progress`, which anybody may
 * read. What workers share hangs off Bench and is read-only while they run, but for the atomics.
 */
#ifndef AIDB_BENCH_WORKER_H
#define AIDB_BENCH_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <aidb.h>

#include "bin/aidbbench/data.h"
#include "bin/aidbbench/histogram.h"
#include "bin/aidbbench/options.h"
#include "bin/aidbbench/random.h"
#include "bin/aidbbench/workload.h"

/* What all workers of a run share. */
typedef struct Bench {
    const Options *options;
    aidb **connections; /* one for a directory, which all threads share */
    size_t connection_count;
    aidb *writer_connection; /* of readwhilewriting on a server; made when first needed */
    ValuePool values;
    Zipfian zipfian;           /* over num */
    _Atomic uint64_t inserts;  /* keys past num that were handed out to insert */
    _Atomic uint64_t inserted; /* those of them whose insert has been answered */
    atomic_bool *stop;         /* a signal came, or a worker failed */
    atomic_bool readers_done;  /* tells the writer of readwhilewriting to end */
    uint64_t passes;           /* so far: numbers the random streams */
    bool began_empty;          /* the store was empty when this run first wrote to it */
    bool wrote;                /* this run has written */
} Bench;

typedef struct Connection {
    aidb *db;
    struct Worker *worker;
    uint64_t sent_ns;   /* when the burst that is under way was sent */
    uint64_t under_way; /* requests of it without an answer */
    uint64_t keys;      /* of multi-gets that are under way */
} Connection;

typedef struct Worker {
    /* Set by the caller. */
    Bench *bench;
    const Workload *workload;
    void (*next)(struct Worker *worker, Operation *operation);
    Connection *connections;
    size_t connection_count;
    uint64_t range;       /* keys are drawn from 0 to range - 1 */
    uint64_t limit;       /* operations to do; UINT64_MAX when time ends them */
    uint64_t duration_ns; /* 0: no limit of time */
    bool warming;         /* a pass before the measured one: reads only */
    bool beside;          /* the writer of readwhilewriting: ends with the readers */
    Random random;

    /* Working state. */
    uint64_t issued; /* operations begun; the next number of a sequential workload */
    uint64_t last_ns;
    uint64_t deadline_ns;
    size_t value_position;
    size_t key_size;
    uint8_t *key;
    aidb_batch *batch;
    aidb_value value;
    aidb_key *keys; /* of a multi-get, with their bytes; NULL when the workload has none */
    aidb_value *values;
    uint8_t *key_bytes;
    size_t next_connection;

    /* Results, valid when the thread has ended. */
    uint64_t begin_ns, end_ns;
    uint64_t ops, bytes, found;
    aidb_status status; /* AIDB_OK, or why the worker ended early */
    char error[1024];
    Histogram histogram;

    _Atomic uint64_t progress; /* operations done so far */
} Worker;

static inline uint64_t clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Gets the memory that worker_run needs, so that no failure for lack of it comes in between. False
 * when memory is short; worker_deinit is due in any case. */
bool worker_init(Worker *worker);
void worker_deinit(Worker *worker);

/* Runs the workload to its end. Sets the results. */
void worker_run(Worker *worker);

#endif
