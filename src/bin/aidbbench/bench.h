/*
 * bench.h - a whole run: opens the store, carries out the list of workloads, closes it.
 */
#ifndef AIDB_BENCH_BENCH_H
#define AIDB_BENCH_BENCH_H

#include <stdatomic.h>
#include <stdio.h>

#include "bin/aidbbench/options.h"

/* The exit codes that the manual page promises. */
typedef enum BenchExit {
    BENCH_DONE = 0,
    BENCH_ERROR = 1,      /* a message is in `error` */
    BENCH_CONNECTION = 2, /* no server there, or the connection was lost; the same */
    BENCH_USAGE = 3,      /* the store did not take the options; the same */
    BENCH_STOPPED = 130   /* *stop was set from outside */
} BenchExit;

/* Prints results on `out` as they come. Setting *stop, which a signal handler may do, ends the
 * workload that is under way, prints its result and ends the run. */
BenchExit bench_run(const Options *options, FILE *out, atomic_bool *stop, char *error,
                    size_t error_size);

#endif
