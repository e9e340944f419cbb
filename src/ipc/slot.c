/*
 * slot.c - process slots, latches and epochs.
 *
 * A latch is one word: AWAKE, SLEEPING or NOTIFIED. The owner moves AWAKE to SLEEPING before it
 * sleeps, so that wakers pay for a system call only when somebody sleeps; a waker moves anything to
 * NOTIFIED, so that a wake that comes between the owner's check and its sleep is not lost.
 */
#include "config.h"

#include "ipc/ipc.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LATCH_AWAKE = 0, LATCH_SLEEPING = 1, LATCH_NOTIFIED = 2 };

size_t slot_table_size(uint32_t count)
{
    return (size_t)count * sizeof(Slot);
}

void slot_table_init(SlotTable *table, void *memory, uint32_t count, const int *latch_fds)
{
    memset(memory, 0, slot_table_size(count));
    table->count = count;
    table->slots = memory;
    for (uint32_t i = 0; i < count; i++) {
        table->slots[i].index = i;
        table->slots[i].latch_fd = latch_fds != NULL ? latch_fds[i] : -1;
    }
}

static Slot *claim(Slot *slot, SlotKind kind)
{
    uint32_t expected = SLOT_FREE;
    if (atomic_load_explicit(&slot->kind, memory_order_relaxed) != SLOT_FREE ||
        !atomic_compare_exchange_strong(&slot->kind, &expected, kind))
        return NULL;
    atomic_store(&slot->pid, (int32_t)getpid());
    slot->epoch_depth = 0;
    atomic_store(&slot->host, NULL);
    atomic_store(&slot->interrupt, 0);
    atomic_store(&slot->sleeping, LATCH_AWAKE);
    return slot;
}

Slot *slot_claim(SlotTable *table, uint32_t index, SlotKind kind)
{
    return index < table->count ? claim(&table->slots[index], kind) : NULL;
}

Slot *slot_claim_any(SlotTable *table, uint32_t from, SlotKind kind)
{
    for (uint32_t i = from; i < table->count; i++) {
        Slot *slot = claim(&table->slots[i], kind);
        if (slot != NULL)
            return slot;
    }
    return NULL;
}

void slot_release(Slot *slot)
{
    for (int i = 0; i < SLOT_SNAPSHOTS; i++)
        atomic_store_explicit(&slot->snapshots[i], SNAPSHOT_NONE, memory_order_release);
    atomic_store(&slot->epoch, 0);
    atomic_store(&slot->section, SECTION_NONE);
    slot->activity[0] = '\0';
    slot->peer[0] = '\0';
    slot->application[0] = '\0';
    atomic_store(&slot->pid, 0);
    atomic_store(&slot->kind, SLOT_FREE);
}

void slot_set_activity(Slot *slot, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(slot->activity, sizeof slot->activity, format, arguments);
    va_end(arguments);
}

uint64_t slot_stat_sum(const SlotTable *table, StatCounter counter)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < table->count; i++)
        sum += atomic_load_explicit(&table->slots[i].stats[counter], memory_order_relaxed);
    return sum;
}

SlotSection slot_enter(Slot *slot, SlotSection section)
{
    SlotSection before = (SlotSection)atomic_load_explicit(&slot->section, memory_order_relaxed);
    atomic_store_explicit(&slot->section_since_ns, port_monotonic_ns(), memory_order_relaxed);
    atomic_store_explicit(&slot->section, section, memory_order_release);
    return before;
}

void slot_leave(Slot *slot, SlotSection before)
{
    atomic_store_explicit(&slot->section, before, memory_order_release);
}

void latch_wake(Slot *slot)
{
    Slot *host = atomic_load_explicit(&slot->host, memory_order_acquire);
    if (host != NULL)
        slot = host;
    if (atomic_load(&slot->sleeping) == LATCH_NOTIFIED)
        return;
    if (atomic_exchange(&slot->sleeping, LATCH_NOTIFIED) != LATCH_SLEEPING)
        return;
    if (slot->latch_fd < 0) {
        port_futex_wake(&slot->sleeping, 1);
        return;
    }
    int err = errno;
    uint64_t one = 1;
    ssize_t written = write(slot->latch_fd, &one, sizeof one);
    (void)written; /* a full counter is readable as well */
    errno = err;
}

bool latch_is_woken(const Slot *slot)
{
    return atomic_load(&slot->sleeping) == LATCH_NOTIFIED;
}

bool latch_wait(Slot *slot, int other_fd, int timeout_ms)
{
    return latch_wait_for(slot, other_fd, POLLIN, timeout_ms);
}

bool latch_begin(Slot *slot)
{
    uint32_t state = LATCH_AWAKE;
    if (atomic_compare_exchange_strong(&slot->sleeping, &state, LATCH_SLEEPING))
        return true;
    atomic_store(&slot->sleeping, LATCH_AWAKE);
    return false;
}

void latch_end(Slot *slot, bool readable)
{
    if (readable) {
        uint64_t count;
        ssize_t got = read(slot->latch_fd, &count, sizeof count);
        (void)got;
    }
    atomic_store(&slot->sleeping, LATCH_AWAKE);
}

bool latch_wait_for(Slot *slot, int other_fd, short events, int timeout_ms)
{
    if (!latch_begin(slot))
        return false;
    bool ready_fd = false, latch_readable = false;
    if (slot->latch_fd < 0 && other_fd < 0) {
        port_futex_wait(&slot->sleeping, LATCH_SLEEPING, timeout_ms);
    } else {
        struct pollfd fds[2] = {
            {.fd = slot->latch_fd, .events = POLLIN},
            {.fd = other_fd, .events = events},
        };
        int ready = poll(fds, 2, timeout_ms);
        latch_readable = ready > 0 && fds[0].revents != 0;
        ready_fd = ready > 0 && fds[1].revents != 0;
    }
    latch_end(slot, latch_readable);
    return ready_fd;
}

void epoch_init(EpochDomain *domain, SlotTable *slots)
{
    atomic_store(&domain->current, 1);
    atomic_store(&domain->safe, 1);
    domain->slots = slots;
}

uint64_t epoch_retire(EpochDomain *domain)
{
    epoch_fence(domain); /* the unlinking comes before the stamp */
    return atomic_fetch_add(&domain->current, 1);
}

bool epoch_is_past(EpochDomain *domain, uint64_t stamp)
{
    if (atomic_load_explicit(&domain->safe, memory_order_acquire) > stamp)
        return true;
    epoch_fence(domain); /* pairs with epoch_enter */
    uint64_t oldest = atomic_load(&domain->current);
    for (uint32_t i = 0; i < domain->slots->count; i++) {
        uint64_t epoch = atomic_load_explicit(&domain->slots->slots[i].epoch, memory_order_acquire);
        if (epoch != 0 && epoch < oldest)
            oldest = epoch;
    }
    uint64_t safe = atomic_load_explicit(&domain->safe, memory_order_relaxed);
    while (safe < oldest && !atomic_compare_exchange_weak(&domain->safe, &safe, oldest))
        ;
    return oldest > stamp;
}
