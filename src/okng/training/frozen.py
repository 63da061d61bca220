"""Frozen backbones run by OpenVINO while a detector learns: on a CPU several times faster than by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from okng.detectors.base import Detector
from okng.nn.backbones import Backbone
from okng.nn.graph import onnx_graph


@contextmanager
def compiled_backbones(detector: Detector) -> Iterator[None]:
    """Within it, the backbones of `detector` that nothing trains are run by OpenVINO, in float32.

    The features differ in the order of summation, by some 1e-6 of the largest. Without OpenVINO, or on a device
    other than the CPU, everything stays as it is.
    """
    able = find_spec("openvino") is not None and find_spec("onnx") is not None
    frozen = [m for m in detector.modules() if isinstance(m, Backbone) and able and _is_frozen(m)]
    try:
        for backbone in frozen:
            backbone.engine = compiled(backbone)
        yield
    finally:
        for backbone in frozen:
            backbone.engine = None


def compiled(backbone: Backbone) -> Callable[[Tensor], list[Tensor]]:
    """`backbone` as a function from images (B, 3, H, W) to features, on as many threads as PyTorch has."""
    import openvino

    side = 2 * max(backbone.strides)
    names = ["images", *(f"stride {stride}" for stride in backbone.strides)]
    dynamic = {name: {0: "batch", 2: f"{name} height", 3: f"{name} width"} for name in names}
    core = openvino.Core()
    model = core.read_model(onnx_graph(backbone, torch.zeros(1, 3, side, side), names, dynamic))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # pinned, two processes that fit sit on the same core while others idle
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    network = core.compile_model(model, "CPU", settings)

    def features(images: Tensor) -> list[Tensor]:
        # One at a time: the layers' values stay in the cache, and a batch would take a quarter longer.
        each = [[found.copy() for found in network(image[None]).values()] for image in images.numpy()]
        return [torch.from_numpy(np.concatenate(stride)) for stride in zip(*each, strict=True)]

    return features


def _is_frozen(backbone: Backbone) -> bool:
    return all(not p.requires_grad and p.device.type == "cpu" for p in backbone.parameters())
