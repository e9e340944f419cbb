/*
 * table_salvage.c - reads what is left of a damaged table.
 *
 * Blocks are found through the index as far as it can be read. Where it cannot, the bytes are searched
 * for blocks: a block does not say how long it is in front, but its trailer does when it is stored
 * uncompressed, and a compressed one begins in a recognisable way. What looks like a block is one only
 * if its checksum is right, and that is seeded with the table's random id and the offset: neither old
 * bytes nor a value that looks like a block can be taken for one.
 *
 * Nothing is believed without its checksum; what is passed over is reported with its place and, as
 * far as the neighbours tell, with the keys that it may have held. Blocks come in the order of the file,
 * which is that of the keys, so entries come out sorted.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include <stdlib.h>

#define PLAIN_SEARCH \
    (1u << 20) /* more than the uncompressed part of any block that is not one huge entry */

/* A run of the file: a block, or bytes in which none was found. */
typedef struct Piece {
    uint64_t offset;
    uint64_t size;
    size_t bound_at; /* its separator in `bounds` */
    uint32_t bound_size;
    bool bounded; /* the index told the separator */
    bool lost;    /* no block */
    uint8_t kind;
} Piece;

/* Data that was passed over, until the next good block tells where it ends. */
typedef struct Pending {
    bool any;
    bool has_from;
    bool has_to;
    uint64_t offset;
    uint64_t end;
    const char *what;
    Buffer from;
    Buffer to;
} Pending;

struct TableSalvage {
    char *path;
    File file;
    uint64_t size; /* of the file as it is */
    TableInfo info;
    bool known; /* all of `info` is: places and LSNs */
    TableLossReport report;
    void *arg;
    Buffer stored;
    Buffer payload;
    TableDecompressor *decompressor;
    void *dictionary_memory;
    const Dictionary *dictionary; /* NULL: none was found */
    Buffer smallest;              /* point keys, as the properties say; empty: not known */
    Buffer largest;
    Buffer bounds;
    Piece *pieces;
    size_t piece_count;
    size_t piece_capacity;

    /* Reading. */
    size_t next_piece;
    BlockCursor cursor;
    bool in_block;
    bool have_last;
    Buffer last_key;
    uint64_t last_lsn;
    Pending pending;
};

static Status no_memory(void)
{
    return status_set(AIDB_NO_MEMORY, "out of memory for reading a damaged table");
}

static Status replace_bytes(Buffer *buffer, Slice bytes)
{
    buffer_clear(buffer);
    return buffer_append(buffer, bytes.data, bytes.size);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Reads a block whose place is known. *good: it is whole, and `payload` holds it. */
static Status read_block(TableSalvage *s, BlockKind kind, uint64_t offset, uint64_t size,
                         Buffer *payload, bool *good)
{
    *good = false;
    if (size < TRAILER_SIZE || offset < TABLE_HEADER_SIZE || offset > s->size ||
        size > s->size - offset)
        return AIDB_OK;
    buffer_clear(&s->stored);
    RETURN_IF_FAILED(buffer_reserve(&s->stored, (size_t)size + 1));
    Status status = file_read_at(&s->file, offset, s->stored.data, (size_t)size);
    if (status == AIDB_IO || status == AIDB_CORRUPTION)
        return AIDB_OK; /* the disk cannot give it: as good as damaged */
    RETURN_IF_FAILED(status);
    BlockTrailer trailer;
    if (block_check(s->info.id, offset, s->stored.data, (size_t)size, kind, &trailer) != NULL)
        return AIDB_OK;
    buffer_clear(payload);
    RETURN_IF_FAILED(buffer_reserve(payload, (size_t)trailer.raw_size + 1));
    payload->size = trailer.raw_size;
    size_t packed = (size_t)size - TRAILER_SIZE;
    if (s->decompressor == NULL && (s->decompressor = decompressor_create()) == NULL)
        return no_memory();
    *good = block_unpack(s->decompressor, &trailer, s->dictionary, s->stored.data, packed,
                         payload->data) == NULL;
    return AIDB_OK;
}

/* Makes the dictionary at this place ready, if it is one: blocks that need it come later. */
static Status take_dictionary(TableSalvage *s, uint64_t offset, uint64_t size)
{
    bool good;
    RETURN_IF_FAILED(read_block(s, BLOCK_DICTIONARY, offset, size, &s->payload, &good));
    if (!good || s->dictionary != NULL)
        return AIDB_OK;
    size_t room = dictionary_room(s->payload.size);
    s->dictionary_memory = malloc(room);
    if (s->dictionary_memory == NULL)
        return no_memory();
    s->dictionary = dictionary_init(s->dictionary_memory, room, s->payload.data, s->payload.size);
    if (s->dictionary == NULL) {
        free(s->dictionary_memory);
        s->dictionary_memory = NULL;
    }
    return AIDB_OK;
}

static Status add_piece(TableSalvage *s, const Piece *piece)
{
    if (s->piece_count == s->piece_capacity) {
        size_t capacity = s->piece_capacity == 0 ? 256 : s->piece_capacity * 2;
        Piece *pieces = realloc(s->pieces, capacity * sizeof *pieces);
        if (pieces == NULL)
            return no_memory();
        s->pieces = pieces;
        s->piece_capacity = capacity;
    }
    s->pieces[s->piece_count++] = *piece;
    return AIDB_OK;
}

/* ---- searching bytes for blocks ---------------------------------------------------------------- */

/* Whether the bytes [at, tail) of `data`, which stands at `base` in the file, are a stored block whose
 * trailer is at `tail`. */
static bool is_block(const TableSalvage *s, uint64_t base, const uint8_t *data, size_t at,
                     size_t tail, uint8_t *kind)
{
    uint32_t raw_size = get_fixed32(data + tail);
    *kind = data[tail + 8] >> 4;
    if (*kind < BLOCK_DATA || *kind > BLOCK_DICTIONARY || raw_size > BLOCK_RAW_MAX)
        return false;
    return table_checksum(s->info.id, base + at, data + at, tail - at + 9) ==
           get_fixed64(data + tail + 9);
}

/* Where the trailer of the block is whose zstd frame ends at `at`: behind as many bytes that are not
 * compressed as it says itself. */
static size_t find_trailer(const TableSalvage *s, uint64_t base, const uint8_t *data, size_t start,
                           size_t at, size_t end, uint8_t *kind)
{
    for (size_t plain = 0; plain <= PLAIN_SEARCH && at + plain + TRAILER_SIZE <= end; plain++) {
        const uint8_t *tail = data + at + plain;
        if (get_fixed32(tail + 4) == plain && is_block(s, base, data, start, at + plain, kind))
            return at + plain;
    }
    return SIZE_MAX;
}

/* The first whole block in data[at, end): *start and *size, or *size 0. */
static void find_block(const TableSalvage *s, uint64_t base, const uint8_t *data, size_t at,
                       size_t end, size_t *start, size_t *size, uint8_t *kind)
{
    *size = 0;
    for (size_t q = at; q + TRAILER_SIZE <= end; q++) {
        size_t packed = compressed_size_at(data + q, end - q);
        if (packed > 0) {
            size_t tail = find_trailer(s, base, data, q, q + packed, end, kind);
            if (tail != SIZE_MAX) {
                *start = q;
                *size = tail + TRAILER_SIZE - q;
                return;
            }
        }
        /* Or a trailer, which tells where its block begins. */
        uint32_t raw_size = get_fixed32(data + q);
        uint32_t plain = get_fixed32(data + q + 4);
        uint8_t compression = data[q + 8] & 15;
        size_t found = SIZE_MAX;
        if (compression == COMPRESSION_NONE && raw_size > 0 && raw_size <= q - at) {
            if (is_block(s, base, data, q - raw_size, q, kind))
                found = q - raw_size;
        } else if (compression == COMPRESSION_SNAPPY && raw_size <= BLOCK_RAW_MAX &&
                   plain <= raw_size && plain <= q - at) {
            /* It begins with its size before compression and is not longer than that. */
            uint8_t head[VARINT64_MAX];
            size_t head_size = (size_t)(put_varint(head, raw_size - plain) - head);
            size_t from = q - at > raw_size ? q - raw_size : at;
            for (size_t p = from; found == SIZE_MAX && p + head_size <= q - plain; p++)
                if (memcmp(data + p, head, head_size) == 0 && is_block(s, base, data, p, q, kind))
                    found = p;
        }
        if (found != SIZE_MAX) {
            *start = found;
            *size = q + TRAILER_SIZE - found;
            return;
        }
    }
}

/* Adds what is in the bytes [begin, end) of the file, to which no index leads. */
static Status search_blocks(TableSalvage *s, uint64_t begin, uint64_t end)
{
    uint64_t readable = end < s->size ? end : s->size;
    uint8_t *data = NULL;
    size_t size = readable > begin ? (size_t)(readable - begin) : 0;
    size_t at = 0;
    Status status = AIDB_OK;
    if (size > 0) {
        data = malloc(size);
        if (data == NULL)
            return no_memory();
        status = file_read_at(&s->file, begin, data, size);
        if (status == AIDB_IO || status == AIDB_CORRUPTION) {
            size = 0;
            status = AIDB_OK;
        }
        if (status != AIDB_OK)
            goto out;
    }
    while (at < size) {
        Piece piece = {0};
        size_t start = 0, found = 0;
        find_block(s, begin, data, at, size, &start, &found, &piece.kind);
        if (found == 0)
            break;
        if (start > at)
            OUT_IF_FAILED(
                add_piece(s, &(Piece){.offset = begin + at, .size = start - at, .lost = true}));
        piece.offset = begin + start;
        piece.size = found;
        OUT_IF_FAILED(add_piece(s, &piece));
        if (piece.kind == BLOCK_DICTIONARY)
            OUT_IF_FAILED(take_dictionary(s, piece.offset, piece.size));
        at = start + found;
    }
    if (begin + at < end)
        OUT_IF_FAILED(
            add_piece(s, &(Piece){.offset = begin + at, .size = end - begin - at, .lost = true}));
out:
    free(data);
    return status;
}

/* ---- finding the data -------------------------------------------------------------------------- */

/* The blocks of one index block; *cursor is where the file is accounted for up to. */
static Status add_leaf(TableSalvage *s, const IndexView *leaf, uint64_t *cursor)
{
    uint64_t data_end = TABLE_HEADER_SIZE + s->info.data_size;
    Buffer key = {0};
    Status status = AIDB_OK;
    for (uint32_t i = 0; i < leaf->count; i++) {
        BlockHandle handle;
        uint64_t lsn;
        if (!index_handle(leaf, i, &handle) ||
            index_separator_at(leaf, i, &key, &lsn) != INDEX_OK || handle.offset < *cursor ||
            handle.offset > data_end || handle.size > data_end - handle.offset)
            break;
        if (handle.offset > *cursor)
            OUT_IF_FAILED(search_blocks(s, *cursor, handle.offset));
        Piece piece = {.offset = handle.offset,
                       .size = handle.size,
                       .bound_at = s->bounds.size,
                       .bound_size = (uint32_t)key.size,
                       .bounded = true,
                       .kind = BLOCK_DATA};
        OUT_IF_FAILED(buffer_append(&s->bounds, key.data, key.size));
        OUT_IF_FAILED(add_piece(s, &piece));
        *cursor = handle.offset + handle.size;
    }
out:
    buffer_deinit(&key);
    return status;
}

static Status find_data(TableSalvage *s)
{
    const TableInfo *info = &s->info;
    if (!s->known)
        return search_blocks(s, TABLE_HEADER_SIZE,
                             s->size > TABLE_HEADER_SIZE + TABLE_FOOTER_SIZE
                                 ? s->size - TABLE_FOOTER_SIZE
                                 : TABLE_HEADER_SIZE);
    if (info->dictionary_size > 0)
        RETURN_IF_FAILED(take_dictionary(s, info->dictionary_offset, info->dictionary_size));
    if (info->dictionary_size > 0 && s->dictionary == NULL)
        RETURN_IF_FAILED(take_dictionary(s, table_dictionary_copy(info), info->dictionary_size));
    uint64_t cursor = TABLE_HEADER_SIZE;
    Buffer root_payload = {0};
    Buffer leaf_payload = {0};
    IndexView root, leaf;
    bool good;
    Status status = read_block(s, info->index_levels == 1 ? BLOCK_INDEX : BLOCK_INDEX_TOP,
                               info->index_offset, info->index_size, &root_payload, &good);
    if (status != AIDB_OK)
        goto out;
    good = good && index_view_init(&root, buffer_slice(&root_payload));
    if (good && info->index_levels == 1)
        OUT_IF_FAILED(add_leaf(s, &root, &cursor));
    for (uint32_t i = 0; good && info->index_levels == 2 && i < root.count; i++) {
        BlockHandle handle;
        bool whole = false;
        if (!index_handle(&root, i, &handle))
            break;
        OUT_IF_FAILED(
            read_block(s, BLOCK_INDEX, handle.offset, handle.size, &leaf_payload, &whole));
        if (whole && index_view_init(&leaf, buffer_slice(&leaf_payload)))
            OUT_IF_FAILED(add_leaf(s, &leaf, &cursor));
    }
    if (cursor < TABLE_HEADER_SIZE + info->data_size)
        OUT_IF_FAILED(search_blocks(s, cursor, TABLE_HEADER_SIZE + info->data_size));
out:
    buffer_deinit(&root_payload);
    buffer_deinit(&leaf_payload);
    return status;
}

/* ---- opening ----------------------------------------------------------------------------------- */

/* What the ends of the file say. */
typedef struct Ends {
    bool header;
    bool footer;
    bool properties;
    uint8_t system_id[16];
    TableInfo header_info; /* number and id */
    TableInfo footer_info; /* and file size */
} Ends;

/* Decodes properties that end right before the footer, when the id is known. */
static Status read_properties(TableSalvage *s, uint64_t offset, uint64_t size,
                              const TableInfo *owner, Ends *ends)
{
    Buffer payload = {0};
    TableProperties properties;
    s->info = *owner;
    Status status = read_block(s, BLOCK_PROPERTIES, offset, size, &payload, &ends->properties);
    if (status == AIDB_OK && ends->properties)
        ends->properties = table_properties_decode(buffer_slice(&payload), &properties) &&
                           properties.info.number == owner->number &&
                           properties.info.id[0] == owner->id[0] &&
                           properties.info.id[1] == owner->id[1];
    if (status == AIDB_OK && ends->properties) {
        s->info = properties.info;
        status = replace_bytes(&s->smallest, properties.smallest);
        if (status == AIDB_OK)
            status = replace_bytes(&s->largest, properties.largest);
    }
    buffer_deinit(&payload);
    return status;
}

static Status read_ends(TableSalvage *s, Ends *ends)
{
    uint8_t header[TABLE_HEADER_SIZE];
    uint8_t footer[TABLE_FOOTER_SIZE];
    size_t got = 0;
    BlockHandle handle = {0};
    *ends = (Ends){0};
    if (file_read_some(&s->file, 0, header, sizeof header, &got) == AIDB_OK &&
        got == sizeof header) {
        TableInfo *info = &ends->header_info;
        info->number = get_fixed64(header + 32);
        info->id[0] = get_fixed64(header + 40);
        info->id[1] = get_fixed64(header + 48);
        ends->header = table_header_check(header, NULL, info->number, info->id) == NULL;
        memcpy(ends->system_id, header + 16, sizeof ends->system_id);
    }
    if (s->size >= TABLE_HEADER_SIZE + TABLE_FOOTER_SIZE &&
        file_read_some(&s->file, s->size - sizeof footer, footer, sizeof footer, &got) == AIDB_OK &&
        got == sizeof footer)
        ends->footer = table_footer_decode(footer, s->size, &ends->footer_info, &handle) == NULL;
    if (ends->footer)
        return read_properties(s, handle.offset, handle.size, &ends->footer_info, ends);
    if (!ends->header || s->size < TABLE_HEADER_SIZE + TABLE_FOOTER_SIZE + TRAILER_SIZE)
        return AIDB_OK;
    /* The footer is gone, but the trailer before it tells how long the properties are. */
    uint64_t tail = s->size - TABLE_FOOTER_SIZE - TRAILER_SIZE;
    uint8_t raw[4];
    RETURN_IF_FAILED(file_read_some(&s->file, tail, raw, sizeof raw, &got));
    uint64_t raw_size = got == sizeof raw ? get_fixed32(raw) : 0;
    if (raw_size == 0 || raw_size > tail - TABLE_HEADER_SIZE)
        return AIDB_OK;
    return read_properties(s, tail - raw_size, raw_size + TRAILER_SIZE, &ends->header_info, ends);
}

bool table_owner(const char *path, uint8_t system_id[16])
{
    TableSalvage s = {.file = FILE_CLOSED};
    Ends ends = {0};
    if (file_open(path, FILE_READ, &s.file) == AIDB_OK && file_size(&s.file, &s.size) == AIDB_OK)
        (void)read_ends(&s, &ends);
    memcpy(system_id, ends.system_id, sizeof ends.system_id);
    file_close(&s.file);
    buffer_deinit(&s.stored);
    buffer_deinit(&s.smallest);
    buffer_deinit(&s.largest);
    decompressor_destroy(s.decompressor);
    return ends.header;
}

static bool same_id(const TableInfo *a, const TableInfo *b)
{
    return a->id[0] == b->id[0] && a->id[1] == b->id[1];
}

static Status settle_info(TableSalvage *s, const uint8_t *system_id, const TableInfo *expected)
{
    Ends ends;
    RETURN_IF_FAILED(read_ends(s, &ends));
    if (ends.header && system_id != NULL && memcmp(ends.system_id, system_id, 16) != 0)
        return status_set(AIDB_CORRUPTION, "table belongs to another database");
    if (expected != NULL) {
        bool other = (ends.header && !same_id(&ends.header_info, expected)) ||
                     (ends.footer && !same_id(&ends.footer_info, expected));
        bool own = (ends.header && same_id(&ends.header_info, expected)) ||
                   (ends.footer && same_id(&ends.footer_info, expected));
        if (other && !own)
            return status_set(AIDB_CORRUPTION, "another table lies in its place");
        if (!table_info_sane(expected))
            return status_set(AIDB_CORRUPTION, "what the manifest says about it makes no sense");
        s->info = *expected;
        s->known = true;
        return AIDB_OK;
    }
    s->known = ends.properties;
    if (ends.properties)
        return AIDB_OK;
    if (!ends.header && !ends.footer)
        return status_set(AIDB_CORRUPTION, "neither header nor footer can be read");
    s->info = ends.header ? ends.header_info : ends.footer_info;
    s->info.lsn_min = s->info.lsn_max = 1; /* not known, but blocks know those of their entries */
    return AIDB_OK;
}

Status table_salvage_open(const char *path, const uint8_t *system_id, const TableInfo *expected,
                          TableLossReport report, void *arg, TableSalvage **out)
{
    *out = NULL;
    Status status = AIDB_OK;
    TableSalvage *s = calloc(1, sizeof *s);
    if (s == NULL)
        return no_memory();
    s->file = (File)FILE_CLOSED;
    s->report = report;
    s->arg = arg;
    s->path = strdup(path);
    if (s->path == NULL) {
        status = no_memory();
        goto out;
    }
    OUT_IF_FAILED(file_open(path, FILE_READ, &s->file));
    OUT_IF_FAILED(file_size(&s->file, &s->size));
    OUT_IF_FAILED(table_check_format(&s->file));
    OUT_IF_FAILED(settle_info(s, system_id, expected));
    *out = s;
    s = NULL;
out:
    table_salvage_close(s);
    return status;
}

void table_salvage_close(TableSalvage *s)
{
    if (s == NULL)
        return;
    file_close(&s->file);
    free(s->path);
    buffer_deinit(&s->stored);
    buffer_deinit(&s->payload);
    decompressor_destroy(s->decompressor);
    free(s->dictionary_memory);
    buffer_deinit(&s->smallest);
    buffer_deinit(&s->largest);
    buffer_deinit(&s->bounds);
    free(s->pieces);
    block_cursor_deinit(&s->cursor);
    buffer_deinit(&s->last_key);
    buffer_deinit(&s->pending.from);
    buffer_deinit(&s->pending.to);
    free(s);
}

const TableInfo *table_salvage_info(const TableSalvage *s, bool *known, Slice *smallest,
                                    Slice *largest)
{
    *known = s->known;
    *smallest = buffer_slice(&s->smallest);
    *largest = buffer_slice(&s->largest);
    return &s->info;
}

/* ---- range tombstones --------------------------------------------------------------------------- */

typedef struct RangeRead {
    Status (*visit)(void *arg, const RangeTombstone *tombstone);
    void *arg;
    Buffer payload;
} RangeRead;

static Status visit_range_block(RangeRead *read, bool *sound)
{
    RangeView view;
    *sound = range_view_init(&view, buffer_slice(&read->payload));
    for (uint32_t i = 0; *sound && i < view.count; i++) {
        RangeItem item;
        *sound = range_view_item(&view, i, &item);
        for (uint32_t j = 0; *sound && j < item.lsn_count; j++)
            RETURN_IF_FAILED(read->visit(
                read->arg, &(RangeTombstone){.from = item.from,
                                             .to = item.to,
                                             .lsn = get_fixed64(item.lsns + (size_t)j * 8)}));
    }
    return AIDB_OK;
}

static void lost_ranges(TableSalvage *s, uint64_t offset, uint64_t size, const char *what)
{
    if (s->report != NULL)
        s->report(s->arg, &(TableLoss){.path = s->path,
                                       .offset = offset,
                                       .size = size,
                                       .what = what,
                                       .range_deletes = true});
}

/* One block of range tombstones. */
static Status take_ranges(TableSalvage *s, RangeRead *read, uint64_t offset, uint64_t size)
{
    bool good;
    RETURN_IF_FAILED(read_block(s, BLOCK_RANGE, offset, size, &read->payload, &good));
    if (good)
        RETURN_IF_FAILED(visit_range_block(read, &good));
    if (!good)
        lost_ranges(s, offset, size, "range deletes are damaged");
    return AIDB_OK;
}

/* All blocks of range tombstones between two places, found by searching. */
static Status search_ranges(TableSalvage *s, RangeRead *read, uint64_t begin, uint64_t end,
                            bool report_gaps)
{
    size_t count = s->piece_count;
    RETURN_IF_FAILED(search_blocks(s, begin, end));
    for (size_t i = count; i < s->piece_count; i++) {
        Piece piece = s->pieces[i];
        if (piece.lost && report_gaps)
            lost_ranges(s, piece.offset, piece.size, "range deletes are damaged");
        else if (!piece.lost && piece.kind == BLOCK_RANGE)
            RETURN_IF_FAILED(take_ranges(s, read, piece.offset, piece.size));
    }
    s->piece_count = count;
    return AIDB_OK;
}

Status table_salvage_ranges(TableSalvage *s,
                            Status (*visit)(void *arg, const RangeTombstone *tombstone), void *arg)
{
    const TableInfo *info = &s->info;
    RangeRead read = {.visit = visit, .arg = arg};
    Buffer root = {0};
    IndexView top;
    bool good;
    Status status = AIDB_OK;
    if (!s->known) {
        /* Gaps are reported once, with the data. */
        status = search_ranges(s, &read, TABLE_HEADER_SIZE, s->size, false);
        goto out;
    }
    if (info->range_size == 0)
        return AIDB_OK;
    OUT_IF_FAILED(
        read_block(s, BLOCK_RANGE_TOP, info->range_offset, info->range_size, &root, &good));
    if (good && index_view_init(&top, buffer_slice(&root))) {
        for (uint32_t i = 0; i < top.count; i++) {
            BlockHandle handle;
            if (!index_handle(&top, i, &handle)) {
                lost_ranges(s, info->range_offset, info->range_size,
                            "the index of range deletes makes no sense");
                break;
            }
            OUT_IF_FAILED(take_ranges(s, &read, handle.offset, handle.size));
        }
        goto out;
    }
    uint64_t begin =
        info->filter_sections > 0
            ? info->filter_offset + (uint64_t)info->filter_sections * info->filter_section_size
            : TABLE_HEADER_SIZE + info->data_size;
    if (begin < info->range_offset)
        OUT_IF_FAILED(search_ranges(s, &read, begin, info->range_offset, true));
out:
    buffer_deinit(&read.payload);
    buffer_deinit(&root);
    return status;
}

/* ---- entries ------------------------------------------------------------------------------------ */

static Slice piece_bound(const TableSalvage *s, const Piece *piece)
{
    if (piece->bound_size == 0) /* perhaps the only one, and then `bounds` has no memory */
        return slice_make("", 0);
    return slice_make(s->bounds.data + piece->bound_at, piece->bound_size);
}

/* Remembers that a piece gave nothing. */
static Status pass_over(TableSalvage *s, size_t index, const char *what)
{
    const Piece *piece = &s->pieces[index];
    Pending *pending = &s->pending;
    if (!pending->any) {
        const Piece *before = index > 0 ? &s->pieces[index - 1] : NULL;
        *pending = (Pending){.any = true,
                             .offset = piece->offset,
                             .what = what,
                             .from = pending->from,
                             .to = pending->to};
        if (before != NULL && before->bounded) {
            pending->has_from = true;
            RETURN_IF_FAILED(replace_bytes(&pending->from, piece_bound(s, before)));
        } else if (s->have_last) {
            pending->has_from = true;
            RETURN_IF_FAILED(replace_bytes(&pending->from, buffer_slice(&s->last_key)));
        }
    }
    pending->end = piece->offset + piece->size;
    pending->has_to = piece->bounded;
    if (piece->bounded)
        RETURN_IF_FAILED(replace_bytes(&pending->to, piece_bound(s, piece)));
    return AIDB_OK;
}

/* Reports what was passed over; `next` is the first key behind it, if there is one. */
static void settle_pending(TableSalvage *s, const Slice *next)
{
    Pending *pending = &s->pending;
    if (!pending->any)
        return;
    TableLoss loss = {.path = s->path,
                      .offset = pending->offset,
                      .size = pending->end - pending->offset,
                      .what = pending->what,
                      .entries = true,
                      .range_deletes = !s->known,
                      .has_from = pending->has_from,
                      .from = buffer_slice(&pending->from),
                      .has_to = pending->has_to || next != NULL,
                      .to = pending->has_to ? buffer_slice(&pending->to)
                                            : (next != NULL ? *next : (Slice){0})};
    pending->any = false;
    if (s->report != NULL)
        s->report(s->arg, &loss);
}

/* Goes to the first entry of the next block that can be read; `in_block` false: there is none. */
static Status enter_block(TableSalvage *s)
{
    s->in_block = false;
    while (s->next_piece < s->piece_count) {
        size_t index = s->next_piece++;
        const Piece *piece = &s->pieces[index];
        if (piece->lost) {
            RETURN_IF_FAILED(pass_over(s, index,
                                       piece->offset + piece->size > s->size
                                           ? "the file ends before its data"
                                           : "no block can be read here"));
            continue;
        }
        if (piece->kind != BLOCK_DATA)
            continue;
        bool good;
        RETURN_IF_FAILED(read_block(s, BLOCK_DATA, piece->offset, piece->size, &s->payload, &good));
        BlockCursor *cursor = &s->cursor;
        good = good && block_cursor_init(cursor, buffer_slice(&s->payload)) &&
               block_cursor_first(cursor) && cursor->valid;
        if (cursor->no_memory)
            return no_memory();
        if (!good) {
            RETURN_IF_FAILED(pass_over(s, index, "a data block is damaged"));
            continue;
        }
        settle_pending(s, &cursor->entry.key);
        s->in_block = true;
        return AIDB_OK;
    }
    settle_pending(s, NULL);
    return AIDB_OK;
}

Status table_salvage_first(TableSalvage *s, const Entry **entry)
{
    *entry = NULL;
    s->piece_count = 0;
    s->next_piece = 0;
    s->have_last = false;
    s->pending.any = false;
    buffer_clear(&s->bounds);
    RETURN_IF_FAILED(find_data(s));
    RETURN_IF_FAILED(enter_block(s));
    if (s->in_block)
        *entry = &s->cursor.entry;
    return AIDB_OK;
}

Status table_salvage_next(TableSalvage *s, const Entry **entry)
{
    *entry = NULL;
    if (!s->in_block)
        return AIDB_OK;
    RETURN_IF_FAILED(replace_bytes(&s->last_key, s->cursor.entry.key));
    s->last_lsn = s->cursor.entry.lsn;
    s->have_last = true;
    bool sound = block_cursor_next(&s->cursor);
    if (s->cursor.no_memory)
        return no_memory();
    if (!sound)
        RETURN_IF_FAILED(pass_over(s, s->next_piece - 1, "a data block makes no sense"));
    if (!sound || !s->cursor.valid)
        RETURN_IF_FAILED(enter_block(s));
    /* No table is written out of order: what is left of such a block is not believed. */
    while (s->in_block && entry_compare(buffer_slice(&s->last_key), s->last_lsn,
                                        s->cursor.entry.key, s->cursor.entry.lsn) >= 0) {
        RETURN_IF_FAILED(pass_over(s, s->next_piece - 1, "entries are out of order"));
        RETURN_IF_FAILED(enter_block(s));
    }
    if (s->in_block)
        *entry = &s->cursor.entry;
    return AIDB_OK;
}
