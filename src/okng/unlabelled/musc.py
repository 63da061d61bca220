"""MuSc: mutual scoring of unlabelled images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least
from okng.errors import OkngError
from okng.nn.features.patches import local_average
from okng.nn.features.vit import Tokens, is_transformer

PAPERS = (5, 11, 17, 23)  # of the 24 blocks of a ViT-L


class MuSc(nn.Module):
    """Unlabelled images score one another: an OK patch has a close match in most other images, an odd one in few.

    Li, Huang, Xue, Zhou, "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the
    Unlabeled Images", ICLR 2024 (arXiv 2401.16753). Nothing is learnt, and of one image nothing can be said: a score is
    one among the others that were given, and most of those have to be OK in every place.

    `backbone`, `strides`, `blocks`, `weights`: the frozen network and where its tokens are taken: at `strides` of a
    CNN, or after `blocks` of a vision transformer, counted from 1; none for the paper's four of 24, of which its
    network, vit_large_patch14_clip_quickgelu_336, has so many. `sides`: of the squares of tokens that are averaged, odd
    numbers (section 3.1). `share`: of the other images, the nearest, whose mean distance is a patch's score (section
    3.2). `keep`: with how many of the most similar images, itself among them, an image's score is averaged, for each of
    these (section 3.3).

    Deliberately otherwise: class tokens are a block's output, without the last layers that the authors' have behind
    them; images keep their aspect ratios, and may have different ones.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        blocks: tuple[int, ...] = (),
        weights: str = "imagenet",
        sides: tuple[int, ...] = (1, 3, 5),
        share: float = 0.3,
        keep: tuple[int, ...] = (1, 2, 3),
    ):
        super().__init__()
        if not sides or any(side < 1 or side % 2 == 0 for side in sides):
            raise OkngError(f"sides are odd numbers such as 1,3,5, not {sides}")
        if not 0 < share <= 1:
            raise OkngError(f"share is of the other images, above 0 and up to 1, not {share}")
        if not keep:
            raise OkngError("keep is one number of images or several, such as 1,2,3")
        at_least(1, keep=min(keep))
        self.backbone = Tokens(backbone, strides, blocks or (PAPERS if is_transformer(backbone) else ()), weights)
        self.backbone.eval().requires_grad_(False)
        self.sides, self.share, self.keep = sides, share, keep

    @torch.no_grad()
    def tokens(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Each level's patch tokens (B, D, h, w) of `images` (B, 3, H, W) in [0, 1]; the last class token (B, D)."""
        grids, before = self.backbone(images)
        return grids, before[-1][:, 0]

    @torch.no_grad()
    def forward(self, grids: Sequence[Sequence[Tensor]], classes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores (N,) from 0 to 1, and maps (h, w), of N images.

        `grids`: of each image its patch tokens at each level, (D, h, w). `classes`: their class tokens (N, D). A map is
        on its image's finest grid.
        """
        maps = [torch.zeros(each[0].shape[1:], device=each[0].device) for each in grids]
        for level in zip(*grids, strict=True):  # all images'
            for side in self.sides:
                scores = mutual_scores([aggregated(grid, side) for grid in level], self.share)
                for found, grid, total in zip(scores, level, maps, strict=True):
                    place = found.view(1, 1, *grid.shape[1:])
                    total += F.interpolate(place, total.shape, mode="bilinear", align_corners=False)[0, 0]
        count = len(self.sides) * len(grids[0])
        maps = [total / count for total in maps]
        return agreed(torch.stack([each.max() for each in maps]), classes, self.keep), maps


def aggregated(grid: Tensor, side: int) -> Tensor:
    """Tokens (h*w, D), of length 1, of a `grid` (D, h, w): normalised as a whole, then means of squares of `side`."""
    around = local_average(F.layer_norm(grid, grid.shape)[None], side)[0]  # (D, h, w)
    return F.normalize(around.flatten(1).T, dim=1)


def mutual_scores(images: Sequence[Tensor], share: float) -> list[Tensor]:
    """The score (L_i,) of each token of each of `images` (L_i, D): how far the nearest of the other images are.

    Of each other image the distance of its nearest token counts, and of these the smallest `share`, one at least.
    """
    count = max(1, int(share * (len(images) - 1)))
    distances: list[list[Tensor]] = [[] for _ in images]
    for i, one in enumerate(images):
        for j, other in enumerate(images[:i]):
            products = one @ other.T  # (L_i, L_j); of length 1, the largest is the nearest
            # The distance itself is of the difference: 2 - 2 cos loses what is small.
            distances[i].append((one - other[products.argmax(1)]).square().sum(1).sqrt())
            distances[j].append((other - one[products.argmax(0)]).square().sum(1).sqrt())
    return [torch.stack(each).topk(count, dim=0, largest=False).values.mean(0) for each in distances]


def agreed(scores: Tensor, classes: Tensor, keep: Sequence[int]) -> Tensor:
    """`scores` (N,) brought to 0 to 1 and averaged with those of images with similar `classes` (N, D): (N,).

    For each number of `keep` so many of the most similar, itself among them, weigh by their cosine; of these the mean.
    """
    span = scores.max() - scores.min()
    scores = (scores - scores.min()) / span if span > 0 else torch.zeros_like(scores)
    directions = F.normalize(classes, dim=1)
    similar = (directions @ directions.T).clamp_min(0)  # (N, N)
    similar = similar.fill_diagonal_(1.0)
    found = []
    for number in keep:
        nearest = similar.topk(min(number, len(scores)), dim=1)  # (N, k)
        weights = nearest.values / nearest.values.sum(1, keepdim=True)
        found.append((weights * scores[nearest.indices]).sum(1))
    return torch.stack(found).mean(0)
