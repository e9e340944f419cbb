/*
 * hostile.c - clients that do not keep to the protocol, or do in bad faith, while others work.
 *
 * The campaign's iterations are mutated frames. They come from a few processes at once, over
 * connections of their own; meanwhile well-behaved clients (oracle.h) write and read back, and a probe
 * takes the time of small reads. Then each other kind of hostility has its turn: sizes that lie, floods,
 * conversations cut at every byte, greetings that dribble, readers that do not read, more connections
 * than there may be, connections made and dropped, sizes at their limits. Nothing may crash or hang, no
 * other session may get a wrong answer, and in the end the server holds as many descriptors, processes
 * and mappings as before.
 *
 * Nearly all mutated frames still decode: what does not decode ends its connection, so it comes last.
 * Hostile clients write only keys that begin with "h", so that the oracle's keys are nobody else's;
 * frames that would touch others, or end other sessions on request, are not sent.
 *
 * Time is measured and told, never judged, but for limits that only a hang passes. `hostile-hosted` is
 * the same against a server whose sessions share a few processes.
 */
#include "config.h"

#include "client/client.h"
#include "engine/base/base.h"
#include "torture/server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ATTACKERS       3u
#define SESSION_FRAMES  250u
#define BODY_MAX        (6u << 20) /* of the server made here: batch_max and slack */
#define BATCH_MAX       (4u << 20)
#define GREETING_MS     4000u /* authentication_timeout */
#define STATEMENT_MS    4000u /* statement_timeout, while nobody reads */
#define MAX_CONNECTIONS 64u
#define MANY            10000u /* connections at once of a release, when they share processes */
#define HOSTS           3u
#define RESERVED        3u
#define LATENCIES       65536u
#define SPARE           48u /* processes that the postmaster may keep for the next clients, at most */

typedef struct Latency {
    uint32_t count;
    uint32_t us[LATENCIES];
} Latency;

typedef struct Shared {
    _Atomic uint64_t frames;
    _Atomic uint64_t sessions;
    _Atomic uint64_t replies;
    _Atomic uint32_t stop;
    _Atomic uint32_t under_attack; /* which of the two the probe fills */
    _Atomic uint32_t failed;
    char message[300];
    Latency latency[2];
} Shared;

typedef struct Hostile {
    Torture *torture;
    Server server;
    Shared *shared;
    bool hosted; /* backends: HOSTS */
    uint32_t connections;
    uint16_t port;
    char tcp_uri[64];
    uint64_t rss_peak; /* bytes of private memory of the largest backend */
} Hostile;

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- raw connections ---------------------------------------------------------------------------- */

static int connect_unix(const Hostile *hostile)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s",
             hostile->server.uri + strlen("aidb+unix:"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int connect_tcp(const Hostile *hostile)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(hostile->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* False when the server closed meanwhile, as it may. */
static bool send_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        bytes += sent;
        size -= (size_t)sent;
    }
    return true;
}

static const char tls_alert[] = {0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28};

/* Reads until the server closes. What it says must be whole frames of known types. NULL, or what is
 * wrong. */
static const char *drain(int fd, uint64_t *replies)
{
    Buffer input = {0};
    const char *wrong = NULL;
    struct timeval limit = {.tv_sec = HANG_MS / 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
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

static bool hostile_failed(Hostile *hostile, const char *what)
{
    return torture_failed(hostile->torture, "%s", what);
}

/* Sends bytes over a connection of their own and hears the server out. */
static bool talk(Hostile *hostile, const void *bytes, size_t size)
{
    uint64_t replies = 0;
    int fd = connect_unix(hostile);
    if (fd < 0)
        return hostile_failed(hostile, "could not connect");
    (void)send_all(fd, bytes, size);
    shutdown(fd, SHUT_WR);
    const char *wrong = drain(fd, &replies);
    close(fd);
    return wrong == NULL || hostile_failed(hostile, wrong);
}

static bool greeting(Buffer *bytes)
{
    const Message hello = {.type = MESSAGE_HELLO,
                           .id = 1,
                           .version = 1,
                           .version_max = 1,
                           .name = slice_from_string("hostile")};
    return buffer_append(bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE) == AIDB_OK &&
           message_encode(bytes, &hello) == AIDB_OK;
}

/* ---- mutated frames ----------------------------------------------------------------------------- */

static bool own_key(Slice key)
{
    return key.size > 0 && key.data[0] == 'h';
}

/* Whether a frame that decodes would reach what is not the hostile clients' own. */
static bool reaches_others(const Message *message)
{
    if (message->type == MESSAGE_CONTROL)
        return message->name.size > 4 && memcmp(message->name.data, "term", 4) == 0;
    if (message->type != MESSAGE_WRITE)
        return false;
    size_t cursor = 0;
    bool damaged = false;
    BatchOp op;
    while (batch_next(message->ops, &cursor, &op, &damaged))
        if (!own_key(op.key) || (op.type == OP_DELETE_RANGE && !own_key(op.value)))
            return true;
    return false;
}

static Status make_request(uint64_t *random, uint64_t id, Buffer *bytes)
{
    static const uint8_t types[] = {
        MESSAGE_GET,        MESSAGE_GET,      MESSAGE_MULTI_GET, MESSAGE_WRITE,
        MESSAGE_WRITE,      MESSAGE_WRITE,    MESSAGE_SCAN,      MESSAGE_SCAN,
        MESSAGE_MEASURE,    MESSAGE_SNAPSHOT, MESSAGE_RELEASE,   MESSAGE_SCAN_MORE,
        MESSAGE_SCAN_CLOSE, MESSAGE_PING,     MESSAGE_PROPERTY,  MESSAGE_CONTROL};
    static const char *const properties[] = {"status", "config", "stats", "backends", "levels"};
    static const char *const commands[] = {"flush", "compact", "nothing"};
    char key[32], value[400];
    Batch batch = {0};
    Buffer keys = {0};
    uint64_t pick = oracle_random(random);
    snprintf(key, sizeof key, "h%03u", (unsigned)(pick % 500));
    memset(value, 'v', sizeof value);
    Slice wanted = slice_from_string(key);
    Message message = {.type = types[(pick >> 16) % sizeof types], .id = id, .key = wanted};
    Status status = AIDB_OK;
    switch (message.type) {
    case MESSAGE_MULTI_GET:
        message.count = 1 + (pick >> 24) % 3;
        for (uint64_t i = 0; i < message.count && status == AIDB_OK; i++)
            status = buffer_append_slice(&keys, wanted);
        message.row = buffer_slice(&keys);
        break;
    case MESSAGE_WRITE:
        message.durability = (pick >> 24) % 4;
        status = batch_put(&batch, wanted, slice_make(value, (pick >> 32) % sizeof value));
        if (status == AIDB_OK && (pick >> 48) % 4 == 0)
            status = batch_delete(&batch, slice_from_string("h1"));
        if (status == AIDB_OK && (pick >> 50) % 8 == 0)
            status = batch_delete_range(&batch, slice_from_string("h2"), slice_from_string("h20"));
        if (status == AIDB_OK && (pick >> 54) % 4 == 0)
            status = batch_expect(&batch, wanted, AIDB_EXPECT_PRESENT, 0);
        message.ops = buffer_slice(&batch.ops);
        message.expectations = buffer_slice(&batch.expectations);
        break;
    case MESSAGE_SCAN:
        message.flags = (uint8_t)((pick >> 24) & SCAN_FLAGS);
        message.rows = (pick >> 32) % 100;
        message.credits = (pick >> 40) % 4;
        message.from = slice_from_string("h");
        message.to = wanted;
        break;
    case MESSAGE_MEASURE:
        message.flags = 1 + (pick >> 24) % 3;
        message.from = wanted;
        break;
    case MESSAGE_RELEASE:
        message.lsn = pick >> 40;
        break;
    case MESSAGE_SCAN_MORE:
        message.credits = 1;
        break;
    case MESSAGE_PROPERTY:
        message.name = slice_from_string(properties[(pick >> 24) % 5]);
        break;
    case MESSAGE_CONTROL:
        /* Compactions of everything are for free only now and then. */
        message.name = slice_from_string(commands[(pick >> 24) % 64 == 0 ? (pick >> 32) % 2 : 2]);
        break;
    default:
        break;
    }
    if (status == AIDB_OK)
        status = message_encode(bytes, &message);
    batch_deinit(&batch);
    buffer_deinit(&keys);
    return status;
}

static void mutate(uint64_t *random, uint8_t *bytes, size_t size)
{
    static const uint8_t telling[] = {0, 1, 2, 3, 4, 0x7f, 0x80, 0x81, 0xfe, 0xff};
    for (uint64_t n = 1 + oracle_random(random) % 3; n > 0; n--) {
        uint64_t pick = oracle_random(random);
        size_t place = (size_t)((pick >> 16) % size);
        if (pick % 2 == 0)
            bytes[place] = telling[(pick >> 8) % sizeof telling];
        else if (pick % 8 == 1)
            bytes[place] ^= (uint8_t)(1u << (pick >> 8) % 8);
        else if (pick % 8 == 3 && size - place >= 8)
            memset(bytes + place, (pick >> 8) % 2 == 0 ? 0xff : 0, 8);
        else
            bytes[place] = (uint8_t)(pick >> 8);
    }
}

/* Appends one mutated frame. *last: it does not decode, the server will close. */
static bool append_mutated(uint64_t *random, uint64_t id, Buffer *bytes, bool *last)
{
    size_t start = bytes->size;
    *last = false;
    for (int tries = 0; tries < 40; tries++) {
        Frame frame;
        Message message;
        bytes->size = start;
        if (make_request(random, id, bytes) != AIDB_OK)
            return false;
        mutate(random, bytes->data + start, bytes->size - start);
        FrameResult result =
            frame_decode(bytes->data + start, bytes->size - start, BODY_MAX, &frame);
        if (result == FRAME_COMPLETE && frame.size == bytes->size - start &&
            message_decode(&frame, &message) == AIDB_OK && message.id != 0) {
            if (!reaches_others(&message))
                return true;
        } else if (oracle_random(random) % 128 == 0) {
            *last = true; /* also one that is cut short, or two made of one: nothing follows */
            return true;
        }
    }
    bytes->size = start;
    return true;
}

static const char *attack(const Hostile *hostile, uint64_t *random)
{
    Buffer bytes = {0};
    const char *wrong = NULL;
    bool last = false;
    uint64_t frames = 0, replies = 0;
    if (!greeting(&bytes))
        wrong = "out of memory";
    if (oracle_random(random) % 32 == 0)
        mutate(random, bytes.data, bytes.size);
    while (wrong == NULL && !last && frames < SESSION_FRAMES) {
        if (!append_mutated(random, 2 + frames, &bytes, &last))
            wrong = "out of memory";
        frames++;
    }
    int fd = wrong == NULL ? connect_unix(hostile) : -1;
    if (fd >= 0) {
        (void)send_all(fd, bytes.data, bytes.size);
        if (oracle_random(random) % 16 != 0) { /* else it goes without a word */
            shutdown(fd, SHUT_WR);
            wrong = drain(fd, &replies);
        }
        close(fd);
        atomic_fetch_add(&hostile->shared->frames, frames);
        atomic_fetch_add(&hostile->shared->replies, replies);
        atomic_fetch_add(&hostile->shared->sessions, 1);
    } else if (wrong == NULL) {
        wrong = "could not connect";
    }
    if (wrong != NULL) { /* the conversation, to be looked at */
        char path[TORTURE_PATH];
        torture_path(hostile->torture, "conversation", path);
        FILE *file = fopen(path, "wb");
        if (file != NULL) {
            fwrite(bytes.data, 1, bytes.size, file);
            fclose(file);
        }
    }
    buffer_deinit(&bytes);
    return wrong;
}

static void attacker_main(const Hostile *hostile, uint32_t number)
{
    Shared *shared = hostile->shared;
    uint64_t random = hostile->torture->seed * 31 + number;
    const Torture *torture = hostile->torture;
    while (atomic_load(&shared->stop) == 0 && atomic_load(&shared->failed) == 0 &&
           (torture->deadline_ms != 0 ? torture_now_ms() < torture->deadline_ms
                                      : atomic_load(&shared->frames) < torture->iterations)) {
        const char *wrong = attack(hostile, &random);
        if (wrong != NULL && atomic_exchange(&shared->failed, 1) == 0)
            snprintf(shared->message, sizeof shared->message, "attacker %u: %s", number, wrong);
    }
}

/* Takes the time of one small read every millisecond. */
static void probe_main(const Hostile *hostile)
{
    aidb *db;
    aidb_value value = {0};
    if (aidb_open(hostile->server.uri, NULL, &db) != AIDB_OK)
        _exit(1);
    while (atomic_load(&hostile->shared->stop) == 0) {
        Latency *latency =
            &hostile->shared->latency[atomic_load(&hostile->shared->under_attack) != 0];
        uint64_t since = now_us();
        aidb_status status = aidb_get(db, NULL, "c00/k0001", 9, &value);
        if (status != AIDB_OK && status != AIDB_NOT_FOUND)
            _exit(2);
        if (latency->count < LATENCIES)
            latency->us[latency->count++] = (uint32_t)(now_us() - since);
        torture_sleep_ms(1);
    }
    aidb_free(value.data);
    _exit(aidb_close(db) == AIDB_OK ? 0 : 3);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void tell_latency(Latency *latency, char text[100])
{
    qsort(latency->us, latency->count, sizeof latency->us[0], by_size);
    if (latency->count == 0)
        snprintf(text, 100, "none");
    else
        snprintf(text, 100, "%u/%u/%u us", latency->us[latency->count / 2],
                 latency->us[latency->count / 100 * 99], latency->us[latency->count - 1]);
}

static bool mutated_frames(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    Shared *shared = hostile->shared;
    pid_t clients[ORACLE_CLIENTS_MAX], attackers[ATTACKERS];
    size_t count = server_start_clients(&hostile->server, clients);
    pid_t probe = fork();
    if (probe == 0)
        probe_main(hostile);
    torture_sleep_ms(1000);
    atomic_store(&shared->under_attack, 1);
    uint64_t since = torture_now_ms();
    for (uint32_t i = 0; i < ATTACKERS; i++) {
        attackers[i] = fork();
        if (attackers[i] == 0) {
            attacker_main(hostile, i);
            _exit(0);
        }
    }
    bool ok = true;
    uint64_t before = 0, progress = torture_now_ms();
    for (uint32_t left = ATTACKERS; left > 0;) {
        left = 0;
        for (uint32_t i = 0; i < ATTACKERS; i++)
            left += !process_gone(attackers[i]);
        if (atomic_load(&shared->frames) != before) {
            before = atomic_load(&shared->frames);
            progress = torture_now_ms();
        }
        if (torture_now_ms() - progress > 2 * HANG_MS) {
            ok = hostile_failed(hostile, "mutated frames are not answered any more");
            break;
        }
        torture_sleep_ms(20);
    }
    uint64_t took = torture_now_ms() - since;
    atomic_store(&shared->stop, 1);
    int status;
    for (uint32_t i = 0; i < ATTACKERS; i++)
        if (!torture_wait(attackers[i], HANG_MS, &status) || status != 0)
            ok = torture_failed(torture, "attacker %u: status %d", i, status);
    if (!torture_wait(probe, HANG_MS, &status) || status != 0)
        ok = torture_failed(torture, "the probe was answered wrong, status %d", status);
    ok = server_end_clients(&hostile->server, clients, count) && ok;
    /* Nobody was in the way of the others: each went on until it was told to stop, or had written as much as
     * it may. */
    for (uint32_t c = 0; ok && c < torture->oracle->clients; c++)
        if (torture->oracle->client[c].ended != 0)
            ok = torture_failed(torture, "client %u got status %u beside hostile ones", c,
                                torture->oracle->client[c].ended);
    if (atomic_load(&shared->failed) != 0)
        ok = hostile_failed(hostile, shared->message);
    char quiet[100], loud[100];
    tell_latency(&shared->latency[0], quiet);
    tell_latency(&shared->latency[1], loud);
    snprintf(torture->note, sizeof torture->note,
             "%llu frames in %llu sessions, %llu replies, %llu s, reads of others "
             "(median/p99/max) alone %s, under attack %s",
             (unsigned long long)atomic_load(&shared->frames),
             (unsigned long long)atomic_load(&shared->sessions),
             (unsigned long long)atomic_load(&shared->replies), (unsigned long long)took / 1000,
             quiet, loud);
    return ok;
}

/* ---- sizes that lie, floods, cuts --------------------------------------------------------------- */

static bool lying_sizes(Hostile *hostile)
{
    static const uint32_t sizes[] = {0,           1,           16,           10240,
                                     10241,       BODY_MAX,    BODY_MAX + 1, 0x7fffffff,
                                     0x80000000u, 0xfffffff0u, 0xffffffffu};
    static const uint8_t types[] = {MESSAGE_HELLO, MESSAGE_CANCEL, MESSAGE_AUTHENTICATE,
                                    MESSAGE_GET,   MESSAGE_WRITE,  MESSAGE_SCAN};
    bool ok = true;
    for (size_t greeted = 0; greeted < 2; greeted++) {
        for (size_t s = 0; ok && s < sizeof sizes / sizeof sizes[0]; s++) {
            for (size_t t = 0; ok && t < sizeof types; t++) {
                Buffer bytes = {0};
                uint8_t header[FRAME_HEADER_SIZE + 5] = {0};
                put_fixed32(header, sizes[s]);
                header[4] = types[t];
                header[8] = 9;
                ok = (greeted != 0 ? greeting(&bytes)
                                   : buffer_append(&bytes, PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE) ==
                                         AIDB_OK) &&
                     buffer_append(&bytes, header, sizeof header) == AIDB_OK &&
                     talk(hostile, bytes.data, bytes.size);
                buffer_deinit(&bytes);
            }
        }
    }
    return ok;
}

static bool flood(Hostile *hostile, uint32_t count)
{
    const ClientOptions options = {.connect_timeout_ms = HANG_MS};
    Client *client;
    Message reply;
    if (client_connect(hostile->server.uri, &options, &client) != AIDB_OK)
        return hostile_failed(hostile, status_message());
    Status status = AIDB_OK;
    for (uint32_t i = 0; i < count && status == AIDB_OK; i++) {
        Message request = i % 2 == 0
                              ? (Message){.type = MESSAGE_PING}
                              : (Message){.type = MESSAGE_GET, .key = slice_from_string("none")};
        status = client_send(client, &request);
    }
    for (uint32_t i = 0; i < count && status == AIDB_OK; i++) {
        status = client_receive(client, &reply);
        if (status == AIDB_OK && reply.id != 2 + (uint64_t)i)
            status = status_set(AIDB_PROTOCOL, "reply %u came out of order", i);
    }
    client_close(client);
    return status == AIDB_OK || hostile_failed(hostile, status_message());
}

static bool cuts(Hostile *hostile)
{
    Buffer bytes = {0};
    uint64_t random = hostile->torture->seed;
    bool ok = greeting(&bytes);
    for (uint64_t id = 2; ok && id < 12; id++)
        ok = make_request(&random, id, &bytes) == AIDB_OK;
    for (size_t size = 0; ok && size <= bytes.size; size++)
        ok = talk(hostile, bytes.data, size);
    buffer_deinit(&bytes);
    return ok;
}

/* ---- slow and silent ---------------------------------------------------------------------------- */

static bool serves(Hostile *hostile, const char *uri, uint64_t *took_us)
{
    const ClientOptions options = {.connect_timeout_ms = HANG_MS};
    Client *client;
    Message request = {.type = MESSAGE_GET, .key = slice_from_string("none")}, reply;
    uint64_t since = now_us();
    Status status = client_connect(uri, &options, &client);
    if (status == AIDB_OK)
        status = client_send(client, &request);
    if (status == AIDB_OK)
        status = client_receive(client, &reply);
    if (status != AIDB_OK)
        hostile_failed(hostile, status_message());
    client_close(client);
    *took_us = now_us() - since;
    return status == AIDB_OK;
}

/* As many descriptors as wanted, or how many there are. */
static uint32_t may_open(uint32_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted + 100)
        return wanted;
    limit.rlim_cur = limit.rlim_max < wanted + 100 ? limit.rlim_max : wanted + 100;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur < wanted + 100 ? (uint32_t)limit.rlim_cur / 2 : wanted;
}

static bool slow_greetings(Hostile *hostile, uint32_t wanted)
{
    Torture *torture = hostile->torture;
    wanted = may_open(wanted);
    int *fds = calloc(wanted, sizeof *fds);
    Buffer bytes = {0};
    uint32_t open_count = 0, cut = 0;
    bool ok = fds != NULL && greeting(&bytes);
    uint64_t since = torture_now_ms(), longest = 0, took;
    for (uint32_t i = 0; ok && i < wanted; i++) {
        fds[i] = connect_tcp(hostile);
        if (fds[i] < 0) {
            ok =
                torture_failed(torture, "slow client %u could not connect: %s", i, strerror(errno));
            break;
        }
        open_count++;
        if (i % 100 == 0 && (ok = serves(hostile, hostile->tcp_uri, &took)) && took > longest)
            longest = took;
    }
    for (size_t second = 0; ok && cut < open_count; second++) {
        for (uint32_t i = 0; i < open_count; i++) {
            uint8_t byte;
            if (fds[i] < 0)
                continue;
            /* Half of them say nothing at all. */
            if (i % 2 == 0 && second < bytes.size)
                (void)!send(fds[i], bytes.data + second, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            ssize_t got;
            while ((got = recv(fds[i], &byte, 1, MSG_DONTWAIT)) > 0)
                continue;
            if (got == 0 || (got < 0 && errno != EAGAIN)) {
                close(fds[i]);
                fds[i] = -1;
                cut++;
            }
        }
        ok = serves(hostile, hostile->tcp_uri, &took);
        if (took > longest)
            longest = took;
        if (torture_now_ms() - since > GREETING_MS + HANG_MS)
            ok = torture_failed(torture, "%u slow clients are still connected", open_count - cut);
        torture_sleep_ms(1000);
    }
    size_t used = strlen(torture->note);
    snprintf(torture->note + used, sizeof torture->note - used,
             "; %u connections at once; %u slow greetings cut within %llu ms, longest other "
             "connect %llu ms",
             hostile->connections, cut, (unsigned long long)(torture_now_ms() - since),
             (unsigned long long)longest / 1000);
    for (uint32_t i = 0; i < open_count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(fds);
    buffer_deinit(&bytes);
    return ok;
}

/* ---- memory, descriptors, processes ------------------------------------------------------------- */

static uint64_t largest_child(Hostile *hostile)
{
    uint64_t largest = server_largest_child(&hostile->server);
    if (largest > hostile->rss_peak)
        hostile->rss_peak = largest;
    return largest;
}

typedef struct Holdings {
    uint32_t descriptors;
    uint32_t mappings;
    uint32_t children;
} Holdings;

static uint32_t count_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    uint32_t lines = 0;
    int byte;
    while (file != NULL && (byte = getc(file)) != EOF)
        lines += byte == '\n';
    if (file != NULL)
        fclose(file);
    return lines;
}

static Holdings holdings(const Hostile *hostile)
{
    char path[64];
    pid_t children[CHILDREN_MAX];
    Holdings found = {.children = (uint32_t)server_children(&hostile->server, children)};
    snprintf(path, sizeof path, "/proc/%d/fd", (int)hostile->server.pid);
    DIR *listing = opendir(path);
    while (listing != NULL && readdir(listing) != NULL)
        found.descriptors++;
    if (listing != NULL)
        closedir(listing);
    snprintf(path, sizeof path, "/proc/%d/maps", (int)hostile->server.pid);
    found.mappings = count_lines(path);
    return found;
}

/* The postmaster holds what it held before, once all sessions have ended. Its mappings may come to a few
 * more, the allocator's; a backend whose client has left may wait for another, with its descriptor. */
static bool holds_as_before(Hostile *hostile, const Holdings *before, const char *after_what)
{
    Holdings found = {0};
    for (uint64_t end = torture_now_ms() + HANG_MS; torture_now_ms() < end; torture_sleep_ms(20)) {
        found = holdings(hostile);
        if (found.children <= before->children + SPARE &&
            found.descriptors <= before->descriptors + SPARE &&
            found.mappings <= before->mappings + 16)
            return true;
    }
    return torture_failed(hostile->torture,
                          "after %s: %u descriptors, %u mappings, %u children; before: %u, %u, %u",
                          after_what, found.descriptors, found.mappings, found.children,
                          before->descriptors, before->mappings, before->children);
}

/* ---- readers that do not read ------------------------------------------------------------------- */

static bool put_large(Hostile *hostile, uint64_t bytes)
{
    enum { VALUE = 256 << 10 };
    aidb *db;
    char *value = malloc(VALUE), key[32];
    aidb_status status = value == NULL ? AIDB_NO_MEMORY : aidb_open(hostile->server.uri, NULL, &db);
    if (status != AIDB_OK) {
        free(value);
        return hostile_failed(hostile, aidb_error_message());
    }
    uint64_t random = hostile->torture->seed;
    for (size_t i = 0; i < VALUE; i += 8)
        put_fixed64((uint8_t *)value + i, oracle_random(&random));
    for (uint64_t i = 0; i < bytes / VALUE && status == AIDB_OK; i++) {
        snprintf(key, sizeof key, "hbig%06llu", (unsigned long long)i);
        status = aidb_put(db, key, strlen(key), value, VALUE);
    }
    free(value);
    if (status != AIDB_OK)
        hostile_failed(hostile, aidb_error_message());
    (void)aidb_close(db);
    return status == AIDB_OK;
}

static bool set_statement_timeout(Hostile *hostile, uint32_t ms)
{
    char path[TORTURE_PATH + 32];
    snprintf(path, sizeof path, "%s/aidb.yaml", hostile->server.data);
    Buffer text = {0};
    FILE *file = fopen(path, "r+");
    int byte;
    while (file != NULL && (byte = getc(file)) != EOF)
        if (buffer_append_byte(&text, (uint8_t)byte) != AIDB_OK)
            break;
    if (file == NULL || buffer_append_byte(&text, 0) != AIDB_OK) {
        buffer_deinit(&text);
        return hostile_failed(hostile, "could not read aidb.yaml");
    }
    char *line = strstr((char *)text.data, "\nstatement_timeout: ");
    size_t keep = line != NULL ? (size_t)(line - (char *)text.data) + 1 : strlen((char *)text.data);
    bool ok = ftruncate(fileno(file), (off_t)keep) == 0 && fseek(file, 0, SEEK_END) == 0 &&
              fprintf(file, "statement_timeout: %ums\n", ms) > 0;
    ok = fclose(file) == 0 && ok;
    buffer_deinit(&text);
    return (ok && server_aidbctl(&hostile->server,
                                 (const char *[]){"reload", "-D", hostile->server.data, NULL})) ||
           hostile_failed(hostile, "aidbctl reload failed");
}

/* Scans and gets whose replies nobody takes: little memory, and an end at statement_timeout. */
static bool never_reading(Hostile *hostile, uint64_t bytes)
{
    enum { READERS = 4, GETS = 2000 };
    Torture *torture = hostile->torture;
    struct pollfd fds[READERS];
    bool ok = put_large(hostile, bytes) && set_statement_timeout(hostile, STATEMENT_MS);
    uint64_t before = largest_child(hostile), largest = 0, since = torture_now_ms(), took;
    size_t made = 0, closed = 0;
    for (; ok && made < READERS; made++) {
        Buffer out = {0};
        ok = greeting(&out);
        for (uint64_t id = 2; ok && id < 2 + (made % 2 == 0 ? 1 : GETS); id++) {
            Message scan = {.type = MESSAGE_SCAN, .id = id, .credits = UINT32_MAX};
            Message get = {.type = MESSAGE_GET, .id = id, .key = slice_from_string("hbig000001")};
            ok = message_encode(&out, made % 2 == 0 ? &scan : &get) == AIDB_OK;
        }
        fds[made] = (struct pollfd){.fd = connect_unix(hostile), .events = POLLRDHUP};
        ok = ok && fds[made].fd >= 0 && send_all(fds[made].fd, out.data, out.size);
        buffer_deinit(&out);
    }
    while (ok && closed < READERS) {
        uint64_t size = largest_child(hostile);
        if (size > largest)
            largest = size;
        ok = serves(hostile, hostile->server.uri, &took);
        (void)poll(fds, READERS, 50);
        closed = 0;
        for (size_t i = 0; i < READERS; i++)
            closed += (fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
        if (torture_now_ms() - since > STATEMENT_MS + HANG_MS)
            ok = hostile_failed(hostile, "a client that takes no replies is never given up");
    }
    uint64_t ended = torture_now_ms() - since;
    for (size_t i = 0; i < made; i++)
        if (fds[i].fd >= 0)
            close(fds[i].fd);
    /* A chunk, the rows on their way and a value: a few MiB; sanitizers keep freed memory for long. */
    if (ok && largest > before + (256u << 20))
        ok = torture_failed(torture, "a backend grew from %llu to %llu bytes for a slow reader",
                            (unsigned long long)before, (unsigned long long)largest);
    size_t used = strlen(torture->note);
    snprintf(torture->note + used, sizeof torture->note - used,
             "; nobody reads %llu MiB: %llu MiB more in a backend, ended after %llu ms",
             (unsigned long long)bytes >> 20,
             (unsigned long long)(largest > before ? largest - before : 0) >> 20,
             (unsigned long long)ended);
    return set_statement_timeout(hostile, 0) && ok;
}

/* ---- connections -------------------------------------------------------------------------------- */

static bool all_connections(Hostile *hostile)
{
    const ClientOptions options = {.connect_timeout_ms = HANG_MS};
    Client **clients = calloc(hostile->connections, sizeof(Client *));
    Client *extra = NULL;
    Holdings before = holdings(hostile);
    uint32_t count = 0;
    bool ok = clients != NULL;
    uint64_t took;
    while (ok && count < hostile->connections - RESERVED) {
        if (client_connect(hostile->tcp_uri, &options, &clients[count]) != AIDB_OK)
            ok = torture_failed(hostile->torture, "connection %u: %s", count, status_message());
        else
            count++;
    }
    /* One more is refused, with a reason, and the administrator still gets in. */
    if (ok && (client_connect(hostile->tcp_uri, &options, &extra) != AIDB_LIMIT ||
               strstr(status_message(), "too many connections") == NULL))
        ok = torture_failed(hostile->torture, "past max_connections: %s", status_message());
    client_close(extra);
    ok = ok && serves(hostile, hostile->server.uri, &took);
    largest_child(hostile);
    for (uint32_t i = 0; i < count; i++)
        client_close(clients[i]);
    free(clients);
    return ok && holds_as_before(hostile, &before, "all connections were in use");
}

static bool churn(Hostile *hostile, uint32_t count)
{
    Holdings before = holdings(hostile);
    bool ok = true;
    uint64_t took;
    for (uint32_t i = 0; ok && i < count; i++) {
        if (i % 3 == 0) {
            int fd = i % 2 == 0 ? connect_unix(hostile) : connect_tcp(hostile);
            ok = fd >= 0 || hostile_failed(hostile, "could not connect");
            if (fd >= 0)
                close(fd);
        } else {
            ok = serves(hostile, i % 2 == 0 ? hostile->server.uri : hostile->tcp_uri, &took);
        }
        /* Ended sessions are reaped a moment later; they count until then. */
        if (i % 32 == 31)
            ok = ok && holds_as_before(hostile, &before, "connections came and went");
    }
    return ok && holds_as_before(hostile, &before, "connections came and went");
}

/* ---- limits ------------------------------------------------------------------------------------- */

static bool send_one(Hostile *hostile, Client *client, Message *request, bool fits,
                     const char *what, size_t size)
{
    Message reply;
    Status status = client_send(client, request);
    if (status == AIDB_OK)
        status = client_receive(client, &reply);
    if (status != AIDB_OK)
        return torture_failed(hostile->torture, "%s of %zu bytes: %s", what, size,
                              status_message());
    if ((reply.type != MESSAGE_ERROR) != fits)
        return torture_failed(hostile->torture, "%s of %zu bytes was %s", what, size,
                              fits ? "refused" : "taken");
    return true;
}

static bool sizes_at_limits(Hostile *hostile)
{
    const ClientOptions options = {.connect_timeout_ms = HANG_MS};
    Client *client;
    if (client_connect(hostile->server.uri, &options, &client) != AIDB_OK)
        return hostile_failed(hostile, status_message());
    uint8_t *bytes = malloc(BATCH_MAX + 64);
    bool ok = bytes != NULL;
    for (size_t size = AIDB_KEY_MAX - 1; ok && size <= AIDB_KEY_MAX + 1; size++) {
        bool fits = size <= AIDB_KEY_MAX;
        memset(bytes, 'h', size);
        /* Encoded by hand: batch_put knows the limit too. */
        Buffer ops = {0};
        ok = buffer_append_byte(&ops, OP_PUT) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make(bytes, size)) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make("v", 1)) == AIDB_OK;
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&ops)};
        Message get = {.type = MESSAGE_GET, .key = slice_make(bytes, size)};
        Message scan = {.type = MESSAGE_SCAN,
                        .flags = SCAN_ONE_CHUNK,
                        .rows = 1,
                        .from = slice_make(bytes, size),
                        .to = slice_make(bytes, size)};
        ok = ok && send_one(hostile, client, &write, fits, "a write of a key", size) &&
             send_one(hostile, client, &get, fits, "a get of a key", size) &&
             /* Bounds may be one byte longer than keys. */
             send_one(hostile, client, &scan, true, "a scan from a key", size);
        buffer_deinit(&ops);
    }
    for (size_t size = BATCH_MAX - 1; ok && size <= BATCH_MAX + 1; size++) {
        Buffer ops = {0};
        size_t head = 1 + 1 + 1 + 4; /* type, key with its size, size of the value */
        memset(bytes, 'v', size);
        ok = buffer_append_byte(&ops, OP_PUT) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make("h", 1)) == AIDB_OK &&
             buffer_append_slice(&ops, slice_make(bytes, size - head)) == AIDB_OK;
        if (ok && ops.size != size)
            ok = torture_failed(hostile->torture, "made %zu bytes for %zu", ops.size, size);
        Message write = {.type = MESSAGE_WRITE, .ops = buffer_slice(&ops)};
        ok = ok && send_one(hostile, client, &write, size <= BATCH_MAX, "a batch", size);
        buffer_deinit(&ops);
    }
    free(bytes);
    client_close(client);
    return ok;
}

/* ---- the campaign ------------------------------------------------------------------------------- */

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

bool hostile_campaign(Torture *torture)
{
    Hostile hostile = {.torture = torture, .server = {.control = NULL}};
    hostile.hosted = strcmp(torture->campaign, "hostile-hosted") == 0;
    bool release = torture->iterations >= 1000000 || torture->deadline_ms != 0;
    hostile.shared = mmap(NULL, sizeof *hostile.shared, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    /* The server needs two descriptors for each, and some. */
    hostile.connections = MAX_CONNECTIONS;
    struct rlimit limit;
    if (hostile.hosted && release && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max > 4000)
        hostile.connections =
            limit.rlim_max < 2 * MANY + 2000 ? (uint32_t)(limit.rlim_max - 2000) / 2 : MANY;
    (void)may_open(hostile.connections);
    if (hostile.shared == MAP_FAILED)
        return torture_failed(torture, "could not map memory");
    torture->oracle->clients = torture->oracle->clients < 4 ? torture->oracle->clients : 4;
    torture->oracle->async_percent = 10;
    torture->rounds = 1;
    bool ok = make_server(&hostile);
    pid_t postmaster = hostile.server.pid;
    Holdings before = {0};
    uint64_t took;
    ok = ok && serves(&hostile, hostile.server.uri, &took);
    if (ok)
        before = holdings(&hostile);
    const struct {
        const char *name;
        bool (*run)(Hostile *hostile);
    } phases[] = {{"mutated frames", mutated_frames},
                  {"sizes that lie", lying_sizes},
                  {"cuts", cuts},
                  {"all connections", all_connections},
                  {"sizes at limits", sizes_at_limits}};
    for (size_t i = 0; ok && i < sizeof phases / sizeof phases[0]; i++) {
        uint64_t since = torture_now_ms();
        ok = phases[i].run(&hostile);
        if (torture->verbose)
            printf("%s: %llu ms\n", phases[i].name, (unsigned long long)(torture_now_ms() - since));
    }
    ok = ok && flood(&hostile, 100000) && churn(&hostile, release ? 3000 : 300) &&
         slow_greetings(&hostile, release ? 2000 : 500) &&
         never_reading(&hostile, release ? 1ull << 30 : 32ull << 20);
    ok = ok && holds_as_before(&hostile, &before, "everything") && clean_up(&hostile) &&
         server_check(&hostile.server, AIDB_OS, 0, false);
    if (ok && (process_gone(postmaster) || hostile.server.pid != postmaster))
        ok = torture_failed(torture, "the postmaster is another one");
    ok = server_check_log(&hostile.server, "aidb.log") && ok;
    if (hostile.server.pid > 0 && !process_gone(hostile.server.pid)) {
        Server *server = &hostile.server;
        if (!server_aidbctl(server,
                            (const char *[]){"stop", "-D", server->data, "-m", "fast", NULL}))
            ok = torture_failed(torture, "aidbctl stop failed: see %s/aidbctl.log", torture->work);
        if (ok && !server_aidbctl(server, (const char *[]){"verify", "-D", server->data, NULL}))
            ok = torture_failed(torture, "verify found damage: see %s/aidbctl.log", torture->work);
        if (!process_gone(server->pid))
            server_kill(server, true);
    }
    munmap(hostile.shared, sizeof *hostile.shared);
    return ok;
}
