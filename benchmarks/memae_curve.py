"""MemAE's copies of held-out OK images by its epochs, and those of its layers without the memory: what limits them?

    python benchmarks/memae_curve.py DATA [--digits 8 …]

Of each digit of MNIST nine tenths are learnt, with the arguments for small images on a CPU but more epochs, and the
mean squared error of the other tenth's copies is written to results/memae_curve.csv. No NG image is looked at.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import torch
from measure import RESULTS
from style_curve import stack, watched
from torch import Tensor, nn

from okng.benchmark.reproduce import versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import open_dataset
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.memae import MemAE
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages

PATH = RESULTS / "memae_curve.csv"
EPOCHS = {True: (10, 20, 40, 80, 120), False: (10, 20)}  # with the memory, and without


class Absent(nn.Module):
    """In the memory's place: hands the code on."""

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """`queries` (Q, size) as they are, and one weight of 1 (Q, 1), whose entropy is 0."""
        return queries, torch.ones_like(queries[:, :1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--digits", nargs="+", default=["8"])
    asked = parser.parse_args()
    given = arguments_for("cpu", "memae", small=True)
    for digit in asked.digits:
        ok = [sample.image for sample in open_dataset(str(asked.data / "mnist"), normal=digit).train]
        learnt = len(ok) * 9 // 10
        preprocess = Preprocess("L", (28, 28))
        held = stack(ok[learnt:], preprocess)  # (n, 1, 28, 28)
        rows = []
        for memory, epochs in EPOCHS.items():
            torch.manual_seed(0)
            detector = create("memae", image_size=(28, 28), channels=1, **(given or {}))
            assert isinstance(detector, MemAE)
            if not memory:
                detector.memory = Absent()  # type: ignore[assignment]
            for number in watched(detector, TrainingImages(ok[:learnt], preprocess), epochs):
                with torch.no_grad():
                    error = torch.cat([detector(part).image for part in held.split(64)]).mean()
                rows.append({
                    "digit": digit, "memory": memory, "epochs": number, "held_out_error": f"{error:.5f}",
                    "arguments": given, "seed": 0, "command": f"python benchmarks/memae_curve.py DATA --digits {digit}",
                    "versions": versions(), "date": datetime.date.today().isoformat(),
                })  # fmt: skip
                print(rows[-1], flush=True)
        others = [row for row in read_rows(PATH) if row["digit"] != digit]
        write_rows(PATH, rows[0], [*others, *rows])


if __name__ == "__main__":
    main()
