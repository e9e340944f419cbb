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

/* What a power failure may leave of the manifests, by name: a sync that fails drops what it was for, and the
 * kernel calls it clean. */
static struct {
    char name[64];
    uint8_t *data;
    size_t size;
    uint8_t *dirty; /* for each byte: written, and not synced since */
    size_t dirty_size;
} durable[8];
static size_t durable_count;
static bool record_syncs;
static bool rename_unsynced;

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

/* The last part of an open file's path. */
static const char *name_of(int fd, char path[512])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 511);
    ck_assert_int_gt(length, 0);
    path[length] = '\0';
    return strrchr(path, '/') + 1;
}

/* The entry of an open manifest, or -1. */
static int durable_of(int fd)
{
    char path[512];
    const char *name = name_of(fd, path);
    if (!record_syncs || strncmp(name, "MANIFEST-", 9) != 0)
        return -1;
    size_t i = 0;
    while (i < durable_count && strcmp(durable[i].name, name) != 0)
        i++;
    if (i == durable_count) {
        ck_assert_uint_lt(durable_count, 8);
        snprintf(durable[durable_count++].name, sizeof durable[0].name, "%s", name);
    }
    return (int)i;
}

static void note_write(int fd, off_t offset, size_t size)
{
    int i = durable_of(fd);
    size_t end = (size_t)offset + size;
    if (i < 0)
        return;
    if (end > durable[i].dirty_size) {
        durable[i].dirty = realloc(durable[i].dirty, end);
        memset(durable[i].dirty + durable[i].dirty_size, 0, end - durable[i].dirty_size);
        durable[i].dirty_size = end;
    }
    memset(durable[i].dirty + offset, 1, size);
}

static void note_sync(int fd, bool success)
{
    int i = durable_of(fd);
    struct stat info;
    if (i < 0)
        return;
    if (success) {
        ck_assert_int_eq(fstat(fd, &info), 0);
        uint8_t *now = malloc((size_t)info.st_size + 1);
        ck_assert_int_eq(pread(fd, now, (size_t)info.st_size, 0), info.st_size);
        for (size_t at = 0; at < durable[i].size && at < (size_t)info.st_size; at++)
            if (at >= durable[i].dirty_size || durable[i].dirty[at] == 0)
                now[at] = durable[i].data[at];
        free(durable[i].data);
        durable[i].data = now;
        durable[i].size = (size_t)info.st_size;
    }
    if (durable[i].dirty_size > 0)
        memset(durable[i].dirty, 0, durable[i].dirty_size);
}

static void forget_syncs(void)
{
    for (size_t i = 0; i < durable_count; i++) {
        free(durable[i].data);
        free(durable[i].dirty);
    }
    memset(durable, 0, sizeof durable);
    durable_count = 0;
    rename_unsynced = false;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    bool fails = call_fails();
    if (fails && size > 1)
        size /= 2; /* a torn write: half of it arrives */
    note_write(fd, offset, size);
    if (!fails)
        return syscall(SYS_pwrite64, fd, data, size, offset);
    (void)!syscall(SYS_pwrite64, fd, data, size, offset);
    errno = faults.error;
    return -1;
}

int fdatasync(int fd)
{
    bool fails = call_fails();
    /* Who is killed instead of syncing leaves the bytes to a later sync. */
    if (!fails || !faults.for_good)
        note_sync(fd, !fails);
    return fails ? -1 : 0; /* the tests end before the power does */
}

int fsync(int fd)
{
    char path[512];
    if (call_fails())
        return -1;
    if (strcmp(name_of(fd, path), "sst") != 0) /* directories are synced this way */
        rename_unsynced = false;
    return 0;
}

int rename(const char *from, const char *to)
{
    if (call_fails())
        return -1;
    rename_unsynced = true;
    return (int)syscall(SYS_rename, from, to);
}

int unlink(const char *path)
{
    if (call_fails())
        return -1;
    /* CURRENT may still name the old manifest after a power failure. */
    if (record_syncs && strstr(path, "/MANIFEST-") != NULL)
        ck_assert(!rename_unsynced);
    return (int)syscall(SYS_unlink, path);
}

/* ---- a store over them ----------------------------------------------------------------------- */

/* Puts every manifest back to what lasts. */
static void lose_unsynced(const Store *store)
{
    for (size_t i = 0; i < durable_count; i++) {
        char *path = path_join(store->directory, durable[i].name);
        if (file_exists(path))
            write_file(path, durable[i].data, durable[i].size);
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

typedef enum Power { POWER_STAYS, POWER_LOST_BEFORE_START, POWER_LOST_AFTER_START } Power;

/* One edit with call `n` failing; false when it made fewer calls. Afterwards the store starts again with
 * the state before or after the edit, after it when it was said to be done; and what it started with lasts. */
static bool try_fault(bool grown, long n, bool for_good, int error, Power power)
{
    Store store;
    VersionEdit edit = {0};
    store_with_history(&store);
    if (grown)
        grow_manifest(&store);
    forget_syncs();
    record_syncs = true;
    char *path = manifest_path(&store);
    int fd = open(path, O_RDONLY);
    note_sync(fd, true);
    close(fd);
    free(path);
    char *before = describe(&store);
    add_table(&store, &edit, 0, "[x,y]", 50);
    edit.flushed_lsn = 60;
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
    if (power == POWER_LOST_BEFORE_START)
        lose_unsynced(&store);
    ck_assert_int_eq(store_reopen(&store), AIDB_OK);
    char *now = describe(&store);
    if (power == POWER_LOST_AFTER_START) {
        /* Files that this start did not need are gone. */
        lose_unsynced(&store);
        ck_assert_int_eq(store_reopen(&store), AIDB_OK);
        check_same(&store, now);
    }
    record_syncs = false;
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
    Power power = (Power)(_i / 8);
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
    tcase_add_loop_test(tests, test_faults, 0, 24);
    tcase_add_test(tests, test_recovery_faults);
}
