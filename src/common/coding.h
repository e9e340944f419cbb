/*
 * coding.h - integers in files and frames: little-endian fixed width, and LEB128 varints.
 *
 * Decoders never read past `end`: they return the place behind what they read, or NULL when the
 * bytes run out or a varint is longer than it may be. Passing NULL in gives NULL out, so that a row
 * of decodes needs one check at its end.
 */
#ifndef AIDB_COMMON_CODING_H
#define AIDB_COMMON_CODING_H

#include "common/slice.h"
#include <endian.h>

#define VARINT32_MAX 5
#define VARINT64_MAX 10

static inline void put_fixed16(uint8_t *to, uint16_t value)
{
    value = htole16(value);
    memcpy(to, &value, sizeof value);
}
static inline void put_fixed32(uint8_t *to, uint32_t value)
{
    value = htole32(value);
    memcpy(to, &value, sizeof value);
}
static inline void put_fixed64(uint8_t *to, uint64_t value)
{
    value = htole64(value);
    memcpy(to, &value, sizeof value);
}
static inline uint16_t get_fixed16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return le16toh(value);
}
static inline uint32_t get_fixed32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return le32toh(value);
}
static inline uint64_t get_fixed64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return le64toh(value);
}

static inline const uint8_t *decode_fixed32(const uint8_t *from, const uint8_t *end,
                                            uint32_t *value)
{
    if (from == NULL || end - from < 4)
        return NULL;
    *value = get_fixed32(from);
    return from + 4;
}
static inline const uint8_t *decode_fixed64(const uint8_t *from, const uint8_t *end,
                                            uint64_t *value)
{
    if (from == NULL || end - from < 8)
        return NULL;
    *value = get_fixed64(from);
    return from + 8;
}

/* Writes at most VARINT64_MAX bytes and returns the place behind them. */
static inline uint8_t *put_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}
static inline size_t varint_size(uint64_t value)
{
    size_t size = 1;
    for (; value >= 0x80; value >>= 7)
        size++;
    return size;
}

const uint8_t *decode_varint64_slow(const uint8_t *from, const uint8_t *end, uint64_t *value);

static inline const uint8_t *decode_varint64(const uint8_t *from, const uint8_t *end,
                                             uint64_t *value)
{
    if (from != NULL && from < end && *from < 0x80) {
        *value = *from;
        return from + 1;
    }
    return decode_varint64_slow(from, end, value);
}
static inline const uint8_t *decode_varint32(const uint8_t *from, const uint8_t *end,
                                             uint32_t *value)
{
    uint64_t wide = 0;
    from = decode_varint64(from, end, &wide);
    if (from == NULL || wide > UINT32_MAX)
        return NULL;
    *value = (uint32_t)wide;
    return from;
}
/* A varint length and that many bytes, borrowed from the input. */
static inline const uint8_t *decode_slice(const uint8_t *from, const uint8_t *end, Slice *slice)
{
    uint64_t size = 0;
    from = decode_varint64(from, end, &size);
    if (from == NULL || size > (uint64_t)(end - from))
        return NULL;
    *slice = slice_make(from, (size_t)size);
    return from + size;
}

#endif
