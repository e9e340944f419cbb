/*
 * segment.c - segment files: names, headers, preparation, recycling, writing.
 *
 * A segment file is a header of one page and segment_size bytes of log. Its name tells the first LSN
 * and the incarnation that made the file. The header is written after the bytes behind it are real,
 * synced blocks, and is never changed while the file keeps its name: a valid header under the right
 * name means that the file can be written without needing disk space.
 *
 * Segments of the running incarnation are the files [oldest, prepared_end), without gaps, so that the
 * state in the region is a few words and every name is computed. A released segment is renamed to be
 * the next one to prepare; between the rename and the sync of the new header it is nobody's (its
 * header contradicts its name) and a recovery removes it.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/coding.h"
#include "common/failpoint.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT_MAGIC  0x4745535742444941u /* "AIDBWSEG" */
#define LARGE_FLUSH    (1u << 20)
#define SPARE_SEGMENTS 4u /* released segments kept for reuse, beyond those that cover the ring */

/* Offsets in the header. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_INCARNATION = 12,
    AT_SYSTEM_ID = 16,
    AT_SEGMENT_SIZE = 32,
    AT_FIRST_LSN = 40,
    AT_DURABLE = 48,
    AT_LOG_FIRST = 56,
    AT_PREVIOUS_END = 64,
    AT_KIND = 72,
    AT_CHECKSUM = 80
};

void segment_name(char name[WAL_NAME_SIZE], uint64_t first_lsn, uint32_t incarnation)
{
    snprintf(name, WAL_NAME_SIZE, "%016llx.%08x", (unsigned long long)first_lsn, incarnation);
}

char *segment_path(const WalOptions *options, uint64_t first_lsn, uint32_t incarnation)
{
    char name[WAL_NAME_SIZE];
    segment_name(name, first_lsn, incarnation);
    return path_join(options->directory, name);
}

void segment_header_encode(uint8_t block[WAL_SEGMENT_HEADER_SIZE], const WalOptions *options,
                           const SegmentHeader *header)
{
    memset(block, 0, WAL_SEGMENT_HEADER_SIZE);
    put_fixed64(block + AT_MAGIC, SEGMENT_MAGIC);
    put_fixed32(block + AT_VERSION, WAL_FORMAT_VERSION);
    put_fixed32(block + AT_INCARNATION, header->incarnation);
    memcpy(block + AT_SYSTEM_ID, options->system_id, sizeof options->system_id);
    put_fixed64(block + AT_SEGMENT_SIZE, options->segment_size);
    put_fixed64(block + AT_FIRST_LSN, header->first_lsn);
    put_fixed64(block + AT_DURABLE, header->durable);
    put_fixed64(block + AT_LOG_FIRST, header->log_first);
    put_fixed64(block + AT_PREVIOUS_END, header->previous_end);
    put_fixed32(block + AT_KIND, header->kind);
    block_seal(block, WAL_SEGMENT_HEADER_SIZE, AT_CHECKSUM);
}

static bool block_is_zero(const uint8_t *block)
{
    for (size_t i = 0; i < WAL_SEGMENT_HEADER_SIZE; i++)
        if (block[i] != 0)
            return false;
    return true;
}

/* The format of a segment whose header is whole, or else that of today. */
static uint32_t segment_format(const uint8_t block[WAL_SEGMENT_HEADER_SIZE])
{
    return get_fixed64(block + AT_MAGIC) == SEGMENT_MAGIC &&
                   block_is_sealed(block, WAL_SEGMENT_HEADER_SIZE, AT_CHECKSUM)
               ? get_fixed32(block + AT_VERSION)
               : WAL_FORMAT_VERSION;
}

HeaderState segment_header_decode(const uint8_t block[WAL_SEGMENT_HEADER_SIZE],
                                  const WalOptions *options, uint64_t first_lsn,
                                  uint32_t incarnation, SegmentHeader *header)
{
    if (!block_is_sealed(block, WAL_SEGMENT_HEADER_SIZE, AT_CHECKSUM))
        return block_is_zero(block) ? HEADER_UNFINISHED : HEADER_DAMAGED;
    if (get_fixed64(block + AT_MAGIC) != SEGMENT_MAGIC ||
        get_fixed32(block + AT_VERSION) != WAL_FORMAT_VERSION ||
        memcmp(block + AT_SYSTEM_ID, options->system_id, sizeof options->system_id) != 0 ||
        get_fixed64(block + AT_SEGMENT_SIZE) != options->segment_size)
        return HEADER_DAMAGED; /* of another database */
    *header = (SegmentHeader){
        .incarnation = get_fixed32(block + AT_INCARNATION),
        .first_lsn = get_fixed64(block + AT_FIRST_LSN),
        .durable = get_fixed64(block + AT_DURABLE),
        .log_first = get_fixed64(block + AT_LOG_FIRST),
        .previous_end = get_fixed64(block + AT_PREVIOUS_END),
        .kind = get_fixed32(block + AT_KIND),
    };
    if (header->first_lsn != first_lsn || header->incarnation != incarnation)
        return HEADER_UNFINISHED; /* renamed for reuse, and not further */
    if (header->kind != SEGMENT_WRITTEN && header->kind != SEGMENT_COPIED)
        return HEADER_DAMAGED;
    return HEADER_VALID;
}

/* ---- catalog ---------------------------------------------------------------------------------- */

/* Whether a name in the directory is that of a segment. */
static bool parse_name(const char *name, uint64_t *first_lsn, uint32_t *incarnation)
{
    unsigned long long lsn = 0;
    unsigned number = 0;
    char again[WAL_NAME_SIZE];
    if (strlen(name) != WAL_NAME_SIZE - 1 || sscanf(name, "%16llx.%8x", &lsn, &number) != 2)
        return false;
    segment_name(again, lsn, number);
    *first_lsn = lsn;
    *incarnation = number;
    return strcmp(name, again) == 0;
}

static Status read_file(const WalOptions *options, SegmentFile *entry)
{
    char *path = segment_path(options, entry->first_lsn, entry->incarnation);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the list of log segments");
    File file;
    Status status = file_open(path, FILE_READ, &file);
    if (status != AIDB_OK)
        goto out;
    uint8_t block[WAL_SEGMENT_HEADER_SIZE];
    size_t got;
    /* In this order: a running database writes the header last, so whoever has a header has its size. */
    OUT_IF_FAILED(file_read_some(&file, 0, block, sizeof block, &got));
    OUT_IF_FAILED(file_size(&file, &entry->size));
    if (got == sizeof block && segment_format(block) != WAL_FORMAT_VERSION) {
        status = format_unsupported("log file", path, segment_format(block), WAL_FORMAT_VERSION);
        goto out;
    }
    entry->state = got < sizeof block ? HEADER_UNFINISHED
                                      : segment_header_decode(block, options, entry->first_lsn,
                                                              entry->incarnation, &entry->header);
out:
    file_close(&file);
    free(path);
    return status;
}

typedef struct Listing {
    const WalOptions *options;
    Catalog *catalog;
} Listing;

static Status visit_name(void *arg, const char *name)
{
    Listing *listing = arg;
    Catalog *catalog = listing->catalog;
    SegmentFile entry = {0};
    if (!parse_name(name, &entry.first_lsn, &entry.incarnation) ||
        segment_start(listing->options, entry.first_lsn) != entry.first_lsn)
        return AIDB_OK;
    Status status = read_file(listing->options, &entry);
    if (status == AIDB_NOT_FOUND) /* recycled by the running database meanwhile */
        return AIDB_OK;
    RETURN_IF_FAILED(status);
    if (catalog->count == catalog->capacity) {
        size_t capacity = catalog->capacity == 0 ? 64 : catalog->capacity * 2;
        SegmentFile *files = realloc(catalog->files, capacity * sizeof *files);
        if (files == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory for the list of log segments");
        catalog->files = files;
        catalog->capacity = capacity;
    }
    catalog->files[catalog->count++] = entry;
    return AIDB_OK;
}

static int compare_files(const void *a, const void *b)
{
    const SegmentFile *one = a;
    const SegmentFile *two = b;
    if (one->first_lsn != two->first_lsn)
        return one->first_lsn < two->first_lsn ? -1 : 1;
    return (one->incarnation > two->incarnation) - (one->incarnation < two->incarnation);
}

Status catalog_load(const WalOptions *options, Catalog *catalog)
{
    *catalog = (Catalog){0};
    Listing listing = {.options = options, .catalog = catalog};
    Status status = directory_list(options->directory, visit_name, &listing);
    if (status != AIDB_OK) {
        catalog_deinit(catalog);
        return status;
    }
    if (catalog->count > 0)
        qsort(catalog->files, catalog->count, sizeof *catalog->files, compare_files);
    return AIDB_OK;
}

void catalog_deinit(Catalog *catalog)
{
    free(catalog->files);
    *catalog = (Catalog){0};
}

const SegmentFile *catalog_find(const Catalog *catalog, uint64_t first_lsn,
                                uint32_t incarnation_min)
{
    size_t low = 0;
    size_t high = catalog->count;
    while (low < high) { /* the first file behind those of this segment */
        size_t middle = low + (high - low) / 2;
        if (catalog->files[middle].first_lsn <= first_lsn)
            low = middle + 1;
        else
            high = middle;
    }
    while (low-- > 0) {
        const SegmentFile *file = &catalog->files[low];
        if (file->first_lsn != first_lsn || file->incarnation < incarnation_min)
            return NULL;
        if (file->state == HEADER_VALID)
            return file;
    }
    return NULL;
}

/* ---- preparation ------------------------------------------------------------------------------ */

static Status write_header(const WalOptions *options, const File *file, const SegmentHeader *header)
{
    uint8_t block[WAL_SEGMENT_HEADER_SIZE];
    segment_header_encode(block, options, header);
    RETURN_IF_FAILED(file_write_at(file, 0, block, sizeof block));
    RETURN_IF_FAILED(FAILPOINT_STATUS("segment.header_written"));
    RETURN_IF_FAILED(file_sync(file));
    FAILPOINT("segment.header_synced");
    return directory_sync(options->directory);
}

/* Removes a file on a path that reports another error already. */
static void discard(const char *path)
{
    if (file_unlink(path) != AIDB_OK)
        server_log(LOG_LEVEL_WARNING, "%s", status_message());
}

/* Blocks that are allocated but not written cost each sync of them a journal commit; writing them ahead
 * costs each byte of the log a second write. The first is worth it when syncs are large. */
Status segment_create(const WalOptions *options, const SegmentHeader *header, bool zero_fill)
{
    char *path = segment_path(options, header->first_lsn, header->incarnation);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for a log segment");
    File file = FILE_CLOSED;
    Status status = AIDB_OK;
    OUT_IF_FAILED(file_unlink(path)); /* left by a preparation that failed */
    OUT_IF_FAILED(file_open(path, FILE_CREATE_NEW, &file));
    FAILPOINT("segment.created");
    uint64_t size = WAL_SEGMENT_HEADER_SIZE + options->segment_size;
    OUT_IF_FAILED(zero_fill ? file_zero_fill(&file, 0, size) : file_allocate(&file, 0, size));
    OUT_IF_FAILED(FAILPOINT_STATUS("segment.filled"));
    OUT_IF_FAILED(file_sync(&file));
    OUT_IF_FAILED(write_header(options, &file, header));
out:
    if (status != AIDB_OK && file.fd >= 0) {
        char message[512];
        snprintf(message, sizeof message, "%s", status_message());
        discard(path);
        status = status_set(status, "%s", message);
    }
    file_close(&file);
    free(path);
    return status;
}

/* Makes the oldest segment, which nobody needs, the one of `header`. Once renamed it is either that or
 * removed. */
static Status recycle(const WalOptions *options, uint64_t oldest, const SegmentHeader *header,
                      bool *renamed)
{
    *renamed = false;
    char *from = segment_path(options, oldest, header->incarnation);
    char *to = segment_path(options, header->first_lsn, header->incarnation);
    File file = FILE_CLOSED;
    Status status = AIDB_OK;
    if (from == NULL || to == NULL) {
        status = status_set(AIDB_NO_MEMORY, "out of memory for a log segment");
        goto out;
    }
    OUT_IF_FAILED(file_open(from, FILE_WRITE, &file));
    OUT_IF_FAILED(file_rename(from, to));
    *renamed = true;
    OUT_IF_FAILED(FAILPOINT_STATUS("segment.recycle_renamed"));
    OUT_IF_FAILED(write_header(options, &file, header));
out:
    if (status != AIDB_OK && *renamed) {
        char message[512];
        snprintf(message, sizeof message, "%s", status_message());
        discard(to);
        status = status_set(status, "%s", message);
    }
    file_close(&file);
    free(from);
    free(to);
    return status;
}

/* Whether the oldest segment may be reused. Segments lock held. */
static bool oldest_is_released(const Wal *wal)
{
    const WalShared *shared = wal->shared;
    uint64_t released = atomic_load(&shared->released);
    uint64_t durable = atomic_load(&shared->durable);
    uint64_t limit = released < durable ? released : durable;
    return atomic_load(&shared->oldest) + wal->options.segment_size <= limit;
}

/* Whether the flushes since a segment was made were of a size at which their syncs do not count: nobody
 * waits for each write. Before the first flush, whether that is to be expected. */
static bool flushes_are_large(Wal *wal)
{
    WalShared *shared = wal->shared;
    uint32_t flushes = atomic_load(&shared->flushes);
    uint64_t durable = atomic_load(&shared->durable);
    uint64_t count = flushes - shared->flushes_before;
    uint64_t bytes = durable - shared->durable_before;
    shared->flushes_before = flushes;
    shared->durable_before = durable;
    return count > 0 ? bytes / count >= LARGE_FLUSH : !wal->options.syncs_expected;
}

/* Tables release the log, so they must not be out of room because of it. */
static Status leave_room(const Wal *wal)
{
    uint64_t keep = wal->keep != NULL ? wal->keep(wal->keep_arg) : 0;
    uint64_t need = WAL_SEGMENT_HEADER_SIZE + wal->options.segment_size + keep;
    if (keep == 0 || directory_room(wal->options.directory) >= need)
        return AIDB_OK;
    return status_set(AIDB_NO_SPACE,
                      "no space left for a log segment: what is free in \"%s\" is less than %llu "
                      "bytes, and memtables need it",
                      wal->options.directory, (unsigned long long)need);
}

static Status prepare_one(Wal *wal)
{
    WalShared *shared = wal->shared;
    uint64_t first = atomic_load(&shared->prepared_end);
    SegmentHeader header = {
        .incarnation = shared->incarnation,
        .first_lsn = first,
        .durable = wal_durable_claim(shared),
        .log_first = shared->first_lsn,
        .previous_end = shared->previous_end,
        .kind = SEGMENT_WRITTEN,
    };
    Status status;
    if (oldest_is_released(wal)) {
        bool renamed;
        uint64_t oldest = atomic_load(&shared->oldest);
        status = recycle(&wal->options, oldest, &header, &renamed);
        if (renamed)
            atomic_store(&shared->oldest, oldest + wal->options.segment_size);
        if (status == AIDB_OK)
            atomic_fetch_add(&shared->recycled, 1);
    } else {
        status = leave_room(wal);
        if (status == AIDB_OK)
            status = segment_create(&wal->options, &header, !flushes_are_large(wal));
        if (status == AIDB_OK)
            atomic_fetch_add(&shared->created, 1);
    }
    FAILPOINT("segment.before_prepared");
    if (status == AIDB_OK)
        atomic_store_explicit(&shared->prepared_end, first + wal->options.segment_size,
                              memory_order_release);
    return status;
}

Status segments_prepare(Wal *wal, Slot *slot, uint64_t end)
{
    WalShared *shared = wal->shared;
    Status status = AIDB_OK;
    lock_acquire(&shared->segments_lock, slot);
    while (status == AIDB_OK && atomic_load(&shared->prepared_end) < end)
        status = prepare_one(wal);
    lock_release(&shared->segments_lock, slot);
    return status;
}

/* ---- release ---------------------------------------------------------------------------------- */

/* Removes files of earlier incarnations that lie wholly below `released`. */
static Status remove_older(Wal *wal, uint64_t released)
{
    Catalog catalog;
    RETURN_IF_FAILED(catalog_load(&wal->options, &catalog));
    bool remain = false;
    Status status = AIDB_OK;
    for (size_t i = 0; i < catalog.count && catalog.files[i].first_lsn < wal->shared->first_lsn;
         i++) {
        if (catalog.files[i].first_lsn + wal->options.segment_size > released) {
            remain = true;
            continue;
        }
        char *path =
            segment_path(&wal->options, catalog.files[i].first_lsn, catalog.files[i].incarnation);
        if (path == NULL) {
            status = status_set(AIDB_NO_MEMORY, "out of memory for the list of log segments");
            break;
        }
        status = file_unlink(path);
        free(path);
        if (status != AIDB_OK)
            break;
        FAILPOINT("segment.older_removed");
    }
    if (status == AIDB_OK && !remain)
        atomic_store(&wal->shared->older_files, 0);
    catalog_deinit(&catalog);
    return status;
}

/* Removes released segments beyond those that are kept for reuse. */
static Status remove_surplus(Wal *wal)
{
    WalShared *shared = wal->shared;
    uint64_t size = wal->options.segment_size;
    uint64_t keep = SPARE_SEGMENTS + wal->options.ring_size / size;
    while (oldest_is_released(wal)) {
        uint64_t oldest = atomic_load(&shared->oldest);
        uint64_t in_use = segment_start(&wal->options, atomic_load(&shared->durable));
        uint64_t released = segment_start(&wal->options, atomic_load(&shared->released));
        if (released > in_use)
            released = in_use;
        /* Segments that are prepared already count as spare. */
        uint64_t spare = (released - oldest + atomic_load(&shared->prepared_end) - in_use) / size;
        if (spare <= keep)
            return AIDB_OK;
        char *path = segment_path(&wal->options, oldest, shared->incarnation);
        if (path == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory for a log segment");
        Status status = file_unlink(path);
        free(path);
        RETURN_IF_FAILED(status);
        FAILPOINT("segment.removed");
        atomic_store(&shared->oldest, oldest + size);
    }
    return AIDB_OK;
}

void wal_release(Wal *wal, Slot *slot, uint64_t lsn)
{
    WalShared *shared = wal->shared;
    uint64_t released = atomic_load(&shared->released);
    while (released < lsn && !atomic_compare_exchange_weak(&shared->released, &released, lsn))
        ;
    lock_acquire(&shared->segments_lock, slot);
    Status status = AIDB_OK;
    if (atomic_load(&shared->older_files) != 0)
        status = remove_older(wal, atomic_load(&shared->released));
    if (status == AIDB_OK)
        status = remove_surplus(wal);
    lock_release(&shared->segments_lock, slot);
    /* Files that could not be removed cost space, nothing else; the next release tries again. */
    if (status != AIDB_OK)
        server_log(LOG_LEVEL_WARNING, "log segments that are no longer needed remain: %s",
                   status_message());
}

void segments_remove_spare(Wal *wal, Slot *slot)
{
    WalShared *shared = wal->shared;
    uint64_t size = wal->options.segment_size;
    lock_acquire(&shared->segments_lock, slot);
    /* From the newest down to the one behind the end: they hold nothing. Then those that tables made
     * superfluous. */
    uint64_t last = segment_start(&wal->options, atomic_load(&shared->durable)) + size;
    bool more = true;
    while (more) {
        uint64_t prepared = atomic_load(&shared->prepared_end);
        bool unused = prepared > last;
        uint64_t first = unused ? prepared - size : atomic_load(&shared->oldest);
        more = unused || oldest_is_released(wal);
        char *path = more ? segment_path(&wal->options, first, shared->incarnation) : NULL;
        if (path == NULL || file_unlink(path) != AIDB_OK)
            more = false; /* what stays is removed by the next start */
        else if (unused)
            atomic_store(&shared->prepared_end, first);
        else
            atomic_store(&shared->oldest, first + size);
        free(path);
    }
    lock_release(&shared->segments_lock, slot);
}

void segment_release_rest(Wal *wal)
{
    const WalOptions *options = &wal->options;
    uint64_t end = wal_durable(wal);
    uint64_t from = (segment_offset(options, end) + FILE_BLOCK - 1) / FILE_BLOCK * FILE_BLOCK;
    uint64_t released = atomic_load(&wal->shared->released);
    uint64_t needed = block_start(released < end ? released : end);
    char *path = segment_path(options, segment_start(options, end), wal->shared->incarnation);
    File file = FILE_CLOSED;
    /* It is not there when the log ends where a segment does. */
    if (path != NULL && file_open(path, FILE_WRITE, &file) == AIDB_OK) {
        file_punch(&file, from, WAL_SEGMENT_HEADER_SIZE + options->segment_size - from);
        if (segment_start(options, needed) == segment_start(options, end))
            file_punch(&file, WAL_SEGMENT_HEADER_SIZE,
                       segment_offset(options, needed) - WAL_SEGMENT_HEADER_SIZE);
    }
    file_close(&file);
    free(path);
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* Makes the segment of `lsn` the open one. */
static Status open_segment(Wal *wal, uint64_t lsn)
{
    uint64_t first = segment_start(&wal->options, lsn);
    uint32_t incarnation = wal->shared->incarnation;
    if (wal->segment.fd >= 0 && wal->segment_first == first &&
        wal->segment_incarnation == incarnation)
        return AIDB_OK;
    FAILPOINT("segment.rotated");
    file_close(&wal->segment);
    char *path = segment_path(&wal->options, first, incarnation);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for a log segment");
    Status status = file_open(path, FILE_WRITE_THROUGH, &wal->segment);
    free(path);
    wal->segment_first = first;
    wal->segment_incarnation = incarnation;
    return status;
}

Status segment_write(Wal *wal, uint64_t lsn, const uint8_t *data, size_t size)
{
    while (size > 0) {
        RETURN_IF_FAILED(open_segment(wal, lsn));
        uint64_t room = wal->segment_first + wal->options.segment_size - lsn;
        size_t step = size < room ? size : (size_t)room;
        struct iovec part = {(void *)(uintptr_t)data, step};
        RETURN_IF_FAILED(
            file_write_through(&wal->segment, segment_offset(&wal->options, lsn), &part, 1));
        lsn += step;
        data += step;
        size -= step;
    }
    return AIDB_OK;
}

Status segment_write_ring(Wal *wal, uint64_t begin, uint64_t end)
{
    for (uint64_t lsn = block_start(begin); lsn < end;) {
        RETURN_IF_FAILED(open_segment(wal, lsn));
        uint64_t limit = wal->segment_first + wal->options.segment_size;
        uint64_t stop = end < limit ? end : limit;
        uint64_t whole = block_start(stop); /* blocks below it are full: nobody writes to them */
        struct iovec parts[3];
        int count = 0;
        for (uint64_t at = lsn; at < whole;) {
            Slice run = ring_run(&wal->ring, at, whole - at);
            parts[count++] = (struct iovec){(void *)(uintptr_t)run.data, run.size};
            at += run.size;
        }
        if (whole < stop) {
            size_t size = (size_t)(stop - whole);
            ring_get(&wal->ring, whole, wal->block, size);
            memset(wal->block + size, 0, FILE_BLOCK - size);
            parts[count++] = (struct iovec){wal->block, FILE_BLOCK};
        }
        RETURN_IF_FAILED(
            file_write_through(&wal->segment, segment_offset(&wal->options, lsn), parts, count));
        lsn = stop;
    }
    return AIDB_OK;
}
