/*
 * status.h - how functions fail.
 *
 * A function that can fail returns a Status. The story behind it (message, hint, errno) goes into
 * one fixed-size record per thread, filled by status_set, which also returns the code. Failing takes no
 * memory. AIDB_NOT_FOUND, AIDB_EXPECTATION and AIDB_BUSY are answers: returning
 * them without a message is fine.
 */
#ifndef AIDB_COMMON_STATUS_H
#define AIDB_COMMON_STATUS_H

#include <aidb.h>
#include <stdbool.h>

typedef aidb_status Status;

#define MUST_CHECK __attribute__((warn_unused_result))

/* Fills the thread's error record and returns `code`. The message is lower case without a full
 * stop and names the object and the cause. Clears the hint. */
Status status_set(Status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a failed system call: ": strerror(err)" is appended, ENOSPC and EDQUOT become
 * AIDB_NO_SPACE, ENOMEM AIDB_NO_MEMORY, everything else AIDB_IO. */
Status status_set_errno(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds a sentence that says what to do next to the record. */
void status_hint(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The record of this thread: the message, and the message followed by "\nhint: ..." if any. Never
 * NULL, valid until the next status_set of this thread. */
const char *status_message(void);
const char *status_text(void);
void status_clear(void);

/* Name of a code ("io error"), for logs and for errors that have no message. */
const char *status_name(Status code);

/* Returns from the calling function when `expression` fails. */
#define RETURN_IF_FAILED(expression)   \
    do {                               \
        Status failed_ = (expression); \
        if (failed_ != AIDB_OK)        \
            return failed_;            \
    } while (0)

/* Goes to `out:` with the local variable `status` set when `expression` fails. */
#define OUT_IF_FAILED(expression) \
    do {                          \
        status = (expression);    \
        if (status != AIDB_OK)    \
            goto out;             \
    } while (0)

#endif
