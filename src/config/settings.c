/*
 * settings.c - the table of settings and all that is derived from it without reading a file.
 *
 * Fields of Config are reached by offset and width, so that one parser and one printer serve every
 * setting. Numbers of all widths pass through int64_t; the bounds in the table keep them inside their
 * fields, and a unit test sets each to both bounds and reads it back.
 */
#include "config.h"
#include "config/settings_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KIB    1024ll
#define MIB    (1024 * KIB)
#define GIB    (1024 * MIB)
#define TIB    (1024 * GIB)
#define SECOND 1000ll
#define HOUR   (3600 * SECOND)

#define FIELD(member) .offset = offsetof(Config, member), .width = sizeof((Config *)0)->member
#define RELOAD        true
#define RESTART       false

static const Setting SETTINGS[] = {
    /* clang-format off */
    {"memory", GROUP_ENGINE, SETTING_SIZE, "512MiB", 8 * MIB, 16 * TIB, RESTART, FIELD(engine.memory), NULL,
     "memory shared by all processes: memtables and block cache divide it"},
    {"memtable_size", GROUP_ENGINE, SETTING_SIZE, "0", 0, 64 * GIB, RESTART, FIELD(engine.memtable_size), NULL,
     "writes gathered in memory before they become a table; 0 takes a part of memory"},
    {"cache_size", GROUP_ENGINE, SETTING_SIZE, "0", 0, 16 * TIB, RESTART, FIELD(engine.cache_size), NULL,
     "cache of table blocks; 0 takes what memtables leave of memory"},
    {"block_size", GROUP_ENGINE, SETTING_SIZE, "4KiB", 512, 256 * KIB, RELOAD, FIELD(engine.block_size), NULL,
     "size of a table block before compression; smaller helps single reads, larger scans and compression"},
    {"compression", GROUP_ENGINE, SETTING_ENUM, "zstd", COMPRESSION_NONE, COMPRESSION_ZSTD, RELOAD,
     FIELD(engine.compression), "none|snappy|zstd",
     "how blocks of new tables are compressed: none, snappy or zstd"},
    {"compression_level", GROUP_ENGINE, SETTING_INTEGER, "1", -7, 19, RELOAD, FIELD(engine.compression_level), NULL,
     "effort of zstd; higher is smaller and slower; flushes that writers wait for spend less"},
    {"filter_bits", GROUP_ENGINE, SETTING_INTEGER, "10", 0, 32, RELOAD, FIELD(engine.filter_bits), NULL,
     "bits a key in the filters that spare reads of tables without it; 0 makes none"},
    {"table_size", GROUP_ENGINE, SETTING_SIZE, "64MiB", 1 * MIB, 16 * GIB, RELOAD, FIELD(engine.table_size), NULL,
     "size of the tables that compactions write; raised by itself when data grows"},
    {"level_base_size", GROUP_ENGINE, SETTING_SIZE, "256MiB", 1 * MIB, 16 * TIB, RELOAD,
     FIELD(engine.level_base_size), NULL, "size of the first level below level 0"},
    {"level_multiplier", GROUP_ENGINE, SETTING_INTEGER, "10", 2, 100, RELOAD, FIELD(engine.level_multiplier), NULL,
     "how many times larger each further level is"},
    {"level0_files", GROUP_ENGINE, SETTING_INTEGER, "4", 1, 100, RELOAD, FIELD(engine.level0_files), NULL,
     "flushes with tables in level 0 that start a compaction; writes slow down at three times as many"},
    {"compactors", GROUP_ENGINE, SETTING_INTEGER, "1", 1, CONFIG_COMPACTORS_MAX, RELOAD, FIELD(engine.compactors), NULL,
     "compactions that run at once"},
    {"compaction_rate", GROUP_ENGINE, SETTING_SIZE, "0", 0, 16 * TIB, RELOAD, FIELD(engine.compaction_rate), NULL,
     "bytes a second that compactions may write; 0 sets no limit"},
    {"durability", GROUP_ENGINE, SETTING_ENUM, "fsync", AIDB_ASYNC, AIDB_FSYNC, RELOAD, FIELD(engine.durability),
     "async|os|fsync",
     "what a write survives once acknowledged: fsync (power loss), os (death of every process) or async"},
    {"wal_segment_size", GROUP_ENGINE, SETTING_SIZE, "16MiB", 1 * MIB, 1 * GIB, RESTART,
     FIELD(engine.wal_segment_size), NULL,
     "size of a log file, a power of two; fixed when the database is made"},
    {"wal_ring_size", GROUP_ENGINE, SETTING_SIZE, "16MiB", 1 * MIB, 1 * GIB, RESTART, FIELD(engine.wal_ring_size), NULL,
     "size of the log buffer, a multiple of 4KiB; fixed when the database is made"},
    {"batch_max", GROUP_ENGINE, SETTING_SIZE, "72MiB", 1 * MIB, 1 * GIB, RESTART, FIELD(engine.batch_max), NULL,
     "largest batch that is accepted; a value may have 64MiB"},
    {"huge_pages", GROUP_ENGINE, SETTING_BOOL, "true", 0, 1, RESTART, FIELD(engine.huge_pages), NULL,
     "put shared memory on huge pages where the system has them"},

    {"mode", GROUP_SERVER, SETTING_ENUM, "primary", MODE_PRIMARY, MODE_COORDINATOR, RESTART, FIELD(server.mode),
     "primary|replica|coordinator", "what this server is; only primary in this version"},
    {"listen_addresses", GROUP_SERVER, SETTING_LIST, "127.0.0.1", 0, CONFIG_STRING_SIZE - 1, RESTART,
     FIELD(server.listen_addresses), NULL,
     "addresses or names to listen on, separated by commas; * is every one of this machine"},
    {"port", GROUP_SERVER, SETTING_INTEGER, "7654", 0, 65535, RESTART, FIELD(server.port), NULL,
     "TCP port; 0 serves the unix socket only"},
    {"unix_socket_directory", GROUP_SERVER, SETTING_STRING, "", 0, CONFIG_STRING_SIZE - 1, RESTART,
     FIELD(server.unix_socket_directory), NULL, "where the unix socket is made; empty is the data directory"},
    {"unix_socket", GROUP_SERVER, SETTING_STRING, "aidb.sock", 0, 64, RESTART, FIELD(server.unix_socket), NULL,
     "file name of the unix socket; empty makes none"},
    {"unix_socket_access", GROUP_SERVER, SETTING_ENUM, "owner", ACCESS_OWNER, ACCESS_ALL, RESTART,
     FIELD(server.unix_socket_access), "owner|group|all",
     "who may connect to the unix socket: owner, group or all"},
    {"max_connections", GROUP_SERVER, SETTING_INTEGER, "100", 1, 20000, RESTART, FIELD(server.max_connections), NULL,
     "clients that may be connected at once"},
    {"backends", GROUP_SERVER, SETTING_INTEGER, "0", 0, CONFIG_BACKENDS_MAX, RESTART, FIELD(server.backends), NULL,
     "processes that serve all clients between them; 0 gives each client a process of its own"},
    {"admin_reserved_connections", GROUP_SERVER, SETTING_INTEGER, "3", 0, 1000, RELOAD,
     FIELD(server.admin_reserved_connections), NULL,
     "part of max_connections that only the administrator (same user or root, by unix socket) may use"},
    {"authentication_timeout", GROUP_SERVER, SETTING_DURATION, "15s", 1 * SECOND, HOUR, RELOAD,
     FIELD(server.authentication_timeout), NULL, "how long a client may take to introduce itself"},
    {"statement_timeout", GROUP_SERVER, SETTING_DURATION, "0", 0, 24 * HOUR, RELOAD, FIELD(server.statement_timeout), NULL,
     "how long one request may take; 0 sets no limit"},
    {"request_memory", GROUP_SERVER, SETTING_SIZE, "256MiB", 16 * MIB, 1 * TIB, RELOAD, FIELD(server.request_memory), NULL,
     "memory for large requests and replies of all clients together; further ones wait their turn"},
    {"log_destination", GROUP_SERVER, SETTING_ENUM, "stderr", LOG_TO_STDERR, LOG_TO_FILE, RELOAD,
     FIELD(server.log_destination), "stderr|file", "where the server log goes: stderr or file"},
    {"log_file", GROUP_SERVER, SETTING_STRING, "aidb.log", 1, CONFIG_STRING_SIZE - 1, RELOAD, FIELD(server.log_file), NULL,
     "file of the server log, relative to the data directory"},
    {"log_format", GROUP_SERVER, SETTING_ENUM, "text", LOG_TEXT, LOG_JSON, RELOAD, FIELD(server.log_format), "text|json",
     "form of a line in the server log: text or json"},
    {"log_level", GROUP_SERVER, SETTING_ENUM, "info", 0, 3, RELOAD, FIELD(server.log_level),
     "debug|info|warning|error", "least level that is logged: debug, info, warning or error"},
    {"log_min_duration", GROUP_SERVER, SETTING_DURATION, "0", 0, 24 * HOUR, RELOAD, FIELD(server.log_min_duration), NULL,
     "requests that take at least this long are logged; 0 logs none"},
    {"log_connections", GROUP_SERVER, SETTING_BOOL, "false", 0, 1, RELOAD, FIELD(server.log_connections), NULL,
     "log every connection and its end"},
    {"core_dumps", GROUP_SERVER, SETTING_BOOL, "false", 0, 1, RESTART, FIELD(server.core_dumps), NULL,
     "let a crashed process leave a core file; it holds stored data"},
    /* clang-format on */
};

#define SETTING_COUNT (sizeof SETTINGS / sizeof SETTINGS[0])
_Static_assert(SETTING_COUNT <= CONFIG_SETTINGS_MAX, "Config.lines has one place for each setting");

size_t setting_count(void)
{
    return SETTING_COUNT;
}

const Setting *setting_at(size_t index)
{
    return &SETTINGS[index];
}

const Setting *setting_find(const char *name)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (strcmp(SETTINGS[i].name, name) == 0)
            return &SETTINGS[i];
    return NULL;
}

const char *setting_type_name(SettingType type)
{
    static const char *const NAMES[] = {"bool", "integer", "size", "duration",
                                        "enum", "string",  "list"};
    return NAMES[type];
}

/* Edit distance of two short words: insertions, removals, replacements. */
static unsigned word_distance(const char *a, const char *b)
{
    enum { WORD_MAX = 40 };
    size_t a_size = strlen(a), b_size = strlen(b);
    if (a_size > WORD_MAX || b_size > WORD_MAX)
        return UINT32_MAX;
    unsigned row[WORD_MAX + 1];
    for (size_t j = 0; j <= b_size; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_size; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_size; j++) {
            unsigned best = diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b_size];
}

const char *setting_suggest(const char *name)
{
    const char *best = NULL;
    unsigned best_distance = 4; /* further away it is another word */
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        unsigned distance = word_distance(name, SETTINGS[i].name);
        if (distance < best_distance && distance * 2 <= strlen(SETTINGS[i].name)) {
            best_distance = distance;
            best = SETTINGS[i].name;
        }
    }
    return best;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static bool is_text(const Setting *setting)
{
    return setting->type == SETTING_STRING || setting->type == SETTING_LIST;
}

static void store_number(Config *config, const Setting *setting, int64_t value)
{
    uint8_t *field = (uint8_t *)config + setting->offset;
    if (setting->width == sizeof(int64_t)) {
        memcpy(field, &value, sizeof value);
    } else if (setting->width == sizeof(int32_t)) {
        int32_t narrow = (int32_t)value;
        memcpy(field, &narrow, sizeof narrow);
    } else {
        *field = (uint8_t)value;
    }
}

static int64_t load_number(const Config *config, const Setting *setting)
{
    const uint8_t *field = (const uint8_t *)config + setting->offset;
    if (setting->width == sizeof(int64_t)) {
        int64_t value;
        memcpy(&value, field, sizeof value);
        return value;
    }
    if (setting->width == sizeof(int32_t)) {
        int32_t value;
        memcpy(&value, field, sizeof value);
        return value;
    }
    return *field;
}

/* ---- numbers as text ------------------------------------------------------------------------- */

typedef struct Unit {
    const char *name;
    int64_t factor;
} Unit;

static const Unit SIZE_UNITS[] = {{"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB}, {"KiB", KIB}, {"B", 1}};
static const Unit DURATION_UNITS[] = {
    {"d", 24 * HOUR}, {"h", HOUR}, {"min", 60 * SECOND}, {"s", SECOND}, {"ms", 1}};

#define UNIT_COUNT 5
_Static_assert(sizeof SIZE_UNITS == UNIT_COUNT * sizeof(Unit), "five units");
_Static_assert(sizeof DURATION_UNITS == UNIT_COUNT * sizeof(Unit), "five units");

static Status format_number(SettingType type, int64_t value, Buffer *text)
{
    if ((type == SETTING_SIZE || type == SETTING_DURATION) && value != 0) {
        const Unit *units = type == SETTING_SIZE ? SIZE_UNITS : DURATION_UNITS;
        for (size_t i = 0; i < UNIT_COUNT; i++)
            if (value % units[i].factor == 0)
                return buffer_append_format(
                    text, "%" PRId64 "%s", value / units[i].factor,
                    units[i].factor == 1 && type == SETTING_SIZE ? "" : units[i].name);
    }
    return buffer_append_format(text, "%" PRId64, value);
}

/* Digits with an optional sign; what follows them is returned in *rest. */
static bool parse_digits(const char *text, int64_t *value, const char **rest)
{
    const char *at = text;
    bool negative = *at == '-';
    if (negative)
        at++;
    if (!isdigit((unsigned char)*at))
        return false;
    int64_t total = 0;
    for (; isdigit((unsigned char)*at); at++)
        if (__builtin_mul_overflow(total, 10, &total) ||
            __builtin_add_overflow(total, *at - '0', &total))
            return false;
    *value = negative ? -total : total;
    *rest = at;
    return true;
}

static Status parse_number(const Setting *setting, const char *text, int64_t *value)
{
    const char *rest = NULL;
    if (!parse_digits(text, value, &rest))
        goto wrong;
    while (*rest == ' ')
        rest++;
    if (setting->type == SETTING_INTEGER)
        return *rest == '\0'
                   ? AIDB_OK
                   : status_set(AIDB_INVALID, "%s: \"%s\" is not an integer", setting->name, text);
    if (*rest == '\0' && (setting->type == SETTING_SIZE || *value == 0))
        return AIDB_OK;
    const Unit *units = setting->type == SETTING_SIZE ? SIZE_UNITS : DURATION_UNITS;
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if (strcasecmp(rest, units[i].name) != 0)
            continue;
        if (__builtin_mul_overflow(*value, units[i].factor, value))
            goto wrong;
        return AIDB_OK;
    }
wrong:
    if (setting->type == SETTING_INTEGER)
        return status_set(AIDB_INVALID, "%s: \"%s\" is not an integer", setting->name, text);
    (void)status_set(AIDB_INVALID, "%s: \"%s\" is not a %s", setting->name, text,
                     setting->type == SETTING_SIZE ? "size" : "time");
    status_hint("%s", setting->type == SETTING_SIZE
                          ? "Write sizes as 4096, 64KiB, 512MiB, 2GiB or 1TiB."
                          : "Write times as 100ms, 5s, 2min, 1h or 1d.");
    return AIDB_INVALID;
}

Status config_parse_duration(const char *name, const char *text, uint64_t *ms)
{
    const Setting setting = {.name = name, .type = SETTING_DURATION};
    int64_t value = 0;
    RETURN_IF_FAILED(parse_number(&setting, text, &value));
    if (value < 0)
        return status_set(AIDB_INVALID, "%s: %s is negative", name, text);
    *ms = (uint64_t)value;
    return AIDB_OK;
}

static Status check_bounds(const Setting *setting, const char *given, int64_t value)
{
    if (value >= setting->min && value <= setting->max)
        return AIDB_OK;
    Buffer bounds = {0};
    Status status = format_number(setting->type, setting->min, &bounds);
    if (status == AIDB_OK)
        status = buffer_append(&bounds, " to ", 4);
    if (status == AIDB_OK)
        status = format_number(setting->type, setting->max, &bounds);
    if (status == AIDB_OK)
        status = status_set(AIDB_INVALID, "%s: %s is out of range (%.*s)", setting->name, given,
                            (int)bounds.size, (const char *)bounds.data);
    buffer_deinit(&bounds);
    return status;
}

/* ---- words ----------------------------------------------------------------------------------- */

static Status parse_bool(const Setting *setting, const char *text, int64_t *value)
{
    static const char *const YES[] = {"true", "yes", "on"};
    static const char *const NO[] = {"false", "no", "off"};
    for (size_t i = 0; i < 3; i++) {
        if (strcasecmp(text, YES[i]) == 0 || strcasecmp(text, NO[i]) == 0) {
            *value = strcasecmp(text, YES[i]) == 0;
            return AIDB_OK;
        }
    }
    return status_set(AIDB_INVALID, "%s: \"%s\" is neither true nor false", setting->name, text);
}

/* The word at `index` of "a|b|c". */
static Slice choice_at(const char *choices, int64_t index)
{
    for (; index > 0; index--)
        choices = strchr(choices, '|') + 1;
    return slice_make(choices, strcspn(choices, "|"));
}

static Status parse_enum(const Setting *setting, const char *text, int64_t *value)
{
    for (int64_t v = setting->min; v <= setting->max; v++) {
        Slice choice = choice_at(setting->choices, v - setting->min);
        if (strlen(text) == choice.size &&
            strncasecmp(text, (const char *)choice.data, choice.size) == 0) {
            *value = v;
            return AIDB_OK;
        }
    }
    return status_set(AIDB_INVALID, "%s: \"%s\" is not one of %s", setting->name, text,
                      setting->choices);
}

static Status set_text(Config *config, const Setting *setting, const char *text)
{
    size_t size = strlen(text);
    if (size < (size_t)setting->min)
        return status_set(AIDB_INVALID, "%s: must not be empty", setting->name);
    if (size > (size_t)setting->max)
        return status_set(AIDB_INVALID, "%s: longer than %" PRId64 " bytes", setting->name,
                          setting->max);
    for (const char *at = text; *at != '\0'; at++)
        if (iscntrl((unsigned char)*at))
            return status_set(AIDB_INVALID, "%s: control characters are not allowed",
                              setting->name);
    char *field = (char *)config + setting->offset;
    memset(field, 0, setting->width);
    memcpy(field, text, size);
    return AIDB_OK;
}

Status config_set(Config *config, const char *name, const char *value)
{
    const Setting *setting = setting_find(name);
    if (setting == NULL) {
        const char *suggestion = setting_suggest(name);
        (void)status_set(AIDB_INVALID, "unknown setting \"%s\"", name);
        if (suggestion != NULL)
            status_hint("Perhaps \"%s\" is meant.", suggestion);
        else
            status_hint("`aidb --describe-config` lists every setting.");
        return AIDB_INVALID;
    }
    if (is_text(setting)) {
        RETURN_IF_FAILED(set_text(config, setting, value));
    } else {
        int64_t number = 0;
        if (setting->type == SETTING_BOOL)
            RETURN_IF_FAILED(parse_bool(setting, value, &number));
        else if (setting->type == SETTING_ENUM)
            RETURN_IF_FAILED(parse_enum(setting, value, &number));
        else
            RETURN_IF_FAILED(parse_number(setting, value, &number));
        RETURN_IF_FAILED(check_bounds(setting, value, number));
        store_number(config, setting, number);
    }
    config_set_line(config, setting, CONFIG_FROM_OPTION);
    return AIDB_OK;
}

void config_set_line(Config *config, const Setting *setting, uint32_t line)
{
    config->lines[setting - SETTINGS] = line;
}

uint32_t config_line(const Config *config, const Setting *setting)
{
    return config->lines[setting - SETTINGS];
}

Status config_set_pair(Config *config, const char *pair)
{
    const char *equals = strchr(pair, '=');
    char name[64];
    if (equals == NULL || equals == pair || (size_t)(equals - pair) >= sizeof name)
        return status_set(AIDB_INVALID, "\"%s\" is not name=value", pair);
    memcpy(name, pair, (size_t)(equals - pair));
    name[equals - pair] = '\0';
    return config_set(config, name, equals + 1);
}

void config_init(Config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        /* A default that its own row refuses stays zero: the unit test looks for that. */
        if (config_set(config, SETTINGS[i].name, SETTINGS[i].default_text) == AIDB_OK)
            config->lines[i] = 0;
    }
}

/* ---- what single bounds cannot express ------------------------------------------------------- */

static Status check_relations(const Config *config, const char **culprit)
{
    const EngineOptions *engine = &config->engine;
    const ServerSettings *server = &config->server;

    *culprit = "mode";
    if (server->mode != MODE_PRIMARY)
        return status_set(AIDB_UNSUPPORTED, "mode: %s is not in this version",
                          server->mode == MODE_REPLICA ? "replica" : "coordinator");
    *culprit = "compression";
#ifndef HAVE_SNAPPY
    if (engine->compression == COMPRESSION_SNAPPY)
        return status_set(AIDB_UNSUPPORTED, "compression: this build has no snappy");
#endif
    *culprit = "wal_segment_size";
    if ((engine->wal_segment_size & (engine->wal_segment_size - 1)) != 0)
        return status_set(AIDB_INVALID, "wal_segment_size: must be a power of two");
    *culprit = "wal_ring_size";
    if (engine->wal_ring_size % 4096 != 0)
        return status_set(AIDB_INVALID, "wal_ring_size: must be a multiple of 4KiB");
    *culprit = "memtable_size";
    if (engine->memtable_size > engine->memory)
        return status_set(AIDB_INVALID, "memtable_size: larger than memory");
    *culprit = "cache_size";
    if (engine->cache_size > engine->memory)
        return status_set(AIDB_INVALID, "cache_size: larger than memory");
    *culprit = "admin_reserved_connections";
    if (server->admin_reserved_connections >= server->max_connections)
        return status_set(AIDB_INVALID,
                          "admin_reserved_connections: leaves none of %u connections to others",
                          server->max_connections);
    *culprit = "unix_socket";
    if (strchr(server->unix_socket, '/') != NULL)
        return status_set(AIDB_INVALID, "unix_socket: must be a file name without a directory");
    if (server->unix_socket[0] == '\0' && server->port == 0)
        return status_set(AIDB_INVALID, "unix_socket: the server would not listen anywhere");
    *culprit = NULL;
    return AIDB_OK;
}

Status config_check(const Config *config)
{
    const char *culprit;
    return check_relations(config, &culprit);
}

Status config_check_lines(const Config *config, uint32_t *line)
{
    const char *culprit = NULL;
    Status status = check_relations(config, &culprit);
    *line = status == AIDB_OK ? 0 : config->lines[setting_find(culprit) - SETTINGS];
    return status;
}

/* ---- printing -------------------------------------------------------------------------------- */

Status config_get(const Config *config, const Setting *setting, Buffer *text)
{
    if (is_text(setting))
        return buffer_append_format(text, "%s", (const char *)config + setting->offset);
    int64_t value = load_number(config, setting);
    if (setting->type == SETTING_BOOL)
        return buffer_append_format(text, "%s", value != 0 ? "true" : "false");
    if (setting->type == SETTING_ENUM) {
        Slice choice = choice_at(setting->choices, value - setting->min);
        return buffer_append(text, choice.data, choice.size);
    }
    return format_number(setting->type, value, text);
}

static bool is_same(const Config *a, const Config *b, const Setting *setting)
{
    return memcmp((const char *)a + setting->offset, (const char *)b + setting->offset,
                  setting->width) == 0;
}

void config_diff(const Config *from, const Config *to,
                 void (*changed)(void *arg, const Setting *setting), void *arg)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (!is_same(from, to, &SETTINGS[i]))
            changed(arg, &SETTINGS[i]);
}

void config_take_reloadable(Config *running, const Config *wanted)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const Setting *setting = &SETTINGS[i];
        if (!setting->reload)
            continue;
        memcpy((char *)running + setting->offset, (const char *)wanted + setting->offset,
               setting->width);
        running->lines[i] = wanted->lines[i];
    }
}

static const char *group_name(const Setting *setting)
{
    return setting->group == GROUP_ENGINE ? "engine" : "server";
}

static const char *unit_name(const Setting *setting)
{
    if (setting->type == SETTING_SIZE)
        return "bytes";
    return setting->type == SETTING_DURATION ? "ms" : "";
}

static bool has_bounds(const Setting *setting)
{
    return setting->type == SETTING_INTEGER || setting->type == SETTING_SIZE ||
           setting->type == SETTING_DURATION;
}

Status config_describe(Buffer *text)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const Setting *setting = &SETTINGS[i];
        RETURN_IF_FAILED(buffer_append_format(text, "%s\t%s\t%s\t%s\t", setting->name,
                                              group_name(setting), setting_type_name(setting->type),
                                              setting->default_text));
        if (has_bounds(setting))
            RETURN_IF_FAILED(format_number(setting->type, setting->min, text));
        RETURN_IF_FAILED(buffer_append_byte(text, '\t'));
        if (has_bounds(setting))
            RETURN_IF_FAILED(format_number(setting->type, setting->max, text));
        RETURN_IF_FAILED(buffer_append_format(text, "\t%s\t%s\t%s\n", unit_name(setting),
                                              setting->reload ? "reload" : "restart",
                                              setting->text));
    }
    return AIDB_OK;
}

/* A value as YAML: text in single quotes, so that any byte the parser allows stands for itself. */
static Status append_yaml_value(const Config *config, const Setting *setting, Buffer *text)
{
    if (!is_text(setting))
        return config_get(config, setting, text);
    RETURN_IF_FAILED(buffer_append_byte(text, '\''));
    for (const char *at = (const char *)config + setting->offset; *at != '\0'; at++) {
        if (*at == '\'')
            RETURN_IF_FAILED(buffer_append_byte(text, '\''));
        RETURN_IF_FAILED(buffer_append_byte(text, (uint8_t)*at));
    }
    return buffer_append_byte(text, '\'');
}

static Status append_sample_setting(const Config *config, const Config *defaults,
                                    const Setting *setting, Buffer *text)
{
    RETURN_IF_FAILED(buffer_append_format(
        text, "\n# %c%s", toupper((unsigned char)setting->text[0]), setting->text + 1));
    if (has_bounds(setting)) {
        RETURN_IF_FAILED(buffer_append(text, ". ", 2));
        RETURN_IF_FAILED(format_number(setting->type, setting->min, text));
        RETURN_IF_FAILED(buffer_append(text, " to ", 4));
        RETURN_IF_FAILED(format_number(setting->type, setting->max, text));
    }
    RETURN_IF_FAILED(
        buffer_append_format(text, ".%s\n%s%s: ", setting->reload ? "" : " Needs a restart.",
                             is_same(config, defaults, setting) ? "#" : "", setting->name));
    RETURN_IF_FAILED(append_yaml_value(config, setting, text));
    return buffer_append_byte(text, '\n');
}

Status config_sample(const Config *config, Buffer *text)
{
    Config defaults;
    config_init(&defaults);
    RETURN_IF_FAILED(buffer_append_format(
        text, "# Settings of this AiDb database. A line that begins with # shows a default.\n"
              "# Sizes: 64KiB, 512MiB, 2GiB. Times: 100ms, 5s, 2min, 1h.\n"
              "# After a change: aidbctl reload, or aidbctl restart where it says so.\n"));
    for (int group = GROUP_SERVER; group >= GROUP_ENGINE; group--) {
        RETURN_IF_FAILED(buffer_append_format(text, "\n# ---- %s ----\n",
                                              group == GROUP_SERVER ? "server" : "engine"));
        for (size_t i = 0; i < SETTING_COUNT; i++)
            if ((int)SETTINGS[i].group == group)
                RETURN_IF_FAILED(append_sample_setting(config, &defaults, &SETTINGS[i], text));
    }
    return AIDB_OK;
}

Status config_show(const Config *config, Buffer *text)
{
    RETURN_IF_FAILED(buffer_append_format(text, "name\tvalue\tsource\tchange\n"));
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const Setting *setting = &SETTINGS[i];
        RETURN_IF_FAILED(buffer_append_format(text, "%s\t", setting->name));
        RETURN_IF_FAILED(config_get(config, setting, text));
        if (config->lines[i] == 0)
            RETURN_IF_FAILED(buffer_append_format(text, "\tdefault"));
        else if (config->lines[i] == CONFIG_FROM_OPTION)
            RETURN_IF_FAILED(buffer_append_format(text, "\toption"));
        else
            RETURN_IF_FAILED(buffer_append_format(text, "\tline %u", config->lines[i]));
        RETURN_IF_FAILED(
            buffer_append_format(text, "\t%s\n", setting->reload ? "reload" : "restart"));
    }
    return AIDB_OK;
}
