from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor as Reference
from tests.detectors.classical.vectors import drawn, learnt, scored

from okng.detectors.catalogue import create
from okng.detectors.classical import lof as module
from okng.errors import OkngError

TRAIN, TEST = drawn(300), torch.cat([drawn(50, seed=1), 3 * drawn(50, seed=2)])


@pytest.mark.parametrize(("count", "neighbours"), [(300, 20), (300, 1), (12, 20), (2, 20)])
def test_scores_are_scikit_learns(count: int, neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 70)
    train = TRAIN[:count]
    detector = learnt("lof", train, neighbours=neighbours)
    reference = Reference(n_neighbors=min(neighbours, count - 1), novelty=True).fit(train.double().numpy())
    expected = -reference.score_samples(TEST.double().numpy())
    np.testing.assert_allclose(scored(detector, TEST), expected, rtol=1e-6)
    np.testing.assert_allclose(detector.score(TEST), expected, rtol=1e-4)  # what float32 leaves of it


def test_odd_is_what_lies_less_densely_than_its_neighbours_do() -> None:
    """Beside a dense group, not beside a loose one, at the same distance from it: no single distance tells."""
    dense, loose = 0.01 * drawn(100), drawn(100, seed=1) + 30
    detector = learnt("lof", torch.cat([dense, loose]))
    step = torch.full((1, 6), 0.3)
    beside_dense, beside_loose = detector.score(torch.cat([dense.mean(0) + step, loose.mean(0) + step]))
    assert beside_dense > 5 and beside_loose < 1.5


def test_copies_among_the_images_are_no_division_by_0() -> None:
    detector = learnt("lof", TRAIN[:3].repeat(10, 1), neighbours=5)
    assert detector.score(torch.cat([TRAIN[:3], TEST])).isfinite().all()


def test_ranges() -> None:
    with pytest.raises(OkngError, match="lof: neighbours is 1 or more, not 0"):
        create("lof", neighbours=0)
