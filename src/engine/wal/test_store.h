/*
 * test_store.h - a log under test: a temporary directory, a stand-in for the manifest, records whose
 * contents follow from their number, and a file layer that fails or dies at the Nth call.
 */
#ifndef AIDB_ENGINE_WAL_TEST_STORE_H
#define AIDB_ENGINE_WAL_TEST_STORE_H

#include "engine/wal/wal_internal.h"

#include "testlib/testlib.h"

#include <check.h>

/* What the manifest would keep; in shared memory, so that killed children leave it. */
typedef struct TestManifest {
    uint32_t incarnation;
    uint64_t from;
    uint64_t from_record; /* number of the record at `from` */
    uint64_t horizon;
    size_t count;
    WalStart starts[64];
    WalStart replaced; /* by the last one; incarnation 0: none */
} TestManifest;

typedef struct TestStore {
    char directory[256]; /* temporary; the log is in it as "wal" */
    char wal_directory[300];
    WalOptions options;
    WalShared *shared; /* shared memory */
    TestManifest *manifest;
    SlotTable slots;
    Slot *slot; /* of the main thread */
    Wal *wal;
    uint64_t next;    /* number of the next record */
    WalRecovery last; /* of the last recovery */
} TestStore;

/* Status checks that show the message. */
#define ck_ok(expression)                                                                     \
    do {                                                                                      \
        Status status_ = (expression);                                                        \
        test_expect(status_ == AIDB_OK, "%s: %d %s", #expression, status_, status_message()); \
    } while (0)
#define ck_fails(code, expression)                                                           \
    do {                                                                                     \
        Status status_ = (expression);                                                       \
        test_expect(status_ == (code), "%s: %d %s", #expression, status_, status_message()); \
    } while (0)

/* Makes a temporary directory and an empty log in it, without opening it. */
void test_store_make(TestStore *store, uint64_t segment_size, uint64_t ring_size);
/* Opens and recovers; the new start goes into the manifest when that succeeds. */
Status test_store_open(TestStore *store);
/* Takes the last start out of the manifest, as if it had never come to be durable. */
void test_store_forget_start(TestStore *store);
/* Forgets everything in memory, as a crash of all processes does. */
void test_store_crash(TestStore *store);
void test_store_stop(TestStore *store); /* cleanly */
void test_store_remove(TestStore *store);
/* Copies one directory of files over another, which is emptied before. */
void test_copy_directory(const char *from, const char *to);
void test_remove_directory(const char *path);

/* Contents of a record, in a buffer that is reused. */
Slice test_payload(uint64_t number);
size_t test_payload_size(uint64_t number);
/* Appends the next record, making room first; large ones go straight to segments. */
Status test_append(TestStore *store);
void test_append_many(TestStore *store, int count);
/* Reads everything from manifest.from to the end of the last recovery: records must follow each other.
 * Returns the number behind the last one found, and goes on from there. */
uint64_t test_read_all(TestStore *store);

/* What a recovery would find, without changing anything: the end (0 on failure). `horizon` is what the
 * manifest knows. */
Status test_examine(const TestStore *store, uint64_t horizon, uint64_t *end);

/* ---- the file layer ----------------------------------------------------------------------------- */

typedef enum FaultMode {
    FAULT_NONE,
    FAULT_EXIT,       /* the process ends before the call */
    FAULT_EXIT_LATE,  /* the process ends in the middle of a write, after any other call */
    FAULT_ERROR,      /* the call fails, later ones work */
    FAULT_ERROR_LATE, /* half of a write, or all of another call, is done, then it fails */
    FAULT_DEAD        /* the call and all later ones fail */
} FaultMode;

#define FAULT_EXIT_CODE 99

typedef struct Fault {
    FaultMode mode;
    uint64_t at;    /* call number, from 1 */
    uint64_t calls; /* made so far */
    bool syncs_only;
    Status code;
} Fault;
extern Fault fault;
void fault_set(FaultMode mode, uint64_t at);

/* Power loss: from power_begin on, the layer knows what syncs have covered. power_cut undoes a random
 * part of the rest: sector by sector in files, name by name in the directory. */
void power_begin(const char *directory);
void power_cut(uint64_t *seed);
void power_end(void);

TCase *crash_cases(void);
TCase *damage_cases(void);
TCase *fault_cases(void);

#endif
