"""A dictionary of a network's features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.images.windows import windows_in_blocks
from okng.nn.vectors.covariance import principal_components
from okng.nn.vectors.kmeans import assigned, kmeans
from okng.nn.vectors.neighbours import nearest_squared

BLOCK = 64  # windows that go through the network at once


class FeatureDictionary(Detector):
    """Windows of OK images make a dictionary; a window is as odd as it is far from the most similar words of it.

    Napoletano, Piccoli, Schettini, "Anomaly Detection in Nanofibrous Materials by CNN-Based Self-Similarity", Sensors
    18(1):209, 2018. Each window is enlarged to the network's input, its features averaged over the window, divided by
    their sum of absolutes, standardised, and reduced to principal components. K-means groups those of OK images, and
    the words are the real windows nearest to the centres. A pixel is as odd as the windows that cover it on average.

    `backbone`, `stride`, `weights`: the frozen network, and the stride of the features that are taken (the paper:
    resnet18, the last). `window`, `step`: side of the windows and how far apart they begin, in pixels; `step` divides
    `window`. `input_size`: the side windows are enlarged to. `words`: how many there are (the paper: 10 to 1,000).
    `similar`: m, over how many of the most similar words the distance is averaged. `retained`: the share of the
    variance that the principal components keep, in (0, 1). `windows`: of how many windows at most, drawn from all, the
    dictionary is made. `dense`: a variant that is not the paper's: the network runs once over the whole image and each
    position of its features at `stride` is a window; `window`, `step` and `input_size` then do not count.

    Without `dense` an image is as many passes of the network as it has windows: 49 at 256 px. An exported file takes
    all of an image's windows at once: small windows close together need `dense` there.

    Deliberately otherwise: `window`, `step` and `similar` of the paper could not be checked. The paper only localises:
    the image's score is the maximum of the map. Features are averaged, where the paper also takes them position by
    position.
    """

    pretrained = True
    collects_only = True
    words: Tensor
    mean: Tensor
    projection: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        stride: int = 32,
        weights: str = "imagenet",
        window: int = 64,
        step: int = 32,
        input_size: int = 224,
        words: int = 100,
        similar: int = 5,
        retained: float = 0.95,
        windows: int = 100_000,
        dense: bool = False,
    ):
        super().__init__()
        at_least(1, stride=stride, step=step, words=words, similar=similar, windows=windows)
        at_least(4, window=window)
        at_least(32, input_size=input_size)
        if window % step:
            raise OkngError(f"step divides window, and {step} does not divide {window}")
        if similar > words:
            raise OkngError(f"similar is at most words, of which there are {words}, not {similar}")
        if not 0 < retained < 1:
            raise OkngError(f"retained is a share of the variance, above 0 and below 1, not {retained}")
        self.backbone = freeze(Backbone(backbone, (stride,), weights))
        self.stride, self.window, self.step, self.input_size, self.dense = stride, window, step, input_size, dense
        self.count, self.similar, self.retained, self.windows = words, similar, retained, windows
        channels = self.backbone.channels[0]
        self.register_buffer("words", torch.zeros(0, channels))  # (k, C)
        self.register_buffer("mean", torch.zeros(channels))  # (C,)
        self.register_buffer("projection", torch.zeros(channels, 0))  # (C, d)

    @property
    def multiple(self) -> int:
        """The side of a window, so that windows cover the whole input."""
        return self.stride if self.dense else self.window

    def phases(self) -> Iterator[Phase]:
        """Draw windows from all images, fit the principal components, choose the words."""
        drawn = Drawn(self.windows)

        def visit(batch: Batch) -> None:
            drawn.add(batch.prepared[0].to(self.mean.dtype).permute(0, 2, 3, 1).flatten(0, 2))  # (B*h*w, C)

        def finish() -> None:
            vectors = drawn.vectors  # (n, C)
            self.mean = vectors.mean(0)
            deviation = (vectors - self.mean).square().mean(0).sqrt()  # (C,)
            deviation[deviation <= 1e-6 * deviation.max()] = 1  # of a channel that says nothing
            directions, needed = principal_components((vectors - self.mean) / deviation, self.retained)
            self.projection = directions[:, :needed].to(vectors) / deviation[:, None]
            reduced = self.reduced(vectors)  # (n, d)
            centres = kmeans(reduced, min(self.count, len(vectors)))
            nearest = assigned(centres, reduced)[1]  # of each centre the real window, (k,)
            self.words = vectors[nearest.unique()]

        yield Collect("dictionary", visit, finish, self.described)

    def described(self, images: Tensor) -> Tensor:
        """The features (B, C, h, w) of all windows of `images` (B, 3, H, W), absolutes of one window summing to 1."""
        if self.dense:
            features = self.backbone(images)[0]  # (B, C, h, w)
        else:
            h, w = ((side - self.window) // self.step + 1 for side in images.shape[2:])
            blocks = windows_in_blocks(images, self.window, self.step, BLOCK)
            pooled = torch.cat([self.pooled(block) for block in blocks])  # (B*h*w, C)
            features = pooled.view(images.shape[0], h, w, -1).permute(0, 3, 1, 2)
        normalised: Tensor = features / features.abs().sum(1, keepdim=True).clamp_min(1e-12)
        return normalised

    def pooled(self, windows: Tensor) -> Tensor:
        """The spatial means (n, C) of the features of `windows` (n, 3, window, window), enlarged."""
        large = F.interpolate(windows, (self.input_size, self.input_size), mode="bilinear", align_corners=False)
        pooled: Tensor = self.backbone(large)[0].mean((2, 3))
        return pooled

    def reduced(self, vectors: Tensor) -> Tensor:
        """Principal components (..., d) of `vectors` (..., C)."""
        return (vectors - self.mean) @ self.projection

    def distances(self, images: Tensor) -> Tensor:
        """The mean distance (B, h, w) of each window of `images` (B, 3, H, W) to its `similar` most similar words."""
        features = self.described(images)  # (B, C, h, w)
        queries = self.reduced(features.permute(0, 2, 3, 1).flatten(0, 2))  # (B*h*w, d)
        words = self.reduced(self.words)  # (k, d)
        squared = nearest_squared(queries[None], words[None], min(self.similar, len(words)))[0]  # (B*h*w, m)
        return squared.sqrt().mean(1).view(-1, *features.shape[2:])

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H / step, W / step) of what covers each pixel on average, `image` (B,) its maximum."""
        distances = self.distances(images)
        if self.dense:
            return Scores(distances.amax((1, 2)), distances)
        covering = torch.ones(1, 1, self.window // self.step, self.window // self.step).to(distances)
        total = F.conv_transpose2d(distances[:, None], covering)  # (B, 1, H / step, W / step)
        covered = (total / F.conv_transpose2d(torch.ones_like(distances[:, None]), covering))[:, 0]
        return Scores(covered.amax((1, 2)), covered)


class Drawn:
    """At most `limit` of all vectors that come, each with the same chance: those of the lowest of random keys."""

    def __init__(self, limit: int):
        self.limit = limit
        self._vectors: list[Tensor] = []
        self._keys: list[Tensor] = []

    def add(self, vectors: Tensor) -> None:
        """Take in `vectors` (n, C)."""
        self._vectors.append(vectors)
        self._keys.append(torch.rand(len(vectors)).to(vectors.device))
        if sum(map(len, self._keys)) > 2 * self.limit:
            self._thin()

    def _thin(self) -> None:
        keys = torch.cat(self._keys)
        kept = keys.topk(min(self.limit, len(keys)), largest=False).indices.sort().values
        self._vectors, self._keys = [torch.cat(self._vectors)[kept]], [keys[kept]]

    @property
    def vectors(self) -> Tensor:
        """What was drawn (at most limit, C), in the order it came."""
        self._thin()
        return self._vectors[0]
