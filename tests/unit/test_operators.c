/* SPDX-License-Identifier: MIT */
/* The registry against itself and against docs/operators.tsv, and the page
   docs/operators.md that is made of the two:
       test_operators --write > docs/operators.md */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op.h"

enum { LINE = 512, OPS_MOST = 1000 };

typedef struct tally {
    int passed, failed;
} tally;

static void expect(tally *t, int ok, const char *what, const char *name)
{
    t->passed += ok != 0;
    t->failed += ok == 0;
    if (!ok) {
        printf("FAILED: %s: %s\n", name, what);
    }
}

/* ---- rows ---- */

static void check_row(tally *t, const gc_op *op)
{
    bool stops = (op->flags & GC_OP_STOPS) != 0, planned = (op->flags & GC_OP_PLANNED) != 0;
    bool picks = planned || (op->flags & GC_OP_SELECT) != 0;
    expect(t, planned || (op->infer != NULL && op->forward != NULL), "infer and forward", op->name);
    expect(t, picks || stops == (op->backward == NULL), "either a backward function or GC_OP_STOPS", op->name);
    expect(t, op->max_in < 0 || op->min_in <= op->max_in, "min_in <= max_in", op->name);
    expect(t, op->max_out == -1 || op->max_out > 0, "outputs", op->name);
    expect(t, op->backward != NULL || (op->keep_in | op->keep_out) == 0, "keeps without backward", op->name);
    expect(t, (op->flags & GC_OP_CL) == 0 || (op->flags & GC_OP_SAME) == 0, "one rule of layout", op->name);
    expect(t, gc_op_find(op->name) == op, "a second row of that name", op->name);
}

/* ---- the page ---- */

static const char *gradient(const gc_op *op)
{
    if ((op->flags & GC_OP_PLANNED) != 0 && (op->flags & GC_OP_STOPS) == 0) {
        return op->max_out < 0 ? "of the body" : "of the items";
    }
    return op->backward != NULL ? "yes" : (op->flags & GC_OP_SELECT) != 0 ? "of the branch" : "none by nature";
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const gc_op *const *)a)->name, (*(const gc_op *const *)b)->name);
}

static int sorted_registry(const gc_op **ops)
{
    int n = 0;
    while (n < OPS_MOST && (ops[n] = gc_op_at(n)) != NULL) {
        n++;
    }
    qsort(ops, (size_t)n, sizeof *ops, by_name);
    return n;
}

static void head(FILE *out, int n)
{
    fprintf(out,
            "<!-- made by `make docs-operators` of the registry and operators.tsv -->\n"
            "# Operators\n\n"
            "%d operators of ONNX (domain `ai.onnx`), opset 6 and later, and those of older opsets that did not\n"
            "change until 6; other domains are for operators that the host registers (`gc_ctx_register_op`).\n\n"
            "- *Versions*: the opsets in which the operator changed and whose rules are followed; a model of\n"
            "  another opset uses the version before it.\n"
            "- *Types* of the data inputs: float is float32, to which float16, bfloat16 and float64 are\n"
            "  converted; number is float, int64, int32 and uint8; any has bool, too. Other integers are\n"
            "  widened.\n"
            "- *Gradient*: \"none by nature\" means that it is zero, and no error.\n"
            "- *Guided*: the rules of guided backpropagation and deconvnet apply.\n"
            "- \"Constant\" includes everything that follows from constants and from the shapes of the inputs,\n"
            "  and the numbers in small and in integer inputs.\n\n"
            "| operator | versions | types | gradient | guided | restrictions |\n"
            "|---|---|---|---|---|---|\n",
            n);
}

/* Splits the line at tabs; the number of fields. */
static int fields_of(char *line, char **fields, int most)
{
    int n = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; n < most; at++) {
        fields[n++] = at;
        at += strcspn(at, "\t");
        if (*at == '\0') {
            break;
        }
        *at = '\0';
    }
    return n;
}

/* The page, from operators.tsv, whose lines are in the order of names. */
static void write_page(tally *t, FILE *tsv, FILE *out)
{
    static const gc_op *ops[OPS_MOST + 1];
    int n = sorted_registry(ops), k = 0;
    char line[LINE], *field[4];
    head(out, n);
    while (fgets(line, sizeof line, tsv) != NULL) {
        if (line[0] == '#') {
            continue;
        }
        bool whole = fields_of(line, field, 4) == 4;
        expect(t, whole, "four fields in docs/operators.tsv", line);
        if (!whole || k == n || strcmp(ops[k]->name, field[0]) != 0) {
            expect(t, 0, "docs/operators.tsv does not list exactly the registry, in order",
                   k < n ? ops[k]->name : line);
            return;
        }
        fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", field[0], field[1], field[2], gradient(ops[k]),
                (ops[k]->flags & GC_OP_ACTIVATION) != 0 ? "yes" : "", field[3]);
        k++;
    }
    expect(t, k == n, "no line in docs/operators.tsv", k < n ? ops[k]->name : "");
}

/* The page as it would be made now is the page as it is. */
static void check_page(tally *t, FILE *tsv)
{
    FILE *made = tmpfile(), *kept = fopen("docs/operators.md", "rb");
    int same = made != NULL && kept != NULL, a, b;
    if (same) {
        write_page(t, tsv, made);
        rewind(made);
        do {
            a = getc(made);
            b = getc(kept);
            same = same && a == b;
        } while (same && a != EOF);
    }
    expect(t, same, "is not current; run make docs-operators", "docs/operators.md");
    if (made != NULL) {
        (void)fclose(made);
    }
    if (kept != NULL) {
        (void)fclose(kept);
    }
}

int main(int argc, char **argv)
{
    tally t = {0, 0};
    const gc_op *op;
    FILE *tsv = fopen("docs/operators.tsv", "rb");
    if (tsv == NULL) {
        printf("skipped: run in the project's folder\n0 passed, 0 failed, 1 skipped\n");
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--write") == 0) {
        write_page(&t, tsv, stdout);
        (void)fclose(tsv);
        return t.failed != 0;
    }
    for (int32_t k = 0; (op = gc_op_at(k)) != NULL; k++) {
        check_row(&t, op);
    }
    check_page(&t, tsv);
    (void)fclose(tsv);
    printf("%d passed, %d failed, 0 skipped\n", t.passed, t.failed);
    return t.failed != 0;
}
