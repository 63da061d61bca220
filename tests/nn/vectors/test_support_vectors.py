"""The one-class SVM that two detectors share, against scikit-learn's own decision."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.svm import OneClassSVM

from okng.nn.vectors.support_vectors import support_vectors


def test_the_weighted_kernels_and_the_offset_are_scikit_learns_decision() -> None:
    torch.manual_seed(0)
    learnt, others = torch.randn(200, 3), 2 * torch.randn(50, 3)
    support, weights, offset = support_vectors(learnt, nu=0.2, gamma=0.7)
    kernel = torch.exp(-0.7 * torch.cdist(others.double(), support.double()).square())  # (50, S)
    machine = OneClassSVM(nu=0.2, gamma=0.7).fit(learnt.double().numpy())
    decision = (kernel @ weights.double() - offset).numpy() * machine.dual_coef_.sum()
    assert np.allclose(decision, machine.decision_function(others.double().numpy()), atol=1e-5 * abs(machine.offset_))
    assert abs(float(weights.sum()) - 1) < 1e-5 and len(support) >= 0.2 * len(learnt)
