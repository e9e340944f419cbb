/* ipc_test.c - slots, latches, locks, epochs and the arena, between threads and between processes. */
#include "config.h"

#include "ipc/arena.h"
#include "ipc/ipc.h"
#include "testlib/testlib.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS  8
#define ROUNDS 20000

typedef struct Shared {
    SlotTable table;
    EpochDomain epochs;
    Lock lock;
    Arena *arena;
    uint64_t counter;
    _Atomic uint64_t *_Atomic object; /* replaced by the writer, read inside epochs */
    _Atomic bool stop;
} Shared;

static Region region;
static Shared *shared;
static int latches[SLOTS];

static void setup(void)
{
    ck_assert_int_eq(region_create(4u << 20, true, false, &region), AIDB_OK);
    region_populate(&region);
    memset(region.base, 0xa5, region.size); /* no initialiser may count on zeros */
    shared = region_carve(&region, sizeof *shared, PORT_CACHE_LINE);
    memset(shared, 0, sizeof *shared);
    for (int i = 0; i < SLOTS; i++)
        latches[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    slot_table_init(&shared->table, region_carve(&region, slot_table_size(SLOTS), PORT_CACHE_LINE),
                    SLOTS, latches);
    epoch_init(&shared->epochs, &shared->table);
    lock_init(&shared->lock, LOCK_RANK_WRITE, "test");
    shared->arena = arena_init(region_carve(&region, 1u << 20, 64), 1u << 20, &shared->epochs);
}

static void teardown(void)
{
    for (int i = 0; i < SLOTS; i++)
        close(latches[i]);
    region_destroy(&region);
}

START_TEST(a_private_region_is_zero_in_children)
{
    for (int huge = 0; huge < 2; huge++) {
        Region own;
        ck_assert_int_eq(region_create(4u << 20, false, huge != 0, &own), AIDB_OK);
        region_prefer_huge(&own, own.base + 1, huge != 0 ? own.size - 1 : 100);
        memset(own.base, 0xa5, own.size);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            /* Reserved huge pages, where a system has them, are shared all the same. */
            int wrong = own.base[0] != (own.huge ? 0xa5 : 0) ||
                        own.base[own.size - 1] != (own.huge ? 0xa5 : 0);
            own.base[1] = 1;
            _exit(wrong);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        ck_assert(own.huge || own.base[1] == 0xa5);
        region_destroy(&own);
        ck_assert_ptr_null(own.base);
    }
}
END_TEST

START_TEST(region_is_carved_aligned_and_bounded)
{
    ck_assert_ptr_null(region_carve(&region, region.size, 8));
    uint8_t *a = region_carve(&region, 10, 8);
    uint8_t *b = region_carve(&region, 10, 4096);
    ck_assert_uint_eq((uintptr_t)b % 4096, 0);
    ck_assert_ptr_ne(a, b);
    region_reset(&region);
    ck_assert_ptr_eq(region_carve(&region, 1, 1), region.base);
}
END_TEST

START_TEST(slots_are_claimed_once)
{
    Slot *first = slot_claim(&shared->table, 3, SLOT_BACKEND);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_null(slot_claim(&shared->table, 3, SLOT_BACKEND));
    ck_assert_ptr_null(slot_claim(&shared->table, SLOTS, SLOT_BACKEND));
    for (int i = 0; i < SLOTS - 1; i++)
        ck_assert_ptr_nonnull(slot_claim_any(&shared->table, 0, SLOT_THREAD));
    ck_assert_ptr_null(slot_claim_any(&shared->table, 0, SLOT_THREAD));
    slot_count(first, STAT_GETS, 5);
    slot_count(first, STAT_GETS, 2);
    atomic_store(&first->snapshots[1], 99);
    slot_release(first);
    ck_assert_uint_eq(atomic_load(&first->snapshots[1]), SNAPSHOT_NONE);
    ck_assert_uint_eq(slot_stat_sum(&shared->table, STAT_GETS), 7); /* sums never go back */
    ck_assert_ptr_eq(slot_claim_any(&shared->table, 0, SLOT_BACKEND), first);
}
END_TEST

/* Who serves many waits on one latch, which whoever wakes one of them finds. */
START_TEST(a_host_is_woken_for_its_clients)
{
    Slot *host = slot_claim(&shared->table, 0, SLOT_HOST);
    Slot *client = slot_claim(&shared->table, 1, SLOT_BACKEND);
    atomic_store(&client->host, host);
    latch_wake(client);
    ck_assert(!latch_begin(host)); /* woken before it slept */
    ck_assert(latch_begin(host));  /* and once only */
    latch_wake(client);
    struct pollfd ready = {.fd = host->latch_fd, .events = POLLIN};
    ck_assert_int_eq(poll(&ready, 1, -1), 1);
    latch_end(host, true);
    ck_assert_int_eq(poll(&ready, 1, 0), 0);
    slot_release(client);
    client = slot_claim(&shared->table, 1, SLOT_BACKEND);
    latch_wake(client); /* the host's no more */
    ck_assert(latch_begin(host));
    latch_end(host, false);
}
END_TEST

START_TEST(a_wake_before_the_wait_is_not_lost)
{
    Slot *slot = slot_claim(&shared->table, 0, SLOT_BACKEND);
    latch_wake(slot);
    latch_wake(slot);
    ck_assert(!latch_wait(slot, -1, -1)); /* would never return if the wake were lost */
    ck_assert(!latch_wait(slot, -1, 1));  /* and counts once */
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    ck_assert(!latch_wait(slot, pipes[0], 1));
    ck_assert_int_eq(write(pipes[1], "x", 1), 1);
    ck_assert(latch_wait(slot, pipes[0], -1));
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

START_TEST(latches_wake_between_processes)
{
    Slot *parent = slot_claim(&shared->table, 0, SLOT_BACKEND);
    pid_t pid = fork();
    if (pid == 0) {
        Slot *child = slot_claim(&shared->table, 1, SLOT_BACKEND);
        for (uint64_t i = 0; i < 1000; i++) {
            while (__atomic_load_n(&shared->counter, __ATOMIC_ACQUIRE) != 2 * i + 1)
                latch_wait(child, -1, -1);
            __atomic_store_n(&shared->counter, 2 * i + 2, __ATOMIC_RELEASE);
            latch_wake(parent);
        }
        _exit(0);
    }
    Slot *child = &shared->table.slots[1];
    for (uint64_t i = 0; i < 1000; i++) {
        __atomic_store_n(&shared->counter, 2 * i + 1, __ATOMIC_RELEASE);
        latch_wake(child);
        while (__atomic_load_n(&shared->counter, __ATOMIC_ACQUIRE) != 2 * i + 2) {
            latch_wait(parent, -1, 100); /* the child may not have claimed its slot yet */
            latch_wake(child);
        }
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

static void *count_under_lock(void *arg)
{
    (void)arg;
    Slot *slot = slot_claim_any(&shared->table, 0, SLOT_THREAD);
    for (int i = 0; i < ROUNDS; i++) {
        lock_acquire(&shared->lock, slot);
        shared->counter++;
        lock_release(&shared->lock, slot);
    }
    slot_release(slot);
    return NULL;
}

START_TEST(lock_excludes_threads)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_under_lock, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(shared->counter, 4 * ROUNDS);
}
END_TEST

START_TEST(lock_excludes_processes)
{
    for (int i = 0; i < 4; i++) {
        if (fork() == 0) {
            count_under_lock(NULL);
            _exit(0);
        }
    }
    for (int i = 0; i < 4; i++) {
        int status;
        ck_assert_int_gt(wait(&status), 0);
        ck_assert_int_eq(status, 0);
    }
    ck_assert_uint_eq(shared->counter, 4 * ROUNDS);
}
END_TEST

#ifdef AIDB_ASSERTIONS
static Lock *lock_of_rank(LockRank rank)
{
    static Lock locks[LOCK_RANK_CACHE + 1];
    lock_init(&locks[rank], rank, "test");
    return &locks[rank];
}

START_TEST(lock_asserts_rank)
{
    Slot *slot = slot_claim_any(&shared->table, 0, SLOT_BACKEND);
    lock_acquire(lock_of_rank(LOCK_RANK_VIEW), slot);
    switch (_i) {
    case 0:
        lock_acquire(lock_of_rank(LOCK_RANK_MANIFEST), slot);
        break;
    case 1:
        lock_acquire(&(Lock){.rank = LOCK_RANK_VIEW, .name = "another"}, slot);
        break;
    default:
        (void)lock_try_acquire(lock_of_rank(LOCK_RANK_WAL_FLUSH), slot);
    }
}
END_TEST

START_TEST(lock_rank_rises)
{
    Slot *slot = slot_claim_any(&shared->table, 0, SLOT_BACKEND);
    for (LockRank rank = LOCK_RANK_COMPACTION; rank <= LOCK_RANK_CACHE; rank++) {
        lock_acquire(lock_of_rank(rank), slot);
        ck_assert_uint_eq(atomic_load(&slot->lock_ranks) >> rank, 1);
    }
    ck_assert_str_eq(lock_rank_name(atomic_load(&slot->lock_ranks)), "cache");
    ck_assert_str_eq(lock_rank_name(1u << LOCK_RANK_WAL_FLUSH), "log flush");
    ck_assert_str_eq(lock_rank_name(0), "none");
}
END_TEST
#endif

START_TEST(lock_names_its_holder)
{
    Slot *a = slot_claim(&shared->table, 0, SLOT_BACKEND);
    Slot *b = slot_claim(&shared->table, 1, SLOT_BACKEND);
    lock_acquire(&shared->lock, a);
    ck_assert(lock_is_held_by(&shared->lock, a));
    ck_assert(!lock_try_acquire(&shared->lock, b));
    ck_assert_str_eq(atomic_load(&a->lock_name), "test");
    lock_release(&shared->lock, a);
    ck_assert_ptr_null(atomic_load(&a->lock_name));
    ck_assert(lock_try_acquire(&shared->lock, b));
    lock_release(&shared->lock, b);
}
END_TEST

START_TEST(epochs_hold_back_reuse)
{
    Slot *reader = slot_claim(&shared->table, 0, SLOT_BACKEND);
    epoch_enter(&shared->epochs, reader);
    uint64_t stamp = epoch_retire(&shared->epochs);
    ck_assert(!epoch_is_past(&shared->epochs, stamp));
    epoch_enter(&shared->epochs, reader); /* they nest */
    epoch_leave(reader);
    ck_assert(!epoch_is_past(&shared->epochs, stamp));
    epoch_leave(reader);
    ck_assert(epoch_is_past(&shared->epochs, stamp));
    epoch_enter(&shared->epochs, reader); /* a later reader cannot have seen it */
    ck_assert(epoch_is_past(&shared->epochs, stamp));
    epoch_leave(reader);
}
END_TEST

START_TEST(arena_reuses_and_ends)
{
    Slot *slot = slot_claim(&shared->table, 0, SLOT_BACKEND);
    void *blocks[4096];
    size_t count = 0;
    while (count < 4096 && (blocks[count] = arena_alloc(shared->arena, slot, 1000)) != NULL) {
        memset(blocks[count], (int)count, 1000);
        count++;
    }
    ck_assert_uint_gt(count, 700);
    ck_assert_uint_lt(count, 4096);
    ck_assert_ptr_null(arena_alloc(shared->arena, slot, 2u << 20));
    for (size_t i = 0; i < count; i++) {
        for (int j = 0; j < 1000; j++)
            ck_assert_uint_eq(((uint8_t *)blocks[i])[j], (uint8_t)i);
        arena_free(shared->arena, slot, blocks[i]);
    }
    size_t used, size, retired;
    arena_usage(shared->arena, &used, &size, &retired);
    ck_assert_uint_eq(used, 0);
    void *again = arena_alloc(shared->arena, slot, 1000);
    ck_assert_ptr_nonnull(again);
    Slot *reader = slot_claim(&shared->table, 1, SLOT_BACKEND);
    epoch_enter(&shared->epochs, reader);
    arena_retire(shared->arena, slot, again);
    arena_reclaim(shared->arena, slot);
    arena_usage(shared->arena, &used, &size, &retired);
    ck_assert_uint_gt(retired, 0);
    epoch_leave(reader);
    arena_reclaim(shared->arena, slot);
    arena_usage(shared->arena, &used, &size, &retired);
    ck_assert_uint_eq(retired, 0);
    ck_assert_uint_eq(used, 0);
}
END_TEST

/* Readers must never see an object whose memory was handed out again: a live one holds a value below
 * 2^32, reused memory is filled with larger ones first. */
static void *read_objects(void *arg)
{
    Slot *slot = slot_claim_any(&shared->table, 0, SLOT_THREAD);
    uint64_t *bad = arg;
    while (!atomic_load(&shared->stop)) {
        epoch_enter(&shared->epochs, slot);
        _Atomic uint64_t *object = atomic_load(&shared->object);
        for (int i = 0; i < 50; i++)
            if (atomic_load_explicit(object, memory_order_relaxed) > UINT32_MAX)
                ++*bad;
        epoch_leave(slot);
    }
    slot_release(slot);
    return NULL;
}

START_TEST(readers_never_see_reused_memory)
{
    Slot *slot = slot_claim_any(&shared->table, 0, SLOT_THREAD);
    _Atomic uint64_t *first = arena_alloc(shared->arena, slot, 64);
    atomic_store(first, 1);
    atomic_store(&shared->object, first);
    pthread_t threads[3];
    uint64_t bad[3] = {0};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_objects, &bad[i]), 0);
    for (uint64_t i = 0; i < 20000; i++) {
        _Atomic uint64_t *next = arena_alloc(shared->arena, slot, 64);
        if (next == NULL) { /* readers are slow: let them leave */
            arena_reclaim(shared->arena, slot);
            continue;
        }
        atomic_store_explicit(next, UINT64_MAX - i, memory_order_relaxed);
        atomic_store_explicit(next, i, memory_order_relaxed);
        _Atomic uint64_t *old = atomic_exchange(&shared->object, next);
        arena_retire(shared->arena, slot, (void *)old);
    }
    atomic_store(&shared->stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_uint_eq(bad[i], 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ipc");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 0);
    tcase_add_checked_fixture(all, setup, teardown);
    suite_add_tcase(suite, all);
    tcase_add_test(all, a_private_region_is_zero_in_children);
    tcase_add_test(all, region_is_carved_aligned_and_bounded);
    tcase_add_test(all, slots_are_claimed_once);
    tcase_add_test(all, a_host_is_woken_for_its_clients);
    tcase_add_test(all, a_wake_before_the_wait_is_not_lost);
    tcase_add_test(all, latches_wake_between_processes);
    tcase_add_test(all, lock_excludes_threads);
    tcase_add_test(all, lock_excludes_processes);
    tcase_add_test(all, lock_names_its_holder);
#ifdef AIDB_ASSERTIONS
    tcase_add_test(all, lock_rank_rises);
    const char *fork_mode = getenv("CK_FORK");
    if (fork_mode == NULL || strcmp(fork_mode, "no") != 0)
        tcase_add_loop_test_raise_signal(all, lock_asserts_rank, SIGABRT, 0, 3);
#endif
    tcase_add_test(all, epochs_hold_back_reuse);
    tcase_add_test(all, arena_reuses_and_ends);
    tcase_add_test(all, readers_never_see_reused_memory);
    return test_run(suite);
}
