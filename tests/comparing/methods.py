"""Detectors for the tests of comparisons, where each fit is a process: quick ones, and ones that fail in every way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update


class Mean(Detector):
    """Odd is far from the average OK image. `blur`: added to the variance."""

    fixed_size = True
    average: Tensor
    variance: Tensor

    def __init__(self, blur: float = 1e-3):
        super().__init__()
        self.blur = blur
        self.register_buffer("average", torch.zeros(0))  # (C, H, W), fitting sizes it
        self.register_buffer("variance", torch.zeros(0))

    def phases(self) -> Iterator[Phase]:
        seen: list[Tensor] = []

        def finish() -> None:
            images = torch.cat(seen)  # (N, C, H, W)
            self.average, self.variance = images.mean(0), images.var(0, correction=0)

        yield Collect("average", lambda batch: seen.append(batch.images), finish)

    def forward(self, images: Tensor) -> Scores:
        odd = (images - self.average).square() / (self.variance + self.blur)  # (B, C, H, W)
        return Scores(odd.mean((1, 2, 3)), odd.mean(1))


class Colour(Detector):
    """Odd is another colour of one corner, which gradient descent learns: a bad detector, without a map.

    `pause`: seconds a step.
    """

    def __init__(self, epochs: int = 3, pause: float = 0.0):
        super().__init__()
        self.epochs, self.pause = epochs, pause
        self.colour = nn.Parameter(torch.rand(3))

    def phases(self) -> Iterator[Phase]:
        def loss(batch: Batch) -> Tensor:
            time.sleep(self.pause)
            return (batch.images[:, :, :6, :6].mean((2, 3)) - self.colour).square().mean()

        updates = [Update(loss, torch.optim.SGD(self.parameters(), 0.5))]
        yield Train("colour", updates, self.epochs, [self], batch_size=4)

    def forward(self, images: Tensor) -> Scores:
        return Scores((images[:, :, :6, :6].mean((2, 3)) - self.colour).square().sum(1))


class Broken(Mean):
    """Its fit raises what nobody foresaw."""

    def phases(self) -> Iterator[Phase]:
        raise ZeroDivisionError("a mistake\nof two lines")
        yield


class Late(Colour):
    """Its fit fails after a phase, which its checkpoint holds."""

    def phases(self) -> Iterator[Phase]:
        yield from super().phases()
        raise ZeroDivisionError("a late mistake")


class Killed(Mean):
    """Its process is killed, as by a system that has no memory left."""

    def phases(self) -> Iterator[Phase]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield


class Greedy(Mean):
    """It takes 300 MB while it fits, and none later."""

    def phases(self) -> Iterator[Phase]:
        torch.ones(75_000_000)
        yield from super().phases()


class Beside(Mean):
    """It can use auxiliary images, to no avail."""

    takes_auxiliary = True
