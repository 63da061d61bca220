"""Frozen backbones while a detector learns and is calibrated: run by OpenVINO where that pays, once for each image."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from okng.detectors.base import Detector
from okng.inspection.engines import import_openvino
from okng.nn.features.backbones import Backbone
from okng.nn.graph import onnx_graph
from okng.training.images.data import FeatureStore

COMPILE_FROM = 50  # images
MEMORY = 1 << 30  # bytes of remembered features

Engine = Callable[[Tensor], list[Tensor]]


class FrozenBackbones:
    """What computes the frozen backbones of detectors that were built alike, on a CPU and in float32.

    From `COMPILE_FROM` images on each is compiled once, see `compiled`, for all their fits and calibrations. Fewer
    go through PyTorch, one at a time, which takes a third of the time of a batch: the layers' values stay in the cache.
    So what is made of an image does not depend on others. `remembered`: of how many images what is made of them is
    kept, exactly, and found again by their pixels: then folds and what judges them share one pass of the backbone. What
    is beyond `budget` bytes lies on disk.

    `compiling`: by name, whether a backbone is compiled. The first pass decides, by its images. It is part of a
    checkpoint: the first pass of a fit that goes on may be another one, over fewer images or more.
    """

    def __init__(self, remembered: int = 0, budget: int = MEMORY):
        self.remembered, self.budget = remembered, budget
        self.compiling: dict[str, bool] = {}
        self._known: dict[str, tuple[dict[str, Tensor], Engine, Engine, FeatureStore]] = {}

    def __enter__(self) -> FrozenBackbones:
        return self

    def __exit__(self, *error: object) -> None:
        for *_, store in self._known.values():
            store.close()

    def in_a_fit(
        self, detector: Detector, fabric: Fabric, images: int, anew: bool = False
    ) -> AbstractContextManager[None]:
        """`running` on a CPU and in float32; for images that are made `anew` each time only where compiling pays."""
        plain = fabric.device.type == "cpu" and fabric.strategy.precision.precision == "32-true"
        if not plain or (anew and images < COMPILE_FROM):
            return nullcontext()
        return self.running(detector, images, remembering=not anew)

    @contextmanager
    def running(self, detector: Detector, images: int, remembering: bool = True) -> Iterator[None]:
        """Within it, the backbones of `detector` that nothing trains are computed so, for so many `images`.

        On a device other than the CPU everything stays as it is.
        """
        named = [(name, module) for name, module in detector.named_modules() if isinstance(module, Backbone)]
        frozen = [(name, each) for name, each in named if is_frozen(each) and each.mean.device.type == "cpu"]
        try:
            for name, backbone in frozen:
                backbone.engine = self._engine(name, backbone, images, remembering and self.remembered > 0)
            yield
        finally:
            for _, backbone in frozen:
                backbone.engine = None

    def _engine(self, name: str, backbone: Backbone, images: int, remembering: bool) -> Engine:
        known, state = self._known.get(name), backbone.state_dict()
        moved = known is not None and any(not torch.equal(known[0][key], state[key]) for key in state)
        if known is None or moved:  # an average of weights, too, is a backbone that nothing trains
            there = find_spec("openvino") is not None and find_spec("onnx") is not None
            pays = self.compiling.setdefault(name, there and images >= COMPILE_FROM) and there
            engine = (
                compiled(backbone) if pays else one_by_one(copy.deepcopy(backbone.net), backbone.mean, backbone.std)
            )
            if known is not None:
                known[3].close()
            store = FeatureStore(self.remembered, self.budget)
            own = {key: tensor.clone() for key, tensor in state.items()}
            known = self._known[name] = own, engine, remembering_by(engine, store), store
        return known[2] if remembering else known[1]


def compiled_backbones(detector: Detector) -> AbstractContextManager[None]:
    """Within it, the backbones of `detector` that nothing trains are run by OpenVINO, if it is installed."""
    return FrozenBackbones().running(detector, COMPILE_FROM)


def one_by_one(net: Any, mean: Tensor, std: Tensor) -> Engine:
    """The network `net` of a backbone as a function of images (B, 3, H, W), which takes each by itself."""

    def features(images: Tensor) -> list[Tensor]:
        if torch.is_grad_enabled() and images.requires_grad:
            found: list[Tensor] = net((images - mean) / std)
            return found
        each = [net((image - mean) / std) for image in images.split(1)]
        return [torch.cat(parts) for parts in zip(*each, strict=True)]

    return features


def remembering_by(engine: Engine, store: FeatureStore) -> Engine:
    """What `engine` makes of images (B, 3, H, W); what it has made of an image of the same pixels is in `store`."""

    def features(images: Tensor) -> list[Tensor]:
        if torch.is_grad_enabled() and images.requires_grad:
            return engine(images)
        images = images.contiguous()
        shape = tuple(images.shape[1:])
        keys = [(shape, hashlib.blake2b(image.numpy().data, digest_size=16).digest()) for image in images]  # type: ignore[arg-type]
        new = [place for place, key in enumerate(keys) if key not in store]
        if len(store) + len(new) > store.count:  # more than the images themselves: they are changed before
            return engine(images)
        if new:
            for place, *parts in zip(new, *engine(images[new]), strict=True):
                store.put(keys[place], parts)
        return list(store.get(keys))

    return features


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


def versions(module: nn.Module) -> list[Any]:
    """What changes when something writes to a module's tensors: where they lie, torch's count of writes, and a value.

    The value is for who writes to `tensor.data`, which is not counted.
    """
    return [(t.data_ptr(), t._version, t.flatten()[:1].tolist()) for t in module.state_dict().values()]
