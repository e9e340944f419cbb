/*
 * yaml.c - reading aidb.yaml: one mapping from setting names to plain values.
 *
 * libyaml's event interface is used, so no tree is built and the depth is what this file allows: the
 * document, its mapping, and a sequence of words where a setting is a list. Anchors, aliases, tags and
 * further documents are refused; so is a name that stands twice. The size of the file is limited
 * before it is read. Every error says PATH:LINE:COLUMN.
 */
#include "config.h"
#include "config/settings_internal.h"

#include "io/io.h"
#include <stdio.h>
#include <string.h>
#include <yaml.h>

typedef struct Reader {
    const char *path;
    yaml_parser_t parser;
    Config *config;
} Reader;

/* Puts the place in front of the message in the error record and keeps its hint. */
static Status locate_error(const Reader *reader, Status code, yaml_mark_t mark)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", status_text());
    char *hint = strstr(text, "\nhint: ");
    if (hint != NULL)
        *hint = '\0';
    (void)status_set(code, "%s:%zu:%zu: %s", reader->path, mark.line + 1, mark.column + 1, text);
    if (hint != NULL)
        status_hint("%s", hint + strlen("\nhint: "));
    return code;
}

static Status refuse(const Reader *reader, yaml_mark_t mark, const char *what)
{
    return status_set(AIDB_INVALID, "%s:%zu:%zu: %s", reader->path, mark.line + 1, mark.column + 1,
                      what);
}

/* The next event; the caller deletes it. Refuses what no settings file needs. */
static Status next_event(Reader *reader, yaml_event_t *event)
{
    yaml_parser_t *parser = &reader->parser;
    if (!yaml_parser_parse(parser, event)) {
        memset(event, 0, sizeof *event);
        if (parser->error == YAML_MEMORY_ERROR)
            return status_set(AIDB_NO_MEMORY, "%s: out of memory", reader->path);
        if (parser->error == YAML_READER_ERROR)
            return status_set(AIDB_INVALID, "%s: not UTF-8 text: %s at byte %zu", reader->path,
                              parser->problem != NULL ? parser->problem : "bad bytes",
                              parser->problem_offset);
        return refuse(reader, parser->problem_mark,
                      parser->problem != NULL ? parser->problem : "not YAML");
    }
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    Status status = AIDB_OK;
    if (anchor != NULL || event->type == YAML_ALIAS_EVENT)
        status = refuse(reader, event->start_mark, "anchors and aliases are not allowed");
    else if (tag != NULL)
        status = refuse(reader, event->start_mark, "tags are not allowed");
    else if (event->type == YAML_SCALAR_EVENT &&
             strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
        status = refuse(reader, event->start_mark, "a null byte is not allowed");
    if (status != AIDB_OK) {
        yaml_event_delete(event);
        memset(event, 0, sizeof *event);
    }
    return status;
}

static const char *scalar_text(const yaml_event_t *event)
{
    return (const char *)event->data.scalar.value;
}

static bool is_null(const yaml_event_t *event)
{
    const char *text = scalar_text(event);
    return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

/* The words of a sequence, joined by commas. */
static Status read_list(Reader *reader, const Setting *setting, char *text, size_t size)
{
    size_t used = 0;
    for (;;) {
        yaml_event_t event;
        RETURN_IF_FAILED(next_event(reader, &event));
        Status status = AIDB_OK;
        if (event.type == YAML_SCALAR_EVENT) {
            int more = snprintf(text + used, size - used, "%s%s", used > 0 ? "," : "",
                                scalar_text(&event));
            if (more < 0 || (size_t)more >= size - used)
                status = refuse(reader, event.start_mark, "the list is too long");
            else
                used += (size_t)more;
        } else if (event.type != YAML_SEQUENCE_END_EVENT) {
            (void)status_set(AIDB_INVALID, "%s: a list takes words only", setting->name);
            status = locate_error(reader, AIDB_INVALID, event.start_mark);
        }
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        yaml_event_delete(&event);
        if (status != AIDB_OK || end)
            return status;
    }
}

static Status read_value(Reader *reader, const Setting *setting, size_t line)
{
    yaml_event_t event;
    RETURN_IF_FAILED(next_event(reader, &event));
    yaml_mark_t mark = event.start_mark;
    char joined[CONFIG_STRING_SIZE] = "";
    const char *text = NULL;
    Status status = AIDB_OK;

    if (event.type == YAML_SCALAR_EVENT && is_null(&event)) {
        bool textual = setting->type == SETTING_STRING || setting->type == SETTING_LIST;
        if (textual && scalar_text(&event)[0] == '\0') {
            text = "";
        } else {
            (void)status_set(AIDB_INVALID, "%s: has no value", setting->name);
            status = locate_error(reader, AIDB_INVALID, mark);
        }
    } else if (event.type == YAML_SCALAR_EVENT) {
        text = scalar_text(&event);
    } else if (event.type == YAML_SEQUENCE_START_EVENT && setting->type == SETTING_LIST) {
        status = read_list(reader, setting, joined, sizeof joined);
        text = joined;
    } else {
        (void)status_set(AIDB_INVALID, "%s: takes a single value of type %s", setting->name,
                         setting_type_name(setting->type));
        status = locate_error(reader, AIDB_INVALID, mark);
    }
    if (status == AIDB_OK) {
        status = config_set(reader->config, setting->name, text);
        if (status != AIDB_OK)
            status = locate_error(reader, status, mark);
        else
            config_set_line(reader->config, setting, (uint32_t)line);
    }
    yaml_event_delete(&event);
    return status;
}

static Status read_setting(Reader *reader, const yaml_event_t *name)
{
    yaml_mark_t mark = name->start_mark;
    if (name->type != YAML_SCALAR_EVENT)
        return refuse(reader, mark, "the name of a setting is expected");
    const Setting *setting = setting_find(scalar_text(name));
    if (setting == NULL) {
        Status status = config_set(reader->config, scalar_text(name), "");
        return locate_error(reader, status, mark);
    }
    if (config_line(reader->config, setting) != 0) {
        (void)status_set(AIDB_INVALID, "%s: already set in line %u", setting->name,
                         config_line(reader->config, setting));
        return locate_error(reader, AIDB_INVALID, mark);
    }
    return read_value(reader, setting, mark.line + 1);
}

static Status read_mapping(Reader *reader)
{
    for (;;) {
        yaml_event_t event;
        RETURN_IF_FAILED(next_event(reader, &event));
        bool end = event.type == YAML_MAPPING_END_EVENT;
        Status status = end ? AIDB_OK : read_setting(reader, &event);
        yaml_event_delete(&event);
        if (status != AIDB_OK || end)
            return status;
    }
}

static Status read_stream(Reader *reader)
{
    unsigned documents = 0;
    for (;;) {
        yaml_event_t event;
        RETURN_IF_FAILED(next_event(reader, &event));
        yaml_event_type_t type = event.type;
        Status status = AIDB_OK;
        if (type == YAML_MAPPING_START_EVENT)
            status = read_mapping(reader);
        else if (type == YAML_DOCUMENT_START_EVENT && documents++ > 0)
            status = refuse(reader, event.start_mark, "only one document is allowed");
        else if (type == YAML_SEQUENCE_START_EVENT ||
                 (type == YAML_SCALAR_EVENT && !is_null(&event)))
            status = refuse(reader, event.start_mark, "settings are written as name: value");
        yaml_event_delete(&event);
        if (status != AIDB_OK || type == YAML_STREAM_END_EVENT)
            return status;
    }
}

Status config_parse(const char *path, Slice text, Config *config)
{
    config_init(config);
    if (text.size > CONFIG_FILE_SIZE_MAX)
        return status_set(AIDB_INVALID, "%s: larger than 1MiB", path);
    Reader reader = {.path = path, .config = config};
    if (!yaml_parser_initialize(&reader.parser))
        return status_set(AIDB_NO_MEMORY, "%s: out of memory", path);
    yaml_parser_set_input_string(&reader.parser,
                                 text.data != NULL ? text.data : (const uint8_t *)"", text.size);
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    Status status = read_stream(&reader);
    yaml_parser_delete(&reader.parser);
    if (status != AIDB_OK)
        return status;

    uint32_t line = 0;
    status = config_check_lines(config, &line);
    if (status != AIDB_OK)
        return locate_error(&reader, status, (yaml_mark_t){.line = line > 0 ? line - 1 : 0});
    return AIDB_OK;
}

Status config_load(const char *path, Config *config)
{
    config_init(config);
    Buffer text = {0};
    Status status = file_read_whole(path, CONFIG_FILE_SIZE_MAX, &text);
    if (status == AIDB_OK)
        status = config_parse(path, buffer_slice(&text), config);
    buffer_deinit(&text);
    return status;
}
