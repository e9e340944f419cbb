/* damage_test.c */
#include "config.h"
#include "engine/wal/test_store.h"
TCase *damage_cases(void)
{
    return tcase_create("damage");
}
