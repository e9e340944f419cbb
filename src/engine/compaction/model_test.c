/*
 * model_test.c - jobs against a model.
 *
 * Random histories are written and flushed; compactions are picked and run (several claimed at once,
 * installed in any order), and after each step every key is read at every live snapshot the way the store
 * does it: newest level first, stopping at the first answer.
 */
#include "config.h"

#include "engine/compaction/test_compaction.h"

#include <stdlib.h>
#include <string.h>

#define OPEN_PICKS_MAX 3

typedef struct Op {
    uint64_t lsn;
    uint8_t type;
    Buffer key;
    Buffer to; /* of a range */
    Buffer value;
} Op;

typedef struct Model {
    Op *ops;
    size_t count, capacity;
    Buffer *keys; /* every key that may occur */
    size_t key_count;
    size_t flushed; /* operations that are in tables */
} Model;

static Op *model_add(Model *model)
{
    if (model->count == model->capacity) {
        model->capacity = model->capacity > 0 ? 2 * model->capacity : 256;
        model->ops = realloc(model->ops, model->capacity * sizeof model->ops[0]);
        ck_assert_ptr_nonnull(model->ops);
    }
    Op *op = &model->ops[model->count++];
    *op = (Op){0};
    return op;
}

static void model_deinit(Model *model)
{
    for (size_t i = 0; i < model->count; i++) {
        buffer_deinit(&model->ops[i].key);
        buffer_deinit(&model->ops[i].to);
        buffer_deinit(&model->ops[i].value);
    }
    for (size_t i = 0; i < model->key_count; i++)
        buffer_deinit(&model->keys[i]);
    free(model->ops);
    free(model->keys);
}

/* The value of the key at an LSN, NULL when it has none, by going over all that ever happened. */
static const Op *model_get(const Model *model, Slice key, uint64_t visible)
{
    for (size_t i = model->count; i-- > 0;) {
        const Op *op = &model->ops[i];
        if (op->lsn > visible)
            continue;
        if (op->type == OP_DELETE_RANGE) {
            if (slice_compare(buffer_slice(&op->key), key) <= 0 &&
                (op->to.size == 0 || slice_compare(key, buffer_slice(&op->to)) < 0))
                return NULL;
        } else if (slice_equal(buffer_slice(&op->key), key)) {
            return op->type == OP_PUT ? op : NULL;
        }
    }
    return NULL;
}

static void compare_at(Store *store, const Model *model, uint64_t visible)
{
    for (size_t i = 0; i < model->key_count; i++) {
        Slice key = buffer_slice(&model->keys[i]);
        const Op *expected = model_get(model, key, visible);
        Entry entry;
        epoch_enter(store->epochs, store->slot);
        bool found = store_get(store, key, visible, &entry);
        ck_assert_msg(found == (expected != NULL), "key %zu at %llu: %s, expected %s", i,
                      (unsigned long long)visible, found ? "found" : "missing",
                      expected != NULL ? "found" : "missing");
        if (found) {
            ck_assert_uint_eq(entry.lsn, expected->lsn);
            ck_assert(slice_equal(entry.value, buffer_slice(&expected->value)));
        }
        table_reader_release(&store->reader);
        epoch_leave(store->slot);
    }
}

static void compare(Store *store, const Model *model)
{
    for (size_t i = 0; i < store->snapshot_count; i++)
        compare_at(store, model, store->snapshots[i]);
    compare_at(store, model, store->lsn);
}

/* Keys of several shapes, some longer than bounds are kept, with long prefixes in common. */
static void model_make_keys(Model *model, uint64_t *seed, size_t count)
{
    model->keys = calloc(count, sizeof model->keys[0]);
    ck_assert_ptr_nonnull(model->keys);
    model->key_count = count;
    size_t shape = test_random_below(seed, 3);
    for (size_t i = 0; i < count; i++) {
        Buffer *key = &model->keys[i];
        size_t prefix = shape == 0 ? 0 : (shape == 1 ? 3 : 250 + 10 * (i % 7));
        for (size_t j = 0; j < prefix; j++)
            ck_assert_int_eq(buffer_append_byte(key, (uint8_t)('a' + i % 7 + (j == 250))), AIDB_OK);
        ck_assert_int_eq(buffer_append_format(key, "%05zu", i * 7), AIDB_OK);
        for (uint64_t pad = test_random_below(seed, shape == 2 ? 400 : 3); pad > 0; pad--)
            ck_assert_int_eq(buffer_append_byte(key, 0xff), AIDB_OK);
    }
}

static void write_op(Store *store, Memtable *memtable, const Op *op)
{
    if (op->type == OP_DELETE_RANGE) {
        ck_assert_int_eq(memtable_secure(memtable, store->slot, 0, RANGE_LOAD_ONE,
                                         op->key.size + op->to.size + 16),
                         AIDB_OK);
        memtable_add_range(memtable, buffer_slice(&op->key), buffer_slice(&op->to), op->lsn);
    } else {
        ck_assert_int_eq(memtable_secure(memtable, store->slot, 1, RANGE_LOAD_NONE,
                                         op->key.size + op->value.size + 16),
                         AIDB_OK);
        memtable_add(memtable, (OpType)op->type, buffer_slice(&op->key), buffer_slice(&op->value),
                     op->lsn);
    }
}

/* On keys [first, first + width) of the model. */
static void random_op(Store *store, Model *model, uint64_t *seed, uint64_t range_weight,
                      uint64_t first, uint64_t width)
{
    Op *op = model_add(model);
    store->lsn += 1 + test_random_below(seed, 5);
    op->lsn = store->lsn;
    uint64_t kind = test_random_below(seed, 100);
    const Buffer *key = &model->keys[first + test_random_below(seed, width)];
    if (kind < range_weight) {
        /* Mostly narrow; now and then half of everything, or without a bound. */
        uint64_t start = first + test_random_below(seed, width);
        uint64_t most = test_random_below(seed, 20) == 0 ? model->key_count : 12;
        uint64_t end = start + 1 + test_random_below(seed, most);
        Slice from = buffer_slice(&model->keys[start]);
        Slice to = end < model->key_count ? buffer_slice(&model->keys[end]) : (Slice){0};
        if (to.size > 0 && slice_compare(from, to) > 0) {
            Slice swap = from;
            from = to;
            to = swap;
        }
        if (test_random_below(seed, 50) == 0)
            from = (Slice){0};
        op->type = OP_DELETE_RANGE;
        ck_assert_int_eq(buffer_append(&op->key, from.data, from.size), AIDB_OK);
        ck_assert_int_eq(buffer_append(&op->to, to.data, to.size), AIDB_OK);
        return;
    }
    op->type = kind < 25 ? OP_DELETE : OP_PUT;
    ck_assert_int_eq(buffer_append(&op->key, key->data, key->size), AIDB_OK);
    if (op->type == OP_PUT) {
        uint64_t size = test_random_below(seed, 30) == 0 ? 3000 : test_random_below(seed, 200);
        for (; size > 0; size--)
            ck_assert_int_eq(buffer_append_byte(&op->value, (uint8_t)test_random(seed)), AIDB_OK);
    }
}

/* Writes what is new in the model to one or two memtables and flushes them. */
static void flush(Store *store, Model *model, uint64_t *seed)
{
    Memtable *memtables[2] = {NULL, NULL};
    size_t count = 1 + test_random_below(seed, 2);
    size_t half = model->flushed + (model->count - model->flushed) / 2;
    VersionEdit edit = {0};
    for (size_t i = 0; i < count; i++) {
        ck_assert_int_eq(memtable_create(store->pool, store->slot, &memtables[i]), AIDB_OK);
        size_t end = count == 2 && i == 0 ? half : model->count;
        for (; model->flushed < end; model->flushed++)
            write_op(store, memtables[i], &model->ops[model->flushed]);
    }
    ck_assert_int_eq(flush_run(&store->context, memtables, count, store->snapshots,
                               store->snapshot_count, &edit),
                     AIDB_OK);
    ck_assert_uint_le(edit.added_count, 2);
    check_outputs(store, &edit);
    edit.flushed_lsn = store->lsn + 1;
    install(store, &edit);
    version_edit_deinit(&edit);
    for (size_t i = 0; i < count; i++)
        memtable_retire(memtables[i], store->slot);
}

static void random_snapshots(Store *store, uint64_t *seed)
{
    if (store->snapshot_count < SNAPSHOTS_MAX && test_random_below(seed, 3) == 0 &&
        (store->snapshot_count == 0 || store->snapshots[store->snapshot_count - 1] < store->lsn)) {
        store->snapshots[store->snapshot_count++] = store->lsn;
    } else if (store->snapshot_count > 0 && test_random_below(seed, 3) == 0) {
        size_t gone = test_random_below(seed, store->snapshot_count);
        memmove(store->snapshots + gone, store->snapshots + gone + 1,
                (--store->snapshot_count - gone) * sizeof store->snapshots[0]);
    }
    store->options.oldest_snapshot = store->snapshot_count > 0 ? store->snapshots[0] : store->lsn;
}

static bool try_pick(Store *store, uint64_t *seed, Pick *pick)
{
    Status status;
    if (test_random_below(seed, 5) == 0)
        status = compaction_pick_range(store->set->current, &store->options, (Slice){0}, (Slice){0},
                                       UINT64_MAX, store->lsn, pick);
    else
        status = compaction_pick(store->set->current, &store->options, store->cursors, pick);
    ck_assert(status == AIDB_OK || status == AIDB_BUSY);
    if (status == AIDB_BUSY || pick->level < 0)
        return false;
    pick_claim(pick, ++store->job);
    pick_advance(pick, &store->cursors[pick->level]);
    return true;
}

static void random_options(Store *store, uint64_t *seed)
{
    store->options.table_size = 1024u << test_random_below(seed, 6);
    store->options.level_base_size = store->options.table_size << test_random_below(seed, 4);
    store->options.level_multiplier = (uint32_t)(2 + test_random_below(seed, 9));
    store->options.level0_files = (uint32_t)(1 + test_random_below(seed, 6));
    store->context.table_size = store->options.table_size;
    store->table.block_size = 256u << test_random_below(seed, 6);
    store->table.compression =
        test_random_below(seed, 2) == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD;
    store->table.compression_level = 1;
    store->table.filter_bits = test_random_below(seed, 2) == 0 ? 0 : 10;
}

/* Nothing but one version of each live key is left when nobody needs more. */
static void check_clean(Store *store, const Model *model)
{
    uint64_t live = 0;
    uint64_t entries = 0;
    for (size_t i = 0; i < model->key_count; i++)
        live += model_get(model, buffer_slice(&model->keys[i]), store->lsn) != NULL;
    for (int level = 0; level < LEVELS; level++) {
        const Version *version = store->set->current;
        if (level < LEVELS - 1)
            ck_assert_uint_eq(version->levels[level].count, 0);
        for (uint32_t i = 0; i < version->levels[level].count; i++) {
            const TableInfo *info = &version->levels[level].files[i]->info;
            entries += info->entries;
            ck_assert_uint_eq(info->deletes, 0);
            ck_assert_uint_eq(info->range_deletes, 0);
        }
    }
    ck_assert_uint_eq(entries, live);
}

static void run_history(uint64_t *seed)
{
    Store store;
    Model model = {0};
    Pick picks[OPEN_PICKS_MAX];
    size_t pick_count = 0;
    uint64_t range_weight = test_random_below(seed, 3) * 5;
    store_create(&store);
    random_options(&store, seed);
    model_make_keys(&model, seed, 40 + test_random_below(seed, 200));
    for (int round = 0; round < 60; round++) {
        random_snapshots(&store, seed);
        switch (test_random_below(seed, 4)) {
        case 0:
        case 1: {
            /* Most flushes touch a part of the keys only, so that jobs meet in gaps. */
            uint64_t first = 0;
            uint64_t width = model.key_count;
            if (test_random_below(seed, 4) > 0) {
                first = test_random_below(seed, model.key_count);
                width = 1 + test_random_below(seed, model.key_count / 8);
                if (width > model.key_count - first)
                    width = model.key_count - first;
            }
            for (uint64_t i = 1 + test_random_below(seed, 120); i > 0; i--)
                random_op(&store, &model, seed, range_weight, first, width);
            flush(&store, &model, seed);
            break;
        }
        case 2:
            if (pick_count < OPEN_PICKS_MAX && try_pick(&store, seed, &picks[pick_count]))
                pick_count++;
            break;
        default:
            if (pick_count > 0) {
                size_t which = test_random_below(seed, pick_count);
                if (test_random_below(seed, 6) == 0)
                    pick_release(&picks[which]);
                else
                    run_pick(&store, &picks[which]);
                pick_deinit(&picks[which]);
                picks[which] = picks[--pick_count];
            }
            break;
        }
        compare(&store, &model);
    }
    while (pick_count > 0) {
        run_pick(&store, &picks[--pick_count]);
        pick_deinit(&picks[pick_count]);
    }
    compare(&store, &model);
    store_detach(&store);
    store_attach(&store);
    compare(&store, &model);
    ck_assert_uint_eq(count_tables(&store), count_files(&store));
    compact_all(&store);
    compare(&store, &model);
    store.snapshot_count = 0;
    compact_all(&store);
    compare(&store, &model);
    check_clean(&store, &model);
    model_deinit(&model);
    store_destroy(&store);
}

START_TEST(test_model)
{
    uint64_t seed = test_seed("compaction_model") + 77 * (uint64_t)_i;
    for (int i = 0; i < 4; i++)
        run_history(&seed);
}
END_TEST

/* Automatic compaction comes to an end, and levels keep near their targets. */
START_TEST(test_settles)
{
    uint64_t seed = test_seed("settles");
    Store store;
    Model model = {0};
    store_create(&store);
    model_make_keys(&model, &seed, 400);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 100; i++)
            random_op(&store, &model, &seed, 1, 0, model.key_count);
        flush(&store, &model, &seed);
        store.options.oldest_snapshot = store.lsn;
        for (int step = 0;; step++) {
            Pick pick;
            ck_assert_int_lt(step, 200);
            if (compaction_score(store.set->current, &store.options, NULL) < 1)
                break;
            ck_assert_int_eq(
                compaction_pick(store.set->current, &store.options, store.cursors, &pick), AIDB_OK);
            ck_assert_int_ge(pick.level, 0); /* nobody is in the way */
            run_pick(&store, &pick);
            pick_deinit(&pick);
        }
    }
    compare(&store, &model);
    ck_assert_uint_lt(compaction_level0_runs(store.set->current), store.options.level0_files);
    model_deinit(&model);
    store_destroy(&store);
}
END_TEST

TCase *model_cases(void)
{
    TCase *tests = tcase_create("model");
    tcase_set_timeout(tests, 240);
    tcase_add_test(tests, test_settles);
    tcase_add_loop_test(tests, test_model, 0, 3);
    return tests;
}
