/* test_memtable.c - a pool and what is done with it. */
#include "config.h"

#include "engine/memtable/test_memtable.h"

#include <check.h>
#include <string.h>
#include <sys/mman.h>

uint64_t mix(uint64_t word)
{
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return word ^ (word >> 31);
}

Slice text(const char *string)
{
    return slice_from_string(string);
}

void seek_first(Iter *iter)
{
    ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
}

void seek_last(Iter *iter)
{
    ck_assert_int_eq(iter->ops->seek_last(iter), AIDB_OK);
}

void world_init(World *world, uint64_t capacity)
{
    size_t slot_bytes = (slot_table_size(SLOTS) + 4095) / 4096 * 4096;
    size_t pool_bytes = mempool_size(capacity);
    *world = (World){.size = slot_bytes + 4096 + pool_bytes};
    world->memory =
        mmap(NULL, world->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(world->memory, MAP_FAILED);
    memset(world->memory, 0xa5, slot_bytes + 4096 + (pool_bytes < 1 << 20 ? pool_bytes : 1 << 20));
    uint8_t *at = world->memory;
    slot_table_init(&world->slots, at, SLOTS, NULL);
    world->epochs = (EpochDomain *)(void *)(at + slot_bytes);
    epoch_init(world->epochs, &world->slots);
    world->pool = mempool_init(at + slot_bytes + 4096, capacity, world->epochs);
    world->slot = slot_claim(&world->slots, 0, SLOT_THREAD);
    ck_assert_ptr_nonnull(world->slot);
}

void world_deinit(World *world)
{
    slot_release(world->slot);
    munmap(world->memory, world->size);
}

Memtable *world_create(World *world)
{
    Memtable *memtable;
    ck_assert_int_eq(memtable_create(world->pool, world->slot, &memtable), AIDB_OK);
    ck_assert_uint_eq(memtable_bytes(memtable), 0);
    ck_assert_uint_eq(memtable_entries(memtable), 0);
    ck_assert_uint_eq(memtable_first_lsn(memtable), 0);
    ck_assert_uint_eq(memtable_last_lsn(memtable), 0);
    ck_assert(!memtable_has_ranges(memtable));
    return memtable;
}

void put(World *world, Memtable *memtable, Slice key, Slice value, uint64_t lsn)
{
    uint64_t payload = key.size + value.size;
    ck_assert_int_eq(memtable_secure(memtable, world->slot, 1, RANGE_LOAD_NONE, payload), AIDB_OK);
    uint64_t need = memtable_need(memtable, 1, RANGE_LOAD_NONE, payload);
    uint64_t before = memtable_bytes(memtable);
    memtable_add(memtable, OP_PUT, key, value, lsn);
    ck_assert_uint_le(memtable_bytes(memtable) - before, need);
}

void delete_range(World *world, Memtable *memtable, Slice from, Slice to, uint64_t lsn)
{
    uint64_t payload = from.size + to.size;
    ck_assert_int_eq(memtable_secure(memtable, world->slot, 0, RANGE_LOAD_ONE, payload), AIDB_OK);
    uint64_t need = memtable_need(memtable, 0, RANGE_LOAD_ONE, payload);
    uint64_t before = memtable_bytes(memtable);
    memtable_add_range(memtable, from, to, lsn);
    ck_assert_uint_le(memtable_bytes(memtable) - before, need);
}
