/*
 * wal.c - the running log: appending, syncing, the WAL writer's step, stopping.
 *
 * A writer copies its record into the ring and moves `copied`; that is all that happens between
 * reservation and publication. Everything that can run out was made sure of before (wal_has_room):
 * space in the ring, which is free again once `durable` has passed it, and prepared segments.
 *
 * Who needs durability calls wal_sync. The first to get the flush lock leads: it writes everything from
 * `durable` to `copied` from the ring to segments, through to the disk, moves `durable` and wakes all sleepers at
 * once. Before that it gives those whom the last flush released a moment to come back (`gather`). A sleeper that was not covered (it appended after the leader had looked) tries to lead next.
 * Sleepers wait on `flushes`, which rises after the lock is free: whoever read it before trying the
 * lock in vain is woken or does not fall asleep.
 *
 * A write or sync of log bytes that fails is final: `failed` is set before the flush lock is released,
 * and nobody is told that anything is durable after that. What was appended may or may not be found by
 * the next recovery, so whoever waits gets AIDB_UNKNOWN.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/failpoint.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WRITER_POLL_MS    50
#define LARGE_STEP        (1u << 20) /* bytes of a large record that are written at once */
#define GATHER_MAX_NS     60000u
#define GATHER_MISSES_MAX 6u
#define WAIT_RECHECK_MS   1000 /* a sleeper looks again by itself, should its leader have died */

/* ---- creation, handles -------------------------------------------------------------------------- */

size_t wal_shared_size(void)
{
    return sizeof(WalShared);
}

void wal_shared_init(WalShared *shared)
{
    memset(shared, 0, sizeof *shared);
    lock_init(&shared->flush_lock, LOCK_RANK_WAL_FLUSH, "log flush");
    lock_init(&shared->segments_lock, LOCK_RANK_WAL_SEGMENTS, "log segments");
}

static Status check_options(const WalOptions *options)
{
    uint64_t segment = options->segment_size;
    if (segment < 4096 || (segment & (segment - 1)) != 0)
        return status_set(AIDB_INVALID,
                          "the log's segment size must be a power of two of at least 4096");
    /* Two blocks: the one that `durable` is in stays, and the largest record fits beside it. */
    if (options->ring_size < 2 * FILE_BLOCK || options->ring_size % FILE_BLOCK != 0)
        return status_set(
            AIDB_INVALID,
            "the size of the log's ring must be a multiple of 4096 and at least 8192");
    return AIDB_OK;
}

Status wal_create(const WalOptions *options)
{
    return wal_create_at(options, 0);
}

Status wal_create_at(const WalOptions *options, uint64_t first_lsn)
{
    RETURN_IF_FAILED(check_options(options));
    RETURN_IF_FAILED(directory_create(options->directory));
    Catalog catalog;
    RETURN_IF_FAILED(catalog_load(options, &catalog));
    size_t count = catalog.count;
    catalog_deinit(&catalog);
    if (count > 0)
        return status_set(AIDB_EXISTS, "directory \"%s\" holds a log already", options->directory);
    return ring_create(options, first_lsn);
}

Status wal_open(const WalOptions *options, WalShared *shared, Wal **result)
{
    *result = NULL;
    RETURN_IF_FAILED(check_options(options));
    Wal *wal = calloc(1, sizeof *wal);
    char *directory = strdup(options->directory);
    Status status = AIDB_OK;
    if (wal == NULL || directory == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory for the log");
        goto out;
    }
    wal->options = *options;
    wal->options.directory = directory;
    wal->shared = shared;
    wal->segment = (File)FILE_CLOSED;
    wal->block = aligned_alloc(FILE_BLOCK, FILE_BLOCK);
    if (wal->block == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory for the log");
        goto out;
    }
    OUT_IF_FAILED(ring_open(&wal->options, true, &wal->ring));
    if (mlock(wal->ring.map, (size_t)options->ring_size) != 0)
        server_log(LOG_LEVEL_INFO, "the log's ring of %llu bytes could not be locked in memory: %s",
                   (unsigned long long)options->ring_size, strerror(errno));
    *result = wal;
out:
    if (status != AIDB_OK) {
        if (wal != NULL)
            free(wal->block);
        free(directory);
        free(wal);
    }
    return status;
}

void wal_keep_room(Wal *wal, uint64_t (*keep)(void *arg), void *arg)
{
    wal->keep = keep;
    wal->keep_arg = arg;
}

void wal_close(Wal *wal)
{
    if (wal == NULL)
        return;
    ring_close(&wal->ring);
    file_close(&wal->segment);
    free(wal->block);
    free((char *)wal->options.directory);
    free(wal);
}

/* ---- frontiers ---------------------------------------------------------------------------------- */

uint64_t wal_copied(const Wal *wal)
{
    return atomic_load_explicit(&wal->shared->copied, memory_order_acquire);
}

uint64_t wal_durable(const Wal *wal)
{
    return atomic_load_explicit(&wal->shared->durable, memory_order_acquire);
}

bool wal_failed(const Wal *wal)
{
    return atomic_load_explicit(&wal->shared->failed, memory_order_acquire) != 0;
}

static Status failed_status(Status code)
{
    (void)status_set(code, "the log has failed: writing or syncing it did not succeed");
    status_hint(
        "Recovery decides what of the newest writes lasts; the server log says which file failed.");
    return code;
}

/* Whether the log takes records at all. */
static Status check_writable(const Wal *wal)
{
    if (wal_failed(wal))
        return failed_status(AIDB_FAILED);
    if (atomic_load(&wal->shared->ready) == 0)
        return status_set(AIDB_INVALID, "the log has not been recovered");
    if (atomic_load(&wal->shared->stopped) != 0)
        return status_set(AIDB_CLOSED, "the log has been stopped");
    return AIDB_OK;
}

/* ---- room --------------------------------------------------------------------------------------- */

size_t wal_ring_payload_max(const Wal *wal)
{
    return (size_t)(wal->options.ring_size / 4 - RECORD_HEADER_FULL);
}

static bool goes_through_ring(const Wal *wal, size_t payload_size)
{
    return payload_size <= wal_ring_payload_max(wal);
}

/* Where a record with this payload would end at the latest: how long its header is, only the write lock's holder
 * can tell. */
static uint64_t end_of_next(const Wal *wal, size_t payload_size)
{
    return wal_copied(wal) + record_size(true, payload_size);
}

static bool has_segments(const Wal *wal, size_t payload_size)
{
    return end_of_next(wal, payload_size) <=
           atomic_load_explicit(&wal->shared->prepared_end, memory_order_acquire);
}

static bool has_ring(const Wal *wal, size_t payload_size)
{
    return !goes_through_ring(wal, payload_size) ||
           end_of_next(wal, payload_size) - block_start(wal_durable(wal)) <= wal->options.ring_size;
}

bool wal_has_room(const Wal *wal, size_t payload_size)
{
    const WalShared *shared = wal->shared;
    return has_segments(wal, payload_size) && has_ring(wal, payload_size) && !wal_failed(wal) &&
           atomic_load_explicit(&shared->ready, memory_order_relaxed) != 0 &&
           atomic_load_explicit(&shared->stopped, memory_order_relaxed) == 0;
}

Status wal_make_room(Wal *wal, Slot *slot, size_t payload_size)
{
    if (payload_size > WAL_PAYLOAD_MAX)
        return status_set(AIDB_LIMIT, "a log record of %zu bytes is over the limit of %u",
                          payload_size, WAL_PAYLOAD_MAX);
    for (;;) {
        RETURN_IF_FAILED(check_writable(wal));
        if (!has_segments(wal, payload_size)) {
            RETURN_IF_FAILED(segments_prepare(wal, slot, end_of_next(wal, payload_size)));
        } else if (!has_ring(wal, payload_size)) {
            Status status = wal_sync(wal, slot, wal_copied(wal));
            if (status == AIDB_UNKNOWN) /* of this caller nothing was written yet */
                return failed_status(AIDB_FAILED);
            RETURN_IF_FAILED(status);
        } else {
            return AIDB_OK;
        }
    }
}

/* ---- appending ---------------------------------------------------------------------------------- */

/* Encodes the header of the next record and returns its size. Write lock held. */
static size_t encode_next(Wal *wal, Slice payload, uint64_t payload_hash,
                          uint8_t bytes[RECORD_HEADER_FULL])
{
    WalShared *shared = wal->shared;
    uint64_t lsn = atomic_load_explicit(&shared->copied, memory_order_relaxed);
    uint64_t durable = wal_durable_claim(shared);
    RecordHeader header = {
        .lsn = lsn,
        .payload_size = (uint32_t)payload.size,
        .full = durable != shared->stated_durable || block_start(lsn) != shared->stated_block,
        .payload_hash = record_payload_hash(payload_hash, lsn),
    };
    if (header.full) {
        uint64_t now = port_realtime_us();
        if (now > shared->last_time_us)
            shared->last_time_us = now;
        header.time_us = shared->last_time_us;
        header.durable = shared->stated_durable = durable;
        shared->stated_block = block_start(lsn);
    }
    record_encode(bytes, &header, shared->seed);
    return record_header_size(header.full);
}

uint64_t wal_append(Wal *wal, Slice payload, uint64_t payload_hash)
{
    static const uint8_t zeros[8];
    WalShared *shared = wal->shared;
    uint64_t lsn = atomic_load_explicit(&shared->copied, memory_order_relaxed);
    uint8_t header[RECORD_HEADER_FULL];
    assert(wal_has_room(wal, payload.size) && goes_through_ring(wal, payload.size));
    FAILPOINT("wal.reserved");
    size_t header_size = encode_next(wal, payload, payload_hash, header);
    uint64_t payload_lsn = lsn + header_size;
    uint64_t end = (payload_lsn + payload.size + 7) & ~(uint64_t)7;
    ring_put(&wal->ring, lsn, header, header_size);
    FAILPOINT("wal.header_copied");
    if (payload.size > 0)
        ring_put(&wal->ring, payload_lsn, payload.data, payload.size);
    ring_put(&wal->ring, payload_lsn + payload.size, zeros,
             (size_t)(end - payload_lsn - payload.size));
    FAILPOINT("wal.payload_copied");
    atomic_store_explicit(&shared->copied, end, memory_order_release);
    FAILPOINT("wal.published");
    return payload_lsn;
}

/* ---- syncing ------------------------------------------------------------------------------------ */

/* Sets `failed` for a failure of log I/O and reports it once. Flush lock held. */
static Status fail(Wal *wal)
{
    if (atomic_exchange(&wal->shared->failed, 1) == 0)
        server_log(LOG_LEVEL_ERROR, "the log has failed: %s", status_message());
    return failed_status(AIDB_UNKNOWN);
}

/* Writes the ring's bytes up to `copied` to segments and syncs them. Flush lock held. */
static Status flush(Wal *wal, Slot *slot)
{
    WalShared *shared = wal->shared;
    if (wal_failed(wal))
        return failed_status(AIDB_UNKNOWN);
    uint64_t begin = atomic_load_explicit(&shared->durable, memory_order_relaxed);
    uint64_t end = wal_copied(wal);
    if (begin == end)
        return AIDB_OK;
    assert(end - block_start(begin) <= wal->options.ring_size);
    assert(end <= atomic_load(&shared->prepared_end));
    SlotSection section = slot_enter(slot, SECTION_FLUSH);
    Status status = FAILPOINT_STATUS("wal.before_write");
    if (status == AIDB_OK)
        status = segment_write_ring(wal, begin, end);
    FAILPOINT("wal.synced");
    if (status != AIDB_OK) {
        status = fail(wal);
    } else {
        atomic_store_explicit(&shared->durable, end, memory_order_release);
        FAILPOINT("wal.durable_published");
        atomic_fetch_add_explicit(&shared->syncs, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&shared->synced_bytes, end - begin, memory_order_relaxed);
        slot_count(slot, STAT_WAL_SYNCS, 1);
        slot_count(slot, STAT_WAL_BYTES, end - begin);
    }
    slot_leave(slot, section);
    return status;
}

/* Gives those whom the last flush has released the time to come back with their next records, so that this
 * flush covers them too: otherwise half of the committers wait for the flush of the other half, always. It
 * pays when it gains a larger share of committers than it costs of a flush; when it does not, it is left
 * for more and more flushes. Flush lock held. */
static void gather(WalShared *shared)
{
    uint32_t first = atomic_load(&shared->arrived) - shared->taken;
    if (first >= shared->expected)
        return;
    if (shared->skip > 0) {
        shared->skip--;
        return;
    }
    uint64_t limit = shared->flush_ns / 2 < GATHER_MAX_NS ? shared->flush_ns / 2 : GATHER_MAX_NS;
    uint64_t began = port_monotonic_ns(), waited = 0;
    uint32_t count = first;
    while (count < shared->expected && waited < limit) {
        sched_yield(); /* they need a processor */
        waited = port_monotonic_ns() - began;
        count = atomic_load(&shared->arrived) - shared->taken;
    }
    bool paid = (uint64_t)(count - first) * shared->flush_ns > (uint64_t)first * waited;
    shared->misses = paid                                 ? 0
                     : shared->misses < GATHER_MISSES_MAX ? shared->misses + 1
                                                          : shared->misses;
    shared->skip = paid ? 0 : 1u << shared->misses;
}

/* Flushes for all who have come. Flush lock held. */
static Status lead(Wal *wal, Slot *slot, uint64_t lsn)
{
    WalShared *shared = wal->shared;
    if (wal_durable(wal) >= lsn)
        return AIDB_OK;
    gather(shared);
    /* Before `copied` is read: whoever is counted has copied. */
    uint32_t arrived = atomic_load(&shared->arrived);
    uint32_t group = arrived - shared->taken;
    shared->taken = arrived;
    uint64_t began = port_monotonic_ns();
    Status status = flush(wal, slot);
    uint64_t ns = port_monotonic_ns() - began;
    shared->flush_ns = shared->flush_ns == 0 ? ns : (7 * shared->flush_ns + ns) / 8;
    shared->expected = group + (atomic_load(&shared->arrived) - arrived);
    return status;
}

/* Lets the flush lock go and wakes the sleepers. */
static void end_lead(WalShared *shared, Slot *slot)
{
    lock_release(&shared->flush_lock, slot);
    FAILPOINT("wal.before_wake");
    atomic_fetch_add(&shared->flushes, 1);
    if (atomic_load(&shared->waiters) > 0)
        port_futex_wake(&shared->flushes, INT_MAX);
}

Status wal_sync(Wal *wal, Slot *slot, uint64_t lsn)
{
    WalShared *shared = wal->shared;
    if (lsn > wal_copied(wal))
        return status_set(AIDB_INVALID, "LSN %llu is not written yet", (unsigned long long)lsn);
    if (wal_durable(wal) < lsn)
        atomic_fetch_add(&shared->arrived, 1);
    while (wal_durable(wal) < lsn) {
        uint32_t flushes = atomic_load(&shared->flushes);
        if (wal_failed(wal))
            return failed_status(AIDB_UNKNOWN);
        if (lock_try_acquire(&shared->flush_lock, slot)) {
            Status status = lead(wal, slot, lsn);
            end_lead(shared, slot);
            RETURN_IF_FAILED(status);
        } else {
            /* Counted before the last look at `flushes` that the futex makes, so that a leader either
             * sees the sleeper or has changed the word. */
            atomic_fetch_add(&shared->waiters, 1);
            if (wal_durable(wal) < lsn)
                port_futex_wait(&shared->flushes, flushes, WAIT_RECHECK_MS);
            atomic_fetch_sub(&shared->waiters, 1);
        }
    }
    return AIDB_OK;
}

/* Copies the part of a piece of the log, which begins at `at`, that lies in a buffer for [lsn, lsn + size). */
static void lay_piece(uint64_t at, Slice piece, uint64_t lsn, uint8_t *buffer, size_t size)
{
    uint64_t begin = at > lsn ? at : lsn;
    uint64_t end = at + piece.size < lsn + size ? at + piece.size : lsn + size;
    if (begin < end)
        memcpy(buffer + (begin - lsn), piece.data + (begin - at), (size_t)(end - begin));
}

/* Writes a record to segments, past the ring, and leaves its last block in the ring, where the next flush
 * finds what stands before its bytes. `buffer` has LARGE_STEP bytes. Flush lock held, ring drained. */
static Status write_large(Wal *wal, Slice header, Slice payload, uint64_t end, uint8_t *buffer)
{
    uint64_t begin = wal_copied(wal);
    Slice before = ring_run(&wal->ring, block_start(begin), begin - block_start(begin));
    Status status = AIDB_OK;
    for (uint64_t lsn = block_start(begin); lsn < end && status == AIDB_OK; lsn += LARGE_STEP) {
        size_t used = end - lsn < LARGE_STEP ? (size_t)(end - lsn) : LARGE_STEP;
        size_t size = (used + FILE_BLOCK - 1) / FILE_BLOCK * FILE_BLOCK;
        memset(buffer, 0, size);
        lay_piece(block_start(begin), before, lsn, buffer, size);
        lay_piece(begin, header, lsn, buffer, size);
        lay_piece(begin + header.size, payload, lsn, buffer, size);
        status = segment_write(wal, lsn, buffer, size);
        FAILPOINT("wal.large_written");
        if (status == AIDB_OK && lsn + used == end)
            ring_put(&wal->ring, block_start(end), buffer + (block_start(end) - lsn),
                     (size_t)(end - block_start(end)));
    }
    FAILPOINT("wal.large_synced");
    return status;
}

static Status append_large(Wal *wal, Slot *slot, Slice payload, uint64_t payload_hash,
                           uint64_t *payload_lsn)
{
    WalShared *shared = wal->shared;
    *payload_lsn = 0;
    RETURN_IF_FAILED(check_writable(wal));
    if (payload.size > WAL_PAYLOAD_MAX)
        return status_set(AIDB_LIMIT, "a log record of %zu bytes is over the limit of %u",
                          payload.size, WAL_PAYLOAD_MAX);
    RETURN_IF_FAILED(segments_prepare(wal, slot, end_of_next(wal, payload.size)));
    uint8_t *buffer = aligned_alloc(FILE_BLOCK, LARGE_STEP);
    if (buffer == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for a log record of %zu bytes",
                          payload.size);
    lock_acquire(&shared->flush_lock, slot);
    Status status = flush(wal, slot);
    if (status == AIDB_OK) {
        uint8_t header[RECORD_HEADER_FULL];
        uint64_t begin = wal_copied(wal);
        size_t header_size = encode_next(wal, payload, payload_hash, header);
        *payload_lsn = begin + header_size;
        uint64_t end = (*payload_lsn + payload.size + 7) & ~(uint64_t)7;
        if (write_large(wal, slice_make(header, header_size), payload, end, buffer) != AIDB_OK) {
            status = fail(wal);
        } else {
            /* In this order: nobody may see durable beyond copied. */
            atomic_store_explicit(&shared->copied, end, memory_order_release);
            FAILPOINT("wal.large_published");
            atomic_store_explicit(&shared->durable, end, memory_order_release);
            atomic_fetch_add_explicit(&shared->syncs, 1, memory_order_relaxed);
            atomic_fetch_add_explicit(&shared->synced_bytes, end - begin, memory_order_relaxed);
            slot_count(slot, STAT_WAL_SYNCS, 1);
            slot_count(slot, STAT_WAL_BYTES, end - begin);
        }
    }
    end_lead(shared, slot);
    free(buffer);
    return status;
}

/* All of it is marked as file operations: the write lock is held, and whoever waits here for a slow disk must
 * not look like somebody who is stuck. */
Status wal_append_large(Wal *wal, Slot *slot, Slice payload, uint64_t payload_hash,
                        uint64_t *payload_lsn)
{
    SlotSection section = slot_enter(slot, SECTION_FLUSH);
    Status status = append_large(wal, slot, payload, payload_hash, payload_lsn);
    slot_leave(slot, section);
    return status;
}

/* ---- background --------------------------------------------------------------------------------- */

static uint64_t unsynced(const Wal *wal)
{
    uint64_t durable = wal_durable(wal); /* first: copied never is behind it */
    return wal_copied(wal) - durable;
}

/* Maps ring pages ahead of the head for writing, so that page faults (and the file system's work for
 * them) happen here and not in a writer. The bytes stay as they are. */
static void touch_ahead(Wal *wal)
{
    uint64_t size = wal->options.ring_size;
    uint64_t head = wal_copied(wal);
    uint64_t end = head + size / 4;
    if (wal->touched < head)
        wal->touched = head;
    while (wal->touched < end) {
        uint64_t page = wal->touched / 4096 * 4096;
        Slice run = ring_run(&wal->ring, page, (end - page + 4095) / 4096 * 4096);
        port_populate_write((void *)run.data, run.size);
        wal->touched = page + run.size;
    }
}

/* Keeps a ring's worth and a segment prepared. Where writers wait for syncs, half a segment and what the log grows
 * by in four steps at the speed of the last, if that is less: a commit beside the zeros of a new segment takes twice
 * as long. A full disk is not an error here: writers hear of it when they need room, and the step tries again. */
static bool prepare_ahead(Wal *wal, Slot *slot)
{
    WalShared *shared = wal->shared;
    uint64_t copied = wal_copied(wal);
    uint64_t grown = wal->stepped != 0 ? copied - wal->stepped : 0;
    uint64_t ahead = wal->options.ring_size + wal->options.segment_size;
    uint64_t enough = wal->options.segment_size / 2 + 4 * grown;
    if (wal->options.syncs_expected && enough < ahead)
        ahead = enough;
    uint64_t end = copied + ahead;
    wal->stepped = copied;
    if (atomic_load(&shared->prepared_end) >= end)
        return true;
    if (segments_prepare(wal, slot, end) == AIDB_OK) {
        if (atomic_exchange(&shared->prepare_failed, 0) != 0)
            server_log(LOG_LEVEL_INFO, "log segments can be prepared again");
        return true;
    }
    if (atomic_exchange(&shared->prepare_failed, 1) == 0)
        server_log(LOG_LEVEL_WARNING, "the next log segment could not be prepared: %s",
                   status_message());
    return false;
}

Status wal_writer_step(Wal *wal, Slot *slot, int *wait_ms)
{
    WalShared *shared = wal->shared;
    *wait_ms = WRITER_POLL_MS;
    if (atomic_load(&shared->stopped) != 0 && !wal_failed(wal))
        return AIDB_OK;
    RETURN_IF_FAILED(check_writable(wal));
    atomic_store(&shared->writer, slot);
    /* Bytes seen unsynced by one poll and still so at the next are synced: no byte waits longer than
     * two polls. Writers need not look at a clock for that. */
    uint64_t now = port_monotonic_ns();
    bool due = unsynced(wal) >= wal->options.ring_size / 4;
    if (wal_durable(wal) >= wal->seen_copied) {
        wal->seen_copied = wal_copied(wal);
        wal->seen_ns = now;
    } else if (now - wal->seen_ns >= (WRITER_POLL_MS - 5) * UINT64_C(1000000)) {
        due = true;
    }
    if (due)
        RETURN_IF_FAILED(wal_sync(wal, slot, wal_copied(wal)));
    prepare_ahead(wal, slot);
    touch_ahead(wal);
    if (unsynced(wal) >= wal->options.ring_size / 4)
        *wait_ms = 0;
    return AIDB_OK;
}

void wal_nudge(Wal *wal)
{
    Slot *writer = atomic_load_explicit(&wal->shared->writer, memory_order_relaxed);
    if (writer != NULL && unsynced(wal) >= wal->options.ring_size / 4)
        latch_wake(writer);
}

Status wal_stop(Wal *wal, Slot *slot)
{
    WalShared *shared = wal->shared;
    RETURN_IF_FAILED(check_writable(wal));
    atomic_store(&shared->stopped, 1);
    FAILPOINT("stop.log_closed");
    RETURN_IF_FAILED(wal_sync(wal, slot, wal_copied(wal)));
    FAILPOINT("stop.log_synced");
    RingHeader header;
    RETURN_IF_FAILED(ring_read_header(&wal->ring, &wal->options, &header, NULL));
    header.state = RING_STOPPED;
    header.end = wal_durable(wal);
    RETURN_IF_FAILED(ring_write_header(&wal->ring, &wal->options, &header));
    FAILPOINT("stop.ring_marked");
    segments_remove_spare(wal, slot);
    FAILPOINT("stop.segments_removed");
    segment_release_rest(wal);
    ring_release(&wal->ring);
    FAILPOINT("stop.space_released");
    return AIDB_OK;
}

Status wal_describe(const Wal *wal, Buffer *text)
{
    const WalShared *shared = wal->shared;
    uint64_t durable = wal_durable(wal);
    uint64_t copied = wal_copied(wal);
    uint64_t prepared = atomic_load(&shared->prepared_end);
    uint64_t oldest = atomic_load(&shared->oldest);
    return buffer_append_format(
        text,
        "wal_incarnation\t%u\nwal_first_lsn\t%llu\nwal_copied_lsn\t%llu\nwal_durable_lsn\t%llu\n"
        "wal_released_lsn\t%llu\nwal_unsynced_bytes\t%llu\nwal_ring_bytes\t%llu\nwal_segment_"
        "bytes\t%llu\n"
        "wal_segments\t%llu\nwal_prepared_bytes\t%llu\nwal_segments_created\t%llu\nwal_segments_"
        "recycled\t%llu\n"
        "wal_syncs\t%llu\nwal_synced_bytes\t%llu\nwal_state\t%s\n",
        shared->incarnation, (unsigned long long)shared->first_lsn, (unsigned long long)copied,
        (unsigned long long)durable, (unsigned long long)atomic_load(&shared->released),
        (unsigned long long)(copied - durable), (unsigned long long)wal->options.ring_size,
        (unsigned long long)wal->options.segment_size,
        (unsigned long long)((prepared - oldest) / wal->options.segment_size),
        (unsigned long long)(prepared - copied), (unsigned long long)atomic_load(&shared->created),
        (unsigned long long)atomic_load(&shared->recycled),
        (unsigned long long)atomic_load(&shared->syncs),
        (unsigned long long)atomic_load(&shared->synced_bytes),
        wal_failed(wal)                      ? "failed"
        : atomic_load(&shared->stopped) != 0 ? "stopped"
        : atomic_load(&shared->ready) != 0   ? "running"
                                             : "not recovered");
}
