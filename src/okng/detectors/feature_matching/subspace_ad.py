"""SubspaceAD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.patches import mean_of_highest, on_finest_grid
from okng.nn.features.vit import backbone_of
from okng.nn.vectors.principal_subspace import principal_subspace
from okng.nn.vectors.running_gaussians import RunningGaussians


class SubspaceAD(Detector):
    """The principal components of OK patches; a patch is as odd as what of it lies outside of their subspace.

    Lendering, Akdag, Bondarev, SubspaceAD, CVPR 2026 (arXiv 2602.23013). Nothing is trained and no patch is kept: the
    model is a mean, a basis and what it takes to go on, and as large after ten thousand images as after one. The score
    is |(x - mean) - CCᵀ(x - mean)|², the image's the mean of the highest hundredth of its patches'. Distance along the
    basis does not count, however far.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken, all brought to the finest
    grid. `blocks`: of a vision transformer, instead of `strides`: after which its patch tokens are taken, counted from
    1, and their mean is a patch (the paper: vit_giant_patch14_reg4_dinov2 after 23 to 29 of 40). `explained`: the share
    of the variance that the basis explains, above 0 and below 1. `rotations`: how many turned copies of each image are
    learnt beside it, the paper's 30 where there are 1 to 4 images and parts lie anyhow, else none.

    Deliberately otherwise: of a CNN, as by default, features are concatenated, for levels have different ones. Turned
    copies are turned by even steps of a whole turn rather than by angles that are drawn. The highest hundredth is
    taken, and the map given, on the patch grid, before any enlargement; the paper's smoothing by 3 × 3 px of the
    enlarged map is left out.
    """

    pretrained = True
    collects_only = True
    mean: Tensor
    basis: Tensor
    scatter: Tensor
    count: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        weights: str = "imagenet",
        explained: float = 0.99,
        rotations: int = 0,
        blocks: tuple[int, ...] = (),
    ):
        super().__init__()
        if not 0 < explained < 1:
            raise OkngError(f"explained is a share of the variance, above 0 and below 1, not {explained}")
        at_least(0, rotations=rotations)
        self.backbone = freeze(backbone_of(backbone, strides, blocks, weights))
        self.explained, self.rotations, self.averaged = explained, rotations, bool(blocks)
        d = self.backbone.channels[0] if blocks else sum(self.backbone.channels)
        self.register_buffer("mean", torch.zeros(d))  # (d,)
        self.register_buffer("basis", torch.zeros(d, 0))  # C, (d, r)
        self.register_buffer("scatter", torch.zeros(d, d))  # of all patches learnt, to go on from
        self.register_buffer("count", torch.tensor(0))  # patches

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Stream mean and covariance of all patches, then take the first principal components."""
        yield self.gather(RunningGaussians())

    def update_phases(self) -> Iterator[Phase]:
        """Go on from mean and covariance so far: the result is that of all images at once, up to rounding."""
        gaussian = RunningGaussians()
        gaussian.count = int(self.count)
        gaussian.mean, gaussian.scatter = self.mean.cpu().double()[None, None], self.scatter.cpu().double()[None]
        yield self.gather(gaussian)

    def gather(self, gaussian: RunningGaussians) -> Collect:
        """One pass through `gaussian`, of a single position; in float64 and on the CPU, as not every GPU has it."""

        def visit(batch: Batch) -> None:
            turned = [features.flatten(0, 1) for features in batch.prepared]  # (B*(1 + R), C_s, h_s, w_s)
            gaussian.update(self.patches(turned).flatten(0, 2)[None].cpu().double())  # (1, B*(1 + R)*h*w, d)

        def finish() -> None:
            self.mean = gaussian.mean[0, 0].to(self.mean)
            self.scatter = gaussian.scatter[0].to(self.scatter)
            self.basis = principal_subspace(gaussian.scatter[0], self.explained).to(self.basis)
            self.count.fill_(gaussian.count)

        return Collect("subspace", visit, finish, self.turned)

    def turned(self, images: Tensor) -> list[Tensor]:
        """Features of `images` (B, 3, H, W) and of their turned copies, (B, 1 + rotations, C_s, h_s, w_s) each."""
        step = 360 / (self.rotations + 1)
        # A turn by 0 degrees is the image itself; the corners of the others are black, as the paper's.
        copies = [self.backbone(TF.rotate(images, step * number)) for number in range(self.rotations + 1)]
        return [torch.stack(levels, dim=1) for levels in zip(*copies, strict=True)]

    def patches(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Patches (B, h, w, d) of the backbone's features, (B, C_s, h_s, w_s) for each stride."""
        joined = torch.stack(list(pyramid)).mean(0) if self.averaged else on_finest_grid(pyramid)
        return joined.permute(0, 2, 3, 1)

    def residuals(self, patches: Tensor) -> Tensor:
        """Squared lengths (B, h, w) of what of `patches` (B, h, w, d) lies outside of the subspace."""
        centred = patches - self.mean
        return (centred - centred @ self.basis @ self.basis.T).square().sum(3)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w), 0 and up, on the grid of the finest stride; `image` (B,) the mean of its highest 1 %."""
        residuals = self.residuals(self.patches(self.backbone(images)))
        return Scores(mean_of_highest(residuals, 0.01), residuals)
