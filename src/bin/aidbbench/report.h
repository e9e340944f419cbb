/*
 * report.h - what aidbbench prints: results on standard output, progress on a terminal.
 */
#ifndef AIDB_BENCH_REPORT_H
#define AIDB_BENCH_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bin/aidbbench/options.h"
#include "bin/aidbbench/workload.h"

typedef struct Result {
    const Workload *workload;
    uint64_t threads; /* those that are counted */
    uint64_t ops;
    double seconds; /* from the first thread's begin to the last one's end */
    uint64_t p50_ns, p99_ns, p999_ns, max_ns;
    uint64_t bytes; /* of keys and values, written or found */
    uint64_t found;
} Result;

typedef struct Report {
    FILE *out;
    const Options *options;
    uint64_t rows;
} Report;

/* report_begin, any number of report_row, report_end. Each row is flushed. False when writing
 * failed, with errno. */
bool report_begin(Report *report, FILE *out, const Options *options);
bool report_row(Report *report, const Result *result);
bool report_end(Report *report);

/* One line on standard error, drawn over the previous one. Does nothing when that is no terminal.
 * `fraction` is how much is done, negative when that is not known. */
bool progress_wanted(void);
void progress_draw(const char *name, double fraction, uint64_t ops, double ops_per_s,
                   double seconds);
void progress_clear(void);

#endif
