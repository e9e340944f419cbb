/*
 * picker.c - which files to compact next: a pure function of a version and the claims in it.
 *
 * Level sizes are dynamic. The last level holds most of the data; each level above is allowed a
 * multiplier less than the one below, as the last one is now, up to the level whose allowance has
 * come down to the base size. That is the base level; level 0 is compacted into it, and the levels
 * between stay empty. So space amplification is bounded by the multiplier at any size of the
 * store, and a small store has few levels.
 *
 * A running job owns a key range (the hull of its inputs) in its output level, not only its input
 * files: the gaps between them are where its outputs may reach. The claim is kept in the input
 * files' records (job and output level), so that the picker sees all of it in the version.
 *
 * Why a pick is right at the time of its installation, though other jobs install before it:
 *   - data moves from a level to the next only, and into the base level only from level 0;
 *     base is never below a level that holds data. So nothing overtakes older data.
 *   - what could bring data below the pick's output level in its range are files of the output
 *     level in this range, and they are all inputs of the pick. So `bottom` stays true.
 *   - files of level 0 are taken with all others of level 0 that overlap, directly or through
 *     others; one that is being compacted keeps all that overlap it where they are.
 */
#include "config.h"

#include "engine/compaction/compaction_internal.h"

#include <stdlib.h>

#define LAST_LEVEL     (LEVELS - 1)
#define EXPAND_TABLES  25u /* inputs are widened for free up to this many tables' worth */
#define MANUAL_TABLES  16u /* bytes of upper inputs in one step of a manual compaction */
#define CLAIMS_MAX     64u
#define CANDIDATES_MAX 64u /* files of a level that are tried */
#define SMALL_PART     4u  /* a file below a quarter of table_size is small */

/* ---- ranges ---------------------------------------------------------------------------------- */

Range range_of_file(const FileMeta *file)
{
    return (Range){
        .smallest = file->smallest,
        .largest = file->largest,
        .exclusive = file->largest_exclusive,
        .unbounded = file->unbounded,
    };
}

bool range_before(const Range *a, const Range *b)
{
    if (a->unbounded)
        return false;
    int order = slice_compare(a->largest, b->smallest);
    return order < 0 || (order == 0 && a->exclusive);
}

void range_extend(Range *range, const Range *other)
{
    if (slice_compare(other->smallest, range->smallest) < 0)
        range->smallest = other->smallest;
    if (range->unbounded)
        return;
    if (other->unbounded) {
        range->unbounded = true;
        range->largest = (Slice){0};
        range->exclusive = false;
        return;
    }
    int order = slice_compare(other->largest, range->largest);
    if (order > 0 || (order == 0 && range->exclusive)) {
        range->largest = other->largest;
        range->exclusive = other->exclusive;
    }
}

/* The files of a level >= 1 that overlap the range: [*first, *end). */
static void find_overlap(const Version *version, int level, const Range *range, uint32_t *first,
                         uint32_t *end)
{
    FileMeta **files = version->levels[level].files;
    *first = version_find_file(version, level, range->smallest);
    uint32_t low = *first;
    uint32_t high = version->levels[level].count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        Range file = range_of_file(files[middle]);
        if (range_before(range, &file))
            high = middle;
        else
            low = middle + 1;
    }
    *end = low;
}

static uint64_t sum_bytes(FileMeta *const *files, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += files[i]->info.file_size;
    return bytes;
}

/* ---- claims ---------------------------------------------------------------------------------- */

/* FileMeta.compacting is job << 8 | output level + 1. */
static uint32_t claim_word(uint32_t job, int output_level)
{
    return job << 8 | (uint32_t)(output_level + 1);
}

static uint32_t claim_of(const FileMeta *file)
{
    return atomic_load_explicit(&file->compacting, memory_order_relaxed);
}

static bool any_claimed(FileMeta *const *files, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (claim_of(files[i]) != 0)
            return true;
    }
    return false;
}

typedef struct Claim {
    uint32_t word;
    int output_level;
    Range range;
} Claim;

typedef struct Claims {
    Claim items[CLAIMS_MAX];
    uint32_t count;
    bool overflow; /* more jobs than fit: nothing more is picked */
} Claims;

static void collect_claims(const Version *version, Claims *claims)
{
    claims->count = 0;
    claims->overflow = false;
    for (int level = 0; level < LEVELS; level++) {
        for (uint32_t i = 0; i < version->levels[level].count; i++) {
            const FileMeta *file = version->levels[level].files[i];
            uint32_t word = claim_of(file);
            if (word == 0)
                continue;
            Range range = range_of_file(file);
            uint32_t at = 0;
            while (at < claims->count && claims->items[at].word != word)
                at++;
            if (at < claims->count) {
                range_extend(&claims->items[at].range, &range);
            } else if (at < CLAIMS_MAX) {
                claims->items[claims->count++] =
                    (Claim){.word = word, .output_level = (int)(word & 0xff) - 1, .range = range};
            } else {
                claims->overflow = true;
            }
        }
    }
}

/* Whether outputs in this range of the level could meet those of a running job. */
static bool is_blocked(const Claims *claims, int output_level, const Range *range)
{
    if (claims->overflow)
        return true;
    for (uint32_t i = 0; i < claims->count; i++) {
        if (claims->items[i].output_level == output_level &&
            ranges_overlap(&claims->items[i].range, range))
            return true;
    }
    return false;
}

static void set_claims(const Pick *pick, uint32_t word)
{
    for (int part = 0; part < 2; part++) {
        for (uint32_t i = 0; i < pick->counts[part]; i++)
            atomic_store_explicit(&pick->inputs[part][i]->compacting, word, memory_order_relaxed);
    }
}

void pick_claim(const Pick *pick, uint32_t job)
{
    set_claims(pick, claim_word(job, pick->output_level));
}

void pick_release(const Pick *pick)
{
    set_claims(pick, 0);
}

/* ---- level sizes and scores ------------------------------------------------------------------ */

uint64_t compaction_table_size(uint64_t set, uint64_t table_bytes, uint32_t tables_sought)
{
    uint64_t size = set;
    while (table_bytes / size >= tables_sought && size <= UINT64_MAX / 2)
        size *= 2;
    return size;
}

void compaction_targets(const Version *version, const PickOptions *options, LevelTargets *targets)
{
    uint64_t multiplier = options->level_multiplier > 1 ? options->level_multiplier : 2;
    uint64_t base_max = options->level_base_size;
    uint64_t largest = 0;
    int first = -1;
    *targets = (LevelTargets){.base = LAST_LEVEL};
    for (int level = 1; level < LEVELS; level++) {
        if (version->levels[level].count > 0 && first < 0)
            first = level;
        if (version->levels[level].bytes > largest)
            largest = version->levels[level].bytes;
    }
    if (first < 0) {
        targets->bytes[LAST_LEVEL] = base_max;
        return;
    }
    /* What the first level that holds data may hold, in proportion to the largest. */
    uint64_t size = largest;
    for (int level = LAST_LEVEL - 1; level >= first; level--)
        size /= multiplier;
    int base = first;
    while (base > 1 && size > base_max) {
        base--;
        size /= multiplier;
    }
    targets->base = base;
    if (size > base_max)
        size = base_max;
    if (size <= base_max / multiplier)
        size = base_max / multiplier + 1;
    for (int level = base; level < LEVELS; level++) {
        /* Never below the base size: else a level would be smaller than what level 0 brings. */
        targets->bytes[level] = size > base_max ? size : base_max;
        size = size <= UINT64_MAX / multiplier ? size * multiplier : UINT64_MAX;
    }
}

/* Bytes below that a file's tombstones probably free: compacting it is worth that much more. */
static uint64_t tombstone_bonus(const Version *version, const FileMeta *file)
{
    const TableInfo *info = &file->info;
    uint64_t bonus = 0;
    if (info->deletes > 0 && info->deletes >= info->entries - info->deletes) {
        for (int level = LAST_LEVEL; level > file->level; level--) {
            if (version->levels[level].count == 0)
                continue;
            const TableInfo *sample = &version->levels[level].files[0]->info;
            if (sample->entries > 0)
                bonus = info->deletes * (sample->file_size / sample->entries);
            break;
        }
    }
    if (info->range_deletes > 0) {
        Range range = range_of_file(file);
        for (int level = file->level + 1; level < LEVELS; level++) {
            uint32_t first;
            uint32_t end;
            find_overlap(version, level, &range, &first, &end);
            uint64_t bytes = sum_bytes(version->levels[level].files + first, end - first);
            /* How much of the file's range its tombstones cover is not known. */
            bonus += (uint64_t)((double)bytes * (double)info->range_deletes /
                                (double)(info->range_deletes + info->entries));
        }
    }
    return bonus;
}

/* Newest first, tables of a flush stand together and have its first LSN. */
static uint32_t count_runs(const Version *version, bool unclaimed)
{
    uint32_t runs = 0;
    uint64_t last = 0;
    for (uint32_t i = 0; i < version->levels[0].count; i++) {
        const FileMeta *file = version->levels[0].files[i];
        if (unclaimed && claim_of(file) != 0)
            continue;
        if (runs == 0 || file->info.lsn_min != last)
            runs++;
        last = file->info.lsn_min;
    }
    return runs;
}

uint32_t compaction_level0_runs(const Version *version)
{
    return count_runs(version, false);
}

/* How urgent a level is, over its files that no job has. */
static double level_score(const Version *version, const PickOptions *options,
                          const LevelTargets *targets, int level)
{
    uint64_t bytes = 0;
    uint64_t bonus = 0;
    if (level >= LAST_LEVEL || (level > 0 && targets->bytes[level] == 0))
        return 0;
    for (uint32_t i = 0; i < version->levels[level].count; i++) {
        const FileMeta *file = version->levels[level].files[i];
        if (claim_of(file) != 0)
            continue;
        bytes += file->info.file_size;
        if (file->info.deletes > 0 || file->info.range_deletes > 0)
            bonus += tombstone_bonus(version, file);
    }
    if (level > 0)
        return (double)(bytes + bonus) / (double)targets->bytes[level];
    uint32_t runs = count_runs(version, true);
    double score = (double)runs / (options->level0_files > 0 ? options->level0_files : 1);
    double by_size = (double)(bytes + bonus) / (double)(options->level_base_size + 1);
    return (runs > 1 || bonus > 0) && by_size > score ? by_size : score;
}

double compaction_score(const Version *version, const PickOptions *options, uint64_t *pending_bytes)
{
    LevelTargets targets;
    double highest = 0;
    uint64_t pending = 0;
    compaction_targets(version, options, &targets);
    for (int level = 0; level < LAST_LEVEL; level++) {
        double score = level_score(version, options, &targets, level);
        uint64_t bytes = version->levels[level].bytes;
        if (score > highest)
            highest = score;
        if (level == 0 && count_runs(version, false) >= options->level0_files)
            pending += bytes;
        if (level > 0 && bytes > targets.bytes[level])
            pending += bytes - targets.bytes[level];
    }
    if (pending_bytes != NULL)
        *pending_bytes = pending;
    return highest;
}

/* ---- making a pick --------------------------------------------------------------------------- */

static Status no_memory(void)
{
    return status_set(AIDB_NO_MEMORY, "could not allocate memory to choose a compaction");
}

void pick_deinit(Pick *pick)
{
    free(pick->inputs[0]);
    free(pick->inputs[1]);
    free(pick->grandparents);
    free(pick->memory);
    *pick = (Pick){.level = -1};
}

void pick_advance(const Pick *pick, PickCursor *cursor)
{
    size_t size = pick->largest.size < sizeof cursor->key ? pick->largest.size : sizeof cursor->key;
    if (size > 0)
        memcpy(cursor->key, pick->largest.data, size);
    cursor->size = (uint32_t)size;
}

Status pick_move(const Pick *pick, VersionEdit *edit)
{
    for (uint32_t i = 0; i < pick->counts[0]; i++)
        RETURN_IF_FAILED(version_edit_move(edit, pick->inputs[0][i], (uint8_t)pick->output_level));
    return AIDB_OK;
}

/* A pick in the making: files are borrowed from the version. */
typedef struct Draft {
    const Version *version;
    const PickOptions *options;
    Claims claims;
    LevelTargets targets;
    int level;
    int output_level;
    FileMeta **upper; /* inputs[0]; room for all files of the level */
    uint32_t upper_count;
    uint32_t lower_first; /* inputs[1] as a run of the output level */
    uint32_t lower_end;
    Range range; /* hull of all inputs */
} Draft;

static bool is_small(const Draft *draft, const FileMeta *file)
{
    return file->info.file_size < draft->options->table_size / SMALL_PART;
}

static Range draft_upper_range(const Draft *draft)
{
    Range range = range_of_file(draft->upper[0]);
    for (uint32_t i = 1; i < draft->upper_count; i++) {
        Range other = range_of_file(draft->upper[i]);
        range_extend(&range, &other);
    }
    return range;
}

static FileMeta **lower_files(const Draft *draft)
{
    return draft->version->levels[draft->output_level].files + draft->lower_first;
}

static uint32_t lower_count(const Draft *draft)
{
    return draft->lower_end - draft->lower_first;
}

/* Finds inputs[1] for inputs[0], and the hull. */
static void draft_find_lower(Draft *draft)
{
    draft->range = draft_upper_range(draft);
    draft->lower_first = draft->lower_end = 0;
    if (draft->level == draft->output_level)
        return;
    find_overlap(draft->version, draft->output_level, &draft->range, &draft->lower_first,
                 &draft->lower_end);
    for (uint32_t i = 0; i < lower_count(draft); i++) {
        Range file = range_of_file(lower_files(draft)[i]);
        range_extend(&draft->range, &file);
    }
}

/* Adds files of a level >= 1 to inputs[0] when that does not widen inputs[1]. */
static void draft_expand(Draft *draft)
{
    const Version *version = draft->version;
    uint32_t first;
    uint32_t end;
    if (draft->level == 0 || draft->level == draft->output_level || lower_count(draft) == 0)
        return;
    find_overlap(version, draft->level, &draft->range, &first, &end);
    FileMeta **files = version->levels[draft->level].files + first;
    uint32_t count = end - first;
    if (count <= draft->upper_count || any_claimed(files, count))
        return;
    Range wide = range_of_file(files[0]);
    Range last = range_of_file(files[count - 1]);
    range_extend(&wide, &last);
    uint32_t lower_first;
    uint32_t lower_end;
    find_overlap(version, draft->output_level, &wide, &lower_first, &lower_end);
    if (lower_first != draft->lower_first || lower_end != draft->lower_end)
        return;
    if (sum_bytes(files, count) + sum_bytes(lower_files(draft), lower_count(draft)) >
        EXPAND_TABLES * draft->options->table_size)
        return;
    memcpy(draft->upper, files, count * sizeof files[0]);
    draft->upper_count = count;
    draft_find_lower(draft);
}

/* Whether a neighbour may be taken along; *bytes sums up those that were. */
static bool is_gluable(const Draft *draft, const FileMeta *file, uint64_t *bytes)
{
    uint64_t size = file->info.file_size;
    if (!is_small(draft, file) || claim_of(file) != 0 || size > draft->options->table_size - *bytes)
        return false;
    *bytes += size;
    return true;
}

/* Takes small neighbours in the output level along, so that many small flushes do not leave many small
 * files behind. */
static void draft_glue(Draft *draft)
{
    const Version *version = draft->version;
    FileMeta **files = version->levels[draft->output_level].files;
    uint64_t bytes = 0;
    if (draft->level == draft->output_level)
        return;
    if (lower_count(draft) == 0) {
        /* Nothing overlaps: the place where the outputs will stand. */
        draft->lower_first = draft->lower_end =
            version_find_file(version, draft->output_level, draft->range.smallest);
    }
    while (draft->lower_first > 0 && is_gluable(draft, files[draft->lower_first - 1], &bytes))
        draft->lower_first--;
    while (draft->lower_end < version->levels[draft->output_level].count &&
           is_gluable(draft, files[draft->lower_end], &bytes))
        draft->lower_end++;
    for (uint32_t i = 0; i < lower_count(draft); i++) {
        Range file = range_of_file(lower_files(draft)[i]);
        range_extend(&draft->range, &file);
    }
}

static bool draft_is_blocked(const Draft *draft)
{
    return any_claimed(draft->upper, draft->upper_count) ||
           any_claimed(lower_files(draft), lower_count(draft)) ||
           is_blocked(&draft->claims, draft->output_level, &draft->range);
}

/* Whether no level below the output level holds keys of the range. */
static bool draft_is_bottom(const Draft *draft)
{
    for (int level = draft->output_level + 1; level < LEVELS; level++) {
        uint32_t first;
        uint32_t end;
        find_overlap(draft->version, level, &draft->range, &first, &end);
        if (first < end)
            return false;
    }
    return true;
}

/* Whether the files can go down as they are: no key of theirs is there, tombstones are not to be
 * dropped, and the next move will not be too wide. A small file is better merged with its like. */
static bool draft_is_move(const Draft *draft, bool bottom, uint64_t grandparent_bytes)
{
    if (draft->level == draft->output_level || lower_count(draft) > 0)
        return false;
    if (grandparent_bytes > GRANDPARENT_TABLES * draft->options->table_size)
        return false;
    if (draft->upper_count > 1 && draft->level == 0)
        return false;
    for (uint32_t i = 0; i < draft->upper_count; i++) {
        const FileMeta *file = draft->upper[i];
        if (file->info.range_deletes > 0 || (bottom && file->garbage))
            return false;
    }
    return true;
}

/* Copies the hull's keys and the grandparents', which may be gone before the job is. */
static Status copy_keys(const Draft *draft, Pick *pick)
{
    uint32_t first = 0;
    uint32_t end = 0;
    int below = draft->output_level + 1;
    if (below < LEVELS)
        find_overlap(draft->version, below, &draft->range, &first, &end);
    size_t size = draft->range.smallest.size + draft->range.largest.size;
    for (uint32_t i = first; i < end; i++)
        size += draft->version->levels[below].files[i]->largest.size;
    pick->memory = malloc(size + 1);
    pick->grandparents = calloc(end - first + 1, sizeof pick->grandparents[0]);
    if (pick->memory == NULL || pick->grandparents == NULL)
        return no_memory();
    uint8_t *to = pick->memory;
    Slice from[2] = {draft->range.smallest, draft->range.largest};
    Slice *copies[2] = {&pick->smallest, &pick->largest};
    for (int i = 0; i < 2; i++) {
        if (from[i].size > 0)
            memcpy(to, from[i].data, from[i].size);
        *copies[i] = slice_make(to, from[i].size);
        to += from[i].size;
    }
    for (uint32_t i = first; i < end; i++) {
        const FileMeta *file = draft->version->levels[below].files[i];
        if (file->largest.size > 0)
            memcpy(to, file->largest.data, file->largest.size);
        pick->grandparents[pick->grandparent_count++] = (struct Grandparent){
            .largest = slice_make(to, file->largest.size), .bytes = file->info.file_size};
        to += file->largest.size;
    }
    return AIDB_OK;
}

static Status copy_files(FileMeta *const *files, uint32_t count, FileMeta ***copy)
{
    *copy = malloc((count + 1) * sizeof files[0]);
    if (*copy == NULL)
        return no_memory();
    if (count > 0)
        memcpy(*copy, files, count * sizeof files[0]);
    return AIDB_OK;
}

static Status draft_finish(Draft *draft, double score, Pick *pick)
{
    Status status;
    bool bottom = draft_is_bottom(draft);
    pick->level = draft->level;
    pick->output_level = draft->output_level;
    pick->score = score;
    OUT_IF_FAILED(copy_keys(draft, pick));
    uint64_t grandparent_bytes = 0;
    for (uint32_t i = 0; i < pick->grandparent_count; i++)
        grandparent_bytes += pick->grandparents[i].bytes;
    pick->trivial_move = draft_is_move(draft, bottom, grandparent_bytes);
    if (pick->trivial_move && draft->upper_count == 1 && is_small(draft, draft->upper[0])) {
        /* With a small neighbour the move becomes a merge, whose range is wider. */
        Range before = draft->range;
        draft_glue(draft);
        if (lower_count(draft) > 0 &&
            is_blocked(&draft->claims, draft->output_level, &draft->range)) {
            draft->lower_first = draft->lower_end = 0;
            draft->range = before;
        }
    } else if (!pick->trivial_move) {
        Draft glued = *draft;
        draft_glue(&glued);
        if (!is_blocked(&glued.claims, glued.output_level, &glued.range))
            *draft = glued;
    }
    pick->trivial_move = pick->trivial_move && lower_count(draft) == 0;
    free(pick->memory);
    free(pick->grandparents);
    pick->memory = NULL;
    pick->grandparents = NULL;
    pick->grandparent_count = 0;
    OUT_IF_FAILED(copy_keys(draft, pick));
    pick->largest_exclusive = draft->range.exclusive;
    pick->unbounded = draft->range.unbounded;
    pick->bottom = draft_is_bottom(draft);
    OUT_IF_FAILED(copy_files(draft->upper, draft->upper_count, &pick->inputs[0]));
    pick->counts[0] = draft->upper_count;
    OUT_IF_FAILED(copy_files(lower_files(draft), lower_count(draft), &pick->inputs[1]));
    pick->counts[1] = lower_count(draft);
    pick->input_bytes =
        sum_bytes(pick->inputs[0], pick->counts[0]) + sum_bytes(pick->inputs[1], pick->counts[1]);
out:
    if (status != AIDB_OK)
        pick_deinit(pick);
    return status;
}

static Status draft_init(Draft *draft, const Version *version, const PickOptions *options)
{
    uint32_t most = 0;
    for (int level = 0; level < LEVELS; level++) {
        if (version->levels[level].count > most)
            most = version->levels[level].count;
    }
    *draft = (Draft){.version = version, .options = options};
    draft->upper = malloc((most + 1) * sizeof draft->upper[0]);
    if (draft->upper == NULL)
        return no_memory();
    collect_claims(version, &draft->claims);
    compaction_targets(version, options, &draft->targets);
    return AIDB_OK;
}

/* ---- level 0 --------------------------------------------------------------------------------- */

/* What a manual compaction is about. */
typedef struct Manual {
    Slice from, to; /* empty: open */
    uint64_t started_number;
    uint64_t started_lsn;
} Manual;

static bool is_wanted(const Manual *manual, const FileMeta *file)
{
    return file_overlaps(file, manual->from, manual->to.size > 0 ? manual->to : (Slice){0}) &&
           file->info.lsn_min <= manual->started_lsn;
}

static bool draft_has(const Draft *draft, const FileMeta *file)
{
    for (uint32_t i = 0; i < draft->upper_count; i++) {
        if (draft->upper[i] == file)
            return true;
    }
    return false;
}

/* Adds a file of level 0 and all that overlap it, directly or through others. */
static void add_level0(Draft *draft, FileMeta *file)
{
    const Version *version = draft->version;
    draft->upper[draft->upper_count++] = file;
    for (bool grew = true; grew;) {
        Range range = draft_upper_range(draft);
        grew = false;
        for (uint32_t i = version->levels[0].count; i-- > 0;) {
            FileMeta *other = version->levels[0].files[i];
            Range other_range = range_of_file(other);
            if (!ranges_overlap(&range, &other_range) || draft_has(draft, other))
                continue;
            draft->upper[draft->upper_count++] = other;
            grew = true;
        }
    }
}

/* Newest first, as in the version. */
static void order_level0(Draft *draft)
{
    const Version *version = draft->version;
    uint32_t count = 0;
    for (uint32_t i = 0; i < version->levels[0].count && count < draft->upper_count; i++) {
        FileMeta *file = version->levels[0].files[i];
        for (uint32_t j = count; j < draft->upper_count; j++) {
            if (draft->upper[j] != file)
                continue;
            draft->upper[j] = draft->upper[count];
            draft->upper[count++] = file;
            break;
        }
    }
}

/* Whether the files of level 0 make a job of a decent size, with what they overlap below. */
static bool is_enough_of_level0(Draft *draft)
{
    uint64_t upper = sum_bytes(draft->upper, draft->upper_count);
    if (upper >= draft->options->table_size / SMALL_PART)
        return true;
    draft_find_lower(draft);
    return upper + sum_bytes(lower_files(draft), lower_count(draft)) >= draft->options->table_size;
}

/* The oldest files (`manual`: of those that it wants) with all that overlap them; where that is little, the next
 * ones as well, so that small files become one. *blocked: running jobs are in the way of some. */
static bool draft_level0(Draft *draft, const Manual *manual, bool *blocked)
{
    const Version *version = draft->version;
    draft->level = 0;
    draft->output_level = draft->targets.base;
    draft->upper_count = 0;
    for (uint32_t i = version->levels[0].count; i-- > 0;) {
        FileMeta *file = version->levels[0].files[i];
        if (draft_has(draft, file) || (manual != NULL && !is_wanted(manual, file)))
            continue;
        if (draft->upper_count > 0 && is_enough_of_level0(draft))
            break;
        if (claim_of(file) != 0) {
            *blocked = true;
            continue; /* those that overlap it are found to be blocked */
        }
        uint32_t before = draft->upper_count;
        add_level0(draft, file);
        if (any_claimed(draft->upper, draft->upper_count)) {
            draft->upper_count = before;
            *blocked = true;
            /* Newer files of this range wait too: their closure holds the same claimed file. */
            continue;
        }
    }
    if (draft->upper_count == 0)
        return false;
    order_level0(draft);
    draft_find_lower(draft);
    bool found = !draft_is_blocked(draft);
    *blocked = *blocked || !found;
    return found;
}

/* ---- levels below ---------------------------------------------------------------------------- */

typedef struct Candidate {
    double cost;
    uint32_t turn; /* place in the round that begins at the cursor */
    uint32_t index;
} Candidate;

static int compare_candidates(const void *a, const void *b)
{
    const Candidate *left = a;
    const Candidate *right = b;
    if (left->cost != right->cost)
        return left->cost < right->cost ? -1 : 1;
    return (left->turn > right->turn) - (left->turn < right->turn);
}

/* Rewriting the least of the next level for each byte moved keeps write amplification low. */
static Status rank_files(const Draft *draft, const PickCursor *cursor, Candidate **candidates,
                         uint32_t *count)
{
    const Version *version = draft->version;
    uint32_t total = version->levels[draft->level].count;
    Slice place = slice_make(cursor->key, cursor->size);
    *count = 0;
    *candidates = malloc((total + 1) * sizeof **candidates);
    if (*candidates == NULL)
        return no_memory();
    uint32_t start = version_find_file(version, draft->level, place);
    if (start < total &&
        slice_compare(version->levels[draft->level].files[start]->smallest, place) <= 0)
        start++;
    for (uint32_t i = 0; i < total; i++) {
        const FileMeta *file = version->levels[draft->level].files[i];
        if (claim_of(file) != 0)
            continue;
        Range range = range_of_file(file);
        uint32_t first;
        uint32_t end;
        find_overlap(version, draft->output_level, &range, &first, &end);
        uint64_t overlap =
            sum_bytes(version->levels[draft->output_level].files + first, end - first);
        uint64_t worth = file->info.file_size + tombstone_bonus(version, file) + 1;
        (*candidates)[(*count)++] = (Candidate){
            .cost = (double)overlap / (double)worth,
            .turn = i >= start ? i - start : i + total - start,
            .index = i,
        };
    }
    qsort(*candidates, *count, sizeof **candidates, compare_candidates);
    return AIDB_OK;
}

static Status draft_level(Draft *draft, int level, const PickCursor *cursor, bool *found)
{
    Candidate *candidates;
    uint32_t count;
    *found = false;
    draft->level = level;
    draft->output_level = level + 1;
    RETURN_IF_FAILED(rank_files(draft, cursor, &candidates, &count));
    for (uint32_t i = 0; i < count && i < CANDIDATES_MAX && !*found; i++) {
        draft->upper[0] = draft->version->levels[level].files[candidates[i].index];
        draft->upper_count = 1;
        draft_find_lower(draft);
        if (draft_is_blocked(draft))
            continue;
        Draft expanded = *draft; /* shares `upper`, whose files before the expansion are a part */
        draft_expand(&expanded);
        if (!draft_is_blocked(&expanded)) {
            *draft = expanded;
        } else {
            draft->upper[0] = draft->version->levels[level].files[candidates[i].index];
        }
        *found = true;
    }
    free(candidates);
    return AIDB_OK;
}

/* A table of the last level whose garbage no reader needs any more. */
static bool draft_garbage(Draft *draft)
{
    const Version *version = draft->version;
    draft->level = draft->output_level = LAST_LEVEL;
    if (draft->options->oldest_snapshot == 0)
        return false;
    for (uint32_t i = 0; i < version->levels[LAST_LEVEL].count; i++) {
        FileMeta *file = version->levels[LAST_LEVEL].files[i];
        if (!file->garbage || file->info.lsn_max > draft->options->oldest_snapshot)
            continue;
        draft->upper[0] = file;
        draft->upper_count = 1;
        draft_find_lower(draft);
        if (!draft_is_blocked(draft))
            return true;
    }
    return false;
}

Status compaction_pick(const Version *version, const PickOptions *options,
                       const PickCursor cursors[LEVELS], Pick *pick)
{
    Draft draft;
    double scores[LEVELS];
    bool tried[LEVELS] = {false};
    Status status = AIDB_OK;
    *pick = (Pick){.level = -1};
    RETURN_IF_FAILED(draft_init(&draft, version, options));
    for (int level = 0; level < LEVELS; level++)
        scores[level] = level_score(version, options, &draft.targets, level);
    for (;;) {
        int best = -1;
        for (int level = 0; level < LEVELS; level++) {
            if (!tried[level] && scores[level] >= 1 && (best < 0 || scores[level] > scores[best]))
                best = level;
        }
        if (best < 0)
            break;
        tried[best] = true;
        bool found = false, blocked = false;
        if (best == 0)
            found = draft_level0(&draft, NULL, &blocked);
        else
            OUT_IF_FAILED(draft_level(&draft, best, &cursors[best], &found));
        if (found) {
            status = draft_finish(&draft, scores[best], pick);
            pick->behind = best == 0 && scores[0] > 1;
            goto out;
        }
    }
    if (draft_garbage(&draft))
        status = draft_finish(&draft, 1, pick);
out:
    free(draft.upper);
    return status;
}

/* ---- manual compaction ----------------------------------------------------------------------- */

/* The next files of a level that are to go on, from *next on, which is moved behind them. */
static bool draft_manual(Draft *draft, int level, const Manual *manual, uint32_t *next)
{
    const Version *version = draft->version;
    uint64_t limit = MANUAL_TABLES * draft->options->table_size;
    uint64_t bytes = 0;
    draft->level = level;
    draft->output_level = level == LAST_LEVEL ? LAST_LEVEL : level + 1;
    draft->upper_count = 0;
    for (; *next < version->levels[level].count; (*next)++) {
        FileMeta *file = version->levels[level].files[*next];
        bool wanted = is_wanted(manual, file);
        if (level == LAST_LEVEL)
            wanted = wanted && file->garbage &&
                     TABLE_SEQUENCE(file->info.number) < manual->started_number;
        if (!wanted) {
            if (draft->upper_count > 0)
                break; /* one run of neighbours */
            continue;
        }
        bytes += file->info.file_size;
        if (draft->upper_count > 0 && bytes > limit)
            break;
        draft->upper[draft->upper_count++] = file;
    }
    if (draft->upper_count == 0)
        return false;
    draft_find_lower(draft);
    return true;
}

Status compaction_pick_range(const Version *version, const PickOptions *options, Slice from,
                             Slice to, uint64_t started_number, uint64_t started_lsn, Pick *pick)
{
    const Manual manual = {from, to, started_number, started_lsn};
    Draft draft;
    Status status = AIDB_OK;
    *pick = (Pick){.level = -1};
    RETURN_IF_FAILED(draft_init(&draft, version, options));
    bool blocked = false;
    bool found = draft_level0(&draft, &manual, &blocked);
    for (int level = 1; level < LEVELS && !found && !blocked; level++) {
        uint32_t next = 0;
        while (!found && draft_manual(&draft, level, &manual, &next)) {
            found = !draft_is_blocked(&draft);
            blocked = blocked || !found;
        }
    }
    if (found)
        status = draft_finish(&draft, 1, pick);
    else if (blocked)
        status = AIDB_BUSY;
    free(draft.upper);
    return status;
}
