/*
 * postmaster_internal.h - the postmaster's state, all of it private memory of one process.
 *
 * Slots of the region are given out by number: the startup (or stop) child, the WAL writer, the flusher,
 * the compactors, then one for each client, then the hosts (`backends`), whose clients' slots have no
 * process of their own. A child's number is its place in `children` as well.
 */
#ifndef AIDB_POSTMASTER_POSTMASTER_INTERNAL_H
#define AIDB_POSTMASTER_POSTMASTER_INTERNAL_H

#include "backend/backend.h"
#include "config/pidfile.h"
#include "protocol/protocol.h"

#include <sys/types.h>

#define SLOT_OF_STARTUP    0u
#define SLOT_OF_WAL_WRITER 1u
#define SLOT_OF_FLUSHER    2u
#define SLOT_OF_COMPACTORS 3u
#define SLOT_OF_BACKENDS   (SLOT_OF_COMPACTORS + CONFIG_COMPACTORS_MAX)

#define LISTENERS_MAX 16
#define PENDING_MAX \
    1024u /* connections whose greeting is not complete; past it the oldest is closed */

typedef struct Child {
    pid_t pid;     /* 0: none */
    uint32_t host; /* of a client without a process of its own: the slot of who serves it; else 0 */
    int channel;   /* of a host or backend: clients go there, free slots come back; -1: none */
    uint32_t clients; /* of a host */
    bool spare;       /* a backend whose client has left: it waits for another */
    SlotKind kind;
    bool leaving;      /* told to end */
    uint64_t retry_ns; /* not to be started again before */
    uint64_t session;
    uint64_t secret;
    uint64_t stuck_since_ns; /* seen where nobody may be for long; 0: not */
    uint64_t stuck_fingerprint;
    bool stuck_said;
} Child;

typedef enum PendingState {
    PENDING_FREE = 0,
    PENDING_GREETING, /* its HELLO is not complete */
    PENDING_REFUSED   /* told why; closed when the client has read it, or soon */
} PendingState;

typedef struct Pending {
    int fd;
    PendingState state;
    bool administrator;
    uint64_t since_ns;
    char peer[64];
} Pending;

typedef enum Phase {
    PHASE_STARTUP, /* recovery runs in a child */
    PHASE_RUN,
    PHASE_DRAIN, /* stopping: waits for clients, then for background processes */
    PHASE_STOP,  /* the clean stop runs in a child */
    PHASE_CRASH, /* a child crashed: all are stopped, then the region is made anew */
    PHASE_DONE
} Phase;

typedef enum Shutdown {
    SHUTDOWN_NONE = 0,
    SHUTDOWN_SMART,
    SHUTDOWN_FAST,
    SHUTDOWN_IMMEDIATE
} Shutdown;

typedef struct Postmaster {
    char directory[1024];
    Config config;
    uint32_t config_version;
    PidFile pid_file;
    PidInfo pid_info;
    pid_t pid;
    Db *db;
    ServerShared *shared;

    int listeners[LISTENERS_MAX];
    size_t listener_count;
    char unix_path[256];
    int epoll_fd;
    int signal_fd;
    Pending pending[PENDING_MAX];
    size_t pending_count;
    uint64_t accept_complained_ns;

    Child *children; /* one for each slot */
    uint32_t child_count;
    uint32_t slot_of_hosts; /* from here on */
    uint32_t spare_count;
    uint64_t next_session;
    Phase phase;
    Shutdown shutdown;
    uint32_t crash_restarts;
    uint64_t kill_ns; /* when children that were told to quit are killed; 0: none were */
    uint64_t monitor_ns;
    int exit_code;
} Postmaster;

/* ---- postmaster.c ---------------------------------------------------------------------------- */

/* Forks the process for a slot. In the child `child_main` runs and never returns here. */
typedef int (*ChildMain)(Postmaster *postmaster, uint32_t slot, void *arg);
bool postmaster_fork(Postmaster *postmaster, uint32_t slot, SlotKind kind, ChildMain child_main,
                     void *arg);
/* Whether a client has this slot. */
bool postmaster_slot_used(const Postmaster *postmaster, uint32_t slot);
/* Who serves the client; 0 for nobody. */
pid_t postmaster_process_of(const Postmaster *postmaster, const Child *child);
uint32_t postmaster_backend_count(const Postmaster *postmaster);
/* Has the client served by a process that is there, or by a new one. AIDB_BUSY, AIDB_NO_MEMORY. */
Status postmaster_serve(Postmaster *postmaster, uint32_t slot, const Pending *pending) MUST_CHECK;
/* Interrupts the backend of a session, when the secret is right. */
void postmaster_cancel(Postmaster *postmaster, uint64_t session, uint64_t secret);

/* ---- directory.c ----------------------------------------------------------------------------- */

/* Finds the data directory and checks that it holds a database that nobody else may have changed.
 * AIDB_NO_DATABASE, AIDB_INVALID, AIDB_IO. */
Status directory_check(Postmaster *postmaster, const char *name) MUST_CHECK;

/* ---- listen.c -------------------------------------------------------------------------------- */

Status listen_open(Postmaster *postmaster) MUST_CHECK;
/* Closes the sockets; removes the unix socket's file only in the postmaster itself (`remove`). */
void listen_close(Postmaster *postmaster, bool remove);
void listen_accept(Postmaster *postmaster, int listener);
/* Something happened on a connection that waits. */
void listen_pending(Postmaster *postmaster, size_t index, bool hung_up);
/* Closes what has waited too long. */
void listen_expire(Postmaster *postmaster);
/* In a child: closes every descriptor that is the postmaster's own. */
void listen_forget(Postmaster *postmaster);

/* ---- stuck.c --------------------------------------------------------------------------------- */

/* Every ten seconds: names who has not moved since the last look, and kills who has not for too long. */
void stuck_look(Postmaster *postmaster);

/* ---- child.c --------------------------------------------------------------------------------- */

int child_startup(Postmaster *postmaster, uint32_t slot, void *arg);
int child_stop(Postmaster *postmaster, uint32_t slot, void *arg);
/* WAL writer, flusher, compactor: `arg` is unused. */
int child_duty(Postmaster *postmaster, uint32_t slot, void *arg);
/* `arg` of both is their end of the channel. */
int child_backend(Postmaster *postmaster, uint32_t slot, void *arg);
int child_host(Postmaster *postmaster, uint32_t slot, void *arg);
const char *child_name(SlotKind kind);

#endif
