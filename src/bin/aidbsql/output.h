/*
 * output.h - results, in the format that was asked for.
 *
 * A result is columns and rows. Four formats write each row at once; `aligned` holds back the first
 * rows to learn how wide the columns are and then goes on with those widths, so that a scan of any
 * size starts to show at once and takes bounded memory.
 *
 *     text     cells separated by TAB, escaped as in '...'
 *     raw      cells separated by TAB, exact bytes; ends each row with newline, NUL or nothing
 *     csv      RFC 4180 with LF line ends
 *     jsonl    one object a row; key_b64 and value_b64 when not UTF-8
 *     aligned  a table for people
 */
#ifndef AIDBSQL_OUTPUT_H
#define AIDBSQL_OUTPUT_H

#include <stdio.h>

#include "common/buffer.h"

typedef enum OutputFormat {
    OUTPUT_TEXT,
    OUTPUT_RAW,
    OUTPUT_CSV,
    OUTPUT_JSONL,
    OUTPUT_ALIGNED
} OutputFormat;

typedef enum Toggle { TOGGLE_OFF, TOGGLE_ON, TOGGLE_AUTO } Toggle;

typedef enum CellKind { CELL_BYTES, CELL_NUMBER } CellKind;

typedef struct Column {
    const char *name;
    CellKind kind;
} Column;

typedef struct Cell {
    Slice bytes;
    uint64_t number;
    bool missing; /* shown as (not found); only `aligned` gets such rows */
} Cell;

#define OUTPUT_COLUMNS_MAX 32

typedef struct Output {
    OutputFormat format;
    bool nul_ended;                /* rows end with NUL (text and raw) */
    bool not_ended;                /* rows end with nothing (text and raw) */
    Toggle header;                 /* auto: only when aligned */
    Toggle footer;                 /* auto: only when aligned */
    bool expanded;                 /* aligned: a line for each cell */
    bool pager;                    /* long tables go through one; for terminals */
    FILE *file;                    /* where results go */
    int (*close_file)(FILE *file); /* of \o; null when the file is standard output */

    /* The result under way. */
    const Column *columns;
    size_t column_count;
    uint64_t row_count;
    Buffer line;
    Buffer held; /* aligned: cells of the rows held back, each null-terminated and escaped */
    size_t held_count;
    bool shown; /* aligned: the widths are settled */
    size_t widths[OUTPUT_COLUMNS_MAX];
    FILE *page;     /* the pager, while one runs */
    bool page_left; /* the reader has quit the pager: the rest need not be written */
    int error;      /* errno of the first failed write, 0 when there was none */
} Output;

/* Text into standard output. */
void output_init(Output *output);
void output_deinit(Output *output);

/* The columns stay the caller's until output_end. */
void output_begin(Output *output, const Column *columns, size_t count);
/* False when there is no use in further rows: a failed write, or a pager that was left. */
bool output_row(Output *output, const Cell *cells);
void output_end(Output *output);

/* One value without its key. Aligned shows (empty). */
void output_value(Output *output, Slice value);
/* One number by itself, the same in all formats. */
void output_number(Output *output, uint64_t number);
/* A message such as OK or (not found): always a line. */
void output_message(Output *output, const char *text);

/* Writes out what is buffered. Returns the errno of the first failed write since the last call, 0
 * when all went well. */
int output_flush(Output *output);

/* Sends results to a file, to a command when the name begins with '|', or back to standard output
 * when it is null. False with errno set. */
bool output_redirect(Output *output, const char *name);

bool output_parse_format(const char *text, OutputFormat *format);
const char *output_format_name(OutputFormat format);

/* A pager on standard output, and its end. Null when there is none to be had. */
FILE *output_open_pager(void);
void output_close_pager(FILE *page);

#endif
