/*
 * salvage.c - what repair needs of the manifest: reading one that is damaged, and writing the first one of
 * the store that is made from the remains.
 *
 * Records are read one by one, whatever seals and neighbours say: each has a checksum that is seeded with
 * the database, the manifest and the offset. Behind a damaged one the bytes are searched for the next.
 * A record behind the seal counts, too: its tables were synced before it was written.
 */
#include "config.h"

#include "engine/version/version_internal.h"

#include "common/coding.h"

#include <stdlib.h>

static Status no_memory(void)
{
    return status_set(AIDB_NO_MEMORY, "out of memory for reading damaged manifests");
}

/* ---- applying records ---------------------------------------------------------------------------- */

static NewFile *find_file(ManifestRemains *remains, uint64_t number)
{
    for (size_t i = 0; i < remains->file_count; i++)
        if (remains->files[i].info.number == number)
            return &remains->files[i];
    return NULL;
}

static Status slot_for(ManifestRemains *remains, uint64_t number, NewFile **file)
{
    *file = find_file(remains, number);
    if (*file != NULL) {
        new_file_deinit(*file);
        return AIDB_OK;
    }
    if (remains->file_count == remains->file_capacity) {
        size_t capacity = remains->file_capacity == 0 ? 64 : remains->file_capacity * 2;
        NewFile *files = realloc(remains->files, capacity * sizeof *files);
        if (files == NULL)
            return no_memory();
        remains->files = files;
        remains->file_capacity = capacity;
    }
    *file = &remains->files[remains->file_count++];
    return AIDB_OK;
}

static Status add_start(ManifestRemains *remains, const WalStart *start)
{
    size_t at = 0;
    while (at < remains->start_count && remains->starts[at].first_lsn < start->first_lsn)
        at++;
    if (at < remains->start_count && remains->starts[at].first_lsn == start->first_lsn) {
        remains->starts[at] = *start;
        return AIDB_OK;
    }
    if (remains->start_count == remains->start_capacity) {
        size_t capacity = remains->start_capacity == 0 ? 16 : remains->start_capacity * 2;
        WalStart *starts = realloc(remains->starts, capacity * sizeof *starts);
        if (starts == NULL)
            return no_memory();
        remains->starts = starts;
        remains->start_capacity = capacity;
    }
    memmove(remains->starts + at + 1, remains->starts + at,
            (remains->start_count - at) * sizeof *start);
    remains->starts[at] = *start;
    remains->start_count++;
    return AIDB_OK;
}

static void raise64(uint64_t *to, uint64_t value)
{
    if (value > *to)
        *to = value;
}

static Status apply(ManifestRemains *remains, VersionEdit *edit, uint64_t durable)
{
    StoreCounters *counters = &remains->counters;
    raise64(&counters->flushed_lsn, edit->flushed_lsn);
    raise64(&counters->horizon, durable);
    raise64(&counters->next_number, edit->next_number);
    if (edit->term > counters->term)
        counters->term = edit->term;
    if (edit->new_incarnation && edit->incarnation > counters->incarnation) {
        counters->incarnation = edit->incarnation;
        counters->nonce = edit->nonce;
    }
    counters->clean_stop = edit->clean_stop;
    if (edit->new_start)
        RETURN_IF_FAILED(add_start(remains, &edit->start));
    for (size_t i = 0; i < edit->removed_count; i++) {
        NewFile *file = find_file(remains, edit->removed[i].number);
        if (file == NULL) {
            RETURN_IF_FAILED(slot_for(remains, edit->removed[i].number, &file));
            *file = (NewFile){.info.number = edit->removed[i].number};
        }
        file->level = LEVEL_GONE;
    }
    for (size_t i = 0; i < edit->added_count; i++) {
        NewFile *file;
        RETURN_IF_FAILED(slot_for(remains, edit->added[i].info.number, &file));
        *file = edit->added[i];
        edit->added[i].smallest = edit->added[i].largest = (Slice){0};
    }
    return AIDB_OK;
}

/* ---- reading ------------------------------------------------------------------------------------- */

/* Size of the whole record that stands at `at`, 0 if none does. */
static size_t record_at(const Buffer *bytes, uint64_t seed, size_t at)
{
    if (bytes->size - at < MANIFEST_RECORD_HEADER)
        return 0;
    uint64_t size = MANIFEST_RECORD_HEADER + (uint64_t)get_fixed32(bytes->data + at + 16);
    if (size > bytes->size - at || get_fixed32(bytes->data + at + 20) != 0)
        return 0;
    return get_fixed64(bytes->data + at) ==
                   manifest_record_checksum(seed, at, bytes->data + at, (size_t)size)
               ? (size_t)size
               : 0;
}

static Status read_records(ManifestRemains *remains, const Buffer *bytes, uint64_t seed)
{
    size_t at = MANIFEST_HEADER_SIZE;
    while (at < bytes->size) {
        size_t size = record_at(bytes, seed, at);
        if (size == 0) {
            at++;
            continue;
        }
        VersionEdit edit;
        uint64_t durable;
        Status status = version_edit_decode(
            slice_make(bytes->data + at + MANIFEST_RECORD_HEADER, size - MANIFEST_RECORD_HEADER),
            &edit, &durable);
        if (status == AIDB_OK) {
            status = apply(remains, &edit, durable);
            version_edit_deinit(&edit);
        } else if (status == AIDB_CORRUPTION) {
            status = AIDB_OK;
        }
        RETURN_IF_FAILED(status);
        at += size;
    }
    return AIDB_OK;
}

typedef struct Numbers {
    uint64_t *items;
    size_t count;
} Numbers;

static Status collect_number(void *arg, const char *name)
{
    Numbers *numbers = arg;
    uint64_t number;
    if (!manifest_name_parse(name, &number))
        return AIDB_OK;
    uint64_t *items = realloc(numbers->items, (numbers->count + 1) * sizeof *items);
    if (items == NULL)
        return no_memory();
    numbers->items = items;
    items[numbers->count++] = number;
    return AIDB_OK;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static Status read_one(const char *directory, uint64_t number, const uint8_t *system_id,
                       ManifestRemains *remains)
{
    char name[MANIFEST_NAME_SIZE];
    Buffer bytes = {0};
    StoreIdentity identity;
    manifest_name(number, name);
    char *path = path_join(directory, name);
    if (path == NULL)
        return no_memory();
    Status status = file_read_whole(path, SIZE_MAX / 4, &bytes);
    if (status == AIDB_OK && bytes.size >= MANIFEST_SECTOR)
        status = manifest_check_format(path, bytes.data, number);
    free(path);
    if (status == AIDB_NO_MEMORY || status == AIDB_UNSUPPORTED)
        goto out;
    if (status != AIDB_OK) { /* what cannot be read is lost */
        status = AIDB_OK;
        goto out;
    }
    if (bytes.size >= MANIFEST_SECTOR && manifest_header_decode(bytes.data, number, &identity)) {
        if (system_id != NULL && memcmp(identity.system_id, system_id, 16) != 0)
            goto out; /* of another database */
        remains->identity = identity;
        remains->identified = true;
        system_id = identity.system_id;
    }
    if (system_id == NULL)
        goto out;
    /* A newer manifest begins with all that is live. */
    for (size_t i = 0; i < remains->file_count; i++)
        if (remains->files[i].level != LEVEL_GONE) {
            new_file_deinit(&remains->files[i]);
            remains->files[i--] = remains->files[--remains->file_count];
        }
    status = read_records(remains, &bytes, manifest_seed(system_id, number));
out:
    buffer_deinit(&bytes);
    return status;
}

/* Moves the numbers of removed files to an array of their own. */
static Status part_removed(ManifestRemains *remains)
{
    remains->removed = malloc((remains->file_count + 1) * sizeof *remains->removed);
    if (remains->removed == NULL)
        return no_memory();
    size_t kept = 0;
    for (size_t i = 0; i < remains->file_count; i++) {
        if (remains->files[i].level == LEVEL_GONE) {
            remains->removed[remains->removed_count++] = remains->files[i].info.number;
            new_file_deinit(&remains->files[i]);
        } else {
            remains->files[kept++] = remains->files[i];
        }
    }
    remains->file_count = kept;
    qsort(remains->removed, remains->removed_count, sizeof *remains->removed, compare_numbers);
    return AIDB_OK;
}

Status manifest_salvage(const char *directory, const uint8_t *system_id, ManifestRemains *remains)
{
    *remains = (ManifestRemains){0};
    Numbers numbers = {0};
    Status status = directory_list(directory, collect_number, &numbers);
    if (status != AIDB_OK)
        goto out;
    if (numbers.count > 0)
        qsort(numbers.items, numbers.count, sizeof *numbers.items, compare_numbers);
    for (size_t i = 0; i < numbers.count; i++) {
        const uint8_t *known = system_id;
        if (known == NULL && remains->identified)
            known = remains->identity.system_id;
        OUT_IF_FAILED(read_one(directory, numbers.items[i], known, remains));
    }
    OUT_IF_FAILED(part_removed(remains));
out:
    free(numbers.items);
    if (status != AIDB_OK)
        manifest_remains_deinit(remains);
    return status;
}

void manifest_remains_deinit(ManifestRemains *remains)
{
    for (size_t i = 0; i < remains->file_count; i++)
        new_file_deinit(&remains->files[i]);
    free(remains->files);
    free(remains->removed);
    free(remains->starts);
    *remains = (ManifestRemains){0};
}

/* ---- the new store -------------------------------------------------------------------------------- */

Status manifest_create_filled(const char *directory, const StoreIdentity *identity,
                              const NewFile *files, size_t count, const StoreCounters *counters)
{
    FileMeta *metas = calloc(count + 1, sizeof *metas);
    FileMeta **pointers = calloc(count + 1, sizeof *pointers);
    Version *version = calloc(1, sizeof *version);
    File file = FILE_CLOSED;
    ManifestPlace place;
    Status status = AIDB_OK;
    if (metas == NULL || pointers == NULL || version == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory for a manifest");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        metas[i] = (FileMeta){.info = files[i].info,
                              .smallest = files[i].smallest,
                              .largest = files[i].largest,
                              .largest_exclusive = files[i].largest_exclusive,
                              .unbounded = files[i].unbounded,
                              .garbage = files[i].garbage,
                              .level = LEVELS - 1};
        pointers[i] = &metas[i];
    }
    version->levels[LEVELS - 1].files = pointers;
    version->levels[LEVELS - 1].count = (uint32_t)count;
    OUT_IF_FAILED(manifest_write_new(directory, identity, 1, version, counters, &file, &place));
    file_close(&file);
    OUT_IF_FAILED(manifest_set_current(directory, 1));
out:
    free(metas);
    free(pointers);
    free(version);
    return status;
}
