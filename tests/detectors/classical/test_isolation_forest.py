from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest as Reference
from tests.detectors.classical.vectors import drawn, learnt, scored
from torch import Tensor

from okng.detectors.catalogue import create
from okng.detectors.classical.isolation_forest import usual_path
from okng.errors import OkngError

TRAIN, TEST = drawn(400), torch.cat([drawn(50, seed=1), 3 * drawn(50, seed=2)])
LEVELS = [(each * 20).round() / 255 for each in (TRAIN, TEST)]  # as pixels have them: most values are those of others


def reference(vectors: Tensor, samples: int) -> Reference:
    torch.manual_seed(0)
    seed = int(torch.randint(2**31 - 1, ()))
    return Reference(max_samples=min(samples, len(vectors)), random_state=seed).fit(vectors.numpy())


@pytest.mark.parametrize(
    ("train", "test", "samples"), [(TRAIN, TEST, 256), (*LEVELS, 100), (TRAIN[:50], TEST, 256), (TRAIN[:2], TEST, 256)]
)
def test_scores_are_scikit_learns(train: Tensor, test: Tensor, samples: int) -> None:
    """In float32 too: each value takes the same way, whatever threshold float64 has."""
    detector = learnt("isolation_forest", train, samples=samples)
    expected = -reference(train, samples).score_samples(test.numpy())
    np.testing.assert_allclose(scored(detector, test), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(detector.score(test), expected, rtol=0, atol=1e-6)
    assert float(detector.score(train).min()) > 0 and float(detector.score(1e6 * test).max()) <= 1


def test_units_of_a_value_are_all_the_same() -> None:
    """No distance bears one value eight times as large."""
    unlike = torch.tensor([8.0, 1, 1, 1, 0.25, 1])
    one, other = learnt("isolation_forest", TRAIN), learnt("isolation_forest", TRAIN * unlike)
    torch.testing.assert_close(other.score(TEST * unlike), one.score(TEST), rtol=0, atol=1e-6)


def test_paths() -> None:
    assert [usual_path(count) for count in (1, 2)] == [0, 1]
    assert usual_path(256) == pytest.approx(10.2448, abs=1e-3)
    line = torch.cat([torch.linspace(0, 1, 255), torch.tensor([50.0])])[:, None]
    score = float(learnt("isolation_forest", line).score(line[-1:])[0])
    assert -np.log2(score) * usual_path(256) < 2  # one cut or two part it from all the others


def test_where_there_is_nothing_to_find_scores_are_about_a_half() -> None:
    noise = torch.rand(2000, 6, generator=torch.Generator().manual_seed(0))
    assert abs(float(learnt("isolation_forest", noise).score(noise).mean()) - 0.5) < 0.05


@pytest.mark.parametrize("arguments", [{"trees": 0}, {"samples": 1}, {"components": 0.0}])
def test_ranges(arguments: dict[str, float]) -> None:
    with pytest.raises(OkngError, match=f"isolation_forest: {next(iter(arguments))} "):
        create("isolation_forest", **arguments)
