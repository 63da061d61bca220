"""Several products in one model: each is held out, calibrated, stored and judged by itself."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.detectors.scenes import crosses, rings

import okng
from okng.datasets import open_dataset
from okng.errors import OkngError
from okng.exporting import export
from okng.inspection.inspector import each_placed
from okng.inspection.model_file import write_model
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.serve.models import checked
from okng.training.held_out import divided
from okng.training.loop import checkpoint
from okng.training.products import by_product, say_who_decides
from okng.training.progress import Narrator
from okng.training.review import Review


def grainy(count: int, seed: int) -> np.ndarray:
    """Crosses under a noisy camera: their scores are higher than those of rings."""
    pixels = crosses(count, seed)
    return (pixels + np.random.default_rng(seed).normal(0, 80, pixels.shape)).clip(0, 255).astype(np.uint8)


MADE: dict[str, Callable[[int, int], np.ndarray]] = {"ring": rings, "cross": grainy}
ASKED: dict[str, Any] = {"detector": "knn", "holdout": 0.5, "false_alarm_rate": 0.1, "device": "cpu"}


@pytest.fixture(scope="module")
def both() -> okng.Inspector:
    return okng.fit({name: made(160, 1) for name, made in MADE.items()}, **ASKED)


def test_what_is_ok_of_one_is_ng_of_the_other(both: okng.Inspector) -> None:
    """Learnt alone. Learnt together both pass, each at the rate that was asked, which one threshold for both misses."""
    scores = [calibration.scores for calibration in both.calibrations.values()]
    assert both.products == ("ring", "cross") and min(map(len, scores)) > 70
    shared = Calibration.fit(np.concatenate(scores), None, "split", 0.1)
    alarms, by_shared = {}, {}
    for name, made in MADE.items():
        (other,) = MADE.keys() - {name}
        alone = okng.fit(made(80, 1), **ASKED)
        assert np.mean([found.is_ng for found in alone.inspect(MADE[other](40, 2))]) > 0.9
        found = list(both.of(name).inspect(made(400, 3)))
        assert {inspection.product for inspection in found} == {name}
        alarms[name] = np.mean([inspection.is_ng for inspection in found])
        by_shared[name] = np.mean([inspection.score > shared.threshold for inspection in found])
        assert both.of(name).promise().startswith("at most 10% false alarms on average")
    assert all(rate < 0.2 for rate in alarms.values()), alarms
    assert by_shared["ring"] < 0.02 and by_shared["cross"] > 0.15, by_shared


def test_every_fold_holds_out_each_product() -> None:
    groups = np.array([*range(30), *range(30, 55), *range(55, 60), 55, 56])  # of the third two groups have two images
    products = np.array([0] * 30 + [1] * 25 + [2] * 7)
    method, folds = divided(groups, None, 3, cheap=True, products=products)
    assert method == "cross" and sorted(np.concatenate(folds)) == list(range(62))  # by the third, of five groups
    assert all({0, 1} <= set(products[fold]) for fold in folds) and len(folds) == 10
    assert sum(2 in products[fold] for fold in folds) == 5
    for fold in folds:
        assert not set(groups[fold]) & set(np.delete(groups, fold))
    method, folds = divided(groups[:55], None, 3, cheap=True, products=products[:55])
    sizes = [[int((products[fold] == product).sum()) for fold in folds] for product in (0, 1)]
    assert method == "pooled" and sizes == [[3] * 10, [2] * 5 + [3] * 5]  # the smallest first, of each
    method, (held,) = divided(groups[:55], 0.2, 3, products=products[:55])
    assert method == "split" and np.bincount(products[held]).tolist() == [6, 5]


@pytest.mark.parametrize(("holdout", "cheap"), [(0.2, False), (0.0, False), (None, True)])
def test_what_two_products_share_lies_in_one_fold(holdout: float | None, cheap: bool) -> None:
    """Each product has its share held out all the same, and the one with all its groups in another one, too."""
    groups = np.array([*range(40), *range(30, 60), *range(20, 45)])
    products = np.repeat([0, 1, 2], [40, 30, 25])
    for seed in range(20):
        method, folds = divided(groups, holdout, seed, cheap, products)
        held = np.concatenate(folds)
        assert len(set(held)) == len(held) and (method == "split" or len(held) == len(groups))
        for fold in folds:
            assert not set(groups[fold]) & set(np.delete(groups, fold))
            sizes = np.bincount(products[fold], minlength=3)
            few, many = ([5, 4, 4], [12, 11, 9]) if holdout else ([2, 1, 1], [10, 8, 7])
            assert (sizes >= few).all() and (sizes <= many).all(), sizes
    products = np.repeat([0, 1, 2], 2)
    with pytest.raises(OkngError, match="c: its images are near copies of other products' images"):
        for seed in range(20):  # c has a group of a and one of b, which may lie in one fold
            divided(np.array([0, 1, 2, 3, 0, 2]), 0.0, seed, products=products, names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("counts", "cheap", "holdout", "words"),
    [
        ((150, 40), False, None, "nut has only 40 different images.*screw with its 150 too.*takes 6 fits.*with 100 of"),
        ((40, 5), True, None, "nut has only 5 different images.*fewer NG than the asked rate.*with 20 of each"),
        ((30, 1200), True, None, "screw has only 30 different images.*takes 10 fits.*with 1000 of each"),
        ((150, 40), False, 0.2, None),
        ((150, 120), False, None, None),
    ],
)
def test_it_is_said_which_product_decides_how_all_are_held_out(
    counts: tuple[int, int], cheap: bool, holdout: float | None, words: str | None
) -> None:
    said: list[str] = []
    tell = Narrator(quiet=True)
    tell.say = said.append  # type: ignore[method-assign]
    products = np.repeat([0, 1], counts)
    groups = np.arange(sum(counts))
    say_who_decides(groups, products, ["screw", "nut"], holdout, cheap, tell)
    assert (len(said) == 1 and re.search(words, said[0])) if words else not said, said
    if words and "fits" in words:
        method, folds = divided(groups, holdout, 0, cheap, products)
        assert f"takes {len(folds) + (method == 'cross')} fits" in said[0]


def frames(parts: np.ndarray, seed: int) -> np.ndarray:
    """A noisy frame of each of the `parts` (n, 32, 32)."""
    return (parts + np.random.default_rng(seed).normal(0, 2, parts.shape)).clip(0, 255).astype(np.uint8)


def test_near_copies_in_two_products_keep_the_promise() -> None:
    """A frame of each part in both: a memory that knew a part by the other product would find it too little odd."""
    cells = np.random.default_rng(0).normal(128, 30, (200, 8, 8))
    parts = np.kron(cells, np.ones((1, 4, 4)))  # (200, 32, 32)
    said: list[str] = []
    tell = Narrator(quiet=True)
    tell.say = said.append  # type: ignore[method-assign]
    products = {"top": frames(parts[:60], 1), "bottom": frames(parts[:60], 2)}
    inspector = okng.fit(products, "knn", neighbours=1, size=32, device="cpu", tell=tell)
    made = inspector.manifest["provenance"]
    assert (made["groups"], made["near_copies"], made["copies"]) == (60, 120, 0)
    assert any(line.startswith("60 images of top are near copies of images of bottom, such as image") for line in said)
    for name in products:
        assert len(inspector.of(name).calibration.scores) == 60  # each calibrates both
        alarms = np.mean([found.is_ng for found in inspector.of(name).inspect(frames(parts[60:], 3))])
        assert alarms < 0.15, alarms  # 5 % were asked


def test_a_person_tells_near_copies_of_two_products_apart() -> None:
    """And products that are each as alike as frames are no near copies of each other."""
    parts = np.kron(np.random.default_rng(1).normal(128, 30, (24, 8, 8)), np.ones((1, 4, 4)))
    said: list[str] = []
    tell = Narrator(quiet=True)
    tell.say = said.append  # type: ignore[method-assign]
    asked: dict[str, Any] = {"detector": "knn", "neighbours": 1, "size": 32, "device": "cpu", "tell": tell}
    both = {"top": frames(parts, 1), "bottom": frames(parts, 2)}
    made = okng.fit(both, **asked, group_by=list(range(48))).manifest["provenance"]
    assert made["groups"] == 48 and any("of bottom, such as" in line and "told apart as asked" in line for line in said)
    said.clear()
    alike = [np.repeat(parts[i : i + 1], 20, 0) for i in range(2)]
    okng.fit({"top": frames(alike[0], 1), "bottom": frames(alike[1], 2), "side": frames(alike[0] + 30, 3)}, **asked)
    assert not any("near copies of images of" in line for line in said), said


def test_the_same_pixels_in_two_files_are_of_one_product(tmp_path: Path) -> None:
    for name in ("ring", "cross"):
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(MADE[name](6, 1)):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    Image.open(tmp_path / "ring" / "3.png").save(tmp_path / "cross" / "again.bmp")
    with pytest.raises(OkngError, match=r"ring/3.png of ring and cross/again.bmp of cross are one picture, pixel"):
        okng.fit({name: tmp_path / name for name in ("ring", "cross")}, **ASKED)


def test_a_model_file_holds_them_all(both: okng.Inspector, tmp_path: Path) -> None:
    changed = both.of("ring").at(0.3)
    changed.save(tmp_path / "both.okng")
    loaded = okng.load(tmp_path / "both.okng")
    assert loaded.products == both.products and loaded.product is None
    for name in both.products:
        before, after = changed.of(name).calibration, loaded.of(name).calibration
        assert before.to_json() == after.to_json()
        np.testing.assert_array_equal(before.scores, after.scores)
        assert loaded.of(name).learnt_images == both.of(name).learnt_images
    assert [loaded.of(name).calibration.false_alarm_rate for name in loaded.products] == [0.3, 0.1]
    assert {each.false_alarm_rate for each in loaded.at(0.2).calibrations.values()} == {0.2}
    by_hand = loaded.of("cross").with_threshold(5)
    assert by_hand.calibration.threshold == 5 and by_hand.of("ring").calibration.threshold != 5
    assert loaded.manifest["products"]["ring"]["images"] == 160
    told = loaded.of("ring").learnt_images
    assert told is not None and len(told["samples"]["brightness"]) > 150


def test_damaged_products_are_refused(both: okng.Inspector, tmp_path: Path) -> None:
    manifest, arrays = both.described()
    both.save(tmp_path / "both.okng")
    state = {f"detector.{k}": v.numpy() for k, v in both.engine.detector.state_dict().items()}  # type: ignore[attr-defined]
    for products in ({"ring": 1, "cross": {}}, {"ring": manifest["products"]["ring"], "other": {"calibration": 3}}):
        write_model(tmp_path / "bad.okng", {**manifest, "products": products}, {**state, **arrays})
        with pytest.raises(OkngError, match="calibration makes no sense"):
            okng.load(tmp_path / "bad.okng")


def test_the_folder_says_which_product_an_image_is_of(both: okng.Inspector, tmp_path: Path) -> None:
    """In PyTorch and in both engines of the line, with the same verdicts."""
    paths = []
    for name, made in MADE.items():
        for i, pixels in enumerate(made(6, 4)):
            paths.append(tmp_path / name / "new" / f"{i}.png")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(paths[-1])
    found = list(both.inspect(tmp_path))
    assert [i.product for i in found] == ["cross"] * 6 + ["ring"] * 6
    assert found[0].to_dict()["product"] == "cross" and "as cross" in repr(found[0])
    for name in both.products:
        alone = list(both.of(name).inspect(tmp_path / name))
        its = [i for i in found if i.product == name]
        assert [(i.verdict, i.p_value) for i in alone] == [(i.verdict, i.p_value) for i in its]
    export(both, tmp_path / "both.onnx")
    for engine in ("openvino", "onnxruntime"):
        pytest.importorskip(engine)
        lined = list(okng.load(tmp_path / "both.onnx", engine=engine).inspect(tmp_path))
        assert [(i.verdict, i.product, i.p_value) for i in lined] == [(i.verdict, i.product, i.p_value) for i in found]


def test_the_guide_draws_which_image_is_of_which_product(tmp_path: Path) -> None:
    """Of the tree in docs/guides/several-products.md, for a model of ring and cross."""
    for name in ("1.png", "nut/monday/2.png", "nut/screw/3.png", "screw/4.png"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "new" / name)
    line = okng.Inspector(None, Preprocess("L", 8), dict.fromkeys(("screw", "nut")), {})  # type: ignore[arg-type]
    first, *others = each_placed(tmp_path / "new")
    assert [line.product_of(*each) for each in others] == ["nut", "screw", "screw"]
    with pytest.raises(OkngError, match="is called so"):
        line.product_of(*first)
    for given in ("new/screw", "new/screw/4.png"):
        assert [line.product_of(*each) for each in each_placed(tmp_path / given)] == ["screw"]


def test_folders_that_say_nothing_of_an_image_do_not_say_its_product(
    both: okng.Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those from what was handed over down to the image, as it was handed over."""
    home = tmp_path / "ring"  # where somebody works, who inspects crosses
    for folder in ("new", "cross/new", "other"):
        (home / folder).mkdir(parents=True)
        Image.fromarray(grainy(1, 5)[0]).save(home / folder / "1.png")
    monkeypatch.chdir(home)

    def said(images: Any) -> list[str | None]:
        return [found.product for found in both.inspect(images)]

    (home / "list.txt").write_text("cross/new/1.png\n")
    (home / "other/outside.txt").write_text("../new/1.png\n")
    with zipfile.ZipFile(home / "cross.zip", "w") as archive:
        archive.write(home / "new/1.png", "ring/lot/1.png")
        archive.write(home / "new/1.png", "2.png")
    assert said("cross") == said(home / "cross") == said([Path("cross")]) == said("list.txt") == ["cross"]
    assert said(home / "cross/new/../../cross") == said(home / "list.txt") == ["cross"]
    assert said(f"zip://ring::{home / 'cross.zip'}") == ["ring"]
    assert both.product_of(f"zip://ring/a.png::{home}/cross/parts.zip") == "ring"
    assert said(home) == ["cross", "ring", "ring"]  # a folder that is handed over counts by its own name, too
    for nothing in (
        "new", Path("new/1.png"), home / "new", home / "new/1.png", home / "cross/new", home / "cross/new/1.png",
        "other/outside.txt", Path("cross/../new"), f"zip://2.png::{home / 'cross.zip'}",
    ):  # fmt: skip
        with pytest.raises(OkngError, match="no folder from what was given down to it is called so"):
            said(nothing)


def test_a_product_that_nobody_named_is_asked_for(both: okng.Inspector, tmp_path: Path) -> None:
    Image.fromarray(rings(1, 5)[0]).save(tmp_path / "new.png")
    for images in (tmp_path, rings(1, 5)):
        with pytest.raises(
            OkngError, match=r"may be of ring or cross.*--product ring, in Python inspector.of\('ring'\)"
        ):
            list(both.inspect(images))
    for asks in (
        lambda: both.calibration,
        lambda: both.with_threshold(3),
        lambda: okng.Report("title", both),
        lambda: okng.sensitivity(both, rings(2, 5)),
    ):
        with pytest.raises(OkngError, match="a threshold for each of ring, cross; say which is meant: --product ring"):
            asks()
    with pytest.raises(OkngError, match=r"no product .rings.; did you mean ring"):
        both.of("rings")
    with pytest.raises(OkngError, match="is of one product and knows no names"):
        okng.fit(rings(8, 1), **ASKED).of("ring")
    assert "ring: at most 10%" in both.promise() and "cross: at most 10%" in both.promise()
    assert "a threshold for each of ring, cross" in repr(both) and "ring, threshold" in repr(both.of("ring"))


def test_what_is_not_there_yet_says_so(both: okng.Inspector) -> None:
    with pytest.raises(OkngError, match="can't be updated"):
        okng.update(both.of("ring"), rings(5, 6))
    with pytest.raises(OkngError, match="are given when it is trained"):
        both.of("ring").with_rules({"rules": [{"name": "a", "verdict": "OK"}]})
    with pytest.raises(OkngError, match="the page of a training is of one product"):
        okng.fit({"ring": rings(5, 1), "cross": grainy(5, 1)}, **ASKED, review=Review())


@pytest.mark.parametrize(
    ("products", "words"),
    [
        ({"ring": rings(5, 1)}, "several products are two or more"),
        ({"ring": rings(5, 1), "M6 screw": rings(5, 2)}, "not 'M6 screw'; call it M6-screw; the folder"),
        ({"ring": rings(5, 1), "Mutter_ä": rings(5, 2)}, "call it Mutter"),
        ({"ring": rings(5, 1), "": rings(5, 2)}, "a product's name has letters from A to Z"),
        ({"ring": rings(5, 1), "cross": ""}, "an empty text names no images"),
        ({"ring": rings(5, 1), "cross": list(grainy(1, 1))}, "cross has 1 readable images"),
        ({"ring": rings(5, 1), "cross": rings(9, 1)[3:]}, "image 3 of ring and image 5 of cross are one picture"),
    ],
)
def test_products_that_can_not_be_told_apart(products: dict[str, Any], words: str) -> None:
    with pytest.raises(OkngError, match=words):
        okng.fit(products, **ASKED)


def test_of_near_copies_alone_the_product_is_named() -> None:
    with pytest.raises(OkngError, match="cross: all images are near copies of one"):
        divided(np.array([0, 1, 2, 3, 3]), None, 0, products=np.array([0, 0, 0, 1, 1]), names=["ring", "cross"])


@pytest.mark.parametrize("name", ["M6 screw", "Mutter_ä", "-a", "a/b", "a" * 65, "M6-screw", "7", "a.b_c-d"])
def test_what_can_be_trained_can_be_served(name: str) -> None:
    refused = []
    for rule in (lambda: by_product({name: [], "other": []}), lambda: checked(name)):
        try:
            rule()
        except OkngError:
            refused.append(name)
    assert len(refused) in (0, 2)


def test_groups_are_of_one_product_each() -> None:
    products = {"ring": rings(12, 1), "cross": grainy(12, 1)}
    lots = [i // 2 for i in range(24)]
    inspector = okng.fit(products, **ASKED, group_by=lots)
    assert all(c.unit == "group" and len(c.scores) == 3 for c in inspector.calibrations.values())
    with pytest.raises(OkngError, match="the group 5 has images of ring and of cross"):
        okng.fit(products, **ASKED, group_by=[*range(12), *range(5, 17)])
    with pytest.raises(OkngError, match="cross: all images are of one group"):
        okng.fit(products, **ASKED, group_by=[*range(12), *[12] * 12])


def test_an_image_stands_apart_among_its_own_product() -> None:
    """A cross with a stain is said, though its score is no more than that of any ring would be, were it a cross."""
    rng = np.random.default_rng(0)
    even = np.full((40, 16, 16), 60.0) + rng.normal(0, 1, (40, 16, 16))
    wild = rng.uniform(0, 255, (40, 16, 16))
    even[0, 4:12, 4:12] += 60
    said: list[str] = []
    tell = Narrator(quiet=True)
    tell.say = said.append  # type: ignore[method-assign]
    products = {"even": even.astype(np.uint8), "wild": wild.astype(np.uint8)}
    kept = okng.fit(products, "knn", holdout=0, false_alarm_rate=0.1, device="cpu", drop_outliers=True, tell=tell)
    assert [line for line in said if "image 0 scores" in line] and kept.of("even").calibration.dropped == 1
    assert kept.of("wild").calibration.dropped == 0 and len(kept.of("even").calibration.scores) == 39


def test_a_killed_fit_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every third checkpoint, of a detector that trains and is cross-fitted."""
    products = {"ring": rings(5, 1), "cross": grainy(6, 1)}
    asked: dict[str, Any] = {"width": 2, "code": 2, "epochs": 1, "device": "cpu"}
    whole = okng.fit(products, "autoencoder", **asked)

    class Dies(Exception):
        pass

    written: list[Any] = []

    def write_and_die(*what: Any) -> None:
        write_model(*what)
        written.append(what)
        if len(written) % 3 == 0:
            raise Dies

    monkeypatch.setattr(checkpoint, "write_model", write_and_die)
    for _ in range(50):
        try:
            resumed = okng.fit(products, "autoencoder", **asked, checkpoint=tmp_path / "c", resume=True)
            break
        except Dies:
            continue
    assert len(written) > 8
    for name in whole.products:
        one, other = whole.of(name).calibration, resumed.of(name).calibration
        assert one.method == "cross" and one.to_json() == other.to_json()
        np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(
        whole.of("ring").score_samples(rings(5, 9)), resumed.of("ring").score_samples(rings(5, 9))
    )


@pytest.mark.real_data
def test_transistors_and_tiles(okng_data: Path) -> None:
    """Of one fit, each keeps to its rate; one threshold for both is the tiles' alone and misses bent leads."""
    data = {
        "transistor": open_dataset(okng_data / "mvtec_ad/transistor"),
        "tile": open_dataset(okng_data / "magnetic_tile"),
    }
    learnt = {name: [s.image for s in some.train[:: len(some.train) // 90]][:90] for name, some in data.items()}
    inspector = okng.fit(learnt, "padim", size=96, holdout=0.5, false_alarm_rate=0.1, device="cpu")
    shared = Calibration.fit(np.concatenate([c.scores for c in inspector.calibrations.values()]), None, "split", 0.1)
    for name, some in data.items():
        ok = [sample.image for sample in some.test if sample.label == 0]
        its = inspector.of(name)
        assert np.mean(its.score_samples(ok[:: len(ok) // 50]) > its.calibration.threshold) < 0.25
    assert np.mean(inspector.of("transistor").calibration.scores > shared.threshold) < 0.03
    assert np.mean(inspector.of("tile").calibration.scores > shared.threshold) > 0.15
    scores = inspector.of("transistor").score_samples(
        [sample.image for sample in data["transistor"].test if sample.label == 1]
    )
    caught = np.mean(scores > inspector.of("transistor").calibration.threshold)
    assert caught > 0.7 and np.mean(scores > shared.threshold) < caught - 0.2
