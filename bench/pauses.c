/*
 * pauses.c - the longest time that a thread that only reads the clock does not run.
 *
 * What a store's writer cannot be spared on this machine: other threads' turns, interrupts, and a host that
 * runs something else.
 *
 *   pauses THREADS SECONDS     prints milliseconds
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define THREADS_MAX 64

typedef struct Watch {
    pthread_t thread;
    uint64_t until;
    uint64_t longest;
} Watch;

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *watch_main(void *arg)
{
    Watch *watch = arg;
    uint64_t longest = 0; /* not in *watch: threads would take its cache line from each other */
    for (uint64_t before = now(); before < watch->until;) {
        uint64_t after = now();
        if (after - before > longest)
            longest = after - before;
        before = after;
    }
    watch->longest = longest;
    return NULL;
}

int main(int argc, char **argv)
{
    Watch watches[THREADS_MAX];
    int count = argc == 3 ? atoi(argv[1]) : 0;
    double seconds = argc == 3 ? strtod(argv[2], NULL) : 0;
    if (count < 1 || count > THREADS_MAX || seconds <= 0) {
        fprintf(stderr, "usage: pauses THREADS SECONDS\n");
        return 3;
    }
    uint64_t until = now() + (uint64_t)(seconds * 1e9), longest = 0;
    for (int i = 0; i < count; i++) {
        watches[i] = (Watch){.until = until};
        if (pthread_create(&watches[i].thread, NULL, watch_main, &watches[i]) != 0) {
            fprintf(stderr, "pauses: could not start a thread\n");
            return 1;
        }
    }
    for (int i = 0; i < count; i++) {
        pthread_join(watches[i].thread, NULL);
        if (watches[i].longest > longest)
            longest = watches[i].longest;
    }
    printf("%.3f\n", (double)longest / 1e6);
    return 0;
}
