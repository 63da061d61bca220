"""Latent space autoregression."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.nn.networks.sizes import halvings, pad_to_grid

ESTIMATOR_LAYERS = 4  # of the density's network, before the layer that gives the bins
SMALLEST_RANGE = 1e-3  # of either part over OK images, in nats and squared errors; less of it is rounding


class LSA(Detector):
    """An autoencoder whose codes' density a second network learns; odd is what is copied badly or has an unlikely code.

    Abati, Porrello, Calderara, Cucchiara, "Latent Space Autoregression for Novelty Detection", CVPR 2019. Its first
    version called the method AND, which is the name in tables of that time.

    A code lies in (0, 1) and is cut into bins. Its numbers are predicted one after the other: masked fully connected
    layers give for each the probabilities of its bins from the numbers before it alone. Both networks learn together,
    and the encoder learns through the density to give codes that are easy to predict. The score is the surprise of the
    code plus the squared error of the copy, each divided by the range that it has over OK images.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `code`: how many numbers an image becomes. `bins`: into
    which each of them is cut. `width`: channels of the first block; they double as the sides halve. `hidden`: of the
    layer between the features and the code, 256 in the paper for CIFAR-10. `estimator_width`: channels that the
    density's layers have for each number of the code. `surprise_weight`: of the code's surprise in nats beside the
    squared error, which is a sum over an image. `epochs`, `batch_size`, `learning_rate`: of Adam. The defaults are the
    paper's for MNIST. For thousands of 28 × 28 images `width=16, estimator_width=4, epochs=15, batch_size=64,
    learning_rate=1e-3` take a few minutes.

    Deliberately otherwise: the depth follows the size, down to a grid of 4 to 7, which gives both of the paper's
    networks (28 px are 7 · 2², 32 px are 4 · 2³; sides between are padded by repeating the border); colour images get
    the first layer and block of the paper's for CIFAR-10, padded. The decoder's last layer has a bias. Weights are
    masked whenever they are used, not set to 0 after each step. The ranges are those over all OK images that were
    learnt, the authors' those over a held-out tenth; the least of both parts, which the authors subtract first, moves
    all scores alike and is left in. The paper's layers for video, masked stacked convolutions, are left out.
    """

    fixed_size = True

    ranges: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        code: int = 64,
        bins: int = 100,
        width: int = 32,
        hidden: int = 64,
        estimator_width: int = 32,
        surprise_weight: float = 1.0,
        epochs: int = 200,
        batch_size: int = 256,
        learning_rate: float = 1e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, width=width, hidden=hidden, estimator_width=estimator_width, epochs=epochs)
        at_least(2, bins=bins, batch_size=batch_size)  # of one image alone, batch normalisation makes 0
        at_least(0, surprise_weight=surprise_weight)
        positive(learning_rate=learning_rate)
        self.surprise_weight = surprise_weight
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.times, grid = halvings(image_size)
        first: list[nn.Module] = [conv(channels, width), nn.LeakyReLU(), Block(width, width)] if channels == 3 else []
        widths = [width if first else channels, *(width * 2 ** (i + len(first) // 2) for i in range(self.times))]
        down = [Block(widths[i], widths[i + 1], stride=2) for i in range(self.times)]
        values = widths[-1] * grid[0] * grid[1]
        self.encoder = nn.Sequential(
            *first, *down, nn.Flatten(),
            nn.Linear(values, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(),
            nn.Linear(hidden, code), nn.Sigmoid(),
        )  # fmt: skip
        widths = [*(widths[-1] // 2**i for i in range(self.times)), max(1, widths[-1] // 2**self.times)]
        up = [UpBlock(widths[i], widths[i + 1]) for i in range(self.times)]
        last: list[nn.Module] = [Block(widths[-1], widths[-1])] if first else []
        self.decoder = nn.Sequential(
            nn.Linear(code, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(),
            nn.Linear(hidden, values), nn.BatchNorm1d(values), nn.LeakyReLU(),
            nn.Unflatten(1, (-1, *grid)), *up, *last, nn.Conv2d(widths[-1], channels, 1),
        )  # fmt: skip
        self.estimator = Estimator(code, estimator_width, bins)
        self.register_buffer("ranges", torch.ones(2))  # of surprise and error over OK images

    def phases(self) -> Iterator[Phase]:
        """Both networks learn together; then the ranges of the score's two parts over OK images are noted."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate))
        yield Train("lsa", [update], self.epochs, [self], self.batch_size, drop_last=True)
        seen: list[Tensor] = []

        def finish() -> None:
            parts = torch.cat(seen)  # (N, 2)
            self.ranges = (parts.amax(0) - parts.amin(0)).clamp_min(SMALLEST_RANGE)

        yield Collect("ranges", lambda batch: seen.append(self.parts(batch.images)[0]), finish)

    def encode(self, images: Tensor) -> Tensor:
        """Codes (B, code) in (0, 1)."""
        codes: Tensor = self.encoder(pad_to_grid(images, self.times))
        return codes

    def decode(self, codes: Tensor, image_size: torch.Size) -> Tensor:
        """Copies (B, C, H, W) of `codes` (B, code), of the size (H, W)."""
        copies: Tensor = self.decoder(codes)  # (B, C, grid · 2ⁿ)
        return copies[:, :, : image_size[0], : image_size[1]]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The squared error of the copies and the codes' surprise, which is no gradient's target itself."""
        codes = self.encode(batch.images)
        errors = (self.decode(codes, batch.images.shape[2:]) - batch.images).square()  # (B, C, H, W)
        return {
            "error": errors.flatten(1).sum(1).mean(),
            "surprise": self.surprise_weight * self.estimator.surprise(codes).mean(),
        }

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Surprise of the code and squared error (B, 2), and the error of each value (B, C, H, W)."""
        codes = self.encode(images)
        errors = (self.decode(codes, images.shape[2:]) - images).square()  # (B, C, H, W)
        return torch.stack([self.estimator.surprise(codes), errors.flatten(1).sum(1)], 1), errors

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the sum of both parts in units of their ranges over OK images; `map` (B, H, W) the error."""
        parts, errors = self.parts(images)
        return Scores((parts / self.ranges).sum(1), errors.mean(1))


class Estimator(nn.Module):
    """The density of codes (B, code) in [0, 1], one number after the other, each by the bin that it falls into."""

    def __init__(self, code: int, width: int, bins: int):
        super().__init__()
        layers: list[nn.Module] = [MaskedLinear(code, 1, width, sees_itself=False), nn.LeakyReLU()]
        for _ in range(ESTIMATOR_LAYERS - 1):
            layers += [MaskedLinear(code, width, width, sees_itself=True), nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers, MaskedLinear(code, width, bins, sees_itself=True))
        self.bins = bins

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (B, code, bins); those of a number depend on the numbers before it alone."""
        logits: Tensor = self.layers(codes[:, :, None])
        return logits

    def surprise(self, codes: Tensor) -> Tensor:
        """-log of the probability of the bins of `codes` (B, code), in nats: (B,). As what is met, codes are fixed."""
        met = (codes.detach() * self.bins).long().clamp(0, self.bins - 1)  # (B, code); 1.0 falls into the last bin
        likely: Tensor = self(codes).log_softmax(2).gather(2, met[:, :, None])  # (B, code, 1)
        return -likely.sum((1, 2))


class MaskedLinear(nn.Module):
    """A fully connected layer (B, code, inner) → (B, code, outer), of which a number sees only those before it.

    And itself with `sees_itself`, as all layers but the first may: what they see of it has not seen it.
    """

    sees: Tensor

    def __init__(self, code: int, inner: int, outer: int, sees_itself: bool):
        super().__init__()
        whole = nn.Linear(code * inner, code * outer)  # drawn as a layer without a mask is
        self.weight = nn.Parameter(whole.weight.detach().view(code, outer, code, inner).clone())
        self.bias = nn.Parameter(whole.bias.detach().clone())
        sees = torch.ones(code, code).tril(0 if sees_itself else -1)  # (who sees, who is seen)
        self.register_buffer("sees", sees, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Masked each time, so that no step of an optimiser can open the mask."""
        code, outer = self.weight.shape[:2]
        weight = self.weight * self.sees[:, None, :, None]  # (code, outer, code, inner)
        made = F.linear(x.flatten(1), weight.view(code * outer, -1), self.bias)  # (B, code · outer)
        return made.view(-1, code, outer)


class Block(nn.Module):
    """Two 3 × 3 convolutions beside a short cut: (B, inner, h, w) → (B, outer, h / stride, w / stride)."""

    def __init__(self, inner: int, outer: int, stride: int = 1):
        super().__init__()
        self.path = nn.Sequential(
            conv(inner, outer, stride), nn.BatchNorm2d(outer), nn.LeakyReLU(), conv(outer, outer), nn.BatchNorm2d(outer)
        )
        self.short_cut: nn.Module = nn.Identity()
        if stride > 1 or inner != outer:
            self.short_cut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, rectified."""
        return F.leaky_relu(self.path(x) + self.short_cut(x))


class UpBlock(nn.Module):
    """A transposed 5 × 5 convolution and a 3 × 3 one beside a short cut: (B, inner, h, w) → (B, outer, 2h, 2w)."""

    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.ConvTranspose2d(inner, outer, 5, 2, 2, output_padding=1, bias=False), nn.BatchNorm2d(outer),
            nn.LeakyReLU(), conv(outer, outer), nn.BatchNorm2d(outer),
        )  # fmt: skip
        self.short_cut = nn.Sequential(
            nn.ConvTranspose2d(inner, outer, 1, 2, output_padding=1, bias=False), nn.BatchNorm2d(outer)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, rectified."""
        return F.leaky_relu(self.path(x) + self.short_cut(x))


def conv(inner: int, outer: int, stride: int = 1) -> nn.Conv2d:
    """3 × 3, without bias."""
    return nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
