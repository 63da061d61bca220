"""One Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.detectors.classical.vectors import VectorDetector, principal_axes


class Gaussian(VectorDetector):
    """One Gaussian of all OK images; odd is far from its mean, by the covariance.

    Mahalanobis, "On the Generalised Distance in Statistics", 1936, with the covariance of Ledoit, Wolf, "A
    Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004: (1 - ρ)S + ρmI, for images are often
    fewer than their values. Along the principal axes of the OK images it is (1 - ρ)λ + ρm, and ρm along all others, so
    that no matrix of all values is needed. `mahalanobis` is the method of Rippel et al., which sums such distances over
    the levels of a network; this is the textbook's, on pixels too.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation; a backbone's features never are. `components`: the
    share of the variance that the principal components kept explain, in (0, 1), or none for all values as they are.
    """

    centre: Tensor
    axes: Tensor
    spread: Tensor
    rest: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
    ):
        super().__init__(features, weights, contrast, components)
        self.register_buffer("centre", torch.zeros(0))  # (d,)
        self.register_buffer("axes", torch.zeros(0, 0))  # (k, d)
        self.register_buffer("spread", torch.zeros(0))  # (k,), standard deviations along them
        self.register_buffer("rest", torch.ones(()))  # along all others

    def learn(self, vectors: Tensor) -> None:
        """The mean, the principal axes and the shrunk variances along them and beside them."""
        exact = vectors.cpu().double()
        n, d = exact.shape
        variances, axes = principal_axes(exact)
        lengths = (exact - exact.mean(0)).square().sum(1)  # (N,)
        mean = variances.sum() / d  # m
        away = variances.square().sum() - d * mean.square()  # the squared distance of S from mI
        error = (lengths.square().mean() - variances.square().sum()) / n  # that of it which is chance
        share = (error / away.clamp_min(1e-300)).clamp(0, 1)  # ρ
        floor = share * mean + 1e-6 * mean + 1e-12
        self.centre, self.axes = exact.mean(0).to(vectors), axes.to(vectors).contiguous()
        self.spread, self.rest = ((1 - share) * variances + floor).sqrt().to(vectors), floor.sqrt().to(vectors)

    def score(self, vectors: Tensor) -> Tensor:
        """The Mahalanobis distance, (B,)."""
        apart = vectors - self.centre  # (B, d)
        along = apart @ self.axes.T  # (B, k)
        beside = apart - along @ self.axes  # (B, d)
        squared = (along / self.spread).square().sum(1) + (beside / self.rest).square().sum(1)
        return squared.sqrt()
