# SPDX-License-Identifier: MIT
"""libgradcam beside other software: the same networks, side by side in one process.

    python3 tests/bench/peers.py --write docs/performance.md      everything, into the page
    python3 tests/bench/peers.py --nets resnet50 --threads 2 --jobs predict gradcam --seconds 10
    python3 tests/bench/peers.py --fresh --nets resnet50          process start to heat map, peak memory
    python3 tests/bench/peers.py --render --write docs/performance.md   from the JSON file alone

How it is kept fair.  Every (network, batch, threads) has a process of its own, in which all jobs are made ready and
then take turns in rounds, in an order that is shuffled every round, so that a noisy moment hits everybody.  A turn is
a short pause, one untimed call and timed calls for a tenth of a second.  Ratios are those of medians over all timed
calls.  All get the same ONNX file (PyTorch and ncnn: the module it was exported from) and the same input; what a job
can do once, it does before.  Results are compared: column "differs" of the JSON.

Rivals are optional: pip install torchvision captum torchcam grad-cam onnxruntime openvino ncnn pnnx.  The networks are
built and exported by PyTorch, torchvision, onnx and onnxscript the first time; pytest is needed for the tests' shim
that lets torchvision run beside a CPU build of PyTorch.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

from peerlib import race, report
from peerlib.case import LAYERS, ROOT, Case
from peerlib.jobs import JOBS

BUILD = ROOT / "build"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=list(LAYERS), default=list(LAYERS), metavar="NET",
                        help=", ".join(LAYERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--jobs", nargs="+", default=[], metavar="JOB",
                        help=f"kinds ({', '.join(JOBS)}), names (ncnn), or both (guided/captum); default all")
    parser.add_argument("--seconds", type=float, default=60, help="of rounds per network, batch and threads")
    parser.add_argument("--rounds", type=int, default=5, help="at least so many")
    parser.add_argument("--fresh", action="store_true", help="time fresh processes instead, --rounds of each")
    parser.add_argument("--render", action="store_true", help="measure nothing, show what the JSON file holds")
    parser.add_argument("--json", type=pathlib.Path, default=BUILD / "peers.json",
                        help="results; those of other networks, batches and threads stay in it")
    parser.add_argument("--table", type=pathlib.Path, help="markdown; default: standard output")
    parser.add_argument("--chart", type=pathlib.Path, help="PNG, by matplotlib")
    parser.add_argument("--write", type=pathlib.Path, metavar="PAGE",
                        help="puts the table between the page's markers, and the chart beside it")
    parser.add_argument("--cache", type=pathlib.Path, default=BUILD / "peers", help="exported networks, 4 GB for all")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    known = {name for kind, row in JOBS.items() for name in (kind, *row, *(f"{kind}/{who}" for who in row))}
    known.add(race.COMMAND)
    unknown = [job for job in options.jobs if job not in known]
    if unknown:
        parser.error(f"no job {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    return options


# ---- one process per case ----


def in_worker(options, task, **more):
    """This program again; `task` goes as JSON."""
    line = [sys.executable, __file__, "--worker", json.dumps(task), "--cache", str(options.cache)]
    return subprocess.run(line, check=True, text=True, **more)


def work(options, task):
    warnings.filterwarnings("ignore")
    case = Case(task["net"], task["threads"], task["batch"], options.cache)
    if "once" in task:
        race.once(case, *task["once"])
    elif "prepare" in task:
        case.prepare()
    else:
        records = race.race(case, task["jobs"], task["rounds"], task["seconds"])
        pathlib.Path(task["out"]).write_text(json.dumps(records))


def measure(options, net, threads, batch):
    """The records of a case: raced, or from fresh processes."""
    task = {"net": net, "threads": threads, "batch": batch}
    if options.fresh:
        case = Case(net, threads, batch, options.cache)
        in_worker(options, task | {"prepare": True})

        def worker(kind, who):
            return in_worker(options, task | {"once": [kind, who]}, capture_output=True).stdout.splitlines()[-1]

        pairs = [("gradcam", race.COMMAND)] + [p for p in race.chosen(net, options.jobs) if p[0] == "gradcam"]
        return [race.fresh(case, pair, options.rounds, worker, BUILD / "gradcam") for pair in pairs]
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        in_worker(options, task | {"jobs": options.jobs, "rounds": options.rounds, "seconds": options.seconds,
                                   "out": out.name})
        return json.loads(pathlib.Path(out.name).read_text())


def key(record):
    """What a new result replaces."""
    return record["net"], record["threads"], record["batch"], record["kind"], record["who"]


def measure_all(options):
    old = json.loads(options.json.read_text())["records"] if options.json.exists() else []
    records, failed = {key(r): r for r in old}, 0
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for net in options.nets:
        for batch in options.batch:
            for threads in options.threads:
                try:
                    new = measure(options, net, threads, batch)
                except subprocess.CalledProcessError as error:
                    print(f"{net}, batch {batch}, {threads} threads: the process failed with {error.returncode}",
                          file=sys.stderr)
                    failed = 1
                    continue
                report.show(new)
                records.update((key(r), r) for r in new)
                data = {"machine": report.machine(), "versions": report.versions(), "load": os.getloadavg()[2],
                        "records": list(records.values())}
                options.json.write_text(json.dumps(data, indent=1) + "\n")
    return failed


def main():
    options = parse()
    if options.worker:
        return work(options, json.loads(options.worker))
    failed = 0 if options.render else measure_all(options)
    data = json.loads(options.json.read_text())
    chart = options.chart
    if options.write:
        chart = chart or options.write.with_suffix(".png")
        report.write(options.write, report.markdown(data, chart.name))
    elif options.table:
        options.table.write_text(report.markdown(data, chart and chart.name))
    else:
        print(report.markdown(data, chart and chart.name))
    if chart:
        report.draw(data, chart)
    return failed


if __name__ == "__main__":
    sys.exit(main())
