#include "config.h"
#include "bin/aidbsql/command.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "bin/aidbsql/copy.h"
#include "bin/aidbsql/interrupt.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/parser.h"

#define INCLUDE_DEPTH_MAX 16

const CommandHelp command_help[] = {
    {"?", "\\?", "this list"},
    {"h", "\\h [STATEMENT]", "statements, and how one is written"},
    {"q", "\\q", "ends the session"},
    {"c", "\\c [URI | DIRECTORY]", "connects anew, or to something else"},
    {"conninfo", "\\conninfo", "what this session is connected to"},
    {"copy", "\\copy from FILE [csv|tsv|jsonl] [header]", "writes the rows of a file"},
    {"copy", "\\copy [PREFIX p | FROM a TO b] to FILE [csv|tsv|jsonl] [header]",
     "writes keys and values to a file"},
    {"echo", "\\echo WORD...", "prints words"},
    {"i", "\\i FILE", "runs the statements of a file"},
    {"o", "\\o [FILE | |COMMAND]", "sends results to a file or command, or back here"},
    {"pset", "\\pset [NAME [VALUE]]",
     "output: format, expanded, header, footer, pager, terminator"},
    {"r", "\\r", "forgets the statement typed so far"},
    {"set", "\\set [NAME [VALUE]]",
     "sets a variable, used as :'NAME'; STRICT, QUIET and "
     "ON_ERROR_STOP are on or off"},
    {"timing", "\\timing [on|off]", "shows how long each statement took"},
    {"unset", "\\unset NAME", "removes a variable"},
    {"watch", "\\watch [SECONDS] [TIMES]", "repeats the last statement"},
    {"x", "\\x [on|off]", "a line for each cell"},
    {NULL, NULL, NULL},
};

const char *const pset_names[] = {"format", "expanded",   "header", "footer",
                                  "pager",  "terminator", NULL};

/* A command under way. args[0] is its name. */
typedef struct Command {
    Script *script;
    Session *session;
    const TokenList *args;
    Diagnostic *diagnostic;
} Command;

static Outcome fail_word(Command *command, size_t at, const char *message)
{
    const TokenList *args = command->args;
    if (at >= args->count) {
        const Token *last = &args->items[args->count - 1];
        diagnostic_set(command->diagnostic, last->offset + last->length, 0, "%s", message);
    } else {
        diagnostic_set(command->diagnostic, args->items[at].offset, args->items[at].length, "%s",
                       message);
    }
    return OUTCOME_ERROR;
}

/* A word as a string; the caller frees it. */
static char *word_at(const Command *command, size_t at)
{
    return at < command->args->count ? mem_copy_bytes(command->args->items[at].bytes) : NULL;
}

static bool word_is(const Command *command, size_t at, const char *text)
{
    const TokenList *args = command->args;
    return at < args->count && slice_equal(args->items[at].bytes, slice_from_string(text));
}

static bool parse_bool(const char *text, bool *value)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *value = i % 2 == 1;
            return true;
        }
    }
    return false;
}

/* --- Settings --------------------------------------------------------------------------------- */

/* Turns a setting around, or sets it when a word says how. */
static Outcome toggle(Command *command, size_t at, bool *setting, const char *label)
{
    char *word = word_at(command, at);
    bool value = !*setting;
    bool valid = word == NULL || parse_bool(word, &value);
    free(word);
    if (!valid)
        return fail_word(command, at, "on or off was expected");
    *setting = value;
    if (command->session->interactive && !command->session->quiet)
        printf("%s is %s.\n", label, value ? "on" : "off");
    return OUTCOME_OK;
}

static Outcome run_timing(Command *command)
{
    return toggle(command, 1, &command->session->timing, "Timing");
}

static Outcome run_expanded(Command *command)
{
    Output *output = &command->session->output;
    Outcome outcome = toggle(command, 1, &output->expanded, "Expanded display");
    if (outcome == OUTCOME_OK && output->expanded)
        output->format = OUTPUT_ALIGNED;
    return outcome;
}

static const char *toggle_name(Toggle value)
{
    return value == TOGGLE_ON ? "on" : value == TOGGLE_OFF ? "off" : "auto";
}

static Outcome list_pset(Command *command)
{
    const Output *output = &command->session->output;
    Buffer text = {0};
    mem_append_format(&text, "format\t%s\n", output_format_name(output->format));
    mem_append_format(&text, "expanded\t%s\n", output->expanded ? "on" : "off");
    mem_append_format(&text, "header\t%s\n", toggle_name(output->header));
    mem_append_format(&text, "footer\t%s\n", toggle_name(output->footer));
    mem_append_format(&text, "pager\t%s\n", output->pager ? "on" : "off");
    mem_append_format(&text, "terminator\t%s",
                      output->not_ended   ? "none"
                      : output->nul_ended ? "nul"
                                          : "newline");
    output_message(&command->session->output, mem_string(&text));
    buffer_deinit(&text);
    return OUTCOME_OK;
}

static Outcome pset_toggle(Command *command, Toggle *setting)
{
    bool value;
    char *word = word_at(command, 2);
    bool automatic = word != NULL && strcasecmp(word, "auto") == 0;
    bool valid = automatic || (word != NULL && parse_bool(word, &value));
    free(word);
    if (!valid)
        return fail_word(command, 2, "on, off or auto was expected");
    *setting = automatic ? TOGGLE_AUTO : value ? TOGGLE_ON : TOGGLE_OFF;
    return OUTCOME_OK;
}

static Outcome run_pset(Command *command)
{
    Output *output = &command->session->output;
    if (command->args->count == 1)
        return list_pset(command);
    if (word_is(command, 1, "format")) {
        char *word = word_at(command, 2);
        bool valid = word != NULL && output_parse_format(word, &output->format);
        free(word);
        return valid ? OUTCOME_OK
                     : fail_word(command, 2, "text, raw, csv, jsonl or aligned was expected");
    }
    if (word_is(command, 1, "expanded"))
        return toggle(command, 2, &output->expanded, "Expanded display");
    if (word_is(command, 1, "header"))
        return pset_toggle(command, &output->header);
    if (word_is(command, 1, "footer"))
        return pset_toggle(command, &output->footer);
    if (word_is(command, 1, "pager"))
        return toggle(command, 2, &output->pager, "Pager");
    if (!word_is(command, 1, "terminator"))
        return fail_word(command, 1,
                         "format, expanded, header, footer, pager or terminator was "
                         "expected");
    if (!word_is(command, 2, "newline") && !word_is(command, 2, "nul") &&
        !word_is(command, 2, "none"))
        return fail_word(command, 2, "newline, nul or none was expected");
    output->nul_ended = word_is(command, 2, "nul");
    output->not_ended = word_is(command, 2, "none");
    return OUTCOME_OK;
}

/* The setting that a variable of this name stands for, if any. */
static bool *special_variable(Session *session, const char *name)
{
    if (strcmp(name, "STRICT") == 0)
        return &session->strict;
    if (strcmp(name, "QUIET") == 0)
        return &session->quiet;
    if (strcmp(name, "ON_ERROR_STOP") == 0)
        return &session->stop_on_error;
    return NULL;
}

bool command_set_variable(Session *session, const char *name, const char *value)
{
    bool *setting = special_variable(session, name);
    if (setting != NULL && !parse_bool(value, setting))
        return false;
    session_set_variable(session, name, value);
    return true;
}

static Outcome run_set(Command *command)
{
    Session *session = command->session;
    if (command->args->count == 1) {
        for (size_t i = 0; i < session->variable_count; i++) {
            char *line =
                mem_format("%s = '%s'", session->variables[i].name, session->variables[i].value);
            output_message(&session->output, line);
            free(line);
        }
        return OUTCOME_OK;
    }
    if (command->args->count > 3)
        return fail_word(command, 3, "one value was expected; quote it when it has spaces");
    Slice bytes = command->args->count == 3 ? command->args->items[2].bytes : (Slice){0};
    if (bytes.size > 0 && memchr(bytes.data, '\0', bytes.size) != NULL)
        return fail_word(command, 2, "a variable cannot hold a null byte");
    char *name = word_at(command, 1);
    char *value = mem_copy_bytes(bytes);
    bool set = command_set_variable(session, name, value);
    free(name);
    free(value);
    return set ? OUTCOME_OK : fail_word(command, 2, "on or off was expected");
}

static Outcome run_unset(Command *command)
{
    char *name = word_at(command, 1);
    if (name == NULL)
        return fail_word(command, 1, "the name of a variable is missing");
    bool *setting = special_variable(command->session, name);
    if (setting != NULL)
        *setting = false;
    session_set_variable(command->session, name, NULL);
    free(name);
    return OUTCOME_OK;
}

/* --- Help ------------------------------------------------------------------------------------- */

/* Long help goes through the pager where there is one. */
static void print_help(Command *command, Buffer *text)
{
    Output *output = &command->session->output;
    FILE *page = NULL;
    if (output->pager && isatty(STDOUT_FILENO))
        page = output_open_pager();
    FILE *file = page != NULL ? page : output->file;
    fwrite(text->data, 1, text->size, file);
    if (page != NULL)
        output_close_pager(page);
    buffer_deinit(text);
}

static Outcome run_commands_help(Command *command)
{
    Buffer text = {0};
    for (const CommandHelp *help = command_help; help->name != NULL; help++)
        mem_append_format(&text, "  %-48s %s\n", help->syntax, help->text);
    mem_append_string(&text, "\nAnything else is a statement and ends with a semicolon; \\h lists "
                             "them.\n");
    print_help(command, &text);
    return OUTCOME_OK;
}

static Outcome run_statement_help(Command *command)
{
    Buffer text = {0};
    bool all = command->args->count == 1;
    for (const StatementHelp *help = statement_help; help->name != NULL; help++) {
        if (all)
            mem_append_format(&text, "  %-10s %s\n", help->name, help->text);
        else if (token_is(&command->args->items[1], help->name))
            mem_append_format(&text, "%s: %s\n\n%s\n", help->name, help->text, help->syntax);
    }
    if (text.size == 0)
        return fail_word(command, 1, "there is no such statement");
    if (all)
        mem_append_string(&text, "\n\\h STATEMENT shows how one is written.\n");
    print_help(command, &text);
    return OUTCOME_OK;
}

/* --- Connections ------------------------------------------------------------------------------ */

static Outcome run_conninfo(Command *command)
{
    Session *session = command->session;
    if (session->db == NULL) {
        output_message(&session->output, "Not connected.");
        return OUTCOME_OK;
    }
    char *version = NULL;
    if (aidb_property(session->db, "version", &version) != AIDB_OK)
        version = NULL;
    char *line = mem_format(
        session->embedded ? "Using %s in this process%s%s." : "Connected to %s%s%s.",
        session->address, version != NULL ? ", version " : "", version != NULL ? version : "");
    line[strcspn(line, "\n")] = '\0';
    output_message(&session->output, line);
    free(line);
    aidb_free(version);
    return OUTCOME_OK;
}

static Outcome run_connect(Command *command)
{
    Session *session = command->session;
    if (session->batch != NULL)
        return fail_word(command, 0, "a batch is open: COMMIT or ROLLBACK it first");
    char *old_target = mem_copy_string(session->target);
    char *target = word_at(command, 1);
    bool had = session->db != NULL;
    session_close(session);
    session->server_only = false;
    if (target != NULL)
        session_set_target(session, target);
    aidb_status status = session_open(session);
    Outcome outcome = OUTCOME_OK;
    if (status == AIDB_OK) {
        if (session->interactive && !session->quiet)
            run_conninfo(command);
    } else {
        const Token *place = &command->args->items[target != NULL ? 1 : 0];
        session_explain(command->diagnostic, status, place->offset, place->length);
        outcome = OUTCOME_LOST;
        /* Somebody at a terminal keeps what worked before. */
        if (session->interactive && target != NULL && had) {
            session_set_target(session, old_target);
            if (session_open(session) == AIDB_OK)
                diagnostic_hint(command->diagnostic, "Still connected to %s.", session->address);
        }
    }
    free(target);
    free(old_target);
    return outcome;
}

/* --- The rest --------------------------------------------------------------------------------- */

static Outcome run_quit(Command *command)
{
    command->session->quit = true;
    return OUTCOME_OK;
}

static Outcome run_reset(Command *command)
{
    script_reset(command->script);
    return OUTCOME_OK;
}

static Outcome run_echo(Command *command)
{
    Buffer text = {0};
    for (size_t i = 1; i < command->args->count; i++) {
        const Token *token = &command->args->items[i];
        if (i > 1 && token->offset > token[-1].offset + token[-1].length)
            mem_append_byte(&text, ' ');
        mem_append(&text, token->bytes.data, token->bytes.size);
    }
    output_message(&command->session->output, mem_string(&text));
    buffer_deinit(&text);
    return OUTCOME_OK;
}

static Outcome run_include(Command *command)
{
    Session *session = command->session;
    char *path = word_at(command, 1);
    if (path == NULL)
        return fail_word(command, 1, "the name of a file is missing");
    Outcome outcome;
    if (session->depth >= INCLUDE_DEPTH_MAX) {
        outcome = fail_word(command, 0, "files include each other too deeply");
    } else if (access(path, R_OK) != 0) {
        const Token *token = &command->args->items[1];
        diagnostic_set(command->diagnostic, token->offset, token->length, "could not open %s: %s",
                       path, strerror(errno));
        outcome = OUTCOME_ERROR;
    } else {
        session->depth++;
        outcome = script_run_file(session, path);
        session->depth--;
    }
    free(path);
    return outcome;
}

static Outcome redirect(Session *session, const char *name, size_t offset, size_t length,
                        Diagnostic *diagnostic)
{
    if (output_redirect(&session->output, name))
        return OUTCOME_OK;
    diagnostic_set(diagnostic, offset, length, "could not open %s: %s", name, strerror(errno));
    return OUTCOME_ERROR;
}

static Outcome run_output(Command *command)
{
    char *name = word_at(command, 1);
    const Token *token = &command->args->items[name != NULL ? 1 : 0];
    Outcome outcome =
        redirect(command->session, name, token->offset, token->length, command->diagnostic);
    free(name);
    return outcome;
}

/* A command of the shell has quoting rules of its own: it is the rest of the line as it stands. */
static Outcome run_output_command(Session *session, Slice line, size_t offset,
                                  Diagnostic *diagnostic)
{
    char *name = mem_copy_bytes(slice_make(line.data + offset, line.size - offset));
    Outcome outcome = redirect(session, name, offset, line.size - offset, diagnostic);
    free(name);
    return outcome;
}

static Outcome run_copy(Command *command)
{
    return copy_run(command->session, command->args, command->diagnostic);
}

/* Sleeps unless Ctrl-C ends it. */
static void pause_seconds(double seconds)
{
    double whole;
    double part = modf(seconds, &whole);
    struct timespec left = {.tv_sec = (time_t)whole, .tv_nsec = (long)(part * 1e9)};
    while (!interrupt_pending() && nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

static Outcome run_watch(Command *command)
{
    Session *session = command->session;
    double seconds = 2;
    uint64_t times = 0;
    if (session->last_statement.size == 0)
        return fail_word(command, 0, "there is no statement to repeat");
    char *word = word_at(command, 1);
    if (word != NULL) {
        char *end;
        seconds = strtod(word, &end);
        bool valid = end != word && *end == '\0' && seconds >= 0 && seconds <= 1e6;
        free(word);
        if (!valid)
            return fail_word(command, 1, "a number of seconds was expected");
    }
    if (command->args->count > 2 && (!token_number(&command->args->items[2], &times) || times == 0))
        return fail_word(command, 2, "how many times was expected");

    /* A copy: what runs may change the session's. */
    Buffer statement = {0};
    mem_append(&statement, session->last_statement.data, session->last_statement.size);
    bool pager = session->output.pager;
    session->output.pager = false;
    Outcome outcome = OUTCOME_OK;
    for (uint64_t run = 1; outcome == OUTCOME_OK && !interrupt_pending(); run++) {
        if (isatty(STDOUT_FILENO)) {
            char stamp[64];
            time_t now = time(NULL);
            struct tm local;
            localtime_r(&now, &local);
            strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &local);
            printf("%s (every %g s)\n", stamp, seconds);
        }
        outcome = script_run_statement(command->script, buffer_slice(&statement));
        if (times != 0 && run >= times)
            break;
        pause_seconds(seconds);
    }
    session->output.pager = pager;
    buffer_deinit(&statement);
    return outcome;
}

static const struct {
    const char *name;
    size_t words_max; /* behind the name */
    Outcome (*run)(Command *command);
} commands[] = {
    {"?", 0, run_commands_help},  {"h", 1, run_statement_help},  {"help", 1, run_statement_help},
    {"q", 0, run_quit},           {"quit", 0, run_quit},         {"c", 1, run_connect},
    {"connect", 1, run_connect},  {"conninfo", 0, run_conninfo}, {"copy", SIZE_MAX, run_copy},
    {"echo", SIZE_MAX, run_echo}, {"i", 1, run_include},         {"include", 1, run_include},
    {"o", 1, run_output},         {"out", 1, run_output},        {"pset", 2, run_pset},
    {"r", 0, run_reset},          {"reset", 0, run_reset},       {"set", SIZE_MAX, run_set},
    {"timing", 1, run_timing},    {"unset", 1, run_unset},       {"watch", 2, run_watch},
    {"x", 1, run_expanded},
};

#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

/* The name at the start of a line, without the backslash. */
static Slice name_of(Slice line)
{
    size_t size = 1;
    while (size < line.size && !memchr(" \t\r\n\v\f;", line.data[size], 7))
        size++;
    return slice_make(line.data + 1, size - 1);
}

static size_t find_command(Slice name)
{
    size_t i = 0;
    while (i < COMMAND_COUNT && !slice_equal(name, slice_from_string(commands[i].name)))
        i++;
    return i;
}

bool command_is_known(Slice line)
{
    return find_command(name_of(line)) < COMMAND_COUNT;
}

static const char *find_variable(void *arg, const char *name)
{
    return session_variable(arg, name);
}

Outcome command_run(Script *script, Slice line, Diagnostic *diagnostic)
{
    Slice name = name_of(line);
    size_t index = find_command(name);
    if (index == COMMAND_COUNT) {
        diagnostic_set(diagnostic, 0, name.size + 1, "unknown command");
        diagnostic_hint(diagnostic, "\\? lists the commands.");
        return OUTCOME_ERROR;
    }
    Session *session = script->session;
    size_t rest = name.size + 1;
    while (rest < line.size && (line.data[rest] == ' ' || line.data[rest] == '\t'))
        rest++;
    if (commands[index].run == run_output && rest < line.size && line.data[rest] == '|')
        return run_output_command(session, line, rest, diagnostic);
    LexerData data = {.parameters = session->parameters,
                      .parameter_count = session->parameter_count,
                      .variable = find_variable,
                      .arg = session};
    TokenList args = {0};
    Outcome outcome = OUTCOME_ERROR;
    if (lexer_tokenize(line, &data, &args, diagnostic)) {
        Command command = {
            .script = script, .session = session, .args = &args, .diagnostic = diagnostic};
        if (args.count - 1 > commands[index].words_max)
            outcome = fail_word(&command, commands[index].words_max + 1, "unexpected word");
        else
            outcome = commands[index].run(&command);
    }
    token_list_deinit(&args);
    return outcome;
}
