/*
 * hostile.h - what the parts of the hostile campaign share: the server, connections by hand, and who watches
 * that others are served as before.
 */
#ifndef AIDB_TORTURE_HOSTILE_H
#define AIDB_TORTURE_HOSTILE_H

#include "client/client.h"
#include "torture/server.h"

#define BODY_MAX     (AIDB_VALUE_MAX + FRAME_BODY_SLACK) /* of a server whose batch_max is less */
#define BATCH_MAX    (4u << 20)
#define GREETING_MS  4000u         /* authentication_timeout */
#define PATIENCE_MS  (5 * HANG_MS) /* a virtual machine may stand still for minutes */
#define STATEMENT_MS 4000u         /* statement_timeout, while nobody reads */
#define HOSTS        3u
#define RESERVED     8u    /* admin_reserved_connections */
#define WAITING_MAX  1024u /* connections without a greeting that the server keeps */
#define PROBE_HELD   HOSTS /* connections that the probe keeps, one at each host */
#define PROBE_ALL    (PROBE_HELD + 1)
#define LATENCIES    65536u

typedef enum Attack {
    ATTACK_NONE = 0, /* before all others: what everybody is used to */
    ATTACK_FRAMES,
    ATTACK_LIES,
    ATTACK_FLOOD,
    ATTACK_CROWD,
    ATTACK_CHURN,
    ATTACK_SLOW,
    ATTACK_DEAF,
    ATTACKS
} Attack;

typedef struct Latency {
    _Atomic uint32_t count;
    uint32_t us[LATENCIES];
} Latency;

/* Between the processes of the campaign. */
typedef struct HostileShared {
    _Atomic uint64_t frames;
    _Atomic uint64_t sessions;
    _Atomic uint64_t replies;
    _Atomic uint32_t connections; /* made by those that come and go */
    _Atomic uint32_t stop;        /* of the present attack */
    _Atomic uint32_t failed;
    char message[300];
    _Atomic uint32_t attack; /* the present one; ATTACKS: none */
    _Atomic uint32_t probe_stop;
    Latency latency[ATTACKS + 1][PROBE_ALL]; /* the last: between attacks */
} HostileShared;

typedef struct Hostile {
    Torture *torture;
    Server server;
    HostileShared *shared;
    bool hosted;    /* backends: HOSTS */
    bool sanitized; /* the server has the address sanitizer */
    bool release;
    bool own_ipc;         /* System V's objects are the campaign's and the server's alone */
    bool large;           /* what deaf clients ask for has been written */
    uint32_t crowd;       /* connections at once */
    uint32_t connections; /* max_connections */
    uint16_t port;
    char tcp_uri[64];
    pid_t probe;
    uint64_t memory_peak; /* bytes of all the server's processes, during the present attack */
    uint64_t memory_ms;   /* when they were last counted */
} Hostile;

/* ---- hostile.c ---------------------------------------------------------------------------------- */

bool hostile_failed(Hostile *hostile, const char *what);
/* For a process of the campaign's: remembers the first failure, which ends the attack. */
void hostile_report(const Hostile *hostile, const char *who, const char *what);
/* A number behind what the last line says already. */
void hostile_note(Hostile *hostile, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A connection by hand, -1: errno. */
int hostile_connect(const Hostile *hostile, bool tcp);
/* False when the server closed meanwhile, as it may. */
bool hostile_send(int fd, const void *bytes, size_t size);
/* Reads until the server closes. What it says must be whole frames of known types. NULL, or what is wrong. */
const char *hostile_drain(int fd, uint64_t *replies);
bool hostile_greeting(Buffer *bytes);
/* Sends a get, behind a greeting if wanted, and awaits its answer: AIDB_OK, or why there is none, with the
 * error record. */
Status hostile_ask(int fd, bool greet, uint64_t id) MUST_CHECK;
/* Whether a new connection is served. */
bool hostile_serves(Hostile *hostile, const char *uri);

/* ---- hostile_watch.c ---------------------------------------------------------------------------- */

uint64_t now_us(void);
/* Starts the probe and sees what it is used to. */
bool watch_begin(Hostile *hostile);
bool watch_end(Hostile *hostile);
void watch_attack(Hostile *hostile, Attack attack);
/* Whether the probe has seen enough of the present attack. */
bool watch_enough(const Hostile *hostile);
/* Looks at memory, now and then. */
void watch_memory(Hostile *hostile);
/* The same until the probe has seen enough. */
bool watch_hold(Hostile *hostile);
/* Whether the probe was served well enough, and memory stayed within its limit. Notes figures. */
bool watch_judge(Hostile *hostile);

typedef struct Holdings {
    uint32_t children;
    uint32_t sockets; /* and all that is no file: of postmaster, duties and hosts */
    uint32_t files;
    uint32_t shared; /* mappings of them that others may see: System V's and POSIX's among these */
    uint32_t mappings; /* of the postmaster */
    uint32_t
        system_v; /* segments and semaphores, where they are this program's and its server's alone */
} Holdings;

Holdings holdings(const Hostile *hostile);
/* The server holds what it held, once all sessions have ended. */
bool holds_as_before(Hostile *hostile, const Holdings *before, const char *after_what);
/* Descriptors of the postmaster. */
uint32_t watch_descriptors(const Hostile *hostile);

/* ---- attacks: hostile_frames.c, hostile_crowd.c -------------------------------------------------- */

bool attack_frames(Hostile *hostile);
bool attack_lies(Hostile *hostile);
bool attack_flood(Hostile *hostile);
bool attack_crowd(Hostile *hostile);
bool attack_churn(Hostile *hostile);
bool attack_slow(Hostile *hostile);
bool attack_deaf(Hostile *hostile);

#endif
