/*
 * compaction_test.c - single properties of jobs, faults of the disk among them; and the program of the
 * tests of compaction.
 */
#include "config.h"

#include "engine/compaction/test_compaction.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- faults ---------------------------------------------------------------------------------- */

static bool faults_armed;
static long faults_calls;
static long faults_at;

static bool call_fails(void)
{
    if (!faults_armed || ++faults_calls != faults_at)
        return false;
    errno = EIO;
    return true;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return call_fails() ? -1 : syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return call_fails() ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return call_fails() ? -1 : syscall(SYS_pread64, fd, data, size, offset);
}

int fdatasync(int fd)
{
    (void)fd;
    return call_fails() ? -1 : 0;
}

int fsync(int fd)
{
    (void)fd;
    return call_fails() ? -1 : 0;
}

/* ---- stores of a few tables ------------------------------------------------------------------ */

static void put(Store *store, Memtable *memtable, const char *key, const char *value, uint64_t lsn)
{
    ck_assert_int_eq(memtable_secure(memtable, store->slot, 1, RANGE_LOAD_NONE,
                                     strlen(key) + strlen(value) + 16),
                     AIDB_OK);
    memtable_add(memtable, value[0] == '-' ? OP_DELETE : OP_PUT, slice_from_string(key),
                 value[0] == '-' ? (Slice){0} : slice_from_string(value), lsn);
    store->lsn = lsn;
}

/* Everything in a level, as text: "key@lsn=value " and "key@lsn- ". */
static void print_level(Store *store, int level, char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < store->set->current->levels[level].count; i++) {
        const FileMeta *file = store->set->current->levels[level].files[i];
        Iter *iter;
        ck_assert_int_eq(table_iter_create(&store->reader, &file->info, TABLE_READAHEAD_JOB, &iter),
                         AIDB_OK);
        ck_assert_int_eq(iter->ops->seek_first(iter), AIDB_OK);
        while (iter->valid) {
            const Entry *entry = &iter->entry;
            at += (size_t)snprintf(out + at, size - at, "%.*s@%llu%s%.*s ", (int)entry->key.size,
                                   (const char *)entry->key.data, (unsigned long long)entry->lsn,
                                   entry->type == OP_PUT ? "=" : "-", (int)entry->value.size,
                                   (const char *)entry->value.data);
            ck_assert_int_eq(iter->ops->next(iter), AIDB_OK);
        }
        iter_destroy(iter);
        RangeFragments fragments = {0};
        if (file->info.range_size > 0)
            ck_assert_int_eq(table_fragments(&store->reader, &file->info, &fragments), AIDB_OK);
        for (size_t j = 0; j < fragments.count; j++) {
            const RangeFragment *fragment = &fragments.items[j];
            at += (size_t)snprintf(out + at, size - at, "[%.*s,%.*s)", (int)fragment->from.size,
                                   (const char *)fragment->from.data, (int)fragment->to.size,
                                   (const char *)fragment->to.data);
            for (uint32_t k = 0; k < fragment->lsn_count; k++)
                at += (size_t)snprintf(out + at, size - at, "@%llu",
                                       (unsigned long long)fragment->lsns[k]);
            at += (size_t)snprintf(out + at, size - at, " ");
        }
        range_fragments_deinit(&fragments);
        at += (size_t)snprintf(out + at, size - at, "| ");
    }
}

static void flush_one(Store *store, Memtable **memtable)
{
    VersionEdit edit = {0};
    ck_assert_int_eq(
        flush_run(&store->context, memtable, 1, store->snapshots, store->snapshot_count, &edit),
        AIDB_OK);
    check_outputs(store, &edit);
    install(store, &edit);
    version_edit_deinit(&edit);
    memtable_retire(*memtable, store->slot);
    *memtable = NULL;
}

START_TEST(test_stripes)
{
    /* Versions of k at 10, 20, 30, 40 and a delete at 50; m is covered by a range delete at 35. */
    static const struct {
        uint64_t snapshots[3];
        size_t count;
        const char *flushed;
        const char *merged;
    } cases[] = {
        {{0}, 0, "k@50- [m,n)@35 | ", ""},
        {{50}, 1, "k@50- [m,n)@35 | ", ""},
        {{49}, 1, "k@50- k@40=d [m,n)@35 | ", "k@50- k@40=d | "},
        {{40}, 1, "k@50- k@40=d [m,n)@35 | ", "k@50- k@40=d | "},
        {{39}, 1, "k@50- k@30=c [m,n)@35 | ", "k@50- k@30=c | "},
        {{34}, 1, "k@50- k@30=c m@15=x [m,n)@35 | ", "k@50- k@30=c m@15=x [m,n)@35 | "},
        {{15, 25},
         2,
         "k@50- k@20=b k@10=a m@15=x [m,n)@35 | ",
         "k@50- k@20=b k@10=a m@15=x [m,n)@35 | "},
        {{5, 12, 60}, 3, "k@50- k@10=a [m,n)@35 | ", "k@50- k@10=a [m,n)@35 | "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Store store;
        Memtable *memtable;
        char text[512];
        store_create(&store);
        ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
        put(&store, memtable, "k", "a", 10);
        put(&store, memtable, "m", "x", 15);
        put(&store, memtable, "k", "b", 20);
        put(&store, memtable, "k", "c", 30);
        ck_assert_int_eq(memtable_secure(memtable, store.slot, 0, RANGE_LOAD_ONE, 20), AIDB_OK);
        memtable_add_range(memtable, slice_from_string("m"), slice_from_string("n"), 35);
        put(&store, memtable, "k", "d", 40);
        put(&store, memtable, "k", "-", 50);
        memcpy(store.snapshots, cases[i].snapshots, sizeof cases[i].snapshots);
        store.snapshot_count = cases[i].count;
        flush_one(&store, &memtable);
        print_level(&store, 0, text, sizeof text);
        ck_assert_str_eq(text, cases[i].flushed);
        compact_all(&store);
        print_level(&store, LEVELS - 1, text, sizeof text);
        ck_assert_str_eq(text, cases[i].merged);
        store_destroy(&store);
    }
}
END_TEST

static KeepDecision keep_by_first_byte(void *arg, Slice key)
{
    ++*(int *)arg;
    return key.data[0] == 'd' ? DROP : (key.data[0] == 't' ? KEEP_TOMBSTONES : KEEP);
}

START_TEST(test_keep)
{
    Store store;
    Memtable *memtable;
    char text[512];
    int asked = 0;
    store_create(&store);
    store.context.split = NULL;
    ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
    put(&store, memtable, "a1", "v", 10);
    put(&store, memtable, "d1", "v", 11);
    put(&store, memtable, "d2", "-", 12);
    put(&store, memtable, "t1", "v", 13);
    put(&store, memtable, "t2", "-", 14);
    put(&store, memtable, "z1", "-", 15);
    store.context.keep = keep_by_first_byte;
    store.context.keep_arg = &asked;
    flush_one(&store, &memtable);
    ck_assert_int_eq(asked, 0); /* flushes keep all */
    compact_all(&store);
    ck_assert_int_eq(asked, 6);
    print_level(&store, LEVELS - 1, text, sizeof text);
    ck_assert_str_eq(text, "a1@10=v t2@14- | ");
    store_destroy(&store);
}
END_TEST

static bool stop_after(void *arg)
{
    return --*(int *)arg < 0;
}

/* Level 0 with several files of many keys that overlap. */
static void fill(Store *store, int files)
{
    for (int file = 0; file < files; file++) {
        Memtable *memtable;
        ck_assert_int_eq(memtable_create(store->pool, store->slot, &memtable), AIDB_OK);
        for (int i = 0; i < 1500; i++) {
            char key[32];
            snprintf(key, sizeof key, "key%06d", i * files + file);
            put(store, memtable, key, "some value that takes a little room", store->lsn + 1);
        }
        flush_one(store, &memtable);
    }
}

/* A job that was stopped or failed leaves nothing behind, and its inputs as they were. */
static void check_failed_merge(Store *store, Status expected)
{
    Pick pick;
    VersionEdit edit = {0};
    size_t tables = count_tables(store);
    ck_assert_int_eq(compaction_pick(store->set->current, &store->options, store->cursors, &pick),
                     AIDB_OK);
    ck_assert_int_eq(pick.level, 0);
    ck_assert_int_eq(merge_run(&store->context, &pick, NULL, 0, &edit), expected);
    ck_assert_uint_eq(count_tables(store), tables);
    version_edit_deinit(&edit);
    pick_deinit(&pick);
}

START_TEST(test_stop)
{
    Store store;
    int calls = 3;
    store_create(&store);
    fill(&store, 3);
    store.context.stop = stop_after;
    store.context.stop_arg = &calls;
    check_failed_merge(&store, AIDB_CANCELED);
    /* At one byte a second it sleeps, and is stopped in its sleep. */
    calls = 20;
    store.context.rate = 1;
    check_failed_merge(&store, AIDB_CANCELED);
    ck_assert_int_lt(calls, 0);
    store.context.stop = NULL;
    store.context.rate = UINT64_MAX;
    compact_all(&store);
    store_destroy(&store);
}
END_TEST

START_TEST(test_faults)
{
    Store store;
    long n = 1;
    store_create(&store);
    fill(&store, 3);
    for (;; n += 1 + n / 10) {
        Pick pick;
        VersionEdit edit = {0};
        size_t tables = count_tables(&store);
        ck_assert_int_eq(compaction_pick(store.set->current, &store.options, store.cursors, &pick),
                         AIDB_OK);
        /* A fresh reader, so that files are opened and read again. */
        file_cache_destroy(store.files);
        ck_assert_int_eq(file_cache_create(store.tables, 16, &store.files), AIDB_OK);
        store.reader.files = store.files;
        faults_armed = true;
        faults_calls = 0;
        faults_at = n;
        Status status = merge_run(&store.context, &pick, NULL, 0, &edit);
        bool reached = faults_calls >= n;
        faults_armed = false;
        ck_assert_int_eq(status, reached ? AIDB_IO : AIDB_OK);
        if (reached)
            ck_assert_uint_eq(count_tables(&store), tables);
        else
            install(&store, &edit);
        version_edit_deinit(&edit);
        pick_deinit(&pick);
        if (!reached)
            break;
    }
    ck_assert_int_gt(n, 20);
    ck_assert_uint_eq(count_tables(&store), count_files(&store));
    store_destroy(&store);
}
END_TEST

START_TEST(test_flush_faults)
{
    Store store;
    store_create(&store);
    for (long n = 1;; n++) {
        Memtable *memtable;
        VersionEdit edit = {0};
        ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
        put(&store, memtable, "a", "b", store.lsn + 1);
        faults_armed = true;
        faults_calls = 0;
        faults_at = n;
        Status status = flush_run(&store.context, &memtable, 1, NULL, 0, &edit);
        bool reached = faults_calls >= n;
        faults_armed = false;
        ck_assert_int_eq(status, reached ? AIDB_IO : AIDB_OK);
        ck_assert_uint_eq(count_tables(&store), reached ? 0 : 1);
        version_edit_deinit(&edit);
        memtable_retire(memtable, store.slot);
        if (!reached)
            break;
    }
    store_destroy(&store);
}
END_TEST

START_TEST(test_empty_flush)
{
    Store store;
    Memtable *memtable;
    VersionEdit edit = {0};
    store_create(&store);
    ck_assert_int_eq(flush_run(&store.context, NULL, 0, NULL, 0, &edit), AIDB_OK);
    ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
    ck_assert_int_eq(flush_run(&store.context, &memtable, 1, NULL, 0, &edit), AIDB_OK);
    ck_assert_uint_eq(edit.added_count, 0);
    ck_assert_uint_eq(count_tables(&store), 0);
    /* Nothing but a range tombstone is a table too. */
    ck_assert_int_eq(memtable_secure(memtable, store.slot, 0, RANGE_LOAD_ONE, 20), AIDB_OK);
    memtable_add_range(memtable, slice_from_string("b"), (Slice){0}, 200);
    store.lsn = 200;
    flush_one(&store, &memtable);
    const FileMeta *file = store.set->current->levels[0].files[0];
    ck_assert(file->unbounded && file->garbage);
    ck_assert_uint_eq(file->info.range_deletes, 1);
    ck_assert(slice_equal(file->smallest, slice_from_string("b")));
    compact_all(&store);
    ck_assert_uint_eq(count_files(&store), 0);
    ck_assert_uint_eq(count_tables(&store), 0);
    store_destroy(&store);
}
END_TEST

/* Flushes entries with keys from, from + step, ...; *ends are where the tables of level 0 that it made begin. */
static size_t flush_keys(Store *store, uint32_t from, uint32_t step, uint32_t begins[2])
{
    Memtable *memtable;
    VersionEdit edit = {0};
    ck_assert_int_eq(memtable_create(store->pool, store->slot, &memtable), AIDB_OK);
    for (uint32_t i = 0; i < 400; i++) {
        char key[16];
        snprintf(key, sizeof key, "%06u", from + i * step);
        put(store, memtable, key, "twenty bytes of text", ++store->lsn);
    }
    ck_assert_int_eq(flush_run(&store->context, &memtable, 1, NULL, 0, &edit), AIDB_OK);
    check_outputs(store, &edit);
    size_t count = edit.added_count;
    ck_assert_uint_le(count, 2);
    for (size_t i = 0; i < count; i++) {
        char key[7] = "";
        memcpy(key, edit.added[i].smallest.data, 6);
        begins[i] = (uint32_t)strtoul(key, NULL, 10);
    }
    edit.flushed_lsn = store->lsn + 1;
    install(store, &edit);
    version_edit_deinit(&edit);
    memtable_retire(memtable, store->slot);
    return count;
}

/* A flush is cut in two where the middle of the one before was, and compactions keep to that place. */
START_TEST(test_split)
{
    Store store;
    uint32_t begins[2];
    store_create(&store);
    store.context.table_size = store.options.table_size = 1u << 20;
    store.options.level_base_size = 1u << 20;
    /* Keys that rise are never cut. */
    for (uint32_t i = 0; i < 3; i++)
        ck_assert_uint_eq(flush_keys(&store, i * 400, 1, begins), 1);
    /* So are halves too small to be worth it. */
    ck_assert_uint_eq(flush_keys(&store, 0, 5, begins), 1);
    ck_assert_uint_eq(flush_keys(&store, 0, 5, begins), 1);
    store.context.table_size = store.options.table_size = 64u << 10;
    ck_assert_uint_eq(flush_keys(&store, 0, 5, begins), 2);
    ck_assert_uint_eq(begins[1], 1000);
    ck_assert_uint_eq(flush_keys(&store, 3, 4, begins), 2);
    ck_assert_uint_eq(begins[1], 1003);
    ck_assert_uint_eq(flush_keys(&store, 2, 5, begins), 2);
    ck_assert_uint_eq(begins[1], 1002);
    ck_assert_uint_eq(compaction_level0_runs(store.set->current), 8);
    /* The first ones reach over it: one job takes all, and what it writes does not. */
    compact_all(&store);
    ck_assert_uint_eq(store.set->current->levels[LEVELS - 1].count, 2);
    FileMeta **files = store.set->current->levels[LEVELS - 1].files;
    ck_assert_int_lt(slice_compare(files[0]->largest, slice_from_string("001000")), 0);
    ck_assert_int_ge(slice_compare(files[1]->smallest, slice_from_string("001000")), 0);
    /* From now on there are two. */
    for (uint32_t i = 0; i < store.options.level0_files; i++)
        ck_assert_uint_eq(flush_keys(&store, i, 5, begins), 2);
    Pick halves[2];
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(
            compaction_pick(store.set->current, &store.options, store.cursors, &halves[i]),
            AIDB_OK);
        ck_assert_int_eq(halves[i].level, 0);
        ck_assert_int_eq(halves[i].output_level, LEVELS - 1);
        ck_assert_uint_eq(halves[i].counts[0], store.options.level0_files);
        ck_assert_uint_eq(halves[i].counts[1], 1);
        pick_claim(&halves[i], ++store.job);
    }
    for (int i = 0; i < 2; i++) {
        VersionEdit edit = {0};
        ck_assert_int_eq(merge_run(&store.context, &halves[i], NULL, 0, &edit), AIDB_OK);
        check_outputs(&store, &edit);
        install(&store, &edit);
        version_edit_deinit(&edit);
        pick_deinit(&halves[i]);
    }
    ck_assert_uint_eq(store.set->current->levels[0].count, 0);
    ck_assert_uint_eq(store.set->current->levels[LEVELS - 1].count, 2);
    /* Writes that go elsewhere are cut elsewhere. */
    ck_assert_uint_eq(flush_keys(&store, 500000, 5, begins), 1);
    ck_assert_uint_eq(flush_keys(&store, 500000, 5, begins), 2);
    ck_assert_uint_eq(begins[1], 501000);
    store_destroy(&store);
}
END_TEST

/* Many range tombstones without a point between them are cut into several files too. */
START_TEST(test_many_ranges)
{
    Store store;
    Memtable *memtable;
    store_create(&store);
    store.snapshots[0] = 1; /* nothing may be dropped */
    store.snapshot_count = 1;
    ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
    for (int i = 0; i < 3000; i++) {
        char from[32];
        char to[32];
        snprintf(from, sizeof from, "k%06d", 2 * i);
        snprintf(to, sizeof to, "k%06d", 2 * i + 1 + i % 2);
        ck_assert_int_eq(memtable_secure(memtable, store.slot, 0, RANGE_LOAD_ONE, 64), AIDB_OK);
        memtable_add_range(memtable, slice_from_string(from), slice_from_string(to), ++store.lsn);
    }
    flush_one(&store, &memtable);
    compact_all(&store);
    uint64_t fragments = 0;
    for (uint32_t i = 0; i < store.set->current->levels[LEVELS - 1].count; i++)
        fragments += store.set->current->levels[LEVELS - 1].files[i]->info.range_deletes;
    ck_assert_uint_gt(store.set->current->levels[LEVELS - 1].count, 3);
    ck_assert_uint_eq(fragments, 3000);
    store_destroy(&store);
}
END_TEST

START_TEST(test_large_values)
{
    Store store;
    size_t size = 12u << 20;
    char *value = malloc(size + 1);
    Entry entry;
    ck_assert_ptr_nonnull(value);
    store_create(&store);
    for (int i = 0; i < 4; i++) {
        Memtable *memtable;
        char key[8];
        memset(value, 'a' + i, size);
        value[size] = '\0';
        snprintf(key, sizeof key, "k%d", i % 3);
        ck_assert_int_eq(memtable_create(store.pool, store.slot, &memtable), AIDB_OK);
        put(&store, memtable, key, value, store.lsn + 1);
        flush_one(&store, &memtable);
    }
    compact_all(&store);
    ck_assert_uint_eq(store.set->current->levels[LEVELS - 1].count, 3);
    epoch_enter(store.epochs, store.slot);
    ck_assert(store_get(&store, slice_from_string("k0"), store.lsn, &entry));
    ck_assert_uint_eq(entry.value.size, size);
    ck_assert_int_eq(entry.value.data[size - 1], 'd');
    table_reader_release(&store.reader);
    epoch_leave(store.slot);
    free(value);
    store_destroy(&store);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compaction");
    suite_add_tcase(suite, picker_cases());
    TCase *jobs = tcase_create("jobs");
    tcase_set_timeout(jobs, 240);
    tcase_add_test(jobs, test_stripes);
    tcase_add_test(jobs, test_keep);
    tcase_add_test(jobs, test_stop);
    tcase_add_test(jobs, test_faults);
    tcase_add_test(jobs, test_flush_faults);
    tcase_add_test(jobs, test_empty_flush);
    tcase_add_test(jobs, test_split);
    tcase_add_test(jobs, test_many_ranges);
    tcase_add_test(jobs, test_large_values);
    suite_add_tcase(suite, jobs);
    suite_add_tcase(suite, model_cases());
    return test_run(suite);
}
