/* fuzz.c - the list of targets, and what they share. */
#include "config.h"

#include "fuzz/fuzz.h"

#include "common/log.h"
#include "common/status.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const FuzzTarget fuzz_targets[] = {
    {"frames", fuzz_frames},       {"log", fuzz_log},     {"manifest", fuzz_manifest},
    {"block", fuzz_block},         {"table", fuzz_table}, {"settings", fuzz_settings},
    {"statement", fuzz_statement}, {"rows", fuzz_rows},   {"session", fuzz_session},
    {"replies", fuzz_replies},
};
const size_t fuzz_target_count = sizeof fuzz_targets / sizeof fuzz_targets[0];

const FuzzTarget *fuzz_target_find(const char *name)
{
    for (size_t i = 0; i < fuzz_target_count; i++)
        if (strcmp(fuzz_targets[i].name, name) == 0)
            return &fuzz_targets[i];
    return NULL;
}

static char directory[256];
static pid_t owner; /* a forked child leaves the folder alone */

void fuzz_empty_directory(const char *path)
{
    DIR *listing = opendir(path);
    struct dirent *item;
    while (listing != NULL && (item = readdir(listing)) != NULL)
        if (item->d_name[0] != '.')
            (void)unlinkat(dirfd(listing), item->d_name, 0);
    if (listing != NULL)
        closedir(listing);
}

void fuzz_remove_store(void)
{
    static const char *const folders[] = {"wal", "sst"};
    char path[sizeof directory + 8];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, folders[i]);
        fuzz_empty_directory(path);
        rmdir(path);
    }
    fuzz_empty_directory(directory);
}

void fuzz_end(void)
{
    if (getpid() != owner)
        return;
    fuzz_remove_store();
    rmdir(directory);
    owner = 0;
}

void fuzz_require(bool holds)
{
    if (!holds) {
        fprintf(stderr, "an invariant does not hold; the last error was: %s\n", status_message());
        fuzz_end();
        abort();
    }
}

static void say_nothing(LogLevel level, const char *message)
{
    (void)level;
    (void)message;
}

const char *fuzz_directory(void)
{
    if (owner != getpid()) {
        const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
        if (base == NULL)
            base = "/tmp";
        snprintf(directory, sizeof directory, "%s/aidb-fuzz.XXXXXX", base);
        fuzz_require(mkdtemp(directory) != NULL);
        owner = getpid();
        atexit(fuzz_end);
        server_log_set_sink(say_nothing, LOG_LEVEL_FATAL);
    }
    return directory;
}

void fuzz_write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fuzz_require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}
