from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import OneClassSVM as Reference
from tests.detectors.classical.vectors import drawn, learnt, scored

from okng.detectors.catalogue import create
from okng.detectors.classical.ocsvm import OneClassSVM
from okng.errors import OkngError

TRAIN, TEST = drawn(300), torch.cat([drawn(50, seed=1), 3 * drawn(50, seed=2)])


@pytest.mark.parametrize(("nu", "sharpness"), [(0.1, 1), (0.3, 1), (0.1, 10), (0.05, 2)])
def test_scores_are_the_logarithms_of_scikit_learns(nu: float, sharpness: float) -> None:
    detector = learnt("ocsvm", TRAIN, nu=nu, sharpness=sharpness)
    assert isinstance(detector, OneClassSVM)
    given = TRAIN.double().numpy()
    reference = Reference(nu=nu, gamma="scale" if sharpness == 1 else sharpness / (6 * given.var())).fit(given)
    total = reference.dual_coef_.sum()
    means = reference.score_samples(TEST.double().numpy()) / total
    np.testing.assert_allclose(np.exp(-scored(detector, TEST)), means, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.exp(-detector.score(TEST)), means, rtol=0, atol=1e-5)  # what float32 leaves of it
    near = means > 1e-9
    np.testing.assert_allclose(scored(detector, TEST)[near], -np.log(means[near]), rtol=1e-5)
    outside = reference.predict(TEST.double().numpy()) < 0
    clear = np.abs(-np.log(means) - float(detector.boundary)) > 1e-4
    assert np.array_equal((scored(detector, TEST) > detector.boundary).numpy()[clear], outside[clear])


@pytest.mark.parametrize("nu", [0.05, 0.1, 0.3])
def test_nu_is_at_least_the_share_outside_and_at_most_that_of_support_vectors(nu: float) -> None:
    detector = learnt("ocsvm", TRAIN, nu=nu, sharpness=1)
    assert isinstance(detector, OneClassSVM)
    outside = float((scored(detector, TRAIN) > detector.boundary + 1e-4).double().mean())  # the margin is the solver's
    assert outside <= nu + 1 / 300
    assert len(detector.support) / 300 >= nu


def test_far_away_the_decision_function_ends_at_rho_and_scores_still_differ() -> None:
    detector = learnt("ocsvm", TRAIN)
    near, far, farther = detector.score(torch.cat([TRAIN[:1], 1e2 * torch.ones(1, 6), 1e4 * torch.ones(1, 6)]))
    assert torch.exp(-near) > 1e-3 and torch.exp(-far) == torch.exp(-farther) == 0
    assert near < far < farther


def test_the_order_of_the_pixels_is_all_the_same() -> None:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    one, other = learnt("ocsvm", TRAIN), learnt("ocsvm", TRAIN[:, order])
    torch.testing.assert_close(other.score(TEST[:, order]), one.score(TEST), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("arguments", [{"nu": 0.0}, {"nu": 1.0}, {"sharpness": 0.0}, {"components": 1.0}])
def test_ranges(arguments: dict[str, float]) -> None:
    with pytest.raises(OkngError, match=f"ocsvm: {next(iter(arguments))} "):
        create("ocsvm", **arguments)
