"""A projection of patch descriptors, and what tells odd ones among them from OK ones."""

from __future__ import annotations

from torch import nn


def projection_and_discriminator(d: int, hidden: int) -> tuple[nn.Linear, nn.Sequential]:
    """Of vectors (N, d): one linear layer (N, d), and two with a batch norm between (N, 1), from Xavier's weights.

    Liu et al., "SimpleNet", CVPR 2023, section 3.2 to 3.4; GLASS (Chen et al., ECCV 2024) has the same.
    """
    projection = nn.Linear(d, d)
    first, last = nn.Linear(d, hidden), nn.Linear(hidden, 1, bias=False)
    discriminator = nn.Sequential(first, nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2), last)
    for layer in (projection, first, last):
        nn.init.xavier_normal_(layer.weight)
    return projection, discriminator
