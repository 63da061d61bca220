"""Dinomaly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
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

EASY, SLOWED, RAMP = 0.9, 0.1, 1000  # share of the positions whose gradient is slowed, to what, and from which step on
TOP = 0.01  # of the map, whose mean is the image's score
NARROW = 256  # numbers in the bottleneck of Dinomaly2


class Dinomaly(Detector):
    """A decoder restores a network's tokens from a noisy mean of its levels; where it can't is odd.

    Guo, Lu, Zhang, Jia, Chen, Li, "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly
    Detection", CVPR 2025; Guo et al., "One Dinomaly2 Detect Them All", arXiv 2510.17611. Dropout is the noise; linear
    attention can't look at single tokens, so that it can't copy them; the levels are restored as two means, not one by
    one, and what is restored well already is hardly learnt any more.

    `backbone`, `weights`: the frozen network, a vision transformer or a CNN. `blocks`: after which of a transformer's
    tokens are taken, by default the third to the tenth. `strides`: at which of a CNN's features. `heads`: of the
    attention. `depth`: blocks of the decoder. `dropout`: of the bottleneck. `recentred`: Dinomaly2, by which what is
    restored is each token less the image's class token, normalised; its bottleneck begins with 256 numbers, learns at a
    tenth of the rate, and the rate stays. `epochs`, `batch_size`, `learning_rate`: of StableAdamW, whose rate falls to
    a tenth; `training_steps`: after how many batches that ends, in place of `epochs`.

    The defaults are the paper's for its smallest network, vit_small_patch14_reg4_dinov2, at 392 px, whose weights are
    not installed; the backbone is one whose are.

    Deliberately otherwise: a CNN's levels are brought to one grid and one width as tokens
    (`nn/features/token_levels.py`), its class token is the mean of them. Images are resized, not cropped. Training is
    counted in epochs, where the paper has 10,000 steps, or 5,000 of one product, and the rate then warms up within a
    hundredth of them. Maps have 8 cells a token where the paper's have 256 a side, and are smoothed with the border
    repeated.
    """

    pretrained = True
    steps_done: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        blocks: tuple[int, ...] = (),
        weights: str = "imagenet",
        heads: int = 6,
        depth: int = 8,
        dropout: float = 0.2,
        recentred: bool = False,
        epochs: int = 400,
        batch_size: int = 16,
        learning_rate: float = 2e-3,
        training_steps: int | None = None,
    ):
        super().__init__()
        at_least(1, epochs=epochs, batch_size=batch_size, training_steps=training_steps)
        at_least(2, depth=depth)
        positive(learning_rate=learning_rate)
        if not 0 <= dropout < 1:
            raise OkngError(f"dropout is 0 or more and below 1, such as 0.2, not {dropout}")
        self.encoder = TokenLevels(backbone, strides, blocks, weights, heads)
        self.recentred, self.epochs, self.batch_size = recentred, epochs, batch_size
        self.learning_rate, self.training_steps = learning_rate, training_steps
        d = self.encoder.width
        self.first = nn.Linear(d, NARROW) if recentred else nn.Identity()
        rest = feed_forward(d, dropout)
        if recentred:
            rest[0] = nn.Linear(NARROW, 4 * d)
        self.bottleneck = nn.Sequential(nn.Dropout(dropout), *rest)
        self.decoder = nn.ModuleList(DecoderBlock(d, heads) for _ in range(depth))
        small_weights(self.first)
        small_weights(self.bottleneck)
        small_weights(self.decoder)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    @property
    def multiple(self) -> int:
        """The side of a token."""
        return self.encoder.multiple

    def phases(self) -> Iterator[Phase]:
        """Train bottleneck and decoder; the network's tokens are computed once per image."""
        rate, modules = self.learning_rate, [self.first, self.bottleneck, self.decoder]
        groups = [{"params": self.first.parameters(), "lr": rate / 10}] if self.recentred else []
        groups.append({"params": [*self.bottleneck.parameters(), *self.decoder.parameters()], "lr": rate})
        optimizer = StableAdamW(groups, rate, amsgrad=not self.recentred)
        schedule = partial(warmed_up, steps=self.training_steps, end=1.0 if self.recentred else 0.1)
        yield Train(
            "decoder",
            [Update(self.loss, optimizer, schedule=schedule, clip=0.1)],
            self.epochs,
            trains=modules,
            batch_size=self.batch_size,
            prepare=self.prepared,
            steps=self.training_steps,
            after_step=self.count,
        )

    def count(self) -> None:
        """One more step is done."""
        self.steps_done += 1

    def prepared(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (B, P + N, d) of all levels, and what is to be restored, (B, 2, N, d): the means of two halves."""
        levels = self.encoder(images)  # (B, L, P + N, d)
        halves = in_two(levels)  # (B, 2, P + N, d)
        patches = halves[:, :, self.encoder.before :]
        if self.recentred:
            patches = F.layer_norm(patches - halves[:, :, :1], (self.encoder.width,), eps=1e-8)
        return levels.mean(1), patches

    def restore(self, mean: Tensor) -> Tensor:
        """What the decoder makes of the `mean` (B, P + N, d): (B, 2, N, d), its last blocks for the first levels."""
        tokens, made = self.bottleneck(self.first(mean)), []
        for block in self.decoder:
            tokens = block(tokens)  # (B, P + N, d)
            made.append(tokens)
        return in_two(torch.stack(made[::-1], 1))[:, :, self.encoder.before :]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """1 - cosine of the whole maps of either half, where the easy positions' gradient is slowed."""
        mean, wanted = batch.prepared
        easy = EASY * min(1.0, float(self.steps_done) / RAMP)
        losses = {}
        for i, (target, restored) in enumerate(zip(wanted.unbind(1), self.restore(mean).unbind(1), strict=True)):
            odd = distances(target, restored).detach()  # (B, N)
            hard = max(1, int(odd.numel() * (1 - easy)))
            factors = torch.where(odd < odd.flatten().topk(hard).values[-1], SLOWED, 1.0)
            losses[("first", "second")[i] + " levels"] = loss_of_maps(target, restored, factors) / 2
        return losses

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, 8 h, 8 w): 1 - cosine, the mean of both halves, in [0, 2]; `image` (B,) of its top hundredth."""
        mean, wanted = self.prepared(images)
        odd = distances(wanted, self.restore(mean)).mean(1)  # (B, N)
        anomaly = map_of_tokens(odd, images, self.multiple)
        return Scores(mean_of_highest(anomaly, TOP), anomaly)


class DecoderBlock(nn.Module):
    """A transformer's block with linear attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width, eps=1e-8), LinearAttention(width, heads)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width, eps=1e-8), *feed_forward(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, d) of the same."""
        tokens = tokens + self.attention(self.norm(tokens))
        summed: Tensor = tokens + self.feed_forward(tokens)
        return summed


class LinearAttention(nn.Module):
    """Attention whose weights are products of positive features, elu + 1: no token can look at another alone."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.project_in, self.project_out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, d) of the same."""
        q, k, v = self.project_in(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, e)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        values = k.transpose(2, 3) @ v  # (B, heads, e, e)
        total = (q * k.sum(2, keepdim=True)).sum(3, keepdim=True)  # (B, heads, N, 1)
        mixed: Tensor = self.project_out((q @ values / (total + 1e-8)).transpose(1, 2).flatten(2))
        return mixed
