"""Pixel figures of resampled images, from counts of each image's pixels in bins of score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from okng.metrics.regions import region_weights

LIMIT = 0.3  # the false-positive rate up to which AUPRO is computed

ENOUGH = 4_000_000  # values that tell where bins should end


@dataclass(frozen=True)
class PixelCounts:
    """Of each of n images, in K bins of rising score: normal pixels, defect pixels, and shares of regions, summed.

    All (n, K). Both pixel figures of any mixture of the images are functions of their weighted sums.
    """

    normal: np.ndarray
    defect: np.ndarray
    overlap: np.ndarray

    def of(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel AUROC (B,) and AUPRO (B,) of images taken so often, `weights` (B, n). Pixels of one bin are tied."""
        # (B, K) each, from the highest bin down
        normal, defect, overlap = (
            (weights @ part)[:, ::-1] for part in (self.normal, self.defect, self.overlap)
        )  # fmt: skip
        reached = np.cumsum(normal, 1)  # normal pixels in this bin or above it
        normals, defects, regions = (
            np.maximum(part.sum(1, keepdims=True), 1e-12) for part in (normal, defect, overlap)
        )
        misordered = (defect * (reached - normal / 2)).sum(1)
        auroc = 1 - misordered / (defects * normals)[:, 0]
        return auroc, _area(reached / normals, np.cumsum(overlap, 1) / regions)


def levels(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Rising edges (K - 1,) between bins for such maps: quantiles, finer and finer towards the highest scores."""
    every = 1 + sum(scores.size for scores in maps) // ENOUGH
    values = np.concatenate([np.ravel(scores)[::every] for scores in maps])
    shares = np.concatenate([np.linspace(0, 1, 96), 1 - np.logspace(-6, -0.5, 160)])
    return np.unique(np.quantile(values, np.unique(shares)))


def counted(mask: np.ndarray, heat: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The counts (K,) of one image: `mask` bool (H, W), `heat` (H, W), `edges` (K - 1,)."""
    bins = np.searchsorted(edges, heat, side="right")  # (H, W)
    count = len(edges) + 1
    normal, defect = np.bincount(bins[~mask], minlength=count), np.bincount(bins[mask], minlength=count)
    weights, _ = region_weights(mask)
    return normal, defect, np.bincount(bins[mask], weights, minlength=count)


def _area(fpr: np.ndarray, pro: np.ndarray) -> np.ndarray:
    """The area (B,) under `pro` over rising `fpr` (B, K), from 0 to `LIMIT` and divided by it; lines are straight."""
    x, y = (np.concatenate([np.zeros((len(part), 1)), part], 1) for part in (fpr, pro))  # (B, K + 1)
    left, width = np.minimum(x[:, :-1], LIMIT), np.diff(x, axis=1)
    inside = np.minimum(x[:, 1:], LIMIT) - left  # how much of each step lies below the limit
    rise = np.diff(y, axis=1) * np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    area: np.ndarray = (inside * (y[:, :-1] + rise / 2)).sum(1) / LIMIT
    return area
