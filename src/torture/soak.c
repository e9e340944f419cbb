/*
 * soak.c - a server under mixed load for long: nothing may grow that has no reason to.
 *
 * Rounds of some seconds with the oracle's clients (slowed, as most servers are not busy), a writer of
 * bulk data, a program that holds snapshots and reads them twice, reloads of the configuration,
 * flushes and compactions. Clients end without saying so. After each round everything is compared, the
 * store is compacted, and what the server has is counted: anonymous and shared memory and descriptors of
 * all its processes, metadata of the region, files. In some rounds all bulk data is deleted, and its space
 * must be free after a compaction. In some a child is killed. In the end the server stops cleanly, which
 * checks that the region's memory balances (engine/db/README.md).
 *
 * Growth is the median of the second half of the rounds against that of the first, without the first
 * quarter, which is warm-up. Each kind may drift by two percent and a small absolute amount: one more
 * page here and there is no leak.
 */
#include "config.h"

#include "torture/server.h"

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUND_MS       12000u
#define BULK_KEYS      4000u
#define BULK_SIZE      4096u
#define SAMPLES_MAX    20000u
#define DELETE_EVERY   6u
#define KILL_EVERY     45u /* and the first soon */
#define SNAPSHOT_HOLDS 1500u

/* ---- the programs beside the oracle's clients ----------------------------------------------------- */

static size_t bulk_key(uint32_t key, char text[24])
{
    return (size_t)snprintf(text, 24, ORACLE_BULK "%06u", key);
}

/* The same key always has the same size, so that the amount of data stays; the content is new. */
static aidb_status bulk_write(aidb *db, uint32_t first, uint32_t count, uint64_t *random)
{
    static uint64_t value[BULK_SIZE / 8];
    aidb_batch *batch = aidb_batch_create();
    aidb_status status = batch != NULL ? AIDB_OK : AIDB_NO_MEMORY;
    for (uint32_t i = 0; i < count && status == AIDB_OK; i++) {
        char key[24];
        for (size_t w = 0; w < sizeof value / sizeof value[0]; w++)
            value[w] = oracle_random(random);
        size_t size = bulk_key((first + i) % BULK_KEYS, key);
        status = aidb_batch_put(batch, key, size, value, sizeof value);
    }
    if (status == AIDB_OK)
        status = aidb_write(db, batch, AIDB_OS, NULL);
    aidb_batch_destroy(batch);
    return status;
}

static bool stopped(const Oracle *oracle)
{
    return atomic_load(&oracle->stop) != 0;
}

static int write_bulk(const Server *server, uint64_t random)
{
    const Oracle *oracle = server->torture->oracle;
    while (!stopped(oracle)) {
        aidb *db;
        aidb_status status = aidb_open(server->uri, NULL, &db);
        while (status == AIDB_OK && !stopped(oracle)) {
            uint32_t first = (uint32_t)(oracle_random(&random) % BULK_KEYS);
            status = bulk_write(db, first, 1 + (uint32_t)(oracle_random(&random) % 16), &random);
            torture_sleep_ms(20);
        }
        torture_sleep_ms(20);
    }
    return 0; /* ends without closing */
}

/* A sum over everything that the snapshot shows. */
static aidb_status snapshot_sum(aidb *db, const aidb_snapshot *snapshot, uint64_t *sum)
{
    aidb_iter *iter;
    const aidb_entry *entry;
    *sum = 0;
    aidb_status status = aidb_iter_create(db, snapshot, NULL, &iter);
    if (status != AIDB_OK)
        return status;
    while ((status = aidb_iter_next(iter, &entry)) == AIDB_OK && entry != NULL) {
        const uint8_t *bytes = entry->value;
        uint64_t one = entry->lsn * 31 + entry->key_size + entry->value_size;
        for (size_t i = 0; i < entry->value_size; i += 97)
            one = one * 31 + bytes[i];
        *sum = *sum * 0x9e3779b97f4a7c15u + one;
    }
    aidb_iter_destroy(iter);
    return status;
}

static int hold_snapshots(const Server *server, uint64_t random)
{
    const Oracle *oracle = server->torture->oracle;
    while (!stopped(oracle)) {
        aidb *db;
        aidb_status status = aidb_open(server->uri, NULL, &db);
        while (status == AIDB_OK && !stopped(oracle)) {
            aidb_snapshot *snapshot = NULL;
            uint64_t first = 0, second = 0;
            status = aidb_snapshot_create(db, &snapshot);
            if (status == AIDB_OK)
                status = snapshot_sum(db, snapshot, &first);
            torture_sleep_ms((uint32_t)(oracle_random(&random) % SNAPSHOT_HOLDS));
            if (status == AIDB_OK)
                status = snapshot_sum(db, snapshot, &second);
            if (status == AIDB_OK && first != second)
                return 9;
            /* Some are left to the end of the connection. */
            if (oracle_random(&random) % 4 != 0)
                aidb_snapshot_destroy(snapshot);
            else if (status == AIDB_OK)
                status = AIDB_CONNECTION;
        }
        if (db != NULL && oracle_random(&random) % 2 == 0)
            (void)aidb_close(db);
        torture_sleep_ms(20);
    }
    return 0;
}

static pid_t start_program(const Server *server, int (*run)(const Server *, uint64_t))
{
    uint64_t random = oracle_random(&server->torture->random);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGPIPE, SIG_IGN);
        _exit(run(server, random));
    }
    return pid;
}

/* ---- what the server has -------------------------------------------------------------------------- */

enum {
    HAS_MEMORY,
    HAS_BACKEND,
    HAS_DESCRIPTORS,
    HAS_METADATA,
    HAS_MEMTABLES,
    HAS_TABLES,
    HAS_LOG,
    HAS_COUNT
};

static const struct {
    const char *name;
    double slack; /* beside two percent */
    bool kib;
} kinds[HAS_COUNT] = {
    {"memory KiB", 1024 << 10, true},
    {"a spare backend KiB", 512 << 10, true},
    {"descriptors", 2, false},
    {"metadata B", 16 << 10, false},
    {"memtable memory KiB", 1 << 20, true},
    {"table files KiB", 512 << 10, true},
    {"log files KiB", 2 << 20, true},
};

typedef struct Sample {
    double has[HAS_COUNT];
} Sample;

typedef struct Soak {
    Server server;
    Sample samples[SAMPLES_MAX];
    uint32_t sample_count;
    uint32_t kills, deletes, reloads;
    uint64_t random;
} Soak;

static double process_memory(pid_t pid)
{
    char path[64], line[200];
    unsigned long kib, sum = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Anonymous: %lu kB", &kib) == 1 ||
            sscanf(line, "Pss_Shmem: %lu kB", &kib) == 1)
            sum += kib;
    if (file != NULL)
        fclose(file);
    return (double)sum * 1024;
}

static double process_descriptors(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    double count = 0;
    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count;
}

/* nftw has no argument for its callback. */
static double table_bytes, log_bytes;

static int add_file(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)place;
    if (type == FTW_F && strstr(path, "/wal/") != NULL)
        log_bytes += (double)info->st_blocks * 512;
    else if (type == FTW_F && strstr(path, "/sst/") != NULL)
        table_bytes += (double)info->st_blocks * 512;
    return 0;
}

static double property(const char *text, const char *name)
{
    size_t size = strlen(name);
    for (const char *line = text; line != NULL && *line != 0; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, size) == 0 && line[size] == '\t')
            return strtod(line + size + 1, NULL);
    }
    return -1;
}

/* Compacts and counts. Nobody else is connected. */
static bool count(Soak *soak, Sample *sample)
{
    Server *server = &soak->server;
    Torture *torture = server->torture;
    aidb *db = NULL;
    char *text = NULL;
    aidb_status status = aidb_open(server->uri, NULL, &db);
    if (status == AIDB_OK)
        status = aidb_control(db, "flush", NULL);
    if (status == AIDB_OK)
        status = aidb_control(db, "compact", NULL);
    if (status == AIDB_OK)
        status = aidb_control(db, "compact_wait", NULL);
    torture_sleep_ms(1200); /* what was replaced is unlinked by the background processes */
    if (status == AIDB_OK)
        status = aidb_property(db, "status", &text);
    if (status != AIDB_OK) {
        (void)torture_failed(torture, "could not compact and count: %s", aidb_error_message());
        (void)aidb_close(db);
        return false;
    }
    *sample = (Sample){.has = {0}};
    sample->has[HAS_METADATA] = property(text, "metadata_used");
    sample->has[HAS_MEMTABLES] = property(text, "memtable_memory_used");
    bool snapshots = property(text, "snapshots") != 0;
    aidb_free(text);
    (void)aidb_close(db);
    uint64_t end = torture_now_ms() + 5000;
    pid_t children[CHILDREN_MAX];
    size_t child_count = 0;
    for (bool backend = true; backend && torture_now_ms() < end; torture_sleep_ms(5)) {
        backend = false;
        child_count = server_children(server, children);
        for (size_t i = 0; i < child_count; i++) {
            char title[80];
            process_title(children[i], title);
            backend |= strstr(title, "backend") != NULL && strstr(title, "spare") == NULL;
        }
    }
    sample->has[HAS_MEMORY] = process_memory(server->pid);
    sample->has[HAS_DESCRIPTORS] = process_descriptors(server->pid);
    double spare = 0;
    for (size_t i = 0; i < child_count; i++) {
        char title[80];
        process_title(children[i], title);
        if (strstr(title, "backend") != NULL) { /* their number is up to chance */
            sample->has[HAS_BACKEND] += process_memory(children[i]);
            spare++;
            continue;
        }
        sample->has[HAS_MEMORY] += process_memory(children[i]);
        sample->has[HAS_DESCRIPTORS] += process_descriptors(children[i]);
    }
    if (spare > 0)
        sample->has[HAS_BACKEND] /= spare;
    table_bytes = log_bytes = 0;
    nftw(server->data, add_file, 16, FTW_PHYS);
    sample->has[HAS_TABLES] = table_bytes;
    sample->has[HAS_LOG] = log_bytes;
    return !snapshots || torture_failed(torture, "a snapshot outlived its connection");
}

/* All bulk data is deleted: its space must come back. Then it is written again. */
static bool delete_bulk(Soak *soak, const Sample *before)
{
    Server *server = &soak->server;
    Torture *torture = server->torture;
    aidb *db = NULL;
    Sample after;
    aidb_batch *batch = aidb_batch_create();
    aidb_status status = aidb_open(server->uri, NULL, &db);
    if (status == AIDB_OK)
        status = aidb_batch_delete_range(
            batch, &(aidb_range){{ORACLE_BULK, strlen(ORACLE_BULK)}, {ORACLE_BULK "~", 6}});
    if (status == AIDB_OK)
        status = aidb_write(db, batch, AIDB_FSYNC, NULL);
    aidb_batch_destroy(batch);
    bool ok = status == AIDB_OK || torture_failed(torture, "delete: %s", aidb_error_message());
    ok = ok && count(soak, &after);
    double bulk = (double)BULK_KEYS * BULK_SIZE;
    if (ok && before->has[HAS_TABLES] - after.has[HAS_TABLES] < bulk * 0.95)
        ok = torture_failed(torture, "%.0f bytes were deleted, %.0f of %.0f came back", bulk,
                            before->has[HAS_TABLES] - after.has[HAS_TABLES],
                            before->has[HAS_TABLES]);
    for (uint32_t key = 0; ok && key < BULK_KEYS; key += 20)
        ok = bulk_write(db, key, 20, &soak->random) == AIDB_OK ||
             torture_failed(torture, "bulk data: %s", aidb_error_message());
    (void)aidb_close(db);
    soak->deletes++;
    return ok;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const Soak *soak, uint32_t from, uint32_t to, int kind)
{
    static double values[SAMPLES_MAX];
    uint32_t used = 0;
    for (uint32_t i = from; i < to; i++)
        values[used++] = soak->samples[i].has[kind];
    qsort(values, used, sizeof values[0], by_size);
    return used > 0 ? values[used / 2] : 0;
}

/* Says what grew, and makes the note of the last line. */
static bool compare(Soak *soak)
{
    Torture *torture = soak->server.torture;
    bool ok = true;
    uint32_t first = soak->sample_count / 4, middle = first + (soak->sample_count - first) / 2;
    size_t used =
        (size_t)snprintf(torture->note, sizeof torture->note, "%u deletions, %u kills, %u reloads",
                         soak->deletes, soak->kills, soak->reloads);
    for (int kind = 0; kind < HAS_COUNT; kind++) {
        double before = median(soak, first, middle, kind);
        double after = median(soak, middle, soak->sample_count, kind);
        double unit = kinds[kind].kib ? 1024 : 1;
        used +=
            (size_t)snprintf(torture->note + used, sizeof torture->note - used, ", %s %.0f to %.0f",
                             kinds[kind].name, before / unit, after / unit);
        /* Few rounds say nothing about growth. */
        if (soak->sample_count >= 8 && after > before * 1.02 + kinds[kind].slack)
            ok = torture_failed(torture, "%s grew from %.0f to %.0f", kinds[kind].name,
                                before / unit, after / unit);
    }
    return ok;
}

static bool soak_round(Soak *soak)
{
    Server *server = &soak->server;
    Torture *torture = server->torture;
    pid_t clients[ORACLE_CLIENTS_MAX], programs[2];
    uint64_t since = torture_now_ms();
    bool kill_one = torture->rounds % KILL_EVERY == 4, ok = true;
    size_t client_count = server_start_clients(server, clients);
    programs[0] = start_program(server, write_bulk);
    programs[1] = start_program(server, hold_snapshots);
    torture_sleep_ms(ROUND_MS / 2);
    ok = server_aidbctl(server, (const char *[]){"reload", "-D", server->data, NULL}) ||
         torture_failed(torture, "aidbctl reload failed: see aidbctl.log");
    soak->reloads++;
    torture_sleep_ms(ROUND_MS / 2);
    if (kill_one) {
        since = torture_now_ms();
        ok = server_kill_child(server, NULL) && ok;
        soak->kills++;
    }
    ok = server_end_clients(server, clients, client_count) && ok;
    for (size_t i = 0; i < 2; i++) {
        int status;
        if (!torture_wait(programs[i], ANSWER_MS, &status))
            ok = torture_failed(torture, "program %zu hung", i);
        else if (status != 0)
            ok = torture_failed(torture, "program %zu ended with status %d (9: a snapshot changed)",
                                i, WIFEXITED(status) ? WEXITSTATUS(status) : -status);
    }
    ok = ok && server_check(server, AIDB_OS, since, kill_one);
    Sample *sample = &soak->samples[soak->sample_count];
    ok = ok && count(soak, sample);
    if (ok && soak->sample_count + 1 < SAMPLES_MAX)
        soak->sample_count++;
    if (ok && torture->verbose) {
        printf("round %llu:", (unsigned long long)torture->rounds);
        for (int kind = 0; kind < HAS_COUNT; kind++)
            printf(" %s %.0f", kinds[kind].name, sample->has[kind] / (kinds[kind].kib ? 1024 : 1));
        printf("\n");
        fflush(stdout);
    }
    if (ok && torture->rounds % DELETE_EVERY == 0)
        ok = delete_bulk(soak, sample);
    return ok;
}

bool soak_campaign(Torture *torture)
{
    static Soak soak;
    Oracle *oracle = torture->oracle;
    if (oracle->clients > 3)
        oracle->clients = 3;
    oracle->async_percent = 10;
    oracle->fsync_percent = 20;
    oracle->flush_permille = 1;
    oracle->pause_us = 2500;
    oracle->bulk = true;
    soak.random = torture->seed;
    bool ok = server_create(torture, &soak.server);
    aidb *db = NULL;
    ok = ok && (aidb_open(soak.server.uri, NULL, &db) == AIDB_OK ||
                torture_failed(torture, "open: %s", aidb_error_message()));
    for (uint32_t key = 0; ok && key < BULK_KEYS; key += 20)
        ok = bulk_write(db, key, 20, &soak.random) == AIDB_OK ||
             torture_failed(torture, "bulk data: %s", aidb_error_message());
    (void)aidb_close(db);
    while (ok && torture_round(torture))
        ok = soak_round(&soak);
    ok = ok && compare(&soak);
    return server_finish(&soak.server, ok);
}
