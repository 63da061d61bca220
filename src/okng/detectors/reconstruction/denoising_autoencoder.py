"""Denoising autoencoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.detectors.checks import at_least, check_input, positive
from okng.nn.strided import strided_coders


class DenoisingAutoencoder(Detector):
    """What has learnt to take noise off OK images pulls every image towards them; odd is what it moves most.

    Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features with Denoising Autoencoders",
    ICML 2008; Vincent, Larochelle, Lajoie, Bengio, Manzagol, "Stacked Denoising Autoencoders", JMLR 2010.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `noise`: standard deviation of the Gaussian noise that
    training adds to images in [0, 1], drawn anew in every step; at 0 it is `autoencoder`, number for number. `code`,
    `width`, `epochs`, `batch_size`, `learning_rate`: as of `autoencoder`, whose network it is. For thousands of
    28 × 28 images `code=16, epochs=40, batch_size=64, learning_rate=2e-3, noise=0.2` take about a minute.

    Deliberately otherwise: a convolutional network trained as a whole, where the papers stack layers trained one by
    one; Gaussian noise and a squared error, the 2010 paper's for real values, not masked pixels and a cross-entropy.
    The default noise is that of OCGAN (Perera, Nallapati, Xiang, CVPR 2019), whose core is this method: 0.2 for
    images in [-1, 1]. Noisy images are not cut to [0, 1], which would show the noise's sign in black and white.
    Images are scored as they are, without noise, so a score is the same every time.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        noise: float = 0.1,
        code: int = 100,
        width: int = 16,
        epochs: int = 200,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        check_input("denoising_autoencoder", image_size, channels)
        at_least("denoising_autoencoder", 1, code=code, width=width, epochs=epochs, batch_size=batch_size)
        at_least("denoising_autoencoder", 0, noise=noise)
        positive("denoising_autoencoder", learning_rate=learning_rate)
        self.noise = noise
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.encoder, decoder = strided_coders(image_size, channels, code, width)
        self.decoder = nn.Sequential(*decoder, nn.Sigmoid())

    def phases(self) -> Iterator[Phase]:
        """Learn to recover OK images from noisy ones through the code."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate))
        yield Train("denoising autoencoder", [update], self.epochs, trains=[self], batch_size=self.batch_size)

    def loss(self, batch: Batch) -> Tensor:
        """The mean squared difference between what is made of the noisy images and the clean ones."""
        noisy = batch.images + self.noise * torch.randn_like(batch.images)  # (B, C, H, W)
        return self.errors(noisy, batch.images).mean((1, 2)).mean()

    def errors(self, seen: Tensor, wanted: Tensor) -> Tensor:
        """Squared errors of the copies of `seen` as copies of `wanted`, means over channels: (B, H, W)."""
        copies: Tensor = self.decoder(self.encoder(seen))  # (B, C, H, W)
        return (copies - wanted).square().mean(1)

    def forward(self, images: Tensor) -> Scores:
        """How far images are moved: `map` (B, H, W) the squared errors, means over channels, `image` (B,) over all."""
        errors = self.errors(images, images)
        return Scores(errors.mean((1, 2)), errors)
