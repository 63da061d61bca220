"""What tells DFM from a toy: an exact subspace of whole feature maps, and the Gaussian inside of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from tests.nn.devices import WithoutFloat64
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.dfm import DFM, principal
from okng.errors import OkngError


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def built(**arguments: object) -> DFM:
    """Of 32 × 48 px a map of 24 channels, 4 × 6 cells: 576 numbers."""
    torch.manual_seed(0)
    detector = create("dfm", **{"weights": "none", "stride": 4, "pool": 2, **arguments})
    assert isinstance(detector, DFM)
    return detector.double()


def learn(detector: DFM, batches: Sequence[Tensor]) -> DFM:
    (phase,) = detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        for batch in batches:
            prepared = phase.prepare(batch.to(next(detector.parameters()).dtype))
            assert isinstance(prepared, Tensor)
            phase.visit(Batch(batch, torch.arange(len(batch)), (prepared,)))
        phase.finish()
    return detector


def vectors(detector: DFM, count: int, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return detector.pooled(images(count, seed).double()).flatten(1)


def test_what_the_components_span_is_restored_and_the_rest_counts_squared() -> None:
    detector = learn(built(), [images(12)])
    spanned = detector.mean + 50 * torch.randn(4, detector.components.shape[1]).double() @ detector.components.T
    assert float(detector.unrestored(spanned).square().sum(1).max()) < 1e-9
    away = detector.unrestored(vectors(detector, 1, seed=5))[0]
    away = away / away.norm()
    for t in (1.0, 3.0):
        torch.testing.assert_close(
            detector.unrestored(spanned + t * away).square().sum(1), torch.full((4,), t * t, dtype=torch.float64)
        )


def test_the_error_does_not_depend_on_the_axes_within_the_components() -> None:
    detector = learn(built(), [images(12)])
    new = vectors(detector, 3, seed=1)
    before, r = detector.unrestored(new), detector.components.shape[1]
    detector.components = detector.components @ torch.linalg.qr(torch.randn(r, r).double()).Q
    torch.testing.assert_close(detector.unrestored(new), before)


def test_the_map_sums_to_the_score_and_is_the_error_of_each_cell() -> None:
    detector = learn(built(), [images(12)])
    with torch.no_grad():
        scores = detector(images(3, seed=1).double())
    assert scores.map is not None and scores.map.shape == (3, 4, 6)
    torch.testing.assert_close(scores.map.sum((1, 2)), scores.image)
    rest = detector.unrestored(vectors(detector, 3, seed=1)).view(3, 24, 4, 6)
    torch.testing.assert_close(scores.map[1, 2, 3], rest[1, :, 2, 3].square().sum())


def test_the_fewest_components_that_explain_the_share() -> None:
    detector = learn(built(explained=0.8), images(20).split([1, 7, 12]))
    known = vectors(detector, 20)
    torch.testing.assert_close(detector.mean, known.mean(0))
    total = (known - known.mean(0)).square().sum()
    left = detector.unrestored(known).square().sum() / total
    fewer = detector.components[:, :-1]
    centred = known - known.mean(0)
    assert left <= 0.2 < (centred - centred @ fewer @ fewer.T).square().sum() / total
    variances = (centred @ detector.components).var(0)
    torch.testing.assert_close(detector.deviations.square(), variances)


def test_the_likelihood_is_that_of_the_gaussian_of_the_components() -> None:
    detector = learn(built(score="nll", explained=0.8), [images(20)])
    new = vectors(detector, 4, seed=1)
    law = multivariate_normal(cov=np.diag(detector.deviations.square().numpy()))
    expected = -2 * law.logpdf(((new - detector.mean) @ detector.components).numpy())
    constant = detector.components.shape[1] * np.log(2 * np.pi)
    with torch.no_grad():
        scores = detector(images(4, seed=1).double())
    assert scores.map is None
    np.testing.assert_allclose(scores.image.numpy(), expected - constant, rtol=1e-6)


def test_a_component_without_variance_has_no_part_in_the_likelihood() -> None:
    detector = learn(built(score="nll", explained=0.8), [images(20)])
    new = vectors(detector, 4, seed=1)
    before = detector.surprise(new)
    rest = detector.unrestored(new)[0]
    detector.components = torch.cat([detector.components, (rest / rest.norm())[:, None]], dim=1)
    detector.deviations = torch.cat([detector.deviations, torch.zeros(1).double()])
    torch.testing.assert_close(detector.surprise(new), before)


@pytest.mark.parametrize("score", ["fre", "nll"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_images(score: str, count: int) -> None:
    detector, other = learn(built(score=score), [images(count)]), built(score=score)
    other.load_tensors(detector.state_dict())
    with torch.no_grad():
        scores = detector(images(2, seed=1).double()).image
        assert scores.isfinite().all() and torch.equal(other(images(2, seed=1).double()).image, scores)


def test_a_gpu_without_float64_is_no_hindrance() -> None:
    plain, there = learn(built().float(), [images(5)]), built().float()
    (phase,) = there.phases()
    assert isinstance(phase, Collect)
    with torch.no_grad():
        prepared = plain.pooled(images(5)).as_subclass(WithoutFloat64)
    phase.visit(Batch(images(5), torch.arange(5), (prepared,)))
    phase.finish()
    assert torch.equal(there.components.cpu(), plain.components)


def test_copies_of_one_image_have_one_component() -> None:
    components, deviations = principal(torch.zeros(5, 7, dtype=torch.float64), 0.97)
    assert components.shape == (7, 1) and deviations.tolist() == [0]


def test_resnet50_as_anomalib_has_it() -> None:
    """Its third layer, 1,024 channels, averaged to 4 × 4 cells of 256 px."""
    detector = DFM(backbone="resnet50", weights="none").eval()
    assert detector.multiple == 64
    with torch.no_grad():
        assert detector.pooled(torch.rand(1, 3, 256, 256)).shape == (1, 1024, 4, 4)


@pytest.mark.parametrize("arguments", [{"explained": 0.0}, {"explained": 1.0}, {"pool": 0}, {"score": "both"}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="dfm: "):
        built(**arguments)
