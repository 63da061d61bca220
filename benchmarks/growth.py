"""How a fit, an inspection and their memory grow with the number of images and with the memory's size.

    python benchmarks/growth.py FOLDER_OF_OK_IMAGES [--threads 2] [--most IMAGES] [--only CASE ...]

The cases, by their column `grows`:
- "images", "patches kept": PatchCore at 128 px, 256 patches an image.
- "images of 32 px": PatchCore with 2,000 patches kept, to 100,000 images, within `max_memory` 2. They are small, so
  that it takes minutes: what is read, found to be copies, held out, gathered and reduced is what large images take too.
- "images of 256 px": the default detector within `max_memory` 2, whose shares of pixels and of patches are full from
  1,000 images on.
- "inspected images": `okng inspect --csv --report` of a small autoencoder, exported.
- "reported images": its table and report alone, of a million made-up results, all of other sizes than those learnt.

Images are crops of the given ones, turned and mirrored at random, a quarter larger than the input. Every case is a
process of its own, so that its peak memory is its own: `peak_gb`. Times are of the processor: `cpu_s` of the fit or of
the whole inspection, `inspect_ms` of an image. Writes results/growth.csv after each case, the exponents of the power
laws that fit best (least squares in the logarithms) among its rows; `--only` leaves the rows of others as they are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from okng.benchmark.rows import read_rows, write_rows

RESULTS = Path(__file__).parents[1] / "results" / "growth.csv"
WITHIN = 2.0  # GB
KEPT = 2000
SMALL = {"size": 32, "coreset_size": KEPT, "max_memory": WITHIN}
INSPECTED, REPORTED = "inspected images", "reported images"
Case = tuple[int, int, str, dict[str, Any]]  # what grows, images, detector, arguments
CASES: dict[str, list[Case]] = {
    "images": [(n, n, "patchcore", {"size": 128, "coreset_size": KEPT}) for n in (100, 1000, 10_000)],
    "patches kept": [
        (bank, 1000, "patchcore", {"size": 128, "coreset_size": bank}) for bank in (1000, 4000, 16_000, 64_000)
    ],
    "images of 32 px": [(n, n, "patchcore", SMALL) for n in (1000, 3000, 10_000, 30_000, 100_000)],
    "images of 256 px": [
        (n, n, "patch_memory", {"size": 256, "max_memory": WITHIN}) for n in (500, 1000, 2000, 10_000)
    ],
    INSPECTED: [(n, n, "autoencoder", {"size": 32}) for n in (1000, 3000, 10_000, 30_000, 100_000)],
    REPORTED: [(n, n, "report", {"size": 32}) for n in (10_000, 100_000, 300_000, 1_000_000)],
}


def fit(files: list[Path], detector: str, arguments: dict[str, Any]) -> dict[str, float]:
    """Learn from `files`, 20 of them held out, then inspect some of them one by one by OpenVINO."""
    import okng
    from okng.exporting import export_onnx

    busy = time.process_time()
    inspector = okng.fit(files, detector, holdout=20 / len(files), device="cpu", **arguments)
    found = {"cpu_s": time.process_time() - busy, "peak_gb": peak()}
    with tempfile.TemporaryDirectory() as where:
        export_onnx(inspector, Path(where) / "parts.onnx")
        line = okng.load(Path(where) / "parts.onnx", engine="openvino")
        taken = []
        for file in files[:60]:
            busy = time.process_time()
            list(line.inspect(file))
            taken.append(time.process_time() - busy)
    return {**found, "inspect_ms": 1000 * float(np.median(taken[10:]))}


def inspect(model: str, folder: Path) -> dict[str, float]:
    """The whole command, with a table and a report."""
    from okng.cli import main as command

    busy = time.process_time()
    with tempfile.TemporaryDirectory() as where:
        sys.argv = ["okng", "inspect", model, str(folder), "--csv", f"{where}/all.csv", "--report", where]
        try:
            command()
        except SystemExit as end:
            if end.code:
                raise
    return {"cpu_s": time.process_time() - busy, "peak_gb": peak()}


def report(model: str, file: Path, count: int) -> dict[str, float]:
    """What an inspection keeps: table, report and what images are like, of `count` made of what is said of one."""
    import okng
    from okng.inspection.outputs import CsvFile
    from okng.inspection.verdict.likeness import Likeness

    inspector = okng.load(model)
    (seen,) = inspector.inspect(file)
    rng = np.random.default_rng(0)
    busy = time.process_time()
    with tempfile.TemporaryDirectory() as where:
        table, page = CsvFile(Path(where) / "all.csv"), okng.Report("growth", inspector, total=count)
        likeness = Likeness(inspector.learnt_images)
        for i in range(count):
            one = replace(seen, index=i, path=f"/parts/lot-{i // 1000}/{i:07}.png", score=float(rng.normal()))
            table.add(one)
            page.add(one)
            likeness.add(another_size(one, rng), one.is_ng)
        table.close(complete=True)
        page.write(Path(where) / "report.html")
    return {"cpu_s": time.process_time() - busy, "peak_gb": peak()}


def another_size(inspection: Any, rng: np.random.Generator) -> Any:
    """What the image is like, but of any size: unlike those learnt."""
    return inspection.traits._replace(size=(int(rng.integers(100, 1000)), int(rng.integers(100, 1000))))


def peak() -> float:
    """GB of memory that this program has held at most, on Linux; `getrusage` counts what started it, too."""
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6


def small_model(files: list[Path], target: Path) -> None:
    """An exported autoencoder that takes no time."""
    import okng
    from okng.exporting import export_onnx

    arguments = {"width": 4, "code": 4, "epochs": 1}
    export_onnx(okng.fit(files, "autoencoder", size=32, holdout=0.5, device="cpu", **arguments), target)


def crops(source: Path, target: Path, count: int, side: int) -> None:
    """Write `count` crops of the images in `source`."""
    rng = np.random.default_rng(0)
    originals = [Image.open(file).convert("RGB") for file in sorted(source.iterdir())]
    for i in range(count):
        image = originals[rng.integers(len(originals))]
        left, top = (int(rng.integers(edge - side + 1)) for edge in image.size)
        crop = np.asarray(image.crop((left, top, left + side, top + side)))
        turned = np.rot90(crop, int(rng.integers(4)))[:, :: int(rng.choice([-1, 1]))]
        Image.fromarray(np.ascontiguousarray(turned)).save(target / f"{i:06}.png", compress_level=1)


def worker(folder: Path, count: int, detector: str, arguments: dict[str, Any]) -> dict[str, float]:
    """One case."""
    files = sorted(folder.glob("*.png"))[:count]
    model, some = folder / "small.onnx", folder / str(count)
    if detector == "report":
        return report(str(model), files[0], count)
    if detector != "autoencoder":
        return fit(files, detector, arguments)
    some.mkdir()
    for file in files:
        os.link(file, some / file.name)
    return inspect(str(model), some)


def main() -> None:
    """Run every case and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=1_000_000, help="leave out cases of more images, on a busy machine")
    named = ", ".join(f'"{grows}"' for grows in CASES)
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=f"any of {named}, in quotes"
    )
    asked = parser.parse_args()
    settings = {"OMP_NUM_THREADS": str(asked.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    common = {
        "threads": asked.threads,
        "command": "python benchmarks/growth.py FOLDER_OF_OK_IMAGES",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("okng", "torch", "openvino")),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "date": datetime.date.today().isoformat(),
    }
    columns = ("grows", "size", "images", "patches kept", "figure", "value", *common)
    for grows in asked.only:
        cases = [case for case in CASES[grows] if case[1] <= asked.most]
        measured: list[tuple[Case, dict[str, float]]] = []
        with tempfile.TemporaryDirectory() as folder:
            side = cases[0][3]["size"]
            most = 60 if grows == REPORTED else max(case[1] for case in cases)
            crops(asked.folder, Path(folder), most, side + side // 4)
            if grows in (INSPECTED, REPORTED):
                small_model(sorted(Path(folder).iterdir())[:60], Path(folder) / "small.onnx")
            for case in cases:
                command = [sys.executable, __file__, "--worker", json.dumps([folder, *case[1:]])]
                environment = {**os.environ, **settings}
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
                measured.append((case, json.loads(done.stdout.splitlines()[-1])))
                print(grows, *measured[-1], flush=True)
                rows = [{"grows": grows, **row, **common} for row in figures(measured)]
                write_rows(RESULTS, columns, [*(row for row in read_rows(RESULTS) if row["grows"] != grows), *rows])


def figures(measured: list[tuple[Case, dict[str, float]]]) -> list[dict[str, Any]]:
    """A row for each figure of each case, and for its exponent."""
    rows: list[dict[str, Any]] = []
    points: dict[str, list[tuple[float, float]]] = {}
    for (size, count, _, arguments), found in measured:
        for figure, value in found.items():
            kept = arguments.get("coreset_size", "")
            rows.append({"size": size, "images": count, "patches kept": kept, "figure": figure, "value": value})
            points.setdefault(figure, []).append((size, value))
    for figure, pairs in points.items():
        if len(pairs) > 1:
            slope = float(np.polyfit(*np.log(np.array(pairs, float)).T, 1)[0])
            rows.append({"size": "exponent", "figure": figure, "value": slope})
    return [{**row, "value": f"{row['value']:.4g}"} for row in rows]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        where, *others = json.loads(sys.argv[2])
        print(json.dumps(worker(Path(where), *others)))
    else:
        main()
