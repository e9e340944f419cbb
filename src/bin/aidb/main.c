/* main.c - the server program: options, then the postmaster. */
#include "config.h"
#include "postmaster/postmaster.h"

#include "config/settings.h"
#include "port/port.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE 3

static void print_help(void)
{
    printf("aidb is the AiDb server.\n\n"
           "Usage:\n"
           "  aidb -D DIRECTORY\n\n"
           "Options:\n"
           "  -D, --directory DIRECTORY  the data directory (default: $AIDB_DATA)\n"
           "      --describe-config      print every setting, one line of tab-separated columns "
           "each:\n"
           "                             name, group, type, default, min, max, unit, "
           "reload|restart, text\n"
           "  -V, --version              print the version\n"
           "  -h, --help                 print this\n\n"
           "The server runs in the foreground; aidbctl start runs it in the background. Signals:\n"
           "SIGTERM waits for clients to leave, SIGINT ends them, SIGQUIT stops without a clean "
           "stop,\n"
           "SIGHUP reads aidb.yaml again, SIGUSR1 opens the log file anew.\n\n"
           "Exit codes: 0 stopped as asked, 1 error, 3 wrong usage.\n");
}

static int describe_config(void)
{
    Buffer text = {0};
    int code = EXIT_FAILURE;
    if (config_describe(&text) == AIDB_OK && fwrite(text.data, 1, text.size, stdout) == text.size &&
        fflush(stdout) == 0)
        code = EXIT_SUCCESS;
    else
        fprintf(stderr, "aidb: could not print the settings\n");
    buffer_deinit(&text);
    return code;
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {
        {"directory", required_argument, NULL, 'D'},
        {"describe-config", no_argument, NULL, 'C'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *directory = getenv("AIDB_DATA");
    int option;
    while ((option = getopt_long(argc, argv, "D:Vh", OPTIONS, NULL)) != -1) {
        switch (option) {
        case 'D':
            directory = optarg;
            break;
        case 'C':
            return describe_config();
        case 'V':
            printf("aidb %s\n", AIDB_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            print_help();
            return EXIT_SUCCESS;
        default:
            fprintf(stderr, "Try `aidb --help`.\n");
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "aidb: unexpected argument: %s\nTry `aidb --help`.\n", argv[optind]);
        return EXIT_USAGE;
    }
    if (directory == NULL || directory[0] == '\0') {
        fprintf(stderr, "aidb: no data directory given: use -D DIRECTORY or set AIDB_DATA\n");
        return EXIT_USAGE;
    }
    /* Titles overwrite the arguments. */
    char *copy = strdup(directory);
    if (copy == NULL) {
        fprintf(stderr, "aidb: out of memory\n");
        return EXIT_FAILURE;
    }
    port_title_init(argc, argv);
    int code = postmaster_run(copy);
    free(copy);
    return code;
}
