/*
 * fault.c - calls that fail, in a program.
 *
 * fault: a short workload runs on a copy of one prepared directory, which needs recovery, flushes and
 * compacts. For one kind of call after the other, the Nth call of that kind fails, N counted up from a
 * random place in steps, so that many runs cover every N. Whatever fails: no wrong answer, no hang, no
 * crash; what was refused is not there, what was acknowledged is; a store that lost track of a write takes no
 * other one. Short transfers and interrupted calls must change nothing at all. After a failed sync the
 * kernel may drop the bytes and call them clean, so those runs are followed by a power loss, too.
 * fault-every: each of the first 500 calls of each kind, and of allocations all, once.
 */
#include "config.h"

#include "torture/torture.h"

#include "torture/disk.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

typedef struct Kind {
    const char *name;
    DiskFault fault;
    int code;
    uint32_t kinds;
    const char *path;
    bool harmless;     /* must change nothing */
    bool lasting;      /* all calls from the Nth on */
    uint32_t permille; /* of the calls from the Nth on; 0: all of them */
    uint32_t next;     /* the N to take next */
    uint32_t calls;    /* of this kind in a run without faults; 0: not known yet */
} Kind;

#define CHANGES (DISK_CREATE | DISK_WRITE | DISK_TRUNCATE | DISK_RENAME | DISK_UNLINK | DISK_MKDIR)

static Kind fault_kinds[] = {
    {"EIO sync", DISK_ERROR, EIO, DISK_SYNC, "", false, false, 0, 0, 0},
    {"EIO write", DISK_ERROR, EIO, DISK_WRITE, "", false, false, 0, 0, 0},
    {"EIO log sync", DISK_ERROR, EIO, DISK_SYNC, "wal/", false, false, 0, 0, 0},
    {"EIO read", DISK_ERROR, EIO, DISK_READ, "", false, false, 0, 0, 0},
    {"EIO open", DISK_ERROR, EIO, DISK_OPEN | DISK_CREATE, "", false, false, 0, 0, 0},
    {"EIO names", DISK_ERROR, EIO, DISK_RENAME | DISK_UNLINK | DISK_TRUNCATE | DISK_MKDIR, "",
     false, false, 0, 0, 0},
    {"ENOSPC once", DISK_ERROR, ENOSPC, DISK_CREATE | DISK_WRITE, "", false, false, 0, 0, 0},
    {"ENOSPC on", DISK_FULL, ENOSPC, DISK_WRITE, "", false, true, 0, 0, 0},
    {"EIO on", DISK_ERROR, EIO, CHANGES | DISK_SYNC, "", false, true, 0, 0, 0},
    {"short", DISK_SHORT, 0, DISK_READ | DISK_WRITE, "", true, false, 0, 0, 0},
    {"short on", DISK_SHORT, 0, DISK_READ | DISK_WRITE, "", true, true, 0, 0, 0},
    {"EINTR", DISK_ERROR, EINTR, DISK_READ | DISK_WRITE | DISK_SYNC | DISK_TRUNCATE, "", true,
     false, 0, 0, 0},
    {"ENOMEM", DISK_ERROR, ENOMEM, DISK_MEMORY, "", false, false, 0, 0, 0},
    {"short 1%", DISK_SHORT, 0, DISK_READ | DISK_WRITE, "", true, true, 10, 0, 0},
    {"EINTR 1%", DISK_ERROR, EINTR, DISK_READ | DISK_WRITE | DISK_SYNC | DISK_TRUNCATE, "", true,
     true, 10, 0, 0},
};
#define KIND_COUNT (sizeof fault_kinds / sizeof fault_kinds[0])

typedef struct Paths {
    char base[TORTURE_PATH], data[TORTURE_PATH], lost[TORTURE_PATH], control[TORTURE_PATH],
        journal[TORTURE_PATH];
} Paths;

/* One run on a fresh copy with the Nth call failing; n 0: none. */
static bool fault_run(Torture *torture, const Paths *paths, DiskControl *control, const Kind *kind,
                      uint32_t n)
{
    Oracle *oracle = torture->oracle;
    remove_tree(paths->data);
    if (!copy_tree(paths->base, paths->data))
        return torture_failed(torture, "could not copy %s", paths->base);
    disk_reset(control);
    snprintf(control->path, sizeof control->path, "%s", kind->path);
    control->kinds = kind->kinds;
    control->code = (uint32_t)kind->code;
    control->from = n == 0 ? UINT32_MAX : n;
    control->until = n == 0 || kind->lasting ? UINT32_MAX : n + 1;
    control->permille = kind->permille;
    control->random = (uint32_t)oracle_random(&torture->random);
    control->fault = (uint32_t)kind->fault;
    /* Failing calls that leave the disk behind are also followed by a power loss. */
    bool loss = !kind->harmless && (kind->kinds & DISK_SYNC) != 0;
    power_journal_remove(paths->journal);
    Disk *disk = loss ? power_disk_create(paths->data) : NULL;
    const char *disk_shim = torture->shim;
    if (kind->kinds == DISK_MEMORY)
        torture->shim = torture->memory_shim;
    pid_t pid = worker_start(torture, paths->data, paths->control, loss ? paths->journal : NULL);
    torture->shim = disk_shim;
    int status;
    bool hung = !torture_wait(pid, HANG_MS, &status);
    bool ok = true;
    OracleResult result = {.message = ""};
    if (hung)
        ok = torture_failed(torture, "the program hung");
    else if (oracle_wrong(oracle) != NULL)
        ok = torture_failed(torture, "wrong answer: %s", oracle_wrong(oracle));
    else if (!WIFEXITED(status) || WEXITSTATUS(status) == 2 || WEXITSTATUS(status) > 4)
        ok = torture_failed(torture, "the program ended with status %d: see worker.log", status);
    else if ((n == 0 || kind->harmless) &&
             (status != 0 || oracle_count(oracle, OP_ACKED) < oracle->ops_limit))
        ok =
            torture_failed(torture, "a harmless fault did harm, status %d: see worker.log", status);
    if (disk != NULL) {
        remove_tree(paths->lost);
        if (!power_disk_lose(disk, paths->journal, paths->lost, oracle_random(&torture->random)))
            ok = torture_failed(torture, "could not build %s", paths->lost);
        ok = ok && check_directory(torture, paths->lost, AIDB_FSYNC, UINT32_MAX, &result);
    }
    ok = ok && check_directory(torture, paths->data, AIDB_OS, UINT32_MAX, &result);
    torture_count(torture, &result);
    return ok;
}

/* The directory that all runs begin with: written, killed in the middle. */
static bool prepare(Torture *torture, const Paths *paths)
{
    Oracle *oracle = torture->oracle;
    OracleResult result;
    int status;
    for (int i = 0; i < 3; i++) {
        oracle->ops_limit = 400;
        pid_t pid = worker_start(torture, paths->base, NULL, NULL);
        if (!torture_wait(pid, HANG_MS, &status) || status != 0)
            return torture_failed(torture, "the program ended with status %d: see worker.log",
                                  status);
        if (!check_directory(torture, paths->base, AIDB_OS, UINT32_MAX, &result))
            return false;
        oracle_advance(oracle);
    }
    oracle->ops_limit = ORACLE_OPS_MAX;
    pid_t pid = worker_start(torture, paths->base, NULL, NULL);
    uint64_t end = torture_now_ms() + HANG_MS;
    while (atomic_load(&oracle->client[0].attempted) < 100 && torture_now_ms() < end)
        torture_sleep_ms(1);
    kill(pid, SIGKILL);
    (void)torture_wait(pid, HANG_MS, &status);
    /* Finds what is there on a copy, so that the directory itself stays in need of recovery. */
    remove_tree(paths->data);
    if (!copy_tree(paths->base, paths->data) ||
        !check_directory(torture, paths->data, AIDB_OS, UINT32_MAX, &result))
        return torture_failed(torture, "the prepared directory does not hold");
    oracle_advance(oracle);
    return true;
}

/* Forgets a run: the next one begins with the same directory. */
static void forget(Oracle *oracle)
{
    for (uint32_t c = 0; c < oracle->clients; c++) {
        OracleClient *own = &oracle->client[c];
        memset(own->ops, 0, own->attempted * sizeof own->ops[0]);
        atomic_store(&own->attempted, 0);
        atomic_store(&own->wrong, 0);
        atomic_store(&own->ended, 0);
    }
}

#define EVERY_MAX 500u

static uint32_t calls_to_fail(const Kind *kind)
{
    return kind->calls < EVERY_MAX || kind->kinds == DISK_MEMORY ? kind->calls : EVERY_MAX;
}

bool fault_campaign(Torture *torture)
{
    Paths paths;
    torture_path(torture, "base", paths.base);
    torture_path(torture, "data", paths.data);
    torture_path(torture, "lost", paths.lost);
    torture_path(torture, "control", paths.control);
    torture_path(torture, "journal", paths.journal);
    Oracle *oracle = torture->oracle;
    oracle->clients = 1;
    oracle->fsync_percent = 40;
    oracle->async_percent = 10;
    oracle->flush_permille = 10;
    DiskControl *control = disk_map(paths.control, sizeof *control, true);
    if (control == NULL)
        return torture_failed(torture, "could not map %s", paths.control);
    bool ok = prepare(torture, &paths);
    oracle->ops_limit = 230;
    uint64_t fired = 0, total = 0;
    for (size_t i = 0; i < KIND_COUNT && ok; i++) {
        Kind *kind = &fault_kinds[i];
        if (kind->kinds == DISK_MEMORY && torture->memory_shim == NULL)
            continue;
        ok = fault_run(torture, &paths, control, kind, 0);
        forget(oracle);
        kind->calls = control->matched;
        /* What must be harmless begins with the first call, where a lasting fault is in every call. */
        kind->next = kind->harmless
                         ? 0
                         : (uint32_t)torture_below(torture, kind->calls > 0 ? kind->calls : 1);
        total += kind->calls;
    }
    bool every = strcmp(torture->campaign, "fault-every") == 0;
    if (every) {
        torture->iterations = 0;
        for (size_t i = 0; i < KIND_COUNT; i++) {
            fault_kinds[i].next = 0;
            torture->iterations += calls_to_fail(&fault_kinds[i]);
        }
    }
    for (size_t i = 0; ok && torture_round(torture); i++) {
        Kind *kind = &fault_kinds[i % KIND_COUNT];
        while (every && kind->next >= calls_to_fail(kind) && torture->rounds <= torture->iterations)
            kind = &fault_kinds[++i % KIND_COUNT];
        if (kind->calls == 0)
            continue;
        /* A step that has no factor in common with the count meets every call in time. */
        uint32_t n = kind->next % kind->calls + 1;
        kind->next += every ? 1 : kind->calls % 7 != 0 ? 7 : 11;
        ok = fault_run(torture, &paths, control, kind, n);
        fired += control->fired > 0;
        if (torture->verbose || !ok)
            printf("%s: %s, call %u of %u, %u failed, %u operations, client ended with %u\n",
                   ok ? "held" : "FAILED", kind->name, n, kind->calls, control->fired,
                   oracle->client[0].attempted, oracle->client[0].ended);
        forget(oracle);
    }
    snprintf(torture->note, sizeof torture->note,
             "%llu with a call that failed (%zu kinds, %llu places)", (unsigned long long)fired,
             KIND_COUNT, (unsigned long long)total);
    return ok;
}
