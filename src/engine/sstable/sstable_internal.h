/*
 * sstable_internal.h - what the files of this folder share: the layout of a table on disk, and the
 * parts that builder, reader, iterator and verifier are made of. doc/format-sstable.md has the same
 * layout as byte tables.
 *
 * Decoders are total: any bytes give a result or `false`, never a read outside the block. They do
 * not set the error record, because only their callers know file and offset.
 */
#ifndef AIDB_ENGINE_SSTABLE_INTERNAL_H
#define AIDB_ENGINE_SSTABLE_INTERNAL_H

#include "common/coding.h"
#include "engine/sstable/sstable.h"

/* ---- layout ---------------------------------------------------------------------------------- */

#define TABLE_VERSION     2u
#define TABLE_HEADER_SIZE 64u
#define TABLE_FOOTER_SIZE 64u

/* Every block ends with: raw size u32 | plain size u32 | kind << 4 | compression u8 | checksum u64. */
#define TRAILER_SIZE     17u
/* No block is larger before compression: one greatest value and key, or an index of such keys. */
#define BLOCK_RAW_MAX    (256u << 20)
#define RESTART_INTERVAL 16u
#define BLOCK_HEAD       24u /* of a data block, before its restarts */

/* An index larger than this gets two levels, and its partitions are about this large. */
#define INDEX_SINGLE_MAX     (48u << 10)
#define INDEX_PARTITION_SIZE (32u << 10)
#define RANGE_CHUNK_SIZE     (32u << 10)

/* How a block is stored, beyond the values of Compression: zstd with the table's dictionary. */
#define STORED_ZSTD_DICTIONARY 3u

typedef enum BlockKind {
    BLOCK_DATA = 1,
    BLOCK_FILTER = 2,
    BLOCK_RANGE = 3,     /* range tombstone fragments */
    BLOCK_RANGE_TOP = 4, /* index over them */
    BLOCK_INDEX = 5,     /* leads to data blocks */
    BLOCK_INDEX_TOP = 6, /* leads to BLOCK_INDEX */
    BLOCK_PROPERTIES = 7,
    BLOCK_DICTIONARY = 8
} BlockKind;

/* Where a block is. */
typedef struct BlockHandle {
    uint64_t offset;
    uint32_t size; /* as stored, with trailer */
    bool raw;      /* known to be stored uncompressed (a hint for where to read it) */
} BlockHandle;

/* What the properties hold beyond TableInfo. */
typedef struct TableProperties {
    TableInfo info;
    uint32_t block_size;
    uint32_t compression;
    uint32_t filter_bits;
    Slice smallest; /* user keys of point entries; borrowed from the block */
    Slice largest;
} TableProperties;

uint64_t table_checksum(const uint64_t id[2], uint64_t offset, const void *data, size_t size);
void table_header_encode(uint8_t header[TABLE_HEADER_SIZE], const uint8_t system_id[16],
                         uint64_t number, const uint64_t id[2]);
/* NULL when it is right, else what is wrong. `system_id` NULL: any. */
const char *table_header_check(const uint8_t header[TABLE_HEADER_SIZE], const uint8_t *system_id,
                               uint64_t number, const uint64_t id[2]);
void table_footer_encode(uint8_t footer[TABLE_FOOTER_SIZE], uint64_t number, const uint64_t id[2],
                         uint64_t file_size, uint64_t properties_offset, uint32_t properties_size);
/* Reads number, id and file size of `info`, and where the properties are. */
/* AIDB_UNSUPPORTED when the file has a whole header of another format. A damaged header is for `verify` to
 * find: reading needs only the blocks. */
Status table_check_format(const File *file) MUST_CHECK;
const char *table_footer_decode(const uint8_t footer[TABLE_FOOTER_SIZE], uint64_t actual_size,
                                TableInfo *info, BlockHandle *properties);
Status table_properties_encode(const TableProperties *properties, Buffer *to) MUST_CHECK;
bool table_properties_decode(Slice payload, TableProperties *properties);
/* Whether the places that `info` names lie inside the file and in the order of the format. */
bool table_info_sane(const TableInfo *info);
/* Where the second copy of the dictionary is, of tables that have one: all blocks would be lost with the
 * only one, so repair has another. */
static inline uint64_t table_dictionary_copy(const TableInfo *info)
{
    return info->index_offset + info->index_size;
}

/* Checks a stored block's trailer and checksum: NULL or what is wrong. */
typedef struct BlockTrailer {
    uint32_t raw_size;
    uint32_t
        plain; /* bytes at the end of the payload that stand behind the compressed ones as they are */
    uint8_t kind;
    uint8_t compression;
} BlockTrailer;
const char *block_check(const uint64_t id[2], uint64_t offset, const uint8_t *stored, size_t size,
                        BlockKind kind, BlockTrailer *trailer);

/* ---- compression ----------------------------------------------------------------------------- */

typedef struct Compressor {
    void *zstd;             /* ZSTD_CCtx, kept */
    const void *dictionary; /* ZSTD_CDict in dictionary_memory; NULL: none */
    void *dictionary_memory;
    int level;
    bool hasty; /* compresses literals at any level */
} Compressor;
void compressor_deinit(Compressor *compressor);
/* Room that compress needs for `size` bytes. */
size_t compress_bound(Compression compression, size_t size);
/* The compressed size, 0 when the block should be stored as it is (it does not shrink by an eighth,
 * the kind is not built in, or memory is short). With `dictionary`, zstd uses the compressor's. */
size_t compress_block(Compressor *compressor, Compression compression, bool dictionary,
                      const uint8_t *from, size_t size, uint8_t *to, size_t capacity);

/* A dictionary has pieces of this many samples, which are spread over all. To see what it is worth, others
 * are needed: at least twice as many samples. */
#define DICTIONARY_PIECES 16u
static inline uint32_t dictionary_piece_sample(uint32_t count, uint32_t piece)
{
    return (uint32_t)((uint64_t)count * piece / DICTIONARY_PIECES);
}
/* Makes a dictionary of at most `capacity` bytes from samples that lie one after the other. Returns its
 * size, 0 when they give none. */
size_t dictionary_build(int level, const uint8_t *samples, const size_t *sizes, uint32_t count,
                        uint8_t *to, size_t capacity);
/* Makes blocks compress with it from now on; false when memory is short. */
bool compressor_set_dictionary(Compressor *compressor, const uint8_t *bytes, size_t size);
void compressor_drop_dictionary(Compressor *compressor);

/* A dictionary made ready for decompression. It lies in one piece of memory (`dictionary_room` bytes,
 * 8-byte aligned), is only read, and holds no pointer out of it, so that it can stand in a frame of the cache. */
typedef struct Dictionary Dictionary;
size_t dictionary_room(size_t size);
/* NULL when the bytes are no dictionary. */
const Dictionary *dictionary_init(void *memory, size_t room, const uint8_t *bytes, size_t size);

typedef struct TableDecompressor TableDecompressor;
TableDecompressor *decompressor_create(void); /* NULL when memory is short */
void decompressor_destroy(TableDecompressor *decompressor);
/* Bytes of the zstd frame that begins here, 0 when none does: for finding blocks without an index. */
size_t compressed_size_at(const uint8_t *from, size_t available);
/* NULL or what is wrong. `size` stored bytes without trailer, which block_check found good, become the
 * trailer's raw_size bytes at `to`; `dictionary` is for STORED_ZSTD_DICTIONARY. */
const char *block_unpack(TableDecompressor *decompressor, const BlockTrailer *trailer,
                         const Dictionary *dictionary, const uint8_t *from, size_t size,
                         uint8_t *to);

/* ---- data blocks ----------------------------------------------------------------------------- */

typedef struct BlockBuilder {
    Buffer keys;     /* key parts of the entries */
    Buffer values;   /* their values */
    Buffer tags;     /* their LSNs (u64) and types (u8) */
    Buffer restarts; /* where key part and value begin (u32 each) */
    Buffer payload;  /* after finish */
    uint32_t entries;
    uint64_t lsn_min, lsn_max;
    uint8_t type; /* of the first entry */
    bool mixed;   /* others have other types */
} BlockBuilder;
void block_builder_deinit(BlockBuilder *builder);
void block_builder_clear(BlockBuilder *builder);
/* `shared`: bytes that the entry's key has in common with the one added before it. */
/* Size of the payload if this entry were added. */
size_t block_builder_size_with(const BlockBuilder *builder, const Entry *entry, size_t shared);
Status block_builder_add(BlockBuilder *builder, const Entry *entry, size_t shared) MUST_CHECK;
/* Puts the payload together; `last_key` is that of the last entry added. The last *plain bytes are not
 * worth compressing. */
Status block_builder_finish(BlockBuilder *builder, Slice last_key, size_t *plain) MUST_CHECK;
/* Bytes that two keys have in common. */
size_t key_shared_prefix(Slice a, Slice b);

typedef struct BlockView {
    const uint8_t *data;
    uint32_t size;
    uint32_t entries;
    uint32_t restart_count;
    uint32_t shared; /* bytes that all keys have in common */
    uint32_t keys;   /* where key parts, values and tags begin */
    uint32_t values;
    uint32_t tags;
    uint32_t tag_bits;
    uint32_t types;
    uint64_t lsn_base;
} BlockView;
bool block_view_init(BlockView *view, Slice payload);

/* Where an entry stands: its index, and the offsets of its key part and its value. */
typedef struct BlockPlace {
    uint32_t index;
    uint32_t key;
    uint32_t value;
} BlockPlace;

typedef enum BlockFind { BLOCK_FOUND, BLOCK_MISSING, BLOCK_DAMAGED } BlockFind;
/* A search takes two steps, between which what the second one reads can be fetched: to the last restart
 * whose entry is before (key, visible), 0 when none is (false: damaged), and from there to the newest
 * version of key at or below `visible`. entry->key is the caller's key. */
bool block_find_restart(const BlockView *view, Slice key, uint64_t visible, uint32_t *restart);
void block_prefetch(const BlockView *view, uint32_t restart);
BlockFind block_find_from(const BlockView *view, uint32_t restart, Slice key, uint64_t visible,
                          Entry *entry);
static inline BlockFind block_find(const BlockView *view, Slice key, uint64_t visible, Entry *entry)
{
    uint32_t restart;
    return block_find_restart(view, key, visible, &restart)
               ? block_find_from(view, restart, key, visible, entry)
               : BLOCK_DAMAGED;
}

/* A place in a block. The key is put together in memory of the cursor's own. Functions return false
 * when the block is damaged (or memory is short, with `no_memory` set). */
typedef struct BlockStep { /* an entry of the restart interval that prev walks back through */
    uint32_t index;
    BlockPlace next;
    uint32_t key_offset;
    uint32_t key_size;
    Slice value;
} BlockStep;
typedef struct BlockCursor {
    BlockView view;
    uint32_t index;  /* of the current entry */
    BlockPlace next; /* of the one behind it */
    bool valid;
    bool no_memory;
    Buffer key;
    Entry entry;
    /* The interval being walked backwards, decoded as a whole; step_count 0: none. Memory for it is taken by
     * the first step back. */
    BlockStep *steps;
    uint32_t step_count;
    uint32_t step;
    Buffer step_keys;
} BlockCursor;
void block_cursor_deinit(BlockCursor *cursor);
bool block_cursor_init(BlockCursor *cursor, Slice payload);
bool block_cursor_first(BlockCursor *cursor);
bool block_cursor_last(BlockCursor *cursor);
bool block_cursor_seek(BlockCursor *cursor, Slice key, uint64_t lsn);
bool block_cursor_seek_before(BlockCursor *cursor, Slice key, uint64_t lsn);
bool block_cursor_next(BlockCursor *cursor);
bool block_cursor_prev(BlockCursor *cursor);
/* The block stands in other memory now, and the old may be gone: false when it is not the same size. */
bool block_cursor_rebase(BlockCursor *cursor, Slice payload);

/* ---- index blocks ---------------------------------------------------------------------------- */

/* Separators and handles in heap memory, cut into blocks by index_build. */
typedef struct IndexBuilder {
    Buffer records;
    Buffer offsets; /* u32 each: where a record begins */
    uint32_t count;
} IndexBuilder;
void index_builder_deinit(IndexBuilder *builder);
/* A separator is at or after the last (key, lsn) of its block and before the first of the next;
 * lsn 0 stands for "after every version of key". */
Status index_builder_add(IndexBuilder *builder, Slice key, uint64_t lsn,
                         const BlockHandle *handle) MUST_CHECK;
/* For a block that was not written yet when its separator was added. */
void index_builder_set_handle(IndexBuilder *builder, uint32_t i, const BlockHandle *handle);
/* Estimated size of a block with the entries [from, to). */
size_t index_builder_entry_size(const IndexBuilder *builder, uint32_t i);
/* Appends the payload of an index block with the entries [from, to) to `payload`. */
Status index_builder_block(const IndexBuilder *builder, uint32_t from, uint32_t to,
                           Buffer *payload) MUST_CHECK;
/* The separator of entry i (borrowed until the next add). */
void index_builder_entry(const IndexBuilder *builder, uint32_t i, Slice *key, uint64_t *lsn,
                         BlockHandle *handle);

/* Shortest key k with last <= k < next, appended to `to` (last < next). */
Status index_separator(Slice last, Slice next, Buffer *to) MUST_CHECK;

typedef struct IndexView {
    Slice payload;
    uint32_t count;
    uint64_t base;
    const uint8_t *prefixes;
    const uint8_t *handles;
    const uint8_t *tails;
    Slice shared;
} IndexView;
bool index_view_init(IndexView *view, Slice payload);
/* The first entry whose separator is at or after (key, lsn); count when there is none. */
bool index_find(const IndexView *view, Slice key, uint64_t lsn, uint32_t *position);
bool index_handle(const IndexView *view, uint32_t position, BlockHandle *handle);
/* The separator, put together in `key` (replaced). */
typedef enum IndexRead { INDEX_OK, INDEX_DAMAGED, INDEX_NO_MEMORY } IndexRead;
IndexRead index_separator_at(const IndexView *view, uint32_t position, Buffer *key, uint64_t *lsn);

/* ---- filter ---------------------------------------------------------------------------------- */

#define FILTER_LINE          64u
#define FILTER_SECTION_LINES 511u /* with probe count and trailer just under 32 KiB */

typedef struct FilterShape {
    uint32_t sections;
    uint32_t lines; /* of a section */
    uint32_t probes;
} FilterShape;
FilterShape filter_shape(uint64_t keys, uint32_t bits);
/* Bytes of a section's payload: lines and one byte with the probe count. */
static inline size_t filter_payload_size(uint32_t lines)
{
    return (size_t)lines * FILTER_LINE + 1;
}
static inline uint32_t filter_section_of(uint64_t hash, uint32_t sections)
{
    return (uint32_t)(((hash >> 32) * sections) >> 32);
}
/* `payload` of a zeroed section. */
void filter_add(uint8_t *payload, uint32_t lines, uint32_t probes, uint64_t hash);
/* Where in a section of `size` bytes the line of a key begins. */
size_t filter_line_at(size_t size, uint64_t hash);
/* True when the key may be there (and for a payload that is no section). */
bool filter_may_contain(Slice payload, uint64_t hash);

/* ---- range tombstones ------------------------------------------------------------------------ */

/* Appends the payload of a block with these fragments. */
Status range_block_build(const RangeFragment *items, size_t count, Buffer *payload) MUST_CHECK;
size_t range_fragment_size(const RangeFragment *item);

typedef struct RangeView {
    Slice payload;
    uint32_t count;
} RangeView;
typedef struct RangeItem {
    Slice from;
    Slice to;
    const uint8_t *lsns; /* fixed64 each, descending, unaligned */
    uint32_t lsn_count;
} RangeItem;
bool range_view_init(RangeView *view, Slice payload);
bool range_view_item(const RangeView *view, uint32_t position, RangeItem *item);
bool range_view_cover(const RangeView *view, Slice key, uint64_t visible, uint64_t *lsn);

/* ---- files ----------------------------------------------------------------------------------- */

/* The open file, valid until the next call on the cache. A missing file is AIDB_CORRUPTION, and so
 * is one whose size is not what `info` says. */
Status file_cache_get(FileCache *files, const TableInfo *info, const File **file) MUST_CHECK;
const char *file_cache_directory(const FileCache *files);

/* ---- reading blocks -------------------------------------------------------------------------- */

/* Where an iterator keeps what it reads without the cache, and its readahead. */
typedef struct BlockBuffer {
    Buffer payload;   /* a decompressed block */
    void *dictionary; /* of the one table it is used for; malloc */
    Buffer window;    /* stored bytes of the file from window_offset on */
    uint64_t window_offset;
    bool framed; /* the block read last stands in a frame of the cache, and not here */
} BlockBuffer;
void block_buffer_deinit(BlockBuffer *buffer);

/*
 * Reads one block and gives its payload. With a cache: from or into a frame, valid until the epoch is
 * left. Without one, or when it has no frame to give: in `own` until its next read or, when `own` is
 * NULL, in private memory of the reader, valid until table_reader_release.
 *
 * When the block has to come from the file and `own` is given, `readahead` bytes of stored blocks (at
 * least the block) are read at once into own->window: those from the block on or, `backward`, those
 * up to its end.
 */
typedef struct BlockRead {
    BlockKind kind;
    BlockHandle handle;
    BlockBuffer *own;
    uint32_t readahead;
    bool backward;
    bool passing; /* with `own`: is not put into the cache */
} BlockRead;
Status table_block_read(TableReader *reader, const TableInfo *info, const BlockRead *read,
                        Slice *payload) MUST_CHECK;
/* AIDB_CORRUPTION with file and offset. */
Status table_damage(const TableReader *reader, const TableInfo *info, uint64_t offset,
                    const char *what) MUST_CHECK;

#endif
