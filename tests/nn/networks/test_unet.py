from __future__ import annotations

import pytest
import torch
from torch import nn

from okng.nn.networks.unet import UNet


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (33, 47)])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_every_size_comes_back(size: tuple[int, int], levels: int) -> None:
    net = UNet(3, 2, width=2, levels=levels)
    assert net(torch.rand(1, 3, *size)).shape == (1, 2, *size)  # in training too: a batch of one


def test_published_channels() -> None:
    net = UNet(3, 3)
    assert [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)] == [64, 128, 256, 512, 512]
    back = [layer for layer in net.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in back] == [512, 256, 128, 64, 3]
    assert [layer.in_channels for layer in back] == [512, 1024, 512, 256, 128]


def test_its_layers() -> None:
    """Leaky rectifiers on the way down and none that leak on the way up; normalised but for the ends of the encoder."""
    net = UNet(3, 3, width=2, levels=3, slope=0.3)
    leaky, halved, doubled, even = nn.LeakyReLU, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d
    assert [[type(layer) for layer in way] for way in net.down] == [
        [halved, leaky],
        [halved, even, leaky],
        [halved, leaky],
    ]
    assert [[type(layer) for layer in way] for way in net.up] == 2 * [[doubled, even, nn.ReLU]]
    assert [way[0].bias is not None for way in (*net.down, *net.up)] == [True, False, True, False, False]
    assert {layer.negative_slope for layer in net.modules() if isinstance(layer, leaky)} == {0.3}


def test_each_level_reaches_the_output_past_all_below_it() -> None:
    """With what comes from below set to 0, the output still depends on the level."""
    torch.manual_seed(0)
    net = UNet(1, 1, width=2, levels=3).eval()
    for way in net.up:  # what is enlarged from below is gone; what the encoder had beside it stays
        nn.init.zeros_(way[0].weight)  # type: ignore[index]
    images = torch.rand(1, 1, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(images).sum(), images)
    assert gradient.any()
    nn.init.zeros_(net.last.weight[2:].data)  # and now the finest level's own channels, the only ones left
    (gradient,) = torch.autograd.grad(net(images).sum(), images)
    assert not gradient.any()


def test_what_is_handed_across_is_rectified_fully() -> None:
    """What the encoder says below zero goes down leakily, and reaches neither the layers beside it nor those above."""
    torch.manual_seed(0)
    net, images, said = UNet(1, 1, width=2, levels=2).eval(), torch.rand(1, 1, 16, 16), torch.randn(1, 2, 8, 8)

    class Saying(nn.Module):
        def __init__(self, features: torch.Tensor):
            super().__init__()
            self.features = features

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return self.features

    def made(across: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        net.down[0], net.down[1] = Saying(across), Saying(code)
        with torch.no_grad():
            return net(images)

    code = torch.randn(1, 4, 4, 4)
    assert torch.equal(made(said, code), made(said.relu(), code.relu()))
    assert not torch.equal(made(said, code), made(said.abs(), code))
    assert not torch.equal(made(said, code), made(said, code.abs()))
