/*
 * damage_test.c - truncated, flipped, stale, foreign and random bytes. Below the horizon damage is
 * corruption, at or above it the end of the log; nothing wrong is ever read.
 */
#include "config.h"

#include "engine/wal/test_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT     4096u
#define RING        16384u
#define RECORDS_MAX 4000
#define SEGMENTS    5u  /* of a log */
#define LONG        18u /* with AIDB_DAMAGE: its last 64 KiB are damaged byte by byte */

/* A killed log with an empty ring: records up to `horizon` are known durable, those from there to `end` stand
 * in segments, but nothing says that they are durable. */
typedef struct Killed {
    TestStore store;
    uint64_t segments;
    uint64_t ends[RECORDS_MAX]; /* of each record */
    uint64_t first;             /* LSN of the first */
    uint64_t horizon;
    uint64_t end;
    char saved[320];
} Killed;

static void write_file(const char *path, uint64_t offset, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, data, size, (off_t)offset), (ssize_t)size);
    close(fd);
}

static void ring_path(const TestStore *store, char path[600])
{
    snprintf(path, 600, "%s/ring", store->wal_directory);
}

static void empty_ring(const TestStore *store)
{
    char path[600];
    uint8_t *zeros = calloc(1, RING);
    ring_path(store, path);
    write_file(path, 4096, zeros, RING);
    free(zeros);
}

static void append_noting(Killed *killed, int count)
{
    for (int i = 0; i < count; i++) {
        ck_ok(test_append(&killed->store));
        killed->ends[killed->store.next - 1] = wal_copied(killed->store.wal);
    }
}

/* Appends until the log reaches to a part of its segments. */
static void append_up_to(Killed *killed, uint64_t lsn)
{
    while (wal_copied(killed->store.wal) < lsn)
        append_noting(killed, 1);
}

static void make_killed_of(Killed *killed, uint64_t segments)
{
    TestStore *store = &killed->store;
    memset(killed, 0, sizeof *killed);
    killed->segments = segments;
    test_store_make(store, SEGMENT, RING);
    ck_ok(test_store_open(store));
    killed->first = wal_copied(store->wal);
    /* All segments first, so that their headers state no durable LSN. */
    ck_ok(segments_prepare(store->wal, store->slot, killed->first + segments * SEGMENT));
    /* What stands behind has to fit into the ring, or it would be synced to make room, and say so. */
    append_up_to(killed, killed->first + segments * SEGMENT - RING + SEGMENT);
    ck_ok(wal_sync(store->wal, store->slot, wal_copied(store->wal)));
    killed->horizon = wal_durable(store->wal);
    append_noting(killed, 1); /* from here on the records state the horizon */
    append_up_to(killed, killed->first + segments * SEGMENT - 2048);
    ck_ok(wal_sync(store->wal, store->slot, wal_copied(store->wal)));
    killed->end = wal_durable(store->wal);
    ck_assert_uint_lt(killed->end, killed->first + segments * SEGMENT);
    test_store_crash(store);
    empty_ring(store);
    snprintf(killed->saved, sizeof killed->saved, "%s/saved", store->directory);
    test_copy_directory(store->wal_directory, killed->saved);
}

static void make_killed(Killed *killed)
{
    make_killed_of(killed, SEGMENTS);
}

/* The end of the last record that lies whole below `lsn`. */
static uint64_t whole_below(const Killed *killed, uint64_t lsn)
{
    uint64_t end = killed->first;
    for (uint64_t i = 0; i < killed->store.next && killed->ends[i] <= lsn; i++)
        end = killed->ends[i];
    return end;
}

static void segment_file(const Killed *killed, uint64_t lsn, char path[600])
{
    char name[WAL_NAME_SIZE];
    segment_name(name, segment_start(&killed->store.options, lsn), 1);
    snprintf(path, 600, "%s/%s", killed->store.wal_directory, name);
}

/* ---- verification as a witness ------------------------------------------------------------------ */

typedef struct Reports {
    int count;
    char path[600]; /* of the first */
    uint64_t offset;
} Reports;

static void note_report(void *arg, const char *path, uint64_t offset, const char *what)
{
    Reports *reports = arg;
    ck_assert_ptr_nonnull(what);
    if (reports->count++ == 0) {
        snprintf(reports->path, sizeof reports->path, "%s", path);
        reports->offset = offset;
    }
}

static Reports verify(const TestStore *store, uint64_t horizon, bool online)
{
    Reports reports = {0};
    ck_ok(wal_verify(&store->options, store->manifest->starts, store->manifest->count,
                     store->manifest->from, horizon, online, note_report, &reports));
    return reports;
}

/* ---- truncation --------------------------------------------------------------------------------- */

/* Cuts the log at every LSN from its end down. */
START_TEST(test_truncation)
{
    Killed killed;
    make_killed_of(&killed, test_damage("bytes") ? LONG : SEGMENTS);
    TestStore *store = &killed.store;
    TestManifest before = *store->manifest;
    char work[320];
    uint64_t refused = 0, opened = 0;
    snprintf(work, sizeof work, "%s/cut", store->directory);
    for (uint64_t cut = killed.first + killed.segments * SEGMENT; cut-- > killed.first;) {
        char path[600];
        uint64_t end;
        segment_file(&killed, cut, path);
        ck_assert_int_eq(truncate(path, (off_t)segment_offset(&store->options, cut)), 0);
        uint64_t expected = whole_below(&killed, cut);
        Status status = test_examine(store, killed.horizon, &end);
        refused += status != AIDB_OK;
        opened += status == AIDB_OK;
        if (cut < killed.horizon) {
            ck_fails(AIDB_CORRUPTION, status);
            ck_assert_msg(strstr(status_message(), path) != NULL, "%s", status_message());
            ck_assert_ptr_nonnull(strstr(status_message(), ": offset "));
        } else {
            ck_ok(status);
            ck_assert_uint_eq(end, expected);
        }
        if (cut % 64 == 5) { /* the same by a whole recovery, on a copy */
            test_copy_directory(store->wal_directory, work);
            TestStore copy = *store;
            copy.options.directory = work;
            copy.manifest->horizon = killed.horizon;
            status = test_store_open(&copy);
            ck_assert_int_eq(status, cut < killed.horizon ? AIDB_CORRUPTION : AIDB_OK);
            if (status == AIDB_OK) {
                ck_assert_uint_eq(copy.last.end, expected);
                test_read_all(&copy);
                ck_assert_uint_eq(copy.next == 0 ? killed.first : killed.ends[copy.next - 1],
                                  expected);
                test_store_crash(&copy);
            }
            *store->manifest = before;
        }
        if (cut % SEGMENT == 0)
            unlink(path);
    }
    printf("log cut at each of its last %llu bytes: %llu refused, %llu opened, all right\n",
           (unsigned long long)(refused + opened), (unsigned long long)refused,
           (unsigned long long)opened);
    test_store_remove(store);
}
END_TEST

/* Records behind the end that know of a higher durable LSN make a cut damage, whatever the manifest knew. */
START_TEST(test_horizon_of_records)
{
    Killed killed;
    make_killed(&killed);
    TestStore *store = &killed.store;
    uint64_t zero = 0;
    uint64_t end;
    char path[600];
    ck_ok(test_examine(store, 0, &end));
    ck_assert_uint_eq(end, killed.end);
    for (uint64_t i = 0; i < store->next; i++) {
        uint64_t begin = i == 0 ? killed.first : killed.ends[i - 1];
        test_copy_directory(killed.saved, store->wal_directory);
        segment_file(&killed, begin, path);
        write_file(path, segment_offset(&store->options, begin), &zero, 4);
        Status status = test_examine(store, 0, &end);
        if (killed.ends[i] <= killed.horizon) {
            ck_fails(AIDB_CORRUPTION, status);
        } else {
            ck_ok(status);
            ck_assert_uint_eq(end, begin);
        }
        Reports reports = verify(store, 0, false);
        ck_assert_int_eq(reports.count, killed.ends[i] <= killed.horizon ? 1 : 0);
        if (reports.count > 0) {
            ck_assert_str_eq(reports.path, path);
            ck_assert_uint_eq(reports.offset, segment_offset(&store->options, begin));
        }
    }
    /* The durable frontier that a later segment's header states counts as well. */
    test_copy_directory(killed.saved, store->wal_directory);
    ck_ok(segment_create(&store->options,
                         &(SegmentHeader){.incarnation = 1,
                                          .first_lsn = killed.first + SEGMENTS * SEGMENT,
                                          .durable = killed.end + 8,
                                          .log_first = killed.first,
                                          .kind = SEGMENT_WRITTEN},
                         true));
    ck_fails(AIDB_CORRUPTION, test_examine(store, 0, &end));
    test_store_remove(store);
}
END_TEST

typedef struct Salvaged {
    uint64_t count;
    uint64_t missing; /* the record that was damaged */
    uint32_t losses;
} Salvaged;

static Status visit_salvaged(void *arg, const WalRecord *record)
{
    Salvaged *salvaged = arg;
    uint64_t number = salvaged->count++;
    ck_assert(slice_equal(record->payload, test_payload(number + (number >= salvaged->missing))));
    return AIDB_OK;
}

static void count_loss(void *arg, const WalLoss *loss)
{
    Salvaged *salvaged = arg;
    ck_assert_uint_gt(loss->to, loss->from);
    salvaged->losses++;
}

/* Of a log with one damaged header repair gets all other records, with the manifest or without; unless that
 * may be where the log ends. */
START_TEST(test_salvage)
{
    Killed killed;
    make_killed(&killed);
    TestStore *store = &killed.store;
    const uint8_t zeros[RECORD_HEADER_SHORT] = {0};
    for (uint64_t i = 0; i < 2 * store->next; i++) {
        bool complete = i % 2 == 0;
        uint64_t begin = i < 2 ? killed.first : killed.ends[i / 2 - 1];
        char path[600];
        test_copy_directory(killed.saved, store->wal_directory);
        segment_file(&killed, begin, path);
        write_file(path, segment_offset(&store->options, begin), zeros, sizeof zeros);
        Salvaged salvaged = {.missing = i / 2};
        WalSalvage in = {.options = &store->options,
                         .starts = store->manifest->starts,
                         .start_count = complete ? 1 : 0,
                         .complete = complete,
                         .visit = visit_salvaged,
                         .report = count_loss,
                         .arg = &salvaged};
        ck_ok(wal_salvage(&in));
        bool ended = begin >= killed.horizon;
        ck_assert_uint_eq(salvaged.count, ended ? i / 2 : store->next - 1);
        /* Without the manifest nobody knows that there was something in front of the first record. */
        uint32_t losses = !ended ? complete || i / 2 > 0 : i / 2 + 1 < store->next;
        ck_assert_uint_eq(salvaged.losses, losses);
        ck_assert_uint_eq(in.records, salvaged.count);
        ck_assert_uint_eq(in.unproven, complete ? 0 : salvaged.count);
    }
    test_store_remove(store);
}
END_TEST

/* ---- flips -------------------------------------------------------------------------------------- */

/* Changes one byte; everything that looks at the log must say what follows. */
static void check_flip(Killed *killed, const char *path, int fd, uint64_t segment, uint64_t offset,
                       uint8_t mask)
{
    TestStore *store = &killed->store;
    uint8_t byte;
    uint64_t end;
    ck_assert_int_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    uint8_t flipped = byte ^ mask;
    ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)offset), 1);
    /* The first LSN that the flip takes away. */
    bool in_header = offset < WAL_SEGMENT_HEADER_SIZE;
    uint64_t lsn = in_header ? segment : segment + offset - WAL_SEGMENT_HEADER_SIZE;
    Status status = test_examine(store, 0, &end);
    if (lsn < killed->horizon) {
        ck_fails(AIDB_CORRUPTION, status);
        Reports reports = verify(store, 0, false);
        ck_assert_int_ge(reports.count, 1);
        /* A record that spans segments is reported where it begins. */
        if (in_header)
            ck_assert_str_eq(reports.path, path);
        else
            ck_assert_uint_le(reports.offset, segment_offset(&store->options, lsn) + SEGMENT);
    } else {
        ck_ok(status);
        ck_assert_uint_eq(end, whole_below(killed, lsn));
        ck_assert_int_eq(verify(store, 0, false).count, in_header ? 1 : 0);
    }
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

/* Every byte of every file with one of three values; or, when there is time, with every bit: never a wrong
 * record, and what was durable never goes unnoticed. */
START_TEST(test_flips)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    Killed killed;
    make_killed_of(&killed, test_damage("bytes") ? LONG : SEGMENTS);
    TestStore *store = &killed.store;
    uint64_t count = 0;
    for (uint64_t segment = killed.first; segment < killed.first + killed.segments * SEGMENT;
         segment += SEGMENT) {
        char path[600];
        segment_file(&killed, segment, path);
        int fd = open(path, O_RDWR);
        ck_assert_int_ge(fd, 0);
        for (uint64_t offset = 0; offset < WAL_SEGMENT_HEADER_SIZE + SEGMENT; offset++) {
            if (offset > 200 && offset < WAL_SEGMENT_HEADER_SIZE - 8 && offset % 61 != 0)
                continue; /* a sample of the zeros in the header */
            for (int bit = 0; test_damage("full") && bit < 8; bit++, count++)
                check_flip(&killed, path, fd, segment, offset, (uint8_t)(1u << bit));
            check_flip(&killed, path, fd, segment, offset, masks[offset % 3]);
            count++;
        }
        close(fd);
    }
    uint64_t end;
    ck_ok(test_examine(store, 0, &end));
    ck_assert_uint_eq(end, killed.end);
    ck_assert_int_eq(verify(store, 0, false).count, 0);
    printf("log changed at %llu places, all detected\n", (unsigned long long)count);
    test_store_remove(store);
}
END_TEST

START_TEST(test_ring_flips)
{
    for (int stopped = 0; stopped <= 1; stopped++) {
        TestStore store;
        test_store_make(&store, SEGMENT, RING);
        for (int i = 0; i < 3; i++) { /* both header slots are in use */
            ck_ok(test_store_open(&store));
            test_append_many(&store, 20);
            if (stopped)
                test_store_stop(&store);
            else
                test_store_crash(&store);
        }
        uint64_t expected;
        ck_ok(test_examine(&store, 0, &expected));
        char path[600];
        ring_path(&store, path);
        int fd = open(path, O_RDWR);
        int refused = 0;
        for (uint64_t offset = 0; offset < 4096; offset++) {
            uint8_t byte;
            uint64_t end;
            ck_assert_int_eq(pread(fd, &byte, 1, (off_t)offset), 1);
            uint8_t flipped = byte ^ 0x10;
            ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)offset), 1);
            Status status = test_examine(&store, 0, &end);
            if (status == AIDB_OK)
                ck_assert_uint_eq(end, expected);
            else
                ck_fails(AIDB_CORRUPTION, status);
            refused += status != AIDB_OK;
            ck_assert_int_ge(verify(&store, 0, false).count, 1);
            ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
        }
        ck_assert(stopped || refused == 2048); /* the slot before is of an older incarnation */
        ck_assert_int_eq(verify(&store, 0, false).count, 0);
        /* A damaged record in the ring ends the log there. */
        if (!stopped) {
            uint64_t last = store.manifest->starts[store.manifest->count - 1].first_lsn;
            uint8_t byte = 0xaa;
            uint64_t end;
            ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)(4096 + (last + 8) % RING)), 1);
            ck_ok(test_examine(&store, 0, &end));
            ck_assert_uint_eq(end, last);
        }
        close(fd);
        test_store_remove(&store);
    }
}
END_TEST

/* ---- things that do not belong ------------------------------------------------------------------ */

START_TEST(test_ring_missing_or_old)
{
    TestStore store;
    char path[600];
    char saved[600];
    uint64_t end;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    ring_path(&store, path);
    snprintf(saved, sizeof saved, "%s/ring.saved", store.directory);
    test_append_many(&store, 20);
    test_store_crash(&store);
    char copies[320];
    snprintf(copies, sizeof copies, "%s/old", store.directory);
    test_copy_directory(store.wal_directory, copies);
    ck_ok(test_store_open(&store));
    test_append_many(&store, 20);
    test_store_crash(&store);
    ck_ok(test_examine(&store, 0, &end));
    /* missing */
    ck_assert_int_eq(rename(path, saved), 0);
    ck_fails(AIDB_CORRUPTION, test_store_open(&store));
    ck_assert_int_ge(verify(&store, 0, false).count, 1);
    /* of an older incarnation */
    char old[600];
    snprintf(old, sizeof old, "%s/ring", copies);
    ck_assert_int_eq(rename(old, path), 0);
    ck_fails(AIDB_CORRUPTION, test_examine(&store, 0, &end));
    ck_assert_int_ge(verify(&store, 0, false).count, 1);
    /* too short */
    ck_assert_int_eq(rename(saved, path), 0);
    ck_ok(test_examine(&store, 0, &end));
    ck_assert_int_eq(truncate(path, 4096 + RING - 1), 0);
    ck_fails(AIDB_CORRUPTION, test_examine(&store, 0, &end));
    ck_assert_int_ge(verify(&store, 0, false).count, 1);
    test_store_remove(&store);
}
END_TEST

START_TEST(test_misplaced_segments)
{
    Killed killed;
    make_killed(&killed);
    TestStore *store = &killed.store;
    char one[600];
    char two[600];
    char aside[600];
    uint64_t end;
    /* Two segments change places. */
    segment_file(&killed, killed.first, one);
    segment_file(&killed, killed.first + SEGMENT, two);
    snprintf(aside, sizeof aside, "%s/aside", store->directory);
    ck_assert_int_eq(rename(one, aside) | rename(two, one) | rename(aside, two), 0);
    ck_fails(AIDB_CORRUPTION, test_examine(store, 0, &end));
    ck_assert_int_ge(verify(store, 0, false).count, 1);
    /* One is missing. */
    test_copy_directory(killed.saved, store->wal_directory);
    unlink(two);
    ck_fails(AIDB_CORRUPTION, test_examine(store, killed.first + 2 * SEGMENT, &end));
    /* The bytes of one under the header of the other. */
    test_copy_directory(killed.saved, store->wal_directory);
    uint8_t bytes[SEGMENT];
    int fd = open(one, O_RDONLY);
    ck_assert_int_eq(pread(fd, bytes, SEGMENT, WAL_SEGMENT_HEADER_SIZE), SEGMENT);
    close(fd);
    write_file(two, WAL_SEGMENT_HEADER_SIZE, bytes, SEGMENT);
    ck_fails(AIDB_CORRUPTION, test_examine(store, killed.first + 2 * SEGMENT, &end));
    /* Another database, another segment size. */
    test_copy_directory(killed.saved, store->wal_directory);
    TestStore other = *store;
    other.options.system_id[3] ^= 1;
    ck_fails(AIDB_CORRUPTION, test_examine(&other, 0, &end));
    other = *store;
    other.options.segment_size *= 2;
    ck_fails(AIDB_CORRUPTION, test_examine(&other, 0, &end));
    /* A list of logs that contradicts itself, or begins too late. */
    WalStart *start = &store->manifest->starts[0];
    start->first_lsn += 8;
    ck_fails(AIDB_CORRUPTION, test_examine(store, 0, &end));
    start->first_lsn -= 8;
    start->previous_end = start->first_lsn;
    ck_fails(AIDB_CORRUPTION, test_examine(store, 0, &end));
    test_store_remove(store);
}
END_TEST

/* Bytes below `from` are not read, but a log that does not reach `from` is not this database's. */
START_TEST(test_log_shorter_than_tables)
{
    Killed killed;
    make_killed(&killed);
    TestStore *store = &killed.store;
    uint64_t end;
    char path[600];
    uint64_t from = store->manifest->from = killed.ends[store->next - 1];
    ck_assert_uint_eq(from, killed.end);
    ck_assert_uint_ne(from % SEGMENT, 0);
    ck_ok(test_examine(store, 0, &end));
    ck_assert_uint_eq(end, from);
    segment_file(&killed, from, path);
    ck_assert_int_eq(truncate(path, (off_t)segment_offset(&store->options, from)), 0);
    ck_ok(test_examine(store, 0, &end));
    ck_assert_int_eq(truncate(path, (off_t)segment_offset(&store->options, from) - 1), 0);
    ck_fails(AIDB_CORRUPTION, test_examine(store, 0, &end));
    ck_assert_int_eq(unlink(path), 0);
    ck_fails(AIDB_CORRUPTION, test_examine(store, 0, &end));
    /* A log that was stopped before. */
    TestStore stopped;
    test_store_make(&stopped, SEGMENT, RING);
    ck_ok(test_store_open(&stopped));
    test_append_many(&stopped, 3);
    uint64_t last = wal_copied(stopped.wal);
    test_store_stop(&stopped);
    stopped.manifest->from = last + 8;
    ck_fails(AIDB_CORRUPTION, test_store_open(&stopped));
    stopped.manifest->from = last;
    ck_ok(test_store_open(&stopped));
    test_store_remove(&stopped);
    test_store_remove(store);
}
END_TEST

/* Two lives of one directory: same incarnation number, same LSNs, other nonce. */
START_TEST(test_other_nonce)
{
    Killed killed;
    make_killed(&killed);
    uint64_t end;
    ck_ok(test_examine(&killed.store, 0, &end));
    ck_assert_uint_eq(end, killed.end);
    killed.store.manifest->starts[0].nonce ^= 1;
    ck_ok(test_examine(&killed.store, 0, &end));
    ck_assert_uint_eq(end, killed.first);
    ck_fails(AIDB_CORRUPTION, test_examine(&killed.store, killed.first + 8, &end));
    test_store_remove(&killed.store);
}
END_TEST

/* A client writes a value that is a record for the place where it will stand, but it cannot know the nonce. */
START_TEST(test_crafted_value)
{
    TestStore store;
    uint64_t end;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    uint8_t value[400] = {0};
    uint64_t lsn[2];
    for (int full = 1; full >= 0; full--) { /* the second record in its block has a short header */
        lsn[full] = wal_copied(store.wal) + record_header_size(full);
        uint64_t hash = wal_payload_hash(slice_make(value + record_header_size(full), 100));
        RecordHeader header = {
            .lsn = lsn[full],
            .payload_size = 100,
            .full = full,
            .payload_hash = record_payload_hash(hash, lsn[full]),
        };
        record_encode(value, &header, record_seed(store.options.system_id, 1, 0));
        Slice payload = slice_make(value, sizeof value);
        ck_assert_uint_eq(wal_append(store.wal, payload, wal_payload_hash(payload)), lsn[full]);
    }
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    test_store_crash(&store);
    /* Were the reader misled into the value, it would find nothing there. */
    for (int full = 0; full <= 1; full++) {
        store.manifest->from = lsn[full];
        ck_ok(test_examine(&store, 0, &end));
        ck_assert_uint_eq(end, lsn[full]);
    }
    test_store_remove(&store);
}
END_TEST

/* An older copy of a segment is put back: the same place, fewer records. */
START_TEST(test_older_segment)
{
    TestStore store;
    uint64_t end;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    uint64_t first = wal_copied(store.wal);
    test_append_many(&store, 5);
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    char old[320];
    snprintf(old, sizeof old, "%s/old", store.directory);
    test_copy_directory(store.wal_directory, old);
    test_append_many(&store, 60);
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    test_append_many(&store, 60);
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    test_store_crash(&store);
    empty_ring(&store);
    char name[WAL_NAME_SIZE];
    char from[600];
    char to[600];
    segment_name(name, first, 1);
    snprintf(from, sizeof from, "%s/%s", old, name);
    snprintf(to, sizeof to, "%s/%s", store.wal_directory, name);
    ck_assert_int_eq(rename(from, to), 0);
    ck_fails(AIDB_CORRUPTION, test_examine(&store, 0, &end));
    test_store_remove(&store);
}
END_TEST

/* ---- verification of a running log -------------------------------------------------------------- */

START_TEST(test_verify_online)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    for (int life = 0; life < 3; life++) {
        ck_ok(test_store_open(&store));
        for (int i = 0; i < 20; i++) {
            test_append_many(&store, 20);
            ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
            ck_assert_int_eq(verify(&store, wal_durable(store.wal), true).count, 0);
        }
        if (life < 2)
            test_store_crash(&store);
    }
    /* Segments that were recycled since the caller looked are no damage. */
    uint64_t from = store.manifest->from = store.last.next.first_lsn;
    wal_release(store.wal, store.slot, wal_durable(store.wal));
    ck_ok(segments_prepare(store.wal, store.slot, wal_copied(store.wal) + 3 * SEGMENT));
    ck_assert_uint_gt(atomic_load(&store.shared->oldest), from);
    ck_assert_int_eq(verify(&store, wal_durable(store.wal), true).count, 0);
    /* Damage in what is still there is found. */
    uint64_t lsn = wal_durable(store.wal) - 20;
    char *path =
        segment_path(&store.options, segment_start(&store.options, lsn), store.shared->incarnation);
    uint8_t byte = 0x5a;
    write_file(path, segment_offset(&store.options, lsn), &byte, 1);
    ck_assert_int_eq(verify(&store, wal_durable(store.wal), true).count, 1);
    free(path);
    test_store_remove(&store);
}
END_TEST

/* ---- anything ----------------------------------------------------------------------------------- */

static void mutate_file(const char *path, uint64_t *seed)
{
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    uint64_t size = (uint64_t)info.st_size;
    if (size == 0)
        return;
    uint64_t offset = test_random(seed) % size;
    if (test_random(seed) % 2 == 0)
        offset %= 160; /* where headers are */
    uint8_t noise[64];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)test_random(seed);
    switch (test_random(seed) % 4) {
    case 0:
        ck_assert_int_eq(truncate(path, (off_t)offset), 0);
        break;
    case 1:
        memset(noise, 0, sizeof noise);
        /* fall through */
    default:
        write_file(path, offset, noise, 1 + test_random(seed) % sizeof noise);
    }
}

/* Random damage anywhere: an answer, never a crash, and only true records. */
START_TEST(test_random_damage)
{
    uint64_t seed = test_seed("test_random_damage");
    Killed killed;
    make_killed(&killed);
    TestStore *store = &killed.store;
    TestManifest before = *store->manifest;
    int opened = 0;
    for (int round = 0; round < 600; round++) {
        *store->manifest = before;
        test_copy_directory(killed.saved, store->wal_directory);
        for (uint64_t i = 1 + test_random(&seed) % 3; i > 0; i--) {
            char path[600];
            if (test_random(&seed) % 6 == 0)
                ring_path(store, path);
            else
                segment_file(&killed, killed.first + test_random(&seed) % SEGMENTS * SEGMENT, path);
            mutate_file(path, &seed);
        }
        verify(store, killed.horizon, test_random(&seed) % 2 == 0);
        store->manifest->horizon = killed.horizon;
        Status status = test_store_open(store);
        if (status == AIDB_OK) {
            test_read_all(store);
            ck_assert_uint_ge(store->last.end, killed.horizon);
            opened++;
            test_store_crash(store);
        } else {
            ck_fails(AIDB_CORRUPTION, status);
        }
    }
    ck_assert_int_gt(opened, 30);
    ck_assert_int_lt(opened, 570);
    test_store_remove(store);
}
END_TEST

/* A valid header with any length: sizes are checked before they are believed. */
START_TEST(test_hostile_lengths)
{
    static const uint32_t lengths[] = {
        0, 1, SEGMENT, RING, 1u << 20, WAL_PAYLOAD_MAX, WAL_PAYLOAD_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (int in_ring = 0; in_ring <= 1; in_ring++) {
            Killed killed;
            make_killed(&killed);
            TestStore *store = &killed.store;
            const WalStart *start = &store->manifest->starts[0];
            uint8_t bytes[RECORD_HEADER_FULL] = {0};
            RecordHeader header = {.lsn = killed.end,
                                   .payload_size =
                                       lengths[i] & INT32_MAX, /* the bit above says `full` */
                                   .full = lengths[i] > INT32_MAX || lengths[i] % 2 == 1,
                                   .payload_hash = 1};
            record_encode(bytes, &header,
                          record_seed(store->options.system_id, start->incarnation, start->nonce));
            char path[600];
            if (in_ring) {
                ring_path(store, path);
                write_file(path, 4096 + killed.end % RING, bytes, sizeof bytes);
            } else {
                segment_file(&killed, killed.end, path);
                write_file(path, segment_offset(&store->options, killed.end), bytes, sizeof bytes);
            }
            uint64_t end;
            ck_ok(test_examine(store, 0, &end));
            ck_assert_uint_eq(end, killed.end);
            test_store_remove(store);
        }
}
END_TEST

TCase *damage_cases(void)
{
    TCase *tests = tcase_create("damage");
    tcase_set_timeout(tests, 3600); /* only against hanging */
    tcase_add_test(tests, test_truncation);
    tcase_add_test(tests, test_horizon_of_records);
    tcase_add_test(tests, test_salvage);
    tcase_add_test(tests, test_flips);
    tcase_add_test(tests, test_ring_flips);
    tcase_add_test(tests, test_ring_missing_or_old);
    tcase_add_test(tests, test_misplaced_segments);
    tcase_add_test(tests, test_log_shorter_than_tables);
    tcase_add_test(tests, test_other_nonce);
    tcase_add_test(tests, test_crafted_value);
    tcase_add_test(tests, test_older_segment);
    tcase_add_test(tests, test_verify_online);
    tcase_add_test(tests, test_random_damage);
    tcase_add_test(tests, test_hostile_lengths);
    return tests;
}
