"""Reverse Distillation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.nn.features.backbones import Backbone
from okng.nn.features.rectified import is_rectified
from okng.nn.images.blur import gaussian_blur
from okng.nn.networks.reverse import BOTTLENECK_FROM, Embedding, Stage, halvings_between


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
