/* test_history.c - a random store and all that was ever written to it; the files of a store. */
#include "config.h"

#include "engine/db/test_history.h"

#include "io/io.h"

#include <string.h>
#include <sys/stat.h>

uint32_t below(World *world, uint32_t bound)
{
    return (uint32_t)test_random_below(&world->store.random, bound);
}

Slice value_of(uint32_t number)
{
    static uint8_t value[3000];
    uint64_t random = number * 0x9e3779b97f4a7c15u + 1;
    uint32_t size = (uint32_t)(8 + test_random_below(&random, number % 16 == 0 ? 2900 : 200));
    for (uint32_t i = 0; i < size; i++)
        value[i] = number % 3 == 0 ? (uint8_t)test_random(&random) : (uint8_t)(i / 8);
    memcpy(value, &number, sizeof number);
    return slice_make(value, size);
}

static void note(World *world, uint32_t key, uint64_t lsn, uint32_t number, bool range)
{
    History *history = &world->keys[key];
    if (history->count == history->capacity) {
        history->capacity = history->capacity == 0 ? 16 : history->capacity * 2;
        history->events = realloc(history->events, history->capacity * sizeof(Event));
        ck_assert_ptr_nonnull(history->events);
    }
    history->events[history->count++] = (Event){.lsn = lsn, .number = number, .range = range};
}

void random_write(World *world)
{
    Batch batch = {0};
    uint32_t count = 1 + below(world, 4);
    for (uint32_t i = 0; i < count; i++) {
        char key[16], to[16];
        uint32_t index = below(world, KEYS);
        key_of(index, key);
        uint32_t what = below(world, 24);
        if (what < 4) {
            ok(batch_delete(&batch, slice_from_string(key)));
        } else if (what == 4) {
            key_of(index + below(world, 20), to);
            ok(batch_delete_range(&batch, slice_from_string(key), slice_from_string(to)));
        } else {
            ok(batch_put(&batch, slice_from_string(key), value_of(++world->next_number)));
        }
    }
    DbWrite write = {.ops = buffer_slice(&batch.ops),
                     .op_count = batch.op_count,
                     .range_count = batch.range_count};
    DbCommit commit;
    ok(db_write(world->store.client, &write, &commit));
    if (below(world, 4) == 0)
        ok(db_wait(world->store.client, commit.end, AIDB_FSYNC));
    size_t cursor = 0;
    BatchOp op;
    bool damaged = false;
    uint32_t last_offset = 0;
    while (batch_next(write.ops, &cursor, &op, &damaged))
        last_offset = op.offset;
    cursor = 0;
    while (batch_next(write.ops, &cursor, &op, &damaged)) {
        uint64_t lsn = commit.lsn - last_offset + op.offset;
        uint32_t number = 0;
        if (op.type == OP_PUT)
            memcpy(&number, op.value.data, sizeof number);
        for (uint32_t i = 0; i < KEYS; i++) {
            char key[16];
            key_of(i, key);
            Slice own = slice_from_string(key);
            if (op.type == OP_DELETE_RANGE
                    ? slice_compare(op.key, own) <= 0 && slice_compare(own, op.value) < 0
                    : slice_equal(op.key, own))
                note(world, i, lsn, number, op.type == OP_DELETE_RANGE);
        }
    }
    batch_deinit(&batch);
}

void world_run(World *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->store.random = seed | 1;
    world->store.options = small_options();
    world->store.options.memtable_size = 64u << 10;
    world->store.options.compression =
        test_random(&world->store.random) % 3 == 0 ? COMPRESSION_NONE : COMPRESSION_ZSTD;
    world->store.directory = test_directory_create();
    ok(db_create(world->store.directory, &world->store.options));
    store_open(&world->store);
    uint32_t writes = 200 + below(world, 3000);
    for (uint32_t i = 0; i < writes; i++) {
        random_write(world);
        step(world->store.wal_writer);
        step(world->store.flusher);
        if (below(world, 3) == 0)
            step(world->store.compactor);
        if (below(world, 700) == 0) {
            store_close(&world->store, below(world, 2) == 0);
            store_open(&world->store);
        }
    }
    store_close(&world->store, below(world, 3) == 0);
}

void world_destroy(World *world)
{
    for (uint32_t i = 0; i < KEYS; i++)
        free(world->keys[i].events);
    test_directory_destroy(world->store.directory);
}

/* ---- files ----------------------------------------------------------------------------------- */

typedef struct Listing {
    const char *folder;
    const char *wanted; /* the name holds this */
    char *paths[512];
    size_t count;
} Listing;

static Status list_name(void *arg, const char *name)
{
    Listing *listing = arg;
    if (strstr(name, listing->wanted) != NULL && listing->count < 512)
        listing->paths[listing->count++] = path_join(listing->folder, name);
    return AIDB_OK;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

size_t names_in(const char *directory, const char *folder, const char *wanted, char **paths,
                size_t room)
{
    char *full = path_join(directory, folder);
    Listing listing = {.folder = folder, .wanted = wanted};
    ok(directory_list(full, list_name, &listing));
    free(full);
    ck_assert_uint_le(listing.count, room);
    if (listing.count > 0)
        qsort(listing.paths, listing.count, sizeof listing.paths[0], compare_paths);
    memcpy(paths, listing.paths, listing.count * sizeof *paths);
    return listing.count;
}

uint64_t size_of(const char *path)
{
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    return (uint64_t)info.st_size;
}

void count_finding(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)path;
    (void)offset;
    (void)what;
    ++*(uint64_t *)arg;
}
