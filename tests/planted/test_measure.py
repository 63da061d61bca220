from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import okng
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_model
from okng.inspection.reading.images import Preprocess, fingerprint
from okng.inspection.verdict.calibration import Calibration
from okng.planted.defects import KINDS
from okng.planted.measure import LADDER, MOST, Plan, cells_at
from okng.planted.result import as_csv, lines, pixels_of
from okng.training.progress import Narrator

QUIET = Narrator(quiet=True)


class Unlike:
    """How far places of 8 by 8 pixels are from the grey they should be; `shift` moves what it says of places."""

    def __init__(self, shift: int = 0, places: bool = True):
        self.shift, self.places = shift, places

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        n, h, w, channels = pixels.shape
        blocks = pixels.reshape(n, h // 8, 8, w // 8, 8, channels).astype(np.float32)
        maps = np.abs(blocks.mean(axis=(2, 4, 5)) - 120)
        return maps.max(axis=(1, 2)), np.roll(maps, self.shift, axis=2) if self.places else None

    def write(self, path: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        write_model(path, manifest, arrays)


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.clip(rng.normal(120, 8, (96, 128)), 0, 255).astype(np.uint8) for _ in range(count)]


def model(engine: Unlike | None = None, **manifest: Any) -> Inspector:
    """Held-out scores of such images; threshold 5."""
    engine = engine or Unlike()
    scores = np.linspace(1, 5, 39)
    calibration = Calibration.fit(scores, scores if engine.places else None, "split", 0.025)
    assert calibration.threshold == 5
    return Inspector(engine, Preprocess("L", (96, 128), 8), calibration, {"detector": {"name": "unlike"}, **manifest})


@pytest.fixture(scope="module")
def result() -> okng.planted.result.Sensitivity:  # type: ignore[name-defined]
    return okng.sensitivity(model(), images(12), kinds=["spot", "scratch"], plants=6)


def test_large_defects_are_found_and_small_ones_missed(result: Any) -> None:
    assert list(result.curves) == ["scratch", "spot"]
    side = math.sqrt(96 * 128)
    assert result.side == side and result.images == 12 and result.alarms == 0
    spot = result.curves["spot"]
    assert [point.size for point in spot.points] == [max(2, round(share * side)) for share in LADDER]
    shares = [point.share for point in spot.points]
    assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)
    assert all(point.plants == 6 and point.low <= point.share <= point.high for point in spot.points)
    assert spot.reached and spot.points[0].size < spot.low <= spot.smallest <= spot.high
    assert result.curves["scratch"].smallest > spot.smallest  # a thin line changes a place's mean by less
    assert result.smallest_found["spot"] == spot.smallest
    assert 0.2 < result.found < 0.9 and result.overall.points[-1].plants == 12


def test_the_seed_decides_everything(result: Any) -> None:
    again = okng.sensitivity(model(), images(12), kinds=["scratch", "spot"], plants=6)
    assert again.to_json() == result.to_json() and again.trials == result.trials
    other = okng.sensitivity(model(), images(12), kinds=["spot", "scratch"], plants=6, seed=1)
    assert other.trials != result.trials
    alone = okng.sensitivity(model(), images(12), kinds="spot", plants=6)
    assert list(alone.curves) == ["spot"]


def test_json_csv_and_lines_say_the_same(result: Any) -> None:
    read = json.loads(json.dumps(result.to_json()))
    assert read["curves"]["spot"]["points"][3]["found"] == result.curves["spot"].points[3].found
    assert read["smallest_found"].keys() == {"scratch", "spot"}
    table = [line.split(",") for line in as_csv(result).splitlines()]
    assert table[0][:2] == ["kind", "size_px"] and len(table) == 1 + 3 * 6
    assert [row[4] for row in table if row[0] == "spot"] == [str(point.found) for point in result.curves["spot"].points]
    said = "\n".join(lines(result))
    assert result.curves["spot"].words() in said and "promise nothing of real defects" in said


def test_a_hit_elsewhere_is_no_find() -> None:
    """The score rises by the defect, but the map shows it half a picture away."""
    here = okng.sensitivity(model(), images(8), kinds="spot", plants=8, sizes=[12])
    away = okng.sensitivity(model(Unlike(shift=8)), images(8), kinds="spot", plants=8, sizes=[12])
    called = here.curves["spot"].points[0].called
    assert called > 4 and away.curves["spot"].points[0].called == called
    assert here.curves["spot"].points[0].found == called and here.elsewhere == 0
    assert away.curves["spot"].points[0].found == 0 and away.elsewhere == called


def test_a_model_without_a_map_finds_what_it_calls_ng() -> None:
    found = okng.sensitivity(model(Unlike(places=False)), images(8), kinds="spot", plants=8, sizes=[12, 30])
    assert not found.localises and found.elsewhere == 0
    assert all(point.found == point.called > 0 for point in found.curves["spot"].points)


LEFT = {"name": "left", "kind": "inspect", "points": [[0, 0], [0.3, 0], [0.3, 1], [0, 1]]}


def test_with_zones_defects_are_planted_where_is_inspected() -> None:
    """A plant elsewhere would be a miss whatever the model can."""
    zoned = model().with_rules({"zones": [LEFT]})
    whole, left, again = (
        okng.sensitivity(m, images(12), kinds="spot", plants=24, sizes=[4, 16]) for m in (model(), zoned, zoned)
    )
    assert left.trials == again.trials and len(left.trials) == len(whole.trials) == 48
    assert all(trial.recipe.window is None for trial in whole.trials)
    masks = [left.planted(trial.recipe).mask for trial in left.trials]
    assert all(mask[:, :39].sum() >= 0.5 * mask.sum() > 0 for mask in masks)  # of 128 columns 38.4
    changed = [
        (left.planted(t.recipe).pixels != pixels_of(left.sources[t.recipe.image], left.preprocess)) for t in left.trials
    ]
    assert all((change == mask).all() for change, mask in zip(changed, masks, strict=True))
    assert left.overall.points[1].share == whole.overall.points[1].share == 1
    unmoved = [trial.recipe for trial in left.trials if trial.recipe.window is None]
    assert 0 < len(unmoved) < 48 and set(unmoved) < {trial.recipe for trial in whole.trials}


def test_each_kind_is_planted_into_a_small_zone() -> None:
    corner = {"name": "c", "kind": "inspect", "points": [[0.8, 0.1], [0.95, 0.1], [0.95, 0.3], [0.8, 0.3]]}
    found = okng.sensitivity(model().with_rules({"zones": [corner]}), images(6), plants=3, sizes=[8])
    assert {kind: curve.points[0].plants for kind, curve in found.curves.items()} == dict.fromkeys(KINDS, 3)
    inside = np.zeros((96, 128), bool)
    inside[9:29, 102:122] = True
    assert all((found.planted(trial.recipe).mask & inside).any() for trial in found.trials)


def test_false_alarms_are_the_floor_of_the_curve() -> None:
    """A model that calls everything NG and gives no map finds what is not there: no size is found by its defect."""
    alarmed = model(Unlike(places=False)).with_threshold(0.1)
    found = okng.sensitivity(alarmed, images(8), kinds="spot", plants=8, sizes=[4, 12, 30])
    assert found.alarms == 8 and found.curves["spot"].floor >= 0.95
    assert found.curves["spot"].words() == "below 4 px"


def test_places_beside_the_defect_count_and_others_do_not() -> None:
    mask = np.zeros((96, 128), bool)
    mask[40:44, 64:66] = True
    cells = cells_at(mask, (12, 16))
    assert cells[4:7, 7:10].all() and cells.sum() == 9
    one = np.zeros((4000, 4000), bool)
    one[-1, -1] = True
    assert cells_at(one, (8, 8)).sum() == 4


def test_what_the_model_has_learnt_is_left_out() -> None:
    given = images(20)
    marks = [fingerprint(image) for image in given]
    learnt = model(seen=marks[:14], unlearnt=marks[8:14])
    found = okng.sensitivity(learnt, given, kinds="spot", plants=2, sizes=[20])
    assert (found.images, found.left_out, found.calibrating) == (12, 8, 6)
    assert {fingerprint(source) for source in found.sources} == set(marks[8:])
    with pytest.raises(OkngError, match=r"2 images are too few: the model has learnt 8 of .*`okng train --report"):
        okng.sensitivity(learnt, given[:10], kinds="spot")


def test_of_the_images_that_are_planted_into_those_that_set_the_threshold_are_counted() -> None:
    """Of many images `MOST` are planted into; what stood apart and was dropped has set nothing."""
    given = images(MOST + 40)
    marks = [fingerprint(image) for image in given]
    found = okng.sensitivity(model(seen=marks[:30], unlearnt=marks[:30]), given, kinds="spot", plants=1, sizes=[20])
    own = {fingerprint(source) for source in found.sources} & set(marks[:30])
    assert found.images == MOST and found.calibrating == len(own) < 30
    few = {"kinds": "spot", "plants": 1, "sizes": [20]}
    dropped = model(seen=marks[:6], unlearnt=marks[:6], calibrating=marks[2:6])
    assert okng.sensitivity(dropped, given[:9], **few).calibrating == 4  # type: ignore[arg-type]
    by_hand = dropped.with_threshold(7)
    assert okng.sensitivity(by_hand, given[:9], **few).calibrating == 0  # type: ignore[arg-type]


def test_only_those_are_counted_that_set_the_present_threshold() -> None:
    """Others may set it later, of a part of the image or of all of it, and the first ones again when zones go."""
    given = images(30)
    marks = [fingerprint(image) for image in given]
    zone = {"name": "left", "kind": "inspect", "points": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}
    fitted = model(seen=marks[:12], unlearnt=marks[6:12], calibrating=marks[6:12])
    zoned = fitted.with_rules({"zones": [zone]}, given[12:])
    back = zoned.with_rules(None)
    fresh = fitted.with_rules(None, given[20:])
    models = (fitted, 6), (fitted.with_rules({"zones": [zone]}), 6), (zoned, 18), (back, 6), (fresh, 10)
    for asked, count in (*models, (fresh.with_rules({"zones": [zone]}).with_rules(None), 10)):
        found = okng.sensitivity(asked, given, kinds="spot", plants=1, sizes=[20])
        assert (found.images, found.calibrating) == (24, count)


def test_what_cannot_be_measured_is_said() -> None:
    for arguments, message in (
        ({"kinds": "scrach"}, "did you mean scratch"),
        ({"kinds": []}, "no kind of defect"),
        ({"sizes": [1, 5]}, "2 px or more"),
        ({"plants": 0}, "plants is a whole number, 1 or more"),
        ({"plants": 1.5}, "plants is a whole number, 1 or more"),
        ({"seed": -1}, "a seed is"),
    ):
        with pytest.raises(OkngError, match=message):
            okng.sensitivity(model(), images(6), **arguments)  # type: ignore[arg-type]
    with pytest.raises(OkngError, match="4 images are too few"):
        okng.sensitivity(model(), images(4))
    plain = [np.full((96, 128), 120 + i, np.uint8) for i in range(5)]
    with pytest.raises(OkngError, match="one plain colour"):
        okng.sensitivity(model(), plain, kinds="smear")
    both = okng.sensitivity(model(), plain, kinds=["smear", "spot"], plants=2)
    assert both.unchanged == ("smear",) and list(both.curves) == ["spot"]


def test_files_of_8_and_16_bits_and_unreadable_ones(tmp_path: Path) -> None:
    """A planted image is read as the file is: the same score without a defect."""
    for i, image in enumerate(images(6)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        Image.fromarray(image.astype(np.uint16) * 16).save(tmp_path / f"deep{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    deep = Inspector(Unlike(), Preprocess("L", (96, 128), 8, white=4095), model().calibration, {})
    found = okng.sensitivity(deep, tmp_path, kinds="spot", plants=2)
    assert found.images == 12 and found.white == 4095 and found.preprocess is deep.preprocess
    assert pixels_of(tmp_path / "deep0.png", deep.preprocess).dtype == np.uint16
    np.testing.assert_array_equal(found.clean, deep.score_samples(found.sources))
    assert found.overall.points[-1].share > 0.8


@pytest.mark.parametrize(("white", "scale"), [(4095, 16.0), (1, 1 / 255)])
def test_files_of_floats_are_planted_into_as_the_model_reads_them(white: int, scale: float, tmp_path: Path) -> None:
    """By the model's white, also where a sample lies above it."""
    for i, image in enumerate(images(6)):
        floats = image.astype(np.float32) * np.float32(scale)
        floats[0, :2] = 1.02 * white, np.nan
        Image.fromarray(floats).save(tmp_path / f"{i}.tif")
    deep = Inspector(Unlike(), Preprocess("L", (96, 128), 8, white=white), model().calibration, {})
    found = okng.sensitivity(deep, tmp_path, kinds="spot", plants=2)
    np.testing.assert_array_equal(found.clean, deep.score_samples(found.sources))
    assert pixels_of(tmp_path / "0.tif", deep.preprocess).dtype == (np.uint16 if white > 255 else np.uint8)
    assert max(found.clean) < 5 and found.overall.points[-1].share > 0.8
    trial = found.trials[-1]
    assert deep.score_samples([found.planted(trial.recipe).pixels])[0] == pytest.approx(trial.score)


def test_folds_are_judged_each_by_its_own_detector() -> None:
    """As one look by one detector, where the detectors are alike; no image is looked at twice."""
    given, inspector = images(15), model()
    whole = Plan(given, inspector.preprocess, 0, QUIET, ("spot",), None, 4)
    whole.look(inspector, range(15), QUIET)
    parts = Plan(given, inspector.preprocess, 0, QUIET, ("spot",), None, 4)
    for fold in (range(0, 5), range(5, 9), range(9, 15)):
        parts.look(inspector, fold, QUIET)
    one, other = (plan.conclude(inspector.calibration, range(15)) for plan in (whole, parts))
    assert sorted(map(repr, one.trials)) == sorted(map(repr, other.trials))
    assert one.curves["spot"].points == other.curves["spot"].points and len(other.clean) == 15
    many = Plan(images(MOST + 20), inspector.preprocess, 0, QUIET, ("spot",), None, 1)
    assert len(many.sources) == MOST == len(set(many.images))


def test_examples_are_of_sizes_at_which_some_are_found(result: Any) -> None:
    shown = result.examples("spot")
    assert 1 <= len(shown) <= 3
    for point, recipe, inspection in shown:
        assert recipe.size == point.size and recipe.kind == "spot"
        planted = result.planted(recipe)
        assert model().score_samples([planted.pixels])[0] == pytest.approx(inspection.score)
        assert inspection.is_ng == (inspection.score > result.threshold)


PROGRAM = """
import sys
for name in ("torch", "timm", "scipy", "sklearn", "lightning_fabric"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
from tests.planted.test_measure import images, model
import okng
found = okng.sensitivity(model(), images(6), plants=2)
import okng.report.sensitivity
print(len(found.trials))
"""


def test_the_line_measures_without_torch() -> None:
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", PROGRAM, root], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and int(done.stdout) > 80, done.stderr
