"""What reviewed images say of the verdict: false alarms and misses, with intervals that the sampling supports.

Review looks at the oddest and the borderline images first, so the share of mistakes among reviewed images is that of
hard images, not that of the line. Rates are therefore estimated from a random sample alone, which a person asks for: of
a period's images, those called NG and those called OK are put into a random order each (two strata), and the images at
the head of each order are looked at. Each image stands for as many as its stratum has per image looked at, the inverse
of its chance to be drawn. That the oddest of them were reviewed before does no harm: who is in the sample was decided
by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Stratum:
    """The `total` images of one verdict, of which the first `looked_at` of a random order have an answer.

    Of those, a person found the verdict `wrong`, or did not know (`unsure`).
    """

    total: int
    looked_at: int
    wrong: int
    unsure: int

    @classmethod
    def of(cls, total: int, wrong: Sequence[bool | None], answered: Sequence[bool]) -> Stratum:
        """From a drawn order: whether each image was `answered`, and `wrong`, None for "don't know".

        Only the images before the first one without an answer count: behind it those that were reviewed for being odd
        would be too many.
        """
        n = next((i for i, has in enumerate(answered) if not has), len(answered))
        return cls(total, n, sum(one is True for one in wrong[:n]), sum(one is None for one in wrong[:n]))


@dataclass(frozen=True)
class Estimate:
    """A share with its interval; `share` is None where no answer tells it."""

    share: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Rates:
    """`false_alarms`: the share called NG of what is really OK; `misses`: the share called OK of what is really NG.

    `in_ng` is the share of really OK among those called NG, `in_ok` that of really NG among those called OK.
    """

    false_alarms: Estimate
    misses: Estimate
    in_ng: Estimate
    in_ok: Estimate


def rates(called_ng: Stratum, called_ok: Stratum) -> Rates:
    """The rates of the images that two strata stand for, with intervals of at least 95 %.

    Both rates rise with the share of mistakes in either stratum. So what two simultaneous intervals of the strata give
    at their ends bounds both; each has 97.5 % (Bonferroni), or 95 % where the other stratum is known as a whole.
    "Don't know" counts as right at the low end and as wrong at the high end.
    """
    open_ones = sum(stratum.looked_at - stratum.unsure < stratum.total for stratum in (called_ng, called_ok))
    level = 1 - (1 - LEVEL) / max(1, open_ones)
    ng, ok = among(called_ng, level), among(called_ok, level)
    a, b = called_ng.total, called_ok.total

    def false_alarms(p: float, q: float) -> float | None:
        really_ok = a * p + b * (1 - q)
        return a * p / really_ok if really_ok > 0 else None

    def misses(p: float, q: float) -> float | None:
        really_ng = b * q + a * (1 - p)
        return b * q / really_ng if really_ng > 0 else None

    def estimate(rate: Callable[[float, float], float | None]) -> Estimate:
        known = (ng.share is not None or a == 0) and (ok.share is not None or b == 0)
        low, high = rate(ng.low, ok.low), rate(ng.high, ok.high)
        share = rate(ng.share or 0.0, ok.share or 0.0) if known else None
        return Estimate(share, 0.0 if low is None else low, 1.0 if high is None else high)

    return Rates(estimate(false_alarms), estimate(misses), among(called_ng, LEVEL), among(called_ok, LEVEL))


def among(stratum: Stratum, level: float = LEVEL) -> Estimate:
    """The share of wrong verdicts in one stratum of a finite number of images."""
    told = stratum.looked_at - stratum.unsure
    if not stratum.total:
        return Estimate(None, 0.0, 0.0)
    low, _ = exact_interval(stratum.wrong, stratum.looked_at, stratum.total, level)
    _, high = exact_interval(stratum.wrong + stratum.unsure, stratum.looked_at, stratum.total, level)
    return Estimate(stratum.wrong / told if told else None, low, high)


def exact_interval(k: int, n: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share among `total` images, `k` of `n` drawn without replacement having it.

    Clopper and Pearson's (Biometrika 26, 1934), by the hypergeometric law: the shares under which neither k or more nor
    k or fewer would be rarer than (1 - level) / 2. For many images it is theirs for the binomial law; when all have
    been looked at it has no width.
    """
    tail = (1 - level) / 2
    least, most = k, total - (n - k)  # images that have it

    def rare(having: int, above: bool) -> bool:
        counts = range(k, min(n, having) + 1) if above else range(max(0, n - (total - having)), k + 1)
        return sum(_mass(x, having, n, total) for x in counts) <= tail

    low, high = least, most
    while low < high:  # the fewest with which k or more are not rare
        middle = (low + high) // 2
        low, high = (middle + 1, high) if rare(middle, above=True) else (low, middle)
    fewest = low
    low, high = least, most
    while low < high:  # the most with which k or fewer are not rare
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if rare(middle, above=False) else (middle, high)
    return fewest / total, low / total


def _mass(x: int, having: int, n: int, total: int) -> float:
    """The chance that x of n drawn without replacement have what `having` of `total` have."""
    return math.exp(_choose(having, x) + _choose(total - having, n - x) - _choose(total, n))


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
