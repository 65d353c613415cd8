/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "out_file.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_SIGNALS = 3 };

/* A handler sees nothing else; the command writes on one thread. */
static volatile sig_atomic_t caught;
static struct sigaction before[N_SIGNALS];
static cli_out *innermost;

static void note(int number)
{
    caught = number;
}

static void hold_signals(void)
{
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = note;
    sigemptyset(&act.sa_mask);
    for (int i = 0; i < N_SIGNALS; i++) {
        sigaction(signals[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN) /* as nohup wants it */
            sigaction(signals[i], &act, NULL);
    }
}

static void let_signals(void)
{
    int number = caught;
    for (int i = 0; i < N_SIGNALS; i++)
        sigaction(signals[i], &before[i], NULL);
    caught = 0;
    if (number)
        raise(number);
}

static void remove_file(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
        remove(path);
}

/* A pipe may stall for ever, so an interrupt does not wait for one. */
static int waits_for(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 || S_ISREG(st.st_mode);
}

static void let_go(const cli_out *o)
{
    innermost = o->outer;
    if (o->holds)
        let_signals();
}

int cli_out_open(cli_out *o, const char *path)
{
    o->path = path;
    o->outer = innermost;
    o->holds = waits_for(path) && !(innermost && innermost->held);
    o->held = o->holds || (innermost && innermost->held);
    if (o->holds)
        hold_signals();
    innermost = o;
    o->f = fopen(path, "wb");
    if (o->f)
        return 0;
    int why = errno;
    let_go(o);
    errno = why;
    return 1;
}

int cli_out_close(cli_out *o, int bad)
{
    bad = ferror(o->f) != 0 || bad;
    bad = fclose(o->f) != 0 || bad;
    if (bad || caught)
        remove_file(o->path);
    if (caught) {
        for (cli_out *i = o->outer; i; i = i->outer)
            remove_file(i->path);
        o->holds = 1;
    }
    let_go(o);
    return bad;
}
