from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tests.nn.devices import WithoutFloat64
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.mahalanobis import Mahalanobis
from okng.errors import OkngError


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def built(**arguments: object) -> Mahalanobis:
    torch.manual_seed(0)
    detector = create("mahalanobis", weights="none", strides=(2, 4), **arguments)  # 16 and 24 channels
    assert isinstance(detector, Mahalanobis)
    return detector


def learn(detector: Mahalanobis, batches: Sequence[Tensor], update: bool = False) -> Mahalanobis:
    (phase,) = detector.update_phases() if update else detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        for batch in batches:
            prepared = phase.prepare(batch)
            assert isinstance(prepared, Tensor)
            phase.visit(Batch(batch, torch.arange(len(batch)), (prepared,)))
        phase.finish()
    return detector


class Given(Mahalanobis):
    """Its features are the images' first values: what a Gaussian is tested with."""

    def pooled(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, : sum(self.backbone.channels)]


def given() -> Given:
    torch.manual_seed(0)
    return Given(weights="none", strides=(2, 4))


def drawn(count: int, seed: int = 1) -> Tensor:
    """Vectors of a Gaussian with very unlike variances, as images."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.3, 2, 40)
    return (torch.randn(count, 40, generator=generator) @ root + 3).view(count, 1, 1, 40)


def test_squared_distances_of_gaussian_features_have_the_law_of_chi_squared() -> None:
    detector = learn(given(), [drawn(8000)])
    with torch.no_grad():
        for distance, d in zip(detector.distances(drawn(8000, seed=2)), (16, 24), strict=True):
            squared = distance.square()
            assert abs(float(squared.mean()) / d - 1) < 0.05 and abs(float(squared.var()) / (2 * d) - 1) < 0.15


def test_the_score_is_the_sum_of_the_levels_distances_by_the_textbook() -> None:
    detector = learn(built(), images(50).split(16))
    with torch.no_grad():
        known, new = detector.pooled(images(50)).double(), detector.pooled(images(3, seed=1)).double()
        found = detector(images(3, seed=1))
    from sklearn.covariance import LedoitWolf

    expected = np.zeros(3)
    for part in (slice(0, 16), slice(16, 40)):
        fitted = LedoitWolf().fit(known[:, part].numpy())
        expected += np.sqrt(fitted.mahalanobis(new[:, part].numpy()))
    np.testing.assert_allclose(found.image, expected, rtol=2e-3)
    assert found.map is None


def test_a_shift_where_ok_images_hardly_vary_counts_more() -> None:
    detector = learn(given(), [drawn(2000)])
    level = detector.vectors[:, :16].double()
    _, directions = torch.linalg.eigh(torch.cov(level.T))
    shifted = detector.mean.repeat(2, 1)
    shifted[0, :16] += directions[:, 0].float()  # of least variance
    shifted[1, :16] += directions[:, -1].float()
    with torch.no_grad():
        scores = detector(shifted.view(2, 1, 1, 40)).image
    assert scores[0] > 2 * scores[1]


@pytest.mark.parametrize("count", [60, 10])
def test_the_component_at_the_border_is_in_both(count: int) -> None:
    """And no more than images span: ten have nine directions, of a level's 16 or 24."""
    pca, npca = (learn(built(components=kind, explained=0.8), [images(count)]) for kind in ("pca", "npca"))
    for low, high, channels in zip(pca.whitenings, npca.whitenings, (16, 24), strict=True):
        assert 1 <= len(low) < channels and len(low) + len(high) == min(channels, count - 1) + 1
        shared = torch.linalg.svdvals(torch.linalg.qr(low.T).Q.T @ torch.linalg.qr(high.T).Q)
        assert float(shared[0]) > 0.999 and (len(shared) == 1 or float(shared[1]) < 0.01)


def test_an_update_is_a_fit_on_all() -> None:
    whole = learn(built(), [images(30)])
    updated = learn(learn(built(), [images(30)[:12]]), [images(30)[12:13], images(30)[13:]], update=True)
    with torch.no_grad():
        torch.testing.assert_close(updated(images(3, 1)).image, whole(images(3, 1)).image, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("components", ["all", "npca"])
def test_a_gpu_without_float64_is_no_hindrance(components: str) -> None:
    plain, there = learn(built(components=components), [images(30)]), built(components=components)
    phase = there.gather([plain.vectors.as_subclass(WithoutFloat64)])
    phase.finish()
    for one, other in zip(plain.whitenings, there.whitenings, strict=True):
        assert torch.equal(one, other.cpu())


@pytest.mark.parametrize("components", ["all", "pca", "npca"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_images(components: str, count: int) -> None:
    detector = learn(built(components=components), [images(count)])
    other = copy.deepcopy(built(components=components))
    other.load_tensors(detector.state_dict())
    with torch.no_grad():
        scores = detector(images(2, seed=1)).image
        assert scores.isfinite().all() and torch.equal(other(images(2, seed=1)).image, scores)


@pytest.mark.parametrize("arguments", [{"explained": 0.0}, {"explained": 1.0}, {"components": "some"}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="mahalanobis: "):
        built(**arguments)
