"""What tells OK patches from others begins with Xavier's weights, and has no bias at its end."""

from __future__ import annotations

import torch
from torch import nn

from okng.nn.networks.discriminator import projection_and_discriminator


def test_its_layers() -> None:
    torch.manual_seed(0)
    projection, discriminator = projection_and_discriminator(200, 300)
    assert discriminator(projection(torch.randn(7, 200))).shape == (7, 1)
    first, last = discriminator[0], discriminator[3]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear) and last.bias is None
    for layer in (projection, first, last):
        wanted = (2 / (layer.in_features + layer.out_features)) ** 0.5
        assert abs(float(layer.weight.detach().std()) / wanted - 1) < 0.15
