/*
 * crowd.c - not interrupting those whose requests come next.
 *
 * A process that is woken by a request usually takes the processor at once, often from the very client
 * that sent it and had the next requests ready for others. Where several clients are busy that makes two
 * switches of context a request. Under SCHED_BATCH a process that wakes waits until the running one sleeps or
 * its time is up: clients hand out all that they have, and servers find more to do at a time.
 *
 * With few busy clients there is nothing to gain, and on a processor that another program keeps busy a
 * client would wait for the end of that one's time, which takes milliseconds. So this is done only in a crowd:
 *
 * - Of processes with one client each, more than there are processors are busy: their clients came back within
 *   BUSY_NS many times in a row. Who sleeps for long is not counted; one that was killed is, until the
 *   postmaster makes the page anew.
 * - A host found input of several clients at a time, on average, when it had slept.
 *
 * Who was started under another policy keeps it.
 */
#include "config.h"
#include "backend/backend_internal.h"

#include <sched.h>

#define BUSY_NS        10000000
#define BUSY_WAITS     16u
#define AVERAGE_OF     8u
#define FOUND_UNIT     256u
#define CROWD_FROM     384u /* one client and a half */
#define CROWD_UNTIL    320u
#define CHANGE_EACH_NS 20000000u

void crowd_init(BackendProcess *process)
{
    cpu_set_t set;
    process->crowd = (Crowd){
        .processors = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1,
        .fixed = sched_getscheduler(0) != SCHED_OTHER};
}

static void set_busy(BackendProcess *process, bool busy)
{
    if (process->crowd.busy == busy)
        return;
    process->crowd.busy = busy;
    atomic_fetch_add_explicit(&process->shared->busy, busy ? 1u : UINT32_MAX, memory_order_relaxed);
}

static void set_batch(Crowd *crowd, bool batch)
{
    if (crowd->fixed || crowd->batch == batch)
        return;
    crowd->changed_ns = coarse_now();
    crowd->batch = batch;
    const struct sched_param none = {0};
    crowd->fixed = sched_setscheduler(0, batch ? SCHED_BATCH : SCHED_OTHER, &none) != 0;
}

/* The process may serve another client next, and asks then what it was started under. */
void crowd_rest(BackendProcess *process)
{
    process->crowd.short_waits = 0;
    set_busy(process, false);
    set_batch(&process->crowd, false);
}

static bool is_crowd_of_clients(Crowd *crowd, uint32_t clients)
{
    crowd->found += clients * (FOUND_UNIT / AVERAGE_OF) - crowd->found / AVERAGE_OF;
    return crowd->found >= (crowd->batch ? CROWD_UNTIL : CROWD_FROM);
}

static bool is_crowd_of_processes(BackendProcess *process)
{
    Crowd *crowd = &process->crowd;
    bool in_time = (int64_t)(coarse_now() - process->spin.since_ns) < BUSY_NS;
    if (!in_time)
        crowd->short_waits = 0;
    else if (crowd->short_waits < BUSY_WAITS)
        crowd->short_waits++;
    set_busy(process, crowd->short_waits == BUSY_WAITS);
    return atomic_load_explicit(&process->shared->busy, memory_order_relaxed) > crowd->processors;
}

void crowd_found(BackendProcess *process, uint32_t clients)
{
    bool crowded = process->hosting ? is_crowd_of_clients(&process->crowd, clients)
                                    : is_crowd_of_processes(process);
    if (coarse_now() - process->crowd.changed_ns >= CHANGE_EACH_NS)
        set_batch(&process->crowd, crowded);
}
