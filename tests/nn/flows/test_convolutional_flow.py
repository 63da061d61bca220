"""The affine of each place is inverted exactly and says what volume it takes; the networks keep the grid."""

from __future__ import annotations

import math

import torch

from okng.nn.flows.convolutional_flow import PositionAffine, subnet


def test_the_affine_of_each_place() -> None:
    affine = PositionAffine(2, 3, 4)
    x = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        affine.weight.fill_(0.5)
        affine.bias.copy_(torch.arange(24.0).view(2, 3, 4))
        z, log_determinant = affine(x)
        torch.testing.assert_close(z, x / 2 + affine.bias)
        torch.testing.assert_close(log_determinant, torch.full((5,), 24 * math.log(0.5)))
        torch.testing.assert_close(affine.inverse(z), x)


def test_the_networks_keep_the_grid() -> None:
    network = subnet(4, 6, ratio=0.5, side=3)
    assert network(torch.zeros(1, 4, 5, 7)).shape == (1, 6, 5, 7)
    assert network[0].out_channels == 2
