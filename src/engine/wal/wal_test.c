/* wal_test.c - the log as its users see it: appending, syncing, reopening, recycling, many writers. */
#include "config.h"

#include "engine/wal/test_store.h"

#include "common/coding.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT (16u << 10)
#define RING    (8u << 10)

START_TEST(test_new_log)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    ck_assert_uint_eq(store.last.end, 0);
    ck_assert_uint_eq(store.last.next.first_lsn, SEGMENT);
    ck_assert_uint_eq(wal_copied(store.wal), SEGMENT);
    ck_assert_uint_eq(wal_durable(store.wal), SEGMENT);
    ck_ok(wal_sync(store.wal, store.slot, 0));
    ck_ok(wal_sync(store.wal, store.slot, SEGMENT));
    ck_fails(AIDB_INVALID, wal_sync(store.wal, store.slot, SEGMENT + 1));
    WalRecovery again = store.last;
    ck_fails(AIDB_INVALID, wal_recover(store.wal, store.slot, &again));
    ck_ok(wal_create(
        &(WalOptions){.directory = store.directory, .segment_size = SEGMENT, .ring_size = RING}));
    ck_fails(AIDB_EXISTS, wal_create(&store.options));
    test_store_remove(&store);
}
END_TEST

START_TEST(test_options)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    WalOptions options = store.options;
    Wal *wal;
    options.segment_size = SEGMENT + 4096;
    ck_fails(AIDB_INVALID, wal_open(&options, store.shared, &wal));
    options.segment_size = 2048;
    ck_fails(AIDB_INVALID, wal_open(&options, store.shared, &wal));
    options.segment_size = SEGMENT;
    options.ring_size = 5000;
    ck_fails(AIDB_INVALID, wal_create(&options));
    options.ring_size = 4096;
    ck_fails(AIDB_INVALID, wal_create(&options));
    options.ring_size = RING * 2;
    ck_fails(AIDB_CORRUPTION, wal_open(&options, store.shared, &wal));
    ck_assert_ptr_null(wal);
    test_store_remove(&store);
}
END_TEST

/* The bytes on disk: a change here is a change of the format version. */
START_TEST(test_golden)
{
    WalOptions options = {
        .system_id = "0123456789abcde", .segment_size = 65536, .ring_size = 65536};
    uint8_t block[WAL_SEGMENT_HEADER_SIZE];
    char hex[2 * 96 + 1];
    static const char *const headers[] = {"16c081ff21c04503cdafafa703000000",
                                          "b1207e9359a74503cdafafa7030000800000010000000000"
                                          "e8fd00000000000000401e18240a0600"};
    for (int full = 0; full <= 1; full++) {
        RecordHeader header = {
            .lsn = 65536,
            .payload_size = 3,
            .full = full,
            .payload_hash = record_payload_hash(wal_payload_hash(slice_from_string("abc")), 65536),
            .durable = full ? 65000 : 0,
            .time_us = full ? UINT64_C(1700000000000000) : 0,
        };
        uint64_t seed = record_seed(options.system_id, 7, UINT64_C(0x1122334455667788));
        size_t size = record_header_size(full);
        record_encode(block, &header, seed);
        for (size_t i = 0; i < size; i++)
            snprintf(hex + 2 * i, 3, "%02x", block[i]);
        ck_assert_str_eq(hex, headers[full]);
        RecordHeader again;
        ck_assert(record_decode(block, size, 65536, seed, &again));
        ck_assert_uint_eq(again.lsn, 65536);
        ck_assert_uint_eq(again.payload_size, 3);
        ck_assert_int_eq(again.full, full);
        ck_assert_uint_eq(again.payload_hash, header.payload_hash);
        ck_assert_uint_eq(again.durable, header.durable);
        ck_assert_uint_eq(again.time_us, header.time_us);
        ck_assert(!record_decode(block, size - 1, 65536, seed, &again));
        ck_assert(!record_decode(block, size, 65544, seed, &again));
        ck_assert(!record_decode(block, size, 65536, seed + 1, &again));
        for (size_t bit = 0; bit < 8 * size; bit++) {
            block[bit / 8] ^= (uint8_t)(1u << bit % 8);
            ck_assert(!record_decode(block, sizeof block, 65536, seed, &again));
            block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    SegmentHeader segment = {
        .incarnation = 7,
        .first_lsn = 65536,
        .durable = 65000,
        .log_first = 65536,
        .previous_end = 64000,
        .kind = SEGMENT_COPIED,
    };
    segment_header_encode(block, &options, &segment);
    for (size_t i = 0; i < 96; i++)
        snprintf(hex + 2 * i, 3, "%02x", block[i]);
    ck_assert_str_eq(hex, "414944425753454702000000070000003031323334353637"
                          "383961626364650000000100000000000000010000000000"
                          "e8fd000000000000000001000000000000fa000000000000"
                          "0200000000000000114754b6de118de00000000000000000");
    SegmentHeader read;
    ck_assert_int_eq(segment_header_decode(block, &options, 65536, 7, &read), HEADER_VALID);
    uint8_t second[WAL_SEGMENT_HEADER_SIZE];
    segment_header_encode(second, &options, &read);
    ck_assert_mem_eq(second, block, sizeof block);
    ck_assert_int_eq(segment_header_decode(block, &options, 65536, 8, &read), HEADER_UNFINISHED);
    options.system_id[0] ^= 1;
    ck_assert_int_eq(segment_header_decode(block, &options, 65536, 7, &read), HEADER_DAMAGED);
}
END_TEST

/* What was copied is found after a crash of all processes, synced or not. */
START_TEST(test_crash_and_stop)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    uint64_t written = 0;
    for (int round = 0; round < 24; round++) {
        ck_ok(test_store_open(&store));
        ck_assert_uint_eq(test_read_all(&store), written);
        uint64_t end = store.last.end;
        uint64_t first = store.last.next.first_lsn;
        ck_assert_uint_eq(first % SEGMENT, 0);
        if (store.last.clean) {
            ck_assert_uint_ge(first, end);
            ck_assert_uint_lt(first, end + SEGMENT);
        } else if (round > 0) {
            ck_assert_uint_gt(first, end + RING);
            ck_assert_uint_le(first, end + RING + SEGMENT);
        }
        ck_assert_int_eq(store.last.clean, round > 0 && round % 3 == 0);
        test_append_many(&store, round * 13 % 100);
        if (round % 2 == 0)
            ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
        test_append_many(&store, round % 5);
        written = store.next;
        if (round % 3 == 2)
            test_store_stop(&store);
        else
            test_store_crash(&store);
    }
    test_store_remove(&store);
}
END_TEST

/* What a clean stop gives back is there again before the ring is used, and nothing of the log is lost. */
START_TEST(test_stop_gives_room_back)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    for (int round = 1; round <= 3; round++) {
        ck_ok(test_store_open(&store));
        ck_assert(!file_is_sparse(&store.wal->ring.file));
        test_append_many(&store, 3);
        ck_ok(wal_stop(store.wal, store.slot));
        test_store_crash(&store);
        ck_ok(test_store_open(&store));
        ck_assert(store.last.clean);
        ck_assert(!file_is_sparse(&store.wal->ring.file));
        ck_assert_uint_eq(test_read_all(&store), 3 * (uint64_t)round);
        test_store_crash(&store);
    }
    test_store_remove(&store);
}
END_TEST

/* Of the last segment a clean stop leaves what tables do not hold, and its header. */
START_TEST(test_stop_gives_released_room_back)
{
    const uint64_t segment = 1u << 20;
    for (int whole = 0; whole <= 1; whole++) {
        TestStore store;
        test_store_make(&store, segment, RING);
        ck_ok(test_store_open(&store));
        uint8_t bytes[1000] = {1};
        Slice payload = slice_make(bytes, sizeof bytes);
        uint64_t kept = whole ? 0 : 5, from = 0;
        for (uint64_t i = 0; i < 600; i++) {
            ck_ok(wal_make_room(store.wal, store.slot, payload.size));
            wal_append(store.wal, payload, wal_payload_hash(payload));
            if (i + kept + 1 == 600)
                from = wal_copied(store.wal);
        }
        ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
        uint64_t end = wal_copied(store.wal);
        store.manifest->from = from;
        wal_release(store.wal, store.slot, from);
        ck_ok(wal_stop(store.wal, store.slot));
        char *path = segment_path(&store.options, segment_start(&store.options, end),
                                  store.wal->shared->incarnation);
        struct stat info;
        ck_assert_int_eq(stat(path, &info), 0);
        ck_assert_uint_eq((uint64_t)info.st_size, WAL_SEGMENT_HEADER_SIZE + segment);
        if (file_is_sparse(&store.wal->ring.file)) /* the file system takes room back */
            ck_assert_uint_le((uint64_t)info.st_blocks * 512, 10 * 4096);
        free(path);
        test_store_crash(&store);
        ck_ok(test_store_open(&store));
        ck_assert(store.last.clean);
        WalReader *reader;
        WalRecord record;
        ck_ok(wal_reader_create(&store.options, store.manifest->starts, store.manifest->count, from,
                                store.last.end, &reader));
        for (uint64_t i = 0; i < kept; i++) {
            ck_ok(wal_reader_next(reader, &record));
            ck_assert(slice_equal(record.payload, payload));
        }
        ck_fails(AIDB_NOT_FOUND, wal_reader_next(reader, &record));
        wal_reader_destroy(reader);
        test_store_remove(&store);
    }
}
END_TEST

START_TEST(test_stopped_log_refuses)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    test_append_many(&store, 3);
    ck_ok(wal_stop(store.wal, store.slot));
    ck_assert(!wal_has_room(store.wal, 1));
    ck_fails(AIDB_CLOSED, wal_make_room(store.wal, store.slot, 1));
    ck_fails(AIDB_CLOSED, wal_stop(store.wal, store.slot));
    int wait_ms;
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    test_store_crash(&store);
    ck_ok(test_store_open(&store));
    ck_assert(store.last.clean);
    ck_assert_uint_eq(test_read_all(&store), 3);
    test_store_remove(&store);
}
END_TEST

/* Room: the ring is only reused behind durable, segments are prepared on demand. */
START_TEST(test_room)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    size_t max = wal_ring_payload_max(store.wal);
    ck_assert_uint_eq(max, RING / 4 - RECORD_HEADER_FULL);
    uint8_t *bytes = calloc(1, max);
    Slice payload = slice_make(bytes, max), nothing = slice_make(NULL, 0);
    uint64_t hash = wal_payload_hash(payload), hash_of_nothing = wal_payload_hash(nothing);
    int count = 0;
    for (; wal_has_room(store.wal, max); count++)
        wal_append(store.wal, payload, hash);
    ck_assert_int_eq(count, 4);
    while (wal_has_room(store.wal, 0))
        wal_append(store.wal, nothing, hash_of_nothing);
    uint64_t first = store.last.next.first_lsn;
    ck_assert_uint_le(wal_copied(store.wal), first + RING);
    ck_assert_uint_gt(wal_copied(store.wal), first + RING - RECORD_HEADER_FULL);
    ck_assert_uint_eq(wal_durable(store.wal), first);
    ck_ok(wal_make_room(store.wal, store.slot, max));
    ck_assert_uint_eq(wal_durable(store.wal), wal_copied(store.wal));
    for (count = 0; wal_has_room(store.wal, max); count++)
        wal_append(store.wal, payload, hash);
    ck_assert_int_ge(count, 2);
    ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    while (wal_has_room(store.wal, 0)) {
        wal_append(store.wal, nothing, hash_of_nothing);
        ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
    }
    /* There is no segment. */
    ck_assert_uint_le(wal_copied(store.wal), first + SEGMENT);
    ck_assert_uint_gt(wal_copied(store.wal), first + SEGMENT - RECORD_HEADER_FULL);
    ck_ok(wal_make_room(store.wal, store.slot, 0));
    ck_assert(wal_has_room(store.wal, 0));
    wal_append(store.wal, nothing, hash_of_nothing);
    uint64_t end = wal_copied(store.wal);
    test_store_crash(&store);
    ck_ok(test_store_open(&store));
    ck_assert_uint_eq(store.last.end, end);
    ck_fails(AIDB_LIMIT, wal_make_room(store.wal, store.slot, (size_t)WAL_PAYLOAD_MAX + 1));
    free(bytes);
    test_store_remove(&store);
}
END_TEST

/* Large records span segments, are durable at once, and stand in order among small ones. */
START_TEST(test_large_records)
{
    static const size_t sizes[] = {RING / 4 - RECORD_HEADER_FULL + 1, RING, SEGMENT - 40, SEGMENT,
                                   SEGMENT * 5 + 3};
    for (int clean = 0; clean <= 1; clean++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            TestStore store;
            test_store_make(&store, SEGMENT, RING);
            ck_ok(test_store_open(&store));
            test_append_many(&store, 20);
            uint8_t *bytes = malloc(sizes[i]);
            for (size_t at = 0; at < sizes[i]; at++)
                bytes[at] = (uint8_t)(at * 11 + i);
            Slice payload = slice_make(bytes, sizes[i]);
            ck_ok(wal_make_room(store.wal, store.slot, payload.size));
            ck_assert(wal_has_room(store.wal, payload.size));
            uint64_t lsn;
            ck_ok(
                wal_append_large(store.wal, store.slot, payload, wal_payload_hash(payload), &lsn));
            ck_assert_uint_eq(wal_durable(store.wal), wal_copied(store.wal));
            ck_assert_uint_eq((lsn + sizes[i] + 7) / 8 * 8, wal_copied(store.wal));
            test_append_many(&store, 20);
            if (clean)
                test_store_stop(&store);
            else
                test_store_crash(&store);
            ck_ok(test_store_open(&store));
            WalReader *reader;
            WalRecord record;
            ck_ok(wal_reader_create(&store.options, store.manifest->starts, store.manifest->count,
                                    0, store.last.end, &reader));
            for (uint64_t number = 0; number < 41; number++) {
                ck_ok(wal_reader_next(reader, &record));
                Slice expected =
                    number == 20 ? payload : test_payload(number < 20 ? number : number - 1);
                ck_assert(slice_equal(record.payload, expected));
            }
            ck_fails(AIDB_NOT_FOUND, wal_reader_next(reader, &record));
            wal_reader_destroy(reader);
            free(bytes);
            test_store_remove(&store);
        }
}
END_TEST

/* Starts whose log holds nothing do not pile up, however the store is left, and what was written before
 * them stays. */
START_TEST(test_empty_logs)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    for (int round = 0; round < 3; round++) {
        ck_ok(test_store_open(&store));
        test_append_many(&store, 20);
        uint64_t expected = store.next;
        test_store_crash(&store);
        for (int i = 0; i < 30; i++) {
            uint64_t seen = store.last.next.first_lsn;
            ck_ok(test_store_open(&store));
            ck_assert_uint_gt(store.last.next.first_lsn, seen);
            if (i % 3 == 1)
                test_store_stop(&store);
            else
                test_store_crash(&store);
        }
        ck_ok(test_store_open(&store));
        ck_assert_uint_eq(test_read_all(&store), expected);
        ck_assert_uint_le(store.manifest->count, 2 * (size_t)(round + 1));
        test_store_crash(&store);
    }
    test_store_remove(&store);
}
END_TEST

/* Segments that tables have overtaken are reused, and their old bytes never believed. */
START_TEST(test_recycling)
{
    TestStore store;
    test_store_make(&store, 4096, 8192);
    ck_ok(test_store_open(&store));
    uint64_t marks[3000];
    uint64_t recycled = 0;
    for (int i = 0; i < 3000; i++) {
        ck_ok(test_append(&store));
        marks[i] = wal_copied(store.wal);
        if (i % 7 == 0)
            ck_ok(wal_sync(store.wal, store.slot, marks[i]));
        if (i % 50 == 49) {
            int wait_ms;
            ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
            store.manifest->from = marks[i - 30];
            store.manifest->from_record = (uint64_t)i - 29;
            wal_release(store.wal, store.slot, marks[i - 30]);
        }
        if (i % 400 == 399) {
            uint64_t expected = store.next;
            recycled += atomic_load(&store.shared->recycled);
            test_store_crash(&store);
            ck_ok(test_store_open(&store));
            ck_assert_uint_eq(test_read_all(&store), expected);
        }
    }
    recycled += atomic_load(&store.shared->recycled);
    ck_assert_uint_gt(recycled, 20);
    Catalog catalog;
    ck_ok(catalog_load(&store.options, &catalog));
    ck_assert_uint_lt(catalog.count, 20);
    catalog_deinit(&catalog);
    test_store_remove(&store);
}
END_TEST

/* Changes the format in a header and seals it again. */
static void change_format(const char *path, off_t at, size_t size, size_t checksum_at,
                          uint32_t format)
{
    uint8_t block[WAL_SEGMENT_HEADER_SIZE];
    int fd = open(path, O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, block, size, at), (ssize_t)size);
    put_fixed32(block + 8, format);
    block_seal(block, size, checksum_at);
    ck_assert_int_eq(pwrite(fd, block, size, at), (ssize_t)size);
    close(fd);
}

/* A log of another format is no damaged one. */
START_TEST(test_another_format)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    test_append_many(&store, 10);
    test_store_stop(&store);
    Catalog catalog;
    ck_ok(catalog_load(&store.options, &catalog));
    char segment[600], ring[600], name[WAL_NAME_SIZE];
    segment_name(name, catalog.files[0].first_lsn, catalog.files[0].incarnation);
    catalog_deinit(&catalog);
    snprintf(segment, sizeof segment, "%s/%s", store.wal_directory, name);
    snprintf(ring, sizeof ring, "%s/ring", store.wal_directory);

    change_format(segment, 0, WAL_SEGMENT_HEADER_SIZE, 80, WAL_FORMAT_VERSION + 1);
    ck_fails(AIDB_UNSUPPORTED, test_store_open(&store));
    ck_assert_ptr_nonnull(strstr(status_message(), segment));
    ck_assert_ptr_nonnull(
        strstr(status_message(), "has format 3, this version of AiDb reads format 2"));
    change_format(segment, 0, WAL_SEGMENT_HEADER_SIZE, 80, WAL_FORMAT_VERSION);
    for (off_t slot = 0; slot < 2; slot++)
        change_format(ring, slot * 2048, 2048, 88, WAL_FORMAT_VERSION + 1);
    ck_fails(AIDB_UNSUPPORTED, test_store_open(&store));
    ck_assert_ptr_nonnull(strstr(status_message(), ring));
    for (off_t slot = 0; slot < 2; slot++)
        change_format(ring, slot * 2048, 2048, 88, WAL_FORMAT_VERSION);
    ck_ok(test_store_open(&store));
    test_store_remove(&store);
}
END_TEST

/* Where syncs are waited for, segments are made when half of the last is used, or before when the log grows fast. */
START_TEST(test_segments_when_needed)
{
    TestStore store;
    int wait_ms;
    test_store_make(&store, 4 * SEGMENT, RING);
    store.options.syncs_expected = true;
    ck_ok(test_store_open(&store));
    uint64_t first = wal_copied(store.wal);
    for (int i = 0; i < 20; i++) {
        test_append_many(&store, 1);
        ck_ok(wal_sync(store.wal, store.slot, wal_copied(store.wal)));
        ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
        ck_assert_uint_eq(atomic_load(&store.shared->prepared_end), first + 4 * SEGMENT);
    }
    while (wal_copied(store.wal) < first + 3 * SEGMENT / 2)
        test_append_many(&store, 1);
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    ck_assert_uint_eq(atomic_load(&store.shared->prepared_end), first + 8 * SEGMENT);
    test_store_remove(&store);
}
END_TEST

START_TEST(test_writer_step)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    int wait_ms;
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    ck_assert_int_gt(wait_ms, 0);
    ck_assert_uint_ge(atomic_load(&store.shared->prepared_end),
                      wal_copied(store.wal) + RING + SEGMENT);
    /* Few bytes: not at once, but when they are seen again after a while. */
    ck_ok(test_append(&store));
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    ck_assert_uint_lt(wal_durable(store.wal), wal_copied(store.wal));
    usleep((useconds_t)wait_ms * 1000);
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    ck_assert_uint_eq(wal_durable(store.wal), wal_copied(store.wal));
    /* A quarter of the ring: at once, after a nudge. */
    while (wal_copied(store.wal) - wal_durable(store.wal) < RING / 4)
        ck_ok(test_append(&store));
    wal_nudge(store.wal);
    latch_wait(store.slot, -1, 60000); /* woken before it slept: returns at once */
    ck_ok(wal_writer_step(store.wal, store.slot, &wait_ms));
    ck_assert_uint_eq(wal_durable(store.wal), wal_copied(store.wal));
    Buffer text = {0};
    ck_ok(wal_describe(store.wal, &text));
    ck_ok(buffer_append_byte(&text, 0));
    ck_assert_ptr_nonnull(strstr((char *)text.data, "wal_state\trunning\n"));
    buffer_deinit(&text);
    test_store_remove(&store);
}
END_TEST

/* ---- many writers ------------------------------------------------------------------------------- */

typedef struct Writers {
    TestStore *store;
    pthread_mutex_t mutex;
    _Atomic bool stop;
    _Atomic uint64_t synced; /* records known durable */
    int each;
} Writers;

static void *run_writer(void *arg)
{
    Writers *writers = arg;
    TestStore *store = writers->store;
    Slot *slot = slot_claim_any(&store->slots, 1, SLOT_THREAD);
    for (int i = 0; i < writers->each; i++) {
        pthread_mutex_lock(&writers->mutex);
        uint64_t number = store->next;
        Slice payload = test_payload(number);
        uint64_t hash = wal_payload_hash(payload);
        while (!wal_has_room(store->wal, payload.size)) {
            pthread_mutex_unlock(&writers->mutex);
            ck_ok(wal_make_room(store->wal, slot, payload.size));
            pthread_mutex_lock(&writers->mutex);
            number = store->next;
            payload = test_payload(number);
            hash = wal_payload_hash(payload);
        }
        wal_append(store->wal, payload, hash);
        uint64_t end = wal_copied(store->wal);
        store->next++;
        pthread_mutex_unlock(&writers->mutex);
        if (i % 3 != 0) {
            ck_ok(wal_sync(store->wal, slot, end));
            ck_assert_uint_ge(wal_durable(store->wal), end);
        }
    }
    slot_release(slot);
    return NULL;
}

static void *run_background(void *arg)
{
    Writers *writers = arg;
    TestStore *store = writers->store;
    Slot *slot = slot_claim_any(&store->slots, 1, SLOT_WAL_WRITER);
    while (!atomic_load(&writers->stop)) {
        int wait_ms;
        ck_ok(wal_writer_step(store->wal, slot, &wait_ms));
        latch_wait(slot, -1, wait_ms > 2 ? 2 : wait_ms);
    }
    slot_release(slot);
    return NULL;
}

START_TEST(test_threads)
{
    TestStore store;
    test_store_make(&store, SEGMENT, RING);
    ck_ok(test_store_open(&store));
    Writers writers = {.store = &store, .mutex = PTHREAD_MUTEX_INITIALIZER, .each = 400};
    pthread_t threads[6];
    pthread_t background;
    ck_assert_int_eq(pthread_create(&background, NULL, run_background, &writers), 0);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_writer, &writers), 0);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&writers.stop, true);
    pthread_join(background, NULL);
    ck_assert_uint_eq(store.next, 6 * 400);
    ck_assert_uint_lt(atomic_load(&store.shared->syncs), 6 * 400); /* some were shared */
    test_store_crash(&store);
    ck_ok(test_store_open(&store));
    ck_assert_uint_eq(test_read_all(&store), 6 * 400);
    test_store_remove(&store);
}
END_TEST

static TCase *basic_cases(void)
{
    TCase *tests = tcase_create("basics");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_new_log);
    tcase_add_test(tests, test_options);
    tcase_add_test(tests, test_golden);
    tcase_add_test(tests, test_another_format);
    tcase_add_test(tests, test_crash_and_stop);
    tcase_add_test(tests, test_stopped_log_refuses);
    tcase_add_test(tests, test_stop_gives_room_back);
    tcase_add_test(tests, test_stop_gives_released_room_back);
    tcase_add_test(tests, test_room);
    tcase_add_test(tests, test_large_records);
    tcase_add_test(tests, test_empty_logs);
    tcase_add_test(tests, test_recycling);
    tcase_add_test(tests, test_segments_when_needed);
    tcase_add_test(tests, test_writer_step);
    tcase_add_test(tests, test_threads);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("wal");
    suite_add_tcase(suite, basic_cases());
    suite_add_tcase(suite, crash_cases());
    suite_add_tcase(suite, damage_cases());
    suite_add_tcase(suite, fault_cases());
    return test_run(suite);
}
