/*
 * version_test.c - the manifest on disk and the versions in memory; and the program of the tests of
 * versions.
 */
#include "config.h"

#include "engine/version/test_version.h"

#include "common/coding.h"
#include "common/hash.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

START_TEST(test_find_file)
{
    Store store;
    VersionEdit edit = {0};
    store_create(&store);
    add_table(&store, &edit, 2, "[b,d)", 1);
    add_table(&store, &edit, 2, "[d,f]", 1);
    add_table(&store, &edit, 2, "[h,", 1);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_OK);
    const Version *version = store.set->current;
    ck_assert_uint_eq(version_find_file(version, 2, text("a")), 0);
    ck_assert_uint_eq(version_find_file(version, 2, text("czz")), 0);
    ck_assert_uint_eq(version_find_file(version, 2, text("d")), 1);
    ck_assert_uint_eq(version_find_file(version, 2, text("f")), 1);
    ck_assert_uint_eq(version_find_file(version, 2, text("g")), 2);
    ck_assert_uint_eq(version_find_file(version, 2, text("zzz")), 2);
    ck_assert_uint_eq(version_find_file(version, 3, text("a")), 0);
    version_edit_deinit(&edit);
    store_destroy(&store);
}
END_TEST

/* ---- the life of a store --------------------------------------------------------------------- */

START_TEST(test_create)
{
    char *directory = test_directory_create();
    StoreIdentity identity;
    ManifestState state;
    ck_assert_int_eq(manifest_identity(directory, &identity), AIDB_NO_DATABASE);
    ck_assert_int_eq(manifest_load(directory, &state), AIDB_NO_DATABASE);
    /* An attempt that was killed before CURRENT does not stand in the way. */
    char *left = path_join(directory, "MANIFEST-000001");
    ck_assert_int_eq(file_replace(left, "half", 4, 0600), AIDB_OK);
    free(left);
    ck_assert_int_eq(manifest_create(directory, &test_identity), AIDB_OK);
    ck_assert_int_eq(manifest_create(directory, &test_identity), AIDB_EXISTS);
    ck_assert_int_eq(manifest_identity(directory, &identity), AIDB_OK);
    ck_assert_mem_eq(identity.system_id, test_identity.system_id, 16);
    ck_assert_uint_eq(identity.wal_segment_size, test_identity.wal_segment_size);
    ck_assert_uint_eq(identity.wal_ring_size, test_identity.wal_ring_size);
    ck_assert_int_eq(manifest_load(directory, &state), AIDB_OK);
    ck_assert_uint_eq(state.counters.next_number, 2);
    ck_assert_uint_eq(state.counters.term, 1);
    ck_assert_uint_eq(state.file_count, 0);
    manifest_state_deinit(&state);
    test_directory_destroy(directory);
}
END_TEST

START_TEST(test_counters)
{
    Store store;
    store_create(&store);
    VersionEdit start = {
        .new_incarnation = true, .incarnation = 1, .nonce = 77, .new_start = true, .term = 1};
    start.start = (WalStart){.incarnation = 1, .nonce = 77, .first_lsn = 100, .previous_end = 0};
    ck_assert_int_eq(apply(&store, &start, 0), AIDB_OK);
    VersionEdit stop = {.clean_stop = true, .flushed_lsn = 150};
    ck_assert_int_eq(apply(&store, &stop, 150), AIDB_OK);
    ck_assert(store.set->clean_stop);
    char *before = describe(&store);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    check_same(&store, before);
    free(before);

    /* Any later edit takes the clean stop back. */
    VersionEdit second = {
        .new_incarnation = true, .incarnation = 2, .nonce = 78, .new_start = true};
    second.start = (WalStart){.incarnation = 2, .nonce = 78, .first_lsn = 300, .previous_end = 150};
    ck_assert_int_eq(apply(&store, &second, 120), AIDB_OK);
    ck_assert(!store.set->clean_stop);
    ck_assert_uint_eq(store.set->horizon, 150);
    ck_assert_uint_eq(store.set->start_count, 2); /* the place 150 is at the end of the first log */
    ck_assert_int_eq(apply(&store, &(VersionEdit){.flushed_lsn = 151}, 400), AIDB_OK);
    ck_assert_uint_eq(store.set->start_count, 1);
    ck_assert_uint_eq(store.set->starts[0].incarnation, 2);

    /* Nothing goes back, and a refused edit changes nothing. */
    before = describe(&store);
    uint64_t end = store.set->manifest_end;
    ck_assert_int_eq(apply(&store, &(VersionEdit){.flushed_lsn = 150}, 0), AIDB_INTERNAL);
    ck_assert_int_eq(apply(&store, &(VersionEdit){.new_incarnation = true, .incarnation = 2}, 0),
                     AIDB_INTERNAL);
    ck_assert_int_eq(apply(&store, &second, 0), AIDB_INTERNAL);
    check_same(&store, before);
    ck_assert_uint_eq(store.set->manifest_end, end);
    ck_assert_uint_eq(store.set->failed, 0);
    free(before);

    /* More starts than there is room for without a flush. */
    Status status = AIDB_OK;
    uint32_t starts = 1;
    for (uint32_t i = 3; status == AIDB_OK && i < 200; i++) {
        VersionEdit next = {.new_start = true};
        next.start = (WalStart){
            .incarnation = i, .first_lsn = 300 * i, .previous_end = 300 * (uint64_t)(i - 1) + 50};
        status = apply(&store, &next, 0);
        starts += status == AIDB_OK;
    }
    ck_assert_int_eq(status, AIDB_LIMIT);
    ck_assert_uint_eq(starts, WAL_STARTS_MAX);
    /* A start whose log held nothing is replaced, and needs no room. */
    WalStart empty = store.set->starts[WAL_STARTS_MAX - 1];
    VersionEdit follower = {.new_start = true,
                            .start = {.incarnation = 500,
                                      .first_lsn = 300 * 500,
                                      .previous_end = empty.previous_end + 1}};
    ck_assert_int_eq(apply(&store, &follower, 0), AIDB_LIMIT);
    follower.start.previous_end = empty.previous_end;
    ck_assert_int_eq(apply(&store, &follower, 0), AIDB_OK);
    ck_assert_uint_eq(store.set->start_count, WAL_STARTS_MAX);
    ck_assert_uint_eq(store.set->starts[WAL_STARTS_MAX - 1].incarnation, 500);
    before = describe(&store);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    check_same(&store, before);
    free(before);
    store_destroy(&store);
}
END_TEST

START_TEST(test_invariants)
{
    static const char *refused[] = {"[c,f]", "[a,b]", "[d,d]", "[a,", "[b,d)", "[czz,czz]"};
    Store store;
    VersionEdit edit = {0};
    store_create(&store);
    uint64_t middle = add_table(&store, &edit, 1, "[b,d]", 1);
    add_table(&store, &edit, 1, "[g,h)", 1);
    add_table(&store, &edit, 1, "[h,i]", 1);
    add_table(&store, &edit, 0, "[a,", 5);
    add_table(&store, &edit, 0, "[a,z]", 9);
    add_table(&store, &edit, 0, "[c,e]", 7);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_OK);
    version_edit_deinit(&edit);
    const Version *version = store.set->current;
    ck_assert_uint_eq(version->levels[0].files[0]->info.lsn_max, 9); /* newest first */
    ck_assert_uint_eq(version->levels[0].files[2]->info.lsn_max, 5);
    size_t used;
    size_t size;
    size_t retired;
    arena_reclaim(store.arena, store.slot);
    arena_usage(store.arena, &used, &size, &retired);
    char *before = describe(&store);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        add_table(&store, &edit, 1, refused[i], 1);
        ck_assert_int_eq(apply(&store, &edit, 0), AIDB_INTERNAL);
        version_edit_deinit(&edit);
    }
    /* Twice the same, in one edit and beside what is there; and what is not there. */
    TableInfo info = {.number = middle, .file_size = 1};
    FileBounds bounds = parse_bounds("[x,y]");
    ck_assert_int_eq(version_edit_add(&edit, 3, &info, &bounds), AIDB_OK);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_INTERNAL);
    edit.added[0].info.number = 99;
    ck_assert_int_eq(version_edit_add(&edit, 4, &edit.added[0].info, &bounds), AIDB_OK);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_INTERNAL);
    version_edit_deinit(&edit);
    ck_assert_int_eq(version_edit_remove(&edit, 2, middle), AIDB_OK);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_INTERNAL);
    edit.removed[0].level = 1;
    ck_assert_int_eq(version_edit_remove(&edit, 1, middle), AIDB_OK);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_INTERNAL);
    version_edit_deinit(&edit);
    check_same(&store, before);
    free(before);
    size_t used_after;
    arena_usage(store.arena, &used_after, &size, &retired);
    ck_assert_uint_eq(used_after, used);
    store_destroy(&store);
}
END_TEST

/* Random edits against the description of the state, with reopening and beginning new manifests. */
START_TEST(test_random_history)
{
    uint64_t seed = test_seed("random_history");
    Store store;
    uint64_t rotations = 0;
    uint64_t lsn = 1;
    store_create(&store);
    for (int round = 0; round < 400; round++) {
        VersionEdit edit = {0};
        const Version *version = store.set->current;
        uint64_t manifest = store.set->manifest_number;
        char bounds[64];
        lsn += 1 + test_random_below(&seed, 100);
        /* A cell of the key space is in one file of each level >= 1 at most. */
        for (int change = 0; change < 4; change++) {
            uint8_t level = (uint8_t)test_random_below(&seed, LEVELS);
            uint64_t cell = 100 + test_random_below(&seed, 300);
            snprintf(bounds, sizeof bounds, "[%llu,%llu%c", (unsigned long long)cell,
                     (unsigned long long)cell + 1, ')');
            bool clash = false;
            for (size_t i = 0; i < edit.added_count; i++)
                clash |= edit.added[i].level == level;
            for (uint32_t i = 0; i < version->levels[level].count && !clash && level > 0; i++) {
                FileMeta *file = version->levels[level].files[i];
                clash = file_covers(file, slice_make(bounds + 1, 3));
            }
            if (!clash) {
                add_table(&store, &edit, level, bounds, lsn);
                continue;
            }
            if (version->levels[level].count == 0 || edit.removed_count > 0)
                continue;
            uint32_t index = (uint32_t)test_random_below(&seed, version->levels[level].count);
            ck_assert_int_eq(
                version_edit_remove(&edit, level, version->levels[level].files[index]->info.number),
                AIDB_OK);
        }
        if (test_random_below(&seed, 3) == 0)
            edit.flushed_lsn = lsn;
        if (round % 50 == 49) {
            /* Level 5 holds keys of 64 KiB: manifests grow and begin anew. */
            static uint8_t key[AIDB_KEY_MAX];
            memset(key, 'k', sizeof key);
            TableInfo info = {.file_size = 5, .lsn_min = lsn, .lsn_max = lsn};
            FileBounds wide = {.smallest = slice_make(key, sizeof key - 1),
                               .largest = slice_make(key, sizeof key)};
            for (int step = 0; step < 6; step++) {
                VersionEdit extra = {0};
                info.number = make_table(&store, 5);
                ck_assert_int_eq(version_edit_add(&extra, 5, &info, &wide), AIDB_OK);
                ck_assert_int_eq(apply(&store, &extra, lsn), AIDB_OK);
                version_edit_deinit(&extra);
                ck_assert_int_eq(version_edit_remove(&extra, 5, info.number), AIDB_OK);
                ck_assert_int_eq(apply(&store, &extra, lsn), AIDB_OK);
                version_edit_deinit(&extra);
            }
        }
        ck_assert_int_eq(apply(&store, &edit, lsn), AIDB_OK);
        version_edit_deinit(&edit);
        rotations += store.set->manifest_number != manifest;
        if (test_random_below(&seed, 20) == 0 || store.set->manifest_number != manifest) {
            char *before = describe(&store);
            uint64_t number = store.set->version_number;
            ck_assert_int_eq(store_reopen(&store), AIDB_OK);
            check_same(&store, before);
            ck_assert_uint_eq(store.set->version_number, number);
            free(before);
        }
    }
    ck_assert_uint_ge(rotations, 2);
    store_destroy(&store);
}
END_TEST

/* ---- dead tables ----------------------------------------------------------------------------- */

START_TEST(test_dead_tables)
{
    Store store;
    VersionEdit edit = {0};
    uint64_t dead[8];
    size_t used;
    size_t size;
    size_t retired;
    store_create(&store);
    arena_reclaim(store.arena, store.slot);
    arena_usage(store.arena, &used, &size, &retired);
    uint64_t first = add_table(&store, &edit, 0, "[a,b]", 1);
    uint64_t second = add_table(&store, &edit, 0, "[c,d]", 2);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_OK);
    version_edit_deinit(&edit);
    ck_assert_uint_eq(versions_take_dead(store.versions, store.slot, store.epochs, dead, 8), 0);

    /* A move makes a new record, and the table lives on. */
    ck_assert_int_eq(version_edit_move(&edit, store.set->current->levels[0].files[1], 3), AIDB_OK);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_OK);
    version_edit_deinit(&edit);
    ck_assert_uint_eq(store.set->current->levels[3].files[0]->info.number, first);
    ck_assert_ptr_nonnull(store.set->dead);
    ck_assert_uint_eq(versions_take_dead(store.versions, store.slot, store.epochs, dead, 8), 0);
    ck_assert_ptr_null(store.set->dead);

    /* A reader in an epoch keeps what it may see. */
    epoch_enter(store.epochs, store.reader);
    ck_assert_int_eq(version_edit_remove(&edit, 0, second), AIDB_OK);
    ck_assert_int_eq(version_edit_remove(&edit, 3, first), AIDB_OK);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_OK);
    version_edit_deinit(&edit);
    ck_assert_uint_eq(versions_take_dead(store.versions, store.slot, store.epochs, dead, 8), 0);
    epoch_leave(store.reader);
    /* Each is handed out once, as many as there is room for. */
    ck_assert_uint_eq(versions_take_dead(store.versions, store.slot, store.epochs, dead, 1), 1);
    ck_assert_uint_eq(versions_take_dead(store.versions, store.slot, store.epochs, dead + 1, 8), 1);
    ck_assert((dead[0] == first && dead[1] == second) || (dead[0] == second && dead[1] == first));
    ck_assert_uint_eq(versions_take_dead(store.versions, store.slot, store.epochs, dead, 8), 0);
    size_t used_after;
    arena_reclaim(store.arena, store.slot);
    arena_usage(store.arena, &used_after, &size, &retired);
    ck_assert_uint_eq(used_after, used);
    store_destroy(&store);
}
END_TEST

START_TEST(test_arena_used_up)
{
    Store store;
    static uint8_t key[AIDB_KEY_MAX];
    store_create(&store);
    Status status = AIDB_OK;
    uint32_t count = 0;
    while (status == AIDB_OK) {
        VersionEdit edit = {0};
        TableInfo info = {.file_size = 1};
        info.number = make_table(&store, 1);
        memset(key, 'k', sizeof key);
        key[0] = (uint8_t)(count >> 8);
        key[1] = (uint8_t)count;
        FileBounds bounds = {.smallest = slice_make(key, sizeof key),
                             .largest = slice_make(key, sizeof key)};
        ck_assert_int_eq(version_edit_add(&edit, 4, &info, &bounds), AIDB_OK);
        status = apply(&store, &edit, 0);
        version_edit_deinit(&edit);
        count += status == AIDB_OK;
    }
    ck_assert_int_eq(status, AIDB_NO_MEMORY);
    ck_assert_uint_gt(count, 20);
    ck_assert_uint_eq(store.set->current->levels[4].count, count);
    ck_assert_uint_eq(store.set->failed, 0);
    store_destroy(&store);
}
END_TEST

/* ---- start ----------------------------------------------------------------------------------- */

START_TEST(test_sweep)
{
    Store store;
    VersionEdit edit = {0};
    store_create(&store);
    uint64_t live = add_table(&store, &edit, 0, "[a,b]", 1);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_OK);
    version_edit_deinit(&edit);
    uint64_t orphan = make_table(&store, 10);
    uint64_t other_term = TABLE_NUMBER(7, 500);
    char *path = manifest_table_path(store.directory, other_term);
    ck_assert_int_eq(file_replace(path, "x", 1, 0600), AIDB_OK);
    free(path);
    static const char *names[] = {"MANIFEST-000900", "CURRENT.tmp", "notes.txt", "MANIFEST-9",
                                  "sst/notes.txt"};
    for (size_t i = 0; i < 5; i++) {
        path = path_join(store.directory, names[i]);
        ck_assert_int_eq(file_replace(path, "x", 1, 0600), AIDB_OK);
        free(path);
    }
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    ck_assert(table_exists(&store, live) && !table_exists(&store, orphan) &&
              !table_exists(&store, other_term));
    for (size_t i = 0; i < 5; i++) {
        path = path_join(store.directory, names[i]);
        ck_assert_int_eq(file_exists(path), i >= 2); /* strangers stay */
        free(path);
    }
    ck_assert_uint_eq(store.set->next_number, 901);
    ck_assert_uint_eq(version_next_number(store.set), 901);
    store_destroy(&store);
}
END_TEST

START_TEST(test_missing_table)
{
    Store store;
    VersionEdit edit = {0};
    char name[TABLE_NAME_SIZE];
    int reports = 0;
    store_create(&store);
    uint64_t number = add_table(&store, &edit, 0, "[a,b]", 1);
    ck_assert_int_eq(apply(&store, &edit, 0), AIDB_OK);
    version_edit_deinit(&edit);
    ck_assert_int_eq(manifest_verify(store.directory, count_reports, &reports), AIDB_OK);
    ck_assert_int_eq(reports, 0);
    uint64_t orphan = make_table(&store, 10);
    char *path = manifest_table_path(store.directory, number);
    table_name(number, name);
    ck_assert_int_eq(truncate(path, 3), 0);
    ck_assert_int_eq(store_reopen(&store), AIDB_CORRUPTION);
    ck_assert_ptr_nonnull(strstr(status_message(), name));
    ck_assert_int_eq(manifest_verify(store.directory, count_reports, &reports), AIDB_OK);
    ck_assert_int_eq(reports, 1);
    ck_assert_int_eq(file_unlink(path), AIDB_OK);
    ck_assert_int_eq(store_reopen(&store), AIDB_CORRUPTION);
    ck_assert_ptr_nonnull(strstr(status_message(), name));
    ck_assert_int_eq(manifest_verify(store.directory, count_reports, &reports), AIDB_OK);
    ck_assert_int_eq(reports, 2);
    /* A damaged store is left as it is. */
    ck_assert(table_exists(&store, orphan));
    free(path);
    store_destroy(&store);
}
END_TEST

/* ---- reading a manifest ------------------------------------------------------------------------ */

static Status count_edits(void *arg, uint64_t offset, const VersionEdit *edit, uint64_t durable)
{
    (void)durable;
    ck_assert_uint_ge(offset, MANIFEST_HEADER_SIZE);
    *(size_t *)arg += edit->added_count;
    return AIDB_OK;
}

START_TEST(test_read)
{
    Store store;
    size_t added = 0;
    StoreIdentity identity;
    store_with_history(&store);
    char *path = manifest_path(&store);
    ck_assert_int_eq(manifest_read(path, store.identity.system_id, count_edits, &added, &identity),
                     AIDB_OK);
    ck_assert_uint_eq(added, 6);
    ck_assert_mem_eq(identity.system_id, store.identity.system_id, 16);
    ck_assert_int_eq(
        manifest_read(path, (const uint8_t *)"another database", count_edits, &added, &identity),
        AIDB_CORRUPTION);
    ck_assert_int_eq(manifest_read("/x/CURRENT", NULL, count_edits, &added, &identity),
                     AIDB_INVALID);
    /* Another format is no damage, for salvage neither. */
    uint8_t header[MANIFEST_SECTOR];
    int fd = open(path, O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, header, sizeof header, 0), (ssize_t)sizeof header);
    uint64_t number = get_fixed64(header + 32);
    put_fixed32(header + 8, 7);
    put_fixed64(header + sizeof header - 8, hash64(header, sizeof header - 8, number));
    ck_assert_int_eq(pwrite(fd, header, sizeof header, 0), (ssize_t)sizeof header);
    close(fd);
    ck_assert_int_eq(manifest_read(path, store.identity.system_id, count_edits, &added, &identity),
                     AIDB_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(status_text(), path));
    ck_assert_ptr_nonnull(
        strstr(status_text(), "has format 7, this version of AiDb reads format 1"));
    ck_assert_ptr_nonnull(strstr(status_text(), "a newer version"));
    ManifestRemains remains;
    ck_assert_int_eq(manifest_salvage(store.directory, NULL, &remains), AIDB_UNSUPPORTED);
    free(path);
    store_destroy(&store);
}

int main(void)
{
    Suite *suite = suite_create("version");
    suite_add_tcase(suite, edit_cases());
    TCase *store = tcase_create("store");
    tcase_set_timeout(store, 120);
    tcase_add_test(store, test_find_file);
    tcase_add_test(store, test_create);
    tcase_add_test(store, test_counters);
    tcase_add_test(store, test_invariants);
    tcase_add_test(store, test_random_history);
    tcase_add_test(store, test_dead_tables);
    tcase_add_test(store, test_arena_used_up);
    tcase_add_test(store, test_sweep);
    tcase_add_test(store, test_missing_table);
    tcase_add_test(store, test_read);
    suite_add_tcase(suite, store);
    TCase *damage = tcase_create("damage");
    tcase_set_timeout(damage, 3600);
    add_damage_tests(damage);
    add_fault_tests(damage);
    suite_add_tcase(suite, damage);
    return test_run(suite);
}
