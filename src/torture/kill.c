/*
 * kill.c - processes of a server killed or stopped under load.
 *
 * A round: clients write as fast as they are answered; at a random moment something is killed; the
 * clients end by themselves, because a lost connection leaves the outcome of a write open; the server
 * must answer again; everything is compared.
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

#define LONG_STOPS 5u /* rounds from which on processes sleep for half a minute or one */

/* Writers that wait keep nothing but what they were asked to write. Sanitizers keep freed memory for long. */
#define PRIVATE_MAX  (24u << 20)
#define VERIFY_EVERY 4u /* rounds in which files are verified meanwhile */

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

bool server_pick_child(Server *server, const char *words, pid_t *pid, char title[80])
{
    pid_t children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    for (size_t tries = 0; count > 0 && tries < 200; tries++) {
        *pid = children[torture_below(server->torture, count)];
        process_title(*pid, title);
        /* A killed recovery stops the server by design: kill-recovery is about that. */
        if (title[0] != 0 && strstr(title, "startup") == NULL &&
            (words == NULL || strstr(title, words) != NULL))
            return true;
    }
    return false;
}

bool server_kill_child(Server *server, char title[80])
{
    pid_t pid;
    char any[80];
    if (title == NULL)
        title = any;
    /* Children of equal kinds are many (one backend a client), so half of the rounds choose a kind. */
    const char *const words[] = {"wal writer", "flusher", "compactor",
                                 server->torture->backends > 0 ? "host" : "backend"};
    const char *word =
        words[torture_below(server->torture, 8) % 8 < 4 ? torture_below(server->torture, 4) : 3];
    if (!server_pick_child(server, word, &pid, title) &&
        !server_pick_child(server, NULL, &pid, title))
        return torture_failed(server->torture, "the server has no children");
    uint64_t end = torture_now_ms() + ANSWER_MS;
    kill(pid, SIGKILL);
    /* Gone for good only once the postmaster has seen it; only then does an answer prove anything. */
    while (kill(pid, 0) == 0) {
        if (torture_now_ms() > end)
            return torture_failed(server->torture, "the postmaster does not reap %s", title);
        torture_sleep_ms(1);
    }
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
    return server_kill(server, true) && torture_wait(pid, HANG_MS, &status);
}

/* Whether the server says that it slows writers; it answers, whoever sleeps. */
static bool is_throttled(const Server *server)
{
    aidb *db;
    char *text = NULL;
    bool throttled = false;
    if (aidb_open(server->uri, NULL, &db) != AIDB_OK)
        return false;
    if (aidb_property(db, "status", &text) == AIDB_OK) {
        const char *line = strstr(text, "\nthrottle\t");
        throttled = line != NULL && strncmp(line + 10, "none", 4) != 0;
    }
    aidb_free(text);
    (void)aidb_close(db);
    return throttled;
}

static bool stop_child(Server *server, Kinds *kinds)
{
    static const char *const words[] = {"wal writer", "compactor", "flusher"};
    pid_t pid;
    char title[80];
    if (!server_pick_child(server, words[torture_below(server->torture, 3)], &pid, title))
        return torture_failed(server->torture, "the server has no background processes");
    count_kind(kinds, title);
    /* All compactors: one alone would do the work of the others. */
    pid_t stopped[CHILDREN_MAX];
    size_t count = 0;
    if (strstr(title, "compactor") != NULL) {
        pid_t children[CHILDREN_MAX];
        char other[80];
        size_t all = server_children(server, children);
        for (size_t i = 0; i < all; i++) {
            process_title(children[i], other);
            if (strstr(other, "compactor") != NULL)
                stopped[count++] = children[i];
        }
    } else {
        stopped[count++] = pid;
    }
    for (size_t i = 0; i < count; i++)
        kill(stopped[i], SIGSTOP);
    uint32_t stopped_ms = 1000 + (uint32_t)torture_below(server->torture, 3000);
    if (server->torture->iterations >= LONG_STOPS)
        stopped_ms = strstr(title, "wal writer") != NULL ? 30000 : 60000;
    uint64_t before = server_largest_child(server);
    torture_sleep_ms(stopped_ms);
    uint64_t after = server_largest_child(server);
    if (is_throttled(server))
        count_kind(kinds, "throttled");
    for (size_t i = 0; i < count; i++)
        kill(stopped[i], SIGCONT);
    if (after > before + PRIVATE_MAX)
        return torture_failed(server->torture,
                              "a process grew from %llu to %llu bytes while %s slept",
                              (unsigned long long)before, (unsigned long long)after, title);
    torture_sleep_ms(300);
    return true;
}

/* Verifies the files some times beside who writes, dies and recovers: damage that is none would be found. */
static pid_t start_verify(const Server *server)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    for (int i = 0; i < 5; i++)
        if (!server_aidbctl(server, (const char *[]){"verify", "-D", server->data, NULL}))
            _exit(1);
    _exit(0);
}

bool kill_campaign(Torture *torture)
{
    Server server = {.control = NULL};
    Kinds kinds = {0};
    const char *campaign = torture->campaign;
    bool recovery = strcmp(campaign, "kill-recovery") == 0;
    bool group = recovery || strcmp(campaign, "kill-group") == 0;
    torture->oracle->async_percent = 10;
    torture->oracle->flush_permille = 1;
    bool ok = server_create(torture, &server);
    while (ok && torture_round(torture)) {
        pid_t clients[ORACLE_CLIENTS_MAX], verify = 0;
        size_t count = server_start_clients(&server, clients);
        if (strcmp(campaign, "kill-child") == 0 && torture->rounds % VERIFY_EVERY == 0)
            verify = start_verify(&server);
        /* Mostly soon, to have many; now and then with more to lose. */
        uint64_t most_ms = torture_below(torture, 4) == 0 ? 400 : 80;
        torture_sleep_ms(20 + (uint32_t)torture_below(torture, most_ms));
        uint64_t since = torture_now_ms();
        bool timed = true;
        int status;
        if (strcmp(campaign, "kill-child") == 0) {
            char title[80];
            ok = server_kill_child(&server, title);
            count_kind(&kinds, title);
            ok = server_end_clients(&server, clients, count) && ok;
        } else if (strcmp(campaign, "stop") == 0) {
            timed = false;
            ok = stop_child(&server, &kinds);
            ok = server_end_clients(&server, clients, count) && ok;
            for (uint32_t c = 0; ok && c < torture->oracle->clients; c++)
                if (torture->oracle->client[c].ended != 0)
                    ok = torture_failed(torture, "client %u got status %u while a process slept", c,
                                        torture->oracle->client[c].ended);
        } else {
            count_kind(&kinds, group ? "group" : "postmaster");
            ok = server_kill(&server, group);
            ok = server_end_clients(&server, clients, count) && ok;
            for (int i = 0; recovery && ok && i < 10; i++) {
                count_kind(&kinds, "recovery");
                ok = kill_recovery(&server);
            }
            since = torture_now_ms();
            ok = ok && server_start(&server);
        }
        ok = ok && server_check(&server, AIDB_OS, since, timed);
        if (verify != 0 && (!torture_wait(verify, 2 * HANG_MS, &status) || status != 0))
            ok = torture_failed(torture, "verify beside a server: see %s/aidbctl.log",
                                torture->work);
        if (torture->verbose)
            printf("round %llu: %llu acked\n", (unsigned long long)torture->rounds,
                   (unsigned long long)torture->acked);
    }
    size_t used = 0;
    for (size_t i = 0; i < 16 && kinds.count[i] > 0; i++)
        used += (size_t)snprintf(torture->note + used, sizeof torture->note - used, "%s%s %u",
                                 i > 0 ? " " : "", kinds.name[i], kinds.count[i]);
    return server_finish(&server, ok);
}
