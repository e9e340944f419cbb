/*
 * random.c - seeding, and the zipfian distribution.
 *
 * Zipfian ranks are drawn as in "Quickly Generating Billion-Record Synthetic Databases" (Gray and
 * others, 1994): the first two ranks exactly, the rest by inverting a continuous approximation. That
 * needs the sum zeta(count), which is the only costly part; it is summed exactly for the first terms
 * and by the Euler-Maclaurin formula beyond, so that a billion keys cost as much as a thousand.
 */
#include "config.h"
#include "bin/aidbbench/random.h"

#include <math.h>

void random_init(Random *random, uint64_t seed, uint64_t stream)
{
    uint64_t value = random_mix(seed) ^ random_mix(~stream);
    for (int i = 0; i < 4; i++) {
        value = random_mix(value + (uint64_t)i);
        random->state[i] = value;
    }
    /* The one state that xoshiro never leaves. */
    if ((random->state[0] | random->state[1] | random->state[2] | random->state[3]) == 0)
        random->state[0] = 1;
}

double zipfian_zeta(uint64_t count, double theta)
{
    enum { EXACT_TERMS = 1000 };
    uint64_t exact = count < EXACT_TERMS ? count : EXACT_TERMS;
    double sum = 0;
    for (uint64_t i = exact; i > 0; i--) /* small terms first: fewer bits are lost */
        sum += pow((double)i, -theta);
    if (count == exact)
        return sum;

    double m = (double)exact, n = (double)count;
    double integral = (pow(n, 1 - theta) - pow(m, 1 - theta)) / (1 - theta);
    double ends = (pow(n, -theta) - pow(m, -theta)) / 2;
    double slopes = theta * (pow(m, -theta - 1) - pow(n, -theta - 1)) / 12;
    return sum + integral + ends + slopes;
}

void zipfian_init(Zipfian *zipfian, uint64_t count, double theta)
{
    double second = pow(0.5, theta);
    zipfian->count = count;
    zipfian->zeta = zipfian_zeta(count, theta);
    zipfian->alpha = 1 / (1 - theta);
    zipfian->two_ranks = 1 + second;
    /* With one or two ranks zipfian_next never reaches the tail. */
    zipfian->eta = count <= 2 ? 0
                              : (1 - pow(2 / (double)count, 1 - theta)) /
                                    (1 - zipfian->two_ranks / zipfian->zeta);
}

uint64_t zipfian_next(const Zipfian *zipfian, Random *random)
{
    double u = random_fraction(random);
    double uz = u * zipfian->zeta;
    if (uz < 1 || zipfian->count == 1)
        return 0;
    if (uz < zipfian->two_ranks || zipfian->count == 2)
        return 1;
    double rank = (double)zipfian->count * pow(zipfian->eta * u - zipfian->eta + 1, zipfian->alpha);
    uint64_t whole = rank > 0 ? (uint64_t)rank : 0;
    return whole < zipfian->count ? whole : zipfian->count - 1;
}
