"""Layers, channels and resolutions of the networks that the papers name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from okng.errors import OkngError
from okng.nn.networks.residual import ResNet, WideResNet


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def layers_of(network: nn.Module) -> int:
    """Convolutions on the path, and the linear layer that follows; short cuts do not count."""
    return 1 + sum(layer.kernel_size == (3, 3) or "short_cut" not in name for name, layer in named(network))


def named(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]


def last_grid(network: nn.Module, side: int) -> tuple[int, int]:
    with torch.device("meta"):
        meta = network.to_empty(device="meta")
        body: torch.Tensor = meta.get_submodule("body")(torch.empty(1, 3, side, side))
    return tuple(body.shape[2:])  # type: ignore[return-value]


@pytest.mark.parametrize(("depth", "width"), [(10, 64), (16, 64), (16, 128)])
def test_wide_resnets_have_the_depth_that_names_them(depth: int, width: int) -> None:
    network = WideResNet(3, depth, width)
    assert len(convolutions(network)) == depth and network.features == 4 * width  # short cuts count, the last layer not
    assert convolutions(network)[0].out_channels == 16 and all(layer.bias is None for layer in convolutions(network))
    assert last_grid(network, 32) == (8, 8)


@pytest.mark.parametrize(
    ("depth", "blocks", "bottleneck", "features", "parameters"),
    [(18, (2, 2, 2, 2), False, 512, 11_168_832), (50, (3, 4, 6, 3), True, 2048, 23_500_352)],
)
def test_resnets_have_the_depth_that_names_them(
    depth: int, blocks: tuple[int, ...], bottleneck: bool, features: int, parameters: int
) -> None:
    network = ResNet(3, blocks, 64, bottleneck)
    assert layers_of(network) == depth and network.features == features
    assert sum(p.numel() for p in network.parameters()) == parameters  # torchvision's with 3 x 3 for 7 x 7 at first
    assert last_grid(network, 32) == (4, 4)


@pytest.mark.parametrize("network", [WideResNet(1, 10, 4), ResNet(1, (1, 1), 4), ResNet(1, (1, 1), 2, True)])
def test_features_are_of_one_image_alone_and_of_any_size(network: nn.Module) -> None:
    images = torch.rand(3, 1, 20, 24)
    network.eval()
    with torch.no_grad():
        together = network(images)
        torch.testing.assert_close(network(images[1:2]), together[1:2], rtol=1e-4, atol=1e-5)
        assert together.shape == (3, network.features) and together.std() > 0


def test_a_block_passes_its_input_on() -> None:
    """With the last convolution's weights 0 an identity block is the identity, or its rectified self."""
    wide, plain = WideResNet(3, 16, 16), ResNet(3, (2,), 4)
    images = torch.randn(2, 16, 8, 8)
    block = wide.get_submodule("body.2")
    nn.init.zeros_(block.get_submodule("second").weight)  # type: ignore[arg-type]
    torch.testing.assert_close(block(images), images)
    block = plain.get_submodule("body.4").eval()
    nn.init.zeros_(block.get_submodule("path.3").weight)  # type: ignore[arg-type]
    torch.testing.assert_close(block(images[:, :4]), images[:, :4].relu())


def test_what_is_no_network() -> None:
    with pytest.raises(OkngError, match="depth is 6n"):
        WideResNet(3, 11, 16)
    with pytest.raises(OkngError, match="blocks is"):
        ResNet(3, (2, 0), 16)
