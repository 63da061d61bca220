from __future__ import annotations

import pytest
import torch
from torch import nn

from okng.nn.networks.strided import start_awake, strided_coders


@pytest.mark.parametrize(
    ("size", "grid"),
    [((16, 16), (4, 4)), ((28, 28), (4, 4)), ((32, 32), (4, 4)), ((33, 47), (3, 3)), ((31, 250), (4, 32))],
)
@pytest.mark.parametrize(("per_code", "per_value"), [(1, 1), (2, 1), (2, 2)])
def test_every_size_is_squeezed_and_recovered(
    size: tuple[int, int], grid: tuple[int, int], per_code: int, per_value: int
) -> None:
    encoder, decoder = strided_coders(size, channels=3, code=5, width=2, per_code=per_code, per_value=per_value)
    with torch.no_grad():
        coarsest = encoder[:-2](torch.rand(2, 3, *size))
        assert coarsest.shape[2:] == grid
        assert encoder(torch.rand(2, 3, *size)).shape == (2, per_code * 5)
        assert decoder(torch.randn(2, 5)).shape == (2, per_value * 3, *size)


def test_channels_double_as_the_sides_halve() -> None:
    encoder, decoder = strided_coders((64, 64), channels=1, code=5, width=3)
    assert [layer.out_channels for layer in encoder if isinstance(layer, nn.Conv2d)] == [3, 6, 12, 24]
    assert [layer.out_channels for layer in decoder if isinstance(layer, nn.ConvTranspose2d)] == [12, 6, 3, 1]


def test_the_signal_arrives_behind_many_layers() -> None:
    """With torch's own initial weights next to none of it is left."""
    torch.manual_seed(0)
    deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.LeakyReLU(0.2)) for _ in range(8)])
    images = torch.rand(2, 16, 16, 16)
    with torch.no_grad():
        asleep = deep(images).std()
        start_awake(deep)
        assert deep(images).std() > 5 * asleep
