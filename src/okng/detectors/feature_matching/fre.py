"""FRE: feature reconstruction error."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.nn.features.backbones import Backbone


class FRE(Detector):
    """A linear autoencoder of OK images' feature maps, each map one vector; odd is what it does not restore.

    Ndiour, Ahuja, Genc, Tickoo, "FRE: A Fast Method For Anomaly Detection And Segmentation", BMVC 2023. As DFM, with a
    subspace that is learnt by gradients, for which maps of any width will do. Encoder and decoder share one matrix. A
    vector knows where in the image a feature is, so parts must lie alike.

    `image_size` (h, w) of the input. `backbone`, `stride`, `weights`: the frozen network and where its features are
    taken (anomalib: resnet50 at 16). `pool`: the side of the squares of the feature map that are averaged first, 1 for
    none; a cell of the map is `stride` · `pool` px. `latent`: how many numbers an image is encoded by. `epochs`,
    `batch_size`, `learning_rate`: of Adam; how many epochs the paper takes could not be checked.

    Deliberately otherwise: the map is not enlarged, so that it sums to the image's score exactly.
    """

    fixed_size = True
    pretrained = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        backbone: str = "efficientnet_lite0",
        stride: int = 16,
        weights: str = "imagenet",
        pool: int = 2,
        latent: int = 220,
        epochs: int = 200,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, 3)
        at_least(1, stride=stride, pool=pool, latent=latent, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        self.backbone = freeze(Backbone(backbone, [stride], weights))
        self.stride, self.pool = stride, pool
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        h, w = (side // (stride * pool) for side in image_size)
        self.autoencoder = Tied(self.backbone.channels[0] * h * w, latent)

    @property
    def multiple(self) -> int:
        """Of the pooled map's cells, so that none is cut."""
        return self.stride * self.pool

    def phases(self) -> Iterator[Phase]:
        """Train the autoencoder; the feature maps are computed once per image."""
        optimizer = torch.optim.Adam(self.autoencoder.parameters(), self.learning_rate)
        yield Train(
            "autoencoder", [Update(self.loss, optimizer)], self.epochs, [self.autoencoder], self.batch_size,
            prepare=self.pooled,
        )  # fmt: skip

    def pooled(self, images: Tensor) -> Tensor:
        """The averaged feature map (B, C, h, w) of `images` (B, 3, H, W)."""
        return F.avg_pool2d(self.backbone(images)[0], self.pool)

    def loss(self, batch: Batch) -> Tensor:
        """The mean squared error of what is restored."""
        vectors = batch.prepared[0].flatten(1)  # (B, D)
        return F.mse_loss(self.autoencoder(vectors), vectors)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w), 0 and up, on the grid of the pooled cells; `image` (B,) is its sum."""
        features = self.pooled(images)  # (B, C, h, w)
        restored = self.autoencoder(features.flatten(1)).view_as(features)
        errors = (features - restored).square().sum(1)  # (B, h, w)
        return Scores(errors.sum((1, 2)), errors)


class Tied(nn.Module):
    """x̂ = Wᵀ(Wx + b) + c: one matrix encodes and decodes. (B, D) → (B, D)."""

    def __init__(self, size: int, latent: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(latent, size))  # W
        self.inner, self.outer = nn.Parameter(torch.zeros(latent)), nn.Parameter(torch.zeros(size))  # b, c
        nn.init.xavier_uniform_(self.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        """`vectors` (B, D) restored."""
        return F.linear(F.linear(vectors, self.weight, self.inner), self.weight.T, self.outer)
