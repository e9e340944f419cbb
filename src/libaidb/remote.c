/*
 * remote.c - the driver for a server: every call is a request and its reply on one connection.
 *
 * A mutex makes the calls of several threads follow each other. Requests that do not wait
 * (aidb_submit) and the releases of snapshots are remembered in a queue; whoever next waits for a
 * reply of its own meets theirs first, because a server answers in order, and settles them.
 *
 * When the connection is lost, a read may simply be asked again, but a write that was sent may or may
 * not have happened: it is AIDB_UNKNOWN. The handle then stays broken, for its snapshots are gone with
 * the connection; the program opens it again.
 */
#include "config.h"

#include "client/client.h"
#include "libaidb/libaidb_internal.h"

#include "config/settings.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 10000
#define PENDING_MAX        16384u /* power of two */
#define FIRST_ROWS         32u    /* a round trip costs more than these */
#define ROW_KEEP_SIZE      ((size_t)64 << 10)

typedef void (*DoneFunction)(void *arg, aidb_status status, const aidb_value *value,
                             const aidb_commit *commit);

/* A request whose reply nobody waits for by itself. */
typedef struct Pending {
    uint64_t id;
    uint32_t key_count; /* of a multi-get, else 0 */
    bool is_write;
    DoneFunction done; /* NULL: the reply is of no interest */
    void *arg;
} Pending;

typedef struct Remote {
    Client *client;
    pthread_mutex_t mutex;
    Pending *pending; /* ring of PENDING_MAX, made at the first use */
    size_t pending_first;
    size_t pending_count;
    Buffer row;         /* the keys of a multi-get on their way into a request */
    aidb_value *values; /* what `done` of a submitted one gets; room for the largest so far */
    size_t value_room;
} Remote;

/* ---- replies --------------------------------------------------------------------------------- */

static Status unexpected(Remote *remote, const Message *reply)
{
    (void)status_set(AIDB_PROTOCOL, "the server answered with %s where that makes no sense",
                     message_type_name(reply->type));
    return client_break(remote->client, AIDB_PROTOCOL);
}

static Status take_commit(Remote *remote, const Message *reply, aidb_commit *commit)
{
    if (reply->type == MESSAGE_ERROR)
        return error_take(reply);
    if (reply->type != MESSAGE_COMMIT ||
        (reply->status != AIDB_OK && reply->status != AIDB_EXPECTATION))
        return unexpected(remote, reply);
    commit->lsn = reply->lsn;
    commit->failed_expectation = (size_t)reply->count;
    commit->present_version = reply->version;
    return (Status)reply->status;
}

/* The value borrows from the reply. */
static Status take_value(Remote *remote, const Message *reply, aidb_value *value)
{
    if (reply->type == MESSAGE_ERROR)
        return error_take(reply);
    if (reply->type != MESSAGE_VALUE)
        return unexpected(remote, reply);
    value->data = (void *)(uintptr_t)reply->value.data;
    value->size = reply->value.size;
    value->lsn = reply->version;
    return reply->version != 0 ? AIDB_OK : AIDB_NOT_FOUND;
}

/* The next value of a row of them, borrowed. */
static bool next_value(Slice row, size_t *cursor, aidb_value *value)
{
    bool damaged;
    Slice data;
    if (!value_row_next(row, cursor, &value->lsn, &data, &damaged))
        return false;
    value->data = (void *)(uintptr_t)data.data;
    value->size = data.size;
    value->capacity = 0;
    return true;
}

static Status settle_multi_get(Remote *remote, const Pending *pending, const Message *reply)
{
    Status status = AIDB_OK;
    size_t cursor = 0, i = 0;
    if (reply->type == MESSAGE_VALUES)
        while (i < pending->key_count && next_value(reply->row, &cursor, &remote->values[i]))
            i++;
    if (reply->type == MESSAGE_ERROR)
        status = error_take(reply);
    else if (i < pending->key_count || cursor != reply->row.size)
        status = unexpected(remote, reply);
    pending->done(pending->arg, status, status == AIDB_OK ? remote->values : NULL, NULL);
    return status == AIDB_PROTOCOL ? status : AIDB_OK;
}

static Status settle_one(Remote *remote, const Pending *pending, const Message *reply)
{
    if (pending->done == NULL)
        return AIDB_OK;
    if (pending->key_count > 0)
        return settle_multi_get(remote, pending, reply);
    if (pending->is_write) {
        aidb_commit commit = {0};
        Status status = take_commit(remote, reply, &commit);
        pending->done(pending->arg, status, NULL, &commit);
        return status == AIDB_PROTOCOL ? status : AIDB_OK;
    }
    aidb_value value = {0};
    Status status = take_value(remote, reply, &value);
    pending->done(pending->arg, status, &value, NULL);
    return status == AIDB_PROTOCOL ? status : AIDB_OK;
}

static bool pop_pending(Remote *remote, Pending *pending)
{
    if (remote->pending_count == 0)
        return false;
    *pending = remote->pending[remote->pending_first];
    remote->pending_first = (remote->pending_first + 1) % PENDING_MAX;
    remote->pending_count--;
    return true;
}

/* The connection is gone: every pending request gets its answer. */
static void abandon_pending(Remote *remote, Status status)
{
    char reason[512];
    strncpy(reason, status_message(), sizeof reason - 1);
    reason[sizeof reason - 1] = '\0';
    Pending pending;
    while (pop_pending(remote, &pending)) {
        if (pending.done == NULL)
            continue;
        (void)status_set(status, "%s", reason);
        aidb_commit commit = {0};
        aidb_value value = {0};
        if (pending.is_write)
            pending.done(pending.arg, libaidb_write_unknown(), NULL, &commit);
        else
            pending.done(pending.arg, status, pending.key_count == 0 ? &value : NULL, NULL);
    }
    (void)status_set(status, "%s", reason);
}

/* The next reply, pending requests' replies settled on the way: returns with a reply that is not theirs
 * (id `wanted`), or, with `wanted` 0, as soon as at most `leave` are pending. */
static Status await(Remote *remote, uint64_t wanted, size_t leave, Message *reply)
{
    while (wanted != 0 || remote->pending_count > leave) {
        Status status = client_receive(remote->client, reply);
        if (status == AIDB_OK && wanted != 0 && reply->id == wanted)
            return AIDB_OK;
        Pending pending;
        if (status == AIDB_OK &&
            (remote->pending_count == 0 || remote->pending[remote->pending_first].id != reply->id))
            status = unexpected(remote, reply);
        else if (status == AIDB_OK && pop_pending(remote, &pending))
            status = settle_one(remote, &pending, reply);
        if (status != AIDB_OK) {
            abandon_pending(remote, status);
            return status;
        }
    }
    return AIDB_OK;
}

/* Settles what has been answered already. */
static Status settle_arrived(Remote *remote)
{
    Message reply;
    Status status = AIDB_OK;
    while (status == AIDB_OK && client_has_reply(remote->client)) {
        if (remote->pending_count > 0) {
            status = await(remote, 0, remote->pending_count - 1, &reply);
        } else {
            status = client_receive(remote->client, &reply);
            if (status == AIDB_OK)
                status = unexpected(remote, &reply);
        }
    }
    return status;
}

/* Sends a request and waits for its reply. The mutex is held, by remote_begin. */
static Status call(Remote *remote, Message *request, Message *reply)
{
    Status status = client_send(remote->client, request);
    if (status != AIDB_OK)
        return status;
    return await(remote, request->id, 0, reply);
}

/* A call whose reply must have this type. */
static Status call_for(Remote *remote, Message *request, uint8_t type, Message *reply)
{
    RETURN_IF_FAILED(call(remote, request, reply));
    if (reply->type == MESSAGE_ERROR)
        return error_take(reply);
    return reply->type == type ? AIDB_OK : unexpected(remote, reply);
}

static Remote *remote_begin(void *state)
{
    Remote *remote = state;
    pthread_mutex_lock(&remote->mutex);
    return remote;
}

static Status remote_end(Remote *remote, Status status)
{
    pthread_mutex_unlock(&remote->mutex);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

static Status remote_get(void *state, uint64_t snapshot, Slice key, aidb_value *value)
{
    Remote *remote = remote_begin(state);
    Message request = {.type = MESSAGE_GET, .snapshot = snapshot, .key = key}, reply;
    Status status = call(remote, &request, &reply);
    aidb_value borrowed = {0};
    if (status == AIDB_OK)
        status = take_value(remote, &reply, &borrowed);
    if (status == AIDB_OK)
        status = libaidb_value_set(value, slice_make(borrowed.data, borrowed.size), borrowed.lsn);
    return remote_end(remote, status);
}

static Status snapshot_acquire(Remote *remote, uint64_t *lsn)
{
    Message request = {.type = MESSAGE_SNAPSHOT}, reply;
    RETURN_IF_FAILED(call_for(remote, &request, MESSAGE_DONE, &reply));
    *lsn = reply.lsn;
    return AIDB_OK;
}

static Status push_pending(Remote *remote, const Pending *pending)
{
    if (remote->pending == NULL) {
        remote->pending = malloc(PENDING_MAX * sizeof *remote->pending);
        if (remote->pending == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory");
    }
    remote->pending[(remote->pending_first + remote->pending_count) % PENDING_MAX] = *pending;
    remote->pending_count++;
    return AIDB_OK;
}

/* Makes room for one more. */
static Status reserve_pending(Remote *remote)
{
    Message reply;
    if (remote->pending_count < PENDING_MAX)
        return AIDB_OK;
    return await(remote, 0, PENDING_MAX / 2, &reply);
}

/* Nobody waits for the answer; a lost connection has released it anyway. */
static void snapshot_release(Remote *remote, uint64_t lsn)
{
    Message request = {.type = MESSAGE_RELEASE, .lsn = lsn};
    if (reserve_pending(remote) != AIDB_OK || client_send(remote->client, &request) != AIDB_OK)
        return;
    Pending pending = {.id = request.id};
    if (push_pending(remote, &pending) != AIDB_OK || client_flush(remote->client) != AIDB_OK)
        (void)client_break(remote->client, AIDB_CONNECTION); /* the next call tells */
}

static Status take_values(Remote *remote, const Message *reply, size_t count, aidb_value *values)
{
    size_t cursor = 0, i = 0;
    aidb_value value;
    for (; i < count && next_value(reply->row, &cursor, &value); i++)
        RETURN_IF_FAILED(
            libaidb_value_set(&values[i], slice_make(value.data, value.size), value.lsn));
    if (i < count || cursor != reply->row.size)
        return unexpected(remote, reply);
    return AIDB_OK;
}

/* A request for at most MULTI_GET_MAX keys; it borrows from remote->row. */
static Status multi_get_message(Remote *remote, uint64_t snapshot, size_t count,
                                const aidb_key *keys, Message *request)
{
    buffer_clear(&remote->row);
    if (remote->row.capacity > ROW_KEEP_SIZE)
        buffer_deinit(&remote->row);
    for (size_t i = 0; i < count; i++)
        RETURN_IF_FAILED(buffer_append_slice(&remote->row, slice_make(keys[i].data, keys[i].size)));
    *request = (Message){.type = MESSAGE_MULTI_GET,
                         .snapshot = snapshot,
                         .count = count,
                         .row = buffer_slice(&remote->row)};
    return AIDB_OK;
}

/* More keys, or values that do not fit into one reply, are asked for in parts. */
static Status multi_get_once(Remote *remote, uint64_t snapshot, size_t count, const aidb_key *keys,
                             aidb_value *values)
{
    Message request, reply;
    RETURN_IF_FAILED(multi_get_message(remote, snapshot, count, keys, &request));
    RETURN_IF_FAILED(call_for(remote, &request, MESSAGE_VALUES, &reply));
    return take_values(remote, &reply, count, values);
}

/* Halves the keys until each part fits. The depth is at most the number of bits of `count`. */
static Status multi_get_parts(Remote *remote, uint64_t snapshot, size_t count, const aidb_key *keys,
                              aidb_value *values)
{
    Status status = AIDB_LIMIT;
    if (count <= MULTI_GET_MAX)
        status = multi_get_once(remote, snapshot, count, keys, values);
    if (status != AIDB_LIMIT || count == 1)
        return status;
    RETURN_IF_FAILED(multi_get_parts(remote, snapshot, count / 2, keys, values));
    return multi_get_parts(remote, snapshot, count - count / 2, keys + count / 2,
                           values + count / 2);
}

static Status remote_multi_get(void *state, uint64_t snapshot, size_t count, const aidb_key *keys,
                               aidb_value *values)
{
    Remote *remote = remote_begin(state);
    Status status =
        count <= MULTI_GET_MAX ? multi_get_once(remote, snapshot, count, keys, values) : AIDB_LIMIT;
    if (status == AIDB_LIMIT && count > 1) {
        uint64_t own = 0;
        status = snapshot == SNAPSHOT_NOW ? snapshot_acquire(remote, &own) : AIDB_OK;
        if (status == AIDB_OK)
            status = multi_get_parts(remote, own != 0 ? own : snapshot, count, keys, values);
        if (own != 0)
            snapshot_release(remote, own);
    }
    return remote_end(remote, status);
}

static Status remote_snapshot_acquire(void *state, uint64_t *lsn)
{
    Remote *remote = remote_begin(state);
    return remote_end(remote, snapshot_acquire(remote, lsn));
}

static void remote_snapshot_release(void *state, uint64_t lsn)
{
    Remote *remote = remote_begin(state);
    snapshot_release(remote, lsn);
    pthread_mutex_unlock(&remote->mutex);
}

static Status take_rows(Remote *remote, const Message *reply, RowChunk *chunk)
{
    size_t cursor = 0;
    bool damaged = false;
    Entry entry = {.type = OP_PUT};
    while (entry_row_next(reply->row, &cursor, &entry.key, &entry.value, &entry.lsn, &damaged))
        RETURN_IF_FAILED(row_chunk_add(chunk, &entry));
    chunk->ended = (reply->flags & CHUNK_ENDED) != 0;
    if (damaged || (chunk->count == 0 && !chunk->ended))
        return unexpected(remote, reply);
    return AIDB_OK;
}

static Status remote_scan(void *state, uint64_t snapshot, const ScanRequest *scan, RowChunk *chunk)
{
    Remote *remote = remote_begin(state);
    Message reply, request = {
                       .type = MESSAGE_SCAN,
                       .flags = (uint8_t)(SCAN_ONE_CHUNK | (scan->reverse ? SCAN_REVERSE : 0) |
                                          (scan->keys_only ? SCAN_KEYS_ONLY : 0)),
                       .snapshot = snapshot,
                       .rows = scan->rows_max,
                       .bytes = scan->bytes_max < UINT32_MAX ? scan->bytes_max : UINT32_MAX,
                       .credits = 1,
                       .from = scan->from,
                       .to = scan->to,
                   };
    Status status = call_for(remote, &request, MESSAGE_CHUNK, &reply);
    if (status == AIDB_OK)
        status = take_rows(remote, &reply, chunk);
    return remote_end(remote, status);
}

static Status remote_measure(void *state, uint64_t snapshot, Slice from, Slice to, uint64_t *count,
                             uint64_t *bytes)
{
    Remote *remote = remote_begin(state);
    Message reply, request = {
                       .type = MESSAGE_MEASURE,
                       .flags = (uint8_t)((count != NULL ? MEASURE_COUNT : 0) |
                                          (bytes != NULL ? MEASURE_BYTES : 0)),
                       .snapshot = snapshot,
                       .from = from,
                       .to = to,
                   };
    Status status = call_for(remote, &request, MESSAGE_MEASURED, &reply);
    if (status == AIDB_OK && count != NULL)
        *count = reply.count;
    if (status == AIDB_OK && bytes != NULL)
        *bytes = reply.bytes;
    return remote_end(remote, status);
}

/* ---- writing --------------------------------------------------------------------------------- */

static Message write_message(const Batch *batch, aidb_durability durability)
{
    return (Message){
        .type = MESSAGE_WRITE,
        .durability = (uint64_t)durability,
        .ops = buffer_slice(&batch->ops),
        .expectations = buffer_slice(&batch->expectations),
    };
}

static Status remote_write(void *state, const Batch *batch, aidb_durability durability,
                           aidb_commit *commit)
{
    Remote *remote = remote_begin(state);
    Message request = write_message(batch, durability), reply;
    Status status = client_send(remote->client, &request);
    if (status == AIDB_OK) {
        status = await(remote, request.id, 0, &reply);
        if (status != AIDB_OK)
            status = libaidb_write_unknown();
        else
            status = take_commit(remote, &reply, commit);
    } else if (request.id != 0 && status != AIDB_LIMIT && status != AIDB_NO_MEMORY) {
        /* Broken while it was being sent, or before: only an earlier failure is sure to mean not sent,
         * and that is not told apart. */
        status = libaidb_write_unknown();
    }
    return remote_end(remote, status);
}

/* Makes room for the values of a submitted multi-get before it is sent, so that taking them cannot fail. */
static Status reserve_values(Remote *remote, size_t count)
{
    if (count <= remote->value_room)
        return AIDB_OK;
    aidb_value *values = realloc(remote->values, count * sizeof *values);
    if (values == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    remote->values = values;
    remote->value_room = count;
    return AIDB_OK;
}

static Status submit_message(Remote *remote, const aidb_request *request, Message *message)
{
    if (request->keys != NULL) {
        RETURN_IF_FAILED(reserve_values(remote, request->key_count));
        return multi_get_message(remote, SNAPSHOT_NOW, request->key_count, request->keys, message);
    }
    if (request->batch != NULL)
        *message = write_message(libaidb_batch(request->batch), request->durability);
    else
        *message =
            (Message){.type = MESSAGE_GET, .key = slice_make(request->key.data, request->key.size)};
    return AIDB_OK;
}

static Status remote_submit(void *state, const aidb_request *request)
{
    Remote *remote = remote_begin(state);
    Message message;
    Status status = reserve_pending(remote);
    if (status == AIDB_OK)
        status = submit_message(remote, request, &message);
    if (status == AIDB_OK)
        status = client_send(remote->client, &message);
    if (status == AIDB_OK) {
        Pending pending = {.id = message.id,
                           .key_count = request->keys != NULL ? (uint32_t)request->key_count : 0,
                           .is_write = request->batch != NULL,
                           .done = request->done,
                           .arg = request->arg};
        status = push_pending(remote, &pending);
    }
    /* Answers that are here already are handed out now, which keeps the input buffer small. When that
     * fails, this request's `done` has been told so with the others'. */
    Status taken = status == AIDB_OK ? settle_arrived(remote) : AIDB_OK;
    (void)taken;
    return remote_end(remote, status);
}

/* Settles what has arrived, without waiting for more. */
static Status poll_replies(Remote *remote)
{
    bool more = true;
    Status status = AIDB_OK;
    while (status == AIDB_OK && more) {
        status = client_read(remote->client, &more);
        if (status == AIDB_OK)
            status = settle_arrived(remote);
    }
    return status;
}

static Status remote_wait(void *state, size_t pending)
{
    Remote *remote = remote_begin(state);
    Message reply;
    /* Even when there is nothing to wait for: a program with several connections sends on all of them
     * before it waits for the first. */
    Status status = client_flush(remote->client);
    while (status == AIDB_OK && client_has_output(remote->client) && remote->pending_count > 0) {
        /* Replies must be taken before the server takes more; receiving goes on with sending. */
        status = await(remote, 0, remote->pending_count - 1, &reply);
    }
    if (status == AIDB_OK)
        status = await(remote, 0, pending, &reply);
    /* What is in the buffer already is handed out, too: no event of the socket would tell of it. */
    if (status == AIDB_OK)
        status = pending == SIZE_MAX ? poll_replies(remote) : settle_arrived(remote);
    if (status != AIDB_OK)
        abandon_pending(remote, status);
    return remote_end(remote, status);
}

/* ---- administration -------------------------------------------------------------------------- */

static Status remote_property(void *state, const char *name, Buffer *text)
{
    Remote *remote = remote_begin(state);
    if (strcmp(name, "socket") == 0) {
        char number[16];
        int size = snprintf(number, sizeof number, "%d", client_socket(remote->client));
        return remote_end(remote, buffer_append(text, number, (size_t)size));
    }
    Message request = {.type = MESSAGE_PROPERTY, .name = slice_from_string(name)}, reply;
    Status status = call_for(remote, &request, MESSAGE_TEXT, &reply);
    if (status == AIDB_OK)
        status = buffer_append(text, reply.text.data, reply.text.size);
    return remote_end(remote, status);
}

static Status remote_control(void *state, const char *command, Slice from, Slice to)
{
    Remote *remote = remote_begin(state);
    Message request = {
        .type = MESSAGE_CONTROL, .name = slice_from_string(command), .from = from, .to = to};
    Message reply;
    return remote_end(remote, call_for(remote, &request, MESSAGE_DONE, &reply));
}

static void remote_cancel(void *state)
{
    const Remote *remote = state;
    client_cancel(remote->client);
}

static Status remote_close(void *state, bool foreign)
{
    Remote *remote = state;
    if (!foreign)
        pthread_mutex_destroy(&remote->mutex);
    client_close(remote->client);
    buffer_deinit(&remote->row);
    free(remote->values);
    free(remote->pending);
    free(remote);
    return AIDB_OK;
}

static const Driver REMOTE_DRIVER = {
    .is_server = true,
    .first_rows = FIRST_ROWS,
    .get = remote_get,
    .multi_get = remote_multi_get,
    .write = remote_write,
    .snapshot_acquire = remote_snapshot_acquire,
    .snapshot_release = remote_snapshot_release,
    .scan = remote_scan,
    .measure = remote_measure,
    .property = remote_property,
    .control = remote_control,
    .submit = remote_submit,
    .wait = remote_wait,
    .cancel = remote_cancel,
    .close = remote_close,
};

/* ---- opening --------------------------------------------------------------------------------- */

static Status take_options(const aidb_option *options, ClientOptions *client)
{
    for (; options != NULL && options->name != NULL; options++) {
        if (options->value == NULL)
            return status_set(AIDB_INVALID, "%s: the option has no value", options->name);
        if (strcmp(options->name, "application") == 0) {
            client->application = options->value;
        } else if (strcmp(options->name, "connect_timeout") == 0) {
            uint64_t ms;
            RETURN_IF_FAILED(config_parse_duration("connect_timeout", options->value, &ms));
            if (ms < 1 || ms > 3600u * 1000)
                return status_set(AIDB_INVALID, "connect_timeout: %s is out of range (1ms to 1h)",
                                  options->value);
            client->connect_timeout_ms = (int)ms;
        } else {
            (void)status_set(AIDB_INVALID, "%s: not an option of a connection to a server",
                             options->name);
            status_hint("A server takes connect_timeout and application; its settings stand in its "
                        "aidb.yaml.");
            return AIDB_INVALID;
        }
    }
    return AIDB_OK;
}

Status remote_open(const char *uri, const aidb_option *options, const Driver **driver, void **state)
{
    ClientOptions client_options = {.connect_timeout_ms = CONNECT_TIMEOUT_MS};
    RETURN_IF_FAILED(take_options(options, &client_options));
    Remote *remote = calloc(1, sizeof *remote);
    if (remote == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = client_connect(uri, &client_options, &remote->client);
    if (status != AIDB_OK) {
        free(remote);
        return status;
    }
    pthread_mutex_init(&remote->mutex, NULL);
    *driver = &REMOTE_DRIVER;
    *state = remote;
    return AIDB_OK;
}
