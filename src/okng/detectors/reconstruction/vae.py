"""Variational autoencoder, scored by reconstruction error, evidence bound or reconstruction probability."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.networks.gaussian import divergence, sample, surprise
from okng.nn.networks.sspcab import prediction_of, with_block
from okng.nn.networks.strided import strided_coders


class VAE(Detector):
    """An autoencoder whose codes fill a Gaussian; odd is what they copy badly, or what is improbable under the copies.

    Kingma, Welling, "Auto-Encoding Variational Bayes", ICLR 2014; An, Cho, "Variational Autoencoder based Anomaly
    Detection using Reconstruction Probability", SNU Data Mining Center technical report 2015.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `score`: "probability", An and Cho's: the expected
    surprise -log p(x|z) over codes drawn from q(z|x); "elbo", the same plus the divergence of q(z|x) from the prior;
    "reconstruction", the squared error of the copy from the mean code. `samples`: how many codes the first two draw.
    `variance`: of p(x|z), "pixel" one that the decoder gives for every pixel of every copy, as in the report, "global"
    one number for all pixels of all images. `smallest_deviation`: no variance is below its square; without it the
    variance of pixels that are always alike goes to 0 and any change there is infinitely odd. `code`: latent
    dimensions. `width`: channels after the first layer, doubled as the sides halve. `epochs`, `batch_size`,
    `learning_rate`: of Adam. `sspcab`: whether a block before the code predicts features from those around them, with a
    loss of its own (SSPCAB; Ristea et al., CVPR 2022). For thousands of 28 × 28 images
    `code=16, width=16, epochs=40, batch_size=64, learning_rate=2e-3` take about a minute.

    The defaults come from held-out OK images against nine ways of spoiling them (pieces pasted or erased, turned,
    mixed, dimmed, blurred): the probability with a variance per pixel ranks these best on average, 0.88 on two digits
    where the error with a global variance has 0.86, because it sees dimmed and blurred images. What is missing or in
    the wrong place is found better the other way, by 0.95 to 0.87 for pasted and erased pieces: for shapes take
    `variance="global", score="reconstruction"`, whose copies are sharper.

    Deliberately otherwise: a convolutional network, the one of `autoencoder`; the global variance is the mean squared
    error itself, its best value: the batch's in training, that of all OK images for scoring. The same draws serve
    every image, so a score is the same every time. The report averages probabilities on one page and log-probabilities
    on another: here it is the logarithms, as in the bound.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        score: Literal["reconstruction", "elbo", "probability"] = "probability",
        samples: int = 16,
        variance: Literal["pixel", "global"] = "pixel",
        smallest_deviation: float = 0.05,
        code: int = 32,
        width: int = 32,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        sspcab: bool = False,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, samples=samples, code=code, width=width, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        if not 0 < smallest_deviation < 1:
            raise OkngError(f"smallest_deviation is above 0 and below 1, such as 0.05, not {smallest_deviation}")
        self.score, self.variance, self.floor = score, variance, smallest_deviation**2
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        per_value = 2 if variance == "pixel" else 1
        encoder, self.decoder = strided_coders(image_size, channels, code, width, 2, per_value)
        self.encoder = with_block(encoder, 2) if sspcab else encoder
        self.global_variance: Tensor
        self.register_buffer("global_variance", torch.ones(()))  # of p(x|z), where it is one number
        self.draws: Tensor
        draws = torch.randn(samples, code, generator=torch.Generator().manual_seed(0))
        self.register_buffer("draws", draws)  # (samples, code), kept with the model

    def phases(self) -> Iterator[Phase]:
        """Raise the evidence lower bound of OK images; then note the variance that they have around their copies."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate))
        yield Train("vae", [update], self.epochs, trains=[self], batch_size=self.batch_size)
        if self.variance == "global":
            errors: list[Tensor] = []

            def visit(batch: Batch) -> None:
                copies, _ = self.decode(sample(*self.encode(batch.images)))
                errors.append((batch.images - copies).square().mean((1, 2, 3)))

            def finish() -> None:
                self.global_variance.copy_(torch.cat(errors).mean().clamp_min(self.floor))

            yield Collect("variance", visit, finish)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (B, code)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return mean, log_variance

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean in [0, 1] of p(x|z) (B, C, H, W) and its log-variance, of the same shape or one number."""
        if self.variance == "global":
            return self.decoder(codes).sigmoid(), self.global_variance.log()
        mean, log_variance = self.decoder(codes).chunk(2, 1)
        return mean.sigmoid(), log_variance.clamp_min(math.log(self.floor))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative evidence lower bound with one draw, in nats per value of an image."""
        mean, log_variance = self.encode(batch.images)
        copies, log_spread = self.decode(sample(mean, log_variance))
        if self.variance == "global":
            log_spread = (batch.images - copies).square().mean().clamp_min(self.floor).log()  # its best value
        return {
            "surprise": surprise(batch.images, copies, log_spread).mean(),
            "divergence": divergence(mean, log_variance).mean() / batch.images[0].numel(),
            **prediction_of(self.encoder, batch.images),
        }

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W) the squared error or the surprise in nats, means over channels; `image` (B,) over all."""
        mean, log_variance = self.encode(images)
        if self.score == "reconstruction":
            copies, _ = self.decode(mean)
            errors = (images - copies).square().mean(1)  # (B, H, W)
            return Scores(errors.mean((1, 2)), errors)
        deviation = (0.5 * log_variance).exp()
        nats = torch.stack([surprise(images, *self.decode(mean + deviation * draw)) for draw in self.draws])
        expected = nats.mean((0, 2))  # of (samples, B, C, H, W): (B, H, W)
        image = expected.mean((1, 2))
        if self.score == "elbo":
            image = image + divergence(mean, log_variance) / images[0].numel()
        return Scores(image, expected)
