"""Distances of vectors to many others: all of them by one matrix product, or those to the nearest, exactly."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(queries: Tensor, memories: Tensor) -> Tensor:
    """Squared distances (B, M) of `queries` (B, D) to all of `memories` (M, D), by |q|² + |m|² - 2qm.

    What is small against |q|² loses digits to rounding: for sums over many. In half precision nearly all would be lost,
    so they are float32 in a fit of mixed precision, too.
    """
    with torch.autocast(queries.device.type, enabled=False):
        wide = torch.promote_types(queries.dtype, torch.float32)
        queries, memories = queries.to(wide), memories.to(wide)
        norms = queries.square().sum(1, keepdim=True) + memories.square().sum(1)  # (B, M)
        return (norms - 2 * queries @ memories.T).clamp_min(0)


def nearest_distances(queries: Tensor, memories: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Distances (B, count) of `queries` (B, D) to the nearest of `memories` (M, D), and which they are, nearest first.

    Which are nearest is read from the product, the distances from the differences.
    """
    index = squared_distances(queries, memories).topk(count, largest=False).indices  # (B, count)
    squared = (queries[:, None] - memories[index]).square().sum(2)  # (B, count)
    return squared.sqrt(), index
