/*
 * directory.c - whether a data directory is one, and whether what it holds can be believed.
 */
#include "config.h"
#include "postmaster/postmaster_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nobody but the owner may change what the server believes: bytes that somebody else may have written are not
 * data. Links are followed: what counts is what they lead to. */
static Status check_owner(const char *what, const char *path, const struct stat *info)
{
    if (info->st_uid != geteuid() && info->st_uid != 0 && geteuid() != 0)
        return status_set(AIDB_INVALID, "the %s %s belongs to another user", what, path);
    if ((info->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        (void)status_set(AIDB_INVALID, "the %s %s can be written by group or others (mode %04o)",
                         what, path, (unsigned)(info->st_mode & 07777));
        status_hint("chmod go-w %s", path);
        return AIDB_INVALID;
    }
    return AIDB_OK;
}

/* The same for something in the data directory; what is missing is somebody else's business. */
static Status check_part(const char *directory, const char *name, const char *what)
{
    struct stat info;
    char *path = path_join(directory, name);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    Status status = stat(path, &info) == 0 ? check_owner(what, path, &info) : AIDB_OK;
    free(path);
    return status;
}

static Status check_database(const char *directory)
{
    if (db_exists(directory))
        return AIDB_OK;
    (void)status_set(AIDB_NO_DATABASE, "there is no database in %s", directory);
    status_hint("`aidbctl init -D %s` makes one.", directory);
    return AIDB_NO_DATABASE;
}

Status directory_check(Postmaster *postmaster, const char *name)
{
    char resolved[4096 + 1];
    if (realpath(name, resolved) == NULL) {
        if (errno != ENOENT)
            return status_set_errno(errno, "could not find the data directory %s", name);
        (void)status_set(AIDB_NO_DATABASE, "there is no data directory %s", name);
        status_hint("`aidbctl init -D %s` makes one.", name);
        return AIDB_NO_DATABASE;
    }
    if (strlen(resolved) >= sizeof postmaster->directory)
        return status_set(AIDB_INVALID, "the path of the data directory is longer than %zu bytes",
                          sizeof postmaster->directory - 1);
    memcpy(postmaster->directory, resolved, strlen(resolved) + 1);
    struct stat info;
    if (stat(resolved, &info) != 0)
        return status_set_errno(errno, "could not look at the data directory %s", resolved);
    if (!S_ISDIR(info.st_mode))
        return status_set(AIDB_INVALID, "%s is not a directory", resolved);
    /* What is no database needs no other owner or mode; of what cannot be looked into those say why. */
    if (access(resolved, X_OK) == 0)
        RETURN_IF_FAILED(check_database(resolved));
    RETURN_IF_FAILED(check_owner("data directory", resolved, &info));
    RETURN_IF_FAILED(check_part(resolved, "sst", "folder"));
    RETURN_IF_FAILED(check_part(resolved, "wal", "folder"));
    RETURN_IF_FAILED(check_part(resolved, CONFIG_FILE_NAME, "configuration file"));
    return check_database(resolved);
}
