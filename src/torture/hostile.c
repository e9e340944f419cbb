/*
 * hostile.c - clients that do not keep to the protocol, or do in bad faith, while others work.
 *
 * The campaign's iterations are mutated frames (hostile_frames.c). Each other kind of hostility has its turn
 * behind them: sizes that lie, conversations cut at every byte, sizes at their limits, floods, more connections
 * than there may be, connections made and dropped, greetings that dribble, readers that do not read
 * (hostile_crowd.c). Nothing may crash or hang, no other session may get a wrong answer or wait much longer than
 * before, memory stays within its limit, and in the end the server holds as many descriptors, processes and
 * mappings as before (hostile_watch.c).
 *
 * Hostile clients write only keys that begin with "h", so that the oracle's keys are nobody else's;
 * frames that would touch others, or end other sessions on request, are not sent.
 *
 * `hostile-hosted` is the same against a server whose sessions share a few processes.
 */
#include "config.h"

#include "torture/hostile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CROWD           1000u  /* connections at once, each with its process */
#define CROWD_SANITIZED 200u   /* the same where each takes many times as much memory */
#define CROWD_HOSTED    10000u /* where they share processes */

bool hostile_failed(Hostile *hostile, const char *what)
{
    return torture_failed(hostile->torture, "%s", what);
}

void hostile_report(const Hostile *hostile, const char *who, const char *what)
{
    HostileShared *shared = hostile->shared;
    if (atomic_exchange(&shared->failed, 1) == 0)
        snprintf(shared->message, sizeof shared->message, "%s: %s", who, what);
}

void hostile_note(Hostile *hostile, const char *format, ...)
{
    Torture *torture = hostile->torture;
    size_t used = strlen(torture->note);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(torture->note + used, sizeof torture->note - used, format, arguments);
    va_end(arguments);
}

/* ---- connections by hand ------------------------------------------------------------------------ */

int hostile_connect(const Hostile *hostile, bool tcp)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in remote = {.sin_family = AF_INET,
                                 .sin_port = htons(hostile->port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    snprintf(local.sun_path, sizeof local.sun_path, "%.100s",
             hostile->server.uri + strlen("aidb+unix:"));
    int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (tcp ? connect(fd, (struct sockaddr *)&remote, sizeof remote)
                        : connect(fd, (struct sockaddr *)&local, sizeof local)) != 0) {
        int err = errno;
        close(fd);
        errno = err;
        fd = -1;
    }
    return fd;
}

bool hostile_send(int fd, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

static void wait_no_longer(int fd)
{
    struct timeval limit = {.tv_sec = HANG_MS / 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static const char tls_alert[] = {0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28};

const char *hostile_drain(int fd, uint64_t *replies)
{
    Buffer input = {0};
    const char *wrong = NULL;
    wait_no_longer(fd);
    for (;;) {
        if (buffer_reserve(&input, 65536) != AIDB_OK) {
            wrong = "out of memory";
            break;
        }
        ssize_t got = recv(fd, input.data + input.size, 65536, 0);
        if (got <= 0) {
            if (got < 0 && errno != ECONNRESET)
                wrong = "the server neither answers nor closes";
            else if (got == 0 && input.size > 0 && input.size != sizeof tls_alert)
                wrong = "the server's last frame is cut short";
            break;
        }
        input.size += (size_t)got;
        size_t at = 0;
        Frame frame;
        Message message;
        FrameResult result;
        if (input.size >= sizeof tls_alert && memcmp(input.data, tls_alert, sizeof tls_alert) == 0)
            continue;
        while ((result = frame_decode(input.data + at, input.size - at, BODY_MAX, &frame)) ==
               FRAME_COMPLETE) {
            if (message_decode(&frame, &message) != AIDB_OK)
                wrong = "a reply does not decode";
            ++*replies;
            at += frame.size;
        }
        if (result == FRAME_BAD)
            wrong = "a reply is no frame";
        memmove(input.data, input.data + at, input.size - at);
        input.size -= at;
        if (wrong != NULL)
            break;
    }
    buffer_deinit(&input);
    return wrong;
}

bool hostile_greeting(Buffer *bytes)
{
    const Message hello = {.type = MESSAGE_HELLO,
                           .id = 1,
                           .version = 1,
                           .version_max = 1,
                           .name = slice_from_string("hostile")};
    return buffer_append(bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE) == AIDB_OK &&
           message_encode(bytes, &hello) == AIDB_OK;
}

/* The replies are small: they fit. */
Status hostile_ask(int fd, bool greet, uint64_t id)
{
    const Message get = {.type = MESSAGE_GET, .id = id, .key = slice_from_string("none")};
    Buffer out = {0};
    uint8_t in[4096];
    size_t size = 0;
    if ((greet && !hostile_greeting(&out)) || message_encode(&out, &get) != AIDB_OK) {
        buffer_deinit(&out);
        return status_set(AIDB_NO_MEMORY, "out of memory");
    }
    (void)hostile_send(fd, out.data, out.size); /* a server that refuses says so first */
    buffer_deinit(&out);
    wait_no_longer(fd);
    for (;;) {
        ssize_t got = recv(fd, in + size, sizeof in - size, 0);
        if (got <= 0)
            return status_set(AIDB_CONNECTION, got == 0 ? "the server closed the connection"
                                                        : "the server does not answer");
        size += (size_t)got;
        Frame frame;
        Message message;
        for (size_t at = 0; frame_decode(in + at, size - at, sizeof in, &frame) == FRAME_COMPLETE;
             at += frame.size) {
            RETURN_IF_FAILED(message_decode(&frame, &message));
            if (message.type == MESSAGE_ERROR)
                return error_take(&message);
            if (message.type == MESSAGE_VALUE && message.id == id)
                return AIDB_OK;
        }
    }
}

bool hostile_serves(Hostile *hostile, const char *uri)
{
    const ClientOptions options = {.connect_timeout_ms = HANG_MS};
    Client *client;
    Message request = {.type = MESSAGE_GET, .key = slice_from_string("none")}, reply;
    Status status = client_connect(uri, &options, &client);
    if (status == AIDB_OK)
        status = client_send(client, &request);
    if (status == AIDB_OK)
        status = client_receive(client, &reply);
    if (status != AIDB_OK)
        hostile_failed(hostile, status_message());
    client_close(client);
    return status == AIDB_OK;
}

/* ---- what this machine lets be done ------------------------------------------------------------- */

/* Whether so many descriptors may be open in this program and in the server: raises what may be raised. */
static bool may_open(uint64_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    if (limit.rlim_max < wanted) {
        const struct rlimit higher = {wanted, wanted};
        return setrlimit(RLIMIT_NOFILE, &higher) == 0;
    }
    if (limit.rlim_cur < wanted)
        limit.rlim_cur = wanted;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* How many processes there may be, up to `wanted`: tried, before a server fails at it. */
static uint32_t may_fork(uint32_t wanted)
{
    pid_t *pids = calloc(wanted, sizeof *pids);
    int ends[2];
    uint32_t count = 0;
    if (pids == NULL || pipe(ends) != 0) {
        free(pids);
        return 0;
    }
    fflush(stdout);
    for (; count < wanted && (pids[count] = fork()) >= 0; count++) {
        char byte;
        if (pids[count] != 0)
            continue;
        close(ends[1]);
        (void)!read(ends[0], &byte, 1);
        _exit(0);
    }
    close(ends[0]);
    close(ends[1]);
    for (uint32_t i = 0; i < count; i++)
        (void)waitpid(pids[i], NULL, 0);
    free(pids);
    return count;
}

/* The server has a descriptor for the latch of each of its processes, one for the channel there or for a
 * client, one for each connection that waits, and some; see doc/operations.md. */
static void choose_crowd(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    uint32_t wanted = CROWD;
    if (hostile->hosted)
        wanted = CROWD_HOSTED;
    else if (hostile->sanitized && !hostile->release)
        wanted = CROWD_SANITIZED;
    uint32_t most = wanted;
    while (most > 64 && !may_open((hostile->hosted ? 1ull : 2ull) * most + 2000))
        most /= 2;
    if (most < wanted)
        printf("skipped: %u connections at once, only %u: the limit of open files is too low\n",
               wanted, most);
    if (!hostile->hosted && may_fork(most + 100) < most + 100) {
        printf("skipped: %u processes at once, only 64: the system does not let them be started\n",
               most);
        most = 64;
    }
    hostile->crowd = most;
    hostile->connections = most + RESERVED + PROBE_ALL;
    if (torture->verbose)
        printf("connections at once: %u\n", most);
}

/* ---- the server --------------------------------------------------------------------------------- */

static uint16_t free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        address.sin_port = 0;
    if (fd >= 0)
        close(fd);
    return ntohs(address.sin_port);
}

static FILE *open_program(const Torture *torture)
{
    char names[4096], path[sizeof names + 8], *rest = NULL;
    const char *directories = torture->bin != NULL ? torture->bin : getenv("PATH");
    snprintf(names, sizeof names, "%s", directories != NULL ? directories : "");
    FILE *file = NULL;
    for (char *name = strtok_r(names, ":", &rest); name != NULL && file == NULL;
         name = strtok_r(NULL, ":", &rest)) {
        snprintf(path, sizeof path, "%s/aidb", name);
        file = fopen(path, "rb");
    }
    return file;
}

/* Whether the server has the address sanitizer. */
static bool is_sanitized(const Torture *torture)
{
    static const char name[] = "__asan_init";
    FILE *file = open_program(torture);
    size_t matched = 0;
    int byte;
    while (file != NULL && matched < strlen(name) && (byte = getc(file)) != EOF)
        matched = byte == name[matched] ? matched + 1 : byte == name[0];
    if (file != NULL)
        fclose(file);
    return matched == strlen(name);
}

static bool make_server(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    if (!server_init(torture, &hostile->server))
        return false;
    hostile->port = free_port();
    snprintf(hostile->tcp_uri, sizeof hostile->tcp_uri, "aidb://127.0.0.1:%u", hostile->port);
    char path[TORTURE_PATH + 32], line[1000];
    snprintf(path, sizeof path, "%s/aidb.yaml", hostile->server.data);
    FILE *file = fopen(path, "r");
    Buffer text = {0};
    bool ok = file != NULL;
    while (ok && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "port:", 5) != 0 && strncmp(line, "max_connections:", 16) != 0 &&
            strncmp(line, "backends:", 9) != 0)
            ok = buffer_append(&text, line, strlen(line)) == AIDB_OK;
    if (file != NULL)
        fclose(file);
    ok =
        ok && buffer_append_format(&text,
                                   "port: %u\nmax_connections: %u\nadmin_reserved_connections: %u\n"
                                   "authentication_timeout: %ums\nbackends: %u\n",
                                   hostile->port, hostile->connections, RESERVED, GREETING_MS,
                                   hostile->hosted ? HOSTS : 0) == AIDB_OK;
    file = ok ? fopen(path, "w") : NULL;
    ok = file != NULL && fwrite(text.data, 1, text.size, file) == text.size;
    if (file != NULL)
        ok = fclose(file) == 0 && ok;
    buffer_deinit(&text);
    /* A server with the address sanitizer reports a request for memory that a length field made up. */
    setenv("ASAN_OPTIONS", "max_allocation_size_mb=256", 0);
    return (ok || torture_failed(torture, "could not write %s", path)) &&
           server_start(&hostile->server);
}

/* What the hostile clients wrote is nobody's. */
static bool clean_up(Hostile *hostile)
{
    aidb *db;
    aidb_batch *batch = aidb_batch_create();
    const aidb_range range = {.from = {"h", 1}, .to = {"i", 1}};
    aidb_status status = aidb_open(hostile->server.uri, NULL, &db);
    if (status == AIDB_OK) {
        status = aidb_batch_delete_range(batch, &range);
        if (status == AIDB_OK)
            status = aidb_write(db, batch, AIDB_DEFAULT, NULL);
        (void)aidb_close(db);
    }
    aidb_batch_destroy(batch);
    return status == AIDB_OK || hostile_failed(hostile, aidb_error_message());
}

/* ---- the campaign ------------------------------------------------------------------------------- */

static const struct {
    Attack attack;
    bool (*run)(Hostile *hostile);
} attacks[] = {
    {ATTACK_FRAMES, attack_frames}, {ATTACK_LIES, attack_lies},   {ATTACK_FLOOD, attack_flood},
    {ATTACK_CROWD, attack_crowd},   {ATTACK_CHURN, attack_churn}, {ATTACK_SLOW, attack_slow},
    {ATTACK_DEAF, attack_deaf},
};

/* Until the probe has seen enough of it. */
static bool run_attack(Hostile *hostile, size_t i)
{
    uint64_t since = torture_now_ms();
    watch_attack(hostile, attacks[i].attack);
    bool ok;
    do {
        ok = attacks[i].run(hostile) && !process_gone(hostile->probe);
        watch_memory(hostile);
    } while (ok && !watch_enough(hostile));
    if (hostile->torture->verbose)
        printf("%llu ms: ", (unsigned long long)(torture_now_ms() - since));
    return ok && watch_judge(hostile);
}

static bool run_attacks(Hostile *hostile)
{
    if (!hostile_serves(hostile, hostile->server.uri) || !watch_begin(hostile))
        return false;
    Holdings before = holdings(hostile);
    for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++)
        if (!run_attack(hostile, i))
            return false;
    return holds_as_before(hostile, &before, "everything");
}

bool hostile_campaign(Torture *torture)
{
    Hostile hostile = {.torture = torture, .server = {.control = NULL}};
    hostile.sanitized = is_sanitized(torture);
    hostile.hosted = strcmp(torture->campaign, "hostile-hosted") == 0;
    hostile.release = torture->iterations >= 1000000 || torture->deadline_ms != 0;
    hostile.shared = mmap(NULL, sizeof *hostile.shared, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hostile.shared == MAP_FAILED)
        return torture_failed(torture, "could not map memory");
    choose_crowd(&hostile);
    /* So that its segments and semaphores can be told from other programs'. */
    hostile.own_ipc = unshare(CLONE_NEWIPC) == 0;
    if (!hostile.own_ipc)
        printf("skipped: counting System V objects: %s\n", strerror(errno));
    torture->oracle->clients = torture->oracle->clients < 4 ? torture->oracle->clients : 4;
    torture->oracle->async_percent = 10;
    torture->rounds = 1;
    bool ok = make_server(&hostile);
    pid_t postmaster = hostile.server.pid;
    ok = ok && run_attacks(&hostile);
    ok = watch_end(&hostile) && ok;
    ok = ok && clean_up(&hostile) && server_check(&hostile.server, AIDB_OS, 0, false);
    if (ok && (process_gone(postmaster) || hostile.server.pid != postmaster))
        ok = torture_failed(torture, "the postmaster is another one");
    ok = server_finish(&hostile.server, ok);
    munmap(hostile.shared, sizeof *hostile.shared);
    return ok;
}
