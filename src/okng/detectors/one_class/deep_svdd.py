"""Deep SVDD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive, typed
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.images.contrast import UnitRange, contrast_normalised

SLOPE, EPSILON = 0.01, 1e-4  # of the leaky rectifiers below zero; in the batch normalisation's variance
GRID = 4  # the side on which the decoder begins
AWAY = 0.1  # the least distance of each of the centre's coordinates from 0
DROP, PRETRAINING_DROP = 1 / 3, 5 / 7  # of the steps, after which the rate is a tenth
WARM_UP = 1 / 15  # of the epochs, before the radius is learnt


class DeepSVDD(Detector):
    """A network maps OK images close to a fixed centre; what it maps far from there is odd.

    Ruff, Vandermeulen, Görnitz, Deecke, Siddiqui, Binder, Müller, Kloft, "Deep One-Class Classification", ICML 2018.
    An autoencoder is trained first; its encoder's mean code of OK images is the centre, for ever. So that the network
    can't map everything there without a look at the image, no layer has a bias or an affine normalisation, and no
    coordinate of the centre is nearer to 0 than 0.1. The score is the squared distance from the centre.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `objective`: "one-class", the mean distance of all images;
    "soft-boundary", a sphere and the images outside it, about the share `nu` of them, in (0, 1). `widths`: channels of
    the 5×5 layers, each of which halves the sides. `code`: how many numbers an image is mapped to, a multiple of 16.
    `pretraining_epochs`, `pretraining_rate`: of the autoencoder. `epochs`, `batch_size`,
    `learning_rate`: of Adam, whose rate falls to a tenth after a third of the steps, the autoencoder's after five
    sevenths. `weight_decay`: of both. The defaults are the authors' for CIFAR-10; their network for MNIST is
    `widths=8,4`, `code=32`.

    Images are first made less their mean and divided by their mean absolute deviation, each by itself, and brought into
    the range of all OK images.

    Deliberately otherwise: the decoder's first grid is enlarged to the encoder's last one at once, whatever its size,
    and its code is not normalised. Convolutions begin by Xavier's rule, as the authors' for CIFAR-10, and not theirs
    for MNIST. With a soft boundary Adam begins anew after the warm-up, in which the loss is the distance alone; in the
    end the radius is learnt once more, of all images. The score is the squared distance there, too, without the radius,
    which orders images alike: the threshold that okng calibrates is its own.
    """

    fixed_size = True
    centre: Tensor
    radius: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        objective: Literal["one-class", "soft-boundary"] = "one-class",
        nu: float = 0.1,
        widths: tuple[int, ...] = (32, 64, 128),
        code: int = 128,
        pretraining_epochs: int = 350,
        epochs: int = 150,
        batch_size: int = 200,
        pretraining_rate: float = 1e-4,
        learning_rate: float = 1e-4,
        weight_decay: float = 5e-7,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, pretraining_epochs=pretraining_epochs, epochs=epochs, batch_size=batch_size)
        at_least(0, weight_decay=weight_decay)
        positive(pretraining_rate=pretraining_rate, learning_rate=learning_rate)
        if not 0 < nu < 1:
            raise OkngError(f"nu is a share of the OK images, above 0 and below 1, not {nu}")
        if code % GRID**2:
            raise OkngError(f"code is a multiple of {GRID**2}, not {code}")
        if not widths or min(widths) < 1 or min(image_size) < 2 ** len(widths):
            raise OkngError(f"widths are channels, 1 or more, of layers that each halve the image, not {typed(widths)}")
        self.objective, self.nu, self.batch_size, self.weight_decay = objective, nu, batch_size, weight_decay
        self.pretraining_epochs, self.epochs = pretraining_epochs, epochs
        self.pretraining_rate, self.learning_rate = pretraining_rate, learning_rate
        self.encoder, self.decoder = coders(image_size, channels, widths, code)
        self.range = UnitRange()
        self.register_buffer("centre", torch.full((code,), AWAY))  # (d,)
        self.register_buffer("radius", torch.zeros(()))

    def phases(self) -> Iterator[Phase]:
        """The range of the images, the autoencoder, the centre, and then towards it."""
        extremes: list[Tensor] = []

        def visit(batch: Batch) -> None:
            extremes.append(torch.stack(contrast_normalised(batch.images).aminmax()))  # (2,)

        yield Collect("range", visit, lambda: self.range.learn(torch.stack(extremes), torch.stack(extremes)))
        yield from self.learning()

    def learning(self) -> Iterator[Phase]:
        """The autoencoder, the centre, and then towards it; at last the radius of a soft boundary."""
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        adam = torch.optim.Adam(both, self.pretraining_rate, weight_decay=self.weight_decay)
        update = Update(self.copying, adam, schedule=falling(PRETRAINING_DROP))
        yield Train("autoencoder", [update], self.pretraining_epochs, [self.encoder, self.decoder], self.batch_size)
        yield self.gathering("centre", self.codes, lambda codes: setattr(self, "centre", away_from_0(codes.mean(0))))
        if self.objective == "one-class":
            yield self.towards_the_centre("one-class", self.loss, self.epochs, DROP)
            return
        warm = max(1, round(WARM_UP * self.epochs))
        left = max(1, self.epochs - warm)
        yield self.towards_the_centre("warm-up", self.loss, warm, 1)
        yield self.towards_the_centre("soft boundary", self.soft_loss, left, (DROP * self.epochs - warm) / left)
        yield self.gathering("radius", self.distances, self.learn_radius)

    def towards_the_centre(self, name: str, loss: Callable[[Batch], Tensor], epochs: int, drop: float) -> Train:
        """Epochs of a loss, the encoder's alone."""
        adam = torch.optim.Adam(self.encoder.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        return Train(name, [Update(loss, adam, schedule=falling(drop))], epochs, [self.encoder], self.batch_size)

    @staticmethod
    def gathering(name: str, what: Callable[[Tensor], Tensor], conclude: Callable[[Tensor], None]) -> Collect:
        """One pass that gathers `what` of all images, (N, ...)."""
        seen: list[Tensor] = []
        return Collect(name, lambda batch: seen.append(what(batch.images)), lambda: conclude(torch.cat(seen)))

    def copying(self, batch: Batch) -> Tensor:
        """The squared error of the copies, summed over all values of an image."""
        images = self.normalised(batch.images)  # (B, C, H, W)
        copies: Tensor = self.decoder(self.encoder(images))
        return (copies - images).square().flatten(1).sum(1).mean()

    def loss(self, batch: Batch) -> Tensor:
        """The mean squared distance from the centre (equation 4)."""
        return self.distances(batch.images).mean()

    def soft_loss(self, batch: Batch) -> Tensor:
        """R² and what lies beyond it, over nu (equation 3); then the radius that the batch asks for."""
        distances = self.distances(batch.images)  # (B,)
        loss = self.radius.square() + F.relu(distances - self.radius.square()).mean() / self.nu
        self.learn_radius(distances.detach())
        return loss

    def learn_radius(self, distances: Tensor) -> None:
        """R beyond which the share nu of the squared `distances` (N,) lies."""
        self.radius = distances.float().sqrt().quantile(1 - self.nu)

    def normalised(self, images: Tensor) -> Tensor:
        """`images` (B, C, H, W) as the network sees them."""
        scaled: Tensor = self.range(contrast_normalised(images))
        return scaled

    def codes(self, images: Tensor) -> Tensor:
        """What `images` (B, C, H, W) are mapped to, (B, d)."""
        codes: Tensor = self.encoder(self.normalised(images))
        return codes

    def distances(self, images: Tensor) -> Tensor:
        """The squared distances (B,) of `images` (B, C, H, W) from the centre."""
        return (self.codes(images) - self.centre).square().sum(1)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,), the squared distance from the centre; no map."""
        return Scores(self.distances(images))


def coders(
    image_size: tuple[int, int], channels: int, widths: tuple[int, ...], code: int
) -> tuple[nn.Sequential, nn.Sequential]:
    """An encoder (B, C, H, W) → (B, code), and its mirror (B, code) → (B, C, H, W) that ends in [0, 1]; no biases."""
    (h, w), down, inner, grids = image_size, [], channels, [image_size]
    for width in widths:
        down += [nn.Conv2d(inner, width, 5, padding=2, bias=False), *normalising(width), nn.MaxPool2d(2)]
        h, w, inner = h // 2, w // 2, width
        grids.append((h, w))
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(inner * h * w, code, bias=False))
    inner = code // GRID**2
    up: list[nn.Module] = [nn.Unflatten(1, (inner, GRID, GRID)), nn.LeakyReLU(SLOPE), nn.Upsample(grids.pop())]
    for width in reversed(widths):
        up += [nn.ConvTranspose2d(inner, width, 5, padding=2, bias=False), *normalising(width)]
        up += [nn.Upsample(grids.pop())]
        inner = width
    decoder = nn.Sequential(*up, nn.ConvTranspose2d(inner, channels, 5, padding=2, bias=False), nn.Sigmoid())
    for layer in (*encoder, *decoder):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain("leaky_relu", SLOPE))
    return encoder, decoder


def normalising(width: int) -> tuple[nn.Module, nn.Module]:
    """A batch normalisation without weights of its own, and a leaky rectifier."""
    return nn.BatchNorm2d(width, EPSILON, affine=False), nn.LeakyReLU(SLOPE)


def away_from_0(centre: Tensor) -> Tensor:
    """`centre` (d,) with coordinates nearer to 0 than 0.1 moved there, on their own side: weights of 0 reach 0."""
    nearest = torch.where(centre < 0, -AWAY, AWAY).to(centre)
    return torch.where(centre.abs() < AWAY, nearest, centre)


def falling(drop: float) -> Callable[[float], float]:
    """The learning rate's factor: a tenth once the share `drop` of the steps is done."""
    return lambda share: 0.1 if share >= drop else 1.0
