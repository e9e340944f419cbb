/*
 * control.c - aidbctl start, stop, restart, reload, status, logs.
 *
 * Whether a server runs is told by the lock on postmaster.pid alone; what it is by the file's text.
 * stop and status never read aidb.yaml, so that a broken one is in nobody's way.
 */
#include "config.h"

#include "bin/aidbctl/ctl.h"

#include "engine/db/db.h"
#include "io/io.h"
#include "port/port.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS      20
#define WAIT_SECONDS 60

static void nap(void)
{
    struct timespec time = {.tv_nsec = POLL_MS * 1000000L};
    nanosleep(&time, NULL);
}

static bool take_seconds(Arguments *arguments, long *seconds)
{
    const char *value;
    *seconds = WAIT_SECONDS;
    return !take_option(arguments, "--timeout", "-t", &value) ||
           parse_number("-t", value, 1, 86400, seconds);
}

/* ---- start ----------------------------------------------------------------------------------- */

/* The server program: beside this one, else what PATH finds. */
static char *server_program(void)
{
    char self[4096];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 8);
    if (size > 0) {
        self[size] = '\0';
        char *slash = strrchr(self, '/');
        if (slash != NULL) {
            memcpy(slash + 1, "aidb", 5);
            struct stat info;
            if (stat(self, &info) == 0 && S_ISREG(info.st_mode) && access(self, X_OK) == 0)
                return strdup(self);
            /* In a build tree each program has its folder. */
            *slash = '\0';
            char *parent = strrchr(self, '/');
            if (parent != NULL && parent + 16 < self + sizeof self) {
                memcpy(parent, "/aidb/aidb", 11);
                if (access(self, X_OK) == 0)
                    return strdup(self);
            }
        }
    }
    return strdup("aidb");
}

/* Says by itself what went wrong, and returns -1. */
static pid_t spawn(const char *program, const char *directory, const char *log)
{
    /* Not through a link, as the server opens it by itself. */
    int output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (output < 0) {
        ctl_error("could not open the server log \"%s\": %s", log,
                  errno == ELOOP ? "it is a symbolic link" : strerror(errno));
        return -1;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) {
        if (pid < 0)
            ctl_error("could not start a process: %s", strerror(errno));
        close(output);
        return pid;
    }
    setsid();
    int input = open("/dev/null", O_RDONLY);
    if (input < 0 || dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        _exit(127);
    /* Nor may the server keep open what the caller happened to have open: a pipe whose reader waits
     * for its end, a lock file, a terminal. */
    close_range(3, ~0U, 0);
    execlp(program, "aidb", "-D", directory, (char *)NULL);
    fprintf(stderr, "could not run %s: %s\n", program, strerror(errno));
    _exit(127);
}

/* Shows what the log gained since `from`: the errors in it, or else its end. */
static void show_log_since(const char *path, off_t from)
{
    FILE *file = fopen(path, "r");
    if (file == NULL || fseeko(file, from, SEEK_SET) != 0) {
        if (file != NULL)
            fclose(file);
        return;
    }
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, file) > 0)
        fprintf(stderr, "  %s", line);
    free(line);
    fclose(file);
}

static off_t size_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? info.st_size : 0;
}

static int wait_until_ready(const char *directory, pid_t pid, long seconds, Holder *holder)
{
    uint64_t end = port_monotonic_ns() + (uint64_t)seconds * 1000000000u;
    for (;;) {
        if (holder_read(directory, holder) == AIDB_OK && holder->server &&
            holder->info.pid == pid && strcmp(holder->info.state, "ready") == 0)
            return CTL_OK;
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            ctl_error("the server did not start");
            return CTL_ERROR;
        }
        if (port_monotonic_ns() > end) {
            ctl_error(
                "the server (process %ld) is not ready after %ld seconds; it goes on starting",
                (long)pid, seconds);
            return CTL_ERROR;
        }
        nap();
    }
}

static int start_server(const char *directory, long seconds)
{
    if (!db_exists(directory)) {
        ctl_error("there is no database in \"%s\"\nhint: aidbctl init -D %s makes one.", directory,
                  directory);
        return CTL_ERROR;
    }
    Holder holder;
    if (holder_read(directory, &holder) != AIDB_OK)
        return ctl_failed();
    if (holder.held) {
        ctl_error(holder.server ? "a server is already running on %s (process %d)"
                                : "%s is in use by process %d",
                  directory, holder.info.pid);
        return CTL_ERROR;
    }
    Config config;
    if (load_config(directory, &config) != AIDB_OK)
        return ctl_failed();
    char *program = server_program();
    char *log = log_path(directory, &config);
    int result = CTL_ERROR;
    if (program != NULL && log != NULL) {
        off_t before = size_of(log);
        pid_t pid = spawn(program, directory, log);
        if (pid > 0) {
            result = wait_until_ready(directory, pid, seconds, &holder);
            if (result != CTL_OK)
                show_log_since(log, before);
            else
                printf("server started: process %d, %s%s%s\n", holder.info.pid,
                       holder.info.unix_uri,
                       holder.info.unix_uri[0] != '\0' && holder.info.tcp_uri[0] != '\0' ? " and "
                                                                                         : "",
                       holder.info.tcp_uri);
        }
    }
    free(program);
    free(log);
    return result;
}

int command_start(Arguments *arguments)
{
    long seconds;
    if (!take_seconds(arguments, &seconds))
        return CTL_USAGE;
    int result = reject_rest(arguments, "start");
    return result != CTL_OK ? result : start_server(arguments->directory, seconds);
}

/* ---- stop ------------------------------------------------------------------------------------ */

static bool take_mode(Arguments *arguments, int *signal_number)
{
    const char *value;
    *signal_number = SIGINT;
    if (!take_option(arguments, "--mode", "-m", &value))
        return true;
    if (value != NULL && strcmp(value, "smart") == 0)
        *signal_number = SIGTERM;
    else if (value != NULL && strcmp(value, "fast") == 0)
        *signal_number = SIGINT;
    else if (value != NULL && strcmp(value, "immediate") == 0)
        *signal_number = SIGQUIT;
    else {
        ctl_error("-m is smart, fast or immediate, not \"%s\"", value != NULL ? value : "");
        return false;
    }
    return true;
}

static int signal_server(const char *directory, int signal_number, Holder *holder)
{
    if (holder_read(directory, holder) != AIDB_OK)
        return ctl_failed();
    if (!holder->server) {
        if (holder->held)
            ctl_error("%s is open in process %d, which is not a server", directory,
                      holder->info.pid);
        else
            ctl_error("no server runs on %s", directory);
        return CTL_ERROR;
    }
    if (holder->info.pid <= 1) {
        ctl_error("%s/postmaster.pid does not tell the server's process", directory);
        return CTL_ERROR;
    }
    if (kill(holder->info.pid, signal_number) != 0) {
        ctl_error("could not signal process %d: %s", holder->info.pid, strerror(errno));
        return CTL_ERROR;
    }
    return CTL_OK;
}

/* *clean: the server ended as it was asked to, rather than by a crash on its way. */
static int stop_server(const char *directory, int signal_number, long seconds, bool *clean)
{
    *clean = false;
    Holder holder;
    int result = signal_server(directory, signal_number, &holder);
    if (result != CTL_OK)
        return result;
    int pid = holder.info.pid;
    uint64_t end = port_monotonic_ns() + (uint64_t)seconds * 1000000000u;
    /* The lock goes with the last process of the server. */
    while (holder_read(directory, &holder) != AIDB_OK || holder.held) {
        if (port_monotonic_ns() > end) {
            ctl_error("the server (process %d) has not stopped after %ld seconds%s", pid, seconds,
                      signal_number == SIGTERM
                          ? "\nhint: A smart stop waits for clients to leave; -m fast does not."
                          : "");
            return CTL_ERROR;
        }
        nap();
    }
    /* Only a server that ended well removes its file. Looked at again, because the first look may have
     * opened the file just before that. */
    if (holder_read(directory, &holder) != AIDB_OK)
        return ctl_failed();
    *clean = holder.info.pid != pid;
    if (*clean)
        printf("server stopped\n");
    else
        ctl_error("the server (process %d) has ended, but without a clean stop\n"
                  "hint: The next start recovers from the log; `aidbctl logs` tells what happened.",
                  pid);
    return CTL_OK;
}

int command_stop(Arguments *arguments)
{
    long seconds;
    int signal_number;
    if (!take_seconds(arguments, &seconds) || !take_mode(arguments, &signal_number))
        return CTL_USAGE;
    int result = reject_rest(arguments, "stop");
    if (result != CTL_OK)
        return result;
    bool clean;
    result = stop_server(arguments->directory, signal_number, seconds, &clean);
    return result == CTL_OK && !clean ? CTL_ERROR : result;
}

/* A wrong file leaves a running server alone. */
static int check_before(const char *directory, Config *config)
{
    if (load_config(directory, config) != AIDB_OK) {
        ctl_error("%s\nhint: The server was left as it is.", status_message());
        return CTL_ERROR;
    }
    size_t size;
    if (db_region_size(&config->engine, config->server.max_connections + 8, &size) != AIDB_OK)
        return ctl_failed();
    return CTL_OK;
}

int command_restart(Arguments *arguments)
{
    long seconds;
    int signal_number;
    if (!take_seconds(arguments, &seconds) || !take_mode(arguments, &signal_number))
        return CTL_USAGE;
    Config config;
    int result = reject_rest(arguments, "restart");
    if (result == CTL_OK)
        result = check_before(arguments->directory, &config);
    if (result != CTL_OK)
        return result;
    Holder holder;
    if (holder_read(arguments->directory, &holder) != AIDB_OK)
        return ctl_failed();
    bool clean;
    if (holder.held)
        result = stop_server(arguments->directory, signal_number, seconds, &clean);
    return result != CTL_OK ? result : start_server(arguments->directory, seconds);
}

int command_reload(Arguments *arguments)
{
    Config config;
    Holder holder;
    int result = reject_rest(arguments, "reload");
    if (result == CTL_OK)
        result = check_before(arguments->directory, &config);
    if (result == CTL_OK)
        result = signal_server(arguments->directory, SIGHUP, &holder);
    if (result == CTL_OK)
        printf("server told to read its configuration again; its log says what changed\n");
    return result;
}

/* ---- status and logs ------------------------------------------------------------------------- */

void print_json_string(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned char)*text);
        else
            putchar(*text);
    }
    putchar('"');
}

/* Since when the holder runs, 0 when the clock was set back since. */
static uint64_t uptime_seconds(const Holder *holder)
{
    uint64_t now = port_realtime_us() / 1000000u;
    return holder->held && now > holder->info.started ? now - holder->info.started : 0;
}

static void print_status_json(const char *directory, const Holder *holder, const char *state)
{
    bool held = holder->held;
    printf("{\"state\": ");
    print_json_string(state);
    printf(", \"pid\": %d, \"uri\": ", held ? holder->info.pid : 0);
    print_json_string(held ? holder_uri(holder) : "");
    printf(", \"unix_uri\": ");
    print_json_string(held ? holder->info.unix_uri : "");
    printf(", \"tcp_uri\": ");
    print_json_string(held ? holder->info.tcp_uri : "");
    printf(", \"version\": ");
    print_json_string(held && holder->info.version[0] != '\0' ? holder->info.version
                                                              : AIDB_VERSION);
    printf(", \"uptime_seconds\": %llu, \"crash_restarts\": %u, \"data_directory\": ",
           (unsigned long long)uptime_seconds(holder), held ? holder->info.crash_restarts : 0);
    print_json_string(directory);
    printf("}\n");
}

int command_status(Arguments *arguments)
{
    bool json = take_flag(arguments, "--json", "-j");
    int result = reject_rest(arguments, "status");
    if (result != CTL_OK)
        return result;
    const char *directory = arguments->directory;
    if (!db_exists(directory)) {
        ctl_error("there is no database in \"%s\"", directory);
        return CTL_NO_DIRECTORY;
    }
    Holder holder;
    if (holder_read(directory, &holder) != AIDB_OK)
        return ctl_failed();
    const char *state = !holder.held ? "stopped" : !holder.server ? "embedded" : holder.info.state;
    if (json)
        print_status_json(directory, &holder, state);
    else if (holder.server)
        printf("%s: process %d, %s%s%s, version %s, up %llu seconds, %u restart%s after crashes\n",
               state, holder.info.pid, holder.info.unix_uri,
               holder.info.unix_uri[0] != '\0' && holder.info.tcp_uri[0] != '\0' ? ", " : "",
               holder.info.tcp_uri, holder.info.version,
               (unsigned long long)uptime_seconds(&holder), holder.info.crash_restarts,
               holder.info.crash_restarts == 1 ? "" : "s");
    else if (holder.held)
        printf("no server: %s is open in process %d\n", directory, holder.info.pid);
    else
        printf("stopped\n");
    return holder.server ? CTL_OK : CTL_STOPPED;
}

/* Moves to where the last `lines` lines begin. */
static void seek_lines(FILE *file, long lines)
{
    fseeko(file, 0, SEEK_END);
    off_t at = ftello(file);
    long found = 0;
    while (at > 0) {
        fseeko(file, --at, SEEK_SET);
        if (fgetc(file) == '\n' && ++found > lines)
            return;
    }
    fseeko(file, 0, SEEK_SET);
}

int command_logs(Arguments *arguments)
{
    bool follow = take_flag(arguments, "--follow", "-f");
    long lines = 20;
    const char *value;
    if (take_option(arguments, "--lines", "-n", &value) &&
        !parse_number("-n", value, 0, 1000000, &lines))
        return CTL_USAGE;
    int result = reject_rest(arguments, "logs");
    if (result != CTL_OK)
        return result;
    Config config;
    if (load_config(arguments->directory, &config) != AIDB_OK)
        config_init(&config); /* the log is wanted most when the file is wrong */
    char *path = log_path(arguments->directory, &config);
    FILE *file = path != NULL ? fopen(path, "r") : NULL;
    if (file == NULL) {
        ctl_error("could not open the log %s: %s", path != NULL ? path : "", strerror(errno));
        free(path);
        return CTL_ERROR;
    }
    seek_lines(file, lines);
    for (;;) {
        char bytes[8192];
        size_t got;
        while ((got = fread(bytes, 1, sizeof bytes, file)) > 0)
            fwrite(bytes, 1, got, stdout);
        fflush(stdout);
        if (!follow || ferror(stdout))
            break;
        nap();
        /* A rotated log: go on in the new file. */
        struct stat named, opened;
        if (stat(path, &named) == 0 && fstat(fileno(file), &opened) == 0 &&
            named.st_ino != opened.st_ino) {
            FILE *next = fopen(path, "r");
            if (next != NULL) {
                fclose(file);
                file = next;
            }
        }
        clearerr(file);
    }
    fclose(file);
    free(path);
    return CTL_OK;
}
