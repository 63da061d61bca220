"""DFKDE: deep features and kernel density estimation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Collect, Detector, Phase, Scores, freeze
from okng.nn.features.backbones import Backbone
from okng.nn.vectors.kernel_density import KernelDensity


class DFKDE(Detector):
    """Gaussian kernels at OK images, in a few principal components of an image's mean features; odd is where few are.

    No paper describes it: it is a method of the library anomalib (Akcay et al., "Anomalib: A Deep Learning Library for
    Anomaly Detection", ICIP 2022). The kernels have the shape of the components' covariance and Scott's width (Scott,
    "Multivariate Density Estimation", 1992), n^(-1/(d + 4)) of it. The score is the negative logarithm of their mean
    but for a constant. There is no map.

    `backbone`, `stride`, `weights`: the frozen network and where its features are taken and averaged over the image.
    `components`: how many principal components are kept, at most; fewer where there are no more.

    Deliberately otherwise: the density goes by logarithms, where far images underflow and tie in the original, and is
    not put through a sigmoid whose constants nobody calibrated. All OK images are kept, where it takes 40,000 at most.
    Vectors are not divided by the longest of them: kernels of the data's own covariance don't see it.
    """

    pretrained = True
    collects_only = True

    def __init__(
        self, backbone: str = "efficientnet_lite0", stride: int = 32, weights: str = "imagenet", components: int = 16
    ):
        super().__init__()
        at_least(1, stride=stride, components=components)
        self.backbone = freeze(Backbone(backbone, [stride], weights))
        self.stride = stride
        self.density = KernelDensity(self.backbone.channels[0], components)

    @property
    def multiple(self) -> int:
        """The stride, so that its grid divides the input."""
        return self.stride

    def phases(self) -> Iterator[Phase]:
        """Gather every image's mean features, then their principal components."""
        seen: list[Tensor] = []

        yield Collect(
            "kernels",
            lambda batch: seen.append(batch.prepared[0]),
            lambda: self.density.learn(torch.cat(seen)),
            self.averaged,
        )

    def averaged(self, images: Tensor) -> Tensor:
        """The mean features (B, d) of `images` (B, 3, H, W)."""
        averaged: Tensor = self.backbone(images)[0].mean((2, 3))
        return averaged

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,)."""
        return Scores(self.density(self.averaged(images)))
