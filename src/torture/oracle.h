/*
 * oracle.h - who wrote what, what was acknowledged, and whether a store agrees.
 *
 * Every client owns keys of its own and writes them one operation after the other. An operation is a
 * pure function of (seed, client, sequence), so noting an attempt and its acknowledgement is two words
 * in memory that all processes share and that lies outside the data directory. Values carry client,
 * key, sequence, filler made from these, and a checksum.
 *
 * What a store holds after a crash must be, for each client, exactly the state after its first m
 * operations, with m not below the last one whose acknowledgement promised to survive and not above the
 * last one attempted. That covers lost writes, torn batches, deletes undone, and things that nobody
 * wrote. Between clients the LSNs give the order: no acknowledged operation may be missing below the
 * greatest LSN that is found.
 *
 * One process or thread runs a client; the fields that others read are atomic.
 */
#ifndef AIDB_TORTURE_ORACLE_H
#define AIDB_TORTURE_ORACLE_H

#include <aidb.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ORACLE_CLIENTS_MAX 16u
#define ORACLE_KEYS        160u   /* of each client */
#define ORACLE_OPS_MAX     40000u /* of each client between two checks */
#define ORACLE_BULK        "bulk/"
#define ORACLE_WINDOW      8u /* operations sent before an answer is awaited */

typedef enum OpState {
    OP_NONE = 0,
    OP_ATTEMPTED, /* no answer, or the answer was that nobody knows */
    OP_ACKED,
    OP_REFUSED /* the answer said that nothing was written */
} OpState;

typedef struct OpLog {
    _Atomic uint64_t lsn;
    _Atomic uint32_t attempt_at; /* `now` just before and just after */
    _Atomic uint32_t ack_at;
    _Atomic uint32_t state;
} OpLog;

typedef struct OracleClient {
    uint64_t base;              /* sequence of the last operation before this round */
    uint64_t live[ORACLE_KEYS]; /* sequence of the value that each key had then, 0: none */
    _Atomic uint32_t attempted; /* operations of this round */
    _Atomic uint32_t wrong;     /* set when an answer was wrong; `message` tells */
    _Atomic uint32_t ended;     /* aidb_status that ended it; 0 when it was told to stop */
    char message[300];
    OpLog ops[ORACLE_OPS_MAX];
} OracleClient;

typedef struct Oracle {
    uint64_t seed;
    uint32_t clients;
    uint32_t fsync_percent; /* of the operations that are not async; the rest is os */
    uint32_t async_percent;
    uint32_t flush_permille; /* of a client's operations are followed by a flush or a compaction */
    uint32_t pause_us;       /* between operations */
    uint32_t log_every;      /* after so many operations a MiB of log more, and a flush; 0: never */
    bool bulk;               /* keys that begin with ORACLE_BULK are not the clients' */
    uint32_t ops_limit;      /* a client stops by itself after as many */
    _Atomic uint32_t stop;
    /* What oracle_check found: the fewest and the most operations of this round that explain the store
     * (they differ when operations changed nothing). */
    uint32_t fewest[ORACLE_CLIENTS_MAX];
    uint32_t most[ORACLE_CLIENTS_MAX];
    OracleClient client[ORACLE_CLIENTS_MAX];
} Oracle;

/* A mapping shared with all children, backed by the file `path`. NULL: errno. */
Oracle *oracle_create(const char *path, uint64_t seed, uint32_t clients);
/* Maps one that exists. */
Oracle *oracle_open(const char *path);
void oracle_destroy(Oracle *oracle);

/* Runs a client until it is told to stop, has reached the limit, or gets an answer after which it cannot
 * go on. `pipelined` sends up to ORACLE_WINDOW operations at once. `now` (NULL: none) is a counter whose
 * value is noted with attempts and acknowledgements. Every few operations it reads a key of its own and
 * compares. */
void oracle_client(Oracle *oracle, uint32_t client, aidb *db, bool pipelined,
                   const _Atomic uint32_t *now);

typedef struct OracleResult {
    uint64_t acked;    /* operations of this round, of any durability */
    uint64_t promised; /* of these, those whose durability is at least `level` */
    uint64_t kept;     /* operations attempted and found */
    char message[800]; /* what is wrong */
} OracleResult;

/* Compares the store with what the clients noted up to the moment `at` of their counter (UINT32_MAX: all
 * of it). `level` is the least durability that promises to survive what happened. A read that fails is
 * returned as its status (the message in aidb_error_message); a store that disagrees as AIDB_CORRUPTION
 * with result->message. */
aidb_status oracle_check(Oracle *oracle, aidb *db, aidb_durability level, uint32_t at,
                         OracleResult *result);

/* Begins the next round from what the last oracle_check found. No client runs. */
void oracle_advance(Oracle *oracle);

/* Begins with an empty store. Sequences go on. */
void oracle_forget(Oracle *oracle);

/* How many operations of this round are in a state. */
uint64_t oracle_count(const Oracle *oracle, OpState state);

/* The first client that got a wrong answer while it ran, or NULL. */
const char *oracle_wrong(const Oracle *oracle);

/* splitmix64: one more random number from the state. */
static inline uint64_t oracle_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
