from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from tests.nn.devices import WithoutFloat64

from okng.errors import OkngError
from okng.nn.vectors.covariance import ledoit_wolf, principal_components, whitening_of


def correlated(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + 5


@pytest.mark.parametrize(("n", "d"), [(10, 30), (60, 30), (1000, 5)])
def test_the_shrunk_covariance_is_that_of_scikit_learn(n: int, d: int) -> None:
    vectors = correlated(n, d)
    np.testing.assert_allclose(ledoit_wolf(vectors).numpy(), LedoitWolf().fit(vectors.double().numpy()).covariance_)


def test_one_component_fewer_explains_too_little() -> None:
    vectors = correlated(200, 12)
    directions, needed = principal_components(vectors, 0.9)
    torch.testing.assert_close(directions.T @ directions, torch.eye(12, dtype=torch.float64))
    variances = (vectors.double() @ directions).var(0)
    share = variances.cumsum(0) / variances.sum()
    assert 1 < needed < 12 and float(share[needed - 1]) >= 0.9 > float(share[needed - 2])
    assert (variances[:-1] >= variances[1:]).all()


def test_the_whitening_undoes_the_covariance() -> None:
    covariance = ledoit_wolf(correlated(100, 8))
    whitening = whitening_of(covariance)
    torch.testing.assert_close(
        whitening @ covariance @ whitening.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-3
    )


def test_a_gpu_without_float64_is_no_hindrance() -> None:
    vectors = correlated(20, 5)
    there = vectors.as_subclass(WithoutFloat64)
    assert torch.equal(ledoit_wolf(there), ledoit_wolf(vectors))
    assert torch.equal(principal_components(there, 0.9)[0], principal_components(vectors, 0.9)[0])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_vectors_still_have_lengths(n: int) -> None:
    assert whitening_of(ledoit_wolf(correlated(n, 8))).isfinite().all()


def test_no_vectors_are_refused() -> None:
    with pytest.raises(OkngError, match="of no vectors there is no covariance"):
        ledoit_wolf(torch.ones(0, 8))
