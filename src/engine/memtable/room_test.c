/* room_test.c - the promises of memtable_secure, exhaustion and reuse. */
#include "config.h"

#include "engine/memtable/test_memtable.h"

#include <stdlib.h>
#include <string.h>

static Slice big_endian(uint64_t *number)
{
    *number = __builtin_bswap64(*number);
    return slice_make(number, sizeof *number);
}

/* Whatever a batch holds, what was secured for it is enough: the memtable takes no more than it
 * said, and nothing that stood there before is touched. */
START_TEST(secure_is_enough)
{
    test_draw_seed("secure_is_enough");
    World world;
    world_init(&world, 8 << 20);
    static uint8_t filler[100000];
    Batch batch = {0};
    for (int round = 0; round < 6; round++) {
        Memtable *memtable = world_create(&world);
        Memtable *other = world_create(&world); /* takes chunks in between */
        uint64_t lsn = 0;
        uint64_t other_lsn = 0;
        uint64_t ranges = 0;
        for (;;) {
            size_t op_count = test_draw_below(40);
            size_t range_count = test_draw_below(6) == 0 ? test_draw_below(20) : 0;
            batch_clear(&batch);
            uint32_t value_size = test_draw_below(20) == 0 ? 80000 : 1 + test_draw_below(300);
            uint64_t width = test_draw_below(2) == 0 ? UINT64_MAX : UINT64_MAX / 64;
            for (size_t i = 0; i < range_count; i++) {
                uint64_t from = test_draw();
                uint64_t to = from + test_draw_below(width);
                ck_assert_int_eq(batch_delete_range(&batch, big_endian(&from), big_endian(&to)),
                                 AIDB_OK);
            }
            RangeLoad load;
            ck_assert_int_eq(batch_range_load(buffer_slice(&batch.ops), batch.range_count, &load),
                             AIDB_OK);
            uint64_t payload = op_count * (16 + value_size) + range_count * 16;
            if (memtable_secure(memtable, world.slot, op_count, load, payload) != AIDB_OK)
                break;
            uint64_t need = memtable_need(memtable, op_count, load, payload);
            uint64_t before = memtable_bytes(memtable);
            for (size_t i = 0; i < op_count; i++) {
                uint64_t key[2] = {test_draw(), lsn};
                memtable_add(memtable, OP_PUT, slice_make(key, 16), slice_make(filler, value_size),
                             ++lsn);
            }
            size_t cursor = 0;
            BatchOp op;
            bool damaged = false;
            while (batch_next(buffer_slice(&batch.ops), &cursor, &op, &damaged)) {
                memtable_add_range(memtable, op.key, op.value, ++lsn);
                ranges++;
            }
            ck_assert_uint_le(memtable_bytes(memtable) - before, need);
            if (test_draw_below(10) == 0 &&
                memtable_secure(other, world.slot, 1, RANGE_LOAD_NONE, 8 + 1000) == AIDB_OK) {
                other_lsn++;
                memtable_add(other, OP_PUT, slice_make(&other_lsn, 8), slice_make(filler, 1000),
                             other_lsn);
            }
        }
        ck_assert_uint_eq(memtable_entries(memtable), lsn);
        Iter *iter;
        ck_assert_int_eq(memtable_iter_create(memtable, &iter), AIDB_OK);
        uint64_t seen = 0;
        for (seek_first(iter); iter->valid; seen++)
            ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
        ck_assert_uint_eq(seen, lsn - ranges);
        iter_destroy(iter);
        for (uint64_t key = 1; key <= other_lsn; key++) {
            Entry entry;
            ck_assert(memtable_get(other, slice_make(&key, 8), LSN_MAX, &entry));
            ck_assert_uint_eq(entry.lsn, key);
            ck_assert_uint_eq(entry.value.size, 1000);
        }
        memtable_retire(memtable, world.slot);
        memtable_retire(other, world.slot);
    }
    uint64_t used;
    uint64_t capacity;
    Memtable *memtable = world_create(&world);
    mempool_usage(world.pool, &used, &capacity);
    ck_assert_uint_eq(used, 0);
    ck_assert_uint_ge(capacity, 8 << 20);
    memtable_retire(memtable, world.slot);
    batch_deinit(&batch);
    world_deinit(&world);
}
END_TEST

/* A full pool says so, keeps all it has, and has room again when the epoch of the last reader of a
 * retired memtable is past, not earlier. */
START_TEST(exhaustion)
{
    World world;
    world_init(&world, 256 << 10);
    Memtable *memtable = world_create(&world);
    uint64_t count = 0;
    for (;; count++) {
        uint64_t key = mix(count);
        if (memtable_secure(memtable, world.slot, 1, RANGE_LOAD_NONE, 8 + 100) != AIDB_OK)
            break;
        uint8_t value[100] = {0};
        memcpy(value, &count, 8);
        memtable_add(memtable, OP_PUT, slice_make(&key, 8), slice_make(value, 100), count + 1);
    }
    ck_assert_uint_gt(count, 1000);
    ck_assert_int_eq(memtable_secure(memtable, world.slot, 1, RANGE_LOAD_NONE, 8 + 100), AIDB_BUSY);
    ck_assert_int_eq(memtable_secure(memtable, world.slot, 1, RANGE_LOAD_NONE, 1 << 20),
                     AIDB_LIMIT);
    ck_assert_int_eq(memtable_secure(memtable, world.slot, 0,
                                     (RangeLoad){.count = 1, .depth = 1, .pieces = UINT64_MAX}, 8),
                     AIDB_LIMIT);
    ck_assert_int_eq(memtable_secure(memtable, world.slot, 0, RANGE_LOAD_NONE, 0), AIDB_OK);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = mix(i);
        Entry entry;
        ck_assert(memtable_get(memtable, slice_make(&key, 8), LSN_MAX, &entry));
        ck_assert_uint_eq(entry.lsn, i + 1);
        ck_assert_mem_eq(entry.value.data, &i, 8);
    }
    uint64_t used;
    uint64_t capacity;
    mempool_usage(world.pool, &used, &capacity);
    ck_assert_uint_eq(used, capacity);
    ck_assert_uint_le(memtable_bytes(memtable), capacity);
    ck_assert(!mempool_has_room(world.pool, world.slot, 1));

    Slot *reader = slot_claim(&world.slots, 1, SLOT_THREAD);
    ck_assert_ptr_nonnull(reader);
    epoch_enter(world.epochs, reader);
    memtable_retire(memtable, world.slot);
    Memtable *second = world_create(&world);
    ck_assert_int_eq(memtable_secure(second, world.slot, 1, RANGE_LOAD_NONE, 8), AIDB_BUSY);
    ck_assert(!mempool_has_room(world.pool, world.slot, 1));
    Entry entry;
    uint64_t key = mix(0);
    ck_assert(memtable_get(memtable, slice_make(&key, 8), LSN_MAX, &entry));
    epoch_leave(reader);
    ck_assert(mempool_has_room(world.pool, world.slot, capacity));
    ck_assert(!mempool_has_room(world.pool, world.slot, capacity + 1));
    put(&world, second, text("k"), text("v"), 1);
    ck_assert(mempool_has_room(world.pool, world.slot, capacity / 2));
    ck_assert(!mempool_has_room(world.pool, world.slot, capacity));
    mempool_usage(world.pool, &used, &capacity);
    ck_assert_uint_eq(used, 64 << 10);
    slot_release(reader);
    world_deinit(&world);
}
END_TEST

START_TEST(memtables_run_out)
{
    World world;
    world_init(&world, 1 << 20);
    Memtable *memtables[MEMTABLES_MAX];
    for (int i = 0; i < MEMTABLES_MAX; i++) {
        memtables[i] = world_create(&world);
        uint64_t number = (uint64_t)i;
        if (i < 8) /* of 64 KiB each */
            put(&world, memtables[i], text("k"), slice_make(&number, 8), 1);
    }
    Memtable *more;
    ck_assert_int_eq(memtable_create(world.pool, world.slot, &more), AIDB_BUSY);
    ck_assert_ptr_null(more);
    for (int i = 0; i < 8; i++) {
        Entry entry;
        uint64_t number = (uint64_t)i;
        ck_assert(memtable_get(memtables[i], text("k"), LSN_MAX, &entry));
        ck_assert_mem_eq(entry.value.data, &number, 8);
    }
    Slot *reader = slot_claim(&world.slots, 1, SLOT_THREAD);
    ck_assert_ptr_nonnull(reader);
    epoch_enter(world.epochs, reader);
    memtable_retire(memtables[3], world.slot);
    ck_assert_int_eq(memtable_create(world.pool, world.slot, &more), AIDB_BUSY);
    epoch_leave(reader);
    ck_assert_int_eq(memtable_create(world.pool, world.slot, &more), AIDB_OK);
    ck_assert_ptr_eq(more, memtables[3]);
    slot_release(reader);
    world_deinit(&world);
}
END_TEST

/* What a memtable secured and did not use goes to others when it moves on to another run. */
START_TEST(unused_run_returns)
{
    World world;
    world_init(&world, 640 << 10); /* ten chunks */
    Memtable *a = world_create(&world);
    Memtable *b = world_create(&world);
    ck_assert_int_eq(memtable_secure(a, world.slot, 1, RANGE_LOAD_NONE, 250 << 10),
                     AIDB_OK); /* 0 to 3 */
    memtable_add(a, OP_PUT, text("a"), text("small"), 1);
    put(&world, b, text("b"), text("in chunk 4"), 1);
    ck_assert_int_eq(memtable_secure(a, world.slot, 1, RANGE_LOAD_NONE, 300 << 10),
                     AIDB_OK); /* 5 to 9 */
    uint64_t used;
    uint64_t capacity;
    mempool_usage(world.pool, &used, &capacity);
    ck_assert_uint_eq(capacity, 640 << 10);
    ck_assert_uint_eq(used, 7 * (64 << 10));
    ck_assert(mempool_has_room(world.pool, world.slot, 3 * (64 << 10)));
    ck_assert(!mempool_has_room(world.pool, world.slot, 4 * (64 << 10)));
    Entry entry;
    ck_assert(memtable_get(a, text("a"), LSN_MAX, &entry));
    ck_assert(slice_equal(entry.value, text("small")));
    world_deinit(&world);
}
END_TEST

START_TEST(pool_sizes)
{
    static const uint64_t capacities[] = {0,       1,       100000,         64 << 10,
                                          1 << 20, 5 << 20, (64 << 20) + 1, (uint64_t)1 << 30};
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++) {
        World world;
        world_init(&world, capacities[i]);
        uint64_t used;
        uint64_t capacity;
        mempool_usage(world.pool, &used, &capacity);
        ck_assert_uint_eq(used, 0);
        ck_assert_uint_ge(capacity, capacities[i]);
        ck_assert(mempool_has_room(world.pool, world.slot, capacity));
        ck_assert(!mempool_has_room(world.pool, world.slot, capacity + 1));
        Memtable *memtable = world_create(&world);
        put(&world, memtable, text("k"), text("v"), 1);
        /* All of it can be used, to the last byte of the pool. */
        uint64_t rest =
            capacity - memtable_bytes(memtable) - memtable_need(memtable, 1, RANGE_LOAD_NONE, 0);
        if (capacity <= 64 << 20) {
            uint8_t *value = calloc(1, rest);
            ck_assert_ptr_nonnull(value);
            put(&world, memtable, text(""), slice_make(value, rest), 2);
            free(value);
        }
        world_deinit(&world);
    }
    /* 32-bit references reach no further. */
    ck_assert_uint_le(mempool_size(UINT64_MAX), (uint64_t)32 << 30);
    ck_assert_uint_gt(mempool_size(UINT64_MAX), (uint64_t)31 << 30);
}
END_TEST

TCase *room_cases(void)
{
    TCase *tests = tcase_create("room");
    tcase_add_test(tests, secure_is_enough);
    tcase_add_test(tests, exhaustion);
    tcase_add_test(tests, memtables_run_out);
    tcase_add_test(tests, unused_run_returns);
    tcase_add_test(tests, pool_sizes);
    return tests;
}
