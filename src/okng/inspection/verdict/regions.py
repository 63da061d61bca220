"""Where: the regions of a map that stand out, measured in the original image's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from numpy.lib.stride_tricks import sliding_window_view

LEVELS = 8  # from the threshold to half the height of the highest peak


@dataclass(frozen=True)
class Region:
    """A connected part of the image that stands out: see `find_regions`.

    `box` is (left, top, right, bottom), `peak` the (x, y) of the middle of the map cell of highest value
    `score`, `area` in pixels, `contour` the closed outer boundary as (x, y) points; all in pixels of the
    original image, whose top left corner is (0, 0). `rule`: the name of the rule that decided on it, if one did.
    """

    box: tuple[float, float, float, float]
    area: float
    peak: tuple[float, float]
    score: float
    contour: list[tuple[float, float]]
    rule: str | None = None


def find_regions(scores: np.ndarray, threshold: float, size: tuple[int, int]) -> list[Region]:
    """Where `scores` (h, w) exceeds `threshold`, each place outlined at half its height, highest peak first.

    A map falls off over a margin around a defect, because features see their surroundings. At one fixed level the
    outline would grow with the defect's strength, until a strong one fills the picture; at half the height of its peak
    over the rest of the image a blurred edge is where the sharp one was. So every connected part above the threshold
    has a region, but its outline is never lower than halfway up to its peak. By the same measure another peak in it is
    a region of its own if the map between the two sinks below half that peak's height. The rest is the map's lowest
    tenth: a defect may fill most of the image. `size` is the original image's (height, width). Raises `ValueError` for
    a map that is not finite.
    """
    found = regions_above(scores, threshold, size)
    if not found:
        return found
    rest = float(np.quantile(scores, 0.1))
    if rest >= threshold or found[0].score <= 2 * threshold - rest:
        return found
    # Peaks share a few levels, each the last one up to half their height: a map of noise has hundreds of peaks.
    levels = np.geomspace(threshold - rest, (found[0].score - rest) / 2, LEVELS)
    around = np.pad(scores, 1, constant_values=-np.inf)  # (h + 2, w + 2)
    peaks = scores[scores == sliding_window_view(around, (3, 3)).max(axis=(2, 3))].astype(np.float64)  # (n,)

    def level_of(peak: Any) -> Any:
        return np.maximum(np.searchsorted(levels, (peak - rest) / 2, side="right") - 1, 0)

    outlined = [region for region in found if level_of(region.score) == 0]
    for level in np.unique(level_of(peaks)):
        if level > 0:
            outlined += [r for r in regions_above(scores, rest + levels[level], size) if level_of(r.score) == level]
    return sorted(outlined, key=lambda region: -region.score)


def regions_above(scores: np.ndarray, threshold: float, size: tuple[int, int]) -> list[Region]:
    """The connected parts where `scores` (h, w), interpolated bilinearly, exceeds `threshold`, highest peak first.

    `size` is the original image's (height, width). The contour is traced on the map's own grid, which costs
    the same for a camera image of 20 megapixels as for a small one. Raises `ValueError` for a map that is not
    finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("a map with NaN or infinite scores has no regions")
    if not (scores > threshold).any():
        return []
    h, w = scores.shape
    # Around the map its own edge once more, which reaches past the image's border, then a moat in which every
    # region closes; what lies outside the image is cut off afterwards.
    grid = np.pad(scores.astype(np.float64), 1, mode="edge")  # (h + 2, w + 2)
    grid = np.pad(grid, 1, constant_values=min(threshold, grid.min()) - 1)  # (h + 4, w + 4)
    cells = np.pad(scores.astype(np.float64), 2, constant_values=-np.inf)  # (h + 4, w + 4)
    above: Any = np.nextafter(threshold, np.inf)
    outlines: Any = contour_generator(z=grid, fill_type=FillType.OuterOffset).filled(above, np.inf)
    regions = []
    for points, starts in zip(*outlines, strict=True):
        rings = [points[a:b] for a, b in pairwise(starts)]  # the outline, then its holes, (n, 2) each: x, y
        node = _highest_node(cells, threshold, rings)
        if node is None:
            continue
        x, y = node
        middle = _to_pixels(np.array([[x, y]], np.float64), (h, w), size)[0]
        outline, *holes = (_to_pixels(ring, (h, w), size) for ring in rings)
        moved = np.append(True, np.any(np.diff(outline, axis=0) != 0, axis=1))  # cut points can coincide
        left, top, right, bottom = (float(side) for side in (*outline.min(axis=0), *outline.max(axis=0)))
        regions.append(
            Region(
                box=(left, top, right, bottom),
                area=_ring_area(outline) - sum(_ring_area(hole) for hole in holes),
                peak=(float(middle[0]), float(middle[1])),
                score=float(cells[y, x]),
                contour=[(float(a), float(b)) for a, b in outline[moved]],
            )
        )
    return sorted(regions, key=lambda region: -region.score)


def _to_pixels(points: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Points (n, 2) of x, y on the padded grid, whose node 2 is the first cell, in pixels of the image."""
    sides = np.array([size[1], size[0]], np.float64)
    scaled: np.ndarray = np.clip((points - 1.5) * (sides / [grid[1], grid[0]]), 0, sides)
    return scaled


def _highest_node(cells: np.ndarray, threshold: float, rings: list[np.ndarray]) -> tuple[int, int] | None:
    """Column and row of the highest node inside `rings`; None for a sliver that holds no node.

    A node is inside when an odd number of lines lie to its left in its row (holes included).
    """
    left, top = np.floor(rings[0].min(axis=0)).astype(int)
    right, bottom = np.ceil(rings[0].max(axis=0)).astype(int)
    part = cells[top : bottom + 1, left : right + 1]
    # The ends (n, 2) of n lines. Each lies in one cell of the grid, once the last digits are rounded off, and
    # so crosses one row at most.
    start = np.concatenate([ring[:-1] for ring in rings]).round(9) - (left, top)
    end = np.concatenate([ring[1:] for ring in rings]).round(9) - (left, top)
    row = np.ceil(np.minimum(start[:, 1], end[:, 1]))
    crosses = row < np.maximum(start[:, 1], end[:, 1])
    start, end, row = start[crosses], end[crosses], row[crosses]
    run = (row - start[:, 1]) / (end[:, 1] - start[:, 1])
    column = np.ceil(start[:, 0] + run * (end[:, 0] - start[:, 0]))
    flips = np.zeros(part.shape, int)
    np.add.at(flips, (row.astype(int), column.astype(int)), 1)
    inside = (flips.cumsum(axis=1) % 2 == 1) & (part > threshold)
    if not inside.any():
        return None
    y, x = np.unravel_index(int(np.where(inside, part, -np.inf).argmax()), part.shape)
    return int(x + left), int(y + top)


def _ring_area(ring: np.ndarray) -> float:
    """The area inside a closed ring (n, 2), by the shoelace formula."""
    x, y = ring[:, 0], ring[:, 1]
    return float(abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2)
