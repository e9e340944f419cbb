/*
 * child.c - what the postmaster's children do: recovery, clean stop, the background duties, clients.
 *
 * A duty is the engine's step in a loop: step, sleep on the latch for as long as the step said, again.
 * SIGTERM asks it to end, which it does between two steps (a compaction is given up inside its step).
 * A step that fails for want of space or memory is tried again; one that says that the store failed ends
 * the process with the code that makes the postmaster reset the region.
 */
#include "config.h"
#include "postmaster/postmaster_internal.h"

#include "common/log.h"
#include "postmaster/server_log.h"
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define COMPLAINT_INTERVAL_NS (30ull * 1000000000ull)

const char *child_name(SlotKind kind)
{
    switch (kind) {
    case SLOT_STARTUP:
        return "startup";
    case SLOT_WAL_WRITER:
        return "wal writer";
    case SLOT_FLUSHER:
        return "flusher";
    case SLOT_COMPACTOR:
        return "compactor";
    case SLOT_BACKEND:
        return "backend";
    case SLOT_HOST:
        return "host";
    default:
        return "process";
    }
}

/* ---- recovery and clean stop ----------------------------------------------------------------- */

int child_startup(Postmaster *postmaster, uint32_t slot, void *arg)
{
    (void)arg;
    port_title_set("aidb: startup recovering");
    Session *session;
    Status status = db_session_create(postmaster->db, slot, SLOT_STARTUP, &session);
    if (status == AIDB_OK) {
        status = db_recover(postmaster->db, session);
        if (status != AIDB_OK)
            server_log(LOG_LEVEL_FATAL, "%s", status_text());
        db_session_destroy(session);
    } else {
        server_log(LOG_LEVEL_FATAL, "%s", status_text());
    }
    return status == AIDB_OK ? CHILD_EXIT_OK : CHILD_EXIT_FAILED;
}

int child_stop(Postmaster *postmaster, uint32_t slot, void *arg)
{
    (void)arg;
    port_title_set("aidb: startup stopping");
    Session *session;
    Status status = db_session_create(postmaster->db, slot, SLOT_STARTUP, &session);
    if (status == AIDB_OK) {
        status = db_stop(postmaster->db, session, true);
        db_session_destroy(session);
    }
    if (status != AIDB_OK)
        server_log(LOG_LEVEL_ERROR, "could not stop cleanly: %s", status_text());
    return status == AIDB_OK ? CHILD_EXIT_OK : CHILD_EXIT_FAILED;
}

/* ---- background duties ----------------------------------------------------------------------- */

static Slot *_Atomic duty_slot;

static void on_terminate(int signal_number)
{
    (void)signal_number;
    Slot *slot = atomic_load(&duty_slot);
    if (slot == NULL)
        return;
    atomic_fetch_or(&slot->interrupt, SLOT_INTERRUPT_TERMINATE);
    latch_wake(slot);
}

static volatile sig_atomic_t config_changed;

static void on_hangup(int signal_number)
{
    (void)signal_number;
    config_changed = 1;
}

/* One failure is said once, and again while it lasts. */
static void complain(const char *what, uint64_t *complained_ns)
{
    uint64_t now = port_monotonic_ns();
    if (*complained_ns != 0 && now - *complained_ns < COMPLAINT_INTERVAL_NS)
        return;
    *complained_ns = now;
    server_log(LOG_LEVEL_ERROR, "%s: %s", what, status_message());
}

static int run_duty(Postmaster *postmaster, Session *session, const char *name)
{
    Slot *slot = db_session_slot(session);
    uint64_t complained_ns = 0;
    while ((atomic_load(&slot->interrupt) & SLOT_INTERRUPT_TERMINATE) == 0) {
        if (config_changed) {
            config_changed = 0;
            Config config;
            uint32_t version;
            server_config_copy(postmaster->shared, &config, &version);
            server_log_reload(&config);
        }
        int wait_ms = 1000;
        status_clear();
        Status status = db_step(session, &wait_ms);
        if (status == AIDB_FAILED || db_failed(postmaster->db)) {
            server_log(LOG_LEVEL_ERROR, "the store has failed and must be recovered: %s",
                       status_message());
            return CHILD_EXIT_RESET;
        }
        if (status != AIDB_OK && status != AIDB_CANCELED) {
            complain(name, &complained_ns);
            if (wait_ms <= 0)
                wait_ms = 1000;
        } else if (status == AIDB_OK) {
            complained_ns = 0;
        }
        if (wait_ms != 0)
            latch_wait(slot, -1, wait_ms);
    }
    return CHILD_EXIT_OK;
}

int child_duty(Postmaster *postmaster, uint32_t slot, void *arg)
{
    (void)arg;
    SlotKind kind = postmaster->children[slot].kind;
    const char *name = child_name(kind);
    if (kind == SLOT_COMPACTOR)
        port_title_set("aidb: compactor %u", slot - SLOT_OF_COMPACTORS + 1);
    else
        port_title_set("aidb: %s", name);
    Session *session;
    if (db_session_create(postmaster->db, slot, kind, &session) != AIDB_OK) {
        server_log(LOG_LEVEL_ERROR, "could not begin: %s", status_message());
        return CHILD_EXIT_FAILED;
    }
    atomic_store(&duty_slot, db_session_slot(session));
    struct sigaction terminate = {.sa_handler = on_terminate}, hangup = {.sa_handler = on_hangup};
    sigemptyset(&terminate.sa_mask);
    sigemptyset(&hangup.sa_mask);
    sigaction(SIGTERM, &terminate, NULL);
    sigaction(SIGHUP, &hangup, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int exit_code = run_duty(postmaster, session, name);
    atomic_store(&duty_slot, NULL);
    db_session_destroy(session);
    return exit_code;
}

/* ---- clients --------------------------------------------------------------------------------- */

static BackendStart backend_start(const Postmaster *postmaster, uint32_t slot)
{
    return (BackendStart){.db = postmaster->db,
                          .shared = postmaster->shared,
                          .slot = slot,
                          .config_changed = server_log_reload};
}

/* Waits for the next client. False when there will be none. Signals are blocked but while it waits. */
static bool next_client(int channel, BackendClient *client)
{
    sigset_t none;
    sigemptyset(&none);
    for (;;) {
        Status status =
            backend_told_to_end() ? AIDB_CLOSED : backend_client_receive(channel, client);
        if (status != AIDB_BUSY)
            return status == AIDB_OK;
        struct pollfd ready = {.fd = channel, .events = POLLIN};
        (void)ppoll(&ready, 1, NULL, &none);
    }
}

/* A process serves one client at a time, but not only one: forking, and what a new process has to find in
 * memory first, takes longer than a short conversation. */
int child_backend(Postmaster *postmaster, uint32_t slot, void *arg)
{
    int channel = *(const int *)arg;
    BackendStart start = backend_start(postmaster, slot);
    BackendClient client;
    Config config;
    uint32_t version = postmaster->config_version, seen;
    while (next_client(channel, &client)) {
        server_config_copy(postmaster->shared, &config, &seen);
        if (seen != version)
            server_log_reload(&config);
        version = seen;
        int exit_code = backend_run(&start, &client);
        if (exit_code != CHILD_EXIT_OK)
            return exit_code;
        port_title_set("aidb: backend spare");
        if (send(channel, &slot, sizeof slot, MSG_NOSIGNAL) < 0)
            break;
    }
    return CHILD_EXIT_OK;
}

int child_host(Postmaster *postmaster, uint32_t slot, void *arg)
{
    BackendStart start = backend_start(postmaster, slot);
    port_title_set("aidb: host %u", slot - postmaster->slot_of_hosts + 1);
    return host_run(&start, *(const int *)arg);
}
