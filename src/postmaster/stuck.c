/*
 * stuck.c - processes that hold what others wait for and do not move.
 *
 * Their slots are all that is looked at: single words, which the owner changes with everything it does.
 */
#include "config.h"
#include "postmaster/postmaster_internal.h"

#include "common/failpoint.h"
#include "common/hash.h"
#include "common/log.h"

#include <inttypes.h>
#include <signal.h>

#define MONITOR_NS    (10ull * 1000000000ull)
#define STUCK_KILL_NS (120ull * 1000000000ull)

/* Locks that are held across file operations for long; a slow disk must not look like a fault. The write
 * lock is not among them: what it is held across marks itself as a log flush. */
#define LOCKS_WITH_IO                                                                         \
    ((1u << LOCK_RANK_FLUSH_JOB) | (1u << LOCK_RANK_MANIFEST) | (1u << LOCK_RANK_WAL_FLUSH) | \
     (1u << LOCK_RANK_WAL_SEGMENTS))

/* Everything that changes in a slot whose owner gets on. */
static uint64_t slot_fingerprint(const Slot *slot, uint32_t locks, uint64_t epoch)
{
    uint64_t words[3 + STAT_COUNT] = {locks, epoch, atomic_load(&slot->section_since_ns)};
    for (int i = 0; i < STAT_COUNT; i++)
        words[3 + i] = atomic_load_explicit(&slot->stats[i], memory_order_relaxed);
    return hash64(words, sizeof words, 1);
}

/* Flushes and compactions wait until a snapshot that is being registered has its LSN. */
static bool registers_snapshot(const Slot *slot)
{
    for (int i = 0; i < SLOT_SNAPSHOTS; i++)
        if (atomic_load_explicit(&slot->snapshots[i], memory_order_relaxed) == SNAPSHOT_CLAIM)
            return true;
    return false;
}

/* A process that holds what nobody may hold for long, and has done nothing since the last look: named
 * after two looks, killed after two minutes, unless it may be in a file operation. */
static void look_at_slot(Child *child, pid_t pid, const Slot *slot, uint64_t now)
{
    uint32_t section = atomic_load(&slot->section);
    uint32_t locks = atomic_load(&slot->lock_ranks);
    uint64_t epoch = atomic_load(&slot->epoch);
    /* Of several locks only the one taken last can be held across a file operation. */
    uint32_t last = locks != 0 ? 1u << (31 - __builtin_clz(locks)) : 0;
    bool in_io = section == SECTION_FLUSH || section == SECTION_READ || (last & LOCKS_WITH_IO) != 0;
    bool claims = registers_snapshot(slot);
    if (locks == 0 && epoch == 0 && section == SECTION_NONE && !claims) {
        child->stuck_since_ns = 0;
        return;
    }
    uint64_t fingerprint = slot_fingerprint(slot, locks, epoch);
    if (child->stuck_since_ns == 0 || child->stuck_fingerprint != fingerprint) {
        child->stuck_fingerprint = fingerprint;
        child->stuck_since_ns = now;
        child->stuck_said = false;
        return;
    }
    uint64_t stuck_ns = now - child->stuck_since_ns;
    bool kill_it =
        !in_io && stuck_ns >= FAILPOINT_CONSTANT("postmaster.stuck_kill_ns", STUCK_KILL_NS);
    if (!child->stuck_said || kill_it)
        server_log(kill_it ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
                   "the %s (process %d) has not moved for %" PRIu64
                   " s: lock %s, %s an epoch%s%s%s",
                   child_name(child->kind), (int)pid, stuck_ns / 1000000000u, lock_rank_name(locks),
                   epoch != 0 ? "in" : "not in", claims ? ", registering a snapshot" : "",
                   in_io ? ", perhaps in a file operation" : "", kill_it ? "; it is killed" : "");
    child->stuck_said = true;
    if (kill_it)
        kill(pid, SIGKILL);
}

void stuck_look(Postmaster *postmaster)
{
    uint64_t now = port_monotonic_ns();
    if (now < postmaster->monitor_ns || postmaster->phase != PHASE_RUN)
        return;
    postmaster->monitor_ns = now + FAILPOINT_CONSTANT("postmaster.monitor_ns", MONITOR_NS);
    for (uint32_t i = 0; i < postmaster->child_count; i++) {
        Child *child = &postmaster->children[i];
        pid_t pid = postmaster_process_of(postmaster, child);
        if (pid != 0)
            look_at_slot(child, pid, &db_slots(postmaster->db)->slots[i], now);
    }
}
