/*
 * db.c - the store's frame: files of a new store, the region's division, sessions, failing.
 *
 * The region is divided by one function, db_carve, run once with a dry region to learn the size and
 * again with the real one; so sizes and places cannot disagree.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include "common/failpoint.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB             ((uint64_t)1 << 20)
#define ARENA_SIZE_MIN  (4 * MIB)
#define ARENA_SIZE_MAX  (64 * MIB)
#define CACHE_SIZE_MIN  (1 * MIB)
/* A table's record takes two bounds and some 200 bytes, and a pointer in each version alive. */
#define ARENA_PER_TABLE 4096u
#define TABLES_SOUGHT   10000u
#define SESSION_FILES   256u

/* ---- sizes ------------------------------------------------------------------------------------ */

typedef struct Division {
    uint64_t memtable_size;
    uint64_t pool_size;
    uint64_t arena_size;
    uint64_t cache_size;
} Division;

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static Status divide_memory(const EngineOptions *options, Division *division)
{
    uint64_t memory = options->memory;
    division->arena_size = clamp(memory / 32, ARENA_SIZE_MIN, ARENA_SIZE_MAX);
    division->memtable_size = options->memtable_size != 0 ? options->memtable_size
                                                          : clamp(memory / 8, 256u << 10, 64 * MIB);
    /* Room for three memtables, or for one and the largest batch (entries take a little more in the
     * skip list than in the batch). */
    uint64_t batch_need = options->batch_max + options->batch_max / 8 + MIB;
    uint64_t pool = 3 * division->memtable_size;
    if (pool < division->memtable_size + batch_need)
        pool = division->memtable_size + batch_need;
    division->pool_size = pool;
    uint64_t fixed = division->pool_size + division->arena_size;
    uint64_t cache = options->cache_size != 0          ? options->cache_size
                     : memory > fixed + CACHE_SIZE_MIN ? memory - fixed
                                                       : 0;
    if (cache == 0 || fixed + cache > memory) {
        Status status = status_set(
            AIDB_INVALID,
            "memory of %llu MiB cannot hold memtables (%llu MiB, for three of memtable_size or "
            "one and a batch of batch_max), metadata (%llu MiB) and block cache (%llu MiB)",
            (unsigned long long)(memory / MIB), (unsigned long long)(division->pool_size / MIB),
            (unsigned long long)(division->arena_size / MIB),
            (unsigned long long)((cache != 0 ? cache : CACHE_SIZE_MIN) / MIB));
        status_hint("Raise memory, or lower batch_max, memtable_size or cache_size.");
        return status;
    }
    division->cache_size = cache;
    return AIDB_OK;
}

/* Carves everything out of the region in order; with `db` NULL only adds up. */
static bool db_carve(Region *region, const Division *division, uint32_t slots, DbShared **shared,
                     void **slot_memory, void **arena, void **pool, void **cache, void **wal)
{
    *shared = region_carve(region, sizeof **shared, PORT_CACHE_LINE);
    *slot_memory = region_carve(region, slot_table_size(slots), PORT_CACHE_LINE);
    *wal = region_carve(region, wal_shared_size(), PORT_CACHE_LINE);
    *arena = region_carve(region, division->arena_size, 4096);
    *pool = region_carve(region, mempool_size(division->pool_size), 4096);
    *cache = region_carve(region, division->cache_size, 4096);
    return *cache != NULL;
}

Status db_region_size(const EngineOptions *options, uint32_t slots, size_t *size)
{
    *size = 0;
    Division division;
    RETURN_IF_FAILED(divide_memory(options, &division));
    Region dry = {.base = NULL, .size = SIZE_MAX / 2};
    DbShared *shared;
    void *slot_memory, *arena, *pool, *cache, *wal;
    if (!db_carve(&dry, &division, slots, &shared, &slot_memory, &arena, &pool, &cache, &wal))
        return status_set(AIDB_INVALID, "memory of %llu bytes is too large",
                          (unsigned long long)options->memory);
    *size = dry.used;
    return AIDB_OK;
}

/* ---- life ------------------------------------------------------------------------------------- */

bool db_exists(const char *directory)
{
    char *path = path_join(directory, "CURRENT");
    bool exists = path != NULL && file_exists(path);
    free(path);
    return exists;
}

/* The first recovery of a new database would remove tables that nothing names. */
static Status refuse_table(void *arg, const char *name)
{
    uint64_t number;
    if (!table_name_parse(name, &number))
        return AIDB_OK;
    (void)status_set(AIDB_EXISTS, "directory \"%s\" holds tables of a database, but no CURRENT",
                     (const char *)arg);
    status_hint("`aidbctl repair` makes a new database of what can be read.");
    return AIDB_EXISTS;
}

Status db_create(const char *directory, const EngineOptions *options)
{
    if (db_exists(directory))
        return status_set(AIDB_EXISTS, "directory \"%s\" already holds a database", directory);
    Status status = AIDB_OK;
    StoreIdentity identity = {.wal_segment_size = options->wal_segment_size,
                              .wal_ring_size = options->wal_ring_size};
    if (!port_random(identity.system_id, sizeof identity.system_id))
        return status_set(AIDB_IO, "could not get random bytes from the operating system");
    char *sst = path_join(directory, "sst");
    char *wal = path_join(directory, "wal");
    if (sst == NULL || wal == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory");
        goto out;
    }
    OUT_IF_FAILED(directory_create(sst));
    OUT_IF_FAILED(directory_list(sst, refuse_table, (void *)(uintptr_t)directory));
    OUT_IF_FAILED(directory_create(wal));
    WalOptions wal_options = {.directory = wal,
                              .segment_size = identity.wal_segment_size,
                              .ring_size = identity.wal_ring_size};
    memcpy(wal_options.system_id, identity.system_id, sizeof wal_options.system_id);
    OUT_IF_FAILED(wal_create(&wal_options));
    OUT_IF_FAILED(directory_sync(directory));
    OUT_IF_FAILED(manifest_create(directory, &identity)); /* last: CURRENT makes it a database */
out:
    free(sst);
    free(wal);
    return status;
}

/* Initialises everything shared, at start and again after a crash. */
static void init_shared(Db *db)
{
    Division division;
    Status status = divide_memory(&db->options, &division);
    (void)status; /* db_setup made sure of it */
    region_reset(&db->region);
    DbShared *shared;
    void *slot_memory, *arena, *pool, *cache, *wal;
    db_carve(&db->region, &division, db->slot_count, &shared, &slot_memory, &arena, &pool, &cache,
             &wal);
    /* Not memtables: clearing 2 MiB at a time as they fill slows writers more than the pages help. */
    if (db->options.huge_pages)
        region_prefer_huge(&db->region, cache, division.cache_size);
    memset(shared, 0, sizeof *shared);
    slot_table_init(&shared->slots, slot_memory, db->slot_count, db->latch_fds);
    epoch_init(&shared->epochs, &shared->slots);
    lock_init(&shared->write_lock, LOCK_RANK_WRITE, "write");
    lock_init(&shared->view_lock, LOCK_RANK_VIEW, "read view");
    lock_init(&shared->flush_lock, LOCK_RANK_FLUSH_JOB, "flush job");
    lock_init(&shared->compaction_lock, LOCK_RANK_COMPACTION, "compaction");
    lock_init(&shared->versions.manifest_lock, LOCK_RANK_MANIFEST, "manifest");
    shared->options = db->options;
    shared->memtable_size = division.memtable_size;
    shared->cache_size = division.cache_size;
    shared->tables_sought =
        (uint32_t)clamp(division.arena_size / ARENA_PER_TABLE, 1, TABLES_SOUGHT);
    shared->arena = arena_init(arena, division.arena_size, &shared->epochs);
    shared->pool = mempool_init(pool, division.pool_size, &shared->epochs);
    shared->cache = cache_init(cache, division.cache_size, &shared->epochs);
    shared->wal = wal;
    wal_shared_init(wal);
    db->shared = shared;
}

static void close_latches(Db *db)
{
    for (uint32_t i = 0; db->latch_fds != NULL && i < db->slot_count; i++)
        if (db->latch_fds[i] >= 0)
            close(db->latch_fds[i]);
    free(db->latch_fds);
    db->latch_fds = NULL;
}

static Status make_latches(Db *db, const DbSlots *slots)
{
    db->latch_fds = malloc(db->slot_count * sizeof *db->latch_fds);
    if (db->latch_fds == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < db->slot_count; i++)
        db->latch_fds[i] = -1;
    for (uint32_t i = 0; i < db->slot_count; i++) {
        if (i >= slots->hosted_from && i - slots->hosted_from < slots->hosted)
            continue;
        db->latch_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (db->latch_fds[i] < 0) {
            Status status =
                status_set(AIDB_LIMIT, "could not make %u wake-up descriptors: too many open files",
                           db->slot_count - slots->hosted);
            status_hint("Lower max_connections or raise the limit of open files (ulimit -n).");
            return status;
        }
    }
    return AIDB_OK;
}

/* Whether tables and log share their room. */
static bool on_one_disk(const char *one, const char *other)
{
    struct stat a, b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev;
}

Status db_setup(const char *directory, const EngineOptions *options, const DbSlots *slots, Db **out)
{
    *out = NULL;
    Status status = AIDB_OK;
    Db *db = calloc(1, sizeof *db);
    if (db == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    db->options = *options;
    db->slot_count = slots->count;
    db->directory = strdup(directory);
    db->wal_directory = path_join(directory, "wal");
    db->sst_directory = path_join(directory, "sst");
    if (db->directory == NULL || db->wal_directory == NULL || db->sst_directory == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory");
        goto out;
    }
    size_t size;
    FAILPOINT_ATTACH(directory);
    OUT_IF_FAILED(db_region_size(options, slots->count, &size));
    OUT_IF_FAILED(manifest_identity(directory, &db->identity));
    db->wal_options = (WalOptions){.directory = db->wal_directory,
                                   .segment_size = db->identity.wal_segment_size,
                                   .ring_size = db->identity.wal_ring_size,
                                   .syncs_expected = options->durability == AIDB_FSYNC};
    memcpy(db->wal_options.system_id, db->identity.system_id, sizeof db->wal_options.system_id);
    if (slots->processes)
        OUT_IF_FAILED(make_latches(db, slots));
    OUT_IF_FAILED(region_create(size, slots->processes, options->huge_pages, &db->region));
    if (slots->processes)
        region_populate(&db->region);
    init_shared(db);
    OUT_IF_FAILED(wal_open(&db->wal_options, db->shared->wal, &db->wal));
    if (on_one_disk(db->wal_directory, db->sst_directory))
        wal_keep_room(db->wal, flush_room, db);
    OUT_IF_FAILED(versions_open(directory, &db->identity, &db->shared->versions, db->shared->arena,
                                &db->versions));
    *out = db;
    db = NULL;
out:
    db_destroy(db);
    return status;
}

void db_destroy(Db *db)
{
    if (db == NULL)
        return;
    if (db->versions != NULL)
        versions_close(db->versions);
    if (db->wal != NULL)
        wal_close(db->wal);
    region_destroy(&db->region);
    close_latches(db);
    free(db->directory);
    free(db->wal_directory);
    free(db->sst_directory);
    free(db);
}

void db_reset(Db *db)
{
    init_shared(db);
}

void db_reload(Db *db, const EngineOptions *options)
{
    EngineOptions fresh = *options;
    /* What the region and the files were made with stays. */
    fresh.memory = db->options.memory;
    fresh.memtable_size = db->options.memtable_size;
    fresh.cache_size = db->options.cache_size;
    fresh.wal_segment_size = db->options.wal_segment_size;
    fresh.wal_ring_size = db->options.wal_ring_size;
    fresh.batch_max = db->options.batch_max;
    fresh.huge_pages = db->options.huge_pages;
    db->options = fresh;
    db->shared->options = fresh;
    wake_duty(db->shared, SLOT_COMPACTOR);
}

SlotTable *db_slots(Db *db)
{
    return &db->shared->slots;
}

bool db_failed(const Db *db)
{
    return atomic_load_explicit(&db->shared->failed, memory_order_acquire) != 0 ||
           wal_failed(db->wal) ||
           atomic_load_explicit(&db->shared->versions.failed, memory_order_acquire) != 0;
}

Status db_check(const Db *db)
{
    if (!db_failed(db))
        return AIDB_OK;
    Status status = status_set(AIDB_FAILED,
                               "the store in \"%s\" has failed after a write to its log or "
                               "manifest could not be made durable",
                               db->directory);
    status_hint("Look at the disk, then open the store again: it recovers from the log.");
    return status;
}

Status db_fail(Db *db, Status status)
{
    atomic_store(&db->shared->failed, 1);
    progress_notify(db->shared);
    return status;
}

uint64_t db_visible_lsn(const Db *db)
{
    uint64_t visible = atomic_load_explicit(&db->shared->visible, memory_order_acquire);
    return visible > 0 ? visible - 1 : 0;
}

uint64_t db_durable_lsn(const Db *db)
{
    uint64_t durable = wal_durable(db->wal);
    return durable > 0 ? durable - 1 : 0;
}

/* ---- sessions --------------------------------------------------------------------------------- */

static void take_slot(Session *session, Slot *slot)
{
    session->slot = session->reader.slot = session->job_reader.slot = session->warmth.slot = slot;
}

static Status make_session(Db *db, Session **out)
{
    *out = NULL;
    Session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    session->db = db;
    session->shared = db->shared;
    Status status = file_cache_create(db->sst_directory, SESSION_FILES, &session->files);
    if (status != AIDB_OK) {
        free(session);
        return status;
    }
    session->reader = (TableReader){
        .files = session->files, .cache = db->shared->cache, .epochs = &db->shared->epochs};
    session->job_reader = (TableReader){.files = session->files,
                                        .cache = NULL,
                                        .warmth = &session->warmth,
                                        .epochs = &db->shared->epochs};
    session->warmth = (TableWarmth){.cache = db->shared->cache, .epochs = &db->shared->epochs};
    *out = session;
    return AIDB_OK;
}

Status db_session_create(Db *db, uint32_t slot_index, SlotKind kind, Session **out)
{
    RETURN_IF_FAILED(make_session(db, out));
    Slot *slot = slot_index == UINT32_MAX ? slot_claim_any(&db->shared->slots, 0, kind)
                                          : slot_claim(&db->shared->slots, slot_index, kind);
    if (slot == NULL) {
        db_session_abandon(*out);
        *out = NULL;
        return status_set(AIDB_LIMIT, "all %u sessions of the store are in use", db->slot_count);
    }
    atomic_store(&slot->started_us, port_realtime_us());
    take_slot(*out, slot);
    (*out)->hosted = kind == SLOT_HOST;
    return AIDB_OK;
}

Status db_session_create_for(Db *db, Slot *slot, Session **out)
{
    RETURN_IF_FAILED(make_session(db, out));
    take_slot(*out, slot);
    return AIDB_OK;
}

Slot *db_client_slot_claim(Session *session, uint32_t slot_index)
{
    Slot *slot = slot_claim(&session->shared->slots, slot_index, SLOT_BACKEND);
    if (slot != NULL)
        atomic_store(&slot->host, session->slot);
    return slot;
}

void db_session_act_for(Session *session, Slot *slot)
{
    take_slot(session, slot);
}

void db_session_abandon(Session *session)
{
    if (session == NULL)
        return;
    table_reader_deinit(&session->reader);
    table_reader_deinit(&session->job_reader);
    file_cache_destroy(session->files);
    buffer_deinit(&session->key);
    buffer_deinit(&session->value);
    free(session);
}

void db_session_destroy(Session *session)
{
    if (session == NULL)
        return;
    if (session->reading)
        db_read_end(session);
    Slot *slot = session->slot;
    db_session_abandon(session);
    slot_release(slot);
}

void db_session_rest(Session *session)
{
    file_cache_clear(session->files);
    buffer_deinit(&session->key);
    buffer_deinit(&session->value);
}

Slot *db_session_slot(Session *session)
{
    return session->slot;
}
