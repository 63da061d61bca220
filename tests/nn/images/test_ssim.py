from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from okng.nn.images.ssim import dssim_map, ssim_map


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 24, 31, generator=torch.Generator().manual_seed(0))


def test_is_the_formula_over_gaussian_windows(image: torch.Tensor) -> None:
    """Equation 13 written out with the Gaussian filter of SciPy."""
    a = image[0, 0].double().numpy()
    b = np.clip(a + np.random.default_rng(0).normal(0, 0.2, a.shape), 0, 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, mode="mirror", radius=5)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    expected = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    found = ssim_map(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    torch.testing.assert_close(found[0, 0], torch.from_numpy(expected))


def test_an_image_is_like_itself_and_unlike_its_negative(image: torch.Tensor) -> None:
    torch.testing.assert_close(ssim_map(image, image), torch.ones_like(image))
    torch.testing.assert_close(dssim_map(image, image), torch.zeros_like(image), atol=1e-6, rtol=0)
    assert (ssim_map(image, 1 - image) < 0).float().mean() > 0.9


def test_an_equal_error_counts_more_where_it_changes_structure() -> None:
    """A shift of brightness and a checker pattern of the same squared error."""
    image = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.25
    checker = ((torch.arange(24)[:, None] + torch.arange(24)) % 2 * 2 - 1) * 0.1
    assert dssim_map(image, image + checker).mean() > 2 * dssim_map(image, image + 0.1).mean()


def test_flat_images_have_a_finite_gradient() -> None:
    a = torch.zeros(1, 1, 16, 16, requires_grad=True)
    dssim_map(a, torch.zeros(1, 1, 16, 16)).sum().backward()
    assert a.grad is not None and torch.isfinite(a.grad).all()


def test_small_dissimilarities_of_flat_bright_images_keep_their_digits() -> None:
    """In float32 next to float64: the textbook's formula loses all of them here."""
    draw = torch.Generator().manual_seed(3)
    a = 0.95 + 0.001 * torch.rand(1, 1, 24, 24, generator=draw)
    b = a + 0.001 * torch.rand(1, 1, 24, 24, generator=draw)
    exact = dssim_map(a.double(), b.double())
    torch.testing.assert_close(dssim_map(a, b).double(), exact, rtol=0.01, atol=0)


def test_a_fit_of_mixed_precision_has_it_in_full() -> None:
    """Beside an edge the mean square is large and the variance small: in eight bits their difference was below -C2."""
    torch.manual_seed(0)
    image = (torch.arange(32) >= 16).float().expand(1, 1, 32, 32) * 0.9 + 0.1 * torch.rand(1, 1, 32, 32)
    copy = (image + 0.02 * torch.randn_like(image)).clamp(0, 1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = dssim_map(image, copy)
    assert torch.equal(mixed, dssim_map(image, copy))
