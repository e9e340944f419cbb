/*
 * memtable_test.c - memtables against simple models: every snapshot, every range tombstone by brute
 * force, the promises of memtable_secure, exhaustion and reuse, and readers beside a writer, as
 * threads (for the thread sanitizer) and as processes.
 *
 * Random tests print their seed; AIDB_TEST_SEED repeats one.
 */
#include "config.h"
#include "engine/memtable/memtable_internal.h"

#include "testlib/testlib.h"

#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- helpers --------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t word)
{
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return word ^ (word >> 31);
}

static Slice text(const char *string)
{
    return slice_from_string(string);
}

static void seek_first(Iter *iter)
{
    ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
}

static void seek_last(Iter *iter)
{
    ck_assert_int_eq(iter->ops->seek_last(iter), AIDB_OK);
}

#define SLOTS 8

/* A pool in shared memory that was full of rubbish before, as after a reset of the region. */
typedef struct World {
    void *memory;
    size_t size;
    SlotTable slots;
    EpochDomain *epochs;
    MemPool *pool;
    Slot *slot; /* the test's own */
} World;

static void world_init(World *world, uint64_t capacity)
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

static void world_deinit(World *world)
{
    slot_release(world->slot);
    munmap(world->memory, world->size);
}

static Memtable *world_create(World *world)
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

static void put(World *world, Memtable *memtable, Slice key, Slice value, uint64_t lsn)
{
    uint64_t payload = key.size + value.size;
    ck_assert_int_eq(memtable_secure(memtable, world->slot, 1, RANGE_LOAD_NONE, payload), AIDB_OK);
    uint64_t need = memtable_need(memtable, 1, RANGE_LOAD_NONE, payload);
    uint64_t before = memtable_bytes(memtable);
    memtable_add(memtable, OP_PUT, key, value, lsn);
    ck_assert_uint_le(memtable_bytes(memtable) - before, need);
}

static void delete_range(World *world, Memtable *memtable, Slice from, Slice to, uint64_t lsn)
{
    uint64_t payload = from.size + to.size;
    ck_assert_int_eq(memtable_secure(memtable, world->slot, 0, RANGE_LOAD_ONE, payload), AIDB_OK);
    uint64_t need = memtable_need(memtable, 0, RANGE_LOAD_ONE, payload);
    uint64_t before = memtable_bytes(memtable);
    memtable_add_range(memtable, from, to, lsn);
    ck_assert_uint_le(memtable_bytes(memtable) - before, need);
}

/* ---- entries against a model ----------------------------------------------------------------- */

#define MODEL_MAX 600

typedef struct Model {
    uint8_t keys[MODEL_MAX][24];
    uint8_t values[MODEL_MAX][40];
    Entry entries[MODEL_MAX]; /* in the order of their LSNs */
    Entry sorted[MODEL_MAX];  /* in internal order */
    size_t count;
} Model;

static int compare_entries(const void *a, const void *b)
{
    const Entry *left = a;
    const Entry *right = b;
    return entry_compare(left->key, left->lsn, right->key, right->lsn);
}

/* Keys of 1 to 20 bytes that often share long beginnings and often are the same. */
static size_t random_key(uint8_t *key)
{
    static const uint8_t letters[] = {0x00, 0x01, 'k', 0xfe, 0xff};
    size_t size = 1 + test_draw_below(20);
    memset(key, "k\x00\xff"[test_draw_below(3)], size);
    for (size_t i = 0; i < 2; i++)
        key[test_draw_below((uint32_t)size)] = letters[test_draw_below(sizeof letters)];
    return size;
}

static void model_make(Model *model, size_t count)
{
    uint64_t lsn = test_draw_below(3);
    model->count = count;
    for (size_t i = 0; i < count; i++) {
        lsn += 1 + test_draw_below(3);
        size_t key_size = random_key(model->keys[i]);
        size_t value_size = test_draw_below(sizeof model->values[i]);
        for (size_t j = 0; j < value_size; j++)
            model->values[i][j] = (uint8_t)test_draw();
        bool is_put = test_draw_below(4) != 0;
        model->entries[i] = (Entry){.key = slice_make(model->keys[i], key_size),
                                    .value = slice_make(model->values[i], is_put ? value_size : 0),
                                    .lsn = lsn,
                                    .type = is_put ? OP_PUT : OP_DELETE};
    }
}

static void model_sort(Model *model)
{
    memcpy(model->sorted, model->entries, model->count * sizeof model->entries[0]);
    qsort(model->sorted, model->count, sizeof model->sorted[0], compare_entries);
}

static void check_entry(const Entry *entry, const Entry *expected)
{
    ck_assert(slice_equal(entry->key, expected->key));
    ck_assert(slice_equal(entry->value, expected->value));
    ck_assert_uint_eq(entry->lsn, expected->lsn);
    ck_assert_uint_eq(entry->type, expected->type);
}

static const Entry *model_get(const Model *model, Slice key, uint64_t visible)
{
    for (size_t i = model->count; i-- > 0;) {
        if (model->entries[i].lsn <= visible && slice_equal(model->entries[i].key, key))
            return &model->entries[i];
    }
    return NULL;
}

static size_t model_lower(const Model *model, Slice key, uint64_t lsn)
{
    size_t position = 0;
    while (position < model->count &&
           entry_compare(model->sorted[position].key, model->sorted[position].lsn, key, lsn) < 0)
        position++;
    return position;
}

/* Random calls on an iterator and on a position in the sorted model. */
static void check_iterator(const Model *model, const Memtable *memtable, int steps)
{
    Iter *iter;
    ck_assert_int_eq(memtable_iter_create(memtable, &iter), AIDB_OK);
    ck_assert(!iter->valid);
    size_t position = SIZE_MAX;
    for (int step = 0; step < steps; step++) {
        uint8_t key_bytes[24];
        Slice key = slice_make(key_bytes, random_key(key_bytes));
        uint64_t lsn = test_draw_below(3) == 0 ? LSN_MAX : test_draw_below(2 * MODEL_MAX);
        if (model->count > 0 && test_draw_below(2) == 0) {
            const Entry *present = &model->sorted[test_draw_below((uint32_t)model->count)];
            key = present->key;
            lsn = test_draw_below(2) == 0 ? present->lsn : lsn;
        }
        Status status;
        switch (test_draw_below(iter->valid ? 10 : 4)) {
        case 0:
            position = 0;
            status = iter->ops->seek_first(iter);
            break;
        case 1:
            position = model->count - 1;
            status = iter->ops->seek_last(iter);
            break;
        case 2:
            position = model_lower(model, key, lsn);
            status = iter->ops->seek(iter, key, lsn);
            break;
        case 3:
            position = model_lower(model, key, lsn) - 1;
            status = iter->ops->seek_before(iter, key, lsn);
            break;
        case 4:
        case 5:
        case 6:
            position++;
            status = iter->ops->next(iter);
            break;
        default:
            position--;
            status = iter->ops->prev(iter);
            break;
        }
        ck_assert_int_eq(status, AIDB_OK);
        ck_assert_int_eq(iter->valid, position < model->count);
        if (iter->valid)
            check_entry(&iter->entry, &model->sorted[position]);
    }
    size_t seen = 0;
    for (seek_first(iter); iter->valid; seen++) {
        check_entry(&iter->entry, &model->sorted[seen]);
        ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
    }
    ck_assert_uint_eq(seen, model->count);
    for (seek_last(iter); iter->valid;) {
        check_entry(&iter->entry, &model->sorted[--seen]);
        ck_assert_int_eq(iter->ops->prev(iter), AIDB_OK);
    }
    ck_assert_uint_eq(seen, 0);
    iter_destroy(iter);
}

START_TEST(entries_random)
{
    test_draw_seed("entries_random");
    static Model model;
    World world;
    world_init(&world, 1 << 20);
    for (int round = 0; round < 60; round++) {
        model_make(&model, test_draw_below(MODEL_MAX + 1));
        Memtable *memtable = world_create(&world);
        for (size_t i = 0; i < model.count; i++) {
            const Entry *entry = &model.entries[i];
            ck_assert_int_eq(memtable_secure(memtable, world.slot, 1, RANGE_LOAD_NONE,
                                             entry->key.size + entry->value.size),
                             AIDB_OK);
            memtable_add(memtable, entry->type, entry->key, entry->value, entry->lsn);
        }
        model_sort(&model);
        ck_assert_uint_eq(memtable_entries(memtable), model.count);
        if (model.count > 0) {
            ck_assert_uint_eq(memtable_first_lsn(memtable), model.entries[0].lsn);
            ck_assert_uint_eq(memtable_last_lsn(memtable), model.entries[model.count - 1].lsn);
        }
        for (int probe = 0; probe < 3000; probe++) {
            uint8_t key_bytes[24];
            Slice key = slice_make(key_bytes, random_key(key_bytes));
            if (model.count > 0 && test_draw_below(4) != 0)
                key = model.entries[test_draw_below((uint32_t)model.count)].key;
            uint64_t visible = test_draw_below(8) == 0 ? LSN_MAX : test_draw_below(2 * MODEL_MAX);
            const Entry *expected = model_get(&model, key, visible);
            Entry entry;
            bool found = memtable_get(memtable, key, visible, &entry);
            ck_assert_int_eq(found, expected != NULL);
            if (found)
                check_entry(&entry, expected);
        }
        for (int many = 0; many < 30; many++) {
            uint8_t key_bytes[MEMTABLE_GETS_MAX][24];
            Slice keys[MEMTABLE_GETS_MAX];
            Entry entries[MEMTABLE_GETS_MAX], *places[MEMTABLE_GETS_MAX];
            bool found[MEMTABLE_GETS_MAX];
            size_t count = test_draw_below(MEMTABLE_GETS_MAX + 1);
            uint64_t visible = test_draw_below(2 * MODEL_MAX);
            for (size_t i = 0; i < count; i++) {
                keys[i] = slice_make(key_bytes[i], random_key(key_bytes[i]));
                if (model.count > 0 && test_draw_below(4) != 0)
                    keys[i] = model.entries[test_draw_below((uint32_t)model.count)].key;
                places[i] = &entries[i];
            }
            memtable_get_many(memtable, count, keys, visible, places, found);
            for (size_t i = 0; i < count; i++) {
                const Entry *expected = model_get(&model, keys[i], visible);
                ck_assert_int_eq(found[i], expected != NULL);
                if (found[i])
                    check_entry(&entries[i], expected);
            }
        }
        check_iterator(&model, memtable, 600);
        memtable_retire(memtable, world.slot);
    }
    world_deinit(&world);
}
END_TEST

/* Every key as of every LSN. */
START_TEST(entries_every_snapshot)
{
    test_draw_seed("entries_every_snapshot");
    static Model model;
    World world;
    world_init(&world, 1 << 20);
    model_make(&model, 150);
    Memtable *memtable = world_create(&world);
    for (size_t i = 0; i < model.count; i++) {
        const Entry *entry = &model.entries[i];
        ck_assert_int_eq(memtable_secure(memtable, world.slot, 1, RANGE_LOAD_NONE,
                                         entry->key.size + entry->value.size),
                         AIDB_OK);
        memtable_add(memtable, entry->type, entry->key, entry->value, entry->lsn);
    }
    for (uint64_t visible = 0; visible <= memtable_last_lsn(memtable) + 1; visible++) {
        for (size_t i = 0; i < model.count; i++) {
            Entry entry;
            const Entry *expected = model_get(&model, model.entries[i].key, visible);
            ck_assert_int_eq(memtable_get(memtable, model.entries[i].key, visible, &entry),
                             expected != NULL);
            if (expected != NULL)
                check_entry(&entry, expected);
        }
    }
    world_deinit(&world);
}
END_TEST

/* Rising, falling, and rising in three places at once: all find their way, in order. */
START_TEST(entries_in_order)
{
    enum { COUNT = 30000 };
    World world;
    world_init(&world, 16 << 20);
    for (int shape = 0; shape < 3; shape++) {
        Memtable *memtable = world_create(&world);
        for (uint32_t i = 0; i < COUNT; i++) {
            uint32_t number = shape == 0   ? i
                              : shape == 1 ? COUNT - 1 - i
                                           : i % 3 * (COUNT / 3) + i / 3;
            char key[32];
            int size = snprintf(key, sizeof key, "key:%012u", number);
            put(&world, memtable, slice_make(key, (size_t)size), slice_make(&number, 4), i + 1);
        }
        Iter *iter;
        ck_assert_int_eq(memtable_iter_create(memtable, &iter), AIDB_OK);
        uint32_t seen = 0;
        for (seek_first(iter); iter->valid; seen++) {
            uint32_t number;
            ck_assert_uint_eq(iter->entry.value.size, 4);
            memcpy(&number, iter->entry.value.data, 4);
            ck_assert_uint_eq(number, seen);
            ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
        }
        ck_assert_uint_eq(seen, COUNT);
        iter_destroy(iter);
        memtable_retire(memtable, world.slot);
    }
    world_deinit(&world);
}
END_TEST

/* One key overwritten again and again keeps all versions, newest first. */
START_TEST(entries_one_key)
{
    enum { COUNT = 3000 };
    World world;
    world_init(&world, 4 << 20);
    Memtable *memtable = world_create(&world);
    for (uint64_t lsn = 1; lsn <= COUNT; lsn++)
        put(&world, memtable, text("the key"), slice_make(&lsn, sizeof lsn), lsn);
    for (uint64_t visible = 0; visible <= COUNT; visible++) {
        Entry entry;
        ck_assert_int_eq(memtable_get(memtable, text("the key"), visible, &entry), visible > 0);
        if (visible > 0)
            ck_assert_uint_eq(entry.lsn, visible);
    }
    Iter *iter;
    ck_assert_int_eq(memtable_iter_create(memtable, &iter), AIDB_OK);
    uint64_t expected = COUNT;
    for (seek_first(iter); iter->valid; expected--) {
        ck_assert_uint_eq(iter->entry.lsn, expected);
        ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
    }
    ck_assert_uint_eq(expected, 0);
    iter_destroy(iter);
    world_deinit(&world);
}
END_TEST

START_TEST(entries_extreme)
{
    World world;
    world_init(&world, 200 << 20);
    Memtable *memtable = world_create(&world);
    uint8_t *large = malloc(AIDB_VALUE_MAX);
    ck_assert_ptr_nonnull(large);
    for (size_t i = 0; i < AIDB_VALUE_MAX; i += 8) {
        uint64_t word = mix(i);
        memcpy(large + i, &word, 8);
    }
    uint8_t *low = calloc(1, AIDB_KEY_MAX);
    uint8_t *high = malloc(AIDB_KEY_MAX);
    ck_assert(low != NULL && high != NULL);
    memset(high, 0xff, AIDB_KEY_MAX);

    /* In order: one byte, then as long as can be, of the lowest and of the highest byte. */
    static const size_t sizes[] = {1, 2, 7, 8, 9, 16, 65535, AIDB_KEY_MAX};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    uint64_t lsn = 0;
    for (size_t i = SIZES; i-- > 0;) {
        put(&world, memtable, slice_make(high, sizes[i]), slice_make(large, sizes[i]), ++lsn);
        put(&world, memtable, slice_make(low, sizes[i]), slice_make(large + 1, sizes[i]), ++lsn);
    }
    put(&world, memtable, text("m"), slice_make(large, AIDB_VALUE_MAX), ++lsn);
    put(&world, memtable, text("n"), slice_make(NULL, 0), ++lsn);
    put(&world, memtable, text("o"), slice_make(large + 5, 300000), ++lsn);

    Entry entry;
    for (size_t i = 0; i < SIZES; i++) {
        ck_assert(memtable_get(memtable, slice_make(high, sizes[i]), LSN_MAX, &entry));
        ck_assert(slice_equal(entry.value, slice_make(large, sizes[i])));
        ck_assert(memtable_get(memtable, slice_make(low, sizes[i]), LSN_MAX, &entry));
        ck_assert(slice_equal(entry.value, slice_make(large + 1, sizes[i])));
    }
    ck_assert(!memtable_get(memtable, slice_make(high, 100), LSN_MAX, &entry));
    ck_assert(!memtable_get(memtable, slice_make(low, 3), LSN_MAX, &entry));
    ck_assert(memtable_get(memtable, text("m"), LSN_MAX, &entry));
    ck_assert(slice_equal(entry.value, slice_make(large, AIDB_VALUE_MAX)));
    ck_assert(memtable_get(memtable, text("n"), LSN_MAX, &entry));
    ck_assert_uint_eq(entry.value.size, 0);
    ck_assert(memtable_get(memtable, text("o"), LSN_MAX, &entry));
    ck_assert(slice_equal(entry.value, slice_make(large + 5, 300000)));

    Iter *iter;
    ck_assert_int_eq(memtable_iter_create(memtable, &iter), AIDB_OK);
    size_t seen = 0;
    for (seek_first(iter); iter->valid; seen++) {
        if (seen < SIZES)
            ck_assert(slice_equal(iter->entry.key, slice_make(low, sizes[seen])));
        else if (seen >= SIZES + 3)
            ck_assert(slice_equal(iter->entry.key, slice_make(high, sizes[seen - SIZES - 3])));
        ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
    }
    ck_assert_uint_eq(seen, 2 * SIZES + 3);
    iter_destroy(iter);
    free(large);
    free(low);
    free(high);
    world_deinit(&world);
}
END_TEST

START_TEST(entries_empty)
{
    World world;
    world_init(&world, 1 << 20);
    Memtable *memtable = world_create(&world);
    Entry entry;
    ck_assert(!memtable_get(memtable, text("k"), LSN_MAX, &entry));
    ck_assert_uint_eq(memtable_cover(memtable, text("k"), LSN_MAX), 0);
    RangeFragments fragments;
    ck_assert_int_eq(memtable_fragments(memtable, &fragments), AIDB_OK);
    ck_assert_uint_eq(fragments.count, 0);
    Iter *iter;
    ck_assert_int_eq(memtable_iter_create(memtable, &iter), AIDB_OK);
    ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
    ck_assert(!iter->valid);
    ck_assert_int_eq(iter->ops->seek_last(iter), AIDB_OK);
    ck_assert(!iter->valid);
    ck_assert_int_eq(iter->ops->seek(iter, text("k"), LSN_MAX), AIDB_OK);
    ck_assert(!iter->valid);
    ck_assert_int_eq(iter->ops->seek_before(iter, text("k"), 0), AIDB_OK);
    ck_assert(!iter->valid);
    iter_destroy(iter);
    world_deinit(&world);
}
END_TEST

/* ---- blocks in the middle of a change ---------------------------------------------------------- */

/* A writer that stopped anywhere leaves blocks that readers read right. These tests put blocks into
 * such states by hand and compare everything with the model. */

static Block *block_at(const Memtable *memtable, Ref ref)
{
    return ref == REF_NONE ? NULL : ref_pointer(memtable, ref);
}

/* The leftmost block of a level; NULL when there is no such level. */
static Block *leftmost(const Memtable *memtable, uint32_t level)
{
    Block *block = block_at(memtable, memtable->root);
    while (block != NULL && block->level > level)
        block = block_at(memtable, block->refs[0]);
    return block != NULL && block->level == level ? block : NULL;
}

static Memtable *model_memtable(World *world, Model *model, size_t count)
{
    model_make(model, count);
    Memtable *memtable = world_create(world);
    for (size_t i = 0; i < model->count; i++) {
        const Entry *entry = &model->entries[i];
        ck_assert_int_eq(memtable_secure(memtable, world->slot, 1, RANGE_LOAD_NONE,
                                         entry->key.size + entry->value.size),
                         AIDB_OK);
        memtable_add(memtable, entry->type, entry->key, entry->value, entry->lsn);
    }
    model_sort(model);
    return memtable;
}

static void check_all(const Model *model, const Memtable *memtable)
{
    for (size_t i = 0; i < model->count; i++) {
        Entry entry;
        const Entry *expected = &model->sorted[i];
        ck_assert(memtable_get(memtable, expected->key, expected->lsn, &entry));
        check_entry(&entry, expected);
        const Entry *before = model_get(model, expected->key, expected->lsn - 1);
        ck_assert_int_eq(memtable_get(memtable, expected->key, expected->lsn - 1, &entry),
                         before != NULL);
        if (before != NULL)
            check_entry(&entry, before);
    }
    check_iterator(model, memtable, 300);
}

START_TEST(blocks_without_hints)
{
    test_draw_seed("blocks_without_hints");
    static Model model;
    World world;
    world_init(&world, 1 << 20);
    for (int round = 0; round < 20; round++) {
        Memtable *memtable = model_memtable(&world, &model, 1 + test_draw_below(MODEL_MAX));
        for (uint32_t level = 0; leftmost(memtable, level) != NULL; level++) {
            for (Block *block = leftmost(memtable, level); block != NULL;
                 block = block_at(memtable, block->next)) {
                if (test_draw_below(4) == 0)
                    continue;
                block->version++;
                block->count = test_draw_below(2 * BLOCK_ENTRIES);
                block->shared_size = test_draw_below(100);
                for (uint32_t i = 0; i < SHARED_WORDS; i++)
                    block->shared[i] = test_draw();
                for (uint32_t i = 0; i < BLOCK_ENTRIES; i++)
                    block->prefixes[i] = test_draw();
            }
        }
        check_all(&model, memtable);
        memtable_retire(memtable, world.slot);
    }
    world_deinit(&world);
}
END_TEST

/* An insert that has moved what is behind its place, and not yet put its entry there. */
START_TEST(blocks_half_shifted)
{
    test_draw_seed("blocks_half_shifted");
    static Model model;
    World world;
    world_init(&world, 1 << 20);
    for (int round = 0; round < 20; round++) {
        Memtable *memtable = model_memtable(&world, &model, 1 + test_draw_below(MODEL_MAX));
        for (uint32_t level = 0; leftmost(memtable, level) != NULL; level++) {
            for (Block *block = leftmost(memtable, level); block != NULL;
                 block = block_at(memtable, block->next)) {
                if (block->count == BLOCK_ENTRIES)
                    continue;
                block->version++;
                uint32_t stop = test_draw_below(block->count);
                for (uint32_t i = block->count; i > stop; i--)
                    block->refs[i] = block->refs[i - 1];
            }
        }
        check_all(&model, memtable);
        memtable_retire(memtable, world.slot);
    }
    world_deinit(&world);
}
END_TEST

/* Splits that have linked the new block: it is not entered above, and the old one still has some of
 * the entries that went there. */
START_TEST(blocks_half_split)
{
    test_draw_seed("blocks_half_split");
    static Model model;
    World world;
    world_init(&world, 1 << 20);
    for (int round = 0; round < 20; round++) {
        Memtable *memtable =
            model_memtable(&world, &model, MODEL_MAX / 2 + test_draw_below(MODEL_MAX / 2));
        for (Block *block = leftmost(memtable, 0); block->next != REF_NONE;
             block = block_at(memtable, block->next)) {
            Block *neighbour = block_at(memtable, block->next);
            block->version++;
            uint32_t moved = 1 + test_draw_below(BLOCK_ENTRIES);
            for (uint32_t i = 0; i < moved && i < neighbour->count; i++) {
                if (block->count + i < BLOCK_ENTRIES)
                    block->refs[block->count + i] = neighbour->refs[i];
            }
        }
        Block *above = leftmost(memtable, 1);
        ck_assert_ptr_nonnull(above);
        /* Some leaves are left; every other is found by going to the right. */
        above->version++;
        uint32_t kept = 1 + test_draw_below(above->count);
        for (uint32_t i = kept; i < BLOCK_ENTRIES; i++)
            above->refs[i] = REF_NONE;
        above->count = kept;
        above->version += test_draw_below(2);
        check_all(&model, memtable);
        memtable_retire(memtable, world.slot);
    }
    world_deinit(&world);
}
END_TEST

/* ---- range tombstones ------------------------------------------------------------------------ */

#define TOMBSTONES_MAX 40

static uint64_t brute_cover(const RangeTombstone *tombstones, size_t count, Slice key,
                            uint64_t visible)
{
    uint64_t best = 0;
    for (size_t i = 0; i < count; i++) {
        const RangeTombstone *t = &tombstones[i];
        if (t->lsn <= visible && t->lsn > best && slice_compare(t->from, key) <= 0 &&
            (t->to.size == 0 || slice_compare(key, t->to) < 0))
            best = t->lsn;
    }
    return best;
}

static void check_same_fragments(const RangeFragments *a, const RangeFragments *b)
{
    ck_assert_uint_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        ck_assert(slice_equal(a->items[i].from, b->items[i].from));
        ck_assert(slice_equal(a->items[i].to, b->items[i].to));
        ck_assert_uint_eq(a->items[i].lsn_count, b->items[i].lsn_count);
        ck_assert_mem_eq(a->items[i].lsns, b->items[i].lsns,
                         a->items[i].lsn_count * sizeof a->items[i].lsns[0]);
    }
}

START_TEST(ranges_random)
{
    test_draw_seed("ranges_random");
    static const uint8_t letters[] = {0x00, 'b', 0xff};
    World world;
    world_init(&world, 1 << 20);
    for (int round = 0; round < 300; round++) {
        uint8_t bytes[2 * TOMBSTONES_MAX][12];
        RangeTombstone tombstones[TOMBSTONES_MAX];
        size_t count = test_draw_below(TOMBSTONES_MAX + 1);
        size_t shared = test_draw_below(2) * 8; /* with and without a prefix that all share */
        Memtable *memtable = world_create(&world);
        memset(bytes, 's', sizeof bytes);
        for (size_t i = 0; i < 2 * count; i++) {
            for (size_t j = 0; j < 3; j++)
                bytes[i][shared + j] = letters[test_draw_below(3)];
        }
        for (size_t i = 0; i < count; i++) {
            size_t from_size = test_draw_below(4);
            size_t to_size = test_draw_below(4);
            tombstones[i] = (RangeTombstone){
                .from = slice_make(bytes[2 * i], from_size == 0 ? 0 : shared + from_size),
                .to = slice_make(bytes[2 * i + 1], to_size == 0 ? 0 : shared + to_size),
                .lsn = 2 * i + 1};
            delete_range(&world, memtable, tombstones[i].from, tombstones[i].to, tombstones[i].lsn);
        }
        RangeFragments fragments;
        RangeFragments expected;
        ck_assert_int_eq(memtable_fragments(memtable, &fragments), AIDB_OK);
        ck_assert_int_eq(range_fragments_build(tombstones, count, &expected), AIDB_OK);
        check_same_fragments(&fragments, &expected);
        ck_assert_uint_eq(memtable_entries(memtable), count);
        ck_assert_int_eq(memtable_has_ranges(memtable), expected.count > 0);
        for (int probe = 0; probe < 100; probe++) {
            uint8_t key_bytes[12];
            memset(key_bytes, 's', sizeof key_bytes);
            for (size_t j = 0; j < 4; j++)
                key_bytes[shared + j] = letters[test_draw_below(3)];
            Slice key =
                slice_make(key_bytes, test_draw_below(8) == 0 ? 1 + test_draw_below(3)
                                                              : shared + 1 + test_draw_below(4));
            for (uint64_t visible = 0; visible <= 2 * count; visible += 1 + test_draw_below(4)) {
                uint64_t cover = brute_cover(tombstones, count, key, visible);
                ck_assert_uint_eq(memtable_cover(memtable, key, visible), cover);
                ck_assert_uint_eq(
                    range_fragments_cover(fragments.items, fragments.count, key, visible), cover);
            }
        }
        range_fragments_deinit(&fragments);
        range_fragments_deinit(&expected);
        memtable_retire(memtable, world.slot);
    }
    world_deinit(&world);
}
END_TEST

/* The fragments stay whole after the memtable's memory was reused. */
START_TEST(ranges_outlive)
{
    World world;
    world_init(&world, 1 << 16);
    Memtable *memtable = world_create(&world);
    delete_range(&world, memtable, text("bb"), text("dd"), 7);
    delete_range(&world, memtable, text("cc"), text(""), 9);
    RangeFragments fragments;
    ck_assert_int_eq(memtable_fragments(memtable, &fragments), AIDB_OK);
    memtable_retire(memtable, world.slot);
    memtable = world_create(&world);
    for (uint64_t lsn = 1; lsn <= 200; lsn++)
        put(&world, memtable, slice_make(&lsn, 8), text("overwrites what was there"), lsn);
    ck_assert_uint_eq(fragments.count, 3);
    ck_assert(slice_equal(fragments.items[0].from, text("bb")));
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("bc"), LSN_MAX), 7);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("cd"), LSN_MAX), 9);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("cd"), 8), 7);
    ck_assert_uint_eq(range_fragments_cover(fragments.items, 3, text("zz"), LSN_MAX), 9);
    range_fragments_deinit(&fragments);
    world_deinit(&world);
}
END_TEST

/* ---- room ------------------------------------------------------------------------------------ */

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

/* ---- readers beside the writer --------------------------------------------------------------- */

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

static Suite *memtable_suite(void)
{
    Suite *suite = suite_create("engine/memtable");
    TCase *entries = tcase_create("entries");
    tcase_add_test(entries, entries_random);
    tcase_add_test(entries, entries_every_snapshot);
    tcase_add_test(entries, entries_in_order);
    tcase_add_test(entries, entries_one_key);
    tcase_add_test(entries, entries_extreme);
    tcase_add_test(entries, entries_empty);
    tcase_add_test(entries, blocks_without_hints);
    tcase_add_test(entries, blocks_half_shifted);
    tcase_add_test(entries, blocks_half_split);
    suite_add_tcase(suite, entries);
    TCase *ranges = tcase_create("range tombstones");
    tcase_add_test(ranges, ranges_random);
    tcase_add_test(ranges, ranges_outlive);
    suite_add_tcase(suite, ranges);
    TCase *room = tcase_create("room");
    tcase_add_test(room, secure_is_enough);
    tcase_add_test(room, exhaustion);
    tcase_add_test(room, memtables_run_out);
    tcase_add_test(room, unused_run_returns);
    tcase_add_test(room, pool_sizes);
    suite_add_tcase(suite, room);
    TCase *sharing = tcase_create("readers beside the writer");
    tcase_add_test(sharing, threads_one_memtable);
    tcase_add_test(sharing, threads_many_keys);
    tcase_add_test(sharing, threads_rotation);
    tcase_add_test(sharing, processes_one_memtable);
    tcase_add_test(sharing, processes_rotation);
    suite_add_tcase(suite, sharing);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(memtable_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
