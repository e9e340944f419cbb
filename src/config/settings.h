/*
 * settings.h - every setting of AiDb, from one table.
 *
 * The table (settings.c) gives each setting its name, group, type, default, bounds, whether a running
 * server takes a new value over, and its text. From it come the defaults, the reading of aidb.yaml,
 * options by name, `aidb --describe-config`, the commented file that `aidbctl init` writes, and the
 * list that SHOW CONFIG prints. A new setting is a field below and a row there.
 *
 * A Config is a plain value without pointers: copy it, compare two, put it in shared memory. Nothing
 * here keeps state. (The folder's header is not called after the folder, because a file config.h here
 * would hide the generated one.)
 */
#ifndef AIDB_CONFIG_SETTINGS_H
#define AIDB_CONFIG_SETTINGS_H

#include "common/buffer.h"
#include "common/status.h"
#include "engine/base/base.h"

#define CONFIG_FILE_NAME      "aidb.yaml"
#define CONFIG_FILE_SIZE_MAX  (1u << 20)
#define CONFIG_STRING_SIZE    256 /* of a text setting, null included */
#define CONFIG_COMPACTORS_MAX 32
#define CONFIG_BACKENDS_MAX   64
#define CONFIG_SETTINGS_MAX   48

typedef enum ServerMode { MODE_PRIMARY = 0, MODE_REPLICA = 1, MODE_COORDINATOR = 2 } ServerMode;
typedef enum SocketAccess { ACCESS_OWNER = 0, ACCESS_GROUP = 1, ACCESS_ALL = 2 } SocketAccess;
typedef enum LogDestination { LOG_TO_STDERR = 0, LOG_TO_FILE = 1 } LogDestination;
typedef enum LogFormat { LOG_TEXT = 0, LOG_JSON = 1 } LogFormat;

typedef struct ServerSettings {
    uint32_t mode; /* ServerMode */
    char listen_addresses
        [CONFIG_STRING_SIZE]; /* names or numbers, separated by commas; "*" is all */
    uint32_t port;            /* 0: no TCP */
    char unix_socket_directory[CONFIG_STRING_SIZE]; /* empty: the data directory */
    char unix_socket[CONFIG_STRING_SIZE];           /* file name there; empty: none */
    uint32_t unix_socket_access;                    /* SocketAccess */
    uint32_t max_connections;
    uint32_t backends;                   /* processes that serve all clients; 0: one for each */
    uint32_t admin_reserved_connections; /* part of max_connections */
    uint64_t authentication_timeout;     /* ms */
    uint64_t statement_timeout;          /* ms; 0: none */
    uint64_t request_memory;             /* bytes in large requests at once, whole server */
    uint32_t log_destination;            /* LogDestination */
    char log_file[CONFIG_STRING_SIZE];   /* relative to the data directory */
    uint32_t log_format;                 /* LogFormat */
    uint32_t log_level;                  /* LogLevel */
    uint64_t log_min_duration;           /* ms; 0: off */
    bool log_connections;
    bool core_dumps;
} ServerSettings;

typedef struct Config {
    EngineOptions engine;
    ServerSettings server;
    /* Where setting i got its value: 0 default, CONFIG_FROM_OPTION, else the line in the file. */
    uint32_t lines[CONFIG_SETTINGS_MAX];
} Config;
#define CONFIG_FROM_OPTION UINT32_MAX

typedef enum SettingType {
    SETTING_BOOL,
    SETTING_INTEGER,
    SETTING_SIZE,     /* bytes: 4096, 64KiB, 512MiB, 2GiB, 1TiB */
    SETTING_DURATION, /* ms: 100ms, 5s, 2min, 1h, 1d; only 0 needs no unit */
    SETTING_ENUM,
    SETTING_STRING,
    SETTING_LIST /* a string; in the file also a sequence of words */
} SettingType;

typedef enum SettingGroup { GROUP_ENGINE, GROUP_SERVER } SettingGroup;

typedef struct Setting {
    const char *name;
    SettingGroup group;
    SettingType type;
    const char *default_text;
    int64_t min; /* an enum's first value */
    int64_t max;
    bool reload;         /* a running server takes a new value over */
    size_t offset;       /* in Config */
    size_t width;        /* bytes of the field */
    const char *choices; /* of an enum: "none|snappy|zstd", values from `min` on */
    const char *text;
} Setting;

size_t setting_count(void);
const Setting *setting_at(size_t index);
/* NULL when there is none of this name. */
const Setting *setting_find(const char *name);
/* The name most like this one, NULL when none is close. */
const char *setting_suggest(const char *name);
const char *setting_type_name(SettingType type);

/* All defaults. */
void config_init(Config *config);

/* Defaults, then the file. AIDB_NOT_FOUND (with a message) when it does not exist; AIDB_INVALID with
 * "PATH:LINE:COLUMN: ..." for anything wrong in it. Finishes with config_check. */
Status config_load(const char *path, Config *config) MUST_CHECK;
/* The same for text in memory; `path` is for messages. */
Status config_parse(const char *path, Slice text, Config *config) MUST_CHECK;

/* One setting by name and text. AIDB_INVALID: unknown name (the hint suggests one) or bad value. */
Status config_set(Config *config, const char *name, const char *value) MUST_CHECK;
/* "name=value". */
Status config_set_pair(Config *config, const char *pair) MUST_CHECK;

/* A time as settings write them ("5s"), in ms, for options that are not settings. */
Status config_parse_duration(const char *name, const char *text, uint64_t *ms) MUST_CHECK;

/* What single bounds cannot express: settings that contradict each other, or that this build or
 * version does not have. */
Status config_check(const Config *config) MUST_CHECK;

/* The value as text that config_set takes back. */
Status config_get(const Config *config, const Setting *setting, Buffer *text) MUST_CHECK;

/* Calls `changed` for every setting in which the two differ. */
void config_diff(const Config *from, const Config *to,
                 void (*changed)(void *arg, const Setting *setting), void *arg);
/* `running` with those settings of `wanted` that may change in a running server. */
void config_take_reloadable(Config *running, const Config *wanted);

/* One line for each setting: name, group, type, default, min, max, unit, reload|restart, text,
 * separated by tabs. */
Status config_describe(Buffer *text) MUST_CHECK;
/* aidb.yaml with every setting explained: those that differ from their defaults are set, the others
 * commented out. */
Status config_sample(const Config *config, Buffer *text) MUST_CHECK;
/* A table with a header line: name TAB value TAB source TAB change. */
Status config_show(const Config *config, Buffer *text) MUST_CHECK;

#endif
