"""Attention of a variational autoencoder (ADVAE)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.networks.gaussian import divergence, sample

COARSEST = 8  # the shorter side is halved until it is at most this
WIDEST = 8  # channels grow to this many times `width`


class ADVAE(Detector):
    """A variational autoencoder shows which places its latent variables come from; on odd images they are odd places.

    Liu, Li, Zheng, Karanam, Wu, Bhanu, Radke, Camps, "Towards Visually Explaining Variational Autoencoders", CVPR 2020
    (arXiv 1911.07389), its detector of anomalies. Tables call it ADVAE, though that is the paper's name of its other
    part, an autoencoder whose attention is disentangled: that loss is another paper's and is left out.

    Each latent mean has a map, Grad-CAM over the encoder's last features: channels are weighed by the mean gradient of
    the latent mean over all places, their sum is rectified. The map of the image is the mean of those of all latent
    variables.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `width`: channels of the encoder's first layer; they
    double as the sides halve, up to eight times. `hidden`: units of the layer between features and `latent`, how many
    latent variables there are. `epochs`, `batch_size`, `learning_rate`: of Adam. A fifth of the images is held back and
    the epoch where their loss was lowest stays. For thousands of 28 × 28 images `width=16, hidden=256, epochs=20`
    take about a minute.

    Deliberately otherwise: sides are halved until the shorter is 8 or less, which gives the authors' two layers for 28
    px; the paper's network for photographs, a ResNet-18, could not be checked. The paper's score of an anomaly is a sum
    over a draw of the difference between the latent variables of the image and of OK images; the gradient of its
    expectation is that of the latent means, which is taken, as in the authors' code, so that a map is the same every
    time. That code takes the absolute value of one map of all latent means, its gradients scaled by the batch's, and
    each map's range to [0, 1]; here it is the paper's rectified maps, unscaled, so that images compare. Features are
    those behind the rectifier, there those before it. The gradient passes two linear layers with a rectifier between
    and is written out, exactly, so that scoring needs none. The paper scores no image: here it is its loss with the
    mean code, per value.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        width: int = 64,
        hidden: int = 1024,
        latent: int = 32,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, width=width, hidden=hidden, latent=latent, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        sides = [image_size]
        while min(sides[-1]) > COARSEST:
            sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
        widths = [channels, *(width * min(2**i, WIDEST) for i in range(len(sides) - 1))]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for (inner, outer), (h, w) in zip(pairwise(widths), sides, strict=False):
            back = nn.ConvTranspose2d(outer, inner, 4, 2, 1, output_padding=(h % 2, w % 2))  # what halving dropped
            down += [nn.Conv2d(inner, outer, 4, 2, 1), nn.ReLU()]
            up = [back, *([nn.ReLU(), *up] if up else [])]
        self.grid = (widths[-1], *sides[-1])
        values = widths[-1] * sides[-1][0] * sides[-1][1]
        self.features, self.hidden = nn.Sequential(*down), nn.Linear(values, hidden)
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        expand = [nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, values), nn.ReLU()]
        self.decoder = nn.Sequential(*expand, nn.Unflatten(1, self.grid), *up)  # it gives the copies' logits

    def phases(self) -> Iterator[Phase]:
        """Raise the evidence lower bound of OK images."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate))
        yield Train("advae", [update], self.epochs, [self], self.batch_size, validate=self.validation)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C', h, w), 0 or more, and what the hidden layer makes of them, (B, hidden)."""
        features = self.features(images)
        return features, self.hidden(features.flatten(1)).relu()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative evidence lower bound with one draw, in nats per image: cross-entropy and divergence."""
        _, hidden = self.encode(batch.images)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)  # (B, latent) each
        surprise = surprises(self.decoder(sample(mean, log_variance)), batch.images)  # (B, C, H, W)
        return {
            "surprise": surprise.flatten(1).sum(1).mean(),
            "divergence": divergence(mean, log_variance).mean(),
        }

    def validation(self, batch: Batch) -> Tensor:
        """All of the loss, in one number."""
        return torch.stack([*self.loss(batch).values()]).sum()

    def attention(self, features: Tensor, hidden: Tensor) -> Tensor:
        """The map (B, h, w), 0 or more: the mean of the rectified Grad-CAM of each latent mean.

        Of `features` (B, C', h, w) and `hidden` (B, hidden). The gradient of a latent mean by the features is its row
        of weights, of the hidden units that are awake, through the weights of those.
        """
        through = self.hidden.weight.unflatten(1, self.grid).mean((2, 3))  # (hidden, C'): over all places
        awake = (hidden > 0).to(features)  # (B, hidden)
        weights = (self.mean.weight * awake[:, None]) @ through  # (B, latent, C')
        maps = (weights @ features.flatten(2)).relu()  # (B, latent, h w)
        attention: Tensor = maps.mean(1).unflatten(1, self.grid[1:])
        return attention

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the loss with the mean code, in nats per value; `map` (B, h, w) the attention, on its grid."""
        features, hidden = self.encode(images)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)  # (B, latent) each
        surprise = surprises(self.decoder(mean), images).mean((1, 2, 3))  # (B,)
        image = surprise + divergence(mean, log_variance) / images[0].numel()
        return Scores(image, self.attention(features, hidden))


def surprises(logits: Tensor, images: Tensor) -> Tensor:
    """The cross-entropy of each value of `images` in [0, 1], in nats, (B, C, H, W)."""
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none")
