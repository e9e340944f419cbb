/*
 * ipc.h - what processes (or, embedded, threads) share: the region, the one lock, process slots
 * with latches, and epochs.
 *
 * Nothing here knows whether its callers are processes of one server or threads of one program.
 * The region is mapped by the process that forks all others, so that its address, and with it a plain
 * pointer into it, is the same in all of them. After a crash of a child the same mapping is carved
 * and initialised anew, so no initialiser may assume that memory is zero.
 */
#ifndef AIDB_IPC_IPC_H
#define AIDB_IPC_IPC_H

#include "common/status.h"
#include "port/port.h"

/* ---- region ---------------------------------------------------------------------------------- */

typedef struct Region {
    uint8_t *base;
    size_t size;
    size_t used;
    bool huge; /* stands on reserved huge pages */
} Region;

/* Maps `size` bytes, on huge pages when asked and possible (else small ones). With `shared` forked children
 * have the same memory; without, theirs is all zeroes. */
Status region_create(size_t size, bool shared, bool want_huge, Region *region) MUST_CHECK;
/* Asks for huge pages for a part of a private region, from its first touch on. */
void region_prefer_huge(const Region *region, void *part, size_t size);
/* Touches every page so that none is missing later. */
void region_populate(Region *region);
void region_destroy(Region *region);
/* Hands out the next `size` bytes; `align` is a power of two. NULL when the region is used up: the
 * sizes are computed beforehand by the same code, so that is a programming error. */
void *region_carve(Region *region, size_t size, size_t align);
/* Forgets all that was carved. */
void region_reset(Region *region);

/* ---- slots ----------------------------------------------------------------------------------- */

typedef enum SlotKind {
    SLOT_FREE = 0,
    SLOT_STARTUP,
    SLOT_WAL_WRITER,
    SLOT_FLUSHER,
    SLOT_COMPACTOR,
    SLOT_PREPARER, /* touches memory of the block cache ahead of readers */
    SLOT_BACKEND,  /* a server's client */
    SLOT_HOST,     /* a process that serves many clients, each of which has a slot too */
    SLOT_THREAD    /* an embedding program's thread while it is inside a call */
} SlotKind;

/* What a holder must not be in for long; reported, with since when, by whoever looks. */
typedef enum SlotSection {
    SECTION_NONE = 0,
    SECTION_WRITE, /* reservation to publication */
    SECTION_FLUSH, /* leading a log flush (I/O) */
    SECTION_EPOCH,
    SECTION_LOCK, /* holding `lock_name` */
    SECTION_READ  /* reading a block (I/O) */
} SlotSection;

#define SLOT_SNAPSHOTS 32
#define SNAPSHOT_NONE  0u
#define SNAPSHOT_CLAIM UINT64_MAX /* being registered: its LSN is not known yet */

typedef enum StatCounter {
    STAT_GETS,
    STAT_GET_HITS,
    STAT_SCANS,
    STAT_SCAN_ROWS,
    STAT_WRITES,
    STAT_OPERATIONS,
    STAT_WRITE_BYTES,
    STAT_WAL_SYNCS,
    STAT_WAL_BYTES,
    STAT_CACHE_HITS,
    STAT_CACHE_MISSES,
    STAT_FILTER_CHECKS,
    STAT_FILTER_SKIPS,
    STAT_BLOCK_READS,
    STAT_BLOCK_READ_BYTES,
    STAT_STALLS,
    STAT_STALL_US,
    STAT_FLUSHES,
    STAT_FLUSH_BYTES,
    STAT_COMPACTIONS,
    STAT_COMPACT_READ_BYTES,
    STAT_COMPACT_WRITE_BYTES,
    STAT_TRIVIAL_MOVES,
    STAT_EXPECTATIONS_FAILED,
    STAT_COUNT
} StatCounter;

/*
 * One for each process (or embedding thread inside a call, or client of a host). Only its owner writes it, but for the
 * latch flag and `terminate`; everybody may read it. Counters only rise while a slot is in use and
 * are kept when it is released, so that sums never go back.
 */
typedef struct Slot {
    _Atomic uint32_t kind; /* SlotKind; CAS from SLOT_FREE claims the slot */
    _Atomic int32_t pid;
    uint32_t index;
    int latch_fd;              /* eventfd made before fork, the same number in every child */
    struct Slot *_Atomic host; /* of a process that serves many: whose latch is woken; else NULL */

    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t epoch; /* 0: outside */
    uint32_t epoch_depth;                             /* owner only */

    _Alignas(PORT_CACHE_LINE) _Atomic uint32_t sleeping; /* owner waits on its latch */
    _Atomic uint32_t interrupt;                          /* set by others: see SLOT_INTERRUPT_* */
    _Atomic uint32_t section;                            /* SlotSection */
    _Atomic uint64_t section_since_ns;
    const char *_Atomic lock_name;
    _Atomic uint32_t lock_ranks; /* bit r: holds a lock of rank r (assertions) */

    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t snapshots[SLOT_SNAPSHOTS];

    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t stats[STAT_COUNT];

    _Alignas(PORT_CACHE_LINE) char activity[64]; /* shown to people; null-terminated */
    char peer[64];
    char application[32];
    _Atomic uint64_t started_us;
    _Atomic uint64_t session_id;
} Slot;

#define SLOT_INTERRUPT_CANCEL    1u
#define SLOT_INTERRUPT_TERMINATE 2u

typedef struct SlotTable {
    uint32_t count;
    Slot *slots; /* PORT_CACHE_LINE aligned */
} SlotTable;

size_t slot_table_size(uint32_t count);
/* `latch_fds` has `count` descriptors, or is NULL when no latch will be waited on. */
void slot_table_init(SlotTable *table, void *memory, uint32_t count, const int *latch_fds);
/* Claims a given slot (server) or any from `from` on (embedded); NULL when taken or none is free. */
Slot *slot_claim(SlotTable *table, uint32_t index, SlotKind kind);
Slot *slot_claim_any(SlotTable *table, uint32_t from, SlotKind kind);
void slot_release(Slot *slot);
void slot_set_activity(Slot *slot, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t slot_stat_sum(const SlotTable *table, StatCounter counter);

static inline void slot_count(Slot *slot, StatCounter counter, uint64_t amount)
{
    /* Only the owner writes: a plain add needs no lock prefix. */
    atomic_store_explicit(&slot->stats[counter],
                          atomic_load_explicit(&slot->stats[counter], memory_order_relaxed) +
                              amount,
                          memory_order_relaxed);
}

/* Marks the section and returns the one before, to be restored by slot_leave. */
SlotSection slot_enter(Slot *slot, SlotSection section);
void slot_leave(Slot *slot, SlotSection before);

/* ---- latch ----------------------------------------------------------------------------------- */

/* Wakes the owner of a slot (its host, when it has one) if it sleeps, or makes its next wait return at
 * once. Safe in a signal handler. */
void latch_wake(Slot *slot);
/* Whether the owner's next wait will return at once. */
bool latch_is_woken(const Slot *slot);
/* Sleeps until woken, at most timeout_ms (-1: no limit). Usage: check the condition; latch_wait;
 * check again - a wake between check and wait is not lost. Returns early on a signal. `other_fd`
 * (-1: none) is waited for too: true means it is readable or closed. */
bool latch_wait(Slot *slot, int other_fd, int timeout_ms);
/* The same for what `events` (of poll) names: a client's socket that can take more. */
bool latch_wait_for(Slot *slot, int other_fd, short events, int timeout_ms);
/* The same in halves, for who waits for more than one descriptor (latch_fd among them). False from
 * latch_begin: it was woken already, and must not sleep. After true comes latch_end, with whether
 * latch_fd was found readable; then what it waits for is looked at again. */
bool latch_begin(Slot *slot);
void latch_end(Slot *slot, bool readable);

/* ---- lock ------------------------------------------------------------------------------------ */

/*
 * The one lock: a futex word with owner, rank and name. Not fair, but bounded spinning before sleep
 * and one wake at release. A lock may be taken only by who holds none of its rank or
 * above (checked with AIDB_ASSERTIONS). A holder
 * that dies leaves it locked: the supervisor then resets the region. doc/locking.md has the table
 * of ranks.
 */
typedef enum LockRank {
    LOCK_RANK_COMPACTION = 1,   /* choosing compactions */
    LOCK_RANK_FLUSH_JOB = 2,    /* one flush of a memtable at a time */
    LOCK_RANK_MANIFEST = 3,     /* held across the manifest's sync */
    LOCK_RANK_WRITE = 4,        /* reservation to publication; memtable switch */
    LOCK_RANK_WAL_FLUSH = 5,    /* leading a log flush; held across its sync */
    LOCK_RANK_WAL_SEGMENTS = 6, /* segment list; held across file creation */
    LOCK_RANK_VIEW = 7,         /* replacing the read view; limbo lists */
    LOCK_RANK_META = 8,         /* metadata arena */
    LOCK_RANK_MEMPOOL = 9,      /* memtable chunks */
    LOCK_RANK_CACHE = 10        /* a cache shard */
} LockRank;

typedef struct Lock {
    _Atomic uint32_t word;  /* 0 free, 1 held, 2 held and waited for */
    _Atomic uint32_t owner; /* slot index + 1 */
    uint32_t rank;
    const char *name; /* static string */
} Lock;

void lock_init(Lock *lock, LockRank rank, const char *name);
void lock_acquire(Lock *lock, Slot *slot);
bool lock_try_acquire(Lock *lock, Slot *slot);
void lock_release(Lock *lock, Slot *slot);
/* The name of the highest lock in a slot's `lock_ranks`, "none" when there is none. */
const char *lock_rank_name(uint32_t ranks);
static inline bool lock_is_held_by(const Lock *lock, const Slot *slot)
{
    return atomic_load_explicit(&lock->owner, memory_order_relaxed) == slot->index + 1;
}

/* ---- epochs ---------------------------------------------------------------------------------- */

/*
 * Memory that readers reach without locks is reused only when no reader can still hold a pointer
 * into it. A reader brackets its work with epoch_enter and epoch_leave (they nest). To reuse: make
 * the object unreachable, stamp it with epoch_retire(), and reuse it once epoch_is_past(stamp).
 * Nobody waits for a client, a timer or a lock inside.
 */
typedef struct EpochDomain {
    _Alignas(PORT_CACHE_LINE) _Atomic uint64_t current;
    _Atomic uint64_t safe; /* every active reader's epoch is known to be at least this */
    SlotTable *slots;
} EpochDomain;

void epoch_init(EpochDomain *domain, SlotTable *slots);

/* A full fence. The thread sanitizer knows no fences; a read-modify-write of a word that all share
 * orders the same things in a way that it sees. */
static inline void epoch_fence(EpochDomain *domain)
{
#if defined(__SANITIZE_THREAD__)
    (void)atomic_fetch_add(&domain->current, 0);
#else
    (void)domain;
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void epoch_enter(EpochDomain *domain, Slot *slot)
{
    if (slot->epoch_depth++ == 0) {
        atomic_store_explicit(&slot->epoch,
                              atomic_load_explicit(&domain->current, memory_order_acquire),
                              memory_order_relaxed);
        epoch_fence(domain); /* pairs with epoch_is_past */
    }
}
static inline void epoch_leave(Slot *slot)
{
    if (--slot->epoch_depth == 0)
        atomic_store_explicit(&slot->epoch, 0, memory_order_release);
}
/* Call after the object was made unreachable. */
uint64_t epoch_retire(EpochDomain *domain);
/* Whether every reader that could have seen an object with this stamp has left. */
bool epoch_is_past(EpochDomain *domain, uint64_t stamp);

#endif
