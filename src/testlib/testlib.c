/* testlib.c - temporary directories and seeds for unit tests. */
#include "config.h"

#include "testlib/testlib.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what, const char *path)
{
    perror(what);
    fprintf(stderr, "%s: %s\n", what, path);
    abort();
}

int test_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

char *test_directory_create(void)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] == '\0')
        base = "/tmp";
    size_t size = strlen(base) + 32;
    char *path = malloc(size);
    if (path == NULL)
        die("malloc", base);
    snprintf(path, size, "%s/aidb-test-XXXXXX", base);
    if (mkdtemp(path) == NULL)
        die("mkdtemp", path);
    return path;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

void test_directory_destroy(char *path)
{
    if (path == NULL)
        return;
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(path);
}

static void copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0)
        die("open", from);
    char bytes[65536];
    ssize_t got;
    while ((got = read(in, bytes, sizeof bytes)) > 0)
        if (write(out, bytes, (size_t)got) != got)
            die("write", to);
    close(in);
    close(out);
}

void test_directory_copy(const char *from, const char *to)
{
    if (mkdir(to, 0700) != 0 && access(to, W_OK) != 0)
        die("mkdir", to);
    DIR *directory = opendir(from);
    if (directory == NULL)
        die("opendir", from);
    struct dirent *item;
    while ((item = readdir(directory)) != NULL) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        char source[4096], target[4096];
        struct stat info;
        snprintf(source, sizeof source, "%s/%s", from, item->d_name);
        snprintf(target, sizeof target, "%s/%s", to, item->d_name);
        if (lstat(source, &info) != 0)
            continue;
        if (S_ISDIR(info.st_mode))
            test_directory_copy(source, target);
        else if (S_ISREG(info.st_mode))
            copy_file(source, target);
    }
    closedir(directory);
}

bool test_damage(const char *what)
{
    const char *asked = getenv("AIDB_DAMAGE");
    return asked != NULL && (strcmp(asked, what) == 0 || strcmp(asked, "full") == 0);
}

uint64_t test_seed(const char *name)
{
    const char *given = getenv("AIDB_TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0)
                                  : (uint64_t)now.tv_sec * 1000003u ^ (uint64_t)now.tv_nsec ^
                                        (uint64_t)getpid() << 32;
    if (seed == 0)
        seed = 1;
    printf("%s: seed %llu\n", name, (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

static uint64_t shared_random = 1;

void test_draw_seed(const char *test)
{
    shared_random = test_seed(test);
}

uint64_t test_draw(void)
{
    return test_random(&shared_random);
}

uint32_t test_draw_below(uint32_t bound)
{
    return (uint32_t)(test_draw() % bound);
}
