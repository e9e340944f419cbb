/*
 * libaidb.c - the public API: what every call of aidb.h does before and after a driver does the work.
 *
 * A handle holds its driver's state, the word that tells a forked child, and the list of snapshots and
 * iterators made from it, which aidb_close frees. Arguments are checked here, so that a mistake gives
 * the same answer on a directory and on a server.
 */
#include "config.h"

#include "libaidb/handle_internal.h"
#include "port/port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct aidb_batch {
    Batch batch;
};

/* ---- handles --------------------------------------------------------------------------------- */

Status handle_enter(const aidb *db)
{
    status_clear();
    if (db == NULL)
        return status_set(AIDB_INVALID, "the handle is NULL");
    if (atomic_load_explicit(db->owner, memory_order_relaxed) == 0)
        return status_set(AIDB_CLOSED, "the handle belongs to the process that forked this one");
    return AIDB_OK;
}

static bool is_uri(const char *name)
{
    return strncmp(name, "aidb://", 7) == 0 || strncmp(name, "aidb+", 5) == 0;
}

static void handle_free(aidb *db)
{
    port_wipe_on_fork_destroy(db->owner);
    pthread_mutex_destroy(&db->mutex);
    free(db->name);
    free(db);
}

static Status handle_create(const char *name, aidb **created)
{
    *created = NULL;
    aidb *db = calloc(1, sizeof *db);
    if (db == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    pthread_mutex_init(&db->mutex, NULL);
    db->name = strdup(name);
    db->owner = port_wipe_on_fork_create();
    if (db->name == NULL || db->owner == NULL) {
        handle_free(db);
        return status_set(AIDB_NO_MEMORY, "out of memory");
    }
    atomic_store(db->owner, 1);
    *created = db;
    return AIDB_OK;
}

aidb_status aidb_open(const char *name, const aidb_option *options, aidb **opened)
{
    status_clear();
    if (opened == NULL)
        return status_set(AIDB_INVALID, "there is no place to put the handle");
    *opened = NULL;
    if (name == NULL || name[0] == '\0')
        return status_set(AIDB_INVALID, "the name of the store is empty");
    aidb *db;
    RETURN_IF_FAILED(handle_create(name, &db));
    Status status = is_uri(name) ? remote_open(name, options, &db->driver, &db->state)
                                 : embedded_open(name, options, &db->driver, &db->state);
    if (status != AIDB_OK) {
        handle_free(db);
        return status;
    }
    *opened = db;
    return AIDB_OK;
}

aidb_status aidb_close(aidb *db)
{
    status_clear();
    if (db == NULL)
        return AIDB_OK;
    bool foreign = atomic_load(db->owner) == 0;
    while (db->iters != NULL)
        iter_unlink_and_free(db->iters);
    while (db->snapshots != NULL) {
        aidb_snapshot *next = db->snapshots->next;
        free(db->snapshots);
        db->snapshots = next;
    }
    Status status = db->driver->close(db->state, foreign);
    handle_free(db);
    return status;
}

const char *aidb_error_message(void)
{
    return status_text();
}

void aidb_free(void *memory)
{
    free(memory);
}

/* ---- argument checks ------------------------------------------------------------------------- */

static Status check_key(const void *key, size_t size)
{
    if (key == NULL || size == 0)
        return status_set(AIDB_INVALID, "the key is empty");
    if (size > AIDB_KEY_MAX)
        return status_set(AIDB_INVALID, "the key has %zu bytes, more than %u", size, AIDB_KEY_MAX);
    return AIDB_OK;
}

static Status check_keys(const aidb_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        RETURN_IF_FAILED(check_key(keys[i].data, keys[i].size));
    return AIDB_OK;
}

static Status check_value(const void *value, size_t size)
{
    if (value == NULL && size > 0)
        return status_set(AIDB_INVALID, "the value is NULL but has a size");
    if (size > AIDB_VALUE_MAX)
        return status_set(AIDB_INVALID, "the value has %zu bytes, more than %u", size,
                          AIDB_VALUE_MAX);
    return AIDB_OK;
}

static Status check_durability(aidb_durability durability)
{
    if ((int)durability < AIDB_DEFAULT || durability > AIDB_FSYNC)
        return status_set(AIDB_INVALID, "unknown durability %d", (int)durability);
    return AIDB_OK;
}

Status range_bounds(const aidb_range *range, Slice *from, Slice *to, bool *empty)
{
    *from = *to = (Slice){0};
    *empty = false;
    if (range == NULL)
        return AIDB_OK;
    if (range->from.size > AIDB_KEY_MAX || range->to.size > AIDB_KEY_MAX)
        return status_set(AIDB_INVALID, "a bound has more than %u bytes", AIDB_KEY_MAX);
    if (range->from.data != NULL)
        *from = slice_make(range->from.data, range->from.size);
    if (range->to.data != NULL) {
        *to = slice_make(range->to.data, range->to.size);
        *empty = slice_compare(*from, *to) >= 0; /* also when `to` is empty: no key is before it */
    }
    return AIDB_OK;
}

static uint64_t snapshot_lsn(const aidb_snapshot *snapshot)
{
    return snapshot != NULL ? snapshot->lsn : SNAPSHOT_NOW;
}

/* ---- values ---------------------------------------------------------------------------------- */

Status libaidb_value_set(aidb_value *value, Slice data, uint64_t lsn)
{
    if (data.size > value->capacity) {
        size_t capacity = data.size < 64 ? 64 : data.size;
        void *memory = realloc(value->data, capacity);
        if (memory == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory for a value of %zu bytes", data.size);
        value->data = memory;
        value->capacity = capacity;
    }
    if (data.size > 0)
        memcpy(value->data, data.data, data.size);
    value->size = data.size;
    value->lsn = lsn;
    return AIDB_OK;
}

aidb_status aidb_get(aidb *db, const aidb_snapshot *snapshot, const void *key, size_t key_size,
                     aidb_value *value)
{
    RETURN_IF_FAILED(handle_enter(db));
    if (value == NULL)
        return status_set(AIDB_INVALID, "there is no place to put the value");
    value->size = 0;
    value->lsn = 0;
    RETURN_IF_FAILED(check_key(key, key_size));
    return db->driver->get(db->state, snapshot_lsn(snapshot), slice_make(key, key_size), value);
}

aidb_status aidb_multi_get(aidb *db, const aidb_snapshot *snapshot, size_t count,
                           const aidb_key *keys, aidb_value *values)
{
    RETURN_IF_FAILED(handle_enter(db));
    if (count == 0)
        return AIDB_OK;
    if (keys == NULL || values == NULL)
        return status_set(AIDB_INVALID, "keys or values are NULL");
    for (size_t i = 0; i < count; i++) {
        values[i].size = 0;
        values[i].lsn = 0;
    }
    RETURN_IF_FAILED(check_keys(keys, count));
    Status status = db->driver->multi_get(db->state, snapshot_lsn(snapshot), count, keys, values);
    for (size_t i = 0; status != AIDB_OK && i < count; i++) { /* it may have got half way */
        values[i].size = 0;
        values[i].lsn = 0;
    }
    return status;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Batches of one operation up to this size are put together on the stack. */
#define SMALL_BATCH_SIZE 1024

static Status write_one(aidb *db, uint8_t type, Slice key, Slice value)
{
    uint8_t small[SMALL_BATCH_SIZE];
    size_t size = 1 + 2 * VARINT64_MAX + key.size + value.size;
    uint8_t *row = size <= sizeof small ? small : malloc(size);
    if (row == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for a batch of %zu bytes", size);
    row[0] = type;
    uint8_t *at = put_varint(row + 1, key.size);
    memcpy(at, key.data, key.size);
    at += key.size;
    if (type == OP_PUT) {
        at = put_varint(at, value.size);
        if (value.size > 0)
            memcpy(at, value.data, value.size);
        at += value.size;
    }
    const Batch batch = {.ops = {.data = row, .size = (size_t)(at - row)}, .op_count = 1};
    aidb_commit commit = {0};
    Status status = db->driver->write(db->state, &batch, AIDB_DEFAULT, &commit);
    if (row != small)
        free(row);
    return status;
}

aidb_status aidb_put(aidb *db, const void *key, size_t key_size, const void *value,
                     size_t value_size)
{
    RETURN_IF_FAILED(handle_enter(db));
    RETURN_IF_FAILED(check_key(key, key_size));
    RETURN_IF_FAILED(check_value(value, value_size));
    return write_one(db, OP_PUT, slice_make(key, key_size), slice_make(value, value_size));
}

aidb_status aidb_delete(aidb *db, const void *key, size_t key_size)
{
    RETURN_IF_FAILED(handle_enter(db));
    RETURN_IF_FAILED(check_key(key, key_size));
    return write_one(db, OP_DELETE, slice_make(key, key_size), (Slice){0});
}

aidb_status aidb_write(aidb *db, const aidb_batch *batch, aidb_durability durability,
                       aidb_commit *commit)
{
    aidb_commit unused;
    if (commit == NULL)
        commit = &unused;
    *commit = (aidb_commit){0};
    RETURN_IF_FAILED(handle_enter(db));
    if (batch == NULL)
        return status_set(AIDB_INVALID, "the batch is NULL");
    RETURN_IF_FAILED(check_durability(durability));
    Status status = db->driver->write(db->state, &batch->batch, durability, commit);
    if (status == AIDB_EXPECTATION)
        (void)status_set(status, "condition %zu of the batch was not met",
                         commit->failed_expectation);
    return status;
}

/* ---- batches --------------------------------------------------------------------------------- */

Status libaidb_write_unknown(void)
{
    char reason[512];
    size_t size = strlen(status_message());
    if (size >= sizeof reason)
        size = sizeof reason - 1;
    memcpy(reason, status_message(), size);
    reason[size] = '\0';
    (void)status_set(AIDB_UNKNOWN, "the outcome of the write is not known: %s", reason);
    status_hint("Open the store again and read to see whether it was done.");
    return AIDB_UNKNOWN;
}

const Batch *libaidb_batch(const aidb_batch *batch)
{
    return &batch->batch;
}

aidb_batch *aidb_batch_create(void)
{
    return calloc(1, sizeof(aidb_batch));
}

void aidb_batch_destroy(aidb_batch *batch)
{
    if (batch == NULL)
        return;
    batch_deinit(&batch->batch);
    free(batch);
}

void aidb_batch_clear(aidb_batch *batch)
{
    if (batch != NULL)
        batch_clear(&batch->batch);
}

static Status batch_enter(const aidb_batch *batch)
{
    status_clear();
    return batch != NULL ? AIDB_OK : status_set(AIDB_INVALID, "the batch is NULL");
}

aidb_status aidb_batch_put(aidb_batch *batch, const void *key, size_t key_size, const void *value,
                           size_t value_size)
{
    RETURN_IF_FAILED(batch_enter(batch));
    RETURN_IF_FAILED(check_key(key, key_size));
    RETURN_IF_FAILED(check_value(value, value_size));
    return batch_put(&batch->batch, slice_make(key, key_size), slice_make(value, value_size));
}

aidb_status aidb_batch_delete(aidb_batch *batch, const void *key, size_t key_size)
{
    RETURN_IF_FAILED(batch_enter(batch));
    RETURN_IF_FAILED(check_key(key, key_size));
    return batch_delete(&batch->batch, slice_make(key, key_size));
}

aidb_status aidb_batch_delete_range(aidb_batch *batch, const aidb_range *range)
{
    RETURN_IF_FAILED(batch_enter(batch));
    Slice from, to;
    bool empty;
    RETURN_IF_FAILED(range_bounds(range, &from, &to, &empty));
    return empty ? AIDB_OK : batch_delete_range(&batch->batch, from, to);
}

aidb_status aidb_batch_expect(aidb_batch *batch, const void *key, size_t key_size,
                              aidb_expect expect, uint64_t version)
{
    RETURN_IF_FAILED(batch_enter(batch));
    RETURN_IF_FAILED(check_key(key, key_size));
    if ((int)expect < AIDB_EXPECT_ABSENT || expect > AIDB_EXPECT_VERSION)
        return status_set(AIDB_INVALID, "unknown condition %d", (int)expect);
    return batch_expect(&batch->batch, slice_make(key, key_size), expect, version);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

aidb_status aidb_snapshot_create(aidb *db, aidb_snapshot **created)
{
    if (created != NULL)
        *created = NULL;
    RETURN_IF_FAILED(handle_enter(db));
    if (created == NULL)
        return status_set(AIDB_INVALID, "there is no place to put the snapshot");
    aidb_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (snapshot == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = db->driver->snapshot_acquire(db->state, &snapshot->lsn);
    if (status != AIDB_OK) {
        free(snapshot);
        return status;
    }
    snapshot->db = db;
    pthread_mutex_lock(&db->mutex);
    snapshot->next = db->snapshots;
    if (db->snapshots != NULL)
        db->snapshots->previous = snapshot;
    db->snapshots = snapshot;
    pthread_mutex_unlock(&db->mutex);
    *created = snapshot;
    return AIDB_OK;
}

void aidb_snapshot_destroy(aidb_snapshot *snapshot)
{
    if (snapshot == NULL)
        return;
    aidb *db = snapshot->db;
    if (handle_enter(db) == AIDB_OK) {
        db->driver->snapshot_release(db->state, snapshot->lsn);
        pthread_mutex_lock(&db->mutex);
        if (snapshot->previous != NULL)
            snapshot->previous->next = snapshot->next;
        else
            db->snapshots = snapshot->next;
        if (snapshot->next != NULL)
            snapshot->next->previous = snapshot->previous;
        pthread_mutex_unlock(&db->mutex);
        free(snapshot);
    }
    /* In a forked child it stays in the handle's list, whose mutex may be held by a thread that does
     * not exist here; aidb_close frees it. */
}

/* ---- numbers and administration -------------------------------------------------------------- */

aidb_status aidb_measure(aidb *db, const aidb_snapshot *snapshot, const aidb_range *range,
                         uint64_t *count, uint64_t *bytes)
{
    RETURN_IF_FAILED(handle_enter(db));
    Slice from, to;
    bool empty;
    RETURN_IF_FAILED(range_bounds(range, &from, &to, &empty));
    if (count != NULL)
        *count = 0;
    if (bytes != NULL)
        *bytes = 0;
    if (empty || (count == NULL && bytes == NULL))
        return AIDB_OK;
    return db->driver->measure(db->state, snapshot_lsn(snapshot), from, to, count, bytes);
}

static Status read_property(aidb *db, const char *name, Buffer *buffer)
{
    if (strcmp(name, "uri") == 0)
        return buffer_append_format(buffer, "%s", db->name);
    if (strcmp(name, "version") == 0 && !db->driver->is_server)
        return buffer_append_format(buffer, "%s", AIDB_VERSION);
    return db->driver->property(db->state, name, buffer);
}

aidb_status aidb_property(aidb *db, const char *name, char **text)
{
    if (text != NULL)
        *text = NULL;
    RETURN_IF_FAILED(handle_enter(db));
    if (name == NULL || text == NULL)
        return status_set(AIDB_INVALID, "the name or the place for the text is NULL");
    Buffer buffer = {0};
    Status status = read_property(db, name, &buffer);
    if (status == AIDB_OK)
        status = buffer_append_byte(&buffer, '\0');
    if (status != AIDB_OK) {
        buffer_deinit(&buffer);
        return status;
    }
    *text = (char *)buffer.data;
    return AIDB_OK;
}

aidb_status aidb_control(aidb *db, const char *command, const aidb_range *range)
{
    RETURN_IF_FAILED(handle_enter(db));
    if (command == NULL)
        return status_set(AIDB_INVALID, "the command is NULL");
    Slice from, to;
    bool empty;
    RETURN_IF_FAILED(range_bounds(range, &from, &to, &empty));
    if (empty)
        return AIDB_OK;
    return db->driver->control(db->state, command, from, to);
}

/* ---- requests that do not wait --------------------------------------------------------------- */

static Status check_submitted_keys(const aidb_key *keys, size_t count)
{
    if (count == 0)
        return status_set(AIDB_INVALID, "the multi-get has no keys");
    if (count > MULTI_GET_MAX)
        return status_set(AIDB_LIMIT, "the multi-get has %zu keys, more than %u", count,
                          MULTI_GET_MAX);
    return check_keys(keys, count);
}

aidb_status aidb_submit(aidb *db, const aidb_request *request)
{
    RETURN_IF_FAILED(handle_enter(db));
    if (request == NULL || request->done == NULL)
        return status_set(AIDB_INVALID, "the request or its function is NULL");
    if ((request->key.data != NULL) + (request->keys != NULL) + (request->batch != NULL) > 1)
        return status_set(AIDB_INVALID, "a request has a key, keys or a batch, only one of them");
    if (request->keys != NULL)
        RETURN_IF_FAILED(check_submitted_keys(request->keys, request->key_count));
    else if (request->batch == NULL)
        RETURN_IF_FAILED(check_key(request->key.data, request->key.size));
    RETURN_IF_FAILED(check_durability(request->durability));
    return db->driver->submit(db->state, request);
}

aidb_status aidb_wait(aidb *db, size_t pending)
{
    RETURN_IF_FAILED(handle_enter(db));
    return db->driver->wait(db->state, pending);
}

void aidb_cancel(aidb *db)
{
    if (db != NULL && atomic_load_explicit(db->owner, memory_order_relaxed) != 0)
        db->driver->cancel(db->state);
}
