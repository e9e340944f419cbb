/* fault_test.c */
#include "config.h"
#include "engine/wal/test_store.h"
TCase *fault_cases(void)
{
    return tcase_create("faults");
}
