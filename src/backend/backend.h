/*
 * backend.h - serving clients: greeting, requests, replies.
 *
 * The postmaster forks a backend for a connection, gives it a slot and a page of shared numbers, and
 * runs it here; or (the setting `backends`) forks a few hosts that serve all clients between them, each
 * client with a slot of its own. Nothing that a client does or leaves undone reaches beyond its session,
 * but for what the requests themselves ask.
 */
#ifndef AIDB_BACKEND_BACKEND_H
#define AIDB_BACKEND_BACKEND_H

#include "config/settings.h"
#include "engine/db/db.h"

#include <signal.h>

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
 * postmaster writes it, but for the words at the end; it never reads what children could have written.
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
    _Alignas(PORT_CACHE_LINE) _Atomic uint32_t brisk; /* processes with a brisk client: spin.c */
} ServerShared;

/* Copies the configuration whole. */
void server_config_copy(const ServerShared *shared, Config *config, uint32_t *version);

/* A client, once its connection may become a session. Sent from the postmaster to a host as it stands
 * here, with the socket beside it; a host answers with the slot's number when it is free again. */
typedef struct BackendClient {
    uint32_t slot;    /* to claim; released again at the end */
    int fd;           /* its HELLO is there; closed at the end */
    uint64_t session; /* number of this connection, and what a cancel request must know */
    uint64_t secret;
    char peer[64]; /* for people */
} BackendClient;

typedef struct BackendStart {
    Db *db;
    ServerShared *shared;
    uint32_t slot; /* of the process */
    /* Called in the backend when it has taken over a new configuration. */
    void (*config_changed)(const Config *config);
} BackendStart;

/* Receives the next client. AIDB_BUSY: there is none now; AIDB_CLOSED: the other end is gone; AIDB_LIMIT: no
 * descriptor was left for the socket, the slot is free again. */
Status backend_client_receive(int channel, BackendClient *client) MUST_CHECK;
Status backend_client_send(int channel, const BackendClient *client) MUST_CHECK;

/* Whether SIGTERM has come since the process began to serve. */
bool backend_told_to_end(void);
/* As if SIGTERM had come. */
void backend_end_soon(void);

/* A cancel request for a client of the process; the signal's value is the client's slot. */
#define SIGNAL_CANCEL SIGRTMIN

/* Serves the client until it leaves, breaks the protocol, is told to end, or the store fails. Installs
 * signal handlers: SIGTERM ends, SIGNAL_CANCEL cancels the running request, SIGALRM is its time limit,
 * SIGHUP only wakes. They are blocked again at the end, when another client may follow. Returns one of
 * CHILD_EXIT_*. */
int backend_run(const BackendStart *start, const BackendClient *client);

/* Serves all clients that come over `channel` (a socket of packets, closed at the end) until SIGTERM.
 * The same signals and results. */
int host_run(const BackendStart *start, int channel);

#endif
