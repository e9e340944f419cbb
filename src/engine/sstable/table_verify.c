/*
 * table_verify.c - checks a whole table file, and reads what a table says about itself.
 *
 * Verification accounts for every byte: the parts must follow each other without a gap, each under
 * its checksum, and what they hold must agree: entries in order and within their separators, every
 * key in the filter, counts, LSNs and bounds as the properties say. Damage is reported and checking
 * goes on with whatever can still be found; only an unreadable footer ends it early, because nothing
 * else can be found without it.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- opening --------------------------------------------------------------------------------- */

typedef struct OpenTable {
    File file;
    TableProperties properties;
    BlockHandle properties_handle;
    Buffer properties_block;
    uint64_t bad_offset; /* where `what` was found */
    const char *what;    /* damage; NULL: none */
} OpenTable;

static void close_table(OpenTable *table)
{
    file_close(&table->file);
    buffer_deinit(&table->properties_block);
}

static Status found_damage(OpenTable *table, uint64_t offset, const char *what)
{
    table->bad_offset = offset;
    table->what = what;
    return AIDB_OK;
}

/* Reads footer and properties. Damage is AIDB_OK with `what` set. */
static Status open_table(const char *path, OpenTable *table)
{
    *table = (OpenTable){.file = FILE_CLOSED};
    RETURN_IF_FAILED(file_open(path, FILE_READ, &table->file));
    uint64_t size = 0;
    RETURN_IF_FAILED(file_size(&table->file, &size));
    if (size < TABLE_HEADER_SIZE + TABLE_FOOTER_SIZE)
        return found_damage(table, size, "file is too short for a table");
    RETURN_IF_FAILED(table_check_format(&table->file));
    uint8_t footer[TABLE_FOOTER_SIZE];
    RETURN_IF_FAILED(file_read_at(&table->file, size - sizeof footer, footer, sizeof footer));
    TableInfo footer_info;
    const char *what = table_footer_decode(footer, size, &footer_info, &table->properties_handle);
    table->properties.info = footer_info;
    if (what != NULL)
        return found_damage(table, size - sizeof footer, what);

    BlockHandle *handle = &table->properties_handle;
    Buffer *block = &table->properties_block;
    RETURN_IF_FAILED(buffer_reserve(block, handle->size));
    RETURN_IF_FAILED(file_read_at(&table->file, handle->offset, block->data, handle->size));
    block->size = handle->size;
    BlockTrailer trailer;
    what = block_check(footer_info.id, handle->offset, block->data, block->size, BLOCK_PROPERTIES,
                       &trailer);
    if (what == NULL && trailer.compression != COMPRESSION_NONE)
        what = "properties are compressed";
    if (what != NULL)
        return found_damage(table, handle->offset, what);
    const TableInfo *info = &table->properties.info;
    if (!table_properties_decode(slice_make(block->data, trailer.raw_size), &table->properties) ||
        info->number != footer_info.number || info->file_size != size ||
        info->id[0] != footer_info.id[0] || info->id[1] != footer_info.id[1]) {
        table->properties.info = footer_info;
        return found_damage(table, handle->offset, "properties make no sense");
    }
    return AIDB_OK;
}

static Status check_header(OpenTable *table, const uint8_t *system_id, const char **what)
{
    uint8_t header[TABLE_HEADER_SIZE];
    RETURN_IF_FAILED(file_read_at(&table->file, 0, header, sizeof header));
    *what = table_header_check(header, system_id, table->properties.info.number,
                               table->properties.info.id);
    return AIDB_OK;
}

/* The number in the name, when the name is a table's. */
static bool number_of_path(const char *path, uint64_t *number)
{
    const char *name = strrchr(path, '/');
    return table_name_parse(name != NULL ? name + 1 : path, number);
}

Status table_info_read(const char *path, const uint8_t *system_id, TableInfo *info)
{
    *info = (TableInfo){0};
    OpenTable table;
    Status status = open_table(path, &table);
    if (status == AIDB_OK && table.what == NULL) {
        status = check_header(&table, system_id, &table.what);
        table.bad_offset = 0;
    }
    uint64_t number = 0;
    if (status == AIDB_OK && table.what == NULL && number_of_path(path, &number) &&
        number != table.properties.info.number)
        table.what = "table has the name of another";
    if (status == AIDB_OK && table.what != NULL)
        status =
            status_set(AIDB_CORRUPTION, "table file \"%s\" is damaged at offset %" PRIu64 ": %s",
                       path, table.bad_offset, table.what);
    if (status == AIDB_OK)
        *info = table.properties.info;
    close_table(&table);
    return status;
}

/* ---- verifying ------------------------------------------------------------------------------- */

typedef struct Verifier {
    OpenTable table;
    const TableInfo *info;
    const char *path;
    TableDamage report;
    void *arg;

    Buffer stored;
    Buffer payload;
    Buffer index_payload;
    Buffer top_payload;
    Buffer separator;
    TableDecompressor *decompressor;
    void *dictionary_memory;
    const Dictionary *dictionary; /* NULL: none, or damaged */
    Buffer filter;                /* payloads of all sections, one after the other */
    size_t filter_payload;
    uint8_t *filter_good; /* of each section */

    uint64_t expected_offset; /* where the next part must begin */
    bool gaps_known;          /* a damaged index makes the place of the next block unknown */
    BlockCursor cursor;
    bool have_last; /* the last entry seen: order is checked across blocks */
    Buffer last_key;
    uint64_t last_lsn;
    Buffer bound; /* separator of the block before: every later entry is behind it */
    uint64_t bound_lsn;
    bool have_bound;
    uint64_t entries;
    uint64_t deletes;
    uint64_t raw_bytes;
    uint64_t lsn_max;
    bool data_damaged; /* totals cannot be compared */
} Verifier;

static void report(Verifier *v, uint64_t offset, const char *what)
{
    v->report(v->arg, v->path, offset, what);
}

/* Reads and checks a block. *good is false after damage was reported. `payload` keeps it. */
static Status verify_block(Verifier *v, BlockKind kind, const BlockHandle *handle, Buffer *payload,
                           bool *good)
{
    *good = false;
    uint64_t end = v->info->file_size - TABLE_FOOTER_SIZE;
    if (handle->offset < TABLE_HEADER_SIZE || handle->offset > end ||
        handle->size > end - handle->offset) {
        report(v, handle->offset, "block lies outside the file");
        return AIDB_OK;
    }
    v->stored.size = 0;
    RETURN_IF_FAILED(buffer_reserve(&v->stored, (size_t)handle->size + 1));
    Status status = file_read_at(&v->table.file, handle->offset, v->stored.data, handle->size);
    if (status == AIDB_IO || status == AIDB_CORRUPTION) {
        report(v, handle->offset, status_message());
        return AIDB_OK;
    }
    RETURN_IF_FAILED(status);
    BlockTrailer trailer;
    const char *what =
        block_check(v->info->id, handle->offset, v->stored.data, handle->size, kind, &trailer);
    if (what == NULL) {
        payload->size = 0;
        RETURN_IF_FAILED(buffer_reserve(payload, (size_t)trailer.raw_size + 1));
        payload->size = trailer.raw_size;
        if (v->decompressor == NULL && (v->decompressor = decompressor_create()) == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory to decompress blocks");
        size_t packed = handle->size - TRAILER_SIZE;
        if (trailer.compression != COMPRESSION_NONE && handle->raw)
            what = "block is compressed, but its index says that it is not";
        else
            what = block_unpack(v->decompressor, &trailer, v->dictionary, v->stored.data, packed,
                                payload->data);
    }
    if (what != NULL)
        report(v, handle->offset, what);
    *good = what == NULL;
    return AIDB_OK;
}

/* A part must begin where the one before it ended. */
static void expect_at(Verifier *v, uint64_t offset, uint64_t size)
{
    if (v->gaps_known && offset != v->expected_offset)
        report(v, v->expected_offset, "parts of the table do not follow each other");
    v->expected_offset = offset + size;
    v->gaps_known = true;
}

static Status keep(Buffer *buffer, Slice bytes)
{
    buffer->size = 0;
    return buffer_append(buffer, bytes.data, bytes.size);
}

/* Reads both copies of the dictionary; a good one is what data blocks are decompressed with. */
static Status verify_dictionary(Verifier *v)
{
    const TableInfo *info = v->info;
    if (info->dictionary_size == 0)
        return AIDB_OK;
    uint64_t places[2] = {info->dictionary_offset, table_dictionary_copy(info)};
    Buffer *first = &v->separator; /* not in use yet */
    for (int i = 0; i < 2; i++) {
        BlockHandle handle = {.offset = places[i], .size = info->dictionary_size, .raw = true};
        bool good = false;
        RETURN_IF_FAILED(verify_block(v, BLOCK_DICTIONARY, &handle, &v->payload, &good));
        if (!good)
            continue;
        if (v->dictionary != NULL) {
            if (!slice_equal(buffer_slice(first), buffer_slice(&v->payload)))
                report(v, handle.offset, "copy of the dictionary differs from it");
            continue;
        }
        size_t room = dictionary_room(v->payload.size);
        v->dictionary_memory = malloc(room);
        if (v->dictionary_memory == NULL)
            return status_set(AIDB_NO_MEMORY, "out of memory for a compression dictionary");
        v->dictionary =
            dictionary_init(v->dictionary_memory, room, v->payload.data, v->payload.size);
        if (v->dictionary == NULL) {
            free(v->dictionary_memory);
            v->dictionary_memory = NULL;
            report(v, handle.offset, "dictionary makes no sense");
        }
        RETURN_IF_FAILED(keep(first, buffer_slice(&v->payload)));
    }
    return AIDB_OK;
}

static Status verify_filter(Verifier *v)
{
    const TableInfo *info = v->info;
    if (info->filter_sections == 0)
        return AIDB_OK;
    if (info->filter_section_size <= TRAILER_SIZE + 1 ||
        (info->filter_section_size - TRAILER_SIZE) % FILTER_LINE != 1) {
        report(v, info->filter_offset, "filter sections have no possible size");
        return AIDB_OK;
    }
    v->filter_payload = info->filter_section_size - TRAILER_SIZE;
    v->filter_good = calloc(info->filter_sections, 1);
    if (v->filter_good == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory to verify a filter");
    RETURN_IF_FAILED(buffer_reserve(&v->filter, v->filter_payload * info->filter_sections));
    for (uint32_t i = 0; i < info->filter_sections; i++) {
        BlockHandle handle = {.offset =
                                  info->filter_offset + (uint64_t)i * info->filter_section_size,
                              .size = info->filter_section_size,
                              .raw = true};
        expect_at(v, handle.offset, handle.size);
        bool good = false;
        RETURN_IF_FAILED(verify_block(v, BLOCK_FILTER, &handle, &v->payload, &good));
        uint8_t *to = v->filter.data + v->filter.size;
        memset(to, 0xff, v->filter_payload);
        if (good && v->payload.size == v->filter_payload)
            memcpy(to, v->payload.data, v->filter_payload);
        else if (good)
            report(v, handle.offset, "filter section has another size than the others");
        v->filter_good[i] = good;
        v->filter.size += v->filter_payload;
    }
    return AIDB_OK;
}

static bool filter_holds(const Verifier *v, Slice key)
{
    if (v->filter_good == NULL)
        return true;
    uint64_t hash = table_key_hash(key);
    uint32_t section = filter_section_of(hash, v->info->filter_sections);
    return !v->filter_good[section] ||
           filter_may_contain(
               slice_make(v->filter.data + section * v->filter_payload, v->filter_payload), hash);
}

/* Everything that must hold for one entry; NULL or what does not. */
static const char *entry_problem(const Verifier *v, const Entry *entry, Slice separator,
                                 uint64_t separator_lsn)
{
    if (entry->key.size == 0 || entry->key.size > AIDB_KEY_MAX ||
        entry->value.size > AIDB_VALUE_MAX)
        return "entry has no possible size";
    if (v->have_last &&
        entry_compare(buffer_slice(&v->last_key), v->last_lsn, entry->key, entry->lsn) >= 0)
        return "entries are out of order";
    if (entry_compare(entry->key, entry->lsn, separator, separator_lsn) > 0)
        return "entry lies behind the separator of its block";
    if (v->have_bound &&
        entry_compare(entry->key, entry->lsn, buffer_slice(&v->bound), v->bound_lsn) <= 0)
        return "entry lies before the separator of the block before";
    if (entry->lsn < v->info->lsn_min || entry->lsn > v->info->lsn_max)
        return "LSN of an entry is outside the table's bounds";
    if (!filter_holds(v, entry->key))
        return "the filter does not hold a key of the block";
    return NULL;
}

static Status verify_data_block(Verifier *v, const BlockHandle *handle, Slice separator,
                                uint64_t separator_lsn)
{
    bool good = false;
    RETURN_IF_FAILED(verify_block(v, BLOCK_DATA, handle, &v->payload, &good));
    if (!good) {
        v->data_damaged = true;
        return AIDB_OK;
    }
    BlockCursor *cursor = &v->cursor;
    bool sound = block_cursor_init(cursor, buffer_slice(&v->payload)) && block_cursor_first(cursor);
    if (sound && !cursor->valid) {
        report(v, handle->offset, "data block is empty");
        v->data_damaged = true;
        return AIDB_OK;
    }
    const char *problem = NULL;
    while (sound && cursor->valid && problem == NULL) {
        problem = entry_problem(v, &cursor->entry, separator, separator_lsn);
        if (problem != NULL)
            break;
        v->entries++;
        v->deletes += cursor->entry.type == OP_DELETE;
        v->raw_bytes += cursor->entry.key.size + cursor->entry.value.size;
        if (cursor->entry.lsn > v->lsn_max)
            v->lsn_max = cursor->entry.lsn;
        if (v->entries == 1 && !v->data_damaged &&
            !slice_equal(cursor->entry.key, v->table.properties.smallest))
            report(v, handle->offset, "smallest key is not the one in the properties");
        RETURN_IF_FAILED(keep(&v->last_key, cursor->entry.key));
        v->last_lsn = cursor->entry.lsn;
        v->have_last = true;
        sound = block_cursor_next(cursor);
    }
    if (cursor->no_memory)
        return AIDB_NO_MEMORY;
    if (!sound)
        problem = "data block makes no sense";
    if (problem != NULL) {
        report(v, handle->offset, problem);
        v->data_damaged = true;
    }
    return AIDB_OK;
}

/* Checks the data blocks below one index block. */
static Status verify_leaf(Verifier *v, const IndexView *leaf, uint64_t leaf_offset)
{
    for (uint32_t i = 0; i < leaf->count; i++) {
        BlockHandle handle;
        uint64_t lsn = 0;
        IndexRead read = index_separator_at(leaf, i, &v->separator, &lsn);
        if (read == INDEX_NO_MEMORY)
            return AIDB_NO_MEMORY;
        if (read != INDEX_OK || !index_handle(leaf, i, &handle)) {
            report(v, leaf_offset, "index block makes no sense");
            v->data_damaged = true;
            v->gaps_known = false;
            return AIDB_OK;
        }
        Slice separator = buffer_slice(&v->separator);
        if (v->have_bound &&
            entry_compare(buffer_slice(&v->bound), v->bound_lsn, separator, lsn) >= 0)
            report(v, leaf_offset, "separators are out of order");
        uint32_t found = 0;
        if (!index_find(leaf, separator, lsn, &found) || found != i)
            report(v, leaf_offset, "a search of the index does not find its own separator");
        expect_at(v, handle.offset, handle.size);
        if (handle.offset > TABLE_HEADER_SIZE + v->info->data_size)
            report(v, leaf_offset, "index leads behind the data");
        RETURN_IF_FAILED(verify_data_block(v, &handle, separator, lsn));
        RETURN_IF_FAILED(keep(&v->bound, separator));
        v->bound_lsn = lsn;
        v->have_bound = true;
    }
    return AIDB_OK;
}

/* One index block and what is below it. */
static Status verify_index_block(Verifier *v, const BlockHandle *handle, BlockKind kind,
                                 Buffer *payload, IndexView *view, bool *good)
{
    RETURN_IF_FAILED(verify_block(v, kind, handle, payload, good));
    if (*good && !index_view_init(view, buffer_slice(payload))) {
        report(v, handle->offset, "index block makes no sense");
        *good = false;
    }
    return AIDB_OK;
}

/* Data and index. The index stands behind the data, so the parts in between are checked first. */
static Status verify_data(Verifier *v, uint64_t *index_start)
{
    const TableInfo *info = v->info;
    BlockHandle root = {.offset = info->index_offset, .size = info->index_size};
    IndexView view;
    bool good = false;
    *index_start = root.offset;
    v->expected_offset = TABLE_HEADER_SIZE;
    v->gaps_known = true;
    if (info->index_levels == 1) {
        RETURN_IF_FAILED(
            verify_index_block(v, &root, BLOCK_INDEX, &v->index_payload, &view, &good));
        v->data_damaged |= !good;
        return good ? verify_leaf(v, &view, root.offset) : AIDB_OK;
    }

    RETURN_IF_FAILED(verify_index_block(v, &root, BLOCK_INDEX_TOP, &v->top_payload, &view, &good));
    v->data_damaged |= !good;
    if (!good)
        return AIDB_OK;
    uint64_t partition_end = 0;
    Buffer top_separator = {0};
    Status status = AIDB_OK;
    for (uint32_t i = 0; i < view.count; i++) {
        BlockHandle handle;
        uint64_t lsn = 0;
        if (!index_handle(&view, i, &handle) ||
            index_separator_at(&view, i, &top_separator, &lsn) != INDEX_OK) {
            report(v, root.offset, "index block makes no sense");
            v->data_damaged = true;
            break;
        }
        if (i == 0)
            *index_start = handle.offset;
        else if (handle.offset != partition_end)
            report(v, partition_end, "parts of the table do not follow each other");
        partition_end = handle.offset + handle.size;
        IndexView leaf;
        OUT_IF_FAILED(verify_index_block(v, &handle, BLOCK_INDEX, &v->index_payload, &leaf, &good));
        if (!good) {
            v->data_damaged = true;
            v->gaps_known = false;
        } else {
            OUT_IF_FAILED(verify_leaf(v, &leaf, handle.offset));
            if (!slice_equal(buffer_slice(&top_separator), buffer_slice(&v->bound)) ||
                lsn != v->bound_lsn)
                report(v, root.offset, "top index and partition disagree about a separator");
        }
        OUT_IF_FAILED(keep(&v->bound, buffer_slice(&top_separator)));
        v->bound_lsn = lsn;
        v->have_bound = true;
    }
    if (view.count > 0 && partition_end != root.offset)
        report(v, partition_end, "parts of the table do not follow each other");
out:
    buffer_deinit(&top_separator);
    return status;
}

static Status verify_totals(Verifier *v)
{
    const TableInfo *info = v->info;
    if (v->data_damaged)
        return AIDB_OK;
    uint64_t offset = v->table.properties_handle.offset;
    if (v->entries != info->entries || v->deletes != info->deletes ||
        v->raw_bytes != info->raw_bytes)
        report(v, offset, "counts of the properties are not those of the data");
    if (v->expected_offset != TABLE_HEADER_SIZE + info->data_size)
        report(v, v->expected_offset, "data ends elsewhere than the properties say");
    if (v->have_last && !slice_equal(buffer_slice(&v->last_key), v->table.properties.largest))
        report(v, offset, "greatest key is not the one in the properties");
    return AIDB_OK;
}

static Status verify_fragments(Verifier *v)
{
    const TableInfo *info = v->info;
    if (info->range_size == 0) {
        if (info->range_deletes != 0)
            report(v, v->table.properties_handle.offset, "range tombstones are missing");
        return AIDB_OK;
    }
    BlockHandle root = {.offset = info->range_offset, .size = info->range_size};
    IndexView top;
    bool good = false;
    RETURN_IF_FAILED(verify_index_block(v, &root, BLOCK_RANGE_TOP, &v->top_payload, &top, &good));
    if (!good) {
        v->gaps_known = false;
        expect_at(v, root.offset, root.size);
        return AIDB_OK;
    }
    uint64_t fragments = 0;
    Buffer last_to = {0};
    bool unbounded = false;
    bool damaged = false;
    Status status = AIDB_OK;
    for (uint32_t i = 0; i < top.count; i++) {
        BlockHandle handle;
        if (!index_handle(&top, i, &handle)) {
            report(v, root.offset, "index of range tombstones makes no sense");
            v->gaps_known = false;
            damaged = true;
            break;
        }
        expect_at(v, handle.offset, handle.size);
        OUT_IF_FAILED(verify_block(v, BLOCK_RANGE, &handle, &v->payload, &good));
        RangeView view;
        damaged |= !good;
        if (good && !range_view_init(&view, buffer_slice(&v->payload))) {
            report(v, handle.offset, "block of range tombstones makes no sense");
            damaged = true;
            continue;
        }
        for (uint32_t j = 0; good && j < view.count; j++) {
            RangeItem item;
            good = range_view_item(&view, j, &item) &&
                   (item.to.size == 0 || slice_compare(item.from, item.to) < 0) &&
                   (fragments == 0 || damaged ||
                    (!unbounded && slice_compare(buffer_slice(&last_to), item.from) <= 0));
            for (uint32_t k = 0; good && k < item.lsn_count; k++) {
                uint64_t lsn = get_fixed64(item.lsns + (size_t)k * 8);
                good = lsn >= info->lsn_min && lsn <= info->lsn_max &&
                       (k == 0 || lsn < get_fixed64(item.lsns + (size_t)(k - 1) * 8));
                if (lsn > v->lsn_max)
                    v->lsn_max = lsn;
            }
            if (!good) {
                report(v, handle.offset, "range tombstones are out of order");
                damaged = true;
                break;
            }
            fragments++;
            unbounded = item.to.size == 0;
            OUT_IF_FAILED(keep(&last_to, item.to));
        }
    }
    expect_at(v, root.offset, root.size);
    if (!damaged && fragments != info->range_deletes)
        report(v, root.offset, "number of range tombstones is not that of the properties");
    v->data_damaged |= damaged;
out:
    buffer_deinit(&last_to);
    return status;
}

static bool same_info(const TableInfo *a, const TableInfo *b)
{
    Buffer encoded[2] = {{0}, {0}};
    bool same = table_info_encode(a, &encoded[0]) == AIDB_OK &&
                table_info_encode(b, &encoded[1]) == AIDB_OK &&
                slice_equal(buffer_slice(&encoded[0]), buffer_slice(&encoded[1]));
    buffer_deinit(&encoded[0]);
    buffer_deinit(&encoded[1]);
    return same;
}

static Status verify(Verifier *v, const uint8_t *system_id, const TableInfo *expected)
{
    RETURN_IF_FAILED(open_table(v->path, &v->table));
    if (v->table.what != NULL) {
        report(v, v->table.bad_offset, v->table.what);
        if (expected == NULL || v->table.bad_offset < TABLE_HEADER_SIZE)
            return AIDB_OK;
        /* The manifest knows what the footer and properties said: the rest can still be checked. */
        uint64_t size = 0;
        RETURN_IF_FAILED(file_size(&v->table.file, &size));
        if (size != expected->file_size || !table_info_sane(expected))
            return AIDB_OK;
        v->table.properties = (TableProperties){.info = *expected};
        v->data_damaged = true;
    } else if (expected != NULL && !same_info(expected, &v->table.properties.info)) {
        report(v, v->table.properties_handle.offset,
               "table is not the one that the manifest names");
    }
    v->info = &v->table.properties.info;
    uint64_t number = 0;
    if (number_of_path(v->path, &number) && number != v->info->number)
        report(v, 0, "table has the name of another");
    const char *what = NULL;
    RETURN_IF_FAILED(check_header(&v->table, system_id, &what));
    if (what != NULL)
        report(v, 0, what);

    bool properties_known = v->table.what == NULL;
    RETURN_IF_FAILED(verify_dictionary(v));
    RETURN_IF_FAILED(verify_filter(v));
    uint64_t index_start = 0;
    RETURN_IF_FAILED(verify_data(v, &index_start));
    v->data_damaged |= !properties_known;
    RETURN_IF_FAILED(verify_totals(v));

    v->expected_offset = TABLE_HEADER_SIZE + v->info->data_size;
    v->gaps_known = true;
    if (v->info->dictionary_size > 0)
        expect_at(v, v->info->dictionary_offset, v->info->dictionary_size);
    if (v->info->filter_sections > 0)
        expect_at(v, v->info->filter_offset,
                  (uint64_t)v->info->filter_sections * v->info->filter_section_size);
    RETURN_IF_FAILED(verify_fragments(v));
    expect_at(v, index_start, v->info->index_offset + v->info->index_size - index_start);
    if (v->info->dictionary_size > 0)
        expect_at(v, table_dictionary_copy(v->info), v->info->dictionary_size);
    if (properties_known)
        expect_at(v, v->table.properties_handle.offset, v->table.properties_handle.size);
    if (!v->data_damaged && v->lsn_max != v->info->lsn_max &&
        (v->entries > 0 || v->info->range_deletes > 0))
        report(v, v->table.properties_handle.offset,
               "greatest LSN is not the one in the properties");
    return AIDB_OK;
}

Status table_verify(const char *path, const uint8_t *system_id, const TableInfo *expected,
                    TableDamage damage, void *arg)
{
    Verifier v = {.table = {.file = FILE_CLOSED}, .path = path, .report = damage, .arg = arg};
    Status status = verify(&v, system_id, expected);
    close_table(&v.table);
    buffer_deinit(&v.stored);
    buffer_deinit(&v.payload);
    buffer_deinit(&v.index_payload);
    buffer_deinit(&v.top_payload);
    buffer_deinit(&v.separator);
    buffer_deinit(&v.filter);
    free(v.filter_good);
    decompressor_destroy(v.decompressor);
    free(v.dictionary_memory);
    block_cursor_deinit(&v.cursor);
    buffer_deinit(&v.last_key);
    buffer_deinit(&v.bound);
    return status;
}
