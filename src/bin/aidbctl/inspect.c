/*
 * inspect.c - aidbctl verify, dump-table, dump-wal, dump-manifest: reading files without a server and
 * without writing anything.
 */
#include "config.h"

#include "bin/aidbctl/ctl.h"

#include "engine/db/db.h"
#include "io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- printing -------------------------------------------------------------------------------- */

void print_bytes(Slice bytes, bool hex)
{
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];
        if (hex)
            printf("%02x", byte);
        else if (byte == '\\')
            printf("\\\\");
        else if (byte == '\n')
            printf("\\n");
        else if (byte == '\t')
            printf("\\t");
        else if (byte < 0x20 || byte >= 0x7f)
            printf("\\x%02x", byte);
        else
            putchar(byte);
    }
}

static const char *type_name(uint8_t type)
{
    switch (type) {
    case OP_PUT:
        return "put";
    case OP_DELETE:
        return "delete";
    case OP_DELETE_RANGE:
        return "delete-range";
    default:
        return "unknown";
    }
}

/* ---- verify ---------------------------------------------------------------------------------- */

static void report_damage(void *arg, const char *path, uint64_t offset, const char *what)
{
    ++*(uint64_t *)arg;
    printf("%s: %" PRIu64 ": %s\n", path, offset, what);
}

int command_verify(Arguments *arguments)
{
    int result = reject_rest(arguments, "verify");
    if (result != CTL_OK)
        return result;
    Holder holder;
    if (!db_exists(arguments->directory)) {
        ctl_error("there is no database in \"%s\"", arguments->directory);
        return CTL_ERROR;
    }
    if (holder_read(arguments->directory, &holder) != AIDB_OK)
        return ctl_failed();
    uint64_t damages = 0;
    if (db_verify(arguments->directory, holder.held, report_damage, &damages) != AIDB_OK)
        return ctl_failed();
    if (damages > 0) {
        fflush(stdout);
        ctl_error("%" PRIu64 " %s found in %s", damages, damages == 1 ? "damage" : "damages",
                  arguments->directory);
        return CTL_ERROR;
    }
    printf("%s is sound\n", arguments->directory);
    return CTL_OK;
}

/* ---- dump-table ------------------------------------------------------------------------------ */

typedef struct DumpOptions {
    bool hex;
    bool sequences; /* LSNs and types without keys and values */
    bool info_only;
    const char *from;
    const char *to;
} DumpOptions;

static bool take_dump_options(Arguments *arguments, DumpOptions *options)
{
    *options = (DumpOptions){.hex = take_flag(arguments, "--hex", "-x"),
                             .sequences = take_flag(arguments, "--sequences", NULL),
                             .info_only = take_flag(arguments, "--info", NULL)};
    return take_range(arguments, &options->from, &options->to);
}

static void print_info(const TableInfo *info)
{
    printf("# term %u, number %" PRIu64 ", id %016" PRIx64 "%016" PRIx64 "\n",
           TABLE_TERM(info->number), (uint64_t)TABLE_SEQUENCE(info->number), info->id[0],
           info->id[1]);
    printf("# file %" PRIu64 " bytes, data %" PRIu64 ", index %u at %" PRIu64
           " (%u levels), filter %u x %u at %" PRIu64 ", range tombstones %u at %" PRIu64 "\n",
           info->file_size, info->data_size, info->index_size, info->index_offset,
           info->index_levels, info->filter_sections, info->filter_section_size,
           info->filter_offset, info->range_size, info->range_offset);
    printf("# entries %" PRIu64 ", deletes %" PRIu64 ", range fragments %" PRIu64
           ", raw bytes %" PRIu64 ", LSN %" PRIu64 " to %" PRIu64 "\n",
           info->entries, info->deletes, info->range_deletes, info->raw_bytes, info->lsn_min,
           info->lsn_max);
}

static void print_entry(const Entry *entry, const DumpOptions *options)
{
    printf("%" PRIu64 "\t%s", entry->lsn, type_name(entry->type));
    if (!options->sequences) {
        putchar('\t');
        print_bytes(entry->key, options->hex);
        if (entry->type == OP_PUT) {
            putchar('\t');
            print_bytes(entry->value, options->hex);
        }
    }
    putchar('\n');
}

static Status dump_ranges(TableReader *reader, const TableInfo *info, const DumpOptions *options)
{
    RangeFragments fragments = {0};
    RETURN_IF_FAILED(table_fragments(reader, info, &fragments));
    for (size_t i = 0; i < fragments.count; i++) {
        const RangeFragment *fragment = &fragments.items[i];
        for (uint32_t j = 0; j < fragment->lsn_count; j++) {
            printf("%" PRIu64 "\t%s", fragment->lsns[j], type_name(OP_DELETE_RANGE));
            if (!options->sequences) {
                putchar('\t');
                print_bytes(fragment->from, options->hex);
                putchar('\t');
                print_bytes(fragment->to, options->hex);
            }
            putchar('\n');
        }
    }
    range_fragments_deinit(&fragments);
    return AIDB_OK;
}

static Status dump_entries(TableReader *reader, const TableInfo *info, const DumpOptions *options)
{
    Iter *iter;
    RETURN_IF_FAILED(table_iter_create(reader, info, TABLE_READAHEAD_JOB, &iter));
    Status status = options->from != NULL
                        ? iter->ops->seek(iter, slice_from_string(options->from), LSN_MAX)
                        : iter->ops->seek_first(iter);
    while (status == AIDB_OK && iter->valid) {
        if (options->to != NULL &&
            slice_compare(iter->entry.key, slice_from_string(options->to)) >= 0)
            break;
        print_entry(&iter->entry, options);
        status = iter->ops->next(iter);
    }
    iter_destroy(iter);
    return status;
}

int command_dump_table(Arguments *arguments)
{
    DumpOptions options;
    if (!take_dump_options(arguments, &options))
        return CTL_USAGE;
    if (arguments->count != 1) {
        ctl_error("dump-table takes the path of one table");
        return CTL_USAGE;
    }
    const char *path = arguments->items[0];
    TableInfo info;
    if (table_info_read(path, NULL, &info) != AIDB_OK)
        return ctl_failed();
    print_info(&info);
    if (options.info_only)
        return CTL_OK;
    char name[TABLE_NAME_SIZE];
    table_name(info.number, name);
    const char *slash = strrchr(path, '/');
    if (strcmp(slash != NULL ? slash + 1 : path, name) != 0) {
        ctl_error("\"%s\" holds table %s: give it that name to read its blocks", path, name);
        return CTL_ERROR;
    }
    char *directory =
        slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    TableReader reader = {0};
    Status status = directory == NULL ? status_set(AIDB_NO_MEMORY, "out of memory")
                                      : file_cache_create(directory, 4, &reader.files);
    if (status == AIDB_OK)
        status = dump_ranges(&reader, &info, &options);
    if (status == AIDB_OK)
        status = dump_entries(&reader, &info, &options);
    table_reader_deinit(&reader);
    if (reader.files != NULL)
        file_cache_destroy(reader.files);
    free(directory);
    return status == AIDB_OK ? CTL_OK : ctl_failed();
}

/* ---- dump-wal -------------------------------------------------------------------------------- */

static void print_record(const WalRecord *record, const DumpOptions *options)
{
    printf("# record LSN %" PRIu64 " to %" PRIu64 ", incarnation %u, time %" PRIu64
           " us, durable %" PRIu64 ", payload %zu bytes\n",
           record->lsn, record->end, record->incarnation, record->time_us, record->durable,
           record->payload.size);
    size_t cursor = 0;
    BatchOp op;
    bool damaged = false;
    while (batch_next(record->payload, &cursor, &op, &damaged)) {
        printf("%" PRIu64 "\t%s", record->payload_lsn + op.offset, type_name(op.type));
        if (!options->sequences) {
            putchar('\t');
            print_bytes(op.key, options->hex);
            if (op.type != OP_DELETE) {
                putchar('\t');
                print_bytes(op.value, options->hex);
            }
        }
        putchar('\n');
    }
    if (damaged)
        printf("# the payload is not a batch\n");
}

static bool take_lsn(const char *what, const char *text, uint64_t *lsn)
{
    if (text == NULL)
        return true;
    char *end;
    errno = 0;
    *lsn = strtoull(text, &end, 0);
    if (end == text || *end != '\0' || errno != 0) {
        ctl_error("%s must be an LSN, not \"%s\"", what, text);
        return false;
    }
    return true;
}

static Status dump_log(const char *directory, const ManifestState *state, uint64_t from,
                       uint64_t to, const DumpOptions *options)
{
    char *wal = path_join(directory, "wal");
    if (wal == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory");
    WalOptions wal_options = {.directory = wal,
                              .segment_size = state->identity.wal_segment_size,
                              .ring_size = state->identity.wal_ring_size};
    memcpy(wal_options.system_id, state->identity.system_id, sizeof wal_options.system_id);
    WalReader *reader = NULL;
    Status status = wal_reader_create(&wal_options, state->counters.starts,
                                      state->counters.start_count, from, to, &reader);
    WalRecord record;
    uint64_t end = from;
    while (status == AIDB_OK && (status = wal_reader_next(reader, &record)) == AIDB_OK) {
        print_record(&record, options);
        end = record.end;
    }
    if (reader != NULL)
        wal_reader_destroy(reader);
    free(wal);
    if (status == AIDB_NOT_FOUND)
        return AIDB_OK;
    /* Where the log is open-ended, what cannot be read at or above the horizon is its end. */
    if (status == AIDB_CORRUPTION && end >= state->counters.horizon) {
        printf("# the segments end at LSN %" PRIu64 " (%s)\n", end, status_message());
        return AIDB_OK;
    }
    return status;
}

int command_dump_wal(Arguments *arguments)
{
    DumpOptions options;
    if (!take_dump_options(arguments, &options))
        return CTL_USAGE;
    int result = reject_rest(arguments, "dump-wal");
    if (result != CTL_OK)
        return result;
    ManifestState state = {0};
    if (manifest_load(arguments->directory, &state) != AIDB_OK)
        return ctl_failed();
    uint64_t from = state.counters.flushed_lsn, to = UINT64_MAX;
    if (!take_lsn("--from", options.from, &from) || !take_lsn("--to", options.to, &to)) {
        manifest_state_deinit(&state);
        return CTL_USAGE;
    }
    printf("# tables hold everything below LSN %" PRIu64 "; known to be durable: LSN %" PRIu64 "\n",
           state.counters.flushed_lsn, state.counters.horizon);
    for (uint32_t i = 0; i < state.counters.start_count; i++)
        printf("# incarnation %u begins at LSN %" PRIu64 ", the log before it ended at %" PRIu64
               "\n",
               state.counters.starts[i].incarnation, state.counters.starts[i].first_lsn,
               state.counters.starts[i].previous_end);
    Status status = state.counters.start_count > 0
                        ? dump_log(arguments->directory, &state, from, to, &options)
                        : AIDB_OK;
    manifest_state_deinit(&state);
    return status == AIDB_OK ? CTL_OK : ctl_failed();
}

/* ---- dump-manifest --------------------------------------------------------------------------- */

static Status print_edit(void *arg, uint64_t offset, const VersionEdit *edit, uint64_t durable)
{
    bool hex = *(bool *)arg;
    printf("edit at %" PRIu64 ": durable %" PRIu64, offset, durable);
    if (edit->flushed_lsn != 0)
        printf(", flushed %" PRIu64, edit->flushed_lsn);
    if (edit->new_incarnation)
        printf(", takes incarnation %u", edit->incarnation);
    if (edit->new_start)
        printf(", log of incarnation %u begins at %" PRIu64 " (before it the log ended at %" PRIu64
               ")",
               edit->start.incarnation, edit->start.first_lsn, edit->start.previous_end);
    if (edit->term != 0)
        printf(", term %u", edit->term);
    if (edit->clean_stop)
        printf(", clean stop");
    printf("\n");
    for (size_t i = 0; i < edit->removed_count; i++) {
        char name[TABLE_NAME_SIZE];
        table_name(edit->removed[i].number, name);
        printf("  - level %u %s\n", edit->removed[i].level, name);
    }
    for (size_t i = 0; i < edit->added_count; i++) {
        const NewFile *file = &edit->added[i];
        char name[TABLE_NAME_SIZE];
        table_name(file->info.number, name);
        printf("  + level %u %s, %" PRIu64 " bytes, %" PRIu64 " entries, LSN %" PRIu64
               " to %" PRIu64 ", from ",
               file->level, name, file->info.file_size, file->info.entries, file->info.lsn_min,
               file->info.lsn_max);
        print_bytes(file->smallest, hex);
        printf(" to ");
        if (file->unbounded)
            printf("(no bound)");
        else
            print_bytes(file->largest, hex);
        printf("\n");
    }
    return AIDB_OK;
}

int command_dump_manifest(Arguments *arguments)
{
    bool hex = take_flag(arguments, "--hex", "-x");
    char *path = NULL;
    if (arguments->count > 1) {
        ctl_error("dump-manifest takes the path of one manifest");
        return CTL_USAGE;
    }
    if (arguments->count == 1) {
        path = strdup(arguments->items[0]);
    } else {
        if (arguments->directory == NULL) {
            ctl_error("which manifest?\nhint: Give its path, or the data directory with -D.");
            return CTL_USAGE;
        }
        ManifestState state = {0};
        if (manifest_load(arguments->directory, &state) != AIDB_OK)
            return ctl_failed();
        char name[64];
        snprintf(name, sizeof name, "MANIFEST-%06" PRIu64, state.manifest_number);
        path = path_join(arguments->directory, name);
        manifest_state_deinit(&state);
    }
    if (path == NULL)
        return CTL_ERROR;
    StoreIdentity identity;
    Status status = manifest_read(path, NULL, print_edit, &hex, &identity);
    free(path);
    if (status != AIDB_OK)
        return ctl_failed();
    printf("system id ");
    print_bytes(slice_make(identity.system_id, sizeof identity.system_id), true);
    printf(", segments of %" PRIu64 " bytes, ring of %" PRIu64 " bytes\n",
           identity.wal_segment_size, identity.wal_ring_size);
    return CTL_OK;
}
