/*
 * verify.c - looking for damage in the log's files, without changing anything.
 *
 * Every record from `from` on is read and checked, as recovery would. Unlike recovery, verification
 * goes on behind damage: it looks for the next record header, so that each damaged place is reported
 * once. In a stopped database the ring stands in for what segments lack, as it does in recovery.
 *
 * A running database recycles segments meanwhile. What looks like damage then counts only if the file
 * is still what its name says; and only what was durable when verification began is looked at. The
 * ring's bytes are left alone: they change all the time.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct Verification {
    const WalOptions *options;
    bool online;
    DamageReport report;
    void *arg;
    Scan scan;
    Ring ring;
    LogEnd log;
    Buffer scratch;
} Verification;

static void report_message(const Verification *verify, const char *path, uint64_t offset)
{
    char text[512];
    snprintf(text, sizeof text, "%s", status_message());
    verify->report(verify->arg, path, offset, text);
}

static Status report_file(const Verification *verify, const SegmentFile *file, uint64_t offset,
                          const char *what)
{
    char *path = segment_path(verify->options, file->first_lsn, file->incarnation);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for verifying the log");
    verify->report(verify->arg, path, offset, what);
    free(path);
    return AIDB_OK;
}

static Status report_flaw(const Verification *verify, const Flaw *flaw)
{
    uint64_t offset;
    char *path = scan_place(&verify->scan, flaw->lsn, &offset);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for verifying the log");
    verify->report(verify->arg, path, offset, flaw->what);
    free(path);
    return AIDB_OK;
}

/* The state of a file's header now. */
static Status read_state(const Verification *verify, const SegmentFile *file, HeaderState *state)
{
    *state = HEADER_UNFINISHED;
    char *path = segment_path(verify->options, file->first_lsn, file->incarnation);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for verifying the log");
    File opened;
    uint8_t block[WAL_SEGMENT_HEADER_SIZE];
    SegmentHeader header;
    size_t got;
    Status status = file_open(path, FILE_READ, &opened);
    free(path);
    if (status == AIDB_NOT_FOUND)
        return AIDB_OK;
    RETURN_IF_FAILED(status);
    status = file_read_some(&opened, 0, block, sizeof block, &got);
    if (status == AIDB_OK && got == sizeof block)
        *state = segment_header_decode(block, verify->options, file->first_lsn, file->incarnation,
                                       &header);
    file_close(&opened);
    return status;
}

static Status verify_headers(const Verification *verify)
{
    uint64_t size = WAL_SEGMENT_HEADER_SIZE + verify->options->segment_size;
    for (size_t i = 0; i < verify->scan.catalog.count; i++) {
        const SegmentFile *file = &verify->scan.catalog.files[i];
        HeaderState state = file->state;
        if (state == HEADER_DAMAGED && verify->online) /* or it was being written */
            RETURN_IF_FAILED(read_state(verify, file, &state));
        if (state == HEADER_DAMAGED)
            RETURN_IF_FAILED(
                report_file(verify, file, 0, "the header of a log segment is damaged"));
        else if (state == HEADER_VALID && file->state == HEADER_VALID && file->size != size)
            RETURN_IF_FAILED(report_file(verify, file, file->size < size ? file->size : size,
                                         "a log segment has the wrong size"));
    }
    return AIDB_OK;
}

/* Whether the running database took the file of an LSN away since the catalog was read. */
static Status is_gone(const Verification *verify, uint64_t lsn, bool *gone)
{
    *gone = false;
    if (!verify->online)
        return AIDB_OK;
    const Catalog *catalog = &verify->scan.catalog;
    uint64_t first = segment_start(verify->options, lsn);
    const SegmentFile *file = catalog_find(catalog, first, verify->scan.incarnation_min);
    if (file != NULL) {
        HeaderState state;
        RETURN_IF_FAILED(read_state(verify, file, &state));
        *gone = state != HEADER_VALID;
    } else {
        /* Segments go in order: it is gone if none before it remains. */
        *gone = true;
        for (size_t i = 0; i < catalog->count && catalog->files[i].first_lsn < first; i++)
            if (catalog->files[i].state == HEADER_VALID &&
                catalog->files[i].incarnation >= verify->scan.incarnation_min)
                *gone = false;
    }
    return AIDB_OK;
}

/* Whether the log ends here, rather than being damaged: nothing that was durable lies behind. */
static Status is_end(Verification *verify, uint64_t lsn, bool *end)
{
    uint64_t place = lsn;
    *end = false;
    while (verify->log.horizon <= lsn) {
        RecordHeader header;
        RETURN_IF_FAILED(scan_resync(&verify->scan, place + 8, LSN_MAX, true, &place, &header));
        if (place == LSN_MAX) {
            *end = true;
            return AIDB_OK;
        }
        if (header.durable > verify->log.horizon)
            verify->log.horizon = header.durable;
    }
    return AIDB_OK;
}

/* Checks the records in [lsn, limit) of the log that the scan is set to. */
static Status verify_log(Verification *verify, uint64_t lsn, uint64_t limit, bool newest)
{
    LogEnd *log = &verify->log;
    while (lsn < limit) {
        FoundRecord found;
        Flaw flaw;
        RETURN_IF_FAILED(scan_record(&verify->scan, lsn, limit, &found, &flaw));
        if (found.end == 0 && newest && log->ring_counts)
            RETURN_IF_FAILED(
                ring_record(&verify->ring, lsn, log->ring_seed, &verify->scratch, &found));
        if (found.end != 0) {
            if (newest && found.header.durable > log->horizon)
                log->horizon = found.header.durable;
            lsn = found.end;
            continue;
        }
        bool gone;
        RETURN_IF_FAILED(is_gone(verify, flaw.lsn, &gone));
        if (gone) {
            lsn = segment_start(verify->options, flaw.lsn) + verify->options->segment_size;
        } else {
            if (newest && limit == LSN_MAX) {
                bool end;
                RETURN_IF_FAILED(is_end(verify, lsn, &end));
                if (end)
                    return AIDB_OK;
            }
            RETURN_IF_FAILED(report_flaw(verify, &flaw));
            lsn += 8;
        }
        RecordHeader header;
        RETURN_IF_FAILED(scan_resync(&verify->scan, lsn, limit, false, &lsn, &header));
    }
    return AIDB_OK;
}

static Status verify_records(Verification *verify, const WalStart *starts, size_t count,
                             uint64_t from)
{
    uint64_t lsn = from;
    for (size_t i = 0; i < count; i++) {
        bool newest = i + 1 == count;
        uint64_t limit = starts_limit(starts, count, i);
        if (newest)
            limit = verify->online ? verify->log.horizon : verify->log.stop;
        if (lsn < starts[i].first_lsn)
            lsn = starts[i].first_lsn;
        if (lsn >= limit)
            continue;
        scan_set_log(&verify->scan, &starts[i]);
        RETURN_IF_FAILED(verify_log(verify, lsn, limit, newest));
        lsn = limit;
    }
    return AIDB_OK;
}

/* Finds out where the log ends. *go_on: records can be looked at. */
static Status find_end(Verification *verify, const WalStart *starts, size_t count, uint64_t from,
                       uint64_t horizon, bool *go_on)
{
    *go_on = true;
    Status status;
    if (verify->online) {
        verify->log = (LogEnd){.horizon = horizon, .stop = LSN_MAX};
        status = starts_check(verify->options, starts, count);
    } else if (verify->ring.map == NULL) {
        return AIDB_OK; /* reported already; segments alone are still worth a look */
    } else {
        status = log_end_init(&verify->log, &verify->scan, &verify->ring, verify->options, starts,
                              count, from > horizon ? from : horizon, UINT32_MAX);
    }
    if (status == AIDB_OK && count > 0 && from < starts[0].previous_end)
        status =
            status_set(AIDB_CORRUPTION, "the log before LSN %llu is not known, LSN %llu is needed",
                       (unsigned long long)starts[0].previous_end, (unsigned long long)from);
    if (status == AIDB_CORRUPTION) {
        report_message(verify, verify->options->directory, 0);
        *go_on = false;
        status = AIDB_OK;
    }
    return status;
}

static Status verify_ring(Verification *verify)
{
    Status status = ring_open(verify->options, false, &verify->ring);
    if (status == AIDB_CORRUPTION) {
        char *path = path_join(verify->options->directory, "ring");
        if (path == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory for verifying the log");
        report_message(verify, path, 0);
        free(path);
        return AIDB_OK;
    }
    RETURN_IF_FAILED(status);
    RingHeader header;
    uint64_t damaged;
    RETURN_IF_FAILED(ring_read_header(&verify->ring, verify->options, &header, &damaged));
    if (damaged != UINT64_MAX)
        verify->report(verify->arg, verify->ring.path, damaged,
                       "a header of the log's ring is damaged");
    return AIDB_OK;
}

Status wal_verify(const WalOptions *options, const WalStart *starts, size_t start_count,
                  uint64_t from, uint64_t horizon, bool online, DamageReport report, void *arg)
{
    Verification verify = {
        .options = options,
        .online = online,
        .report = report,
        .arg = arg,
        .ring = RING_CLOSED,
        .log = {.horizon = from > horizon ? from : horizon, .stop = LSN_MAX},
    };
    bool go_on;
    Status status = scan_init(&verify.scan, options);
    if (status != AIDB_OK)
        goto out;
    OUT_IF_FAILED(verify_ring(&verify));
    OUT_IF_FAILED(verify_headers(&verify));
    OUT_IF_FAILED(find_end(&verify, starts, start_count, from, horizon, &go_on));
    if (go_on)
        OUT_IF_FAILED(verify_records(&verify, starts, start_count, from));
out:
    log_end_deinit(&verify.log);
    scan_deinit(&verify.scan);
    ring_close(&verify.ring);
    buffer_deinit(&verify.scratch);
    return status;
}
