"""Which images are copies or near copies of each other, and which belong to one lot: they are never parted.

A copy on the other side of a split is an image that was learnt and is judged as if it were new: its score is too low,
and so is the threshold drawn from it. The same goes for the frames of a burst, for files that were encoded or sized
again, and for one part under several exposures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from okng.errors import OkngError
from okng.inspection.images import Source

GroupBy = str | re.Pattern[str] | Callable[[Source], Hashable] | Sequence[Hashable]
"""A pattern found in each path, a function of the image, or a label for each image."""

SIDE = 32  # of the thumbnails that are compared
BLUR = 1.0  # of them, so that a shift by a pixel is nearly linear
RIM = 2  # pixels that a shift brings in from outside
NEAREST = 32  # a gap is looked for among so many neighbours: longer bursts fall apart
SHARE = 3  # and among a third of all images: beside a foreign image all the others are alike
FEWEST = 6  # images, or none are near copies
ALIKE = 0.1  # no farther than this, in units of the thumbnail's contrast
GAP = 1 / 3  # and than this share of the distance to the nearest image that is none
NOISE = 2e-3  # distances below this are rounding
BLOCK = 512  # rows of distances at once


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """What is compared of an image, uint8 (H, W, C): grey, float32 (SIDE, SIDE)."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
    return np.asarray(image.convert("F").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def near_copies(thumbnails: np.ndarray) -> np.ndarray:
    """The number of the group (n,) that each of `thumbnails` (n, SIDE, SIDE) belongs to; most are alone in theirs.

    On an inspection line all OK images look alike, so how near is too near can't be a constant: a hash of 64 bits would
    call every part a copy of every other. Two images are near copies when their distance is at most `ALIKE` and at
    most a third (`GAP`) of the distance to the next image that is none of them. Among distinct images neighbours follow
    each other closely: in d dimensions the nearest is that much nearer than the second with a chance of 3^-d. Camera
    noise, which keeps distinct images of a fixed part equally far apart, leaves no gap either. Not to be told from
    bursts is a mix of products, each as alike as only frames are elsewhere: its groups are kept together too.

    The distance is blind to brightness, contrast and a small shift: thumbnails have mean 0 and norm 1, and what one
    differs from the other by a shift, to first order, is taken out (the tangent distance of Simard, LeCun & Denker,
    1993). Shifts up to about a 60th of the width are recognised.
    """
    return joined(len(thumbnails), *near_pairs(thumbnails))


def near_pairs(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near copies among `thumbnails` (n, SIDE, SIDE), as places (p,) and (p,), see `near_copies`."""
    n = len(thumbnails)
    rows, columns = [np.empty(0, int)], [np.empty(0, int)]
    if n >= FEWEST:
        points, tangents = _prepared(thumbnails)  # (n, D), (2, n, D)
        squared = np.square(points).sum(1)  # (n,)
        seen = min(NEAREST, n // SHARE)
        for begin, end in pairwise([*range(0, n, BLOCK), n]):
            some = points[begin:end]  # (b, D)
            distances = some @ points.T  # (b, n)
            distances *= -2
            distances += squared[begin:end, None]
            distances += squared
            for tangent in tangents[:, begin:end]:
                distances -= np.square(tangent @ points.T - (tangent * some).sum(1, keepdims=True))
            distances[np.arange(end - begin), np.arange(begin, end)] = np.inf
            close = np.flatnonzero(distances.min(1) <= ALIKE**2)  # of most images nothing is
            far = np.sqrt(np.maximum(distances[close], NOISE**2))  # (c, n)
            nearest = np.argpartition(far, seen, axis=1)[:, : seen + 1]  # (c, seen + 1)
            nearest = np.take_along_axis(nearest, np.take_along_axis(far, nearest, 1).argsort(1), 1)
            far = np.take_along_axis(far, nearest, 1)
            gaps = (far[:, :-1] <= ALIKE) & (far[:, :-1] <= GAP * far[:, 1:])  # (c, seen)
            last = np.where(gaps.any(1), seen - gaps[:, ::-1].argmax(1), 0)  # how many lie before the last gap
            row, place = np.nonzero(np.arange(seen) < last[:, None])
            rows.append(close[row] + begin)
            columns.append(nearest[row, place])
    return np.concatenate(rows), np.concatenate(columns)


def joined(n: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The group (n,) of each of n images when those of `rows` and `columns` belong together, in order of appearance."""
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))
    return numbered(connected_components(links, directed=False)[1])


def numbered(labels: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Equal `labels` as equal numbers (n,), from 0 in order of appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], int)


def labelled(sources: Sequence[Source], group_by: GroupBy) -> Callable[[Source], Hashable]:
    """What tells the group of each of `sources`; `OkngError` where `group_by` does not fit them.

    A pattern (Python's `re`, sought anywhere in the path with `/` between folders) gives its groups in parentheses, or
    without any the text it matches. A path that it does not match is a group of its own.
    """
    if callable(group_by):
        return group_by
    if not isinstance(group_by, str | re.Pattern):
        if len(group_by) != len(sources):
            raise OkngError(f"group_by has {len(group_by)} labels, but there are {len(sources)} images; give one each")
        table = {id(source): label for source, label in zip(sources, group_by, strict=True)}
        return lambda source: table[id(source)]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise OkngError(
            f"group_by {group_by!r} is no regular expression ({error}); try one such as lot[0-9]+"
        ) from error
    if any(isinstance(source, np.ndarray) for source in sources):
        raise OkngError("group_by is a pattern on paths, and these images are pixels; give a label for each instead")

    def label(source: Source) -> Hashable:
        found = pattern.search(Path(str(source)).as_posix())
        return str(source) if found is None else found.groups() or (found[0],)

    if not any(isinstance(label(source), tuple) for source in sources):
        raise OkngError(
            f"group_by {pattern.pattern!r} matches no path, such as {sources[0]}; mind that it is a pattern"
        )
    return label


def _prepared(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, D) of mean 0 and norm 1 (0 where all is flat), and two orthonormal directions of shift (2, n, D)."""
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / BLUR) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    smooth = np.pad(thumbnails, ((0, 0), (4, 4), (4, 4)), mode="edge")
    smooth = sum(weight * smooth[:, i : i + SIDE] for i, weight in enumerate(kernel))  # (n, SIDE, SIDE + 8)
    smooth = sum(weight * smooth[:, :, i : i + SIDE] for i, weight in enumerate(kernel))  # (n, SIDE, SIDE)
    inner = slice(RIM, SIDE - RIM)
    each = [smooth, *np.gradient(smooth, axis=(1, 2))]
    points, down, right = (part[:, inner, inner].reshape(len(smooth), -1) for part in each)  # (n, D)
    points = _unit(points - points.mean(1, keepdims=True))
    taken = [np.full_like(points, points.shape[1] ** -0.5), points]
    for tangent in (down, right):
        for known in taken:  # brightness, contrast and the other shift are dealt with
            tangent = tangent - known * (known * tangent).sum(1, keepdims=True)
        taken.append(_unit(tangent))
    return points, np.stack(taken[2:])


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = np.where(norms > 1e-3, vectors / np.maximum(norms, 1e-3), 0)
    return unit
