"""K-centre greedy: the few points that leave no other point far away."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CANDIDATES = 256


def greedy_coreset(points: Tensor, count: int, start: int = 0) -> Tensor:
    """Indices (at most `count`,) of a farthest-point selection from `points` (N, D), beginning with `start`."""
    picked = [index for accepted in greedy_rounds(points, count, start) for index in accepted]
    return torch.tensor(picked, device=points.device)


def greedy_rounds(points: Tensor, count: int, start: int = 0) -> Iterator[list[int]]:
    """As `greedy_coreset`, the picks of each round as they are made.

    The picks are those of the sequential greedy (Gonzalez 1985), ties aside, in far fewer passes over the points.
    Minimum distances only ever fall as centres are added. So of the CANDIDATES points that are now farthest, whichever
    is still at least as far as the farthest point outside them is the true farthest of all: it can be accepted, and its
    effect on the other candidates read from a small table, before anything else is updated. All centres accepted in
    such a round are then applied to all points in one matrix product.

    Ends early when every point coincides with a centre.
    """
    count = min(count, len(points))
    points = points - points.mean(0)  # smaller norms: less cancellation in |x|² + |c|² - 2xc
    norms = points.square().sum(1)  # (N,)
    distances = torch.full_like(norms, torch.inf)  # squared, to the nearest centre
    accepted = [start]
    missing = count
    while accepted:
        yield accepted
        missing -= len(accepted)
        if missing == 0:
            return
        _apply(points, norms, distances, torch.tensor(accepted, device=points.device))
        far, index = distances.topk(min(CANDIDATES + 1, len(points)))
        outside = float(far[CANDIDATES]) if len(far) > CANDIDATES else 0.0  # the farthest of all the others
        far, index = far[:CANDIDATES].cpu(), index[:CANDIDATES]
        table = torch.cdist(points[index], points[index]).square().cpu()  # (B, B)
        accepted = []
        while len(accepted) < missing:
            best = int(far.argmax())
            if float(far[best]) <= 0 or float(far[best]) < outside:
                break
            accepted.append(int(index[best]))
            far = torch.minimum(far, table[best])
            far[best] = 0


def _apply(points: Tensor, norms: Tensor, distances: Tensor, centres: Tensor, rows: int = 65536) -> None:
    """Lower `distances` (N,) in place by the new `centres`, a block of rows at a time."""
    chosen = points[centres].T  # (D, A)
    for begin in range(0, len(points), rows):
        block = slice(begin, begin + rows)
        nearest = torch.addmm(norms[centres], points[block], chosen, alpha=-2).amin(1) + norms[block]
        torch.minimum(distances[block], nearest.clamp_min_(0), out=distances[block])
    distances[centres] = 0


def covering_radius(points: Tensor, centres: Tensor, rows: int = 4096) -> float:
    """The largest distance from any of `points` (N, D) to its nearest of `centres` (M, D)."""
    return max(float(torch.cdist(block, centres).amin(1).max()) for block in points.split(rows))
