/*
 * hostile_crowd.c - hostile clients by their number or their patience: as many connections as there may be and more,
 * connections made and dropped, greetings that dribble or never come, replies that nobody takes.
 */
#include "config.h"

#include "torture/hostile.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REFUSALS        20u
#define CHURNERS        5u
#define CHURN_OPEN      10u /* connections that each keeps for a while */
#define CHURN           30000u
#define CHURN_SANITIZED 6000u /* where a process takes long to begin */
#define SLOW            2000u
#define DEAF            4u
#define DEAF_GETS       2000u
#define VALUE           ((size_t)256 << 10)
#define BYTES           ((uint64_t)1 << 30)
#define BYTES_SANITIZED ((uint64_t)64 << 20)

/* ---- as many as there may be -------------------------------------------------------------------- */

/* Past max_connections each is refused with a reason. Sessions of before may be on their way out, and the probe
 * comes and goes. */
static bool open_crowd(Hostile *hostile, int *fds, uint32_t *count)
{
    const uint32_t most = hostile->connections - RESERVED - PROBE_HELD;
    Torture *torture = hostile->torture;
    uint64_t end = torture_now_ms() + PATIENCE_MS;
    for (uint32_t refused = 0; refused < REFUSALS;) {
        int fd = hostile_connect(hostile, true);
        if (fd < 0)
            return torture_failed(torture, "connection %u: %s", *count, strerror(errno));
        Status status = hostile_ask(fd, true, 2);
        if (status == AIDB_OK && *count < most) {
            fds[(*count)++] = fd;
            end = torture_now_ms() + PATIENCE_MS;
            watch_memory(hostile);
            continue;
        }
        close(fd);
        if (status == AIDB_OK)
            return torture_failed(torture, "more than %u connections beside the administrator's",
                                  most);
        if (status != AIDB_LIMIT || strstr(status_message(), "too many connections") == NULL)
            return torture_failed(torture, "connection %u: %s", *count, status_message());
        if (*count >= hostile->crowd)
            refused++;
        else if (torture_now_ms() > end)
            return torture_failed(torture, "only %u of %u connections: %s", *count, hostile->crowd,
                                  status_message());
        else
            torture_sleep_ms(10);
    }
    return true;
}

bool attack_crowd(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    Holdings before = holdings(hostile);
    uint32_t count = 0;
    uint64_t since = torture_now_ms();
    int *fds = calloc(hostile->connections, sizeof *fds);
    bool ok = fds != NULL && open_crowd(hostile, fds, &count);
    uint64_t opened = torture_now_ms();
    /* The administrator still gets in, and each of them is served. */
    ok = ok && hostile_serves(hostile, hostile->server.uri);
    for (uint32_t i = 0; ok && i < count; i++)
        if (hostile_ask(fds[i], false, 3) != AIDB_OK)
            ok = torture_failed(torture, "connection %u of %u: %s", i, count, status_message());
    uint32_t children = ok ? holdings(hostile).children : 0;
    if (ok && !hostile->hosted && children < count)
        ok = torture_failed(torture, "%u processes serve %u connections", children, count);
    ok = ok && watch_hold(hostile);
    for (uint32_t i = 0; i < count; i++)
        close(fds[i]);
    free(fds);
    hostile_note(hostile, "; %u connections at once, made in %llu ms, %u processes", count,
                 (unsigned long long)(opened - since), children);
    return ok && holds_as_before(hostile, &before, "all connections were in use");
}

/* ---- made and dropped --------------------------------------------------------------------------- */

/* Every other one as a program that has died would. */
static void leave(int fd, bool reset)
{
    const struct linger at_once = {.l_onoff = 1};
    if (reset)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

/* One connection more, -1: it was refused, as ended ones are counted for a moment. */
static int come(const Hostile *hostile, bool tcp, bool asks)
{
    int fd = hostile_connect(hostile, tcp);
    Status status = fd < 0 ? status_set_errno(errno, "could not connect") : AIDB_OK;
    if (status == AIDB_OK && asks)
        status = hostile_ask(fd, true, 2);
    if (status == AIDB_OK)
        return fd;
    if (status != AIDB_LIMIT)
        hostile_report(hostile, "a client that comes and goes", status_message());
    if (fd >= 0)
        close(fd);
    return -1;
}

static void churner_main(const Hostile *hostile, uint32_t number, uint32_t total)
{
    HostileShared *shared = hostile->shared;
    uint64_t random = hostile->torture->seed * 37 + number;
    int open[CHURN_OPEN] = {0};
    size_t count = 0;
    while (atomic_load(&shared->failed) == 0 && atomic_load(&shared->connections) < total) {
        uint64_t pick = oracle_random(&random);
        int fd = come(hostile, pick % 2 == 0, (pick >> 8) % 3 != 0);
        if (fd < 0) {
            torture_sleep_ms(10);
            continue;
        }
        atomic_fetch_add(&shared->connections, 1);
        size_t place = count < CHURN_OPEN ? count++ : (size_t)(pick >> 16) % CHURN_OPEN;
        if (open[place] != 0)
            leave(open[place], (pick >> 24) % 2 == 0);
        open[place] = fd;
    }
    _exit(0);
}

bool attack_churn(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    HostileShared *shared = hostile->shared;
    Holdings before = holdings(hostile);
    uint32_t total = hostile->sanitized && !hostile->release ? CHURN_SANITIZED : CHURN;
    uint64_t since = torture_now_ms(), progress = since;
    uint32_t last = 0, made;
    pid_t churners[CHURNERS];
    bool ok = true;
    atomic_store(&shared->connections, 0);
    for (uint32_t i = 0; i < CHURNERS; i++) {
        churners[i] = fork();
        if (churners[i] == 0)
            churner_main(hostile, i, total);
    }
    while ((made = atomic_load(&shared->connections)) < total &&
           atomic_load(&shared->failed) == 0) {
        if (made != last)
            progress = torture_now_ms();
        last = made;
        if (torture_now_ms() - progress > 2 * PATIENCE_MS) {
            hostile_report(hostile, "clients that come and go", "not served any more");
            break;
        }
        watch_memory(hostile);
        torture_sleep_ms(20);
    }
    for (uint32_t i = 0; i < CHURNERS; i++) {
        int status;
        if (!torture_wait(churners[i], 2 * PATIENCE_MS, &status) || status != 0)
            ok = torture_failed(torture, "a client that comes and goes: status %d", status);
    }
    if (atomic_load(&shared->failed) != 0)
        ok = hostile_failed(hostile, shared->message);
    hostile_note(hostile, "; %u came and went in %llu ms", atomic_load(&shared->connections),
                 (unsigned long long)(torture_now_ms() - since));
    return ok && holds_as_before(hostile, &before, "connections came and went");
}

/* ---- slow and silent ---------------------------------------------------------------------------- */

/* Half of them send a byte now and then, half say nothing. How many the server has closed. */
static uint32_t dribble(int *fds, const Buffer *bytes, size_t place)
{
    uint32_t cut = 0;
    for (uint32_t i = 0; i < SLOW; i++) {
        uint8_t byte;
        if (fds[i] < 0)
            continue;
        if (i % 2 == 0 && place < bytes->size)
            (void)!send(fds[i], bytes->data + place, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        ssize_t got;
        while ((got = recv(fds[i], &byte, 1, MSG_DONTWAIT)) > 0)
            continue;
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            close(fds[i]);
            fds[i] = -1;
            cut++;
        }
    }
    return cut;
}

/* The server keeps so many that wait, and a few processes' channels. */
static bool few_wait(Hostile *hostile, uint32_t before, uint32_t *most)
{
    uint32_t now = watch_descriptors(hostile);
    if (now > *most)
        *most = now;
    return now <= before + WAITING_MAX + 64 ||
           torture_failed(hostile->torture,
                          "the postmaster has %u descriptors for clients without a greeting",
                          now - before);
}

bool attack_slow(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    int *fds = calloc(SLOW, sizeof *fds);
    Buffer bytes = {0};
    uint32_t made = 0, cut = 0, before = watch_descriptors(hostile), most = 0;
    bool ok = fds != NULL && hostile_greeting(&bytes);
    uint64_t since = torture_now_ms();
    for (; ok && made < SLOW; made++) {
        fds[made] = hostile_connect(hostile, true);
        if (fds[made] < 0)
            ok = torture_failed(torture, "slow client %u could not connect: %s", made,
                                strerror(errno));
        else if (made % 100 == 99)
            ok = few_wait(hostile, before, &most);
    }
    for (size_t second = 0; ok && cut < SLOW; second++) {
        cut += dribble(fds, &bytes, second);
        watch_memory(hostile);
        ok = few_wait(hostile, before, &most) && hostile_serves(hostile, hostile->tcp_uri);
        if (torture_now_ms() - since > GREETING_MS + PATIENCE_MS)
            ok = torture_failed(torture, "%u slow clients are still connected", SLOW - cut);
        torture_sleep_ms(1000);
    }
    hostile_note(hostile, "; %u slow greetings cut within %llu ms, %u waited at once", cut,
                 (unsigned long long)(torture_now_ms() - since), most > before ? most - before : 0);
    for (uint32_t i = 0; fds != NULL && i < made; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(fds);
    buffer_deinit(&bytes);
    return ok;
}

/* ---- readers that do not read ------------------------------------------------------------------- */

/* Values that compress well, so that they need little room where the test runs; in memory they are large. */
static bool put_large(Hostile *hostile, uint64_t bytes)
{
    aidb *db;
    aidb_batch *batch = aidb_batch_create();
    uint8_t *value = malloc(VALUE);
    uint64_t random = hostile->torture->seed;
    aidb_status status = aidb_open(hostile->server.uri, NULL, &db);
    if (status != AIDB_OK || value == NULL || batch == NULL) {
        free(value);
        aidb_batch_destroy(batch);
        return hostile_failed(hostile, status != AIDB_OK ? aidb_error_message() : "out of memory");
    }
    for (size_t i = 0; i < VALUE; i += 8)
        put_fixed64(value + i, i % 4096 == 0 ? oracle_random(&random) : 0);
    for (uint64_t i = 0; i < bytes / VALUE && status == AIDB_OK; i++) {
        char key[32];
        int size = snprintf(key, sizeof key, "hbig%06llu", (unsigned long long)i);
        status = aidb_batch_put(batch, key, (size_t)size, value, VALUE);
        if (status == AIDB_OK && i % 4 == 3) {
            status = aidb_write(db, batch, AIDB_ASYNC, NULL);
            aidb_batch_clear(batch);
            watch_memory(hostile);
        }
    }
    free(value);
    aidb_batch_destroy(batch);
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

/* A scan of everything, or many gets of a large value; the replies stay where they are. */
static int send_deaf(Hostile *hostile, bool scans)
{
    Buffer out = {0};
    const Message scan = {.type = MESSAGE_SCAN, .id = 2, .credits = UINT32_MAX};
    Message get = {.type = MESSAGE_GET, .key = slice_from_string("hbig000001")};
    bool ok = hostile_greeting(&out);
    if (scans)
        ok = ok && message_encode(&out, &scan) == AIDB_OK;
    for (get.id = 2; ok && !scans && get.id < 2 + DEAF_GETS; get.id++)
        ok = message_encode(&out, &get) == AIDB_OK;
    int fd = ok ? hostile_connect(hostile, false) : -1;
    if (fd >= 0 && !hostile_send(fd, out.data, out.size)) {
        close(fd);
        fd = -1;
    }
    buffer_deinit(&out);
    return fd;
}

/* Replies that nobody takes cost little memory, and end at statement_timeout. */
bool attack_deaf(Hostile *hostile)
{
    Torture *torture = hostile->torture;
    uint64_t bytes = hostile->sanitized && !hostile->release ? BYTES_SANITIZED : BYTES;
    struct pollfd fds[DEAF];
    bool ok = (hostile->large || put_large(hostile, bytes)) &&
              set_statement_timeout(hostile, STATEMENT_MS);
    hostile->large = true;
    uint64_t before = server_largest_child(&hostile->server), largest = 0;
    uint64_t since = torture_now_ms();
    size_t made = 0, closed = 0;
    for (; ok && made < DEAF; made++) {
        fds[made] = (struct pollfd){.fd = send_deaf(hostile, made % 2 == 0), .events = POLLRDHUP};
        ok = fds[made].fd >= 0 || hostile_failed(hostile, "a deaf client could not connect");
    }
    while (ok && closed < DEAF) {
        uint64_t size = server_largest_child(&hostile->server);
        if (size > largest)
            largest = size;
        watch_memory(hostile);
        ok = hostile_serves(hostile, hostile->server.uri);
        (void)poll(fds, DEAF, 50);
        closed = 0;
        for (size_t i = 0; i < DEAF; i++)
            closed += (fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
        if (torture_now_ms() - since > STATEMENT_MS + PATIENCE_MS)
            ok = hostile_failed(hostile, "a client that takes no replies is never given up");
    }
    uint64_t ended = torture_now_ms() - since;
    for (size_t i = 0; i < made; i++)
        if (fds[i].fd >= 0)
            close(fds[i].fd);
    /* A chunk, the rows on their way and a value: a few MiB; sanitizers keep freed memory for long. */
    uint64_t limit = (hostile->sanitized ? 256u : 32u) << 20;
    if (ok && largest > before + limit)
        ok = torture_failed(torture, "a process grew from %llu to %llu bytes for a deaf client",
                            (unsigned long long)before, (unsigned long long)largest);
    hostile_note(hostile,
                 "; nobody reads %llu MiB: %llu KiB more in a process, ended after %llu ms",
                 (unsigned long long)bytes >> 20,
                 (unsigned long long)(largest > before ? largest - before : 0) >> 10,
                 (unsigned long long)ended);
    return set_statement_timeout(hostile, 0) && ok;
}
