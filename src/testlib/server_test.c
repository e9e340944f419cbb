/*
 * server_test.c - the server as its clients see it: requests, limits, bad bytes, crashes, stopping.
 *
 * Each test has a server of its own: a forked child runs the postmaster on a temporary directory. It
 * is asked to stop when the test ends, and stops by itself (PDEATHSIG) when the test process dies.
 */
#include "config.h"

#include "client/client.h"
#include "config/pidfile.h"
#include "config/settings.h"
#include "engine/db/db.h"
#include "io/io.h"
#include "postmaster/postmaster.h"
#include "testlib/testlib.h"

#include <aidb.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 60000 /* far beyond what anything takes: only to end a test that hangs */

static char *directory;
static Config config;
static pid_t server;
static char unix_uri[256];
static char tcp_uri[320];

/* ---- the server ------------------------------------------------------------------------------ */

static void nap(void)
{
    usleep(5000);
}

static PidInfo pid_info(void)
{
    PidInfo info;
    bool held;
    if (pidfile_read(directory, &info, &held) != AIDB_OK || !held)
        memset(&info, 0, sizeof info);
    return info;
}

static void write_config(void)
{
    Buffer text = {0};
    char *path = path_join(directory, CONFIG_FILE_NAME);
    ck_assert_int_eq(config_sample(&config, &text), AIDB_OK);
    ck_assert_int_eq(file_replace(path, text.data, text.size, 0600), AIDB_OK);
    buffer_deinit(&text);
    free(path);
}

static uint32_t free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static pid_t launch(void)
{
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGINT);
    if (getppid() != parent)
        _exit(9);
    char *path = path_join(directory, "stderr");
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDERR_FILENO);
    _exit(postmaster_run(directory));
}

static void wait_ready(void)
{
    for (int waited = 0; pid_info().pid != server || strcmp(pid_info().state, "ready") != 0;
         waited += 5) {
        ck_assert_msg(waitpid(server, NULL, WNOHANG) == 0, "the server did not start");
        ck_assert_int_lt(waited, WAIT_MS);
        nap();
    }
}

static void start(void)
{
    server = launch();
    wait_ready();
    PidInfo info = pid_info();
    memcpy(unix_uri, info.unix_uri, sizeof unix_uri);
    memcpy(tcp_uri, info.tcp_uri, sizeof tcp_uri);
}

/* Sends the signal and returns the exit code. */
static int stop(int signal_number)
{
    int status;
    kill(server, signal_number);
    ck_assert_int_eq(waitpid(server, &status, 0), server);
    server = 0;
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void prepare(void)
{
    directory = test_directory_create();
    config_init(&config);
    config.engine.memory = 48u << 20;
    config.engine.batch_max = 8u << 20;
    config.engine.wal_segment_size = 1u << 20;
    config.engine.wal_ring_size = 1u << 20;
    config.engine.durability = AIDB_OS; /* no test here depends on the disk */
    config.server.port = free_port();
    config.server.max_connections = 12;
    config.server.admin_reserved_connections = 2;
    ck_assert_msg(db_create(directory, &config.engine) == AIDB_OK, "%s", status_text());
    write_config();
}

static void setup(void)
{
    prepare();
    start();
}

static void teardown(void)
{
    if (server != 0)
        ck_assert_int_eq(stop(SIGINT), 0);
    test_directory_destroy(directory);
}

/* Children by the order in which they were begun: titles do not exist in a forked test. */
static pid_t nth_child(int wanted)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)server, (int)server);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    int pid = 0;
    for (int i = 0; i <= wanted; i++)
        if (fscanf(file, "%d", &pid) != 1)
            pid = 0;
    fclose(file);
    return pid;
}

/* ---- clients --------------------------------------------------------------------------------- */

static Client *connect_to(const char *uri)
{
    const ClientOptions options = {.application = "test", .connect_timeout_ms = WAIT_MS};
    Client *client;
    ck_assert_msg(client_connect(uri, &options, &client) == AIDB_OK, "%s", status_text());
    return client;
}

static Status refused_by(const char *uri)
{
    const ClientOptions options = {.connect_timeout_ms = WAIT_MS};
    Client *client;
    Status status = client_connect(uri, &options, &client);
    client_close(client);
    return status;
}

static void call(Client *client, Message *request, uint8_t type, Message *reply)
{
    ck_assert_msg(client_send(client, request) == AIDB_OK, "%s", status_text());
    ck_assert_msg(client_receive(client, reply) == AIDB_OK, "%s", status_text());
    ck_assert_uint_eq(reply->id, request->id);
    ck_assert_msg(reply->type == type, "%s: %.*s", message_type_name(reply->type),
                  (int)reply->text.size, (const char *)reply->text.data);
}

static void send_put(Client *client, const char *key, Slice value)
{
    Batch batch = {0};
    ck_assert_int_eq(batch_put(&batch, slice_from_string(key), value), AIDB_OK);
    Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&batch.ops)};
    ck_assert_msg(client_send(client, &write) == AIDB_OK, "%s", status_text());
    batch_deinit(&batch);
}

static uint64_t put(Client *client, const char *key, const char *value)
{
    Message reply;
    send_put(client, key, slice_from_string(value));
    ck_assert_msg(client_receive(client, &reply) == AIDB_OK, "%s", status_text());
    ck_assert_uint_eq(reply.type, MESSAGE_COMMIT);
    ck_assert_uint_eq(reply.status, AIDB_OK);
    return reply.lsn;
}

static bool has(Client *client, const char *key, const char *value)
{
    Message request = {.type = MESSAGE_GET, .key = slice_from_string(key)}, reply;
    call(client, &request, MESSAGE_VALUE, &reply);
    return reply.version != 0 && slice_equal(reply.value, slice_from_string(value));
}

static int connect_raw(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, unix_uri + strlen("aidb+unix:"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Reads until the server closes, which it must. */
static void drain(int fd)
{
    char bytes[4096];
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof bytes, 0)) > 0)
        ;
    ck_assert(got == 0 || errno == ECONNRESET);
}

static void assert_untouched(void)
{
    ck_assert_int_eq(pid_info().crash_restarts, 0);
    Client *client = connect_to(unix_uri);
    put(client, "still", "here");
    ck_assert(has(client, "still", "here"));
    client_close(client);
}

/* ---- requests -------------------------------------------------------------------------------- */

START_TEST(ten_thousand_pipelined_requests)
{
    enum { COUNT = 10000 };
    Client *client = connect_to(_i == 0 ? unix_uri : tcp_uri);
    static uint64_t lsns[COUNT];
    char key[32], value[32];
    Message reply;
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "key %05d", i);
        snprintf(value, sizeof value, "value %d", i);
        send_put(client, key, slice_from_string(value));
    }
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.type, MESSAGE_COMMIT);
        ck_assert_uint_eq(reply.id, 2 + (uint64_t)i);
        lsns[i] = reply.lsn;
        ck_assert(i == 0 || lsns[i] > lsns[i - 1]);
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "key %05d", i);
        Message get = {.type = MESSAGE_GET, .key = slice_from_string(key)};
        ck_assert_int_eq(client_send(client, &get), AIDB_OK);
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(value, sizeof value, "value %d", i);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.version, lsns[i]); /* also for writes that were put together */
        ck_assert(slice_equal(reply.value, slice_from_string(value)));
        ck_assert_uint_ge(reply.lsn, lsns[COUNT - 1]);
    }
    client_close(client);
}
END_TEST

/* A client reads its own writes, whatever is gathered. */
START_TEST(order_in_a_pipeline)
{
    Client *client = connect_to(unix_uri);
    Message reply;
    char value[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof value, "%d", i);
        send_put(client, "k", slice_from_string(value));
        Message get = {.type = MESSAGE_GET, .key = slice_from_string("k")};
        ck_assert_int_eq(client_send(client, &get), AIDB_OK);
    }
    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof value, "%d", i);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert(slice_equal(reply.value, slice_from_string(value)));
    }
    client_close(client);
}
END_TEST

START_TEST(bad_requests_are_answered)
{
    Client *client = connect_to(unix_uri);
    Message reply;
    const Message wrong[] = {
        {.type = MESSAGE_GET, .snapshot = 12345, .key = slice_from_string("k")},
        {.type = MESSAGE_GET},
        {.type = MESSAGE_WRITE, .ops = slice_from_string("\x09garbage")},
        {.type = MESSAGE_WRITE, .durability = 9, .ops = slice_make("\x01\x01k\x01v", 5)},
        {.type = MESSAGE_WRITE,
         .ops = slice_make("\x01\x01k\x01v", 5),
         .expectations = slice_from_string("\x07")},
        {.type = MESSAGE_MULTI_GET, .count = 2, .row = slice_make("\x01k", 2)},
        {.type = MESSAGE_SCAN, .flags = 0x80},
        {.type = MESSAGE_RELEASE, .lsn = 5},
        {.type = MESSAGE_RELEASE},
        {.type = MESSAGE_PROPERTY, .name = slice_from_string("no such thing")},
        {.type = MESSAGE_CONTROL, .name = slice_from_string("dance")},
        {.type = MESSAGE_CONTROL, .name = slice_from_string("terminate x")},
        {.type = MESSAGE_CONTROL, .name = slice_from_string("terminate 999")},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        Message request = wrong[i];
        call(client, &request, MESSAGE_ERROR, &reply);
        ck_assert_uint_gt(reply.text.size, 0);
        ck_assert(reply.status == AIDB_INVALID || reply.status == AIDB_PROTOCOL);
    }
    ck_assert_uint_gt(put(client, "k", "v"), 0);
    ck_assert(has(client, "k", "v"));
    client_close(client);
}
END_TEST

static uint64_t count_rows(const Message *chunk)
{
    size_t cursor = 0;
    uint64_t rows = 0, lsn;
    Slice key, value;
    bool damaged;
    while (entry_row_next(chunk->row, &cursor, &key, &value, &lsn, &damaged))
        rows++;
    ck_assert(!damaged);
    return rows;
}

START_TEST(scans_stop_without_credits)
{
    Client *client = connect_to(unix_uri);
    char key[32];
    Message reply;
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "%04d", i);
        send_put(client, key, slice_from_string("v"));
    }
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);

    Message scan = {.type = MESSAGE_SCAN, .rows = 100, .credits = 2};
    ck_assert_int_eq(client_send(client, &scan), AIDB_OK);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.type, MESSAGE_CHUNK);
        ck_assert_uint_eq(reply.flags, 0);
        ck_assert_uint_eq(count_rows(&reply), 100);
    }
    uint64_t at = reply.lsn;
    put(client, "0500", "later"); /* is answered: no chunk comes before it */
    put(client, "05001", "not seen by the scan");
    uint64_t rows = 200;
    do {
        Message ping = {.type = MESSAGE_PING};
        call(client, &ping, MESSAGE_DONE, &reply);
        Message credit = {.type = MESSAGE_SCAN_MORE, .credits = 1};
        credit.id = scan.id; /* it names the scan */
        ck_assert_int_eq(client_send(client, &credit), AIDB_OK);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ck_assert_uint_eq(reply.type, MESSAGE_CHUNK);
        ck_assert_uint_eq(reply.lsn, at);
        rows += count_rows(&reply);
    } while ((reply.flags & CHUNK_LAST) == 0);
    ck_assert_uint_eq(rows, 1000);
    client_close(client);
}
END_TEST

/* A client that asks for much and reads nothing: bounded memory, and nobody else waits. */
START_TEST(slow_reader)
{
    enum { VALUE = 2 << 20, GETS = 100 };
    Client *client = connect_to(unix_uri), *other = connect_to(unix_uri);
    char *value = calloc(1, VALUE);
    Message reply;
    send_put(client, "big", slice_make(value, VALUE));
    ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
    free(value);
    for (int i = 0; i < GETS; i++) {
        Message get = {.type = MESSAGE_GET, .key = slice_from_string("big")};
        ck_assert_int_eq(client_send(client, &get), AIDB_OK);
    }
    ck_assert_int_eq(client_flush(client), AIDB_OK);
    for (int i = 0; i < 100; i++)
        put(other, "k", "v");
    for (int i = 0; i < GETS; i++) {
        ck_assert_msg(client_receive(client, &reply) == AIDB_OK, "%s", status_text());
        ck_assert_uint_eq(reply.value.size, VALUE);
    }
    client_close(client);
    client_close(other);
}
END_TEST

START_TEST(idle_cancel_requests_do_nothing)
{
    Client *client = connect_to(unix_uri);
    for (int i = 0; i < 20; i++) {
        client_cancel(client);
        put(client, "k", "v"); /* may be interrupted at worst in a wait, of which there is none */
    }
    client_close(client);
    assert_untouched();
}
END_TEST

/* ---- the public API over a server ------------------------------------------------------------ */

typedef struct Answers {
    int count;
    aidb_status last;
} Answers;

static void on_answer(void *arg, aidb_status status, const aidb_value *value,
                      const aidb_commit *commit)
{
    Answers *answers = arg;
    (void)value;
    (void)commit;
    answers->count++;
    answers->last = status;
}

START_TEST(the_api_over_a_server)
{
    aidb *db;
    const aidb_option options[] = {
        {"application", "api test"}, {"connect_timeout", "30s"}, {NULL, NULL}};
    ck_assert_msg(aidb_open(_i == 0 ? unix_uri : tcp_uri, options, &db) == AIDB_OK, "%s",
                  aidb_error_message());
    aidb_value value = {0};
    ck_assert_int_eq(aidb_get(db, NULL, "a", 1, &value), AIDB_NOT_FOUND);
    ck_assert_int_eq(aidb_put(db, "a", 1, "1", 1), AIDB_OK);
    ck_assert_int_eq(aidb_put(db, "b", 1, "", 0), AIDB_OK);
    ck_assert_int_eq(aidb_get(db, NULL, "b", 1, &value), AIDB_OK);
    ck_assert_uint_eq(value.size, 0);
    ck_assert_uint_ne(value.lsn, 0);

    aidb_snapshot *snapshot;
    ck_assert_int_eq(aidb_snapshot_create(db, &snapshot), AIDB_OK);
    aidb_batch *batch = aidb_batch_create();
    aidb_commit commit;
    ck_assert_int_eq(aidb_batch_put(batch, "c", 1, "3", 1), AIDB_OK);
    ck_assert_int_eq(aidb_batch_delete(batch, "a", 1), AIDB_OK);
    ck_assert_int_eq(aidb_batch_expect(batch, "b", 1, AIDB_EXPECT_VERSION, value.lsn), AIDB_OK);
    ck_assert_int_eq(aidb_write(db, batch, AIDB_FSYNC, &commit), AIDB_OK);
    ck_assert_int_eq(aidb_batch_expect(batch, "a", 1, AIDB_EXPECT_PRESENT, 0), AIDB_OK);
    ck_assert_int_eq(aidb_write(db, batch, AIDB_DEFAULT, &commit), AIDB_EXPECTATION);
    ck_assert_uint_eq(commit.failed_expectation, 1);
    ck_assert_uint_eq(commit.present_version, 0);

    const aidb_key keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
    aidb_value values[3] = {0};
    ck_assert_int_eq(aidb_multi_get(db, snapshot, 3, keys, values), AIDB_OK);
    ck_assert(values[0].lsn != 0 && values[1].lsn != 0 && values[2].lsn == 0);
    ck_assert_int_eq(aidb_multi_get(db, NULL, 3, keys, values), AIDB_OK);
    ck_assert(values[0].lsn == 0 && values[1].lsn != 0 && values[2].lsn != 0);

    aidb_iter *iter;
    const aidb_entry *entry;
    ck_assert_int_eq(aidb_iter_create(db, snapshot, NULL, &iter), AIDB_OK);
    ck_assert_int_eq(aidb_iter_next(iter, &entry), AIDB_OK);
    ck_assert_mem_eq(entry->key, "a", 1);
    ck_assert_int_eq(aidb_iter_seek(iter, AIDB_SEEK_LE, "zzz", 3, &entry), AIDB_OK);
    ck_assert_mem_eq(entry->key, "b", 1);
    ck_assert_int_eq(aidb_iter_next(iter, &entry), AIDB_OK);
    ck_assert_ptr_null(entry);
    ck_assert_int_eq(aidb_iter_prev(iter, &entry), AIDB_OK);
    ck_assert_mem_eq(entry->key, "b", 1);
    aidb_iter_destroy(iter);

    uint64_t count = 0, bytes = 0;
    ck_assert_int_eq(aidb_measure(db, NULL, NULL, &count, &bytes), AIDB_OK);
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(aidb_measure(db, snapshot, &(aidb_range){{"b", 1}, {NULL, 0}}, &count, NULL),
                     AIDB_OK);
    ck_assert_uint_eq(count, 1);
    aidb_snapshot_destroy(snapshot);

    char *text;
    ck_assert_int_eq(aidb_property(db, "backends", &text), AIDB_OK);
    ck_assert_ptr_nonnull(strstr(text, "api test"));
    aidb_free(text);
    ck_assert_int_eq(aidb_property(db, "nonsense", &text), AIDB_INVALID);
    ck_assert_int_eq(aidb_control(db, "flush", NULL), AIDB_OK);
    ck_assert_int_eq(aidb_control(db, "compact", NULL), AIDB_OK);

    Answers answers = {0};
    for (int i = 0; i < 500; i++) {
        aidb_request request = {.done = on_answer, .arg = &answers};
        if (i % 2 == 0)
            request.key = (aidb_key){"c", 1};
        else
            request.batch = batch;
        ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    }
    ck_assert_int_eq(aidb_wait(db, 0), AIDB_OK);
    ck_assert_int_eq(answers.count, 500);
    ck_assert_int_eq(answers.last, AIDB_EXPECTATION);
    aidb_batch_destroy(batch);

    pid_t child = fork();
    if (child == 0) {
        bool closed = aidb_put(db, "x", 1, "x", 1) == AIDB_CLOSED;
        aidb_close(db);
        _exit(closed ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(aidb_get(db, NULL, "c", 1, &value), AIDB_OK); /* the child has not hurt it */
    aidb_free(value.data);
    for (int i = 0; i < 3; i++)
        aidb_free(values[i].data);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
    ck_assert_int_eq(aidb_open(unix_uri, (aidb_option[]){{"create", "true"}, {NULL, NULL}}, &db),
                     AIDB_INVALID);
    ck_assert_int_eq(aidb_open(directory, NULL, &db), AIDB_LOCKED);
    ck_assert_ptr_nonnull(strstr(aidb_error_message(), unix_uri));
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* The most memory that this process had since the last call, in KiB. */
static long peak_memory(void)
{
    char line[128];
    long peak = 0;
    FILE *file = fopen("/proc/self/status", "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "VmHWM: %ld", &peak);
    fclose(file);
    file = fopen("/proc/self/clear_refs", "w");
    if (file != NULL) {
        fputs("5", file);
        fclose(file);
    }
    return peak;
}

static void on_value(void *arg, aidb_status status, const aidb_value *value,
                     const aidb_commit *commit)
{
    (void)commit;
    ck_assert_int_eq(status, AIDB_OK);
    *(uint64_t *)arg += value->size;
}

/* A program that only submits: replies are handed to it, and do not pile up in the library. */
START_TEST(replies_do_not_pile_up)
{
    enum { REQUESTS = 4000, VALUE = 96 << 10 };
    aidb *db;
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &db), AIDB_OK);
    char key[100];
    uint8_t *bytes = calloc(1, VALUE);
    memset(key, 'k', sizeof key);
    ck_assert_int_eq(aidb_put(db, key, sizeof key, bytes, VALUE), AIDB_OK);
    free(bytes);
    uint64_t got = 0;
    (void)peak_memory();
    long before = peak_memory();
    for (int i = 0; i < REQUESTS; i++) {
        aidb_request request = {.key = {key, sizeof key}, .done = on_value, .arg = &got};
        ck_assert_int_eq(aidb_submit(db, &request), AIDB_OK);
    }
    ck_assert_int_eq(aidb_wait(db, 0), AIDB_OK);
    ck_assert_int_lt(peak_memory() - before, 10 << 10);
    ck_assert_uint_eq(got, (uint64_t)REQUESTS * VALUE);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
}
END_TEST
#endif

START_TEST(an_iterator_walks_many_chunks)
{
    enum { COUNT = 3000 };
    aidb *db;
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &db), AIDB_OK);
    aidb_batch *batch = aidb_batch_create();
    char key[16], value[200];
    memset(value, 'v', sizeof value);
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "%06d", i * 2);
        ck_assert_int_eq(aidb_batch_put(batch, key, 6, value, sizeof value), AIDB_OK);
    }
    ck_assert_int_eq(aidb_write(db, batch, AIDB_ASYNC, NULL), AIDB_OK);
    aidb_batch_destroy(batch);
    uint64_t seed = test_seed("server_test"), state = seed | 1;
    aidb_iter *iter;
    const aidb_entry *entry;
    ck_assert_int_eq(aidb_iter_create(db, NULL, NULL, &iter), AIDB_OK);
    int at = -1; /* index of the entry, -1 before the first, COUNT behind the last */
    for (int step = 0; step < 30000; step++) {
        uint64_t what = test_random_below(&state, 1000);
        if (what < 4) {
            int target = (int)test_random_below(&state, 2 * COUNT + 2) - 1;
            snprintf(key, sizeof key, "%06d", target < 0 ? 0 : target);
            bool up = what < 2;
            at = up ? (target + 1) / 2 : target / 2;
            if (target < 0)
                at = 0;
            if (!up && at >= COUNT)
                at = COUNT - 1;
            ck_assert_int_eq(aidb_iter_seek(iter, up ? AIDB_SEEK_GE : AIDB_SEEK_LE, key, 6, &entry),
                             AIDB_OK);
        } else if (what < 4 + (step / 3000 % 2 == 0 ? 900 : 96)) {
            at = at < COUNT ? at + 1 : COUNT;
            ck_assert_int_eq(aidb_iter_next(iter, &entry), AIDB_OK);
        } else {
            at = step == 0 ? COUNT - 1 : at >= 0 ? at - 1 : -1;
            ck_assert_int_eq(aidb_iter_prev(iter, &entry), AIDB_OK);
        }
        if (at < 0 || at >= COUNT) {
            ck_assert_ptr_null(entry);
        } else {
            snprintf(key, sizeof key, "%06d", at * 2);
            ck_assert_ptr_nonnull(entry);
            ck_assert_mem_eq(entry->key, key, 6);
            ck_assert_uint_eq(entry->value_size, sizeof value);
        }
    }
    aidb_iter_destroy(iter);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
}
END_TEST

/* ---- bad bytes ------------------------------------------------------------------------------- */

/* A short conversation as bytes. */
static void record(Buffer *bytes)
{
    const Message messages[] = {
        {.type = MESSAGE_HELLO,
         .id = 1,
         .version = 1,
         .version_max = 1,
         .name = slice_from_string("x")},
        {.type = MESSAGE_WRITE, .id = 2, .ops = slice_make("\x01\x01k\x01v", 5)},
        {.type = MESSAGE_GET, .id = 3, .key = slice_from_string("k")},
        {.type = MESSAGE_MULTI_GET, .id = 4, .count = 1, .row = slice_make("\x01k", 2)},
        {.type = MESSAGE_SCAN, .id = 5, .rows = 1, .credits = 1},
        {.type = MESSAGE_MEASURE, .id = 6, .flags = 3},
        {.type = MESSAGE_SNAPSHOT, .id = 7},
        {.type = MESSAGE_PROPERTY, .id = 8, .name = slice_from_string("status")},
    };
    ck_assert_int_eq(buffer_append(bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE), AIDB_OK);
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
        ck_assert_int_eq(message_encode(bytes, &messages[i]), AIDB_OK);
}

static void send_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t put_size = send(fd, bytes, size, MSG_NOSIGNAL);
        if (put_size <= 0)
            return; /* the server has closed, as it may */
        bytes += put_size;
        size -= (size_t)put_size;
    }
}

START_TEST(a_conversation_cut_at_every_byte)
{
    Buffer bytes = {0};
    record(&bytes);
    for (size_t size = 0; size <= bytes.size; size++) {
        int fd = connect_raw();
        send_all(fd, bytes.data, size);
        shutdown(fd, SHUT_WR);
        drain(fd);
        close(fd);
    }
    buffer_deinit(&bytes);
    assert_untouched();
}
END_TEST

/* The last request and the end of the connection reach the server as one. */
START_TEST(a_request_and_goodbye)
{
    Buffer bytes = {0};
    uint8_t reply[4096];
    const Message hello = {.type = MESSAGE_HELLO,
                           .id = 1,
                           .version = 1,
                           .version_max = 1,
                           .name = slice_from_string("x")};
    const Message ping = {.type = MESSAGE_PING, .id = 2};
    ck_assert_int_eq(buffer_append(&bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE), AIDB_OK);
    ck_assert_int_eq(message_encode(&bytes, &hello), AIDB_OK);
    int fd = connect_raw();
    send_all(fd, bytes.data, bytes.size);
    ck_assert_int_gt(recv(fd, reply, sizeof reply, 0), 0);
    bytes.size = 0;
    ck_assert_int_eq(message_encode(&bytes, &ping), AIDB_OK);
    for (int i = 3; nth_child(i) != 0; i++)
        kill(nth_child(i), SIGSTOP);
    send_all(fd, bytes.data, bytes.size);
    shutdown(fd, SHUT_WR);
    for (int i = 3; nth_child(i) != 0; i++)
        kill(nth_child(i), SIGCONT);
    drain(fd);
    close(fd);
    buffer_deinit(&bytes);
    assert_untouched();
}
END_TEST

/* statement_timeout holds for a client that has long stopped taking replies when it is set. */
START_TEST(a_new_limit_for_who_does_not_read)
{
    enum { VALUE = 1 << 20, GETS = 40 };
    Client *client = connect_to(unix_uri);
    char *value = calloc(1, VALUE);
    Message reply;
    send_put(client, "big", slice_make(value, VALUE));
    ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
    free(value);
    client_close(client);
    Buffer bytes = {0};
    const Message hello = {.type = MESSAGE_HELLO,
                           .id = 1,
                           .version = 1,
                           .version_max = 1,
                           .name = slice_from_string("x")};
    ck_assert_int_eq(buffer_append(&bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE), AIDB_OK);
    ck_assert_int_eq(message_encode(&bytes, &hello), AIDB_OK);
    for (uint64_t id = 2; id < 2 + GETS; id++) {
        Message get = {.type = MESSAGE_GET, .id = id, .key = slice_from_string("big")};
        ck_assert_int_eq(message_encode(&bytes, &get), AIDB_OK);
    }
    int fd = connect_raw();
    send_all(fd, bytes.data, bytes.size);
    buffer_deinit(&bytes);
    usleep(300000); /* it stands still by now; if not, the test proves less */
    config.server.statement_timeout = 500;
    write_config();
    kill(server, SIGHUP);
    struct pollfd gone = {.fd = fd, .events = POLLRDHUP};
    ck_assert_int_eq(poll(&gone, 1, WAIT_MS), 1);
    close(fd);
    assert_untouched();
}
END_TEST

START_TEST(mutated_conversations)
{
    uint64_t state = test_seed("server_test") | 1;
    Buffer bytes = {0};
    record(&bytes);
    for (int round = 0; round < 1500; round++) {
        uint8_t copy[1024];
        ck_assert_uint_le(bytes.size, sizeof copy);
        memcpy(copy, bytes.data, bytes.size);
        /* Most rounds leave the greeting alone, so that the requests are read. */
        size_t from = round % 8 == 0 ? 0 : 40;
        for (uint64_t n = 1 + test_random_below(&state, 4); n > 0; n--)
            copy[from + test_random_below(&state, bytes.size - from)] =
                (uint8_t)test_random(&state);
        int fd = connect_raw();
        send_all(fd, copy, bytes.size);
        shutdown(fd, SHUT_WR);
        drain(fd);
        close(fd);
    }
    buffer_deinit(&bytes);
    assert_untouched();
}
END_TEST

static const struct {
    const char *bytes;
    size_t size;
} GARBAGE[] = {
    {"", 0},
    {"A", 1},
    {"GET / HTTP/1.1\r\n\r\n", 18},
    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11},
    {"AiDb\xff\xff\xff\xff", 8},
    {"AiDb\x00\x00\x00\x80", 8},
    {"AiDb\x01\x28\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
     20}, /* 10 KiB and one */
    {"AiDb\x00\x00\x00\x00\x10\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", 20}, /* GET first */
    {"AiDb\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", 20}, /* empty HELLO */
    {"AiDb\x10\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
     "\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
     36}, /* CANCEL, wrong secret */
    {"AiDb\x0a\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"
     "\x09\x00\x0a\x00\x00\x00\x00\x00\x00\x00",
     30}, /* versions 9 to 10 */
};

START_TEST(garbage_is_refused)
{
    int fd = connect_raw();
    send_all(fd, (const uint8_t *)GARBAGE[_i].bytes, GARBAGE[_i].size);
    shutdown(fd, SHUT_WR);
    drain(fd);
    close(fd);
    assert_untouched();
}
END_TEST

START_TEST(half_greetings_hold_up_nobody)
{
    enum { COUNT = 200 };
    int held[COUNT];
    for (int i = 0; i < COUNT; i++) {
        held[i] = connect_raw();
        send_all(held[i], (const uint8_t *)"AiDb\x0a\x00", 6);
    }
    assert_untouched();
    for (int i = 0; i < COUNT; i++) /* cut at authentication_timeout, which the fixture lowers */
        drain(held[i]);
    for (int i = 0; i < COUNT; i++)
        close(held[i]);
    assert_untouched();
}
END_TEST

/* ---- limits ---------------------------------------------------------------------------------- */

START_TEST(connections_are_limited_and_some_reserved)
{
    Client *clients[12];
    for (int i = 0; i < 10; i++)
        clients[i] = connect_to(tcp_uri);
    ck_assert_int_eq(refused_by(tcp_uri), AIDB_LIMIT);
    ck_assert_ptr_nonnull(strstr(status_text(), "reserved"));
    clients[10] = connect_to(unix_uri);
    clients[11] = connect_to(unix_uri);
    ck_assert_int_eq(refused_by(unix_uri), AIDB_LIMIT);
    for (int i = 0; i < 12; i++)
        client_close(clients[i]);
    for (int waited = 0; refused_by(tcp_uri) != AIDB_OK; waited += 5) {
        ck_assert_int_lt(waited, WAIT_MS);
        nap();
    }
}
END_TEST

START_TEST(sizes_at_their_limits)
{
    Client *client = connect_to(unix_uri);
    Message reply;
    char *big = calloc(1, AIDB_KEY_MAX + 2);
    memset(big, 'k', AIDB_KEY_MAX + 1);
    for (size_t size = AIDB_KEY_MAX - 1; size <= AIDB_KEY_MAX + 1; size++) {
        Message get = {.type = MESSAGE_GET, .key = slice_make(big, size)};
        call(client, &get, size <= AIDB_KEY_MAX ? MESSAGE_VALUE : MESSAGE_ERROR, &reply);
    }
    free(big);
    /* A batch above batch_max is refused by name; the connection goes on. */
    size_t size = (size_t)config.engine.batch_max + 1;
    big = calloc(1, size);
    send_put(client, "big", slice_make(big, size));
    ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
    ck_assert_uint_eq(reply.type, MESSAGE_ERROR);
    ck_assert_uint_eq(reply.status, AIDB_LIMIT);
    free(big);
    Message snapshot = {.type = MESSAGE_SNAPSHOT};
    for (int i = 0; i < SLOT_SNAPSHOTS; i++)
        call(client, &snapshot, MESSAGE_DONE, &reply);
    call(client, &snapshot, MESSAGE_ERROR, &reply);
    ck_assert_uint_eq(reply.status, AIDB_LIMIT);
    put(client, "k", "v");
    client_close(client);
}
END_TEST

/* ---- crashes --------------------------------------------------------------------------------- */

/* Children in the order of their slots: WAL writer, flusher, compactor, backend. */
START_TEST(a_killed_child)
{
    Client *client = connect_to(unix_uri);
    uint64_t lsn = put(client, "before", "kept");
    pid_t victim = nth_child(_i);
    ck_assert_int_gt(victim, 0);
    ck_assert_int_eq(kill(victim, SIGKILL), 0);
    Message reply;
    Status status = AIDB_OK;
    while (status == AIDB_OK) { /* until it notices */
        Message ping = {.type = MESSAGE_PING};
        status = client_send(client, &ping);
        if (status == AIDB_OK)
            status = client_receive(client, &reply);
    }
    ck_assert_int_eq(status, AIDB_CONNECTION);
    client_close(client);
    for (int waited = 0; pid_info().crash_restarts != 1 || strcmp(pid_info().state, "ready") != 0;
         waited += 5) {
        ck_assert_int_lt(waited, WAIT_MS);
        nap();
    }
    client = connect_to(unix_uri);
    Message get = {.type = MESSAGE_GET, .key = slice_from_string("before")};
    call(client, &get, MESSAGE_VALUE, &reply);
    ck_assert_uint_eq(reply.version, lsn);
    ck_assert_uint_gt(put(client, "after", "new"), lsn);
    client_close(client);
}
END_TEST

/* Clients of the other processes are told why their connections end. */
START_TEST(the_reason_is_told)
{
    Client *client = connect_to(_i == 0 ? unix_uri : tcp_uri);
    uint64_t lsn = put(client, "k", "v");
    ck_assert_int_eq(kill(nth_child(0), SIGKILL), 0);
    Message reply;
    ck_assert_int_eq(client_receive(client, &reply), AIDB_CONNECTION);
    ck_assert_ptr_nonnull(strstr(status_message(), "a crash of another process"));
    client_close(client);
    for (int waited = 0; pid_info().crash_restarts != 1 || strcmp(pid_info().state, "ready") != 0;
         waited += 5) {
        ck_assert_int_lt(waited, WAIT_MS);
        nap();
    }
    client = connect_to(_i == 0 ? unix_uri : tcp_uri);
    ck_assert(has(client, "k", "v"));
    ck_assert_uint_gt(put(client, "k", "w"), lsn);
    ck_assert_int_eq(stop(SIGQUIT), 0);
    ck_assert_int_eq(client_receive(client, &reply), AIDB_CONNECTION);
    ck_assert_ptr_nonnull(strstr(status_message(), "stopped at once"));
    client_close(client);
}
END_TEST

/* ---- interrupts ------------------------------------------------------------------------------ */

#define MANY_ROWS 100000u

static void put_many(Client *client, uint32_t rows)
{
    for (uint32_t i = 0; i < rows;) {
        Batch batch = {0};
        do {
            char key[16];
            snprintf(key, sizeof key, "%08u", i++);
            ck_assert_int_eq(batch_put(&batch, slice_from_string(key), slice_make("v", 1)),
                             AIDB_OK);
        } while (i % 1000 != 0);
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&batch.ops)}, reply;
        call(client, &write, MESSAGE_COMMIT, &reply);
        batch_deinit(&batch);
    }
}

/* The request that runs is given up, the ones behind it are not. */
START_TEST(a_running_request_is_canceled)
{
    Client *client = connect_to(unix_uri);
    put_many(client, MANY_ROWS);
    Message count = {.type = MESSAGE_MEASURE, .flags = MEASURE_COUNT}, reply;
    bool canceled = false;
    int ahead = 0;
    while (!canceled) {
        for (; ahead < 20; ahead++) {
            ck_assert_int_eq(client_send(client, &count), AIDB_OK);
            ck_assert_int_eq(client_flush(client), AIDB_OK);
        }
        client_cancel(client);
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        ahead--;
        canceled = reply.type == MESSAGE_ERROR;
        if (canceled)
            ck_assert_uint_eq(reply.status, AIDB_CANCELED);
        else
            ck_assert_uint_eq(reply.count, MANY_ROWS);
    }
    for (; ahead > 0; ahead--) /* those behind; a cancel request may still have been on its way */
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
    call(client, &count, MESSAGE_MEASURED, &reply);
    ck_assert_uint_eq(reply.count, MANY_ROWS);
    ck_assert(has(client, "00000007", "v"));
    client_close(client);
}
END_TEST

/* What takes longer than allowed is given up, when somebody gets round to looking at the time: one of a
 * hundred counts at least. */
START_TEST(requests_run_out_of_time)
{
    uint32_t rows = 5 * MANY_ROWS;
    Client *client = connect_to(unix_uri), *other;
    put_many(client, rows);
    client_close(client);
    ck_assert_int_eq(stop(SIGINT), 0);
    config.server.statement_timeout = 1;
    write_config();
    start();
    client = connect_to(unix_uri);
    other = connect_to(unix_uri);
    Message count = {.type = MESSAGE_MEASURE, .flags = MEASURE_COUNT}, reply;
    for (int round = 0, timed_out = 0; timed_out < 2; round++) {
        ck_assert_int_lt(round, 100);
        ck_assert_int_eq(client_send(client, &count), AIDB_OK);
        ck_assert_int_eq(client_flush(client), AIDB_OK);
        ck_assert(has(other, "00000007", "v")); /* nobody else is out of time */
        ck_assert_int_eq(client_receive(client, &reply), AIDB_OK);
        if (reply.type == MESSAGE_ERROR) {
            ck_assert_uint_eq(reply.status, AIDB_TIMEOUT);
            timed_out++;
        } else {
            ck_assert_uint_eq(reply.count, rows);
        }
        ck_assert(has(client, "00000008", "v"));
    }
    client_close(client);
    client_close(other);
}
END_TEST

typedef struct Writer {
    Client *client;
    pthread_t thread;
    _Atomic uint32_t written;
    _Atomic bool enough;
    Status status;
} Writer;

static void *write_much(void *arg)
{
    Writer *writer = arg;
    static uint8_t value[8 << 10];
    while (writer->status == AIDB_OK && !atomic_load(&writer->enough)) {
        char key[16];
        Batch batch = {0};
        Message reply;
        snprintf(key, sizeof key, "%08u", atomic_load(&writer->written));
        writer->status = batch_put(&batch, slice_from_string(key), slice_make(value, sizeof value));
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&batch.ops)};
        if (writer->status == AIDB_OK)
            writer->status = client_send(writer->client, &write);
        if (writer->status == AIDB_OK)
            writer->status = client_receive(writer->client, &reply);
        if (writer->status == AIDB_OK && reply.type != MESSAGE_COMMIT)
            writer->status = AIDB_INTERNAL;
        batch_deinit(&batch);
        atomic_fetch_add(&writer->written, 1);
    }
    return NULL;
}

/* While nothing is flushed, writers stop when memory is full; readers go on, whoever serves them, and so do
 * the writers in the end. */
START_TEST(writers_that_wait_hold_up_nobody)
{
    Client *readers[3];
    for (int i = 0; i < 3; i++)
        readers[i] = connect_to(unix_uri);
    put(readers[0], "k", "v");
    pid_t flusher = nth_child(1);
    ck_assert_int_eq(kill(flusher, SIGSTOP), 0);
    Writer writer = {.client = connect_to(unix_uri)};
    ck_assert_int_eq(pthread_create(&writer.thread, NULL, write_much, &writer), 0);
    uint32_t before = UINT32_MAX;
    for (int quiet = 0; quiet < 100; quiet++) {
        for (int i = 0; i < 3; i++)
            ck_assert(has(readers[i], "k", "v"));
        uint32_t now = atomic_load(&writer.written);
        if (now != before)
            quiet = 0;
        before = now;
        nap();
    }
    atomic_store(&writer.enough, true);
    ck_assert_int_eq(kill(flusher, SIGCONT), 0);
    ck_assert_int_eq(pthread_join(writer.thread, NULL), 0);
    ck_assert_msg(writer.status == AIDB_OK, "status %d", (int)writer.status);
    Message count = {.type = MESSAGE_MEASURE, .flags = MEASURE_COUNT}, reply;
    call(readers[0], &count, MESSAGE_MEASURED, &reply);
    ck_assert_uint_eq(reply.count, atomic_load(&writer.written) + 1);
    client_close(writer.client);
    for (int i = 0; i < 3; i++)
        client_close(readers[i]);
}
END_TEST

START_TEST(a_write_in_flight_has_an_unknown_outcome)
{
    aidb *db;
    ck_assert_int_eq(aidb_open(unix_uri, NULL, &db), AIDB_OK);
    ck_assert_int_eq(aidb_put(db, "k", 1, "v", 1), AIDB_OK);
    pid_t backend = nth_child(3);
    ck_assert_int_gt(backend, 0);
    ck_assert_int_eq(kill(backend, SIGKILL), 0);
    ck_assert_int_eq(aidb_put(db, "k", 1, "w", 1), AIDB_UNKNOWN);
    aidb_value value = {0};
    ck_assert_int_eq(aidb_get(db, NULL, "k", 1, &value), AIDB_CONNECTION);
    ck_assert_int_eq(aidb_close(db), AIDB_OK);
    for (int waited = 0; pid_info().crash_restarts != 1 || strcmp(pid_info().state, "ready") != 0;
         waited += 5) {
        ck_assert_int_lt(waited, WAIT_MS);
        nap();
    }
}
END_TEST

START_TEST(a_killed_postmaster)
{
    Client *client = connect_to(unix_uri);
    put(client, "k", "v");
    ck_assert_int_eq(kill(server, SIGKILL), 0);
    ck_assert_int_eq(waitpid(server, NULL, 0), server);
    for (int waited = 0; pid_info().pid != 0; waited += 5) { /* until its children are gone too */
        ck_assert_int_lt(waited, WAIT_MS);
        nap();
    }
    client_close(client);
    start(); /* the stale file and socket are no obstacle */
    client = connect_to(unix_uri);
    ck_assert(has(client, "k", "v"));
    client_close(client);
}
END_TEST

/* ---- starting and stopping ------------------------------------------------------------------- */

START_TEST(stopping)
{
    static const int SIGNALS[] = {SIGTERM, SIGINT, SIGQUIT};
    Client *client = connect_to(unix_uri);
    Message reply, ping = {.type = MESSAGE_PING};
    put(client, "k", "v");
    if (SIGNALS[_i] == SIGTERM) {
        /* Smart: the client that is there may go on, new ones may not come. */
        kill(server, SIGTERM);
        while (strcmp(pid_info().state, "stopping") != 0)
            nap();
        call(client, &ping, MESSAGE_DONE, &reply);
        ck_assert_int_eq(refused_by(unix_uri), AIDB_CONNECTION);
        client_close(client);
        ck_assert_int_eq(stop(0), 0);
    } else {
        ck_assert_int_eq(stop(SIGNALS[_i]), 0);
        Status status = client_receive(client, &reply);
        ck_assert_int_eq(status, AIDB_CONNECTION);
        client_close(client);
    }
    char *path = path_join(directory, PIDFILE_NAME);
    ck_assert(!file_exists(path));
    free(path);
    start();
    client = connect_to(unix_uri);
    ck_assert(has(client, "k", "v"));
    client_close(client);
}
END_TEST

START_TEST(a_second_server_is_refused)
{
    int status;
    pid_t second = launch();
    ck_assert_int_eq(waitpid(second, &status, 0), second);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_untouched();
}
END_TEST

static int failing_start(void)
{
    int status;
    pid_t pid = launch();
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(what_keeps_a_server_from_starting)
{
    ck_assert_int_eq(stop(SIGINT), 0);
    ck_assert_int_eq(chmod(directory, 0770), 0);
    ck_assert_int_eq(failing_start(), 1);
    ck_assert_int_eq(chmod(directory, 0700), 0);

    char *path = path_join(directory, CONFIG_FILE_NAME);
    ck_assert_int_eq(file_replace(path, "prot: 1\n", 8, 0600), AIDB_OK);
    ck_assert_int_eq(failing_start(), 1);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(failing_start(), 1);
    free(path);

    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)config.server.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    write_config();
    ck_assert_int_eq(failing_start(), 1);
    close(fd);

    path = path_join(directory, "CURRENT");
    char *away = path_join(directory, "CURRENT.away");
    ck_assert_int_eq(rename(path, away), 0);
    ck_assert_int_eq(failing_start(), 1);
    ck_assert_int_eq(rename(away, path), 0);
    free(path);
    free(away);
    start();
}
END_TEST

START_TEST(reload)
{
    Client *client = connect_to(unix_uri);
    uint32_t port = config.server.port;
    config.engine.compactors = 3;
    config.server.log_level = 0;
    config.server.port = free_port();
    write_config();
    kill(server, SIGHUP);
    Message reply;
    bool seen = false;
    for (int waited = 0; !seen; waited += 5) {
        ck_assert_int_lt(waited, WAIT_MS);
        Message show = {.type = MESSAGE_PROPERTY, .name = slice_from_string("config")};
        call(client, &show, MESSAGE_TEXT, &reply);
        seen = memmem(reply.text.data, reply.text.size, "\ncompactors\t3\t", 14) != NULL;
        nap();
    }
    char line[32];
    snprintf(line, sizeof line, "\nport\t%u\t", port); /* needs a restart */
    ck_assert_ptr_nonnull(memmem(reply.text.data, reply.text.size, line, strlen(line)));
    ck_assert_ptr_nonnull(memmem(reply.text.data, reply.text.size, "\nlog_level\tdebug\t", 17));
    client_close(client);
    assert_untouched();
    ck_assert_int_eq(stop(SIGINT), 0);
    start(); /* on the new port */
    ck_assert_int_eq(refused_by(tcp_uri), AIDB_OK);
}
END_TEST

static void setup_hosts(void)
{
    prepare();
    config.server.backends = 2;
    write_config();
    start();
}

static void setup_short_timeout(void)
{
    prepare();
    config.server.authentication_timeout = 1000;
    write_config();
    start();
}

static void add_case(Suite *suite, const char *name, void (*fixture)(void), void (*add)(TCase *))
{
    TCase *tests = tcase_create(name);
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, fixture, teardown);
    add(tests);
    suite_add_tcase(suite, tests);
}

static void add_tests(TCase *tests)
{
    tcase_add_loop_test(tests, ten_thousand_pipelined_requests, 0, 2);
    tcase_add_test(tests, order_in_a_pipeline);
    tcase_add_test(tests, bad_requests_are_answered);
    tcase_add_test(tests, scans_stop_without_credits);
    tcase_add_test(tests, slow_reader);
    tcase_add_test(tests, idle_cancel_requests_do_nothing);
    tcase_add_loop_test(tests, the_api_over_a_server, 0, 2);
    tcase_add_test(tests, an_iterator_walks_many_chunks);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    tcase_add_test(tests, replies_do_not_pile_up);
#endif
    tcase_add_test(tests, a_conversation_cut_at_every_byte);
    tcase_add_test(tests, a_request_and_goodbye);
    tcase_add_test(tests, a_new_limit_for_who_does_not_read);
    tcase_add_test(tests, mutated_conversations);
    tcase_add_loop_test(tests, garbage_is_refused, 0, sizeof GARBAGE / sizeof GARBAGE[0]);
    tcase_add_test(tests, connections_are_limited_and_some_reserved);
    tcase_add_test(tests, sizes_at_their_limits);
    tcase_add_loop_test(tests, a_killed_child, 0, 4);
    tcase_add_loop_test(tests, the_reason_is_told, 0, 2);
    tcase_add_test(tests, a_running_request_is_canceled);
    tcase_add_test(tests, requests_run_out_of_time);
    tcase_add_test(tests, writers_that_wait_hold_up_nobody);
    tcase_add_test(tests, a_write_in_flight_has_an_unknown_outcome);
    tcase_add_test(tests, a_killed_postmaster);
    tcase_add_loop_test(tests, stopping, 0, 3);
    tcase_add_test(tests, a_second_server_is_refused);
    tcase_add_test(tests, what_keeps_a_server_from_starting);
    tcase_add_test(tests, reload);
}

static void add_slow_greeting(TCase *tests)
{
    tcase_add_test(tests, half_greetings_hold_up_nobody);
}

int main(void)
{
    Suite *suite = suite_create("server");
    add_case(suite, "server", setup, add_tests);
    add_case(suite, "server with hosts", setup_hosts, add_tests);
    add_case(suite, "greeting", setup_short_timeout, add_slow_greeting);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
