/*
 * lock.c - the one lock: a futex word (0 free, 1 held, 2 held and waited for).
 *
 * Sections under it are short, so a waiter spins briefly before it sleeps. Who holds what, and
 * since when, can be read from the slots; ranks are asserted when the build asks for it.
 */
#include "config.h"

#include "ipc/ipc.h"

#include "common/failpoint.h"

#include <assert.h>

#define SPIN_ROUNDS 64

#ifdef AIDB_FAILPOINTS
/* A process that dies holding a lock, or does not let it go, whatever it was about to do. */
#define HELD(rank_, name_) \
    [LOCK_RANK_##rank_] = {.name = "lock.held." name_, .kind = FAILPOINT_LOCK, .index = UINT32_MAX}
static FailPoint held[LOCK_RANK_CACHE + 1] = {
    HELD(COMPACTION, "compaction"),   HELD(FLUSH_JOB, "flush_job"),
    HELD(MANIFEST, "manifest"),       HELD(WRITE, "write"),
    HELD(WAL_FLUSH, "log_flush"),     HELD(WAL_SEGMENTS, "log_segments"),
    HELD(VIEW, "read_view"),          HELD(META, "metadata_arena"),
    HELD(MEMPOOL, "memtable_chunks"), HELD(CACHE, "cache"),
};
static FailPoint *const held_list[] FAILPOINT_REGISTER = {
    &held[1], &held[2], &held[3], &held[4], &held[5],
    &held[6], &held[7], &held[8], &held[9], &held[LOCK_RANK_CACHE],
};
#define FAILPOINT_HELD(lock) ((void)failpoint_hit(&held[(lock)->rank]))
#else
#define FAILPOINT_HELD(lock) ((void)0)
#endif

void lock_init(Lock *lock, LockRank rank, const char *name)
{
    atomic_store(&lock->word, 0);
    atomic_store(&lock->owner, 0);
    lock->rank = rank;
    lock->name = name;
}

static void note_acquired(Lock *lock, Slot *slot)
{
    atomic_store_explicit(&lock->owner, slot->index + 1, memory_order_relaxed);
    uint32_t ranks = atomic_load_explicit(&slot->lock_ranks, memory_order_relaxed);
    atomic_store_explicit(&slot->lock_ranks, ranks | 1u << lock->rank, memory_order_relaxed);
    atomic_store_explicit(&slot->lock_name, lock->name, memory_order_relaxed);
    FAILPOINT_HELD(lock);
}

/* Also where it is only tried: who does not get it waits for its holder in another way. */
static void check_rank(const Lock *lock, const Slot *slot)
{
#ifdef AIDB_ASSERTIONS
    assert(atomic_load_explicit(&slot->lock_ranks, memory_order_relaxed) < 1u << lock->rank);
#else
    (void)lock;
    (void)slot;
#endif
}

bool lock_try_acquire(Lock *lock, Slot *slot)
{
    check_rank(lock, slot);
    uint32_t state = 0;
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &state, 1, memory_order_acquire,
                                                 memory_order_relaxed))
        return false;
    note_acquired(lock, slot);
    return true;
}

void lock_acquire(Lock *lock, Slot *slot)
{
    check_rank(lock, slot);
    uint32_t state = 0;
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &state, 1, memory_order_acquire,
                                                 memory_order_relaxed)) {
        for (int i = 0; i < SPIN_ROUNDS; i++) {
            port_cpu_relax();
            state = 0;
            if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 &&
                atomic_compare_exchange_strong_explicit(&lock->word, &state, 1,
                                                        memory_order_acquire, memory_order_relaxed))
                goto held;
        }
        while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
            port_futex_wait(&lock->word, 2, -1);
    }
held:
    note_acquired(lock, slot);
}

void lock_release(Lock *lock, Slot *slot)
{
    uint32_t ranks =
        atomic_load_explicit(&slot->lock_ranks, memory_order_relaxed) & ~(1u << lock->rank);
    atomic_store_explicit(&slot->lock_ranks, ranks, memory_order_relaxed);
    if (ranks == 0)
        atomic_store_explicit(&slot->lock_name, NULL, memory_order_relaxed);
    atomic_store_explicit(&lock->owner, 0, memory_order_relaxed);
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2)
        port_futex_wake(&lock->word, 1);
}

const char *lock_rank_name(uint32_t ranks)
{
    static const char *const NAMES[] = {
        [LOCK_RANK_COMPACTION] = "compaction",   [LOCK_RANK_FLUSH_JOB] = "flush job",
        [LOCK_RANK_MANIFEST] = "manifest",       [LOCK_RANK_WRITE] = "write",
        [LOCK_RANK_WAL_FLUSH] = "log flush",     [LOCK_RANK_WAL_SEGMENTS] = "log segments",
        [LOCK_RANK_VIEW] = "read view",          [LOCK_RANK_META] = "metadata arena",
        [LOCK_RANK_MEMPOOL] = "memtable chunks", [LOCK_RANK_CACHE] = "cache"};
    for (uint32_t rank = LOCK_RANK_CACHE; rank > 0; rank--)
        if ((ranks >> rank & 1) != 0)
            return NAMES[rank];
    return "none";
}
