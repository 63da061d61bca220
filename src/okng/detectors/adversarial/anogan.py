"""AnoGAN."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from okng.checks import at_least, check_input, positive
from okng.detectors.adversarial.gan import contest
from okng.detectors.base import Detector, Phase, Scores
from okng.errors import OkngError
from okng.nn.networks.dcgan import DCGAN


class AnoGAN(Detector):
    """A GAN learns to generate OK images; what no code of it can generate is odd.

    Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs, "Unsupervised Anomaly Detection with Generative
    Adversarial Networks to Guide Marker Discovery", IPMI 2017.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `latent`: how many numbers, uniform in [-1, 1],
    an image is generated from. `width`: channels at half the sides; they double as the sides halve, up to
    eight times. `epochs`, `batch_size`, `learning_rate`: of Adam with betas 0.5 and 0.999, for both networks.
    `training_steps`: after how many batches their training ends, in place of `epochs`.
    `steps`: of the search for the code of an image, by Adam with `search_rate`. `restarts`: how many random
    codes the search starts from; the best end counts. `weight`: share of the discriminator's features, beside
    the residual, in the loss of the search, which is the score. For thousands of 28 × 28 images
    `width=32, batch_size=64, epochs=12, steps=100, search_rate=0.05` take about a minute to fit; scoring
    is the slow part, its time grows with `steps` times `restarts`.

    Deliberately otherwise: the depth follows the size, down to a grid of 4 to 7 (28 px are 7 · 2², sides
    between are padded by repeating the border). The codes from which searches start are drawn once and are
    the same for every image; a code that leaves [-1, 1] is set back to the border.
    """

    fixed_size = True
    exportable = False  # the search takes gradients

    starts: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        channels: int = 3,
        latent: int = 100,
        width: int = 64,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-4,
        steps: int = 500,
        restarts: int = 1,
        search_rate: float = 0.01,
        weight: float = 0.1,
        training_steps: int | None = None,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, latent=latent, width=width, epochs=epochs, batch_size=batch_size, restarts=restarts)
        at_least(0, steps=steps)
        at_least(1, training_steps=training_steps)
        positive(learning_rate=learning_rate, search_rate=search_rate)
        if not 0 <= weight <= 1:
            raise OkngError(f"weight lies between 0 and 1, such as 0.1, not {weight}")
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.steps, self.search_rate, self.weight = steps, search_rate, weight
        self.training_steps = training_steps
        self.gan = DCGAN(image_size, channels, latent, width)
        drawn = torch.rand(restarts, latent, generator=torch.Generator().manual_seed(0))
        self.register_buffer("starts", drawn * 2 - 1)  # (restarts, latent)

    def phases(self) -> Iterator[Phase]:
        """Both networks in turn, on every batch; the search trains nothing."""
        yield contest(self.gan, self.learning_rate, self.epochs, self.batch_size, self.training_steps)

    def compare(self, codes: Tensor, wanted: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (N,) of `codes` (N, latent) and the residuals (N, C, H, W).

        `wanted` (N, C, H, W) are the images in [-1, 1] and `seen` (N, c, h, w) the discriminator's features of them.
        """
        generated = self.gan.generator(codes)  # (N, C, H, W)
        residuals = (wanted - generated).abs()
        features = (seen - self.gan.discriminator.look(generated)).abs()  # (N, c, h, w)
        losses = (1 - self.weight) * residuals.sum((1, 2, 3)) + self.weight * features.sum((1, 2, 3))
        return losses, residuals

    def search(self, images: Tensor) -> Tensor:
        """The codes (restarts · B, latent) found for `images` (B, C, H, W) in [-1, 1], start by start."""
        wanted = images.repeat(len(self.starts), 1, 1, 1)  # (restarts · B, C, H, W)
        seen = self.gan.discriminator.look(wanted)
        codes = self.starts.repeat_interleave(len(images), 0)  # (restarts · B, latent)
        with torch.enable_grad():
            codes.requires_grad_(True)
            optimizer = torch.optim.Adam([codes], self.search_rate)
            for _ in range(self.steps):
                losses, _ = self.compare(codes, wanted, seen)
                # Each code has a loss of its own, and Adam treats every number apart: a sum keeps them apart.
                (codes.grad,) = torch.autograd.grad(losses.sum(), codes)
                optimizer.step()
                with torch.no_grad():
                    codes.clamp_(-1, 1)
        return codes.detach()

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): the loss where the best search ended; `map` (B, H, W): its residual, mean over channels."""
        if len(images) * len(self.starts) == 1:
            # A single row is multiplied by other code than several, and the search makes a per cent of the last digits.
            twice = self(images.repeat(2, 1, 1, 1))
            return Scores(twice.image[:1], twice.map[:1])
        wanted = (images * 2 - 1).repeat(len(self.starts), 1, 1, 1)  # (restarts · B, C, H, W)
        with torch.no_grad():
            codes = self.search(images * 2 - 1)
            losses, residuals = self.compare(codes, wanted, self.gan.discriminator.look(wanted))
        losses, best = losses.view(-1, len(images)).min(0)  # (B,)
        maps = residuals.mean(1).view(len(self.starts), *images[:, 0].shape)  # (restarts, B, H, W)
        return Scores(losses, maps[best, torch.arange(len(images), device=images.device)])
