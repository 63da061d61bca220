"""Gaussian smoothing of score maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Smooth maps (B, h, w) by a Gaussian of standard deviation `sigma` > 0 in cells: (B, h, w).

    Separable: one pass per axis. The Gaussian is cut at 4 sigma; beyond the border the map is mirrored about its
    outermost cells, and where it is too small to be mirrored that far, its first cell repeated. A constant map stays as
    it is.
    """
    radius = round(4 * sigma)
    kernel = _kernel(sigma, radius).to(maps)  # (2 * radius + 1,)
    blurred = maps[:, None]  # (B, 1, h, w)
    for axis, shape in ((2, (1, 1, -1, 1)), (3, (1, 1, 1, -1))):
        last = blurred.shape[axis] - 1
        cells = _mirrored(torch.arange(-radius, last + radius + 1, device=maps.device), last)
        blurred = F.conv2d(blurred.index_select(axis, cells), kernel.view(shape))
    return blurred[:, 0]


def blur_matrix(size: int, sigma: float, radius: int) -> Tensor:
    """The same smoothing along an axis of `size` cells as a matrix (size, size) float64, multiplied from the left.

    For small images in training: products with it and their gradients are ten times as fast as the convolution's.
    """
    places = torch.arange(size)
    cells = _mirrored(places[:, None] + torch.arange(-radius, radius + 1), size - 1)  # (size, 2 * radius + 1)
    return ((cells[:, :, None] == places) * _kernel(sigma, radius)[:, None]).sum(1)


def _kernel(sigma: float, radius: int) -> Tensor:
    """The Gaussian's weights, (2 * radius + 1,) float64."""
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return weights / weights.sum()


def _mirrored(cells: Tensor, last: int) -> Tensor:
    """The cells from 0 to `last` that stand in the places of `cells`, which may lie beyond.

    By index: an exported graph can't choose a padding by the size it meets. By minimum and maximum, because OpenVINO
    2026.4 drops the abs() of what it derives from a shape.
    """
    cells = torch.maximum(cells, -cells)
    return torch.minimum(cells, 2 * last - cells).clamp_min(0)
