/*
 * postmaster.c - the supervisor.
 *
 * It has no threads, takes no lock of the region and stores nothing there that it needs: whatever its
 * children do to shared memory, it can still stop them, make the region anew and recover. From slots it
 * reads single words of known places and copies texts with a bound; it follows no pointer found there.
 *
 * A child ended well when it exited with 0 or 1 and its slot is free. Anything else is a crash: the
 * region cannot be trusted any more. Then every child is told to quit (SIGQUIT: at once, without
 * cleaning up) and killed after five seconds; when all are reaped, db_reset initialises the same
 * mapping anew, and a startup child recovers from the log. When the startup child itself fails, the
 * server gives up and says why.
 *
 * Everything happens in one loop over epoll: signals come through a signalfd, so nothing is interrupted
 * half way. What a crash of the postmaster leaves behind: children die with it (PDEATHSIG), the lock on
 * postmaster.pid goes when the last of them has, and the file itself is recognised as stale.
 */
#include "config.h"
#include "postmaster/postmaster.h"
#include "postmaster/postmaster_internal.h"

#include "common/log.h"
#include "io/io.h"
#include "postmaster/server_log.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILL_AFTER_NS     (5ull * 1000000000ull) /* from SIGQUIT to SIGKILL */
#define RETRY_NS          1000000000ull          /* before a duty that gave up is started again */
#define SPARES_MAX        48u /* processes kept for clients to come, with the pages they have mapped */
#define EVENTS_AT_ONCE    64
#define DESCRIPTORS_SPARE 256u /* listeners, the hosts' channels, files */

/* ---- children -------------------------------------------------------------------------------- */

static void on_quit(int signal_number)
{
    (void)signal_number;
    _exit(2);
}

static void on_reopen(int signal_number)
{
    (void)signal_number;
    server_log_reopen_later();
}

/* Text into a file of /proc; not being allowed to is no problem worth a word. */
static void write_proc(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t put = write(fd, text, strlen(text));
    (void)put;
    close(fd);
}

/* What every child does first. Signals stay blocked until it has its own handlers. */
static void begin_child(const Postmaster *postmaster, SlotKind kind)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != postmaster->pid)
        _exit(2); /* the postmaster died before the line above */
    server_log_set_process(child_name(kind));
    struct sigaction quit = {.sa_handler = on_quit}, reopen = {.sa_handler = on_reopen};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, normal = {.sa_handler = SIG_DFL};
    sigaction(SIGQUIT, &quit, NULL);
    sigaction(SIGUSR1, &reopen, NULL);
    sigaction(SIGINT, &ignore, NULL); /* a terminal sends it to the whole group */
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigaction(SIGNAL_CANCEL, &ignore, NULL);
    sigaction(SIGCHLD, &normal, NULL);
    write_proc("/proc/self/oom_score_adj", "0");
    if (kind == SLOT_STARTUP) {
        /* Recovery knows no interrupt: SIGTERM ends it at once, which it must survive anyway. */
        sigaction(SIGTERM, &quit, NULL);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
    } else {
        sigset_t early;
        sigemptyset(&early);
        sigaddset(&early, SIGQUIT);
        sigprocmask(SIG_UNBLOCK, &early, NULL);
    }
}

bool postmaster_fork(Postmaster *postmaster, uint32_t slot, SlotKind kind, ChildMain child_main,
                     void *arg)
{
    Child *child = &postmaster->children[slot];
    child->kind = kind;
    child->leaving = false;
    child->stuck_since_ns = 0;
    pid_t pid = fork();
    if (pid == 0) {
        begin_child(postmaster, kind);
        listen_forget(postmaster);
        for (uint32_t i = SLOT_OF_BACKENDS; i < postmaster->child_count; i++)
            if (postmaster->children[i].channel >= 0)
                close(postmaster->children[i].channel);
        int code = child_main(postmaster, slot, arg);
        _exit(code);
    }
    if (pid < 0) {
        server_log(LOG_LEVEL_ERROR, "could not start a %s: %s", child_name(kind), strerror(errno));
        child->retry_ns = port_monotonic_ns() + RETRY_NS;
        return false;
    }
    child->pid = pid;
    return true;
}

bool postmaster_slot_used(const Postmaster *postmaster, uint32_t slot)
{
    const Child *child = &postmaster->children[slot];
    return (child->pid != 0 && !child->spare) || child->host != 0;
}

uint32_t postmaster_backend_count(const Postmaster *postmaster)
{
    uint32_t count = 0;
    for (uint32_t i = SLOT_OF_BACKENDS; i < postmaster->slot_of_hosts; i++)
        count += postmaster_slot_used(postmaster, i);
    return count;
}

static uint32_t count_children(const Postmaster *postmaster)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < postmaster->child_count; i++)
        count += postmaster->children[i].pid != 0;
    return count;
}

static void signal_children(const Postmaster *postmaster, uint32_t from, uint32_t to,
                            int signal_number)
{
    for (uint32_t i = from; i < to; i++)
        if (postmaster->children[i].pid != 0)
            kill(postmaster->children[i].pid, signal_number);
}

pid_t postmaster_process_of(const Postmaster *postmaster, const Child *child)
{
    return child->host != 0 ? postmaster->children[child->host].pid : child->pid;
}

void postmaster_cancel(Postmaster *postmaster, uint64_t session, uint64_t secret)
{
    for (uint32_t i = SLOT_OF_BACKENDS; i < postmaster->slot_of_hosts; i++) {
        const Child *child = &postmaster->children[i];
        pid_t pid = postmaster_process_of(postmaster, child);
        if (pid != 0 && child->session == session && child->secret == secret && secret != 0)
            sigqueue(pid, SIGNAL_CANCEL, (union sigval){.sival_int = (int)i});
    }
}

/* ---- backends and hosts ---------------------------------------------------------------------- */

static void set_spare(Postmaster *postmaster, Child *child, bool spare)
{
    postmaster->spare_count += (uint32_t)spare - (uint32_t)child->spare;
    child->spare = spare;
}

static void close_channel(Postmaster *postmaster, Child *child)
{
    set_spare(postmaster, child, false);
    if (child->channel < 0)
        return;
    epoll_ctl(postmaster->epoll_fd, EPOLL_CTL_DEL, child->channel, NULL);
    close(child->channel);
    child->channel = -1;
}

/* Starts a process that gets its clients over a channel. One whose channel could not be watched ends by
 * itself, as it is closed. */
static bool start_server(Postmaster *postmaster, uint32_t slot, SlotKind kind, ChildMain child_main)
{
    Child *child = &postmaster->children[slot];
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        server_log(LOG_LEVEL_ERROR, "could not start a %s: %s", child_name(kind), strerror(errno));
        return false;
    }
    child->channel = ends[0]; /* which the child closes with all others */
    bool started = postmaster_fork(postmaster, slot, kind, child_main, &ends[1]);
    close(ends[1]);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = ((uint64_t)2 << 32) | slot};
    if (started && epoll_ctl(postmaster->epoll_fd, EPOLL_CTL_ADD, ends[0], &event) == 0)
        return true;
    close_channel(postmaster, child);
    return false;
}

static void start_host(Postmaster *postmaster, uint32_t slot)
{
    Child *host = &postmaster->children[slot];
    host->clients = 0;
    host->retry_ns = port_monotonic_ns() + RETRY_NS;
    (void)start_server(postmaster, slot, SLOT_HOST, child_host);
}

/* The host that has the fewest clients; 0 when there is none. */
static uint32_t choose_host(const Postmaster *postmaster)
{
    uint32_t host = 0;
    for (uint32_t i = postmaster->slot_of_hosts; i < postmaster->child_count; i++) {
        const Child *candidate = &postmaster->children[i];
        if (candidate->pid != 0 && candidate->channel >= 0 &&
            (host == 0 || candidate->clients < postmaster->children[host].clients))
            host = i;
    }
    return host;
}

Status postmaster_serve(Postmaster *postmaster, uint32_t slot, const Pending *pending)
{
    Child *child = &postmaster->children[slot];
    BackendClient client = {
        .slot = slot, .fd = pending->fd, .session = child->session, .secret = child->secret};
    memcpy(client.peer, pending->peer, sizeof client.peer);
    uint32_t server = slot;
    if (postmaster->config.server.backends > 0)
        server = choose_host(postmaster);
    else if (child->pid == 0 && !start_server(postmaster, slot, SLOT_BACKEND, child_backend))
        return status_set(AIDB_NO_MEMORY, "the server could not start a process");
    if (server == 0 ||
        backend_client_send(postmaster->children[server].channel, &client) != AIDB_OK) {
        if (server == slot)
            close_channel(postmaster, child); /* without a client it ends */
        return status_set(AIDB_BUSY, "no process can take the connection at the moment");
    }
    child->stuck_since_ns = 0;
    set_spare(postmaster, child, false);
    if (server != slot) {
        child->kind = SLOT_BACKEND;
        child->host = server;
        postmaster->children[server].clients++;
    }
    return AIDB_OK;
}

static void free_client(Postmaster *postmaster, uint32_t slot)
{
    Child *child = &postmaster->children[slot];
    if (child->host == 0)
        return;
    postmaster->children[child->host].clients--;
    child->host = 0;
}

/* A host or backend sends that slots are free again. */
static void take_slots_back(Postmaster *postmaster, uint32_t server)
{
    uint32_t slot;
    Child *child = &postmaster->children[server];
    while (child->channel >= 0) {
        ssize_t got = recv(child->channel, &slot, sizeof slot, MSG_DONTWAIT);
        if (got == 0) /* it is ending: only its end counts now */
            epoll_ctl(postmaster->epoll_fd, EPOLL_CTL_DEL, child->channel, NULL);
        if (got != (ssize_t)sizeof slot)
            return;
        if (server < postmaster->slot_of_hosts && postmaster->spare_count < SPARES_MAX)
            set_spare(postmaster, child, true);
        else if (server < postmaster->slot_of_hosts)
            close_channel(postmaster, child);
        else if (slot >= SLOT_OF_BACKENDS && slot < postmaster->slot_of_hosts &&
                 postmaster->children[slot].host == server)
            free_client(postmaster, slot);
    }
}

/* The host has ended. Whether its clients' slots are free, as they are when it ended well. */
static bool free_clients(Postmaster *postmaster, uint32_t host)
{
    bool released = true;
    for (uint32_t i = SLOT_OF_BACKENDS; i < postmaster->slot_of_hosts; i++) {
        if (postmaster->children[i].host != host)
            continue;
        released = released && atomic_load(&db_slots(postmaster->db)->slots[i].kind) == SLOT_FREE;
        free_client(postmaster, i);
    }
    return released;
}

/* Starts the duties and hosts that should run and do not; ends compactors beyond the setting. */
static void start_duties(Postmaster *postmaster)
{
    uint64_t now = port_monotonic_ns();
    uint32_t end = SLOT_OF_COMPACTORS + postmaster->config.engine.compactors;
    for (uint32_t slot = SLOT_OF_WAL_WRITER; slot < SLOT_OF_BACKENDS; slot++) {
        Child *child = &postmaster->children[slot];
        SlotKind kind = slot == SLOT_OF_WAL_WRITER ? SLOT_WAL_WRITER
                        : slot == SLOT_OF_FLUSHER  ? SLOT_FLUSHER
                                                   : SLOT_COMPACTOR;
        if (slot < end && child->pid == 0 && now >= child->retry_ns) {
            postmaster_fork(postmaster, slot, kind, child_duty, NULL);
        } else if (slot >= end && child->pid != 0 && !child->leaving) {
            child->leaving = true;
            kill(child->pid, SIGTERM);
        }
    }
    for (uint32_t slot = postmaster->slot_of_hosts; slot < postmaster->child_count; slot++)
        if (postmaster->children[slot].pid == 0 && now >= postmaster->children[slot].retry_ns)
            start_host(postmaster, slot);
}

/* ---- what others see ------------------------------------------------------------------------- */

static void set_state(Postmaster *postmaster, ServerState state)
{
    static const char *const NAMES[] = {"starting", "recovering", "ready", "stopping"};
    atomic_store(&postmaster->shared->state, state);
    atomic_store(&postmaster->shared->crash_restarts, postmaster->crash_restarts);
    snprintf(postmaster->pid_info.state, sizeof postmaster->pid_info.state, "%s", NAMES[state]);
    postmaster->pid_info.crash_restarts = postmaster->crash_restarts;
    if (pidfile_write(&postmaster->pid_file, &postmaster->pid_info) != AIDB_OK)
        server_log(LOG_LEVEL_WARNING, "%s", status_message());
    port_title_set("aidb: postmaster %s %s", postmaster->directory, NAMES[state]);
}

/* (Re)initialises the page that children read. No child is there, or only readers of `config`. */
static void publish_config(Postmaster *postmaster)
{
    ServerShared *shared = postmaster->shared;
    atomic_store(&shared->config_version, postmaster->config_version + 1); /* odd: being written */
    atomic_thread_fence(memory_order_release);
    memcpy(&shared->config, &postmaster->config, sizeof shared->config);
    postmaster->config_version += 2;
    atomic_store_explicit(&shared->config_version, postmaster->config_version,
                          memory_order_release);
}

static void publish_all(Postmaster *postmaster)
{
    ServerShared *shared = postmaster->shared;
    memset(shared, 0, sizeof *shared);
    shared->pid = (int)postmaster->pid;
    shared->started_us = postmaster->pid_info.started * 1000000u;
    memcpy(shared->unix_uri, postmaster->pid_info.unix_uri, sizeof shared->unix_uri);
    memcpy(shared->tcp_uri, postmaster->pid_info.tcp_uri, sizeof shared->tcp_uri);
    memcpy(shared->directory, postmaster->directory, sizeof shared->directory);
    publish_config(postmaster);
}

/* ---- phases ---------------------------------------------------------------------------------- */

static void finish(Postmaster *postmaster, int exit_code)
{
    postmaster->phase = PHASE_DONE;
    postmaster->exit_code = exit_code;
}

static void begin_startup(Postmaster *postmaster)
{
    postmaster->phase = PHASE_STARTUP;
    set_state(postmaster, SERVER_RECOVERING);
    if (!postmaster_fork(postmaster, SLOT_OF_STARTUP, SLOT_STARTUP, child_startup, NULL))
        finish(postmaster, 1);
}

static void begin_run(Postmaster *postmaster)
{
    postmaster->phase = PHASE_RUN;
    for (uint32_t i = 0; i < postmaster->child_count; i++)
        postmaster->children[i].retry_ns = 0;
    start_duties(postmaster);
    set_state(postmaster, SERVER_READY);
    server_log(LOG_LEVEL_INFO, "ready for connections%s%s%s%s",
               postmaster->pid_info.unix_uri[0] != '\0' ? " at " : "",
               postmaster->pid_info.unix_uri, postmaster->pid_info.tcp_uri[0] != '\0' ? " at " : "",
               postmaster->pid_info.tcp_uri);
}

static void quit_children(Postmaster *postmaster)
{
    signal_children(postmaster, 0, postmaster->child_count, SIGQUIT);
    if (postmaster->kill_ns == 0)
        postmaster->kill_ns = port_monotonic_ns() + KILL_AFTER_NS;
}

static void begin_crash(Postmaster *postmaster)
{
    if (postmaster->phase == PHASE_CRASH)
        return;
    postmaster->phase = PHASE_CRASH;
    if (postmaster->shutdown == SHUTDOWN_NONE) {
        server_log(LOG_LEVEL_WARNING,
                   "stopping all processes because shared memory cannot be trusted any more");
        set_state(postmaster, SERVER_RECOVERING);
    }
    quit_children(postmaster);
}

static void begin_stop(Postmaster *postmaster)
{
    postmaster->phase = PHASE_STOP;
    if (!postmaster_fork(postmaster, SLOT_OF_STARTUP, SLOT_STARTUP, child_stop, NULL))
        finish(postmaster, 1);
}

static void end_backends(Postmaster *postmaster)
{
    for (uint32_t i = postmaster->slot_of_hosts; i < postmaster->child_count; i++)
        postmaster->children[i].leaving = true;
    signal_children(postmaster, SLOT_OF_BACKENDS, postmaster->child_count, SIGTERM);
}

/* A request to stop; a stronger one may follow a weaker one. */
static void begin_shutdown(Postmaster *postmaster, Shutdown shutdown)
{
    static const char *const NAMES[] = {"", "smart", "fast", "immediate"};
    if (shutdown <= postmaster->shutdown)
        return;
    bool first = postmaster->shutdown == SHUTDOWN_NONE;
    postmaster->shutdown = shutdown;
    server_log(LOG_LEVEL_INFO, "%s shutdown requested", NAMES[shutdown]);
    if (first) {
        listen_close(postmaster, true);
        set_state(postmaster, SERVER_STOPPING);
    }
    if (shutdown == SHUTDOWN_IMMEDIATE) {
        postmaster->phase = PHASE_CRASH; /* the same way out; `shutdown` ends it there */
        quit_children(postmaster);
    } else if (postmaster->phase == PHASE_STARTUP) {
        postmaster->phase = PHASE_CRASH; /* recovery is given up: the next start does it */
        quit_children(postmaster);
    } else if (postmaster->phase == PHASE_RUN || postmaster->phase == PHASE_DRAIN) {
        postmaster->phase = PHASE_DRAIN;
        if (shutdown == SHUTDOWN_FAST)
            end_backends(postmaster);
        else if (postmaster_backend_count(postmaster) > 0)
            server_log(LOG_LEVEL_INFO, "waiting for %u connections to end",
                       postmaster_backend_count(postmaster));
    }
}

static void recover_after_crash(Postmaster *postmaster)
{
    postmaster->kill_ns = 0;
    if (postmaster->shutdown != SHUTDOWN_NONE) {
        server_log(LOG_LEVEL_INFO,
                   "stopped without a clean stop: the next start recovers from the log");
        finish(postmaster, postmaster->shutdown == SHUTDOWN_IMMEDIATE ? 0 : 1);
        return;
    }
    postmaster->crash_restarts++;
    server_log(LOG_LEVEL_INFO, "all processes have ended; recovering");
    db_reset(postmaster->db);
    publish_all(postmaster);
    begin_startup(postmaster);
}

/* Moves on when what a phase waited for has happened. */
static void advance(Postmaster *postmaster)
{
    if (postmaster->phase == PHASE_RUN) {
        start_duties(postmaster);
    } else if (postmaster->phase == PHASE_DRAIN && postmaster_backend_count(postmaster) == 0) {
        for (uint32_t i = 0; i < postmaster->child_count; i++) {
            Child *child = &postmaster->children[i];
            if (child->pid != 0 && !child->leaving) {
                child->leaving = true;
                kill(child->pid, SIGTERM);
            }
        }
        if (count_children(postmaster) == 0)
            begin_stop(postmaster);
    } else if (postmaster->phase == PHASE_CRASH && count_children(postmaster) == 0) {
        recover_after_crash(postmaster);
    }
}

/* ---- ends of children ------------------------------------------------------------------------ */

static void describe_end(char *text, size_t size, int status)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "was killed by signal %d (%s)%s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)), WCOREDUMP(status) ? ", core dumped" : "");
    else
        snprintf(text, size, "exited with code %d", WEXITSTATUS(status));
}

/* What the slot says its owner was doing; the slot may hold anything. */
static void copy_activity(const Slot *slot, char *text, size_t size)
{
    memcpy(text, slot->activity, size < sizeof slot->activity ? size : sizeof slot->activity);
    text[size - 1] = '\0';
    for (char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || (unsigned char)*at > '~')
            *at = '?';
}

static void startup_ended(Postmaster *postmaster, int status)
{
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == CHILD_EXIT_OK;
    char how[96];
    describe_end(how, sizeof how, status);
    if (postmaster->phase == PHASE_STARTUP && well) {
        begin_run(postmaster);
    } else if (postmaster->phase == PHASE_STARTUP) {
        server_log(LOG_LEVEL_FATAL, "recovery failed: the startup process %s; the server stops",
                   how);
        finish(postmaster, 1);
    } else if (postmaster->phase == PHASE_STOP) {
        if (well)
            server_log(LOG_LEVEL_INFO, "stopped");
        else
            server_log(
                LOG_LEVEL_ERROR,
                "the clean stop failed: its process %s; the next start recovers from the log", how);
        finish(postmaster, well ? 0 : 1);
    }
}

static void child_ended(Postmaster *postmaster, uint32_t slot, int status)
{
    Child *child = &postmaster->children[slot];
    pid_t pid = child->pid;
    child->pid = 0;
    close_channel(postmaster, child);
    if (slot == SLOT_OF_STARTUP) {
        startup_ended(postmaster, status);
        return;
    }
    if (postmaster->phase == PHASE_CRASH) {
        if (child->kind == SLOT_HOST)
            (void)free_clients(postmaster, slot);
        return;
    } /* they all end now, one way or another */
    const Slot *state = &db_slots(postmaster->db)->slots[slot];
    bool released = atomic_load(&state->kind) == SLOT_FREE;
    if (child->kind == SLOT_HOST && !free_clients(postmaster, slot))
        released = false;
    bool well = WIFEXITED(status) &&
                (WEXITSTATUS(status) == CHILD_EXIT_OK || WEXITSTATUS(status) == CHILD_EXIT_FAILED);
    if (well && released) {
        if (child->kind != SLOT_BACKEND && !child->leaving) {
            server_log(LOG_LEVEL_WARNING,
                       "the %s (process %d) ended by itself and is started again",
                       child_name(child->kind), (int)pid);
            child->retry_ns = port_monotonic_ns() + RETRY_NS;
        }
        return;
    }
    char how[96], activity[64];
    describe_end(how, sizeof how, status);
    copy_activity(state, activity, sizeof activity);
    server_log(LOG_LEVEL_ERROR, "the %s (process %d) %s%s%s%s", child_name(child->kind), (int)pid,
               how, well ? " but left its slot behind" : "",
               activity[0] != '\0' ? "; it was doing: " : "", activity);
    begin_crash(postmaster);
}

static void reap(Postmaster *postmaster)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (uint32_t i = 0; i < postmaster->child_count; i++) {
            if (postmaster->children[i].pid == pid) {
                child_ended(postmaster, i, status);
                break;
            }
        }
    }
}

/* ---- reload ---------------------------------------------------------------------------------- */

typedef struct ReloadReport {
    const Config *from;
    const Config *to;
    uint32_t changed;
    uint32_t restart;
} ReloadReport;

static void report_change(void *arg, const Setting *setting)
{
    ReloadReport *report = arg;
    Buffer from = {0}, to = {0};
    report->changed++;
    report->restart += !setting->reload;
    if (config_get(report->from, setting, &from) == AIDB_OK &&
        config_get(report->to, setting, &to) == AIDB_OK)
        server_log(setting->reload ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
                   "reload: %s changes from \"%.*s\" to \"%.*s\"%s", setting->name, (int)from.size,
                   (const char *)from.data, (int)to.size, (const char *)to.data,
                   setting->reload ? "" : ", which needs a restart");
    buffer_deinit(&from);
    buffer_deinit(&to);
}

static void reload(Postmaster *postmaster)
{
    char path[1100];
    Config wanted;
    snprintf(path, sizeof path, "%s/" CONFIG_FILE_NAME, postmaster->directory);
    if (config_load(path, &wanted) != AIDB_OK) {
        server_log(LOG_LEVEL_ERROR, "reload: %s", status_text());
        server_log(LOG_LEVEL_ERROR, "reload: nothing was changed");
        return;
    }
    ReloadReport report = {.from = &postmaster->config, .to = &wanted};
    config_diff(&postmaster->config, &wanted, report_change, &report);
    config_take_reloadable(&postmaster->config, &wanted);
    publish_config(postmaster);
    atomic_fetch_add(&postmaster->shared->reloads, 1);
    db_reload(postmaster->db, &postmaster->config.engine);
    server_log_reload(&postmaster->config);
    signal_children(postmaster, SLOT_OF_WAL_WRITER, postmaster->child_count, SIGHUP);
    if (report.changed == 0)
        server_log(LOG_LEVEL_INFO, "reload: no setting has changed");
    else
        server_log(LOG_LEVEL_INFO, "reload: settings changed: %u, of which need a restart: %u",
                   report.changed, report.restart);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void take_signals(Postmaster *postmaster)
{
    struct signalfd_siginfo info;
    while (read(postmaster->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        switch (info.ssi_signo) {
        case SIGTERM:
            begin_shutdown(postmaster, SHUTDOWN_SMART);
            break;
        case SIGINT:
            begin_shutdown(postmaster, SHUTDOWN_FAST);
            break;
        case SIGQUIT:
            begin_shutdown(postmaster, SHUTDOWN_IMMEDIATE);
            break;
        case SIGHUP:
            reload(postmaster);
            break;
        case SIGUSR1:
            server_log_reopen_later();
            signal_children(postmaster, SLOT_OF_WAL_WRITER, postmaster->child_count, SIGUSR1);
            break;
        default: /* SIGCHLD: reaped in every round */
            break;
        }
    }
}

static void take_event(Postmaster *postmaster, const struct epoll_event *event)
{
    uint64_t tag = event->data.u64;
    if (tag == (uint64_t)postmaster->signal_fd)
        take_signals(postmaster);
    else if (tag >> 32 == 2)
        take_slots_back(postmaster, (uint32_t)tag);
    else if (tag >> 32 != 0)
        listen_pending(postmaster, (size_t)(uint32_t)tag,
                       (event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
    else if (postmaster->shutdown == SHUTDOWN_NONE)
        listen_accept(postmaster, (int)tag);
}

static void kill_late_children(Postmaster *postmaster)
{
    if (postmaster->kill_ns == 0 || port_monotonic_ns() < postmaster->kill_ns)
        return;
    server_log(LOG_LEVEL_WARNING, "killing %u processes that did not quit",
               count_children(postmaster));
    signal_children(postmaster, 0, postmaster->child_count, SIGKILL);
    postmaster->kill_ns = port_monotonic_ns() + KILL_AFTER_NS;
}

static int loop_timeout(const Postmaster *postmaster)
{
    if (postmaster->kill_ns != 0 || postmaster->pending_count > 0)
        return 250;
    return postmaster->phase == PHASE_RUN ? 1000 : 250;
}

static void run(Postmaster *postmaster)
{
    while (postmaster->phase != PHASE_DONE) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int count =
            epoll_wait(postmaster->epoll_fd, events, EVENTS_AT_ONCE, loop_timeout(postmaster));
        for (int i = 0; i < count && postmaster->phase != PHASE_DONE; i++)
            take_event(postmaster, &events[i]);
        if (postmaster->phase == PHASE_DONE)
            break;
        reap(postmaster);
        if (postmaster->phase != PHASE_DONE)
            advance(postmaster);
        kill_late_children(postmaster);
        listen_expire(postmaster);
        stuck_look(postmaster);
    }
}

/* ---- beginning ------------------------------------------------------------------------------- */

static Status read_config(Postmaster *postmaster)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/" CONFIG_FILE_NAME, postmaster->directory);
    Status status = config_load(path, &postmaster->config);
    if (status == AIDB_NOT_FOUND) {
        (void)status_set(AIDB_NO_DATABASE, "there is no %s in %s", CONFIG_FILE_NAME,
                         postmaster->directory);
        status_hint("`aidbctl init` writes one; an empty file means all defaults.");
        return AIDB_NO_DATABASE;
    }
    return status;
}

/* Slots of clients that have no process of their own. */
static uint32_t hosted_slots(const Postmaster *postmaster)
{
    return postmaster->config.server.backends > 0 ? postmaster->config.server.max_connections : 0;
}

/* Limits of the operating system; said at once when they cannot hold what is configured. */
static Status set_limits(const Postmaster *postmaster)
{
    struct rlimit core = {0, 0}, files;
    if (!postmaster->config.server.core_dumps)
        setrlimit(RLIMIT_CORE, &core);
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return status_set_errno(errno, "could not ask for the limit of open files");
    /* A descriptor for each latch, and the channels of backends, or a host's clients. */
    uint64_t need = (uint64_t)postmaster->child_count - hosted_slots(postmaster) +
                    postmaster->config.server.max_connections + PENDING_MAX + DESCRIPTORS_SPARE;
    if (files.rlim_max != RLIM_INFINITY && files.rlim_max < need) {
        (void)status_set(AIDB_LIMIT,
                         "max_connections: %u connections need %" PRIu64
                         " open files, the limit is %" PRIu64,
                         postmaster->config.server.max_connections, need, (uint64_t)files.rlim_max);
        status_hint("Raise the limit (ulimit -Hn, LimitNOFILE=) or lower max_connections.");
        return AIDB_LIMIT;
    }
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    write_proc("/proc/self/oom_score_adj", "-1000");
    return AIDB_OK;
}

static Status open_events(Postmaster *postmaster)
{
    static const int SIGNALS[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof SIGNALS / sizeof SIGNALS[0]; i++)
        sigaddset(&set, SIGNALS[i]);
    /* Also blocked, though not read here: what children handle themselves. */
    sigset_t blocked = set;
    sigaddset(&blocked, SIGNAL_CANCEL);
    sigaddset(&blocked, SIGALRM);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    signal(SIGPIPE, SIG_IGN);
    postmaster->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    postmaster->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (postmaster->signal_fd < 0 || postmaster->epoll_fd < 0)
        return status_set_errno(errno, "could not wait for events");
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)postmaster->signal_fd};
    if (epoll_ctl(postmaster->epoll_fd, EPOLL_CTL_ADD, postmaster->signal_fd, &event) != 0)
        return status_set_errno(errno, "could not wait for signals");
    return AIDB_OK;
}

static Status open_store(Postmaster *postmaster)
{
    postmaster->slot_of_hosts = SLOT_OF_BACKENDS + postmaster->config.server.max_connections;
    postmaster->child_count = postmaster->slot_of_hosts + postmaster->config.server.backends;
    postmaster->children = calloc(postmaster->child_count, sizeof *postmaster->children);
    for (uint32_t i = 0; postmaster->children != NULL && i < postmaster->child_count; i++)
        postmaster->children[i].channel = -1;
    void *shared = mmap(NULL, sizeof *postmaster->shared, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (postmaster->children == NULL || shared == MAP_FAILED)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    postmaster->shared = shared;
    RETURN_IF_FAILED(set_limits(postmaster));
    RETURN_IF_FAILED(open_events(postmaster));
    RETURN_IF_FAILED(listen_open(postmaster));
    publish_all(postmaster);
    set_state(postmaster, SERVER_STARTING);
    const DbSlots slots = {.count = postmaster->child_count,
                           .processes = true,
                           .hosted = hosted_slots(postmaster),
                           .hosted_from = SLOT_OF_BACKENDS};
    return db_setup(postmaster->directory, &postmaster->config.engine, &slots, &postmaster->db);
}

/* Everything up to the first child. Errors before the log is open go to standard error alone. */
static Status begin(Postmaster *postmaster, const char *directory)
{
    RETURN_IF_FAILED(directory_check(postmaster, directory));
    RETURN_IF_FAILED(read_config(postmaster));
    postmaster->pid = getpid();
    postmaster->pid_info = (PidInfo){.pid = (int)postmaster->pid,
                                     .started = port_realtime_us() / 1000000u,
                                     .state = "starting",
                                     .version = AIDB_VERSION};
    RETURN_IF_FAILED(pidfile_lock(postmaster->directory, &postmaster->pid_file));
    /* At once: what a server that was killed left there names a process that may be anybody's by now. */
    RETURN_IF_FAILED(pidfile_write(&postmaster->pid_file, &postmaster->pid_info));
    RETURN_IF_FAILED(server_log_open(postmaster->directory, &postmaster->config.server));
    server_log(LOG_LEVEL_INFO, "AiDb %s starts on %s as process %d", AIDB_VERSION,
               postmaster->directory, (int)postmaster->pid);
    if (geteuid() == 0)
        server_log(LOG_LEVEL_WARNING,
                   "running as root; a user of its own would confine mistakes better");
    return open_store(postmaster);
}

static void deinit(Postmaster *postmaster)
{
    if (postmaster->signal_fd >= 0) {
        listen_close(postmaster, true);
        for (size_t i = 0; i < PENDING_MAX; i++)
            if (postmaster->pending[i].state != PENDING_FREE)
                close(postmaster->pending[i].fd);
        close(postmaster->signal_fd);
        close(postmaster->epoll_fd);
    }
    if (postmaster->db != NULL)
        db_destroy(postmaster->db);
    if (postmaster->shared != NULL)
        munmap(postmaster->shared, sizeof *postmaster->shared);
    free(postmaster->children);
    /* The file of a server that was asked to stop and could not do it cleanly stays, as that of one that
     * died does: whoever waits for the stop sees it. */
    if (postmaster->exit_code == 0 || postmaster->shutdown == SHUTDOWN_NONE)
        pidfile_release(&postmaster->pid_file);
    else
        pidfile_forget(&postmaster->pid_file);
}

int postmaster_run(const char *directory)
{
    Postmaster *postmaster = calloc(1, sizeof *postmaster);
    if (postmaster == NULL) {
        fprintf(stderr, "aidb: out of memory\n");
        return 1;
    }
    postmaster->signal_fd = postmaster->epoll_fd = -1;
    postmaster->pid_file.fd = -1;
    postmaster->next_session = 1;
    umask(077);
    Status status = begin(postmaster, directory);
    if (status == AIDB_OK) {
        begin_startup(postmaster);
        run(postmaster);
    } else {
        /* Whoever started the server reads standard error; the log's readers get it as well. */
        if (postmaster->config.server.log_destination == LOG_TO_FILE)
            server_log(LOG_LEVEL_FATAL, "%s", status_text());
        fprintf(stderr, "aidb: %s\n", status_text());
        postmaster->exit_code = 1;
    }
    int exit_code = postmaster->exit_code;
    deinit(postmaster);
    free(postmaster);
    return exit_code;
}
