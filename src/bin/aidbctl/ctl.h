/*
 * ctl.h - what the parts of aidbctl share: arguments, exit codes, the data directory's state.
 *
 * Each command is a function that gets the arguments behind its name and returns an exit code. All
 * output for people goes through printf; errors through ctl_error, with the program's name.
 */
#ifndef AIDB_BIN_AIDBCTL_CTL_H
#define AIDB_BIN_AIDBCTL_CTL_H

#include "common/slice.h"
#include "common/status.h"
#include "config/pidfile.h"
#include "config/settings.h"

#include <aidb.h>

/* Exit codes; aidbctl.1 documents them. */
enum {
    CTL_OK = 0,
    CTL_ERROR = 1,
    CTL_USAGE = 2,
    CTL_STOPPED = 3,
    CTL_NO_DIRECTORY = 4,
    CTL_LOSSES = 5
};

typedef struct Arguments {
    int count;
    char **items;
    const char *directory; /* -D or $AIDB_DATA; NULL when neither is given */
} Arguments;

typedef struct Command {
    const char *name;
    int (*run)(Arguments *arguments);
    bool needs_directory;
    const char *usage; /* behind the name */
    const char *help;
} Command;

/* Takes an option out of the arguments: "--name VALUE", "--name=VALUE" or the short form "-n VALUE".
 * False when it is not there; *value is NULL when it stands last without a value. */
bool take_option(Arguments *arguments, const char *longer, const char *shorter, const char **value);
/* Takes --from and --to; NULL for what is not there. Complains about one without its value. */
bool take_range(Arguments *arguments, const char **from, const char **to);
/* Takes a flag out of the arguments. */
bool take_flag(Arguments *arguments, const char *longer, const char *shorter);
/* Complains about what is left over; CTL_USAGE if anything is. */
int reject_rest(const Arguments *arguments, const char *command);
/* A whole number in [min, max]; complains otherwise. */
bool parse_number(const char *what, const char *text, long min, long max, long *number);

void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints the error record of the last failed call and returns CTL_ERROR. */
int ctl_failed(void);

/* Who has the directory. `held`: somebody holds the lock; `server`: and that is a server. */
typedef struct Holder {
    PidInfo info;
    bool held;
    bool server;
} Holder;
Status holder_read(const char *directory, Holder *holder) MUST_CHECK;
/* Where to connect: the unix socket, else TCP. "" when there is neither. */
const char *holder_uri(const Holder *holder);

/* The directory's configuration file; the path is for messages. */
Status load_config(const char *directory, Config *config) MUST_CHECK;
/* Where a server started by aidbctl logs (heap): the configuration's log file. */
char *log_path(const char *directory, const Config *config);

/* Opens the store: through its server when one runs, else the directory itself. */
int open_store(const char *directory, aidb **db);

/* Makes an empty data directory with its parents, or takes an empty one. */
int make_directory(const char *directory);
/* Bytes as text with \xHH for what is not printable ASCII, or all as hex. */
void print_bytes(Slice bytes, bool hex);
void print_json_string(const char *text);

int command_init(Arguments *arguments);
int command_start(Arguments *arguments);
int command_stop(Arguments *arguments);
int command_restart(Arguments *arguments);
int command_reload(Arguments *arguments);
int command_check_config(Arguments *arguments);
int command_status(Arguments *arguments);
int command_top(Arguments *arguments);
int command_logs(Arguments *arguments);
int command_flush(Arguments *arguments);
int command_compact(Arguments *arguments);
int command_verify(Arguments *arguments);
int command_repair(Arguments *arguments);
int command_dump_table(Arguments *arguments);
int command_dump_wal(Arguments *arguments);
int command_dump_manifest(Arguments *arguments);
int command_failpoint(Arguments *arguments); /* builds with --enable-failpoints */

#endif
