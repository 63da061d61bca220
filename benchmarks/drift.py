"""Drift: how often a stable line raises an alarm, and after how many images a changed one does.

    python benchmarks/drift.py [DATA]

DATA holds magnetic_tile/; ELPV comes from PyPI. Writes results/drift.csv. "stable": 1,000 streams of 5,000 images each,
every stream with a set of n of its own, scores of a normal law; the bound is for any length. "uncorrected": the
same bets not divided by 1 + |e| Δ. "delay": PaDiM at 128 px learns 60 % of up to 400 OK images and 40 % calibrate;
streams of OK images that were not learnt, drawn with replacement, change after 1,000: 200 streams each, at most 3,000
images more. Nothing is tuned on any of it. One seed.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

import okng
from okng.benchmark.reproduce import versions
from okng.benchmark.rows import write_rows
from okng.datasets import OK, open_dataset
from okng.inspection.drift import BETS, Drift, advanced, correction, gains, smoothed, start
from okng.inspection.reading.images import open_image

RESULTS = Path(__file__).parents[1] / "results" / "drift.csv"
FIELDS = ("case", "dataset", "change", "figure", "value", "n", "seed", "command", "versions", "machine", "date")
RISK, SEED = 0.01, 0
SLOPES = np.array(BETS)


class Streams:
    """The capital of many streams at once, each on the p-values of one number: what `drift.Watch` does to one."""

    def __init__(self, count: int, n: int, delta: float, corrected: bool = True):
        self.capital, self.kept, self.steps = np.full((count, len(BETS)), -np.inf), 1.0, 0
        self.off = correction(n, delta) if corrected else 0.0

    def add(self, p: np.ndarray) -> np.ndarray:
        """The logarithm of the capital of each stream after its p-value (streams,)."""
        self.steps += 1
        part = start(self.steps)
        self.kept -= part
        self.capital = advanced(self.capital, gains(p, SLOPES, self.off), part)
        evidence: np.ndarray = np.logaddexp(np.logaddexp.reduce(self.capital, axis=1), math.log(self.kept))
        return evidence


def stable(n: int, corrected: bool, runs: int = 1000, steps: int = 5000) -> float:
    """The share of stable streams that ever raise an alarm, of one watch at the whole risk."""
    rng = np.random.default_rng([SEED, n])
    reference = np.sort(rng.normal(size=(runs, n)), axis=1)
    offset = 100.0 * np.arange(runs)  # one sorted array for all
    flat = (reference + offset[:, None]).ravel()
    streams, ever = Streams(runs, n, RISK / 2, corrected), np.zeros(runs, bool)
    for _ in range(steps):
        rank = np.searchsorted(flat, np.clip(rng.normal(size=runs), -40, 40) + offset) - n * np.arange(runs)
        ever |= streams.add((n - rank + rng.random(runs)) / (n + 1)) >= math.log(2 / RISK)
    return float(ever.mean())


def darker(image: Image.Image) -> Image.Image:
    """A lamp with 10 % less light."""
    return image.point(lambda value: value * 0.9)


def blurred(image: Image.Image) -> Image.Image:
    """A lens slightly out of focus: a blur of half a percent of the image's side."""
    return image.filter(ImageFilter.GaussianBlur(0.005 * math.sqrt(image.width * image.height)))


def toned(image: Image.Image) -> Image.Image:
    """Material of another tone: the middle greys are darker, black and white stay."""
    return image.point(lambda value: round(255 * (value / 255) ** 1.15))


def delays(name: str, source: str, other: str | None) -> Iterator[dict[str, Any]]:
    """One data set: the delay of each change, and what raised the alarm first."""
    dataset = open_dataset(source)
    ok = [sample.image for sample in [*dataset.train, *dataset.test] if sample.label in (None, OK)]
    ok = [ok[i] for i in np.random.default_rng(SEED).permutation(len(ok))]
    learnt, fresh = ok[:400], ok[400:550]
    inspector = okng.fit(learnt, "padim", size=128, holdout=0.4, device="cpu", seed=SEED)
    drift = Drift(inspector, RISK)
    assert drift.bounded

    def told(images: list[Any]) -> dict[str, np.ndarray]:
        seen = [(each.score, each.traits) for each in inspector.inspect(images)]
        assert all(traits is not None for _, traits in seen)
        return {
            "score": np.array([score for score, _ in seen]),
            "brightness": np.array([traits.brightness for _, traits in seen if traits]),
            "sharpness": np.array([traits.sharpness for _, traits in seen if traits]),
        }

    def changed(change: Callable[[Image.Image], Image.Image]) -> list[Any]:
        return [np.asarray(change(open_image(image).convert("L"))) for image in fresh]

    cases: dict[str, list[Any]] = {
        "none": fresh, "lamp 10 % darker": changed(darker), "lens slightly out of focus": changed(blurred),
        "material of another tone": changed(toned),
    }  # fmt: skip
    if other is not None:
        batch = [sample.image for sample in open_dataset(other).test if sample.label == OK]
        cases[f"another material: {other}"] = batch[:150]
    usual = told(cases["none"])
    for change, images in cases.items():
        values = told(images)
        after, first = simulate(drift, usual, values)
        share = float(np.isfinite(after).mean())
        common = {"case": "delay", "dataset": name, "change": change, "n": len(drift.watches["score"].reference)}
        yield {**common, "figure": "alarm within 3,000", "value": share}
        if share > 0.5:
            for figure, at in (("median", 0.5), ("90 % of streams", 0.9)):
                delay = float(np.quantile(after, at, method="higher"))
                yield {**common, "figure": f"images until the alarm, {figure}", "value": delay}
            for watch in sorted(set(first[np.isfinite(after)])):
                yield {**common, "figure": f"first by {watch}", "value": float((first == watch).mean())}


def simulate(
    drift: Drift, usual: dict[str, np.ndarray], changed: dict[str, np.ndarray], runs: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Images after the change until an alarm (runs,), infinite for none, -1 for one before, and what raised it."""
    rng = np.random.default_rng(SEED)
    watches = drift.watches
    streams = {name: Streams(runs, len(watch.reference), watch.delta) for name, watch in watches.items()}
    after, first = np.full(runs, np.inf), np.full(runs, "", dtype="<U20")
    for step in range(4000):
        values = usual if step < 1000 else changed
        drawn = rng.integers(len(values["score"]), size=runs)
        for name, watch in watches.items():
            p = smoothed(watch.reference, values[name][drawn], rng.random(runs))
            new = (streams[name].add(p) >= drift.needed) & ~np.isfinite(after)
            after[new], first[new] = (step - 999 if step >= 1000 else -1), name
        if np.isfinite(after).all():
            break
    return after, first


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    data = parser.parse_args().data
    rows: list[dict[str, Any]] = []

    def put(row: dict[str, Any]) -> None:
        rows.append({
            **row, "value": f"{row['value']:.4g}", "seed": SEED, "command": "python benchmarks/drift.py DATA",
            "versions": versions(), "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
            "date": datetime.date.today().isoformat(),
        })  # fmt: skip
        print(*(f"{key} {rows[-1][key]}" for key in FIELDS[:6] if rows[-1].get(key)), flush=True)

    for n in (20, 40, 100, 200):
        put({"case": "stable", "figure": f"share of 1,000 streams with an alarm, bound {RISK:g}", "n": n,
             "value": stable(n, corrected=True)})  # fmt: skip
    put({"case": "uncorrected", "figure": "share of 1,000 streams with an alarm", "n": 100,
         "value": stable(100, corrected=False)})  # fmt: skip
    for name, source, other in [
        ("mono", "elpv/mono", "elpv/poly"),
        *([] if data is None else [("tile", str(data / "magnetic_tile"), None)]),
    ]:
        for row in delays(name, source, other):
            put(row)
    write_rows(RESULTS, FIELDS, rows)


if __name__ == "__main__":
    main()
