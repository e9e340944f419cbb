/*
 * manifest.c - any bytes as version edits and as a manifest.
 *
 * Input: a byte of choices, then records, each a size (u16) and the bytes of an edit. The file around
 * them is made here: header, frames, seals. FLIP turns one bit of the finished file, which must then be
 * refused.
 */
#include "config.h"

#include "fuzz/fuzz.h"

#include "common/coding.h"
#include "common/hash.h"
#include "engine/version/version_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define RECORDS_MAX 32u
#define FILE_MAX    65536u

enum { LEAVE_CHECKSUMS = 1, SEAL_SHORT = 2, FLIP = 4 };

static const StoreIdentity identity = {
    .system_id = "fuzzed database", .wal_segment_size = 1u << 20, .wal_ring_size = 1u << 20};

static void check_edit(Slice bytes)
{
    VersionEdit edit, again;
    uint64_t durable, durable_again;
    Buffer first = {0}, second = {0};
    if (version_edit_decode(bytes, &edit, &durable) == AIDB_OK) {
        for (size_t i = 0; i < edit.added_count; i++)
            fuzz_require(edit.added[i].level < LEVELS && edit.added[i].info.number > 0);
        for (size_t i = 0; i < edit.removed_count; i++)
            fuzz_require(edit.removed[i].level < LEVELS);
        fuzz_require(version_edit_encode(&edit, durable, &first) == AIDB_OK);
        fuzz_require(version_edit_decode(buffer_slice(&first), &again, &durable_again) == AIDB_OK);
        fuzz_require(version_edit_encode(&again, durable_again, &second) == AIDB_OK);
        fuzz_require(slice_equal(buffer_slice(&first), buffer_slice(&second)));
        version_edit_deinit(&again);
    }
    version_edit_deinit(&edit);
    buffer_deinit(&first);
    buffer_deinit(&second);
}

/* Header and seals of a new manifest, taken from one that the product wrote. */
static void base_file(uint8_t header[MANIFEST_HEADER_SIZE])
{
    static uint8_t made[MANIFEST_HEADER_SIZE];
    static bool done;
    if (!done) {
        char path[300];
        Buffer bytes = {0};
        fuzz_require(manifest_create(fuzz_directory(), &identity) == AIDB_OK);
        snprintf(path, sizeof path, "%s/MANIFEST-000001", fuzz_directory());
        fuzz_require(file_read_whole(path, FILE_MAX, &bytes) == AIDB_OK);
        memcpy(made, bytes.data, sizeof made);
        buffer_deinit(&bytes);
        done = true;
    }
    memcpy(header, made, sizeof made);
}

static void report(void *arg, const char *path, uint64_t offset, const char *what)
{
    (void)arg;
    (void)offset;
    fuzz_require(path[0] != '\0' && what[0] != '\0');
}

static Status count_edit(void *arg, uint64_t offset, const VersionEdit *edit, uint64_t durable)
{
    (void)offset;
    (void)edit;
    (void)durable;
    ++*(uint32_t *)arg;
    return AIDB_OK;
}

void fuzz_manifest(const uint8_t *data, size_t size)
{
    static uint8_t file[FILE_MAX];
    if (size < 4)
        return;
    check_edit(slice_make(data + 3, size - 3));
    base_file(file);
    uint8_t choices = data[0];
    uint64_t seed = manifest_seed(identity.system_id, 1);
    size_t end = MANIFEST_HEADER_SIZE, sealed = end;
    uint64_t sequence = 0;
    const uint8_t *at = data + 3;
    size_t left = size - 3;
    while (left >= 2 && sequence < RECORDS_MAX) {
        size_t bytes = (size_t)at[0] | (size_t)at[1] << 8;
        at += 2;
        left -= 2;
        if (bytes > left)
            bytes = left;
        if (end + MANIFEST_RECORD_HEADER + bytes > sizeof file)
            break;
        check_edit(slice_make(at, bytes));
        uint8_t *record = file + end;
        memcpy(record + MANIFEST_RECORD_HEADER, at, bytes);
        put_fixed64(record + 8, ++sequence);
        put_fixed32(record + 16, (uint32_t)bytes);
        put_fixed32(record + 20, 0);
        put_fixed64(record, choices & LEAVE_CHECKSUMS
                                ? 0
                                : hash64(record + 8, MANIFEST_RECORD_HEADER + bytes - 8,
                                         hash_mix(seed, end)));
        if ((choices & SEAL_SHORT) && left == bytes)
            break; /* behind the seal: an edit that nobody used */
        end += MANIFEST_RECORD_HEADER + bytes;
        sealed = end;
        at += bytes;
        left -= bytes;
    }
    for (uint64_t seal = 0; seal <= 1; seal++) {
        uint8_t sector[MANIFEST_SECTOR];
        uint64_t offset = manifest_seal(seed, seal, sealed, sequence, sector);
        memcpy(file + offset, sector, sizeof sector);
    }
    if (choices & FLIP) {
        size_t place = ((size_t)data[1] | (size_t)data[2] << 8) % end;
        file[place] ^= (uint8_t)(1u << (choices >> 5));
    }
    char path[300];
    snprintf(path, sizeof path, "%s/MANIFEST-000001", fuzz_directory());
    fuzz_write_file(path, file, end);
    ManifestState state = {0};
    StoreIdentity found;
    uint32_t edits = 0;
    Status status = manifest_load(fuzz_directory(), &state);
    fuzz_require(status == AIDB_OK || status_message()[0] != '\0');
    fuzz_require(status != AIDB_OK || !(choices & FLIP));
    manifest_state_deinit(&state);
    Status read = manifest_read(path, identity.system_id, count_edit, &edits, &found);
    fuzz_require(status != AIDB_OK || read == AIDB_OK);
    (void)!manifest_verify(fuzz_directory(), report, NULL);
    ManifestRemains remains;
    fuzz_require(manifest_salvage(fuzz_directory(), identity.system_id, &remains) == AIDB_OK);
    for (size_t i = 0; i < remains.file_count; i++)
        fuzz_require(remains.files[i].level < LEVELS && remains.files[i].info.number > 0);
    for (size_t i = 1; i < remains.start_count; i++)
        fuzz_require(remains.starts[i - 1].first_lsn < remains.starts[i].first_lsn);
    manifest_remains_deinit(&remains);
}
