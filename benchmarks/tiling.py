"""Tiling: a scratch of 2 px on images of 4096 x 4096, and what it takes to find it.

    python benchmarks/tiling.py DATA

DATA holds magnetic_tile/. Each image is made of 16 x 16 OK surfaces of 256 px. "repeated": one and the same, mirrored
so that there are no seams, each copy with a brightness and noise of its own, all moved by a random amount. "mosaic",
which is harder: different ones side by side, turned at random, one set for learning and one for testing; the seams are
odd places themselves. The scratch, 2 x 160 px and 60 grey levels darker, lies where a seed puts it; it is found if the
image is NG and its map is highest there. The default detector, with a memory of 500 patches, learns 2 images and 2
calibrate: as a whole, and by tiles of 512. Time and peak memory (of processes of their own, PyTorch on one thread) are
of one image more. Writes results/tiling.csv.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from okng.benchmark.reproduce import versions
from okng.benchmark.rows import write_rows
from okng.datasets import OK, open_dataset

RESULTS = Path(__file__).parents[1] / "results" / "tiling.csv"
FIELDS = ("texture", "case", "side", "figure", "value", "n", "seed", "command", "versions", "machine", "date")
LEARNT, TESTED, SEED, SURFACE = 4, 3, 0, 256
LENGTH, WIDTH, DARKER = 160, 2, 60


def surfaces(images: list[Any]) -> list[np.ndarray]:
    """The middles of those images that are large enough."""
    found = []
    for image in images:
        grey = np.asarray(Image.open(image).convert("L"))
        top, left = ((side - SURFACE) // 2 for side in grey.shape)
        if min(top, left) >= 0:
            found.append(grey[top : top + SURFACE, left : left + SURFACE])
    return found


def mosaic(parts: list[np.ndarray], side: int, rng: np.random.Generator) -> np.ndarray:
    """An image of side x side."""
    count = side // SURFACE
    rows = [
        np.hstack([np.rot90(parts[rng.integers(len(parts))], rng.integers(4)) for _ in range(count)])
        for _ in range(count)
    ]
    return np.vstack(rows)


def repeated(part: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """An image of side x side: one surface over and over, mirrored at each border."""
    count = side // SURFACE
    flipped = [part, part[:, ::-1]]
    rows = [np.hstack([flipped[k % 2][:: -1 if i % 2 else 1] for k in range(count)]) for i in range(count)]
    gains = np.kron(rng.normal(1, 0.02, (count, count)), np.ones((SURFACE, SURFACE)))
    image = np.vstack(rows) * gains + rng.normal(0, 2, (side, side))
    moved = np.roll(image, tuple(int(by) for by in rng.integers(side, size=2)), (0, 1))
    return np.clip(moved, 0, 255).astype(np.uint8)


def scratched(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """A scratch somewhere, lying or upright, and where its middle is (x, y)."""
    marked = image.copy()
    top, left = (int(at) for at in rng.integers(LENGTH, image.shape[0] - 2 * LENGTH, 2))
    high, wide = (LENGTH, WIDTH) if rng.random() < 0.5 else (WIDTH, LENGTH)
    part = marked[top : top + high, left : left + wide]
    part[:] = np.maximum(part.astype(int) - DARKER, 0)
    return marked, (left + part.shape[1] // 2, top + part.shape[0] // 2)


def worker(task: str, folder: Path, case: str, side: int) -> dict[str, float]:
    """Fit, or inspect one image after another: what it took."""
    import torch

    import okng

    torch.set_num_threads(1)
    begun = time.perf_counter()
    if task == "fit":
        how: dict[str, Any] = {"tile": 512, "overlap": 64} if case == "tiles" else {}
        model = okng.fit(
            folder / "ok", coreset_limit=500, holdout=0.5, false_alarm_rate=0.3, device="cpu", seed=SEED, **how
        )
        model.save(folder / f"{case}.okng")
        took = {"fit_s": time.perf_counter() - begun}
    else:
        model = okng.load(folder / f"{case}.okng", threads=1)
        next(model.inspect(folder / "one" / "1024.png"))  # warms up
        begun = time.perf_counter()
        next(model.inspect(folder / "one" / f"{side}.png"))
        took = {"inspect_s": time.perf_counter() - begun}
        if side == 4096:
            places = json.loads((folder / "places.json").read_text())
            bad = list(model.inspect(folder / "ng"))
            took |= {
                "scratches found": float(sum(f.is_ng and near(f, at) for f, at in zip(bad, places, strict=True))),
                "false alarms": float(sum(found.is_ng for found in model.inspect(folder / "new"))),
            }
    return took | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}  # kB on Linux


def near(found: Any, at: tuple[int, int]) -> bool:
    """Whether the highest point of the map is at the scratch, within its length."""
    y, x = np.unravel_index(int(found.map.argmax()), found.map.shape)
    cell = found.size[0] / found.map.shape[0]
    return bool(np.hypot((x + 0.5) * cell - at[0], (y + 0.5) * cell - at[1]) < LENGTH)


def main() -> None:
    """Draw the images, run every case and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        task, case, side = asked.worker
        print(json.dumps(worker(task, asked.data, case, int(side))))
        return
    rng = np.random.default_rng(SEED)
    dataset = open_dataset(asked.data / "magnetic_tile")
    learnt = surfaces([sample.image for sample in dataset.train])
    tested = surfaces([sample.image for sample in dataset.test if sample.label == OK])
    rows: list[dict[str, Any]] = []

    def put(texture: str, case: str, task: str, side: int, took: dict[str, float]) -> None:
        for figure, value in took.items():
            figure = f"{task}_{figure}" if figure == "peak_gb" else figure
            rows.append({
                "texture": texture, "case": case, "side": side, "figure": figure, "value": f"{value:.4g}",
                "n": LEARNT if task == "fit" else TESTED if " " in figure else 1, "seed": SEED,
                "command": "python benchmarks/tiling.py DATA", "versions": versions(),
                "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU, one thread",
                "date": datetime.date.today().isoformat(),
            })  # fmt: skip
            print(texture, case, side, figure, rows[-1]["value"], flush=True)

    def drawn(texture: str, parts: list[np.ndarray], side: int) -> np.ndarray:
        return mosaic(parts, side, rng) if texture == "mosaic" else repeated(learnt[0], side, rng)

    for texture in ("repeated", "mosaic"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part in ("ok", "new", "ng", "one"):
                (folder / part).mkdir()
            for i in range(LEARNT):
                Image.fromarray(drawn(texture, learnt, 4096)).save(folder / "ok" / f"{i}.png", compress_level=1)
            places = []
            for i in range(TESTED):
                image = drawn(texture, tested, 4096)
                Image.fromarray(image).save(folder / "new" / f"{i}.png", compress_level=1)
                marked, at = scratched(image, rng)
                places.append(at)
                Image.fromarray(marked).save(folder / "ng" / f"{i}.png", compress_level=1)
            (folder / "places.json").write_text(json.dumps(places))
            for side in (1024, 2048, 4096):
                Image.fromarray(drawn(texture, tested, side)).save(folder / "one" / f"{side}.png", compress_level=1)
            for case in ("whole", "tiles"):
                for task, side in (("fit", 4096), ("inspect", 2048), ("inspect", 4096)):
                    words = [sys.executable, __file__, str(folder), "--worker", task, case, str(side)]
                    done = subprocess.run(words, capture_output=True, text=True, check=True)
                    put(texture, case, task, side, json.loads(done.stdout.splitlines()[-1]))
    write_rows(RESULTS, FIELDS, rows)


if __name__ == "__main__":
    main()
