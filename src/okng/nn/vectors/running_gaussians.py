"""Means and covariances of vectors that come in batches."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningGaussians:
    """Mean (P, 1, d) and scatter Σ(x - mean)(x - mean)ᵀ (P, d, d) of all vectors so far, at P positions.

    Each batch is centred on its own mean before its products are summed, and the shift between the means is
    added (Chan, Golub, LeVeque 1979). Plain sums of xxᵀ would lose the variance to cancellation in float32.
    """

    count = 0
    mean: Tensor
    scatter: Tensor

    def update(self, vectors: Tensor) -> None:
        """Take in `vectors` (P, B, d)."""
        positions, b, d = vectors.shape
        if self.count == 0:
            self.mean = vectors.new_zeros(positions, 1, d)
            self.scatter = vectors.new_zeros(positions, d, d)
        centre = vectors.mean(1, keepdim=True)  # (P, 1, d)
        shift, total = centre - self.mean, self.count + b
        rows = torch.cat([vectors - centre, shift * (self.count * b / total) ** 0.5], dim=1)  # (P, B + 1, d)
        self.scatter.baddbmm_(rows.mT, rows)
        self.mean += shift * (b / total)
        self.count = total
