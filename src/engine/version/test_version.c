/* test_version.c - a store of a manifest and empty tables. */
#include "config.h"

#include "engine/version/test_version.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARENA_SIZE (16u << 20)

const StoreIdentity test_identity = {
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

void store_detach(Store *store)
{
    versions_close(store->versions);
    free(store->memory);
    store->versions = NULL;
    store->memory = NULL;
}

Status store_reopen(Store *store)
{
    if (store->memory != NULL)
        store_detach(store);
    store_attach(store);
    return versions_recover(store->versions, store->slot);
}

void store_create(Store *store)
{
    *store = (Store){.identity = test_identity};
    store->directory = test_directory_create();
    ck_assert_int_eq(manifest_create(store->directory, &store->identity), AIDB_OK);
    ck_assert_int_eq(store_reopen(store), AIDB_OK);
}

void store_destroy(Store *store)
{
    store_detach(store);
    test_directory_destroy(store->directory);
}

Slice text(const char *string)
{
    return slice_from_string(string);
}

uint64_t make_table(Store *store, uint64_t size)
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

bool table_exists(const Store *store, uint64_t number)
{
    char *path = manifest_table_path(store->directory, number);
    bool exists = file_exists(path);
    free(path);
    return exists;
}

FileBounds parse_bounds(const char *bounds)
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

uint64_t add_table(Store *store, VersionEdit *edit, uint8_t level, const char *bounds, uint64_t lsn)
{
    TableInfo info = {.file_size = 10 + lsn % 90, .lsn_min = lsn, .lsn_max = lsn, .entries = 1};
    info.number = make_table(store, info.file_size);
    FileBounds parsed = parse_bounds(bounds);
    ck_assert_int_eq(version_edit_add(edit, level, &info, &parsed), AIDB_OK);
    return info.number;
}

Status apply(Store *store, const VersionEdit *edit, uint64_t durable)
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

char *describe(const Store *store)
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

void check_same(const Store *store, const char *expected)
{
    char *now = describe(store);
    ck_assert_str_eq(now, expected);
    free(now);
}

char *manifest_path(const Store *store)
{
    char name[MANIFEST_NAME_SIZE];
    manifest_name(store->set->manifest_number, name);
    return path_join(store->directory, name);
}

void store_with_history(Store *store)
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

Buffer read_file(const char *path)
{
    Buffer bytes = {0};
    ck_assert_int_eq(file_read_whole(path, 64u << 20, &bytes), AIDB_OK);
    return bytes;
}

void write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(syscall(SYS_pwrite64, fd, data, size, 0), (long)size);
    close(fd);
}

void count_reports(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)offset;
    ck_assert_ptr_nonnull(path);
    ck_assert_uint_gt(strlen(what), 0);
    ++*(int *)arg;
}
