"""Measure okng on real images and record every figure in results/.

    python benchmarks/measure.py DATA [--only NAME …]

DATA holds magnetic_tile/, mvtec_ad/transistor/ and mnist/; ELPV comes from its PyPI package. Each experiment goes
through the public verbs, one seed, the last epoch, and replaces its own rows of results/measured.csv. docs/choices.md
says what was known of test figures when PatchCore's defaults were chosen.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import okng
from okng.benchmark.code import present_code
from okng.benchmark.evaluation import evaluate_inspector
from okng.benchmark.reproduce import machine, versions
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import OK, open_dataset
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import create
from okng.detectors.engine import TorchEngine
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.training.images.copies import near_copies
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases
from okng.training.progress import Narrator

RESULTS = Path(__file__).parents[1] / "results"
FIELDS = (
    "experiment", "detector", "dataset", "protocol", "metric", "value", "arguments", "seed", "seconds", "command",
    "code", "versions", "machine", "date",
)  # fmt: skip
METRICS = ("image_auroc", "image_ap", "f1_max", "pixel_auroc", "aupro", "measured_false_alarm_rate", "caught")
PATCHES: dict[str, Any] = {  # the paper's ratio of patch and image, every 16 px; epochs and batches as of whole images
    "size": 256, "patch": 64, "patch_step": 16, "epochs": 50, "batch_size": 16,
}  # fmt: skip
NOTHING_LEARNT = {"training_steps": 1, "learning_rate": 1e-9}
BEGUN_TRAINED = {"backbone": "efficientnet_lite0", "weights": "imagenet", "head_first": 5}
DIGITS: dict[str, Any] = {"code": 32, "epochs": 10, "batch_size": 32, "learning_rate": 1e-3}


def row(experiment: str, detector: str, dataset: str, protocol: str, metric: str, value: float, **more: Any) -> dict:
    """One line of a results file."""
    fixed = {
        "experiment": experiment, "detector": detector, "dataset": dataset, "protocol": protocol, "metric": metric,
        "value": f"{value:.4f}", "seed": 0, "command": f"python benchmarks/measure.py DATA --only {experiment}",
        "code": present_code(detector), "versions": versions(),
        "machine": machine("cpu"),
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    return {**fixed, **more}


def one(experiment: str, source: str, detector: str = "patchcore", **arguments: Any) -> Iterator[dict]:
    """Fit and evaluate one detector on one data set."""
    arguments = {"promise": "strict", **arguments}  # a fifth is held out, whatever the detector
    dataset = open_dataset(source)
    start = time.monotonic()
    with Narrator() as tell:
        inspector = okng.fit([s.image for s in dataset.train], detector, tell=tell, **arguments)
        seconds = round(time.monotonic() - start, 1)
        figures = evaluate_inspector(inspector, dataset, tell=tell)
    for metric in METRICS:
        if not np.isnan(figures[metric]):
            more = {"arguments": arguments, "seconds": seconds}
            yield row(experiment, detector, dataset.name, dataset.protocol, metric, figures[metric], **more)


def usual(detector: str) -> dict[str, Any]:
    """Its arguments for photographs on a CPU, as `benchmarks/methods.py` has them."""
    return arguments_for("cpu", detector, small=False) or {}


def smoothing(experiment: str, source: str) -> Iterator[dict]:
    """PatchCore's map under Gaussians of several widths, from one fit; the image scores do not change."""
    dataset = open_dataset(source)
    with Narrator() as tell:
        inspector = okng.fit([s.image for s in dataset.train], "patchcore", promise="strict", tell=tell)
        for sigma in (2.0, 4.0, 8.0, 16.0, 24.0):
            inspector.engine.detector.sigma = sigma  # type: ignore[attr-defined]
            figures = evaluate_inspector(inspector, dataset, tell=tell)
            for metric in ("pixel_auroc", "aupro"):
                more = {"arguments": {"sigma": sigma}}
                yield row(experiment, "patchcore", dataset.name, dataset.protocol, metric, figures[metric], **more)


def imagenet_normalisation(experiment: str, source: str) -> Iterator[dict]:
    """PaDiM on all OK images with ImageNet's mean and deviation, which its default backbone was not trained with."""
    dataset = open_dataset(source)
    torch.manual_seed(0)
    detector = create("padim")
    detector.backbone.mean.copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))  # type: ignore[union-attr,operator]
    detector.backbone.std.copy_(torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))  # type: ignore[union-attr,operator]
    preprocess = Preprocess("RGB", (256, 256), detector.multiple)
    run_phases(detector, TrainingImages([sample.image for sample in dataset.train], preprocess), device="cpu")
    nothing = Calibration(np.zeros(1), None, "none", 0.5, np.inf, None, "")
    figures = evaluate_inspector(Inspector(TorchEngine(detector), preprocess, nothing, {}), dataset)
    for metric in ("image_auroc", "pixel_auroc"):
        more = {"arguments": "ImageNet's mean and deviation"}
        yield row(experiment, "padim", dataset.name, dataset.protocol, metric, figures[metric], **more)


def digits(experiment: str, source: str) -> Iterator[dict]:
    """The autoencoder, one class of MNIST after another against the whole test set."""
    values, start = [], time.monotonic()
    for digit in range(10):
        dataset = open_dataset(source, normal=str(digit))
        with Narrator() as tell:
            # The class alone trains; a tenth is held out for the calibration that the AUROC does not use.
            images = [s.image for s in dataset.train]
            inspector = okng.fit(images, "autoencoder", holdout=0.1, tell=tell, **DIGITS)
            values.append(evaluate_inspector(inspector, dataset, tell=tell)["image_auroc"])
        more = {"arguments": DIGITS, "seconds": round(time.monotonic() - start, 1)}
        protocol = "one-vs-rest on the native split"
        yield row(experiment, "autoencoder", f"MNIST {digit}", protocol, "image_auroc", values[-1], **more)
    yield row(experiment, "autoencoder", "MNIST mean of 10", protocol, "image_auroc", float(np.mean(values)), **more)


def bandwidths(experiment: str, source: str) -> Iterator[dict]:
    """A kernel density of each digit, its bandwidth chosen and given, against the whole test set."""
    for bandwidth in (None, 0.5, 1.0, 2.0, 4.0, 8.0):
        arguments, values, start = {"components": 0.95, "bandwidth": bandwidth}, [], time.monotonic()
        for digit in range(10):
            dataset = open_dataset(source, normal=str(digit))
            inspector = okng.fit([s.image for s in dataset.train], "kde", holdout=0.1, **arguments)
            values.append(evaluate_inspector(inspector, dataset)["image_auroc"])
        more = {"arguments": arguments, "seconds": round(time.monotonic() - start, 1)}
        place = (experiment, "kde", "MNIST mean of 10", "one-vs-rest on the native split")
        yield row(*place, "image_auroc", float(np.mean(values)), **more)


def false_alarms(experiment: str, source: str, splits: int = 20) -> Iterator[dict]:
    """Asked 5 %: the rate on unseen OK images over random splits of all OK images that part no near copies."""
    dataset = open_dataset(source)
    images = np.array([s.image for s in (*dataset.train, *dataset.test) if s.label == OK], dtype=object)
    groups = near_copies(TrainingImages(list(images), Preprocess("L", 128)).thumbnails())  # (n,)
    count = int(groups.max()) + 1
    rates = []
    start = time.monotonic()
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(count)
        unseen = np.isin(groups, order[: count // 4])  # (n,)
        inspector = okng.fit(
            list(images[~unseen]), "patchcore", promise="strict", size=128, seed=seed, false_alarm_rate=0.05
        )
        rates.append(float(np.mean([i.is_ng for i in inspector.inspect(list(images[unseen]))])))
        print(f"{experiment} {source} split {seed}: {rates[-1]:.3f}, mean {np.mean(rates):.4f}", flush=True)
    error = float(np.std(rates, ddof=1) / np.sqrt(splits))
    more = {"arguments": {"size": 128, "false_alarm_rate": 0.05}, "seed": f"0-{splits - 1}"}
    more["seconds"] = round(time.monotonic() - start, 1)
    near = "" if count == len(images) else f" in {count} groups of near copies"
    protocol = f"{splits} random splits of {len(images)} OK images{near}: 3/4 to fit and calibrate, 1/4 unseen"
    for metric, value in (("false_alarm_rate, asked 0.05", np.mean(rates)), ("standard error of it", error)):
        yield row(experiment, "patchcore", dataset.name, protocol, metric, float(value), **more)


def experiments(data: Path) -> dict[str, Callable[[str], Iterator[dict]]]:
    """Every experiment by name."""
    tile, transistor = str(data / "magnetic_tile"), str(data / "mvtec_ad" / "transistor")
    return {
        "elpv-mono": lambda name: one(name, "elpv/mono"),
        "elpv-poly": lambda name: one(name, "elpv/poly"),
        "transistor-patchcore": lambda name: one(name, transistor),
        "transistor-padim": lambda name: one(name, transistor, "padim"),
        "transistor-cutpaste-untrained": lambda name: one(
            name, transistor, "cutpaste", **{**usual("cutpaste"), **NOTHING_LEARNT}
        ),
        "transistor-draem-untrained": lambda name: one(
            name, transistor, "draem", **{**usual("draem"), "epochs": 1, "learning_rate": 1e-12}
        ),
        "transistor-cutpaste-patches": lambda name: one(name, transistor, "cutpaste", **PATCHES),
        "transistor-cutpaste-patches-untrained": lambda name: one(
            name, transistor, "cutpaste", **PATCHES, **NOTHING_LEARNT
        ),
        "transistor-cutpaste-patches-imagenet": lambda name: one(
            name, transistor, "cutpaste", **PATCHES, **BEGUN_TRAINED
        ),
        "transistor-cutpaste-patches-imagenet-untrained": lambda name: one(
            name, transistor, "cutpaste", **PATCHES, **{**BEGUN_TRAINED, "head_first": 0}, **NOTHING_LEARNT
        ),
        "tile-patchcore": lambda name: one(name, tile),
        "padim-imagenet-normalisation": lambda name: imagenet_normalisation(name, transistor),
        "smoothing-transistor": lambda name: smoothing(name, transistor),
        "smoothing-tile": lambda name: smoothing(name, tile),
        "mnist-autoencoder": lambda name: digits(name, str(data / "mnist")),
        "kde-bandwidth": lambda name: bandwidths(name, str(data / "mnist")),
        "false-alarms-mono": lambda name: false_alarms(name, "elpv/mono"),
        "false-alarms-poly": lambda name: false_alarms(name, "elpv/poly"),
        "false-alarms-tile": lambda name: false_alarms(name, tile),
    }


def record(experiment: str, rows: list[dict]) -> None:
    """Replace the experiment's rows in results/measured.csv."""
    path = RESULTS / "measured.csv"
    write_rows(path, FIELDS, [*(r for r in read_rows(path) if r["experiment"] != experiment), *rows])


def main() -> None:
    """Run the experiments that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    asked = parser.parse_args()
    known = experiments(asked.data.expanduser())
    for name in asked.only or known:
        rows = list(known[name](name))
        record(name, rows)
        for r in rows:
            print(f"{name}: {r['metric']} {r['value']}")


if __name__ == "__main__":
    main()
