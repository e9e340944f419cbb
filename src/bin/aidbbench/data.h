/*
 * data.h - the keys and values that workloads write.
 *
 * Both have the form that RocksDB's db_bench gives them, so that the two programs put the same load
 * on an engine. Key number n is n as eight bytes, most significant first, padded with '0' digits to
 * the key size; shorter keys hold the lowest bytes of n. Other shapes of keys show what an engine does
 * with keys that are not like that (KeyShape). Values are consecutive pieces of one pool
 * of bytes, made of 100-byte runs that each repeat a random printable text of 100 times the
 * compression ratio, so that a compressor reaches about that ratio.
 */
#ifndef AIDB_BENCH_DATA_H
#define AIDB_BENCH_DATA_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bin/aidbbench/random.h"

#define KEY_NUMBER_SIZE 8

/* Fills the part of a key that does not depend on its number. To be called once for a buffer. */
static inline void key_init(uint8_t *key, size_t size)
{
    memset(key, '0', size);
}

static inline void key_encode(uint8_t *key, size_t size, uint64_t number)
{
    if (size >= KEY_NUMBER_SIZE) {
        uint64_t ordered = htobe64(number);
        memcpy(key, &ordered, KEY_NUMBER_SIZE);
    } else {
        uint64_t ordered = htobe64(number << (8 * (KEY_NUMBER_SIZE - size)));
        memcpy(key, &ordered, size);
    }
}

typedef enum KeyShape {
    KEY_NUMBER, /* as above */
    KEY_TEXT,   /* "key:" and n in decimal digits, zeros in front */
    KEY_PREFIX, /* one prefix for all, n as the last eight bytes */
    KEY_BINARY  /* any bytes, in no order of n; no two numbers have the same */
} KeyShape;

/* The smallest size of a key of a shape other than KEY_NUMBER: room for the digits of KEY_TEXT. */
#define KEY_SHAPED_SIZE_MIN  16
/* The most keys of such a shape that are told apart. */
#define KEY_SHAPED_COUNT_MAX UINT64_C(1000000000000)

/* Key `number` of any shape. size is at least KEY_SHAPED_SIZE_MIN, number below KEY_SHAPED_COUNT_MAX, unless the
 * shape is KEY_NUMBER; key_init was called for the buffer. */
void key_encode_shaped(uint8_t *key, size_t size, uint64_t number, KeyShape shape);

/* The smallest key size that tells `count` key numbers apart. */
size_t key_size_min(uint64_t count);

/* Read-only once made, so threads share it; each has its own position in it. */
typedef struct ValuePool {
    uint8_t *data;
    size_t size;
} ValuePool;

/* False when memory is short. value_size is the size of the largest value that will be taken,
 * ratio is in (0, 1]. */
bool value_pool_create(ValuePool *pool, size_t value_size, double ratio, uint64_t seed);
void value_pool_destroy(ValuePool *pool);

/* The next value of value_size bytes, borrowed from the pool. */
static inline const uint8_t *value_pool_next(const ValuePool *pool, size_t *position,
                                             size_t value_size)
{
    if (*position + value_size > pool->size)
        *position = 0;
    const uint8_t *value = pool->data + *position;
    *position += value_size;
    return value;
}

#endif
