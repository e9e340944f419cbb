/*
 * scan.c - reading a range in order, by prefix, forwards and backwards.
 */
#include <aidb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(aidb_status status, const char *what)
{
    if (status == AIDB_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, aidb_error_message());
    exit(1);
}

static void show(const aidb_entry *entry)
{
    printf("  %.*s = %.*s\n", (int)entry->key_size, (const char *)entry->key,
           (int)entry->value_size, (const char *)entry->value);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "./data";
    const aidb_option create[] = {{"create", "true"}, {NULL, NULL}};
    aidb *db;
    check(aidb_open(name, strncmp(name, "aidb", 4) == 0 ? NULL : create, &db), "open");

    aidb_batch *batch = aidb_batch_create();
    if (batch == NULL)
        return 1;
    for (int i = 0; i < 5; i++) {
        char key[32], value[32];
        int key_size = snprintf(key, sizeof key, "planet:%d", i);
        int value_size = snprintf(value, sizeof value, "number %d", i + 1);
        check(aidb_batch_put(batch, key, (size_t)key_size, value, (size_t)value_size), "batch");
    }
    check(aidb_batch_put(batch, "star:0", 6, "sun", 3), "batch");
    check(aidb_write(db, batch, AIDB_DEFAULT, NULL), "write");
    aidb_batch_destroy(batch);

    aidb_scan scan = {.prefix = {"planet:", 7}};
    aidb_iter *iter;
    const aidb_entry *entry;
    check(aidb_iter_create(db, NULL, &scan, &iter), "scan");
    printf("planets:\n");
    for (check(aidb_iter_next(iter, &entry), "next"); entry != NULL;
         check(aidb_iter_next(iter, &entry), "next"))
        show(entry);
    printf("backwards from planet:2:\n");
    for (check(aidb_iter_seek(iter, AIDB_SEEK_LE, "planet:2", 8, &entry), "seek"); entry != NULL;
         check(aidb_iter_prev(iter, &entry), "prev"))
        show(entry);
    aidb_iter_destroy(iter);

    uint64_t count;
    aidb_range range = {.from = {"planet:", 7}, .to = {"planet;", 7}};
    check(aidb_measure(db, NULL, &range, &count, NULL), "count");
    printf("%llu planets\n", (unsigned long long)count);
    check(aidb_close(db), "close");
    return 0;
}
