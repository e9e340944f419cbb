/*
 * version_internal.h - what the sources of this folder share: the manifest's frame and the replay
 * of edits. doc/format-manifest.md has the byte tables.
 */
#ifndef AIDB_ENGINE_VERSION_VERSION_INTERNAL_H
#define AIDB_ENGINE_VERSION_VERSION_INTERNAL_H

#include "engine/version/version.h"

#define MANIFEST_SECTOR        4096u
#define MANIFEST_HEADER_SIZE   (3 * MANIFEST_SECTOR) /* header, two seal slots */
#define MANIFEST_RECORD_HEADER 24u
#define MANIFEST_RECORD_MAX    (1u << 30)
#define MANIFEST_NAME_SIZE     32
#define BOUND_MAX              256u /* longer bounds are shortened where that is safe */

#define LEVEL_GONE 0xff /* of a NewFile in a replay: removed */

/* ---- edits (edit.c) -------------------------------------------------------------------------- */

/* Applies the part of an edit that is not about files. AIDB_CORRUPTION with what does not fit. */
Status counters_apply(StoreCounters *counters, const VersionEdit *edit,
                      uint64_t durable) MUST_CHECK;
/* Applies a decoded edit to a replay; takes the keys of added files over. */
Status manifest_state_apply(ManifestState *state, VersionEdit *edit, uint64_t durable) MUST_CHECK;
/* Frees the keys of a file. */
void new_file_deinit(NewFile *file);
/* Drops removed files from the array. */
void manifest_state_compact(ManifestState *state);
/* Index of the file with this number, or of where it belongs. */
size_t manifest_state_find(const ManifestState *state, uint64_t number, bool *found);

/* ---- the file (manifest.c) ------------------------------------------------------------------- */

void manifest_name(uint64_t number, char name[MANIFEST_NAME_SIZE]);
bool manifest_name_parse(const char *name, uint64_t *number);

/* Seeds every checksum behind the header: the same record elsewhere is damage. */
uint64_t manifest_seed(const uint8_t system_id[16], uint64_t number);
/* Appends the frame of a record that will stand at `offset`. */
Status manifest_frame(uint64_t seed, uint64_t offset, uint64_t sequence, const VersionEdit *edit,
                      uint64_t durable, Buffer *to) MUST_CHECK;
/* What stands in the first eight bytes of a record, whose size is that of header and payload. */
uint64_t manifest_record_checksum(uint64_t seed, uint64_t offset, const uint8_t *record,
                                  size_t size);
/* Takes identity from a header sector; false when it is damaged or of another manifest. */
/* AIDB_UNSUPPORTED when the header is whole and of another format. */
Status manifest_check_format(const char *path, const uint8_t sector[MANIFEST_SECTOR],
                             uint64_t number) MUST_CHECK;
bool manifest_header_decode(const uint8_t sector[MANIFEST_SECTOR], uint64_t number,
                            StoreIdentity *identity);
/* The sector of a seal slot, and where it belongs. */
uint64_t manifest_seal(uint64_t seed, uint64_t sequence, uint64_t end, uint64_t record_sequence,
                       uint8_t sector[MANIFEST_SECTOR]);

/* Where a new manifest stands after it was written. */
typedef struct ManifestPlace {
    uint64_t end;
    uint64_t seal_sequence;
    uint64_t record_sequence;
} ManifestPlace;
/*
 * Writes a whole new manifest (header, seals, a snapshot of `version` and `counters`), synced with its
 * directory, and leaves it open. `version` NULL: no tables. CURRENT is not touched. The file is removed
 * when that fails.
 */
Status manifest_write_new(const char *directory, const StoreIdentity *identity, uint64_t number,
                          const Version *version, const StoreCounters *counters, File *file,
                          ManifestPlace *place) MUST_CHECK;
/* Makes CURRENT name it, durably. */
Status manifest_set_current(const char *directory, uint64_t number) MUST_CHECK;
/* The number of the manifest that CURRENT names. AIDB_NO_DATABASE when there is none. */
Status manifest_current(const char *directory, uint64_t *number) MUST_CHECK;
/* The path of a live table, on the heap. */
char *manifest_table_path(const char *directory, uint64_t number);
/* Whether a live table exists with its size: AIDB_CORRUPTION names the file. */
Status manifest_check_table(const char *directory, const TableInfo *info) MUST_CHECK;

#endif
