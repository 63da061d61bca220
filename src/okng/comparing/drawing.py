"""Accuracy against speed, and ranks, as numbers for the page's drawings. Labels never lie on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

WIDTH, HEIGHT = 760.0, 400.0  # of the plot within its axes
LETTER, LINE = 8.0, 16.0  # pixels that a letter and a line of a label take
ROUND = 6.0  # the radius of a point, and air


@dataclass(frozen=True)
class Box:
    """A rectangle, `x` and `y` its top left corner."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Whether the two share an area."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True)
class Point:
    """A method: where its point lies, its interval from `top` to `bottom`, its label's box; `far`: it needs a line."""

    name: str
    x: float
    y: float
    top: float
    bottom: float
    box: Box
    far: bool
    alike: bool
    said: str


@dataclass(frozen=True)
class Scatter:
    """Points with the ticks of both axes: (position, words)."""

    points: list[Point]
    across: list[tuple[float, str]]
    upwards: list[tuple[float, str]]
    width: float = WIDTH
    height: float = HEIGHT


def scatter(methods: Sequence[tuple[str, float, float, float, float, bool]]) -> Scatter | None:
    """The drawing of (name, milliseconds, value, low, high, alike) of each method; None for none.

    Milliseconds are on a logarithmic axis. The axis of values ends at 1 and begins below the lowest value, at a half at
    most where all are better than guessing; intervals are cut there.
    """
    if not methods:
        return None
    times = [ms for _, ms, *_ in methods]
    left, right = math.log10(min(times)) - 0.12, math.log10(max(times)) + 0.12
    if right - left < 1:
        left, right = (left + right - 1) / 2, (left + right + 1) / 2
    right += 0.2 * (right - left)  # room for the label of the slowest
    lowest = min(value for _, _, value, *_ in methods)
    step = next(step for step in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (1 - lowest) / step < 7 or step == 0.2)
    bottom = max(0.0, step * math.floor(lowest / step - 0.5))

    def across(ms: float) -> float:
        return round(WIDTH * (math.log10(ms) - left) / (right - left), 1)

    def upwards(value: float) -> float:
        return round(HEIGHT * (1 - value) / (1 - bottom), 1)

    places = [(across(ms), upwards(value)) for _, ms, value, *_ in methods]
    taken = [Box(x - ROUND, y - ROUND, 2 * ROUND, 2 * ROUND) for x, y in places]
    points = []
    for (name, ms, value, low, high, alike), (x, y) in zip(methods, places, strict=True):
        box = _free(x, y, LETTER * len(name) + 4, taken)
        taken.append(box)
        far = not box.meets(Box(x - 20, y - 20, 40, 40))
        said = f"{name}: AUROC {value:.3f} ({low:.3f} to {high:.3f}), {span(ms)}"
        points.append(Point(name, x, y, upwards(high), min(HEIGHT, upwards(low)), box, far, alike, said))
    ticks = [10.0**power * digit for power in range(-2, 6) for digit in (1, 2, 5)]
    count = round((1 - bottom) / step)
    return Scatter(
        points,
        [(across(tick), f"{tick:g} ms") for tick in ticks if left <= math.log10(tick) <= right],
        [(upwards(1 - step * i), f"{1 - step * i:.3g}") for i in range(count + 1)],
    )


def _free(x: float, y: float, width: float, taken: Sequence[Box]) -> Box:
    """The nearest place for a label of this `width` around (x, y) that meets nothing and lies within the plot."""
    best: Box | None = None
    for distance in range(0, 400, 8):
        steps = [distance * k / 2 for k in (-2, -1, 0, 1, 2)]
        right, left = x + ROUND + 3, x - ROUND - 3 - width
        for dx, dy in sorted(product(steps, steps), key=lambda d: d[0] ** 2 + 4 * d[1] ** 2):
            for edge in (right + abs(dx), left - abs(dx), x - width / 2 + dx):
                top = y + dy - LINE / 2 if edge != x - width / 2 + dx else y + dy - LINE - ROUND
                box = Box(edge, top, width, LINE)
                inside = box.x >= 0 and box.x + width <= WIDTH and box.y >= -LINE and box.y + LINE <= HEIGHT
                if inside and not any(box.meets(other) for other in taken):
                    return box
                best = best or box
    assert best is not None
    return best


def span(milliseconds: float) -> str:
    """The time of an image as a person reads it: "7.83 ms", "116 ms", "2.58 s"."""
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.3g} s"
