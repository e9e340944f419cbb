/*
 * server.h - a throwaway server: made, started, loaded with clients, checked, killed.
 */
#ifndef AIDB_TORTURE_SERVER_H
#define AIDB_TORTURE_SERVER_H

#include "torture/torture.h"

#define CHILDREN_MAX 4096
#define ANSWER_MS    HANG_MS /* a server that needs longer has failed */

typedef struct Server {
    Torture *torture;
    char data[TORTURE_PATH];
    char uri[TORTURE_PATH + 32];
    pid_t pid;                   /* of the postmaster */
    const char *control;         /* the faulty disk's control page, NULL: no faulty disk */
    const char *shim;            /* preloaded when there is a control page; NULL: the faulty disk */
    const char *journal;         /* the faulty disk's journal, NULL: none */
    const _Atomic uint32_t *now; /* noted with attempts and acknowledgements, NULL: none */
    const char *expected;        /* in errors of the server log that are wanted, NULL: none */
} Server;

/* Runs aidbctl with these arguments, a NULL at the end; its output goes to aidbctl.log. */
bool server_aidbctl(const Server *server, const char *const *arguments);
/* Makes a database with small settings in the temporary folder. Only `control` of *server is looked at
 * before. server_create starts it, too. */
bool server_init(Torture *torture, Server *server);
bool server_create(Torture *torture, Server *server);
bool server_start(Server *server);

/* Stops a server that still runs and verifies its files, if all went well; kills it otherwise. */
bool server_finish(Server *server, bool ok);

/* The pid that postmaster.pid names, 0: none. */
pid_t server_pid(const Server *server);
size_t server_children(const Server *server, pid_t children[CHILDREN_MAX]);
/* What ps shows of a process, "" when it is gone. */
void process_title(pid_t pid, char title[80]);
bool process_gone(pid_t pid);
/* Private bytes of the largest child: what it has beside the region. */
uint64_t server_largest_child(const Server *server);
/* A random child, but never recovery, whose title has `words` (NULL: any). */
bool server_pick_child(Server *server, const char *words, pid_t *pid, char title[80]);
/* Kills a random child, but never recovery. `title` (NULL: not wanted) says which. */
bool server_kill_child(Server *server, char title[80]);
/* Kills the postmaster, and everybody else too or lets them notice. False when a child stays. */
bool server_kill(Server *server, bool everybody);

/* One process for each client. They write until they are told to stop or their connection is lost. */
size_t server_start_clients(const Server *server, pid_t pids[ORACLE_CLIENTS_MAX]);
/* False when one hung, crashed or was given a wrong answer. */
bool server_end_clients(Server *server, const pid_t *pids, size_t count);

/* Waits until the server answers, checks everything, and begins the next round. */
bool server_check(Server *server, aidb_durability level, uint64_t since_ms, bool timed);
/* A child that ended by itself in a way that made the server recover would pass for one that was killed
 * here; so would what a sanitizer found. The log tells. */
bool server_check_log(const Server *server, const char *name);

#endif
