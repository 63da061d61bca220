"""PatchCore's fit beside its floor, one pass of the backbone over the same images; interleaved, medians.

    python benchmarks/fit_time.py FOLDER_OF_OK_IMAGES [RUNS]

Also the coreset at MVTec transistor's size with anomalib's share of it (218,112 patches, 8,069 kept). Writes
results/fit_time.csv.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

import okng
from okng.benchmark.reproduce import versions
from okng.benchmark.rows import write_rows
from okng.detectors.catalogue import create
from okng.inspection.reading.files import find_images
from okng.inspection.reading.images import Preprocess
from okng.nn.vectors.coreset import greedy_coreset
from okng.training.images.data import TrainingImages

RESULTS = Path(__file__).parents[1] / "results" / "fit_time.csv"


def backbone_pass(files: list[Path]) -> float:
    """Seconds to read all images and run the backbone over them in batches of 16."""
    detector = create("patchcore")
    images = TrainingImages(files, Preprocess("RGB", 256, detector.multiple))
    start = time.perf_counter()
    with torch.no_grad():
        for _, pixels in images.load(images.batches(16, shuffle=False)):
            detector.backbone(pixels.float() / 255)
    return time.perf_counter() - start


def fit(files: list[Path]) -> float:
    """Seconds of one `okng.fit`, a fifth held out: reading, features, coreset, calibration."""
    start = time.perf_counter()
    okng.fit(files, "patchcore", promise="strict")
    return time.perf_counter() - start


def coreset(points: torch.Tensor) -> float:
    """Seconds to pick 8,069 of 218,112 points."""
    start = time.perf_counter()
    greedy_coreset(points, 8069)
    return time.perf_counter() - start


def main(folder: str, runs: int = 3) -> None:
    """Time the three in turn and write their medians."""
    files = find_images(Path(folder))
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(40, 152, generator=generator)  # features have far fewer directions than dimensions
    points = torch.randn(218_112, 40, generator=generator) @ mixing + torch.randn(218_112, 152, generator=generator)
    backbone_pass(files[:16])
    taken: dict[str, list[float]] = {"backbone pass": [], "okng.fit": [], "coreset 218,112 to 8,069": []}
    for _ in range(runs):
        taken["backbone pass"].append(backbone_pass(files))
        taken["okng.fit"].append(fit(files))
        taken["coreset 218,112 to 8,069"].append(coreset(points))
    rows = []
    for what, seconds in taken.items():
        median = f"{statistics.median(seconds):.2f}"
        rows.append({
            "what": what, "images": len(files), "seconds (median)": median, "runs": runs,
            "command": f"python benchmarks/fit_time.py FOLDER {runs}", "versions": versions(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {torch.get_num_threads()} threads",
            "date": datetime.date.today(),
        })  # fmt: skip
        print(f"{what}: {median} s, median of {[round(s, 2) for s in seconds]}")
    write_rows(RESULTS, rows[0], rows)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
