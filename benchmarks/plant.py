"""Many machines: what a cluster of two workers says and loses, its memory over many images, what a plant would cost.

    python benchmarks/plant.py [--only many fit cost] [--images 100000] [--price 0.05]

Alone it makes 100,000 files and takes some 17 minutes of two cores for "many"; `--images 5000` is a quick look, in rows
that say so. "cost" needs the rows of "many". Images are crops of the solar cells of the package elpv-dataset, from
`--folder`, which the script fills. The cluster is Ray's on this machine, with a worker for each core. "many": PatchCore
inspects all of them by `okng inspect --ray --parquet` while a worker is killed in the middle, and some of them on one
machine. "fit": what three methods learn of blocks and merge (`nn/vectors/merging.py`), beside one machine. "cost": what
an image takes of one core, measured piece by piece, and from that what 100 million would take, at `--price` dollars for
an hour of a core: an estimate, and nobody's offer. Times are of the processor, so that other work does not count.
Writes results/plant.csv.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet
from torch import Tensor

import okng
from okng.benchmark.rows import read_rows, write_rows
from okng.cluster.fits import spread
from okng.cluster.inspector import BATCHES, Part, _write
from okng.datasets import open_dataset
from okng.detectors.catalogue import create
from okng.exporting import export_onnx
from okng.inspection.inspector import Inspector
from okng.inspection.reading.files import find_images
from okng.inspection.verdict.result import Inspection
from okng.nn.vectors.coreset import covering_radius, greedy_coreset
from okng.nn.vectors.covariance import ledoit_wolf
from okng.nn.vectors.merging import Covered, ShrunkCovariance, merged_gaussians
from okng.nn.vectors.running_gaussians import RunningGaussians

RESULTS = Path(__file__).parents[1] / "results" / "plant.csv"
CAMERA = RESULTS.with_name("camera.csv")
COLUMNS = ("part", "figure", "value", "unit", "command", "seed", "versions", "machine", "date")
LEARNT, MEMORY = 200, 1000  # images, patches that PatchCore keeps of them
FOLDER = 1000  # images in each folder
POINTS = 10  # of the curve of memory
ALONE = 2000  # images that one machine judges, too
KINDS = ("worker", "driver", "Ray")  # of processes
FITTED, BLOCK = 2000, 250  # images
TIMED, ROUNDS = 64, 5  # images in a round
ESTIMATED = 100_000_000  # images
TICK = os.sysconf("SC_CLK_TCK")

Rows = Iterator[tuple[str, float, str]]  # figure, value, unit


def cells() -> list[np.ndarray]:
    """The cells without a defect, uint8 (300, 300) each."""
    return [np.asarray(Image.open(sample.image).convert("L")) for sample in open_dataset("elpv").train]  # type: ignore[arg-type]


def crops(count: int, side: int) -> Iterator[Image.Image]:
    """`count` squares of `side` px of the cells, the same in every run."""
    rng, whole = np.random.default_rng(0), cells()
    for _ in range(count):
        cell = whole[rng.integers(len(whole))]
        top, left = rng.integers(0, 300 - side + 1, 2)
        yield Image.fromarray(np.ascontiguousarray(cell[top : top + side, left : left + side]))


def made(folder: Path, count: int) -> Path:
    """`folder` with `count` crops of 64 px, which are not made twice."""
    if (folder / "whole").exists():
        return folder
    for number, crop in enumerate(crops(count, 64)):
        place = folder / f"{number // FOLDER:03}"
        place.mkdir(parents=True, exist_ok=True)
        crop.save(place / f"{number:06}.png", compress_level=1)
    (folder / "whole").touch()
    return folder


def exported(side: int, folder: Path) -> Path:
    """PatchCore's model for inputs of `side` px."""
    path = folder.with_name(f"{folder.name}-{side}.onnx")
    if not path.exists():
        images = [np.asarray(crop) for crop in crops(LEARNT, side)]
        how: dict[str, Any] = {"device": "cpu", "promise": "strict", "size": side, "coreset_size": MEMORY}
        export_onnx(okng.fit(images, "patchcore", **how), path)
    return path


def processes(root: int) -> dict[int, tuple[str, float, float]]:
    """Of `root` and all that it began: what each is, its own memory in MB, and the seconds of processor it had."""
    parents, found = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            own = next(line for line in (entry / "status").read_text().splitlines() if line.startswith("RssAnon"))
            name = (entry / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, StopIteration):
            continue
        kind = "worker" if "_Judge" in name else "driver" if int(entry.name) == root else "Ray"
        found[int(entry.name)] = kind, int(own.split()[1]) / 1e3, (int(fields[11]) + int(fields[12])) / TICK
    ours = {root}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {pid: found[pid] for pid in ours if pid in found}


def many(images: Path, count: int) -> Rows:
    """All images by `okng inspect --ray --parquet`, watched from outside; in the middle a worker is killed."""
    model = exported(64, images)
    part = BATCHES * okng.load(model).usual_batch()
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        words = [sys.executable, "-m", "okng", "inspect", model, images, "--ray", "local", "--parquet", out]
        begun, point, killed = time.monotonic(), 1, False
        most: dict[str, float] = {}  # MB since the last point
        used: dict[int, tuple[str, float]] = {}
        with subprocess.Popen([*map(str, words), "--threads", "1"], stdout=subprocess.DEVNULL) as run:
            while run.poll() is None:
                time.sleep(0.5)
                seen = processes(run.pid)
                used |= {pid: (kind, seconds) for pid, (kind, _, seconds) in seen.items()}
                for kind, megabytes, _ in seen.values():
                    most[kind] = max(most.get(kind, 0), megabytes)
                written = min(count, part * len(list(out.glob("*.parquet"))))
                if not killed and 2 * written > count:
                    killed = True
                    os.kill(min(pid for pid, (kind, *_) in seen.items() if kind == "worker"), signal.SIGKILL)
                if written >= point * count / POINTS:
                    point = int(written * POINTS / count) + 1
                    for kind in ("driver", "worker"):
                        yield f"{kind}, memory of its own up to {written} images", most[kind], "MB"
                    most = {}
        assert run.returncode == 0 and killed
        yield "time on the clock, beside other work", time.monotonic() - begun, "s"
        for kind in KINDS:
            spent = sum(seconds for name, seconds in used.values() if name == kind)
            yield f"processor, {kind}", 1e3 * spent / count, "ms an image"
        rows = [row for path in sorted(out.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
        yield "images", count, ""
        yield "images without a row", len(set(map(str, find_images(images))) - {row["path"] for row in rows}), ""
        yield "images with two rows", len(rows) - len({row["path"] for row in rows}), ""
        yield "images that could not be read", sum(row["unreadable"] is not None for row in rows), ""
        chosen = rows[:: max(1, len(rows) // ALONE)]
        alone = list(okng.load(model, threads=1).inspect([row["path"] for row in chosen]))
        yield "images compared with one machine", len(chosen), ""
        yield from apart([(row["score"], row["verdict"]) for row in chosen], alone)


def apart(found: Sequence[tuple[float, str]], alone: Sequence[Inspection]) -> Rows:
    """How far the cluster's scores and verdicts are from one machine's."""
    off = max(abs(score - one.score) / one.score for (score, _), one in zip(found, alone, strict=True))
    yield "largest relative difference of a score", off, ""
    yield "other verdicts", sum(verdict != one.verdict for (_, verdict), one in zip(found, alone, strict=True)), ""


def block(task: tuple[list[Any], list[Path]]) -> tuple[RunningGaussians, list[ShrunkCovariance], Covered]:
    """What is kept of a block of images: PaDiM's Gaussians, Mahalanobis' sums of each level, PatchCore's coreset."""
    gaussians, levels, points = gathered(*task)
    return gaussians, [ShrunkCovariance.of(level) for level in levels], Covered.merged([Covered.of(points)], MEMORY)


def gathered(detectors: list[Any], paths: Sequence[Path]) -> tuple[RunningGaussians, list[Tensor], Tensor]:
    """Of images PaDiM's Gaussians, Mahalanobis' vectors of each level (n, C) and PatchCore's patches (N, D)."""
    padim, mahalanobis, patchcore = detectors
    gaussians, vectors, patches = RunningGaussians(), [], []
    with torch.no_grad():
        for batch in pixels(paths):
            gaussians.update(padim.embed(batch))
            vectors.append(mahalanobis.pooled(batch))
            patches.append(patchcore.patches(batch).flatten(0, 2))
    return gaussians, list(torch.cat(vectors).split(mahalanobis.backbone.channels, dim=1)), torch.cat(patches)


def pixels(paths: Sequence[Path]) -> Iterator[Tensor]:
    """Batches (B, 3, 64, 64) in [0, 1]."""
    for begin in range(0, len(paths), 16):
        some = [np.asarray(Image.open(path).convert("RGB")) for path in paths[begin : begin + 16]]
        yield torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float() / 255


def fit(images: Path) -> Rows:
    """Blocks reduced by the workers of a cluster and merged, beside all vectors on one machine."""
    paths = find_images(images)[:FITTED]
    torch.manual_seed(0)
    padim, mahalanobis, patchcore = (
        create("padim", dimensions=50), create("mahalanobis"), create("patchcore", coreset_size=MEMORY)
    )  # fmt: skip
    detectors = [padim.eval(), mahalanobis.eval(), patchcore.eval()]
    tasks = [(begin, (detectors, paths[begin : begin + BLOCK])) for begin in range(0, len(paths), BLOCK)]
    found = [done for _, done, _ in spread(block, tasks, "local", "cpu")]
    gaussians, levels, points = gathered(detectors, paths)
    yield "images", len(paths), ""
    yield "blocks, merged as they came", len(found), ""
    whole = merged_gaussians(one for one, _, _ in found)
    for name in ("mean", "scatter"):
        yield f"PaDiM's Gaussians, {name}: largest difference", off(getattr(whole, name), getattr(gaussians, name)), ""
    scores = []
    for learnt in (whole, gaussians):
        padim.gather(learnt).finish()
        with torch.no_grad():
            scores.append(torch.cat([padim(batch).image for batch in pixels(find_images(images)[-200:])]))
    yield "PaDiM's scores of 200 other images: largest difference", off(*scores), ""
    merged = [ShrunkCovariance.merged(parts) for parts in zip(*(sums for _, sums, _ in found), strict=True)]
    most = max(off(one.covariance(), ledoit_wolf(level)) for one, level in zip(merged, levels, strict=True))
    yield "Mahalanobis' covariances of five levels: largest difference", most, ""
    alone = covering_radius(points, points[greedy_coreset(points, MEMORY)])
    blocks = [kept for *_, kept in found]
    yield "PatchCore: patches", len(points), ""
    yield "PatchCore: patches kept of each block and of all", MEMORY, ""
    yield "PatchCore: covering radius on one machine", alone, ""
    for name, parts in (("once", blocks), ("in pairs", [Covered.merged(pair, MEMORY) for pair in batched(blocks)])):
        coreset = Covered.merged(parts, MEMORY)
        true = covering_radius(points, coreset.points)
        yield f"PatchCore: covering radius, blocks merged {name}", true, ""
        yield f"PatchCore: times that of one machine, merged {name}", true / alone, ""
        yield f"PatchCore: radius known without looking at all, merged {name}", coreset.radius, ""


def batched(blocks: list[Covered]) -> list[list[Covered]]:
    """Neighbours two and two."""
    return [blocks[i : i + 2] for i in range(0, len(blocks), 2)]


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference in units of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def cost(images: Path, price: float) -> Rows:
    """Milliseconds of a core for an image, piece by piece, and what 100 million such images would take."""
    each: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for side in (64, 256):
            inspector = okng.load(exported(side, images), threads=1)
            batch = inspector.usual_batch()
            for kind, ending in (("PNG", "png"), ("JPEG", "jpg")):
                paths = [folder / f"{side}-{i}.{ending}" for i in range(TIMED)]
                for path, crop in zip(paths, crops(TIMED, side), strict=True):
                    crop.save(path, quality=95)
                taken = pieces(inspector, paths, batch, folder / "part.parquet")
                for piece, ms in taken.items():
                    yield f"{side} px {kind}, {piece}", ms, "ms an image"
                each[f"{side} px {kind}"] = sum(taken.values())
    camera = {row["metric"]: row["value"] for row in read_rows(CAMERA) if row["experiment"] == "camera-patchcore"}
    write = taken["write"]
    each["12 MP JPEG, read reduced to 288x224"] = float(camera["JPEG, reduced, ms"]) + write
    known = {row["figure"]: float(row["value"]) for row in read_rows(RESULTS) if row["part"] == "many"}
    spent = sum(known[f"processor, {kind}"] for kind in KINDS)
    more = spent - each["64 px PNG"]
    yield "all that a cluster took beyond these pieces, 64 px PNG", more, "ms an image"
    clock = known["processor, driver"] * 1e-3 / 3600 * ESTIMATED
    yield "100 million images told by one driver, estimated", clock, "hours on the clock"
    for name, ms in each.items():
        hours = (ms + more) * 1e-3 / 3600 * ESTIMATED
        yield f"{name}: in all", ms + more, "ms an image"
        yield f"{name}: 100 million images, estimated", hours, "hours of a core"
        yield f"{name}: 100 million images at {price} $ an hour of a core, estimated", hours * price, "$"


def pieces(inspector: Inspector, paths: list[Path], batch: int, part: Path) -> dict[str, float]:
    """What each piece takes of the processor, medians of rounds in which all take their turn."""
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        decoded = [inspector.decode(path) for path in paths]
        taken["decode"].append(time.process_time() - begun)
        groups = [decoded[i : i + batch] for i in range(0, len(decoded), batch)]
        stacked = [np.stack([item.pixels for item in group]) for group in groups]
        begun = time.process_time()
        for some in stacked:
            inspector.engine(some)
        taken["engine"].append(time.process_time() - begun)
        begun = time.process_time()
        found = [one for group in groups for one in inspector.judge(group)]
        taken["verdict and regions"].append(time.process_time() - begun - taken["engine"][-1])
        begun = time.process_time()
        _write(part, Part(found, []))
        taken["write"].append(time.process_time() - begun)
    return {piece: 1e3 * max(0.0, statistics.median(seconds[1:])) / len(paths) for piece, seconds in taken.items()}


def row(part: str, figure: str, value: float, unit: str, more: str) -> dict[str, str]:
    """A line of the file."""
    return {
        "part": part, "figure": figure, "value": f"{value:.4g}" if value != int(value) else str(int(value)),
        "unit": unit, "command": f"python benchmarks/plant.py --only {part}{more}", "seed": "0",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("okng", "torch", "openvino", "ray")),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU", "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def main() -> None:
    """Measure the parts that were asked for and replace their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("many", "fit", "cost"))
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "okng-plant")
    parser.add_argument("--price", type=float, default=0.05, help="dollars for an hour of a core")
    asked = parser.parse_args()
    only = asked.only or ["many", "fit", "cost"]
    if "cost" in only and "many" not in only and not any(old["part"] == "many" for old in read_rows(RESULTS)):
        raise SystemExit("cost needs the rows of many; run first: python benchmarks/plant.py --only many")
    given = {name: getattr(asked, name) for name in ("images", "price")}
    more = "".join(f" --{name} {value}" for name, value in given.items() if value != parser.get_default(name))
    images = made(asked.folder / str(asked.images), asked.images)
    parts: dict[str, Callable[[], Rows]] = {
        "many": lambda: many(images, asked.images),
        "fit": lambda: fit(images),
        "cost": lambda: cost(images, asked.price),
    }
    for part in (name for name in parts if name in only):  # what cost needs comes before it
        rows = []
        for figure, value, unit in parts[part]():
            rows.append(row(part, figure, value, unit, more))
            print(f"{part}: {figure} {rows[-1]['value']} {unit}", flush=True)
        write_rows(RESULTS, COLUMNS, [*(old for old in read_rows(RESULTS) if old["part"] != part), *rows])


if __name__ == "__main__":
    main()
