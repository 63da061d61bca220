"""How deep a network of halvings is for an image, and the padding that makes its sides divide."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def halvings(image_size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """How often the sides (h, w) are halved until the shorter one is 4 to 7, and the grid left then, rounded up.

    32, 64 and 256 px are 4 · 2³, 4 · 2⁴ and 4 · 2⁶; 28 px are 7 · 2². Sides between are padded up to grid · 2ⁿ.
    """
    times = (min(image_size) // 4).bit_length() - 1
    h, w = (-(-side // 2**times) for side in image_size)
    return times, (h, w)


def pad_to_grid(images: Tensor, times: int) -> Tensor:
    """Repeat the last row and column of (B, C, h, w) until `times` halvings leave whole numbers."""
    down, right = (-side % 2**times for side in images.shape[2:])
    return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
