/*
 * history.h - whether what clients saw of one key can have happened in one order.
 *
 * A history is what was called and answered when. It is linearizable when every operation can be given
 * one moment between its call and its answer at which it takes effect, such that each answer is what
 * the key's state at that moment demands. Since keys are independent registers, a store is linearizable
 * when each key's history is (Herlihy and Wing, "Linearizability: a correctness condition for
 * concurrent objects", 1990).
 *
 * The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993): take, of the
 * operations that may come first, one that fits; go back when nothing fits. It remembers, as Lowe
 * proposes ("Testing for linearizability", 2016), which sets of operations with which state were tried.
 */
#ifndef AIDB_TORTURE_HISTORY_H
#define AIDB_TORTURE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HISTORY_ABSENT 0u         /* as a value: the key does not exist */
#define HISTORY_ANY    UINT64_MAX /* as `present`: not known */

typedef enum HistoryKind {
    HISTORY_READ,
    HISTORY_WRITE,    /* value HISTORY_ABSENT: a delete */
    HISTORY_IF_VALUE, /* writes if the key has the value `expected` */
    HISTORY_IF_ABSENT,
    HISTORY_IF_PRESENT
} HistoryKind;

typedef enum HistoryOutcome {
    HISTORY_UNKNOWN = 0, /* no answer: at any time from the call on, or never */
    HISTORY_DONE,
    HISTORY_REFUSED /* the condition did not hold; `present` was there */
} HistoryOutcome;

typedef struct HistoryOp {
    uint64_t call_ns;
    uint64_t answer_ns; /* not looked at when the outcome is unknown */
    uint64_t value;     /* that was written or read; no two writes have the same but ABSENT */
    uint64_t expected;
    uint64_t present;
    uint8_t kind;
    uint8_t outcome;
    uint16_t client;
} HistoryOp;

typedef enum HistoryVerdict {
    HISTORY_LINEARIZABLE,
    HISTORY_VIOLATED,
    HISTORY_UNDECIDED /* out of steps or memory */
} HistoryVerdict;

typedef struct HistoryResult {
    HistoryVerdict verdict;
    uint64_t steps;
    size_t longest; /* operations in the longest order found */
    size_t stuck;   /* violated: index of the first answer that no order explains */
} HistoryResult;

/* The key does not exist at the beginning. */
HistoryResult history_check(const HistoryOp *ops, size_t count);

#endif
