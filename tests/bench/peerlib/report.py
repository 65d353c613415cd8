# SPDX-License-Identifier: MIT
"""Records as lines, markdown tables and a chart."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess

from .case import LAYERS, library
from .jobs import JOBS, OURS, OURS_HALF
from .perturb import CHANNELS
from .race import COMMAND

TITLES = {"vgg16": "VGG16", "resnet18": "ResNet-18", "resnet50": "ResNet-50", "mobilenet_v2": "MobileNetV2",
          "squeezenet1_1": "SqueezeNet 1.1", "densenet121": "DenseNet-121", "efficientnet_b0": "EfficientNet-B0",
          "convnext_tiny": "ConvNeXt-Tiny", "vit_b_16": "ViT-B/16"}
FLOAT32 = ["onnxruntime", "OpenVINO float32", "ncnn", "PyTorch eager", "PyTorch compiled"]
# The goals: Grad-CAM at most so many times the fastest other float32 inference.
GOALS = {"vgg16": 0.90, "resnet18": 0.65, "resnet50": 0.95, "mobilenet_v2": 0.95, "squeezenet1_1": 0.90,
         "densenet121": 0.85, "efficientnet_b0": 0.90, "convnext_tiny": 0.95, "vit_b_16": 0.95}
# In bfloat16 at most so many times OpenVINO's default, which is bfloat16 where the processor has it.
HALF_GOALS = dict.fromkeys(LAYERS, 1.0) | {"vgg16": 0.85, "resnet18": 0.95, "resnet50": 0.95}
BEGIN, END = "<!-- peers.py: begin -->", "<!-- peers.py: end -->"
SLOPPY = 1e-2  # a float32 result further from PyTorch's than that is marked

# ---- where and with what ----


def machine():
    """The processor as /proc/cpuinfo has it, and the compiler of the build."""
    fields = {}
    info = pathlib.Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    vectors = [f for f in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if f in flags]
    try:
        compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        compiler = "unknown"
    return {"cpu": fields.get("model name", platform.processor() or platform.machine()),
            "family": fields.get("cpu family", ""), "model": fields.get("model", ""), "cores": os.cpu_count(),
            "cache": fields.get("cache size", ""), "vectors": vectors, "system": platform.system(),
            "python": platform.python_version(), "compiler": compiler}


def versions():
    found = {OURS: library().__version__}
    for package in ("torch", "torchvision", "captum", "torchcam", "grad-cam", "onnxruntime", "openvino", "ncnn"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


# ---- lines ----


def show(records):
    """While it runs."""
    for r in records:
        text = r.get("absent") or r.get("error")
        if text is None:
            text = f"{r['median_ms']:10.2f} {r['min_ms']:10.2f} ms"
            text += f"  {r['peak_mib']:.0f} MiB" if "peak_mib" in r else f"  differs {r.get('differs', '-')}"
        print(f"{r['net']:16} {r['threads']}T b{r['batch']} {r['kind']:14} {r['who']:19} {text}", flush=True)


# ---- tables ----


class Results:
    """Records of one batch size by (network, threads, kind, who)."""

    def __init__(self, data, batch):
        self.by = {(r["net"], r["threads"], r["kind"], r["who"]): r for r in data["records"] if r["batch"] == batch}
        self.rows = [(net, threads) for net in LAYERS
                     for threads in sorted({t for (n, t, *_rest) in self.by if n == net})]

    def has(self, kind):
        return any(k == kind for (_n, _t, k, _w) in self.by)

    def ms(self, row, kind, who):
        return self.by.get((*row, kind, who), {}).get("median_ms")

    def least(self, row, kind, names):
        """(ms, name) of the fastest of those that there are."""
        found = [(self.ms(row, kind, who), who) for who in names if self.ms(row, kind, who) is not None]
        return min(found) if found else (None, None)

    def cell(self, row, kind, who):
        """Milliseconds, or why there are none."""
        r = self.by.get((*row, kind, who))
        if r is None:
            return "·"
        if "absent" in r:
            return "not installed"
        if "error" in r:
            return "–"
        wrong = r.get("differs", 0) > SLOPPY and who not in ("OpenVINO default", OURS_HALF)
        return number(r["median_ms"]) + (" ≠" if wrong else "")


def number(ms):
    return "·" if ms is None else f"{ms:.0f}" if ms >= 99.5 else f"{ms:.1f}" if ms >= 9.95 else f"{ms:.2f}"


def ratio(a, b, goal=None):
    """a / b; bold where it is a loss: above the goal, or above 1 where there is none."""
    if a is None or b is None:
        return "·"
    text = f"{a / b:.2f}"
    return f"**{text}**" if a / b > (goal or 1) else text


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] * 2 + ["---:"] * (len(head) - 2)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def start(row):
    return [TITLES[row[0]], str(row[1])]


def headline(results):
    rows = []
    for row in results.rows:
        ours = results.ms(row, "gradcam", OURS)
        fastest, who = results.least(row, "predict", FLOAT32)
        half, default = results.ms(row, "gradcam", OURS_HALF), results.ms(row, "predict", "OpenVINO default")
        libraries, _ = results.least(row, "gradcam", ["captum", "torchcam"])
        rows.append([*start(row), number(ours), f"{number(fastest)} {who or ''}".strip(),
                     ratio(ours, fastest, GOALS[row[0]]), f"{GOALS[row[0]]:.2f}", number(half),
                     ratio(half, default, HALF_GOALS[row[0]]), f"{HALF_GOALS[row[0]]:.2f}",
                     ratio(ours, libraries, 0.5), ratio(ours, results.ms(row, "gradcam", "pytorch-grad-cam"), 0.2),
                     ratio(ours, results.ms(row, "predict", OURS), 1.15 if row[0] == "vgg16" else 1.05)])
    return table(["network", "threads", "Grad-CAM, ms", "fastest float32 inference, ms", "ratio", "goal",
                  "in bfloat16, ms", "/ OpenVINO default", "its goal", "/ captum, torchcam", "/ pytorch-grad-cam", "/ own forward"], rows)


def times(results, kind):
    names = [who for who in JOBS[kind] if any((*row, kind, who) in results.by for row in results.rows)]
    rows = [start(row) + [results.cell(row, kind, who) for who in names] for row in results.rows]
    return table(["network", "threads", *names], rows)


def guided(results):
    rows = []
    for row in results.rows:
        ours, sweep = results.ms(row, "guided", OURS), results.ms(row, "sweep", OURS)
        if ours is not None or sweep is not None:
            rows.append([*start(row), *(results.cell(row, "guided", who) for who in JOBS["guided"]),
                         ratio(ours, results.ms(row, "guided", "captum"), 0.45), number(sweep),
                         ratio(sweep, ours, 1.2)])
    return table(["network", "threads", *JOBS["guided"], "/ captum", "sweep", "sweep / guided"], rows)


def variants(results):
    """Milliseconds of one masked input and of one ablated channel."""
    rows, kinds, who = [], ("masked", "ablated"), (OURS, "pytorch-grad-cam")
    for row in results.rows:
        ms = {(kind, name): results.ms(row, kind, name) for kind in kinds for name in who}
        if any(v is not None for v in ms.values()):
            each = {key: None if v is None else v / CHANNELS for key, v in ms.items()}
            rows.append([*start(row), *(text for kind in kinds
                                        for text in (*(number(each[kind, name]) for name in who),
                                                     ratio(*(each[kind, name] for name in who))))])
    return table(["network", "threads", *(f"{kind}{name}" for kind in ("masked input, ", "ablated channel, ")
                                          for name in (*who, "ratio"))], rows)


def scaling(results):
    """One thread's time over two threads' for what libgradcam does."""
    rows = []
    for net in dict.fromkeys(net for net, _threads in results.rows):
        one, two = (net, 1), (net, 2)
        pairs = [(results.ms(one, kind, OURS), results.ms(two, kind, OURS)) for kind in ("predict", "gradcam", "guided")]
        if any(a and b for a, b in pairs):
            rows.append([TITLES[net], "2 for 1", *(f"{a / b:.2f}" if a and b else "·" for a, b in pairs)])
    return table(["network", "threads", "forward", "Grad-CAM", "guided"], rows) if rows else ""


def fresh(results):
    names, rows = [COMMAND, *JOBS["gradcam"]], []
    for row in results.rows:
        found = [results.by.get((*row, "fresh gradcam", who)) for who in names]
        if any(found):
            rows.append(start(row) + [f"{r['median_ms'] / 1e3:.2f} s, {r['peak_mib']:.0f} MiB"
                                      if r and "median_ms" in r else "–" if r else "·" for r in found])
    return table(["network", "threads", *names], rows)


def misses(results):
    """One line for whatever could not run."""
    seen = {}
    for (net, _threads, kind, who), r in results.by.items():
        text = r.get("absent") or r.get("error")
        if text:
            seen.setdefault((who, kind, text), []).append(TITLES[net])
    return "\n".join(f"- {who}, {kind}: {text} ({', '.join(dict.fromkeys(nets))})"
                     for (who, kind, text), nets in seen.items())


def markdown(data, chart=None):
    """The whole text between the markers."""
    m, parts = data["machine"], []
    parts.append(f"Machine: {m['cpu']} (family {m['family']}, model {m['model']}), {m['cores']} cores, "
                 f"{m['cache']} cache, {' '.join(m['vectors'])}; {m['system']}. Compiler of the library: {m['compiler']}; "
                 f"Python {m['python']}.")
    parts.append("Versions: " + ", ".join(f"{name} {v}" for name, v in data["versions"].items()) + ".")
    if chart:
        parts.append(f"![Grad-CAM against inference]({chart})")
    for batch in sorted({r["batch"] for r in data["records"]}):
        results, of = Results(data, batch), f"batch {batch}"
        if results.has("gradcam") and results.has("predict"):
            parts += [f"### Grad-CAM, the whole job, {of}", headline(results)]
        for kind, title in (("predict", "Inference alone, ms"), ("gradcam", "Grad-CAM, the whole job, ms")):
            if results.has(kind):
                parts += [f"### {title}, {of}", times(results, kind)]
        if results.has("guided") or results.has("sweep"):
            parts += [f"### Guided backpropagation and the layer sweep, ms, {of}", guided(results)]
        if results.has("masked") or results.has("ablated"):
            parts += [f"### Variants, ms each, {of}", variants(results)]
        if scaling(results):
            parts += [f"### What a second thread brings, {of}", scaling(results)]
        if results.has("fresh gradcam"):
            parts += [f"### Fresh process to heat map, and peak memory, {of}", fresh(results)]
        if misses(results):
            parts += [f"### What could not run, {of}", misses(results)]
    return "\n\n".join(parts) + "\n"


def write(page, text):
    """Replaces what is between the page's markers."""
    old = page.read_text()
    head, begin, rest = old.partition(BEGIN)
    _inside, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page}: no lines {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{tail}")


# ---- chart ----

COLOURS = {OURS: "#1b6ca8", "captum": "#e0a030", "torchcam": "#c8752d", "pytorch-grad-cam": "#8c3b3b"}
TICKS = [0.25, 0.5, 1, 2, 5, 10, 20]


def draw(data, path):
    """Whole Grad-CAM jobs in units of the fastest other float32 inference, batch 1; a panel per number of threads."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("the chart needs matplotlib, which is not installed") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    results = Results(data, 1)
    counts = sorted({threads for _net, threads in results.rows})
    nets = list(dict.fromkeys(net for net, _threads in results.rows))
    figure, axes = pyplot.subplots(1, max(len(counts), 1), figsize=(5.5 * max(len(counts), 1), 1 + 0.6 * len(nets)),
                                   sharex=True, squeeze=False)
    for axis, threads in zip(axes[0], counts):
        _panel(axis, results, nets, threads)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels) or 1, frameon=False)
    figure.suptitle("Grad-CAM, the whole job, in units of the fastest other float32 inference alone")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(axis, results, nets, threads):
    height = 0.8 / len(COLOURS)
    for k, (who, colour) in enumerate(COLOURS.items()):
        places, lengths = [], []
        for i, net in enumerate(nets):
            ours = results.ms((net, threads), "gradcam", who)
            fastest, _ = results.least((net, threads), "predict", FLOAT32)
            if ours is not None and fastest is not None:
                places.append(i + (k - 1.5) * height)
                lengths.append(ours / fastest)
        bars = axis.barh(places, lengths, height * 0.92, color=colour, label=who)
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axis.axvline(1, color="#303030", linewidth=1)
    axis.set_xscale("log")
    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.set_xticks([], minor=True)
    axis.set_yticks(range(len(nets)), [TITLES[net] for net in nets])
    axis.set_ylim(len(nets) - 0.4, -0.6)
    axis.margins(x=0.15)
    axis.set_title(f"{threads} thread" + ("s" if threads > 1 else ""), fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
