/*
 * version.c - the current version in the region, and how an edit becomes the next one.
 *
 * A version is one block of the metadata arena: its head and the arrays of pointers of all levels.
 * File records are blocks of their own, shared by the versions that hold them and counted. An edit
 * builds the whole next version first, so that everything that can be refused is refused before a
 * byte is written; then it is logged, synced, sealed and synced; then nothing can fail any more.
 *
 * A record whose last version is gone goes on the dead list. Readers in an epoch may still hold it
 * (through that version), so it gets an epoch stamp, and only when that is past is the table's
 * number handed out for unlinking and the record freed. A table that only changed its level has a
 * new record; of the old one just the memory is freed.
 *
 * What a crash leaves: before the seal is on disk, the old manifest (a record past the sealed end is
 * cut off) and tables that nobody names; after it, the new state. A new manifest exists in full and
 * synced before CURRENT names it. Starting makes what it found last, and removes what is not named.
 */
#include "config.h"

#include "engine/version/version_internal.h"

#include "common/failpoint.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>

#define ROTATE_MIN (1u << 20)

struct Versions {
    StoreIdentity identity;
    VersionSet *set;
    Arena *arena;
    File file; /* of the manifest with file_number; closed when 0 */
    uint64_t file_number;
    Buffer frame;     /* reused */
    char directory[]; /* of the database */
};

/* ---- handle ---------------------------------------------------------------------------------- */

Status versions_open(const char *directory, const StoreIdentity *identity, VersionSet *set,
                     Arena *arena, Versions **versions)
{
    size_t size = strlen(directory) + 1;
    *versions = calloc(1, sizeof **versions + size);
    if (*versions == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate the handle of the manifest");
    (*versions)->identity = *identity;
    (*versions)->set = set;
    (*versions)->arena = arena;
    (*versions)->file = (File)FILE_CLOSED;
    memcpy((*versions)->directory, directory, size);
    return AIDB_OK;
}

void versions_close(Versions *versions)
{
    if (versions == NULL)
        return;
    file_close(&versions->file);
    buffer_deinit(&versions->frame);
    free(versions);
}

/* Another process may have begun a new manifest since this one looked. */
static Status open_manifest(Versions *versions)
{
    char name[MANIFEST_NAME_SIZE];
    if (versions->file.fd >= 0 && versions->file_number == versions->set->manifest_number)
        return AIDB_OK;
    file_close(&versions->file);
    manifest_name(versions->set->manifest_number, name);
    char *path = path_join(versions->directory, name);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the path of the manifest");
    Status status = file_open(path, FILE_WRITE, &versions->file);
    free(path);
    versions->file_number = versions->set->manifest_number;
    return status;
}

uint64_t version_next_number(VersionSet *set)
{
    return atomic_fetch_add_explicit(&set->next_number, 1, memory_order_relaxed);
}

/* ---- keys and files -------------------------------------------------------------------------- */

bool file_ends_before(const FileMeta *file, Slice key)
{
    if (file->unbounded)
        return false;
    int order = slice_compare(file->largest, key);
    return order < 0 || (order == 0 && file->largest_exclusive);
}

bool file_covers(const FileMeta *file, Slice key)
{
    return slice_compare(file->smallest, key) <= 0 && !file_ends_before(file, key);
}

bool file_overlaps(const FileMeta *file, Slice from, Slice to)
{
    if (to.data != NULL && slice_compare(file->smallest, to) > 0)
        return false;
    return !file_ends_before(file, from);
}

bool files_overlap(const FileMeta *a, const FileMeta *b)
{
    return !file_ends_before(a, b->smallest) && !file_ends_before(b, a->smallest);
}

uint32_t version_find_file(const Version *version, int level, Slice key)
{
    uint32_t low = 0;
    uint32_t high = version->levels[level].count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (file_ends_before(version->levels[level].files[middle], key))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Level 0: newest first. The LSN ranges of flushes are disjoint; tables of one flush share no key. */
static int compare_age(const void *a, const void *b)
{
    const TableInfo *left = &(*(FileMeta *const *)a)->info;
    const TableInfo *right = &(*(FileMeta *const *)b)->info;
    if (left->lsn_max != right->lsn_max)
        return left->lsn_max > right->lsn_max ? -1 : 1;
    return (left->number < right->number) - (left->number > right->number);
}

static int compare_smallest(const void *a, const void *b)
{
    return slice_compare((*(FileMeta *const *)a)->smallest, (*(FileMeta *const *)b)->smallest);
}

/* ---- building a version ---------------------------------------------------------------------- */

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static bool contains(const uint64_t *numbers, size_t count, uint64_t number)
{
    return count > 0 && bsearch(&number, numbers, count, sizeof number, compare_numbers) != NULL;
}

/* An edit on its way to a version. Heap arrays; the records and the version are in the arena. */
typedef struct Build {
    Versions *versions;
    Slot *slot;
    FileMeta **added; /* records of the edit's new files */
    size_t added_count;
    uint64_t *added_numbers;           /* sorted */
    uint64_t *removed_numbers[LEVELS]; /* sorted */
    size_t removed_counts[LEVELS];
    FileMeta **scratch; /* added files of one level */
    Version *version;
} Build;

static Status no_metadata_memory(void)
{
    Status status = status_set(AIDB_NO_MEMORY, "the memory for file records is used up");
    status_hint("Raise the memory setting, or table_size.");
    return status;
}

static FileMeta *create_record(Build *build, const NewFile *file)
{
    FileMeta *meta = arena_alloc(build->versions->arena, build->slot,
                                 sizeof *meta + file->smallest.size + file->largest.size);
    if (meta == NULL)
        return NULL;
    uint8_t *keys = (uint8_t *)(meta + 1);
    memset(meta, 0, sizeof *meta);
    meta->info = file->info;
    meta->smallest = slice_make(keys, file->smallest.size);
    meta->largest = slice_make(keys + file->smallest.size, file->largest.size);
    if (file->smallest.size > 0)
        memcpy(keys, file->smallest.data, file->smallest.size);
    if (file->largest.size > 0)
        memcpy(keys + file->smallest.size, file->largest.data, file->largest.size);
    meta->largest_exclusive = file->largest_exclusive;
    meta->unbounded = file->unbounded;
    meta->garbage = file->garbage;
    meta->level = file->level;
    return meta;
}

/* Frees what the build allocated; the arena's part too unless it was handed over. */
static void build_deinit(Build *build, bool keep)
{
    if (!keep) {
        for (size_t i = 0; i < build->added_count; i++)
            arena_free(build->versions->arena, build->slot, build->added[i]);
        arena_free(build->versions->arena, build->slot, build->version);
    }
    free(build->added);
    free(build->added_numbers);
    for (int level = 0; level < LEVELS; level++)
        free(build->removed_numbers[level]);
    free(build->scratch);
}

static Status broken(const char *what, uint64_t number)
{
    char name[TABLE_NAME_SIZE];
    table_name(number, name);
    return status_set(AIDB_INTERNAL, "a version edit %s: table %s", what, name);
}

/* Records of the new files, and the numbers of all files that the edit names, sorted. */
static Status build_prepare(Build *build, const NewFile *added, size_t added_count,
                            const struct RemovedFile *removed, size_t removed_count)
{
    build->added = calloc(added_count + 1, sizeof build->added[0]);
    build->added_numbers = calloc(added_count + 1, sizeof build->added_numbers[0]);
    build->scratch = calloc(added_count + 1, sizeof build->scratch[0]);
    if (build->added == NULL || build->added_numbers == NULL || build->scratch == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate memory for a version edit");
    for (size_t i = 0; i < added_count; i++) {
        if (added[i].level >= LEVELS)
            return broken("adds to a level that does not exist", added[i].info.number);
        build->added[i] = create_record(build, &added[i]);
        if (build->added[i] == NULL)
            return no_metadata_memory();
        build->added_count++;
        build->added_numbers[i] = added[i].info.number;
    }
    qsort(build->added_numbers, added_count, sizeof(uint64_t), compare_numbers);
    for (size_t i = 1; i < added_count; i++) {
        if (build->added_numbers[i] == build->added_numbers[i - 1])
            return broken("adds twice", build->added_numbers[i]);
    }
    for (size_t i = 0; i < removed_count; i++) {
        uint8_t level = removed[i].level;
        if (level >= LEVELS)
            return broken("removes from a level that does not exist", removed[i].number);
        if (build->removed_numbers[level] == NULL) {
            build->removed_numbers[level] = calloc(removed_count, sizeof(uint64_t));
            if (build->removed_numbers[level] == NULL)
                return status_set(AIDB_NO_MEMORY, "could not allocate memory for a version edit");
        }
        build->removed_numbers[level][build->removed_counts[level]++] = removed[i].number;
    }
    for (int level = 0; level < LEVELS; level++) {
        if (build->removed_counts[level] > 1)
            qsort(build->removed_numbers[level], build->removed_counts[level], sizeof(uint64_t),
                  compare_numbers);
    }
    return AIDB_OK;
}

/* Merges what stays of a level with what is added to it, into `out`. */
static Status build_level(Build *build, const Version *current, int level, FileMeta **out)
{
    int (*compare)(const void *, const void *) = level == 0 ? compare_age : compare_smallest;
    size_t added = 0;
    for (size_t i = 0; i < build->added_count; i++) {
        if (build->added[i]->level == level)
            build->scratch[added++] = build->added[i];
    }
    qsort(build->scratch, added, sizeof build->scratch[0], compare);

    size_t found = 0;
    size_t next = 0;
    uint32_t count = 0;
    uint64_t bytes = 0;
    uint32_t old_count = current != NULL ? current->levels[level].count : 0;
    for (uint32_t i = 0; i <= old_count; i++) {
        FileMeta *old = i < old_count ? current->levels[level].files[i] : NULL;
        if (old != NULL && contains(build->removed_numbers[level], build->removed_counts[level],
                                    old->info.number)) {
            found++;
            continue;
        }
        if (old != NULL && contains(build->added_numbers, build->added_count, old->info.number))
            return broken("adds a file that is there", old->info.number);
        while (next < added && (old == NULL || compare(&build->scratch[next], &old) < 0))
            out[count++] = build->scratch[next++];
        if (old != NULL)
            out[count++] = old;
    }
    if (found != build->removed_counts[level])
        return broken("removes a file that is not there, or twice",
                      build->removed_numbers[level][0]);
    for (uint32_t i = 0; i < count; i++) {
        bytes += out[i]->info.file_size;
        if (level > 0 && i > 0 && !file_ends_before(out[i - 1], out[i]->smallest))
            return broken("makes files of a level overlap", out[i]->info.number);
    }
    build->version->levels[level].files = out;
    build->version->levels[level].count = count;
    build->version->levels[level].bytes = bytes;
    return AIDB_OK;
}

/* The version that follows `current` (NULL: none). */
static Status build_version(Build *build, const Version *current, uint64_t number)
{
    size_t total = build->added_count;
    for (int level = 0; level < LEVELS && current != NULL; level++)
        total += current->levels[level].count;
    Version *version = arena_alloc(build->versions->arena, build->slot,
                                   sizeof *version + total * sizeof(FileMeta *));
    if (version == NULL)
        return no_metadata_memory();
    memset(version, 0, sizeof *version);
    version->number = number;
    build->version = version;
    FileMeta **files = (FileMeta **)(version + 1);
    for (int level = 0; level < LEVELS; level++) {
        RETURN_IF_FAILED(build_level(build, current, level, files));
        files += version->levels[level].count;
    }
    return AIDB_OK;
}

/* Counts the version's hold on its files and marks moved tables. Cannot fail. */
static void adopt(Build *build, const Version *current)
{
    Version *version = build->version;
    VersionSet *set = build->versions->set;
    set->live_files = 0;
    for (int level = 0; level < LEVELS; level++) {
        for (uint32_t i = 0; i < version->levels[level].count; i++)
            version->levels[level].files[i]->references++;
        set->live_files += version->levels[level].count;
        if (current == NULL || build->removed_counts[level] == 0)
            continue;
        for (uint32_t i = 0; i < current->levels[level].count; i++) {
            FileMeta *file = current->levels[level].files[i];
            if (contains(build->removed_numbers[level], build->removed_counts[level],
                         file->info.number) &&
                contains(build->added_numbers, build->added_count, file->info.number))
                file->moved = true;
        }
    }
}

/* ---- counters -------------------------------------------------------------------------------- */

static void counters_load(const VersionSet *set, StoreCounters *counters)
{
    *counters = (StoreCounters){
        .next_number = atomic_load_explicit(&set->next_number, memory_order_relaxed),
        .flushed_lsn = atomic_load_explicit(&set->flushed_lsn, memory_order_relaxed),
        .horizon = set->horizon,
        .version_number = set->version_number,
        .term = set->term,
        .incarnation = set->incarnation,
        .nonce = set->nonce,
        .clean_stop = set->clean_stop,
        .start_count = set->start_count,
    };
    memcpy(counters->starts, set->starts, sizeof set->starts);
}

/* All but next_number, which others raise without the lock. */
static void counters_store(VersionSet *set, const StoreCounters *counters)
{
    atomic_store_explicit(&set->flushed_lsn, counters->flushed_lsn, memory_order_release);
    set->horizon = counters->horizon;
    set->version_number = counters->version_number;
    set->term = counters->term;
    set->incarnation = counters->incarnation;
    set->nonce = counters->nonce;
    set->clean_stop = counters->clean_stop;
    set->start_count = counters->start_count;
    memcpy(set->starts, counters->starts, sizeof set->starts);
}

/* ---- apply ----------------------------------------------------------------------------------- */

/* After this nobody can say what the disk holds. */
static Status fail_for_good(VersionSet *set, Status status)
{
    atomic_store_explicit(&set->failed, 1, memory_order_release);
    return status;
}

static Status write_seal(Versions *versions, uint64_t sequence, uint64_t end,
                         uint64_t record_sequence)
{
    uint8_t sector[MANIFEST_SECTOR];
    uint64_t seed = manifest_seed(versions->identity.system_id, versions->set->manifest_number);
    uint64_t at = manifest_seal(seed, sequence, end, record_sequence, sector);
    return file_write_at(&versions->file, at, sector, sizeof sector);
}

/* Appends the record in versions->frame, and seals it. */
static Status log_record(Versions *versions)
{
    VersionSet *set = versions->set;
    Buffer *frame = &versions->frame;
    Status status = file_write_at(&versions->file, set->manifest_end, frame->data, frame->size);
    if (status == AIDB_NO_SPACE) {
        /* Nothing was sealed or synced: the next edit overwrites what is there of this one. */
        return status;
    }
    if (status == AIDB_OK)
        status = FAILPOINT_STATUS("manifest.record_written");
    if (status == AIDB_OK)
        status = file_sync(&versions->file);
    if (status != AIDB_OK)
        return fail_for_good(set, status);
    FAILPOINT("manifest.record_synced");
    uint64_t end = set->manifest_end + frame->size;
    status = write_seal(versions, set->seal_sequence + 1, end, set->record_sequence + 1);
    if (status == AIDB_OK)
        status = FAILPOINT_STATUS("manifest.seal_written");
    if (status == AIDB_OK)
        status = file_sync(&versions->file);
    if (status != AIDB_OK)
        return fail_for_good(set, status);
    FAILPOINT("manifest.seal_synced");
    set->seal_sequence++;
    set->record_sequence++;
    set->manifest_end = end;
    return AIDB_OK;
}

static void remove_manifest(const Versions *versions, uint64_t number)
{
    char name[MANIFEST_NAME_SIZE];
    manifest_name(number, name);
    char *path = path_join(versions->directory, name);
    if (path == NULL || file_unlink(path) != AIDB_OK)
        server_log(LOG_LEVEL_WARNING, "could not remove the old manifest %s; the next start does",
                   name);
    free(path);
}

/* Begins manifest `number` with the state after the edit. *done says whether CURRENT names it; when it
 * does not and the answer is AIDB_OK, the old manifest is as good as before. */
static Status rotate(Versions *versions, uint64_t number, const Version *version,
                     const StoreCounters *counters, bool *done)
{
    VersionSet *set = versions->set;
    ManifestPlace place;
    File file;
    *done = false;
    Status status = manifest_write_new(versions->directory, &versions->identity, number, version,
                                       counters, &file, &place);
    if (status != AIDB_OK) {
        server_log(LOG_LEVEL_WARNING, "could not begin a new manifest, going on with the old: %s",
                   status_message());
        return AIDB_OK;
    }
    status = manifest_set_current(versions->directory, number);
    if (status != AIDB_OK) {
        file_close(&file);
        char message[512];
        snprintf(message, sizeof message, "%s", status_message());
        uint64_t named;
        if (manifest_current(versions->directory, &named) != AIDB_OK || named == number) {
            /* It was renamed, and the name may last or not. */
            return fail_for_good(set, status_set(status, "%s", message));
        }
        server_log(LOG_LEVEL_WARNING, "could not begin a new manifest, going on with the old: %s",
                   message);
        remove_manifest(versions, number);
        return AIDB_OK;
    }
    FAILPOINT("manifest.current_set");
    remove_manifest(versions, set->manifest_number);
    FAILPOINT("manifest.old_removed");
    file_close(&versions->file);
    versions->file = file;
    versions->file_number = number;
    set->manifest_number = number;
    set->manifest_end = place.end;
    set->manifest_base = place.end;
    set->seal_sequence = place.seal_sequence;
    set->record_sequence = place.record_sequence;
    *done = true;
    return AIDB_OK;
}

Status version_apply(Versions *versions, Slot *slot, const VersionEdit *edit, uint64_t durable,
                     Version **next, Version **previous)
{
    VersionSet *set = versions->set;
    Build build = {.versions = versions, .slot = slot};
    StoreCounters counters;
    VersionEdit logged = *edit; /* shares the arrays */
    uint64_t rotate_at = 4 * set->manifest_base;
    uint64_t rotate_to = 0;
    bool done = false;
    Status status;
    *next = NULL;
    *previous = NULL;
    if (atomic_load_explicit(&set->failed, memory_order_acquire) != 0)
        return status_set(AIDB_FAILED, "an earlier write of the manifest failed");
    /* Tables never know more than the log: what a log reader has seen must be all that came before. */
    if (edit->flushed_lsn > durable)
        return status_set(
            AIDB_INTERNAL,
            "tables up to LSN %llu were to be installed, the log is durable up to %llu",
            (unsigned long long)edit->flushed_lsn, (unsigned long long)durable);
    if (rotate_at < ROTATE_MIN)
        rotate_at = ROTATE_MIN;
    if (set->manifest_end > FAILPOINT_CONSTANT("manifest.rotate_at", rotate_at))
        rotate_to = version_next_number(set);
    counters_load(set, &counters);
    logged.next_number = counters.next_number;
    logged.version_number = counters.version_number + 1;
    logged.base_end = false;
    status = counters_apply(&counters, &logged, durable);
    if (status == AIDB_CORRUPTION)
        return status_set(AIDB_INTERNAL, "%s", status_message());
    RETURN_IF_FAILED(status);
    OUT_IF_FAILED(
        build_prepare(&build, edit->added, edit->added_count, edit->removed, edit->removed_count));
    OUT_IF_FAILED(build_version(&build, set->current, counters.version_number));
    OUT_IF_FAILED(open_manifest(versions));
    buffer_clear(&versions->frame);
    OUT_IF_FAILED(manifest_frame(manifest_seed(versions->identity.system_id, set->manifest_number),
                                 set->manifest_end, set->record_sequence + 1, &logged, durable,
                                 &versions->frame));
    if (rotate_to != 0)
        OUT_IF_FAILED(rotate(versions, rotate_to, build.version, &counters, &done));
    if (!done)
        OUT_IF_FAILED(log_record(versions));

    adopt(&build, set->current);
    counters_store(set, &counters);
    *previous = set->current;
    *next = build.version;
    set->current = build.version;
out:
    build_deinit(&build, status == AIDB_OK);
    return status;
}

/* ---- the end of versions and files ----------------------------------------------------------- */

void version_release(Versions *versions, Slot *slot, Version *version)
{
    VersionSet *set = versions->set;
    if (version == NULL)
        return;
    for (int level = 0; level < LEVELS; level++) {
        for (uint32_t i = 0; i < version->levels[level].count; i++) {
            FileMeta *file = version->levels[level].files[i];
            if (--file->references > 0)
                continue;
            file->dead_stamp = 0;
            file->dead_next = set->dead;
            set->dead = file;
        }
    }
    arena_retire(versions->arena, slot, version);
}

size_t versions_take_dead(Versions *versions, Slot *slot, EpochDomain *epochs, uint64_t *numbers,
                          size_t capacity)
{
    VersionSet *set = versions->set;
    size_t count = 0;
    uint64_t stamp = 0;
    lock_acquire(&set->manifest_lock, slot);
    for (FileMeta **link = &set->dead; *link != NULL;) {
        FileMeta *file = *link;
        if (file->dead_stamp == 0) {
            if (stamp == 0)
                stamp = epoch_retire(epochs);
            file->dead_stamp = stamp;
        }
        if ((count == capacity && !file->moved) || !epoch_is_past(epochs, file->dead_stamp)) {
            link = &file->dead_next;
            continue;
        }
        *link = file->dead_next;
        if (!file->moved)
            numbers[count++] = file->info.number;
        arena_free(versions->arena, slot, file);
    }
    lock_release(&set->manifest_lock, slot);
    return count;
}

/* ---- start ----------------------------------------------------------------------------------- */

/* Fills a set that is new from what the manifest says. */
static Status recover_set(Versions *versions, Slot *slot, const ManifestState *state)
{
    VersionSet *set = versions->set;
    Build build = {.versions = versions, .slot = slot};
    memset(set, 0, sizeof *set);
    lock_init(&set->manifest_lock, LOCK_RANK_MANIFEST, "manifest");
    atomic_init(&set->next_number, state->counters.next_number);
    counters_store(set, &state->counters);
    set->manifest_number = state->manifest_number;
    set->manifest_end = state->sealed_end;
    set->manifest_base = state->base_end;
    set->seal_sequence = state->seal_sequence;
    set->record_sequence = state->record_sequence;
    Status status = build_prepare(&build, state->files, state->file_count, NULL, 0);
    if (status == AIDB_OK)
        status = build_version(&build, NULL, state->counters.version_number);
    if (status == AIDB_INTERNAL) /* the files on disk do not fit together: no bug of this process */
        status = status_set(AIDB_CORRUPTION, "the manifest of \"%s\" is damaged: %s",
                            versions->directory, status_message());
    if (status == AIDB_OK) {
        adopt(&build, NULL);
        set->current = build.version;
    }
    build_deinit(&build, status == AIDB_OK);
    return status;
}

/* Cuts off a record that was never sealed, and makes the rest last. What was read may stand in the kernel's
 * memory alone: whoever wrote the newest seal, or CURRENT, was killed before its sync; or the sync failed, and the
 * kernel has dropped the seal from what it still writes. What the edit under it removed is about to be removed. */
static Status settle(Versions *versions, const ManifestState *state)
{
    RETURN_IF_FAILED(open_manifest(versions));
    if (state->file_size != state->sealed_end) {
        RETURN_IF_FAILED(file_truncate(&versions->file, state->sealed_end));
        FAILPOINT("recover.manifest_cut");
    }
    RETURN_IF_FAILED(
        write_seal(versions, state->seal_sequence, state->sealed_end, state->record_sequence));
    RETURN_IF_FAILED(file_sync(&versions->file));
    return directory_sync(versions->directory);
}

typedef struct Sweep {
    Versions *versions;
    const ManifestState *state;
    uint64_t number_max; /* greatest seen in a name */
    size_t removed;
} Sweep;

static Status sweep_remove(Sweep *sweep, char *path)
{
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the path of a file to remove");
    sweep->removed++;
    Status status = file_unlink(path);
    free(path);
    FAILPOINT("recover.orphan_removed");
    return status;
}

static Status sweep_table(void *arg, const char *name)
{
    Sweep *sweep = arg;
    const ManifestState *state = sweep->state;
    uint64_t number;
    if (!table_name_parse(name, &number))
        return AIDB_OK;
    if (TABLE_SEQUENCE(number) > sweep->number_max)
        sweep->number_max = TABLE_SEQUENCE(number);
    bool found;
    (void)manifest_state_find(state, number, &found);
    if (found)
        return AIDB_OK;
    return sweep_remove(sweep, manifest_table_path(sweep->versions->directory, number));
}

static Status sweep_manifest(void *arg, const char *name)
{
    Sweep *sweep = arg;
    uint64_t number = 0;
    bool temporary = strcmp(name, "CURRENT.tmp") == 0;
    if (!temporary && !manifest_name_parse(name, &number))
        return AIDB_OK;
    if (number > sweep->number_max)
        sweep->number_max = number;
    if (number == sweep->state->manifest_number && !temporary)
        return AIDB_OK;
    return sweep_remove(sweep, path_join(sweep->versions->directory, name));
}

/* Removes what a crash left, and takes numbers past every name seen. */
static Status sweep_files(Versions *versions, const ManifestState *state)
{
    Sweep sweep = {.versions = versions, .state = state};
    char *tables = path_join(versions->directory, "sst");
    if (tables == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for a path");
    Status status = directory_list(tables, sweep_table, &sweep);
    size_t orphans = sweep.removed;
    if (status == AIDB_OK && orphans > 0)
        status = directory_sync(tables);
    free(tables);
    RETURN_IF_FAILED(status);
    RETURN_IF_FAILED(directory_list(versions->directory, sweep_manifest, &sweep));
    if (sweep.removed > orphans)
        RETURN_IF_FAILED(directory_sync(versions->directory));
    if (sweep.removed > 0)
        server_log(LOG_LEVEL_INFO, "removed %zu files that nothing names", sweep.removed);
    if (sweep.number_max >= state->counters.next_number)
        atomic_store_explicit(&versions->set->next_number, sweep.number_max + 1,
                              memory_order_relaxed);
    return AIDB_OK;
}

Status versions_recover(Versions *versions, Slot *slot)
{
    ManifestState state;
    file_close(&versions->file);
    versions->file_number = 0;
    RETURN_IF_FAILED(manifest_load(versions->directory, &state));
    Status status;
    if (memcmp(state.identity.system_id, versions->identity.system_id, 16) != 0) {
        status = status_set(AIDB_CORRUPTION, "the manifest of \"%s\" belongs to another database",
                            versions->directory);
        goto out;
    }
    OUT_IF_FAILED(recover_set(versions, slot, &state));
    for (size_t i = 0; i < state.file_count; i++)
        OUT_IF_FAILED(manifest_check_table(versions->directory, &state.files[i].info));
    OUT_IF_FAILED(settle(versions, &state));
    OUT_IF_FAILED(sweep_files(versions, &state));
out:
    manifest_state_deinit(&state);
    return status;
}
