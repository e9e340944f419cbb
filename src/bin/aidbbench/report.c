/*
 * report.c - results as text, TSV or JSON.
 *
 * TSV and JSON hold plain numbers and the same names. In TSV a line of column names comes first, so
 * that a reader need not count columns.
 */
#include "config.h"
#include "bin/aidbbench/report.h"

#include <string.h>
#include <unistd.h>

static double microseconds(uint64_t ns)
{
    return (double)ns / 1000;
}

static double per_second(double amount, double seconds)
{
    return seconds > 0 ? amount / seconds : 0;
}

static bool flushed(FILE *out)
{
    return fflush(out) == 0 && ferror(out) == 0;
}

static void print_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if (*c < 0x20)
            fprintf(out, "\\u%04x", *c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

static void begin_text(FILE *out, const Options *options)
{
    fprintf(out, "aidbbench %s on %s\n", AIDB_VERSION, options->db);
    fprintf(out,
            "%llu keys of %llu bytes, values of %llu bytes (compression ratio %g), "
            "durability %s, seed %llu\n",
            (unsigned long long)options->num, (unsigned long long)options->key_size,
            (unsigned long long)options->value_size, options->compression_ratio,
            options_durability_name(options->durability), (unsigned long long)options->seed);
    fprintf(out, "%llu threads", (unsigned long long)options->threads);
    if (options->remote)
        fprintf(out, ", %llu connections", (unsigned long long)options->connections);
    fprintf(out, ", pipeline %llu, batch %llu", (unsigned long long)options->pipeline,
            (unsigned long long)options->batch);
    for (size_t i = 0; i < options->setting_count; i++)
        fprintf(out, ", %s=%s", options->settings[i].name, options->settings[i].value);
    fprintf(out, "\n\n%-16s %7s %12s %9s %12s %10s %10s %10s %9s  %s\n", "workload", "threads",
            "ops", "seconds", "ops/s", "p50 us", "p99 us", "p99.9 us", "MB/s", "found");
}

static void begin_json(FILE *out, const Options *options)
{
    fprintf(out, "{\"version\":\"%s\",\"db\":", AIDB_VERSION);
    print_json_string(out, options->db);
    fprintf(out,
            ",\"num\":%llu,\"key_size\":%llu,\"value_size\":%llu,\"compression_ratio\":%g,"
            "\"threads\":%llu,\"connections\":%llu,\"pipeline\":%llu,\"batch\":%llu,"
            "\"durability\":\"%s\",\"seed\":%llu,\"settings\":{",
            (unsigned long long)options->num, (unsigned long long)options->key_size,
            (unsigned long long)options->value_size, options->compression_ratio,
            (unsigned long long)options->threads, (unsigned long long)options->connections,
            (unsigned long long)options->pipeline, (unsigned long long)options->batch,
            options_durability_name(options->durability), (unsigned long long)options->seed);
    for (size_t i = 0; i < options->setting_count; i++) {
        if (i != 0)
            fputc(',', out);
        print_json_string(out, options->settings[i].name);
        fputc(':', out);
        print_json_string(out, options->settings[i].value);
    }
    fputs("},\"results\":[", out);
}

bool report_begin(Report *report, FILE *out, const Options *options)
{
    *report = (Report){.out = out, .options = options};
    switch (options->format) {
    case FORMAT_TEXT:
        begin_text(out, options);
        break;
    case FORMAT_TSV:
        fputs("workload\tthreads\tops\tseconds\tops_per_s\tp50_us\tp99_us\tp999_us\tbytes\tfound\t"
              "max_us\n",
              out);
        break;
    case FORMAT_JSON:
        begin_json(out, options);
        break;
    }
    return flushed(out);
}

static void row_text(FILE *out, const Result *result)
{
    fprintf(out, "%-16s %7llu %12llu %9.3f %12.0f %10.2f %10.2f %10.2f %9.1f",
            result->workload->name, (unsigned long long)result->threads,
            (unsigned long long)result->ops, result->seconds,
            per_second((double)result->ops, result->seconds), microseconds(result->p50_ns),
            microseconds(result->p99_ns), microseconds(result->p999_ns),
            per_second((double)result->bytes / 1e6, result->seconds));
    if (result->workload->reads)
        fprintf(out, "  %llu of %llu", (unsigned long long)result->found,
                (unsigned long long)result->ops);
    fputc('\n', out);
}

static void row_tsv(FILE *out, const Result *result)
{
    fprintf(out, "%s\t%llu\t%llu\t%.6f\t%.1f\t%.3f\t%.3f\t%.3f\t%llu\t%llu\t%.3f\n",
            result->workload->name, (unsigned long long)result->threads,
            (unsigned long long)result->ops, result->seconds,
            per_second((double)result->ops, result->seconds), microseconds(result->p50_ns),
            microseconds(result->p99_ns), microseconds(result->p999_ns),
            (unsigned long long)result->bytes, (unsigned long long)result->found,
            microseconds(result->max_ns));
}

static void row_json(FILE *out, const Result *result, bool first)
{
    fprintf(out,
            "%s\n{\"workload\":\"%s\",\"threads\":%llu,\"ops\":%llu,\"seconds\":%.6f,"
            "\"ops_per_s\":%.1f,\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,"
            "\"max_us\":%.3f,\"bytes\":%llu,\"found\":%llu}",
            first ? "" : ",", result->workload->name, (unsigned long long)result->threads,
            (unsigned long long)result->ops, result->seconds,
            per_second((double)result->ops, result->seconds), microseconds(result->p50_ns),
            microseconds(result->p99_ns), microseconds(result->p999_ns),
            microseconds(result->max_ns), (unsigned long long)result->bytes,
            (unsigned long long)result->found);
}

bool report_row(Report *report, const Result *result)
{
    switch (report->options->format) {
    case FORMAT_TEXT:
        row_text(report->out, result);
        break;
    case FORMAT_TSV:
        row_tsv(report->out, result);
        break;
    case FORMAT_JSON:
        row_json(report->out, result, report->rows == 0);
        break;
    }
    report->rows++;
    return flushed(report->out);
}

bool report_end(Report *report)
{
    if (report->options->format == FORMAT_JSON)
        fputs("\n]}\n", report->out);
    return flushed(report->out);
}

bool progress_wanted(void)
{
    return isatty(STDERR_FILENO) == 1;
}

void progress_draw(const char *name, double fraction, uint64_t ops, double ops_per_s,
                   double seconds)
{
    char done[16] = "";
    if (fraction >= 0)
        snprintf(done, sizeof done, "%3.0f%%  ", 100 * (fraction > 1 ? 1 : fraction));
    fprintf(stderr, "\r\033[K%s  %s%llu ops  %.0f ops/s  %.0f s", name, done,
            (unsigned long long)ops, ops_per_s, seconds);
    fflush(stderr);
}

void progress_clear(void)
{
    fputs("\r\033[K", stderr);
    fflush(stderr);
}
