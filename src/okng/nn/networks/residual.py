"""Residual networks for small images: no layer before the first block takes resolution away.

Both map images (B, C, H, W), of any size and brought to [-1, 1], to features averaged over the places, (B, `features`).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least
from okng.errors import OkngError

STEM = 16  # channels of a wide network's first convolution
EXPANSION = 4  # of a bottleneck's channels


class WideResNet(nn.Module):
    """Three groups of pre-activation blocks, each of two 3 × 3 convolutions; the second and third halve the sides.

    Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, whose WRN-10-4 has `depth` 10 and `width` 64, 16 times
    the widening factor: that many channels in the first group, two and four times as many in the others.
    """

    def __init__(self, channels: int, depth: int, width: int):
        super().__init__()
        at_least(1, width=width)
        if depth < 10 or (depth - 4) % 6:
            raise OkngError(f"depth is 6n + 4: 10, 16, 22, 28 and so on, not {depth}")
        inner = min(STEM, width)
        layers: list[nn.Module] = [_convolution(channels, inner)]
        for group in range(3):
            for block in range((depth - 4) // 6):
                outer, stride = width * 2**group, 2 if group and not block else 1
                layers.append(_PreActivation(inner, outer, stride))
                inner = outer
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(inner), nn.ReLU())
        self.features = inner

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 4 width)."""
        features: Tensor = self.body(images).mean((2, 3))
        return features


class ResNet(nn.Module):
    """Four groups of residual blocks behind a 3 × 3 convolution; all groups but the first halve the sides.

    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, without the first layer's stride and
    pooling, as is usual for images of 32 px. `blocks` in each group: 2, 2, 2, 2 of two convolutions in ResNet-18, 3, 4,
    6, 3 bottlenecks in ResNet-50. `width`: channels of the first group, 64 there, which double from group to group.
    """

    def __init__(self, channels: int, blocks: tuple[int, ...], width: int, bottleneck: bool = False):
        super().__init__()
        at_least(1, width=width)
        if not blocks or min(blocks) < 1:
            raise OkngError("blocks is how many each group has, 1 or more, such as 2,2,2,2")
        layers: list[nn.Module] = [_convolution(channels, width), nn.BatchNorm2d(width), nn.ReLU()]
        inner = width
        for group, count in enumerate(blocks):
            for block in range(count):
                middle, stride = width * 2**group, 2 if group and not block else 1
                outer = middle * EXPANSION if bottleneck else middle
                layers.append(_Residual(inner, middle, outer, stride))
                inner = outer
        self.body = nn.Sequential(*layers)
        self.features = inner

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D), D the last group's channels."""
        features: Tensor = self.body(images).mean((2, 3))
        return features


class _PreActivation(nn.Module):
    """Normalise and rectify before each convolution; where shapes change, a 1 × 1 convolution is the short cut."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.first_norm, self.second_norm = nn.BatchNorm2d(inner), nn.BatchNorm2d(outer)
        self.first, self.second = _convolution(inner, outer, stride), _convolution(outer, outer)
        self.short_cut = None if inner == outer and stride == 1 else _convolution(inner, outer, stride, side=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inner, h, w) → (B, outer, h / stride, w / stride)."""
        active = F.relu(self.first_norm(features))
        kept = features if self.short_cut is None else self.short_cut(active)
        added: Tensor = kept + self.second(F.relu(self.second_norm(self.first(active))))
        return added


class _Residual(nn.Module):
    """Two 3 × 3 convolutions, or with more channels outside than in the middle 1 × 1, 3 × 3, 1 × 1."""

    def __init__(self, inner: int, middle: int, outer: int, stride: int):
        super().__init__()
        if middle == outer:
            layers = [_convolution(inner, middle, stride), _convolution(middle, outer)]
        else:
            layers = [
                _convolution(inner, middle, side=1),
                _convolution(middle, middle, stride),
                _convolution(middle, outer, side=1),
            ]
        path: list[nn.Module] = []
        for layer in layers:
            path += [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()]
        self.path = nn.Sequential(*path[:-1])  # the last is rectified with what it is added to
        self.short_cut = nn.Sequential()
        if inner != outer or stride > 1:
            self.short_cut = nn.Sequential(_convolution(inner, outer, stride, side=1), nn.BatchNorm2d(outer))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inner, h, w) → (B, outer, h / stride, w / stride)."""
        return F.relu(self.path(features) + self.short_cut(features))


def _convolution(inner: int, outer: int, stride: int = 1, side: Literal[1, 3] = 3) -> nn.Conv2d:
    """`side` × `side`, without bias, its weights drawn as He et al. do."""
    layer = nn.Conv2d(inner, outer, side, stride, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return layer
