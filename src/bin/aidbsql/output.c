#include "config.h"
#include "bin/aidbsql/output.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/mem.h"

/* What `aligned` holds back before it settles the widths of its columns. */
#define HELD_ROWS_MAX  1000
#define HELD_BYTES_MAX (1u << 20)

/* A column is padded to at most this; wider cells stick out rather than push all others away. */
#define WIDTH_MAX 80

static const char *const format_names[] = {"text", "raw", "csv", "jsonl", "aligned"};

bool output_parse_format(const char *text, OutputFormat *format)
{
    for (size_t i = 0; i < sizeof format_names / sizeof format_names[0]; i++) {
        if (strcasecmp(text, format_names[i]) == 0) {
            *format = (OutputFormat)i;
            return true;
        }
    }
    return false;
}

const char *output_format_name(OutputFormat format)
{
    return format_names[format];
}

void output_init(Output *output)
{
    *output = (Output){.file = stdout, .header = TOGGLE_AUTO, .footer = TOGGLE_AUTO};
}

void output_deinit(Output *output)
{
    output_redirect(output, NULL);
    buffer_deinit(&output->line);
    buffer_deinit(&output->held);
}

static bool toggled(const Output *output, Toggle toggle)
{
    return toggle == TOGGLE_AUTO ? output->format == OUTPUT_ALIGNED : toggle == TOGGLE_ON;
}

/* --- Writing -------------------------------------------------------------------------------- */

static void write_bytes(Output *output, const void *data, size_t size)
{
    FILE *file = output->page != NULL ? output->page : output->file;
    if (output->error != 0 || output->page_left || size == 0)
        return;
    if (fwrite(data, 1, size, file) == size)
        return;
    if (output->page != NULL)
        output->page_left = true;
    else
        output->error = errno;
}

static void write_line(Output *output)
{
    write_bytes(output, output->line.data, output->line.size);
    buffer_clear(&output->line);
}

static void end_row(Output *output)
{
    bool plain = output->format == OUTPUT_TEXT || output->format == OUTPUT_RAW;
    if (plain && output->not_ended)
        return;
    mem_append_byte(&output->line, plain && output->nul_ended ? '\0' : '\n');
}

int output_flush(Output *output)
{
    if (fflush(output->file) != 0 && output->error == 0)
        output->error = errno;
    int error = output->error;
    output->error = 0;
    return error;
}

bool output_redirect(Output *output, const char *name)
{
    FILE *file = stdout;
    int (*close_file)(FILE *) = NULL;
    output_flush(output);
    if (name != NULL && name[0] == '|') {
        file = popen(name + 1, "we");
        close_file = pclose;
    } else if (name != NULL) {
        file = fopen(name, "we");
        close_file = fclose;
    }
    if (file == NULL)
        return false;
    if (output->close_file != NULL)
        output->close_file(output->file);
    output->file = file;
    output->close_file = close_file;
    return true;
}

void output_message(Output *output, const char *text)
{
    mem_append_format(&output->line, "%s\n", text);
    write_line(output);
}

void output_number(Output *output, uint64_t number)
{
    mem_append_format(&output->line, "%" PRIu64, number);
    end_row(output);
    write_line(output);
}

/* --- Formats that write row by row -------------------------------------------------------- */

static void append_json_member(Buffer *line, const char *name, Slice bytes)
{
    if (codec_is_utf8(bytes)) {
        codec_json_append(line, slice_from_string(name));
        mem_append_byte(line, ':');
        codec_json_append(line, bytes);
    } else {
        mem_append_format(line, "\"%s_b64\":\"", name);
        codec_base64_append(line, bytes);
        mem_append_byte(line, '"');
    }
}

static void append_cell(Output *output, const Column *column, const Cell *cell)
{
    Buffer *line = &output->line;
    if (output->format == OUTPUT_JSONL) {
        if (column->kind == CELL_NUMBER)
            mem_append_format(line, "\"%s\":%" PRIu64, column->name, cell->number);
        else
            append_json_member(line, column->name, cell->bytes);
        return;
    }
    if (column->kind == CELL_NUMBER)
        mem_append_format(line, "%" PRIu64, cell->number);
    else if (output->format == OUTPUT_CSV)
        codec_csv_append(line, cell->bytes);
    else if (output->format == OUTPUT_RAW)
        mem_append(line, cell->bytes.data, cell->bytes.size);
    else
        codec_text_append(line, cell->bytes);
}

static void append_row(Output *output, const Cell *cells)
{
    Buffer *line = &output->line;
    bool json = output->format == OUTPUT_JSONL;
    if (json)
        mem_append_byte(line, '{');
    for (size_t i = 0; i < output->column_count; i++) {
        if (i > 0)
            mem_append_byte(line, json || output->format == OUTPUT_CSV ? ',' : '\t');
        append_cell(output, &output->columns[i], &cells[i]);
    }
    if (json)
        mem_append_byte(line, '}');
    end_row(output);
}

static void append_header(Output *output)
{
    if (output->format == OUTPUT_JSONL)
        return;
    for (size_t i = 0; i < output->column_count; i++) {
        if (i > 0)
            mem_append_byte(&output->line, output->format == OUTPUT_CSV ? ',' : '\t');
        mem_append_string(&output->line, output->columns[i].name);
    }
    end_row(output);
}

/* --- Aligned -------------------------------------------------------------------------------- */

static void append_repeated(Buffer *line, char c, size_t count)
{
    while (count-- > 0)
        mem_append_byte(line, c);
}

/* Escaped, null-terminated text of a cell for people. */
static void append_display(Buffer *out, const Column *column, const Cell *cell)
{
    if (cell->missing)
        mem_append_string(out, "(not found)");
    else if (column->kind == CELL_NUMBER)
        mem_append_format(out, "%" PRIu64, cell->number);
    else if (cell->bytes.size == 0)
        mem_append_string(out, "(empty)");
    else
        codec_text_append(out, cell->bytes);
    mem_append_byte(out, '\0');
}

/* Width of text that is escaped already. */
static size_t display_width(const char *text)
{
    size_t backslashes = 0;
    for (const char *at = text; (at = strchr(at, '\\')) != NULL; at++)
        backslashes++;
    return codec_display_width(slice_from_string(text)) - backslashes;
}

/* One row whose cells stand one after the other in `cells`. Returns where the next one begins. */
static const char *append_aligned_row(Output *output, const char *cells)
{
    Buffer *line = &output->line;
    for (size_t i = 0; i < output->column_count; i++) {
        bool last = i + 1 == output->column_count;
        size_t width = display_width(cells);
        size_t padding = output->widths[i] > width ? output->widths[i] - width : 0;
        bool right = output->columns[i].kind == CELL_NUMBER;
        mem_append_string(line, i > 0 ? "| " : " ");
        if (right)
            append_repeated(line, ' ', padding);
        mem_append_string(line, cells);
        if (!right && !last)
            append_repeated(line, ' ', padding);
        if (!last)
            mem_append_byte(line, ' ');
        cells += strlen(cells) + 1;
    }
    mem_append_byte(line, '\n');
    return cells;
}

static const char *append_expanded_row(Output *output, const char *cells, uint64_t number)
{
    Buffer *line = &output->line;
    size_t width = 0;
    for (size_t i = 0; i < output->column_count; i++) {
        size_t name = strlen(output->columns[i].name);
        width = name > width ? name : width;
    }
    mem_append_format(line, "-[ RECORD %" PRIu64 " ]%s\n", number, "------------------------");
    for (size_t i = 0; i < output->column_count; i++) {
        mem_append_format(line, "%-*s | %s\n", (int)width, output->columns[i].name, cells);
        cells += strlen(cells) + 1;
    }
    return cells;
}

static void append_aligned_header(Output *output)
{
    Buffer *line = &output->line;
    for (size_t i = 0; i < output->column_count; i++) {
        bool last = i + 1 == output->column_count;
        const char *name = output->columns[i].name;
        size_t spare = output->widths[i] - strlen(name);
        mem_append_string(line, i > 0 ? "| " : " ");
        append_repeated(line, ' ', spare / 2);
        mem_append_string(line, name);
        if (!last)
            append_repeated(line, ' ', spare - spare / 2 + 1);
    }
    mem_append_byte(line, '\n');
    for (size_t i = 0; i < output->column_count; i++) {
        if (i > 0)
            mem_append_byte(line, '+');
        append_repeated(line, '-', output->widths[i] + 2);
    }
    mem_append_byte(line, '\n');
}

static void settle_widths(Output *output)
{
    for (size_t i = 0; i < output->column_count; i++)
        output->widths[i] = strlen(output->columns[i].name);
    const char *cell = (const char *)output->held.data;
    for (size_t row = 0; row < output->held_count; row++) {
        for (size_t i = 0; i < output->column_count; i++) {
            size_t width = display_width(cell);
            if (width > WIDTH_MAX)
                width = WIDTH_MAX;
            if (width > output->widths[i])
                output->widths[i] = width;
            cell += strlen(cell) + 1;
        }
    }
}

/* Whether what is about to be shown is longer than the screen. */
static bool needs_pager(const Output *output, size_t extra_lines)
{
    struct winsize window;
    if (!output->pager || output->file != stdout || !isatty(STDOUT_FILENO) ||
        ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_row == 0 || window.ws_col == 0)
        return false;
    size_t lines = extra_lines;
    const char *cell = (const char *)output->held.data;
    for (size_t row = 0; row < output->held_count; row++) {
        size_t width = 0;
        for (size_t i = 0; i < output->column_count; i++) {
            size_t cell_width = display_width(cell);
            width += 3 + (cell_width > output->widths[i] ? cell_width : output->widths[i]);
            cell += strlen(cell) + 1;
        }
        lines += output->expanded ? output->column_count + 1 : 1;
        lines += width / window.ws_col;
    }
    return lines >= window.ws_row;
}

FILE *output_open_pager(void)
{
    const char *pager = getenv("AIDB_PAGER");
    if (pager == NULL || *pager == '\0')
        pager = getenv("PAGER");
    if (pager == NULL || *pager == '\0')
        pager = "less";
    /* Lines are not folded and the table stays on the screen afterwards. */
    setenv("LESS", "-FRSX", 0);
    fflush(stdout);
    return popen(pager, "we");
}

void output_close_pager(FILE *page)
{
    pclose(page);
}

static void show_held(Output *output)
{
    settle_widths(output);
    if (needs_pager(output, 4))
        output->page = output_open_pager();
    output->shown = true;
    if (toggled(output, output->header) && !output->expanded)
        append_aligned_header(output);
    const char *cells = (const char *)output->held.data;
    for (size_t row = 0; row < output->held_count; row++) {
        uint64_t number = output->row_count - output->held_count + row + 1;
        cells = output->expanded ? append_expanded_row(output, cells, number)
                                 : append_aligned_row(output, cells);
    }
    write_line(output);
    buffer_clear(&output->held);
    output->held_count = 0;
}

static void hold_row(Output *output, const Cell *cells)
{
    for (size_t i = 0; i < output->column_count; i++)
        append_display(&output->held, &output->columns[i], &cells[i]);
    output->held_count++;
    if (!output->shown) {
        if (output->held_count >= HELD_ROWS_MAX || output->held.size >= HELD_BYTES_MAX)
            show_held(output);
        return;
    }
    if (output->expanded)
        append_expanded_row(output, (const char *)output->held.data, output->row_count);
    else
        append_aligned_row(output, (const char *)output->held.data);
    write_line(output);
    buffer_clear(&output->held);
    output->held_count = 0;
}

/* --- Results -------------------------------------------------------------------------------- */

void output_begin(Output *output, const Column *columns, size_t count)
{
    output->columns = columns;
    output->column_count = count < OUTPUT_COLUMNS_MAX ? count : OUTPUT_COLUMNS_MAX;
    output->row_count = 0;
    output->held_count = 0;
    output->shown = false;
    output->page = NULL;
    output->page_left = false;
    buffer_clear(&output->line);
    buffer_clear(&output->held);
    if (output->format != OUTPUT_ALIGNED && toggled(output, output->header)) {
        append_header(output);
        write_line(output);
    }
}

bool output_row(Output *output, const Cell *cells)
{
    output->row_count++;
    if (output->format == OUTPUT_ALIGNED) {
        hold_row(output, cells);
    } else {
        append_row(output, cells);
        write_line(output);
    }
    return output->error == 0 && !output->page_left;
}

void output_end(Output *output)
{
    if (output->format == OUTPUT_ALIGNED && !output->shown)
        show_held(output);
    if (toggled(output, output->footer) && output->format != OUTPUT_JSONL) {
        mem_append_format(&output->line, "(%" PRIu64 " row%s)\n", output->row_count,
                          output->row_count == 1 ? "" : "s");
        write_line(output);
    }
    if (output->page != NULL) {
        output_close_pager(output->page);
        output->page = NULL;
    }
    output->page_left = false;
}

void output_value(Output *output, Slice value)
{
    static const Column column = {"value", CELL_BYTES};
    Cell cell = {.bytes = value};
    if (output->format == OUTPUT_ALIGNED) {
        append_display(&output->line, &column, &cell);
        output->line.data[output->line.size - 1] = '\n';
    } else {
        output->columns = &column;
        output->column_count = 1;
        append_row(output, &cell);
    }
    write_line(output);
}
