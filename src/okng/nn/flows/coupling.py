"""Blocks of normalizing flows: invertible layers that know the logarithm of their Jacobian's determinant.

Every block maps x (B, C, ...), vectors or maps of them, to z of the same shape and log|det dz/dx| (B,), in nats, over
all axes but the first. An optional condition (B, K, ...) is looked at and left alone. `inverse` leads back.

Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017; Kingma, Dhariwal, "Glow", NeurIPS 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.errors import OkngError

Clamp = Literal["atan", "tanh"]


class Flow(nn.Module):
    """What each block is: a bijection from x to z, and back."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z of the shape of `x` (B, C, ...), and log|det dz/dx| (B,)."""
        raise NotImplementedError

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The x that `forward` maps to `z`."""
        raise NotImplementedError


class Sequence(Flow):
    """Flows one after the other."""

    def __init__(self, *flows: Flow):
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Through all; the logarithms add up."""
        log_determinant = x.new_zeros(x.shape[0])
        for flow in self.flows:
            x, more = flow(x, condition)
            log_determinant = log_determinant + more
        return x, log_determinant

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Back through all, the last first."""
        for flow in reversed(self.flows):
            z = flow.inverse(z, condition)  # type: ignore[operator]
        return z


class AffineCoupling(Flow):
    """One part of the channels is scaled and shifted by what a network makes of the other part and the condition.

    `network` maps (B, passive + K, ...) to the raw log-scale and shift (B, 2 · active, ...), see `bounded`. The second
    C // 2 channels are active, with `first` the C - C // 2 before them.
    """

    def __init__(self, channels: int, network: nn.Module, clamp: float, kind: Clamp, first: bool = False):
        super().__init__()
        self.sizes = (channels - channels // 2, channels // 2)
        self.network, self.clamp, self.kind, self.first = network, clamp, kind, first

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The passive and the active channels of `x`."""
        before, after = x.split(self.sizes, 1)
        return (after, before) if self.first else (before, after)

    def together(self, passive: Tensor, active: Tensor) -> Tensor:
        """All channels in their places."""
        return torch.cat([active, passive] if self.first else [passive, active], 1)

    def affine(self, passive: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """log-scale and shift of the active channels."""
        seen = passive if condition is None else torch.cat([passive, condition], 1)
        return bounded(self.network(seen), self.clamp, self.kind)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Active channels become themselves · scale + shift."""
        passive, active = self.parts(x)
        log_scale, shift = self.affine(passive, condition)
        return self.together(passive, active * log_scale.exp() + shift), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The passive channels are what they were, so the network says the same again."""
        passive, active = self.parts(z)
        log_scale, shift = self.affine(passive, condition)
        return self.together(passive, (active - shift) * (-log_scale).exp())


class Permutation(Flow):
    """The channels in another order, drawn once and kept with the model."""

    order: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("order", torch.randperm(channels))  # (C,)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A volume stays as it is."""
        return x.index_select(1, self.order), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The first order again."""
        return z.index_select(1, self.order.argsort())


class Rotation(Flow):
    """Vectors (B, C) turned by an orthogonal matrix, drawn once, evenly among all of them, and kept with the model."""

    matrix: Tensor

    def __init__(self, channels: int):
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        self.register_buffer("matrix", (q * r.diagonal().sign()).to(torch.get_default_dtype()))  # (C, C)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A volume stays as it is, up to the rounding of the matrix."""
        return x @ self.matrix.T, x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Solved for rather than turned back: in float64 too it is exact, though the matrix was rounded before."""
        x: Tensor = torch.linalg.solve(self.matrix, z.T).T
        return x


class GlobalAffine(Flow):
    """Each channel times a learnt scale plus a learnt offset, the same everywhere; the scale starts as 1.

    The scale is 0.1 · softplus, of sharpness 0.5, of the parameter, so that it stays above 0 and moves slowly.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.raw = nn.Parameter(torch.full((channels,), 2 * math.log(math.exp(5) - 1)))  # (C,)
        self.offset = nn.Parameter(torch.zeros(channels))  # (C,)

    def scale(self, like: Tensor) -> Tensor:
        """(1, C, 1, ...), as many axes as `like` has."""
        return per_channel(0.1 * F.softplus(self.raw, beta=0.5), like)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The scale counts once for each position."""
        scale = self.scale(x)
        return x * scale + per_channel(self.offset, x), scale.log().expand_as(x).flatten(1).sum(1)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Offset off, scale off."""
        return (z - per_channel(self.offset, z)) / self.scale(z)


def bounded(raw: Tensor, clamp: float, kind: Clamp) -> tuple[Tensor, Tensor]:
    """Log-scale, within ± `clamp`, and shift, each (B, C, ...), of what a network made, `raw` (B, 2C, ...).

    "atan": clamp · 2/π · atan(raw / clamp), and the shift as it is (DifferNet, CS-Flow).
    "tanh": clamp · tanh(raw / 10), and a tenth of the shift: a flow starts near the identity (CFLOW-AD, FastFlow).
    """
    log_scale, shift = raw.chunk(2, 1)
    if kind == "atan":
        return clamp * 2 / math.pi * torch.atan(log_scale / clamp), shift
    return clamp * torch.tanh(0.1 * log_scale), 0.1 * shift


def all_in_one(
    channels: int, subnet: Callable[[int, int], nn.Module], clamp: float, mixing: type[Permutation | Rotation]
) -> Sequence:
    """The step of FastFlow and CFLOW-AD: coupling, one affine map for all positions, then the channels are mixed.

    `subnet` makes the coupling's network, by the channels it sees, without a condition's, and those it gives.
    """
    if channels < 2:
        raise OkngError("a flow needs features of two channels or more; take another of the backbone's strides")
    network = subnet(channels - channels // 2, channels // 2 * 2)
    return Sequence(AffineCoupling(channels, network, clamp, "tanh"), GlobalAffine(channels), mixing(channels))


def surprise(z: Tensor, log_determinant: Tensor) -> Tensor:
    """-log p(x) (B,) in nats of a flow to the standard normal: `z` (B, ...) and its `log_determinant` (B,)."""
    flat = z.flatten(1)
    return 0.5 * (flat.square() + math.log(2 * math.pi)).sum(1) - log_determinant


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """`values` (C,) as (1, C, 1, ...), to meet `like` (B, C, ...)."""
    return values.view(1, -1, *[1] * (like.ndim - 2))
