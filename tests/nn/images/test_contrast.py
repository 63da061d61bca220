from __future__ import annotations

import torch

from okng.nn.images.contrast import UnitRange, contrast_normalised


def test_every_image_gets_mean_0_and_mean_deviation_1_over_all_its_values() -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images[0] *= 0.2
    found = contrast_normalised(images)
    assert found.mean((1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(found.abs().mean((1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(contrast_normalised(0.3 * images + 0.1), found, rtol=1e-4, atol=1e-4)  # blind to light
    assert contrast_normalised(torch.full((1, 1, 4, 4), 0.7)).abs().max() < 1


def test_the_extremes_become_0_and_1_and_nothing_is_cut() -> None:
    scale = UnitRange()
    assert torch.equal(scale(torch.tensor([-1.0, 3.0])), torch.tensor([-1.0, 3.0]))
    scale.learn(torch.tensor([-2.0, 1.0]), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(scale(torch.tensor([-2.0, 0.0, 2.0, 4.0])), torch.tensor([0.0, 0.5, 1.0, 1.5]))
    scale.learn(torch.ones(2), torch.ones(2))
    assert scale(torch.ones(2)).isfinite().all()
