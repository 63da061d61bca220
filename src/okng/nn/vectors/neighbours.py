"""Nearest neighbours by one matrix product, and their exact distances."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_squared(queries: Tensor, memories: Tensor, count: int = 1) -> Tensor:
    """Squared distances (B, Q, count) of `queries` (B, Q, D) to the nearest of `memories` (B, M, D), nearest first.

    Which are nearest is read from |m|² - 2qm, a matrix product, about the memories' mean: what all have in common would
    else round away what tells two of them apart. The distance itself is that of the difference: |q|² + |m|² - 2qm loses
    what is small against |q|² to rounding, and of a query that is a memory it would not be 0.
    """
    centre = memories.mean(1, keepdim=True)  # (B, 1, D)
    centred = memories - centre
    norms = centred.square().sum(2)[:, None]  # (B, 1, M)
    closeness = torch.baddbmm(norms, queries - centre, centred.transpose(1, 2), alpha=-2)  # (B, Q, M)
    nearest = closeness.argmin(2, keepdim=True) if count == 1 else closeness.topk(count, largest=False).indices
    index = nearest.flatten(1)[:, :, None].expand(-1, -1, memories.shape[2])  # (B, Q*count, D)
    found = memories.gather(1, index).unflatten(1, (-1, count))  # (B, Q, count, D)
    squared: Tensor = (queries[:, :, None] - found).square().sum(3)
    return squared
