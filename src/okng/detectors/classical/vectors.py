"""What the classical methods share: one vector for each image, learnt from all at once and judged one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.images.contrast import UnitRange, contrast_normalised

PIXELS = "pixels"
NO_VARIANCE = 1e-10  # of the largest variance: what is below is rounding
STRIDE, SMALLEST = 32, 224  # of a backbone's last features; px, to which the shorter side of smaller images is enlarged


class ImageVectors(nn.Module):
    """A vector for each image: its pixels, or a backbone's last features averaged over the image.

    `features`: "pixels" or the backbone's name; `weights` are its. `contrast`: whether pixels are normalised first,
    image by image. What is learnt (`learn`): the range of all values, which becomes [0, 1]; the mean, which becomes 0;
    and, if `components` is a share of the variance and not None, the principal components that explain it.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, features: str, weights: str, contrast: bool, components: float | None):
        super().__init__()
        if components is not None and not 0 < components < 1:
            raise OkngError(f"components is a share of the variance, above 0 and below 1, or none, not {components}")
        self.contrast, self.reduces = contrast, components is not None
        self.share = components or 1.0
        self.backbone = None if features == PIXELS else freeze(Backbone(features, (STRIDE,), weights))
        self.range = UnitRange()
        self.register_buffer("mean", torch.zeros(0))  # (D,)
        self.register_buffer("directions", torch.zeros(0, 0))  # (d, D)

    def raw(self, images: Tensor) -> Tensor:
        """The vectors (B, D) of `images` (B, C, H, W), before all that is learnt."""
        if self.backbone is None:
            return (contrast_normalised(images) if self.contrast else images).flatten(1)
        (features,) = self.backbone(enlarged(images.expand(-1, 3, -1, -1)))  # (B, D, h, w)
        pooled: Tensor = features.mean((2, 3))
        return pooled

    def learn(self, raw: Tensor) -> None:
        """Take range and principal components from `raw` (N, D)."""
        self.range.learn(raw, raw)
        scaled = self.range(raw)
        self.mean = scaled.cpu().double().mean(0).to(raw)
        if self.reduces:
            variances, directions = principal_axes(scaled)
            self.directions = directions[: leading(variances, self.share)].to(raw).contiguous()

    def reduced(self, raw: Tensor) -> Tensor:
        """`raw` (B, D) in the learnt range, from the mean on, along the learnt components: (B, d)."""
        apart: Tensor = self.range(raw) - self.mean
        return apart @ self.directions.T if self.reduces else apart

    def forward(self, images: Tensor) -> Tensor:
        """The vectors (B, d) of `images` (B, C, H, W)."""
        return self.reduced(self.raw(images))


class VectorDetector(Detector):
    """A detector of the vectors of images: `learn` sees those of all OK images at once, `score` some."""

    fixed_size: ClassVar[bool] = True  # a pixel's place is what its value is compared at
    collects_only: ClassVar[bool] = True

    def __init__(self, features: str, weights: str, contrast: bool, components: float | None):
        super().__init__()
        self.vectors = ImageVectors(features, weights, contrast, components)

    @property
    def multiple(self) -> int:
        """What both sides of an input are rounded to: of pixels to nothing."""
        return 1 if self.vectors.backbone is None else STRIDE

    def phases(self) -> Iterator[Phase]:
        """One pass for the vectors; then they are learnt."""
        seen: list[Tensor] = []

        def visit(batch: Batch) -> None:
            seen.append(batch.prepared[0].float())

        def finish() -> None:
            raw = torch.cat(seen)  # (N, D)
            self.vectors.learn(raw)
            self.learn(self.vectors.reduced(raw).float())

        yield Collect("vectors", visit, finish, self.vectors.raw)

    def learn(self, vectors: Tensor) -> None:
        """Learn from `vectors` (N, d) of OK images, in float32."""
        raise NotImplementedError

    def score(self, vectors: Tensor) -> Tensor:
        """How odd `vectors` (B, d) are, (B,)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,), by the image's vector; no map."""
        return Scores(self.score(self.vectors(images)))


def enlarged(images: Tensor) -> Tensor:
    """`images` (B, C, H, W), those with a shorter side below 224 px enlarged to about that, in multiples of 32."""
    h, w = images.shape[-2:]
    if min(h, w) >= SMALLEST:
        return images
    height, width = (STRIDE * round(side * SMALLEST / min(h, w) / STRIDE) for side in (h, w))
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def principal_axes(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Along which directions `vectors` (n, d) vary, and how much: variances (k,) float64, the most first, and (k, d).

    By the smaller of the covariance and the products of the vectors with each other, so that d may be the pixels of a
    photograph. Directions along which they vary by less than rounding does are left out; one is always there, and 0
    where nothing varies.
    """
    exact = vectors.cpu().double()  # on the CPU first: not every GPU has float64
    centred = exact - exact.mean(0)  # (n, d)
    n, d = centred.shape
    few = n < d
    variances, axes = torch.linalg.eigh((centred @ centred.T if few else centred.T @ centred) / n)  # ascending
    kept = max(1, int((variances > NO_VARIANCE * variances[-1]).sum()))
    variances, axes = variances.flip(0)[:kept].clamp_min(0), axes.flip(1)[:, :kept].T  # (k,), (k, n) or (k, d)
    directions = axes @ centred if few else axes * (variances[:1] > 0)  # (k, d)
    return variances, directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True).clamp_min(1e-12)


def leading(variances: Tensor, share: float) -> int:
    """How many of `variances` (k,), the most first, together are at least `share` of their sum."""
    explained = variances.cumsum(0)
    return int((explained >= share * explained[-1] * (1 - 1e-12)).int().argmax()) + 1
