/*
 * request.c - what a backend does for each request.
 *
 * A pipelining client is served in runs: neighbouring small writes without expectations become one
 * batch (the LSN of each follows from its place in it), neighbouring gets at one snapshot are looked up
 * in one read section. A run ends where another kind of request begins, so order is kept and a client
 * reads its own writes. Replies are put straight into the output buffer; the values in them are copied
 * there inside the read section, and nothing is held across a wait for the client.
 *
 * A snapshot that a client names must be one that its session has registered: what another LSN would
 * see may be compacted away already.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include "common/failpoint.h"
#include "common/log.h"
#include <stdlib.h>
#include <string.h>

#define KEY_BOUND_MAX  (AIDB_KEY_MAX + 1) /* the key right behind the longest one */
#define MULTI_GET_STEP 64u
#define STALL_RETRY_NS 5000000u

/* ---- helpers --------------------------------------------------------------------------------- */

static void reply(Backend *backend, const Message *message)
{
    Status status = message_encode(&backend->output, message);
    if (status != AIDB_OK)
        backend_fatal(backend, status);
}

static void reply_done(Backend *backend, uint64_t id, uint64_t lsn)
{
    reply(backend, &(Message){.type = MESSAGE_DONE, .id = id, .lsn = lsn});
}

/* Takes a reply back that was begun, and says why instead. */
static void replace_by_error(Backend *backend, size_t start, uint64_t id, Status status)
{
    backend->output.size = start;
    backend_error(backend, id, status);
}

static Status check_snapshot(const Backend *backend, uint64_t snapshot)
{
    if (snapshot == DB_NOW)
        return AIDB_OK;
    for (int i = 0; i < SLOT_SNAPSHOTS && snapshot != SNAPSHOT_CLAIM; i++)
        if (atomic_load_explicit(&backend->slot->snapshots[i], memory_order_relaxed) == snapshot)
            return AIDB_OK;
    return status_set(AIDB_INVALID, "snapshot %llu is not one of this connection",
                      (unsigned long long)snapshot);
}

static Status check_key(Slice key)
{
    if (key.size == 0)
        return status_set(AIDB_INVALID, "the key is empty");
    if (key.size > AIDB_KEY_MAX)
        return status_set(AIDB_INVALID, "the key has %zu bytes, more than %u", key.size,
                          AIDB_KEY_MAX);
    return AIDB_OK;
}

static Status check_bounds(Slice from, Slice to)
{
    if (from.size > KEY_BOUND_MAX || to.size > KEY_BOUND_MAX)
        return status_set(AIDB_INVALID, "a bound has more than %u bytes", KEY_BOUND_MAX);
    return AIDB_OK;
}

/* Carries out what was gathered before the request at `frame_start`. False when some of it was put back
 * into the input for lack of room for replies, and this request, which stands behind, with it. The error
 * record is kept. */
static bool finish_before(Backend *backend, size_t frame_start)
{
    request_finish(backend);
    return backend->taken > frame_start;
}

/* ---- slow requests --------------------------------------------------------------------------- */

static uint64_t watch_begin(const Backend *backend)
{
    return backend->config->server.log_min_duration > 0 ? port_monotonic_ns() : 0;
}

static void watch_end(const Backend *backend, uint64_t began, const char *what, size_t count)
{
    if (began == 0)
        return;
    uint64_t ms = (port_monotonic_ns() - began) / 1000000u;
    if (ms >= backend->config->server.log_min_duration)
        server_log(LOG_LEVEL_WARNING,
                   "slow request: %s (%zu) took %llu ms, connection %llu from %s", what, count,
                   (unsigned long long)ms, (unsigned long long)backend->number, backend->peer);
}

/* ---- get ------------------------------------------------------------------------------------- */

static Status append_value(Backend *backend, uint64_t id, uint64_t at, const Entry *entry)
{
    Buffer *output = &backend->output;
    size_t start;
    RETURN_IF_FAILED(frame_begin(output, MESSAGE_VALUE, 0, id, &start));
    RETURN_IF_FAILED(buffer_append_fixed64(output, at));
    RETURN_IF_FAILED(buffer_append_fixed64(output, entry->lsn));
    RETURN_IF_FAILED(FAILPOINT_STATUS("get.reply"));
    RETURN_IF_FAILED(buffer_append(output, entry->value.data, entry->value.size));
    return frame_end(output, start);
}

/* Looks up the gathered gets. Those that would overfill the output are put back: `taken` returns to the
 * first of them in the input, so they are read again when the output has drained. */
static void finish_gets(Backend *backend)
{
    BackendProcess *process = backend->process;
    size_t count = process->get_count;
    if (count == 0)
        return;
    process->get_count = 0;
    backend_activity(backend, "get");
    Slice keys[GETS_MAX];
    Entry entries[GETS_MAX];
    for (size_t i = 0; i < count; i++)
        keys[i] = process->gets[i].key;

    uint64_t began = watch_begin(backend), at = 0;
    Status status = db_read_begin(backend->session, process->gets[0].snapshot, &at);
    bool reading = status == AIDB_OK;
    if (reading && count == 1) {
        status = db_read_get(backend->session, keys[0], &entries[0]);
        if (status == AIDB_NOT_FOUND) {
            entries[0] = (Entry){0};
            status = AIDB_OK;
        }
    } else if (reading) {
        status = db_read_multi_get(backend->session, count, keys, entries);
    }
    size_t done = 0;
    /* At least one, so that putting back the others never goes round in a circle. */
    while (status == AIDB_OK && done < count &&
           (done == 0 || backend->output.size - backend->sent < OUTPUT_HIGH)) {
        size_t start = backend->output.size;
        Entry missing = {0};
        const Entry *entry = entries[done].lsn != 0 ? &entries[done] : &missing;
        status = append_value(backend, process->gets[done].id, at, entry);
        if (status == AIDB_OK)
            done++;
        else
            backend->output.size = start;
    }
    if (reading)
        db_read_end(backend->session);
    if (status != AIDB_OK)
        for (; done < count; done++)
            backend_error(backend, process->gets[done].id, status);
    else if (done < count)
        backend->taken = process->gets[done].frame_start;
    watch_end(backend, began, "get", count);
}

static void handle_get(Backend *backend, const Message *message, size_t frame_start)
{
    BackendProcess *process = backend->process;
    Status status = check_key(message->key);
    if (status == AIDB_OK)
        status = check_snapshot(backend, message->snapshot);
    if (status != AIDB_OK) {
        if (finish_before(backend, frame_start))
            backend_error(backend, message->id, status);
        return;
    }
    bool joins = process->get_count < GETS_MAX && process->gets[0].snapshot == message->snapshot;
    if (process->get_count > 0 && !joins && !finish_before(backend, frame_start))
        return;
    process->gets[process->get_count++] = (PendingGet){.id = message->id,
                                                       .snapshot = message->snapshot,
                                                       .key = message->key,
                                                       .frame_start = frame_start};
}

/* ---- multi-get ------------------------------------------------------------------------------- */

static Status multi_get_step(Backend *backend, size_t count, const Slice *keys)
{
    Entry entries[MULTI_GET_STEP];
    RETURN_IF_FAILED(db_read_multi_get(backend->session, count, keys, entries));
    for (size_t i = 0; i < count; i++) {
        Slice value = entries[i].lsn != 0 ? entries[i].value : (Slice){0};
        RETURN_IF_FAILED(value_row_append(&backend->output, entries[i].lsn, value));
    }
    return AIDB_OK;
}

static Status multi_get_values(Backend *backend, const Message *message, size_t start)
{
    Slice keys[MULTI_GET_STEP];
    size_t cursor = 0, gathered = 0;
    uint64_t count = 0;
    bool damaged = false;
    Slice key;
    while (key_row_next(message->row, &cursor, &key, &damaged)) {
        RETURN_IF_FAILED(check_key(key));
        keys[gathered++] = key;
        count++;
        if (gathered == MULTI_GET_STEP || cursor == message->row.size) {
            RETURN_IF_FAILED(multi_get_step(backend, gathered, keys));
            gathered = 0;
        }
        if (backend->output.size - start > backend->body_max) {
            (void)status_set(AIDB_LIMIT, "the values do not fit into one reply");
            status_hint("Ask for fewer keys at a time.");
            return AIDB_LIMIT;
        }
    }
    if (damaged || count != message->count)
        return status_set(AIDB_PROTOCOL, "MULTI_GET: the row does not hold the keys it should");
    return AIDB_OK;
}

static void handle_multi_get(Backend *backend, const Message *message)
{
    size_t start = backend->output.size;
    uint64_t began = watch_begin(backend), at = 0;
    backend_activity(backend, "multi-get");
    Status status = check_snapshot(backend, message->snapshot);
    if (status == AIDB_OK)
        status = db_read_begin(backend->session, message->snapshot, &at);
    if (status != AIDB_OK) {
        backend_error(backend, message->id, status);
        return;
    }
    status = frame_begin(&backend->output, MESSAGE_VALUES, 0, message->id, &start);
    if (status == AIDB_OK)
        status = buffer_append_fixed64(&backend->output, at);
    if (status == AIDB_OK)
        status = buffer_append_fixed32(&backend->output, (uint32_t)message->count);
    if (status == AIDB_OK)
        status = multi_get_values(backend, message, start);
    db_read_end(backend->session);
    if (status == AIDB_OK)
        status = frame_end(&backend->output, start);
    if (status != AIDB_OK)
        replace_by_error(backend, start, message->id, status);
    watch_end(backend, began, "multi-get", (size_t)message->count);
}

/* ---- write ----------------------------------------------------------------------------------- */

static void reply_commit(Backend *backend, uint64_t id, const DbCommit *commit, Status status)
{
    reply(backend, &(Message){.type = MESSAGE_COMMIT,
                              .id = id,
                              .status = (uint64_t)status,
                              .lsn = commit->lsn,
                              .count = commit->failed_expectation,
                              .version = commit->present_version});
}

/* A write of a hosted client that must wait for a flush: its session tries again in a moment, and its
 * time limit runs on meanwhile. False when that is over. */
static bool stall(Backend *backend)
{
    uint64_t now = port_monotonic_ns(), limit = backend->config->server.statement_timeout;
    if (backend->stalled_since_ns == 0)
        backend->stalled_since_ns = now;
    if (limit > 0 && now - backend->stalled_since_ns >= limit * 1000000u) {
        atomic_store(&backend->timed_out, true);
        atomic_fetch_or(&backend->slot->interrupt, SLOT_INTERRUPT_CANCEL);
        return false;
    }
    backend->resume_ns = now + STALL_RETRY_NS;
    return true;
}

/* The write has been carried out, or has failed. What it owes is paid before the next request. */
static void end_stall(Backend *backend, const DbCommit *commit)
{
    backend->stalled_since_ns = 0;
    if (commit->debt.left_ns == 0)
        return;
    backend->debt = commit->debt;
    backend->resume_ns = commit->debt.seen_ns + commit->debt.left_ns;
}

/* Writes the gathered group as one batch. A group that must wait is put back into the input. */
static void finish_group(Backend *backend)
{
    BackendProcess *process = backend->process;
    size_t count = process->group_count;
    if (count == 0)
        return;
    process->group_count = 0;
    backend_activity(backend, "write");
    uint64_t began = watch_begin(backend);
    Slice ops = process->group[0].ops;
    Status status = AIDB_OK;
    if (count > 1) {
        buffer_clear(&process->group_row);
        status = buffer_reserve(&process->group_row, process->group_bytes);
        for (size_t i = 0; i < count && status == AIDB_OK; i++)
            status = buffer_append(&process->group_row, process->group[i].ops.data,
                                   process->group[i].ops.size);
        ops = buffer_slice(&process->group_row);
    }
    DbWrite write = {
        .ops = ops, .op_count = process->group_ops, .range_count = process->group_ranges};
    DbCommit commit = {0};
    if (status == AIDB_OK) {
        backend_time_limit_begin(backend);
        status = db_write(backend->session, &write, &commit);
        backend_time_limit_end(backend);
    }
    if (status == AIDB_BUSY && process->hosting) {
        if (stall(backend)) {
            backend->taken = process->group[0].frame_start;
            return;
        }
        status = AIDB_CANCELED;
    }
    end_stall(backend, &commit);
    if (status != AIDB_OK) {
        for (size_t i = 0; i < count; i++)
            backend_error(backend, process->group[i].id, status);
        return;
    }
    /* The batch's last operation has commit.lsn; the others lie before it as in the row. */
    size_t before = process->group_bytes - process->group[count - 1].ops.size;
    uint64_t first = commit.lsn - (before + process->group[count - 1].last);
    size_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        DbCommit part = {.lsn = first + offset + process->group[i].last};
        reply_commit(backend, process->group[i].id, &part, AIDB_OK);
        offset += process->group[i].ops.size;
    }
    backend_settle_later(backend, commit.end, process->group_durability);
    watch_end(backend, began, "write", count);
}

/* A write that goes alone: large, empty, or with expectations. Put back when it must wait. */
static void write_alone(Backend *backend, const Message *message, const DbWrite *write,
                        aidb_durability durability, size_t frame_start)
{
    backend_activity(backend, "write");
    uint64_t began = watch_begin(backend);
    DbCommit commit = {0};
    backend_time_limit_begin(backend);
    Status status = db_write(backend->session, write, &commit);
    backend_time_limit_end(backend);
    if (status == AIDB_BUSY && backend->process->hosting && !backend->slow) {
        if (stall(backend)) {
            backend->taken = frame_start;
            return;
        }
        status = AIDB_CANCELED;
    }
    end_stall(backend, &commit);
    if (status == AIDB_OK)
        backend_settle_later(backend, commit.end, durability);
    if (status == AIDB_OK || status == AIDB_EXPECTATION)
        reply_commit(backend, message->id, &commit, status);
    else
        backend_error(backend, message->id, status);
    watch_end(backend, began, "write", 1);
}

/* Checks a row of operations, counts, and finds its last one. */
static Status look_through(Slice ops, DbWrite *write, uint32_t *last)
{
    size_t cursor = 0;
    BatchOp op;
    bool damaged = false;
    write->ops = ops;
    while (batch_next(ops, &cursor, &op, &damaged)) {
        write->op_count++;
        write->range_count += op.type == OP_DELETE_RANGE;
        *last = op.offset;
    }
    if (!damaged)
        return AIDB_OK;
    uint32_t op_count, range_count;
    Status status = batch_check(ops, &op_count, &range_count); /* says what is wrong */
    return status != AIDB_OK ? status : status_set(AIDB_INVALID, "malformed batch");
}

/* Takes a WRITE apart. AIDB_OK, or what is wrong with it. */
static Status read_write(const Backend *backend, const Message *message, DbWrite *write,
                         uint32_t *last, aidb_durability *durability)
{
    *last = 0;
    *write = (DbWrite){.expectations = message->expectations};
    *durability = message->durability != AIDB_DEFAULT ? (aidb_durability)message->durability
                                                      : backend->config->engine.durability;
    if (message->durability > AIDB_FSYNC)
        return status_set(AIDB_INVALID, "unknown durability %u", (unsigned)message->durability);
    RETURN_IF_FAILED(look_through(message->ops, write, last));
    return expectations_check(message->expectations, &write->expectation_count);
}

static void handle_write(Backend *backend, const Message *message, size_t frame_start)
{
    BackendProcess *process = backend->process;
    DbWrite write;
    uint32_t last;
    aidb_durability durability;
    Status status = read_write(backend, message, &write, &last, &durability);
    if (status != AIDB_OK) {
        if (finish_before(backend, frame_start))
            backend_error(backend, message->id, status);
        return;
    }
    if (write.op_count == 0 || write.expectation_count > 0 || write.ops.size > GROUP_WRITE_MAX) {
        if (finish_before(backend, frame_start))
            write_alone(backend, message, &write, durability, frame_start);
        return;
    }
    finish_gets(backend);
    if (backend->taken <= frame_start)
        return;
    if ((process->group_count == GROUP_MAX ||
         (process->group_count > 0 && process->group_bytes + write.ops.size > GROUP_BYTES_MAX)) &&
        !finish_before(backend, frame_start))
        return;
    if (process->group_count == 0) {
        process->group_bytes = 0;
        process->group_ops = process->group_ranges = 0;
        process->group_durability = AIDB_ASYNC;
    }
    process->group[process->group_count++] = (GroupedWrite){
        .id = message->id, .ops = write.ops, .last = last, .frame_start = frame_start};
    process->group_bytes += write.ops.size;
    process->group_ops += write.op_count;
    process->group_ranges += write.range_count;
    if (durability > process->group_durability)
        process->group_durability = durability;
}

/* ---- scan ------------------------------------------------------------------------------------ */

typedef struct ChunkFill {
    Backend *backend;
    size_t start; /* of the frame */
    uint32_t rows_left;
    size_t bytes_max;
    Buffer *last_key; /* NULL: not wanted */
    Status status;
} ChunkFill;

static bool chunk_row(void *arg, const Entry *entry)
{
    ChunkFill *fill = arg;
    Buffer *output = &fill->backend->output;
    fill->status = entry_row_append(output, entry->key, entry->value, entry->lsn);
    bool full = --fill->rows_left == 0 || output->size - fill->start >= fill->bytes_max ||
                atomic_load_explicit(&fill->backend->slot->interrupt, memory_order_relaxed) != 0;
    if (fill->status == AIDB_OK && full && fill->last_key != NULL) {
        buffer_clear(fill->last_key);
        fill->status = buffer_append(fill->last_key, entry->key.data, entry->key.size);
    }
    return fill->status == AIDB_OK && !full;
}

typedef struct ChunkRequest {
    uint64_t id;
    uint64_t snapshot;
    uint8_t flags;
    Slice from;
    Slice to;
    uint32_t rows;
    size_t bytes;
    uint64_t walked;  /* bytes of the chunks before */
    bool last;        /* no further chunk follows, ended or not */
    Buffer *last_key; /* gets the key of the last row when the range has not ended */
} ChunkRequest;

/* Appends one CHUNK reply, or an ERROR. *ended: nothing is left of the range. */
static Status append_chunk(Backend *backend, const ChunkRequest *request, bool *ended)
{
    Buffer *output = &backend->output;
    size_t start = output->size;
    *ended = false;
    Status status = frame_begin(output, MESSAGE_CHUNK, 0, request->id, &start);
    if (status == AIDB_OK)
        status = buffer_append_fixed64(output, 0);
    ChunkFill fill = {
        .backend = backend,
        .start = start,
        .rows_left =
            request->rows == 0 || request->rows > CHUNK_ROWS_MAX ? CHUNK_ROWS_MAX : request->rows,
        .bytes_max = request->bytes == 0 || request->bytes > CHUNK_BYTES_MAX ? CHUNK_BYTES_MAX
                                                                             : request->bytes,
        .last_key = request->last_key,
    };
    DbScan scan = {
        .from = request->from,
        .to = request->to,
        .reverse = (request->flags & SCAN_REVERSE) != 0,
        .keys_only = (request->flags & SCAN_KEYS_ONLY) != 0,
        .walked = request->walked,
    };
    uint64_t at = 0;
    if (status == AIDB_OK)
        status = db_scan(backend->session, request->snapshot, &scan, chunk_row, &fill, ended, &at);
    if (status == AIDB_OK)
        status = fill.status;
    if (status == AIDB_OK && atomic_load(&backend->slot->interrupt) != 0)
        status = status_set(AIDB_CANCELED, "canceled");
    if (status == AIDB_OK)
        status = frame_end(output, start);
    if (status != AIDB_OK) {
        replace_by_error(backend, start, request->id, status);
        return status;
    }
    put_fixed64(output->data + start + FRAME_HEADER_SIZE, at);
    output->data[start + 5] =
        (uint8_t)((*ended ? CHUNK_ENDED : 0) | (*ended || request->last ? CHUNK_LAST : 0));
    return AIDB_OK;
}

static void close_scan(Backend *backend, OpenScan *scan)
{
    if (scan->own_snapshot)
        db_snapshot_release(backend->session, scan->snapshot);
    buffer_deinit(&scan->from);
    buffer_deinit(&scan->to);
    *scan = (OpenScan){0};
}

static OpenScan *find_scan(Backend *backend, uint64_t id)
{
    for (size_t i = 0; i < SCANS_MAX; i++)
        if (backend->scans[i].open && backend->scans[i].id == id)
            return &backend->scans[i];
    return NULL;
}

/* A scan over several chunks: registered, and sent by request_scan_step. */
static Status open_scan(Backend *backend, const Message *message)
{
    OpenScan *scan = NULL;
    for (size_t i = 0; i < SCANS_MAX && scan == NULL; i++)
        if (!backend->scans[i].open)
            scan = &backend->scans[i];
    if (scan == NULL)
        return status_set(AIDB_LIMIT, "%u scans are open on this connection", SCANS_MAX);
    uint64_t snapshot = message->snapshot;
    if (snapshot == DB_NOW)
        RETURN_IF_FAILED(db_snapshot_acquire(backend->session, &snapshot));
    *scan = (OpenScan){.open = true,
                       .id = message->id,
                       .snapshot = snapshot,
                       .own_snapshot = message->snapshot == DB_NOW,
                       .flags = message->flags,
                       .rows = (uint32_t)message->rows,
                       .bytes = (size_t)message->bytes,
                       .credits = message->credits};
    Status status = buffer_append(&scan->from, message->from.data, message->from.size);
    if (status == AIDB_OK)
        status = buffer_append(&scan->to, message->to.data, message->to.size);
    if (status != AIDB_OK)
        close_scan(backend, scan);
    return status;
}

static void handle_scan(Backend *backend, const Message *message)
{
    Status status = check_snapshot(backend, message->snapshot);
    if (status == AIDB_OK)
        status = check_bounds(message->from, message->to);
    if (status == AIDB_OK && (message->flags & ~SCAN_FLAGS) != 0)
        status = status_set(AIDB_PROTOCOL, "SCAN: unknown flags 0x%02x", message->flags);
    if (status == AIDB_OK && (message->flags & SCAN_ONE_CHUNK) == 0)
        status = open_scan(backend, message);
    if (status != AIDB_OK) {
        backend_error(backend, message->id, status);
        return;
    }
    if ((message->flags & SCAN_ONE_CHUNK) == 0)
        return;
    ChunkRequest chunk = {
        .id = message->id,
        .snapshot = message->snapshot,
        .flags = message->flags,
        .from = message->from,
        .to = message->to,
        .rows = (uint32_t)message->rows,
        .bytes = (size_t)message->bytes,
        .last = true,
    };
    bool ended;
    backend_activity(backend, "scan");
    uint64_t began = watch_begin(backend);
    backend_time_limit_begin(backend);
    if (append_chunk(backend, &chunk, &ended) == AIDB_OK)
        watch_end(backend, began, "scan", 1);
    backend_time_limit_end(backend);
}

bool request_scan_waits(const Backend *backend)
{
    for (size_t i = 0; i < SCANS_MAX; i++)
        if (backend->scans[i].open && backend->scans[i].credits > 0)
            return true;
    return false;
}

/* Where the scan goes on behind its last row. */
static Status advance_scan(OpenScan *scan, Buffer *last_key)
{
    bool reverse = (scan->flags & SCAN_REVERSE) != 0;
    if (!reverse)
        RETURN_IF_FAILED(buffer_append_byte(last_key, 0));
    Buffer *bound = reverse ? &scan->to : &scan->from;
    buffer_clear(bound);
    return buffer_append(bound, last_key->data, last_key->size);
}

bool request_scan_step(Backend *backend)
{
    OpenScan *scan = NULL;
    for (size_t i = 0; i < SCANS_MAX && scan == NULL; i++) {
        OpenScan *candidate = &backend->scans[(backend->scan_next + i) % SCANS_MAX];
        if (candidate->open && candidate->credits > 0)
            scan = candidate;
    }
    if (scan == NULL)
        return false;
    backend->scan_next = (size_t)(scan - backend->scans) + 1;
    Buffer last_key = {0};
    ChunkRequest chunk = {
        .id = scan->id,
        .snapshot = scan->snapshot,
        .flags = scan->flags,
        .from = buffer_slice(&scan->from),
        .to = buffer_slice(&scan->to),
        .rows = scan->rows,
        .bytes = scan->bytes,
        .walked = scan->walked,
        .last_key = &last_key,
    };
    bool ended = false;
    size_t before = backend->output.size;
    backend_activity(backend, "scan");
    status_clear();
    Status status =
        check_snapshot(backend, scan->snapshot); /* the client may have released its own */
    if (status != AIDB_OK) {
        backend_error(backend, scan->id, status);
    } else {
        backend_time_limit_begin(backend);
        status = append_chunk(backend, &chunk, &ended);
        backend_time_limit_end(backend);
    }
    if (status == AIDB_OK && !ended) {
        scan->credits--;
        scan->walked += backend->output.size - before;
        status = advance_scan(scan, &last_key);
        if (status != AIDB_OK)
            backend_error(backend, scan->id, status);
    }
    if (status != AIDB_OK || ended)
        close_scan(backend, scan);
    buffer_deinit(&last_key);
    return true;
}

/* ---- measure --------------------------------------------------------------------------------- */

static Status measure(Backend *backend, const Message *message, Message *measured)
{
    RETURN_IF_FAILED(check_snapshot(backend, message->snapshot));
    RETURN_IF_FAILED(check_bounds(message->from, message->to));
    measured->lsn = message->snapshot != DB_NOW ? message->snapshot : db_visible_lsn(backend->db);
    if ((message->flags & MEASURE_BYTES) != 0)
        RETURN_IF_FAILED(
            db_approximate_size(backend->session, message->from, message->to, &measured->bytes));
    if ((message->flags & MEASURE_COUNT) == 0)
        return AIDB_OK;
    uint64_t registered = DB_NOW, snapshot = message->snapshot;
    if (snapshot == DB_NOW) {
        RETURN_IF_FAILED(db_snapshot_acquire(backend->session, &registered));
        snapshot = measured->lsn = registered;
    }
    Status status =
        db_count(backend->session, snapshot, message->from, message->to, &measured->count);
    if (registered != DB_NOW)
        db_snapshot_release(backend->session, registered);
    return status;
}

static void handle_measure(Backend *backend, const Message *message)
{
    Message measured = {.type = MESSAGE_MEASURED, .id = message->id};
    backend_activity(backend, "count");
    uint64_t began = watch_begin(backend);
    backend_time_limit_begin(backend);
    Status status = measure(backend, message, &measured);
    backend_time_limit_end(backend);
    if (status == AIDB_OK)
        reply(backend, &measured);
    else
        backend_error(backend, message->id, status);
    watch_end(backend, began, "count", 1);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void handle_snapshot(Backend *backend, const Message *message)
{
    uint64_t lsn;
    Status status = db_snapshot_acquire(backend->session, &lsn);
    if (status == AIDB_OK)
        reply_done(backend, message->id, lsn);
    else
        backend_error(backend, message->id, status);
}

static void handle_release(Backend *backend, const Message *message)
{
    Status status = message->lsn != DB_NOW ? check_snapshot(backend, message->lsn)
                                           : status_set(AIDB_INVALID, "0 is no snapshot");
    if (status != AIDB_OK) {
        backend_error(backend, message->id, status);
        return;
    }
    db_snapshot_release(backend->session, message->lsn);
    reply_done(backend, message->id, db_visible_lsn(backend->db));
}

static void handle_property(Backend *backend, const Message *message)
{
    Buffer text = {0};
    backend_activity(backend, "show");
    Status status = report_property(backend, message->name, &text);
    if (status == AIDB_OK)
        reply(backend, &(Message){.type = MESSAGE_TEXT,
                                  .id = message->id,
                                  .lsn = db_visible_lsn(backend->db),
                                  .text = buffer_slice(&text)});
    else
        backend_error(backend, message->id, status);
    buffer_deinit(&text);
}

static void handle_control(Backend *backend, const Message *message)
{
    uint64_t began = watch_begin(backend);
    Status status = check_bounds(message->from, message->to);
    backend_time_limit_begin(backend);
    if (status == AIDB_OK)
        status = report_control(backend, message);
    backend_time_limit_end(backend);
    if (status == AIDB_OK)
        reply_done(backend, message->id, db_visible_lsn(backend->db));
    else
        backend_error(backend, message->id, status);
    watch_end(backend, began, "control", 1);
}

static void handle_scan_more(Backend *backend, const Message *message)
{
    OpenScan *scan = find_scan(backend, message->id);
    if (scan == NULL)
        return; /* it has ended meanwhile */
    if (scan->credits + message->credits <= UINT32_MAX)
        scan->credits += message->credits;
}

void request_finish(Backend *backend)
{
    /* At most one of the two has been gathered. */
    finish_group(backend);
    finish_gets(backend);
}

/* Whether a request would keep a hosting process from its other clients for long. */
static bool is_slow(const Message *message)
{
    switch (message->type) {
    case MESSAGE_CONTROL:
        return true;
    case MESSAGE_MEASURE:
        return (message->flags & MEASURE_COUNT) != 0;
    case MESSAGE_WRITE:
        return message->ops.size > SLOW_WRITE;
    default:
        return false;
    }
}

void request_slow(Backend *backend)
{
    Message message;
    status_clear();
    Status status = message_decode(&backend->slow_frame, &message);
    if (status != AIDB_OK) {
        backend_fatal(backend, status);
    } else if (message.type == MESSAGE_CONTROL) {
        handle_control(backend, &message);
    } else if (message.type == MESSAGE_MEASURE) {
        handle_measure(backend, &message);
    } else {
        DbWrite write;
        uint32_t last;
        aidb_durability durability;
        status = read_write(backend, &message, &write, &last, &durability);
        if (status == AIDB_OK)
            write_alone(backend, &message, &write, durability, 0);
        else
            backend_error(backend, message.id, status);
    }
}

void request_handle(Backend *backend, const Frame *frame, size_t frame_start)
{
    Message message;
    status_clear();
    Status status = message_decode(frame, &message);
    if (status == AIDB_OK && message.id == 0)
        status = status_set(AIDB_PROTOCOL, "%s: request id 0 is the server's own",
                            message_type_name(message.type));
    if (status != AIDB_OK) {
        if (finish_before(backend, frame_start))
            backend_fatal(backend, status);
        return;
    }
    if (message.type == MESSAGE_GET) {
        finish_group(backend);
        if (backend->taken > frame_start)
            handle_get(backend, &message, frame_start);
        return;
    }
    bool slow = backend->process->hosting && is_slow(&message);
    if (message.type == MESSAGE_WRITE && !slow) {
        handle_write(backend, &message, frame_start);
        return;
    }
    if (!finish_before(backend, frame_start))
        return;
    if (slow) {
        backend->slow = true;
        backend->slow_frame = *frame;
        return;
    }
    switch (message.type) {
    case MESSAGE_PING:
        reply_done(backend, message.id, db_visible_lsn(backend->db));
        break;
    case MESSAGE_MULTI_GET:
        handle_multi_get(backend, &message);
        break;
    case MESSAGE_SCAN:
        handle_scan(backend, &message);
        break;
    case MESSAGE_SCAN_MORE:
        handle_scan_more(backend, &message);
        break;
    case MESSAGE_SCAN_CLOSE: {
        OpenScan *scan = find_scan(backend, message.id);
        if (scan != NULL)
            close_scan(backend, scan);
        break;
    }
    case MESSAGE_MEASURE:
        handle_measure(backend, &message);
        break;
    case MESSAGE_SNAPSHOT:
        handle_snapshot(backend, &message);
        break;
    case MESSAGE_RELEASE:
        handle_release(backend, &message);
        break;
    case MESSAGE_PROPERTY:
        handle_property(backend, &message);
        break;
    case MESSAGE_CONTROL:
        handle_control(backend, &message);
        break;
    default:
        backend_fatal(backend, status_set(AIDB_PROTOCOL, "%s makes no sense here",
                                          message_type_name(message.type)));
    }
}

void request_deinit(Backend *backend)
{
    for (size_t i = 0; i < SCANS_MAX; i++)
        if (backend->scans[i].open)
            close_scan(backend, &backend->scans[i]);
}
