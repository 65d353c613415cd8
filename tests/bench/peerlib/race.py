# SPDX-License-Identifier: MIT
"""Jobs of one network take turns in one process; and jobs in fresh processes of their own."""

import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

from .case import RELU_NETS, differs
from .jobs import JOBS, OURS, OURS_HALF

PAUSE = 0.05  # s before a turn: idle worker threads of the job before spin for a while
TURN = 0.1    # s of timed calls in a turn, one call at least
LONG = 400    # ms; a call that long needs no untimed one to warm the caches
REFERENCE = {"gradcam": "PyTorch autograd", "guided": "PyTorch autograd", "masked": "pytorch-grad-cam",
             "ablated": "pytorch-grad-cam"}


def chosen(net, patterns):
    """(kind, who) of the jobs that make sense for a network and match a pattern ("gradcam", "ncnn", "guided/captum")."""
    pairs = [(kind, who) for kind, row in JOBS.items() for who in row
             if kind != "guided" or net in RELU_NETS or who in (OURS, OURS_HALF)]
    return [(kind, who) for kind, who in pairs
            if not patterns or any(p in (kind, who, f"{kind}/{who}") for p in patterns)]


def expected(case, kind, runs):
    """What the result should be, or None."""
    if kind == "predict":
        return case.logits
    reference = runs.get((kind, REFERENCE.get(kind)))
    return None if reference is None else reference()


def first_line(error):
    """What went wrong, in one line; our own ValueErrors speak for themselves."""
    text = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:120]


def set_up(case, pair):
    """Makes a job ready and calls it once: its record, the function (None: cannot), the result."""
    kind, who = pair
    record = {"net": case.net, "threads": case.threads, "batch": case.batch, "kind": kind, "who": who}
    start = time.perf_counter()
    try:
        run = JOBS[kind][who](case)
        result = run()
    except ModuleNotFoundError as error:
        return record | {"absent": f"{(error.name or who).split('.')[0]} is not installed"}, None, None
    except Exception as error:  # what a rival cannot do is a result
        return record | {"error": first_line(error)}, None, None
    record["first_ms"] = round((time.perf_counter() - start) * 1e3, 2)
    if hasattr(run, "note"):
        record["note"] = str(run.note)
    return record, run, result


def take_turn(run, last_ms):
    """Milliseconds of the timed calls."""
    time.sleep(PAUSE)
    if last_ms < LONG:
        run()
    calls, begin = [], time.perf_counter()
    while not calls or time.perf_counter() - begin < TURN:
        start = time.perf_counter()
        run()
        calls.append((time.perf_counter() - start) * 1e3)
    return calls


def take_turns(runs, records, rounds, seconds):
    """Rounds in which every job has one turn, in an order that chance decides anew."""
    times, order = {pair: [] for pair in runs}, random.Random(1)
    end, done = time.monotonic() + seconds, 0
    while done < rounds or time.monotonic() < end:
        for pair in order.sample(list(runs), len(runs)):
            last = times[pair][-1] if times[pair] else records[pair]["first_ms"]
            times[pair] += take_turn(runs[pair], last)
        done += 1
    for pair, calls in times.items():
        records[pair] |= {"median_ms": round(statistics.median(calls), 4), "min_ms": round(min(calls), 4),
                          "calls": len(calls), "rounds": done}


def race(case, patterns, rounds, seconds):
    """All records of a case."""
    case.prepare()
    records, runs, results = {}, {}, {}
    for pair in chosen(case.net, patterns):
        records[pair], run, results[pair] = set_up(case, pair)
        if run is not None:
            runs[pair] = run
    for pair in runs:
        right = expected(case, pair[0], runs)
        if right is not None:
            records[pair]["differs"] = float(f"{differs(results[pair], right):.1e}")
    take_turns(runs, records, rounds, seconds)
    return list(records.values())


# ---- fresh processes: from start to result, and the most memory ----

COMMAND = "libgradcam command"


def once(case, kind, who):
    """In a process of its own: prints when the result was there, and the peak of the resident set.

    The peak is VmHWM, as ru_maxrss would begin with the parent's.
    """
    JOBS[kind][who](case)()
    ready = time.time()
    status = pathlib.Path("/proc/self/status").read_text()
    print(json.dumps({"ready": ready, "peak_mib": int(status.split("VmHWM:")[1].split()[0]) / 1024}))


def command_once(case, program):
    """The same by the gradcam command, timed to its end."""
    line = [str(program), "explain", case.path("net.onnx"), "--input", case.path("input.npy"), "--layer", case.layer,
            "--raw", case.path("map.npy"), "--threads", str(case.threads)]
    read, write = os.pipe()
    # A process in between: ru_maxrss of its children is the command's own.
    watch = ("import os, resource, subprocess, sys\n"
             "subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL)\n"
             "os.write(int(sys.argv[1]), b'%d' % resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n")
    start = time.time()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    seconds = time.time() - start
    subprocess.run([sys.executable, "-c", watch, str(write), *line], check=True, pass_fds=[write])
    peak = int(os.read(read, 64)) / 1024
    os.close(read)
    os.close(write)
    return seconds, peak


def fresh(case, pair, rounds, worker, program):
    """The record of a job that starts anew each time; worker(kind, who) runs `once` and returns its line."""
    kind, who = pair
    record = {"net": case.net, "threads": case.threads, "batch": case.batch, "kind": "fresh " + kind, "who": who}
    seconds, peaks = [], []
    try:
        for _ in range(rounds):
            if who == COMMAND:
                took, peak = command_once(case, program)
            else:
                start = time.time()
                line = json.loads(worker(kind, who))
                took, peak = line["ready"] - start, line["peak_mib"]
            seconds.append(took)
            peaks.append(peak)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        return record | {"error": first_line(error)}
    return record | {"median_ms": round(statistics.median(seconds) * 1e3, 1), "min_ms": round(min(seconds) * 1e3, 1),
                     "peak_mib": round(statistics.median(peaks), 1), "rounds": rounds}
