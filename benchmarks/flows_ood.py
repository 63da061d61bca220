"""NF-OOD's finding: a flow that learnt Fashion-MNIST calls MNIST likelier, and other couplings do so less.

    python benchmarks/flows_ood.py FASHION_MNIST MNIST --seed 0

Writes the seed's rows of results/nf-ood.csv: for RealNVP as it is, with cycle masks, with a bottleneck and with both,
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
from okng.inspection.images import Preprocess
from okng.metrics import auroc
from okng.training.data import TrainingImages
from okng.training.phases import run_phases

PATH = Path(__file__).parents[1] / "results" / "nf-ood.csv"
COUPLINGS: dict[str, dict[str, Any]] = {
    "checkerboard": {},
    "cycle": {"masks": "cycle"},
    "bottleneck": {"bottleneck": 30},
    "cycle and bottleneck": {"masks": "cycle", "bottleneck": 30},
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
    asked = parser.parse_args()
    fashion, digits = read_idx(asked.fashion), read_idx(asked.mnist)
    learnt = TrainingImages([s.image for s in drawn(fashion.train, asked.images)], Preprocess("L", (28, 28)))
    ok, odd = drawn(fashion.test, 1000), drawn(digits.test, 1000)

    rows = []
    for name, couplings in COUPLINGS.items():
        torch.manual_seed(asked.seed)
        given = {**(arguments_for("cpu", "nf_ood", small=True) or {}), **couplings}
        detector, began = create("nf_ood", **given), time.perf_counter()
        run_phases(detector, learnt, seed=asked.seed, device="cpu")
        seconds, bits = time.perf_counter() - began, [scored(detector, part) for part in (ok, odd)]
        rows.append({
            "couplings": name, "seed": asked.seed, "images": asked.images,
            "bits_fashion": f"{bits[0].mean():.3f}", "bits_mnist": f"{bits[1].mean():.3f}",
            "auroc": f"{auroc(np.repeat([0, 1], 1000), np.concatenate(bits)):.4f}", "fit_seconds": f"{seconds:.0f}",
            "arguments": json.dumps(given), "code": code_digest("nf_ood"),
            "command": f"python benchmarks/flows_ood.py FASHION_MNIST MNIST --seed {asked.seed}",
            "versions": versions(), "date": datetime.date.today().isoformat(),
        })  # fmt: skip
        print(rows[-1], flush=True)
    others = [row for row in read_rows(PATH) if row["seed"] != str(asked.seed)]
    write_rows(PATH, rows[0], [*others, *rows])


if __name__ == "__main__":
    main()
