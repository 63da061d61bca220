"""Kernel density estimation of vectors, in a few of their principal components."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from okng.nn.vectors.distances import squared_distances

FLAT = 1e-6  # of the largest deviation: what a component must vary by to be kept


class KernelDensity(nn.Module):
    """Gaussian kernels at known vectors; vectors (B, `size`) → how few of the known ones are near, (B,).

    The kernels have the shape of the covariance of at most `components` principal components and Scott's width (Scott,
    "Multivariate Density Estimation", 1992), n^(-1/(d + 4)) of it.
    """

    mean: Tensor
    whitening: Tensor
    references: Tensor

    def __init__(self, size: int, components: int):
        super().__init__()
        self.components = components
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("whitening", torch.zeros(size, 0))  # (d, r), to components by a kernel's deviation
        self.register_buffer("references", torch.zeros(0, 0))  # the known vectors there, (N, r)

    def learn(self, vectors: Tensor) -> None:
        """Put a kernel at each of `vectors` (N, d)."""
        vectors = vectors.cpu().double()  # on the CPU first: not every GPU has float64
        mean = vectors.mean(0)
        whitening = self.kernels(vectors - mean)
        self.mean, self.whitening = mean.to(self.mean), whitening.to(self.mean)
        self.references = ((vectors - mean) @ whitening).to(self.mean)

    def kernels(self, centred: Tensor) -> Tensor:
        """W (d, r) float64 for `centred` (N, d): along its columns the known vectors vary by 1 over Scott's width."""
        n = len(centred)
        _, singular, directions = torch.linalg.svd(centred, full_matrices=False)  # directions are rows, (min(N, d), d)
        deviations = singular / math.sqrt(max(1, n - 1))
        varies = deviations > FLAT * deviations.amax().clamp_min(1e-12)
        r = max(1, min(self.components, int(varies.sum())))
        width = n ** (-1 / (r + 4))
        whitening: Tensor = directions[:r].T / (width * deviations[:r].clamp_min(FLAT))
        return whitening

    def forward(self, vectors: Tensor) -> Tensor:
        """The negative logarithm of the mean kernel at `vectors` (B, d), each 1 at its own middle: (B,), 0 and up."""
        return self.among(vectors, self.references)

    def among(self, vectors: Tensor, references: Tensor) -> Tensor:
        """The same by some of the kernels alone, `references` (M, r); infinite by none."""
        squared = squared_distances((vectors - self.mean) @ self.whitening, references)  # (B, M)
        found: Tensor = math.log(max(1, len(references))) - (squared / -2).logsumexp(1)
        return found
