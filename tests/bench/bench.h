/* SPDX-License-Identifier: MIT */
#ifndef GRADCAM_BENCH_BENCH_H
#define GRADCAM_BENCH_BENCH_H

#include <pthread.h>
#include <stdio.h>

#include "model.h"

enum { BENCH_MAX_LIST = 8 };

typedef struct bench_list {
    int64_t v[BENCH_MAX_LIST];
    int n;
} bench_list;

typedef struct bench_options {
    const char *nets; /* "a,b" or NULL for all */
    const char *json; /* file or NULL */
    bench_list threads, batch, size;
    double seconds; /* per network */
} bench_options;

typedef struct samples {
    double *data;
    size_t count, cap;
} samples;

int samples_add(samples *s, double value); /* -1 without memory */
double samples_median(samples *s);         /* sorts */
double samples_min(const samples *s);

/* Bytes in use by a library that was given this allocator, and the most there
   were; weights lent to it count as long as it holds them. */
typedef struct meter {
    pthread_mutex_t lock;
    int64_t live, peak;
} meter;

enum { JOB_FORWARD, JOB_GRADCAM, JOB_GUIDED, JOB_SWEEP, JOB_COUNT };

typedef struct job {
    const char *name;
    gc_run *run;
    gc_tensor *into; /* the map, made once */
    double gflop;    /* what it must compute */
    double first_ms; /* new network, prepare and first call */
    int64_t peak, arena;
    samples ms;
} job;

/* One network at one size and batch, on one number of threads. */
typedef struct seat {
    const model *model;
    int threads;
    int64_t batch;
    meter meter;
    model_lent lent;
    gc_ctx *ctx;
    gc_net *net;
    gc_tensor *image;
    const char **layers; /* of the sweep */
    gc_tensor **maps;
    size_t n_layers;
    char layer[MODEL_NAME]; /* of Grad-CAM, as the library chose it */
    double prepare_ms;
    float largest; /* output */
    job jobs[JOB_COUNT];
    samples peak; /* FMA GFLOP/s, interleaved with the jobs */
} seat;

double bench_now(void);
/* Prints what the library said; returns -1. */
int bench_refuse(const char *what, gc_status status, const gc_error *err);

/* seat_open measures the cold figures; -1 after a message. */
int seat_open(seat *s, const model *m, int threads, int64_t batch);
/* One round: the FMA peak, then every job in turn. */
int seat_round(seat *s);
void seat_close(seat *s);

void report_head(FILE *out);
void report_seat(FILE *out, seat *s);
/* Time per pixel of each seat, in units of that of the first one with as many
   threads; seats go by threads, `n_threads` of them. */
void report_growth(FILE *out, seat *seats, int n, int n_threads);
void report_json_head(FILE *out, const bench_options *o);
void report_json_seat(FILE *out, seat *s, int first);
void report_json_tail(FILE *out);

#endif
