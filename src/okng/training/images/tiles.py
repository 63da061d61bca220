"""The tiles of training images, for a detector that is to judge tiles."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from okng.inspection.reading.images import image_size
from okng.inspection.reading.tiling import corners, cut
from okng.training.images.copies import numbered
from okng.training.images.data import PIXEL_BUDGET, TrainingImages

DECODED = 2  # whole images that are kept while their tiles are cut


class TileImages(TrainingImages):
    """All tiles of `images`, whose preprocessing says how large they are, image after image.

    An image's tiles are never parted: what is learnt of them is chosen by image, see `of`. They are kept while all fit
    into `budget` bytes; of `images` themselves nothing need be kept, for they are cut from the originals.
    """

    _of_each = (*TrainingImages._of_each, "parents", "corners")

    def __init__(self, images: TrainingImages, budget: int = PIXEL_BUDGET):
        super().__init__(images.sources, images.preprocess, budget, images.labels)
        tile, size = self.preprocess.tile, self.preprocess.size
        assert tile is not None and not isinstance(size, int)
        self.images, self.tile, self.size = images, tile, size
        cornered = [corners(*image_size(source), tile, self.preprocess.overlap) for source in images.sources]
        self.parents = [i for i, each in enumerate(cornered) for _ in each]
        self.corners = [corner for each in cornered for corner in each]
        self.sources = [images.sources[i] for i in self.parents]
        self.labels = [images.labels[i] for i in self.parents]
        self.products = images.products[self.parents]
        self.places, self.shapes = list(range(len(self.parents))), [size] * len(self.parents)
        self._keep = self._fits()
        self._decoded: dict[int, np.ndarray] = {}
        self._reading = threading.Lock()

    def __getitem__(self, index: int) -> Tensor:
        """Tile `index` as uint8 (C, h, w)."""
        place = self.places[index]
        if place in self._kept:
            return self._kept[place]
        pixels = cut(self._whole(self.parents[index]), self.corners[index], self.tile, self.size)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()  # (C, h, w)
        if self._keep:
            self._kept[place] = image
        return image

    def of(self, images: Iterable[int]) -> TileImages:
        """The tiles of some of the images."""
        wanted = {int(i) for i in images}
        return self.subset([i for i, parent in enumerate(self.parents) if parent in wanted])

    def fingerprints(self) -> list[str]:
        """What tells each tile from all others."""
        marks = self.images.fingerprints()
        return [f"{marks[i]}@{top},{left}" for i, (top, left) in zip(self.parents, self.corners, strict=True)]

    def alike(self) -> np.ndarray:
        """The group (n,) of each tile, which is that of its image."""
        return numbered(self.images.alike()[self.parents])

    def _whole(self, image: int) -> np.ndarray:
        """All pixels (H, W, C) of an image, read once while its tiles are cut one after another."""
        with self._reading:
            if image not in self._decoded:
                while len(self._decoded) >= DECODED:
                    self._decoded.pop(next(iter(self._decoded)), None)
                self._decoded[image] = self.preprocess.read_whole(self.images.sources[image])[0]
            return self._decoded[image]


def tiles_in_words(sizes: list[tuple[int, int]], tile: int, overlap: int, seconds: float | None) -> str:
    """What tiling costs, for images of these `sizes` (height, width), if one tile takes `seconds`."""
    counts = [len(corners(*size, tile, overlap)) for size in sizes]
    low, high = min(counts), max(counts)
    each = f"{low}" if low == high else f"{low} to {high}"
    took = "" if seconds is None else f", about {high} x {1e3 * seconds:.0f} ms = {high * seconds:.1f} s by PyTorch"
    learnt = f"{sum(counts):,} tiles to learn from and to judge"
    return f"tiles of {tile} px, overlap {overlap}: an image is {each} of them{took}; {learnt}"
