/* picker_test.c - the picker on drawn versions. */
#include "config.h"

#include "engine/compaction/test_compaction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A version as text: "L0 c-f:40 a-d:30 L2 a-b):100". A file is FROM-TO:SIZE; "TO)" is exclusive, no TO
 * is unbounded; then letters: "x3>6" claimed by job 3 for level 6, "g" garbage, "d9" nine deletes of
 * ten entries, "r" one range tombstone and nothing else, "s" of one flush with the file before. Level 0 is newest first. Numbers go up
 * with age: the file drawn first has the greatest number and LSNs.
 */
typedef struct Drawing {
    Version version;
    FileMeta files[64];
    FileMeta *pointers[64];
    char names[64][32];
    uint32_t count;
} Drawing;

static void draw(Drawing *drawing, const char *text)
{
    int level = 0;
    memset(drawing, 0, sizeof *drawing);
    while (*text != '\0') {
        size_t size = strcspn(text, " ");
        if (text[0] == 'L') {
            level = text[1] - '0';
            drawing->version.levels[level].files = drawing->pointers + drawing->count;
        } else if (size > 0) {
            uint32_t index = drawing->count++;
            FileMeta *file = &drawing->files[index];
            char *name = drawing->names[index];
            ck_assert_uint_lt(index, 64);
            ck_assert_uint_lt(size, sizeof drawing->names[0]);
            memcpy(name, text, size);
            size_t dash = strcspn(name, "-");
            size_t colon = strcspn(name, ":");
            file->smallest = slice_make(name, dash);
            file->largest = slice_make(name + dash + 1, colon - dash - 1);
            file->unbounded = colon == dash + 1;
            if (name[colon - 1] == ')') {
                file->largest_exclusive = true;
                file->largest.size--;
            }
            file->level = (uint8_t)level;
            file->info.number = TABLE_NUMBER(1, 100 - index);
            file->info.lsn_min = file->info.lsn_max = 1000 - 10 * index;
            file->info.entries = 10;
            char *rest = name + colon + 1;
            file->info.file_size = strtoull(rest, &rest, 10);
            for (; *rest != '\0'; rest++) {
                if (*rest == 'g') {
                    file->garbage = true;
                } else if (*rest == 's') {
                    file->info.lsn_min = drawing->files[index - 1].info.lsn_min;
                } else if (*rest == 'r') {
                    file->info.range_deletes = 1;
                    file->info.entries = 0;
                    file->garbage = true;
                } else if (*rest == 'd') {
                    file->info.deletes = (uint64_t)(*++rest - '0');
                    file->garbage = true;
                } else if (*rest == 'x') {
                    file->compacting =
                        (uint32_t)(rest[1] - '0') << 8 | (uint32_t)(rest[3] - '0' + 1);
                    rest += 3;
                }
            }
            name[colon] = '\0';
            drawing->pointers[index] = file;
            drawing->version.levels[level].count++;
            drawing->version.levels[level].bytes += file->info.file_size;
        }
        text += size;
        while (*text == ' ')
            text++;
    }
}

static void print_pick(const Pick *pick, char *out, size_t size)
{
    size_t at = 0;
    if (pick->level < 0) {
        snprintf(out, size, "nothing");
        return;
    }
    at += (size_t)snprintf(out + at, size - at, "%d>%d", pick->level, pick->output_level);
    for (int part = 0; part < 2; part++) {
        if (part == 1 && pick->counts[1] > 0)
            at += (size_t)snprintf(out + at, size - at, " +");
        for (uint32_t i = 0; i < pick->counts[part]; i++)
            at += (size_t)snprintf(out + at, size - at, " %s",
                                   (const char *)pick->inputs[part][i]->smallest.data);
    }
    snprintf(out + at, size - at, "%s%s", pick->trivial_move ? " move" : "",
             pick->bottom ? " bottom" : "");
}

static const PickOptions pick_options = {
    .table_size = 100,
    .level_base_size = 1000,
    .level_multiplier = 10,
    .level0_files = 4,
};

static const struct {
    const char *version;
    uint64_t oldest_snapshot;
    const char *expected;
} pick_cases[] = {
    /* Too little of anything. */
    {"", 0, "nothing"},
    {"L0 a-c:40 b-d:40 c-e:40 L6 a-z:500", 0, "nothing"},
    /* Level 0 by count: all that overlap, with the base level's part. */
    {"L0 a-c:40 b-d:40 c-e:40 d-f:40 L6 a-b:100 e-g:100 x-z:100", 0,
     "0>6 a-c b-d c-e d-f + a-b e-g bottom"},
    /* Level 0 by bytes. */
    {"L0 a-c:600 b-d:600 L6 x-z:100", 0, "0>6 a-c b-d bottom"},
    {"L0 a-c:1600 L6 x-z:100", 0, "nothing"},
    /* Files that do not overlap go down one by one, the oldest first. */
    {"L0 g-h:40 e-f:40 c-d:40 a-b:40 L6 x-z:100", 0, "0>6 a-b move bottom"},
    /* Small ones together, and with small neighbours below. */
    {"L0 g-h:4 e-f:4 c-d:4 a-b:4 L6 x-z:100", 0, "0>6 g-h e-f c-d a-b bottom"},
    {"L0 g-h:4 e-f:4 c-d:4 a-b:4 L6 A-B:90 C-D:20 o-p:20 q-r:20 x-z:100", 0,
     "0>6 g-h e-f c-d a-b + C-D o-p q-r bottom"},
    /* Overlap through a third file counts. */
    {"L0 a-c:400 e-g:400 b-f:400 x-y:400", 0, "0>6 x-y move bottom"},
    {"L0 x-y:400 a-c:400 e-g:400 b-f:400", 0, "0>6 a-c e-g b-f bottom"},
    /* Claimed files keep those that overlap them waiting, not the others. */
    {"L0 a-c:40 b-d:40 c-e:40 e-e:40 d-f:40x1>6", 0, "nothing"},
    {"L0 a-c:40 b-d:40 c-e:40 o-p:40 d-f:40x1>6 q-r:40 s-t:40", 0, "0>6 s-t move bottom"},
    {"L0 a-c:40 b-d:40 c-e:40 d-f:40 L6 a-g:90x1>6", 0, "nothing"},
    /* The range of a running job, not only its files: m-n lies in the gap. */
    {"L0 m-n:40 m-n:40 m-n:40 m-n:40 a-c:40x1>6 x-z:40x1>6", 0, "nothing"},
    {"L0 m-n:40 m-n:40 m-n:40 m-n:40 a-c:40x1>6 d-e:40x1>6", 0, "0>6 m-n m-n m-n m-n bottom"},
    /* Tables of one flush count as one, and each half of the key space is a job. */
    {"L0 m-z:40 a-k:40s m-y:40 b-k:40s m-z:40 a-j:40s L6 a-k:100 l-z:100", 0, "nothing"},
    {"L0 m-z:40 a-k:40s m-y:40 b-k:40s m-z:40 a-j:40s m-x:40 c-k:40s L6 a-k:100 l-z:100", 0,
     "0>6 a-k b-k a-j c-k + a-k bottom"},
    {"L0 m-z:40 a-k:40sx1>6 m-y:40 b-k:40sx1>6 m-z:40 a-j:40sx1>6 m-x:40 c-k:40sx1>6 "
     "L6 a-k:100x1>6 l-z:100",
     0, "0>6 m-z m-y m-z m-x + l-z bottom"},
    /* Small ones are put together only while they are little work with what is below. */
    {"L0 o-z:4 a-k:4s o-z:4 a-k:4s o-z:4 a-k:4s o-z:4 a-k:4s L6 a-k:100 l-z:100", 0,
     "0>6 a-k a-k a-k a-k + a-k bottom"},
    /* Tombstones do not go to the bottom as they are. */
    {"L0 g-h:40 e-f:40 c-d:40 a-b:40g L6 x-z:100", 0, "0>6 a-b bottom"},
    {"L0 g-h:40 e-f:40 c-d:40 a-b:40r L5 x-z:1000 L6 a-z:9000", 0, "0>5 a-b"},
    /* Exclusive and missing bounds. */
    {"L0 c-d:40 c-d:40 c-d:40 c-d:40 L6 a-c):50 d-f:50", 0, "0>6 c-d c-d c-d c-d + d-f bottom"},
    {"L0 c-:40 d-e:40 c-d):40 b-c):40 L6 a-b):50 z-zz:50", 0, "0>6 b-c) move bottom"},
    {"L0 c-:40 d-e:40 c-d):40 b-c):40 c-c:10 L6 a-b):50 z-zz:50", 0,
     "0>6 c- d-e c-d) c-c + z-zz bottom"},
    /* A level above its target: the file with the least below it for its size. */
    {"L5 a-b:600 c-d:600 e-f:600 L6 a-b:3000 c-d:1000 e-f:6000", 0, "5>6 c-d + c-d bottom"},
    {"L5 a-b:600 c-c:600 e-f:600 L6 a-b:3000 d-e:6000", 0, "5>6 c-c move bottom"},
    {"L5 a-b:600 c-c:600g e-f:600 L6 a-b:3000 d-e:6000", 0, "5>6 c-c bottom"},
    /* More of the level where that costs nothing more below. */
    {"L5 a-b:600 c-d:600 e-f:600 L6 a-d:300 e-f:6000", 0, "5>6 a-b c-d + a-d bottom"},
    /* Not the bottom while something lies below. */
    {"L4 a-b:900 c-d:900 L5 a-b:90 L6 c-d:900 e-f:90000", 0, "4>5 c-d move"},
    {"L4 a-b:900 c-d:900g L5 a-b:90 L6 c-d:900 e-f:90000", 0, "4>5 c-d move"},
    {"L4 a-b:900 c-d:900 L5 a-b:90 d-d:900 L6 a-a:900 e-f:90000", 0, "4>5 a-b + a-b"},
    {"L4 a-b:900 c-d:900 L5 a-b:90 d-d:900 L6 bb-c:900 e-f:90000", 0, "4>5 a-b + a-b bottom"},
    /* Too much of the next level but one for a move: it is cut there. */
    {"L4 a-b:900 c-d:900 L5 a-b:90 L6 c-d:90000 e-f:9000", 0, "4>5 c-d"},
    /* The most urgent level first. */
    {"L0 a-b:40 a-b:40 a-b:40 a-b:40 L5 a-b:900 c-d:900 L6 c-d:9000", 0, "5>6 a-b move bottom"},
    {"L0 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 L5 a-b:900 c-d:900 L6 c-d:9000", 0,
     "0>5 a-b a-b a-b a-b a-b a-b a-b a-b + a-b bottom"},
    /* Tombstones make a level more urgent. */
    {"L5 a-b:300d9 c-d:300 L6 a-z:9000", 0, "5>6 a-b + a-z bottom"},
    {"L5 a-b:300r c-d:300 L6 a-z:9000", 0, "5>6 a-b + a-z bottom"},
    /* Garbage of the last level once no reader needs it. */
    {"L6 a-b:500 c-d:500g e-f:500", 0, "nothing"},
    {"L6 a-b:500 c-d:500g e-f:500", 989, "nothing"},
    {"L6 a-b:500 c-d:500g e-f:500", 990, "6>6 c-d bottom"},
    {"L6 a-b:500 c-d:500gx1>6 e-f:500", 990, "nothing"},
};

START_TEST(test_pick)
{
    Drawing drawing;
    Pick pick;
    char text[512];
    PickCursor cursors[LEVELS] = {{.size = 0}};
    PickOptions options = pick_options;
    draw(&drawing, pick_cases[_i].version);
    options.oldest_snapshot = pick_cases[_i].oldest_snapshot;
    ck_assert_int_eq(compaction_pick(&drawing.version, &options, cursors, &pick), AIDB_OK);
    print_pick(&pick, text, sizeof text);
    ck_assert_msg(strcmp(text, pick_cases[_i].expected) == 0, "%s\n  picked   %s\n  expected %s",
                  pick_cases[_i].version, text, pick_cases[_i].expected);
    pick_deinit(&pick);
}
END_TEST

static const struct {
    const char *version;
    const char *from, *to;
    uint64_t started_number, started_lsn;
    const char *expected;
} range_cases[] = {
    {"", "", "", 200, 2000, "nothing"},
    {"L6 a-b:100 c-d:100", "", "", 200, 2000, "nothing"},
    {"L0 a-b:100 L6 a-b:100", "", "", 200, 2000, "0>6 a-b + a-b bottom"},
    {"L0 a-b:100 L6 a-b:100", "c", "", 200, 2000, "nothing"},
    {"L0 a-b:100 c-d:100 b-c:100 L6 a-b:100", "a", "a", 200, 2000, "0>6 a-b c-d b-c + a-b bottom"},
    /* What was written since is left alone. */
    {"L0 a-b:100 L6 a-b:100", "", "", 200, 999, "nothing"},
    {"L0 a-b:100 c-d:100 L6 a-b:100", "", "", 200, 999, "0>6 c-d move bottom"},
    /* Level by level, in runs. */
    {"L5 a-b:900 c-d:900 e-f:900 L6 a-b:9000", "", "", 200, 2000, "5>6 a-b + a-b bottom"},
    {"L5 c-d:900 e-f:600 g-h:600 L6 a-b:9000", "", "", 200, 2000, "5>6 c-d e-f move bottom"},
    {"L4 a-b:100 L5 a-b:100 L6 a-b:9000", "", "", 200, 2000, "4>5 a-b + a-b"},
    /* Garbage at the bottom once. */
    {"L6 a-b:100 c-d:100g e-f:100g", "", "", 200, 2000, "6>6 c-d e-f bottom"},
    {"L6 a-b:100 c-d:100g e-f:100g", "", "", 99, 2000, "6>6 e-f bottom"},
    {"L6 a-b:100 c-d:100g e-f:100g", "", "", 98, 2000, "nothing"},
    /* What no running job is in the way of. */
    {"L0 m-z:40 a-k:40sx1>6 m-y:40 b-k:40sx1>6 L6 a-k:100x1>6 l-z:100", "", "", 200, 2000,
     "0>6 m-z m-y + l-z bottom"},
    {"L0 m-z:40 a-k:40s m-y:40x1>6 b-k:40s L6 a-k:100 l-z:100x1>6", "", "", 200, 2000,
     "0>6 a-k b-k + a-k bottom"},
    {"L0 a-k:40x1>6 L5 m-z:900 L6 a-k:100x1>6 l-z:9000", "", "", 200, 2000, "busy"},
    {"L5 a-b:900x1>6 m-n:900x1>6 o-p:900 L6 a-n:9000x1>6 o-z:9000", "", "", 200, 2000,
     "5>6 o-p + o-z bottom"},
    {"L0 a-b:100x1>6 L6 a-b:100", "", "", 200, 2000, "busy"},
    {"L0 a-b:100 L6 a-b:100x1>6", "", "", 200, 2000, "busy"},
    {"L5 a-b:100x1>6 L6 c-d:100", "", "", 200, 2000, "busy"},
};

START_TEST(test_pick_range)
{
    Drawing drawing;
    Pick pick;
    char text[512];
    draw(&drawing, range_cases[_i].version);
    Status status = compaction_pick_range(
        &drawing.version, &pick_options, slice_from_string(range_cases[_i].from),
        slice_from_string(range_cases[_i].to), range_cases[_i].started_number,
        range_cases[_i].started_lsn, &pick);
    print_pick(&pick, text, sizeof text);
    if (status == AIDB_BUSY)
        snprintf(text, sizeof text, "busy");
    else
        ck_assert_int_eq(status, AIDB_OK);
    ck_assert_msg(strcmp(text, range_cases[_i].expected) == 0, "%s\n  picked   %s\n  expected %s",
                  range_cases[_i].version, text, range_cases[_i].expected);
    pick_deinit(&pick);
}
END_TEST

START_TEST(test_targets)
{
    static const struct {
        const char *version;
        int base;
        uint64_t last, above, above_that;
    } cases[] = {
        {"", 6, 1000, 0, 0},
        {"L0 a-b:9999", 6, 1000, 0, 0},
        {"L6 a-b:900", 6, 1000, 0, 0},
        {"L6 a-b:1500", 5, 1500, 1000, 0},
        {"L6 a-b:20000", 4, 20000, 2000, 1000},
        {"L4 a-b:1 L6 a-b:900", 4, 10100, 1010, 1000},
        {"L1 a-b:1 L6 a-b:90000", 1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Drawing drawing;
        LevelTargets targets;
        draw(&drawing, cases[i].version);
        compaction_targets(&drawing.version, &pick_options, &targets);
        ck_assert_int_eq(targets.base, cases[i].base);
        for (int level = 0; level < LEVELS; level++) {
            ck_assert_int_eq(targets.bytes[level] == 0, level < targets.base);
            if (level > targets.base)
                ck_assert_uint_ge(targets.bytes[level], targets.bytes[level - 1]);
        }
        if (cases[i].last == 0)
            continue;
        ck_assert_uint_eq(targets.bytes[4], cases[i].above_that);
        ck_assert_uint_eq(targets.bytes[5], cases[i].above);
        /* Divided and multiplied again: nearly the same. */
        ck_assert_uint_le(targets.bytes[6], cases[i].last);
        ck_assert_uint_ge(targets.bytes[6], cases[i].last - cases[i].last / 100);
    }
}
END_TEST

START_TEST(test_table_size)
{
    const uint64_t mib = 1u << 20;
    ck_assert_uint_eq(compaction_table_size(64 * mib, 0, 10000), 64 * mib);
    ck_assert_uint_eq(compaction_table_size(64 * mib, 10000 * 64 * mib - 1, 10000), 64 * mib);
    ck_assert_uint_eq(compaction_table_size(64 * mib, 10000 * 64 * mib, 10000), 128 * mib);
    ck_assert_uint_eq(compaction_table_size(mib, 100 * mib, 1), 128 * mib);
    ck_assert_uint_eq(compaction_table_size(1, UINT64_MAX, 1), (uint64_t)1 << 63);
}
END_TEST

START_TEST(test_score)
{
    Drawing drawing;
    uint64_t pending;
    draw(&drawing, "L0 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 a-b:40 L5 a-b:900 c-d:900 L6 c-d:9000");
    ck_assert(compaction_score(&drawing.version, &pick_options, &pending) > 1.7);
    ck_assert_uint_eq(pending, 240 + 800);
    draw(&drawing, "L0 a-b:40 L6 c-d:9000");
    ck_assert(compaction_score(&drawing.version, &pick_options, &pending) < 1);
    ck_assert_uint_eq(pending, 0);
}
END_TEST

/* Equal files take turns. */
START_TEST(test_cursor)
{
    Drawing drawing;
    PickCursor cursors[LEVELS] = {{.size = 0}};
    static const char *turns[] = {"a-b", "c-d", "e-f", "a-b"};
    draw(&drawing, "L5 a-b:600 c-d:600 e-f:600 L6 a-b:3000 c-d:3000 e-f:3000");
    for (int i = 0; i < 4; i++) {
        Pick pick;
        ck_assert_int_eq(compaction_pick(&drawing.version, &pick_options, cursors, &pick), AIDB_OK);
        ck_assert_int_eq(pick.level, 5);
        ck_assert_str_eq((const char *)pick.inputs[0][0]->smallest.data, turns[i]);
        pick_advance(&pick, &cursors[5]);
        pick_deinit(&pick);
    }
}
END_TEST

TCase *picker_cases(void)
{
    TCase *tests = tcase_create("picker");
    tcase_add_loop_test(tests, test_pick, 0, sizeof pick_cases / sizeof pick_cases[0]);
    tcase_add_loop_test(tests, test_pick_range, 0, sizeof range_cases / sizeof range_cases[0]);
    tcase_add_test(tests, test_targets);
    tcase_add_test(tests, test_table_size);
    tcase_add_test(tests, test_score);
    tcase_add_test(tests, test_cursor);
    return tests;
}
