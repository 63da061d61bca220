from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from tests.detectors.classical.vectors import drawn, learnt, scored


@pytest.mark.parametrize(("count", "values"), [(200, 6), (20, 60), (60, 60)])
def test_scores_are_mahalanobis_distances_by_scikit_learns_ledoit_wolf(count: int, values: int) -> None:
    """Of fewer images than values too, where no covariance is written down."""
    train, test = drawn(count, values=values), 2 * drawn(40, seed=1, values=values)
    detector = learnt("gaussian", train)
    expected = np.sqrt(LedoitWolf().fit(train.double().numpy()).mahalanobis(test.double().numpy()))
    np.testing.assert_allclose(scored(detector, test), expected, rtol=1e-4)  # 1e-6 of the variance is added
    np.testing.assert_allclose(detector.score(test), expected, rtol=1e-4)


def test_squared_distances_have_the_law_of_chi_squared() -> None:
    root = torch.eye(20) + 0.1 * torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    train, test = (torch.randn(5000, 20, generator=torch.Generator().manual_seed(seed)) @ root + 3 for seed in (1, 2))
    squared = learnt("gaussian", train).score(test).square()
    assert abs(float(squared.mean()) / 20 - 1) < 0.05 and abs(float(squared.var()) / 40 - 1) < 0.15
