"""The numbers behind the report's charts: intervals, histogram bars, the ROC curve. Nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from okng.inspection.verdict.calibration import Calibration
from okng.metrics.shares import wilson
from okng.planted.result import Curve
from okng.report.language import translator

BARS = 48
RUG_LINES = 400
ROC_POINTS = 200
LONG_WAY = 20.0  # from the highest mean of a loss to the lowest


@dataclass(frozen=True)
class Rate:
    """`count` of `total`, with the 95 % interval (`low`, `high`) of the share."""

    count: int
    total: int
    share: float
    low: float
    high: float


def rate_above(scores: np.ndarray, threshold: float) -> Rate | None:
    """How many of `scores` (n,) are above `threshold`; None for no scores."""
    return rate_of(int((scores > threshold).sum()), len(scores))


def rate_of(count: int, total: int) -> Rate | None:
    """`count` of `total` as a share with its interval; None for a total of 0."""
    return Rate(count, total, count / total, *wilson(count, total)) if total else None


def expected_false_alarms(calibration: Calibration, ok_images: int) -> tuple[int, int] | None:
    """The fewest and most false alarms in 95 of 100 tests with `ok_images` > 0; None where nothing is promised of them.

    Nothing is where held-out scores that stood apart were dropped: the images tested may have some of their kind.

    A threshold drawn from n held-out images is itself a matter of chance: with k of the n + 1 ranks above it,
    the rate it really has is Beta(k, n + 1 - k) distributed (Vovk, Conditional validity of inductive
    conformal predictors, ACML 2012). The number of false alarms is therefore beta-binomial, wider than the
    asked rate alone would make it.
    """
    n = len(calibration.scores)
    k = int(np.floor(calibration.false_alarm_rate * (n + 1) + 1e-9))
    promised = (calibration.basis, calibration.method, calibration.unit) == ("conformal", "split", "image")
    if not promised or calibration.dropped or k < 1:
        return None
    below = n + 1 - k
    x = np.arange(ok_images)  # (m,): the step from x to x + 1 false alarms
    steps = np.log((ok_images - x) / (x + 1)) + np.log((x + k) / (ok_images - x - 1 + below))
    log_mass = np.concatenate([[0.0], np.cumsum(steps)])  # (m + 1,), up to a constant
    mass = np.exp(log_mass - log_mass.max())
    total = np.cumsum(mass) / mass.sum()
    return int(np.searchsorted(total, 0.025)), int(np.searchsorted(total, 0.975))


@dataclass(frozen=True)
class Bar:
    """One bar; `left`, `width` and `height` in percent of the plot."""

    left: float
    width: float
    height: float
    count: int
    ng: bool
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """The histogram of one group of images on the axis all rows share, with its own scale of counts."""

    name: str
    total: int
    above: int
    tallest: int
    bars: list[Bar]


@dataclass(frozen=True)
class Histogram:
    """Rows of bars, the threshold, ticks (position, score), a rug of held-out scores; positions in percent.

    `beyond` images lie outside the axis and are counted in the first and last bars.
    """

    rows: list[Row]
    threshold: float
    ticks: list[tuple[float, float]]
    rug: list[float]
    beyond: int


def histogram(groups: Sequence[tuple[str, np.ndarray]], calibration: Calibration) -> Histogram:
    """Histograms of named groups of scores, none empty; no bar straddles the threshold.

    The axis ends where the bulk does: a single image a hundred times as odd as the rest must not press all
    others into one bar.
    """
    pooled = np.concatenate([scores for _, scores in groups])
    threshold = calibration.threshold
    spread = threshold - float(calibration.scores[0])
    if spread <= 0:  # one held-out image, or all alike
        spread = float(np.abs(pooled - threshold).max()) or abs(threshold) or 1.0
    low = max(min(float(pooled.min()), float(calibration.scores[0])), threshold - 4 * spread)
    high = min(max(float(pooled.max()), float(calibration.scores[-1])), threshold + 12 * spread)
    low, high = min(low, threshold - spread / 10), max(high, threshold + spread / 10)
    width = (high - low) / BARS
    left, right = math.ceil((threshold - low) / width), math.ceil((high - threshold) / width)
    edges = threshold + width * np.arange(-left, right + 1)  # (left + right + 1,)

    def position(score: float) -> float:
        share = (score - edges[0]) / (edges[-1] - edges[0])
        return round(1 + 98 * min(1.0, max(0.0, float(share))), 2)  # leave room for the outermost labels

    rug = calibration.scores
    if len(rug) > RUG_LINES:
        rug = np.quantile(rug, np.linspace(0, 1, RUG_LINES))
    return Histogram(
        rows=[_row(name, scores, edges, left, position(edges[1]) - position(edges[0])) for name, scores in groups],
        threshold=position(threshold),
        ticks=[(position(tick), tick) for tick in _ticks(edges[0], edges[-1])],
        rug=[position(score) for score in rug],
        beyond=int(((pooled <= edges[0]) | (pooled > edges[-1])).sum()),
    )


def _row(name: str, scores: np.ndarray, edges: np.ndarray, left: int, width: float) -> Row:
    """Bars over (edge, next edge], for a score equal to the threshold is OK; the first `left` bars are OK."""
    index = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, len(edges) - 2)
    counts = np.bincount(index, minlength=len(edges) - 1)
    tallest = int(counts.max())
    bars = [
        Bar(
            left=round(1 + 98 * i / len(counts), 2),
            width=round(width, 2),
            height=round(100 * int(count) / tallest, 2),
            count=int(count),
            ng=i >= left,
            low=float(edges[i]),
            high=float(edges[i + 1]),
        )
        for i, count in enumerate(counts)
        if count
    ]
    return Row(name, len(scores), int(counts[left:].sum()), tallest, bars)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (5, 2, 1) if factor == 1 or (high - low) / (step * factor) >= 3)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


@dataclass(frozen=True)
class Roc:
    """(False-alarm rate, share of NG caught) at no more than `ROC_POINTS` thresholds, and the area below."""

    points: list[tuple[float, float]]
    auroc: float


def roc(ok: np.ndarray, ng: np.ndarray) -> Roc:
    """The ROC curve of OK and NG scores, neither empty; the area is exact, ties counting half."""
    levels = np.unique(np.concatenate([ok, ng]))[::-1]
    false_alarms = 1 - np.searchsorted(np.sort(ok), levels, side="left") / len(ok)
    caught = 1 - np.searchsorted(np.sort(ng), levels, side="left") / len(ng)
    x, y = np.concatenate([[0.0], false_alarms]), np.concatenate([[0.0], caught])
    area = float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)
    travelled = x + y  # rises along the curve: points evenly spaced on it keep its shape
    keep = np.unique(np.searchsorted(travelled, np.linspace(0, travelled[-1], ROC_POINTS)))
    return Roc(list(zip(x[keep].tolist(), y[keep].tolist(), strict=True)), area)


@dataclass(frozen=True)
class Power:
    """A curve of the share found against size; places in percent of the plot, x from the left and y from the top.

    `points` are (x, y, y of the interval's ends, what a hint says), `band` is the outline of the curve's 95 % band,
    `asked` the x from which on 90 % are found, None where that is not reached.
    """

    points: list[tuple[float, float, float, float, str]]
    line: list[tuple[float, float]]
    band: list[tuple[float, float]]
    ticks: list[tuple[float, str]]
    asked: float | None


def power(curve: Curve, smallest: float, largest: float, language: str = "en") -> Power:
    """The chart of `curve` over sizes from `smallest` to `largest` px, on a logarithmic axis."""
    width = math.log(largest / smallest) or 1.0
    t = translator(language)

    def x(size: float) -> float:
        return round(3 + 94 * math.log(size / smallest) / width, 2)

    def y(share: float) -> float:
        return round(100 * (1 - share), 2)

    points = [
        (
            x(p.size),
            y(p.share),
            y(p.low),
            y(p.high),
            t("find.hint", size=f"{p.size:.3g}", n=p.found, total=p.plants, called=p.called),
        )
        for p in curve.points
    ]
    rising = [(x(size), y(high)) for size, _, _, high in curve.line]
    falling = [(x(size), y(low)) for size, _, low, _ in reversed(curve.line)]
    return Power(
        points=points,
        line=[(x(size), y(share)) for size, share, _, _ in curve.line],
        band=rising + falling,
        ticks=[(x(point.size), f"{point.size:.3g}") for point in curve.points],
        asked=x(curve.smallest) if curve.reached else None,
    )


@dataclass(frozen=True)
class Learning:
    """A loss over epochs; places in percent of the plot, x from the left and y from the top.

    `points` are (x, y, what a hint says); `ticks` of the epochs and `levels` of the loss are (place, text); `lowest` is
    the x of the lowest point where it is asked for.
    """

    points: list[tuple[float, float, str]]
    ticks: list[tuple[float, str]]
    levels: list[tuple[float, str]]
    lowest: float | None
    logarithmic: bool


def learning(means: Sequence[tuple[int, float]], lowest: bool = False, language: str = "en") -> Learning:
    """The chart of (epoch, mean) in order, at least one; losses that fall a long way have a logarithmic axis."""
    epochs, values = [epoch for epoch, _ in means], [mean for _, mean in means]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high > LONG_WAY * low

    def x(epoch: float) -> float:
        return round(3 + 94 * (epoch - epochs[0]) / ((epochs[-1] - epochs[0]) or 1), 2)

    def y(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / ((high - low) or 1.0)
        return round(96 - 92 * share, 2)

    t = translator(language)
    middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
    return Learning(
        points=[(x(epoch), y(mean), t("curves.at", n=epoch, value=f"{mean:.4g}")) for epoch, mean in means],
        ticks=[(x(epoch), str(epoch)) for epoch in sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1]})],
        levels=[(y(value), f"{value:.4g}") for value in ((low, middle, high) if high > low else (low,))],
        lowest=x(epochs[values.index(low)]) if lowest else None,
        logarithmic=logarithmic,
    )
