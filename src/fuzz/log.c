/*
 * log.c - any bytes as what a crash left of the log: segments and the ring.
 *
 * Input: eight bytes of choices, then the log's bytes from LSN 4096 on. Where they look like a row of
 * records, LSNs, hashes and checksums are filled in; sizes, kinds of header, durable LSNs and times stay as they are.
 * The log is verified and read as it is, then recovered, which must leave a log that verifies without
 * complaint, reads to its end and can be recovered again to the same end.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include "common/coding.h"
#include "engine/wal/wal_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define SEGMENT      4096u
#define SEGMENTS_MAX 3u
#define RING         8192u
#define CHOICES      8u

enum {
    LEAVE_CHECKSUMS = 1, /* the bytes stay as they are */
    IN_RING = 2,         /* from `split` on the bytes are only in the ring */
    STOPPED = 4,         /* the ring says that the log was closed at `split` */
    COPIED = 8,          /* the last segment is a copy by a recovery */
    NO_FILE = 16,        /* the last segment is missing */
    DAMAGED_HEADER = 32,
    OLD_RING = 64 /* the ring is of an incarnation before */
};

static const WalStart start = {
    .incarnation = 1, .nonce = 7, .first_lsn = SEGMENT, .previous_end = SEGMENT};

#define FULL_FLAG (UINT32_C(1) << 31) /* beside the size of a record */

static uint8_t stream[SEGMENT * SEGMENTS_MAX];

static uint64_t choice16(const uint8_t *at)
{
    return (uint64_t)(at[0] | at[1] << 8);
}

/* Makes records of what could be records. */
static void fill_in(const WalOptions *options, size_t size)
{
    uint64_t seed = record_seed(options->system_id, start.incarnation, start.nonce);
    for (size_t at = 0; at + RECORD_HEADER_SHORT <= size;) {
        uint32_t payload = get_fixed32(stream + at + 12);
        bool full = (payload & FULL_FLAG) != 0;
        payload &= ~FULL_FLAG;
        uint64_t whole = record_size(full, payload);
        if (whole > size - at)
            break;
        size_t header_size = record_header_size(full);
        RecordHeader header = {.lsn = SEGMENT + at, .payload_size = payload, .full = full};
        header.payload_hash = record_payload_hash(
            wal_payload_hash(slice_make(stream + at + header_size, payload)), header.lsn);
        if (full) {
            header.durable = get_fixed64(stream + at + 24);
            header.time_us = get_fixed64(stream + at + 32);
        }
        record_encode(stream + at, &header, seed);
        size_t used = header_size + payload;
        memset(stream + at + used, 0, whole - used);
        at += whole;
    }
}

static void write_segment(const WalOptions *options, uint32_t index, uint8_t choices,
                          uint64_t durable, bool last)
{
    uint8_t file[WAL_SEGMENT_HEADER_SIZE + SEGMENT];
    char name[WAL_NAME_SIZE], path[600];
    SegmentHeader header = {
        .incarnation = last && (choices & COPIED) ? 2 : 1,
        .first_lsn = SEGMENT * (index + 1),
        .durable = durable,
        .log_first = start.first_lsn,
        .previous_end = start.previous_end,
        .kind = last && (choices & COPIED) ? SEGMENT_COPIED : SEGMENT_WRITTEN,
    };
    segment_header_encode(file, options, &header);
    if (last && (choices & DAMAGED_HEADER))
        file[50] ^= 1;
    memcpy(file + WAL_SEGMENT_HEADER_SIZE, stream + index * SEGMENT, SEGMENT);
    segment_name(name, header.first_lsn, header.incarnation);
    snprintf(path, sizeof path, "%s/%s", options->directory, name);
    fuzz_write_file(path, file, sizeof file);
}

static void write_ring(const WalOptions *options, uint8_t choices, uint64_t split, size_t size)
{
    Ring ring = RING_CLOSED;
    fuzz_require(ring_open(options, true, &ring) == AIDB_OK);
    RingHeader header = {
        .sequence = 1,
        .incarnation = choices & OLD_RING ? 0 : 1,
        .state = choices & STOPPED ? RING_STOPPED : RING_READY,
        .first_lsn = start.first_lsn,
        .previous_end = start.previous_end,
        .end = choices & STOPPED ? SEGMENT + split : 0,
    };
    fuzz_require(ring_write_header(&ring, options, &header) == AIDB_OK);
    if ((choices & IN_RING) && split < size) {
        uint64_t from = size - split > RING ? size - RING : split;
        ring_put(&ring, SEGMENT + from, stream + from, size - from);
        memset(stream + split, 0, sizeof stream - split);
    }
    ring_close(&ring);
}

static void count_damage(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)path;
    (void)offset;
    fuzz_require(what[0] != '\0');
    ++*(uint32_t *)arg;
}

/* Reads to the end; the records must follow each other. */
static Status read_all(const WalOptions *options, const WalStart *starts, size_t count,
                       uint64_t from, uint64_t end)
{
    WalReader *reader;
    WalRecord record;
    uint64_t at = from;
    RETURN_IF_FAILED(wal_reader_create(options, starts, count, from, end, &reader));
    Status status;
    while ((status = wal_reader_next(reader, &record)) == AIDB_OK) {
        fuzz_require(record.lsn >= at && record.end > record.lsn && record.end <= end);
        fuzz_require(record.payload.size <= record.end - record.lsn);
        at = record.end;
    }
    wal_reader_destroy(reader);
    return status;
}

static Status recover(const WalOptions *options, WalStart *starts, size_t count, uint64_t from,
                      uint64_t horizon, WalRecovery *recovery)
{
    static WalShared *shared;
    static SlotTable slots;
    static Slot *slot;
    if (shared == NULL) {
        shared = aligned_alloc(PORT_CACHE_LINE, wal_shared_size());
        fuzz_require(shared != NULL);
        slot_table_init(&slots, aligned_alloc(PORT_CACHE_LINE, slot_table_size(2)), 2, NULL);
        slot = slot_claim(&slots, 0, SLOT_THREAD);
    }
    Wal *wal;
    wal_shared_init(shared);
    RETURN_IF_FAILED(wal_open(options, shared, &wal));
    *recovery = (WalRecovery){
        .starts = starts,
        .start_count = count,
        .from = from,
        .horizon = horizon,
        .incarnation = (uint32_t)count + 2,
        .nonce = 99 + count,
    };
    Status status = wal_recover(wal, slot, recovery);
    wal_close(wal);
    return status;
}

typedef struct Salvaged {
    uint64_t at;
    uint32_t losses;
} Salvaged;

static Status visit_salvaged(void *arg, const WalRecord *record)
{
    Salvaged *salvaged = arg;
    fuzz_require(record->lsn >= salvaged->at && record->end > record->lsn);
    fuzz_require(record->payload.size <= record->end - record->lsn);
    salvaged->at = record->end;
    return AIDB_OK;
}

static void count_loss(void *arg, const WalLoss *loss)
{
    Salvaged *salvaged = arg;
    fuzz_require(loss->what[0] != '\0' && loss->path[0] != '\0');
    fuzz_require(loss->to == 0 || loss->to > loss->from);
    salvaged->losses++;
}

/* Reads what repair would; `complete`: as the manifest tells, else from headers alone. The end is given
 * when nothing was lost. */
static uint64_t salvage(const WalOptions *options, bool complete, uint64_t from, uint64_t horizon)
{
    Salvaged salvaged = {0};
    WalSalvage in = {.options = options,
                     .starts = &start,
                     .start_count = complete ? 1 : 0,
                     .complete = complete,
                     .from = complete ? from : 0,
                     .horizon = complete ? horizon : 0,
                     .visit = visit_salvaged,
                     .report = count_loss,
                     .arg = &salvaged};
    fuzz_require(wal_salvage(&in) == AIDB_OK);
    fuzz_require(in.end >= salvaged.at);
    return salvaged.losses == 0 ? in.log_end : 0;
}

void fuzz_log(const uint8_t *data, size_t size)
{
    char directory[300];
    if (size < CHOICES)
        return;
    snprintf(directory, sizeof directory, "%s/wal", fuzz_directory());
    const WalOptions options = {.directory = directory,
                                .system_id = "fuzzed database",
                                .segment_size = SEGMENT,
                                .ring_size = RING};
    fuzz_empty_directory(directory);
    fuzz_require(wal_create(&options) == AIDB_OK);

    uint8_t choices = data[0];
    size_t bytes = size - CHOICES < sizeof stream ? size - CHOICES : sizeof stream;
    uint64_t from = SEGMENT + choice16(data + 2) % sizeof stream;
    uint64_t horizon = choice16(data + 4) == 0 ? 0 : SEGMENT + choice16(data + 4) % sizeof stream;
    uint64_t split = choice16(data + 6) % sizeof stream;
    memset(stream, 0, sizeof stream);
    memcpy(stream, data + CHOICES, bytes);
    if (!(choices & LEAVE_CHECKSUMS))
        fill_in(&options, bytes);
    write_ring(&options, choices, split, bytes);
    uint32_t count = 1 + data[1] % SEGMENTS_MAX;
    for (uint32_t i = 0; i < count; i++)
        if (i + 1 < count || !(choices & NO_FILE))
            write_segment(&options, i, choices, start.first_lsn, i + 1 == count);

    WalStart starts[3] = {start};
    uint32_t damage = 0;
    WalRecovery recovery, again;
    (void)!wal_verify(&options, starts, 1, from, horizon, true, count_damage, &damage);
    (void)!wal_verify(&options, starts, 1, from, horizon, false, count_damage, &damage);
    (void)!read_all(&options, starts, 1, from, SEGMENT + bytes);
    (void)salvage(&options, false, from, horizon);
    uint64_t end = salvage(&options, true, from, horizon);
    Status status = recover(&options, starts, 1, from, horizon, &recovery);
    fuzz_require(status != AIDB_OK || end == 0 || end == recovery.end);
    fuzz_require(status == AIDB_OK || status_message()[0] != '\0');
    if (status != AIDB_OK)
        return;
    fuzz_require(recovery.end >= from && recovery.end >= horizon);
    fuzz_require(recovery.next.first_lsn >= recovery.end);
    starts[1] = recovery.next;
    fuzz_require(read_all(&options, starts, 2, from, recovery.end) == AIDB_NOT_FOUND);
    damage = 0;
    fuzz_require(wal_verify(&options, starts, 2, from, recovery.end, false, count_damage,
                            &damage) == AIDB_OK);
    fuzz_require(recover(&options, starts, 2, from, recovery.end, &again) == AIDB_OK);
    fuzz_require(again.end == recovery.next.first_lsn || again.end == recovery.end);
}
