/*
 * block.c - data blocks: entries with prefix-compressed keys, restart points, search.
 *
 *   payload: number of entries u32 | bytes that all keys share u32 | where the values begin u32
 *            | bits of a tag u16 | types u16 | base LSN u64
 *            | for each restart: the 4 key bytes behind those that all share, as a number (u32), where its
 *              key part begins (u32), where its value begins (u32)
 *            | key parts: shared, unshared, value size (varints), unshared key bytes
 *            | values | tags
 *
 * Keys, values and tags stand apart, because each kind of bytes compresses best among its own, and a
 * search reads keys alone. A tag is what the LSN of an entry is above the base LSN, and in blocks that
 * hold both puts and deletes the type in its 2 low bits; all tags of a block take equally many bits. LSNs do
 * not compress, and among other bytes they would spoil the statistics of these: tags are left out of
 * compression, so they stand last.
 *
 * At a restart (every 16th entry) the key stands whole. A search is binary over the numbers at the head of the
 * block, which lie in one or two cache lines, and then linear over one interval: a key in memory that is not
 * in the CPU's caches costs two misses and not one for each restart. Restarts whose numbers tie are
 * compared in full.
 *
 * The linear part never puts keys together: it remembers how many bytes of the wanted key the last
 * entry matched. An entry that shares more than that with its predecessor compares as the predecessor
 * did, one that shares less lies behind the wanted key, and only one that shares exactly as much is
 * compared, from there on.
 *
 * All versions of a key follow each other, newest first; a repeated key costs no key bytes.
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include <stdlib.h>

#define KEY_STEP     16u /* key bytes that are copied without asking how many are needed */
#define RESTART_SIZE 12u

/* Offsets in the head. */
enum {
    AT_ENTRIES = 0,
    AT_SHARED = 4,
    AT_VALUES = 8,
    AT_TAG_BITS = 12,
    AT_TYPES = 14,
    AT_BASE = 16
};

/* What all entries of a block are; a mixed block's tags hold the type of each. */
enum { TYPES_MIXED = 2 };

/* ---- building -------------------------------------------------------------------------------- */

void block_builder_deinit(BlockBuilder *builder)
{
    buffer_deinit(&builder->keys);
    buffer_deinit(&builder->values);
    buffer_deinit(&builder->restarts);
    buffer_deinit(&builder->tags);
    buffer_deinit(&builder->payload);
}

void block_builder_clear(BlockBuilder *builder)
{
    buffer_clear(&builder->keys);
    buffer_clear(&builder->values);
    buffer_clear(&builder->restarts);
    buffer_clear(&builder->tags);
    builder->entries = 0;
}

size_t key_shared_prefix(Slice a, Slice b)
{
    size_t most = a.size < b.size ? a.size : b.size;
    size_t i = 0;
    while (i + 8 <= most) {
        uint64_t left;
        uint64_t right;
        memcpy(&left, a.data + i, 8);
        memcpy(&right, b.data + i, 8);
        if (left != right)
            break;
        i += 8;
    }
    while (i < most && a.data[i] == b.data[i])
        i++;
    return i;
}

/* Bits that all tags take when LSNs spread over `range`: at most 56, so that 8 bytes hold one wherever
 * it begins, or 64. */
static uint32_t tag_bits(uint64_t range, bool mixed)
{
    uint32_t bits = (range == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(range)) + (mixed ? 2 : 0);
    return bits > 56 ? 64 : bits;
}

static size_t tags_size(uint64_t entries, uint32_t bits)
{
    return (size_t)((entries * bits + 7) / 8);
}

/* The bounds of LSNs and types if this entry were added. */
typedef struct TagBounds {
    uint64_t lsn_min, lsn_max;
    bool mixed;
} TagBounds;

static TagBounds bounds_with(const BlockBuilder *builder, const Entry *entry)
{
    if (builder->entries == 0)
        return (TagBounds){entry->lsn, entry->lsn, false};
    return (TagBounds){
        .lsn_min = entry->lsn < builder->lsn_min ? entry->lsn : builder->lsn_min,
        .lsn_max = entry->lsn > builder->lsn_max ? entry->lsn : builder->lsn_max,
        .mixed = builder->mixed || entry->type != builder->type,
    };
}

size_t block_builder_size_with(const BlockBuilder *builder, const Entry *entry, size_t shared)
{
    bool restart = builder->entries % RESTART_INTERVAL == 0;
    if (restart)
        shared = 0;
    size_t unshared = entry->key.size - shared;
    TagBounds bounds = bounds_with(builder, entry);
    return BLOCK_HEAD + builder->restarts.size / 8 * RESTART_SIZE + (restart ? RESTART_SIZE : 0) +
           builder->keys.size + varint_size(shared) + varint_size(unshared) +
           varint_size(entry->value.size) + unshared + builder->values.size + entry->value.size +
           tags_size((uint64_t)builder->entries + 1,
                     tag_bits(bounds.lsn_max - bounds.lsn_min, bounds.mixed));
}

Status block_builder_add(BlockBuilder *builder, const Entry *entry, size_t shared)
{
    if (builder->entries % RESTART_INTERVAL == 0) {
        RETURN_IF_FAILED(buffer_append_fixed32(&builder->restarts, (uint32_t)builder->keys.size));
        RETURN_IF_FAILED(buffer_append_fixed32(&builder->restarts, (uint32_t)builder->values.size));
        shared = 0;
    }
    size_t unshared = entry->key.size - shared;
    Buffer *keys = &builder->keys;
    RETURN_IF_FAILED(buffer_reserve(keys, 3 * VARINT64_MAX + unshared));
    uint8_t *at = keys->data + keys->size;
    at = put_varint(at, shared);
    at = put_varint(at, unshared);
    at = put_varint(at, entry->value.size);
    if (unshared > 0)
        memcpy(at, entry->key.data + shared, unshared);
    keys->size = (size_t)(at - keys->data) + unshared;
    RETURN_IF_FAILED(buffer_append(&builder->values, entry->value.data, entry->value.size));
    RETURN_IF_FAILED(buffer_append(&builder->tags, &entry->lsn, sizeof entry->lsn));
    RETURN_IF_FAILED(buffer_append_byte(&builder->tags, entry->type));
    TagBounds bounds = bounds_with(builder, entry);
    builder->lsn_min = bounds.lsn_min;
    builder->lsn_max = bounds.lsn_max;
    builder->mixed = bounds.mixed;
    if (builder->entries == 0)
        builder->type = entry->type;
    builder->entries++;
    return AIDB_OK;
}

/* The 4 bytes of a key behind `shared`, zeroes behind its end, as a number that orders as they do. */
static uint32_t key_number(Slice key, size_t shared)
{
    uint8_t bytes[4] = {0};
    size_t size = key.size - shared < 4 ? key.size - shared : 4;
    for (size_t i = 0; i < size; i++)
        bytes[i] = key.data[shared + i];
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* The whole key of the entry at a restart, which the builder itself wrote. */
static Slice restart_key(const BlockBuilder *builder, uint32_t offset)
{
    const uint8_t *end = builder->keys.data + builder->keys.size;
    uint64_t numbers[3];
    const uint8_t *at = builder->keys.data + offset;
    for (int i = 0; i < 3; i++)
        at = decode_varint64(at, end, &numbers[i]);
    return slice_make(at, (size_t)numbers[1]);
}

/* Appends all tags, for which there is room, packed from the low bits of each byte on. */
static void append_tags(const BlockBuilder *builder, uint32_t bits, Buffer *payload)
{
    uint8_t *at = payload->data + payload->size;
    payload->size += tags_size(builder->entries, bits);
    uint64_t pending = 0; /* fewer than 8 bits between two tags */
    uint32_t pending_bits = 0;
    for (uint32_t i = 0; bits > 0 && i < builder->entries; i++) {
        const uint8_t *from = builder->tags.data + (size_t)i * 9; /* LSN and type */
        uint64_t tag;
        memcpy(&tag, from, sizeof tag);
        tag -= builder->lsn_min;
        if (builder->mixed)
            tag = tag << 2 | from[8];
        if (bits == 64) {
            put_fixed64(at, tag);
            at += 8;
            continue;
        }
        pending |= tag << pending_bits;
        pending_bits += bits;
        for (; pending_bits >= 8; pending_bits -= 8, pending >>= 8)
            *at++ = (uint8_t)pending;
    }
    if (pending_bits > 0)
        *at = (uint8_t)pending;
}

Status block_builder_finish(BlockBuilder *builder, Slice last_key, size_t *plain)
{
    uint32_t count = (uint32_t)(builder->restarts.size / 8);
    size_t shared = count > 0 ? key_shared_prefix(restart_key(builder, 0), last_key) : 0;
    uint32_t bits = count > 0 ? tag_bits(builder->lsn_max - builder->lsn_min, builder->mixed) : 0;
    size_t tags = tags_size(builder->entries, bits);
    Buffer *payload = &builder->payload;
    size_t keys = BLOCK_HEAD + (size_t)count * RESTART_SIZE;
    size_t values = keys + builder->keys.size;
    *plain = tags;
    payload->size = 0;
    RETURN_IF_FAILED(buffer_reserve(payload, values + builder->values.size + tags + TRAILER_SIZE));
    uint8_t *head = payload->data;
    put_fixed32(head + AT_ENTRIES, builder->entries);
    put_fixed32(head + AT_SHARED, (uint32_t)shared);
    put_fixed32(head + AT_VALUES, (uint32_t)values);
    put_fixed16(head + AT_TAG_BITS, (uint16_t)bits);
    put_fixed16(head + AT_TYPES, (uint16_t)(builder->mixed ? TYPES_MIXED : builder->type));
    put_fixed64(head + AT_BASE, count > 0 ? builder->lsn_min : 0);
    uint8_t *at = head + BLOCK_HEAD;
    for (uint32_t i = 0; i < count; i++, at += RESTART_SIZE) {
        uint32_t key = get_fixed32(builder->restarts.data + (size_t)i * 8);
        uint32_t value = get_fixed32(builder->restarts.data + (size_t)i * 8 + 4);
        put_fixed32(at, key_number(restart_key(builder, key), shared));
        put_fixed32(at + 4, (uint32_t)keys + key);
        put_fixed32(at + 8, (uint32_t)values + value);
    }
    payload->size = keys;
    RETURN_IF_FAILED(buffer_append(payload, builder->keys.data, builder->keys.size));
    RETURN_IF_FAILED(buffer_append(payload, builder->values.data, builder->values.size));
    append_tags(builder, bits, payload);
    return AIDB_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

bool block_view_init(BlockView *view, Slice payload)
{
    *view = (BlockView){0};
    if (payload.size < BLOCK_HEAD || payload.size > BLOCK_RAW_MAX)
        return false;
    uint32_t size = (uint32_t)payload.size;
    uint32_t entries = get_fixed32(payload.data + AT_ENTRIES);
    uint32_t bits = get_fixed16(payload.data + AT_TAG_BITS);
    uint32_t types = get_fixed16(payload.data + AT_TYPES);
    if ((bits > 56 && bits != 64) || types > TYPES_MIXED || (types == TYPES_MIXED && bits < 2))
        return false;
    uint64_t restarts = ((uint64_t)entries + RESTART_INTERVAL - 1) / RESTART_INTERVAL;
    uint64_t tags = ((uint64_t)entries * bits + 7) / 8;
    uint64_t keys = BLOCK_HEAD + restarts * RESTART_SIZE;
    uint32_t values = get_fixed32(payload.data + AT_VALUES);
    if (tags > size || values > size - tags || keys > values)
        return false;
    view->data = payload.data;
    view->entries = entries;
    view->restart_count = (uint32_t)restarts;
    view->keys = (uint32_t)keys;
    view->values = values;
    view->tags = size - (uint32_t)tags;
    view->tag_bits = bits;
    view->types = types;
    view->size = size;
    view->shared = get_fixed32(payload.data + AT_SHARED);
    view->lsn_base = get_fixed64(payload.data + AT_BASE);
    return true;
}

static uint32_t restart_number(const BlockView *view, uint32_t i)
{
    return get_fixed32(view->data + BLOCK_HEAD + (size_t)i * RESTART_SIZE);
}

/* A place between two entries: what the next one's index is, and where its key and value begin. */
static inline BlockPlace restart_place(const BlockView *view, uint32_t i)
{
    const uint8_t *at = view->data + BLOCK_HEAD + (size_t)i * RESTART_SIZE;
    return (BlockPlace){
        .index = i * RESTART_INTERVAL, .key = get_fixed32(at + 4), .value = get_fixed32(at + 8)};
}

static BlockPlace place_first(const BlockView *view)
{
    return (BlockPlace){.index = 0, .key = view->keys, .value = view->values};
}

/* The tag of an entry of the block. A block has more bytes than 8 before its end. */
static inline uint64_t read_tag(const BlockView *view, uint32_t index)
{
    if (view->tag_bits == 0)
        return 0;
    uint64_t bit = (uint64_t)index * view->tag_bits;
    uint64_t offset = view->tags + bit / 8;
    uint32_t shift = (uint32_t)(bit % 8);
    if (offset > view->size - 8) {
        shift += (uint32_t)(offset - (view->size - 8)) * 8;
        offset = view->size - 8;
    }
    uint64_t word = get_fixed64(view->data + offset) >> shift;
    return view->tag_bits == 64 ? word : word & ((1ull << view->tag_bits) - 1);
}

/* The LSNs stand far from the keys: those of an interval are fetched while its keys are compared. */
static inline void prefetch_tags(const BlockView *view, uint32_t restart)
{
    uint64_t bit = (uint64_t)restart * RESTART_INTERVAL * view->tag_bits;
    __builtin_prefetch(view->data + view->tags + bit / 8);
}

/* An entry's bytes, still where they are. */
typedef struct RawEntry {
    uint32_t shared;
    uint32_t unshared;
    const uint8_t *key;
    Slice value;
    BlockPlace next;
} RawEntry;

static inline __attribute__((always_inline)) bool raw_entry_decode(const BlockView *view,
                                                                   BlockPlace place, RawEntry *raw)
{
    if (place.key >= view->values || place.key < view->keys || place.value > view->tags)
        return false;
    const uint8_t *at = view->data + place.key;
    const uint8_t *end = view->data + view->values;
    uint32_t shared = 0;
    uint32_t unshared = 0;
    uint32_t value_size = 0;
    if (end - at >= 3 && (at[0] | at[1] | at[2]) < 0x80) {
        shared = at[0];
        unshared = at[1];
        value_size = at[2];
        at += 3;
    } else {
        at = decode_varint32(at, end, &shared);
        at = decode_varint32(at, end, &unshared);
        at = decode_varint32(at, end, &value_size);
        if (at == NULL)
            return false;
    }
    if (unshared > (size_t)(end - at) || value_size > view->tags - place.value)
        return false;
    raw->shared = shared;
    raw->unshared = unshared;
    raw->key = at;
    raw->value = slice_make(view->data + place.value, value_size);
    raw->next = (BlockPlace){.index = place.index + 1,
                             .key = (uint32_t)(at + unshared - view->data),
                             .value = place.value + value_size};
    return true;
}

/* LSN and type of an entry. */
static inline bool raw_entry_tag(const BlockView *view, uint32_t index, uint32_t value_size,
                                 uint64_t *lsn, uint8_t *type)
{
    uint64_t tag = read_tag(view, index);
    if (view->types == TYPES_MIXED) {
        *type = tag & 3;
        tag >>= 2;
    } else {
        *type = (uint8_t)view->types;
    }
    *lsn = view->lsn_base + tag;
    return *type == OP_PUT || (*type == OP_DELETE && value_size == 0);
}

bool block_find_restart(const BlockView *view, Slice key, uint64_t lsn, uint32_t *restart)
{
    *restart = 0;
    if (view->restart_count <= 1)
        return true; /* the walk finds out the rest */
    RawEntry raw;
    if (!raw_entry_decode(view, place_first(view), &raw) || raw.shared != 0 ||
        raw.unshared < view->shared)
        return false;
    size_t common = key.size < view->shared ? key.size : view->shared;
    int order = common > 0 ? memcmp(key.data, raw.key, common) : 0;
    if (order < 0 || (order == 0 && key.size < view->shared))
        return true;
    if (order > 0) {
        *restart = view->restart_count - 1;
        return true;
    }
    /* [low, high): restarts whose numbers tie; those before are before key, those behind are not. */
    uint32_t wanted = key_number(key, view->shared);
    uint32_t low = 0;
    for (uint32_t end = view->restart_count; low < end;) {
        uint32_t middle = low + (end - low) / 2;
        if (restart_number(view, middle) < wanted)
            low = middle + 1;
        else
            end = middle;
    }
    uint32_t high = low;
    while (high < view->restart_count && restart_number(view, high) == wanted)
        high++;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        BlockPlace place = restart_place(view, middle);
        uint64_t entry_lsn;
        uint8_t type;
        if (!raw_entry_decode(view, place, &raw) || raw.shared != 0 ||
            !raw_entry_tag(view, place.index, (uint32_t)raw.value.size, &entry_lsn, &type))
            return false;
        if (entry_compare(slice_make(raw.key, raw.unshared), entry_lsn, key, lsn) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *restart = low > 0 ? low - 1 : 0;
    return true;
}

/* Where walk_to ended. The entry's key is the first raw.shared bytes of the wanted key and then its own
 * bytes, because what it shares with its predecessor that one shared with the wanted key. */
typedef struct Walk {
    BlockPlace place; /* place.index == view->entries: no entry */
    bool equal_key;   /* the entry's key is the wanted key */
    RawEntry raw;
    uint64_t lsn; /* these two only for an equal key */
    uint8_t type;
} Walk;

/* Walks from a restart, the last before (key, lsn) or the first of all, to the first entry at or after
 * (key, lsn). Returns false when the block is damaged. */
static bool walk_to(const BlockView *view, uint32_t restart, Slice key, uint64_t lsn, Walk *walk)
{
    BlockPlace place = restart_place(view, restart);
    prefetch_tags(view, restart);
    size_t matched = 0;   /* bytes of key that the last entry had in common with it */
    size_t last_size = 0; /* size of the last entry's key */
    walk->equal_key = false;
    if (key.size == 0)
        key.data = view->data; /* an empty key may have no address */
    while (place.index < view->entries) {
        RawEntry *raw = &walk->raw;
        if (place.index % RESTART_INTERVAL == 0) {
            matched = 0;
            last_size = 0;
        }
        if (!raw_entry_decode(view, place, raw) || raw->shared > last_size)
            return false;
        last_size = (size_t)raw->shared + raw->unshared;
        if (raw->shared < matched) {
            /* It left the prefix that its predecessor (which was before key) had in common with key, and keys
             * rise: it is behind. */
            break;
        }
        if (raw->shared == matched) {
            size_t most = key.size - matched < raw->unshared ? key.size - matched : raw->unshared;
            size_t same =
                key_shared_prefix(slice_make(key.data + matched, most), slice_make(raw->key, most));
            matched += same;
            bool entry_ends = same == raw->unshared;
            bool key_ends = matched == key.size;
            int order; /* of the entry against key */
            if (entry_ends && key_ends)
                order = 0;
            else if (entry_ends)
                order = -1;
            else if (key_ends)
                order = 1;
            else
                order = raw->key[same] < key.data[matched] ? -1 : 1;
            if (order > 0)
                break;
            if (order == 0) {
                if (!raw_entry_tag(view, place.index, (uint32_t)raw->value.size, &walk->lsn,
                                   &walk->type))
                    return false;
                if (walk->lsn <= lsn) {
                    walk->equal_key = true;
                    break;
                }
            }
        }
        /* else it shares more than matched: before key, as its predecessor was */
        place = raw->next;
    }
    walk->place = place;
    return true;
}

/* The key parts and the tags of half an interval, which is what a walk through it reads on average. */
void block_prefetch(const BlockView *view, uint32_t restart)
{
    if (view->entries == 0)
        return;
    BlockPlace place = restart_place(view, restart);
    if (place.key < view->size) {
        __builtin_prefetch(view->data + place.key);
        __builtin_prefetch(view->data + place.key + 64);
    }
    uint64_t tag = (uint64_t)(place.index + RESTART_INTERVAL / 2) * view->tag_bits / 8;
    if (tag < view->size - view->tags)
        __builtin_prefetch(view->data + view->tags + tag);
}

BlockFind block_find_from(const BlockView *view, uint32_t restart, Slice key, uint64_t visible,
                          Entry *entry)
{
    if (view->entries == 0)
        return BLOCK_MISSING;
    Walk walk;
    if (!walk_to(view, restart, key, visible, &walk))
        return BLOCK_DAMAGED;
    if (!walk.equal_key)
        return BLOCK_MISSING;
    *entry = (Entry){.key = key, .value = walk.raw.value, .lsn = walk.lsn, .type = walk.type};
    return BLOCK_FOUND;
}

/* ---- cursor ---------------------------------------------------------------------------------- */

void block_cursor_deinit(BlockCursor *cursor)
{
    buffer_deinit(&cursor->key);
    buffer_deinit(&cursor->step_keys);
    free(cursor->steps);
    cursor->steps = NULL;
}

static bool cursor_end(BlockCursor *cursor)
{
    cursor->valid = false;
    cursor->step_count = 0;
    return true;
}

static bool cursor_failed(BlockCursor *cursor, bool no_memory)
{
    cursor->valid = false;
    cursor->no_memory = no_memory;
    cursor->step_count = 0;
    return false;
}

static Slice value_rebase(Slice value, const uint8_t *from, const uint8_t *to)
{
    return value.size == 0 ? slice_make(NULL, 0) : slice_make(to + (value.data - from), value.size);
}

bool block_cursor_rebase(BlockCursor *cursor, Slice payload)
{
    const uint8_t *old = cursor->view.data;
    if (payload.size != cursor->view.size)
        return cursor_failed(cursor, false);
    cursor->view.data = payload.data;
    cursor->entry.value = value_rebase(cursor->entry.value, old, payload.data);
    for (uint32_t i = 0; i < cursor->step_count; i++)
        cursor->steps[i].value = value_rebase(cursor->steps[i].value, old, payload.data);
    return true;
}

bool block_cursor_init(BlockCursor *cursor, Slice payload)
{
    (void)cursor_end(cursor);
    cursor->no_memory = false;
    cursor->key.size = 0;
    return block_view_init(&cursor->view, payload);
}

/* Reads the entry at `place`; the cursor's key is that of the entry before it. */
static inline bool cursor_load(BlockCursor *cursor, BlockPlace place)
{
    RawEntry raw;
    Buffer *key = &cursor->key;
    if (!raw_entry_decode(&cursor->view, place, &raw) || raw.shared > key->size ||
        raw.shared + (size_t)raw.unshared > AIDB_KEY_MAX ||
        !raw_entry_tag(&cursor->view, place.index, (uint32_t)raw.value.size, &cursor->entry.lsn,
                       &cursor->entry.type))
        return cursor_failed(cursor, false);
    size_t size = (size_t)raw.shared + raw.unshared;
    key->size = raw.shared;
    if (raw.shared + KEY_STEP <= key->capacity && raw.unshared <= KEY_STEP &&
        cursor->view.size - (uint32_t)(raw.key - cursor->view.data) >= KEY_STEP) {
        memcpy(key->data + raw.shared, raw.key,
               KEY_STEP); /* mostly more than needed, but no call */
    } else {
        if (buffer_reserve(key, raw.unshared) != AIDB_OK)
            return cursor_failed(cursor, true);
        if (raw.unshared > 0)
            memcpy(key->data + raw.shared, raw.key, raw.unshared);
    }
    key->size = size;
    cursor->index = place.index;
    cursor->next = raw.next;
    cursor->valid = true;
    cursor->entry.key = slice_make(key->data, size);
    cursor->entry.value = raw.value;
    return true;
}

bool block_cursor_first(BlockCursor *cursor)
{
    if (cursor->view.entries == 0)
        return cursor_end(cursor);
    cursor->key.size = 0;
    cursor->step_count = 0;
    BlockPlace place = restart_place(&cursor->view, 0);
    BlockPlace first = place_first(&cursor->view);
    if (place.key != first.key || place.value != first.value)
        return cursor_failed(cursor, false);
    return cursor_load(cursor, first);
}

bool block_cursor_next(BlockCursor *cursor)
{
    const BlockView *view = &cursor->view;
    BlockPlace place = cursor->next;
    if (cursor->step_count > 0) {
        /* The key of the current step is not in the cursor's own buffer. */
        Slice current = cursor->entry.key;
        cursor->step_count = 0;
        cursor->key.size = 0;
        if (buffer_append(&cursor->key, current.data, current.size) != AIDB_OK)
            return cursor_failed(cursor, true);
    }
    if (place.index >= view->entries) {
        /* The parts must end where their last entry does. */
        if (place.key != view->values || place.value != view->tags)
            return cursor_failed(cursor, false);
        return cursor_end(cursor);
    }
    if (place.index % RESTART_INTERVAL == 0) {
        BlockPlace restart = restart_place(view, place.index / RESTART_INTERVAL);
        if (restart.key != place.key || restart.value != place.value)
            return cursor_failed(cursor, false);
        cursor->key.size = 0; /* a restart shares nothing */
    }
    return cursor_load(cursor, place);
}

bool block_cursor_seek(BlockCursor *cursor, Slice key, uint64_t lsn)
{
    if (cursor->view.entries == 0)
        return cursor_end(cursor);
    uint32_t restart = 0;
    Walk walk;
    if (!block_find_restart(&cursor->view, key, lsn, &restart) ||
        !walk_to(&cursor->view, restart, key, lsn, &walk))
        return cursor_failed(cursor, false);
    if (walk.place.index == cursor->view.entries)
        return cursor_end(cursor);
    cursor->key.size = 0;
    cursor->step_count = 0;
    if (buffer_append(&cursor->key, key.data, walk.raw.shared) != AIDB_OK)
        return cursor_failed(cursor, true);
    return cursor_load(cursor, walk.place);
}

/* ---- walking back ---------------------------------------------------------------------------- */

static bool show_step(BlockCursor *cursor)
{
    const BlockStep *step = &cursor->steps[cursor->step];
    cursor->index = step->index;
    cursor->next = step->next;
    cursor->valid = true;
    cursor->entry.key = slice_make(cursor->step_keys.data + step->key_offset, step->key_size);
    cursor->entry.value = step->value;
    if (!raw_entry_tag(&cursor->view, step->index, (uint32_t)step->value.size, &cursor->entry.lsn,
                       &cursor->entry.type))
        return cursor_failed(cursor, false);
    return true;
}

/* Stands on the last entry before the one with index `limit`, having decoded its interval up to there. */
static bool load_before(BlockCursor *cursor, uint32_t limit)
{
    const BlockView *view = &cursor->view;
    if (limit == 0)
        return cursor_end(cursor);
    if (cursor->steps == NULL) {
        cursor->steps = malloc(RESTART_INTERVAL * sizeof *cursor->steps);
        if (cursor->steps == NULL) {
            (void)status_set(AIDB_NO_MEMORY, "out of memory to walk a block backwards");
            return cursor_failed(cursor, true);
        }
    }
    BlockPlace place = restart_place(view, (limit - 1) / RESTART_INTERVAL);
    Buffer *keys = &cursor->step_keys;
    keys->size = 0;
    cursor->step_count = 0;
    uint32_t count = 0;
    uint32_t last_offset = 0;
    uint32_t last_size = 0;
    for (RawEntry raw; place.index < limit; place = raw.next) {
        if (!raw_entry_decode(view, place, &raw) || raw.shared > last_size)
            return cursor_failed(cursor, false);
        size_t size = (size_t)raw.shared + raw.unshared;
        if (size > AIDB_KEY_MAX)
            return cursor_failed(cursor, false);
        if (buffer_reserve(keys, size + 1) != AIDB_OK) /* some memory even if all keys are empty */
            return cursor_failed(cursor, true);
        uint8_t *to = keys->data + keys->size;
        if (raw.shared > 0)
            memcpy(to, keys->data + last_offset, raw.shared);
        if (raw.unshared > 0)
            memcpy(to + raw.shared, raw.key, raw.unshared);
        cursor->steps[count++] = (BlockStep){.index = place.index,
                                             .next = raw.next,
                                             .key_offset = (uint32_t)keys->size,
                                             .key_size = (uint32_t)size,
                                             .value = raw.value};
        last_offset = (uint32_t)keys->size;
        last_size = (uint32_t)size;
        keys->size += size;
    }
    cursor->step_count = count;
    cursor->step = count - 1;
    return show_step(cursor);
}

bool block_cursor_last(BlockCursor *cursor)
{
    return load_before(cursor, cursor->view.entries);
}

bool block_cursor_prev(BlockCursor *cursor)
{
    if (cursor->step_count > 0 && cursor->step > 0) {
        cursor->step--;
        return show_step(cursor);
    }
    return load_before(cursor, cursor->index);
}

bool block_cursor_seek_before(BlockCursor *cursor, Slice key, uint64_t lsn)
{
    if (cursor->view.entries == 0)
        return cursor_end(cursor);
    uint32_t restart = 0;
    Walk walk;
    if (!block_find_restart(&cursor->view, key, lsn, &restart) ||
        !walk_to(&cursor->view, restart, key, lsn, &walk))
        return cursor_failed(cursor, false);
    return load_before(cursor, walk.place.index);
}
