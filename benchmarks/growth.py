"""How PatchCore's fit, inspection and memory grow with the number of images and with the memory's size.

    python benchmarks/growth.py FOLDER_OF_OK_IMAGES [--threads 2]

Images are 160 px crops of the given ones, turned and mirrored at random; input 128 px, 256 patches each. Every case is
a process of its own, so that its peak memory is its own. Writes results/growth.csv, the exponents of the power laws
that fit best (least squares in the logarithms) among its rows.
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
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from okng.benchmark.rows import write_rows

RESULTS = Path(__file__).parents[1] / "results" / "growth.csv"
IMAGES, BANK_FOR_IMAGES = (100, 1000, 10_000), 2000
BANKS, IMAGES_FOR_BANKS = (1000, 4000, 16_000, 64_000), 1000
FIGURES = ("fit_s", "inspect_ms", "peak_gb")


def worker(folder: str, count: int, bank: int) -> dict[str, float]:
    """Fit on `count` images, then inspect some of them one by one by OpenVINO."""
    import okng
    from okng.exporting import export_onnx

    files = sorted(Path(folder).iterdir())[:count]
    start = time.perf_counter()
    inspector = okng.fit(files, "patchcore", size=128, coreset_size=bank, holdout=20 / count)
    fit = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
    with tempfile.TemporaryDirectory() as where:
        export_onnx(inspector, Path(where) / "parts.onnx")
        line = okng.load(Path(where) / "parts.onnx", engine="openvino")
        taken = []
        for file in files[:60]:
            start = time.perf_counter()
            list(line.inspect(file))
            taken.append(time.perf_counter() - start)
    return {"fit_s": fit, "inspect_ms": 1000 * float(np.median(taken[10:])), "peak_gb": peak}


def crops(source: Path, target: Path, count: int) -> None:
    """Write `count` crops of the images in `source`."""
    rng = np.random.default_rng(0)
    originals = [Image.open(file).convert("RGB") for file in sorted(source.iterdir())]
    for i in range(count):
        image = originals[rng.integers(len(originals))]
        left, top = (int(rng.integers(side - 160 + 1)) for side in image.size)
        crop = np.asarray(image.crop((left, top, left + 160, top + 160)))
        turned = np.rot90(crop, int(rng.integers(4)))[:, :: int(rng.choice([-1, 1]))]
        Image.fromarray(np.ascontiguousarray(turned)).save(target / f"{i:05}.png", compress_level=1)


def main() -> None:
    """Run every case and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    settings = {"OMP_NUM_THREADS": str(asked.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    cases = [("images", n, n, BANK_FOR_IMAGES) for n in IMAGES]
    cases += [("patches kept", bank, IMAGES_FOR_BANKS, bank) for bank in BANKS]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        crops(asked.folder, Path(folder), max(IMAGES))
        for grows, size, count, bank in cases:
            command = [sys.executable, __file__, "--worker", json.dumps([folder, count, bank])]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **settings})
            found = json.loads(done.stdout.splitlines()[-1])
            print(grows, size, found, flush=True)
            rows += [
                {"grows": grows, "size": size, "images": count, "patches kept": bank, "figure": name, "value": value}
                for name, value in found.items()
            ]
    for grows in ("images", "patches kept"):
        for figure in FIGURES:
            points = [(r["size"], r["value"]) for r in rows if r["grows"] == grows and r["figure"] == figure]
            slope = float(np.polyfit(*np.log(np.array(points, float)).T, 1)[0])
            rows.append({"grows": grows, "size": "exponent", "figure": figure, "value": slope})
    common = {
        "threads": asked.threads,
        "command": "python benchmarks/growth.py FOLDER_OF_OK_IMAGES",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("okng", "torch", "openvino")),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "date": datetime.date.today().isoformat(),
    }
    columns = ("grows", "size", "images", "patches kept", "figure", "value", *common)
    write_rows(RESULTS, columns, [{**row, "value": f"{row['value']:.4g}", **common} for row in rows])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(worker(*json.loads(sys.argv[2]))))
    else:
        main()
