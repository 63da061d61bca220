from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import spearmanr
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity as Reference
from tests.detectors.classical.vectors import drawn, learnt, scored

from okng.detectors.catalogue import create
from okng.detectors.classical.kde import BANDWIDTHS, KernelDensity, likeliest_bandwidth
from okng.errors import OkngError

TRAIN, TEST = drawn(200), torch.cat([drawn(50, seed=1), 3 * drawn(50, seed=2)])


@pytest.mark.parametrize("bandwidth", [0.25, 1.0, 4.0])
def test_scores_are_scikit_learns_but_for_the_constant(bandwidth: float) -> None:
    """Where scikit-learn's trees have digits left: of what lies 20 bandwidths away they have none."""
    detector = learnt("kde", TRAIN, bandwidth=bandwidth)
    constant = 6 * math.log(bandwidth * math.sqrt(2 * math.pi))
    expected = -Reference(bandwidth=bandwidth).fit(TRAIN.double().numpy()).score_samples(TEST.double().numpy())
    exact = -logsumexp(-(cdist(TEST.double(), TRAIN.double()) ** 2) / (2 * bandwidth**2), axis=1) + math.log(200)
    near = exact < 20
    assert near.sum() > 30
    np.testing.assert_allclose((scored(detector, TEST) + constant)[near], expected[near], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scored(detector, TEST), exact, rtol=1e-6)
    expected = exact + constant
    np.testing.assert_allclose(detector.score(TEST) + constant, expected, rtol=1e-4)  # what float32 leaves of it


@pytest.mark.parametrize("count", [200, 23, 3])
def test_the_bandwidth_is_that_of_the_likeliest_folds(count: int) -> None:
    search = GridSearchCV(Reference(), {"bandwidth": BANDWIDTHS}, cv=min(5, count)).fit(TRAIN[:count].double().numpy())
    assert likeliest_bandwidth(TRAIN[:count]) == pytest.approx(search.best_params_["bandwidth"])
    assert (len(BANDWIDTHS), BANDWIDTHS[0], BANDWIDTHS[-1]) == (20, 2**-4.5, 2**5)
    assert likeliest_bandwidth(TRAIN[:1]) == 1


def test_narrow_it_ranks_by_the_nearest_image_and_wide_by_the_mean() -> None:
    nearest = torch.cdist(TEST, TRAIN).min(1).values
    mean = (TEST - TRAIN.mean(0)).norm(dim=1)
    for bandwidth, expected in ((1e-3, nearest), (1e3, mean)):
        scores = scored(learnt("kde", TRAIN, bandwidth=bandwidth), TEST)
        assert scores.isfinite().all() and spearmanr(scores, expected).statistic > 0.999


def test_it_is_a_density() -> None:
    detector, h = learnt("kde", TRAIN[:, :1], bandwidth=0.3), 0.3
    line = torch.linspace(-20, 20, 4001)[:, None]
    density = torch.exp(-scored(detector, line)) / (h * math.sqrt(2 * math.pi))
    assert float(density.sum() * 0.01) == pytest.approx(1, abs=1e-3)


def test_ranges() -> None:
    with pytest.raises(OkngError, match="kde: bandwidth is above 0, not 0"):
        create("kde", bandwidth=0)


def test_several_normal_classes_choose_as_in_any_order() -> None:
    """They come class by class; folds in that order would ask how likely a class is by the others alone."""
    classes = torch.arange(5).repeat_interleave(40)  # 40 images of each of five, far apart
    vectors = 40 * torch.nn.functional.one_hot(classes, 6) + TRAIN
    found = []
    for order in (torch.arange(200), torch.randperm(200, generator=torch.Generator().manual_seed(1))):
        detector = learnt("kde", vectors[order])
        assert isinstance(detector, KernelDensity)
        found.append(float(detector.bandwidth_used))
    assert likeliest_bandwidth(vectors) > 16  # in that order
    assert max(found) < 4 and max(found) <= 2 * min(found)
