/*
 * torture.h - what the campaigns share: options, processes, figures.
 */
#ifndef AIDB_TORTURE_TORTURE_H
#define AIDB_TORTURE_TORTURE_H

#include "torture/oracle.h"

#include <sys/types.h>

#define TORTURE_PATH 400u
#define HANG_MS      120000u /* only what hangs takes so long, however busy the machine is */

typedef struct Torture {
    const char *campaign;
    const char *self;        /* this program */
    const char *bin;         /* where aidb and aidbctl are; NULL: PATH */
    const char *memory_shim; /* memory.so; NULL: a sanitizer has the allocator */
    const char *shim;        /* disk.so */
    char work[256];          /* temporary folder, removed unless something failed or `keep` */
    uint64_t seed;
    uint64_t random;
    uint32_t iterations;
    uint32_t clients;
    uint32_t backends;    /* the servers' processes for all clients; 0: one for each */
    uint64_t deadline_ms; /* of the monotonic clock; 0: iterations decide */
    const char *minutes;  /* as they were given */
    bool keep;
    bool verbose;
    /* Figures. */
    uint64_t rounds, acked, promised, lost;
    uint32_t recovery_ms[100000];
    uint32_t recoveries;
    char note[4000]; /* what else the last line says */
    Oracle *oracle;
} Torture;

/* Each returns true when the product held. On failure the reason has been printed. */
bool kill_campaign(Torture *torture);     /* kill-child, kill-postmaster, kill-group, ... */
bool embedded_campaign(Torture *torture); /* kill-embedded */
bool power_campaign(Torture *torture);    /* power, power-every, server-power, ... */
bool soak_campaign(Torture *torture);
bool oom_campaign(Torture *torture);
bool fault_campaign(Torture *torture);
bool server_fault_campaign(Torture *torture);
bool server_memory_campaign(Torture *torture);
bool harmless_campaign(Torture *torture);
bool slow_disk_campaign(Torture *torture);
bool failpoint_campaign(Torture *torture); /* failpoint, failpoint-embedded, lock-held */
bool hostile_campaign(Torture *torture);   /* hostile, hostile-hosted */
bool linear_campaign(Torture *torture);    /* linear, linear-embedded, bank */
bool stuck_campaign(Torture *torture);
bool flip_campaign(Torture *torture);
/* The workload of an embedded program, run in a process of its own: `self --worker ...`. */
int worker_main(int argc, char **argv);

/* Starts it on a directory. With `control` the faulty disk (disk.h) is under it, with `journal` it writes
 * one. The process's messages go to worker.log. */
pid_t worker_start(Torture *torture, const char *directory, const char *control,
                   const char *journal);
/* Flushes, compacts and scans at snapshots until the clients are told to stop or a call fails. */
void push_main(Oracle *oracle, aidb *db);
/* Writes one key, flushes and compacts: in a new database that moves a table. */
aidb_status push_begin(aidb *db);
/* Opens a directory and has the oracle check it, in a child that may crash or hang. */
bool check_directory(Torture *torture, const char *directory, aidb_durability level, uint32_t at,
                     OracleResult *result);

/* What a program does to a directory under the faulty disk with a journal, and a power loss at its end:
 * the state before, and, when it has ended, what the loss leaves, built in `directory`. The second call
 * frees the state. */
typedef struct Disk Disk;
/* A journal with the copies that disk.c keeps beside it. */
void power_journal_remove(const char *path);
Disk *power_disk_create(const char *directory);
bool power_disk_lose(Disk *disk, const char *journal_path, const char *directory, uint64_t random);

/* Settings so small that everything happens often. */
extern const aidb_option small_settings[];

uint64_t torture_now_ms(void);
void torture_sleep_ms(uint32_t ms);
uint64_t torture_below(Torture *torture, uint64_t bound);
/* Whether another round is due, and counts it. */
bool torture_round(Torture *torture);
/* Whether the minutes are over: for what takes long within a round. */
bool torture_over(const Torture *torture);
void torture_recovered(Torture *torture, uint64_t ms);
/* Prints "FAILED ..." with seed and round; returns false. */
bool torture_failed(Torture *torture, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void torture_count(Torture *torture, const OracleResult *result);
/* Waits for a child; kills it and returns false when it takes longer. */
bool torture_wait(pid_t pid, uint32_t limit_ms, int *status);
void torture_path(const Torture *torture, const char *name, char path[TORTURE_PATH]);
/* Removes a directory tree; a missing one is fine. */
void remove_tree(const char *path);
/* Copies the regular files and directories below `from`. */
bool copy_tree(const char *from, const char *to);

#endif
