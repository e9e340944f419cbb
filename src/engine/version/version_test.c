/*
 * version_test.c - edits, the manifest on disk and the versions in memory.
 *
 * Faults are injected below src/io: this program defines the system calls that write, sync and rename
 * itself, counts them, and can make the Nth fail, alone or with all that follow, as they do when a
 * process is gone.
 */
#include "config.h"

#include "engine/version/version_internal.h"

#include "common/coding.h"
#include "common/hash.h"
#include "testlib/testlib.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- faults ---------------------------------------------------------------------------------- */

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

/* ---- fixture --------------------------------------------------------------------------------- */

#define ARENA_SIZE (16u << 20)

typedef struct Store {
    char *directory;
    StoreIdentity identity;
    void *memory;
    SlotTable slots;
    EpochDomain *epochs;
    Slot *slot;
    Slot *reader;
    Arena *arena;
    VersionSet *set;
    Versions *versions;
} Store;

static const StoreIdentity test_identity = {
    .system_id = "0123456789abcdef",
    .wal_segment_size = 16u << 20,
    .wal_ring_size = 1u << 20,
};

/* Region and handle, as after a reset. */
static void store_attach(Store *store)
{
    size_t slots_size = slot_table_size(2);
    size_t total = slots_size + sizeof(EpochDomain) + sizeof(VersionSet) + ARENA_SIZE + 1024;
    store->memory = aligned_alloc(PORT_CACHE_LINE, (total + 127) / 128 * 128);
    ck_assert_ptr_nonnull(store->memory);
    memset(store->memory, 0xa5, total); /* a reset region is not zero */
    uint8_t *at = store->memory;
    slot_table_init(&store->slots, at, 2, NULL);
    at += (slots_size + 127) / 128 * 128;
    store->epochs = (EpochDomain *)at;
    epoch_init(store->epochs, &store->slots);
    at += (sizeof(EpochDomain) + 127) / 128 * 128;
    store->set = (VersionSet *)at;
    at += (sizeof(VersionSet) + 127) / 128 * 128;
    store->arena = arena_init(at, ARENA_SIZE, store->epochs);
    store->slot = slot_claim(&store->slots, 0, SLOT_STARTUP);
    store->reader = slot_claim(&store->slots, 1, SLOT_BACKEND);
    ck_assert_ptr_nonnull(store->slot);
    ck_assert_int_eq(versions_open(store->directory, &store->identity, store->set, store->arena,
                                   &store->versions),
                     AIDB_OK);
}

static void store_detach(Store *store)
{
    versions_close(store->versions);
    free(store->memory);
    store->versions = NULL;
    store->memory = NULL;
}

static Status store_reopen(Store *store)
{
    if (store->memory != NULL)
        store_detach(store);
    store_attach(store);
    return versions_recover(store->versions, store->slot);
}

static void store_create(Store *store)
{
    *store = (Store){.identity = test_identity};
    store->directory = test_directory_create();
    ck_assert_int_eq(manifest_create(store->directory, &store->identity), AIDB_OK);
    ck_assert_int_eq(store_reopen(store), AIDB_OK);
}

static void store_destroy(Store *store)
{
    store_detach(store);
    test_directory_destroy(store->directory);
}

static Slice text(const char *string)
{
    return slice_from_string(string);
}

static uint64_t make_table(Store *store, uint64_t size)
{
    uint64_t number = TABLE_NUMBER(store->set->term, version_next_number(store->set));
    char *path = manifest_table_path(store->directory, number);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    close(fd);
    free(path);
    return number;
}

static bool table_exists(const Store *store, uint64_t number)
{
    char *path = manifest_table_path(store->directory, number);
    bool exists = file_exists(path);
    free(path);
    return exists;
}

/* Bounds as text: "[a,c]", "[a,c)" or "[a,". */
static FileBounds parse_bounds(const char *bounds)
{
    size_t size = strlen(bounds);
    const char *comma = strchr(bounds, ',');
    FileBounds parsed = {.smallest = slice_make(bounds + 1, (size_t)(comma - bounds - 1))};
    if (comma[1] == '\0') {
        parsed.unbounded = true;
    } else {
        parsed.largest = slice_make(comma + 1, size - (size_t)(comma - bounds) - 2);
        parsed.largest_exclusive = bounds[size - 1] == ')';
    }
    return parsed;
}

static uint64_t add_table(Store *store, VersionEdit *edit, uint8_t level, const char *bounds,
                          uint64_t lsn)
{
    TableInfo info = {.file_size = 10 + lsn % 90, .lsn_min = lsn, .lsn_max = lsn, .entries = 1};
    info.number = make_table(store, info.file_size);
    FileBounds parsed = parse_bounds(bounds);
    ck_assert_int_eq(version_edit_add(edit, level, &info, &parsed), AIDB_OK);
    return info.number;
}

/* Applies and makes it current, as engine/db does. */
static Status apply(Store *store, const VersionEdit *edit, uint64_t durable)
{
    Version *next;
    Version *previous;
    lock_acquire(&store->set->manifest_lock, store->slot);
    Status status = version_apply(store->versions, store->slot, edit, durable, &next, &previous);
    if (status == AIDB_OK) {
        ck_assert_ptr_eq(next, store->set->current);
        version_release(store->versions, store->slot, previous);
    } else {
        ck_assert_ptr_null(next);
        ck_assert_ptr_null(previous);
    }
    lock_release(&store->set->manifest_lock, store->slot);
    return status;
}

/* Everything that must survive, as text. */
static char *describe(const Store *store)
{
    const VersionSet *set = store->set;
    Buffer out = {0};
    ck_assert_int_eq(buffer_append_format(
                         &out, "flushed %llu horizon %llu term %u incarnation %u/%llx clean %d\n",
                         (unsigned long long)set->flushed_lsn, (unsigned long long)set->horizon,
                         set->term, set->incarnation, (unsigned long long)set->nonce,
                         set->clean_stop),
                     AIDB_OK);
    for (uint32_t i = 0; i < set->start_count; i++)
        ck_assert_int_eq(buffer_append_format(&out, "start %u %llx %llu %llu\n",
                                              set->starts[i].incarnation,
                                              (unsigned long long)set->starts[i].nonce,
                                              (unsigned long long)set->starts[i].first_lsn,
                                              (unsigned long long)set->starts[i].previous_end),
                         AIDB_OK);
    for (int level = 0; level < LEVELS; level++) {
        for (uint32_t i = 0; i < set->current->levels[level].count; i++) {
            const FileMeta *file = set->current->levels[level].files[i];
            ck_assert_int_eq(file->level, level);
            ck_assert_int_eq(
                buffer_append_format(
                    &out, "%d: %llx [%.*s,%.*s%s%s size %llu lsn %llu-%llu\n", level,
                    (unsigned long long)file->info.number, (int)file->smallest.size,
                    (const char *)file->smallest.data, (int)file->largest.size,
                    (const char *)file->largest.data,
                    file->unbounded ? "" : (file->largest_exclusive ? ")" : "]"),
                    file->garbage ? " garbage" : "", (unsigned long long)file->info.file_size,
                    (unsigned long long)file->info.lsn_min, (unsigned long long)file->info.lsn_max),
                AIDB_OK);
        }
    }
    ck_assert_int_eq(buffer_append_byte(&out, 0), AIDB_OK);
    return (char *)out.data;
}

static void check_same(const Store *store, const char *expected)
{
    char *now = describe(store);
    ck_assert_str_eq(now, expected);
    free(now);
}

static char *manifest_path(const Store *store)
{
    char name[MANIFEST_NAME_SIZE];
    manifest_name(store->set->manifest_number, name);
    return path_join(store->directory, name);
}

/* ---- edits ----------------------------------------------------------------------------------- */

static void random_edit(uint64_t *seed, VersionEdit *edit, uint64_t *durable)
{
    char keys[2][40];
    for (uint64_t i = test_random_below(seed, 4); i > 0; i--) {
        TableInfo info = {
            .number = 1 + test_random_below(seed, 1000),
            .id = {test_random(seed), test_random(seed)},
            .file_size = test_random(seed) >> test_random_below(seed, 63),
            .entries = test_random_below(seed, 100),
            .lsn_min = test_random(seed) >> 8,
            .index_levels = 1,
        };
        snprintf(keys[0], sizeof keys[0], "a%llu", (unsigned long long)test_random(seed));
        snprintf(keys[1], sizeof keys[1], "b%llu", (unsigned long long)test_random(seed));
        FileBounds bounds = {
            .smallest = text(keys[0]),
            .largest = text(keys[1]),
            .largest_exclusive = test_random_below(seed, 2) == 1,
            .unbounded = test_random_below(seed, 4) == 0,
            .garbage = test_random_below(seed, 2) == 1,
        };
        ck_assert_int_eq(
            version_edit_add(edit, (uint8_t)test_random_below(seed, LEVELS), &info, &bounds),
            AIDB_OK);
    }
    for (uint64_t i = test_random_below(seed, 4); i > 0; i--)
        ck_assert_int_eq(version_edit_remove(edit, (uint8_t)test_random_below(seed, LEVELS),
                                             test_random(seed) >> 24),
                         AIDB_OK);
    edit->flushed_lsn = test_random_below(seed, 2) * test_random(seed);
    edit->term = (uint32_t)test_random_below(seed, 3);
    edit->next_number = test_random_below(seed, 100);
    edit->version_number = test_random_below(seed, 100);
    edit->clean_stop = test_random_below(seed, 2) == 1;
    edit->base_end = test_random_below(seed, 2) == 1;
    edit->new_incarnation = test_random_below(seed, 2) == 1;
    edit->incarnation = edit->new_incarnation ? (uint32_t)test_random(seed) : 0;
    edit->nonce = edit->new_incarnation ? test_random(seed) : 0;
    edit->new_start = test_random_below(seed, 2) == 1;
    if (edit->new_start)
        edit->start = (WalStart){.incarnation = (uint32_t)test_random(seed),
                                 .nonce = test_random(seed),
                                 .first_lsn = test_random(seed),
                                 .previous_end = test_random(seed)};
    *durable = test_random(seed) >> 3;
}

START_TEST(test_edit_round_trip)
{
    uint64_t seed = test_seed("edit_round_trip");
    for (int round = 0; round < 500; round++) {
        VersionEdit edit = {0};
        VersionEdit again;
        Buffer bytes = {0};
        Buffer bytes_again = {0};
        uint64_t durable;
        uint64_t durable_again;
        random_edit(&seed, &edit, &durable);
        ck_assert_int_eq(version_edit_encode(&edit, durable, &bytes), AIDB_OK);
        ck_assert_int_eq(version_edit_decode(buffer_slice(&bytes), &again, &durable_again),
                         AIDB_OK);
        ck_assert_uint_eq(durable, durable_again);
        ck_assert_uint_eq(edit.added_count, again.added_count);
        ck_assert_uint_eq(edit.removed_count, again.removed_count);
        ck_assert_int_eq(version_edit_encode(&again, durable_again, &bytes_again), AIDB_OK);
        ck_assert(slice_equal(buffer_slice(&bytes), buffer_slice(&bytes_again)));
        version_edit_deinit(&again);
        /* Whatever is cut off or changed gives an answer, and never the durable LSN twice. */
        for (size_t size = 0; size < bytes.size; size++) {
            if (version_edit_decode(slice_make(bytes.data, size), &again, &durable_again) ==
                AIDB_OK)
                version_edit_deinit(&again);
            else
                ck_assert_uint_eq(again.added_count, 0);
        }
        for (int change = 0; change < 50; change++) {
            bytes.data[test_random_below(&seed, bytes.size)] ^=
                (uint8_t)(1 + test_random_below(&seed, 255));
            if (version_edit_decode(buffer_slice(&bytes), &again, &durable_again) == AIDB_OK)
                version_edit_deinit(&again);
        }
        version_edit_deinit(&edit);
        buffer_deinit(&bytes);
        buffer_deinit(&bytes_again);
    }
}
END_TEST

START_TEST(test_edit_refuses)
{
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"", 0},                 /* no durable LSN */
        {"\x03\x01", 2},         /* nor here */
        {"\x08\x01\x08\x01", 4}, /* twice */
        {"\x00\x08\x01", 3},     /* no such tags */
        {"\x0c\x08\x01", 3},
        {"\xff\x08\x01", 3},
        {"\x02\x07\x01\x08\x01", 5},                              /* no such level */
        {"\x02\x01", 2},                                          /* ends early */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* not a varint */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        VersionEdit edit;
        uint64_t durable;
        ck_assert_int_eq(
            version_edit_decode(slice_make(cases[i].bytes, cases[i].size), &edit, &durable),
            AIDB_CORRUPTION);
        ck_assert_uint_eq(edit.added_count + edit.removed_count, 0);
    }
}
END_TEST

START_TEST(test_long_bounds)
{
    uint8_t key[1000];
    VersionEdit edit = {0};
    TableInfo info = {.number = 1};
    memset(key, 'x', sizeof key);
    key[255] = 0xff;
    FileBounds bounds = {.smallest = slice_make(key, 700), .largest = slice_make(key, 1000)};
    ck_assert_int_eq(version_edit_add(&edit, 0, &info, &bounds), AIDB_OK);
    ck_assert_int_eq(version_edit_add(&edit, 1, &info, &bounds), AIDB_OK);
    memset(key, 0xff, sizeof key);
    ck_assert_int_eq(version_edit_add(&edit, 0, &info, &bounds), AIDB_OK);
    const NewFile *cut = &edit.added[0];
    ck_assert_uint_eq(cut->smallest.size, BOUND_MAX);
    ck_assert_uint_eq(cut->largest.size, 255); /* ff does not count up: it goes */
    ck_assert_int_eq(cut->largest.data[254], 'y');
    ck_assert(cut->largest_exclusive);
    const NewFile *kept = &edit.added[1];
    ck_assert_uint_eq(kept->smallest.size, 700);
    ck_assert_uint_eq(kept->largest.size, 1000);
    ck_assert(!kept->largest_exclusive);
    const NewFile *highest = &edit.added[2];
    ck_assert_uint_eq(highest->largest.size, 1000);
    ck_assert(!highest->largest_exclusive);
    version_edit_deinit(&edit);
}
END_TEST

/* ---- files and keys -------------------------------------------------------------------------- */

START_TEST(test_file_bounds)
{
    FileMeta closed = {.smallest = text("b"), .largest = text("d")};
    FileMeta open = {.smallest = text("b"), .largest = text("d"), .largest_exclusive = true};
    FileMeta endless = {.smallest = text("b"), .unbounded = true};
    FileMeta next = {.smallest = text("d"), .largest = text("f")};
    Slice none = {0};
    ck_assert(file_covers(&closed, text("d")) && !file_covers(&open, text("d")));
    ck_assert(file_covers(&open, text("czz")) && file_covers(&endless, text("zz")));
    ck_assert(!file_covers(&endless, text("azz")));
    ck_assert(file_ends_before(&open, text("d")) && !file_ends_before(&closed, text("d")));
    ck_assert(!file_ends_before(&endless, text("\xff\xff")));
    ck_assert(file_overlaps(&closed, text("d"), text("e")));
    ck_assert(!file_overlaps(&open, text("d"), text("e")));
    ck_assert(file_overlaps(&open, none, text("b")) && !file_overlaps(&open, none, text("azz")));
    ck_assert(file_overlaps(&open, none, none) && file_overlaps(&endless, text("x"), none));
    ck_assert(files_overlap(&closed, &next) && !files_overlap(&open, &next));
    ck_assert(files_overlap(&next, &endless) && files_overlap(&endless, &next));
}
END_TEST

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

static void count_reports(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)offset;
    ck_assert_ptr_nonnull(path);
    ck_assert_uint_gt(strlen(what), 0);
    ++*(int *)arg;
}

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

/* ---- damage ---------------------------------------------------------------------------------- */

static void store_with_history(Store *store)
{
    VersionEdit edit = {0};
    store_create(store);
    for (int i = 0; i < 3; i++) {
        add_table(store, &edit, 0, "[key-a,key-m)", (uint64_t)i + 1);
        add_table(store, &edit, (uint8_t)(i + 1), "[key-b,", (uint64_t)i + 1);
        ck_assert_int_eq(apply(store, &edit, (uint64_t)i), AIDB_OK);
        version_edit_deinit(&edit);
    }
}

static Buffer read_file(const char *path)
{
    Buffer bytes = {0};
    ck_assert_int_eq(file_read_whole(path, 64u << 20, &bytes), AIDB_OK);
    return bytes;
}

static void write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(syscall(SYS_pwrite64, fd, data, size, 0), (long)size);
    close(fd);
}

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
    const char *damage = getenv("AIDB_DAMAGE");
    int bits = damage != NULL && strcmp(damage, "full") == 0 ? 8 : 1; /* each, or any of them */
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
END_TEST

/* ---- failures of the disk -------------------------------------------------------------------- */

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

int main(void)
{
    Suite *suite = suite_create("version");
    TCase *edits = tcase_create("edits");
    tcase_add_test(edits, test_edit_round_trip);
    tcase_add_test(edits, test_edit_refuses);
    tcase_add_test(edits, test_long_bounds);
    tcase_add_test(edits, test_file_bounds);
    suite_add_tcase(suite, edits);
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
    tcase_add_test(damage, test_every_byte);
    tcase_add_test(damage, test_every_length);
    tcase_add_test(damage, test_misplaced);
    tcase_add_loop_test(damage, test_faults, 0, 16);
    tcase_add_test(damage, test_recovery_faults);
    suite_add_tcase(suite, damage);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
