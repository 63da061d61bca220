"""What flows on feature maps are made of, beside their couplings: the networks in these, and an affine of each place.

Yu et al., "FastFlow", arXiv 2111.07677, 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from okng.nn.flows.coupling import Flow


class PositionAffine(Flow):
    """Every value of a map (B, C, h, w) times a learnt weight plus a learnt bias of its own, as LayerNorm's."""

    def __init__(self, *shape: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))  # (C, h, w)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The weights start as 1 and stay away from 0, where the volume would vanish."""
        return x * self.weight + self.bias, self.weight.abs().log().sum().expand(x.shape[0])

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Bias off, weight off."""
        return (z - self.bias) / self.weight


def subnet(seen: int, given: int, ratio: float, side: int) -> nn.Module:
    """Two convolutions that keep the grid, with `ratio` · `seen` channels between."""
    hidden = max(1, int(ratio * seen))
    return nn.Sequential(
        nn.Conv2d(seen, hidden, side, padding="same"), nn.ReLU(), nn.Conv2d(hidden, given, side, padding="same")
    )
