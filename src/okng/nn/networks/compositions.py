"""Compositions, maps of which kind of part is where: what reads and repairs them, and how they are corrupted.

Fučka et al., "SALAD", ICCV 2025.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn

from okng.nn.images.perlin import perlin_mask

SMALLEST = 200 / 256**2  # the share of a composition that a piece has at least
SPOILT = 0.5  # the share of compositions that are corrupted
LEVELS = 4  # of the networks of compositions, each half as fine as the one before


class CompositionNet(nn.Module):
    """(B, channels, h, w) → (B, outputs, h, w) over four levels, whose `width` doubles as their sides halve.

    `joined`: whether the way back up takes what there was on the way down, as a U-Net. Sides are multiples of 8.
    """

    def __init__(self, channels: int, outputs: int, width: int, joined: bool):
        super().__init__()
        wide = [width * 2**level for level in range(LEVELS)]
        self.joined = joined
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(map(Block, [width, *wide], wide))
        self.narrow = nn.ModuleList(nn.Conv2d(2 * w, w, 3, padding=1) for w in wide[:-1])
        self.up = nn.ModuleList(Block(2 * w if joined else w, w) for w in wide[:-1])
        self.last = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) → (B, outputs, h, w)."""
        features, met = self.first(maps), []
        for level, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if level else features)  # (B, C_l, h / 2^l, w / 2^l)
            met.append(features)
        for block, narrow, beside in zip(reversed(self.up), reversed(self.narrow), met[-2::-1], strict=True):
            features = narrow(F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False))
            features = block(torch.cat([features, beside], 1) if self.joined else features)
        made: Tensor = self.last(features)
        return made


class Block(nn.Module):
    """(B, channels, h, w) → (B, outputs, h, w): two 3×3 layers, normalised by groups first, beside a shortcut."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        layers: list[nn.Module] = []
        for given in (channels, outputs):
            layers += [nn.GroupNorm(8, given), nn.SiLU(), nn.Conv2d(given, outputs, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if channels == outputs else nn.Conv2d(channels, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) → (B, outputs, h, w)."""
        made: Tensor = self.layers(maps) + self.shortcut(maps)
        return made


def corrupted(kinds: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """A composition (h, w) of `count` kinds after one of four corruptions, or as it is."""
    if float(torch.rand(())) < SPOILT:
        for change in CORRUPTIONS[whole(len(CORRUPTIONS))]:
            kinds = change(kinds, other, count)
    return kinds


def painted(kinds: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """`kinds` with blots of Perlin noise of one kind, drawn from all `count`."""
    return np.where(perlin_mask(kinds.shape).numpy(), np.uint8(whole(count)), kinds)


def renamed(kinds: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """`kinds` with a piece become of a kind that is beside it."""
    from scipy import ndimage

    piece, _ = drawn_piece(kinds)
    beside = np.unique(kinds[ndimage.binary_dilation(piece, np.ones((3, 3))) & ~piece])
    return np.where(piece, beside[whole(len(beside))], kinds) if len(beside) else kinds


def pasted(kinds: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """`kinds` with a piece of the `other` composition, turned by up to 90°."""
    piece, kind = drawn_piece(other)
    angle = 180 * float(torch.rand(())) - 90
    turned = TF.rotate(torch.from_numpy(piece)[None].to(torch.uint8), angle)[0].numpy() > 0
    return np.where(turned, np.uint8(kind), kinds)


def drawn_piece(kinds: np.ndarray) -> tuple[np.ndarray, int]:
    """One of the pieces of `kinds` (h, w) that hang together and are not too small: bool (h, w), and its kind."""
    from scipy import ndimage

    pieces = []
    for kind in np.unique(kinds):
        labels, count = ndimage.label(kinds == kind)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        pieces += [(labels == i, int(kind)) for i in range(1, count + 1) if sizes[i] > SMALLEST * kinds.size]
    return pieces[whole(len(pieces))] if pieces else (np.zeros(kinds.shape, bool), 0)


def whole(below: int) -> int:
    """A whole number from 0 to below `below`."""
    return int(torch.randint(below, ()))


Corruption = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
CORRUPTIONS: tuple[tuple[Corruption, ...], ...] = ((painted,), (renamed,), (pasted,), (renamed, pasted))
