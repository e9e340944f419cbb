/*
 * view.c - the read view and how it changes: memtable switch, install of an edit.
 *
 * The view is copied, changed and replaced whole under the view lock. A reader takes the view first
 * and the visible LSN second and checks that the view is still the same: a memtable switch replaces
 * the view before anything in the new memtable becomes visible, so the LSN belongs to the view.
 *
 * After a crash nothing of this is left; recovery builds it anew from manifest and log.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include "common/failpoint.h"

#include <string.h>

static ReadView *view_alloc(Session *session)
{
    ReadView *view = arena_alloc(session->shared->arena, session->slot, sizeof *view);
    if (view == NULL)
        (void)status_set(AIDB_NO_MEMORY, "the metadata part of the region is used up");
    return view;
}

/* Cannot fail: the memory is there. */
static void view_replace_with(Session *session, ReadView *view,
                              void (*change)(ReadView *view, void *arg), void *arg)
{
    DbShared *shared = session->shared;
    lock_acquire(&shared->view_lock, session->slot);
    ReadView *old = atomic_load_explicit(&shared->view, memory_order_relaxed);
    if (old != NULL)
        *view = *old;
    else
        memset(view, 0, sizeof *view);
    view->generation++;
    change(view, arg);
    atomic_store(&shared->view, view);
    lock_release(&shared->view_lock, session->slot);
    arena_retire(shared->arena, session->slot, old);
}

void view_count_bytes(DbShared *shared, const Version *version)
{
    uint64_t bytes = 0;
    for (int level = 0; level < LEVELS; level++)
        bytes += version->levels[level].bytes;
    atomic_store(&shared->table_bytes, bytes);
}

typedef struct Switch {
    Memtable *fresh;
    uint64_t sealed_at;
} Switch;

static void change_switch(ReadView *view, void *arg)
{
    Switch *swap = arg;
    if (view->active != NULL) {
        memmove(view->immutables + 1, view->immutables,
                view->immutable_count * sizeof view->immutables[0]);
        memmove(view->sealed_at + 1, view->sealed_at,
                view->immutable_count * sizeof view->sealed_at[0]);
        view->immutables[0] = view->active;
        view->sealed_at[0] = swap->sealed_at;
        view->immutable_count++;
    }
    view->active = swap->fresh;
}

Status view_switch_memtable(Session *session)
{
    DbShared *shared = session->shared;
    epoch_enter(&shared->epochs, session->slot);
    bool full = atomic_load(&shared->view)->immutable_count >= MEMTABLES_MAX - 1;
    epoch_leave(session->slot);
    if (full)
        return AIDB_BUSY;
    Switch swap = {.sealed_at = atomic_load_explicit(&shared->visible, memory_order_relaxed)};
    ReadView *next = view_alloc(session);
    if (next == NULL)
        return AIDB_NO_MEMORY;
    Status status = memtable_create(shared->pool, session->slot, &swap.fresh);
    if (status != AIDB_OK) {
        arena_free(shared->arena, session->slot, next);
        return status;
    }
    FAILPOINT("memtable.before_switch");
    view_replace_with(session, next, change_switch, &swap);
    FAILPOINT("memtable.switched");
    shared->active = swap.fresh;
    wake_duty(shared, SLOT_FLUSHER);
    return AIDB_OK;
}

typedef struct Install {
    Version *version;
    uint32_t flushed;
    Memtable *retired[MEMTABLES_MAX];
} Install;

static void change_install(ReadView *view, void *arg)
{
    Install *install = arg;
    view->version = install->version;
    for (uint32_t i = 0; i < install->flushed; i++)
        install->retired[i] = view->immutables[--view->immutable_count];
}

Status view_install(Session *session, const VersionEdit *edit, uint32_t flushed_memtables)
{
    Db *db = session->db;
    DbShared *shared = session->shared;
    Install install = {.flushed = flushed_memtables};
    Version *previous = NULL;
    /* Once the edit is durable nothing may fail, or memory and disk would disagree. */
    ReadView *next = view_alloc(session);
    if (next == NULL)
        return AIDB_NO_MEMORY;
    lock_acquire(&shared->versions.manifest_lock, session->slot);
    Status status = version_apply(db->versions, session->slot, edit, wal_durable(db->wal),
                                  &install.version, &previous);
    if (status == AIDB_OK) {
        FAILPOINT("install.logged");
        view_replace_with(session, next, change_install, &install);
        view_count_bytes(shared, install.version);
        FAILPOINT("install.view_replaced");
        if (previous != NULL)
            version_release(db->versions, session->slot, previous);
    }
    lock_release(&shared->versions.manifest_lock, session->slot);
    if (status != AIDB_OK) {
        arena_free(shared->arena, session->slot, next);
        return status;
    }
    for (uint32_t i = 0; i < install.flushed; i++)
        memtable_retire(install.retired[i], session->slot);
    return AIDB_OK;
}
