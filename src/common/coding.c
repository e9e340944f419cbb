/* coding.c - the slow path of varint decoding. */
#include "config.h"

#include "common/coding.h"

const uint8_t *decode_varint64_slow(const uint8_t *from, const uint8_t *end, uint64_t *value)
{
    if (from == NULL)
        return NULL;
    uint64_t result = 0;
    for (unsigned shift = 0; shift < 64 && from < end; shift += 7) {
        uint64_t byte = *from++;
        if (shift == 63 && byte > 1)
            return NULL; /* more than 64 bits */
        result |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = result;
            return from;
        }
    }
    return NULL;
}
