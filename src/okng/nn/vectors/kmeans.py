"""K-means."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROWS = 8192  # of points in one matrix product


def kmeans(points: Tensor, count: int, restarts: int = 4, iterations: int = 100) -> Tensor:
    """The centres (at most `count`, D) that lie closest to `points` (N, D), of several starts the best.

    Lloyd's iteration from k-means++ (Arthur, Vassilvitskii, SODA 2007), until no point changes its centre. All draws
    come from torch's generator, and sums are matrix products: the same seed gives the same centres, also on many
    threads, which scikit-learn does not promise. A centre that no point is near stays where it was. All is calculated
    at full precision, whatever the precision of the fit.
    """
    with torch.autocast(points.device.type, enabled=False):
        return _kmeans(_wide(points), count, restarts, iterations)


def _kmeans(points: Tensor, count: int, restarts: int, iterations: int) -> Tensor:
    mean = points.mean(0)
    centred = points - mean  # smaller norms, less cancellation in |x|² + |c|² - 2xc
    best, least = points[:1], math.inf
    for _ in range(restarts):
        centres = _spread(centred, count)
        before = None
        for _ in range(iterations):
            squared, index = assigned(centred, centres)
            if before is not None and torch.equal(index, before):
                break
            before = index
            sums, sizes = torch.zeros_like(centres), torch.zeros_like(centres[:, 0])
            for block, places in zip(centred.split(ROWS), index.split(ROWS), strict=True):
                belongs = torch.nn.functional.one_hot(places, len(centres)).to(block)  # (rows, k)
                sums, sizes = sums + belongs.T @ block, sizes + belongs.sum(0)
            centres = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1), centres)
        inertia = float(squared.cpu().double().sum())  # not every GPU has float64
        if inertia < least:
            best, least = centres + mean, inertia
    return best


def assigned(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance (N,) of each of `points` (N, D) to the nearest of `centres` (k, D), and which it is (N,)."""
    with torch.autocast(points.device.type, enabled=False):  # in half precision others would be the nearest
        points, centres = _wide(points), _wide(centres)
        norms = centres.square().sum(1)
        nearest = [torch.addmm(norms, block, centres.T, alpha=-2).min(1) for block in points.split(ROWS)]
        squared = torch.cat([found.values for found in nearest]) + points.square().sum(1)
    return squared.clamp_min(0), torch.cat([found.indices for found in nearest])


def _wide(points: Tensor) -> Tensor:
    return points.to(torch.promote_types(points.dtype, torch.float32))


def _spread(points: Tensor, count: int) -> Tensor:
    """k-means++: each next centre is a point, drawn in proportion to its squared distance from those so far.

    Fewer than `count` where all points coincide with a centre.
    """
    picked = [int(torch.randint(len(points), ()))]
    squared = (points - points[picked[0]]).square().sum(1)  # (N,)
    while len(picked) < count and float(squared.sum()) > 0:
        reached = squared.cpu().double().cumsum(0)
        drawn = torch.rand((), dtype=torch.float64) * reached[-1]
        picked.append(min(int(torch.searchsorted(reached, drawn, right=True)), len(points) - 1))
        squared = torch.minimum(squared, (points - points[picked[-1]]).square().sum(1))
    return points[picked]
