"""Reverse Distillation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.backbones import Backbone
from okng.nn.blur import gaussian_blur
from okng.nn.rectified import is_rectified

Resize = Literal["halve", "keep", "double"]
BOTTLENECK_FROM = 256  # channels of the finest level: ResNet-50 and its wide kin have these, ResNet-18 has 64


class ReverseDistillation(Detector):
    """A decoder restores a pretrained teacher's features from a small embedding of them; where it fails is odd.

    Deng, Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022. The student never sees
    the image: what it knows of it has passed through the embedding, which learns to let through what OK images need.

    `backbone`, `strides`, `weights`: the teacher and where its features are taken, each stride the one before or that
    times a power of 2 (the paper: wide_resnet50_2 at 4, 8 and 16). `sigma`: of the Gaussian that smooths the map, in
    pixels of the input. `epochs`, `batch_size`, `learning_rate`: of Adam with betas 0.5 and 0.999.

    The loss is that of the authors' code, to which the published figures belong: a cosine for each level's whole map,
    flattened, not for each position as the paper writes it.

    Deliberately otherwise: the decoder mirrors the channels and strides of any teacher, where the paper's are ResNets.
    Its blocks follow the teacher's width: from 256 channels at the finest level on, bottlenecks as of the wide ResNet,
    3 to embed and 3, 4, 6, from coarse to fine, to restore; for narrower ones basic blocks, 2 each, as of ResNet-18.
    Only a teacher whose features end in a ReLU has a decoder whose features do. Transposed convolutions begin with
    Gaussian weights like the others; the authors leave them PyTorch's uniform ones. A short last batch of an epoch is
    left out, because batch normalization learns from it as much as from a full one.
    """

    pretrained = True

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        sigma: float = 4.0,
        epochs: int = 200,
        batch_size: int = 16,
        learning_rate: float = 5e-3,
    ):
        super().__init__()
        at_least(1, epochs=epochs)
        at_least(2, batch_size=batch_size)  # of one image, the embedding of the smallest is one vector, and no batch
        positive(sigma=sigma, learning_rate=learning_rate)
        self.teacher = freeze(Backbone(backbone, strides, weights))
        self.sigma, self.epochs, self.batch_size, self.learning_rate = sigma, epochs, batch_size, learning_rate
        self.rectified = is_rectified(self.teacher)
        channels, self.strides = self.teacher.channels, self.teacher.strides
        between = [halvings_between(fine, coarse) for fine, coarse in pairwise(self.strides)]
        self.embedding = Embedding(channels, between)
        given, doublings = [2 * channels[-1], *channels[:0:-1]], [1, *between[::-1]]
        depths = [3, 4, *[6] * len(channels)] if channels[0] >= BOTTLENECK_FROM else [2] * len(channels)
        self.decoder = nn.ModuleList(
            Stage(channels[0] >= BOTTLENECK_FROM, *sizes, "double")
            for sizes in zip(given, channels[::-1], depths, doublings, strict=False)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.requires_grad:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def multiple(self) -> int:
        """Twice the coarsest stride, that of the embedding, so that every grid divides the input."""
        return 2 * max(self.strides)

    def phases(self) -> Iterator[Phase]:
        """Train embedding and decoder; the teacher's features are computed once per image."""
        students = [self.embedding, self.decoder]
        parameters = [parameter for module in students for parameter in module.parameters()]
        optimizer = torch.optim.Adam(parameters, self.learning_rate, betas=(0.5, 0.999))
        yield Train(
            "decoder",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=students,
            batch_size=self.batch_size,
            prepare=self.teacher,
            drop_last=True,
        )

    def restore(self, taught: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
        """The teacher's features `taught`, each (B, C_s, h_s, w_s), as the decoder makes them of their embedding."""
        entering = self.embedding(taught)  # (B, 2 * C_last, h, w) at twice the coarsest stride
        restored = []
        for stage in self.decoder:
            features = stage(entering)  # (B, C_s, h_s, w_s)
            entering = features.relu()
            restored.append(entering if self.rectified else features)
        return restored[::-1]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """1 - cosine of the flattened maps, in [0, 2], for each level."""
        pairs = zip(batch.prepared, self.restore(batch.prepared), strict=True)
        odd = [1 - F.cosine_similarity(taught.flatten(1), restored.flatten(1)) for taught, restored in pairs]  # (B,)
        return {f"stride {stride}": o.mean() for stride, o in zip(self.strides, odd, strict=True)}

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W): 1 - cosine at each position, in [0, 2], summed over levels; `image` (B,) its maximum."""
        taught = self.teacher(images)
        odd = images.new_zeros(())
        for wanted, restored in zip(taught, self.restore(taught), strict=True):
            level = 1 - F.cosine_similarity(wanted, restored)[:, None]  # (B, 1, h_s, w_s)
            odd = odd + F.interpolate(level, images.shape[2:], mode="bilinear", align_corners=True)  # (B, 1, H, W)
        anomaly = gaussian_blur(odd[:, 0], self.sigma)  # (B, H, W)
        return Scores(anomaly.amax((1, 2)), anomaly)


class Embedding(nn.Module):
    """One-class bottleneck embedding: all levels brought to the coarsest grid, side by side, and embedded at half it.

    `channels` of the levels, finest first; `between`: how often the sides are halved from each level to the next.
    """

    def __init__(self, channels: list[int], between: list[int]):
        super().__init__()
        bottleneck, coarsest = channels[0] >= BOTTLENECK_FROM, channels[-1]
        self.shrink, fused = nn.ModuleList(), 0
        for level in range(len(channels)):
            layers: list[nn.Module] = []
            given = channels[level]
            for halvings, wanted in zip(between[level:], channels[level + 1 :], strict=True):
                for _ in range(halvings):
                    layers += [resized(given, wanted, "halve", 3), nn.BatchNorm2d(wanted), nn.ReLU()]
                    given = wanted
            self.shrink.append(nn.Sequential(*layers))
            fused += given
        self.embed = Stage(bottleneck, fused, 2 * coarsest, 3 if bottleneck else 2, 1, "halve")

    def forward(self, pyramid: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        """Of levels (B, C_s, h_s, w_s), finest first, the embedding (B, 2 * C_last, h, w) >= 0, half of the last."""
        fused = torch.cat([shrink(level) for shrink, level in zip(self.shrink, pyramid, strict=True)], 1)
        embedded: Tensor = self.embed(fused)
        return embedded.relu()


class Stage(nn.Sequential):
    """`depth` residual blocks, of which the first `times` resize by two; the last one's ReLU is left to the caller."""

    def __init__(self, bottleneck: bool, given: int, wanted: int, depth: int, times: int, resize: Resize):
        blocks: list[nn.Module] = []
        for i in range(max(depth, times)):
            blocks += [nn.ReLU()] if i else []
            blocks.append(Block(bottleneck, wanted if i else given, wanted, resize if i < times else "keep"))
        super().__init__(*blocks)


class Block(nn.Module):
    """A ResNet's block without its last ReLU: basic, or a bottleneck half as wide as what it gives."""

    def __init__(self, bottleneck: bool, given: int, wanted: int, resize: Resize):
        super().__init__()
        inner = wanted // 2 if bottleneck else wanted
        entry = [nn.Conv2d(given, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()] if bottleneck else []
        self.body = nn.Sequential(
            *entry,
            resized(inner if bottleneck else given, inner, resize, 3),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, wanted, 1, bias=False) if bottleneck else resized(inner, wanted, "keep", 3),
            nn.BatchNorm2d(wanted),
        )
        same = resize == "keep" and given == wanted
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(resized(given, wanted, resize, 1), nn.BatchNorm2d(wanted))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, wanted, h, w) of `features` (B, given, ...)."""
        summed: Tensor = self.body(features) + self.shortcut(features)
        return summed


def resized(given: int, wanted: int, resize: Resize, kernel: int) -> nn.Module:
    """A convolution that halves, keeps or doubles the sides; the one that doubles is transposed, 2 × 2."""
    if resize == "double":
        return nn.ConvTranspose2d(given, wanted, 2, stride=2, bias=False)
    return nn.Conv2d(given, wanted, kernel, 2 if resize == "halve" else 1, kernel // 2, bias=False)


def halvings_between(fine: int, coarse: int) -> int:
    """How often `fine` is doubled to be `coarse`; `OkngError` if it never is."""
    times = (coarse // fine).bit_length() - 1
    if fine << times != coarse:
        raise OkngError(
            f"each of strides is the one before times a power of 2, such as 4, 8 and 16, not {fine}, {coarse}"
        )
    return times
