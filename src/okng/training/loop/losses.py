"""The losses of a training phase: their means, and whether they are numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from okng.detectors.base import Update

READ_EVERY = 50  # losses: a GPU ends all that it was told to do before it hands one over


class NoNumber(ArithmeticError):
    """A loss that is infinite or no number, in words."""


class Losses:
    """Of the `updates` of a phase. On a CPU each is read at once, from other devices every `READ_EVERY`.

    `mean` makes of the losses of this process those of all.
    """

    def __init__(
        self, updates: Sequence[Update], device: torch.device, mean: Callable[[Tensor], Tensor] = lambda values: values
    ):
        self.names, self.mean = _names(updates), mean
        self.every = 1 if device.type == "cpu" else READ_EVERY
        self.latest: dict[int, float] = {}  # the last value of each update's loss that was read
        self.total, self.seen = 0.0, 0  # over an epoch
        self.each: list[float] = []  # of an epoch, batch by batch
        self._sums: dict[str, float] = defaultdict(float)  # over the epochs of a record
        self._counts: dict[str, int] = defaultdict(int)
        self._waiting: list[tuple[int, list[str], Tensor, int]] = []

    def add(self, number: int, loss: Tensor | dict[str, Tensor], images: int) -> Tensor:
        """Take note of the loss of update `number` on so many images; the scalar to descend.

        Raises `NoNumber` as `read` does, where it is time to read.
        """
        prefix = self.names[number]
        if isinstance(loss, dict):
            parts = torch.stack([*loss.values()])  # (k,)
            total, names = parts.sum(), [f"{prefix}: {key}" if prefix else key for key in loss]
        else:
            total, parts, names = loss, loss.reshape(1), [prefix or "loss"]
        values = self.mean(torch.cat([total.detach().reshape(1), parts.detach()]))  # (1 + k,)
        self._waiting.append((number, names, values, images))
        if len(self._waiting) >= self.every:
            self.read()
        return total

    def read(self) -> None:
        """Fetch what waits; `NoNumber` where a loss is none."""
        waiting, self._waiting = self._waiting, []
        values = iter(torch.cat([values for _, _, values, _ in waiting]).tolist() if waiting else ())
        for number, names, _, images in waiting:
            self.latest[number] = total = next(values)
            if not math.isfinite(total):
                raise NoNumber(f"its loss is {total}")
            self.total += total * images
            self.each.append(total)
            for name in names:
                self._sums[name] += next(values) * images
                self._counts[name] += images

    def epoch_mean(self) -> tuple[float, float]:
        """The mean over the images `seen` of the losses, summed over the updates, since it was asked for last.

        And how far they lie apart: the median distance of a batch's loss from their median.
        """
        self.read()
        mean, self.total, self.seen = self.total / self.seen, 0.0, 0
        each, self.each = self.each or [0.0], []  # none where no update took a step
        middle = median(each)
        return mean, median(abs(loss - middle) for loss in each)

    def means(self) -> dict[str, float]:
        """The mean of each loss since it was asked for last."""
        self.read()
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means


def _names(updates: Sequence[Update]) -> list[str]:
    """What tells the losses of one of several updates from the others': their functions' names. Blank for one alone."""
    names = [str(getattr(update.loss, "__name__", "")) for update in updates]
    if len(names) == 1:
        return [""]
    told = all(name.isidentifier() for name in names) and len({*names}) == len(names)
    return names if told else [f"update {i}" for i in range(1, len(names) + 1)]
