"""SSL-AD: naming rotations and translations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.images.geometric import SHIFTS, Transformations
from okng.nn.learning.schedules import cosine
from okng.nn.networks.residual import WideResNet

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
LOWEST_RATE = 1e-6
TURNS = 4
HEADS = (len(SHIFTS), len(SHIFTS), TURNS)  # outputs that tell the shift in x, that in y, and the turn


class SSLAD(Detector):
    """Three heads on one network name how an OK image was shifted in x and y and turned; what they can't name is odd.

    Hendrycks, Mazeika, Kadavath, Song, "Using Self-Supervised Learning Can Improve Model Robustness and Uncertainty",
    NeurIPS 2019. Images are shifted by a quarter of the side or not at all, in x and in y, and turned by quarters: 36
    transformations. The score is minus the probabilities of the right answers, of all heads and transformations. There
    is no map.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `depth` and `width` of the wide residual network: 16 and
    64 are WRN-16-4. `epochs`: passes over the OK images, in each of which an image has one of nine shifts and all four
    turns. `batch_size`: images, four views of each. `learning_rate`: of stochastic gradient descent with Nesterov's
    momentum 0.9, falling as half a cosine.

    Deliberately otherwise: the authors' script for one class of CIFAR-10 is not public; transformations, loss and score
    are those of their script for ImageNet, whose network has attention blocks, here left out, epochs those of their
    script for several classes. Which shift an image has is drawn in each pass. Quarter turns of an oblong image are
    resized to its shape.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        depth: int = 16,
        width: int = 64,
        epochs: int = 200,
        batch_size: int = 64,
        learning_rate: float = 0.1,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.transformations = Transformations(image_size, shifts=True)
        self.network = WideResNet(channels, depth, width)
        self.heads = nn.Linear(self.network.features, sum(HEADS))

    def phases(self) -> Iterator[Phase]:
        """Learn to name shifts and turns."""
        optimizer = torch.optim.SGD(
            self.parameters(), self.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        update = Update(self.loss, optimizer, schedule=partial(cosine, end=LOWEST_RATE / self.learning_rate))
        yield Train("naming", [update], self.epochs, [self.network, self.heads], self.batch_size, augment=self.augment)

    def augment(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Whether `image` is mirrored, 0 or 1, and which of nine shifts it has: (2,)."""
        mirrored = torch.randint(2, (), generator=generator)
        return torch.stack([mirrored, torch.randint(len(self.transformations) // TURNS, (), generator=generator)])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """A third of each head's cross-entropy."""
        (drawn,) = batch.views  # (B, 2)
        mirrored, shift = drawn.T
        images = torch.where(mirrored[:, None, None, None] == 1, batch.images.flip(3), batch.images)
        which = (
            TURNS * shift[:, None] + torch.arange(TURNS, device=shift.device)
        ).flatten()  # (4B,), turns are fastest
        moved = self.transformations.one_each(images.repeat_interleave(TURNS, 0), which)  # (4B, C, H, W)
        truth = [answers[which] for answers in self.answers()]
        told = self.logits(moved).split(HEADS, 1)
        names = ("shift in x", "shift in y", "turn")
        return {
            name: F.cross_entropy(logits, right) / 3 for name, logits, right in zip(names, told, truth, strict=True)
        }

    def answers(self) -> tuple[Tensor, Tensor, Tensor]:
        """What each head should say of each of the 36 transformations, (36,) each."""
        return self.transformations.moved_x, self.transformations.moved_y, self.transformations.turns

    def logits(self, images: Tensor) -> Tensor:
        """What the heads say of transformed `images` (B, C, H, W): (B, 10)."""
        logits: Tensor = self.heads(self.network(images * 2 - 1))
        return logits

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): minus the sum of the right answers' probabilities, from -108 to 0."""
        if not torch.onnx.is_in_onnx_export() and len(images) > 1:  # image by image, which bounds the space
            return Scores(torch.cat([self(image).image for image in images.split(1)]))
        told = self.logits(self.transformations(images).flatten(0, 1))  # (B*36, 10)
        sure = torch.zeros_like(images[:, 0, 0, 0])  # (B,)
        for logits, right in zip(told.split(HEADS, 1), self.answers(), strict=True):
            probabilities = logits.softmax(1).unflatten(0, (-1, len(right)))  # (B, 36, 3 or 4)
            sure = sure + (probabilities * F.one_hot(right, logits.shape[1])).sum((1, 2))
        return Scores(-sure)
