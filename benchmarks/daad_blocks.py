"""DAAD by the size of its blocks: how well OK images are copied, against how well NG images are kept from it.

    python benchmarks/daad_blocks.py DATA [--only mnist transistor]

DATA holds mnist/ and mvtec_ad/transistor/. Writes results/daad_blocks.csv: for each division of the feature maps the
mean squared errors of copies of OK and NG test images, their ratio, and the AUROC. What chose the division of the
budgets is `spoilt_auroc`, of held-out OK images against the same ones spoilt, which knows no test image: `turned`,
`piece_erased` and `piece_of_another` of benchmarks/spoilt.py. `used`: the share of the finest memory's items that
some test image needs. One seed. Photographs are learnt by a narrower network in fewer epochs than the budget has.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from pathlib import Path

import numpy as np
import torch
from spoilt import all_spoilt, fitted, parted, piece_erased, piece_of_another, turned
from torch import Tensor

from okng.benchmark.code import present_code
from okng.benchmark.reproduce import versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import NG, open_dataset
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.daad import DAAD
from okng.inspection.reading.images import Preprocess, Source
from okng.metrics import auroc

PATH = Path(__file__).parents[1] / "results" / "daad_blocks.csv"
SETS: dict[str, tuple[int, str, int | None, int, int | None, tuple[int, ...], dict[str, int]]] = {
    # side, mode, images learnt from, held out and tested, divisions, and what is not the budget's
    "mnist": (28, "L", 1000, 300, 1000, (1, 2, 4, 7, 14), {}),
    "transistor": (64, "RGB", None, 40, None, (1, 2, 4, 8), {"width": 8, "epochs": 20}),
}


def stack(images: list[Source], preprocess: Preprocess) -> np.ndarray:
    return np.stack([preprocess.load(image)[0] for image in images])  # (n, H, W, C)


def scored(detector: DAAD, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and squared errors of the copies, (n,) each."""
    scores, errors = [], []
    with torch.no_grad():
        for part in torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).split(64):
            found = detector(part)
            assert found.map is not None
            scores.append(found.image)
            errors.append(found.map.mean((1, 2)))
    return torch.cat(scores).numpy(), torch.cat(errors).numpy()


def used(detector: DAAD, images: Tensor) -> float:
    """The share of the finest memory's items that stand for some block of `images` (n, C, H, W)."""
    network = detector.autoencoder
    memory = network.memories[0]
    with torch.no_grad():
        weights = memory.weights(memory.divide(network.down[0](images * 2 - 1)))  # type: ignore[operator]
    return float((weights > 0).any(0).float().mean())


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    asked = parser.parse_args()
    for name in asked.only:
        side, mode, learnt, held, tested, divisions, smaller = SETS[name]
        folder, normal = ("mnist", "8") if name == "mnist" else (f"mvtec_ad/{name}", None)
        dataset = open_dataset(str(asked.data / folder), **({"normal": normal} if normal else {}))
        preprocess = Preprocess(mode, (side, side))
        ok, kept = parted([sample.image for sample in dataset.train][: learnt and learnt + 2 * held], held)
        plain = list(stack(kept, preprocess))
        spoilt = np.stack([
            image for way in (turned, piece_erased, piece_of_another) for image, _ in all_spoilt(plain, way)
        ])  # fmt: skip
        order = np.random.default_rng(0).permutation(len(dataset.test))[:tested]
        test = stack([dataset.test[i].image for i in order], preprocess)
        ng = np.array([dataset.test[i].label == NG for i in order])
        given = arguments_for("cpu", "daad", small=side <= 48) or {}
        given = {**{key: value for key, value in given.items() if key not in ("size", "divisions")}, **smaller}
        rows = []
        for count in divisions:
            torch.manual_seed(0)
            shape = {"image_size": (side, side), "channels": 1 if mode == "L" else 3}
            detector = create("daad", **given, **shape, divisions=(count, count, 1))
            assert isinstance(detector, DAAD)
            fitted(detector, ok[:learnt], preprocess)
            (scores, errors), fine, odd = (scored(detector, images) for images in (test, np.stack(plain), spoilt))
            told = auroc(np.repeat([0, 1], [len(plain), len(spoilt)]), np.concatenate([fine[0], odd[0]]))
            seen = torch.from_numpy(test[:64]).permute(0, 3, 1, 2).float() / 255
            rows.append({
                "dataset": "MNIST 8" if normal else f"MVTec AD {name}, {side} px",
                "divisions": f"{count} x {count} x 1",
                "ok_error": f"{errors[~ng].mean():.5f}", "ng_error": f"{errors[ng].mean():.5f}",
                "ratio": f"{errors[ng].mean() / errors[~ng].mean():.3f}", "image_auroc": f"{auroc(ng, scores):.4f}",
                "spoilt_auroc": f"{told:.4f}", "used": f"{used(detector, seen):.2f}",
                "n": f"{len(ok[:learnt])} learnt, {(~ng).sum()} OK, {ng.sum()} NG, {len(plain)} held out",
                "arguments": json.dumps(given, sort_keys=True), "seed": 0,
                "command": f"python benchmarks/daad_blocks.py DATA --only {name}", "code": present_code("daad"),
                "versions": versions(), "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
                "date": datetime.date.today().isoformat(),
            })  # fmt: skip
            print({key: rows[-1][key] for key in list(rows[-1])[:9]}, flush=True)
        others = [row for row in read_rows(PATH) if row["dataset"] != rows[0]["dataset"]]
        write_rows(PATH, rows[0], [*others, *rows])


if __name__ == "__main__":
    main()
