/*
 * peer_bench.c - aidbbench's workloads on another store.
 *
 * For stores whose packages bring no load generator. Options, keys, values, histogram and output are
 * those of aidbbench (its files are compiled in), so that the same line starts either; a workload
 * does what aidbbench's of the same name does, and the clock is read once an operation. What the
 * comparison does not need is left out: unknown options are refused.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bin/aidbbench/data.h"
#include "bin/aidbbench/histogram.h"
#include "bin/aidbbench/random.h"
#include "peer.h"

#define KEY_SIZE    16
#define THREADS_MAX 64

static struct {
    char workloads[512];
    uint64_t num, reads, writes, value_size, threads, seek_nexts, write_rate, warmup, seed;
    double ratio;
    PeerSettings store;
} options = {.num = 1000000, .value_size = 100, .threads = 1, .seed = 1, .ratio = 0.5};

typedef struct Worker {
    const struct Workload *workload;
    void *session;
    Random random;
    size_t value_position;
    uint64_t range, limit;
    bool beside;
    uint64_t begin_ns, end_ns, last_ns;
    uint64_t ops, found, bytes;
    uint8_t key[KEY_SIZE + 1];
    Histogram histogram;
} Worker;

typedef struct Workload {
    const char *name;
    void (*run)(Worker *worker);
    bool reads, writes, fills, synced, in_order, longer, with_writer;
    unsigned divisor;
} Workload;

static ValuePool values;
static atomic_bool readers_done;

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s_bench: ", peer.name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void finish(Worker *worker)
{
    uint64_t now = now_ns();
    histogram_record(&worker->histogram, now - worker->last_ns);
    worker->last_ns = now;
    worker->ops++;
}

static uint64_t draw(Worker *worker)
{
    return random_below(&worker->random, worker->range);
}

static size_t key_size(const Worker *worker)
{
    return worker->workload->longer ? KEY_SIZE + 1 : KEY_SIZE;
}

static void put_one(Worker *worker, uint64_t number)
{
    key_encode(worker->key, KEY_SIZE, number);
    PeerRow row = {worker->key,
                   value_pool_next(&values, &worker->value_position, options.value_size), KEY_SIZE,
                   options.value_size};
    peer.put(worker->session, &row, worker->workload->synced);
    worker->bytes += row.key_size + row.value_size;
}

static void run_puts(Worker *worker)
{
    for (uint64_t i = 0; i < worker->limit; i++) {
        put_one(worker, worker->workload->in_order ? i : draw(worker));
        finish(worker);
    }
}

/* The writer of readwhilewriting, held to its rate. */
static void run_beside(Worker *worker)
{
    while (!atomic_load_explicit(&readers_done, memory_order_relaxed)) {
        put_one(worker, draw(worker));
        if (options.write_rate == 0)
            continue;
        uint64_t due =
            worker->begin_ns + (uint64_t)((double)worker->bytes / (double)options.write_rate * 1e9);
        if (due > now_ns() + 2000000) {
            struct timespec when = {.tv_sec = (time_t)(due / 1000000000),
                                    .tv_nsec = (long)(due % 1000000000)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
        }
    }
}

static void run_deletes(Worker *worker)
{
    for (uint64_t i = 0; i < worker->limit; i++) {
        key_encode(worker->key, KEY_SIZE, draw(worker));
        peer.remove(worker->session, worker->key, KEY_SIZE, false);
        worker->bytes += KEY_SIZE;
        finish(worker);
    }
}

static void run_gets(Worker *worker)
{
    for (uint64_t i = 0; i < worker->limit; i++) {
        size_t size;
        key_encode(worker->key, KEY_SIZE, draw(worker));
        if (peer.get(worker->session, worker->key, key_size(worker), &size)) {
            worker->found++;
            worker->bytes += KEY_SIZE + size;
        }
        finish(worker);
    }
}

static void run_iteration(Worker *worker, PeerMove first, PeerMove next)
{
    PeerRow row = {0};
    peer.iterator_begin(worker->session);
    for (bool more = peer.move(worker->session, first, &row); more && worker->ops < worker->limit;
         more = peer.move(worker->session, next, &row)) {
        worker->bytes += row.key_size + row.value_size;
        worker->found++;
        finish(worker);
    }
    peer.iterator_end(worker->session);
}

static void run_forward(Worker *worker)
{
    run_iteration(worker, PEER_FIRST, PEER_NEXT);
}

static void run_backward(Worker *worker)
{
    run_iteration(worker, PEER_LAST, PEER_PREV);
}

static void run_seeks(Worker *worker)
{
    for (uint64_t i = 0; i < worker->limit; i++) {
        key_encode(worker->key, KEY_SIZE, draw(worker));
        PeerRow row = {.key = worker->key, .key_size = KEY_SIZE};
        peer.iterator_begin(worker->session);
        bool more = peer.move(worker->session, PEER_SEEK, &row);
        if (more && row.key_size == KEY_SIZE && memcmp(row.key, worker->key, KEY_SIZE) == 0)
            worker->found++;
        for (uint64_t n = 0; more; n++) {
            worker->bytes += row.key_size + row.value_size;
            if (n == options.seek_nexts)
                break;
            more = peer.move(worker->session, PEER_NEXT, &row);
        }
        peer.iterator_end(worker->session);
        finish(worker);
    }
}

static void run_compaction(Worker *worker)
{
    if (peer.compact != NULL)
        peer.compact();
    finish(worker);
}

static const Workload workloads[] = {
    {"fillseq", run_puts, .writes = true, .fills = true, .in_order = true},
    {"fillrandom", run_puts, .writes = true, .fills = true},
    {"fillsync", run_puts, .writes = true, .fills = true, .synced = true, .divisor = 1000},
    {"overwrite", run_puts, .writes = true},
    {"deleterandom", run_deletes, .writes = true},
    {"readrandom", run_gets, .reads = true},
    {"readmissing", run_gets, .reads = true, .longer = true},
    {"readwhilewriting", run_gets, .reads = true, .with_writer = true},
    {"readseq", run_forward, .reads = true},
    {"readreverse", run_backward, .reads = true},
    {"seekrandom", run_seeks, .reads = true},
    {.name = "compact", .run = run_compaction},
};

static const Workload writer_beside = {.name = "writer", .run = run_beside};

static void *worker_main(void *arg)
{
    Worker *worker = arg;
    worker->session = peer.session_begin();
    worker->begin_ns = worker->last_ns = now_ns();
    worker->workload->run(worker);
    worker->end_ns = now_ns();
    peer.session_end(worker->session);
    return NULL;
}

static void run_pass(const Workload *workload, uint64_t pass, bool measured)
{
    bool compacts = workload->run == run_compaction;
    size_t counted = compacts ? 1 : options.threads;
    size_t count = counted + (workload->with_writer && measured ? 1 : 0);
    uint64_t range = options.num / (workload->divisor != 0 ? workload->divisor : 1);
    uint64_t wanted = workload->reads ? options.reads : options.writes;
    Worker *workers = calloc(count, sizeof *workers);
    pthread_t threads[THREADS_MAX + 1];
    if (workers == NULL)
        fail("out of memory");
    atomic_store(&readers_done, false);
    for (size_t i = 0; i < count; i++) {
        Worker *worker = &workers[i];
        worker->workload = i < counted ? workload : &writer_beside;
        worker->range = range > 0 ? range : 1;
        worker->limit = wanted != 0 ? wanted : worker->range;
        uint64_t stream = pass * 1000 + i;
        for (const char *c = workload->name; *c != '\0'; c++)
            stream = random_mix(stream + (unsigned char)*c);
        random_init(&worker->random, options.seed, stream);
        worker->value_position =
            random_below(&worker->random, values.size - options.value_size + 1);
        key_init(worker->key, sizeof worker->key);
        if (pthread_create(&threads[i], NULL, worker_main, worker) != 0)
            fail("could not start a thread");
    }
    for (size_t i = 0; i < counted; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&readers_done, true);
    for (size_t i = counted; i < count; i++)
        pthread_join(threads[i], NULL);
    if (!measured)
        goto out;

    uint64_t begin = workers[0].begin_ns, end = workers[0].end_ns, ops = 0, bytes = 0, found = 0;
    Histogram *sum = &workers[0].histogram;
    for (size_t i = 0; i < counted; i++) {
        const Worker *worker = &workers[i];
        begin = worker->begin_ns < begin ? worker->begin_ns : begin;
        end = worker->end_ns > end ? worker->end_ns : end;
        ops += worker->ops;
        bytes += worker->bytes;
        found += worker->found;
        if (i > 0)
            histogram_add(sum, &worker->histogram);
    }
    double seconds = (double)(end - begin) / 1e9;
    printf("%s\t%zu\t%llu\t%.6f\t%.1f\t%.3f\t%.3f\t%.3f\t%llu\t%llu\t%.3f\n", workload->name,
           counted, (unsigned long long)ops, seconds, (double)ops / seconds,
           (double)histogram_percentile(sum, 0.5) / 1000,
           (double)histogram_percentile(sum, 0.99) / 1000,
           (double)histogram_percentile(sum, 0.999) / 1000, (unsigned long long)bytes,
           (unsigned long long)found, (double)sum->max / 1000);
    fflush(stdout);
out:
    free(workers);
}

static const Workload *find(const char *name)
{
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        if (strcmp(workloads[i].name, name) == 0)
            return &workloads[i];
    }
    fail("'%s' is not a workload", name);
}

static uint64_t number(const char *name, const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0')
        fail("%s: '%s' is not a whole number", name, text);
    return value;
}

static void parse(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint64_t *number;
    } numbers[] = {
        {"--num", &options.num},
        {"--reads", &options.reads},
        {"--writes", &options.writes},
        {"--value-size", &options.value_size},
        {"--threads", &options.threads},
        {"--seek-nexts", &options.seek_nexts},
        {"--write-rate", &options.write_rate},
        {"--warmup", &options.warmup},
        {"--seed", &options.seed},
        {"--memtable", &options.store.memtable},
        {"--cache", &options.store.cache},
        {"--block", &options.store.block},
        {"--filter-bits", &options.store.filter_bits},
    };
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--version") == 0) {
            puts(peer.version());
            exit(0);
        }
        if (i + 1 == argc)
            fail("%s needs a value, or is not an option", argv[i]);
        const char *value = argv[i + 1];
        bool known = true;
        if (strcmp(argv[i], "--db") == 0)
            options.store.path = value;
        else if (strcmp(argv[i], "--workloads") == 0)
            snprintf(options.workloads, sizeof options.workloads, "%s", value);
        else if (strcmp(argv[i], "--compression-ratio") == 0)
            options.ratio = strtod(value, NULL);
        else if (strcmp(argv[i], "--compression") == 0)
            options.store.compress = strcmp(value, "none") != 0;
        else
            known = false;
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0] && !known; k++) {
            if (strcmp(argv[i], numbers[k].name) == 0) {
                *numbers[k].number = number(argv[i], value);
                known = true;
            }
        }
        if (!known)
            fail("%s is not an option", argv[i]);
    }
    if (options.store.path == NULL || options.workloads[0] == '\0')
        fail("--db and --workloads are needed");
    if (options.threads == 0 || options.threads > THREADS_MAX)
        fail("--threads: 1 to %d", THREADS_MAX);
    if (options.ratio <= 0 || options.ratio > 1)
        fail("--compression-ratio is above 0 and at most 1");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (!value_pool_create(&values, options.value_size, options.ratio, options.seed))
        fail("out of memory");
    const Workload *list[16];
    size_t count = 0;
    char *rest = NULL;
    for (char *name = strtok_r(options.workloads, ",", &rest); name != NULL && count < 16;
         name = strtok_r(NULL, ",", &rest)) {
        list[count] = find(name);
        options.store.sync = options.store.sync || list[count]->synced;
        count++;
    }
    peer.open(&options.store);
    puts("workload\tthreads\tops\tseconds\tops_per_s\tp50_us\tp99_us\tp999_us\tbytes\tfound\tmax_"
         "us");
    uint64_t pass = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t warmups = list[i]->reads ? options.warmup : 0;
        for (uint64_t k = 0; k < warmups; k++)
            run_pass(list[i], pass++, false);
        run_pass(list[i], pass++, true);
    }
    peer.close();
    value_pool_destroy(&values);
    return 0;
}
