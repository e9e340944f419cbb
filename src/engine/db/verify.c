/*
 * verify.c - reads every file of a store and checks every checksum and invariant. Writes nothing and
 * takes no lock, so that it works on a running store and on a copied directory.
 *
 * Online the manifest may gain edits and tables may go while this reads: a table that is missing is
 * looked up in the manifest again before it counts as damage.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_tables(const void *a, const void *b)
{
    const NewFile *x = a, *y = b;
    if (x->level != y->level)
        return x->level < y->level ? -1 : 1;
    return slice_compare(x->smallest, y->smallest);
}

static bool still_live(const char *directory, uint64_t number)
{
    ManifestState again = {0};
    bool live = true;
    if (manifest_load(directory, &again) == AIDB_OK) {
        live = false;
        for (size_t i = 0; i < again.file_count; i++)
            live = live || again.files[i].info.number == number;
    }
    manifest_state_deinit(&again);
    return live;
}

static bool overlap(const NewFile *before, const NewFile *after)
{
    if (before->unbounded)
        return true;
    int order = slice_compare(before->largest, after->smallest);
    return order > 0 || (order == 0 && !before->largest_exclusive);
}

/* Beside a server a table may go while it is read. What was found in it counts only if it is still live,
 * so it is kept until that is known. */
typedef struct Finding {
    uint64_t offset;
    char what[256];
} Finding;
typedef struct Findings {
    Finding items[16]; /* more of one table say nothing new */
    size_t count;
    size_t more;
} Findings;

static void keep_finding(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)path;
    Findings *findings = arg;
    if (findings->count == sizeof findings->items / sizeof findings->items[0]) {
        findings->more++;
        return;
    }
    Finding *finding = &findings->items[findings->count++];
    finding->offset = offset;
    snprintf(finding->what, sizeof finding->what, "%s", what);
}

static Status verify_table_online(const char *directory, const char *path,
                                  const ManifestState *store, const NewFile *table,
                                  DamageReport report, void *arg)
{
    Findings findings = {.count = 0};
    Status status =
        table_verify(path, store->identity.system_id, &table->info, keep_finding, &findings);
    if ((status != AIDB_OK || findings.count > 0) && !still_live(directory, table->info.number))
        return AIDB_OK;
    for (size_t i = 0; i < findings.count; i++)
        report(arg, path, findings.items[i].offset, findings.items[i].what);
    if (findings.more > 0)
        report(arg, path, 0, "holds more damage than is listed");
    return status;
}

static Status verify_tables(const char *directory, ManifestState *store, bool online,
                            DamageReport report, void *arg)
{
    Status status = AIDB_OK;
    char *sst = path_join(directory, "sst");
    char *path = NULL;
    if (sst == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    if (store->file_count > 0)
        qsort(store->files, store->file_count, sizeof *store->files, compare_tables);
    for (size_t i = 0; i < store->file_count; i++) {
        const NewFile *table = &store->files[i];
        char name[TABLE_NAME_SIZE];
        table_name(table->info.number, name);
        free(path);
        path = path_join(sst, name);
        if (path == NULL) {
            status = status_set(AIDB_NO_MEMORY, "out of memory");
            goto out;
        }
        if (i > 0 && table->level > 0 && store->files[i - 1].level == table->level &&
            overlap(&store->files[i - 1], table))
            report(arg, path, 0, "overlaps the table before it in its level");
        if (!file_exists(path)) {
            if (!online || still_live(directory, table->info.number))
                report(arg, path, 0, "a live table is missing");
            continue;
        }
        status = online ? verify_table_online(directory, path, store, table, report, arg)
                        : table_verify(path, store->identity.system_id, &table->info, report, arg);
        if (status != AIDB_OK)
            goto out;
    }
out:
    free(path);
    free(sst);
    return status;
}

Status db_verify(const char *directory, bool online, DamageReport report, void *arg)
{
    if (!db_exists(directory))
        return status_set(AIDB_NO_DATABASE, "\"%s\" holds no database", directory);
    ManifestState store = {0};
    char *wal = path_join(directory, "wal");
    Status status;
    if (wal == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    OUT_IF_FAILED(manifest_verify(directory, report, arg));
    status = manifest_load(directory, &store);
    if (status == AIDB_CORRUPTION || status == AIDB_NOT_FOUND) {
        status = AIDB_OK; /* reported: nothing more can be looked at without the manifest */
        goto out;
    }
    if (status != AIDB_OK)
        goto out;
    OUT_IF_FAILED(verify_tables(directory, &store, online, report, arg));
    WalOptions options = {.directory = wal,
                          .segment_size = store.identity.wal_segment_size,
                          .ring_size = store.identity.wal_ring_size};
    memcpy(options.system_id, store.identity.system_id, sizeof options.system_id);
    OUT_IF_FAILED(wal_verify(&options, store.counters.starts, store.counters.start_count,
                             store.counters.flushed_lsn, store.counters.horizon, online, report,
                             arg));
out:
    manifest_state_deinit(&store);
    free(wal);
    return status;
}
