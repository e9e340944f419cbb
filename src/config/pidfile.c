/*
 * pidfile.c - postmaster.pid.
 *
 * A holder removes the file before it gives the lock back. So between opening and locking, the file
 * that was opened may have been removed and another made: after locking, the name is compared with
 * what was locked, and the attempt repeated when they differ.
 */
#include "config.h"
#include "config/pidfile.h"

#include "io/io.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIDFILE_SIZE_MAX 2048

/* The next line without its end; NULL behind the last one. */
static char *next_line(char **text)
{
    char *line = *text;
    char *end = line != NULL ? strchr(line, '\n') : NULL;
    if (end == NULL) {
        *text = NULL;
        return NULL;
    }
    *end = '\0';
    *text = end + 1;
    return line;
}

static void take_line(char **text, char *field, size_t size)
{
    const char *line = next_line(text);
    if (line != NULL && strlen(line) < size)
        memcpy(field, line, strlen(line) + 1);
}

static uint64_t take_number(char **text)
{
    const char *line = next_line(text);
    return line != NULL ? strtoull(line, NULL, 10) : 0;
}

static Status read_info(char *path, int fd, PidInfo *info)
{
    char bytes[PIDFILE_SIZE_MAX + 1];
    size_t got;
    RETURN_IF_FAILED(
        file_read_some(&(File){.fd = fd, .path = path}, 0, bytes, PIDFILE_SIZE_MAX, &got));
    bytes[got] = '\0';
    char *text = bytes;
    info->pid = (int)take_number(&text);
    take_line(&text, info->unix_uri, sizeof info->unix_uri);
    take_line(&text, info->tcp_uri, sizeof info->tcp_uri);
    info->started = take_number(&text);
    take_line(&text, info->state, sizeof info->state);
    take_line(&text, info->version, sizeof info->version);
    info->crash_restarts = (uint32_t)take_number(&text);
    return AIDB_OK;
}

static Status report_locked(const char *directory, const PidFile *file, int fd)
{
    PidInfo info = {0};
    if (read_info(file->path, fd, &info) != AIDB_OK)
        status_clear();
    const char *uri = info.unix_uri[0] != '\0' ? info.unix_uri : info.tcp_uri;
    if (info.pid <= 0) {
        (void)status_set(AIDB_LOCKED, "%s is in use by another process", directory);
    } else if (uri[0] != '\0') {
        (void)status_set(AIDB_LOCKED, "%s is in use by a server (process %d) at %s", directory,
                         info.pid, uri);
        status_hint("Connect to %s, or stop the server first.", uri);
    } else {
        (void)status_set(AIDB_LOCKED, "%s is in use by process %d", directory, info.pid);
        status_hint("One process at a time can open a directory; a server lets many work on it.");
    }
    return AIDB_LOCKED;
}

/* pidfile_read asks by taking a shared lock for an instant: what looks held is asked about again. */
static bool lock_now(int fd)
{
    for (int attempt = 0; attempt < 10; attempt++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return false;
        usleep(10 * 1000);
    }
    errno = EWOULDBLOCK;
    return false;
}

/* Whether the file that is open is the one of that name. */
static bool is_named(const PidFile *file)
{
    struct stat held, named;
    return fstat(file->fd, &held) == 0 && stat(file->path, &named) == 0 &&
           named.st_ino == held.st_ino && named.st_dev == held.st_dev;
}

/* Opens and locks once. *again: the file was replaced meanwhile. */
static Status try_lock(const char *directory, PidFile *file, bool *again)
{
    *again = false;
    int fd = open(file->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return status_set(AIDB_NO_DATABASE, "there is no directory %s", directory);
        return status_set_errno(errno, "could not open %s", file->path);
    }
    Status status = AIDB_OK;
    if (!lock_now(fd))
        status = errno == EWOULDBLOCK ? report_locked(directory, file, fd)
                                      : status_set_errno(errno, "could not lock %s", file->path);
    else
        *again = !is_named(&(PidFile){.fd = fd, .path = file->path});
    if (status != AIDB_OK || *again)
        close(fd);
    else
        file->fd = fd;
    return status;
}

Status pidfile_lock(const char *directory, PidFile *file)
{
    file->fd = -1;
    file->path = path_join(directory, PIDFILE_NAME);
    if (file->path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    bool again = true;
    Status status = AIDB_OK;
    while (again && status == AIDB_OK)
        status = try_lock(directory, file, &again);
    if (status != AIDB_OK) {
        free(file->path);
        file->path = NULL;
    }
    return status;
}

Status pidfile_write(const PidFile *file, const PidInfo *info)
{
    char text[PIDFILE_SIZE_MAX];
    int size = snprintf(text, sizeof text, "%d\n%s\n%s\n%" PRIu64 "\n%s\n%s\n%u\n", info->pid,
                        info->unix_uri, info->tcp_uri, info->started, info->state, info->version,
                        info->crash_restarts);
    /* One write: a reader sees the old text or the new one, but for a longer rest of the old. */
    ssize_t done = 0;
    while (done < size) {
        ssize_t n = pwrite(file->fd, text + done, (size_t)(size - done), done);
        if (n < 0 && errno != EINTR)
            return status_set_errno(errno, "could not write %s", file->path);
        done += n > 0 ? n : 0;
    }
    while (ftruncate(file->fd, size) != 0)
        if (errno != EINTR)
            return status_set_errno(errno, "could not write %s", file->path);
    return AIDB_OK;
}

void pidfile_release(PidFile *file)
{
    /* When the directory was replaced meanwhile, the file of that name is somebody else's. */
    if (file->fd >= 0 && is_named(file))
        unlink(file->path);
    pidfile_forget(file);
}

void pidfile_forget(PidFile *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
    free(file->path);
    file->path = NULL;
}

Status pidfile_read(const char *directory, PidInfo *info, bool *held)
{
    memset(info, 0, sizeof *info);
    *held = false;
    char *path = path_join(directory, PIDFILE_NAME);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = AIDB_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        status = errno == ENOENT || errno == ENOTDIR
                     ? status_set(AIDB_NOT_FOUND, "%s does not exist", path)
                     : status_set_errno(errno, "could not open %s", path);
    } else {
        status = read_info(path, fd, info);
        /* A shared lock is refused only while somebody holds the exclusive one. */
        *held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        close(fd);
    }
    free(path);
    return status;
}
