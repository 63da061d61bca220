"""What a GPU gives: time to learn and to judge, memory, and how far its scores lie from the CPU's.

    python benchmarks/gpu.py DATA [--methods NAME …]

DATA holds mvtec_ad/transistor/. Each method learns the whole training set on the GPU and on the CPU, with its arguments
for a CPU; then both judge the test images, the GPU with the detector learnt on the CPU. Writes results/gpu.csv; where
there is no GPU it says so and writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from measure import FIELDS, RESULTS, row

import okng
from okng.benchmark.reproduce import machine
from okng.benchmark.rows import write_rows
from okng.datasets import open_dataset
from okng.detectors.budgets import arguments_for
from okng.detectors.engine import TorchEngine
from okng.inspection.inspector import Inspector

METHODS = ("patch_memory", "patchcore", "fastflow", "reverse_distillation", "autoencoder")
BATCHES = (1, 32)
SECONDS = 2.0  # of judging, at least


def engine_of(inspector: Inspector) -> TorchEngine:
    """The torch engine of a fitted inspector."""
    assert isinstance(inspector.engine, TorchEngine)
    return inspector.engine


def per_image(engine: TorchEngine, pixels: np.ndarray) -> float:
    """Milliseconds an image of `pixels` (B, H, W, C): the median of what fits in `SECONDS`."""
    engine(pixels)
    engine(pixels)
    taken: list[float] = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or len(taken) < 3:
        begun = time.perf_counter()
        engine(pixels)  # ends with scores in the CPU's memory
        taken.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(taken)) / len(pixels)


def measured(detector: str, data: Path) -> list[dict]:
    """The rows of one method."""
    dataset = open_dataset(str(data / "mvtec_ad" / "transistor"))
    ok, tests = [s.image for s in dataset.train], [s.image for s in dataset.test]
    arguments = {"promise": "strict", **(arguments_for("cpu", detector, small=False) or {})}
    figures: dict[str, float] = {}
    fitted: dict[str, Inspector] = {}
    for device in ("cuda", "cpu"):
        begun = time.monotonic()
        fitted[device] = okng.fit(ok, detector, device=device, **arguments)
        figures[f"fit_seconds_{device}"] = time.monotonic() - begun
    on_cpu = engine_of(fitted["cpu"])
    engines = {"cpu": on_cpu, "cuda": TorchEngine(copy.deepcopy(on_cpu.detector), "cuda")}
    judged = {}
    for device, engine in engines.items():
        begun = time.monotonic()
        one = Inspector(engine, fitted["cpu"].preprocess, fitted["cpu"].calibration, fitted["cpu"].manifest)
        judged[device] = np.array([inspection.score for inspection in one.inspect(tests)])
        figures[f"files_ms_{device}"] = 1e3 * (time.monotonic() - begun) / len(tests)
    figures["scores_apart"] = float(np.abs(judged["cuda"] - judged["cpu"]).max() / np.ptp(judged["cpu"]))
    side = fitted["cpu"].preprocess.size if isinstance(fitted["cpu"].preprocess.size, tuple) else (256, 256)
    for batch in BATCHES:
        pixels = np.random.default_rng(0).integers(0, 255, (batch, *side, 3), np.uint8)
        for device, engine in engines.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            figures[f"engine_ms_{device}_{batch}"] = per_image(engine, pixels)
    figures["peak_gpu_megabytes"] = torch.cuda.max_memory_allocated() / 2**20
    more = {
        "arguments": arguments,
        "machine": machine(),
        "command": f"python benchmarks/gpu.py DATA --methods {detector}",
    }
    place = (f"gpu {detector}", detector, dataset.name, dataset.protocol)
    return [row(*place, metric, value, **more) for metric, value in figures.items()]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--rows", type=Path, default=RESULTS / "gpu.csv")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU that torch can use here, so there is nothing to measure")
        return
    rows: list[dict] = []
    for detector in asked.methods:
        rows += measured(detector, asked.data.expanduser())
        print(
            detector, *(f"{r['metric']} {float(r['value']):.4g}" for r in rows if r["detector"] == detector), flush=True
        )
        write_rows(asked.rows, FIELDS, rows)


if __name__ == "__main__":
    main()
