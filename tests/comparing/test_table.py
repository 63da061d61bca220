"""Rows from what was measured: means over seeds, images that one method could not read, and what is told apart."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from okng.comparing.pixels import PixelCounts
from okng.comparing.runs import Method, Result, Run
from okng.comparing.statistics import (
    average_precisions,
    delong,
    interval,
    mcnemar_p,
    paired_p,
    placements,
    resampled,
    shares,
)
from okng.comparing.table import COSTS, FIGURES, Row, kinds_of_pixels, rows_of
from okng.datasets import Dataset
from okng.metrics import auroc, average_precision
from okng.metrics.shares import wilson

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


def test_verdicts_have_intervals_of_their_own_images_and_an_exact_test() -> None:
    """40 NG images and 60 OK ones; of one fit each, McNemar's test of the NG images alone."""
    scores = [scored(2.0, 1), scored(1.4, 2)]
    found = rows(**{name: [result(name, each)] for name, each in zip("ab", scores, strict=True)})
    for name, count in (("caught", 40), ("measured_false_alarm_rate", 60)):
        figure = found["b"].figures[name]
        assert (figure.low, figure.high) == pytest.approx(wilson(figure.value * count, count))
    p = mcnemar_p(np.stack(scores)[:, LABELS == 1] > 1.5)
    assert 0 < p[0, 1] == found["b"].figures["caught"].p < 1


def test_of_several_seeds_it_is_their_mean_that_is_resampled() -> None:
    fits = {"a": [scored(2.0, 1), scored(1.6, 2)], "b": [scored(1.2, 3), scored(1.1, 4)]}
    found = rows(**{name: [result(name, each, seed) for seed, each in enumerate(both)] for name, both in fits.items()})
    taken = np.concatenate([np.ones((1, 100)), resampled(LABELS)])
    ap, caught = (
        np.stack([np.mean([of(each) for each in both], 0) for both in fits.values()])  # (2, 1 + B)
        for of in (
            lambda scores: average_precisions(LABELS, scores, taken),
            lambda scores: shares(scores > 1.5, LABELS == 1, taken),
        )
    )
    for name, values in (("image_ap", ap), ("caught", caught)):
        assert found["b"].figures[name].p == pytest.approx(paired_p(values[:, 0], np.cov(values[:, 1:]))[0, 1])
    figure = found["a"].figures["image_ap"]
    assert (figure.low, figure.high) == pytest.approx(interval(ap[0, 1:], figure.value, ap[0, 0]))
    figure = found["a"].figures["caught"]
    assert (figure.low, figure.high) == pytest.approx(wilson(figure.value * 40, 40))  # as of one seed


def test_pixel_figures_are_resampled_by_the_images_they_are_of() -> None:
    """All OK images and 20 of the 40 NG ones have masks; a method keeps its images in another order, one has no map."""
    rng = np.random.default_rng(0)
    masked = np.r_[:20, 40:100]
    taken = np.concatenate([np.ones((1, 100)), resampled(np.r_[np.ones(20), np.full(20, 2), np.zeros(60)])])
    given, drawn = {}, {}
    for name, odd in (("a", 3.0), ("b", 1.5)):
        normal = rng.integers(20, 60, (80, 4)).astype(float)
        defect = rng.integers(1, 9, (80, 4)) * (np.arange(80) < 20)[:, None] * np.r_[1, 1, odd, odd]
        overlap = defect / np.maximum(defect.sum(1, keepdims=True), 1)
        drawn[name] = PixelCounts(normal, defect, overlap).of(taken[:, masked])
        one = result(name, scored(2.0, 1))
        one.arrays.update(masked=masked, normal=normal, defect=defect, overlap=overlap)
        for figure, values in zip(("pixel_auroc", "aupro"), drawn[name], strict=True):
            one.kept["figures"][figure] = values[0]
        given[name] = [one]
    (b,) = given["b"]
    for name in ("labels", "scores", "called"):
        b.arrays[name] = b.arrays[name][::-1]
    for name in ("normal", "defect", "overlap"):
        b.arrays[name] = b.arrays[name][::-1]
    b.arrays["masked"] = (99 - masked)[::-1]
    b.kept["images"] = b.kept["images"][::-1]
    found = rows(**given, c=[result("c", scored(1.0, 5))])
    for i, name in enumerate(("pixel_auroc", "aupro")):
        values = np.stack([drawn["a"][i], drawn["b"][i]])  # (2, 1 + B)
        for method, own in zip("ab", values, strict=True):
            figure = found[method].figures[name]
            assert (figure.low, figure.high) == pytest.approx(interval(own[1:], own[0], own[0]), abs=1e-9)
        assert found["a"].figures[name].best
        p = paired_p(values[:, 0], np.cov(values[:, 1:]))[0, 1]  # of two: the one without a map is none of them
        assert found["b"].figures[name].p == pytest.approx(p, rel=1e-6) and 0 < p < 1
        assert np.isnan(found["c"].figures[name].p) and not found["c"].figures[name].alike


def test_one_image_of_a_label_parts_no_methods() -> None:
    found = rows(**{name: [result(name, scored(gain, 1), left_out=39)] for name, gain in (("a", 2.0), ("b", 1.0))})
    for row in found.values():
        figure = row.figures["image_auroc"]
        assert not figure.best and not figure.alike and np.isnan([figure.low, figure.high, figure.p]).all()
        assert row.figures["caught"].low < row.figures["caught"].high


def test_a_long_name_leaves_room_for_figures_on_a_telephone(browser: Any, tmp_path: Path) -> None:
    """Names of methods stay in view while figures are scrolled, so one that is as wide as the screen would hide all."""
    style = (files("okng.report") / "templates" / "style.css").read_text("utf-8")
    name = "patchcore (backbone=wide_resnet50_2, coreset=0.01, neighbours=9, distance=euclidean)"
    cells = "<td>0.998<small>0.951–0.999</small></td>" * 9
    rows = "".join(f"<tr><th scope=row>{each}</th>{cells}</tr>" for each in (name, "knn"))
    for kind in ("sorted methods", "heatmaps"):
        content = f"<div class=scroll><table class='{kind}'><tbody>{rows}</tbody></table></div>"
        (tmp_path / "page.html").write_text(f"<!doctype html><style>{style}</style>{content}", "utf-8")
        page = browser.new_page(viewport={"width": 360, "height": 640})
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator("tbody th").first.bounding_box()["width"] < 0.7 * 360
        page.close()
