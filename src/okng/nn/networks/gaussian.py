"""Gaussians with a variance of their own for each value, as variational autoencoders have them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One draw of each N(mean, variance), of their shape; gradients reach both (Kingma, Welling, ICLR 2014)."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, I), in nats: (B, …) → (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def surprise(values: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the density of N(mean, variance) at each of `values`, in nats: (B, …), of their shape."""
    return 0.5 * ((values - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi))
