/*
 * histogram.h - a fixed-size log-linear histogram of latencies.
 *
 * Each power of two is cut into HISTOGRAM_STEPS equal buckets, so a percentile is at most one part
 * in HISTOGRAM_STEPS above the true value, whatever the range, and recording is a shift and an
 * increment. Values are nanoseconds; those past HISTOGRAM_VALUE_MAX (18 minutes) are counted as
 * that. A histogram belongs to one thread until that thread has ended; then it may be added to
 * another one.
 */
#ifndef AIDB_BENCH_HISTOGRAM_H
#define AIDB_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS  7
#define HISTOGRAM_STEPS      (1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_VALUE_BITS 40
#define HISTOGRAM_VALUE_MAX  ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)
#define HISTOGRAM_BUCKETS    ((HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

/* All zero is an empty histogram. */
typedef struct Histogram {
    uint64_t count;
    uint64_t max; /* exact, not rounded to a bucket */
    uint64_t buckets[HISTOGRAM_BUCKETS];
} Histogram;

/* Values below HISTOGRAM_STEPS have a bucket each. Above, the highest HISTOGRAM_STEP_BITS + 1 bits
 * of the value, the first of which is always set, number the bucket within its power of two. */
static inline unsigned histogram_bucket(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return shift * HISTOGRAM_STEPS + (unsigned)(value >> shift);
}

static inline void histogram_record(Histogram *histogram, uint64_t value)
{
    if (value > HISTOGRAM_VALUE_MAX)
        value = HISTOGRAM_VALUE_MAX;
    histogram->count++;
    if (value > histogram->max)
        histogram->max = value;
    histogram->buckets[histogram_bucket(value)]++;
}

void histogram_add(Histogram *sum, const Histogram *other);

/* The value that `fraction` (0 to 1) of all recorded values do not exceed, rounded up to the end of
 * its bucket but never past the greatest value recorded. 0 when nothing was recorded. */
uint64_t histogram_percentile(const Histogram *histogram, double fraction);

#endif
