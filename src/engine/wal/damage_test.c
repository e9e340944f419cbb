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
#define SEGMENTS    5u /* of a log */

/* A killed log with an empty ring: records up to `horizon` are known durable, those from there to `end` stand
 * in segments, but nothing says that they are durable. */
typedef struct Killed {
    TestStore store;
    uint64_t ends[RECORDS_MAX]; /* of each record */
    uint64_t first;             /* LSN of the first */
    uint64_t horizon;
    uint64_t end;
    uint64_t limit; /* of the last segment */
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

static void make_killed_of(Killed *killed, uint64_t segments, uint64_t segment_size)
{
    TestStore *store = &killed->store;
    memset(killed, 0, sizeof *killed);
    test_store_make(store, segment_size, RING);
    ck_ok(test_store_open(store));
    killed->first = wal_copied(store->wal);
    killed->limit = killed->first + segments * segment_size;
    /* All segments first, so that their headers state no durable LSN. */
    ck_ok(segments_prepare(store->wal, store->slot, killed->limit));
    /* What stands behind has to fit into the ring, or it would be synced to make room, and say so. */
    append_up_to(killed, killed->limit - RING + 4096);
    ck_ok(wal_sync(store->wal, store->slot, wal_copied(store->wal)));
    killed->horizon = wal_durable(store->wal);
    append_noting(killed, 1); /* from here on the records state the horizon */
    append_up_to(killed, killed->limit - 2048);
    ck_ok(wal_sync(store->wal, store->slot, wal_copied(store->wal)));
    killed->end = wal_durable(store->wal);
    ck_assert_uint_lt(killed->end, killed->limit);
    test_store_crash(store);
    empty_ring(store);
    snprintf(killed->saved, sizeof killed->saved, "%s/saved", store->directory);
    test_copy_directory(store->wal_directory, killed->saved);
}

static void make_killed(Killed *killed)
{
    make_killed_of(killed, SEGMENTS, SEGMENT);
}

/* Asked for each byte: a log of 64 KiB, in few files, since each look at it opens them all. */
static void make_killed_to_damage(Killed *killed)
{
    if (test_damage("each"))
        make_killed_of(killed, 8, 8192);
    else
        make_killed(killed);
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
    test_expect(what != NULL, "a report without a reason");
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

/* What a look at the damaged log must come to: below the horizon the damage's place, else the end. */
static void expect_outcome(const Killed *killed, Status status, uint64_t lsn, const char *path,
                           uint64_t offset, uint64_t end)
{
    if (lsn < killed->horizon) {
        char place[640];
        snprintf(place, sizeof place, "file \"%s\": offset %llu: ", path,
                 (unsigned long long)offset);
        ck_fails(AIDB_CORRUPTION, status);
        test_expect(strncmp(status_message(), place, strlen(place)) == 0, "%s, not %s",
                    status_message(), place);
    } else {
        ck_ok(status);
        test_expect(end == whole_below(killed, lsn), "LSN %llu is damaged, the log ends at %llu",
                    (unsigned long long)lsn, (unsigned long long)end);
    }
}

/* ---- truncation --------------------------------------------------------------------------------- */

/* A directory whose segments are the same files: a recovery removes them, and never changes them. */
static void link_directory(const TestStore *store, const char *to)
{
    Catalog catalog;
    char from_path[600], to_path[600];
    static uint8_t ring[4096 + RING];
    test_remove_directory(to);
    test_expect(mkdir(to, 0700) == 0, "could not make a directory");
    ck_ok(catalog_load(&store->options, &catalog));
    for (size_t i = 0; i < catalog.count; i++) {
        char name[WAL_NAME_SIZE];
        segment_name(name, catalog.files[i].first_lsn, catalog.files[i].incarnation);
        snprintf(from_path, sizeof from_path, "%s/%s", store->wal_directory, name);
        snprintf(to_path, sizeof to_path, "%s/%s", to, name);
        test_expect(link(from_path, to_path) == 0, "could not link a segment");
    }
    catalog_deinit(&catalog);
    ring_path(store, from_path);
    snprintf(to_path, sizeof to_path, "%s/ring", to);
    int from = open(from_path, O_RDONLY);
    int fd = open(to_path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    test_expect(read(from, ring, sizeof ring) == (ssize_t)sizeof ring &&
                    write(fd, ring, sizeof ring) == (ssize_t)sizeof ring,
                "could not copy the ring");
    close(from);
    close(fd);
}

/* Opens what is left by a whole recovery and reads it. A refusal changes nothing, so it may have the log
 * itself. */
static void check_open(Killed *killed, uint64_t cut, const char *path, uint64_t offset)
{
    TestStore *store = &killed->store;
    TestManifest before = *store->manifest;
    TestStore copy = *store;
    char work[320];
    if (cut >= killed->horizon) {
        snprintf(work, sizeof work, "%s/cut", store->directory);
        link_directory(store, work);
        copy.options.directory = work;
    }
    copy.manifest->horizon = killed->horizon;
    Status status = test_store_open(&copy);
    expect_outcome(killed, status, cut, path, offset, copy.last.end);
    if (status == AIDB_OK) {
        test_read_all(&copy);
        test_expect((copy.next == 0 ? killed->first : killed->ends[copy.next - 1]) == copy.last.end,
                    "%llu records are read", (unsigned long long)copy.next);
        test_store_crash(&copy);
    }
    *store->manifest = before;
}

static void check_cut(Killed *killed, uint64_t cut, const char *path, uint64_t size, bool open)
{
    uint64_t end;
    /* Of a file without a whole header nothing is known; the rest is missing from where it ends. */
    uint64_t offset = size < WAL_SEGMENT_HEADER_SIZE ? 0 : size;
    test_expect(truncate(path, (off_t)size) == 0, "could not cut a segment");
    Status status = test_examine(&killed->store, killed->horizon, &end);
    expect_outcome(killed, status, cut, path, offset, end);
    if (open) {
        check_open(killed, cut, path, offset);
        Reports reports = verify(&killed->store, killed->horizon, false);
        test_expect(reports.count >= 1 && strcmp(reports.path, path) == 0 &&
                        reports.offset == offset,
                    "\"%s\" cut at %llu: %d reports, the first of \"%s\", offset %llu", path,
                    (unsigned long long)offset, reports.count, reports.path,
                    (unsigned long long)reports.offset);
    }
}

/* Cuts the log at every LSN from its end down, and the files' headers. */
START_TEST(test_truncation)
{
    bool each = test_damage("each");
    uint64_t cuts = 0, opened = 0;
    Killed killed;
    make_killed_to_damage(&killed);
    TestStore *store = &killed.store;
    for (uint64_t cut = killed.limit; cut-- > killed.first;) {
        char path[600];
        segment_file(&killed, cut, path);
        uint64_t size = segment_offset(&store->options, cut);
        check_cut(&killed, cut, path, size, each || cut % 64 == 5);
        cuts++;
        opened += cut >= killed.horizon;
        if (size == WAL_SEGMENT_HEADER_SIZE) {
            while (size-- > 0)
                if (each || size % 61 == 0)
                    check_cut(&killed, cut, path, size, false);
            unlink(path);
        }
    }
    printf("log cut at each of its last %llu bytes: %llu refused, %llu opened, all right\n",
           (unsigned long long)cuts, (unsigned long long)(cuts - opened),
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

/* Changes one byte; a start, and with `verified` verification, must say what follows. */
static void check_flip(const Killed *killed, const char *path, int fd, uint64_t segment,
                       uint64_t offset, uint8_t mask, bool verified)
{
    const TestStore *store = &killed->store;
    uint8_t byte;
    uint64_t end;
    test_expect(pread(fd, &byte, 1, (off_t)offset) == 1, "could not read a byte");
    uint8_t flipped = byte ^ mask;
    test_expect(pwrite(fd, &flipped, 1, (off_t)offset) == 1, "could not change a byte");
    /* The first LSN that the flip takes away, and where that is told. */
    bool in_header = offset < WAL_SEGMENT_HEADER_SIZE;
    uint64_t lsn = segment;
    char named[600];
    uint64_t place = 0;
    if (in_header) {
        snprintf(named, sizeof named, "%s", path);
    } else {
        lsn += offset - WAL_SEGMENT_HEADER_SIZE;
        uint64_t begin = whole_below(killed, lsn);
        segment_file(killed, begin, named);
        place = segment_offset(&store->options, begin);
    }
    Status status = test_examine(store, 0, &end);
    expect_outcome(killed, status, lsn, named, place, end);
    Reports reports = {0};
    if (verified)
        reports = verify(store, 0, false);
    bool expected = verified && (in_header || lsn < killed->horizon);
    test_expect(
        expected ? reports.count >= 1 && strcmp(reports.path, named) == 0 && reports.offset == place
                 : reports.count == 0,
        "\"%s\": offset %llu: %d reports, the first of \"%s\", offset %llu", named,
        (unsigned long long)place, reports.count, reports.path, (unsigned long long)reports.offset);
    test_expect(pwrite(fd, &byte, 1, (off_t)offset) == 1, "could not mend a byte");
}

/* Every byte of every file with one of three values; or, when there is time, every bit, one of each byte also for
 * verification: never a wrong record, and what was durable never goes unnoticed. Of headers in the middle, most of
 * the zeros are passed over. */
START_TEST(test_flips)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    bool each = test_damage("each");
    Killed killed;
    make_killed_to_damage(&killed);
    TestStore *store = &killed.store;
    uint64_t segment_size = store->options.segment_size;
    uint64_t count = 0;
    for (uint64_t segment = killed.first; segment < killed.limit; segment += segment_size) {
        char path[600];
        segment_file(&killed, segment, path);
        int fd = open(path, O_RDWR);
        ck_assert_int_ge(fd, 0);
        bool whole = each && (segment == killed.first || segment + segment_size == killed.limit);
        for (uint64_t offset = 0; offset < WAL_SEGMENT_HEADER_SIZE + segment_size; offset++) {
            if (!whole && offset > 200 && offset < WAL_SEGMENT_HEADER_SIZE - 8 && offset % 61 != 0)
                continue;
            for (unsigned bit = 0; each && bit < 8; bit++, count++)
                check_flip(&killed, path, fd, segment, offset, (uint8_t)(1u << bit),
                           bit == offset % 8);
            if (!each) {
                check_flip(&killed, path, fd, segment, offset, masks[offset % 3], true);
                count++;
            }
        }
        close(fd);
    }
    uint64_t end;
    ck_ok(test_examine(store, 0, &end));
    ck_assert_uint_eq(end, killed.end);
    ck_assert_int_eq(verify(store, 0, false).count, 0);
    printf("log changed %llu times, all detected\n", (unsigned long long)count);
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
