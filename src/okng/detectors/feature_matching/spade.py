"""SPADE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import on_finest_grid
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.neighbours import nearest_squared

BLOCK = 1024  # OK images whose global features are compared at once


class SPADE(Detector):
    """The most similar OK images are looked up; a position is as odd as it is far from all positions of those.

    Cohen, Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", arXiv 2005.02357, 2020. The image's
    score is the mean squared distance of its global feature to those of the `neighbours` nearest OK images (section
    3.2), the map's the mean squared distance of a position's pyramid feature to the `correspondences` nearest of any
    position of those images (section 3.3).

    `backbone`, `strides`, `weights`: the frozen network and where its pyramid is taken, all brought to the finest grid
    (the paper: wide_resnet50_2 at 4, 8 and 16). `deepest`: the stride of the features whose spatial mean is the global
    feature. `neighbours`: K, how many OK images are looked up, all where there are fewer. `correspondences`: κ, how
    many positions each is compared with. `sigma`: of the Gaussian that smooths the map, in pixels of the input.

    The memory holds the features of all learnt images: 0.67 MB an image of 256 px with the default network, 0.28 MB at
    strides 8 and 16 alone, 7.3 MB of wide_resnet50_2. Time grows with K and with the square of the positions: 50 images
    at stride 4 are work for a GPU.

    Deliberately otherwise: images have one shape, brought to it whole; the map is smoothed on the grid of the finest
    stride, before any enlargement.
    """

    fixed_size = True
    pretrained = True
    collects_only = True
    pooled: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        deepest: int = 32,
        neighbours: int = 50,
        correspondences: int = 1,
        sigma: float = 4.0,
    ):
        super().__init__()
        at_least(1, deepest=deepest, neighbours=neighbours, correspondences=correspondences)
        positive(sigma=sigma)
        self.backbone = freeze(Backbone(backbone, [*strides, *({deepest} - {*strides})], weights))
        self.strides, self.deepest = sorted(strides), deepest
        self.neighbours, self.correspondences, self.sigma = neighbours, correspondences, sigma
        channels = dict(zip(self.backbone.strides, self.backbone.channels, strict=True))
        self.register_buffer("pooled", torch.zeros(0, channels[deepest]))  # (N, C)
        for stride in self.strides:
            self.register_buffer(f"gallery_{stride}", torch.zeros(0, channels[stride], 0, 0))  # (N, C_s, h_s, w_s)

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    @property
    def galleries(self) -> list[Tensor]:
        """The features of all OK images at each stride of the pyramid, (N, C_s, h_s, w_s)."""
        return [self.get_buffer(f"gallery_{stride}") for stride in self.strides]

    def phases(self) -> Iterator[Phase]:
        """Keep the features of every image."""
        yield self.gather([])

    def update_phases(self) -> Iterator[Phase]:
        """Keep those of the new images too: the result is that of all images at once."""
        yield self.gather([(self.pooled, *self.galleries)])

    def gather(self, seen: list[Sequence[Tensor]]) -> Collect:
        """One pass, from what was `seen` on: global features (n, C) and pyramids."""

        def visit(batch: Batch) -> None:
            seen.append([part.to(self.pooled.dtype) for part in batch.prepared])

        def finish() -> None:
            names = ["pooled", *(f"gallery_{stride}" for stride in self.strides)]
            for name, parts in zip(names, zip(*seen, strict=True), strict=True):
                setattr(self, name, torch.cat(list(parts)))

        return Collect("memory", visit, finish, self.described)

    def described(self, images: Tensor) -> list[Tensor]:
        """The global feature (B, C) of `images` (B, 3, H, W), then the pyramid, (B, C_s, h_s, w_s) for each stride."""
        features = dict(zip(self.backbone.strides, self.backbone(images), strict=True))
        return [features[self.deepest].mean((2, 3)), *(features[stride] for stride in self.strides)]

    def retrieved(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances (B, K) of global features `pooled` (B, C) to the nearest OK images, and which (B, K)."""
        blocks = self.pooled.split(BLOCK)  # which bounds the space, each (n, C)
        squared = torch.cat([(pooled[:, None] - block).square().sum(2) for block in blocks], 1)  # (B, N)
        nearest = squared.topk(min(self.neighbours, len(self.pooled)), largest=False)
        return nearest.values, nearest.indices

    def distances(self, pyramid: Sequence[Tensor], nearest: Tensor) -> Tensor:
        """The squared distance (B, h, w) of every position of `pyramid` to the OK images `nearest` (B, K).

        One OK image of each query after the other, which bounds the space to (B, h*w, h*w).
        """
        queries = on_finest_grid(pyramid).flatten(2).transpose(1, 2)  # (B, h*w, D)
        positions = pyramid[0].shape[2] * pyramid[0].shape[3]
        each = min(self.correspondences, positions)
        lowest = None
        for index in nearest.T:  # (B,)
            gallery = (
                on_finest_grid([level[index] for level in self.galleries]).flatten(2).transpose(1, 2)
            )  # (B, h*w, D)
            found = nearest_squared(queries, gallery, each)  # (B, h*w, κ)
            if lowest is None:
                lowest = found
            elif self.correspondences == 1:
                lowest = torch.minimum(lowest, found)
            else:
                both = torch.cat([lowest, found], dim=2)
                lowest = both.topk(min(self.correspondences, both.shape[2]), dim=2, largest=False).values
        assert lowest is not None, "nothing was learnt"
        return lowest.mean(2).view(-1, *pyramid[0].shape[2:])

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) by the global features, `map` (B, h, w), smoothed, on the grid of the finest stride."""
        pooled, *pyramid = self.described(images)
        squared, nearest = self.retrieved(pooled)
        smooth = gaussian_blur(self.distances(pyramid, nearest), self.sigma / min(self.strides))
        return Scores(squared.mean(1), smooth)
