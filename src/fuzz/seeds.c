/*
 * seeds.c - inputs to begin with, from the real writers: tables and their blocks in every shape that a
 * builder makes, conversations of a client with a server and of a server with a client.
 *
 * A format that changes makes old inputs shallow: they end where their bytes no longer fit. Then
 * `fuzz_test --seeds FOLDER` writes new ones.
 */
#include "config.h"

#include "fuzz/seeds.h"

#include "engine/sstable/sstable_internal.h"
#include "fuzz/fuzz.h"
#include "protocol/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void must(Status status)
{
    fuzz_require(status == AIDB_OK);
}

/* Where the seeds of a target go, and how many there are. */
typedef struct Nursery {
    const char *folder;
    const char *target;
    uint32_t count;
} Nursery;

static void emit(Nursery *nursery, const Buffer *seed)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", nursery->folder, nursery->target);
    (void)mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/seed-%03u", nursery->folder, nursery->target,
             nursery->count++);
    fuzz_write_file(path, seed->data, seed->size);
}

/* ---- tables ------------------------------------------------------------------------------------ */

typedef struct TableShape {
    Compression compression;
    uint32_t block_size;
    uint32_t filter_bits;
    uint32_t keys;
    uint32_t versions; /* of each key */
    uint32_t key_size; /* at least */
    uint32_t value_size;
    uint32_t large_value; /* of one key in the middle */
    uint32_t ranges;
    bool deletes;
    bool noise; /* values do not compress */
    bool prose; /* values have much in common, but little in themselves */
} TableShape;

static const TableShape shapes[] = {
    {.compression = COMPRESSION_NONE, .block_size = 256, .keys = 20, .value_size = 9},
    {.compression = COMPRESSION_NONE, .block_size = 4096, .filter_bits = 10, .keys = 1},
    {.compression = COMPRESSION_NONE, .block_size = 512, .ranges = 3},
    {.compression = COMPRESSION_NONE,
     .block_size = 300,
     .filter_bits = 10,
     .keys = 30,
     .versions = 3,
     .value_size = 12,
     .deletes = true,
     .ranges = 4},
    {.compression = COMPRESSION_NONE,
     .block_size = 512,
     .keys = 6,
     .value_size = 30,
     .large_value = 6000},
    {.compression = COMPRESSION_ZSTD,
     .block_size = 1024,
     .filter_bits = 10,
     .keys = 60,
     .value_size = 40},
    {.compression = COMPRESSION_ZSTD,
     .block_size = 512,
     .filter_bits = 6,
     .keys = 40,
     .versions = 2,
     .value_size = 25,
     .deletes = true,
     .ranges = 2},
    {.compression = COMPRESSION_ZSTD,
     .block_size = 512,
     .keys = 12,
     .value_size = 100,
     .noise = true},
    {.compression = COMPRESSION_ZSTD,
     .block_size = 1000,
     .keys = 400,
     .value_size = 120,
     .prose = true},
    {.compression = COMPRESSION_ZSTD, .block_size = 512, .keys = 90, .key_size = 1000},
    {.compression = COMPRESSION_ZSTD, .block_size = 512, .keys = 5, .large_value = 20000},
    {.compression = COMPRESSION_SNAPPY,
     .block_size = 1024,
     .filter_bits = 10,
     .keys = 50,
     .value_size = 40},
    {.compression = COMPRESSION_SNAPPY,
     .block_size = 600,
     .filter_bits = 10,
     .keys = 30,
     .versions = 4,
     .value_size = 20,
     .deletes = true,
     .ranges = 6},
};

#define SHAPE_COUNT (sizeof shapes / sizeof shapes[0])
#define NUMBER      TABLE_NUMBER(1, 5)

/* Keys of which some have long beginnings in common and some little. */
static void make_key(const TableShape *shape, uint32_t i, Buffer *key)
{
    buffer_clear(key);
    must(buffer_append_format(key, "%c", (int)('a' + i * 3 / shape->keys)));
    while (key->size < shape->key_size)
        must(buffer_append_byte(key, (uint8_t)('p' + i * 3 / shape->keys)));
    must(buffer_append_format(key, "user%05u", i * 7));
}

/* One of some sayings that make no sense. */
static void append_saying(Buffer *value, uint32_t number)
{
    for (uint32_t i = 0, state = number; i < 40; i++) {
        state = state * 1664525u + 1013904223u;
        must(buffer_append_byte(value, (uint8_t)('a' + (state >> 24) % 26)));
    }
}

static void make_value(const TableShape *shape, uint32_t i, uint32_t size, Buffer *value)
{
    uint32_t state = i * 2654435761u + 1;
    buffer_clear(value);
    while (value->size < size) {
        state = state * 1664525u + 1013904223u;
        if (shape->noise)
            must(buffer_append_byte(value, (uint8_t)(state >> 24)));
        else if (shape->prose)
            append_saying(value, state >> 26);
        else
            must(buffer_append_format(value, "{\"name\":\"n%u\",\"age\":%u}", state >> 28, i % 90));
    }
    value->size = size;
}

static void add_entries(TableBuilder *builder, const TableShape *shape)
{
    Buffer key = {0}, value = {0};
    uint32_t versions = shape->versions > 0 ? shape->versions : 1;
    for (uint32_t i = 0; i < shape->keys; i++) {
        make_key(shape, i, &key);
        for (uint32_t v = versions; v > 0; v--) {
            bool deleted = shape->deletes && (i + v) % 5 == 0;
            bool large = shape->large_value > 0 && i == shape->keys / 2;
            make_value(shape, i + v,
                       deleted ? 0
                       : large ? shape->large_value
                               : shape->value_size,
                       &value);
            must(table_builder_add(builder, &(Entry){.key = buffer_slice(&key),
                                                     .value = buffer_slice(&value),
                                                     .lsn = 100 + i * 3 + v * 400,
                                                     .type = deleted ? OP_DELETE : OP_PUT}));
        }
    }
    buffer_deinit(&key);
    buffer_deinit(&value);
}

static void add_ranges(TableBuilder *builder, uint32_t count)
{
    RangeFragment items[8];
    char bounds[8][2][16];
    uint64_t lsns[8][2];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(bounds[i][0], sizeof bounds[i][0], "b%02u", i * 2);
        snprintf(bounds[i][1], sizeof bounds[i][1], "b%02u", i * 2 + 1 + i % 2);
        lsns[i][0] = 500 + i;
        lsns[i][1] = 130 + i;
        items[i] = (RangeFragment){
            .from = slice_from_string(bounds[i][0]),
            .to = i == count - 1 ? (Slice){0} : slice_from_string(bounds[i][1]),
            .lsns = lsns[i],
            .lsn_count = 1 + i % 2,
        };
    }
    if (count > 0)
        must(table_builder_add_fragments(builder, items, count));
}

typedef struct Table {
    TableInfo info;
    Buffer file;
    TableDecompressor *decompressor;
    void *memory;
    const Dictionary *dictionary;
} Table;

static void read_file(const char *path, Buffer *bytes)
{
    FILE *file = fopen(path, "re");
    fuzz_require(file != NULL);
    size_t got;
    do {
        must(buffer_reserve(bytes, 65536));
        got = fread(bytes->data + bytes->size, 1, 65536, file);
        bytes->size += got;
    } while (got > 0);
    fclose(file);
}

static void build_table(const TableShape *shape, Table *table)
{
    TableOptions options = {.block_size = shape->block_size,
                            .compression = shape->compression,
                            .compression_level = 1,
                            .filter_bits = shape->filter_bits};
    TableBuilder *builder;
    char name[TABLE_NAME_SIZE], path[400];
    *table = (Table){0};
    must(table_builder_create(&options, fuzz_directory(), NUMBER, 100, &builder));
    add_entries(builder, shape);
    add_ranges(builder, shape->ranges);
    must(table_builder_finish(builder, &table->info));
    table_builder_destroy(builder);
    table_name(NUMBER, name);
    snprintf(path, sizeof path, "%s/%s", fuzz_directory(), name);
    read_file(path, &table->file);
    unlink(path);
}

static void emit_table(Nursery *nursery, const Table *table)
{
    for (uint8_t choices = 0; choices < 4; choices += 2) { /* with readahead and without */
        Buffer seed = {0};
        must(buffer_append_byte(&seed, choices));
        must(buffer_append(&seed, table->file.data, table->file.size));
        emit(nursery, &seed);
        buffer_deinit(&seed);
    }
}

/* ---- blocks ------------------------------------------------------------------------------------ */

/* What the target's first byte means. */
enum { AS_DATA = 0, AS_INDEX = 2, AS_RANGES, AS_FILTER, AS_PROPERTIES, AS_ZSTD, AS_SNAPPY };

static BlockTrailer trailer_of(const Table *table, const BlockHandle *handle, BlockKind kind)
{
    BlockTrailer trailer;
    fuzz_require(block_check(table->info.id, handle->offset, table->file.data + handle->offset,
                             handle->size, kind, &trailer) == NULL);
    return trailer;
}

static void unpack(const Table *table, const BlockHandle *handle, BlockKind kind, Buffer *payload)
{
    BlockTrailer trailer = trailer_of(table, handle, kind);
    payload->size = 0;
    must(buffer_reserve(payload, trailer.raw_size + 1));
    payload->size = trailer.raw_size;
    fuzz_require(block_unpack(table->decompressor, &trailer, table->dictionary,
                              table->file.data + handle->offset, handle->size - TRAILER_SIZE,
                              payload->data) == NULL);
}

static void emit_block(Nursery *nursery, uint8_t as, Slice payload)
{
    Buffer seed = {0};
    must(buffer_append_byte(&seed, as));
    must(buffer_append(&seed, payload.data, payload.size));
    emit(nursery, &seed);
    buffer_deinit(&seed);
}

static void emit_packed(Nursery *nursery, const Table *table, const BlockHandle *handle)
{
    BlockTrailer trailer = trailer_of(table, handle, BLOCK_DATA);
    if (trailer.raw_size > UINT16_MAX || trailer.plain > UINT8_MAX ||
        (trailer.compression != COMPRESSION_ZSTD && trailer.compression != COMPRESSION_SNAPPY))
        return;
    Buffer seed = {0};
    must(buffer_append_byte(&seed, (uint8_t)trailer.raw_size));
    must(buffer_append_byte(&seed, (uint8_t)(trailer.raw_size >> 8)));
    must(buffer_append_byte(&seed, (uint8_t)trailer.plain));
    must(buffer_append(&seed, table->file.data + handle->offset, handle->size - TRAILER_SIZE));
    emit_block(nursery, trailer.compression == COMPRESSION_ZSTD ? AS_ZSTD : AS_SNAPPY,
               buffer_slice(&seed));
    buffer_deinit(&seed);
}

/* An index block and, `levels` deep, the first and the last of what it leads to. */
static void emit_index(Nursery *nursery, const Table *table, const BlockHandle *handle,
                       uint32_t levels, BlockKind kind, BlockKind leaf, uint8_t as)
{
    Buffer payload = {0}, below = {0};
    IndexView view;
    unpack(table, handle, kind, &payload);
    emit_block(nursery, AS_INDEX, buffer_slice(&payload));
    fuzz_require(index_view_init(&view, buffer_slice(&payload)));
    for (uint32_t i = 0; i<view.count; i += view.count> 1 ? view.count - 1 : 1) {
        BlockHandle child;
        fuzz_require(index_handle(&view, i, &child));
        if (levels > 1) {
            emit_index(nursery, table, &child, levels - 1, BLOCK_INDEX, leaf, as);
            continue;
        }
        unpack(table, &child, leaf, &below);
        emit_block(nursery, as, buffer_slice(&below));
        if (leaf == BLOCK_DATA)
            emit_packed(nursery, table, &child);
    }
    buffer_deinit(&payload);
    buffer_deinit(&below);
}

static void take_dictionary(Table *table)
{
    const TableInfo *info = &table->info;
    if (info->dictionary_size == 0)
        return;
    Buffer bytes = {0};
    BlockHandle handle = {.offset = info->dictionary_offset, .size = info->dictionary_size};
    unpack(table, &handle, BLOCK_DICTIONARY, &bytes);
    size_t room = dictionary_room(bytes.size);
    table->memory = malloc(room);
    fuzz_require(table->memory != NULL);
    table->dictionary = dictionary_init(table->memory, room, bytes.data, bytes.size);
    fuzz_require(table->dictionary != NULL);
    buffer_deinit(&bytes);
}

static void emit_blocks(Nursery *nursery, Table *table)
{
    const TableInfo *info = &table->info;
    Buffer payload = {0};
    take_dictionary(table);
    BlockHandle index = {.offset = info->index_offset, .size = info->index_size};
    if (info->entries > 0)
        emit_index(nursery, table, &index, info->index_levels,
                   info->index_levels > 1 ? BLOCK_INDEX_TOP : BLOCK_INDEX, BLOCK_DATA, AS_DATA);
    BlockHandle ranges = {.offset = info->range_offset, .size = info->range_size};
    if (info->range_size > 0)
        emit_index(nursery, table, &ranges, 1, BLOCK_RANGE_TOP, BLOCK_RANGE, AS_RANGES);
    BlockHandle filter = {.offset = info->filter_offset, .size = info->filter_section_size};
    if (info->filter_sections > 0) {
        unpack(table, &filter, BLOCK_FILTER, &payload);
        emit_block(nursery, AS_FILTER, buffer_slice(&payload));
    }
    TableInfo footer;
    BlockHandle properties;
    fuzz_require(table_footer_decode(table->file.data + table->file.size - TABLE_FOOTER_SIZE,
                                     table->file.size, &footer, &properties) == NULL);
    unpack(table, &properties, BLOCK_PROPERTIES, &payload);
    emit_block(nursery, AS_PROPERTIES, buffer_slice(&payload));
    buffer_deinit(&payload);
}

static void tables_and_blocks(const char *folder)
{
    Nursery tables = {.folder = folder, .target = "table"};
    Nursery blocks = {.folder = folder, .target = "block"};
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        Table table;
        if (!compression_supported(shapes[i].compression))
            continue;
        build_table(&shapes[i], &table);
        printf("table %zu: %zu bytes, index levels %u, dictionary %u, ranges %u\n", i,
               table.file.size, table.info.index_levels, table.info.dictionary_size,
               table.info.range_size);
        table.decompressor = decompressor_create();
        fuzz_require(table.decompressor != NULL);
        emit_table(&tables, &table);
        emit_blocks(&blocks, &table);
        decompressor_destroy(table.decompressor);
        free(table.memory);
        buffer_deinit(&table.file);
    }
}

/* ---- conversations ----------------------------------------------------------------------------- */

/* Records of the targets `session` and `replies`. */

static void add_raw(Buffer *seed, uint8_t kind, uint8_t flags, uint8_t id, Slice body)
{
    uint8_t head[5] = {kind, flags, id, (uint8_t)body.size, (uint8_t)(body.size >> 8)};
    must(buffer_append(seed, head, sizeof head));
    must(buffer_append(seed, body.data, body.size));
}

static void add_marked(Buffer *seed, uint8_t mark, Message message)
{
    Buffer frame = {0};
    must(message_encode(&frame, &message));
    add_raw(seed, (uint8_t)(message.type | mark), message.flags, (uint8_t)message.id,
            slice_make(frame.data + FRAME_HEADER_SIZE, frame.size - FRAME_HEADER_SIZE));
    buffer_deinit(&frame);
}

static void add(Buffer *seed, Message message)
{
    add_marked(seed, 0, message);
}

enum { WITH_SNAPSHOT = 128, RECORD_BYTES = 60, RECORD_TURN, RECORD_EVENT, RECORD_HANG_UP };
enum { HOSTED = 1, NO_HELLO = 2, DEAF = 4, CROWDED = 8, VERIFY = 16 };

static Slice word(const char *text)
{
    return slice_from_string(text);
}

static void add_turn(Buffer *seed)
{
    must(buffer_append_byte(seed, RECORD_TURN));
}

static void add_event(Buffer *seed, uint8_t what)
{
    must(buffer_append_byte(seed, RECORD_EVENT));
    must(buffer_append_byte(seed, what));
}

static void add_batch(Buffer *seed, uint8_t id, const Batch *batch, uint8_t durability)
{
    add(seed, (Message){.type = MESSAGE_WRITE,
                        .id = id,
                        .durability = durability,
                        .ops = buffer_slice(&batch->ops),
                        .expectations = buffer_slice(&batch->expectations)});
}

static void add_put(Buffer *seed, uint8_t id, const char *key, const char *value)
{
    Batch batch = {0};
    must(batch_put(&batch, word(key), word(value)));
    add_batch(seed, id, &batch, AIDB_DEFAULT);
    batch_deinit(&batch);
}

static void add_keys(Buffer *seed, uint8_t mark, uint8_t id, uint32_t count)
{
    Buffer row = {0};
    uint64_t snapshot = 0;
    for (uint32_t i = 0; i < count; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%02u", i);
        must(buffer_append_slice(&row, word(key)));
    }
    add_marked(seed, mark,
               (Message){.type = MESSAGE_MULTI_GET,
                         .id = id,
                         .snapshot = snapshot,
                         .count = count,
                         .row = buffer_slice(&row)});
    buffer_deinit(&row);
}

static void add_many_puts(Buffer *seed, uint8_t id, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%02u", i);
        add_put(seed, (uint8_t)(id + i), key, "value");
    }
}

static void say_simple_things(Buffer *seed)
{
    add_put(seed, 1, "a", "1");
    add(seed, (Message){.type = MESSAGE_GET, .id = 2, .key = word("a")});
    add(seed, (Message){.type = MESSAGE_PING, .id = 3});
    Batch batch = {0};
    must(batch_delete(&batch, word("a")));
    must(batch_put(&batch, word("b"), word("2")));
    must(batch_delete_range(&batch, word("c"), word("d")));
    add_batch(seed, 4, &batch, AIDB_FSYNC);
    batch_deinit(&batch);
    add(seed, (Message){.type = MESSAGE_GET, .id = 5, .key = word("a")});
    add_keys(seed, 0, 6, 3);
    add(seed, (Message){.type = MESSAGE_MEASURE, .id = 7, .flags = MEASURE_COUNT | MEASURE_BYTES});
    add(seed, (Message){.type = MESSAGE_PROPERTY, .id = 8, .name = word("status")});
}

static void pipeline(Buffer *seed)
{
    add_many_puts(seed, 1, 20);
    for (uint8_t i = 0; i < 20; i++)
        add(seed, (Message){.type = MESSAGE_GET, .id = 30u + i, .key = word("k07")});
    add_keys(seed, 0, 60, 70);
}

static void read_at_snapshots(Buffer *seed)
{
    add_put(seed, 1, "k01", "old");
    add(seed, (Message){.type = MESSAGE_SNAPSHOT, .id = 2});
    add_put(seed, 3, "k01", "new");
    add_marked(seed, WITH_SNAPSHOT, (Message){.type = MESSAGE_GET, .id = 4, .key = word("k01")});
    add_keys(seed, WITH_SNAPSHOT, 5, 2);
    add_marked(seed, WITH_SNAPSHOT,
               (Message){.type = MESSAGE_SCAN, .flags = SCAN_ONE_CHUNK, .id = 6, .credits = 1});
    add_marked(seed, WITH_SNAPSHOT,
               (Message){.type = MESSAGE_MEASURE, .flags = MEASURE_COUNT, .id = 7});
    add_marked(seed, WITH_SNAPSHOT, (Message){.type = MESSAGE_SCAN, .id = 8, .rows = 1});
    add_marked(seed, WITH_SNAPSHOT, (Message){.type = MESSAGE_RELEASE, .id = 9});
    add_marked(seed, WITH_SNAPSHOT, (Message){.type = MESSAGE_RELEASE, .id = 10});
    add(seed, (Message){.type = MESSAGE_SCAN_MORE, .id = 8, .credits = 2});
}

static void scan(Buffer *seed)
{
    add_many_puts(seed, 1, 12);
    add(seed, (Message){.type = MESSAGE_CONTROL, .id = 40, .name = word("flush")});
    add_many_puts(seed, 14, 3);
    for (uint8_t flags = 0; flags < 8; flags++)
        add(seed, (Message){.type = MESSAGE_SCAN,
                            .flags = flags,
                            .id = 50u + flags,
                            .rows = 3,
                            .credits = 2,
                            .from = flags % 3 == 0 ? (Slice){0} : word("k02"),
                            .to = flags % 2 == 0 ? (Slice){0} : word("k08")});
    add(seed, (Message){.type = MESSAGE_SCAN, .id = 60, .rows = 1, .credits = 100});
    add(seed, (Message){.type = MESSAGE_SCAN_MORE, .id = 50, .credits = 9});
    add(seed, (Message){.type = MESSAGE_SCAN_CLOSE, .id = 51});
    add(seed, (Message){.type = MESSAGE_SCAN_MORE, .id = 52, .credits = 1});
}

static void expect(Buffer *seed)
{
    static const aidb_expect kinds[] = {AIDB_EXPECT_ABSENT, AIDB_EXPECT_PRESENT,
                                        AIDB_EXPECT_VERSION};
    for (uint8_t i = 0; i < 6; i++) {
        Batch batch = {0};
        must(batch_expect(&batch, word("k"), kinds[i % 3], 1));
        must(batch_put(&batch, word("k"), word("v")));
        add_batch(seed, (uint8_t)(i + 1), &batch, i % 4);
        batch_deinit(&batch);
    }
    add_batch(seed, 9, &(Batch){0}, AIDB_OS);
}

static void administer(Buffer *seed)
{
    static const char *const names[] = {
        "status", "backends",    "config",
        "levels", "wal",         "version",
        "nosuch", "visible_lsn", "a name that is much too long for one"};
    static const char *const commands[] = {"flush",  "compact",      "compact_wait",
                                           "nosuch", "terminate 99", "terminate 7"};
    add_many_puts(seed, 1, 5);
    for (uint8_t i = 0; i < 9; i++)
        add(seed, (Message){.type = MESSAGE_PROPERTY, .id = 20u + i, .name = word(names[i])});
    for (uint8_t i = 0; i < 6; i++) {
        add(seed, (Message){.type = MESSAGE_CONTROL, .id = 40u + i, .name = word(commands[i])});
        add_put(seed, (uint8_t)(60 + i), "k", "v");
    }
}

/* Replies that come to more than the output holds. */
static void ask_for_much(Buffer *seed)
{
    static char value[6001];
    memset(value, 'v', sizeof value - 1);
    add_put(seed, 1, "k", value);
    for (uint8_t i = 0; i < 90; i++)
        add(seed, (Message){.type = MESSAGE_GET, .id = 2u + i, .key = word("k")});
    add_keys(seed, 0, 100, 3);
}

static void be_refused(Buffer *seed)
{
    add_batch(seed, 1, &(Batch){.ops = {.data = (uint8_t *)"\5abc", .size = 4}}, AIDB_OS);
    add_batch(seed, 2, &(Batch){0}, 9);
    add(seed, (Message){.type = MESSAGE_GET, .id = 3});
    add(seed, (Message){.type = MESSAGE_GET, .id = 4, .snapshot = 77, .key = word("k")});
    add(seed, (Message){.type = MESSAGE_MULTI_GET, .id = 5, .count = 9, .row = word("\1a")});
    add(seed, (Message){.type = MESSAGE_SCAN, .id = 6, .flags = 0x80});
    add(seed, (Message){.type = MESSAGE_RELEASE, .id = 7});
    for (uint8_t i = 0; i < 33; i++)
        add(seed, (Message){.type = MESSAGE_SNAPSHOT, .id = 10u + i});
    add(seed, (Message){.type = MESSAGE_SCAN, .id = 50});
}

/* Things that end a session, one for each seed. */
static void end_badly(Nursery *nursery)
{
    static const Message messages[] = {
        {.type = MESSAGE_PING}, /* id 0 */
        {.type = MESSAGE_CANCEL, .id = 9},
        {.type = MESSAGE_HELLO, .id = 9, .version = 1, .version_max = 1},
        {.type = MESSAGE_AUTHENTICATE, .id = 9},
        {.type = MESSAGE_DONE, .id = 9},
    };
    static const char *const bytes[] = {"\xff\xff\xff\xff", "\1\0\0\0\4\0\0\1........",
                                        "GET / HTTP/1.0"};
    for (uint8_t i = 0; i < 11; i++) {
        Buffer seed = {0};
        uint8_t head[2] = {i % 2 == 0 ? 0 : HOSTED, i % 4 == 3 ? 5 : 0};
        must(buffer_append(&seed, head, sizeof head));
        add_put(&seed, 1, "a", "1");
        add(&seed, (Message){.type = MESSAGE_SCAN, .id = 2, .credits = 1, .rows = 1});
        if (i % 3 == 0) /* gathered, and not done before the end */
            add_put(&seed, 4, "b", "2");
        else
            add(&seed, (Message){.type = MESSAGE_GET, .id = 4, .key = word("a")});
        if (i < 5)
            add(&seed, messages[i]);
        else if (i < 8)
            add_raw(&seed, RECORD_BYTES, 0, 0, word(bytes[i - 5]));
        else
            add_raw(&seed, i == 8 ? 55 : MESSAGE_SCAN_CLOSE, 0, 5, word("no body of this kind"));
        add(&seed, (Message){.type = MESSAGE_PING, .id = 3});
        emit(nursery, &seed);
        buffer_deinit(&seed);
    }
}

/* Greetings of all kinds: the whole of it is bytes. */
static void greet(Nursery *nursery)
{
    for (uint8_t i = 0; i < 6; i++) {
        Buffer seed = {0}, bytes = {0};
        uint8_t head[2] = {NO_HELLO, i % 3};
        must(buffer_append(&seed, head, sizeof head));
        must(buffer_append(&bytes, i == 0 ? "aIdB" : PROTOCOL_MAGIC, PROTOCOL_MAGIC_SIZE));
        Message hello = {.type = i == 1 ? MESSAGE_PING : MESSAGE_HELLO,
                         .id = 1,
                         .version = i == 2 ? 9 : 1,
                         .version_max = 9,
                         .name =
                             word(i == 3 ? "tab\tin a name that is longer than its room" : "fuzz")};
        must(message_encode(&bytes, &hello));
        if (i == 4)
            bytes.size -= 3;
        add_raw(&seed, RECORD_BYTES, 0, 0, buffer_slice(&bytes));
        add(&seed, (Message){.type = MESSAGE_PING, .id = 2});
        emit(nursery, &seed);
        buffer_deinit(&seed);
        buffer_deinit(&bytes);
    }
}

/* Things that happen while a session has much to do. */
static void disturb(Nursery *nursery)
{
    static const uint8_t large[] =
        "\0\0\10\0\22\0\0\0\7\0\0\0\0\0\0"; /* a write of 512 KiB begins */
    for (uint8_t i = 0; i < 8; i++) {
        Buffer seed = {0};
        uint8_t head[2] = {(uint8_t)((i % 2 == 0 ? 0 : HOSTED) | (i / 2 % 2 == 0 ? 0 : DEAF) |
                                     (i < 4 ? 0 : CROWDED)),
                           0};
        must(buffer_append(&seed, head, sizeof head));
        add_many_puts(&seed, 1, 8);
        add(&seed, (Message){.type = MESSAGE_SCAN, .id = 20, .rows = 1, .credits = 3});
        add_turn(&seed);
        add_event(&seed, i);
        add(&seed, (Message){.type = MESSAGE_SCAN_MORE, .id = 20, .credits = 9});
        if (i >= 4)
            add_raw(&seed, RECORD_BYTES, 0, 0, slice_make(large, 16));
        add_turn(&seed);
        if (i % 3 == 0)
            must(buffer_append_byte(&seed, RECORD_HANG_UP));
        emit(nursery, &seed);
        buffer_deinit(&seed);
    }
}

static void sessions(const char *folder)
{
    static void (*const talks[])(Buffer *) = {
        say_simple_things, pipeline,     read_at_snapshots, scan, expect,
        administer,        ask_for_much, be_refused,
    };
    static const uint8_t heads[][2] = {{VERIFY, 0}, {HOSTED, 17}, {HOSTED | DEAF, 0}, {DEAF, 200}};
    Nursery nursery = {.folder = folder, .target = "session"};
    for (size_t i = 0; i < sizeof talks / sizeof talks[0]; i++) {
        for (size_t j = 0; j < 4; j++) {
            Buffer seed = {0};
            must(buffer_append(&seed, heads[j], 2));
            talks[i](&seed);
            emit(&nursery, &seed);
            buffer_deinit(&seed);
        }
    }
    end_badly(&nursery);
    greet(&nursery);
    disturb(&nursery);
}

/* ---- a server's answers ------------------------------------------------------------------------ */

static void add_error(Buffer *seed, uint8_t id, uint8_t flags, Status status)
{
    add(seed, (Message){.type = MESSAGE_ERROR,
                        .flags = flags,
                        .id = id,
                        .status = (uint64_t)status,
                        .text = word("no"),
                        .hint = word("ask again")});
}

static void add_chunk(Buffer *seed, uint8_t id, uint8_t flags, uint32_t rows)
{
    Buffer row = {0};
    for (uint32_t i = 0; i < rows; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%02u", i);
        must(entry_row_append(&row, word(key), word("value"), 5 + i));
    }
    add(seed,
        (Message){
            .type = MESSAGE_CHUNK, .flags = flags, .id = id, .lsn = 99, .row = buffer_slice(&row)});
    buffer_deinit(&row);
}

static void add_value(Buffer *seed, uint8_t id, uint64_t version)
{
    add(seed, (Message){.type = MESSAGE_VALUE,
                        .id = id,
                        .lsn = 9,
                        .version = version,
                        .value = version != 0 ? word("value") : (Slice){0}});
}

static void add_commit(Buffer *seed, uint8_t id, Status status)
{
    add(seed, (Message){.type = MESSAGE_COMMIT, .id = id, .status = (uint64_t)status, .lsn = 7});
}

static void add_done(Buffer *seed, uint8_t id)
{
    add(seed, (Message){.type = MESSAGE_DONE, .id = id, .lsn = 7});
}

static void add_values(Buffer *seed, uint8_t id, uint32_t count)
{
    Buffer row = {0};
    for (uint32_t i = 0; i < count; i++)
        must(value_row_append(&row, i, i > 0 ? word("v") : (Slice){0}));
    add(seed,
        (Message){
            .type = MESSAGE_VALUES, .id = id, .lsn = 9, .count = count, .row = buffer_slice(&row)});
    buffer_deinit(&row);
}

/* Calls, as the target's `call` numbers them. */
enum {
    CALL_GET,
    CALL_MULTI_GET,
    CALL_WRITE,
    CALL_SNAPSHOT,
    CALL_MEASURE,
    CALL_PROPERTY,
    CALL_CONTROL,
    CALL_WAIT,
    CALL_SUBMIT_WRITE,
    CALL_SUBMIT_BOTH = 10,
    CALL_ITER = 11, /* and what it does, times 8: only odd ones there are */
    CALL_ITER_NEXT = 11 + 32 + 16,
    CALL_ITER_PREV = 11 + 16,
    CALL_ITER_END = 13 + 48
};

static Buffer begin_program(uint8_t pace, const uint8_t *calls, size_t count)
{
    Buffer seed = {0};
    uint8_t head[3] = {0, pace, (uint8_t)count};
    must(buffer_append(&seed, head, sizeof head));
    must(buffer_append(&seed, calls, count));
    return seed;
}

static void end_program(Nursery *nursery, Buffer *seed)
{
    emit(nursery, seed);
    buffer_deinit(seed);
}

static void answer_calls(Nursery *nursery)
{
    static const uint8_t calls[] = {CALL_GET,     CALL_MULTI_GET, CALL_WRITE,   CALL_SNAPSHOT,
                                    CALL_MEASURE, CALL_PROPERTY,  CALL_CONTROL, CALL_GET};
    for (uint8_t how = 0; how < 6; how++) {
        Buffer seed = begin_program(how, calls, sizeof calls);
        add_value(&seed, 2, how == 1 ? 0 : 5);
        add_values(&seed, 3, how == 2 ? 2 : 3);
        add_commit(&seed, 4, how == 1 ? AIDB_EXPECTATION : AIDB_OK);
        if (how == 3)
            add(&seed, (Message){.type = MESSAGE_NOTICE, .status = 1, .text = word("news")});
        add_done(&seed, 5);
        add(&seed, (Message){.type = MESSAGE_MEASURED, .id = 6, .count = 3, .bytes = 4});
        add(&seed, (Message){.type = MESSAGE_TEXT, .id = 7, .text = word("a\tb\n")});
        add_done(&seed, how == 4 ? 77 : 8);
        add_error(&seed, 9, how == 5 ? ERROR_CLOSES : 0, AIDB_BUSY);
        end_program(nursery, &seed);
    }
    for (uint8_t status = 1; status < 30; status += 3) {
        Buffer seed = begin_program(0, calls, sizeof calls);
        for (uint8_t id = 2; id < 10; id++)
            add_error(&seed, id, 0, (Status)(status + id % 3));
        end_program(nursery, &seed);
    }
}

static void answer_iterators(Nursery *nursery)
{
    for (uint8_t how = 0; how < 24; how++) {
        uint8_t calls[14] = {0};
        for (uint8_t i = 0; i < sizeof calls; i++)
            calls[i] = (uint8_t)(11 + (how * 7 + i * (how % 5 + 1)) % 5 + (i * 16 * (how % 3 + 1)));
        Buffer seed = begin_program(0, calls, sizeof calls);
        for (uint8_t id = 2; id < 20; id++) {
            if ((id + how) % 3 == 0)
                add_done(&seed, id);
            else
                add_chunk(&seed, id, id % 2 == 0 ? CHUNK_ENDED | CHUNK_LAST : CHUNK_LAST,
                          (id + how) % 5);
        }
        end_program(nursery, &seed);
        /* The way that every client goes: a snapshot, then chunks. */
        seed = begin_program(how, calls, sizeof calls);
        add_done(&seed, 2);
        for (uint8_t id = 3; id < 16; id++)
            add_chunk(&seed, id, id % 4 == 3 ? CHUNK_ENDED | CHUNK_LAST : CHUNK_LAST, 2);
        end_program(nursery, &seed);
    }
}

static void answer_submitted(Nursery *nursery)
{
    static const uint8_t calls[] = {CALL_SUBMIT_BOTH, CALL_SUBMIT_WRITE, CALL_GET,
                                    CALL_SUBMIT_BOTH, CALL_WAIT + 32,    CALL_WAIT};
    for (uint8_t how = 0; how < 5; how++) {
        Buffer seed = begin_program(how, calls, sizeof calls);
        for (uint8_t id = 2; id < 20; id++) {
            if (how == 2 && id == 7)
                add_error(&seed, id, ERROR_CLOSES, AIDB_CONNECTION);
            else if (how == 3 && id == 12)
                add_value(&seed, 3, 3);
            else if (how == 4 && id % 4 == 0)
                add_error(&seed, id, 0, AIDB_PROTOCOL);
            else if ((id < 11 && id % 2 == 0) || (id > 11 && id % 2 == 0))
                add_commit(&seed, id, AIDB_OK);
            else
                add_value(&seed, id, 4);
        }
        end_program(nursery, &seed);
    }
}

static void greet_program(Nursery *nursery)
{
    static const uint8_t calls[] = {CALL_GET};
    for (uint8_t how = 0; how < 7; how++) {
        Buffer seed = begin_program(how, calls, 1);
        seed.data[0] = 1;
        Message ready = {.type = MESSAGE_READY,
                         .id = 1,
                         .version = how == 1 ? 4 : 1,
                         .bytes = how == 2   ? 5
                                  : how == 3 ? UINT32_MAX
                                             : 1u << 20,
                         .durability = AIDB_OS,
                         .name = word(how == 4 ? "a version that is longer than its room" : "1")};
        if (how == 5)
            add(&seed, (Message){.type = MESSAGE_CHALLENGE, .id = 1, .name = word("SCRAM")});
        else if (how == 6)
            add_error(&seed, 0, ERROR_CLOSES, AIDB_LIMIT);
        else
            add(&seed, ready);
        if (how == 3) /* a frame whose size does not fit into 32 bits */
            add_raw(&seed, 0, 0, 0, slice_make("\xff\xff\xff\xff\x90\0\0\0\2\0\0\0\0\0\0\0", 16));
        add_value(&seed, 2, 3);
        end_program(nursery, &seed);
    }
}

/* Rows that are cut short, and nothing else to believe. */
static void answer_in_halves(Nursery *nursery)
{
    static const uint8_t calls[] = {CALL_ITER, CALL_ITER_NEXT, CALL_MULTI_GET};
    Buffer seed = begin_program(0, calls, sizeof calls), row = {0};
    must(entry_row_append(&row, word("k"), word("v"), 5));
    must(entry_row_append(&row, word("l"), word("v"), 6));
    row.size--;
    add_done(&seed, 2);
    add(&seed, (Message){.type = MESSAGE_CHUNK, .id = 3, .lsn = 9, .row = buffer_slice(&row)});
    end_program(nursery, &seed);
    seed = begin_program(0, calls + 2, 1);
    add_values(&seed, 2, 2);
    end_program(nursery, &seed);
    buffer_deinit(&row);
}

static void replies(const char *folder)
{
    Nursery nursery = {.folder = folder, .target = "replies"};
    greet_program(&nursery);
    answer_calls(&nursery);
    answer_iterators(&nursery);
    answer_submitted(&nursery);
    answer_in_halves(&nursery);
}

void seeds_write(const char *folder)
{
    (void)mkdir(folder, 0777);
    tables_and_blocks(folder);
    sessions(folder);
    replies(folder);
    fuzz_end();
}
