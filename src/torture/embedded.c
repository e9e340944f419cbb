/*
 * embedded.c - the workload of a program with an open directory, and what kill -9 does to it.
 *
 * The program is a process of its own (this one with --worker): it opens the directory, runs each client
 * in a thread, and closes. Power loss and faults (power.c, fault.c) put a faulty disk under the same
 * program.
 */
#include "config.h"

#include "torture/torture.h"

#include "torture/disk.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void *disk_map(const char *path, size_t size, bool create)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0600);
    if (fd < 0)
        return NULL;
    void *memory = MAP_FAILED;
    if (!create || ftruncate(fd, (off_t)size) == 0)
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

void disk_reset(DiskControl *control)
{
    pthread_mutexattr_t attributes;
    memset(control, 0, sizeof *control);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&control->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

typedef struct Thread {
    pthread_t thread;
    Oracle *oracle;
    uint32_t client;
    aidb *db;
    const _Atomic uint32_t *now;
} Thread;

static void *run_thread(void *arg)
{
    Thread *thread = arg;
    oracle_client(thread->oracle, thread->client, thread->db, false, thread->now);
    return NULL;
}

aidb_status push_begin(aidb *db)
{
    aidb_status status = aidb_put(db, "~", 1, "", 0);
    if (status == AIDB_OK)
        status = aidb_control(db, "flush", NULL);
    return status == AIDB_OK ? aidb_control(db, "compact", NULL) : status;
}

void push_main(Oracle *oracle, aidb *db)
{
    static const char large[3u << 20];
    aidb_status status = AIDB_OK;
    for (uint32_t round = 0; status == AIDB_OK && atomic_load(&oracle->stop) == 0; round++) {
        aidb_snapshot *snapshot = NULL;
        aidb_iter *iter = NULL;
        const aidb_entry *entry = NULL;
        status = aidb_snapshot_create(db, &snapshot);
        if (status == AIDB_OK)
            status = aidb_iter_create(db, snapshot, NULL, &iter);
        for (int i = 0; i < 100 && status == AIDB_OK && (i == 0 || entry != NULL); i++)
            status = aidb_iter_next(iter, &entry);
        /* Much log at once, so that segments are left over. */
        for (int i = 0; i < 2 && status == AIDB_OK && round % 8 == 1; i++)
            status = aidb_put(db, "~", 1, large, sizeof large);
        if (status == AIDB_OK)
            status = aidb_control(db, "flush", NULL);
        if (status == AIDB_OK && round % 4 == 3)
            status = aidb_control(db, "compact", NULL);
        if (status == AIDB_NO_SPACE || status == AIDB_BUSY)
            status = AIDB_OK;
        aidb_iter_destroy(iter);
        aidb_snapshot_destroy(snapshot);
        if (status == AIDB_OK)
            torture_sleep_ms(5);
    }
}

static void *run_pusher(void *arg)
{
    Thread *thread = arg;
    push_main(thread->oracle, thread->db);
    return NULL;
}

/* worker DIRECTORY NOTES [CONTROL]: exit 0 when opening, all threads and closing went well, 3 when the
 * directory could not be opened, 4 when closing failed, 5 when a store that does not know the outcome of a
 * write took another one; each with the message on standard error. */
int worker_main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    Oracle *oracle = oracle_open(argv[1]);
    DiskControl *control = argc > 2 ? disk_map(argv[2], sizeof *control, false) : NULL;
    if (oracle == NULL || (argc > 2 && control == NULL))
        return 2;
    aidb *db;
    if (aidb_open(argv[0], small_settings, &db) != AIDB_OK) {
        fprintf(stderr, "open: %s\n", aidb_error_message());
        return 3;
    }
    bool push = getenv("AIDB_TORTURE_PUSH") != NULL;
    if (push)
        (void)push_begin(db);
    Thread threads[ORACLE_CLIENTS_MAX];
    for (uint32_t c = 0; c < oracle->clients; c++) {
        threads[c] = (Thread){.oracle = oracle,
                              .client = c,
                              .db = db,
                              .now = control != NULL ? &control->calls : NULL};
        if (pthread_create(&threads[c].thread, NULL, run_thread, &threads[c]) != 0) {
            fprintf(stderr, "could not make a thread\n");
            return 4;
        }
    }
    Thread pusher = {.oracle = oracle, .db = db};
    if (push && pthread_create(&pusher.thread, NULL, run_pusher, &pusher) != 0)
        return 2;
    for (uint32_t c = 0; c < oracle->clients; c++)
        pthread_join(threads[c].thread, NULL);
    if (push) {
        atomic_store(&oracle->stop, 1);
        pthread_join(pusher.thread, NULL);
    }
    for (uint32_t c = 0; c < oracle->clients; c++) {
        if (oracle->client[c].ended == AIDB_UNKNOWN && aidb_put(db, "c", 1, "", 0) != AIDB_FAILED) {
            fprintf(stderr, "a write after AIDB_UNKNOWN: %s\n", aidb_error_message());
            return 5;
        }
    }
    if (aidb_close(db) != AIDB_OK) {
        fprintf(stderr, "close: %s\n", aidb_error_message());
        return 4;
    }
    return 0;
}

pid_t worker_start(Torture *torture, const char *directory, const char *control,
                   const char *journal)
{
    char notes[TORTURE_PATH], log[TORTURE_PATH];
    torture_path(torture, "notes", notes);
    torture_path(torture, "worker.log", log);
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    if (freopen(log, "w", stderr) == NULL)
        _exit(2);
    if (control != NULL) {
        setenv("LD_PRELOAD", torture->shim, 1);
        setenv("AIDB_DISK_ROOT", directory, 1);
        setenv("AIDB_DISK_CONTROL", control, 1);
        if (journal != NULL)
            setenv("AIDB_DISK_JOURNAL", journal, 1);
        /* The sanitizer's library wants to be first; the shim only forwards to libc. */
        setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    }
    execl(torture->self, torture->self, "--worker", directory, notes, control, (char *)NULL);
    _exit(2);
}

/* Opens the directory in a child of its own, so that a crash or a hang is a finding and not the end.
 * The notes are shared, so what the check found stays. */
bool check_directory(Torture *torture, const char *directory, aidb_durability level, uint32_t at,
                     OracleResult *result)
{
    static OracleResult *shared;
    if (shared == NULL) {
        char path[TORTURE_PATH];
        torture_path(torture, "result", path);
        shared = disk_map(path, sizeof *shared, true);
        if (shared == NULL)
            return torture_failed(torture, "could not map %s", path);
    }
    memset(shared, 0, sizeof *shared);
    uint64_t begun = torture_now_ms();
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        aidb *db;
        aidb_status status = aidb_open(directory, small_settings, &db);
        if (status == AIDB_OK) {
            status = oracle_check(torture->oracle, db, level, at, shared);
            if (status != AIDB_OK && shared->message[0] == 0)
                snprintf(shared->message, sizeof shared->message, "%s", aidb_error_message());
            if (status == AIDB_OK && (status = aidb_close(db)) != AIDB_OK)
                snprintf(shared->message, sizeof shared->message, "close: %s",
                         aidb_error_message());
        } else {
            snprintf(shared->message, sizeof shared->message, "open: %s", aidb_error_message());
        }
        _exit(status == AIDB_OK ? 0 : 1);
    }
    int status;
    if (!torture_wait(pid, HANG_MS, &status))
        return torture_failed(torture, "recovery of %s hung", directory);
    *result = *shared;
    if (WIFSIGNALED(status))
        return torture_failed(torture, "recovery of %s crashed with signal %d", directory,
                              WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return torture_failed(torture, "%s: %s", directory, result->message);
    torture_recovered(torture, torture_now_ms() - begun);
    return true;
}

bool embedded_campaign(Torture *torture)
{
    char directory[TORTURE_PATH];
    torture_path(torture, "data", directory);
    torture->oracle->async_percent = 10;
    torture->oracle->flush_permille = 1;
    uint64_t recoveries = 0;
    bool ok = true;
    while (ok && torture_round(torture)) {
        pid_t pid = worker_start(torture, directory, NULL, NULL);
        int status;
        torture_sleep_ms(20 + (uint32_t)torture_below(torture, 300));
        kill(pid, SIGKILL);
        (void)torture_wait(pid, HANG_MS, &status);
        const char *message = oracle_wrong(torture->oracle);
        if (message != NULL) {
            ok = torture_failed(torture, "wrong answer: %s", message);
            break;
        }
        if (WIFEXITED(status)) {
            ok = torture_failed(torture, "the program ended with status %d: see %s/worker.log",
                                WEXITSTATUS(status), torture->work);
            break;
        }
        /* Recovery itself killed, some of the time. */
        for (uint64_t i = torture_below(torture, 4); i > 0; i--, recoveries++) {
            atomic_store(&torture->oracle->stop, 1);
            pid = worker_start(torture, directory, NULL, NULL);
            torture_sleep_ms((uint32_t)torture_below(torture, 40));
            kill(pid, SIGKILL);
            (void)torture_wait(pid, HANG_MS, &status);
        }
        OracleResult result;
        ok = check_directory(torture, directory, AIDB_OS, UINT32_MAX, &result);
        if (ok) {
            torture_count(torture, &result);
            oracle_advance(torture->oracle);
        }
    }
    snprintf(torture->note, sizeof torture->note, "%llu recoveries killed too",
             (unsigned long long)recoveries);
    return ok;
}
