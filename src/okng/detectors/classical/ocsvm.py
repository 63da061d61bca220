"""One-class support vector machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from okng.checks import positive
from okng.detectors.classical.vectors import VectorDetector
from okng.errors import OkngError
from okng.nn.vectors.distances import squared_distances
from okng.nn.vectors.support_vectors import support_vectors

TINY = 1e-300  # an offset that is 0, as that of one image may be


class OneClassSVM(VectorDetector):
    """A hyperplane parts the OK images from the origin of a Gaussian kernel's space by the largest margin.

    Schölkopf, Platt, Shawe-Taylor, Smola, Williamson, "Estimating the Support of a High-Dimensional Distribution",
    Neural Computation 13, 2001. At most a share nu of the learnt images lies outside, and at least that share are
    support vectors. An image's score is -log(Σ αᵢ k(xᵢ, x) / Σ αᵢ) over the support vectors. Above `boundary` it lies
    outside.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation; a backbone's features never are. `components`: the
    share of the variance that the principal components kept explain, in (0, 1), or none for all values as they are.
    `nu`: the share of OK images that may lie outside, in (0, 1). `sharpness`: of the kernel exp(-γ|x - y|²), whose γ is
    this over the sum of the variances of all values: 10 as in Sohn et al., "Learning and Evaluating Representations for
    Deep One-Class Classification", ICLR 2021; 1 is scikit-learn's gamma="scale".

    Deliberately otherwise: the score is not the decision function ρ - Σ αᵢ k(xᵢ, x) but rises with it; the logarithm
    keeps apart what lies so far out that all kernels are 0 in float32. Published figures, among them those of "Deep
    One-Class Classification", often choose γ by the AUROC on labelled test images; here nothing is chosen so.
    """

    support: Tensor
    alphas: Tensor
    gamma: Tensor
    boundary: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
        nu: float = 0.1,
        sharpness: float = 10.0,
    ):
        super().__init__(features, weights, contrast, components)
        if not 0 < nu < 1:
            raise OkngError(f"nu is a share of the OK images, above 0 and below 1, not {nu}")
        positive(sharpness=sharpness)
        self.nu, self.sharpness = nu, sharpness
        self.register_buffer("support", torch.zeros(0, 0))  # (S, d)
        self.register_buffer("alphas", torch.zeros(0))  # (S,), their sum is 1
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("boundary", torch.zeros(()))

    def learn(self, vectors: Tensor) -> None:
        """Keep the support vectors (S, d) and their weights."""
        variance = float(vectors.cpu().double().numpy().var()) or 1.0
        self.gamma = torch.tensor(self.sharpness / (vectors.shape[1] * variance)).to(vectors)
        self.support, self.alphas, offset = support_vectors(vectors, self.nu, float(self.gamma))
        self.boundary = torch.tensor(-math.log(max(offset, TINY))).to(vectors)

    def score(self, vectors: Tensor) -> Tensor:
        """The negative logarithm of the weighted mean of the kernel's values with the support vectors, (B,)."""
        exponents = self.alphas.log() - self.gamma * squared_distances(vectors, self.support)  # (B, S)
        return -exponents.logsumexp(1)
