/*
 * failpoint.c - processes that die at every named step, and holding every lock. Builds configured with
 * --enable-failpoints only; in others these campaigns say so and do nothing.
 *
 * The list of steps is that of the programs themselves (src/common/failpoint.h): a step that is added
 * there is killed here, and one that the load does not reach in a few tries is a failure. What a step
 * needs is told by its name: those of recover.* come after a kill in the middle of a flush, those of
 * stop.* at a clean stop, all others under load, with flushes, compactions, snapshots and scans on top.
 */
#include "config.h"

#include "torture/server.h"

#include "common/failpoint.h"

#include <stdio.h>
#include <string.h>

#ifndef AIDB_FAILPOINTS

bool failpoint_campaign(Torture *torture)
{
    snprintf(torture->note, sizeof torture->note,
             "nothing done: not built with --enable-failpoints");
    return true;
}

bool stuck_campaign(Torture *torture)
{
    return failpoint_campaign(torture);
}

bool flip_campaign(Torture *torture)
{
    return failpoint_campaign(torture);
}

#else

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIES        6
#define REACH_MS     HANG_MS /* a step that is due is reached by then */
#define NEARER_MS    700u    /* after which the next hit will do */
#define RECOVERY_ROW 10      /* kills of recovery in a row */
#define ROTATE_AT    "manifest.rotate_at"
#define SMALL_ROTATE ROTATE_AT "=value(16000)"
/* A table goes down a level as it is only into an empty one: right after the beginning. */
#define FIRST_MOVE   "compaction.moved"
/* By whoever flushes what an earlier log held. */
#define AFTER_CRASH  "segment.older_removed"

typedef struct Points {
    Torture *torture;
    FailTable *table;
    char data[TORTURE_PATH];
    Server server; /* not used by a program with an open directory */
    uint32_t kills;
    uint32_t recoveries_killed;
} Points;

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* `at`: the hit that counts, 0: every one. */
static bool arm(Points *points, const char *name, const char *action, uint64_t at)
{
    char text[120], hit[24] = "";
    if (at != 0)
        snprintf(hit, sizeof hit, "@%" PRIu64, at);
    snprintf(text, sizeof text, "%s=%s%s", name, action, hit);
    return failpoint_set(points->table, text) == AIDB_OK ||
           torture_failed(points->torture, "%s: %s", text, status_message());
}

static uint64_t fired(const FailRecord *record)
{
    return atomic_load(&record->fired);
}

/* What had to happen before recovery has something to do at this step. */
static const char *before_recovery(const char *name, int tries)
{
    static const char *const others[] = {"flush.log_synced", "wal.published", "table.synced",
                                         "install.logged", "flush.installed"};
    if (strcmp(name, "recover.manifest_cut") == 0)
        return "manifest.record_synced";
    return others[tries % 5];
}

/* Memtables fill up only when nobody flushes them before. */
static bool wants_pusher(const char *name)
{
    return strcmp(name, "recover.flushed") != 0;
}

/* Steps of beginning a new manifest; for these every edit does. */
static bool wants_rotation(const char *name)
{
    return begins(name, "replace.") ||
           (begins(name, "manifest.") && !begins(name, "manifest.record") &&
            !begins(name, "manifest.seal"));
}

/* ---- a program with an open directory ----------------------------------------------------------- */

/* Runs the program until it ends. True when it was killed. */
static bool run_worker(Points *points, const char *late, uint64_t at, bool *ok)
{
    Torture *torture = points->torture;
    int status;
    pid_t pid = worker_start(torture, points->data, NULL, NULL);
    if (late != NULL) {
        uint64_t end = torture_now_ms() + REACH_MS;
        while (atomic_load(&torture->oracle->client[0].attempted) < 10 && torture_now_ms() < end &&
               !process_gone(pid))
            torture_sleep_ms(1);
        *ok = arm(points, late, "kill", at) && *ok;
    }
    if (!torture_wait(pid, HANG_MS, &status))
        *ok = torture_failed(torture, "the program hung");
    else if (!WIFSIGNALED(status) && status != 0)
        *ok = torture_failed(torture, "the program ended with status %d: see %s/worker.log",
                             WEXITSTATUS(status), torture->work);
    else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        *ok = torture_failed(torture, "the program crashed with signal %d", WTERMSIG(status));
    else if (oracle_wrong(torture->oracle) != NULL)
        *ok = torture_failed(torture, "wrong answer: %s", oracle_wrong(torture->oracle));
    return *ok && WIFSIGNALED(status);
}

static bool embedded_check(Points *points)
{
    OracleResult result;
    if (!check_directory(points->torture, points->data, AIDB_OS, UINT32_MAX, &result))
        return false;
    torture_count(points->torture, &result);
    oracle_advance(points->torture->oracle);
    return true;
}

static bool embedded_try(Points *points, FailRecord *record, int tries, uint32_t row)
{
    Torture *torture = points->torture;
    Oracle *oracle = torture->oracle;
    const char *name = record->name;
    uint64_t before = fired(record);
    bool ok = true;
    oracle->ops_limit = 600;
    if (wants_pusher(name))
        setenv("AIDB_TORTURE_PUSH", "1", 1);
    else
        unsetenv("AIDB_TORTURE_PUSH");
    if (begins(name, "stop.")) {
        oracle->ops_limit = 30;
        ok = arm(points, name, "kill", 1);
        if (ok && run_worker(points, NULL, 0, &ok))
            points->kills++;
    } else if (begins(name, "recover.") || strcmp(name, AFTER_CRASH) == 0) {
        const char *first = before_recovery(name, tries);
        if (run_worker(points, first, 1 + torture_below(torture, 2), &ok))
            points->kills++;
        ok = ok && arm(points, first, "off", 0) && arm(points, name, "kill", 0);
        atomic_store(&oracle->stop, 1);
        for (uint32_t i = 0; ok && i < row && run_worker(points, NULL, 0, &ok); i++)
            points->recoveries_killed++;
    } else {
        uint64_t at = tries == 0 ? 1 + torture_below(torture, 8) : 1;
        if (run_worker(points, name, at, &ok))
            points->kills++;
    }
    bool reached = fired(record) > before;
    ok = ok && arm(points, name, "off", 0) && embedded_check(points);
    return ok && reached;
}

static bool embedded_create(Points *points)
{
    Torture *torture = points->torture;
    bool ok = true;
    torture_path(torture, "data", points->data);
    setenv("AIDB_FAILPOINTS", SMALL_ROTATE ";" FIRST_MOVE "=kill@1", 1);
    torture->oracle->ops_limit = 600;
    points->kills += run_worker(points, NULL, 0, &ok);
    setenv("AIDB_FAILPOINTS", FIRST_MOVE "=off", 1);
    if (!ok || !embedded_check(points))
        return false;
    points->table = failpoint_table_map(points->data, false);
    return points->table != NULL || torture_failed(torture, "the directory has no fail points");
}

/* ---- a server ----------------------------------------------------------------------------------- */

/* Flushes, compacts, scans at snapshots until it is told to stop or the connection is lost. */
static pid_t start_pusher(const Server *server, bool wanted)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    aidb *db;
    signal(SIGPIPE, SIG_IGN);
    if (wanted && aidb_open(server->uri, NULL, &db) == AIDB_OK)
        push_main(server->torture->oracle, db);
    _exit(0);
}

static bool load_begin(Points *points, const FailRecord *record, pid_t clients[ORACLE_CLIENTS_MAX],
                       size_t *count, pid_t *pusher)
{
    Oracle *oracle = points->torture->oracle;
    *count = server_start_clients(&points->server, clients);
    *pusher = start_pusher(&points->server, wants_pusher(record->name));
    uint64_t end = torture_now_ms() + REACH_MS;
    while (atomic_load(&oracle->client[0].attempted) < 10 &&
           atomic_load(&oracle->client[0].ended) == 0 && torture_now_ms() < end)
        torture_sleep_ms(1);
    return true;
}

static bool load_end(Points *points, const pid_t *clients, size_t count, pid_t pusher)
{
    int status;
    bool ok = server_end_clients(&points->server, clients, count);
    if (!torture_wait(pusher, ANSWER_MS, &status))
        ok = torture_failed(points->torture, "the client that flushes hung");
    return ok;
}

/* Waits until the step was reached. */
static bool await(Points *points, FailRecord *record, uint64_t before, uint32_t limit_ms,
                  const char *action)
{
    uint64_t begun = torture_now_ms();
    bool near = false;
    while (fired(record) == before && torture_now_ms() - begun < limit_ms) {
        if (!near && torture_now_ms() - begun > NEARER_MS) {
            near = true;
            (void)arm(points, record->name, action, 1);
        }
        torture_sleep_ms(1);
    }
    return fired(record) > before;
}

/* Starts the server and waits until it ended, which it must, or is ready. True when it ended. */
static bool start_and_die(Points *points, bool *ok)
{
    Server *server = &points->server;
    Torture *torture = points->torture;
    char program[TORTURE_PATH];
    int status;
    snprintf(program, sizeof program, "%s%saidb", torture->bin != NULL ? torture->bin : "",
             torture->bin != NULL ? "/" : "");
    pid_t pid = fork();
    if (pid == 0) {
        char log[TORTURE_PATH];
        torture_path(torture, "recovery.log", log);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execlp(program, "aidb", "-D", server->data, (char *)NULL);
        _exit(127);
    }
    uint64_t end = torture_now_ms() + ANSWER_MS;
    while (torture_now_ms() < end) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return true;
        aidb *db;
        if (aidb_open(server->uri, NULL, &db) == AIDB_OK) {
            (void)aidb_close(db);
            server->pid = pid;
            *ok = server_kill(server, true) && torture_wait(pid, HANG_MS, &status) && *ok;
            return false;
        }
        torture_sleep_ms(2);
    }
    kill(pid, SIGKILL);
    (void)torture_wait(pid, HANG_MS, &status);
    return *ok = torture_failed(torture, "the server neither ends nor answers");
}

static bool server_gone(Points *points)
{
    uint64_t end = torture_now_ms() + ANSWER_MS;
    while (!process_gone(points->server.pid)) {
        if (torture_now_ms() > end)
            return torture_failed(points->torture, "the server does not end");
        torture_sleep_ms(1);
    }
    return true;
}

/* A step of recovery: the load dies, the server dies in recovery, and so do the next starts. */
static bool server_recovery(Points *points, FailRecord *record, int tries, uint32_t row)
{
    const char *first = before_recovery(record->name, tries);
    FailRecord *start = failpoint_find(points->table, first);
    pid_t clients[ORACLE_CLIENTS_MAX], pusher;
    size_t count;
    uint64_t before = fired(record), began = fired(start);
    bool ok = load_begin(points, record, clients, &count, &pusher);
    ok = ok && arm(points, record->name, "kill", 0) && arm(points, first, "kill", 1);
    if (ok && !await(points, start, began, REACH_MS, "kill"))
        ok = torture_failed(points->torture, "%s was not reached", first);
    ok = load_end(points, clients, count, pusher) && ok;
    points->kills++;
    /* Reached or not, the server has come to an end of this recovery when it answers or is gone. */
    uint64_t end = torture_now_ms() + ANSWER_MS;
    while (ok && !process_gone(points->server.pid) && torture_now_ms() < end) {
        aidb *db;
        if (fired(record) == before && aidb_open(points->server.uri, NULL, &db) == AIDB_OK) {
            (void)aidb_close(db);
            break;
        }
        torture_sleep_ms(2);
    }
    if (ok && !process_gone(points->server.pid)) {
        if (fired(record) > before)
            return torture_failed(points->torture, "recovery was killed, the server goes on");
        return true;
    }
    points->recoveries_killed++;
    for (uint32_t i = 1; ok && i < row && start_and_die(points, &ok); i++)
        points->recoveries_killed++;
    return arm(points, record->name, "off", 0) && ok && server_start(&points->server);
}

static bool server_stop(Points *points, FailRecord *record)
{
    Server *server = &points->server;
    pid_t clients[ORACLE_CLIENTS_MAX], pusher;
    size_t count;
    uint64_t before = fired(record);
    bool ok = load_begin(points, record, clients, &count, &pusher);
    ok = load_end(points, clients, count, pusher) && ok && arm(points, record->name, "kill", 1);
    (void)server_aidbctl(server, (const char *[]){"stop", "-D", server->data, "-m", "fast", NULL});
    ok = ok && server_gone(points);
    points->kills += fired(record) > before;
    return ok && server_start(server);
}

static bool server_load(Points *points, FailRecord *record, int tries)
{
    Torture *torture = points->torture;
    pid_t clients[ORACLE_CLIENTS_MAX], pusher;
    size_t count;
    uint64_t before = fired(record);
    uint64_t far = atomic_load(&record->kind) == FAILPOINT_LOCK ? 100 : 8;
    bool ok = tries == 0 || arm(points, record->name, "kill", 1);
    ok = ok && load_begin(points, record, clients, &count, &pusher);
    if (tries == 0)
        ok = ok && arm(points, record->name, "kill", 1 + torture_below(torture, far));
    if (ok && await(points, record, before, tries < TRIES - 1 ? 3000 : REACH_MS, "kill"))
        points->kills++;
    return load_end(points, clients, count, pusher) && ok;
}

/* A crash that leaves an unflushed log behind, then a flush. */
static bool server_after_crash(Points *points, FailRecord *record, int tries)
{
    FailRecord *crash = failpoint_find(points->table, "wal.published");
    uint64_t before = fired(record);
    aidb *db;
    bool ok = server_load(points, crash, tries) && arm(points, crash->name, "off", 0) &&
              server_check(&points->server, AIDB_OS, torture_now_ms(), false) &&
              arm(points, record->name, "kill", 1);
    if (ok && aidb_open(points->server.uri, NULL, &db) == AIDB_OK) {
        (void)push_begin(db); /* loses its connection */
        (void)aidb_close(db);
    }
    points->kills += await(points, record, before, 1000, "kill");
    return ok;
}

static bool server_try(Points *points, FailRecord *record, int tries, uint32_t row)
{
    Torture *torture = points->torture;
    uint64_t before = fired(record), since = torture_now_ms();
    uint32_t recoveries = torture->recoveries;
    bool timed = false, ok;
    if (begins(record->name, "stop.")) {
        ok = server_stop(points, record);
    } else if (begins(record->name, "recover.")) {
        ok = server_recovery(points, record, tries, row);
    } else if (strcmp(record->name, AFTER_CRASH) == 0) {
        ok = server_after_crash(points, record, tries);
    } else {
        ok = server_load(points, record, tries);
        since = torture_now_ms();
        timed = true;
    }
    bool reached = fired(record) > before;
    ok = ok && arm(points, record->name, "off", 0) &&
         server_check(&points->server, AIDB_OS, since, timed);
    if (ok && torture->recoveries > recoveries && torture->recovery_ms[recoveries] > HANG_MS)
        ok = torture_failed(torture, "the reset took %u ms", torture->recovery_ms[recoveries]);
    return ok && reached;
}

/* ---- holders that do not let go ----------------------------------------------------------------- */

/* Waits for a line of the server log behind `from` that has both words. */
static bool await_line(Points *points, long from, const char *one, const char *two,
                       uint32_t limit_ms)
{
    char path[TORTURE_PATH + 32], line[1000];
    snprintf(path, sizeof path, "%s/aidb.log", points->server.data);
    uint64_t end = torture_now_ms() + limit_ms;
    while (torture_now_ms() < end) {
        FILE *file = fopen(path, "r");
        bool found = false;
        if (file != NULL && fseek(file, from, SEEK_SET) == 0)
            while (!found && fgets(line, sizeof line, file) != NULL)
                found = strstr(line, one) != NULL && strstr(line, two) != NULL;
        if (file != NULL)
            fclose(file);
        if (found)
            return true;
        torture_sleep_ms(20);
    }
    return torture_failed(points->torture, "no line of %s has \"%s\" and \"%s\"", path, one, two);
}

static long log_size(Points *points)
{
    char path[TORTURE_PATH + 32];
    snprintf(path, sizeof path, "%s/aidb.log", points->server.data);
    FILE *file = fopen(path, "r");
    long size = file != NULL && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : 0;
    if (file != NULL)
        fclose(file);
    return size;
}

/* A process sleeps holding the lock, or while flushes and compactions wait for the snapshot that it registers. It must be named; one that no file operation can excuse is killed, which
 * is a reset, any other gets its time. */
static bool stick_at(Points *points, FailRecord *record)
{
    Torture *torture = points->torture;
    pid_t clients[ORACLE_CLIENTS_MAX], pusher;
    size_t count;
    char lock[40];
    const char *const with_io[] = {"flush_job", "manifest", "log_flush", "log_segments"};
    bool excused = false;
    if (atomic_load(&record->kind) == FAILPOINT_LOCK)
        snprintf(lock, sizeof lock, "lock %s", record->name + strlen("lock.held."));
    else
        snprintf(lock, sizeof lock, "registering a snapshot");
    for (size_t i = 0; i < sizeof with_io / sizeof with_io[0]; i++)
        excused = excused || strcmp(lock + 5, with_io[i]) == 0;
    for (char *at = lock; *at != '\0'; at++)
        if (*at == '_')
            *at = ' ';
    uint64_t before = fired(record);
    long from = log_size(points);
    torture->rounds++;
    bool ok = load_begin(points, record, clients, &count, &pusher) &&
              arm(points, record->name, excused ? "sleep(4000)" : "sleep(60000)", 1);
    if (ok && !await(points, record, before, REACH_MS, excused ? "sleep(4000)" : "sleep(60000)"))
        ok = torture_failed(torture, "%s is never reached", record->name);
    ok = ok && await_line(points, from, "has not moved", lock, ANSWER_MS);
    if (!excused) {
        ok = ok && await_line(points, from, "it is killed", lock, ANSWER_MS);
        points->kills++;
    }
    uint64_t since = torture_now_ms();
    ok = load_end(points, clients, count, pusher) && ok && arm(points, record->name, "off", 0);
    for (uint32_t c = 0; ok && excused && c < torture->oracle->clients; c++)
        if (torture->oracle->client[c].ended != 0)
            ok = torture_failed(torture, "client %u got status %u while %s was held", c,
                                torture->oracle->client[c].ended, lock);
    return ok && server_check(&points->server, AIDB_OS, since, !excused);
}

bool stuck_campaign(Torture *torture)
{
    Points points = {.torture = torture, .server = {.expected = "has not moved"}};
    FailRecord *locks[16], *snapshot = NULL;
    uint32_t count = 0;
    torture->oracle->clients = 2;
    setenv("AIDB_FAILPOINTS",
           "postmaster.monitor_ns=value(500000000);postmaster.stuck_kill_ns=value(2000000000)", 1);
    bool ok = server_create(torture, &points.server);
    points.table = ok ? failpoint_table_map(points.server.data, false) : NULL;
    if (ok && points.table == NULL)
        ok = torture_failed(torture, "the server has no fail points: was it built with them?");
    for (uint32_t i = 0; ok && i < atomic_load(&points.table->count); i++) {
        FailRecord *record = &points.table->records[i];
        if (strcmp(record->name, "snapshot.claimed") == 0)
            snapshot = record;
        else if (atomic_load(&record->kind) == FAILPOINT_LOCK && count < 16)
            locks[count++] = record;
    }
    if (ok && (snapshot == NULL || count == 0))
        ok = torture_failed(torture, "the places to be stuck at are not there");
    uint32_t first = count > 0 ? (uint32_t)torture_below(torture, count) : 0;
    /* All of them in time. */
    for (uint32_t i = 0;
         ok && (torture->deadline_ms != 0 ? !torture_over(torture) : i < torture->iterations); i++)
        ok = stick_at(&points,
                      i % (count + 1) == 0 ? snapshot : locks[(first + (i - 1) * 3) % count]);
    snprintf(torture->note, sizeof torture->note, "%u locks, %u holders killed", count,
             points.kills);
    failpoint_table_unmap(points.table);
    return server_finish(&points.server, ok);
}

/* ---- bits that turn over between compression and the file ---------------------------------------- */

static uint32_t count_lines(Points *points, const char *word)
{
    char path[TORTURE_PATH + 32], line[1000];
    uint32_t count = 0;
    snprintf(path, sizeof path, "%s/aidb.log", points->server.data);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        count += strstr(line, word) != NULL;
    if (file != NULL)
        fclose(file);
    return count;
}

/* Every table that a bit was turned over in must be refused: then the store holds, and verify finds nothing. */
bool flip_campaign(Torture *torture)
{
    static const char *const places[] = {"table.block_sealed", "table.before_write"};
    Points points = {.torture = torture};
    uint64_t flips = 0;
    torture->oracle->clients = 4;
    setenv("AIDB_FAILPOINTS", "", 1);
    bool ok = server_create(torture, &points.server);
    points.table = ok ? failpoint_table_map(points.server.data, false) : NULL;
    if (ok && points.table == NULL)
        ok = torture_failed(torture, "the server has no fail points: was it built with them?");
    while (ok && torture_round(torture)) {
        pid_t clients[ORACLE_CLIENTS_MAX], pusher;
        size_t count;
        FailRecord *record = failpoint_find(points.table, places[torture->rounds % 2]);
        uint64_t before = fired(record);
        ok = load_begin(&points, record, clients, &count, &pusher) &&
             arm(&points, record->name, "flip", 1 + torture_below(torture, 20));
        if (ok && !await(&points, record, before, REACH_MS, "flip"))
            ok = torture_failed(torture, "%s is never reached", record->name);
        flips += fired(record) - before;
        ok = load_end(&points, clients, count, pusher) && ok &&
             server_check(&points.server, AIDB_OS, torture_now_ms(), false);
        /* Where it was the pusher's own compaction, only the pusher was told. */
        ok = ok && server_aidbctl(&points.server,
                                  (const char *[]){"verify", "-D", points.server.data, NULL});
        if (!ok)
            torture_failed(torture, "with a bit turned over at %s", record->name);
    }
    snprintf(torture->note, sizeof torture->note,
             "%" PRIu64 " bits turned over, %u tables refused in the server's log", flips,
             ok ? count_lines(&points, "what was written there") : 0);
    failpoint_table_unmap(points.table);
    return server_finish(&points.server, ok);
}

/* ---- the beginning ------------------------------------------------------------------------------ */

static bool create_server(Points *points)
{
    Torture *torture = points->torture;
    Server *server = &points->server;
    aidb *db;
    setenv("AIDB_FAILPOINTS", SMALL_ROTATE ";" FIRST_MOVE "=kill@1", 1);
    bool ok = server_create(torture, server);
    setenv("AIDB_FAILPOINTS", FIRST_MOVE "=off", 1);
    if (!ok)
        return false;
    points->table = failpoint_table_map(server->data, false);
    FailRecord *record = points->table != NULL ? failpoint_find(points->table, FIRST_MOVE) : NULL;
    if (record == NULL)
        return torture_failed(torture, "the server has no fail points: was it built with them?");
    if (aidb_open(server->uri, NULL, &db) != AIDB_OK)
        return torture_failed(torture, "%s", aidb_error_message());
    (void)push_begin(db); /* loses its connection */
    (void)aidb_close(db);
    points->kills += fired(record) > 0;
    return server_check(server, AIDB_OS, torture_now_ms(), true);
}

/* ---- the campaigns ------------------------------------------------------------------------------ */

/* Kills at one place. It must be reached. */
static bool kill_at(Points *points, FailRecord *record, bool embedded, uint32_t row)
{
    Torture *torture = points->torture;
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t lost = torture->lost;
        torture->rounds++;
        if (!arm(points, ROTATE_AT, wants_rotation(record->name) ? "value(1)" : "value(16000)", 0))
            return false;
        bool reached = embedded ? embedded_try(points, record, tries, row)
                                : server_try(points, record, tries, row);
        if (torture->lost > lost) {
            fprintf(stderr, "killed at %s\n", record->name);
            return false;
        }
        if (torture->verbose)
            printf("%s: %s\n", record->name, reached ? "killed" : "not reached");
        if (reached)
            return true;
    }
    return torture_failed(torture, "%s is never reached", record->name);
}

bool failpoint_campaign(Torture *torture)
{
    Points points = {.torture = torture};
    bool embedded = strcmp(torture->campaign, "failpoint-embedded") == 0;
    uint32_t kind = strcmp(torture->campaign, "lock-held") == 0 ? FAILPOINT_LOCK : FAILPOINT_STEP;
    bool ok;
    torture->oracle->async_percent = 10;
    if (torture->clients > 4)
        torture->oracle->clients = 4;
    setenv("AIDB_TORTURE_PUSH", "1", 1);
    ok = embedded ? embedded_create(&points) : create_server(&points);
    uint32_t places = 0;
    for (uint32_t pass = 0;
         ok && (torture->deadline_ms != 0 ? !torture_over(torture) : pass < torture->iterations);
         pass++) {
        places = 0;
        uint32_t count = atomic_load(&points.table->count);
        for (uint32_t i = 0; ok && i < count && !torture_over(torture); i++) {
            FailRecord *record = &points.table->records[i];
            if (atomic_load(&record->kind) != kind)
                continue;
            places++;
            if (strcmp(record->name, FIRST_MOVE) == 0 && fired(record) > 0)
                continue; /* at the beginning */
            ok = kill_at(&points, record, embedded,
                         pass == 0 && torture->backends == 0 ? RECOVERY_ROW : 2);
        }
    }
    snprintf(torture->note, sizeof torture->note, "%u places, %u kills, %u recoveries killed",
             places, points.kills, points.recoveries_killed);
    if (embedded && ok &&
        !server_aidbctl(&(Server){.torture = torture},
                        (const char *[]){"verify", "-D", points.data, NULL}))
        ok = torture_failed(torture, "verify found damage: see %s/aidbctl.log", torture->work);
    failpoint_table_unmap(points.table);
    return embedded ? ok : server_finish(&points.server, ok);
}

#endif
