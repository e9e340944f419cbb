/*
 * power.c - power loss at any I/O call, from a journal.
 *
 * A program, or a server with all its processes, runs with the faulty disk under it (disk.c), which notes
 * every change and every sync in order. Afterwards the disk's state is followed call by call: of each file
 * the bytes that are synced and the changes that are not, of each directory likewise its names. At a cut,
 * everything synced is there; of the rest, by the cut's mode, nothing, everything, all up to some call, or
 * a random part: of writes each sector of 512 or 4096 bytes by itself, and the size by itself; of names
 * each change by itself. The page cache of a mapped file is one more source of unsynced writes.
 *
 * Each state that a cut leaves is opened and checked. One of them becomes, unopened, the directory of the
 * next run, so that recoveries are cut too, and recoveries of recoveries.
 *
 * power and server-power choose where to cut; power-every and server-power-every cut at every call, and
 * once more, with nothing unsynced left, after every sync. power-killed kills the program behind a call, and
 * perhaps the next one while it recovers, and cuts while the last one recovers: what is unsynced then was
 * written by processes that are gone, and is believed, although it may not last.
 *
 * fsync of a file makes its bytes and size durable, not its name: file systems promise no more.
 */
#include "config.h"

#include "torture/server.h"

#include "torture/disk.h"

#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME_SIZE   128u
#define OPEN_MAX_MS HANG_MS

typedef struct Change {
    DiskRecord record; /* a write or a truncation */
    const uint8_t *data;
} Change;

typedef struct Inode {
    uint64_t number;
    uint8_t *synced;
    size_t size;
    Change *changes; /* since the last sync */
    size_t change_count, change_room;
    struct Inode *next;
} Inode;

typedef struct Name {
    char path[NAME_SIZE];
    Inode *inode; /* NULL: a directory */
} Name;

typedef struct NameChange {
    uint32_t type; /* DiskRecordType */
    uint32_t call;
    char path[NAME_SIZE];
    char other[NAME_SIZE];
    Inode *inode;
} NameChange;

typedef struct Names {
    Name *names;
    size_t count, room;
} Names;

struct Disk {
    Inode *inodes;
    Names synced;  /* names that are durable */
    Names current; /* names as the program sees them */
    NameChange *changes;
    size_t change_count, change_room;
};

static void *grow(void *memory, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return memory;
    *room = *room * 2 + 64;
    memory = realloc(memory, *room * size);
    if (memory == NULL) {
        fprintf(stderr, "aidbtorture: out of memory\n");
        exit(2);
    }
    return memory;
}

/* ---- names -------------------------------------------------------------------------------------- */

static Name *name_find(Names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->names[i].path, path) == 0)
            return &names->names[i];
    return NULL;
}

static void name_put(Names *names, const char *path, Inode *inode)
{
    Name *name = name_find(names, path);
    if (name == NULL) {
        names->names = grow(names->names, names->count, &names->room, sizeof *names->names);
        name = &names->names[names->count++];
        snprintf(name->path, sizeof name->path, "%s", path);
    }
    name->inode = inode;
}

static void name_remove(Names *names, const char *path)
{
    Name *name = name_find(names, path);
    if (name != NULL)
        *name = names->names[--names->count];
}

static void name_apply(Names *names, const NameChange *change)
{
    switch ((DiskRecordType)change->type) {
    case DISK_RECORD_CREATE:
    case DISK_RECORD_LINK:
    case DISK_RECORD_MKDIR:
        name_put(names, change->path, change->inode);
        break;
    case DISK_RECORD_RENAME:
        if (name_find(names, change->path) != NULL &&
            name_find(names, change->path)->inode == change->inode)
            name_remove(names, change->path);
        name_put(names, change->other, change->inode);
        break;
    default:
        name_remove(names, change->path);
        break;
    }
}

/* Whether a change is one of the directory's. */
static bool change_in(const NameChange *change, const char *directory)
{
    const char *slash = strrchr(change->path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - change->path);
    return strlen(directory) == size && memcmp(directory, change->path, size) == 0;
}

/* ---- following the journal ---------------------------------------------------------------------- */

static Inode *inode_add(Disk *disk, uint64_t number)
{
    Inode *inode = calloc(1, sizeof *inode);
    if (inode == NULL)
        exit(2);
    inode->number = number;
    inode->next = disk->inodes; /* a number used again means the newest */
    disk->inodes = inode;
    return inode;
}

static Inode *inode_find(Disk *disk, uint64_t number)
{
    for (Inode *inode = disk->inodes; inode != NULL; inode = inode->next)
        if (inode->number == number)
            return inode;
    return NULL;
}

static void bytes_resize(uint8_t **bytes, size_t *size, size_t wanted)
{
    *bytes = realloc(*bytes, wanted + 1);
    if (*bytes == NULL)
        exit(2);
    if (wanted > *size)
        memset(*bytes + *size, 0, wanted - *size);
    *size = wanted;
}

static void inode_apply(Inode *inode, const DiskRecord *record, const uint8_t *data)
{
    if (record->type == DISK_RECORD_TRUNCATE) {
        bytes_resize(&inode->synced, &inode->size, record->offset);
        return;
    }
    if (record->offset + record->data_size > inode->size)
        bytes_resize(&inode->synced, &inode->size, record->offset + record->data_size);
    memcpy(inode->synced + record->offset, data, record->data_size);
}

static void inode_sync(Inode *inode)
{
    for (size_t i = 0; i < inode->change_count; i++)
        inode_apply(inode, &inode->changes[i].record, inode->changes[i].data);
    inode->change_count = 0;
}

/* The kernel drops what was to be synced. Writes that synced themselves stay. */
static void inode_drop(Inode *inode)
{
    size_t kept = 0;
    for (size_t i = 0; i < inode->change_count; i++)
        if (inode->changes[i].record.type == DISK_RECORD_WRITE_SYNCED)
            inode->changes[kept++] = inode->changes[i];
    inode->change_count = kept;
}

static void follow(Disk *disk, const DiskRecord *record, const char *path, const uint8_t *data)
{
    char text[NAME_SIZE] = "";
    memcpy(text, path, record->path_size < sizeof text ? record->path_size : sizeof text - 1);
    Inode *inode;
    NameChange change = {.type = record->type, .call = record->call};
    memcpy(change.path, text, sizeof text);
    switch ((DiskRecordType)record->type) {
    case DISK_RECORD_WRITE:
    case DISK_RECORD_WRITE_SYNCED:
    case DISK_RECORD_TRUNCATE:
        inode = inode_find(disk, record->inode);
        if (inode == NULL)
            return;
        if (record->type == DISK_RECORD_WRITE_SYNCED && inode->change_count == 0) {
            inode_apply(inode, record, data);
            return;
        }
        inode->changes =
            grow(inode->changes, inode->change_count, &inode->change_room, sizeof *inode->changes);
        inode->changes[inode->change_count++] = (Change){*record, data};
        return;
    case DISK_RECORD_SYNC:
        inode = inode_find(disk, record->inode);
        if (inode != NULL)
            inode_sync(inode);
        return;
    case DISK_RECORD_SYNC_FAILED:
        inode = inode_find(disk, record->inode);
        if (inode != NULL)
            inode_drop(inode);
        return;
    case DISK_RECORD_DIRECTORY_SYNC: {
        size_t kept = 0;
        for (size_t i = 0; i < disk->change_count; i++) {
            if (change_in(&disk->changes[i], text))
                name_apply(&disk->synced, &disk->changes[i]);
            else
                disk->changes[kept++] = disk->changes[i];
        }
        disk->change_count = kept;
        return;
    }
    case DISK_RECORD_CREATE:
        change.inode = inode_add(disk, record->inode);
        break;
    case DISK_RECORD_LINK:
        change.inode = inode_find(disk, record->inode);
        break;
    case DISK_RECORD_RENAME: {
        memcpy(change.other, data,
               record->data_size < NAME_SIZE ? record->data_size : NAME_SIZE - 1);
        const Name *name = name_find(&disk->current, text);
        change.inode = name != NULL ? name->inode : NULL;
        break;
    }
    case DISK_RECORD_UNLINK:
    case DISK_RECORD_MKDIR:
        break;
    }
    name_apply(&disk->current, &change);
    disk->changes =
        grow(disk->changes, disk->change_count, &disk->change_room, sizeof *disk->changes);
    disk->changes[disk->change_count++] = change;
}

/* ---- the directory before ----------------------------------------------------------------------- */

static Disk *load_disk;
static const char *load_root;

static int load_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)place;
    const char *name = path + strlen(load_root);
    if (*name == 0)
        return 0;
    name++;
    Inode *inode = NULL;
    if (type == FTW_F) {
        inode = inode_add(load_disk, info->st_ino);
        bytes_resize(&inode->synced, &inode->size, (size_t)info->st_size);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, inode->synced, inode->size);
        close(fd);
        if (got != (ssize_t)inode->size)
            return 1;
    }
    name_put(&load_disk->synced, name, inode);
    name_put(&load_disk->current, name, inode);
    return 0;
}

static bool disk_load(Disk *disk, const char *directory)
{
    load_disk = disk;
    load_root = directory;
    return nftw(directory, load_one, 16, FTW_PHYS) == 0;
}

static void disk_free(Disk *disk)
{
    while (disk->inodes != NULL) {
        Inode *inode = disk->inodes;
        disk->inodes = inode->next;
        free(inode->synced);
        free(inode->changes);
        free(inode);
    }
    free(disk->synced.names);
    free(disk->current.names);
    free(disk->changes);
    memset(disk, 0, sizeof *disk);
}

/* ---- the cut ------------------------------------------------------------------------------------ */

typedef enum CutMode { CUT_NOTHING, CUT_ALL, CUT_PREFIX, CUT_RANDOM } CutMode;

typedef struct Cut {
    CutMode mode;
    uint32_t until;    /* CUT_PREFIX: changes of calls up to this one are there */
    uint32_t permille; /* CUT_RANDOM: of the sectors */
    uint32_t sector;   /* bytes that survive or do not as a whole */
    uint64_t random;
} Cut;

static bool survives(Cut *cut, uint32_t call, uint32_t permille)
{
    switch (cut->mode) {
    case CUT_NOTHING:
        return false;
    case CUT_ALL:
        return true;
    case CUT_PREFIX:
        return call <= cut->until;
    case CUT_RANDOM:
        break;
    }
    return oracle_random(&cut->random) % 1000 < permille;
}

static bool write_file(const char *path, const uint8_t *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, bytes, size) == (ssize_t)size;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Writes what the cut leaves of one file. */
static bool build_file(const Inode *inode, const char *path, Cut *cut)
{
    size_t size = 0;
    uint8_t *bytes = NULL;
    bytes_resize(&bytes, &size, inode->size);
    if (inode->size > 0)
        memcpy(bytes, inode->synced, inode->size);
    for (size_t i = 0; i < inode->change_count; i++) {
        const DiskRecord *record = &inode->changes[i].record;
        if (record->type == DISK_RECORD_TRUNCATE) {
            if (survives(cut, record->call, 500))
                bytes_resize(&bytes, &size, record->offset);
            continue;
        }
        bool synced = record->type == DISK_RECORD_WRITE_SYNCED;
        uint64_t last = record->offset + record->data_size;
        /* File systems write sizes and bytes at different times. */
        if (last > size && survives(cut, record->call, 500))
            bytes_resize(&bytes, &size, last);
        for (uint64_t at = record->offset; at < last;) {
            uint64_t end = (at / cut->sector + 1) * cut->sector;
            if (end > last)
                end = last;
            if (synced || survives(cut, record->call, cut->permille)) {
                if (end > size)
                    bytes_resize(&bytes, &size, end);
                memcpy(bytes + at, inode->changes[i].data + (at - record->offset), end - at);
            }
            at = end;
        }
    }
    bool ok = write_file(path, bytes, size);
    free(bytes);
    return ok;
}

static int shorter_first(const void *a, const void *b)
{
    size_t x = strlen(((const Name *)a)->path), y = strlen(((const Name *)b)->path);
    return x < y ? -1 : x > y;
}

/* Builds what the cut leaves of everything. The same cut builds the same bytes. */
static bool build(const Disk *disk, const char *directory, Cut cut)
{
    Names names = {.names = NULL};
    bool ok = mkdir(directory, 0700) == 0;
    for (size_t i = 0; i < disk->synced.count; i++)
        name_put(&names, disk->synced.names[i].path, disk->synced.names[i].inode);
    for (size_t i = 0; i < disk->change_count; i++)
        if (survives(&cut, disk->changes[i].call, 500))
            name_apply(&names, &disk->changes[i]);
    if (names.count > 0)
        qsort(names.names, names.count, sizeof *names.names, shorter_first);
    for (size_t i = 0; i < names.count && ok; i++) {
        char path[2 * TORTURE_PATH], parent[2 * TORTURE_PATH];
        snprintf(path, sizeof path, "%s/%s", directory, names.names[i].path);
        snprintf(parent, sizeof parent, "%s", path);
        *strrchr(parent, '/') = 0;
        if (access(parent, F_OK) != 0)
            continue; /* the directory itself was lost */
        if (names.names[i].inode == NULL)
            ok = mkdir(path, 0700) == 0;
        else
            ok = build_file(names.names[i].inode, path, &cut);
    }
    free(names.names);
    return ok;
}

/* ---- the campaign ------------------------------------------------------------------------------- */

typedef struct Journal {
    const uint8_t *bytes;
    size_t size, at;
} Journal;

/* Reads the record at *at and moves behind it. False at the end. */
static bool journal_next(const Journal *journal, size_t *at, DiskRecord *record)
{
    /* Paths have any length, so records are not aligned. */
    if (*at + sizeof *record > journal->size)
        return false;
    memcpy(record, journal->bytes + *at, sizeof *record);
    size_t size = sizeof *record + record->path_size + record->data_size;
    if (journal->size - *at < size)
        return false; /* the process ended in the middle of it */
    *at += size;
    return true;
}

/* Where to cut, behind call `from`. Half of the cuts are anywhere; the others just before a sync, when what it
 * covers is not durable yet: the first one, if processes before left something to it. Files that are seldom
 * synced get their share, so first a file is chosen. */
static uint32_t choose_call(Torture *torture, const Journal *journal, uint32_t from, uint32_t all)
{
    uint64_t inodes[256];
    size_t inode_count = 0, at = 0, syncs = 0;
    DiskRecord record;
    if (torture_below(torture, 2) == 0)
        return from + (uint32_t)torture_below(torture, (uint64_t)all - from + 1);
    while (journal_next(journal, &at, &record)) {
        size_t i = 0;
        while (i < inode_count && inodes[i] != record.inode)
            i++;
        if (record.type == DISK_RECORD_SYNC && record.call > from && i == inode_count &&
            inode_count < 256)
            inodes[inode_count++] = record.inode;
    }
    if (inode_count == 0)
        return all;
    uint64_t inode = inodes[torture_below(torture, inode_count)];
    uint32_t call = all;
    for (at = 0; journal_next(journal, &at, &record);)
        if (record.type == DISK_RECORD_SYNC && record.call > from && record.inode == inode &&
            (from > 0 ? syncs++ == 0 : torture_below(torture, ++syncs) == 0))
            call = record.call - 1;
    return call;
}

static Cut choose_cut(Torture *torture, uint32_t call)
{
    static const CutMode modes[] = {CUT_NOTHING, CUT_ALL,    CUT_PREFIX, CUT_PREFIX,
                                    CUT_RANDOM,  CUT_RANDOM, CUT_RANDOM, CUT_RANDOM};
    static const uint32_t permilles[] = {100, 500, 900, 990};
    return (Cut){.mode = modes[torture_below(torture, 8)],
                 .until = (uint32_t)torture_below(torture, (uint64_t)call + 1),
                 .permille = permilles[torture_below(torture, 4)],
                 .sector = torture_below(torture, 2) == 0 ? 512 : 4096,
                 .random = oracle_random(&torture->random)};
}

static bool journal_map(const char *path, const DiskControl *control, Journal *journal)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *journal = (Journal){0};
    if (fd < 0 || fstat(fd, &info) != 0)
        return false;
    journal->size = (size_t)info.st_size;
    if (journal->size > 0)
        journal->bytes = mmap(NULL, journal->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    if (journal->bytes == MAP_FAILED)
        return false;
    if (control != NULL && control->torn != 0 && control->torn - 1 < journal->size)
        journal->size = control->torn - 1;
    return true;
}

static void journal_unmap(Journal *journal)
{
    if (journal->bytes != NULL)
        munmap((void *)(uintptr_t)journal->bytes, journal->size);
}

void power_journal_remove(const char *path)
{
    char pattern[TORTURE_PATH + 8];
    glob_t found;
    unlink(path);
    snprintf(pattern, sizeof pattern, "%s.*", path);
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++)
            unlink(found.gl_pathv[i]);
    globfree(&found);
}

/* Follows the journal through every record of calls up to `call`. */
static void journal_follow(Journal *journal, Disk *disk, uint32_t call)
{
    DiskRecord record;
    size_t end = journal->at;
    while (journal_next(journal, &end, &record) && record.call <= call) {
        const uint8_t *path = journal->bytes + journal->at + sizeof record;
        follow(disk, &record, (const char *)path, path + record.path_size);
        journal->at = end;
    }
}

Disk *power_disk_create(const char *directory)
{
    Disk *disk = calloc(1, sizeof *disk);
    if (disk != NULL && !disk_load(disk, directory)) {
        disk_free(disk);
        free(disk);
        disk = NULL;
    }
    return disk;
}

bool power_disk_lose(Disk *disk, const char *journal_path, const char *directory, uint64_t random)
{
    Journal journal;
    bool ok = journal_map(journal_path, NULL, &journal);
    if (ok) {
        journal_follow(&journal, disk, UINT32_MAX);
        Cut cut = {.mode = random % 2 == 0 ? CUT_NOTHING : CUT_RANDOM,
                   .permille = 500,
                   .sector = 512,
                   .random = random};
        ok = build(disk, directory, cut);
        journal_unmap(&journal);
    }
    disk_free(disk);
    free(disk);
    return ok;
}

/* ---- the runs ----------------------------------------------------------------------------------- */

typedef struct Power {
    Torture *torture;
    DiskControl *control;
    bool every;
    bool killed;   /* processes are, before the one whose calls are cut */
    uint32_t from; /* calls before these are not cut */
    bool is_server;
    Server server;
    char data[TORTURE_PATH], next[TORTURE_PATH], cut[TORTURE_PATH], control_path[TORTURE_PATH],
        journal[TORTURE_PATH];
    uint64_t runs, calls, kills;
    uint64_t manifest;                /* inode of the one that a run begins with */
    uint64_t tables, segments, edits; /* made, prepared, and synced to the manifest in these runs */
} Power;

static bool run_program(Power *power)
{
    Torture *torture = power->torture;
    Oracle *oracle = torture->oracle;
    int status;
    /* Some runs hardly do more than recover; those are cut in recovery. */
    bool recovery = torture_below(torture, 3) == 0 && !power->every;
    oracle->ops_limit = recovery       ? 1 + (uint32_t)torture_below(torture, 10)
                        : power->every ? 300
                                       : 50 + (uint32_t)torture_below(torture, 400);
    pid_t pid = worker_start(torture, power->data, power->control_path, power->journal);
    if (!torture_wait(pid, OPEN_MAX_MS, &status))
        return torture_failed(torture, "the program hung");
    if (oracle_wrong(oracle) != NULL)
        return torture_failed(torture, "wrong answer: %s", oracle_wrong(oracle));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return torture_failed(torture, "the program ended with status %d: see %s/worker.log",
                              status, torture->work);
    return true;
}

/* Runs the program until the Nth change of some files, behind which it is killed. */
static bool run_until_killed(Power *power, bool first)
{
    static const char *const files[] = {"", "MANIFEST", "MANIFEST", "sst", "wal"};
    Torture *torture = power->torture;
    DiskControl *control = power->control;
    int status;
    const char *file = files[torture_below(torture, sizeof files / sizeof files[0])];
    uint64_t calls = !first ? 20 : *file == 0 ? 500 : 50;
    snprintf(control->path, sizeof control->path, "%s", file);
    control->kinds =
        DISK_CREATE | DISK_WRITE | DISK_TRUNCATE | DISK_RENAME | DISK_UNLINK | DISK_MKDIR;
    control->matched = 0;
    control->from = 1 + (uint32_t)torture_below(torture, calls);
    control->until = control->from + 1;
    control->fault = DISK_KILL;
    pid_t pid = worker_start(torture, power->data, power->control_path, power->journal);
    if (!torture_wait(pid, OPEN_MAX_MS, &status))
        return torture_failed(torture, "the program hung");
    control->fault = DISK_NO_FAULT;
    if (oracle_wrong(torture->oracle) != NULL)
        return torture_failed(torture, "wrong answer: %s", oracle_wrong(torture->oracle));
    if (status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        return torture_failed(torture, "the program ended with status %d: see %s/worker.log",
                              status, torture->work);
    power->kills += status != 0;
    return true;
}

static bool run_killed(Power *power)
{
    Torture *torture = power->torture;
    int status;
    torture->oracle->ops_limit = 400;
    bool ok = run_until_killed(power, true);
    atomic_store(&torture->oracle->stop, 1); /* those that follow only recover */
    while (ok && torture_below(torture, 3) == 0)
        ok = run_until_killed(power, false);
    power->from = atomic_load(&power->control->calls);
    pid_t pid = ok ? worker_start(torture, power->data, power->control_path, power->journal) : -1;
    if (ok && !torture_wait(pid, OPEN_MAX_MS, &status))
        ok = torture_failed(torture, "the program hung");
    else if (ok && status != 0)
        ok = torture_failed(torture, "recovery ended with status %d: see %s/worker.log", status,
                            torture->work);
    atomic_store(&torture->oracle->stop, 0);
    return ok;
}

/* A server under load, stopped cleanly or, mostly, all its processes killed. */
static bool run_server(Power *power)
{
    Torture *torture = power->torture;
    Oracle *oracle = torture->oracle;
    Server *server = &power->server;
    pid_t clients[ORACLE_CLIENTS_MAX];
    bool clean = torture_below(torture, 4) == 0;
    uint64_t since = torture_now_ms();
    if (!server_start(server))
        return false;
    torture_recovered(torture, torture_now_ms() - since);
    oracle->ops_limit = power->every ? 300 : 20 + (uint32_t)torture_below(torture, 500);
    size_t count = server_start_clients(server, clients);
    uint64_t end = torture_now_ms() + 1000 + torture_below(torture, 1000);
    bool ok = true;
    if (!clean && torture_below(torture, 2) == 0) {
        torture_sleep_ms((uint32_t)torture_below(torture, 800));
        ok = server_kill(server, true);
    } else {
        /* The clients end at their limit. */
        bool busy = true;
        while (busy && torture_now_ms() < end) {
            busy = false;
            for (uint32_t c = 0; c < oracle->clients; c++)
                busy |=
                    atomic_load(&oracle->client[c].attempted) + ORACLE_WINDOW <= oracle->ops_limit;
            torture_sleep_ms(5);
        }
    }
    ok = server_end_clients(server, clients, count) && ok;
    atomic_store(&oracle->stop, 0);
    if (clean && ok && !server_aidbctl(server, (const char *[]){"stop", "-D", server->data, NULL}))
        ok = torture_failed(torture, "aidbctl stop failed: see aidbctl.log");
    if (!process_gone(server->pid))
        ok = server_kill(server, true) && ok;
    return server_check_log(server, "aidb.log") && ok;
}

typedef struct CutAt {
    uint32_t call;
    bool strict; /* nothing unsynced is left */
} CutAt;

static int by_call(const void *a, const void *b)
{
    uint32_t x = ((const CutAt *)a)->call, y = ((const CutAt *)b)->call;
    return x < y ? -1 : x > y;
}

/* The cuts of one run, in the order of the calls. Freed by the caller. */
static CutAt *choose_cuts(Power *power, const Journal *journal, uint32_t all, size_t *count)
{
    Torture *torture = power->torture;
    *count = power->every    ? (size_t)all + 1
             : power->killed ? 4 + (size_t)torture_below(torture, 5)
                             : 8 + (size_t)torture_below(torture, 17);
    CutAt *cuts = calloc(2 * *count, sizeof *cuts);
    if (cuts == NULL)
        exit(2);
    for (size_t i = 0; i < *count; i++)
        cuts[i].call = power->every ? (uint32_t)i : choose_call(torture, journal, power->from, all);
    DiskRecord record;
    size_t once = *count;
    for (size_t at = 0; power->every && journal_next(journal, &at, &record);)
        if ((record.type == DISK_RECORD_SYNC || record.type == DISK_RECORD_WRITE_SYNCED ||
             record.type == DISK_RECORD_DIRECTORY_SYNC) &&
            *count < 2 * once)
            cuts[(*count)++] = (CutAt){.call = record.call, .strict = true};
    qsort(cuts, *count, sizeof *cuts, by_call);
    return cuts;
}

/* Builds and checks what the cuts leave of one run. One of them is left in power->next. */
static bool cut_run(Power *power, Disk *disk, Journal *journal, uint32_t all)
{
    Torture *torture = power->torture;
    Oracle *oracle = torture->oracle;
    size_t count;
    CutAt *cuts = choose_cuts(power, journal, all, &count);
    size_t chosen = (size_t)torture_below(torture, count);
    uint32_t most[ORACLE_CLIENTS_MAX] = {0};
    bool ok = true;
    for (size_t i = 0; i < count && ok && !torture_over(torture); i++) {
        OracleResult result = {.message = ""};
        Cut cut = choose_cut(torture, cuts[i].call);
        if (cuts[i].strict)
            cut.mode = CUT_NOTHING;
        torture->rounds++;
        journal_follow(journal, disk, cuts[i].call);
        ok = build(disk, power->cut, cut) && (i != chosen || build(disk, power->next, cut));
        if (!ok) {
            (void)torture_failed(torture, "could not build %s", power->cut);
            break;
        }
        ok = check_directory(torture, power->cut, AIDB_FSYNC, cuts[i].call, &result);
        if (!ok) {
            char kept[TORTURE_PATH];
            torture_path(torture, "failed", kept);
            (void)build(disk, kept, cut);
            (void)torture_failed(torture, "at call %u of %u, mode %d; as it was: %s", cuts[i].call,
                                 all, (int)cut.mode, kept);
            break;
        }
        torture_count(torture, &result);
        remove_tree(power->cut);
        if (i == chosen)
            memcpy(most, oracle->most, sizeof most);
    }
    free(cuts);
    if (ok)
        memcpy(oracle->most, most, sizeof most);
    return ok;
}

/* What a run did, so that the figures tell whether it flushed, compacted, rotated and edited. */
static void count_run(Power *power, const Journal *journal)
{
    DiskRecord record;
    uint64_t manifest = power->manifest;
    for (size_t at = 0, from = 0; journal_next(journal, &at, &record); from = at) {
        const char *path = (const char *)journal->bytes + from + sizeof record;
        if (record.type == DISK_RECORD_CREATE && record.path_size > 8) {
            power->tables += memcmp(path, "sst/", 4) == 0;
            power->segments += memcmp(path, "wal/", 4) == 0;
            if (memcmp(path, "MANIFEST", 8) == 0)
                manifest = record.inode;
        }
        /* An edit syncs twice: itself, then the slot that seals it. */
        power->edits += record.type == DISK_RECORD_SYNC && record.inode == manifest;
    }
}

static bool power_run(Power *power)
{
    Torture *torture = power->torture;
    Oracle *oracle = torture->oracle;
    static Disk disk;
    Journal journal;
    if (!disk_load(&disk, power->data))
        return torture_failed(torture, "could not read %s", power->data);
    power->manifest = 0;
    for (size_t i = 0; i < disk.current.count; i++)
        if (strncmp(disk.current.names[i].path, "MANIFEST", 8) == 0)
            power->manifest = disk.current.names[i].inode->number;
    disk_reset(power->control);
    power_journal_remove(power->journal);
    /* Few syncs of the log leave its order with tables and manifest to the engine. */
    static const uint32_t percents[] = {0, 3, 60};
    oracle->fsync_percent = percents[torture_below(torture, 3)];
    oracle->flush_permille = torture_below(torture, 2) == 0 || power->every ? 20 : 0;
    if (!(power->is_server ? run_server(power)
          : power->killed  ? run_killed(power)
                           : run_program(power)))
        return false;
    if (!journal_map(power->journal, power->control, &journal))
        return torture_failed(torture, "could not read %s", power->journal);
    uint32_t all = atomic_load(&power->control->calls);
    if (all == 0)
        return torture_failed(torture, "no calls were made: is %s preloaded?", torture->shim);
    power->runs++;
    power->calls += all;
    count_run(power, &journal);
    bool ok = cut_run(power, &disk, &journal, all);
    disk_free(&disk);
    journal_unmap(&journal);
    if (!ok || torture_over(torture))
        return ok;
    oracle_advance(oracle);
    remove_tree(power->data);
    if (rename(power->next, power->data) != 0)
        return torture_failed(torture, "could not rename %s", power->next);
    return true;
}

bool power_campaign(Torture *torture)
{
    static Power power;
    power = (Power){.torture = torture,
                    .every = strstr(torture->campaign, "-every") != NULL,
                    .killed = strcmp(torture->campaign, "power-killed") == 0,
                    .is_server = strncmp(torture->campaign, "server", 6) == 0};
    torture_path(torture, "data", power.data);
    torture_path(torture, "next", power.next);
    torture_path(torture, "cut", power.cut);
    torture_path(torture, "control", power.control_path);
    torture_path(torture, "journal", power.journal);
    Oracle *oracle = torture->oracle;
    if (oracle->clients > 3)
        oracle->clients = 3;
    oracle->async_percent = 20;
    power.control = disk_map(power.control_path, sizeof *power.control, true);
    if (power.control == NULL)
        return torture_failed(torture, "could not map %s", power.control_path);
    bool ok = true;
    if (power.is_server) {
        ok = server_init(torture, &power.server);
        power.server.control = power.control_path;
        power.server.journal = power.journal;
        power.server.now = &power.control->calls;
    } else if (mkdir(power.data, 0700) != 0) {
        return torture_failed(torture, "could not make %s", power.data);
    }
    while (ok && (torture->deadline_ms != 0 ? torture_now_ms() < torture->deadline_ms
                  : power.every             ? power.runs < torture->iterations
                                            : torture->rounds < torture->iterations))
        ok = power_run(&power);
    snprintf(torture->note, sizeof torture->note,
             "cuts in %llu runs of %llu I/O calls, %llu kills, that made %llu tables, %llu log "
             "segments and "
             "%llu syncs of the manifest",
             (unsigned long long)power.runs, (unsigned long long)power.calls,
             (unsigned long long)power.kills, (unsigned long long)power.tables,
             (unsigned long long)power.segments, (unsigned long long)power.edits);
    return ok;
}
