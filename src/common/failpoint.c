/*
 * failpoint.c - the file that says what each place does, and doing it. See failpoint.h.
 *
 * A record is set by clearing `armed`, writing the rest and writing `armed` again, so a process that
 * passes meanwhile does nothing. Names are added under a file lock and never removed; a process reads
 * its indexes before it forks.
 */
#include "config.h"

#include "common/failpoint.h"

#ifdef AIDB_FAILPOINTS

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TABLE_MAGIC 0x31544e494f504941u /* "AIPOINT1" */

extern FailPoint *const first_point[] __asm__("__start_aidb_failpoints")
    __attribute__((weak, visibility("hidden")));
extern FailPoint *const end_point[] __asm__("__stop_aidb_failpoints")
    __attribute__((weak, visibility("hidden")));

static FailTable *_Atomic attached;
static dev_t attached_device;
static ino_t attached_inode;

/* ---- the file ----------------------------------------------------------------------------------- */

/* The descriptor of the file, locked, or -1. */
static int open_file(const char *directory, bool create)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/failpoints", directory);
    int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    while (fd >= 0 && flock(fd, LOCK_EX) != 0 && errno == EINTR)
        continue;
    return fd;
}

/* The mapping keeps the open file, and with it the lock, so that goes first. */
static void close_file(int fd)
{
    (void)flock(fd, LOCK_UN);
    close(fd);
}

static FailTable *map_file(int fd)
{
    struct stat info;
    FailTable *table = MAP_FAILED;
    if (fstat(fd, &info) == 0 &&
        (info.st_size >= (off_t)sizeof *table || ftruncate(fd, sizeof *table) == 0))
        table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (table != MAP_FAILED && atomic_load(&table->magic) != TABLE_MAGIC) {
        memset(table, 0, sizeof *table);
        atomic_store(&table->magic, TABLE_MAGIC);
    }
    return table == MAP_FAILED ? NULL : table;
}

static FailRecord *find_or_add(FailTable *table, const char *name, FailPointKind kind)
{
    FailRecord *record = failpoint_find(table, name);
    uint32_t count = atomic_load(&table->count);
    if (record == NULL && count < FAILPOINT_RECORDS && strlen(name) < sizeof record->name) {
        record = &table->records[count];
        memset(record, 0, sizeof *record);
        memcpy(record->name, name, strlen(name) + 1);
        atomic_store(&table->count, count + 1);
    }
    if (record != NULL && kind != 0)
        atomic_store(&record->kind, (uint32_t)kind);
    return record;
}

FailTable *failpoint_table_map(const char *directory, bool create)
{
    int fd = open_file(directory, create);
    if (fd < 0)
        return NULL;
    FailTable *table = map_file(fd);
    close_file(fd);
    return table;
}

void failpoint_table_unmap(FailTable *table)
{
    if (table != NULL)
        munmap(table, sizeof *table);
}

FailRecord *failpoint_find(FailTable *table, const char *name)
{
    uint32_t count = atomic_load(&table->count);
    for (uint32_t i = 0; i < count && i < FAILPOINT_RECORDS; i++)
        if (strcmp(table->records[i].name, name) == 0)
            return &table->records[i];
    return NULL;
}

/* A mapping that was left for another directory's stays: threads may be passing a place. */
void failpoint_attach(const char *directory)
{
    const char *text = getenv("AIDB_FAILPOINTS");
    int fd = open_file(directory, text != NULL);
    if (fd < 0)
        return;
    struct stat info;
    FailTable *table = atomic_load(&attached);
    bool same = table != NULL && fstat(fd, &info) == 0 && info.st_dev == attached_device &&
                info.st_ino == attached_inode;
    if (!same)
        table = map_file(fd);
    if (table != NULL) {
        for (FailPoint *const *at = first_point; at < end_point; at++) {
            if (*at == NULL) /* the linker's padding */
                continue;
            FailRecord *record = find_or_add(table, (*at)->name, (*at)->kind);
            (*at)->index = record != NULL ? (uint32_t)(record - table->records) : UINT32_MAX;
        }
        if (!same && fstat(fd, &info) == 0) {
            attached_device = info.st_dev;
            attached_inode = info.st_ino;
        }
        atomic_store(&attached, table);
        if (text != NULL && failpoint_set(table, text) != AIDB_OK)
            fprintf(stderr, "AIDB_FAILPOINTS: %s\n", status_message());
    }
    close_file(fd);
}

/* ---- setting ------------------------------------------------------------------------------------ */

static Status parse_error(const char *name, int64_t *code)
{
    static const struct {
        const char *name;
        Status code;
    } errors[] = {{"", AIDB_IO},
                  {"io", AIDB_IO},
                  {"no_space", AIDB_NO_SPACE},
                  {"no_memory", AIDB_NO_MEMORY},
                  {"failed", AIDB_FAILED}};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (strcmp(errors[i].name, name) == 0) {
            *code = (int64_t)errors[i].code;
            return AIDB_OK;
        }
    }
    return status_set(AIDB_INVALID, "a fail point cannot fail with \"%s\"", name);
}

/* ACTION[(ARGUMENT)][@N | /N[:SEED]] into a record that nobody else sees. */
static Status parse_action(const char *text, FailRecord *record)
{
    static const char *const names[] = {"off",   "kill",  "exit", "stop",
                                        "sleep", "error", "flip", "value"};
    size_t size = strcspn(text, "(@/");
    const char *rest = text + size;
    char argument[32] = "";
    uint32_t action = 0;
    while (action < sizeof names / sizeof names[0] &&
           (strlen(names[action]) != size || memcmp(names[action], text, size) != 0))
        action++;
    if (action == sizeof names / sizeof names[0])
        return status_set(AIDB_INVALID, "a fail point cannot do \"%s\"", text);
    if (*rest == '(') {
        const char *end = strchr(rest, ')');
        if (end == NULL || (size_t)(end - rest) > sizeof argument)
            return status_set(AIDB_INVALID, "\"%s\" has no end", text);
        memcpy(argument, rest + 1, (size_t)(end - rest - 1));
        rest = end + 1;
    }
    char *after = argument;
    int64_t number = strtoll(argument, &after, 10);
    if (action == FAILPOINT_FAIL)
        RETURN_IF_FAILED(parse_error(argument, &number));
    else if (*after != '\0')
        return status_set(AIDB_INVALID, "\"%s\" is no number", argument);
    uint64_t at = 0, seed = 1;
    uint32_t one_in = 0;
    after = (char *)(uintptr_t)rest;
    if (*rest == '@')
        at = strtoull(rest + 1, &after, 10);
    else if (*rest == '/')
        one_in = (uint32_t)strtoul(rest + 1, &after, 10);
    if (one_in != 0 && *after == ':')
        seed = strtoull(after + 1, &after, 10);
    if (*after != '\0' || (*rest != '\0' && at == 0 && one_in == 0))
        return status_set(AIDB_INVALID, "\"%s\" is neither @N nor /N:SEED", rest);
    atomic_store(&record->argument, number);
    atomic_store(&record->at, at);
    atomic_store(&record->one_in, one_in);
    atomic_store(&record->random, seed);
    atomic_store(&record->armed, action);
    return AIDB_OK;
}

static Status set_one(FailTable *table, const char *name, const char *action)
{
    FailRecord parsed;
    memset(&parsed, 0, sizeof parsed);
    RETURN_IF_FAILED(parse_action(action, &parsed));
    FailRecord *record = failpoint_find(table, name);
    if (record == NULL)
        return status_set(AIDB_NOT_FOUND, "there is no fail point \"%s\"", name);
    atomic_store(&record->armed, FAILPOINT_OFF);
    atomic_store(&record->hits, 0);
    atomic_store(&record->argument, atomic_load(&parsed.argument));
    atomic_store(&record->at, atomic_load(&parsed.at));
    atomic_store(&record->one_in, atomic_load(&parsed.one_in));
    atomic_store(&record->random, atomic_load(&parsed.random));
    atomic_store(&record->armed, atomic_load(&parsed.armed));
    return AIDB_OK;
}

Status failpoint_set(FailTable *table, const char *text)
{
    while (*text != '\0') {
        char item[160];
        size_t size = strcspn(text, ";");
        const char *from = text;
        text += size + (text[size] == ';');
        while (size > 0 && *from == ' ') {
            from++;
            size--;
        }
        while (size > 0 && from[size - 1] == ' ')
            size--;
        if (size == 0)
            continue;
        if (size >= sizeof item)
            return status_set(AIDB_INVALID, "\"%.40s...\" is too long", from);
        memcpy(item, from, size);
        item[size] = '\0';
        char *equals = strchr(item, '=');
        if (equals == NULL)
            return status_set(AIDB_INVALID, "\"%s\" is not NAME=ACTION", item);
        *equals = '\0';
        RETURN_IF_FAILED(set_one(table, item, equals + 1));
    }
    return AIDB_OK;
}

/* ---- passing ------------------------------------------------------------------------------------ */

static uint64_t next_random(FailRecord *record)
{
    uint64_t z = atomic_fetch_add(&record->random, 0x9e3779b97f4a7c15u) + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The record of a place that has something to do now, and what. */
static FailRecord *fires(const FailPoint *point, FailPointAction *action)
{
    FailTable *table = atomic_load_explicit(&attached, memory_order_acquire);
    if (table == NULL || point->index >= FAILPOINT_RECORDS)
        return NULL;
    FailRecord *record = &table->records[point->index];
    uint64_t hit = atomic_fetch_add(&record->hits, 1) + 1;
    *action = (FailPointAction)atomic_load(&record->armed);
    if (*action == FAILPOINT_OFF)
        return NULL;
    uint64_t at = atomic_load(&record->at);
    uint32_t one_in = atomic_load(&record->one_in);
    if ((at != 0 && hit != at) || (one_in != 0 && next_random(record) % one_in != 0))
        return NULL;
    atomic_fetch_add(&record->fired, 1);
    return record;
}

Status failpoint_hit(FailPoint *point)
{
    FailPointAction action;
    FailRecord *record = fires(point, &action);
    if (record == NULL)
        return AIDB_OK;
    int64_t argument = atomic_load(&record->argument);
    struct timespec time = {argument / 1000, argument % 1000 * 1000000};
    switch (action) {
    case FAILPOINT_KILL:
        (void)raise(SIGKILL);
        break;
    case FAILPOINT_EXIT:
        _exit((int)argument);
    case FAILPOINT_STOP:
        (void)raise(SIGSTOP);
        break;
    case FAILPOINT_SLEEP:
        while (nanosleep(&time, &time) != 0 && errno == EINTR)
            continue;
        break;
    case FAILPOINT_FAIL:
        return status_set((Status)argument, "fail point %s", point->name);
    default:
        break;
    }
    return AIDB_OK;
}

void failpoint_data(FailPoint *point, void *data, size_t size)
{
    FailPointAction action;
    FailRecord *record = fires(point, &action);
    if (record == NULL || action != FAILPOINT_FLIP || size == 0)
        return;
    uint64_t bit = next_random(record) % (8 * (uint64_t)size);
    ((uint8_t *)data)[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

uint64_t failpoint_number(FailPoint *point, uint64_t otherwise)
{
    FailPointAction action;
    const FailRecord *record = fires(point, &action);
    return record != NULL && action == FAILPOINT_VALUE ? (uint64_t)atomic_load(&record->argument)
                                                       : otherwise;
}

#endif
