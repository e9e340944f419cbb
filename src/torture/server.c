/*
 * server.c - a throwaway server. See server.h.
 *
 * Only processes of the server that this program started are ever signalled; their ids are read from
 * postmaster.pid and /proc.
 */
#include "config.h"

#include "torture/server.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- running aidbctl ---------------------------------------------------------------------------- */

bool server_aidbctl(const Server *server, const char *const *arguments)
{
    const Torture *torture = server->torture;
    char program[TORTURE_PATH], log[TORTURE_PATH];
    snprintf(program, sizeof program, "%s%saidbctl", torture->bin != NULL ? torture->bin : "",
             torture->bin != NULL ? "/" : "");
    torture_path(torture, "aidbctl.log", log);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        if (server->control != NULL) {
            setenv("LD_PRELOAD", server->shim != NULL ? server->shim : torture->shim, 1);
            setenv("AIDB_DISK_ROOT", server->data, 1);
            setenv("AIDB_DISK_CONTROL", server->control, 1);
            if (server->journal != NULL)
                setenv("AIDB_DISK_JOURNAL", server->journal, 1);
            setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
        }
        const char *vector[24] = {program};
        for (size_t i = 0; i < 22 && arguments[i] != NULL; i++)
            vector[i + 1] = arguments[i];
        execvp(program, (char *const *)(uintptr_t)vector);
        _exit(127);
    }
    int status;
    return pid > 0 && torture_wait(pid, 2 * HANG_MS, &status) && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

pid_t server_pid(const Server *server)
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

bool server_start(Server *server)
{
    if (!server_aidbctl(server, (const char *[]){"start", "-D", server->data, "-t", "120", NULL}))
        return torture_failed(server->torture, "aidbctl start failed: see %s/aidbctl.log",
                              server->torture->work);
    server->pid = server_pid(server);
    return server->pid > 0 || torture_failed(server->torture, "no pid in postmaster.pid");
}

bool server_init(Torture *torture, Server *server)
{
    *server =
        (Server){.torture = torture, .control = server->control, .expected = server->expected};
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
    if (!server_aidbctl(server, arguments))
        return torture_failed(torture, "aidbctl init failed: see %s/aidbctl.log", torture->work);
    char path[TORTURE_PATH + 32];
    snprintf(path, sizeof path, "%s/aidb.yaml", server->data);
    FILE *file = fopen(path, "a");
    if (file == NULL)
        return torture_failed(torture, "could not write %s", path);
    for (size_t i = 0; i < 16; i++)
        if (sets[i][0] != 0 && strncmp(sets[i], "wal_", 4) != 0)
            fputs(sets[i], file);
    if (torture->backends > 0)
        fprintf(file, "backends: %u\n", torture->backends);
    fclose(file);
    return true;
}

bool server_create(Torture *torture, Server *server)
{
    return server_init(torture, server) && server_start(server);
}

/* ---- processes ---------------------------------------------------------------------------------- */

size_t server_children(const Server *server, pid_t children[CHILDREN_MAX])
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
void process_title(pid_t pid, char title[80])
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

bool process_gone(pid_t pid)
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

static uint64_t private_bytes(pid_t pid)
{
    char path[64], line[200];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "RssAnon: %llu", &kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return kib << 10;
}

uint64_t server_largest_child(const Server *server)
{
    pid_t children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    uint64_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = private_bytes(children[i]);
        if (bytes > largest)
            largest = bytes;
    }
    return largest;
}

/* ---- clients ------------------------------------------------------------------------------------ */

size_t server_start_clients(const Server *server, pid_t pids[ORACLE_CLIENTS_MAX])
{
    Oracle *oracle = server->torture->oracle;
    for (uint32_t c = 0; c < oracle->clients; c++) {
        pids[c] = fork();
        if (pids[c] == 0) {
            aidb *db;
            signal(SIGPIPE, SIG_IGN);
            if (aidb_open(server->uri, NULL, &db) == AIDB_OK)
                oracle_client(oracle, c, db, true, server->now);
            /* Ends like a program that was not told to close. */
            _exit(0);
        }
    }
    return oracle->clients;
}

bool server_end_clients(Server *server, const pid_t *pids, size_t count)
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

bool server_check(Server *server, aidb_durability level, uint64_t since_ms, bool timed)
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
        if (process_gone(server->pid))
            return torture_failed(torture, "the postmaster ended; see %s", server->data);
        if (torture_now_ms() > end)
            return torture_failed(torture, "no answer within %u s: %s", ANSWER_MS / 1000,
                                  result.message);
        torture_sleep_ms(2);
    }
}

bool server_check_log(const Server *server, const char *name)
{
    char path[TORTURE_PATH + 32], line[1000];
    snprintf(path, sizeof path, "%s/%s", server->data, name);
    FILE *file = fopen(path, "r");
    bool ok = true;
    /* Under a faulty disk processes may end with an error, but never with a signal. */
    const char *ended = server->control != NULL ? "signal" : " postmaster: error: the ";
    while (file != NULL && ok && fgets(line, sizeof line, file) != NULL)
        if (strstr(line, "Sanitizer") != NULL || strstr(line, "runtime error:") != NULL ||
            strstr(line, "does not balance") != NULL || strstr(line, "did not leave") != NULL ||
            (strstr(line, " postmaster: error: the ") != NULL && strstr(line, ended) != NULL &&
             strstr(line, "signal 9") == NULL &&
             (server->expected == NULL || strstr(line, server->expected) == NULL)))
            ok = torture_failed(server->torture, "in %s: %s", path, line);
    if (file != NULL)
        fclose(file);
    return ok;
}

bool server_kill(Server *server, bool everybody)
{
    pid_t children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    kill(server->pid, SIGKILL);
    for (size_t i = 0; everybody && i < count; i++)
        kill(children[i], SIGKILL);
    uint64_t end = torture_now_ms() + HANG_MS;
    for (size_t i = 0; i < count; i++) {
        while (!process_gone(children[i])) {
            if (torture_now_ms() > end)
                return torture_failed(server->torture, "child %d outlived the postmaster",
                                      (int)children[i]);
            torture_sleep_ms(1);
        }
    }
    while (!process_gone(server->pid))
        torture_sleep_ms(1);
    return true;
}

bool server_finish(Server *server, bool ok)
{
    Torture *torture = server->torture;
    if (ok && process_gone(server->pid))
        ok = torture_failed(torture, "the postmaster ended by itself; see %s", server->data);
    if (server->pid > 0 && !process_gone(server->pid)) {
        if (ok && !server_aidbctl(server,
                                  (const char *[]){"stop", "-D", server->data, "-m", "fast", NULL}))
            ok = torture_failed(torture, "aidbctl stop failed: see %s/aidbctl.log", torture->work);
        if (ok && !server_aidbctl(server, (const char *[]){"verify", "-D", server->data, NULL}))
            ok = torture_failed(torture, "verify found damage: see %s/aidbctl.log", torture->work);
        if (!process_gone(server->pid))
            server_kill(server, true);
    }
    return server_check_log(server, "aidb.log") && ok;
}
