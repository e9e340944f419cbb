/*
 * main.c - aidbsql: statements for AiDb from the command line, a file, a pipe or a terminal.
 *
 * Exit codes: 0 done; 1 an error in a statement; 2 no connection, or it was lost; 3 wrong usage;
 * 4 a condition was not met (or, with --strict, a key was missing). With --continue the greatest
 * code counts.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdlib.h>
#include <unistd.h>

#include "bin/aidbsql/command.h"
#include "bin/aidbsql/interactive.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/script.h"

#define DEFAULT_HOST "127.0.0.1"
#define DEFAULT_PORT "7654"

#define EXIT_USAGE 3 /* the others are outcomes */

static const char usage[] =
    "aidbsql runs statements on an AiDb database.\n"
    "\n"
    "Usage: aidbsql [OPTION...] [URI | -h HOST -p PORT | -D DIR] [-- WORD...]\n"
    "\n"
    "Where:\n"
    "  URI                   aidb://HOST:PORT, aidb+unix:SOCKET, or a directory\n"
    "  -h, --host HOST       server to connect to (default " DEFAULT_HOST ")\n"
    "  -p, --port PORT       its port (default " DEFAULT_PORT ")\n"
    "  -D, --dir DIR         data directory: through its server when one runs, else directly\n"
    "                        Without any of these: $AIDB_URI, $AIDB_DATA, the default server.\n"
    "What:\n"
    "  -c, --command TEXT    run statements; may be repeated, also together with -f\n"
    "  -f, --file FILE       run the statements of a file; - is standard input\n"
    "                        Without these: standard input, or a conversation on a terminal.\n"
    "  -v, --set NAME=VALUE  a variable, used as :'NAME'\n"
    "  -- WORD...            what $1 ... $9 in statements stand for\n"
    "How:\n"
    "      --format FORMAT   text (default in a pipe), raw, csv, jsonl, aligned (on a terminal)\n"
    "  -0, --null            rows end with a null byte; --format raw unless another is given\n"
    "  -n, --no-newline      rows end with nothing; --format raw unless another is given\n"
    "      --header          names of columns come first\n"
    "  -o, --output FILE     results go to a file\n"
    "  -q, --quiet           no OK after writes and commands\n"
    "      --strict          a missing key ends the run with exit code 4\n"
    "      --continue        go on after errors; the worst exit code counts\n"
    "  -X, --no-rc           do not read ~/.aidbsqlrc (read in a conversation only)\n"
    "      --help            this text\n"
    "      --version         the version\n"
    "\n"
    "Statements end with a semicolon; the last one may go without. \\h lists them, \\? the "
    "commands.\n"
    "Exit code: 0 done, 1 error in a statement, 2 no connection, 3 usage, 4 condition not met.\n";

/* One -c or -f, in the order given. */
typedef struct Input {
    bool is_file;
    const char *text;
} Input;

typedef struct Options {
    const char *uri;
    const char *host;
    const char *port;
    const char *directory;
    Input *inputs;
    size_t input_count;
    const char *format;
    const char *output;
    bool null_ended;
    bool not_ended;
    bool header;
    bool quiet;
    bool strict;
    bool go_on;
    bool no_rc;
} Options;

static int __attribute__((format(printf, 1, 2))) wrong_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("aidbsql: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\nTry 'aidbsql --help'.\n", stderr);
    return EXIT_USAGE;
}

static bool set_variable(Session *session, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || equals == assignment)
        return false;
    char *name =
        mem_copy_bytes(slice_make((const uint8_t *)assignment, (size_t)(equals - assignment)));
    bool set = command_set_variable(session, name, equals + 1);
    free(name);
    return set;
}

static void add_input(Options *options, bool is_file, const char *text)
{
    options->inputs =
        mem_resize(options->inputs, (options->input_count + 1) * sizeof *options->inputs);
    options->inputs[options->input_count++] = (Input){.is_file = is_file, .text = text};
}

enum {
    OPTION_FORMAT = 256,
    OPTION_HEADER,
    OPTION_STRICT,
    OPTION_CONTINUE,
    OPTION_HELP,
    OPTION_VERSION
};

/* -1 to go on, or the exit code. */
static int parse_options(int argc, char **argv, Options *options, Session *session)
{
    static const struct option long_options[] = {
        {"command", required_argument, NULL, 'c'},
        {"file", required_argument, NULL, 'f'},
        {"dir", required_argument, NULL, 'D'},
        {"host", required_argument, NULL, 'h'},
        {"port", required_argument, NULL, 'p'},
        {"set", required_argument, NULL, 'v'},
        {"output", required_argument, NULL, 'o'},
        {"null", no_argument, NULL, '0'},
        {"no-newline", no_argument, NULL, 'n'},
        {"quiet", no_argument, NULL, 'q'},
        {"no-rc", no_argument, NULL, 'X'},
        {"format", required_argument, NULL, OPTION_FORMAT},
        {"header", no_argument, NULL, OPTION_HEADER},
        {"strict", no_argument, NULL, OPTION_STRICT},
        {"continue", no_argument, NULL, OPTION_CONTINUE},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    /* '-': other words come as option 1 and in their place, so that those behind `--` are told
     * from those before it. */
    while ((option = getopt_long(argc, argv, "-:c:f:D:h:p:v:o:0nqX", long_options, NULL)) != -1) {
        switch (option) {
        case 1:
            if (options->uri != NULL)
                return wrong_usage("unexpected word '%s': words for $1...$9 come behind --",
                                   optarg);
            options->uri = optarg;
            break;
        case 'c':
            add_input(options, false, optarg);
            break;
        case 'f':
            add_input(options, true, optarg);
            break;
        case 'D':
            options->directory = optarg;
            break;
        case 'h':
            options->host = optarg;
            break;
        case 'p':
            options->port = optarg;
            break;
        case 'v':
            if (!set_variable(session, optarg))
                return wrong_usage("'%s' is not NAME=VALUE, or not a value for that name", optarg);
            break;
        case 'o':
            options->output = optarg;
            break;
        case '0':
            options->null_ended = true;
            break;
        case 'n':
            options->not_ended = true;
            break;
        case 'q':
            options->quiet = true;
            break;
        case 'X':
            options->no_rc = true;
            break;
        case OPTION_FORMAT:
            options->format = optarg;
            break;
        case OPTION_HEADER:
            options->header = true;
            break;
        case OPTION_STRICT:
            options->strict = true;
            break;
        case OPTION_CONTINUE:
            options->go_on = true;
            break;
        case OPTION_HELP:
            fputs(usage, stdout);
            return OUTCOME_OK;
        case OPTION_VERSION:
            puts("aidbsql (AiDb) " AIDB_VERSION);
            return OUTCOME_OK;
        case ':':
            return wrong_usage("%s takes an argument", argv[optind - 1]);
        default:
            return wrong_usage("unknown option %s", argv[optind - 1]);
        }
    }
    session->parameters = argv + optind;
    session->parameter_count = (size_t)(argc - optind);
    if (session->parameter_count > 9)
        return wrong_usage("at most nine words can follow --, and '%s' is one more",
                           argv[optind + 9]);
    return -1;
}

static int apply_output(const Options *options, Output *output, bool screen)
{
    output->format = screen ? OUTPUT_ALIGNED : OUTPUT_TEXT;
    if (options->null_ended && options->not_ended)
        return wrong_usage("%s", "-0 and -n exclude each other");
    output->nul_ended = options->null_ended;
    output->not_ended = options->not_ended;
    if (options->null_ended || options->not_ended)
        output->format = OUTPUT_RAW;
    if (options->format != NULL && !output_parse_format(options->format, &output->format))
        return wrong_usage("'%s' is none of the formats text, raw, csv, jsonl and aligned",
                           options->format);
    if ((options->null_ended || options->not_ended) && output->format != OUTPUT_RAW &&
        output->format != OUTPUT_TEXT)
        return wrong_usage("-0 and -n go with the formats raw and text, not with %s",
                           options->format);
    if (options->header)
        output->header = TOGGLE_ON;
    return -1;
}

static bool is_port(const char *text)
{
    char *end;
    errno = 0;
    unsigned long port = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && port > 0 && port < 65536;
}

static int apply_target(const Options *options, Session *session)
{
    int ways = (options->uri != NULL) + (options->directory != NULL) +
               (options->host != NULL || options->port != NULL);
    const char *uri = getenv("AIDB_URI");
    const char *data = getenv("AIDB_DATA");
    if (ways > 1)
        return wrong_usage("%s", "only one of URI, -D, and -h with -p can be given");
    if (options->port != NULL && !is_port(options->port))
        return wrong_usage("'%s' is no port", options->port);
    if (options->uri != NULL) {
        if (*options->uri == '\0')
            return wrong_usage("%s", "the URI is empty");
        session_set_target(session, options->uri);
    } else if (options->directory != NULL) {
        if (*options->directory == '\0')
            return wrong_usage("%s", "the directory's name is empty");
        session_set_target(session, options->directory);
        session->target_is_directory = true;
    } else if (ways == 0 && uri != NULL && *uri != '\0') {
        session_set_target(session, uri);
    } else if (ways == 0 && data != NULL && *data != '\0') {
        session_set_target(session, data);
        session->target_is_directory = true;
    } else {
        const char *host = options->host != NULL ? options->host : DEFAULT_HOST;
        bool brackets = strchr(host, ':') != NULL && host[0] != '[';
        char *name = mem_format("aidb://%s%s%s:%s", brackets ? "[" : "", host, brackets ? "]" : "",
                                options->port != NULL ? options->port : DEFAULT_PORT);
        session_set_target(session, name);
        free(name);
    }
    return -1;
}

static int open_session(Session *session)
{
    aidb_status status = session_open(session);
    if (status == AIDB_OK)
        return -1;
    const char *message = aidb_error_message();
    fprintf(stderr, "aidbsql: %s\n", *message != '\0' ? message : status_name(status));
    return status == AIDB_INVALID && !session->target_is_directory ? EXIT_USAGE : OUTCOME_LOST;
}

static Outcome run_inputs(const Options *options, Session *session)
{
    Outcome worst = OUTCOME_OK;
    size_t commands = 0;
    size_t command = 0;
    for (size_t i = 0; i < options->input_count; i++)
        commands += !options->inputs[i].is_file;
    for (size_t i = 0; i < options->input_count && !session->quit; i++) {
        const Input *input = &options->inputs[i];
        Outcome outcome;
        if (input->is_file) {
            outcome = script_run_file(session, input->text);
        } else {
            char name[32] = "-c";
            command++;
            if (commands > 1)
                snprintf(name, sizeof name, "-c[%zu]", command);
            outcome = script_run_text(session, name, slice_from_string(input->text));
        }
        worst = outcome_worse(worst, outcome);
        if (session->lost || (outcome != OUTCOME_OK && session->stop_on_error))
            break;
    }
    return worst;
}

/* What is left to be said, and to be closed. */
static Outcome finish(Session *session, Outcome worst)
{
    if (session->batch != NULL) {
        /* An error that stopped the run has said enough. */
        if (worst == OUTCOME_OK || !session->stop_on_error)
            fputs("aidbsql: the input ended inside BEGIN: nothing of the batch was written\n",
                  stderr);
        worst = outcome_worse(worst, OUTCOME_ERROR);
    }
    bool lost = session->lost;
    if (session_close(session) != AIDB_OK && !lost) {
        fprintf(stderr, "aidbsql: %s\n", aidb_error_message());
        worst = outcome_worse(worst, OUTCOME_ERROR);
    }
    int error = output_flush(&session->output);
    output_redirect(&session->output, NULL);
    if (fflush(stdout) != 0 && error == 0)
        error = errno;
    if (error != 0) {
        fprintf(stderr, "aidbsql: could not write the result: %s\n", strerror(error));
        worst = outcome_worse(worst, OUTCOME_ERROR);
    }
    return worst;
}

static int run(const Options *options, Session *session)
{
    bool conversation = options->input_count == 0 && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    int code = apply_output(options, &session->output, isatty(STDOUT_FILENO));
    if (code < 0)
        code = apply_target(options, session);
    if (code >= 0)
        return code;
    session->quiet |= options->quiet;
    session->strict |= options->strict;
    if (session_variable(session, "ON_ERROR_STOP") == NULL)
        session->stop_on_error = !conversation && !options->go_on;
    session->output.pager = conversation;
    if (options->output != NULL && !output_redirect(&session->output, options->output)) {
        fprintf(stderr, "aidbsql: could not open %s: %s\n", options->output, strerror(errno));
        return OUTCOME_ERROR;
    }
    code = open_session(session);
    if (code >= 0)
        return code;
    Outcome worst;
    if (conversation)
        worst = interactive_run(session, !options->no_rc);
    else if (options->input_count == 0)
        worst = script_run_file(session, "-");
    else
        worst = run_inputs(options, session);
    return finish(session, worst);
}

int main(int argc, char **argv)
{
    Options options = {0};
    Session session;
    /* Only for the width of characters: numbers stay as they are everywhere. */
    if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    sql_session_init(&session);
    int code = parse_options(argc, argv, &options, &session);
    if (code < 0)
        code = run(&options, &session);
    sql_session_deinit(&session);
    free(options.inputs);
    return code;
}
