"""Levels as tokens: a CNN's keep their angles, class tokens come first, and gradients are weighed without the value."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from okng.errors import OkngError
from okng.nn.features.token_levels import TokenLevels, distances, loss_of_maps, map_of_tokens, small_weights

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def built(name: str = "efficientnet_lite0", heads: int = 3) -> TokenLevels:
    torch.manual_seed(0)
    return TokenLevels(name, (8, 16), (2, 4) if name.startswith("vit") else (), "none", heads).eval()


def test_a_cnns_levels_have_one_grid_and_width_and_keep_their_angles() -> None:
    levels = built()
    assert (levels.width, levels.multiple, levels.before, levels.levels) == (114, 16, 1, 2)  # 112 and what 3 divides
    with torch.no_grad():
        tokens = levels(IMAGES)
        fine, coarse = levels.network.backbone(IMAGES)
    assert tokens.shape == (2, 2, 1 + 4 * 6, 114)
    torch.testing.assert_close(tokens[:, :, 0], tokens[:, :, 1:].mean(2))
    for level, features in enumerate((F.avg_pool2d(fine, 2), coarse)):
        patches = features.flatten(2).transpose(1, 2)
        patches = (patches - patches.mean(2, keepdim=True)) / patches.std(2, correction=0, keepdim=True)
        between = patches @ patches.transpose(1, 2)
        found = tokens[:, level, 1:] @ tokens[:, level, 1:].transpose(1, 2)
        torch.testing.assert_close(found, between, rtol=1e-2, atol=1e-2 * float(between.abs().max()))


def test_a_transformers_levels_are_its_blocks_class_token_first() -> None:
    levels = built("vit_tiny_patch16_224")
    with torch.no_grad():
        tokens = levels(IMAGES)
        maps, before = levels.network(IMAGES)
    assert tokens.shape == (2, 2, 1 + 4 * 6, 192)
    for level in (0, 1):
        assert torch.equal(tokens[:, level, :1], before[level])
        assert torch.equal(tokens[:, level, 1:].transpose(1, 2).view(2, 192, 4, 6), maps[level])


def test_factors_weigh_the_gradient_of_a_position_and_leave_the_loss() -> None:
    wanted, restored = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(1))
    restored.requires_grad_()
    factors = torch.rand(2, 5)
    plain = loss_of_maps(wanted, restored, torch.ones(2, 5))
    weighed = loss_of_maps(wanted, restored, factors)
    torch.testing.assert_close(plain, (1 - F.cosine_similarity(wanted.flatten(1), restored.flatten(1))).mean())
    torch.testing.assert_close(plain, weighed)
    slopes: list[Tensor] = [torch.autograd.grad(loss, restored)[0] for loss in (plain, weighed)]
    torch.testing.assert_close(slopes[1], slopes[0] * factors[..., None])


def test_a_map_has_eight_cells_a_token_and_a_flat_one_stays_flat() -> None:
    odd = distances(torch.ones(1, 24, 3), torch.tensor([1.0, 1.0, -1.0]).expand(1, 24, 3)).clone()
    made = map_of_tokens(odd, IMAGES[:1], 16)
    assert made.shape == (1, 32, 48)
    torch.testing.assert_close(made, torch.full_like(made, 1 - 1 / 3))
    odd[0, 8] = 2  # the second row, the third column
    made = map_of_tokens(odd, IMAGES[:1], 16)[0]
    row, column = divmod(int(made.argmax()), 48)
    assert abs(row - 1 / 3 * 31) < 3 and abs(column - 2 / 5 * 47) < 3


def test_weights_begin_small() -> None:
    layer = torch.nn.Linear(50, 50)
    small_weights(layer)
    assert float(layer.weight.abs().max()) <= 0.03 and 0.005 < float(layer.weight.std()) < 0.015
    assert not layer.bias.any()


def test_one_level_is_too_few() -> None:
    with pytest.raises(OkngError, match="strides are two or more"):
        TokenLevels("efficientnet_lite0", (8,), (), "none", 1)
    with pytest.raises(OkngError, match="blocks are two or more"):
        TokenLevels("vit_tiny_patch16_224", (8, 16), (2,), "none", 3)
    with pytest.raises(OkngError, match="heads is a divisor of the backbone's width 192, not 5"):
        built("vit_tiny_patch16_224", 5)
