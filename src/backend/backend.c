/*
 * backend.c - a process that serves one client: the session's turns, and waiting in between.
 *
 * Between two requests that follow each other the process waits in recv itself, which spares the system
 * call that would tell that there is something to receive. The price is that a wake-up that comes between
 * the last look and the call is not seen before RECEIVE_MS: a latch does not end a recv. So only a client
 * that has just been served is waited for this way; when nothing comes, the process sleeps on latch and
 * socket, where no wake-up is lost. A client that always comes back at once is waited for awake (spin.c).
 */
#include "config.h"
#include "backend/backend_internal.h"

#include "common/log.h"
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

#define RECEIVE_MS 200

/* The postmaster had the socket nonblocking; sends here say themselves that they do not wait. */
static void make_blocking(int fd)
{
    struct timeval limit = {.tv_usec = RECEIVE_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

/* Milliseconds until then, rounded up; -1 for never. */
static int ms_until(uint64_t wake_ns)
{
    if (wake_ns == 0)
        return -1;
    uint64_t now = port_monotonic_ns();
    return wake_ns <= now ? 0 : (int)((wake_ns - now) / 1000000u) + 1;
}

/* Reads, or sleeps until the client sends more, or the latch. */
static ReadResult sleep_to_read(Backend *backend)
{
    uint64_t wake_ns = session_wake_ns(backend, WANT_INPUT);
    if ((backend->input_full || (backend->title_stale && wake_ns == 0)) &&
        !latch_is_woken(backend->slot)) {
        ReadResult result = session_read(backend, true);
        if (result == READ_NOTHING && backend->title_stale && !backend->gone)
            backend_set_title(backend);
        return result;
    }
    int timeout_ms = wake_ns == 0 && !backend->rested ? REST_MS : ms_until(wake_ns);
    spin_rest(backend->process);
    if (latch_wait(backend->slot, backend->fd, timeout_ms))
        return session_read(backend, false);
    if (timeout_ms == REST_MS && backend->greeted) {
        backend->rested = true;
        db_session_rest(backend->session);
    }
    return READ_NOTHING;
}

static void wait_to_read(Backend *backend)
{
    session_idle(backend);
    ReadResult result = READ_NOTHING;
    bool spins = spin_begin(backend->process), waits = true;
    while (spins && waits) {
        result = session_read(backend, false);
        waits = result == READ_NOTHING && !backend->gone && !backend->closing;
        spins = waits && spin_go_on(backend->process);
    }
    if (waits)
        result = sleep_to_read(backend);
    spin_end(backend->process, result == READ_GOT ? backend : NULL);
}

#define SEND_LOOK_MS 1000 /* the limit may have been changed meanwhile */

/* Sleeps until the client takes more, or the latch, or for a moment. */
static void wait_to_send(Backend *backend)
{
    backend_activity(backend, "sending");
    int timeout_ms = ms_until(session_wake_ns(backend, WANT_OUTPUT));
    if (timeout_ms < 0 || timeout_ms > SEND_LOOK_MS)
        timeout_ms = SEND_LOOK_MS;
    latch_wait_for(backend->slot, backend->fd, POLLOUT, timeout_ms);
}

static void serve(Backend *backend)
{
    for (;;) {
        process_take_config(backend->process);
        session_work(backend);
        if (backend->settle_end != 0)
            session_settled(backend, db_wait(backend->session, backend->settle_end,
                                             backend->settle_durability));
        Want want = session_send(backend);
        switch (want) {
        case WANT_INPUT:
            wait_to_read(backend);
            break;
        case WANT_OUTPUT:
            wait_to_send(backend);
            break;
        case WANT_TIME:
            latch_wait(backend->slot, -1, ms_until(backend->resume_ns));
            break;
        case WANT_GOODBYE:
            return;
        default:
            break;
        }
        session_check_time(backend, want);
    }
}

static void say_goodbye(Backend *backend)
{
    while (!session_goodbye(backend)) {
        struct pollfd ready = {.fd = backend->fd, .events = POLLIN};
        poll(&ready, 1, ms_until(backend->deadline_ns));
    }
}

int backend_run(const BackendStart *start, const BackendClient *client)
{
    int exit_code = CHILD_EXIT_FAILED;
    BackendProcess *process = calloc(1, sizeof *process);
    Backend *backend = calloc(1, sizeof *backend);
    Status status = process != NULL && backend != NULL
                        ? process_init(process, start, SLOT_BACKEND)
                        : status_set(AIDB_NO_MEMORY, "out of memory");
    if (status != AIDB_OK) {
        server_log(LOG_LEVEL_ERROR, "could not serve %s: %s", client->peer, status_message());
        goto out;
    }
    session_init(backend, process, process->slot, client);
    atomic_store(&process->running, backend);
    if (backend_told_to_end()) /* it came before the line above */
        atomic_fetch_or(&backend->slot->interrupt, SLOT_INTERRUPT_TERMINATE);
    make_blocking(backend->fd);
    serve(backend);
    say_goodbye(backend);
    exit_code = backend->exit_code;
    atomic_store(&process->running, NULL);
    session_deinit(backend);
    process_deinit(process);
out:
    free(backend);
    free(process);
    return exit_code;
}
