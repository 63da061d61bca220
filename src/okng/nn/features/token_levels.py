"""The levels of a network of either kind as tokens of one grid and one width, and how two sets of such are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, typed
from okng.errors import OkngError
from okng.nn.features.vit import Tokens, is_transformer
from okng.nn.learning.schedules import cosine

ENLARGED = 8  # map cells a token and side
MIDDLE = (3, 4, 5, 6, 7, 8, 9, 10)  # blocks of a transformer that has 12
SPREAD = (5, 7, 9, 11, 13, 15, 17, 19)  # of one that has 24
WARM_UP = 100  # steps
SMOOTHED = 5, 4.0  # cells and standard deviation of the Gaussian that is cut to them: nearly a box


class TokenLevels(nn.Module):
    """Tokens (B, L, P + h*w, D) of images (B, 3, H, W) in [0, 1], in order of the network's levels.

    P tokens stand before the patches: class token and registers. Of a vision transformer the levels are those after
    each of `blocks`; where none is named the third to the tenth, or of a wide one, which has 24, eight from the fifth
    on. Of a CNN they are its features at each of `strides`, brought to the coarsest grid by averages, each position's
    channels to mean 0 and variance 1, and to one width D by orthonormal directions, drawn once: lengths and angles
    stay; its class token is the mean of its patches. D is a multiple of `heads`.
    """

    def __init__(self, name: str, strides: Sequence[int], blocks: Sequence[int], weights: str, heads: int):
        super().__init__()
        at_least(1, heads=heads)
        if is_transformer(name):
            blocks = blocks or (SPREAD if "_large_" in name else MIDDLE)
        for said, chosen in (("strides", strides), ("blocks", blocks or MIDDLE)):  # a CNN has no blocks
            if len(chosen) < 2:
                raise OkngError(f"{said} are two or more, as there are two halves to restore, not {typed(chosen)}")
        self.network = Tokens(name, strides, blocks, weights).eval().requires_grad_(False)
        channels = self.network.channels
        self.width = channels[0] if self.network.transformer else -(-max(channels) // heads) * heads
        if self.width % heads:
            raise OkngError(f"heads is a divisor of the backbone's width {self.width}, not {heads}")
        transformer: Any = self.network.backbone.net
        self.before: int = transformer.net.num_prefix_tokens if self.network.transformer else 1
        self.levels = len(channels)
        for level, c in enumerate(() if self.network.transformer else channels):
            self.register_buffer(f"directions_{level}", nn.init.orthogonal_(torch.empty(c, self.width)))

    @property
    def multiple(self) -> int:
        """What both sides of an input are multiples of: the side of a token."""
        return self.network.multiple

    def forward(self, images: Tensor) -> Tensor:
        """(B, L, P + h*w, D)."""
        maps, before = self.network(images)
        if self.network.transformer:
            return torch.stack([torch.cat([b, rows(m)], 1) for b, m in zip(before, maps, strict=True)], 1)
        levels = []
        for level, (features, stride) in enumerate(zip(maps, self.network.strides, strict=True)):
            coarse = rows(F.avg_pool2d(features, self.multiple // stride))  # (B, h*w, C)
            patches = F.layer_norm(coarse, (self.network.channels[level],)) @ self.get_buffer(
                f"directions_{level}"
            )  # (B, h*w, D)
            levels.append(torch.cat([patches.mean(1, keepdim=True), patches], 1))
        return torch.stack(levels, 1)


def rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h*w, C)."""
    return maps.flatten(2).transpose(1, 2)


def in_two(levels: Tensor) -> Tensor:
    """The mean of the first half of levels (B, L, N, D) and of the second: (B, 2, N, D)."""
    return torch.stack([half.mean(1) for half in levels.chunk(2, 1)], 1)


def distances(wanted: Tensor, restored: Tensor) -> Tensor:
    """1 - cosine at each position of tokens (..., N, D), in [0, 2]: (..., N)."""
    return 1 - F.cosine_similarity(wanted, restored, dim=-1)


def loss_of_maps(wanted: Tensor, restored: Tensor, factors: Tensor) -> Tensor:
    """1 - cosine of whole maps (B, N, D), flattened; the mean over B.

    The gradient back to each position of `restored` is multiplied by its factor (B, N).
    """
    still = restored.detach()
    slowed = still + factors[..., None] * (restored - still)  # equal to restored
    return (1 - F.cosine_similarity(wanted.flatten(1), slowed.flatten(1))).mean()


def map_of_tokens(odd: Tensor, images: Tensor, side: int) -> Tensor:
    """Of how odd each token of `side` px of `images` is, (B, h*w), a map (B, 8 h, 8 w), enlarged and smoothed."""
    h, w = images.shape[2] // side, images.shape[3] // side
    grid = odd.view(-1, 1, h, w)
    large = F.interpolate(grid, (ENLARGED * h, ENLARGED * w), mode="bilinear", align_corners=True)
    cells, sigma = SMOOTHED
    weights = torch.exp(-0.5 * ((torch.arange(cells, device=odd.device) - cells // 2) / sigma).square())  # (5,)
    kernel = (weights / weights.sum()).view(1, 1, -1, 1)
    framed = F.pad(large, [cells // 2] * 4, mode="replicate")
    smooth: Tensor = F.conv2d(F.conv2d(framed, kernel), kernel.transpose(2, 3))
    return smooth[:, 0]


def feed_forward(width: int, dropout: float = 0.0) -> nn.Sequential:
    """Two layers, the inner one four times as wide, with GELU between and dropout behind each."""
    return nn.Sequential(
        nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width), nn.Dropout(dropout)
    )


def small_weights(module: nn.Module) -> None:
    """Weights of linear layers in `module` begin as a Gaussian of 0.01, cut at three deviations, and biases at 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.03, b=0.03)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def warmed_up(share: float, steps: int | None, end: float) -> float:
    """The factor of the rate after `share` of the steps: up in the first 100, or a hundredth; then down to `end`."""
    return cosine(share, end=end, warm_up=min(0.5, WARM_UP / steps) if steps else 0.01)
