/*
 * libaidb_internal.h - what stands behind the public API: two drivers, one for a directory opened in
 * this process (embedded.c), one for a server (remote.c), behind one table of functions.
 *
 * libaidb.c owns everything that means the same on both: argument checks, the recognition of a fork,
 * the lists of snapshots and iterators, batches, and iterators themselves, which are built on
 * `scan`, the reading of one chunk of rows at a snapshot. A driver therefore sees checked arguments
 * only: keys of 1 to AIDB_KEY_MAX bytes, values up to AIDB_VALUE_MAX, known durabilities.
 *
 * Threads: a driver's functions are called by any number of threads at once, but for `close`, which
 * is the last call. `cancel` may come from a signal handler.
 */
#ifndef AIDB_LIBAIDB_LIBAIDB_INTERNAL_H
#define AIDB_LIBAIDB_LIBAIDB_INTERNAL_H

#include "engine/base/base.h"
#include <aidb.h>

#define SNAPSHOT_NOW  0u     /* as a snapshot: the newest visible LSN */
#define MULTI_GET_MAX 65536u /* keys of one request to a server, and of one that is submitted */

/*
 * The rows that one call of `scan` read, in the order of the scan. A row stands in `bytes` at
 * offsets[i] as:
 *   lsn fixed64 | key: varint size, bytes | value: varint size, bytes (empty with keys_only)
 * Zero-initialise, reuse with row_chunk_clear, row_chunk_deinit.
 */
typedef struct RowChunk {
    Buffer bytes;
    uint32_t *offsets;
    size_t count;
    size_t capacity; /* of offsets */
    bool ended;      /* there is nothing behind the last row in the range */
} RowChunk;

/* Appends a row: what a driver calls for each. AIDB_NO_MEMORY, AIDB_LIMIT past 4 GiB. */
Status row_chunk_add(RowChunk *chunk, const Entry *entry) MUST_CHECK;
/* Keeps the memory. */
void row_chunk_clear(RowChunk *chunk);
void row_chunk_deinit(RowChunk *chunk);

typedef struct ScanRequest {
    Slice from; /* inclusive; empty: no bound */
    Slice to;   /* exclusive; empty: no bound */
    bool reverse;
    bool keys_only;
    uint32_t rows_max; /* stop after this many rows, at least 1 */
    size_t bytes_max;  /* stop after the row that reaches this many bytes */
    uint64_t walked;   /* bytes of the chunks before, in one direction */
    /* Where the driver may keep its place for the next chunk of the same scan; *place NULL: nothing kept.
     * NULL: no other chunk is expected. */
    void **place;
} ScanRequest;

typedef struct Driver {
    bool is_server;      /* also answers the property "version" */
    uint32_t first_rows; /* worth fetching at once after a seek; 0 is 1 */
    /* Reads one key into `value`, reusing its memory (libaidb_value_set). AIDB_OK or AIDB_NOT_FOUND. */
    Status (*get)(void *state, uint64_t snapshot, Slice key, aidb_value *value) MUST_CHECK;
    /* At one point in time; a missing key gets size 0 and lsn 0. */
    Status (*multi_get)(void *state, uint64_t snapshot, size_t count, const aidb_key *keys,
                        aidb_value *values) MUST_CHECK;
    /* `commit` is never NULL and is zeroed. */
    Status (*write)(void *state, const Batch *batch, aidb_durability durability,
                    aidb_commit *commit) MUST_CHECK;
    /* Registers the newest LSN so that what it sees is kept. Each acquire is paired with a release. */
    Status (*snapshot_acquire)(void *state, uint64_t *lsn) MUST_CHECK;
    void (*snapshot_release)(void *state, uint64_t lsn);
    /* Reads one chunk into `chunk`, which is empty. `snapshot` is registered, never SNAPSHOT_NOW. */
    Status (*scan)(void *state, uint64_t snapshot, const ScanRequest *request,
                   RowChunk *chunk) MUST_CHECK;
    /* Frees a place that `scan` kept, also in a forked child. NULL: it never does. */
    void (*scan_forget)(void *state, void *place);
    /* Either output may be NULL, not both. */
    Status (*measure)(void *state, uint64_t snapshot, Slice from, Slice to, uint64_t *count,
                      uint64_t *bytes) MUST_CHECK;
    /* Appends text. "uri" never gets here, "version" only to a server. */
    Status (*property)(void *state, const char *name, Buffer *text) MUST_CHECK;
    /* Empty slices: no bound. */
    Status (*control)(void *state, const char *command, Slice from, Slice to) MUST_CHECK;
    Status (*submit)(void *state, const aidb_request *request) MUST_CHECK;
    Status (*wait)(void *state, size_t pending) MUST_CHECK;
    void (*cancel)(void *state);
    /* Ends and frees `state`. In a forked child (`foreign`) it only releases memory and closes
     * descriptors: nothing is written, sent, unlocked or joined. */
    Status (*close)(void *state, bool foreign) MUST_CHECK;
} Driver;

/* Both set *driver and *state on success only. */
Status embedded_open(const char *directory, const aidb_option *options, const Driver **driver,
                     void **state) MUST_CHECK;
Status remote_open(const char *uri, const aidb_option *options, const Driver **driver,
                   void **state) MUST_CHECK;

/* Copies `data` into a value, growing its memory at need. */
Status libaidb_value_set(aidb_value *value, Slice data, uint64_t lsn) MUST_CHECK;
/* What a handle's batch holds: batches are opaque to the public only. */
const Batch *libaidb_batch(const aidb_batch *batch);
/* What a lost connection or a failed log means for a write: AIDB_UNKNOWN, for the reason that is recorded. */
Status libaidb_write_unknown(void) MUST_CHECK;

#endif
