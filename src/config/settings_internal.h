/* settings_internal.h - between the table of settings and the reader of aidb.yaml. */
#ifndef AIDB_CONFIG_SETTINGS_INTERNAL_H
#define AIDB_CONFIG_SETTINGS_INTERNAL_H

#include "config/settings.h"

/* Where a setting got its value (Config.lines). */
void config_set_line(Config *config, const Setting *setting, uint32_t line);
uint32_t config_line(const Config *config, const Setting *setting);

/* config_check, with the line of the setting that is wrong (0: a default). */
Status config_check_lines(const Config *config, uint32_t *line) MUST_CHECK;

#endif
