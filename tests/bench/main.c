/* SPDX-License-Identifier: MIT */
/* make bench: what prediction and explanation cost on the usual networks. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static void usage(FILE *out)
{
    fprintf(out, "usage: bench [--nets a,b] [--threads 1,2] [--seconds S] [--batch 1,8] [--size 224] [--json FILE]\n"
                 "\n"
                 "Times forward passes, Grad-CAM (last layer), guided backpropagation and a layer sweep\n"
                 "(Grad-CAM at all layers in one call) on networks with seeded random weights.\n"
                 "\n"
                 "  --nets a,b      ");
    for (size_t i = 0; model_net_name(i) != NULL; i++) {
        fprintf(out, "%s%s", i == 0 ? "" : i == 4 ? ",\n                  " : ", ", model_net_name(i));
    }
    fprintf(out, "\n"
                 "  --threads 1,2   numbers of threads, 1 to 64; default 1,2\n"
                 "  --seconds S     of rounds per network, three rounds at least; default 8\n"
                 "  --batch 1,8     images at once; default 1\n"
                 "  --size 224,448  height and width of the image; default 224\n"
                 "  --json FILE     writes the figures to FILE as well\n"
                 "\n"
                 "All threads, batches and sizes of a network take turns.  With several batches or sizes\n"
                 "a table follows that shows how time grows with the number of pixels.\n");
}

/* "1,2,8": numbers from least to most. */
static int parse_list(const char *text, int64_t least, int64_t most, bench_list *list)
{
    char *end = NULL;
    list->n = 0;
    do {
        long long n = strtoll(text, &end, 10);
        if (end == text || n < least || n > most || list->n == BENCH_MAX_LIST) {
            return -1;
        }
        list->v[list->n++] = n;
        text = end + 1;
    } while (*end == ',');
    return *end ? -1 : 0;
}

static int parse_seconds(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end == text || *end || !(*out >= 0 && *out <= 86400) ? -1 : 0;
}

/* Whether `name` is one of the words of "a,b,c". */
static int listed(const char *list, const char *name, size_t length)
{
    while (list != NULL && *list) {
        size_t word = strcspn(list, ",");
        if (word == length && strncmp(list, name, length) == 0) {
            return 1;
        }
        list += word + (list[word] == ',');
    }
    return 0;
}

static int check_nets(const char *list)
{
    while (*list) {
        size_t word = strcspn(list, ","), i = 0;
        while (model_net_name(i) && (strlen(model_net_name(i)) != word || strncmp(model_net_name(i), list, word))) {
            i++;
        }
        if (model_net_name(i) == NULL) {
            fprintf(stderr, "bench: no network \"%.*s\"\n", (int)word, list);
            return -1;
        }
        list += word + (list[word] == ',');
    }
    return 0;
}

static int parse_option(const char *name, const char *value, bench_options *o)
{
    if (strcmp(name, "--nets") == 0) {
        o->nets = value;
        return check_nets(value);
    }
    if (strcmp(name, "--json") == 0) {
        o->json = value;
        return 0;
    }
    if (strcmp(name, "--threads") == 0) {
        return parse_list(value, 1, 64, &o->threads);
    }
    if (strcmp(name, "--seconds") == 0) {
        return parse_seconds(value, &o->seconds);
    }
    if (strcmp(name, "--batch") == 0) {
        return parse_list(value, 1, 1024, &o->batch);
    }
    return strcmp(name, "--size") == 0 ? parse_list(value, 64, 4096, &o->size) : -1;
}

/* 0 to go on, else the exit status plus one. */
static int parse(int argc, char **argv, bench_options *o)
{
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            usage(stdout);
            return 1;
        }
        if (i + 1 == argc || parse_option(argv[i], argv[i + 1], o)) {
            fprintf(stderr, "bench: %s %s: wrong; see --help\n", argv[i], i + 1 == argc ? "" : argv[i + 1]);
            return 3;
        }
    }
    return 0;
}

/* The i-th of all combinations; threads change fastest. */
static int open_seat(seat *s, const model *models, const bench_options *o, int i)
{
    int threads = i % o->threads.n, batch = i / o->threads.n % o->batch.n, size = i / o->threads.n / o->batch.n;
    return seat_open(s, &models[size], (int)o->threads.v[threads], o->batch.v[batch]);
}

/* All seats of a network take turns; how many were opened, negative after a failure. */
static int race(const model *models, const bench_options *o, seat *seats, int n)
{
    int rounds = 0, failed = 0, open = 0;
    while (!failed && open < n) {
        failed = open_seat(&seats[open], models, o, open) != 0;
        open++;
    }
    double end = bench_now() + o->seconds;
    while (!failed && (rounds < 3 || bench_now() < end)) {
        for (int i = 0; !failed && i < open; i++) {
            failed = seat_round(&seats[i]) != 0;
        }
        rounds++;
    }
    return failed ? -open : open;
}

static int measure_models(const model *models, const bench_options *o, FILE *json, int *first)
{
    int n = o->threads.n * o->batch.n * o->size.n;
    seat *seats = malloc((size_t)n * sizeof *seats);
    if (seats == NULL) {
        fprintf(stderr, "bench: %s: no memory\n", models->name);
        return -1;
    }
    int open = race(models, o, seats, n);
    for (int i = 0; i < open; i++) {
        report_seat(stdout, &seats[i]);
        if (json != NULL) {
            report_json_seat(json, &seats[i], *first);
            *first = 0;
        }
    }
    if (open > o->threads.n) {
        report_growth(stdout, seats, open, o->threads.n);
    }
    for (int i = 0; i < abs(open); i++) {
        seat_close(&seats[i]);
    }
    free(seats);
    return open > 0 ? 0 : -1;
}

static int measure_net(const char *name, const bench_options *o, FILE *json, int *first)
{
    model models[BENCH_MAX_LIST];
    int made = 0, failed = 0;
    while (!failed && made < o->size.n) {
        failed = model_make(&models[made], name, o->size.v[made]) != 0;
        made++;
    }
    if (failed) {
        fprintf(stderr, "bench: %s: no memory\n", name);
    } else {
        failed = measure_models(models, o, json, first) != 0;
    }
    while (made > 0) {
        model_free(&models[--made]);
    }
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    bench_options o = {NULL, NULL, {{1, 2}, 2}, {{1}, 1}, {{224}, 1}, 8};
    int failed = 0, first = 1, parsed = parse(argc, argv, &o);
    FILE *json = NULL;
    if (parsed) {
        return parsed - 1;
    }
    if (o.json != NULL && (json = fopen(o.json, "w")) == NULL) {
        perror(o.json);
        return 1;
    }
    report_head(stdout);
    if (json != NULL) {
        report_json_head(json, &o);
    }
    for (size_t i = 0; model_net_name(i) != NULL; i++) {
        const char *name = model_net_name(i);
        if (o.nets == NULL || listed(o.nets, name, strlen(name))) {
            failed |= measure_net(name, &o, json, &first) != 0;
        }
    }
    if (json != NULL) {
        report_json_tail(json);
        if (fclose(json) != 0) {
            perror(o.json);
            failed = 1;
        }
    }
    return failed ? 1 : 0;
}
