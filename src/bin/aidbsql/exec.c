/*
 * exec.c - statements at work.
 *
 * Outside of BEGIN a write is an aidb_batch of its own. Inside it goes into the session's overlay,
 * and its condition into the session's list; COMMIT makes one aidb_batch of both. Reads go to the
 * store, at the session's snapshot if there is one, with the overlay laid over.
 *
 * Marking a batch as failed after an error is the caller's business (script.c), because a statement
 * that cannot even be parsed fails it too.
 */
#include "config.h"
#include "bin/aidbsql/exec.h"

#include <inttypes.h>
#include <stdlib.h>

#include "bin/aidbsql/codec.h"
#include "bin/aidbsql/interrupt.h"
#include "bin/aidbsql/mem.h"

/* One statement under way. */
typedef struct Exec {
    Session *session;
    const Statement *statement;
    Diagnostic *diagnostic;
} Exec;

static Outcome fail_at(Exec *exec, const Token *token, aidb_status status)
{
    session_explain(exec->diagnostic, status, token->offset, token->length);
    return session_outcome(exec->session, status);
}

static Outcome fail(Exec *exec, aidb_status status)
{
    return fail_at(exec, exec->statement->verb, status);
}

static Outcome refuse(Exec *exec, const char *message)
{
    const Token *verb = exec->statement->verb;
    diagnostic_set(exec->diagnostic, verb->offset, verb->length, "%s", message);
    return OUTCOME_ERROR;
}

static Outcome canceled(Exec *exec)
{
    return refuse(exec, "canceled");
}

static Outcome done(Exec *exec)
{
    if (!exec->session->quiet)
        output_message(&exec->session->output, "OK");
    return OUTCOME_OK;
}

/* A key as it could be written in a statement, shortened for a message. */
static const char *display_key(Slice key, Buffer *out)
{
    const size_t size_max = 60;
    buffer_clear(out);
    if (key.size > size_max) {
        codec_word_append(out, slice_make(key.data, size_max));
        mem_append_string(out, "...");
    } else {
        codec_word_append(out, key);
    }
    return mem_string(out);
}

/* --- Writing -------------------------------------------------------------------------------- */

static Outcome unmet(Exec *exec, const Condition *condition, const aidb_commit *commit)
{
    const Token *verb = exec->statement->verb;
    char present[64] = "is absent (version 0)";
    char wanted[64] = "absent";
    Buffer buffer = {0};
    if (commit->present_version != 0)
        snprintf(present, sizeof present, "is at version %" PRIu64, commit->present_version);
    if (condition->expect == AIDB_EXPECT_PRESENT)
        snprintf(wanted, sizeof wanted, "present");
    else if (condition->expect == AIDB_EXPECT_VERSION)
        snprintf(wanted, sizeof wanted, "version %" PRIu64, condition->version);
    const char *key =
        display_key(slice_make((const uint8_t *)condition->key, condition->key_size), &buffer);
    diagnostic_set(exec->diagnostic, verb->offset, verb->length,
                   "expectation failed: %s %s, wanted %s", key, present, wanted);
    buffer_deinit(&buffer);
    return OUTCOME_UNMET;
}

static Outcome write_batch(Exec *exec, aidb_durability durability)
{
    Session *session = exec->session;
    aidb_commit commit = {0};
    if (durability == AIDB_DEFAULT)
        durability = session->durability;
    aidb_status status = aidb_write(session->db, session->writes, durability, &commit);
    if (status == AIDB_EXPECTATION && commit.failed_expectation < session->condition_count)
        return unmet(exec, &session->conditions[commit.failed_expectation], &commit);
    return status == AIDB_OK ? done(exec) : fail(exec, status);
}

/* Adds the statement's operations to a batch of the library. */
static aidb_status add_operations(const Statement *statement, const CursorRange *range,
                                  aidb_batch *writes)
{
    const Token *key = statement->key_count > 0 ? statement->keys[0] : NULL;
    if (statement->has_condition)
        RETURN_IF_FAILED(aidb_batch_expect(writes, key->bytes.data, key->bytes.size,
                                           statement->condition, statement->version));
    if (statement->kind == STATEMENT_PUT)
        return aidb_batch_put(writes, key->bytes.data, key->bytes.size, statement->value.data,
                              statement->value.size);
    if (statement->kind == STATEMENT_DELETE_RANGE)
        return range->empty ? AIDB_OK : aidb_batch_delete_range(writes, &range->range);
    for (size_t i = 0; i < statement->key_count; i++) {
        key = statement->keys[i];
        RETURN_IF_FAILED(aidb_batch_delete(writes, key->bytes.data, key->bytes.size));
    }
    return AIDB_OK;
}

static bool prepare_writes(Session *session)
{
    if (session->writes == NULL)
        session->writes = aidb_batch_create();
    if (session->writes == NULL)
        return false;
    aidb_batch_clear(session->writes);
    return true;
}

/* The same operations on the open batch. */
static Outcome add_to_batch(Exec *exec, const CursorRange *range)
{
    Session *session = exec->session;
    const Statement *statement = exec->statement;
    if (statement->has_condition)
        session_add_condition(session, statement->keys[0]->bytes, statement->condition,
                              statement->version);
    if (statement->has_durability && statement->durability > session->batch_durability)
        session->batch_durability = statement->durability;
    if (statement->kind == STATEMENT_PUT) {
        overlay_put(session->batch, statement->keys[0]->bytes, statement->value);
    } else if (statement->kind == STATEMENT_DELETE_RANGE) {
        if (!range->empty) {
            const aidb_range *bounds = &range->range;
            overlay_delete_range(session->batch, slice_make(bounds->from.data, bounds->from.size),
                                 slice_make(bounds->to.data, bounds->to.size),
                                 bounds->to.data == NULL);
        }
    } else {
        for (size_t i = 0; i < statement->key_count; i++)
            overlay_delete(session->batch, statement->keys[i]->bytes);
    }
    return done(exec);
}

/* At the prompt a DELETE RANGE sent before its bounds were written must not cost all there is. Scripts
 * may leave bounds out, as in every other statement that has them. */
static bool deletes_all_by_mistake(const Exec *exec)
{
    const Bounds *bounds = &exec->statement->bounds;
    return exec->session->interactive && exec->session->depth == 0 &&
           exec->statement->kind == STATEMENT_DELETE_RANGE && !bounds->has_prefix &&
           !bounds->has_from && !bounds->has_to;
}

static Outcome exec_write(Exec *exec)
{
    Session *session = exec->session;
    const Statement *statement = exec->statement;
    CursorRange range;
    Outcome outcome;
    if (deletes_all_by_mistake(exec)) {
        outcome = refuse(exec, "DELETE RANGE without bounds deletes every key");
        diagnostic_hint(exec->diagnostic, "Write DELETE RANGE FROM '' when that is meant.");
        return outcome;
    }
    cursor_range_init(&range, &statement->bounds);
    if (session->batch != NULL) {
        outcome = add_to_batch(exec, &range);
    } else if (statement->kind == STATEMENT_DELETE_RANGE && range.empty) {
        outcome = done(exec);
    } else if (!prepare_writes(session)) {
        outcome = refuse(exec, "out of memory");
    } else {
        aidb_status status = add_operations(statement, &range, session->writes);
        if (statement->has_condition)
            session_add_condition(session, statement->keys[0]->bytes, statement->condition,
                                  statement->version);
        if (status != AIDB_OK)
            outcome = fail(exec, status);
        else
            outcome =
                write_batch(exec, statement->has_durability ? statement->durability : AIDB_DEFAULT);
        session_end_batch(session); /* forgets the condition */
    }
    cursor_range_deinit(&range);
    return outcome;
}

/* --- Batches and snapshots -------------------------------------------------------------------- */

static Outcome exec_begin(Exec *exec)
{
    if (exec->session->batch != NULL)
        return refuse(exec, "a batch is open already");
    session_begin_batch(exec->session);
    return done(exec);
}

static aidb_status fill_writes(Session *session)
{
    for (size_t i = 0; i < session->condition_count; i++) {
        const Condition *condition = &session->conditions[i];
        RETURN_IF_FAILED(aidb_batch_expect(session->writes, condition->key, condition->key_size,
                                           condition->expect, condition->version));
    }
    return overlay_write(session->batch, session->writes);
}

static Outcome exec_commit(Exec *exec)
{
    Session *session = exec->session;
    const Statement *statement = exec->statement;
    Outcome outcome;
    if (session->batch == NULL)
        return refuse(exec, "no batch is open");
    if (session->batch_failed) {
        outcome = refuse(exec, "nothing was written: a statement of this batch failed");
    } else if (overlay_is_empty(session->batch) && session->condition_count == 0) {
        outcome = done(exec);
    } else if (!prepare_writes(session)) {
        outcome = refuse(exec, "out of memory");
    } else {
        aidb_status status = fill_writes(session);
        outcome = status != AIDB_OK
                      ? fail(exec, status)
                      : write_batch(exec, statement->has_durability ? statement->durability
                                                                    : session->batch_durability);
        aidb_batch_clear(session->writes);
    }
    session_end_batch(session);
    return outcome;
}

static Outcome exec_rollback(Exec *exec)
{
    if (exec->session->batch == NULL)
        return refuse(exec, "no batch is open");
    session_end_batch(exec->session);
    return done(exec);
}

static Outcome exec_snapshot(Exec *exec)
{
    Session *session = exec->session;
    if (session->snapshot != NULL)
        return refuse(exec, "a snapshot is held already: RELEASE it first");
    aidb_status status = aidb_snapshot_create(session->db, &session->snapshot);
    return status == AIDB_OK ? done(exec) : fail(exec, status);
}

static Outcome exec_release(Exec *exec)
{
    Session *session = exec->session;
    if (session->snapshot == NULL)
        return refuse(exec, "no snapshot is held");
    aidb_snapshot_destroy(session->snapshot);
    session->snapshot = NULL;
    return done(exec);
}

/* --- Reading keys ----------------------------------------------------------------------------- */

/* What was read for the keys of a statement. A key that the open batch has written takes its value
 * from there; `found` says which keys exist. */
typedef struct Lookup {
    size_t count;
    bool *found;
    Slice *values;
    uint64_t *versions;
    size_t stored_count; /* keys that the store had to be asked for */
    aidb_value *stored;  /* what it answered */
} Lookup;

static void lookup_deinit(Lookup *lookup)
{
    for (size_t i = 0; i < lookup->stored_count; i++)
        aidb_free(lookup->stored[i].data);
    free(lookup->stored);
    free(lookup->found);
    free(lookup->values);
    free(lookup->versions);
}

/* Answers a key from the open batch. False when the batch says nothing about it. */
static bool lookup_in_batch(const Overlay *batch, Slice key, Lookup *lookup, size_t index)
{
    const OverlayPoint *point = overlay_find(batch, key);
    if (point == NULL)
        return overlay_covering(batch, key) != NULL;
    lookup->found[index] = !point->deleted;
    lookup->values[index] = point->value;
    return true;
}

static aidb_status look_up(Exec *exec, Lookup *lookup)
{
    Session *session = exec->session;
    const Statement *statement = exec->statement;
    size_t count = statement->key_count;
    *lookup = (Lookup){.count = count,
                       .found = mem_alloc_zero(count * sizeof(bool)),
                       .values = mem_alloc_zero(count * sizeof(Slice)),
                       .versions = mem_alloc_zero(count * sizeof(uint64_t)),
                       .stored = mem_alloc_zero(count * sizeof(aidb_value))};
    aidb_key *keys = mem_alloc(count * sizeof *keys);
    size_t *places = mem_alloc(count * sizeof *places); /* of each key asked for */
    for (size_t i = 0; i < count; i++) {
        Slice key = statement->keys[i]->bytes;
        if (session->batch != NULL && lookup_in_batch(session->batch, key, lookup, i))
            continue;
        keys[lookup->stored_count] = (aidb_key){.data = key.data, .size = key.size};
        places[lookup->stored_count++] = i;
    }
    aidb_status status = AIDB_OK;
    if (lookup->stored_count == 1) {
        status = aidb_get(session->db, session->snapshot, keys[0].data, keys[0].size,
                          &lookup->stored[0]);
        if (status == AIDB_NOT_FOUND) {
            lookup->stored[0].lsn = 0;
            status = AIDB_OK;
        }
    } else if (lookup->stored_count > 1) {
        status = aidb_multi_get(session->db, session->snapshot, lookup->stored_count, keys,
                                lookup->stored);
    }
    for (size_t i = 0; status == AIDB_OK && i < lookup->stored_count; i++) {
        const aidb_value *value = &lookup->stored[i];
        lookup->found[places[i]] = value->lsn != 0;
        lookup->values[places[i]] = slice_make(value->data, value->size);
        lookup->versions[places[i]] = value->lsn;
    }
    free(keys);
    free(places);
    return status;
}

/* With --strict the first key that is missing makes the statement's outcome. */
static Outcome check_missing(Exec *exec, const Lookup *lookup)
{
    for (size_t i = 0; exec->session->strict && i < lookup->count; i++) {
        if (lookup->found[i])
            continue;
        const Token *token = exec->statement->keys[i];
        Buffer buffer = {0};
        diagnostic_set(exec->diagnostic, token->offset, token->length, "not found: %s",
                       display_key(token->bytes, &buffer));
        buffer_deinit(&buffer);
        return OUTCOME_UNMET;
    }
    return OUTCOME_OK;
}

static void show_lookup(Exec *exec, const Lookup *lookup)
{
    const Statement *statement = exec->statement;
    Output *output = &exec->session->output;
    bool aligned = output->format == OUTPUT_ALIGNED;
    bool keyed =
        lookup->count > 1 || output->format == OUTPUT_JSONL || (aligned && statement->with_version);
    if (lookup->count == 1 && !lookup->found[0]) {
        if (aligned)
            output_message(output, "(not found)");
        return;
    }
    if (!keyed && !statement->with_version && output->header != TOGGLE_ON) {
        output_value(output, lookup->values[0]);
        return;
    }
    static const Column all[] = {
        {"key", CELL_BYTES}, {"value", CELL_BYTES}, {"version", CELL_NUMBER}};
    size_t first = keyed ? 0 : 1;
    size_t column_count = (statement->with_version ? 3 : 2) - first;
    output_begin(output, all + first, column_count);
    for (size_t i = 0; i < lookup->count; i++) {
        if (!lookup->found[i] && !aligned)
            continue;
        Cell cells[3] = {{.bytes = statement->keys[i]->bytes},
                         {.bytes = lookup->values[i], .missing = !lookup->found[i]},
                         {.number = lookup->versions[i]}};
        if (!output_row(output, cells + first))
            break;
    }
    output_end(output);
}

static Outcome exec_get(Exec *exec)
{
    Lookup lookup;
    aidb_status status = look_up(exec, &lookup);
    Outcome outcome;
    if (status == AIDB_OK) {
        show_lookup(exec, &lookup);
        outcome = check_missing(exec, &lookup);
    } else {
        outcome = fail(exec, status);
    }
    lookup_deinit(&lookup);
    return outcome;
}

static Outcome exec_exists(Exec *exec)
{
    Lookup lookup;
    aidb_status status = look_up(exec, &lookup);
    Outcome outcome;
    if (status == AIDB_OK) {
        uint64_t count = 0;
        for (size_t i = 0; i < lookup.count; i++)
            count += lookup.found[i];
        output_number(&exec->session->output, count);
        outcome = check_missing(exec, &lookup);
    } else {
        outcome = fail(exec, status);
    }
    lookup_deinit(&lookup);
    return outcome;
}

/* --- Reading ranges --------------------------------------------------------------------------- */

static const Column scan_columns[] = {
    {"key", CELL_BYTES}, {"value", CELL_BYTES}, {"version", CELL_NUMBER}};

static aidb_status scan_rows(Exec *exec, Cursor *cursor, bool *interrupted)
{
    const Statement *statement = exec->statement;
    Output *output = &exec->session->output;
    size_t first = statement->columns == SCAN_VALUES ? 1 : 0;
    size_t columns = statement->columns == SCAN_VERSIONS ? 3
                     : statement->columns == SCAN_PAIRS  ? 2
                                                         : 1;
    aidb_status status = AIDB_OK;
    output_begin(output, scan_columns + first, columns);
    for (uint64_t rows = 0; !statement->has_limit || rows < statement->limit; rows++) {
        CursorRow row;
        bool found;
        if (interrupt_pending()) {
            *interrupted = true;
            break;
        }
        status = cursor_next(cursor, &row, &found);
        if (status != AIDB_OK || !found)
            break;
        Cell cells[3] = {{.bytes = row.key}, {.bytes = row.value}, {.number = row.lsn}};
        if (!output_row(output, cells + first))
            break;
    }
    output_end(output);
    return status;
}

static Outcome exec_scan(Exec *exec)
{
    Session *session = exec->session;
    const Statement *statement = exec->statement;
    CursorOptions options = {.snapshot = session->snapshot,
                             .overlay = session->batch,
                             .reverse = statement->reverse,
                             .keys_only = statement->columns == SCAN_KEYS,
                             .limit = statement->has_limit ? statement->limit : 0};
    CursorRange range;
    Cursor cursor;
    bool interrupted = false;
    cursor_range_init(&range, &statement->bounds);
    aidb_status status = cursor_open(&cursor, session->db, &range, &options);
    if (status == AIDB_OK)
        status = scan_rows(exec, &cursor, &interrupted);
    /* The message is copied before closing the cursor, which may fail with another. */
    Outcome outcome = interrupted         ? canceled(exec)
                      : status == AIDB_OK ? OUTCOME_OK
                                          : fail(exec, status);
    cursor_close(&cursor);
    cursor_range_deinit(&range);
    return outcome;
}

/* Counts by reading keys, because the open batch changes how many there are. */
static aidb_status count_rows(Exec *exec, const CursorRange *range, uint64_t *count,
                              bool *interrupted)
{
    Session *session = exec->session;
    CursorOptions options = {
        .snapshot = session->snapshot, .overlay = session->batch, .keys_only = true};
    Cursor cursor;
    aidb_status status = cursor_open(&cursor, session->db, range, &options);
    bool found = status == AIDB_OK;
    while (found) {
        CursorRow row;
        if (interrupt_pending()) {
            *interrupted = true;
            break;
        }
        status = cursor_next(&cursor, &row, &found);
        found = found && status == AIDB_OK;
        *count += found;
    }
    cursor_close(&cursor);
    return status;
}

static Outcome exec_count(Exec *exec)
{
    Session *session = exec->session;
    CursorRange range;
    uint64_t count = 0;
    bool interrupted = false;
    aidb_status status = AIDB_OK;
    cursor_range_init(&range, &exec->statement->bounds);
    if (session->batch != NULL && !overlay_is_empty(session->batch))
        status = count_rows(exec, &range, &count, &interrupted);
    else if (!range.empty)
        status = aidb_measure(session->db, session->snapshot, &range.range, &count, NULL);
    Outcome outcome = OUTCOME_OK;
    if (interrupted)
        outcome = canceled(exec);
    else if (status != AIDB_OK)
        outcome = fail(exec, status);
    else
        output_number(&session->output, count);
    cursor_range_deinit(&range);
    return outcome;
}

/* --- Administration --------------------------------------------------------------------------- */

static Outcome exec_control(Exec *exec, const char *command, const Bounds *bounds)
{
    CursorRange range;
    aidb_status status = AIDB_OK;
    cursor_range_init(&range, bounds);
    if (!range.empty)
        status = aidb_control(
            exec->session->db, command,
            range.range.from.data != NULL || range.range.to.data != NULL ? &range.range : NULL);
    cursor_range_deinit(&range);
    return status == AIDB_OK ? done(exec) : fail(exec, status);
}

static Outcome exec_terminate(Exec *exec)
{
    char command[64];
    snprintf(command, sizeof command, "terminate %" PRIu64, exec->statement->backend);
    return exec_control(exec, command, &exec->statement->bounds);
}

/* Cuts a line at its tabs. Returns how many cells there are. */
static size_t split_cells(Slice line, Cell *cells)
{
    size_t count = 0;
    while (count < OUTPUT_COLUMNS_MAX) {
        const uint8_t *tab = line.size > 0 ? memchr(line.data, '\t', line.size) : NULL;
        size_t size = tab != NULL ? (size_t)(tab - line.data) : line.size;
        cells[count++] = (Cell){.bytes = slice_make(line.data, size)};
        if (tab == NULL)
            break;
        line = slice_make(tab + 1, line.size - size - 1);
    }
    return count;
}

/* Shows lines of cells with TABs between. The names of the columns are in the first line when
 * `headed`, and otherwise name and value. */
static void show_lines(Output *output, char *text, bool headed)
{
    static const Column pair[] = {{"name", CELL_BYTES}, {"value", CELL_BYTES}};
    Column columns[OUTPUT_COLUMNS_MAX];
    char *names[OUTPUT_COLUMNS_MAX];
    Cell cells[OUTPUT_COLUMNS_MAX];
    size_t column_count = 2;
    size_t name_count = 0;
    bool begun = false;
    memcpy(columns, pair, sizeof pair);
    for (char *line = text; *line != '\0';) {
        size_t size = strcspn(line, "\n");
        size_t count = split_cells(slice_make((const uint8_t *)line, size), cells);
        line += size + (line[size] == '\n');
        if (!begun && headed) {
            column_count = count;
            for (; name_count < count; name_count++) {
                names[name_count] = mem_copy_bytes(cells[name_count].bytes);
                columns[name_count] = (Column){.name = names[name_count], .kind = CELL_BYTES};
            }
        }
        if (!begun)
            output_begin(output, columns, column_count);
        bool is_header = !begun && headed;
        begun = true;
        for (; count < column_count; count++)
            cells[count] = (Cell){0};
        if (!is_header && !output_row(output, cells))
            break;
    }
    if (begun)
        output_end(output);
    while (name_count > 0)
        free(names[--name_count]);
}

/* A property is either pairs of a name and a value, or a table whose first line names its columns
 * and that has more than two of them. */
static bool is_pairs(const char *text)
{
    size_t tabs = 0;
    for (; *text != '\0' && *text != '\n'; text++)
        tabs += *text == '\t';
    return tabs <= 1;
}

static Outcome exec_show(Exec *exec)
{
    const char *property = exec->statement->property;
    char *text = NULL;
    aidb_status status = aidb_property(exec->session->db, property, &text);
    if (status != AIDB_OK)
        return fail(exec, status);
    bool headed = !is_pairs(text);
    show_lines(&exec->session->output, text, headed);
    aidb_free(text);
    return OUTCOME_OK;
}

Outcome exec_statement(Session *session, const Statement *statement, Diagnostic *diagnostic)
{
    Exec exec = {.session = session, .statement = statement, .diagnostic = diagnostic};
    bool ends_batch = statement->kind == STATEMENT_ROLLBACK || statement->kind == STATEMENT_COMMIT;
    if (session->batch != NULL && session->batch_failed && !ends_batch) {
        refuse(&exec, "a statement of this batch failed");
        diagnostic_hint(diagnostic, "ROLLBACK ends it; nothing of it is written.");
        return OUTCOME_ERROR;
    }
    switch (statement->kind) {
    case STATEMENT_EMPTY:
        return OUTCOME_OK;
    case STATEMENT_PUT:
    case STATEMENT_DELETE:
    case STATEMENT_DELETE_RANGE:
        return exec_write(&exec);
    case STATEMENT_GET:
        return exec_get(&exec);
    case STATEMENT_EXISTS:
        return exec_exists(&exec);
    case STATEMENT_SCAN:
        return exec_scan(&exec);
    case STATEMENT_COUNT:
        return exec_count(&exec);
    case STATEMENT_BEGIN:
        return exec_begin(&exec);
    case STATEMENT_COMMIT:
        return exec_commit(&exec);
    case STATEMENT_ROLLBACK:
        return exec_rollback(&exec);
    case STATEMENT_SNAPSHOT:
        return exec_snapshot(&exec);
    case STATEMENT_RELEASE:
        return exec_release(&exec);
    case STATEMENT_SET:
        session->durability = statement->durability;
        return done(&exec);
    case STATEMENT_FLUSH:
        return exec_control(&exec, "flush", &statement->bounds);
    case STATEMENT_COMPACT:
        return exec_control(&exec, "compact", &statement->bounds);
    case STATEMENT_TERMINATE:
        return exec_terminate(&exec);
    case STATEMENT_SHOW:
        break;
    }
    return exec_show(&exec);
}
