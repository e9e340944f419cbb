/*
 * test_history.h - what the tests of repair and of misplaced files share: a random store and all that was
 * ever written to it.
 */
#ifndef AIDB_ENGINE_DB_TEST_HISTORY_H
#define AIDB_ENGINE_DB_TEST_HISTORY_H

#include "engine/db/test_store.h"

#define KEYS 300

typedef struct Event {
    uint64_t lsn;
    uint32_t number; /* in the value; 0: a deletion */
    bool range;
} Event;

typedef struct History {
    Event *events;
    size_t count, capacity;
} History;

typedef struct World {
    Store store;
    History keys[KEYS];
    uint32_t next_number;
} World;

/* Writes, reopens, flushes and compacts at random, and leaves the store closed. */
void world_run(World *world, uint64_t seed);
void world_destroy(World *world);
/* Of the world's generator. */
uint32_t below(World *world, uint32_t bound);
void random_write(World *world);
/* A value that says which write made it; some are long, some do not compress. */
Slice value_of(uint32_t number);

/* The names in a folder that hold a text, sorted, with the folder before them; to be freed one by one. */
size_t names_in(const char *directory, const char *folder, const char *wanted, char **paths,
                size_t room);
uint64_t size_of(const char *path);
/* For verification: counts in a uint64_t. */
void count_finding(void *arg, const char *path, uint64_t offset, const char *what);

TCase *misplaced_cases(void);

#endif
