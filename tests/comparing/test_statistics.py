"""Intervals and tests against direct computations, the bootstrap and textbook examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import f as f_law
from sklearn.metrics import average_precision_score, roc_auc_score

from okng.comparing.statistics import (
    against_the_best,
    auroc_interval,
    average_precisions,
    delong,
    interval,
    mcnemar_p,
    newcombe,
    paired_p,
    placements,
    ranked,
    resampled,
    shares,
)

# Demšar, JMLR 7, 2006, table 6: AUC of C4.5 without and with tuned m, cf and both, on 14 data sets. On the last but one
# the last two are printed alike and ranked 2 and 3.
DEMSAR = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.975, 0.9749], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip


def scored(seed: int, n1: int = 30, n0: int = 50, methods: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and the scores (m, n) of methods that agree in part, with ties."""
    rng = np.random.default_rng(seed)
    labels = np.r_[np.ones(n1, int), np.zeros(n0, int)]
    shared = rng.normal(size=n1 + n0)
    gain = np.linspace(1.2, 0.8, methods)
    scores = np.stack([labels * g + 0.7 * shared + 0.7 * rng.normal(size=n1 + n0) for g in gain])
    return labels, np.round(scores, 1)


def of_all(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = [placements(labels, s) for s in scores]
    return delong(np.stack([ng for ng, _ in both]), np.stack([ok for _, ok in both]))


def test_delong_is_what_every_pair_of_images_gives() -> None:
    """Against the definition, pair by pair, in O(n1 n0)."""
    labels, scores = scored(0)
    values, covariance = of_all(labels, scores)
    pairs = np.stack([(np.sign(s[labels == 1][:, None] - s[labels == 0]) + 1) / 2 for s in scores])  # (m, n1, n0)
    np.testing.assert_allclose(values, [roc_auc_score(labels, s) for s in scores], rtol=1e-12)
    direct = np.cov(pairs.mean(2)) / 30 + np.cov(pairs.mean(1)) / 50
    np.testing.assert_allclose(covariance, direct, rtol=1e-10)


def test_delong_agrees_with_the_bootstrap() -> None:
    labels, scores = scored(1, 60, 90)
    _, covariance = of_all(labels, scores)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(600):
        chosen = np.r_[rng.integers(0, 60, 60), rng.integers(60, 150, 90)]
        drawn.append([roc_auc_score(labels[chosen], s[chosen]) for s in scores])
    spread = np.std(np.diff(np.array(drawn), axis=1))
    of_difference = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert of_difference == pytest.approx(spread, rel=0.12)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(np.std(drawn, axis=0), rel=0.12)


def test_the_interval_of_an_auroc_stays_within_0_and_1_and_is_wide_for_few_images() -> None:
    low, high = auroc_interval(0.99, 0.0001, 20, 20)
    assert 0.8 < low < 0.99 < high < 1
    assert auroc_interval(1.0, 0.0, 5, 60)[0] < 0.8 and auroc_interval(1.0, 0.0, 400, 500)[0] > 0.99
    low, high = auroc_interval(1.0, 0.0, 40, 60)
    assert high == 1 and low == pytest.approx(0.9593, abs=1e-3)  # about 1 - 1.96² (1 + 49 / 2) / 2400
    assert auroc_interval(0.0, 0.0, 60, 40) == pytest.approx((0, 1 - low), abs=1e-9)
    low, high = auroc_interval(0.5, 0.0, 40, 60)  # a detector that gives all images one score
    assert low == pytest.approx(1 - high) and 0.3 < low < 0.45


def test_newcombes_interval_is_the_one_that_another_program_gives() -> None:
    """The R package SingleCaseES prints 0.597319 to 0.985998 for 38.5 of 42 pairs of 7 and 6 (its example of NAP)."""
    assert 1 - newcombe(1 - 38.5 / 42, 7, 6) == pytest.approx(0.5973193600, abs=1e-6)
    assert newcombe(38.5 / 42, 7, 6) == pytest.approx(0.9859976894, abs=1e-6)


@pytest.mark.parametrize("hidden", [0.0, 0.05])
def test_the_interval_of_an_auroc_near_1_holds_the_true_one_most_of_the_time(hidden: float) -> None:
    """Of normal scores, and where some NG images look like OK ones and all others are clear."""
    rng = np.random.default_rng(0)
    labels = np.r_[np.ones(40), np.zeros(60)]
    truth, missed, perfect = (1 - hidden / 2 if hidden else 0.98818), 0, 0
    for _ in range(300):
        clear = 20.0 if hidden else 3.2
        ng = rng.normal(size=40) + np.where(rng.uniform(size=40) < hidden, 0.0, clear)
        value, variance = of_all(labels, np.r_[ng, rng.normal(size=60)][None])
        low, high = auroc_interval(float(value[0]), float(variance[0, 0]), 40, 60)
        missed += not low <= truth <= high
        perfect += variance[0, 0] == 0
    assert perfect > 0 and missed < 0.11 * 300  # 5 % are meant, 7 to 8 % are missed


def test_the_paired_test_keeps_its_level_and_sees_what_unpaired_intervals_hide() -> None:
    same, small = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels = np.r_[np.ones(40), np.zeros(60)]
        shared = rng.normal(size=100)
        scores = np.stack([labels + shared + 0.3 * rng.normal(size=100) for _ in range(2)])
        same.append(paired_p(*of_all(labels, scores))[0, 1])
        scores[1] -= 0.5 * labels
        small.append(paired_p(*of_all(labels, scores))[0, 1])
    assert 0.01 < np.mean(np.array(same) < 0.05) < 0.1
    assert np.mean(np.array(small) < 0.05) > 0.9  # though the two intervals overlap


def test_methods_that_say_the_same_are_not_told_apart() -> None:
    labels, scores = scored(0)
    p = paired_p(*of_all(labels, np.stack([scores[0], scores[0] * 3 + 1, np.arange(80.0)[::-1]])))
    assert p[0, 1] == 1 and p[0, 2] < 1e-3 and (np.diag(p) == 1).all()
    assert paired_p(np.array([1.0, 0.0, 1.0]), np.zeros((3, 3)))[0].tolist() == [1, 0, 1]  # right and wrong throughout


def test_a_p_value_against_the_best_counts_the_other_methods() -> None:
    p = np.ones((4, 4))
    for (i, j), value in {(0, 1): 0.001, (0, 2): 0.012, (0, 3): 0.4, (1, 2): 1e-9, (1, 3): 0.5, (2, 3): 0.03}.items():
        p[i, j] = p[j, i] = value
    np.testing.assert_allclose(against_the_best(p, 0), [1, 0.003, 0.036, 1])
    np.testing.assert_allclose(against_the_best(p, 3), [1, 1, 0.09, 1])
    assert p[3, 3] == 1 and p[0, 1] == 0.001
    np.testing.assert_array_equal(against_the_best(np.ones((1, 1)), 0), [1])


def test_the_truly_best_method_is_among_those_not_told_from_the_best() -> None:
    """In 19 of 20 draws, whichever method the draw shows as the best."""
    kept = 0
    rng = np.random.default_rng(0)
    for _ in range(300):
        labels = np.r_[np.ones(30, int), np.zeros(40, int)]
        scores = rng.normal(0, 1, (8, 70)) + labels * np.r_[1.5, np.full(7, 1.4)][:, None]
        values, covariance = of_all(labels, scores)
        adjusted = against_the_best(paired_p(values, covariance), int(np.argmax(values)))
        kept += int(adjusted[0] > 0.05)
    assert kept >= 0.95 * 300 - 3 * (300 * 0.95 * 0.05) ** 0.5


def test_resamples_keep_the_number_of_each_label_and_are_the_same_for_all() -> None:
    labels = np.r_[np.ones(7, int), np.zeros(12, int)]
    weights = resampled(labels)
    assert weights.shape == (1000, 19)
    assert (weights[:, :7].sum(1) == 7).all() and (weights[:, 7:].sum(1) == 12).all()
    np.testing.assert_array_equal(weights, resampled(labels))
    assert weights.var(0) == pytest.approx(np.r_[np.full(7, 6 / 7), np.full(12, 11 / 12)], rel=0.2)


def test_average_precision_of_resamples_is_that_of_the_images_drawn() -> None:
    labels, scores = scored(3, 9, 14)
    weights = resampled(labels, 20)
    expected = []
    for row in weights:
        chosen = np.repeat(np.arange(len(labels)), row.astype(int))
        expected.append(average_precision_score(labels[chosen], scores[0][chosen]))
    np.testing.assert_allclose(average_precisions(labels, scores[0], weights), expected, rtol=1e-9)


def test_shares_and_intervals() -> None:
    labels = np.r_[np.ones(40, int), np.zeros(10, int)]
    called = np.r_[np.ones(30), np.zeros(20)].astype(bool)
    drawn = shares(called, labels == 1, resampled(labels))
    low, high = interval(drawn, 0.75, 0.75)
    assert low == pytest.approx(0.75 - 1.96 * math.sqrt(0.75 * 0.25 / 40), abs=0.04) and high < 0.9
    assert np.isnan(interval(np.ones(1000), 1.0, 1.0)).all()  # no resample of a perfect ranking is any worse
    moved = interval(drawn, 0.80, 0.75)
    assert moved == pytest.approx((low + 0.05, high + 0.05))
    assert interval(drawn, 1.2, 0.75)[1] == 1.0 and interval(drawn, -0.2, 0.75)[0] == 0.0
    assert interval(np.linspace(0, 1, 1001), 0.5, 0.5) == pytest.approx((0.025, 0.975))


def test_ranks_are_those_of_the_textbook() -> None:
    """Demšar prints the average ranks, χ² = 9.28, F = 3.69 and, for Nemenyi's test at 5 %, 1.25."""
    found = ranked(DEMSAR)
    np.testing.assert_allclose(found.average, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert found.chi2 == pytest.approx(9.28, abs=0.01) and found.f == pytest.approx(3.69, abs=0.01)
    assert found.difference == pytest.approx(1.25, abs=0.005)
    assert found.p == pytest.approx(f_law.sf(found.f, 3, 39)) and 0.01 < found.p < 0.05  # 5 % have 2.85 or more
    assert found.ranks[9].tolist() == [2.5, 2.5, 2.5, 2.5]


def test_ranks_need_two_sets_and_two_methods() -> None:
    assert math.isnan(ranked(DEMSAR[:1]).p) and math.isnan(ranked(DEMSAR[:, :1]).difference)
    agreed = ranked(np.array([[0.9, 0.8, 0.7]] * 5))
    assert agreed.f == math.inf and agreed.p == pytest.approx(1 / 6**4)


def test_few_data_sets_have_the_exact_p_value_of_their_ranks() -> None:
    """Methods that are alike agree on two data sets by chance: two of them every other time, three each sixth."""
    assert ranked(np.array([[0.9, 0.8], [0.7, 0.6]])).p == 0.5
    assert ranked(np.array([[0.9, 0.8, 0.7]] * 2)).p == pytest.approx(1 / 6)
    # Friedman's table for three methods on four sets: a chi2 of 6.5 or more has .042 (JASA 32, 1937)
    found = ranked(np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [3, 1, 2]]))
    assert found.chi2 == pytest.approx(6.5) and found.p == pytest.approx(0.042, abs=5e-4)
    assert ranked(np.array([[0.9, 0.9], [0.9, 0.8], [0.7, 0.6]])).p == 0.5  # the tied set says nothing


def test_two_methods_are_apart_only_where_the_ranks_say_so() -> None:
    """By the law of the range two methods on four or five sets were apart where all agree, whose p is .125 and .06."""
    for sets in range(2, 9):
        found = ranked(np.array([[0.9, 0.8]] * sets))
        assert (found.average[1] - found.average[0] > found.difference + 1e-9) == (found.p <= 0.05) == (sets >= 6)
    # of three methods on three sets, best and worst are 2 apart in one of 36 orders
    assert ranked(np.array([[3.0, 2, 1]] * 3)).difference == pytest.approx(5 / 3)


def test_the_test_of_ranks_keeps_its_level_however_few_sets_there_are() -> None:
    rng = np.random.default_rng(0)
    for sets, methods in ((2, 2), (2, 3), (3, 3)):
        said = np.mean([ranked(rng.random((sets, methods))).p <= 0.05 for _ in range(80)])
        assert said < 0.12, (sets, methods)  # by the law of F .49, .19 and .19


def test_verdicts_are_compared_by_mcnemars_exact_test() -> None:
    """Five images caught by one method alone are 2 / 2^5, where a normal law of the difference would say .025."""
    first = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
    second = np.array([0, 0, 0, 0, 0, 1, 1, 0], bool)
    third = np.array([0, 1, 1, 1, 1, 1, 1, 1], bool)
    p = mcnemar_p(np.stack([first, second, third]))
    assert p[0, 1] == p[1, 0] == pytest.approx(2 / 2**5)
    assert p[0, 2] == 1  # one image each
    assert p[1, 2] == pytest.approx(2 / 2**5)
    assert np.diag(p).tolist() == [1, 1, 1]
