from __future__ import annotations

import pytest
import torch
from torch import nn

from okng.nn.networks.pooled_unet import PooledUNet


@pytest.mark.parametrize("made", [[16, 8, 4], [12, 6, 5]])
def test_a_map_as_large_as_the_image(made: list[int]) -> None:
    torch.manual_seed(0)
    net = PooledUNet(3, [4, 8, 16, 16], made, 2, nn.InstanceNorm2d)
    assert net(torch.rand(2, 3, 32, 48)).shape == (2, 2, 32, 48)
    assert net.last.in_channels == made[-1]


def conv(inner: int, outer: int) -> int:
    return 9 * inner * outer + outer


@pytest.mark.parametrize(("normalisation", "each"), [(nn.InstanceNorm2d, 0), (nn.BatchNorm2d, 2)])
def test_its_layers_and_how_many_weights_they_have(normalisation: type[nn.Module], each: int) -> None:
    """Two layers at a level; on the way up one that enlarges, then two of it and the level; `each` to normalise by."""
    net = PooledUNet(3, [4, 8, 16], [12, 5], 2, normalisation)
    down = [conv(3, 4) + conv(4, 4), conv(4, 8) + conv(8, 8), conv(8, 16) + conv(16, 16)]
    up = [conv(16, 12) + conv(12 + 8, 12) + conv(12, 12), conv(12, 5) + conv(5 + 4, 5) + conv(5, 5)]
    normalised = each * (2 * (4 + 8 + 16) + 3 * (12 + 5))
    assert sum(weights.numel() for weights in net.parameters()) == sum(down) + sum(up) + normalised + conv(5, 2)
    layer = [nn.Conv2d, normalisation, nn.ReLU]
    kinds = {
        name: [type(part) for part in child.modules() if not list(part.children())]
        for name, child in net.named_children()
    }
    assert kinds == {"down": 6 * layer, "enlarge": 2 * [nn.Upsample, *layer], "merge": 4 * layer, "last": [nn.Conv2d]}
    assert all(
        layer.kernel_size == (3, 3) and layer.padding == (1, 1) and layer.bias is not None
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
    )
    enlarged = net.enlarge[0][0](torch.tensor([[[[0.0, 3.0]]]]))  # type: ignore[index]
    torch.testing.assert_close(enlarged, torch.tensor([[[[0.0, 1.0, 2.0, 3.0]] * 2]]).view(1, 1, 2, 4))


def test_without_a_layer_after_each_enlargement() -> None:
    """What comes from below meets its level as it is, and a layer of 1 × 1 ends it."""
    net = PooledUNet(3, [4, 8, 16], [12, 5], 2, nn.BatchNorm2d, refining=False)
    assert net(torch.rand(2, 3, 16, 24)).shape == (2, 2, 16, 24)
    down = [conv(3, 4) + conv(4, 4), conv(4, 8) + conv(8, 8), conv(8, 16) + conv(16, 16)]
    up = [conv(16 + 8, 12) + conv(12, 12), conv(12 + 4, 5) + conv(5, 5)]
    normalised = 2 * (2 * (4 + 8 + 16) + 2 * (12 + 5))
    assert sum(weights.numel() for weights in net.parameters()) == sum(down) + sum(up) + normalised + 5 * 2 + 2
    assert [type(layer) for layer in net.enlarge] == 2 * [nn.Upsample] and net.last.kernel_size == (1, 1)


def test_levels_are_halved_by_their_largest_values() -> None:
    torch.manual_seed(0)
    net = PooledUNet(1, [1, 1], [1], 1, nn.Identity)  # type: ignore[arg-type]
    seen: list[torch.Tensor] = []
    net.down[1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    image = torch.rand(1, 1, 4, 6)
    net(image)
    level = net.down[0](image)
    torch.testing.assert_close(seen[0], level.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)))


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
