/*
 * failpoint.c - `aidbctl failpoint`: shows and sets the fail points of a data directory. Only in builds
 * with --enable-failpoints (src/common/failpoint.h).
 */
#include "config.h"

#include "bin/aidbctl/ctl.h"

#include "common/failpoint.h"

#ifdef AIDB_FAILPOINTS

#include <inttypes.h>
#include <stdio.h>

static void show(FailTable *table)
{
    static const char *const kinds[] = {"unknown", "step", "lock", "data", "number"};
    static const char *const actions[] = {"off",   "kill",  "exit", "stop",
                                          "sleep", "error", "flip", "value"};
    for (uint32_t i = 0; i < atomic_load(&table->count); i++) {
        FailRecord *record = &table->records[i];
        uint32_t kind = atomic_load(&record->kind), action = atomic_load(&record->armed);
        printf("%-28s %-7s %-6s hits %" PRIu64 " fired %" PRIu64 "\n", record->name,
               kinds[kind < 5 ? kind : 0], actions[action < 8 ? action : 0],
               atomic_load(&record->hits), atomic_load(&record->fired));
    }
}

int command_failpoint(Arguments *arguments)
{
    FailTable *table = failpoint_table_map(arguments->directory, false);
    if (table == NULL) {
        ctl_error(
            "\"%s\" has no fail points\nhint: Start the server with AIDB_FAILPOINTS set; it may "
            "be empty.",
            arguments->directory);
        return CTL_ERROR;
    }
    int result = CTL_OK;
    for (int i = 0; i < arguments->count && result == CTL_OK; i++)
        if (failpoint_set(table, arguments->items[i]) != AIDB_OK)
            result = ctl_failed();
    if (arguments->count == 0)
        show(table);
    failpoint_table_unmap(table);
    return result;
}

#endif
