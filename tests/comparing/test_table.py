"""Rows from what was measured: means over seeds, images that one method could not read, and what is told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from okng.comparing.runs import Method, Result, Run
from okng.comparing.statistics import delong, placements, resampled
from okng.comparing.table import COSTS, FIGURES, Row, kinds_of_pixels, rows_of
from okng.datasets import Dataset
from okng.metrics import auroc, average_precision

LABELS = np.r_[np.ones(40, np.int8), np.zeros(60, np.int8)]
NONE = Dataset("none", "", "", (), ())


def result(name: str, scores: np.ndarray, seed: int = 0, left_out: int = 0) -> Result:
    """What a run keeps, with the first `left_out` images not judged."""
    labels, scores = LABELS[left_out:], scores[left_out:]
    called = scores > 1.5
    figures: dict[str, Any] = dict.fromkeys(FIGURES, float("nan"))
    figures |= {
        "image_auroc": auroc(labels, scores), "image_ap": average_precision(labels, scores),
        "caught": float(called[labels == 1].mean()), "measured_false_alarm_rate": float(called[labels == 0].mean()),
        "n_ok": 60, "n_ng": 40 - left_out, "notes": {},
    }  # fmt: skip
    kept = {
        "figures": figures, **dict.fromkeys(COSTS, 2.0 + seed), "stops": seed, "pictures": {}, "planted": {},
        "provenance": {"learnt_from": 10, "ng_images": 0}, "versions": "",
        "images": [str(i) for i in range(left_out, 100)],
    }  # fmt: skip
    run = Run(Method(name, name), NONE, "", (), False, seed, 0.05, "cpu", Path())
    return Result(run, kept, {"labels": labels, "scores": scores, "called": called})


def scored(gain: float, seed: int) -> np.ndarray:
    """Scores of methods that share most of what they see."""
    shared = np.random.default_rng(0).normal(size=100)
    return LABELS * gain + shared + 0.3 * np.random.default_rng(seed).normal(size=100)


def rows(**results: list[Result]) -> dict[str, Row]:
    methods = [Method(name, name) for name in results]
    return {row.method.name: row for row in rows_of(methods, results, {"late": "not yet"})}


def test_figures_are_means_over_seeds_and_intervals_those_of_mean_placements() -> None:
    both = [scored(2.0, 1), scored(1.6, 2)]
    row = rows(two=[result("two", scores, seed) for seed, scores in enumerate(both)])["two"]
    figure = row.figures["image_auroc"]
    assert figure.value == pytest.approx(np.mean([auroc(LABELS, scores) for scores in both]))
    ng, ok = (np.mean(part, 0) for part in zip(*(placements(LABELS, scores) for scores in both), strict=True))
    _, variance = delong(ng[None], ok[None])
    logit = np.log(figure.value / (1 - figure.value))
    half = 1.96 * np.sqrt(variance[0, 0]) / (figure.value * (1 - figure.value))
    assert figure.low == pytest.approx(1 / (1 + np.exp(half - logit)), abs=1e-4)
    assert row.costs["seconds"] == 2.5 and row.stops == 1 and [one["seed"] for one in row.each] == [0, 1]
    assert row.figures["image_ap"].low < row.figures["image_ap"].value < row.figures["image_ap"].high


def test_a_row_knows_what_its_fits_ran_on() -> None:
    """All seeds together; what was kept before this was noted says nothing."""
    seeds = [result("a", scored(2.0, seed), seed) for seed in range(4)]
    for one, name in zip(seeds, ("two cores", "a GPU", "two cores"), strict=False):
        one.kept["ran_on"] = name
    assert rows(a=seeds)["a"].ran_on == ["a GPU", "two cores"] and not rows(a=seeds[3:])["a"].ran_on


def test_the_best_and_those_like_it_are_marked_for_each_figure() -> None:
    found = rows(
        good=[result("good", scored(2.5, 1))], twin=[result("twin", scored(2.5, 2))],
        bad=[result("bad", scored(1.0, 3))], late=[],
    )  # fmt: skip
    for name in ("image_auroc", "image_ap", "caught"):
        best = max(("good", "twin"), key=lambda method: found[method].figures[name].value)
        assert [method for method, row in found.items() if row.figures[name].best] == [best]
        assert {method for method, row in found.items() if row.figures[name].alike} == {"good", "twin"}
        assert found["bad"].figures[name].p < 0.05
    assert not found["good"].figures["measured_false_alarm_rate"].best  # the lowest rate is no merit
    assert not found["late"].each and found["late"].reason == "not yet"


def test_methods_are_compared_on_the_images_that_all_have_judged() -> None:
    """A method with 5 images less has its own figure, and the test is the one of the 95 that both have."""
    whole, part = scored(2.0, 1), scored(1.2, 2)
    found = rows(whole=[result("whole", whole)], part=[result("part", part, left_out=5)])
    assert found["whole"].figures["image_auroc"].value == pytest.approx(auroc(LABELS, whole))
    alone = rows(whole=[result("whole", whole, left_out=5)], part=[result("part", part, left_out=5)])
    for name in ("image_auroc", "image_ap", "caught"):
        assert 0 < found["part"].figures[name].p == pytest.approx(alone["part"].figures[name].p)


def test_every_resample_has_as_many_images_with_masks_as_there_are() -> None:
    """Of 40 NG images 2 show where they are odd and one more has an empty mask; the first is not judged."""
    found = result("maps", scored(1.0, 1), left_out=1)
    masked = np.r_[3, 7, 9, np.arange(39, 99)]  # in this result's own order
    defect = np.zeros((len(masked), 2))
    defect[[0, 2]] = 5
    found.arrays.update(masked=masked, defect=defect)
    places = np.arange(99)[::-1]  # the common images are in another order
    labels = found.arrays["labels"][places]
    kinds = kinds_of_pixels(found, places, labels)
    assert set(places[kinds == 1]) == {3, 9} and (kinds[labels == 0] == 0).all() and (kinds == 2).sum() == 37
    assert (resampled(kinds, 50)[:, kinds == 1].sum(1) == 2).all()
    assert (resampled(labels, 50)[:, kinds == 1].sum(1) == 0).any()  # as it would be among all NG images
