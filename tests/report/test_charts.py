"""The numbers behind the charts, against textbook values and plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from okng.inspection.verdict.calibration import Calibration
from okng.metrics import auroc
from okng.report.charts import (
    BARS,
    ROC_POINTS,
    RUG_LINES,
    _ticks,
    expected_false_alarms,
    histogram,
    rate_above,
    roc,
)


def calibrated(scores: object, rate: float = 0.05) -> Calibration:
    return Calibration.fit(np.asarray(scores, float), None, "split", rate)


def test_a_score_equal_to_the_threshold_is_no_alarm() -> None:
    rate = rate_above(np.array([1.0, 2.0, 2.0, 2.1]), 2.0)
    assert rate is not None
    assert (rate.count, rate.total, rate.share) == (1, 4, 0.25)
    assert rate_above(np.empty(0), 2.0) is None


@pytest.mark.parametrize(("n", "asked", "m"), [(43, 0.05, 60), (19, 0.05, 200), (500, 0.01, 1000), (9, 0.5, 1)])
def test_ordinary_false_alarms_are_the_beta_binomial_quantiles(n: int, asked: float, m: int) -> None:
    betabinom = pytest.importorskip("scipy.stats").betabinom
    calibration = calibrated(np.arange(n), asked)
    k = int(asked * (n + 1) + 1e-9)
    law = betabinom(m, k, n + 1 - k)
    assert expected_false_alarms(calibration, m) == (int(law.ppf(0.025)), int(law.ppf(0.975)))


def test_no_ordinary_range_where_nothing_is_promised() -> None:
    assert expected_false_alarms(calibrated(np.arange(10), 0.01), 100) is None
    assert expected_false_alarms(calibrated(np.arange(99)).with_threshold(50), 100) is None
    assert expected_false_alarms(Calibration.fit(np.arange(99.0), None, "split", 0.05, dropped=1), 100) is None
    for method in ("cross", "updated"):  # close, not promised
        assert expected_false_alarms(Calibration.fit(np.arange(99.0), None, method, 0.05), 100) is None


def test_histogram_counts_every_image_once_and_parts_at_the_threshold() -> None:
    rng = np.random.default_rng(0)
    calibration = calibrated(rng.normal(1, 0.2, 99))
    ok = np.append(rng.normal(1, 0.2, 300), calibration.threshold)  # equal to the threshold: still OK
    ng = rng.normal(2, 0.5, 70)
    drawn = histogram([("ok", ok), ("ng", ng)], calibration)
    for row, scores in zip(drawn.rows, (ok, ng), strict=True):
        above = int((scores > calibration.threshold).sum())
        assert sum(bar.count for bar in row.bars) == row.total == len(scores)
        assert sum(bar.count for bar in row.bars if bar.ng) == row.above == above
        assert max(bar.height for bar in row.bars) == 100
        for bar in row.bars:
            assert (bar.left >= drawn.threshold - 0.02) if bar.ng else (bar.left < drawn.threshold)
            assert bar.count == ((scores > bar.low) & (scores <= bar.high)).sum()
    assert drawn.beyond == 0
    assert 3 <= len(drawn.ticks) <= 8


def test_one_far_image_does_not_flatten_the_rest() -> None:
    calibration = calibrated(np.linspace(1, 2, 99))
    scores = np.append(np.linspace(1, 2, 50), 1e6)
    drawn = histogram([("all", scores)], calibration)
    assert drawn.beyond == 1
    assert drawn.rows[0].bars[-1].count == 1
    assert len(drawn.rows[0].bars) >= 4
    assert len(drawn.rows[0].bars) <= BARS + 2


@pytest.mark.parametrize("held_out", [[1.0], [1.0, 1.0, 1.0], [0.0], [-3.0, -2.0]])
@pytest.mark.parametrize("scores", [[1.0], [0.0, 0.0], [-1e9, 5.0], [1e-12]])
def test_histogram_of_degenerate_scores(held_out: list[float], scores: list[float]) -> None:
    drawn = histogram([("all", np.array(scores))], calibrated(held_out))
    assert sum(bar.count for bar in drawn.rows[0].bars) == len(scores)
    assert drawn.ticks
    positions = [*drawn.rug, drawn.threshold]
    positions += [position for position, _ in drawn.ticks]
    positions += [bar.left for bar in drawn.rows[0].bars]
    assert all(0 <= position <= 100 for position in positions)


def test_a_span_that_is_three_steps_but_for_rounding_has_ticks() -> None:
    assert _ticks(0, 0.3) == pytest.approx([0, 0.1, 0.2])  # for 0.3 / 0.1 is 2.9999999999999996


def test_the_rug_is_bounded() -> None:
    drawn = histogram([("all", np.ones(1))], calibrated(np.random.default_rng(0).normal(size=10_000)))
    assert len(drawn.rug) == RUG_LINES


def test_roc_area_is_exact_and_its_points_bounded() -> None:
    rng = np.random.default_rng(1)
    ok, ng = rng.normal(0, 1, 4000).round(1), rng.normal(1, 1, 3000).round(1)  # many ties
    curve = roc(ok, ng)
    assert curve.auroc == pytest.approx(auroc(np.r_[np.zeros(4000), np.ones(3000)], np.r_[ok, ng]), abs=1e-12)
    assert len(roc(rng.normal(0, 1, 4000), rng.normal(1, 1, 3000)).points) <= ROC_POINTS
    assert curve.points[0] == (0.0, 0.0)
    assert curve.points[-1] == (1.0, 1.0)
    real = {(float((ok >= t).mean()), float((ng >= t).mean())) for t in [*np.unique(np.r_[ok, ng]), np.inf]}
    assert all(
        min(abs(x - a) + abs(y - b) for a, b in real) < 1e-12 for x, y in curve.points
    )  # each point belongs to a threshold


def test_roc_of_one_image_each() -> None:
    assert roc(np.array([1.0]), np.array([2.0])).auroc == 1.0
    assert roc(np.array([1.0]), np.array([1.0])).auroc == 0.5
