/* leveldb.c - LevelDB through its C interface, for peer_bench. */
#include <leveldb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

typedef struct Session {
    leveldb_iterator_t *iterator;
} Session;

static leveldb_t *db;
static leveldb_options_t *options;
static leveldb_cache_t *cache;
static leveldb_filterpolicy_t *filter;
static leveldb_readoptions_t *reads;
static leveldb_writeoptions_t *writes, *synced_writes;

static void check(char *error, const char *what)
{
    if (error != NULL)
        fail("%s: %s", what, error);
}

static const char *version(void)
{
    static char text[64];
    snprintf(text, sizeof text, "LevelDB %d.%d", leveldb_major_version(), leveldb_minor_version());
    return text;
}

static void open_store(const PeerSettings *settings)
{
    char *error = NULL;
    options = leveldb_options_create();
    leveldb_options_set_create_if_missing(options, 1);
    leveldb_options_set_write_buffer_size(options, settings->memtable);
    leveldb_options_set_block_size(options, settings->block);
    leveldb_options_set_compression(options, settings->compress ? leveldb_snappy_compression
                                                                : leveldb_no_compression);
    cache = leveldb_cache_create_lru(settings->cache);
    leveldb_options_set_cache(options, cache);
    if (settings->filter_bits != 0) {
        filter = leveldb_filterpolicy_create_bloom((int)settings->filter_bits);
        leveldb_options_set_filter_policy(options, filter);
    }
    reads = leveldb_readoptions_create();
    writes = leveldb_writeoptions_create();
    synced_writes = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(synced_writes, 1);
    db = leveldb_open(options, settings->path, &error);
    check(error, settings->path);
}

static void close_store(void)
{
    leveldb_close(db);
    leveldb_readoptions_destroy(reads);
    leveldb_writeoptions_destroy(writes);
    leveldb_writeoptions_destroy(synced_writes);
    leveldb_options_destroy(options);
    leveldb_cache_destroy(cache);
    if (filter != NULL)
        leveldb_filterpolicy_destroy(filter);
}

static void *session_begin(void)
{
    Session *session = calloc(1, sizeof *session);
    if (session == NULL)
        fail("out of memory");
    return session;
}

static void session_end(void *session)
{
    free(session);
}

static void put(void *session, const PeerRow *row, bool sync)
{
    (void)session;
    char *error = NULL;
    leveldb_put(db, sync ? synced_writes : writes, row->key, row->key_size, row->value,
                row->value_size, &error);
    check(error, "put");
}

static void remove_key(void *session, const void *key, size_t size, bool sync)
{
    (void)session;
    char *error = NULL;
    leveldb_delete(db, sync ? synced_writes : writes, key, size, &error);
    check(error, "delete");
}

static bool get(void *session, const void *key, size_t size, size_t *value_size)
{
    (void)session;
    char *error = NULL;
    char *value = leveldb_get(db, reads, key, size, value_size, &error);
    check(error, "get");
    leveldb_free(value);
    return value != NULL;
}

static void iterator_begin(void *arg)
{
    Session *session = arg;
    session->iterator = leveldb_create_iterator(db, reads);
}

static void iterator_end(void *arg)
{
    Session *session = arg;
    leveldb_iter_destroy(session->iterator);
}

static bool move(void *arg, PeerMove wanted, PeerRow *row)
{
    leveldb_iterator_t *iterator = ((Session *)arg)->iterator;
    switch (wanted) {
    case PEER_FIRST:
        leveldb_iter_seek_to_first(iterator);
        break;
    case PEER_LAST:
        leveldb_iter_seek_to_last(iterator);
        break;
    case PEER_SEEK:
        leveldb_iter_seek(iterator, row->key, row->key_size);
        break;
    case PEER_NEXT:
        leveldb_iter_next(iterator);
        break;
    case PEER_PREV:
        leveldb_iter_prev(iterator);
        break;
    }
    if (!leveldb_iter_valid(iterator)) {
        char *error = NULL;
        leveldb_iter_get_error(iterator, &error);
        check(error, "iterator");
        return false;
    }
    row->key = leveldb_iter_key(iterator, &row->key_size);
    row->value = leveldb_iter_value(iterator, &row->value_size);
    return true;
}

static void compact(void)
{
    leveldb_compact_range(db, NULL, 0, NULL, 0);
}

const Peer peer = {
    .name = "leveldb",
    .version = version,
    .open = open_store,
    .close = close_store,
    .session_begin = session_begin,
    .session_end = session_end,
    .put = put,
    .remove = remove_key,
    .get = get,
    .iterator_begin = iterator_begin,
    .iterator_end = iterator_end,
    .move = move,
    .compact = compact,
};
