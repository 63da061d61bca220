from __future__ import annotations

import pytest
import torch
from torch import nn

from okng.nn.pooled_unet import PooledUNet


@pytest.mark.parametrize("made", [[16, 8, 4], [12, 6, 5]])
def test_a_map_as_large_as_the_image(made: list[int]) -> None:
    torch.manual_seed(0)
    net = PooledUNet(3, [4, 8, 16, 16], made, 2, nn.InstanceNorm2d)
    assert net(torch.rand(2, 3, 32, 48)).shape == (2, 2, 32, 48)
    assert net.last.in_channels == made[-1]


def test_details_go_around_the_coarse_levels() -> None:
    """With nothing from below, the map still follows the image's pixels; without the way around it would not."""
    torch.manual_seed(0)
    net = PooledUNet(1, [4, 4, 4], [4, 4], 1, nn.InstanceNorm2d)
    for layer in net.enlarge.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    net(image)[0, 0, 5, 5].backward()
    assert image.grad is not None and float(image.grad[0, 0, 5, 5].abs()) > 0


def test_instances_are_normalised_alone_and_batches_together() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 1, 16, 16)
    alone = PooledUNet(1, [4, 4], [4], 1, nn.InstanceNorm2d).train()
    together = PooledUNet(1, [4, 4], [4], 1, nn.BatchNorm2d).train()
    torch.testing.assert_close(alone(images)[:1], alone(images[:1]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together(images)[:1], together(images[:1]), atol=1e-2)
