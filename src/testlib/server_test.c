/* server_test.c - limits, crashes, starting and stopping of a server; and the program of all its tests. */
#include "config.h"

#include "testlib/test_server.h"

#include "engine/db/db.h"
#include "io/io.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
    wait_restarted();
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
    wait_restarted();
    client = connect_to(_i == 0 ? unix_uri : tcp_uri);
    ck_assert(has(client, "k", "v"));
    ck_assert_uint_gt(put(client, "k", "w"), lsn);
    ck_assert_int_eq(stop_server(SIGQUIT), 0);
    ck_assert_int_eq(client_receive(client, &reply), AIDB_CONNECTION);
    ck_assert_ptr_nonnull(strstr(status_message(), "stopped at once"));
    client_close(client);
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
    start_server(); /* the stale file and socket are no obstacle */
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
        ck_assert_int_eq(stop_server(0), 0);
    } else {
        ck_assert_int_eq(stop_server(SIGNALS[_i]), 0);
        Status status = client_receive(client, &reply);
        ck_assert_int_eq(status, AIDB_CONNECTION);
        client_close(client);
    }
    char *path = path_join(directory, PIDFILE_NAME);
    ck_assert(!file_exists(path));
    free(path);
    start_server();
    client = connect_to(unix_uri);
    ck_assert(has(client, "k", "v"));
    client_close(client);
}
END_TEST

START_TEST(a_second_server_is_refused)
{
    int status;
    pid_t second = launch_server();
    ck_assert_int_eq(waitpid(second, &status, 0), second);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_untouched();
}
END_TEST

static int failing_start(void)
{
    int status;
    pid_t pid = launch_server();
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(what_keeps_a_server_from_starting)
{
    ck_assert_int_eq(stop_server(SIGINT), 0);
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
    start_server();
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
    ck_assert_int_eq(stop_server(SIGINT), 0);
    start_server(); /* on the new port */
    ck_assert_int_eq(refused_by(tcp_uri), AIDB_OK);
}
END_TEST

static void setup_hosts(void)
{
    prepare_server();
    config.server.backends = 2;
    write_config();
    start_server();
}

static void setup_short_timeout(void)
{
    prepare_server();
    config.server.authentication_timeout = 1000;
    write_config();
    start_server();
}

static void add_case(Suite *suite, const char *name, void (*fixture)(void), void (*add)(TCase *))
{
    TCase *tests = tcase_create(name);
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, fixture, teardown_server);
    add(tests);
    suite_add_tcase(suite, tests);
}

static void add_tests(TCase *tests)
{
    add_request_tests(tests);
    add_api_tests(tests);
    add_byte_tests(tests);
    tcase_add_test(tests, connections_are_limited_and_some_reserved);
    tcase_add_test(tests, sizes_at_their_limits);
    tcase_add_loop_test(tests, a_killed_child, 0, 4);
    tcase_add_loop_test(tests, the_reason_is_told, 0, 2);
    tcase_add_test(tests, a_killed_postmaster);
    tcase_add_loop_test(tests, stopping, 0, 3);
    tcase_add_test(tests, a_second_server_is_refused);
    tcase_add_test(tests, what_keeps_a_server_from_starting);
    tcase_add_test(tests, reload);
}

int main(void)
{
    Suite *suite = suite_create("server");
    add_case(suite, "server", setup_server, add_tests);
    add_case(suite, "server with hosts", setup_hosts, add_tests);
    add_case(suite, "greeting", setup_short_timeout, add_greeting_tests);
    return test_run(suite);
}
