from __future__ import annotations

import pytest
import torch

from okng.nn.images.perlin import perlin_mask, perlin_noise, random_noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_is_zero_at_crossings_smooth_and_of_both_signs() -> None:
    noise = perlin_noise((256, 192), (8, 4), seeded())
    assert noise.shape == (256, 192) and not noise[::32, ::48].any()
    assert 0.6 < float(noise.max()) < 1.1 and -1.1 < float(noise.min()) < -0.6
    assert float(noise.diff(dim=0).abs().max()) < 0.12 and float(noise.diff(dim=1).abs().max()) < 0.12
    assert torch.equal(noise, perlin_noise((256, 192), (8, 4), seeded()))
    assert not torch.equal(noise, perlin_noise((256, 192), (8, 4), seeded(1)))


def test_a_cell_has_one_slope_at_each_crossing() -> None:
    """Near a crossing noise is √2 times how far a place lies along the crossing's direction, of length 1."""
    noise = perlin_noise((800, 800), (4, 4), seeded())
    slopes = torch.stack([noise[201, 400], noise[200, 401]]) * 200  # per cell
    assert float(slopes.norm()) == pytest.approx(2**0.5, rel=0.05)


@pytest.mark.parametrize(("size", "finest"), [((256, 256), 32), ((64, 64), 8), ((28, 40), 2), ((9, 9), 1)])
def test_cells_are_eight_pixels_or_more(size: tuple[int, int], finest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()
    monkeypatch.setattr("okng.nn.images.perlin.perlin_noise", lambda size, cells, generator: asked.update(cells))
    generator = seeded()
    for _ in range(200):
        random_noise(size, generator)
    assert max(asked) >= finest and asked <= {1, 2, 4, 8, 16, 32} and min(asked) == 1
    assert max(asked) <= max(side // 8 for side in size)


def test_blots_cover_a_small_share_and_differ() -> None:
    generator = seeded()
    masks = torch.stack([perlin_mask((64, 64), generator) for _ in range(200)])  # (200, 64, 64)
    assert masks.dtype == torch.bool and 0.02 < float(masks.float().mean()) < 0.1
    assert float(masks.float().mean((1, 2)).max()) < 0.5
    assert (masks.float().mean(0) > 0).float().mean() > 0.95  # they may lie anywhere
