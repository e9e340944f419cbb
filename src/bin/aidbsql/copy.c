#include "config.h"
#include "bin/aidbsql/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bin/aidbsql/cursor.h"
#include "bin/aidbsql/interrupt.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/rows.h"

/* A batch is sent when it has this many rows or bytes; so many may be under way. Larger ones no
 * longer make the import faster, and what an error leaves open stays small. */
#define BATCH_ROWS_MAX  2000
#define BATCH_BYTES_MAX (1u << 20)
#define IN_FLIGHT_MAX   8

#define PROGRESS_INTERVAL_MS 100

/* --- Arguments -------------------------------------------------------------------------------- */

typedef struct CopyArgs {
    bool import;
    Bounds bounds;
    const Token *file;
    char *path;    /* of the file */
    bool standard; /* standard input or output */
    bool has_format;
    RowFormat format;
    bool header;
} CopyArgs;

static bool fail_word(const TokenList *args, size_t at, Diagnostic *diagnostic, const char *message)
{
    if (at >= args->count) {
        const Token *last = &args->items[args->count - 1];
        diagnostic_set(diagnostic, last->offset + last->length, 0, "%s", message);
    } else {
        diagnostic_set(diagnostic, args->items[at].offset, args->items[at].length, "%s", message);
    }
    return diagnostic_hint(diagnostic, "\\copy from FILE [csv|tsv|jsonl] [header], or \\copy "
                                       "[PREFIX p | FROM a TO b] to FILE [csv|tsv|jsonl] "
                                       "[header].");
}

static bool is_word(const TokenList *args, size_t at, const char *word)
{
    return at < args->count && token_is(&args->items[at], word);
}

/* Reads what comes before the file. FROM and TO name bounds when a further `to FILE` follows, so
 * `from x` is a file and `from x to y` a bound and a file. */
static bool parse_direction(const TokenList *args, size_t *at, CopyArgs *copy,
                            Diagnostic *diagnostic)
{
    *at = 1;
    if (is_word(args, 1, "FROM") && !is_word(args, 3, "TO")) {
        copy->import = true;
        *at = 2;
        return true;
    }
    TokenList bounds = *args;
    size_t file = 1;
    for (; file < args->count; file += 2) {
        if (is_word(args, file, "TO") && !is_word(args, file + 2, "TO"))
            break;
        if (!is_word(args, file, "PREFIX") && !is_word(args, file, "FROM") &&
            !is_word(args, file, "TO"))
            return fail_word(args, file, diagnostic, "FROM, TO or PREFIX was expected");
    }
    if (file >= args->count)
        return fail_word(args, args->count, diagnostic, "'to FILE' is missing");
    bounds.count = file;
    if (!parser_parse_bounds(&bounds, at, &copy->bounds, diagnostic))
        return false;
    *at = file + 1;
    return true;
}

static bool parse_args(const TokenList *args, CopyArgs *copy, Diagnostic *diagnostic)
{
    size_t at;
    if (!parse_direction(args, &at, copy, diagnostic))
        return false;
    if (at >= args->count || args->items[at].kind != TOKEN_WORD)
        return fail_word(args, at, diagnostic, "the name of a file is missing");
    copy->file = &args->items[at];
    copy->standard =
        token_is(copy->file, "-") || token_is(copy->file, copy->import ? "stdin" : "stdout");
    copy->path = mem_copy_bytes(copy->file->bytes);
    if (strlen(copy->path) != copy->file->bytes.size || copy->path[0] == '\0')
        return fail_word(args, at, diagnostic, "this cannot be the name of a file");
    for (at++; at < args->count; at++) {
        char word[8];
        const Token *token = &args->items[at];
        snprintf(word, sizeof word, "%.*s", (int)(token->bytes.size < 8 ? token->bytes.size : 7),
                 (const char *)token->bytes.data);
        if (token_is(token, "HEADER"))
            copy->header = true;
        else if (token->bare && row_format_parse(word, &copy->format))
            copy->has_format = true;
        else
            return fail_word(args, at, diagnostic, "this is neither a format nor 'header'");
    }
    if (!copy->has_format && !row_format_of_name(copy->path, &copy->format))
        return fail_word(args, args->count, diagnostic,
                         "the format is not clear from the file's name: add csv, tsv or jsonl");
    return true;
}

/* --- Progress --------------------------------------------------------------------------------- */

/* A line on a terminal that is drawn over and over. */
typedef struct Progress {
    bool shown;
    uint64_t total; /* bytes, 0 when unknown */
    struct timespec begin;
    uint64_t drawn_ms; /* after the beginning */
} Progress;

static uint64_t elapsed_ms(const Progress *progress)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)((now.tv_sec - progress->begin.tv_sec) * 1000 +
                      (now.tv_nsec - progress->begin.tv_nsec) / 1000000);
}

static void progress_begin(Progress *progress, const Session *session, uint64_t total)
{
    *progress = (Progress){.shown = isatty(STDERR_FILENO) && !session->quiet, .total = total};
    clock_gettime(CLOCK_MONOTONIC, &progress->begin);
}

static void progress_draw(Progress *progress, uint64_t bytes, uint64_t rows)
{
    uint64_t ms = elapsed_ms(progress);
    double seconds = ms > 0 ? (double)ms / 1e3 : 1e-3;
    char bar[32] = "";
    progress->drawn_ms = ms;
    if (progress->total > 0) {
        double part = bytes < progress->total ? (double)bytes / (double)progress->total : 1.0;
        int filled = (int)(part * 24);
        for (int i = 0; i < 24; i++)
            bar[i] = i < filled ? '#' : '.';
        fprintf(stderr, "\r[%s] %3.0f%%", bar, part * 100);
    } else {
        fputc('\r', stderr);
    }
    fprintf(stderr, "  %" PRIu64 " rows  %.1f MB  %.0f rows/s  %.1f s\033[K", rows,
            (double)bytes / 1e6, (double)rows / seconds, seconds);
    fflush(stderr);
}

static void progress_update(Progress *progress, uint64_t bytes, uint64_t rows)
{
    if (progress->shown && elapsed_ms(progress) >= progress->drawn_ms + PROGRESS_INTERVAL_MS)
        progress_draw(progress, bytes, rows);
}

static void progress_end(Progress *progress, uint64_t bytes, uint64_t rows)
{
    if (!progress->shown)
        return;
    progress_draw(progress, bytes, rows);
    fputc('\n', stderr);
}

static void report_rows(Session *session, uint64_t rows)
{
    char text[64];
    snprintf(text, sizeof text, "COPY %" PRIu64, rows);
    if (!session->quiet)
        output_message(&session->output, text);
}

/* --- Import ----------------------------------------------------------------------------------- */

/* A batch that was sent and is not answered yet. */
typedef struct Sent {
    uint64_t first_line;
    uint64_t row_count;
} Sent;

typedef struct Import {
    Session *session;
    RowReader reader;
    aidb_batch *batch;
    size_t batch_rows;
    size_t batch_bytes;
    uint64_t batch_line;      /* of its first row */
    Sent sent[IN_FLIGHT_MAX]; /* oldest at sent_first */
    size_t sent_first;
    size_t sent_count;
    uint64_t rows;      /* written */
    aidb_status failed; /* of the first batch that was not written */
    uint64_t failed_line;
    char failed_message[512];
} Import;

/* Answers come in the order of the requests. */
static void on_batch_done(void *arg, aidb_status status, const aidb_value *value,
                          const aidb_commit *commit)
{
    Import *import = arg;
    Sent *sent = &import->sent[import->sent_first];
    (void)value;
    (void)commit;
    import->sent_first = (import->sent_first + 1) % IN_FLIGHT_MAX;
    import->sent_count--;
    if (status == AIDB_OK) {
        import->rows += sent->row_count;
    } else if (import->failed == AIDB_OK) {
        import->failed = status;
        import->failed_line = sent->first_line;
        const char *message = aidb_error_message();
        snprintf(import->failed_message, sizeof import->failed_message, "%.*s",
                 (int)strcspn(message, "\n"), message);
        if (import->failed_message[0] == '\0')
            snprintf(import->failed_message, sizeof import->failed_message, "%s",
                     status_name(status));
    }
}

/* A call of the import itself failed. */
static aidb_status note_failure(Import *import, aidb_status status)
{
    if (status != AIDB_OK && import->failed == AIDB_OK) {
        import->failed = status;
        import->failed_line = import->batch_line;
        const char *message = aidb_error_message();
        snprintf(import->failed_message, sizeof import->failed_message, "%.*s",
                 (int)strcspn(message, "\n"), message);
    }
    return status;
}

static aidb_status send_batch(Import *import)
{
    Session *session = import->session;
    if (import->batch_rows == 0)
        return AIDB_OK;
    RETURN_IF_FAILED(note_failure(import, aidb_wait(session->db, IN_FLIGHT_MAX - 1)));
    size_t last = (import->sent_first + import->sent_count) % IN_FLIGHT_MAX;
    import->sent[last] = (Sent){.first_line = import->batch_line, .row_count = import->batch_rows};
    import->sent_count++;
    aidb_request request = {.batch = import->batch,
                            .durability = session->durability,
                            .done = on_batch_done,
                            .arg = import};
    size_t sent_before = import->sent_count;
    aidb_status status = aidb_submit(session->db, &request);
    /* A request that was refused is never answered. */
    if (status != AIDB_OK && import->sent_count == sent_before)
        import->sent_count--;
    aidb_batch_clear(import->batch);
    import->batch_rows = 0;
    import->batch_bytes = 0;
    return note_failure(import, status);
}

static aidb_status add_row(Import *import)
{
    RowReader *reader = &import->reader;
    if (import->session->batch != NULL) {
        overlay_put(import->session->batch, buffer_slice(&reader->key),
                    buffer_slice(&reader->value));
        import->rows++;
        return AIDB_OK;
    }
    if (import->batch_rows == 0)
        import->batch_line = reader->row_line;
    RETURN_IF_FAILED(
        note_failure(import, aidb_batch_put(import->batch, reader->key.data, reader->key.size,
                                            reader->value.data, reader->value.size)));
    import->batch_rows++;
    import->batch_bytes += reader->key.size + reader->value.size;
    if (import->batch_rows >= BATCH_ROWS_MAX || import->batch_bytes >= BATCH_BYTES_MAX)
        return send_batch(import);
    return AIDB_OK;
}

/* Reads and sends all rows. What was sent is answered when it returns. */
static RowResult import_rows(Import *import, bool header, Progress *progress)
{
    RowReader *reader = &import->reader;
    RowResult result = header ? row_reader_skip(reader) : ROW_READ;
    uint64_t rows = 0;
    while (result == ROW_READ && import->failed == AIDB_OK && !interrupt_pending()) {
        result = row_reader_next(reader);
        if (result == ROW_READ && add_row(import) == AIDB_OK)
            rows++;
        if ((rows & 63) == 0)
            progress_update(progress, reader->bytes_read, rows);
    }
    /* The rows in front of a bad one are written, so that a second run can begin behind them. */
    if (import->session->batch == NULL && import->failed == AIDB_OK)
        send_batch(import);
    if (import->session->batch == NULL)
        note_failure(import, aidb_wait(import->session->db, 0));
    progress_end(progress, reader->bytes_read, rows);
    return result;
}

static Outcome report_import(Import *import, const CopyArgs *copy, RowResult result,
                             Diagnostic *diagnostic)
{
    const RowReader *reader = &import->reader;
    const Token *file = copy->file;
    Outcome outcome = OUTCOME_ERROR;
    if (import->failed != AIDB_OK) {
        diagnostic_set(diagnostic, file->offset, file->length, "%s: batch at line %" PRIu64 ": %s",
                       copy->path, import->failed_line, import->failed_message);
        outcome = session_outcome(import->session, import->failed);
    } else if (result == ROW_ERROR) {
        diagnostic_set(diagnostic, file->offset, file->length, "%s:%" PRIu64 ":%" PRIu64 ": %s",
                       copy->path, reader->error_line, reader->error_column, reader->error);
    } else if (interrupt_pending()) {
        diagnostic_set(diagnostic, file->offset, file->length, "canceled");
    } else {
        report_rows(import->session, import->rows);
        return OUTCOME_OK;
    }
    if (import->session->batch == NULL)
        diagnostic_hint(diagnostic, "%" PRIu64 " rows before it are written.", import->rows);
    return outcome;
}

static Outcome import_file(Session *session, const CopyArgs *copy, Diagnostic *diagnostic)
{
    FILE *file = copy->standard ? stdin : fopen(copy->path, "re");
    struct stat about = {0};
    if (file == NULL || fstat(fileno(file), &about) != 0) {
        diagnostic_set(diagnostic, copy->file->offset, copy->file->length, "could not open %s: %s",
                       copy->path, strerror(errno));
        if (file != NULL && !copy->standard)
            fclose(file);
        return OUTCOME_ERROR;
    }
    Import import = {.session = session, .batch = aidb_batch_create()};
    Progress progress;
    Outcome outcome = OUTCOME_ERROR;
    row_reader_init(&import.reader, file, copy->format);
    progress_begin(&progress, session, S_ISREG(about.st_mode) ? (uint64_t)about.st_size : 0);
    if (import.batch == NULL) {
        diagnostic_set(diagnostic, 0, 0, "out of memory");
    } else {
        RowResult result = import_rows(&import, copy->header, &progress);
        outcome = report_import(&import, copy, result, diagnostic);
    }
    aidb_batch_destroy(import.batch);
    row_reader_deinit(&import.reader);
    if (!copy->standard)
        fclose(file);
    return outcome;
}

/* --- Export ----------------------------------------------------------------------------------- */

/* The file that is written: a new one beside the named one, or the named one itself when that is
 * no regular file (a pipe, a device). */
typedef struct Target {
    FILE *file;
    char *final; /* null when the file is written in place */
    char *temporary;
} Target;

static bool open_target(const CopyArgs *copy, Target *target)
{
    struct stat about;
    *target = (Target){0};
    bool exists = stat(copy->path, &about) == 0;
    if (exists && !S_ISREG(about.st_mode)) {
        target->file = fopen(copy->path, "we");
        return target->file != NULL;
    }
    /* Behind a symbolic link it is the file that is replaced and not the link. */
    target->final = exists ? realpath(copy->path, NULL) : mem_copy_string(copy->path);
    if (target->final == NULL)
        return false;
    target->temporary = mem_format("%s.XXXXXX", target->final);
    int descriptor = mkostemp(target->temporary, O_CLOEXEC);
    if (descriptor < 0)
        return false;
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(descriptor, exists ? about.st_mode & 07777 : 0666 & ~mask) == 0)
        target->file = fdopen(descriptor, "w");
    if (target->file == NULL) {
        int error = errno;
        close(descriptor);
        unlink(target->temporary);
        errno = error;
    }
    return target->file != NULL;
}

/* Puts the new file in place of the old one when `whole`, and otherwise forgets it. */
static bool close_target(Target *target, bool whole)
{
    bool closed = target->file != NULL && fclose(target->file) == 0;
    int error = errno;
    if (target->final != NULL && target->file != NULL) {
        closed = closed && whole && rename(target->temporary, target->final) == 0;
        if (!closed) {
            error = whole ? errno : 0;
            unlink(target->temporary);
        }
    }
    free(target->final);
    free(target->temporary);
    errno = error;
    return closed;
}

static aidb_status export_rows(Session *session, const CopyArgs *copy, Output *output,
                               uint64_t *rows)
{
    static const Column columns[] = {{"key", CELL_BYTES}, {"value", CELL_BYTES}};
    CursorOptions options = {.snapshot = session->snapshot, .overlay = session->batch};
    CursorRange range;
    Cursor cursor;
    Progress progress;
    uint64_t bytes = 0;
    cursor_range_init(&range, &copy->bounds);
    progress_begin(&progress, session, 0);
    if (copy->standard)
        progress.shown = false;
    aidb_status status = cursor_open(&cursor, session->db, &range, &options);
    bool found = status == AIDB_OK;
    output_begin(output, columns, 2);
    while (found && !interrupt_pending()) {
        CursorRow row;
        status = cursor_next(&cursor, &row, &found);
        if (status != AIDB_OK || !found)
            break;
        Cell cells[2] = {{.bytes = row.key}, {.bytes = row.value}};
        if (!output_row(output, cells))
            break;
        bytes += row.key.size + row.value.size;
        if ((++*rows & 63) == 0)
            progress_update(&progress, bytes, *rows);
    }
    output_end(output);
    progress_end(&progress, bytes, *rows);
    cursor_close(&cursor);
    cursor_range_deinit(&range);
    return status;
}

static Outcome export_file(Session *session, const CopyArgs *copy, Diagnostic *diagnostic)
{
    const Token *file = copy->file;
    Target target = {0};
    Output output;
    uint64_t rows = 0;
    if (!copy->standard && !open_target(copy, &target)) {
        diagnostic_set(diagnostic, file->offset, file->length, "could not create %s: %s",
                       copy->path, strerror(errno));
        close_target(&target, false);
        return OUTCOME_ERROR;
    }
    output_init(&output);
    output.file = copy->standard ? session->output.file : target.file;
    output.format = copy->format == ROW_CSV     ? OUTPUT_CSV
                    : copy->format == ROW_JSONL ? OUTPUT_JSONL
                                                : OUTPUT_TEXT;
    output.header = copy->header ? TOGGLE_ON : TOGGLE_OFF;
    Outcome outcome = OUTCOME_ERROR;
    aidb_status status = export_rows(session, copy, &output, &rows);
    if (status != AIDB_OK) {
        session_explain(diagnostic, status, file->offset, file->length);
        outcome = session_outcome(session, status);
    } else if (interrupt_pending()) {
        diagnostic_set(diagnostic, file->offset, file->length, "canceled");
    } else {
        outcome = OUTCOME_OK;
    }
    int error = output_flush(&output);
    if (!copy->standard && !close_target(&target, outcome == OUTCOME_OK && error == 0) &&
        error == 0)
        error = errno;
    if (outcome == OUTCOME_OK && error != 0) {
        diagnostic_set(diagnostic, file->offset, file->length, "could not write %s: %s", copy->path,
                       strerror(error));
        outcome = OUTCOME_ERROR;
    }
    output.file = stdout;
    output_deinit(&output);
    if (outcome == OUTCOME_OK && !copy->standard)
        report_rows(session, rows);
    return outcome;
}

Outcome copy_run(Session *session, const TokenList *args, Diagnostic *diagnostic)
{
    CopyArgs copy = {0};
    Outcome outcome = OUTCOME_ERROR;
    if (parse_args(args, &copy, diagnostic)) {
        if (session->db == NULL) {
            diagnostic_set(diagnostic, 0, 0, "not connected");
            outcome = OUTCOME_LOST;
        } else if (session->batch != NULL && session->batch_failed) {
            diagnostic_set(diagnostic, 0, 0, "a statement of this batch failed");
            diagnostic_hint(diagnostic, "ROLLBACK ends it; nothing of it is written.");
        } else {
            outcome = copy.import ? import_file(session, &copy, diagnostic)
                                  : export_file(session, &copy, diagnostic);
        }
    }
    free(copy.path);
    return outcome;
}
