"""From what was measured to the rows of a comparison: means over seeds, intervals, and which differences are real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from okng.comparing.pixels import PixelCounts
from okng.comparing.runs import Method, Result
from okng.comparing.statistics import (
    LEVEL,
    against_the_best,
    auroc_interval,
    average_precisions,
    delong,
    interval,
    mcnemar_p,
    paired_p,
    placements,
    resampled,
    shares,
)
from okng.metrics.shares import wilson

FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "caught": "caught",
    "measured_false_alarm_rate": "false alarms",
}
COMPARED = ("image_auroc", "image_ap", "pixel_auroc", "aupro", "caught")  # the higher the better
COSTS = ("seconds", "milliseconds", "file_bytes", "fit_memory", "inspect_memory")


@dataclass
class Figure:
    """A mean over seeds with its 95 % interval over draws of test images.

    `p`: of the paired test against the best method in this figure, corrected for the number of methods; NaN where there
    is none. `best`: whether it is the highest; `alike`: whether it can't be told from the highest.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    best: bool = False
    alike: bool = False


@dataclass
class Row:
    """A method on a data set; `reason` says why figures are missing, `each` has the figures and costs seed by seed.

    `ran_on`: the machines of its fits, with their threads, where that was noted.
    """

    method: Method
    reason: str = ""
    figures: dict[str, Figure] = field(default_factory=lambda: {name: Figure() for name in FIGURES})
    costs: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(COSTS))
    notes: dict[str, str] = field(default_factory=dict)
    each: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    stops: int = 0
    n_ok: int = 0
    n_ng: int = 0
    learnt: str = ""
    versions: str = ""
    ran_on: list[str] = field(default_factory=list)
    planted: dict[str, Any] = field(default_factory=dict)


def rows_of(methods: Sequence[Method], results: dict[str, list[Result]], reasons: dict[str, str]) -> list[Row]:
    """One row per method: `results` of its seeds so far by its name, `reasons` why some or all are missing."""
    rows = [_summed_up(method, results.get(method.name, []), reasons.get(method.name, "")) for method in methods]
    measured = [(row, results[row.method.name]) for row in rows if row.each]
    if measured:
        _compare(measured)
    return rows


def _summed_up(method: Method, results: list[Result], reason: str) -> Row:
    """Means over seeds."""
    row = Row(method, reason)
    for result in results:
        kept = result.kept
        figures = {name: _number(kept["figures"][name]) for name in FIGURES}
        row.each.append({"seed": result.run.seed, **figures, **{name: kept[name] for name in COSTS}})
        row.notes |= kept["figures"]["notes"]
        row.stops += kept["stops"]
        row.pictures = row.pictures or kept["pictures"]
        row.n_ok, row.n_ng = kept["figures"]["n_ok"], kept["figures"]["n_ng"]
        row.ran_on = sorted({*row.ran_on, kept["ran_on"]}) if "ran_on" in kept else row.ran_on
        provenance, row.versions = kept["provenance"], kept["versions"]
        row.learnt = f"{provenance['learnt_from']} OK" + (
            f" and {provenance['ng_images']} NG images" if provenance["ng_images"] else " images"
        )
        row.planted = row.planted or kept["planted"]
    for name in FIGURES if row.each else ():
        row.figures[name].value = float(np.mean([one[name] for one in row.each]))
    for name in COSTS if row.each else ():
        values = [one[name] for one in row.each if one[name] is not None]
        row.costs[name] = float(np.mean(values)) if values else None
    return row


def _compare(measured: list[tuple[Row, list[Result]]]) -> None:
    """Intervals and paired tests, over the images that every method has judged, written into the rows."""
    common = set.intersection(*(set(result.kept["images"]) for _, results in measured for result in results))
    first = measured[0][1][0]
    order = [key for key in first.kept["images"] if key in common]
    places = {id(result): _places(result, order) for _, results in measured for result in results}
    labels = first.arrays["labels"][places[id(first)]]  # (n,)
    n1, n0 = int(labels.sum()), int((labels == 0).sum())
    for row, _ in measured:
        for name, count in (("caught", n1), ("measured_false_alarm_rate", n0)):
            figure = row.figures[name]
            if count and not math.isnan(figure.value):
                figure.low, figure.high = wilson(figure.value * count, count)
    if min(n1, n0) < 2:
        return
    _by_delong(measured, labels, places)
    one_fit_each = all(len(results) == 1 for _, results in measured)
    if one_fit_each:  # each image is caught or not: an exact test
        called = np.stack([result.arrays["called"][places[id(result)]] for _, (result,) in measured])  # (m, n)
        _judge("caught", [row for row, _ in measured], mcnemar_p(called[:, labels == 1]))
    weights = resampled(labels)  # (B, n)
    with_maps = next((one for _, results in measured for one in results if "masked" in one.arrays), None)
    kinds = labels if with_maps is None else kinds_of_pixels(with_maps, places[id(with_maps)], labels)
    of_pixels = resampled(kinds)  # (B, n)
    once = np.ones((1, len(labels)))
    for name in COMPARED[1:-1] if one_fit_each else COMPARED[1:]:
        drawn, rows = [], []  # values (1 + B,) of the images as they are and of each resample
        taken = np.concatenate([once, of_pixels if name in ("pixel_auroc", "aupro") else weights])
        for row, results in measured:
            parts = [_resamples(name, result, places[id(result)], labels, taken) for result in results]
            if any(part is None for part in parts) or math.isnan(row.figures[name].value):
                continue
            values = np.mean([part for part in parts if part is not None], 0)  # (1 + B,)
            figure = row.figures[name]
            if name != "caught":
                figure.low, figure.high = interval(values[1:], figure.value, float(values[0]))
            drawn.append(values)
            rows.append(row)
        if rows:
            stacked = np.stack(drawn)  # (m, 1 + B)
            _judge(name, rows, paired_p(stacked[:, 0], np.atleast_2d(np.cov(stacked[:, 1:]))))


def _by_delong(measured: list[tuple[Row, list[Result]]], labels: np.ndarray, places: dict[int, np.ndarray]) -> None:
    ng, ok = [], []
    for _, results in measured:
        both = [placements(labels, result.arrays["scores"][places[id(result)]]) for result in results]
        ng.append(np.mean([above for above, _ in both], 0))  # (n1,)
        ok.append(np.mean([below for _, below in both], 0))  # (n0,)
    values, covariance = delong(np.stack(ng), np.stack(ok))
    for (row, _), variance in zip(measured, np.diag(covariance), strict=True):
        figure = row.figures["image_auroc"]
        figure.low, figure.high = auroc_interval(figure.value, float(variance), len(ng[0]), len(ok[0]))
    _judge("image_auroc", [row for row, _ in measured], paired_p(values, covariance))


def _judge(name: str, rows: list[Row], p: np.ndarray) -> None:
    """Mark the best of `rows` and those that a paired test, with p-values `p` (m, m), can't tell from it."""
    best = int(np.argmax([row.figures[name].value for row in rows]))
    adjusted = against_the_best(p, best)
    for i, row in enumerate(rows):
        figure = row.figures[name]
        figure.best, figure.p = i == best, float(adjusted[i])
        figure.alike = i == best or figure.p > LEVEL


def kinds_of_pixels(result: Result, places: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`labels` (n,) with 2 for NG images that show no defect's pixels, as where only some have masks.

    They are drawn among themselves, so that every resample has as many images with defects' pixels as there are.
    """
    shown = result.arrays["masked"][result.arrays["defect"].sum(1) > 0]
    return np.where((labels == 1) & ~np.isin(places, shown), 2, labels)


def _resamples(
    name: str, result: Result, places: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray | None:
    """The figure (B,) in each resample of the common images, at `places` of this result; None where it has none."""
    arrays = result.arrays
    if name == "image_ap":
        return average_precisions(labels, arrays["scores"][places], weights)
    if name == "caught":
        return shares(arrays["called"][places], labels == 1, weights)
    if "masked" not in arrays:
        return None
    row_of = {int(place): i for i, place in enumerate(arrays["masked"])}
    chosen = [(row_of[int(place)], column) for column, place in enumerate(places) if int(place) in row_of]
    rows, columns = (list(part) for part in zip(*chosen, strict=True))
    counts = PixelCounts(*(arrays[part][rows].astype(float) for part in ("normal", "defect", "overlap")))
    auroc, aupro = counts.of(weights[:, columns])
    return auroc if name == "pixel_auroc" else aupro


def _places(result: Result, order: list[str]) -> np.ndarray:
    """Where the images `order` stand in the arrays of `result`."""
    place = {key: i for i, key in enumerate(result.kept["images"])}
    return np.array([place[key] for key in order], int)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
