"""Views of images as contrastive methods draw them: mirrored, cropped, with other colours, greyed, blurred.

What is drawn for a view is a row of numbers, `DRAWN`, which `view` carries out for many images at once on their device.
So they can be drawn image by image in the loader's threads, or kept, to look at every image in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWN = ("mirror", "left", "top", "width", "height", "brightness", "contrast", "saturation", "hue", "grey", "sigma")
ASPECTS = (3 / 4, 4 / 3)  # of a crop, as a share of the image's own
SIGMAS = (0.1, 2.0)  # px, of a blur
REACH = 20  # a blur reaches so far to each side as one in so many pixels of the shorter side
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """How views are drawn: Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning", ICML 2020.

    `mirrored`: the probability that left and right are exchanged. `crop`: the least and the largest share of the
    image's area that a crop has, which is brought back to the image's size. `jitter`: by how much brightness, contrast,
    saturation and hue are changed at most, with the probability `jittered`. `grey`, `blurred`: probabilities.
    """

    crop: tuple[float, float]
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    mirrored: float = 0.5
    jittered: float = 0.8
    grey: float = 0.2
    blurred: float = 0.0

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """The numbers (len(DRAWN),) of one view; torch's own generator draws them where none is given."""
        u = torch.rand(len(DRAWN) + 2, generator=generator).tolist()
        area = self.crop[0] + (self.crop[1] - self.crop[0]) * u.pop()
        aspect = math.exp(math.log(ASPECTS[0]) + math.log(ASPECTS[1] / ASPECTS[0]) * u.pop())
        width, height = min(1.0, math.sqrt(area * aspect)), min(1.0, math.sqrt(area / aspect))
        left, top = (1 - width) * u.pop(), (1 - height) * u.pop()
        factors, hue = [1.0, 1.0, 1.0], 0.0
        if u.pop() < self.jittered:
            factors = [1 + amount * (2 * u.pop() - 1) for amount in self.jitter[:3]]
            hue = self.jitter[3] * (2 * u.pop() - 1)
        mirror, grey = float(u.pop() < self.mirrored), float(u.pop() < self.grey)
        sigma = SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * u.pop() if u.pop() < self.blurred else 0.0
        return torch.tensor([mirror, left, top, width, height, *factors, hue, grey, sigma])


def view(images: Tensor, drawn: Tensor) -> Tensor:
    """The views of `images` (B, C, H, W) in [0, 1] that are `drawn` (B, len(DRAWN)): of their shape and range.

    In this order: mirrored, cropped (bilinear), brightness, contrast, and of RGB saturation, hue and grey. Not blurred,
    which takes more time than the rest: see `blurred`.
    """
    mirror, left, top, width, height, *_ = drawn.unbind(1)  # (B,) each
    brightness, contrast, saturation, hue, grey, _ = drawn[:, 5:, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    made = crop(images, mirror, left, top, width, height)
    made = (made * brightness).clamp(0, 1)
    middle = luma(made).mean((2, 3), keepdim=True)  # (B, 1, 1, 1)
    made = ((made - middle) * contrast + middle).clamp(0, 1)
    if images.shape[1] == 3:
        light = luma(made)  # (B, 1, H, W)
        made = hue_turned(((made - light) * saturation + light).clamp(0, 1), hue[:, :, :, 0])
        made = made + (luma(made) - made) * grey
    return made


def crop(images: Tensor, mirror: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Of each of `images` (B, C, H, W), mirrored where `mirror` (B,) is 1, a rectangle brought to (H, W).

    It begins at `left`, `top` and has `width` and `height`, (B,), as shares of the sides.
    """
    h, w = images.shape[2:]
    x = left[:, None] + width[:, None] * (torch.arange(w, device=images.device) + 0.5) / w  # (B, W)
    y = top[:, None] + height[:, None] * (torch.arange(h, device=images.device) + 0.5) / h  # (B, H)
    x = x + mirror[:, None] * (1 - 2 * x)
    grid = torch.stack([x[:, None].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], 3) * 2 - 1  # (B, H, W, 2)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def luma(images: Tensor) -> Tensor:
    """How light each pixel of `images` (B, C, H, W), grey or RGB, is: (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    light: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return light


def hue_turned(images: Tensor, by: Tensor) -> Tensor:
    """RGB `images` (B, 3, H, W) with their hue turned `by` (B, 1, 1) of a full turn; value and chroma stay."""
    red, green, blue = images.unbind(1)  # (B, H, W) each
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    some = chroma.clamp_min(1e-8)
    of_others = torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some)
    sixths = torch.where(value == red, (green - blue) / some, of_others) + 6 * by  # the hue
    channels = []
    for offset in (5, 3, 1):  # of red, green, blue
        place = (offset + sixths) % 6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, 1)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """`images` (B, C, H, W), each smoothed by a Gaussian of its own `sigma` (B,) in px, 0 for none; edges repeat."""
    b, c, h, w = images.shape
    reach = max(1, min(h, w) // REACH)
    steps = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (steps / sigma.clamp_min(1e-3)[:, None]).square())  # (B, 2 reach + 1)
    kernels = (weights / weights.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None, :, None]  # (B*C, 1, k, 1)
    framed = F.pad(images, (reach, reach, reach, reach), mode="replicate").view(1, b * c, h + 2 * reach, w + 2 * reach)
    smooth = F.conv2d(F.conv2d(framed, kernels, groups=b * c), kernels.transpose(2, 3), groups=b * c)
    return smooth.view(b, c, h, w)
