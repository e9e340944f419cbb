/* test_store.c - the log under test; see test_store.h. */
#include "config.h"

#include "engine/wal/test_store.h"

#include "common/hash.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 32

static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    return memory;
}

void test_store_make(TestStore *store, uint64_t segment_size, uint64_t ring_size)
{
    memset(store, 0, sizeof *store);
    const char *base = getenv("TMPDIR");
    if (base == NULL) /* memory: these tests sync a lot, and bring their own power loss */
        base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(store->directory, sizeof store->directory, "%s/aidb-wal-XXXXXX", base);
    ck_assert_ptr_nonnull(mkdtemp(store->directory));
    snprintf(store->wal_directory, sizeof store->wal_directory, "%s/wal", store->directory);
    store->options = (WalOptions){
        .directory = store->wal_directory,
        .system_id = "a test database",
        .segment_size = segment_size,
        .ring_size = ring_size,
    };
    store->shared = shared_memory(wal_shared_size());
    store->manifest = shared_memory(sizeof *store->manifest);
    void *memory = shared_memory(slot_table_size(SLOTS));
    slot_table_init(&store->slots, memory, SLOTS, NULL);
    store->slot = slot_claim(&store->slots, 0, SLOT_THREAD);
    ck_ok(wal_create(&store->options));
}

Status test_store_open(TestStore *store)
{
    TestManifest *manifest = store->manifest;
    wal_shared_init(store->shared);
    RETURN_IF_FAILED(wal_open(&store->options, store->shared, &store->wal));
    manifest->incarnation++;
    WalRecovery *recovery = &store->last;
    *recovery = (WalRecovery){
        .starts = manifest->starts,
        .start_count = manifest->count,
        .from = manifest->from,
        .horizon = manifest->horizon,
        .incarnation = manifest->incarnation,
        .nonce = hash_mix(manifest->incarnation, 12345),
    };
    Status status = wal_recover(store->wal, store->slot, recovery);
    if (status != AIDB_OK) {
        wal_close(store->wal);
        store->wal = NULL;
        return status;
    }
    manifest->replaced = (WalStart){0};
    if (manifest->count > 0 &&
        wal_start_replaces(&recovery->next, &manifest->starts[manifest->count - 1]))
        manifest->replaced = manifest->starts[--manifest->count];
    if (manifest->count == sizeof manifest->starts / sizeof manifest->starts[0]) {
        /* Keeps the newest logs: what the older ones hold is in tables. */
        manifest->count--;
        memmove(manifest->starts, manifest->starts + 1, manifest->count * sizeof *manifest->starts);
        if (manifest->from < manifest->starts[0].previous_end)
            ck_abort_msg("too many starts without a release");
    }
    manifest->starts[manifest->count++] = recovery->next;
    return AIDB_OK;
}

void test_store_forget_start(TestStore *store)
{
    TestManifest *manifest = store->manifest;
    manifest->count--;
    if (manifest->replaced.incarnation != 0)
        manifest->starts[manifest->count++] = manifest->replaced;
    manifest->replaced = (WalStart){0};
}

void test_store_crash(TestStore *store)
{
    wal_close(store->wal);
    store->wal = NULL;
    atomic_store(&store->slot->lock_ranks, 0);
}

void test_store_stop(TestStore *store)
{
    ck_ok(wal_stop(store->wal, store->slot));
    wal_close(store->wal);
    store->wal = NULL;
}

void test_remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return;
    struct dirent *item;
    while ((item = readdir(directory)) != NULL) {
        char name[600];
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, item->d_name);
        if (unlink(name) != 0)
            test_remove_directory(name);
    }
    closedir(directory);
    rmdir(path);
}

static void copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert(in >= 0 && out >= 0);
    struct stat info;
    ck_assert_int_eq(fstat(in, &info), 0);
    off_t left = info.st_size;
    while (left > 0) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
        ck_assert_int_gt(n, 0);
        left -= n;
    }
    close(in);
    close(out);
}

void test_copy_directory(const char *from, const char *to)
{
    test_remove_directory(to);
    ck_assert_int_eq(mkdir(to, 0700), 0);
    DIR *directory = opendir(from);
    ck_assert_ptr_nonnull(directory);
    struct dirent *item;
    while ((item = readdir(directory)) != NULL) {
        char a[600], b[600];
        if (item->d_name[0] == '.')
            continue;
        snprintf(a, sizeof a, "%s/%s", from, item->d_name);
        snprintf(b, sizeof b, "%s/%s", to, item->d_name);
        copy_file(a, b);
    }
    closedir(directory);
}

void test_store_remove(TestStore *store)
{
    if (store->wal != NULL)
        wal_close(store->wal);
    test_remove_directory(store->directory);
    munmap(store->shared, wal_shared_size());
    munmap(store->manifest, sizeof *store->manifest);
    munmap(store->slots.slots, slot_table_size(SLOTS));
}

/* ---- records ------------------------------------------------------------------------------------ */

size_t test_payload_size(uint64_t number)
{
    uint64_t random = hash_mix(number, 77);
    switch (random % 16) {
    case 0:
        return 8;
    case 1:
        return 9 + random / 16 % 7;
    case 2:
        return 300 + random / 16 % 700;
    default:
        return 16 + random / 16 % 100;
    }
}

Slice test_payload(uint64_t number)
{
    static _Thread_local uint8_t bytes[1100];
    size_t size = test_payload_size(number);
    memcpy(bytes, &number, sizeof number);
    for (size_t i = sizeof number; i < size; i++)
        bytes[i] = (uint8_t)(number * 31 + i * 7);
    return slice_make(bytes, size);
}

Status test_append(TestStore *store)
{
    Slice payload = test_payload(store->next);
    uint64_t hash = wal_payload_hash(payload);
    if (!wal_has_room(store->wal, payload.size))
        RETURN_IF_FAILED(wal_make_room(store->wal, store->slot, payload.size));
    ck_assert(wal_has_room(store->wal, payload.size));
    uint64_t begin = wal_copied(store->wal);
    uint64_t lsn;
    if (payload.size > wal_ring_payload_max(store->wal))
        RETURN_IF_FAILED(wal_append_large(store->wal, store->slot, payload, hash, &lsn));
    else
        lsn = wal_append(store->wal, payload, hash);
    ck_assert(lsn == begin + RECORD_HEADER_SHORT || lsn == begin + RECORD_HEADER_FULL);
    store->next++;
    return AIDB_OK;
}

void test_append_many(TestStore *store, int count)
{
    for (int i = 0; i < count; i++)
        ck_ok(test_append(store));
}

uint64_t test_read_all(TestStore *store)
{
    TestManifest *manifest = store->manifest;
    WalReader *reader;
    ck_ok(wal_reader_create(&store->options, manifest->starts, manifest->count, manifest->from,
                            store->last.end, &reader));
    uint64_t number = manifest->from_record;
    uint64_t end = 0;
    uint64_t time_us = 0;
    WalRecord record;
    Status status;
    while ((status = wal_reader_next(reader, &record)) == AIDB_OK) {
        Slice expected = test_payload(number);
        bool full = record.payload_lsn == record.lsn + RECORD_HEADER_FULL;
        test_expect(slice_equal(record.payload, expected) && record.lsn >= end &&
                        record.payload_lsn == record.lsn + record_header_size(full) &&
                        record.end == record.lsn + record_size(full, record.payload.size) &&
                        record.time_us >= time_us && record.durable <= record.lsn,
                    "record %llu at LSN %llu is not what was written", (unsigned long long)number,
                    (unsigned long long)record.lsn);
        end = record.end;
        time_us = record.time_us;
        number++;
    }
    ck_fails(AIDB_NOT_FOUND, status);
    wal_reader_destroy(reader);
    store->next = number;
    return number;
}

Status test_examine(const TestStore *store, uint64_t horizon, uint64_t *end)
{
    const TestManifest *manifest = store->manifest;
    Scan scan;
    LogEnd log = {.stop = LSN_MAX};
    Ring ring = RING_CLOSED;
    *end = 0;
    Status status = scan_init(&scan, &store->options);
    if (status != AIDB_OK)
        goto out;
    OUT_IF_FAILED(ring_open(&store->options, false, &ring));
    OUT_IF_FAILED(log_end_init(&log, &scan, &ring, &store->options, manifest->starts,
                               manifest->count, horizon, manifest->incarnation + 1));
    OUT_IF_FAILED(
        log_end_find(&log, &scan, &ring, manifest->starts, manifest->count, manifest->from));
    *end = log.end;
out:
    log_end_deinit(&log);
    scan_deinit(&scan);
    ring_close(&ring);
    return status;
}
