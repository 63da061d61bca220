"""Zones: polygons on the image that are inspected, ignored, or named so that rules can speak of the place.

Corners are shares of the image's width and height, from 0 to 1, seen upright. Pixels would be those of one size, but
images of several sizes meet one model, a map has a grid of its own, and what a person draws is drawn on a smaller
picture: a share means the same place on all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from okng.errors import OkngError, nearest_names

KINDS = ("inspect", "ignore", "place")
CORNERS = 1000  # of a polygon, and beyond it nobody drew it
SAMPLES = 512  # points across the larger side of a map at which zones are sampled, at least one in each cell
SMALLEST = 1e-4  # of the image's area has to be left to inspect
COLOUR = "#00a0ff"


@dataclass(frozen=True)
class Zone:
    """A polygon: `points` are its corners (x, y) in [0, 1], `kind` one of `KINDS`.

    Where there are zones to "inspect", nothing else is inspected; what lies in one to "ignore" never is. A "place"
    changes nothing by itself, rules name it.
    """

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]
    colour: str = COLOUR

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Which of `points` (n, 2), x and y in [0, 1], lie in it: bool (n,)."""
        return inside(np.array(self.points), points)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        points = [list(point) for point in self.points]
        return {"name": self.name, "kind": self.kind, "colour": self.colour, "points": points}

    @classmethod
    def from_json(cls, fields: Any) -> Zone:
        """The inverse of `to_json`; `OkngError` in one line for what is no zone."""
        fields = of_known_names(fields, ("name", "kind", "colour", "points"), "a zone")
        name = a_name(fields.get("name"), "a zone")
        kind = fields.get("kind", "inspect")
        if kind not in KINDS:
            raise OkngError(f"zone {name!r} is to {' or '.join(KINDS[:2])}, or a place, not {kind!r}")
        points = _polygon(fields.get("points"), f"zone {name!r}")
        return cls(name, kind, points, a_colour(fields.get("colour", COLOUR), f"zone {name!r}"))


def inside(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which of `points` (n, 2) lie within the polygon `corners` (m, 2): an odd number of its sides is to their left."""
    odd = np.zeros(len(points), bool)
    x, y = points[:, 0], points[:, 1]
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (y >= min(y0, y1)) & (y < max(y0, y1))
            odd ^= crosses & (x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x)
    return odd


def raster(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which middles of a grid of (height, width) cells over the unit square lie within the polygon: bool."""
    rows = (np.arange(height) + 0.5) / height
    flips = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = np.searchsorted(rows, [min(y0, y1), max(y0, y1)])
        if first < last:  # from the first middle at or right of the side on, the parity changes
            x = x0 + (rows[first:last] - y0) / (y1 - y0) * (x1 - x0)
            flips[np.arange(first, last), np.clip(np.ceil(x * width - 0.5).astype(int), 0, width)] += 1
    odd: np.ndarray = flips.cumsum(axis=1)[:, :-1] % 2 == 1
    return odd


@lru_cache(maxsize=32)
def inspected(zones: tuple[Zone, ...], shape: tuple[int, int]) -> np.ndarray:
    """The cells of a map of `shape` (h, w) that are inspected: those that lie in the zones by half or more, bool.

    Where the zones are so thin that there is none, those of which most does. `OkngError` where nothing is left.
    """
    h, w = shape
    fine = max(1, SAMPLES // max(shape))
    wanted = [zone for zone in zones if zone.kind == "inspect"]
    area = np.full((h * fine, w * fine), not wanted)
    for zone in wanted:
        area |= raster(np.array(zone.points), h * fine, w * fine)
    for zone in zones:
        if zone.kind == "ignore":
            area &= ~raster(np.array(zone.points), h * fine, w * fine)
    share = area.reshape(h, fine, w, fine).mean(axis=(1, 3))  # (h, w)
    if not share.any():
        raise OkngError("the zones leave nothing of the image to inspect; make them larger, or ignore less")
    cells: np.ndarray = share >= min(0.5, share.max())
    cells.setflags(write=False)  # it is shared
    return cells


def within(zones: tuple[Zone, ...], scores: np.ndarray) -> np.ndarray:
    """A map (h, w) with nothing to be seen where it is not inspected.

    The value there is the one that a tenth of the rest is below: no highest point, no region, and the height of regions
    is measured from the same ground as before.
    """
    cells = inspected(zones, (scores.shape[0], scores.shape[1]))
    return np.where(cells, scores, np.quantile(scores[cells], 0.1, method="lower"))


def of_known_names(fields: Any, names: tuple[str, ...], what: str) -> dict[str, Any]:
    """`fields` if it is an object with no other names than these; `what` it describes is for the message."""
    if not isinstance(fields, dict):
        raise OkngError(f"{what} is an object with {', '.join(names)}, not {_short(fields)}")
    for name in fields:
        if name not in names:
            raise OkngError(f"{what} has no {_short(name)}; {nearest_names(str(name)[:40], names)}")
    return fields


def a_name(name: Any, what: str) -> str:
    """`name` if people can be told of `what` by it: 1 to 60 printable characters."""
    if not isinstance(name, str) or not 0 < len(name.strip()) <= 60 or not name.isprintable():
        raise OkngError(f"{what} needs a name of 1 to 60 letters, not {_short(name)}")
    return name.strip()


def a_colour(colour: Any, what: str) -> str:
    """`colour` if it is one such as #ff8800."""
    if not isinstance(colour, str) or not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise OkngError(f"the colour of {what} is one such as #ff8800, not {_short(colour)}")
    return colour.lower()


def a_number(value: Any, what: str) -> float:
    """`value` if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e300 < value < 1e300:
        raise OkngError(f"{what} is a number, not {_short(value)}")
    return float(value)


def unique(names: Iterable[str], what: str) -> None:
    """`OkngError` unless all `names` differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise OkngError(f"two {what} are called {name!r}; give each a name of its own")
        seen.add(name)


def _polygon(points: Any, what: str) -> tuple[tuple[float, float], ...]:
    """The corners of a simple polygon, or a line that says what is wrong with them."""
    if not isinstance(points, list | tuple) or not 3 <= len(points) <= CORNERS:
        count = f"{len(points)} corners" if isinstance(points, list | tuple) else _short(points)
        raise OkngError(f"{what} needs 3 to {CORNERS} corners, each [x, y], not {count}")
    corners: list[tuple[float, float]] = []
    for point in points:
        if not isinstance(point, list | tuple) or len(point) != 2:
            raise OkngError(f"{what} has a corner that is no [x, y]: {_short(point)}")
        x, y = (a_number(value, f"a coordinate of {what}") for value in point)
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise OkngError(
                f"{what}: corners are shares of the image's width and height, from 0 to 1, not {x:g}, {y:g}"
            )
        if not corners or (x, y) != corners[-1]:
            corners.append((x, y))
    if len(corners) > 1 and corners[0] == corners[-1]:  # a closed ring
        corners.pop()
    if len(corners) < 3 or np.ptp(np.array(corners), axis=0).min() == 0:
        raise OkngError(f"{what} has no area; draw it larger")
    if _crosses_itself(np.array(corners)):
        raise OkngError(f"{what} crosses itself; draw it as two zones")
    if _area(np.array(corners)) < SMALLEST / 100:
        raise OkngError(f"{what} has no area; draw it larger")
    return tuple(corners)


def _area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _crosses_itself(corners: np.ndarray) -> bool:
    """Whether two sides that are no neighbours meet, or a corner is turned back on."""
    n = len(corners)
    a, b = corners, np.roll(corners, -1, axis=0)  # (n, 2)

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        """On which side of p → q the points r lie: -1, 0 or 1."""
        turn = (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])
        return np.sign(np.where(np.abs(turn) < 1e-12, 0, turn))

    def on(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Whether r, in line with p and q, is between them."""
        between: np.ndarray = ((np.minimum(p, q) <= r) & (r <= np.maximum(p, q))).all(-1)
        return between

    p, q, r, s = a[:, None], b[:, None], a[None], b[None]
    one, two, three, four = side(p, q, r), side(p, q, s), side(r, s, p), side(r, s, q)  # (n, n)
    meet = (one * two < 0) & (three * four < 0)
    meet |= ((one == 0) & on(p, q, r)) | ((two == 0) & on(p, q, s)) | ((three == 0) & on(r, s, p))
    apart = np.abs(np.arange(n)[:, None] - np.arange(n))
    if (meet & (apart > 1) & (apart < n - 1)).any():
        return True
    following = np.roll(b, -1, axis=0)  # of two neighbours the second may lie on the first
    back = (side(a, b, following) == 0) & (((b - a) * (following - b)).sum(1) < 0)
    return bool(back.any())


def _short(value: Any) -> str:
    """`value` as a message can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
