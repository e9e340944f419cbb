/*
 * session.c - one client's conversation, as a state machine.
 *
 * A turn: carry out every complete request of the input buffer (as long as the output buffer has room),
 * let open scans add chunks, wait once for the durability of all writes among them, send all replies
 * with one system call. What it waits for then is the answer of session_send; who waits, for one client
 * or for many, is the loop's business (backend.c, host.c). So a pipelining client pays for one sync a
 * turn, and a client that does not read its replies stops only itself: its requests are left in the
 * socket, its output buffer stays bounded.
 *
 * Nothing of the engine is held across a turn but registered snapshots: no epoch, no lock, no section.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include "common/log.h"
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOW_GRACE_NS  (5ull * 1000000000ull)
#define STALL_LIMIT_MS 60000 /* a client may not leave a large request half sent for longer */
#define DEBT_LOOK_NS   50000000u
#define GOODBYE_READS  256
#define GOODBYE_MS     1000
#define MS             UINT64_C(1000000)

/* ---- what it tells --------------------------------------------------------------------------- */

void backend_set_title(Backend *backend)
{
    port_title_set("aidb: backend %" PRIu64 " %s %s", backend->number, backend->peer,
                   backend->activity);
    backend->title_ns = coarse_now();
    backend->title_stale = false;
}

void backend_activity(Backend *backend, const char *activity)
{
    if (backend->activity != activity) {
        backend->activity = activity;
        memcpy(backend->slot->activity, activity, strlen(activity) + 1);
        backend->title_stale = !backend->process->hosting;
    }
    if (backend->title_stale && coarse_now() - backend->title_ns >= TITLE_INTERVAL_NS)
        backend_set_title(backend);
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* An order to end, said to the client instead of whatever was going on. */
static Status told_to_end(const Backend *backend)
{
    if (atomic_load(&backend->shared->state) == SERVER_STOPPING)
        return status_set(AIDB_CONNECTION, "the server is shutting down");
    return status_set(AIDB_CONNECTION, "the connection was ended by an administrator");
}

void backend_fatal(Backend *backend, Status status)
{
    if (backend->closing)
        return;
    backend->closing = true;
    backend->linger = status == AIDB_PROTOCOL;
    if (status == AIDB_PROTOCOL)
        server_log(LOG_LEVEL_INFO, "connection %" PRIu64 " from %s broke the protocol: %s",
                   backend->number, backend->peer, status_message());
    if (error_encode(&backend->output, 0, status, true) != AIDB_OK)
        backend->gone = true;
}

void backend_error(Backend *backend, uint64_t id, Status status)
{
    uint32_t interrupt = atomic_load(&backend->slot->interrupt);
    if (status == AIDB_CANCELED && (interrupt & SLOT_INTERRUPT_TERMINATE) != 0) {
        backend_fatal(backend, told_to_end(backend));
        return;
    }
    if (status == AIDB_CANCELED && (interrupt & SLOT_INTERRUPT_CANCEL) != 0) {
        atomic_fetch_and(&backend->slot->interrupt, ~SLOT_INTERRUPT_CANCEL);
        if (atomic_exchange(&backend->timed_out, false))
            status = status_set(AIDB_TIMEOUT,
                                "the request took longer than statement_timeout (%" PRIu64 " ms)",
                                backend->config->server.statement_timeout);
        else
            status = status_set(AIDB_CANCELED, "canceled on request of the client");
    }
    if (status == AIDB_CORRUPTION || status == AIDB_IO || status == AIDB_INTERNAL)
        server_log(LOG_LEVEL_ERROR, "connection %" PRIu64 " from %s: %s", backend->number,
                   backend->peer, status_message());
    if (error_encode(&backend->output, id, status, false) != AIDB_OK)
        backend->gone = true;
    if (status == AIDB_FAILED || db_failed(backend->db)) {
        backend->exit_code = CHILD_EXIT_RESET;
        backend->closing = true;
    }
}

/* ---- buffers --------------------------------------------------------------------------------- */

/* In a hosting process an idle client has no buffers: they go round. */
static void take_buffer(Backend *backend, Buffer *buffer)
{
    BackendProcess *process = backend->process;
    if (buffer->capacity == 0 && process->spare_count > 0 && !backend->slow)
        *buffer = process->spare[--process->spare_count];
}

static void give_buffer(Backend *backend, Buffer *buffer)
{
    BackendProcess *process = backend->process;
    buffer_clear(buffer);
    if (buffer->capacity > KEEP_SIZE ||
        (process->hosting && process->spare_count == SPARE_BUFFERS_MAX))
        buffer_deinit(buffer);
    if (!process->hosting || buffer->capacity == 0)
        return;
    process->spare[process->spare_count++] = *buffer;
    *buffer = (Buffer){0};
}

/* ---- output ---------------------------------------------------------------------------------- */

void backend_settle_later(Backend *backend, uint64_t end, aidb_durability durability)
{
    if (end > backend->settle_end)
        backend->settle_end = end;
    if (durability > backend->settle_durability)
        backend->settle_durability = durability;
}

/* When the log fails, none of the replies that waited is sent: their writers are told that the outcome
 * is unknown. */
void session_settled(Backend *backend, Status status)
{
    backend->settle_end = 0;
    backend->settle_durability = AIDB_ASYNC;
    if (status != AIDB_OK) {
        backend->output.size = backend->settled;
        backend->closing = false;
        backend_fatal(backend, AIDB_UNKNOWN);
        backend->exit_code = CHILD_EXIT_RESET;
    }
}

/* Sends what the socket takes without waiting. */
static void send_output(Backend *backend)
{
    backend->settled = backend->output.size;
    if (backend->sent == backend->settled)
        return;
    bool taken = true;
    process_begin_send(backend);
    while (backend->sent < backend->settled && !backend->gone && taken) {
        ssize_t put = send(backend->fd, backend->output.data + backend->sent,
                           backend->settled - backend->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put >= 0)
            backend->sent += (size_t)put;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            taken = false;
        else if (errno != EINTR)
            backend->gone = true;
    }
    process_end_send(backend, taken && !backend->gone);
    if (!taken)
        return;
    buffer_clear(&backend->output);
    backend->sent = backend->settled = 0;
}

static size_t output_waiting(const Backend *backend)
{
    return backend->output.size - backend->sent;
}

/* ---- input ----------------------------------------------------------------------------------- */

static void compact_input(Backend *backend)
{
    if (backend->taken == 0)
        return;
    size_t rest = backend->input.size - backend->taken;
    memmove(backend->input.data, backend->input.data + backend->taken, rest);
    backend->input.size = rest;
    backend->taken = 0;
    if (backend->drawn > 0) {
        /* The request that drew it has been taken; the next large one draws its own. */
        atomic_fetch_sub(&backend->shared->request_memory_used, backend->drawn);
        backend->drawn = 0;
        if (rest == 0)
            buffer_deinit(&backend->input);
    }
}

/* Draws a large request's size on the server's budget. The first one is always let in, however large. */
static bool draw_budget(Backend *backend, uint64_t size)
{
    _Atomic uint64_t *used = &backend->shared->request_memory_used;
    uint64_t before = atomic_load(used);
    do {
        if (before != 0 && before + size > backend->config->server.request_memory)
            return false;
    } while (!atomic_compare_exchange_weak(used, &before, before + size));
    backend->drawn += size;
    backend->drawn_since_ns = coarse_now();
    return true;
}

static void wait_for_memory(Backend *backend, bool waits)
{
    if (waits == backend->waits_for_memory)
        return;
    backend->waits_for_memory = waits;
    if (waits)
        atomic_fetch_add(&backend->shared->request_memory_waiters, 1);
    else
        atomic_fetch_sub(&backend->shared->request_memory_waiters, 1);
}

/* Makes room for at least the request that has begun to arrive. */
ReadResult session_read(Backend *backend, bool wait)
{
    compact_input(backend);
    Buffer *input = &backend->input;
    take_buffer(backend, input);
    size_t most = backend->process->hosting ? INPUT_HOSTED_MAX : INPUT_MAX;
    /* A spare one may be small: it was somebody's output. */
    size_t want = input->capacity < INPUT_START ? INPUT_START : 1;
    if (backend->input_full && input->capacity > 0 && input->capacity < most)
        want = input->capacity;
    Frame frame;
    if (backend->magic_seen && input->size > 0 &&
        frame_decode(input->data, input->size, backend->body_max, &frame) == FRAME_PARTIAL &&
        frame.size > input->size) {
        if (frame.size > LARGE_REQUEST && backend->drawn < frame.size &&
            !draw_budget(backend, frame.size - backend->drawn)) {
            backend_activity(backend, "waiting for request memory");
            wait_for_memory(backend, true);
            backend->resume_ns = port_monotonic_ns() + BUDGET_RETRY_MS * MS;
            return READ_NO_BUDGET;
        }
        want = frame.size - input->size;
    }
    wait_for_memory(backend, false);
    if (buffer_reserve(input, want) != AIDB_OK) {
        backend_fatal(backend, AIDB_NO_MEMORY);
        return READ_NOTHING;
    }
    size_t room = input->capacity - input->size;
    ssize_t got = recv(backend->fd, input->data + input->size, room, wait ? 0 : MSG_DONTWAIT);
    if (got > 0) {
        input->size += (size_t)got;
        backend->input_full = (size_t)got == room;
        backend->input_since_ns = coarse_now();
        backend->rested = false;
        return READ_GOT;
    }
    backend->input_full = false;
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        backend->gone = true;
    return READ_NOTHING;
}

/* ---- greeting -------------------------------------------------------------------------------- */

static void take_hello(Backend *backend, const Frame *frame)
{
    Message hello;
    Status status = message_decode(frame, &hello);
    if (status == AIDB_OK && hello.type != MESSAGE_HELLO)
        status = status_set(AIDB_PROTOCOL, "%s before HELLO", message_type_name(hello.type));
    if (status == AIDB_OK &&
        (hello.version > PROTOCOL_VERSION_MAX || hello.version_max < PROTOCOL_VERSION_MIN))
        status = status_set(AIDB_UNSUPPORTED,
                            "the client speaks protocol versions %u to %u, this server %u to %u",
                            (unsigned)hello.version, (unsigned)hello.version_max,
                            PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX);
    if (status != AIDB_OK) {
        backend_fatal(backend, status);
        return;
    }
    size_t size = hello.name.size < sizeof backend->slot->application - 1
                      ? hello.name.size
                      : sizeof backend->slot->application - 1;
    memcpy(backend->slot->application, hello.name.data, size);
    backend->slot->application[size] = '\0';
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)backend->slot->application[i] < ' ')
            backend->slot->application[i] = '?';

    uint64_t body = backend->config->engine.batch_max > AIDB_VALUE_MAX
                        ? backend->config->engine.batch_max
                        : AIDB_VALUE_MAX;
    backend->body_max = (size_t)body + FRAME_BODY_SLACK;
    backend->greeted = true;
    Message ready = {
        .type = MESSAGE_READY,
        .id = hello.id,
        .version = PROTOCOL_VERSION_MAX,
        .session = backend->number,
        .secret = backend->secret,
        .bytes = backend->body_max,
        .durability = (uint64_t)backend->config->engine.durability,
        .lsn = db_visible_lsn(backend->db),
        .name = slice_from_string(AIDB_VERSION),
    };
    status = message_encode(&backend->output, &ready);
    if (status != AIDB_OK)
        backend_fatal(backend, status);
}

/* The four bytes in front of the first frame. */
static bool take_magic(Backend *backend)
{
    if (backend->magic_seen)
        return true;
    if (backend->input.size - backend->taken < PROTOCOL_MAGIC_SIZE)
        return false;
    if (memcmp(backend->input.data + backend->taken, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE) != 0) {
        backend_fatal(backend,
                      status_set(AIDB_PROTOCOL, "the first bytes are not those of an AiDb client"));
        return false;
    }
    backend->taken += PROTOCOL_MAGIC_SIZE;
    backend->magic_seen = true;
    return true;
}

/* ---- a turn ---------------------------------------------------------------------------------- */

static void process_input(Backend *backend)
{
    if (!take_magic(backend))
        return;
    while (!backend->closing && !backend->slow && backend->resume_ns == 0 &&
           output_waiting(backend) < OUTPUT_HIGH && backend->taken < backend->input.size) {
        size_t frame_start = backend->taken;
        Frame frame;
        FrameResult result =
            frame_decode(backend->input.data + frame_start, backend->input.size - frame_start,
                         backend->body_max, &frame);
        if (result == FRAME_PARTIAL)
            break;
        if (result == FRAME_BAD) {
            request_finish(backend);
            if (backend->taken == frame_start)
                backend_fatal(backend, AIDB_PROTOCOL);
            break;
        }
        backend->taken += frame.size;
        if (backend->greeted)
            request_handle(backend, &frame, frame_start);
        else
            take_hello(backend, &frame);
    }
    request_finish(backend);
}

/* Whether a complete request waits that was not begun for lack of room for its reply. */
static bool input_waits(const Backend *backend)
{
    Frame frame;
    return backend->input.size > backend->taken &&
           frame_decode(backend->input.data + backend->taken, backend->input.size - backend->taken,
                        backend->body_max, &frame) == FRAME_COMPLETE;
}

/* Whether the time has come to go on. A debt runs off faster when the pressure on writers goes. */
static bool is_resumed(Backend *backend)
{
    if (backend->resume_ns == 0)
        return true;
    uint64_t now = port_monotonic_ns();
    if (backend->debt.left_ns > 0) {
        uint64_t left = db_debt_left(backend->db, &backend->debt);
        backend->resume_ns = left > 0 ? now + left : 0;
    } else if (now >= backend->resume_ns) {
        backend->resume_ns = 0;
    }
    return backend->resume_ns == 0;
}

void session_work(Backend *backend)
{
    if (backend->gone)
        return;
    if ((atomic_load(&backend->slot->interrupt) & SLOT_INTERRUPT_TERMINATE) != 0)
        backend_fatal(backend, told_to_end(backend));
    if (backend->closing || !is_resumed(backend))
        return;
    take_buffer(backend, &backend->output);
    process_input(backend);
    while (!backend->closing && !backend->slow && output_waiting(backend) < OUTPUT_HIGH &&
           request_scan_step(backend) && !backend->process->hosting)
        ;
}

/* While others wait for request memory, a large request must come at 1 MiB a second at least; five
 * seconds are for free. A client on a slow line is left alone as long as it is in nobody's way. */
static void check_large_request(Backend *backend)
{
    if (backend->drawn == 0 || atomic_load(&backend->shared->request_memory_waiters) == 0)
        return;
    uint64_t limit_ns = SLOW_GRACE_NS + backend->drawn * 1000000000ull / (1u << 20);
    if (coarse_now() - backend->drawn_since_ns < limit_ns)
        return;
    backend_fatal(backend,
                  status_set(AIDB_TIMEOUT, "a large request came too slowly while others waited"));
}

Want session_send(Backend *backend)
{
    if (!backend->gone)
        send_output(backend);
    if (backend->gone || (backend->closing && output_waiting(backend) == 0))
        return WANT_GOODBYE;
    if (backend->slow)
        return WANT_THREAD;
    if (output_waiting(backend) > 0) {
        if (backend->sending_since_ns == 0 || backend->sent != backend->sent_before) {
            backend->sending_since_ns = coarse_now();
            backend->sent_before = backend->sent;
        }
        return WANT_OUTPUT;
    }
    backend->sending_since_ns = 0;
    if (backend->resume_ns != 0)
        return WANT_TIME;
    if (input_waits(backend) || request_scan_waits(backend))
        return WANT_TURN;
    check_large_request(backend);
    return backend->closing ? WANT_TURN : WANT_INPUT;
}

void session_idle(Backend *backend)
{
    if (!backend->greeted)
        return;
    compact_input(backend);
    if (backend->drawn > 0 || backend->input.size != 0)
        return;
    /* A cancel request that comes now has nothing to cancel. */
    if (atomic_load_explicit(&backend->slot->interrupt, memory_order_relaxed) != 0)
        atomic_fetch_and(&backend->slot->interrupt, ~SLOT_INTERRUPT_CANCEL);
    backend_activity(backend, "idle");
    give_buffer(backend, &backend->input);
    give_buffer(backend, &backend->output);
}

/* ---- time ------------------------------------------------------------------------------------ */

static uint64_t send_limit_ms(const Backend *backend)
{
    return backend->closing ? GOODBYE_MS : backend->config->server.statement_timeout;
}

uint64_t session_wake_ns(const Backend *backend, Want want)
{
    switch (want) {
    case WANT_OUTPUT: {
        uint64_t limit = send_limit_ms(backend);
        return limit == 0 ? 0 : backend->sending_since_ns + limit * MS;
    }
    case WANT_TIME:
        if (backend->debt.left_ns > 0 && backend->resume_ns > backend->debt.seen_ns + DEBT_LOOK_NS)
            return backend->debt.seen_ns + DEBT_LOOK_NS;
        return backend->resume_ns;
    case WANT_INPUT:
        if (!backend->greeted)
            return backend->deadline_ns;
        return backend->drawn == 0 ? 0 : coarse_now() + 1000 * MS;
    case WANT_GOODBYE:
        return backend->deadline_ns;
    default:
        return 0;
    }
}

/* The client has not taken or sent a byte for too long while that holds something up. */
static void check_stall(Backend *backend, uint64_t since_ns, uint64_t limit_ms, const char *what)
{
    if (limit_ms == 0 || port_monotonic_ns() - since_ns < limit_ms * MS)
        return;
    server_log(LOG_LEVEL_INFO, "connection %" PRIu64 " from %s closed: %s for %" PRIu64 " ms",
               backend->number, backend->peer, what, limit_ms);
    backend->gone = true;
}

static bool has_room(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLOUT) != 0;
}

void session_check_time(Backend *backend, Want want)
{
    /* Who has taken some while this process was busy with others is sent more first. */
    if (want == WANT_OUTPUT && !has_room(backend->fd))
        check_stall(backend, backend->sending_since_ns, send_limit_ms(backend),
                    backend->closing ? "it did not take the last reply" : "it took no replies");
    if (want != WANT_INPUT)
        return;
    if (!backend->greeted && port_monotonic_ns() >= backend->deadline_ns)
        backend_fatal(backend, status_set(AIDB_TIMEOUT,
                                          "the greeting took longer than authentication_timeout"));
    if (backend->drawn > 0)
        check_stall(backend, backend->input_since_ns, STALL_LIMIT_MS,
                    "a large request came to a halt");
}

/* ---- beginning and end ----------------------------------------------------------------------- */

/* Closing a TCP connection with unread input resets it, and the client may then never see what was said
 * last. So the input is read away; a client that broke the protocol may be sending more for a while. */
bool session_goodbye(Backend *backend)
{
    if (backend->gone)
        return true;
    uint64_t now = port_monotonic_ns();
    if (!backend->said_goodbye) {
        backend->said_goodbye = true;
        backend->deadline_ns = now + (backend->linger ? GOODBYE_MS * MS : 0);
        if (shutdown(backend->fd, SHUT_WR) != 0)
            return true;
    }
    char bytes[4096];
    for (int round = 0; round < GOODBYE_READS; round++) {
        ssize_t got = recv(backend->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return true;
        if (got < 0)
            return now >= backend->deadline_ns;
    }
    return true;
}

void session_init(Backend *backend, BackendProcess *process, Slot *slot,
                  const BackendClient *client)
{
    *backend = (Backend){
        .process = process,
        .db = process->db,
        .shared = process->shared,
        .session = process->session,
        .config = &process->config,
        .slot = slot,
        .quiet = &process->quiet[process->hosting ? slot->index : 0],
        .fd = client->fd,
        .exit_code = CHILD_EXIT_OK,
        .number = client->session,
        .secret = client->secret,
        .body_max = FRAME_BODY_MAX_HELLO,
        .settle_durability = AIDB_ASYNC,
        .deadline_ns = port_monotonic_ns() + process->config.server.authentication_timeout * MS,
    };
    memcpy(backend->peer, client->peer, sizeof backend->peer);
    backend->peer[sizeof backend->peer - 1] = '\0';
    memcpy(slot->peer, backend->peer, sizeof slot->peer);
    atomic_store_explicit(backend->quiet, backend->fd + 1, memory_order_relaxed);
    atomic_store(&slot->started_us, port_realtime_us());
    atomic_store(&slot->session_id, client->session);
    backend_activity(backend, "greeting");
    if (backend->config->server.log_connections)
        server_log(LOG_LEVEL_INFO, "connection %" PRIu64 " from %s", backend->number,
                   backend->peer);
}

void session_deinit(Backend *backend)
{
    if (backend->config->server.log_connections)
        server_log(LOG_LEVEL_INFO, "connection %" PRIu64 " from %s has ended", backend->number,
                   backend->peer);
    request_deinit(backend);
    wait_for_memory(backend, false);
    if (backend->drawn > 0)
        atomic_fetch_sub(&backend->shared->request_memory_used, backend->drawn);
    atomic_store_explicit(backend->quiet, 0, memory_order_relaxed);
    close(backend->fd);
    buffer_deinit(&backend->input);
    buffer_deinit(&backend->output);
}
