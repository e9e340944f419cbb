/*
 * edit.c - version edits: building, bytes, and what they do to a replayed manifest.
 *
 * An edit is a row of tagged fields, so that it can be read without knowing what it is for. The
 * decoder is total: it accepts exactly what the encoder writes (fields at most once, in any order,
 * nothing unknown) and takes memory only in proportion to the bytes that it was given.
 *
 * Replaying checks every edit against the state before it: what is added must be new, what is
 * removed must be there, counters never go back. A manifest whose records all have good checksums
 * and yet fails here was written by a bug or put together by hand; it is reported as damage.
 */
#include "config.h"

#include "engine/version/version_internal.h"

#include "common/coding.h"

#include <stdlib.h>

/* Field tags, never reused. */
enum {
    TAG_ADDED = 1,
    TAG_REMOVED = 2,
    TAG_FLUSHED_LSN = 3,
    TAG_INCARNATION = 4,
    TAG_START = 5,
    TAG_CLEAN_STOP = 6,
    TAG_TERM = 7,
    TAG_DURABLE = 8,
    TAG_NEXT_NUMBER = 9,
    TAG_VERSION_NUMBER = 10,
    TAG_BASE_END = 11,
    TAG_COUNT
};

enum { FILE_LARGEST_EXCLUSIVE = 1, FILE_UNBOUNDED = 2, FILE_GARBAGE = 4, FILE_FLAGS_ALL = 7 };

static Status no_memory(void)
{
    return status_set(AIDB_NO_MEMORY, "could not allocate memory for a version edit");
}

/* ---- building -------------------------------------------------------------------------------- */

static Status slice_copy(Slice from, Slice *to)
{
    uint8_t *data = malloc(from.size > 0 ? from.size : 1);
    if (data == NULL)
        return no_memory();
    if (from.size > 0)
        memcpy(data, from.data, from.size);
    *to = slice_make(data, from.size);
    return AIDB_OK;
}

void new_file_deinit(NewFile *file)
{
    free((void *)file->smallest.data);
    free((void *)file->largest.data);
    file->smallest = file->largest = (Slice){0};
}

static Status grow(void **items, size_t count, size_t *capacity, size_t item_size)
{
    if (count < *capacity)
        return AIDB_OK;
    size_t wanted = *capacity > 0 ? 2 * *capacity : 8;
    if (wanted > SIZE_MAX / item_size)
        return no_memory();
    void *grown = realloc(*items, wanted * item_size);
    if (grown == NULL)
        return no_memory();
    *items = grown;
    *capacity = wanted;
    return AIDB_OK;
}

/* Appends with copies of the keys; `largest` may be incremented in place afterwards. */
static Status append_file(VersionEdit *edit, uint8_t level, const TableInfo *info,
                          const FileBounds *bounds, NewFile **added)
{
    RETURN_IF_FAILED(
        grow((void **)&edit->added, edit->added_count, &edit->added_capacity, sizeof(NewFile)));
    NewFile *file = &edit->added[edit->added_count];
    *file = (NewFile){
        .level = level,
        .info = *info,
        .largest_exclusive = bounds->largest_exclusive && !bounds->unbounded,
        .unbounded = bounds->unbounded,
        .garbage = bounds->garbage,
    };
    RETURN_IF_FAILED(slice_copy(bounds->smallest, &file->smallest));
    Status status = slice_copy(bounds->unbounded ? (Slice){0} : bounds->largest, &file->largest);
    if (status != AIDB_OK) {
        new_file_deinit(file);
        return status;
    }
    edit->added_count++;
    *added = file;
    return AIDB_OK;
}

Status version_edit_add(VersionEdit *edit, uint8_t level, const TableInfo *info,
                        const FileBounds *bounds)
{
    NewFile *file;
    RETURN_IF_FAILED(append_file(edit, level, info, bounds, &file));
    if (level > 0)
        return AIDB_OK;
    if (file->smallest.size > BOUND_MAX)
        file->smallest.size = BOUND_MAX;
    if (file->largest.size > BOUND_MAX) {
        /* Every key with this prefix is below the prefix plus one. */
        uint8_t *data = (uint8_t *)file->largest.data;
        size_t size = BOUND_MAX;
        while (size > 0 && data[size - 1] == 0xff)
            size--;
        if (size > 0) {
            data[size - 1]++;
            file->largest.size = size;
            file->largest_exclusive = true;
        }
    }
    return AIDB_OK;
}

Status version_edit_remove(VersionEdit *edit, uint8_t level, uint64_t number)
{
    RETURN_IF_FAILED(grow((void **)&edit->removed, edit->removed_count, &edit->removed_capacity,
                          sizeof edit->removed[0]));
    edit->removed[edit->removed_count].level = level;
    edit->removed[edit->removed_count].number = number;
    edit->removed_count++;
    return AIDB_OK;
}

Status version_edit_move(VersionEdit *edit, const FileMeta *file, uint8_t to_level)
{
    FileBounds bounds = {
        .smallest = file->smallest,
        .largest = file->largest,
        .largest_exclusive = file->largest_exclusive,
        .unbounded = file->unbounded,
        .garbage = file->garbage,
    };
    NewFile *added;
    RETURN_IF_FAILED(version_edit_remove(edit, file->level, file->info.number));
    return append_file(edit, to_level, &file->info, &bounds, &added);
}

void version_edit_deinit(VersionEdit *edit)
{
    for (size_t i = 0; i < edit->added_count; i++)
        new_file_deinit(&edit->added[i]);
    free(edit->added);
    free(edit->removed);
    *edit = (VersionEdit){0};
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static Status append_number(Buffer *to, uint8_t tag, uint64_t value)
{
    RETURN_IF_FAILED(buffer_append_byte(to, tag));
    return buffer_append_varint(to, value);
}

static Status append_added(Buffer *to, const NewFile *file)
{
    uint8_t flags = (file->largest_exclusive ? FILE_LARGEST_EXCLUSIVE : 0) |
                    (file->unbounded ? FILE_UNBOUNDED : 0) | (file->garbage ? FILE_GARBAGE : 0);
    RETURN_IF_FAILED(buffer_append_byte(to, TAG_ADDED));
    RETURN_IF_FAILED(buffer_append_byte(to, file->level));
    RETURN_IF_FAILED(buffer_append_byte(to, flags));
    RETURN_IF_FAILED(table_info_encode(&file->info, to));
    RETURN_IF_FAILED(buffer_append_slice(to, file->smallest));
    return buffer_append_slice(to, file->largest);
}

Status version_edit_encode(const VersionEdit *edit, uint64_t durable, Buffer *to)
{
    for (size_t i = 0; i < edit->removed_count; i++) {
        RETURN_IF_FAILED(buffer_append_byte(to, TAG_REMOVED));
        RETURN_IF_FAILED(buffer_append_byte(to, edit->removed[i].level));
        RETURN_IF_FAILED(buffer_append_varint(to, edit->removed[i].number));
    }
    for (size_t i = 0; i < edit->added_count; i++)
        RETURN_IF_FAILED(append_added(to, &edit->added[i]));
    if (edit->flushed_lsn != 0)
        RETURN_IF_FAILED(append_number(to, TAG_FLUSHED_LSN, edit->flushed_lsn));
    if (edit->new_incarnation) {
        RETURN_IF_FAILED(append_number(to, TAG_INCARNATION, edit->incarnation));
        RETURN_IF_FAILED(buffer_append_fixed64(to, edit->nonce));
    }
    if (edit->new_start) {
        RETURN_IF_FAILED(append_number(to, TAG_START, edit->start.incarnation));
        RETURN_IF_FAILED(buffer_append_fixed64(to, edit->start.nonce));
        RETURN_IF_FAILED(buffer_append_varint(to, edit->start.first_lsn));
        RETURN_IF_FAILED(buffer_append_varint(to, edit->start.previous_end));
    }
    if (edit->clean_stop)
        RETURN_IF_FAILED(buffer_append_byte(to, TAG_CLEAN_STOP));
    if (edit->term != 0)
        RETURN_IF_FAILED(append_number(to, TAG_TERM, edit->term));
    if (edit->next_number != 0)
        RETURN_IF_FAILED(append_number(to, TAG_NEXT_NUMBER, edit->next_number));
    if (edit->version_number != 0)
        RETURN_IF_FAILED(append_number(to, TAG_VERSION_NUMBER, edit->version_number));
    if (edit->base_end)
        RETURN_IF_FAILED(buffer_append_byte(to, TAG_BASE_END));
    return append_number(to, TAG_DURABLE, durable);
}

static const uint8_t *decode_byte(const uint8_t *from, const uint8_t *end, uint8_t *byte)
{
    if (from == NULL || from == end)
        return NULL;
    *byte = *from;
    return from + 1;
}

/* AIDB_INVALID without a message stands for bytes that are no edit. */
static Status decode_added(const uint8_t **cursor, const uint8_t *end, VersionEdit *edit)
{
    TableInfo info = {0};
    FileBounds bounds = {0};
    NewFile *added;
    uint8_t level = 0;
    uint8_t flags = 0;
    const uint8_t *from = decode_byte(*cursor, end, &level);
    from = decode_byte(from, end, &flags);
    if (from == NULL)
        return AIDB_INVALID;
    from = table_info_decode(from, end, &info);
    from = decode_slice(from, end, &bounds.smallest);
    from = decode_slice(from, end, &bounds.largest);
    if (from == NULL || level >= LEVELS || (flags & ~FILE_FLAGS_ALL) != 0 || info.number == 0 ||
        bounds.smallest.size > AIDB_KEY_MAX || bounds.largest.size > AIDB_KEY_MAX)
        return AIDB_INVALID;
    bounds.largest_exclusive = (flags & FILE_LARGEST_EXCLUSIVE) != 0;
    bounds.unbounded = (flags & FILE_UNBOUNDED) != 0;
    bounds.garbage = (flags & FILE_GARBAGE) != 0;
    if (bounds.unbounded && (bounds.largest_exclusive || bounds.largest.size > 0))
        return AIDB_INVALID;
    if (!bounds.unbounded &&
        slice_compare(bounds.smallest, bounds.largest) >= (bounds.largest_exclusive ? 0 : 1))
        return AIDB_INVALID;
    *cursor = from;
    return append_file(edit, level, &info, &bounds, &added);
}

static Status decode_removed(const uint8_t **cursor, const uint8_t *end, VersionEdit *edit)
{
    uint8_t level = 0;
    uint64_t number = 0;
    const uint8_t *from = decode_byte(*cursor, end, &level);
    from = decode_varint64(from, end, &number);
    if (from == NULL || level >= LEVELS)
        return AIDB_INVALID;
    *cursor = from;
    return version_edit_remove(edit, level, number);
}

static const uint8_t *decode_start(const uint8_t *from, const uint8_t *end, VersionEdit *edit)
{
    from = decode_varint32(from, end, &edit->start.incarnation);
    from = decode_fixed64(from, end, &edit->start.nonce);
    from = decode_varint64(from, end, &edit->start.first_lsn);
    from = decode_varint64(from, end, &edit->start.previous_end);
    edit->new_start = true;
    return from;
}

/* One field; its tag was read and, if it may stand only once, is new. */
static Status decode_field(uint8_t tag, const uint8_t **cursor, const uint8_t *end,
                           VersionEdit *edit, uint64_t *durable)
{
    const uint8_t *from = *cursor;
    switch (tag) {
    case TAG_ADDED:
        return decode_added(cursor, end, edit);
    case TAG_REMOVED:
        return decode_removed(cursor, end, edit);
    case TAG_FLUSHED_LSN:
        from = decode_varint64(from, end, &edit->flushed_lsn);
        break;
    case TAG_INCARNATION:
        from = decode_varint32(from, end, &edit->incarnation);
        from = decode_fixed64(from, end, &edit->nonce);
        edit->new_incarnation = true;
        break;
    case TAG_START:
        from = decode_start(from, end, edit);
        break;
    case TAG_CLEAN_STOP:
        edit->clean_stop = true;
        break;
    case TAG_TERM:
        from = decode_varint32(from, end, &edit->term);
        break;
    case TAG_DURABLE:
        from = decode_varint64(from, end, durable);
        break;
    case TAG_NEXT_NUMBER:
        from = decode_varint64(from, end, &edit->next_number);
        break;
    case TAG_VERSION_NUMBER:
        from = decode_varint64(from, end, &edit->version_number);
        break;
    case TAG_BASE_END:
        edit->base_end = true;
        break;
    default:
        return AIDB_INVALID;
    }
    if (from == NULL)
        return AIDB_INVALID;
    *cursor = from;
    return AIDB_OK;
}

Status version_edit_decode(Slice bytes, VersionEdit *edit, uint64_t *durable)
{
    const uint8_t *from = bytes.data;
    const uint8_t *end = bytes.data + bytes.size;
    uint32_t seen = 0;
    Status status = AIDB_OK;
    *edit = (VersionEdit){0};
    *durable = 0;
    while (status == AIDB_OK && from < end) {
        uint8_t tag = *from++;
        bool repeats = tag == TAG_ADDED || tag == TAG_REMOVED;
        if (tag >= TAG_COUNT || (!repeats && (seen >> tag & 1) != 0)) {
            status = AIDB_INVALID;
            break;
        }
        seen |= 1u << tag;
        status = decode_field(tag, &from, end, edit, durable);
    }
    if (status == AIDB_OK && (seen >> TAG_DURABLE & 1) == 0)
        status = AIDB_INVALID;
    if (status == AIDB_OK)
        return AIDB_OK;
    version_edit_deinit(edit);
    if (status == AIDB_INVALID)
        return status_set(AIDB_CORRUPTION, "the bytes are not a version edit");
    return status;
}

/* ---- replay ---------------------------------------------------------------------------------- */

/* Start `i` is needed while the log of its incarnation reaches to what is not in tables. */
static void prune_starts(StoreCounters *counters)
{
    uint32_t drop = 0;
    while (drop + 1 < counters->start_count &&
           counters->starts[drop + 1].previous_end < counters->flushed_lsn)
        drop++;
    counters->start_count -= drop;
    memmove(counters->starts, counters->starts + drop,
            counters->start_count * sizeof counters->starts[0]);
}

static Status goes_back(const char *what, uint64_t from, uint64_t to)
{
    return status_set(AIDB_CORRUPTION, "a version edit takes the %s back from %llu to %llu", what,
                      (unsigned long long)from, (unsigned long long)to);
}

Status counters_apply(StoreCounters *counters, const VersionEdit *edit, uint64_t durable)
{
    if (edit->flushed_lsn != 0) {
        if (edit->flushed_lsn < counters->flushed_lsn)
            return goes_back("flushed LSN", counters->flushed_lsn, edit->flushed_lsn);
        counters->flushed_lsn = edit->flushed_lsn;
    }
    if (edit->term != 0) {
        if (edit->term < counters->term)
            return goes_back("term", counters->term, edit->term);
        counters->term = edit->term;
    }
    if (edit->next_number != 0) {
        if (edit->next_number < counters->next_number)
            return goes_back("next number", counters->next_number, edit->next_number);
        counters->next_number = edit->next_number;
    }
    if (edit->version_number != 0) {
        if (edit->version_number <= counters->version_number)
            return goes_back("version number", counters->version_number, edit->version_number);
        counters->version_number = edit->version_number;
    }
    if (edit->new_incarnation) {
        if (edit->incarnation <= counters->incarnation)
            return goes_back("incarnation", counters->incarnation, edit->incarnation);
        counters->incarnation = edit->incarnation;
        counters->nonce = edit->nonce;
    }
    prune_starts(counters);
    if (edit->new_start) {
        const WalStart *last =
            counters->start_count > 0 ? &counters->starts[counters->start_count - 1] : NULL;
        bool replaces = last != NULL && wal_start_replaces(&edit->start, last);
        if (counters->start_count == WAL_STARTS_MAX && !replaces)
            return status_set(AIDB_LIMIT,
                              "the log of %u starts would be needed: nothing was flushed since",
                              WAL_STARTS_MAX);
        if (last != NULL && (edit->start.first_lsn <= last->first_lsn ||
                             (edit->start.previous_end < last->first_lsn && !replaces)))
            return goes_back("start of the log", last->first_lsn, edit->start.first_lsn);
        if (edit->start.previous_end > edit->start.first_lsn)
            return goes_back("end of the log", edit->start.previous_end, edit->start.first_lsn);
        counters->start_count -= replaces;
        counters->starts[counters->start_count++] = edit->start;
        prune_starts(counters);
    }
    if (durable > counters->horizon)
        counters->horizon = durable;
    counters->clean_stop = edit->clean_stop;
    return AIDB_OK;
}

size_t manifest_state_find(const ManifestState *state, uint64_t number, bool *found)
{
    size_t low = 0;
    size_t high = state->file_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->files[middle].info.number < number)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < state->file_count && state->files[low].info.number == number;
    return low;
}

static Status state_add(ManifestState *state, NewFile *file)
{
    bool found;
    size_t index = manifest_state_find(state, file->info.number, &found);
    if (found) {
        if (state->files[index].level != LEVEL_GONE) {
            char name[TABLE_NAME_SIZE];
            table_name(file->info.number, name);
            return status_set(AIDB_CORRUPTION, "a version edit adds table %s, which is there",
                              name);
        }
        new_file_deinit(&state->files[index]);
    } else {
        RETURN_IF_FAILED(grow((void **)&state->files, state->file_count, &state->file_capacity,
                              sizeof(NewFile)));
        memmove(state->files + index + 1, state->files + index,
                (state->file_count - index) * sizeof(NewFile));
        state->file_count++;
    }
    state->files[index] = *file;
    file->smallest = file->largest = (Slice){0};
    return AIDB_OK;
}

Status manifest_state_apply(ManifestState *state, VersionEdit *edit, uint64_t durable)
{
    RETURN_IF_FAILED(counters_apply(&state->counters, edit, durable));
    for (size_t i = 0; i < edit->removed_count; i++) {
        bool found;
        size_t index = manifest_state_find(state, edit->removed[i].number, &found);
        if (!found || state->files[index].level != edit->removed[i].level) {
            char name[TABLE_NAME_SIZE];
            table_name(edit->removed[i].number, name);
            return status_set(AIDB_CORRUPTION,
                              "a version edit removes table %s from level %u, where it is not",
                              name, edit->removed[i].level);
        }
        state->files[index].level = LEVEL_GONE;
    }
    for (size_t i = 0; i < edit->added_count; i++)
        RETURN_IF_FAILED(state_add(state, &edit->added[i]));
    return AIDB_OK;
}

void manifest_state_compact(ManifestState *state)
{
    size_t kept = 0;
    for (size_t i = 0; i < state->file_count; i++) {
        if (state->files[i].level == LEVEL_GONE)
            new_file_deinit(&state->files[i]);
        else
            state->files[kept++] = state->files[i];
    }
    state->file_count = kept;
}

void manifest_state_deinit(ManifestState *state)
{
    for (size_t i = 0; i < state->file_count; i++)
        new_file_deinit(&state->files[i]);
    free(state->files);
    *state = (ManifestState){0};
}
