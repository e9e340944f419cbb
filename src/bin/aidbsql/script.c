#include "config.h"
#include "bin/aidbsql/script.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/command.h"
#include "bin/aidbsql/exec.h"
#include "bin/aidbsql/interrupt.h"
#include "bin/aidbsql/mem.h"

/* Of a long line, an error shows this many bytes before and after its place. */
#define EXCERPT_BEFORE 60
#define EXCERPT_AFTER  60

void script_init(Script *script, Session *session, const char *name)
{
    *script = (Script){
        .session = session, .name = name, .text_line = 1, .text_column = 1, .line = 1, .column = 1};
}

void script_deinit(Script *script)
{
    buffer_deinit(&script->text);
}

/* --- Errors ----------------------------------------------------------------------------------- */

static bool is_continuation(uint8_t c)
{
    return (c & 0xc0) == 0x80;
}

static size_t count_characters(Slice text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++)
        count += !is_continuation(text.data[i]);
    return count;
}

/* Columns on a terminal of text without control bytes. codec_display_width is about escaped text,
 * in which a backslash takes two. */
static size_t plain_width(Slice text)
{
    size_t width = codec_display_width(text);
    for (size_t i = 0; i < text.size; i++)
        width -= text.data[i] == '\\';
    return width;
}

/* Appends text in which every character takes its place on the screen: a tab or a control byte would
 * move what follows. */
static void append_visible(Buffer *line, Slice text)
{
    while (text.size > 0) {
        uint32_t code;
        size_t size = codec_utf8_decode(text, &code);
        if (size > 0 && code >= 0x20 && !(code >= 0x7f && code < 0xa0))
            mem_append(line, text.data, size);
        else
            mem_append_byte(line, size > 0 && code == '\t' ? ' ' : '?');
        size = size > 0 ? size : 1;
        text = slice_make(text.data + size, text.size - size);
    }
}

/* Shows the line that offset is in, cut to what is near, with a mark under the word. */
static void print_excerpt(Slice text, size_t offset, size_t length)
{
    size_t begin = offset;
    while (begin > 0 && text.data[begin - 1] != '\n' && offset - begin < EXCERPT_BEFORE)
        begin--;
    size_t end = offset;
    while (end < text.size && text.data[end] != '\n' && text.data[end] != '\r' &&
           end - offset < EXCERPT_AFTER)
        end++;
    while (begin < offset && is_continuation(text.data[begin]))
        begin++;
    while (end > offset && end < text.size && is_continuation(text.data[end]))
        end--;
    bool cut_before = begin > 0 && text.data[begin - 1] != '\n';
    bool cut_after = end < text.size && text.data[end] != '\n' && text.data[end] != '\r';
    if (length > end - offset)
        length = end - offset;

    Buffer line = {0};
    mem_append_string(&line, cut_before ? "..." : "");
    append_visible(&line, slice_make(text.data + begin, offset - begin));
    size_t mark_at = plain_width(buffer_slice(&line));
    append_visible(&line, slice_make(text.data + offset, length));
    size_t mark_end = plain_width(buffer_slice(&line));
    append_visible(&line, slice_make(text.data + offset + length, end - offset - length));
    fprintf(stderr, "%s%s\n%*s^", mem_string(&line), cut_after ? "..." : "", (int)mark_at, "");
    for (size_t i = mark_at + 1; i < mark_end; i++)
        fputc('~', stderr);
    fputc('\n', stderr);
    buffer_deinit(&line);
}

void script_report(const Script *script, Slice text, Outcome outcome, const Diagnostic *diagnostic)
{
    size_t offset = diagnostic->offset < text.size ? diagnostic->offset : text.size;
    uint64_t line = script->text_line;
    size_t line_begin = 0;
    for (size_t i = 0; i < offset; i++) {
        if (text.data[i] == '\n') {
            line++;
            line_begin = i + 1;
        }
    }
    uint64_t column = count_characters(slice_make(text.data + line_begin, offset - line_begin)) + 1;
    if (line == script->text_line)
        column += script->text_column - 1;
    output_flush(&script->session->output);
    if (script->session->interactive && interrupt_pending())
        fputc('\n', stderr); /* the terminal has just shown ^C */
    if (outcome == OUTCOME_UNMET) {
        /* An answer rather than an error: the message comes first, for whoever reads it. */
        fprintf(stderr, "%s", diagnostic->message);
        if (script->name != NULL)
            fprintf(stderr, " (%s:%" PRIu64 ":%" PRIu64 ")", script->name, line, column);
        fputc('\n', stderr);
    } else {
        if (script->name != NULL)
            fprintf(stderr, "%s:%" PRIu64 ":%" PRIu64 ": ", script->name, line, column);
        fprintf(stderr, "error: %s\n", diagnostic->message);
        print_excerpt(text, offset, diagnostic->length);
    }
    if (diagnostic->hint[0] != '\0')
        fprintf(stderr, "hint: %s\n", diagnostic->hint);
}

/* --- Statements ------------------------------------------------------------------------------- */

static const char *find_variable(void *arg, const char *name)
{
    return session_variable(arg, name);
}

static Outcome carry_out(Script *script, Slice text, Diagnostic *diagnostic)
{
    Session *session = script->session;
    LexerData data = {.parameters = session->parameters,
                      .parameter_count = session->parameter_count,
                      .variable = find_variable,
                      .arg = session};
    TokenList tokens = {0};
    Statement statement = {0};
    Outcome outcome = OUTCOME_ERROR;
    if (lexer_tokenize(text, &data, &tokens, diagnostic) &&
        parser_parse(&tokens, &statement, diagnostic)) {
        if (session->db == NULL && statement.kind != STATEMENT_EMPTY) {
            diagnostic_set(diagnostic, 0, 0, "not connected");
            diagnostic_hint(diagnostic, "\\c connects.");
            outcome = OUTCOME_LOST;
        } else {
            outcome = exec_statement(session, &statement, diagnostic);
        }
    }
    statement_deinit(&statement);
    token_list_deinit(&tokens);
    return outcome;
}

static void print_time(const Session *session, const struct timespec *begin)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double ms =
        (double)(end.tv_sec - begin->tv_sec) * 1e3 + (double)(end.tv_nsec - begin->tv_nsec) / 1e6;
    /* What is read by a program stays free of it. */
    bool screen = session->output.file == stdout && isatty(STDOUT_FILENO);
    fprintf(screen ? stdout : stderr, "Time: %.3f ms\n", ms);
}

/* An answer such as an unmet condition does not make a batch abort-only. */
static bool fails_batch(Outcome outcome)
{
    return outcome == OUTCOME_ERROR || outcome == OUTCOME_LOST;
}

Outcome script_run_statement(Script *script, Slice text)
{
    Session *session = script->session;
    Diagnostic diagnostic = {0};
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    Outcome outcome = carry_out(script, text, &diagnostic);
    if (outcome != OUTCOME_OK)
        script_report(script, text, outcome, &diagnostic);
    int error = output_flush(&session->output);
    if (error != 0) {
        diagnostic_set(&diagnostic, 0, 0, "could not write the result: %s", strerror(error));
        script_report(script, text, OUTCOME_ERROR, &diagnostic);
        outcome = outcome_worse(outcome, OUTCOME_ERROR);
    }
    if (session->batch != NULL && fails_batch(outcome))
        session->batch_failed = true;
    if (session->timing)
        print_time(session, &begin);
    return outcome;
}

static void account(Script *script, Outcome outcome)
{
    Session *session = script->session;
    script->worst = outcome_worse(script->worst, outcome);
    session->lost |= outcome == OUTCOME_LOST;
    if (outcome == OUTCOME_OK || script->name == NULL)
        return;
    /* Without a connection nothing that follows can work. */
    if (session->stop_on_error || session->lost)
        script->stopped = true;
}

/* Takes the next bytes of the input into account. */
static void advance(Script *script, Slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        if (bytes.data[i] == '\n') {
            script->line++;
            script->column = 1;
        } else if (!is_continuation(bytes.data[i])) {
            script->column++;
        }
    }
}

static void begin_statement(Script *script)
{
    buffer_clear(&script->text);
    script->splitter = (Splitter){0};
    script->text_line = script->line;
    script->text_column = script->column;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Runs the statement that has been gathered. */
static void run_gathered(Script *script)
{
    Session *session = script->session;
    Slice text = buffer_slice(&script->text);
    while (text.size > 0 && is_blank(text.data[text.size - 1]))
        text.size--;
    if (script->splitter.has_words) {
        interrupt_clear();
        buffer_clear(&session->last_statement);
        mem_append(&session->last_statement, text.data, text.size);
        account(script, script_run_statement(script, text));
    }
}

static void run_command(Script *script, Slice line)
{
    Diagnostic diagnostic = {0};
    while (line.size > 0 && is_blank(line.data[line.size - 1]))
        line.size--;
    interrupt_clear();
    Outcome outcome = command_run(script, line, &diagnostic);
    /* What ran inside of it has reported its own errors. */
    if (outcome != OUTCOME_OK && diagnostic.message[0] != '\0')
        script_report(script, line, outcome, &diagnostic);
    int error = output_flush(&script->session->output);
    if (error != 0) {
        diagnostic_set(&diagnostic, 0, 0, "could not write the result: %s", strerror(error));
        script_report(script, line, OUTCOME_ERROR, &diagnostic);
        outcome = outcome_worse(outcome, OUTCOME_ERROR);
    }
    if (script->session->batch != NULL && fails_batch(outcome))
        script->session->batch_failed = true;
    account(script, outcome);
    if (script->session->quit)
        script->stopped = true;
}

void script_feed(Script *script, Slice line)
{
    while (line.size > 0 && !script->stopped) {
        bool fresh = !script->splitter.has_words && script->splitter.state == SPLIT_GAP;
        if (fresh) {
            /* Blanks and comments before a statement are no part of it. */
            size_t blanks = 0;
            while (blanks < line.size && is_blank(line.data[blanks]))
                blanks++;
            advance(script, slice_make(line.data, blanks));
            line = slice_make(line.data + blanks, line.size - blanks);
            begin_statement(script);
            if (line.size == 0)
                break;
        }
        if (line.data[0] == '\\' &&
            (fresh || (script->name == NULL && script->splitter.state == SPLIT_GAP &&
                       command_is_known(line)))) {
            const uint8_t *end = memchr(line.data, '\n', line.size);
            size_t size = end != NULL ? (size_t)(end - line.data) + 1 : line.size;
            if (fresh)
                begin_statement(script);
            run_command(script, slice_make(line.data, size));
            advance(script, slice_make(line.data, size));
            line = slice_make(line.data + size, line.size - size);
            continue;
        }
        bool complete;
        size_t taken = splitter_feed(&script->splitter, line, &complete);
        mem_append(&script->text, line.data, taken - (complete ? 1 : 0));
        advance(script, slice_make(line.data, taken));
        line = slice_make(line.data + taken, line.size - taken);
        if (complete) {
            run_gathered(script);
            begin_statement(script);
        }
    }
}

void script_finish(Script *script)
{
    if (!script->stopped) {
        /* A lone '-' at the very end is a word. */
        if (script->splitter.state == SPLIT_DASH)
            script->splitter.has_words = true;
        run_gathered(script);
    }
    script_reset(script);
}

void script_reset(Script *script)
{
    begin_statement(script);
}

bool script_is_pending(const Script *script)
{
    return script->splitter.has_words || script->splitter.state == SPLIT_DASH;
}

/* --- Whole inputs ----------------------------------------------------------------------------- */

Outcome script_run_text(Session *session, const char *name, Slice text)
{
    Script script;
    script_init(&script, session, name);
    /* A command takes its line only, so lines go in one by one here too. */
    while (text.size > 0 && !script.stopped) {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        size_t size = end != NULL ? (size_t)(end - text.data) + 1 : text.size;
        script_feed(&script, slice_make(text.data, size));
        text = slice_make(text.data + size, text.size - size);
    }
    script_finish(&script);
    Outcome worst = script.worst;
    script_deinit(&script);
    return worst;
}

Outcome script_run_file(Session *session, const char *path)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    if (file == NULL) {
        fprintf(stderr, "aidbsql: could not open %s: %s\n", path, strerror(errno));
        return OUTCOME_ERROR;
    }
    Script script;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    script_init(&script, session, is_stdin ? "stdin" : path);
    while (!script.stopped && (size = getline(&line, &capacity, file)) > 0)
        script_feed(&script, slice_make((const uint8_t *)line, (size_t)size));
    if (ferror(file)) {
        fprintf(stderr, "aidbsql: could not read %s: %s\n", path, strerror(errno));
        script.worst = outcome_worse(script.worst, OUTCOME_ERROR);
    } else {
        script_finish(&script);
    }
    free(line);
    if (!is_stdin)
        fclose(file);
    Outcome worst = script.worst;
    script_deinit(&script);
    return worst;
}
