"""Pixel figures of resampled images against the exact ones of the images drawn."""

from __future__ import annotations

import numpy as np
import pytest

from okng.comparing.pixels import PixelCounts, counted, levels
from okng.comparing.statistics import resampled
from okng.metrics import pixel_metrics


def scenes(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Masks and maps (48, 48): every second image has one or two squares that are odder, not by much."""
    rng = np.random.default_rng(0)
    masks, maps = [], []
    for i in range(count):
        mask = np.zeros((48, 48), bool)
        for _ in range((i % 2) * (1 + i % 3)):
            y, x, side = rng.integers(0, 36), rng.integers(0, 36), rng.integers(3, 12)
            mask[y : y + side, x : x + side] = True
        masks.append(mask)
        maps.append((rng.gamma(2, 1, (48, 48)) + 3 * mask * rng.random()).astype(np.float32))
    return masks, maps


def test_counts_give_the_exact_figures_of_any_resample() -> None:
    masks, maps = scenes(16)
    edges = levels(maps)
    parts = [counted(mask, heat, edges) for mask, heat in zip(masks, maps, strict=True)]
    counts = PixelCounts(*(np.stack(part) for part in zip(*parts, strict=True)))
    weights = np.concatenate([np.ones((1, 16)), resampled(np.arange(16) % 2, 4)])
    auroc, aupro = counts.of(weights)
    for row, found in zip(weights, zip(auroc, aupro, strict=True), strict=True):
        chosen = np.repeat(np.arange(16), row.astype(int))
        exact = pixel_metrics([masks[i] for i in chosen], [maps[i] for i in chosen])
        assert found == pytest.approx((exact.pixel_auroc, exact.aupro), abs=2e-3)


def test_a_perfect_map_and_a_constant_one() -> None:
    masks, _ = scenes(6)
    for maps, expected in (
        ([mask.astype(np.float32) for mask in masks], (1, 1)),
        ([np.ones((48, 48), np.float32) for _ in masks], (0.5, 0.15)),
    ):
        edges = levels(maps)
        parts = [counted(mask, heat, edges) for mask, heat in zip(masks, maps, strict=True)]
        counts = PixelCounts(*(np.stack(part) for part in zip(*parts, strict=True)))
        found = np.array(counts.of(np.ones((1, 6))))[:, 0]
        assert found == pytest.approx(expected, abs=1e-9)
