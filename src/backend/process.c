/*
 * process.c - what the sessions of a process share: the engine's session, the configuration, and the
 * signals.
 *
 * Interrupts reach a session as bits in its slot, set by signal handlers here and by other processes.
 * The engine gives up at them; what they mean is sorted out in backend_error. A process that hosts many
 * sessions runs one at a time, so one timer serves them all.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The process, for signal handlers. */
static BackendProcess *_Atomic signal_process;
static volatile sig_atomic_t told_to_end;

bool backend_told_to_end(void)
{
    return told_to_end != 0;
}

void backend_end_soon(void)
{
    told_to_end = 1;
}

static void interrupt_running(BackendProcess *process, bool timed_out, uint32_t bits)
{
    Backend *running = atomic_load(&process->running);
    if (running == NULL)
        return;
    if (timed_out)
        atomic_store(&running->timed_out, true);
    atomic_fetch_or(&running->slot->interrupt, bits);
}

static void on_signal(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    if (signal_number == SIGTERM)
        told_to_end = 1;
    BackendProcess *process = atomic_load(&signal_process);
    if (process == NULL)
        return;
    if (signal_number == SIGTERM) {
        interrupt_running(process, false, SLOT_INTERRUPT_TERMINATE);
    } else if (signal_number == SIGALRM) {
        interrupt_running(process, true, SLOT_INTERRUPT_CANCEL);
    } else if (signal_number == SIGNAL_CANCEL) {
        SlotTable *slots = db_slots(process->db);
        uint32_t index = (uint32_t)info->si_value.sival_int;
        if (index < slots->count && atomic_load(&slots->slots[index].pid) == (int32_t)getpid())
            atomic_fetch_or(&slots->slots[index].interrupt, SLOT_INTERRUPT_CANCEL);
    }
    latch_wake(process->slot);
}

/* Another process has crashed, or the server stops at once. Nothing shared is touched any more but one
 * word; the clients are told as far as that needs no waiting. A send that is under way ends first, since
 * nobody could tell what of it has gone out: that needs no waiting either. */
static void on_quit(int signal_number)
{
    (void)signal_number;
    BackendProcess *process = atomic_load(&signal_process);
    if (process != NULL && process->sending) {
        process->quit_after_send = 1;
        return;
    }
    if (process != NULL) {
        bool stopping = atomic_load(&process->shared->state) == SERVER_STOPPING;
        const Buffer *text = stopping ? &process->stop_text : &process->crash_text;
        for (uint32_t i = 0; i < process->quiet_count; i++) {
            int fd = atomic_load_explicit(&process->quiet[i], memory_order_relaxed) - 1;
            if (fd >= 0)
                send(fd, text->data, text->size, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
    }
    _exit(2);
}

void process_begin_send(Backend *backend)
{
    backend->process->sending = 1;
    atomic_store_explicit(backend->quiet, 0, memory_order_relaxed);
}

void process_end_send(Backend *backend, bool whole)
{
    if (whole)
        atomic_store_explicit(backend->quiet, backend->fd + 1, memory_order_relaxed);
    backend->process->sending = 0;
    atomic_signal_fence(memory_order_seq_cst);
    if (backend->process->quit_after_send)
        on_quit(SIGQUIT);
}

static Status prepare_farewells(BackendProcess *process)
{
    process->quiet_count = process->hosting ? db_slots(process->db)->count : 1;
    process->quiet = calloc(process->quiet_count, sizeof *process->quiet);
    if (process->quiet == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = status_set(AIDB_CONNECTION, "the server recovers after a crash of another "
                                                "process; the connection was closed");
    status_hint(
        "Connect again in a moment. Writes that were not answered may have been carried out.");
    RETURN_IF_FAILED(error_encode(&process->crash_text, 0, status, true));
    status = status_set(AIDB_CONNECTION, "the server was stopped at once");
    return error_encode(&process->stop_text, 0, status, true);
}

static void install_signals(void)
{
    struct sigaction quit = {.sa_handler = on_quit};
    sigaction(SIGQUIT, &quit, NULL);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGNAL_CANCEL, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In a hosting process's threads the loop watches the time. */
void backend_time_limit_begin(Backend *backend)
{
    uint64_t limit = backend->config->server.statement_timeout;
    if (limit == 0 || backend->slow)
        return;
    if (atomic_exchange(&backend->timed_out, false))
        /* The time of the request before ran out just when it had been done. */
        atomic_fetch_and(&backend->slot->interrupt, ~SLOT_INTERRUPT_CANCEL);
    struct itimerval timer = {.it_value = {.tv_sec = (time_t)(limit / 1000),
                                           .tv_usec = (suseconds_t)(limit % 1000 * 1000)}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

void backend_time_limit_end(Backend *backend)
{
    if (backend->config->server.statement_timeout == 0 || backend->slow)
        return;
    struct itimerval off = {0};
    setitimer(ITIMER_REAL, &off, NULL);
}

uint64_t coarse_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- clients from the postmaster --------------------------------------------------------------- */

typedef union DescriptorSpace {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
} DescriptorSpace;

Status backend_client_send(int channel, const BackendClient *client)
{
    DescriptorSpace control = {0};
    struct iovec part = {.iov_base = (void *)client, .iov_len = sizeof *client};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &client->fd, sizeof client->fd);
    if (sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return status_set_errno(errno, "could not hand the connection over");
    return AIDB_OK;
}

Status backend_client_receive(int channel, BackendClient *client)
{
    DescriptorSpace control;
    struct iovec part = {.iov_base = client, .iov_len = sizeof *client};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do
        got = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return AIDB_BUSY;
    if (got != (ssize_t)sizeof *client)
        return AIDB_CLOSED;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_type != SCM_RIGHTS)
        return status_set(AIDB_LIMIT, "too many open files");
    memcpy(&client->fd, CMSG_DATA(header), sizeof client->fd);
    return AIDB_OK;
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

void process_take_config(BackendProcess *process)
{
    if (atomic_load_explicit(&process->shared->config_version, memory_order_relaxed) ==
        process->config_version)
        return;
    server_config_copy(process->shared, &process->config, &process->config_version);
    if (process->config_changed != NULL)
        process->config_changed(&process->config);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

Status process_init(BackendProcess *process, const BackendStart *start, SlotKind kind)
{
    process->db = start->db;
    process->shared = start->shared;
    process->hosting = kind == SLOT_HOST;
    process->config_changed = start->config_changed;
    spin_init(process);
    server_config_copy(start->shared, &process->config, &process->config_version);
    RETURN_IF_FAILED(db_session_create(start->db, start->slot, kind, &process->session));
    process->slot = db_session_slot(process->session);
    Status status = prepare_farewells(process);
    if (status != AIDB_OK) {
        process_deinit(process);
        return status;
    }
    atomic_store(&signal_process, process);
    install_signals();
    return AIDB_OK;
}

void process_deinit(BackendProcess *process)
{
    sigset_t mask;
    sigfillset(&mask);
    sigdelset(&mask, SIGQUIT);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    atomic_store(&signal_process, NULL);
    spin_rest(process);
    db_session_destroy(process->session);
    free(process->quiet);
    buffer_deinit(&process->crash_text);
    buffer_deinit(&process->stop_text);
    buffer_deinit(&process->group_row);
    while (process->spare_count > 0)
        buffer_deinit(&process->spare[--process->spare_count]);
}
