/* SPDX-License-Identifier: MIT */
#include "cmd_photo.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LABELS_FILE = 16 * 1024 * 1024 };

/* The whole file with a NUL, or NULL. */
static char *read_text(FILE *f)
{
    size_t size = 0, room = 4096;
    char *text = malloc(room + 1);
    while (text) {
        size += fread(text + size, 1, room - size, f);
        if (size < room)
            break;
        room *= 2;
        char *grown = room <= MAX_LABELS_FILE ? realloc(text, room + 1) : NULL;
        if (!grown)
            free(text);
        text = grown;
    }
    if (text)
        text[size] = 0;
    return text;
}

/* Past a WordNet number such as "n01440764 ". */
static char *skip_wordnet(char *s)
{
    size_t digits = *s == 'n' ? strspn(s + 1, "0123456789") : 0;
    return digits == 8 && s[9] == ' ' ? s + 10 : s;
}

static int split_lines(struct cli_labels *labels)
{
    size_t n = 1;
    for (char *p = labels->text; *p; p++)
        n += *p == '\n';
    labels->line = malloc(n * sizeof *labels->line);
    if (!labels->line)
        return cli_fail_memory();
    for (char *p = labels->text; *p;) {
        size_t length = strcspn(p, "\n");
        int last = !p[length];
        p[length] = 0;
        if (length && p[length - 1] == '\r')
            p[length - 1] = 0;
        labels->line[labels->count++] = skip_wordnet(p);
        p += length + (last ? 0 : 1);
    }
    return CLI_OK;
}

int cli_labels_load(struct cli_labels *labels, const char *path)
{
    memset(labels, 0, sizeof *labels);
    if (!path)
        return CLI_OK;
    FILE *f = fopen(path, "rb");
    if (!f)
        return cli_fail("%s: %s", path, strerror(errno));
    labels->text = read_text(f);
    int bad = ferror(f);
    fclose(f);
    if (bad || !labels->text)
        return cli_fail("%s: cannot read as labels", path);
    return split_lines(labels);
}

void cli_labels_free(struct cli_labels *labels)
{
    free(labels->text);
    free(labels->line);
    memset(labels, 0, sizeof *labels);
}

void cli_labels_compare(const struct cli_labels *labels, const char *path, int64_t classes)
{
    size_t n = labels->count;
    while (n > 0 && labels->line[n - 1][0] == 0)
        n--;
    if (n > 0 && (int64_t)n != classes)
        fprintf(stderr, "gradcam: note: %s names %zu classes, the network has %lld; the names may be wrong\n", path, n,
                (long long)classes);
}

const char *cli_labels_name(const struct cli_labels *labels, int64_t index)
{
    return index >= 0 && (uint64_t)index < labels->count ? labels->line[index] : NULL;
}

static int same_text(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tolower((unsigned char)a[i]) != tolower((unsigned char)b[i]))
            return 0;
    return 1;
}

static int has_name(const char *label, const char *want)
{
    size_t n = strlen(want);
    if (strlen(label) == n && same_text(label, want, n))
        return 1;
    for (const char *p = label; *p;) {
        size_t length = strcspn(p, ",");
        if (length == n && same_text(p, want, n))
            return 1;
        p += length;
        p += strspn(p, ", ");
    }
    return 0;
}

int cli_labels_target(const struct cli_labels *labels, const char *text, int64_t *index)
{
    if (cli_parse_int(text, 0, INT64_MAX, index))
        return CLI_OK;
    for (size_t i = 0; i < labels->count; i++)
        if (has_name(labels->line[i], text)) {
            *index = (int64_t)i;
            return CLI_OK;
        }
    return cli_fail(labels->count ? "--target %s: no such label"
                                  : "--target %s: wants the number of a class, from 0 on, or --labels FILE for names",
                    text);
}
