/*
 * main.c - aidbtorture: campaigns that break things around AiDb and check that nothing is lost.
 *
 *     aidbtorture CAMPAIGN [--seed N] [--iterations N] [--minutes N] [--clients N] [--backends N]
 *                          [--bin DIR] [--dir DIR] [--keep] [--verbose]
 *
 * Test only, never installed. A campaign runs rounds until it has done its iterations or its minutes
 * are over, and ends with one line of figures. Exit 0: everything held; 1: something was lost or
 * wrong, and the line before says what and with which seed; 2: usage. The seed decides everything that
 * this program decides; when processes run is up to the machine.
 */
#include "config.h"

#include "torture/torture.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static const struct {
    const char *name;
    bool (*run)(Torture *torture);
    uint32_t iterations;
    const char *text;
} campaigns[] = {
    {"kill-child", kill_campaign, 20, "kill -9 of a random child of the server under load"},
    {"kill-postmaster", kill_campaign, 10, "kill -9 of the postmaster, then start again"},
    {"kill-group", kill_campaign, 10, "kill -9 of the postmaster and all children at once"},
    {"kill-recovery", kill_campaign, 5, "the same, then recovery itself killed ten times"},
    {"stop", kill_campaign, 4, "SIGSTOP of background processes for a while under load"},
    {"kill-embedded", embedded_campaign, 20, "kill -9 of a program with an open directory"},
    {"power", power_campaign, 300, "power loss at a random I/O call; iterations are cuts"},
    {"power-every", power_campaign, 1,
     "power loss at every I/O call of a program; iterations are runs"},
    {"power-killed", power_campaign, 100,
     "power loss while a program recovers from a kill; iterations are cuts"},
    {"server-power", power_campaign, 60, "power loss at a random I/O call of a server"},
    {"server-power-every", power_campaign, 1, "power loss at every I/O call of a server"},
    {"fault-every", fault_campaign, 1,
     "the same at the first 500 calls of each kind, all of memory"},
    {"fault", fault_campaign, 400, "EIO, ENOSPC, short writes, EINTR at the Nth call"},
    {"server-memory", server_memory_campaign, 40,
     "an allocation or mapping fails while a server starts and while it runs"},
    {"failpoint", failpoint_campaign, 1, "kill -9 of a server's processes at every named step"},
    {"failpoint-embedded", failpoint_campaign, 1, "the same in a program with an open directory"},
    {"lock-held", failpoint_campaign, 1, "kill -9 of a server's processes holding every lock"},
    {"stuck", stuck_campaign, 10, "processes that hold a lock and do not let it go"},
    {"bit-flip", flip_campaign, 20, "a bit turned over between sealing a block and writing it"},
    {"soak", soak_campaign, 30, "a server under mixed load for long: nothing may grow"},
    {"oom", oom_campaign, 5, "the kernel's out-of-memory killer takes a backend"},
    {"server-fault", server_fault_campaign, 26, "failing calls and full disks under a server"},
    {"harmless", harmless_campaign, 10,
     "short transfers, interrupted calls, busy sockets, 1 % of all, under a server"},
    {"harmless-paced", harmless_campaign, 10, "the same with few operations and for long"},
    {"slow-disk", slow_disk_campaign, 3,
     "a disk that takes half a second for a sync, under a server"},
    {"linear", linear_campaign, 12, "what clients of a server saw has one order, with kills"},
    {"linear-embedded", linear_campaign, 8, "the same of threads of a program that is killed"},
    {"bank", linear_campaign, 12, "transfers and sums in snapshots, with kills"},
    {"hostile", hostile_campaign, 100000,
     "clients in bad faith beside others; iterations are mutated frames"},
    {"hostile-hosted", hostile_campaign, 100000, "the same where sessions share processes"},
};

const aidb_option small_settings[] = {{"create", "true"},
                                      {"memory", "24MiB"},
                                      {"memtable_size", "256KiB"},
                                      {"cache_size", "2MiB"},
                                      {"batch_max", "4MiB"},
                                      {"table_size", "1MiB"},
                                      {"level_base_size", "1MiB"},
                                      {"level0_files", "2"},
                                      {"compactors", "2"},
                                      {"huge_pages", "false"},
                                      {"wal_segment_size", "1MiB"},
                                      {"wal_ring_size", "1MiB"},
                                      {NULL, NULL}};

uint64_t torture_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void torture_sleep_ms(uint32_t ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        continue;
}

uint64_t torture_below(Torture *torture, uint64_t bound)
{
    return oracle_random(&torture->random) % bound;
}

bool torture_over(const Torture *torture)
{
    return torture->deadline_ms != 0 && torture_now_ms() >= torture->deadline_ms;
}

bool torture_round(Torture *torture)
{
    bool more =
        torture->deadline_ms != 0 ? !torture_over(torture) : torture->rounds < torture->iterations;
    if (more)
        torture->rounds++;
    return more;
}

void torture_recovered(Torture *torture, uint64_t ms)
{
    size_t room = sizeof torture->recovery_ms / sizeof torture->recovery_ms[0];
    if (torture->recoveries < room)
        torture->recovery_ms[torture->recoveries++] = (uint32_t)ms;
}

bool torture_failed(Torture *torture, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "FAILED %s, round %llu, seed %llu: ", torture->campaign,
            (unsigned long long)torture->rounds, (unsigned long long)torture->seed);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    torture->lost++;
    torture->keep = true;
    return false;
}

void torture_count(Torture *torture, const OracleResult *result)
{
    torture->acked += result->acked;
    torture->promised += result->promised;
}

bool torture_wait(pid_t pid, uint32_t limit_ms, int *status)
{
    uint64_t waited = 0, last = torture_now_ms();
    for (;;) {
        pid_t done = waitpid(pid, status, WNOHANG);
        if (done == pid || (done < 0 && errno == ECHILD))
            return true;
        /* A machine that stands still for minutes, and this program with it, is no hang. */
        uint64_t now = torture_now_ms();
        waited += now - last < 1000 ? now - last : 1000;
        last = now;
        if (waited > limit_ms) {
            kill(pid, SIGKILL);
            waitpid(pid, status, 0);
            return false;
        }
        torture_sleep_ms(2);
    }
}

void torture_path(const Torture *torture, const char *name, char path[TORTURE_PATH])
{
    snprintf(path, TORTURE_PATH, "%s/%s", torture->work, name);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info;
    (void)type;
    (void)place;
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* nftw has no argument for its callback. */
static const char *copy_from, *copy_to;

static int copy_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)place;
    char to[2 * TORTURE_PATH];
    snprintf(to, sizeof to, "%s%s", copy_to, path + strlen(copy_from));
    if (type == FTW_D)
        return mkdir(to, 0700);
    if (!S_ISREG(info->st_mode))
        return 0; /* a socket */
    FILE *in = fopen(path, "rb"), *out = fopen(to, "wb");
    static char bytes[65536];
    size_t got;
    int bad = in == NULL || out == NULL;
    while (!bad && (got = fread(bytes, 1, sizeof bytes, in)) > 0)
        bad = fwrite(bytes, 1, got, out) != got;
    if (in != NULL)
        fclose(in);
    if (out != NULL)
        bad |= fclose(out) != 0;
    return bad || chmod(to, 0600) != 0;
}

bool copy_tree(const char *from, const char *to)
{
    copy_from = from;
    copy_to = to;
    return nftw(from, copy_one, 16, FTW_PHYS) == 0;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_figures(Torture *torture, bool held)
{
    uint32_t count = torture->recoveries;
    qsort(torture->recovery_ms, count, sizeof torture->recovery_ms[0], by_size);
    char shared[40] = "";
    if (torture->backends > 0)
        snprintf(shared, sizeof shared, " with %u backends", torture->backends);
    printf(
        "%s%s: %s, seed %llu, %llu rounds%s%s, %llu writes acked, %llu of them promised, lost %llu",
        torture->campaign, shared, held ? "held" : "FAILED", (unsigned long long)torture->seed,
        (unsigned long long)torture->rounds, torture->note[0] != 0 ? ", " : "", torture->note,
        (unsigned long long)torture->acked, (unsigned long long)torture->promised,
        (unsigned long long)torture->lost);
    if (count > 0)
        printf(", recovery ms median %u max %u", torture->recovery_ms[count / 2],
               torture->recovery_ms[count - 1]);
    printf("\n");
}

/* What makes the same decisions again. */
static void print_again(const Torture *torture)
{
    printf("again: aidbtorture %s --seed %llu --iterations %u --clients %u --backends %u",
           torture->campaign, (unsigned long long)torture->seed, torture->iterations,
           torture->clients, torture->backends);
    if (torture->minutes != NULL)
        printf(" --minutes %s", torture->minutes);
    if (torture->bin != NULL)
        printf(" --bin %s", torture->bin);
    printf("\n");
}

static int usage(FILE *out, int code)
{
    fprintf(out,
            "usage: aidbtorture CAMPAIGN [--seed N] [--iterations N] [--minutes N]\n"
            "       [--clients N] [--backends N] [--bin DIR] [--dir DIR] [--keep] [--verbose]\n\n");
    for (size_t i = 0; i < sizeof campaigns / sizeof campaigns[0]; i++)
        fprintf(out, "  %-18s %s (%u)\n", campaigns[i].name, campaigns[i].text,
                campaigns[i].iterations);
    return code;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--worker") == 0)
        return worker_main(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    size_t which = 0, campaign_count = sizeof campaigns / sizeof campaigns[0];
    while (argc > 1 && which < campaign_count && strcmp(argv[1], campaigns[which].name) != 0)
        which++;
    if (argc < 2 || which == campaign_count)
        return usage(stderr, 2);

    static Torture torture;
    static char self[TORTURE_PATH], shim[TORTURE_PATH + 16], memory[TORTURE_PATH + 16];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (size < 0)
        return 2;
    /* disk.so and memory.so lie beside the program. */
    int folder = (int)(strrchr(self, '/') - self);
    snprintf(shim, sizeof shim, "%.*s/disk.so", folder, self);
    snprintf(memory, sizeof memory, "%.*s/memory.so", folder, self);
    torture = (Torture){.campaign = campaigns[which].name,
                        .self = self,
                        .shim = shim,
                        .memory_shim = SANITIZED ? NULL : memory,
                        .seed = (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000,
                        .iterations = campaigns[which].iterations,
                        .clients = 8};
    const char *directory = getenv("TMPDIR");
    if (directory == NULL)
        directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    for (int i = 2; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(flag, "--keep") == 0) {
            torture.keep = true;
            continue;
        }
        if (strcmp(flag, "--verbose") == 0) {
            torture.verbose = true;
            continue;
        }
        if (value == NULL)
            return usage(stderr, 2);
        i++;
        if (strcmp(flag, "--seed") == 0)
            torture.seed = strtoull(value, NULL, 10);
        else if (strcmp(flag, "--iterations") == 0)
            torture.iterations = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(flag, "--minutes") == 0)
            torture.minutes = value,
            torture.deadline_ms = torture_now_ms() + (uint64_t)(strtod(value, NULL) * 60000);
        else if (strcmp(flag, "--clients") == 0)
            torture.clients = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(flag, "--backends") == 0)
            torture.backends = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(flag, "--bin") == 0)
            torture.bin = value;
        else if (strcmp(flag, "--dir") == 0)
            directory = value;
        else
            return usage(stderr, 2);
    }
    if (torture.clients == 0 || torture.clients > ORACLE_CLIENTS_MAX)
        return usage(stderr, 2);
    signal(SIGPIPE, SIG_IGN);
    torture.random = torture.seed;
    snprintf(torture.work, sizeof torture.work, "%s/aidb-torture.XXXXXX", directory);
    if (mkdtemp(torture.work) == NULL) {
        fprintf(stderr, "aidbtorture: could not make \"%s\": %s\n", torture.work, strerror(errno));
        return 2;
    }
    printf("%s: seed %llu\n", torture.campaign, (unsigned long long)torture.seed);
    fflush(stdout);
    char path[TORTURE_PATH];
    torture_path(&torture, "notes", path);
    torture.oracle = oracle_create(path, torture.seed, torture.clients);
    if (torture.oracle == NULL) {
        fprintf(stderr, "aidbtorture: could not map \"%s\": %s\n", path, strerror(errno));
        return 2;
    }
    uint32_t iterations = torture.iterations;
    bool held = campaigns[which].run(&torture);
    if (!held && torture.lost == 0)
        (void)torture_failed(&torture, "a step did not work: see %s", torture.work);
    oracle_destroy(torture.oracle);
    print_figures(&torture, held);
    torture.iterations = iterations; /* fault-every counts its own */
    if (!held)
        print_again(&torture);
    if (torture.keep)
        printf("kept: %s\n", torture.work);
    else
        remove_tree(torture.work);
    return held ? 0 : 1;
}
