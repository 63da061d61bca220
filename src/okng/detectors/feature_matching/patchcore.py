"""PatchCore."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.patches import local_average, mean_of_highest, on_finest_grid
from okng.nn.features.vit import backbone_of
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.coreset import WORKSPACE, StreamingCoreset, capacity_of, last_gap


class PatchCore(Detector):
    """A memory of what patches of OK images look like; a patch is as odd as it is far from the nearest one.

    Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken (the paper: wide_resnet50_2 at
    8 and 16). `blocks`: of a vision transformer, such as vit_small_patch14_dinov2, instead of `strides`: after which
    its patch tokens are taken, counted from 1, or from the end, -1 being the last. `neighbourhood`: side of the square
    over which features are averaged around each position (section 3.1). `coreset`: the share of all patches kept in
    memory, in (0, 1] (section 3.2); `coreset_size`: how many are kept, whatever their share. `score`: how the patches'
    distances make the image's: "reweighted" the highest weighted by how crowded the memory is there (equation 7, with
    `neighbours` = b; one has nothing to weigh by), "max" the highest as it is, "top1%" the mean of the highest
    hundredth. `sigma`: of the Gaussian that smooths the map, in pixels of the input (section 3.3). `memory`: GB that
    patches may take while it learns; as long as all of them fit, the coreset is of all at once, beyond that by merge
    and reduce (`nn/vectors/coreset.py`).

    Deliberately otherwise: features are averaged per channel rather than pooled to a fixed width, the coreset is
    selected in the full feature space without random projection (the batched greedy makes that affordable), and the map
    is smoothed on the patch grid, before any enlargement. Distances, and the weights of the score (equation 7), are the
    paper's; the authors' code smooths and scores squared distances, without weights.
    """

    pretrained = True
    collects_only = True
    bank: Tensor
    centre: Tensor
    seen: Tensor
    radius: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        weights: str = "imagenet",
        neighbourhood: int = 3,
        coreset: float = 0.01,
        coreset_size: int | None = None,
        score: Literal["top1%", "max", "reweighted"] = "reweighted",
        neighbours: int = 9,
        sigma: float = 4.0,
        memory: float = 4.0,
        blocks: tuple[int, ...] = (),
    ):
        super().__init__()
        if not 0 < coreset <= 1:
            number = f"; for a number of patches give coreset_size={coreset:.0f}" if coreset > 1 else ""
            raise OkngError(
                f"coreset is a share of all patches such as 0.01, above 0 and up to 1, not {coreset}{number}"
            )
        if coreset_size is not None:
            at_least(1, coreset_size=coreset_size)
        if neighbourhood < 1 or neighbourhood % 2 == 0:
            raise OkngError(f"neighbourhood is an odd number such as 3, not {neighbourhood}")
        at_least(1, neighbours=neighbours)
        positive(sigma=sigma)
        if memory * 1e9 < 2 * WORKSPACE:
            raise OkngError(f"memory is in GB, {2 * WORKSPACE / 1e9:.2g} or more, not {memory}")
        self.backbone = freeze(backbone_of(backbone, strides, blocks, weights))
        self.neighbourhood, self.coreset, self.coreset_size, self.score = neighbourhood, coreset, coreset_size, score
        self.neighbours, self.sigma = neighbours, sigma
        channels = sum(self.backbone.channels)
        self.capacity = capacity_of(memory * 1e9, channels)  # patches
        self.register_buffer("bank", torch.zeros(0, channels))  # (M, D)
        self.register_buffer("centre", torch.zeros(channels))  # (D,)
        self.register_buffer("seen", torch.tensor(0))  # patches the bank stands for
        self.register_buffer("radius", torch.tensor(torch.inf))  # within which the bank covers them

    @classmethod
    def stored_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """In files without a `coreset_size`, a `coreset` of 1 or more was the number of patches."""
        if "coreset_size" not in arguments and arguments.get("coreset", 0) >= 1:
            return {**arguments, "coreset": 0.01, "coreset_size": max(1, round(arguments["coreset"]))}
        return arguments

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Gather every patch, keep a coreset."""
        yield self.gather(self.stream())

    def update_phases(self) -> Iterator[Phase]:
        """Gather the new images' patches beside the memory, keep a coreset of both.

        The memory grows by the share `coreset` of the new patches, and by what else it takes to cover them as the old
        ones are: no distance rises, and no score by more than 1 / (b - 1), an eighth by default, through its weight.
        With a `coreset_size`, or where the new patches do not fit into `memory`, it is selected anew from both.
        """
        yield self.gather(self.stream(self.bank + self.centre, int(self.seen), float(self.radius)))

    def stream(self, bank: Tensor | None = None, seen: int = 0, radius: float = math.inf) -> StreamingCoreset:
        """What thins the patches, from the beginning or from a `bank` (M, D) of `seen` patches on."""
        return StreamingCoreset(self.coreset, self.capacity, bank, seen, radius, self.coreset_size)

    def gather(self, stream: StreamingCoreset) -> Collect:
        """One pass through `stream`, whose coreset becomes the memory."""

        def visit(batch: Batch) -> None:
            stream.add(self.described(batch.prepared).flatten(0, 2).to(self.bank.dtype))  # (B*h*w, D)

        def finish() -> Iterator[float]:
            picked: list[int] = []
            for accepted in stream.rounds():
                picked += accepted
                yield min(1.0, len(picked) / stream.count)
            self.bank = stream.points[picked]
            self.centre = self.bank.mean(0)
            self.bank -= self.centre
            self.seen.fill_(stream.seen)
            self.radius.fill_(stream.radius if math.isfinite(stream.radius) else last_gap(self.bank))

        return Collect("memory", visit, finish, self.backbone)

    def patches(self, images: Tensor) -> Tensor:
        """Patch descriptors (B, h, w, D) of `images` (B, 3, H, W)."""
        return self.described(self.backbone(images))

    def described(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Patch descriptors (B, h, w, D) of the backbone's features, (B, C_s, h_s, w_s) for each stride."""
        features = [local_average(f, self.neighbourhood) for f in pyramid]
        return on_finest_grid(features).permute(0, 2, 3, 1)

    def forward(self, images: Tensor) -> Scores:
        """Distances to the memory: `map` (B, h, w), smoothed, on the grid of the finest stride, `image` (B,)."""
        patches = self.patches(images) - self.centre  # (B, h, w, D)
        queries = patches.flatten(0, 2)  # (B*h*w, D)
        distances = self.nearest(queries)[0].clamp_min(0).sqrt().view(patches.shape[:3])  # (B, h, w)
        smooth = gaussian_blur(distances, self.sigma / min(self.backbone.strides))
        if self.score == "top1%":
            return Scores(mean_of_highest(distances, 0.01), smooth)
        highest, place = distances.flatten(1).max(1)  # (B,), (B,)
        if self.score == "max":
            return Scores(highest, smooth)
        rows = place + torch.arange(images.shape[0], device=place.device) * distances[0].numel()  # (B,)
        return Scores(self.weight(queries[rows]) * highest, smooth)

    def nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance (Q,) and index (Q,) of the nearest memory of each of `queries` (Q, D).

        |q - m|² = |q|² + |m|² - 2qm: one matrix product; |q|² does not change which is nearest, so it comes last.
        """
        # In blocks, which bounds the memory; an exported graph, whose number of rows is open, takes them all at once.
        blocks = [queries] if torch.onnx.is_in_onnx_export() else queries.split(8192)
        norms = self.bank.square().sum(1)  # (M,)
        best = [torch.addmm(norms, block, self.bank.T, alpha=-2).min(1) for block in blocks]
        squared = torch.cat([b.values for b in best]) + queries.square().sum(1)
        return squared, torch.cat([b.indices for b in best])

    def weight(self, oddest: Tensor) -> Tensor:
        """The weight of equation 7 (B,), 1 - 1/b to 1, of each image's oddest patch (B, D).

        w = 1 - exp |q - m*| / sum of exp |q - m| over the b memories nearest to m*, itself among them, where m* is the
        memory nearest to q. It takes b of 2 or more: by m* alone all weights would be 0, and here they are 1.
        """
        b = min(self.neighbours, len(self.bank))
        if b == 1:
            return torch.ones_like(oddest[:, 0])
        star = self.bank[self.nearest(oddest)[1]]  # (B, D), found again: the graph then ranks no other patch's memories
        norms = self.bank.square().sum(1)  # (M,)
        around = torch.addmm(norms, star, self.bank.T, alpha=-2).topk(b, largest=False).indices  # (B, b)
        distances = torch.linalg.vector_norm(oddest[:, None] - self.bank[around], dim=2)  # (B, b)
        return 1 - torch.exp(torch.linalg.vector_norm(oddest - star, dim=1) - distances.logsumexp(1))
