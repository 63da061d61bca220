"""DCGAN: a generator and a discriminator that learn from each other."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.nn.learning.adversarial import bounded, frozen
from okng.nn.networks.sizes import halvings, pad_to_grid

WIDEST = 8  # channels grow to this many times `width`
SLOPE = 0.2  # of the discriminator's leaky rectifier below zero
LIMIT = 88.0  # nats; beyond it a probability is zero in single precision, and with it the gradient of who is right


class Generator(nn.Module):
    """Codes (B, latent) to images (B, channels, h, w) in [-1, 1], doubling the sides from a grid of 4 to 7."""

    def __init__(self, image_size: tuple[int, int], channels: int, latent: int, width: int):
        super().__init__()
        times, grid = halvings(image_size)
        self.image_size = image_size
        widths = [width * min(2**i, WIDEST) for i in range(times)][::-1]
        self.net = nn.Sequential(
            nn.ConvTranspose2d(latent, widths[0], grid, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        for inner, outer in pairwise(widths):
            self.net.extend([nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()])
        self.net.extend([nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh()])
        self.apply(start)

    def forward(self, codes: Tensor) -> Tensor:
        """Images (B, channels, h, w) of `codes` (B, latent)."""
        height, width = self.image_size
        images: Tensor = self.net(codes[:, :, None, None])  # (B, channels, grid · 2ⁿ)
        return images[:, :, :height, :width]


class Discriminator(nn.Module):
    """Images (B, channels, h, w) in [-1, 1] to logits (B,): above zero looks real, below looks generated."""

    def __init__(self, image_size: tuple[int, int], channels: int, width: int):
        super().__init__()
        self.times, grid = halvings(image_size)
        widths = [width * min(2**i, WIDEST) for i in range(self.times)]
        self.features = nn.Sequential(nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE))
        for inner, outer in pairwise(widths):
            self.features.extend(
                [nn.Conv2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.LeakyReLU(SLOPE)]
            )
        self.last = nn.Conv2d(widths[-1], 1, grid)
        self.apply(start)

    def look(self, images: Tensor) -> Tensor:
        """What it sees before it judges: (B, C, h, w) on the coarsest grid."""
        features: Tensor = self.features(pad_to_grid(images, self.times))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,) of `images`."""
        logits: Tensor = self.last(self.look(images))  # (B, 1, 1, 1)
        return logits.flatten()


class DCGAN(nn.Module):
    """Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks", ICLR 2016; the losses are the non-saturating ones of Goodfellow et al., "Generative Adversarial Nets",
    NIPS 2014. Codes are uniform in [-1, 1]. Images are in [-1, 1].
    """

    def __init__(self, image_size: tuple[int, int], channels: int, latent: int, width: int):
        super().__init__()
        self.latent = latent
        self.generator = Generator(image_size, channels, latent, width)
        self.discriminator = Discriminator(image_size, channels, width)

    def generate(self, images: Tensor) -> Tensor:
        """As many new images as `images`, of codes drawn from torch's generator."""
        codes = torch.rand(len(images), self.latent, device=images.device) * 2 - 1  # (B, latent)
        generated: Tensor = self.generator(codes)  # (B, C, H, W)
        return generated

    def discriminator_loss(self, images: Tensor) -> dict[str, Tensor]:
        """The discriminator's cross-entropies: `images` are real, new ones are generated."""
        with torch.no_grad():
            generated = self.generate(images)
        real, fake = self.discriminator(images), self.discriminator(generated)
        return bounded({"real": F.softplus(-real).mean(), "generated": F.softplus(fake).mean()}, LIMIT)

    def generator_loss(self, images: Tensor) -> dict[str, Tensor]:
        """The generator's cross-entropy: what it makes should look real."""
        with frozen(self.discriminator):
            logits = self.discriminator(self.generate(images))
        return bounded({"generator": F.softplus(-logits).mean()}, LIMIT)


def start(layer: nn.Module) -> None:
    """DCGAN's initial weights."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, 0.02)
