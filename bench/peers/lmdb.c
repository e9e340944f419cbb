/*
 * lmdb.c - LMDB, for peer_bench.
 *
 * A write is a transaction of its own. Without sync the environment is opened with MDB_NOSYNC, which
 * like `os` durability leaves the pages to the kernel. Readers keep one transaction object and renew
 * it for each get, as LMDB's documentation advises.
 */
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "peer.h"

#define MAP_SIZE    ((size_t)1 << 40) /* address space; the file grows as it is written */
#define READERS_MAX 1100

typedef struct Session {
    MDB_txn *txn;
    MDB_cursor *cursor;
    char *copy;
    size_t copy_size;
} Session;

static MDB_env *env;
static MDB_dbi dbi;

static void check(int code, const char *what)
{
    if (code != MDB_SUCCESS)
        fail("%s: %s", what, mdb_strerror(code));
}

static const char *version(void)
{
    return mdb_version(NULL, NULL, NULL);
}

static void open_store(const PeerSettings *settings)
{
    MDB_txn *txn;
    mkdir(settings->path, 0700);
    check(mdb_env_create(&env), "environment");
    check(mdb_env_set_mapsize(env, MAP_SIZE), "map size");
    check(mdb_env_set_maxreaders(env, READERS_MAX), "readers");
    /* The keys are read at random, so reading ahead would only be in the way. */
    check(mdb_env_open(env, settings->path,
                       MDB_NOTLS | MDB_NORDAHEAD | (settings->sync ? 0 : MDB_NOSYNC), 0600),
          settings->path);
    check(mdb_txn_begin(env, NULL, 0, &txn), "transaction");
    check(mdb_dbi_open(txn, NULL, 0, &dbi), "database");
    check(mdb_txn_commit(txn), "commit");
}

static void close_store(void)
{
    mdb_env_close(env);
}

static void *session_begin(void)
{
    Session *session = calloc(1, sizeof *session);
    if (session == NULL)
        fail("out of memory");
    check(mdb_txn_begin(env, NULL, MDB_RDONLY, &session->txn), "transaction");
    mdb_txn_reset(session->txn);
    return session;
}

static void session_end(void *arg)
{
    Session *session = arg;
    mdb_txn_abort(session->txn);
    free(session->copy);
    free(session);
}

static void put(void *session, const PeerRow *row, bool sync)
{
    (void)session;
    (void)sync;
    MDB_txn *txn;
    MDB_val key = {row->key_size, (void *)row->key}, value = {row->value_size, (void *)row->value};
    check(mdb_txn_begin(env, NULL, 0, &txn), "transaction");
    check(mdb_put(txn, dbi, &key, &value, 0), "put");
    check(mdb_txn_commit(txn), "commit");
}

static void remove_key(void *session, const void *bytes, size_t size, bool sync)
{
    (void)session;
    (void)sync;
    MDB_txn *txn;
    MDB_val key = {size, (void *)bytes};
    check(mdb_txn_begin(env, NULL, 0, &txn), "transaction");
    int code = mdb_del(txn, dbi, &key, NULL);
    if (code != MDB_NOTFOUND)
        check(code, "delete");
    check(mdb_txn_commit(txn), "commit");
}

static bool get(void *arg, const void *bytes, size_t size, size_t *value_size)
{
    Session *session = arg;
    MDB_val key = {size, (void *)bytes}, value = {0, NULL};
    check(mdb_txn_renew(session->txn), "transaction");
    int code = mdb_get(session->txn, dbi, &key, &value);
    if (code == MDB_SUCCESS) {
        /* The others hand out a copy. */
        if (value.mv_size > session->copy_size) {
            free(session->copy);
            session->copy_size = value.mv_size;
            session->copy = malloc(session->copy_size);
            if (session->copy == NULL)
                fail("out of memory");
        }
        memcpy(session->copy, value.mv_data, value.mv_size);
    } else if (code != MDB_NOTFOUND) {
        check(code, "get");
    }
    *value_size = value.mv_size;
    mdb_txn_reset(session->txn);
    return code == MDB_SUCCESS;
}

static void iterator_begin(void *arg)
{
    Session *session = arg;
    check(mdb_txn_renew(session->txn), "transaction");
    check(mdb_cursor_open(session->txn, dbi, &session->cursor), "cursor");
}

static void iterator_end(void *arg)
{
    Session *session = arg;
    mdb_cursor_close(session->cursor);
    mdb_txn_reset(session->txn);
}

static bool move(void *arg, PeerMove wanted, PeerRow *row)
{
    static const MDB_cursor_op ops[] = {
        [PEER_FIRST] = MDB_FIRST, [PEER_LAST] = MDB_LAST, [PEER_SEEK] = MDB_SET_RANGE,
        [PEER_NEXT] = MDB_NEXT,   [PEER_PREV] = MDB_PREV,
    };
    MDB_val key = {row->key_size, (void *)row->key}, value;
    int code = mdb_cursor_get(((Session *)arg)->cursor, &key, &value, ops[wanted]);
    if (code == MDB_NOTFOUND)
        return false;
    check(code, "cursor");
    *row = (PeerRow){key.mv_data, value.mv_data, key.mv_size, value.mv_size};
    return true;
}

const Peer peer = {
    .name = "lmdb",
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
};
