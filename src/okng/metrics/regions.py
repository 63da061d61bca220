"""How well anomaly maps find defects: pixel AUROC and AUPRO, exact and streaming.

AUPRO (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021): at a threshold t, PRO is the share
of a defect region's pixels that score at least t, averaged over the regions of all images, so that a small
defect counts as much as a large one. Regions are the 8-connected components of the masks. FPR is the share of
normal pixels, those of good images included, that score at least t. AUPRO is the area under PRO over FPR from
0 to `limit`, divided by `limit`: 1 for a perfect map, `limit / 2` for a constant one. Every distinct score is
a threshold, and neighbouring points of the curve are joined by straight lines.

Masks are bool (H, W), True on defects; maps are raw scores (H, W) of any range, higher for odder. Sizes may
differ from image to image. Both metrics are NaN where there is no defect pixel or no normal pixel at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from okng.errors import OkngError


class PixelMetrics(NamedTuple):
    """Pixel AUROC (all pixels of all images pooled) and AUPRO."""

    pixel_auroc: float
    aupro: float


def pixel_auroc(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> float:
    """The chance that a defect pixel scores above a normal one, ties counting half; all images pooled."""
    return pixel_metrics(masks, maps).pixel_auroc


def aupro(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], limit: float = 0.3) -> float:
    """The exact area under PRO up to the false-positive rate `limit`, divided by `limit`."""
    return pixel_metrics(masks, maps, limit).aupro


def pixel_metrics(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], limit: float = 0.3) -> PixelMetrics:
    """Both metrics, exactly, from one sort.

    All that matters of a normal pixel is how many of them lie above a threshold, so only their values are
    sorted, which is many times faster than an argsort of everything; the few defect pixels carry weights
    along. Keeps all scores in memory in the maps' own precision. Raises `OkngError` for a map that is not
    finite or not of its mask's size, `ValueError` unless there are as many maps as masks.
    """
    _check_limit(limit)
    normal_parts, defect_parts, weight_parts = [], [], []
    regions = 0
    for mask, scores in _checked_pairs(masks, maps):
        weight, count = region_weights(mask)
        regions += count
        normal_parts.append(scores[~mask])
        defect_parts.append(scores[mask])
        weight_parts.append(weight)
    normal, defect, weight = (_join(parts) for parts in (normal_parts, defect_parts, weight_parts))
    if not normal.size or not defect.size:
        return PixelMetrics(math.nan, math.nan)
    normal.sort()
    order = np.argsort(defect)[::-1]
    defect, weight = defect[order], weight[order]  # (P,), (P,) from the highest score down

    last = np.flatnonzero(np.append(defect[1:] != defect[:-1], True))  # (K,) the last pixel of each threshold
    threshold = defect[last]  # (K,)
    pro = np.cumsum(weight)[last] / regions  # (K,)
    pixels = np.diff(last, prepend=-1)  # (K,) defect pixels at each threshold
    above = normal.size - np.searchsorted(normal, threshold, side="right")  # (K,) normal pixels above it
    reached = normal.size - np.searchsorted(normal, threshold, side="left")  # (K,) above or at it

    misordered = int(pixels @ (above + reached)) / 2  # pairs whose normal pixel scores higher, ties half
    # On the way down to a threshold only normal pixels come in and PRO stays; at it both do, as one step.
    steps = np.stack([above, reached], axis=1).ravel()  # (2K,)
    fpr = np.concatenate([[0], steps, [normal.size]]) / normal.size  # (2K + 2,)
    pro = np.concatenate([[0, 0], np.repeat(pro, 2)])  # (2K + 2,)
    return PixelMetrics(1 - misordered / (defect.size * normal.size), _area(fpr, pro, limit))


class StreamingPixelMetrics:
    """Both metrics in constant memory (25 MB): give images one by one to `update`, then ask `compute`.

    Scores are counted in 2^20 bins, which are the leading 20 bits of a float32 in an order that keeps their
    rank. So no range need be known beforehand, and a bin is as wide as 1/2048 of its scores or narrower.
    Scores that share a bin count as equal. The error of pixel AUROC is therefore at most half the share of
    (defect, normal) pixel pairs that share a bin; that of AUPRO at most half the sum over bins of the step in
    FPR times the step in PRO, divided by `limit`. Scores with an offset thousands of times their variation
    fall into few bins: those need `pixel_metrics`.
    """

    def __init__(self, limit: float = 0.3) -> None:
        _check_limit(limit)
        self.limit = limit
        self._regions = 0
        self._normal = np.zeros(_BINS, np.int64)  # pixels
        self._defect = np.zeros(_BINS, np.int64)  # pixels
        self._overlap = np.zeros(_BINS)  # shares of regions, summed

    def update(self, mask: ArrayLike, scores: ArrayLike) -> None:
        """Counts one image: its mask (H, W) and its map (H, W); errors as in `pixel_metrics`."""
        ((truth, values),) = _checked_pairs([mask], [scores])
        weight, count = region_weights(truth)
        bins = _bin_of(values[truth])
        self._regions += count
        _add(self._normal, _bin_of(values[~truth]))
        _add(self._defect, bins)
        _add(self._overlap, bins, weight)

    def compute(self) -> PixelMetrics:
        """The metrics of all images so far; NaN while a class is missing."""
        used = np.flatnonzero(self._normal + self._defect)[::-1]  # (K,) from the highest score down
        normal, defect = self._normal[used], self._defect[used]  # (K,), (K,)
        normals, defects = int(normal.sum()), int(defect.sum())
        if not normals or not defects:
            return PixelMetrics(math.nan, math.nan)
        reached = np.cumsum(normal)  # (K,) normal pixels in this bin or above it
        misordered = int(defect @ (2 * reached - normal)) / 2
        fpr = np.append(0, reached) / normals
        pro = np.append(0, np.cumsum(self._overlap[used])) / self._regions
        return PixelMetrics(1 - misordered / (defects * normals), _area(fpr, pro, self.limit))


_BINS = 1 << 20


def _bin_of(scores: np.ndarray) -> np.ndarray:
    """The bin of each score, 0 … 2^20 - 1, rising with the score.

    As integers, the bits of a positive IEEE float rise with its value, and those of a negative one fall with
    it. Setting the sign bit of the former and flipping all bits of the latter gives one rising order.
    """
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0 turns -0.0 into 0.0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> 12


def _add(histogram: np.ndarray, bins: np.ndarray, weight: np.ndarray | None = None) -> None:
    """Adds counts (or weights) to `histogram`, touching only the part between the outermost of `bins`."""
    if bins.size:
        low = int(bins.min())
        counts = np.bincount(bins - np.uint32(low), weight)
        histogram[low : low + counts.size] += counts


def _checked_pairs(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each mask as bool (H, W) with its map as floats (H, W)."""
    for index, (mask, scores) in enumerate(zip(masks, maps, strict=True)):
        truth, values = np.asarray(mask, dtype=bool), np.asarray(scores)
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        if truth.ndim != 2 or truth.shape != values.shape:
            raise OkngError(f"image {index}: mask {truth.shape} and map {values.shape} must be of one size (H, W)")
        if not np.isfinite(values).all():
            raise OkngError(f"image {index}: its map holds values that are not finite; train the model again")
        yield truth, values


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """For each defect pixel, in the order of `scores[mask]`, 1 / its region's size; the count of regions."""
    from scipy import ndimage

    if not mask.any():
        return np.zeros(0), 0
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))  # (H, W), 1 … count on defects
    region = labels[mask]  # (P,)
    return 1 / np.bincount(region)[region], count


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _check_limit(limit: float) -> None:
    if not 0 < limit <= 1:
        raise ValueError(f"limit is a false-positive rate above 0 and at most 1, not {limit}")


def _area(fpr: np.ndarray, pro: np.ndarray, limit: float) -> float:
    """The area under `pro` over rising `fpr`, cut at `limit` by linear interpolation, divided by `limit`."""
    inside = int(np.searchsorted(fpr, limit, side="right"))
    x = np.append(fpr[:inside], limit)
    y = np.append(pro[:inside], np.interp(limit, fpr, pro))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / limit)
