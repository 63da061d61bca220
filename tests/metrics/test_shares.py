"""The interval of a share, against SciPy's."""

from __future__ import annotations

import pytest

from okng.metrics.shares import wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # scipy.stats.binomtest(count, total).proportion_ci(method="wilson"); for 0 it is z²/(n + z²)
    [(0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (3, 60, 0.0171495, 0.1370052), (1, 1, 0.206549, 1.0)],
)
def test_wilson_interval(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=2e-6)
