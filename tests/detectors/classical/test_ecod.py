from __future__ import annotations

import numpy as np
import pytest
import torch
from pyod.models.ecod import ECOD as Reference
from tests.detectors.classical.vectors import drawn, learnt, scored
from torch import Tensor

from okng.detectors.classical.ecod import ECOD

DRAWN = drawn(300), torch.cat([drawn(10, seed=1), 3 * drawn(10, seed=2)])
TRAIN, TEST = ((each * 1e4).round() / 1e4 for each in DRAWN)
LEVELS = [(each * 20).round() / 20 for each in DRAWN]  # as pixels have them: most values are those of others


@pytest.mark.parametrize(("train", "test"), [(TRAIN, TEST), LEVELS])
def test_scores_are_pyods_of_each_image_alone(train: Tensor, test: Tensor) -> None:
    detector = learnt("ecod", train)
    assert isinstance(detector, ECOD) and {*detector.skewed.tolist()} == {-1.0, 1.0}
    reference = Reference().fit(train.double().numpy())
    expected = np.concatenate([reference.decision_function(row[None].double().numpy()) for row in test])
    np.testing.assert_allclose(scored(detector, test), expected, rtol=1e-6)
    np.testing.assert_allclose(detector.score(test), expected, rtol=1e-5)
    assert torch.equal(detector.score(test)[:1], detector.score(test[:1]))  # whatever else is scored


def test_counts_are_exact_whatever_rounding_does_to_equal_values() -> None:
    detector = learnt("ecod", LEVELS[0])
    moved = LEVELS[1] * (1 + 2e-7)
    torch.testing.assert_close(detector.score(moved), detector.score(LEVELS[1]), rtol=1e-6, atol=0)
    assert isinstance(detector, ECOD)
    counts = (LEVELS[0].T[None] < LEVELS[1][:, :, None]).sum(2)  # (B, D)
    assert torch.equal(detector.below(LEVELS[1]), counts)
    assert torch.equal(detector.below(torch.full((1, 6), 1e9)), torch.full((1, 6), 300))


def test_only_the_order_of_a_value_counts() -> None:
    """A value's own scale, bent however, changes nothing but the side to which it is skewed."""
    one, other = learnt("ecod", TRAIN), learnt("ecod", 5 * TRAIN + 1)
    torch.testing.assert_close(other.score(5 * TEST + 1), one.score(TEST), rtol=1e-4, atol=1e-4)
