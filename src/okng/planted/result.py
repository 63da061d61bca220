"""What a measurement of sensitivity says: curves, sizes, and the plants they are made of."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from okng.inspection.reading.arrays import from_pillow, one_image
from okng.inspection.reading.decoding import decode
from okng.inspection.reading.images import Preprocess, Source
from okng.inspection.verdict.result import Inspection
from okng.planted.curve import Fit
from okng.planted.defects import Planted, plant

SHOWN = (0.1, 0.5, 0.9)  # shares of which there are examples


@dataclass(frozen=True)
class Recipe:
    """One plant: a defect of `kind` and `size` px by `seed`, in image number `image`; a texture is of image `other`.

    The `first` of each kind and size is kept as an example. With zones it may be planted into a `window` of the image,
    (top, bottom, left, right) in px, as if that were all of it.
    """

    kind: str
    size: float
    seed: int
    image: int
    other: int
    first: bool
    window: tuple[int, int, int, int] | None = None


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
    kinds that changed nothing in these images, as a smear of one plain colour, or nothing within the zones. `images`:
    how many were planted into; `calibrating`: how many of these set the model's threshold, without having been learnt;
    `left_out`: how many were learnt and so not taken. `alarms`: how many of the images are called NG as they are.
    `localises`: whether the model says where; then a defect is only found if the heatmap says its place. `side`: the
    root of the images' median area, in px. `found`: the mean share over all kinds and sizes.
    """

    curves: dict[str, Curve] = field(repr=False)
    overall: Curve = field(repr=False)
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
    shown: tuple[tuple[Recipe, Inspection], ...] = field(repr=False)
    sources: tuple[Source, ...] = field(repr=False)
    preprocess: Preprocess = field(repr=False)
    white: int = field(repr=False)
    seed: int

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

    def examples(self, kind: str) -> list[tuple[Point, Recipe, Inspection]]:
        """Plants of about the sizes at which 10, 50 and 90 % are found, each with what was measured at its size."""
        curve, found = self.curves[kind], {}
        for share in SHOWN:
            size = curve.size_for(share)
            if 0 < size < math.inf:
                point = min(curve.points, key=lambda point: abs(math.log(point.size / size)))
                found[point.size] = point
        return [
            (found[recipe.size], recipe, inspection)
            for recipe, inspection in sorted(self.shown, key=lambda shown: shown[0].size)
            if recipe.kind == kind and recipe.size in found
        ]

    def planted(self, recipe: Recipe) -> Planted:
        """The image and the mask that a recipe makes."""
        image, other = (pixels_of(self.sources[i], self.preprocess) for i in (recipe.image, recipe.other))
        return plant_recipe(recipe, image, other, self.white)


def lines(result: Sensitivity) -> list[str]:
    """The result as lines for a person."""
    sizes = [point.size for point in result.overall.points]
    head = f"{'kind':<11}{'90 % found from':<34}" + "".join(f"{f'{size:.3g} px':>8}" for size in sizes)
    said = [f"planted {len(result.trials)} defects into {result.images} OK images the model has not learnt", head]
    for curve in (*result.curves.values(), result.overall):
        shares = {point.size: f"{point.share:.0%}" for point in curve.points}
        said.append(f"{curve.kind:<11}{curve.words():<34}" + "".join(f"{shares.get(size, ''):>8}" for size in sizes))
    said += [f"{kind:<11}changes nothing in these images" for kind in result.unchanged]
    place = "called NG, with the heatmap at its place" if result.localises else "the image is called NG"
    said.append(f"found: {place}; {result.elsewhere} more were called NG for another place")
    said.append(f"as they are, {result.alarms} of the {result.images} images are called NG")
    if result.calibrating:
        which = f"{result.calibrating} of the {result.images} images"
        said.append(f"{which} set the threshold, too; none was learnt by what judged it")
    said.append("planted defects are no real ones: they compare sizes and kinds, and promise nothing of real defects")
    return said


def as_csv(result: Sensitivity) -> str:
    """One line for each kind and size: how many were planted, called NG and found, and what the fitted curve says."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "size_px", "plants", "called_ng", "found", "share", "low", "high", "found_90_from_px"])
    for curve in (*result.curves.values(), result.overall):
        smallest = _finite(curve.smallest)
        for point in curve.points:
            shares = (f"{value:.4f}" for value in (point.share, point.low, point.high))
            counts = (f"{point.size:g}", point.plants, point.called, point.found)
            writer.writerow([curve.kind, *counts, *shares, "" if smallest is None else f"{smallest:.4g}"])
    return text.getvalue()


def pixels_of(source: Source, preprocess: Preprocess) -> np.ndarray:
    """An image as it is stored, upright: uint8 or uint16 (H, W) or (H, W, 3).

    A file's floats become whole numbers by the white that `preprocess` takes for them: uint8 where that is 1 or 255.
    """
    pixels = source if isinstance(source, np.ndarray) else decode(source)
    if isinstance(pixels, Image.Image) and pixels.mode == "F":
        white = preprocess.read(source)[1].white
        if white <= 255:
            return np.asarray(preprocess.decode(source).convert("L"))
        return np.asarray(np.rint(np.nan_to_num(np.clip(np.asarray(pixels), 0, white))), np.uint16)
    return from_pillow(pixels) if isinstance(pixels, Image.Image) else one_image(pixels)


def within(size: float, points: tuple[Point, ...]) -> float:
    """`size`, or 0 or infinite where it lies beyond the sizes that were measured: nothing is extrapolated."""
    return 0.0 if size < points[0].size else math.inf if size > points[-1].size else size


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plant_recipe(recipe: Recipe, image: np.ndarray, other: np.ndarray, white: int) -> Planted:
    level = None if image.dtype == np.uint8 else float(white)
    alike = other if (other.dtype, other.shape[2:]) == (image.dtype, image.shape[2:]) else None
    if recipe.window is None:
        return plant(image, recipe.kind, recipe.size, recipe.seed, other=alike, white=level)
    top, bottom, left, right = recipe.window
    part = plant(image[top:bottom, left:right], recipe.kind, recipe.size, recipe.seed, other=alike, white=level)
    whole = Planted(image.copy(), np.zeros(image.shape[:2], bool))
    whole.pixels[top:bottom, left:right], whole.mask[top:bottom, left:right] = part.pixels, part.mask
    return whole
