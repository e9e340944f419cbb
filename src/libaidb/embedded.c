/*
 * embedded.c - the driver for a directory: the engine inside this process.
 *
 * The background duties that a server gives to processes are threads here, driving the same steps.
 * A call of the API borrows a session from a small pool for its duration; a thread tries the one it
 * had last first, so that a busy thread keeps its open files and its slot's cache lines.
 *
 * The directory is locked by flock on postmaster.pid, as a server does, so that one store is never
 * open twice. The lock belongs to the open file: closing the descriptor in a forked child does not
 * end it.
 */
#include "config.h"

#include "libaidb/libaidb_internal.h"

#include "config/pidfile.h"
#include "config/settings.h"
#include "engine/db/db.h"
#include "io/io.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define POOL_SESSIONS 64u
#define PENDING_MAX   256u
#define CHUNK_ROOM    1024u /* of a chunk of rows, at first */
#define PLACES_MAX    64u   /* of scans, kept between their chunks: each may hold a MiB */
#define THREADS_MAX   (3u + CONFIG_COMPACTORS_MAX)

typedef struct PoolPlace {
    _Alignas(PORT_CACHE_LINE) _Atomic uint32_t busy;
    Session *session; /* made when first borrowed */
} PoolPlace;

typedef struct Worker {
    pthread_t thread;
    Session *session;
    struct Embedded *owner;
    bool started;
} Worker;

/* A write that was submitted and is visible, but not known to be durable. */
typedef struct PendingWrite {
    void (*done)(void *arg, aidb_status status, const aidb_value *value, const aidb_commit *commit);
    void *arg;
    aidb_commit commit;
} PendingWrite;

typedef struct Embedded {
    Db *db;
    Config config;
    PidFile lock;
    char *directory;
    PoolPlace pool[POOL_SESSIONS];
    Worker workers[THREADS_MAX];
    uint32_t worker_count;
    _Atomic bool stop;
    _Atomic uint32_t places; /* of scans, that are kept */

    pthread_mutex_t pending_mutex;
    PendingWrite pending[PENDING_MAX];
    size_t pending_count;
    uint64_t pending_end;               /* greatest end of them */
    aidb_durability pending_durability; /* strongest of them */
} Embedded;

static _Thread_local uint32_t last_place;

/* ---- sessions ------------------------------------------------------------------------------- */

static Status session_borrow(Embedded *store, PoolPlace **borrowed)
{
    *borrowed = NULL;
    for (uint32_t tries = 0;; tries++) {
        PoolPlace *place = &store->pool[(last_place + tries) % POOL_SESSIONS];
        if (atomic_load_explicit(&place->busy, memory_order_relaxed) == 0 &&
            atomic_exchange_explicit(&place->busy, 1, memory_order_acquire) == 0) {
            if (place->session == NULL) {
                Status status =
                    db_session_create(store->db, UINT32_MAX, SLOT_THREAD, &place->session);
                if (status != AIDB_OK) {
                    atomic_store_explicit(&place->busy, 0, memory_order_release);
                    return status;
                }
            }
            atomic_store_explicit(&db_session_slot(place->session)->interrupt, 0,
                                  memory_order_relaxed);
            last_place = (uint32_t)(place - store->pool);
            *borrowed = place;
            return AIDB_OK;
        }
        if (tries % POOL_SESSIONS == POOL_SESSIONS - 1)
            sched_yield(); /* more threads inside than sessions */
    }
}

static void session_return(PoolPlace *place)
{
    atomic_store_explicit(&place->busy, 0, memory_order_release);
}

/* ---- reading -------------------------------------------------------------------------------- */

static Status embedded_get(void *state, uint64_t snapshot, Slice key, aidb_value *value)
{
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(state, &place));
    uint64_t at;
    Status status = db_read_begin(place->session, snapshot, &at);
    if (status == AIDB_OK) {
        Entry entry;
        status = db_read_get(place->session, key, &entry);
        if (status == AIDB_OK)
            status = libaidb_value_set(value, entry.value, entry.lsn);
        db_read_end(place->session);
    }
    session_return(place);
    return status;
}

/* Keys looked up in one go; more go in several, inside the same read section. */
#define MULTI_GET_STEP 64

static Status multi_get_step(Session *session, size_t count, const aidb_key *keys,
                             aidb_value *values)
{
    Slice slices[MULTI_GET_STEP];
    Entry entries[MULTI_GET_STEP];
    for (size_t i = 0; i < count; i++)
        slices[i] = slice_make(keys[i].data, keys[i].size);
    RETURN_IF_FAILED(db_read_multi_get(session, count, slices, entries));
    for (size_t i = 0; i < count; i++)
        RETURN_IF_FAILED(libaidb_value_set(&values[i], entries[i].value, entries[i].lsn));
    return AIDB_OK;
}

static Status multi_get(Session *session, uint64_t snapshot, size_t count, const aidb_key *keys,
                        aidb_value *values)
{
    uint64_t at;
    RETURN_IF_FAILED(db_read_begin(session, snapshot, &at));
    Status status = AIDB_OK;
    for (size_t i = 0; status == AIDB_OK && i < count; i += MULTI_GET_STEP) {
        size_t step = count - i < MULTI_GET_STEP ? count - i : MULTI_GET_STEP;
        status = multi_get_step(session, step, keys + i, values + i);
    }
    db_read_end(session);
    return status;
}

static Status embedded_multi_get(void *state, uint64_t snapshot, size_t count, const aidb_key *keys,
                                 aidb_value *values)
{
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(state, &place));
    Status status = multi_get(place->session, snapshot, count, keys, values);
    session_return(place);
    return status;
}

typedef struct ChunkFill {
    const ScanRequest *request;
    RowChunk *chunk;
    Status status;
} ChunkFill;

static bool fill_row(void *arg, const Entry *entry)
{
    ChunkFill *fill = arg;
    fill->status = row_chunk_add(fill->chunk, entry);
    return fill->status == AIDB_OK && fill->chunk->count < fill->request->rows_max &&
           fill->chunk->bytes.size < fill->request->bytes_max;
}

static void embedded_scan_forget(void *state, void *place)
{
    Embedded *store = state;
    db_cursor_destroy(place);
    atomic_fetch_sub_explicit(&store->places, 1, memory_order_relaxed);
}

/* The place of the chunk before, or room for this one's; NULL: it is not to be kept, or there are too many. */
static DbCursor *scan_place(Embedded *store, const ScanRequest *request)
{
    if (request->place == NULL)
        return NULL;
    if (*request->place == NULL) {
        DbCursor *cursor = NULL;
        if (atomic_fetch_add_explicit(&store->places, 1, memory_order_relaxed) < PLACES_MAX)
            cursor = db_cursor_create();
        if (cursor == NULL)
            atomic_fetch_sub_explicit(&store->places, 1, memory_order_relaxed);
        *request->place = cursor;
    }
    return *request->place;
}

static Status embedded_scan(void *state, uint64_t snapshot, const ScanRequest *request,
                            RowChunk *chunk)
{
    PoolPlace *place;
    /* Instead of doubling from nothing on. */
    RETURN_IF_FAILED(buffer_reserve(&chunk->bytes, request->rows_max > 1 ? CHUNK_ROOM : 0));
    RETURN_IF_FAILED(session_borrow(state, &place));
    ChunkFill fill = {.request = request, .chunk = chunk};
    DbScan scan = {.from = request->from,
                   .to = request->to,
                   .reverse = request->reverse,
                   .keys_only = request->keys_only,
                   .walked = request->walked,
                   .cursor = scan_place(state, request)};
    uint64_t at;
    Status status = db_scan(place->session, snapshot, &scan, fill_row, &fill, &chunk->ended, &at);
    session_return(place);
    if (scan.cursor != NULL && !db_cursor_stands(scan.cursor)) {
        embedded_scan_forget(state, scan.cursor);
        *request->place = NULL;
    }
    return status != AIDB_OK ? status : fill.status;
}

/* A snapshot must outlive the call that made it and any session that a thread borrows: it is kept in
 * the slot of the first place of the pool with room, and looked up there again. */
static Status embedded_snapshot_acquire(void *state, uint64_t *lsn)
{
    Embedded *store = state;
    Status status = AIDB_OK;
    *lsn = 0;
    for (uint32_t tries = 0; tries < POOL_SESSIONS; tries++) {
        PoolPlace *place;
        RETURN_IF_FAILED(session_borrow(store, &place));
        status = db_snapshot_acquire(place->session, lsn);
        session_return(place);
        if (status != AIDB_LIMIT)
            return status;
        last_place = (last_place + 1) % POOL_SESSIONS;
    }
    return status;
}

static void embedded_snapshot_release(void *state, uint64_t lsn)
{
    Embedded *store = state;
    SlotTable *slots = db_slots(store->db);
    for (uint32_t s = 0; s < slots->count; s++) {
        if (atomic_load(&slots->slots[s].kind) != SLOT_THREAD)
            continue;
        for (int i = 0; i < SLOT_SNAPSHOTS; i++) {
            uint64_t expected = lsn;
            if (atomic_compare_exchange_strong(&slots->slots[s].snapshots[i], &expected,
                                               SNAPSHOT_NONE))
                return;
        }
    }
}

static Status count_range(Embedded *store, PoolPlace *place, uint64_t snapshot, Slice from,
                          Slice to, uint64_t *count)
{
    uint64_t registered = 0;
    if (snapshot == SNAPSHOT_NOW) {
        RETURN_IF_FAILED(db_snapshot_acquire(place->session, &registered));
        snapshot = registered;
    }
    Status status = db_count(place->session, snapshot, from, to, count);
    /* Not by the session: another snapshot at this LSN may have been released in its place. */
    if (registered != 0)
        embedded_snapshot_release(store, registered);
    return status;
}

static Status embedded_measure(void *state, uint64_t snapshot, Slice from, Slice to,
                               uint64_t *count, uint64_t *bytes)
{
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(state, &place));
    Status status = AIDB_OK;
    if (count != NULL)
        status = count_range(state, place, snapshot, from, to, count);
    if (status == AIDB_OK && bytes != NULL)
        status = db_approximate_size(place->session, from, to, bytes);
    session_return(place);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

static Status write_visible(PoolPlace *place, const Batch *batch, aidb_commit *commit,
                            uint64_t *end)
{
    DbWrite write = {.ops = buffer_slice(&batch->ops),
                     .op_count = batch->op_count,
                     .range_count = batch->range_count,
                     .expectations = buffer_slice(&batch->expectations),
                     .expectation_count = batch->expectation_count};
    DbCommit done;
    Status status = db_write(place->session, &write, &done);
    commit->lsn = done.lsn;
    commit->failed_expectation = done.failed_expectation;
    commit->present_version = done.present_version;
    *end = done.end;
    return status;
}

static Status embedded_write(void *state, const Batch *batch, aidb_durability durability,
                             aidb_commit *commit)
{
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(state, &place));
    uint64_t end;
    Status status = write_visible(place, batch, commit, &end);
    if (status == AIDB_OK)
        status = db_wait(place->session, end, durability);
    if (status == AIDB_UNKNOWN)
        status = libaidb_write_unknown();
    session_return(place);
    return status;
}

/* Waits once for all pending writes and answers them in order. Mutex held. */
static Status answer_pending(Embedded *store, PoolPlace *place)
{
    if (store->pending_count == 0)
        return AIDB_OK;
    Status status = db_wait(place->session, store->pending_end, store->pending_durability);
    if (status == AIDB_UNKNOWN)
        status = libaidb_write_unknown();
    for (size_t i = 0; i < store->pending_count; i++)
        if (store->pending[i].done != NULL)
            store->pending[i].done(store->pending[i].arg, status, NULL, &store->pending[i].commit);
    store->pending_count = 0;
    store->pending_end = 0;
    store->pending_durability = AIDB_ASYNC;
    return AIDB_OK;
}

static Status submit_write(Embedded *store, PoolPlace *place, const aidb_request *request)
{
    aidb_durability durability =
        request->durability != AIDB_DEFAULT ? request->durability : store->config.engine.durability;
    PendingWrite pending = {.done = request->done, .arg = request->arg};
    uint64_t end;
    Status status = write_visible(place, libaidb_batch(request->batch), &pending.commit, &end);
    if (status != AIDB_OK) {
        RETURN_IF_FAILED(answer_pending(store, place));
        if (request->done != NULL)
            request->done(request->arg, status, NULL, &pending.commit);
        return AIDB_OK;
    }
    store->pending[store->pending_count++] = pending;
    if (end > store->pending_end)
        store->pending_end = end;
    if (durability > store->pending_durability)
        store->pending_durability = durability;
    return store->pending_count == PENDING_MAX ? answer_pending(store, place) : AIDB_OK;
}

static Status submit_get(Embedded *store, PoolPlace *place, const aidb_request *request)
{
    RETURN_IF_FAILED(answer_pending(store, place));
    uint64_t at;
    Status status = db_read_begin(place->session, DB_NOW, &at);
    if (status != AIDB_OK) {
        if (request->done != NULL)
            request->done(request->arg, status, NULL, NULL);
        return AIDB_OK;
    }
    Entry entry;
    status = db_read_get(place->session, slice_make(request->key.data, request->key.size), &entry);
    /* The value is copied out: a callback may take its time, and nothing is pinned meanwhile. */
    aidb_value value = {0};
    if (status == AIDB_OK)
        status = libaidb_value_set(&value, entry.value, entry.lsn);
    db_read_end(place->session);
    if (request->done != NULL)
        request->done(request->arg, status, &value, NULL);
    free(value.data);
    return AIDB_OK;
}

static Status submit_multi_get(Embedded *store, PoolPlace *place, const aidb_request *request)
{
    size_t count = request->key_count;
    aidb_value *values = calloc(count, sizeof *values);
    if (values == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = answer_pending(store, place);
    if (status == AIDB_OK) {
        Status got = multi_get(place->session, DB_NOW, count, request->keys, values);
        request->done(request->arg, got, got == AIDB_OK ? values : NULL, NULL);
    }
    for (size_t i = 0; i < count; i++)
        free(values[i].data);
    free(values);
    return status;
}

static Status submit_one(Embedded *store, PoolPlace *place, const aidb_request *request)
{
    if (request->batch != NULL)
        return submit_write(store, place, request);
    if (request->keys != NULL)
        return submit_multi_get(store, place, request);
    return submit_get(store, place, request);
}

static Status embedded_submit(void *state, const aidb_request *request)
{
    Embedded *store = state;
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(store, &place));
    pthread_mutex_lock(&store->pending_mutex);
    Status status = submit_one(store, place, request);
    pthread_mutex_unlock(&store->pending_mutex);
    session_return(place);
    return status;
}

static Status embedded_wait(void *state, size_t pending)
{
    Embedded *store = state;
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(store, &place));
    pthread_mutex_lock(&store->pending_mutex);
    Status status = store->pending_count > pending ? answer_pending(store, place) : AIDB_OK;
    pthread_mutex_unlock(&store->pending_mutex);
    session_return(place);
    return status;
}

/* ---- administration ------------------------------------------------------------------------- */

static Status embedded_property(void *state, const char *name, Buffer *text)
{
    Embedded *store = state;
    if (strcmp(name, "config") == 0)
        return config_show(&store->config, text);
    if (strcmp(name, "backends") == 0)
        return status_set(AIDB_UNSUPPORTED, "a directory opened by a program has no backends");
    if (strcmp(name, "socket") == 0)
        return status_set(AIDB_UNSUPPORTED, "a directory opened by a program has no socket");
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(store, &place));
    Status status = db_property(place->session, name, text);
    session_return(place);
    return status;
}

static Status embedded_control(void *state, const char *command, Slice from, Slice to)
{
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(state, &place));
    Status status;
    if (strcmp(command, "flush") == 0)
        status = db_flush(place->session);
    else if (strcmp(command, "compact") == 0)
        status = db_compact(place->session, from, to);
    else if (strcmp(command, "compact_wait") == 0)
        status = db_compact_wait(place->session);
    else if (strncmp(command, "terminate", 9) == 0)
        status = status_set(AIDB_UNSUPPORTED,
                            "a directory opened by a program has no backends to terminate");
    else
        status = status_set(AIDB_INVALID, "there is no command \"%s\"", command);
    session_return(place);
    return status;
}

static void embedded_cancel(void *state)
{
    Embedded *store = state;
    SlotTable *slots = db_slots(store->db);
    for (uint32_t i = 0; i < slots->count; i++)
        if (atomic_load_explicit(&slots->slots[i].kind, memory_order_relaxed) == SLOT_THREAD)
            atomic_fetch_or(&slots->slots[i].interrupt, SLOT_INTERRUPT_CANCEL);
}

/* ---- background threads --------------------------------------------------------------------- */

static void *worker_main(void *arg)
{
    Worker *worker = arg;
    Slot *slot = db_session_slot(worker->session);
    while (!atomic_load(&worker->owner->stop)) {
        int wait_ms = 0;
        /* What goes wrong is tried again, or has marked the store failed: callers are told then. */
        Status status = db_step(worker->session, &wait_ms);
        if (status != AIDB_OK && wait_ms < 100)
            wait_ms = 100;
        if (wait_ms != 0 && !atomic_load(&worker->owner->stop))
            latch_wait(slot, -1, wait_ms);
    }
    return NULL;
}

static Status worker_start(Embedded *store, SlotKind kind)
{
    Worker *worker = &store->workers[store->worker_count];
    worker->owner = store;
    RETURN_IF_FAILED(db_session_create(store->db, UINT32_MAX, kind, &worker->session));
    store->worker_count++;
    /* Signals are the host's: none is delivered to a thread of the library. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return status_set_errno(err, "could not start a background thread");
    worker->started = true;
    return AIDB_OK;
}

static void workers_stop(Embedded *store)
{
    atomic_store(&store->stop, true);
    for (uint32_t i = 0; i < store->worker_count; i++) {
        Slot *slot = db_session_slot(store->workers[i].session);
        atomic_fetch_or(&slot->interrupt, SLOT_INTERRUPT_TERMINATE);
        latch_wake(slot);
    }
    for (uint32_t i = 0; i < store->worker_count; i++) {
        if (store->workers[i].started)
            pthread_join(store->workers[i].thread, NULL);
        db_session_destroy(store->workers[i].session);
    }
    store->worker_count = 0;
}

/* ---- opening and closing -------------------------------------------------------------------- */

static Status lock_directory(Embedded *store)
{
    RETURN_IF_FAILED(pidfile_lock(store->directory, &store->lock));
    PidInfo info = {.pid = (int)getpid(),
                    .started = port_realtime_us() / 1000000u,
                    .state = "embedded",
                    .version = AIDB_VERSION};
    return pidfile_write(&store->lock, &info);
}

/* An option that is "true" or "false". */
static Status parse_switch(const aidb_option *option, bool *value)
{
    *value = strcmp(option->value, "true") == 0;
    if (!*value && strcmp(option->value, "false") != 0)
        return status_set(AIDB_INVALID, "option \"%s\" is true or false, not \"%s\"", option->name,
                          option->value);
    return AIDB_OK;
}

static Status read_options(Embedded *store, const aidb_option *options, bool *create)
{
    bool read_config = true;
    *create = false;
    for (const aidb_option *o = options; o != NULL && o->name != NULL; o++) {
        if (o->value == NULL)
            return status_set(AIDB_INVALID, "option \"%s\" has no value", o->name);
        if (strcmp(o->name, "create") == 0)
            RETURN_IF_FAILED(parse_switch(o, create));
        else if (strcmp(o->name, "read_config") == 0)
            RETURN_IF_FAILED(parse_switch(o, &read_config));
    }
    char *path = path_join(store->directory, CONFIG_FILE_NAME);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = AIDB_OK;
    if (read_config && file_exists(path))
        status = config_load(path, &store->config);
    else
        config_init(&store->config);
    free(path);
    RETURN_IF_FAILED(status);
    for (; options != NULL && options->name != NULL; options++) {
        if (strcmp(options->name, "create") == 0 || strcmp(options->name, "read_config") == 0)
            continue;
        const Setting *setting = setting_find(options->name);
        if (setting != NULL && setting->group != GROUP_ENGINE)
            return status_set(AIDB_INVALID,
                              "option \"%s\" is a setting of the server, not of the engine",
                              options->name);
        RETURN_IF_FAILED(config_set(&store->config, options->name, options->value));
    }
    return config_check(&store->config);
}

static Status prepare_directory(Embedded *store, bool create)
{
    struct stat info;
    bool there = stat(store->directory, &info) == 0;
    if (!there && errno != ENOENT)
        return status_set_errno(errno, "could not look at \"%s\"", store->directory);
    if (there && !S_ISDIR(info.st_mode))
        return status_set(AIDB_INVALID, "\"%s\" is not a directory", store->directory);
    if (!create && (!there || !db_exists(store->directory))) {
        Status status =
            status_set(AIDB_NO_DATABASE, "there is no database in \"%s\"", store->directory);
        status_hint("Make one with aidbctl init, or open it with the option \"create\".");
        return status;
    }
    return there ? AIDB_OK : directory_create(store->directory);
}

static Status embedded_close(void *state, bool foreign)
{
    Embedded *store = state;
    Status status = AIDB_OK;
    if (store->db != NULL && !foreign) {
        PoolPlace *place = NULL;
        if (store->worker_count > 0) {
            status = session_borrow(store, &place);
            if (status == AIDB_OK) {
                pthread_mutex_lock(&store->pending_mutex);
                status = answer_pending(store, place);
                pthread_mutex_unlock(&store->pending_mutex);
            }
            workers_stop(store);
            if (status == AIDB_OK)
                status = db_stop(store->db, place->session, true);
        }
    }
    for (uint32_t i = 0; i < POOL_SESSIONS; i++) {
        if (foreign)
            db_session_abandon(store->pool[i].session);
        else
            db_session_destroy(store->pool[i].session);
    }
    for (uint32_t i = 0; foreign && i < store->worker_count; i++)
        db_session_abandon(store->workers[i].session);
    db_destroy(store->db);
    if (foreign)
        pidfile_forget(&store->lock);
    else
        pidfile_release(&store->lock);
    if (!foreign)
        pthread_mutex_destroy(&store->pending_mutex);
    free(store->directory);
    free(store);
    return status;
}

static const Driver embedded_driver = {
    .get = embedded_get,
    .multi_get = embedded_multi_get,
    .write = embedded_write,
    .snapshot_acquire = embedded_snapshot_acquire,
    .snapshot_release = embedded_snapshot_release,
    .scan = embedded_scan,
    .scan_forget = embedded_scan_forget,
    .measure = embedded_measure,
    .property = embedded_property,
    .control = embedded_control,
    .submit = embedded_submit,
    .wait = embedded_wait,
    .cancel = embedded_cancel,
    .close = embedded_close,
};

static Status start(Embedded *store, bool create)
{
    RETURN_IF_FAILED(prepare_directory(store, create));
    RETURN_IF_FAILED(lock_directory(store));
    if (!db_exists(store->directory))
        RETURN_IF_FAILED(db_create(store->directory, &store->config.engine));
    uint32_t compactors = store->config.engine.compactors;
    uint32_t slots = POOL_SESSIONS + 3 + compactors;
    RETURN_IF_FAILED(
        db_setup(store->directory, &store->config.engine, &(DbSlots){.count = slots}, &store->db));
    PoolPlace *place;
    RETURN_IF_FAILED(session_borrow(store, &place));
    Status status = db_recover(store->db, place->session);
    session_return(place);
    RETURN_IF_FAILED(status);
    RETURN_IF_FAILED(worker_start(store, SLOT_WAL_WRITER));
    RETURN_IF_FAILED(worker_start(store, SLOT_FLUSHER));
    for (uint32_t i = 0; i < compactors; i++)
        RETURN_IF_FAILED(worker_start(store, SLOT_COMPACTOR));
    if (store->config.engine.huge_pages)
        RETURN_IF_FAILED(worker_start(store, SLOT_PREPARER));
    return AIDB_OK;
}

Status embedded_open(const char *directory, const aidb_option *options, const Driver **driver,
                     void **state)
{
    Embedded *store = aligned_alloc(PORT_CACHE_LINE, sizeof *store);
    if (store == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    memset(store, 0, sizeof *store);
    store->lock.fd = -1;
    store->pending_durability = AIDB_ASYNC;
    pthread_mutex_init(&store->pending_mutex, NULL);
    bool create;
    Status status;
    store->directory = strdup(directory);
    if (store->directory == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory");
        goto out;
    }
    OUT_IF_FAILED(read_options(store, options, &create));
    OUT_IF_FAILED(start(store, create));
    *driver = &embedded_driver;
    *state = store;
    return AIDB_OK;
out:
    /* Nothing was written through this handle: leaving it as it is, is what a crash would do. */
    workers_stop(store);
    Status ignored = embedded_close(store, false);
    (void)ignored;
    return status;
}
