/*
 * aidb.h - the AiDb client and engine library.
 *
 * One header for both ways to use AiDb: a directory opened inside the program (embedded), or a
 * server reached over a socket. Every call means the same on both.
 *
 *     aidb *db;
 *     if (aidb_open("./data", (aidb_option[]){{"create", "true"}, {NULL, NULL}}, &db) != AIDB_OK)
 *         die(aidb_error_message());
 *     aidb_put(db, "k", 1, "v", 1);
 *     aidb_value v = {0};
 *     if (aidb_get(db, NULL, "k", 1, &v) == AIDB_OK) use(v.data, v.size);
 *     aidb_free(v.data);
 *     aidb_close(db);
 *
 * Keys are 1 to AIDB_KEY_MAX bytes, values 0 to AIDB_VALUE_MAX bytes, both any bytes at all. Keys
 * are ordered bytewise (memcmp, the shorter first).
 *
 * LSN. Every operation has a log sequence number, which is also the version of the key it wrote. A
 * later write always has a greater LSN. 0 is never a version.
 *
 * Threads. An `aidb` handle may be used by any number of threads at once; calls on a handle that
 * was opened on a server are carried out one after the other, so give each busy thread a handle of
 * its own there. Batches, snapshots and iterators belong to one thread at a time.
 *
 * fork. A handle belongs to the process that opened it. In a forked child every call returns
 * AIDB_CLOSED and aidb_close only releases the child's memory and descriptors.
 *
 * The library never prints, never exits or aborts its host and installs no signal handlers. When
 * it can no longer vouch for its state (for example after a failed fsync of the log) the handle is
 * marked failed: every later call returns AIDB_FAILED until the store is closed and opened again.
 *
 * Errors. Every function that can fail returns an aidb_status; aidb_error_message() then tells the
 * calling thread what went wrong, with the file or key, and what may help. AIDB_NOT_FOUND and
 * AIDB_EXPECTATION are answers rather than errors.
 */
#ifndef AIDB_H
#define AIDB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library is compiled with hidden visibility: what this header declares is all it exports. */
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#define AIDB_VERSION   "0.1.0"
#define AIDB_KEY_MAX   65536u      /* bytes */
#define AIDB_VALUE_MAX (64u << 20) /* bytes */

/* The values are part of the wire protocol and are never reused. */
typedef enum aidb_status {
    AIDB_OK = 0,
    AIDB_NOT_FOUND = 1,       /* the key does not exist */
    AIDB_EXPECTATION = 2,     /* a condition of the batch was not met; nothing was written */
    AIDB_INVALID = 3,         /* an argument is wrong: size, name, value, order of calls */
    AIDB_LIMIT = 4,           /* a documented limit was reached (size, connections, snapshots) */
    AIDB_IO = 5,              /* the operating system refused a file or socket operation */
    AIDB_CORRUPTION = 6,      /* stored bytes are damaged; the message names file and offset */
    AIDB_NO_SPACE = 7,        /* the disk is full; reads go on, writes work again once it is not */
    AIDB_NO_MEMORY = 8,       /* memory could not be had */
    AIDB_BUSY = 9,            /* not now: try again */
    AIDB_LOCKED = 10,         /* the directory is in use by another process */
    AIDB_NO_DATABASE = 11,    /* no database there */
    AIDB_EXISTS = 12,         /* something is already there */
    AIDB_CONNECTION = 13,     /* no connection, refused, or lost before anything was asked */
    AIDB_UNKNOWN = 14,        /* the outcome of the write is not known: it may or may not last */
    AIDB_AUTHENTICATION = 15, /* the server does not accept these credentials */
    AIDB_TIMEOUT = 16,        /* time ran out */
    AIDB_CANCELED = 17,       /* aidb_cancel, or an administrator */
    AIDB_FAILED = 18,         /* the handle is marked failed: close and open again */
    AIDB_CLOSED = 19,         /* the handle is not usable here (forked child) */
    AIDB_UNSUPPORTED = 20,    /* not in this version, or not in this way of opening */
    AIDB_PROTOCOL = 21,       /* the peer broke the wire protocol */
    AIDB_INTERNAL = 22        /* a broken invariant: please report it */
} aidb_status;

/* How much a write must survive before it is acknowledged. */
typedef enum aidb_durability {
    AIDB_DEFAULT = 0, /* what the store or server is set to (`durability`) */
    AIDB_ASYNC = 1,   /* visible; may be lost with the processes */
    AIDB_OS = 2,      /* survives the death of every process; may be lost with power */
    AIDB_FSYNC = 3    /* on stable storage */
} aidb_durability;

typedef struct aidb aidb;
typedef struct aidb_batch aidb_batch;
typedef struct aidb_snapshot aidb_snapshot;
typedef struct aidb_iter aidb_iter;

/* Options by name; an array of them ends with a NULL name. */
typedef struct aidb_option {
    const char *name;
    const char *value;
} aidb_option;

/* A value read. Zero it before first use, pass it again to reuse its memory, free `data` with
 * aidb_free when done. `data` holds `size` bytes and is not null-terminated. */
typedef struct aidb_value {
    void *data;
    size_t size;
    size_t capacity;
    uint64_t lsn; /* version of the key; 0 when it was not found */
} aidb_value;

typedef struct aidb_key {
    const void *data;
    size_t size;
} aidb_key;

/* Keys in [from, to); a null `data` means no bound on that side. */
typedef struct aidb_range {
    aidb_key from;
    aidb_key to;
} aidb_range;

/* One entry under an iterator: borrowed, valid until the next call on the iterator. */
typedef struct aidb_entry {
    const void *key;
    size_t key_size;
    const void *value; /* NULL when the iterator was created with keys_only */
    size_t value_size;
    uint64_t lsn;
} aidb_entry;

/* What a batch came to. */
typedef struct aidb_commit {
    uint64_t lsn;              /* LSN of the last operation of the batch */
    size_t failed_expectation; /* on AIDB_EXPECTATION: index of the condition, from 0 */
    uint64_t present_version;  /* on AIDB_EXPECTATION: the key's version, 0 when it is absent */
} aidb_commit;

/*
 * Opens a store and returns a handle in *db (NULL on failure).
 *
 * name     a directory, "aidb://HOST:PORT" or "aidb+unix:SOCKET-PATH".
 * options  NULL, or an array that ends with a NULL name. For a directory: "create" ("true" makes
 *          the database when there is none; default "false") and every engine setting that
 *          `aidb --describe-config` lists; settings in the directory's aidb.yaml come first, unless
 *          "read_config" is "false" (a tool that must work with a damaged file), and
 *          options override them. For a server: "connect_timeout" ("10s"), "application"
 *          (shown in SHOW BACKENDS).
 *
 * Errors: AIDB_NO_DATABASE, AIDB_LOCKED (the message names the server's address or the process),
 * AIDB_CORRUPTION (file and offset), AIDB_INVALID (an option), AIDB_CONNECTION, AIDB_LIMIT.
 */
aidb_status aidb_open(const char *name, const aidb_option *options, aidb **db);

/* Closes the handle and everything that was created from it. Embedded: writes out what is in
 * memory and stops the background threads; the status tells whether that worked. NULL is fine. */
aidb_status aidb_close(aidb *db);

/* Reads one key as of `snapshot`, or as of now when it is NULL. AIDB_OK or AIDB_NOT_FOUND. */
aidb_status aidb_get(aidb *db, const aidb_snapshot *snapshot, const void *key, size_t key_size,
                     aidb_value *value);

/* Reads `count` keys at one point in time. A key that is missing has lsn 0 in its value; when the call
 * fails, all have. */
aidb_status aidb_multi_get(aidb *db, const aidb_snapshot *snapshot, size_t count,
                           const aidb_key *keys, aidb_value *values);

/* Releases memory that the library handed out. NULL is fine. */
void aidb_free(void *memory);

/* One-operation batches with the default durability. Deleting a missing key is not an error. */
aidb_status aidb_put(aidb *db, const void *key, size_t key_size, const void *value,
                     size_t value_size);
aidb_status aidb_delete(aidb *db, const void *key, size_t key_size);

/* Writes a batch: all of it or nothing. Its expectations are checked in the same step as its
 * operations take effect. `commit` may be NULL. The batch may be reused afterwards. An operation
 * later in a batch overrides an earlier one on the same key. AIDB_UNKNOWN: the connection or the
 * log failed after the batch was sent. */
aidb_status aidb_write(aidb *db, const aidb_batch *batch, aidb_durability durability,
                       aidb_commit *commit);

/* Returns NULL when memory is short. A batch copies what is put into it. */
aidb_batch *aidb_batch_create(void);
void aidb_batch_destroy(aidb_batch *batch);
void aidb_batch_clear(aidb_batch *batch);
aidb_status aidb_batch_put(aidb_batch *batch, const void *key, size_t key_size, const void *value,
                           size_t value_size);
aidb_status aidb_batch_delete(aidb_batch *batch, const void *key, size_t key_size);
/* A batch of more than a million range deletes, or of so many overlapping ones that what every two of
 * them share does not fit into the memtables, is refused as a whole: AIDB_LIMIT. */
aidb_status aidb_batch_delete_range(aidb_batch *batch, const aidb_range *range);

/* Conditions that must hold before the batch, or none of it is written. */
typedef enum aidb_expect {
    AIDB_EXPECT_ABSENT = 1,
    AIDB_EXPECT_PRESENT = 2,
    AIDB_EXPECT_VERSION = 3 /* still at `version` */
} aidb_expect;
aidb_status aidb_batch_expect(aidb_batch *batch, const void *key, size_t key_size,
                              aidb_expect expect, uint64_t version);

/* A point in time to read at. It keeps old versions from being compacted away, so destroy it when
 * done. On a server it ends with the connection. AIDB_LIMIT when too many are open. */
aidb_status aidb_snapshot_create(aidb *db, aidb_snapshot **snapshot);
void aidb_snapshot_destroy(aidb_snapshot *snapshot);

typedef struct aidb_scan {
    aidb_range range;
    aidb_key prefix; /* alternative to range: every key that begins with it */
    uint64_t limit;  /* most entries wanted, 0 for all: only a hint of how much to fetch */
    int keys_only;   /* do not fetch values */
} aidb_scan;

/* An iterator reads at one point in time: the snapshot's, or that of its creation. Destroy it
 * before its snapshot. `scan` may be NULL for everything. */
aidb_status aidb_iter_create(aidb *db, const aidb_snapshot *snapshot, const aidb_scan *scan,
                             aidb_iter **iter);

typedef enum aidb_seek {
    AIDB_SEEK_FIRST = 0, /* key is ignored */
    AIDB_SEEK_LAST = 1,  /* key is ignored */
    AIDB_SEEK_GE = 2,    /* the first entry at or after key */
    AIDB_SEEK_LE = 3     /* the last entry at or before key */
} aidb_seek;

/* Each moves the iterator and sets *entry, to NULL when there is no such entry. aidb_iter_next on a
 * new iterator begins at the first entry, aidb_iter_prev at the last. After an error the place is lost:
 * next and prev are AIDB_INVALID until a seek. */
aidb_status aidb_iter_seek(aidb_iter *iter, aidb_seek mode, const void *key, size_t key_size,
                           const aidb_entry **entry);
aidb_status aidb_iter_next(aidb_iter *iter, const aidb_entry **entry);
aidb_status aidb_iter_prev(aidb_iter *iter, const aidb_entry **entry);
void aidb_iter_destroy(aidb_iter *iter);

/* Counts the keys of a range (NULL: all) as of `snapshot` exactly, by reading them. `bytes` gets
 * the approximate space that the range takes in files. Either output may be NULL; with `count` NULL
 * nothing is read and the call is quick. */
aidb_status aidb_measure(aidb *db, const aidb_snapshot *snapshot, const aidb_range *range,
                         uint64_t *count, uint64_t *bytes);

/* A property as text in *text (free with aidb_free). Names: "status", "levels", "config",
 * "backends", "wal" (lines of name TAB value or a TSV table with a header line), "version",
 * "uri", "durable_lsn", "visible_lsn", "socket" (the number of a connection's socket). Unknown names are
 * AIDB_INVALID. */
aidb_status aidb_property(aidb *db, const char *name, char **text);

/* Administration: "flush" (memtables to tables), "compact" (a range, NULL for all; both return when
 * done and durable), "compact_wait" (returns when no compaction is due), "terminate N" (server:
 * ends backend N). */
aidb_status aidb_control(aidb *db, const char *command, const aidb_range *range);

/* One request that does not wait. Exactly one of `key` (a get), `keys` (a multi-get) and `batch` (a
 * write) is used. `done` is called from within aidb_submit or aidb_wait, by the thread that called it,
 * with borrowed `value` (get), values (multi-get: as many as keys, as aidb_multi_get gives them; NULL
 * unless the status is AIDB_OK) or `commit` (write); it must not call into this handle. */
typedef struct aidb_request {
    aidb_key key;
    const aidb_key *keys;
    size_t key_count; /* of `keys`: 1 to 65,536 */
    const aidb_batch *batch;
    aidb_durability durability;
    void (*done)(void *arg, aidb_status status, const aidb_value *value, const aidb_commit *commit);
    void *arg;
} aidb_request;

/* Sends a request without waiting for its answer; keys and batch may be reused on return. Answers
 * come in the order of the requests. A server waits for durability once for all requests that
 * arrive together, so requests may be held back to go out together: aidb_wait sends them all. Answers
 * that have come are handed out on the way, and with 16,384 requests unanswered the call waits for some,
 * so that a program may submit without end: what piles up in the library is bounded. After
 * AIDB_OK `done` is called once, whatever happens to the connection, unless the handle is closed
 * before; after an error it is not. A multi-get is not asked for in parts, as aidb_multi_get does: when
 * its values do not fit into one reply of a server its status is AIDB_LIMIT. */
aidb_status aidb_submit(aidb *db, const aidb_request *request);

/* Waits until at most `pending` submitted requests are unanswered. All of them are on their way when
 * it returns. With SIZE_MAX it waits for none, but hands out all answers that have come: for programs that
 * wait for many things at once and call it when the connection's socket (a property) is readable. They may
 * watch it edge-triggered, and do nothing else with it. */
aidb_status aidb_wait(aidb *db, size_t pending);

/* Interrupts a call that another thread has running on this handle; it then returns AIDB_CANCELED.
 * Safe in a signal handler. */
void aidb_cancel(aidb *db);

/* What went wrong in the last failed call of this thread: one line, then perhaps a line that begins
 * with "hint: ". Never NULL; valid until the thread's next call. */
const char *aidb_error_message(void);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
