"""What OK images alone say of a default: held-out OK images as they are against the same ones spoilt.

    python benchmarks/spoilt.py DATA [--only patchcore code noise steps] [--device cuda] [--rows FILE]

DATA holds magnetic_tile/, mvtec_ad/transistor/ and mnist/; ELPV comes from PyPI. Writes results/spoilt.csv.
`patchcore`: its image scores and the smoothing of its map, on four sets, each spoilt in three ways. `code`: the
autoencoder's code sizes on two digits. `noise`: SimpleNet's, on two sets. `steps`: how long EfficientAD learns, on two
sets. Only images to learn from are used: no test image, no label, no real defect.
One seed decides which are held out and how they are spoilt; every case meets the same images.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from okng.benchmark.code import present_code
from okng.benchmark.reproduce import machine, versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import NG, OK, open_dataset
from okng.datasets.corruptions import scratch_mask, stain_mask
from okng.detectors.base import Batch, Detector
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import create
from okng.detectors.engine import TorchEngine
from okng.inspection.reading.images import Preprocess, Source
from okng.inspection.verdict.result import upsample
from okng.metrics import auroc, pixel_metrics
from okng.training.images.copies import near_copies
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases
from okng.training.progress import Narrator

RESULTS = Path(__file__).parents[1] / "results" / "spoilt.csv"
FIELDS = (
    "experiment", "detector", "dataset", "case", "spoilt by", "figure", "value", "n", "command", "code", "versions",
    "machine", "date",
)  # fmt: skip
DETECTORS = {"patchcore": "patchcore", "code": "autoencoder", "noise": "simplenet", "steps": "efficientad"}
HELD_OUT = 40  # photographs; digits are cheap, HELD_OUT_DIGITS
LEARNT = 173  # photographs, all that transistor has beside those held out
DIGITS, HELD_OUT_DIGITS = 1000, 300  # learnt from, and held out
PIECE = (1 / 8, 1 / 3)  # sides of what is pasted or erased, in shares of the image's
LEVELS = (10, 220)  # between which the one grey level of a scratch or stain lies, as in `okng.datasets.corruptions`

Spoilt = tuple[np.ndarray, np.ndarray]  # uint8 (H, W, C), and where it differs by design, bool (H, W)


def piece_of_another(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """A rectangle from any place of an image of the same shape."""
    height, width = image.shape[:2]
    h, w = (max(1, round(rng.uniform(*PIECE) * side)) for side in (height, width))
    (top, left), (y, x) = (rng.integers((height - h + 1, width - w + 1)) for _ in range(2))
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = True
    spoilt = image.copy()
    spoilt[mask] = other[y : y + h, x : x + w].reshape(h * w, -1)
    return spoilt, mask


def piece_erased(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """A rectangle in which some of the digit is, made the background's black."""
    height, width = image.shape[:2]
    h, w = (max(1, round(rng.uniform(*PIECE) * side)) for side in (height, width))
    inked = np.argwhere(image.max(2) > 127)
    y, x = inked[rng.integers(len(inked))] if len(inked) else (height // 2, width // 2)
    mask = np.zeros((height, width), bool)
    mask[max(0, y - h // 2) : y - h // 2 + h, max(0, x - w // 2) : x - w // 2 + w] = True
    spoilt = image.copy()
    spoilt[mask] = 0
    return spoilt, mask


def turned(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """By 90°, to either side."""
    return np.rot90(image, rng.choice([1, 3])).copy(), np.ones(image.shape[:2], bool)


def scratch(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """One thin line, wave or parabola of one grey level."""
    return _painted(image, scratch_mask(*image.shape[:2], rng), rng)


def stain(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Spoilt:
    """One irregular blob of one grey level."""
    return _painted(image, stain_mask(*image.shape[:2], rng), rng)


def _painted(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Spoilt:
    spoilt = image.copy()
    spoilt[mask] = round(rng.uniform(*LEVELS))
    return spoilt, mask


def all_spoilt(images: list[np.ndarray], way: Callable[..., Spoilt]) -> list[Spoilt]:
    """Each image spoilt `way`, by the same draws whatever is measured; pieces come of the next one of its shape."""
    made = []
    for i, image in enumerate(images):
        others = [*images[i + 1 :], *images[:i]]
        other = next((other for other in others if other.shape == image.shape), image[::-1])
        made.append(way(image, other, np.random.default_rng(i)))
    return made


def parted(images: list[Source], held_out: int) -> tuple[list[Source], list[Source]]:
    """Images to learn from, and `held_out` others, no near copies of each other or of those."""
    groups = near_copies(TrainingImages(images, Preprocess("L", 128)).thumbnails())  # (n,)
    chosen = np.random.default_rng(0).permutation(int(groups.max()) + 1)[:held_out]
    first = [int(np.flatnonzero(groups == group)[0]) for group in chosen]
    return [images[i] for i in np.flatnonzero(~np.isin(groups, chosen))], [images[i] for i in first]


def fitted(detector: Detector, images: list[Source], preprocess: Preprocess, device: str = "cpu") -> TorchEngine:
    """`detector` after all its phases."""
    with Narrator(quiet=True) as tell:
        run_phases(detector, TrainingImages(images, preprocess), device=device, seed=0, tell=tell)
    return TorchEngine(detector, device)


def judged(engine: TorchEngine, images: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores (n,) and the maps at the images' sizes."""
    scores, maps = [], []
    for image in images:
        score, coarse = engine(image[None])
        scores.append(float(score[0]))
        maps.append(upsample(coarse[0], image.shape[:2]) if coarse is not None else np.zeros(image.shape[:2]))
    return np.array(scores), maps


def separated(plain: np.ndarray, spoilt: np.ndarray) -> float:
    """AUROC of the scores of spoilt images (n,) against those of the same ones as they were (n,)."""
    return auroc(np.repeat([OK, NG], len(plain)), np.concatenate([plain, spoilt]))


def patchcore(data: Path, device: str) -> Iterator[dict[str, Any]]:
    """Its three scores and three widths of its smoothing, each from one fit per set."""
    for source in (data / "mvtec_ad" / "transistor", data / "magnetic_tile", "elpv/mono", "elpv/poly"):
        dataset = open_dataset(str(source))
        learnt, held_out = parted([sample.image for sample in dataset.train], HELD_OUT)
        torch.manual_seed(0)
        detector = create("patchcore")
        preprocess = Preprocess("RGB", 256, detector.multiple)
        engine: Any = fitted(detector, learnt, preprocess, device)
        plain = [preprocess.load(image)[0].copy() for image in held_out]
        ways = {"piece of another": piece_of_another, "scratch": scratch, "stain": stain}
        spoilt = {name: all_spoilt(plain, way) for name, way in ways.items()}
        for score, sigma in (("reweighted", 4), ("max", 8), ("top1%", 16)):  # one is about images, one about maps
            engine.detector.score, engine.detector.sigma = score, sigma
            fine = judged(engine, plain)[0]
            for name, made in spoilt.items():
                scores, maps = judged(engine, [image for image, _ in made])
                common = {"dataset": dataset.name, "spoilt by": name}
                more = {"case": f"score={score}", "n": f"{len(plain)} plain, {len(plain)} spoilt"}
                yield {**common, **more, "figure": "image_auroc", "value": separated(fine, scores)}
                found = pixel_metrics([mask for _, mask in made], maps)
                more = {"case": f"sigma={sigma}", "n": f"{len(plain)} spoilt"}
                yield {**common, **more, "figure": "pixel_auroc", "value": found.pixel_auroc}
                yield {**common, **more, "figure": "aupro", "value": found.aupro}


def code(data: Path, device: str) -> Iterator[dict[str, Any]]:
    """The autoencoder's code on digits 2 and 8, with the other arguments of the budget "cpu"."""
    for digit in "28":
        dataset = open_dataset(str(data / "mnist"), normal=digit)
        images = [sample.image for sample in dataset.train]
        order = np.random.default_rng(0).permutation(len(images))[: DIGITS + HELD_OUT_DIGITS]
        learnt, held_out = ([images[i] for i in part] for part in (order[:DIGITS], order[DIGITS:]))
        preprocess = Preprocess("L", (28, 28))
        plain = [preprocess.load(image)[0].copy() for image in held_out]
        ways = {"turned": turned, "piece erased": piece_erased, "piece of another": piece_of_another}
        spoilt = {name: all_spoilt(plain, way) for name, way in ways.items()}
        for size in (8, 16, 32):
            torch.manual_seed(0)
            given = arguments_for("cpu", "autoencoder", small=True) or {}
            detector = create("autoencoder", **{**given, "code": size, "image_size": (28, 28), "channels": 1})
            engine = fitted(detector, learnt, preprocess, device)
            common = {"dataset": f"MNIST {digit}", "case": f"code={size}"}
            fine = judged(engine, plain)[0]
            held = {"spoilt by": "nothing", "figure": "held-out error", "n": f"{len(plain)}"}
            yield {**common, **held, "value": float(fine.mean())}
            for name, made in spoilt.items():
                more = {"spoilt by": name, "figure": "image_auroc", "n": f"{len(plain)} plain, {len(plain)} spoilt"}
                yield {**common, **more, "value": separated(fine, judged(engine, [image for image, _ in made])[0])}


def noise(data: Path, device: str) -> Iterator[dict[str, Any]]:
    """SimpleNet's noise, with the other arguments of the budget "cpu", and what its loss is on held-out images."""
    for source in (data / "mvtec_ad" / "transistor", "elpv/poly"):
        dataset = open_dataset(str(source))
        learnt, held_out = parted([sample.image for sample in dataset.train], HELD_OUT)
        given = arguments_for("cpu", "simplenet", small=False) or {}
        for deviation in (0.3, 1.0, 3.0):
            torch.manual_seed(0)
            detector: Any = create("simplenet", **{**given, "noise": deviation})
            preprocess = Preprocess("RGB", 256, detector.multiple)
            plain = [preprocess.load(image)[0].copy() for image in held_out]
            engine = fitted(detector, learnt[:LEARNT], preprocess, device)
            common = {"dataset": dataset.name, "case": f"noise={deviation:g}"}
            with torch.no_grad():
                pixels = torch.from_numpy(np.stack(plain)).to(device)  # (40, H, W, 3)
                patches = detector.patches(pixels.permute(0, 3, 1, 2) / 255)
                torch.manual_seed(0)
                losses = detector.loss(Batch(patches, torch.arange(len(plain)), (patches,)))
            held = {"spoilt by": "nothing", "figure": "held-out loss", "n": f"{len(plain)}"}
            yield {**common, **held, "value": float(losses["OK"] + losses["noisy"])}
            fine = judged(engine, plain)[0]
            for name, way in {"piece of another": piece_of_another, "scratch": scratch, "stain": stain}.items():
                odd = judged(engine, [image for image, _ in all_spoilt(plain, way)])[0]
                more = {"spoilt by": name, "figure": "image_auroc", "n": f"{len(plain)} plain, {len(plain)} spoilt"}
                yield {**common, **more, "value": separated(fine, odd)}


def steps(data: Path, device: str) -> Iterator[dict[str, Any]]:
    """EfficientAD's, of the teacher and of the student, with the other arguments of the budget "cpu"."""
    for source in (data / "mvtec_ad" / "transistor", "elpv/poly"):
        dataset = open_dataset(str(source))
        learnt, held_out = parted([sample.image for sample in dataset.train], HELD_OUT)
        given = dict(arguments_for("cpu", "efficientad", small=False) or {})
        size = tuple(given.pop("size"))
        for teacher, student in ((2_000, 3_000), (4_000, 6_000)):
            torch.manual_seed(0)
            case = {"teacher_steps": teacher, "training_steps": student, "image_size": size}
            detector = create("efficientad", **{**given, **case})
            preprocess = Preprocess("RGB", size)
            plain = [preprocess.load(image)[0].copy() for image in held_out]
            engine = fitted(detector, learnt[:LEARNT], preprocess, device)
            common = {"dataset": dataset.name, "case": f"steps={teacher}+{student}"}
            fine = judged(engine, plain)[0]
            for name, way in {"piece of another": piece_of_another, "scratch": scratch, "stain": stain}.items():
                odd = judged(engine, [image for image, _ in all_spoilt(plain, way)])[0]
                more = {"spoilt by": name, "figure": "image_auroc", "n": f"{len(plain)} plain, {len(plain)} spoilt"}
                yield {**common, **more, "value": separated(fine, odd)}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    experiments = {"patchcore": patchcore, "code": code, "noise": noise, "steps": steps}
    parser.add_argument("--only", nargs="+", choices=experiments, default=list(experiments))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=Path, default=RESULTS)
    asked = parser.parse_args()
    for experiment in asked.only:
        common = {
            "experiment": experiment, "detector": DETECTORS[experiment],
            "command": f"python benchmarks/spoilt.py DATA --only {experiment}"
            + f" --device {asked.device}" * (asked.device != "cpu"),
            "code": present_code(DETECTORS[experiment]), "versions": versions(),
            "machine": machine(asked.device),
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        rows = []
        for row in experiments[experiment](asked.data.expanduser(), asked.device):
            rows.append({**common, **row, "value": f"{row['value']:.4f}"})
            print(row["dataset"], row["case"], row["spoilt by"], row["figure"], rows[-1]["value"], flush=True)
        others = [r for r in read_rows(asked.rows) if r["experiment"] != experiment]
        write_rows(asked.rows, FIELDS, [*others, *rows])


if __name__ == "__main__":
    main()
