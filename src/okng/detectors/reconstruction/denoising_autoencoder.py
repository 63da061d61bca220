"""Denoising autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Batch
from okng.detectors.reconstruction.autoencoder import Autoencoder


class DenoisingAutoencoder(Autoencoder):
    """What has learnt to take noise off OK images pulls every image towards them; odd is what it moves most.

    Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features with Denoising Autoencoders",
    ICML 2008; Vincent, Larochelle, Lajoie, Bengio, Manzagol, "Stacked Denoising Autoencoders", JMLR 2010.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `noise`: standard deviation of the Gaussian noise that
    training adds to images in [0, 1], drawn anew in every step; at 0 it is `autoencoder`, number for number. `code`,
    `width`, `epochs`, `batch_size`, `learning_rate`, `training_steps`, `sspcab`: as of `autoencoder`, whose network it
    is. For thousands of 28 × 28 images `code=16, epochs=40, batch_size=64, learning_rate=2e-3, noise=0.2` take about a
    minute.

    Deliberately otherwise: a convolutional network trained as a whole, where the papers stack layers trained one by
    one; Gaussian noise and a squared error, the 2010 paper's for real values, not masked pixels and a cross-entropy.
    The default noise is that of OCGAN (Perera, Nallapati, Xiang, CVPR 2019), whose core is this method: 0.2 for
    images in [-1, 1]. Noisy images are not cut to [0, 1], which would show the noise's sign in black and white.
    Images are scored as they are, without noise, so a score is the same every time.
    """

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
        training_steps: int | None = None,
        sspcab: bool = False,
    ):
        super().__init__(image_size, channels, code, width, epochs, batch_size, learning_rate, training_steps, sspcab)
        at_least(0, noise=noise)
        self.noise = noise

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean squared difference between what is made of the noisy images and the clean ones."""
        noisy = batch.images + self.noise * torch.randn_like(batch.images)  # (B, C, H, W)
        return self.losses(noisy, batch.images)
