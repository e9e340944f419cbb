/*
 * recover.c - finding the end of the log, and beginning a new one behind it.
 *
 * The horizon is the highest durable LSN that anything says: the manifest, the caller, a header, a
 * record, the ring. Below it every byte must be there and right; the first record that is missing or
 * damaged at or above it is the end, whatever lies behind.
 *
 * Steps, and what a crash after each leaves:
 *
 *   1. Read everything, change nothing.
 *   2. Copy whole segments from the horizon's (or from the first that lacks what the ring still has) to
 *      the end into new files of this incarnation, without
 *      headers: ignored by the next recovery.
 *   3. Sync their bytes, then write and sync headers: the next recovery reads copies where their
 *      headers are valid, files of older incarnations and the ring elsewhere; both have the same bytes.
 *   4. Re-initialise the ring by a new header that holds the end that was found: from here on the end is
 *      fixed, and everything below it is below the horizon.
 *   5. Make the first segment of the new log. Remove files that are no longer needed.
 *   6. (The caller) make the new log's start durable in the manifest, then append.
 *
 * Why everything above the horizon is written anew: after a failed sync the kernel may hold bytes that
 * never reached the disk and call them clean. They can be read now and would be gone after the next
 * power loss; only bytes written again, and synced, are known to last.
 *
 * A copy's header states the horizon, not the end, because headers of other copies may still be
 * missing when it is read; only the ring's header, written after all of them, states the end.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/coding.h"
#include "common/failpoint.h"
#include "common/log.h"

#include <stdlib.h>

#define COPY_SIZE (256u << 10)

static uint64_t max_lsn(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- the ring as a source ---------------------------------------------------------------------- */

Status ring_record(const Ring *ring, uint64_t lsn, uint64_t seed, Buffer *scratch,
                   FoundRecord *found)
{
    uint8_t bytes[RECORD_HEADER_FULL];
    RecordHeader header;
    *found = (FoundRecord){.end = 0};
    ring_get(ring, lsn, bytes, sizeof bytes);
    if (!record_decode(bytes, sizeof bytes, lsn, seed, &header))
        return AIDB_OK;
    uint64_t size = record_size(header.full, header.payload_size);
    if (size > ring->size)
        return AIDB_OK;
    uint64_t rest_lsn = lsn + record_header_size(header.full);
    size_t rest_size = (size_t)(lsn + size - rest_lsn);
    Slice rest = ring_run(ring, rest_lsn, rest_size);
    if (rest.size < rest_size) {
        buffer_clear(scratch);
        RETURN_IF_FAILED(buffer_reserve(scratch, rest_size));
        ring_get(ring, rest_lsn, scratch->data, rest_size);
        rest = slice_make(scratch->data, rest_size);
    }
    const char *what;
    if (record_check(&header, rest.data, &what))
        *found = (FoundRecord){
            .header = header,
            .end = lsn + size,
            .payload = slice_make(rest.data, header.payload_size),
        };
    return AIDB_OK;
}

/* The highest durable LSN that a record header in the ring states. */
static uint64_t ring_horizon(const Ring *ring, uint64_t seed)
{
    uint64_t horizon = 0;
    for (uint64_t at = 0; at < ring->size; at += 8) {
        uint8_t bytes[RECORD_HEADER_FULL];
        RecordHeader header;
        uint64_t lsn = get_fixed64(ring->data + (at + RECORD_AT_LSN) % ring->size);
        if (lsn % ring->size != at) /* not a full header at this place */
            continue;
        ring_get(ring, lsn, bytes, sizeof bytes);
        if (record_decode(bytes, sizeof bytes, lsn, seed, &header))
            horizon = max_lsn(horizon, header.durable);
    }
    return horizon;
}

/* ---- what headers say -------------------------------------------------------------------------- */

static Status manifest_is_older(const Scan *scan, uint32_t found, uint32_t known)
{
    Status status =
        status_set(AIDB_CORRUPTION,
                   "directory \"%s\" holds a log of incarnation %u, the manifest knows %u at most",
                   scan->options->directory, found, known);
    status_hint("An older manifest was put back, or the log's directory belongs to a newer copy.");
    return status;
}

/* Takes over what the ring's header says, given the newest log that the manifest knows. */
static Status judge_ring(LogEnd *log, const Ring *ring, const RingHeader *header,
                         const WalOptions *options, const WalStart *last)
{
    uint32_t known = last != NULL ? last->incarnation : 0;
    if (header->incarnation < known)
        return status_set(
            AIDB_CORRUPTION,
            "file \"%s\": offset 0: the ring is of incarnation %u, the log's newest is %u: it was "
            "replaced by an older copy",
            ring->path, header->incarnation, known);
    if (header->incarnation == known && last != NULL) {
        if (header->state == RING_STOPPED) {
            log->stop = header->end;
            log->clean = true;
        } else {
            log->ring_counts = true;
            log->ring_seed = record_seed(options->system_id, last->incarnation, last->nonce);
        }
    } else {
        /* A new database, or re-initialised by a recovery whose log the manifest never came to know:
         * nothing can have been appended to it. */
        bool used = header->state == RING_STOPPED && header->end != header->first_lsn;
        if (used || header->first_lsn < header->previous_end ||
            segment_start(options, header->first_lsn) != header->first_lsn)
            return status_set(AIDB_CORRUPTION,
                              "file \"%s\": offset 0: the ring is of incarnation %u, which the "
                              "manifest does not know",
                              ring->path, header->incarnation);
        log->stop = header->previous_end;
        log->clean = header->previous_clean;
        log->next_first = header->first_lsn;
    }
    if (log->stop != LSN_MAX)
        log->horizon = max_lsn(log->horizon, log->stop);
    return AIDB_OK;
}

Status log_end_init(LogEnd *log, const Scan *scan, const Ring *ring, const WalOptions *options,
                    const WalStart *starts, size_t count, uint64_t horizon, uint32_t incarnation)
{
    *log = (LogEnd){.horizon = horizon, .stop = LSN_MAX};
    RETURN_IF_FAILED(starts_check(options, starts, count));
    const WalStart *last = count > 0 ? &starts[count - 1] : NULL;
    if (last != NULL)
        log->horizon = max_lsn(log->horizon, last->previous_end);
    for (size_t i = 0; i < scan->catalog.count; i++) {
        const SegmentFile *file = &scan->catalog.files[i];
        if (file->state != HEADER_VALID)
            continue;
        if (file->incarnation >= incarnation)
            return manifest_is_older(scan, file->incarnation, incarnation - 1);
        log->horizon = max_lsn(log->horizon, file->header.durable);
        if (last != NULL && file->first_lsn == last->first_lsn &&
            file->incarnation == last->incarnation &&
            file->header.previous_end != last->previous_end)
            return scan_damage(
                scan, &(Flaw){.lsn = file->first_lsn,
                              .what = "the log before ends elsewhere than the manifest says"});
    }
    RingHeader header;
    RETURN_IF_FAILED(ring_read_header(ring, options, &header, NULL));
    if (header.incarnation >= incarnation)
        return manifest_is_older(scan, header.incarnation, incarnation - 1);
    RETURN_IF_FAILED(judge_ring(log, ring, &header, options, last));
    if (log->ring_counts)
        log->horizon = max_lsn(log->horizon, ring_horizon(ring, log->ring_seed));
    return AIDB_OK;
}

void log_end_deinit(LogEnd *log)
{
    buffer_deinit(&log->runs);
}

/* ---- the walk ----------------------------------------------------------------------------------- */

/* Checks the logs before the last: they lie below the horizon, to their ends. Sets *lsn to where they
 * end, or leaves it when it is behind. */
static Status walk_older(Scan *scan, const WalStart *starts, size_t count, uint64_t *lsn)
{
    for (size_t i = 0; i + 1 < count; i++) {
        uint64_t limit = starts_limit(starts, count, i);
        if (*lsn >= limit)
            continue;
        *lsn = max_lsn(*lsn, starts[i].first_lsn);
        scan_set_log(scan, &starts[i]);
        while (*lsn < limit) {
            FoundRecord found;
            Flaw flaw;
            RETURN_IF_FAILED(scan_record(scan, *lsn, limit, &found, &flaw));
            if (found.end == 0)
                return scan_damage(scan, &flaw);
            *lsn = found.end;
        }
    }
    return AIDB_OK;
}

static Status note_ring_run(LogEnd *log, uint64_t begin, uint64_t end)
{
    RingRun *runs = (RingRun *)(void *)log->runs.data;
    size_t count = log->runs.size / sizeof *runs;
    if (count > 0 && runs[count - 1].end == begin) {
        runs[count - 1].end = end;
        return AIDB_OK;
    }
    return buffer_append(&log->runs, &(RingRun){.begin = begin, .end = end}, sizeof(RingRun));
}

/* The walk begins at `from`, so what lies below is not read; but it was durable in segments, and a
 * segment whose other half is needed is still there. */
static Status check_below(const LogEnd *log, Scan *scan, uint64_t from)
{
    const uint8_t *byte;
    size_t got = 1;
    if (segment_start(scan->options, from) != from)
        RETURN_IF_FAILED(scan_bytes(scan, from - 1, 1, &byte, &got));
    if (got == 0 || from > log->stop)
        return scan_damage(scan,
                           &(Flaw){.lsn = from - 1, .what = "the log ends below what tables hold"});
    return AIDB_OK;
}

/* Walks the newest log from `lsn` to its end; segments first, then the ring. */
static Status walk_newest(LogEnd *log, Scan *scan, const Ring *ring, const WalStart *last,
                          uint64_t lsn)
{
    Buffer scratch = {0};
    Flaw flaw = {.lsn = lsn, .what = "the log ends below what was durable"};
    Status status = AIDB_OK;
    scan_set_log(scan, last);
    if (lsn <= last->first_lsn)
        lsn = last->first_lsn;
    else
        RETURN_IF_FAILED(check_below(log, scan, lsn));
    while (lsn < log->stop) {
        FoundRecord found;
        OUT_IF_FAILED(scan_record(scan, lsn, log->stop, &found, &flaw));
        if (found.end == 0 && log->ring_counts) {
            OUT_IF_FAILED(ring_record(ring, lsn, log->ring_seed, &scratch, &found));
            if (found.end != 0)
                OUT_IF_FAILED(note_ring_run(log, lsn, found.end));
        }
        if (found.end == 0)
            break;
        log->horizon = max_lsn(log->horizon, found.header.durable);
        log->time_us = max_lsn(log->time_us, found.header.time_us);
        lsn = found.end;
    }
    log->end = lsn;
    /* Records behind the end may know that the end had been passed by durable: then it is damage. */
    uint64_t place = lsn;
    while (log->stop == LSN_MAX && log->horizon <= log->end && place != LSN_MAX) {
        RecordHeader header;
        OUT_IF_FAILED(scan_resync(scan, place + 8, LSN_MAX, true, &place, &header));
        if (place != LSN_MAX)
            log->horizon = max_lsn(log->horizon, header.durable);
    }
    if (log->end < log->horizon) {
        if (flaw.lsn < log->end || log->end == log->stop)
            flaw = (Flaw){.lsn = log->end, .what = "the log ends below what was durable"};
        status = scan_damage(scan, &flaw);
    }
out:
    buffer_deinit(&scratch);
    return status;
}

Status log_end_find(LogEnd *log, Scan *scan, const Ring *ring, const WalStart *starts, size_t count,
                    uint64_t from)
{
    if (count == 0) {
        log->end = log->stop;
        if (log->horizon > log->end)
            return status_set(
                AIDB_CORRUPTION,
                "directory \"%s\" holds a log up to LSN %llu, the manifest knows none",
                scan->options->directory, (unsigned long long)log->horizon);
        return AIDB_OK;
    }
    if (from < starts[0].previous_end)
        return status_set(AIDB_CORRUPTION,
                          "the log before LSN %llu is not known, LSN %llu is needed",
                          (unsigned long long)starts[0].previous_end, (unsigned long long)from);
    uint64_t lsn = from;
    RETURN_IF_FAILED(walk_older(scan, starts, count, &lsn));
    return walk_newest(log, scan, ring, &starts[count - 1], lsn);
}

/* ---- the copies --------------------------------------------------------------------------------- */

/* Lays the ring's runs over log bytes of a buffer. */
static void overlay(const LogEnd *log, const Ring *ring, uint64_t lsn, uint8_t *data, size_t size)
{
    const RingRun *runs = (const RingRun *)(const void *)log->runs.data;
    for (size_t i = 0; i < log->runs.size / sizeof *runs; i++) {
        uint64_t begin = max_lsn(runs[i].begin, lsn);
        uint64_t end = runs[i].end < lsn + size ? runs[i].end : lsn + size;
        if (begin < end)
            ring_get(ring, begin, data + (begin - lsn), (size_t)(end - begin));
    }
}

/* Writes and syncs the bytes of one copy, zeros behind the end, and leaves its header zero. */
static Status copy_bytes(Wal *wal, const LogEnd *log, Scan *scan, uint64_t first, uint8_t *buffer,
                         File *file)
{
    const WalOptions *options = &wal->options;
    RETURN_IF_FAILED(file_zero_fill(file, 0, WAL_SEGMENT_HEADER_SIZE));
    for (uint64_t done = 0; done < options->segment_size;) {
        uint64_t lsn = first + done;
        uint64_t left = options->segment_size - done;
        size_t step = left < COPY_SIZE ? (size_t)left : COPY_SIZE;
        const uint8_t *bytes;
        size_t got = 0;
        if (lsn < log->end)
            RETURN_IF_FAILED(scan_bytes(scan, lsn, step, &bytes, &got));
        if (got > 0)
            memcpy(buffer, bytes, got);
        memset(buffer + got, 0, step - got);
        overlay(log, &wal->ring, lsn, buffer, step);
        if (lsn + step > log->end) {
            size_t kept = lsn < log->end ? (size_t)(log->end - lsn) : 0;
            memset(buffer + kept, 0, step - kept);
        }
        RETURN_IF_FAILED(file_write_at(file, WAL_SEGMENT_HEADER_SIZE + done, buffer, step));
        FAILPOINT("recover.copy_written");
        done += step;
    }
    return file_sync(file);
}

static Status copy_segment(Wal *wal, const LogEnd *log, Scan *scan, const SegmentHeader *header,
                           bool bytes_done)
{
    char *path = segment_path(&wal->options, header->first_lsn, header->incarnation);
    uint8_t *buffer = malloc(COPY_SIZE);
    File file = FILE_CLOSED;
    Status status = AIDB_OK;
    if (path == NULL || buffer == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory for copying the log's end");
        goto out;
    }
    if (!bytes_done) {
        OUT_IF_FAILED(
            file_unlink(path)); /* one without a valid header, or it would have been refused */
        OUT_IF_FAILED(file_open(path, FILE_CREATE_NEW, &file));
        OUT_IF_FAILED(copy_bytes(wal, log, scan, header->first_lsn, buffer, &file));
        FAILPOINT("recover.copy_synced");
    } else {
        OUT_IF_FAILED(file_open(path, FILE_WRITE, &file));
        segment_header_encode(buffer, &wal->options, header);
        OUT_IF_FAILED(file_write_at(&file, 0, buffer, WAL_SEGMENT_HEADER_SIZE));
        FAILPOINT("recover.copy_header_written");
        OUT_IF_FAILED(file_sync(&file));
    }
out:
    file_close(&file);
    free(buffer);
    free(path);
    return status;
}

/* A file that stays does no harm: the next recovery tries again. */
static void remove_segment(const Wal *wal, const SegmentFile *file)
{
    char *path = segment_path(&wal->options, file->first_lsn, file->incarnation);
    if (path != NULL && file_unlink(path) != AIDB_OK)
        server_log(LOG_LEVEL_WARNING, "%s", status_message());
    free(path);
}

/* Removes what recoveries that did not end have left of their copies, before more room is taken: an unfinished file
 * holds nothing that anybody was told of. */
static Status remove_unfinished(Wal *wal)
{
    Catalog catalog;
    RETURN_IF_FAILED(catalog_load(&wal->options, &catalog));
    for (size_t i = 0; i < catalog.count; i++) {
        if (catalog.files[i].state == HEADER_UNFINISHED)
            remove_segment(wal, &catalog.files[i]);
    }
    catalog_deinit(&catalog);
    return AIDB_OK;
}

static Status copy_end(Wal *wal, const LogEnd *log, Scan *scan, const WalStart *last,
                       uint32_t incarnation)
{
    uint64_t from = log->horizon;
    if (log->runs.size > 0) {
        /* Bytes that were durable, and that segments have lost, may still stand in the ring, which is about to
         * be re-initialised. */
        const RingRun *runs = (const RingRun *)(const void *)log->runs.data;
        from = runs[0].begin < from ? runs[0].begin : from;
    } else if (log->end <= log->horizon) {
        return AIDB_OK; /* all of it is known to be on the disk */
    }
    uint64_t first = max_lsn(segment_start(&wal->options, from), last->first_lsn);
    for (int bytes_done = 0; bytes_done <= 1; bytes_done++) {
        for (uint64_t at = first; at < log->end; at += wal->options.segment_size) {
            SegmentHeader header = {
                .incarnation = incarnation,
                .first_lsn = at,
                .durable = log->horizon,
                .log_first = last->first_lsn,
                .previous_end = last->previous_end,
                .kind = SEGMENT_COPIED,
            };
            RETURN_IF_FAILED(copy_segment(wal, log, scan, &header, bytes_done));
        }
        RETURN_IF_FAILED(directory_sync(wal->options.directory));
    }
    FAILPOINT("recover.copied");
    return AIDB_OK;
}

/* ---- the new log -------------------------------------------------------------------------------- */

/* `last`: the newest log, NULL when there was none. */
static uint64_t choose_first(const LogEnd *log, const WalOptions *options, const WalStart *last)
{
    uint64_t size = options->segment_size;
    if (log->next_first != 0)
        return log->next_first;
    if (log->clean) {
        uint64_t first = segment_start(options, log->end + size - 1);
        /* A log that nothing was written to ends where it began: two logs never share a place. */
        return last != NULL && first <= last->first_lsn ? last->first_lsn + size : first;
    }
    if (log->stop == 0) /* a new database: 0 is never an LSN of anything */
        return size;
    /* Whatever LSN anybody may have seen is below the end plus the ring. */
    return segment_start(options, log->end + options->ring_size) + size;
}

static bool is_needed(const Catalog *catalog, const SegmentFile *file, const WalRecovery *recovery,
                      uint64_t segment_size)
{
    const WalStart *starts = recovery->starts;
    size_t count = recovery->start_count;
    if (file->state != HEADER_VALID || file->first_lsn + segment_size <= recovery->from)
        return false;
    for (size_t i = 0; i < count; i++) {
        uint64_t limit = i + 1 < count ? starts[i + 1].previous_end : recovery->end;
        if (file->first_lsn >= starts[i].first_lsn && file->first_lsn < limit)
            return catalog_find(catalog, file->first_lsn, starts[i].incarnation) == file;
    }
    return false;
}

/* Removes what the new log and its recovery will not look at. *remain: files of older logs are kept. */
static Status remove_unneeded(Wal *wal, const WalRecovery *recovery, bool *remain)
{
    Catalog catalog;
    *remain = false;
    RETURN_IF_FAILED(catalog_load(&wal->options, &catalog));
    for (size_t i = 0; i < catalog.count; i++) {
        const SegmentFile *file = &catalog.files[i];
        if (file->first_lsn == recovery->next.first_lsn &&
            file->incarnation == recovery->incarnation)
            continue;
        if (is_needed(&catalog, file, recovery, wal->options.segment_size)) {
            *remain = true;
            continue;
        }
        remove_segment(wal, file);
        FAILPOINT("recover.file_removed");
    }
    catalog_deinit(&catalog);
    return AIDB_OK;
}

static Status begin_log(Wal *wal, const LogEnd *log, WalRecovery *recovery)
{
    RingHeader header;
    RETURN_IF_FAILED(ring_read_header(&wal->ring, &wal->options, &header, NULL));
    header = (RingHeader){
        .sequence = header.sequence,
        .incarnation = recovery->incarnation,
        .state = RING_READY,
        .previous_clean = log->clean,
        .first_lsn = recovery->next.first_lsn,
        .previous_end = recovery->end,
    };
    RETURN_IF_FAILED(ring_write_header(&wal->ring, &wal->options, &header));
    FAILPOINT("recover.ring_begun");
    return segment_create(&wal->options,
                          &(SegmentHeader){
                              .incarnation = recovery->incarnation,
                              .first_lsn = recovery->next.first_lsn,
                              .durable = recovery->next.previous_end,
                              .log_first = recovery->next.first_lsn,
                              .previous_end = recovery->next.previous_end,
                              .kind = SEGMENT_WRITTEN,
                          },
                          wal->options.syncs_expected);
}

static void set_state(Wal *wal, const LogEnd *log, const WalRecovery *recovery, bool older_files)
{
    WalShared *shared = wal->shared;
    uint64_t first = recovery->next.first_lsn;
    shared->incarnation = recovery->incarnation;
    shared->seed = record_seed(wal->options.system_id, recovery->incarnation, recovery->nonce);
    shared->first_lsn = first;
    shared->previous_end = recovery->next.previous_end;
    shared->last_time_us = log->time_us;
    atomic_store(&shared->copied, first);
    atomic_store(&shared->durable, first);
    atomic_store(&shared->oldest, first);
    atomic_store(&shared->prepared_end, first + wal->options.segment_size);
    atomic_store(&shared->released, recovery->from);
    atomic_store(&shared->older_files, older_files);
    atomic_store(&shared->ready, 1);
}

Status wal_recover(Wal *wal, Slot *slot, WalRecovery *recovery)
{
    recovery->end = 0;
    recovery->next = (WalStart){0};
    recovery->clean = false;
    if (atomic_load(&wal->shared->ready) != 0)
        return status_set(AIDB_INVALID, "the log was recovered already");
    SlotSection section = slot_enter(slot, SECTION_READ);
    Scan scan;
    LogEnd log = {.stop = LSN_MAX};
    bool older_files;
    uint64_t horizon = max_lsn(recovery->horizon, recovery->from);
    const WalStart *last =
        recovery->start_count > 0 ? &recovery->starts[recovery->start_count - 1] : NULL;
    Status status = scan_init(&scan, &wal->options);
    if (status != AIDB_OK)
        goto out;
    OUT_IF_FAILED(log_end_init(&log, &scan, &wal->ring, &wal->options, recovery->starts,
                               recovery->start_count, horizon, recovery->incarnation));
    OUT_IF_FAILED(log_end_find(&log, &scan, &wal->ring, recovery->starts, recovery->start_count,
                               recovery->from));
    FAILPOINT("recover.end_found");
    slot_enter(slot, SECTION_FLUSH);
    OUT_IF_FAILED(remove_unfinished(wal));
    if (last != NULL)
        OUT_IF_FAILED(copy_end(wal, &log, &scan, last, recovery->incarnation));
    recovery->end = log.end;
    recovery->clean = log.clean;
    recovery->next = (WalStart){
        .incarnation = recovery->incarnation,
        .nonce = recovery->nonce,
        .first_lsn = choose_first(&log, &wal->options, last),
        .previous_end = last != NULL && log.end == last->first_lsn ? last->previous_end : log.end,
    };
    OUT_IF_FAILED(begin_log(wal, &log, recovery));
    FAILPOINT("recover.log_begun");
    OUT_IF_FAILED(remove_unneeded(wal, recovery, &older_files));
    set_state(wal, &log, recovery, older_files);
out:
    log_end_deinit(&log);
    scan_deinit(&scan);
    slot_leave(slot, section);
    return status;
}
