# SPDX-License-Identifier: MIT
"""The comparison's tables say what was measured: losses, absent rivals, failures and wrong results included."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
from peerlib import race, report  # noqa: E402
from peerlib.jobs import JOBS, OURS, OURS_HALF  # noqa: E402

MACHINE = {"cpu": "a processor", "family": "1", "model": "2", "cores": 2, "cache": "1 MB", "vectors": ["fma"],
           "system": "Linux", "python": "3", "compiler": "cc"}


def record(kind, who, ms=None, net="resnet50", **more):
    times = {} if ms is None else {"median_ms": ms, "min_ms": ms}
    return {"net": net, "threads": 1, "batch": 1, "kind": kind, "who": who} | times | more


def page(*records):
    return report.markdown({"machine": MACHINE, "versions": {OURS: "1"}, "records": list(records)})


def rows(text, heading):
    """Cells by column name of the one row of the table under a heading."""
    lines = text.split(heading)[1].split("\n\n")[1].splitlines()
    head, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], lines[2]))
    return dict(zip(head, row))


def headline(ours, half=7.0):
    return rows(page(record("gradcam", OURS, ours), record("gradcam", OURS_HALF, half), record("predict", OURS, 20.0), record("predict", "ncnn", 40.0),
                     record("predict", "onnxruntime", 32.0), record("predict", "OpenVINO default", 8.0),
                     record("gradcam", "captum", 100.0), record("gradcam", "torchcam", 80.0),
                     record("gradcam", "pytorch-grad-cam", 200.0)), "### Grad-CAM, the whole job, batch 1")


def test_ratios_are_to_the_fastest_and_losses_are_bold():
    won = headline(16.0)
    assert won["fastest float32 inference, ms"] == "32.0 onnxruntime"
    assert (won["ratio"], won["goal"]) == ("0.50", "0.95")
    assert (won["in bfloat16, ms"], won["/ OpenVINO default"], won["its goal"]) == ("7.00", "0.88", "0.95")
    assert headline(16.0, half=7.9)["/ OpenVINO default"] == "**0.99**"
    assert (won["/ captum, torchcam"], won["/ pytorch-grad-cam"], won["/ own forward"]) == ("0.20", "0.08", "0.80")
    lost = headline(31.0)
    assert lost["ratio"] == "**0.97**" and lost["/ own forward"] == "**1.55**" and lost["/ captum, torchcam"] == "0.39"


def test_what_could_not_run_is_said():
    text = page(record("predict", OURS, 2.0), record("predict", "ncnn", absent="ncnn is not installed"),
                record("predict", "onnxruntime", error="RuntimeError: no"))
    cells = rows(text, "### Inference alone, ms, batch 1")
    assert cells["ncnn"] == "not installed" and cells["onnxruntime"] == "–" and cells[OURS] == "2.00"
    assert "- ncnn, predict: ncnn is not installed (ResNet-50)" in text
    assert "- onnxruntime, predict: RuntimeError: no (ResNet-50)" in text


def test_wrong_results_are_marked():
    cells = rows(page(record("predict", "ncnn", 5.0, differs=0.3), record("predict", OURS, 5.0, differs=1e-6)),
                 "### Inference alone, ms, batch 1")
    assert cells["ncnn"] == "5.00 ≠" and cells[OURS] == "5.00"


def test_page_keeps_what_is_around_the_markers(tmp_path):
    target = tmp_path / "page.md"
    target.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(target, "new")
    report.write(target, "newer")
    assert target.read_text() == f"before\n{report.BEGIN}\n\nnewer\n{report.END}\nafter\n"
    target.write_text("no markers\n")
    with pytest.raises(SystemExit):
        report.write(target, "new")


def test_the_page_of_the_repository_has_the_markers():
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1


def test_missing_packages_and_failures_are_results(monkeypatch):
    def absent(_case):
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere.inside")

    def broken(_case):
        raise RuntimeError("first line\nsecond line")

    case = type("Case", (), {"net": "resnet50", "threads": 1, "batch": 1})
    monkeypatch.setitem(JOBS["predict"], "absent", absent)
    monkeypatch.setitem(JOBS["predict"], "broken", broken)
    assert race.set_up(case, ("predict", "absent"))[0]["absent"] == "nowhere is not installed"
    assert race.set_up(case, ("predict", "broken"))[0]["error"] == "RuntimeError: first line"


def test_jobs_take_turns(monkeypatch):
    order, pairs = [], [("predict", OURS), ("predict", "ncnn")]
    records = {pair: record(*pair, first_ms=1e9) for pair in pairs}
    runs = {pair: (lambda pair=pair: order.append(pair)) for pair in pairs}
    monkeypatch.setattr(race, "PAUSE", 0)
    monkeypatch.setattr(race, "TURN", 0)
    race.take_turns(runs, records, 3, 0)
    assert all(r["rounds"] == 3 and r["calls"] == 3 for r in records.values())
    turns = order[:1] + [b for a, b in zip(order, order[1:]) if b != a]
    assert len(turns) > 2  # nobody does all rounds in a row
