"""STFPM."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import on_finest_grid


class STFPM(Detector):
    """A student copies a pretrained teacher's features on OK images; where it fails is odd.

    Wang, Han, Ding, Huang, "Student-Teacher Feature Pyramid Matching for Anomaly Detection", BMVC 2021.

    `backbone`, `strides`, `weights`: the teacher and where its features are taken (the paper: resnet18 at 4,
    8 and 16). The student has the same layers and random weights. `epochs`, `batch_size`, `learning_rate`,
    `momentum`, `weight_decay`: of stochastic gradient descent; a rate as high as 0.4 works because the
    features of both are normalised.

    Deliberately otherwise: the loss leaves out the paper's factor 1/2, as its authors' code does, to which
    the learning rate belongs. The map is the geometric mean of the strides' distances, not their product: the
    same order of positions and of images, without the underflow of a product of small numbers. A ResNet as a
    student begins as timm's do, with a gain of 0 in each block's last normalisation; in theirs it is 1.

    As in the authors' code, a fifth of the OK images teaches nothing, and the epoch stays whose map is lowest on it.
    """

    pretrained = True

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float = 0.4,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
    ):
        super().__init__()
        at_least(1, epochs=epochs, batch_size=batch_size)
        at_least(0, weight_decay=weight_decay)
        positive(learning_rate=learning_rate)
        if not 0 <= momentum < 1:
            raise OkngError(f"momentum is 0 or more and below 1, such as 0.9, not {momentum}")
        self.teacher = freeze(Backbone(backbone, strides, weights))
        self.student = Backbone(backbone, strides, weights="none")
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.momentum, self.weight_decay = momentum, weight_decay

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.teacher.strides)

    def phases(self) -> Iterator[Phase]:
        """Train the student; the teacher's features are computed once per image."""
        optimizer = torch.optim.SGD(
            self.student.parameters(), self.learning_rate, self.momentum, weight_decay=self.weight_decay
        )
        yield Train(
            "student",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=[self.student],
            batch_size=self.batch_size,
            prepare=self.teach,
            validate=self.on_held_out,
        )

    def teach(self, images: Tensor) -> tuple[Tensor, ...]:
        """The teacher's features, each (B, C_s, h_s, w_s) and of length 1 at every position."""
        return tuple(F.normalize(features) for features in self.teacher(images))

    def differences(self, taught: tuple[Tensor, ...], images: Tensor) -> list[Tensor]:
        """Squared distances of the student's features to the `taught`, each (B, 1, h_s, w_s) in [0, 4]."""
        studied = [F.normalize(features) for features in self.student(images)]
        return [(t - s).square().sum(1, keepdim=True) for t, s in zip(taught, studied, strict=True)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean distance of each stride, in [0, 4]."""
        differences = self.differences(batch.prepared, batch.images)
        return {f"stride {s}": d.mean() for s, d in zip(self.student.strides, differences, strict=True)}

    def on_held_out(self, batch: Batch) -> Tensor:
        """The mean of the authors' map, the product of the strides' distances."""
        return on_finest_grid(self.differences(batch.prepared, batch.images)).prod(1).mean()

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w) in [0, 4] on the grid of the finest stride; `image` (B,) its maximum."""
        pyramid = on_finest_grid(self.differences(self.teach(images), images))  # (B, strides, h, w)
        anomaly = pyramid.pow(1 / pyramid.shape[1]).prod(1)  # (B, h, w)
        return Scores(anomaly.amax((1, 2)), anomaly)
