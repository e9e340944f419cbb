/*
 * file_cache.c - descriptors of open tables, private to one process or thread.
 *
 * A fixed array of entries in a hash by table number and a list by last use; when it is full the
 * least recently used file is closed. Table numbers are never reused, so an open file can never be
 * the wrong one; its size is compared with what the manifest says when it is opened, and its format
 * with this program's, so that a truncated or foreign file is named before a block of it is read.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include "common/hash.h"

#include <stdlib.h>
#include <sys/stat.h>

#define NONE UINT32_MAX

typedef struct OpenFile {
    File file;
    uint64_t number;
    uint32_t chain; /* next in the bucket, or in the free list */
    uint32_t newer; /* list by use */
    uint32_t older;
} OpenFile;

struct FileCache {
    char *directory;
    uint32_t capacity;
    uint32_t bucket_count; /* a power of two */
    uint32_t free;
    uint32_t newest;
    uint32_t oldest;
    uint32_t count;
    uint32_t *buckets;
    OpenFile *entries;
};

Status file_cache_create(const char *directory, uint32_t capacity, FileCache **out)
{
    *out = NULL;
    if (capacity == 0)
        capacity = 1;
    uint32_t bucket_count = 16;
    while (bucket_count < capacity && bucket_count < 1u << 30)
        bucket_count *= 2;
    FileCache *files = calloc(1, sizeof *files);
    if (files == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the table of open files");
    files->directory = strdup(directory);
    files->capacity = capacity;
    files->bucket_count = bucket_count;
    files->buckets = malloc(bucket_count * sizeof *files->buckets);
    files->entries = malloc(capacity * sizeof *files->entries);
    if (files->directory == NULL || files->buckets == NULL || files->entries == NULL) {
        free(files->directory);
        free(files->buckets);
        free(files->entries);
        free(files);
        return status_set(AIDB_NO_MEMORY, "out of memory for the table of open files");
    }
    for (uint32_t i = 0; i < bucket_count; i++)
        files->buckets[i] = NONE;
    for (uint32_t i = 0; i < capacity; i++) {
        files->entries[i] = (OpenFile){.file = FILE_CLOSED, .newer = NONE, .older = NONE};
        files->entries[i].chain = i + 1 < capacity ? i + 1 : NONE;
    }
    files->free = 0;
    files->newest = files->oldest = NONE;
    *out = files;
    return AIDB_OK;
}

const char *file_cache_directory(const FileCache *files)
{
    return files->directory;
}

static uint32_t bucket_of(const FileCache *files, uint64_t number)
{
    return (uint32_t)hash_mix(number, 0) & (files->bucket_count - 1);
}

static void unlink_use(FileCache *files, uint32_t i)
{
    OpenFile *entry = &files->entries[i];
    if (entry->newer != NONE)
        files->entries[entry->newer].older = entry->older;
    else
        files->newest = entry->older;
    if (entry->older != NONE)
        files->entries[entry->older].newer = entry->newer;
    else
        files->oldest = entry->newer;
}

static void push_newest(FileCache *files, uint32_t i)
{
    OpenFile *entry = &files->entries[i];
    entry->newer = NONE;
    entry->older = files->newest;
    if (files->newest != NONE)
        files->entries[files->newest].newer = i;
    else
        files->oldest = i;
    files->newest = i;
}

static void drop(FileCache *files, uint32_t i)
{
    OpenFile *entry = &files->entries[i];
    uint32_t *link = &files->buckets[bucket_of(files, entry->number)];
    while (*link != i)
        link = &files->entries[*link].chain;
    *link = entry->chain;
    unlink_use(files, i);
    file_close(&entry->file);
    entry->chain = files->free;
    files->free = i;
    files->count--;
}

void file_cache_clear(FileCache *files)
{
    while (files->newest != NONE)
        drop(files, files->newest);
}

void file_cache_sweep(FileCache *files)
{
    for (uint32_t i = files->oldest; i != NONE;) {
        uint32_t newer = files->entries[i].newer;
        struct stat info;
        if (fstat(files->entries[i].file.fd, &info) == 0 && info.st_nlink == 0)
            drop(files, i);
        i = newer;
    }
}

void file_cache_destroy(FileCache *files)
{
    if (files == NULL)
        return;
    file_cache_clear(files);
    free(files->entries);
    free(files->buckets);
    free(files->directory);
    free(files);
}

static uint32_t find(const FileCache *files, uint64_t number)
{
    uint32_t i = files->buckets[bucket_of(files, number)];
    while (i != NONE && files->entries[i].number != number)
        i = files->entries[i].chain;
    return i;
}

void file_cache_forget(FileCache *files, uint64_t number)
{
    uint32_t i = find(files, number);
    if (i != NONE)
        drop(files, i);
}

static Status open_table(const FileCache *files, const TableInfo *info, File *file)
{
    char name[TABLE_NAME_SIZE];
    table_name(info->number, name);
    char *path = path_join(files->directory, name);
    if (path == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory to open table %s", name);
    Status status = file_open(path, FILE_READ, file);
    if (status == AIDB_NOT_FOUND) {
        status = status_set(AIDB_CORRUPTION, "table file \"%s\" is missing", path);
        status_hint("Restore the file, or salvage what is left with aidbctl repair.");
    }
    free(path);
    return status;
}

Status file_cache_get(FileCache *files, const TableInfo *info, const File **out)
{
    *out = NULL;
    uint32_t i = find(files, info->number);
    if (i != NONE) {
        if (i != files->newest) {
            unlink_use(files, i);
            push_newest(files, i);
        }
        *out = &files->entries[i].file;
        return AIDB_OK;
    }

    File file = FILE_CLOSED;
    Status status = open_table(files, info, &file);
    if ((status == AIDB_IO || status == AIDB_LIMIT) && files->count > 0) {
        /* Perhaps the process has no descriptor left: give some back and try once more. */
        for (uint32_t n = files->count / 2 + 1; n > 0; n--)
            drop(files, files->oldest);
        status = open_table(files, info, &file);
    }
    RETURN_IF_FAILED(status);
    uint64_t size = 0;
    status = file_size(&file, &size);
    if (status == AIDB_OK && size != info->file_size)
        status = status_set(
            AIDB_CORRUPTION, "table file \"%s\" has %llu bytes instead of %llu (offset %llu)",
            file.path, (unsigned long long)size, (unsigned long long)info->file_size,
            (unsigned long long)(size < info->file_size ? size : info->file_size));
    if (status == AIDB_OK)
        status = table_check_format(&file);
    if (status != AIDB_OK) {
        file_close(&file);
        return status;
    }

    if (files->count == files->capacity)
        drop(files, files->oldest);
    i = files->free;
    OpenFile *entry = &files->entries[i];
    files->free = entry->chain;
    entry->file = file;
    entry->number = info->number;
    uint32_t *bucket = &files->buckets[bucket_of(files, info->number)];
    entry->chain = *bucket;
    *bucket = i;
    push_newest(files, i);
    files->count++;
    *out = &entry->file;
    return AIDB_OK;
}
