/* test_server.c - a server of its own for each test, and clients of it. */
#include "config.h"

#include "testlib/test_server.h"

#include "engine/db/db.h"
#include "io/io.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

char *directory;
Config config;
pid_t server;
char unix_uri[256];
char tcp_uri[320];

/* ---- the server ------------------------------------------------------------------------------ */

void nap(void)
{
    usleep(5000);
}

PidInfo pid_info(void)
{
    PidInfo info;
    bool held;
    if (pidfile_read(directory, &info, &held) != AIDB_OK || !held)
        memset(&info, 0, sizeof info);
    return info;
}

void write_config(void)
{
    Buffer text = {0};
    char *path = path_join(directory, CONFIG_FILE_NAME);
    ck_assert_int_eq(config_sample(&config, &text), AIDB_OK);
    ck_assert_int_eq(file_replace(path, text.data, text.size, 0600), AIDB_OK);
    buffer_deinit(&text);
    free(path);
}

uint32_t free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

pid_t launch_server(void)
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

void start_server(void)
{
    server = launch_server();
    wait_ready();
    PidInfo info = pid_info();
    memcpy(unix_uri, info.unix_uri, sizeof unix_uri);
    memcpy(tcp_uri, info.tcp_uri, sizeof tcp_uri);
}

void wait_restarted(void)
{
    for (int waited = 0; pid_info().crash_restarts != 1 || strcmp(pid_info().state, "ready") != 0;
         waited += 5) {
        ck_assert_int_lt(waited, WAIT_MS);
        nap();
    }
}

int stop_server(int signal_number)
{
    int status;
    kill(server, signal_number);
    ck_assert_int_eq(waitpid(server, &status, 0), server);
    server = 0;
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

void prepare_server(void)
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

void setup_server(void)
{
    prepare_server();
    start_server();
}

void teardown_server(void)
{
    if (server != 0)
        ck_assert_int_eq(stop_server(SIGINT), 0);
    test_directory_destroy(directory);
}

pid_t nth_child(int wanted)
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

Client *connect_to(const char *uri)
{
    const ClientOptions options = {.application = "test", .connect_timeout_ms = WAIT_MS};
    Client *client;
    ck_assert_msg(client_connect(uri, &options, &client) == AIDB_OK, "%s", status_text());
    return client;
}

Status refused_by(const char *uri)
{
    const ClientOptions options = {.connect_timeout_ms = WAIT_MS};
    Client *client;
    Status status = client_connect(uri, &options, &client);
    client_close(client);
    return status;
}

void call(Client *client, Message *request, uint8_t type, Message *reply)
{
    ck_assert_msg(client_send(client, request) == AIDB_OK, "%s", status_text());
    ck_assert_msg(client_receive(client, reply) == AIDB_OK, "%s", status_text());
    ck_assert_uint_eq(reply->id, request->id);
    ck_assert_msg(reply->type == type, "%s: %.*s", message_type_name(reply->type),
                  (int)reply->text.size, (const char *)reply->text.data);
}

void send_put(Client *client, const char *key, Slice value)
{
    Batch batch = {0};
    ck_assert_int_eq(batch_put(&batch, slice_from_string(key), value), AIDB_OK);
    Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&batch.ops)};
    ck_assert_msg(client_send(client, &write) == AIDB_OK, "%s", status_text());
    batch_deinit(&batch);
}

uint64_t put(Client *client, const char *key, const char *value)
{
    Message reply;
    send_put(client, key, slice_from_string(value));
    ck_assert_msg(client_receive(client, &reply) == AIDB_OK, "%s", status_text());
    ck_assert_uint_eq(reply.type, MESSAGE_COMMIT);
    ck_assert_uint_eq(reply.status, AIDB_OK);
    return reply.lsn;
}

bool has(Client *client, const char *key, const char *value)
{
    Message request = {.type = MESSAGE_GET, .key = slice_from_string(key)}, reply;
    call(client, &request, MESSAGE_VALUE, &reply);
    return reply.version != 0 && slice_equal(reply.value, slice_from_string(value));
}

int connect_raw(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, unix_uri + strlen("aidb+unix:"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void send_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t put_size = send(fd, bytes, size, MSG_NOSIGNAL);
        if (put_size <= 0)
            return; /* the server has closed, as it may */
        bytes += put_size;
        size -= (size_t)put_size;
    }
}

void drain(int fd)
{
    char bytes[4096];
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof bytes, 0)) > 0)
        ;
    ck_assert(got == 0 || errno == ECONNRESET);
}

void assert_untouched(void)
{
    ck_assert_int_eq(pid_info().crash_restarts, 0);
    Client *client = connect_to(unix_uri);
    put(client, "still", "here");
    ck_assert(has(client, "still", "here"));
    client_close(client);
}
