/*
 * memtable_test.c - entries against a model, at every snapshot, also with blocks in the middle of a
 * change; and the program of the tests of memtables.
 *
 * Random tests print their seed; AIDB_TEST_SEED repeats one.
 */
#include "config.h"

#include "engine/memtable/test_memtable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(void)
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
    suite_add_tcase(suite, range_cases());
    suite_add_tcase(suite, room_cases());
    suite_add_tcase(suite, sharing_cases());
    return test_run(suite);
}
