"""Blocks of reverse distillation: what embeds a network's levels in one small map, and what restores them from it.

Deng, Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from okng.errors import OkngError

Resize = Literal["halve", "keep", "double"]
BOTTLENECK_FROM = 256  # channels of the finest level: ResNet-50 and its wide kin have these, ResNet-18 has 64


class Embedding(nn.Module):
    """One-class bottleneck embedding: all levels brought to the coarsest grid, side by side, and embedded at half it.

    `channels` of the levels, finest first; `between`: how often the sides are halved from each level to the next.
    """

    def __init__(self, channels: list[int], between: list[int]):
        super().__init__()
        bottleneck, coarsest = channels[0] >= BOTTLENECK_FROM, channels[-1]
        self.shrink, fused = nn.ModuleList(), 0
        for level in range(len(channels)):
            layers: list[nn.Module] = []
            given = channels[level]
            for halvings, wanted in zip(between[level:], channels[level + 1 :], strict=True):
                for _ in range(halvings):
                    layers += [resized(given, wanted, "halve", 3), nn.BatchNorm2d(wanted), nn.ReLU()]
                    given = wanted
            self.shrink.append(nn.Sequential(*layers))
            fused += given
        self.embed = Stage(bottleneck, fused, 2 * coarsest, 3 if bottleneck else 2, 1, "halve")

    def forward(self, pyramid: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        """Of levels (B, C_s, h_s, w_s), finest first, the embedding (B, 2 * C_last, h, w) >= 0, half of the last."""
        fused = torch.cat([shrink(level) for shrink, level in zip(self.shrink, pyramid, strict=True)], 1)
        embedded: Tensor = self.embed(fused)
        return embedded.relu()


class Stage(nn.Sequential):
    """`depth` residual blocks, of which the first `times` resize by two; the last one's ReLU is left to the caller."""

    def __init__(self, bottleneck: bool, given: int, wanted: int, depth: int, times: int, resize: Resize):
        blocks: list[nn.Module] = []
        for i in range(max(depth, times)):
            blocks += [nn.ReLU()] if i else []
            blocks.append(Block(bottleneck, wanted if i else given, wanted, resize if i < times else "keep"))
        super().__init__(*blocks)


class Block(nn.Module):
    """A ResNet's block without its last ReLU: basic, or a bottleneck half as wide as what it gives."""

    def __init__(self, bottleneck: bool, given: int, wanted: int, resize: Resize):
        super().__init__()
        inner = wanted // 2 if bottleneck else wanted
        entry = [nn.Conv2d(given, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()] if bottleneck else []
        self.body = nn.Sequential(
            *entry,
            resized(inner if bottleneck else given, inner, resize, 3),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, wanted, 1, bias=False) if bottleneck else resized(inner, wanted, "keep", 3),
            nn.BatchNorm2d(wanted),
        )
        same = resize == "keep" and given == wanted
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(resized(given, wanted, resize, 1), nn.BatchNorm2d(wanted))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, wanted, h, w) of `features` (B, given, ...)."""
        summed: Tensor = self.body(features) + self.shortcut(features)
        return summed


def resized(given: int, wanted: int, resize: Resize, kernel: int) -> nn.Module:
    """A convolution that halves, keeps or doubles the sides; the one that doubles is transposed, 2 × 2."""
    if resize == "double":
        return nn.ConvTranspose2d(given, wanted, 2, stride=2, bias=False)
    return nn.Conv2d(given, wanted, kernel, 2 if resize == "halve" else 1, kernel // 2, bias=False)


def halvings_between(fine: int, coarse: int) -> int:
    """How often `fine` is doubled to be `coarse`; `OkngError` if it never is."""
    times = (coarse // fine).bit_length() - 1
    if fine << times != coarse:
        raise OkngError(
            f"each of strides is the one before times a power of 2, such as 4, 8 and 16, not {fine}, {coarse}"
        )
    return times
