/* port.c - clocks, futex, randomness, process titles on Linux. */
#include "config.h"

#include "port/port.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

uint64_t port_realtime_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec < 0) /* a clock that was never set may stand before 1970 */
        return 0;
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint64_t port_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool port_random(void *data, size_t size)
{
    uint8_t *at = data;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return false;
        }
        at += got;
        size -= (size_t)got;
    }
    return true;
}

void port_futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_ms)
{
    struct timespec timeout = {.tv_sec = timeout_ms / 1000,
                               .tv_nsec = timeout_ms % 1000 * 1000000L};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ms < 0 ? NULL : &timeout, NULL, 0);
}

void port_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

void port_populate_write(void *memory, size_t size)
{
#ifdef MADV_POPULATE_WRITE /* Linux 5.14; without it the first writer takes the faults */
    (void)madvise(memory, size, MADV_POPULATE_WRITE);
#else
    (void)memory;
    (void)size;
#endif
}

/* Words that are wiped on fork stand in one page, made at the first use and kept, as many as bits tell which
 * are taken; what does not fit gets a page of its own. A page for each would be three system calls and a
 * first touch, a seventh of what a client spends on a connection that it uses once. */
#define WORDS_SHARED 64u
#define WORD_STRIDE  64u /* bytes: words of two threads are never in one cache line */

static uint8_t *_Atomic words_page;
static _Atomic uint64_t words_taken;

static void *make_wiped_page(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (madvise(memory, page, MADV_WIPEONFORK) != 0) {
        munmap(memory, page);
        return NULL;
    }
    return memory;
}

static uint8_t *shared_words(void)
{
    uint8_t *page = atomic_load(&words_page);
    if (page != NULL)
        return page;
    uint8_t *made = make_wiped_page();
    if (made == NULL || atomic_compare_exchange_strong(&words_page, &page, made))
        return made;
    munmap(made, (size_t)sysconf(_SC_PAGESIZE)); /* another thread was faster */
    return page;
}

_Atomic uint32_t *port_wipe_on_fork_create(void)
{
    uint8_t *page = shared_words();
    uint64_t taken = atomic_load(&words_taken);
    while (page != NULL && taken != UINT64_MAX) {
        unsigned free_one = (unsigned)__builtin_ctzll(~taken);
        if (atomic_compare_exchange_weak(&words_taken, &taken, taken | UINT64_C(1) << free_one))
            return (void *)(page + (size_t)free_one * WORD_STRIDE);
    }
    return make_wiped_page();
}

void port_wipe_on_fork_destroy(_Atomic uint32_t *word)
{
    if (word == NULL)
        return;
    uintptr_t offset = (uintptr_t)word - (uintptr_t)atomic_load(&words_page);
    if (offset >= WORDS_SHARED * WORD_STRIDE) {
        munmap((void *)word, (size_t)sysconf(_SC_PAGESIZE));
        return;
    }
    atomic_store(word, 0);
    atomic_fetch_and(&words_taken, ~(UINT64_C(1) << offset / WORD_STRIDE));
}

/* ps reads the memory that argv and environ stood in at start; a title is written over it. */
static char *title_area;
static size_t title_size;

void port_title_init(int argc, char **argv)
{
    if (argc == 0 || title_area != NULL)
        return;
    char *end = argv[0] + strlen(argv[0]) + 1;
    for (int i = 1; i < argc; i++)
        if (argv[i] == end)
            end = argv[i] + strlen(argv[i]) + 1;
    /* The environment stands right behind; it is moved to the heap, so that its room can be used. It
     * lives as long as the program, like the one it replaces. */
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char **moved = calloc(count + 1, sizeof *moved);
    if (moved != NULL) {
        bool complete = true;
        for (size_t i = 0; i < count; i++) {
            moved[i] = strdup(environ[i]);
            complete = complete && moved[i] != NULL;
        }
        if (complete) {
            for (size_t i = 0; i < count; i++)
                if (environ[i] == end)
                    end = environ[i] + strlen(environ[i]) + 1;
            environ = moved;
        }
    }
    title_area = argv[0];
    title_size = (size_t)(end - argv[0]);
}

void port_title_set(const char *format, ...)
{
    if (title_area == NULL || title_size < 2)
        return;
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t size = strlen(text);
    if (size > title_size - 1)
        size = title_size - 1;
    memset(title_area, 0, title_size);
    memcpy(title_area, text, size);
}
