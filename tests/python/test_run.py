# SPDX-License-Identifier: MIT
"""`gradcam run` from outside: the zoo's values and gradients through files."""

import json
import os
import subprocess

import numpy as np
import pytest

from test_zoo import FAMILIES, ROOT, close, read, zoo  # noqa: F401  (zoo is a fixture)

COMMAND = os.environ.get("GRADCAM_COMMAND", str(ROOT / "build" / "gradcam"))



def run(folder, out, names, meta):
    arguments = [COMMAND, "run", str(folder / "model.onnx"), "--out", str(out), "--threads", "2"]
    for k, name in enumerate(names):
        path = out.parent / f"{out.name}_in{k}.npy"
        np.save(path, read(folder / f"input_{k}.pb"))
        arguments += ["--input", f"{name}={path}"]
        if (folder / f"dx_{k}.pb").exists():
            arguments += ["--grad", name]
    for name in meta["targets"]:
        arguments += ["--value", name, "--grad", name]
    output = meta["output"]
    done = subprocess.run([*arguments, "--target", f"{output}:{meta['cls']}"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    index = json.loads((out / "index.json").read_text())
    found = {(row["kind"], row["name"]): np.load(out / row["file"]) for row in index}
    for row in index:
        assert list(found[row["kind"], row["name"]].shape) == row["shape"]
    return found


def check_export(folder, out):
    import gradcam
    meta = json.loads((folder / "meta.json").read_text())
    net = gradcam.Net(folder / "model.onnx")
    meta["output"] = net.outputs[0]
    found = run(folder, out, net.inputs, meta)
    close(found["output", meta["output"]], read(folder / "output_0.pb"), "output")
    for k, name in enumerate(net.inputs):
        if (folder / f"dx_{k}.pb").exists():
            close(found["grad", name], read(folder / f"dx_{k}.pb"), f"gradient of {name}")
    for k, name in enumerate(meta["targets"]):
        close(found["value", name], read(folder / f"act_{k}.pb"), f"value of {name}")
        close(found["grad", name], read(folder / f"dact_{k}.pb"), f"gradient of {name}")


@pytest.mark.parametrize("family", FAMILIES)
def test_family(zoo, tmp_path, family):  # noqa: F811
    for folder in sorted(p for p in zoo.iterdir() if p.name.split(".")[0] == family):
        check_export(folder, tmp_path / folder.name)


# The ten likeliest mistakes: one line on stderr, exit status 1 or 2, a hint.
MISTAKES = [
    (["run"], 2, "MODEL"),
    (["explode", "x.onnx"], 2, "explode"),
    (["info", "missing.onnx"], 1, "missing.onnx"),
    (["info", __file__], 1, ""),
    (["run", "{model}", "--out", "{out}"], 1, "--input"),
    (["run", "{model}", "--fill", "1", "--out", "{out}", "--grad", "nowhere", "--target", "y:0"], 1, "nowhere"),
    (["run", "{model}", "--fill", "1", "--out", "{out}", "--target", "logits:99999"], 1, "99999"),
    (["run", "{model}", "--fill", "lots", "--out", "{out}"], 2, "lots"),
    (["explain", "{model}", "missing.jpg"], 1, "missing.jpg"),
    (["explain", "{model}", __file__], 1, ""),
    (["bench", "{model}", "--method", "magic"], 2, "magic"),
]


@pytest.mark.parametrize("arguments,status,hint", MISTAKES)
def test_mistakes(tmp_path, arguments, status, hint):
    model = ROOT / "docs" / "demo" / "garments.onnx"
    words = [a.format(model=model, out=tmp_path / "out") for a in arguments]
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("gradcam") and hint in done.stderr
    assert done.stdout == ""


def test_explain_writes_a_picture(tmp_path):
    model = ROOT / "docs" / "demo" / "garments.onnx"
    picture = tmp_path / "in.ppm"
    picture.write_bytes(b"P6 120 120 255\n" + bytes(range(256)) * 168 + bytes(192))
    done = subprocess.run([COMMAND, "explain", str(model), str(picture), "--preprocess", "zero-one", "--method", "all",
                           "--output", str(tmp_path / "out.png"), "--json"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
