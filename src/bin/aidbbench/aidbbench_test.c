/*
 * aidbbench_test.c - the parts of aidbbench that have an exact or a statistical truth: histogram,
 * random distributions, keys and values, options; and whole runs on a directory, whose counts of
 * operations and found keys must come out as the workloads promise. All seeds are fixed, so a
 * distribution check either always holds or never.
 */
#include "config.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "bin/aidbbench/bench.h"
#include "bin/aidbbench/data.h"
#include "bin/aidbbench/histogram.h"
#include "bin/aidbbench/options.h"
#include "bin/aidbbench/random.h"
#include "bin/aidbbench/worker.h"
#include "bin/aidbbench/workload.h"
#include "testlib/testlib.h"

#define SEED 20240917

/* --- Histogram ------------------------------------------------------------------------------- */

START_TEST(histogram_empty)
{
    Histogram *h = calloc(1, sizeof *h);
    ck_assert_uint_eq(histogram_percentile(h, 0), 0);
    ck_assert_uint_eq(histogram_percentile(h, 0.999), 0);
    free(h);
}
END_TEST

START_TEST(histogram_buckets_are_in_order_and_tight)
{
    unsigned previous = histogram_bucket(0);
    ck_assert_uint_eq(previous, 0);
    for (uint64_t value = 1; value < 1 << 16; value++) {
        unsigned bucket = histogram_bucket(value);
        ck_assert_uint_ge(bucket, previous);
        ck_assert_uint_le(bucket, previous + 1);
        previous = bucket;
    }
    for (unsigned bits = 16; bits < HISTOGRAM_VALUE_BITS; bits++) {
        uint64_t power = UINT64_C(1) << bits;
        ck_assert_uint_eq(histogram_bucket(power), histogram_bucket(power - 1) + 1);
    }
    ck_assert_uint_eq(histogram_bucket(HISTOGRAM_VALUE_MAX), HISTOGRAM_BUCKETS - 1);
}
END_TEST

START_TEST(histogram_of_one_value)
{
    static const uint64_t values[] = {0, 1, 127, 128, 129, 1000, 123456789, HISTOGRAM_VALUE_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        Histogram *h = calloc(1, sizeof *h);
        histogram_record(h, values[i]);
        ck_assert_uint_eq(histogram_percentile(h, 0), values[i]);
        ck_assert_uint_eq(histogram_percentile(h, 0.5), values[i]);
        ck_assert_uint_eq(histogram_percentile(h, 1), values[i]);
        free(h);
    }
}
END_TEST

START_TEST(histogram_caps_what_is_too_large)
{
    Histogram *h = calloc(1, sizeof *h);
    histogram_record(h, UINT64_MAX);
    ck_assert_uint_eq(h->count, 1);
    ck_assert_uint_eq(h->max, HISTOGRAM_VALUE_MAX);
    ck_assert_uint_eq(histogram_percentile(h, 1), HISTOGRAM_VALUE_MAX);
    free(h);
}
END_TEST

static int compare_values(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Against the same percentiles of the sorted values: never below, and at most one step above. */
START_TEST(histogram_percentiles_are_close)
{
    enum { COUNT = 20000 };
    static const double fractions[] = {0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    Histogram *h = calloc(1, sizeof *h);
    uint64_t *values = malloc(COUNT * sizeof *values);
    Random random;
    random_init(&random, SEED, 1);
    for (size_t i = 0; i < COUNT; i++) {
        values[i] = (uint64_t)exp(random_fraction(&random) * 20);
        histogram_record(h, values[i]);
    }
    qsort(values, COUNT, sizeof *values, compare_values);
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        uint64_t exact = values[(size_t)ceil(fractions[i] * COUNT) - 1];
        uint64_t found = histogram_percentile(h, fractions[i]);
        ck_assert_uint_ge(found, exact);
        ck_assert_uint_le(found, exact + exact / HISTOGRAM_STEPS + 1);
    }
    free(values);
    free(h);
}
END_TEST

START_TEST(histogram_sum_is_that_of_all_values)
{
    Histogram *all = calloc(1, sizeof *all), *odd = calloc(1, sizeof *odd);
    Histogram *even = calloc(1, sizeof *even);
    for (uint64_t value = 0; value < 5000; value++) {
        histogram_record(all, value * value);
        histogram_record(value % 2 == 0 ? even : odd, value * value);
    }
    histogram_add(odd, even);
    ck_assert_mem_eq(odd, all, sizeof *all);
    free(all);
    free(odd);
    free(even);
}
END_TEST

/* --- Random numbers -------------------------------------------------------------------------- */

START_TEST(random_repeats_by_seed_and_stream)
{
    Random a, b, other_stream, other_seed;
    random_init(&a, SEED, 7);
    random_init(&b, SEED, 7);
    random_init(&other_stream, SEED, 8);
    random_init(&other_seed, SEED + 1, 7);
    for (int i = 0; i < 100; i++) {
        uint64_t value = random_next(&a);
        ck_assert_uint_eq(value, random_next(&b));
        ck_assert_uint_ne(value, random_next(&other_stream));
        ck_assert_uint_ne(value, random_next(&other_seed));
    }
}
END_TEST

/* The published test of xoshiro256**: its output from the state 1, 2, 3, 4. */
START_TEST(random_is_xoshiro)
{
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    Random random = {{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        ck_assert_uint_eq(random_next(&random), expected[i]);
}
END_TEST

START_TEST(random_below_is_uniform)
{
    enum { BOUND = 10, DRAWS = 200000 };
    unsigned counts[BOUND] = {0};
    Random random;
    random_init(&random, SEED, 2);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t value = random_below(&random, BOUND);
        ck_assert_uint_lt(value, BOUND);
        counts[value]++;
    }
    double chi_squared = 0, expected = (double)DRAWS / BOUND;
    for (int i = 0; i < BOUND; i++)
        chi_squared += pow(counts[i] - expected, 2) / expected;
    ck_assert_double_lt(chi_squared, 27.9); /* 9 degrees of freedom, one in a thousand */
    ck_assert_uint_eq(random_below(&random, 1), 0);
}
END_TEST

START_TEST(random_fraction_is_below_one)
{
    Random random;
    random_init(&random, SEED, 3);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        double value = random_fraction(&random);
        ck_assert_double_ge(value, 0);
        ck_assert_double_lt(value, 1);
        sum += value;
    }
    ck_assert_double_eq_tol(sum / 100000, 0.5, 0.005);
}
END_TEST

START_TEST(zipfian_zeta_agrees_with_the_sum)
{
    static const uint64_t counts[] = {1, 2, 999, 1000, 1001, 5000, 1000000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        double sum = 0;
        for (uint64_t k = counts[i]; k > 0; k--)
            sum += pow((double)k, -ZIPFIAN_THETA);
        ck_assert_double_eq_tol(zipfian_zeta(counts[i], ZIPFIAN_THETA), sum, 1e-9);
    }
}
END_TEST

/* Each of the first ranks, and the ranks in groups, come as often as their share says. The draw is
 * exact for the first two and approximate after that, hence the tolerance. */
START_TEST(zipfian_follows_its_shares)
{
    enum { COUNT = 10000, DRAWS = 500000 };
    unsigned *counts = calloc(COUNT, sizeof *counts);
    Zipfian zipfian;
    Random random;
    zipfian_init(&zipfian, COUNT, ZIPFIAN_THETA);
    random_init(&random, SEED, 4);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t rank = zipfian_next(&zipfian, &random);
        ck_assert_uint_lt(rank, COUNT);
        counts[rank]++;
    }
    double zeta = zipfian_zeta(COUNT, ZIPFIAN_THETA);
    ck_assert_double_eq_tol((double)counts[0] / DRAWS, 1 / zeta, 0.002);
    ck_assert_double_eq_tol((double)counts[1] / DRAWS, pow(2, -ZIPFIAN_THETA) / zeta, 0.002);
    for (uint64_t from = 0, to = 10; to <= COUNT; from = to, to *= 10) {
        double wanted = (zipfian_zeta(to, ZIPFIAN_THETA) -
                         (from == 0 ? 0 : zipfian_zeta(from, ZIPFIAN_THETA))) /
                        zeta;
        double drawn = 0;
        for (uint64_t rank = from; rank < to; rank++)
            drawn += counts[rank];
        ck_assert_double_eq_tol(drawn / DRAWS, wanted, 0.03);
    }
    free(counts);
}
END_TEST

START_TEST(zipfian_of_few_keys)
{
    for (uint64_t count = 1; count <= 4; count++) {
        unsigned counts[4] = {0};
        Zipfian zipfian;
        Random random;
        zipfian_init(&zipfian, count, ZIPFIAN_THETA);
        random_init(&random, SEED, count);
        for (int i = 0; i < 20000; i++) {
            uint64_t rank = zipfian_next(&zipfian, &random);
            ck_assert_uint_lt(rank, count);
            counts[rank]++;
        }
        for (uint64_t rank = 1; rank < count; rank++) {
            ck_assert_uint_gt(counts[rank], 0);
            ck_assert_uint_ge(counts[rank - 1], counts[rank]);
        }
    }
}
END_TEST

START_TEST(zipfian_scatter_is_one_to_one)
{
    static const uint64_t counts[] = {1, 2, 10, 1000, 4096, 99991};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        bool *seen = calloc(counts[i], sizeof *seen);
        for (uint64_t rank = 0; rank < counts[i]; rank++) {
            uint64_t key = zipfian_scatter(rank, counts[i]);
            ck_assert_uint_lt(key, counts[i]);
            ck_assert(!seen[key]);
            seen[key] = true;
        }
        free(seen);
    }
    /* Neighbours in popularity are not neighbours in the store. */
    uint64_t first = zipfian_scatter(0, 1000000), second = zipfian_scatter(1, 1000000);
    ck_assert_uint_gt(second > first ? second - first : first - second, 1000);
}
END_TEST

/* --- Keys and values ------------------------------------------------------------------------- */

START_TEST(key_has_the_form_of_db_bench)
{
    uint8_t key[20];
    key_init(key, 16);
    key_encode(key, 16, 0x1d5d);
    ck_assert_mem_eq(key,
                     "\0\0\0\0\0\0\x1d\x5d"
                     "00000000",
                     16);
    key_init(key, 8);
    key_encode(key, 8, UINT64_C(0x0102030405060708));
    ck_assert_mem_eq(key, "\1\2\3\4\5\6\7\10", 8);
    key_init(key, 3);
    key_encode(key, 3, 0x0a0b0c);
    ck_assert_mem_eq(key, "\x0a\x0b\x0c", 3);
}
END_TEST

START_TEST(key_order_is_that_of_the_numbers)
{
    static const size_t sizes[] = {2, 7, 8, 9, 16, 100};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint8_t previous[100], key[100];
        key_init(previous, sizes[s]);
        key_init(key, sizes[s]);
        key_encode(previous, sizes[s], 0);
        for (uint64_t number = 1; number < 1 << 16; number += 251) {
            key_encode(key, sizes[s], number);
            ck_assert_int_lt(memcmp(previous, key, sizes[s]), 0);
            memcpy(previous, key, sizes[s]);
        }
    }
}
END_TEST

START_TEST(key_shapes)
{
    uint8_t key[24], other[24];
    key_init(key, sizeof key);
    key_encode_shaped(key, 16, 42, KEY_TEXT);
    ck_assert_mem_eq(key, "key:000000000042", 16);
    key_init(key, sizeof key);
    key_encode_shaped(key, 20, 258, KEY_PREFIX);
    ck_assert_mem_eq(key, "000000000000\0\0\0\0\0\0\1\2", 20);
    key_encode_shaped(key, 20, 7, KEY_NUMBER);
    key_encode(other, 20, 7);
    ck_assert_mem_eq(key, other, 8);

    /* The same key each time, whatever was in the buffer, and another for each number. */
    key_encode_shaped(key, 21, 7, KEY_BINARY);
    memset(other, 0xee, sizeof other);
    key_encode_shaped(other, 21, 7, KEY_BINARY);
    ck_assert_mem_eq(key, other, 21);
    key_encode_shaped(other, 21, 8, KEY_BINARY);
    ck_assert_mem_ne(key, other, 8);
}
END_TEST

START_TEST(key_size_min_holds_all_numbers)
{
    ck_assert_uint_eq(key_size_min(1), 1);
    ck_assert_uint_eq(key_size_min(256), 1);
    ck_assert_uint_eq(key_size_min(257), 2);
    ck_assert_uint_eq(key_size_min(65536), 2);
    ck_assert_uint_eq(key_size_min(1000000), 3);
    ck_assert_uint_eq(key_size_min(UINT64_MAX), 8);
}
END_TEST

/* The share of its size that a store's block of consecutive values compresses to. */
static double compressed_share(double ratio, size_t value_size)
{
    enum { BLOCK = 4096, BLOCKS = 200 };
    ValuePool pool;
    ck_assert(value_pool_create(&pool, value_size, ratio, SEED));
    size_t position = 0, sum = 0;
    uint8_t block[BLOCK], compressed[2 * BLOCK];
    for (int i = 0; i < BLOCKS; i++) {
        size_t filled = 0;
        while (filled < BLOCK) {
            const uint8_t *value = value_pool_next(&pool, &position, value_size);
            size_t part = value_size < BLOCK - filled ? value_size : BLOCK - filled;
            memcpy(block + filled, value, part);
            filled += part;
        }
        size_t size = ZSTD_compress(compressed, sizeof compressed, block, BLOCK, 3);
        ck_assert(!ZSTD_isError(size));
        sum += size;
    }
    value_pool_destroy(&pool);
    return (double)sum / (BLOCK * BLOCKS);
}

/* Printable bytes hold 6.6 bits each, so a compressor does somewhat better than the ratio. */
START_TEST(values_compress_to_about_the_ratio)
{
    static const double ratios[] = {0.1, 0.25, 0.5, 0.75, 1};
    static const size_t sizes[] = {16, 100, 1024, 4096};
    for (size_t r = 0; r < sizeof ratios / sizeof ratios[0]; r++) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            double share = compressed_share(ratios[r], sizes[s]);
            ck_assert_double_gt(share, 0.8 * ratios[r]);
            ck_assert_double_lt(share, 0.9 * ratios[r] + 0.06);
        }
    }
}
END_TEST

START_TEST(values_lie_within_the_pool)
{
    static const size_t sizes[] = {0, 1, 100, 1 << 20, (1 << 20) + 1, 5000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ValuePool pool;
        ck_assert(value_pool_create(&pool, sizes[i], 0.5, SEED));
        ck_assert_uint_ge(pool.size, sizes[i]);
        size_t position = pool.size - sizes[i];
        for (int k = 0; k < 3; k++) {
            const uint8_t *value = value_pool_next(&pool, &position, sizes[i]);
            ck_assert(value >= pool.data);
            ck_assert(value + sizes[i] <= pool.data + pool.size);
        }
        value_pool_destroy(&pool);
    }
}
END_TEST

/* --- Workloads ------------------------------------------------------------------------------- */

typedef struct Shares {
    double get, put, insert, scan, modify;
} Shares;

/* Draws operations of a workload the way a worker does, without a store. */
static Shares draw_shares(const char *name, bool warming, Distribution distribution)
{
    enum { NUM = 1000, DRAWS = 100000 };
    Options options = {.num = NUM, .distribution = distribution};
    Bench bench = {.options = &options};
    zipfian_init(&bench.zipfian, NUM, ZIPFIAN_THETA);
    Worker *worker = calloc(1, sizeof *worker);
    worker->bench = &bench;
    worker->workload = workload_find(name, strlen(name));
    ck_assert_ptr_nonnull(worker->workload);
    worker->range = NUM;
    worker->warming = warming;
    random_init(&worker->random, SEED, 5);
    Shares shares = {0};
    uint64_t inserted = 0;
    for (int i = 0; i < DRAWS; i++) {
        Operation operation;
        worker->workload->next(worker, &operation);
        if (operation.kind == OPERATION_INSERT) {
            ck_assert_uint_eq(operation.key, NUM + inserted);
            inserted++;
            atomic_fetch_add(&bench.inserted, 1);
        } else {
            ck_assert_uint_lt(operation.key, NUM + inserted);
        }
        if (operation.kind == OPERATION_SCAN) {
            ck_assert_uint_ge(operation.count, 1);
            ck_assert_uint_le(operation.count, 100);
        }
        shares.get += operation.kind == OPERATION_GET;
        shares.put += operation.kind == OPERATION_PUT;
        shares.insert += operation.kind == OPERATION_INSERT;
        shares.scan += operation.kind == OPERATION_SCAN;
        shares.modify += operation.kind == OPERATION_MODIFY;
    }
    free(worker);
    return (Shares){shares.get / DRAWS, shares.put / DRAWS, shares.insert / DRAWS,
                    shares.scan / DRAWS, shares.modify / DRAWS};
}

START_TEST(ycsb_mixes_have_their_shares)
{
    static const struct {
        const char *name;
        Shares shares;
    } cases[] = {
        {"ycsba", {.get = 0.5, .put = 0.5}},
        {"ycsbb", {.get = 0.95, .put = 0.05}},
        {"ycsbc", {.get = 1}},
        {"ycsbd", {.get = 0.95, .insert = 0.05}},
        {"ycsbe", {.scan = 0.95, .insert = 0.05}},
        {"ycsbf", {.get = 0.5, .modify = 0.5}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Shares shares = draw_shares(cases[i].name, false, DISTRIBUTION_DEFAULT);
        ck_assert_double_eq_tol(shares.get, cases[i].shares.get, 0.01);
        ck_assert_double_eq_tol(shares.put, cases[i].shares.put, 0.01);
        ck_assert_double_eq_tol(shares.insert, cases[i].shares.insert, 0.01);
        ck_assert_double_eq_tol(shares.scan, cases[i].shares.scan, 0.01);
        ck_assert_double_eq_tol(shares.modify, cases[i].shares.modify, 0.01);
    }
}
END_TEST

START_TEST(ycsb_takes_every_distribution)
{
    for (int d = DISTRIBUTION_UNIFORM; d <= DISTRIBUTION_LATEST; d++)
        ck_assert_double_eq_tol(draw_shares("ycsbd", false, (Distribution)d).insert, 0.05, 0.01);
}
END_TEST

START_TEST(warm_up_only_reads)
{
    static const char *const names[] = {"ycsba", "ycsbb", "ycsbc", "ycsbd", "ycsbe", "ycsbf"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Shares shares = draw_shares(names[i], true, DISTRIBUTION_DEFAULT);
        ck_assert_double_eq_tol(shares.get + shares.scan, 1, 1e-9);
    }
}
END_TEST

/* Latest: the newest keys are the popular ones, whatever has been inserted meanwhile. */
START_TEST(latest_prefers_the_newest)
{
    enum { NUM = 1000, INSERTED = 500, DRAWS = 50000 };
    Options options = {.num = NUM};
    Bench bench = {.options = &options};
    atomic_init(&bench.inserts, INSERTED);
    atomic_init(&bench.inserted, INSERTED);
    zipfian_init(&bench.zipfian, NUM, ZIPFIAN_THETA);
    Worker *worker = calloc(1, sizeof *worker);
    worker->bench = &bench;
    worker->workload = workload_find("ycsbd", 5);
    worker->range = NUM;
    worker->warming = true; /* gets only: the newest key stays the same */
    random_init(&worker->random, SEED, 6);
    unsigned newest = 0, newest_ten = 0;
    for (int i = 0; i < DRAWS; i++) {
        Operation operation;
        worker->workload->next(worker, &operation);
        ck_assert_uint_lt(operation.key, NUM + INSERTED);
        ck_assert_uint_ge(operation.key, INSERTED);
        newest += operation.key == NUM + INSERTED - 1;
        newest_ten += operation.key >= NUM + INSERTED - 10;
    }
    double zeta = zipfian_zeta(NUM, ZIPFIAN_THETA);
    ck_assert_double_eq_tol((double)newest / DRAWS, 1 / zeta, 0.01);
    ck_assert_double_eq_tol((double)newest_ten / DRAWS, zipfian_zeta(10, ZIPFIAN_THETA) / zeta,
                            0.05);
    free(worker);
}
END_TEST

START_TEST(workload_names_are_whole_words)
{
    ck_assert_ptr_nonnull(workload_find("fillseq", 7));
    ck_assert_ptr_null(workload_find("fillseq", 6));
    ck_assert_ptr_null(workload_find("fillseqs", 8));
    ck_assert_ptr_null(workload_find("", 0));
}
END_TEST

/* --- Options --------------------------------------------------------------------------------- */

#define WORDS_MAX 32

/* Parses a command line given as one string, split at blanks. */
static OptionsResult parse(Options *options, const char *line, char *error, size_t error_size)
{
    static char copy[1024];
    char *words[WORDS_MAX + 1] = {(char *)"aidbbench"};
    int count = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        ck_assert_int_lt(count, WORDS_MAX);
        words[count++] = word;
    }
    error[0] = '\0';
    return options_parse(options, count, words, error, error_size);
}

START_TEST(options_defaults)
{
    Options o;
    char error[256];
    unsetenv("AIDB_DATA");
    ck_assert_int_eq(parse(&o, "--db d --workloads fillseq", error, sizeof error), OPTIONS_RUN);
    ck_assert_str_eq(o.db, "d");
    ck_assert(!o.remote);
    ck_assert_uint_eq(o.workload_count, 1);
    ck_assert_str_eq(o.workloads[0]->name, "fillseq");
    ck_assert_uint_eq(o.num, 1000000);
    ck_assert_uint_eq(o.key_size, 16);
    ck_assert_uint_eq(o.value_size, 100);
    ck_assert_double_eq(o.compression_ratio, 0.5);
    ck_assert_uint_eq(o.threads, 1);
    ck_assert_uint_eq(o.connections, 1);
    ck_assert_uint_eq(o.pipeline, 1);
    ck_assert_uint_eq(o.batch, 1);
    ck_assert_uint_eq(o.seek_nexts, 0);
    ck_assert_int_eq(o.durability, AIDB_OS);
    ck_assert_int_eq(o.format, FORMAT_TEXT);
    ck_assert(!o.use_existing);
    options_deinit(&o);
}
END_TEST

START_TEST(options_all)
{
    Options o;
    char error[256];
    ck_assert_int_eq(parse(&o,
                           "--db=aidb://h:1 --workloads readrandom,ycsbd,readrandom --num 2Ki "
                           "--reads 10k --writes 7 --duration 1.5m --warmup 2 --threads 3",
                           error, sizeof error),
                     OPTIONS_RUN);
    ck_assert(o.remote);
    ck_assert_uint_eq(o.workload_count, 3);
    ck_assert_str_eq(o.workloads[2]->name, "readrandom");
    ck_assert_uint_eq(o.num, 2048);
    ck_assert_uint_eq(o.reads, 10000);
    ck_assert_uint_eq(o.writes, 7);
    ck_assert_uint_eq(o.duration_ns, UINT64_C(90000000000));
    ck_assert_uint_eq(o.warmup, 2);
    ck_assert_uint_eq(o.threads, 3);
    ck_assert_uint_eq(o.connections, 3);
    options_deinit(&o);

    ck_assert_int_eq(parse(&o,
                           "-D dir --workloads seekrandom --key-size 20 --value-size 1KiB "
                           "--compression-ratio 0.25 --pipeline 16 --batch 8 --seek-nexts 10",
                           error, sizeof error),
                     OPTIONS_RUN);
    ck_assert_uint_eq(o.key_size, 20);
    ck_assert_uint_eq(o.value_size, 1024);
    ck_assert_double_eq(o.compression_ratio, 0.25);
    ck_assert_uint_eq(o.pipeline, 16);
    ck_assert_uint_eq(o.batch, 8);
    ck_assert_uint_eq(o.seek_nexts, 10);
    options_deinit(&o);

    ck_assert_int_eq(parse(&o,
                           "--db d --workloads fillseq --durability fsync --seed 42 --set a=1 "
                           "--set bc=x=y --use-existing --format tsv --distribution latest",
                           error, sizeof error),
                     OPTIONS_RUN);
    ck_assert_int_eq(o.durability, AIDB_FSYNC);
    ck_assert_uint_eq(o.seed, 42);
    ck_assert_uint_eq(o.setting_count, 2);
    ck_assert_str_eq(o.settings[0].name, "a");
    ck_assert_str_eq(o.settings[0].value, "1");
    ck_assert_str_eq(o.settings[1].name, "bc");
    ck_assert_str_eq(o.settings[1].value, "x=y");
    ck_assert_ptr_null(o.settings[2].name);
    ck_assert(o.use_existing);
    ck_assert_int_eq(o.format, FORMAT_TSV);
    ck_assert_int_eq(o.distribution, DISTRIBUTION_LATEST);
    options_deinit(&o);

    ck_assert_int_eq(
        parse(&o, "--db aidb+unix:/s --workloads readseq --connections 50", error, sizeof error),
        OPTIONS_RUN);
    ck_assert(o.remote);
    ck_assert_uint_eq(o.connections, 50);
    options_deinit(&o);
}
END_TEST

START_TEST(options_store_from_environment)
{
    Options o;
    char error[256];
    setenv("AIDB_DATA", "/from/environment", 1);
    ck_assert_int_eq(parse(&o, "--workloads fillseq", error, sizeof error), OPTIONS_RUN);
    ck_assert_str_eq(o.db, "/from/environment");
    options_deinit(&o);
    ck_assert_int_eq(parse(&o, "--workloads fillseq --db given", error, sizeof error), OPTIONS_RUN);
    ck_assert_str_eq(o.db, "given");
    options_deinit(&o);
    unsetenv("AIDB_DATA");
}
END_TEST

START_TEST(options_seed_differs_between_runs)
{
    Options a, b;
    char error[256];
    ck_assert_int_eq(parse(&a, "--db d --workloads fillseq", error, sizeof error), OPTIONS_RUN);
    ck_assert_int_eq(parse(&b, "--db d --workloads fillseq", error, sizeof error), OPTIONS_RUN);
    ck_assert_uint_ne(a.seed, b.seed);
    options_deinit(&a);
    options_deinit(&b);
}
END_TEST

START_TEST(options_help_and_version)
{
    Options o;
    char error[256];
    ck_assert_int_eq(parse(&o, "--help", error, sizeof error), OPTIONS_HELP);
    options_deinit(&o);
    ck_assert_int_eq(parse(&o, "--db d --version", error, sizeof error), OPTIONS_VERSION);
    options_deinit(&o);
    ck_assert_int_eq(parse(&o, "-V", error, sizeof error), OPTIONS_VERSION);
    options_deinit(&o);
}
END_TEST

/* Every option and every workload is in the help. */
START_TEST(options_help_is_complete)
{
    static const char *const names[] = {
        "--db",
        "--workloads",
        "--num",
        "--reads",
        "--writes",
        "--duration",
        "--warmup",
        "--key-size",
        "--key-shape",
        "--value-size",
        "--compression-ratio",
        "--threads",
        "--connections",
        "--pipeline",
        "--batch",
        "--seek-nexts",
        "--write-rate",
        "--distribution",
        "--durability",
        "--seed",
        "--set",
        "--use-existing",
        "--format",
        "--help",
        "--version",
        "-D",
    };
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    options_print_help(out);
    fclose(out);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        ck_assert_msg(strstr(text, names[i]) != NULL, "%s is not in the help", names[i]);
    for (size_t i = 0; i < workload_table_size; i++)
        ck_assert_msg(strstr(text, workload_table[i].name) != NULL, "%s is not in the help",
                      workload_table[i].name);
    free(text);
}
END_TEST

/* A command line, and a part of what it is told. */
static const struct {
    const char *line;
    const char *message;
} wrong_lines[] = {
    {"", "no store named"},
    {"--workloads fillseq", "no store named"},
    {"--db d", "no workload named"},
    {"--db http://h --workloads fillseq", "'http://h' is no address"},
    {"--db d --workloads connect", "connect works on a server"},
    {"--db d --workloads fillseq --key-shape odd", "'odd' is not one of number, text"},
    {"--db d --workloads fillseq --key-shape text --key-size 15", "--key-size of at least 16"},
    {"--db d --workloads fillseq,fillrandom --key-shape text", "one fill workload in a run"},
    {"--db d --workloads fillsec", "'fillsec' is not a workload"},
    {"--db d --workloads fillseq,", "'' is not a workload"},
    {"--db d --workloads fillseq more", "unexpected argument 'more'"},
    {"--db d --workloads fillseq --numb 1", "--numb is not an option"},
    {"--db d --workloads fillseq --w 1", "--w is ambiguous"},
    {"--db d --workloads fillseq --num", "--num needs a value"},
    {"--db d --workloads fillseq --use-existing=1", "--use-existing takes no value"},
    {"--db d --workloads fillseq -x", "-x is not an option"},
    {"--db d --workloads fillseq -D", "-D needs a value"},
    {"--db d --workloads fillseq --num 0", "--num: 0 is out of range (1 to"},
    {"--db d --workloads fillseq --num -1", "--num: '-1' is not a whole number"},
    {"--db d --workloads fillseq --num 1.5", "--num: '1.5' is not a whole number"},
    {"--db d --workloads fillseq --num 99999999999999999999", "is not a whole number"},
    {"--db d --workloads fillseq --num 1t", "'1t' is not a whole number"},
    {"--db d --workloads fillseq --duration 0", "--duration: '0' is not a time"},
    {"--db d --workloads fillseq --duration 5x", "--duration: '5x' is not a time"},
    {"--db d --workloads fillseq --key-size 65537", "--key-size: 65537 is out of range"},
    {"--db d --workloads readmissing --key-size 65536", "readmissing needs keys of at most 65535"},
    {"--db d --workloads fillseq --num 257 --key-size 1", "257 keys need at least 2 bytes"},
    {"--db d --workloads ycsbe --key-size 7", "ycsbe adds keys and needs at least 8 bytes"},
    {"--db d --workloads fillseq --value-size 65MiB", "--value-size: 65MiB is out of range"},
    {"--db d --workloads fillseq --compression-ratio 0", "--compression-ratio: '0' is not above"},
    {"--db d --workloads fillseq --compression-ratio 1.1", "'1.1' is not above 0"},
    {"--db d --workloads fillseq --compression-ratio nan", "'nan' is not above 0"},
    {"--db d --workloads fillseq --threads 1025", "--threads: 1025 is out of range (1 to 1024)"},
    {"--db d --workloads fillseq --connections 2", "--connections works on a server"},
    {"--db d --workloads fillseq --threads 2 --pipeline 2",
     "--pipeline: threads share a directory"},
    {"--db aidb://h:1 --workloads fillseq --threads 4 --connections 3", "4 threads need at least"},
    {"--db aidb://h:1 --workloads fillseq --set a=b", "--set works on a directory"},
    {"--db d --workloads fillseq --set a", "'a' is not of the form key=value"},
    {"--db d --workloads fillseq --set =b", "'=b' is not of the form key=value"},
    {"--db d --workloads fillseq --durability sync", "'sync' is not one of default, async, os, fs"},
    {"--db d --workloads fillseq --format xml", "--format: 'xml' is not one of text, tsv, json"},
    {"--db d --workloads ycsba --distribution pareto", "'pareto' is not one of default, uniform"},
};

START_TEST(options_wrong)
{
    Options o;
    char error[256];
    unsetenv("AIDB_DATA");
    ck_assert_int_eq(parse(&o, wrong_lines[_i].line, error, sizeof error), OPTIONS_WRONG);
    ck_assert_msg(strstr(error, wrong_lines[_i].message) != NULL, "'%s' told '%s'",
                  wrong_lines[_i].line, error);
    options_deinit(&o);
}
END_TEST

START_TEST(options_too_many)
{
    Options o;
    char error[256], line[1024] = "--db d --workloads compact";
    for (int i = 0; i < OPTIONS_WORKLOADS_MAX; i++)
        strcat(line, ",compact");
    ck_assert_int_eq(parse(&o, line, error, sizeof error), OPTIONS_WRONG);
    ck_assert_ptr_nonnull(strstr(error, "more than 64 workloads"));
    options_deinit(&o);
}
END_TEST

START_TEST(options_numbers)
{
    static const struct {
        const char *text;
        uint64_t number;
    } good[] = {
        {"0", 0},
        {"007", 7},
        {"18446744073709551615", UINT64_MAX},
        {"1k", 1000},
        {"1K", 1000},
        {"3kb", 3000},
        {"2Ki", 2048},
        {"2KiB", 2048},
        {"5m", 5000000},
        {"64MiB", 64 << 20},
        {"1g", 1000000000},
        {"1GiB", 1 << 30},
        {"12b", 12},
    };
    static const char *const bad[] = {"",    " 1",   "1 ",          "-1",
                                      "+1",  "0x10", "1e3",         "1kk",
                                      "k",   "1,",   "1.0",         "18446744073709551616",
                                      "1_0", "1t",   "99999999999g"};
    uint64_t number;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ck_assert_msg(options_parse_number(good[i].text, &number), "%s", good[i].text);
        ck_assert_uint_eq(number, good[i].number);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!options_parse_number(bad[i], &number), "'%s'", bad[i]);
}
END_TEST

START_TEST(options_durations)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {
        {"1", UINT64_C(1000000000)},    {"1s", UINT64_C(1000000000)},
        {"250ms", UINT64_C(250000000)}, {"0.5", UINT64_C(500000000)},
        {"2m", UINT64_C(120000000000)}, {"1h", UINT64_C(3600000000000)},
    };
    static const char *const bad[] = {"", "s", "-1", "1d", "nan", "inf", "0x1", "1 s", "1e30"};
    uint64_t ns;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ck_assert_msg(options_parse_duration(good[i].text, &ns), "%s", good[i].text);
        ck_assert_uint_eq(ns, good[i].ns);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!options_parse_duration(bad[i], &ns), "'%s'", bad[i]);
}
END_TEST

/* --- Whole runs ------------------------------------------------------------------------------ */

/* What one run printed and how it ended. */
typedef struct Outcome {
    BenchExit code;
    char *text; /* TSV */
    char error[512];
} Outcome;

/* Runs a command line on the directory `store`. */
static Outcome run_line(const char *store, const char *line)
{
    char full[1024];
    Options options;
    Outcome outcome = {0};
    atomic_bool stop = false;
    size_t size;
    snprintf(full, sizeof full, "--db %s --format tsv --seed %d %s", store, SEED, line);
    ck_assert_int_eq(parse(&options, full, outcome.error, sizeof outcome.error), OPTIONS_RUN);
    FILE *out = open_memstream(&outcome.text, &size);
    ck_assert_ptr_nonnull(out);
    outcome.code = bench_run(&options, out, &stop, outcome.error, sizeof outcome.error);
    fclose(out);
    options_deinit(&options);
    return outcome;
}

typedef struct Row {
    unsigned long long threads, ops, bytes, found;
    double seconds, ops_per_s, p50, p99, p999, max;
} Row;

/* The row of the n-th result, from 0, which must be of `workload`. */
static Row row_of(const Outcome *outcome, int n, const char *workload)
{
    ck_assert_msg(outcome->code == BENCH_DONE, "exit %d: %s", outcome->code, outcome->error);
    const char *line = strchr(outcome->text, '\n'); /* past the names of the columns */
    for (; n > 0 && line != NULL; n--)
        line = strchr(line + 1, '\n');
    ck_assert_ptr_nonnull(line);
    char name[32];
    Row row;
    int fields = sscanf(line + 1, "%31s %llu %llu %lf %lf %lf %lf %lf %llu %llu %lf", name,
                        &row.threads, &row.ops, &row.seconds, &row.ops_per_s, &row.p50, &row.p99,
                        &row.p999, &row.bytes, &row.found, &row.max);
    ck_assert_int_eq(fields, 11);
    ck_assert_str_eq(name, workload);
    ck_assert_double_le(row.p50, row.p99);
    ck_assert_double_le(row.p99, row.p999);
    ck_assert_double_le(row.p999, row.max);
    return row;
}

static void outcome_deinit(Outcome *outcome)
{
    free(outcome->text);
}

static char *test_store;

static void make_store(void)
{
    test_store = test_directory_create();
}

static void remove_store(void)
{
    test_directory_destroy(test_store);
}

START_TEST(run_finds_what_db_bench_finds)
{
    Outcome o = run_line(test_store, "--num 5k --workloads fillrandom,readrandom,readmissing,"
                                     "seekrandom,readseq,readreverse");
    Row row = row_of(&o, 0, "fillrandom");
    ck_assert_uint_eq(row.ops, 5000);
    ck_assert_uint_eq(row.bytes, 5000 * 116);
    row = row_of(&o, 1, "readrandom");
    ck_assert_uint_eq(row.ops, 5000);
    ck_assert_double_eq_tol((double)row.found / 5000, 1 - exp(-1), 0.03);
    ck_assert_uint_eq(row.bytes, row.found * 116);
    row = row_of(&o, 2, "readmissing");
    ck_assert_uint_eq(row.found, 0);
    row = row_of(&o, 3, "seekrandom");
    ck_assert_double_eq_tol((double)row.found / 5000, 1 - exp(-1), 0.03);
    row = row_of(&o, 4, "readseq");
    ck_assert_double_eq_tol((double)row.ops / 5000, 1 - exp(-1), 0.02);
    ck_assert_uint_eq(row.bytes, row.ops * 116);
    ck_assert_uint_eq(row_of(&o, 5, "readreverse").ops, row.ops);
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_counts_every_thread)
{
    Outcome o =
        run_line(test_store, "--num 1k --threads 4 --workloads fillseq,overwrite,readrandom,"
                             "readseq,deleterandom,readwhilewriting,readseq");
    ck_assert_uint_eq(row_of(&o, 0, "fillseq").ops, 4000);
    ck_assert_uint_eq(row_of(&o, 1, "overwrite").ops, 4000);
    Row row = row_of(&o, 2, "readrandom");
    ck_assert_uint_eq(row.threads, 4);
    ck_assert_uint_eq(row.ops, 4000);
    ck_assert_uint_eq(row.found, 4000);
    ck_assert_uint_eq(row_of(&o, 3, "readseq").ops, 4000);
    ck_assert_uint_eq(row_of(&o, 4, "deleterandom").bytes, 4000 * 16);
    row = row_of(&o, 5, "readwhilewriting");
    ck_assert_uint_eq(row.threads, 4); /* the writer beside them is not counted */
    ck_assert_uint_eq(row.ops, 4000);
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_ycsb)
{
    Outcome o =
        run_line(test_store, "--num 1k --reads 2k --threads 2 --warmup 1 --workloads fillseq,"
                             "ycsba,ycsbb,ycsbc,ycsbd,ycsbe,ycsbf,compact,readseq --batch 7");
    ck_assert_double_eq_tol((double)row_of(&o, 1, "ycsba").found / 4000, 0.5, 0.05);
    ck_assert_uint_eq(row_of(&o, 3, "ycsbc").found, 4000);
    Row row = row_of(&o, 6, "ycsbf");
    ck_assert_uint_eq(row.found, 4000);
    ck_assert_double_eq_tol((double)row.bytes / 4000 / 116, 1.5, 0.05);
    ck_assert_uint_eq(row_of(&o, 7, "compact").ops, 1);
    row = row_of(&o, 8, "readseq");
    ck_assert_double_eq_tol((double)row.ops, 2 * (1000 + 2 * 0.05 * 4000), 100);
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_batches_and_pipelines)
{
    Outcome o =
        run_line(test_store, "--num 1001 --batch 10 --workloads fillseq,readrandom,readseq");
    ck_assert_uint_eq(row_of(&o, 0, "fillseq").ops, 1001);
    ck_assert_uint_eq(row_of(&o, 1, "readrandom").ops, 1001);
    ck_assert_uint_eq(row_of(&o, 1, "readrandom").found, 1001);
    ck_assert_uint_eq(row_of(&o, 2, "readseq").ops, 1001);
    outcome_deinit(&o);
    o = run_line(test_store,
                 "--num 1001 --pipeline 8 --workloads overwrite,readrandom,ycsbd,ycsbf");
    ck_assert_uint_eq(row_of(&o, 0, "overwrite").ops, 1001);
    ck_assert_uint_eq(row_of(&o, 1, "readrandom").found, 1001);
    ck_assert_uint_eq(row_of(&o, 2, "ycsbd").ops, 1001);
    ck_assert_uint_eq(row_of(&o, 3, "ycsbf").found, 1001);
    outcome_deinit(&o);
    o = run_line(test_store,
                 "--num 1001 --pipeline 8 --batch 3 --workloads overwrite,readrandom,readmissing");
    ck_assert_uint_eq(row_of(&o, 0, "overwrite").ops, 1001);
    ck_assert_uint_eq(row_of(&o, 1, "readrandom").ops, 1001); /* the last multi-get has two keys */
    ck_assert_uint_eq(row_of(&o, 1, "readrandom").found, 1001);
    ck_assert_uint_eq(row_of(&o, 1, "readrandom").bytes, 1001 * 116);
    ck_assert_uint_eq(row_of(&o, 2, "readmissing").ops, 1001);
    ck_assert_uint_eq(row_of(&o, 2, "readmissing").found, 0);
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_fills_empty_stores_only)
{
    Outcome o = run_line(test_store, "--num 1k --workloads fillseq");
    ck_assert_int_eq(o.code, BENCH_DONE);
    outcome_deinit(&o);
    o = run_line(test_store, "--num 1k --workloads fillrandom");
    ck_assert_int_eq(o.code, BENCH_ERROR);
    ck_assert_ptr_nonnull(strstr(o.error, "not empty"));
    outcome_deinit(&o);
    /* What was there before stays protected after a workload that may write. */
    o = run_line(test_store, "--num 1k --workloads overwrite,fillrandom");
    ck_assert_int_eq(o.code, BENCH_ERROR);
    outcome_deinit(&o);
    o = run_line(test_store, "--num 1k --workloads fillrandom,readseq --use-existing");
    ck_assert_uint_eq(row_of(&o, 1, "readseq").ops, 1000);
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_starts_over_for_each_fill)
{
    Outcome o = run_line(test_store, "--num 2k --workloads fillseq,readseq,fillrandom,readseq,"
                                     "fillsync,readseq --writes 2k");
    ck_assert_uint_eq(row_of(&o, 1, "readseq").ops, 2000);
    double share = (double)row_of(&o, 3, "readseq").ops / 2000;
    ck_assert_double_eq_tol(share, 1 - exp(-1), 0.04);
    ck_assert_uint_le(row_of(&o, 5, "readseq").ops, 2); /* a thousandth of the keys */
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_for_a_time)
{
    Outcome o =
        run_line(test_store, "--num 1k --duration 50ms --workloads fillseq,readrandom,readseq");
    ck_assert_uint_le(row_of(&o, 0, "fillseq").ops, 1000);
    ck_assert_double_ge(row_of(&o, 1, "readrandom").seconds, 0.05);
    ck_assert_uint_le(row_of(&o, 2, "readseq").ops, 1000);
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_repeats_by_its_seed)
{
    Outcome a = run_line(test_store, "--num 2k --workloads fillrandom,readrandom");
    char *other = test_directory_create();
    Outcome b = run_line(other, "--num 2k --workloads fillrandom,readrandom");
    ck_assert_uint_eq(row_of(&a, 1, "readrandom").found, row_of(&b, 1, "readrandom").found);
    test_directory_destroy(other);
    outcome_deinit(&a);
    outcome_deinit(&b);
}
END_TEST

START_TEST(run_that_cannot_open)
{
    Outcome o = run_line(test_store, "--workloads fillseq --set colour=blue");
    ck_assert_int_eq(o.code, BENCH_USAGE);
    ck_assert_ptr_nonnull(strstr(o.error, "colour"));
    outcome_deinit(&o);
    o = run_line(test_store, "--workloads readrandom");
    ck_assert_int_eq(o.code, BENCH_ERROR);
    outcome_deinit(&o);
    o = run_line("aidb+unix:/nonexistent/aidb.sock", "--workloads readrandom");
    ck_assert_int_eq(o.code, BENCH_CONNECTION);
    outcome_deinit(&o);
}
END_TEST

START_TEST(run_that_is_stopped)
{
    char line[512], error[256];
    Options options;
    atomic_bool stop = true;
    snprintf(line, sizeof line, "--db %s --workloads fillseq,readrandom --format json", test_store);
    ck_assert_int_eq(parse(&options, line, error, sizeof error), OPTIONS_RUN);
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    ck_assert_int_eq(bench_run(&options, out, &stop, error, sizeof error), BENCH_STOPPED);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "\"results\":[\n]}\n")); /* a whole document all the same */
    free(text);
    options_deinit(&options);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("aidbbench");

    TCase *histogram = tcase_create("histogram");
    tcase_add_test(histogram, histogram_empty);
    tcase_add_test(histogram, histogram_buckets_are_in_order_and_tight);
    tcase_add_test(histogram, histogram_of_one_value);
    tcase_add_test(histogram, histogram_caps_what_is_too_large);
    tcase_add_test(histogram, histogram_percentiles_are_close);
    tcase_add_test(histogram, histogram_sum_is_that_of_all_values);
    suite_add_tcase(suite, histogram);

    TCase *random = tcase_create("random");
    tcase_add_test(random, random_repeats_by_seed_and_stream);
    tcase_add_test(random, random_is_xoshiro);
    tcase_add_test(random, random_below_is_uniform);
    tcase_add_test(random, random_fraction_is_below_one);
    tcase_add_test(random, zipfian_zeta_agrees_with_the_sum);
    tcase_add_test(random, zipfian_follows_its_shares);
    tcase_add_test(random, zipfian_of_few_keys);
    tcase_add_test(random, zipfian_scatter_is_one_to_one);
    suite_add_tcase(suite, random);

    TCase *data = tcase_create("data");
    tcase_add_test(data, key_has_the_form_of_db_bench);
    tcase_add_test(data, key_order_is_that_of_the_numbers);
    tcase_add_test(data, key_shapes);
    tcase_add_test(data, key_size_min_holds_all_numbers);
    tcase_add_test(data, values_compress_to_about_the_ratio);
    tcase_add_test(data, values_lie_within_the_pool);
    suite_add_tcase(suite, data);

    TCase *workload = tcase_create("workload");
    tcase_add_test(workload, ycsb_mixes_have_their_shares);
    tcase_add_test(workload, ycsb_takes_every_distribution);
    tcase_add_test(workload, warm_up_only_reads);
    tcase_add_test(workload, latest_prefers_the_newest);
    tcase_add_test(workload, workload_names_are_whole_words);
    suite_add_tcase(suite, workload);

    TCase *options = tcase_create("options");
    tcase_add_test(options, options_defaults);
    tcase_add_test(options, options_all);
    tcase_add_test(options, options_store_from_environment);
    tcase_add_test(options, options_seed_differs_between_runs);
    tcase_add_test(options, options_help_and_version);
    tcase_add_test(options, options_help_is_complete);
    tcase_add_loop_test(options, options_wrong, 0, sizeof wrong_lines / sizeof wrong_lines[0]);
    tcase_add_test(options, options_too_many);
    tcase_add_test(options, options_numbers);
    tcase_add_test(options, options_durations);
    suite_add_tcase(suite, options);

    TCase *run = tcase_create("run");
    tcase_add_checked_fixture(run, make_store, remove_store);
    tcase_add_test(run, run_finds_what_db_bench_finds);
    tcase_add_test(run, run_counts_every_thread);
    tcase_add_test(run, run_ycsb);
    tcase_add_test(run, run_batches_and_pipelines);
    tcase_add_test(run, run_fills_empty_stores_only);
    tcase_add_test(run, run_starts_over_for_each_fill);
    tcase_add_test(run, run_for_a_time);
    tcase_add_test(run, run_repeats_by_its_seed);
    tcase_add_test(run, run_that_cannot_open);
    tcase_add_test(run, run_that_is_stopped);
    suite_add_tcase(suite, run);
    return suite;
}

int main(void)
{
    return test_run(make_suite());
}
