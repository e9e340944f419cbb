/*
 * repair.c - aidbctl repair: makes a new data directory from what can be read of a damaged one, and lists
 * what was lost. The damaged one is only read, but for its lock (postmaster.pid), which comes and goes.
 */
#include "config.h"

#include "bin/aidbctl/ctl.h"

#include "engine/db/db.h"
#include "io/io.h"
#include "port/port.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

typedef struct Report {
    bool json;
    bool undone; /* something was lost that may bring old values back */
    uint64_t count;
} Report;

/* ---- what was lost ------------------------------------------------------------------------------- */

static void print_hex(Slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++)
        printf("%02x", bytes.data[i]);
}

static void print_key(bool known, Slice key, const char *open)
{
    if (!known) {
        fputs(open, stdout);
        return;
    }
    putchar('"');
    print_bytes(key, false);
    putchar('"');
}

static void print_loss_json(const Report *report, const DbLoss *loss)
{
    printf("%s\n    {\"file\": ", report->count > 1 ? "," : "");
    print_json_string(loss->path);
    printf(", \"offset\": %" PRIu64, loss->offset);
    if (loss->size > 0)
        printf(", \"size\": %" PRIu64, loss->size);
    printf(", \"what\": ");
    print_json_string(loss->what);
    if (loss->entries || loss->range_deletes) {
        printf(", \"entries\": %s, \"range_deletes\": %s", loss->entries ? "true" : "false",
               loss->range_deletes ? "true" : "false");
        if (loss->has_from) {
            printf(", \"first_key_hex\": \"");
            print_hex(loss->from);
            putchar('"');
        }
        if (loss->has_to) {
            printf(", \"last_key_hex\": \"");
            print_hex(loss->to);
            putchar('"');
        }
    }
    if (loss->log) {
        printf(", \"first_lsn\": %" PRIu64, loss->lsn_from);
        if (loss->lsn_to > 0)
            printf(", \"end_lsn\": %" PRIu64, loss->lsn_to);
    }
    putchar('}');
}

static void print_loss(void *arg, const DbLoss *loss)
{
    Report *report = arg;
    report->count++;
    report->undone = report->undone || loss->entries || loss->range_deletes || loss->log;
    if (report->json) {
        print_loss_json(report, loss);
        return;
    }
    printf("lost: %s: %" PRIu64 ": ", loss->path, loss->offset);
    if (loss->size > 0)
        printf("%" PRIu64 " bytes: ", loss->size);
    printf("%s", loss->what);
    if (loss->entries || loss->range_deletes) {
        printf(loss->entries ? "; keys from " : "; range deletes of keys from ");
        print_key(loss->has_from, loss->from, "the first");
        printf(" to ");
        print_key(loss->has_to, loss->to, "the last");
    }
    if (loss->log) {
        printf("; writes from LSN %" PRIu64, loss->lsn_from);
        if (loss->lsn_to > 0)
            printf(" to %" PRIu64, loss->lsn_to);
        else
            printf(" on");
    }
    putchar('\n');
}

/* ---- directories --------------------------------------------------------------------------------- */

typedef struct Total {
    const char *folder;
    uint64_t bytes;
} Total;

static Status add_size(void *arg, const char *name)
{
    Total *total = arg;
    struct stat info;
    char *path = path_join(total->folder, name);
    if (path != NULL && stat(path, &info) == 0 && S_ISREG(info.st_mode))
        total->bytes += (uint64_t)info.st_size;
    free(path);
    return AIDB_OK;
}

static uint64_t folder_size(const char *directory, const char *name)
{
    Total total = {.folder = path_join(directory, name)};
    if (total.folder == NULL || directory_list(total.folder, add_size, &total) != AIDB_OK)
        total.bytes = 0;
    free((char *)total.folder);
    return total.bytes;
}

/* Tells when the new directory's disk may be too small; going on is right all the same, because what is
 * written is usually less than what is read. */
static void check_room(const char *directory, const char *new_directory)
{
    uint64_t need = folder_size(directory, "sst") + folder_size(directory, "wal");
    struct statvfs disk;
    if (statvfs(new_directory, &disk) != 0)
        return;
    uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (room < need)
        ctl_error("the repair may need %" PRIu64 " MiB, and the disk of %s has %" PRIu64
                  " MiB left: it ends with \"no space left\" when that is not enough",
                  need >> 20, new_directory, room >> 20);
}

static bool is_inside(const char *directory, const char *new_directory)
{
    char *outer = realpath(directory, NULL);
    char *parent = strdup(new_directory);
    bool inside = false;
    while (outer != NULL && parent != NULL && !inside) {
        char *inner = realpath(parent, NULL);
        if (inner != NULL) {
            size_t size = strlen(outer);
            inside =
                strncmp(inner, outer, size) == 0 && (inner[size] == '/' || inner[size] == '\0');
            free(inner);
            break;
        }
        char *slash = strrchr(parent, '/'); /* not made yet: its parent decides */
        if (slash == NULL || slash == parent)
            strcpy(parent, slash == NULL ? "." : "/");
        else
            *slash = '\0';
    }
    free(outer);
    free(parent);
    return inside;
}

static int check_free(const char *directory)
{
    Holder holder;
    if (holder_read(directory, &holder) != AIDB_OK)
        return ctl_failed();
    if (!holder.held)
        return CTL_OK;
    ctl_error("\"%s\" is in use by process %d\nhint: Stop it first: aidbctl stop -D %s.", directory,
              holder.info.pid, directory);
    return CTL_ERROR;
}

/* Nobody may have the store open, and nobody may open it while it is read: its lock is taken, as by an open.
 * A disk that cannot be written, or a directory of somebody else, has no place for a lock: there the store is
 * looked at before and after. */
static int lock_store(const char *directory, PidFile *lock)
{
    Status status = pidfile_lock(directory, lock);
    if (status == AIDB_OK) {
        PidInfo info = {.pid = (int)getpid(),
                        .started = port_realtime_us() / 1000000u,
                        .state = "embedded",
                        .version = AIDB_VERSION};
        return pidfile_write(lock, &info) == AIDB_OK ? CTL_OK : ctl_failed();
    }
    if (status == AIDB_NO_MEMORY)
        return ctl_failed();
    int result = check_free(directory);
    if (result == CTL_OK && status == AIDB_LOCKED) /* given back since */
        result = ctl_failed();
    return result;
}

/* The settings of the damaged store as far as they can be read, and a configuration file for the new one. */
static int take_config(const char *directory, const char *new_directory, Config *config)
{
    char *from = path_join(directory, CONFIG_FILE_NAME);
    char *to = path_join(new_directory, CONFIG_FILE_NAME);
    Buffer text = {0};
    Status status = from != NULL && to != NULL ? AIDB_OK : AIDB_NO_MEMORY;
    if (status == AIDB_OK && config_load(from, config) == AIDB_OK) {
        status = file_read_whole(from, CONFIG_FILE_SIZE_MAX, &text);
    } else if (status == AIDB_OK) {
        ctl_error("%s; the new directory gets the default settings", status_message());
        config_init(config);
        status = config_sample(config, &text);
    }
    if (status == AIDB_OK)
        status = file_replace(to, text.data, text.size, 0600);
    buffer_deinit(&text);
    free(from);
    free(to);
    return status == AIDB_OK ? CTL_OK : ctl_failed();
}

static int check_directories(const char *directory, const char *new_directory)
{
    struct stat info;
    if (stat(directory, &info) != 0 || !S_ISDIR(info.st_mode)) {
        ctl_error("there is no directory \"%s\"", directory);
        return CTL_NO_DIRECTORY;
    }
    char *sst = path_join(directory, "sst");
    char *wal = path_join(directory, "wal");
    bool database = db_exists(directory) || (sst != NULL && file_exists(sst)) ||
                    (wal != NULL && file_exists(wal));
    free(sst);
    free(wal);
    if (!database) {
        ctl_error("there is nothing of a database in \"%s\"", directory);
        return CTL_ERROR;
    }
    if (is_inside(directory, new_directory)) {
        ctl_error("\"%s\" lies in \"%s\", which a repair does not change\n"
                  "hint: Name a new directory elsewhere.",
                  new_directory, directory);
        return CTL_ERROR;
    }
    return CTL_OK;
}

/* ---- the command ---------------------------------------------------------------------------------- */

static void print_summary(const DbRepair *repair, const Report *report)
{
    printf("read %" PRIu64 " tables and %" PRIu64 " log records\n", repair->tables,
           repair->log_records);
    if (repair->log_unproven > 0)
        printf("%" PRIu64
               " of the log records are vouched for by their hashes only: what tells them "
               "from data made to look like them was lost with the manifest\n",
               repair->log_unproven);
    printf("wrote %" PRIu64 " keys in %" PRIu64 " tables to %s\n", repair->keys,
           repair->written_tables, repair->new_directory);
    if (repair->losses == 0) {
        printf("nothing was lost\n");
        return;
    }
    printf("%" PRIu64 " %s lost\n", repair->losses,
           repair->losses == 1 ? "part was" : "parts were");
    if (report->undone)
        printf(
            "where newer versions or deletes were lost, older values may be back; where a block of "
            "a table was lost, a batch may be there in part\n");
}

static int repair_run(const char *directory, const char *new_directory, const Config *config,
                      bool locked, Report *report)
{
    DbRepair repair = {.directory = directory,
                       .new_directory = new_directory,
                       .options = &config->engine,
                       .report = print_loss,
                       .arg = report};
    if (report->json)
        printf("{\"losses\": [");
    Status status = db_repair(&repair);
    if (report->json && status == AIDB_OK) {
        printf("%s],\n \"tables_read\": %" PRIu64 ", \"log_records_read\": %" PRIu64
               ", \"log_records_unproven\": %" PRIu64 ", \"keys\": %" PRIu64
               ", \"tables_written\": %" PRIu64 "}\n",
               report->count > 0 ? "\n " : "", repair.tables, repair.log_records,
               repair.log_unproven, repair.keys, repair.written_tables);
    } else if (status == AIDB_OK) {
        print_summary(&repair, report);
    }
    fflush(stdout);
    if (status != AIDB_OK) {
        ctl_failed();
        ctl_error("the repair did not end; remove \"%s\" before trying again", new_directory);
        return CTL_ERROR;
    }
    int result = locked ? CTL_OK : check_free(directory);
    if (result != CTL_OK) {
        ctl_error("\"%s\" was opened while it was read: do not use \"%s\"", directory,
                  new_directory);
        return result;
    }
    return repair.losses > 0 ? CTL_LOSSES : CTL_OK;
}

int command_repair(Arguments *arguments)
{
    Report report = {.json = take_flag(arguments, "--json", "-j")};
    if (arguments->count < 1 || arguments->count > 2 ||
        (arguments->count == 1 && arguments->directory == NULL)) {
        ctl_error("repair takes the damaged directory and a new one");
        return CTL_USAGE;
    }
    const char *directory = arguments->count == 2 ? arguments->items[0] : arguments->directory;
    const char *new_directory = arguments->items[arguments->count - 1];
    int result = check_directories(directory, new_directory);
    if (result != CTL_OK)
        return result;
    PidFile lock;
    Config config;
    result = lock_store(directory, &lock);
    if (result == CTL_OK)
        result = make_directory(new_directory);
    if (result == CTL_OK)
        result = take_config(directory, new_directory, &config);
    if (result == CTL_OK) {
        check_room(directory, new_directory);
        result = repair_run(directory, new_directory, &config, lock.fd >= 0, &report);
    }
    pidfile_release(&lock);
    return result;
}
