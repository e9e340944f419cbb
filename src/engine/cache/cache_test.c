/*
 * cache_test.c - the block cache: what it finds is always right, what it keeps is what is used.
 *
 * Every block's content follows from its table, offset and size, so that any lookup can be checked.
 * Random tests print their seed; AIDB_TEST_SEED repeats one.
 */
#include "config.h"

#include "engine/cache/cache.h"

#include "common/hash.h"
#include "testlib/testlib.h"

#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 16

typedef struct World {
    uint8_t *memory;
    size_t size;
    EpochDomain *epochs;
    SlotTable *slots;
    BlockCache *cache;
} World;

/* Everything in shared memory, filled with rubbish first: no initialiser may count on zeroes. */
static void world_init(World *world, size_t cache_size)
{
    world->size = 65536 + slot_table_size(SLOTS) + cache_size;
    world->memory =
        mmap(NULL, world->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(world->memory, MAP_FAILED);
    size_t rubbish = world->size < (2u << 20) ? world->size : (2u << 20);
    memset(world->memory, 0xa5, rubbish);
    uint8_t *at = world->memory;
    world->epochs = (EpochDomain *)at;
    world->slots = (SlotTable *)(at + 4096);
    at += 65536;
    slot_table_init(world->slots, at, SLOTS, NULL);
    at += slot_table_size(SLOTS);
    epoch_init(world->epochs, world->slots);
    world->cache = cache_init(cache_size > 0 ? at : NULL, cache_size, world->epochs);
    ck_assert_ptr_nonnull(world->cache);
}

static void world_deinit(World *world)
{
    munmap(world->memory, world->size);
}

/* ---- blocks whose content can be checked ------------------------------------------------------ */

static void fill_block(uint8_t *data, uint64_t table, uint64_t offset, size_t size)
{
    uint64_t word = hash_mix(table, offset) ^ size;
    for (size_t i = 0; i < size; i += 8, word += 0x9e3779b97f4a7c15u)
        memcpy(data + i, &word, size - i < 8 ? size - i : 8);
}

static bool block_is(Slice block, uint64_t table, uint64_t offset, size_t size)
{
    if (block.size != size)
        return false;
    uint64_t word = hash_mix(table, offset) ^ size;
    for (size_t i = 0; i < size; i += 8, word += 0x9e3779b97f4a7c15u)
        if (memcmp(block.data + i, &word, size - i < 8 ? size - i : 8) != 0)
            return false;
    return true;
}

typedef enum Access { FOUND, FILLED, NO_FRAME, WRONG } Access;

/* What a reader does, inside an epoch: look, or read and publish. */
static Access read_block(World *world, Slot *slot, uint64_t table, uint64_t offset, size_t size,
                         CachePriority priority)
{
    Slice block;
    if (cache_lookup(world->cache, table, offset, &block))
        return block_is(block, table, offset, size) ? FOUND : WRONG;
    CacheFill fill;
    cache_reserve(world->cache, slot, size, priority, &fill);
    if (fill.data == NULL)
        return NO_FRAME;
    fill_block(fill.data, table, offset, size);
    block = cache_publish(world->cache, slot, &fill, table, offset, size);
    return block_is(block, table, offset, size) ? FILLED : WRONG;
}

static Access read_in_epoch(World *world, Slot *slot, uint64_t table, uint64_t offset, size_t size,
                            CachePriority priority)
{
    epoch_enter(world->epochs, slot);
    Access access = read_block(world, slot, table, offset, size, priority);
    epoch_leave(slot);
    ck_assert_int_ne(access, WRONG);
    return access;
}

/* ---- tests ------------------------------------------------------------------------------------ */

START_TEST(every_size)
{
    World world;
    world_init(&world, 200u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    epoch_enter(world.epochs, slot);
    uint64_t blocks = 0;
    for (size_t size = 1; size <= CACHE_BLOCK_MAX; size += size < 2100 ? 1 : size / 9) {
        ck_assert_int_eq(read_block(&world, slot, 1, size, size, CACHE_DATA), FILLED);
        blocks++;
    }
    for (size_t power = 512; power <= CACHE_BLOCK_MAX; power *= 2) {
        for (size_t size = power - 1; size <= power + 1 && size <= CACHE_BLOCK_MAX; size++) {
            ck_assert_int_eq(read_block(&world, slot, 2, size, size, CACHE_INDEX), FILLED);
            blocks++;
        }
    }
    /* All are there, unharmed by their neighbours. */
    for (size_t size = 1; size <= CACHE_BLOCK_MAX; size += size < 2100 ? 1 : size / 9)
        ck_assert_int_eq(read_block(&world, slot, 1, size, size, CACHE_DATA), FOUND);
    Slice block;
    ck_assert(!cache_lookup(world.cache, 1, 0, &block));
    ck_assert(!cache_lookup(world.cache, 3, 100, &block));
    CacheFill fill;
    cache_reserve(world.cache, slot, CACHE_BLOCK_MAX + 1, CACHE_DATA, &fill);
    ck_assert_ptr_null(fill.data);
    uint64_t used;
    uint64_t capacity;
    uint64_t have;
    cache_usage(world.cache, &used, &capacity, &have);
    ck_assert_uint_eq(have, blocks);
    ck_assert_uint_le(used, capacity);
    ck_assert_uint_le(capacity, 200u << 20);
    ck_assert_uint_gt(capacity, 190u << 20);
    epoch_leave(slot);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* Blocks of a 4 KiB class lie on the stride of their class: little is lost. */
START_TEST(no_waste)
{
    World world;
    world_init(&world, 64u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    for (uint64_t i = 0; i < 40000; i++)
        (void)read_in_epoch(&world, slot, 1, i * 4096, 4096, CACHE_DATA);
    uint64_t used;
    uint64_t capacity;
    uint64_t have;
    cache_usage(world.cache, &used, &capacity, &have);
    ck_assert_uint_ge(have * 4096, (64u << 20) / 100 * 94);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

START_TEST(small_caches)
{
    for (size_t size = 0; size < 6u << 20; size += size < 4096 ? 511 : 300001) {
        World world;
        world_init(&world, size);
        Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
        for (uint64_t i = 0; i < 600; i++)
            (void)read_in_epoch(&world, slot, 1, i % 50 * 4096, 100 + i % 50 * 97, CACHE_DATA);
        cache_forget(world.cache, slot, 1);
        cache_drop_forgotten(world.cache, slot);
        uint64_t used;
        uint64_t capacity;
        uint64_t have;
        cache_usage(world.cache, &used, &capacity, &have);
        ck_assert_uint_le(used, capacity);
        ck_assert_uint_le(capacity, size);
        if (size == 0)
            ck_assert_uint_eq(have, 0);
        slot_release(slot);
        world_deinit(&world);
    }
}
END_TEST

START_TEST(duplicates_and_abandon)
{
    World world;
    world_init(&world, 8u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    /* Many rounds: frames of losers and abandoned fills come back. */
    for (uint64_t i = 0; i < 20000; i++) {
        epoch_enter(world.epochs, slot);
        CacheFill fills[3];
        for (int j = 0; j < 3; j++) {
            cache_reserve(world.cache, slot, 4000, CACHE_DATA, &fills[j]);
            ck_assert_ptr_nonnull(fills[j].data);
        }
        Slice blocks[2];
        for (int j = 0; j < 2; j++) {
            fill_block(fills[j].data, 5, i, 4000);
            blocks[j] = cache_publish(world.cache, slot, &fills[j], 5, i, 4000);
        }
        cache_abandon(world.cache, slot, &fills[2]);
        ck_assert_ptr_ne(blocks[0].data, blocks[1].data);
        ck_assert(block_is(blocks[0], 5, i, 4000) && block_is(blocks[1], 5, i, 4000));
        Slice found;
        ck_assert(cache_lookup(world.cache, 5, i, &found));
        ck_assert_ptr_eq(found.data, blocks[0].data);
        epoch_leave(slot);
    }
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* A hot set that fits survives a scan over much more than the cache holds. */
START_TEST(scan_resistance)
{
    World world;
    world_init(&world, 32u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    enum { HOT = 3000 };
    for (int round = 0; round < 5; round++)
        for (uint64_t i = 0; i < HOT; i++)
            (void)read_in_epoch(&world, slot, 1, i, 4096, CACHE_DATA);
    for (uint64_t i = 0; i < 50000; i++) {
        (void)read_in_epoch(&world, slot, 2, i, 4096, CACHE_DATA);
        if (i % 4 == 0) /* the hot set is used on the side */
            (void)read_in_epoch(&world, slot, 1, i / 4 % HOT, 4096, CACHE_DATA);
    }
    uint32_t found = 0;
    for (uint64_t i = 0; i < HOT; i++)
        found += read_in_epoch(&world, slot, 1, i, 4096, CACHE_DATA) == FOUND;
    printf("scan: %u of %d hot blocks are still there\n", found, HOT);
    ck_assert_uint_gt(found, HOT * 9 / 10);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* Index blocks outlive data blocks that are read as often. */
START_TEST(index_priority)
{
    World world;
    world_init(&world, 32u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    uint64_t state = test_seed("index_priority");
    uint32_t found[2] = {0, 0};
    uint32_t asked[2] = {0, 0};
    for (int i = 0; i < 300000; i++) {
        /* 2000 index blocks and 20000 data blocks, each data block asked for half as often */
        CachePriority kind = test_random(&state) % 6 == 0 ? CACHE_INDEX : CACHE_DATA;
        uint64_t which = test_random(&state) % (kind == CACHE_INDEX ? 2000 : 20000);
        Access access = read_in_epoch(&world, slot, kind + 1, which, 4096, kind);
        if (i > 150000) {
            found[kind] += access == FOUND;
            asked[kind]++;
        }
    }
    double data = (double)found[0] / asked[0];
    double index = (double)found[1] / asked[1];
    printf("hit ratios: data %.3f, index %.3f\n", data, index);
    ck_assert(index > 0.95);
    ck_assert(data > 0.25);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* Blocks that take the place of others are not on probation, nor do they live for ever. */
START_TEST(moved_blocks)
{
    enum { MOVED = 1000 }; /* of about 3700 that fit */
    World world;
    world_init(&world, 16u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    uint64_t held = 0;
    for (uint64_t i = 0; i < 4000; i++)
        (void)read_in_epoch(&world, slot, 1, i, 4096, CACHE_DATA);
    for (uint64_t i = 0; i < MOVED; i++)
        (void)read_in_epoch(&world, slot, 2, i, 4096, CACHE_MOVED);
    for (uint64_t i = 0; i < 4000; i++)
        (void)read_in_epoch(&world, slot, 3, i, 4096, CACHE_DATA);
    epoch_enter(world.epochs, slot);
    for (uint64_t i = 0; i < MOVED; i++)
        held += cache_holds(world.cache, 2, i);
    ck_assert(!cache_holds(world.cache, 2, MOVED));
    epoch_leave(slot);
    printf("%" PRIu64 " of %d moved blocks held\n", held, MOVED);
    ck_assert_uint_gt(held, MOVED * 9 / 10);
    for (uint64_t i = 0; i < 20000; i++)
        (void)read_in_epoch(&world, slot, 4, i % 5000, 4096, CACHE_DATA);
    held = 0;
    epoch_enter(world.epochs, slot);
    for (uint64_t i = 0; i < MOVED; i++)
        held += cache_holds(world.cache, 2, i);
    epoch_leave(slot);
    ck_assert_uint_lt(held, MOVED / 2);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* A skewed working set larger than the cache: the hit ratio comes near to what is possible. */
START_TEST(skewed_hits)
{
    World world;
    world_init(&world, 16u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    uint64_t state = test_seed("skewed_hits");
    uint32_t found = 0;
    uint32_t asked = 0;
    for (int i = 0; i < 400000; i++) {
        /* 80% of the reads go to 2000 of 40000 blocks; the cache holds about 3700 */
        uint64_t which =
            test_random(&state) % 5 != 0 ? test_random(&state) % 2000 : test_random(&state) % 40000;
        Access access = read_in_epoch(&world, slot, 1, which, 4096, CACHE_DATA);
        if (i > 100000) {
            found += access == FOUND;
            asked++;
        }
    }
    double ratio = (double)found / asked;
    printf("hit ratio %.3f\n", ratio); /* the hot ones and a twentieth of the rest: 0.81 */
    ck_assert(ratio > 0.78);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* Memory follows the sizes that are in use. */
START_TEST(classes_change)
{
    World world;
    world_init(&world, 32u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    static const size_t sizes[] = {4096, 32700, 600, 200000, 16000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t count = (32u << 20) / sizes[s] / 2; /* half the cache */
        uint64_t found = 0;
        for (int round = 0; round < 60; round++) {
            found = 0;
            for (uint64_t i = 0; i < count; i++)
                found +=
                    read_in_epoch(&world, slot, 10 + s, i << 20, sizes[s], CACHE_DATA) == FOUND;
        }
        printf("blocks of %zu bytes: %" PRIu64 " of %" PRIu64 " found\n", sizes[s], found, count);
        ck_assert_uint_ge(found, count * 9 / 10);
    }
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* One reader that never leaves its epoch: frames run out, nobody waits, and all is well afterwards. */
START_TEST(exhaustion)
{
    World world;
    world_init(&world, 8u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    Slot *stuck = slot_claim(world.slots, 1, SLOT_THREAD);
    for (uint64_t i = 0; i < 3000; i++)
        (void)read_in_epoch(&world, slot, 1, i, 4096, CACHE_DATA);
    epoch_enter(world.epochs, stuck);
    Slice seen = {0};
    uint64_t which = 0;
    for (uint64_t i = 3000; i-- > 0 && seen.data == NULL;)
        if (cache_lookup(world.cache, 1, i, &seen))
            which = i;
    ck_assert_ptr_nonnull(seen.data);
    uint32_t refused = 0;
    for (uint64_t i = 0; i < 20000; i++)
        refused += read_in_epoch(&world, slot, 2, i, 4096, CACHE_DATA) == NO_FRAME;
    ck_assert_uint_gt(refused, 10000);
    ck_assert(block_is(seen, 1, which, 4096)); /* what it looks at is untouched */
    epoch_leave(stuck);
    uint32_t filled = 0;
    for (uint64_t i = 0; i < 5000; i++)
        filled += read_in_epoch(&world, slot, 3, i, 4096, CACHE_DATA) == FILLED;
    ck_assert_uint_eq(filled, 5000);

    /* All frames reserved at once, then given back. */
    static CacheFill fills[4000];
    uint32_t count = 0;
    epoch_enter(world.epochs, slot);
    for (; count < 4000; count++) {
        cache_reserve(world.cache, slot, 4096, CACHE_DATA, &fills[count]);
        if (fills[count].data == NULL)
            break;
    }
    ck_assert_uint_gt(count, 30);
    ck_assert_uint_lt(count, 4000);
    for (uint32_t i = 0; i < count; i++)
        cache_abandon(world.cache, slot, &fills[i]);
    epoch_leave(slot);
    ck_assert_int_eq(read_in_epoch(&world, slot, 4, 0, 4096, CACHE_DATA), FILLED);
    slot_release(stuck);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* How many of a table's first 1,500 blocks are there. */
static uint32_t blocks_held(const World *world, Slot *slot, uint64_t table)
{
    uint32_t held = 0;
    epoch_enter(world->epochs, slot);
    for (uint64_t i = 0; i < 1500; i++)
        held += cache_holds(world->cache, table, i);
    epoch_leave(slot);
    return held;
}

/* What was deleted makes room at once, however hot it was, and nothing else goes. */
START_TEST(forgotten_tables)
{
    World world;
    world_init(&world, 16u << 20);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    for (int round = 0; round < 8; round++)
        for (uint64_t i = 0; i < 1500; i++)
            for (uint64_t table = 1; table <= 2; table++)
                (void)read_in_epoch(&world, slot, table, i, 4096,
                                    i % 50 == 0 ? CACHE_INDEX : CACHE_DATA);
    uint32_t held = blocks_held(&world, slot, 2);
    ck_assert_uint_gt(blocks_held(&world, slot, 1), 1000);
    ck_assert_uint_gt(held, 1000);
    cache_forget(world.cache, slot, 1);
    cache_drop_forgotten(world.cache, slot);
    ck_assert_uint_eq(blocks_held(&world, slot, 1), 0);
    ck_assert_uint_eq(blocks_held(&world, slot, 2), held);
    uint64_t used, capacity, blocks;
    cache_usage(world.cache, &used, &capacity, &blocks);
    ck_assert_uint_eq(blocks, held);
    for (uint64_t i = 0; i < 1000; i++)
        ck_assert_int_eq(read_in_epoch(&world, slot, 3, i, 4096, CACHE_DATA), FILLED);
    ck_assert_uint_eq(blocks_held(&world, slot, 2), held);
    ck_assert_uint_eq(blocks_held(&world, slot, 3), 1000);
    ck_assert_uint_eq(cache_lost_frames(world.cache), 0);
    slot_release(slot);
    world_deinit(&world);
}
END_TEST

/* With a thread that prepares, data blocks get memory that it touched, and nobody waits for it. */
START_TEST(prepared_ahead)
{
    enum { SIZE = 70u << 20, BLOCKS = 30000 };
    World world;
    world_init(&world, SIZE);
    Slot *slot = slot_claim(world.slots, 0, SLOT_THREAD);
    Slot *preparer = slot_claim(world.slots, 1, SLOT_PREPARER);
    uint64_t used, capacity, blocks;
    bool done;
    ck_assert(!cache_prepare(world.cache, preparer, &done)); /* nothing is in use yet */
    ck_assert(!done);
    /* The first block of a class need not wait; when its chunk is full data blocks do, others do not. */
    uint64_t next = 0;
    while (read_in_epoch(&world, slot, 1, next, 4096, CACHE_DATA) == FILLED)
        next++;
    ck_assert_uint_gt(next, 200);
    ck_assert_uint_lt(next, 260);
    ck_assert_int_eq(read_in_epoch(&world, slot, 2, 0, 9000, CACHE_DATA), FILLED);
    latch_wait(preparer, -1, -1); /* returns: the preparer was woken */
    ck_assert(cache_prepare(world.cache, preparer, &done));
    ck_assert_int_eq(read_in_epoch(&world, slot, 1, next, 4096, CACHE_DATA), FILLED);
    for (uint64_t i = 0; i < 1000; i++)
        ck_assert_int_eq(read_in_epoch(&world, slot, 3, i, 4096, CACHE_INDEX), FILLED);
    /* Never further ahead than is in use, nor than a few MiB. */
    for (uint32_t ahead = 0; cache_prepare(world.cache, preparer, &done); ahead++)
        ck_assert_uint_lt(ahead, 8);
    for (uint64_t i = 0; i < BLOCKS; i++) {
        (void)read_in_epoch(&world, slot, 4, i, 4096, CACHE_DATA);
        if (i % 100 == 0)
            (void)cache_prepare(world.cache, preparer, &done);
    }
    ck_assert(!cache_prepare(world.cache, preparer, &done));
    ck_assert(done);
    cache_usage(world.cache, &used, &capacity, &blocks);
    printf("prepared ahead: %" PRIu64 " of %" PRIu64 " bytes used\n", used, capacity);
    ck_assert_uint_gt(used, capacity / 10 * 9);
    ck_assert_uint_eq(cache_lost_frames(world.cache), 0);
    slot_release(slot);
    slot_release(preparer);
    world_deinit(&world);
}
END_TEST

/* ---- many at once ----------------------------------------------------------------------------- */

/* The size of a block follows from its place, so that every reader agrees on it. */
static size_t size_of(uint64_t table, uint64_t offset, uint32_t phase)
{
    static const size_t sizes[4][4] = {{4096, 3900, 700, 32000},
                                       {16000, 16384, 4000, 200000},
                                       {512, 600, 900, 1000},
                                       {4096, 100, 250000, 8000}};
    return sizes[phase % 4][hash_mix(table, offset) % 4];
}

typedef struct Worker {
    World *world;
    uint32_t index;
    uint64_t seed;
    uint32_t rounds;
    uint32_t wrong;
    uint32_t found;
} Worker;

static void *work(void *arg)
{
    Worker *worker = arg;
    World *world = worker->world;
    Slot *slot = slot_claim(world->slots, worker->index, SLOT_THREAD);
    uint64_t state = worker->seed + worker->index;
    enum { HELD = 24 };
    for (uint32_t round = 0; round < worker->rounds; round++) {
        /* Several blocks are held in one epoch and checked once more before it ends. */
        Slice held[HELD];
        uint64_t places[HELD];
        uint64_t tables[HELD];
        size_t sizes[HELD];
        uint32_t count = 0;
        uint32_t phase = round * 6 / worker->rounds;
        epoch_enter(world->epochs, slot);
        for (uint32_t i = 0; i < 1 + test_random(&state) % HELD; i++) {
            uint64_t table = phase * 2 + test_random(&state) % 3;
            uint64_t offset =
                test_random(&state) % (test_random(&state) % 2 == 0 ? 60 : 4000) * 4096;
            size_t size = size_of(table, offset, (uint32_t)table / 2);
            Slice block;
            if (cache_lookup(world->cache, table, offset, &block)) {
                worker->found++;
            } else {
                CacheFill fill;
                cache_reserve(world->cache, slot, size, table % 5 == 0 ? CACHE_INDEX : CACHE_DATA,
                              &fill);
                if (fill.data == NULL)
                    continue;
                fill_block(fill.data, table, offset, size);
                if (test_random(&state) % 50 == 0) {
                    cache_abandon(world->cache, slot, &fill);
                    continue;
                }
                block = cache_publish(world->cache, slot, &fill, table, offset, size);
            }
            held[count] = block;
            tables[count] = table;
            places[count] = offset;
            sizes[count] = size;
            count++;
        }
        for (uint32_t i = 0; i < count; i++)
            worker->wrong += !block_is(held[i], tables[i], places[i], sizes[i]);
        epoch_leave(slot);
        if (test_random(&state) % 500 == 0) {
            cache_forget(world->cache, slot, test_random(&state) % 12);
            cache_drop_forgotten(world->cache, slot);
        }
    }
    slot_release(slot);
    return NULL;
}

typedef struct Preparing {
    World *world;
    _Atomic bool stop;
} Preparing;

static void *prepare(void *arg)
{
    Preparing *preparing = arg;
    Slot *slot = slot_claim(preparing->world->slots, SLOTS - 1, SLOT_PREPARER);
    bool done = false;
    while (!done && !atomic_load(&preparing->stop))
        if (!cache_prepare(preparing->world->cache, slot, &done) && !done)
            latch_wait(slot, -1, 1000);
    slot_release(slot);
    return NULL;
}

/* The last has somebody who prepares memory. */
START_TEST(threads)
{
    uint64_t seed = test_seed("threads");
    World world;
    world_init(&world, _i != 1 ? 12u << 20 : 300u << 20); /* the second has shards */
    enum { THREADS = 4 };
    pthread_t ids[THREADS], preparer;
    Preparing preparing = {.world = &world};
    if (_i == 2)
        ck_assert_int_eq(pthread_create(&preparer, NULL, prepare, &preparing), 0);
    Worker workers[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] =
            (Worker){.world = &world, .index = i, .seed = seed, .rounds = _i == 2 ? 1500 : 4000};
        ck_assert_int_eq(pthread_create(&ids[i], NULL, work, &workers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(ids[i], NULL);
        ck_assert_uint_eq(workers[i].wrong, 0);
        ck_assert_uint_gt(workers[i].found, 0);
    }
    if (_i == 2) {
        atomic_store(&preparing.stop, true);
        latch_wake(&world.slots->slots[SLOTS - 1]);
        pthread_join(preparer, NULL);
        ck_assert_uint_eq(cache_lost_frames(world.cache), 0);
    }
    world_deinit(&world);
}
END_TEST

START_TEST(processes)
{
    uint64_t seed = test_seed("processes");
    World world;
    world_init(&world, 12u << 20);
    enum { PROCESSES = 4 };
    pid_t pids[PROCESSES];
    for (uint32_t i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        ck_assert_int_ge(pids[i], 0);
        if (pids[i] == 0) {
            Worker worker = {.world = &world, .index = i, .seed = seed, .rounds = 6000};
            work(&worker);
            _exit(worker.wrong == 0 && worker.found > 0 ? 0 : 3);
        }
    }
    for (uint32_t i = 0; i < PROCESSES; i++) {
        int state;
        ck_assert_int_eq(waitpid(pids[i], &state, 0), pids[i]);
        ck_assert(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    }
    /* The parent goes on with what the children left. */
    Worker worker = {.world = &world, .index = 9, .seed = seed + 1, .rounds = 2000};
    work(&worker);
    ck_assert_uint_eq(worker.wrong, 0);
    world_deinit(&world);
}
END_TEST

static Suite *cache_suite(void)
{
    Suite *suite = suite_create("cache");
    TCase *one = tcase_create("one reader");
    tcase_set_timeout(one, 120);
    tcase_add_test(one, every_size);
    tcase_add_test(one, no_waste);
    tcase_add_test(one, small_caches);
    tcase_add_test(one, duplicates_and_abandon);
    tcase_add_test(one, scan_resistance);
    tcase_add_test(one, index_priority);
    tcase_add_test(one, moved_blocks);
    tcase_add_test(one, skewed_hits);
    tcase_add_test(one, classes_change);
    tcase_add_test(one, exhaustion);
    tcase_add_test(one, forgotten_tables);
    tcase_add_test(one, prepared_ahead);
    suite_add_tcase(suite, one);
    TCase *many = tcase_create("many readers");
    tcase_set_timeout(many, 300);
    tcase_add_loop_test(many, threads, 0, 3);
    tcase_add_test(many, processes);
    suite_add_tcase(suite, many);
    return suite;
}

int main(void)
{
    return test_run(cache_suite());
}
