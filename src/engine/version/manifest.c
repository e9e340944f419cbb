/*
 * manifest.c - the manifest file and CURRENT, which names it.
 *
 * A manifest is a header sector, two seal sectors and a row of records (doc/format-manifest.md has
 * the byte tables). The newest seal says how far the records are true: it is written only after
 * the sync of the record that it covers, and a record is used only after the sync of its seal. So
 * below the sealed end every byte was synced before and damage there is damage, while whatever
 * stands behind it was never used by anybody and is cut off.
 *
 * All that changes in a seal lies in the first 512 bytes of a sector of its own, and the two take
 * turns: power that fails during a seal's write leaves the old or the new one there, and never
 * touches the other. Therefore a seal that does not check is damage too, not a torn write.
 *
 * Checksums are seeded with the system id, the manifest's number and the offset: no record or seal
 * of another place, another manifest or another database is believed.
 */
#include "config.h"

#include "engine/version/version_internal.h"

#include "common/coding.h"
#include "common/failpoint.h"
#include "common/hash.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>

#define HEADER_MAGIC       "AiDbMANI"
#define SEAL_MAGIC         "AiDbSEAL"
#define MANIFEST_FORMAT    1u
#define HEADER_CHECKSUM_AT (MANIFEST_SECTOR - 8)
#define SEAL_SIZE          40u /* with its checksum */
#define CURRENT_SEED       0x544e455252554341ull
#define CURRENT_SIZE_MAX   128u
#define SNAPSHOT_FILES_MAX 256u /* in one record of a snapshot */

/* ---- names ----------------------------------------------------------------------------------- */

void manifest_name(uint64_t number, char name[MANIFEST_NAME_SIZE])
{
    snprintf(name, MANIFEST_NAME_SIZE, "MANIFEST-%06llu", (unsigned long long)number);
}

bool manifest_name_parse(const char *name, uint64_t *number)
{
    static const char prefix[] = "MANIFEST-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return false;
    uint64_t value = 0;
    size_t digits = 0;
    for (const char *at = name + sizeof prefix - 1; *at != '\0'; at++, digits++) {
        if (*at < '0' || *at > '9' || digits == 15)
            return false;
        value = value * 10 + (uint64_t)(*at - '0');
    }
    char again[MANIFEST_NAME_SIZE];
    manifest_name(value, again);
    if (digits == 0 || strcmp(name, again) != 0)
        return false;
    *number = value;
    return true;
}

static Status path_of(const char *directory, const char *name, char **path)
{
    *path = path_join(directory, name);
    if (*path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the path \"%s/%s\"", directory, name);
    return AIDB_OK;
}

char *manifest_table_path(const char *directory, uint64_t number)
{
    char name[TABLE_NAME_SIZE + 4] = "sst/";
    table_name(number, name + 4);
    return path_join(directory, name);
}

/* ---- frames ---------------------------------------------------------------------------------- */

uint64_t manifest_seed(const uint8_t system_id[16], uint64_t number)
{
    return hash64(system_id, 16, number);
}

uint64_t manifest_record_checksum(uint64_t seed, uint64_t offset, const uint8_t *record,
                                  size_t size)
{
    return hash64(record + 8, size - 8, hash_mix(seed, offset));
}

Status manifest_frame(uint64_t seed, uint64_t offset, uint64_t sequence, const VersionEdit *edit,
                      uint64_t durable, Buffer *to)
{
    size_t start = to->size;
    RETURN_IF_FAILED(buffer_append_fixed64(to, 0));
    RETURN_IF_FAILED(buffer_append_fixed64(to, sequence));
    RETURN_IF_FAILED(buffer_append_fixed64(to, 0));
    RETURN_IF_FAILED(version_edit_encode(edit, durable, to));
    size_t payload = to->size - start - MANIFEST_RECORD_HEADER;
    if (payload > MANIFEST_RECORD_MAX)
        return status_set(AIDB_LIMIT, "a version edit of %zu bytes is too large", payload);
    put_fixed32(to->data + start + 16, (uint32_t)payload);
    put_fixed64(to->data + start,
                manifest_record_checksum(seed, offset, to->data + start, to->size - start));
    return AIDB_OK;
}

uint64_t manifest_seal(uint64_t seed, uint64_t sequence, uint64_t end, uint64_t record_sequence,
                       uint8_t sector[MANIFEST_SECTOR])
{
    uint64_t offset = MANIFEST_SECTOR * (1 + (sequence & 1));
    memset(sector, 0, MANIFEST_SECTOR);
    memcpy(sector, SEAL_MAGIC, 8);
    put_fixed64(sector + 8, sequence);
    put_fixed64(sector + 16, end);
    put_fixed64(sector + 24, record_sequence);
    put_fixed64(sector + 32, hash64(sector, 32, hash_mix(seed, offset)));
    return offset;
}

static void encode_header(const StoreIdentity *identity, uint64_t number,
                          uint8_t sector[MANIFEST_SECTOR])
{
    memset(sector, 0, MANIFEST_SECTOR);
    memcpy(sector, HEADER_MAGIC, 8);
    put_fixed32(sector + 8, MANIFEST_FORMAT);
    put_fixed32(sector + 12, MANIFEST_HEADER_SIZE);
    memcpy(sector + 16, identity->system_id, 16);
    put_fixed64(sector + 32, number);
    put_fixed64(sector + 40, identity->wal_segment_size);
    put_fixed64(sector + 48, identity->wal_ring_size);
    put_fixed64(sector + HEADER_CHECKSUM_AT, hash64(sector, HEADER_CHECKSUM_AT, number));
}

/* ---- writing a new manifest ------------------------------------------------------------------ */

typedef struct SnapshotWriter {
    Buffer bytes; /* the whole file */
    uint64_t seed;
    uint64_t sequence; /* of the last record */
} SnapshotWriter;

static Status snapshot_record(SnapshotWriter *writer, const VersionEdit *edit, uint64_t durable)
{
    return manifest_frame(writer->seed, writer->bytes.size, ++writer->sequence, edit, durable,
                          &writer->bytes);
}

static Status snapshot_files(SnapshotWriter *writer, const Version *version)
{
    NewFile *files = calloc(SNAPSHOT_FILES_MAX, sizeof *files);
    if (files == NULL)
        return status_set(AIDB_NO_MEMORY, "could not allocate memory for a manifest");
    VersionEdit edit = {.added = files};
    Status status = AIDB_OK;
    for (uint8_t level = 0; level < LEVELS; level++) {
        for (uint32_t i = 0; i < version->levels[level].count; i++) {
            const FileMeta *file = version->levels[level].files[i];
            files[edit.added_count++] = (NewFile){
                .level = level,
                .info = file->info,
                .smallest = file->smallest,
                .largest = file->largest,
                .largest_exclusive = file->largest_exclusive,
                .unbounded = file->unbounded,
                .garbage = file->garbage,
            };
            if (edit.added_count == SNAPSHOT_FILES_MAX) {
                OUT_IF_FAILED(snapshot_record(writer, &edit, 0));
                edit.added_count = 0;
            }
        }
    }
    if (edit.added_count > 0)
        OUT_IF_FAILED(snapshot_record(writer, &edit, 0));
out:
    free(files); /* the keys are borrowed */
    return status;
}

static Status snapshot_counters(SnapshotWriter *writer, const StoreCounters *counters)
{
    for (uint32_t i = 0; i < counters->start_count; i++) {
        VersionEdit edit = {.new_start = true, .start = counters->starts[i]};
        RETURN_IF_FAILED(snapshot_record(writer, &edit, 0));
    }
    VersionEdit last = {
        .flushed_lsn = counters->flushed_lsn,
        .new_incarnation = counters->incarnation != 0,
        .incarnation = counters->incarnation,
        .nonce = counters->nonce,
        .clean_stop = counters->clean_stop,
        .term = counters->term,
        .next_number = counters->next_number,
        .version_number = counters->version_number,
        .base_end = true,
    };
    return snapshot_record(writer, &last, counters->horizon);
}

static Status snapshot_build(SnapshotWriter *writer, const StoreIdentity *identity, uint64_t number,
                             const Version *version, const StoreCounters *counters,
                             ManifestPlace *place)
{
    RETURN_IF_FAILED(buffer_reserve(&writer->bytes, MANIFEST_HEADER_SIZE));
    writer->bytes.size = MANIFEST_HEADER_SIZE;
    writer->seed = manifest_seed(identity->system_id, number);
    if (version != NULL)
        RETURN_IF_FAILED(snapshot_files(writer, version));
    RETURN_IF_FAILED(snapshot_counters(writer, counters));
    *place = (ManifestPlace){
        .end = writer->bytes.size,
        .seal_sequence = 1,
        .record_sequence = writer->sequence,
    };
    encode_header(identity, number, writer->bytes.data);
    for (uint64_t sequence = 0; sequence <= 1; sequence++) {
        uint8_t sector[MANIFEST_SECTOR];
        uint64_t at =
            manifest_seal(writer->seed, sequence, place->end, place->record_sequence, sector);
        memcpy(writer->bytes.data + at, sector, sizeof sector);
    }
    return AIDB_OK;
}

Status manifest_write_new(const char *directory, const StoreIdentity *identity, uint64_t number,
                          const Version *version, const StoreCounters *counters, File *file,
                          ManifestPlace *place)
{
    SnapshotWriter writer = {0};
    char name[MANIFEST_NAME_SIZE];
    char *path = NULL;
    bool made = false;
    Status status;
    *file = (File)FILE_CLOSED;
    manifest_name(number, name);
    OUT_IF_FAILED(snapshot_build(&writer, identity, number, version, counters, place));
    OUT_IF_FAILED(path_of(directory, name, &path));
    OUT_IF_FAILED(file_open(path, FILE_CREATE_NEW, file));
    made = true;
    FAILPOINT("manifest.created");
    OUT_IF_FAILED(file_write_at(file, 0, writer.bytes.data, writer.bytes.size));
    OUT_IF_FAILED(FAILPOINT_STATUS("manifest.written"));
    OUT_IF_FAILED(file_sync(file));
    FAILPOINT("manifest.synced");
    OUT_IF_FAILED(directory_sync(directory));
    FAILPOINT("manifest.named");
out:
    if (status != AIDB_OK) {
        file_close(file);
        if (made)
            remove(path); /* the first error is the one to report */
    }
    buffer_deinit(&writer.bytes);
    free(path);
    return status;
}

/* ---- CURRENT --------------------------------------------------------------------------------- */

static size_t format_current(uint64_t number, char text[CURRENT_SIZE_MAX])
{
    char name[MANIFEST_NAME_SIZE];
    manifest_name(number, name);
    return (size_t)snprintf(text, CURRENT_SIZE_MAX, "%s\n%016llx\n", name,
                            (unsigned long long)hash64(name, strlen(name), CURRENT_SEED));
}

Status manifest_set_current(const char *directory, uint64_t number)
{
    char *path;
    RETURN_IF_FAILED(path_of(directory, "CURRENT", &path));
    char text[CURRENT_SIZE_MAX];
    size_t size = format_current(number, text);
    Status status = file_replace(path, text, size, 0600);
    free(path);
    return status;
}

Status manifest_current(const char *directory, uint64_t *number)
{
    char *path;
    Buffer bytes = {0};
    RETURN_IF_FAILED(path_of(directory, "CURRENT", &path));
    Status status = file_read_whole(path, CURRENT_SIZE_MAX - 1, &bytes);
    if (status == AIDB_NOT_FOUND)
        status = status_set(AIDB_NO_DATABASE, "there is no database in \"%s\"", directory);
    if (status == AIDB_LIMIT)
        status =
            status_set(AIDB_CORRUPTION, "file \"%s\" is damaged at offset 0: it is too long", path);
    if (status == AIDB_OK) {
        /* Whatever the name is, the text must be exactly what would be written for it. */
        char name[CURRENT_SIZE_MAX] = {0};
        char expected[CURRENT_SIZE_MAX];
        size_t size = 0;
        while (size < bytes.size && bytes.data[size] != '\n')
            size++;
        if (size > 0)
            memcpy(name, bytes.data, size);
        if (!manifest_name_parse(name, number) || format_current(*number, expected) != bytes.size ||
            memcmp(expected, bytes.data, bytes.size) != 0)
            status =
                status_set(AIDB_CORRUPTION,
                           "file \"%s\" is damaged at offset 0: it does not name a manifest", path);
    }
    buffer_deinit(&bytes);
    free(path);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* What a scan of a manifest found, beside its edits. */
typedef struct Scan {
    StoreIdentity identity;
    uint64_t number;
    uint64_t file_size;
    uint64_t sealed_end;
    uint64_t base_end;
    uint64_t seal_sequence;
    uint64_t record_sequence;
    uint64_t damage_offset; /* of the AIDB_CORRUPTION that a scan returned */
    char damage[256];
} Scan;

static Status damaged(Scan *scan, const File *file, uint64_t offset, const char *what)
{
    scan->damage_offset = offset;
    snprintf(scan->damage, sizeof scan->damage, "%s", what);
    return status_set(AIDB_CORRUPTION, "manifest \"%s\" is damaged at offset %llu: %s", file->path,
                      (unsigned long long)offset, scan->damage);
}

/* Reads a part that must be there: a short file is damage where it ends. */
static Status read_part(Scan *scan, const File *file, uint64_t offset, void *data, size_t size,
                        const char *what)
{
    size_t got;
    RETURN_IF_FAILED(file_read_some(file, offset, data, size, &got));
    if (got < size)
        return damaged(scan, file, offset + got, what);
    return AIDB_OK;
}

Status manifest_check_format(const char *path, const uint8_t sector[MANIFEST_SECTOR],
                             uint64_t number)
{
    if (memcmp(sector, HEADER_MAGIC, 8) != 0 ||
        get_fixed64(sector + HEADER_CHECKSUM_AT) != hash64(sector, HEADER_CHECKSUM_AT, number) ||
        get_fixed32(sector + 8) == MANIFEST_FORMAT)
        return AIDB_OK;
    return format_unsupported("manifest", path, get_fixed32(sector + 8), MANIFEST_FORMAT);
}

bool manifest_header_decode(const uint8_t sector[MANIFEST_SECTOR], uint64_t number,
                            StoreIdentity *identity)
{
    if (memcmp(sector, HEADER_MAGIC, 8) != 0 ||
        get_fixed64(sector + HEADER_CHECKSUM_AT) != hash64(sector, HEADER_CHECKSUM_AT, number) ||
        get_fixed32(sector + 8) != MANIFEST_FORMAT ||
        get_fixed32(sector + 12) != MANIFEST_HEADER_SIZE || get_fixed64(sector + 32) != number)
        return false;
    memcpy(identity->system_id, sector + 16, 16);
    identity->wal_segment_size = get_fixed64(sector + 40);
    identity->wal_ring_size = get_fixed64(sector + 48);
    return true;
}

static Status read_header(Scan *scan, const File *file, const uint8_t *system_id)
{
    uint8_t sector[MANIFEST_SECTOR];
    RETURN_IF_FAILED(
        read_part(scan, file, 0, sector, sizeof sector, "the file ends inside its header"));
    RETURN_IF_FAILED(manifest_check_format(file->path, sector, scan->number));
    if (memcmp(sector, HEADER_MAGIC, 8) != 0)
        return damaged(scan, file, 0, "it does not begin as a manifest does");
    if (get_fixed64(sector + HEADER_CHECKSUM_AT) !=
        hash64(sector, HEADER_CHECKSUM_AT, scan->number))
        return damaged(scan, file, 0, "the checksum of the header is wrong");
    if (get_fixed32(sector + 12) != MANIFEST_HEADER_SIZE ||
        get_fixed64(sector + 32) != scan->number)
        return damaged(scan, file, 0, "the header does not belong to this file");
    memcpy(scan->identity.system_id, sector + 16, 16);
    scan->identity.wal_segment_size = get_fixed64(sector + 40);
    scan->identity.wal_ring_size = get_fixed64(sector + 48);
    if (system_id != NULL && memcmp(system_id, sector + 16, 16) != 0)
        return damaged(scan, file, 16, "it belongs to another database (its system id differs)");
    return AIDB_OK;
}

/* Reads both seals and keeps the newer one. */
static Status read_seals(Scan *scan, const File *file, uint64_t seed)
{
    uint64_t sequences[2];
    uint64_t ends[2];
    uint64_t records[2];
    for (int i = 0; i < 2; i++) {
        uint64_t at = MANIFEST_SECTOR * (1 + (uint64_t)i);
        uint8_t sector[MANIFEST_SECTOR];
        uint8_t expected[MANIFEST_SECTOR];
        RETURN_IF_FAILED(
            read_part(scan, file, at, sector, sizeof sector, "the file ends inside a seal"));
        sequences[i] = get_fixed64(sector + 8);
        ends[i] = get_fixed64(sector + 16);
        records[i] = get_fixed64(sector + 24);
        /* A seal is right when it is, byte by byte, what would be written. */
        if (manifest_seal(seed, sequences[i], ends[i], records[i], expected) != at ||
            memcmp(sector, expected, sizeof sector) != 0)
            return damaged(scan, file, at, "the checksum of a seal is wrong");
    }
    int newer = sequences[1] > sequences[0];
    uint64_t newest_at = MANIFEST_SECTOR * (1 + (uint64_t)newer);
    if (sequences[newer] - sequences[!newer] != 1 || ends[newer] < ends[!newer] ||
        records[newer] < records[!newer] || ends[newer] < MANIFEST_HEADER_SIZE)
        return damaged(scan, file, newest_at, "the two seals do not fit together");
    scan->seal_sequence = sequences[newer];
    scan->sealed_end = ends[newer];
    scan->record_sequence = records[newer];
    return AIDB_OK;
}

typedef Status (*RecordVisit)(void *arg, uint64_t offset, VersionEdit *edit, uint64_t durable);

static Status scan_records(Scan *scan, const File *file, uint64_t seed, RecordVisit visit,
                           void *arg)
{
    Buffer record = {0};
    uint64_t offset = MANIFEST_HEADER_SIZE;
    uint64_t sequence = 0;
    Status status = AIDB_OK;
    while (offset < scan->sealed_end) {
        uint64_t left = scan->sealed_end - offset;
        uint8_t header[MANIFEST_RECORD_HEADER];
        if (left < sizeof header) {
            status = damaged(scan, file, offset, "a record crosses the sealed end");
            break;
        }
        OUT_IF_FAILED(
            read_part(scan, file, offset, header, sizeof header, "the file ends inside a record"));
        uint64_t size = sizeof header + (uint64_t)get_fixed32(header + 16);
        if (size > left || size > sizeof header + MANIFEST_RECORD_MAX) {
            status = damaged(scan, file, offset, "the size of a record is wrong");
            break;
        }
        if (scan->file_size - offset < size) {
            status = damaged(scan, file, scan->file_size, "the file ends inside a record");
            break;
        }
        buffer_clear(&record);
        OUT_IF_FAILED(buffer_reserve(&record, size));
        OUT_IF_FAILED(
            read_part(scan, file, offset, record.data, size, "the file ends inside a record"));
        if (get_fixed64(record.data) != manifest_record_checksum(seed, offset, record.data, size)) {
            status = damaged(scan, file, offset, "the checksum of a record is wrong");
            break;
        }
        if (get_fixed64(record.data + 8) != ++sequence || get_fixed32(record.data + 20) != 0) {
            status = damaged(scan, file, offset, "a record is out of its order");
            break;
        }
        VersionEdit edit;
        uint64_t durable;
        status = version_edit_decode(slice_make(record.data + sizeof header, size - sizeof header),
                                     &edit, &durable);
        if (status == AIDB_OK) {
            if (edit.base_end)
                scan->base_end = offset + size;
            status = visit(arg, offset, &edit, durable);
            version_edit_deinit(&edit);
        }
        if (status == AIDB_CORRUPTION) {
            char what[200];
            snprintf(what, sizeof what, "%s", status_message());
            status = damaged(scan, file, offset, what);
        }
        if (status != AIDB_OK)
            goto out;
        offset += size;
    }
    if (status == AIDB_OK && (sequence != scan->record_sequence || scan->base_end == 0))
        status =
            damaged(scan, file, scan->sealed_end, "the sealed end is not where the records end");
out:
    buffer_deinit(&record);
    return status;
}

/* Reads an open manifest from its first to its last sealed byte. */
static Status scan_manifest(Scan *scan, const File *file, const uint8_t *system_id,
                            RecordVisit visit, void *arg)
{
    RETURN_IF_FAILED(file_size(file, &scan->file_size));
    RETURN_IF_FAILED(read_header(scan, file, system_id));
    uint64_t seed = manifest_seed(scan->identity.system_id, scan->number);
    RETURN_IF_FAILED(read_seals(scan, file, seed));
    if (scan->sealed_end > scan->file_size)
        return damaged(scan, file, scan->file_size, "the file ends before its sealed end");
    return scan_records(scan, file, seed, visit, arg);
}

/* Opens the manifest that CURRENT names. A missing one is damage. */
static Status open_current(const char *directory, uint64_t *number, File *file)
{
    *file = (File)FILE_CLOSED;
    RETURN_IF_FAILED(manifest_current(directory, number));
    char name[MANIFEST_NAME_SIZE];
    char *path;
    manifest_name(*number, name);
    RETURN_IF_FAILED(path_of(directory, name, &path));
    Status status = file_open(path, FILE_READ, file);
    if (status == AIDB_NOT_FOUND)
        status =
            status_set(AIDB_CORRUPTION, "manifest \"%s\", which CURRENT names, is missing", path);
    free(path);
    return status;
}

static Status replay_visit(void *arg, uint64_t offset, VersionEdit *edit, uint64_t durable)
{
    (void)offset;
    return manifest_state_apply(arg, edit, durable);
}

/* One try of manifest_load; *scan tells about damage. */
static Status load_once(const char *directory, ManifestState *state, Scan *scan)
{
    File file;
    *scan = (Scan){0};
    *state = (ManifestState){0};
    RETURN_IF_FAILED(open_current(directory, &scan->number, &file));
    Status status = scan_manifest(scan, &file, NULL, replay_visit, state);
    file_close(&file);
    manifest_state_compact(state);
    state->identity = scan->identity;
    state->manifest_number = scan->number;
    state->file_size = scan->file_size;
    state->sealed_end = scan->sealed_end;
    state->base_end = scan->base_end;
    state->seal_sequence = scan->seal_sequence;
    state->record_sequence = scan->record_sequence;
    if (status != AIDB_OK)
        manifest_state_deinit(state);
    return status;
}

/* A reader beside a running server may meet a seal that is just being written, or a manifest that was
 * replaced after CURRENT was read; damage that is real is still there the next time. */
static Status load_with_retries(const char *directory, ManifestState *state, Scan *scan)
{
    Status status = AIDB_OK;
    for (int tries = 0; tries < 3; tries++) {
        status = load_once(directory, state, scan);
        if (status != AIDB_CORRUPTION)
            break;
    }
    return status;
}

Status manifest_load(const char *directory, ManifestState *state)
{
    Scan scan;
    return load_with_retries(directory, state, &scan);
}

Status manifest_identity(const char *directory, StoreIdentity *identity)
{
    Scan scan = {0};
    File file;
    *identity = (StoreIdentity){0};
    RETURN_IF_FAILED(open_current(directory, &scan.number, &file));
    Status status = read_header(&scan, &file, NULL);
    file_close(&file);
    if (status == AIDB_OK)
        *identity = scan.identity;
    return status;
}

typedef struct VisitArgs {
    Status (*visit)(void *arg, uint64_t offset, const VersionEdit *edit, uint64_t durable);
    void *arg;
} VisitArgs;

static Status pass_on(void *arg, uint64_t offset, VersionEdit *edit, uint64_t durable)
{
    VisitArgs *args = arg;
    return args->visit(args->arg, offset, edit, durable);
}

Status manifest_read(const char *path, const uint8_t *system_id,
                     Status (*visit)(void *arg, uint64_t offset, const VersionEdit *edit,
                                     uint64_t durable),
                     void *arg, StoreIdentity *identity)
{
    Scan scan = {0};
    VisitArgs args = {.visit = visit, .arg = arg};
    File file;
    *identity = (StoreIdentity){0};
    const char *slash = strrchr(path, '/');
    if (!manifest_name_parse(slash != NULL ? slash + 1 : path, &scan.number))
        return status_set(AIDB_INVALID, "file \"%s\" is not named like a manifest", path);
    RETURN_IF_FAILED(file_open(path, FILE_READ, &file));
    Status status = scan_manifest(&scan, &file, system_id, pass_on, &args);
    file_close(&file);
    *identity = scan.identity;
    return status;
}

Status manifest_check_table(const char *directory, const TableInfo *info)
{
    File file = FILE_CLOSED;
    uint64_t size;
    char *path = manifest_table_path(directory, info->number);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the path of a table");
    Status status = file_open(path, FILE_READ, &file);
    if (status == AIDB_NOT_FOUND)
        status = status_set(AIDB_CORRUPTION, "table \"%s\" is missing", path);
    if (status == AIDB_OK)
        status = file_size(&file, &size);
    if (status == AIDB_OK && size != info->file_size)
        status = status_set(
            AIDB_CORRUPTION, "table \"%s\" is damaged at offset %llu: it has %llu bytes, not %llu",
            path, (unsigned long long)(size < info->file_size ? size : info->file_size),
            (unsigned long long)size, (unsigned long long)info->file_size);
    file_close(&file);
    free(path);
    return status;
}

/* Whether a running server has replaced the manifest, or dropped the table from it, meanwhile. */
static bool is_live(const char *directory, uint64_t number)
{
    ManifestState state;
    bool live = true;
    if (manifest_load(directory, &state) == AIDB_OK) {
        live = false;
        for (size_t i = 0; i < state.file_count && !live; i++)
            live = state.files[i].info.number == number;
        manifest_state_deinit(&state);
    }
    return live;
}

Status manifest_verify(const char *directory, DamageReport report, void *arg)
{
    ManifestState state;
    Scan scan;
    Status status = load_with_retries(directory, &state, &scan);
    if (status == AIDB_CORRUPTION) {
        char name[MANIFEST_NAME_SIZE] = "CURRENT";
        char *path;
        char what[256];
        if (scan.damage[0] != '\0')
            manifest_name(scan.number, name);
        snprintf(what, sizeof what, "%s", scan.damage[0] != '\0' ? scan.damage : status_message());
        RETURN_IF_FAILED(path_of(directory, name, &path));
        report(arg, path, scan.damage_offset, what);
        free(path);
        return AIDB_OK;
    }
    RETURN_IF_FAILED(status);
    for (size_t i = 0; i < state.file_count && status == AIDB_OK; i++) {
        const TableInfo *info = &state.files[i].info;
        status = manifest_check_table(directory, info);
        if (status != AIDB_CORRUPTION)
            continue;
        char what[256];
        snprintf(what, sizeof what, "%s", status_message());
        status = AIDB_OK;
        if (!is_live(directory, info->number))
            continue;
        char *path = manifest_table_path(directory, info->number);
        if (path == NULL)
            status = status_set(AIDB_NO_MEMORY, "out of memory for the path of a table");
        else
            report(arg, path, 0, what);
        free(path);
    }
    manifest_state_deinit(&state);
    return status;
}

/* ---- a new database -------------------------------------------------------------------------- */

Status manifest_create(const char *directory, const StoreIdentity *identity)
{
    StoreCounters counters = {.next_number = 2, .term = 1};
    ManifestPlace place;
    File file;
    char *tables = NULL;
    char *current = NULL;
    char *manifest = NULL;
    char name[MANIFEST_NAME_SIZE];
    Status status;
    manifest_name(1, name);
    OUT_IF_FAILED(path_of(directory, "sst", &tables));
    OUT_IF_FAILED(path_of(directory, "CURRENT", &current));
    OUT_IF_FAILED(path_of(directory, name, &manifest));
    if (file_exists(current)) {
        status = status_set(AIDB_EXISTS, "there is a database in \"%s\" already", directory);
        goto out;
    }
    OUT_IF_FAILED(file_unlink(manifest)); /* of an attempt that was killed */
    OUT_IF_FAILED(directory_create(tables));
    OUT_IF_FAILED(manifest_write_new(directory, identity, 1, NULL, &counters, &file, &place));
    file_close(&file);
    OUT_IF_FAILED(manifest_set_current(directory, 1));
out:
    free(tables);
    free(current);
    free(manifest);
    return status;
}
