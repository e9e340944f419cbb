/*
 * options.h - the command line of aidbbench, parsed and checked.
 *
 * Everything that can be known to be wrong before a store is opened is refused here, with a message
 * that names the option. Nothing is printed: the caller does that.
 */
#ifndef AIDB_BENCH_OPTIONS_H
#define AIDB_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <aidb.h>

#include "bin/aidbbench/data.h"

struct Workload;

#define OPTIONS_WORKLOADS_MAX   64
#define OPTIONS_SETTINGS_MAX    64
#define OPTIONS_THREADS_MAX     1024
#define OPTIONS_CONNECTIONS_MAX 10000
#define OPTIONS_PIPELINE_MAX    65536
#define OPTIONS_BATCH_MAX       65536

typedef enum OutputFormat { FORMAT_TEXT, FORMAT_TSV, FORMAT_JSON } OutputFormat;

typedef enum Distribution {
    DISTRIBUTION_DEFAULT, /* the one that the workload's definition names */
    DISTRIBUTION_UNIFORM,
    DISTRIBUTION_ZIPFIAN,
    DISTRIBUTION_LATEST
} Distribution;

typedef struct Options {
    const char *db; /* borrowed from the command line or the environment */
    bool remote;    /* db is the address of a server */
    const struct Workload *workloads[OPTIONS_WORKLOADS_MAX];
    size_t workload_count;
    uint64_t num;         /* keys 0 to num - 1 are the data set */
    uint64_t reads;       /* operations of a thread in a reading workload; 0: num */
    uint64_t writes;      /* the same for writing workloads; 0: what the workload says */
    uint64_t duration_ns; /* 0: until the operations are done */
    uint64_t warmup;      /* passes before the measured one */
    uint64_t key_size;    /* bytes */
    KeyShape key_shape;
    uint64_t value_size; /* bytes */
    double compression_ratio;
    uint64_t threads;
    uint64_t connections; /* handles on a server, at least one for each thread */
    uint64_t pipeline;    /* requests that a connection sends together */
    uint64_t batch;       /* operations of a write, keys of a read */
    uint64_t seek_nexts;
    uint64_t write_rate; /* bytes a second of the writer in readwhilewriting; 0: no limit */
    Distribution distribution;
    aidb_durability durability;
    uint64_t seed;
    bool use_existing;
    OutputFormat format;
    aidb_option settings[OPTIONS_SETTINGS_MAX + 2]; /* room for "create" and the end */
    size_t setting_count;
    char *text; /* copies that the pointers above point into; options_deinit frees it */
} Options;

typedef enum OptionsResult {
    OPTIONS_RUN,
    OPTIONS_HELP,    /* --help: print the help and leave */
    OPTIONS_VERSION, /* --version */
    OPTIONS_WRONG    /* see `error` */
} OptionsResult;

/* Parses a command line into *options, which it initialises first and which options_deinit must be
 * called on whatever the result. Not thread-safe: getopt is not. */
OptionsResult options_parse(Options *options, int argc, char **argv, char *error,
                            size_t error_size);
void options_deinit(Options *options);

void options_print_help(FILE *out);

/* A whole number with an optional suffix: k, m, g (powers of 1000) or Ki, Mi, Gi (of 1024), with or
 * without a B after it, in any case. False when it is not one or does not fit. */
bool options_parse_number(const char *text, uint64_t *number);

/* A time in *ns: a number with ms, s, m or h behind it, or seconds when there is no unit. */
bool options_parse_duration(const char *text, uint64_t *ns);

const char *options_durability_name(aidb_durability durability);

#endif
