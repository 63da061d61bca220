"""CS-Flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive, typed
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.flows.coupling import Permutation, bounded, surprise

SCALES = 3
Maps = Sequence[Tensor]  # of one image at three scales, finest first, each of half the sides: (B, C, h, w) …


class CSFlow(Detector):
    """One flow learns how probable the feature maps of an image are at three scales together.

    Rudolph, Wehrbein, Rosenhahn, Wandt, "Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection", WACV
    2022.

    `backbone`, `stride`, `weights`: the frozen network and where its features are taken, of the image, its half and its
    quarter (the paper: EfficientNet-B5 at 32, the stage before its last). `kernels`: the sides of the convolutions, one
    for each block of the flow. `hidden`: channels between the two convolutions of a coupling. `clamp`: no coupling
    scales by more than e to that power. `epochs`, `batch_size`, `learning_rate`: of Adam.

    Deliberately otherwise: the flow leads back exactly. The authors' inverse does not, as its second half takes the
    shift of the wrong network; they never need it.
    """

    pretrained = True

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        stride: int = 32,
        weights: str = "imagenet",
        kernels: tuple[int, ...] = (3, 3, 3, 5),
        hidden: int = 1024,
        clamp: float = 3.0,
        epochs: int = 240,
        batch_size: int = 16,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        at_least(1, hidden=hidden, epochs=epochs, batch_size=batch_size)
        positive(clamp=clamp, learning_rate=learning_rate)
        if not kernels or any(side < 1 or side % 2 == 0 for side in kernels):
            raise OkngError(f"kernels are odd sides such as 3 and 5, not {typed(kernels)}")
        self.backbone = freeze(Backbone(backbone, (stride,), weights))
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.blocks = nn.ModuleList(CrossScaleBlock(self.backbone.channels[0], hidden, side, clamp) for side in kernels)

    @property
    def multiple(self) -> int:
        """The stride at the coarsest scale, so that every grid is half of the one before."""
        return self.backbone.strides[0] << (SCALES - 1)

    def phases(self) -> Iterator[Phase]:
        """Raise the likelihood of OK images' features, which are computed once per image."""
        optimizer = torch.optim.Adam(self.blocks.parameters(), self.learning_rate, eps=1e-4, weight_decay=1e-5)
        yield Train(
            "flow",
            [Update(self.loss, optimizer, clip=1.0)],
            self.epochs,
            trains=[self.blocks],
            batch_size=self.batch_size,
            prepare=self.pyramid,
        )

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Features [(B, C, h, w), (B, C, h/2, w/2), (B, C, h/4, w/4)] of every pixel, every second and every fourth."""
        return [self.backbone(images[:, :, :: 2**scale, :: 2**scale])[0] for scale in range(SCALES)]

    def flow(self, maps: Maps) -> tuple[list[Tensor], Tensor]:
        """Z, of the shapes of `maps`, and log|det dz/dx| (B,)."""
        log_determinant = maps[0].new_zeros(maps[0].shape[0])
        for block in self.blocks:
            maps, more = block(maps)
            log_determinant = log_determinant + more
        return list(maps), log_determinant

    def inverse(self, maps: Maps) -> list[Tensor]:
        """The features that `flow` leads to `maps`."""
        for block in reversed(self.blocks):
            maps = block.inverse(maps)  # type: ignore[operator]
        return list(maps)

    def loss(self, batch: Batch) -> Tensor:
        """-log p of the features, the mean over images, in nats per dimension."""
        maps, log_determinant = self.flow(batch.prepared)
        z = together(maps)  # (B, D)
        return surprise(z, log_determinant).mean() / z.shape[1]

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,), half the mean of z² over all scales; `map` (B, h, w), the mean over channels at the finest."""
        maps, _ = self.flow(self.pyramid(images))
        return Scores(together(maps).square().mean(1) / 2, maps[0].square().mean(1))


class CrossScaleBlock(nn.Module):
    """The channels of each scale permuted; then one half transformed by the other, and that by the new first.

    The networks of both couplings see all scales. They start as zero, so that the block starts as a permutation.
    """

    def __init__(self, channels: int, hidden: int, side: int, clamp: float):
        super().__init__()
        self.sizes, self.clamp = (channels - channels // 2, channels // 2), clamp
        first, second = self.sizes
        self.permutations = nn.ModuleList(Permutation(channels) for _ in range(SCALES))
        self.for_first = CrossConvolutions(second, hidden, 2 * first, side)
        self.for_second = CrossConvolutions(first, hidden, 2 * second, side)

    def forward(self, maps: Maps) -> tuple[list[Tensor], Tensor]:
        """Z of the shapes of `maps`, and log|det dz/dx| (B,), of all scales together."""
        permuted = [permutation(x)[0] for permutation, x in zip(self.permutations, maps, strict=True)]
        first, second = zip(*[x.split(self.sizes, 1) for x in permuted], strict=True)
        first, one = self.affine(self.for_first, second, first)
        second, other = self.affine(self.for_second, first, second)
        return [torch.cat(halves, 1) for halves in zip(first, second, strict=True)], one + other

    def inverse(self, maps: Maps) -> list[Tensor]:
        """The second half back by the first, which is what its network saw; then the first by the old second."""
        first, second = zip(*[z.split(self.sizes, 1) for z in maps], strict=True)
        second = self.undone(self.for_second, first, second)
        first = self.undone(self.for_first, second, first)
        permuted = [torch.cat(halves, 1) for halves in zip(first, second, strict=True)]
        return [p.inverse(x) for p, x in zip(self.permutations, permuted, strict=True)]  # type: ignore[operator]

    def affine(self, network: nn.Module, passive: Maps, active: Maps) -> tuple[tuple[Tensor, ...], Tensor]:
        """The `active` halves scaled and shifted by what `network` makes of the `passive` ones, and the volume."""
        moved, volumes = [], []
        for x, raw in zip(active, network(passive), strict=True):
            log_scale, shift = bounded(raw, self.clamp, "atan")
            moved.append(x * log_scale.exp() + shift)
            volumes.append(log_scale.flatten(1).sum(1))
        return tuple(moved), torch.stack(volumes).sum(0)

    def undone(self, network: nn.Module, passive: Maps, active: Maps) -> tuple[Tensor, ...]:
        """What `affine` led to `active`."""
        found = []
        for z, raw in zip(active, network(passive), strict=True):
            log_scale, shift = bounded(raw, self.clamp, "atan")
            found.append((z - shift) * (-log_scale).exp())
        return tuple(found)


class CrossConvolutions(nn.Module):
    """Two convolutions at each scale; the second ones see the finer and the coarser scale too."""

    def __init__(self, seen: int, hidden: int, given: int, side: int):
        super().__init__()

        def convolution(entering: int, leaving: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(entering, leaving, side, stride, padding=side // 2)

        self.enter = nn.ModuleList(convolution(seen, hidden) for _ in range(SCALES))
        self.leave = nn.ModuleList(convolution(hidden, given) for _ in range(SCALES))
        self.down = nn.ModuleList(convolution(hidden, given, stride=2) for _ in range(SCALES - 1))
        self.up = nn.ModuleList(convolution(hidden, given) for _ in range(SCALES - 1))
        self.gain = nn.Parameter(torch.zeros(SCALES))

    def forward(self, maps: Maps) -> list[Tensor]:
        """(B, seen, h, w) at each scale to (B, given, h, w)."""
        inner = [F.leaky_relu(enter(x), 0.1) for enter, x in zip(self.enter, maps, strict=True)]
        outer = [leave(x) for leave, x in zip(self.leave, inner, strict=True)]
        for fine, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            enlarged = F.interpolate(inner[fine + 1], scale_factor=2, mode="bilinear", align_corners=False)
            outer[fine] = outer[fine] + up(enlarged)
            outer[fine + 1] = outer[fine + 1] + down(inner[fine])
        return [gain * x for gain, x in zip(self.gain, outer, strict=True)]


def together(maps: Maps) -> Tensor:
    """All values of all scales: (B, D)."""
    return torch.cat([x.flatten(1) for x in maps], 1)
