"""`okng.fit` from images to a calibrated inspector, and back from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.contract.conftest import pictures

import okng
from okng.detectors.cards import cards
from okng.errors import OkngError, OkngWarning
from okng.inspection.reading.images import UnreadableImage, fingerprint
from okng.planted import measure
from okng.report.review import write_review
from okng.training.fit import discard
from okng.training.progress import Narrator
from okng.training.review import Review

QUICK = {"weights": "none", "coreset": 0.1, "size": 64, "device": "cpu"}


@pytest.fixture(scope="module")
def parts() -> np.ndarray:
    return pictures(24, seed=1)


@pytest.fixture(scope="module")
def inspector(parts: np.ndarray) -> okng.Inspector:
    return okng.fit(parts, **QUICK, holdout=0.4, false_alarm_rate=0.1)


def test_a_split_holds_out_what_it_says(inspector: okng.Inspector) -> None:
    provenance = inspector.manifest["provenance"]
    assert (provenance["images"], provenance["learnt_from"], provenance["held_out"]) == (24, 14, 10)
    assert inspector.calibration.method == "split" and inspector.calibration.basis == "conformal"


def test_defects_are_ng_and_located(inspector: okng.Inspector) -> None:
    found = list(inspector.inspect(pictures(4, seed=9, defect=True)))
    assert all(i.verdict == "NG" and i.regions and i.p_value <= 0.1 for i in found)
    assert [i.index for i in found] == [0, 1, 2, 3]
    blue = pictures(4, seed=9, defect=True)[0]
    x, y = found[0].regions[0].peak
    top, left = (int(side.min()) for side in np.nonzero((blue[..., 2] > 200) & (blue[..., 0] < 60)))
    assert left - 8 <= x <= left + 22 and top - 8 <= y <= top + 18


def test_saved_and_loaded_it_says_the_same(inspector: okng.Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "parts.okng")
    loaded = okng.load(tmp_path / "parts.okng")
    images = pictures(3, seed=4)
    for a, b in zip(inspector.inspect(images), loaded.inspect(images), strict=True):
        assert (a.score, a.p_value, a.verdict, a.regions) == (b.score, b.p_value, b.verdict, b.regions)


def test_cross_fitted_images_are_all_learnt_and_all_judged(parts: np.ndarray) -> None:
    """With every patch in the memory what is learnt scores nothing; each image was judged by what had not learnt it."""
    few = okng.fit(parts[:7], **{**QUICK, "coreset": 1.0}, holdout=0)
    assert few.calibration.method == "cross" and len(few.calibration.scores) == 7
    assert few.score_samples(parts[:7]).max() < 0.1 * few.calibration.scores.min()
    assert few.manifest["provenance"]["learnt_from"] == 7
    assert "7 reach 12.5% at best, 19 would do" in few.calibration.promise()


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """A hundred images, from where a detector that trains is calibrated by a split."""
    return np.random.default_rng(0).integers(0, 255, (100, 32, 32, 3), np.uint8)


def test_where_nothing_is_trained_all_images_calibrate_what_learnt_nine_tenths(many: np.ndarray) -> None:
    """All of it is in the memory, so that of all images those of the first tenth alone score something."""
    inspector = okng.fit(many, **{**QUICK, "size": 32, "coreset": 1.0})
    assert inspector.calibration.method == "pooled" and len(inspector.calibration.scores) == 100
    assert inspector.manifest["provenance"]["learnt_from"] == 90
    unlearnt = np.flatnonzero(inspector.score_samples(many) > 0.1 * inspector.calibration.scores.min())
    digests = [fingerprint(image) for image in many[unlearnt]]
    assert len(digests) == 10 and set(digests) == set(inspector.manifest["unlearnt"])
    trained = okng.fit(many, "autoencoder", width=2, code=2, epochs=1, device="cpu")
    assert trained.calibration.method == "split" and len(trained.calibration.scores) == 20
    assert trained.manifest["provenance"]["learnt_from"] == 80


@pytest.mark.parametrize(("count", "holdout", "held"), [(100, None, 20), (12, None, 2), (12, 0.5, 6)])
def test_a_strict_promise_is_a_split(many: np.ndarray, count: int, holdout: float | None, held: int) -> None:
    strict = okng.fit(many[:count], **{**QUICK, "size": 32}, promise="strict", holdout=holdout, false_alarm_rate=0.4)
    assert strict.calibration.method == "split" and len(strict.calibration.scores) == held
    assert strict.manifest["provenance"]["learnt_from"] == count - held
    assert "at most 40% false alarms on average" in strict.calibration.promise() or held == 1


def test_checkpoints_stay_until_they_are_discarded_and_nothing_else_goes(parts: np.ndarray, tmp_path: Path) -> None:
    """Named like a pattern, beside a file that looks like a fold's. A finished fit is taken up as it ended."""
    path = tmp_path / "parts[1].ckpt"
    path.with_name("parts[1].ckpt.notes").write_text("mine")
    first = okng.fit(parts[:6], **QUICK, checkpoint=path)
    again = okng.fit(parts[:6], **QUICK, checkpoint=path, resume=True)
    np.testing.assert_array_equal(first.calibration.scores, again.calibration.scores)
    discard(path)
    assert [left.name for left in tmp_path.iterdir()] == ["parts[1].ckpt.notes"]


def test_a_new_fit_leaves_no_fold_of_an_old_one(parts: np.ndarray, tmp_path: Path) -> None:
    """Or what stopped it would later be gone on with."""
    for leftover in ("c", "c.1", ".c.0123abcd", ".c.1.0123abcd"):
        (tmp_path / leftover).write_text("of another fit")
    (tmp_path / ".c.notes").write_text("a person's")
    okng.fit(parts[:6], **{**QUICK, "holdout": 0.5}, checkpoint=tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.notes", "c"]


def test_the_same_seed_gives_the_same_inspector(parts: np.ndarray) -> None:
    one, two = (okng.fit(parts, **QUICK, holdout=0.4, seed=5) for _ in range(2))
    assert np.array_equal(one.calibration.scores, two.calibration.scores)
    assert not np.array_equal(one.calibration.scores, okng.fit(parts, **QUICK, holdout=0.4).calibration.scores)


def test_the_threshold_moves_without_fitting(inspector: okng.Inspector) -> None:
    strict, lax = inspector.at(0.2), inspector.with_threshold(1e9)
    assert strict.calibration.threshold < inspector.calibration.threshold < lax.calibration.threshold
    assert all(i.verdict == "OK" for i in lax.inspect(pictures(2, seed=9, defect=True)))


def test_aspect_ratios_are_kept_and_mixed_sizes_and_modes_work(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i, (height, width, mode) in enumerate([(40, 90, "RGB"), (90, 40, "L"), (64, 64, "RGBA"), (40, 90, "P")]):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).convert(mode).save(tmp_path / f"{i}.png")
    fitted = okng.fit(tmp_path, "patchcore", **QUICK)
    shapes = {i.map.shape for i in fitted.inspect(tmp_path) if i.map is not None}
    assert shapes == {(6, 12), (12, 6), (8, 8)}


def test_sizes(parts: np.ndarray) -> None:
    digits = parts[:12, :28, :28, 0]
    grey = okng.fit(digits, "autoencoder", holdout=0.3, epochs=1, code=4, width=8, device="cpu")
    assert grey.preprocess.mode == "L" and grey.preprocess.size == (28, 28)  # never enlarged without need
    assert next(grey.inspect(digits)).map.shape == (28, 28)
    for known in ("image_size", "channels"):
        with pytest.raises(OkngError, match=f"{known} follows from the images"):
            okng.fit(digits, "autoencoder", **{known: 3})
    wide = okng.fit(parts, **{**QUICK, "size": (32, 96)}, holdout=0.3)
    assert next(wide.inspect(parts)).map.shape == (4, 12)


def test_unreadable_images_are_skipped_and_counted_or_stop_it(tmp_path: Path, parts: np.ndarray) -> None:
    for i in range(6):
        Image.fromarray(parts[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:900])
    fitted = okng.fit(tmp_path, **QUICK)
    assert fitted.manifest["provenance"]["skipped"] == 2 and fitted.manifest["provenance"]["images"] == 6
    with pytest.raises(UnreadableImage):
        okng.fit(tmp_path, **QUICK, strict=True)
    with pytest.raises(UnreadableImage):
        list(fitted.inspect(tmp_path))
    bad: list[UnreadableImage] = []
    assert len(list(fitted.inspect(tmp_path, unreadable=bad.append))) == 6 and len(bad) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"false_alarm_rate": 1.5}, "false-alarm rate"),
        ({"holdout": -0.1}, "holdout"),
        ({"promise": "certain"}, "promise is auto or strict, not 'certain'"),
        ({"promise": "strict", "holdout": 0}, "leave out holdout, or promise"),
        ({"size": 4}, "size is one number"),
        ({"size": (32,)}, "size is one number"),
        ({"size": ()}, "size is one number"),
        ({"detector": "patchcor"}, "did you mean patchcore"),
        ({"corset": 0.1}, "did you mean coreset"),
        ({"coreset": "many"}, "coreset takes a number"),
    ],
)
def test_mistakes(parts: np.ndarray, arguments: dict, message: str) -> None:
    with pytest.raises(OkngError, match=message):
        okng.fit(parts, **{**QUICK, **arguments})


def test_one_image_is_not_enough(parts: np.ndarray) -> None:
    with pytest.raises(OkngError, match="at least 2"):
        okng.fit(parts[:1], **QUICK)
    with pytest.raises(OkngError, match="copies of one image; bring at least 2"):
        okng.fit(np.stack([parts[0]] * 5), **QUICK)


def test_numbers_of_numpy_are_stored_as_numbers(parts: np.ndarray, tmp_path: Path) -> None:
    """They once ended the fit, all done, at the save."""
    numbers = {"seed": np.int64(3), "false_alarm_rate": np.float32(0.125), "holdout": np.float64(0.4)}
    sizes = {
        "size": np.int32(64),
        "coreset": np.float32(0.25),
        "strides": np.array([8, 16]),
        "coreset_limit": np.int8(4),
    }
    okng.fit(parts, **{**QUICK, **numbers, **sizes}).save(tmp_path / "parts.okng")
    loaded = okng.load(tmp_path / "parts.okng")
    assert loaded.manifest["provenance"]["seed"] == 3 and loaded.calibration.false_alarm_rate == 0.125
    arguments = loaded.manifest["detector"]["arguments"]
    assert (arguments["coreset"], tuple(arguments["strides"]), arguments["coreset_limit"]) == (0.25, (8, 16), 4)
    loaded.at(np.float32(0.25)).save(tmp_path / "other.okng")


def test_what_can_not_be_stored_is_refused_before_any_work(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"  # read only after the arguments
    for arguments, words in [
        ({"seed": 1.5}, "a seed is from 0"),
        ({"seed": "3"}, "a seed is from 0"),
        ({"holdout": float("nan")}, "holdout is a finite number"),
        ({"false_alarm_rate": "5%"}, "a false-alarm rate lies between 0 and 1, not '5%'"),
        ({"size": {"h": 3}}, "size is a number, a text or several"),
    ]:
        with pytest.raises(OkngError, match=words):
            okng.fit(nowhere, **{**QUICK, **arguments})
    with pytest.raises(OkngError, match="patchcore: coreset is a finite number"):
        okng.create("patchcore", coreset=float("nan"))


@pytest.mark.parametrize("holdout", [0, 0.4])
def test_a_stray_image_is_named_and_left_out_only_if_asked(
    parts: np.ndarray, holdout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black image among the held-out ones sets a threshold that all NG images pass."""
    monkeypatch.setattr(measure, "PLANTS", (1, 1))
    stray = parts.copy()
    order = np.random.default_rng(0).permutation(len(parts))
    stray[order[0]] = 0  # held out, in a split too
    told: list[str] = []
    tell = Narrator(quiet=True)
    tell.say = told.append  # type: ignore[method-assign]
    asked = {**QUICK, "holdout": holdout, "false_alarm_rate": 0.1, "tell": tell}
    review = Review(plant=True)
    kept, dropped = okng.fit(stray, **asked), okng.fit(stray, **asked, drop_outliers=True, review=review)
    odd = pictures(4, seed=9, defect=True)
    for inspector in (kept, dropped):
        (found,) = inspector.manifest["provenance"]["stand_apart"]
        assert found["image"] == f"image {order[0]}" and found["score"] > 4
    assert any(f"image {order[0]} scores" in line and "is it OK?" in line for line in told)
    assert any("--drop-outliers" in line for line in told) and any("as asked" in line for line in told)
    assert kept.calibration.scores.max() > 3 * dropped.calibration.scores.max()
    assert len(kept.calibration.scores) == len(dropped.calibration.scores) + 1
    assert all(i.is_ng for i in dropped.inspect(odd))
    assert "1 image that stood apart was dropped" in dropped.calibration.promise()
    assert "dropped" not in kept.calibration.promise()
    learnt = [inspector.manifest["provenance"]["learnt_from"] for inspector in (kept, dropped)]
    assert learnt == ([14, 14] if holdout else [24, 23])  # what is not OK is not learnt either
    planted = review.sensitivity
    assert planted is not None and planted.images == planted.calibrating + 1 == (10 if holdout else 24)
    new = [stray[order[0]], *pictures(5, seed=5)]
    assert okng.sensitivity(dropped, new, kinds="spot", sizes=[10]).calibrating == 0  # it has set nothing


def test_a_stray_image_that_the_pooled_detector_has_learnt_is_taken_out_of_it(
    parts: np.ndarray, tmp_path: Path
) -> None:
    """The first fold's detector had learnt it: another is fitted without, also where it goes on from a checkpoint."""
    stray = parts.copy()
    black = np.random.default_rng(0).permutation(len(parts))[-1]
    stray[black] = 0
    asked = {**QUICK, "coreset": 1.0, "false_alarm_rate": 0.1, "drop_outliers": True}
    kept = okng.fit(stray, **{**asked, "drop_outliers": False})
    dropped = okng.fit(stray, **asked, checkpoint=tmp_path / "c")
    again = okng.fit(stray, **asked, checkpoint=tmp_path / "c", resume=True)
    assert [model.manifest["provenance"]["learnt_from"] for model in (kept, dropped)] == [22, 21]
    assert len(dropped.manifest["unlearnt"]) == 3
    assert kept.score_samples(stray[[black]])[0] < 0.1 < dropped.score_samples(stray[[black]])[0]
    np.testing.assert_array_equal(dropped.score_samples(parts), again.score_samples(parts))


@pytest.mark.parametrize("holdout", [0, 0.4])
def test_a_review_shows_the_oddest_images_as_judged_by_what_has_not_learnt_them(
    parts: np.ndarray, holdout: float, tmp_path: Path
) -> None:
    """Among the learnt images of a split the NG ones are found too, though the detector's own score hides them."""
    mixed = parts.copy()
    order = np.random.default_rng(0).permutation(len(parts))
    mixed[order[20]] = pictures(1, seed=9, defect=True)[0]  # learnt in a split
    review = Review(limit=5)
    inspector = okng.fit(mixed, **QUICK, holdout=holdout, review=review)
    shown = review.learnt if holdout else review.held_out
    inspections = shown.ranked()
    assert len(inspections) == 5 and inspections[0][2] == f"image {order[20]}" and inspections[0][0].verdict == "OK"
    assert [found.score for found, _, _ in inspections] == sorted((f.score for f, _, _ in inspections), reverse=True)
    counts = len(review.held_out.scores), len(review.learnt.scores)
    assert counts == ((10, 14) if holdout else (24, 0))
    html = write_review(tmp_path / "training.html", "Training", inspector, review).read_text()
    assert html.count("<article") == (10 if holdout else 5) and f"image {order[20]}" in html
    assert ("second detector" in html) == bool(holdout) and ("learnt others" in html) == (not holdout)


@pytest.mark.parametrize("holdout", [0, 0.4])
def test_a_review_plants_into_images_that_the_detector_judging_them_has_not_learnt(
    parts: np.ndarray, holdout: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final detector of a cross-fit would find far more, as it has learnt all of them."""
    monkeypatch.setattr(measure, "PLANTS", (3, 3))
    review = Review(limit=5, plant=True)
    inspector = okng.fit(parts, **QUICK, holdout=holdout, review=review)
    found = review.sensitivity
    assert found is not None and found.images == found.calibrating == (10 if holdout else 24)
    assert found.threshold == inspector.calibration.threshold and len(found.clean) == found.images
    # The very scores that calibrate, but for what other neighbours in a batch change.
    np.testing.assert_allclose(np.sort(found.clean), inspector.calibration.scores, rtol=1e-4)
    html = write_review(tmp_path / "training.html", "Training", inspector, review).read_text()
    assert html.count('<figure class="power">') == 1 + len(found.curves) and "no real" in html


def test_a_review_says_why_nothing_could_be_planted(parts: np.ndarray, tmp_path: Path) -> None:
    review = Review(plant=True)
    inspector = okng.fit(parts[:4], **QUICK, review=review)
    assert review.sensitivity is None and "4 readable images are too few" in review.unplanted
    assert "Not measured: 4 readable" in write_review(tmp_path / "t.html", "Training", inspector, review).read_text()


def test_as_a_scikit_learn_estimator(parts: np.ndarray) -> None:
    from sklearn.base import clone

    estimator = clone(okng.ImageOutlierDetector(contamination=0.2, size=64, arguments={"coreset": 0.3}))
    estimator.fit(parts)
    odd = pictures(2, seed=9, defect=True)
    assert (estimator.score_samples(odd) < estimator.score_samples(parts[:12]).min()).all()
    assert estimator.predict(odd).tolist() == [-1, -1]


TINY = {"width": 2, "code": 2, "epochs": 1, "batch_size": 8}


@pytest.mark.parametrize(("side", "code"), [(28, 2), (64, 3)])
def test_a_budget_goes_by_the_size_of_the_images(side: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", TINY)
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-large", {**TINY, "code": 3, "size": 32})
    pixels = np.random.default_rng(0).integers(0, 255, (12, side, side), np.uint8)
    given = {"detector": "autoencoder", "device": "cpu", "holdout": 0.3, "budget": "cpu"}
    inspector = okng.fit(pixels, **given)
    arguments = inspector.manifest["detector"]["arguments"]
    assert (arguments["code"], arguments["width"], arguments["epochs"]) == (code, 2, 1)
    assert arguments["image_size"] == (min(side, 32),) * 2 and inspector.manifest["provenance"]["budget"] == "cpu"
    mine = okng.fit(pixels, **given, code=5, size=16).manifest["detector"]["arguments"]
    assert (mine["code"], mine["width"], mine["image_size"]) == (5, 2, (16, 16))


def test_the_paper_budget_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch, parts: np.ndarray) -> None:
    monkeypatch.setitem(cards()["autoencoder"].arguments, "paper", {**TINY, "size": (20, 24), "training_steps": 3})
    said: list[str] = []
    tell = Narrator(quiet=True)
    monkeypatch.setattr(tell, "say", said.append)
    inspector = okng.fit(parts, "autoencoder", budget="paper", holdout=0.3, device="cpu", tell=tell)
    assert inspector.preprocess.size == (20, 24)
    (told,) = (line for line in said if line.startswith("budget paper: "))
    assert "training_steps=3" in told and "size=20x24" in told
    assert any(line.startswith("not as in the paper: ") for line in said)


def test_budgets_that_there_are_not(parts: np.ndarray) -> None:
    with pytest.raises(OkngError, match="a budget is cpu or paper, not 'gpu'"):
        okng.fit(parts, "autoencoder", budget="gpu")
    with pytest.raises(OkngError, match=r"budget cpu on such images; name them .*; okng list vgg11 "):
        okng.fit(parts, "vgg11", budget="cpu", ng=parts[:2])


def test_the_model_remembers_what_its_images_were_like(parts: np.ndarray, tmp_path: Path) -> None:
    for i, image in enumerate(parts[:4]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    few = okng.fit(tmp_path, **QUICK)
    height, width = parts.shape[1:3]
    learnt = few.manifest["learnt_images"]
    assert (learnt["height"], learnt["width"], learnt["format"]) == ([height] * 2, [width] * 2, ["PNG"])
    assert (learnt["grey"], learnt["white"]) == ([False], [255])
    with pytest.warns(OkngWarning, match=f"{3 * height}x{3 * width} against {height}x{width}"):
        list(few.inspect(parts[:2].repeat(3, 1).repeat(3, 2)))


def test_shrinking_is_said_before_it_costs_a_defect(parts: np.ndarray) -> None:
    large = parts[:3].repeat(4, 1).repeat(4, 2)
    with pytest.warns(OkngWarning, match=r"images shrink .*-fold, .*: a defect of 8 px becomes"):
        okng.fit(large, **{**QUICK, "size": 32})


def test_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(OkngError, match="okk does not exist; give images or folders of images"):
        okng.fit(tmp_path / "okk", **QUICK)


def test_every_page_is_learnt(parts: np.ndarray, tmp_path: Path) -> None:
    pages = [Image.fromarray(image) for image in parts[:5]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    few = okng.fit(tmp_path, **QUICK)
    assert few.manifest["provenance"]["images"] == len(set(few.manifest["seen"])) == 5


def test_a_defect_in_the_upper_levels_of_12_bit_colour_is_ng(tmp_path: Path) -> None:
    """16-bit colour was read by its high bytes alone: sixteen levels, in which this stain is not to be seen."""
    noise = np.random.default_rng(0)
    deep = noise.integers(0x0F08, 0x0F28, (13, 64, 64, 3)).astype(np.uint16)
    deep[12, 16:48, 16:48] = 0x0FBC  # 4028 of 4095, where the others have 3848 to 3879
    for i, pixels in enumerate(deep):
        tifffile.imwrite(tmp_path / f"{i:02}.tif", pixels, photometric="rgb")
    files = sorted(tmp_path.iterdir())
    how = {"weights": "none", "dimensions": 20, "size": 64, "device": "cpu"}
    fitted = okng.fit(files[:10], "padim", **how, holdout=0.4, false_alarm_rate=0.2)
    assert fitted.preprocess.white == 4095
    *ok, ng = fitted.inspect(files[10:])
    assert ng.verdict == "NG" and ng.score > 5 * max(each.score for each in ok)
