"""DFKDE: deep features and kernel density estimation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Collect, Detector, Phase, Scores, freeze
from okng.nn.backbones import Backbone
from okng.nn.distances import squared_distances

FLAT = 1e-6  # of the largest deviation: what a component must vary by to be kept


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
    mean: Tensor
    whitening: Tensor
    references: Tensor

    def __init__(
        self, backbone: str = "efficientnet_lite0", stride: int = 32, weights: str = "imagenet", components: int = 16
    ):
        super().__init__()
        at_least(1, stride=stride, components=components)
        self.backbone = freeze(Backbone(backbone, [stride], weights))
        self.stride, self.components = stride, components
        d = self.backbone.channels[0]
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("whitening", torch.zeros(d, 0))  # to components in units of a kernel's deviation, (d, r)
        self.register_buffer("references", torch.zeros(0, 0))  # the OK images there, (N, r)

    @property
    def multiple(self) -> int:
        """The stride, so that its grid divides the input."""
        return self.stride

    def phases(self) -> Iterator[Phase]:
        """Gather every image's mean features, then their principal components."""
        seen: list[Tensor] = []

        def finish() -> None:
            vectors = torch.cat(seen).cpu().double()  # (N, d), on the CPU first: not every GPU has float64
            mean = vectors.mean(0)
            whitening = self.kernels(vectors - mean)
            self.mean, self.whitening = mean.to(self.mean), whitening.to(self.mean)
            self.references = ((vectors - mean) @ whitening).to(self.mean)

        yield Collect("kernels", lambda batch: seen.append(batch.prepared[0]), finish, self.averaged)

    def kernels(self, centred: Tensor) -> Tensor:
        """W (d, r) float64 for `centred` (N, d): along its columns OK images vary by 1 over Scott's width."""
        n = len(centred)
        _, singular, directions = torch.linalg.svd(centred, full_matrices=False)  # directions are rows, (min(N, d), d)
        deviations = singular / math.sqrt(max(1, n - 1))
        varies = deviations > FLAT * deviations.amax().clamp_min(1e-12)
        r = max(1, min(self.components, int(varies.sum())))
        width = n ** (-1 / (r + 4))
        whitening: Tensor = directions[:r].T / (width * deviations[:r].clamp_min(FLAT))
        return whitening

    def averaged(self, images: Tensor) -> Tensor:
        """The mean features (B, d) of `images` (B, 3, H, W)."""
        averaged: Tensor = self.backbone(images)[0].mean((2, 3))
        return averaged

    def surprise(self, vectors: Tensor) -> Tensor:
        """The negative logarithm of the mean kernel at `vectors` (B, d), each 1 at its own middle: (B,), 0 and up."""
        squared = squared_distances((vectors - self.mean) @ self.whitening, self.references)  # (B, N)
        found: Tensor = math.log(max(1, len(self.references))) - (squared / -2).logsumexp(1)
        return found

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,)."""
        return Scores(self.surprise(self.averaged(images)))
