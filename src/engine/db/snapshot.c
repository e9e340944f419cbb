/*
 * snapshot.c - registered read points.
 *
 * Registering: claim a place in the own slot with SNAPSHOT_CLAIM, fence, read the visible LSN, store
 * it. A compaction collects the LSNs after it has chosen its inputs: a claim that it does not see
 * comes later, and will read an LSN at or above everything in its inputs.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include "common/failpoint.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define CLAIM_YIELDS   100u
#define CLAIM_SLEEP_NS 1000000

Status db_snapshot_acquire(Session *session, uint64_t *lsn)
{
    *lsn = 0;
    for (int i = 0; i < SLOT_SNAPSHOTS; i++) {
        _Atomic uint64_t *place = &session->slot->snapshots[i];
        if (atomic_load_explicit(place, memory_order_relaxed) != SNAPSHOT_NONE)
            continue;
        atomic_store(place, SNAPSHOT_CLAIM);
        atomic_thread_fence(memory_order_seq_cst);
        *lsn = db_visible_lsn(session->db);
        FAILPOINT("snapshot.claimed");
        atomic_store(place, *lsn);
        FAILPOINT("snapshot.registered");
        return AIDB_OK;
    }
    Status status =
        status_set(AIDB_LIMIT, "a session can hold %d snapshots, and does", SLOT_SNAPSHOTS);
    status_hint("Release snapshots that are no longer read.");
    return status;
}

void db_snapshot_release(Session *session, uint64_t lsn)
{
    for (int i = 0; i < SLOT_SNAPSHOTS; i++) {
        if (atomic_load_explicit(&session->slot->snapshots[i], memory_order_relaxed) == lsn) {
            atomic_store_explicit(&session->slot->snapshots[i], SNAPSHOT_NONE,
                                  memory_order_release);
            return;
        }
    }
}

static int compare_lsns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The LSN of a place, waiting while it is being registered: a few instructions. A dead claimer means a reset; one
 * that does not go on is found, named and ended by the postmaster, so this must not take the processor. */
static Status settled_lsn(Session *session, const _Atomic uint64_t *place, uint64_t *lsn)
{
    for (uint32_t looks = 0; (*lsn = atomic_load(place)) == SNAPSHOT_CLAIM; looks++) {
        RETURN_IF_FAILED(db_check(session->db));
        if (atomic_load(&session->slot->interrupt) != 0)
            return status_set(AIDB_CANCELED, "canceled");
        if (looks < CLAIM_YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = CLAIM_SLEEP_NS}, NULL);
    }
    return AIDB_OK;
}

Status snapshots_collect(Session *session, uint64_t **lsns, size_t *count)
{
    DbShared *shared = session->shared;
    *lsns = NULL;
    *count = 0;
    size_t capacity = (size_t)shared->slots.count * SLOT_SNAPSHOTS;
    uint64_t *found = malloc(capacity * sizeof *found);
    if (found == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t s = 0; s < shared->slots.count; s++) {
        Slot *slot = &shared->slots.slots[s];
        for (int i = 0; i < SLOT_SNAPSHOTS; i++) {
            uint64_t lsn;
            Status status = settled_lsn(session, &slot->snapshots[i], &lsn);
            if (status != AIDB_OK) {
                free(found);
                *count = 0;
                return status;
            }
            if (lsn != SNAPSHOT_NONE)
                found[(*count)++] = lsn;
        }
    }
    qsort(found, *count, sizeof *found, compare_lsns);
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++)
        if (kept == 0 || found[kept - 1] != found[i])
            found[kept++] = found[i];
    *count = kept;
    *lsns = found;
    return AIDB_OK;
}

uint64_t snapshots_oldest(DbShared *shared)
{
    uint64_t visible = atomic_load(&shared->visible);
    uint64_t oldest = visible > 0 ? visible - 1 : 0;
    atomic_thread_fence(
        memory_order_seq_cst); /* a claim not seen below reads an LSN at or above this one */
    for (uint32_t s = 0; s < shared->slots.count; s++) {
        for (int i = 0; i < SLOT_SNAPSHOTS; i++) {
            uint64_t lsn = atomic_load(&shared->slots.slots[s].snapshots[i]);
            if (lsn == SNAPSHOT_CLAIM)
                return 0;
            if (lsn != SNAPSHOT_NONE && lsn < oldest)
                oldest = lsn;
        }
    }
    return oldest;
}
