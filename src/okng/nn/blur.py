"""Gaussian smoothing of score maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(maps: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """Smooth maps (B, h, w) by a Gaussian of standard deviation `sigma` > 0 in cells: (B, h, w).

    Separable: one pass per axis. The Gaussian is cut at `radius` cells, by default at 4 sigma; beyond the border the
    map is mirrored about its outermost cells, and where it is too small to be mirrored that far, its first cell
    repeated. A constant map stays as it is.
    """
    radius = round(4 * sigma) if radius is None else radius
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)  # (2 * radius + 1,)
    kernel = weights / weights.sum()
    blurred = maps[:, None]  # (B, 1, h, w)
    for axis, shape in ((2, (1, 1, -1, 1)), (3, (1, 1, 1, -1))):
        # Mirrored by index: an exported graph can't choose a padding by the size it meets. By minimum and maximum,
        # because OpenVINO 2026.4 drops the abs() of what it derives from a shape.
        last = blurred.shape[axis] - 1
        cells = torch.arange(-radius, last + radius + 1, device=maps.device)
        cells = torch.maximum(cells, -cells)
        cells = torch.minimum(cells, 2 * last - cells).clamp_min(0)
        blurred = F.conv2d(blurred.index_select(axis, cells), kernel.view(shape))
    return blurred[:, 0]
