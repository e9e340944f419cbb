/*
 * rows.h - keys and values read from a file, for \copy ... from.
 *
 *     CSV    RFC 4180: fields with commas, quotes or line ends in "...", quotes in them doubled;
 *            lines end in LF or CRLF. Two fields a record. Bytes are taken as they are.
 *     TSV    key TAB value, with the escapes of '...' (so what `--format text` prints can be read
 *            back); a CR before the line end is not part of the value.
 *     JSON   one object a line with "key" or "key_b64" and "value" or "value_b64". "version" is
 *            skipped, any other name is refused.
 *
 * Blank lines are skipped. Memory is bounded by the largest key and value, not by the file.
 */
#ifndef AIDBSQL_ROWS_H
#define AIDBSQL_ROWS_H

#include <stdio.h>

#include "common/buffer.h"

typedef enum RowFormat { ROW_CSV, ROW_TSV, ROW_JSONL } RowFormat;

typedef struct RowReader {
    FILE *file;
    RowFormat format;
    uint64_t bytes_read;
    uint64_t line;     /* that the next byte is in, from 1 */
    uint64_t column;   /* of the next byte, in bytes from 1 */
    uint64_t row_line; /* that the last row began on */
    Buffer key;        /* of the last row */
    Buffer value;
    Buffer text; /* a line, or a field before it is decoded */
    uint64_t error_line;
    uint64_t error_column;
    char error[256];
} RowReader;

/* Reads from an open file, which stays the caller's. */
void row_reader_init(RowReader *reader, FILE *file, RowFormat format);
void row_reader_deinit(RowReader *reader);

typedef enum RowResult { ROW_READ, ROW_END, ROW_ERROR } RowResult;

/* Reads the next row into key and value. On ROW_ERROR error, error_line and error_column say what
 * and where, and the reader is of no further use. */
RowResult row_reader_next(RowReader *reader);

/* Reads a record and forgets it: the header line of a CSV or TSV file. */
RowResult row_reader_skip(RowReader *reader);

/* By the end of a file's name. False when it is none of the known ones. */
bool row_format_of_name(const char *name, RowFormat *format);
/* "csv", "tsv", "jsonl". */
bool row_format_parse(const char *text, RowFormat *format);

#endif
