/*
 * worker.c - carrying operations out, and measuring them.
 *
 * The loop is kept cheap, because on an in-memory path an operation takes a microsecond: the clock
 * is read once an operation, whose end is the beginning of the next (so the few nanoseconds in which
 * an operation is made up are part of its latency, as in db_bench); nothing is allocated; values are
 * borrowed from a pool.
 *
 * A request is one operation or, batched, N of them: one write or one multi-get, with one latency.
 * There are two ways to carry requests out. One by one, each waits for its answer. Pipelined, a
 * connection gets a burst of requests and the next burst when all are answered; a worker with several
 * connections serves those that have answers, in whatever order these come. A pipelined request's
 * latency is the time from the sending of its burst to its own answer.
 */
#include "config.h"
#include "bin/aidbbench/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 64

/* The sleep of a rate-limited writer is not worth a system call below this. */
#define WRITER_AHEAD_NS UINT64_C(2000000)

/* Whether an operation is a multi-get of several keys. */
static bool reads_batches(const Worker *worker)
{
    const Workload *workload = worker->workload;
    return worker->bench->options->batch > 1 && workload->reads && workload->mix == NULL &&
           !workload->one_by_one && !worker->beside;
}

/* Whether it is a write of several. */
static bool writes_batches(const Worker *worker)
{
    const Workload *workload = worker->workload;
    return worker->bench->options->batch > 1 && !workload->reads && workload->mix == NULL;
}

static bool init_multi_get(Worker *worker)
{
    size_t count = worker->bench->options->batch;
    worker->keys = calloc(count, sizeof *worker->keys);
    worker->values = calloc(count, sizeof *worker->values);
    worker->key_bytes = malloc(count * worker->key_size);
    if (worker->keys == NULL || worker->values == NULL || worker->key_bytes == NULL)
        return false;
    key_init(worker->key_bytes, count * worker->key_size);
    for (size_t i = 0; i < count; i++)
        worker->keys[i] = (aidb_key){worker->key_bytes + i * worker->key_size, worker->key_size};
    return true;
}

bool worker_init(Worker *worker)
{
    const Options *options = worker->bench->options;
    worker->key_size = options->key_size + (worker->workload->key_longer ? 1 : 0);
    worker->value_position =
        random_below(&worker->random, worker->bench->values.size - options->value_size + 1);
    worker->key = malloc(worker->key_size);
    worker->batch = aidb_batch_create();
    if (worker->key == NULL || worker->batch == NULL)
        return false;
    key_init(worker->key, worker->key_size);
    return !reads_batches(worker) || init_multi_get(worker);
}

void worker_deinit(Worker *worker)
{
    free(worker->key);
    aidb_batch_destroy(worker->batch);
    aidb_free(worker->value.data);
    for (size_t i = 0; worker->values != NULL && i < worker->bench->options->batch; i++)
        aidb_free(worker->values[i].data);
    free(worker->values);
    free(worker->keys);
    free(worker->key_bytes);
    worker->values = NULL;
    worker->keys = NULL;
    worker->key_bytes = NULL;
    worker->key = NULL;
    worker->batch = NULL;
    worker->value = (aidb_value){0};
}

/* Keeps the first failure, which is the one that explains the others, and ends every worker. */
static void fail(Worker *worker, aidb_status status)
{
    if (worker->status == AIDB_OK) {
        worker->status = status;
        snprintf(worker->error, sizeof worker->error, "%s", aidb_error_message());
    }
    atomic_store_explicit(worker->bench->stop, true, memory_order_relaxed);
}

static bool more(const Worker *worker)
{
    if (worker->issued >= worker->limit || worker->last_ns >= worker->deadline_ns)
        return false;
    if (worker->beside && atomic_load_explicit(&worker->bench->readers_done, memory_order_relaxed))
        return false;
    return !atomic_load_explicit(worker->bench->stop, memory_order_relaxed);
}

static void count(Worker *worker, uint64_t ops)
{
    worker->ops += ops;
    atomic_store_explicit(&worker->progress, worker->ops, memory_order_relaxed);
}

/* Ends what began at last_ns: `ops` operations with one latency. */
static void finish(Worker *worker, uint64_t ops)
{
    uint64_t now = clock_now();
    histogram_record(&worker->histogram, now - worker->last_ns);
    worker->last_ns = now;
    count(worker, ops);
}

static aidb_durability durability(const Worker *worker)
{
    return worker->workload->synced ? AIDB_FSYNC : worker->bench->options->durability;
}

static aidb *next_connection(Worker *worker)
{
    if (worker->connection_count == 1)
        return worker->connections[0].db;
    size_t index = worker->next_connection++ % worker->connection_count;
    return worker->connections[index].db;
}

static void encode_key(Worker *worker, const Operation *operation)
{
    KeyShape shape = worker->bench->options->key_shape;
    if (shape == KEY_NUMBER)
        key_encode(worker->key, worker->key_size, operation->key);
    else
        key_encode_shaped(worker->key, worker->key_size, operation->key, shape);
}

/* Adds a write to the worker's batch. */
static aidb_status add_to_batch(Worker *worker, const Operation *operation)
{
    encode_key(worker, operation);
    if (operation->kind == OPERATION_DELETE) {
        worker->bytes += worker->key_size;
        return aidb_batch_delete(worker->batch, worker->key, worker->key_size);
    }
    size_t size = worker->bench->options->value_size;
    const void *value = value_pool_next(&worker->bench->values, &worker->value_position, size);
    worker->bytes += worker->key_size + size;
    return aidb_batch_put(worker->batch, worker->key, worker->key_size, value, size);
}

static void count_found(Worker *worker, const aidb_value *value)
{
    worker->found++;
    worker->bytes += worker->key_size + value->size;
}

/* --- One by one ------------------------------------------------------------------------------ */

static aidb_status do_get(Worker *worker, aidb *db)
{
    aidb_status status = aidb_get(db, NULL, worker->key, worker->key_size, &worker->value);
    if (status == AIDB_OK)
        count_found(worker, &worker->value);
    return status == AIDB_NOT_FOUND ? AIDB_OK : status;
}

/* A write without a wish of its own goes the short way, as most programs write. */
static aidb_status do_write(Worker *worker, aidb *db, const Operation *operation)
{
    aidb_durability wanted = durability(worker);
    if (wanted == AIDB_DEFAULT) {
        if (operation->kind == OPERATION_DELETE) {
            worker->bytes += worker->key_size;
            return aidb_delete(db, worker->key, worker->key_size);
        }
        size_t size = worker->bench->options->value_size;
        const void *value = value_pool_next(&worker->bench->values, &worker->value_position, size);
        worker->bytes += worker->key_size + size;
        return aidb_put(db, worker->key, worker->key_size, value, size);
    }
    aidb_batch_clear(worker->batch);
    aidb_status status = add_to_batch(worker, operation);
    return status == AIDB_OK ? aidb_write(db, worker->batch, wanted, NULL) : status;
}

static void count_entry(Worker *worker, const aidb_entry *entry)
{
    worker->bytes += entry->key_size + entry->value_size;
}

/* Like db_bench, found means that the very key that was sought is there. */
static aidb_status do_seek(Worker *worker, aidb *db, uint64_t nexts)
{
    aidb_scan scan = {.limit = nexts + 1};
    aidb_iter *iter = NULL;
    const aidb_entry *entry = NULL;
    aidb_status status = aidb_iter_create(db, NULL, &scan, &iter);
    if (status == AIDB_OK)
        status = aidb_iter_seek(iter, AIDB_SEEK_GE, worker->key, worker->key_size, &entry);
    if (status == AIDB_OK && entry != NULL && entry->key_size == worker->key_size &&
        memcmp(entry->key, worker->key, worker->key_size) == 0)
        worker->found++;
    while (status == AIDB_OK && entry != NULL) {
        count_entry(worker, entry);
        if (nexts-- == 0)
            break;
        status = aidb_iter_next(iter, &entry);
    }
    aidb_iter_destroy(iter);
    return status;
}

/* Found means that there was anything to read. */
static aidb_status do_scan(Worker *worker, aidb *db, uint64_t length)
{
    aidb_scan scan = {.range.from = {worker->key, worker->key_size}, .limit = length};
    aidb_iter *iter = NULL;
    const aidb_entry *entry = NULL;
    aidb_status status = aidb_iter_create(db, NULL, &scan, &iter);
    for (uint64_t i = 0; i < length && status == AIDB_OK; i++) {
        status = aidb_iter_next(iter, &entry);
        if (status != AIDB_OK || entry == NULL)
            break;
        count_entry(worker, entry);
        if (i == 0)
            worker->found++;
    }
    aidb_iter_destroy(iter);
    return status;
}

/* A connection of its own, one get on it, and its end. */
static aidb_status do_connect(Worker *worker)
{
    aidb_option settings[] = {{"application", "aidbbench"}, {NULL, NULL}};
    aidb *db = NULL;
    aidb_status status = aidb_open(worker->bench->options->db, settings, &db);
    if (status == AIDB_OK)
        status = do_get(worker, db);
    if (status != AIDB_OK)
        fail(worker, status); /* before closing loses the message */
    aidb_status closed = aidb_close(db);
    return status == AIDB_OK ? closed : status;
}

static aidb_status do_operation(Worker *worker, const Operation *operation)
{
    aidb *db = next_connection(worker);
    aidb_status status = AIDB_OK;
    encode_key(worker, operation);
    switch (operation->kind) {
    case OPERATION_GET:
        return do_get(worker, db);
    case OPERATION_CONNECT:
        return do_connect(worker);
    case OPERATION_PUT:
    case OPERATION_DELETE:
        return do_write(worker, db, operation);
    case OPERATION_INSERT:
        status = do_write(worker, db, operation);
        atomic_fetch_add_explicit(&worker->bench->inserted, 1, memory_order_relaxed);
        return status;
    case OPERATION_SEEK:
        return do_seek(worker, db, operation->count);
    case OPERATION_SCAN:
        return do_scan(worker, db, operation->count);
    case OPERATION_MODIFY:
        status = do_get(worker, db);
        return status == AIDB_OK ? do_write(worker, db, operation) : status;
    }
    return status;
}

static void sleep_until(uint64_t when_ns)
{
    struct timespec when = {.tv_sec = (time_t)(when_ns / UINT64_C(1000000000)),
                            .tv_nsec = (long)(when_ns % UINT64_C(1000000000))};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

/* Holds the writer beside the readers to its rate. */
static void hold_rate(Worker *worker, uint64_t bytes_per_second)
{
    double due_s = (double)worker->bytes / (double)bytes_per_second;
    uint64_t due_ns = worker->begin_ns + (uint64_t)(due_s * 1e9);
    if (due_ns > worker->last_ns + WRITER_AHEAD_NS) {
        sleep_until(due_ns);
        worker->last_ns = clock_now();
    }
}

static void run_one_by_one(Worker *worker)
{
    uint64_t rate = worker->beside ? worker->bench->options->write_rate : 0;
    while (more(worker)) {
        Operation operation;
        worker->next(worker, &operation);
        worker->issued++;
        aidb_status status = do_operation(worker, &operation);
        if (status != AIDB_OK) {
            fail(worker, status);
            return;
        }
        finish(worker, 1);
        if (rate != 0)
            hold_rate(worker, rate);
    }
}

/* --- Batched --------------------------------------------------------------------------------- */

static uint64_t batch_size(const Worker *worker)
{
    uint64_t left = worker->limit - worker->issued;
    uint64_t wanted = worker->bench->options->batch;
    return left < wanted ? left : wanted;
}

/* Fills the worker's batch with the next operations, all of them writes. */
static aidb_status fill_batch(Worker *worker, uint64_t *ops)
{
    *ops = batch_size(worker);
    aidb_batch_clear(worker->batch);
    aidb_status status = AIDB_OK;
    for (uint64_t i = 0; i < *ops && status == AIDB_OK; i++) {
        Operation operation;
        worker->next(worker, &operation);
        worker->issued++;
        status = add_to_batch(worker, &operation);
    }
    return status;
}

static void run_batched_writes(Worker *worker)
{
    while (more(worker)) {
        uint64_t ops;
        aidb_status status = fill_batch(worker, &ops);
        if (status == AIDB_OK) {
            aidb *db = next_connection(worker);
            status = aidb_write(db, worker->batch, durability(worker), NULL);
        }
        if (status != AIDB_OK) {
            fail(worker, status);
            return;
        }
        finish(worker, ops);
    }
}

/* Fills the worker's keys with those of the next operations, all of them gets. */
static uint64_t fill_keys(Worker *worker)
{
    uint64_t ops = batch_size(worker);
    for (uint64_t i = 0; i < ops; i++) {
        Operation operation;
        worker->next(worker, &operation);
        worker->issued++;
        key_encode_shaped(worker->key_bytes + i * worker->key_size, worker->key_size, operation.key,
                          worker->bench->options->key_shape);
    }
    return ops;
}

static void count_values(Worker *worker, uint64_t ops, const aidb_value *values)
{
    for (uint64_t i = 0; i < ops; i++) {
        if (values[i].lsn != 0)
            count_found(worker, &values[i]);
    }
}

static void run_batched_reads(Worker *worker)
{
    while (more(worker)) {
        uint64_t ops = fill_keys(worker);
        aidb_status status =
            aidb_multi_get(next_connection(worker), NULL, ops, worker->keys, worker->values);
        if (status != AIDB_OK) {
            fail(worker, status);
            break;
        }
        count_values(worker, ops, worker->values);
        finish(worker, ops);
    }
}

/* --- Pipelined ------------------------------------------------------------------------------- */

static void request_done(Connection *connection, aidb_status status, uint64_t ops)
{
    Worker *worker = connection->worker;
    connection->under_way--;
    if (status != AIDB_OK) {
        fail(worker, status);
        return;
    }
    worker->last_ns = clock_now();
    histogram_record(&worker->histogram, worker->last_ns - connection->sent_ns);
    count(worker, ops);
}

static void get_done(void *arg, aidb_status status, const aidb_value *value,
                     const aidb_commit *commit)
{
    (void)commit;
    Connection *connection = arg;
    if (status == AIDB_OK && value != NULL)
        count_found(connection->worker, value);
    request_done(connection, status == AIDB_NOT_FOUND ? AIDB_OK : status, 1);
}

/* Answers come in order and all multi-gets are full but the last one of a worker, so what is under way
 * tells how many keys this one had. */
static void multi_get_done(void *arg, aidb_status status, const aidb_value *value,
                           const aidb_commit *commit)
{
    (void)commit;
    Connection *connection = arg;
    uint64_t batch = connection->worker->bench->options->batch;
    uint64_t ops = connection->keys < batch ? connection->keys : batch;
    connection->keys -= ops;
    if (status == AIDB_OK)
        count_values(connection->worker, ops, value);
    request_done(connection, status, ops);
}

static void write_done(void *arg, aidb_status status, const aidb_value *value,
                       const aidb_commit *commit)
{
    (void)value;
    (void)commit;
    request_done(arg, status, 1);
}

static void insert_done(void *arg, aidb_status status, const aidb_value *value,
                        const aidb_commit *commit)
{
    const Connection *connection = arg;
    atomic_fetch_add_explicit(&connection->worker->bench->inserted, 1, memory_order_relaxed);
    write_done(arg, status, value, commit);
}

/* All batches are full but the last one of a worker, which is counted when it is sent. */
static void batch_done(void *arg, aidb_status status, const aidb_value *value,
                       const aidb_commit *commit)
{
    (void)value;
    (void)commit;
    request_done(arg, status, 0);
}

static aidb_status send_request(Worker *worker, Connection *connection)
{
    aidb_request request = {.durability = durability(worker), .arg = connection};
    if (reads_batches(worker)) {
        request.keys = worker->keys;
        request.key_count = fill_keys(worker);
        request.done = multi_get_done;
        connection->keys += request.key_count;
        return aidb_submit(connection->db, &request);
    }
    if (writes_batches(worker)) {
        uint64_t ops;
        aidb_status status = fill_batch(worker, &ops);
        if (status != AIDB_OK)
            return status;
        request.batch = worker->batch;
        request.done = batch_done;
        count(worker, ops);
        return aidb_submit(connection->db, &request);
    }

    Operation operation;
    worker->next(worker, &operation);
    worker->issued++;
    if (operation.kind == OPERATION_GET) {
        encode_key(worker, &operation);
        request.key = (aidb_key){worker->key, worker->key_size};
        request.done = get_done;
        return aidb_submit(connection->db, &request);
    }
    aidb_batch_clear(worker->batch);
    aidb_status status = add_to_batch(worker, &operation);
    if (status != AIDB_OK)
        return status;
    request.batch = worker->batch;
    request.done = operation.kind == OPERATION_INSERT ? insert_done : write_done;
    return aidb_submit(connection->db, &request);
}

static aidb_status send_burst(Worker *worker, Connection *connection)
{
    uint64_t pipeline = worker->bench->options->pipeline;
    aidb_status status = AIDB_OK;
    connection->sent_ns = clock_now();
    for (uint64_t i = 0; i < pipeline && status == AIDB_OK && worker->issued < worker->limit; i++) {
        connection->under_way++; /* it may be answered inside the call */
        status = send_request(worker, connection);
    }
    /* Nothing to wait for: this only makes sure that the requests are on their way. */
    return status == AIDB_OK ? aidb_wait(connection->db, pipeline) : status;
}

static void run_one_pipeline(Worker *worker)
{
    Connection *connection = &worker->connections[0];
    aidb_status status = AIDB_OK;
    while (more(worker) && status == AIDB_OK) {
        status = send_burst(worker, connection);
        if (status == AIDB_OK)
            status = aidb_wait(connection->db, 0);
    }
    if (status != AIDB_OK)
        fail(worker, status);
}

/* Gives a connection that has all its answers the next burst. Answers may come while it is sent. */
static aidb_status keep_busy(Worker *worker, Connection *connection)
{
    aidb_status status = AIDB_OK;
    while (status == AIDB_OK && connection->under_way == 0 && more(worker))
        status = send_burst(worker, connection);
    return status;
}

static aidb_status begin_pipelines(Worker *worker, int epoll_fd)
{
    for (size_t i = 0; i < worker->connection_count; i++) {
        Connection *connection = &worker->connections[i];
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = connection};
        char *socket = NULL;
        aidb_status status = aidb_property(connection->db, "socket", &socket);
        if (status == AIDB_OK)
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, atoi(socket), &event);
        aidb_free(socket);
        if (status == AIDB_OK)
            status = keep_busy(worker, connection);
        if (status != AIDB_OK)
            return status;
    }
    return AIDB_OK;
}

static aidb_status take_answers(Worker *worker, Connection *connection)
{
    aidb_status status = aidb_wait(connection->db, SIZE_MAX);
    return status == AIDB_OK ? keep_busy(worker, connection) : status;
}

static void run_pipelines(Worker *worker, int epoll_fd)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    aidb_status status = begin_pipelines(worker, epoll_fd);
    while (status == AIDB_OK && more(worker)) {
        int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < count && status == AIDB_OK; i++)
            status = take_answers(worker, events[i].data.ptr);
    }
    for (size_t i = 0; i < worker->connection_count && status == AIDB_OK; i++)
        status = aidb_wait(worker->connections[i].db, 0);
    if (status != AIDB_OK)
        fail(worker, status);
}

static void run_pipelined(Worker *worker)
{
    if (worker->connection_count == 1) {
        run_one_pipeline(worker);
        return;
    }
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run_pipelines(worker, epoll_fd);
    close(epoll_fd);
}

/* --- Other shapes ---------------------------------------------------------------------------- */

static void run_iteration(Worker *worker)
{
    bool forward = worker->workload->shape == SHAPE_FORWARD;
    aidb_iter *iter = NULL;
    aidb_status status = aidb_iter_create(next_connection(worker), NULL, NULL, &iter);
    while (status == AIDB_OK && more(worker)) {
        const aidb_entry *entry = NULL;
        status = forward ? aidb_iter_next(iter, &entry) : aidb_iter_prev(iter, &entry);
        if (status != AIDB_OK || entry == NULL)
            break;
        worker->issued++;
        worker->found++;
        count_entry(worker, entry);
        finish(worker, 1);
    }
    if (status != AIDB_OK)
        fail(worker, status);
    aidb_iter_destroy(iter);
}

static void run_compaction(Worker *worker)
{
    aidb *db = next_connection(worker);
    aidb_status status = aidb_control(db, "compact", NULL);
    if (status == AIDB_OK)
        status = aidb_control(db, "compact_wait", NULL);
    if (status != AIDB_OK)
        fail(worker, status);
    else
        finish(worker, 1);
}

static void run_operations(Worker *worker)
{
    const Options *options = worker->bench->options;
    const Workload *workload = worker->workload;
    if (workload->one_by_one || worker->beside)
        run_one_by_one(worker);
    else if (options->pipeline > 1 || worker->connection_count > 1)
        run_pipelined(worker);
    else if (reads_batches(worker))
        run_batched_reads(worker);
    else if (writes_batches(worker))
        run_batched_writes(worker);
    else
        run_one_by_one(worker);
}

void worker_run(Worker *worker)
{
    worker->begin_ns = worker->last_ns = clock_now();
    worker->deadline_ns =
        worker->duration_ns == 0 ? UINT64_MAX : worker->begin_ns + worker->duration_ns;
    switch (worker->workload->shape) {
    case SHAPE_OPERATIONS:
        run_operations(worker);
        break;
    case SHAPE_FORWARD:
    case SHAPE_REVERSE:
        run_iteration(worker);
        break;
    case SHAPE_COMPACT:
        run_compaction(worker);
        break;
    }
    worker->end_ns = clock_now();
}
