"""DFM: deep feature modeling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone


class DFM(Detector):
    """The principal components of OK images' feature maps, each map one vector; odd is what they can't restore.

    Ahuja, Ndiour, Kalyanpur, Tickoo, "Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial
    Detection", arXiv 1909.11786, 2019, for one class; the network and its pooling as anomalib has them. A vector knows
    where in the image a feature is, so parts must lie alike.

    `backbone`, `stride`, `weights`: the frozen network and where its features are taken. `pool`: the side of the
    squares of the feature map that are averaged first, 1 for none; a cell of the map is `stride` · `pool` px.
    `explained`: the share of the variance that the kept components explain, above 0 and below 1. There are as many as
    OK images less one, at most: of few images nearly all are kept, and only images that were not learnt have scores to
    set a threshold by. `score`: "fre", the feature reconstruction error, the squared length of what lies outside of the
    components; or "nll", the negative log-likelihood, doubled and but for a constant, of the Gaussian inside of them,
    which says nothing of where.

    Deliberately otherwise: the map is not enlarged, so that it sums to the image's score exactly. A component in which
    OK images hardly vary, by less than a millionth of the first's deviation, has no part in the likelihood.
    """

    fixed_size = True
    pretrained = True
    collects_only = True
    mean: Tensor
    components: Tensor
    deviations: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        stride: int = 16,
        weights: str = "imagenet",
        pool: int = 4,
        explained: float = 0.97,
        score: Literal["fre", "nll"] = "fre",
    ):
        super().__init__()
        at_least(1, stride=stride, pool=pool)
        if not 0 < explained < 1:
            raise OkngError(f"explained is a share of the variance, above 0 and below 1, not {explained}")
        self.backbone = freeze(Backbone(backbone, [stride], weights))
        self.stride, self.pool, self.explained, self.score = stride, pool, explained, score
        self.register_buffer("mean", torch.zeros(0))  # (D,), D = C*h*w
        self.register_buffer("components", torch.zeros(0, 0))  # V, (D, r)
        self.register_buffer("deviations", torch.zeros(0))  # (r,), of OK images along the components

    @property
    def multiple(self) -> int:
        """Of the pooled map's cells, so that none is cut."""
        return self.stride * self.pool

    def phases(self) -> Iterator[Phase]:
        """Gather the feature map of every image, then take the principal components."""
        seen: list[Tensor] = []

        def visit(batch: Batch) -> None:
            seen.append(batch.prepared[0].flatten(1))  # (B, D)

        def finish() -> None:
            vectors = torch.cat(seen).cpu().double()  # (N, D), on the CPU first: not every GPU has float64
            mean = vectors.mean(0)
            components, deviations = principal(vectors - mean, self.explained)
            self.mean = mean.to(self.mean)
            self.components, self.deviations = components.to(self.mean), deviations.to(self.mean)

        yield Collect("components", visit, finish, self.pooled)

    def pooled(self, images: Tensor) -> Tensor:
        """The averaged feature map (B, C, h, w) of `images` (B, 3, H, W)."""
        return F.avg_pool2d(self.backbone(images)[0], self.pool)

    def unrestored(self, vectors: Tensor) -> Tensor:
        """What of `vectors` (B, D) the components leave out, x - (mean + VVᵀ(x - mean)): (B, D)."""
        centred = vectors - self.mean
        return centred - centred @ self.components @ self.components.T

    def surprise(self, vectors: Tensor) -> Tensor:
        """Σ z² + 2 Σ log σ (B,) of `vectors` (B, D), z = Vᵀ(x - mean) / σ."""
        z = (vectors - self.mean) @ self.components  # (B, r)
        varies = self.deviations > 1e-6 * self.deviations.amax()  # (r,)
        sigma = torch.where(varies, self.deviations, 1.0)
        return (torch.where(varies, z / sigma, 0.0).square() + 2 * sigma.log()).sum(1)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,); with "fre" it is the sum of `map` (B, h, w), 0 and up, on the grid of the pooled cells."""
        features = self.pooled(images)  # (B, C, h, w)
        if self.score == "nll":
            return Scores(self.surprise(features.flatten(1)))
        errors = self.unrestored(features.flatten(1)).square().view_as(features).sum(1)  # (B, h, w)
        return Scores(errors.sum((1, 2)), errors)


def principal(centred: Tensor, explained: float) -> tuple[Tensor, Tensor]:
    """The fewest components (D, r) with the share `explained` of the variance of `centred` (N, D) vectors.

    And the deviation along each, (r,).
    """
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)  # directions are rows, (min(N, D), D)
    cumulated = singular.square().cumsum(0)
    r = int((cumulated < explained * cumulated[-1]).sum()) + 1
    return directions[:r].T.contiguous(), singular[:r] / max(1, len(centred) - 1) ** 0.5
