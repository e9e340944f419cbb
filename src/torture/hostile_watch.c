/*
 * hostile_watch.c - what hostile clients must not do to others: make them wait, take the server's memory, leave
 * something behind.
 *
 * The probe is a client of its own, there all the time. It reads a small value over each of a few
 * connections, one at each host, and over one that it makes for that, again and again. What it is used to is
 * measured before any attack; each attack lasts until the probe has been served often enough meanwhile, and the
 * median of each connection must stay within LATENCY_FACTOR of what it was. So no clock of a slow machine is
 * judged: the machine was as slow before. What a median on an idle machine takes says little about a busy
 * one, which is what LATENCY_FLOOR_US is for: it is about what a process waits for a processor that a few
 * others want, and far below what anything takes that waits for a client.
 *
 * Memory is what all processes of the server have together, shared pages counted once (Pss), and must stay
 * below what the settings allow plus a sum for each process and client.
 */
#include "config.h"

#include "torture/hostile.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROBES           60u /* of each connection, at least, during each attack */
#define LATENCY_FACTOR   20u
#define LATENCY_FLOOR_US 5000u
#define MEMORY_EACH_MS   250u
#define SPARE            48u /* processes that the postmaster may keep for the next clients, at most */

/* What memory may come to: the settings, and for what has none. */
#define MEMORY_SETTINGS   ((24u + 16u) << 20) /* memory, and little of request_memory */
#define MEMORY_OF_BUSY    (12u << 20) /* a process that works: open tables, what malloc keeps */
#define MEMORY_OF_PROCESS (1u << 20)  /* one that has been asked little */
#define MEMORY_OF_CLIENT  (16u << 10)
#define BUSY_DUTIES       6u
#define BUSY_BACKENDS     16u

static const char *const attack_names[ATTACKS] = {
    "alone", "mutated frames", "lies",         "floods", "all connections in use",
    "churn", "slow greetings", "deaf readers",
};

uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- the probe ---------------------------------------------------------------------------------- */

static Status read_one(Client *client)
{
    Message request = {.type = MESSAGE_GET, .key = slice_from_string("c00/k0001")}, reply;
    RETURN_IF_FAILED(client_send(client, &request));
    RETURN_IF_FAILED(client_receive(client, &reply));
    return reply.type == MESSAGE_VALUE ? AIDB_OK : error_take(&reply);
}

static Status read_over_new(const char *uri)
{
    const ClientOptions options = {.application = "probe", .connect_timeout_ms = PATIENCE_MS};
    Client *client;
    Status status = client_connect(uri, &options, &client);
    if (status == AIDB_OK)
        status = read_one(client);
    client_close(client);
    return status;
}

static void probe_main(const Hostile *hostile)
{
    const ClientOptions options = {.application = "probe", .connect_timeout_ms = PATIENCE_MS};
    HostileShared *shared = hostile->shared;
    Client *held[PROBE_HELD];
    Status status = AIDB_OK;
    for (size_t i = 0; status == AIDB_OK && i < PROBE_HELD; i++)
        status = client_connect(hostile->server.uri, &options, &held[i]);
    while (status == AIDB_OK && atomic_load(&shared->probe_stop) == 0) {
        for (size_t i = 0; status == AIDB_OK && i < PROBE_ALL; i++) {
            Latency *latency = &shared->latency[atomic_load(&shared->attack)][i];
            uint64_t since = now_us();
            status = i < PROBE_HELD ? read_one(held[i]) : read_over_new(hostile->server.uri);
            uint32_t count = atomic_load(&latency->count);
            if (status == AIDB_OK && count < LATENCIES) {
                latency->us[count] = (uint32_t)(now_us() - since);
                atomic_store(&latency->count, count + 1);
            }
        }
        torture_sleep_ms(1);
    }
    if (status != AIDB_OK)
        hostile_report(hostile, "the probe", status_message());
    _exit(status == AIDB_OK ? 0 : 1);
}

void watch_attack(Hostile *hostile, Attack attack)
{
    hostile->memory_peak = 0;
    hostile->memory_ms = 0;
    atomic_store(&hostile->shared->stop, 0);
    atomic_store(&hostile->shared->attack, attack);
}

bool watch_enough(const Hostile *hostile)
{
    HostileShared *shared = hostile->shared;
    Latency *latency = shared->latency[atomic_load(&shared->attack)];
    for (size_t i = 0; i < PROBE_ALL; i++)
        if (atomic_load(&latency[i].count) < PROBES)
            return false;
    return true;
}

bool watch_hold(Hostile *hostile)
{
    for (uint64_t end = torture_now_ms() + 2 * PATIENCE_MS; !watch_enough(hostile);) {
        watch_memory(hostile);
        if (atomic_load(&hostile->shared->failed) != 0)
            return hostile_failed(hostile, hostile->shared->message);
        if (process_gone(hostile->probe) || torture_now_ms() > end)
            return hostile_failed(hostile, "the probe is not served any more");
        torture_sleep_ms(5);
    }
    watch_memory(hostile);
    return true;
}

bool watch_begin(Hostile *hostile)
{
    watch_attack(hostile, ATTACK_NONE);
    hostile->probe = fork();
    if (hostile->probe == 0)
        probe_main(hostile);
    return hostile->probe > 0 && watch_hold(hostile) && watch_judge(hostile);
}

bool watch_end(Hostile *hostile)
{
    int status;
    if (hostile->probe <= 0)
        return true;
    atomic_store(&hostile->shared->probe_stop, 1);
    bool ok = torture_wait(hostile->probe, 2 * PATIENCE_MS, &status) && status == 0;
    if (!ok)
        hostile_failed(hostile, hostile->shared->message[0] != 0
                                    ? hostile->shared->message
                                    : "the probe was not served any more");
    return ok;
}

/* ---- memory ------------------------------------------------------------------------------------- */

/* Of a process, its part of shared pages included; 0 when it has gone, or where it cannot be told. */
static uint64_t bytes_of(pid_t pid)
{
    char path[64], line[200];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Pss: %llu", &kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return kib << 10;
}

void watch_memory(Hostile *hostile)
{
    if (hostile->memory_ms != 0 && torture_now_ms() - hostile->memory_ms < MEMORY_EACH_MS)
        return;
    pid_t children[CHILDREN_MAX];
    uint64_t bytes = bytes_of(hostile->server.pid);
    size_t count = server_children(&hostile->server, children);
    for (size_t i = 0; i < count; i++)
        bytes += bytes_of(children[i]);
    if (bytes > hostile->memory_peak)
        hostile->memory_peak = bytes;
    hostile->memory_ms = torture_now_ms();
}

static uint64_t memory_limit(const Hostile *hostile, Attack attack)
{
    uint64_t clients = attack == ATTACK_CROWD ? hostile->connections : WAITING_MAX;
    uint64_t busy = BUSY_DUTIES + (hostile->hosted ? HOSTS : BUSY_BACKENDS);
    uint64_t processes = attack == ATTACK_CROWD ? hostile->connections : SPARE;
    return MEMORY_SETTINGS + busy * MEMORY_OF_BUSY + clients * MEMORY_OF_CLIENT +
           (hostile->hosted ? 0 : processes * MEMORY_OF_PROCESS);
}

/* ---- judgement ---------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t median(Latency *latency)
{
    uint32_t count = atomic_load(&latency->count);
    qsort(latency->us, count, sizeof latency->us[0], by_size);
    return count > 0 ? latency->us[count / 2] : 0;
}

bool watch_judge(Hostile *hostile)
{
    HostileShared *shared = hostile->shared;
    Torture *torture = hostile->torture;
    Attack attack = atomic_load(&shared->attack);
    const char *name = attack_names[attack];
    uint64_t limit = memory_limit(hostile, attack);
    uint32_t slowest = 0, connect = 0;
    bool ok = true;
    atomic_store(&shared->attack, ATTACKS); /* what the probe sees from here on belongs to none */
    for (size_t i = 0; i < PROBE_ALL; i++) {
        uint32_t now = median(&shared->latency[attack][i]);
        uint32_t used_to = median(&shared->latency[ATTACK_NONE][i]);
        uint32_t floor = used_to > LATENCY_FLOOR_US ? used_to : LATENCY_FLOOR_US;
        if (i == PROBE_HELD)
            connect = now;
        else if (now > slowest)
            slowest = now;
        if (now > LATENCY_FACTOR * floor)
            ok = torture_failed(
                torture, "%s: others wait %u us for %s, in the median, instead of %u", name, now,
                i < PROBE_HELD ? "a read" : "a connection and a read", used_to);
    }
    hostile_note(hostile, "; %s %u/%u us, %llu MiB", name, slowest, connect,
                 (unsigned long long)hostile->memory_peak >> 20);
    if (torture->verbose)
        printf("%s: median read %u us, with a connection %u us, memory %llu KiB of %llu\n", name,
               slowest, connect, (unsigned long long)hostile->memory_peak >> 10,
               (unsigned long long)limit >> 10);
    /* A sanitizer keeps what is freed, and a shadow of all. */
    if (ok && !hostile->sanitized && hostile->memory_peak > limit)
        ok = torture_failed(torture, "%s: the server takes %llu KiB of memory, more than %llu",
                            name, (unsigned long long)hostile->memory_peak >> 10,
                            (unsigned long long)limit >> 10);
    return ok;
}

/* ---- leftovers ---------------------------------------------------------------------------------- */

static void count_descriptors(pid_t pid, Holdings *found)
{
    char path[64], target[16];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *listing = opendir(path);
    if (listing == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        ssize_t size = readlinkat(dirfd(listing), entry->d_name, target, sizeof target);
        if (size > 0 && target[0] == '/')
            found->files++;
        else if (size > 0)
            found->sockets++;
    }
    closedir(listing);
}

/* Mappings, and how many of them are shared. */
static uint32_t count_mappings(pid_t pid, uint32_t *shared)
{
    char path[64], line[1000], permissions[8];
    uint32_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        count++;
        *shared += sscanf(line, "%*s %7s", permissions) == 1 && permissions[3] == 's';
    }
    if (file != NULL)
        fclose(file);
    return count;
}

static uint32_t count_system_v(void)
{
    static const char *const lists[] = {"/proc/sysvipc/shm", "/proc/sysvipc/sem",
                                        "/proc/sysvipc/msg"};
    uint32_t lines = 0;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        FILE *file = fopen(lists[i], "r");
        char line[400];
        bool title = true;
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            lines += !title;
            title = false;
        }
        if (file != NULL)
            fclose(file);
    }
    return lines;
}

Holdings holdings(const Hostile *hostile)
{
    pid_t children[CHILDREN_MAX];
    char title[80];
    Holdings found = {.children = (uint32_t)server_children(&hostile->server, children),
                      .system_v = hostile->own_ipc ? count_system_v() : 0};
    count_descriptors(hostile->server.pid, &found);
    found.mappings = count_mappings(hostile->server.pid, &found.shared);
    for (uint32_t i = 0; i < found.children; i++) {
        process_title(children[i], title);
        if (strstr(title, " backend") != NULL)
            continue; /* they come and go */
        count_descriptors(children[i], &found);
        (void)count_mappings(children[i], &found.shared);
    }
    return found;
}

/* A backend whose client has left may wait for another, with its channel; tables and log segments are opened as
 * need be; the allocator may have mapped a little; and the probe may be in the middle of a connection. */
bool holds_as_before(Hostile *hostile, const Holdings *before, const char *after_what)
{
    uint32_t spare = hostile->hosted ? 0 : SPARE;
    Holdings found = {0};
    for (uint64_t end = torture_now_ms() + PATIENCE_MS; torture_now_ms() < end;
         torture_sleep_ms(20)) {
        found = holdings(hostile);
        if (found.children <= before->children + spare &&
            found.sockets <= before->sockets + spare + 2 && found.files <= before->files + 100 &&
            found.shared <= before->shared + 8 && found.mappings <= before->mappings + 16 &&
            found.system_v <= before->system_v)
            return true;
    }
    return torture_failed(
        hostile->torture,
        "after %s: %u children, %u sockets, %u files, %u mappings, %u shared, %u System V objects; "
        "before: %u, %u, %u, %u, %u, %u",
        after_what, found.children, found.sockets, found.files, found.mappings, found.shared,
        found.system_v, before->children, before->sockets, before->files, before->mappings,
        before->shared, before->system_v);
}

uint32_t watch_descriptors(const Hostile *hostile)
{
    Holdings found = {0};
    count_descriptors(hostile->server.pid, &found);
    return found.sockets + found.files;
}
