"""What the corruptions promise: sizes, places, levels, and nothing but the seed decides."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from okng.datasets.corruptions import (
    CORRUPTIONS,
    NOISE,
    closed_curve,
    corrupt,
    drops_mask,
    scratch_mask,
    stain_mask,
)

LOCAL = ("scratch", "drops", "stain")


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("side", [28, 64, 256])
def test_stains_are_one_piece_between_one_and_twelve_hundredths_of_the_side(side: int) -> None:
    """Half axes a, b uniform in [1, 12] % of the side: the mean area is pi times the product of their means."""
    low, high = max(1.0, 0.01 * side), 0.12 * side
    areas, centres = [], []
    for seed in range(400):
        mask = stain_mask(side, side, rng(seed))
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        y, x = mask.nonzero()
        longest = 2 * 1.15 * high + 3  # the points are moved by up to a tenth, and the curve's own pixels
        assert np.ptp(y) <= longest and np.ptp(x) <= longest
        areas.append(mask.sum())
        centres.append((y.mean() / side, x.mean() / side))
    rim = np.pi * (low + high)  # the outline's own pixels
    assert np.mean(areas) == pytest.approx(np.pi * ((low + high) / 2) ** 2 + rim, rel=0.12)
    assert min(areas) < 0.12 * max(areas) or side == 28
    np.testing.assert_allclose(np.mean(centres, axis=0), 0.5, atol=0.04)
    assert np.min(centres) > 0 and np.std(centres, axis=0).min() > 0.2


def test_stains_are_not_ellipses() -> None:
    """An ellipse fills pi / 4 of its box along its axes; these have bays, so their hulls are larger than they are."""
    solid = []
    for seed in range(30):
        mask = stain_mask(256, 256, rng(seed))
        y, x = mask.nonzero()
        covariance = np.cov(np.stack([y, x]))
        solid.append(mask.sum() / (4 * np.pi * np.sqrt(np.linalg.det(covariance))))  # 1 for every ellipse
    assert np.mean(solid) < 0.995 and np.min(solid) > 0.9


def test_the_curve_is_cubic_closed_and_passes_through_its_points() -> None:
    points = rng(0).normal(size=(20, 2))
    curve = closed_curve(points, finer=10)
    assert curve.shape == (200, 2)
    np.testing.assert_allclose(curve[::10], points, atol=1e-12)
    third = np.diff(np.concatenate([curve, curve[:40]]), n=3, axis=0)[:198].reshape(-1, 2)
    np.testing.assert_allclose(third[3:6], third[3:4].repeat(3, axis=0), atol=1e-9)  # constant within one piece
    second = np.diff(np.concatenate([curve[-12:], curve[:12]]), n=2, axis=0)
    assert np.abs(np.diff(second, axis=0)).max() < 0.1 * np.abs(np.diff(curve, axis=0)).max()  # no kink at the end
    np.testing.assert_allclose(closed_curve(np.roll(points, 3, axis=0)), np.roll(curve, 30, axis=0), atol=1e-12)


@pytest.mark.parametrize("side", [28, 64, 256])
def test_scratches_are_thin_and_drops_are_round_spots(side: int) -> None:
    for seed in range(100):
        line = scratch_mask(side, side, rng(seed))
        assert line.any() and line.sum() < 0.02 * side * side + side
        thick = max(1, round(3 * side / 256))
        assert not ndimage.binary_erosion(line, np.ones((2 * thick + 2,) * 2)).any()
        spots = drops_mask(side, side, rng(seed))
        radius = (0.01 * side + side / 256, 0.02 * side + side / 256)
        assert 2 * radius[0] ** 2 < spots.sum() < 10 * np.pi * (radius[1] + 1) ** 2
    share = np.mean([drops_mask(side, side, rng(seed)).mean() for seed in range(100)])
    assert 0.008 < share < 0.03  # whole pixels make them larger at 28
    assert np.mean([ndimage.label(drops_mask(256, 256, rng(seed)))[1] for seed in range(50)]) > 2


@pytest.mark.parametrize("name", LOCAL)
def test_one_grey_level_in_one_place_and_the_rest_untouched(name: str) -> None:
    image = np.linspace(0, 1, 64)[:, None, None] * np.ones((64, 64, 3))
    levels = []
    for seed in range(200):
        (spoilt,) = corrupt(image[None], name, [seed])
        place = (spoilt != image).any(-1)
        assert 0 < place.mean() < 0.12
        values = spoilt[place]
        assert values.min() >= 0 and values.max() <= 1
        assert values.std() < (0.12 if name == "scratch" else 0.03)
        levels.append(values.mean())
    assert np.min(levels) == pytest.approx(10 / 255, abs=0.05) and np.max(levels) == pytest.approx(220 / 255, abs=0.05)
    assert np.mean(levels) == pytest.approx(115 / 255, abs=0.05)


def test_gaussian_noise_has_the_variance_of_the_authors_defaults() -> None:
    (spoilt,) = corrupt(np.full((1, 64, 64, 3), 0.5), "gaussian", [0])
    assert (spoilt - 0.5).std() == pytest.approx(NOISE, rel=0.02) and pytest.approx(0.01) == NOISE**2


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_only_the_seed_decides(name: str, kind: type) -> None:
    images = (rng(0).uniform(0, 1, (4, 28, 40, 1)) * (255 if kind is np.uint8 else 1)).astype(kind)
    before = images.copy()
    spoilt = corrupt(images, name, [5, 6, 7, 5])
    assert spoilt.dtype == kind and spoilt.shape == images.shape
    assert np.array_equal(images, before)  # the given images stay
    assert np.array_equal(corrupt(images[2:3], name, [7])[0], spoilt[2])  # whatever else is in the batch
    assert np.array_equal(spoilt, images) == (name == "none")
    if name != "none":
        assert not np.array_equal(corrupt(images[:1], name, [6]), spoilt[:1])


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(CORRUPTIONS)),
    st.integers(8, 90),
    st.integers(8, 90),
    st.sampled_from([1, 3]),
    st.integers(0),
)
def test_every_shape(name: str, height: int, width: int, channels: int, seed: int) -> None:
    spoilt = corrupt(np.full((1, height, width, channels), 128, np.uint8), name, [seed])
    assert spoilt.shape == (1, height, width, channels)
    assert name != "none" or (spoilt == 128).all()


def test_no_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; sys.modules['scipy'] = None; import okng.datasets.corruptions"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
