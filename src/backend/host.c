/*
 * host.c - a process that serves many clients: one loop over their sessions.
 *
 * Clients come over a channel from the postmaster, greeting unread, each with a slot that it has in all
 * but name: snapshots, interrupts, counters and activity are the client's own, the latch is the
 * process's. The engine's session acts for the slot of whose turn it is.
 *
 * In each round every client that has something to do gets one turn: at most 64 KiB of requests, or a
 * chunk of a scan. Its replies are sent at once; only those to writes that must be synced wait together,
 * once for all of them. A client that owes for its writes, or whose write must wait for a flush, or that finds no request
 * memory, is passed over until its time has come. What may take long by itself - counting, flushing,
 * compacting, a very large write - is done by a thread which has that client for itself meanwhile: the
 * loop does not touch it, and nothing that the two share changes under the thread.
 *
 * Sockets are watched edge-triggered: `readable` remembers what has not been read. Only when a client
 * does not take its replies is its socket watched for room as well.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include "common/log.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 64
#define STACK_SIZE     ((size_t)1 << 20)

typedef struct Client Client;

/* A thread that carries out one request. */
typedef struct Helper {
    Client *client;
    Session *session;
    Config config; /* the process's may change meanwhile */
    pthread_t thread;
    _Atomic bool done;
} Helper;

struct Client {
    Backend backend;
    Client *next; /* of all */
    Client *previous;
    Client *ready_next;
    Client *timed_next;
    Client *timed_previous;
    uint64_t wake_ns; /* 0: not among the timed */
    Helper *helper;
    Want want;
    bool is_ready;
    bool readable;
    bool hung_up; /* no event comes after the last bytes: it is read until the end of file */
    bool watches_output;
};

typedef struct Host {
    BackendProcess process;
    int epoll_fd;
    int channel;
    Client *clients;
    Client *timed;
    Client *ready; /* in the order in which they came */
    Client **ready_end;
    bool rested;
    int exit_code;
} Host;

/* ---- lists ----------------------------------------------------------------------------------- */

static void make_ready(Host *host, Client *client)
{
    if (client->is_ready || client->helper != NULL)
        return;
    client->is_ready = true;
    client->ready_next = NULL;
    *host->ready_end = client;
    host->ready_end = &client->ready_next;
}

static void set_wake(Host *host, Client *client, uint64_t wake_ns)
{
    if ((wake_ns != 0) == (client->wake_ns != 0)) {
        client->wake_ns = wake_ns;
        return;
    }
    client->wake_ns = wake_ns;
    if (wake_ns != 0) {
        client->timed_previous = NULL;
        client->timed_next = host->timed;
        if (host->timed != NULL)
            host->timed->timed_previous = client;
        host->timed = client;
        return;
    }
    if (client->timed_next != NULL)
        client->timed_next->timed_previous = client->timed_previous;
    if (client->timed_previous != NULL)
        client->timed_previous->timed_next = client->timed_next;
    else
        host->timed = client->timed_next;
}

/* ---- clients that come and go ---------------------------------------------------------------- */

static bool watch(Host *host, int operation, int fd, uint32_t events, void *tag)
{
    struct epoll_event event = {.events = events, .data.ptr = tag};
    return epoll_ctl(host->epoll_fd, operation, fd, &event) == 0;
}

/* `wanted` after a send that was told to try again: armed anew each time, because room that is there already is no
 * edge, and nobody would tell of it. */
static void watch_output(Host *host, Client *client, bool wanted)
{
    if (!client->watches_output && !wanted)
        return;
    client->watches_output = wanted;
    uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (wanted ? (uint32_t)EPOLLOUT : 0);
    if (!watch(host, EPOLL_CTL_MOD, client->backend.fd, events, client))
        client->backend.gone = true;
}

/* Tells the postmaster that a slot is free. When it cannot be told it has gone, and so will this be. */
static void give_slot_back(Host *host, uint32_t slot)
{
    while (send(host->channel, &slot, sizeof slot, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static void refuse(Host *host, const BackendClient *told, const char *why)
{
    server_log(LOG_LEVEL_ERROR, "could not serve %.64s: %s", told->peer, why);
    close(told->fd);
    give_slot_back(host, told->slot);
}

static void take_client(Host *host, const BackendClient *told)
{
    Client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        refuse(host, told, "out of memory");
        return;
    }
    Slot *slot = db_client_slot_claim(host->process.session, told->slot);
    if (slot == NULL ||
        !watch(host, EPOLL_CTL_ADD, told->fd, EPOLLIN | EPOLLRDHUP | EPOLLET, client)) {
        if (slot != NULL)
            slot_release(slot);
        free(client);
        refuse(host, told, "its socket cannot be watched");
        return;
    }
    session_init(&client->backend, &host->process, slot, told);
    client->next = host->clients;
    if (host->clients != NULL)
        host->clients->previous = client;
    host->clients = client;
    client->want = WANT_INPUT;
    client->readable = true;
    set_wake(host, client, session_wake_ns(&client->backend, WANT_INPUT));
    make_ready(host, client);
}

/* Takes the clients that the postmaster has sent. */
static void take_clients(Host *host)
{
    for (;;) {
        BackendClient told;
        Status status = backend_client_receive(host->channel, &told);
        if (status == AIDB_OK) {
            take_client(host, &told);
        } else if (status == AIDB_LIMIT) {
            server_log(LOG_LEVEL_ERROR, "could not serve %.64s: %s", told.peer, status_message());
            give_slot_back(host, told.slot);
        } else {
            /* The postmaster has no more for this process, which it could not watch. */
            if (status == AIDB_CLOSED) {
                (void)watch(host, EPOLL_CTL_DEL, host->channel, 0, NULL);
                backend_end_soon();
            }
            return;
        }
    }
}

static void end_client(Host *host, Client *client)
{
    Slot *slot = client->backend.slot;
    uint32_t index = slot->index;
    if (client->backend.exit_code != CHILD_EXIT_OK)
        host->exit_code = client->backend.exit_code;
    set_wake(host, client, 0);
    db_session_act_for(host->process.session, slot);
    /* Closing alone would leave it watched while the postmaster still has it open. */
    (void)watch(host, EPOLL_CTL_DEL, client->backend.fd, 0, NULL);
    session_deinit(&client->backend);
    db_session_act_for(host->process.session, host->process.slot);
    slot_release(slot);
    if (client->next != NULL)
        client->next->previous = client->previous;
    if (client->previous != NULL)
        client->previous->next = client->next;
    else
        host->clients = client->next;
    free(client);
    give_slot_back(host, index);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *help(void *arg)
{
    Helper *helper = arg;
    Slot *process_slot = helper->client->backend.process->slot;
    request_slow(&helper->client->backend);
    atomic_store(&helper->done, true);
    latch_wake(process_slot);
    return NULL;
}

static Status start_thread(Helper *helper)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&helper->thread, &attributes, help, helper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return err == 0 ? AIDB_OK : status_set_errno(err, "could not start a thread");
}

static void start_helper(Host *host, Client *client)
{
    Backend *backend = &client->backend;
    BackendProcess *process = &host->process;
    Helper *helper = malloc(sizeof *helper);
    Status status = AIDB_NO_MEMORY;
    if (helper == NULL) {
        (void)status_set(AIDB_NO_MEMORY, "out of memory");
        goto out;
    }
    *helper = (Helper){.client = client, .config = process->config};
    OUT_IF_FAILED(db_session_create_for(backend->db, backend->slot, &helper->session));
    atomic_store(&backend->timed_out, false);
    backend->session = helper->session;
    backend->config = &helper->config;
    client->helper = helper;
    OUT_IF_FAILED(start_thread(helper));
    uint64_t limit = process->config.server.statement_timeout;
    set_wake(host, client, limit > 0 ? port_monotonic_ns() + limit * 1000000u : 0);
    return;
out:
    if (helper != NULL)
        db_session_abandon(helper->session);
    free(helper);
    client->helper = NULL;
    backend->session = process->session;
    backend->config = &process->config;
    backend->slow = false;
    backend_error(backend, backend->slow_frame.id, status);
    make_ready(host, client);
}

static void end_helper(Host *host, Client *client)
{
    Backend *backend = &client->backend;
    pthread_join(client->helper->thread, NULL);
    db_session_abandon(client->helper->session);
    free(client->helper);
    client->helper = NULL;
    backend->session = host->process.session;
    backend->config = &host->process.config;
    backend->slow = false;
    client->want = WANT_TURN;
    set_wake(host, client, 0);
    make_ready(host, client);
}

/* ---- turns ----------------------------------------------------------------------------------- */

/* Sends what there is, and sees to it that the client gets its next turn. */
static void end_turn(Host *host, Client *client)
{
    Backend *backend = &client->backend;
    Want want = session_send(backend);
    client->want = want;
    watch_output(host, client, want == WANT_OUTPUT);
    switch (want) {
    case WANT_TURN:
        make_ready(host, client);
        break;
    case WANT_INPUT:
        if (client->readable)
            make_ready(host, client);
        else
            session_idle(backend);
        break;
    case WANT_OUTPUT:
        backend_activity(backend, "sending");
        break;
    case WANT_THREAD:
        start_helper(host, client);
        return;
    case WANT_GOODBYE:
        if (session_goodbye(backend)) {
            end_client(host, client);
            return;
        }
        break;
    default:
        break;
    }
    set_wake(host, client, session_wake_ns(backend, want));
}

static void take_turn(Host *host, Client *client)
{
    Backend *backend = &client->backend;
    if (client->want == WANT_INPUT && client->readable) {
        ReadResult result = session_read(backend, false);
        client->readable = result == READ_NO_BUDGET ||
                           (result == READ_GOT && (backend->input_full || client->hung_up));
    }
    db_session_act_for(host->process.session, backend->slot);
    atomic_store_explicit(&host->process.running, backend, memory_order_release);
    session_work(backend);
    atomic_store_explicit(&host->process.running, NULL, memory_order_release);
}

/* One turn for everybody who has something to do. */
static void take_turns(Host *host)
{
    Client *client = host->ready, *next, *waiting = NULL;
    host->ready = NULL;
    host->ready_end = &host->ready;
    uint64_t end = 0;
    aidb_durability durability = AIDB_ASYNC;
    for (; client != NULL; client = next) {
        next = client->ready_next;
        client->is_ready = false;
        take_turn(host, client);
        Backend *backend = &client->backend;
        if (backend->settle_end == 0 ||
            !db_must_wait(backend->session, backend->settle_end, backend->settle_durability)) {
            session_settled(backend, AIDB_OK);
            end_turn(host, client);
            continue;
        }
        if (backend->settle_end > end)
            end = backend->settle_end;
        if (backend->settle_durability > durability)
            durability = backend->settle_durability;
        client->ready_next = waiting;
        waiting = client;
    }
    db_session_act_for(host->process.session, host->process.slot);
    if (waiting == NULL)
        return;
    Status status = db_wait(host->process.session, end, durability);
    for (client = waiting; client != NULL; client = next) {
        next = client->ready_next;
        session_settled(&client->backend, status);
        end_turn(host, client);
    }
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void take_event(Host *host, Client *client, uint32_t events)
{
    if ((events & ~(uint32_t)EPOLLOUT) != 0)
        client->readable = true;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        client->hung_up = true;
    if (client->want == WANT_INPUT || client->want == WANT_GOODBYE ||
        (client->want == WANT_OUTPUT && (events & ~(uint32_t)(EPOLLIN | EPOLLRDHUP)) != 0))
        make_ready(host, client);
}

/* Something has come for some of the clients: an order, a cancel request, the end of a thread. */
static void look_at_all(Host *host)
{
    for (Client *client = host->clients; client != NULL; client = client->next) {
        Slot *slot = client->backend.slot;
        if (backend_told_to_end())
            atomic_fetch_or(&slot->interrupt, SLOT_INTERRUPT_TERMINATE);
        uint32_t interrupt = atomic_load(&slot->interrupt);
        if (client->helper != NULL) {
            if (atomic_load(&client->helper->done))
                end_helper(host, client);
        } else if ((interrupt & SLOT_INTERRUPT_TERMINATE) != 0) {
            make_ready(host, client);
        } else if (interrupt != 0 && client->want == WANT_INPUT && !client->readable) {
            session_idle(&client->backend);
        }
    }
}

static void look_at_times(Host *host)
{
    if (host->timed == NULL)
        return;
    uint64_t now = port_monotonic_ns();
    for (Client *client = host->timed, *next; client != NULL; client = next) {
        next = client->timed_next;
        if (client->wake_ns > now)
            continue;
        if (client->helper != NULL) {
            atomic_store(&client->backend.timed_out, true);
            atomic_fetch_or(&client->backend.slot->interrupt, SLOT_INTERRUPT_CANCEL);
            set_wake(host, client, 0);
            continue;
        }
        session_check_time(&client->backend, client->want);
        make_ready(host, client);
    }
}

/* Milliseconds that may be slept at most. */
static int sleep_limit(const Host *host)
{
    if (host->ready != NULL)
        return 0;
    uint64_t first = 0;
    for (const Client *client = host->timed; client != NULL; client = client->timed_next)
        if (first == 0 || client->wake_ns < first)
            first = client->wake_ns;
    int limit_ms = host->rested ? -1 : REST_MS;
    if (first != 0) {
        uint64_t now = port_monotonic_ns();
        limit_ms = first <= now ? 0 : (int)((first - now) / 1000000u) + 1;
    }
    if (host->process.spin.brisk && (limit_ms < 0 || limit_ms > BRISK_REST_MS))
        limit_ms = BRISK_REST_MS;
    return limit_ms;
}

static void rest(Host *host)
{
    BackendProcess *process = &host->process;
    host->rested = true;
    db_session_rest(process->session);
    while (process->spare_count > 0)
        buffer_deinit(&process->spare[--process->spare_count]);
}

/* Waits for events, awake for a moment if need be. Of these there may be fewer than 0 as well. */
static int get_events(Host *host, struct epoll_event *events, int timeout_ms)
{
    BackendProcess *process = &host->process;
    if (timeout_ms == 0)
        return epoll_wait(host->epoll_fd, events, EVENTS_AT_ONCE, 0);
    int count = 0;
    for (bool spins = spin_begin(process); spins; spins = count == 0 && spin_go_on(process))
        count = epoll_wait(host->epoll_fd, events, EVENTS_AT_ONCE, 0);
    if (count == 0)
        count = epoll_wait(host->epoll_fd, events, EVENTS_AT_ONCE, timeout_ms);
    spin_end(process, count == 1 ? events[0].data.ptr : NULL);
    return count;
}

static void wait_for_events(Host *host)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    Slot *slot = host->process.slot;
    int timeout_ms = sleep_limit(host);
    bool asleep = latch_begin(slot), woken = false, new_clients = false;
    int count = get_events(host, events, asleep ? timeout_ms : 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == slot)
            woken = true;
        else if (events[i].data.ptr == host)
            new_clients = true;
        else
            take_event(host, events[i].data.ptr, events[i].events);
    }
    if (asleep)
        latch_end(slot, woken);
    if (new_clients)
        take_clients(host);
    if (woken || !asleep || (new_clients && backend_told_to_end()))
        look_at_all(host);
    look_at_times(host);
    if (count > 0)
        host->rested = false;
    else if (timeout_ms == REST_MS && asleep && host->ready == NULL)
        rest(host);
}

/* Clients that wait to be sent to wait as long as the new settings say: no event may ever come for them. */
static void take_config(Host *host)
{
    uint32_t version = host->process.config_version;
    process_take_config(&host->process);
    if (version == host->process.config_version)
        return;
    for (Client *client = host->clients; client != NULL; client = client->next)
        if (client->want == WANT_OUTPUT && client->helper == NULL)
            set_wake(host, client, session_wake_ns(&client->backend, WANT_OUTPUT));
}

static void serve(Host *host)
{
    while (host->exit_code == CHILD_EXIT_OK) {
        take_config(host);
        wait_for_events(host);
        take_turns(host);
        if (backend_told_to_end() && host->clients == NULL) {
            take_clients(host); /* one may have been on its way */
            if (host->clients == NULL)
                return;
            look_at_all(host);
        }
    }
}

/* The store has failed: everybody is told, as far as it can be done without waiting. */
static void end_all(Host *host)
{
    for (Client *client = host->clients, *next; client != NULL; client = next) {
        next = client->next;
        if (client->helper != NULL) {
            atomic_fetch_or(&client->backend.slot->interrupt, SLOT_INTERRUPT_TERMINATE);
            end_helper(host, client); /* joins: threads give up at the interrupt */
        }
        (void)status_set(AIDB_FAILED, "the store has failed and is being recovered");
        /* A thread's write may have been carried out meanwhile; nobody waits for its durability any more. */
        if (client->backend.settle_end != 0)
            session_settled(&client->backend, AIDB_FAILED);
        backend_fatal(&client->backend, AIDB_FAILED);
        (void)session_send(&client->backend);
        end_client(host, client);
    }
}

int host_run(const BackendStart *start, int channel)
{
    Host *host = calloc(1, sizeof *host);
    if (host == NULL) {
        server_log(LOG_LEVEL_ERROR, "could not begin: out of memory");
        return CHILD_EXIT_FAILED;
    }
    host->channel = channel;
    host->ready_end = &host->ready;
    host->exit_code = CHILD_EXIT_OK;
    host->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    Status status = process_init(&host->process, start, SLOT_HOST);
    if (status == AIDB_OK &&
        (host->epoll_fd < 0 ||
         !watch(host, EPOLL_CTL_ADD, host->process.slot->latch_fd, EPOLLIN, host->process.slot) ||
         !watch(host, EPOLL_CTL_ADD, channel, EPOLLIN, host))) {
        status = status_set_errno(errno, "could not wait for events");
        process_deinit(&host->process);
    }
    int exit_code = CHILD_EXIT_FAILED;
    if (status == AIDB_OK) {
        serve(host);
        exit_code = host->exit_code;
        end_all(host);
        process_deinit(&host->process);
    } else {
        server_log(LOG_LEVEL_ERROR, "could not begin: %s", status_message());
    }
    if (host->epoll_fd >= 0)
        close(host->epoll_fd);
    close(channel);
    free(host);
    return exit_code;
}
