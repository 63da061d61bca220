"""Tiles: cut at the image's own scale, never parted by a split, one map and one score for an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.test_cli import okng as run
from torch import Tensor

import okng
from okng.detectors.base import Collect, Detector, Scores
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess, fingerprint
from okng.inspection.reading.tiling import Blend, Tiled, corners, cut
from okng.inspection.verdict.calibration import Calibration
from okng.training.images.data import TrainingImages
from okng.training.images.tiles import TileImages

TILE = 32


class Rough(Detector):
    """Odd is a place whose neighbours differ more than usual.

    Nobody, nowhere. `power`: what differences are raised to.
    """

    usual: Tensor

    def __init__(self, power: float = 2.0):
        super().__init__()
        self.power = power
        self.register_buffer("usual", torch.ones(()))

    def phases(self) -> Any:
        found: list[Tensor] = []

        def finish() -> None:
            self.usual = torch.cat(found).mean()

        yield Collect("roughness", lambda batch: found.append(self.steps(batch.images).mean((1, 2))), finish)

    def update_phases(self) -> Any:
        return self.phases()  # of the new images alone

    def steps(self, images: Tensor) -> Tensor:
        """How much each place differs from the one to its right, (B, h, w)."""
        grey = images.mean(1)
        return torch.nn.functional.pad((grey[:, :, 1:] - grey[:, :, :-1]).abs(), (0, 1)) ** self.power

    def forward(self, images: Tensor) -> Scores:
        odd = torch.nn.functional.avg_pool2d(self.steps(images)[:, None], 4)[:, 0] / (self.usual + 1e-6)
        return Scores(odd.amax((1, 2)), odd)


def ground(count: int, seed: int, side: int = 160) -> list[np.ndarray]:
    """Smooth grey images with a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = [110 + 40 * np.sin(2 * np.pi * (rng.uniform(1, 2) * x + rng.uniform(0, 1) * y)) for _ in range(count)]
    return [(wave + rng.normal(0, 1, wave.shape)).astype(np.uint8) for wave in waves]


def scratched(image: np.ndarray, at: tuple[int, int] = (60, 100)) -> np.ndarray:
    """A scratch of 1 by 12 px, a little brighter."""
    marked = image.copy()
    marked[at[0] : at[0] + 12, at[1]] += 12
    return marked


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"), [(100, 75, 32, 8), (64, 64, 32, 0), (33, 32, 32, 16), (10, 90, 32, 4)]
)
def test_tiles_cover_the_image_and_overlap(height: int, width: int, tile: int, overlap: int) -> None:
    seen = np.zeros((max(height, tile), max(width, tile)), int)
    places = corners(height, width, tile, overlap)
    for top, left in places:
        assert top + tile <= max(height, tile) and left + tile <= max(width, tile)
        seen[top : top + tile, left : left + tile] += 1
    assert seen.all() and len(places) == len(set(places))
    for along in ({top for top, _ in places}, {left for _, left in places}):
        assert all(b - a <= tile - overlap for a, b in zip(sorted(along), sorted(along)[1:], strict=False))


def test_what_an_image_lacks_is_mirrored() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    tile = cut(image, (0, 0), 6, (6, 6))[:, :, 0]
    np.testing.assert_array_equal(tile[:3, :4], image[:, :, 0])
    np.testing.assert_array_equal(tile[3], tile[2])
    np.testing.assert_array_equal(tile[:, 4], tile[:, 3])
    assert cut(image, (0, 0), 6, (2, 2)).shape == (2, 2, 1)


@pytest.mark.parametrize("overlap", [0, 8, 16])
def test_maps_of_tiles_become_the_map_of_the_image(overlap: int) -> None:
    rng = np.random.default_rng(0)
    whole = rng.random((24, 31)).astype(np.float32)  # of an image of 96 x 124, cells of 4 px
    blend = Blend((96, 124), 32, overlap, (8, 8))
    for top, left in corners(96, 124, 32, overlap):
        blend.add((top, left), whole[top // 4 : top // 4 + 8, left // 4 : left // 4 + 8])
    np.testing.assert_allclose(blend.map(), whole, rtol=1e-5)
    differing = Blend((32, 56), 32, 8, (8, 8))  # two tiles that disagree: from one to the other without a step
    differing.add((0, 0), np.zeros((8, 8)))
    differing.add((0, 24), np.ones((8, 8)))
    across = differing.map()[0]
    assert (np.diff(across) >= 0).all() and np.diff(across).max() < 0.6 and across[5] == 0 and across[8] == 1


def test_memory_holds_no_more_tiles_than_asked() -> None:
    sizes = []

    def engine(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(pixels))
        return pixels.max((1, 2, 3)).astype(float), pixels[:, ::4, ::4, 0].astype(np.float32)

    image = np.zeros((1, 400, 400, 1), np.uint8)
    image[0, 321, 77] = 9
    scores, maps = Tiled(engine, 32, 8, (32, 32), 5)(image)  # type: ignore[arg-type]
    assert max(sizes) == 5 and sum(sizes) == len(corners(400, 400, 32, 8)) and scores[0] == 9
    assert maps is not None and maps.shape == (1, 100, 100)
    lost = Tiled(lambda pixels: (np.full(len(pixels), np.nan), None), 32, 8, (32, 32), 5)(image)  # type: ignore[arg-type]
    assert np.isnan(lost[0][0])  # what is no number is not hidden by other tiles


@pytest.fixture(scope="module")
def tiled() -> Inspector:
    return okng.fit(ground(30, 1), Rough, tile=TILE, overlap=8, promise="strict", false_alarm_rate=0.2)


def test_a_small_scratch_that_the_whole_image_hides_is_found(tiled: Inspector) -> None:
    whole = okng.fit(ground(30, 1), Rough, size=TILE, promise="strict", false_alarm_rate=0.2)
    bad = [scratched(image) for image in ground(6, 2)]
    assert sum(found.is_ng for found in whole.inspect(bad)) <= 3
    for found in tiled.inspect(bad):
        x, y = found.regions[0].peak
        assert found.is_ng and abs(x - 100) <= 6 and 56 <= y <= 76 and found.map is not None
        assert found.map.shape == (40, 40) and found.score == pytest.approx(found.map.max(), rel=0.1)
    assert sum(found.is_ng for found in tiled.inspect(ground(20, 3))) <= 9


def test_an_image_and_not_its_tiles_calibrates(tiled: Inspector) -> None:
    """The scores are highest values over all tiles of images that gave no tile to learn."""
    provenance = tiled.manifest["provenance"]
    assert provenance["images"] == 30 and provenance["held_out"] == 30 - provenance["learnt_from"] >= 5
    held_out = set(tiled.manifest["unlearnt"])
    images = [image for image in ground(30, 1) if fingerprint(image) in held_out]
    scores, peaks = tiled.scores_and_peaks(images)
    assert len(images) == provenance["held_out"] and set(tiled.calibration.scores) <= set(scores)
    assert peaks is not None and tiled.calibration.peaks is not None and set(tiled.calibration.peaks) <= set(peaks)


def test_all_tiles_of_an_image_are_learnt_or_none(tiled: Inspector) -> None:
    images = TrainingImages(ground(5, 4), tiled.preprocess, products=[0, 0, 1, 1, 1])
    tiles = TileImages(images)
    assert tiles.products.tolist() == [0] * 98 + [1] * 147 and tiles.of([1, 3]).products.tolist() == [0] * 49 + [1] * 49
    assert len(tiles) == 5 * 49 and tiles.preprocess.inputs(160, 160) == 49
    part = tiles.of([1, 3])
    assert set(part.parents) == {1, 3} and len(part) == 98 and part.places == [*range(49, 98), *range(147, 196)]
    top, left = part.corners[7]
    np.testing.assert_array_equal(part[7][0].numpy(), images.sources[1][top : top + TILE, left : left + TILE])
    assert len(set(tiles.fingerprints())) == len(tiles) and len(set(tiles.alike())) == 5
    assert set(tiles.fingerprints()) >= set(part.fingerprints())


@pytest.mark.parametrize("settings", [{}, {"holdout": 0}, {"group_by": [i // 3 for i in range(24)]}])
def test_every_way_of_holding_out_takes_tiles(settings: dict[str, Any]) -> None:
    model = okng.fit(ground(24, 5, side=96), Rough, tile=48, overlap=0, **settings)
    assert model.preprocess == Preprocess("L", (48, 48), 1, 255, 48, 0)
    counted = len(model.calibration.scores)
    assert counted == 8 if "group_by" in settings else 15 <= counted <= 24  # some are near copies


def test_with_tiles_whole_images_have_no_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be kept beside their tiles, which are cut from the originals and take as much."""
    made, init = [], TileImages.__init__
    monkeypatch.setattr(TileImages, "__init__", lambda self, *given: made.append(self) or init(self, *given))
    model = okng.fit(ground(6, 1, side=96), Rough, tile=48, overlap=0)
    okng.update(model, ground(2, 2, side=96))
    assert [len(tiles._kept) for tiles in made] == [6 * 4, 2 * 4]
    assert not any(tiles.images._kept for tiles in made)


def test_updates_zones_and_plants_take_tiles(tmp_path: Path) -> None:
    model = okng.fit(ground(20, 1, side=96), Rough, tile=64, promise="strict", false_alarm_rate=0.2)
    updated = okng.update(model, ground(3, 6, side=96))
    assert updated.preprocess == model.preprocess and updated.manifest["provenance"]["images"] == 23
    corner = {"zones": [{"name": "c", "kind": "ignore", "points": [[0.5, 0.2], [0.8, 0.2], [0.8, 0.7], [0.5, 0.7]]}]}
    (found,) = model.with_rules(corner).inspect([scratched(ground(1, 7, side=96)[0], (40, 60))])
    assert found.map is not None and found.score == found.map.max()
    assert not any(54 < region.peak[0] < 70 and 26 < region.peak[1] < 60 for region in found.regions)
    result = okng.sensitivity(model, ground(5, 8, side=96), kinds=["scratch"], plants=1)
    assert result.overall.points[-1].found >= 0
    model.save(tmp_path / "t.okng")
    okng.export(model, tmp_path / "t.onnx")
    images = [scratched(image, (40, 60)) for image in ground(3, 9, side=96)]
    expected = [found.score for found in okng.load(tmp_path / "t.okng", detector=Rough).inspect(images)]
    exported = list(okng.load(tmp_path / "t.onnx").inspect(images))
    np.testing.assert_allclose([found.score for found in exported], expected, rtol=1e-4)
    assert exported[0].verdict == next(model.inspect(images)).verdict and exported[0].size == (96, 96)


def test_the_command_line_says_what_tiles_cost(tmp_path: Path) -> None:
    for i, image in enumerate(ground(12, 1, side=96)):
        (tmp_path / "ok").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "ok" / f"{i}.png")
    words = ("-d", "autoencoder", "-p", "epochs=1", "--device", "cpu", "-o", tmp_path / "t.okng")
    done = run("train", tmp_path / "ok", "--tile", 64, "--overlap", 16, *words)
    assert done.returncode == 0, done.stderr
    assert "tiles of 64 px, overlap 16: an image is 4 of them; 48 tiles to learn from" in done.stderr
    assert run("inspect", tmp_path / "t.okng", tmp_path / "ok", "--report", tmp_path / "r").returncode == 0
    assert "64 px, overlap 16 px" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tile": 8}, "16 to 8192 px"),
        ({"tile": 3.5}, "16 to 8192 px"),
        ({"tile": 32, "overlap": 17}, "overlap by 0 to 16"),
        ({"tile": 32, "overlap": -1}, "overlap by 0 to 16"),
        ({"overlap": 4}, "give tile too"),
        ({"tile": 160}, "no smaller than the images"),
        ({"tile": 32, "time_per_image": 1}, "of whole images"),
    ],
)
def test_what_can_not_be_tiled_is_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OkngError, match=said):
        okng.fit(ground(4, 1), Rough, **settings)


def test_a_file_whose_tiles_make_no_sense_is_refused() -> None:
    whole = Preprocess("L", (32, 32), 1, 255, 64, 8).to_json()
    assert Preprocess.from_json(whole).tile == 64
    for spoilt in ({"tile": 0}, {"tile": "64"}, {"overlap": 60}, {"size": 32}, {"tile": 1 << 30}):
        with pytest.raises(OkngError, match="not one this okng knows"):
            Preprocess.from_json({**whole, **spoilt})
    before = {name: value for name, value in Preprocess("L", 32).to_json().items() if name not in ("tile", "overlap")}
    assert Preprocess.from_json(before) == Preprocess("L", 32)  # a file of an earlier okng
    calibration = Calibration.fit(np.arange(20.0), None, "split", 0.1)
    assert "64x64" not in repr(Inspector(None, Preprocess.from_json(whole), calibration, {}))  # type: ignore[arg-type]
