/* buffer.h - a growable byte buffer on the heap. Zero-initialise, use, buffer_deinit. */
#ifndef AIDB_COMMON_BUFFER_H
#define AIDB_COMMON_BUFFER_H

#include "common/slice.h"
#include "common/status.h"

typedef struct Buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
} Buffer;

/* Makes room for `extra` more bytes than `size`; capacity at least doubles, so appending is linear
 * in all. AIDB_NO_MEMORY. */
Status buffer_reserve(Buffer *buffer, size_t extra) MUST_CHECK;
Status buffer_append(Buffer *buffer, const void *data, size_t size) MUST_CHECK;
Status buffer_append_byte(Buffer *buffer, uint8_t byte) MUST_CHECK;
Status buffer_append_varint(Buffer *buffer, uint64_t value) MUST_CHECK;
Status buffer_append_fixed32(Buffer *buffer, uint32_t value) MUST_CHECK;
Status buffer_append_fixed64(Buffer *buffer, uint64_t value) MUST_CHECK;
/* A varint length and then the bytes. */
Status buffer_append_slice(Buffer *buffer, Slice slice) MUST_CHECK;
Status buffer_append_format(Buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3))) MUST_CHECK;
/* Keeps the memory. */
static inline void buffer_clear(Buffer *buffer)
{
    buffer->size = 0;
}
void buffer_deinit(Buffer *buffer);
static inline Slice buffer_slice(const Buffer *buffer)
{
    return slice_make(buffer->data, buffer->size);
}

#endif
