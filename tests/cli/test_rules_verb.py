"""`okng rules` and `okng train --rules`: one file of zones, and the same verdicts wherever the model runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_cli import FAST, okng, one_line
from tests.contract.conftest import pictures

import okng as library
from okng.report import Report
from okng.training.review import Review

RULES = {
    "zones": [{"name": "edge", "kind": "ignore", "points": [[0, 0], [1, 0], [1, 0.4], [0, 0.4]], "colour": "#123456"}],
    "rules": [{"name": "dust", "verdict": "OK", "max_area": 15}, {"name": "cut", "verdict": "NG", "min_length": 8}],
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OK images, new images of which some are NG, a file of rules, and two models: calibrated later, and at once."""
    root = tmp_path_factory.mktemp("shop")
    for folder, count, seed, defect in [("ok", 30, 1, False), ("new", 5, 2, False), ("new", 5, 3, True)]:
        (root / folder).mkdir(exist_ok=True)
        for i, image in enumerate(pictures(count, seed, defect)):
            Image.fromarray(image).save(root / folder / f"{seed}-{i:02}.png")
    (root / "rules.json").write_text(json.dumps(RULES))
    assert okng("train", root / "ok", "-o", root / "plain.okng", "--holdout", 0.4, *FAST).returncode == 0
    done = okng(
        "train", root / "ok", "-o", root / "zoned.okng", "--holdout", 0.4, "--rules", root / "rules.json", *FAST,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root


def test_zones_given_later_with_the_same_images_are_zones_given_at_once(shop: Path, tmp_path: Path) -> None:
    """Of the folder that was learnt from, those held out calibrate."""
    later = tmp_path / "later.okng"
    given = ("rules", shop / "plain.okng", "--set", shop / "rules.json", "--ok", shop / "ok", "-o", later, "--json")
    told = json.loads(okng(*given).stdout)
    trained = json.loads(okng("rules", shop / "zoned.okng", "--json").stdout)
    for key in ("threshold", "pixel_threshold"):  # computed in batches or one by one: equal but for rounding
        assert told.pop(key) == pytest.approx(trained.pop(key), rel=1e-5)
    assert told | {"model": 0} == trained | {"model": 0} and told["n"] == 12 and told["method"] == "split"
    assert [zone["name"] for zone in told["zones"]] == ["edge"] and told["rules"][1]["min_length"] == 8


def test_python_the_command_line_and_exports_say_the_same(shop: Path, tmp_path: Path) -> None:
    model = library.load(shop / "zoned.okng")
    library.export(model, tmp_path / "zoned.onnx")
    expected = list(model.inspect(shop / "new"))
    assert {each.verdict for each in expected} == {"OK", "NG"}
    plain = list(library.load(shop / "plain.okng").inspect(shop / "new"))
    assert [each.score for each in plain] != [each.score for each in expected]
    for name in (shop / "zoned.okng", tmp_path / "zoned.onnx"):
        found = json.loads(okng("inspect", name, shop / "new", "--json", "--csv", tmp_path / "r.csv").stdout)["images"]
        assert [each["verdict"] for each in found] == [each.verdict for each in expected]
        assert [[r["rule"] for r in each["regions"]] for each in found] == [
            [region.rule for region in each.regions] for each in expected
        ]
        np.testing.assert_allclose([each["score"] for each in found], [each.score for each in expected], rtol=1e-4)
        rows = list(csv.DictReader((tmp_path / "r.csv").open()))
        assert [row["reasons"] for row in rows] == ["; ".join(each["reasons"]) for each in found]
    exported = library.load(tmp_path / "zoned.onnx")
    assert exported.rules == model.rules and exported.promise() == model.promise()
    with_rules = exported.with_rules({"rules": RULES["rules"], "zones": RULES["zones"]})
    assert with_rules.calibration is exported.calibration


def test_rules_come_and_go_without_an_engine(shop: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.okng"
    done = okng("rules", shop / "plain.okng", "--set", shop / "rules.json", "-o", changed)
    assert done.returncode == 0 and "zone 'edge': ignore, 4 corners" in done.stderr and "whole maps" in done.stderr
    assert "rule 'cut': NG for min_length 8" in done.stderr
    assert json.loads(okng("threshold", changed, "--json").stdout)["promise"].endswith("within the zones fewer")
    assert okng("threshold", changed, "--false-alarm-rate", 0.2).returncode == 0
    assert okng("rules", changed, "--clear").returncode == 0
    told = json.loads(okng("rules", changed, "--json").stdout)
    assert told["zones"] == told["rules"] == []
    plain = library.load(shop / "plain.okng").at(0.2)
    assert library.load(changed).calibration.to_json() == plain.calibration.to_json()


def test_an_update_keeps_the_zones(shop: Path, tmp_path: Path) -> None:
    updated = library.update(shop / "zoned.okng", list(pictures(10, 9, False)), holdout=0.5)
    assert updated.rules == library.load(shop / "zoned.okng").rules
    assert len(updated.calibration.scores) == 17 and updated.calibration.method == "updated"
    np.testing.assert_array_equal(updated.calibration.scores, updated.calibration.peaks)


def test_the_pages_say_why(shop: Path, tmp_path: Path) -> None:
    model = library.load(shop / "zoned.okng")
    report = Report("Rules", model)
    for found in model.inspect(shop / "new"):
        report.add(found, label=int("3-" in str(found.path)))
    page = report.write(tmp_path / "r.html").read_text()
    assert (
        "by rule" in page
        and "edge (ignore)" in page
        and f"<b>{sum(found.is_ng for found in model.inspect(shop / 'new'))}</b>" in page
    )


def test_a_review_judges_within_the_zones(shop: Path) -> None:
    review = Review()
    settings = {"size": 64, "device": "cpu", "weights": "none", "coreset": 0.1, "holdout": 0.4}
    model = library.fit(shop / "ok", rules=RULES, review=review, **settings)
    shown = [found for found, _, _ in review.held_out.ranked()]
    assert sorted(found.score for found in shown) == model.calibration.scores.tolist()
    assert all(found.score == found.map.max() for found in shown if found.map is not None)


def test_mistakes_are_one_line(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"zones": [{"name": "a", "points": [[0, 0], [9, 9], [0, 9]]}]}')
    for words, said in [
        (["rules", shop / "plain.okng", "--set", tmp_path / "bad.json"], "shares of the image"),
        (["rules", shop / "plain.okng", "--set", tmp_path / "none.json"], "can't be read"),
        (["rules", shop / "plain.okng", "--set", shop / "rules.json", "--clear"], "two things"),
        (["rules", shop / "plain.okng", "-o", tmp_path / "x.okng"], "add --set FILE or --clear"),
        (["rules", shop / "zoned.okng", "--clear"], "give OK images"),
        (
            ["train", shop / "ok", "--rules", shop / "rules.json", "-d", "mahalanobis", "-o", tmp_path / "x.okng"],
            "not say",
        ),
        (["explain", shop / "zoned.okng", shop / "new", "-o", tmp_path / "e"], "okng rules MODEL --clear"),
        (["roi", shop / "zoned.okng"], "it is called: okng rules"),
    ]:
        assert said in one_line(okng(*words)), words
