import math

import numpy as np
import pytest

from okng.errors import OkngError
from okng.metrics import auroc, average_precision, f1_max


def test_hand_worked_values_with_a_tie():
    # NG scores 3 and 2, OK scores 2 and 1: of four pairs three are ordered right and one is a tie.
    labels, scores = [1, 0, 1, 0], [3.0, 2.0, 2.0, 1.0]
    assert auroc(labels, scores) == pytest.approx(3.5 / 4)
    # Recall goes 0 → 1/2 at precision 1, then 1/2 → 1 at precision 2/3, the tie being one threshold.
    assert average_precision(labels, scores) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert f1_max(labels, scores) == (pytest.approx(2 * (2 / 3) / (2 / 3 + 1)), 2.0)


def test_f1_threshold_reproduces_the_value():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = np.round(rng.normal(size=200) + labels, 1)
    value, threshold = f1_max(labels, scores)

    def f1(t):
        predicted = scores >= t
        return 2 * np.sum(predicted & labels) / (predicted.sum() + labels.sum())

    assert value == pytest.approx(f1(threshold))
    assert value == pytest.approx(max(f1(t) for t in scores))


def test_raw_scores_of_any_range_are_ranked_not_squashed():
    # A sigmoid of these would be 1.0 throughout in float32.
    labels = [0, 0, 1, 1]
    for scores in ([18, 30, 40, 50], [-1e30, -1e-30, 1e-30, 1e30], [1, 1 + 1e-12, 1 + 2e-12, 1 + 3e-12]):
        assert auroc(labels, scores) == average_precision(labels, scores) == f1_max(labels, scores)[0] == 1.0


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_is_nan_not_a_number_to_be_believed(labels):
    scores = [0.5] * len(labels)
    assert math.isnan(auroc(labels, scores))
    assert math.isnan(average_precision(labels, scores))
    assert all(math.isnan(v) for v in f1_max(labels, scores))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max])
def test_scores_that_are_not_finite_are_refused(metric, bad):
    with pytest.raises(OkngError, match="image 1"):
        metric([0, 1], [0.0, bad])


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 2], [0, None], [-1, 1]])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError):
        auroc(labels, [0.0, 1.0])
