/*
 * live.c - aidbctl flush, compact, top: commands that talk to the store through libaidb, whether a
 * server runs or not.
 */
#include "config.h"

#include "bin/aidbctl/ctl.h"

#include "port/port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int control(const Arguments *arguments, const char *command, const aidb_range *range)
{
    aidb *db;
    int result = open_store(arguments->directory, &db);
    if (result != CTL_OK)
        return result;
    uint64_t started = port_monotonic_ns();
    if (aidb_control(db, command, range) != AIDB_OK) {
        ctl_error("%s", aidb_error_message());
        result = CTL_ERROR;
    }
    if (aidb_close(db) != AIDB_OK && result == CTL_OK) {
        ctl_error("%s", aidb_error_message());
        result = CTL_ERROR;
    }
    if (result == CTL_OK)
        printf("%s done in %.1f s\n", command, (double)(port_monotonic_ns() - started) / 1e9);
    return result;
}

int command_flush(Arguments *arguments)
{
    int result = reject_rest(arguments, "flush");
    return result != CTL_OK ? result : control(arguments, "flush", NULL);
}

int command_compact(Arguments *arguments)
{
    aidb_range range = {{NULL, 0}, {NULL, 0}};
    const char *from, *to;
    if (!take_range(arguments, &from, &to))
        return CTL_USAGE;
    if (from != NULL)
        range.from = (aidb_key){from, strlen(from)};
    if (to != NULL)
        range.to = (aidb_key){to, strlen(to)};
    int result = reject_rest(arguments, "compact");
    return result != CTL_OK ? result : control(arguments, "compact", &range);
}

/* ---- top ------------------------------------------------------------------------------------- */

typedef struct Sample {
    char *text; /* lines of name TAB value */
    uint64_t taken_ns;
} Sample;

/* The number behind a name, 0 when it is not there. */
static double sample_number(const Sample *sample, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = sample->text; at != NULL && *at != '\0';) {
        if (strncmp(at, name, size) == 0 && at[size] == '\t')
            return strtod(at + size + 1, NULL);
        at = strchr(at, '\n');
        if (at != NULL)
            at++;
    }
    return 0;
}

static void print_text_of(const Sample *sample, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = sample->text; at != NULL && *at != '\0';) {
        if (strncmp(at, name, size) == 0 && at[size] == '\t') {
            printf("%.*s", (int)strcspn(at + size + 1, "\n"), at + size + 1);
            return;
        }
        at = strchr(at, '\n');
        if (at != NULL)
            at++;
    }
}

static double per_second(const Sample *before, const Sample *now, const char *name)
{
    double seconds = (double)(now->taken_ns - before->taken_ns) / 1e9;
    double change = sample_number(now, name) - sample_number(before, name);
    return seconds > 0 && change > 0 ? change / seconds : 0;
}

static void print_table(aidb *db, const char *name)
{
    char *text;
    if (aidb_property(db, name, &text) != AIDB_OK)
        return;
    /* Columns at every 14th place. */
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        printf("  ");
        for (char *cell = line; cell != NULL;) {
            char *tab = strchr(cell, '\t');
            if (tab != NULL)
                *tab++ = '\0';
            printf("%-13s ", cell);
            cell = tab;
        }
        printf("\n");
        if (end == NULL)
            break;
        line = end + 1;
    }
    aidb_free(text);
}

static void print_sample(aidb *db, const Sample *before, const Sample *now)
{
    const double mib = 1048576.0;
    time_t clock = time(NULL);
    struct tm parts;
    char stamp[32] = "";
    if (localtime_r(&clock, &parts) != NULL)
        strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &parts);
    printf("%s  gets/s %.0f  scan rows/s %.0f  writes/s %.0f  operations/s %.0f  syncs/s %.0f\n",
           stamp, per_second(before, now, "gets"), per_second(before, now, "scan_rows"),
           per_second(before, now, "writes"), per_second(before, now, "write_operations"),
           per_second(before, now, "wal_syncs"));
    printf("cache hit ratio ");
    print_text_of(now, "cache_hit_ratio");
    printf("  cache %.0f of %.0f MiB  memtables %.0f of %.0f MiB  tables %.0f (%.0f MiB)\n",
           sample_number(now, "cache_used") / mib, sample_number(now, "cache_size") / mib,
           sample_number(now, "memtable_memory_used") / mib,
           sample_number(now, "memtable_memory") / mib, sample_number(now, "tables"),
           sample_number(now, "table_bytes") / mib);
    printf("flush %.1f MiB/s  compaction %.1f MiB/s (%.0f running)  write amplification ",
           per_second(before, now, "flush_bytes") / mib,
           per_second(before, now, "compaction_write_bytes") / mib,
           sample_number(now, "compactions_running"));
    print_text_of(now, "write_amplification");
    printf("  writers slowed: ");
    print_text_of(now, "throttle");
    printf("\n\n");
    print_table(db, "levels");
    printf("\n");
    print_table(db, "backends");
    fflush(stdout);
}

static int take_sample(aidb *db, Sample *sample)
{
    sample->taken_ns = port_monotonic_ns();
    if (aidb_property(db, "status", &sample->text) == AIDB_OK)
        return CTL_OK;
    ctl_error("%s", aidb_error_message());
    return CTL_ERROR;
}

int command_top(Arguments *arguments)
{
    long seconds = 2, times = 0;
    const char *value;
    if (take_option(arguments, "--delay", "-d", &value) &&
        !parse_number("-d", value, 1, 3600, &seconds))
        return CTL_USAGE;
    if (take_option(arguments, "--times", "-n", &value) &&
        !parse_number("-n", value, 1, 1000000, &times))
        return CTL_USAGE;
    int result = reject_rest(arguments, "top");
    if (result != CTL_OK)
        return result;
    Holder holder;
    if (holder_read(arguments->directory, &holder) != AIDB_OK)
        return ctl_failed();
    if (!holder.server) {
        ctl_error("no server runs on %s", arguments->directory);
        return CTL_ERROR;
    }
    aidb *db;
    result = open_store(arguments->directory, &db);
    if (result != CTL_OK)
        return result;
    Sample before = {0}, now = {0};
    result = take_sample(db, &before);
    bool terminal = isatty(STDOUT_FILENO);
    for (long i = 0; result == CTL_OK && (times == 0 || i < times); i++) {
        struct timespec delay = {.tv_sec = seconds};
        nanosleep(&delay, NULL);
        result = take_sample(db, &now);
        if (result != CTL_OK)
            break;
        if (terminal)
            printf("\033[H\033[J");
        print_sample(db, &before, &now);
        aidb_free(before.text);
        before = now;
        now = (Sample){0};
    }
    aidb_free(before.text);
    aidb_free(now.text);
    if (aidb_close(db) != AIDB_OK && result == CTL_OK)
        result = CTL_ERROR;
    return result;
}
