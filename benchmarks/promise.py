"""What the promise of false alarms is worth where OK images are copies, bursts or not all OK, and what okng recognises.

    python benchmarks/promise.py DATA [--only alarms|near|apart]

DATA holds magnetic_tile/, mvtec_ad/transistor/ and mnist/; ELPV comes from PyPI. Writes results/promise.csv.
`alarms`: false alarms on unseen OK images where every learnt image came six times, against the same fit blind to that.
`near`: which images are taken for near copies, among real ones and among made bursts. `apart`: how often a held-out
image is said to stand apart where all are OK, and where one is black or NG. Nothing is chosen by a test label.
"""

from __future__ import annotations

import argparse
import datetime
import io
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from okng.benchmark.reproduce import versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import NG, OK, open_dataset
from okng.detectors.catalogue import create
from okng.inspection.reading.images import Preprocess, Source
from okng.inspection.verdict.calibration import Calibration, stand_apart
from okng.training.held_out import Judged, divided, kept_together, once
from okng.training.images.copies import near_copies, thumbnail
from okng.training.images.data import TrainingImages
from okng.training.progress import Narrator

RESULTS = Path(__file__).parents[1] / "results" / "promise.csv"
FIELDS = ("experiment", "dataset", "case", "figure", "value", "n", "command", "versions", "machine", "date")
SEEDS, RATE = 20, 0.05
KINDS = ("noise", "brightness", "shift", "jpeg", "half size", "all")


def frame(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The same scene once more, uint8 (H, W): noise of 3 grey levels, 2 % of light, a pixel, JPEG, half size."""
    seen = image.astype(np.float32)
    if kind in ("noise", "all"):
        seen = seen + rng.normal(0, 3, seen.shape)
    if kind in ("brightness", "all"):
        seen = seen * rng.uniform(0.98, 1.02)
    if kind in ("shift", "all"):
        down, right = (1, 1) if kind == "shift" else rng.integers(-1, 2, 2)
        height, width = image.shape
        seen = np.pad(seen, 1, mode="edge")[1 + down : 1 + down + height, 1 + right : 1 + right + width]
    pixels = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    if kind in ("jpeg", "all"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(75, 96)))
        pixels = np.asarray(Image.open(file))
    if kind == "half size":
        pixels = np.asarray(Image.fromarray(pixels).reduce(2))
    return pixels


def grey(source: Source) -> np.ndarray:
    """The image, uint8 (H, W)."""
    return np.asarray(Preprocess("L", 256).decode(source))


def distances(inputs: list[np.ndarray]) -> torch.Tensor:
    """How far each patch of each input lies from the nearest patch of each other: (n, p, n), PatchCore's features."""
    detector = create("patchcore")
    with torch.no_grad():
        batch = torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2).float() / 255  # (n, 3, h, w)
        patches = torch.cat([detector.patches(some).flatten(1, 2) for some in batch.split(20)])  # type: ignore[operator]
        n, p, _ = patches.shape
        return torch.stack([torch.cdist(one, patches.flatten(0, 1)).view(p, n, p).amin(2) for one in patches])


def scores(nearest: torch.Tensor, judged: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """PatchCore's scores (m,), by `top1%`, of the images `judged` by a memory of all patches of the images `learnt`."""
    patches = nearest[judged][:, :, learnt].amin(2)  # (m, p)
    found: np.ndarray = patches.topk(max(1, patches.shape[1] // 72), 1).values.mean(1).numpy()
    return found


def alarms(source: str) -> Iterator[dict[str, Any]]:
    """False alarms on 40 unseen OK images, asked 5 %, with 20 learnt images six times each; over 20 seeds.

    Copies, groups, folds and the threshold are those of `okng.fit` for a detector that trains; PatchCore keeps all its
    patches, so that features are computed once. "Blind to copies": every image counts as one of its own, which is how
    okng once was.
    """
    dataset = open_dataset(source)
    images = [grey(sample.image) for sample in (*dataset.train, *dataset.test) if sample.label == OK]
    preprocess, quiet = Preprocess("RGB", (96, 96), 16), Narrator(quiet=True)
    rates: dict[tuple[str, str], list[float]] = {}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        picked = [images[i] for i in rng.permutation(len(images))[:60]]
        learnt, unseen = picked[:20], picked[20:]
        bursts = [image if i == 0 else frame(image, "all", rng) for image in learnt for i in range(6)]
        nearest = distances([preprocess.load(image)[0] for image in [*bursts, *unseen]])
        copied = np.repeat(np.arange(20), 6) * 6  # a copy lies where its original does
        for case, pixels, where in (
            ("20 images, six copies of each", learnt, copied),
            ("20 bursts of six frames", bursts, np.arange(120)),
        ):
            given = [image for image in pixels for _ in range(120 // len(pixels))]
            for how in ("blind to copies", "copies told"):
                kept = TrainingImages(given, preprocess)
                groups = np.arange(len(kept))
                if how == "copies told":
                    kept, _ = once(kept, quiet)
                    groups, _ = kept_together(kept, None, quiet)
                at = where[kept.places]
                method, folds = divided(groups, None, seed)
                everyone = np.arange(len(at))
                judged = [scores(nearest, at[held], at[np.setdiff1d(everyone, held)]) for held in folds]
                whole = Judged(np.concatenate(folds), np.concatenate(judged), None)
                calibration = Calibration.fit(whole.one_of_each(groups, seed).scores, None, method, RATE)
                final = at if method == "cross" else at[np.setdiff1d(everyone, folds[0])]
                ng = scores(nearest, np.arange(120, 160), final) > calibration.threshold
                rates.setdefault((case, how), []).append(float(ng.mean()))
        print(
            seed,
            {f"{case}, {how}": round(float(np.mean(found)), 4) for (case, how), found in rates.items()},
            flush=True,
        )
    for (case, how), found in rates.items():
        common = {"dataset": dataset.name, "case": f"{case}; {how}", "n": f"{SEEDS} seeds, 40 unseen OK images each"}
        yield {**common, "figure": f"false_alarm_rate, asked {RATE}", "value": np.mean(found)}
        yield {**common, "figure": "standard error of it", "value": np.std(found, ddof=1) / np.sqrt(SEEDS)}


def near(source: str, normal: str | None = None) -> Iterator[dict[str, Any]]:
    """How many real images are taken for near copies, and which share of made bursts is found."""
    dataset = open_dataset(source, normal)
    name = dataset.name if normal is None else f"{dataset.name} {normal}"
    images = [grey(sample.image) for sample in dataset.train]
    sizes = np.bincount(near_copies(np.stack([thumbnail(image[..., None]) for image in images])))
    common = {"dataset": name, "n": f"{len(images)} images"}
    yield {**common, "case": "as they are", "figure": "images with near copies", "value": sizes[sizes > 1].sum()}
    rng = np.random.default_rng(0)
    chosen = [images[i] for i in rng.permutation(len(images))[:600]]
    for kind in KINDS:
        made = [image if i == 0 else frame(image, kind, rng) for image in chosen[:20] for i in range(5)]
        groups = near_copies(np.stack([thumbnail(image[..., None]) for image in [*made, *chosen[20:]]]))
        found = np.mean([np.mean(burst[1:] == burst[0]) for burst in groups[:100].reshape(20, 5)])
        common = {"dataset": name, "n": f"20 bursts of 5 among {len(chosen)} images"}
        yield {**common, "case": kind, "figure": "frames found", "value": found}


def apart(source: str) -> Iterator[dict[str, Any]]:
    """How often a held-out image is said to stand apart: all OK, one black, one NG; PatchCore with all its patches.

    Features are computed once; 40 draws each of 20 and of 60 images by five folds, of 150 by a split.
    """
    dataset = open_dataset(source)
    rng = np.random.default_rng(0)
    ok = [sample.image for sample in dataset.train]
    ng = [sample.image for sample in dataset.test if sample.label == NG]
    count = min(200, len(ok))
    preprocess = Preprocess("RGB", (96, 96), 16)
    chosen = [*(ok[i] for i in rng.permutation(len(ok))[:count]), *(ng[i] for i in rng.permutation(len(ng))[:40])]
    inputs = [*(preprocess.load(image)[0] for image in chosen), np.zeros((96, 96, 3), np.uint8)]
    nearest, black = distances(inputs), len(inputs) - 1

    def said(order: np.ndarray, folds: int) -> np.ndarray:
        """Which of `order` (m,) are said to stand apart, by their numbers."""
        parts = np.array_split(order, folds)[: folds if len(order) < 100 else 1]
        found = [scores(nearest, held, np.setdiff1d(order, held)) for held in parts]
        return np.concatenate(parts)[stand_apart(np.concatenate(found))]

    for size in (20, 60, 150):
        hits: dict[str, list[bool]] = {"all OK": [], "one black": [], "one NG": []}
        for seed in range(40):
            order = np.random.default_rng(seed).permutation(count)[:size]
            hits["all OK"].append(len(said(order, 5)) > 0)
            if size < 100:
                for case, stray in (("one black", black), ("one NG", count + seed % len(chosen[count:]))):
                    hits[case].append(stray in said(np.append(order[1:], stray), 5))
        for case, found in hits.items():
            if found:
                common = {"dataset": dataset.name, "case": f"{size} images, {case}", "n": "40 draws"}
                yield {**common, "figure": "fits with an image said to stand apart", "value": np.mean(found)}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=("alarms", "near", "apart"), default=["near", "apart", "alarms"])
    asked = parser.parse_args()
    tile, transistor = str(asked.data / "magnetic_tile"), str(asked.data / "mvtec_ad" / "transistor")
    sets = (transistor, tile, "elpv/mono", "elpv/poly")
    for experiment in asked.only:
        rows: list[dict[str, Any]] = []
        if experiment == "alarms":
            rows += alarms("elpv/mono")
        elif experiment == "near":
            for source in sets:
                rows += near(source)
            for digit in "138":
                rows += near(str(asked.data / "mnist"), digit)
        else:
            for source in sets:
                rows += apart(source)
        common = {
            "experiment": experiment, "command": f"python benchmarks/promise.py DATA --only {experiment}",
            "versions": versions(), "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        for row in rows:
            row |= {**common, "value": f"{float(row['value']):.4g}"}
            print(row["experiment"], row["dataset"], row["case"], row["figure"], row["value"], flush=True)
        others = [row for row in read_rows(RESULTS) if row["experiment"] != experiment] if RESULTS.exists() else []
        write_rows(RESULTS, FIELDS, [*others, *rows])


if __name__ == "__main__":
    main()
