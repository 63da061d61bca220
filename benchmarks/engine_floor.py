"""The engine beside its bare backbone, in turns, and where its time goes.

    python benchmarks/engine_floor.py FOLDER_OF_OK_IMAGES

PatchCore at 256 px with 2,181 and with 16,000 memories, the default at 320 px with 4,000, by OpenVINO in float32 on one
thread, from pixels: milliseconds of the processor, medians of rounds in turns, and OpenVINO's own clock by kinds of
layers, once. Memories are patches of the images. `could be nearest`: of patches of an image that is not among them, the
share of 16,000 memories that the nearest is among, for sure, by the first 32 principal components, and what else
would have to be compared in full. Writes results/engine_floor.csv.
"""

from __future__ import annotations

import datetime
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from okng.benchmark.reproduce import machine, versions
from okng.benchmark.rows import write_rows
from okng.detectors.base import Detector
from okng.detectors.catalogue import create
from okng.exporting.onnx import trace
from okng.inspection.engines import import_openvino
from okng.inspection.reading.files import find_images
from okng.inspection.reading.images import Preprocess
from okng.nn.graph import onnx_graph
from okng.training.loop.frozen import compiled_backbones

RESULTS = Path(__file__).parents[1] / "results" / "engine_floor.csv"
FIELDS = ("case", "figure", "value", "command", "versions", "machine", "date")
CASES = {"patchcore": (256, (2181, 16_000)), "patch_memory": (320, (4000,))}
ROUNDS = 9
COMPONENTS = 32
SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True,
}  # fmt: skip


def compiled(graph: bytes, shape: tuple[int, ...]) -> Any:
    """A request of the graph at one shape."""
    core = import_openvino().Core()
    model = core.read_model(graph)
    model.reshape(list(shape))
    return core.compile_model(model, "CPU", SETTINGS).create_infer_request()


def patches_of(detector: Detector, preprocess: Preprocess, files: list[Path]) -> list[torch.Tensor]:
    """The patches (h*w, D) of each image."""
    found = []
    with torch.no_grad(), compiled_backbones(detector):
        for file in files:
            pixels = torch.from_numpy(preprocess.load(file)[0].copy()).permute(2, 0, 1)[None].float() / 255
            found.append(detector.patches(pixels).flatten(0, 2))  # type: ignore[operator]
    return found


def by_kind(request: Any) -> dict[str, float]:
    """Milliseconds of the last call by kinds of layers, on OpenVINO's clock."""
    taken: dict[str, float] = defaultdict(float)
    for layer in request.profiling_info:
        taken[layer.node_type] += 1e3 * layer.real_time.total_seconds()
    return {f"clock: {kind}": ms for kind, ms in taken.items() if ms > 0.02 * sum(taken.values())}


def could_be_nearest(queries: np.ndarray, memories: np.ndarray) -> float:
    """The share of (query, memory) pairs that a bound by principal components does not rule out."""
    axes = np.linalg.eigh(np.cov(memories.T))[1][:, ::-1][:, :COMPONENTS]  # (D, r)
    near, far = queries @ axes, memories @ axes
    bound = (near**2).sum(1)[:, None] + (far**2).sum(1) - 2 * near @ far.T  # (Q, M), no distance is below it
    guess = memories[bound.argmin(1)]
    return float((bound <= ((queries - guess) ** 2).sum(1)[:, None]).mean())


def main(folder: Path) -> None:
    """Measure, and write a row for each figure."""
    found: dict[str, dict[str, float]] = {}
    for name, (side, sizes) in CASES.items():
        torch.manual_seed(0)
        detector = create(name)
        preprocess = Preprocess("RGB", (side, side), detector.multiple)
        files = find_images(folder)
        each = patches_of(detector, preprocess, files[: 2 + max(sizes) // (side // 8) ** 2])
        everything = torch.cat(each[:-1])
        everything = everything[torch.randperm(len(everything))]
        example = torch.zeros(1, 3, side, side)
        names = ["images", *(f"stride {stride}" for stride in detector.backbone.strides)]  # type: ignore[union-attr,arg-type]
        bare = compiled(onnx_graph(detector.backbone, example, names, {}), (1, 3, side, side))  # type: ignore[arg-type]
        pixels = preprocess.load(files[-1])[0][None]
        tasks: dict[str, Callable[[], Any]] = {
            f"{name}, bare backbone": partial(bare.infer, [pixels.transpose(0, 3, 1, 2) / np.float32(255)])
        }
        requests = {f"{name}, bare backbone": bare}
        for size in sizes:
            detector.centre = everything.mean(0)
            detector.bank = everything[:size] - detector.centre
            request = compiled(trace(detector, (side, side), preprocess), (1, side, side, 3))
            tasks[f"{name}, {size:,} memories"] = partial(request.infer, [pixels])
            requests[f"{name}, {size:,} memories"] = request
        taken: dict[str, list[float]] = defaultdict(list)
        for _ in range(ROUNDS + 1):
            for case, task in tasks.items():
                begun = time.process_time()
                task()
                taken[case].append(1e3 * (time.process_time() - begun))
        for case, values in taken.items():
            ms = statistics.median(values[1:])
            found[case] = {"ms": ms, "times the bare backbone": ms / statistics.median(next(iter(taken.values()))[1:])}
            found[case] |= by_kind(requests[case])
        if name == "patchcore":
            share = could_be_nearest((each[-1] - detector.centre).numpy(), detector.bank.numpy())
            found[case]["could be nearest"] = share
    rows = [
        {
            "case": case, "figure": figure, "value": f"{value:.4g}",
            "command": "python benchmarks/engine_floor.py FOLDER", "versions": versions(), "machine": machine("cpu"),
            "date": datetime.date.today().isoformat(),
        }
        for case, figures in found.items()
        for figure, value in figures.items()
    ]  # fmt: skip
    write_rows(RESULTS, FIELDS, rows)
    for row in rows:
        print(row["case"], row["figure"], row["value"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
