/* data.c - the pool of compressible bytes that values are taken from. */
#include "config.h"
#include "bin/aidbbench/data.h"

#include <math.h>
#include <stdlib.h>

/* Large enough that repeats of the pool lie outside of any one block or table window that matters
 * to a compressor, small enough to stay in the second-level cache. */
#define POOL_SIZE_MIN ((size_t)1 << 20)
#define RUN_SIZE      100

size_t key_size_min(uint64_t count)
{
    size_t size = 1;
    while (size < KEY_NUMBER_SIZE && count > UINT64_C(1) << (8 * size))
        size++;
    return size;
}

static void encode_text(uint8_t *key, size_t size, uint64_t number)
{
    memcpy(key, "key:", 4);
    for (size_t i = size; i > 4; i--) {
        key[i - 1] = (uint8_t)('0' + number % 10);
        number /= 10;
    }
}

static void encode_binary(uint8_t *key, size_t size, uint64_t number)
{
    /* random_mix is a bijection, so the first eight bytes tell the keys apart. */
    for (size_t at = 0; at < size; at += sizeof number) {
        number = random_mix(number);
        memcpy(key + at, &number, size - at < sizeof number ? size - at : sizeof number);
    }
}

void key_encode_shaped(uint8_t *key, size_t size, uint64_t number, KeyShape shape)
{
    switch (shape) {
    case KEY_NUMBER:
        key_encode(key, size, number);
        break;
    case KEY_TEXT:
        encode_text(key, size, number);
        break;
    case KEY_PREFIX:
        key_encode(key + size - KEY_NUMBER_SIZE, KEY_NUMBER_SIZE, number);
        break;
    case KEY_BINARY:
        encode_binary(key, size, number);
        break;
    }
}

bool value_pool_create(ValuePool *pool, size_t value_size, double ratio, uint64_t seed)
{
    pool->size = value_size > POOL_SIZE_MIN ? value_size : POOL_SIZE_MIN;
    pool->data = malloc(pool->size);
    if (pool->data == NULL)
        return false;

    Random random;
    random_init(&random, seed, UINT64_MAX);
    size_t fresh = (size_t)lround(RUN_SIZE * ratio);
    if (fresh == 0)
        fresh = 1;
    for (size_t start = 0; start < pool->size; start += RUN_SIZE) {
        size_t end = pool->size - start < RUN_SIZE ? pool->size : start + RUN_SIZE;
        for (size_t i = start; i < end; i++) {
            pool->data[i] = i - start < fresh ? (uint8_t)(' ' + random_below(&random, 95))
                                              : pool->data[i - fresh];
        }
    }
    return true;
}

void value_pool_destroy(ValuePool *pool)
{
    free(pool->data);
    pool->data = NULL;
    pool->size = 0;
}
