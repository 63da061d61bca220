"""What a measurement of sensitivity says: curves, sizes, and the plants they are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from okng.inspection.arrays import from_pillow, one_image
from okng.inspection.decoding import decode
from okng.inspection.images import Source
from okng.planted.curve import Fit
from okng.planted.defects import KINDS, Planted, plant

SHOWN = (0.1, 0.5, 0.9)  # shares of which there are examples


@dataclass(frozen=True)
class Recipe:
    """One plant: a defect of `kind` and `size` px by `seed`, in image number `image`, of which `other` is another."""

    kind: str
    size: float
    seed: int
    image: int
    other: int


@dataclass(frozen=True)
class Trial:
    """What became of a plant: the raw `score`, whether it was `called` NG, and `found`: called, and at its place.

    `by_chance`: whether the same image without it would have counted as found.
    """

    recipe: Recipe
    score: float
    called: bool
    found: bool
    by_chance: bool


@dataclass(frozen=True)
class Point:
    """One size, in px: `found` of `plants`, with the exact 95 % interval of the share, and how many were called NG."""

    size: float
    plants: int
    called: int
    found: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of the plants, those found."""
        return self.found / self.plants


@dataclass(frozen=True)
class Curve:
    """How the share found of a `kind` grows with size: what was measured, and the curve fitted to it.

    `floor`, `a`, `b`, `lapse` are γ, a, b, λ of `curve`. `smallest` is the size in px from which on 90 % are found, and
    `low` to `high` its 95 % interval: 0 where nothing was missed down to the smallest size, infinite where 90 % are not
    reached up to the largest. `line` holds (size, share, lowest, highest) to draw it.
    """

    kind: str
    points: tuple[Point, ...]
    floor: float
    a: float
    b: float
    lapse: float
    smallest: float
    low: float
    high: float
    line: tuple[tuple[float, float, float, float], ...] = field(repr=False)

    @property
    def reached(self) -> bool:
        """Whether 90 % are found from a size on that was measured."""
        return 0 < self.smallest < math.inf

    def size_for(self, share: float) -> float:
        """The size in px from which on `share` is found; 0 or infinite as `smallest`."""
        fitted = Fit(*(np.array([value]) for value in (self.floor, self.a, self.b, self.lapse)))
        return within(float(fitted.size_for(share)[0]), self.points)

    def words(self) -> str:
        """`smallest` as a person says it."""
        if self.smallest == 0:
            return f"below {self.points[0].size:.3g} px"
        if not self.reached:
            return f"not reached up to {self.points[-1].size:.3g} px"
        low = f"{self.low:.3g}" if self.low > 0 else f"below {self.points[0].size:.3g}"
        return f"{self.smallest:.3g} px ({low} to {f'{self.high:.3g}' if self.high < math.inf else 'not reached'})"

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values; None for a size that is not reached."""
        limits = {name: _finite(getattr(self, name)) for name in ("smallest", "low", "high")}
        fitted = {name: getattr(self, name) for name in ("floor", "a", "b", "lapse")}
        points = [{**vars(point), "share": point.share} for point in self.points]
        return {"kind": self.kind, "found_from_px": limits, "fit": fitted, "points": points}


@dataclass(frozen=True)
class Sensitivity:
    """What a model would find.

    `curves`: one for each kind of defect that could be planted, by name, `overall` all kinds together. `unchanged`:
    kinds that changed nothing in these images, as a smear of one plain colour. `images`: how many were planted into;
    `calibrating`: how many of these set the model's threshold, without having been learnt; `left_out`: how many were
    learnt and so not taken. `alarms`: how many of the images are called NG as they are. `localises`: whether the model
    says where; then a defect is only found if the heatmap says its place. `side`: the root of the images' median area,
    in px. `found`: the mean share over all kinds and sizes.
    """

    curves: dict[str, Curve]
    overall: Curve
    unchanged: tuple[str, ...]
    images: int
    calibrating: int
    left_out: int
    alarms: int
    localises: bool
    side: float
    threshold: float
    trials: tuple[Trial, ...] = field(repr=False)
    clean: tuple[float, ...] = field(repr=False)
    seed: int = 0
    sources: tuple[Source, ...] = field(default=(), repr=False)
    white: int = field(default=255, repr=False)

    @property
    def smallest_found(self) -> dict[str, float | None]:
        """For each kind the size in px from which on 90 % are found: 0 below the smallest, None if not reached."""
        return {kind: _finite(curve.smallest) for kind, curve in self.curves.items()}

    @property
    def found(self) -> float:
        """The mean share found, every kind and size counting the same; between 0 and 1."""
        return float(np.mean([point.share for curve in self.curves.values() for point in curve.points]))

    @property
    def elsewhere(self) -> int:
        """How many plants were called NG for another place than theirs, which is no find."""
        return sum(trial.called and not trial.found for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """All but the single plants, as JSON values."""
        return {
            "found": self.found,
            "smallest_found": self.smallest_found,
            "images": self.images,
            "calibrating": self.calibrating,
            "left_out": self.left_out,
            "called_ng_as_they_are": self.alarms,
            "plants": len(self.trials),
            "called_ng_elsewhere": self.elsewhere,
            "localises": self.localises,
            "side_px": self.side,
            "threshold": self.threshold,
            "seed": self.seed,
            "unchanged": list(self.unchanged),
            "curves": {kind: curve.to_json() for kind, curve in self.curves.items()},
            "overall": self.overall.to_json(),
        }

    def example(self, kind: str, share: float) -> Recipe | None:
        """A plant at the size from which on `share` is found; None where there is no such size."""
        size = self.curves[kind].size_for(share)
        if not 0 < size < math.inf:
            return None
        image = (list(KINDS).index(kind) * len(SHOWN) + round(10 * share)) % len(self.sources)
        return Recipe(kind, size, self.seed + 1, image, (image + 1) % len(self.sources))

    def planted(self, recipe: Recipe) -> Planted:
        """The image and the mask that a recipe makes."""
        image, other = (pixels_of(self.sources[i]) for i in (recipe.image, recipe.other))
        return plant_recipe(recipe, image, other, self.white)


def pixels_of(source: Source) -> np.ndarray:
    """An image as it is stored, upright: uint8 or uint16 (H, W) or (H, W, 3)."""
    pixels = source if isinstance(source, np.ndarray) else decode(source)
    return from_pillow(pixels) if isinstance(pixels, Image.Image) else one_image(pixels)


def within(size: float, points: tuple[Point, ...]) -> float:
    """`size`, or 0 or infinite where it lies beyond the sizes that were measured: nothing is extrapolated."""
    return 0.0 if size < points[0].size else math.inf if size > points[-1].size else size


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plant_recipe(recipe: Recipe, image: np.ndarray, other: np.ndarray, white: int) -> Planted:
    level = None if image.dtype == np.uint8 else float(white)
    alike = other if (other.dtype, other.shape[2:]) == (image.dtype, image.shape[2:]) else None
    return plant(image, recipe.kind, recipe.size, recipe.seed, other=alike, white=level)
