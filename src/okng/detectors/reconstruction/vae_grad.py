"""Projection onto what a variational autoencoder knows, by gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.networks.gaussian import divergence, sample, surprise
from okng.nn.networks.strided import strided_coders

FASTER = 30  # times the weights' learning rate is the variance's
MOST = 8.0  # of a code's log-variance: 55 deviations of the prior


class VAEGrad(Detector):
    """An image is moved step by step to where a variational autoencoder finds it likely; what had to move is odd.

    Dehaene, Frigo, Combrexelle, Eline, "Iterative Energy-based Projection on a Normal Data Manifold for Anomaly
    Localization", ICLR 2020. The decoder's variance is one number that is learnt (γ-VAE: Dai, Wipf, "Diagnosing and
    Enhancing VAE Models", ICLR 2019), so that the copies count for more, the better they become.

    A copy through a code is blurred, so that its residual marks edges that are OK. Here the image itself x, from x₀ on,
    descends the energy ‖x - f(x)‖² + 2γ² KL(x) + `tie` ‖x - x₀‖₁, where f is the copy of x from its mean code, γ² the
    decoder's variance and KL the divergence of the code's distribution from the prior: 2γ² times the negative evidence
    bound, and a tie to the image as it was. Each value's step is multiplied by its squared residual, so that what is
    copied well stays as it is.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `score`: "projection", as above; "gradient", the plain
    baseline, by how much the energy would change with each value of x₀, the gradient's square; "residual", the squared
    error of the copy of x₀, which alone can be exported. `prior`: whether the divergence is part of the energy.
    `masked`: whether steps are multiplied by squared residuals. `steps`, `step_size`: how many and how long. `tie`:
    of the distance to the image as it was; without it what is left is the copy with its blur. `code`: latent
    dimensions. `width`: channels after the first layer, doubled as the sides halve. `smallest_deviation`: the
    decoder's variance is never below its square. `epochs`, `batch_size`, `learning_rate`: of Adam. For thousands of
    28 × 28 images `code=16, width=16, steps=50, epochs=30, learning_rate=1e-3` take a few minutes.

    Deliberately otherwise: the network is that of `vae`, without normalisation; a public implementation's layers are
    six of stride 2 with batch normalisation. Its size, epochs, batches and rates are those here, as the paper's could
    not be checked, nor could `code`, `step_size` and `tie`, which are remembered of it. The decoder's variance learns
    30 times as fast as the weights: a step of Adam is as long as its rate, the variance's logarithm has some 6 to fall,
    and while it is large, codes are not worth what they cost. The energy is in squares of brightness rather than in
    nats, so that one step size serves whatever variance was learnt. The gradient passes the network, and the prior is
    in it; that implementation holds the copies fixed and has a plain autoencoder. What leaves [0, 1] in a step is set
    back to the border: images unlike all that was learnt, such as black ones, would run away. The codes' log-variance
    ends at 8: an image unlike the others can lead it far above, and one such step would undo all that was learnt.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        score: Literal["projection", "gradient", "residual"] = "projection",
        prior: bool = True,
        masked: bool = True,
        steps: int = 100,
        step_size: float = 0.5,
        tie: float = 0.05,
        code: int = 100,
        width: int = 16,
        smallest_deviation: float = 0.01,
        epochs: int = 250,
        batch_size: int = 64,
        learning_rate: float = 5e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, width=width, epochs=epochs, batch_size=batch_size)
        at_least(0, steps=steps, tie=tie)
        positive(step_size=step_size, learning_rate=learning_rate)
        if not 0 < smallest_deviation < 1:
            raise OkngError(f"smallest_deviation is above 0 and below 1, such as 0.01, not {smallest_deviation}")
        self.score, self.prior, self.masked = score, prior, masked
        self.steps, self.step_size, self.tie = steps, step_size, tie
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.least = 2 * math.log(smallest_deviation)
        self.exportable = score == "residual"  # type: ignore[misc]  # the others take gradients
        self.encoder, decoder = strided_coders(image_size, channels, code, width, per_code=2)
        self.decoder = nn.Sequential(*decoder, nn.Sigmoid())
        self.log_variance = nn.Parameter(torch.zeros(()))  # log γ², of p(x|z)

    def phases(self) -> Iterator[Phase]:
        """Raise the evidence lower bound of OK images; the projection trains nothing."""
        groups: list[dict[str, Any]] = [
            {"params": [*self.encoder.parameters(), *self.decoder.parameters()]},
            {"params": [self.log_variance], "lr": FASTER * self.learning_rate},
        ]
        update = Update(self.loss, torch.optim.Adam(groups, self.learning_rate, (0.5, 0.999)))
        yield Train("vae", [update], self.epochs, trains=[self], batch_size=self.batch_size)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (B, code)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return mean, log_variance.clamp_max(MOST)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative evidence lower bound with one draw, in nats per value of an image."""
        mean, log_variance = self.encode(batch.images)
        copies = self.decoder(sample(mean, log_variance))  # (B, C, H, W)
        return {
            "surprise": surprise(batch.images, copies, self.log_variance.clamp_min(self.least)).mean(),
            "divergence": divergence(mean, log_variance).mean() / batch.images[0].numel(),
        }

    def energy(self, images: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Of each of `images` that were `before`, (B,), and the residuals of their copies (B, C, H, W)."""
        mean, log_variance = self.encode(images)
        residuals = images - self.decoder(mean)  # (B, C, H, W)
        energy = residuals.square().flatten(1).sum(1) + self.tie * (images - before).abs().flatten(1).sum(1)
        if self.prior:
            variance = self.log_variance.clamp_min(self.least).exp()
            energy = energy + 2 * variance * divergence(mean, log_variance)
        return energy, residuals

    def gradient(self, images: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The energy's gradient at `images`, and their residuals, each (B, C, H, W)."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            energy, residuals = self.energy(images, before)
            # Each image has an energy of its own: a sum keeps them apart.
            (gradient,) = torch.autograd.grad(energy.sum(), images)
        return gradient, residuals.detach()

    def project(self, images: Tensor) -> Tensor:
        """Where `images` (B, C, H, W) end."""
        moved = images
        for _ in range(self.steps):
            gradient, residuals = self.gradient(moved, images)
            step = gradient * residuals.square() if self.masked else gradient
            moved = (moved - self.step_size * step).clamp(0, 1)
        return moved

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W) squares, of the way moved or as `score` says, means over channels; `image` (B,) over all."""
        if self.score == "projection":
            apart = self.project(images) - images
        elif self.score == "gradient":
            apart, _ = self.gradient(images, images)
        else:
            apart = images - self.decoder(self.encode(images)[0])
        odd = apart.square().mean(1)  # (B, H, W)
        return Scores(odd.mean((1, 2)), odd)
