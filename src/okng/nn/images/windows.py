"""Windows of images, some at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def windows_in_blocks(images: Tensor, side: int, step: int, together: int) -> Iterator[Tensor]:
    """All windows of `images` (B, C, H, W), `step` px apart, `together` of them at a time: (n, C, side, side) each.

    They come row by row, image after image. Each block is cut when it is asked for, so the windows of all images, which
    share most of their pixels, are never in memory together. An exported graph, whose number of windows is open, has
    them all in one block.
    """
    if torch.onnx.is_in_onnx_export():
        unfolded = F.unfold(images, side, stride=step).transpose(1, 2)  # (B, h*w, C*side²)
        yield unfolded.reshape(-1, images.shape[1], side, side)
        return
    views = images.unfold(2, side, step).unfold(3, side, step).permute(0, 2, 3, 1, 4, 5)  # (B, h, w, C, side, side)
    places = torch.arange(views.shape[:3].numel(), device=images.device)
    for block in places.split(together):
        yield views[torch.unravel_index(block, views.shape[:3])].contiguous()
