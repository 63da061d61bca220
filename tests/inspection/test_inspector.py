"""How many images the engine is handed at once."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest
from PIL import Image

from okng.errors import OkngError, OkngWarning
from okng.inspection.inspector import Inspector, each_image
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.likeness import Traits, describe


class Counting:
    """An engine that notes the size of each batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        self.batches.append(len(pixels))
        return np.zeros(len(pixels)), None


@pytest.mark.parametrize(
    ("size", "asked", "batches"),
    [
        ((28, 28), None, [64, 64, 2]),
        (128, None, [32] * 4 + [2]),
        ((600, 500), None, [8] * 16 + [2]),
        (28, 1, [1] * 130),
    ],
)
def test_small_inputs_go_in_larger_batches(size: int | tuple[int, int], asked: int | None, batches: list[int]) -> None:
    engine = Counting()
    inspector = Inspector(engine, Preprocess("L", size), Calibration.fit(np.ones(9), None, "split", 0.5), {})  # type: ignore[arg-type]
    images = np.zeros((130, 8, 8), np.uint8)
    assert [inspection.index for inspection in inspector.inspect(images, asked)] == list(range(130))
    assert engine.batches == batches


@pytest.mark.parametrize("asked", [0, -1, 2.5, "3"])
def test_no_batch_at_all_is_refused(asked: int) -> None:
    inspector = Inspector(Counting(), Preprocess("L", 8), Calibration.fit(np.ones(9), None, "split", 0.5), {})  # type: ignore[arg-type]
    with pytest.raises(OkngError, match="batch_size is a whole number, 1 or more, not"):
        list(inspector.inspect(np.zeros((2, 8, 8), np.uint8), asked))


class Shapes(Counting):
    """An engine that notes the shape of each batch, and can't be used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        self.shapes.append(pixels.shape)
        if len(self.shapes) > 1:
            raise RuntimeError("no memory")
        return super().__call__(pixels)


@pytest.mark.parametrize(
    ("preprocess", "shape"),
    [
        (Preprocess("RGB", 256, 32), (1, 192, 352, 3)),
        (Preprocess("L", (28, 28)), (1, 28, 28, 1)),
        (Preprocess("L", 64, 8, tile=100), (18, 64, 64, 1)),
    ],
)
def test_warmed_up_an_engine_has_met_what_an_image_as_learnt_becomes(
    preprocess: Preprocess, shape: tuple[int, ...]
) -> None:
    """Compiling for a shape takes a hundred times as long as an image: the first part on the line would wait for it."""
    engine, other = Shapes(), Shapes()
    calibration = Calibration.fit(np.ones(9), None, "split", 0.5)
    like = {"learnt_images": {"height": [300, 300], "width": [600, 600]}}
    inspector = Inspector(engine, preprocess, calibration, like)  # type: ignore[arg-type]
    inspector.warm_up()
    image = np.zeros((300, 600), np.uint8)
    list(Inspector(other, preprocess, calibration, {}).inspect(image))  # type: ignore[arg-type]
    assert engine.shapes == other.shapes == [shape]
    inspector.warm_up()  # what goes wrong there is for the first image to tell
    assert len(engine.shapes) == 2


class Slow(Counting):
    """An engine that takes its time."""

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        sleep(0.04)
        return super().__call__(pixels)


def test_times_are_of_one_image_in_milliseconds() -> None:
    inspector = Inspector(Slow(), Preprocess("L", 16), Calibration.fit(np.ones(9), None, "split", 0.5), {})  # type: ignore[arg-type]
    start = perf_counter()
    scoring = [found.timing["score"] for found in inspector.inspect(np.zeros((6, 8, 8), np.uint8), 4)]
    assert 80 <= sum(scoring) + 0.01 < 1000 * (perf_counter() - start) and len(set(scoring[:4])) == 1


class Brightness:
    """Scores an image by its mean."""

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        return pixels.mean((1, 2, 3)), None


def by_brightness(**manifest: object) -> Inspector:
    return Inspector(Brightness(), Preprocess("L", 16), Calibration.fit(np.arange(100.0), None, "split", 0.5), manifest)  # type: ignore[arg-type]


class Bright:
    """Scores an image by its highest pixel, and each place by its own."""

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return pixels.max((1, 2, 3)).astype(float), pixels[:, :, :, 0].astype(np.float32)


def test_an_inspection_says_what_the_calibration_makes_of_score_and_map() -> None:
    calibration = Calibration.fit(np.arange(99.0), np.arange(99.0), "split", 0.05)
    inspector = Inspector(Bright(), Preprocess("L", (16, 16)), calibration, {})  # type: ignore[arg-type]
    spotted = np.full((16, 16), 10, np.uint8)
    spotted[4:8, 8:12] = 200
    ok, ng = inspector.inspect(np.stack([np.full((16, 16), 10, np.uint8), spotted]).repeat(2, 1).repeat(2, 2))
    assert (ok.verdict, ok.score, ok.p_value, ok.regions) == ("OK", 10, 0.9, ())
    assert (ng.verdict, ng.score, ng.p_value, ng.size) == ("NG", 200, 0.01, (32, 32))
    (region,) = ng.regions
    assert region.score == 200 and np.abs(np.subtract(region.box, (16, 8, 24, 16))).max() <= 2
    assert ng.map is not None and ng.map[5:7, 9:11].min() == 200 and ng.map[12, 3] == 10


def test_results_are_named_by_page(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((8, 8), 10 * i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "b.png")
    found = [(Path(str(each.path)).name, each.score) for each in by_brightness().inspect(tmp_path)]
    assert found == [("a.tif[0]", 0), ("a.tif[1]", 10), ("a.tif[2]", 20), ("b.png", 10)]


def test_images_unlike_those_learnt_are_told_of_when_all_are_inspected() -> None:
    inspector = by_brightness(learnt_images=describe([Traits((320, 320), True, 255, None, 20.0)]))
    with pytest.warns(OkngWarning, match="the images are unlike those learnt from: 64x64 against 320x320"):
        assert len(list(inspector.inspect(np.full((7, 64, 64), 20, np.uint8)))) == 7
    with pytest.warns(OkngWarning, match="all 5 images are NG: if most of them are good"):
        list(by_brightness().inspect(np.full((5, 64, 64), 200, np.uint8)))


def test_another_depth_is_read_by_its_own_bits_and_told_of(tmp_path: Path) -> None:
    """To a model of 8-bit images a 12-bit one was white."""
    inspector = by_brightness(learnt_images=describe([Traits((8, 8), True, 255, "PNG", 50.0)]))
    ramp = np.linspace(0, 1600, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    with pytest.warns(OkngWarning, match="12-bit samples against 8-bit"):
        (found,) = inspector.inspect(tmp_path)
    assert found.score == pytest.approx(50, abs=2)


def test_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    for missing in (tmp_path / "pars", str(tmp_path / "pars"), tmp_path / "a.png", "~/no such folder"):
        with pytest.raises(OkngError, match="does not exist; give images or folders of images"):
            each_image(missing)


def test_home_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    assert list(each_image("~")) == list(each_image(["~/a.png"])) == [tmp_path / "a.png"]


def test_a_list_of_images_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png\na.png\n")
    assert list(each_image(tmp_path / "list.txt")) == [tmp_path / "a.png"] * 2
