"""The residual non-local attention network, which restores images by what it adds to them."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class RNAN(nn.Module):
    """Images (B, C, H, W) → images of the same shape: the input plus what the network makes of it.

    `channels` of the images; `filters` of every layer in between; `groups` of residual attention, 2 or more, of which
    the first and the last have a non-local block in their masks; `grid`: see `NonLocalBlock`.

    Zhang, Li, Li, Zhong, Fu, "Residual Non-local Attention Networks for Image Restoration", ICLR 2019, figure 2.
    """

    def __init__(self, channels: int, filters: int = 64, groups: int = 10, grid: int = 32):
        super().__init__()
        self.head = conv3(channels, filters)
        self.body = nn.Sequential(
            AttentionGroup(filters, grid),
            *(AttentionGroup(filters) for _ in range(groups - 2)),
            conv3(filters, filters),
            AttentionGroup(filters, grid),
        )
        self.tail = conv3(filters, channels)

    def forward(self, images: Tensor) -> Tensor:
        """The restored images; they may leave the range of `images` a little."""
        features = self.body(self.head(images))  # (B, filters, H, W)
        restored: Tensor = images + self.tail(features)  # (B, C, H, W)
        return restored


class AttentionGroup(nn.Module):
    """Residual attention: a trunk weighted by a mask of the same shape, between residual blocks.

    With a `grid` the mask begins with a non-local block.
    """

    def __init__(self, filters: int, grid: int | None = None):
        super().__init__()
        self.first = ResidualBlock(filters)
        self.trunk = nn.Sequential(ResidualBlock(filters), ResidualBlock(filters))
        self.mask = MaskBranch(filters, grid)
        self.last = nn.Sequential(ResidualBlock(filters), ResidualBlock(filters), conv3(filters, filters))

    def forward(self, features: Tensor) -> Tensor:
        """(B, filters, H, W) → (B, filters, H, W)."""
        features = self.first(features)
        attended: Tensor = self.last(features + self.trunk(features) * self.mask(features))
        return attended


class MaskBranch(nn.Module):
    """A weight in (0, 1) of each filter at each pixel, of half the resolution and, with a `grid`, all of it."""

    def __init__(self, filters: int, grid: int | None):
        super().__init__()
        everywhere = [] if grid is None else [NonLocalBlock(filters, grid)]
        self.wide = nn.Sequential(*everywhere, ResidualBlock(filters))
        self.down = nn.Conv2d(filters, filters, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(ResidualBlock(filters), ResidualBlock(filters))
        self.up = nn.ConvTranspose2d(filters, filters, 6, stride=2, padding=2)
        self.fine = nn.Sequential(ResidualBlock(filters), nn.Conv2d(filters, filters, 1), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        """(B, filters, H, W) → (B, filters, H, W)."""
        h, w = features.shape[-2:]
        wide = self.wide(features)  # (B, filters, H, W)
        coarse = self.coarse(self.down(wide))  # (B, filters, ceil(H / 2), ceil(W / 2))
        up = self.up(coarse)[..., :h, :w]  # (B, filters, H, W); an odd side comes back one longer
        mask: Tensor = self.fine(wide + up)
        return mask


class NonLocalBlock(nn.Module):
    """Adds to each pixel a mean over the whole image, weighted by how alike the pixels' embeddings are.

    Embedded Gaussian with half the channels; its output layer starts at zero, so that the block starts as the identity.
    Images of more than `grid` pixels a side have their keys and values pooled to at most that, so that an image has at
    most H * W * grid² weights instead of (H * W)²; in PyTorch even those are never all in memory.

    Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018, with the subsampling of its section 3.3.
    """

    def __init__(self, channels: int, grid: int):
        super().__init__()
        half = max(1, channels // 2)
        self.grid = grid
        self.query = nn.Conv2d(channels, half, 1)
        self.key = nn.Conv2d(channels, half, 1)
        self.value = nn.Conv2d(channels, half, 1)
        self.out = nn.Conv2d(half, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        query, key, value = self.query(features), self.key(features), self.value(features)  # each (B, C / 2, H, W)
        stride = math.ceil(max(features.shape[-2:]) / self.grid)
        if stride > 1:
            key, value = (F.max_pool2d(some, stride, ceil_mode=True) for some in (key, value))  # (B, C / 2, h, w)
        # (B, 1, H * W or h * w, C / 2); contiguous, without which PyTorch takes a path three times as slow.
        q, k, v = (some.flatten(2).transpose(1, 2).contiguous()[:, None] for some in (query, key, value))
        mean = F.scaled_dot_product_attention(q, k, v, scale=1.0)  # (B, 1, H * W, C / 2)
        added: Tensor = self.out(mean[:, 0].transpose(1, 2).unflatten(2, features.shape[-2:]))  # (B, C, H, W)
        return features + added


class ResidualBlock(nn.Module):
    """Two 3 × 3 layers around a rectifier, added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(conv3(channels, channels), nn.ReLU(), conv3(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        added: Tensor = self.layers(features)
        return features + added


def conv3(inner: int, outer: int) -> nn.Conv2d:
    """A 3 × 3 layer that keeps the sides."""
    return nn.Conv2d(inner, outer, 3, padding=1)
