"""Frozen backbones run by OpenVINO while a detector learns: on a CPU several times faster than by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from okng.detectors.base import Detector
from okng.inspection.engines import import_openvino
from okng.nn.backbones import Backbone
from okng.nn.graph import onnx_graph

COMPILE_FROM = 50  # images


def compiled_where_it_pays(detector: Detector, fabric: Fabric, images: int) -> AbstractContextManager[None]:
    """`compiled_backbones` for so many `images`, as compiling takes a second or so, on a CPU and in float32."""
    plain = fabric.strategy.precision.precision == "32-true"
    worth = images >= COMPILE_FROM and fabric.device.type == "cpu" and plain
    return compiled_backbones(detector) if worth else nullcontext()


@contextmanager
def compiled_backbones(detector: Detector) -> Iterator[None]:
    """Within it, the backbones of `detector` that nothing trains are run by OpenVINO, in float32.

    The features differ in the order of summation, by some 1e-6 of the largest. Without OpenVINO, or on a device
    other than the CPU, everything stays as it is.
    """
    able = find_spec("openvino") is not None and find_spec("onnx") is not None
    on_cpu = [m for m in detector.modules() if isinstance(m, Backbone) and m.mean.device.type == "cpu"]
    frozen = [backbone for backbone in on_cpu if able and is_frozen(backbone)]
    try:
        for backbone in frozen:
            backbone.engine = compiled(backbone)
        yield
    finally:
        for backbone in frozen:
            backbone.engine = None


def compiled(backbone: Backbone) -> Callable[[Tensor], list[Tensor]]:
    """`backbone` as a function from images (B, 3, H, W) to what it makes of them, on as many threads as PyTorch has."""
    openvino = import_openvino()
    side = 2 * max(backbone.strides)
    example = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        outputs = backbone(example)
    names = ["images", *(f"features {i}" for i in range(len(outputs)))]
    dynamic = {
        name: {0: "batch", 2: f"{name} height", 3: f"{name} width"} if tensor.ndim == 4 else {0: "batch"}
        for name, tensor in zip(names, [example, *outputs], strict=True)
    }
    core = openvino.Core()
    model = core.read_model(onnx_graph(backbone, example, names, dynamic))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # pinned, two processes that fit sit on the same core while others idle
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    network = core.compile_model(model, "CPU", settings)

    def features(images: Tensor) -> list[Tensor]:
        if images.requires_grad and torch.is_grad_enabled():  # a gradient back to the images, which PyTorch alone has
            found: list[Tensor] = backbone.net((images - backbone.mean) / backbone.std)
            return found
        # One at a time: the layers' values stay in the cache, and a batch would take a quarter longer.
        single = images.detach().numpy()
        each = [[found.copy() for found in network(image[None]).values()] for image in single]
        return [torch.from_numpy(np.concatenate(output)) for output in zip(*each, strict=True)]

    return features


def is_frozen(backbone: Backbone) -> bool:
    """Whether nothing trains it."""
    return not any(parameter.requires_grad for parameter in backbone.parameters())
