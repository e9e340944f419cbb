#include "config.h"
#include "bin/aidbsql/line.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bin/aidbsql/interrupt.h"
#include "bin/aidbsql/mem.h"

#if defined(HAVE_READLINE)
#include <readline/history.h>
#include <readline/readline.h>
#elif defined(HAVE_LIBEDIT)
#include <editline/readline.h>
#endif

#if defined(HAVE_READLINE) || defined(HAVE_LIBEDIT)

#define HISTORY_LINES_MAX 2000

static char *history_file;

/* The library has no argument to pass a completer its state. */
static LineCompleter completer_function;
static void *completer_arg;

typedef struct Words {
    char **items;
    size_t count;
    size_t next;
} Words;

static Words words;

static void add_word(void *list, const char *text)
{
    Words *to = list;
    to->items = mem_resize(to->items, (to->count + 1) * sizeof *to->items);
    to->items[to->count++] = mem_copy_string(text);
}

/* Called until it returns null; what it returns belongs to the library. */
static char *next_word(const char *text, int state)
{
    (void)text;
    (void)state;
    return words.next < words.count ? words.items[words.next++] : NULL;
}

static char **complete(const char *text, int start, int end)
{
    (void)end;
    char *before = mem_copy_bytes(slice_make((const uint8_t *)rl_line_buffer, (size_t)start));
    words = (Words){0};
    bool known = completer_function(completer_arg, before, text, add_word, &words);
    free(before);
    /* Names of files are the library's own fallback. */
    rl_attempted_completion_over = known;
    char **matches = words.count > 0 ? rl_completion_matches(text, next_word) : NULL;
    while (words.next < words.count)
        free(words.items[words.next++]);
    free(words.items);
    return matches;
}

void line_open(const char *history_path, LineCompleter completer, void *arg)
{
    static char break_characters[] = " \t\n;,";
    completer_function = completer;
    completer_arg = arg;
    rl_readline_name = "aidbsql";
    rl_attempted_completion_function = complete;
    rl_basic_word_break_characters = break_characters;
    rl_completer_word_break_characters = break_characters;
    using_history();
    stifle_history(HISTORY_LINES_MAX);
#if defined(HAVE_READLINE)
    /* With time stamps an entry of several lines comes back as one. */
    history_comment_char = '#';
    history_write_timestamps = 1;
#endif
    if (history_path != NULL) {
        history_file = mem_copy_string(history_path);
        read_history(history_file);
    }
}

void line_close(void)
{
    if (history_file != NULL) {
        /* Keys and values are in it: nobody else's business. */
        int descriptor = open(history_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (descriptor >= 0)
            close(descriptor);
        write_history(history_file);
    }
    free(history_file);
    history_file = NULL;
}

void line_remember(const char *text)
{
    HIST_ENTRY *last = history_length > 0 ? history_get(history_base + history_length - 1) : NULL;
    if (*text != '\0' && (last == NULL || strcmp(last->line, text) != 0))
        add_history(text);
}

#if defined(HAVE_READLINE)

static char *finished_line;
static bool finished;

static void on_line(char *line)
{
    finished_line = line;
    finished = true;
    rl_callback_handler_remove();
}

char *line_read(const char *prompt)
{
    finished = false;
    finished_line = NULL;
    rl_callback_handler_install(prompt, on_line);
    while (!finished) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = poll(&input, 1, -1);
        if (ready < 0 && errno == EINTR) {
            rl_check_signals();
            if (!interrupt_pending())
                continue;
            rl_callback_handler_remove();
            rl_free_line_state();
            fputs("^C\n", stdout);
            fflush(stdout);
            return mem_copy_string("");
        }
        rl_callback_read_char();
    }
    return finished_line;
}

#else

char *line_read(const char *prompt)
{
    char *line = readline(prompt);
    if (!interrupt_pending())
        return line;
    free(line);
    fputs("^C\n", stdout);
    return mem_copy_string("");
}

#endif

#else /* neither library */

void line_open(const char *history_path, LineCompleter completer, void *arg)
{
    (void)history_path;
    (void)completer;
    (void)arg;
}

void line_close(void)
{
}

void line_remember(const char *text)
{
    (void)text;
}

char *line_read(const char *prompt)
{
    char *line = NULL;
    size_t capacity = 0;
    fputs(prompt, stdout);
    fflush(stdout);
    ssize_t size = getline(&line, &capacity, stdin);
    if (size < 0) {
        free(line);
        if (!interrupt_pending())
            return NULL;
        clearerr(stdin);
        fputs("^C\n", stdout);
        return mem_copy_string("");
    }
    if (size > 0 && line[size - 1] == '\n')
        line[size - 1] = '\0';
    return line;
}

#endif
