"""Five ways to spoil an OK image, for detectors that learn to undo it: nothing, noise, a scratch, drops, a stain.

The corruptions of Collin, De Vleeschouwer, "Improved Anomaly Detection by Training an Autoencoder with Skip
Connections on Images Corrupted with Stain-shaped Noise", ICPR 2020. Sizes are shares of the shorter side, so that one
corruption looks alike at 28 and at 256 px; what the authors give in pixels is taken as of 256 px.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

SIDE = 256  # the authors' image side, to which lengths in pixels belong
LEVELS = (10 / 255, 220 / 255)  # between which the one grey level of a spoilt place lies
GRAIN = (0.05 / 255) ** 0.5  # standard deviation of the noise on that level, in stains and drops
NOISE = 0.1  # standard deviation of the Gaussian noise

STAIN_AXES = (0.01, 0.12)  # half axes of the ellipse
STAIN_POINTS = 20
IRREGULARITY = 0.1  # how far a point moves along each axis, of the mean half axis
FINER = 10  # points of the curve for each point of the ellipse

SCRATCH_WIDTH = 3  # px at 256
SCRATCH_GRAIN = 20 / 255

DROPS = 10
DROP_RADII = (0.01, 0.02)
DROP_SPREAD = 2.0  # standard deviation of the drops' centres, in radii


def none(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image itself."""
    return image


def gaussian(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise on every value, clipped to [0, 1]."""
    return np.clip(image + rng.normal(0, NOISE, image.shape), 0, 1)


def scratch(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One thin line, wave or parabola."""
    return _painted(image, scratch_mask(image.shape[0], image.shape[1], rng), SCRATCH_GRAIN, rng)


def drops(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ten small discs around one point."""
    return _painted(image, drops_mask(image.shape[0], image.shape[1], rng), GRAIN, rng)


def stain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One irregular blob of one grey level."""
    return _painted(image, stain_mask(image.shape[0], image.shape[1], rng), GRAIN, rng)


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "none": none,
    "gaussian": gaussian,
    "scratch": scratch,
    "drops": drops,
    "stain": stain,
}


def corrupt(images: np.ndarray, name: str, seeds: Sequence[int]) -> np.ndarray:
    """Spoil each of `images` (B, H, W, C), uint8 or floats in [0, 1], by corruption `name` and its own seed.

    The type stays; what an image becomes does not depend on the others.
    """
    spoil = CORRUPTIONS[name]
    scale = 255 if images.dtype == np.uint8 else 1
    spoilt = np.empty_like(images)
    for i, seed in enumerate(seeds):
        values = spoil(images[i] / scale, np.random.default_rng(seed))  # (H, W, C)
        spoilt[i] = np.rint(values * scale) if scale > 1 else values
    return spoilt


def stain_mask(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Where a stain lies, bool (height, width): the inside of a smooth curve around a disturbed ellipse.

    The ellipse has random half axes, rotation and place, inside the image. Twenty of its points are moved at random,
    put in the order of their angles around the centre and joined by cubic interpolation, which is filled.
    """
    side = min(height, width)
    low, high = (max(1.0, share * side) for share in STAIN_AXES)
    a, b = rng.uniform(low, high, 2)
    rotation = rng.uniform(0, 2 * np.pi)
    margin = max(a, b)
    centre = rng.uniform(margin, (width - margin, height - margin))  # (2,): x, y
    angles = np.arange(STAIN_POINTS) * (2 * np.pi / STAIN_POINTS)
    turn = np.array([[np.cos(rotation), np.sin(rotation)], [-np.sin(rotation), np.cos(rotation)]])
    points = np.stack([a * np.cos(angles), b * np.sin(angles)], 1) @ turn  # (20, 2) around the centre
    points += IRREGULARITY * (a + b) / 2 * rng.uniform(-1, 1, points.shape)
    points = points[np.argsort(np.arctan2(points[:, 1], points[:, 0]))]
    return _filled(closed_curve(points) + centre, height, width)


def closed_curve(points: np.ndarray, finer: int = FINER) -> np.ndarray:
    """The closed cubic spline through `points` (n, 2), as (n * finer, 2) places on it; every `finer`-th is a point.

    Coefficients c of the uniform cubic B-spline: (c[i-1] + 4 c[i] + c[i+1]) / 6 = points[i] around the circle.
    """
    n = len(points)
    response = (4 + 2 * np.cos(2 * np.pi * np.arange(n) / n)) / 6
    c = np.fft.ifft(np.fft.fft(points, axis=0) / response[:, None], axis=0).real  # (n, 2)
    t = np.arange(finer) / finer
    basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6  # (4, finer)
    around = np.stack([np.roll(c, shift, axis=0) for shift in (1, 0, -1, -2)])  # (4, n, 2)
    curve: np.ndarray = np.einsum("kf,knd->nfd", basis, around)  # (n, finer, 2)
    return curve.reshape(n * finer, 2)


def scratch_mask(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Where a scratch lies, bool (height, width): a thin curve to one of four sides from the middle two thirds."""
    unit = min(height, width) / SIDE
    sides = np.array([width, height])
    start = rng.uniform(sides / 6, sides * 5 / 6)  # (2,): x, y
    along = rng.integers(2)  # the axis it runs along
    length = rng.uniform(start[along], sides[along]) / 4
    steps = np.arange(0, length / unit, 0.5)  # px at 256
    shapes = (2 * steps, 16 * np.sin(np.radians(4 * steps)), 10 * np.sqrt(steps))
    direction, shape = rng.choice([-1, 1]), rng.integers(3)
    bend = shapes[shape] * (direction if shape < 2 else 1)  # a root bends to one side both ways
    curve = np.empty((len(steps), 2))
    curve[:, along] = start[along] + direction * steps * unit
    curve[:, 1 - along] = start[1 - along] + bend * unit
    mask = Image.new("1", (width, height))
    thick = max(1, round(SCRATCH_WIDTH * unit))
    ImageDraw.Draw(mask).line(curve.ravel().tolist(), fill=1, width=thick)
    return np.asarray(mask)


def drops_mask(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Where drops lie, bool (height, width): discs of one radius, their centres Gaussian around one point."""
    side = min(height, width)
    radius = (rng.uniform(*DROP_RADII) + 1 / SIDE) * side
    margin = min((np.log(DROPS) + 5) * radius, side / 2)
    middle = rng.uniform(margin, (width - margin, height - margin))  # (2,): x, y
    mask = Image.new("1", (width, height))
    draw = ImageDraw.Draw(mask)
    for x, y in rng.normal(middle, DROP_SPREAD * radius, (DROPS, 2)).tolist():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(mask)


def _filled(curve: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels on and inside a closed `curve` (n, 2) of x, y, bool (height, width)."""
    mask = Image.new("1", (width, height))
    ImageDraw.Draw(mask).polygon(curve.ravel().tolist(), fill=1)
    return np.asarray(mask)


def _painted(image: np.ndarray, mask: np.ndarray, grain: float, rng: np.random.Generator) -> np.ndarray:
    """`image` (H, W, C) with `mask` (H, W) painted in one random grey level with Gaussian noise."""
    painted = image.copy()
    fill = rng.uniform(*LEVELS) + rng.normal(0, grain, (int(mask.sum()), image.shape[2]))
    painted[mask] = np.clip(fill, 0, 1)
    return painted
