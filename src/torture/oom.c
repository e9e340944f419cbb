/*
 * oom.c - the kernel's out-of-memory killer takes one backend, in a control group of its own.
 *
 * Needs a control group of memory (version 1 or 2) that may be made; without one, says so and holds. The
 * postmaster must be out of the killer's reach (oom_score_adj), its children not.
 */
#include "config.h"

#include "torture/server.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT "131072"

typedef struct Group {
    char path[200];
    const char *limit; /* name of the file */
} Group;

static bool put(const Group *group, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", group->path, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool group_create(Group *group)
{
    static const char *const roots[][2] = {
        {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
        {"/sys/fs/cgroup", "memory.max"},
    };
    for (size_t i = 0; i < 2; i++) {
        snprintf(group->path, sizeof group->path, "%s/aidb-torture-%d", roots[i][0], (int)getpid());
        group->limit = roots[i][1];
        if (mkdir(group->path, 0700) != 0)
            continue;
        if (put(group, group->limit, LIMIT))
            return true;
        rmdir(group->path);
    }
    return false;
}

static bool score_is(Torture *torture, pid_t pid, const char *who, long wanted)
{
    char path[64], text[32] = "";
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
    FILE *file = fopen(path, "r");
    bool ok =
        file != NULL && fgets(text, sizeof text, file) != NULL && strtol(text, NULL, 10) == wanted;
    if (file != NULL)
        fclose(file);
    return ok || torture_failed(torture, "oom_score_adj of %s is %s", who, text);
}

/* Root in a container may have lost the right to. */
static bool may_lower_scores(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        _exit(fd >= 0 && write(fd, "-1000", 5) == 5 ? 0 : 1);
    }
    int status;
    return pid > 0 && torture_wait(pid, HANG_MS, &status) && status == 0;
}

static bool check_scores(const Server *server)
{
    pid_t children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    bool ok = score_is(server->torture, server->pid, "the postmaster", -1000);
    for (size_t i = 0; i < count && ok; i++) {
        char title[80];
        process_title(children[i], title);
        ok = process_gone(children[i]) || score_is(server->torture, children[i], title, 0);
    }
    return ok;
}

bool oom_campaign(Torture *torture)
{
    Server server = {.control = NULL};
    Group group;
    uint32_t taken = 0;
    if (!group_create(&group)) {
        printf("skipped: no control group of memory can be made here\n");
        snprintf(torture->note, sizeof torture->note, "skipped");
        return true;
    }
    torture->oracle->async_percent = 10;
    bool ok = server_create(torture, &server);
    if (!may_lower_scores())
        printf("skipped: oom_score_adj, which nobody may lower here\n");
    else if (ok)
        ok = check_scores(&server);
    while (ok && torture_round(torture)) {
        pid_t clients[ORACLE_CLIENTS_MAX], pid;
        char title[80], text[16];
        size_t count = server_start_clients(&server, clients);
        torture_sleep_ms(50 + (uint32_t)torture_below(torture, 300));
        ok = server_pick_child(&server, "backend", &pid, title) ||
             torture_failed(torture, "the server has no backends");
        uint64_t since = torture_now_ms(), end = since + 3000;
        snprintf(text, sizeof text, "%d", (int)pid);
        if (ok && !put(&group, "cgroup.procs", text) && !process_gone(pid))
            ok = torture_failed(torture, "could not move %s into the group", title);
        while (ok && !process_gone(pid) && torture_now_ms() < end)
            torture_sleep_ms(1);
        if (process_gone(pid))
            since = torture_now_ms();
        /* A client that ended by itself took its backend with it. */
        taken += process_gone(pid);
        ok = server_end_clients(&server, clients, count) && ok;
        ok = ok && server_check(&server, AIDB_OS, since, true);
    }
    snprintf(torture->note, sizeof torture->note, "%u backends taken, the others needed no memory",
             taken);
    if (ok && taken == 0 && torture->rounds >= 10) /* a few may all have needed none */
        ok = torture_failed(torture, "no backend was taken");
    ok = server_finish(&server, ok);
    rmdir(group.path);
    return ok;
}
