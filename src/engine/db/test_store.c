/* test_store.c - a store, and one process that has all its duties. */
#include "config.h"

#include "engine/db/test_store.h"

#include <stdio.h>
#include <string.h>

EngineOptions small_options(void)
{
    return (EngineOptions){.memory = 24u << 20,
                           .memtable_size = 128u << 10,
                           .cache_size = 2u << 20,
                           .block_size = 1024,
                           .compression = COMPRESSION_ZSTD,
                           .compression_level = 1,
                           .filter_bits = 10,
                           .table_size = 64u << 10,
                           .level_base_size = 128u << 10,
                           .level_multiplier = 4,
                           .level0_files = 2,
                           .compactors = 1,
                           .durability = AIDB_FSYNC,
                           .wal_segment_size = 64u << 10,
                           .wal_ring_size = 64u << 10,
                           .batch_max = 4u << 20};
}

void ok(Status status)
{
    test_check(status == AIDB_OK, "%s: %s", status_name(status), status_message());
}

void key_of(uint32_t index, char key[16])
{
    snprintf(key, 16, "key%04u", index);
}

void store_open(Store *store)
{
    ok(db_setup(store->directory, &store->options, &(DbSlots){.count = 8}, &store->db));
    ok(db_session_create(store->db, UINT32_MAX, SLOT_THREAD, &store->client));
    ok(db_recover(store->db, store->client));
    ok(db_session_create(store->db, UINT32_MAX, SLOT_FLUSHER, &store->flusher));
    ok(db_session_create(store->db, UINT32_MAX, SLOT_COMPACTOR, &store->compactor));
    ok(db_session_create(store->db, UINT32_MAX, SLOT_WAL_WRITER, &store->wal_writer));
}

void store_close(Store *store, bool clean)
{
    db_session_destroy(store->flusher);
    db_session_destroy(store->compactor);
    db_session_destroy(store->wal_writer);
    if (clean)
        ok(db_stop(store->db, store->client, test_random_below(&store->random, 2) == 0));
    db_session_destroy(store->client);
    db_destroy(store->db);
}

void store_create_with(Store *store, uint64_t seed, const EngineOptions *options)
{
    memset(store, 0, sizeof *store);
    store->random = seed;
    store->options = *options;
    store->directory = test_directory_create();
    ok(db_create(store->directory, options));
    store_open(store);
}

void store_create(Store *store, uint64_t seed)
{
    EngineOptions options = small_options();
    store_create_with(store, seed, &options);
}

void store_destroy(Store *store)
{
    store_close(store, true);
    test_directory_destroy(store->directory);
}

void step(Session *session)
{
    int wait_ms;
    ok(db_step(session, &wait_ms));
}

Status write_batch(Store *store, const Batch *batch, DbCommit *commit)
{
    DbWrite write = {.ops = buffer_slice(&batch->ops),
                     .op_count = batch->op_count,
                     .range_count = batch->range_count,
                     .expectations = buffer_slice(&batch->expectations),
                     .expectation_count = batch->expectation_count};
    return db_write(store->client, &write, commit);
}
