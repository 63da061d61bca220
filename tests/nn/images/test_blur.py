from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from okng.nn.images.blur import blur_matrix, gaussian_blur


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
def test_equals_the_two_dimensional_filter(sigma: float) -> None:
    maps = np.random.default_rng(0).random((3, 21, 34))
    expected = np.stack([gaussian_filter(m, sigma, mode="mirror", radius=round(4 * sigma)) for m in maps])
    torch.testing.assert_close(gaussian_blur(torch.from_numpy(maps), sigma), torch.from_numpy(expected))
    rows, columns = (blur_matrix(size, sigma, round(4 * sigma)) for size in maps.shape[1:])
    torch.testing.assert_close(rows @ torch.from_numpy(maps) @ columns.T, torch.from_numpy(expected))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (16, 16)])
def test_a_constant_map_stays_however_small(shape: tuple[int, int]) -> None:
    maps = torch.full((2, *shape), 0.7)
    torch.testing.assert_close(gaussian_blur(maps, 1.5), maps)
    torch.testing.assert_close(blur_matrix(shape[1], 1.5, 6).sum(1), torch.ones(shape[1], dtype=torch.float64))
