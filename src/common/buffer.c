/* buffer.c - growable byte buffers. */
#include "config.h"

#include "common/buffer.h"
#include "common/coding.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BUFFER_CAPACITY_MIN 64u

Status buffer_reserve(Buffer *buffer, size_t extra)
{
    if (buffer->capacity - buffer->size >= extra)
        return AIDB_OK;
    if (extra > SIZE_MAX / 2 - buffer->size)
        return status_set(AIDB_NO_MEMORY, "out of memory for %zu bytes", extra);
    size_t need = buffer->size + extra;
    size_t capacity =
        buffer->capacity < BUFFER_CAPACITY_MIN ? BUFFER_CAPACITY_MIN : buffer->capacity * 2;
    if (capacity < need)
        capacity = need;
    uint8_t *data = realloc(buffer->data, capacity);
    if (data == NULL)
        return status_set(AIDB_NO_MEMORY, "out of memory for %zu bytes", capacity);
    buffer->data = data;
    buffer->capacity = capacity;
    return AIDB_OK;
}

Status buffer_append(Buffer *buffer, const void *data, size_t size)
{
    RETURN_IF_FAILED(buffer_reserve(buffer, size));
    if (size > 0)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return AIDB_OK;
}

Status buffer_append_byte(Buffer *buffer, uint8_t byte)
{
    return buffer_append(buffer, &byte, 1);
}

Status buffer_append_varint(Buffer *buffer, uint64_t value)
{
    uint8_t bytes[VARINT64_MAX];
    return buffer_append(buffer, bytes, (size_t)(put_varint(bytes, value) - bytes));
}

Status buffer_append_fixed32(Buffer *buffer, uint32_t value)
{
    uint8_t bytes[4];
    put_fixed32(bytes, value);
    return buffer_append(buffer, bytes, sizeof bytes);
}

Status buffer_append_fixed64(Buffer *buffer, uint64_t value)
{
    uint8_t bytes[8];
    put_fixed64(bytes, value);
    return buffer_append(buffer, bytes, sizeof bytes);
}

Status buffer_append_slice(Buffer *buffer, Slice slice)
{
    RETURN_IF_FAILED(buffer_append_varint(buffer, slice.size));
    return buffer_append(buffer, slice.data, slice.size);
}

Status buffer_append_format(Buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int need = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    Status status = need < 0 ? status_set(AIDB_INTERNAL, "cannot format text")
                             : buffer_reserve(buffer, (size_t)need + 1);
    if (status == AIDB_OK) {
        vsnprintf((char *)buffer->data + buffer->size, (size_t)need + 1, format, again);
        buffer->size += (size_t)need; /* the terminating zero stays behind the end */
    }
    va_end(again);
    return status;
}

void buffer_deinit(Buffer *buffer)
{
    free(buffer->data);
    *buffer = (Buffer){0};
}
