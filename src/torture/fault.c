/*
 * fault.c - calls that fail, in a program.
 *
 * fault: a short workload runs on a copy of one prepared directory, which needs recovery, flushes and
 * compacts. For one kind of call after the other, the Nth call of that kind fails, N counted up from a
 * random place in steps, so that many runs cover every N. Whatever fails: no wrong answer, no hang, no
 * crash; what was refused is not there, what was acknowledged is; a store that lost track of a write takes no
 * other one. Short transfers and interrupted calls must change nothing at all. After a failed sync the
 * kernel may drop the bytes and call them clean, so those runs are followed by a power loss, too.
 * fault-every: each of the first 500 calls of each kind of one long workload, once, and of the first 1,000 requests
 * for memory. It is long enough for 500 of the calls that are few, and each run begins near the one that fails:
 * the workload comes in stages, and a run does one of them, on a copy of the directory as it was before.
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
    uint32_t next;     /* fault: the N to take next */
    uint32_t calls;    /* fault: of this kind in a run without faults; 0: none */
    uint32_t met;      /* fault-every: the calls that failed until now */
} Kind;

#define CHANGES (DISK_CREATE | DISK_WRITE | DISK_TRUNCATE | DISK_RENAME | DISK_UNLINK | DISK_MKDIR)

static Kind fault_kinds[] = {
    {"EIO sync", DISK_ERROR, EIO, DISK_SYNC, "", false, false, 0, 0, 0, 0},
    {"EIO write", DISK_ERROR, EIO, DISK_WRITE, "", false, false, 0, 0, 0, 0},
    {"EIO log sync", DISK_ERROR, EIO, DISK_SYNC, "wal/", false, false, 0, 0, 0, 0},
    {"EIO read", DISK_ERROR, EIO, DISK_READ, "", false, false, 0, 0, 0, 0},
    {"EIO open", DISK_ERROR, EIO, DISK_OPEN | DISK_CREATE, "", false, false, 0, 0, 0, 0},
    {"EIO rename", DISK_ERROR, EIO, DISK_RENAME, "", false, false, 0, 0, 0, 0},
    {"EIO unlink", DISK_ERROR, EIO, DISK_UNLINK | DISK_MKDIR, "", false, false, 0, 0, 0, 0},
    {"EIO truncate", DISK_ERROR, EIO, DISK_TRUNCATE, "", false, false, 0, 0, 0, 0},
    {"ENOSPC once", DISK_ERROR, ENOSPC, DISK_CREATE | DISK_WRITE, "", false, false, 0, 0, 0, 0},
    {"ENOSPC on", DISK_FULL, ENOSPC, DISK_WRITE, "", false, true, 0, 0, 0, 0},
    {"EIO on", DISK_ERROR, EIO, CHANGES | DISK_SYNC, "", false, true, 0, 0, 0, 0},
    {"short", DISK_SHORT, 0, DISK_READ | DISK_WRITE, "", true, false, 0, 0, 0, 0},
    {"short on", DISK_SHORT, 0, DISK_READ | DISK_WRITE, "", true, true, 0, 0, 0, 0},
    {"EINTR", DISK_ERROR, EINTR, DISK_READ | DISK_WRITE | DISK_SYNC | DISK_TRUNCATE, "", true,
     false, 0, 0, 0, 0},
    {"ENOMEM", DISK_ERROR, ENOMEM, DISK_MEMORY, "", false, false, 0, 0, 0, 0},
    {"short 1%", DISK_SHORT, 0, DISK_READ | DISK_WRITE, "", true, true, 10, 0, 0, 0},
    {"EINTR 1%", DISK_ERROR, EINTR, DISK_READ | DISK_WRITE | DISK_SYNC | DISK_TRUNCATE, "", true,
     true, 10, 0, 0, 0},
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

/* The base goes on: the program runs to its end, or is killed in the middle. */
static bool go_on(Torture *torture, const Paths *paths, uint32_t ops, bool killed)
{
    Oracle *oracle = torture->oracle;
    OracleResult result;
    int status;
    uint32_t limit = oracle->ops_limit;
    oracle->ops_limit = killed ? ORACLE_OPS_MAX : ops;
    pid_t pid = worker_start(torture, paths->base, NULL, NULL);
    uint64_t end = torture_now_ms() + HANG_MS;
    while (killed && atomic_load(&oracle->client[0].attempted) < ops && torture_now_ms() < end)
        torture_sleep_ms(1);
    if (killed)
        kill(pid, SIGKILL);
    bool ended = torture_wait(pid, HANG_MS, &status);
    oracle->ops_limit = limit;
    if (!ended || (!killed && status != 0))
        return torture_failed(torture, "the program ended with status %d: see worker.log", status);
    /* Finds what is there on a copy, so that a base that needs recovery keeps needing it. */
    remove_tree(paths->data);
    if (!copy_tree(paths->base, paths->data) ||
        !check_directory(torture, paths->data, AIDB_OS, UINT32_MAX, &result))
        return torture_failed(torture, "the prepared directory does not hold");
    oracle_advance(oracle);
    return true;
}

/* The directory that runs begin with: written, killed in the middle. */
static bool prepare(Torture *torture, const Paths *paths)
{
    bool ok = true;
    for (int i = 0; i < 4 && ok; i++)
        ok = go_on(torture, paths, i < 3 ? 400 : 100, i == 3);
    return ok;
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

static bool passed_over(const Torture *torture, const Kind *kind)
{
    return kind->kinds == DISK_MEMORY && torture->memory_shim == NULL;
}

/* A run and its line. */
static bool fault_round(Torture *torture, const Paths *paths, DiskControl *control,
                        const Kind *kind, uint32_t n)
{
    Oracle *oracle = torture->oracle;
    bool ok = fault_run(torture, paths, control, kind, n);
    if (torture->verbose || !ok)
        printf("%s: %s, call %u, %u failed, %u operations, client ended with %u\n",
               ok ? "held" : "FAILED", kind->name, n, control->fired, oracle->client[0].attempted,
               oracle->client[0].ended);
    forget(oracle);
    return ok;
}

/* ---- every call ----------------------------------------------------------------------------------- */

#define EVERY        500u
#define EVERY_MEMORY 1000u
#define EVERY_RANDOM 50u /* runs in which some calls fail at random */
#define STAGES_MAX   2000u
#define STAGE_OPS    60u
#define LOG_FROM     12u /* stage from which on there is more log, whose segments are renamed */

static uint32_t to_meet(const Torture *torture, const Kind *kind)
{
    uint32_t wanted = kind->permille != 0          ? EVERY_RANDOM
                      : kind->kinds == DISK_MEMORY ? EVERY_MEMORY
                                                   : EVERY;
    return passed_over(torture, kind) || kind->met >= wanted ? 0 : wanted - kind->met;
}

/* Each call of this kind that the stage makes, until there are enough. */
static bool stage_calls(Torture *torture, const Paths *paths, DiskControl *control, Kind *kind)
{
    bool ok = true, met = true;
    for (uint32_t n = 1; ok && met && to_meet(torture, kind) > 0 && torture_round(torture); n++) {
        ok = fault_round(torture, paths, control, kind, n);
        /* Which calls are chosen at random is another question in each stage. */
        met = control->fired > 0 && kind->permille == 0;
        kind->met += met || kind->permille != 0;
    }
    return ok;
}

static bool fault_every(Torture *torture, const Paths *paths, DiskControl *control)
{
    uint64_t met = 0, stages = 0;
    uint32_t passes = torture->iterations;
    torture->iterations = UINT32_MAX; /* of the runs in them */
    bool ok = true;
    for (uint32_t pass = 0;
         ok && (torture->deadline_ms != 0 ? !torture_over(torture) : pass < passes); pass++) {
        bool more = true;
        for (size_t i = 0; i < KIND_COUNT; i++)
            fault_kinds[i].met = 0;
        for (uint32_t stage = 0; ok && more && !torture_over(torture); stage++, stages++) {
            torture->oracle->log_every = stage < LOG_FROM ? 0 : 8;
            ok = stage == 0 || go_on(torture, paths, STAGE_OPS, stage % 2 == 1);
            more = false;
            for (size_t i = 0; i < KIND_COUNT && ok; i++) {
                uint64_t before = fault_kinds[i].met;
                ok = stage_calls(torture, paths, control, &fault_kinds[i]);
                met += fault_kinds[i].met - before;
                more |= to_meet(torture, &fault_kinds[i]) > 0;
                if (ok && stage == STAGES_MAX && to_meet(torture, &fault_kinds[i]) > 0)
                    ok = torture_failed(torture, "%s: only %u such calls in %u stages",
                                        fault_kinds[i].name, fault_kinds[i].met, stage);
            }
        }
    }
    snprintf(torture->note, sizeof torture->note,
             "%llu of them with a call that failed (%zu kinds, %u of each, %u requests for "
             "memory), %llu stages",
             (unsigned long long)met, KIND_COUNT, EVERY, EVERY_MEMORY, (unsigned long long)stages);
    return ok;
}

/* ---- calls at random ------------------------------------------------------------------------------ */

static bool fault_some(Torture *torture, const Paths *paths, DiskControl *control)
{
    bool ok = true;
    uint64_t fired = 0, total = 0;
    for (size_t i = 0; i < KIND_COUNT && ok; i++) {
        Kind *kind = &fault_kinds[i];
        if (passed_over(torture, kind))
            continue;
        ok = fault_run(torture, paths, control, kind, 0);
        forget(torture->oracle);
        kind->calls = control->matched;
        /* What must be harmless begins with the first call, where a lasting fault is in every call. */
        kind->next = kind->harmless
                         ? 0
                         : (uint32_t)torture_below(torture, kind->calls > 0 ? kind->calls : 1);
        total += kind->calls;
    }
    for (size_t i = 0; ok && torture_round(torture); i++) {
        Kind *kind = &fault_kinds[i % KIND_COUNT];
        if (kind->calls == 0)
            continue;
        /* A step that has no factor in common with the count meets every call in time. */
        uint32_t n = kind->next % kind->calls + 1;
        kind->next += kind->calls % 7 != 0 ? 7 : 11;
        ok = fault_round(torture, paths, control, kind, n);
        fired += control->fired > 0;
    }
    snprintf(torture->note, sizeof torture->note,
             "%llu with a call that failed (%zu kinds, %llu places)", (unsigned long long)fired,
             KIND_COUNT, (unsigned long long)total);
    return ok;
}

bool fault_campaign(Torture *torture)
{
    Paths paths;
    torture_path(torture, "base", paths.base);
    torture_path(torture, "data", paths.data);
    torture_path(torture, "lost", paths.lost);
    torture_path(torture, "control", paths.control);
    torture_path(torture, "journal", paths.journal);
    bool every = strcmp(torture->campaign, "fault-every") == 0;
    Oracle *oracle = torture->oracle;
    oracle->clients = 1;
    oracle->fsync_percent = 40;
    oracle->async_percent = 10;
    oracle->flush_permille = every ? 40 : 10;
    DiskControl *control = disk_map(paths.control, sizeof *control, true);
    if (control == NULL)
        return torture_failed(torture, "could not map %s", paths.control);
    bool ok = prepare(torture, &paths);
    oracle->ops_limit = every ? STAGE_OPS : 230;
    return ok && (every ? fault_every : fault_some)(torture, &paths, control);
}
