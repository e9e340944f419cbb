/*
 * random.h - random numbers and the distributions that keys are drawn from.
 *
 * The generator is xoshiro256**: four words of state, about a nanosecond a number, good in every
 * bit. Every thread and pass has a stream of its own, derived from the run's seed, so that a seed
 * repeats a run while no two streams repeat each other.
 */
#ifndef AIDB_BENCH_RANDOM_H
#define AIDB_BENCH_RANDOM_H

#include <stdint.h>

typedef struct Random {
    uint64_t state[4];
} Random;

/* One step of splitmix64: a good hash of 64 bits, and the seeding that xoshiro asks for. */
static inline uint64_t random_mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

void random_init(Random *random, uint64_t seed, uint64_t stream);

static inline uint64_t random_rotate(uint64_t value, int bits)
{
    return (value << bits) | (value >> (64 - bits));
}

static inline uint64_t random_next(Random *random)
{
    uint64_t *s = random->state;
    uint64_t result = random_rotate(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = random_rotate(s[3], 45);
    return result;
}

/* Uniform in [0, bound), bound > 0. The bias is bound / 2^64, which no benchmark can see. */
static inline uint64_t random_below(Random *random, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)random_next(random) * bound) >> 64);
}

/* Uniform in [0, 1). */
static inline double random_fraction(Random *random)
{
    return (double)(random_next(random) >> 11) * 0x1.0p-53;
}

/*
 * The zipfian distribution over ranks 0 to count - 1: rank r is drawn with a probability in
 * proportion to 1 / (r + 1)^theta. Read-only once made, so threads may share it.
 */
typedef struct Zipfian {
    uint64_t count;
    double zeta;      /* sum of 1 / i^theta for i = 1 to count */
    double alpha;     /* 1 / (1 - theta) */
    double eta;       /* stretches the continuous tail to end at count */
    double two_ranks; /* 1 + 1 / 2^theta: the share of the first two ranks, times zeta */
} Zipfian;

/* The skew that YCSB uses. */
#define ZIPFIAN_THETA 0.99

/* The sum of 1 / i^theta for i = 1 to count, 0 < theta < 1, to about 12 digits in constant time. */
double zipfian_zeta(uint64_t count, double theta);

/* count > 0, 0 < theta < 1. */
void zipfian_init(Zipfian *zipfian, uint64_t count, double theta);

uint64_t zipfian_next(const Zipfian *zipfian, Random *random);

/* Maps rank to key one to one, so that popular keys are spread over the whole of [0, count) instead
 * of being neighbours. */
static inline uint64_t zipfian_scatter(uint64_t rank, uint64_t count)
{
    /* A prime above every possible count shares no factor with it. */
    const uint64_t prime = UINT64_C(11400714785074694791);
    return (uint64_t)((unsigned __int128)rank * prime % count);
}

#endif
