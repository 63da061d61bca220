"""The one-class support vector machine: its dual problem, solved by scikit-learn's libsvm."""

from __future__ import annotations

import torch
from torch import Tensor

CACHE = 500  # MB, of kernel values


def support_vectors(vectors: Tensor, nu: float, gamma: float) -> tuple[Tensor, Tensor, float]:
    """Of `vectors` (N, d) those (S, d) that bear the plane, their weights (S,), which sum to 1, and its offset.

    The kernel is exp(-gamma |x - y|²), and at most the share `nu` of the vectors lies outside. The offset ρ is divided
    as the weights are: a vector lies outside if the weighted sum of its kernels is below it.
    """
    from sklearn.svm import OneClassSVM

    solved = OneClassSVM(nu=nu, gamma=gamma, cache_size=CACHE).fit(vectors.cpu().double().numpy())
    alphas = torch.from_numpy(solved.dual_coef_[0])  # (S,), float64
    support = vectors[torch.from_numpy(solved.support_).long().to(vectors.device)]
    return support, (alphas / alphas.sum()).to(vectors), float(solved.offset_[0] / alphas.sum())
