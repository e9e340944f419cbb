/*
 * mem.h - memory for a program: what cannot be had ends the program.
 *
 * Libraries return AIDB_NO_MEMORY; a command line tool that cannot get memory for a word of input
 * has nothing better to do than say so and exit with code 1. Keeping that in one place lets the
 * rest of aidbsql append to buffers without an error path that could never be tested.
 */
#ifndef AIDBSQL_MEM_H
#define AIDBSQL_MEM_H

#include "common/buffer.h"

void *mem_alloc(size_t size);
void *mem_alloc_zero(size_t size);
void *mem_resize(void *memory, size_t size);
/* A null-terminated copy. */
char *mem_copy_string(const char *text);
char *mem_copy_bytes(Slice bytes);
char *mem_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

void mem_reserve(Buffer *buffer, size_t extra);
void mem_append(Buffer *buffer, const void *data, size_t size);
void mem_append_byte(Buffer *buffer, char byte);
void mem_append_string(Buffer *buffer, const char *text);
void mem_append_format(Buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The buffer as a string: a null byte is put behind it, which is not counted in its size. */
const char *mem_string(Buffer *buffer);

#endif
