/*
 * test_table.c - a directory for tables, a model of their entries, tables built from it.
 */
#include "config.h"

#include "engine/sstable/test_table.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const Shape small_shape = {"small", 25, 0, 10, 60, 2, 512};

char directory[256];
const uint8_t system_id[16] = "a test database";

void make_directory(void)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL) /* memory: these tests change files a million times */
        base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(directory, sizeof directory, "%s/aidb-sstable-XXXXXX", base);
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static Status remove_name(void *arg, const char *name)
{
    (void)arg;
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return file_unlink(path);
}

void remove_directory(void)
{
    OK(directory_list(directory, remove_name, NULL));
    ck_assert_int_eq(rmdir(directory), 0);
}

void table_path(uint64_t number, char path[400])
{
    char name[TABLE_NAME_SIZE];
    table_name(number, name);
    snprintf(path, 400, "%s/%s", directory, name);
}

uint8_t *model_bytes(Model *model, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    ck_assert_ptr_nonnull(bytes);
    if ((model->memory_count & (model->memory_count + 1)) == 0) { /* room for twice as many */
        model->memory =
            realloc(model->memory, (model->memory_count + 1) * 2 * sizeof *model->memory);
        ck_assert_ptr_nonnull(model->memory);
    }
    model->memory[model->memory_count++] = bytes;
    return bytes;
}

void model_free(Model *model)
{
    for (size_t i = 0; i < model->memory_count; i++)
        free(model->memory[i]);
    free(model->memory);
    free(model->entries);
    *model = (Model){0};
}

static int entry_order(const void *a, const void *b)
{
    const Entry *left = a;
    const Entry *right = b;
    return entry_compare(left->key, left->lsn, right->key, right->lsn);
}

static size_t random_key(const Shape *shape, size_t i, uint8_t *to)
{
    size_t size;
    switch (shape->key_kind) {
    case 0:
        size = 1 + test_draw_below(shape->key_max);
        for (size_t j = 0; j < size; j++)
            to[j] = (uint8_t)('a' + test_draw_below(3));
        return size;
    case 1:
        size = shape->key_max - test_draw_below(8);
        memset(to, 'p', size);
        to[size / 2] = (uint8_t)('0' + test_draw_below(4));
        for (size_t j = 0; j < 4 && j < size; j++)
            to[size - 1 - j] = (uint8_t)('0' + test_draw_below(10));
        return size;
    case 2:
        size = 1 + test_draw_below(shape->key_max);
        for (size_t j = 0; j < size; j++)
            to[j] = test_draw_below(4) == 0   ? 0
                    : test_draw_below(4) == 0 ? 0xff
                                              : (uint8_t)test_draw();
        return size;
    case 3:
        return (size_t)sprintf((char *)to, "key:%012zu", i * 3);
    default:
        return (size_t)sprintf((char *)to, "k%u", test_draw_below(5));
    }
}

void model_build(Model *model, const Shape *shape)
{
    *model = (Model){.lsn_floor = 1000};
    model->entries = calloc(shape->entries * (shape->versions + 1) + 1, sizeof *model->entries);
    ck_assert_ptr_nonnull(model->entries);
    uint8_t *key = malloc(AIDB_KEY_MAX + 32);
    ck_assert_ptr_nonnull(key);
    uint64_t lsn = model->lsn_floor;
    for (size_t i = 0; i < shape->entries; i++) {
        size_t size = random_key(shape, i, key);
        uint8_t *kept = model_bytes(model, size);
        memcpy(kept, key, size);
        uint32_t versions = 1 + test_draw_below(shape->versions);
        for (uint32_t j = 0; j < versions; j++) {
            Entry *entry = &model->entries[model->count++];
            entry->key = slice_make(kept, size);
            entry->lsn = lsn;
            lsn += 1 + (test_draw_below(10) == 0 ? test_draw_below(1u << 20) : test_draw_below(40));
            entry->type = test_draw_below(6) == 0 ? OP_DELETE : OP_PUT;
            if (entry->type == OP_PUT) {
                size_t value_size = test_draw_below(shape->value_max + 1);
                uint8_t *value = model_bytes(model, value_size);
                for (size_t k = 0; k < value_size; k++)
                    value[k] = k % 3 == 0 ? (uint8_t)test_draw() : (uint8_t)'v';
                entry->value = slice_make(value, value_size);
            }
        }
    }
    free(key);
    if (model->count > 0)
        qsort(model->entries, model->count, sizeof *model->entries, entry_order);
}

/* The first entry at or after (key, lsn). */
size_t model_seek(const Model *model, Slice key, uint64_t lsn)
{
    size_t low = 0;
    size_t high = model->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (entry_compare(model->entries[middle].key, model->entries[middle].lsn, key, lsn) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool entry_equal(const Entry *a, const Entry *b)
{
    return slice_equal(a->key, b->key) && slice_equal(a->value, b->value) && a->lsn == b->lsn &&
           a->type == b->type;
}

TableOptions options_of(Compression compression, uint32_t block_size, uint32_t filter_bits)
{
    TableOptions options = {.block_size = block_size,
                            .compression = compression,
                            .compression_level = 1,
                            .filter_bits = filter_bits};
    memcpy(options.system_id, system_id, 16);
    return options;
}

TableInfo build_table(const Model *model, const TableOptions *options, uint64_t number,
                      const RangeFragment *fragments, size_t fragment_count)
{
    TableBuilder *builder;
    OK(table_builder_create(options, directory, number, model->lsn_floor, &builder));
    for (size_t i = 0; i < model->count; i++)
        OK(table_builder_add(builder, &model->entries[i]));
    OK(table_builder_add_fragments(builder, fragments, fragment_count));
    ck_assert_uint_eq(table_builder_entries(builder), model->count);
    Slice smallest;
    Slice largest;
    table_builder_bounds(builder, &smallest, &largest);
    if (model->count > 0) {
        ck_assert(slice_equal(smallest, model->entries[0].key));
        ck_assert(slice_equal(largest, model->entries[model->count - 1].key));
    } else {
        ck_assert_uint_eq(smallest.size + largest.size, 0);
    }
    TableInfo info;
    OK(table_builder_finish(builder, &info));
    TableInfo again;
    ck_assert_int_eq(table_builder_finish(builder, &again), AIDB_INTERNAL);
    table_builder_destroy(builder);
    return info;
}

/* A key near those of the model: one of them, changed or cut, or a random one. */
Slice probe_key(const Model *model, uint8_t *room)
{
    if (model->count == 0 || test_draw_below(8) == 0) {
        size_t size = 1 + test_draw_below(10);
        for (size_t i = 0; i < size; i++)
            room[i] = (uint8_t)test_draw();
        return slice_make(room, size);
    }
    Slice key = model->entries[test_draw_below((uint32_t)model->count)].key;
    memcpy(room, key.data, key.size);
    switch (test_draw_below(5)) {
    case 0:
        room[test_draw_below((uint32_t)key.size)] ^= (uint8_t)(1u << test_draw_below(8));
        break;
    case 1:
        key.size = 1 + test_draw_below((uint32_t)key.size);
        break;
    case 2:
        if (key.size < AIDB_KEY_MAX)
            room[key.size++] = (uint8_t)(test_draw_below(2) == 0 ? 0 : test_draw());
        break;
    default:
        break;
    }
    return slice_make(room, key.size);
}

uint64_t probe_lsn(const Model *model)
{
    switch (test_draw_below(4)) {
    case 0:
        return LSN_MAX;
    case 1:
        return 0;
    default:
        return model->entries[test_draw_below((uint32_t)model->count)].lsn + test_draw_below(3) - 1;
    }
}

size_t make_fragments(const Model *model, RangeFragment *fragments, uint64_t *lsns, size_t most)
{
    size_t count = 0;
    for (size_t i = 0; i + 1 < model->count && count < most; i += 1 + test_draw_below(40)) {
        Slice from = model->entries[i].key;
        Slice to = model->entries[i + 1].key;
        if (slice_compare(from, to) >= 0 ||
            (count > 0 && slice_compare(fragments[count - 1].to, from) > 0))
            continue;
        uint32_t lsn_count = 1 + test_draw_below(3);
        for (uint32_t j = 0; j < lsn_count; j++)
            lsns[count * 3 + j] = model->lsn_floor + 5000 - j * 100 - test_draw_below(50);
        fragments[count] = (RangeFragment){
            .from = from, .to = to, .lsns = lsns + count * 3, .lsn_count = lsn_count};
        count++;
    }
    if (count > 0 && test_draw_below(2) == 0)
        fragments[count - 1].to = (Slice){0};
    if (count > 0 && test_draw_below(2) == 0)
        fragments[0].from = (Slice){0};
    return count;
}

void overwrite(const char *path, uint64_t offset, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, size, (off_t)offset), (ssize_t)size);
    close(fd);
}
