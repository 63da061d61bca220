"""How much it costs that NG images are learnt as OK, when nobody has looked: six methods, five shares.

    python benchmarks/contamination.py DATA [--methods NAME …] [--device cuda] [--rows FILE]

DATA holds fashion-mnist/. Learnt are all training images of a class and, mixed among them without a label, images of
the nine others, drawn by the seed, until they are the stated share; judged is the whole test set. Arguments are those
for small images on a CPU, and no method is told the share. Rows of results/contamination.csv that stand there by the
present code and arguments are not measured again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import FIELDS, RESULTS, row
from one_class import BATCH, Images, arrays, settings

from okng.benchmark.code import is_older
from okng.benchmark.reproduce import machine
from okng.benchmark.rows import read_rows, write_rows
from okng.detectors.catalogue import create, parameters
from okng.detectors.engine import TorchEngine
from okng.inspection.images import Preprocess
from okng.metrics import auroc
from okng.training.data import TrainingImages
from okng.training.phases import run_phases

PATH = RESULTS / "contamination.csv"
COLUMNS = (*FIELDS, "class", "share")
METHODS = ("ocsvm", "isolation_forest", "kde", "knn", "deep_svdd", "ssl_ad")
CLASSES = (0,)
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2)


def measured(method: str, train: Images, test: Images, kind: int, share: float, seed: int, device: str) -> dict:
    """One fit of the class `kind` with that share of others, and the whole test set."""
    ok, others = train[0][train[1] == kind], train[0][train[1] != kind]
    count = round(len(ok) * share / (1 - share))
    drawn = np.random.default_rng(seed).permutation(len(others))[:count]  # a larger share holds the smaller ones
    shape = {k: v for k, v in (("image_size", (28, 28)), ("channels", 1)) if k in parameters(method)}
    torch.manual_seed(seed)
    detector = create(method, **shape, **settings(method))
    begun = time.monotonic()
    run_phases(detector, TrainingImages([*ok, *others[drawn]], Preprocess("L", (28, 28))), seed=seed, device=device)
    seconds = time.monotonic() - begun
    engine = TorchEngine(detector, device)
    scores = np.concatenate([engine(test[0][i : i + BATCH, ..., None])[0] for i in range(0, len(test[0]), BATCH)])
    more = {
        "arguments": settings(method), "seed": seed, "seconds": f"{seconds:.1f}", "class": kind, "share": share,
        "machine": machine(device), "command": f"python benchmarks/contamination.py DATA --methods {method}",
    }  # fmt: skip
    place = (f"contamination {method}", method, f"Fashion-MNIST {kind}", "one-vs-rest on the native split")
    return row(*place, "image_auroc", auroc(test[1] != kind, scores), **more)


def main() -> None:
    """Measure what is missing, and print the means over classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=Path, default=PATH)
    asked = parser.parse_args()
    train, test = arrays(asked.data.expanduser() / "fashion-mnist")
    for method, kind, share in [(m, k, s) for m in asked.methods for k in CLASSES for s in SHARES]:
        rows = read_rows(asked.rows)
        place = (method, str(kind), str(share))
        own = [r for r in rows if (r["detector"], r["class"], r["share"]) == place]
        if own and not any(is_older(r) or r["arguments"] != str(settings(method)) for r in own):
            continue
        new = measured(method, train, test, kind, share, 0, asked.device)
        write_rows(asked.rows, COLUMNS, [*(r for r in read_rows(asked.rows) if r not in own), new])
        print(*place, new["value"], f"{new['seconds']} s", flush=True)
    rows = read_rows(asked.rows)
    for method in dict.fromkeys(r["detector"] for r in rows):
        means = []
        for share in SHARES:
            each = [float(r["value"]) for r in rows if (r["detector"], float(r["share"])) == (method, share)]
            means.append(f"{np.mean(each):.3f}" if len(each) == len(CLASSES) else "–")
        print(method, *means)


if __name__ == "__main__":
    main()
