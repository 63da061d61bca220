"""K-centre greedy: the few points that leave no other point far away, also of more points than fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from okng.errors import OkngError

CANDIDATES = 256
ROWS = 8192  # of points in one matrix product
OVERSAMPLE = 2  # how many times the asked number is kept while more points are to come
WORKSPACE = 128 << 20  # bytes: the products of a round, for points of up to 1,500 dimensions


def greedy_coreset(points: Tensor, count: int, start: int = 0) -> Tensor:
    """Indices (at most `count`,) of a farthest-point selection from `points` (N, D), beginning with `start`."""
    picked = [index for accepted in greedy_rounds(points, count, [start]) for index in accepted]
    return torch.tensor(picked, device=points.device)


def greedy_rounds(
    points: Tensor, count: int, start: Sequence[int] = (0,), radius: float = math.inf
) -> Iterator[list[int]]:
    """As `greedy_coreset`, the picks of each round as they are made; the first round are the points of `start`.

    The picks are those of the sequential greedy (Gonzalez 1985), ties aside, in far fewer passes over the points.
    Minimum distances only ever fall as centres are added. So of the CANDIDATES points that are now farthest, whichever
    is still at least as far as the farthest point outside them is the true farthest of all: it can be accepted, and its
    effect on the other candidates read from a small table, before anything else is updated. All centres accepted in
    such a round are then applied to all points in one matrix product.

    Goes on past `count` while a point is farther than `radius` from all picks. Ends early when every point coincides
    with a pick. Besides `points` it takes 24 bytes a point and WORKSPACE.
    """
    count = min(count, len(points))
    mean = points.mean(0)  # subtracted block by block: smaller norms, less cancellation in |x|² + |c|² - 2xc
    norms = torch.cat([(block - mean).square_().sum(1) for block in points.split(ROWS)])  # (N,)
    distances = torch.full_like(norms, torch.inf)  # squared, to the nearest centre
    accepted = list(start)
    missing = count
    while accepted:
        yield accepted
        missing -= len(accepted)
        if missing <= 0 and math.isinf(radius):
            return
        _apply(points, mean, norms, distances, torch.tensor(accepted, device=points.device))
        far, index = distances.topk(min(CANDIDATES + 1, len(points)))
        outside = float(far[CANDIDATES]) if len(far) > CANDIDATES else 0.0  # the farthest of all the others
        far, index = far[:CANDIDATES].cpu(), index[:CANDIDATES]
        candidates = points[index] - mean  # (B, D)
        table = torch.cdist(candidates, candidates).square().cpu()  # (B, B)
        accepted = []
        while True:
            best = int(far.argmax())
            enough = len(accepted) >= missing and float(far[best]) <= radius**2
            if enough or float(far[best]) <= 0 or float(far[best]) < outside:
                break
            accepted.append(int(index[best]))
            far = torch.minimum(far, table[best])
            far[best] = 0


def _apply(points: Tensor, mean: Tensor, norms: Tensor, distances: Tensor, centres: Tensor) -> None:
    """Lower `distances` (N,) in place by the new `centres` (A,), blocks of rows and of centres at a time."""
    for some in centres.split(CANDIDATES):
        chosen = (points[some] - mean).T  # (D, A)
        for begin in range(0, len(points), ROWS):
            block = slice(begin, begin + ROWS)
            with torch.autocast(points.device.type, enabled=False):  # a fit in bf16 must not pick in bf16
                nearest = torch.addmm(norms[some], points[block] - mean, chosen, alpha=-2).amin(1) + norms[block]
            torch.minimum(distances[block], nearest.clamp_min_(0), out=distances[block])
    distances[centres] = 0


class StreamingCoreset:
    """A coreset of points that come block by block, in bounded memory: merge and reduce.

    Points are gathered until the room is full, then reduced by the same greedy to OVERSAMPLE times the coreset asked
    for; `rounds` selects the coreset itself from what is held. As long as all points fit, nothing is reduced and the
    coreset is the one-shot one. k-centre needs no weights: a point that was dropped lies within the radius of that
    reduction around one that was kept, so the final radius is at most the sum of the radii on the way. To keep that sum
    short, a reduction that may keep more points than the one before keeps all of those and adds to them.

    `share` of all points, in (0, 1], at most `limit` of them, or, where it is given, their `number`. `capacity`: how
    many points there may be in memory, the selected ones included; `capacity_of` computes it from bytes. `kept` (M, D),
    to go on from: the coreset of `seen` earlier points, which covered them within `radius`. Without a `number`, and as
    long as nothing is reduced, `kept` stays whole, and beyond the share and the `limit` whatever lies farther than
    `radius` from it is added: few but very new points are covered like the old ones.
    """

    def __init__(
        self,
        share: float,
        capacity: int,
        kept: Tensor | None = None,
        seen: int = 0,
        radius: float = math.inf,
        number: int | None = None,
        limit: float = math.inf,
    ):
        self.share, self.number, self.limit, self.seen, self.radius = share, number, limit, seen, radius
        selected = max(min(limit, share * capacity) if number is None else number, capacity / 5)
        self.room = capacity - int(min(selected, capacity / 2))
        self._rows = torch.empty(0, 0) if kept is None else kept
        self._kept = self._held = len(self._rows)
        self._check(self._held)

    @property
    def points(self) -> Tensor:
        """What is held now (n, D): earlier picks first, then what came since."""
        return self._rows[: self._held]

    @property
    def count(self) -> int:
        """How many points the coreset of all seen so far has."""
        return max(1, round(min(self.limit, self.share * self.seen)) if self.number is None else self.number)

    def add(self, block: Tensor) -> None:
        """Take in `block` (n, D); raises `OkngError` when the coreset itself gets too large for the room."""
        while len(block):
            if self._held >= self.room:
                self._reduce()
            some = block[: self.room - self._held]
            self._grow(self._held + len(some), some)
            self._rows[self._held : self._held + len(some)] = some
            self._held += len(some)
            self.seen += len(some)
            block = block[len(some) :]

    def rounds(self) -> Iterator[list[int]]:
        """The coreset as indices into `points`, round by round.

        The first pick is drawn at random, unless there are earlier ones that stay.
        """
        if self.number is None and self._kept and math.isfinite(self.radius):
            return greedy_rounds(self.points, self.count, range(self._kept), self.radius)
        return self._select(self.count)

    def _select(self, count: int) -> Iterator[list[int]]:
        if 0 < self._kept < count:
            return greedy_rounds(self.points, count, range(self._kept))
        return greedy_rounds(self.points, count, [int(torch.randint(self._held, ()))])

    def _reduce(self) -> None:
        count = OVERSAMPLE * self.count
        self._check(count)
        picked = sorted(index for accepted in self._select(count) for index in accepted)
        for begin in range(0, len(picked), ROWS):  # in place: ascending indices never lie before where they go
            rows = self._rows[picked[begin : begin + ROWS]]
            self._rows[begin : begin + len(rows)] = rows
        self._kept = self._held = len(picked)
        self.radius = math.inf  # more is kept now than the coreset has

    def _grow(self, needed: int, like: Tensor) -> None:
        if needed > len(self._rows):
            larger = like.new_empty(min(self.room, max(needed, 2 * len(self._rows))), like.shape[1])
            if self._held:
                larger[: self._held] = self.points
            self._rows = larger

    def _check(self, count: int) -> None:
        if count > self.room / 2:
            raise OkngError(
                f"a coreset of {self.count:,} patches is too large for the memory it was given: "
                "raise memory (in GB), or take a smaller coreset"
            )


def last_gap(points: Tensor) -> float:
    """The distance from the last of `points` (M, D), in the order picked, to the nearest of the others.

    It was the farthest of all points when it was picked, so the covering radius is no larger.
    """
    if len(points) < 2:
        return math.inf
    return math.sqrt(min(float((block - points[-1]).square_().sum(1).min()) for block in points[:-1].split(ROWS)))


def capacity_of(size: float, dimensions: int) -> int:
    """How many float32 points of `dimensions` a `StreamingCoreset` may have in `size` bytes, workspace included."""
    return int((size - WORKSPACE) / (4 * dimensions + 24))


def covering_radius(points: Tensor, centres: Tensor) -> float:
    """The largest distance from any of `points` (N, D) to its nearest of `centres` (M, D).

    The nearest is found by products, |x|² + |c|² - 2xc, about the mean of all; the distance to it is that of the
    difference, which cancels nothing. So a mean far from 0 does not make the radius smaller than it is. Of none of
    either there is no radius: `OkngError`.
    """
    if not len(points) or not len(centres):
        raise OkngError(
            f"{len(points)} points have no covering radius by {len(centres)} centres; give one of each or more"
        )
    mean = points.mean(0)
    about, radius = centres - mean, 0.0
    for block in points.split(ROWS):
        nearest = torch.cdist(block - mean, about).argmin(1)  # (n,)
        radius = max(radius, float((block - centres[nearest]).norm(dim=1).max()))
    return radius
