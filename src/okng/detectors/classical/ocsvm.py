"""One-class support vector machine."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.checks import positive
from okng.detectors.classical.vectors import VectorDetector
from okng.errors import OkngError
from okng.nn.distances import squared_distances

CACHE = 500  # MB, of kernel values


class OneClassSVM(VectorDetector):
    """A hyperplane parts the OK images from the origin of a Gaussian kernel's space by the largest margin.

    Schölkopf, Platt, Shawe-Taylor, Smola, Williamson, "Estimating the Support of a High-Dimensional Distribution",
    Neural Computation 13, 2001. At most a share nu of the learnt images lies outside, and at least that share are
    support vectors. An image's score is 1 - Σ αᵢ k(xᵢ, x) / Σ αᵢ over the support vectors, in (0, 1]: however far an
    image is, it is not odder than 1. Beyond `boundary` it lies outside.

    `features`: "pixels", or the name of a backbone whose last features, averaged over the image, are taken instead.
    `weights`: the backbone's: "imagenet", "none" or a file. `contrast`: whether each image's pixels are first made
    less their mean and divided by their mean absolute deviation; a backbone's features never are. `components`: the
    share of the variance that the principal components kept explain, in (0, 1), or none for all values as they are.
    `nu`: the share of OK images that may lie outside, in (0, 1). `gamma`: of the kernel exp(-γ|x - y|²); none for
    1 / (d · variance), which needs no labels.

    Deliberately otherwise: the score is not the decision function ρ - Σ αᵢ k(xᵢ, x), which is a difference of nearly
    equal numbers at the boundary, but rises with it in a straight line. Published figures, among them those of "Deep
    One-Class Classification", often choose gamma by the AUROC on labelled test images; here nothing is chosen so.
    """

    support: Tensor
    alphas: Tensor
    gamma_used: Tensor
    boundary: Tensor

    def __init__(
        self,
        features: str = "pixels",
        weights: str = "imagenet",
        contrast: bool = False,
        components: float | None = None,
        nu: float = 0.1,
        gamma: float | None = None,
    ):
        super().__init__(features, weights, contrast, components)
        if not 0 < nu < 1:
            raise OkngError(f"nu is a share of the OK images, above 0 and below 1, not {nu}")
        if gamma is not None:
            positive(gamma=gamma)
        self.nu, self.gamma = nu, gamma
        self.register_buffer("support", torch.zeros(0, 0))  # (S, d)
        self.register_buffer("alphas", torch.zeros(0))  # (S,), their sum is 1
        self.register_buffer("gamma_used", torch.ones(()))
        self.register_buffer("boundary", torch.zeros(()))

    def learn(self, vectors: Tensor) -> None:
        """Solve the dual problem by scikit-learn's libsvm; keep the support vectors (S, d) and their weights."""
        from sklearn.svm import OneClassSVM as Solver

        learnt = vectors.cpu().double().numpy()  # (N, d)
        gamma = self.gamma or 1 / (learnt.shape[1] * (float(learnt.var()) or 1.0))
        solved = Solver(nu=self.nu, gamma=float(torch.tensor(gamma)), cache_size=CACHE).fit(learnt)
        alphas = torch.from_numpy(solved.dual_coef_[0])  # (S,), float64
        self.support = vectors[torch.from_numpy(solved.support_).long().to(vectors.device)]
        self.alphas = (alphas / alphas.sum()).to(vectors)
        self.gamma_used = torch.tensor(gamma).to(vectors)
        self.boundary = (1 - float(solved.offset_[0]) / alphas.sum()).to(vectors)

    def score(self, vectors: Tensor) -> Tensor:
        """One less the mean kernel value with the support vectors, (B,)."""
        kernel = torch.exp(-self.gamma_used * squared_distances(vectors, self.support))  # (B, S)
        return 1 - kernel @ self.alphas
