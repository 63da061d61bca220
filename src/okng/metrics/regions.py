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

    Both are sums over defect pixels of what depends on how many normal pixels score higher and as high: a pixel's share
    of its region is part of PRO from the FPR on where it is found. So normal pixels' values alone are sorted. Keeps all
    scores in memory in the maps' own precision, those of normal pixels twice for a moment. Raises `OkngError` for a map
    that is not finite or not of its mask's size, `ValueError` unless there are as many maps as masks.
    """
    _check_limit(limit)
    regions = 0
    normal_parts, defect_parts, weight_parts = [], [], []
    for mask, scores in _checked_pairs(masks, maps):
        weight, count = region_weights(mask)
        regions += count
        normal_parts.append(scores[~mask])  # a copy, as the next one: whoever gives the maps may use their memory again
        defect_parts.append(scores[mask])
        weight_parts.append(weight)
    normals = sum(part.size for part in normal_parts)
    if not normals or not regions:
        return PixelMetrics(math.nan, math.nan)
    normal = np.concatenate(normal_parts)  # (N,)
    normal_parts.clear()
    normal.sort()
    defect, weight = np.concatenate(defect_parts), np.concatenate(weight_parts)  # (P,), (P,)
    misordered, found = 0, 0.0
    for some in np.array_split(np.argsort(defect), 1 + defect.size // _BLOCK):  # neighbours are searched for quickly
        above = normals - np.searchsorted(normal, defect[some], side="right")  # (B,) normal pixels above each
        reached = normals - np.searchsorted(normal, defect[some], side="left")  # (B,) above or as high
        misordered += int((above + reached).sum())  # twice the pairs whose normal pixel scores higher, ties half
        found += float(weight[some] @ _found(above, reached, limit * normals))
    return PixelMetrics(1 - misordered / (2 * defect.size * normals), found / (regions * limit * normals))


class StreamingPixelMetrics:
    """Both metrics in constant memory: give images one by one to `update`, then ask `compute`.

    It takes 25 MB, and 40 bytes for a pixel of the largest image. Scores are counted in 2^20 bins, which are the
    leading 20 bits of a float32 in an order that keeps their rank. So no range need be known beforehand, and a bin is
    as wide as 1/2048 of its scores or narrower. Scores that share a bin count as equal; `bound` says how much that can
    matter. Scores with an offset thousands of times their variation fall into few bins: those need `pixel_metrics`.
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
        normal, defect, overlap = self._counted()
        normals, defects = int(normal.sum()), int(defect.sum())
        if not normals or not defects:
            return PixelMetrics(math.nan, math.nan)
        reached = np.cumsum(normal)  # (K,) normal pixels in this bin or above it
        misordered = float(defect @ (2.0 * reached - normal))  # pairs of pixels: too many for an integer of 64 bits
        found = float(overlap @ _found(reached - normal, reached, self.limit * normals))
        return PixelMetrics(1 - misordered / (2 * defects * normals), found / (self._regions * self.limit * normals))

    def bound(self) -> PixelMetrics:
        """How far `compute` can be from the exact metrics at most; NaN while a class is missing.

        For pixel AUROC half the share of (defect, normal) pixel pairs that share a bin; for AUPRO half the sum over
        the bins up to `limit` of the step in FPR times the step in PRO, divided by `limit`.
        """
        normal, defect, overlap = self._counted()
        normals, defects = int(normal.sum()), int(defect.sum())
        if not normals or not defects:
            return PixelMetrics(math.nan, math.nan)
        begun = (np.cumsum(normal) - normal) / normals < self.limit  # (K,) bins that begin below it
        boxes = float((normal * overlap)[begun].sum()) / (normals * self._regions)
        tied = float(defect @ normal.astype(float))
        return PixelMetrics(tied / (2 * defects * normals), boxes / (2 * self.limit))

    def _counted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normal pixels, defect pixels and shares of regions in the K bins that are used, (K,) each, highest first."""
        used = np.flatnonzero(self._normal + self._defect)[::-1]  # (K,)
        return self._normal[used], self._defect[used], self._overlap[used]


_BINS = 1 << 20
_BLOCK = 1 << 16  # defect pixels at once, so that what is made of them stays in the cache


def _bin_of(scores: np.ndarray) -> np.ndarray:
    """The bin of each score, 0 … 2^20 - 1, rising with the score.

    As signed integers, the bits of a positive IEEE float rise with its value, and those of a negative one fall
    with it; flipping all of the latter's bits but the sign gives one rising order.
    """
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32)  # + 0 turns -0.0 into 0.0
    bits ^= (bits >> 31) & 0x7FFFFFFF
    bits >>= 12
    bits += _BINS // 2
    return bits


def _add(histogram: np.ndarray, bins: np.ndarray, weight: np.ndarray | None = None) -> None:
    """Adds counts (or weights) to `histogram`, touching only the part between the outermost of `bins`."""
    if bins.size:
        low = int(bins.min())
        counts = np.bincount(bins - low, weight)
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

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return np.zeros(0), 0
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # the rest takes time and holds no region
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))  # (H, W), 1 … count on defects
    region = labels[mask]  # (P,)
    return 1 / np.bincount(region)[region], count


def _check_limit(limit: float) -> None:
    if not 0 < limit <= 1:
        raise ValueError(f"limit is a false-positive rate above 0 and at most 1, not {limit}")


def _found(above: np.ndarray, reached: np.ndarray, limit: float) -> np.ndarray:
    """For how many normal pixels, of the `limit` highest, each defect pixel counts as found, (P,).

    It is found once the `above` (P,) are, but as straight lines join the points of the curve, those as high as it
    itself, up to `reached` (P,), count by half.
    """
    inside = np.maximum(limit - above, 0)
    equal = reached - above
    within = np.minimum(equal, inside)  # of those as high, those up to the limit
    found: np.ndarray = inside - within + within**2 / (2 * np.maximum(equal, 1))
    return found
