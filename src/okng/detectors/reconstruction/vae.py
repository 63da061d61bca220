"""Variational autoencoder, scored by its reconstruction error, its evidence bound or its reconstruction probability."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.strided import strided_coders


class VAE(Detector):
    """TODO `image_size` `channels` `score` `samples` `code` `width` `smallest_deviation` `epochs` `batch_size` `learning_rate`"""

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        score: Literal["reconstruction", "elbo", "probability"] = "reconstruction",
        samples: int = 16,
        code: int = 32,
        width: int = 32,
        smallest_deviation: float = 0.05,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        self.score = score
        self.floor = 2 * math.log(smallest_deviation)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.encoder, self.decoder = strided_coders(image_size, channels, code, width, statistics=2)
        draws = torch.randn(samples, code, generator=torch.Generator().manual_seed(0))
        self.draws: Tensor
        self.register_buffer("draws", draws)  # (L, code), kept with the model: the same for every image

    def phases(self) -> Iterator[Phase]:
        """Raise the evidence lower bound of OK images."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate))
        yield Train("vae", [update], self.epochs, trains=[self], batch_size=self.batch_size)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (B, code)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return mean, log_variance

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean in [0, 1] and log-variance of p(x|z), each (B, C, H, W); deviations are not below the smallest."""
        mean, log_variance = self.decoder(codes).chunk(2, 1)
        return mean.sigmoid(), log_variance.clamp_min(self.floor)

    def surprise(self, images: Tensor, codes: Tensor) -> Tensor:
        """-log p(x|z) in nats of every pixel, the sum over channels: (B, H, W)."""
        mean, log_variance = self.decode(codes)
        nats = 0.5 * ((images - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi))
        return nats.sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative evidence lower bound by one sample, in nats per value of the image."""
        mean, log_variance = self.encode(batch.images)
        codes = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)  # (B, code)
        values = batch.images[0].numel()
        surprise = self.surprise(batch.images, codes).sum((1, 2)).mean() / values
        return {"surprise": surprise, "divergence": divergence(mean, log_variance).mean() / values}

    def forward(self, images: Tensor) -> Scores:
        mean, log_variance = self.encode(images)
        if self.score == "reconstruction":
            copies, _ = self.decode(mean)
            errors = (images - copies).square().mean(1)  # (B, H, W)
            return Scores(errors.mean((1, 2)), errors)
        deviation = (0.5 * log_variance).exp()
        maps = [self.surprise(images, mean + deviation * draw) for draw in self.draws]
        map_ = torch.stack(maps).mean(0)  # (B, H, W)
        image = map_.sum((1, 2))
        return Scores(image + divergence(mean, log_variance) if self.score == "elbo" else image, map_)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, I), in nats: (B, code) → (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
