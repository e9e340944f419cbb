/*
 * table_builder.c - writes a table, from front to back.
 *
 *   header | data blocks | dictionary | filter sections | range tombstones, their index | index partitions,
 *   top index | properties | footer
 *
 * With zstd the first data blocks are held back until a dictionary is made from them.
 *
 * What comes behind the data is collected in memory while data blocks are written: 8 bytes a key for
 * the filter and about 30 bytes a block for the index. Bytes gather in a buffer and go to the file in
 * large writes; write-back is started early, so that the one sync at the end has little left to do.
 * Before it, the file is read again and every checksum compared.
 *
 * After a crash, or when finish did not succeed, the file is an orphan: the manifest never named it.
 * destroy removes it, and start removes what a crash left behind.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include "common/failpoint.h"
#include "common/hash.h"
#include "common/log.h"

#include <fcntl.h>
#include <stdlib.h>

#define WRITE_SIZE     (512u << 10)
#define WRITEBACK_SIZE (2u << 20)
#define LARGE_BLOCK    (4u << 20)
#define SAMPLE_BYTES   (256u << 10) /* of blocks that a dictionary is made from */
#define SAMPLE_COUNT   256u
#define DICTIONARY_MAX (32u << 10)
#define HASTY_LEVEL \
    (-2) /* the fastest that shrinks nearly as much as level 1, if literals are compressed */

struct TableBuilder {
    TableOptions options;
    File file;
    uint64_t file_offset;      /* where the next byte of `out` goes */
    uint64_t writeback_offset; /* write-back was started up to here */
    Buffer out;
    bool finished;
    Status failed; /* the first failure: the builder is of no use after it */

    TableInfo info;
    BlockBuilder block;
    Compressor compressor;
    Buffer packed;
    Buffer payload; /* of blocks other than data */
    IndexBuilder index;
    Buffer hashes; /* u64 of each user key */
    Buffer smallest;
    Buffer last_key;
    uint64_t last_lsn;
    bool sampling;  /* data blocks are collected, until there are enough for a dictionary */
    Buffer samples; /* what is compressed of their payloads, one after the other */
    size_t sample_sizes[SAMPLE_COUNT];
    Buffer sample_tails; /* what is not */
    uint32_t sample_plain[SAMPLE_COUNT];
    uint32_t sample_count;
    Buffer dictionary; /* empty: none */
    bool pending;      /* a data block was written and waits for its separator */
    BlockHandle pending_handle;
    RangeFragments fragments; /* a copy */
    Buffer block_sizes;       /* u32 each, trailers included, in the order of the file */
};

static Status fail(TableBuilder *builder, Status status)
{
    if (status != AIDB_OK && builder->failed == AIDB_OK)
        builder->failed = status;
    return status;
}

static Status refuse(const TableBuilder *builder)
{
    return status_set(AIDB_INTERNAL, "table \"%s\" was used after it failed or was finished",
                      builder->file.path);
}

Status table_builder_create(const TableOptions *options, const char *directory, uint64_t number,
                            uint64_t lsn_floor, TableBuilder **out)
{
    *out = NULL;
    if (!compression_supported(options->compression))
        return status_set(AIDB_UNSUPPORTED, "this build cannot compress blocks with snappy");
    TableBuilder *builder = calloc(1, sizeof *builder);
    if (builder == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for a table builder");
    builder->options = *options;
    builder->file = (File)FILE_CLOSED;
    builder->compressor.level = options->compression_level;
    if (options->hasty && options->compression_level > HASTY_LEVEL) {
        builder->compressor.level = HASTY_LEVEL;
        builder->compressor.hasty = true;
    }
    builder->sampling = options->compression == COMPRESSION_ZSTD;
    builder->info.number = number;
    builder->info.lsn_min = lsn_floor;
    builder->info.lsn_max = lsn_floor;

    Status status = AIDB_OK;
    char name[TABLE_NAME_SIZE];
    table_name(number, name);
    char *path = path_join(directory, name);
    if (path == NULL)
        OUT_IF_FAILED(status_set(AIDB_NO_MEMORY, "out of memory for a table builder"));
    if (!port_random(builder->info.id, sizeof builder->info.id))
        OUT_IF_FAILED(status_set(AIDB_IO, "the operating system gives no random bytes"));
    OUT_IF_FAILED(buffer_reserve(&builder->out, WRITE_SIZE + (64u << 10)));
    table_header_encode(builder->out.data, options->system_id, number, builder->info.id);
    builder->out.size = TABLE_HEADER_SIZE;
    OUT_IF_FAILED(file_open(path, FILE_CREATE_NEW, &builder->file));
    FAILPOINT("table.created");
    *out = builder;
    builder = NULL;
out:
    free(path);
    table_builder_destroy(builder);
    return status;
}

void table_builder_destroy(TableBuilder *builder)
{
    if (builder == NULL)
        return;
    /* Closed or not, the name must go unless the table is whole. */
    if (builder->file.fd >= 0 && !builder->finished && file_unlink(builder->file.path) != AIDB_OK)
        server_log(LOG_LEVEL_WARNING, "could not remove unfinished table: %s", status_message());
    file_close(&builder->file);
    buffer_deinit(&builder->out);
    block_builder_deinit(&builder->block);
    compressor_deinit(&builder->compressor);
    buffer_deinit(&builder->packed);
    buffer_deinit(&builder->payload);
    index_builder_deinit(&builder->index);
    buffer_deinit(&builder->hashes);
    buffer_deinit(&builder->smallest);
    buffer_deinit(&builder->last_key);
    buffer_deinit(&builder->block_sizes);
    buffer_deinit(&builder->samples);
    buffer_deinit(&builder->sample_tails);
    buffer_deinit(&builder->dictionary);
    free(builder->fragments.memory);
    free(builder);
}

/* ---- writing --------------------------------------------------------------------------------- */

static uint64_t position(const TableBuilder *builder)
{
    return builder->file_offset + builder->out.size;
}

static Status write_bytes(TableBuilder *builder, const uint8_t *data, size_t size)
{
    RETURN_IF_FAILED(file_write_at(&builder->file, builder->file_offset, data, size));
    builder->file_offset += size;
    uint64_t behind = builder->file_offset - builder->writeback_offset;
    if (behind >= WRITEBACK_SIZE) {
        /* Only a hint: what it did not write, the sync will. */
        (void)sync_file_range(builder->file.fd, (off_t)builder->writeback_offset, (off_t)behind,
                              SYNC_FILE_RANGE_WRITE);
        builder->writeback_offset = builder->file_offset;
    }
    return AIDB_OK;
}

static Status write_out(TableBuilder *builder)
{
    if (builder->out.size == 0)
        return AIDB_OK;
    FAILPOINT_BYTES("table.before_write", builder->out.data, builder->out.size);
    RETURN_IF_FAILED(write_bytes(builder, builder->out.data, builder->out.size));
    builder->out.size = 0;
    return AIDB_OK;
}

static Status append(TableBuilder *builder, const uint8_t *data, size_t size)
{
    if (builder->out.size + size > WRITE_SIZE)
        RETURN_IF_FAILED(write_out(builder));
    if (size > WRITE_SIZE)
        return write_bytes(builder, data, size);
    return buffer_append(&builder->out, data, size);
}

/* Puts a data block that was written into the cache, if that held what it was made from. The file is
 * checked before it can be read, so nothing is found here that the file does not hold. */
static void keep_warm(TableWarmth *warmth, uint64_t number, uint64_t offset, const uint8_t *data,
                      size_t size)
{
    if (warmth->blocks_read > 0) {
        warmth->warm = warmth->blocks_held >= warmth->blocks_read - warmth->blocks_held;
        warmth->blocks_read = warmth->blocks_held = 0;
    }
    if (!warmth->warm)
        return;
    CacheFill fill;
    cache_reserve(warmth->cache, warmth->slot, size, warmth->priority, &fill);
    if (fill.data == NULL)
        return;
    memcpy(fill.data, data, size);
    (void)cache_publish(warmth->cache, warmth->slot, &fill, number, offset, size);
}

/* Writes a block; `payload` gains a trailer when it is stored raw. Its last `plain` bytes are not
 * compressed. */
static Status write_block(TableBuilder *builder, BlockKind kind, bool compress, Buffer *payload,
                          size_t plain, BlockHandle *handle)
{
    size_t raw_size = payload->size;
    if (raw_size > BLOCK_RAW_MAX)
        return status_set(AIDB_LIMIT, "a block of table \"%s\" is too large", builder->file.path);
    Compression compression = compress ? builder->options.compression : COMPRESSION_NONE;
    uint8_t how = COMPRESSION_NONE;
    Buffer *stored = payload;
    if (compression != COMPRESSION_NONE) {
        Buffer *packed = &builder->packed;
        bool dictionary = kind == BLOCK_DATA && builder->compressor.dictionary != NULL;
        packed->size = 0;
        RETURN_IF_FAILED(
            buffer_reserve(packed, compress_bound(compression, raw_size) + plain + TRAILER_SIZE));
        packed->size = compress_block(&builder->compressor, compression, dictionary, payload->data,
                                      raw_size - plain, packed->data, packed->capacity);
        if (packed->size > 0) {
            stored = packed;
            how = dictionary ? STORED_ZSTD_DICTIONARY : (uint8_t)compression;
            RETURN_IF_FAILED(buffer_append(packed, payload->data + raw_size - plain, plain));
        }
    }
    RETURN_IF_FAILED(buffer_reserve(stored, TRAILER_SIZE));
    uint8_t *trailer = stored->data + stored->size;
    put_fixed32(trailer, (uint32_t)raw_size);
    put_fixed32(trailer + 4, how == COMPRESSION_NONE ? 0 : (uint32_t)plain);
    trailer[8] = (uint8_t)(kind << 4 | how);
    *handle = (BlockHandle){.offset = position(builder),
                            .size = (uint32_t)(stored->size + TRAILER_SIZE),
                            .raw = how == COMPRESSION_NONE};
    put_fixed64(trailer + 9,
                table_checksum(builder->info.id, handle->offset, stored->data, stored->size + 9));
    stored->size += TRAILER_SIZE;
    FAILPOINT_BYTES("table.block_sealed", stored->data, stored->size);
    RETURN_IF_FAILED(buffer_append(&builder->block_sizes, &handle->size, sizeof handle->size));
    if (kind == BLOCK_DATA && builder->options.warmth != NULL)
        keep_warm(builder->options.warmth, builder->info.number, handle->offset, payload->data,
                  raw_size);
    return append(builder, stored->data, stored->size);
}

/* Total compressed size of some samples that no dictionary has pieces of, with the compressor's
 * dictionary or without. */
static size_t try_samples(TableBuilder *builder, bool dictionary)
{
    size_t total = 0;
    size_t at = 0;
    uint32_t count = builder->sample_count;
    for (uint32_t i = 0, piece = 0; i < count && piece < DICTIONARY_PIECES; i++) {
        size_t size = builder->sample_sizes[i];
        if (i == dictionary_piece_sample(count, piece) + 1) {
            size_t packed = compress_block(&builder->compressor, COMPRESSION_ZSTD, dictionary,
                                           builder->samples.data + at, size, builder->packed.data,
                                           builder->packed.capacity);
            total += packed > 0 ? packed : size;
            piece++;
        }
        at += size;
    }
    return total;
}

/* Makes a dictionary from the samples and keeps it if its two copies are paid for: by the samples alone when
 * there is no more data, else by four times as much. */
static Status make_dictionary(TableBuilder *builder, bool more)
{
    Buffer *dictionary = &builder->dictionary;
    size_t largest = 0;
    for (uint32_t i = 0; i < builder->sample_count; i++)
        if (builder->sample_sizes[i] > largest)
            largest = builder->sample_sizes[i];
    if (builder->sample_count < 2 * DICTIONARY_PIECES || largest > SAMPLE_BYTES / 2)
        return AIDB_OK; /* few blocks, or such that hold enough to stand alone */
    RETURN_IF_FAILED(buffer_reserve(dictionary, DICTIONARY_MAX));
    builder->packed.size = 0;
    RETURN_IF_FAILED(buffer_reserve(&builder->packed, compress_bound(COMPRESSION_ZSTD, largest)));
    dictionary->size =
        dictionary_build(builder->compressor.level, builder->samples.data, builder->sample_sizes,
                         builder->sample_count, dictionary->data, dictionary->capacity);
    if (dictionary->size == 0)
        return AIDB_OK;
    size_t without = try_samples(builder, false);
    if (compressor_set_dictionary(&builder->compressor, dictionary->data, dictionary->size)) {
        size_t with = try_samples(builder, true);
        size_t share = builder->sample_count / DICTIONARY_PIECES * (more ? 4 : 1);
        if (with < without && (without - with) * share > 2 * dictionary->size)
            return AIDB_OK;
    }
    compressor_drop_dictionary(&builder->compressor);
    dictionary->size = 0;
    return AIDB_OK;
}

/* Writes the blocks that were collected. The last one may still wait for its separator. */
static Status end_sampling(TableBuilder *builder, bool more)
{
    builder->sampling = false;
    RETURN_IF_FAILED(make_dictionary(builder, more));
    size_t sample = 0, tail = 0;
    for (uint32_t i = 0; i < builder->sample_count; i++) {
        size_t size = builder->sample_sizes[i];
        size_t plain = builder->sample_plain[i];
        BlockHandle handle;
        builder->payload.size = 0;
        RETURN_IF_FAILED(buffer_append(&builder->payload, builder->samples.data + sample, size));
        if (plain > 0) /* there may be no tails at all */
            RETURN_IF_FAILED(
                buffer_append(&builder->payload, builder->sample_tails.data + tail, plain));
        RETURN_IF_FAILED(write_block(builder, BLOCK_DATA, true, &builder->payload, plain, &handle));
        if (i < builder->index.count)
            index_builder_set_handle(&builder->index, i, &handle);
        else
            builder->pending_handle = handle;
        sample += size;
        tail += plain;
    }
    buffer_deinit(&builder->samples);
    buffer_deinit(&builder->sample_tails);
    return AIDB_OK;
}

static Status write_data_block(TableBuilder *builder)
{
    BlockBuilder *block = &builder->block;
    size_t plain = 0;
    RETURN_IF_FAILED(block_builder_finish(block, buffer_slice(&builder->last_key), &plain));
    builder->pending = true;
    if (builder->sampling) {
        builder->pending_handle = (BlockHandle){0};
        size_t size = block->payload.size - plain;
        RETURN_IF_FAILED(buffer_append(&builder->samples, block->payload.data, size));
        RETURN_IF_FAILED(buffer_append(&builder->sample_tails, block->payload.data + size, plain));
        builder->sample_sizes[builder->sample_count] = size;
        builder->sample_plain[builder->sample_count++] = (uint32_t)plain;
        if (builder->samples.size >= SAMPLE_BYTES || builder->sample_count == SAMPLE_COUNT)
            RETURN_IF_FAILED(end_sampling(builder, true));
    } else {
        RETURN_IF_FAILED(write_block(builder, BLOCK_DATA, true, &block->payload, plain,
                                     &builder->pending_handle));
    }
    block_builder_clear(block);
    if (block->values.capacity > LARGE_BLOCK) {
        /* One large value must not keep its memory for the rest of the table. */
        buffer_deinit(&block->values);
        buffer_deinit(&block->payload);
        buffer_deinit(&builder->packed);
        buffer_deinit(&builder->payload);
    }
    return AIDB_OK;
}

/* Adds the separator between the block that was written and `next` (NULL: it was the last one). */
static Status add_separator(TableBuilder *builder, const Slice *next)
{
    builder->pending = false;
    Slice last = buffer_slice(&builder->last_key);
    if (next == NULL)
        return index_builder_add(&builder->index, last, 0, &builder->pending_handle);
    if (slice_equal(last, *next))
        return index_builder_add(&builder->index, last, builder->last_lsn,
                                 &builder->pending_handle);
    builder->payload.size = 0;
    RETURN_IF_FAILED(index_separator(last, *next, &builder->payload));
    return index_builder_add(&builder->index, buffer_slice(&builder->payload), 0,
                             &builder->pending_handle);
}

static Status add_entry(TableBuilder *builder, const Entry *entry)
{
    TableInfo *info = &builder->info;
    Slice last = buffer_slice(&builder->last_key);
    size_t shared = key_shared_prefix(last, entry->key);
    bool same_key = info->entries > 0 && shared == last.size && shared == entry->key.size;
    bool rises = shared == last.size
                     ? shared < entry->key.size
                     : shared < entry->key.size && last.data[shared] < entry->key.data[shared];
    if (same_key ? entry->lsn >= builder->last_lsn : !rises)
        return status_set(AIDB_INTERNAL, "entries were added to table \"%s\" out of order",
                          builder->file.path);
    if (entry->key.size == 0 || entry->key.size > AIDB_KEY_MAX ||
        entry->value.size > AIDB_VALUE_MAX ||
        (entry->type != OP_PUT && (entry->type != OP_DELETE || entry->value.size > 0)) ||
        entry->lsn < info->lsn_min || (entry->lsn - info->lsn_min) >> 62 != 0)
        return status_set(AIDB_INTERNAL, "an entry that no table can hold was added to \"%s\"",
                          builder->file.path);

    if (builder->block.entries > 0 &&
        block_builder_size_with(&builder->block, entry, shared) + TRAILER_SIZE >
            builder->options.block_size)
        RETURN_IF_FAILED(write_data_block(builder));
    if (builder->pending)
        RETURN_IF_FAILED(add_separator(builder, &entry->key));
    RETURN_IF_FAILED(block_builder_add(&builder->block, entry, shared));
    if (!same_key && builder->options.filter_bits > 0) {
        uint64_t hash = table_key_hash(entry->key);
        RETURN_IF_FAILED(buffer_append(&builder->hashes, &hash, sizeof hash));
    }
    if (info->entries == 0)
        RETURN_IF_FAILED(buffer_append(&builder->smallest, entry->key.data, entry->key.size));

    builder->last_key.size = shared;
    RETURN_IF_FAILED(
        buffer_append(&builder->last_key, entry->key.data + shared, entry->key.size - shared));
    builder->last_lsn = entry->lsn;
    info->entries++;
    info->deletes += entry->type == OP_DELETE;
    info->raw_bytes += entry->key.size + entry->value.size;
    if (entry->lsn > info->lsn_max)
        info->lsn_max = entry->lsn;
    return AIDB_OK;
}

Status table_builder_add(TableBuilder *builder, const Entry *entry)
{
    if (builder->failed != AIDB_OK || builder->finished)
        return refuse(builder);
    return fail(builder, add_entry(builder, entry));
}

/* Checks and copies the fragments into one piece of memory. */
static Status copy_fragments(TableBuilder *builder, const RangeFragment *items, size_t count)
{
    size_t bytes = count * sizeof(RangeFragment);
    size_t lsn_count = 0;
    for (size_t i = 0; i < count; i++) {
        const RangeFragment *item = &items[i];
        bool ordered =
            item->lsn_count > 0 && (item->to.size == 0 || slice_compare(item->from, item->to) < 0);
        if (i > 0 && (items[i - 1].to.size == 0 || slice_compare(items[i - 1].to, item->from) > 0))
            ordered = false;
        for (uint32_t j = 0; j < item->lsn_count && ordered; j++)
            ordered = item->lsns[j] >= builder->info.lsn_min &&
                      (j == 0 || item->lsns[j] < item->lsns[j - 1]);
        if (!ordered || item->from.size > AIDB_KEY_MAX || item->to.size > AIDB_KEY_MAX)
            return status_set(AIDB_INTERNAL,
                              "range tombstones of table \"%s\" are not sorted fragments",
                              builder->file.path);
        bytes += item->from.size + item->to.size;
        lsn_count += item->lsn_count;
    }
    uint8_t *memory = malloc(bytes + lsn_count * sizeof(uint64_t) + 1);
    if (memory == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for range tombstones");
    RangeFragment *copies = (RangeFragment *)memory;
    uint64_t *lsns = (uint64_t *)(copies + count);
    uint8_t *keys = (uint8_t *)(lsns + lsn_count);
    for (size_t i = 0; i < count; i++) {
        const RangeFragment *item = &items[i];
        copies[i].lsn_count = item->lsn_count;
        copies[i].lsns = lsns;
        memcpy(lsns, item->lsns, item->lsn_count * sizeof *lsns);
        lsns += item->lsn_count;
        Slice *to[2] = {&copies[i].from, &copies[i].to};
        const Slice *from[2] = {&item->from, &item->to};
        for (int k = 0; k < 2; k++) {
            if (from[k]->size > 0)
                memcpy(keys, from[k]->data, from[k]->size);
            *to[k] = slice_make(keys, from[k]->size);
            keys += from[k]->size;
        }
        builder->info.range_deletes++;
        if (item->lsns[0] > builder->info.lsn_max)
            builder->info.lsn_max = item->lsns[0];
    }
    builder->fragments = (RangeFragments){.items = copies, .count = count, .memory = memory};
    return AIDB_OK;
}

Status table_builder_add_fragments(TableBuilder *builder, const RangeFragment *items, size_t count)
{
    if (builder->failed != AIDB_OK || builder->finished || builder->fragments.memory != NULL)
        return refuse(builder);
    if (count == 0)
        return AIDB_OK;
    return fail(builder, copy_fragments(builder, items, count));
}

uint64_t table_builder_size(const TableBuilder *builder)
{
    return position(builder) + builder->samples.size + builder->block.keys.size +
           builder->block.values.size + builder->index.records.size +
           builder->hashes.size / 8 * builder->options.filter_bits / 8;
}

uint64_t table_builder_entries(const TableBuilder *builder)
{
    return builder->info.entries;
}

void table_builder_bounds(const TableBuilder *builder, Slice *smallest, Slice *largest)
{
    *smallest = buffer_slice(&builder->smallest);
    *largest = buffer_slice(&builder->last_key);
}

/* ---- the end of the file --------------------------------------------------------------------- */

/* Writes a copy of the dictionary, if there is one. */
static Status write_dictionary(TableBuilder *builder, BlockHandle *handle)
{
    *handle = (BlockHandle){0};
    size_t size = builder->dictionary.size;
    if (size == 0)
        return AIDB_OK;
    RETURN_IF_FAILED(
        write_block(builder, BLOCK_DICTIONARY, false, &builder->dictionary, 0, handle));
    builder->dictionary.size = size; /* without the trailer that it gained */
    return AIDB_OK;
}

static Status write_filter(TableBuilder *builder)
{
    size_t keys = builder->hashes.size / 8;
    FilterShape shape = filter_shape(keys, builder->options.filter_bits);
    builder->info.filter_offset = position(builder);
    if (shape.sections == 0)
        return AIDB_OK;
    size_t payload_size = filter_payload_size(shape.lines);
    uint8_t *sections = calloc(shape.sections, payload_size);
    if (sections == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the filter of table \"%s\"",
                          builder->file.path);
    Status status = AIDB_OK;
    for (size_t i = 0; i < keys; i++) {
        uint64_t hash;
        memcpy(&hash, builder->hashes.data + i * 8, sizeof hash);
        filter_add(sections + filter_section_of(hash, shape.sections) * payload_size, shape.lines,
                   shape.probes, hash);
    }
    for (uint32_t i = 0; i < shape.sections; i++) {
        Buffer *payload = &builder->payload;
        payload->size = 0;
        OUT_IF_FAILED(buffer_append(payload, sections + i * payload_size, payload_size - 1));
        OUT_IF_FAILED(buffer_append_byte(payload, (uint8_t)shape.probes));
        BlockHandle handle;
        OUT_IF_FAILED(write_block(builder, BLOCK_FILTER, false, payload, 0, &handle));
    }
    builder->info.filter_sections = shape.sections;
    builder->info.filter_section_size = (uint32_t)(payload_size + TRAILER_SIZE);
out:
    free(sections);
    return status;
}

static Status write_fragments(TableBuilder *builder)
{
    const RangeFragments *fragments = &builder->fragments;
    builder->info.range_offset = position(builder);
    if (fragments->count == 0)
        return AIDB_OK;
    Status status = AIDB_OK;
    IndexBuilder top = {0};
    BlockHandle handle;
    size_t from = 0;
    while (from < fragments->count) {
        size_t size = range_fragment_size(&fragments->items[from]);
        size_t to = from + 1;
        while (to < fragments->count &&
               size + range_fragment_size(&fragments->items[to]) <= RANGE_CHUNK_SIZE)
            size += range_fragment_size(&fragments->items[to++]);
        builder->payload.size = 0;
        OUT_IF_FAILED(range_block_build(fragments->items + from, to - from, &builder->payload));
        OUT_IF_FAILED(write_block(builder, BLOCK_RANGE, true, &builder->payload, 0, &handle));
        if (to < fragments->count)
            OUT_IF_FAILED(index_builder_add(&top, fragments->items[to].from, LSN_MAX, &handle));
        else
            OUT_IF_FAILED(index_builder_add(&top, fragments->items[to - 1].from, 0, &handle));
        from = to;
    }
    builder->payload.size = 0;
    OUT_IF_FAILED(index_builder_block(&top, 0, top.count, &builder->payload));
    OUT_IF_FAILED(write_block(builder, BLOCK_RANGE_TOP, true, &builder->payload, 0, &handle));
    builder->info.range_offset = handle.offset;
    builder->info.range_size = handle.size;
out:
    index_builder_deinit(&top);
    return status;
}

static Status write_index_block(TableBuilder *builder, const IndexBuilder *index, uint32_t from,
                                uint32_t to, BlockKind kind, BlockHandle *handle)
{
    builder->payload.size = 0;
    RETURN_IF_FAILED(index_builder_block(index, from, to, &builder->payload));
    return write_block(builder, kind, true, &builder->payload, 0, handle);
}

/* The end of the index block that begins with entry `from`: about as large as a partition, and with
 * blocks that lie within 4 GiB. */
static uint32_t index_partition_end(const IndexBuilder *index, uint32_t from, size_t size_max)
{
    Slice key;
    uint64_t lsn;
    BlockHandle handle;
    index_builder_entry(index, from, &key, &lsn, &handle);
    uint64_t base = handle.offset;
    size_t size = index_builder_entry_size(index, from);
    uint32_t to = from + 1;
    for (; to < index->count; to++) {
        size += index_builder_entry_size(index, to);
        index_builder_entry(index, to, &key, &lsn, &handle);
        if (size > size_max || handle.offset - base > UINT32_MAX)
            break;
    }
    return to;
}

static Status write_index(TableBuilder *builder)
{
    const IndexBuilder *index = &builder->index;
    BlockHandle handle;
    Status status = AIDB_OK;
    IndexBuilder top = {0};
    if (index->count == 0 || index_partition_end(index, 0, INDEX_SINGLE_MAX) == index->count) {
        OUT_IF_FAILED(write_index_block(builder, index, 0, index->count, BLOCK_INDEX, &handle));
        builder->info.index_levels = 1;
    } else {
        for (uint32_t from = 0, to; from < index->count; from = to) {
            to = index_partition_end(index, from, INDEX_PARTITION_SIZE);
            OUT_IF_FAILED(write_index_block(builder, index, from, to, BLOCK_INDEX, &handle));
            Slice key;
            uint64_t lsn;
            BlockHandle last;
            index_builder_entry(index, to - 1, &key, &lsn, &last);
            OUT_IF_FAILED(index_builder_add(&top, key, lsn, &handle));
        }
        OUT_IF_FAILED(write_index_block(builder, &top, 0, top.count, BLOCK_INDEX_TOP, &handle));
        builder->info.index_levels = 2;
    }
    builder->info.index_offset = handle.offset;
    builder->info.index_size = handle.size;
out:
    index_builder_deinit(&top);
    return status;
}

static Status write_properties(TableBuilder *builder, BlockHandle *handle)
{
    /* The file size stands in the properties: they are encoded once to learn their own size. The size is a
     * varint whose length may change with its value, so it is tried until it fits. */
    TableProperties properties = {.info = builder->info,
                                  .block_size = builder->options.block_size,
                                  .compression = builder->options.compression,
                                  .filter_bits = builder->options.filter_bits,
                                  .smallest = buffer_slice(&builder->smallest),
                                  .largest = buffer_slice(&builder->last_key)};
    uint64_t size = position(builder) + TRAILER_SIZE + TABLE_FOOTER_SIZE;
    properties.info.file_size = size;
    for (;;) {
        builder->payload.size = 0;
        RETURN_IF_FAILED(table_properties_encode(&properties, &builder->payload));
        if (properties.info.file_size == size + builder->payload.size)
            break;
        properties.info.file_size = size + builder->payload.size;
    }
    builder->info.file_size = properties.info.file_size;
    return write_block(builder, BLOCK_PROPERTIES, false, &builder->payload, 0, handle);
}

static Status not_as_written(const TableBuilder *builder, uint64_t offset)
{
    return status_set(AIDB_CORRUPTION,
                      "table \"%s\" does not hold at offset %llu what was written there; it is not "
                      "used",
                      builder->file.path, (unsigned long long)offset);
}

/*
 * Reads the whole file again, mostly from the page cache, and compares header, footer and the checksum of
 * every block. What memory or the way to the file did to a block after it was sealed would otherwise be
 * found when the inputs are gone.
 */
static Status verify_written(TableBuilder *builder, const uint8_t footer[TABLE_FOOTER_SIZE])
{
    Buffer *bytes = &builder->out; /* written and empty */
    uint8_t header[TABLE_HEADER_SIZE];
    uint64_t offset = TABLE_HEADER_SIZE;
    uint64_t footer_at = builder->info.file_size - TABLE_FOOTER_SIZE;
    table_header_encode(header, builder->options.system_id, builder->info.number, builder->info.id);
    RETURN_IF_FAILED(file_read_at(&builder->file, 0, bytes->data, sizeof header));
    if (memcmp(bytes->data, header, sizeof header) != 0)
        return not_as_written(builder, 0);
    size_t count = builder->block_sizes.size / sizeof(uint32_t);
    for (size_t i = 0; i < count;) {
        const uint8_t *sizes = builder->block_sizes.data;
        size_t total = 0, end = i;
        uint32_t size;
        for (; end < count; end++, total += size) {
            memcpy(&size, sizes + end * sizeof size, sizeof size);
            if (end > i && total + size > WRITE_SIZE)
                break;
        }
        RETURN_IF_FAILED(buffer_reserve(bytes, total));
        RETURN_IF_FAILED(file_read_at(&builder->file, offset, bytes->data, total));
        for (const uint8_t *block = bytes->data; i < end; i++, block += size, offset += size) {
            memcpy(&size, sizes + i * sizeof size, sizeof size);
            if (table_checksum(builder->info.id, offset, block, size - 8) !=
                get_fixed64(block + size - 8))
                return not_as_written(builder, offset);
        }
    }
    if (offset != footer_at)
        return not_as_written(builder, offset);
    RETURN_IF_FAILED(file_read_at(&builder->file, footer_at, bytes->data, TABLE_FOOTER_SIZE));
    if (memcmp(bytes->data, footer, TABLE_FOOTER_SIZE) != 0)
        return not_as_written(builder, footer_at);
    return AIDB_OK;
}

static Status finish(TableBuilder *builder)
{
    if (builder->block.entries > 0)
        RETURN_IF_FAILED(write_data_block(builder));
    if (builder->sampling)
        RETURN_IF_FAILED(end_sampling(builder, false));
    if (builder->pending)
        RETURN_IF_FAILED(add_separator(builder, NULL));
    builder->info.data_size = position(builder) - TABLE_HEADER_SIZE;
    BlockHandle dictionary, copy;
    RETURN_IF_FAILED(write_dictionary(builder, &dictionary));
    builder->info.dictionary_offset = dictionary.offset;
    builder->info.dictionary_size = dictionary.size;
    RETURN_IF_FAILED(write_filter(builder));
    RETURN_IF_FAILED(write_fragments(builder));
    RETURN_IF_FAILED(write_index(builder));
    RETURN_IF_FAILED(write_dictionary(builder, &copy));
    BlockHandle properties;
    RETURN_IF_FAILED(write_properties(builder, &properties));
    uint8_t footer[TABLE_FOOTER_SIZE];
    table_footer_encode(footer, builder->info.number, builder->info.id, builder->info.file_size,
                        properties.offset, properties.size);
    RETURN_IF_FAILED(append(builder, footer, sizeof footer));
    RETURN_IF_FAILED(write_out(builder));
    RETURN_IF_FAILED(FAILPOINT_STATUS("table.written"));
    RETURN_IF_FAILED(verify_written(builder, footer));
    FAILPOINT("table.verified");
    RETURN_IF_FAILED(file_sync(&builder->file));
    FAILPOINT("table.synced");
    return AIDB_OK;
}

Status table_builder_finish(TableBuilder *builder, TableInfo *info)
{
    *info = (TableInfo){0};
    if (builder->failed != AIDB_OK || builder->finished)
        return refuse(builder);
    RETURN_IF_FAILED(fail(builder, finish(builder)));
    builder->finished = true;
    *info = builder->info;
    return AIDB_OK;
}
