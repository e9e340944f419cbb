#include "config.h"
#include "bin/aidbsql/interactive.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "bin/aidbsql/complete.h"
#include "bin/aidbsql/interrupt.h"
#include "bin/aidbsql/line.h"
#include "bin/aidbsql/mem.h"
#include "bin/aidbsql/script.h"

/* How long a lost server is waited for: a restart takes a few seconds. */
#define RECONNECT_SECONDS 15

/* A conversation: the statement being typed is in the script, and once more as it was typed, for
 * completion and the history. */
typedef struct Conversation {
    Session *session;
    Script script;
    Buffer typed;
} Conversation;

/* What stands in front of '=> ': HOST:PORT, or the last name of the data directory, which is where a
 * unix socket lies too. To be freed. */
static char *short_address(const Session *session)
{
    static const char tcp[] = "aidb://", unix_socket[] = "aidb+unix:";
    const char *address = session->address;
    if (address == NULL)
        return mem_copy_string("(not connected)");
    if (strncmp(address, tcp, sizeof tcp - 1) == 0)
        return mem_copy_string(address + sizeof tcp - 1);
    char *path = mem_copy_string(session->target_is_directory ? session->target : address);
    if (strncmp(path, unix_socket, sizeof unix_socket - 1) == 0) {
        char *slash = strrchr(path, '/');
        if (slash != NULL)
            *slash = '\0';
    }
    char *real = session->target_is_directory ? realpath(path, NULL) : NULL;
    const char *whole = real != NULL ? real : path;
    const char *last = strrchr(whole, '/');
    char *name = mem_copy_string(last != NULL && last[1] != '\0' ? last + 1 : whole);
    free(real);
    free(path);
    return name;
}

/* NAME=> with marks for what is open: `*` a batch, `!` a batch that failed, `@` a snapshot. Within
 * a statement `-`, within a quote `'` stands for the `=`. */
static char *make_prompt(const Conversation *conversation)
{
    const Session *session = conversation->session;
    const Script *script = &conversation->script;
    const char *state = "=";
    if (script->splitter.state == SPLIT_QUOTE || script->splitter.state == SPLIT_ESCAPE)
        state = "'";
    else if (script_is_pending(script))
        state = "-";
    char *address = short_address(session);
    char *prompt = mem_format("%s%s%s%s> ", address, state,
                              session->batch == NULL  ? ""
                              : session->batch_failed ? "!"
                                                      : "*",
                              session->snapshot != NULL ? "@" : "");
    free(address);
    return prompt;
}

static bool complete(void *arg, const char *before, const char *word,
                     void (*add)(void *list, const char *text), void *list)
{
    Conversation *conversation = arg;
    Buffer text = {0};
    mem_append(&text, conversation->typed.data, conversation->typed.size);
    mem_append_string(&text, before);
    bool known = complete_word(conversation->session, mem_string(&text), word, add, list);
    buffer_deinit(&text);
    return known;
}

/* Tries for a while to open the target again. */
static void reconnect(Session *session)
{
    bool had_batch = session->batch != NULL;
    bool had_snapshot = session->snapshot != NULL;
    /* Somebody who talked to a server does not want to keep the next one from starting. */
    session->server_only |= !session->embedded;
    fputs("The connection is lost; trying to connect again (Ctrl-C stops)...\n", stderr);
    session_close(session); /* may well fail, there is nobody to say goodbye to */
    const struct timespec pause = {.tv_nsec = 250 * 1000 * 1000};
    for (int tries = 0; tries < RECONNECT_SECONDS * 4 && !interrupt_pending(); tries++) {
        if (session_open(session) == AIDB_OK) {
            fprintf(stderr, "Connected to %s. The last statement was not run again%s%s.\n",
                    session->address, had_batch ? "; the open batch is lost" : "",
                    had_snapshot ? "; the snapshot is lost" : "");
            return;
        }
        nanosleep(&pause, NULL);
    }
    Diagnostic diagnostic;
    session_explain(&diagnostic, AIDB_CONNECTION, 0, 0);
    fprintf(stderr, "Not connected: %s\n", diagnostic.message);
}

/* Hands a line to the script, and deals with what became of it. */
static void take_line(Conversation *conversation, const char *line)
{
    Session *session = conversation->session;
    Script *script = &conversation->script;
    Buffer text = {0};
    mem_append_string(&text, line);
    mem_append_byte(&text, '\n');
    mem_append(&conversation->typed, text.data, text.size);
    interrupt_clear();
    /* A server that has come back meanwhile is found without a word. */
    if (session->db == NULL && session_open(session) != AIDB_OK)
        session->db = NULL;
    script_feed(script, buffer_slice(&text));
    buffer_deinit(&text);
    if (session->lost && !session->quit)
        reconnect(session);
    if (!script_is_pending(script)) {
        Buffer *typed = &conversation->typed;
        while (typed->size > 0 &&
               (typed->data[typed->size - 1] == '\n' || typed->data[typed->size - 1] == ' '))
            typed->size--;
        if (typed->size > 0)
            line_remember(mem_string(typed));
        buffer_clear(typed);
        /* Lines are counted from the start of each statement. */
        script->line = 1;
        script->column = 1;
    }
}

/* A file of the user's home, or what a variable names. Null when there is neither. */
static char *home_file(const char *variable, const char *name)
{
    const char *path = getenv(variable);
    if (path != NULL)
        return *path != '\0' ? mem_copy_string(path) : NULL;
    const char *home = getenv("HOME");
    return home != NULL && *home != '\0' ? mem_format("%s/%s", home, name) : NULL;
}

Outcome interactive_run(Session *session, bool read_rc)
{
    Conversation conversation = {.session = session};
    session->interactive = true;
    signal(SIGPIPE, SIG_IGN); /* a pager that was left early */
    interrupt_install();
    char *rc_path = home_file("AIDBSQLRC", ".aidbsqlrc");
    if (read_rc && rc_path != NULL && access(rc_path, R_OK) == 0)
        script_run_file(session, rc_path);
    free(rc_path);
    if (!session->quiet)
        printf("aidbsql %s, %s %s. \\? for help, \\q to leave.\n", AIDB_VERSION,
               session->embedded ? "using" : "connected to",
               session->address != NULL ? session->address : "nothing");

    char *history_path = home_file("AIDBSQL_HISTORY", ".aidbsql_history");
    line_open(history_path, complete, &conversation);
    free(history_path);
    script_init(&conversation.script, session, NULL);
    while (!session->quit) {
        char *prompt = make_prompt(&conversation);
        interrupt_clear();
        char *line = line_read(prompt);
        free(prompt);
        if (line == NULL) {
            putchar('\n');
            break;
        }
        if (interrupt_pending()) {
            script_reset(&conversation.script);
            buffer_clear(&conversation.typed);
        } else {
            take_line(&conversation, line);
        }
        free(line);
    }
    line_close();
    script_deinit(&conversation.script);
    buffer_deinit(&conversation.typed);
    return OUTCOME_OK;
}
