/* config_test.c - the table of settings, values as text, and the reader of aidb.yaml. */
#include "config.h"
#include "config/pidfile.h"
#include "config/settings.h"
#include "testlib/testlib.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static Status parse(const char *text, Config *config)
{
    return config_parse("aidb.yaml", slice_from_string(text), config);
}

static const char *get(const Config *config, const char *name)
{
    static Buffer text;
    buffer_clear(&text);
    ck_assert_int_eq(config_get(config, setting_find(name), &text), AIDB_OK);
    ck_assert_int_eq(buffer_append_byte(&text, 0), AIDB_OK);
    return (const char *)text.data;
}

START_TEST(defaults_are_accepted_and_consistent)
{
    Config config;
    config_init(&config);
    for (size_t i = 0; i < setting_count(); i++) {
        Config again = config;
        ck_assert_msg(config_set(&again, setting_at(i)->name, setting_at(i)->default_text) ==
                          AIDB_OK,
                      "%s: %s", setting_at(i)->name, status_message());
        ck_assert_uint_eq(config.lines[i], 0);
    }
    ck_assert_int_eq(config_check(&config), AIDB_OK);
    ck_assert_uint_eq(config.engine.memory, 512u << 20);
    ck_assert_uint_eq(config.engine.block_size, 4096);
    ck_assert_int_eq(config.engine.compression, COMPRESSION_ZSTD);
    ck_assert_int_eq(config.engine.compression_level, 1);
    ck_assert_int_eq(config.engine.durability, AIDB_FSYNC);
    ck_assert_uint_eq(config.engine.batch_max, 72u << 20);
    ck_assert(config.engine.huge_pages);
    ck_assert_uint_eq(config.server.port, 7654);
    ck_assert_str_eq(config.server.listen_addresses, "127.0.0.1");
    ck_assert_uint_eq(config.server.authentication_timeout, 15000);
}
END_TEST

START_TEST(fewer_than_20_engine_settings_and_no_name_twice)
{
    size_t engine = 0;
    for (size_t i = 0; i < setting_count(); i++) {
        engine += setting_at(i)->group == GROUP_ENGINE;
        ck_assert_ptr_eq(setting_find(setting_at(i)->name), setting_at(i));
        ck_assert_ptr_null(strchr(setting_at(i)->text, '\t'));
    }
    ck_assert_uint_lt(engine, 20);
}
END_TEST

/* Every number survives its field at both bounds, and one beyond is refused. */
START_TEST(bounds_fit_their_fields)
{
    for (size_t i = 0; i < setting_count(); i++) {
        const Setting *setting = setting_at(i);
        if (setting->type != SETTING_INTEGER && setting->type != SETTING_SIZE &&
            setting->type != SETTING_DURATION)
            continue;
        const char *unit = setting->type == SETTING_DURATION ? "ms" : "";
        const int64_t values[] = {setting->min, setting->max};
        for (size_t v = 0; v < 2; v++) {
            Config config, again;
            char text[64];
            config_init(&config);
            snprintf(text, sizeof text, "%" PRId64 "%s", values[v], unit);
            ck_assert_msg(config_set(&config, setting->name, text) == AIDB_OK, "%s=%s: %s",
                          setting->name, text, status_message());
            again = config;
            ck_assert_int_eq(config_set(&again, setting->name, get(&config, setting->name)),
                             AIDB_OK);
            ck_assert_mem_eq(&again, &config, sizeof config);
            snprintf(text, sizeof text, "%" PRId64 "%s", v == 0 ? values[v] - 1 : values[v] + 1,
                     unit);
            ck_assert_int_eq(config_set(&config, setting->name, text), AIDB_INVALID);
            ck_assert_ptr_nonnull(strstr(status_message(), setting->name));
        }
    }
}
END_TEST

static const struct {
    const char *name, *text, *shown;
} GOOD[] = {
    {"memory", "536870912", "512MiB"},
    {"memory", "2GiB", "2GiB"},
    {"memory", "1 gib", "1GiB"},
    {"block_size", "4097", "4097"},
    {"block_size", "16384B", "16KiB"},
    {"authentication_timeout", "90s", "90s"},
    {"authentication_timeout", "1500ms", "1500ms"},
    {"authentication_timeout", "2min", "2min"},
    {"statement_timeout", "0", "0"},
    {"compression", "ZSTD", "zstd"},
    {"durability", "os", "os"},
    {"huge_pages", "off", "false"},
    {"huge_pages", "Yes", "true"},
    {"compression_level", "-7", "-7"},
    {"log_file", "a b.log", "a b.log"},
    {"unix_socket", "", ""},
};

static const struct {
    const char *name, *text, *says;
} BAD[] = {
    {"memory", "lots", "is not a size"},
    {"memory", "512MB", "is not a size"},
    {"memory", "1.5GiB", "is not a size"},
    {"memory", "", "is not a size"},
    {"memory", "1KiB", "out of range"},
    {"memory", "99999999999999999999", "is not a size"},
    {"memory", "9999999999TiB", "is not a size"},
    {"authentication_timeout", "5", "is not a time"},
    {"authentication_timeout", "5 parsecs", "is not a time"},
    {"authentication_timeout", "0", "out of range"},
    {"port", "65536", "out of range"},
    {"port", "-1", "out of range"},
    {"port", "7654x", "is not an integer"},
    {"port", "", "is not an integer"},
    {"huge_pages", "1", "neither true nor false"},
    {"compression", "lz4", "is not one of none|snappy|zstd"},
    {"durability", "", "is not one of"},
    {"log_file", "", "must not be empty"},
    {"log_file", "a\nb", "control characters"},
    {"memoryy", "1GiB", "unknown setting \"memoryy\""},
};

START_TEST(values_that_are_taken)
{
    Config config;
    config_init(&config);
    ck_assert_msg(config_set(&config, GOOD[_i].name, GOOD[_i].text) == AIDB_OK, "%s",
                  status_message());
    ck_assert_str_eq(get(&config, GOOD[_i].name), GOOD[_i].shown);
}
END_TEST

START_TEST(values_that_are_refused)
{
    Config config, before;
    config_init(&config);
    before = config;
    ck_assert_int_eq(config_set(&config, BAD[_i].name, BAD[_i].text), AIDB_INVALID);
    ck_assert_msg(strstr(status_message(), BAD[_i].says) != NULL, "%s", status_message());
    ck_assert_mem_eq(&config, &before, sizeof config);
}
END_TEST

START_TEST(a_long_text_is_refused)
{
    Config config;
    char text[CONFIG_STRING_SIZE + 1];
    memset(text, 'x', sizeof text);
    text[CONFIG_STRING_SIZE] = '\0';
    config_init(&config);
    ck_assert_int_eq(config_set(&config, "log_file", text), AIDB_INVALID);
    text[CONFIG_STRING_SIZE - 1] = '\0';
    ck_assert_int_eq(config_set(&config, "log_file", text), AIDB_OK);
}
END_TEST

START_TEST(pairs)
{
    Config config;
    config_init(&config);
    ck_assert_int_eq(config_set_pair(&config, "port=0"), AIDB_OK);
    ck_assert_uint_eq(config.server.port, 0);
    ck_assert_int_eq(config_set_pair(&config, "log_file=a=b"), AIDB_OK);
    ck_assert_str_eq(config.server.log_file, "a=b");
    ck_assert_int_eq(config_set_pair(&config, "port"), AIDB_INVALID);
    ck_assert_int_eq(config_set_pair(&config, "=1"), AIDB_INVALID);
}
END_TEST

START_TEST(suggestions)
{
    ck_assert_str_eq(setting_suggest("max_conections"), "max_connections");
    ck_assert_str_eq(setting_suggest("Port"), "port");
    ck_assert_ptr_null(setting_suggest("shared_buffers"));
    ck_assert_ptr_null(setting_suggest(""));
}
END_TEST

START_TEST(a_file)
{
    Config config;
    ck_assert_int_eq(
        parse("# comment\nmemory: 64MiB\nport: \"7000\"\n\nlisten_addresses: [127.0.0.1, '::1']\n"
              "unix_socket_directory:\nlog_file: 'it''s.log'\nhuge_pages: no\n",
              &config),
        AIDB_OK);
    ck_assert_uint_eq(config.engine.memory, 64u << 20);
    ck_assert_uint_eq(config.server.port, 7000);
    ck_assert_str_eq(config.server.listen_addresses, "127.0.0.1,::1");
    ck_assert_str_eq(config.server.log_file, "it's.log");
    ck_assert(!config.engine.huge_pages);
    ck_assert_uint_eq(config.lines[setting_find("memory") - setting_at(0)], 2);
    ck_assert_uint_eq(config.lines[setting_find("compactors") - setting_at(0)], 0);
}
END_TEST

static const char *const EMPTY[] = {"",           "\n\n", "# nothing\n", "---\n",
                                    "---\n...\n", "{}\n", "~\n"};

START_TEST(empty_files_are_all_defaults)
{
    Config config, defaults;
    config_init(&defaults);
    ck_assert_msg(parse(EMPTY[_i], &config) == AIDB_OK, "%s", status_message());
    ck_assert_mem_eq(&config, &defaults, sizeof config);
}
END_TEST

static const struct {
    const char *text, *says;
} WRONG[] = {
    {"memory: 64MiB\nprot: 7000\n", "aidb.yaml:2:1: unknown setting \"prot\""},
    {"memory: 64MiB\nport:   banana\n", "aidb.yaml:2:9: port: \"banana\" is not an integer"},
    {"port: 70000\n", "aidb.yaml:1:7: port: 70000 is out of range (0 to 65535)"},
    {"port:\n", "aidb.yaml:1:6: port: has no value"},
    {"port: ~\n", "aidb.yaml:1:7: port: has no value"},
    {"port: [1]\n", "aidb.yaml:1:7: port: takes a single value of type integer"},
    {"port: {a: 1}\n", "aidb.yaml:1:7: port: takes a single value"},
    {"listen_addresses: {a: 1}\n", "aidb.yaml:1:19: listen_addresses: takes a single value"},
    {"listen_addresses: [a, [b]]\n", "aidb.yaml:1:23: listen_addresses: a list takes words only"},
    {"port: 1\nmemory: 1GiB\nport: 2\n", "aidb.yaml:3:1: port: already set in line 1"},
    {"port: &a 1\n", "anchors and aliases are not allowed"},
    {"&a port: 1\n", "anchors and aliases are not allowed"},
    {"port: *a\n", "anchors and aliases are not allowed"},
    {"port: !!int 1\n", "tags are not allowed"},
    {"port: 1\n---\nport: 2\n", "only one document is allowed"},
    {"- port\n", "aidb.yaml:1:1: settings are written as name: value"},
    {"port\n", "settings are written as name: value"},
    {"[[[[[[", "settings are written as name: value"},
    {"? [a]\n: 1\n", "the name of a setting is expected"},
    {"port: 1\n  memory: 2\n", "aidb.yaml:1:7: port: \"1 memory\" is not an integer"},
    {"port: 'x\n", "aidb.yaml:2:1: "},
    {"log_file: \"a\\0b\"\n", "a null byte is not allowed"},
    {"port: 1\n\xff\xfe\n", "not UTF-8"},
    {"mode: replica\n", "aidb.yaml:1:1: mode: replica is not in this version"},
    {"\nmode: coordinator\n", "aidb.yaml:2:1: mode: coordinator is not in this version"},
    {"wal_segment_size: 3MiB\n", "wal_segment_size: must be a power of two"},
    {"wal_ring_size: 1048577\n", "wal_ring_size: must be a multiple of 4KiB"},
    {"memory: 16MiB\ncache_size: 32MiB\n", "aidb.yaml:2:1: cache_size: larger than memory"},
    {"max_connections: 3\n", "admin_reserved_connections: leaves none"},
    {"unix_socket: a/b\n", "must be a file name"},
    {"port: 0\nunix_socket: ''\n", "would not listen anywhere"},
};

START_TEST(wrong_files_say_where)
{
    Config config;
    ck_assert_int_ne(parse(WRONG[_i].text, &config), AIDB_OK);
    ck_assert_msg(strstr(status_message(), WRONG[_i].says) != NULL, "%s", status_message());
    ck_assert_msg(strncmp(status_message(), "aidb.yaml:", 10) == 0, "%s", status_message());
}
END_TEST

START_TEST(hints_survive)
{
    Config config;
    ck_assert_int_eq(parse("memoryy: 1\n", &config), AIDB_INVALID);
    ck_assert_ptr_nonnull(strstr(status_text(), "\nhint: Perhaps \"memory\" is meant."));
    ck_assert_int_eq(parse("memory: 1 gigabyte\n", &config), AIDB_INVALID);
    ck_assert_ptr_nonnull(strstr(status_text(), "\nhint: Write sizes as"));
}
END_TEST

START_TEST(any_bytes_are_read_or_refused)
{
    test_draw_seed("any_bytes_are_read_or_refused");
    static const char PIECES[] =
        "port: 1\nmemory: 64MiB\n[]{}&*!|>'\"%@`-?:, \t\n#~\\\0\x80\xc3\xa9";
    for (int round = 0; round < 20000; round++) {
        char text[96];
        size_t size = test_draw_below(sizeof text);
        for (size_t i = 0; i < size; i++)
            text[i] = test_draw_below(4) != 0 && i > 0 && round % 2 == 0
                          ? "port: 1\n"[i % 8]
                          : PIECES[test_draw_below(sizeof PIECES)];
        Config config;
        if (config_parse("x", slice_make(text, size), &config) == AIDB_OK)
            ck_assert_int_eq(config_check(&config), AIDB_OK);
    }
}
END_TEST

START_TEST(too_large_a_file)
{
    Config config;
    size_t size = CONFIG_FILE_SIZE_MAX + 1;
    char *text = malloc(size);
    ck_assert_ptr_nonnull(text);
    memset(text, '\n', size);
    ck_assert_int_eq(config_parse("x", slice_make(text, size), &config), AIDB_INVALID);
    ck_assert_int_eq(config_parse("x", slice_make(text, size - 1), &config), AIDB_OK);
    free(text);
    ck_assert_int_eq(config_load("/nonexistent/aidb.yaml", &config), AIDB_NOT_FOUND);
}
END_TEST

START_TEST(the_sample_reads_back)
{
    Config config, again;
    Buffer text = {0};
    config_init(&config);
    ck_assert_int_eq(config_sample(&config, &text), AIDB_OK);
    ck_assert_msg(config_parse("sample", buffer_slice(&text), &again) == AIDB_OK, "%s",
                  status_message());
    ck_assert_mem_eq(&again, &config, sizeof config);

    ck_assert_int_eq(config_set(&config, "port", "7001"), AIDB_OK);
    ck_assert_int_eq(config_set(&config, "log_file", "it's # a: log"), AIDB_OK);
    ck_assert_int_eq(config_set(&config, "compression_level", "-3"), AIDB_OK);
    buffer_clear(&text);
    ck_assert_int_eq(config_sample(&config, &text), AIDB_OK);
    ck_assert_msg(config_parse("sample", buffer_slice(&text), &again) == AIDB_OK, "%s",
                  status_message());
    ck_assert_mem_eq(&again.engine, &config.engine, sizeof config.engine);
    ck_assert_mem_eq(&again.server, &config.server, sizeof config.server);
    for (size_t i = 0; i < setting_count(); i++) {
        char line[80];
        snprintf(line, sizeof line, "%s: ", setting_at(i)->name);
        ck_assert_ptr_nonnull(memmem(text.data, text.size, line, strlen(line)));
    }
    buffer_deinit(&text);
}
END_TEST

static void count_change(void *arg, const Setting *setting)
{
    char *names = arg;
    strcat(names, setting->name);
    strcat(names, " ");
}

START_TEST(differences)
{
    Config running, wanted;
    char names[256] = "";
    ck_assert_int_eq(parse("port: 7000\n", &running), AIDB_OK);
    ck_assert_int_eq(parse("\n\nport: 7000\n", &wanted), AIDB_OK);
    config_diff(&running, &wanted, count_change, names);
    ck_assert_str_eq(names, "");
    ck_assert_int_eq(parse("port: 7001\nlog_level: debug\nlog_file: x\n", &wanted), AIDB_OK);
    config_diff(&running, &wanted, count_change, names);
    ck_assert_str_eq(names, "port log_file log_level ");
    config_take_reloadable(&running, &wanted);
    names[0] = '\0';
    config_diff(&running, &wanted, count_change, names);
    ck_assert_str_eq(names, "port ");
    ck_assert_uint_eq(running.server.log_level, 0);
}
END_TEST

START_TEST(described_lines_have_nine_columns)
{
    Buffer text = {0};
    ck_assert_int_eq(config_describe(&text), AIDB_OK);
    ck_assert_int_eq(buffer_append_byte(&text, 0), AIDB_OK);
    size_t lines = 0;
    for (char *line = (char *)text.data; *line != '\0'; lines++) {
        char *end = strchr(line, '\n');
        size_t tabs = 0;
        for (char *at = line; at < end; at++)
            tabs += *at == '\t';
        ck_assert_uint_eq(tabs, 8);
        line = end + 1;
    }
    ck_assert_uint_eq(lines, setting_count());
    ck_assert_ptr_nonnull(
        strstr((char *)text.data, "memory\tengine\tsize\t512MiB\t8MiB\t16TiB\tbytes\trestart\t"));
    buffer_deinit(&text);
}
END_TEST

START_TEST(shown_with_sources)
{
    Config config;
    Buffer text = {0};
    ck_assert_int_eq(parse("\nport: 7001\n", &config), AIDB_OK);
    ck_assert_int_eq(config_set(&config, "log_level", "error"), AIDB_OK);
    ck_assert_int_eq(config_show(&config, &text), AIDB_OK);
    ck_assert_int_eq(buffer_append_byte(&text, 0), AIDB_OK);
    ck_assert_ptr_nonnull(strstr((char *)text.data, "\nport\t7001\tline 2\trestart\n"));
    ck_assert_ptr_nonnull(strstr((char *)text.data, "\nlog_level\terror\toption\treload\n"));
    ck_assert_ptr_nonnull(strstr((char *)text.data, "\nmemory\t512MiB\tdefault\trestart\n"));
    buffer_deinit(&text);
}
END_TEST

START_TEST(pid_file_locks_and_tells)
{
    const char *base = getenv("TMPDIR");
    char directory[256], path[300];
    snprintf(directory, sizeof directory, "%s/aidb-config-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/" PIDFILE_NAME, directory);

    PidFile file, second;
    PidInfo got;
    bool held = true;
    ck_assert_int_eq(pidfile_read(directory, &got, &held), AIDB_NOT_FOUND);
    ck_assert(!held);
    ck_assert_int_eq(pidfile_lock(directory, &file), AIDB_OK);
    PidInfo info = {.pid = getpid(),
                    .unix_uri = "aidb+unix:/x",
                    .started = 5,
                    .state = "recovering",
                    .version = "1",
                    .crash_restarts = 2};
    ck_assert_int_eq(pidfile_write(&file, &info), AIDB_OK);
    ck_assert_int_eq(pidfile_lock(directory, &second), AIDB_LOCKED);
    ck_assert_ptr_nonnull(strstr(status_text(), "aidb+unix:/x"));
    ck_assert_int_eq(pidfile_read(directory, &got, &held), AIDB_OK);
    ck_assert(held);
    ck_assert_mem_eq(&got, &info, sizeof info);
    memcpy(info.state, "ready", 6); /* shorter than before: nothing of the old text is left */
    ck_assert_int_eq(pidfile_write(&file, &info), AIDB_OK);
    ck_assert_int_eq(pidfile_read(directory, &got, &held), AIDB_OK);
    ck_assert_str_eq(got.state, "ready");
    ck_assert_uint_eq(got.crash_restarts, 2);

    /* A child that lives on keeps the lock. */
    int stop[2];
    ck_assert_int_eq(pipe(stop), 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(stop[1]);
        _exit(read(stop[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(stop[0]);
    pidfile_forget(&file);
    ck_assert_int_eq(pidfile_lock(directory, &second), AIDB_LOCKED);
    close(stop[1]);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert_int_eq(pidfile_lock(directory, &second), AIDB_OK);
    pidfile_release(&second);
    pidfile_release(&second);
    ck_assert_int_ne(access(path, F_OK), 0);

    /* Whose file was replaced by another's leaves that one. */
    ck_assert_int_eq(pidfile_lock(directory, &file), AIDB_OK);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(pidfile_lock(directory, &second), AIDB_OK);
    pidfile_release(&file);
    ck_assert_int_eq(pidfile_lock(directory, &file), AIDB_LOCKED);
    pidfile_release(&second);

    FILE *garbage = fopen(path, "w");
    ck_assert_ptr_nonnull(garbage);
    fputs("no number", garbage);
    fclose(garbage);
    ck_assert_int_eq(pidfile_read(directory, &got, &held), AIDB_OK);
    ck_assert(!held);
    ck_assert_int_eq(got.pid, 0);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(directory), 0);
    ck_assert_int_eq(pidfile_lock(directory, &file), AIDB_NO_DATABASE);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("config");
    tcase_add_test(tests, defaults_are_accepted_and_consistent);
    tcase_add_test(tests, fewer_than_20_engine_settings_and_no_name_twice);
    tcase_add_test(tests, bounds_fit_their_fields);
    tcase_add_loop_test(tests, values_that_are_taken, 0, sizeof GOOD / sizeof GOOD[0]);
    tcase_add_loop_test(tests, values_that_are_refused, 0, sizeof BAD / sizeof BAD[0]);
    tcase_add_test(tests, a_long_text_is_refused);
    tcase_add_test(tests, pairs);
    tcase_add_test(tests, suggestions);
    tcase_add_test(tests, a_file);
    tcase_add_loop_test(tests, empty_files_are_all_defaults, 0, sizeof EMPTY / sizeof EMPTY[0]);
    tcase_add_loop_test(tests, wrong_files_say_where, 0, sizeof WRONG / sizeof WRONG[0]);
    tcase_add_test(tests, hints_survive);
    tcase_add_test(tests, any_bytes_are_read_or_refused);
    tcase_add_test(tests, too_large_a_file);
    tcase_add_test(tests, the_sample_reads_back);
    tcase_add_test(tests, differences);
    tcase_add_test(tests, described_lines_have_nine_columns);
    tcase_add_test(tests, shown_with_sources);
    tcase_add_test(tests, pid_file_locks_and_tells);

    Suite *suite = suite_create("config");
    suite_add_tcase(suite, tests);
    return test_run(suite);
}
