"""Densities of pixels that learnt Fashion-MNIST call MNIST likelier, and what helps against it.

    python benchmarks/flows_ood.py FASHION_MNIST MNIST --seed 0

Writes the seed's rows of results/nf-ood.csv: NF-OOD's, for RealNVP as it is, with cycle masks, with a bottleneck and
with both, and those of PixelCNN as it is and less the bits of a PNG file (`--densities` asks for some alone). Each has
bits per dimension of unseen images of both sets, and the AUROC of MNIST, odd, against Fashion-MNIST, OK.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from okng.benchmark.code import code_digest
from okng.benchmark.reproduce import versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets.base import Sample
from okng.datasets.idx import read_idx
from okng.detectors.base import Detector
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import create
from okng.inspection.reading.images import Preprocess
from okng.metrics import auroc
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

PATH = Path(__file__).parents[1] / "results" / "nf-ood.csv"
DENSITIES: dict[str, tuple[str, dict[str, Any]]] = {
    "checkerboard": ("nf_ood", {}),
    "cycle": ("nf_ood", {"masks": "cycle"}),
    "bottleneck": ("nf_ood", {"bottleneck": 30}),
    "cycle and bottleneck": ("nf_ood", {"masks": "cycle", "bottleneck": 30}),
    "pixelcnn": ("pixelcnn", {}),
    "pixelcnn less png": ("pixelcnn", {"complexity": "png"}),
}


def scored(detector: Detector, samples: list[Sample]) -> np.ndarray:
    preprocess = Preprocess("L", (28, 28))
    pixels = np.stack([preprocess.load(sample.image)[0] for sample in samples])  # (n, 28, 28, 1)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (n, 1, 28, 28)
    with torch.no_grad():
        return torch.cat([detector(part).image for part in images.split(100)]).numpy()


def drawn(samples: tuple[Sample, ...], count: int) -> list[Sample]:
    """The same `count` of `samples` each time."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    return [samples[i] for i in order[:count]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("fashion", type=Path)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=4000, help="of Fashion-MNIST's training images")
    parser.add_argument("--densities", nargs="+", choices=DENSITIES, default=list(DENSITIES))
    asked = parser.parse_args()
    fashion, digits = read_idx(asked.fashion), read_idx(asked.mnist)
    learnt = TrainingImages([s.image for s in drawn(fashion.train, asked.images)], Preprocess("L", (28, 28)))
    ok, odd = drawn(fashion.test, 1000), drawn(digits.test, 1000)

    rows: list[dict[str, Any]] = []
    fitted: dict[str, tuple[dict[str, torch.Tensor], float]] = {}  # the same density is learnt once for all its scores
    for name in asked.densities:
        method, own = DENSITIES[name]
        torch.manual_seed(asked.seed)
        given = {**(arguments_for("cpu", method, small=True) or {}), **own}
        detector, began = create(method, image_size=(28, 28), channels=1, **given), time.perf_counter()
        learning = json.dumps([method, {key: value for key, value in given.items() if key != "complexity"}])
        if learning in fitted:
            detector.load_tensors(fitted[learning][0])
        else:
            run_phases(detector, learnt, seed=asked.seed, device="cpu")
            fitted[learning] = detector.state_dict(), time.perf_counter() - began
        seconds, bits = fitted[learning][1], [scored(detector.eval(), part) for part in (ok, odd)]
        rows.append({
            "density": name, "seed": asked.seed, "images": asked.images,
            "bits_fashion": f"{bits[0].mean():.3f}", "bits_mnist": f"{bits[1].mean():.3f}",
            "auroc": f"{auroc(np.repeat([0, 1], 1000), np.concatenate(bits)):.4f}", "fit_seconds": f"{seconds:.0f}",
            "arguments": json.dumps(given), "code": code_digest(method),
            "command": f"python benchmarks/flows_ood.py FASHION_MNIST MNIST --seed {asked.seed}",
            "versions": versions(), "date": datetime.date.today().isoformat(),
        })  # fmt: skip
        print(rows[-1], flush=True)
    made = {(row["density"], str(row["seed"])) for row in rows}
    others = [row for row in read_rows(PATH) if (row["density"], row["seed"]) not in made]
    write_rows(PATH, rows[0], [*others, *rows])


if __name__ == "__main__":
    main()
