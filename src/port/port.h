/*
 * port.h - operating system calls that differ or need care: clocks, futex, randomness, process
 * titles. The only place with platform conditionals. Linux is the one platform today.
 */
#ifndef AIDB_PORT_PORT_H
#define AIDB_PORT_PORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Microseconds since 1970 (CLOCK_REALTIME) and nanoseconds of a clock that never goes back. */
uint64_t port_realtime_us(void);
uint64_t port_monotonic_ns(void);

/* Fills `data` with random bytes from the operating system. False (errno) only when it has none. */
bool port_random(void *data, size_t size);

/* Sleeps while *word == expected, at most timeout_ms (-1: no limit); works across processes that
 * share the memory. May return early for no reason. */
void port_futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_ms);
void port_futex_wake(_Atomic uint32_t *word, int count);

/* A word, 0 at first, that is zeroed in a forked child (MADV_WIPEONFORK). NULL when memory is short. Any
 * thread may ask for one and give it back; a child gives back its parent's words only for itself. */
_Atomic uint32_t *port_wipe_on_fork_create(void);
void port_wipe_on_fork_destroy(_Atomic uint32_t *word);

/* Maps the pages of `memory` (page-aligned) for writing without changing them, so that no page fault
 * happens later; does nothing where the system cannot. */
void port_populate_write(void *memory, size_t size);

/* Sets what ps shows for this process. port_title_init is called first in main, before argv is
 * used; the area of argv and environ is overwritten from then on. */
void port_title_init(int argc, char **argv);
void port_title_set(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void port_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#define PORT_CACHE_LINE 128 /* two 64-byte lines: the adjacent-line prefetcher pairs them */

#endif
