"""Covariances of few vectors of many dimensions, and their principal components, in float64 on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.errors import OkngError


def ledoit_wolf(vectors: Tensor) -> Tensor:
    """The covariance (d, d) float64 of `vectors` (n, d), shrunk towards a multiple of I as far as n asks for.

    Ledoit, Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate
    Analysis 88, 2004: S becomes (1 - ρ)S + ρmI, m the mean of its diagonal, where ρ is the share of the squared
    distance of S from mI that is the error of S, estimated from how the vectors' own products scatter around S.
    Of no vectors it is an `OkngError`.
    """
    if not len(vectors):
        raise OkngError("of no vectors there is no covariance; give at least one")
    exact = vectors.cpu().double()  # on the CPU first: not every GPU has float64
    centred = exact - exact.mean(0)  # (n, d)
    n = len(centred)
    return shrunk(centred.T @ centred / n, float(centred.square().sum(1).square().mean()), n)


def shrunk(covariance: Tensor, fourth: float, n: int) -> Tensor:
    """`ledoit_wolf` from the `covariance` S (d, d) float64 of n vectors and the mean `fourth` power of their lengths.

    Both are about the vectors' mean.
    """
    d = len(covariance)
    target = covariance.trace() / d * torch.eye(d, dtype=torch.float64)
    distance = (covariance - target).square().sum()
    error = (fourth - covariance.square().sum()) / n
    share = (error / distance.clamp_min(1e-300)).clamp(0, 1)
    return (1 - share) * covariance + share * target


def principal_components(vectors: Tensor, share: float) -> tuple[Tensor, int]:
    """All directions (d, d) float64 of `vectors` (n, d), one a column, the one of most variance first.

    And how many of the first together explain at least `share`, in (0, 1], of the variance: one fewer does not.
    """
    exact = vectors.cpu().double()
    centred = exact - exact.mean(0)  # (n, d)
    variances, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    explained = variances.flip(0).clamp_min(0).cumsum(0)
    enough = explained >= share * explained[-1] * (1 - 1e-12)  # all of it is met up to rounding
    return directions.flip(1), int(enough.int().argmax()) + 1


def whitening_of(covariance: Tensor) -> Tensor:
    """L⁻¹ (d, d) where LLᵀ is `covariance` (d, d) float64: |L⁻¹x| is the Mahalanobis length of x.

    A millionth of the mean variance is added to the diagonal: of one or two vectors even a shrunk covariance may be
    singular.
    """
    d = len(covariance)
    identity = torch.eye(d, dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance + (1e-6 * covariance.trace() / d + 1e-12) * identity)
    whitening: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return whitening
