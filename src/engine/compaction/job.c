/*
 * job.c - flush and merge: sorted sources in, tables out.
 *
 * One loop serves both. It walks all versions of all keys, newest first for each key, and decides
 * about each by its stripe: snapshots cut LSN space into stripes, (s[i-1], s[i]] is stripe i, and
 * what is newer than the last snapshot is the last stripe. Readers at a snapshot, and readers of
 * the present, see the newest version of a stripe or of an older one; so
 *
 *   - of several versions of a key in one stripe only the newest stays;
 *   - a version is gone when a range tombstone in its own stripe is newer and covers it (a tombstone
 *     in a newer stripe leaves it to the snapshots between);
 *   - a tombstone in the oldest stripe, once it has done this, is needed only while older versions
 *     may lie in deeper levels: it is dropped at the bottom.
 *
 * The same holds for range tombstones, which are merged to fragments that do not overlap. An output
 * owns the key range from where it begins to where the next one begins; it gets the points in it
 * and the fragments clipped to it. A clipped fragment ends where the next output begins, without
 * containing that key: hence bounds that are exclusive, and files of a level that never overlap.
 * Outputs begin at user keys, so all versions of a key are in one.
 *
 * Where writes go all over the key space, every table of level 0 would overlap every other, and all of them
 * would have to be compacted together, by one job. So a flush is cut in two where the one before it had its
 * middle, as long as that is near its own middle; keys that rise are never cut.
 *
 * Memory: the current block of each source, the block being built, and all range tombstones of the
 * inputs. Nothing is shared but the counter of file numbers; no lock is held.
 */
#include "config.h"

#include "engine/compaction/compaction_internal.h"

#include "common/failpoint.h"
#include "port/port.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BOUND_MAX    256u
#define SPLIT_PART   32u /* of table_size: smaller halves are not made */
#define PACE_ENTRIES 512u
#define PACE_BYTES   (256u << 10)
#define SLEEP_MS     10
#define WINDOWS_SIZE (8u << 20) /* what a merge has read ahead, of all its sources */
#define WINDOW_MIN   (16u << 10)

typedef struct Output {
    TableInfo info;
    Buffer smallest;
    Buffer largest;
    bool largest_exclusive;
    bool unbounded;
    bool garbage;
} Output;

typedef struct Job {
    JobContext *context;
    const uint64_t *snapshots;
    size_t snapshot_count;
    const Pick *pick; /* NULL for a flush */
    uint8_t level;    /* of the outputs */
    bool bottom;
    uint64_t table_size;
    uint64_t lsn_floor;

    RangeFragments covers; /* all range tombstones of the inputs */
    size_t cover_index;    /* the first that does not end before the current key */
    RangeFragment *kept;   /* those that go to outputs */
    uint64_t *kept_lsns;
    size_t kept_count;
    size_t kept_index;  /* the first that does not end before the current output begins */
    size_t kept_passed; /* those before this one begin in this or an earlier output */

    TableBuilder *builder; /* of the current output, from its first entry on */
    uint64_t number;
    Buffer start;         /* where the current output begins; empty: before every key */
    uint64_t range_bytes; /* of fragments that begin in the current output */
    bool garbage;
    uint64_t entries_total; /* of the memtables of a flush */
    uint64_t entries_seen;
    bool split_passed; /* the current key is not below the split */
    bool was_split;
    SplitKey middle;            /* of a flush, once it is passed */
    uint32_t grandparent;       /* the first that does not end before the current key */
    uint64_t grandparent_bytes; /* passed since the output began */

    Buffer key; /* the current user key */

    Output *outputs;
    size_t output_count, output_capacity;
    uint64_t finished_bytes;
    uint64_t started_ns;
    uint32_t pace_entries;
    uint64_t pace_bytes;
    uint64_t room_at; /* written so much, the job looks whether the disk has room */
} Job;

static Status no_memory(void)
{
    return status_set(AIDB_NO_MEMORY, "could not allocate memory for a compaction");
}

/* ---- stripes --------------------------------------------------------------------------------- */

/* Index of the first snapshot that sees the LSN; snapshot_count when none does. */
static size_t stripe_of(const Job *job, uint64_t lsn)
{
    size_t low = 0;
    size_t high = job->snapshot_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (job->snapshots[middle] < lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Whether a range tombstone of the version's own stripe hides it. Keys come in order. */
static bool is_covered(Job *job, Slice key, uint64_t lsn, size_t stripe)
{
    while (job->cover_index < job->covers.count) {
        const RangeFragment *fragment = &job->covers.items[job->cover_index];
        if (fragment->to.size == 0 || slice_compare(fragment->to, key) > 0)
            break;
        job->cover_index++;
    }
    if (job->cover_index == job->covers.count)
        return false;
    const RangeFragment *fragment = &job->covers.items[job->cover_index];
    if (slice_compare(fragment->from, key) > 0)
        return false;
    for (uint32_t i = 0; i < fragment->lsn_count && fragment->lsns[i] > lsn; i++) {
        if (stripe == job->snapshot_count || fragment->lsns[i] <= job->snapshots[stripe])
            return true;
    }
    return false;
}

/* ---- range tombstones ------------------------------------------------------------------------ */

static bool same_lsns(const RangeFragment *a, const RangeFragment *b)
{
    return a->lsn_count == b->lsn_count &&
           memcmp(a->lsns, b->lsns, a->lsn_count * sizeof a->lsns[0]) == 0;
}

/* Of each fragment the newest tombstone of a stripe; none of the oldest stripe at the bottom. */
static Status choose_kept(Job *job)
{
    size_t lsn_total = 0;
    for (size_t i = 0; i < job->covers.count; i++)
        lsn_total += job->covers.items[i].lsn_count;
    job->kept = calloc(job->covers.count + 1, sizeof job->kept[0]);
    job->kept_lsns = calloc(lsn_total + 1, sizeof job->kept_lsns[0]);
    if (job->kept == NULL || job->kept_lsns == NULL)
        return no_memory();
    uint64_t *lsns = job->kept_lsns;
    for (size_t i = 0; i < job->covers.count; i++) {
        const RangeFragment *from = &job->covers.items[i];
        RangeFragment chosen = {.from = from->from, .to = from->to, .lsns = lsns};
        size_t last_stripe = SIZE_MAX;
        for (uint32_t j = 0; j < from->lsn_count; j++) {
            size_t stripe = stripe_of(job, from->lsns[j]);
            if (stripe == last_stripe || (stripe == 0 && job->bottom))
                continue;
            last_stripe = stripe;
            lsns[chosen.lsn_count++] = from->lsns[j];
        }
        if (chosen.lsn_count == 0)
            continue;
        RangeFragment *previous = job->kept_count > 0 ? &job->kept[job->kept_count - 1] : NULL;
        if (previous != NULL && previous->to.size > 0 && slice_equal(previous->to, chosen.from) &&
            same_lsns(previous, &chosen)) {
            previous->to = chosen.to;
            continue;
        }
        lsns += chosen.lsn_count;
        job->kept[job->kept_count++] = chosen;
    }
    return AIDB_OK;
}

/* Merges the sources' fragments, which are freed. */
static Status merge_fragments(Job *job, RangeFragments *sources, size_t count)
{
    size_t total = 0;
    Status status = AIDB_OK;
    RangeTombstone *tombstones = NULL;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < sources[i].count; j++)
            total += sources[i].items[j].lsn_count;
    }
    if (total > 0) {
        tombstones = calloc(total, sizeof tombstones[0]);
        if (tombstones == NULL) {
            status = no_memory();
            goto out;
        }
        size_t at = 0;
        for (size_t i = 0; i < count; i++) {
            for (size_t j = 0; j < sources[i].count; j++) {
                const RangeFragment *fragment = &sources[i].items[j];
                for (uint32_t k = 0; k < fragment->lsn_count; k++)
                    tombstones[at++] = (RangeTombstone){
                        .from = fragment->from, .to = fragment->to, .lsn = fragment->lsns[k]};
            }
        }
        OUT_IF_FAILED(range_fragments_build(tombstones, total, &job->covers));
    }
    status = choose_kept(job);
out:
    free(tombstones);
    return status;
}

/* ---- outputs --------------------------------------------------------------------------------- */

static Status ensure_builder(Job *job)
{
    if (job->builder != NULL)
        return AIDB_OK;
    JobContext *context = job->context;
    job->number = TABLE_NUMBER(context->set->term, version_next_number(context->set));
    return table_builder_create(context->table, context->directory, job->number, job->lsn_floor,
                                &job->builder);
}

/* The kept fragments clipped to the current output, which ends before `end` (NULL: never). */
static Status clip_fragments(Job *job, const Slice *end, RangeFragment **clipped, size_t *count)
{
    Slice start = buffer_slice(&job->start);
    size_t room = 0;
    *clipped = NULL;
    *count = 0;
    while (job->kept_index < job->kept_count && job->kept[job->kept_index].to.size > 0 &&
           slice_compare(job->kept[job->kept_index].to, start) <= 0)
        job->kept_index++;
    while (job->kept_index + room < job->kept_count &&
           (end == NULL || slice_compare(job->kept[job->kept_index + room].from, *end) < 0))
        room++;
    if (room == 0)
        return AIDB_OK;
    *clipped = malloc(room * sizeof **clipped);
    if (*clipped == NULL)
        return no_memory();
    for (size_t i = 0; i < room; i++) {
        RangeFragment fragment = job->kept[job->kept_index + i];
        if (slice_compare(fragment.from, start) < 0)
            fragment.from = start;
        if (end != NULL && (fragment.to.size == 0 || slice_compare(fragment.to, *end) > 0))
            fragment.to = *end;
        (*clipped)[(*count)++] = fragment;
    }
    return AIDB_OK;
}

/* The bounds of the output from its points and its fragments. */
static Status set_bounds(const Job *job, Output *output, const RangeFragment *clipped, size_t count)
{
    Slice smallest;
    Slice largest;
    table_builder_bounds(job->builder, &smallest, &largest);
    bool has_points = table_builder_entries(job->builder) > 0;
    if (count > 0) {
        Slice from = clipped[0].from;
        Slice to = clipped[count - 1].to;
        if (!has_points || slice_compare(from, smallest) < 0)
            smallest = from;
        if (to.size == 0) {
            output->unbounded = true;
            largest = (Slice){0};
        } else if (!has_points || slice_compare(to, largest) > 0) {
            output->largest_exclusive = true;
            largest = to;
        }
    }
    RETURN_IF_FAILED(buffer_append(&output->smallest, smallest.data, smallest.size));
    return buffer_append(&output->largest, largest.data, largest.size);
}

static void output_deinit(Output *output)
{
    buffer_deinit(&output->smallest);
    buffer_deinit(&output->largest);
}

static Status push_output(Job *job, const Output *output)
{
    if (job->output_count == job->output_capacity) {
        size_t capacity = job->output_capacity > 0 ? 2 * job->output_capacity : 16;
        Output *grown = realloc(job->outputs, capacity * sizeof *grown);
        if (grown == NULL)
            return no_memory();
        job->outputs = grown;
        job->output_capacity = capacity;
    }
    job->outputs[job->output_count++] = *output;
    return AIDB_OK;
}

static Status finish_output(Job *job, const Slice *end)
{
    RangeFragment *clipped;
    size_t count;
    Output output = {.garbage = job->garbage};
    Status status = clip_fragments(job, end, &clipped, &count);
    if (status != AIDB_OK || (job->builder == NULL && count == 0))
        goto out;
    OUT_IF_FAILED(ensure_builder(job));
    if (count > 0) {
        OUT_IF_FAILED(table_builder_add_fragments(job->builder, clipped, count));
        output.garbage = true;
    }
    OUT_IF_FAILED(set_bounds(job, &output, clipped, count));
    /* Room first: once finished, the file must be known to be removed on failure. */
    OUT_IF_FAILED(push_output(job, &output));
    Output *place = &job->outputs[job->output_count - 1];
    status = table_builder_finish(job->builder, &place->info);
    if (status != AIDB_OK) {
        job->output_count--;
        goto out;
    }
    job->finished_bytes += place->info.file_size;
    output = (Output){0}; /* the keys are the array's now */
out:
    table_builder_destroy(job->builder); /* removes an unfinished file */
    job->builder = NULL;
    output_deinit(&output);
    free(clipped);
    return status;
}

/* Ends the current output before `key`, where the next one begins. */
static Status cut(Job *job, Slice key)
{
    RETURN_IF_FAILED(finish_output(job, &key));
    buffer_clear(&job->start);
    RETURN_IF_FAILED(buffer_append(&job->start, key.data, key.size));
    job->range_bytes = 0;
    job->garbage = false;
    job->grandparent_bytes = 0;
    return AIDB_OK;
}

static uint64_t output_size(const Job *job)
{
    return (job->builder != NULL ? table_builder_size(job->builder) : 0) + job->range_bytes;
}

/* Whether the split is to be made at the first key that is not below it. A flush must be near its middle and
 * large enough that halves are worth it. */
static bool is_split_here(const Job *job)
{
    if (output_size(job) == 0)
        return false;
    if (job->pick != NULL)
        return job->pick->level == 0;
    return output_size(job) >= job->context->table_size / SPLIT_PART &&
           job->entries_seen >= job->entries_total / 4 &&
           job->entries_seen <= job->entries_total - job->entries_total / 4;
}

static Status maybe_split(Job *job, Slice key)
{
    const SplitKey *split = job->context->split;
    if (split == NULL || split->size == 0 || job->split_passed)
        return AIDB_OK;
    Slice at = slice_make(split->key, split->size);
    if (slice_compare(key, at) < 0)
        return AIDB_OK;
    job->split_passed = true;
    if (!is_split_here(job))
        return AIDB_OK;
    job->was_split = true;
    return cut(job, at);
}

/* Counts an entry of a flush; the key in the middle may be where the next one is cut. */
static void note_middle(Job *job, Slice key)
{
    if (++job->entries_seen != job->entries_total / 2 + 1)
        return;
    job->middle.size =
        key.size < sizeof job->middle.key ? (uint32_t)key.size : sizeof job->middle.key;
    memcpy(job->middle.key, key.data, job->middle.size);
}

/* Cuts before `key` at the split, or when the output is large enough, or wide enough that compacting it later
 * would rewrite too much. */
static Status maybe_cut(Job *job, Slice key)
{
    RETURN_IF_FAILED(maybe_split(job, key));
    if (job->pick == NULL)
        return AIDB_OK;
    while (job->grandparent < job->pick->grandparent_count) {
        const struct Grandparent *grandparent = &job->pick->grandparents[job->grandparent];
        if (slice_compare(grandparent->largest, key) >= 0)
            break;
        job->grandparent_bytes += grandparent->bytes;
        job->grandparent++;
    }
    uint64_t size = output_size(job);
    if (size == 0) {
        job->grandparent_bytes = 0;
        return AIDB_OK;
    }
    if (size >= job->table_size || job->grandparent_bytes > GRANDPARENT_TABLES * job->table_size)
        return cut(job, key);
    return AIDB_OK;
}

/* Goes over the fragments that begin at or before `key` (NULL: over all), which may be many without any
 * point between them. */
static Status pass_fragments(Job *job, const Slice *key)
{
    while (job->kept_passed < job->kept_count) {
        const RangeFragment *fragment = &job->kept[job->kept_passed];
        if (key != NULL && slice_compare(fragment->from, *key) > 0)
            break;
        RETURN_IF_FAILED(maybe_cut(job, fragment->from));
        job->range_bytes += fragment->from.size + fragment->to.size + 8 * fragment->lsn_count;
        job->kept_passed++;
    }
    return AIDB_OK;
}

/* ---- pace ------------------------------------------------------------------------------------ */

static Status check_stop(const Job *job)
{
    if (job->context->stop != NULL && job->context->stop(job->context->stop_arg))
        return status_set(AIDB_CANCELED, "the compaction was stopped");
    return AIDB_OK;
}

/* Now and then: looks whether to stop, and sleeps while the job is ahead of its rate. */
static Status pace(Job *job, size_t bytes)
{
    job->pace_bytes += bytes;
    if (++job->pace_entries < PACE_ENTRIES && job->pace_bytes < PACE_BYTES)
        return AIDB_OK;
    job->pace_entries = 0;
    job->pace_bytes = 0;
    RETURN_IF_FAILED(check_stop(job));
    uint64_t written = job->finished_bytes + output_size(job);
    if (job->context->has_room != NULL && written >= job->room_at) {
        job->room_at = written + PACE_BYTES;
        if (!job->context->has_room(job->context->has_room_arg))
            return status_set(AIDB_NO_SPACE,
                              "a compaction ends with no space left in \"%s\" but what "
                              "flushes need",
                              job->context->directory);
    }
    if (job->context->rate == 0)
        return AIDB_OK;
    double due_ns = (double)written / (double)job->context->rate * 1e9;
    while ((double)(port_monotonic_ns() - job->started_ns) < due_ns) {
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_MS * 1000000L}, NULL);
        RETURN_IF_FAILED(check_stop(job));
    }
    return AIDB_OK;
}

/* ---- the loop -------------------------------------------------------------------------------- */

/* What is known about the current user key. */
typedef struct KeyState {
    KeepDecision decision;
    size_t last_stripe; /* of the newest version seen so far; SIZE_MAX: none */
    bool any;           /* a version was seen */
} KeyState;

static Status begin_key(Job *job, Slice key, KeyState *state)
{
    const JobContext *context = job->context;
    buffer_clear(&job->key);
    RETURN_IF_FAILED(buffer_append(&job->key, key.data, key.size));
    *state = (KeyState){.decision = KEEP, .last_stripe = SIZE_MAX};
    if (job->pick != NULL && context->keep != NULL)
        state->decision = context->keep(context->keep_arg, key);
    RETURN_IF_FAILED(pass_fragments(job, &key));
    return maybe_cut(job, key);
}

/* Whether this version goes to the output. */
static bool is_needed(Job *job, const Entry *entry, KeyState *state)
{
    size_t stripe = stripe_of(job, entry->lsn);
    if (stripe == state->last_stripe)
        return false;
    state->last_stripe = stripe;
    if (is_covered(job, entry->key, entry->lsn, stripe))
        return false;
    if (state->decision == DROP)
        return false;
    if (state->decision == KEEP_TOMBSTONES)
        return entry->type == OP_DELETE;
    return entry->type != OP_DELETE || !job->bottom || stripe > 0;
}

static Status add_entry(Job *job, const Entry *entry, const KeyState *state)
{
    RETURN_IF_FAILED(ensure_builder(job));
    if (state->decision == KEEP && (entry->type == OP_DELETE || state->any))
        job->garbage = true;
    return table_builder_add(job->builder, entry);
}

static Status run_loop(Job *job, Iter *iter)
{
    KeyState state = {0};
    RETURN_IF_FAILED(iter->ops->seek_first(iter));
    while (iter->valid) {
        const Entry *entry = &iter->entry;
        if (job->key.size == 0 || !slice_equal(buffer_slice(&job->key), entry->key))
            RETURN_IF_FAILED(begin_key(job, entry->key, &state));
        if (is_needed(job, entry, &state))
            RETURN_IF_FAILED(add_entry(job, entry, &state));
        state.any = true;
        note_middle(job, entry->key);
        RETURN_IF_FAILED(pace(job, entry->key.size + entry->value.size));
        RETURN_IF_FAILED(iter->ops->next(iter));
    }
    RETURN_IF_FAILED(pass_fragments(job, NULL));
    return finish_output(job, NULL);
}

/* ---- end of a job ---------------------------------------------------------------------------- */

static void remove_outputs(Job *job)
{
    for (size_t i = 0; i < job->output_count; i++) {
        char name[TABLE_NAME_SIZE];
        table_name(job->outputs[i].info.number, name);
        char *path = path_join(job->context->directory, name);
        /* What stays is an orphan, which the next start removes; the first error is the one to report. */
        if (path != NULL)
            remove(path);
        free(path);
    }
}

/*
 * Long bounds take room in the region for as long as the file lives. Between two outputs any key will do
 * that is above all of the one and not above any of the other; at the ends the bounds of the range that
 * the job owns, which were shortened before it. Nothing outside the range may be touched: there are
 * neighbours, or will be.
 */
static void shorten_bounds(Job *job)
{
    for (size_t i = 0; i < job->output_count; i++) {
        Output *output = &job->outputs[i];
        if (output->smallest.size <= BOUND_MAX)
            continue;
        if (i > 0) {
            const Output *before = &job->outputs[i - 1];
            size_t common = 0;
            while (common < before->largest.size && common < output->smallest.size &&
                   before->largest.data[common] == output->smallest.data[common])
                common++;
            if (common + 1 < output->smallest.size)
                output->smallest.size = common + 1 > BOUND_MAX ? common + 1 : BOUND_MAX;
        } else if (job->pick->smallest.size < output->smallest.size) {
            memcpy(output->smallest.data, job->pick->smallest.data, job->pick->smallest.size);
            output->smallest.size = job->pick->smallest.size;
        }
    }
    for (size_t i = 0; i < job->output_count; i++) {
        Output *output = &job->outputs[i];
        if (output->unbounded || output->largest.size <= BOUND_MAX)
            continue;
        Slice shorter = job->pick->largest;
        bool exclusive = job->pick->largest_exclusive;
        if (i + 1 < job->output_count) {
            shorter = buffer_slice(&job->outputs[i + 1].smallest);
            exclusive = true;
        } else if (job->pick->unbounded) {
            continue;
        }
        if (shorter.size < output->largest.size) {
            memcpy(output->largest.data, shorter.data, shorter.size);
            output->largest.size = shorter.size;
            output->largest_exclusive = exclusive;
        }
    }
}

static Status add_outputs(Job *job, VersionEdit *edit)
{
    if (job->pick != NULL)
        shorten_bounds(job);
    for (size_t i = 0; i < job->output_count; i++) {
        const Output *output = &job->outputs[i];
        FileBounds bounds = {
            .smallest = buffer_slice(&output->smallest),
            .largest = buffer_slice(&output->largest),
            .largest_exclusive = output->largest_exclusive,
            .unbounded = output->unbounded,
            .garbage = output->garbage,
        };
        RETURN_IF_FAILED(version_edit_add(edit, job->level, &output->info, &bounds));
    }
    return AIDB_OK;
}

static void job_deinit(Job *job)
{
    table_builder_destroy(job->builder);
    for (size_t i = 0; i < job->output_count; i++)
        output_deinit(&job->outputs[i]);
    free(job->outputs);
    free(job->kept);
    free(job->kept_lsns);
    range_fragments_deinit(&job->covers);
    buffer_deinit(&job->start);
    buffer_deinit(&job->key);
}

/* Runs the job over the sources, which are taken over. Fragments stay the caller's. */
static Status job_run(Job *job, Iter **sources, size_t source_count, RangeFragments *fragments,
                      size_t fragments_count, VersionEdit *edit)
{
    Iter *iter = NULL;
    job->started_ns = port_monotonic_ns();
    Status status = merge_iter_create(sources, source_count, &iter);
    if (status == AIDB_OK)
        status = merge_fragments(job, fragments, fragments_count);
    if (status == AIDB_OK)
        status = run_loop(job, iter);
    iter_destroy(iter);
    if (status == AIDB_OK && job->output_count > 0)
        status = directory_sync(job->context->directory);
    FAILPOINT("table.named");
    if (status == AIDB_OK)
        status = add_outputs(job, edit);
    if (status == AIDB_OK && job->pick == NULL && job->context->split != NULL && !job->was_split)
        *job->context->split = job->middle;
    if (status != AIDB_OK)
        remove_outputs(job);
    job_deinit(job);
    return status;
}

static void destroy_sources(Iter **sources, size_t count)
{
    for (size_t i = 0; i < count; i++)
        iter_destroy(sources[i]);
}

static void free_fragments(RangeFragments *fragments, size_t count)
{
    for (size_t i = 0; i < count; i++)
        range_fragments_deinit(&fragments[i]);
    free(fragments);
}

/* ---- flush ----------------------------------------------------------------------------------- */

Status flush_run(JobContext *context, Memtable *const *memtables, size_t count,
                 const uint64_t *snapshots, size_t snapshot_count, VersionEdit *edit)
{
    Job job = {
        .context = context,
        .snapshots = snapshots,
        .snapshot_count = snapshot_count,
        .table_size = UINT64_MAX,
        .lsn_floor = UINT64_MAX,
    };
    Iter **sources = calloc(count + 1, sizeof sources[0]);
    RangeFragments *fragments = calloc(count + 1, sizeof fragments[0]);
    size_t source_count = 0;
    Status status = AIDB_OK;
    if (sources == NULL || fragments == NULL) {
        status = no_memory();
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t first = memtable_first_lsn(memtables[i]);
        if (memtable_entries(memtables[i]) == 0)
            continue;
        if (first < job.lsn_floor)
            job.lsn_floor = first;
        if (memtable_has_ranges(memtables[i]))
            OUT_IF_FAILED(memtable_fragments(memtables[i], &fragments[i]));
        OUT_IF_FAILED(memtable_iter_create(memtables[i], &sources[source_count]));
        source_count++;
        job.entries_total += memtable_entries(memtables[i]);
    }
    if (source_count > 0) {
        size_t taken = source_count;
        source_count = 0;
        status = job_run(&job, sources, taken, fragments, count, edit);
    }
out:
    if (sources != NULL)
        destroy_sources(sources, source_count);
    free(sources);
    if (fragments != NULL)
        free_fragments(fragments, count);
    return status;
}

/* ---- merge ----------------------------------------------------------------------------------- */

/*
 * The files of a level one after the other, one open at a time. Only what the loop asks for: forward
 * from the first.
 */
typedef struct RunIter {
    Iter base;
    TableReader *reader;
    FileMeta *const *files;
    uint32_t count;
    uint32_t index; /* of the file after the open one */
    uint32_t readahead;
    Iter *table;
} RunIter;

/* Shows the open table's entry, going on to the next table at its end. */
static Status run_settle(RunIter *run)
{
    for (;;) {
        if (run->table != NULL && run->table->valid) {
            run->base.entry = run->table->entry;
            run->base.valid = true;
            return AIDB_OK;
        }
        iter_destroy(run->table);
        run->table = NULL;
        if (run->index == run->count)
            return AIDB_OK;
        const TableInfo *info = &run->files[run->index++]->info;
        RETURN_IF_FAILED(table_iter_create(run->reader, info, run->readahead, &run->table));
        RETURN_IF_FAILED(run->table->ops->seek_first(run->table));
    }
}

static Status run_seek_first(Iter *iter)
{
    RunIter *run = (RunIter *)iter;
    iter->valid = false;
    iter_destroy(run->table);
    run->table = NULL;
    run->index = 0;
    return run_settle(run);
}

static Status run_next(Iter *iter)
{
    RunIter *run = (RunIter *)iter;
    iter->valid = false;
    RETURN_IF_FAILED(run->table->ops->next(run->table));
    return run_settle(run);
}

static Status run_unsupported(Iter *iter)
{
    iter->valid = false;
    return status_set(AIDB_INTERNAL, "the input of a compaction only moves forward");
}

static Status run_unsupported_seek(Iter *iter, Slice key, uint64_t lsn)
{
    (void)key;
    (void)lsn;
    return run_unsupported(iter);
}

static void run_destroy(Iter *iter)
{
    RunIter *run = (RunIter *)iter;
    iter_destroy(run->table);
    free(run);
}

static const IterOps run_ops = {
    .seek_first = run_seek_first,
    .seek_last = run_unsupported,
    .seek = run_unsupported_seek,
    .seek_before = run_unsupported_seek,
    .next = run_next,
    .prev = run_unsupported,
    .destroy = run_destroy,
};

static Status run_iter_create(TableReader *reader, FileMeta *const *files, uint32_t count,
                              uint32_t readahead, Iter **iter)
{
    RunIter *run = calloc(1, sizeof *run);
    *iter = NULL;
    if (run == NULL)
        return no_memory();
    run->base.ops = &run_ops;
    run->reader = reader;
    run->files = files;
    run->count = count;
    run->readahead = readahead;
    *iter = &run->base;
    return AIDB_OK;
}

/* Where flushes came faster than compactions, level 0 has hundreds of files, and each is read at once. */
static uint32_t readahead_of_each(size_t sources)
{
    size_t share = WINDOWS_SIZE / (sources > 0 ? sources : 1);
    if (share > TABLE_READAHEAD_JOB)
        return TABLE_READAHEAD_JOB;
    return share < WINDOW_MIN ? WINDOW_MIN : (uint32_t)share;
}

/* One source for each file of level 0, one for each run of a level below. */
static Status open_sources(const JobContext *context, const Pick *pick, Iter **sources,
                           size_t *count)
{
    size_t most =
        (pick->level == 0 ? pick->counts[0] : pick->counts[0] > 0) + (pick->counts[1] > 0);
    uint32_t readahead = readahead_of_each(most);
    for (int part = 0; part < 2; part++) {
        uint32_t step = part == 0 && pick->level == 0 ? 1 : pick->counts[part];
        for (uint32_t i = 0; i < pick->counts[part]; i += step) {
            RETURN_IF_FAILED(run_iter_create(context->reader, &pick->inputs[part][i], step,
                                             readahead, &sources[*count]));
            (*count)++;
        }
    }
    return AIDB_OK;
}

Status merge_run(JobContext *context, const Pick *pick, const uint64_t *snapshots,
                 size_t snapshot_count, VersionEdit *edit)
{
    Job job = {
        .context = context,
        .snapshots = snapshots,
        .snapshot_count = snapshot_count,
        .pick = pick,
        .level = (uint8_t)pick->output_level,
        .bottom = pick->bottom,
        .table_size = context->table_size,
        .lsn_floor = UINT64_MAX,
    };
    size_t file_count = (size_t)pick->counts[0] + pick->counts[1];
    Iter **sources = calloc(file_count + 1, sizeof sources[0]);
    RangeFragments *fragments = calloc(file_count + 1, sizeof fragments[0]);
    size_t source_count = 0;
    size_t fragments_count = 0;
    Status status = AIDB_OK;
    if (sources == NULL || fragments == NULL) {
        status = no_memory();
        goto out;
    }
    for (int part = 0; part < 2; part++) {
        for (uint32_t i = 0; i < pick->counts[part]; i++) {
            const FileMeta *file = pick->inputs[part][i];
            if (file->info.lsn_min < job.lsn_floor)
                job.lsn_floor = file->info.lsn_min;
            OUT_IF_FAILED(version_edit_remove(edit, file->level, file->info.number));
            if (file->info.range_size == 0)
                continue;
            OUT_IF_FAILED(
                table_fragments(context->reader, &file->info, &fragments[fragments_count]));
            fragments_count++;
        }
    }
    OUT_IF_FAILED(open_sources(context, pick, sources, &source_count));
    size_t taken = source_count;
    source_count = 0;
    status = job_run(&job, sources, taken, fragments, fragments_count, edit);
out:
    if (sources != NULL)
        destroy_sources(sources, source_count);
    free(sources);
    if (fragments != NULL)
        free_fragments(fragments, fragments_count);
    table_reader_release(context->reader); /* the inputs' indexes; their iterators are gone */
    return status;
}
