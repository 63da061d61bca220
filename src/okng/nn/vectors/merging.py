"""What blocks of vectors were reduced to, on whatever machines, merged into what all of them together give.

Gaussians and shrunk covariances are those of all vectors at once up to rounding; a coreset covers them within a radius
that is known, and at most twice as far for each time that it is reduced as the best of its size could. Empty parts
change nothing; where all are empty, it is an `OkngError`, and so is the covariance of an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from okng.errors import OkngError
from okng.nn.vectors.coreset import covering_radius, greedy_coreset
from okng.nn.vectors.covariance import shrunk
from okng.nn.vectors.running_gaussians import RunningGaussians


def merged_gaussians(parts: Iterable[RunningGaussians]) -> RunningGaussians:
    """The Gaussians at P positions of all vectors of the `parts`, which saw some each (Chan, Golub, LeVeque 1979)."""
    whole = RunningGaussians()
    for part in parts:
        if part.count == 0:
            continue
        if whole.count == 0:
            whole.count, whole.mean, whole.scatter = part.count, part.mean.clone(), part.scatter.clone()
            continue
        total = whole.count + part.count
        shift = part.mean - whole.mean  # (P, 1, d)
        between = shift * (whole.count * part.count / total) ** 0.5
        whole.scatter += part.scatter
        whole.scatter.baddbmm_(between.mT, between)
        whole.mean += shift * (part.count / total)
        whole.count = total
    if whole.count == 0:
        raise _nothing()
    return whole


def _nothing() -> OkngError:
    return OkngError("there is nothing to merge: no part has seen a vector; give at least one that has")


@dataclass(frozen=True)
class ShrunkCovariance:
    """All that Ledoit's and Wolf's covariance needs of n vectors, in float64: sums over y, the deviations from `mean`.

    `mean` (d,); `scatter` (d, d) Σ yyᵀ; `third` (d,) Σ |y|²y; `fourth` Σ |y|⁴. No vector is kept.
    """

    count: int
    mean: Tensor
    scatter: Tensor
    third: Tensor
    fourth: float

    @classmethod
    def of(cls, vectors: Tensor) -> ShrunkCovariance:
        """Those of a block of `vectors` (n, d)."""
        exact = vectors.cpu().double()  # on the CPU first: not every GPU has float64
        mean = exact.mean(0)
        y = exact - mean  # (n, d)
        squares = y.square().sum(1)  # (n,)
        return cls(len(y), mean, y.T @ y, squares @ y, float(squares.square().sum()))

    @classmethod
    def merged(cls, parts: Sequence[ShrunkCovariance]) -> ShrunkCovariance:
        """Those of all vectors of the `parts`."""
        parts = [part for part in parts if part.count]
        if not parts:
            raise _nothing()
        count = sum(part.count for part in parts)
        mean = torch.stack([part.count / count * part.mean for part in parts]).sum(0)
        about = [part.about(mean) for part in parts]
        scatter, third = (torch.stack(sums).sum(0) for sums in list(zip(*about, strict=True))[:2])
        return cls(count, mean, scatter, third, sum(fourth for *_, fourth in about))

    def about(self, centre: Tensor) -> tuple[Tensor, Tensor, float]:
        """`scatter`, `third` and `fourth` of deviations y - s from `centre` (d,), where Σ y = 0 and s = centre - mean.

        |y - s|² = |y|² - 2ys + s², multiplied out and summed.
        """
        s = centre - self.mean
        length, trace = float(s @ s), float(self.scatter.trace())
        turned = self.scatter @ s  # (d,)
        scatter = self.scatter + self.count * torch.outer(s, s)
        third = self.third - trace * s - 2 * turned - self.count * length * s
        fourth = self.fourth - 4 * float(self.third @ s) + 4 * float(turned @ s)
        return scatter, third, fourth + 2 * length * trace + self.count * length**2

    def covariance(self) -> Tensor:
        """(d, d) float64, as `nn.vectors.covariance.ledoit_wolf` has it of all vectors."""
        if not self.count:
            raise OkngError("of no vectors there is no covariance; give at least one")
        return shrunk(self.scatter / self.count, self.fourth / self.count, self.count)


@dataclass(frozen=True)
class Covered:
    """`points` (M, D) that leave none of the `seen` points they stand for farther away than `radius`."""

    points: Tensor
    radius: float
    seen: int

    @classmethod
    def of(cls, points: Tensor) -> Covered:
        """All of `points` (N, D)."""
        return cls(points, 0.0, len(points))

    @classmethod
    def merged(cls, parts: Sequence[Covered], count: int) -> Covered:
        """At most `count` of the points of the `parts`, by farthest-point selection; of one part it is a reduction.

        The radius is the largest of the parts' and, on top, that of the selection. Among `count` + 1 points as far
        apart as the selection's radius, two share a centre of whatever coreset of that size, so each selection's radius
        is at most twice the least that any could have for all points (Gonzalez 1985). Blocks that are reduced once, and
        then together, are within four times it (Malkomes, Kusner, Chen, Weinberger, Moseley, NeurIPS 2015), and within
        four times the radius of one greedy over all points.
        """
        parts = [part for part in parts if part.seen]
        if not parts:
            raise _nothing()
        points = torch.cat([part.points for part in parts])
        chosen = points[greedy_coreset(points, count)]
        added = covering_radius(points, chosen) if len(chosen) < len(points) else 0.0
        return cls(chosen, max(part.radius for part in parts) + added, sum(part.seen for part in parts))
