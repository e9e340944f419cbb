/*
 * table_reader.c - reads blocks, and the point lookups on top of that.
 *
 * A block is looked for in the cache; on a miss a frame is reserved and the stored block is read
 * straight into it (or, when compressed, into the session's scratch memory and decompressed into the
 * frame), checked, and published. No lock is held meanwhile, and two readers that miss the same
 * block both read it: the cache keeps one. When the cache has no frame to give, the block goes into
 * private memory that lives as long as a frame would: until the epoch is left.
 *
 * Nothing is believed before its checksum was checked, so what the cache holds was checked once.
 * The decoders of payloads check bounds all the same.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include <inttypes.h>
#include <stdlib.h>

#define SCRATCH_KEEP   (1u << 20)
#define GETS_TOGETHER  CACHE_PREFETCH_MAX
#define VALUE_PREFETCH 256u /* of larger values the processor itself fetches the rest */

struct TableBlock {
    struct TableBlock *next;
    uint8_t data[];
};

Status table_damage(const TableReader *reader, const TableInfo *info, uint64_t offset,
                    const char *what)
{
    char name[TABLE_NAME_SIZE];
    table_name(info->number, name);
    Status status =
        status_set(AIDB_CORRUPTION, "table file \"%s/%s\" is damaged at offset %" PRIu64 ": %s",
                   file_cache_directory(reader->files), name, offset, what);
    status_hint("Run aidbctl verify to find all damage.");
    return status;
}

void block_buffer_deinit(BlockBuffer *buffer)
{
    buffer_deinit(&buffer->payload);
    buffer_deinit(&buffer->window);
    free(buffer->dictionary);
    buffer->dictionary = NULL;
}

void table_reader_release(TableReader *reader)
{
    while (reader->private_blocks != NULL) {
        struct TableBlock *block = reader->private_blocks;
        reader->private_blocks = block->next;
        free(block);
    }
    if (reader->scratch.capacity > SCRATCH_KEEP)
        buffer_deinit(&reader->scratch);
}

void table_reader_deinit(TableReader *reader)
{
    table_reader_release(reader);
    buffer_deinit(&reader->scratch);
    decompressor_destroy(reader->decompressor);
    reader->decompressor = NULL;
}

static uint8_t *private_block(TableReader *reader, size_t size)
{
    struct TableBlock *block = malloc(sizeof *block + size);
    if (block == NULL) {
        (void)status_set(AIDB_NO_MEMORY, "out of memory for a block of %zu bytes", size);
        return NULL;
    }
    block->next = reader->private_blocks;
    reader->private_blocks = block;
    return block->data;
}

static void count(TableReader *reader, StatCounter counter, uint64_t amount)
{
    if (reader->slot != NULL)
        slot_count(reader->slot, counter, amount);
}

static Status read_file(TableReader *reader, const TableInfo *info, uint64_t offset, void *data,
                        size_t size)
{
    const File *file;
    RETURN_IF_FAILED(file_cache_get(reader->files, info, &file));
    SlotSection before = SECTION_NONE;
    if (reader->slot != NULL)
        before = slot_enter(reader->slot, SECTION_READ);
    Status status = file_read_at(file, offset, data, size);
    if (reader->slot != NULL)
        slot_leave(reader->slot, before);
    count(reader, STAT_BLOCK_READS, 1);
    count(reader, STAT_BLOCK_READ_BYTES, size);
    return status;
}

/* Whether the block lies in the window. */
static const uint8_t *in_window(const BlockBuffer *own, const BlockHandle *handle)
{
    if (handle->offset < own->window_offset ||
        handle->offset - own->window_offset > own->window.size ||
        handle->size > own->window.size - (handle->offset - own->window_offset))
        return NULL;
    return own->window.data + (handle->offset - own->window_offset);
}

static Status fill_window(TableReader *reader, const TableInfo *info, const BlockRead *read)
{
    BlockBuffer *own = read->own;
    uint64_t from = read->handle.offset;
    uint64_t to = from + read->handle.size;
    if (read->readahead > read->handle.size) {
        uint64_t extra = read->readahead - read->handle.size;
        /* Data blocks are what is read in order; nothing behind them is worth reading along. */
        uint64_t end = TABLE_HEADER_SIZE + info->data_size;
        if (read->backward)
            from = from - TABLE_HEADER_SIZE > extra ? from - extra : TABLE_HEADER_SIZE;
        else if (to < end)
            to = end - to > extra ? to + extra : end;
    }
    own->window.size = 0;
    RETURN_IF_FAILED(buffer_reserve(&own->window, (size_t)(to - from)));
    RETURN_IF_FAILED(read_file(reader, info, from, own->window.data, (size_t)(to - from)));
    own->window.size = (size_t)(to - from);
    own->window_offset = from;
    return AIDB_OK;
}

static Slice publish(TableReader *reader, const TableInfo *info, const BlockRead *read,
                     CacheFill *fill, size_t size)
{
    if (read->own != NULL)
        read->own->framed = true;
    return cache_publish(reader->cache, reader->slot, fill, info->number, read->handle.offset,
                         size);
}

/* An uncompressed block that is read where it stays: in a frame, or in memory of the iterator that
 * asked, or in private memory. */
static Status read_in_place(TableReader *reader, const TableInfo *info, const BlockRead *read,
                            Slice *payload)
{
    const BlockHandle *handle = &read->handle;
    CacheFill fill = {0};
    if (reader->cache != NULL && !read->passing)
        cache_reserve(reader->cache, reader->slot, handle->size,
                      read->kind == BLOCK_DATA ? CACHE_DATA : CACHE_INDEX, &fill);
    uint8_t *data = fill.data;
    if (data == NULL && read->own != NULL) {
        read->own->payload.size = 0;
        RETURN_IF_FAILED(buffer_reserve(&read->own->payload, handle->size));
        data = read->own->payload.data;
    } else if (data == NULL) {
        data = private_block(reader, handle->size);
    }
    if (data == NULL)
        return AIDB_NO_MEMORY;
    BlockTrailer trailer;
    const char *damage = NULL;
    Status status = read_file(reader, info, handle->offset, data, handle->size);
    if (status == AIDB_OK)
        damage = block_check(info->id, handle->offset, data, handle->size, read->kind, &trailer);
    if (damage == NULL && status == AIDB_OK && trailer.compression != COMPRESSION_NONE)
        damage = "block is compressed, but its index says that it is not";
    if (status != AIDB_OK || damage != NULL) {
        if (fill.data != NULL)
            cache_abandon(reader->cache, reader->slot, &fill);
        return status != AIDB_OK ? status : table_damage(reader, info, handle->offset, damage);
    }
    if (fill.data == NULL)
        *payload = slice_make(data, trailer.raw_size);
    else
        *payload = publish(reader, info, read, &fill, trailer.raw_size);
    return AIDB_OK;
}

/* The table's dictionary: from the cache, where it stands ready for use, or made in memory of the
 * iterator that asks, or in private memory. */
static Status get_dictionary(TableReader *reader, const TableInfo *info, BlockBuffer *own,
                             const Dictionary **dictionary)
{
    *dictionary = NULL;
    if (own != NULL && own->dictionary != NULL) {
        *dictionary = own->dictionary;
        return AIDB_OK;
    }
    uint64_t offset = info->dictionary_offset;
    uint32_t size = info->dictionary_size;
    Slice ready;
    if (reader->cache != NULL && cache_lookup(reader->cache, info->number, offset, &ready)) {
        *dictionary = (const Dictionary *)ready.data;
        return AIDB_OK;
    }
    if (size <= TRAILER_SIZE)
        return table_damage(reader, info, TABLE_HEADER_SIZE,
                            "blocks need a dictionary that the table does not have");
    Status status = AIDB_OK;
    uint8_t *stored = malloc(size);
    CacheFill fill = {0};
    size_t room = dictionary_room(size - TRAILER_SIZE);
    if (stored == NULL)
        OUT_IF_FAILED(status_set(AIDB_NO_MEMORY, "out of memory for a compression dictionary"));
    OUT_IF_FAILED(read_file(reader, info, offset, stored, size));
    BlockTrailer trailer;
    const char *damage = block_check(info->id, offset, stored, size, BLOCK_DICTIONARY, &trailer);
    if (damage == NULL && trailer.compression != COMPRESSION_NONE)
        damage = "dictionary is compressed";
    if (damage != NULL)
        OUT_IF_FAILED(table_damage(reader, info, offset, damage));

    if (reader->cache != NULL)
        cache_reserve(reader->cache, reader->slot, room, CACHE_INDEX, &fill);
    uint8_t *memory = fill.data;
    if (memory == NULL && own != NULL) {
        memory = own->dictionary = malloc(room);
        if (memory == NULL)
            OUT_IF_FAILED(status_set(AIDB_NO_MEMORY, "out of memory for a compression dictionary"));
    } else if (memory == NULL) {
        memory = private_block(reader, room);
        if (memory == NULL)
            OUT_IF_FAILED(AIDB_NO_MEMORY);
    }
    *dictionary = dictionary_init(memory, room, stored, trailer.raw_size);
    if (*dictionary == NULL) {
        if (fill.data != NULL) {
            cache_abandon(reader->cache, reader->slot, &fill);
        } else if (own != NULL) {
            free(own->dictionary);
            own->dictionary = NULL;
        }
        OUT_IF_FAILED(table_damage(reader, info, offset, "dictionary makes no sense"));
    }
    if (fill.data != NULL) {
        ready = cache_publish(reader->cache, reader->slot, &fill, info->number, offset, room);
        *dictionary = (const Dictionary *)ready.data;
    }
out:
    free(stored);
    return status;
}

/* Brings checked stored bytes to where the payload stays. */
static Status unpack(TableReader *reader, const TableInfo *info, const BlockRead *read,
                     const uint8_t *stored, const BlockTrailer *trailer, Slice *payload)
{
    size_t packed_size = read->handle.size - TRAILER_SIZE;
    if (trailer->compression != COMPRESSION_NONE && reader->decompressor == NULL) {
        reader->decompressor = decompressor_create();
        if (reader->decompressor == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory to decompress blocks");
    }
    const Dictionary *dictionary = NULL;
    if (trailer->compression == STORED_ZSTD_DICTIONARY)
        RETURN_IF_FAILED(get_dictionary(reader, info, read->own, &dictionary));
    CacheFill fill = {0};
    if (reader->cache != NULL && !read->passing)
        cache_reserve(reader->cache, reader->slot, trailer->raw_size,
                      read->kind == BLOCK_DATA ? CACHE_DATA : CACHE_INDEX, &fill);
    uint8_t *data = fill.data;
    if (data == NULL && read->own != NULL) {
        /* An iterator reuses its memory for the next block: what it walks over in one epoch, which may
         * be far more than fits in memory, must not pile up. */
        if (trailer->compression == COMPRESSION_NONE && stored != reader->scratch.data) {
            *payload = slice_make(stored, trailer->raw_size); /* it lies in the window */
            return AIDB_OK;
        }
        read->own->payload.size = 0;
        RETURN_IF_FAILED(buffer_reserve(&read->own->payload, (size_t)trailer->raw_size + 1));
        data = read->own->payload.data;
    } else if (data == NULL) {
        data = private_block(reader, trailer->raw_size);
    }
    if (data == NULL)
        return AIDB_NO_MEMORY;
    const char *damage =
        block_unpack(reader->decompressor, trailer, dictionary, stored, packed_size, data);
    if (damage != NULL) {
        if (fill.data != NULL)
            cache_abandon(reader->cache, reader->slot, &fill);
        return table_damage(reader, info, read->handle.offset, damage);
    }
    if (fill.data == NULL)
        *payload = slice_make(data, trailer->raw_size);
    else
        *payload = publish(reader, info, read, &fill, trailer->raw_size);
    return AIDB_OK;
}

Status table_block_read(TableReader *reader, const TableInfo *info, const BlockRead *read,
                        Slice *payload)
{
    const BlockHandle *handle = &read->handle;
    *payload = (Slice){0};
    if (read->own != NULL)
        read->own->framed = false;
    if (reader->cache != NULL) {
        if (cache_lookup(reader->cache, info->number, handle->offset, payload)) {
            if (read->own != NULL)
                read->own->framed = true;
            count(reader, STAT_CACHE_HITS, 1);
            return AIDB_OK;
        }
        count(reader, STAT_CACHE_MISSES, 1);
    } else if (reader->warmth != NULL && read->kind == BLOCK_DATA) {
        TableWarmth *warmth = reader->warmth;
        epoch_enter(warmth->epochs, warmth->slot);
        warmth->blocks_held += cache_holds(warmth->cache, info->number, handle->offset);
        warmth->blocks_read++;
        epoch_leave(warmth->slot);
    }
    if (handle->size < TRAILER_SIZE || handle->offset < TABLE_HEADER_SIZE ||
        handle->offset > info->file_size || handle->size > info->file_size - handle->offset)
        return table_damage(reader, info, handle->offset, "block lies outside the file");
    if (handle->raw && (read->own == NULL || (reader->cache != NULL && read->readahead == 0)))
        return read_in_place(reader, info, read, payload);

    const uint8_t *stored = read->own != NULL ? in_window(read->own, handle) : NULL;
    if (stored == NULL && read->own != NULL && (reader->cache == NULL || read->readahead > 0)) {
        RETURN_IF_FAILED(fill_window(reader, info, read));
        stored = in_window(read->own, handle);
    } else if (stored == NULL) {
        reader->scratch.size = 0;
        RETURN_IF_FAILED(buffer_reserve(&reader->scratch, handle->size));
        RETURN_IF_FAILED(
            read_file(reader, info, handle->offset, reader->scratch.data, handle->size));
        stored = reader->scratch.data;
    }
    BlockTrailer trailer;
    const char *damage =
        block_check(info->id, handle->offset, stored, handle->size, read->kind, &trailer);
    if (damage != NULL)
        return table_damage(reader, info, handle->offset, damage);
    return unpack(reader, info, read, stored, &trailer, payload);
}

/* ---- lookups --------------------------------------------------------------------------------- */

/* Reads the index block at `handle` and looks for the first entry at or after (key, lsn). */
static Status index_step(TableReader *reader, const TableInfo *info, BlockKind kind, Slice key,
                         uint64_t lsn, BlockHandle *handle, bool *found)
{
    Slice payload;
    IndexView view;
    uint32_t position = 0;
    uint64_t offset = handle->offset;
    *found = false;
    RETURN_IF_FAILED(
        table_block_read(reader, info, &(BlockRead){.kind = kind, .handle = *handle}, &payload));
    if (!index_view_init(&view, payload) || !index_find(&view, key, lsn, &position))
        return table_damage(reader, info, offset, "index block makes no sense");
    if (position == view.count)
        return AIDB_OK;
    if (!index_handle(&view, position, handle))
        return table_damage(reader, info, offset, "index block makes no sense");
    *found = true;
    return AIDB_OK;
}

/* From (key, lsn) to the one data block that may hold it. */
static Status find_block(TableReader *reader, const TableInfo *info, Slice key, uint64_t lsn,
                         BlockHandle *handle, bool *found)
{
    *handle = (BlockHandle){.offset = info->index_offset, .size = info->index_size};
    if (info->index_levels == 2) {
        RETURN_IF_FAILED(index_step(reader, info, BLOCK_INDEX_TOP, key, lsn, handle, found));
        if (!*found)
            return AIDB_OK;
    }
    return index_step(reader, info, BLOCK_INDEX, key, lsn, handle, found);
}

/* ---- gets ------------------------------------------------------------------------------------ */

static BlockHandle filter_section(const TableInfo *info, uint64_t key_hash)
{
    uint32_t section = filter_section_of(key_hash, info->filter_sections);
    return (BlockHandle){.offset =
                             info->filter_offset + (uint64_t)section * info->filter_section_size,
                         .size = info->filter_section_size,
                         .raw = true};
}

static Status filter_check(TableReader *reader, const TableInfo *info, uint64_t key_hash, bool *may)
{
    BlockRead read = {.kind = BLOCK_FILTER, .handle = filter_section(info, key_hash)};
    Slice payload;
    RETURN_IF_FAILED(table_block_read(reader, info, &read, &payload));
    *may = filter_may_contain(payload, key_hash);
    count(reader, STAT_FILTER_CHECKS, 1);
    if (!*may)
        count(reader, STAT_FILTER_SKIPS, 1);
    return AIDB_OK;
}

/* The line of the filter that filter_check will look at. */
static CachePlace filter_place(const TableInfo *info, uint64_t key_hash)
{
    BlockHandle handle = filter_section(info, key_hash);
    size_t size = handle.size > TRAILER_SIZE ? handle.size - TRAILER_SIZE : 0;
    return (CachePlace){
        .table = info->number, .offset = handle.offset, .at = filter_line_at(size, key_hash)};
}

static void value_prefetch(Slice value)
{
    for (size_t at = 0; at < value.size && at < VALUE_PREFETCH; at += 64)
        __builtin_prefetch(value.data + at);
}

/* A get on its way through the steps. */
typedef struct Lookup {
    TableGet *get;
    BlockHandle handle; /* of the data block */
    BlockView view;
    uint32_t restart;
} Lookup;

/* To where the block's entries are searched. */
static Status open_block(TableReader *reader, Lookup *lookup, uint64_t visible)
{
    const TableGet *get = lookup->get;
    Slice payload;
    RETURN_IF_FAILED(table_block_read(
        reader, get->info, &(BlockRead){.kind = BLOCK_DATA, .handle = lookup->handle}, &payload));
    if (!block_view_init(&lookup->view, payload) ||
        !block_find_restart(&lookup->view, get->key, visible, &lookup->restart))
        return table_damage(reader, get->info, lookup->handle.offset, "data block makes no sense");
    return AIDB_OK;
}

/* Each step leaves those that go on at the front. `together`: worth fetching what their next step will
 * read. */
static Status get_some(TableReader *reader, size_t count, TableGet *const *gets, uint64_t visible)
{
    Lookup lookups[GETS_TOGETHER];
    CachePlace places[GETS_TOGETHER];
    bool together = count > 1 && reader->cache != NULL;
    size_t left = 0, ahead = 0;
    for (size_t i = 0; i < count; i++) {
        const TableInfo *info = gets[i]->info;
        gets[i]->found = false;
        *gets[i]->entry = (Entry){0};
        if (info->entries == 0)
            continue;
        lookups[left++].get = gets[i];
        if (together && info->filter_sections > 0)
            places[ahead++] = filter_place(info, gets[i]->key_hash);
    }
    if (ahead > 0)
        cache_prefetch(reader->cache, places, ahead);
    count = left;
    left = 0;
    for (size_t i = 0; i < count; i++) {
        TableGet *get = lookups[i].get;
        bool may = true;
        if (get->info->filter_sections > 0)
            RETURN_IF_FAILED(filter_check(reader, get->info, get->key_hash, &may));
        if (may)
            lookups[left++].get = get;
    }
    count = left;
    left = 0;
    for (size_t i = 0; i < count; i++) {
        TableGet *get = lookups[i].get;
        BlockHandle handle;
        bool have_block = false;
        RETURN_IF_FAILED(find_block(reader, get->info, get->key, visible, &handle, &have_block));
        if (!have_block)
            continue;
        lookups[left].get = get;
        places[left] = (CachePlace){.table = get->info->number, .offset = handle.offset};
        lookups[left++].handle = handle;
    }
    if (together)
        cache_prefetch(reader->cache, places, left);
    for (size_t i = 0; i < left; i++) {
        RETURN_IF_FAILED(open_block(reader, &lookups[i], visible));
        if (together)
            block_prefetch(&lookups[i].view, lookups[i].restart);
    }
    for (size_t i = 0; i < left; i++) {
        const Lookup *lookup = &lookups[i];
        TableGet *get = lookup->get;
        BlockFind result =
            block_find_from(&lookup->view, lookup->restart, get->key, visible, get->entry);
        if (result == BLOCK_DAMAGED)
            return table_damage(reader, get->info, lookup->handle.offset,
                                "data block makes no sense");
        get->found = result == BLOCK_FOUND;
        if (together && get->found)
            value_prefetch(get->entry->value);
    }
    return AIDB_OK;
}

Status table_get_many(TableReader *reader, size_t count, TableGet *const *gets, uint64_t visible)
{
    for (size_t at = 0; at < count; at += GETS_TOGETHER) {
        size_t some = count - at < GETS_TOGETHER ? count - at : GETS_TOGETHER;
        RETURN_IF_FAILED(get_some(reader, some, gets + at, visible));
    }
    return AIDB_OK;
}

Status table_get(TableReader *reader, const TableInfo *info, Slice key, uint64_t key_hash,
                 uint64_t visible, Entry *entry, bool *found)
{
    TableGet get = {.info = info, .key = key, .key_hash = key_hash, .entry = entry};
    TableGet *gets = &get;
    Status status = get_some(reader, 1, &gets, visible);
    *found = get.found;
    return status;
}

Status table_offset_of(TableReader *reader, const TableInfo *info, Slice key, uint64_t *offset)
{
    *offset = 0;
    BlockHandle handle;
    bool found = false;
    RETURN_IF_FAILED(find_block(reader, info, key, LSN_MAX, &handle, &found));
    *offset = found ? handle.offset - TABLE_HEADER_SIZE : info->data_size;
    return AIDB_OK;
}

/* ---- range tombstones ------------------------------------------------------------------------ */

static Status read_range_top(TableReader *reader, const TableInfo *info, IndexView *top)
{
    Slice payload;
    BlockRead read = {.kind = BLOCK_RANGE_TOP,
                      .handle = {.offset = info->range_offset, .size = info->range_size}};
    RETURN_IF_FAILED(table_block_read(reader, info, &read, &payload));
    if (!index_view_init(top, payload) || top->count == 0)
        return table_damage(reader, info, info->range_offset,
                            "index of range tombstones makes no sense");
    return AIDB_OK;
}

static Status read_range_block(TableReader *reader, const TableInfo *info, const IndexView *top,
                               uint32_t position, RangeView *view, BlockHandle *handle)
{
    Slice payload;
    if (!index_handle(top, position, handle))
        return table_damage(reader, info, info->range_offset,
                            "index of range tombstones makes no sense");
    RETURN_IF_FAILED(table_block_read(
        reader, info, &(BlockRead){.kind = BLOCK_RANGE, .handle = *handle}, &payload));
    if (!range_view_init(view, payload))
        return table_damage(reader, info, handle->offset,
                            "block of range tombstones makes no sense");
    return AIDB_OK;
}

Status table_cover(TableReader *reader, const TableInfo *info, Slice key, uint64_t visible,
                   uint64_t *lsn)
{
    *lsn = 0;
    if (info->range_size == 0)
        return AIDB_OK;
    IndexView top;
    RETURN_IF_FAILED(read_range_top(reader, info, &top));
    uint32_t position = 0;
    if (!index_find(&top, key, 0, &position))
        return table_damage(reader, info, info->range_offset,
                            "index of range tombstones makes no sense");
    if (position == top.count)
        position--; /* the last block has no upper bound */
    RangeView view;
    BlockHandle handle;
    RETURN_IF_FAILED(read_range_block(reader, info, &top, position, &view, &handle));
    if (!range_view_cover(&view, key, visible, lsn))
        return table_damage(reader, info, handle.offset,
                            "block of range tombstones makes no sense");
    return AIDB_OK;
}

/* Room for everything the fragments of a table hold. */
typedef struct FragmentSizes {
    size_t items;
    size_t lsns;
    size_t key_bytes;
} FragmentSizes;

typedef struct FragmentFill {
    RangeFragment *items;
    uint64_t *lsns;
    uint8_t *keys;
    size_t count;
} FragmentFill;

static Slice copy_key(FragmentFill *fill, Slice key)
{
    Slice copy = slice_make(fill->keys, key.size);
    if (key.size > 0)
        memcpy(fill->keys, key.data, key.size);
    fill->keys += key.size;
    return copy;
}

/* Walks over all fragments: counts into `sizes` and, when it is not NULL, copies into `fill`. */
static Status walk_fragments(TableReader *reader, const TableInfo *info, FragmentSizes *sizes,
                             FragmentFill *fill)
{
    IndexView top;
    RETURN_IF_FAILED(read_range_top(reader, info, &top));
    for (uint32_t i = 0; i < top.count; i++) {
        RangeView view;
        BlockHandle handle;
        RETURN_IF_FAILED(read_range_block(reader, info, &top, i, &view, &handle));
        for (uint32_t j = 0; j < view.count; j++) {
            RangeItem item;
            if (!range_view_item(&view, j, &item))
                return table_damage(reader, info, handle.offset,
                                    "block of range tombstones makes no sense");
            sizes->items++;
            sizes->lsns += item.lsn_count;
            sizes->key_bytes += item.from.size + item.to.size;
            if (fill == NULL)
                continue;
            RangeFragment *to = &fill->items[fill->count++];
            *to = (RangeFragment){.lsns = fill->lsns, .lsn_count = item.lsn_count};
            for (uint32_t k = 0; k < item.lsn_count; k++)
                *fill->lsns++ = get_fixed64(item.lsns + (size_t)k * 8);
            to->from = copy_key(fill, item.from);
            to->to = copy_key(fill, item.to);
        }
    }
    return AIDB_OK;
}

Status table_fragments(TableReader *reader, const TableInfo *info, RangeFragments *out)
{
    *out = (RangeFragments){0};
    if (info->range_size == 0)
        return AIDB_OK;
    FragmentSizes sizes = {0};
    RETURN_IF_FAILED(walk_fragments(reader, info, &sizes, NULL));
    if (sizes.items == 0)
        return AIDB_OK;
    size_t size =
        sizes.items * sizeof(RangeFragment) + sizes.lsns * sizeof(uint64_t) + sizes.key_bytes;
    uint8_t *memory = malloc(size);
    if (memory == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for the range tombstones of a table");
    FragmentFill fill = {.items = (RangeFragment *)memory};
    fill.lsns = (uint64_t *)(fill.items + sizes.items);
    fill.keys = (uint8_t *)(fill.lsns + sizes.lsns);
    FragmentSizes again = {0};
    Status status = walk_fragments(reader, info, &again, &fill);
    if (status != AIDB_OK) {
        free(memory);
        return status;
    }
    *out = (RangeFragments){.items = fill.items, .count = fill.count, .memory = memory};
    return AIDB_OK;
}
