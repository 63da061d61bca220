"""Mean and deviation of what comes in parts."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Mean and standard deviation of the columns of what is added, in double precision."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Take in `rows` (N, k)."""
        rows = rows.cpu().double()
        self.count, self.total = self.count + len(rows), self.total + rows.sum(0)
        self.squares = self.squares + rows.square().sum(0)

    def result(self) -> tuple[Tensor, Tensor]:
        """Both, (k,) float32."""
        mean = self.total / self.count
        return mean.float(), (self.squares / self.count - mean.square()).clamp_min(0).sqrt().float()
