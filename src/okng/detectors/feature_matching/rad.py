"""RAD: retrieval-based anomaly detection."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.nn.features.patches import local_average, mean_of_highest
from okng.nn.features.vit import Tokens, is_transformer

PAPERS = (4, 7, 10, 12)  # of the twelve blocks of a ViT-B
BLOCK = 32  # OK images that are compared at once, which bounds the space


class RAD(Detector):
    """The most similar OK images are looked up; a patch is compared with theirs at nearly its own place, at each depth.

    Zhang, Li, Henderson, Aragon-Camarasa, Long, "Is (Task-Specific) Training Necessary for Anomaly Detection?", ICML
    2026 (arXiv 2601.22763). Nothing is trained. One bank serves several products: images of others are not looked up as
    long as `neighbours` is at most the images of each. Similar are images by the cosine of their class tokens at the
    deepest level. A patch's score at a level is 1 - the largest cosine to the patches of those images within a window
    around its place, its score the mean of the levels', and the image's the mean of the highest hundredth of its
    patches'.

    `backbone`, `strides`, `blocks`, `weights`: the frozen network and where its tokens are taken: at `strides` of a
    CNN, or after `blocks` of a vision transformer, counted from 1, and its last LayerNorm; none for the paper's four of
    vit_base_patch16_dinov3. `neighbours`: K, how many OK images are looked up, all where there are fewer (the paper:
    150 of MVTec AD's fifteen products, 900 of VisA's). `radius`: of the window, in positions of a level's grid to
    either side, 0 for the same place alone (the paper: 1 on MVTec AD, 2 on VisA, 0 on Real-IAD); none compares with all
    places, for parts that lie anyhow.

    The bank holds all tokens of all images at half precision: 0.14 MB an image of 256 px with the default network, 4.8
    MB at 448 px with the paper's.

    Deliberately otherwise: of a CNN the class token is the mean of the level, and patches, which see less of what
    surrounds them, are averaged over 3 × 3 positions as PatchCore's. Images have one shape, brought to it whole rather
    than cropped. The highest hundredth is taken, and the map given, on the patch grid; the paper's smoothing of the
    enlarged map, by a ninth of a patch, is left out.
    """

    fixed_size = True
    pretrained = True
    collects_only = True
    classes: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        blocks: tuple[int, ...] = (),
        weights: str = "imagenet",
        neighbours: int = 150,
        radius: int | None = 1,
    ):
        super().__init__()
        at_least(1, neighbours=neighbours)
        at_least(0, radius=radius)
        blocks = blocks or (PAPERS if is_transformer(backbone) else ())
        self.backbone = freeze(Tokens(backbone, strides, blocks, weights, normed=True))
        self.neighbours, self.radius = neighbours, radius
        self.register_buffer("classes", torch.zeros(0, self.backbone.channels[-1]))  # (N, D), of length 1 each
        for level, channels in enumerate(self.backbone.channels):
            # (N, h, w, D), of length 1 each.
            self.register_buffer(f"bank_{level}", torch.zeros(0, 0, 0, channels, dtype=torch.float16))

    @property
    def multiple(self) -> int:
        """The patch's side, or the coarsest stride, so that every grid divides the input."""
        return self.backbone.multiple

    @property
    def banks(self) -> list[Tensor]:
        """The patches of all OK images at each level, (N, h, w, D)."""
        return [self.get_buffer(f"bank_{level}") for level in range(len(self.backbone.channels))]

    def phases(self) -> Iterator[Phase]:
        """Keep the tokens of every image."""
        yield self.gather([])

    def update_phases(self) -> Iterator[Phase]:
        """Keep those of the new images too: the result is that of all images at once."""
        yield self.gather([(self.classes, *self.banks)])

    def gather(self, seen: list[tuple[Tensor, ...]]) -> Collect:
        """One pass, from what was `seen` on: class tokens (n, D), and patches of each level (n, h, w, D)."""

        def visit(batch: Batch) -> None:
            classes, *patches = batch.prepared
            seen.append((classes.to(self.classes.dtype), *(level.half() for level in patches)))

        def finish() -> None:
            with torch.autocast(self.classes.device.type, enabled=False):  # which joins no halves on a CPU
                self.classes, *banks = (torch.cat(parts) for parts in zip(*seen, strict=True))
            for level, bank in enumerate(banks):
                setattr(self, f"bank_{level}", bank)

        return Collect("bank", visit, finish, self.directions)

    def directions(self, images: Tensor) -> list[Tensor]:
        """The class token (B, D) of `images` (B, 3, H, W), then each level's patches (B, h, w, D), at length 1."""
        grids, before = self.backbone(images)
        around = grids if self.backbone.transformer else [local_average(grid, 3) for grid in grids]
        return [F.normalize(before[-1][:, 0], dim=1), *(F.normalize(g.permute(0, 2, 3, 1), dim=3) for g in around)]

    def retrieved(self, classes: Tensor) -> Tensor:
        """Which OK images (B, K) are nearest by their class token to those of `classes` (B, D)."""
        return (classes @ self.classes.T).topk(min(self.neighbours, len(self.classes))).indices

    def distances(self, patches: Tensor, bank: Tensor, nearest: Tensor) -> Tensor:
        """1 - cos (B, h, w) of `patches` (B, h, w, D) to the nearest within the window, in images `nearest` (B, K).

        `bank` (N, h, w, D) is the level's. Rather than each place's window, the patches are moved: beside each place of
        an OK image stand all patches whose window it is in, so that one product serves all places.
        """
        b, h, w = patches.shape[0], patches.shape[1], patches.shape[2]
        if self.radius is None:
            queries = patches.flatten(1, 2)  # (B, h*w, D)
            found = [
                (queries @ at_length_1(bank[some], patches).flatten(1, 3).transpose(1, 2)).amax(2).view(b, h, w)
                for some in nearest.split(1, dim=1)  # one OK image of each query after the other
            ]
        else:
            r = self.radius
            around = F.pad(patches, (0, 0, r, r, r, r))  # (B, h + 2r, w + 2r, D)
            moves = [(down, right) for down in range(-r, r + 1) for right in range(-r, r + 1)]
            moved = [around[:, r - down : r - down + h, r - right : r - right + w] for down, right in moves]
            queries = torch.stack(moved, dim=4)  # (B, h, w, D, O), O = (2r + 1)²
            found = []
            for some in nearest.split(BLOCK, dim=1):
                known = at_length_1(bank[some], patches).permute(0, 2, 3, 1, 4)  # (B, h, w, k, D)
                cosines = F.pad((known @ queries).amax(3), (0, 0, r, r, r, r), value=-2.0)  # (B, h + 2r, w + 2r, O)
                for number, (down, right) in enumerate(moves):  # back to where the patches came from
                    found.append(cosines[:, r + down : r + down + h, r + right : r + right + w, number])
        return (1 - torch.stack(found).amax(0)).clamp_min(0)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w), 0 to 2, on the finest level's grid; `image` (B,) the mean of its highest 1 %."""
        classes, *levels = self.directions(images)
        nearest = self.retrieved(classes)
        each = [self.distances(level, bank, nearest) for level, bank in zip(levels, self.banks, strict=True)]
        grid = each[0].shape[1:]
        fine = [F.interpolate(d[:, None], grid, mode="bilinear", align_corners=False)[:, 0] for d in each]
        fused = torch.stack(fine).mean(0)  # (B, h, w)
        return Scores(mean_of_highest(fused, 0.01), fused)


def at_length_1(known: Tensor, like: Tensor) -> Tensor:
    """`known` (..., D) in the precision of `like`, and at length 1 again, which half precision misses by 1e-4."""
    return F.normalize(known.to(like), dim=-1)
