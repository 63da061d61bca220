from __future__ import annotations

import math

import numpy as np
import pytest

from okng.planted.curve import Fit, clopper_pearson, fit, size_interval

SIZES = np.array([5.0, 10, 19, 38, 77, 154])


def chance(a: float, b: float, floor: float, lapse: float) -> np.ndarray:
    return floor + (1 - floor - lapse) / (1 + np.exp(-b * (np.log(SIZES) - a)))


@pytest.mark.parametrize(
    ("a", "b", "floor", "lapse"), [(3.4, 2.0, 0.05, 0.0), (2.5, 4.0, 0.0, 0.08), (4.2, 1.5, 0.1, 0.0)]
)
def test_the_fit_finds_the_curve_that_made_the_hits(a: float, b: float, floor: float, lapse: float) -> None:
    n = 4000
    totals = np.full((30, 6), n)
    hits = np.random.default_rng(0).binomial(n, chance(a, b, floor, lapse), size=totals.shape)
    found = fit(SIZES, hits, totals, np.full(30, floor))
    assert abs(found.a.mean() - a) < 0.05 and abs(np.log(found.b / b).mean()) < 0.06
    assert abs(found.lapse.mean() - lapse) < 0.02
    np.testing.assert_allclose(found.at(SIZES), np.tile(chance(a, b, floor, lapse), (30, 1)), atol=0.04)


def test_no_other_curve_is_likelier() -> None:
    """Against a fine search around the fit, and far from it."""
    rng = np.random.default_rng(1)
    hits = rng.binomial(20, chance(3.3, 2.2, 0.05, 0.05), size=(8, 6))
    found = fit(SIZES, hits, np.full((8, 6), 20), np.full(8, 0.05))

    def likelihood(a: float, b: float, lapse: float, of: np.ndarray) -> float:
        p = np.clip(chance(a, b, 0.05, lapse), 1e-9, 1 - 1e-9)
        return float((of * np.log(p) + (20 - of) * np.log1p(-p)).sum())

    for i, own in enumerate(hits):
        best = likelihood(found.a[i], found.b[i], found.lapse[i], own)
        tried = zip(
            rng.uniform(1, 5.5, 3000), np.exp(rng.uniform(-0.3, 3.3, 3000)), rng.uniform(0, 0.6, 3000), strict=True
        )
        assert best > max(likelihood(*parameters, own) for parameters in tried) - 0.01


def test_the_size_for_a_share_inverts_the_curve() -> None:
    found = fit(SIZES, np.array([[1, 4, 9, 15, 19, 20]]), np.full((1, 6), 20), np.array([0.02]))
    for share in (0.1, 0.5, 0.9):
        assert found.at(found.size_for(share))[0, 0] == pytest.approx(share)
    assert found.size_for(0.01)[0] == 0
    lapsing = fit(SIZES, np.array([[0, 20, 40, 70, 80, 80]]), np.full((1, 6), 100), np.zeros(1))
    assert np.isinf(lapsing.size_for(0.9)[0]) and np.isfinite(lapsing.size_for(0.5)[0])
    chance_alone = Fit(*(np.array([value]) for value in (0.95, 2.0, 3.0, 0.2)))  # found everywhere by chance, P = 0.95
    assert chance_alone.at(np.array([50.0]))[0, 0] == 0.95
    assert chance_alone.size_for(0.9)[0] == 0 and np.isinf(chance_alone.size_for(0.96)[0])


def interval(hits: np.ndarray, clean: float = 0.0, seed: int = 0) -> tuple[float, float, float]:
    chances = np.stack([np.full(len(hits), clean), np.ones(len(hits))], 1)
    whole, _, low, high = size_interval(SIZES, hits, np.ones_like(hits), chances, 0.9, seed)
    return float(whole.size_for(0.9)[0]), low, high


def test_where_sizes_part_hits_from_misses_the_interval_spans_the_gap() -> None:
    """Every draw of images gives the same counts: the bootstrap alone would claim to know the size exactly."""
    size, low, high = interval(np.repeat([[0, 0, 0, 1, 1, 1]], 20, axis=0))
    assert 19 < size < 38 and low < 25 and high > 33


def test_what_is_never_found_or_always() -> None:
    size, low, high = interval(np.zeros((20, 6), int))
    assert size > 154 and high == np.inf
    size, low, high = interval(np.ones((20, 6), int))
    assert size < 5 and low < 5 and high < 10
    size, low, high = interval(np.repeat([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], 10, axis=0))
    assert math.isinf(size) and math.isinf(high)


def test_plants_on_one_image_are_not_independent() -> None:
    """Twenty images of which each finds all or nothing say less than twenty times as many different ones."""
    rng = np.random.default_rng(3)
    thresholds = rng.lognormal(3.3, 0.5, 20)
    alike = (SIZES[None] > thresholds[:, None]).astype(int)  # (20, 6)
    chances = np.stack([np.zeros(20), np.ones(20)], 1)
    *_, low, high = size_interval(SIZES, alike * 15, np.full((20, 6), 15), chances, 0.9, 0)
    many = np.repeat(alike, 15, axis=0)
    *_, one, other = size_interval(SIZES, many, np.ones_like(many), np.repeat(chances, 15, axis=0), 0.9, 0)
    assert math.log(high / low) > 1.5 * math.log(other / one)


def test_the_interval_holds_the_true_size_most_of_the_time() -> None:
    rng = np.random.default_rng(5)
    truth = math.exp(3.2 + math.log(9) / 2.5)
    held = 0
    for seed in range(25):
        hits = (rng.uniform(size=(20, 6)) < chance(3.2, 2.5, 0.0, 0.0)).astype(int)
        _, low, high = interval(hits, seed=seed)
        held += low <= truth <= high
    assert held >= 21


def test_exact_intervals_never_hold_less_than_they_say() -> None:
    for n in (1, 4, 11, 20):
        ends = np.array([clopper_pearson(k, n) for k in range(n + 1)])
        k = np.arange(n + 1)
        choose = np.array([math.comb(n, i) for i in k])
        for p in np.linspace(0.005, 0.995, 100):
            mass = choose * p**k * (1 - p) ** (n - k)
            assert mass[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum() >= 0.95 - 1e-9, (n, p)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"), [(29, 29, 0.8806, 1), (45, 50, 0.7819, 0.9667), (0, 10, 0, 0.3085)]
)
def test_known_exact_intervals(count: int, total: int, low: float, high: float) -> None:
    assert clopper_pearson(count, total) == pytest.approx((low, high), abs=6e-5)
