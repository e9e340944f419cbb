/*
 * kill.c - processes of a server killed or stopped under load.
 *
 * A round: clients write as fast as they are answered; at a random moment something is killed; the
 * clients end by themselves, because a lost connection leaves the outcome of a write open; the server
 * must answer again; everything is compared. The server's process ids are read from /proc, and only
 * processes of the server that this program started are ever signalled.
 */
#include "config.h"

#include "torture/torture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN_MAX 64
#define ANSWER_MS    30000u /* a server that needs longer has failed */

typedef struct Server {
    Torture *torture;
    char data[TORTURE_PATH];
    char uri[TORTURE_PATH + 32];
    pid_t pid;
} Server;

/* ---- running aidbctl ---------------------------------------------------------------------------- */

static bool aidbctl(Torture *torture, const char *const *arguments)
{
    char program[TORTURE_PATH], log[TORTURE_PATH];
    snprintf(program, sizeof program, "%s%saidbctl", torture->bin != NULL ? torture->bin : "",
             torture->bin != NULL ? "/" : "");
    torture_path(torture, "aidbctl.log", log);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        const char *vector[24] = {program};
        for (size_t i = 0; i < 22 && arguments[i] != NULL; i++)
            vector[i + 1] = arguments[i];
        execvp(program, (char *const *)(uintptr_t)vector);
        _exit(127);
    }
    int status;
    return pid > 0 && torture_wait(pid, 90000, &status) && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

static pid_t read_pid(const Server *server)
{
    char path[TORTURE_PATH + 32], text[32] = "";
    snprintf(path, sizeof path, "%s/postmaster.pid", server->data);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    char *line = fgets(text, sizeof text, file);
    fclose(file);
    return line != NULL ? (pid_t)strtol(text, NULL, 10) : 0;
}

static bool server_start(Server *server)
{
    if (!aidbctl(server->torture, (const char *[]){"start", "-D", server->data, "-t", "60", NULL}))
        return torture_failed(server->torture, "aidbctl start failed: see %s/aidbctl.log",
                              server->torture->work);
    server->pid = read_pid(server);
    return server->pid > 0 || torture_failed(server->torture, "no pid in postmaster.pid");
}

static bool server_create(Torture *torture, Server *server)
{
    *server = (Server){.torture = torture};
    torture_path(torture, "data", server->data);
    snprintf(server->uri, sizeof server->uri, "aidb+unix:%s/aidb.sock", server->data);
    static char sets[16][64];
    const char *arguments[24] = {"init", "-D", server->data, "--port", "0"};
    size_t count = 5;
    for (size_t i = 0; small_settings[i].name != NULL; i++) {
        if (strcmp(small_settings[i].name, "create") == 0)
            continue;
        /* init takes few settings on its line; the rest goes into the file. */
        snprintf(sets[i], sizeof sets[i], "%s: %s\n", small_settings[i].name,
                 small_settings[i].value);
    }
    arguments[count++] = "--set";
    arguments[count++] = "wal_segment_size=1MiB";
    arguments[count++] = "--set";
    arguments[count++] = "wal_ring_size=1MiB";
    if (!aidbctl(torture, arguments))
        return torture_failed(torture, "aidbctl init failed: see %s/aidbctl.log", torture->work);
    char path[TORTURE_PATH + 32];
    snprintf(path, sizeof path, "%s/aidb.yaml", server->data);
    FILE *file = fopen(path, "a");
    if (file == NULL)
        return torture_failed(torture, "could not write %s", path);
    for (size_t i = 0; i < 16; i++)
        if (sets[i][0] != 0 && strncmp(sets[i], "wal_", 4) != 0)
            fputs(sets[i], file);
    fclose(file);
    return server_start(server);
}

/* ---- processes ---------------------------------------------------------------------------------- */

static size_t server_children(const Server *server, pid_t children[CHILDREN_MAX])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)server->pid, (int)server->pid);
    FILE *file = fopen(path, "r");
    size_t count = 0;
    int pid;
    if (file == NULL)
        return 0;
    while (count < CHILDREN_MAX && fscanf(file, "%d", &pid) == 1)
        children[count++] = pid;
    fclose(file);
    return count;
}

/* What ps shows of a process, "" when it is gone. */
static void title_of(pid_t pid, char title[80])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    memset(title, 0, 80);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, title, 79);
    close(fd);
    for (ssize_t i = 0; i < got - 1; i++)
        if (title[i] == 0)
            title[i] = ' ';
}

static bool gone(pid_t pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return true;
    int got = fscanf(file, "%*d (%*[^)]) %c", &state);
    fclose(file);
    return got != 1 || state == 'Z' || state == 'X';
}

/* ---- clients ------------------------------------------------------------------------------------ */

static size_t start_clients(const Server *server, pid_t pids[ORACLE_CLIENTS_MAX])
{
    Oracle *oracle = server->torture->oracle;
    for (uint32_t c = 0; c < oracle->clients; c++) {
        pids[c] = fork();
        if (pids[c] == 0) {
            aidb *db;
            signal(SIGPIPE, SIG_IGN);
            if (aidb_open(server->uri, NULL, &db) == AIDB_OK)
                oracle_client(oracle, c, db, true, NULL);
            /* Ends like a program that was not told to close. */
            _exit(0);
        }
    }
    return oracle->clients;
}

static bool end_clients(Server *server, const pid_t *pids, size_t count)
{
    Torture *torture = server->torture;
    bool ok = true;
    atomic_store(&torture->oracle->stop, 1);
    for (size_t i = 0; i < count; i++) {
        int status;
        if (!torture_wait(pids[i], ANSWER_MS, &status))
            ok = torture_failed(torture, "client %zu hung", i);
        else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            ok = torture_failed(torture, "client %zu crashed, status %d", i, status);
    }
    const char *message = oracle_wrong(torture->oracle);
    if (message != NULL)
        ok = torture_failed(torture, "wrong answer: %s", message);
    return ok;
}

/* ---- the check ---------------------------------------------------------------------------------- */

static bool connection_lost(aidb_status status)
{
    return status == AIDB_CONNECTION || status == AIDB_UNKNOWN || status == AIDB_BUSY ||
           status == AIDB_CANCELED || status == AIDB_FAILED;
}

/* Waits until the server answers, checks everything, and begins the next round. */
static bool check_server(Server *server, aidb_durability level, uint64_t since_ms, bool timed)
{
    Torture *torture = server->torture;
    uint64_t end = torture_now_ms() + ANSWER_MS;
    for (;;) {
        aidb *db;
        OracleResult result = {.message = ""};
        aidb_status status = aidb_open(server->uri, NULL, &db);
        if (status == AIDB_OK) {
            aidb_value value = {0};
            status = aidb_get(db, NULL, "c", 1, &value);
            if (status == AIDB_OK || status == AIDB_NOT_FOUND) {
                if (timed)
                    torture_recovered(torture, torture_now_ms() - since_ms);
                timed = false;
                status = oracle_check(torture->oracle, db, level, UINT32_MAX, &result);
            }
            aidb_free(value.data);
            if (status == AIDB_OK) {
                torture_count(torture, &result);
                oracle_advance(torture->oracle);
                (void)aidb_close(db);
                return true;
            }
            if (result.message[0] == 0)
                snprintf(result.message, sizeof result.message, "%s", aidb_error_message());
            (void)aidb_close(db);
        } else {
            snprintf(result.message, sizeof result.message, "%s", aidb_error_message());
        }
        if (!connection_lost(status))
            return torture_failed(torture, "check: status %d: %s", (int)status, result.message);
        if (gone(server->pid))
            return torture_failed(torture, "the postmaster ended; see %s", server->data);
        if (torture_now_ms() > end)
            return torture_failed(torture, "no answer within %u s: %s", ANSWER_MS / 1000,
                                  result.message);
        torture_sleep_ms(2);
    }
}

/* A child that ended by itself in a way that made the server recover would pass for one that was killed
 * here; so would what a sanitizer found. The log tells. */
static bool check_log(const Server *server, const char *name)
{
    char path[TORTURE_PATH + 32], line[1000];
    snprintf(path, sizeof path, "%s/%s", server->data, name);
    FILE *file = fopen(path, "r");
    bool ok = true;
    while (file != NULL && ok && fgets(line, sizeof line, file) != NULL)
        if (strstr(line, "Sanitizer") != NULL || strstr(line, "runtime error:") != NULL ||
            (strstr(line, " postmaster: error: the ") != NULL && strstr(line, "signal 9") == NULL))
            ok = torture_failed(server->torture, "in %s: %s", path, line);
    if (file != NULL)
        fclose(file);
    return ok;
}

/* ---- campaigns ---------------------------------------------------------------------------------- */

typedef struct Kinds {
    char name[16][24];
    uint32_t count[16];
} Kinds;

static void count_kind(Kinds *kinds, const char *title)
{
    char name[24];
    const char *from = strncmp(title, "aidb: ", 6) == 0 ? title + 6 : title;
    size_t size = strcspn(from, "0123456789(");
    while (size > 0 && from[size - 1] == ' ')
        size--;
    if (strncmp(from, "wal writer", 10) != 0 && strcspn(from, " ") < size)
        size = strcspn(from, " ");
    snprintf(name, sizeof name, "%.*s", (int)size, from);
    for (size_t i = 0; i < 16; i++) {
        if (kinds->name[i][0] == 0)
            snprintf(kinds->name[i], sizeof kinds->name[i], "%s", name);
        if (strcmp(kinds->name[i], name) == 0) {
            kinds->count[i]++;
            return;
        }
    }
}

static bool pick_child(Server *server, const char *words, pid_t *pid, char title[80])
{
    pid_t children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    for (size_t tries = 0; count > 0 && tries < 200; tries++) {
        *pid = children[torture_below(server->torture, count)];
        title_of(*pid, title);
        /* A killed recovery stops the server by design: kill-recovery is about that. */
        if (title[0] != 0 && strstr(title, "startup") == NULL &&
            (words == NULL || strstr(title, words) != NULL))
            return true;
    }
    return false;
}

static bool kill_child(Server *server, Kinds *kinds, uint64_t *since)
{
    pid_t pid;
    char title[80];
    /* Children of equal kinds are many (one backend a client), so half of the rounds choose a kind. */
    static const char *const words[] = {"wal writer", "flusher", "compactor", "backend"};
    const char *word =
        words[torture_below(server->torture, 8) % 8 < 4 ? torture_below(server->torture, 4) : 3];
    if (!pick_child(server, word, &pid, title) && !pick_child(server, NULL, &pid, title))
        return torture_failed(server->torture, "the server has no children");
    count_kind(kinds, title);
    *since = torture_now_ms();
    kill(pid, SIGKILL);
    /* Gone for good only once the postmaster has seen it; only then does an answer prove anything. */
    uint64_t end = *since + ANSWER_MS;
    while (kill(pid, 0) == 0) {
        if (torture_now_ms() > end)
            return torture_failed(server->torture, "the postmaster does not reap %s", title);
        torture_sleep_ms(1);
    }
    return true;
}

/* Kills the postmaster, and everybody else too or lets them notice. False when a child stays. */
static bool kill_server(Server *server, bool everybody)
{
    pid_t children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    kill(server->pid, SIGKILL);
    for (size_t i = 0; everybody && i < count; i++)
        kill(children[i], SIGKILL);
    uint64_t end = torture_now_ms() + 10000;
    for (size_t i = 0; i < count; i++) {
        while (!gone(children[i])) {
            if (torture_now_ms() > end)
                return torture_failed(server->torture, "child %d outlived the postmaster",
                                      (int)children[i]);
            torture_sleep_ms(1);
        }
    }
    while (!gone(server->pid))
        torture_sleep_ms(1);
    return true;
}

/* Starts the server without waiting and kills everything after a moment. */
static bool kill_recovery(Server *server)
{
    Torture *torture = server->torture;
    char program[TORTURE_PATH];
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
    torture_sleep_ms((uint32_t)torture_below(torture, 60));
    server->pid = pid;
    int status;
    bool ended = waitpid(pid, &status, WNOHANG) == pid;
    if (ended)
        return torture_failed(torture, "recovery ended by itself, status %d; see %s/recovery.log",
                              status, torture->work);
    return kill_server(server, true) && torture_wait(pid, 10000, &status);
}

static bool stop_child(Server *server, Kinds *kinds)
{
    static const char *const words[] = {"wal writer", "compactor", "flusher"};
    pid_t pid;
    char title[80];
    if (!pick_child(server, words[torture_below(server->torture, 3)], &pid, title))
        return torture_failed(server->torture, "the server has no background processes");
    count_kind(kinds, title);
    kill(pid, SIGSTOP);
    torture_sleep_ms(1000 + (uint32_t)torture_below(server->torture, 3000));
    kill(pid, SIGCONT);
    torture_sleep_ms(300);
    return true;
}

bool kill_campaign(Torture *torture)
{
    Server server;
    Kinds kinds = {0};
    const char *campaign = torture->campaign;
    bool recovery = strcmp(campaign, "kill-recovery") == 0;
    bool group = recovery || strcmp(campaign, "kill-group") == 0;
    torture->oracle->async_percent = 10;
    bool ok = server_create(torture, &server);
    while (ok && torture_round(torture)) {
        pid_t clients[ORACLE_CLIENTS_MAX];
        size_t count = start_clients(&server, clients);
        torture_sleep_ms(20 + (uint32_t)torture_below(torture, 400));
        uint64_t since = torture_now_ms();
        bool timed = true;
        if (strcmp(campaign, "kill-child") == 0) {
            ok = kill_child(&server, &kinds, &since);
            ok = end_clients(&server, clients, count) && ok;
        } else if (strcmp(campaign, "stop") == 0) {
            timed = false;
            ok = stop_child(&server, &kinds);
            ok = end_clients(&server, clients, count) && ok;
            for (uint32_t c = 0; ok && c < torture->oracle->clients; c++)
                if (torture->oracle->client[c].ended != 0)
                    ok = torture_failed(torture, "client %u got status %u while a process slept", c,
                                        torture->oracle->client[c].ended);
        } else {
            count_kind(&kinds, group ? "group" : "postmaster");
            ok = kill_server(&server, group);
            ok = end_clients(&server, clients, count) && ok;
            for (int i = 0; recovery && ok && i < 10; i++) {
                count_kind(&kinds, "recovery");
                ok = kill_recovery(&server);
            }
            since = torture_now_ms();
            ok = ok && server_start(&server);
        }
        ok = ok && check_server(&server, AIDB_OS, since, timed);
        if (torture->verbose)
            printf("round %llu: %llu acked\n", (unsigned long long)torture->rounds,
                   (unsigned long long)torture->acked);
    }
    size_t used = 0;
    for (size_t i = 0; i < 16 && kinds.count[i] > 0; i++)
        used += (size_t)snprintf(torture->note + used, sizeof torture->note - used, "%s%s %u",
                                 i > 0 ? " " : "", kinds.name[i], kinds.count[i]);
    ok = check_log(&server, "aidb.log") && ok;
    if (server.pid > 0 && !gone(server.pid)) {
        if (!aidbctl(torture, (const char *[]){"stop", "-D", server.data, "-m", "fast", NULL}))
            ok = torture_failed(torture, "aidbctl stop failed: see %s/aidbctl.log", torture->work);
        if (ok && !aidbctl(torture, (const char *[]){"verify", "-D", server.data, NULL}))
            ok = torture_failed(torture, "verify found damage: see %s/aidbctl.log", torture->work);
        if (!gone(server.pid))
            kill_server(&server, true);
    }
    return ok;
}
