"""Seconds, memory and exactness of pixel AUROC and AUPRO: all at once, and streamed.

    python benchmarks/pixel_metrics.py [--before SRC] [--maps 1000]

50 made-up maps of 1024²: okng's exact metrics, those of an older checkout whose `src` is SRC, and adeval's
approximation where it is installed (`pip install adeval`); processor time of one thread, each in a process of its own,
medians of rounds in turns. Then so many maps streamed, the same ones at other scales, with the bound of their error,
the most memory it takes, and what 50 maps are off. Writes results/pixel_metrics.csv.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from okng.benchmark.reproduce import machine, versions
from okng.benchmark.rows import write_rows
from okng.metrics import PixelMetrics, StreamingPixelMetrics, pixel_metrics

RESULTS = Path(__file__).parents[1] / "results"
FIELDS = ("benchmark", "figure", "value", "command", "seed", "versions", "machine", "date")
ROUNDS, COUNT, SIDE = 3, 50, 1024


def made_up(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask (SIDE, SIDE) of one to four discs, and a noisy map that half finds them."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    mask, heat = np.zeros((SIDE, SIDE), bool), rng.normal(0, 0.3, (SIDE, SIDE)).astype(np.float32)
    for _ in range(rng.integers(1, 5)):
        (cy, cx), radius = rng.uniform(100, SIDE - 100, 2), rng.uniform(10, 90)
        distance = (y - cy) ** 2 + (x - cx) ** 2
        mask |= distance < radius**2
        heat += rng.uniform(0.3, 1.5) * np.exp(-distance / (2 * (rng.uniform(0.6, 1.6) * radius) ** 2))
    return mask, heat


def once(library: str, masks: str, maps: str) -> dict[str, float]:
    """Processor seconds and values of both metrics, in this process."""
    truth, heat = np.load(masks), np.load(maps)
    if library == "adeval":
        np.trapz = np.trapezoid  # type: ignore[attr-defined]  # noqa: NPY201  its version 1.1.0 calls the old name
        import adeval

        begun = time.process_time()
        accumulator = adeval.EvalAccumulator(float(heat.min()), float(heat.max()))
        for one, mask in zip(heat, truth, strict=True):
            accumulator.add_anomap(one, mask.astype(np.uint8))
        summary = accumulator.summary()
        found = summary["p_auroc"], summary["p_aupro"]
    else:
        import scipy.ndimage  # noqa: F401  adeval's libraries are imported beforehand, too

        begun = time.process_time()
        found = pixel_metrics(truth, heat)
    seconds = time.process_time() - begun
    return {"seconds": seconds, "pixel_auroc": float(found[0]), "aupro": float(found[1])}


def in_turns(pairs: list[tuple[np.ndarray, np.ndarray]], before: Path | None) -> dict[str, Any]:
    """Medians by library and figure."""
    here = Path(__file__).parents[1] / "src"
    libraries = {"okng": here} | ({} if before is None else {"okng before": before})
    libraries |= {"adeval": here} if find_spec("adeval") else {}
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        masks, maps = (np.stack(each) for each in zip(*pairs, strict=True))
        paths = [f"{folder}/masks.npy", f"{folder}/maps.npy"]
        np.save(paths[0], masks)
        np.save(paths[1], maps)
        for _ in range(ROUNDS):
            for name, source in libraries.items():
                path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
                environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
                command = [sys.executable, __file__, "--once", name, *paths]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                for figure, value in json.loads(done.stdout.splitlines()[-1]).items():
                    taken[f"{name}, {figure}"].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def streamed(pairs: list[tuple[np.ndarray, np.ndarray]], count: int) -> dict[str, float]:
    """Processor milliseconds a map, peak memory, the bound of the error, and what the first of them are off."""
    tracemalloc.start()
    streaming, seconds = StreamingPixelMetrics(), 0.0
    for index in range(count):
        mask, heat = pairs[index % len(pairs)]
        heat = heat * np.float32(1 + index / count)
        begun = time.process_time()
        streaming.update(mask, heat)
        seconds += time.process_time() - begun
    found = {"ms a map": 1000 * seconds / count, "MB at most": tracemalloc.get_traced_memory()[1] / 1e6}
    tracemalloc.stop()
    for name, value, bound in zip(PixelMetrics._fields, streaming.compute(), streaming.bound(), strict=True):
        found |= {name: value, f"{name}, off by at most": bound}
    streaming = StreamingPixelMetrics()
    for pair in pairs:
        streaming.update(*pair)
    exact = pixel_metrics(*zip(*pairs, strict=True))
    for name, value, true in zip(exact._fields, streaming.compute(), exact, strict=True):
        found[f"{name} of {len(pairs)} maps, off by"] = abs(value - true)
    return found


def main() -> None:
    """Measure, and write a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="SRC")
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        print(json.dumps(once(*asked.once)))
        return
    pairs = [made_up(index) for index in range(COUNT)]
    found = {
        f"{COUNT} x {SIDE}²": in_turns(pairs, asked.before),
        f"{asked.maps} x {SIDE}², streamed": streamed(pairs, asked.maps),
    }
    fixed = {
        "command": "python benchmarks/pixel_metrics.py --before SRC", "seed": 0, "versions": versions(),
        "machine": machine("cpu"), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    rows = [
        {"benchmark": benchmark, "figure": figure, "value": f"{value:.6g}", **fixed}
        for benchmark, figures in found.items()
        for figure, value in figures.items()
    ]
    write_rows(RESULTS / "pixel_metrics.csv", FIELDS, rows)
    for row in rows:
        print(row["benchmark"], row["figure"], row["value"])


if __name__ == "__main__":
    main()
