"""Which images a report shows as cards: bounded lists, so that memory does not grow with the images."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappush, heapreplace

import numpy as np

from okng.datasets.base import Mask
from okng.inspection.verdict.result import Inspection


@dataclass(frozen=True)
class Kept:
    """The `number`-th image, which may be shown; `pixels` is its thumbnail where there is no file."""

    number: int
    inspection: Inspection
    label: int | None
    kind: str
    pixels: np.ndarray | None
    mask: Mask | None


class Shortlist:
    """The `limit` images of highest priority among all that were offered; ties go to the earlier one."""

    def __init__(self, limit: int):
        self.limit = limit
        self.offered = 0
        self._heap: list[tuple[float, int, Kept]] = []

    def wants(self, priority: float) -> bool:
        """Count an offer; whether it belongs here so far."""
        self.offered += 1
        return len(self._heap) < self.limit or (self.limit > 0 and priority > self._heap[0][0])

    def push(self, priority: float, kept: Kept) -> None:
        """Take the image last offered, and drop the lowest when full."""
        entry = (priority, -self.offered, kept)
        if len(self._heap) < self.limit:
            heappush(self._heap, entry)
        else:
            heapreplace(self._heap, entry)

    def ranked(self) -> list[Kept]:
        """Highest priority first."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
