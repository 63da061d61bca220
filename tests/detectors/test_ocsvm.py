from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import OneClassSVM as Reference
from tests.detectors.vectors import drawn, learnt, scored

from okng.detectors.catalogue import create
from okng.detectors.classical.ocsvm import OneClassSVM
from okng.errors import OkngError

TRAIN, TEST = drawn(300), torch.cat([drawn(50, seed=1), 3 * drawn(50, seed=2)])


@pytest.mark.parametrize(("nu", "gamma"), [(0.1, None), (0.3, None), (0.05, 0.5)])
def test_scores_are_scikit_learns_but_for_a_factor_and_a_constant(nu: float, gamma: float | None) -> None:
    detector = learnt("ocsvm", TRAIN, nu=nu, gamma=gamma)
    assert isinstance(detector, OneClassSVM)
    reference = Reference(nu=nu, gamma=gamma or "scale").fit(TRAIN.double().numpy())
    total = reference.dual_coef_.sum()
    expected = 1 - reference.score_samples(TEST.double().numpy()) / total
    np.testing.assert_allclose(scored(detector, TEST), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(detector.score(TEST), expected, rtol=0, atol=1e-5)  # what float32 leaves of it
    outside = reference.predict(TEST.double().numpy()) < 0
    clear = np.abs(expected - float(detector.boundary)) > 1e-5
    assert np.array_equal((scored(detector, TEST) > detector.boundary).numpy()[clear], outside[clear])


@pytest.mark.parametrize("nu", [0.05, 0.1, 0.3])
def test_nu_is_at_least_the_share_outside_and_at_most_that_of_support_vectors(nu: float) -> None:
    detector = learnt("ocsvm", TRAIN, nu=nu)
    assert isinstance(detector, OneClassSVM)
    outside = float((scored(detector, TRAIN) > detector.boundary + 1e-4).double().mean())  # the margin is the solver's
    assert outside <= nu + 1 / 300
    assert len(detector.support) / 300 >= nu


def test_however_far_an_image_is_it_is_no_odder_than_1() -> None:
    detector = learnt("ocsvm", TRAIN)
    near, far, farther = detector.score(torch.cat([TRAIN[:1], 1e2 * torch.ones(1, 6), 1e4 * torch.ones(1, 6)]))
    assert near < 0.9 and far == farther == 1


def test_the_order_of_the_pixels_is_all_the_same() -> None:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    one, other = learnt("ocsvm", TRAIN), learnt("ocsvm", TRAIN[:, order])
    torch.testing.assert_close(other.score(TEST[:, order]), one.score(TEST), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("arguments", [{"nu": 0.0}, {"nu": 1.0}, {"gamma": 0.0}, {"components": 1.0}])
def test_ranges(arguments: dict[str, float]) -> None:
    with pytest.raises(OkngError, match=f"ocsvm: {next(iter(arguments))} "):
        create("ocsvm", **arguments)
