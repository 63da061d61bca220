"""What tells DFKDE from a toy: the density is that of scipy's kernels, and far images don't tie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from tests.nn.devices import WithoutFloat64
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.dfkde import DFKDE
from okng.errors import OkngError


def built(**arguments: object) -> DFKDE:
    """Of 24 channels at stride 4."""
    torch.manual_seed(0)
    detector = create("dfkde", **{"weights": "none", "stride": 4, "components": 5, **arguments})
    assert isinstance(detector, DFKDE)
    return detector.double()


def learn(detector: DFKDE, vectors: Tensor) -> DFKDE:
    """What it makes of mean features (N, 24), in two batches."""
    (phase,) = detector.phases()
    assert isinstance(phase, Collect)
    for part in vectors.tensor_split(2):
        phase.visit(Batch(torch.zeros(len(part), 3, 8, 8), torch.arange(len(part)), (part,)))
    phase.finish()
    return detector


def drawn(count: int, seed: int = 0) -> Tensor:
    """Mean features (`count`, 24) that vary the more the later they stand, about a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(count, 24, generator=generator).double() * torch.logspace(-2, 1, 24).double()


def test_the_density_is_that_of_scipys_kernels_in_the_components() -> None:
    known, new = drawn(40), drawn(7, seed=1)
    detector = learn(built(), known)
    _, _, directions = torch.linalg.svd(known - known.mean(0), full_matrices=False)
    along = [((each - known.mean(0)) @ directions[:5].T).T.numpy() for each in (known, new)]
    law = gaussian_kde(along[0])  # Scott's width by default
    expected = -law.logpdf(along[1])
    constant = 0.5 * np.linalg.slogdet(2 * np.pi * law.covariance)[1]
    np.testing.assert_allclose(detector.density(new).numpy(), expected - constant, rtol=1e-6)


def test_the_score_goes_on_rising_where_densities_underflow() -> None:
    detector = learn(built(), drawn(40)).float()
    away = detector.density.whitening[:, 0] / detector.density.whitening[:, 0].norm()
    scores = detector.density(detector.density.mean + torch.tensor([3.0, 100, 1000, 10_000])[:, None] * away)
    assert scores.isfinite().all() and (scores.diff() > 1).all()


def test_the_units_of_features_do_not_matter() -> None:
    known, new = drawn(40), drawn(7, seed=1)
    one, other = learn(built(), known), learn(built(), 100 * known)
    torch.testing.assert_close(one.density(new), other.density(100 * new))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_images_and_copies(count: int) -> None:
    for known in (drawn(count), drawn(1).expand(count, -1)):
        detector, other = learn(built(), known), built()
        other.load_tensors(detector.state_dict())
        with torch.no_grad():
            scores = detector(torch.rand(2, 3, 32, 32).double()).image
        kinds = len({*map(tuple, known.tolist())})
        assert scores.isfinite().all() and other.density.references.shape == (count, max(1, kinds - 1))


def test_a_gpu_without_float64_is_no_hindrance() -> None:
    known = drawn(9).float()
    plain = learn(built().float(), known)
    there = built().float()
    (phase,) = there.phases()
    assert isinstance(phase, Collect)
    phase.visit(Batch(torch.zeros(9, 3, 8, 8), torch.arange(9), (known.as_subclass(WithoutFloat64),)))
    phase.finish()
    torch.testing.assert_close(there.density.references, plain.density.references)


@pytest.mark.parametrize("arguments", [{"components": 0}, {"stride": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="dfkde: "):
        built(**arguments)
