"""Skip-GANomaly: a U-Net whose copies a discriminator judges by its features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.learning.adversarial import bounded, frozen
from okng.nn.networks.dcgan import LIMIT, start
from okng.nn.networks.dcgan_encoder import Encoder
from okng.nn.networks.unet import UNet

BETAS = (0.5, 0.999)


class SkipGANomaly(Detector):
    """A U-Net copies OK images sharply; odd is what it copies badly, in pixels and in a discriminator's features.

    Akcay, Atapour-Abarghouei, Breckon, "Skip-GANomaly: Skip Connected and Adversarially Trained Encoder-Decoder
    Anomaly Detection", IJCNN 2019 (arXiv 1901.08954).

    The generator learns by three losses: that the discriminator takes the copy for an image, that the copy is the
    image, and that the discriminator's last features of both are the same. The discriminator learns to tell images from
    copies. The score is the squared error of the copy and, at a smaller share, that of its features.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `width`: channels of the first level of the U-Net and of
    the discriminator. `levels`: how often the U-Net halves the sides. `code`: how many features the discriminator
    judges by. `adversarial_weight`, `copy_weight` and `feature_weight`: of the three losses. `share`: of the pixels in
    the score, the rest is the features'. `epochs`, `batch_size`, `learning_rate`: of Adam with betas 0.5 and 0.999, for
    generator and discriminator. For thousands of 28 × 28 images `width=32, levels=3, epochs=5` take about a minute.

    With all its shortcuts the generator may learn to copy anything, and the longer it is trained the more so: users of
    the authors' code saw its best figures after one or two epochs. What is simpler than OK images, such as another
    digit of fewer strokes, may then be copied better than they are.

    Deliberately otherwise: batch normalisation is scored with its running statistics, which of the discriminator are of
    images and copies together. Nothing is scaled to [0, 1] over a test set, and the last epoch counts. In the authors'
    code the discriminator learns by the features' loss too, and begins anew when it has won; here it learns by telling
    images from copies alone. Its depth follows the size, as in `gan`. First layers, the innermost one and the judgement
    have a bias.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        width: int = 64,
        levels: int = 5,
        code: int = 100,
        adversarial_weight: float = 1.0,
        copy_weight: float = 50.0,
        feature_weight: float = 1.0,
        share: float = 0.9,
        epochs: int = 15,
        batch_size: int = 64,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, width=width, levels=levels, code=code, epochs=epochs, batch_size=batch_size)
        at_least(0, adversarial_weight=adversarial_weight, copy_weight=copy_weight, feature_weight=feature_weight)
        positive(learning_rate=learning_rate)
        if not 0 <= share <= 1:
            raise OkngError(f"share is from 0 to 1, such as 0.9, not {share}")
        self.adversarial_weight, self.copy_weight, self.feature_weight = adversarial_weight, copy_weight, feature_weight
        self.share = share
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.generator = nn.Sequential(UNet(channels, channels, width, levels), nn.Tanh())
        self.features = Encoder(image_size, channels, code, width)
        self.judge = nn.Sequential(nn.Linear(code, 1), nn.Flatten(0))
        self.generator.apply(start)

    def phases(self) -> Iterator[Phase]:
        """On every batch the generator takes a step, then the discriminator."""
        own = [*self.features.parameters(), *self.judge.parameters()]
        updates = [
            Update(self.generator_loss, torch.optim.Adam(self.generator.parameters(), self.learning_rate, BETAS)),
            Update(self.discriminator_loss, torch.optim.Adam(own, self.learning_rate, BETAS)),
        ]
        yield Train("skip-ganomaly", updates, self.epochs, trains=[self], batch_size=self.batch_size)

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Deceive the discriminator, copy, have the image's features; weighed."""
        images = 2 * batch.images - 1
        copies = self.generator(images)  # (B, C, H, W)
        with frozen(self.features, self.judge):
            wanted, found = self.features(images), self.features(copies)  # (B, code)
            deceived = F.softplus(-self.judge(found)).mean()
        return {
            "adversarial": self.adversarial_weight * deceived,
            "copies": self.copy_weight * F.l1_loss(copies, images),
            "features": self.feature_weight * F.mse_loss(found, wanted),
        }

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Its cross-entropies: images are real, copies are not."""
        images = 2 * batch.images - 1
        with torch.no_grad():
            copies = self.generator(images)  # (B, C, H, W)
        real, copied = self.judge(self.features(images)), self.judge(self.features(copies))  # (B,)
        return bounded({"real": F.softplus(-real).mean(), "copied": F.softplus(copied).mean()}, LIMIT)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) squared errors of pixels and features, weighed; `map` (B, H, W) the absolute residual."""
        images = 2 * images - 1
        copies = self.generator(images)  # (B, C, H, W)
        features = (self.features(images) - self.features(copies)).square().mean(1)  # (B,)
        pixels = (images - copies).square().mean((1, 2, 3))  # (B,)
        return Scores(self.share * pixels + (1 - self.share) * features, (images - copies).abs().mean(1))
