"""Methods for whole images on MNIST, Fashion-MNIST and CIFAR-10, each class against the rest.

    python benchmarks/one_class.py DATA [--methods NAME …] [--sets NAME …] [--classes NAME …]
        [--seeds 0 1 2] [--device cuda] [--rows FILE]

DATA holds mnist/, fashion-mnist/ and cifar10/, of which three classes are measured where none is named. Learnt are all
training images of the class, nothing is held out; judged is the whole test set. Arguments are those for small images on
a CPU, fixed before any test, and the last epoch counts. Deep SAD learns in addition, labelled NG, 5 % of its images of
the class that follows. What the labels are worth is seen beside "deep_sad-unlabelled", the same without them, and
beside Deep SVDD, which also sees the images in another scale: on that class ("-known") and on the eight others
("-novel"), by the same NG images each. A row of results/one_class.csv that stands there by the present code and
arguments is not measured again. With OMP_NUM_THREADS=1 times are of one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import FIELDS, RESULTS, row

from okng.benchmark.code import is_older
from okng.benchmark.reproduce import SOURCES, machine
from okng.benchmark.rows import read_rows, write_rows
from okng.benchmark.tables import CIFAR_10, DIGITS
from okng.datasets.cifar import has_cifar_files, read_cifar
from okng.datasets.class_folders import read_split_classes
from okng.datasets.idx import has_idx_files, read_idx
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import create, parameters
from okng.detectors.engine import TorchEngine
from okng.inspection.reading.images import Preprocess
from okng.metrics import auroc
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases
from okng.training.progress import Narrator

PATH = RESULTS / "one_class.csv"
COLUMNS = (*FIELDS, "method", "class", "budget")
CLASSES = {"MNIST": DIGITS, "Fashion-MNIST": DIGITS, "CIFAR-10": CIFAR_10}
THREE = ("automobile", "horse", "ship")  # of CIFAR-10
CLASSICAL = (
    "ocsvm",
    "ocsvm-scale",
    "isolation_forest",
    "isolation_forest-contrast",
    "isolation_forest-plain",
    "kde",
    "knn",
    "lof",
    "ecod",
    "gaussian",
)
DEEP = ("deep_svdd", "deep_svdd-soft", "deep_sad", "deep_sad-unlabelled", "fcdd")
SELF_SUPERVISED = ("geom", "ssl_ad", "goad", "csi", "droc", "ssd")
RECONSTRUCTING = ("lsa", "memae", "ganomaly", "pixelcnn", "skip_ganomaly", "daad", "advae", "avid", "vae_grad")
ALL = (*CLASSICAL, *DEEP, *SELF_SUPERVISED, *RECONSTRUCTING)
BESIDE: dict[str, dict[str, Any]] = {  # what a variant has that the card's arguments have not
    "isolation_forest-plain": {"contrast": False, "components": None},
    "isolation_forest-contrast": {"components": None},
    "ocsvm-scale": {"sharpness": 1.0},
    "deep_svdd-soft": {"objective": "soft-boundary"},
}
LABELLED = 0.05  # of the images that Deep SAD learns from
ON_PARTS = ("deep_svdd", "deep_sad", "deep_sad-unlabelled")  # whose figures on the class of the labels are rows too
PARTS = {"-known": ", the next class alone as NG", "-novel": ", without the next class"}  # what the protocol says
BATCH = 500

Images = tuple[np.ndarray, np.ndarray]  # (N, H, W, C) uint8, (N,) names of classes


def arrays(folder: Path) -> tuple[Images, Images]:
    """Training and test part."""
    if has_idx_files(folder):
        found, preprocess = read_idx(folder), Preprocess("L", (28, 28))
    else:
        found = read_cifar(folder) if has_cifar_files(folder) else read_split_classes(folder)
        preprocess = Preprocess("RGB", (32, 32))
    train, test = (
        (np.stack([preprocess.load(s.image)[0] for s in part]), np.array([s.kind for s in part]))
        for part in (found.train, found.test or ())
    )
    return train, test


def settings(method: str) -> dict[str, Any]:
    """The arguments of the detector."""
    detector = method.partition("-")[0]
    return {**(arguments_for("cpu", detector, small=True) or {}), **BESIDE.get(method, {})}


def learnt(
    detector_name: str,
    arguments: dict[str, Any],
    ok: list[np.ndarray],
    ng: list[np.ndarray],
    test: np.ndarray,
    seed: int,
    device: str,
) -> tuple[np.ndarray, float]:
    """Scores of `test` (N, H, W, C) after a fit of `ok` and, labelled so, `ng`; and the fit's seconds."""
    takes = parameters(detector_name)
    sides, channels = test.shape[1:3], test.shape[3]
    shape = {key: value for key, value in (("image_size", sides), ("channels", channels)) if key in takes}
    torch.manual_seed(seed)
    detector = create(detector_name, **shape, **arguments)
    begun = time.monotonic()
    with Narrator() as tell:
        images = TrainingImages(
            [*ok, *ng], Preprocess("L" if channels == 1 else "RGB", sides), labels=[0] * len(ok) + [1] * len(ng)
        )
        run_phases(detector, images, seed=seed, device=device, tell=tell)
    seconds = time.monotonic() - begun
    engine = TorchEngine(detector, device)
    batches = [test[i : i + BATCH] for i in range(0, len(test), BATCH)]
    return np.concatenate([engine(batch)[0] for batch in batches]), seconds


def measured(method: str, name: str, train: Images, test: Images, kind: str, seed: int, device: str) -> list[dict]:
    """One fit of the class `kind`, and the whole test set."""
    detector_name = method.partition("-")[0]
    kinds = CLASSES[name]
    following = kinds[(kinds.index(kind) + 1) % len(kinds)]
    ok = list(train[0][train[1] == kind])
    ng = []
    if method == "deep_sad":
        ng = list(train[0][train[1] == following][: round(len(ok) * LABELLED / (1 - LABELLED))])
    scores, seconds = learnt(detector_name, settings(method), ok, ng, test[0], seed, device)
    odd = test[1] != kind
    parts = {"": np.full(len(odd), True)}
    if method in ON_PARTS:
        known = test[1] == following
        parts |= {"-known": known | ~odd, "-novel": ~known}
    labels = f", labelled NG of the next class in training: {LABELLED:.0%}" if ng else ""
    more = {
        "arguments": settings(method), "seed": seed, "seconds": f"{seconds:.1f}", "class": kind,
        "machine": machine(device),
        "command": f"python benchmarks/one_class.py DATA --methods {method} --sets {name} --seeds {seed}"
        + f" --device {device}" * (device != "cpu"),
    }  # fmt: skip
    found = []
    for part, chosen in parts.items():
        shown, protocol = method + part, f"one-vs-rest on the native split{PARTS.get(part, '')}{labels}"
        place = (detector_name, f"{name} {kind}", protocol, "image_auroc", auroc(odd[chosen], scores[chosen]))
        budget = "cpu" if shown == detector_name else ""  # a detector's own figure is of the whole test set
        found.append(row(f"one-class {shown}", *place, method=shown, budget=budget, **more))
    return found


def told(rows: list[dict]) -> list[str]:
    """The means of ten classes that are complete, by method, set and seed."""
    found: dict[tuple[str, ...], list[float]] = {}
    for one in rows:
        key = (one["dataset"].rpartition(" ")[0], one["method"], str(one["seed"]))
        found.setdefault(key, []).append(float(one["value"]))
    return [f"{' '.join(key)}: mean {np.mean(each):.4f}" for key, each in sorted(found.items()) if len(each) == 10]


def main() -> None:
    """Measure what is missing, class by class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=ALL, choices=ALL)
    parser.add_argument("--sets", nargs="+", default=tuple(CLASSES), choices=CLASSES)
    parser.add_argument("--classes", nargs="+", choices=[*DIGITS, *CIFAR_10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=Path, default=PATH)
    asked = parser.parse_args()
    path = asked.rows
    for name in asked.sets:
        classes = asked.classes or (THREE if name == "CIFAR-10" else CLASSES[name])
        train, test = arrays(asked.data.expanduser() / SOURCES[name].names[0])
        for seed, method, kind in [(s, m, k) for s in asked.seeds for m in asked.methods for k in classes]:
            place = (f"{name} {kind}", str(seed))
            rows = read_rows(path)
            names = (method, *(method + part for part in PARTS))
            own = [r for r in rows if (r["dataset"], r["seed"]) == place and r["method"] in names]
            if own and not any(is_older(r) or r["arguments"] != str(settings(method)) for r in own):
                continue
            new = measured(method, name, train, test, kind, seed, asked.device)
            write_rows(path, COLUMNS, [*(r for r in read_rows(path) if r not in own), *new])
            print(*place, *(f"{r['method']} {r['value']} {r['seconds']} s" for r in new), flush=True)
    print("\n".join(told(read_rows(path))))


if __name__ == "__main__":
    main()
