"""Kernel density estimation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from okng.checks import positive
from okng.detectors.classical.vectors import VectorDetector
from okng.nn.vectors.distances import squared_distances

BANDWIDTHS = [2 ** (half / 2) for half in range(-9, 11)]  # among which held-out images choose
FOLDS = 5
MOST = 2_000  # images that choose


class KernelDensity(VectorDetector):
    """A Gaussian stands at each OK image; where their sum is small is odd.

    Parzen, "On Estimation of a Probability Density Function and Mode", 1962. The score is the negative logarithm of
    the mean of exp(-|x - xᵢ|² / 2h²), which is that of the density but for a constant.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation; a backbone's features never are. `components`: the
    share of the variance that the principal components kept explain, in (0, 1), or none for all values as they are.
    `bandwidth`: h, where the range of all values is 1; by default, none, that of 20 from 2^-4.5 to 2^5 at which five
    folds of the OK images, drawn, give each other the highest likelihood, as in the experiments of "Deep One-Class
    Classification"; of more than 2,000 images so many are drawn for that.
    """

    references: Tensor
    bandwidth_used: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
        bandwidth: float | None = None,
    ):
        super().__init__(features, weights, contrast, components)
        if bandwidth is not None:
            positive(bandwidth=bandwidth)
        self.bandwidth = bandwidth
        self.register_buffer("references", torch.zeros(0, 0))  # (N, d)
        self.register_buffer("bandwidth_used", torch.ones(()))

    def learn(self, vectors: Tensor) -> None:
        """Keep the vectors; choose the bandwidth, if nobody did, by at most 2,000 of them, in a drawn order."""
        self.references = vectors
        chosen = self.bandwidth
        if chosen is None:
            drawn = torch.randperm(len(vectors))[:MOST].to(vectors.device)  # several normal classes may come in order
            chosen = likeliest_bandwidth(vectors[drawn])
        self.bandwidth_used = torch.tensor(chosen).to(vectors)

    def score(self, vectors: Tensor) -> Tensor:
        """The negative logarithm of the mean Gaussian, (B,)."""
        exponents = squared_distances(vectors, self.references) / (-2 * self.bandwidth_used.square())  # (B, N)
        return math.log(len(self.references)) - exponents.logsumexp(1)


def likeliest_bandwidth(vectors: Tensor) -> float:
    """Of BANDWIDTHS that at which the folds of `vectors` (N, d) are likeliest, each by the others; 1 for one vector.

    Folds are the vectors in their order, cut into five.
    """
    n, d = vectors.shape
    if n < 2:
        return 1.0
    exact = vectors.cpu().double()
    likelihood = torch.zeros(len(BANDWIDTHS), dtype=torch.float64)
    folds = exact.tensor_split(min(FOLDS, n))
    for k, held in enumerate(folds):
        others = torch.cat([*folds[:k], *folds[k + 1 :]])  # (m, d)
        for rows in held.split(1000):
            squared = squared_distances(rows, others).float()  # (r, m)
            for i, h in enumerate(BANDWIDTHS):
                density = (squared / (-2 * h**2)).logsumexp(1) - math.log(len(others)) - d * math.log(h)
                likelihood[i] += density.double().sum() / len(held)
    return BANDWIDTHS[int(likelihood.argmax())]
