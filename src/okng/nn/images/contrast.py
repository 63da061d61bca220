"""Global contrast normalisation of images, and the range that brings what is learnt from into [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLAT = 1e-6  # the least mean deviation: a flat image has none


def contrast_normalised(images: Tensor) -> Tensor:
    """`images` (B, C, H, W), each less its mean and divided by its mean absolute deviation, over all its values.

    The L1 form of global contrast normalisation, as the experiments of Ruff et al., "Deep One-Class Classification",
    ICML 2018, have it.
    """
    centred = images - mean(images)  # (B, C, H, W)
    return centred / mean(centred.abs()).clamp_min(FLAT)


def mean(images: Tensor) -> Tensor:
    """The mean (B, 1, 1, 1) of each of `images` (B, C, H, W), side by side: engines lose digits over long sums."""
    return images.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


class UnitRange(nn.Module):
    """Maps values so that the smallest and the largest of those learnt from, all together, become 0 and 1.

    Others may leave that range. What has learnt nothing changes nothing.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))

    def learn(self, lowest: Tensor, highest: Tensor) -> None:
        """Take the extremes of the values, of any shape, for the range."""
        self.low = lowest.min().to(self.low)
        self.high = torch.maximum(highest.max().to(self.low), self.low + FLAT)

    def forward(self, values: Tensor) -> Tensor:
        """`values` of any shape, by the range."""
        return (values - self.low) / (self.high - self.low)
