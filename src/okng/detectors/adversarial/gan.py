"""A GAN's discriminator as a detector."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Detector, Phase, Scores, Train, Update
from okng.nn.networks.dcgan import DCGAN


class GAN(Detector):
    """A discriminator learns to tell OK images from generated ones; what it calls generated is odd.

    Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio, "Generative Adversarial
    Nets", NIPS 2014; the networks are those of Radford, Metz, Chintala, "Unsupervised Representation
    Learning with Deep Convolutional Generative Adversarial Networks" (DCGAN), ICLR 2016.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `latent`: how many numbers, uniform in [-1, 1], an
    image is generated from. `width`: channels at half the sides; they double as the sides halve, up to eight
    times. `epochs`, `batch_size`, `learning_rate`: of Adam with betas 0.5 and 0.999, for both networks.
    `training_steps`: after how many batches training ends, in place of `epochs`. For thousands of 28 × 28
    images `width=32, batch_size=64, epochs=12` take about a minute.

    It is a baseline, and a weak one: the discriminator has only ever been shown OK images and what the
    generator made of them, never anything else that is odd, and in a perfect match it says one half of all.

    Deliberately otherwise: the score is the negative logit, not one minus the probability, which saturates.
    The depth follows the size, down to a grid of 4 to 7 (28 px are 7 · 2², sides between are padded by
    repeating the border). Scoring takes BatchNorm's running statistics, to which batches of OK and of
    generated images have contributed, so that a score does not depend on the other images of its batch.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        channels: int = 3,
        latent: int = 100,
        width: int = 64,
        epochs: int = 25,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        training_steps: int | None = None,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, latent=latent, width=width, epochs=epochs, batch_size=batch_size, training_steps=training_steps)
        positive(learning_rate=learning_rate)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.training_steps = training_steps
        self.gan = DCGAN(image_size, channels, latent, width)

    def phases(self) -> Iterator[Phase]:
        """Both networks in turn, on every batch."""
        yield contest(self.gan, self.learning_rate, self.epochs, self.batch_size, self.training_steps)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): the negative logit of being an OK image rather than a generated one."""
        return Scores(-self.gan.discriminator(images * 2 - 1))


def contest(gan: DCGAN, learning_rate: float, epochs: int, batch_size: int, steps: int | None = None) -> Train:
    """DCGAN's training: the discriminator takes a step on every batch, then the generator."""
    judge = torch.optim.Adam(gan.discriminator.parameters(), learning_rate, betas=(0.5, 0.999))
    forger = torch.optim.Adam(gan.generator.parameters(), learning_rate, betas=(0.5, 0.999))
    updates = [
        Update(lambda batch: gan.discriminator_loss(batch.images * 2 - 1), judge),
        Update(lambda batch: gan.generator_loss(batch.images * 2 - 1), forger),
    ]
    return Train("GAN", updates, epochs, trains=[gan], batch_size=batch_size, steps=steps)
