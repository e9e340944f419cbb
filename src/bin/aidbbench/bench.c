/*
 * bench.c - a whole run: connections, threads, passes, results.
 *
 * Fill workloads measure writing into an empty store, as in db_bench. db_bench throws away what it
 * finds; that would be a trap in a tool that takes the address of a server, so a store that held
 * anything when the run began is refused unless --use-existing says that it may be written to. What
 * this very run has written is its own: before a later fill workload of the list it is deleted and
 * compacted away, unmeasured, so that the results of each do not depend on the others.
 */
#include "config.h"
#include "bin/aidbbench/bench.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bin/aidbbench/report.h"
#include "bin/aidbbench/worker.h"

#define PROGRESS_INTERVAL_NS UINT64_C(250000000)

typedef struct Run {
    Bench bench;
    char *error;
    size_t error_size;
} Run;

/* A worker with its thread; the figures of one are never in a cache line of another. */
typedef struct WorkerThread {
    pthread_t thread;
    bool started;
    struct Crew *crew;
    Worker worker;
} __attribute__((aligned(128))) WorkerThread;

/* The threads of one pass. */
typedef struct Crew {
    WorkerThread *members;
    size_t counted; /* members whose figures count; a writer beside them comes after these */
    size_t count;
    Connection *connections;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool released;  /* guarded by mutex: everybody is there, go */
    size_t running; /* guarded by mutex: counted members that have not ended */
} Crew;

static BenchExit failed(Run *run, BenchExit code, const char *what, const char *why)
{
    snprintf(run->error, run->error_size, "%s: %s", what, why);
    return code;
}

/* An error of the library. On a server some mean that there is nobody to talk to any more. */
static BenchExit failed_with(Run *run, aidb_status status, const char *what, const char *why)
{
    bool lost = status == AIDB_CONNECTION || status == AIDB_AUTHENTICATION ||
                status == AIDB_PROTOCOL || status == AIDB_TIMEOUT || status == AIDB_UNKNOWN;
    bool remote = run->bench.options->remote;
    return failed(run, remote && lost ? BENCH_CONNECTION : BENCH_ERROR, what, why);
}

/* --- Opening and closing --------------------------------------------------------------------- */

static bool any_writes(const Options *options)
{
    for (size_t i = 0; i < options->workload_count; i++) {
        if (options->workloads[i]->writes)
            return true;
    }
    return false;
}

static aidb_status open_one(const Options *options, aidb **db)
{
    aidb_option settings[OPTIONS_SETTINGS_MAX + 2] = {0};
    if (options->remote) {
        settings[0] = (aidb_option){"application", "aidbbench"};
    } else {
        size_t count = options->setting_count;
        memcpy(settings, options->settings, count * sizeof settings[0]);
        settings[count] = (aidb_option){"create", any_writes(options) ? "true" : "false"};
    }
    return aidb_open(options->db, settings, db);
}

static BenchExit open_store(Run *run)
{
    const Options *options = run->bench.options;
    run->bench.connections = calloc(options->connections, sizeof(aidb *));
    if (run->bench.connections == NULL)
        return failed(run, BENCH_ERROR, options->db, "out of memory");
    for (; run->bench.connection_count < options->connections; run->bench.connection_count++) {
        aidb_status status =
            open_one(options, &run->bench.connections[run->bench.connection_count]);
        if (status == AIDB_INVALID)
            return failed(run, BENCH_USAGE, options->db, aidb_error_message());
        if (status != AIDB_OK && options->remote)
            return failed(run, BENCH_CONNECTION, options->db, aidb_error_message());
        if (status != AIDB_OK)
            return failed(run, BENCH_ERROR, options->db, aidb_error_message());
    }
    return BENCH_DONE;
}

/* Closing an embedded store writes out what is in memory, so it can fail and that counts. */
static BenchExit close_store(Run *run, BenchExit code)
{
    aidb_status status = AIDB_OK;
    char why[1024] = "";
    for (size_t i = 0; i < run->bench.connection_count; i++) {
        aidb_status closed = aidb_close(run->bench.connections[i]);
        if (status == AIDB_OK && closed != AIDB_OK) {
            status = closed;
            snprintf(why, sizeof why, "%s", aidb_error_message());
        }
    }
    aidb_close(run->bench.writer_connection);
    free(run->bench.connections);
    if (status != AIDB_OK && code == BENCH_DONE)
        return failed_with(run, status, "could not close", why);
    return code;
}

/* --- An empty store for fill workloads ------------------------------------------------------- */

static aidb_status is_empty(aidb *db, bool *empty)
{
    aidb_scan scan = {.limit = 1, .keys_only = 1};
    aidb_iter *iter = NULL;
    const aidb_entry *entry = NULL;
    aidb_status status = aidb_iter_create(db, NULL, &scan, &iter);
    if (status == AIDB_OK)
        status = aidb_iter_next(iter, &entry);
    *empty = entry == NULL;
    aidb_iter_destroy(iter);
    return status;
}

/* Deletes the keys that this run may have written, and no other. */
static aidb_status clear_own_keys(Run *run)
{
    const Options *options = run->bench.options;
    aidb *db = run->bench.connections[0];
    uint64_t last = options->num > options->writes ? options->num : options->writes;
    last += atomic_load(&run->bench.inserts);
    size_t key_size = options->key_size;
    uint8_t *from = malloc(key_size), *to = malloc(key_size + 1);
    aidb_batch *batch = aidb_batch_create();
    aidb_status status = AIDB_NO_MEMORY;
    if (from != NULL && to != NULL && batch != NULL) {
        key_init(from, key_size);
        key_init(to, key_size + 1);
        key_encode(from, key_size, 0);
        if (key_size >= KEY_NUMBER_SIZE)
            key_encode(to, key_size, last);
        else
            memset(to, 0xff, key_size); /* numbers may have wrapped: every key of this size */
        to[key_size] = 0;               /* past the last key */
        aidb_range range = {{from, key_size}, {to, key_size + 1}};
        status = aidb_batch_delete_range(batch, &range);
        if (status == AIDB_OK)
            status = aidb_write(db, batch, AIDB_DEFAULT, NULL);
        if (status == AIDB_OK)
            status = aidb_control(db, "compact", NULL);
        if (status == AIDB_OK)
            status = aidb_control(db, "compact_wait", NULL);
    }
    aidb_batch_destroy(batch);
    free(from);
    free(to);
    return status;
}

static BenchExit prepare_store(Run *run, const Workload *workload)
{
    Bench *bench = &run->bench;
    if (!workload->writes)
        return BENCH_DONE;
    aidb_status status = AIDB_OK;
    if (!bench->wrote)
        status = is_empty(bench->connections[0], &bench->began_empty);
    if (status != AIDB_OK)
        return failed_with(run, status, workload->name, aidb_error_message());
    if (workload->fills && !bench->options->use_existing) {
        if (!bench->began_empty)
            return failed(run, BENCH_ERROR, workload->name,
                          "the store is not empty\n"
                          "hint: name another one, or use --use-existing to write to it.");
        if (bench->wrote)
            status = clear_own_keys(run);
        if (status != AIDB_OK)
            return failed_with(run, status, workload->name, aidb_error_message());
        atomic_store(&bench->inserts, 0);
        atomic_store(&bench->inserted, 0);
    }
    bench->wrote = true;
    return BENCH_DONE;
}

/* --- One pass -------------------------------------------------------------------------------- */

static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0;
    for (; *name != '\0'; name++)
        hash = random_mix(hash + (unsigned char)*name);
    return hash;
}

/* Sets up a member. Every workload, pass and thread has a random stream of its own: a reader that
 * repeated its filler's stream would find every key. */
static void member_init(Crew *crew, size_t index, Bench *bench, const Workload *workload,
                        bool warming)
{
    const Options *options = bench->options;
    uint64_t divisor = workload->divisor == 0 ? 1 : workload->divisor;
    uint64_t range = options->num < divisor ? 1 : options->num / divisor;
    uint64_t wanted = workload->reads ? options->reads : options->writes;
    uint64_t limit = wanted != 0 ? wanted : range;
    bool beside = index >= crew->counted;

    WorkerThread *member = &crew->members[index];
    Worker *worker = &member->worker;
    member->crew = crew;
    worker->bench = bench;
    worker->workload = workload;
    worker->next = beside ? workload_next_put : workload->next;
    worker->range = range;
    worker->warming = warming;
    worker->beside = beside;
    worker->duration_ns = beside || workload->shape == SHAPE_COMPACT ? 0 : options->duration_ns;
    worker->limit = limit;
    if (beside || (worker->duration_ns != 0 && !workload->in_order))
        worker->limit = UINT64_MAX;
    random_init(&worker->random, options->seed,
                hash_name(workload->name) + bench->passes * OPTIONS_THREADS_MAX * 2 + index);
}

/* A directory's one handle is shared by all members; a server's connections are dealt out. */
static void deal_connections(Crew *crew, const Bench *bench)
{
    bool remote = bench->options->remote;
    size_t next = 0;
    for (size_t i = 0; i < crew->count; i++) {
        Worker *worker = &crew->members[i].worker;
        worker->connections = &crew->connections[next];
        bool beside = i >= crew->counted;
        size_t share = 1;
        if (remote && !beside)
            share = bench->connection_count / crew->counted +
                    (i < bench->connection_count % crew->counted ? 1 : 0);
        for (size_t k = 0; k < share; k++) {
            aidb *db = bench->connections[0];
            if (remote)
                db = beside ? bench->writer_connection : bench->connections[next + k];
            worker->connections[k] = (Connection){.db = db, .worker = worker};
        }
        worker->connection_count = share;
        next += share;
    }
}

static BenchExit crew_create(Run *run, const Workload *workload, bool warming, Crew **created)
{
    Bench *bench = &run->bench;
    const Options *options = bench->options;
    bool with_writer = workload->with_writer && !warming;
    *created = NULL;
    if (with_writer && options->remote && bench->writer_connection == NULL) {
        aidb_status status = open_one(options, &bench->writer_connection);
        if (status != AIDB_OK)
            return failed_with(run, status, workload->name, aidb_error_message());
    }

    size_t counted = workload->shape == SHAPE_COMPACT ? 1 : options->threads;
    size_t count = counted + (with_writer ? 1 : 0);
    Crew *crew = calloc(1, sizeof *crew);
    if (crew == NULL)
        return failed(run, BENCH_ERROR, workload->name, "out of memory");
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&crew->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *created = crew;

    crew->counted = counted;
    crew->running = counted;
    /* A directory needs one for each member, a server one for each of its own and the writer. */
    size_t connections = bench->connection_count > counted ? bench->connection_count : counted;
    crew->connections = calloc(connections + 1, sizeof *crew->connections);
    crew->members = aligned_alloc(_Alignof(WorkerThread), count * sizeof *crew->members);
    if (crew->connections == NULL || crew->members == NULL)
        return failed(run, BENCH_ERROR, workload->name, "out of memory");
    memset(crew->members, 0, count * sizeof *crew->members);
    crew->count = count;
    for (size_t i = 0; i < count; i++)
        member_init(crew, i, bench, workload, warming);
    deal_connections(crew, bench);
    for (size_t i = 0; i < count; i++) {
        if (!worker_init(&crew->members[i].worker))
            return failed(run, BENCH_ERROR, workload->name, "out of memory");
    }
    return BENCH_DONE;
}

static void crew_destroy(Crew *crew)
{
    if (crew == NULL)
        return;
    for (size_t i = 0; i < crew->count; i++)
        worker_deinit(&crew->members[i].worker);
    pthread_cond_destroy(&crew->changed);
    pthread_mutex_destroy(&crew->mutex);
    free(crew->members);
    free(crew->connections);
    free(crew);
}

static void *member_main(void *arg)
{
    WorkerThread *member = arg;
    Crew *crew = member->crew;
    pthread_mutex_lock(&crew->mutex);
    while (!crew->released)
        pthread_cond_wait(&crew->changed, &crew->mutex);
    pthread_mutex_unlock(&crew->mutex);

    worker_run(&member->worker);

    if (!member->worker.beside) {
        pthread_mutex_lock(&crew->mutex);
        crew->running--;
        pthread_cond_broadcast(&crew->changed);
        pthread_mutex_unlock(&crew->mutex);
    }
    return NULL;
}

static void show_progress(const Crew *crew, uint64_t begin_ns)
{
    const Worker *first = &crew->members[0].worker;
    double seconds = (double)(clock_now() - begin_ns) / 1e9;
    uint64_t ops = 0;
    for (size_t i = 0; i < crew->counted; i++)
        ops += atomic_load_explicit(&crew->members[i].worker.progress, memory_order_relaxed);
    double fraction = -1;
    if (first->duration_ns != 0)
        fraction = seconds * 1e9 / (double)first->duration_ns;
    else if (first->workload->shape != SHAPE_COMPACT)
        fraction = (double)ops / ((double)first->limit * (double)crew->counted);
    progress_draw(first->workload->name, fraction, ops, seconds > 0 ? (double)ops / seconds : 0,
                  seconds);
}

/* Waits until the counted members have ended, showing progress on a terminal. */
static void crew_await(Crew *crew)
{
    bool show = progress_wanted();
    uint64_t begin_ns = clock_now();
    uint64_t next_ns = begin_ns;
    pthread_mutex_lock(&crew->mutex);
    while (crew->running > 0) {
        if (!show) {
            pthread_cond_wait(&crew->changed, &crew->mutex);
            continue;
        }
        next_ns += PROGRESS_INTERVAL_NS;
        struct timespec when = {.tv_sec = (time_t)(next_ns / UINT64_C(1000000000)),
                                .tv_nsec = (long)(next_ns % UINT64_C(1000000000))};
        int waited = 0;
        while (crew->running > 0 && waited != ETIMEDOUT)
            waited = pthread_cond_timedwait(&crew->changed, &crew->mutex, &when);
        pthread_mutex_unlock(&crew->mutex);
        show_progress(crew, begin_ns);
        pthread_mutex_lock(&crew->mutex);
    }
    pthread_mutex_unlock(&crew->mutex);
    if (show)
        progress_clear();
}

/* Starts all members at once and returns when all have ended. False when a thread could not be
 * started; those that were end at once. */
static bool crew_work(Crew *crew, Bench *bench)
{
    bool started = true;
    for (size_t i = 0; i < crew->count && started; i++) {
        WorkerThread *member = &crew->members[i];
        started = pthread_create(&member->thread, NULL, member_main, member) == 0;
        member->started = started;
    }
    if (!started)
        atomic_store(bench->stop, true);
    atomic_store(&bench->readers_done, false);
    pthread_mutex_lock(&crew->mutex);
    crew->released = true;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->mutex);
    if (started)
        crew_await(crew);
    atomic_store(&bench->readers_done, true);
    for (size_t i = 0; i < crew->count; i++) {
        if (crew->members[i].started)
            pthread_join(crew->members[i].thread, NULL);
    }
    return started;
}

/* Sums the counted members up. The histograms go into the first member's. */
static Result crew_result(Crew *crew, const Workload *workload)
{
    Result result = {.workload = workload, .threads = crew->counted};
    Histogram *sum = &crew->members[0].worker.histogram;
    uint64_t begin_ns = UINT64_MAX, end_ns = 0;
    for (size_t i = 0; i < crew->counted; i++) {
        const Worker *worker = &crew->members[i].worker;
        if (i != 0)
            histogram_add(sum, &worker->histogram);
        result.ops += worker->ops;
        result.bytes += worker->bytes;
        result.found += worker->found;
        begin_ns = worker->begin_ns < begin_ns ? worker->begin_ns : begin_ns;
        end_ns = worker->end_ns > end_ns ? worker->end_ns : end_ns;
    }
    result.seconds = (double)(end_ns - begin_ns) / 1e9;
    result.p50_ns = histogram_percentile(sum, 0.5);
    result.p99_ns = histogram_percentile(sum, 0.99);
    result.p999_ns = histogram_percentile(sum, 0.999);
    result.max_ns = sum->max;
    return result;
}

/* The failure to report: that of the member that failed first in order. */
static BenchExit crew_failure(Run *run, const Crew *crew, const Workload *workload)
{
    for (size_t i = 0; i < crew->count; i++) {
        const Worker *worker = &crew->members[i].worker;
        if (worker->status != AIDB_OK)
            return failed_with(run, worker->status, workload->name, worker->error);
    }
    return BENCH_DONE;
}

static BenchExit run_pass(Run *run, const Workload *workload, bool warming, Result *result)
{
    Crew *crew;
    BenchExit code = crew_create(run, workload, warming, &crew);
    if (code == BENCH_DONE && !crew_work(crew, &run->bench))
        code = failed(run, BENCH_ERROR, workload->name, "could not start a thread");
    if (code == BENCH_DONE)
        code = crew_failure(run, crew, workload);
    if (code == BENCH_DONE)
        *result = crew_result(crew, workload);
    run->bench.passes++;
    crew_destroy(crew);
    return code;
}

/* --- The run --------------------------------------------------------------------------------- */

/* *printed tells whether its result could be printed, if it came to that. */
static BenchExit run_workload(Run *run, const Workload *workload, Report *report, bool *printed)
{
    Result result = {0};
    BenchExit code = prepare_store(run, workload);
    uint64_t warmups = workload->reads ? run->bench.options->warmup : 0;
    for (uint64_t i = 0; i < warmups && code == BENCH_DONE && !atomic_load(run->bench.stop); i++)
        code = run_pass(run, workload, true, &result);
    if (code == BENCH_DONE && !atomic_load(run->bench.stop)) {
        code = run_pass(run, workload, false, &result);
        if (code == BENCH_DONE)
            *printed = report_row(report, &result);
    }
    if (code == BENCH_DONE && atomic_load(run->bench.stop))
        code = BENCH_STOPPED;
    return code;
}

BenchExit bench_run(const Options *options, FILE *out, atomic_bool *stop, char *error,
                    size_t error_size)
{
    Run run = {
        .bench = {.options = options, .stop = stop}, .error = error, .error_size = error_size};
    Report report;
    BenchExit code = open_store(&run);
    if (code != BENCH_DONE)
        return close_store(&run, code);
    zipfian_init(&run.bench.zipfian, options->num, ZIPFIAN_THETA);
    if (!value_pool_create(&run.bench.values, options->value_size, options->compression_ratio,
                           options->seed))
        return close_store(&run, failed(&run, BENCH_ERROR, "values", "out of memory"));
    bool printed = report_begin(&report, out, options);
    for (size_t i = 0; i < options->workload_count && code == BENCH_DONE && printed; i++)
        code = run_workload(&run, options->workloads[i], &report, &printed);
    /* Also after a failure: the rows so far are valid and deserve a valid document. */
    printed = report_end(&report) && printed;
    if (!printed)
        code = failed(&run, BENCH_ERROR, "could not write to standard output", strerror(errno));
    value_pool_destroy(&run.bench.values);
    return close_store(&run, code);
}
