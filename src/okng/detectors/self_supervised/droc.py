"""DROC: a representation learnt without labels, then a one-class classifier on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive, typed
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.images.augmentation import Augmentation, blurred, view
from okng.nn.images.geometric import Transformations
from okng.nn.learning.contrastive import info_nce
from okng.nn.learning.schedules import cosine
from okng.nn.networks.residual import ResNet
from okng.nn.vectors.distances import squared_distances
from okng.nn.vectors.support_vectors import support_vectors

TEMPERATURE, PROJECTED = 0.2, 128  # of the contrastive loss; numbers that it compares
MOMENTUM, WEIGHT_DECAY = 0.9, 3e-4
TURNS = 4
NU = 0.5  # of the one-class SVM: at most this share of OK images lies outside
SHARPNESS = 10.0  # of the kernel, over the features' variance
AUGMENTATION = Augmentation(crop=(0.5, 1), jitter=(0.4, 0.4, 0.4, 0.4), blurred=0.5)


class DROC(Detector):
    """Features learnt by contrast among OK images and their turned copies; odd is where few OK features lie.

    Sohn, Li, Yoon, Jin, Pfister, "Learning and Evaluating Representations for Deep One-Class Classification", ICLR
    2021. First a network learns from OK images alone; then a one-class classifier learns their features before the
    projection head, of length 1. There is no map.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `pretext`: what is learnt first. "augmented" contrasts
    views among four times as many images, each quarter turn of an image being one of its own (the paper's distribution
    augmentation); "contrastive" does it without turns; "rotation" names the turn of a view. `density`: what judges,
    "ocsvm", a one-class SVM, or "kde", a kernel density. `blocks` of the network's groups and its `width`: 2, 2, 2, 2
    and 64 are ResNet-18. `head`: widths of the layers between the features and what the loss sees. `epochs`: passes
    over the OK images. `batch_size`: images of a batch, turned ones counting where they are images of their own;
    the authors' is 64 for "rotation".
    `learning_rate`: of stochastic gradient descent with momentum 0.9, falling as half a cosine.

    Deliberately otherwise: the SVM's score is minus the logarithm of the sum of kernels whose one value is its border:
    the same order of images, and no two far ones have the same. All four turns of an image are met in one batch of
    "augmented". Weight decay is of all parameters. Views are drawn as SimCLR draws them, from crops of half the area
    on: colours are changed in four of five, in a fixed order, brightness first, and half are blurred; a crop that would
    leave the image is cut at its border. The authors' code crops squares of half the side on, changes colours in all
    views, brightness by a sum, and blurs none. For "rotation" its last hidden layer is neither normalised nor
    rectified. Quarter turns of an oblong image are resized to its shape.
    """

    fixed_size = True
    centre: Tensor
    memory: Tensor
    log_weights: Tensor
    gamma: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        pretext: Literal["augmented", "contrastive", "rotation"] = "augmented",
        density: Literal["ocsvm", "kde"] = "ocsvm",
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        head: tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512, 512),
        epochs: int = 2048,
        batch_size: int = 32,
        learning_rate: float = 0.01,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        if any(units < 1 for units in head):
            raise OkngError(f"head is widths of 1 or more, such as 512,128, not {typed(head)}")
        self.pretext, self.density, self.epochs = pretext, density, epochs
        self.images = max(1, batch_size // TURNS) if pretext == "augmented" else batch_size  # of a batch
        self.learning_rate = learning_rate
        self.turns = Transformations(image_size)
        self.network = ResNet(channels, blocks, width)
        layers: list[nn.Module] = []
        for inner, outer in zip([self.network.features, *head], head, strict=False):
            layers += [nn.Linear(inner, outer, bias=False), nn.BatchNorm1d(outer), nn.ReLU()]
        last = [self.network.features, *head][-1]
        self.head = nn.Sequential(*layers, nn.Linear(last, TURNS if pretext == "rotation" else PROJECTED))
        self.register_buffer("centre", torch.zeros(self.network.features))  # (D,), the mean of OK features
        self.register_buffer("memory", torch.zeros(0, self.network.features))  # (M, D): OK features, less the centre
        self.register_buffer("log_weights", torch.zeros(0))  # (M,), of weights that sum to 1
        self.register_buffer("gamma", torch.ones(()))

    def phases(self) -> Iterator[Phase]:
        """Learn a representation; then what is usual in it."""
        trains = [self.network, self.head]
        parameters = [parameter for module in trains for parameter in module.parameters()]
        optimizer = torch.optim.SGD(parameters, self.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY)
        update = Update(self.loss, optimizer, schedule=cosine)
        yield Train("representation", [update], self.epochs, trains, self.images, augment=self.augment, drop_last=True)
        seen: list[Tensor] = []

        def finish() -> None:
            features = torch.cat(seen)  # (N, D)
            self.gamma = SHARPNESS / (features.shape[1] * features.var().clamp_min(1e-12)).to(self.gamma)
            self.centre = features.mean(0).to(self.centre)
            self.memory, weights = self.judge((features - self.centre).to(self.memory))
            self.log_weights = weights.log()

        yield Collect("one-class classifier", lambda batch: seen.append(self.features(batch.images)), finish)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors (M, D) of which kernels are summed, and their weights (M,), which sum to 1.

        Of a density they are all OK `features` (N, D), of the SVM its support vectors.
        """
        if self.density == "kde":
            return features, torch.full_like(features[:, 0], 1 / len(features))
        vectors, weights, _ = support_vectors(features, NU, float(self.gamma))
        return vectors, weights

    def augment(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """What the views of an image, or of each of its turns, are drawn by: (2, 1 or K, _)."""
        instances = TURNS if self.pretext == "augmented" else 1
        drawn = [AUGMENTATION.draw(generator) for _ in range(2 * instances)]
        return torch.stack(drawn).view(2, instances, -1)

    def loss(self, batch: Batch) -> Tensor:
        """Which second view is of the same instance as a first one; or for "rotation", how a view is turned."""
        drawn = batch.views[0].transpose(0, 1).flatten(1, 2)  # (2, B or B*K, _)
        images = self.turns(batch.images).flatten(0, 1) if self.pretext == "augmented" else batch.images
        views = [blurred(view(images, numbers), numbers[:, -1]) for numbers in drawn]
        if self.pretext != "rotation":
            first, second = self.head(self.network(torch.cat(views) * 2 - 1)).chunk(2)
            return info_nce(first, second, TEMPERATURE)
        turned = self.turns(views[0]).flatten(0, 1)  # (B*K, C, H, W)
        which = torch.arange(TURNS, device=turned.device).repeat(len(views[0]))
        return F.cross_entropy(self.head(self.network(turned * 2 - 1)), which)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of length 1 of `images` (B, C, H, W) as they are."""
        return F.normalize(self.network(images * 2 - 1), dim=1)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): minus the logarithm of the weighted sum of kernels, over gamma: from 0 on, a squared length."""
        features = self.features(images) - self.centre  # (B, D); less the centre, small distances are less rounded
        squared = squared_distances(features, self.memory)  # (B, M)
        return Scores(-(self.log_weights - self.gamma * squared).logsumexp(1) / self.gamma)
