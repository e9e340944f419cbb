#include "config.h"
#include "bin/aidbsql/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static volatile sig_atomic_t pending;
static _Atomic(aidb *) watched;

static void on_interrupt(int signal_number)
{
    int saved = errno;
    (void)signal_number;
    pending = 1;
    aidb *db = atomic_load(&watched);
    if (db != NULL)
        aidb_cancel(db);
    errno = saved;
}

void interrupt_install(void)
{
    /* Without SA_RESTART: a read that waits for the next line returns. */
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool interrupt_pending(void)
{
    return pending != 0;
}

void interrupt_clear(void)
{
    pending = 0;
}

void interrupt_watch(aidb *db)
{
    atomic_store(&watched, db);
}
