/*
 * options.c - the command line: one table of long options, then checks of how they go together.
 */
#include "config.h"
#include "bin/aidbbench/options.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bin/aidbbench/data.h"
#include "bin/aidbbench/workload.h"

typedef struct Parser {
    Options *options;
    char *error;
    size_t error_size;
} Parser;

static bool __attribute__((format(printf, 2, 3))) wrong(Parser *parser, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(parser->error, parser->error_size, format, arguments);
    va_end(arguments);
    return false;
}

/* --- Numbers and times ----------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static uint64_t suffix_factor(const char *suffix)
{
    static const struct {
        const char *name;
        uint64_t factor;
    } suffixes[] = {
        {"", 1},
        {"b", 1},
        {"k", 1000},
        {"kb", 1000},
        {"ki", UINT64_C(1) << 10},
        {"kib", UINT64_C(1) << 10},
        {"m", 1000000},
        {"mb", 1000000},
        {"mi", UINT64_C(1) << 20},
        {"mib", UINT64_C(1) << 20},
        {"g", 1000000000},
        {"gb", 1000000000},
        {"gi", UINT64_C(1) << 30},
        {"gib", UINT64_C(1) << 30},
    };
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (strcasecmp(suffix, suffixes[i].name) == 0)
            return suffixes[i].factor;
    }
    return 0;
}

bool options_parse_number(const char *text, uint64_t *number)
{
    *number = 0;
    if (!is_digit(*text))
        return false;
    uint64_t value = 0;
    for (; is_digit(*text); text++) {
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    }
    uint64_t factor = suffix_factor(text);
    if (factor == 0 || __builtin_mul_overflow(value, factor, &value))
        return false;
    *number = value;
    return true;
}

/* strtod without what it takes besides plain decimal fractions: signs, hex, inf, nan, blanks. */
static bool parse_fraction(const char *text, double *fraction, const char **end)
{
    *fraction = 0;
    if (!is_digit(*text) || (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')))
        return false;
    char *stop;
    *fraction = strtod(text, &stop);
    *end = stop;
    return isfinite(*fraction);
}

bool options_parse_duration(const char *text, uint64_t *ns)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"", 1}, {"ms", 0.001}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}};
    const char *unit;
    double value;
    *ns = 0;
    if (!parse_fraction(text, &value, &unit))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcasecmp(unit, units[i].name) == 0) {
            double nanoseconds = value * units[i].seconds * 1e9;
            if (nanoseconds > 1e18)
                return false;
            *ns = (uint64_t)nanoseconds;
            return true;
        }
    }
    return false;
}

/* --- Options by type ------------------------------------------------------------------------- */

static bool set_number(Parser *parser, const char *name, const char *text, uint64_t min,
                       uint64_t max, uint64_t *number)
{
    if (!options_parse_number(text, number))
        return wrong(parser, "--%s: '%s' is not a whole number", name, text);
    if (*number < min || *number > max)
        return wrong(parser, "--%s: %s is out of range (%llu to %llu)", name, text,
                     (unsigned long long)min, (unsigned long long)max);
    return true;
}

static const char *const durability_names[] = {
    [AIDB_DEFAULT] = "default",
    [AIDB_ASYNC] = "async",
    [AIDB_OS] = "os",
    [AIDB_FSYNC] = "fsync",
};

const char *options_durability_name(aidb_durability durability)
{
    return durability_names[durability];
}

/* One of `count` names; its index goes to *index. */
static bool set_name(Parser *parser, const char *name, const char *text, const char *const *names,
                     size_t count, size_t *index)
{
    char known[128] = "";
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *index = i;
            return true;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ", names[i]);
    }
    return wrong(parser, "--%s: '%s' is not one of %s", name, text, known);
}

static bool set_workloads(Parser *parser, const char *text)
{
    Options *options = parser->options;
    for (;;) {
        size_t size = strcspn(text, ",");
        const Workload *workload = workload_find(text, size);
        if (workload == NULL)
            return wrong(parser, "--workloads: '%.*s' is not a workload; --help lists them",
                         (int)size, text);
        if (options->workload_count == OPTIONS_WORKLOADS_MAX)
            return wrong(parser, "--workloads: more than %d workloads", OPTIONS_WORKLOADS_MAX);
        options->workloads[options->workload_count++] = workload;
        if (text[size] == '\0')
            return true;
        text += size + 1;
    }
}

static bool add_setting(Parser *parser, const char *text)
{
    Options *options = parser->options;
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text)
        return wrong(parser, "--set: '%s' is not of the form key=value", text);
    if (options->setting_count == OPTIONS_SETTINGS_MAX)
        return wrong(parser, "--set: more than %d settings", OPTIONS_SETTINGS_MAX);
    options->settings[options->setting_count++] = (aidb_option){text, equals + 1};
    return true;
}

/* Settings are kept as "key=value" until all are known; then the keys need ends of their own. */
static bool split_settings(Parser *parser)
{
    Options *options = parser->options;
    size_t size = 0;
    for (size_t i = 0; i < options->setting_count; i++)
        size += strlen(options->settings[i].name) + 1;
    options->text = malloc(size + 1);
    if (options->text == NULL)
        return wrong(parser, "out of memory");
    char *copy = options->text;
    for (size_t i = 0; i < options->setting_count; i++) {
        aidb_option *setting = &options->settings[i];
        size_t length = strlen(setting->name) + 1;
        size_t key_size = (size_t)(setting->value - setting->name) - 1;
        memcpy(copy, setting->name, length);
        copy[key_size] = '\0';
        setting->name = copy;
        setting->value = copy + key_size + 1;
        copy += length;
    }
    return true;
}

static bool is_remote(const char *name)
{
    return strncmp(name, "aidb://", 7) == 0 || strncmp(name, "aidb+unix:", 10) == 0;
}

/* --- The table -------------------------------------------------------------------------------- */

enum {
    OPTION_HELP = 256,
    OPTION_DB,
    OPTION_WORKLOADS,
    OPTION_NUM,
    OPTION_READS,
    OPTION_WRITES,
    OPTION_DURATION,
    OPTION_WARMUP,
    OPTION_KEY_SIZE,
    OPTION_KEY_SHAPE,
    OPTION_VALUE_SIZE,
    OPTION_COMPRESSION_RATIO,
    OPTION_THREADS,
    OPTION_CONNECTIONS,
    OPTION_PIPELINE,
    OPTION_BATCH,
    OPTION_SEEK_NEXTS,
    OPTION_WRITE_RATE,
    OPTION_DISTRIBUTION,
    OPTION_DURABILITY,
    OPTION_SEED,
    OPTION_SET,
    OPTION_USE_EXISTING,
    OPTION_FORMAT
};

static const struct option option_table[] = {
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, 'V'},
    {"db", required_argument, NULL, OPTION_DB},
    {"workloads", required_argument, NULL, OPTION_WORKLOADS},
    {"num", required_argument, NULL, OPTION_NUM},
    {"reads", required_argument, NULL, OPTION_READS},
    {"writes", required_argument, NULL, OPTION_WRITES},
    {"duration", required_argument, NULL, OPTION_DURATION},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"key-size", required_argument, NULL, OPTION_KEY_SIZE},
    {"key-shape", required_argument, NULL, OPTION_KEY_SHAPE},
    {"value-size", required_argument, NULL, OPTION_VALUE_SIZE},
    {"compression-ratio", required_argument, NULL, OPTION_COMPRESSION_RATIO},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"pipeline", required_argument, NULL, OPTION_PIPELINE},
    {"batch", required_argument, NULL, OPTION_BATCH},
    {"seek-nexts", required_argument, NULL, OPTION_SEEK_NEXTS},
    {"write-rate", required_argument, NULL, OPTION_WRITE_RATE},
    {"distribution", required_argument, NULL, OPTION_DISTRIBUTION},
    {"durability", required_argument, NULL, OPTION_DURABILITY},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"set", required_argument, NULL, OPTION_SET},
    {"use-existing", no_argument, NULL, OPTION_USE_EXISTING},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {NULL, 0, NULL, 0},
};

static const char *const distribution_names[] = {
    [DISTRIBUTION_DEFAULT] = "default",
    [DISTRIBUTION_UNIFORM] = "uniform",
    [DISTRIBUTION_ZIPFIAN] = "zipfian",
    [DISTRIBUTION_LATEST] = "latest",
};

static const char *const key_shape_names[] = {
    [KEY_NUMBER] = "number",
    [KEY_TEXT] = "text",
    [KEY_PREFIX] = "prefix",
    [KEY_BINARY] = "binary",
};

static const char *const format_names[] = {
    [FORMAT_TEXT] = "text",
    [FORMAT_TSV] = "tsv",
    [FORMAT_JSON] = "json",
};

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

static bool set_option(Parser *parser, int code, const char *text)
{
    const uint64_t most = UINT64_C(1) << 48; /* room to multiply by threads and sizes */
    Options *options = parser->options;
    size_t index = 0;
    switch (code) {
    case OPTION_DB:
    case 'D':
        options->db = text;
        return true;
    case OPTION_WORKLOADS:
        return set_workloads(parser, text);
    case OPTION_NUM:
        return set_number(parser, "num", text, 1, most, &options->num);
    case OPTION_READS:
        return set_number(parser, "reads", text, 1, most, &options->reads);
    case OPTION_WRITES:
        return set_number(parser, "writes", text, 1, most, &options->writes);
    case OPTION_DURATION:
        if (!options_parse_duration(text, &options->duration_ns) || options->duration_ns == 0)
            return wrong(parser, "--duration: '%s' is not a time such as 30, 500ms or 2m", text);
        return true;
    case OPTION_WARMUP:
        return set_number(parser, "warmup", text, 0, 1000, &options->warmup);
    case OPTION_KEY_SIZE:
        return set_number(parser, "key-size", text, 1, AIDB_KEY_MAX, &options->key_size);
    case OPTION_KEY_SHAPE:
        if (!set_name(parser, "key-shape", text, key_shape_names, COUNT_OF(key_shape_names),
                      &index))
            return false;
        options->key_shape = (KeyShape)index;
        return true;
    case OPTION_VALUE_SIZE:
        return set_number(parser, "value-size", text, 0, AIDB_VALUE_MAX, &options->value_size);
    case OPTION_COMPRESSION_RATIO: {
        const char *end;
        if (!parse_fraction(text, &options->compression_ratio, &end) || *end != '\0' ||
            options->compression_ratio <= 0 || options->compression_ratio > 1)
            return wrong(parser, "--compression-ratio: '%s' is not above 0 and at most 1", text);
        return true;
    }
    case OPTION_THREADS:
        return set_number(parser, "threads", text, 1, OPTIONS_THREADS_MAX, &options->threads);
    case OPTION_CONNECTIONS:
        return set_number(parser, "connections", text, 1, OPTIONS_CONNECTIONS_MAX,
                          &options->connections);
    case OPTION_PIPELINE:
        return set_number(parser, "pipeline", text, 1, OPTIONS_PIPELINE_MAX, &options->pipeline);
    case OPTION_BATCH:
        return set_number(parser, "batch", text, 1, OPTIONS_BATCH_MAX, &options->batch);
    case OPTION_SEEK_NEXTS:
        return set_number(parser, "seek-nexts", text, 0, most, &options->seek_nexts);
    case OPTION_WRITE_RATE:
        return set_number(parser, "write-rate", text, 0, most, &options->write_rate);
    case OPTION_DISTRIBUTION:
        if (!set_name(parser, "distribution", text, distribution_names,
                      COUNT_OF(distribution_names), &index))
            return false;
        options->distribution = (Distribution)index;
        return true;
    case OPTION_DURABILITY:
        if (!set_name(parser, "durability", text, durability_names, COUNT_OF(durability_names),
                      &index))
            return false;
        options->durability = (aidb_durability)index;
        return true;
    case OPTION_SEED:
        return set_number(parser, "seed", text, 0, UINT64_MAX, &options->seed);
    case OPTION_SET:
        return add_setting(parser, text);
    case OPTION_USE_EXISTING:
        options->use_existing = true;
        return true;
    case OPTION_FORMAT:
        if (!set_name(parser, "format", text, format_names, COUNT_OF(format_names), &index))
            return false;
        options->format = (OutputFormat)index;
        return true;
    default:
        return wrong(parser, "option %d is not handled", code);
    }
}

/* --- How options go together ----------------------------------------------------------------- */

static bool check_keys(Parser *parser)
{
    const Options *options = parser->options;
    size_t key_size = key_size_min(options->num);
    if (options->key_size < key_size)
        return wrong(parser, "--key-size: %llu keys need at least %zu bytes each",
                     (unsigned long long)options->num, key_size);
    if (options->key_shape != KEY_NUMBER &&
        (options->key_size < KEY_SHAPED_SIZE_MIN || options->num > KEY_SHAPED_COUNT_MAX))
        return wrong(parser,
                     "--key-shape: keys of this shape need --key-size of at least %d and "
                     "--num of at most 10^12",
                     KEY_SHAPED_SIZE_MIN);
    size_t fills = 0;
    for (size_t i = 0; i < options->workload_count; i++) {
        const Workload *workload = options->workloads[i];
        /* A second one deletes the range of the first one's keys, which these do not have. */
        fills += workload->fills;
        if (fills > 1 && options->key_shape != KEY_NUMBER && !options->use_existing)
            return wrong(parser, "--key-shape: one fill workload in a run with keys of this shape");
        if (workload->inserts && options->key_size < KEY_NUMBER_SIZE)
            return wrong(parser, "--key-size: %s adds keys and needs at least %d bytes",
                         workload->name, KEY_NUMBER_SIZE);
        if (workload->key_longer && options->key_size == AIDB_KEY_MAX)
            return wrong(parser, "--key-size: %s needs keys of at most %u bytes", workload->name,
                         AIDB_KEY_MAX - 1);
    }
    return true;
}

static bool check_together(Parser *parser, bool connections_given)
{
    Options *options = parser->options;
    if (options->db == NULL || options->db[0] == '\0')
        return wrong(parser, "no store named: use --db with a directory, aidb://HOST:PORT or "
                             "aidb+unix:SOCKET");
    if (options->workload_count == 0)
        return wrong(parser, "no workload named: use --workloads, for example --workloads "
                             "fillrandom,readrandom");
    options->remote = is_remote(options->db);
    if (!options->remote && strstr(options->db, "://") != NULL)
        return wrong(parser, "--db: '%s' is no address; use aidb://HOST:PORT or aidb+unix:SOCKET",
                     options->db);
    for (size_t i = 0; i < options->workload_count; i++) {
        if (options->workloads[i]->remote && !options->remote)
            return wrong(parser, "--workloads: %s works on a server", options->workloads[i]->name);
    }
    if (options->remote && options->setting_count != 0)
        return wrong(parser, "--set works on a directory; a server has its own configuration");
    if (!options->remote && connections_given)
        return wrong(parser, "--connections works on a server; threads share a directory");
    /* Answers on a shared handle go to whichever thread waits, so they cannot be told apart. */
    if (!options->remote && options->pipeline > 1 && options->threads > 1)
        return wrong(parser, "--pipeline: threads share a directory; use one thread or a server");
    if (!connections_given)
        options->connections = options->remote ? options->threads : 1;
    if (options->remote && options->connections < options->threads)
        return wrong(parser, "--connections: %llu threads need at least as many connections",
                     (unsigned long long)options->threads);
    return check_keys(parser);
}

/* getopt_long does not tell an unknown long option from an abbreviation of several. */
static bool is_ambiguous(const char *word)
{
    for (const struct option *option = option_table; option->name != NULL; option++) {
        if (strncmp(option->name, word + 2, strcspn(word + 2, "=")) == 0)
            return true;
    }
    return false;
}

/* Names the option that getopt_long stopped at: `word`, or one letter in it. */
static bool wrong_option(Parser *parser, int result, int letter, const char *word)
{
    bool is_long = strncmp(word, "--", 2) == 0;
    const char *reason = "is not an option";
    if (result == ':')
        reason = "needs a value";
    else if (is_long && letter != 0)
        reason = "takes no value";
    else if (is_long && is_ambiguous(word))
        reason = "is ambiguous";
    if (is_long)
        return wrong(parser, "%.*s %s", (int)strcspn(word, "="), word, reason);
    return wrong(parser, "-%c %s", letter, reason);
}

static bool parse_words(Parser *parser, int argc, char **argv, bool *connections_given,
                        OptionsResult *result)
{
    optind = 0; /* makes glibc start over */
    opterr = 0;
    for (;;) {
        int code = getopt_long(argc, argv, ":D:V", option_table, NULL);
        switch (code) {
        case -1:
            if (optind < argc)
                return wrong(parser, "unexpected argument '%s'", argv[optind]);
            return true;
        case '?':
        case ':':
            return wrong_option(parser, code, optopt, argv[optind - 1]);
        case OPTION_HELP:
            *result = OPTIONS_HELP;
            return true;
        case 'V':
            *result = OPTIONS_VERSION;
            return true;
        case OPTION_CONNECTIONS:
            *connections_given = true;
            break;
        default:
            break;
        }
        if (!set_option(parser, code, optarg))
            return false;
    }
}

static uint64_t seed_of_the_moment(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* Short enough to be typed again. */
    return random_mix((uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec) >> 32;
}

OptionsResult options_parse(Options *options, int argc, char **argv, char *error, size_t error_size)
{
    *options = (Options){
        .db = getenv("AIDB_DATA"),
        .num = 1000000,
        .key_size = 16,
        .value_size = 100,
        .compression_ratio = 0.5,
        .threads = 1,
        .pipeline = 1,
        .batch = 1,
        .durability = AIDB_OS,
        .seed = seed_of_the_moment(),
    };
    Parser parser = {options, error, error_size};
    OptionsResult result = OPTIONS_RUN;
    bool connections_given = false;
    if (!parse_words(&parser, argc, argv, &connections_given, &result))
        return OPTIONS_WRONG;
    if (result != OPTIONS_RUN)
        return result;
    if (!check_together(&parser, connections_given) || !split_settings(&parser))
        return OPTIONS_WRONG;
    return OPTIONS_RUN;
}

void options_deinit(Options *options)
{
    free(options->text);
    options->text = NULL;
}

void options_print_help(FILE *out)
{
    fputs("aidbbench measures an AiDb store, embedded or through a server.\n"
          "\n"
          "Usage: aidbbench --db DIR|URI --workloads NAME[,NAME...] [OPTION]...\n"
          "\n"
          "  --db DIR|URI           a directory (opened by this process, created if need be),\n"
          "                         aidb://HOST:PORT or aidb+unix:SOCKET\n"
          "  -D DIR                 the same; without either, $AIDB_DATA\n"
          "  --workloads LIST       what to run, in this order\n"
          "\n"
          "Workloads:\n",
          out);
    for (size_t i = 0; i < workload_table_size; i++)
        fprintf(out, "  %-18s %s\n", workload_table[i].name, workload_table[i].summary);
    fputs("\n"
          "How much:\n"
          "  --num N                keys of the data set (1000000)\n"
          "  --reads N              operations of each thread in reading and ycsb workloads (num)\n"
          "  --writes N             operations of each thread in writing workloads (num)\n"
          "  --duration TIME        run each workload for this long instead: 30, 500ms, 2m;\n"
          "                         fillseq, readseq and readreverse still end with their data\n"
          "  --warmup N             passes over each reading workload before the measured one;\n"
          "                         they only read (0)\n"
          "\n"
          "Keys and values:\n"
          "  --key-size BYTES       (16)\n"
          "  --key-shape NAME       number (as db_bench), text (key:0042), prefix (all share it),\n"
          "                         binary (number)\n"
          "  --value-size BYTES     (100)\n"
          "  --compression-ratio R  what values can be compressed to, above 0 and at most 1 (0.5)\n"
          "  --distribution NAME    of keys in ycsb workloads: default, uniform, zipfian, latest\n"
          "  --seed N               of all random choices; from the clock when not given\n"
          "\n"
          "How:\n"
          "  --threads N            (1)\n"
          "  --connections N        to a server, shared out among the threads (one each)\n"
          "  --pipeline N           requests that a connection sends before it waits; on a\n"
          "                         directory with one thread only (1)\n"
          "  --batch N              operations of a write, keys of a multi-get; not in ycsb (1)\n"
          "  --seek-nexts N         steps after each seek in seekrandom (0)\n"
          "  --write-rate BYTES     a second, of the writer in readwhilewriting; 0: no limit (0)\n"
          "  --durability NAME      of writes: async, os, fsync, default (what the store is set\n"
          "                         to); fillsync always uses fsync (os)\n"
          "  --set KEY=VALUE        an engine setting, on a directory; may be repeated\n"
          "  --use-existing         let fill workloads write to a store that is not empty\n"
          "\n"
          "Output:\n"
          "  --format NAME          text, tsv (with a line of column names) or json (text)\n"
          "  --help, --version\n"
          "\n"
          "Numbers take k, m, g (powers of 1000) and Ki, Mi, Gi (powers of 1024).\n"
          "Progress is shown on standard error when that is a terminal.\n"
          "Exit status: 0 done, 1 error, 2 no connection or connection lost, 3 wrong usage.\n",
          out);
}
