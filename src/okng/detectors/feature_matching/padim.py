"""PaDiM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from okng.checks import positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.vit import backbone_of
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.running_gaussians import RunningGaussians


class PaDiM(Detector):
    """A Gaussian of the features at each position; a position is as odd as its Mahalanobis distance.

    Defard, Setkov, Loesch, Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection
    and Localization", ICPR Workshops 2021. Parts must lie alike in all images: a position knows only itself.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken, all brought to the
    finest grid by repetition (the paper: resnet18, wide_resnet50_2 or efficientnet_b5, at 4, 8 and 16).
    `blocks`: of a vision transformer, such as vit_small_patch14_dinov2, instead of `strides`: after which its
    patch tokens are taken, counted from 1, or from the end, -1 being the last. `dimensions`: how many of all
    strides' channels are kept, drawn at random once (the paper: 100 for resnet18, 550 for wide_resnet50_2). The
    model holds a `dimensions`² matrix per position: 164 MB for 100 at 256 px. `epsilon`: what is added to the
    diagonal of each covariance, so that fewer images than `dimensions` are enough. `sigma`: of the Gaussian
    that smooths the map, in pixels of the input.

    Deliberately otherwise: the map is smoothed on the patch grid, before any enlargement, with `sigma` in
    cells of it; the image's score is the maximum of that smoothed map.
    """

    fixed_size = True
    pretrained = True
    collects_only = True
    subset: Tensor
    mean: Tensor
    whitening: Tensor
    count: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        dimensions: int = 100,
        epsilon: float = 0.01,
        sigma: float = 4.0,
        blocks: tuple[int, ...] = (),
    ):
        super().__init__()
        positive(epsilon=epsilon, sigma=sigma)
        self.backbone = freeze(backbone_of(backbone, strides, blocks, weights))
        available = sum(self.backbone.channels)
        if not 1 <= dimensions <= available:
            raise OkngError(
                f"dimensions is 1 to {available}, the channels {backbone} has at these strides, not {dimensions}"
            )
        self.epsilon, self.sigma = epsilon, sigma
        self.register_buffer("subset", torch.randperm(available)[:dimensions].sort().values)  # (d,)
        self.register_buffer("mean", torch.zeros(0, dimensions))  # (h*w, d)
        self.register_buffer("whitening", torch.zeros(0, dimensions, dimensions))  # (h*w, d, d)
        self.register_buffer("count", torch.tensor(0))  # images

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Stream the mean and the covariance of every position; no embedding is kept."""
        yield self.gather(RunningGaussians())

    def update_phases(self) -> Iterator[Phase]:
        """Go on from the Gaussians so far: the result is that of all images at once, up to rounding."""
        gaussians = RunningGaussians()
        gaussians.count, gaussians.mean = int(self.count), self.mean[:, None].clone()
        gaussians.scatter = unwhiten(self.whitening, gaussians.count, self.epsilon)
        yield self.gather(gaussians)

    def gather(self, gaussians: RunningGaussians) -> Collect:
        """One pass through `gaussians`, which become the model."""

        def visit(batch: Batch) -> None:
            gaussians.update(self.aligned(batch.prepared).to(self.mean.dtype))  # full precision from here on

        def finish() -> None:
            self.mean = gaussians.mean[:, 0]
            self.whitening = whiten_(gaussians.scatter, gaussians.count, self.epsilon)
            self.count.fill_(gaussians.count)

        return Collect("gaussians", visit, finish, self.chosen)

    def embed(self, images: Tensor) -> Tensor:
        """Vectors (h*w, B, d) of `images` (B, 3, H, W): the chosen channels at each position of the finest grid."""
        return self.aligned(self.chosen(images))

    def chosen(self, images: Tensor) -> list[Tensor]:
        """The chosen channels of each stride, (B, d_s, h_s, w_s), of `images` (B, 3, H, W); d_s may be 0."""
        chosen, start, kept = self.subset.tolist(), 0, []
        for features in self.backbone(images):
            end = start + features.shape[1]
            places = [c - start for c in chosen if start <= c < end]
            kept.append(features[:, places] if places else features[:, :0])  # no graph takes an empty list
            start = end
        return kept

    def aligned(self, chosen: Sequence[Tensor]) -> Tensor:
        """Vectors (h*w, B, d) at each position of the finest grid, of what `chosen` made."""
        h, w = chosen[0].shape[-2:]
        kept = []
        for features in chosen:
            if features.shape[1]:
                vectors = features.flatten(2).permute(2, 0, 1).contiguous()  # (h_s*w_s, B, d_s)
                kept.append(vectors[parents(h, w, *features.shape[-2:]).to(vectors.device)])  # (h*w, B, d_s)
        return torch.cat(kept, dim=2)

    def distances(self, images: Tensor) -> Tensor:
        """Mahalanobis distances |L⁻¹(x - mean)| (B, h, w), not smoothed: one matrix product per position."""
        centred = self.embed(images) - self.mean[:, None]  # (h*w, B, d)
        white = torch.bmm(self.whitening, centred.transpose(1, 2))  # (h*w, d, B)
        distances: Tensor = torch.linalg.vector_norm(white, dim=1)  # (h*w, B)
        finest = min(self.backbone.strides)
        return distances.T.reshape(-1, images.shape[2] // finest, images.shape[3] // finest)

    def forward(self, images: Tensor) -> Scores:
        """Smoothed distances: `map` (B, h, w) on the grid of the finest stride, `image` (B,) its maximum."""
        smoothed = gaussian_blur(self.distances(images), self.sigma / min(self.backbone.strides))
        return Scores(smoothed.amax((1, 2)), smoothed)


def parents(h: int, w: int, coarse_h: int, coarse_w: int) -> Tensor:
    """The position on the coarse grid that each position of the fine one (h, w) lies in, rows first: (h*w,)."""
    rows, columns = torch.arange(h) * coarse_h // h, torch.arange(w) * coarse_w // w
    return (rows[:, None] * coarse_w + columns).flatten()


def whiten_(scatter: Tensor, count: int, epsilon: float, rows: int = 256) -> Tensor:
    """Turn `scatter` (P, d, d) of `count` vectors in place into L⁻¹; LLᵀ = sample covariance + epsilon · I.

    In float64 and on the CPU, as not every accelerator has it; a block of positions at a time keeps that
    small. One vector alone has no covariance: epsilon · I is left.
    """
    identity = torch.eye(scatter.shape[1], dtype=torch.float64)
    for block in scatter.split(rows):  # views, (rows, d, d)
        covariance = block.cpu().double() / max(1, count - 1) + epsilon * identity
        factor = torch.linalg.cholesky(covariance)
        block.copy_(torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False))
    return scatter


def unwhiten(whitening: Tensor, count: int, epsilon: float, rows: int = 256) -> Tensor:
    """The scatter (P, d, d) that `whiten_` turned into `whitening` (P, d, d): LLᵀ - epsilon · I, times count - 1."""
    identity = torch.eye(whitening.shape[1], dtype=torch.float64)
    scatter = torch.empty_like(whitening)
    for block, recovered in zip(whitening.split(rows), scatter.split(rows), strict=True):  # views, (rows, d, d)
        factor = torch.linalg.solve_triangular(block.cpu().double(), identity.expand_as(block), upper=False)
        recovered.copy_((factor @ factor.mT - epsilon * identity) * max(1, count - 1))
    return scatter
