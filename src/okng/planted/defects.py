"""Defects planted into OK images: of a known kind, size and place, decided by a seed.

They are planted into the image as it is stored, before anything resizes it, and have soft edges. What they leave is an
image of the same type, and the mask of what really changed. Made by plain image processing; nothing here is learnt, so
no detector is flattered that was fitted with a generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from okng.checks import seed_of
from okng.errors import OkngError, nearest_names
from okng.inspection.reading.images import white_level
from okng.planted.drawing import (
    Place,
    Task,
    anywhere,
    behind,
    blob,
    mirrored,
    painted,
    part,
    sampled,
    seen,
    shade,
    soft,
    with_content,
)  # fmt: skip

SMALLEST = 2.0  # px; a smaller defect changes a pixel or none
TOLERANCE = 1 / 255  # of white: a smaller change is no change, as a display of 8 bits wouldn't show it
TAPS = 11  # copies that make a smear


@dataclass(frozen=True)
class Planted:
    """An image with a defect: `pixels` as the image's, `mask` (H, W) of bool where they differ from the image's."""

    pixels: np.ndarray
    mask: np.ndarray


Drawn = tuple[Place, np.ndarray]
"""Where, and what lies there at full strength: float32 (h, w, C)."""


def plant(
    image: np.ndarray,
    kind: str,
    size: float,
    seed: int,
    opacity: float | None = None,
    other: np.ndarray | None = None,
    white: float | None = None,
) -> Planted:
    """`image`, uint8 or uint16 (H, W) or (H, W, 3), with a defect of `kind` (`KINDS`) whose longest side is `size` px.

    `opacity`: how strong it is, from 0, the image itself, to 1; by default what is usual of the kind. For the same seed
    no pixel changes less at a higher opacity. `other`: another image of the same type, from which a wrong texture is
    taken; without one it is this image. `white`: the largest value a sample may get; by default 255, or for 16 bits the
    bits the image uses. Where there is nothing that the kind could change, as in one plain colour, nothing changes and
    the mask is empty. Raises `OkngError` for arguments out of range.
    """
    if kind not in KINDS:
        raise OkngError(f"there is no planted defect {kind!r}; {nearest_names(kind, KINDS)}")
    strength = OPACITY[kind] if opacity is None else opacity
    if not 0 <= strength <= 1:
        raise OkngError(f"opacity is from 0 to 1, not {opacity}")
    if not size >= SMALLEST:
        raise OkngError(f"a defect's size is {SMALLEST:g} px or more, not {size}")
    if image.dtype not in (np.uint8, np.uint16):
        raise OkngError(f"defects are planted into images of 8 or 16 bits, not of {image.dtype}")
    seed = seed_of(seed)
    top = white or (255.0 if image.dtype == np.uint8 else float(white_level([image])))
    deep = image.reshape(*image.shape[:2], -1)  # (H, W, C)
    source = deep if other is None else other.reshape(*other.shape[:2], -1)
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    place, altered = KINDS[kind](Task(deep, float(size), top, source, rng))
    before = place.pixels
    change = np.rint(strength * (np.clip(altered, 0, max(top, before.max())) - before))  # (h, w, C)
    changed = np.abs(change).max(2) > TOLERANCE * top  # (h, w)
    mask = np.zeros(image.shape[:2], bool)
    mask[place.rows, place.columns] = changed
    pixels = deep.copy()
    pixels[place.rows, place.columns] = (before + change * changed[:, :, None]).astype(image.dtype)
    return Planted(pixels.reshape(image.shape), mask)


def scratch(task: Task) -> Drawn:
    """A thin, slightly bent line that ends in points, a sixteenth as wide as long."""
    place = anywhere(task)
    along, across = place.turned(task.rng.uniform(0, np.pi))
    u = along / (task.size / 2)  # -1 to 1 from end to end
    bend = task.rng.uniform(-0.15, 0.15) * task.size
    width = np.clip(task.size / 16, 1, 8) * np.sqrt(np.clip(1 - u**2, 0, 1))
    weight = soft((width + 1) / 2 - np.abs(across - bend * (0.5 - u**2)), 1.0) * (np.abs(u) < 1)
    return place, painted(place, weight, shade(task, place))


def spot(task: Task) -> Drawn:
    """A slightly oval disc."""
    place = anywhere(task)
    along, across = place.turned(task.rng.uniform(0, np.pi))
    half = task.size / 2
    radius = np.hypot(along, across / task.rng.uniform(0.75, 1))
    return place, painted(place, soft(half - radius, max(1.0, task.size / 8)), shade(task, place))


def stain(task: Task) -> Drawn:
    """An irregular blot that has dried, darker towards its edge, in colour images of a colour."""
    place = anywhere(task)
    radius, outline = blob(place, task)
    weight = soft(outline - radius, max(1.5, task.size / 6))
    weight *= 0.65 + 0.35 * np.exp(-(((radius / outline - 0.85) / 0.15) ** 2))
    target = shade(task, place)
    if task.image.shape[2] == 3:
        tint = np.sort(task.rng.uniform(0, 0.5, 3))[::-1] * task.white  # brownish
        target = tint if target[0] == 0 else task.white - tint
    return place, painted(place, weight, target)


def dent(task: Task) -> Drawn:
    """The surface pressed in or out: what is seen there is warped, and the light falls otherwise."""
    place = with_content(task)
    angle, sign = task.rng.uniform(0, 2 * np.pi), task.rng.choice([-1.0, 1.0])
    along, across = place.turned(angle)
    half = task.size / 2
    bump = np.clip(1 - (along**2 + across**2) / half**2, 0, None) ** 2  # (h, w)
    nearer = 1 - sign * 0.45 * bump
    rows, columns = (
        middle + (at - middle) * nearer for middle, at in ((place.y, place.rows), (place.x, place.columns))
    )
    light = sign * 0.3 * task.white * bump * along / half
    return place, sampled(task.image, rows, columns) + light[:, :, None]


def smear(task: Task) -> Drawn:
    """What is there, drawn out along a direction."""
    place = with_content(task)
    angle = task.rng.uniform(0, np.pi)
    along, across = place.turned(angle)
    weight = soft(task.size / 2 - np.hypot(along, across * 2), max(1.0, task.size / 5))
    way = np.linspace(-0.35, 0.35, TAPS) * task.size
    copies = [
        seen(task.image, place.rows + round(t * np.sin(angle)), place.columns + round(t * np.cos(angle))) for t in way
    ]
    return place, painted(place, weight, np.mean(copies, axis=0))


def texture(task: Task) -> Drawn:
    """A piece of another image, turned and enlarged, so that even a like surface is a wrong one."""
    place = with_content(task)
    radius, outline = blob(place, task)
    height, width = task.other.shape[:2]
    y, x = task.rng.uniform(0, height), task.rng.uniform(0, width)
    along, across = place.turned(task.rng.uniform(0, 2 * np.pi))
    zoom = task.rng.uniform(1.5, 2.5)
    inside = mirrored(y + across / zoom, height), mirrored(x + along / zoom, width)
    return place, painted(place, soft(outline - radius, max(1.0, task.size / 12)), sampled(task.other, *inside))


def missing(task: Task) -> Drawn:
    """A part that is not there: what surrounds it goes on over its place."""
    place = with_content(task)
    inside, _ = part(task, place)
    return place, painted(place, inside, behind(task, place))


def displaced(task: Task) -> Drawn:
    """A part away from its place, by a third to two thirds of its size."""
    found = with_content(task)
    angle, way = task.rng.uniform(0, 2 * np.pi), task.rng.uniform(0.33, 0.66) * task.size
    down, right = round(way * np.sin(angle)), round(way * np.cos(angle))
    down, right = (step or 1 for step in (down, right))  # the smallest part moves by a pixel
    place = Place.around(task.image, found.y, found.x, task.size + 2 * way)
    inside, shape = part(task, place)
    emptied = painted(place, inside, behind(task, place))
    moved = seen(task.image, place.rows - down, place.columns - right)
    weight = shape(place.rows - down, place.columns - right)[:, :, None]
    return place, emptied + weight * (moved - emptied)


def doubled(task: Task) -> Drawn:
    """A part once more, beside itself."""
    found = with_content(task)
    height, width = task.image.shape[:2]
    away = task.rng.uniform(1, 1.5) * task.size
    angles = task.rng.uniform(0, 2 * np.pi) + np.arange(8) * np.pi / 4
    beside = [(found.y + away * np.sin(angle), found.x + away * np.cos(angle)) for angle in angles]
    room = [min(y, x, height - y, width - x) for y, x in beside]
    y, x = next((place for place, free in zip(beside, room, strict=True) if free >= task.size / 2), beside[0])
    if max(room) < task.size / 2:  # no side has room for all of it: take that with the most
        y, x = beside[int(np.argmax(room))]
    place = Place.around(task.image, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1), task.size)
    inside, _ = part(task, place)
    down, right = round(place.y - found.y), round(place.x - found.x)
    return place, painted(place, inside, seen(task.image, place.rows - down, place.columns - right))


KINDS: dict[str, Callable[[Task], Drawn]] = {
    "scratch": scratch,
    "spot": spot,
    "stain": stain,
    "dent": dent,
    "smear": smear,
    "texture": texture,
    "missing": missing,
    "displaced": displaced,
    "doubled": doubled,
}
OPACITY = {
    "scratch": 0.5, "spot": 0.5, "stain": 0.35, "dent": 1.0, "smear": 1.0,
    "texture": 1.0, "missing": 1.0, "displaced": 1.0, "doubled": 1.0,
}  # fmt: skip
