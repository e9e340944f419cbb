/*
 * misplaced_test.c - files of another database, another time or another copy in the place of a store's
 * own, and files cut or zeroed: found, refused, or right.
 */
#include "config.h"

#include "engine/db/test_history.h"

#include "engine/version/version.h"
#include "io/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct Fixture {
    World world; /* killed, with tables and log */
    char *older; /* a copy of it from before */
    char *
        diverged; /* that copy, which went on by itself: same system id, same numbers, other contents */
    World foreign;   /* another database */
    uint64_t checks; /* figures */
    uint64_t refused, failed_reads, right;
} Fixture;

static void copy_file(const char *from_directory, const char *to_directory, const char *name,
                      const char *new_name)
{
    Buffer bytes = {0};
    char *from = path_join(from_directory, name), *to = path_join(to_directory, new_name);
    ok(file_read_whole(from, 64u << 20, &bytes));
    ok(file_replace(to, bytes.data, bytes.size, 0600));
    buffer_deinit(&bytes);
    free(from);
    free(to);
}

static void run_more(World *world, uint32_t writes)
{
    for (uint32_t i = 0; i < writes; i++) {
        random_write(world);
        step(world->store.wal_writer);
        step(world->store.flusher);
        if (below(world, 3) == 0)
            step(world->store.compactor);
    }
}

/* A store that is killed may leave tables behind that are in use no more, and that nobody looks at. */
static void remove_unused_tables(const char *directory)
{
    char *names[512];
    size_t count = names_in(directory, "sst", ".sst", names, 512);
    ManifestState state;
    ok(manifest_load(directory, &state));
    for (size_t i = 0; i < count; i++) {
        uint64_t number;
        bool used = false;
        ck_assert(table_name_parse(strrchr(names[i], '/') + 1, &number));
        for (size_t j = 0; j < state.file_count; j++)
            used = used || state.files[j].info.number == number;
        char *path = path_join(directory, names[i]);
        if (!used)
            ck_assert_int_eq(unlink(path), 0);
        free(path);
        free(names[i]);
    }
    manifest_state_deinit(&state);
}

static void fixture_make(Fixture *fixture, uint64_t seed)
{
    memset(fixture, 0, sizeof *fixture);
    World *world = &fixture->world;
    world_run(world, seed);
    fixture->older = test_directory_create();
    fixture->diverged = test_directory_create();
    test_directory_copy(world->store.directory, fixture->older);
    test_directory_copy(world->store.directory, fixture->diverged);
    store_open(&world->store);
    run_more(world, 1500);
    store_close(&world->store, false);
    remove_unused_tables(world->store.directory);
    World other = {.store = {.directory = fixture->diverged,
                             .options = world->store.options,
                             .random = world->store.random * 3 | 1},
                   .next_number = 2000000000};
    store_open(&other.store);
    run_more(&other, 1500);
    store_close(&other.store, false);
    for (uint32_t i = 0; i < KEYS; i++)
        free(other.keys[i].events);
    world_run(&fixture->foreign, seed + 1);
}

static void fixture_free(Fixture *fixture)
{
    test_directory_destroy(fixture->older);
    test_directory_destroy(fixture->diverged);
    world_destroy(&fixture->foreign);
    world_destroy(&fixture->world);
}

/* What a key held after all operations below an LSN: the write's number, 0 for none. */
static uint32_t state_at(const World *world, uint32_t index, uint64_t lsn)
{
    const History *history = &world->keys[index];
    for (size_t i = history->count; i-- > 0;)
        if (history->events[i].lsn < lsn)
            return history->events[i].number;
    return 0;
}

/* Opens a damaged copy. It refuses, or what it gives is right: an error that names a file, or the state
 * after all operations up to one place in the log, at or above the horizon. */
static void open_damaged(Fixture *fixture, const char *directory, const char *what)
{
    const World *world = &fixture->world;
    Db *db;
    Session *session = NULL;
    ManifestState state;
    uint32_t numbers[KEYS];
    uint64_t horizon = 0;
    fixture->checks++;
    if (manifest_load(directory, &state) == AIDB_OK) {
        horizon = state.counters.horizon;
        manifest_state_deinit(&state);
    }
    Status status = db_setup(directory, &world->store.options, &(DbSlots){.count = 8}, &db);
    if (status == AIDB_OK) {
        ok(db_session_create(db, UINT32_MAX, SLOT_THREAD, &session));
        status = db_recover(db, session);
    }
    if (status != AIDB_OK) {
        ck_assert_msg(status == AIDB_CORRUPTION || status == AIDB_NO_DATABASE, "%s: %s", what,
                      status_message());
        fixture->refused++;
        goto out;
    }
    uint64_t at, cut = UINT64_MAX;
    ok(db_read_begin(session, DB_NOW, &at));
    bool failed = false, same = true;
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[16];
        Entry entry;
        key_of(i, key);
        status = db_read_get(session, slice_from_string(key), &entry);
        numbers[i] = 0;
        if (status == AIDB_OK) {
            memcpy(&numbers[i], entry.value.data, sizeof numbers[i]);
            ck_assert_msg(slice_equal(entry.value, value_of(numbers[i])), "%s: a wrong value",
                          what);
        } else if (status == AIDB_CORRUPTION) {
            ck_assert_msg(strstr(status_message(), directory) != NULL, "%s: %s", what,
                          status_message());
            failed = true;
            numbers[i] = UINT32_MAX;
        } else {
            ck_assert_int_eq(status, AIDB_NOT_FOUND);
        }
        same = same && (numbers[i] == UINT32_MAX || numbers[i] == state_at(world, i, UINT64_MAX));
    }
    db_read_end(session);
    /* The end of the log may be cut off, but only as a whole. */
    for (uint32_t key = 0; key < KEYS && !same; key++)
        for (size_t i = 0; i < world->keys[key].count && !same; i++) {
            cut = world->keys[key].events[i].lsn;
            if (cut < horizon)
                continue;
            same = true;
            for (uint32_t j = 0; j < KEYS && same; j++)
                same = numbers[j] == UINT32_MAX || numbers[j] == state_at(world, j, cut);
        }
    ck_assert_msg(same, "%s: what is read was never the state of the store", what);
    fixture->failed_reads += failed;
    fixture->right += !failed;
out:
    if (session != NULL)
        db_session_destroy(session);
    db_destroy(db);
}

/* `must`: verification has to find it. */
static void check_damaged(Fixture *fixture, char *directory, const char *file, bool must,
                          const char *what)
{
    for (int online = 0; online <= 1; online++) {
        uint64_t findings = 0;
        Status status = db_verify(directory, online != 0, count_finding, &findings);
        ck_assert(status == AIDB_OK || status == AIDB_NO_DATABASE);
        ck_assert_msg(!must || findings > 0 || status == AIDB_NO_DATABASE,
                      "%s (%s) is not found by verify%s", what, file, online ? " online" : "");
    }
    open_damaged(fixture, directory, what);
}

static char *fresh_copy(const Fixture *fixture)
{
    char *directory = test_directory_create();
    test_directory_copy(fixture->world.store.directory, directory);
    return directory;
}

/* A file of another store in the place of one of ours. */
static void put_other(Fixture *fixture, const char *from, const char *folder, const char *wanted,
                      const char *what)
{
    char *own[512], *other[512];
    size_t own_count = names_in(fixture->world.store.directory, folder, wanted, own, 512);
    size_t other_count = names_in(from, folder, wanted, other, 512);
    bool must = strcmp(folder, "wal") != 0;
    for (size_t i = 0; i < own_count && other_count > 0; i++) {
        const char *source = other[i % other_count];
        for (size_t j = 0; j < other_count; j++) /* the one with this name, if there is one */
            if (strcmp(other[j], own[i]) == 0)
                source = other[j];
        Buffer mine = {0}, theirs = {0};
        char *mine_path = path_join(fixture->world.store.directory, own[i]);
        char *their_path = path_join(from, source);
        ok(file_read_whole(mine_path, 64u << 20, &mine));
        ok(file_read_whole(their_path, 64u << 20, &theirs));
        free(mine_path);
        free(their_path);
        if (!slice_equal(buffer_slice(&mine), buffer_slice(&theirs))) {
            char *copy = fresh_copy(fixture);
            copy_file(from, copy, source, own[i]);
            check_damaged(fixture, copy, own[i], must, what);
            test_directory_destroy(copy);
        }
        buffer_deinit(&mine);
        buffer_deinit(&theirs);
    }
    for (size_t i = 0; i < own_count; i++)
        free(own[i]);
    for (size_t i = 0; i < other_count; i++)
        free(other[i]);
}

/* Each file gone, cut at each step of 4 KiB, with a page of zeros; tables and manifest are always found. */
static void hurt_each(Fixture *fixture, const char *folder, const char *wanted, uint32_t one_in,
                      uint64_t *random)
{
    char *own[512];
    size_t count = names_in(fixture->world.store.directory, folder, wanted, own, 512);
    bool must = strcmp(folder, "wal") != 0;
    for (size_t i = 0; i < count; i++) {
        char *source = path_join(fixture->world.store.directory, own[i]);
        uint64_t size = size_of(source);
        free(source);
        for (uint64_t at = 0; at < size; at += 4096) {
            for (int zeros = 0; zeros <= 1; zeros++) {
                if (test_random_below(random, one_in) != 0)
                    continue;
                char *copy = fresh_copy(fixture);
                char *path = path_join(copy, own[i]);
                bool changed = true;
                if (at == 0 && zeros == 0) {
                    ck_assert_int_eq(unlink(path), 0);
                } else if (zeros == 0) {
                    ck_assert_int_eq(truncate(path, (off_t)at), 0);
                } else {
                    uint8_t page[4096] = {0}, before[4096];
                    size_t piece = size - at < 4096 ? (size_t)(size - at) : 4096;
                    int fd = open(path, O_RDWR);
                    ck_assert_int_eq(pread(fd, before, piece, (off_t)at), (ssize_t)piece);
                    changed = memcmp(before, page, piece) != 0;
                    ck_assert_int_eq(pwrite(fd, page, piece, (off_t)at), (ssize_t)piece);
                    close(fd);
                }
                check_damaged(fixture, copy, own[i], must && changed,
                              zeros ? "a page of zeros" : "a file cut short or gone");
                free(path);
                test_directory_destroy(copy);
            }
        }
        free(own[i]);
    }
}

START_TEST(misplaced_files)
{
    uint64_t seed = test_seed("misplaced");
    bool all = test_damage("full");
    for (int round = 0; round < (all ? 20 : 1); round++) {
        Fixture fixture;
        fixture_make(&fixture, seed + (uint64_t)round * 104729);
        uint64_t random = (seed + (uint64_t)round) | 1;
        const char *foreign = fixture.foreign.store.directory;
        put_other(&fixture, foreign, "sst", ".sst", "a table of another database");
        put_other(&fixture, fixture.diverged, "sst", ".sst", "a table of a copy that went on");
        put_other(&fixture, foreign, "", "MANIFEST", "the manifest of another database");
        put_other(&fixture, fixture.older, "", "MANIFEST", "an older manifest");
        put_other(&fixture, fixture.diverged, "", "MANIFEST",
                  "the manifest of a copy that went on");
        put_other(&fixture, foreign, "", "CURRENT", "CURRENT of another database");
        put_other(&fixture, foreign, "wal", ".0", "a segment of another database");
        put_other(&fixture, fixture.older, "wal", ".0", "an older segment");
        put_other(&fixture, fixture.diverged, "wal", ".0", "a segment of a copy that went on");
        put_other(&fixture, foreign, "wal", "ring", "the ring of another database");
        put_other(&fixture, fixture.older, "wal", "ring", "an older ring");
        put_other(&fixture, fixture.diverged, "wal", "ring", "the ring of a copy that went on");
        hurt_each(&fixture, "sst", ".sst", all ? 1 : 8, &random);
        hurt_each(&fixture, "", "MANIFEST", 1, &random);
        hurt_each(&fixture, "", "CURRENT", 1, &random);
        hurt_each(&fixture, "wal", ".0", all ? 1 : 4, &random);
        hurt_each(&fixture, "wal", "ring", all ? 1 : 2, &random);
        printf(
            "%llu stores with a file of another place or time, cut or zeroed: %llu did not open, "
            "%llu gave errors for some keys, %llu were right\n",
            (unsigned long long)fixture.checks, (unsigned long long)fixture.refused,
            (unsigned long long)fixture.failed_reads, (unsigned long long)fixture.right);
        fixture_free(&fixture);
    }
}
END_TEST

TCase *misplaced_cases(void)
{
    TCase *tests = tcase_create("damage");
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, misplaced_files);
    return tests;
}
