"""SimpleNet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import local_average, on_finest_grid
from okng.nn.images.blur import gaussian_blur
from okng.nn.networks.discriminator import projection_and_discriminator

MARGIN = 0.5  # beyond which neither kind of patch is pushed any further


class SimpleNet(Detector):
    """A discriminator learns to tell OK patches from the same with noise in their features; odd is what it doubts.

    Liu, Zhou, Xu, Wang, "SimpleNet: A Simple Network for Image Anomaly Detection and Localization", CVPR 2023. Patches
    are described as PatchCore's, projected by one linear layer, and told apart by two. The noise is in feature space:
    no anomaly is drawn into an image.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken (the paper: wide_resnet50_2 at
    8 and 16). `neighbourhood`: side of the square over which features are averaged around each position, odd. `hidden`:
    how many features the discriminator has between its layers. `noise`: standard deviation of the noise in each
    projected feature; 0.015 belongs to the scale of wide_resnet50_2's features. `epochs`, `batch_size`: of the
    training, in passes over all images and in images. `learning_rate`: of the projection, `discriminator_rate` of the
    discriminator. `sigma`: of the Gaussian that smooths the map, in pixels of the input.

    Deliberately otherwise: the last epoch counts, where the authors' code keeps the one that is best on the test set,
    so published figures are out of reach of an honest fit. Features are averaged per channel rather than pooled to a
    fixed width. Both networks go by AdamW, where the discriminator's weights decayed within Adam. The map is smoothed
    on the patch grid, before any enlargement.
    """

    pretrained = True

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        weights: str = "imagenet",
        neighbourhood: int = 3,
        hidden: int = 1024,
        noise: float = 0.015,
        epochs: int = 160,
        batch_size: int = 8,
        learning_rate: float = 1e-4,
        discriminator_rate: float = 2e-4,
        sigma: float = 4.0,
    ):
        super().__init__()
        at_least(1, hidden=hidden, epochs=epochs, batch_size=batch_size)
        positive(noise=noise, learning_rate=learning_rate, discriminator_rate=discriminator_rate, sigma=sigma)
        if neighbourhood < 1 or neighbourhood % 2 == 0:
            raise OkngError(f"neighbourhood is an odd number such as 3, not {neighbourhood}")
        self.backbone = freeze(Backbone(backbone, strides, weights))
        self.neighbourhood, self.noise, self.sigma = neighbourhood, noise, sigma
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.discriminator_rate = learning_rate, discriminator_rate
        d = sum(self.backbone.channels)
        self.projection, self.discriminator = projection_and_discriminator(d, hidden)

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Train projection and discriminator together; the patches are computed once per image."""
        optimizer = torch.optim.AdamW(
            [
                {"params": self.projection.parameters(), "lr": self.learning_rate, "weight_decay": 1e-2},
                {"params": self.discriminator.parameters(), "lr": self.discriminator_rate, "weight_decay": 1e-5},
            ]
        )
        yield Train(
            "discriminator",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=[self.projection, self.discriminator],
            batch_size=self.batch_size,
            prepare=self.patches,
        )

    def patches(self, images: Tensor) -> Tensor:
        """Patch descriptors (B, h, w, d) of `images` (B, 3, H, W)."""
        features = [local_average(f, self.neighbourhood) for f in self.backbone(images)]
        return on_finest_grid(features).permute(0, 2, 3, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far OK patches are from being told as such, and noisy ones as noisy, each 0 beyond the margin."""
        ok = self.projection(batch.prepared[0].flatten(0, 2))  # (B*h*w, d)
        noisy = ok + self.noise * torch.randn_like(ok)
        told_ok, told_noisy = self.discriminator(torch.cat([ok, noisy])).squeeze(1).chunk(2)  # (B*h*w,) each
        return {"OK": F.relu(MARGIN - told_ok).mean(), "noisy": F.relu(MARGIN + told_noisy).mean()}

    def doubts(self, patches: Tensor) -> Tensor:
        """The negative of what the discriminator says of `patches` (B, h, w, d): (B, h, w)."""
        told: Tensor = self.discriminator(self.projection(patches.flatten(0, 2)))  # (B*h*w, 1)
        return -told.view(patches.shape[:3])

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the highest of its patches' doubts; `map` (B, h, w) of them all, smoothed."""
        doubts = self.doubts(self.patches(images))
        return Scores(doubts.amax((1, 2)), gaussian_blur(doubts, self.sigma / min(self.backbone.strides)))
