"""The likelihood of pixels, each from those before it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError

FIRST = 7  # the side of the first layer's kernel


class PixelCNN(Detector):
    """The exact probability of an image, pixel by pixel, each from those above it and to its left; odd is improbable.

    van den Oord, Kalchbrenner, Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016, its convolutional network.
    The correction is that of Serrà, Álvarez, Gómez, Slizovskaia, Núñez, Luque, "Input Complexity and
    Out-of-distribution Detection with Likelihood-based Generative Models", ICLR 2020.

    As a detector it is known to fail: what it learns best is how pixels depend on their neighbours, which simple images
    of other things obey better still, so that it calls MNIST likelier than the Fashion-MNIST it learnt, and a flat
    image likelier than all. Subtracting what any compressor needs for the image corrects for that.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `levels`: of brightness, 2 to 256, that an image is
    cut into and that a softmax decides between; bits of fewer levels are not those of the paper. `width`: channels
    within a residual block; between blocks there are twice as many. `blocks`: how many there are. `head`: channels of
    the two layers before the softmax. `complexity`: "none"; "png", the score less the bits per dimension of the image
    as a PNG file, after which it can't be exported. `epochs`, `batch_size`, `learning_rate`: of Adam. The defaults are
    the paper's network for CIFAR-10. For thousands of 28 × 28 images `width=16, blocks=4, head=32, epochs=4,
    learning_rate=2e-3` take a few minutes.

    The score is in bits per dimension, a mean over pixels and channels; the map is in bits per pixel.

    Deliberately otherwise: Adam, where the paper has RMSProp, and gradients are shortened to a norm of 1; grey images
    have a softmax too, and three channels are predicted red, green, blue, as there. The network's layers do not see all
    that they may: what lies above and far to the right of a pixel is in a blind spot, which the gated one of the same
    authors (NIPS 2016) has not. The size, epochs, batches and rate could not be checked.
    """

    fixed_size = True  # the bits of images of several sizes don't compare

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        levels: int = 256,
        width: int = 128,
        blocks: int = 15,
        head: int = 1024,
        complexity: Literal["none", "png"] = "none",
        epochs: int = 50,
        batch_size: int = 16,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, width=width, blocks=blocks, head=head, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        if not 2 <= levels <= 256:
            raise OkngError(f"levels is 2 to 256, not {levels}")
        if channels > min(width, head):
            raise OkngError(f"width and head are {channels} or more for as many channels, not {width} and {head}")
        self.levels, self.complexity = levels, complexity
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.exportable = complexity == "none"  # type: ignore[misc]  # no graph writes a PNG file
        self.net = nn.Sequential(
            MaskedConv(channels, 2 * width, FIRST, channels, sees_itself=False),
            *(MaskedBlock(width, channels) for _ in range(blocks)),
            nn.ReLU(), MaskedConv(2 * width, head, 1, channels),
            nn.ReLU(), MaskedConv(head, head, 1, channels),
            nn.ReLU(), MaskedConv(head, levels * channels, 1, channels),
        )  # fmt: skip

    def phases(self) -> Iterator[Phase]:
        """Raise the likelihood of OK images."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate), clip=1.0)
        yield Train("pixelcnn", [update], self.epochs, trains=[self], batch_size=self.batch_size)

    def cut(self, images: Tensor) -> Tensor:
        """The level, 0 to `levels` - 1, of each value of 8-bit `images` in [0, 1], of their shape, int64."""
        met: Tensor = (images * 255).round().long() * self.levels // 256
        return met

    def logits(self, met: Tensor) -> Tensor:
        """Of the levels `met` (B, C, H, W): (B, levels, C, H, W), those of a value from the values before it alone."""
        made = self.net(met.float() / (self.levels - 1) * 2 - 1)  # (B, levels · C, H, W), channels innermost
        logits: Tensor = made.unflatten(1, (self.levels, -1))
        return logits

    def bits(self, images: Tensor) -> Tensor:
        """-log₂ of the probability of each value of `images`, given those before it: (B, C, H, W)."""
        met = self.cut(images)
        return F.cross_entropy(self.logits(met), met, reduction="none") / math.log(2)

    def loss(self, batch: Batch) -> Tensor:
        """The mean bits per dimension."""
        return self.bits(batch.images).mean()

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) in bits per dimension, `map` (B, H, W) in bits per pixel."""
        bits = self.bits(images)  # (B, C, H, W)
        image = bits.mean((1, 2, 3))
        if self.complexity == "png":
            image = image - png_bits(self.cut(images).byte()).to(image)
        return Scores(image, bits.sum(1))


class MaskedConv(nn.Conv2d):
    """A convolution that keeps the grid and at each place sees what comes before it, row by row.

    At the place itself a channel of an image sees those before it, and itself with `sees_itself`, as in all layers but
    the first: masks A and B. The i-th of the layer's channels belongs to the image's channel i modulo `channels`.
    """

    mask: Tensor

    def __init__(self, inner: int, outer: int, side: int, channels: int, sees_itself: bool = True):
        super().__init__(inner, outer, side, padding=side // 2)
        middle = side // 2
        mask = torch.zeros(outer, inner, side, side)
        mask[:, :, :middle], mask[:, :, middle, :middle] = 1, 1  # rows above, and what is left in the row
        seeing, seen = torch.arange(outer)[:, None] % channels, torch.arange(inner)[None, :] % channels
        mask[:, :, middle, middle] = (seen <= seeing if sees_itself else seen < seeing).float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Masked each time, so that no step of an optimiser can open the mask: (B, inner, h, w) → (B, outer, h, w)."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)  # type: ignore[arg-type]


class MaskedBlock(nn.Module):
    """What 1 × 1, 3 × 3 and 1 × 1 masked convolutions make is added: (B, 2 width, h, w) → the same."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.ReLU(), MaskedConv(2 * width, width, 1, channels),
            nn.ReLU(), MaskedConv(width, width, 3, channels),
            nn.ReLU(), MaskedConv(width, 2 * width, 1, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """A skip around all three."""
        added: Tensor = x + self.path(x)
        return added


def png_bits(levels: Tensor) -> Tensor:
    """Bits per dimension of each of `levels` (B, C, H, W), uint8, as a PNG file: (B,)."""
    pixels: np.ndarray = levels.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, C)
    sizes = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG", optimize=True)
        sizes.append(8 * len(file.getvalue()) / image.size)
    return torch.tensor(sizes)
