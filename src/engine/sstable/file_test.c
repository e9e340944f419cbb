/*
 * file_test.c - building tables on full disks and from wrong input, the cache of open files, formats.
 */
#include "config.h"

#include "engine/sstable/test_table.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- building: what is refused, and failing files -------------------------------------------- */

START_TEST(builder_refuses)
{
    make_directory();
    TableOptions options = options_of(COMPRESSION_NONE, 4096, 10);
    static const struct {
        const char *first;
        uint64_t first_lsn;
        const char *second;
        uint64_t second_lsn;
    } bad[] = {{"b", 5, "a", 6},  {"a", 5, "a", 5}, {"a", 5, "a", 6},
               {"ab", 5, "a", 4}, {"a", 5, "", 6},  {"a", 5, "b", 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        TableBuilder *builder;
        OK(table_builder_create(&options, directory, TABLE_NUMBER(1, 1), 2, &builder));
        TableBuilder *second;
        ck_assert_int_eq(table_builder_create(&options, directory, TABLE_NUMBER(1, 1), 2, &second),
                         AIDB_IO);
        ck_assert_ptr_null(second);
        Entry entry = {
            .key = slice_from_string(bad[i].first), .lsn = bad[i].first_lsn, .type = OP_PUT};
        OK(table_builder_add(builder, &entry));
        entry = (Entry){
            .key = slice_from_string(bad[i].second), .lsn = bad[i].second_lsn, .type = OP_PUT};
        ck_assert_int_eq(table_builder_add(builder, &entry), AIDB_INTERNAL);
        entry = (Entry){.key = slice_from_string("z"), .lsn = 9, .type = OP_PUT};
        ck_assert_int_eq(table_builder_add(builder, &entry), AIDB_INTERNAL); /* it stays failed */
        TableInfo info;
        ck_assert_int_eq(table_builder_finish(builder, &info), AIDB_INTERNAL);
        table_builder_destroy(builder);
        char path[400];
        table_path(TABLE_NUMBER(1, 1), path);
        ck_assert(!file_exists(path));
    }
    TableBuilder *builder;
    OK(table_builder_create(&options, directory, TABLE_NUMBER(1, 2), 2, &builder));
    uint64_t lsns[2] = {9, 8};
    RangeFragment overlap[2] = {{slice_from_string("a"), slice_from_string("c"), lsns, 2},
                                {slice_from_string("b"), slice_from_string("d"), lsns, 2}};
    ck_assert_int_eq(table_builder_add_fragments(builder, overlap, 2), AIDB_INTERNAL);
    table_builder_destroy(builder);
#ifndef HAVE_SNAPPY
    options.compression = COMPRESSION_SNAPPY;
    ck_assert_int_eq(table_builder_create(&options, directory, TABLE_NUMBER(1, 3), 2, &builder),
                     AIDB_UNSUPPORTED);
#endif
    remove_directory();
}
END_TEST

/* The file cannot grow past a limit: every limit gives an error, no file stays, nothing leaks. */
START_TEST(builder_full_disk)
{
    make_directory();
    Model model;
    Shape shape = {"full", 3000, 3, 0, 800, 1, 4096};
    test_draw_seed("builder_full_disk");
    model_build(&model, &shape);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (uint64_t limit = 0; limit < 1400000; limit += 100000 + test_draw_below(10000)) {
        struct rlimit small = {.rlim_cur = limit, .rlim_max = before.rlim_max};
        TableOptions options = options_of(COMPRESSION_NONE, 4096, 10);
        TableBuilder *builder;
        OK(table_builder_create(&options, directory, TABLE_NUMBER(1, 1), model.lsn_floor,
                                &builder));
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
        Status status = AIDB_OK;
        for (size_t i = 0; i < model.count && status == AIDB_OK; i++)
            status = table_builder_add(builder, &model.entries[i]);
        TableInfo info;
        Status end = table_builder_finish(builder, &info);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
        if (status == AIDB_OK && end == AIDB_OK) {
            ck_assert_uint_le(info.file_size, limit);
        } else {
            ck_assert_int_ne(end, AIDB_OK);
            ck_assert_int_eq(status != AIDB_OK ? status : end, AIDB_IO);
        }
        table_builder_destroy(builder);
        char path[400];
        table_path(TABLE_NUMBER(1, 1), path);
        ck_assert_int_eq(file_exists(path), end == AIDB_OK);
        if (end == AIDB_OK)
            OK(file_unlink(path));
    }
    model_free(&model);
    remove_directory();
}
END_TEST

/* ---- open files ------------------------------------------------------------------------------ */

static uint32_t open_descriptors(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

START_TEST(file_cache_bounded)
{
    test_draw_seed("file_cache_bounded");
    make_directory();
    enum { TABLES = 12 };
    TableInfo infos[TABLES];
    Model model;
    model_build(&model, &small_shape);
    TableOptions options = options_of(COMPRESSION_NONE, 4096, 0);
    for (uint64_t i = 0; i < TABLES; i++)
        infos[i] = build_table(&model, &options, TABLE_NUMBER(1, i + 1), NULL, 0);
    for (uint32_t capacity = 0; capacity < 6; capacity++) {
        uint32_t before = open_descriptors();
        FileCache *files;
        OK(file_cache_create(directory, capacity, &files));
        for (int i = 0; i < 500; i++) {
            uint32_t which = test_draw_below(TABLES);
            const File *file;
            OK(file_cache_get(files, &infos[which], &file));
            char name[TABLE_NAME_SIZE];
            table_name(infos[which].number, name);
            ck_assert_ptr_nonnull(strstr(file->path, name));
            ck_assert_uint_le(open_descriptors() - before, capacity == 0 ? 1 : capacity);
            if (test_draw_below(10) == 0)
                file_cache_forget(files, infos[test_draw_below(TABLES)].number);
        }
        file_cache_destroy(files);
        ck_assert_uint_eq(open_descriptors(), before);
    }
    /* Out of descriptors: the cache gives back its own and goes on. */
    FileCache *files;
    OK(file_cache_create(directory, 100, &files));
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct rlimit few = {.rlim_cur = 3, .rlim_max = limit.rlim_max};
    while (fcntl((int)few.rlim_cur, F_GETFD) >= 0)
        few.rlim_cur++;
    few.rlim_cur += 3;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    for (int i = 0; i < 100; i++) {
        const File *file;
        OK(file_cache_get(files, &infos[test_draw_below(TABLES)], &file));
    }
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    file_cache_destroy(files);
    model_free(&model);
    remove_directory();
}
END_TEST

static void damage_is_none(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)arg;
    ck_abort_msg("%s: %llu: %s", path, (unsigned long long)offset, what);
}

/* A table of another format is no damaged one: whoever opens it says which format it has. */
START_TEST(another_format_is_named)
{
    test_draw_seed("another_format_is_named");
    make_directory();
    Model model;
    model_build(&model, &small_shape);
    TableOptions options = options_of(COMPRESSION_NONE, 4096, 0);
    TableInfo info = build_table(&model, &options, TABLE_NUMBER(1, 1), NULL, 0);
    char path[400];
    table_path(info.number, path);
    static const uint32_t versions[] = {TABLE_VERSION - 1, TABLE_VERSION + 1};
    for (size_t i = 0; i < 2; i++) {
        uint8_t header[TABLE_HEADER_SIZE];
        table_header_encode(header, system_id, info.number, info.id);
        put_fixed32(header + 8, versions[i]);
        put_fixed64(header + 56, table_checksum(info.id, 0, header, 56));
        overwrite(path, 0, header, sizeof header);
        char expected[100];
        snprintf(expected, sizeof expected, "has format %u, this version of AiDb reads format %u",
                 versions[i], TABLE_VERSION);
        FileCache *files;
        const File *file;
        OK(file_cache_create(directory, 1, &files));
        ck_assert_int_eq(file_cache_get(files, &info, &file), AIDB_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(status_text(), path));
        ck_assert_ptr_nonnull(strstr(status_text(), expected));
        ck_assert_ptr_nonnull(strstr(status_text(), i == 0 ? "an older" : "a newer"));
        file_cache_destroy(files);
        TableInfo read;
        ck_assert_int_eq(table_info_read(path, system_id, &read), AIDB_UNSUPPORTED);
        TableSalvage *salvage;
        ck_assert_int_eq(table_salvage_open(path, NULL, NULL, NULL, NULL, &salvage),
                         AIDB_UNSUPPORTED);
        status_clear();
        ck_assert_int_eq(table_verify(path, system_id, &info, damage_is_none, NULL),
                         AIDB_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(status_text(), expected));
    }
    model_free(&model);
    remove_directory();
}
END_TEST

TCase *file_cases(void)
{
    TCase *files = tcase_create("files");
    tcase_set_timeout(files, 300);
    tcase_add_test(files, builder_refuses);
    tcase_add_test(files, builder_full_disk);
    tcase_add_test(files, file_cache_bounded);
    tcase_add_test(files, another_format_is_named);
    return files;
}
