#include "config.h"
#include "bin/aidbsql/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void require(bool had)
{
    if (!had) {
        fputs("aidbsql: out of memory\n", stderr);
        exit(1);
    }
}

void *mem_alloc(size_t size)
{
    void *memory = malloc(size > 0 ? size : 1);
    require(memory != NULL);
    return memory;
}

void *mem_alloc_zero(size_t size)
{
    void *memory = calloc(1, size > 0 ? size : 1);
    require(memory != NULL);
    return memory;
}

void *mem_resize(void *memory, size_t size)
{
    memory = realloc(memory, size > 0 ? size : 1);
    require(memory != NULL);
    return memory;
}

char *mem_copy_string(const char *text)
{
    return mem_copy_bytes(slice_from_string(text));
}

char *mem_copy_bytes(Slice bytes)
{
    char *copy = mem_alloc(bytes.size + 1);
    if (bytes.size > 0)
        memcpy(copy, bytes.data, bytes.size);
    copy[bytes.size] = '\0';
    return copy;
}

char *mem_format(const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    int size = vasprintf(&text, format, args);
    va_end(args);
    require(size >= 0);
    return text;
}

void mem_reserve(Buffer *buffer, size_t extra)
{
    require(buffer_reserve(buffer, extra) == AIDB_OK);
}

void mem_append(Buffer *buffer, const void *data, size_t size)
{
    require(buffer_append(buffer, data, size) == AIDB_OK);
}

void mem_append_byte(Buffer *buffer, char byte)
{
    require(buffer_append_byte(buffer, (uint8_t)byte) == AIDB_OK);
}

void mem_append_string(Buffer *buffer, const char *text)
{
    mem_append(buffer, text, strlen(text));
}

void mem_append_format(Buffer *buffer, const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    int size = vasprintf(&text, format, args);
    va_end(args);
    require(size >= 0);
    mem_append(buffer, text, (size_t)size);
    free(text);
}

const char *mem_string(Buffer *buffer)
{
    mem_reserve(buffer, 1);
    buffer->data[buffer->size] = '\0';
    return (const char *)buffer->data;
}
