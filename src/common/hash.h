/* hash.h - XXH3-64 (libxxhash): checksums, whose seed is the place of the bytes, and hashes. */
#ifndef AIDB_COMMON_HASH_H
#define AIDB_COMMON_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *data, size_t size, uint64_t seed);

/* Mixes two words into a seed, so that for example (table id, offset) become one. */
uint64_t hash_mix(uint64_t a, uint64_t b);

#endif
