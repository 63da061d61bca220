"""The loss of contrastive learning: views of one image are alike, and of different ones not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of which of all `second` (N, D) is the view of each of `first` (N, D), by their cosines.

    van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018.
    """
    cosines = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T  # (N, N)
    return F.cross_entropy(cosines / temperature, torch.arange(len(first), device=first.device))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The same for each of both, `first` and `second` (N, D), among all 2N - 1 others.

    Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML
    2020, equation 1. Row i of the one and row i of the other are views of one instance; every other row of either is a
    negative, whatever it shows: so rotated copies of an image, as rows of their own, are told from it.
    """
    both = F.normalize(torch.cat([first, second]), dim=1)  # (2N, D)
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    cosines = (both @ both.T / temperature).masked_fill(itself, -torch.inf)  # (2N, 2N)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(cosines, partner)
