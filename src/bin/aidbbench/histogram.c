/* histogram.c - merging and reading of latency histograms; recording is inline in the header. */
#include "config.h"
#include "bin/aidbbench/histogram.h"

#include <math.h>

void histogram_add(Histogram *sum, const Histogram *other)
{
    sum->count += other->count;
    if (other->max > sum->max)
        sum->max = other->max;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        sum->buckets[i] += other->buckets[i];
}

/* The greatest value that falls into a bucket: the inverse of histogram_bucket. */
static uint64_t bucket_end(unsigned bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    unsigned shift = bucket / HISTOGRAM_STEPS - 1;
    uint64_t steps = bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
    return ((steps + 1) << shift) - 1;
}

uint64_t histogram_percentile(const Histogram *histogram, double fraction)
{
    if (histogram->count == 0)
        return 0;
    double wanted = ceil(fraction * (double)histogram->count);
    uint64_t rank = wanted < 1 ? 1 : (uint64_t)wanted;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            uint64_t end = bucket_end(i);
            return end < histogram->max ? end : histogram->max;
        }
    }
    return histogram->max;
}
