/*
 * fault_test.c - failures of the disk.
 *
 * Faults are injected below src/io: this file defines the system calls that write, sync and rename, counts
 * them, and can make the Nth fail, alone or with all that follow, as they do when a process is gone.
 */
#include "config.h"

#include "engine/version/test_version.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    bool armed;
    long calls;    /* seen since armed */
    long fail_at;  /* the call that fails, from 1 */
    bool for_good; /* and all after it */
    int error;
} faults;

/* What the manifest held at its last successful sync, by name: what a power failure may leave. */
static struct {
    char name[64];
    uint8_t *data;
    size_t size;
} synced[8];
static size_t synced_count;
static bool record_syncs;

static bool call_fails(void)
{
    if (!faults.armed)
        return false;
    faults.calls++;
    bool fails = faults.calls == faults.fail_at ||
                 (faults.for_good && faults.calls > faults.fail_at && faults.fail_at > 0);
    if (fails)
        errno = faults.error;
    return fails;
}

static void note_sync(int fd)
{
    char link[64];
    char path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = '\0';
    const char *name = strrchr(path, '/') + 1;
    if (strncmp(name, "MANIFEST-", 9) != 0)
        return;
    size_t i = 0;
    while (i < synced_count && strcmp(synced[i].name, name) != 0)
        i++;
    if (i == synced_count) {
        ck_assert_uint_lt(synced_count, 8);
        snprintf(synced[synced_count++].name, sizeof synced[0].name, "%s", name);
    }
    struct stat info;
    ck_assert_int_eq(fstat(fd, &info), 0);
    synced[i].data = realloc(synced[i].data, (size_t)info.st_size + 1);
    synced[i].size = (size_t)info.st_size;
    ck_assert_int_eq(pread(fd, synced[i].data, synced[i].size, 0), info.st_size);
}

static void forget_syncs(void)
{
    for (size_t i = 0; i < synced_count; i++)
        free(synced[i].data);
    memset(synced, 0, sizeof synced);
    synced_count = 0;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (call_fails()) {
        /* A torn write: half of it arrives. */
        if (size > 1)
            (void)!syscall(SYS_pwrite64, fd, data, size / 2, offset);
        errno = faults.error;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

int fdatasync(int fd)
{
    if (call_fails())
        return -1;
    if (record_syncs)
        note_sync(fd);
    return 0; /* the tests end before the power does */
}

int fsync(int fd)
{
    (void)fd;
    return call_fails() ? -1 : 0;
}

int rename(const char *from, const char *to)
{
    if (call_fails())
        return -1;
    return (int)syscall(SYS_rename, from, to);
}

int unlink(const char *path)
{
    if (call_fails())
        return -1;
    return (int)syscall(SYS_unlink, path);
}

/* ---- a store over them ----------------------------------------------------------------------- */

/* Puts every manifest back to what it held at its last sync. */
static void lose_unsynced(const Store *store)
{
    for (size_t i = 0; i < synced_count; i++) {
        char *path = path_join(store->directory, synced[i].name);
        if (file_exists(path))
            write_file(path, synced[i].data, synced[i].size);
        free(path);
    }
}

static void grow_manifest(Store *store)
{
    static uint8_t key[AIDB_KEY_MAX];
    memset(key, 'k', sizeof key);
    FileBounds wide = {.smallest = slice_make(key, sizeof key),
                       .largest = slice_make(key, sizeof key)};
    for (uint64_t number = 0; store->set->manifest_end <= 1u << 20;) {
        VersionEdit edit = {0};
        uint64_t dead;
        if (number == 0) {
            number = make_table(store, 5);
            TableInfo info = {.file_size = 5, .number = number};
            ck_assert_int_eq(version_edit_add(&edit, 5, &info, &wide), AIDB_OK);
        } else {
            ck_assert_int_eq(version_edit_remove(&edit, 5, number), AIDB_OK);
            number = 0;
        }
        ck_assert_int_eq(apply(store, &edit, 0), AIDB_OK);
        version_edit_deinit(&edit);
        versions_take_dead(store->versions, store->slot, store->epochs, &dead, 1);
    }
}

static int failed_for_good;

/* One edit with call `n` failing; false when it made fewer calls. Afterwards the store starts again with
 * the state before or after the edit, after it when it was said to be done. */
static bool try_fault(bool grown, long n, bool for_good, int error, bool power)
{
    Store store;
    VersionEdit edit = {0};
    store_with_history(&store);
    if (grown)
        grow_manifest(&store);
    forget_syncs();
    char *path = manifest_path(&store);
    int fd = open(path, O_RDONLY);
    note_sync(fd);
    close(fd);
    free(path);
    char *before = describe(&store);
    add_table(&store, &edit, 0, "[x,y]", 50);
    edit.flushed_lsn = 60;
    record_syncs = true;
    faults.armed = true;
    faults.calls = 0;
    faults.fail_at = n;
    faults.for_good = for_good;
    faults.error = error;
    Status status = apply(&store, &edit, 60);
    bool reached = faults.calls >= n;
    faults.armed = false;
    bool failed = store.set->failed != 0;
    failed_for_good += failed;
    if (status != AIDB_OK && !failed) {
        /* Nothing happened: the state is as before, and the same edit goes through now. */
        ck_assert_int_eq(error, ENOSPC);
        ck_assert_int_eq(status, AIDB_NO_SPACE);
        check_same(&store, before);
        if (!for_good)
            ck_assert_int_eq(status = apply(&store, &edit, 60), AIDB_OK);
    }
    if (failed) {
        ck_assert_int_ne(status, AIDB_OK);
        ck_assert_int_eq(apply(&store, &edit, 60), AIDB_FAILED);
        check_same(&store, before);
    }
    char *after = describe(&store);
    version_edit_deinit(&edit);
    record_syncs = false;
    if (power)
        lose_unsynced(&store);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    char *now = describe(&store);
    if (status == AIDB_OK) {
        ck_assert_str_eq(now, after);
    } else if (strcmp(now, before) != 0) {
        /* It was not said to be done and is there nevertheless: whole. */
        ck_assert_uint_eq(store.set->flushed_lsn, 60);
        ck_assert_uint_eq(store.set->horizon, 60);
        ck_assert_uint_eq(store.set->current->levels[0].count, 4);
    }
    /* The store goes on. */
    add_table(&store, &edit, 0, "[p,q]", 70);
    edit.flushed_lsn = 70;
    ck_assert_int_eq(apply(&store, &edit, 70), AIDB_OK);
    version_edit_deinit(&edit);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    ck_assert_uint_eq(store.set->flushed_lsn, 70);
    free(before);
    free(after);
    free(now);
    forget_syncs();
    store_destroy(&store);
    return reached;
}

START_TEST(test_faults)
{
    bool grown = (_i & 1) != 0;
    bool for_good = (_i & 2) != 0;
    int error = (_i & 4) != 0 ? ENOSPC : EIO;
    bool power = (_i & 8) != 0;
    long n = 1;
    failed_for_good = 0;
    while (try_fault(grown, n, for_good, error, power))
        n++;
    /* A new manifest that could not be made, or named, is done without: only the last step of naming it, the
     * directory's sync, cannot be taken back. */
    if (grown && !for_good)
        ck_assert_int_eq(failed_for_good, 1);
    /* append: write, sync, seal, sync; a new manifest: far more */
    ck_assert_int_ge(n, grown ? 9 : 5);
}
END_TEST

/* The same while starting: whatever fails, the next start works. */
START_TEST(test_recovery_faults)
{
    for (long n = 1;; n++) {
        Store store;
        store_with_history(&store);
        char *before = describe(&store);
        make_table(&store, 10);
        make_table(&store, 10);
        char *path = manifest_path(&store);
        Buffer bytes = read_file(path);
        ck_assert_int_eq(buffer_append(&bytes, "torn", 4), AIDB_OK);
        write_file(path, bytes.data, bytes.size);
        faults.armed = true;
        faults.calls = 0;
        faults.fail_at = n;
        faults.for_good = true;
        faults.error = EIO;
        Status status = store_reopen(&store);
        bool reached = faults.calls >= n;
        faults.armed = false;
        ck_assert_int_eq(status, reached ? AIDB_IO : AIDB_OK);
        ck_assert_int_eq(store_reopen(&store), AIDB_OK);
        check_same(&store, before);
        buffer_deinit(&bytes);
        free(path);
        free(before);
        store_destroy(&store);
        if (!reached)
            break;
    }
}
END_TEST

void add_fault_tests(TCase *tests)
{
    tcase_add_loop_test(tests, test_faults, 0, 16);
    tcase_add_test(tests, test_recovery_faults);
}
