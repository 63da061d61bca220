"""One-class support vector machine."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.checks import positive
from okng.detectors.classical.vectors import VectorDetector
from okng.errors import OkngError
from okng.nn.distances import squared_distances

CACHE = 500  # MB, of kernel values
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
        """Solve the dual problem by scikit-learn's libsvm; keep the support vectors (S, d) and their weights."""
        from sklearn.svm import OneClassSVM as Solver

        learnt = vectors.cpu().double().numpy()  # (N, d)
        self.gamma = torch.tensor(self.sharpness / (learnt.shape[1] * (float(learnt.var()) or 1.0))).to(vectors)
        solved = Solver(nu=self.nu, gamma=float(self.gamma), cache_size=CACHE).fit(learnt)
        alphas = torch.from_numpy(solved.dual_coef_[0])  # (S,), float64
        self.support = vectors[torch.from_numpy(solved.support_).long().to(vectors.device)]
        self.alphas = (alphas / alphas.sum()).to(vectors)
        self.boundary = -(float(solved.offset_[0]) / alphas.sum()).clamp_min(TINY).log().to(vectors)

    def score(self, vectors: Tensor) -> Tensor:
        """The negative logarithm of the weighted mean of the kernel's values with the support vectors, (B,)."""
        exponents = self.alphas.log() - self.gamma * squared_distances(vectors, self.support)  # (B, S)
        return -exponents.logsumexp(1)
