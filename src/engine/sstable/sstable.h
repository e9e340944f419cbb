/*
 * sstable.h - tables: immutable sorted files of entries.
 *
 * A table holds data blocks (prefix-compressed keys with restarts, then values, then LSNs), a
 * compression dictionary, filter sections (cache-line blocked Bloom filter; the section is chosen by the
 * key's hash, so no index leads to it), a range tombstone block, an index (one block, or partitions under a
 * top block), properties and a footer. Every byte of the file lies under a checksum, padding included; the
 * seed is the table's random id and the offset. doc/format-sstable.md has the byte tables.
 *
 * A table is immutable once its builder finished. Everything that a reader needs from footer and
 * properties is in TableInfo, which the manifest and the region keep: a process that never saw a
 * table opens the file and reads blocks.
 */
#ifndef AIDB_ENGINE_SSTABLE_SSTABLE_H
#define AIDB_ENGINE_SSTABLE_SSTABLE_H

#include "engine/base/base.h"
#include "engine/cache/cache.h"
#include "io/io.h"
#include "ipc/ipc.h"

/* (term << 40 | number): never reused. */
#define TABLE_NUMBER(term, number) ((uint64_t)(term) << 40 | (uint64_t)(number))
#define TABLE_TERM(id)             ((uint32_t)((id) >> 40))
#define TABLE_SEQUENCE(id)         ((uint64_t)(id)&0xffffffffffull)
#define TABLE_NAME_SIZE            32
/* "%08x-%06llu.sst" of term and number. */
void table_name(uint64_t number, char name[TABLE_NAME_SIZE]);
bool table_name_parse(const char *name, uint64_t *number);

typedef struct TableInfo {
    uint64_t number;
    uint64_t id[2]; /* random, seeds every checksum of the file */
    uint64_t file_size;
    uint64_t lsn_min; /* the builder's floor: at or below every LSN */
    uint64_t lsn_max; /* over all entries and range tombstones */
    uint64_t entries; /* puts and deletes */
    uint64_t deletes;
    uint64_t range_deletes; /* fragments */
    uint64_t raw_bytes;     /* keys and values before compression */
    uint64_t data_size; /* bytes of data blocks: they are at offset [header, header + data_size) */
    uint64_t index_offset; /* of the top (or only) index block */
    uint32_t index_size;
    uint32_t index_levels; /* 1 or 2 */
    uint64_t filter_offset;
    uint32_t filter_section_size; /* bytes as stored, with checksum; 0: no filter */
    uint32_t filter_sections;
    uint64_t range_offset;
    uint32_t range_size;      /* 0: no range tombstones */
    uint32_t dictionary_size; /* 0: data blocks are compressed without */
    uint64_t dictionary_offset;
} TableInfo;

Status table_info_encode(const TableInfo *info, Buffer *to) MUST_CHECK;
const uint8_t *table_info_decode(const uint8_t *from, const uint8_t *end, TableInfo *info);

/* ---- building -------------------------------------------------------------------------------- */

/*
 * What a job that passes the cache knows of it, so that what readers had there is there again when the
 * tables that it writes take the place of those it reads. One job's, from its iterators to its builders: a
 * data block is put into the cache when it holds at least half of the blocks read since the last was
 * written.
 */
typedef struct TableWarmth {
    BlockCache *cache;
    EpochDomain *epochs;
    Slot *slot;
    CachePriority priority; /* of what is put into it */
    uint32_t blocks_read;   /* since a data block was written */
    uint32_t blocks_held;   /* of these, in the cache */
    bool warm;              /* what is written now is put into the cache */
} TableWarmth;

typedef struct TableOptions {
    uint8_t system_id[16];
    uint32_t block_size;
    Compression compression;
    int32_t compression_level;
    bool
        hasty; /* somebody waits for the table: compressed with little effort, whatever the level */
    uint32_t filter_bits;
    TableWarmth *warmth; /* NULL: nothing is put into a cache */
} TableOptions;

typedef struct TableBuilder TableBuilder;

/* Creates the file under its final name in `directory`; it must not exist. `lsn_floor` is at or below
 * every LSN that will be added. */
Status table_builder_create(const TableOptions *options, const char *directory, uint64_t number,
                            uint64_t lsn_floor, TableBuilder **builder) MUST_CHECK;
/* In internal order, no duplicates (asserted: AIDB_INTERNAL otherwise). */
Status table_builder_add(TableBuilder *builder, const Entry *entry) MUST_CHECK;
/* All range fragments, sorted and not overlapping, any time before finish. */
Status table_builder_add_fragments(TableBuilder *builder, const RangeFragment *items,
                                   size_t count) MUST_CHECK;
uint64_t table_builder_size(const TableBuilder *builder); /* bytes of the file so far, estimated */
uint64_t table_builder_entries(const TableBuilder *builder);
/* Writes the rest and syncs the file (not the directory). Afterwards only destroy. */
Status table_builder_finish(TableBuilder *builder, TableInfo *info) MUST_CHECK;
/* Frees; removes the file unless finish succeeded. */
void table_builder_destroy(TableBuilder *builder);
/* Smallest and greatest user key of point entries added (valid until destroy; empty when none). */
void table_builder_bounds(const TableBuilder *builder, Slice *smallest, Slice *largest);

/* Whether this build can write and read blocks of this kind (snappy is optional). */
bool compression_supported(Compression compression);

/* ---- reading --------------------------------------------------------------------------------- */

/* Descriptors of open tables, private to one process or thread, bounded, least recently used out. */
typedef struct FileCache FileCache;
Status file_cache_create(const char *directory, uint32_t capacity, FileCache **files) MUST_CHECK;
void file_cache_destroy(FileCache *files);
void file_cache_forget(FileCache *files, uint64_t number);
/* Closes the tables that were unlinked since they were opened: only then the disk gets their room back. */
void file_cache_sweep(FileCache *files);
/* Closes all. */
void file_cache_clear(FileCache *files);

/* What a read needs of its session. Reads through the cache happen inside an epoch of `slot`, and
 * their results are valid until it ends. */
typedef struct TableReader {
    FileCache *files;
    BlockCache *cache;   /* NULL: bypass (compaction, verify) */
    TableWarmth *warmth; /* without a cache: learns of data blocks that are read; may be NULL */
    EpochDomain *epochs;
    Slot *slot;                             /* may be NULL without a cache (tools) */
    Buffer scratch;                         /* for compressed bytes; owned by the session */
    struct TableDecompressor *decompressor; /* made at first use; freed by table_reader_deinit */
    struct TableBlock
        *private_blocks; /* blocks that found no frame: freed by table_reader_release */
} TableReader;

/* Frees private blocks and scratch memory past a bound; call when the epoch is left. */
void table_reader_release(TableReader *reader);
void table_reader_deinit(TableReader *reader);

/* The newest version of key at or below visible. The entry's key is the caller's; its value borrows from
 * cached or private blocks until the epoch is left. */
typedef struct TableGet {
    const TableInfo *info; /* in: where to look */
    Slice key;
    uint64_t key_hash;
    Entry *entry; /* out */
    bool found;
} TableGet;
/* Lookups that do not depend on each other, in one table or in several. They take their steps together, so
 * that memory which one waits for is fetched while others are worked on. */
Status table_get_many(TableReader *reader, size_t count, TableGet *const *gets,
                      uint64_t visible) MUST_CHECK;
/* One. */
Status table_get(TableReader *reader, const TableInfo *info, Slice key, uint64_t key_hash,
                 uint64_t visible, Entry *entry, bool *found) MUST_CHECK;
/* What lookups and the filters want as key_hash. */
uint64_t table_key_hash(Slice key);
/* The greatest LSN <= visible of a range tombstone that covers key; 0 for none. Cheap when the table
 * has none. */
Status table_cover(TableReader *reader, const TableInfo *info, Slice key, uint64_t visible,
                   uint64_t *lsn) MUST_CHECK;
/* The table's range tombstones in heap memory. */
Status table_fragments(TableReader *reader, const TableInfo *info, RangeFragments *out) MUST_CHECK;
#define TABLE_READAHEAD_SCAN (32u << 10)
#define TABLE_READAHEAD_JOB  (256u << 10)
/* `readahead` above 0: the caller will read much in order (compaction, long scans): of data blocks that the
 * cache does not hold so many bytes are read at once, and not put into it. Blocks without a frame are the
 * iterator's own, which is valid until its next step; it holds no more of them at a time than one of each kind. `reader` and `info` outlive the iterator. */
Status table_iter_create(TableReader *reader, const TableInfo *info, uint32_t readahead,
                         Iter **iter) MUST_CHECK;
/* Approximate bytes of the file's data before key (from the index alone). */
Status table_offset_of(TableReader *reader, const TableInfo *info, Slice key,
                       uint64_t *offset) MUST_CHECK;

/* ---- inspection (aidbctl, repair) ------------------------------------------------------------ */

/* Reads and checks header, footer and properties of a file. `system_id` NULL: any. */
Status table_info_read(const char *path, const uint8_t *system_id, TableInfo *info) MUST_CHECK;
/* Checks every byte and every invariant (order, bounds, counts, filter holds every key). */
typedef void (*TableDamage)(void *arg, const char *path, uint64_t offset, const char *what);
Status table_verify(const char *path, const uint8_t *system_id, const TableInfo *expected,
                    TableDamage report, void *arg) MUST_CHECK;

/* A part of a table that could not be read. What it held has keys in [from, to], both inclusive; a side
 * that is not known is open. */
typedef struct TableLoss {
    const char *path;
    uint64_t offset;
    uint64_t size;
    const char *what;
    bool entries;       /* versions of keys were in it */
    bool range_deletes; /* and these may have been */
    bool has_from, has_to;
    Slice from, to;
} TableLoss;
typedef void (*TableLossReport)(void *arg, const TableLoss *loss);

/* Reads what is left of a table, in order: forward, once. `expected` is what the manifest says about it;
 * NULL: what the file says. AIDB_CORRUPTION when nothing of it can be used; damage behind that is
 * reported (`report` may be NULL) and passed over. */
typedef struct TableSalvage TableSalvage;
Status table_salvage_open(const char *path, const uint8_t *system_id, const TableInfo *expected,
                          TableLossReport report, void *arg, TableSalvage **salvage) MUST_CHECK;
void table_salvage_close(TableSalvage *salvage);
/* The system id in a table's header; false when that cannot be read. */
bool table_owner(const char *path, uint8_t system_id[16]);
/* `known` false: of the info only number and id are known. Keys are empty when they are not known. */
const TableInfo *table_salvage_info(const TableSalvage *salvage, bool *known, Slice *smallest,
                                    Slice *largest);
/* The range tombstones that can be read; losses among them are reported. */
Status table_salvage_ranges(TableSalvage *salvage,
                            Status (*visit)(void *arg, const RangeTombstone *tombstone),
                            void *arg) MUST_CHECK;
/* The entries that can be read; *entry is NULL at the end, and valid until the next call. */
Status table_salvage_first(TableSalvage *salvage, const Entry **entry) MUST_CHECK;
Status table_salvage_next(TableSalvage *salvage, const Entry **entry) MUST_CHECK;

#endif
