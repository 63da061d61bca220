"""Textures that are drawn rather than photographed, and random changes of any texture."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

from okng.nn.images.perlin import random_noise

Generator = torch.Generator | None  # None: torch's own
CHANGES = 3  # of a texture


def procedural_texture(channels: int, size: tuple[int, int], generator: Generator = None) -> Tensor:
    """A texture (`channels`, h, w) in [0, 1] that nobody photographed: one of five patterns between two random colours.

    Clouds (four octaves of Perlin noise, of each channel its own), marble (waves along such clouds), stripes, checks
    and grain. For where no folder of textures, such as DTD, is at hand; it is poorer than such a folder.
    """
    pattern = PATTERNS[_whole(len(PATTERNS), generator)](channels, size, generator)  # (channels or 1, h, w)
    first, second = torch.rand(2, channels, 1, 1, generator=generator)
    return torch.lerp(first.expand(channels, *size), second.expand(channels, *size), pattern.expand(channels, *size))


def clouds(channels: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """(channels, h, w) in [0, 1]."""
    octaves = [torch.stack([random_noise(size, generator) for _ in range(channels)]) / 2**i for i in range(4)]
    return (torch.stack(octaves).sum(0) / 2 + 0.5).clamp(0, 1)


def marble(channels: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """(1, h, w) in [0, 1]."""
    return torch.sin(_between(5, 40, generator) * clouds(1, size, generator)) / 2 + 0.5


def stripes(channels: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """(1, h, w) in [0, 1], from soft to sharp."""
    return (_between(0.5, 8, generator) * _wave(size, _between(0, math.pi, generator), generator) + 0.5).clamp(0, 1)


def checks(channels: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """(1, h, w) in [0, 1]: stripes across stripes."""
    angle, sharp = _between(0, math.pi, generator), _between(0.5, 8, generator)
    crossed = _wave(size, angle, generator) * _wave(size, angle + math.pi / 2, generator)
    return (sharp * crossed + 0.5).clamp(0, 1)


def grain(channels: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """(channels, h, w) in [0, 1]: independent values, 1 to 8 px large."""
    coarse = 2 ** _whole(4, generator)
    values = torch.rand(1, channels, *(-(-side // coarse) for side in size), generator=generator)
    return F.interpolate(values, size)[0]


PATTERNS: tuple[Callable[[int, tuple[int, int], Generator], Tensor], ...] = (clouds, marble, stripes, checks, grain)


def altered(texture: Tensor, generator: Generator = None) -> Tensor:
    """`texture` (C, H, W) in [0, 1] after three of ten random changes: of its values, colours, sharpness or angle.

    Those of Zavrtanik, Kristan, Skočaj, "DRAEM", ICCV 2021, in its authors' code, with torchvision's functions.
    """
    for which in torch.randperm(len(ALTERATIONS), generator=generator)[:CHANGES].tolist():
        texture = ALTERATIONS[which](texture, generator).clamp(0, 1)
    return texture


def _gamma(texture: Tensor, generator: Generator) -> Tensor:
    exponents = 2 ** torch.empty(len(texture), 1, 1).uniform_(-1, 1, generator=generator)
    return texture.pow(exponents.to(texture))


def _brightness(texture: Tensor, generator: Generator) -> Tensor:
    return texture * _between(0.8, 1.2, generator) + _between(-30, 30, generator) / 255


def _sharpness(texture: Tensor, generator: Generator) -> Tensor:
    changed: Tensor = TF.adjust_sharpness(texture, _between(0, 2, generator))
    return changed


def _colour(texture: Tensor, generator: Generator) -> Tensor:  # grey stays as it is
    turned = TF.adjust_hue(texture, _between(-0.2, 0.2, generator))
    changed: Tensor = TF.adjust_saturation(turned, _between(0.6, 1.4, generator))
    return changed


def _solarised(texture: Tensor, generator: Generator) -> Tensor:
    return torch.where(texture >= _between(32, 128, generator) / 255, 1 - texture, texture)


def _posterised(texture: Tensor, generator: Generator) -> Tensor:
    levels = 2.0 ** (1 + _whole(7, generator))
    return (texture * levels).floor() / levels


def _inverted(texture: Tensor, generator: Generator) -> Tensor:
    return 1 - texture


def _stretched(texture: Tensor, generator: Generator) -> Tensor:
    changed: Tensor = TF.autocontrast(texture)
    return changed


def _equalised(texture: Tensor, generator: Generator) -> Tensor:
    changed: Tensor = TF.equalize((255 * texture).round().byte()) / 255
    return changed


def _turned(texture: Tensor, generator: Generator) -> Tensor:
    changed: Tensor = TF.rotate(texture, _between(-45, 45, generator), TF.InterpolationMode.BILINEAR)
    return changed


ALTERATIONS: tuple[Callable[[Tensor, Generator], Tensor], ...] = (
    _gamma, _brightness, _sharpness, _colour, _solarised, _posterised, _inverted, _stretched, _equalised, _turned,
)  # fmt: skip


def _wave(size: tuple[int, int], angle: float, generator: Generator) -> Tensor:
    """A sine (1, h, w) in [-1, 1] along `angle`, 4 to 64 px long."""
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    length = 4 * 16 ** _between(0, 1, generator)
    along = math.cos(angle) * x + math.sin(angle) * y  # (h, w)
    return torch.sin(2 * math.pi * (along / length + _between(0, 1, generator)))[None]


def _between(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _whole(below: int, generator: Generator) -> int:
    return int(torch.randint(below, (), generator=generator))
