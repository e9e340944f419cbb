/*
 * reader.c - reading the log from segment files.
 *
 * A scan looks at the log through a window: bytes that are contiguous in LSN space, gathered from as
 * many files as needed. A record is checked whole before any of it is handed out. What a scan calls
 * missing (no file, a file that is too short, a header that does not fit the place) is data to its
 * caller, who knows the horizon; only the reader proper, which is told where the log ends, makes
 * corruption of it. A read that the system refuses is an error for both.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/coding.h"

#include <stdlib.h>

#define WINDOW_SIZE   (256u << 10)
#define UNPROVEN_SIZE (64u << 10) /* searched for records that only their payload speaks for */

Status scan_init(Scan *scan, const WalOptions *options)
{
    *scan = (Scan){.options = options, .file = FILE_CLOSED};
    return catalog_load(options, &scan->catalog);
}

void scan_deinit(Scan *scan)
{
    file_close(&scan->file);
    catalog_deinit(&scan->catalog);
    buffer_deinit(&scan->window);
}

void scan_set_log(Scan *scan, const WalStart *start)
{
    scan->seed = record_seed(scan->options->system_id, start->incarnation, start->nonce);
    scan->incarnation_min = start->incarnation;
    buffer_clear(&scan->window);
}

bool scan_decode(const Scan *scan, const uint8_t *bytes, size_t size, uint64_t lsn,
                 RecordHeader *header)
{
    return scan->unproven ? record_decode_unproven(bytes, size, lsn, header)
                          : record_decode(bytes, size, lsn, scan->seed, header);
}

/* Opens the file that rules for an LSN's segment; false in *found when there is none. */
static Status open_file(Scan *scan, uint64_t lsn, bool *found)
{
    uint64_t first = segment_start(scan->options, lsn);
    const SegmentFile *entry = catalog_find(&scan->catalog, first, scan->incarnation_min);
    *found = false;
    if (entry == NULL)
        return AIDB_OK;
    if (scan->file.fd < 0 || scan->file_lsn != first ||
        scan->file_incarnation != entry->incarnation) {
        file_close(&scan->file);
        char *path = segment_path(scan->options, first, entry->incarnation);
        if (path == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory for reading the log");
        Status status = file_open(path, FILE_READ, &scan->file);
        free(path);
        if (status == AIDB_NOT_FOUND)
            return AIDB_OK;
        RETURN_IF_FAILED(status);
        scan->file_lsn = first;
        scan->file_incarnation = entry->incarnation;
    }
    *found = true;
    return AIDB_OK;
}

/* Refills the window from `lsn` on with up to `size` bytes. */
static Status fill(Scan *scan, uint64_t lsn, size_t size)
{
    buffer_clear(&scan->window);
    scan->window_lsn = lsn;
    while (scan->window.size < size) {
        uint64_t at = lsn + scan->window.size;
        bool found;
        RETURN_IF_FAILED(open_file(scan, at, &found));
        if (!found)
            break;
        uint64_t room = scan->file_lsn + scan->options->segment_size - at;
        size_t step = size - scan->window.size;
        if (step > room)
            step = (size_t)room;
        size_t got;
        /* Room is made for one segment at a time: a length read from a file is believed, and paid
         * for with memory, only as far as there are files that could hold so much. */
        RETURN_IF_FAILED(buffer_reserve(&scan->window, step));
        Status status = file_read_some(&scan->file, segment_offset(scan->options, at),
                                       scan->window.data + scan->window.size, step, &got);
        if (status == AIDB_IO && scan->tolerant)
            break;
        RETURN_IF_FAILED(status);
        scan->window.size += got;
        if (got < step)
            break;
    }
    return AIDB_OK;
}

Status scan_bytes(Scan *scan, uint64_t lsn, size_t want, const uint8_t **bytes, size_t *got)
{
    if (lsn < scan->window_lsn || lsn + want > scan->window_lsn + scan->window.size) {
        Status status = fill(scan, lsn, want > WINDOW_SIZE ? want : WINDOW_SIZE);
        if (status != AIDB_OK) {
            buffer_clear(&scan->window);
            *got = 0;
            return status;
        }
    }
    size_t have = scan->window.size - (size_t)(lsn - scan->window_lsn);
    *bytes = have > 0 ? scan->window.data + (lsn - scan->window_lsn) : NULL;
    *got = have < want ? have : want;
    return AIDB_OK;
}

Status scan_record(Scan *scan, uint64_t lsn, uint64_t limit, FoundRecord *found, Flaw *flaw)
{
    const uint8_t *bytes;
    size_t got;
    *found = (FoundRecord){.end = 0};
    *flaw = (Flaw){.lsn = lsn, .what = "no valid log record where one should be"};
    size_t header_max =
        limit - lsn < RECORD_HEADER_FULL ? (size_t)(limit - lsn) : RECORD_HEADER_FULL;
    RETURN_IF_FAILED(scan_bytes(scan, lsn, header_max, &bytes, &got));
    RecordHeader header = {.full = false};
    if (!scan_decode(scan, bytes, got, lsn, &header)) {
        if (got < header_max && (header.full || got < RECORD_HEADER_SHORT))
            *flaw = (Flaw){.lsn = lsn + got, .what = "log bytes are missing"};
        return AIDB_OK;
    }
    uint64_t size = record_size(header.full, header.payload_size);
    if (size > limit - lsn) {
        flaw->what = "a log record passes the end of its log";
        return AIDB_OK;
    }
    RETURN_IF_FAILED(scan_bytes(scan, lsn, (size_t)size, &bytes, &got));
    if (got < size) {
        *flaw = (Flaw){.lsn = lsn + got, .what = "log bytes are missing"};
        return AIDB_OK;
    }
    const uint8_t *payload = bytes + record_header_size(header.full);
    if (!record_check(&header, payload, &flaw->what))
        return AIDB_OK;
    *found = (FoundRecord){
        .header = header,
        .end = lsn + size,
        .payload = slice_make(payload, header.payload_size),
    };
    return AIDB_OK;
}

/* Whether a header that is looked for begins these bytes, at a place that nothing leads to. */
static bool header_is_here(const Scan *scan, const uint8_t *bytes, size_t size, uint64_t lsn,
                           bool full, RecordHeader *header)
{
    if (full && (size < RECORD_HEADER_FULL || get_fixed64(bytes + RECORD_AT_LSN) != lsn))
        return false;
    return scan_decode(scan, bytes, size, lsn, header) && (header->full || !full);
}

/* The next place where a header is found that is known by itself. */
static Status resync_by_header(Scan *scan, uint64_t lsn, uint64_t limit, bool full, uint64_t *place,
                               RecordHeader *header)
{
    *place = limit;
    if (scan->catalog.count == 0)
        return AIDB_OK;
    uint64_t files_end =
        scan->catalog.files[scan->catalog.count - 1].first_lsn + scan->options->segment_size;
    if (limit > files_end)
        limit = files_end;
    while (lsn < limit) {
        const uint8_t *bytes;
        size_t got;
        RETURN_IF_FAILED(scan_bytes(scan, lsn, WINDOW_SIZE, &bytes, &got));
        bool missing = got < WINDOW_SIZE;
        size_t last = missing ? RECORD_HEADER_SHORT : RECORD_HEADER_FULL;
        size_t at = 0;
        for (; at + last <= got && lsn + at < limit; at += 8)
            if (header_is_here(scan, bytes + at, got - at, lsn + at, full, header)) {
                *place = lsn + at;
                return AIDB_OK;
            }
        /* Bytes are missing before the window's end: what is behind them may be in the next file. */
        lsn = missing ? segment_start(scan->options, lsn + got) + scan->options->segment_size
                      : lsn + at;
    }
    return AIDB_OK;
}

Status scan_resync(Scan *scan, uint64_t lsn, uint64_t limit, bool full, uint64_t *place,
                   RecordHeader *header)
{
    RETURN_IF_FAILED(resync_by_header(scan, lsn, limit, full || scan->unproven, place, header));
    if (full || !scan->unproven || *place <= lsn)
        return AIDB_OK;
    /* Without the checksum a short header says next to nothing by itself. Records that lost the full one of their
     * block are not far. */
    uint64_t end = *place - lsn < UNPROVEN_SIZE ? *place : lsn + UNPROVEN_SIZE;
    for (; lsn < end; lsn += 8) {
        FoundRecord found;
        Flaw flaw;
        RETURN_IF_FAILED(scan_record(scan, lsn, end, &found, &flaw));
        if (found.end != 0) {
            *place = lsn;
            *header = found.header;
            return AIDB_OK;
        }
    }
    return AIDB_OK;
}

char *scan_place(const Scan *scan, uint64_t lsn, uint64_t *offset)
{
    uint64_t first = segment_start(scan->options, lsn);
    const SegmentFile *entry = catalog_find(&scan->catalog, first, scan->incarnation_min);
    *offset = entry != NULL ? segment_offset(scan->options, lsn) : 0;
    uint32_t incarnation = entry != NULL ? entry->incarnation : scan->incarnation_min;
    for (size_t i = 0; entry == NULL && i < scan->catalog.count;
         i++) /* name a file that is there, if any */
        if (scan->catalog.files[i].first_lsn == first &&
            scan->catalog.files[i].incarnation > incarnation)
            incarnation = scan->catalog.files[i].incarnation;
    return segment_path(scan->options, first, incarnation);
}

Status scan_damage(const Scan *scan, const Flaw *flaw)
{
    uint64_t offset;
    char *path = scan_place(scan, flaw->lsn, &offset);
    Status status =
        status_set(AIDB_CORRUPTION, "file \"%s\": offset %llu: %s (LSN %llu)",
                   path != NULL ? path : scan->options->directory, (unsigned long long)offset,
                   flaw->what, (unsigned long long)flaw->lsn);
    free(path);
    return status;
}

Status starts_check(const WalOptions *options, const WalStart *starts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (segment_start(options, starts[i].first_lsn) != starts[i].first_lsn ||
            starts[i].previous_end > starts[i].first_lsn ||
            (i > 0 && (starts[i].incarnation <= starts[i - 1].incarnation ||
                       starts[i].previous_end < starts[i - 1].first_lsn)))
            return status_set(AIDB_CORRUPTION,
                              "the manifest's list of logs contradicts itself at incarnation %u",
                              starts[i].incarnation);
    return AIDB_OK;
}

uint64_t starts_limit(const WalStart *starts, size_t count, size_t index)
{
    return index + 1 < count ? starts[index + 1].previous_end : LSN_MAX;
}

/* ---- the reader ------------------------------------------------------------------------------- */

struct WalReader {
    WalOptions options;
    char *directory; /* owned */
    WalStart *starts;
    size_t start_count;
    size_t log; /* index of the log at `lsn` */
    uint64_t lsn;
    uint64_t end;
    uint64_t time_us; /* as last stated */
    uint64_t durable;
    Scan scan;
};

Status wal_reader_create(const WalOptions *options, const WalStart *starts, size_t start_count,
                         uint64_t from, uint64_t end, WalReader **result)
{
    *result = NULL;
    RETURN_IF_FAILED(starts_check(options, starts, start_count));
    if (start_count > 0 && from < starts[0].previous_end)
        return status_set(AIDB_CORRUPTION,
                          "the log before LSN %llu is not known, LSN %llu is needed",
                          (unsigned long long)starts[0].previous_end, (unsigned long long)from);
    WalReader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for reading the log");
    reader->scan.file = (File)FILE_CLOSED;
    reader->options = *options;
    reader->directory = strdup(options->directory);
    reader->options.directory = reader->directory;
    reader->starts = malloc((start_count + 1) * sizeof *starts);
    Status status = AIDB_OK;
    if (reader->directory == NULL || reader->starts == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory for reading the log");
        goto out;
    }
    if (start_count > 0)
        memcpy(reader->starts, starts, start_count * sizeof *starts);
    reader->start_count = start_count;
    reader->lsn = from;
    reader->end = end;
    OUT_IF_FAILED(scan_init(&reader->scan, &reader->options));
    if (start_count > 0)
        scan_set_log(&reader->scan, &reader->starts[0]);
    *result = reader;
out:
    if (status != AIDB_OK)
        wal_reader_destroy(reader);
    return status;
}

void wal_reader_destroy(WalReader *reader)
{
    if (reader == NULL)
        return;
    scan_deinit(&reader->scan);
    free(reader->starts);
    free(reader->directory);
    free(reader);
}

/* Moves over ends of logs and the gaps behind them. False when nothing is left before `end`. */
static bool settle(WalReader *reader)
{
    while (reader->log < reader->start_count) {
        uint64_t limit = starts_limit(reader->starts, reader->start_count, reader->log);
        uint64_t first = reader->starts[reader->log].first_lsn;
        if (reader->lsn < first)
            reader->lsn = first; /* a log may be empty: then this is its end, too */
        if (reader->lsn < limit)
            return reader->lsn < reader->end;
        if (++reader->log < reader->start_count)
            scan_set_log(&reader->scan, &reader->starts[reader->log]);
    }
    return false;
}

Status wal_reader_next(WalReader *reader, WalRecord *record)
{
    *record = (WalRecord){0};
    if (!settle(reader))
        return AIDB_NOT_FOUND;
    uint64_t limit = starts_limit(reader->starts, reader->start_count, reader->log);
    if (limit > reader->end)
        limit = reader->end;
    FoundRecord found;
    Flaw flaw;
    RETURN_IF_FAILED(scan_record(&reader->scan, reader->lsn, limit, &found, &flaw));
    if (found.end == 0)
        return scan_damage(&reader->scan, &flaw);
    if (found.header.full) {
        reader->time_us = found.header.time_us;
        reader->durable = found.header.durable;
    }
    *record = (WalRecord){
        .lsn = reader->lsn,
        .payload_lsn = reader->lsn + record_header_size(found.header.full),
        .end = found.end,
        .time_us = reader->time_us,
        .durable = reader->durable,
        .incarnation = reader->starts[reader->log].incarnation,
        .payload = found.payload,
    };
    reader->lsn = found.end;
    return AIDB_OK;
}
