/*
 * wal_internal.h - what the files of the log share: record framing, segment files, the ring file,
 * scanning, and the state in the region. Byte tables: doc/format-wal.md.
 */
#ifndef AIDB_ENGINE_WAL_WAL_INTERNAL_H
#define AIDB_ENGINE_WAL_WAL_INTERNAL_H

#include "engine/wal/wal.h"
#include "io/io.h"

#define WAL_FORMAT_VERSION 2u
#define WAL_PAYLOAD_MAX    (1u << 30)
#define WAL_NAME_SIZE      26 /* "%016llx.%08x" and the null */

/* Rounds down to the beginning of the segment that holds an LSN. */
static inline uint64_t segment_start(const WalOptions *options, uint64_t lsn)
{
    return lsn & ~(options->segment_size - 1);
}

/* Rounds down to the beginning of the block that holds an LSN, in its segment as in the ring. */
static inline uint64_t block_start(uint64_t lsn)
{
    return lsn & ~(uint64_t)(FILE_BLOCK - 1);
}

/* Where the byte of an LSN stands in its segment's file. */
static inline uint64_t segment_offset(const WalOptions *options, uint64_t lsn)
{
    return WAL_SEGMENT_HEADER_SIZE + (lsn & (options->segment_size - 1));
}

/* ---- record.c: framing ------------------------------------------------------------------------ */

#define RECORD_HEADER_SHORT 16u
#define RECORD_HEADER_FULL  40u
#define RECORD_AT_LSN       16u /* in a full header */

typedef struct RecordHeader {
    uint64_t lsn;
    uint32_t payload_size;
    bool full;             /* states its LSN and what follows; both are 0 otherwise */
    uint64_t payload_hash; /* record_payload_hash */
    uint64_t durable;
    uint64_t time_us;
} RecordHeader;

static inline uint32_t record_header_size(bool full)
{
    return full ? RECORD_HEADER_FULL : RECORD_HEADER_SHORT;
}

/* Bytes that a record takes in the log: header, payload, zero bytes up to a multiple of 8. */
static inline uint64_t record_size(bool full, uint64_t payload_size)
{
    return (record_header_size(full) + payload_size + 7) & ~(uint64_t)7;
}

/* What the checksums of one incarnation's records are seeded with. */
uint64_t record_seed(const uint8_t system_id[16], uint32_t incarnation, uint64_t nonce);
/* What a header says of a payload with this hash. */
uint64_t record_payload_hash(uint64_t payload_hash, uint64_t lsn);
/* Writes record_header_size bytes. */
void record_encode(uint8_t to[RECORD_HEADER_FULL], const RecordHeader *header, uint64_t seed);
/* Whether these bytes begin with the header of a record of that incarnation at that place. */
bool record_decode(const uint8_t *from, size_t size, uint64_t lsn, uint64_t seed,
                   RecordHeader *header);
/* The same without the checksum, for a log whose seed is lost: the payload's hash must decide. */
bool record_decode_unproven(const uint8_t *from, size_t size, uint64_t lsn, RecordHeader *header);
/* Whether payload and padding behind a valid header are whole; if not, *what says why. `rest` has
 * record_size - header size bytes. */
bool record_check(const RecordHeader *header, const uint8_t *rest, const char **what);

/* Writes and checks the checksum of a header block: XXH3-64 over the block with the eight bytes at
 * `at` taken as zero. Blocks have at most WAL_SEGMENT_HEADER_SIZE bytes. */
void block_seal(uint8_t *block, size_t size, size_t at);
bool block_is_sealed(const uint8_t *block, size_t size, size_t at);

/* ---- segment.c: segment files ----------------------------------------------------------------- */

typedef struct SegmentHeader {
    uint32_t incarnation; /* that made the file */
    uint64_t first_lsn;
    uint64_t durable;      /* frontier known when the header was written */
    uint64_t log_first;    /* of the log whose bytes it holds */
    uint64_t previous_end; /* of the log before that */
    uint32_t kind;         /* SegmentKind */
} SegmentHeader;

/* Stored on disk. */
typedef enum SegmentKind {
    SEGMENT_WRITTEN = 1, /* by the incarnation that wrote the records */
    SEGMENT_COPIED = 2   /* by a recovery */
} SegmentKind;

typedef enum HeaderState {
    HEADER_VALID,
    HEADER_UNFINISHED, /* never finished: short, zero, or still that of another segment */
    HEADER_DAMAGED
} HeaderState;

void segment_name(char name[WAL_NAME_SIZE], uint64_t first_lsn, uint32_t incarnation);
/* Heap string; NULL when memory is short. */
char *segment_path(const WalOptions *options, uint64_t first_lsn, uint32_t incarnation);
void segment_header_encode(uint8_t block[WAL_SEGMENT_HEADER_SIZE], const WalOptions *options,
                           const SegmentHeader *header);
HeaderState segment_header_decode(const uint8_t block[WAL_SEGMENT_HEADER_SIZE],
                                  const WalOptions *options, uint64_t first_lsn,
                                  uint32_t incarnation, SegmentHeader *header);

/* The segment files of a directory, by first LSN and then incarnation. */
typedef struct SegmentFile {
    uint64_t first_lsn; /* of the name, as is `incarnation` */
    uint32_t incarnation;
    HeaderState state;
    SegmentHeader header; /* when valid */
    uint64_t size;        /* of the file */
} SegmentFile;
typedef struct Catalog {
    SegmentFile *files;
    size_t count;
    size_t capacity;
} Catalog;

Status catalog_load(const WalOptions *options, Catalog *catalog) MUST_CHECK;
void catalog_deinit(Catalog *catalog);
/* The file that rules for a segment: valid, and of the highest incarnation that is not below
 * `incarnation_min`. NULL when there is none. */
const SegmentFile *catalog_find(const Catalog *catalog, uint64_t first_lsn,
                                uint32_t incarnation_min);

/* Makes a file of zeros with real blocks, header last, everything synced. Removes what it made when
 * it fails. */
Status segment_create(const WalOptions *options, const SegmentHeader *header,
                      bool zero_fill) MUST_CHECK;

/* Prepares segments until `end` is covered. */
Status segments_prepare(Wal *wal, Slot *slot, uint64_t end) MUST_CHECK;
/* After the clean stop is recorded: removes the segments that hold nothing which the next start reads, so
 * that a closed store takes no more room than it needs. */
void segments_remove_spare(Wal *wal, Slot *slot);
/* After the clean stop is recorded: gives back what lies behind the end in the segment that holds it, since
 * the next start begins a segment of its own, and what in it tables hold. */
void segment_release_rest(Wal *wal);
/* Both write log bytes into prepared segments and return when they are durable, each segment before the
 * next one is written to. Files are written in whole blocks: what stands in front of the bytes in the first
 * block is written again. Flush lock held. */
/* Ring bytes; behind the end the last block is filled with zeros. */
Status segment_write_ring(Wal *wal, uint64_t begin, uint64_t end) MUST_CHECK;
/* Blocks of the caller's: place, address and size are multiples of FILE_BLOCK. */
Status segment_write(Wal *wal, uint64_t lsn, const uint8_t *data, size_t size) MUST_CHECK;

/* ---- ring.c: the ring file -------------------------------------------------------------------- */

/* Stored on disk. */
typedef enum RingState {
    RING_READY = 1,  /* in use, or ready for it */
    RING_STOPPED = 2 /* cleanly stopped: the log ends at `end`, all of it is in segments */
} RingState;

typedef struct RingHeader {
    uint64_t sequence;
    uint32_t incarnation; /* 0: of a new database */
    uint32_t state;
    bool previous_clean;   /* the log before had been closed */
    uint64_t first_lsn;    /* where the incarnation's log begins */
    uint64_t previous_end; /* everything below is in synced segments */
    uint64_t end;          /* of a stopped log */
} RingHeader;

typedef struct Ring {
    File file;
    uint8_t *map; /* the whole file: a page of headers, then the bytes */
    uint8_t *data;
    uint64_t size; /* of the bytes */
    char *path;
} Ring;
#define RING_CLOSED                      \
    {                                    \
        .file = FILE_CLOSED, .map = NULL \
    }

/* `first_lsn`: where the first log begins; 0: wherever recovery lets it. */
Status ring_create(const WalOptions *options, uint64_t first_lsn) MUST_CHECK;
/* Takes system id and sizes from any whole header. */
bool ring_identify(const File *file, WalOptions *options);
Status ring_open(const WalOptions *options, bool writable, Ring *ring) MUST_CHECK;
void ring_close(Ring *ring);
/* After a clean stop: gives the ring's room back, except for its header. */
void ring_release(const Ring *ring);
/* The newest valid header; AIDB_CORRUPTION when there is none. *damaged (may be NULL): the offset of
 * a header slot that is neither valid nor empty, or UINT64_MAX. */
Status ring_read_header(const Ring *ring, const WalOptions *options, RingHeader *header,
                        uint64_t *damaged) MUST_CHECK;
/* Writes the header that follows `sequence` and syncs it. */
Status ring_write_header(const Ring *ring, const WalOptions *options,
                         const RingHeader *header) MUST_CHECK;
void ring_put(const Ring *ring, uint64_t lsn, const void *data, size_t size);
void ring_get(const Ring *ring, uint64_t lsn, void *data, size_t size);
/* The piece of [lsn, lsn + size) that stands in one run in the ring. */
Slice ring_run(const Ring *ring, uint64_t lsn, uint64_t size);

/* ---- reader.c: scanning ----------------------------------------------------------------------- */

typedef struct Flaw {
    uint64_t lsn; /* where */
    const char *what;
} Flaw;

typedef struct FoundRecord {
    RecordHeader header;
    uint64_t end; /* 0: no record was found */
    Slice payload;
} FoundRecord;

/* Reads log bytes from segment files through a window of bytes that are contiguous in the log. */
typedef struct Scan {
    const WalOptions *options;
    Catalog catalog;
    uint64_t seed;            /* of the log being read */
    uint32_t incarnation_min; /* files of older incarnations do not hold it */
    /* For repair. */
    bool unproven; /* the seed is not known: headers go by their LSN, or by the payload's hash */
    bool tolerant; /* bytes that the disk refuses are missing ones */
    File file;
    uint64_t file_lsn; /* of the open file */
    uint32_t file_incarnation;
    Buffer window;
    uint64_t window_lsn;
} Scan;

Status scan_init(Scan *scan, const WalOptions *options) MUST_CHECK;
void scan_deinit(Scan *scan);
void scan_set_log(Scan *scan, const WalStart *start);
/* Whether these bytes begin with the header of a record of the log at that place. */
bool scan_decode(const Scan *scan, const uint8_t *bytes, size_t size, uint64_t lsn,
                 RecordHeader *header);
/* The bytes from `lsn` on, until the next call: `want` of them, or fewer when some are missing. */
Status scan_bytes(Scan *scan, uint64_t lsn, size_t want, const uint8_t **bytes,
                  size_t *got) MUST_CHECK;
/* The record at `lsn`, which must not end past `limit`. When there is none *flaw says why. */
Status scan_record(Scan *scan, uint64_t lsn, uint64_t limit, FoundRecord *found,
                   Flaw *flaw) MUST_CHECK;
/* The next place from `lsn` on, below `limit`, where a record's header stands; `limit` if none. `full`: one
 * that states its LSN. So do all that speak of the horizon, and they are found ten times as fast. */
Status scan_resync(Scan *scan, uint64_t lsn, uint64_t limit, bool full, uint64_t *place,
                   RecordHeader *header) MUST_CHECK;
/* Path (heap, NULL when memory is short) and offset of an LSN, for messages. */
char *scan_place(const Scan *scan, uint64_t lsn, uint64_t *offset);
/* AIDB_CORRUPTION that names file and offset of a flaw. */
Status scan_damage(const Scan *scan, const Flaw *flaw) MUST_CHECK;
/* AIDB_CORRUPTION when a list of starts contradicts itself. */
Status starts_check(const WalOptions *options, const WalStart *starts, size_t count) MUST_CHECK;
/* Where the log of starts[index] ends at the latest: LSN_MAX for the last. */
uint64_t starts_limit(const WalStart *starts, size_t count, size_t index);

/* ---- recover.c -------------------------------------------------------------------------------- */

/* A run of log bytes that only the ring holds. */
typedef struct RingRun {
    uint64_t begin;
    uint64_t end;
} RingRun;

/* What the files say about the end of the log. */
typedef struct LogEnd {
    uint64_t end;
    uint64_t horizon;
    uint64_t stop;       /* where the log is known to end, or LSN_MAX */
    uint64_t time_us;    /* of the newest record */
    uint64_t next_first; /* 0, or where a killed recovery let the new log begin */
    bool clean;
    bool ring_counts; /* the ring may hold records that segments lack */
    uint64_t ring_seed;
    Buffer runs; /* of RingRun, ascending */
} LogEnd;

/* Takes the horizon, the known end and the ring's role from headers and the ring. */
Status log_end_init(LogEnd *log, const Scan *scan, const Ring *ring, const WalOptions *options,
                    const WalStart *starts, size_t count, uint64_t horizon,
                    uint32_t incarnation) MUST_CHECK;
/* Walks the log from `from` to its end, which it sets, as it does the ring's runs. AIDB_CORRUPTION when
 * something is wrong below the horizon. */
Status log_end_find(LogEnd *log, Scan *scan, const Ring *ring, const WalStart *starts, size_t count,
                    uint64_t from) MUST_CHECK;
void log_end_deinit(LogEnd *log);
/* The record at `lsn` in the ring; found->end is 0 when there is none. `scratch` keeps a payload. */
Status ring_record(const Ring *ring, uint64_t lsn, uint64_t seed, Buffer *scratch,
                   FoundRecord *found) MUST_CHECK;

/* ---- wal.c: state ----------------------------------------------------------------------------- */

struct WalShared {
    /* Set by recovery, constant while the log is written. */
    uint32_t incarnation;
    uint64_t seed;
    uint64_t first_lsn;
    uint64_t previous_end;
    _Atomic uint32_t ready; /* recovered: may be appended to */

    _Atomic uint32_t failed;  /* set under the flush lock, never cleared */
    _Atomic uint32_t stopped; /* cleanly: nothing may be appended any more */
    _Atomic(Slot *) writer;   /* slot of the WAL writer, woken by wal_nudge */
    Lock segments_lock;

    /* Guarded by the segments lock for writing; read by anybody. Segments [oldest, prepared_end) of this
     * incarnation exist; those from the one of `durable` on are ready to be written. */
    _Atomic uint64_t prepared_end;
    _Atomic uint64_t oldest;
    _Atomic uint64_t released;       /* tables hold everything below */
    _Atomic uint32_t older_files;    /* files of earlier incarnations remain */
    _Atomic uint32_t prepare_failed; /* the last preparation failed: logged once */
    _Atomic uint64_t created;
    _Atomic uint64_t recycled;
    uint32_t flushes_before; /* when the last segment was made; guard: segments lock */
    uint64_t durable_before;

    /* Guarded by the caller's write lock for writing. Release store after the bytes are in the ring;
     * pairs with the acquire load of who writes them to segments. */
    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t copied;
    /* Write lock: */
    uint64_t last_time_us;
    uint64_t stated_durable; /* by the last full header, */
    uint64_t stated_block;   /* which begins in this block; 0: there is none yet */

    /* Guarded by the flush lock for writing. Release store after the sync; pairs with the acquire
     * load of writers that reuse the ring's space. */
    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t durable;

    _Alignas(PORT_CACHE_LINE) Lock flush_lock;
    _Atomic uint32_t flushes; /* futex word: rises at the end of each flush */
    _Atomic uint32_t waiters; /* sleepers on it */
    _Atomic uint32_t
        arrived; /* callers that needed a flush, counted after their records were copied */
    /* What a leader knows about who will come; flush lock. */
    uint32_t taken;    /* of `arrived`, what flushes have covered */
    uint32_t expected; /* committers about: those of the last flush and those who came during it */
    uint32_t misses;   /* waits in a row that did not pay */
    uint32_t skip;     /* flushes until a leader waits again */
    uint64_t flush_ns; /* what a flush takes, lately */
    _Atomic uint64_t syncs;
    _Atomic uint64_t synced_bytes;
};

struct Wal {
    WalOptions options; /* directory is an own copy */
    WalShared *shared;
    Ring ring;
    uint64_t (*keep)(void *arg); /* wal_keep_room; NULL: nothing */
    void *keep_arg;

    /* The segment last written. Flush lock. */
    File segment;
    uint64_t segment_first;
    uint32_t segment_incarnation;
    uint8_t *block; /* FILE_BLOCK bytes, aligned: the last one that a flush writes */

    /* The WAL writer's own. */
    uint64_t seen_copied;
    uint64_t seen_ns;
    uint64_t touched;
    uint64_t stepped; /* `copied` at the last step; 0: there was none */
};

/* The durable frontier as headers state it: never a place that only this incarnation knows, because
 * a header may be written before the manifest knows where the incarnation's log begins. */
static inline uint64_t wal_durable_claim(const WalShared *shared)
{
    uint64_t durable = atomic_load_explicit(&shared->durable, memory_order_relaxed);
    return durable <= shared->first_lsn ? shared->previous_end : durable;
}

#endif
