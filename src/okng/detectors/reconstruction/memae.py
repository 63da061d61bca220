"""Memory-augmented autoencoder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError

SLOPE = 0.2  # of the leaky rectifiers below zero
TINY = 1e-12  # keeps quotients and logarithms finite


class MemAE(Detector):
    """An autoencoder may only decode what a few items of a memory add up to; odd is what they can't say.

    Gong, Liu, Le, Saha, Mansour, Venkatesh, van den Hengel, "Memorizing Normality to Detect Anomaly: Memory-Augmented
    Deep Autoencoder for Unsupervised Anomaly Detection", ICCV 2019 (arXiv 1904.02639).

    The code asks the memory by its products with all items. Their softmax are the weights; those below a threshold
    become exactly 0 (hard shrinkage) and the others are scaled to add up to 1. Their sum of items is decoded in place
    of the code. The loss is the squared error of the copies and a little of the weights' entropy, which makes few items
    speak for an image.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `widths`: channels of the encoder's layers, of which each
    halves the sides; the decoder mirrors them. `items`: how many the memory has. `query`: what asks it, the code of an
    "image" as a whole, so that items are kinds of images, or each "position" of it for itself, as in the authors'
    code, so that they are kinds of patches. `shrinkage`: the threshold, in units of the mean weight 1 / `items`; up
    to 1 some weight always stays. `entropy_weight`: of the entropy in the loss. `epochs`, `batch_size`,
    `learning_rate`: of Adam. For thousands of 28 × 28 images `widths=(16,32,64), items=100, epochs=40,
    batch_size=64, learning_rate=3e-3` take a few minutes.

    Deliberately otherwise: the authors' code is of videos. The layers for images are remembered and could not be
    checked: 64, 128, 128, 256 with 500 items for CIFAR-10, 16, 32, 64 with 100 for MNIST, whose first kernel is one
    pixel and here 3 × 3 like all others. So are epochs and batches, and that a query is a whole image, of which a
    figure of decoded items speaks. Weights are those of the products, as in the authors' code, not of the cosine. Its
    images are in [-1, 1], where errors count four times as much beside the entropy, and its score is no squared error
    but, of each pixel, the root of the sum over the channels.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        widths: tuple[int, ...] = (64, 128, 128, 256),
        items: int = 500,
        query: Literal["image", "position"] = "image",
        shrinkage: float = 1.0,
        entropy_weight: float = 2e-4,
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 1e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        if not widths or min(widths) < 1:
            raise OkngError(f"widths is the channels of one layer or more, such as 16,32,64, not {widths}")
        at_least(1, items=items, epochs=epochs, batch_size=batch_size)
        at_least(0, shrinkage=shrinkage, entropy_weight=entropy_weight)
        positive(learning_rate=learning_rate)
        self.query, self.entropy_weight = query, entropy_weight
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        h, w = image_size
        for inner, outer in pairwise([channels, *widths]):
            extra = (1 - h % 2, 1 - w % 2)  # halving rounds odd sides up; on the way back even sides need one more
            back = nn.ConvTranspose2d(outer, inner, 3, stride=2, padding=1, output_padding=extra)
            down += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.BatchNorm2d(outer), nn.LeakyReLU(SLOPE)]
            up = [back, *([nn.BatchNorm2d(inner), nn.LeakyReLU(SLOPE), *up] if up else [])]
            h, w = (h + 1) // 2, (w + 1) // 2
        self.grid = (widths[-1], h, w)
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)
        self.memory = Memory(items, math.prod(self.grid) if query == "image" else widths[-1], shrinkage / items)

    def phases(self) -> Iterator[Phase]:
        """Learn to copy OK images through the memory; its items learn with the networks."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate))
        yield Train("memae", [update], self.epochs, trains=[self], batch_size=self.batch_size)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The copies' mean squared error, and the weights' mean entropy in nats."""
        copies, weights = self.recall(batch.images)
        entropy = -(weights * (weights + TINY).log()).sum(1).mean()
        return {"copies": (copies - batch.images).square().mean(), "entropy": self.entropy_weight * entropy}

    def recall(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Copies (B, C, H, W) by way of the memory, and the weights (queries, items) that its items had in them."""
        codes = self.encoder(images)  # (B, C', h, w)
        channels, h, w = self.grid
        if self.query == "image":
            recalled, weights = self.memory(codes.flatten(1))  # (B, C' h w), (B, items)
            return self.decoder(recalled.unflatten(1, self.grid)), weights
        recalled, weights = self.memory(codes.permute(0, 2, 3, 1).reshape(-1, channels))  # (B h w, C'), (B h w, items)
        return self.decoder(recalled.reshape(-1, h, w, channels).permute(0, 3, 1, 2)), weights

    def forward(self, images: Tensor) -> Scores:
        """Squared errors of the copies: `map` (B, H, W) the mean over channels, `image` (B,) over all."""
        copies, _ = self.recall(images)  # (B, C, H, W)
        errors = (copies - images).square().mean(1)  # (B, H, W)
        return Scores(errors.mean((1, 2)), errors)


class Memory(nn.Module):
    """`count` items of `size` numbers; weights up to `threshold` are exactly 0."""

    def __init__(self, count: int, size: int, threshold: float):
        super().__init__()
        self.threshold = threshold
        self.items = nn.Parameter(torch.empty(count, size).uniform_(-1, 1) / math.sqrt(size))

    def address(self, queries: Tensor) -> Tensor:
        """Weights (Q, count) of the items for `queries` (Q, size): 0 or more, rows add up to 1."""
        weights = (queries @ self.items.T).softmax(1)  # (Q, count)
        over = weights - self.threshold
        shrunk = over.relu() * weights / (over.abs() + TINY)  # as it was where it is over, else 0, with a gradient
        return shrunk / shrunk.sum(1, keepdim=True).clamp_min(TINY)

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """What the items say for `queries` (Q, size), of their shape, and the weights (Q, count)."""
        weights = self.address(queries)
        return weights @ self.items, weights
