"""Tiles: a large image is cut up at its own scale, so that a small defect is not shrunk away before it is looked for.

A detector that learnt tiles judges tiles, some at a time, and their maps become one. The image's score is the highest
of its tiles': a defect lies in one or two of them, a mean over many would drown it, and the detector's own score, which
may know more than its map, stays in use. Held-out images are scored in the same way, so that the threshold is about
images: the highest of 81 OK tiles is higher than that of one, and the calibration has counted that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from okng.checks import at_least
from okng.errors import OkngError

if TYPE_CHECKING:
    from okng.inspection.inspector import Engine


def check_tile(tile: object, overlap: object) -> None:
    """OkngError unless tiles of `tile` px may overlap by `overlap`."""
    if not isinstance(tile, int) or not 16 <= tile <= 8192:
        raise OkngError(f"a tile is 16 to 8192 px, such as 512, not {tile!r}")
    if not isinstance(overlap, int) or not 0 <= overlap <= tile // 2:
        raise OkngError(f"tiles of {tile} px overlap by 0 to {tile // 2}, not {overlap!r}")


def corners(height: int, width: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """The top left corners (top, left) of the tiles of an image, row by row; the last ones end where the image does."""

    def along(length: int) -> list[int]:
        return [*range(0, max(length - tile, 0), tile - overlap), max(length - tile, 0)]

    return [(top, left) for top in along(height) for left in along(width)]


def cut(pixels: np.ndarray, corner: tuple[int, int], tile: int, size: tuple[int, int]) -> np.ndarray:
    """The tile of `pixels` (H, W, C) at a corner as an input (h, w, C) of `size`; what the image lacks is mirrored."""
    part = pixels[corner[0] : corner[0] + tile, corner[1] : corner[1] + tile]
    lacks = (tile - part.shape[0], tile - part.shape[1])
    if max(lacks) > 0:
        part = np.pad(part, ((0, lacks[0]), (0, lacks[1]), (0, 0)), mode="symmetric")
    if size == (tile, tile):
        return part
    image = Image.fromarray(part[:, :, 0] if part.shape[2] == 1 else part)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, -1)


class Tiled:
    """An engine for whole images (B, H, W, C) around one for tiles of `size` (h, w), `batch` of them at a time."""

    def __init__(self, engine: Engine, tile: int, overlap: int, size: tuple[int, int], batch: int):
        at_least(1, batch=batch)
        self.engine, self.tile, self.overlap, self.size, self.batch = engine, tile, overlap, size, batch

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw scores (B,) and maps (B, h, w), if any, of uint8 `pixels` (B, H, W, C)."""
        scores, maps = zip(*(self.one(image) for image in pixels), strict=True)
        return np.array(scores), None if maps[0] is None else np.stack([each for each in maps if each is not None])

    def write(self, *model: Any) -> None:
        """The engine inside is what a file holds."""
        raise NotImplementedError

    def one(self, pixels: np.ndarray) -> tuple[float, np.ndarray | None]:
        """The highest score of the tiles of `pixels` (H, W, C), and their maps as one (h, w)."""
        highest, whole = -np.inf, None
        for corner, score, scores in self.looked_at(pixels):
            highest = max(highest, score) if np.isfinite(score) else np.nan
            if scores is not None:
                whole = whole or Blend(pixels.shape[:2], self.tile, self.overlap, scores.shape)
                whole.add(corner, scores)
            if np.isnan(highest):
                break
        return highest, None if whole is None else whole.map()

    def looked_at(self, pixels: np.ndarray) -> Iterator[tuple[tuple[int, int], float, np.ndarray | None]]:
        """Each tile's corner, score and map (h, w)."""
        places = corners(pixels.shape[0], pixels.shape[1], self.tile, self.overlap)
        for begin in range(0, len(places), self.batch):
            some = places[begin : begin + self.batch]
            scores, maps = self.engine(np.stack([cut(pixels, corner, self.tile, self.size) for corner in some]))
            for i, corner in enumerate(some):
                yield corner, float(scores[i]), None if maps is None else maps[i]


class Blend:
    """Maps of tiles, of `shape` (h, w) each, become one of an image of `size` (height, width).

    Where tiles overlap each counts the more the farther its own edge is: there a map knows least of what is around. A
    tile lies at the nearest cell, half a cell off at most in the last row and column, which end with the image.
    """

    def __init__(self, size: tuple[int, ...], tile: int, overlap: int, shape: tuple[int, ...]):
        self.cell = (tile / shape[0], tile / shape[1])  # px
        self.size = tuple(max(1, round(side / cell)) for side, cell in zip(size, self.cell, strict=True))
        grid = tuple(max(side, own) for side, own in zip(self.size, shape, strict=True))  # small images are mirrored
        self.sums, self.weights = np.zeros(grid, np.float32), np.zeros(grid, np.float32)
        down, right = (
            np.minimum(1, (np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5) / max(overlap / cell, 0.5))
            for side, cell in zip(shape, self.cell, strict=True)
        )
        self.weight = np.outer(down, right).astype(np.float32)  # (h, w)

    def add(self, corner: tuple[int, int], scores: np.ndarray) -> None:
        """One tile's map (h, w)."""
        h, w = scores.shape
        top, left = (
            min(round(at / cell), whole - own)
            for at, cell, whole, own in zip(corner, self.cell, self.sums.shape, (h, w), strict=True)
        )
        self.sums[top : top + h, left : left + w] += self.weight * scores
        self.weights[top : top + h, left : left + w] += self.weight

    def map(self) -> np.ndarray:
        """The map (h, w) of the image."""
        self.sums /= np.maximum(self.weights, 1e-12)
        return self.sums[: self.size[0], : self.size[1]]
