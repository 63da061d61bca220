from __future__ import annotations

import math
from itertools import product

import pytest

from okng.serve.pages.estimates import Stratum, among, exact_interval, rates


def chance(x: int, having: int, n: int, total: int) -> float:
    return math.comb(having, x) * math.comb(total - having, n - x) / math.comb(total, n)


def test_for_many_images_the_interval_is_clopper_and_pearsons() -> None:
    many = 10**7
    assert exact_interval(45, 50, many) == pytest.approx((0.7819, 0.9667), abs=1e-4)
    assert exact_interval(0, 10, many) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert exact_interval(29, 29, many) == pytest.approx((0.8806, 1.0), abs=1e-4)


def test_a_stratum_that_was_looked_at_as_a_whole_is_known() -> None:
    assert exact_interval(3, 10, 10) == (0.3, 0.3)
    said = rates(Stratum(10, 10, 4, 0), Stratum(90, 90, 1, 0))  # 4 false alarms and 89 right OKs, 1 miss and 6 found
    assert said.false_alarms.share == said.false_alarms.low == said.false_alarms.high == pytest.approx(4 / 93)
    assert said.misses.share == said.misses.low == said.misses.high == pytest.approx(1 / 7)


@pytest.mark.parametrize("wrong", product((0, 1, 5, 11, 12), (0, 1, 4, 30)))
def test_both_intervals_hold_together_in_95_of_100_samples(wrong: tuple[int, int]) -> None:
    """By going through all samples there are: 5 of 12 called NG and 8 of 30 called OK."""
    (a, b), (n, m) = (12, 30), (5, 8)
    p, q = wrong
    really_ok, really_ng = p + b - q, q + a - p
    held = 0.0
    for x, y in product(range(n + 1), range(m + 1)):
        if (weight := chance(x, p, n, a) * chance(y, q, m, b)) > 0:
            said = rates(Stratum(a, n, x, 0), Stratum(b, m, y, 0))
            false_alarms = not really_ok or said.false_alarms.low <= p / really_ok <= said.false_alarms.high
            misses = not really_ng or said.misses.low <= q / really_ng <= said.misses.high
            held += weight * (false_alarms and misses)
    assert held >= 0.95


def test_each_image_stands_for_its_stratum() -> None:
    """1,000 called OK stand behind 10: counted as they come, one miss of 20 would be 9 times too many."""
    said = rates(Stratum(10, 10, 0, 0), Stratum(1000, 10, 1, 0))
    assert said.misses.share == pytest.approx(100 / 110)
    assert said.in_ok.share == pytest.approx(0.1)


def test_dont_know_counts_against_the_verdict_at_the_high_end_alone() -> None:
    sure, unsure = among(Stratum(200, 20, 2, 0)), among(Stratum(200, 20, 2, 3))
    assert unsure.low == sure.low and unsure.high == among(Stratum(200, 20, 5, 0)).high
    assert unsure.share == pytest.approx(2 / 17)


def test_only_the_head_of_the_drawn_order_counts() -> None:
    """An image behind the first unanswered one was reviewed for being odd: it would bias the rate upwards."""
    answered = [True, True, False, True]
    assert Stratum.of(50, [False, None, None, True], answered) == Stratum(50, 2, 0, 1)


def test_without_answers_nothing_is_known() -> None:
    said = rates(Stratum(10, 0, 0, 0), Stratum(90, 0, 0, 0))
    assert said.false_alarms.share is None and (said.false_alarms.low, said.false_alarms.high) == (0.0, 1.0)
    empty = rates(Stratum(0, 0, 0, 0), Stratum(90, 90, 2, 0))  # nothing called NG
    assert empty.false_alarms.share == 0.0 and empty.misses.share == 1.0
