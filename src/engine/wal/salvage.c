/*
 * salvage.c - reads what is left of a damaged log, for repair. Changes nothing.
 *
 * As verification it goes on behind damage, at the next place where a record's header stands, and reports
 * each run of LSNs that it passed over. It stops where recovery would: the first incomplete record at or
 * above the horizon is the end of the log. If there are whole records behind that, they are reported, not
 * taken: they were never known to be durable, and taking them would keep a later write without the earlier
 * ones that it may rest on.
 *
 * When the manifest cannot be read, headers of segments and ring tell which logs there were. A log whose
 * nonce is lost with the manifest is read by LSNs and payload hashes alone (`unproven`): enough against
 * chance, not against a value that somebody made to look like a record at just this place.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/coding.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct KnownLog {
    WalStart start;
    bool proven; /* the nonce is known */
} KnownLog;

typedef struct Salvage {
    WalSalvage *in;
    Scan scan;
    Ring ring;
    RingHeader ring_header;
    bool ring_good;
    char ring_problem[256];
    KnownLog *logs;
    size_t log_count;
    size_t log_capacity;
    uint64_t horizon;
    uint64_t stop; /* where the newest log is known to end, or LSN_MAX */
    bool ring_counts;
    uint64_t time_us; /* as the newest record that was read and states them says */
    uint64_t durable;
    Buffer scratch;
} Salvage;

static uint64_t max_lsn(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static Status no_memory(void)
{
    return status_set(AIDB_NO_MEMORY, "out of memory for reading a damaged log");
}

/* ---- which logs there are ----------------------------------------------------------------------- */

static Status add_log(Salvage *s, const WalStart *start, bool proven)
{
    size_t at = 0;
    while (at < s->log_count && s->logs[at].start.first_lsn < start->first_lsn)
        at++;
    if (at < s->log_count && s->logs[at].start.first_lsn == start->first_lsn) {
        if (proven && !s->logs[at].proven)
            s->logs[at] = (KnownLog){.start = *start, .proven = true};
        return AIDB_OK;
    }
    if (s->log_count == s->log_capacity) {
        size_t capacity = s->log_capacity == 0 ? 16 : s->log_capacity * 2;
        KnownLog *logs = realloc(s->logs, capacity * sizeof *logs);
        if (logs == NULL)
            return no_memory();
        s->logs = logs;
        s->log_capacity = capacity;
    }
    memmove(s->logs + at + 1, s->logs + at, (s->log_count - at) * sizeof *s->logs);
    s->logs[at] = (KnownLog){.start = *start, .proven = proven};
    s->log_count++;
    return AIDB_OK;
}

/* Logs that only headers know. */
static Status add_found_logs(Salvage *s)
{
    for (size_t i = 0; i < s->scan.catalog.count; i++) {
        const SegmentFile *file = &s->scan.catalog.files[i];
        if (file->state != HEADER_VALID)
            continue;
        /* The header of a copy does not say which incarnation wrote what it holds; none is higher. */
        WalStart start = {.incarnation =
                              file->header.kind == SEGMENT_WRITTEN ? file->incarnation : 0,
                          .first_lsn = file->header.log_first,
                          .previous_end = file->header.previous_end};
        RETURN_IF_FAILED(add_log(s, &start, false));
    }
    if (s->ring_good && s->ring_header.incarnation != 0) {
        WalStart start = {.incarnation = s->ring_header.incarnation,
                          .first_lsn = s->ring_header.first_lsn,
                          .previous_end = s->ring_header.previous_end};
        RETURN_IF_FAILED(add_log(s, &start, false));
    }
    return AIDB_OK;
}

static Status open_ring(Salvage *s)
{
    Status status = ring_open(s->in->options, false, &s->ring);
    if (status == AIDB_OK)
        status = ring_read_header(&s->ring, s->in->options, &s->ring_header, NULL);
    s->ring_good = status == AIDB_OK;
    if (status == AIDB_CORRUPTION || status == AIDB_IO) {
        snprintf(s->ring_problem, sizeof s->ring_problem, "%s", status_message());
        status = AIDB_OK;
    }
    return status;
}

/* What ring and segment headers say about the end of the newest log. */
static void judge_headers(Salvage *s)
{
    const WalStart *last = s->log_count > 0 ? &s->logs[s->log_count - 1].start : NULL;
    s->stop = LSN_MAX;
    s->horizon = max_lsn(s->in->horizon, s->in->from);
    for (size_t i = 0; i < s->scan.catalog.count; i++)
        if (s->scan.catalog.files[i].state == HEADER_VALID)
            s->horizon = max_lsn(s->horizon, s->scan.catalog.files[i].header.durable);
    if (!s->ring_good)
        return;
    const RingHeader *ring = &s->ring_header;
    if (last != NULL && ring->first_lsn < last->first_lsn) {
        s->ring_good = false;
        snprintf(s->ring_problem, sizeof s->ring_problem,
                 "the log's ring is of incarnation %u, which is not the newest: an older copy",
                 ring->incarnation);
        return;
    }
    s->horizon = max_lsn(s->horizon, ring->previous_end);
    if (last == NULL || ring->first_lsn > last->first_lsn)
        s->stop = ring->previous_end; /* left by a recovery whose log nobody wrote to */
    else if (ring->state == RING_STOPPED)
        s->stop = ring->end;
    else
        s->ring_counts = true;
    if (s->stop != LSN_MAX)
        s->horizon = max_lsn(s->horizon, s->stop);
}

/* ---- records ------------------------------------------------------------------------------------ */

static bool ring_decode(const Salvage *s, uint64_t lsn, RecordHeader *header)
{
    uint8_t bytes[RECORD_HEADER_FULL];
    ring_get(&s->ring, lsn, bytes, sizeof bytes);
    return scan_decode(&s->scan, bytes, sizeof bytes, lsn, header);
}

static Status record_in_ring(Salvage *s, uint64_t lsn, FoundRecord *found)
{
    RecordHeader header;
    *found = (FoundRecord){.end = 0};
    if (!ring_decode(s, lsn, &header))
        return AIDB_OK;
    uint64_t size = record_size(header.full, header.payload_size);
    if (size > s->ring.size)
        return AIDB_OK;
    buffer_clear(&s->scratch);
    RETURN_IF_FAILED(buffer_reserve(&s->scratch, (size_t)size));
    ring_get(&s->ring, lsn, s->scratch.data, (size_t)size);
    const char *what;
    const uint8_t *rest = s->scratch.data + record_header_size(header.full);
    if (record_check(&header, rest, &what))
        *found = (FoundRecord){
            .header = header, .end = lsn + size, .payload = slice_make(rest, header.payload_size)};
    return AIDB_OK;
}

/* Whether a header of a record not below `lsn` stands at a place in the ring: one that states its LSN, or one of the
 * ring's lap that begins with `lsn`. */
static bool header_in_ring(const Salvage *s, uint64_t at, uint64_t lsn, RecordHeader *header)
{
    uint64_t stated = get_fixed64(s->ring.data + (at + RECORD_AT_LSN) % s->ring.size);
    if (stated % s->ring.size == at && stated >= lsn && ring_decode(s, stated, header) &&
        header->full)
        return true;
    uint64_t behind = (at + s->ring.size - lsn % s->ring.size) % s->ring.size;
    return !s->scan.unproven && ring_decode(s, lsn + behind, header);
}

/* The next place at or after `lsn`, below `limit`, where a record's header stands in segments or ring;
 * `limit` if none. */
static Status next_header(Salvage *s, uint64_t lsn, uint64_t limit, bool ring, uint64_t *place)
{
    RecordHeader header;
    RETURN_IF_FAILED(scan_resync(&s->scan, lsn, limit, false, place, &header));
    for (uint64_t at = 0; ring && at < s->ring.size; at += 8)
        if (header_in_ring(s, at, lsn, &header) && header.lsn < *place)
            *place = header.lsn;
    return AIDB_OK;
}

static Status report(Salvage *s, uint64_t lsn, uint64_t to, const char *what)
{
    WalLoss loss = {.from = lsn, .to = to, .what = what};
    char *path = scan_place(&s->scan, lsn, &loss.offset);
    if (path == NULL)
        return no_memory();
    loss.path = path;
    s->in->report(s->in->arg, &loss);
    free(path);
    return AIDB_OK;
}

/* At a flaw in the newest log: whether it ends here, after looking at all that lies behind. */
static Status judge_end(Salvage *s, uint64_t lsn, bool *end)
{
    uint64_t place = lsn;
    uint64_t behind = 0;
    RecordHeader header;
    bool ring = s->ring_counts && s->horizon <= lsn;
    for (uint64_t at = 0; ring && at < s->ring.size; at += 8)
        if (header_in_ring(s, at, lsn + 8, &header)) {
            behind = max_lsn(behind, header.lsn + record_size(header.full, header.payload_size));
            s->horizon = max_lsn(s->horizon, header.durable);
        }
    while (s->horizon <= lsn && place != LSN_MAX) {
        RETURN_IF_FAILED(scan_resync(&s->scan, place + 8, LSN_MAX, false, &place, &header));
        if (place == LSN_MAX)
            break;
        behind = max_lsn(behind, place + record_size(header.full, header.payload_size));
        s->horizon = max_lsn(s->horizon, header.durable);
    }
    *end = s->horizon <= lsn;
    s->in->end = max_lsn(s->in->end, behind);
    if (*end && behind > lsn)
        return report(
            s, lsn, behind,
            "the log ends here; records behind it, not known to be durable, are left out");
    return AIDB_OK;
}

static Status visit(Salvage *s, const KnownLog *log, const FoundRecord *found, uint64_t lsn)
{
    if (found->header.full) {
        s->time_us = found->header.time_us;
        s->durable = found->header.durable;
    }
    WalRecord record = {.lsn = lsn,
                        .payload_lsn = lsn + record_header_size(found->header.full),
                        .end = found->end,
                        .time_us = s->time_us,
                        .durable = s->durable,
                        .incarnation = log->start.incarnation,
                        .payload = found->payload};
    s->in->records++;
    s->in->unproven += !log->proven;
    s->in->end = max_lsn(s->in->end, found->end);
    return s->in->visit(s->in->arg, &record);
}

static Status read_log(Salvage *s, size_t index)
{
    const KnownLog *log = &s->logs[index];
    bool newest = index + 1 == s->log_count;
    uint64_t limit = newest ? s->stop : s->logs[index + 1].start.previous_end;
    bool ring = newest && s->ring_counts;
    uint64_t lsn = max_lsn(s->in->from, log->start.first_lsn);
    scan_set_log(&s->scan, &log->start);
    s->scan.unproven = !log->proven;
    bool begun =
        s->in->complete; /* else the oldest segments may be gone because tables hold them */
    while (lsn < limit) {
        FoundRecord found;
        Flaw flaw;
        RETURN_IF_FAILED(scan_record(&s->scan, lsn, limit, &found, &flaw));
        if (found.end == 0 && ring)
            RETURN_IF_FAILED(record_in_ring(s, lsn, &found));
        if (found.end != 0) {
            begun = true;
            if (newest)
                s->horizon = max_lsn(s->horizon, found.header.durable);
            RETURN_IF_FAILED(visit(s, log, &found, lsn));
            lsn = found.end;
            continue;
        }
        if (newest && limit == LSN_MAX) {
            bool end;
            RETURN_IF_FAILED(judge_end(s, lsn, &end));
            if (end)
                break;
        }
        uint64_t place;
        RETURN_IF_FAILED(next_header(s, lsn + 8, limit, ring, &place));
        uint64_t to = place != LSN_MAX ? place : s->horizon;
        if ((begun || place == limit) && to > lsn)
            RETURN_IF_FAILED(report(s, lsn, to, flaw.what));
        lsn = place != LSN_MAX ? place : to;
        if (place == LSN_MAX)
            break;
    }
    if (newest && !s->ring_good && !s->in->clean && log->start.first_lsn > 0) {
        char *path = path_join(s->in->options->directory, "ring");
        if (path == NULL)
            return no_memory();
        s->in->report(s->in->arg, &(WalLoss){.path = path, .from = lsn, .what = s->ring_problem});
        free(path);
    }
    s->in->end = max_lsn(s->in->end, lsn);
    if (newest)
        s->in->log_end = lsn;
    return AIDB_OK;
}

Status wal_salvage(WalSalvage *in)
{
    Salvage s = {.in = in, .ring = RING_CLOSED};
    in->end = in->log_end = in->records = in->unproven = 0;
    Status status = scan_init(&s.scan, in->options);
    if (status == AIDB_NOT_FOUND) {
        if (!in->clean || in->horizon > in->from)
            in->report(in->arg, &(WalLoss){.path = in->options->directory,
                                           .from = in->from,
                                           .what = "the log's directory is missing"});
        status = AIDB_OK;
        goto out;
    }
    if (status != AIDB_OK)
        goto out;
    s.scan.tolerant = true;
    OUT_IF_FAILED(open_ring(&s));
    for (size_t i = 0; i < in->start_count; i++)
        OUT_IF_FAILED(add_log(&s, &in->starts[i], true));
    if (!in->complete)
        OUT_IF_FAILED(add_found_logs(&s));
    judge_headers(&s);
    for (size_t i = 0; i < s.log_count; i++)
        OUT_IF_FAILED(read_log(&s, i));
    in->end = max_lsn(in->end, s.horizon);
    for (size_t i = 0; i < s.scan.catalog.count; i++)
        if (s.scan.catalog.files[i].state == HEADER_VALID)
            in->end =
                max_lsn(in->end, s.scan.catalog.files[i].first_lsn + in->options->segment_size);
out:
    scan_deinit(&s.scan);
    ring_close(&s.ring);
    free(s.logs);
    buffer_deinit(&s.scratch);
    return status;
}

/* ---- identity ----------------------------------------------------------------------------------- */

Status wal_newest_incarnation(const WalOptions *options, uint32_t *incarnation)
{
    Catalog catalog;
    Ring ring;
    RingHeader header;
    *incarnation = 0;
    Status status = catalog_load(options, &catalog);
    if (status == AIDB_NOT_FOUND)
        return AIDB_OK;
    RETURN_IF_FAILED(status);
    for (size_t i = 0; i < catalog.count; i++)
        if (catalog.files[i].state == HEADER_VALID && catalog.files[i].incarnation > *incarnation)
            *incarnation = catalog.files[i].incarnation;
    catalog_deinit(&catalog);
    if (ring_open(options, false, &ring) == AIDB_OK &&
        ring_read_header(&ring, options, &header, NULL) == AIDB_OK &&
        header.incarnation > *incarnation)
        *incarnation = header.incarnation;
    ring_close(&ring);
    return AIDB_OK;
}

Status wal_identify(const char *directory, WalOptions *options, bool *found)
{
    *found = false;
    char *path = path_join(directory, "ring");
    if (path == NULL)
        return no_memory();
    File file;
    Status status = file_open(path, FILE_READ, &file);
    free(path);
    if (status == AIDB_OK) {
        *found = ring_identify(&file, options);
        file_close(&file);
    }
    return status == AIDB_NO_MEMORY ? status : AIDB_OK;
}
