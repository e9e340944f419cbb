/*
 * repair_test.c - a random store, random damage, a repair, and what must hold then:
 *
 *   - nothing is in the new store that was not written under that key;
 *   - a key whose newest state is not there is covered by something that was reported lost;
 *   - what is reported lost of tables lies where bytes were damaged;
 *   - without damage nothing is lost and every key is as it was;
 *   - the damaged store is as it was, the new one opens, verifies and takes writes.
 */
#include "config.h"

#include "engine/db/test_history.h"

#include "engine/version/version.h"
#include "io/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- damage --------------------------------------------------------------------------------------- */

typedef enum DamageKind {
    DAMAGE_NONE,
    DAMAGE_TABLE_FLIP,
    DAMAGE_TABLE_FLIPS,
    DAMAGE_TABLE_TAIL, /* a flip among filter, index, properties, footer */
    DAMAGE_TABLE_CUT,
    DAMAGE_TABLE_GONE,
    DAMAGE_TABLE_PAGE,
    DAMAGE_TABLE_MOVED, /* bytes copied over others */
    DAMAGE_MANIFEST_FLIP,
    DAMAGE_MANIFEST_CUT,
    DAMAGE_MANIFEST_GONE,
    DAMAGE_CURRENT_GONE,
    DAMAGE_SEGMENT_FLIP,
    DAMAGE_SEGMENT_CUT,
    DAMAGE_SEGMENT_GONE,
    DAMAGE_RING_FLIP,
    DAMAGE_RING_HEADER,
    DAMAGE_RING_GONE,
    DAMAGE_RING_AND_SEGMENT, /* the ring's bytes are zero, and a segment is cut */
    DAMAGE_MANIFEST_AND_TABLE,
    DAMAGE_MANIFEST_AND_LOG,
    DAMAGE_KINDS
} DamageKind;

typedef struct Hurt {
    char path[300];
    uint64_t begin, end;
} Hurt;

typedef struct Damage {
    DamageKind kind;
    char *directory; /* the damaged copy */
    uint64_t random;
    Hurt hurts[32];
    size_t hurt_count;
    bool log; /* log or ring */
    bool manifest;
    bool table;
    uint64_t horizon; /* that the manifest states; 0 when it is damaged */
} Damage;

/* A file of the damaged copy; false when there is none. */
static bool choose_file(Damage *damage, const char *folder, const char *wanted, char path[300])
{
    char *names[512];
    size_t count = names_in(damage->directory, folder, wanted, names, 512);
    if (count > 0)
        snprintf(path, 300, "%s/%s", damage->directory,
                 names[test_random_below(&damage->random, count)]);
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    return count > 0;
}

static void hurt(Damage *damage, const char *path, uint64_t begin, uint64_t end)
{
    Hurt *one = &damage->hurts[damage->hurt_count++];
    snprintf(one->path, sizeof one->path, "%s", path);
    one->begin = begin;
    one->end = end;
}

static void flip(Damage *damage, const char *path, uint64_t from, uint64_t to)
{
    if (from >= to)
        return;
    uint64_t at = from + test_random_below(&damage->random, to - from);
    int fd = open(path, O_RDWR);
    uint8_t byte;
    ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= (uint8_t)(1 + test_random_below(&damage->random, 255));
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
    hurt(damage, path, at, at + 1);
}

static void cut(Damage *damage, const char *path)
{
    uint64_t size = size_of(path);
    uint64_t at = test_random_below(&damage->random, size);
    ck_assert_int_eq(truncate(path, (off_t)at), 0);
    hurt(damage, path, at, UINT64_MAX);
}

static void gone(Damage *damage, const char *path)
{
    ck_assert_int_eq(unlink(path), 0);
    hurt(damage, path, 0, UINT64_MAX);
}

static void overwrite(Damage *damage, const char *path, bool zeros)
{
    uint64_t size = size_of(path);
    uint8_t bytes[1024] = {0};
    uint64_t pages = (size + sizeof bytes - 1) / sizeof bytes;
    uint64_t from = test_random_below(&damage->random, pages) * sizeof bytes;
    uint64_t to = test_random_below(&damage->random, pages) * sizeof bytes;
    int fd = open(path, O_RDWR);
    ssize_t got = zeros ? (ssize_t)sizeof bytes : pread(fd, bytes, sizeof bytes, (off_t)from);
    if (got > (ssize_t)(size - to))
        got = (ssize_t)(size - to);
    uint8_t before[1024];
    ck_assert_int_eq(pread(fd, before, (size_t)got, (off_t)to), got);
    if (memcmp(before, bytes, (size_t)got) != 0) {
        ck_assert_int_eq(pwrite(fd, bytes, (size_t)got, (off_t)to), got);
        hurt(damage, path, to, to + (uint64_t)got);
    }
    close(fd);
}

static void apply_damage(Damage *damage)
{
    char path[300];
    DamageKind kind = damage->kind;
    damage->table = (kind >= DAMAGE_TABLE_FLIP && kind <= DAMAGE_TABLE_MOVED) ||
                    kind == DAMAGE_MANIFEST_AND_TABLE;
    damage->manifest = (kind >= DAMAGE_MANIFEST_FLIP && kind <= DAMAGE_CURRENT_GONE) ||
                       kind == DAMAGE_MANIFEST_AND_TABLE || kind == DAMAGE_MANIFEST_AND_LOG;
    damage->log = (kind >= DAMAGE_SEGMENT_FLIP && kind <= DAMAGE_RING_AND_SEGMENT) ||
                  kind == DAMAGE_MANIFEST_AND_LOG;
    if (damage->table && choose_file(damage, "sst", ".sst", path)) {
        uint64_t size = size_of(path);
        if (kind == DAMAGE_TABLE_TAIL)
            flip(damage, path, size - size / 4, size);
        else if (kind == DAMAGE_TABLE_CUT)
            cut(damage, path);
        else if (kind == DAMAGE_TABLE_GONE)
            gone(damage, path);
        else if (kind == DAMAGE_TABLE_PAGE || kind == DAMAGE_TABLE_MOVED)
            overwrite(damage, path, kind == DAMAGE_TABLE_PAGE);
        else
            for (int i = 0; i < (kind == DAMAGE_TABLE_FLIPS ? 8 : 1); i++)
                flip(damage, path, 0, size);
    }
    if (damage->manifest && kind == DAMAGE_CURRENT_GONE) {
        ck_assert(choose_file(damage, "", "CURRENT", path));
        gone(damage, path);
    } else if (damage->manifest && choose_file(damage, "", "MANIFEST", path)) {
        if (kind == DAMAGE_MANIFEST_CUT)
            cut(damage, path);
        else if (kind == DAMAGE_MANIFEST_GONE)
            gone(damage, path);
        else if (test_random_below(&damage->random, 3) == 0)
            flip(damage, path, 0, size_of(path));
        else
            flip(damage, path, 12288, size_of(path));
    }
    if (kind == DAMAGE_RING_AND_SEGMENT) {
        static const uint8_t zeros[64 << 10];
        ck_assert(choose_file(damage, "wal", "ring", path));
        int fd = open(path, O_WRONLY);
        ck_assert_int_eq(pwrite(fd, zeros, sizeof zeros, 4096), sizeof zeros);
        close(fd);
        hurt(damage, path, 4096, 4096 + sizeof zeros);
    }
    if (kind == DAMAGE_RING_FLIP || kind == DAMAGE_RING_HEADER || kind == DAMAGE_RING_GONE) {
        ck_assert(choose_file(damage, "wal", "ring", path));
        if (kind == DAMAGE_RING_GONE)
            gone(damage, path);
        else if (kind == DAMAGE_RING_FLIP)
            flip(damage, path, 4096, size_of(path));
        else
            flip(damage, path, 0, 4096);
    } else if (damage->log && choose_file(damage, "wal", ".0", path)) {
        if (kind == DAMAGE_SEGMENT_CUT || kind == DAMAGE_RING_AND_SEGMENT)
            cut(damage, path);
        else if (kind == DAMAGE_SEGMENT_GONE)
            gone(damage, path);
        else
            flip(damage, path, 0, size_of(path));
    }
}

/* ---- checks --------------------------------------------------------------------------------------- */

typedef struct Loss {
    DbLoss loss;
    char from[64], to[64];
    char path[300];
    char what[128];
} Loss;

typedef struct Losses {
    Loss items[4000];
    size_t count;
} Losses;

static Losses losses;

static void keep_loss(void *arg, const DbLoss *loss)
{
    (void)arg;
    ck_assert_uint_lt(losses.count, 4000);
    Loss *kept = &losses.items[losses.count++];
    kept->loss = *loss;
    snprintf(kept->path, sizeof kept->path, "%s", loss->path);
    snprintf(kept->what, sizeof kept->what, "%s", loss->what);
    snprintf(kept->from, sizeof kept->from, "%.*s", (int)loss->from.size,
             (const char *)loss->from.data);
    snprintf(kept->to, sizeof kept->to, "%.*s", (int)loss->to.size, (const char *)loss->to.data);
}

static void print_losses(void)
{
    for (size_t i = 0; i < losses.count; i++) {
        const Loss *kept = &losses.items[i];
        const DbLoss *loss = &kept->loss;
        printf("  lost: %s: %llu + %llu: %s%s%s%s [%s, %s] LSN %llu-%llu\n", kept->path,
               (unsigned long long)loss->offset, (unsigned long long)loss->size, kept->what,
               loss->entries ? " entries" : "", loss->range_deletes ? " ranges" : "",
               loss->log ? " log" : "", loss->has_from ? kept->from : "-",
               loss->has_to ? kept->to : "-", (unsigned long long)loss->lsn_from,
               (unsigned long long)loss->lsn_to);
    }
}

static bool covered(const Damage *damage, const DbRepair *repair, const char *key,
                    const Event *newest)
{
    for (size_t i = 0; i < losses.count; i++) {
        const Loss *kept = &losses.items[i];
        const DbLoss *loss = &kept->loss;
        bool in_keys = (!loss->has_from || strcmp(kept->from, key) <= 0) &&
                       (!loss->has_to || strcmp(key, kept->to) <= 0);
        if (loss->entries && in_keys)
            return true;
        if (loss->range_deletes && newest->range && in_keys)
            return true;
        if (loss->log && newest->lsn >= loss->lsn_from &&
            (loss->lsn_to == 0 || newest->lsn < loss->lsn_to))
            return true;
        /* Without the manifest a deletion that compaction dropped may be undone. */
        if (loss->manifest && newest->number == 0)
            return true;
        /* ... and what is missing as a whole cannot be told. */
        if (loss->manifest && (damage->table || damage->log))
            return true;
    }
    /* At or above the horizon damage is the end of the log, and nothing says that more was there. */
    return damage->log && newest->lsn >= repair->log_end && newest->lsn >= damage->horizon;
}

static void check_key(const World *world, const Damage *damage, const DbRepair *repair,
                      Session *session, uint32_t index)
{
    const History *history = &world->keys[index];
    Event never = {0};
    const Event *newest = history->count > 0 ? &history->events[history->count - 1] : &never;
    char key[16];
    key_of(index, key);
    Entry entry;
    Status status = db_read_get(session, slice_from_string(key), &entry);
    uint32_t number = 0;
    if (status == AIDB_OK) {
        ck_assert_uint_ge(entry.value.size, 8);
        memcpy(&number, entry.value.data, sizeof number);
        const Event *source = NULL;
        for (size_t i = 0; i < history->count; i++)
            if (history->events[i].number == number)
                source = &history->events[i];
        ck_assert_msg(source != NULL && number != 0 && slice_equal(entry.value, value_of(number)),
                      "%s holds a value that nobody wrote", key);
        /* cppcheck-suppress nullPointer ; the assertion above has ended the test */
        ck_assert_msg(entry.lsn == source->lsn || damage->manifest, "%s has another version", key);
    } else {
        ck_assert_int_eq(status, AIDB_NOT_FOUND);
    }
    if (number != newest->number && !covered(damage, repair, key, newest)) {
        print_losses();
        ck_abort_msg("%s: write %u expected (LSN %llu), %u found, and nothing is said to be lost",
                     key, newest->number, (unsigned long long)newest->lsn, number);
    }
}

static void print_finding(void *arg, const char *path, uint64_t offset, const char *what)
{
    printf("  %s: %llu: %s\n", path, (unsigned long long)offset, what);
    ++*(uint64_t *)arg;
}

/* What is said to be lost of tables must be where the damage is. */
static void check_places(const Damage *damage)
{
    for (size_t i = 0; i < losses.count; i++) {
        const Loss *kept = &losses.items[i];
        if (kept->loss.log || kept->loss.manifest || damage->manifest)
            continue;
        bool met = false;
        for (size_t j = 0; j < damage->hurt_count && !met; j++)
            met = strcmp(damage->hurts[j].path, kept->path) == 0 &&
                  damage->hurts[j].begin < kept->loss.offset + kept->loss.size &&
                  kept->loss.offset < damage->hurts[j].end;
        if (!met) {
            print_losses();
            ck_abort_msg("lost without damage: %s at %llu", kept->path,
                         (unsigned long long)kept->loss.offset);
        }
    }
}

typedef struct Print {
    Buffer text;
    const char *folder;
} Print;

static Status print_file(void *arg, const char *name)
{
    Print *print = arg;
    char *path = path_join(print->folder, name);
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    Status status = AIDB_OK;
    if (S_ISREG(info.st_mode))
        status =
            buffer_append_format(&print->text, "%s %lld %lld.%ld\n", path, (long long)info.st_size,
                                 (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    free(path);
    return status;
}

/* Names, sizes and times of everything: what a repair must leave alone. */
static Buffer fingerprint(const char *directory)
{
    Print print = {0};
    static const char *const folders[] = {"", "/wal", "/sst"};
    for (size_t i = 0; i < 3; i++) {
        char folder[300];
        snprintf(folder, sizeof folder, "%s%s", directory, folders[i]);
        print.folder = folder;
        ok(directory_list(folder, print_file, &print));
    }
    return print.text;
}

static void check_repaired(const World *world, const Damage *damage, const DbRepair *repair)
{
    uint64_t findings = 0;
    ok(db_verify(repair->new_directory, false, print_finding, &findings));
    ck_assert_uint_eq(findings, 0);
    World again = {.store = {.directory = (char *)repair->new_directory,
                             .options = world->store.options,
                             .random = 1}};
    store_open(&again.store);
    uint64_t at;
    ok(db_read_begin(again.store.client, DB_NOW, &at));
    for (uint32_t i = 0; i < KEYS; i++)
        check_key(world, damage, repair, again.store.client, i);
    db_read_end(again.store.client);
    again.next_number = 1000000000;
    for (int i = 0; i < 20; i++)
        random_write(&again);
    store_close(&again.store, true);
    for (uint32_t i = 0; i < KEYS; i++)
        free(again.keys[i].events);
}

static void damage_and_repair(const World *world, DamageKind kind, uint64_t seed)
{
    Damage damage = {.kind = kind, .random = seed | 1};
    damage.directory = test_directory_create();
    char *fresh = test_directory_create();
    test_directory_copy(world->store.directory, damage.directory);
    apply_damage(&damage);
    ManifestState state;
    if (manifest_load(damage.directory, &state) == AIDB_OK) {
        damage.horizon = state.counters.horizon;
        manifest_state_deinit(&state);
    }
    Buffer before = fingerprint(damage.directory);
    uint64_t findings = 0;
    Status verified = db_verify(damage.directory, false, count_finding, &findings);
    ck_assert(verified == AIDB_OK || kind == DAMAGE_CURRENT_GONE);
    losses.count = 0;
    DbRepair repair = {.directory = damage.directory,
                       .new_directory = fresh,
                       .options = &world->store.options,
                       .report = keep_loss};
    ok(db_repair(&repair));
    ck_assert_uint_eq(repair.losses, losses.count);
    /* Behind the end of the log verification looks at nothing: it may have been torn there. */
    if (verified == AIDB_OK && findings == 0 && !damage.log)
        ck_assert_msg(losses.count == 0, "lost without damage that verify finds: %s, %s",
                      losses.items[0].path, losses.items[0].what);
    if (damage.table && damage.hurt_count > 0 && !damage.manifest &&
        strstr(damage.hurts[0].path, ".sst") != NULL && losses.count > 0)
        ck_assert_uint_gt(findings, 0);
    check_places(&damage);
    check_repaired(world, &damage, &repair);
    Buffer after = fingerprint(damage.directory);
    ck_assert(slice_equal(buffer_slice(&before), buffer_slice(&after)));
    buffer_deinit(&before);
    buffer_deinit(&after);
    test_directory_destroy(damage.directory);
    test_directory_destroy(fresh);
}

START_TEST(random_damage)
{
    const char *rounds_text = getenv("AIDB_ROUNDS");
    int rounds = rounds_text != NULL ? atoi(rounds_text) : 8;
    uint64_t seed = test_seed("repair");
    for (int round = 0; round < rounds; round++) {
        World world;
        world_run(&world, seed + (uint64_t)round * 7919);
        for (int kind = 0; kind < DAMAGE_KINDS; kind++) {
            uint64_t own = (seed + (uint64_t)round) * 1000003 + (uint64_t)kind;
            for (int again = 0; again < 2; again++) {
                damage_and_repair(&world, (DamageKind)kind, own * 31 + (uint64_t)again * 17);
            }
        }
        world_destroy(&world);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *random_case = tcase_create("random");
    tcase_set_timeout(random_case, 0);
    tcase_add_test(random_case, random_damage);
    suite_add_tcase(suite, random_case);
    suite_add_tcase(suite, misplaced_cases());
    return test_run(suite);
}
