"""Mahalanobis anomaly detection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.vectors.covariance import ledoit_wolf, principal_components, whitening_of


class Mahalanobis(Detector):
    """One Gaussian of an image's mean features at each level of a network; odd is far from all of them.

    Rippel, Mertens, Merhof, "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly
    Detection", ICPR 2020. The score is the sum over the levels of the Mahalanobis distance of the features' spatial
    mean, by a covariance shrunk as Ledoit and Wolf do. There is no map: the features are averaged over the image before
    anything is compared. Where the score comes from is asked of Grad-CAM (`okng explain`).

    `backbone`, `strides`, `weights`: the frozen network and its levels (the paper: nine of EfficientNet-B4).
    `components`: "all" of the features, or those along principal components of the OK images, "pca" the ones that
    explain most of the variance, "npca" the rest, where OK images vary least; the one at the border is in both. There
    are as many as OK images span, one fewer than images: along all others none of them varies.
    `explained`: the share of the variance at that border, in (0, 1).

    Deliberately otherwise: a level is the last layer at a stride, so there are five at most. The authors' "npca" has
    one component more at the border, and where images are fewer than features one that none of them shows. The vectors
    of all learnt images are kept, 2 KB each with the default network, so that an update ends as a fit on all would.
    """

    pretrained = True
    collects_only = True
    vectors: Tensor
    mean: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (2, 4, 8, 16, 32),
        weights: str = "imagenet",
        components: Literal["all", "pca", "npca"] = "all",
        explained: float = 0.95,
    ):
        super().__init__()
        if not 0 < explained < 1:
            raise OkngError(f"explained is a share of the variance, above 0 and below 1, not {explained}")
        self.backbone = freeze(Backbone(backbone, strides, weights))
        self.components, self.explained = components, explained
        total = sum(self.backbone.channels)
        self.register_buffer("vectors", torch.zeros(0, total))  # (N, D), of the images learnt
        self.register_buffer("mean", torch.zeros(total))  # (D,)
        for stride, channels in zip(self.backbone.strides, self.backbone.channels, strict=True):
            self.register_buffer(f"whitening_{stride}", torch.zeros(0, channels))  # (k_s, C_s)

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Gather the mean features of every image, then fit a Gaussian for each level."""
        yield self.gather([])

    def update_phases(self) -> Iterator[Phase]:
        """Gather those of the new images beside the old ones', and fit anew: the result is that of all at once."""
        yield self.gather([self.vectors])

    def gather(self, seen: list[Tensor]) -> Collect:
        """One pass, from the vectors `seen` (n, D) on."""

        def finish() -> None:
            self.vectors = torch.cat(seen)
            self.mean = self.vectors.cpu().double().mean(0).to(self.vectors)
            levels = self.vectors.split(self.backbone.channels, dim=1)
            for stride, level in zip(self.backbone.strides, levels, strict=True):
                setattr(self, f"whitening_{stride}", self.whitening(level).to(level))

        return Collect("gaussians", lambda batch: seen.append(self.taken(batch)), finish, self.pooled)

    def taken(self, batch: Batch) -> Tensor:
        """What `pooled` made of a batch, (B, D), in full precision from here on."""
        return batch.prepared[0].to(self.mean.dtype)

    def whitening(self, vectors: Tensor) -> Tensor:
        """What maps deviations (d,) from the mean of `vectors` (n, d) to coordinates (k, d) of unit variance."""
        if self.components == "all":
            return whitening_of(ledoit_wolf(vectors))
        directions, needed = principal_components(vectors, self.explained)
        spanned = max(needed, len(vectors) - 1)  # directions beyond are any basis of what no image shows
        rest = directions[:, needed - 1 : spanned]
        chosen = directions[:, :needed] if self.components == "pca" else rest  # (d, k)
        return whitening_of(ledoit_wolf(vectors.cpu().double() @ chosen)) @ chosen.T

    def pooled(self, images: Tensor) -> Tensor:
        """The spatial means (B, D) of the features of `images` (B, 3, H, W), one level after the other."""
        return torch.cat([features.mean((2, 3)) for features in self.backbone(images)], dim=1)

    def distances(self, images: Tensor) -> list[Tensor]:
        """The Mahalanobis distance (B,) of `images` (B, 3, H, W) at each level."""
        levels = (self.pooled(images) - self.mean).split(self.backbone.channels, dim=1)  # (B, C_s) each
        return [
            torch.linalg.vector_norm(level @ whitening.T, dim=1)
            for level, whitening in zip(levels, self.whitenings, strict=True)
        ]

    @property
    def whitenings(self) -> Sequence[Tensor]:
        """L⁻¹ of each level, (k_s, C_s)."""
        return [self.get_buffer(f"whitening_{stride}") for stride in self.backbone.strides]

    def forward(self, images: Tensor) -> Scores:
        """The sum of the levels' distances: `image` (B,)."""
        return Scores(torch.stack(self.distances(images)).sum(0))
