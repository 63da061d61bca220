"""CFLOW-AD."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import on_finest_grid
from okng.nn.flows.coupling import Rotation, Sequence, all_in_one, surprise


class CFLOW(Detector):
    """A flow per stride learns how probable a feature vector is on OK images at its place.

    Gudovskiy, Ishizaka, Kozuka, "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
    Normalizing Flows", WACV 2022.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken (the paper: wide_resnet50_2,
    among others, at 8, 16 and 32). `blocks`: couplings of each flow. `condition`: length of the code of a position that
    every coupling sees, a multiple of 4. `clamp`: no coupling scales by more than e to that power. `epochs`,
    `batch_size`, `learning_rate`: of Adam; the rate rises from a tenth in the first 8 % of the steps and falls to 0 as
    a cosine.

    Deliberately otherwise: the authors subtract from the log-likelihoods of a stride their maximum over all images that
    are tested, so that a score depends on the other images; here it is their maximum over the OK images learnt from. A
    step learns from all positions of `batch_size` images at all strides, theirs from 256 positions at one stride, drawn
    from 32 images: of 256 px they take 16 times as many steps at stride 8, 4 times as many at 16, as many at 32. The
    map is the negative logarithm of the summed likelihoods, which has the same order and tells very odd places apart;
    it is on the grid of the finest stride, to which the coarser ones are enlarged without aligning their corners.
    """

    fixed_size = True
    pretrained = True
    likeliest: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16, 32),
        weights: str = "imagenet",
        blocks: int = 8,
        condition: int = 128,
        clamp: float = 1.9,
        epochs: int = 200,
        batch_size: int = 4,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        at_least(1, blocks=blocks, epochs=epochs, batch_size=batch_size)
        positive(clamp=clamp, learning_rate=learning_rate)
        if condition < 4 or condition % 4:
            raise OkngError(f"condition is a multiple of 4, such as 128, not {condition}")
        self.backbone = freeze(Backbone(backbone, strides, weights))
        self.condition, self.epochs, self.batch_size = condition, epochs, batch_size
        self.learning_rate = learning_rate

        def subnet(seen: int, given: int) -> nn.Module:
            entering = seen + condition
            return nn.Sequential(nn.Linear(entering, 2 * entering), nn.ReLU(), nn.Linear(2 * entering, given))

        self.flows = nn.ModuleList(
            Sequence(*[all_in_one(channels, subnet, clamp, Rotation) for _ in range(blocks)])
            for channels in self.backbone.channels
        )
        self.register_buffer("likeliest", torch.zeros(len(self.flows)))  # of each stride, nats per dimension

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Raise the likelihood of OK images' features, computed once per image; then note how likely any gets."""
        optimizer = torch.optim.Adam(self.flows.parameters(), self.learning_rate)
        update = Update(self.loss, optimizer, schedule=warmed_cosine)
        yield Train("flows", [update], self.epochs, [self.flows], self.batch_size, prepare=self.backbone)
        highest: list[Tensor] = []

        def visit(batch: Batch) -> None:
            highest.append(torch.stack([found.amax() for found in self.log_likelihoods(batch.prepared)]))

        def finish() -> None:
            self.likeliest.copy_(torch.stack(highest).amax(0))

        yield Collect("likeliest", visit, finish, prepare=self.backbone)

    def log_likelihoods(self, pyramid: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
        """Log p of each vector of features (B, C_s, h_s, w_s) at its place, nats per dimension: (B, 1, h_s, w_s)."""
        found = []
        for flow, features in zip(self.flows, pyramid, strict=True):
            b, c, h, w = features.shape
            vectors = features.permute(0, 2, 3, 1).reshape(-1, c)  # (B * h * w, C_s)
            code = positional_code(self.condition, h, w).to(features)  # (h * w, K)
            codes = code.expand(b, -1, -1).reshape(-1, self.condition)  # (B * h * w, K)
            found.append(-surprise(*flow(vectors, codes)).view(-1, 1, h, w) / c)
        return found

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """-log σ of the log-likelihood per dimension, the mean over all positions, for each stride."""
        found = zip(self.backbone.strides, self.log_likelihoods(batch.prepared), strict=True)
        return {f"stride {stride}": -F.logsigmoid(likelihoods).mean() for stride, likelihoods in found}

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w) on the grid of the finest stride, about 0 where nothing is odd; `image` (B,) its maximum."""
        pairs = zip(self.log_likelihoods(self.backbone(images)), self.likeliest, strict=True)
        likelihoods = [(found - highest).exp() for found, highest in pairs]  # (B, 1, h_s, w_s), 0 to about 1
        anomaly = -on_finest_grid(likelihoods).mean(1).clamp_min(1e-30).log()  # (B, h, w)
        return Scores(anomaly.amax((1, 2)), anomaly)


def warmed_cosine(share: float) -> float:
    """The factor of the learning rate when this `share` of the steps is done."""
    return min(1.0, 0.1 + 0.9 * share / 0.08) * (1 + math.cos(math.pi * share)) / 2


def positional_code(length: int, h: int, w: int) -> Tensor:
    """A code (h * w, length) of each place of a grid, rows first: half of it tells the column, half the row.

    Sines and cosines by turns, of wavelengths from 2π to 10,000 · 2π cells, as transformers have them.
    """
    frequencies = 10_000 ** (-torch.arange(0, length // 2, 2) / (length // 2))  # (length / 4,)

    def waves(cells: int) -> Tensor:
        angles = torch.arange(cells)[:, None] * frequencies  # (cells, length / 4)
        return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)  # (cells, length / 2)

    columns, rows = waves(w).expand(h, w, -1), waves(h)[:, None].expand(h, w, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1)
