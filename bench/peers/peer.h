/*
 * peer.h - what peer_bench needs of a store.
 *
 * One program is built for each peer: peer_bench.c and the file that fills in `peer`. Every call
 * ends the program with a message when it fails, so nothing is returned that need be checked.
 */
#ifndef AIDB_BENCH_PEER_H
#define AIDB_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct PeerSettings {
    const char *path;
    uint64_t memtable, cache, block, filter_bits; /* bytes, but for the bits */
    bool compress;
    bool sync; /* of every write: for stores that choose it when they are opened */
} PeerSettings;

typedef struct PeerRow {
    const void *key, *value;
    size_t key_size, value_size;
} PeerRow;

typedef enum PeerMove { PEER_FIRST, PEER_LAST, PEER_SEEK, PEER_NEXT, PEER_PREV } PeerMove;

/* A store is shared by threads; a session and what is made of it belong to one of them. */
typedef struct Peer {
    const char *name;
    const char *(*version)(void);
    void (*open)(const PeerSettings *settings);
    void (*close)(void);
    void *(*session_begin)(void);
    void (*session_end)(void *session);
    void (*put)(void *session, const PeerRow *row, bool sync);
    void (*remove)(void *session, const void *key, size_t size, bool sync);
    /* False when there is none; *size is the value's. The value is touched or copied, as a program
     * would that uses it. */
    bool (*get)(void *session, const void *key, size_t size, size_t *value_size);
    void (*iterator_begin)(void *session);
    void (*iterator_end)(void *session);
    /* False at the end. Of *row, which PEER_SEEK begins with the key in, key and value are set. */
    bool (*move)(void *session, PeerMove move, PeerRow *row);
    void (*compact)(void); /* NULL when there is nothing to compact */
} Peer;

extern const Peer peer;

void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
