"""The focal loss: what is told rightly already hardly counts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, odd: Tensor, gamma: float) -> Tensor:
    """(1 - p)^`gamma` times -log p at each place, p the likelihood that `logits` give to what `odd` says there.

    Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, without their alpha. `logits`,
    of being odd, and `odd` (0 or 1, or bool) have one shape, and so has the result.
    """
    surprise = F.binary_cross_entropy_with_logits(logits, odd.to(logits), reduction="none")  # -log p
    return (-torch.expm1(-surprise)).pow(gamma) * surprise
