/*
 * repair.c - makes a new store from what can be read of a damaged one. The damaged one is not changed.
 *
 * Everything that still holds versions of keys (tables, log) is merged; of each key the version with
 * the greatest LSN is kept unless it is a deletion or a range deletion with a greater LSN covers it. So
 * the order in which things are found does not matter, and finding the same version twice does no harm.
 *
 * Which tables count: those that the manifest names. When it is damaged, or something else is missing,
 * also every other whole table that is there and that no readable part of the manifest removes: a table
 * that was not installed yet holds what others hold, too.
 *
 * What is written: tables of the last level, then the log's ring, the manifest, and CURRENT last, so that
 * a repair that was cut short leaves no database. The new store has a system id of its own, a
 * new term, and begins behind the next multiple of 2^40: no LSN that anybody may have seen is used again.
 */
#include "config.h"

#include "engine/db/db_internal.h"

#include "port/port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LSN_STEP   (1ull << 40)
#define SPOOL_SIZE (64u << 20)

/* A table to read. */
typedef struct Source {
    char *path; /* owned */
    TableInfo info;
    bool expected; /* `info` is the manifest's */
    bool known;
    bool bounded; /* smallest and largest are known */
    Buffer smallest;
    Buffer largest;
} Source;

typedef struct SpoolEntry {
    size_t key_at;
    size_t value_at;
    uint32_t key_size;
    uint32_t value_size;
    uint64_t lsn;
    uint8_t type;
} SpoolEntry;

typedef struct HeldRange {
    size_t from_at, to_at;
    uint32_t from_size, to_size;
    uint64_t lsn;
} HeldRange;

typedef struct Repair {
    DbRepair *in;
    char *sst; /* folders of the damaged store */
    char *wal;
    char *new_sst;
    char *new_wal;
    uint8_t system_id[16];
    bool have_system_id;
    bool whole; /* the manifest can be read, and is the newest */
    ManifestState state;
    ManifestRemains remains;
    Source *sources;
    size_t source_count, source_capacity;
    const Source *reading; /* whose losses are being reported */

    Buffer spool; /* keys and values of operations from the log */
    SpoolEntry *entries;
    size_t entry_count, entry_capacity;
    uint64_t spool_lsn_min;

    Buffer range_bytes;
    HeldRange *ranges;
    size_t range_count, range_capacity;
    RangeFragments fragments;

    uint8_t new_system_id[16];
    uint32_t new_term;
    uint64_t next_number;
    uint64_t lsn_min, lsn_max;
    uint64_t *spooled; /* numbers of tables that are removed at the end */
    size_t spooled_count;
    VersionEdit edit; /* the new tables */
} Repair;

static Status no_memory(void)
{
    return status_set(AIDB_NO_MEMORY, "out of memory for a repair");
}

static Status grow(void **items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return AIDB_OK;
    size_t more = *capacity == 0 ? 64 : *capacity * 2;
    void *bigger = realloc(*items, more * size);
    if (bigger == NULL)
        return no_memory();
    *items = bigger;
    *capacity = more;
    return AIDB_OK;
}

static void lose(Repair *r, const DbLoss *loss)
{
    r->in->losses++;
    if (r->in->report != NULL)
        r->in->report(r->in->arg, loss);
}

/* ---- losses of tables --------------------------------------------------------------------------- */

static void table_lost(void *arg, const TableLoss *loss)
{
    Repair *r = arg;
    const Source *source = r->reading;
    DbLoss lost = {.path = loss->path,
                   .offset = loss->offset,
                   .size = loss->size,
                   .what = loss->what,
                   .entries = loss->entries,
                   .range_deletes = loss->range_deletes,
                   .has_from = loss->has_from,
                   .has_to = loss->has_to,
                   .from = loss->from,
                   .to = loss->to};
    if (source != NULL && source->bounded && !lost.has_from) {
        lost.has_from = true;
        lost.from = buffer_slice(&source->smallest);
    }
    if (source != NULL && source->bounded && !lost.has_to && source->largest.size > 0) {
        lost.has_to = true;
        lost.to = buffer_slice(&source->largest);
    }
    lose(r, &lost);
}

static void source_lost(Repair *r, const Source *source, const char *what)
{
    const Source *before = r->reading;
    r->reading = source;
    table_lost(r, &(TableLoss){.path = source->path,
                               .size = source->info.file_size,
                               .what = what,
                               .entries = true,
                               .range_deletes = !source->expected || source->info.range_size > 0});
    r->reading = before;
}

/* ---- range deletes ------------------------------------------------------------------------------- */

static Status hold_range(void *arg, const RangeTombstone *tombstone)
{
    Repair *r = arg;
    RETURN_IF_FAILED(
        grow((void **)&r->ranges, r->range_count, &r->range_capacity, sizeof *r->ranges));
    HeldRange *range = &r->ranges[r->range_count];
    *range = (HeldRange){.from_at = r->range_bytes.size,
                         .from_size = (uint32_t)tombstone->from.size,
                         .to_at = r->range_bytes.size + tombstone->from.size,
                         .to_size = (uint32_t)tombstone->to.size,
                         .lsn = tombstone->lsn};
    RETURN_IF_FAILED(buffer_append(&r->range_bytes, tombstone->from.data, tombstone->from.size));
    RETURN_IF_FAILED(buffer_append(&r->range_bytes, tombstone->to.data, tombstone->to.size));
    if (tombstone->lsn > r->lsn_max)
        r->lsn_max = tombstone->lsn;
    r->range_count++;
    return AIDB_OK;
}

static Status build_fragments(Repair *r)
{
    if (r->range_count == 0)
        return AIDB_OK;
    RangeTombstone *all = malloc(r->range_count * sizeof *all);
    if (all == NULL)
        return no_memory();
    for (size_t i = 0; i < r->range_count; i++) {
        const HeldRange *range = &r->ranges[i];
        all[i] = (RangeTombstone){
            .from = slice_make(r->range_bytes.data + range->from_at, range->from_size),
            .to = slice_make(r->range_bytes.data + range->to_at, range->to_size),
            .lsn = range->lsn};
    }
    Status status = range_fragments_build(all, r->range_count, &r->fragments);
    free(all);
    return status;
}

/* ---- tables to read ------------------------------------------------------------------------------ */

static void source_deinit(Source *source)
{
    free(source->path);
    buffer_deinit(&source->smallest);
    buffer_deinit(&source->largest);
}

static Status add_source(Repair *r, const char *folder, uint64_t number, Source **out)
{
    char name[TABLE_NAME_SIZE];
    table_name(number, name);
    RETURN_IF_FAILED(
        grow((void **)&r->sources, r->source_count, &r->source_capacity, sizeof *r->sources));
    Source *source = &r->sources[r->source_count];
    *source = (Source){.path = path_join(folder, name), .info.number = number};
    if (source->path == NULL)
        return no_memory();
    r->source_count++;
    *out = source;
    return AIDB_OK;
}

static Status source_bounds(Source *source, Slice smallest, Slice largest)
{
    source->bounded = true;
    RETURN_IF_FAILED(buffer_append(&source->smallest, smallest.data, smallest.size));
    return buffer_append(&source->largest, largest.data, largest.size);
}

static void note_lsns(Repair *r, const Source *source)
{
    if (source->info.lsn_min < r->lsn_min)
        r->lsn_min = source->info.lsn_min;
    if (source->known && source->info.lsn_max > r->lsn_max)
        r->lsn_max = source->info.lsn_max;
}

/* Looks at the last source for the first time: takes its range deletes, and drops it when nothing else can
 * be had of it. `optional`: it counts only if all of it can be read. */
static Status examine_source(Repair *r, bool optional)
{
    Source *source = &r->sources[r->source_count - 1];
    TableSalvage *salvage;
    r->reading = source;
    Status status =
        table_salvage_open(source->path, r->have_system_id ? r->system_id : NULL,
                           source->expected ? &source->info : NULL, table_lost, r, &salvage);
    if (status == AIDB_OK) {
        Slice smallest, largest;
        const TableInfo *info = table_salvage_info(salvage, &source->known, &smallest, &largest);
        source->info = *info;
        if (!source->bounded && source->known && smallest.size > 0)
            status = source_bounds(source, smallest, largest);
        if (status == AIDB_OK && !source->known && !optional)
            source_lost(
                r, source,
                "its properties are damaged: whether it was still in use is not known, and what "
                "it holds is used where nothing newer is found");
        if (status == AIDB_OK && (source->known || !optional)) {
            status = table_salvage_ranges(salvage, hold_range, r);
            note_lsns(r, source);
            r->in->tables++;
        }
        table_salvage_close(salvage);
        if (status == AIDB_OK && optional && !source->known)
            status = AIDB_CORRUPTION;
    } else if (!optional &&
               (status == AIDB_CORRUPTION || status == AIDB_NOT_FOUND || status == AIDB_IO)) {
        char what[256];
        snprintf(what, sizeof what, "%s",
                 status == AIDB_NOT_FOUND ? "the table is missing" : status_message());
        source_lost(r, source, what);
    }
    r->reading = NULL;
    if (status == AIDB_CORRUPTION || status == AIDB_NOT_FOUND || status == AIDB_IO) {
        source_deinit(source);
        r->source_count--;
        return AIDB_OK;
    }
    return status;
}

static Status take_live_tables(Repair *r)
{
    const NewFile *files = r->whole ? r->state.files : r->remains.files;
    size_t count = r->whole ? r->state.file_count : r->remains.file_count;
    for (size_t i = 0; i < count; i++) {
        Source *source;
        RETURN_IF_FAILED(add_source(r, r->sst, files[i].info.number, &source));
        source->expected = true;
        source->info = files[i].info;
        RETURN_IF_FAILED(source_bounds(source, files[i].smallest, files[i].largest));
        RETURN_IF_FAILED(examine_source(r, false));
    }
    return AIDB_OK;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool is_named(const Repair *r, uint64_t number)
{
    const NewFile *files = r->whole ? r->state.files : r->remains.files;
    size_t count = r->whole ? r->state.file_count : r->remains.file_count;
    for (size_t i = 0; i < count; i++)
        if (files[i].info.number == number)
            return true;
    return r->remains.removed_count > 0 &&
           bsearch(&number, r->remains.removed, r->remains.removed_count, sizeof number,
                   compare_numbers) != NULL;
}

static Status visit_other_table(void *arg, const char *name)
{
    Repair *r = arg;
    uint64_t number;
    if (!table_name_parse(name, &number))
        return AIDB_OK;
    if (is_named(r, number))
        return AIDB_OK;
    Source *source;
    RETURN_IF_FAILED(add_source(r, r->sst, number, &source));
    return examine_source(r, r->whole);
}

/* Tables that the manifest does not tell of. */
static Status take_other_tables(Repair *r)
{
    if (r->whole && r->in->losses == 0)
        return AIDB_OK;
    Status status = directory_list(r->sst, visit_other_table, r);
    return status == AIDB_NOT_FOUND ? AIDB_OK : status;
}

/* ---- writing tables ------------------------------------------------------------------------------ */

static uint64_t new_number(Repair *r)
{
    return TABLE_NUMBER(r->new_term, r->next_number++);
}

static TableOptions table_options(const Repair *r, bool temporary)
{
    const EngineOptions *options = r->in->options;
    TableOptions table = {.block_size = options->block_size,
                          .compression = temporary ? COMPRESSION_NONE : options->compression,
                          .compression_level = options->compression_level,
                          .filter_bits = temporary ? 0 : options->filter_bits};
    memcpy(table.system_id, r->new_system_id, sizeof table.system_id);
    return table;
}

/* ---- the log ------------------------------------------------------------------------------------- */

static int compare_spooled(const void *a, const void *b, void *arg)
{
    const SpoolEntry *x = a, *y = b;
    const uint8_t *bytes = arg;
    return entry_compare(slice_make(bytes + x->key_at, x->key_size), x->lsn,
                         slice_make(bytes + y->key_at, y->key_size), y->lsn);
}

/* Sorts what was collected from the log into a table of its own, which is read like any other. */
static Status write_spool(Repair *r)
{
    if (r->entry_count == 0)
        return AIDB_OK;
    TableOptions options = table_options(r, true);
    TableBuilder *builder = NULL;
    Source *source;
    uint64_t number = new_number(r);
    uint64_t *spooled = realloc(r->spooled, (r->spooled_count + 1) * sizeof *spooled);
    if (spooled == NULL)
        return no_memory();
    r->spooled = spooled;
    qsort_r(r->entries, r->entry_count, sizeof *r->entries, compare_spooled, r->spool.data);
    Status status = table_builder_create(&options, r->new_sst, number, r->spool_lsn_min, &builder);
    if (status != AIDB_OK)
        return status;
    for (size_t i = 0; i < r->entry_count; i++) {
        const SpoolEntry *spooled_entry = &r->entries[i];
        Entry entry = {
            .key = slice_make(r->spool.data + spooled_entry->key_at, spooled_entry->key_size),
            .value = slice_make(r->spool.data + spooled_entry->value_at, spooled_entry->value_size),
            .lsn = spooled_entry->lsn,
            .type = spooled_entry->type};
        OUT_IF_FAILED(table_builder_add(builder, &entry));
    }
    OUT_IF_FAILED(add_source(r, r->new_sst, number, &source));
    OUT_IF_FAILED(table_builder_finish(builder, &source->info));
    source->expected = source->known = true;
    Slice smallest, largest;
    table_builder_bounds(builder, &smallest, &largest);
    OUT_IF_FAILED(source_bounds(source, smallest, largest));
    note_lsns(r, source);
    r->spooled[r->spooled_count++] = number;
    buffer_clear(&r->spool);
    r->entry_count = 0;
out:
    table_builder_destroy(builder);
    return status;
}

static Status spool_operation(Repair *r, const BatchOp *op, uint64_t lsn)
{
    if (op->type == OP_DELETE_RANGE)
        return hold_range(r, &(RangeTombstone){.from = op->key, .to = op->value, .lsn = lsn});
    RETURN_IF_FAILED(
        grow((void **)&r->entries, r->entry_count, &r->entry_capacity, sizeof *r->entries));
    if (r->entry_count == 0)
        r->spool_lsn_min = lsn; /* LSNs rise */
    r->entries[r->entry_count++] = (SpoolEntry){.key_at = r->spool.size,
                                                .key_size = (uint32_t)op->key.size,
                                                .value_at = r->spool.size + op->key.size,
                                                .value_size = (uint32_t)op->value.size,
                                                .lsn = lsn,
                                                .type = op->type};
    RETURN_IF_FAILED(buffer_append(&r->spool, op->key.data, op->key.size));
    RETURN_IF_FAILED(buffer_append(&r->spool, op->value.data, op->value.size));
    return r->spool.size + r->entry_count * sizeof *r->entries > SPOOL_SIZE ? write_spool(r)
                                                                            : AIDB_OK;
}

static Status take_record(void *arg, const WalRecord *record)
{
    Repair *r = arg;
    uint32_t op_count, range_count;
    if (batch_check(record->payload, &op_count, &range_count) != AIDB_OK) {
        lose(r, &(DbLoss){.path = r->wal,
                          .what = "a log record holds no batch",
                          .log = true,
                          .lsn_from = record->lsn,
                          .lsn_to = record->end});
        return AIDB_OK;
    }
    size_t cursor = 0;
    BatchOp op;
    bool damaged = false;
    while (batch_next(record->payload, &cursor, &op, &damaged))
        RETURN_IF_FAILED(spool_operation(r, &op, record->payload_lsn + op.offset));
    return AIDB_OK;
}

static void log_lost(void *arg, const WalLoss *loss)
{
    lose(arg, &(DbLoss){.path = loss->path,
                        .offset = loss->offset,
                        .what = loss->what,
                        .log = true,
                        .lsn_from = loss->from,
                        .lsn_to = loss->to});
}

static void take_identity(const Repair *r, WalOptions *options, bool *sized)
{
    memcpy(options->system_id, r->system_id, sizeof options->system_id);
    const StoreIdentity *identity = r->whole ? &r->state.identity : &r->remains.identity;
    if (r->whole || r->remains.identified) {
        options->segment_size = identity->wal_segment_size;
        options->ring_size = identity->wal_ring_size;
        *sized = true;
    }
}

static Status take_log(Repair *r)
{
    WalOptions options = {.directory = r->wal};
    bool sized = false;
    RETURN_IF_FAILED(wal_identify(r->wal, &options, &sized));
    take_identity(r, &options, &sized);
    if (!sized) {
        lose(r, &(DbLoss){.path = r->wal,
                          .what = "manifest and ring are damaged: the log cannot be read",
                          .log = true});
        return AIDB_OK;
    }
    const StoreCounters *counters = r->whole ? &r->state.counters : &r->remains.counters;
    WalSalvage salvage = {.options = &options,
                          .starts = r->whole ? counters->starts : r->remains.starts,
                          .start_count = r->whole ? counters->start_count : r->remains.start_count,
                          .complete = r->whole,
                          .clean = r->whole && counters->clean_stop,
                          .from = r->whole ? counters->flushed_lsn : 0,
                          .horizon = r->whole ? counters->horizon : 0,
                          .visit = take_record,
                          .report = log_lost,
                          .arg = r};
    RETURN_IF_FAILED(wal_salvage(&salvage));
    RETURN_IF_FAILED(write_spool(r));
    r->in->log_records = salvage.records;
    r->in->log_unproven = salvage.unproven;
    r->in->log_end = salvage.log_end;
    if (salvage.end > r->lsn_max)
        r->lsn_max = salvage.end;
    return AIDB_OK;
}

/* ---- reading tables in order ---------------------------------------------------------------------- */

/* Tables that follow each other without overlapping, as one source: a store may have more tables than a
 * process may have open files. */
typedef struct Chain {
    Iter base;
    Repair *repair;
    const Source **items;
    size_t count, capacity;
    size_t next;
    TableSalvage *open;
} Chain;

static Status chain_settle(Chain *chain, const Entry *entry)
{
    while (entry == NULL) {
        table_salvage_close(chain->open);
        chain->open = NULL;
        if (chain->next == chain->count)
            return AIDB_OK;
        const Source *source = chain->items[chain->next++];
        Repair *r = chain->repair;
        r->reading = source;
        Status status =
            table_salvage_open(source->path, NULL, source->expected ? &source->info : NULL,
                               table_lost, r, &chain->open);
        if (status == AIDB_OK)
            status = table_salvage_first(chain->open, &entry);
        r->reading = NULL;
        RETURN_IF_FAILED(status);
    }
    chain->base.entry = *entry;
    chain->base.valid = true;
    return AIDB_OK;
}

static Status chain_first(Iter *iter)
{
    Chain *chain = (Chain *)iter;
    chain->base.valid = false;
    chain->next = 0;
    return chain_settle(chain, NULL);
}

static Status chain_next(Iter *iter)
{
    Chain *chain = (Chain *)iter;
    const Entry *entry;
    chain->base.valid = false;
    chain->repair->reading = chain->items[chain->next - 1];
    Status status = table_salvage_next(chain->open, &entry);
    chain->repair->reading = NULL;
    return status == AIDB_OK ? chain_settle(chain, entry) : status;
}

static void chain_destroy(Iter *iter)
{
    Chain *chain = (Chain *)iter;
    table_salvage_close(chain->open);
    free(chain->items);
    free(chain);
}

static const IterOps chain_ops = {
    .seek_first = chain_first, .next = chain_next, .destroy = chain_destroy};

static int compare_sources(const void *a, const void *b)
{
    const Source *x = a, *y = b;
    if (x->bounded != y->bounded)
        return x->bounded ? 1 : -1;
    return slice_compare(buffer_slice(&x->smallest), buffer_slice(&y->smallest));
}

/* Whether all keys of a chain lie below those of a source. */
static bool chain_fits(const Chain *chain, const Source *source)
{
    const Source *last = chain->items[chain->count - 1];
    return last->bounded && source->bounded && last->largest.size > 0 &&
           slice_compare(buffer_slice(&last->largest), buffer_slice(&source->smallest)) < 0;
}

static Status make_chains(Repair *r, Iter ***chains, size_t *count)
{
    *count = 0;
    *chains = calloc(r->source_count + 1, sizeof **chains);
    if (*chains == NULL)
        return no_memory();
    if (r->source_count > 0)
        qsort(r->sources, r->source_count, sizeof *r->sources, compare_sources);
    for (size_t i = 0; i < r->source_count; i++) {
        const Source *source = &r->sources[i];
        size_t at = 0;
        while (at < *count && !chain_fits((Chain *)(*chains)[at], source))
            at++;
        if (at == *count) {
            Chain *made = calloc(1, sizeof *made);
            if (made == NULL)
                return no_memory();
            made->base.ops = &chain_ops;
            made->repair = r;
            (*chains)[(*count)++] = &made->base;
        }
        Chain *chain = (Chain *)(*chains)[at];
        RETURN_IF_FAILED(
            grow((void **)&chain->items, chain->count, &chain->capacity, sizeof *chain->items));
        chain->items[chain->count++] = source;
    }
    return AIDB_OK;
}

/* ---- merging -------------------------------------------------------------------------------------- */

static Status finish_table(Repair *r, TableBuilder **builder)
{
    if (*builder == NULL)
        return AIDB_OK;
    TableInfo info;
    FileBounds bounds = {0};
    Status status = table_builder_finish(*builder, &info);
    table_builder_bounds(*builder, &bounds.smallest, &bounds.largest);
    if (status == AIDB_OK)
        status = version_edit_add(&r->edit, LEVELS - 1, &info, &bounds);
    table_builder_destroy(*builder);
    *builder = NULL;
    return status;
}

static Status write_entry(Repair *r, TableBuilder **builder, const Entry *entry)
{
    if (*builder != NULL && table_builder_size(*builder) >= r->in->options->table_size)
        RETURN_IF_FAILED(finish_table(r, builder));
    if (*builder == NULL) {
        TableOptions options = table_options(r, false);
        RETURN_IF_FAILED(
            table_builder_create(&options, r->new_sst, new_number(r), r->lsn_min, builder));
    }
    r->in->keys++;
    if (entry->lsn > r->lsn_max)
        r->lsn_max = entry->lsn;
    return table_builder_add(*builder, entry);
}

static Status merge_all(Repair *r)
{
    Iter **chains = NULL;
    size_t count = 0;
    Iter *merged = NULL;
    TableBuilder *builder = NULL;
    Buffer last = {0};
    bool have_last = false;
    Status status = build_fragments(r);
    if (status == AIDB_OK)
        status = make_chains(r, &chains, &count);
    if (status != AIDB_OK) {
        for (size_t i = 0; i < count; i++)
            iter_destroy(chains[i]);
        goto out;
    }
    OUT_IF_FAILED(merge_iter_create(chains, count, &merged));
    OUT_IF_FAILED(merged->ops->seek_first(merged));
    while (merged->valid) {
        const Entry *entry = &merged->entry;
        if (!have_last || !slice_equal(buffer_slice(&last), entry->key)) {
            buffer_clear(&last);
            OUT_IF_FAILED(buffer_append(&last, entry->key.data, entry->key.size));
            have_last = true;
            uint64_t cover =
                range_fragments_cover(r->fragments.items, r->fragments.count, entry->key, LSN_MAX);
            if (entry->type == OP_PUT && cover < entry->lsn)
                OUT_IF_FAILED(write_entry(r, &builder, entry));
        }
        OUT_IF_FAILED(merged->ops->next(merged));
    }
    OUT_IF_FAILED(finish_table(r, &builder));
out:
    table_builder_destroy(builder);
    iter_destroy(merged);
    free(chains);
    buffer_deinit(&last);
    return status;
}

/* ---- what database it is --------------------------------------------------------------------------- */

typedef struct Votes {
    const char *folder;
    const uint8_t *candidates[2];
    size_t counts[2];
    uint8_t first[16]; /* of any table */
    bool any;
} Votes;

static Status count_vote(void *arg, const char *name)
{
    Votes *votes = arg;
    uint64_t number;
    if (!table_name_parse(name, &number))
        return AIDB_OK;
    char *path = path_join(votes->folder, name);
    if (path == NULL)
        return no_memory();
    uint8_t id[16];
    if (table_owner(path, id)) {
        if (!votes->any)
            memcpy(votes->first, id, sizeof id);
        votes->any = true;
        for (int i = 0; i < 2; i++)
            if (votes->candidates[i] != NULL && memcmp(votes->candidates[i], id, sizeof id) == 0)
                votes->counts[i]++;
    }
    free(path);
    return AIDB_OK;
}

/* A manifest or a ring may be those of another database: the tables decide. */
static Status find_system_id(Repair *r)
{
    WalOptions ring = {0};
    bool ring_known;
    RETURN_IF_FAILED(wal_identify(r->wal, &ring, &ring_known));
    RETURN_IF_FAILED(manifest_salvage(r->in->directory, NULL, &r->remains));
    Votes votes = {.folder = r->sst,
                   .candidates = {r->remains.identified ? r->remains.identity.system_id : NULL,
                                  ring_known ? ring.system_id : NULL}};
    Status status = directory_list(r->sst, count_vote, &votes);
    if (status != AIDB_OK && status != AIDB_NOT_FOUND && status != AIDB_IO)
        return status;
    int best = votes.candidates[0] == NULL || votes.counts[1] > votes.counts[0] ? 1 : 0;
    const uint8_t *chosen = votes.candidates[best];
    if (chosen == NULL && votes.any)
        chosen = votes.first;
    r->have_system_id = chosen != NULL;
    if (chosen != NULL)
        memcpy(r->system_id, chosen, sizeof r->system_id);
    manifest_remains_deinit(&r->remains);
    return manifest_salvage(r->in->directory, r->have_system_id ? r->system_id : NULL, &r->remains);
}

static void manifest_damage(void *arg, const char *path, uint64_t offset, const char *what)
{
    Repair *r = arg;
    if (r->in->losses > 0) /* the first says enough */
        return;
    char text[512];
    snprintf(text, sizeof text,
             "%s; which tables and logs there were is guessed from what is found: what is missing "
             "as a whole cannot be told, and deleted keys may be back",
             what);
    lose(r, &(DbLoss){.path = path, .offset = offset, .what = text, .manifest = true});
}

/* Whether the manifest can be believed. */
static Status judge_manifest(Repair *r)
{
    char *current = path_join(r->in->directory, "CURRENT");
    if (current == NULL)
        return no_memory();
    Status status = manifest_load(r->in->directory, &r->state);
    if (status == AIDB_OK && r->have_system_id &&
        memcmp(r->state.identity.system_id, r->system_id, sizeof r->system_id) != 0) {
        manifest_damage(r, current, 0, "the manifest is that of another database");
    } else if (status == AIDB_OK) {
        WalOptions options = {.directory = r->wal,
                              .segment_size = r->state.identity.wal_segment_size,
                              .ring_size = r->state.identity.wal_ring_size};
        memcpy(options.system_id, r->state.identity.system_id, sizeof options.system_id);
        uint32_t newest = 0;
        OUT_IF_FAILED(wal_newest_incarnation(&options, &newest));
        if (newest > r->state.counters.incarnation)
            manifest_damage(r, current, 0, "the manifest is older than the log");
        else
            r->whole = true;
    } else if (status == AIDB_NO_DATABASE) {
        manifest_damage(r, current, 0, "CURRENT is missing");
        status = AIDB_OK;
    } else if (status == AIDB_CORRUPTION) {
        status = manifest_verify(r->in->directory, manifest_damage, r);
    } else if (status == AIDB_IO) {
        char what[256];
        snprintf(what, sizeof what, "%s", status_message());
        manifest_damage(r, current, 0, what);
        status = AIDB_OK;
    }
out:
    free(current);
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------------- */

static Status make_folders(Repair *r)
{
    r->sst = path_join(r->in->directory, "sst");
    r->wal = path_join(r->in->directory, "wal");
    r->new_sst = path_join(r->in->new_directory, "sst");
    r->new_wal = path_join(r->in->new_directory, "wal");
    if (r->sst == NULL || r->wal == NULL || r->new_sst == NULL || r->new_wal == NULL)
        return no_memory();
    RETURN_IF_FAILED(directory_create(r->in->new_directory));
    RETURN_IF_FAILED(directory_create(r->new_sst));
    return directory_create(r->new_wal);
}

static Status install(Repair *r)
{
    for (size_t i = 0; i < r->spooled_count; i++) {
        char name[TABLE_NAME_SIZE];
        table_name(r->spooled[i], name);
        char *path = path_join(r->new_sst, name);
        if (path == NULL)
            return no_memory();
        Status status = file_unlink(path);
        free(path);
        RETURN_IF_FAILED(status);
    }
    RETURN_IF_FAILED(directory_sync(r->new_sst));
    const EngineOptions *options = r->in->options;
    StoreIdentity identity = {.wal_segment_size = options->wal_segment_size,
                              .wal_ring_size = options->wal_ring_size};
    WalOptions wal = {.directory = r->new_wal,
                      .segment_size = options->wal_segment_size,
                      .ring_size = options->wal_ring_size};
    memcpy(identity.system_id, r->new_system_id, sizeof identity.system_id);
    memcpy(wal.system_id, r->new_system_id, sizeof wal.system_id);
    uint64_t first = (r->lsn_max / LSN_STEP + 1) * LSN_STEP;
    RETURN_IF_FAILED(wal_create_at(&wal, first));
    RETURN_IF_FAILED(directory_sync(r->in->new_directory));
    StoreCounters counters = {.next_number = r->next_number,
                              .flushed_lsn = first,
                              .horizon = first,
                              .version_number = 1,
                              .term = r->new_term};
    return manifest_create_filled(r->in->new_directory, &identity, r->edit.added,
                                  r->edit.added_count, &counters);
}

static void note_counters(Repair *r)
{
    const StoreCounters *found = &r->remains.counters;
    r->new_term = found->term + 1;
    r->next_number = 2; /* the manifest is number 1, and the term is new */
    r->lsn_min = LSN_MAX;
    r->lsn_max = found->horizon > found->flushed_lsn ? found->horizon : found->flushed_lsn;
}

Status db_repair(DbRepair *in)
{
    Repair r = {.in = in};
    in->losses = in->tables = in->log_records = in->log_unproven = in->log_end = in->keys = 0;
    Status status = AIDB_OK;
    if (!port_random(r.new_system_id, sizeof r.new_system_id)) {
        status = status_set(AIDB_IO, "could not get random bytes from the operating system");
        goto out;
    }
    OUT_IF_FAILED(make_folders(&r));
    OUT_IF_FAILED(find_system_id(&r));
    OUT_IF_FAILED(judge_manifest(&r));
    note_counters(&r);
    OUT_IF_FAILED(take_live_tables(&r));
    OUT_IF_FAILED(take_log(&r));
    OUT_IF_FAILED(take_other_tables(&r));
    OUT_IF_FAILED(merge_all(&r));
    OUT_IF_FAILED(install(&r));
    in->written_tables = r.edit.added_count;
out:
    for (size_t i = 0; i < r.source_count; i++)
        source_deinit(&r.sources[i]);
    free(r.sources);
    free(r.entries);
    free(r.ranges);
    free(r.spooled);
    buffer_deinit(&r.spool);
    buffer_deinit(&r.range_bytes);
    range_fragments_deinit(&r.fragments);
    version_edit_deinit(&r.edit);
    manifest_state_deinit(&r.state);
    manifest_remains_deinit(&r.remains);
    free(r.sst);
    free(r.wal);
    free(r.new_sst);
    free(r.new_wal);
    return status;
}
