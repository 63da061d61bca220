"""What a comparison may say: intervals, paired tests over the same images, ranks over several data sets.

Shapes: m methods, n images, of which n1 are NG and n0 OK, B resamples. A method that was fitted several times enters
with the mean over its fits, image by image: the uncertainty told is that of which images happened to be tested.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np

LEVEL = 0.05  # of every test here, and 1 minus it of every interval
Z = 1.959964  # the 97.5 % point of the normal law
RESAMPLES = 1000
ORDERS = 20_000  # of methods on data sets that are gone through for an exact p-value


def placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each NG image (n1,) the share of OK ones below it, for each OK one (n0,) the share of NG ones above it.

    Ties count half. Both means are the AUROC. From midranks, in O(n log n) (Sun and Xu, Fast Implementation of DeLong's
    Algorithm, IEEE Signal Processing Letters 21, 2014). `labels` (n,) are 0 or 1, `scores` (n,) of any range.
    """
    from scipy.stats import rankdata

    ng = np.asarray(labels, bool)
    ranks = rankdata(scores)  # (n,), ties share the middle of their ranks
    n1, n0 = int(ng.sum()), int((~ng).sum())
    above = (ranks[ng] - rankdata(scores[ng])) / n0  # (n1,)
    below = 1 - (ranks[~ng] - rankdata(scores[~ng])) / n1  # (n0,)
    return above, below


def delong(ng: np.ndarray, ok: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (m,) and their covariance (m, m) over draws of images, from placements `ng` (m, n1) and `ok` (m, n0).

    DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988. Needs two images of each label.
    """
    values = ng.mean(1)  # (m,)
    return values, np.atleast_2d(np.cov(ng)) / ng.shape[1] + np.atleast_2d(np.cov(ok)) / ok.shape[1]


def auroc_interval(value: float, variance: float, n1: int, n0: int) -> tuple[float, float]:
    """The 95 % interval of an AUROC, on the scale of its log-odds, so that it stays within 0 and 1.

    Where all pairs are in order the variance is 0 and says nothing: then it is the interval of Newcombe's method 5
    (Statistics in Medicine 25, 2006), of the AUROC that would make such a value unlikely. Near 1 it is the wider one.
    By simulation of 20 to 100 images of each label, with normal scores or with NG images among which some look like OK
    ones, the two together miss the true AUROC in 3 to 8 of 100 tests. Were a few NG images *less* odd than all OK ones,
    a test without one of these would be perfect: of 40 NG images that can happen in 19 of 100.
    """
    if variance <= 0 or not 0 < value < 1:
        return 1 - newcombe(1 - value, n1, n0), newcombe(value, n1, n0)
    half = Z * math.sqrt(variance) / (value * (1 - value))
    middle = math.log(value / (1 - value))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def newcombe(value: float, n1: int, n0: int) -> float:
    """The upper end: an AUROC t that lies 1.96 deviations above `value`, by Hanley and McNeil's variance at t."""
    from scipy.optimize import brentq

    more = (n1 + n0) / 2 - 1

    def beyond(t: float) -> float:
        variance = t * (1 - t) * (1 + more * ((1 - t) / (2 - t) + t / (1 + t))) / (n1 * n0)
        return (t - value) ** 2 - Z**2 * variance

    nearest = value + 1e-9
    return 1.0 if nearest >= 1 else float(brentq(beyond, nearest, 1.0))


def paired_p(values: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Two-sided p-values (m, m) that two methods are alike, by the normal law of their difference.

    `values` (m,), `covariance` (m, m). Equal values give 1, also where nothing varies.
    """
    from scipy.stats import norm

    variance = np.diag(covariance)
    difference = values[:, None] - values  # (m, m)
    spread = np.sqrt(np.maximum(variance[:, None] + variance - 2 * covariance, 0))  # (m, m)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(difference) / spread
    return np.where(np.abs(difference) < 1e-12, 1.0, 2 * norm.sf(np.where(spread > 0, z, np.inf)))


def mcnemar_p(called: np.ndarray) -> np.ndarray:
    """Two-sided p-values (m, m) that two methods call alike, from `called` (m, n), bool, of the same n images.

    Exact: of the images that one of the two calls and the other does not, either is as likely to be the one (McNemar,
    Psychometrika 12, 1947). Methods that call the same images have 1.
    """
    from scipy.stats import binom

    once = called.astype(np.int64)
    alone = once @ (1 - once).T  # (m, m) called by the first of a pair only
    fewer = np.minimum(alone, alone.T)
    p: np.ndarray = np.minimum(1.0, 2 * binom.cdf(fewer, alone + alone.T, 0.5))
    return p


def against_the_best(p: np.ndarray, best: int) -> np.ndarray:
    """p-values (m,) against the method `best`, of `p` (m, m) of all pairs, times the number of the others.

    `best` is read from the same images, so it may be another than the truly best one, which is tested against m - 1
    others at most: with 95 % none of them parts it from `best`, and it is among those that are not told apart. No more
    is claimed, so the pairs without the best don't count (Hsu, Simultaneous Confidence Intervals for all Distances from
    the "Best", Annals of Statistics 9, 1981; here by Bonferroni's inequality).
    """
    adjusted: np.ndarray = np.minimum(1.0, p[best] * (len(p) - 1))
    adjusted[best] = 1.0
    return adjusted


def resampled(kinds: np.ndarray, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image is drawn, (B, n): with replacement, those of a kind, such as OK and NG, among themselves.

    The same draws serve every method, which is what makes the bootstrap a paired one.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((count, len(kinds)))
    for kind in np.unique(kinds):
        places = np.flatnonzero(np.asarray(kinds) == kind)
        weights[:, places] = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=count)
    return weights


def average_precisions(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The average precision (B,) of each resample; `labels` and `scores` (n,), `weights` (B, n). Ties are one step."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # (k,) the last image of each threshold
    drawn = weights[:, order]
    found = np.cumsum(drawn * np.asarray(labels)[order], 1)[:, ends]  # (B, k) NG at or above each threshold
    called = np.maximum(np.cumsum(drawn, 1)[:, ends], 1e-12)  # (B, k)
    values: np.ndarray = (np.diff(found, axis=1, prepend=0) * found / called).sum(1) / found[:, -1]
    return values


def shares(called: np.ndarray, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share (B,) of `chosen` (n,) images that are `called` (n,) NG, in each resample `weights` (B, n)."""
    drawn = weights[:, chosen]
    values: np.ndarray = (drawn @ called[chosen]) / drawn.sum(1)
    return values


def interval(values: np.ndarray, point: float, of_sample: float) -> tuple[float, float]:
    """The 95 % percentile interval of resampled `values` (B,).

    It is moved by what the figure of the sample as it is, `of_sample` in the way the resamples were computed, differs
    from `point`, the exact figure; and stays within 0 and 1. NaN where all resamples agree, as for a perfect figure:
    the bootstrap then says nothing of other images.
    """
    if float(np.ptp(values)) < 1e-12:
        return math.nan, math.nan
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2]) + (point - of_sample)
    return max(0.0, float(low)), min(1.0, float(high))


@dataclass(frozen=True)
class Ranks:
    """Average ranks over data sets, 1 the best, and what they are worth.

    `ranks` (N, k) per data set, ties sharing the mean; `average` (k,). `chi2` is Friedman's statistic, `f` the one of
    Iman and Davenport, `p` the p-value of both. Two methods whose average ranks differ by no more than `difference`
    can't be told apart (Nemenyi). Where data sets and methods are few, `p` and `difference` are exact, else by the law
    of F and by that of the range of normal numbers. All NaN for fewer than two methods or data sets.
    """

    ranks: np.ndarray
    average: np.ndarray
    chi2: float
    f: float
    p: float
    difference: float


def ranked(values: np.ndarray) -> Ranks:
    """Ranks of `values` (N, k): N data sets, k methods, higher is better. As in Demšar, JMLR 7, 2006."""
    from scipy.stats import f as f_law
    from scipy.stats import rankdata, studentized_range

    sets, methods = values.shape
    ranks = rankdata(-values, axis=1)  # (N, k)
    average = ranks.mean(0)  # (k,)
    if sets < 2 or methods < 2:
        return Ranks(ranks, average, math.nan, math.nan, math.nan, math.nan)
    chi2 = 12 * sets / (methods * (methods + 1)) * (float(average @ average) - methods * (methods + 1) ** 2 / 4)
    room = sets * (methods - 1) - chi2
    f = (sets - 1) * chi2 / room if room > 1e-9 else math.inf  # all data sets agree
    if math.factorial(methods) ** (sets - 1) <= ORDERS:
        p, difference = _of_all_orders(ranks)
    else:
        p = float(f_law.sf(f, methods - 1, (methods - 1) * (sets - 1)))
        q = float(studentized_range.ppf(1 - LEVEL, methods, np.inf)) / math.sqrt(2)
        difference = q * math.sqrt(methods * (methods + 1) / (6 * sets))
    return Ranks(ranks, average, chi2, f, p, difference)


def _of_all_orders(ranks: np.ndarray) -> tuple[float, float]:
    """The exact p-value of Friedman's statistic, how often `ranks` (N, k) in any order on each data set reach it.

    And what the best and the worst average rank differ by at most, but for 5 % of the orders. The laws are far off for
    few data sets: two methods agree on two sets by chance every other time, where that of F says never. The first
    set's order can stay, for only orders against each other count.
    """
    sums = ranks[:1]  # (orders, k)
    for of_set in ranks[1:]:
        sums = (sums[:, None] + np.array(list(permutations(of_set)))).reshape(-1, ranks.shape[1])
    spread = np.square(sums).sum(1)  # rises with the statistic
    p = (spread >= np.square(ranks.sum(0)).sum() - 1e-9).mean()
    return float(p), float(np.quantile(np.ptp(sums, axis=1), 1 - LEVEL, method="inverted_cdf")) / len(ranks)
