/*
 * read.c - the way of a point read: active memtable, immutables, level 0 newest first, then one
 * table of each level.
 *
 * For one key every source holds newer versions than the sources behind it. So the first version
 * found decides, unless a range tombstone met on the way (in this or a newer source) is newer; and
 * when a tombstone covers the key and this source has no newer version, nothing behind can.
 *
 * A read section is inside an epoch; it touches no shared counter and takes no lock.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include <string.h>

Status db_read_begin(Session *session, uint64_t snapshot, uint64_t *at)
{
    *at = 0;
    DbShared *shared = session->shared;
    RETURN_IF_FAILED(db_check(session->db));
    epoch_enter(&shared->epochs, session->slot);
    ReadView *view = atomic_load(&shared->view);
    uint64_t visible;
    for (;;) {
        visible = atomic_load(&shared->visible);
        ReadView *again = atomic_load(&shared->view);
        if (again == view)
            break;
        view = again; /* the LSN may belong to a memtable that the first view does not have */
    }
    if (view == NULL) {
        epoch_leave(session->slot);
        return status_set(AIDB_BUSY, "the store is recovering");
    }
    session->view = view;
    session->read_lsn = snapshot != DB_NOW ? snapshot : visible > 0 ? visible - 1 : 0;
    session->reading = true;
    *at = session->read_lsn;
    return AIDB_OK;
}

void db_read_end(Session *session)
{
    session->reading = false;
    session->view = NULL;
    epoch_leave(session->slot);
    table_reader_release(&session->reader);
    uint64_t unlinked = atomic_load_explicit(&session->shared->unlinked, memory_order_relaxed);
    if (unlinked != session->unlinked_seen) {
        session->unlinked_seen = unlinked;
        file_cache_sweep(session->files);
    }
}

/* A key on its way through the sources: what looking into the last one came to. */
typedef struct Probe {
    Slice key;
    uint64_t visible;
    uint64_t cover; /* newest range tombstone met that covers the key */
    Entry *entry;
    bool found;
    bool done;
    TableGet get;
} Probe;

static void probe_decide(Probe *probe)
{
    if (probe->found) {
        probe->found = probe->entry->type == OP_PUT && probe->entry->lsn > probe->cover;
        probe->done = true;
    } else if (probe->cover > 0) {
        probe->done = true;
    }
}

static void probe_memtable(const Memtable *memtable, Probe *probe)
{
    if (memtable_has_ranges(memtable)) {
        uint64_t cover = memtable_cover(memtable, probe->key, probe->visible);
        if (cover > probe->cover)
            probe->cover = cover;
    }
    probe->found = memtable_get(memtable, probe->key, probe->visible, probe->entry);
    probe_decide(probe);
}

/* Looks for some keys that are not decided yet, each in one table (NULL: in none). */
static Status probe_files(Session *session, size_t count, Probe *probes,
                          const FileMeta *const *files)
{
    TableGet *gets[MEMTABLE_GETS_MAX];
    Probe *open[MEMTABLE_GETS_MAX];
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        Probe *probe = &probes[i];
        const FileMeta *file = files[i];
        if (file == NULL || file->info.lsn_min > probe->visible)
            continue;
        if (file->info.range_size > 0) {
            uint64_t cover;
            RETURN_IF_FAILED(
                table_cover(&session->reader, &file->info, probe->key, probe->visible, &cover));
            if (cover > probe->cover)
                probe->cover = cover;
        }
        probe->get.info = &file->info;
        gets[left] = &probe->get;
        open[left++] = probe;
    }
    if (left == 0)
        return AIDB_OK;
    RETURN_IF_FAILED(table_get_many(&session->reader, left, gets, probes[0].visible));
    for (size_t i = 0; i < left; i++) {
        open[i]->found = open[i]->get.found;
        probe_decide(open[i]);
    }
    return AIDB_OK;
}

/* Level 0 newest first, then one table of each level; all keys take a step before any takes the next. */
static Status probe_tables(Session *session, size_t count, Probe *probes)
{
    const Version *version = session->view->version;
    const FileMeta *files[MEMTABLE_GETS_MAX];
    for (size_t i = 0; i < count; i++)
        if (!probes[i].done)
            probes[i].get = (TableGet){.key = probes[i].key,
                                       .key_hash = table_key_hash(probes[i].key),
                                       .entry = probes[i].entry};
    for (uint32_t n = 0; n < version->levels[0].count; n++) {
        const FileMeta *file = version->levels[0].files[n];
        for (size_t i = 0; i < count; i++)
            files[i] =
                !probes[i].done && file_overlaps(file, probes[i].key, probes[i].key) ? file : NULL;
        RETURN_IF_FAILED(probe_files(session, count, probes, files));
    }
    for (int level = 1; level < LEVELS; level++) {
        if (version->levels[level].count == 0)
            continue;
        for (size_t i = 0; i < count; i++) {
            files[i] = NULL;
            if (probes[i].done)
                continue;
            uint32_t index = version_find_file(version, level, probes[i].key);
            if (index < version->levels[level].count &&
                file_overlaps(version->levels[level].files[index], probes[i].key, probes[i].key))
                files[i] = version->levels[level].files[index];
        }
        RETURN_IF_FAILED(probe_files(session, count, probes, files));
    }
    return AIDB_OK;
}

static Status probe_result(Session *session, const Probe *probe)
{
    if (!probe->found) {
        memset(probe->entry, 0, sizeof *probe->entry);
        return AIDB_NOT_FOUND;
    }
    slot_count(session->slot, STAT_GET_HITS, 1);
    return AIDB_OK;
}

Status db_read_get(Session *session, Slice key, Entry *entry)
{
    const ReadView *view = session->view;
    Probe probe = {.key = key, .visible = session->read_lsn, .entry = entry};
    slot_count(session->slot, STAT_GETS, 1);
    probe_memtable(view->active, &probe);
    for (uint32_t i = 0; !probe.done && i < view->immutable_count; i++)
        probe_memtable(view->immutables[i], &probe);
    if (!probe.done)
        RETURN_IF_FAILED(probe_tables(session, 1, &probe));
    return probe_result(session, &probe);
}

/* One memtable for all keys that are not decided yet. */
static void probe_memtable_many(const Memtable *memtable, size_t count, Probe *probes)
{
    Slice keys[MEMTABLE_GETS_MAX];
    Entry *entries[MEMTABLE_GETS_MAX];
    bool found[MEMTABLE_GETS_MAX];
    Probe *open[MEMTABLE_GETS_MAX];
    size_t left = 0;
    bool ranges = memtable_has_ranges(memtable);
    for (size_t i = 0; i < count; i++) {
        Probe *probe = &probes[i];
        if (probe->done)
            continue;
        if (ranges) {
            uint64_t cover = memtable_cover(memtable, probe->key, probe->visible);
            if (cover > probe->cover)
                probe->cover = cover;
        }
        keys[left] = probe->key;
        entries[left] = probe->entry;
        open[left++] = probe;
    }
    memtable_get_many(memtable, left, keys, probes[0].visible, entries, found);
    for (size_t i = 0; i < left; i++) {
        open[i]->found = found[i];
        probe_decide(open[i]);
    }
}

static Status multi_get_some(Session *session, size_t count, const Slice *keys, Entry *entries)
{
    const ReadView *view = session->view;
    Probe probes[MEMTABLE_GETS_MAX];
    for (size_t i = 0; i < count; i++)
        probes[i] = (Probe){.key = keys[i], .visible = session->read_lsn, .entry = &entries[i]};
    slot_count(session->slot, STAT_GETS, count);
    probe_memtable_many(view->active, count, probes);
    for (uint32_t i = 0; i < view->immutable_count; i++)
        probe_memtable_many(view->immutables[i], count, probes);
    RETURN_IF_FAILED(probe_tables(session, count, probes));
    for (size_t i = 0; i < count; i++) {
        Status status = probe_result(session, &probes[i]);
        if (status != AIDB_OK && status != AIDB_NOT_FOUND)
            return status;
    }
    return AIDB_OK;
}

Status db_read_multi_get(Session *session, size_t count, const Slice *keys, Entry *entries)
{
    for (size_t at = 0; at < count; at += MEMTABLE_GETS_MAX) {
        size_t some = count - at < MEMTABLE_GETS_MAX ? count - at : MEMTABLE_GETS_MAX;
        RETURN_IF_FAILED(multi_get_some(session, some, keys + at, entries + at));
    }
    return AIDB_OK;
}
