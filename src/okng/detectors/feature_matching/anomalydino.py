"""AnomalyDINO."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.patches import local_average, on_finest_grid
from okng.nn.features.vit import Tokens
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.coreset import WORKSPACE, StreamingCoreset, capacity_of, last_gap

BLOCK = 16384  # patches of the bank that are compared at once, which bounds the space
SQUARINGS = 8  # of a covariance: what is a hundredth less than its first direction keeps a thirteenth, a tenth nothing


class AnomalyDINO(Detector):
    """The patches of a few OK images, turned, and their directions alone: odd is far from the nearest by the cosine.

    Damm, Laszkiewicz, Lederer, Fischer, "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2",
    WACV 2025 (arXiv 2405.14529). Nothing is trained. A patch's distance is 1 - cos to the nearest patch of the bank,
    the image's score the mean of the highest hundredth of them.

    `backbone`, `strides`, `blocks`, `weights`: the frozen network, and where its features are taken: at `strides` of a
    CNN, or after `blocks` of a vision transformer, counted from 1, and its last LayerNorm; none for the last block, as
    the paper's of vit_small_patch14_dinov2. `rotations`: how many views of each image are learnt, itself the first,
    turned by even steps of a whole turn with the image mirrored beyond its borders: the paper's 8 are for 1 to 16
    images of parts that lie anyhow; with 1 each is learnt as it is, as it must be where a part that is turned is NG.
    `coreset`: the share of all patches that is kept, in (0, 1]; the paper keeps all. `foreground`: where it is given,
    patches of an inspected image whose first principal component is not above it are background, and score 0; the
    paper's 10 are in the units of vit_small_patch14_dinov2. Look at maps of OK images first: what the mask takes for
    background can't be NG. `sigma`: of the Gaussian that smooths the map, in pixels of the input. `memory`: GB that
    patches may take while it learns, if not all are kept.

    Deliberately otherwise: a CNN's features, which see less of what surrounds them than a transformer's, are averaged
    over 3 × 3 positions as PatchCore's. Images keep their aspect ratio at an area, rather than their shorter side at a
    length, and no border is cropped. The map is smoothed on the patch grid, before any enlargement. The first principal
    component is found by squaring the covariance, which an exported graph can do, and points to where its largest
    coefficient is positive, unless it then leaves the middle of the image out, as the paper has it.
    """

    pretrained = True
    collects_only = True
    bank: Tensor
    seen: Tensor
    radius: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        blocks: tuple[int, ...] = (),
        weights: str = "imagenet",
        rotations: int = 8,
        coreset: float = 1.0,
        foreground: float | None = None,
        sigma: float = 4.0,
        memory: float = 4.0,
    ):
        super().__init__()
        at_least(1, rotations=rotations)
        positive(sigma=sigma)
        if foreground is not None:
            positive(foreground=foreground)
        if not 0 < coreset <= 1:
            raise OkngError(f"coreset is a share of all patches such as 0.1, above 0 and up to 1, not {coreset}")
        if memory * 1e9 < 2 * WORKSPACE:
            raise OkngError(f"memory is in GB, {2 * WORKSPACE / 1e9:.2g} or more, not {memory}")
        self.backbone = freeze(Tokens(backbone, strides, blocks, weights, normed=True))
        self.rotations, self.coreset, self.foreground, self.sigma = rotations, coreset, foreground, sigma
        channels = sum(self.backbone.channels)
        self.capacity = capacity_of(memory * 1e9, channels)  # patches
        self.register_buffer("bank", torch.zeros(0, channels))  # (M, D), of length 1 each
        self.register_buffer("seen", torch.tensor(0))  # patches the bank stands for
        self.register_buffer("radius", torch.tensor(torch.inf))  # within which the bank covers them

    @property
    def multiple(self) -> int:
        """The patch's side, or the coarsest stride, so that every grid divides the input."""
        return self.backbone.multiple

    def phases(self) -> Iterator[Phase]:
        """Gather the patches of every image and its turned views; keep them, or a coreset."""
        yield self.gather(self.bank[:0], 0, math.inf)

    def update_phases(self) -> Iterator[Phase]:
        """Gather those of the new images beside the bank."""
        yield self.gather(self.bank, int(self.seen), float(self.radius))

    def gather(self, bank: Tensor, seen: int, radius: float) -> Collect:
        """One pass from a `bank` (M, D) on, which stands for so many patches `seen`, within `radius`."""
        kept = [bank]
        stream = StreamingCoreset(self.coreset, self.capacity, bank, seen, radius) if self.coreset < 1 else None

        def visit(batch: Batch) -> None:
            patches = batch.prepared[0].flatten(0, 1).to(self.bank.dtype)  # (B*R*h*w, D)
            kept.append(patches) if stream is None else stream.add(patches)

        def finish() -> Iterator[float]:
            if stream is None:
                self.bank = torch.cat(kept)
                self.seen.fill_(len(self.bank))
                self.radius.zero_()
                return
            picked: list[int] = []
            for accepted in stream.rounds():
                picked += accepted
                yield min(1.0, len(picked) / stream.count)
            self.bank = stream.points[picked].clone()
            self.seen.fill_(stream.seen)
            self.radius.fill_(stream.radius if math.isfinite(stream.radius) else last_gap(self.bank))

        return Collect("bank", visit, finish, self.views)

    def views(self, images: Tensor) -> Tensor:
        """Directions (B, R*h*w, D) of all patches of `images` (B, 3, H, W) and of their turned views."""
        step = 2 * math.pi / self.rotations
        each = [self.directions(self.tokens(turned(images, step * number))) for number in range(self.rotations)]
        return torch.cat([view.flatten(1, 2) for view in each], dim=1)

    def tokens(self, images: Tensor) -> Tensor:
        """Patch tokens (B, h, w, D) of `images` (B, 3, H, W)."""
        grids, _ = self.backbone(images)
        around = grids if self.backbone.transformer else [local_average(grid, 3) for grid in grids]
        return on_finest_grid(around).permute(0, 2, 3, 1)

    def directions(self, tokens: Tensor) -> Tensor:
        """`tokens` (B, h, w, D) at length 1."""
        return F.normalize(tokens, dim=3)

    def distances(self, directions: Tensor) -> Tensor:
        """1 - cos (B, h, w) of each of `directions` (B, h, w, D) to the nearest of the bank."""
        nearest = [(directions @ block.T).amax(3) for block in self.bank.split(BLOCK)]  # (B, h, w) each
        return (1 - torch.stack(nearest).amax(0)).clamp_min(0)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w), 0 to 2, smoothed, on the patch grid; `image` (B,) the mean of the highest 1 % of patches."""
        tokens = self.tokens(images)
        distances = self.distances(self.directions(tokens))
        if self.foreground is not None:
            distances = distances * foreground(tokens, self.foreground)
        flat = distances.flatten(1)  # (B, h*w)
        count = (torch.as_tensor(flat.shape[1]) // 100).clamp_min(1)  # by tensors: a graph counts anew for each size
        highest = flat.topk(count, dim=1).values  # type: ignore[arg-type]
        return Scores(highest.mean(1), gaussian_blur(distances, self.sigma / min(self.backbone.strides)))


def turned(images: Tensor, angle: float) -> Tensor:
    """`images` (B, C, H, W) turned about their middle by `angle` in radians, mirrored beyond their borders."""
    if angle == 0:
        return images
    height, width = images.shape[2:]
    c, s = math.cos(angle), math.sin(angle)
    affine = torch.tensor([[c, -s * height / width, 0], [s * width / height, c, 0]])  # of sides from -1 to 1
    grid = F.affine_grid(affine.expand(len(images), 2, 3), list(images.shape), align_corners=False).to(images)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def foreground(tokens: Tensor, above: float) -> Tensor:
    """1 where a patch of `tokens` (B, h, w, D) is foreground, 0 elsewhere, (B, h, w).

    The first principal component of the image's patches is over `above` there; if not more than 35 % of the middle 60 %
    by 60 % are, the negated component is taken (section 3.2 and the official code). Then dilated by 3 × 3, and closed.
    """
    first = first_component(tokens.flatten(1, 2)).view(tokens.shape[:3])  # (B, h, w)
    h, w = first.shape[1:]
    rows, columns = torch.arange(h, device=first.device), torch.arange(w, device=first.device)
    inner = ((rows >= h * 0.2) & (rows < h * 0.8))[:, None] & ((columns >= w * 0.2) & (columns < w * 0.8))  # (h, w)
    share = ((first > above) & inner).sum((1, 2)) / inner.sum().clamp_min(1)  # (B,)
    sign = torch.where(share > 0.35, 1.0, -1.0)[:, None, None]
    mask = (sign * first > above).to(first)
    for _ in range(2):  # dilate, then the dilation of the closing
        mask = F.max_pool2d(mask, 3, 1, 1)
    return -F.max_pool2d(-mask, 3, 1, 1)


def first_component(vectors: Tensor) -> Tensor:
    """The first principal component (B, N) of `vectors` (B, N, D); its direction's largest coefficient is positive."""
    centred = vectors - vectors.mean(1, keepdim=True)
    power = centred.transpose(1, 2) @ centred  # (B, D, D)
    for _ in range(SQUARINGS):  # all directions but the first fade
        power = power / power.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-30)[:, None, None]
        power = power @ power
    largest = power.diagonal(dim1=1, dim2=2).argmax(1)  # (B,): the column where the first direction is largest
    column = power.gather(2, largest[:, None, None].expand(-1, power.shape[1], 1))  # (B, D, 1)
    direction = F.normalize(column, dim=1, eps=1e-30)
    return (centred @ direction)[..., 0]
