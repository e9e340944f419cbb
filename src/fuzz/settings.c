/* settings.c - any bytes as aidb.yaml. What is accepted must survive being written and read again. */
#include "config.h"

#include "fuzz/fuzz.h"

#include "config/settings.h"

#include <stdlib.h>
#include <string.h>

static void must_not_differ(void *arg, const Setting *setting)
{
    (void)arg;
    (void)setting;
    abort();
}

void fuzz_settings(const uint8_t *data, size_t size)
{
    Config config, again;
    Buffer text = {0};
    if (config_parse("aidb.yaml", slice_make(data, size), &config) != AIDB_OK) {
        fuzz_require(status_message()[0] != '\0');
    } else {
        fuzz_require(config_sample(&config, &text) == AIDB_OK);
        fuzz_require(config_parse("again", buffer_slice(&text), &again) == AIDB_OK);
        config_diff(&config, &again, must_not_differ, NULL);
    }
    buffer_deinit(&text);
    /* The same bytes as one setting on a command line. */
    char pair[512];
    if (size < sizeof pair && memchr(data, 0, size) == NULL) {
        if (size > 0)
            memcpy(pair, data, size);
        pair[size] = 0;
        config_init(&config);
        Status status = config_set_pair(&config, pair);
        fuzz_require(status == AIDB_OK || status_message()[0] != '\0');
    }
}
