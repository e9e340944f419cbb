/*
 * table_format.c - header, footer, properties and checksums of a table file, and its name.
 *
 * The checksum of every part is seeded with the table's random id and the part's offset: bytes that
 * were moved inside the file, or come from another table, fail as surely as flipped ones. Header and
 * footer carry the id that seeds them; a flip there changes the seed and is found as well.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include "common/hash.h"

#include <inttypes.h>
#include <stdio.h>

static const uint8_t header_magic[8] = {'A', 'i', 'D', 'b', 'S', 'S', 'T', 0x1a};
static const uint8_t footer_magic[8] = {'A', 'i', 'D', 'b', 'S', 'S', 'T', 0x0a};

/* ---- names ----------------------------------------------------------------------------------- */

void table_name(uint64_t number, char name[TABLE_NAME_SIZE])
{
    snprintf(name, TABLE_NAME_SIZE, "%08" PRIx32 "-%06llu.sst", TABLE_TERM(number),
             (unsigned long long)TABLE_SEQUENCE(number));
}

bool table_name_parse(const char *name, uint64_t *number)
{
    *number = 0;
    uint64_t term = 0;
    uint64_t sequence = 0;
    const char *at = name;
    for (int i = 0; i < 8; i++, at++) {
        if (*at >= '0' && *at <= '9')
            term = term << 4 | (uint64_t)(*at - '0');
        else if (*at >= 'a' && *at <= 'f')
            term = term << 4 | (uint64_t)(*at - 'a' + 10);
        else
            return false;
    }
    if (*at++ != '-')
        return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        sequence = sequence * 10 + (uint64_t)(*at - '0');
        if (sequence > TABLE_SEQUENCE(UINT64_MAX))
            return false;
    }
    if (strcmp(at, ".sst") != 0 || term > UINT32_MAX >> 8)
        return false;

    /* Only the one spelling that table_name writes is a table's name. */
    char again[TABLE_NAME_SIZE];
    table_name(TABLE_NUMBER(term, sequence), again);
    if (strcmp(name, again) != 0)
        return false;
    *number = TABLE_NUMBER(term, sequence);
    return true;
}

/* ---- checksums ------------------------------------------------------------------------------- */

uint64_t table_checksum(const uint64_t id[2], uint64_t offset, const void *data, size_t size)
{
    return hash64(data, size, hash_mix(id[0] ^ offset, id[1]));
}

const char *block_check(const uint64_t id[2], uint64_t offset, const uint8_t *stored, size_t size,
                        BlockKind kind, BlockTrailer *trailer)
{
    if (size < TRAILER_SIZE)
        return "block is smaller than its trailer";
    const uint8_t *tail = stored + size - TRAILER_SIZE;
    if (table_checksum(id, offset, stored, size - 8) != get_fixed64(tail + 9))
        return "checksum mismatch";
    trailer->raw_size = get_fixed32(tail);
    trailer->plain = get_fixed32(tail + 4);
    trailer->kind = tail[8] >> 4;
    trailer->compression = tail[8] & 15;
    if (trailer->kind != kind)
        return "block is of another kind";
    if (trailer->raw_size > BLOCK_RAW_MAX)
        return "block is too large";
    if (trailer->compression == COMPRESSION_NONE && trailer->raw_size != size - TRAILER_SIZE)
        return "block has another size than it says";
    if (trailer->plain > trailer->raw_size || trailer->plain > size - TRAILER_SIZE)
        return "block has a larger part than its size";
    return NULL;
}

/* ---- header and footer ----------------------------------------------------------------------- */

void table_header_encode(uint8_t header[TABLE_HEADER_SIZE], const uint8_t system_id[16],
                         uint64_t number, const uint64_t id[2])
{
    memcpy(header, header_magic, 8);
    put_fixed32(header + 8, TABLE_VERSION);
    put_fixed32(header + 12, TABLE_HEADER_SIZE);
    memcpy(header + 16, system_id, 16);
    put_fixed64(header + 32, number);
    put_fixed64(header + 40, id[0]);
    put_fixed64(header + 48, id[1]);
    put_fixed64(header + 56, table_checksum(id, 0, header, 56));
}

static uint64_t header_checksum(const uint8_t header[TABLE_HEADER_SIZE])
{
    uint64_t id[2] = {get_fixed64(header + 40), get_fixed64(header + 48)};
    return table_checksum(id, 0, header, 56);
}

Status table_check_format(const File *file)
{
    uint8_t header[TABLE_HEADER_SIZE];
    size_t got;
    RETURN_IF_FAILED(file_read_some(file, 0, header, sizeof header, &got));
    if (got < sizeof header || memcmp(header, header_magic, 8) != 0 ||
        header_checksum(header) != get_fixed64(header + 56) ||
        get_fixed32(header + 8) == TABLE_VERSION)
        return AIDB_OK;
    return format_unsupported("table file", file->path, get_fixed32(header + 8), TABLE_VERSION);
}

const char *table_header_check(const uint8_t header[TABLE_HEADER_SIZE], const uint8_t *system_id,
                               uint64_t number, const uint64_t id[2])
{
    if (memcmp(header, header_magic, 8) != 0)
        return "header has no magic of a table";
    uint64_t own_id[2] = {get_fixed64(header + 40), get_fixed64(header + 48)};
    if (header_checksum(header) != get_fixed64(header + 56))
        return "checksum mismatch in header";
    if (get_fixed32(header + 8) != TABLE_VERSION)
        return "format version of header is not known";
    if (get_fixed32(header + 12) != TABLE_HEADER_SIZE)
        return "header has another size";
    if (own_id[0] != id[0] || own_id[1] != id[1] || get_fixed64(header + 32) != number)
        return "header belongs to another table";
    if (system_id != NULL && memcmp(header + 16, system_id, 16) != 0)
        return "table belongs to another database";
    return NULL;
}

void table_footer_encode(uint8_t footer[TABLE_FOOTER_SIZE], uint64_t number, const uint64_t id[2],
                         uint64_t file_size, uint64_t properties_offset, uint32_t properties_size)
{
    put_fixed64(footer, properties_offset);
    put_fixed32(footer + 8, properties_size);
    put_fixed32(footer + 12, TABLE_VERSION);
    put_fixed64(footer + 16, file_size);
    put_fixed64(footer + 24, id[0]);
    put_fixed64(footer + 32, id[1]);
    put_fixed64(footer + 40, number);
    memcpy(footer + 48, footer_magic, 8);
    put_fixed64(footer + 56, table_checksum(id, file_size - TABLE_FOOTER_SIZE, footer, 56));
}

const char *table_footer_decode(const uint8_t footer[TABLE_FOOTER_SIZE], uint64_t actual_size,
                                TableInfo *info, BlockHandle *properties)
{
    *info = (TableInfo){0};
    *properties = (BlockHandle){0};
    if (memcmp(footer + 48, footer_magic, 8) != 0)
        return "footer has no magic of a table";
    uint64_t id[2] = {get_fixed64(footer + 24), get_fixed64(footer + 32)};
    if (table_checksum(id, actual_size - TABLE_FOOTER_SIZE, footer, 56) != get_fixed64(footer + 56))
        return "checksum mismatch in footer";
    if (get_fixed32(footer + 12) != TABLE_VERSION)
        return "format version of footer is not known";
    uint64_t offset = get_fixed64(footer);
    uint32_t size = get_fixed32(footer + 8);
    if (get_fixed64(footer + 16) != actual_size)
        return "file has another size than its footer says";
    if (offset < TABLE_HEADER_SIZE || offset > actual_size - TABLE_FOOTER_SIZE ||
        size != actual_size - TABLE_FOOTER_SIZE - offset)
        return "footer names a place outside the file";
    info->number = get_fixed64(footer + 40);
    info->id[0] = id[0];
    info->id[1] = id[1];
    info->file_size = actual_size;
    *properties = (BlockHandle){.offset = offset, .size = size, .raw = true};
    return NULL;
}

/* ---- info and properties --------------------------------------------------------------------- */

Status table_info_encode(const TableInfo *info, Buffer *to)
{
    RETURN_IF_FAILED(buffer_reserve(to, 16 + 20 * VARINT64_MAX));
    uint8_t *at = to->data + to->size;
    at = put_varint(at, info->number);
    put_fixed64(at, info->id[0]);
    put_fixed64(at + 8, info->id[1]);
    at += 16;
    at = put_varint(at, info->file_size);
    at = put_varint(at, info->lsn_min);
    at = put_varint(at, info->lsn_max);
    at = put_varint(at, info->entries);
    at = put_varint(at, info->deletes);
    at = put_varint(at, info->range_deletes);
    at = put_varint(at, info->raw_bytes);
    at = put_varint(at, info->data_size);
    at = put_varint(at, info->index_offset);
    at = put_varint(at, info->index_size);
    at = put_varint(at, info->index_levels);
    at = put_varint(at, info->filter_offset);
    at = put_varint(at, info->filter_section_size);
    at = put_varint(at, info->filter_sections);
    at = put_varint(at, info->range_offset);
    at = put_varint(at, info->range_size);
    at = put_varint(at, info->dictionary_offset);
    at = put_varint(at, info->dictionary_size);
    to->size = (size_t)(at - to->data);
    return AIDB_OK;
}

const uint8_t *table_info_decode(const uint8_t *from, const uint8_t *end, TableInfo *info)
{
    *info = (TableInfo){0};
    from = decode_varint64(from, end, &info->number);
    from = decode_fixed64(from, end, &info->id[0]);
    from = decode_fixed64(from, end, &info->id[1]);
    from = decode_varint64(from, end, &info->file_size);
    from = decode_varint64(from, end, &info->lsn_min);
    from = decode_varint64(from, end, &info->lsn_max);
    from = decode_varint64(from, end, &info->entries);
    from = decode_varint64(from, end, &info->deletes);
    from = decode_varint64(from, end, &info->range_deletes);
    from = decode_varint64(from, end, &info->raw_bytes);
    from = decode_varint64(from, end, &info->data_size);
    from = decode_varint64(from, end, &info->index_offset);
    from = decode_varint32(from, end, &info->index_size);
    from = decode_varint32(from, end, &info->index_levels);
    from = decode_varint64(from, end, &info->filter_offset);
    from = decode_varint32(from, end, &info->filter_section_size);
    from = decode_varint32(from, end, &info->filter_sections);
    from = decode_varint64(from, end, &info->range_offset);
    from = decode_varint32(from, end, &info->range_size);
    from = decode_varint64(from, end, &info->dictionary_offset);
    from = decode_varint32(from, end, &info->dictionary_size);
    return from;
}

/* Whether [offset, offset + size) lies between header and footer. */
static bool place_is_inside(const TableInfo *info, uint64_t offset, uint64_t size)
{
    uint64_t end = info->file_size - TABLE_FOOTER_SIZE;
    return offset >= TABLE_HEADER_SIZE && offset <= end && size <= end - offset;
}

bool table_info_sane(const TableInfo *info)
{
    if (info->file_size < TABLE_HEADER_SIZE + TABLE_FOOTER_SIZE || info->file_size > INT64_MAX)
        return false;
    if (info->lsn_min > info->lsn_max || info->deletes > info->entries)
        return false;
    if (!place_is_inside(info, TABLE_HEADER_SIZE, info->data_size) ||
        !place_is_inside(info, info->index_offset, info->index_size) ||
        info->index_size < TRAILER_SIZE)
        return false;
    if (info->index_levels != 1 && info->index_levels != 2)
        return false;
    if (info->range_size > 0 && (!place_is_inside(info, info->range_offset, info->range_size) ||
                                 info->range_size < TRAILER_SIZE))
        return false;
    if (info->dictionary_size > 0 &&
        (!place_is_inside(info, info->dictionary_offset, info->dictionary_size) ||
         info->dictionary_size < TRAILER_SIZE))
        return false;
    if (info->filter_section_size == 0)
        return info->filter_sections == 0;
    return info->filter_sections > 0 && info->filter_section_size > TRAILER_SIZE &&
           place_is_inside(info, info->filter_offset,
                           (uint64_t)info->filter_sections * info->filter_section_size);
}

Status table_properties_encode(const TableProperties *properties, Buffer *to)
{
    RETURN_IF_FAILED(table_info_encode(&properties->info, to));
    RETURN_IF_FAILED(buffer_append_varint(to, properties->block_size));
    RETURN_IF_FAILED(buffer_append_varint(to, properties->compression));
    RETURN_IF_FAILED(buffer_append_varint(to, properties->filter_bits));
    RETURN_IF_FAILED(buffer_append_slice(to, properties->smallest));
    return buffer_append_slice(to, properties->largest);
}

bool table_properties_decode(Slice payload, TableProperties *properties)
{
    *properties = (TableProperties){0};
    const uint8_t *end = payload.data + payload.size;
    const uint8_t *from = table_info_decode(payload.data, end, &properties->info);
    from = decode_varint32(from, end, &properties->block_size);
    from = decode_varint32(from, end, &properties->compression);
    from = decode_varint32(from, end, &properties->filter_bits);
    if (from != NULL)
        from = decode_slice(from, end, &properties->smallest);
    if (from != NULL)
        from = decode_slice(from, end, &properties->largest);
    return from == end && table_info_sane(&properties->info);
}
