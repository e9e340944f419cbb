/*
 * block.c - data blocks: entries with prefix-compressed keys, restart points, search.
 *
 *   payload: number of restarts u32 | bytes that all keys share u32
 *            | for each restart: the 4 key bytes behind those, as a number (u32), its offset (u32)
 *            | entries
 *   entry:   shared | unshared | value size | (LSN - base) << 2 | type   (varints)
 *            unshared key bytes | value bytes
 *
 * At a restart (every 16th entry, or after 1 KiB) the key stands whole. A search is binary over the
 * numbers at the head of the block, which lie in one or two cache lines, and then linear over one
 * interval: a key in memory that is not in the CPU's caches costs two misses and not one for each
 * restart. Restarts whose numbers tie are compared in full.
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

#define KEY_STEP 16u /* key bytes that are copied without asking how many are needed */

/* ---- building -------------------------------------------------------------------------------- */

void block_builder_deinit(BlockBuilder *builder)
{
    buffer_deinit(&builder->data);
    buffer_deinit(&builder->restarts);
    buffer_deinit(&builder->payload);
}

void block_builder_clear(BlockBuilder *builder)
{
    buffer_clear(&builder->data);
    buffer_clear(&builder->restarts);
    builder->entries = 0;
    builder->since_restart = 0;
    builder->restart_offset = 0;
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

static bool next_is_restart(const BlockBuilder *builder)
{
    return builder->entries == 0 || builder->since_restart == RESTART_INTERVAL ||
           builder->data.size - builder->restart_offset >= RESTART_BYTES;
}

static uint64_t entry_tag(const Entry *entry, uint64_t lsn_base)
{
    return (entry->lsn - lsn_base) << 2 | entry->type;
}

size_t block_builder_size_with(const BlockBuilder *builder, const Entry *entry, size_t shared,
                               uint64_t lsn_base)
{
    bool restart = next_is_restart(builder);
    if (restart)
        shared = 0;
    size_t unshared = entry->key.size - shared;
    return BLOCK_HEAD + builder->data.size + builder->restarts.size * 2 + (restart ? 8 : 0) +
           varint_size(shared) + varint_size(unshared) + varint_size(entry->value.size) +
           varint_size(entry_tag(entry, lsn_base)) + unshared + entry->value.size;
}

Status block_builder_add(BlockBuilder *builder, const Entry *entry, size_t shared,
                         uint64_t lsn_base)
{
    if (next_is_restart(builder)) {
        RETURN_IF_FAILED(buffer_append_fixed32(&builder->restarts, (uint32_t)builder->data.size));
        builder->since_restart = 0;
        builder->restart_offset = builder->data.size;
        shared = 0;
    }
    size_t unshared = entry->key.size - shared;
    Buffer *data = &builder->data;
    RETURN_IF_FAILED(buffer_reserve(data, 4 * VARINT64_MAX + unshared + entry->value.size));
    uint8_t *at = data->data + data->size;
    at = put_varint(at, shared);
    at = put_varint(at, unshared);
    at = put_varint(at, entry->value.size);
    at = put_varint(at, entry_tag(entry, lsn_base));
    if (unshared > 0)
        memcpy(at, entry->key.data + shared, unshared);
    at += unshared;
    if (entry->value.size > 0)
        memcpy(at, entry->value.data, entry->value.size);
    data->size = (size_t)(at - data->data) + entry->value.size;
    builder->entries++;
    builder->since_restart++;
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
    const uint8_t *end = builder->data.data + builder->data.size;
    uint64_t numbers[4];
    const uint8_t *at = builder->data.data + offset;
    for (int i = 0; i < 4; i++)
        at = decode_varint64(at, end, &numbers[i]);
    return slice_make(at, (size_t)numbers[1]);
}

Status block_builder_finish(BlockBuilder *builder, Slice last_key)
{
    uint32_t count = (uint32_t)(builder->restarts.size / 4);
    size_t shared = count > 0 ? key_shared_prefix(restart_key(builder, 0), last_key) : 0;
    Buffer *payload = &builder->payload;
    size_t head = BLOCK_HEAD + (size_t)count * 8;
    payload->size = 0;
    RETURN_IF_FAILED(buffer_reserve(payload, head + builder->data.size + TRAILER_SIZE));
    put_fixed32(payload->data, count);
    put_fixed32(payload->data + 4, (uint32_t)shared);
    uint8_t *at = payload->data + BLOCK_HEAD;
    for (uint32_t i = 0; i < count; i++, at += 8) {
        uint32_t offset = get_fixed32(builder->restarts.data + (size_t)i * 4);
        put_fixed32(at, key_number(restart_key(builder, offset), shared));
        put_fixed32(at + 4, (uint32_t)head + offset);
    }
    payload->size = head;
    return buffer_append(payload, builder->data.data, builder->data.size);
}

/* ---- reading --------------------------------------------------------------------------------- */

bool block_view_init(BlockView *view, Slice payload, uint64_t lsn_base)
{
    *view = (BlockView){.lsn_base = lsn_base};
    if (payload.size < BLOCK_HEAD || payload.size > BLOCK_RAW_MAX)
        return false;
    uint32_t count = get_fixed32(payload.data);
    if (count > (payload.size - BLOCK_HEAD) / 8)
        return false;
    view->data = payload.data;
    view->begin = BLOCK_HEAD + count * 8;
    view->end = (uint32_t)payload.size;
    view->restart_count = count;
    view->shared = get_fixed32(payload.data + 4);
    /* Without a restart there is no entry, and the first entry is a restart. */
    if (count == 0)
        return view->begin == view->end;
    return view->begin < view->end && get_fixed32(payload.data + BLOCK_HEAD + 4) == view->begin;
}

static uint32_t restart_number(const BlockView *view, uint32_t i)
{
    return get_fixed32(view->data + BLOCK_HEAD + (size_t)i * 8);
}

static uint32_t restart_at(const BlockView *view, uint32_t i)
{
    return get_fixed32(view->data + BLOCK_HEAD + (size_t)i * 8 + 4);
}

/* One entry's fixed part, with its bytes still where they are. */
typedef struct RawEntry {
    uint32_t shared;
    uint32_t unshared;
    const uint8_t *key;
    Slice value;
    uint64_t lsn;
    uint8_t type;
    uint32_t next; /* offset behind it */
} RawEntry;

/* A varint of up to 8 bytes without a branch for each of them; longer ones, and those near the end of
 * the block, go the slow way. */
static inline const uint8_t *tag_decode(const uint8_t *from, const uint8_t *end, uint64_t *value)
{
    if (from == NULL || end - from < 8)
        return decode_varint64(from, end, value);
    uint64_t word = get_fixed64(from);
    uint64_t stops = ~word & 0x8080808080808080u;
    if (stops == 0)
        return decode_varint64_slow(from, end, value);
    word &= stops ^ (stops - 1); /* bytes up to the one that stops */
    word = (word & 0x007f007f007f007fu) | (word & 0x7f007f007f007f00u) >> 1;
    word = (word & 0x00003fff00003fffu) | (word & 0x3fff00003fff0000u) >> 2;
    *value = (word & 0x000000000fffffffu) | (word & 0x0fffffff00000000u) >> 4;
    return from + __builtin_ctzll(stops) / 8 + 1;
}

static inline __attribute__((always_inline)) bool raw_entry_decode(const BlockView *view,
                                                                   uint32_t offset, RawEntry *raw)
{
    if (offset >= view->end)
        return false;
    const uint8_t *at = view->data + offset;
    const uint8_t *end = view->data + view->end;
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
    }
    uint64_t tag = 0;
    at = tag_decode(at, end, &tag);
    if (at == NULL)
        return false;
    size_t left = (size_t)(end - at);
    if (unshared > left || value_size > left - unshared)
        return false;
    raw->shared = shared;
    raw->unshared = unshared;
    raw->key = at;
    raw->value = slice_make(at + unshared, value_size);
    raw->lsn = view->lsn_base + (tag >> 2);
    raw->type = tag & 3;
    raw->next = (uint32_t)(at + unshared + value_size - view->data);
    return raw->type == OP_PUT || (raw->type == OP_DELETE && value_size == 0);
}

/* The last restart whose entry is before (key, lsn) in internal order; 0 when none is. */
static bool find_restart(const BlockView *view, Slice key, uint64_t lsn, uint32_t *restart)
{
    *restart = 0;
    if (view->restart_count == 1)
        return true; /* the walk finds out the rest */
    RawEntry raw;
    if (!raw_entry_decode(view, view->begin, &raw) || raw.shared != 0 ||
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
        if (!raw_entry_decode(view, restart_at(view, middle), &raw) || raw.shared != 0)
            return false;
        if (entry_compare(slice_make(raw.key, raw.unshared), raw.lsn, key, lsn) < 0)
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
    uint32_t offset; /* view->end: no entry */
    bool equal_key;  /* the entry's key is the wanted key */
    RawEntry raw;
} Walk;

/* Walks from a restart, the last before (key, lsn) or the first of all, to the first entry at or after
 * (key, lsn). Returns false when the block is damaged. */
static bool walk_to(const BlockView *view, uint32_t restart, Slice key, uint64_t lsn, Walk *walk)
{
    uint32_t offset = restart_at(view, restart);
    uint32_t next_restart =
        restart + 1 < view->restart_count ? restart_at(view, restart + 1) : view->end;
    size_t matched = 0;   /* bytes of key that the last entry had in common with it */
    size_t last_size = 0; /* size of the last entry's key */
    while (offset < view->end) {
        RawEntry *raw = &walk->raw;
        if (offset == next_restart) {
            matched = 0;
            last_size = 0;
        }
        if (!raw_entry_decode(view, offset, raw) || raw->shared > last_size)
            return false;
        last_size = (size_t)raw->shared + raw->unshared;
        if (raw->shared < matched) {
            /* It left the prefix that its predecessor (which was before key) had in common with key, and keys
             * rise: it is behind. */
            walk->offset = offset;
            walk->equal_key = false;
            return true;
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
            if (order > 0 || (order == 0 && raw->lsn <= lsn)) {
                walk->offset = offset;
                walk->equal_key = order == 0;
                return true;
            }
        }
        /* else it shares more than matched: before key, as its predecessor was */
        offset = raw->next;
    }
    walk->offset = view->end;
    walk->equal_key = false;
    return true;
}

BlockFind block_find(const BlockView *view, Slice key, uint64_t visible, Entry *entry)
{
    if (view->restart_count == 0)
        return BLOCK_MISSING;
    uint32_t restart = 0;
    Walk walk;
    if (!find_restart(view, key, visible, &restart) || !walk_to(view, restart, key, visible, &walk))
        return BLOCK_DAMAGED;
    if (!walk.equal_key)
        return BLOCK_MISSING;
    *entry =
        (Entry){.key = key, .value = walk.raw.value, .lsn = walk.raw.lsn, .type = walk.raw.type};
    return BLOCK_FOUND;
}

/* ---- cursor ---------------------------------------------------------------------------------- */

void block_cursor_deinit(BlockCursor *cursor)
{
    buffer_deinit(&cursor->key);
    buffer_deinit(&cursor->step_keys);
}

bool block_cursor_init(BlockCursor *cursor, Slice payload, uint64_t lsn_base)
{
    cursor->valid = false;
    cursor->no_memory = false;
    cursor->step_count = 0;
    cursor->key.size = 0;
    bool good = block_view_init(&cursor->view, payload, lsn_base);
    cursor->offset = cursor->next_offset = cursor->view.end;
    return good;
}

static bool cursor_end(BlockCursor *cursor)
{
    cursor->valid = false;
    cursor->offset = cursor->next_offset = cursor->view.end;
    cursor->step_count = 0;
    return true;
}

/* Reads the entry at `offset`; the cursor's key is that of the entry before it. */
static inline bool cursor_load(BlockCursor *cursor, uint32_t offset)
{
    RawEntry raw;
    Buffer *key = &cursor->key;
    if (!raw_entry_decode(&cursor->view, offset, &raw) || raw.shared > key->size ||
        raw.shared + (size_t)raw.unshared > AIDB_KEY_MAX) {
        cursor->valid = false;
        return false;
    }
    size_t size = (size_t)raw.shared + raw.unshared;
    key->size = raw.shared;
    if (raw.shared + KEY_STEP <= key->capacity && raw.unshared <= KEY_STEP &&
        cursor->view.end - (uint32_t)(raw.key - cursor->view.data) >= KEY_STEP) {
        memcpy(key->data + raw.shared, raw.key,
               KEY_STEP); /* mostly more than needed, but no call */
    } else {
        if (buffer_reserve(key, raw.unshared) != AIDB_OK) {
            cursor->valid = false;
            cursor->no_memory = true;
            return false;
        }
        if (raw.unshared > 0)
            memcpy(key->data + raw.shared, raw.key, raw.unshared);
    }
    key->size = size;
    cursor->offset = offset;
    cursor->next_offset = raw.next;
    cursor->valid = true;
    cursor->entry = (Entry){
        .key = slice_make(key->data, size), .value = raw.value, .lsn = raw.lsn, .type = raw.type};
    return true;
}

static bool cursor_load_restart(BlockCursor *cursor, uint32_t restart)
{
    cursor->key.size = 0;
    cursor->step_count = 0;
    return cursor_load(cursor, restart_at(&cursor->view, restart));
}

bool block_cursor_first(BlockCursor *cursor)
{
    if (cursor->view.restart_count == 0)
        return cursor_end(cursor);
    return cursor_load_restart(cursor, 0);
}

bool block_cursor_next(BlockCursor *cursor)
{
    if (cursor->step_count > 0) {
        /* The key of the current step is not in the cursor's own buffer. */
        Slice current = cursor->entry.key;
        cursor->step_count = 0;
        cursor->key.size = 0;
        if (buffer_append(&cursor->key, current.data, current.size) != AIDB_OK) {
            cursor->valid = false;
            cursor->no_memory = true;
            return false;
        }
    }
    if (cursor->next_offset >= cursor->view.end)
        return cursor_end(cursor);
    return cursor_load(cursor, cursor->next_offset);
}

static bool cursor_failed(BlockCursor *cursor, bool no_memory)
{
    cursor->valid = false;
    cursor->no_memory = no_memory;
    cursor->step_count = 0;
    return false;
}

bool block_cursor_seek(BlockCursor *cursor, Slice key, uint64_t lsn)
{
    if (cursor->view.restart_count == 0)
        return cursor_end(cursor);
    uint32_t restart = 0;
    Walk walk;
    if (!find_restart(&cursor->view, key, lsn, &restart) ||
        !walk_to(&cursor->view, restart, key, lsn, &walk))
        return cursor_failed(cursor, false);
    if (walk.offset == cursor->view.end)
        return cursor_end(cursor);
    cursor->key.size = 0;
    cursor->step_count = 0;
    if (buffer_append(&cursor->key, key.data, walk.raw.shared) != AIDB_OK)
        return cursor_failed(cursor, true);
    return cursor_load(cursor, walk.offset);
}

/* ---- walking back ---------------------------------------------------------------------------- */

static bool show_step(BlockCursor *cursor)
{
    const BlockStep *step = &cursor->steps[cursor->step];
    cursor->offset = step->offset;
    cursor->next_offset = step->next_offset;
    cursor->valid = true;
    cursor->entry =
        (Entry){.key = slice_make(cursor->step_keys.data + step->key_offset, step->key_size),
                .value = step->value,
                .lsn = step->lsn,
                .type = step->type};
    return true;
}

/* Decodes the entries of an interval that lie before `limit` and stands on the last of them. There
 * is at least one. */
static bool load_steps(BlockCursor *cursor, uint32_t restart, uint32_t limit)
{
    const BlockView *view = &cursor->view;
    uint32_t offset = restart_at(view, restart);
    Buffer *keys = &cursor->step_keys;
    keys->size = 0;
    cursor->step_count = 0;
    uint32_t count = 0;
    uint32_t last_offset = 0;
    uint32_t last_size = 0;
    while (offset < limit) {
        RawEntry raw;
        if (count == RESTART_INTERVAL || !raw_entry_decode(view, offset, &raw) ||
            raw.shared > last_size)
            return cursor_failed(cursor, false);
        size_t size = (size_t)raw.shared + raw.unshared;
        if (size > AIDB_KEY_MAX)
            return cursor_failed(cursor, false);
        if (buffer_reserve(keys, size) != AIDB_OK)
            return cursor_failed(cursor, true);
        uint8_t *to = keys->data + keys->size;
        if (raw.shared > 0)
            memcpy(to, keys->data + last_offset, raw.shared);
        if (raw.unshared > 0)
            memcpy(to + raw.shared, raw.key, raw.unshared);
        cursor->steps[count++] = (BlockStep){.offset = offset,
                                             .next_offset = raw.next,
                                             .key_offset = (uint32_t)keys->size,
                                             .key_size = (uint32_t)size,
                                             .value = raw.value,
                                             .lsn = raw.lsn,
                                             .type = raw.type};
        last_offset = (uint32_t)keys->size;
        last_size = (uint32_t)size;
        keys->size += size;
        offset = raw.next;
    }
    if (count == 0)
        return cursor_failed(cursor, false);
    cursor->step_count = count;
    cursor->step = count - 1;
    return show_step(cursor);
}

/* Stands on the last entry that begins before `limit`, an offset of an entry or the end. */
static bool load_before(BlockCursor *cursor, uint32_t limit)
{
    const BlockView *view = &cursor->view;
    uint32_t low = 0; /* the last restart before limit; the first is before any other */
    uint32_t high = view->restart_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (restart_at(view, middle) < limit)
            low = middle;
        else
            high = middle;
    }
    return load_steps(cursor, low, limit);
}

bool block_cursor_last(BlockCursor *cursor)
{
    if (cursor->view.restart_count == 0)
        return cursor_end(cursor);
    return load_before(cursor, cursor->view.end);
}

bool block_cursor_prev(BlockCursor *cursor)
{
    if (cursor->step_count > 0 && cursor->step > 0) {
        cursor->step--;
        return show_step(cursor);
    }
    if (cursor->offset <= cursor->view.begin)
        return cursor_end(cursor);
    return load_before(cursor, cursor->offset);
}

bool block_cursor_seek_before(BlockCursor *cursor, Slice key, uint64_t lsn)
{
    if (cursor->view.restart_count == 0)
        return cursor_end(cursor);
    uint32_t restart = 0;
    Walk walk;
    if (!find_restart(&cursor->view, key, lsn, &restart) ||
        !walk_to(&cursor->view, restart, key, lsn, &walk)) {
        cursor->valid = false;
        return false;
    }
    if (walk.offset == cursor->view.begin)
        return cursor_end(cursor);
    return load_before(cursor, walk.offset);
}
