/*
 * init.c - aidbctl init and check-config.
 *
 * The configuration is checked before anything is made. CURRENT, which makes a directory a database,
 * is written last; an init that was interrupted leaves files without it, and the next one says so.
 */
#include "config.h"

#include "bin/aidbctl/ctl.h"

#include "engine/db/db.h"
#include "io/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static Status found_name(void *arg, const char *name)
{
    (void)name;
    *(bool *)arg = false;
    return AIDB_OK;
}

int make_directory(const char *directory)
{
    struct stat info;
    if (stat(directory, &info) == 0) {
        bool empty = true;
        if (!S_ISDIR(info.st_mode)) {
            ctl_error("\"%s\" is not a directory", directory);
            return CTL_ERROR;
        }
        if (directory_list(directory, found_name, &empty) != AIDB_OK)
            return ctl_failed();
        if (!empty) {
            ctl_error(db_exists(directory) ? "directory \"%s\" already holds a database"
                                           : "directory \"%s\" is not empty\n"
                                             "hint: Name a new directory, or empty this one first.",
                      directory);
            return CTL_ERROR;
        }
        if (chmod(directory, 0700) != 0) {
            ctl_error("could not set the mode of \"%s\": %s", directory, strerror(errno));
            return CTL_ERROR;
        }
        return CTL_OK;
    }
    char *path = strdup(directory);
    if (path == NULL)
        return CTL_ERROR;
    int result = CTL_OK;
    for (char *slash = path + 1; result == CTL_OK; slash++) {
        slash += strcspn(slash, "/");
        bool last = *slash == '\0';
        *slash = '\0';
        /* Parents get the usual mode, the data directory none for others. */
        if (last ? directory_create(path) != AIDB_OK : mkdir(path, 0777) != 0 && errno != EEXIST) {
            ctl_error("could not create directory \"%s\": %s", path, strerror(errno));
            result = CTL_ERROR;
        }
        if (last)
            break;
        *slash = '/';
    }
    free(path);
    return result;
}

static int take_settings(Arguments *arguments, Config *config)
{
    const char *value;
    config_init(config);
    if (take_option(arguments, "--port", "-p", &value)) {
        long port;
        if (!parse_number("--port", value, 0, 65535, &port))
            return CTL_USAGE;
        if (config_set(config, "port", value) != AIDB_OK)
            return ctl_failed();
    }
    while (take_option(arguments, "--set", "-s", &value)) {
        if (value == NULL || strchr(value, '=') == NULL) {
            ctl_error("--set takes NAME=VALUE");
            return CTL_USAGE;
        }
        if (config_set_pair(config, value) != AIDB_OK)
            return ctl_failed();
    }
    if (config_check(config) != AIDB_OK)
        return ctl_failed();
    size_t size;
    if (db_region_size(&config->engine, config->server.max_connections + 8, &size) != AIDB_OK)
        return ctl_failed();
    return CTL_OK;
}

int command_init(Arguments *arguments)
{
    Config config;
    int result = take_settings(arguments, &config);
    if (result == CTL_OK)
        result = reject_rest(arguments, "init");
    if (result == CTL_OK)
        result = make_directory(arguments->directory);
    if (result != CTL_OK)
        return result;
    Buffer sample = {0};
    char *path = path_join(arguments->directory, CONFIG_FILE_NAME);
    Status status = path != NULL ? config_sample(&config, &sample) : AIDB_NO_MEMORY;
    if (status == AIDB_OK)
        status = file_replace(path, sample.data, sample.size, 0600);
    if (status == AIDB_OK)
        status = db_create(arguments->directory, &config.engine);
    free(path);
    buffer_deinit(&sample);
    if (status != AIDB_OK)
        return ctl_failed();
    printf("made an empty database in %s\nstart it with: aidbctl start -D %s\n",
           arguments->directory, arguments->directory);
    return CTL_OK;
}

int command_check_config(Arguments *arguments)
{
    Config config;
    int result = reject_rest(arguments, "check-config");
    if (result != CTL_OK)
        return result;
    if (load_config(arguments->directory, &config) != AIDB_OK)
        return ctl_failed();
    size_t size;
    if (db_region_size(&config.engine, config.server.max_connections + 8, &size) != AIDB_OK)
        return ctl_failed();
    printf("%s/%s is right\n", arguments->directory, CONFIG_FILE_NAME);
    return CTL_OK;
}
