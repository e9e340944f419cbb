/*
 * test_store.h - what the tests of this folder share: a store in a temporary directory.
 *
 * One process plays writer, reader and all background duties in turn, so a seed replays exactly.
 */
#ifndef AIDB_ENGINE_DB_TEST_STORE_H
#define AIDB_ENGINE_DB_TEST_STORE_H

#include "engine/db/db.h"
#include "testlib/testlib.h"

#include <check.h>

typedef struct Store {
    char *directory;
    EngineOptions options;
    Db *db;
    Session *client;
    Session *flusher;
    Session *compactor;
    Session *wal_writer;
    uint64_t random;
} Store;

/* Tables, memtables and segments so small that little writing makes many. */
EngineOptions small_options(void);
void ok(Status status);
void key_of(uint32_t index, char key[16]);
void step(Session *session);

/* Opens the directory, with the options. */
void store_open(Store *store);
/* `clean`: as a stop does it; otherwise as a killed process leaves the files (everything written survives,
 * since the ring is a mapped file). */
void store_close(Store *store, bool clean);
void store_create_with(Store *store, uint64_t seed, const EngineOptions *options);
/* Makes a directory with small options and opens it. */
void store_create(Store *store, uint64_t seed);
void store_destroy(Store *store);
Status write_batch(Store *store, const Batch *batch, DbCommit *commit);

/* One for each file of tests of db_test. */
TCase *model_cases(void);
TCase *write_cases(void);

#endif
