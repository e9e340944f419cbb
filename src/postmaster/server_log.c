/*
 * server_log.c - the sink of the server log.
 *
 * The sink is a process's own: its state is set up in the postmaster and inherited by children. It
 * takes no memory and no lock, so it works when memory is short.
 */
#include "config.h"
#include "postmaster/server_log.h"

#include "common/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 8192 /* a message has at most 2 KiB; JSON may need up to six bytes for one */

static struct {
    int fd; /* 2 is standard error */
    LogFormat format;
    const char *process;
    char path[1400]; /* empty: standard error */
    atomic_int reopen;
} sink = {.fd = STDERR_FILENO, .process = "postmaster"};

static const char *level_name(LogLevel level)
{
    static const char *const NAMES[] = {"debug", "info", "warning", "error", "fatal"};
    return NAMES[level];
}

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void reopen_file(void)
{
    if (sink.path[0] == '\0')
        return;
    int fd = open_file(sink.path);
    if (fd < 0)
        return; /* lines go on to the file that is open */
    /* In one step: another thread may be writing to it. */
    dup3(fd, sink.fd, O_CLOEXEC);
    close(fd);
}

/* Bytes of a well-formed UTF-8 sequence at `at`, 0 when it is none. */
static size_t utf8_size(const unsigned char *at)
{
    size_t size = at[0] < 0x80                    ? 1
                  : at[0] >= 0xc2 && at[0] < 0xe0 ? 2
                  : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
                  : at[0] >= 0xf0 && at[0] < 0xf5 ? 4
                                                  : 0;
    for (size_t i = 1; i < size; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0; /* also at the end of the text */
    return size;
}

/* Appends `text` as the inside of a JSON string. */
static size_t append_json(char *line, size_t used, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text;
         *at != '\0' && used < LINE_SIZE - 16;) {
        size_t size = utf8_size(at);
        if (*at == '"' || *at == '\\') {
            line[used++] = '\\';
            line[used++] = (char)*at++;
        } else if (*at < ' ' || size == 0) {
            used += (size_t)snprintf(line + used, LINE_SIZE - used, "\\u%04x",
                                     size == 0 ? 0xfffd : *at);
            at++;
        } else {
            memcpy(line + used, at, size);
            used += size;
            at += size;
        }
    }
    return used;
}

static void write_line(LogLevel level, const char *message)
{
    if (atomic_exchange(&sink.reopen, 0) != 0)
        reopen_file();
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    char line[LINE_SIZE], stamp[32];
    size_t used;
    if (sink.format == LOG_JSON) {
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
        used = (size_t)snprintf(
            line, sizeof line,
            "{\"time\":\"%s.%03ldZ\",\"pid\":%d,\"process\":\"%s\",\"level\":\"%s\",\"message\":\"",
            stamp, now.tv_nsec / 1000000, (int)getpid(), sink.process, level_name(level));
        used = append_json(line, used, message);
        line[used++] = '"';
        line[used++] = '}';
    } else {
        strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &utc);
        used = (size_t)snprintf(line, sizeof line, "%s.%03ld UTC [%d] %s: %s: %s", stamp,
                                now.tv_nsec / 1000000, (int)getpid(), sink.process,
                                level_name(level), message);
        if (used > sizeof line - 2)
            used = sizeof line - 2;
        for (size_t i = 0; i < used; i++)
            if ((unsigned char)line[i] < ' ')
                line[i] = ' '; /* one line an event */
    }
    line[used++] = '\n';
    ssize_t put = write(sink.fd, line, used);
    (void)put; /* a log that cannot be written cannot be reported either; the server goes on */
}

static Status log_path(const char *directory, const ServerSettings *settings, char *path,
                       size_t size)
{
    path[0] = '\0';
    if (settings->log_destination == LOG_TO_STDERR)
        return AIDB_OK;
    int wrote = settings->log_file[0] == '/'
                    ? snprintf(path, size, "%s", settings->log_file)
                    : snprintf(path, size, "%s/%s", directory, settings->log_file);
    return wrote >= 0 && (size_t)wrote < size
               ? AIDB_OK
               : status_set(AIDB_INVALID, "log_file: the path is too long");
}

/* Where the server runs; kept for reloads. */
static char log_directory[1024];

Status server_log_open(const char *directory, const ServerSettings *settings)
{
    char path[sizeof sink.path];
    if (strlen(directory) >= sizeof log_directory)
        return status_set(AIDB_INVALID, "the path of the data directory is too long");
    RETURN_IF_FAILED(log_path(directory, settings, path, sizeof path));
    if (strcmp(path, sink.path) != 0) {
        int fd = path[0] != '\0' ? open_file(path) : STDERR_FILENO;
        if (fd < 0)
            return status_set_errno(errno, "could not open the log file %s", path);
        if (sink.fd != STDERR_FILENO)
            close(sink.fd);
        sink.fd = fd;
        memcpy(sink.path, path, sizeof path);
    }
    memcpy(log_directory, directory, strlen(directory) + 1);
    sink.format = (LogFormat)settings->log_format;
    server_log_set_sink(write_line, (LogLevel)settings->log_level);
    return AIDB_OK;
}

void server_log_set_process(const char *name)
{
    sink.process = name;
}

void server_log_reload(const Config *config)
{
    char directory[sizeof log_directory];
    memcpy(directory, log_directory, sizeof directory);
    if (server_log_open(directory, &config->server) != AIDB_OK)
        server_log(LOG_LEVEL_ERROR, "%s", status_message());
    sink.reopen = 1;
}

void server_log_reopen_later(void)
{
    sink.reopen = 1;
}
