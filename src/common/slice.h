/* slice.h - a borrowed run of bytes. It owns nothing; whoever hands it out says until when. */
#ifndef AIDB_COMMON_SLICE_H
#define AIDB_COMMON_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct Slice {
    const uint8_t *data;
    size_t size;
} Slice;

static inline Slice slice_make(const void *data, size_t size)
{
    return (Slice){.data = data, .size = size};
}

static inline Slice slice_from_string(const char *text)
{
    return (Slice){.data = (const uint8_t *)text, .size = strlen(text)};
}

/* Bytewise order, the shorter first: the order of user keys everywhere. */
static inline int slice_compare(Slice a, Slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;
    if (order != 0)
        return order;
    return (a.size > b.size) - (a.size < b.size);
}

static inline bool slice_equal(Slice a, Slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool slice_has_prefix(Slice a, Slice prefix)
{
    return a.size >= prefix.size &&
           (prefix.size == 0 || memcmp(a.data, prefix.data, prefix.size) == 0);
}

#endif
