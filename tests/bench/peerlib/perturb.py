# SPDX-License-Identifier: MIT
"""The inner loops of Score-CAM and Ablation-CAM: weights of the first CHANNELS channels of the layer.

    masked    the input seen through each channel, softmax of the scores
    ablated   each channel of the layer at zero, relative drops of the score

pytorch-grad-cam's own functions do the same with the batches that they choose.
"""

import os

import numpy as np

from .case import SIZE, library, torchvision_models

CHANNELS = 32


def best_class(case):
    if case.batch != 1:
        raise ValueError("no batches")
    return case.classes[0]


def activation(case):
    found = np.load(case.path("activation.npy"))[:, :CHANNELS]
    if found.ndim != 4:
        raise ValueError("no feature map")
    return found


def our_run(case):
    gradcam = library()
    run = gradcam.Run(gradcam.Net(case.path("net.onnx"), gradcam.Context(threads=case.threads)))
    run.set_input(None, case.x)
    return run


def our_masked(case):
    gradcam, run, index, channels = library(), our_run(case), best_class(case), activation(case)[0]

    def weights():
        masks = gradcam.resize(channels, (SIZE, SIZE), "align_corners")
        low, high = masks.min((1, 2), keepdims=True), masks.max((1, 2), keepdims=True)
        scores = run.perturb_scores(masks=(masks - low) / (high - low + 1e-8), index=index)[:, 0]
        part = np.exp(scores - scores.max())
        return part / part.sum()

    return weights


def our_ablated(case):
    run, index, count = our_run(case), best_class(case), activation(case).shape[1]

    def weights():
        scores = run.perturb_scores(case.layer, ablate=range(count), index=index)[:, 0]
        return (run.report.score - scores) / run.report.score

    return weights


def pytorch_grad_cam(case, name):
    """Its class for the method, which has set itself up, and what get_cam_weights wants."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    torchvision_models()
    import pytorch_grad_cam as theirs
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    targets, channels, model = [ClassifierOutputTarget(best_class(case))], activation(case), case.model(frozen=True)
    layer = case.layer_of(model)
    method = getattr(theirs, name)(model, [layer])
    method.activations_and_grads.release()  # hooks of the method itself, which keep every activation
    return lambda: np.asarray(method.get_cam_weights(case.image, layer, targets, channels, None))[0]


def pytorch_grad_cam_masked(case):
    return pytorch_grad_cam(case, "ScoreCAM")


def pytorch_grad_cam_ablated(case):
    return pytorch_grad_cam(case, "AblationCAM")
