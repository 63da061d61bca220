"""Patch memory with context: okng's own descendant of PatchCore."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Collect, Scores
from okng.detectors.feature_matching.patchcore import PatchCore
from okng.errors import OkngError
from okng.nn.features.patches import local_average, mean_of_highest
from okng.nn.features.vit import is_transformer
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.coreset import StreamingCoreset, greedy_coreset

CANDIDATES = 256  # patches of an image that the memory is chosen from, or twice its share where that is more
BLOCK = 256  # memories whose products with all positions of an image are held at once


class PatchMemory(PatchCore):
    """A memory of OK patches, each described by its details and, more quietly, by what it is part of.

    Not of a paper: this library's own descendant of PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly
    Detection", CVPR 2022), whose idea it keeps: locally averaged features of a frozen network, a greedy coreset of
    them, the distance to the nearest.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken. `context`: the factor on the
    features of the coarsest stride, which say what a patch is part of; most channels are theirs, and at 1 they drown
    the details. Lengths become their square roots after it, so it is the weight of these features in a squared
    distance. `coreset`: the share of all patches kept in memory, in (0, 1]; `coreset_limit`: the most that a fit keeps,
    for the time of an inspection grows with them; an update goes beyond it to cover what is new. `sigma`: of the
    Gaussian that smooths the map, in pixels of the input. `memory`: GB that patches may take while it learns, see
    `nn/vectors/coreset.py`.

    What differs from PatchCore: a third, coarser stride at a lower weight. Vectors are as long as the square root of
    their length: where features are strong they vary more, and so much is evened out; all of it would be, were they of
    one length, and then faint defects in strong features were lost with it. Coarser features are brought to the next
    finer grid one after the other. The memory is chosen from each image's own coreset of CANDIDATES patches rather than
    from all of them, which bounds time and space where images are large and keeps what is rare in an image. It has a
    limit. An image's score is the mean of the highest hundredth of the distances.

    Distances take fewer multiplications than PatchCore's, though there are three times the channels: a product with a
    patch that was interpolated is the interpolated product, so each stride's products are taken on its own grid.
    """

    largest = 640

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16, 32),
        weights: str = "imagenet",
        context: float = 0.5,
        coreset: float = 0.01,
        coreset_limit: int = 4000,
        sigma: float = 8.0,
        memory: float = 4.0,
    ):
        if is_transformer(backbone):
            raise OkngError(f"backbone is a CNN, whose strides differ; for {backbone} take patchcore or anomalydino")
        positive(context=context)
        at_least(1, coreset_limit=coreset_limit)
        super().__init__(backbone, strides, weights, coreset=coreset, sigma=sigma, memory=memory)
        self.context, self.coreset_limit = context, coreset_limit

    def stream(self, bank: Tensor | None = None, seen: int = 0, radius: float = math.inf) -> StreamingCoreset:
        """What thins the patches, from the beginning or from a `bank` (M, D) of `seen` patches on."""
        return StreamingCoreset(self.coreset, self.capacity, bank, seen, radius, limit=self.coreset_limit)

    def gather(self, stream: StreamingCoreset) -> Collect:
        """One pass through `stream`, whose coreset becomes the memory."""

        def visit(batch: Batch) -> None:
            (candidates,) = batch.prepared  # (B, k, D)
            stream.add(candidates.flatten(0, 1).to(self.bank.dtype))
            unoffered = self.positions(batch.images.shape[-2:]) - candidates.shape[1]
            stream.seen += len(candidates) * unoffered  # the candidates stand for these too

        return dataclasses.replace(super().gather(stream), visit=visit, prepare=self.candidates)

    def rehearse(self, count: int, shape: tuple[int, int]) -> None:
        """Take a memory as large as that of `count` inputs of `shape` (H, W)."""
        self.bank = self.bank.new_zeros(self.stream(seen=count * self.positions(shape)).count, self.bank.shape[1])

    def positions(self, shape: Sequence[int]) -> int:
        """How many patches an input of `shape` (H, W) has."""
        return math.prod(side // min(self.backbone.strides) for side in shape)

    def candidates(self, images: Tensor) -> Tensor:
        """The patches (B, k, D) of each of `images` (B, 3, H, W) that leave no other patch of it far away."""
        patches = self.patches(images).flatten(1, 2)  # (B, h*w, D)
        count = min(patches.shape[1], max(CANDIDATES, math.ceil(2 * self.coreset * patches.shape[1])))
        if count == patches.shape[1]:
            return patches
        chosen = []
        for each in patches:
            picked = greedy_coreset(each, count)  # fewer where patches coincide: the first is repeated
            chosen.append(each[F.pad(picked, (0, count - len(picked)))])
        return torch.stack(chosen)

    def described(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Patch descriptors (B, h, w, D) of the backbone's features, (B, C_s, h_s, w_s) for each stride."""
        return joined(self.weighted(pyramid)).permute(0, 2, 3, 1)

    def weighted(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """The features of each stride as they enter the distance, (B, C_s, h_s, w_s) on the stride's own grid."""
        averaged = [local_average(features, self.neighbourhood) for features in pyramid]
        return [compressed(features) for features in (*averaged[:-1], averaged[-1] * self.context)]

    def forward(self, images: Tensor) -> Scores:
        """Distances to the memory: `map` (B, h, w), smoothed, on the grid of the finest stride, `image` (B,)."""
        distances = self.distances(images)
        smooth = gaussian_blur(distances, self.sigma / min(self.backbone.strides))
        return Scores(mean_of_highest(distances, 0.01), smooth)

    def distances(self, images: Tensor) -> Tensor:
        """The distance of every patch of `images` (B, 3, H, W) to the nearest memory, (B, h, w).

        |q - m|² = |q|² + |m|² - 2qm, and of qm each stride's part is taken on its own grid, as a convolution by the
        memories, and enlarged like the features: both are linear. In blocks of memories, image by image, which bounds
        the space; an exported graph, whose batch is open, takes all images at once.
        """
        centres = self.centre.split(self.backbone.channels)
        pyramid = [
            (features - centre[:, None, None]).contiguous(memory_format=torch.channels_last)  # products lie together
            for features, centre in zip(self.weighted(self.backbone(images)), centres, strict=True)
        ]
        if torch.onnx.is_in_onnx_export():
            return self.nearest_of(pyramid)
        each = zip(*(features.split(1) for features in pyramid), strict=True)
        return torch.cat([self.nearest_of(one) for one in each])

    def nearest_of(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Distances (B, h, w) of centred features, (B, C_s, h_s, w_s) for each stride, to the nearest memory."""
        lowest = []
        for block in self.bank.split(BLOCK):  # (b, D)
            *finer, coarsest = zip(pyramid, block.split(self.backbone.channels, dim=1), strict=True)
            products = F.conv2d(coarsest[0], coarsest[1][:, :, None, None])  # (B, b, h_s, w_s)
            for features, memories in reversed(finer):
                products = F.conv2d(features, memories[:, :, None, None]) + enlarged(products, features)
            lowest.append((block.square().sum(1)[:, None, None] - 2 * products).amin(1))  # (B, h, w)
        norms = joined(pyramid).square().sum(1)  # (B, h, w)
        return (torch.stack(lowest).amin(0) + norms).clamp_min(0).sqrt()


def joined(pyramid: Sequence[Tensor]) -> Tensor:
    """Maps (B, C_s, h_s, w_s), finest first, all on the finest grid, (B, D, h, w): each goes to the next finer one."""
    *finer, whole = pyramid
    for features in reversed(finer):
        whole = torch.cat([features, enlarged(whole, features)], dim=1)
    return whole


def compressed(features: Tensor) -> Tensor:
    """Vectors of (B, C, h, w) in their direction, but as long as the square root of their length."""
    return features * features.square().sum(1, keepdim=True).clamp_min(1e-12).pow(-0.25)


def enlarged(maps: Tensor, like: Tensor) -> Tensor:
    """`maps` (B, C, h, w) on the grid of `like`."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)
