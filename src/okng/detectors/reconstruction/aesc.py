"""Autoencoder with skip connections, trained on images corrupted with stains (AESc)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.datasets.corruptions import corrupt
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError

SLOPE = 0.3  # of the leaky rectifier below zero
RATES = 5  # the learning rate is halved between as many parts of the epochs


class AESc(Detector):
    """What a network that has learnt to wipe stains off OK images changes, or is unsure of, is odd.

    Collin, De Vleeschouwer, "Improved Anomaly Detection by Training an Autoencoder with Skip Connections on
    Images Corrupted with Stain-shaped Noise", ICPR 2020 (arXiv 2008.12977).

    `image_size` (h, w) and `channels` (1 or 3) of the input. `skips`: whether each level of the encoder is
    added to the decoder's of the same size, which gives sharp images (AESc), or not (AE). `corruption` of the
    training images, "none", "gaussian", "scratch", "drops" or "stain"; the network restores the image from it.
    With skip connections and "none" it learns to copy. `score`: "residual", how far the restored image is from
    the given one, for defects that stand out from their surroundings; "uncertainty", the variance of the
    restored image over `samples` passes with dropout, for those that do not. `dropout`: its rates from the
    finest level to the coarsest, at scoring only. `width`: channels of the first level; they double from level
    to level. `epochs`, `batch_size`, `learning_rate`: of Adam; the rate is halved after each fifth of the
    epochs. `training_steps`: after how many batches training ends, in place of `epochs`; the rate is halved
    after each fifth of them. For thousands of 28 × 28 images `epochs=20, batch_size=64, learning_rate=2e-3`,
    for 200 of 64 × 64 `epochs=100, learning_rate=2e-3` take about two minutes of one core.

    Deliberately otherwise: levels down to a shorter side of at most 4, six at 256 px; with fewer, `dropout`
    counts from the coarsest, with more the finest have none. The rate falls at fixed epochs, where the authors
    halve it when a validation set's PSNR stands still, and Adam begins anew then. That set is a fifth of the OK
    images, and the authors keep the epoch that is best on it; here all are learnt, and the last epoch stays. An
    epoch is one pass; the authors' is 125 batches whatever the set, so that theirs are 31,250 steps. The
    dropout's draws are made once and stored, the same for all images and passes, by the paper's rates; the
    authors' code drops 0.4 and 0.5 of the two coarsest levels. Restored images are not rounded to bytes. Stains
    lie on a closed spline, without a kink where it ends, and drops are scattered by two radii, for they fell on
    one another.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        skips: bool = True,
        corruption: Literal["none", "gaussian", "scratch", "drops", "stain"] = "stain",
        score: Literal["residual", "uncertainty"] = "residual",
        samples: int = 30,
        dropout: tuple[float, ...] = (0.0, 0.0, 0.1, 0.2, 0.3, 0.4),
        width: int = 16,
        epochs: int = 250,
        batch_size: int = 16,
        learning_rate: float = 0.01,
        training_steps: int | None = None,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, width=width, epochs=epochs, batch_size=batch_size, training_steps=training_steps)
        at_least(2, samples=samples)  # for there is no variance of fewer
        positive(learning_rate=learning_rate)
        if not dropout or not all(0 <= rate < 1 for rate in dropout):
            raise OkngError(f"dropout is rates of 0 or more and below 1, such as 0,0,0.1,0.2, not {dropout}")
        self.skips, self.corruption, self.score, self.samples = skips, corruption, score, samples
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.training_steps = training_steps
        shapes: list[tuple[int, int, int]] = []  # of the levels: (channels, h, w)
        h, w = image_size
        while min(h, w) > 4:
            h, w = (h + 1) // 2, (w + 1) // 2
            shapes.append((width * 2 ** len(shapes), h, w))
        wide = [channel for channel, _, _ in shapes]
        levels = len(shapes)
        self.encoder = nn.ModuleList(
            block(inner, outer, stride=2) for inner, outer in zip([channels, *wide], wide, strict=False)
        )
        self.decoder = nn.ModuleList(block(wide[level + 1], wide[level], stride=1) for level in range(levels - 1))
        self.last = nn.Sequential(nn.Conv2d(wide[0], channels, 5, padding=2), nn.Sigmoid())
        self.rates = ((0.0,) * levels + dropout)[-levels:]
        if score == "uncertainty":
            draws = torch.Generator().manual_seed(0)
            for level, (rate, shape) in enumerate(zip(self.rates, shapes, strict=True)):
                for half in ("encoder", "decoder") if level < levels - 1 else ("encoder",):
                    kept = torch.rand(samples, *shape, generator=draws) >= rate  # (samples, C_l, h_l, w_l)
                    self.register_buffer(f"kept_{half}_{level}", kept if rate > 0 else None)

    def phases(self) -> Iterator[Phase]:
        """Learn to restore OK images from their corruption, at a learning rate that halves four times."""
        length = self.epochs if self.training_steps is None else self.training_steps
        ends = [-(-length * part // RATES) for part in range(RATES + 1)]
        for part in range(RATES):
            rate, count = self.learning_rate / 2**part, ends[part + 1] - ends[part]
            if count:
                updates = [Update(self.loss, torch.optim.Adam(self.parameters(), rate))]
                steps = None if self.training_steps is None else count
                yield Train(f"restoring, rate {rate:g}", updates, count, [self], self.batch_size, steps=steps)

    def loss(self, batch: Batch) -> Tensor:
        """The mean squared error of the images restored from their corruption."""
        return F.mse_loss(self.restore(self.corrupted(batch.images)), batch.images)

    def corrupted(self, images: Tensor) -> Tensor:
        """The images (B, C, H, W) as the network is given them in training."""
        seeds = torch.randint(2**62, (len(images),)).tolist()
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, C)
        return torch.from_numpy(corrupt(pixels, self.corruption, seeds)).permute(0, 3, 1, 2).to(images)

    def restore(self, images: Tensor, sample: int | None = None) -> Tensor:
        """The images (B, C, H, W) as the network thinks them to be OK; with `sample`, under that draw of dropout."""
        levels, features = [], images
        for level, down in enumerate(self.encoder):
            features = self.dropped(down(features), f"encoder_{level}", sample)  # (B, C_l, h_l, w_l)
            levels.append(features)
        for level in reversed(range(len(self.decoder))):
            larger = F.interpolate(features, size=levels[level].shape[2:])  # (B, C_(l+1), h_l, w_l)
            features = self.dropped(self.decoder[level](larger), f"decoder_{level}", sample)  # (B, C_l, h_l, w_l)
            if self.skips:
                features = features + levels[level]
        restored: Tensor = self.last(F.interpolate(features, size=images.shape[2:]))  # (B, C, H, W)
        return restored

    def dropped(self, features: Tensor, place: str, sample: int | None) -> Tensor:
        """`features` (B, C_l, h_l, w_l) with some set to 0 and the others enlarged accordingly."""
        kept: Tensor | None = None if sample is None else getattr(self, f"kept_{place}")
        if kept is None:
            return features
        return features * kept[sample] / (1 - self.rates[int(place.rpartition("_")[2])])

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W), residuals summed over channels or variances averaged; `image` (B,) its quadratic mean."""
        anomaly = self.residual(images) if self.score == "residual" else self.uncertainty(images)  # (B, H, W)
        return Scores(anomaly.square().mean((1, 2)).sqrt(), anomaly)

    def residual(self, images: Tensor) -> Tensor:
        """How far the restored images are from the given ones, (B, H, W)."""
        return (self.restore(images) - images).abs().sum(1)

    def uncertainty(self, images: Tensor) -> Tensor:
        """The variance of the restored images over the draws of dropout, (B, H, W)."""
        mean, squares = torch.zeros_like(images), torch.zeros_like(images)  # (B, C, H, W)
        for sample in range(self.samples):
            step = self.restore(images, sample) - mean
            mean = mean + step / (sample + 1)
            squares = squares + step.square() * (sample / (sample + 1))  # summed, around the mean so far
        return (squares / self.samples).mean(1)  # (B, H, W)


def block(inner: int, outer: int, stride: int) -> nn.Sequential:
    """A 5 × 5 layer with batch normalisation and a leaky rectifier."""
    layer = nn.Conv2d(inner, outer, 5, stride, padding=2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outer), nn.LeakyReLU(SLOPE))
