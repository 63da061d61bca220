"""INP-Former."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.features.patches import mean_of_highest
from okng.nn.features.token_levels import (
    TokenLevels,
    distances,
    feed_forward,
    in_two,
    loss_of_maps,
    map_of_tokens,
    small_weights,
    warmed_up,
)
from okng.nn.learning.stable_adamw import StableAdamW

COHERENCE, HARDER = 0.2, 3  # weight of the coherence loss; power by which harder positions count more
TOP = 0.01  # of the map, whose mean is the image's score


class INPFormer(Detector):
    """What is normal is gathered from the inspected image itself, as a few prototypes; what they can't build is odd.

    Luo, Cao, Yao et al., "Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly Detection",
    CVPR 2025. The decoder's attention has prototypes alone to look at, and nothing leads around it, so that a token
    that is unlike all of them can't pass.

    `backbone`, `weights`: the frozen network, a vision transformer or a CNN. `blocks`: after which of a transformer's
    tokens are taken, by default the third to the tenth. `strides`: at which of a CNN's features. `heads`: of the
    attention. `depth`: blocks of the decoder. `prototypes`: how many an image has. `epochs`, `batch_size`,
    `learning_rate`: of StableAdamW, whose rate falls to a tenth; `training_steps`: after how many batches that ends, in
    place of `epochs`.

    The defaults are the paper's for its smallest network, vit_small_patch14_reg4_dinov2, at 392 px, whose weights are
    not installed; the backbone is one whose are.

    Deliberately otherwise: a CNN's levels are brought to one grid and one width as tokens
    (`nn/features/token_levels.py`). Images are resized, not cropped. Counted in epochs, the rate warms up within a
    hundredth of the steps, not within 100. Maps have 8 cells a token where the paper's have 256 a side, and are
    smoothed with the border repeated.
    """

    pretrained = True

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        blocks: tuple[int, ...] = (),
        weights: str = "imagenet",
        heads: int = 6,
        depth: int = 8,
        prototypes: int = 6,
        epochs: int = 200,
        batch_size: int = 16,
        learning_rate: float = 1e-3,
        training_steps: int | None = None,
    ):
        super().__init__()
        at_least(1, prototypes=prototypes, epochs=epochs, batch_size=batch_size, training_steps=training_steps)
        at_least(2, depth=depth)
        positive(learning_rate=learning_rate)
        self.encoder = TokenLevels(backbone, strides, blocks, weights, heads)
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.training_steps = learning_rate, training_steps
        d = self.encoder.width
        self.queries = nn.Parameter(torch.randn(prototypes, d))
        self.extractor = Extractor(d, heads)
        self.bottleneck = feed_forward(d)
        self.decoder = nn.ModuleList(GuidedBlock(d, heads) for _ in range(depth))
        for module in (self.extractor, self.bottleneck, self.decoder):
            small_weights(module)

    @property
    def multiple(self) -> int:
        """The side of a token."""
        return self.encoder.multiple

    def phases(self) -> Iterator[Phase]:
        """Train extractor, bottleneck and decoder; the network's tokens are computed once per image."""
        modules = [self.extractor, self.bottleneck, self.decoder]
        parameters = [self.queries, *(p for module in modules for p in module.parameters())]
        optimizer = StableAdamW(parameters, self.learning_rate, amsgrad=True)
        schedule = partial(warmed_up, steps=self.training_steps, end=0.1)
        yield Train(
            "prototypes and decoder",
            [Update(self.loss, optimizer, schedule=schedule, clip=0.1)],
            self.epochs,
            trains=modules,
            batch_size=self.batch_size,
            prepare=self.prepared,
            steps=self.training_steps,
        )

    def prepared(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (B, N, d) of all levels, and what is to be restored, (B, 2, N, d): the means of two halves."""
        levels = self.encoder(images)[:, :, self.encoder.before :]  # (B, L, N, d)
        return levels.mean(1), in_two(levels)

    def restore(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The prototypes (B, M, d) of the `mean` (B, N, d), and what they build of it: (B, 2, N, d)."""
        prototypes = self.extractor(self.queries.expand(mean.shape[0], -1, -1), mean)
        tokens, made = self.bottleneck(mean), []
        for block in self.decoder:
            tokens = block(tokens, prototypes)  # (B, N, d)
            made.append(tokens)
        return prototypes, in_two(torch.stack(made[::-1], 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """1 - cosine of the whole maps of either half, hard positions counting more; and tokens far from prototypes."""
        mean, wanted = batch.prepared
        prototypes, made = self.restore(mean)
        losses = {"coherence": COHERENCE * incoherence(mean, prototypes).mean()}
        for name, target, restored in zip(("first", "second"), wanted.unbind(1), made.unbind(1), strict=True):
            odd = distances(target, restored).detach()  # (B, N)
            harder = (odd / odd.mean().clamp_min(1e-8)).pow(HARDER)
            losses[f"{name} levels"] = loss_of_maps(target, restored, harder) / 2
        return losses

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, 8 h, 8 w): 1 - cosine, the mean of both halves, in [0, 2]; `image` (B,) of its top hundredth."""
        mean, wanted = self.prepared(images)
        odd = distances(wanted, self.restore(mean)[1]).mean(1)  # (B, N)
        anomaly = map_of_tokens(odd, images, self.multiple)
        return Scores(mean_of_highest(anomaly, TOP), anomaly)


def incoherence(tokens: Tensor, prototypes: Tensor) -> Tensor:
    """How far each of `tokens` (B, N, d) is from the nearest of `prototypes` (B, M, d): 1 - cosine, (B, N)."""
    cosines = F.normalize(tokens, dim=2) @ F.normalize(prototypes, dim=2).transpose(1, 2)  # (B, N, M)
    return 1 - cosines.amax(2)


class Extractor(nn.Module):
    """Queries gather prototypes from the tokens of an image: one block of cross-attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-8)  # of queries and tokens
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.project_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width, eps=1e-8), *feed_forward(width))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, M, d) of queries (B, M, d) and tokens (B, N, d)."""
        q = in_heads(self.query(self.norm(queries)), self.heads)  # (B, heads, M, e)
        k, v = (in_heads(part, self.heads) for part in self.key_value(self.norm(tokens)).chunk(2, 2))
        weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3)  # (B, heads, M, N)
        prototypes = queries + self.project_out((weights @ v).transpose(1, 2).flatten(2))
        gathered: Tensor = prototypes + self.feed_forward(prototypes)
        return gathered


class GuidedBlock(nn.Module):
    """Attention of tokens to prototypes alone, by rectified cosines, nothing around it; then a feed-forward part."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-8)  # of tokens and prototypes
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.project_out = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.feed_forward = nn.Sequential(nn.LayerNorm(width, eps=1e-8), *feed_forward(width))

    def attention(self, tokens: Tensor, prototypes: Tensor) -> Tensor:
        """What the tokens (B, N, d) take of the prototypes (B, M, d), head by head: (B, heads, N, e)."""
        q = F.normalize(in_heads(self.query(self.norm(tokens)), self.heads), dim=3)
        k, v = (in_heads(part, self.heads) for part in self.key_value(self.norm(prototypes)).chunk(2, 2))
        weights = (q @ F.normalize(k, dim=3).transpose(2, 3) * self.scale).relu()  # (B, heads, N, M), no softmax
        mixed: Tensor = weights @ v
        return mixed

    def forward(self, tokens: Tensor, prototypes: Tensor) -> Tensor:
        """(B, N, d) of tokens (B, N, d) and prototypes (B, M, d)."""
        built = self.project_out(self.attention(tokens, prototypes).transpose(1, 2).flatten(2))
        summed: Tensor = built + self.feed_forward(built)
        return summed


def in_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, d) as (B, heads, N, d / heads)."""
    parted: Tensor = tokens.unflatten(2, (heads, -1)).transpose(1, 2)
    return parted
