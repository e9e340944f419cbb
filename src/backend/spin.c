/*
 * spin.c - waiting for a client without going to sleep.
 *
 * A processor without work is halted, and waking it takes longer than most requests: with one client that
 * sends a request, waits for the reply and sends the next, it is nearly all of the time. A process whose
 * client does that looks for the next request for a moment before it sleeps. Whoever spins takes a
 * processor from everybody else, so it is done only where hardly anybody else can want it:
 *
 * - The client is brisk: it alone has kept this process busy lately, each time with a short wait. After a
 *   spin in vain that takes twice as many requests as before, so a client that thinks now and then costs
 *   next to nothing, and an idle one nothing.
 * - At most half of the processors' number of processes have a brisk client, spinning or not. With more there is
 *   work enough to keep processors awake. Who falls asleep for long is not counted any more. One that was
 *   killed is, until the postmaster makes the page anew, which it does after every crash.
 * - Nobody else was waiting for this processor: it is offered at each look, and coming back late ends the spin.
 *   (The scheduler may pass it to processes of the same group only, so this alone would not do.)
 *
 * A spin is over in SPIN_NS, so that orders to end, time limits and wake-ups need no care here.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include <sched.h>

#define SPIN_NS       60000u
#define SHORT_WAIT_NS 100000u /* SPIN_NS, and the end of a sleep */
#define BRISK_MIN     4u      /* short waits in a row that make a client brisk, at first */
#define BRISK_MAX     64u     /* after many spins in vain */
#define YIELD_LONG_NS 5000u   /* somebody else had the processor */

void spin_init(BackendProcess *process)
{
    cpu_set_t set;
    uint32_t processors =
        sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
    process->spin = (Spin){.brisk_max = processors / 2, .needed = BRISK_MIN};
}

static void set_brisk(BackendProcess *process, bool brisk)
{
    if (process->spin.brisk == brisk)
        return;
    process->spin.brisk = brisk;
    atomic_fetch_add_explicit(&process->shared->brisk, brisk ? 1u : UINT32_MAX,
                              memory_order_relaxed);
}

void spin_rest(BackendProcess *process)
{
    process->spin.short_waits = 0;
    set_brisk(process, false);
}

bool spin_begin(BackendProcess *process)
{
    Spin *spin = &process->spin;
    spin->since_ns = spin->looked_ns = port_monotonic_ns();
    spin->spinning = spin->brisk && atomic_load_explicit(&process->shared->brisk,
                                                         memory_order_relaxed) <= spin->brisk_max;
    return spin->spinning;
}

bool spin_go_on(BackendProcess *process)
{
    Spin *spin = &process->spin;
    sched_yield();
    uint64_t now = port_monotonic_ns();
    bool alone = now - spin->looked_ns < YIELD_LONG_NS;
    bool in_time = now - spin->since_ns < SPIN_NS;
    spin->looked_ns = now;
    if (alone && in_time)
        return true;
    if (alone && spin->needed < BRISK_MAX)
        spin->needed *= 2; /* nobody but the client has made it wait in vain */
    spin->spinning = false;
    spin_rest(process);
    return false;
}

void spin_end(BackendProcess *process, const void *client)
{
    Spin *spin = &process->spin;
    if (client == NULL || client != spin->client ||
        port_monotonic_ns() - spin->since_ns >= SHORT_WAIT_NS) {
        spin->client = client;
        spin_rest(process);
        return;
    }
    if (spin->spinning)
        spin->needed = BRISK_MIN;
    if (spin->short_waits < spin->needed)
        spin->short_waits++;
    else
        set_brisk(process, true);
}
