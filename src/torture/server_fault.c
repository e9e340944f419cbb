/*
 * server_fault.c - calls that fail, and disks that are full, under a server.
 *
 * server-fault runs one case after the other. Whatever fails, after it the server answers by itself and
 * holds what it promised; in particular:
 *
 * - A failed sync of log or manifest is final. Its clients are told, the server recovers by itself, and what
 *   it serves then must be durable: the faulty disk drops what the failed sync was for, and a power loss
 *   right after the recovery must leave exactly what was served.
 * - A read of a table that fails is an error of that read, names the file in the server log, and nothing else
 *   happens to anybody.
 * - On a full disk (all of it, the log's part, the tables', the server log's; and a small file system where
 *   mounting is allowed) reads go on, writes are refused, and resume by themselves once there is room.
 * - Short transfers and interrupted calls do nothing at all.
 * - Any other call, the Nth since some moment or since the start.
 *
 * server-memory: the cases of memory alone, at each of the first 500 requests.
 *
 * harmless: only what must change nothing, 1 % of all calls: short transfers, interrupted calls, sockets that say
 * that they are not ready. harmless-paced: the same with so few operations that it can run for long beside
 * something else, with restarts.
 *
 * slow-disk: writes take 10 ms and syncs up to 500. Nobody gets an error, no process is replaced, who only reads
 * goes on, aidbctl is answered; then reads take 300 ms, and statement_timeout ends scans.
 */
#include "config.h"

#include "torture/server.h"

#include "torture/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Kind {
    const char *name;
    DiskFault fault;
    int code;
    uint32_t kinds;
    uint32_t nth_max;
} Kind;

static const Kind nth_kinds[] = {
    {"EIO write", DISK_ERROR, EIO, DISK_WRITE, 60},
    {"EIO read", DISK_ERROR, EIO, DISK_READ, 40},
    {"EIO sync", DISK_ERROR, EIO, DISK_SYNC, 60},
    {"EIO rename", DISK_ERROR, EIO, DISK_RENAME | DISK_UNLINK, 12},
    {"EIO open", DISK_ERROR, EIO, DISK_OPEN | DISK_CREATE, 30},
    {"EIO truncate", DISK_ERROR, EIO, DISK_TRUNCATE | DISK_MKDIR, 4},
    {"ENOSPC", DISK_ERROR, ENOSPC, DISK_CREATE | DISK_WRITE, 60},
};
#define NTH_KINDS (sizeof nth_kinds / sizeof nth_kinds[0])

static const Kind harmless_kinds[] = {
    {"short transfers", DISK_SHORT, 0, DISK_READ | DISK_WRITE | DISK_SOCKET, 0},
    {"EINTR", DISK_ERROR, EINTR,
     DISK_READ | DISK_WRITE | DISK_SYNC | DISK_TRUNCATE | DISK_WAIT | DISK_SOCKET, 0},
    {"EAGAIN", DISK_ERROR, EAGAIN, DISK_SOCKET, 0},
};
#define HARMLESS_KINDS (sizeof harmless_kinds / sizeof harmless_kinds[0])

typedef struct Faults {
    Server server;
    DiskControl *control;
    char control_path[TORTURE_PATH], journal[TORTURE_PATH], lost[TORTURE_PATH];
    uint32_t memory, full, syncs, unknown, reads, nth, starts, harmless, fired;
} Faults;

static bool more_than(const Oracle *oracle, OpState state, uint64_t count, uint32_t limit_ms)
{
    uint64_t end = torture_now_ms() + limit_ms;
    while (oracle_count(oracle, state) <= count) {
        if (torture_now_ms() > end)
            return false;
        torture_sleep_ms(5);
    }
    return true;
}

static void fault_begin(DiskControl *control, const Kind *kind, const char *path, uint32_t from,
                        uint32_t until)
{
    atomic_store(&control->fault, DISK_NO_FAULT);
    snprintf(control->path, sizeof control->path, "%s", path);
    control->kinds = kind->kinds;
    control->code = (uint32_t)kind->code;
    control->matched = 0;
    control->fired = 0;
    control->permille = 0;
    control->from = from;
    control->until = until;
    atomic_store(&control->fault, (uint32_t)kind->fault);
}

static void fault_end(DiskControl *control)
{
    atomic_store(&control->fault, DISK_NO_FAULT);
    control->path[0] = 0;
}

/* Whether a client's connection ended, within the limit. */
static bool somebody_was_told(const Oracle *oracle, uint32_t limit_ms)
{
    uint64_t end = torture_now_ms() + limit_ms;
    for (;;) {
        for (uint32_t c = 0; c < oracle->clients; c++)
            if (atomic_load(&oracle->client[c].ended) != 0)
                return true;
        if (torture_now_ms() > end)
            return false;
        torture_sleep_ms(5);
    }
}

static bool all_went_on(Torture *torture, const char *what)
{
    for (uint32_t c = 0; c < torture->oracle->clients; c++)
        if (torture->oracle->client[c].ended != 0)
            return torture_failed(torture, "%s: client %u ended with status %u", what, c,
                                  torture->oracle->client[c].ended);
    return true;
}

/* ---- full disks ----------------------------------------------------------------------------------- */

/* A full disk begins and ends; `fill` tells how. Each client reads back what it wrote all the time. */
static bool full_disk(Server *server, const char *what, bool refuses,
                      bool (*fill)(void *arg, bool full), void *arg)
{
    Torture *torture = server->torture;
    const Oracle *oracle = torture->oracle;
    pid_t clients[ORACLE_CLIENTS_MAX];
    size_t count = server_start_clients(server, clients);
    bool ok = more_than(oracle, OP_ACKED, 200, HANG_MS) ||
              torture_failed(torture, "no writes before the disk is full");
    ok = ok && fill(arg, true);
    if (refuses)
        ok = ok && (more_than(oracle, OP_REFUSED, 20, HANG_MS) ||
                    torture_failed(torture, "%s: no write is refused although it is full", what));
    torture_sleep_ms(200 + (uint32_t)torture_below(torture, 300));
    ok = fill(arg, false) && ok;
    uint64_t acked = oracle_count(oracle, OP_ACKED), freed = torture_now_ms();
    ok = ok && (more_than(oracle, OP_ACKED, acked + 100, HANG_MS) ||
                torture_failed(torture, "%s: writes did not resume", what));
    if (ok)
        torture_recovered(torture, torture_now_ms() - freed);
    ok = server_end_clients(server, clients, count) && ok;
    ok = ok && all_went_on(torture, what);
    return ok && server_check(server, AIDB_OS, freed, false);
}

typedef struct ShimDisk {
    DiskControl *control;
    const char *path;
} ShimDisk;

static bool fill_shim(void *arg, bool full)
{
    static const Kind kind = {"", DISK_FULL, ENOSPC, DISK_WRITE, 0};
    ShimDisk *disk = arg;
    if (full)
        fault_begin(disk->control, &kind, disk->path, 0, UINT32_MAX);
    else
        fault_end(disk->control);
    return true;
}

typedef struct Ballast {
    char path[TORTURE_PATH + 16];
    pid_t pid;
} Ballast;

/* Takes all the room that there is, also what is freed meanwhile, or gives it back. */
static bool fill_mount(void *arg, bool full)
{
    static const char block[65536];
    Ballast *ballast = arg;
    if (!full) {
        int status;
        kill(ballast->pid, SIGKILL);
        return torture_wait(ballast->pid, HANG_MS, &status) && unlink(ballast->path) == 0;
    }
    fflush(stdout);
    ballast->pid = fork();
    if (ballast->pid != 0)
        return ballast->pid > 0;
    int fd = open(ballast->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (pid_t parent = getppid(); fd >= 0 && getppid() == parent; torture_sleep_ms(1))
        for (size_t size = sizeof block; size >= 4096;)
            if (write(fd, block, size) <= 0)
                size /= 2;
    _exit(0);
}

/* A server of its own on a small file system. */
static bool small_file_system(Torture *torture, bool *skipped)
{
    Server server = {.control = NULL};
    char mounted[TORTURE_PATH], work[sizeof torture->work];
    Ballast ballast = {.pid = 0};
    torture_path(torture, "small", mounted);
    *skipped = mkdir(mounted, 0700) != 0 ||
               mount("aidb-torture", mounted, "tmpfs", 0, "size=40m,mode=700") != 0;
    if (*skipped) {
        printf("skipped: a small file system: could not mount one: %s\n", strerror(errno));
        rmdir(mounted);
        return true;
    }
    snprintf(ballast.path, sizeof ballast.path, "%s/ballast", mounted);
    /* The server's directory lies in the work folder. */
    snprintf(work, sizeof work, "%s", torture->work);
    strncat(torture->work, "/small", sizeof torture->work - strlen(torture->work) - 1);
    bool ok = server_create(torture, &server);
    for (int i = 0; i < 3 && ok; i++)
        ok = full_disk(&server, "a small file system", true, fill_mount, &ballast);
    ok = server_finish(&server, ok);
    oracle_forget(torture->oracle); /* the next server has none of it */
    snprintf(torture->work, sizeof torture->work, "%s", work);
    if (ok && (umount(mounted) != 0 || rmdir(mounted) != 0))
        ok = torture_failed(torture, "could not unmount %s: %s", mounted, strerror(errno));
    return ok;
}

/* ---- syncs ---------------------------------------------------------------------------------------- */

static bool failed_sync(Faults *faults, const char *path)
{
    static const Kind kind = {"", DISK_ERROR, EIO, DISK_SYNC, 0};
    Server *server = &faults->server;
    Torture *torture = server->torture;
    pid_t clients[ORACLE_CLIENTS_MAX];
    OracleResult result = {.message = ""};
    /* The journal begins with a directory that nobody changes. */
    if (!server_aidbctl(server, (const char *[]){"stop", "-D", server->data, NULL}))
        return torture_failed(torture, "aidbctl stop failed: see aidbctl.log");
    Disk *disk = power_disk_create(server->data);
    power_journal_remove(faults->journal);
    disk_reset(faults->control);
    server->journal = faults->journal;
    bool ok = disk != NULL && server_start(server);
    size_t count = server_start_clients(server, clients);
    ok = ok && (more_than(torture->oracle, OP_ACKED, 100, HANG_MS) ||
                torture_failed(torture, "no writes before the sync fails"));
    uint32_t n = 1 + (uint32_t)torture_below(torture, 20);
    fault_begin(faults->control, &kind, path, n, n + 1);
    uint64_t end = torture_now_ms() + HANG_MS, since = torture_now_ms();
    while (ok && atomic_load(&faults->control->fired) == 0) {
        since = torture_now_ms();
        if (since > end)
            ok = torture_failed(torture, "no sync of %s", path);
        torture_sleep_ms(1);
    }
    ok = ok && (somebody_was_told(torture->oracle, HANG_MS) ||
                torture_failed(torture, "a sync of %s failed, and no client was told", path));
    fault_end(faults->control);
    ok = server_end_clients(server, clients, count) && ok;
    /* Who waited knows that he does not know; no other error may look like an answer. */
    for (uint32_t c = 0; c < torture->oracle->clients; c++) {
        uint32_t ended = torture->oracle->client[c].ended;
        faults->unknown += ended == AIDB_UNKNOWN;
        if (ok && ended != 0 && ended != AIDB_UNKNOWN && ended != AIDB_CONNECTION &&
            ended != AIDB_FAILED)
            ok = torture_failed(torture, "client %u was told status %u of a failed sync", c, ended);
    }
    ok = ok && server_check(server, AIDB_OS, since, true);
    /* What is served now was made durable by the recovery. */
    server_kill(server, true);
    remove_tree(faults->lost);
    if (!power_disk_lose(disk, faults->journal, faults->lost, oracle_random(&torture->random)))
        ok = torture_failed(torture, "could not build %s", faults->lost);
    ok = ok && check_directory(torture, faults->lost, AIDB_FSYNC, UINT32_MAX, &result);
    server->journal = NULL;
    disk_reset(faults->control);
    return ok && server_start(server) && server_check(server, AIDB_OS, since, false);
}

/* ---- reads ---------------------------------------------------------------------------------------- */

static bool log_names_table(const Server *server)
{
    char path[TORTURE_PATH + 32], line[1000];
    snprintf(path, sizeof path, "%s/aidb.log", server->data);
    FILE *file = fopen(path, "r");
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = strstr(line, ".sst") != NULL && strstr(line, strerror(EIO)) != NULL;
    if (file != NULL)
        fclose(file);
    return found;
}

static aidb_status scan_all(aidb *db, char message[400])
{
    aidb_iter *iter;
    const aidb_entry *entry;
    aidb_status status = aidb_iter_create(db, NULL, NULL, &iter);
    snprintf(message, 400, "%s", aidb_error_message());
    if (status != AIDB_OK)
        return status;
    while ((status = aidb_iter_next(iter, &entry)) == AIDB_OK && entry != NULL)
        continue;
    snprintf(message, 400, "%s", aidb_error_message());
    aidb_iter_destroy(iter);
    return status;
}

/* One read of a table after the other fails, on a server that has read none yet. */
static bool failed_reads(Faults *faults)
{
    static const Kind kind = {"", DISK_ERROR, EIO, DISK_READ, 0};
    Server *server = &faults->server;
    Torture *torture = server->torture;
    pid_t before[CHILDREN_MAX], after[CHILDREN_MAX];
    if (!server_aidbctl(server, (const char *[]){"restart", "-D", server->data, NULL}))
        return torture_failed(torture, "aidbctl restart failed: see aidbctl.log");
    server->pid = server_pid(server);
    aidb *db = NULL;
    bool ok = aidb_open(server->uri, NULL, &db) == AIDB_OK &&
              aidb_control(db, "compact_wait", NULL) == AIDB_OK;
    (void)server_children(server, before);
    uint32_t errors = 0;
    for (uint32_t n = 1; n <= 12 && ok; n++) {
        fault_begin(faults->control, &kind, "sst/", n, n + 1);
        char message[400];
        aidb_status status = scan_all(db, message);
        bool fired = atomic_load(&faults->control->fired) > 0;
        fault_end(faults->control);
        if (status != AIDB_OK && (status != AIDB_IO || !fired))
            ok = torture_failed(torture, "a read of a table failed, and a scan got status %d: %s",
                                (int)status, message);
        if (status == AIDB_IO && strstr(message, ".sst") == NULL)
            ok = torture_failed(torture, "the error names no table: %s", message);
        errors += status == AIDB_IO;
        if (ok && scan_all(db, message) != AIDB_OK)
            ok = torture_failed(torture, "the scan after a failed read: %s", message);
    }
    (void)aidb_close(db);
    (void)server_children(server, after);
    if (ok && memcmp(before, after, 3 * sizeof before[0]) != 0)
        ok = torture_failed(torture, "processes were replaced after a read that failed");
    if (ok && errors == 0)
        ok = torture_failed(torture, "no scan noticed that reads of tables fail");
    if (ok && !log_names_table(server))
        ok = torture_failed(torture, "the server log names no table that could not be read");
    return ok && server_check(server, AIDB_OS, torture_now_ms(), false);
}

/* ---- any call ------------------------------------------------------------------------------------- */

static bool nth_call(Faults *faults, const Kind *kind, uint32_t n)
{
    Server *server = &faults->server;
    Torture *torture = server->torture;
    pid_t clients[ORACLE_CLIENTS_MAX];
    size_t count = server_start_clients(server, clients);
    bool ok = more_than(torture->oracle, OP_ACKED, 30, HANG_MS) ||
              torture_failed(torture, "no writes before a call fails");
    fault_begin(faults->control, kind, "", n, n + 1);
    uint64_t since = torture_now_ms();
    while (atomic_load(&faults->control->fired) == 0 && torture_now_ms() < since + 1500)
        torture_sleep_ms(2);
    torture_sleep_ms(30);
    fault_end(faults->control);
    faults->fired += atomic_load(&faults->control->fired) > 0;
    ok = server_end_clients(server, clients, count) && ok;
    if (torture->verbose)
        printf("%s, call %u, %u failed\n", kind->name, n, faults->control->fired);
    return ok && server_check(server, AIDB_OS, since, false);
}

/* A start during which a call fails may fail; the next one may not. */
static bool nth_of_start(Faults *faults, const Kind *kind, uint32_t n)
{
    Server *server = &faults->server;
    Torture *torture = server->torture;
    if (!server_kill(server, true))
        return false;
    fault_begin(faults->control, kind, "", n, n + 1);
    bool started =
        server_aidbctl(server, (const char *[]){"start", "-D", server->data, "-t", "120", NULL});
    fault_end(faults->control);
    faults->fired += atomic_load(&faults->control->fired) > 0;
    if (torture->verbose)
        printf("start, %s, call %u, %u failed: %s\n", kind->name, n, faults->control->fired,
               started ? "started" : "did not start");
    pid_t pid = server_pid(server);
    if (pid > 0 && !process_gone(pid)) {
        server->pid = pid;
        if (!server_kill(server, true))
            return false;
    }
    uint64_t since = torture_now_ms();
    return server_start(server) && server_check(server, AIDB_OS, since, true);
}

/* The Nth request for memory fails, during a start or afterwards, in any process. */
static bool no_memory(Faults *faults, bool start, uint32_t n)
{
    static const Kind kind = {"ENOMEM", DISK_ERROR, ENOMEM, DISK_MEMORY, 500};
    Server *server = &faults->server;
    Torture *torture = server->torture;
    if (torture->memory_shim == NULL)
        return true;
    server->shim = torture->memory_shim;
    bool ok = nth_of_start(faults, &kind, start ? n : UINT32_MAX - 1);
    ok = ok && (start || nth_call(faults, &kind, n));
    server->shim = NULL;
    return ok && server_kill(server, true) && server_check_log(server, "aidb.log") &&
           server_start(server);
}

static bool harmless_calls(Faults *faults, const Kind *kind, uint32_t ms, bool restarts)
{
    Server *server = &faults->server;
    Torture *torture = server->torture;
    pid_t clients[ORACLE_CLIENTS_MAX];
    fault_begin(faults->control, kind, "", 0, UINT32_MAX);
    faults->control->permille = 10;
    faults->control->random = (uint32_t)oracle_random(&torture->random);
    size_t count = server_start_clients(server, clients);
    /* The tools' own calls are cut short too. */
    bool ok = true;
    uint64_t end = torture_now_ms() + ms;
    do {
        torture_sleep_ms(200);
        ok = server_aidbctl(server, (const char *[]){"reload", "-D", server->data, NULL}) ||
             torture_failed(torture, "aidbctl reload failed: see %s/aidbctl.log", torture->work);
    } while (ok && torture_now_ms() < end && !torture_over(torture));
    ok = server_end_clients(server, clients, count) && ok;
    ok = ok && all_went_on(torture, kind->name);
    if (ok && oracle_count(torture->oracle, OP_REFUSED) > 0)
        ok = torture_failed(torture, "%s at random: writes were refused", kind->name);
    if (ok && restarts) {
        ok = server_aidbctl(server, (const char *[]){"restart", "-D", server->data, NULL}) ||
             torture_failed(torture, "aidbctl restart failed: see %s/aidbctl.log", torture->work);
        server->pid = server_pid(server);
    }
    ok = ok && server_check(server, AIDB_OS, torture_now_ms(), false);
    fault_end(faults->control);
    faults->fired += atomic_load(&faults->control->fired) > 0;
    return ok;
}

/* ---- the campaign --------------------------------------------------------------------------------- */

static const char *const full_paths[] = {"", "wal/", "sst/", "aidb.log"};

static bool run_case(Faults *faults, uint64_t round)
{
    Torture *torture = faults->server.torture;
    const Kind *kind = &nth_kinds[torture_below(torture, NTH_KINDS)];
    uint32_t n = 1 + (uint32_t)torture_below(torture, kind->nth_max);
    uint64_t turn = round / 15;
    switch (round % 15) {
    case 0:
    case 7: {
        const char *path = full_paths[(turn * 2 + (round % 15 == 7)) % 4];
        ShimDisk disk = {faults->control, path};
        /* The log goes on in segments that it has, as long as tables can be written. */
        bool refuses = path[0] == 0 || strcmp(path, "sst/") == 0;
        faults->full++;
        return full_disk(&faults->server, path, refuses, fill_shim, &disk);
    }
    case 1:
    case 8:
        faults->syncs++;
        return failed_sync(faults, "wal/");
    case 2:
        faults->syncs++;
        return failed_sync(faults, "MANIFEST");
    case 3:
        faults->reads++;
        return failed_reads(faults);
    case 4:
    case 9:
        faults->starts++;
        return nth_of_start(faults, kind, n);
    case 5:
        faults->harmless++;
        return harmless_calls(faults, &harmless_kinds[turn % HARMLESS_KINDS], 1000, false);
    case 6:
    case 10:
        faults->memory++;
        return no_memory(faults, round % 15 == 6, 1 + (uint32_t)torture_below(torture, 500));
    default:
        faults->nth++;
        return nth_call(faults, kind, n);
    }
}

static bool faults_create(Torture *torture, Faults *faults)
{
    torture_path(torture, "control", faults->control_path);
    torture_path(torture, "journal", faults->journal);
    torture_path(torture, "lost", faults->lost);
    faults->control = disk_map(faults->control_path, sizeof *faults->control, true);
    if (faults->control == NULL)
        return torture_failed(torture, "could not map %s", faults->control_path);
    disk_reset(faults->control);
    faults->server.control = faults->control_path;
    torture->oracle->async_percent = 10;
    torture->oracle->flush_permille = 5;
    return true;
}

bool harmless_campaign(Torture *torture)
{
    static Faults faults;
    uint64_t fired = 0, calls = 0;
    bool paced = strcmp(torture->campaign, "harmless-paced") == 0;
    bool ok = faults_create(torture, &faults) && server_create(torture, &faults.server);
    if (paced) {
        torture->oracle->pause_us = 50000;
        torture->oracle->flush_permille = 50;
    }
    while (ok && torture_round(torture)) {
        const Kind *kind = &harmless_kinds[torture->rounds % HARMLESS_KINDS];
        ok = harmless_calls(&faults, kind, paced ? 5000 : 1000, torture->rounds % 4 == 0);
        fired += atomic_load(&faults.control->fired);
        calls += atomic_load(&faults.control->matched);
        if (torture->verbose)
            printf("%s: %u of %u calls\n", kind->name, faults.control->fired,
                   faults.control->matched);
    }
    if (ok && fired == 0)
        ok = torture_failed(torture, "no call was cut short or interrupted");
    snprintf(torture->note, sizeof torture->note,
             "%llu of %llu calls cut short, interrupted or not ready", (unsigned long long)fired,
             (unsigned long long)calls);
    return server_finish(&faults.server, ok);
}

/* The first MEMORY_PLACES, or as many of them as there are iterations for, during a start and afterwards. */
bool server_memory_campaign(Torture *torture)
{
    enum { MEMORY_PLACES = 500 };
    static Faults faults;
    if (torture->memory_shim == NULL) {
        printf("skipped: the sanitizer has the allocator\n");
        return true;
    }
    uint32_t pairs = (torture->iterations + 1) / 2;
    uint32_t step = pairs > 0 && pairs < MEMORY_PLACES ? MEMORY_PLACES / pairs : 1;
    bool ok = faults_create(torture, &faults) && server_create(torture, &faults.server);
    while (ok && torture_round(torture)) {
        uint64_t place = (torture->rounds - 1) / 2 * step + torture_below(torture, step);
        ok = no_memory(&faults, torture->rounds % 2 == 1, 1 + (uint32_t)(place % MEMORY_PLACES));
    }
    snprintf(torture->note, sizeof torture->note, "%u with a request for memory that failed",
             faults.fired);
    return server_finish(&faults.server, ok);
}

bool server_fault_campaign(Torture *torture)
{
    static Faults faults;
    if (!faults_create(torture, &faults))
        return false;
    bool skipped = false;
    bool ok = small_file_system(torture, &skipped) && server_create(torture, &faults.server);
    while (ok && torture_round(torture))
        ok = run_case(&faults, torture->rounds - 1);
    if (ok && faults.syncs >= 20 &&
        faults.unknown == 0) /* few may all have hit clients that read */
        ok = torture_failed(torture, "after %u failed syncs no outcome was unknown", faults.syncs);
    snprintf(torture->note, sizeof torture->note,
             "full disk %u%s, failed sync %u (%u outcomes unknown), failed reads %u, no memory %u, "
             "Nth call %u, Nth of a "
             "start %u, "
             "harmless %u, %u met a call",
             faults.full, skipped ? "" : " and a small file system", faults.syncs, faults.unknown,
             faults.reads, faults.memory, faults.nth, faults.starts, faults.harmless, faults.fired);
    return server_finish(&faults.server, ok);
}

/* ---- slow disks ----------------------------------------------------------------------------------- */

/* What a client that only reads tells, in memory that both processes have. */
typedef struct Reads {
    _Atomic uint32_t count;
    _Atomic uint32_t slowest_ms;
    _Atomic uint32_t stop;
    _Atomic uint32_t status; /* of a read that failed */
} Reads;

static pid_t start_reader(const Server *server, Reads *reads)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    aidb *db;
    aidb_status status = aidb_open(server->uri, NULL, &db);
    while (status == AIDB_OK && atomic_load(&reads->stop) == 0) {
        aidb_value value = {0};
        uint64_t since = torture_now_ms();
        status = aidb_get(db, NULL, "c", 1, &value);
        status = status == AIDB_NOT_FOUND ? AIDB_OK : status;
        aidb_free(value.data);
        uint32_t took = (uint32_t)(torture_now_ms() - since);
        if (took > atomic_load(&reads->slowest_ms))
            atomic_store(&reads->slowest_ms, took);
        atomic_fetch_add(&reads->count, 1);
        torture_sleep_ms(1);
    }
    atomic_store(&reads->status, (uint32_t)status);
    _exit(0);
}

static bool slow_writes(Faults *faults, Reads *reads)
{
    enum { WRITES = 30, READS = 300, SHARED_READS = 15 };
    Server *server = &faults->server;
    Torture *torture = server->torture;
    pid_t clients[ORACLE_CLIENTS_MAX], before[CHILDREN_MAX] = {0}, after[CHILDREN_MAX] = {0};
    int status;
    (void)server_children(server, before);
    atomic_store(&reads->stop, 0);
    atomic_store(&reads->status, AIDB_OK);
    size_t count = server_start_clients(server, clients);
    bool ok = more_than(torture->oracle, OP_ACKED, 50, HANG_MS) ||
              torture_failed(torture, "no writes before the disk is slow");
    atomic_store(&faults->control->slow_write_ms, 10);
    atomic_store(&faults->control->slow_sync_ms, 500);
    uint64_t acked = oracle_count(torture->oracle, OP_ACKED), end = torture_now_ms() + HANG_MS;
    pid_t reader = start_reader(server, reads);
    uint32_t begin = atomic_load(&reads->count);
    ok = ok && server_aidbctl(server, (const char *[]){"status", "-D", server->data, NULL});
    ok = ok && (more_than(torture->oracle, OP_ACKED, acked + WRITES, HANG_MS) ||
                torture_failed(torture, "no writes while the disk is slow"));
    /* In a shared process a read waits for the sync that the process does for another client. */
    uint32_t enough = torture->backends > 0 ? SHARED_READS : READS;
    while (ok && atomic_load(&reads->count) - begin < enough) {
        if (torture_now_ms() > end)
            ok = torture_failed(torture, "%u reads in all that time while the disk is slow",
                                atomic_load(&reads->count) - begin);
        torture_sleep_ms(5);
    }
    atomic_store(&faults->control->slow_write_ms, 0);
    atomic_store(&faults->control->slow_sync_ms, 0);
    atomic_store(&reads->stop, 1);
    if (reader < 0 || !torture_wait(reader, HANG_MS, &status))
        ok = torture_failed(torture, "who only reads hung");
    ok = server_end_clients(server, clients, count) && ok;
    ok = ok && all_went_on(torture, "a slow disk");
    if (ok && atomic_load(&reads->status) != AIDB_OK)
        ok = torture_failed(torture, "a read got status %u", atomic_load(&reads->status));
    (void)server_children(server, after);
    if (ok && memcmp(before, after, 3 * sizeof before[0]) != 0)
        ok = torture_failed(torture, "processes were replaced while the disk was slow");
    return ok && server_check(server, AIDB_OS, torture_now_ms(), false);
}

/* Scans of tables whose reads take longer than a statement may; each is answered. */
static bool slow_reads(Faults *faults, uint32_t *timeouts)
{
    Server *server = &faults->server;
    Torture *torture = server->torture;
    char path[TORTURE_PATH + 32], message[400];
    snprintf(path, sizeof path, "%s/aidb.yaml", server->data);
    FILE *file = fopen(path, "a");
    bool ok = file != NULL && fputs("statement_timeout: 1s\n", file) >= 0;
    ok = (file == NULL || fclose(file) == 0) && ok;
    if (!ok || !server_aidbctl(server, (const char *[]){"restart", "-D", server->data, NULL}))
        return torture_failed(torture, "the server does not restart: see aidbctl.log");
    server->pid = server_pid(server);
    aidb *db;
    if (aidb_open(server->uri, NULL, &db) != AIDB_OK)
        return torture_failed(torture, "%s", aidb_error_message());
    atomic_store(&faults->control->slow_read_ms, 300);
    for (int i = 0; i < 2 && ok; i++) {
        aidb_status status = scan_all(db, message);
        *timeouts += status == AIDB_TIMEOUT;
        if (status != AIDB_OK && status != AIDB_TIMEOUT)
            ok = torture_failed(torture, "a scan got status %d: %s", (int)status, message);
    }
    atomic_store(&faults->control->slow_read_ms, 0);
    (void)aidb_close(db);
    if (ok && *timeouts == 0)
        ok = torture_failed(torture, "statement_timeout ended no scan");
    return ok;
}

bool slow_disk_campaign(Torture *torture)
{
    static Faults faults;
    char path[TORTURE_PATH];
    uint32_t timeouts = 0;
    torture_path(torture, "reads", path);
    Reads *reads = disk_map(path, sizeof *reads, true);
    if (reads == NULL)
        return torture_failed(torture, "could not map files in %s", torture->work);
    if (!faults_create(torture, &faults))
        return false;
    bool ok = server_create(torture, &faults.server);
    while (ok && torture_round(torture))
        ok = slow_writes(&faults, reads);
    ok = ok && slow_reads(&faults, &timeouts);
    snprintf(torture->note, sizeof torture->note,
             "%u reads meanwhile, the slowest %u ms, %u scans ended by statement_timeout",
             atomic_load(&reads->count), atomic_load(&reads->slowest_ms), timeouts);
    return server_finish(&faults.server, ok);
}
