from __future__ import annotations

import numpy as np
import pytest
import torch
from pyod.models.knn import KNN
from tests.detectors.classical.vectors import drawn, learnt, scored

from okng.detectors.catalogue import create
from okng.errors import OkngError

TRAIN, TEST = drawn(200), torch.cat([drawn(50, seed=1), 3 * drawn(50, seed=2)])


@pytest.mark.parametrize("distance", ["largest", "mean"])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_scores_are_pyods(distance: str, neighbours: int) -> None:
    detector = learnt("knn", TRAIN, neighbours=neighbours, distance=distance)
    reference = KNN(n_neighbors=neighbours, method=distance).fit(TRAIN.double().numpy())
    expected = reference.decision_function(TEST.double().numpy())
    np.testing.assert_allclose(scored(detector, TEST), expected, rtol=1e-6)
    np.testing.assert_allclose(detector.score(TEST), expected, rtol=1e-5)  # what float32 leaves of it


def test_what_was_learnt_is_not_odd_and_fewer_images_have_fewer_neighbours() -> None:
    assert torch.equal(learnt("knn", TRAIN, neighbours=1).score(TRAIN), torch.zeros(200))
    few = learnt("knn", TRAIN[:3], neighbours=5).score(TEST)
    torch.testing.assert_close(few, torch.cdist(TEST, TRAIN[:3]).max(1).values, rtol=1e-4, atol=1e-4)


def test_ranges() -> None:
    with pytest.raises(OkngError, match="knn: neighbours is 1 or more, not 0"):
        create("knn", neighbours=0)
