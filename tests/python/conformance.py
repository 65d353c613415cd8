#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The ONNX project's node tests and the zoo, held against a checked-in list.

Every test must pass except those that conformance.tsv names with what happens
to them instead (refused or failed) and why.  A test that passed before and does
not now is a loss, and the run fails; a test of the list that passes now is
reported and taken off the list by --update, which never adds a line to an
existing list.  Each test runs in a worker process: a crash or a hang costs that
test alone.
"""

import argparse
import collections
import csv
import io
import multiprocessing as mp
import os
import pathlib
import signal
import sys
import tarfile
import tempfile
import time
from multiprocessing.connection import wait

LIST = pathlib.Path(__file__).with_suffix(".tsv")
SECONDS = 120  # for one test; the largest networks need a few
HEAD = "# group\ttest\tpart\tstate\treason: tests that do not pass; written by conformance.py --update\n"
NO_GRADIENT, UNSUPPORTED = -10, -5
# Relative and absolute bound by the type of the expected output: ONNX's own runner
# takes 1e-3; the absolute part covers sums, the half types their rounding.
BOUNDS = {"float16": (4e-3, 1e-3), "bfloat16": (3e-2, 1e-2), "float32": (1e-3, 1e-5), "float64": (1e-3, 1e-5)}

Job = collections.namedtuple("Job", "suite group test gradient inputs parameters sets note")
Result = collections.namedtuple("Result", "group test part suite state reason")


def skip(reason):
    print(f"skipped: {reason}\n0 passed, 0 failed, 1 skipped")
    sys.exit(0)


def load_modules():
    global np, onnx, gradcam, goldens
    try:
        import numpy as np
        import onnx
    except ImportError as missing:
        skip(f"conformance needs {missing.name}")
    import goldens
    gradcam = goldens.gradcam


# ---- what there is to run ----

def read_archive(path):
    """Every file of the archive in memory: {path below the top folder: bytes}."""
    with tarfile.open(path) as archive:
        return {member.name.split("/", 1)[1]: archive.extractfile(member).read()
                for member in archive if member.isfile()}


def numbers(text):
    return [int(word) for word in text.replace(",", " ").split()]


def node_jobs(index):
    suites = {"core": "tier {tier}", "f16/bf16/f64": "types"}
    for row in csv.DictReader(io.StringIO(index), delimiter="\t"):
        if row["group"] == "light":
            yield Job("light", "light", row["test"].removesuffix(".onnx"), False, [], [], 1, "")
        elif row["class"] in suites:
            yield Job(suites[row["class"]].format(**row), row["group"], row["test"], row["grad"] == "ok",
                      numbers(row["grad_inputs"]), numbers(row["param_inputs"]), int(row["sets"]), row["note"])


def operators(index):
    return {(row["group"], row["test"]): {op.split("@")[0] for op in row["ops"].replace(",", " ").split()}
            for row in csv.DictReader(io.StringIO(index), delimiter="\t")}


# ---- one test ----

def difference(got, want):
    """What is wrong with an output, or None."""
    name = want.dtype.name
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    if name not in BOUNDS:
        if got.dtype != want.dtype:
            return f"type {got.dtype}, expected {want.dtype}"
        return None if np.array_equal(got, want) else "integers differ"
    if got.dtype.kind != "f":
        return f"type {got.dtype}, expected a floating one"
    rtol, atol = BOUNDS[name]
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, as in the library
        got, want = got.astype(np.float64), want.astype(np.float32).astype(np.float64)
    if np.allclose(got, want, rtol, atol, equal_nan=True):
        return None
    return f"differs by {np.nanmax(np.abs(got - want)):.1e}, the largest value is {np.nanmax(np.abs(want)):.1e}"


def bindable(array):
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def bind(run, names, files, folder):
    for k, name in enumerate(names):
        data = files.get(f"{folder}/input_{k}.pb")
        if data is not None and name in run.net.inputs:
            run.set_input(name, bindable(goldens.parse(data)))


def compare_outputs(run, files, folder):
    for k, name in enumerate(run.net.outputs):
        data = files.get(f"{folder}/output_{k}.pb")
        wrong = None if data is None else difference(run.value(name), goldens.parse(data))
        if wrong:
            return "failed", f"output {name}: {wrong}"
    return "passed", ""


def gradients(run, names, files, folder):
    """sum_k J_k^T dy_k for each of the named inputs; zero where nothing arrives."""
    total = dict.fromkeys(names, 0.0)
    for k, output in enumerate(run.net.outputs):
        data = files.get(f"{folder}/dy_{k}.pb")
        if data is None:
            continue
        run.backward(output, bindable(goldens.parse(data)).reshape(run.value(output).shape))  # scalars came as [1]
        for name in names:
            try:
                total[name] = total[name] + run.gradient(name).astype(np.float64)
            except gradcam.GradcamError as error:
                if error.status != NO_GRADIENT:
                    raise
    return total


def compare_gradients(run, names, job, files, folder):
    wanted = {names[j]: files[f"{folder}/dx_{j}.pb"] for j in job.inputs if names[j] in watched(job, names, run.net)}
    for name, got in gradients(run, list(wanted), files, folder).items():
        want = goldens.parse(wanted[name]).astype(np.float64)
        error = np.abs(np.broadcast_to(got, want.shape) - want).max(initial=0)
        if not error <= 1e-6 + 1e-4 * np.abs(want).max(initial=0):
            return "failed", f"gradient of {name} differs by {error:.1e} of {np.abs(want).max():.1e}"
    return "passed", ""


def watched(job, names, net):
    return [names[j] for j in job.inputs if j not in job.parameters and names[j] in net.inputs]


def judged(action, *arguments):
    """(state, reason) of an action that may raise the library's error."""
    try:
        return action(*arguments)
    except gradcam.GradcamError as error:
        refused = error.status in (UNSUPPORTED, NO_GRADIENT)
        return "refused" if refused else "failed", str(error)


def forward(run, job, names, files, base):
    for k in range(job.sets):
        folder = f"{base}/test_data_set_{k}"
        bind(run, names, files, folder)
        run.forward()
        state, reason = compare_outputs(run, files, folder)
        if state != "passed":
            return state, reason
    return "passed", ""


def backward(net, job, names, files, base):
    with gradcam.Run(net) as run:
        for name in watched(job, names, net):
            run.watch(name, gradcam.WATCH_GRAD)
        bind(run, names, files, f"{base}/test_data_set_0")
        run.forward()
        return compare_gradients(run, names, job, files, f"{base}/grad_data_set_0")


def node_test(job, files):
    base = f"{job.group}/{job.test}"
    data = files[f"{base}/model.onnx"]
    names = [value.name for value in onnx.load_model_from_string(data).graph.input]
    results = {}
    try:
        net = gradcam.Net(data)
    except gradcam.GradcamError as error:
        state = "refused" if error.status == UNSUPPORTED else "failed"
        results["forward"] = results["gradient"] = (state, str(error))
    else:
        with gradcam.Run(net) as run:
            results["forward"] = judged(forward, run, job, names, files, base)
        if job.gradient:
            results["gradient"] = judged(backward, net, job, names, files, base)
    return {part: results[part] for part in (["forward", "gradient"] if job.gradient else ["forward"])}


def light_forward(job, files):
    data = files[f"light/{job.test}.onnx"]
    net = gradcam.Net(data)
    graph = onnx.load_model_from_string(data).graph
    with gradcam.Run(net) as run:
        for value in graph.input:
            if value.name in net.inputs:
                shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
                n = int(np.prod(shape))
                run.set_input(value.name, (np.arange(n, dtype=np.float32) / np.float32(n)).reshape(shape))
        run.forward()
        wrong = difference(run.value(net.outputs[0]), goldens.parse(files[f"light/{job.test}_output_0.pb"]))
    return ("failed", wrong) if wrong else ("passed", "")


def zoo_test(job, folder):
    try:
        goldens.check_export(pathlib.Path(folder) / "zoo" / job.test)
    except AssertionError as wrong:
        return "failed", str(wrong)
    return "passed", ""


def run_job(job, files, folder):
    if job.suite == "zoo":
        return {"forward": judged(zoo_test, job, folder)}
    return {"forward": judged(light_forward, job, files)} if job.suite == "light" else node_test(job, files)


# ---- workers ----

def work(pipe, jobs, files, folder):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while (k := pipe.recv()) is not None:
        try:
            pipe.send(run_job(jobs[k], files, folder))
        except Exception as error:  # a defect of the harness or the binding: this test fails, the others go on
            pipe.send({"forward": ("failed", f"{type(error).__name__}: {error}")})


class Worker:
    """A process and what it is doing."""

    def __init__(self, context, arguments):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.job, self.since = None, 0.0

    def give(self, job):
        self.job, self.since = job, time.monotonic()
        self.pipe.send(job)

    def take(self):
        """The result, or what the end of the process says."""
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            return {"forward": ("failed", f"signal {-code}" if code < 0 else f"exit {code}")}

    def end(self):
        self.process.kill()
        self.process.join()


def spread(jobs, files, folder, count):
    """Yields (job, results) as they come."""
    context = mp.get_context("fork")  # the files in memory are shared, not sent
    waiting = list(range(len(jobs)))[::-1]
    workers = []
    while waiting or workers:
        while waiting and len(workers) < count:
            workers.append(Worker(context, (jobs, files, folder)))
            workers[-1].give(waiting.pop())
        ready = wait([w.pipe for w in workers], timeout=1)
        for worker in list(workers):
            late = time.monotonic() - worker.since > SECONDS
            if worker.pipe not in ready and not late:
                continue
            done = worker.take() if worker.pipe in ready else {"forward": ("failed", f"more than {SECONDS} s")}
            yield jobs[worker.job], done
            if waiting and worker.process.is_alive() and not late:
                worker.give(waiting.pop())
            else:
                worker.end()
                workers.remove(worker)


# ---- the list and the report ----

def read_list():
    if not LIST.exists():
        return None
    rows = csv.reader((line for line in LIST.open() if not line.startswith("#")), delimiter="\t",
                      quoting=csv.QUOTE_NONE)
    return {tuple(row[:3]): tuple(row[3:]) for row in rows}


def write_list(entries):
    with LIST.open("w") as out:
        out.write(HEAD)
        for key in sorted(entries):
            out.write("\t".join([*key, *entries[key]]) + "\n")


def label(result):
    return result.suite + (" gradients" if result.part == "gradient" else "")


def report(results):
    counts = collections.defaultdict(collections.Counter)
    for result in results:
        counts[label(result)][result.state] += 1
    for name in sorted(counts, key=lambda name: (name.endswith("gradients"), name[0] != "t", name)):
        states = ["passed", "refused", "failed"] + ["disputed"] * (counts[name]["disputed"] > 0)
        print(f"{name}: " + ", ".join(f"{counts[name][state]} {state}" for state in states))


def judge(results, listed):
    """Losses, and tests of the list that pass now."""
    losses, gains = [], []
    for result in results:
        expected = listed.get(result[:3], ("passed",))[0]
        if result.state == "passed" and expected != "passed":
            gains.append(result)
        elif result.state != "passed" and (expected == "passed" or (expected != "failed" and result.state == "failed")):
            losses.append(result)
    return losses, gains


def collect(jobs, files, folder, count):
    results = []
    for job, parts in spread(jobs, files, folder, count):
        if job.gradient and "gradient" not in parts:  # it died on the way
            parts["gradient"] = parts["forward"]
        for part, (state, reason) in parts.items():
            if state == "failed" and job.note.startswith("disputed"):  # by the index of the tests
                state, reason = "disputed", job.note
            text = " ".join(reason.split())[:120]
            results.append(Result(job.group, job.test, part, job.suite, state, text))
    return sorted(results)


def all_jobs(options, files, folder):
    index = files["INDEX.tsv"].decode()
    jobs = sorted(node_jobs(index), key=lambda job: job.suite != "light")  # the long ones first
    if goldens.ZOO.exists():
        with tarfile.open(goldens.ZOO) as archive:
            archive.extractall(folder, filter="data")
        jobs += [Job("zoo", "zoo", path.name, False, [], [], 1, "")
                 for path in sorted((pathlib.Path(folder) / "zoo").iterdir()) if path.is_dir()]
    if options.only:
        jobs = [job for job in jobs if options.only in f"{job.group}/{job.test}"]
    if options.op:
        used = operators(index)
        jobs = [job for job in jobs if options.op in used.get((job.group, job.test), ())]
    return jobs


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="SUBSTRING", help="tests whose group/name holds this")
    parser.add_argument("--op", metavar="NAME", help="tests that use this operator")
    parser.add_argument("--list", choices=["passed", "refused", "failed", "disputed"],
                        help="name the tests in this state")
    parser.add_argument("--update", action="store_true", help="take tests that pass now off the list")
    parser.add_argument("--tolerate-new", action="store_true", help="tests that pass and are listed are no error")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def settle(results, listed, options):
    """Compares with the list, updates it if asked; the number of failures."""
    if listed is None:
        listed = {r[:3]: (r.state, r.reason) for r in results if r.state != "passed"}
        if options.update:
            write_list(listed)
    losses, gains = judge(results, listed)
    for r in losses:
        print(f"lost: {r.group}/{r.test} {r.part}: {r.state}: {r.reason}")
    if options.update and gains:
        write_list({key: value for key, value in listed.items() if key not in {r[:3] for r in gains}})
        print(f"{len(gains)} tests that pass now were taken off the list")
    elif gains:
        for r in gains[:20]:
            print(f"new: {r.group}/{r.test} {r.part} passes and is listed as {listed[r[:3]][0]}")
        print(f"{len(gains)} tests of the list pass now: run conformance.py --update and commit conformance.tsv")
    return len(losses) + (0 if options.tolerate_new or options.update else len(gains))


def main():
    options = arguments()
    load_modules()
    archive = goldens.SHARED / "onnx" / "node-tests.tar.xz"
    if not archive.exists():
        skip("the ONNX node tests are not beside the project")
    os.nice(5)
    files = read_archive(archive)
    with tempfile.TemporaryDirectory() as folder:
        results = collect(all_jobs(options, files, folder), files, folder, options.jobs)
    if options.list:
        for r in results:
            if r.state == options.list:
                print(f"{r.group}/{r.test}\t{r.part}\t{r.reason}")
    report(results)
    failed = settle(results, read_list(), options)
    print(f"{len(results) - failed} passed, {failed} failed, 0 skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
