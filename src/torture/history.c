/* history.c - the search for an order. See history.h. */
#include "config.h"

#include "torture/history.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 200000000u

/* A call or an answer, in order of time. Calls point to their answers. */
typedef struct Event {
    struct Event *before, *behind;
    struct Event *answer; /* of a call; NULL: this is an answer */
    size_t op;
    uint64_t at;
} Event;

typedef struct Tried {
    uint64_t a, b; /* of set and state; 0, 0: free */
} Tried;

typedef struct Search {
    const HistoryOp *ops;
    size_t count;
    Event *events;
    Event head;
    Event **stack;    /* calls taken, in order */
    uint64_t *states; /* before each of them */
    size_t depth;
    size_t answers_left; /* of operations whose outcome is known */
    uint64_t state;
    uint64_t set_a, set_b; /* the operations taken, as sums of random numbers */
    Tried *tried;
    size_t tried_count, tried_capacity;
} Search;

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Whether the operation may take effect in this state, and the state behind it. */
static bool fits(const HistoryOp *op, uint64_t state, uint64_t *behind)
{
    bool holds = true;
    *behind = state;
    switch (op->kind) {
    case HISTORY_READ:
        return state == op->value;
    case HISTORY_IF_VALUE:
        holds = state == op->expected;
        break;
    case HISTORY_IF_ABSENT:
        holds = state == HISTORY_ABSENT;
        break;
    case HISTORY_IF_PRESENT:
        holds = state != HISTORY_ABSENT;
        break;
    default:
        break;
    }
    if (op->outcome == HISTORY_REFUSED)
        return !holds && (op->present == HISTORY_ANY || op->present == state);
    if (!holds)
        return false; /* of unknown outcome: then it is never taken */
    *behind = op->value;
    return true;
}

/* By time; what is called at the moment of an answer counts as beside it. */
static int by_time(const void *a, const void *b)
{
    const Event *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (x->answer == NULL) - (y->answer == NULL);
}

static void unlink_event(Event *event)
{
    event->before->behind = event->behind;
    if (event->behind != NULL)
        event->behind->before = event->before;
}

static void relink_event(Event *event)
{
    event->before->behind = event;
    if (event->behind != NULL)
        event->behind->before = event;
}

static bool known(const Search *search, const Event *event)
{
    return search->ops[event->op].outcome != HISTORY_UNKNOWN;
}

static void take(Search *search, Event *call, uint64_t behind)
{
    search->stack[search->depth] = call;
    search->states[search->depth++] = search->state;
    search->state = behind;
    search->set_a += mix(call->op * 2);
    search->set_b += mix(call->op * 2 + 1);
    unlink_event(call);
    if (known(search, call)) {
        unlink_event(call->answer);
        search->answers_left--;
    }
}

static Event *take_back(Search *search)
{
    Event *call = search->stack[--search->depth];
    search->state = search->states[search->depth];
    search->set_a -= mix(call->op * 2);
    search->set_b -= mix(call->op * 2 + 1);
    if (known(search, call)) {
        relink_event(call->answer);
        search->answers_left++;
    }
    relink_event(call);
    return call;
}

static bool grow(Search *search)
{
    size_t capacity = search->tried_capacity == 0 ? 1024 : search->tried_capacity * 2;
    Tried *tried = calloc(capacity, sizeof *tried);
    if (tried == NULL)
        return false;
    for (size_t i = 0; i < search->tried_capacity; i++) {
        const Tried *old = &search->tried[i];
        if (old->a == 0 && old->b == 0)
            continue;
        size_t at = old->a & (capacity - 1);
        while (tried[at].a != 0 || tried[at].b != 0)
            at = (at + 1) & (capacity - 1);
        tried[at] = *old;
    }
    free(search->tried);
    search->tried = tried;
    search->tried_capacity = capacity;
    return true;
}

/* Notes the set of operations taken, with one more, and its state. False when it was there; *full when
 * memory is short. */
static bool note(Search *search, size_t op, uint64_t state, bool *full)
{
    if (search->tried_count * 2 >= search->tried_capacity && !grow(search)) {
        *full = true;
        return false;
    }
    Tried wanted = {.a = mix(search->set_a + mix(op * 2) + mix(state)) | 1,
                    .b = search->set_b + mix(op * 2 + 1) + mix(~state)};
    size_t at = wanted.a & (search->tried_capacity - 1);
    while (search->tried[at].a != 0 || search->tried[at].b != 0) {
        if (search->tried[at].a == wanted.a && search->tried[at].b == wanted.b)
            return false;
        at = (at + 1) & (search->tried_capacity - 1);
    }
    search->tried[at] = wanted;
    search->tried_count++;
    return true;
}

/* The events as a list. An operation of unknown outcome has no answer in it: nothing waits for it. */
static bool search_init(Search *search, const HistoryOp *ops, size_t count)
{
    *search = (Search){.ops = ops, .count = count};
    size_t *answers = calloc(count + 1, sizeof *answers);
    search->events = calloc(2 * count + 1, sizeof *search->events);
    search->stack = calloc(count + 1, sizeof(Event *));
    search->states = calloc(count + 1, sizeof *search->states);
    if (answers == NULL || search->events == NULL || search->stack == NULL ||
        search->states == NULL) {
        free(answers);
        return false;
    }
    size_t used = 0;
    Event marker;
    for (size_t i = 0; i < count; i++) {
        search->events[used++] = (Event){.answer = &marker, .op = i, .at = ops[i].call_ns};
        if (ops[i].outcome != HISTORY_UNKNOWN) {
            search->events[used++] = (Event){.op = i, .at = ops[i].answer_ns};
            search->answers_left++;
        }
    }
    qsort(search->events, used, sizeof *search->events, by_time);
    Event *last = &search->head;
    for (size_t i = 0; i < used; i++) {
        Event *event = &search->events[i];
        if (event->answer == NULL)
            answers[event->op] = i;
        event->before = last;
        last->behind = event;
        last = event;
    }
    for (size_t i = 0; i < used; i++) {
        Event *event = &search->events[i];
        if (event->answer != NULL)
            event->answer = known(search, event) ? &search->events[answers[event->op]] : event;
    }
    free(answers);
    return true;
}

HistoryResult history_check(const HistoryOp *ops, size_t count)
{
    Search search;
    HistoryResult result = {.verdict = HISTORY_UNDECIDED};
    bool full = !search_init(&search, ops, count);
    Event *event = search.head.behind;
    while (!full && result.steps < STEPS_MAX) {
        if (search.answers_left == 0) {
            result.verdict = HISTORY_LINEARIZABLE;
            break;
        }
        result.steps++;
        if (event != NULL && event->answer != NULL) {
            uint64_t behind;
            if (fits(&ops[event->op], search.state, &behind) &&
                note(&search, event->op, behind, &full)) {
                take(&search, event, behind);
                event = search.head.behind;
            } else {
                event = event->behind;
            }
            continue;
        }
        /* An answer to what has not been taken: nothing else may come before it. */
        if (event != NULL && search.depth >= result.longest) {
            result.longest = search.depth;
            result.stuck = event->op;
        }
        if (search.depth == 0) {
            result.verdict = HISTORY_VIOLATED;
            break;
        }
        event = take_back(&search)->behind;
    }
    free(search.events);
    free(search.stack);
    free(search.states);
    free(search.tried);
    return result;
}
