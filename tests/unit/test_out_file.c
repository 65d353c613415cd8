/* SPDX-License-Identifier: MIT */
/* The command's files are written whole or not at all, and nothing that is no
 * regular file is ever removed.
 * Usage: test_out_file DIRECTORY-FOR-TEMPORARY-FILES */
#define _POSIX_C_SOURCE 200809L
#include "../../src/cli/out_file.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct tally {
    int passed, failed;
    char path[1024], other[1024];
} tally;

static void check(tally *t, int ok, const char *what)
{
    t->passed += ok != 0;
    t->failed += ok == 0;
    if (!ok)
        printf("FAIL: %s\n", what);
}

static int there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void test_bad(tally *t)
{
    cli_out o;
    check(t, !cli_out_open(&o, t->path) && fputs("whole", o.f) >= 0 && !cli_out_close(&o, 0) && there(t->path),
          "a file that was written stays");
    check(t, !cli_out_open(&o, t->path) && cli_out_close(&o, 1) && !there(t->path), "an unfinished file is removed");
    check(t, cli_out_open(&o, "") && !o.f, "no name, no file");
}

/* The link and the pipe stand for devices, which a test has no right to risk. */
static void test_not_ours(tally *t)
{
    cli_out o;
    remove(t->other);
    check(t, symlink("/dev/null", t->other) == 0, "a link can be made");
    check(t, !cli_out_open(&o, t->other) && cli_out_close(&o, 1) && there(t->other), "a link is not removed");
    remove(t->other);
    remove(t->path);
    check(t, mkfifo(t->path, 0600) == 0, "a pipe can be made");
    FILE *keep = fopen(t->path, "rb+"); /* so that opening for writing finds a reader */
    check(t, keep && !cli_out_open(&o, t->path) && cli_out_close(&o, 1) && there(t->path), "a pipe is not removed");
    if (keep)
        fclose(keep);
    remove(t->path);
}

/* In a child: two files open, the inner one interrupted. Returns the signal that
 * ended it, 0 if it lived. */
static int interrupted(const tally *t, int number, int ignored)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        cli_out outer, inner;
        signal(number, ignored ? SIG_IGN : SIG_DFL);
        if (cli_out_open(&outer, t->other) || cli_out_open(&inner, t->path))
            _exit(1);
        fputs("half", inner.f);
        raise(number);
        raise(number); /* wrappers such as timeout send it twice */
        fputs("whole", inner.f);
        int bad = cli_out_close(&inner, 0) || cli_out_close(&outer, 0);
        _exit(bad);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) ? -1 : 0;
}

static void test_interrupt(tally *t)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (int i = 0; i < 3; i++) {
        remove(t->path), remove(t->other);
        check(t, interrupted(t, signals[i], 0) == signals[i], "the signal ends the process");
        check(t, !there(t->path) && !there(t->other), "and leaves no file");
        check(t, interrupted(t, signals[i], 1) == 0 && there(t->path) && there(t->other),
              "one that is ignored does not");
    }
    remove(t->path), remove(t->other);
}

int main(int argc, char **argv)
{
    static tally t;
    if (argc < 2 || strlen(argv[1]) > 900) {
        puts("usage: test_out_file DIRECTORY");
        return 1;
    }
    snprintf(t.path, sizeof t.path, "%s/test_out_file.tmp", argv[1]);
    snprintf(t.other, sizeof t.other, "%s/test_out_file.2.tmp", argv[1]);
    remove(t.path), remove(t.other);
    test_bad(&t);
    test_not_ours(&t);
    test_interrupt(&t);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
