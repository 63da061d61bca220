"""What a data set holds, counted before anything is learned from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.inspection.reading.files import natural_order
from okng.inspection.reading.images import UnreadableImage, image_size


def describe(dataset: Dataset) -> list[dict[str, str | int]]:
    """One row per split and kind, kinds in natural order.

    Each has `split` ("train" or "test"), `kind`, the counts `ok`, `ng`, `masks` (samples with a mask file)
    and `unreadable` (files that do not begin like an image), and `sizes`: width×height in pixels, seen upright,
    of the smallest and the largest image by area where they differ ("103×289 … 618×261"). Only headers are
    read, so an image that is cut short further on still counts as readable.
    """
    rows = []
    for split, samples in (("train", dataset.train), ("test", dataset.test)):
        kinds: dict[str, list[Sample]] = {}
        for sample in samples:
            kinds.setdefault(sample.kind, []).append(sample)
        ordered = sorted(kinds.items(), key=lambda item: natural_order(item[0]))
        rows += [{"split": split, "kind": kind, **_count(members)} for kind, members in ordered]
    return rows


def _count(samples: list[Sample]) -> dict[str, str | int]:
    sizes = [_size(sample.image) for sample in samples]
    return {
        "ok": sum(sample.label == OK for sample in samples),
        "ng": sum(sample.label == NG for sample in samples),
        "masks": sum(sample.mask is not None for sample in samples),
        "unreadable": sizes.count(None),
        "sizes": _size_range({size for size in sizes if size is not None}),
    }


def _size(image: Path | np.ndarray) -> tuple[int, int] | None:
    """Width and height of a file or of pixels (H, W[, 3]); None for a file that Pillow cannot open."""
    if isinstance(image, np.ndarray):
        return image.shape[1], image.shape[0]
    try:
        height, width = image_size(image)
    except UnreadableImage:
        return None
    return width, height


def _size_range(sizes: set[tuple[int, int]]) -> str:
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    ends = ordered if len(ordered) < 2 else [ordered[0], ordered[-1]]
    return " … ".join(f"{width}×{height}" for width, height in ends)
