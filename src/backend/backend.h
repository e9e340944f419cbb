/*
 * backend.h - one client's process: greeting, requests, replies.
 *
 * The postmaster forks a backend for a connection, gives it a slot and a page of shared numbers, and
 * runs it here. Nothing that a client does or leaves undone reaches beyond its backend, but for what
 * the requests themselves ask.
 */
#ifndef AIDB_BACKEND_BACKEND_H
#define AIDB_BACKEND_BACKEND_H

#include "config/settings.h"
#include "engine/db/db.h"

/* How a child of the postmaster ended. Anything else, or a slot not released, is a crash. */
#define CHILD_EXIT_OK     0
#define CHILD_EXIT_FAILED 1 /* it said why in the server log; the shared region is sound */
#define CHILD_EXIT_RESET  3 /* the store failed: the region must be reset and recovered */

typedef enum ServerState {
    SERVER_STARTING = 0,
    SERVER_RECOVERING,
    SERVER_READY,
    SERVER_STOPPING
} ServerState;

/*
 * What the postmaster tells its children, in shared memory of its own beside the region. Only the
 * postmaster writes it, but for the request_memory words; it never reads what children could have written.
 */
typedef struct ServerShared {
    /* Odd while the postmaster changes `config`: copy, and copy again when it moved. */
    _Atomic uint32_t config_version;
    Config config;
    _Atomic uint32_t state; /* ServerState */
    _Atomic uint32_t crash_restarts;
    _Atomic uint32_t reloads;
    int pid; /* of the postmaster */
    uint64_t started_us;
    char unix_uri[256];
    char tcp_uri[320];
    char directory[1024];
    _Atomic uint64_t request_memory_used;    /* bytes that large requests have drawn */
    _Atomic uint32_t request_memory_waiters; /* backends that wait for others to give some back */
} ServerShared;

/* Copies the configuration whole. */
void server_config_copy(const ServerShared *shared, Config *config, uint32_t *version);

typedef struct BackendStart {
    Db *db;
    ServerShared *shared;
    uint32_t slot;    /* to claim; released again before the backend ends */
    int fd;           /* the client, whose HELLO is there; closed at the end */
    uint64_t session; /* number of this connection, and what a cancel request must know */
    uint64_t secret;
    bool administrator;
    const char *peer; /* for people */
    /* Called in the backend when it has taken over a new configuration. */
    void (*config_changed)(const Config *config);
} BackendStart;

/* Serves the client until it leaves, breaks the protocol, is told to end, or the store fails. Installs
 * signal handlers: SIGTERM ends, SIGUSR2 cancels the running request, SIGALRM is its time limit, SIGHUP
 * only wakes. Returns one of CHILD_EXIT_*. */
int backend_run(const BackendStart *start);

#endif
