/*
 * workload.c - the table of workloads, and the generators of their operations.
 *
 * The db_bench workloads draw keys uniformly and with replacement, so that after fillrandom of N
 * keys about 63 percent of them exist and readrandom finds as many. The YCSB mixes are those of the
 * paper "Benchmarking Cloud Serving Systems with YCSB" (Cooper and others, 2010). Inserts add the
 * keys after the last one, in order.
 */
#include "config.h"
#include "bin/aidbbench/workload.h"

#include <string.h>

#include "bin/aidbbench/worker.h"

#define SCAN_LENGTH_MAX 100

static void next_put_in_order(Worker *worker, Operation *operation)
{
    operation->kind = OPERATION_PUT;
    operation->key = worker->issued;
}

void workload_next_put(Worker *worker, Operation *operation)
{
    operation->kind = OPERATION_PUT;
    operation->key = random_below(&worker->random, worker->range);
}

static void next_get(Worker *worker, Operation *operation)
{
    operation->kind = OPERATION_GET;
    operation->key = random_below(&worker->random, worker->range);
}

static void next_delete(Worker *worker, Operation *operation)
{
    operation->kind = OPERATION_DELETE;
    operation->key = random_below(&worker->random, worker->range);
}

static void next_seek(Worker *worker, Operation *operation)
{
    operation->kind = OPERATION_SEEK;
    operation->key = random_below(&worker->random, worker->range);
    operation->count = worker->bench->options->seek_nexts;
}

static void next_connect(Worker *worker, Operation *operation)
{
    operation->kind = OPERATION_CONNECT;
    operation->key = random_below(&worker->random, worker->range);
}

static uint64_t choose_key(Worker *worker, Distribution wanted)
{
    Bench *bench = worker->bench;
    if (bench->options->distribution != DISTRIBUTION_DEFAULT)
        wanted = bench->options->distribution;
    if (wanted == DISTRIBUTION_ZIPFIAN) {
        uint64_t rank = zipfian_next(&bench->zipfian, &worker->random);
        return zipfian_scatter(rank, worker->range);
    }
    uint64_t inserted = atomic_load_explicit(&bench->inserted, memory_order_relaxed);
    if (wanted == DISTRIBUTION_LATEST)
        return worker->range + inserted - 1 - zipfian_next(&bench->zipfian, &worker->random);
    return random_below(&worker->random, worker->range + inserted);
}

static void next_of_mix(Worker *worker, Operation *operation)
{
    const Mix *mix = worker->workload->mix;
    double share = random_fraction(&worker->random);
    if (share < mix->put) {
        operation->kind = OPERATION_PUT;
    } else if ((share -= mix->put) < mix->insert) {
        operation->kind = OPERATION_INSERT;
    } else if ((share -= mix->insert) < mix->scan) {
        operation->kind = OPERATION_SCAN;
        operation->count = 1 + random_below(&worker->random, SCAN_LENGTH_MAX);
    } else if ((share -= mix->scan) < mix->modify) {
        operation->kind = OPERATION_MODIFY;
    } else {
        operation->kind = OPERATION_GET;
    }

    if (worker->warming && operation->kind != OPERATION_SCAN)
        operation->kind = OPERATION_GET;
    if (operation->kind == OPERATION_INSERT) {
        operation->key = worker->range + atomic_fetch_add_explicit(&worker->bench->inserts, 1,
                                                                   memory_order_relaxed);
    } else {
        operation->key = choose_key(worker, mix->distribution);
    }
}

static const Mix mix_a = {.put = 0.5, .distribution = DISTRIBUTION_ZIPFIAN};
static const Mix mix_b = {.put = 0.05, .distribution = DISTRIBUTION_ZIPFIAN};
static const Mix mix_c = {.distribution = DISTRIBUTION_ZIPFIAN};
static const Mix mix_d = {.insert = 0.05, .distribution = DISTRIBUTION_LATEST};
static const Mix mix_e = {.insert = 0.05, .scan = 0.95, .distribution = DISTRIBUTION_ZIPFIAN};
static const Mix mix_f = {.modify = 0.5, .distribution = DISTRIBUTION_ZIPFIAN};

const Workload workload_table[] = {
    {
        .name = "fillseq",
        .summary = "write all keys in order",
        .next = next_put_in_order,
        .fills = true,
        .writes = true,
        .in_order = true,
    },
    {
        .name = "fillrandom",
        .summary = "write keys in random order",
        .next = workload_next_put,
        .fills = true,
        .writes = true,
    },
    {
        .name = "fillsync",
        .summary = "write num/1000 keys in random order, each synced",
        .next = workload_next_put,
        .fills = true,
        .writes = true,
        .synced = true,
        .divisor = 1000,
    },
    {
        .name = "overwrite",
        .summary = "write random keys of a filled store",
        .next = workload_next_put,
        .writes = true,
    },
    {
        .name = "deleterandom",
        .summary = "delete random keys",
        .next = next_delete,
        .writes = true,
    },
    {
        .name = "readrandom",
        .summary = "get random keys",
        .next = next_get,
        .reads = true,
    },
    {
        .name = "readmissing",
        .summary = "get keys that are not there",
        .next = next_get,
        .reads = true,
        .key_longer = true,
    },
    {
        .name = "readseq",
        .summary = "iterate from the first key on",
        .shape = SHAPE_FORWARD,
        .reads = true,
        .in_order = true,
        .one_by_one = true,
    },
    {
        .name = "readreverse",
        .summary = "iterate from the last key back",
        .shape = SHAPE_REVERSE,
        .reads = true,
        .in_order = true,
        .one_by_one = true,
    },
    {
        .name = "seekrandom",
        .summary = "a new iterator, a seek to a random key, --seek-nexts steps",
        .next = next_seek,
        .reads = true,
        .one_by_one = true,
    },
    {
        .name = "readwhilewriting",
        .summary = "readrandom, while one more thread overwrites (not counted)",
        .next = next_get,
        .reads = true,
        .writes = true,
        .with_writer = true,
    },
    {
        .name = "connect",
        .summary = "connect to a server, get a random key, close",
        .next = next_connect,
        .reads = true,
        .one_by_one = true,
        .remote = true,
    },
    {
        .name = "compact",
        .summary = "compact everything; ends when no compaction is due",
        .shape = SHAPE_COMPACT,
        .writes = true,
        .one_by_one = true,
    },
    {
        .name = "ycsba",
        .summary = "50% get, 50% put; zipfian",
        .next = next_of_mix,
        .mix = &mix_a,
        .reads = true,
        .writes = true,
    },
    {
        .name = "ycsbb",
        .summary = "95% get, 5% put; zipfian",
        .next = next_of_mix,
        .mix = &mix_b,
        .reads = true,
        .writes = true,
    },
    {
        .name = "ycsbc",
        .summary = "get only; zipfian",
        .next = next_of_mix,
        .mix = &mix_c,
        .reads = true,
    },
    {
        .name = "ycsbd",
        .summary = "95% get of recent keys, 5% insert; latest",
        .next = next_of_mix,
        .mix = &mix_d,
        .reads = true,
        .writes = true,
        .inserts = true,
    },
    {
        .name = "ycsbe",
        .summary = "95% scan of 1 to 100 entries, 5% insert; zipfian",
        .next = next_of_mix,
        .mix = &mix_e,
        .reads = true,
        .writes = true,
        .one_by_one = true,
        .inserts = true,
    },
    {
        .name = "ycsbf",
        .summary = "50% get, 50% get and put of the same key; zipfian",
        .next = next_of_mix,
        .mix = &mix_f,
        .reads = true,
        .writes = true,
        .one_by_one = true,
    },
};

const size_t workload_table_size = sizeof workload_table / sizeof workload_table[0];

const Workload *workload_find(const char *name, size_t size)
{
    for (size_t i = 0; i < workload_table_size; i++) {
        if (strlen(workload_table[i].name) == size &&
            memcmp(workload_table[i].name, name, size) == 0)
            return &workload_table[i];
    }
    return NULL;
}
