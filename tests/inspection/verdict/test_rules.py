"""Zones and rules: what is inspected, what a region means, and that the promise survives both."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from okng.benchmark.evaluation import evaluate_inspector
from okng.datasets import OK, Dataset, Sample
from okng.errors import OkngError, OkngWarning
from okng.inspection.inspector import Inspector
from okng.inspection.outputs import Overlays, table_row
from okng.inspection.reading.images import Preprocess, fingerprint
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.regions import find_regions
from okng.inspection.verdict.rules import Rules, length
from okng.inspection.verdict.zones import Zone, inside, inspected, raster

SIDE = 32
LEFT = {"name": "left", "kind": "ignore", "points": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}
RIGHT = {"name": "right", "kind": "inspect", "points": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}


class Bright:
    """Scores an image by the mean of its map, which no part of the map tells, and each place by its own value."""

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = pixels[:, :, :, 0].astype(np.float32)
        return maps.mean((1, 2)), maps


def inspector(scores: Any = None, peaks: Any = None, method: str = "split", rate: float = 0.05) -> Inspector:
    scores = np.linspace(10, 30, 99) if scores is None else scores
    peaks = np.linspace(50, 149, 99) if peaks is None else peaks
    calibration = Calibration.fit(np.asarray(scores), np.asarray(peaks), method, rate)
    return Inspector(Bright(), Preprocess("L", (SIDE, SIDE)), calibration, {})  # type: ignore[arg-type]


def spotted(*spots: tuple[int, int, int, int], value: int = 250, ground: int = 10) -> np.ndarray:
    """An image of the input's size with bright rectangles (left, top, right, bottom)."""
    image = np.full((SIDE, SIDE), ground, np.uint8)
    for left, top, right, bottom in spots:
        image[top:bottom, left:right] = value
    return image


def only(model: Inspector, image: np.ndarray) -> Any:
    (found,) = model.inspect(image)
    return found


def test_a_grid_is_sampled_as_its_points_are() -> None:
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 17))
    star = 0.5 + rng.uniform(0.1, 0.5, 17)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    grid = np.stack(np.meshgrid((np.arange(50) + 0.5) / 50, (np.arange(40) + 0.5) / 40), -1).reshape(-1, 2)
    np.testing.assert_array_equal(raster(star, 40, 50).ravel(), inside(star, grid))
    triangle = np.array([[0, 0], [1, 0], [0, 1]])
    assert raster(triangle, 200, 200).mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(inside(triangle, np.array([[0.2, 0.3], [0.9, 0.9], [-1, 0.5]])), [True, False, False])


def test_a_cell_is_inspected_if_half_of_it_is() -> None:
    zones = Rules.from_json({"zones": [{**RIGHT, "points": [[0.3, 0], [1, 0], [1, 1], [0.3, 1]]}]}).zones
    np.testing.assert_array_equal(inspected(zones, (1, 5))[0], [False, True, True, True, True])
    np.testing.assert_array_equal(inspected(zones, (2, 2)), [[False, True]] * 2)
    both = Rules.from_json({"zones": [{**RIGHT, "points": LEFT["points"], "name": "l"}, RIGHT, {**LEFT, "name": "i"}]})
    np.testing.assert_array_equal(inspected(both.zones, (4, 4))[0], [False, False, True, True])
    thin = Zone("thin", "inspect", ((0.1, 0.1), (0.12, 0.1), (0.12, 0.9), (0.1, 0.9)))
    assert inspected((thin,), (4, 4)).sum() == 2  # thinner than half of any cell


def test_a_defect_in_an_ignored_zone_does_not_count() -> None:
    plain = inspector()
    zoned = plain.with_rules({"zones": [LEFT]})
    hidden, seen = spotted((2, 2, 12, 12)), spotted((20, 2, 30, 12))
    assert only(plain, hidden).is_ng and only(plain, seen).is_ng
    assert only(zoned, hidden).verdict == "OK" and only(zoned, hidden).regions == ()
    found = only(zoned, seen)
    assert found.is_ng and found.score == 250 and len(found.regions) == 1 and found.map.max() == 250
    assert found.reasons == ("score 250 above the threshold 145",)
    other = plain.with_rules({"zones": [RIGHT]})  # said the other way round
    assert only(other, hidden).score == only(zoned, hidden).score and only(other, seen).is_ng
    across = only(zoned, spotted((8, 8, 24, 16)))  # a region is measured within the zone alone
    assert across.regions[0].box[0] >= 15 and across.regions[0].area < 0.6 * 16 * 8


def test_zones_are_shares_of_images_of_any_size() -> None:
    zoned = inspector().with_rules({"zones": [LEFT]})
    large = np.asarray(Image.fromarray(spotted((20, 2, 30, 12))).resize((320, 160)))
    found = only(zoned, large)
    assert found.is_ng and found.size == (160, 320) and 180 < found.regions[0].peak[0] < 310


def test_without_images_the_threshold_is_that_of_whole_maps_and_holds() -> None:
    plain = inspector()
    zoned = plain.with_rules({"zones": [LEFT]})
    assert zoned.calibration.threshold == zoned.calibration.pixel_threshold == plain.calibration.pixel_threshold
    assert "at most 5% false alarms" in zoned.promise() and "whole maps" in zoned.promise()
    for back in (zoned.with_rules(None), zoned.at(0.2).with_rules({}).at(0.05)):
        assert back.calibration.to_json() == plain.calibration.to_json() and "whole" not in back.promise()
        np.testing.assert_array_equal(back.calibration.scores, plain.calibration.scores)
    moved = zoned.with_rules({"zones": [RIGHT]})  # from the whole maps, not from what was theirs within other zones
    np.testing.assert_array_equal(moved.calibration.scores, plain.calibration.peaks)
    named = zoned.with_rules({"zones": [{**LEFT, "name": "another", "colour": "#123456"}]})
    assert named.calibration is zoned.calibration and named.rules.zones[0].colour == "#123456"


@pytest.mark.parametrize("given", [True, False])
def test_false_alarms_within_zones_are_as_promised(given: bool) -> None:
    """Over draws of held-out images: maps whose ignored half is the wilder one, and depends on the other."""
    rng = np.random.default_rng(1)
    alarms, total, rate = 0, 0, 0.1
    for _ in range(30):
        common = rng.normal(120, 8, (80, 1, 1))
        maps = common + rng.normal(0, 8, (80, 4, 4)) + np.where(np.arange(4) < 2, rng.normal(0, 12, (80, 1, 1)), 0)
        pixels = np.clip(maps, 0, 255).astype(np.uint8)
        held_out = pixels[:39]
        calibration = Calibration.fit(held_out.mean((1, 2)), held_out.max((1, 2)), "split", rate)
        model = Inspector(Bright(), Preprocess("L", (4, 4)), calibration, {})  # type: ignore[arg-type]
        zoned = model.with_rules({"zones": [LEFT]}, list(held_out) if given else None)
        assert zoned.calibration.method == "split" and len(zoned.calibration.scores) in (38, 39)
        found = list(zoned.inspect(list(pixels[39:])))
        alarms, total = alarms + sum(each.is_ng for each in found), total + len(found)
    assert alarms / total < rate + 0.02
    assert (alarms / total > 0.06) == given  # whole maps err to the safe side


def test_images_that_were_learnt_do_not_calibrate() -> None:
    rng = np.random.default_rng(2)
    images = list(rng.integers(0, 200, (30, SIDE, SIDE), dtype=np.uint8))
    marks = [fingerprint(image) for image in images]
    plain = inspector()
    plain.manifest |= {"seen": marks[:20], "unlearnt": marks[15:20]}
    with pytest.warns(OkngWarning, match="15 images are left out"):
        zoned = plain.with_rules({"zones": [LEFT]}, [*images, images[-1]])  # and a copy counts once
    highest = sorted(float(image[:, SIDE // 2 :].max()) for image in images[15:])
    np.testing.assert_array_equal(zoned.calibration.scores, highest)
    assert "whole maps" not in zoned.promise()
    with pytest.raises(OkngError, match="has learnt all of these"):
        plain.with_rules({"zones": [LEFT]}, images[:15])


def test_images_that_calibrate_are_not_tested_on_and_calibrate_again() -> None:
    """False alarms on the images that set the threshold are what it was set to."""
    images = list(np.random.default_rng(2).integers(0, 200, (30, SIDE, SIDE), dtype=np.uint8))
    marks = [fingerprint(image) for image in images]
    plain = inspector()
    plain.manifest |= {"seen": marks[:10], "unlearnt": marks[5:10]}
    with pytest.warns(OkngWarning, match="5 images are left out"):
        zoned = plain.with_rules({"zones": [LEFT]}, images[:25])
    assert zoned.manifest["seen"] == marks[:25] and zoned.manifest["unlearnt"] == marks[5:25]
    assert zoned.manifest["calibrating"] == marks[5:25]
    assert plain.manifest == {"seen": marks[:10], "unlearnt": marks[5:10]}
    samples = tuple(Sample(image, OK) for image in images)
    found = evaluate_inspector(zoned, Dataset("all", "folder", "", (), samples))
    assert (found["left_out"], found["n_ok"]) == (25, 5)
    again = zoned.with_rules({"zones": [RIGHT]}, images[5:25])
    np.testing.assert_array_equal(again.calibration.scores, zoned.calibration.scores)
    assert again.manifest["unlearnt"] == marks[5:25]


def test_an_image_far_above_the_others_is_named_where_it_sets_the_threshold() -> None:
    """An NG image among those given as OK raises the threshold, and nothing else would tell."""
    images = [spotted((20, 4, 30, 14), value=90 + place) for place in range(12)]
    for place, value in ((4, 200), (7, 250)):
        images[place] = spotted((20, 4, 30, 14), value=value)
    with pytest.warns(OkngWarning, match=r"image 7, image 4 score far above the others \(from 200, median 97"):
        inspector().with_rules({"zones": [LEFT]}, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inspector().with_rules({"zones": [LEFT]}, [*images[:4], *images[5:7], *images[8:]])


RULES: list[tuple[dict[str, Any], tuple[tuple[int, int, int, int], ...], str]] = [
    ({"verdict": "NG", "min_area": 60}, ((4, 4, 14, 14),), "NG"),
    ({"verdict": "NG", "min_area": 60}, ((4, 4, 8, 8),), "OK"),
    ({"verdict": "NG", "min_length": 20}, ((4, 4, 29, 6),), "NG"),
    ({"verdict": "NG", "min_length": 20}, ((4, 4, 12, 12),), "OK"),
    ({"verdict": "NG", "min_count": 2}, ((4, 4, 8, 8), (20, 20, 24, 24)), "NG"),
    ({"verdict": "NG", "min_count": 2}, ((4, 4, 8, 8),), "OK"),
    ({"verdict": "NG", "zone": "here"}, ((4, 4, 8, 8),), "NG"),
    ({"verdict": "NG", "zone": "here"}, ((20, 20, 24, 24),), "OK"),
    ({"verdict": "NG", "zone": "here"}, ((13, 4, 29, 8),), "NG"),  # it reaches in
    ({"verdict": "NG", "zone": "here", "min_area": 60}, ((4, 4, 8, 8),), "OK"),
]


@pytest.mark.parametrize(("rule", "spots", "verdict"), RULES)
def test_a_rule_says_ng_of_an_image_whose_score_is_low(rule: dict, spots: tuple, verdict: str) -> None:
    zones = [{**LEFT, "name": "here", "kind": "place"}]
    model = inspector(scores=np.linspace(100, 200, 99)).with_rules({"zones": zones, "rules": [{"name": "r", **rule}]})
    found = only(model, spotted(*spots))
    assert len(found.regions) == len(spots) and found.verdict == verdict
    if verdict == "NG":
        assert found.reasons[0].startswith("NG by rule 'r': region of ") and found.regions[0].rule == "r"
        assert found.to_dict()["reasons"] == list(found.reasons) and table_row(found)[-2] == found.reasons[0]
    else:
        assert found.reasons == () and found.regions[0].rule is None


@pytest.mark.parametrize(
    ("rule", "spots", "verdict"),
    [
        ({"max_area": 60}, ((4, 4, 8, 8),), "OK"),
        ({"max_area": 60}, ((4, 4, 14, 14),), "NG"),
        ({"max_area": 60}, ((4, 4, 8, 8), (18, 18, 28, 28)), "NG"),  # one of them is forgiven, the other isn't
        ({"max_length": 12}, ((4, 4, 8, 8),), "OK"),
        ({"max_length": 12}, ((4, 4, 29, 6),), "NG"),
        ({"max_area": 60, "max_count": 1}, ((4, 4, 8, 8), (20, 20, 24, 24)), "NG"),
        ({"max_area": 60, "max_count": 2}, ((4, 4, 8, 8), (20, 20, 24, 24)), "OK"),
        ({"zone": "here"}, ((4, 4, 8, 8),), "OK"),
        ({"zone": "here"}, ((13, 4, 29, 8),), "NG"),  # part of it lies elsewhere
    ],
)
def test_a_rule_forgives_regions_and_so_an_image(rule: dict, spots: tuple, verdict: str) -> None:
    zones = [{**LEFT, "name": "here", "kind": "place"}]
    model = inspector(np.linspace(1, 12, 99)).with_rules(
        {"zones": zones, "rules": [{"name": "dust", "verdict": "OK", **rule}]}
    )
    found = only(model, spotted(*spots))
    assert found.verdict == verdict and found.score > model.calibration.threshold
    assert found.reasons[-1].startswith("OK by rule 'dust'" if verdict == "OK" else "score ")
    bright = only(model, spotted(ground=49))  # odd, and no region to forgive
    assert bright.is_ng and bright.regions == ()


def test_a_region_that_one_rule_calls_ng_is_not_forgiven_by_another() -> None:
    rules = [{"name": "dust", "verdict": "OK", "max_area": 60}, {"name": "seal", "verdict": "NG", "zone": "here"}]
    zones = [{**LEFT, "name": "here", "kind": "place"}]
    model = inspector(np.linspace(1, 12, 99)).with_rules({"zones": zones, "rules": rules})
    assert only(model, spotted((20, 20, 24, 24))).verdict == "OK"
    found = only(model, spotted((20, 20, 24, 24), (4, 4, 8, 8)))
    assert found.is_ng and sorted(str(region.rule) for region in found.regions) == ["dust", "seal"]


def test_the_promise_says_what_rules_add() -> None:
    ng, ok = ({"name": "r", "verdict": verdict} for verdict in ("NG", "OK"))
    plain = inspector()
    assert "as many again at most" in plain.with_rules({"rules": [ng]}).promise()
    assert plain.with_rules({"rules": [ok]}).promise() == plain.promise()  # it calls fewer NG
    assert "rules" not in plain.with_rules({"zones": [LEFT], "rules": [ng]}).promise()  # regions are NG already
    assert "can add to it" in inspector(method="cross").with_rules({"rules": [ng]}).promise()


def test_a_length_does_not_depend_on_the_angle() -> None:
    for angle in np.radians([0, 17, 45, 80]):
        y, x = np.mgrid[:200, :200] - 100.0
        along, beside = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        bar = np.clip(np.minimum(60 - abs(along), 4 - abs(beside)) + 0.5, 0, 1)
        (region,) = find_regions(bar, 0.5, (200, 200))
        assert length(region) == pytest.approx(np.hypot(120, 8), abs=1.5)


def test_rules_are_saved_and_read_back() -> None:
    rule = {"name": "r", "verdict": "NG", "min_area": 5.5, "max_count": 3, "zone": "left", "colour": "#00ff00"}
    rules = Rules.from_json({"zones": [LEFT, RIGHT], "rules": [rule]})
    assert Rules.from_json(json.loads(json.dumps(rules.to_json()))) == rules
    assert Rules.of(rules.to_json()) == Rules.of(rules) == rules and not Rules.of(None)


def polygon(points: Any) -> dict[str, Any]:
    return {"zones": [{"name": "a", "kind": "ignore", "points": points}]}


SQUARE = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
HOSTILE: list[tuple[Any, str]] = [
    ([], "a file of rules is an object"),
    ({"zone": []}, "a file of rules has no 'zone'; did you mean zones"),
    ({"zones": {}}, "zones is a list"),
    ({"zones": [1]}, "a zone is an object"),
    ({"zones": [{"kind": "ignore", "points": SQUARE}]}, "needs a name"),
    ({"zones": [{"name": "a\nb", "points": SQUARE}]}, "needs a name"),
    ({"zones": [{"name": "a", "kind": "cut", "points": SQUARE}]}, "inspect or ignore"),
    ({"zones": [{"name": "a", "points": SQUARE, "colour": "red;}"}]}, "is one such as #ff8800"),
    (polygon([[0.1, 0.1], [0.9, 0.9], [0.9, 0.1], [0.1, 0.9]]), "crosses itself"),
    (polygon([[0, 0], [1, 0], [1, 1], [0.5, 0], [0, 1]]), "crosses itself"),  # it touches
    (polygon([[0, 0], [1, 0], [0.5, 0], [0.5, 0.5]]), "crosses itself"),  # it turns back on itself
    (polygon([[0, 0], [float("nan"), 0], [1, 1]]), "is a number, not nan"),
    (polygon([[0, 0], [float("inf"), 0], [1, 1]]), "is a number, not inf"),
    (polygon([[0, 0], [10**400, 0], [1, 1]]), "is a number, not"),
    (polygon([[0, 0], ["1", 0], [1, 1]]), "is a number, not '1'"),
    (polygon([[0, 0], [640, 0], [640, 480]]), "shares of the image's width and height"),
    (polygon([[0, 0], [-0.1, 0], [1, 1]]), "shares of the image's width and height"),
    (polygon([[0.2, 0.2], [0.4, 0.4], [0.6, 0.6]]), "has no area|crosses itself"),
    (polygon([[0.2, 0.2], [0.2, 0.2], [0.6, 0.6]]), "has no area"),
    (polygon([[0, 0], [1, 1]]), "needs 3 to 1000 corners, each .x, y., not 2"),
    (polygon([[i / 10_000, (i % 2) / 2] for i in range(10_000)]), "not 10000 corners"),
    (polygon([[0, 0, 0], [1, 1, 1], [1, 0, 0]]), r"no \[x, y\]"),
    (polygon([[0, 0], [1, 0], [1, 1], [0, 1]]), "leave nothing of the image"),
    ({"zones": [{"name": "a", "points": [[0.5, 0.5], [0.505, 0.5], [0.5, 0.505]]}]}, "leave nothing of the image"),
    ({"zones": [{"name": "a", "points": SQUARE}] * 2}, "two zones are called 'a'"),
    ({"zones": [{"name": str(i), "points": SQUARE} for i in range(101)]}, "at most 100"),
    ({"rules": [{"name": "r", "verdict": "maybe"}]}, "is NG or OK"),
    ({"rules": [{"name": "r", "verdict": "NG", "min_area": float("nan")}]}, "is a number"),
    ({"rules": [{"name": "r", "verdict": "NG", "min_area": True}]}, "is a number"),
    ({"rules": [{"name": "r", "verdict": "NG", "min_area": -1}]}, "is 0 or more"),
    ({"rules": [{"name": "r", "verdict": "NG", "min_count": 0}]}, "whole number from 1"),
    ({"rules": [{"name": "r", "verdict": "NG", "max_count": 1.5}]}, "whole number from 1"),
    ({"rules": [{"name": "r", "verdict": "NG", "min_area": 5, "max_area": 4}]}, "fits nothing"),
    ({"rules": [{"name": "r", "verdict": "NG", "zone": "b"}]}, "for the zone 'b', which there is not"),
    ({"rules": [{"name": "r", "verdict": "NG", "size": 3}]}, "a rule has no 'size'"),
]


@pytest.mark.parametrize(("fields", "said"), HOSTILE)
def test_what_makes_no_sense_is_one_line(fields: Any, said: str) -> None:
    with pytest.raises(OkngError, match=said) as error:
        inspector().with_rules(fields if isinstance(fields, dict) else Rules.from_json(fields))
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_a_closed_ring_and_a_concave_polygon_are_fine() -> None:
    ring = Rules.from_json(polygon([*SQUARE, SQUARE[0]])).zones[0]
    assert len(ring.points) == 4
    concave = [[0, 0], [1, 0], [1, 1], [0.9, 1], [0.9, 0.1], [0.1, 0.1], [0.1, 1], [0, 1]]
    assert not inspected(Rules.from_json(polygon(concave)).zones, (10, 10))[0].any()
    circle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    points = np.stack([0.5 + 0.4 * np.cos(circle), 0.5 + 0.4 * np.sin(circle)], 1).tolist()
    assert inspected(Rules.from_json(polygon(points)).zones, (64, 64)).mean() == pytest.approx(
        1 - np.pi * 0.16, abs=0.01
    )


@pytest.mark.parametrize("content", ["", "{", '{"zones": [' + "[" * 100_000, "\x00", '{"zones": NaN}', "\ud800"])
def test_files_that_are_no_rules_are_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(OkngError) as error:
        Rules.of(tmp_path / "r.json")
    assert "\n" not in str(error.value)
    with pytest.raises(OkngError, match="can't be read"):
        Rules.of(tmp_path / "none.json")


def test_what_can_not_be_calibrated_says_so() -> None:
    with pytest.raises(OkngError, match="set by hand"):
        inspector().with_threshold(3).with_rules({"zones": [LEFT]})
    calibration = Calibration.fit(np.arange(20.0), None, "split", 0.1)
    blind = Inspector(Bright(), Preprocess("L", (8, 8)), calibration, {})  # type: ignore[arg-type]
    with pytest.raises(OkngError, match="does not say where"):
        blind.with_rules({"zones": [LEFT]})
    by_group = Calibration.fit(np.arange(20.0), np.arange(20.0), "split", 0.1, "group")
    grouped = inspector().calibrated(by_group)
    with pytest.raises(OkngError, match="about groups"):
        grouped.with_rules({"zones": [LEFT]}, [spotted()])
    trained = Inspector(Bright(), Preprocess("L", (8, 8)), inspector().calibration, {"rules": {"zones": [LEFT]}})  # type: ignore[arg-type]
    with pytest.raises(OkngError, match="give OK images"):
        trained.with_rules(None)


def test_zones_and_the_regions_of_rules_are_drawn_in_their_colours(tmp_path: Path) -> None:
    rules = {
        "zones": [{**LEFT, "kind": "place", "colour": "#0000ff"}],
        "rules": [{"name": "r", "verdict": "NG", "colour": "#00ff00"}],
    }
    Image.fromarray(spotted((18, 12, 26, 20))).resize((256, 256)).save(tmp_path / "a.png")
    model = inspector().with_rules(rules)
    drawn = Overlays(tmp_path / "drawn", model).add(next(model.inspect(tmp_path / "a.png")))
    assert drawn is not None
    picture = np.asarray(Image.open(drawn)).reshape(-1, 3).tolist()
    assert [0, 0, 255] in picture and [0, 255, 0] in picture and [255, 255, 255] not in picture
