"""The likelihood of pixels under a normalizing flow, and couplings that make it look at more than pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.flows.coupling import Flow, Sequence, surprise
from okng.nn.networks.sizes import pad_to_grid

MARGIN = 0.05  # pixels become 0.05 to 0.95 before their logit is taken


class NFOOD(Detector):
    """RealNVP learns the density of OK images' pixels, exactly; improbable images are odd.

    Kirichenko, Izmailov, Wilson, "Why Normalizing Flows Fail to Detect Out-of-Distribution Data", NeurIPS 2020; the
    flow: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", ICLR 2017.

    The paper's finding is that it fails: such a flow learns how pixels depend on their neighbours, which images of
    other things share, and calls smooth or flat ones likelier than what it learnt: MNIST likelier than Fashion-MNIST.
    Two changes to the couplings make it better at finding other things: `masks="cycle"`, where pixels are predicted
    from another quarter of the image, and `bottleneck`.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `masks`: what couplings see and change; "checkerboard",
    RealNVP's own, every second pixel and then half of the channels; "cycle", a quarter of the image, to change the next
    one, eight times at one scale. `bottleneck`: the numbers through which a coupling has to predict, 0 for no limit
    (the paper tries 100 and less). `scales`: how often RealNVP halves the sides, less one; half of the values leave the
    flow each time. `width`: channels of the couplings' networks, twice as many from each halving on. `depth`: their
    residual blocks. `epochs`, `batch_size`, `learning_rate`: of Adam. The defaults are the paper's for 28 px; for 32 px
    it has 3 scales, a depth of 8, and 101 epochs at a rate of 1e-4.

    The score is the negative logarithm of the probability of the 8-bit image, in bits per dimension.

    Deliberately otherwise: an image that is scored gets the middle of each of 256 levels, in the authors' code noise of
    one level, which here is drawn in training alone; so a score is the same every time. Sides that do not divide are
    padded by repeating the border. Couplings see what they may by a mask, of channels too. Without batch normalization
    in the couplings' networks: each image is learnt as it is scored. These networks are plainer than the authors': no
    skips from every block to the last layer, no weight decay of gains, whose gradient is clipped with all others' at
    100, not by itself, and a `bottleneck` between two strided convolutions and two that follow an enlargement. They
    start as 0, so that the flow starts as the identity.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        masks: Literal["checkerboard", "cycle"] = "checkerboard",
        bottleneck: int = 0,
        scales: int = 2,
        width: int = 64,
        depth: int = 6,
        epochs: int = 81,
        batch_size: int = 32,
        learning_rate: float = 5e-5,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, scales=scales, width=width, depth=depth, epochs=epochs, batch_size=batch_size)
        at_least(0, bottleneck=bottleneck)
        positive(learning_rate=learning_rate)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.halvings = max(1, scales - 1)  # that the padded sides allow
        if min(image_size) < 2 ** (scales - 1):
            raise OkngError(f"scales is 1 to {min(image_size).bit_length()} for sides of {image_size}, not {scales}")
        h, w = (-(-side // 2**self.halvings) * 2**self.halvings for side in image_size)
        self.flow: Flow
        if masks == "cycle":
            seen = [quarter(h, w, place) for place in (0, 1, 2, 3)]
            couplings = [(seen[i % 4], seen[(i + 1) % 4]) for i in range(8)]
            self.flow = Sequence(*[MaskedCoupling(channels, *pair, width, depth, bottleneck) for pair in couplings])
        else:
            self.flow = RealNVP(channels, h, w, scales, width, depth, bottleneck)

    def phases(self) -> Iterator[Phase]:
        """Raise the likelihood of OK images."""
        update = Update(self.loss, torch.optim.Adam(self.flow.parameters(), self.learning_rate), clip=100.0)
        yield Train("flow", [update], self.epochs, trains=[self.flow], batch_size=self.batch_size)

    def surprise(self, images: Tensor, within: Tensor | float) -> Tensor:
        """-log of the probability of 8-bit `images` (B, C, H, W) in [0, 1], in nats: (B,).

        `within`: where in its level of 256 each value lies, in [0, 1], a number or (B, C, h, w).
        """
        levels = pad_to_grid(images, self.halvings)  # (B, C, h, w)
        inner = MARGIN + (1 - 2 * MARGIN) * (levels * 255 + within) / 256
        logits = inner.log() - (1 - inner).log()
        volume = math.log(1 - 2 * MARGIN) - inner.log() - (1 - inner).log()  # of the logit, for each value
        z, log_determinant = self.flow(logits)
        dimensions = z[0].numel()
        nats: Tensor = surprise(z, log_determinant + volume.flatten(1).sum(1)) + dimensions * math.log(256)
        return nats

    def loss(self, batch: Batch) -> Tensor:
        """The mean surprise in nats, with noise of one level."""
        shape = pad_to_grid(batch.images, self.halvings).shape
        return self.surprise(batch.images, torch.rand(shape, device=batch.images.device)).mean()

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the surprise in bits per dimension; no map."""
        dimensions = pad_to_grid(images, self.halvings)[0].numel()
        return Scores(self.surprise(images, 0.5) / (dimensions * math.log(2)))


class MaskedCoupling(Flow):
    """What `changed` marks is shifted and scaled by what a network makes of what `seen` marks.

    Both are 0 or 1, (1, C or 1, h, w), and never both 1.
    """

    seen: Tensor
    changed: Tensor

    def __init__(self, channels: int, seen: Tensor, changed: Tensor, width: int, depth: int, bottleneck: int):
        super().__init__()
        self.register_buffer("seen", seen)
        self.register_buffer("changed", changed)
        h, w = seen.shape[2:]
        self.network = (
            Narrow(channels, width, 2 * channels, (h, w), bottleneck)
            if bottleneck
            else Residual(channels, width, 2 * channels, depth)
        )
        self.reach = nn.Parameter(torch.ones(1, channels, 1, 1))  # of each channel's log-scale

    def affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log-scale and shift (B, C, h, w), 0 where nothing changes."""
        raw_scale, shift = self.network(x * self.seen).chunk(2, 1)
        return self.reach * raw_scale.tanh() * self.changed, shift * self.changed

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x + shift) · scale."""
        log_scale, shift = self.affine(x)
        return (x + shift) * log_scale.exp(), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """What is seen is what it was."""
        log_scale, shift = self.affine(z)
        return z * (-log_scale).exp() - shift


class RealNVP(Flow):
    """At each scale three couplings by a checkerboard, a squeeze of 2 × 2 values into channels, three by channels.

    Then half of the channels are done, and the next scale has the other half. At the last one there are four couplings
    by a checkerboard. Sides (h, w) have to divide by 2 for each scale but the last.
    """

    def __init__(self, channels: int, h: int, w: int, scales: int, width: int, depth: int, bottleneck: int):
        super().__init__()
        self.before, self.after = nn.ModuleList(), nn.ModuleList()

        def by_places(count: int) -> Sequence:
            return Sequence(
                *[MaskedCoupling(channels, *board(h, w, i), width, depth, bottleneck) for i in range(count)]
            )

        def by_channels(count: int) -> Sequence:
            masks = [halves(channels, h, w, i) for i in range(count)]
            return Sequence(*[MaskedCoupling(channels, *pair, width, depth, bottleneck) for pair in masks])

        for _ in range(scales - 1):
            self.before.append(by_places(3))
            channels, h, w, width = 4 * channels, h // 2, w // 2, 2 * width
            self.after.append(by_channels(3))
            channels //= 2
        self.last = by_places(4)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Z as a vector (B, D), the first half that was done first."""
        done, total = [], x.new_zeros(x.shape[0])
        for before, after in zip(self.before, self.after, strict=True):
            x, one = before(x)
            x, other = after(F.pixel_unshuffle(x, 2))
            left, x = x.chunk(2, 1)
            done.append(left.flatten(1))
            total = total + one + other
        x, one = self.last(x)
        return torch.cat([*done, x.flatten(1)], 1), total + one

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """`z` (B, D) as an image (B, C, h, w) again."""
        done = []
        for _ in self.after:
            left, z = z.chunk(2, 1)
            done.append(left)
        x: Tensor = self.last.inverse(z.view(len(z), *self.shape_of(self.last)))
        for left, before, after in zip(reversed(done), reversed(self.before), reversed(self.after), strict=True):
            x = torch.cat([left.view_as(x), x], 1)
            x = before.inverse(F.pixel_shuffle(after.inverse(x), 2))  # type: ignore[operator]
        return x

    @staticmethod
    def shape_of(couplings: Sequence) -> tuple[int, int, int]:
        """(C, h, w) of what they take."""
        first = couplings.flows[0]
        assert isinstance(first, MaskedCoupling)
        return first.reach.shape[1], *first.seen.shape[2:]


class Residual(nn.Module):
    """A residual network of `depth` blocks on the grid (B, seen, h, w) → (B, given, h, w); it starts as 0."""

    def __init__(self, seen: int, width: int, given: int, depth: int):
        super().__init__()
        self.enter = WeightNormConv(seen, width, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), WeightNormConv(width, width, 3), nn.ReLU(), WeightNormConv(width, width, 3))
            for _ in range(depth)
        )
        self.leave = zeroed(nn.Conv2d(width, given, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Skips around every block."""
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        raw: Tensor = self.leave(F.relu(x))
        return raw


class Narrow(nn.Module):
    """Convolutions, `bottleneck` numbers, convolutions: (B, seen, h, w) → (B, given, h, w); it starts as 0."""

    def __init__(self, seen: int, width: int, given: int, grid: tuple[int, int], bottleneck: int):
        super().__init__()
        self.grid, self.coarse = grid, tuple(-(-side // 4) for side in grid)
        cells = self.coarse[0] * self.coarse[1]
        self.encode = nn.Sequential(
            nn.Conv2d(seen, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(width * cells, bottleneck), nn.Linear(bottleneck, width * cells), nn.ReLU(),
        )  # fmt: skip
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.leave = zeroed(nn.Conv2d(width, given, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Down to a quarter of the sides, and up again."""
        x = self.encode(x).view(x.shape[0], -1, *self.coarse)
        x = F.relu(self.middle(F.interpolate(x, self.grid, mode="nearest")))
        raw: Tensor = self.leave(x)
        return raw


class WeightNormConv(nn.Conv2d):
    """A convolution that keeps the grid, of kernels of length 1 times a learnt gain each (Salimans, Kingma, 2016)."""

    def __init__(self, seen: int, given: int, side: int):
        super().__init__(seen, given, side, padding=side // 2)
        self.gain = nn.Parameter(self.weight.detach().flatten(1).norm(dim=1))  # (given,)

    def forward(self, x: Tensor) -> Tensor:
        """With the kernels as they are scaled now."""
        length = self.weight.flatten(1).norm(dim=1).clamp_min(1e-12)
        kernels = self.weight * (self.gain / length).view(-1, 1, 1, 1)
        return F.conv2d(x, kernels, self.bias, padding=self.padding)  # type: ignore[arg-type]


def zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """`convolution` with weights and bias 0, from where a coupling starts as the identity."""
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


def board(h: int, w: int, number: int) -> tuple[Tensor, Tensor]:
    """The fields of a checkerboard that the coupling of this `number` sees and those it changes, each (1, 1, h, w)."""
    odd = ((torch.arange(h)[:, None] + torch.arange(w)) % 2).float()[None, None]
    return (odd, 1 - odd) if number % 2 else (1 - odd, odd)


def halves(channels: int, h: int, w: int, number: int) -> tuple[Tensor, Tensor]:
    """The channels that the coupling of this `number` sees and those it changes, each (1, channels, h, w)."""
    second = (torch.arange(channels) >= channels // 2).float().view(1, -1, 1, 1).expand(1, channels, h, w).clone()
    return (second, 1 - second) if number % 2 else (1 - second, second)


def quarter(h: int, w: int, place: int) -> Tensor:
    """A quarter of the image (1, 1, h, w): top left, top right, bottom right, bottom left."""
    mask = torch.zeros(1, 1, h, w)
    rows = slice(0, h // 2) if place in (0, 1) else slice(h // 2, h)
    columns = slice(0, w // 2) if place in (0, 3) else slice(w // 2, w)
    mask[:, :, rows, columns] = 1
    return mask
