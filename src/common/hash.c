/* hash.c - XXH3 by libxxhash. */
#include "config.h"

#include "common/hash.h"

#include <xxhash.h>

uint64_t hash64(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

uint64_t hash_mix(uint64_t a, uint64_t b)
{
    /* Two rounds of a multiply-xorshift finaliser: each input bit reaches every output bit. */
    uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0xd1b54a32d192ed03u);
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 29)) * 0xaef17502108ef2d9u;
    return x ^ (x >> 32);
}
