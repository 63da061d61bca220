from __future__ import annotations

import pytest
import torch

from okng.nn.images.textures import ALTERATIONS, PATTERNS, altered, procedural_texture


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (17, 40)])
def test_every_pattern_and_change_keeps_shape_and_range(channels: int, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    for pattern in PATTERNS:
        drawn = pattern(channels, size, generator)
        assert drawn.shape in {(1, *size), (channels, *size)} and 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
        assert drawn.std() > 0.02
    texture = torch.rand(channels, *size, generator=generator)
    for change in ALTERATIONS:
        changed = change(texture, generator).clamp(0, 1)
        assert changed.shape == texture.shape and changed.dtype == texture.dtype and changed.isfinite().all()
        assert not torch.equal(changed, texture) or (channels == 1 and change.__name__ == "_colour")


def test_textures_are_many_and_the_generator_alone_decides() -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return altered(procedural_texture(3, (32, 32), generator), generator)

    drawn = torch.stack([draw(seed) for seed in range(60)])  # (60, 3, 32, 32)
    assert torch.equal(draw(7), drawn[7]) and 0 <= float(drawn.min()) < 0.05 and 0.95 < float(drawn.max()) <= 1
    assert torch.cdist(drawn.flatten(1), drawn.flatten(1)).add(9 * torch.eye(60)).min() > 1


def test_without_a_generator_torchs_own_decides() -> None:
    texture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    first, second = altered(texture), altered(texture)
    torch.manual_seed(3)
    assert torch.equal(first, altered(texture)) and not torch.equal(first, second)
