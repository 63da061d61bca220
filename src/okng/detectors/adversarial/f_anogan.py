"""f-AnoGAN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.learning.adversarial import bounded, frozen
from okng.nn.networks.sizes import halvings, pad_to_grid

WIDEST = 8  # channels grow to this many times `width`
PENALTY = 10.0  # weight of the gradient penalty
LIMIT = 1e6  # a critic's loss has no bounds; beyond this one no training comes back


class UpBlock(nn.Module):
    """A residual block that doubles the sides: (B, inner, h, w) to (B, outer, 2h, 2w)."""

    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inner), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(inner, outer, 3, padding=1),
            nn.BatchNorm2d(outer), nn.ReLU(), nn.Conv2d(outer, outer, 3, padding=1),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1), nn.Upsample(scale_factor=2))

    def forward(self, x: Tensor) -> Tensor:
        """The residual beside the shortcut."""
        total: Tensor = self.body(x) + self.shortcut(x)
        return total


class DownBlock(nn.Module):
    """A residual block that halves the sides: (B, inner, h, w) to (B, outer, h/2, w/2)."""

    def __init__(self, inner: int, outer: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.body = nn.Sequential(
            norm(inner), nn.ReLU(), nn.Conv2d(inner, inner, 3, padding=1),
            norm(inner), nn.ReLU(), nn.Conv2d(inner, outer, 3, padding=1), nn.AvgPool2d(2),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inner, outer, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The residual beside the shortcut."""
        total: Tensor = self.body(x) + self.shortcut(x)
        return total


class Generator(nn.Module):
    """Codes (B, latent) to images (B, channels, h, w) in [-1, 1]."""

    def __init__(self, image_size: tuple[int, int], channels: int, latent: int, width: int):
        super().__init__()
        times, (h, w) = halvings(image_size)
        self.image_size = image_size
        widths = [width * min(2**i, WIDEST) for i in range(times + 1)][::-1]  # at 64 px: 8, 8, 4, 2, 1 times width
        self.net = nn.Sequential(
            nn.Linear(latent, widths[0] * h * w), nn.Unflatten(1, (widths[0], h, w)),
            *(UpBlock(inner, outer) for inner, outer in pairwise(widths)),
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, channels, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, codes: Tensor) -> Tensor:
        """Images (B, channels, h, w) of `codes` (B, latent)."""
        height, width = self.image_size
        images: Tensor = self.net(codes)  # (B, channels, grid · 2ⁿ)
        return images[:, :, :height, :width]


class Trunk(nn.Module):
    """Images (B, channels, h, w) in [-1, 1] to features (B, size): what critic and encoder are made of."""

    def __init__(self, image_size: tuple[int, int], channels: int, width: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.times, (h, w) = halvings(image_size)
        widths = [width * min(2**i, WIDEST) for i in range(self.times + 1)]  # at 64 px: 1, 2, 4, 8, 8 times width
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *(DownBlock(inner, outer, norm) for inner, outer in pairwise(widths)),
            nn.Flatten(),
        )
        self.size = widths[-1] * h * w

    def forward(self, images: Tensor) -> Tensor:
        """The last block's output, flat."""
        features: Tensor = self.net(pad_to_grid(images, self.times))
        return features


def layer_norm(channels: int) -> nn.Module:
    """Over all values of an image, with a scale and a shift per channel."""
    return nn.GroupNorm(1, channels)


class FAnoGAN(Detector):
    """A GAN learns to generate OK images, then an encoder to find their codes; what is not found again is odd.

    Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth, "f-AnoGAN: Fast Unsupervised Anomaly Detection with
    Generative Adversarial Networks", Medical Image Analysis 54, 2019; the GAN is the residual one of Gulrajani,
    Ahmed, Arjovsky, Dumoulin, Courville, "Improved Training of Wasserstein GANs" (WGAN-GP), NIPS 2017.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `latent`: how many normally distributed numbers an
    image is generated from. `width`: channels at full size; they double as the sides halve, up to eight times.
    `encoder`: what the encoder learns by, "izi" copies of images, "ziz" codes of generated images found again,
    "izi_f" (the paper's choice) copies that the critic's features cannot tell from the image. `kappa`: the
    features' share beside the image in "izi_f" and in the score. `epochs`, `batch_size`, `learning_rate`: of
    the GAN, by Adam with betas 0 and 0.9; `critic_steps`: batches to the critic for one to the generator.
    `encoder_epochs`, `encoder_learning_rate`: of the encoder, by RMSProp. `training_steps`, `encoder_steps`:
    after how many batches GAN and encoder end, in place of `epochs` and `encoder_epochs`. The default epochs
    are for very many patches; hundreds of images take hundreds of epochs. For thousands of 28 × 28 images
    `width=8, latent=64, batch_size=16, epochs=4, learning_rate=1e-3, critic_steps=1, encoder_epochs=8,
    encoder_learning_rate=5e-4` take two or three minutes. As published, a tanh keeps the encoder's codes in
    [-1, 1] (in the authors' code one of several choices); at a rate of 3e-3 it saturated in the first steps and
    stayed so.

    Deliberately otherwise: an epoch is a pass of the critic over all images; the authors' encoder takes 50,000
    steps, which `okng train --budget paper` gives it. The depth follows the size, down to a grid of 4 to 7 (28
    px are 7 · 2², sides between are padded by repeating the border). Images are generated by doubled pixels and
    a convolution. All convolutions have a bias, the first of a block, too. RMSProp and the normalisations are
    PyTorch's: their means go over other spans than TensorFlow's.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        channels: int = 1,
        latent: int = 128,
        width: int = 64,
        encoder: Literal["izi", "ziz", "izi_f"] = "izi_f",
        kappa: float = 1.0,
        epochs: int = 7,
        batch_size: int = 64,
        learning_rate: float = 1e-4,
        critic_steps: int = 5,
        encoder_epochs: int = 3,
        encoder_learning_rate: float = 5e-5,
        training_steps: int | None = None,
        encoder_steps: int | None = None,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, latent=latent, width=width, critic_steps=critic_steps, batch_size=batch_size)
        at_least(1, epochs=epochs, encoder_epochs=encoder_epochs)
        at_least(1, training_steps=training_steps, encoder_steps=encoder_steps)
        at_least(0, kappa=kappa)
        positive(learning_rate=learning_rate, encoder_learning_rate=encoder_learning_rate)
        self.latent, self.learns_by, self.kappa = latent, encoder, kappa
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.critic_steps = critic_steps
        self.encoder_epochs, self.encoder_learning_rate = encoder_epochs, encoder_learning_rate
        self.training_steps, self.encoder_steps = training_steps, encoder_steps
        self.generator = Generator(image_size, channels, latent, width)
        look = Trunk(image_size, channels, width, layer_norm)
        self.critic = nn.Sequential(look, nn.Linear(look.size, 1))
        trunk = Trunk(image_size, channels, width, nn.BatchNorm2d)
        self.encoder = nn.Sequential(trunk, nn.Linear(trunk.size, latent), nn.Tanh())

    def phases(self) -> Iterator[Phase]:
        """The GAN; then the encoder, while the GAN stays as it is."""
        critic = torch.optim.Adam(self.critic.parameters(), self.learning_rate, betas=(0.0, 0.9))
        generator = torch.optim.Adam(self.generator.parameters(), self.learning_rate, betas=(0.0, 0.9))
        updates = [
            Update(self.critic_loss, critic),
            Update(self.generator_loss, generator, every=self.critic_steps),
        ]
        both = [self.generator, self.critic]
        yield Train("GAN", updates, self.epochs, both, self.batch_size, steps=self.training_steps)
        encoder = torch.optim.RMSprop(self.encoder.parameters(), self.encoder_learning_rate)
        yield Train(
            "encoder",
            [Update(self.encoder_loss, encoder)],
            self.encoder_epochs,
            trains=[self.encoder],
            batch_size=self.batch_size,
            steps=self.encoder_steps,
        )

    def generate(self, images: Tensor) -> Tensor:
        """As many new images as `images`, of codes drawn from torch's generator."""
        generated: Tensor = self.generator(torch.randn(len(images), self.latent, device=images.device))
        return generated

    def critic_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The critic's mean of generated images less that of OK ones, and the penalty on its slope between them."""
        real = batch.images * 2 - 1
        with torch.no_grad():
            generated = self.generate(real)
        share = torch.rand(len(real), 1, 1, 1, device=real.device)  # (B, 1, 1, 1)
        between = (share * real + (1 - share) * generated).requires_grad_()  # (B, C, H, W)
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)  # (B, C, H, W)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        difference = self.critic(generated).mean() - self.critic(real).mean()
        return bounded({"critic": difference, "penalty": PENALTY * penalty}, LIMIT)

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the generator makes should please the critic."""
        with frozen(self.critic):
            return bounded({"generator": -self.critic(self.generate(batch.images)).mean()}, LIMIT)

    def encoder_loss(self, batch: Batch) -> Tensor:
        """How far images, or codes, are from what comes back of them."""
        with frozen(self.generator, self.critic):
            if self.learns_by == "ziz":
                codes = torch.randn(len(batch.images), self.latent, device=batch.images.device)
                return F.mse_loss(self.encoder(self.generator(codes)), codes)
            residuals, features = self.compare(batch.images * 2 - 1)
            error = residuals.square().mean()
            return error + self.kappa * features.mean() if self.learns_by == "izi_f" else error

    def compare(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals (B, C, H, W) of the copies, and the mean squared difference (B,) of the critic's features."""
        copies = self.generator(self.encoder(images))  # (B, C, H, W)
        look = self.critic[0]
        features = (look(images) - look(copies)).square().mean(1)  # (B,)
        return images - copies, features

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): squared errors of copy and features; `map` (B, H, W): absolute residual over the channels."""
        residuals, features = self.compare(images * 2 - 1)
        image = residuals.square().mean((1, 2, 3)) + self.kappa * features
        return Scores(image, residuals.abs().mean(1))
