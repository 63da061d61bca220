"""A vision transformer at 448 px: memory and time of a fit and of an inspection, by PyTorch, ONNX Runtime and OpenVINO.

    python benchmarks/vit.py [DETECTOR] [BACKBONE] [--images 60] [--size 448]

Random weights, which take the time of trained ones, and made-up images. Each measurement is a process of its own, whose
peak is the most memory that it had; loading PyTorch alone takes some 400 MB. Seconds are medians of single images, and
of the fit its whole time divided by the images; beside them the processor's, of all cores together, which other
programs on the machine move less. Writes results/vit.csv.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "vit.csv"
INSPECTED = 8
SETTINGS = {"anomalydino": {"rotations": 1, "coreset": 0.1}}


def pictures(count: int, size: int, seed: int) -> list[np.ndarray]:
    """uint8 (size, size, 3): coarse noise, a different one each time."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, size // 32, size // 32, 3), dtype=np.uint8)
    return [image.repeat(32, 0).repeat(32, 1) for image in coarse]


def fit(detector: str, backbone: str, images: int, size: int, folder: Path) -> dict[str, float]:
    """One fit, a fifth held out, saved and exported afterwards."""
    import okng

    arguments = {"backbone": backbone, "weights": "none", "size": size, **SETTINGS.get(detector, {})}
    given = pictures(images, size, seed=0)
    begun, worked = time.perf_counter(), time.process_time()
    inspector = okng.fit(given, detector, promise="strict", device="cpu", **arguments)  # type: ignore[arg-type]
    took = {
        "seconds": (time.perf_counter() - begun) / images,
        "processor": (time.process_time() - worked) / images,
        "peak_mb": peak(),
    }
    inspector.save(folder / "parts.okng")
    okng.export(folder / "parts.okng", folder / "parts.onnx")
    return took


def inspection(engine: str, size: int, folder: Path) -> dict[str, float]:
    """Single images by an engine, after one that warms up."""
    import okng

    inspector = okng.load(folder / ("parts.okng" if engine == "torch" else "parts.onnx"), engine=engine)
    wall, worked = [], []
    for image in pictures(INSPECTED + 1, size, seed=1):
        begun, spent = time.perf_counter(), time.process_time()
        list(inspector.inspect([image]))
        wall.append(time.perf_counter() - begun)
        worked.append(time.process_time() - spent)
    return {"seconds": statistics.median(wall[1:]), "processor": statistics.median(worked[1:]), "peak_mb": peak()}


def peak() -> float:
    """The most memory that this process had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # kB on Linux


def main() -> None:
    """Measure each in a process of its own and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", nargs="?", default="anomalydino")
    parser.add_argument("backbone", nargs="?", default="vit_small_patch14_dinov2")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--one", nargs=2, metavar=("STEP", "FOLDER"), help="a measurement of this script's own")
    asked = parser.parse_args()
    if asked.one:
        step, folder = asked.one[0], Path(asked.one[1])
        if step == "fit":
            print(json.dumps(fit(asked.detector, asked.backbone, asked.images, asked.size, folder)))
        else:
            print(json.dumps(inspection(step, asked.size, folder)))
        return

    from okng.benchmark.code import present_code
    from okng.benchmark.reproduce import versions
    from okng.benchmark.rows import read_rows, write_rows

    words = [asked.detector, asked.backbone, "--images", str(asked.images), "--size", str(asked.size)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for step in ("fit", "torch", "onnxruntime", "openvino"):
            command = [sys.executable, __file__, *words, "--one", step, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            took = json.loads(done.stdout.splitlines()[-1])
            rows.append({
                "detector": asked.detector, "backbone": asked.backbone, "size": asked.size,
                "step": step if step == "fit" else f"inspection, {step}",
                "images": asked.images if step == "fit" else INSPECTED,
                "seconds an image": f"{took['seconds']:.3f}", "processor's": f"{took['processor']:.3f}",
                "peak, MB": f"{took['peak_mb']:.0f}", "command": f"python benchmarks/vit.py {' '.join(words)}",
                "code": present_code(asked.detector), "versions": versions(),
                "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU", "date": datetime.date.today(),
            })  # fmt: skip
            print(*(f"{key} {value}" for key, value in list(rows[-1].items())[3:8]), sep="; ", flush=True)
    whose = (asked.detector, asked.backbone, str(asked.size))
    others = [r for r in read_rows(RESULTS) if (r["detector"], r["backbone"], r["size"]) != whose]
    write_rows(RESULTS, rows[0], [*others, *rows])


if __name__ == "__main__":
    main()
