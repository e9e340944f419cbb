/*
 * filter.c - the filter: a Bloom filter whose probes for a key all fall into one cache line.
 *
 * It is cut into sections of just under 32 KiB, each a block of its own with its own checksum, so
 * that a large table's filter is cached piece by piece. The high half of the key's hash chooses the
 * section, the low half the line, and a remix of both the bits: no index leads to a section.
 *
 *   payload: lines of 64 bytes | number of probes u8
 */
#include "config.h"

#include "engine/sstable/sstable_internal.h"

#include "common/hash.h"

#define FILTER_PROBES_MAX 14u
#define FILTER_HASH_SEED  0x41694462u

uint64_t table_key_hash(Slice key)
{
    return hash64(key.data, key.size, FILTER_HASH_SEED);
}

FilterShape filter_shape(uint64_t keys, uint32_t bits)
{
    FilterShape shape = {0};
    if (keys == 0 || bits == 0)
        return shape;
    uint64_t lines = (keys * bits + FILTER_LINE * 8 - 1) / (FILTER_LINE * 8);
    uint64_t sections = (lines + FILTER_SECTION_LINES - 1) / FILTER_SECTION_LINES;
    if (sections > UINT32_MAX)
        sections = UINT32_MAX;
    shape.sections = (uint32_t)sections;
    lines = (lines + sections - 1) / sections;
    shape.lines = (uint32_t)(lines < FILTER_SECTION_LINES ? lines : FILTER_SECTION_LINES);
    /* A little under ln 2 bits a key: keys crowd in some lines, and there more probes hurt. */
    uint32_t probes = (bits * 6 + 5) / 10;
    shape.probes = probes < 1 ? 1 : probes > FILTER_PROBES_MAX ? FILTER_PROBES_MAX : probes;
    return shape;
}

static uint32_t line_of(uint64_t hash, uint32_t lines)
{
    return (uint32_t)(((hash & UINT32_MAX) * lines) >> 32);
}

/* Sixty-three bits that are seven places in a line. */
static uint64_t places(uint64_t hash)
{
    hash *= 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 32);
}

void filter_add(uint8_t *payload, uint32_t lines, uint32_t probes, uint64_t hash)
{
    uint8_t *line = payload + (size_t)line_of(hash, lines) * FILTER_LINE;
    uint64_t bits = places(hash);
    uint64_t rest = bits;
    for (uint32_t i = 0; i < probes; i++) {
        if (i == 7)
            rest = places(bits);
        line[(rest >> 3) & 63] |= (uint8_t)(1u << (rest & 7));
        rest >>= 9;
    }
}

size_t filter_line_at(size_t size, uint64_t hash)
{
    return (size_t)line_of(hash, (uint32_t)(size / FILTER_LINE)) * FILTER_LINE;
}

bool filter_may_contain(Slice payload, uint64_t hash)
{
    if (payload.size < FILTER_LINE + 1 || payload.size % FILTER_LINE != 1)
        return true;
    uint32_t probes = payload.data[payload.size - 1];
    if (probes > FILTER_PROBES_MAX)
        return true;
    const uint8_t *line = payload.data + filter_line_at(payload.size, hash);
    uint64_t bits = places(hash);
    uint64_t rest = bits;
    for (uint32_t i = 0; i < probes; i++) {
        if (i == 7)
            rest = places(bits);
        if ((line[(rest >> 3) & 63] & (1u << (rest & 7))) == 0)
            return false;
        rest >>= 9;
    }
    return true;
}
