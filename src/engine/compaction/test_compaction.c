/* test_compaction.c - a small store whose compactions a test runs. */
#include "config.h"

#include "engine/compaction/test_compaction.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARENA_SIZE    (16u << 20)
#define POOL_CAPACITY (64u << 20)

static const StoreIdentity identity = {
    .system_id = "fedcba987654321", .wal_segment_size = 1u << 20, .wal_ring_size = 1u << 20};

void store_attach(Store *store)
{
    size_t slots_size = (slot_table_size(2) + 127) / 128 * 128;
    size_t total = slots_size + sizeof(EpochDomain) + sizeof(VersionSet) + ARENA_SIZE + 1024;
    store->memory = aligned_alloc(PORT_CACHE_LINE, (total + 127) / 128 * 128);
    ck_assert_ptr_nonnull(store->memory);
    uint8_t *at = store->memory;
    slot_table_init(&store->slots, at, 2, NULL);
    at += slots_size;
    store->epochs = (EpochDomain *)at;
    epoch_init(store->epochs, &store->slots);
    at += (sizeof(EpochDomain) + 127) / 128 * 128;
    store->set = (VersionSet *)at;
    at += (sizeof(VersionSet) + 127) / 128 * 128;
    store->arena = arena_init(at, ARENA_SIZE, store->epochs);
    store->slot = slot_claim(&store->slots, 0, SLOT_COMPACTOR);
    store->pool = mempool_init(store->pool_memory, POOL_CAPACITY, store->epochs);
    ck_assert_int_eq(
        versions_open(store->directory, &identity, store->set, store->arena, &store->versions),
        AIDB_OK);
    ck_assert_int_eq(versions_recover(store->versions, store->slot), AIDB_OK);
    ck_assert_int_eq(file_cache_create(store->tables, 16, &store->files), AIDB_OK);
    store->reader =
        (TableReader){.files = store->files, .epochs = store->epochs, .slot = store->slot};
    store->context.set = store->set;
    store->context.split = &store->split;
    store->context.slot = store->slot;
}

void store_detach(Store *store)
{
    table_reader_deinit(&store->reader);
    file_cache_destroy(store->files);
    versions_close(store->versions);
    free(store->memory);
}

void store_create(Store *store)
{
    *store = (Store){.lsn = 100};
    store->directory = test_directory_create();
    store->tables = path_join(store->directory, "sst");
    ck_assert_int_eq(manifest_create(store->directory, &identity), AIDB_OK);
    store->table = (TableOptions){.block_size = 1024, .filter_bits = 10};
    memcpy(store->table.system_id, identity.system_id, 16);
    store->options = (PickOptions){
        .table_size = 8192, .level_base_size = 32768, .level_multiplier = 4, .level0_files = 3};
    store->context = (JobContext){.table = &store->table,
                                  .directory = store->tables,
                                  .reader = &store->reader,
                                  .table_size = store->options.table_size};
    size_t pool_size = (mempool_size(POOL_CAPACITY) + 4095) / 4096 * 4096;
    store->pool_memory = aligned_alloc(4096, pool_size);
    ck_assert_ptr_nonnull(store->pool_memory);
    store_attach(store);
}

void store_destroy(Store *store)
{
    store_detach(store);
    free(store->pool_memory);
    free(store->tables);
    test_directory_destroy(store->directory);
}

size_t count_tables(const Store *store)
{
    size_t count = 0;
    DIR *directory = opendir(store->tables);
    for (struct dirent *item; (item = readdir(directory)) != NULL;)
        count += item->d_name[0] != '.';
    closedir(directory);
    return count;
}

size_t count_files(const Store *store)
{
    size_t count = 0;
    for (int level = 0; level < LEVELS; level++)
        count += store->set->current->levels[level].count;
    return count;
}

void install(Store *store, const VersionEdit *edit)
{
    Version *next;
    Version *previous;
    uint64_t dead[32];
    size_t count;
    lock_acquire(&store->set->manifest_lock, store->slot);
    uint64_t durable = store->lsn + 1; /* where the log ends, as all of it is durable here */
    ck_assert_msg(version_apply(store->versions, store->slot, edit, durable, &next, &previous) ==
                      AIDB_OK,
                  "%s", status_message());
    version_release(store->versions, store->slot, previous);
    lock_release(&store->set->manifest_lock, store->slot);
    while ((count = versions_take_dead(store->versions, store->slot, store->epochs, dead, 32)) >
           0) {
        for (size_t i = 0; i < count; i++) {
            char name[TABLE_NAME_SIZE];
            table_name(dead[i], name);
            char *path = path_join(store->tables, name);
            ck_assert_int_eq(unlink(path), 0); /* each is handed out once */
            file_cache_forget(store->files, dead[i]);
            free(path);
        }
    }
}

static void damage_report(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)arg;
    ck_abort_msg("%s: %llu: %s", path, (unsigned long long)offset, what);
}

/* What an output must be: sound, inside its bounds, honest about garbage. */
static void check_output(Store *store, const NewFile *file)
{
    FileMeta meta = {.info = file->info,
                     .smallest = file->smallest,
                     .largest = file->largest,
                     .largest_exclusive = file->largest_exclusive,
                     .unbounded = file->unbounded};
    char name[TABLE_NAME_SIZE];
    Iter *iter;
    Buffer last = {0};
    bool repeated = false;
    table_name(file->info.number, name);
    char *path = path_join(store->tables, name);
    ck_assert_int_eq(table_verify(path, identity.system_id, &file->info, damage_report, NULL),
                     AIDB_OK);
    free(path);
    ck_assert_uint_gt(file->info.entries + file->info.range_deletes, 0);
    ck_assert_int_eq(table_iter_create(&store->reader, &file->info, TABLE_READAHEAD_JOB, &iter),
                     AIDB_OK);
    ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
    while (iter->valid) {
        ck_assert(file_covers(&meta, iter->entry.key));
        repeated |= last.size > 0 && slice_equal(buffer_slice(&last), iter->entry.key);
        buffer_clear(&last);
        ck_assert_int_eq(buffer_append(&last, iter->entry.key.data, iter->entry.key.size), AIDB_OK);
        ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
    }
    iter_destroy(iter);
    buffer_deinit(&last);
    if ((repeated || file->info.deletes > 0 || file->info.range_deletes > 0) &&
        store->context.keep == NULL)
        ck_assert(file->garbage);
    if (file->info.range_size > 0) {
        RangeFragments fragments = {0};
        ck_assert_int_eq(table_fragments(&store->reader, &file->info, &fragments), AIDB_OK);
        ck_assert_uint_gt(fragments.count, 0);
        const RangeFragment *first = &fragments.items[0];
        const RangeFragment *end = &fragments.items[fragments.count - 1];
        ck_assert_int_ge(slice_compare(first->from, file->smallest), 0);
        if (end->to.size == 0)
            ck_assert(file->unbounded);
        else
            ck_assert(file->unbounded || slice_compare(end->to, file->largest) <= 0);
        range_fragments_deinit(&fragments);
    }
}

void check_outputs(Store *store, const VersionEdit *edit)
{
    for (size_t i = 0; i < edit->added_count; i++)
        check_output(store, &edit->added[i]);
}

void run_pick(Store *store, const Pick *pick)
{
    VersionEdit edit = {0};
    if (pick->trivial_move) {
        ck_assert_int_eq(pick_move(pick, &edit), AIDB_OK);
    } else {
        ck_assert_msg(merge_run(&store->context, pick, store->snapshots, store->snapshot_count,
                                &edit) == AIDB_OK,
                      "%s", status_message());
        /* A compactor runs jobs for months: none may leave blocks of its inputs behind. */
        ck_assert_ptr_null(store->reader.private_blocks);
        check_outputs(store, &edit);
    }
    install(store, &edit);
    version_edit_deinit(&edit);
    ck_assert_uint_ge(count_tables(store), count_files(store));
}

void compact_all(Store *store)
{
    uint64_t number = atomic_load(&store->set->next_number); /* as engine/db gives it */
    for (int step = 0;; step++) {
        Pick pick;
        ck_assert_int_lt(step, 10000); /* it ends */
        ck_assert_int_eq(compaction_pick_range(store->set->current, &store->options, (Slice){0},
                                               (Slice){0}, number, store->lsn, &pick),
                         AIDB_OK);
        if (pick.level < 0)
            break;
        run_pick(store, &pick);
        pick_deinit(&pick);
    }
}

/* One table's answer: true when it decides. */
static bool table_answer(Store *store, const FileMeta *file, Slice key, uint64_t visible,
                         Entry *entry, bool *found)
{
    uint64_t cover;
    bool has;
    if (!file_covers(file, key))
        return false;
    ck_assert_int_eq(table_cover(&store->reader, &file->info, key, visible, &cover), AIDB_OK);
    ck_assert_int_eq(
        table_get(&store->reader, &file->info, key, table_key_hash(key), visible, entry, &has),
        AIDB_OK);
    if (has && entry->lsn > cover) {
        *found = entry->type == OP_PUT;
        return true;
    }
    *found = false;
    return has || cover > 0;
}

bool store_get(Store *store, Slice key, uint64_t visible, Entry *entry)
{
    const Version *version = store->set->current;
    bool found = false;
    for (uint32_t i = 0; i < version->levels[0].count; i++) {
        if (table_answer(store, version->levels[0].files[i], key, visible, entry, &found))
            return found;
    }
    for (int level = 1; level < LEVELS; level++) {
        uint32_t index = version_find_file(version, level, key);
        if (index < version->levels[level].count &&
            table_answer(store, version->levels[level].files[index], key, visible, entry, &found))
            return found;
    }
    return false;
}
