/*
 * memtable_bench.c - inserts and gets a second of one memtable, for three kinds of keys: 16 random
 * bytes, "key:%012d" in random order, and the same in rising order. One thread, timed by its CPU
 * clock; values of 8 bytes, so that the index is what is measured.
 *
 * Usage: memtable_bench [COUNT]
 */
#include "config.h"
#include "engine/memtable/memtable.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static uint64_t mix(uint64_t word)
{
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return word ^ (word >> 31);
}

typedef enum KeyKind { KEYS_RANDOM, KEYS_TEXT_RANDOM, KEYS_TEXT_RISING, KEY_KINDS } KeyKind;

static const char *const kind_names[] = {"random 16 B", "key:%012d random", "key:%012d rising"};

static void make_key(KeyKind kind, uint64_t index, uint64_t count, char key[17])
{
    if (kind == KEYS_RANDOM) {
        uint64_t words[2] = {mix(index + 1), mix(~index)};
        memcpy(key, words, sizeof words);
        return;
    }
    uint64_t number = kind == KEYS_TEXT_RISING ? index : mix(index + 1) % (10 * count);
    snprintf(key, 17, "key:%012" PRIu64, number % 1000000000000u);
}

/* CPU time of this thread: what else runs on the machine disturbs it least. */
static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(cpu_ns() - start_ns) / 1e9;
}

static int run(MemPool *pool, Slot *slot, KeyKind kind, uint64_t count, char (*keys)[17])
{
    for (uint64_t i = 0; i < count; i++)
        make_key(kind, i, count, keys[i]);
    Memtable *memtable;
    if (memtable_create(pool, slot, &memtable) != AIDB_OK)
        return 1;
    uint64_t start = cpu_ns();
    for (uint64_t i = 0; i < count; i++) {
        if (memtable_secure(memtable, slot, 1, RANGE_LOAD_NONE, 24) != AIDB_OK)
            return 1;
        memtable_add(memtable, OP_PUT, slice_make(keys[i], 16), slice_make(&i, sizeof i), i + 1);
    }
    double insert_seconds = seconds_since(start);

    uint64_t found = 0;
    start = cpu_ns();
    for (uint64_t i = 0; i < count; i++) {
        Entry entry;
        found += memtable_get(memtable, slice_make(keys[mix(i) % count], 16), LSN_MAX, &entry);
    }
    double get_seconds = seconds_since(start);

    uint64_t found_many = 0;
    start = cpu_ns();
    for (uint64_t i = 0; i < count; i += MEMTABLE_GETS_MAX) {
        Slice wanted[MEMTABLE_GETS_MAX];
        Entry entries[MEMTABLE_GETS_MAX], *places[MEMTABLE_GETS_MAX];
        bool hits[MEMTABLE_GETS_MAX];
        size_t some = 0;
        for (; some < MEMTABLE_GETS_MAX && i + some < count; some++) {
            wanted[some] = slice_make(keys[mix(i + some) % count], 16);
            places[some] = &entries[some];
        }
        memtable_get_many(memtable, some, wanted, LSN_MAX, places, hits);
        for (size_t k = 0; k < some; k++)
            found_many += hits[k];
    }
    double many_seconds = seconds_since(start);

    uint64_t missed = 0;
    start = cpu_ns();
    for (uint64_t i = 0; i < count; i++) {
        char key[17];
        memcpy(key, keys[mix(i) % count], sizeof key);
        key[15] ^= 0x40;
        Entry entry;
        missed += !memtable_get(memtable, slice_make(key, 16), LSN_MAX, &entry);
    }
    double miss_seconds = seconds_since(start);

    Iter *iter;
    if (memtable_iter_create(memtable, &iter) != AIDB_OK)
        return 1;
    uint64_t seen = 0;
    start = cpu_ns();
    Status status = iter->ops->seek_first(iter);
    for (; status == AIDB_OK && iter->valid; seen++)
        status = iter->ops->next(iter);
    double scan_seconds = seconds_since(start);
    iter_destroy(iter);
    if (found != count || found_many != count || seen != count || missed < count / 2)
        return 1;
    printf(
        "%-18s %6.2f M inserts/s %6.2f M gets/s %6.2f in sixteens %6.2f M misses/s %7.2f M next/s "
        "%5.0f B/entry\n",
        kind_names[kind], (double)count / insert_seconds / 1e6, (double)count / get_seconds / 1e6,
        (double)count / many_seconds / 1e6, (double)count / miss_seconds / 1e6,
        (double)count / scan_seconds / 1e6, (double)memtable_bytes(memtable) / (double)count);
    memtable_retire(memtable, slot);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    if (count == 0 || count > 100000000) {
        fprintf(stderr, "usage: %s [COUNT]\n", argv[0]);
        return 3;
    }
    size_t pool_bytes = mempool_size(count * 160 + (1 << 20));
    char(*keys)[17] = malloc(count * sizeof *keys);
    void *memory = mmap(NULL, pool_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    SlotTable slots;
    EpochDomain epochs;
    void *slot_memory = aligned_alloc(PORT_CACHE_LINE, (slot_table_size(1) + 127) / 128 * 128);
    if (keys == NULL || memory == MAP_FAILED || slot_memory == NULL) {
        fprintf(stderr, "%s: out of memory\n", argv[0]);
        return 1;
    }
    slot_table_init(&slots, slot_memory, 1, NULL);
    epoch_init(&epochs, &slots);
    Slot *slot = slot_claim(&slots, 0, SLOT_THREAD);
    MemPool *pool = mempool_init(memory, count * 160 + (1 << 20), &epochs);
    int failed = 0;
    for (int kind = 0; kind < KEY_KINDS && !failed; kind++)
        failed = run(pool, slot, kind, count, keys);
    if (failed)
        fprintf(stderr, "%s: a run failed\n", argv[0]);
    munmap(memory, pool_bytes);
    free(slot_memory);
    free(keys);
    return failed;
}
