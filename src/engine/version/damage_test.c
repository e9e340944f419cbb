/* damage_test.c - manifests with changed, missing and misplaced bytes. */
#include "config.h"

#include "engine/version/test_version.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The start must refuse, naming file and offset; verify must report it. */
static void check_refused(Store *store, const char *file)
{
    int reports = 0;
    Status status = store_reopen(store);
    ck_assert_int_eq(status, AIDB_CORRUPTION);
    ck_assert_ptr_nonnull(strstr(status_message(), file));
    ck_assert_ptr_nonnull(strstr(status_message(), "at offset "));
    ck_assert_int_eq(manifest_verify(store->directory, count_reports, &reports), AIDB_OK);
    ck_assert_int_eq(reports, 1);
}

START_TEST(test_every_byte)
{
    Store store;
    store_with_history(&store);
    char *path = manifest_path(&store);
    char *before = describe(&store);
    Buffer bytes = read_file(path);
    ck_assert_uint_eq(bytes.size, store.set->manifest_end);
    uint64_t seed = test_seed("every_byte");
    int bits = test_damage("each") ? 8 : 1; /* each, or any of them */
    int fd = open(path, O_WRONLY);
    for (size_t n = 0; n < bytes.size * (size_t)bits; n++) {
        size_t i = n / (size_t)bits;
        uint8_t flipped =
            bytes.data[i] ^ (uint8_t)(bits == 8 ? 1u << n % 8 : 1 + test_random_below(&seed, 255));
        ManifestState state;
        ck_assert_int_eq(syscall(SYS_pwrite64, fd, &flipped, 1, i), 1);
        ck_assert_int_eq(manifest_load(store.directory, &state), AIDB_CORRUPTION);
        ck_assert_ptr_nonnull(strstr(status_message(), "MANIFEST-000001\""));
        ck_assert_ptr_nonnull(strstr(status_message(), "at offset "));
        if (i % 97 == 0)
            check_refused(&store, "MANIFEST-000001");
        ck_assert_int_eq(syscall(SYS_pwrite64, fd, bytes.data + i, 1, i), 1);
    }
    close(fd);
    printf("manifest of %zu bytes changed at %zu places, all found\n", bytes.size,
           bytes.size * (size_t)bits);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    check_same(&store, before);

    char *current = path_join(store.directory, "CURRENT");
    Buffer name = read_file(current);
    for (size_t i = 0; i < name.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            name.data[i] ^= (uint8_t)(1u << bit);
            write_file(current, name.data, name.size);
            check_refused(&store, "CURRENT");
            name.data[i] ^= (uint8_t)(1u << bit);
        }
        write_file(current, name.data, i);
        check_refused(&store, "CURRENT");
    }
    write_file(current, name.data, name.size);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    check_same(&store, before);
    buffer_deinit(&bytes);
    buffer_deinit(&name);
    free(before);
    free(current);
    free(path);
    store_destroy(&store);
}
END_TEST

START_TEST(test_every_length)
{
    Store store;
    store_with_history(&store);
    char *path = manifest_path(&store);
    char *before = describe(&store);
    Buffer bytes = read_file(path);
    for (size_t size = 0; size < bytes.size; size++) {
        ManifestState state;
        if (size > 100 && size < MANIFEST_HEADER_SIZE && size % 64 != 0)
            continue;
        write_file(path, bytes.data, size);
        ck_assert_int_eq(manifest_load(store.directory, &state), AIDB_CORRUPTION);
        ck_assert_ptr_nonnull(strstr(status_message(), "MANIFEST-000001\""));
        if (size % 61 == 0)
            check_refused(&store, "MANIFEST-000001");
    }
    write_file(path, bytes.data, bytes.size);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);

    /* An edit that was written and never sealed is cut off, whatever there is of it. */
    uint8_t seals[2 * MANIFEST_SECTOR];
    VersionEdit edit = {0};
    add_table(&store, &edit, 0, "[x,y]", 50);
    ck_assert_int_eq(apply(&store, &edit, 9), AIDB_OK);
    version_edit_deinit(&edit);
    Buffer longer = read_file(path);
    memcpy(seals, bytes.data + MANIFEST_SECTOR, sizeof seals);
    memcpy(longer.data + MANIFEST_SECTOR, seals, sizeof seals);
    uint64_t seed = test_seed("every_length");
    for (size_t size = bytes.size; size <= longer.size; size++) {
        write_file(path, longer.data, size);
        ck_assert_int_eq(store_reopen(&store), AIDB_OK);
        check_same(&store, before);
        Buffer now = read_file(path);
        ck_assert_uint_eq(now.size, bytes.size);
        buffer_deinit(&now);
        longer.data[bytes.size + test_random_below(&seed, longer.size - bytes.size)] ^= 0x41;
    }
    /* And the store goes on from there. */
    add_table(&store, &edit, 0, "[x,y]", 51);
    ck_assert_int_eq(apply(&store, &edit, 9), AIDB_OK);
    version_edit_deinit(&edit);
    char *after = describe(&store);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    check_same(&store, after);
    buffer_deinit(&bytes);
    buffer_deinit(&longer);
    free(before);
    free(after);
    free(path);
    store_destroy(&store);
}
END_TEST

START_TEST(test_misplaced)
{
    Store store;
    Store other;
    store_with_history(&store);
    other = (Store){.identity = test_identity};
    other.identity.system_id[3] ^= 1;
    other.directory = test_directory_create();
    ck_assert_int_eq(manifest_create(other.directory, &other.identity), AIDB_OK);
    ck_assert_int_eq(store_reopen(&other), AIDB_OK);
    VersionEdit nothing = {0};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(apply(&other, &nothing, 0), AIDB_OK);
    char *path = manifest_path(&store);
    char *other_path = manifest_path(&other);
    Buffer bytes = read_file(path);
    Buffer foreign = read_file(other_path);

    /* The manifest of another database. */
    write_file(path, foreign.data, foreign.size);
    ck_assert_int_eq(store_reopen(&store), AIDB_CORRUPTION);
    /* Its records, its seals, an older pair of seals, one seal in the other's place. */
    Buffer mixed = {0};
    ck_assert_int_eq(buffer_append(&mixed, bytes.data, bytes.size), AIDB_OK);
    memcpy(mixed.data + MANIFEST_HEADER_SIZE, foreign.data + MANIFEST_HEADER_SIZE, 64);
    write_file(path, mixed.data, mixed.size);
    check_refused(&store, "MANIFEST-000001");
    memcpy(mixed.data, bytes.data, bytes.size);
    memcpy(mixed.data + MANIFEST_SECTOR, foreign.data + MANIFEST_SECTOR, 2 * MANIFEST_SECTOR);
    write_file(path, mixed.data, mixed.size);
    check_refused(&store, "MANIFEST-000001");
    memcpy(mixed.data, bytes.data, bytes.size);
    memcpy(mixed.data + MANIFEST_SECTOR, bytes.data + 2 * MANIFEST_SECTOR, MANIFEST_SECTOR);
    write_file(path, mixed.data, mixed.size);
    check_refused(&store, "MANIFEST-000001");
    /* Seals that are each right but not neighbours. */
    memcpy(mixed.data, bytes.data, bytes.size);
    uint64_t end = store.set != NULL ? bytes.size : 0;
    manifest_seal(manifest_seed(store.identity.system_id, 1), 40, end, 4,
                  mixed.data + MANIFEST_SECTOR);
    write_file(path, mixed.data, mixed.size);
    check_refused(&store, "MANIFEST-000001");
    /* Under another number. */
    write_file(path, bytes.data, bytes.size);
    char *moved = path_join(store.directory, "MANIFEST-000002");
    ck_assert_int_eq(rename(path, moved), 0);
    ck_assert_int_eq(manifest_set_current(store.directory, 2), AIDB_OK);
    check_refused(&store, "MANIFEST-000002");
    /* Gone. */
    ck_assert_int_eq(file_unlink(moved), AIDB_OK);
    ck_assert_int_eq(store_reopen(&store), AIDB_CORRUPTION);
    ck_assert_ptr_nonnull(strstr(status_message(), "MANIFEST-000002"));
    /* Of a handle that expects another database. */
    ck_assert_int_eq(manifest_set_current(store.directory, 1), AIDB_OK);
    write_file(path, bytes.data, bytes.size);
    store.identity.system_id[0] ^= 1;
    ck_assert_int_eq(store_reopen(&store), AIDB_CORRUPTION);
    buffer_deinit(&bytes);
    buffer_deinit(&foreign);
    buffer_deinit(&mixed);
    free(path);
    free(other_path);
    free(moved);
    store_destroy(&store);
    store_destroy(&other);
}
END_TEST

END_TEST

void add_damage_tests(TCase *tests)
{
    tcase_add_test(tests, test_every_byte);
    tcase_add_test(tests, test_every_length);
    tcase_add_test(tests, test_misplaced);
}
