/* io_test.c - files: errors that name the path, atomic replacement, limits. */
#include "config.h"

#include "io/io.h"
#include "testlib/testlib.h"

#include <check.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char *directory;
static char *path;

static void setup(void)
{
    directory = test_directory_create();
    path = path_join(directory, "file");
}

static void teardown(void)
{
    free(path);
    test_directory_destroy(directory);
}

START_TEST(files_are_made_once)
{
    File file;
    ck_assert_int_eq(file_open(path, FILE_READ, &file), AIDB_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(status_message(), path));
    ck_assert_int_eq(file.fd, -1);
    file_close(&file); /* harmless */
    ck_assert_int_eq(file_open(path, FILE_CREATE_NEW, &file), AIDB_OK);
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    file_close(&file);
    ck_assert_int_eq(file_open(path, FILE_CREATE_NEW, &file), AIDB_IO);
    ck_assert(file_exists(path));
    ck_assert_int_eq(file_unlink(path), AIDB_OK);
    ck_assert_int_eq(file_unlink(path), AIDB_OK);
    ck_assert(!file_exists(path));
}
END_TEST

START_TEST(discarded_files_give_their_space_back)
{
    File file;
    struct stat info;
    ck_assert_int_eq(file_open(path, FILE_CREATE_NEW, &file), AIDB_OK);
    ck_assert_int_eq(file_zero_fill(&file, 0, 100000), AIDB_OK);
    ck_assert_int_eq(file_discard(path), AIDB_OK);
    ck_assert(!file_exists(path));
    ck_assert_int_eq(fstat(file.fd, &info), 0); /* still open here */
    ck_assert_int_eq(info.st_size, 0);
    file_close(&file);
    ck_assert_int_eq(file_discard(path), AIDB_OK);
    /* Somebody's hard link is somebody's copy. */
    char *other = path_join(directory, "other");
    ck_assert_int_eq(file_replace(path, "kept", 4, 0600), AIDB_OK);
    ck_assert_int_eq(link(path, other), 0);
    ck_assert_int_eq(file_discard(path), AIDB_OK);
    ck_assert_int_eq(stat(other, &info), 0);
    ck_assert_int_eq(info.st_size, 4);
    free(other);
}
END_TEST

START_TEST(reads_and_writes_are_whole)
{
    File file;
    uint8_t bytes[300], back[300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    ck_assert_int_eq(file_open(path, FILE_CREATE_NEW, &file), AIDB_OK);
    ck_assert_int_eq(file_write_at(&file, 100, bytes, sizeof bytes), AIDB_OK);
    ck_assert_int_eq(file_sync(&file), AIDB_OK);
    ck_assert_int_eq(file_read_at(&file, 100, back, sizeof back), AIDB_OK);
    ck_assert_int_eq(memcmp(bytes, back, sizeof bytes), 0);
    ck_assert_int_eq(file_read_at(&file, 101, back, sizeof back), AIDB_CORRUPTION);
    ck_assert_ptr_nonnull(strstr(status_message(), path));
    size_t got;
    ck_assert_int_eq(file_read_some(&file, 350, back, sizeof back, &got), AIDB_OK);
    ck_assert_uint_eq(got, 50);
    uint64_t size;
    ck_assert_int_eq(file_zero_fill(&file, 400, 200000), AIDB_OK);
    ck_assert_int_eq(file_size(&file, &size), AIDB_OK);
    ck_assert_uint_eq(size, 200400);
    ck_assert(!file_is_sparse(&file));
    ck_assert_int_eq(file_allocate(&file, 0, 200400), AIDB_OK);
    ck_assert_int_eq(file_read_at(&file, 100, back, sizeof back), AIDB_OK);
    ck_assert_int_eq(memcmp(bytes, back, sizeof bytes), 0);
    file_punch(&file, 8192,
               131072); /* a hint: what it does to the blocks depends on the file system */
    ck_assert_int_eq(file_size(&file, &size), AIDB_OK);
    ck_assert_uint_eq(size, 200400);
    ck_assert_int_eq(file_read_at(&file, 100, back, sizeof back), AIDB_OK);
    ck_assert_int_eq(memcmp(bytes, back, sizeof bytes), 0);
    uint8_t hole[4096], zeros[4096] = {0};
    ck_assert_int_eq(file_read_at(&file, 131072, hole, sizeof hole), AIDB_OK);
    ck_assert_int_eq(memcmp(hole, zeros, sizeof hole), 0);
    ck_assert_int_eq(file_truncate(&file, 10), AIDB_OK);
    ck_assert_int_eq(file_size(&file, &size), AIDB_OK);
    ck_assert_uint_eq(size, 10);
    file_close(&file);
    Buffer buffer = {0};
    ck_assert_int_eq(file_read_whole(path, 9, &buffer), AIDB_LIMIT);
    ck_assert_int_eq(file_read_whole(path, 10, &buffer), AIDB_OK);
    ck_assert_uint_eq(buffer.size, 10);
    buffer_deinit(&buffer);
}
END_TEST

/* Parts of blocks, and what a file system that takes no such memory makes necessary: the page cache. */
START_TEST(writes_go_through)
{
    static _Alignas(FILE_BLOCK) uint8_t bytes[4 * FILE_BLOCK];
    uint8_t back[4 * FILE_BLOCK];
    File file;
    ck_assert_int_eq(file_open(path, FILE_WRITE_THROUGH, &file), AIDB_NOT_FOUND);
    ck_assert_int_eq(file_open(path, FILE_CREATE_NEW, &file), AIDB_OK);
    ck_assert_int_eq(file_zero_fill(&file, 0, sizeof bytes), AIDB_OK);
    ck_assert_int_eq(file_sync(&file), AIDB_OK);
    ck_assert_int_eq(file_write_at(&file, 1, "?", 1),
                     AIDB_OK); /* no block: not past the cache any more */
    file_close(&file);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i / 13);
    ck_assert_int_eq(file_open(path, FILE_WRITE_THROUGH, &file), AIDB_OK);
    struct iovec parts[] = {
        {bytes + FILE_BLOCK, 2 * FILE_BLOCK}, {NULL, 0}, {bytes + 3 * FILE_BLOCK, FILE_BLOCK}};
    ck_assert_int_eq(file_write_through(&file, FILE_BLOCK, parts, 3), AIDB_OK);
    parts[0] = (struct iovec){bytes, FILE_BLOCK};
    ck_assert_int_eq(file_write_through(&file, 0, parts, 1), AIDB_OK);
    file_close(&file);
    ck_assert_int_eq(file_open(path, FILE_READ, &file), AIDB_OK);
    ck_assert_int_eq(file_read_at(&file, 0, back, sizeof back), AIDB_OK);
    ck_assert_int_eq(memcmp(bytes, back, sizeof back), 0);
    file_close(&file);

    ck_assert_int_eq(file_open(path, FILE_WRITE_THROUGH, &file), AIDB_OK);
    for (int i = 0; i < 2; i++) {
        parts[0] = (struct iovec){bytes + 1, FILE_BLOCK};
        ck_assert_int_eq(file_write_through(&file, FILE_BLOCK, parts, 1), AIDB_OK);
    }
    ck_assert_int_eq(file_read_at(&file, FILE_BLOCK, back, FILE_BLOCK), AIDB_OK);
    ck_assert_int_eq(memcmp(bytes + 1, back, FILE_BLOCK), 0);
    file_close(&file);
    ck_assert_int_eq(file_open(path, FILE_READ, &file), AIDB_OK);
    parts[0] = (struct iovec){bytes, FILE_BLOCK};
    ck_assert_int_eq(file_write_through(&file, 0, parts, 1), AIDB_IO);
    ck_assert_ptr_nonnull(strstr(status_message(), path));
    file_close(&file);
}
END_TEST

START_TEST(replace_is_whole_or_nothing)
{
    ck_assert_int_eq(file_replace(path, "one", 3, 0600), AIDB_OK);
    ck_assert_int_eq(file_replace(path, "second", 6, 0640), AIDB_OK);
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0640);
    /* A leftover of a crash is in nobody's way. */
    char *temporary = path_join(directory, "file.tmp");
    File file;
    ck_assert_int_eq(file_open(temporary, FILE_CREATE_NEW, &file), AIDB_OK);
    file_close(&file);
    ck_assert_int_eq(file_replace(path, "third", 5, 0600), AIDB_OK);
    ck_assert(!file_exists(temporary));
    /* No room: the old content stays and nothing is left behind. */
    struct rlimit old, none = {.rlim_cur = 2, .rlim_max = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &old);
    none.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &none);
    Status status = file_replace(path, "fourth", 6, 0600);
    setrlimit(RLIMIT_FSIZE, &old);
    ck_assert_int_ne(status, AIDB_OK);
    ck_assert(!file_exists(temporary));
    Buffer buffer = {0};
    ck_assert_int_eq(file_read_whole(path, 100, &buffer), AIDB_OK);
    ck_assert(slice_equal(buffer_slice(&buffer), slice_from_string("third")));
    buffer_deinit(&buffer);
    free(temporary);
}
END_TEST

static Status count_names(void *arg, const char *name)
{
    ck_assert_str_ne(name, ".");
    return ++*(int *)arg == 2 ? status_set(AIDB_LIMIT, "enough") : AIDB_OK;
}

START_TEST(directories)
{
    char *inner = path_join(directory, "inner");
    ck_assert_int_eq(directory_create(inner), AIDB_OK);
    ck_assert_int_eq(directory_create(inner), AIDB_OK);
    ck_assert_int_eq(directory_sync(inner), AIDB_OK);
    int count = 0;
    ck_assert_int_eq(directory_list(inner, count_names, &count), AIDB_OK);
    ck_assert_int_eq(count, 0);
    for (int i = 0; i < 3; i++) {
        char name[8] = {(char)('a' + i), 0};
        char *file_path = path_join(inner, name);
        ck_assert_int_eq(file_replace(file_path, "x", 1, 0600), AIDB_OK);
        free(file_path);
    }
    ck_assert_int_eq(directory_list(inner, count_names, &count), AIDB_LIMIT);
    ck_assert_int_eq(count, 2);
    char *file_path = path_join(inner, "a");
    ck_assert_int_eq(directory_create(file_path), AIDB_IO);
    free(file_path);
    free(inner);
    ck_assert_int_eq(directory_sync("/nonexistent/directory"), AIDB_IO);
    char *joined = path_join("a/", "b");
    ck_assert_str_eq(joined, "a/b");
    free(joined);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("io");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, setup, teardown);
    suite_add_tcase(suite, all);
    tcase_add_test(all, files_are_made_once);
    tcase_add_test(all, discarded_files_give_their_space_back);
    tcase_add_test(all, reads_and_writes_are_whole);
    tcase_add_test(all, writes_go_through);
    tcase_add_test(all, replace_is_whole_or_nothing);
    tcase_add_test(all, directories);
    return test_run(suite);
}
