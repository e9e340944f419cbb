/*
 * sharing_test.c - readers beside a writer, as threads (for the thread sanitizer) and as processes.
 */
#include "config.h"

#include "engine/memtable/test_memtable.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * The writer's operations are a function of their LSN, so a reader that knows the visible LSN knows
 * exactly what it must find. Every RANGE_EVERY-th operation deletes a range.
 */
#define KEYS              97u
#define RANGE_EVERY       64u
#define SHARED_OPERATIONS 24000u

static uint32_t key_space; /* a prime: how many keys there are */

typedef struct Shared {
    _Atomic uint64_t visible;
    _Atomic(Memtable *) memtable;
    _Atomic uint32_t failures;
    _Atomic bool stop;
} Shared;

typedef struct Reader {
    World *world;
    Shared *shared;
    uint32_t index;
    uint64_t checks;
} Reader;

static size_t shared_key(char *key, uint32_t number)
{
    /* Some keys share their first eight bytes. */
    return (size_t)snprintf(key, 32, number % 2 == 0 ? "%05u" : "shared-prefix-%05u", number);
}

static uint32_t operation_key(uint64_t lsn)
{
    return (uint32_t)(lsn * 48271 % key_space);
}

/* The least LSN (at most key_space) that writes this key: a division modulo a prime. */
static uint64_t first_lsn_of(uint32_t number)
{
    uint64_t result = number;
    uint64_t power = 48271 % key_space;
    for (uint32_t exponent = key_space - 2; exponent > 0; exponent /= 2) {
        if (exponent % 2 == 1)
            result = result * power % key_space;
        power = power * power % key_space;
    }
    return result == 0 ? key_space : result;
}

static bool is_range(uint64_t lsn)
{
    return lsn % RANGE_EVERY == 0;
}

/* A range covers the even numbers [from, to), whose keys have no prefix. */
static void operation_range(uint64_t lsn, uint32_t *from, uint32_t *to)
{
    *from = (uint32_t)(mix(lsn) % (key_space - 1));
    *to = *from + 1 + (uint32_t)(mix(lsn + 1) % (key_space - *from));
}

static uint64_t expected_version(uint32_t number, uint64_t first, uint64_t visible)
{
    uint64_t lsn = first_lsn_of(number);
    if (lsn > visible)
        return 0;
    lsn += (visible - lsn) / key_space * key_space;
    while (is_range(lsn) && lsn > key_space)
        lsn -= key_space;
    return lsn >= first && !is_range(lsn) ? lsn : 0;
}

static uint64_t expected_cover(uint32_t number, uint64_t first, uint64_t visible)
{
    for (uint64_t lsn = visible / RANGE_EVERY * RANGE_EVERY; lsn >= first; lsn -= RANGE_EVERY) {
        uint32_t from;
        uint32_t to;
        operation_range(lsn, &from, &to);
        if (number % 2 == 0 && number >= from && number < to)
            return lsn;
    }
    return 0;
}

static void write_operation(Memtable *memtable, Slot *slot, uint64_t lsn, Status *status)
{
    char key[32];
    char to_key[32];
    if (is_range(lsn)) {
        uint32_t from;
        uint32_t to;
        operation_range(lsn, &from, &to);
        int from_size = snprintf(key, sizeof key, "%05u", from);
        int to_size = snprintf(to_key, sizeof to_key, "%05u", to);
        *status =
            memtable_secure(memtable, slot, 0, RANGE_LOAD_ONE, (uint64_t)(from_size + to_size));
        if (*status == AIDB_OK)
            memtable_add_range(memtable, slice_make(key, (size_t)from_size),
                               slice_make(to_key, (size_t)to_size), lsn);
        return;
    }
    size_t key_size = shared_key(key, operation_key(lsn));
    uint64_t value[3] = {lsn, operation_key(lsn), ~lsn};
    *status = memtable_secure(memtable, slot, 1, RANGE_LOAD_NONE, key_size + sizeof value);
    if (*status == AIDB_OK)
        memtable_add(memtable, OP_PUT, slice_make(key, key_size), slice_make(value, sizeof value),
                     lsn);
}

/* Scans in both directions: order holds, and what is visible is exactly what was written. */
static bool check_scan(const Memtable *memtable, uint64_t first, uint64_t visible)
{
    uint64_t expected = 0;
    for (uint64_t lsn = first; lsn <= visible; lsn++)
        expected += !is_range(lsn);
    Iter *iter;
    if (memtable_iter_create(memtable, &iter) != AIDB_OK)
        return false;
    bool good = true;
    for (int backward = 0; backward < 2 && good; backward++) {
        uint64_t seen = 0;
        Entry last = {0};
        Status status = backward ? iter->ops->seek_last(iter) : iter->ops->seek_first(iter);
        while (status == AIDB_OK && iter->valid && good) {
            Entry entry = iter->entry;
            if (last.key.data != NULL) {
                int order = entry_compare(last.key, last.lsn, entry.key, entry.lsn);
                good = backward ? order > 0 : order < 0;
            }
            last = entry;
            uint64_t value[3];
            memcpy(value, entry.value.data, sizeof value);
            good = good && value[0] == entry.lsn && value[2] == ~entry.lsn;
            seen += entry.lsn <= visible;
            status = backward ? iter->ops->prev(iter) : iter->ops->next(iter);
        }
        good = good && status == AIDB_OK && seen == expected;
    }
    iter_destroy(iter);
    return good;
}

/* One look at the memtable as of now; `first` is the LSN it begins with. */
static bool check_once(const Memtable *memtable, uint64_t first, uint64_t visible, uint64_t round)
{
    uint32_t number = (uint32_t)(mix(round) % key_space);
    char key_bytes[32];
    Slice key = slice_make(key_bytes, shared_key(key_bytes, number));
    Entry entry = {0};
    bool found = memtable_get(memtable, key, visible, &entry);
    uint64_t version = expected_version(number, first, visible);
    if (found != (version != 0) || (found && entry.lsn != version))
        return false;
    if (found) {
        uint64_t value[3];
        if (!slice_equal(entry.key, key) || entry.value.size != sizeof value)
            return false;
        memcpy(value, entry.value.data, sizeof value);
        if (value[0] != version || value[1] != number || value[2] != ~version)
            return false;
    }
    uint64_t cover = expected_cover(number, first, visible);
    if (memtable_cover(memtable, key, visible) != cover)
        return false;
    if (round % 64 == 0) {
        RangeFragments fragments;
        if (memtable_fragments(memtable, &fragments) != AIDB_OK)
            return false;
        uint64_t seen = range_fragments_cover(fragments.items, fragments.count, key, visible);
        range_fragments_deinit(&fragments);
        if (seen != cover)
            return false;
    }
    return round % 256 != 0 || check_scan(memtable, first, visible);
}

/* Reads the memtable of the moment until told to stop. LSNs a memtable begins with follow from it:
 * its first LSN is stored before it is made known. */
static void *reader_run(void *arg)
{
    Reader *reader = arg;
    Slot *slot = slot_claim(&reader->world->slots, reader->index, SLOT_THREAD);
    if (slot == NULL) {
        atomic_fetch_add(&reader->shared->failures, 1);
        return NULL;
    }
    uint64_t round = reader->index * 1000;
    while (!atomic_load_explicit(&reader->shared->stop, memory_order_acquire)) {
        epoch_enter(reader->world->epochs, slot);
        const Memtable *memtable =
            atomic_load_explicit(&reader->shared->memtable, memory_order_acquire);
        uint64_t first = memtable_first_lsn(memtable);
        uint64_t visible = atomic_load_explicit(&reader->shared->visible, memory_order_acquire);
        /* The memtable may have been sealed below `visible` meanwhile, as engine/db checks too. */
        if (atomic_load_explicit(&reader->shared->memtable, memory_order_acquire) == memtable) {
            if (first != 0 && first <= visible && !check_once(memtable, first, visible, round++))
                atomic_fetch_add(&reader->shared->failures, 1);
            reader->checks++;
        }
        epoch_leave(slot);
    }
    slot_release(slot);
    return NULL;
}

/* Writes all operations, each visible at once; begins a new memtable when `rotate_every` operations
 * are in one (0: never), retiring the old one. */
static void writer_run(World *world, Shared *shared, uint64_t rotate_every)
{
    Memtable *memtable = world_create(world);
    uint64_t first = 0;
    for (uint64_t lsn = 1; lsn <= SHARED_OPERATIONS; lsn++) {
        Memtable *old = NULL;
        if (lsn == 1 || (rotate_every != 0 && lsn - first >= rotate_every)) {
            if (lsn > 1) {
                old = memtable;
                while (memtable_create(world->pool, world->slot, &memtable) == AIDB_BUSY)
                    usleep(100);
            }
            first = lsn;
        }
        Status status;
        do {
            write_operation(memtable, world->slot, lsn, &status);
            if (status == AIDB_BUSY)
                usleep(100); /* until readers leave old epochs */
        } while (status == AIDB_BUSY);
        ck_assert_int_eq(status, AIDB_OK);
        if (first == lsn) {
            /* Readers that still hold the old one must not see a LSN that only the new one has. */
            atomic_store_explicit(&shared->memtable, memtable, memory_order_seq_cst);
            if (old != NULL)
                memtable_retire(old, world->slot);
        }
        atomic_store_explicit(&shared->visible, lsn, memory_order_release);
        if (lsn % 4000 == 0)
            usleep(1000);
    }
}

static void run_threads(uint64_t capacity, uint64_t rotate_every, uint32_t keys)
{
    key_space = keys;
    enum { READERS = 3 };
    World world;
    world_init(&world, capacity);
    Shared shared = {0};
    Memtable *empty = world_create(&world);
    atomic_store(&shared.memtable, empty);
    pthread_t threads[READERS];
    Reader readers[READERS];
    for (uint32_t i = 0; i < READERS; i++) {
        readers[i] = (Reader){.world = &world, .shared = &shared, .index = i + 1};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, reader_run, &readers[i]), 0);
    }
    writer_run(&world, &shared, rotate_every);
    atomic_store_explicit(&shared.stop, true, memory_order_release);
    for (int i = 0; i < READERS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < READERS; i++)
        ck_assert_uint_gt(readers[i].checks, 0);
    ck_assert_uint_eq(atomic_load(&shared.failures), 0);
    ck_assert(check_scan(atomic_load(&shared.memtable),
                         memtable_first_lsn(atomic_load(&shared.memtable)), SHARED_OPERATIONS));
    world_deinit(&world);
}

/* Few keys with many versions, and many keys. */
START_TEST(threads_one_memtable)
{
    run_threads(32 << 20, 0, 97);
}
END_TEST

START_TEST(threads_many_keys)
{
    run_threads(32 << 20, 0, 9973);
}
END_TEST

START_TEST(threads_rotation)
{
    run_threads(1 << 20, 700, 9973);
}
END_TEST

static void run_processes(uint64_t capacity, uint64_t rotate_every, uint32_t keys)
{
    key_space = keys;
    enum { READERS = 2 };
    World world;
    world_init(&world, capacity);
    Shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(shared, MAP_FAILED);
    atomic_store(&shared->memtable, world_create(&world));
    pid_t children[READERS];
    for (uint32_t i = 0; i < READERS; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0) {
            Reader reader = {.world = &world, .shared = shared, .index = i + 1};
            reader_run(&reader);
            _exit(reader.checks > 0 ? 0 : 2);
        }
    }
    writer_run(&world, shared, rotate_every);
    usleep(1000);
    atomic_store_explicit(&shared->stop, true, memory_order_release);
    for (int i = 0; i < READERS; i++) {
        int status;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    ck_assert_uint_eq(atomic_load(&shared->failures), 0);
    munmap(shared, sizeof *shared);
    world_deinit(&world);
}

START_TEST(processes_one_memtable)
{
    run_processes(32 << 20, 0, 9973);
}
END_TEST

START_TEST(processes_rotation)
{
    run_processes(1 << 20, 700, 97);
}
END_TEST

TCase *sharing_cases(void)
{
    TCase *tests = tcase_create("readers beside the writer");
    tcase_add_test(tests, threads_one_memtable);
    tcase_add_test(tests, threads_many_keys);
    tcase_add_test(tests, threads_rotation);
    tcase_add_test(tests, processes_one_memtable);
    tcase_add_test(tests, processes_rotation);
    return tests;
}
