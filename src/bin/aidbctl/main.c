/*
 * main.c - aidbctl: makes, starts, stops and looks at AiDb data directories.
 *
 * Finds the command, takes the data directory out of the arguments and runs the command's function.
 */
#include "config.h"

#include "bin/aidbctl/ctl.h"

#include "io/io.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const Command commands[] = {
    {"init", command_init, true, "[--port N] [--set NAME=VALUE]...",
     "make an empty database in DIR"},
    {"start", command_start, true, "[-t SECONDS]",
     "start a server on DIR and wait until it is ready"},
    {"stop", command_stop, true, "[-m smart|fast|immediate] [-t SECONDS]", "stop the server"},
    {"restart", command_restart, true, "[-m smart|fast|immediate] [-t SECONDS]",
     "stop and start, if the configuration is right"},
    {"reload", command_reload, true, "",
     "have the server read its configuration again, if it is right"},
    {"check-config", command_check_config, true, "", "check DIR/aidb.yaml"},
    {"status", command_status, true, "[--json]", "whether a server runs, and where"},
    {"top", command_top, true, "[-d SECONDS] [-n TIMES]", "what the server does, live"},
    {"logs", command_logs, true, "[-f] [-n LINES]", "the end of the server log"},
    {"flush", command_flush, true, "", "write memtables to tables"},
    {"compact", command_compact, true, "[--from KEY] [--to KEY]", "compact a range, or everything"},
    {"verify", command_verify, true, "", "read every file and check every checksum and invariant"},
    {"repair", command_repair, false, "DIR NEWDIR [--json]",
     "make NEWDIR from what can be read of a damaged DIR, and list what was lost"},
    {"dump-table", command_dump_table, false,
     "FILE [--hex] [--from KEY] [--to KEY] [--sequences] [--info]", "show the entries of a table"},
    {"dump-wal", command_dump_wal, true, "[--hex] [--from LSN] [--to LSN] [--sequences]",
     "show the operations in the log"},
    {"dump-manifest", command_dump_manifest, false, "-D DIR|FILE [--hex]",
     "show the edits of a manifest"},
#ifdef AIDB_FAILPOINTS
    {"failpoint", command_failpoint, true, "[NAME=ACTION]...", "show or set fail points (tests)"},
#endif
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

void ctl_error(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fputs("aidbctl: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

int ctl_failed(void)
{
    ctl_error("%s", status_text());
    return CTL_ERROR;
}

static void remove_items(Arguments *arguments, int at, int count)
{
    memmove(arguments->items + at, arguments->items + at + count,
            (size_t)(arguments->count - at - count) * sizeof arguments->items[0]);
    arguments->count -= count;
}

bool take_option(Arguments *arguments, const char *longer, const char *shorter, const char **value)
{
    *value = NULL;
    for (int i = 0; i < arguments->count; i++) {
        char *item = arguments->items[i];
        if (strcmp(item, "--") == 0)
            return false;
        size_t size = longer != NULL ? strlen(longer) : 0;
        if ((longer != NULL && strcmp(item, longer) == 0) ||
            (shorter != NULL && strcmp(item, shorter) == 0)) {
            bool has_value = i + 1 < arguments->count;
            *value = has_value ? arguments->items[i + 1] : NULL;
            remove_items(arguments, i, has_value ? 2 : 1);
            return true;
        }
        bool joined = longer != NULL && strncmp(item, longer, size) == 0 && item[size] == '=';
        bool glued =
            shorter != NULL && strncmp(item, shorter, 2) == 0 && item[1] != '-' && item[2] != '\0';
        if (joined || glued) {
            *value = item + (joined ? size + 1 : 2);
            remove_items(arguments, i, 1);
            return true;
        }
    }
    return false;
}

bool take_range(Arguments *arguments, const char **from, const char **to)
{
    static const char *const names[] = {"--from", "--to"};
    const char **values[] = {from, to};
    for (int i = 0; i < 2; i++) {
        if (take_option(arguments, names[i], NULL, values[i]) && *values[i] == NULL) {
            ctl_error("%s takes a value", names[i]);
            return false;
        }
    }
    return true;
}

bool take_flag(Arguments *arguments, const char *longer, const char *shorter)
{
    for (int i = 0; i < arguments->count; i++) {
        if ((longer != NULL && strcmp(arguments->items[i], longer) == 0) ||
            (shorter != NULL && strcmp(arguments->items[i], shorter) == 0)) {
            remove_items(arguments, i, 1);
            return true;
        }
    }
    return false;
}

int reject_rest(const Arguments *arguments, const char *command)
{
    if (arguments->count == 0)
        return CTL_OK;
    ctl_error("%s does not take \"%s\"\nhint: aidbctl %s --help tells what it takes.", command,
              arguments->items[0], command);
    return CTL_USAGE;
}

bool parse_number(const char *what, const char *text, long min, long max, long *number)
{
    char *end = NULL;
    errno = 0;
    *number = text != NULL ? strtol(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0 || *number < min ||
        *number > max) {
        ctl_error("%s must be a whole number from %ld to %ld, not \"%s\"", what, min, max,
                  text != NULL ? text : "");
        return false;
    }
    return true;
}

Status holder_read(const char *directory, Holder *holder)
{
    memset(holder, 0, sizeof *holder);
    Status status = pidfile_read(directory, &holder->info, &holder->held);
    if (status == AIDB_NOT_FOUND)
        return AIDB_OK;
    holder->server = holder->held && strcmp(holder->info.state, "embedded") != 0;
    return status;
}

const char *holder_uri(const Holder *holder)
{
    return holder->info.unix_uri[0] != '\0' ? holder->info.unix_uri : holder->info.tcp_uri;
}

Status load_config(const char *directory, Config *config)
{
    char *path = path_join(directory, CONFIG_FILE_NAME);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = config_load(path, config);
    free(path);
    return status;
}

char *log_path(const char *directory, const Config *config)
{
    if (config->server.log_file[0] == '/')
        return strdup(config->server.log_file);
    return path_join(directory, config->server.log_file);
}

int open_store(const char *directory, aidb **db)
{
    Holder holder;
    if (holder_read(directory, &holder) != AIDB_OK)
        return ctl_failed();
    const char *name =
        holder.server && holder_uri(&holder)[0] != '\0' ? holder_uri(&holder) : directory;
    static const aidb_option application[] = {{"application", "aidbctl"}, {NULL, NULL}};
    if (aidb_open(name, name == directory ? NULL : application, db) != AIDB_OK) {
        ctl_error("%s", aidb_error_message());
        return CTL_ERROR;
    }
    return CTL_OK;
}

/* ---- help ------------------------------------------------------------------------------------ */

static void print_help(void)
{
    printf("aidbctl makes, starts, stops and looks at AiDb data directories.\n\n"
           "usage: aidbctl COMMAND -D DIR [OPTION]...\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        printf("  %-14s %s\n", commands[i].name, commands[i].help);
    printf("\nDIR is given with -D or in $AIDB_DATA. aidbctl COMMAND --help tells a command's "
           "options.\n"
           "Exit codes: 0 done, 1 error, 2 usage; status: 3 stopped, 4 no such directory; "
           "repair: 5 something was lost.\n");
}

static void print_command_help(const Command *command)
{
    printf("usage: aidbctl %s%s%s%s\n\n%s\n", command->name,
           command->needs_directory ? " -D DIR" : "", command->usage[0] != '\0' ? " " : "",
           command->usage, command->help);
}

static const Command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

int main(int argc, char **argv)
{
    Arguments arguments = {.count = argc - 1, .items = argv + 1, .directory = getenv("AIDB_DATA")};
    const char *directory;
    if (take_option(&arguments, "--data", "-D", &directory)) {
        if (directory == NULL || directory[0] == '\0') {
            ctl_error("-D takes a directory");
            return CTL_USAGE;
        }
        arguments.directory = directory;
    }
    if (arguments.count == 0) {
        print_help();
        return argc > 1 ? CTL_USAGE : CTL_OK;
    }
    const char *name = arguments.items[0];
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("aidbctl %s\n", AIDB_VERSION);
        return CTL_OK;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return CTL_OK;
    }
    const Command *command = find_command(name);
    if (command == NULL) {
        ctl_error("there is no command \"%s\"\nhint: aidbctl --help lists the commands.", name);
        return CTL_USAGE;
    }
    arguments.items++;
    arguments.count--;
    if (take_flag(&arguments, "--help", "-h")) {
        print_command_help(command);
        return CTL_OK;
    }
    if (take_flag(&arguments, "--version", "-V")) {
        printf("aidbctl %s\n", AIDB_VERSION);
        return CTL_OK;
    }
    if (command->needs_directory &&
        (arguments.directory == NULL || arguments.directory[0] == '\0')) {
        ctl_error("which data directory?\nhint: Use -D DIR, or set AIDB_DATA.");
        return CTL_USAGE;
    }
    return command->run(&arguments);
}
