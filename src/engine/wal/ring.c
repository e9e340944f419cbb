/*
 * ring.c - the ring file: a page with two header slots, then the bytes of the newest part of the log.
 *
 * The byte of LSN x stands at header page + x % size. The file is mapped shared, so that what a
 * process has copied in is the kernel's as soon as the copy is done and survives the death of every
 * process. Nothing in the bytes is trusted by itself: records are found by their checksums.
 *
 * A header is written into the slot that does not hold the newest one, with the next sequence number,
 * so that a write torn by power loss leaves the header before it. That is always one with which
 * recovery comes to the same end: neither a re-initialisation nor a stop touches the bytes.
 */
#include "config.h"

#include "engine/wal/wal_internal.h"

#include "common/coding.h"
#include "common/failpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RING_HEADER_SIZE 4096u
#define SLOT_SIZE        2048u
#define RING_MAGIC       0x474e495242444941u /* "AIDBRING" */

/* Offsets in a slot. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_INCARNATION = 12,
    AT_SYSTEM_ID = 16,
    AT_RING_SIZE = 32,
    AT_SEGMENT_SIZE = 40,
    AT_SEQUENCE = 48,
    AT_STATE = 56,
    AT_PREVIOUS_CLEAN = 60,
    AT_FIRST_LSN = 64,
    AT_PREVIOUS_END = 72,
    AT_END = 80,
    AT_CHECKSUM = 88
};

static void encode(uint8_t slot[SLOT_SIZE], const WalOptions *options, const RingHeader *header)
{
    memset(slot, 0, SLOT_SIZE);
    put_fixed64(slot + AT_MAGIC, RING_MAGIC);
    put_fixed32(slot + AT_VERSION, WAL_FORMAT_VERSION);
    put_fixed32(slot + AT_INCARNATION, header->incarnation);
    memcpy(slot + AT_SYSTEM_ID, options->system_id, sizeof options->system_id);
    put_fixed64(slot + AT_RING_SIZE, options->ring_size);
    put_fixed64(slot + AT_SEGMENT_SIZE, options->segment_size);
    put_fixed64(slot + AT_SEQUENCE, header->sequence);
    put_fixed32(slot + AT_STATE, header->state);
    put_fixed32(slot + AT_PREVIOUS_CLEAN, header->previous_clean);
    put_fixed64(slot + AT_FIRST_LSN, header->first_lsn);
    put_fixed64(slot + AT_PREVIOUS_END, header->previous_end);
    put_fixed64(slot + AT_END, header->end);
    block_seal(slot, SLOT_SIZE, AT_CHECKSUM);
}

static bool slot_is_empty(const uint8_t *slot)
{
    for (size_t i = 0; i < SLOT_SIZE; i++)
        if (slot[i] != 0)
            return false;
    return true;
}

/* Whether a slot holds a header of this database. *foreign is set when it is a whole header that
 * cannot be meant for this database, *format when it is one of another format. */
static bool decode(const uint8_t slot[SLOT_SIZE], const WalOptions *options, RingHeader *header,
                   const char **foreign, uint32_t *format)
{
    if (get_fixed64(slot + AT_MAGIC) != RING_MAGIC ||
        !block_is_sealed(slot, SLOT_SIZE, AT_CHECKSUM))
        return false;
    if (get_fixed32(slot + AT_VERSION) != WAL_FORMAT_VERSION) {
        *format = get_fixed32(slot + AT_VERSION);
        return false;
    }
    if (memcmp(slot + AT_SYSTEM_ID, options->system_id, sizeof options->system_id) != 0)
        *foreign = "it belongs to another database";
    else if (get_fixed64(slot + AT_RING_SIZE) != options->ring_size ||
             get_fixed64(slot + AT_SEGMENT_SIZE) != options->segment_size)
        *foreign = "its sizes are not those of the database";
    if (*foreign != NULL)
        return false;
    *header = (RingHeader){
        .sequence = get_fixed64(slot + AT_SEQUENCE),
        .incarnation = get_fixed32(slot + AT_INCARNATION),
        .state = get_fixed32(slot + AT_STATE),
        .previous_clean = get_fixed32(slot + AT_PREVIOUS_CLEAN) != 0,
        .first_lsn = get_fixed64(slot + AT_FIRST_LSN),
        .previous_end = get_fixed64(slot + AT_PREVIOUS_END),
        .end = get_fixed64(slot + AT_END),
    };
    return header->state == RING_READY || header->state == RING_STOPPED;
}

Status ring_read_header(const Ring *ring, const WalOptions *options, RingHeader *header,
                        uint64_t *damaged)
{
    *header = (RingHeader){0};
    if (damaged != NULL)
        *damaged = UINT64_MAX;
    const char *foreign = NULL;
    uint32_t format = WAL_FORMAT_VERSION;
    bool found = false;
    for (uint64_t at = 0; at < RING_HEADER_SIZE; at += SLOT_SIZE) {
        uint8_t slot[SLOT_SIZE];
        RETURN_IF_FAILED(file_read_at(&ring->file, at, slot, sizeof slot));
        RingHeader one;
        if (!decode(slot, options, &one, &foreign, &format)) {
            if (damaged != NULL && !slot_is_empty(slot))
                *damaged = at;
        } else if (!found || one.sequence > header->sequence) {
            *header = one;
            found = true;
        }
    }
    if (!found && format != WAL_FORMAT_VERSION)
        return format_unsupported("log file", ring->path, format, WAL_FORMAT_VERSION);
    if (!found)
        return status_set(AIDB_CORRUPTION,
                          "file \"%s\": offset 0: the log's ring cannot be read: %s", ring->path,
                          foreign != NULL ? foreign : "no valid header");
    return AIDB_OK;
}

bool ring_identify(const File *file, WalOptions *options)
{
    for (uint64_t at = 0; at < RING_HEADER_SIZE; at += SLOT_SIZE) {
        uint8_t slot[SLOT_SIZE];
        size_t got = 0;
        if (file_read_some(file, at, slot, sizeof slot, &got) != AIDB_OK || got < sizeof slot ||
            get_fixed64(slot + AT_MAGIC) != RING_MAGIC ||
            !block_is_sealed(slot, SLOT_SIZE, AT_CHECKSUM))
            continue;
        memcpy(options->system_id, slot + AT_SYSTEM_ID, sizeof options->system_id);
        options->ring_size = get_fixed64(slot + AT_RING_SIZE);
        options->segment_size = get_fixed64(slot + AT_SEGMENT_SIZE);
        return true;
    }
    return false;
}

Status ring_write_header(const Ring *ring, const WalOptions *options, const RingHeader *header)
{
    uint8_t slot[SLOT_SIZE];
    RingHeader next = *header;
    next.sequence++;
    encode(slot, options, &next);
    RETURN_IF_FAILED(file_write_at(&ring->file, next.sequence % 2 * SLOT_SIZE, slot, sizeof slot));
    RETURN_IF_FAILED(FAILPOINT_STATUS("stop.ring_written"));
    return file_sync(&ring->file);
}

Status ring_create(const WalOptions *options, uint64_t first_lsn)
{
    Ring ring = RING_CLOSED;
    Status status = AIDB_OK;
    ring.path = path_join(options->directory, "ring");
    if (ring.path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the log's ring");
    OUT_IF_FAILED(file_unlink(ring.path)); /* left by a creation that was killed */
    OUT_IF_FAILED(file_open(ring.path, FILE_CREATE_NEW, &ring.file));
    OUT_IF_FAILED(file_allocate(&ring.file, 0, RING_HEADER_SIZE + options->ring_size));
    OUT_IF_FAILED(file_sync(&ring.file));
    OUT_IF_FAILED(ring_write_header(
        &ring, options,
        &(RingHeader){.state = RING_READY, .first_lsn = first_lsn, .previous_end = first_lsn}));
    OUT_IF_FAILED(directory_sync(options->directory));
out:
    ring_close(&ring);
    return status;
}

/* What a clean stop gave back to the file system is allocated again before it is mapped: a full disk must be
 * met here, and not by a store to a page that has no block. */
static Status ring_refill(const Ring *ring, const WalOptions *options)
{
    RingHeader header;
    if (!file_is_sparse(&ring->file))
        return AIDB_OK;
    RETURN_IF_FAILED(ring_read_header(ring, options, &header, NULL));
    if (header.state != RING_STOPPED)
        return AIDB_OK;
    RETURN_IF_FAILED(file_allocate(&ring->file, RING_HEADER_SIZE, options->ring_size));
    return file_sync(&ring->file);
}

void ring_release(const Ring *ring)
{
    file_punch(&ring->file, RING_HEADER_SIZE, ring->size);
}

Status ring_open(const WalOptions *options, bool writable, Ring *ring)
{
    *ring = (Ring)RING_CLOSED;
    Status status = AIDB_OK;
    ring->path = path_join(options->directory, "ring");
    if (ring->path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the log's ring");
    status = file_open(ring->path, writable ? FILE_WRITE : FILE_READ, &ring->file);
    if (status == AIDB_NOT_FOUND) {
        status = status_set(AIDB_CORRUPTION, "file \"%s\": offset 0: the log's ring is missing",
                            ring->path);
        status_hint("The ring may hold the newest writes. Without it the database cannot be "
                    "started safely.");
    }
    if (status != AIDB_OK)
        goto out;
    uint64_t size;
    OUT_IF_FAILED(file_size(&ring->file, &size));
    if (size != RING_HEADER_SIZE + options->ring_size) {
        /* Mapping a file that is too short would end in a signal at the first missing page. */
        status = status_set(AIDB_CORRUPTION,
                            "file \"%s\": offset %llu: the log's ring should have %llu bytes",
                            ring->path, (unsigned long long)size,
                            (unsigned long long)(RING_HEADER_SIZE + options->ring_size));
        goto out;
    }
    if (writable)
        OUT_IF_FAILED(ring_refill(ring, options));
    void *map = mmap(NULL, (size_t)size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
                     ring->file.fd, 0);
    if (map == MAP_FAILED) {
        status = status_set_errno(errno, "could not map file \"%s\"", ring->path);
        goto out;
    }
    ring->map = map;
    ring->data = ring->map + RING_HEADER_SIZE;
    ring->size = options->ring_size;
    RingHeader header;
    OUT_IF_FAILED(ring_read_header(ring, options, &header, NULL));
out:
    if (status != AIDB_OK)
        ring_close(ring);
    return status;
}

void ring_close(Ring *ring)
{
    if (ring->map != NULL)
        munmap(ring->map, (size_t)(RING_HEADER_SIZE + ring->size));
    file_close(&ring->file);
    free(ring->path);
    *ring = (Ring)RING_CLOSED;
}

Slice ring_run(const Ring *ring, uint64_t lsn, uint64_t size)
{
    uint64_t at = lsn % ring->size;
    uint64_t run = ring->size - at;
    return slice_make(ring->data + at, (size_t)(size < run ? size : run));
}

void ring_put(const Ring *ring, uint64_t lsn, const void *data, size_t size)
{
    uint64_t at = lsn % ring->size;
    uint64_t run = ring->size - at;
    if (size <= run) {
        memcpy(ring->data + at, data, size);
    } else {
        memcpy(ring->data + at, data, (size_t)run);
        memcpy(ring->data, (const uint8_t *)data + run, size - (size_t)run);
    }
}

void ring_get(const Ring *ring, uint64_t lsn, void *data, size_t size)
{
    Slice run = ring_run(ring, lsn, size);
    memcpy(data, run.data, run.size);
    if (run.size < size)
        memcpy((uint8_t *)data + run.size, ring->data, size - run.size);
}
