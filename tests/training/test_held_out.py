"""No judged image is among those its detector has learnt, nor a copy of it, nor one of its group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.conftest import pictures
from tests.training.images.test_copies import again, scenes
from torch import Tensor

import okng
from okng.benchmark.rows import read_rows
from okng.detectors.base import Detector, Scores
from okng.detectors.cards import cards
from okng.detectors.catalogue import detector_class, parameters
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.rules import Rules
from okng.training import fit as fitting
from okng.training.held_out import (
    CHEAP_FOLDS,
    FEW,
    FOLDS,
    POOLED_UNTIL,
    SPLIT_FROM,
    Judged,
    divided,
    judge,
    kept_together,
)
from okng.training.images.copies import labelled
from okng.training.images.data import FeatureStore, TrainingImages, within
from okng.training.progress import Narrator

STREAMING = Path(__file__).parents[2] / "results" / "streaming.csv"
QUICK: dict[str, Any] = {"weights": "none", "coreset": 0.1, "size": 64, "device": "cpu"}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[str]]]:
    """For each judgement of the fits within a test: the digests of what was learnt before it, and of what it judges."""
    last: list[str] = []
    pairs: list[tuple[list[str], list[str]]] = []
    run, judge, get = fitting.run_phases, fitting.judge, FeatureStore.get
    fetched: set[int] = set()

    def fetches(store: FeatureStore, keys: Any) -> Any:
        fetched.update(key for key in keys if isinstance(key, int))  # what backbones remember goes by digests
        return get(store, keys)

    def learns(detector: Any, images: Any, **settings: Any) -> None:
        last[:] = images.fingerprints()
        fetched.clear()
        run(detector, images, **settings)
        if settings["shared"] is not None:  # of the shared features too it took its own images' alone
            assert fetched == set(images.places)

    def judges(detector: Any, images: Any, index: np.ndarray, *more: Any) -> Judged:
        pairs.append((list(last), images.subset(index).fingerprints()))
        return judge(detector, images, index, *more)

    monkeypatch.setattr(FeatureStore, "get", fetches)
    monkeypatch.setattr(fitting, "run_phases", learns)
    monkeypatch.setattr(fitting, "judge", judges)
    return pairs


@pytest.mark.parametrize("holdout", [0, 0.3])
def test_no_judged_image_has_been_learnt_nor_a_copy_of_it(seen: list, holdout: float) -> None:
    images = pictures(12, seed=1)
    inspector = okng.fit(np.concatenate([images] * 3), **QUICK, holdout=holdout)
    assert len(seen) == (1 if holdout else CHEAP_FOLDS)
    for learnt, judged in seen:
        assert judged and not set(learnt) & set(judged) and len(set(learnt)) == len(learnt)
        assert len(learnt) + len(judged) == 12
    assert (
        sum(len(judged) for _, judged in seen) == inspector.manifest["provenance"]["held_out"] == (4 if holdout else 12)
    )
    assert inspector.manifest["provenance"]["copies"] == 24
    assert len(inspector.calibration.scores) == (4 if holdout else 12)


def test_a_method_that_gathers_all_says_that_memory_does_not_bound_it(capsys: pytest.CaptureFixture[str]) -> None:
    okng.fit(pictures(4, seed=1), "knn", size=16, device="cpu", max_memory=2, tell=Narrator())
    assert "what knn gathers of the images is not bounded" in capsys.readouterr().err
    okng.fit(pictures(4, seed=1), "patchcore", **QUICK, max_memory=2, tell=Narrator())
    assert "not bounded" not in capsys.readouterr().err
    kinds = {row["detector"]: row["holds"] for row in read_rows(STREAMING)}
    unbounded = {each for each in kinds if detector_class(each).collects_only and "memory" not in parameters(each)}
    bounded = {name for name, card in cards().items() if card.bounded}
    assert unbounded - bounded == {each for each, holds in kinds.items() if holds == "all"}
    assert {kinds[each] for each in bounded} == {"bounded"}


def test_how_much_memory_a_fit_may_take_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room images are read again, and what is made of them lies on disk."""
    with pytest.raises(OkngError, match=r"1\.7 or more, not 1\.5"):
        okng.fit(pictures(4, seed=1), **QUICK, max_memory=1.5)
    assert within(2) == (200_000_000, 0.4)
    plain = okng.fit(pictures(6, seed=1), **QUICK)
    asked: list[float] = []
    monkeypatch.setattr(fitting, "within", lambda gigabytes: asked.append(gigabytes) or (0, 0.5))
    tight = okng.fit(pictures(6, seed=1), **QUICK, max_memory=2)
    assert asked == [2] and tight.manifest["detector"]["arguments"]["memory"] == 0.5
    assert np.array_equal(tight.calibration.scores, plain.calibration.scores)
    for name, tensor in plain.engine.detector.state_dict().items():
        assert torch.equal(tensor, tight.engine.detector.state_dict()[name]), name


@pytest.mark.parametrize("holdout", [0, 0.4])
def test_no_frame_of_a_burst_is_judged_by_what_has_learnt_another(seen: list, holdout: float) -> None:
    rng = np.random.default_rng(0)
    frames = [again(image, "noise", rng)[..., 0] for image in scenes(8, side=64) for _ in range(3)]
    inspector = okng.fit(frames, **QUICK, holdout=holdout)
    burst = {
        digest: i // 3 for i, digest in enumerate(fitting.TrainingImages(frames, inspector.preprocess).fingerprints())
    }
    for learnt, judged in seen:
        assert not {burst[d] for d in learnt} & {burst[d] for d in judged}
    provenance = inspector.manifest["provenance"]
    assert (provenance["near_copies"], provenance["groups"]) == (24, 8)
    assert len(inspector.calibration.scores) == (3 if holdout else 8)  # one of each burst


def test_products_that_pass_for_bursts_are_said_to_be_few() -> None:
    """Four products under a fixed camera, told apart by noise alone, are four groups: a model each is the way out."""
    rng = np.random.default_rng(0)
    products = [np.stack([again(scene, "noise", rng)[..., 0] for _ in range(8)]) for scene in scenes(4, side=64)]

    def said(pixels: np.ndarray, all_apart: bool = False) -> tuple[int, str]:
        told: list[str] = []
        tell = Narrator(quiet=True)
        tell.say = told.append  # type: ignore[method-assign]
        images = list(pixels)
        label = labelled(images, range(len(images))) if all_apart else None
        groups, _ = kept_together(TrainingImages(images, Preprocess("L", 64)), label, tell)
        return int(groups.max()) + 1, " ".join(told)

    together, words = said(np.concatenate(products))
    assert together == 4 and "only 4 are different" in words and "give each its name" in words
    assert words.startswith("32 images are near copies, such as image ") and "count as 4 in the calibration" in words
    for product in products:
        assert said(product) == (8, "")
    apart, words = said(np.concatenate(products), all_apart=True)  # a person knows better
    assert apart == 32 and "some are of different groups, and are told apart as asked" in words


def test_groups_are_kept_together_and_the_promise_is_about_groups(seen: list) -> None:
    images = pictures(24, seed=1)
    inspector = okng.fit(images, **QUICK, group_by=[i % 6 for i in range(24)], holdout=0.5, false_alarm_rate=0.25)
    lot = {
        digest: i % 6
        for i, digest in enumerate(fitting.TrainingImages(list(images), inspector.preprocess).fingerprints())
    }
    (learnt, judged), *_ = seen
    assert not {lot[d] for d in learnt} & {lot[d] for d in judged} and len(judged) == 12
    assert len(inspector.calibration.scores) == 3 and inspector.calibration.unit == "group"
    promise = inspector.calibration.promise()
    assert "new groups like the 3 held out (conformal, every group counting the same)" in promise
    with pytest.raises(OkngError, match="all images are of one group"):
        okng.fit(images, **QUICK, group_by=["A"] * 24)


@pytest.mark.parametrize("holdout", [None, 0.0, 0.3])
def test_groups_are_never_parted_and_every_fold_is_another(holdout: float | None) -> None:
    groups = np.array([0, 1, 0, 2, 3, 3, 3, 4, 5, 6, 6, 7])
    method, folds = divided(groups, holdout, seed=1)
    assert (method, len(folds)) == (("split", 1) if holdout else ("cross", FOLDS))
    for held in folds:
        assert not set(groups[held]) & set(groups[np.setdiff1d(np.arange(12), held)])
    assert len(set(np.concatenate(folds))) == len(np.concatenate(folds)) == (12 if not holdout else len(folds[0]))
    if holdout:
        assert len(set(groups[folds[0]])) == 2  # a share of the groups


def test_without_copies_images_are_held_out_as_ever() -> None:
    """By seed, so that figures measured before stand."""
    order = np.random.default_rng(7).permutation(150)
    assert divided(np.arange(150), None, 7)[1][0].tolist() == order[:30].tolist()
    folds = divided(np.arange(30), None, 7)[1]
    expected = np.array_split(np.random.default_rng(7).permutation(30), FOLDS)
    assert all(a.tolist() == b.tolist() for a, b in zip(folds, expected, strict=True))


class Bright(Detector):
    """Scores an image by the mean of its map, which is the image itself."""

    def forward(self, images: Tensor) -> Scores:
        maps = images.mean(1)  # (B, H, W)
        return Scores(maps.mean((1, 2)), maps)


def test_zones_of_rules_count_where_held_out_images_are_judged() -> None:
    """Their scores are those of the maps within, as they will be on the line."""
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    pixels[0, :, :8], pixels[1, :, 24:] = 255, 51
    images = TrainingImages(list(pixels), Preprocess("RGB", (32, 32)))
    right = {"name": "right", "kind": "inspect", "points": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}
    for rules, expected in ((Rules.of(None), [0.25, 0.05]), (Rules.of({"zones": [right]}), [0, 0.2])):
        judged = judge(Bright(), images, np.arange(2), "judged", Narrator(quiet=True), rules=rules)
        np.testing.assert_allclose(judged.scores, expected, atol=1e-6)


def test_what_folds_said_is_put_together() -> None:
    """With the peaks of their maps, by which regions are drawn, where there are some."""
    parts = [Judged(np.array(i), np.array(i) / 10, np.array(i) + 5.0) for i in ([3, 1], [0, 2])]
    whole = Judged.together(parts)
    assert whole.peaks is not None and (whole.index.tolist(), whole.peaks.tolist()) == ([3, 1, 0, 2], [8, 6, 5, 7])
    assert whole.scores.tolist() == [0.3, 0.1, 0.0, 0.2]
    assert Judged.together([Judged(part.index, part.scores, None) for part in parts]).peaks is None


@pytest.mark.parametrize(("holdout", "expected"), [(0.2, 1 / 11), (None, 5 / 51), (0.0, None)])
def test_as_many_new_ok_images_are_ng_as_was_asked(holdout: float | None, expected: float | None) -> None:
    """On average over draws, of a split and of pooled folds; fewer where the model learns more than those of its folds.

    Of 50 images a split holds out 10, whose largest score promises 1 of 11; pooled, the fifth of 50 scores stands for
    5 of 51.
    """
    rng, rate, alarms = np.random.default_rng(0), 0.1, []

    def scores(learnt: np.ndarray, judged: np.ndarray) -> np.ndarray:
        """Distance to the nearest that was learnt: it falls as more is learnt, as a memory's does."""
        return np.linalg.norm(judged[:, None] - learnt, axis=2).min(1)

    for seed in range(1000):
        points = rng.normal(size=(60, 3))
        method, folds = divided(np.arange(50), holdout, seed, cheap=True)
        held = np.concatenate([scores(np.delete(points[:50], fold, 0), points[fold]) for fold in folds])
        learnt = points[:50] if method == "cross" else np.delete(points[:50], folds[0], 0)
        threshold = Calibration.fit(held, None, method, rate).threshold
        alarms.append((scores(learnt, points[50:]) > threshold).mean())
    error = np.std(alarms) / np.sqrt(len(alarms))
    if expected is None:
        assert 0.06 < np.mean(alarms) < 5 / 51 - error
    else:
        assert abs(np.mean(alarms) - expected) < 3 * error + 0.003


def test_how_many_are_held_out_goes_by_their_number_and_by_what_a_fit_costs() -> None:
    for cheap, until, before in ((False, SPLIT_FROM, ("cross", FOLDS)), (True, POOLED_UNTIL, ("pooled", CHEAP_FOLDS))):
        for count, expected in ((until - 1, before), (until, ("split", 1))):
            method, folds = divided(np.arange(count), None, 0, cheap)
            assert (method, len(folds)) == expected
    for count, holdout in ((30, 0.0), (FEW - 1, None)):
        method, folds = divided(np.arange(count), holdout, 0, cheap=True)
        assert (method, len(folds)) == ("cross", CHEAP_FOLDS)


@pytest.mark.parametrize(("count", "holdout", "held"), [(5, 0.2, 1), (9, 0.01, 1), (2, 0.9, 1), (10, 0.34, 3)])
def test_of_few_groups_one_at_least_is_held_out_and_one_is_learnt(count: int, holdout: float, held: int) -> None:
    method, (fold,) = divided(np.arange(count), holdout, 0)
    assert (method, len(fold)) == ("split", held)


def test_of_pooled_folds_the_smallest_is_never_learnt() -> None:
    groups = np.repeat(np.arange(20), [41] + [1] * 19)
    method, folds = divided(groups, None, 0, cheap=True)
    assert method == "pooled" and len(folds[0]) == 2 and len(folds[-1]) == 42
    assert sorted(np.concatenate(folds)) == list(range(60))


def test_one_image_of_each_group_is_drawn_at_random() -> None:
    groups = np.array([0, 0, 0, 1, 2, 2, 2])
    judged = Judged(np.array([0, 1, 2, 4, 5, 6]), np.arange(6.0), np.arange(6.0))
    drawn = [judged.one_of_each(groups, seed) for seed in range(300)]
    assert all(groups[d.index].tolist() == [0, 2] and np.array_equal(d.scores, d.peaks) for d in drawn)
    counts = np.bincount([d.index[0] for d in drawn], minlength=3)
    assert counts.min() > 60 and counts.sum() == 300


def test_the_promise_per_group_holds_where_one_by_image_breaks() -> None:
    """Lots differ more than the images in them: a large one and 19 small ones, a new one each time."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), [143] + [3] * 19)
    by_group, by_image = [], []
    for seed in range(1500):
        scores = rng.normal(size=20)[groups] + 0.1 * rng.normal(size=200)
        new = rng.normal() + 0.1 * rng.normal(size=10)
        judged = Judged(np.arange(200), scores, None)
        one_each = Calibration.fit(judged.one_of_each(groups, seed).scores, None, "split", 0.05, "group")
        by_group.append((new > one_each.threshold).mean())
        by_image.append((new > Calibration.fit(scores, None, "split", 0.05).threshold).mean())
    error = np.std(by_group) / np.sqrt(1500)
    assert np.mean(by_group) <= 0.05 + 3 * error < np.mean(by_image)


def test_a_calibration_of_parts_is_that_of_all_whatever_their_order() -> None:
    """To the last digit: so held-out images may be judged on any machines."""
    draws = np.random.default_rng(4)
    whole = Judged(np.arange(90), draws.gamma(2, 1, 90), draws.gamma(2, 2, 90))
    alone = Calibration.fit(whole.scores, whole.peaks, "split", 0.05)
    parts = [whole.at(places) for places in np.split(draws.permutation(90), [7, 50])]
    for some in (parts, parts[::-1]):
        both = Judged.together(some)
        merged = Calibration.fit(both.scores, both.peaks, "split", 0.05)
        assert merged.to_json() == alone.to_json() and merged.threshold == alone.threshold
        assert np.array_equal(merged.scores, alone.scores)
