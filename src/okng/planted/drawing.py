"""What planted defects are made of: places, soft shapes, and what may lie behind a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LOOK = 64  # samples along the shorter side of the picture in which content is looked for
DARK = (0.35, 0.65)  # places brighter than a number between these get a dark defect, others a bright one
RING = 32  # places around a part from which what lies behind it is guessed


@dataclass(frozen=True)
class Place:
    """A window of an image around (y, x): `rows` (h, 1) and `columns` (1, w) of its pixels, inside the image."""

    image: np.ndarray
    y: float
    x: float
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def around(cls, image: np.ndarray, y: float, x: float, side: float) -> Place:
        """The window of about `side` px; at the image's border it is cut."""
        reach = side / 2 + 2
        spans = [
            np.arange(max(0, int(middle - reach)), min(length, int(np.ceil(middle + reach)) + 1))
            for middle, length in ((y, image.shape[0]), (x, image.shape[1]))
        ]
        return cls(image, y, x, spans[0][:, None], spans[1][None])

    @property
    def pixels(self) -> np.ndarray:
        """What is there, float32 (h, w, C)."""
        return seen(self.image, self.rows, self.columns)

    def turned(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (h, w) along and across a direction through the middle, in px."""
        down, right = self.rows - self.y, self.columns - self.x
        along = right * np.cos(angle) + down * np.sin(angle)
        return along, down * np.cos(angle) - right * np.sin(angle)


@dataclass(frozen=True)
class Task:
    """What a defect is drawn from: the `image` (H, W, C), the `size` in px, the value of `white`, `other` pixels."""

    image: np.ndarray
    size: float
    white: float
    other: np.ndarray
    rng: np.random.Generator


def anywhere(task: Task) -> Place:
    """A place where the whole defect has room, as far as the image has room for it."""
    y, x = (_inside(task.rng, length, task.size) for length in task.image.shape[:2])
    return Place.around(task.image, y, x, task.size)


def with_content(task: Task) -> Place:
    """A place where there is something to be changed: the likelier, the more the image varies within the size."""
    height, width = task.image.shape[:2]
    step = max(1, min(height, width) // LOOK)
    grey = task.image[::step, ::step].mean(2, dtype=np.float64)  # (h, w)
    side = int(np.clip(round(task.size / step), 2, min(grey.shape)))
    if min(grey.shape) < 2:
        return anywhere(task)
    mean, square = boxes(grey, side), boxes(grey**2, side)
    variance = np.clip(square - mean**2, 0, None)  # (h - side + 1, w - side + 1)
    y, x = task.rng.uniform(0, 1, 2)
    if not variance.max() > 1e-9 * task.white**2:
        return anywhere(task)
    total = np.cumsum(variance)
    at = min(int(np.searchsorted(total, y * total[-1], side="right")), variance.size - 1)
    row, column = np.unravel_index(at, variance.shape)
    middle = (side - 1) / 2
    return Place.around(task.image, (row + middle) * step, (column + middle) * step + x * (step - 1), task.size)


def boxes(values: np.ndarray, side: int) -> np.ndarray:
    """Means of `values` (h, w) over all squares of `side`: (h - side + 1, w - side + 1)."""
    total = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # (h + 1, w + 1)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return np.asarray(sums / side**2)


def soft(inside: np.ndarray, edge: float) -> np.ndarray:
    """From 0 at the outline to 1 within an edge `edge` px wide; `inside` is how far a pixel lies inside, in px."""
    ramp = np.clip(inside / edge, 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp))


def painted(place: Place, weight: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What is there, mixed with `target` by `weight` (h, w)."""
    pixels = place.pixels
    return np.asarray(pixels + weight[:, :, None] * (target - pixels))


def shade(task: Task, place: Place) -> np.ndarray:
    """Black or white (C,), whichever stands out more from what is there; in between the seed decides."""
    bright = float(place.pixels.mean()) / task.white > task.rng.uniform(*DARK)
    return np.full(task.image.shape[2], 0.0 if bright else task.white)


def blob(place: Place, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel (h, w) lies from the middle, and how far the outline of a blot lies in its direction."""
    along, across = place.turned(task.rng.uniform(0, 2 * np.pi))
    angle = np.arctan2(across, along)
    waves = np.arange(2, 6)
    phases, heights = task.rng.uniform(0, 2 * np.pi, 4), task.rng.uniform(0.3, 1, 4) / waves**1.5

    def out(at: np.ndarray) -> np.ndarray:
        return np.asarray(1 + 0.6 * sum(h * np.cos(k * at + p) for k, p, h in zip(waves, phases, heights, strict=True)))

    largest = out(np.linspace(0, 2 * np.pi, 64)).max()
    return np.hypot(along, across) + 1e-6, np.clip(out(angle) / largest, 0.2, 1) * task.size / 2


def part(task: Task, place: Place) -> tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """How far each pixel (h, w) belongs to a part, a turned rectangle with round corners, and that of any place."""
    angle, aspect = task.rng.uniform(0, np.pi), task.rng.uniform(0.6, 1)
    half = task.size / 2

    def belongs(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        along, across = Place(place.image, place.y, place.x, rows, columns).turned(angle)
        radius = ((np.abs(along) / half) ** 4 + (np.abs(across) / (half * aspect)) ** 4) ** 0.25
        return soft((1 - radius) * half * aspect, max(1.0, task.size / 12))

    return belongs(place.rows, place.columns), belongs


def behind(task: Task, place: Place) -> np.ndarray:
    """What may lie behind a part, (h, w, C): its surroundings, interpolated, with the grain of the plainest place.

    Weights are inverse squared distances from places on a ring around the part (Shepard 1968), on a coarse grid.
    """
    height, width = task.image.shape[:2]
    reach = task.size / 2 * 1.15 + 1
    angles = np.arange(RING) * (2 * np.pi / RING)
    y, x = place.y + reach * np.sin(angles), place.x + reach * np.cos(angles)  # (RING,)
    near = np.arange(2 * max(1, round(task.size / 16)) + 1)
    near -= len(near) // 2
    rows = np.clip(np.rint(y), 0, height - 1).astype(int)[:, None, None] + near[:, None]  # (RING, n, 1)
    columns = np.clip(np.rint(x), 0, width - 1).astype(int)[:, None, None] + near  # (RING, 1, n)
    around = seen(task.image, rows, columns).mean((1, 2))  # (RING, C)
    step = max(1, int(task.size // 16))
    down, right = place.rows[::step], place.columns[:, ::step]
    weights = 1 / ((down[..., None] - y) ** 2 + (right[..., None] - x) ** 2 + 1)  # (h / step, w / step, RING)
    coarse = (weights @ around) / weights.sum(2, keepdims=True)  # (h / step, w / step, C)
    rows, columns = (np.arange(count) / step for count in (place.rows.size, place.columns.size))
    smooth = sampled(coarse, rows[:, None] + 0 * columns, columns[None] + 0 * rows[:, None])
    return np.asarray(smooth + grain(task, smooth.shape[:2]))


def grain(task: Task, shape: tuple[int, int]) -> np.ndarray:
    """The fine structure of the image where it varies least, repeated over `shape` (h, w): (h, w, C), of mean 0."""
    side = int(np.clip(task.size // 2, 4, 32))
    height, width = task.image.shape[:2]
    if min(height, width) <= side:
        return np.zeros((*shape, task.image.shape[2]), np.float32)
    tops = np.linspace(0, height - side, 8).astype(int)
    lefts = np.linspace(0, width - side, 8).astype(int)
    patches = [task.image[t : t + side, left : left + side].astype(np.float32) for t in tops for left in lefts]
    plain = min(patches, key=lambda patch: float(patch.var(axis=(0, 1)).sum()))
    fine = plain - plain.mean((0, 1))
    rows, columns = (mirrored(np.arange(length, dtype=np.float64), side).astype(int) for length in shape)
    return np.asarray(fine[rows[:, None], columns[None]])


def seen(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels at whole `rows` (h, 1) and `columns` (1, w), float32 (h, w, C); beyond the border those at it."""
    height, width = image.shape[:2]
    return np.asarray(image[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)], np.float32)


def sampled(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The image at any `rows` and `columns` (h, w), bilinearly, float32 (h, w, C); beyond the border as at it."""
    rows, columns = (np.clip(at, 0, length - 1) for at, length in zip((rows, columns), image.shape[:2], strict=True))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[:, :, None].astype(np.float32), (columns - left)[:, :, None].astype(np.float32)
    upper = (1 - right) * seen(image, top, left) + right * seen(image, top, left + 1)
    lower = (1 - right) * seen(image, top + 1, left) + right * seen(image, top + 1, left + 1)
    return np.asarray((1 - down) * upper + down * lower)


def mirrored(at: np.ndarray, length: int) -> np.ndarray:
    """Places within 0 and `length` - 1, reflected at both ends."""
    period = 2 * max(1, length - 1)
    folded = np.mod(at, period)
    return np.asarray(np.minimum(folded, period - folded))


def _inside(rng: np.random.Generator, length: int, size: float) -> float:
    """A middle along a side of `length` px, with room for `size` where there is any."""
    share = rng.uniform(0, 1)
    return float((length - 1) / 2 if size >= length else size / 2 + share * (length - 1 - size)) if length > 1 else 0.0
