/*
 * main.c - aidbbench: parses the command line, runs, and turns the outcome into an exit code.
 */
#include "config.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#include "bin/aidbbench/bench.h"
#include "bin/aidbbench/options.h"

static atomic_bool stop;

/* The first signal ends the run in good order, the second one at once. */
static void on_signal(int signal_number)
{
    (void)signal_number;
    atomic_store_explicit(&stop, true, memory_order_relaxed);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int main(int argc, char **argv)
{
    Options options;
    char error[2048] = "";
    BenchExit code = BENCH_DONE;
    switch (options_parse(&options, argc, argv, error, sizeof error)) {
    case OPTIONS_RUN:
        catch_signals();
        code = bench_run(&options, stdout, &stop, error, sizeof error);
        break;
    case OPTIONS_HELP:
        options_print_help(stdout);
        break;
    case OPTIONS_VERSION:
        printf("aidbbench (AiDb) %s\n", AIDB_VERSION);
        break;
    case OPTIONS_WRONG:
        code = BENCH_USAGE;
        break;
    }
    if (code != BENCH_DONE && code != BENCH_STOPPED)
        fprintf(stderr, "aidbbench: %s\n", error);
    if (code == BENCH_USAGE)
        fprintf(stderr, "Try 'aidbbench --help'.\n");
    options_deinit(&options);
    return (int)code;
}
