"""Drift: the bets are fair, given the one set they compare with too, and they win when the line changes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from okng.errors import OkngError
from okng.inspection import drift as drifting
from okng.inspection.drift import BETS, Drift, Watch, advanced, correction, gains, smoothed, start
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.likeness import Traits, describe, sharpness
from okng.inspection.verdict.result import Inspection

SLOPES = np.array(BETS)


def test_constant_scores_have_uniform_p_values() -> None:
    rng = np.random.default_rng(0)
    p = smoothed(np.zeros(50), np.zeros(20_000), rng.random(20_000))
    assert np.abs(np.quantile(p, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.02
    reference = np.sort(rng.integers(0, 5, 200).astype(float))  # ties and not
    np.testing.assert_allclose(
        smoothed(reference, np.array([9.0, -1.0]), np.array([0.5, 0.5])), [0.5 / 201, 200.5 / 201]
    )


def test_the_bets_are_fair_in_every_state() -> None:
    """Over p uniform the capital stays in the mean, and not for unsmoothed p-values k / (n + 1)."""
    rng = np.random.default_rng(1)
    p = (np.arange(4000) + 0.5) / 4000
    for _ in range(5):
        capital = np.log(rng.random(len(BETS)) + 1e-3)
        part = 0.25
        after = advanced(np.tile(capital, (4000, 1)), gains(p, SLOPES, 0.0), part)
        assert np.exp(after).sum(1).mean() == pytest.approx(np.exp(capital).sum() + part, rel=1e-6)
    whole = (1 + np.arange(20)) / 20  # k / (n + 1), k from 1 to n + 1
    after = advanced(np.full((20, len(BETS)), -np.inf), gains(whole, np.full(len(BETS), 1.0), 0.0), 1.0)
    assert np.exp(after).sum(1).mean() > 1.02
    only = advanced(np.full(1, -np.inf), gains(np.array(0.3), np.zeros(1), 0.5), 1.0)  # a slope of 0 bets nothing
    assert only[0] == pytest.approx(0.0, abs=1e-12)


def test_what_is_put_in_sums_to_one() -> None:
    total = sum(start(step) for step in range(1, 200_001))
    assert total + 1 / (drifting.STARTS * math.log(200_001)) == pytest.approx(1, abs=1e-4)  # the rest, by its integral


def alarms(n: int, runs: int, steps: int, corrected: bool, seed: int, needed: float, delta: float) -> int:
    """Of `runs` stable streams, each with one set of `n`, how many ever have a capital of e^needed."""
    rng = np.random.default_rng(seed)
    reference = np.sort(rng.random((runs, n)), axis=1)
    capital, kept = np.full((runs, len(BETS)), -np.inf), 1.0
    off, ever = correction(n, delta) if corrected else 0.0, np.zeros(runs, bool)
    for step in range(1, steps + 1):
        above = (reference > rng.random((runs, 1))).sum(1)
        capital = advanced(capital, gains((above + rng.random(runs)) / (n + 1), SLOPES, off), start(step))
        kept -= start(step)
        ever |= np.logaddexp(np.logaddexp.reduce(capital, axis=1), math.log(kept)) >= needed
    return int(ever.sum())


def test_a_stable_line_raises_an_alarm_no_more_often_than_bounded() -> None:
    delta, runs = 0.05, 300
    found = alarms(50, runs, 1500, True, 2, math.log(1 / delta), delta)
    assert found / runs <= 2 * delta + 3 * math.sqrt(2 * delta / runs)
    assert alarms(50, runs, 1500, False, 2, math.log(1 / delta), delta) / runs > 0.3  # which the correction is for


def model(n: int = 200, method: str = "split", seed: int = 3, **manifest: Any) -> Inspector:
    rng = np.random.default_rng(seed)
    images = [
        Traits((64, 64), True, 255, "PNG", float(bright), float(sharp))
        for bright, sharp in zip(rng.normal(120, 4, n), rng.normal(0.5, 0.02, n), strict=True)
    ]
    calibration = Calibration.fit(rng.normal(10, 1, n), None, method, 0.05)
    described = {"learnt_images": json.loads(json.dumps(describe(images)))}
    return Inspector(None, Preprocess("L", (64, 64)), calibration, {**described, **manifest})  # type: ignore[arg-type]


def seen(rng: np.random.Generator, score: float = 10, bright: float = 120, sharp: float = 0.5) -> Inspection:
    traits = Traits((64, 64), True, 255, "PNG", float(rng.normal(bright, 4)), float(rng.normal(sharp, 0.02)))
    return Inspection(0, None, float(rng.normal(score, 1)), 0.5, "OK", (64, 64), None, (), {}, (), traits)


@pytest.mark.parametrize(
    ("changed", "moved", "words"),
    [
        ({"bright": 108.0}, {"brightness"}, "images are darker since image .*: lamp, exposure"),
        ({"sharp": 0.44}, {"sharpness"}, "less sharp since image .*: focus, dirt on the lens"),
        ({"score": 12.0}, {"score"}, "odder since .* light and sharpness are as learnt, so look at the parts"),
        ({"score": 12.0, "sharp": 0.44}, {"score", "sharpness"}, "odder .* and less sharp"),
        ({"score": 8.0}, {"score"}, "less odd"),
        ({"bright": 132.0, "sharp": 0.6}, {"brightness", "sharpness"}, "brighter .* and sharper or noisier"),
    ],
)
def test_a_lens_is_told_from_a_lamp_and_a_batch(changed: dict[str, float], moved: set[str], words: str) -> None:
    rng = np.random.default_rng(4)
    drift = Drift(model())
    for _ in range(400):
        state = drift.add(seen(rng))
    assert not state.drifted and state.words == "steady: nothing points to a change in 400 images"
    for _ in range(150):
        state = drift.add(seen(rng, **changed))
    assert set(state.since) == moved and all(350 < since <= 450 for since in state.since.values())
    assert re.search(words, state.words)


def test_a_long_stable_time_does_not_make_it_blind() -> None:
    rng = np.random.default_rng(5)
    delays = []
    for before in (0, 10_000):
        watch = Watch(np.sort(rng.normal(0, 1, 200)), 0.002, BETS)
        watch.add(rng.normal(size=before), rng.random(before), np.arange(1, before + 1), math.log(500))
        while watch.alarm is None:
            watch.add(rng.normal(2, 1, 1), rng.random(1), np.array([watch.steps + 1]), math.log(500))
        delays.append(watch.steps - before)
    assert delays[0] < 40 and delays[1] < 3 * delays[0]


def test_several_at_once_are_as_one_after_another() -> None:
    rng = np.random.default_rng(8)
    stream = [seen(rng, score=10 + i / 50) for i in range(200)]
    stream = [replace(each, traits=None) if i % 7 == 3 else each for i, each in enumerate(stream)]
    one_by_one, at_once = Drift(model()), Drift(model())
    for each in stream:
        state = one_by_one.add(each)
    for first, last in ((0, 1), (1, 130), (130, 200)):
        at_once.take(stream[first:last])
    assert state.drifted and at_once.state == state and at_once.to_json() == one_by_one.to_json()


def test_a_run_can_be_gone_on_with_and_computed_again() -> None:
    rng = np.random.default_rng(6)
    stream = [seen(rng, score=10 + i / 100) for i in range(300)]
    whole, first = Drift(model(), seed=9), Drift(model(), np.float64(0.01), np.int64(9))
    states = [whole.add(each) for each in stream]
    for each in stream[:150]:
        first.add(each)
    kept = json.dumps(first.to_json(), allow_nan=False)
    assert len(kept) < 3000
    again = Drift.from_json(model(), json.loads(kept))
    rest = [again.add(each) for each in stream[150:]]
    assert rest == states[150:] and states[-1].drifted
    thetas = [state.theta["score"] for state in states]
    assert len(set(thetas)) == 300 and 0.4 < np.mean(thetas) < 0.6
    values = np.array([each.score for each in stream])
    p = smoothed(np.sort(model().calibration.scores), values, np.array(thetas))  # from what is logged
    np.testing.assert_array_equal(p, [state.p["score"] for state in states])
    again.restart()
    assert not again.state.drifted and again.state.count == 300
    far = [again.add(seen(rng, score=30)) for _ in range(100)][-1]
    assert far.drifted and far.since["score"] > 300  # not since before it began anew


@pytest.mark.parametrize("spoilt", [{}, [], None, "x", {"risk": 2, "seed": 0}, {"count": "many"}, {"watches": {}}])
def test_what_was_kept_and_makes_no_sense_is_one_line(spoilt: Any) -> None:
    kept = Drift(model()).to_json()
    with pytest.raises(OkngError):
        Drift.from_json(model(), {**kept, **spoilt} if isinstance(spoilt, dict) and spoilt else spoilt)
    with pytest.raises(OkngError, match="of another model"):
        Drift.from_json(model(seed=8), kept)


def test_what_has_no_bound_says_so_and_watches_one_side() -> None:
    assert Drift(model()).bounded and not Drift(model(method="pooled")).bounded
    corner = {"zones": [{"name": "a", "kind": "ignore", "points": [[0, 0], [1, 0], [0, 1]]}]}
    assert not Drift(model(rules=corner, zones_calibrated="whole maps")).bounded
    dropped = model()
    assert not Drift(dropped.calibrated(replace(dropped.calibration, dropped=1), dropped.manifest)).bounded
    rng = np.random.default_rng(7)
    crossed = Drift(model(method="cross"))
    for _ in range(300):
        state = crossed.add(seen(rng, score=8))  # scores of folds are higher than those of a detector of all images
    assert not state.drifted
    few = Drift(model(n=10))
    assert "can't tell" in few.state.words
    older = Drift(model(learnt_images={"height": [1, 2]}))  # a file from before samples were kept
    assert list(older.watches) == ["score"]


def test_sharpness_is_of_the_lens_not_of_the_lamp() -> None:
    rng = np.random.default_rng(8)
    image = Image.fromarray(rng.integers(0, 200, (96, 96), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1))
    usual = np.asarray(image)[:, :, None]
    darker, blurred = (usual * 0.9).astype(np.uint8), np.asarray(image.filter(ImageFilter.GaussianBlur(1)))[:, :, None]
    assert sharpness(darker) == pytest.approx(sharpness(usual), rel=0.02)
    assert sharpness(blurred) < 0.8 * sharpness(usual)
    assert sharpness(np.full((8, 8, 3), 7, np.uint8)) == sharpness(np.zeros((1, 1, 1), np.uint8)) == 0
    assert Preprocess("L", 96).read(np.asarray(image))[1].sharpness == sharpness(usual)
