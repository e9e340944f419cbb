/*
 * backend.c - the loop of a backend, and its socket.
 *
 * One round: carry out every complete request of the input buffer (as long as the output buffer has
 * room), let open scans add chunks, wait once for the durability of all writes among them, send all
 * replies with one system call; then read more, or sleep on latch and socket. So a pipelining client
 * pays for one sync a round, and a client that does not read its replies stops only itself: its
 * requests are left in the socket, its output buffer stays bounded.
 *
 * Nothing of the engine is held across a round but registered snapshots: no epoch, no lock, no section.
 *
 * Interrupts reach a backend as bits in its slot (set by signal handlers here and by other backends).
 * The engine gives up at them; what they mean is sorted out in backend_error.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include "common/log.h"
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define INPUT_START       ((size_t)16 << 10)
#define INPUT_MAX         ((size_t)256 << 10) /* for pipelined requests; single ones may be larger */
#define LARGE_REQUEST     ((size_t)256 << 10) /* from here on a request draws on request_memory */
#define KEEP_SIZE         ((size_t)64 << 10)  /* buffers of an idle backend */
#define TITLE_INTERVAL_NS 200000000u
#define REST_MS           5000
#define BUDGET_RETRY_MS   20
#define SLOW_GRACE_NS     (5ull * 1000000000ull)
#define STALL_LIMIT_MS    60000 /* a client may not leave a large request half sent for longer */
#define GOODBYE_READS     256
#define GOODBYE_MS        1000

/* ---- signals --------------------------------------------------------------------------------- */

/* The slot that signal handlers act on: a process has one. */
static Slot *_Atomic signal_slot;
static volatile sig_atomic_t timed_out;

static void interrupt_self(uint32_t bits)
{
    Slot *slot = atomic_load(&signal_slot);
    if (slot == NULL)
        return;
    atomic_fetch_or(&slot->interrupt, bits);
    latch_wake(slot);
}

static void on_signal(int signal_number)
{
    if (signal_number == SIGALRM)
        timed_out = 1;
    interrupt_self(signal_number == SIGTERM                               ? SLOT_INTERRUPT_TERMINATE
                   : signal_number == SIGUSR2 || signal_number == SIGALRM ? SLOT_INTERRUPT_CANCEL
                                                                          : 0);
}

static void install_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

void backend_time_limit_begin(Backend *backend)
{
    uint64_t limit = backend->config.server.statement_timeout;
    if (limit == 0)
        return;
    if (timed_out) {
        /* The time of the request before ran out just when it had been done. */
        timed_out = 0;
        atomic_fetch_and(&backend->slot->interrupt, ~SLOT_INTERRUPT_CANCEL);
    }
    struct itimerval timer = {.it_value = {.tv_sec = (time_t)(limit / 1000),
                                           .tv_usec = (suseconds_t)(limit % 1000 * 1000)}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

void backend_time_limit_end(Backend *backend)
{
    if (backend->config.server.statement_timeout == 0)
        return;
    struct itimerval off = {0};
    setitimer(ITIMER_REAL, &off, NULL);
}

/* ---- what it tells --------------------------------------------------------------------------- */

static uint64_t coarse_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void set_title(Backend *backend)
{
    port_title_set("aidb: backend %" PRIu64 " %s %s", backend->start->session, backend->start->peer,
                   backend->activity);
    backend->title_ns = coarse_now();
    backend->title_stale = false;
}

void backend_activity(Backend *backend, const char *activity)
{
    if (backend->activity != activity) {
        backend->activity = activity;
        memcpy(backend->slot->activity, activity, strlen(activity) + 1);
        backend->title_stale = true;
    }
    if (backend->title_stale && coarse_now() - backend->title_ns >= TITLE_INTERVAL_NS)
        set_title(backend);
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
                   backend->start->session, backend->start->peer, status_message());
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
        if (timed_out) {
            timed_out = 0;
            status = status_set(AIDB_TIMEOUT,
                                "the request took longer than statement_timeout (%" PRIu64 " ms)",
                                backend->config.server.statement_timeout);
        } else {
            status = status_set(AIDB_CANCELED, "canceled on request of the client");
        }
    }
    if (status == AIDB_CORRUPTION || status == AIDB_IO || status == AIDB_INTERNAL)
        server_log(LOG_LEVEL_ERROR, "connection %" PRIu64 " from %s: %s", backend->start->session,
                   backend->start->peer, status_message());
    if (error_encode(&backend->output, id, status, false) != AIDB_OK)
        backend->gone = true;
    if (status == AIDB_FAILED || db_failed(backend->db)) {
        backend->exit_code = CHILD_EXIT_RESET;
        backend->closing = true;
    }
}

/* ---- configuration --------------------------------------------------------------------------- */

void server_config_copy(const ServerShared *shared, Config *config, uint32_t *version)
{
    for (;;) {
        uint32_t before = atomic_load_explicit(&shared->config_version, memory_order_acquire);
        memcpy(config, &shared->config, sizeof *config);
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 &&
            atomic_load_explicit(&shared->config_version, memory_order_relaxed) == before) {
            *version = before;
            return;
        }
        port_cpu_relax();
    }
}

static void take_config(Backend *backend)
{
    if (atomic_load_explicit(&backend->shared->config_version, memory_order_relaxed) ==
        backend->config_version)
        return;
    server_config_copy(backend->shared, &backend->config, &backend->config_version);
    if (backend->start->config_changed != NULL)
        backend->start->config_changed(&backend->config);
}

/* ---- output ---------------------------------------------------------------------------------- */

void backend_settle_later(Backend *backend, uint64_t end, aidb_durability durability)
{
    if (end > backend->settle_end)
        backend->settle_end = end;
    if (durability > backend->settle_durability)
        backend->settle_durability = durability;
}

/* Waits until the replies in the output may be sent. When the log fails, none of them is: their writers
 * are told that the outcome is unknown. */
static void settle(Backend *backend)
{
    if (backend->settle_end != 0) {
        Status status = db_wait(backend->session, backend->settle_end, backend->settle_durability);
        backend->settle_end = 0;
        backend->settle_durability = AIDB_ASYNC;
        if (status != AIDB_OK) {
            backend->output.size = backend->settled;
            backend->closing = false;
            backend_fatal(backend, AIDB_UNKNOWN);
            backend->exit_code = CHILD_EXIT_RESET;
        }
    }
    backend->settled = backend->output.size;
}

/* Sends what the socket takes without waiting. */
static void send_output(Backend *backend)
{
    while (backend->sent < backend->settled && !backend->gone) {
        ssize_t put = send(backend->fd, backend->output.data + backend->sent,
                           backend->settled - backend->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put >= 0)
            backend->sent += (size_t)put;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        else if (errno != EINTR)
            backend->gone = true;
    }
    if (backend->sent == backend->output.size) {
        buffer_clear(&backend->output);
        backend->sent = backend->settled = 0;
        if (backend->output.capacity > 4 * OUTPUT_HIGH)
            buffer_deinit(&backend->output);
    }
    /* A client that always leaves a little unread must not make the buffer grow. */
    if (backend->sent > OUTPUT_HIGH) {
        memmove(backend->output.data, backend->output.data + backend->sent,
                backend->output.size - backend->sent);
        backend->output.size -= backend->sent;
        backend->settled -= backend->sent;
        backend->sent = 0;
    }
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
    if (backend->drawn > 0 && rest < LARGE_REQUEST) {
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
        if (before != 0 && before + size > backend->config.server.request_memory)
            return false;
    } while (!atomic_compare_exchange_weak(used, &before, before + size));
    backend->drawn += size;
    backend->drawn_since_ns = coarse_now();
    return true;
}

typedef enum ReadResult { READ_GOT, READ_NOTHING, READ_NO_BUDGET } ReadResult;

/* Reads what is there, after making room for at least the request that has begun to arrive. */
static ReadResult read_input(Backend *backend)
{
    compact_input(backend);
    Buffer *input = &backend->input;
    size_t want = input->capacity == 0 ? INPUT_START : 1;
    if (backend->input_full && input->capacity > 0 && input->capacity < INPUT_MAX)
        want = input->capacity;
    Frame frame;
    if (backend->magic_seen && input->size > 0 &&
        frame_decode(input->data, input->size, backend->body_max, &frame) == FRAME_PARTIAL &&
        frame.size > input->size) {
        if (frame.size > LARGE_REQUEST && backend->drawn < frame.size &&
            !draw_budget(backend, frame.size - backend->drawn))
            return READ_NO_BUDGET;
        want = frame.size - input->size;
    }
    if (buffer_reserve(input, want) != AIDB_OK) {
        backend_fatal(backend, AIDB_NO_MEMORY);
        return READ_NOTHING;
    }
    size_t room = input->capacity - input->size;
    ssize_t got = recv(backend->fd, input->data + input->size, room, MSG_DONTWAIT);
    if (got > 0) {
        input->size += (size_t)got;
        backend->input_full = (size_t)got == room;
        backend->input_since_ns = coarse_now();
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

    uint64_t body = backend->config.engine.batch_max > AIDB_VALUE_MAX
                        ? backend->config.engine.batch_max
                        : AIDB_VALUE_MAX;
    backend->body_max = (size_t)body + FRAME_BODY_SLACK;
    backend->greeted = true;
    Message ready = {
        .type = MESSAGE_READY,
        .id = hello.id,
        .version = PROTOCOL_VERSION_MAX,
        .session = backend->start->session,
        .secret = backend->start->secret,
        .bytes = backend->body_max,
        .durability = (uint64_t)backend->config.engine.durability,
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

/* ---- the loop -------------------------------------------------------------------------------- */

static void process_input(Backend *backend)
{
    if (!take_magic(backend))
        return;
    while (!backend->closing && output_waiting(backend) < OUTPUT_HIGH &&
           backend->taken < backend->input.size) {
        size_t frame_start = backend->taken;
        Frame frame;
        FrameResult result =
            frame_decode(backend->input.data + frame_start, backend->input.size - frame_start,
                         backend->body_max, &frame);
        if (result == FRAME_PARTIAL)
            break;
        if (result == FRAME_BAD) {
            request_finish(backend);
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

/* The client has not taken or sent a byte for too long while that holds something up. */
static void check_stall(Backend *backend, uint64_t since_ns, uint64_t limit_ms, const char *what)
{
    if (limit_ms == 0 || coarse_now() - since_ns < limit_ms * 1000000u)
        return;
    server_log(LOG_LEVEL_INFO, "connection %" PRIu64 " from %s closed: %s for %" PRIu64 " ms",
               backend->start->session, backend->start->peer, what, limit_ms);
    backend->gone = true;
}

/* Sleeps until the client takes more, or the latch. */
static void wait_to_send(Backend *backend, uint64_t since_ns)
{
    uint64_t limit = backend->config.server.statement_timeout;
    backend_activity(backend, "sending");
    latch_wait_for(backend->slot, backend->fd, POLLOUT,
                   limit > 0 && limit < 1000 ? (int)limit : 1000);
    check_stall(backend, since_ns, limit, "it took no replies");
}

/* Sleeps until the client sends more, or the latch. */
static void wait_to_read(Backend *backend)
{
    int timeout_ms = -1;
    if (!backend->greeted) {
        uint64_t now = port_monotonic_ns();
        if (now >= backend->deadline_ns) {
            backend_fatal(
                backend,
                status_set(AIDB_TIMEOUT, "the greeting took longer than authentication_timeout"));
            return;
        }
        timeout_ms = (int)((backend->deadline_ns - now) / 1000000u) + 1;
    } else if (backend->drawn > 0) {
        timeout_ms = 1000;
    } else if (backend->input.size == backend->taken) {
        /* Idle: a cancel request that comes now has nothing to cancel. */
        atomic_fetch_and(&backend->slot->interrupt, ~SLOT_INTERRUPT_CANCEL);
        backend_activity(backend, "idle");
        if (backend->title_stale)
            timeout_ms = (int)(TITLE_INTERVAL_NS / 1000000u);
        else if (!backend->rested)
            timeout_ms = REST_MS;
        if (backend->input.capacity > KEEP_SIZE)
            buffer_deinit(&backend->input);
        if (backend->output.capacity > KEEP_SIZE)
            buffer_deinit(&backend->output);
        backend->taken = backend->input.size = 0;
    }
    bool readable = latch_wait(backend->slot, backend->fd, timeout_ms);
    if (readable) {
        backend->rested = false;
    } else if (backend->title_stale && backend->input.size == 0) {
        set_title(backend);
    } else if (timeout_ms == REST_MS && backend->drawn == 0 && backend->greeted) {
        backend->rested = true;
        db_session_rest(backend->session);
    }
    if (!readable && backend->drawn > 0)
        check_stall(backend, backend->input_since_ns, STALL_LIMIT_MS,
                    "a large request came to a halt");
}

static void serve(Backend *backend)
{
    uint64_t sending_since = 0;
    size_t sent_before = 0;
    while (!backend->gone) {
        take_config(backend);
        if ((atomic_load(&backend->slot->interrupt) & SLOT_INTERRUPT_TERMINATE) != 0)
            backend_fatal(backend, told_to_end(backend));
        if (!backend->closing) {
            process_input(backend);
            while (!backend->closing && output_waiting(backend) < OUTPUT_HIGH &&
                   request_scan_step(backend))
                ;
        }
        settle(backend);
        send_output(backend);
        if (backend->gone || (backend->closing && output_waiting(backend) == 0))
            return;
        if (output_waiting(backend) > 0) {
            if (sending_since == 0 || backend->sent != sent_before) {
                sending_since = coarse_now();
                sent_before = backend->sent;
            }
            if (backend->closing)
                check_stall(backend, sending_since, GOODBYE_MS, "it did not take the last reply");
            wait_to_send(backend, sending_since);
            continue;
        }
        sending_since = 0;
        if (backend->closing || input_waits(backend) || request_scan_waits(backend))
            continue;
        check_large_request(backend);
        if (!backend->input_full && !backend->closing)
            wait_to_read(backend);
        if (!backend->gone && !backend->closing && read_input(backend) == READ_NO_BUDGET) {
            backend_activity(backend, "waiting for request memory");
            atomic_fetch_add(&backend->shared->request_memory_waiters, 1);
            latch_wait(backend->slot, -1, BUDGET_RETRY_MS);
            atomic_fetch_sub(&backend->shared->request_memory_waiters, 1);
        }
    }
}

/* Closing a TCP connection with unread input resets it, and the client may then never see what was said
 * last. So the input is read away; a client that broke the protocol may be sending more for a while. */
static void say_goodbye(Backend *backend)
{
    if (backend->gone || shutdown(backend->fd, SHUT_WR) != 0)
        return;
    uint64_t now = port_monotonic_ns();
    uint64_t deadline = now + (backend->linger ? GOODBYE_MS * 1000000ull : 0);
    char bytes[4096];
    for (int round = 0; round < GOODBYE_READS; round++) {
        struct pollfd ready = {.fd = backend->fd, .events = POLLIN};
        int left_ms = now < deadline ? (int)((deadline - now) / 1000000u) + 1 : 0;
        if (poll(&ready, 1, left_ms) <= 0 ||
            recv(backend->fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
            return;
        now = port_monotonic_ns();
    }
}

static Status backend_open(Backend *backend, const BackendStart *start)
{
    backend->start = start;
    backend->db = start->db;
    backend->shared = start->shared;
    backend->fd = start->fd;
    backend->body_max = FRAME_BODY_MAX_HELLO;
    backend->settle_durability = AIDB_ASYNC;
    backend->exit_code = CHILD_EXIT_OK;
    server_config_copy(start->shared, &backend->config, &backend->config_version);
    backend->deadline_ns =
        port_monotonic_ns() + backend->config.server.authentication_timeout * 1000000u;
    RETURN_IF_FAILED(db_session_create(start->db, start->slot, SLOT_BACKEND, &backend->session));
    backend->slot = db_session_slot(backend->session);
    snprintf(backend->slot->peer, sizeof backend->slot->peer, "%s", start->peer);
    atomic_store(&backend->slot->started_us, port_realtime_us());
    atomic_store(&backend->slot->session_id, start->session);
    atomic_store(&signal_slot, backend->slot);
    install_signals();
    backend_activity(backend, "greeting");
    return AIDB_OK;
}

int backend_run(const BackendStart *start)
{
    Backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) {
        server_log(LOG_LEVEL_ERROR, "could not serve %s: out of memory", start->peer);
        return CHILD_EXIT_FAILED;
    }
    Status status = backend_open(backend, start);
    if (status != AIDB_OK) {
        server_log(LOG_LEVEL_ERROR, "could not serve %s: %s", start->peer, status_message());
        free(backend);
        return CHILD_EXIT_FAILED;
    }
    if (backend->config.server.log_connections)
        server_log(LOG_LEVEL_INFO, "connection %" PRIu64 " from %s", start->session, start->peer);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    serve(backend);
    say_goodbye(backend);
    if (backend->config.server.log_connections)
        server_log(LOG_LEVEL_INFO, "connection %" PRIu64 " from %s has ended", start->session,
                   start->peer);

    request_deinit(backend);
    if (backend->drawn > 0)
        atomic_fetch_sub(&backend->shared->request_memory_used, backend->drawn);
    int exit_code = backend->exit_code;
    atomic_store(&signal_slot, NULL);
    db_session_destroy(backend->session);
    close(backend->fd);
    buffer_deinit(&backend->input);
    buffer_deinit(&backend->output);
    free(backend);
    return exit_code;
}
