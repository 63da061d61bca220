"""The directions that most of a variance lies in."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_subspace(scatter: Tensor, explained: float) -> Tensor:
    """The fewest directions (d, r) that together have the share `explained` of the variance in `scatter` (d, d)."""
    variances, directions = torch.linalg.eigh(scatter)  # ascending
    cumulated = variances.flip(0).clamp_min(0).cumsum(0)  # (d,)
    r = int((cumulated < explained * cumulated[-1]).sum()) + 1
    return directions.flip(1)[:, :r]  # type: ignore[no-any-return]
