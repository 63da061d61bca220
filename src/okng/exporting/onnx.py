"""A whole detector as one ONNX graph, checked against PyTorch before it is written."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from okng.detectors.base import Detector
from okng.detectors.engine import TorchEngine
from okng.errors import OkngError, no_number
from okng.inspection.engines import OnnxRuntimeEngine
from okng.inspection.inspector import Inspector
from okng.inspection.onnx_file import LIMIT, write_onnx
from okng.inspection.reading.images import Preprocess
from okng.nn.graph import onnx_graph

TOLERANCE = 1e-4  # relative; float32 in another order of summation stays below 1e-5


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime is from PyTorch on the same pixels, at worst.

    `score` and `map` (None without a map) are relative to the largest absolute value of the scores, or maps, of all
    images of one shape: a signed score may be near 0 for one of them. `images` were compared, of `shapes` (height,
    width).
    """

    score: float
    map: float | None
    images: int
    shapes: tuple[tuple[int, int], ...]


def export_onnx(inspector: Inspector, path: str | Path) -> Parity:
    """Write `inspector` as `path`, one ONNX file with everything in it, and say how close it is to PyTorch.

    The graph takes uint8 pixels (B, H, W, C) as the line's preprocessing makes them and gives "score" (B,) and, where
    the detector localises, "map" (B, h, w). B is open, and so are H and W where images keep their aspect ratio. Raises
    `OkngError`, and writes nothing, if scores or maps differ by more than 1e-4 or are no numbers.
    """
    engine = inspector.engine
    if not isinstance(engine, TorchEngine):
        raise OkngError("only a .okng model can be exported; this one is an ONNX file already")
    if not engine.detector.exportable:
        raise OkngError(f"{engine.detector.name} can't be exported, its forward is not one plain graph; use the .okng")
    detector = copy.deepcopy(engine.detector).cpu()
    shapes = example_shapes(inspector.preprocess)
    graph = trace(detector, shapes[0], inspector.preprocess)
    onnx_engine = OnnxRuntimeEngine(graph, torch.get_num_threads())  # as many as the other has
    parity = compare(TorchEngine(detector), onnx_engine, shapes, inspector.preprocess.channels)
    if not max(parity.score, parity.map or 0.0) <= TOLERANCE:
        worst = f"scores differ by {parity.score:.1e}, maps by {parity.map or 0.0:.1e}"
        raise OkngError(f"the exported {detector.name} is not the fitted one ({worst}); use the .okng file")
    manifest, arrays = inspector.described()
    write_onnx(Path(path), graph, {**manifest, "precision": "f32", "parity": asdict(parity)}, arrays)
    return parity


class _FromPixels(nn.Module):
    """The detector behind the cast from pixels, as `TorchEngine` does it."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        scores = self.detector(pixels.permute(0, 3, 1, 2).float() / 255)  # of (B, C, H, W)
        return (scores.image,) if scores.map is None else (scores.image, scores.map)


def trace(detector: Detector, shape: tuple[int, int], preprocess: Preprocess) -> bytes:
    """The graph of `detector`, a serialised ModelProto, drawn by running it once at `shape`."""
    pixels = torch.from_numpy(examples(2, (*shape, preprocess.channels)))
    names = ["pixels", "score", "map"]
    with torch.no_grad():
        found = _FromPixels(detector)(pixels)
    names = names[: 1 + len(found)]
    dynamic = {name: {0: "batch"} for name in names}
    if isinstance(preprocess.size, int):
        dynamic["pixels"] |= {1: "height", 2: "width"}
        if len(found) > 1:
            dynamic["map"] |= {1: "map_height", 2: "map_width"}
    try:
        return onnx_graph(_FromPixels(detector), pixels, names, dynamic)
    except RuntimeError as error:
        if sum(tensor.nbytes for tensor in detector.state_dict().values()) > LIMIT:
            raise OkngError("this model is larger than the 2 GB an ONNX file can hold; fit a smaller one") from error
        raise


def example_shapes(preprocess: Preprocess) -> list[tuple[int, int]]:
    """Input shapes to check: the only one, or a lying and an upright one and a square."""
    if not isinstance(preprocess.size, int):
        return [preprocess.size]
    return list(dict.fromkeys(preprocess.shape(*sides) for sides in ((3, 4), (2, 1), (1, 1))))


def examples(count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """uint8 (count, H, W, C), by turns noise and smooth waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / 20.0
    made = []
    for i in range(count):
        if i % 2:
            tilt = rng.uniform(-1, 1, (2, shape[2]))
            made.append(127 + 120 * np.sin(y[..., None] * tilt[0] + x[..., None] * tilt[1]))
        else:
            made.append(rng.uniform(0, 256, shape))
    return np.stack(made).astype(np.uint8)


def compare(
    torch_engine: TorchEngine, onnx_engine: OnnxRuntimeEngine, shapes: list[tuple[int, int]], channels: int
) -> Parity:
    """The worst differences over four images of each of `shapes`, alone and together; `OkngError` for no numbers."""
    score = peak = 0.0
    localizes = False
    for i, shape in enumerate(shapes):
        pixels = examples(4, (*shape, channels), seed=i + 1)
        scores, maps = torch_engine(pixels)
        for found, *drawn in (onnx_engine.run(pixels), onnx_engine(pixels)):
            score = max(score, float(differences(found, scores, np.abs(scores).max()).max()))
            if maps is not None and drawn[0] is not None:
                localizes = True
                peak = max(peak, float(differences(drawn[0], maps, np.abs(maps).max()).max()))
    return Parity(score, peak if localizes else None, 4 * len(shapes), tuple(shapes))


def differences(found: np.ndarray, wanted: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """How far each value of `found` is from `wanted`, relative to `scale`, all of one shape or broadcast to it.

    `OkngError` if a value is no number: it is below no limit and above none, so every comparison would let it pass.
    """
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        raise no_number("the detector's scores or maps are no numbers")
    apart: np.ndarray = np.abs(found - wanted) / scale.clip(1e-12)
    return apart
