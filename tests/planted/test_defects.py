from __future__ import annotations

import numpy as np
import pytest

from okng.errors import OkngError
from okng.planted.defects import KINDS, OPACITY, TOLERANCE, plant

SURFACE = ("scratch", "spot", "stain", "dent", "smear", "texture", "missing")


def picture(kind: str = "colour", seed: int = 0) -> np.ndarray:
    """A bright rectangle on a darker, grainy ground: something to warp, to remove and to move."""
    rng = np.random.default_rng(seed)
    image = rng.normal(90, 6, (96, 120, 3)) + np.linspace(0, 20, 120)[None, :, None]
    image[30:70, 40:85] = rng.normal([180, 150, 120], 6, (40, 45, 3))
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if kind == "grey":
        return pixels[:, :, 0]
    if kind == "16-bit":
        return pixels[:, :, 0].astype(np.uint16) * 200 + 7
    return pixels


@pytest.mark.parametrize("depth", ["colour", "grey", "16-bit"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_is_what_the_mask_says(kind: str, depth: str) -> None:
    image, other = picture(depth), picture(depth, seed=1)
    before = image.copy()
    changed = 0
    for seed, size in enumerate((3, 8.5, 30, 80)):
        planted = plant(image, kind, size, seed, other=other)
        assert planted.pixels.dtype == image.dtype and planted.pixels.shape == image.shape
        white = 255 if image.dtype == np.uint8 else 65535
        difference = np.abs(planted.pixels.astype(int) - image).reshape(*image.shape[:2], -1).max(2)
        np.testing.assert_array_equal(planted.mask, difference > 0)
        assert difference[planted.mask].min(initial=white) > TOLERANCE * white
        changed += planted.mask.any()
        again = plant(image, kind, size, seed, other=other)
        np.testing.assert_array_equal(again.pixels, planted.pixels)
    assert changed >= 3
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stronger_defect_changes_no_pixel_less_and_none_is_the_image_itself(kind: str) -> None:
    for depth in ("colour", "16-bit"):
        image, last = picture(depth), None
        for opacity in (0, 0.2, 0.5, 0.8, 1):
            planted = plant(image, kind, 25, 3, opacity=opacity, other=picture(depth, seed=1))
            change = np.abs(planted.pixels.astype(int) - image)
            if opacity == 0:
                assert planted.pixels.tobytes() == image.tobytes() and not planted.mask.any()
            assert last is None or (change >= last).all()
            last = change
        assert last is not None and last.any()


@pytest.mark.parametrize("kind", SURFACE)
def test_the_size_is_the_longest_side(kind: str) -> None:
    image = np.random.default_rng(0).integers(60, 190, (200, 200, 3)).astype(np.uint8)
    other = np.random.default_rng(1).integers(60, 190, (200, 200, 3)).astype(np.uint8)
    for size in (10, 40, 90):
        lengths = []
        for seed in range(6):
            rows, columns = np.nonzero(plant(image, kind, size, seed, other=other).mask)
            spread = np.stack([rows, columns], 1) @ [[0, 1, 0.7071, 0.7071], [1, 0, 0.7071, -0.7071]]
            lengths.append(np.ptp(spread, axis=0).max())
        corners = 1.2 if kind == "missing" else 1.05  # a turned rectangle is longer from corner to corner
        assert max(lengths) <= size * corners + 2, (kind, size, lengths)
        assert np.median(lengths) >= 0.6 * size - 2, (kind, size, lengths)


def test_larger_defects_change_more_pixels() -> None:
    image, other = picture(), picture(seed=1)
    for kind in KINDS:
        counts = [
            np.mean([plant(image, kind, size, seed, other=other).mask.sum() for seed in range(8)])
            for size in (6, 15, 40)
        ]
        assert counts[0] < counts[1] < counts[2], kind


def test_dark_places_get_bright_defects_and_bright_ones_dark() -> None:
    for level, sign in ((20, 1), (235, -1)):
        image = np.full((80, 80), level, np.uint8)
        for kind in ("scratch", "spot", "stain"):
            planted = plant(image, kind, 30, 5)
            change = planted.pixels.astype(int) - level
            assert (np.sign(change[planted.mask]) == sign).all() and np.abs(change).max() > 0.5 * OPACITY[kind] * 200


def test_no_sample_is_brighter_than_the_bits_in_use() -> None:
    """A camera of 12 bits: a value above 4095 would have okng read all of the image against another white."""
    image = picture("grey").astype(np.uint16) * 10 + 100  # to 2,200
    for kind in KINDS:
        for seed in range(3):
            assert plant(image, kind, 30, seed).pixels.max() <= 4095
    brightest = max(plant(image, "spot", 30, seed, opacity=1).pixels.max() for seed in range(6))
    assert 3900 <= brightest <= 4095
    assert plant(image, "spot", 30, 0, opacity=1, white=1023).pixels.max() <= max(1023, image.max())


def test_parts_are_taken_where_the_image_has_some() -> None:
    image = np.zeros((150, 150, 3), np.uint8)
    image[60:90, 60:90] = 200
    for kind in ("missing", "displaced", "doubled", "smear"):
        for seed in range(12):
            planted = plant(image, kind, 20, seed)
            rows, columns = np.nonzero(planted.mask)
            assert len(rows), (kind, seed)
            far = 60 if kind == "doubled" else 35
            assert (np.hypot(rows - 75, columns - 75) < far + 15).all(), (kind, seed)
    gone = [plant(image, "missing", 20, seed) for seed in range(12)]
    assert all(
        planted.pixels.sum() < image.sum() for planted in gone if (planted.mask & (image[:, :, 0] > 0)).sum() > 200
    )
    assert all(plant(image, "doubled", 20, seed).pixels.max() == 200 for seed in range(12))


def test_where_there_is_nothing_to_change_nothing_changes() -> None:
    image = np.full((64, 64), 120, np.uint8)
    for kind in ("smear", "texture", "missing", "displaced", "doubled"):
        planted = plant(image, kind, 20, 1)
        assert not planted.mask.any() and planted.pixels.tobytes() == image.tobytes(), kind


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (3, 3, 3), (5, 200), (28, 28)])
def test_images_of_any_shape(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    for kind in KINDS:
        for size in (2, 9, 300):
            planted = plant(image, kind, size, 2)
            assert planted.pixels.shape == shape and planted.mask.shape == shape[:2]


def test_what_cannot_be_planted_is_said() -> None:
    image = picture()
    for arguments, message in (
        (("scrach", 10, 0), "did you mean scratch"),
        (("spot", 1, 0), "2 px or more"),
        (("spot", float("nan"), 0), "2 px or more"),
        (("spot", 10, -1), "a seed is"),
        (("spot", 10, 0, 1.5), "from 0 to 1"),
    ):
        with pytest.raises(OkngError, match=message):
            plant(image, *arguments)  # type: ignore[arg-type]
    with pytest.raises(OkngError, match="8 or 16 bits"):
        plant(image / 255, "spot", 10, 0)
