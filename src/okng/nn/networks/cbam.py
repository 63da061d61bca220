"""Attention over channels and over positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

REDUCTION = 16  # of the channels, in the perceptron of the channel gate
WINDOW = 7  # of the spatial gate


class CBAM(nn.Module):
    """Weigh the channels of a feature map by what they say of the whole image, then its positions.

    Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018. Both weights lie in (0, 1).
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.perceptron = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.window = nn.Conv2d(2, 1, WINDOW, padding=WINDOW // 2)

    def channel_gate(self, features: Tensor) -> Tensor:
        """A weight for each channel, (B, C, 1, 1), from its mean and its maximum through one perceptron."""
        told = self.perceptron(features.mean((2, 3))) + self.perceptron(features.amax((2, 3)))  # (B, C)
        return told.sigmoid()[:, :, None, None]  # type: ignore[no-any-return]

    def spatial_gate(self, features: Tensor) -> Tensor:
        """A weight for each position, (B, 1, h, w), from the mean and the maximum over channels around it."""
        summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)  # (B, 2, h, w)
        return self.window(summary).sigmoid()  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """`features` (B, C, h, w), weighed."""
        features = features * self.channel_gate(features)
        return features * self.spatial_gate(features)
