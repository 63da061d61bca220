"""U-Flow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive, typed
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import on_finest_grid
from okng.nn.flows import coupling
from okng.nn.flows.convolutional_flow import PositionAffine, subnet
from okng.nn.flows.coupling import Flow, Permutation, all_in_one, surprise

SHARE = 0.1  # of the values of a standard normal map that count as candidates
BEYOND = 2.7055434541  # the square that this share of them exceeds: the 0.9-quantile of chi² with one degree
WINDOWS = (5, 3)  # sides of the windows that are tested, at the finest scale and at all others


class UFlow(Detector):
    """One flow in the shape of a U learns how probable the feature maps of an image are at all scales together.

    Tailanian, Pardo, Musé, "U-Flow: A U-Shaped Normalizing Flow for Anomaly Detection with Unsupervised Threshold",
    Journal of Mathematical Imaging and Vision, 2024 (arXiv 2211.12353). From the coarsest scale on, half of what the
    flow makes of it is done; the other half is unfolded to the next finer grid and goes on beside the features there.
    So on OK images all values at all scales are independent standard normal ones, if the flow has learnt them well.

    `image_size` (h, w) of the input. `backbone`, `strides`, `weights`: the frozen network and where its features are
    taken, each stride the double of the one before (the paper's convolutional ones: resnet18 and wide_resnet50_2, at 4,
    8 and 16). `flow_steps`: couplings at each scale. `kernels`: the sides of their convolutions, in turn. `ratio`:
    channels between the two convolutions of a coupling, as a share of those it sees. `clamp`: no coupling scales by
    more than e to that power. `score`: "likelihood", or "nfa" for the test that the paper takes its threshold from.
    `epochs`, `batch_size`, `learning_rate`, `weight_decay`: of Adam, whose rate falls evenly to 0.4 of it.

    With "nfa" a position is as odd as minus the decimal logarithm of its number of false alarms: of how many windows
    as odd as the one around it a whole image of standard normal values has on average. So a raw score above 0 is what
    the paper calls an anomaly, without any image to calibrate on. The verdict is by the calibrated threshold as ever,
    for a flow makes real features not quite standard normal, nor independent: with the arguments for CPUs 58 of the 60
    unseen OK images of MVTec transistor were above 0, as were all NG ones.

    Deliberately otherwise: the scale after the normalisation is part of the flow, see `FastFlow`. The map is the
    negative logarithm of the paper's mean probability, which has the same order. Of the authors' two tests "nfa" is the
    one by windows, which is one plain graph, with exact tails: all channels count, each scale has a test of its own and
    the least probable one stays, where theirs tests the channels' mean and takes a product of tails for a tail.
    """

    fixed_size = True
    pretrained = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        flow_steps: int = 4,
        kernels: tuple[int, ...] = (3, 1),
        ratio: float = 1.0,
        clamp: float = 2.0,
        score: Literal["likelihood", "nfa"] = "likelihood",
        epochs: int = 200,
        batch_size: int = 8,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-5,
    ):
        super().__init__()
        check_input(image_size, channels=3)
        at_least(1, flow_steps=flow_steps, epochs=epochs, batch_size=batch_size)
        at_least(0, weight_decay=weight_decay)
        positive(ratio=ratio, clamp=clamp, learning_rate=learning_rate)
        if not kernels or any(side < 1 or side % 2 == 0 for side in kernels):
            raise OkngError(f"kernels are odd sides such as 3 and 1, not {typed(kernels)}")
        self.backbone = freeze(Backbone(backbone, strides, weights))
        found = self.backbone.strides
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(found)):
            raise OkngError(f"each of strides is the double of the one before, such as 4,8,16, not {typed(strides)}")
        self.score, self.epochs, self.batch_size = score, epochs, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

        def step(channels: int, number: int) -> Flow:
            side = kernels[number % len(kernels)]
            return all_in_one(channels, lambda seen, given: subnet(seen, given, ratio, side), clamp, Permutation)

        h, w = (-(-pixels // self.multiple) * self.multiple for pixels in image_size)
        grids = [(h // stride, w // stride) for stride in found]
        shapes = [(channels, *grid) for channels, grid in zip(self.backbone.channels, grids, strict=True)]
        self.flow = UShapedFlow(shapes, flow_steps, step)
        self.positions = sum(rows * columns for rows, columns in grids)
        for scale, channels in enumerate(self.flow.latent):  # what follows from the sizes is in no model file
            tails = binomial_tails(window_of(scale) ** 2 * channels, SHARE)
            self.register_buffer(f"tails_{scale}", tails.float(), persistent=False)

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Raise the likelihood of OK images' features, which are computed once per image."""
        optimizer = torch.optim.Adam(self.flow.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        yield Train(
            "flow",
            [Update(self.loss, optimizer, schedule=lambda done: 1 - 0.6 * done)],
            self.epochs,
            trains=[self.flow],
            batch_size=self.batch_size,
            prepare=self.normalised,
        )

    def normalised(self, images: Tensor) -> list[Tensor]:
        """Features (B, C_s, h_s, w_s) of mean 0 and variance 1 over all values of an image."""
        centred = [features - features.mean((1, 2, 3), keepdim=True) for features in self.backbone(images)]
        return [x / (x.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt() for x in centred]

    def loss(self, batch: Batch) -> Tensor:
        """-log p of all strides' features together, in nats, the mean over images; not divided by their number."""
        latents, log_determinant = self.flow(batch.prepared)
        z = torch.cat([latent.flatten(1) for latent in latents], 1)  # (B, all values)
        return surprise(z, log_determinant).mean()

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w) on the grid of the finest stride, from 0 up unless by "nfa"; `image` (B,) its maximum."""
        latents, _ = self.flow(self.normalised(images))
        anomaly = self.surprising(latents) if self.score == "likelihood" else self.significance(latents)
        return Scores(anomaly.amax((1, 2)), anomaly)

    def surprising(self, latents: Sequence[Tensor]) -> Tensor:
        """-log of the mean over scales of exp(-z² / 2), z² the mean over channels: (B, h, w)."""
        probabilities = [(-0.5 * z.square().mean(1, keepdim=True)).exp() for z in latents]  # (B, 1, h_s, w_s)
        return -on_finest_grid(probabilities).mean(1).clamp_min(1e-30).log()

    def significance(self, latents: Sequence[Tensor]) -> Tensor:
        """-log10 of the number of false alarms (B, h, w): of all positions, times the tail of the least probable one.

        At each position of a scale: how probable it is that as many of the values around it, of all channels, are
        candidates. Beyond the edge there are none, which makes a window less odd, never odder.
        """
        logarithms = []
        for scale, z in enumerate(latents):
            candidates = (z.square() > BEYOND).sum(1, keepdim=True).to(z.dtype)  # (B, 1, h_s, w_s)
            side = window_of(scale)
            window = torch.ones(1, 1, side, side, dtype=z.dtype, device=z.device)
            counts = F.conv2d(candidates, window, padding=side // 2).round().long()
            tails = self.get_buffer(f"tails_{scale}")[counts]  # log10, (B, 1, h_s, w_s)
            logarithms.append(F.interpolate(tails, scale_factor=float(2**scale), mode="nearest") if scale else tails)
        return -(torch.cat(logarithms, 1).amin(1) + math.log10(self.positions))


class UShapedFlow(nn.Module):
    """Feature maps of an image at several scales to as many latents, in all as many values, invertibly.

    `shapes` (C, h, w) of the features, finest first, each of half the sides. `step` makes one coupling by its channels
    and its number. `latent`: the channels of each latent.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]], flow_steps: int, step: Callable[[int, int], Flow]):
        super().__init__()
        self.channels = [channels for channels, _, _ in shapes]
        self.affines = nn.ModuleList(PositionAffine(*shape) for shape in shapes)
        self.rising = [0] * len(shapes)  # channels of each scale that go on to the next finer one
        self.latent = [0] * len(shapes)
        stages: list[Flow] = []
        entering = 0  # unfolded from the coarser scale
        for scale in reversed(range(len(shapes))):
            total = self.channels[scale] + entering
            if scale:
                self.rising[scale] = total // 8 * 4  # half of them, and four make one on the finer grid
                if not self.rising[scale]:
                    raise OkngError("uflow's features have 8 channels or more; take another of the backbone's strides")
            self.latent[scale], entering = total - self.rising[scale], self.rising[scale] // 4
            stages.insert(0, coupling.Sequence(*(step(total, number) for number in range(flow_steps))))
        self.stages = nn.ModuleList(stages)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Z (B, latent, h, w) of each scale of `features` (B, C, h, w), finest first, and log|det| (B,) of them all."""
        log_determinant = features[0].new_zeros(features[0].shape[0])
        latents: list[Tensor] = []
        unfolded: list[Tensor] = []
        for scale in reversed(range(len(self.stages))):
            x, more = self.affines[scale](features[scale])
            x, most = self.stages[scale](torch.cat([x, *unfolded], 1))
            log_determinant = log_determinant + more + most
            rising, z = x.split([self.rising[scale], self.latent[scale]], 1)
            unfolded = [F.pixel_shuffle(rising, 2)] if scale else []  # (B, rising / 4, 2h, 2w), of the same values
            latents.insert(0, z)
        return latents, log_determinant

    def inverse(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """The features that `forward` leads to `latents`: from the finest scale, which all others went into."""
        features: list[Tensor] = []
        rising: list[Tensor] = []
        for scale, (affine, stage) in enumerate(zip(self.affines, self.stages, strict=True)):
            whole = stage.inverse(torch.cat([*rising, latents[scale]], 1))  # type: ignore[operator]
            own, unfolded = whole.split([self.channels[scale], whole.shape[1] - self.channels[scale]], 1)
            features.append(affine.inverse(own))  # type: ignore[operator]
            rising = [F.pixel_unshuffle(unfolded, 2)] if unfolded.shape[1] else []
        return features


def window_of(scale: int) -> int:
    """The side of the windows that are tested at a scale, 0 being the finest."""
    return WINDOWS[min(scale, 1)]


def binomial_tails(count: int, share: float) -> Tensor:
    """log10 of how probable k or more of `count` are, each of probability `share`, for k = 0 ... count: float64."""
    k = torch.arange(count + 1, dtype=torch.float64)
    n = torch.tensor(float(count), dtype=torch.float64)
    chosen = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    logarithms = chosen + k * math.log(share) + (n - k) * math.log1p(-share)
    return logarithms.flip(0).logcumsumexp(0).flip(0) / math.log(10)
