/*
 * crash_test.c - processes that die while they write, recoveries that die at every step, power that
 * fails at every call.
 */
#include "config.h"

#include "engine/wal/test_store.h"

#include "common/coding.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- killed processes --------------------------------------------------------------------------- */

#define CHILDREN      4
#define CHILD_RECORDS 400 /* in a round at most */

typedef struct Shared {
    Lock write_lock;
    _Atomic uint64_t acked[CHILDREN];  /* records known to last a death of all processes */
    _Atomic uint64_t synced[CHILDREN]; /* of them known durable */
} Shared;

/* Records of a child: its number, its count, and bytes that follow from both. */
static Slice child_payload(uint8_t *bytes, uint32_t child, uint64_t count)
{
    size_t size = 16 + (size_t)(count * 13 + child * 5) % 120;
    put_fixed64(bytes, child);
    put_fixed64(bytes + 8, count);
    for (size_t i = 16; i < size; i++)
        bytes[i] = (uint8_t)(count + i * child);
    return slice_make(bytes, size);
}

static void child_write(TestStore *store, Shared *shared, uint32_t child)
{
    Slot *slot = slot_claim(&store->slots, child + 1, SLOT_BACKEND);
    uint8_t bytes[200];
    uint64_t count = atomic_load(&shared->acked[child]);
    for (uint64_t limit = count + CHILD_RECORDS; count < limit; count++) {
        Slice payload = child_payload(bytes, child, count);
        uint64_t hash = wal_payload_hash(payload);
        lock_acquire(&shared->write_lock, slot);
        while (!wal_has_room(store->wal, payload.size)) {
            lock_release(&shared->write_lock, slot);
            if (wal_make_room(store->wal, slot, payload.size) != AIDB_OK)
                _exit(3);
            lock_acquire(&shared->write_lock, slot);
        }
        wal_append(store->wal, payload, hash);
        uint64_t end = wal_copied(store->wal);
        lock_release(&shared->write_lock, slot);
        atomic_store(&shared->acked[child], count + 1);
        if (count % 4 == child) {
            if (wal_sync(store->wal, slot, end) != AIDB_OK)
                _exit(4);
            atomic_store(&shared->synced[child], count + 1);
        }
    }
    for (;;)
        pause();
}

static void child_background(TestStore *store)
{
    Slot *slot = slot_claim(&store->slots, CHILDREN + 1, SLOT_WAL_WRITER);
    for (;;) {
        int wait_ms;
        if (wal_writer_step(store->wal, slot, &wait_ms) != AIDB_OK)
            _exit(5);
        wal_release(store->wal, slot, store->manifest->from);
        usleep(300);
    }
}

/* Checks each child's records: all that it acknowledged, in order, at most one more. */
static void check_children(TestStore *store, Shared *shared, uint64_t counts[CHILDREN])
{
    WalReader *reader;
    WalRecord record;
    Status status;
    uint8_t bytes[200];
    ck_ok(wal_reader_create(&store->options, store->manifest->starts, store->manifest->count,
                            store->manifest->from, store->last.end, &reader));
    while ((status = wal_reader_next(reader, &record)) == AIDB_OK) {
        ck_assert_uint_ge(record.payload.size, 16);
        uint64_t child = get_fixed64(record.payload.data);
        ck_assert_uint_lt(child, CHILDREN);
        Slice expected = child_payload(bytes, (uint32_t)child, counts[child]);
        ck_assert_msg(slice_equal(record.payload, expected), "record %llu of child %llu is another",
                      (unsigned long long)counts[child], (unsigned long long)child);
        counts[child]++;
    }
    ck_fails(AIDB_NOT_FOUND, status);
    wal_reader_destroy(reader);
    for (int i = 0; i < CHILDREN; i++) {
        uint64_t acked = atomic_load(&shared->acked[i]);
        ck_assert_uint_ge(counts[i], acked);
        ck_assert_uint_le(counts[i], acked + 1);
        atomic_store(&shared->acked[i], counts[i]);
    }
}

START_TEST(test_killed_processes)
{
    uint64_t seed = test_seed("test_killed_processes");
    TestStore store;
    test_store_make(&store, 8u << 10, 16u << 10);
    Shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(shared, MAP_FAILED);
    uint64_t counts[CHILDREN] = {0};
    uint64_t total = 0;
    for (int round = 0; round < 60; round++) {
        slot_table_init(&store.slots, store.slots.slots, store.slots.count, NULL);
        store.slot = slot_claim(&store.slots, 0, SLOT_STARTUP);
        lock_init(&shared->write_lock, LOCK_RANK_WRITE, "test");
        ck_ok(test_store_open(&store));
        check_children(&store, shared, counts);
        store.manifest->from = store.last.end; /* the next round reads what it wrote */
        pid_t children[CHILDREN + 1];
        for (uint32_t i = 0; i <= CHILDREN; i++) {
            children[i] = fork();
            ck_assert_int_ge(children[i], 0);
            if (children[i] == 0) {
                if (i < CHILDREN)
                    child_write(&store, shared, i);
                else
                    child_background(&store);
            }
        }
        usleep((useconds_t)(500 + test_random(&seed) % 8000));
        /* One dies first, at any instruction; then all, as in a reset. */
        pid_t first = children[test_random(&seed) % (CHILDREN + 1)];
        kill(first, SIGKILL);
        usleep((useconds_t)(test_random(&seed) % 1000));
        for (uint32_t i = 0; i <= CHILDREN; i++)
            kill(children[i], SIGKILL);
        for (uint32_t i = 0; i <= CHILDREN; i++) {
            int result;
            ck_assert_int_eq(waitpid(children[i], &result, 0), children[i]);
            ck_assert_msg(WIFSIGNALED(result), "a child ended by itself with %d",
                          WEXITSTATUS(result));
        }
        wal_close(store.wal);
        store.wal = NULL;
    }
    for (int i = 0; i < CHILDREN; i++)
        total += counts[i];
    ck_assert_uint_gt(total, 1000);
    munmap(shared, sizeof *shared);
    test_store_remove(&store);
}
END_TEST

/* ---- killed recoveries -------------------------------------------------------------------------- */

/* A log of several incarnations whose unsynced end stands in the ring and spans segments. Its directory
 * and manifest are put aside, to begin from again and again. */
typedef struct Template {
    TestStore store;
    char saved[320];
    TestManifest manifest;
    uint64_t records;
} Template;

static void make_template(Template *template, bool stopped)
{
    TestStore *store = &template->store;
    test_store_make(store, 4096, 16u << 10);
    for (int i = 0; i < 3; i++) {
        ck_ok(test_store_open(store));
        test_append_many(store, 40);
        ck_ok(wal_sync(store->wal, store->slot, wal_copied(store->wal)));
        test_append_many(store, 60);
        if (i < 2)
            test_store_crash(store);
        else if (stopped)
            test_store_stop(store);
        else
            test_store_crash(store);
    }
    template->records = store->next;
    template->manifest = *store->manifest;
    snprintf(template->saved, sizeof template->saved, "%s/saved", store->directory);
    test_copy_directory(store->wal_directory, template->saved);
}

static void reset_to(Template *template)
{
    *template->store.manifest = template->manifest;
    test_copy_directory(template->saved, template->store.wal_directory);
}

/* Recovers in a child that dies at the given call; false when it got through. */
static bool recover_and_die(TestStore *store, FaultMode mode, uint64_t at)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        fault_set(mode, at);
        Status status = test_store_open(store);
        _exit(status == AIDB_OK ? 0 : 1);
    }
    int result;
    ck_assert_int_eq(waitpid(child, &result, 0), child);
    ck_assert(WIFEXITED(result));
    ck_assert_msg(WEXITSTATUS(result) == FAULT_EXIT_CODE || WEXITSTATUS(result) == 0,
                  "the recovery failed");
    return WEXITSTATUS(result) != 0;
}

static void check_recovers(Template *template, uint64_t end)
{
    TestStore *store = &template->store;
    ck_ok(test_store_open(store));
    ck_assert_uint_eq(store->last.end, end);
    ck_assert_uint_eq(test_read_all(store), template->records);
    /* It goes on, and what it writes lasts. */
    test_append_many(store, 30);
    test_store_crash(store);
    ck_ok(test_store_open(store));
    ck_assert_uint_eq(test_read_all(store), template->records + 30);
    test_store_crash(store);
}

static void kill_each_step(bool stopped)
{
    uint64_t seed = test_seed("kill_each_step");
    Template template;
    make_template(&template, stopped);
    uint64_t end;
    ck_ok(test_examine(&template.store, 0, &end));
    int steps = 0;
    for (FaultMode mode = FAULT_EXIT; mode <= FAULT_EXIT_LATE; mode++)
        for (uint64_t at = 1;; at++, steps++) {
            reset_to(&template);
            if (!recover_and_die(&template.store, mode, at))
                break;
            check_recovers(&template, end);
        }
    ck_assert_int_gt(steps, stopped ? 8 : 40);
    for (int round = 0; round < 40; round++) {
        reset_to(&template);
        for (int i = 0; i < 10; i++) {
            FaultMode mode = test_random(&seed) % 2 == 0 ? FAULT_EXIT : FAULT_EXIT_LATE;
            if (!recover_and_die(&template.store, mode,
                                 1 + test_random(&seed) % (uint64_t)(steps / 2)))
                break;
        }
        ck_ok(test_store_open(&template.store));
        ck_assert_uint_eq(test_read_all(&template.store), template.records);
        test_store_crash(&template.store);
    }
    test_store_remove(&template.store);
}

START_TEST(test_killed_recovery)
{
    kill_each_step(false);
}
END_TEST

START_TEST(test_killed_recovery_after_stop)
{
    kill_each_step(true);
}
END_TEST

/* The recovery was through, but its start did not get into the manifest; the WAL writer may have run, and
 * the log may even have been stopped. */
START_TEST(test_killed_before_manifest)
{
    Template template;
    make_template(&template, false);
    TestStore *store = &template.store;
    uint64_t end;
    ck_ok(test_examine(store, 0, &end));
    for (int kind = 0; kind < 3; kind++) {
        reset_to(&template);
        for (int i = 0; i < 4; i++) {
            ck_ok(test_store_open(store));
            ck_assert_uint_eq(store->last.end, end);
            int wait_ms;
            if (kind >= 1)
                ck_ok(wal_writer_step(store->wal, store->slot, &wait_ms));
            if (kind >= 2)
                test_store_stop(store);
            else
                test_store_crash(store);
            test_store_forget_start(store);
        }
        check_recovers(&template, end);
    }
    /* A log that was written by an incarnation that the manifest does not know is another matter. */
    reset_to(&template);
    ck_ok(test_store_open(store));
    test_append_many(store, 100);
    ck_ok(wal_sync(store->wal, store->slot, wal_copied(store->wal)));
    test_append_many(store, 100);
    test_store_stop(store);
    test_store_forget_start(store);
    ck_fails(AIDB_CORRUPTION, test_store_open(store));
    store->manifest->incarnation = template.manifest.incarnation - 1;
    ck_fails(AIDB_CORRUPTION, test_store_open(store));
    test_store_remove(store);
}
END_TEST

/* ---- power loss --------------------------------------------------------------------------------- */

/* Writes until something fails. Returns how many records are known durable. */
static uint64_t work(TestStore *store, uint64_t *seed, uint64_t durable, uint64_t ends[],
                     uint64_t base)
{
    for (int i = 0; i < 80; i++) {
        uint64_t what = test_random(seed) % 16;
        int wait_ms;
        Status status = AIDB_OK;
        if (what < 11) {
            status = test_append(store);
            if (status == AIDB_OK)
                ends[store->next - 1 - base] = wal_copied(store->wal);
        } else if (what < 13) {
            status = wal_sync(store->wal, store->slot, wal_copied(store->wal));
        } else if (what < 15) {
            status = wal_writer_step(store->wal, store->slot, &wait_ms);
        } else if (durable > base + 10) {
            /* Tables hold all but the last few durable records. */
            store->manifest->from = ends[durable - 8 - base];
            store->manifest->from_record = durable - 7;
            store->manifest->horizon = ends[durable - 1 - base];
            wal_release(store->wal, store->slot, store->manifest->from);
        }
        if (!wal_failed(store->wal))
            while (durable < store->next && ends[durable - base] <= wal_durable(store->wal))
                durable++;
        if (status != AIDB_OK)
            return durable;
    }
    return durable;
}

START_TEST(test_power_loss)
{
    uint64_t seed = test_seed("test_power_loss");
    int cuts = 0;
    for (uint64_t at = 1; at <= 120; at++) {
        TestStore store;
        uint64_t ends[256];
        uint64_t durable = 0;
        test_store_make(&store, 4096, 8192);
        for (int life = 0; life < 4; life++) {
            /* Up to three cuts during recovery, then one during the work. */
            for (int i = 0;; i++) {
                power_begin(store.wal_directory);
                fault_set(i < 3 && life > 0 ? FAULT_DEAD : FAULT_NONE, 1 + test_random(&seed) % 40);
                Status status = test_store_open(&store);
                if (status == AIDB_OK && (i >= 3 || test_random(&seed) % 4 != 0))
                    break;
                if (status == AIDB_OK) { /* before the manifest knew the new log */
                    int wait_ms;
                    (void)!wal_writer_step(store.wal, store.slot, &wait_ms);
                    fault_set(FAULT_NONE, 0);
                    test_store_forget_start(&store);
                    test_store_crash(&store);
                    power_cut(&seed);
                    cuts++;
                    continue;
                }
                ck_assert_msg(fault.mode == FAULT_DEAD && fault.calls >= fault.at,
                              "recovery refuses: %s", status_message());
                fault_set(FAULT_NONE, 0);
                power_cut(&seed);
                cuts++;
            }
            fault_set(FAULT_NONE, 0);
            uint64_t appended = store.next;
            uint64_t found = test_read_all(&store);
            ck_assert_msg(found >= durable && found <= appended,
                          "%llu records were durable, %llu written, %llu found",
                          (unsigned long long)durable, (unsigned long long)appended,
                          (unsigned long long)found);
            fault_set(FAULT_DEAD, at);
            durable = work(&store, &seed, found, ends, found);
            if (test_random(&seed) % 3 == 0 && wal_stop(store.wal, store.slot) == AIDB_OK)
                durable = store.next;
            fault_set(FAULT_NONE, 0);
            test_store_crash(&store);
            power_cut(&seed);
            cuts++;
        }
        power_end();
        test_store_remove(&store);
    }
    fprintf(stderr, "%d power cuts\n", cuts);
}
END_TEST

TCase *crash_cases(void)
{
    TCase *tests = tcase_create("crashes");
    tcase_set_timeout(tests, 300); /* only against hanging */
    tcase_add_test(tests, test_killed_processes);
    tcase_add_test(tests, test_killed_recovery);
    tcase_add_test(tests, test_killed_recovery_after_stop);
    tcase_add_test(tests, test_killed_before_manifest);
    tcase_add_test(tests, test_power_loss);
    return tests;
}
