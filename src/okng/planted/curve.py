"""How the chance of being found grows with a defect's size: a psychometric curve, fitted to hits and misses.

P(found | x) = γ + (1 - γ - λ) σ(b (ln x - a)). The floor γ is what is found where there is nothing, the lapse λ what is
missed however large: without them threshold and slope are biased (Wichmann & Hill, Perception & Psychophysics 63, 2001,
1293 and 1314; for inspection MIL-HDBK-1823A). γ is measured and not fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SLOPES = (0.7, 30.0)  # of b; at 30 the curve climbs from 10 to 90 % while the size grows by 16 %
LAPSE = 0.6  # the largest λ
GRID = (15, 7, 4)  # of (a, ln b, λ), from which each fit starts
ROUNDS = 9  # of refining, each halves the steps
DRAWS = 200  # of images, for the intervals
SURE = 0.025  # on each side of an interval
CHI2 = 1.92  # half the 95 % point of χ² with one degree of freedom


@dataclass(frozen=True)
class Fit:
    """The curves of n samples: `floor`, `a`, `b`, `lapse`, each (n,)."""

    floor: np.ndarray
    a: np.ndarray
    b: np.ndarray
    lapse: np.ndarray

    def at(self, sizes: np.ndarray) -> np.ndarray:
        """P(found), (n, K), at `sizes` (K,)."""
        return _chance(np.log(sizes)[None], self.floor[:, None], self.a[:, None], self.b[:, None], self.lapse[:, None])

    def only(self, which: slice) -> Fit:
        """Some of the curves."""
        return Fit(self.floor[which], self.a[which], self.b[which], self.lapse[which])

    def size_for(self, share: float) -> np.ndarray:
        """The size (n,) from which on `share` is found: 0 where any size is, infinite where none is."""
        reach = 1 - self.floor - self.lapse
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            level = (share - self.floor) / reach
            sizes = np.exp(self.a + np.log(level / (1 - level)) / self.b)
        sizes = np.where(share >= 1 - self.lapse, np.inf, sizes)
        return np.asarray(np.where(share <= self.floor, 0.0, sizes))  # whatever the lapse: the curve is never below it


def fit(sizes: np.ndarray, hits: np.ndarray, totals: np.ndarray, floor: np.ndarray) -> Fit:
    """The curves of greatest likelihood for `hits` of `totals` (n, K) at rising `sizes` (K,) in px, given `floor` (n,).

    Every plant is a hit or a miss of its own; those of one size are counted together, which loses nothing. Where sizes
    part hits from misses b grows without bound and stops at the last of `SLOPES`.
    """
    x = np.log(sizes)
    low = np.array([x[0] - 1.0, math.log(SLOPES[0]), 0.0])
    high = np.array([x[-1] + 1.0, math.log(SLOPES[1]), LAPSE])
    axes = [np.linspace(start, end, count) for start, end, count in zip(low, high, GRID, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)  # (G, 3)
    best = grid[_likelihood(x, hits, totals, floor, grid[None]).argmax(1)]  # (n, 3)
    steps = np.array([(axis[1] - axis[0]) / 2 for axis in axes])
    around = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)  # (27, 3)
    for _ in range(ROUNDS):
        for _ in range(2):  # a step of each size may be needed twice
            tried = np.clip(best[:, None] + around * steps, low, high)  # (n, 27, 3)
            found = _likelihood(x, hits, totals, floor, tried).argmax(1)
            best = tried[np.arange(len(tried)), found]
        steps /= 2
    return Fit(np.asarray(floor, np.float64), best[:, 0], np.exp(best[:, 1]), best[:, 2])


def size_interval(
    sizes: np.ndarray, hits: np.ndarray, totals: np.ndarray, clean: np.ndarray, share: float, seed: int
) -> tuple[Fit, Fit, float, float]:
    """The curve of all images, the curves of images drawn anew, and the 95 % interval of the size for `share`.

    `hits` and `totals` (images, K) are by base image, `clean` (images, 2) is what counted as found, and of how many,
    where nothing was planted. Plants on one image depend on each other, so images are drawn, not plants. Draws alone
    say nothing where each of them parts hits from misses; so the interval also holds all sizes whose profile likelihood
    is within `CHI2` of the greatest.
    """
    rng = np.random.default_rng([seed, len(hits)])
    drawn = rng.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), size=DRAWS)  # (DRAWS, images)
    weights = np.concatenate([np.ones((1, len(hits)), int), drawn])
    counts = weights @ clean  # (1 + DRAWS, 2)
    floors = np.minimum(counts[:, 0] / np.maximum(counts[:, 1], 1), 0.95)
    fits = fit(sizes, weights @ hits, weights @ totals, floors)
    whole, parts = fits.only(slice(1)), fits.only(slice(1, None))
    low, high = np.quantile(parts.size_for(share), [SURE, 1 - SURE], method="inverted_cdf")
    likely = _likely(np.log(sizes), hits.sum(0), totals.sum(0), whole).size_for(share)
    return whole, parts, float(min(low, likely.min())), float(max(high, likely.max()))


def clopper_pearson(count: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a binomial share (Clopper & Pearson, Biometrika 26, 1934), rather wide than narrow."""
    low = 0.0 if count == 0 else _crossing(lambda p: _at_least(count, total, p) - SURE)
    high = 1.0 if count == total else _crossing(lambda p: SURE - (1 - _at_least(count + 1, total, p)))
    return low, high


def _at_least(count: int, total: int, p: float) -> float:
    """P(X ≥ count) for X of Binomial(total, p)."""
    k = np.arange(count, total + 1)
    log = np.array([math.lgamma(total + 1) - math.lgamma(i + 1) - math.lgamma(total - i + 1) for i in k])
    return float(np.exp(log + k * math.log(p) + (total - k) * math.log1p(-p)).sum())


def _crossing(rising: Callable[[float], float]) -> float:
    """Where a function that rises on (0, 1) crosses 0."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _chance(x: np.ndarray, floor: np.ndarray, a: np.ndarray, b: np.ndarray, lapse: np.ndarray) -> np.ndarray:
    room = np.clip(1 - floor - lapse, 0, None)
    return np.asarray(floor + room / (1 + np.exp(-np.clip(b * (x - a), -500, 500))))


def _likelihood(
    x: np.ndarray, hits: np.ndarray, totals: np.ndarray, floor: np.ndarray, tried: np.ndarray
) -> np.ndarray:
    """Log likelihoods (n, G) of parameters `tried` (n or 1, G, 3)."""
    a, b, lapse = (tried[..., i, None] for i in range(3))  # (n, G, 1)
    p = np.clip(_chance(x, np.asarray(floor)[:, None, None], a, np.exp(b), lapse), 1e-9, 1 - 1e-9)  # (n, G, K)
    return np.asarray((np.log(p) * hits[:, None] + np.log1p(-p) * (totals - hits)[:, None]).sum(2))


def _likely(x: np.ndarray, hits: np.ndarray, totals: np.ndarray, best: Fit) -> Fit:
    """All curves (n,) on a grid that are nearly as likely as the `best` one, and itself."""
    axes = (
        np.linspace(x[0] - 1, x[-1] + 1, 80),
        np.linspace(math.log(SLOPES[0]), math.log(SLOPES[1]), 20),
        np.linspace(0, LAPSE, 13),
    )
    tried = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    own = np.array([[best.a[0], math.log(best.b[0]), best.lapse[0]]])
    tried = np.concatenate([own, tried])  # (G, 3)
    likelihood = _likelihood(x, hits[None], totals[None], best.floor, tried[None])[0]  # (G,)
    kept = tried[likelihood >= likelihood[0] - CHI2]
    return Fit(np.full(len(kept), best.floor[0]), kept[:, 0], np.exp(kept[:, 1]), kept[:, 2])
