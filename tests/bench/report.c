/* SPDX-License-Identifier: MIT */
/* Samples, the table, the JSON file. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#include "peak.h"

int samples_add(samples *s, double value)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        double *data = realloc(s->data, cap * sizeof *data);
        if (data == NULL) {
            return -1;
        }
        s->data = data;
        s->cap = cap;
    }
    s->data[s->count++] = value;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_median(samples *s)
{
    size_t n = s->count;
    if (n == 0) {
        return 0;
    }
    qsort(s->data, n, sizeof *s->data, by_value);
    return n % 2 ? s->data[n / 2] : (s->data[n / 2 - 1] + s->data[n / 2]) / 2;
}

double samples_min(const samples *s)
{
    double least = s->count ? s->data[0] : 0;
    for (size_t i = 1; i < s->count; i++) {
        least = s->data[i] < least ? s->data[i] : least;
    }
    return least;
}

/* The processor's name where the system tells it. */
static void cpu_name(char *name, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown processor");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n\"\\"), colon + 2);
            break;
        }
    }
    if (f) {
        fclose(f);
    }
}

#if defined(__VERSION__)
#define COMPILER __VERSION__
#else
#define COMPILER "unknown"
#endif

void report_head(FILE *out)
{
    char cpu[128];
    cpu_name(cpu, sizeof cpu);
    fprintf(out, "libgradcam %s, %s, compiler %s\n", gc_version_string(), cpu, COMPILER);
    fprintf(out, "float32; %s peak measured in turn with the jobs\n", peak_level());
    fprintf(out, "FLOPs are those of the plain formulas, 2 a multiply-add: Winograd convolution, which needs\n"
                 "fewer, may show more than the peak.  first: new network to first result.  MiB: the most that\n"
                 "the library held at once, weights included.\n");
}

void report_seat(FILE *out, seat *s)
{
    double peak = samples_median(&s->peak), forward = samples_median(&s->jobs[JOB_FORWARD].ms);
    fprintf(out, "\n%s, batch %d, %dx%d, %d thread%s: prepare %.1f ms, FMA peak %.0f GFLOP/s, ", s->model->name,
            (int)s->batch, (int)s->model->size, (int)s->model->size, s->threads, s->threads == 1 ? "" : "s",
            s->prepare_ms, peak);
    fprintf(out, "Grad-CAM at %s, sweep of %d layers\n", s->layer, (int)s->n_layers);
    fprintf(out, "  %-8s %9s %9s %6s %6s %8s %8s %8s %9s %8s\n", "job", "median ms", "min ms", "calls", "x fwd",
            "GFLOP", "GFLOP/s", "of peak", "first ms", "MiB");
    for (int i = 0; i < JOB_COUNT; i++) {
        job *j = &s->jobs[i];
        double ms = samples_median(&j->ms), rate = j->gflop / ms * 1e3;
        fprintf(out, "  %-8s %9.2f %9.2f %6d %6.2f %8.3f %8.1f %7.1f%% %9.1f %8.1f\n", j->name, ms, samples_min(&j->ms),
                (int)j->ms.count, ms / forward, j->gflop, rate, 100 * rate / peak, j->first_ms,
                (double)j->peak / 1048576.0);
    }
    fflush(out);
}

static double pixels(const seat *s)
{
    return (double)s->batch * (double)s->model->size * (double)s->model->size;
}

void report_growth(FILE *out, seat *seats, int n, int n_threads)
{
    fprintf(out, "\n%s, time per pixel, the first row of as many threads being 1\n", seats->model->name);
    fprintf(out, "  %7s %6s %6s", "threads", "batch", "size");
    for (int k = 0; k < JOB_COUNT; k++) {
        fprintf(out, " %8s", seats->jobs[k].name);
    }
    for (int i = 0; i < n; i++) {
        seat *s = &seats[i], *unit = &seats[i % n_threads];
        fprintf(out, "\n  %7d %6d %6d", s->threads, (int)s->batch, (int)s->model->size);
        for (int k = 0; k < JOB_COUNT; k++) {
            double grown = samples_median(&s->jobs[k].ms) / samples_median(&unit->jobs[k].ms);
            fprintf(out, " %8.2f", grown * pixels(unit) / pixels(s));
        }
    }
    fprintf(out, "\n");
}

void report_json_head(FILE *out, const bench_options *o)
{
    char cpu[128];
    cpu_name(cpu, sizeof cpu);
    fprintf(out, "{\"version\": \"%s\", \"cpu\": \"%s\", \"compiler\": \"%s\", \"fma_level\": \"%s\", ",
            gc_version_string(), cpu, COMPILER, peak_level());
    fprintf(out, "\"seconds\": %g, \"results\": [", o->seconds);
}

static void json_job(FILE *out, job *j, double peak)
{
    double ms = samples_median(&j->ms), rate = j->gflop / ms * 1e3;
    fprintf(out, "{\"median_ms\": %.6g, \"min_ms\": %.6g, \"calls\": %d, \"first_ms\": %.6g, ", ms, samples_min(&j->ms),
            (int)j->ms.count, j->first_ms);
    fprintf(out, "\"gflop\": %.6g, \"gflops\": %.6g, \"peak_share\": %.4g, ", j->gflop, rate, rate / peak);
    fprintf(out, "\"peak_bytes\": %.0f, \"arena_bytes\": %.0f}", (double)j->peak, (double)j->arena);
}

void report_json_seat(FILE *out, seat *s, int first)
{
    double peak = samples_median(&s->peak);
    fprintf(out, "%s\n{\"net\": \"%s\", \"batch\": %d, \"size\": %d, \"threads\": %d, \"prepare_ms\": %.6g, ",
            first ? "" : ",", s->model->name, (int)s->batch, (int)s->model->size, s->threads, s->prepare_ms);
    fprintf(out, "\"weight_bytes\": %.0f, ", model_weight_bytes(s->model));
    fprintf(out, "\"layer\": \"%s\", \"sweep_layers\": %d, \"fma_gflops\": %.6g, \"jobs\": {", s->layer,
            (int)s->n_layers, peak);
    for (int i = 0; i < JOB_COUNT; i++) {
        fprintf(out, "%s\n  \"%s\": ", i ? "," : "", s->jobs[i].name);
        json_job(out, &s->jobs[i], peak);
    }
    fprintf(out, "}}");
}

void report_json_tail(FILE *out)
{
    fprintf(out, "\n]}\n");
}
