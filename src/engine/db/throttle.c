/*
 * throttle.c - backpressure: writers are slowed gradually when flushes or compactions fall behind.
 *
 * Pressure is the worst of four: how full the memtables' memory is, how many tables level 0 has, how
 * many bytes wait for compaction, how little more than a compaction of level 0 that is due needs the disk has. From it follows a rate that all writers share; a writer whose bytes
 * are not paid for yet sleeps before it takes any lock. The rate never falls to zero: what stops a
 * writer in the end is memory that is really used up, and then only until the next flush.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#define RATE_MAX      ((double)(256u << 20)) /* bytes a second where slowing for compactions begins */
#define RATE_MIN      ((double)(2u << 20))
/* Debts below this are not slept off yet. What writers have to wait for in all is the same whatever it is:
 * few waits leave nearly all writes as fast as they can be, and none is long. */
#define CREDIT_NS     10000000u
#define SLEEP_MAX_MS  50
#define PENDING_SLOW  ((double)(16ull << 30))
#define PENDING_LIMIT ((double)(64ull << 30))

const char *throttle_reason_name(ThrottleReason reason)
{
    switch (reason) {
    case THROTTLE_MEMTABLES:
        return "memtables wait to be flushed";
    case THROTTLE_LEVEL0:
        return "level 0 waits to be compacted";
    case THROTTLE_COMPACTION:
        return "bytes wait to be compacted";
    case THROTTLE_DISK:
        return "the disk has little room for the compaction that is due";
    default:
        return "none";
    }
}

/* 0 below `slow`, 1 at `limit`. */
static double ramp(double value, double slow, double limit)
{
    if (value <= slow)
        return 0;
    return value >= limit ? 1 : (value - slow) / (limit - slow);
}

/* Tables of level 0 must not take the room that their own compaction needs: what it would give back would never
 * be had. 0 while none is due. Inside an epoch. */
static double disk_pressure(Session *session, const Version *version, const PickOptions *options)
{
    if (compaction_level0_runs(version) < options->level0_files)
        return 0;
    LevelTargets targets;
    compaction_targets(version, options, &targets);
    double need = (double)(version->levels[0].bytes + version->levels[targets.base].bytes);
    double room = (double)directory_room(session->db->sst_directory);
    double spare = room - (double)compaction_leaves(session->db);
    return ramp(2 * need - spare, 0, need);
}

/* How long a debt of `ns` at one rate lasts at another. Never longer: the bytes were let in at a rate that was right
 * then, and ten milliseconds of that would be a second's stall at a rate that has fallen to a hundredth. */
static uint64_t at_rate(uint64_t ns, uint64_t before, uint64_t rate)
{
    if (rate == 0)
        return 0;
    return rate <= before ? ns : (uint64_t)((double)ns * (double)before / (double)rate);
}

/* What is owed is bytes: a debt made under high pressure must not be slept off when it has gone, nor be
 * found again by the next who comes under pressure. Who sleeps already sees to it in throttle_write. */
static void set_rate(DbShared *shared, uint64_t rate)
{
    uint64_t before = atomic_exchange(&shared->throttle_rate, rate);
    if (before == rate || before == 0)
        return;
    uint64_t now = port_monotonic_ns();
    uint64_t next = atomic_load(&shared->throttle_next_ns);
    while (next > now && !atomic_compare_exchange_weak(&shared->throttle_next_ns, &next,
                                                       now + at_rate(next - now, before, rate)))
        ;
}

void throttle_update(Session *session)
{
    DbShared *shared = session->shared;
    uint64_t used, capacity;
    mempool_usage(shared->pool, &used, &capacity);
    PickOptions options = pick_options(shared);
    uint64_t pending = 0;
    epoch_enter(&shared->epochs, session->slot);
    ReadView *view = atomic_load_explicit(&shared->view, memory_order_acquire);
    double level0 = 0;
    double sealed = 0, disk = 0;
    if (view != NULL) {
        level0 = compaction_level0_runs(view->version);
        for (uint32_t i = 0; i < view->immutable_count; i++)
            sealed += (double)memtable_bytes(view->immutables[i]);
        compaction_score(view->version, &options, &pending);
        disk = disk_pressure(session, view->version, &options);
    }
    epoch_leave(session->slot);

    ThrottleReason reason = THROTTLE_NONE;
    double room = (double)capacity - (double)shared->memtable_size;
    double pressure = room > 0 ? ramp(sealed / room, 0.5, 1.0) : 0;
    if (pressure > 0)
        reason = THROTTLE_MEMTABLES;
    double p = ramp(level0, 3.0 * options.level0_files, 5.0 * options.level0_files);
    if (p > pressure) {
        pressure = p;
        reason = THROTTLE_LEVEL0;
    }
    p = ramp((double)pending, PENDING_SLOW, PENDING_LIMIT);
    if (p > pressure) {
        pressure = p;
        reason = THROTTLE_COMPACTION;
    }
    if (disk > pressure) {
        pressure = disk;
        reason = THROTTLE_DISK;
    }
    double left = (1 - pressure) * (1 - pressure) * (1 - pressure);
    double rate = RATE_MAX * left;
    double flush_rate = (double)atomic_load(&shared->flush_rate);
    if (reason == THROTTLE_MEMTABLES && flush_rate > 0)
        rate = flush_rate * (1.25 - 0.75 * pressure);
    if (rate < RATE_MIN)
        rate = RATE_MIN;
    atomic_store(&shared->throttle_reason, reason);
    set_rate(shared, pressure > 0 ? (uint64_t)rate : 0);
}

uint64_t db_debt_left(Db *db, DbDebt *debt)
{
    if (debt->left_ns == 0)
        return 0;
    uint64_t now = port_monotonic_ns();
    uint64_t passed = now - debt->seen_ns;
    uint64_t rate = atomic_load(&db->shared->throttle_rate);
    debt->left_ns = debt->left_ns > passed ? at_rate(debt->left_ns - passed, debt->rate, rate) : 0;
    debt->rate = rate;
    debt->seen_ns = now;
    return debt->left_ns;
}

Status throttle_write(Session *session, uint64_t bytes, DbDebt *debt)
{
    DbShared *shared = session->shared;
    *debt = (DbDebt){0};
    uint64_t rate = atomic_load_explicit(&shared->throttle_rate, memory_order_relaxed);
    if (rate == 0)
        return AIDB_OK;
    if (atomic_load_explicit(&shared->throttle_reason, memory_order_relaxed) == THROTTLE_MEMTABLES)
        atomic_store_explicit(&shared->flush_awaited, 1, memory_order_relaxed);
    uint64_t now = port_monotonic_ns();
    uint64_t cost = bytes * 1000000000u / rate;
    uint64_t next = atomic_load(&shared->throttle_next_ns);
    uint64_t start;
    do {
        start = next > now ? next : now;
    } while (!atomic_compare_exchange_weak(&shared->throttle_next_ns, &next, start + cost));
    if (start <= now + CREDIT_NS)
        return AIDB_OK;
    slot_count(session->slot, STAT_STALLS, 1);
    *debt = (DbDebt){.left_ns = start - now, .rate = rate, .seen_ns = now};
    if (session->hosted)
        return AIDB_OK;
    Status status = AIDB_OK;
    while (status == AIDB_OK && debt->left_ns > 0) {
        uint64_t left_ms = debt->left_ns / 1000000u, began = debt->seen_ns;
        uint32_t seen = progress_now(shared);
        status = progress_wait(session, seen,
                               left_ms < 1              ? 1
                               : left_ms > SLEEP_MAX_MS ? SLEEP_MAX_MS
                                                        : (int)left_ms);
        (void)db_debt_left(session->db, debt);
        slot_count(session->slot, STAT_STALL_US, (debt->seen_ns - began) / 1000u);
    }
    return status;
}
