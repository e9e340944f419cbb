/*
 * fuzz.h - targets: functions that feed any bytes to a decoder and check what must hold for every input.
 *
 * A target returns for every input, leaks nothing, and aborts (fuzz_require) when an invariant does
 * not hold. Where a format has checksums the target computes them for what it was given, so that the
 * decoder behind them is reached; a bit of the input's first byte leaves them as they are.
 */
#ifndef AIDB_FUZZ_FUZZ_H
#define AIDB_FUZZ_FUZZ_H

#include "protocol/protocol.h"

typedef struct FuzzTarget {
    const char *name; /* also of its folder in corpus/ */
    void (*run)(const uint8_t *data, size_t size);
} FuzzTarget;

extern const FuzzTarget fuzz_targets[];
extern const size_t fuzz_target_count;
const FuzzTarget *fuzz_target_find(const char *name);

void fuzz_frames(const uint8_t *data, size_t size);
void fuzz_log(const uint8_t *data, size_t size);
void fuzz_manifest(const uint8_t *data, size_t size);
void fuzz_block(const uint8_t *data, size_t size);
void fuzz_table(const uint8_t *data, size_t size);
void fuzz_settings(const uint8_t *data, size_t size);
void fuzz_statement(const uint8_t *data, size_t size);
void fuzz_rows(const uint8_t *data, size_t size);
void fuzz_session(const uint8_t *data, size_t size);
void fuzz_replies(const uint8_t *data, size_t size);

void fuzz_require(bool holds);
/* A temporary folder of this process, in memory where there is such a place, because targets write and
 * sync thousands of files; removed at exit, or by
 * fuzz_end in processes that end in another way. */
const char *fuzz_directory(void);
void fuzz_end(void);
/* Replaces a file. */
void fuzz_write_file(const char *path, const void *data, size_t size);
/* Removes the files of a folder that has no folders in it. */
void fuzz_empty_directory(const char *path);
/* Removes the store in fuzz_directory(). */
void fuzz_remove_store(void);
/* Whether the rows in a message can be read to their end. */
bool fuzz_rows_fit(const Message *message);

#endif
