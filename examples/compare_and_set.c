/*
 * compare_and_set.c - a counter that many clients may raise at once.
 *
 * Reads the value and its version, and writes the next one on the condition that the key is still at
 * that version. Who loses the race reads again.
 */
#include <aidb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char counter[] = "counter";

/* Adds one and returns the new value, or -1. */
static long increment(aidb *db, aidb_batch *batch)
{
    aidb_value value = {0};
    long next = -1;
    for (;;) {
        aidb_status status = aidb_get(db, NULL, counter, strlen(counter), &value);
        if (status != AIDB_OK && status != AIDB_NOT_FOUND)
            break;
        long current = 0;
        if (status == AIDB_OK) {
            char text[32];
            snprintf(text, sizeof text, "%.*s", (int)value.size, (char *)value.data);
            current = atol(text);
        }
        char text[32];
        int size = snprintf(text, sizeof text, "%ld", current + 1);

        aidb_batch_clear(batch);
        if (aidb_batch_put(batch, counter, strlen(counter), text, (size_t)size) != AIDB_OK)
            break;
        aidb_expect expect = value.lsn != 0 ? AIDB_EXPECT_VERSION : AIDB_EXPECT_ABSENT;
        if (aidb_batch_expect(batch, counter, strlen(counter), expect, value.lsn) != AIDB_OK)
            break;
        status = aidb_write(db, batch, AIDB_DEFAULT, NULL);
        if (status == AIDB_EXPECTATION)
            continue; /* somebody was faster */
        if (status == AIDB_OK)
            next = current + 1;
        break;
    }
    aidb_free(value.data);
    return next;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "./data";
    const aidb_option create[] = {{"create", "true"}, {NULL, NULL}};
    aidb *db;
    if (aidb_open(name, strncmp(name, "aidb", 4) == 0 ? NULL : create, &db) != AIDB_OK) {
        fprintf(stderr, "open: %s\n", aidb_error_message());
        return 1;
    }
    aidb_batch *batch = aidb_batch_create();
    int failed = batch == NULL;
    for (int i = 0; i < 3 && !failed; i++) {
        long now = increment(db, batch);
        failed = now < 0;
        if (failed)
            fprintf(stderr, "increment: %s\n", aidb_error_message());
        else
            printf("counter is now %ld\n", now);
    }
    aidb_batch_destroy(batch);
    return aidb_close(db) == AIDB_OK && !failed ? 0 : 1;
}
