"""Gaussian smoothing of score maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Smooth maps (B, h, w) by a Gaussian of standard deviation `sigma` > 0 in cells: (B, h, w).

    Separable: one pass per axis. The Gaussian is cut at 4 sigma, or where a map is too small to be mirrored
    that far; beyond the border the map is mirrored about its outermost cells. A constant map stays as it is.
    """
    blurred = maps[:, None]  # (B, 1, h, w)
    for axis in (2, 3):
        radius = min(round(4 * sigma), maps.shape[axis - 1] - 1)
        offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)  # (2 * radius + 1,)
        kernel = (weights / weights.sum()).view((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        blurred = F.conv2d(F.pad(blurred, padding, mode="reflect"), kernel)
    return blurred[:, 0]
