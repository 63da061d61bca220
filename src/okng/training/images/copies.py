"""Which images are copies or near copies of each other, and which belong to one lot: they are never parted.

A copy on the other side of a split is an image that was learnt and is judged as if it were new: its score is too low,
and so is the threshold drawn from it. The same goes for the frames of a burst, for files that were encoded or sized
again, and for one part under several exposures.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from okng.errors import OkngError
from okng.inspection.reading.images import Source

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
AT_ONCE = 4096  # images that are compared with others at once
DIMENSIONS = 32  # in which more than AT_ONCE are first compared
ROUNDING = 1e-3  # of distances in them
IN_MEMORY = 64 << 20  # bytes of thumbnails


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """What is compared of an image, uint8 (H, W, C): grey, float32 (SIDE, SIDE)."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
    return np.asarray(image.convert("F").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


class Thumbnails:
    """Thumbnails of `count` images: in memory up to IN_MEMORY bytes, then in a file without a name."""

    def __init__(self, count: int):
        self._known = np.zeros(count, bool)
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="okng-thumbnails-")  # noqa: SIM115
        self._alone = threading.Lock()  # images are read in threads

    def __contains__(self, place: int) -> bool:
        return bool(self._known[place])

    def put(self, place: int, thumbnail: np.ndarray) -> None:
        """Keep that of the image at `place`; `OkngError` where the disk has no room."""
        with self._using():
            self._file.seek(place * 4 * SIDE * SIDE)
            self._file.write(thumbnail.tobytes())
            self._known[place] = True

    def get(self, places: np.ndarray) -> np.ndarray:
        """Those at `places` (n,), float32 (n, SIDE, SIDE); errors as in `put`, for the last ones are written here."""
        found = np.empty((len(places), SIDE, SIDE), np.float32)
        with self._using():
            for thumbnail, place in zip(found, places.tolist(), strict=True):
                self._file.seek(place * 4 * SIDE * SIDE)
                thumbnail[:] = np.frombuffer(self._file.read(4 * SIDE * SIDE), np.float32).reshape(SIDE, SIDE)
        return found

    @contextmanager
    def _using(self) -> Iterator[None]:
        """The file, for one thread at a time."""
        try:
            with self._alone:
                yield
        except OSError as error:
            raise OkngError(
                f"{tempfile.gettempdir()} has no room for {4 * SIDE * SIDE * len(self._known) / 1e9:.1f} GB of "
                f"thumbnails ({error.strerror}): set TMPDIR to a folder that has"
            ) from error


@dataclass(frozen=True)
class Chosen:
    """The thumbnails at `places` (n,) of `all_of_them`, which are read where they are looked at."""

    all_of_them: Thumbnails
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """Some of them, float32 (m, SIDE, SIDE)."""
        return self.all_of_them.get(self.places[index])

    def of(self, index: np.ndarray) -> Chosen:
        """Some of them, not read yet."""
        return Chosen(self.all_of_them, self.places[index])


def near_copies(thumbnails: Chosen | np.ndarray) -> np.ndarray:
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


def near_pairs(thumbnails: Chosen | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near copies among `thumbnails` (n, SIDE, SIDE), as places (p,) and (p,), see `near_copies`.

    All are compared with all, but from AT_ONCE on those alone that may be close to any, see `_perhaps_close`. No more
    than twice AT_ONCE are in memory.
    """
    n = len(thumbnails)
    rows, columns = [np.empty(0, int)], [np.empty(0, int)]
    if n >= FEWEST:
        seen = min(NEAREST, n // SHARE)
        asked = np.arange(n) if n <= AT_ONCE else _perhaps_close(thumbnails)
        for begin in range(0, len(asked), AT_ONCE):
            some = asked[begin : begin + AT_ONCE]
            far, nearest = _nearest(thumbnails, some, seen + 1)  # (b, seen + 1)
            gaps = (far[:, :-1] <= ALIKE) & (far[:, :-1] <= GAP * far[:, 1:])  # (b, seen)
            last = np.where(gaps.any(1), seen - gaps[:, ::-1].argmax(1), 0)  # how many lie before the last gap
            row, place = np.nonzero(np.arange(seen) < last[:, None])
            rows.append(some[row])
            columns.append(nearest[row, place])
    return np.concatenate(rows), np.concatenate(columns)


def _nearest(thumbnails: Chosen | np.ndarray, some: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of those at the places `some` (b,) the distances to the `count` nearest others, and these (b, count)."""
    own, own_tangents = _prepared(thumbnails[some])  # (b, D), (2, b, D)
    far, nearest = np.empty((len(some), 0), np.float32), np.empty((len(some), 0), int)
    for start in range(0, len(thumbnails), AT_ONCE):
        there = np.arange(start, min(start + AT_ONCE, len(thumbnails)))  # (m,)
        points = own if np.array_equal(there, some) else _prepared(thumbnails[there])[0]  # (m, D)
        found = []
        for begin, end in pairwise([*range(0, len(some), BLOCK), len(some)]):
            distances = _squared(own[begin:end], own_tangents[:, begin:end], points)  # (c, m)
            distances[some[begin:end, None] == there] = np.inf
            far_here = np.sqrt(np.maximum(distances, NOISE**2))
            both = np.concatenate([far[begin:end], far_here], 1)
            index = np.concatenate([nearest[begin:end], np.broadcast_to(there, far_here.shape)], 1)
            closest = np.argpartition(both, min(count, both.shape[1]) - 1, axis=1)[:, :count]
            closest = np.take_along_axis(closest, np.take_along_axis(both, closest, 1).argsort(1), 1)
            found.append((np.take_along_axis(both, closest, 1), np.take_along_axis(index, closest, 1)))
        far, nearest = (np.concatenate(each) for each in zip(*found, strict=True))
    return far, nearest


def _perhaps_close(thumbnails: Chosen | np.ndarray) -> np.ndarray:
    """The places (m,) of all that another is as near as `ALIKE`, and of some more, by a few DIMENSIONS of them.

    A distance is the shortest that a difference gets by shifts; what is projected is no longer than it was, and so with
    the shifts projected too. Those in which images differ most are looked at.
    """
    n = len(thumbnails)
    sample = _prepared(thumbnails[np.linspace(0, n - 1, AT_ONCE).astype(int)])[0]
    basis = np.linalg.eigh(np.cov(sample.T))[1][:, -DIMENSIONS:].astype(np.float32)  # (D, k)
    points, tangents = np.empty((n, DIMENSIONS), np.float32), np.empty((2, n, DIMENSIONS), np.float32)
    for start in range(0, n, AT_ONCE):
        block = slice(start, start + AT_ONCE)
        there, along = _prepared(thumbnails[block])
        points[block] = there @ basis
        one, other = along @ basis  # (m, k)
        tangents[0, block] = one = _unit(one, 1e-12)
        tangents[1, block] = _unit(other - one * (one * other).sum(1, keepdims=True), 1e-12)
    least = np.full(n, np.inf, np.float32)
    for begin in range(0, n, BLOCK):
        rows = slice(begin, begin + BLOCK)
        for start in range(0, n, AT_ONCE):
            distances = _squared(points[rows], tangents[:, rows], points[start : start + AT_ONCE])  # (b, m)
            own = np.arange(max(begin, start), min(begin + BLOCK, start + AT_ONCE, n))
            distances[own - begin, own - start] = np.inf
            np.minimum(least[rows], distances.min(1), out=least[rows])
    return np.flatnonzero(least <= (ALIKE + ROUNDING) ** 2)


def _squared(points: np.ndarray, tangents: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The squared distances (b, m) of `points` (b, D) from `others` (m, D), the shortest along `tangents` (2, b, D)."""
    distances: np.ndarray = points @ others.T  # (b, m)
    distances *= -2
    distances += np.square(points).sum(1)[:, None]
    distances += np.square(others).sum(1)
    for tangent in tangents:
        taken = tangent @ others.T  # (b, m)
        taken -= (tangent * points).sum(1, keepdims=True)
        distances -= np.square(taken, out=taken)
    return distances


def joined(n: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The group (n,) of each of n images when those of `rows` and `columns` belong together, in order of appearance."""
    places = rows.astype(np.int32), columns.astype(np.int32)  # of longer ones SciPy 1.11 makes one group, silently
    links = coo_array((np.ones(len(rows), bool), places), shape=(n, n))
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


def _unit(vectors: np.ndarray, least: float = 1e-3) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = np.where(norms > least, vectors / np.maximum(norms, least), 0)
    return unit
