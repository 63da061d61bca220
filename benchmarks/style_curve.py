"""SDN and OE-SDN by the epochs of their student, on one class of MNIST or CIFAR-10: does learning longer part them?

    python benchmarks/style_curve.py DATA mnist 2 --epochs 8

Writes the class's rows of results/oe-sdn/curve.csv: after each epoch the AUROC against the other classes, and what can
be seen without them, on held-out OK images: the AUROC of rotated against upright ones, and the distance of student and
autoencoder as a share of the autoencoder's error.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from okng.benchmark.reproduce import versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import open_dataset
from okng.datasets.base import NG
from okng.detectors.base import Detector, Phase, Train
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.style_distillation import SDN, distance
from okng.inspection.reading.images import Preprocess, Source, image_size, is_grey
from okng.metrics import auroc
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

HELD = 500
PATH = Path(__file__).parents[1] / "results" / "oe-sdn" / "curve.csv"


def stack(images: list[Source], preprocess: Preprocess) -> Tensor:
    pixels = np.stack([preprocess.load(image)[0] for image in images])  # (n, H, W, C)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (n, C, H, W)


def scored(detector: SDN, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([detector(part).image for part in images.split(64)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("set", choices=("mnist", "cifar10"))
    parser.add_argument("normal", help="the OK class, such as 2 or bird")
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args()
    dataset = open_dataset(str(asked.data / asked.set), normal=asked.normal)
    ok = [sample.image for sample in dataset.train]
    shape = image_size(ok[0])
    preprocess = Preprocess("L" if is_grey(ok[0]) else "RGB", shape)
    held, learnt = stack(ok[:HELD], preprocess), TrainingImages(ok[HELD:], preprocess)
    turned = torch.cat([part.rot90(1 + i % 3, (2, 3)) for i, part in enumerate(held.split(1))])
    test = stack([sample.image for sample in dataset.test], preprocess)
    labels = np.array([sample.label == NG for sample in dataset.test])

    rows = []
    for name in ("sdn", "oe_sdn"):
        torch.manual_seed(0)
        given = arguments_for("cpu", name, small=True) or {}
        detector = create(name, image_size=shape, channels=held.shape[1], **given)
        assert isinstance(detector, SDN)
        for epoch in watched(detector, learnt, range(1, asked.epochs + 1)):
            with torch.no_grad():
                blurred = detector.teach(held)
                share = float(distance(detector.student(held), blurred).mean() / distance(held, blurred).mean())
            rows.append({
                "detector": name, "set": asked.set, "class": asked.normal, "student_epochs": epoch,
                "learning_rate": given["learning_rate"],
                "image_auroc": f"{auroc(labels, scored(detector, test)):.4f}",
                "turned_auroc": f"{auroc(np.repeat([0, 1], HELD), scored(detector, torch.cat([held, turned]))):.4f}",
                "distance_share": f"{share:.4f}", "budget": "cpu", "seed": 0,
                "command": f"python benchmarks/style_curve.py DATA {asked.set} {asked.normal} --epochs {asked.epochs}",
                "versions": versions(), "date": datetime.date.today().isoformat(),
            })  # fmt: skip
            print(rows[-1], flush=True)
    others = [row for row in read_rows(PATH) if (row["set"], row["class"]) != (asked.set, asked.normal)]
    write_rows(PATH, rows[0], sorted([*others, *rows], key=lambda row: (str(row["set"]), str(row["class"]))))


def watched(detector: Detector, images: TrainingImages, epochs: Iterable[int]) -> Iterator[int]:
    """Fit `detector`, and stop after each of so many `epochs` of its last phase."""
    *before, last = detector.phases()
    assert isinstance(last, Train)

    def run(phases: list[Phase], seed: int) -> None:
        detector.phases = lambda: iter(phases)  # type: ignore[method-assign]
        run_phases(detector, images, seed=seed, device="cpu")

    if before:
        run(before, 0)
    done = 0
    for number in epochs:
        run([replace(last, epochs=number - done)], number)
        done = number
        yield number


if __name__ == "__main__":
    main()
