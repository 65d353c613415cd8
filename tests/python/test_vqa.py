# SPDX-License-Identifier: MIT
"""Visual question answering (docs/vqa) on a part of its questions: maps lie on
the shape and follow the question."""

import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
NETWORK, DATA = SHARED / "models" / "easy_vqa.onnx", SHARED / "easy_vqa_dataset.tar.xz"
pytestmark = pytest.mark.skipif(not (NETWORK.exists() and DATA.exists()),
                                reason="network and data set are not beside the project")
sys.path.insert(0, str(ROOT / "docs" / "vqa"))


@pytest.fixture(scope="module")
def game():
    import easy_vqa
    import pointing
    return pointing.Game(NETWORK, easy_vqa.Data(DATA), 300).play()


def test_answers(game):
    assert game.asked == 300 and game.right >= 290


def test_peaks_lie_on_the_shape(game):
    """Figures over all questions are in docs/vqa/README.md; here with room for chance."""
    on_shape = {key: score.row()[0] for key, score in game.scores.items()}
    elsewhere = {key: score.row()[2] for key, score in game.scores.items()}
    best = ("gradient x activation", "conv2d_2")
    assert on_shape[best] >= 85 and elsewhere[best] <= 30
    assert on_shape["Grad-CAM", "conv2d_3"] >= 35


def test_maps_follow_the_question(game):
    found = {key: np.mean(values) for key, values in game.correlations.items()}
    for name in ("signed Grad-CAM", "gradient x activation"):
        for layer in ("conv2d_2", "conv2d_3"):
            same = found[name, layer, "same evidence, same answer"]
            assert same >= 0.8
            assert found[name, layer, "what: colour and shape"] <= 0.3 * same
            assert found[name, layer, "is: colour and shape"] <= 0.3 * same
