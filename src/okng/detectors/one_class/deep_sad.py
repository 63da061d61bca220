"""Deep SAD."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from okng.checks import positive
from okng.detectors.base import Batch, Phase
from okng.detectors.one_class.deep_svdd import DeepSVDD

NEAR = 1e-6  # added to a distance that is divided by


class DeepSAD(DeepSVDD):
    """Deep SVDD that is told a few NG images, and maps those far from the centre.

    Ruff, Vandermeulen, Görnitz, Binder, Müller, Müller, Kloft, "Deep Semi-Supervised Anomaly Detection", ICLR 2020. An
    OK image counts by its squared distance from the centre, an NG image by one over it. Without NG images that is Deep
    SVDD's loss. The centre is the mean code of all images; values are taken as they are, in [0, 1].

    `image_size` (h, w) and `channels` (1 or 3) of the input. `eta`: how much an NG image counts, beside an OK one.
    `widths`: channels of the 5×5 layers, each of which halves the sides. `code`: how many numbers an image is mapped
    to, a multiple of 16. `pretraining_epochs`, `pretraining_rate`: of the autoencoder. `epochs`,
    `batch_size`, `learning_rate`: of Adam, whose rate falls to a tenth after a third of the steps, the autoencoder's
    after five sevenths. `weight_decay`: of both. The network is the authors' for CIFAR-10; that for MNIST is
    `widths=8,4`, `code=32`.

    Deliberately otherwise: OK images are what the paper calls unlabelled, for okng is told that they are mostly OK; its
    labelled normal images count the same with `eta` 1. What is said of Deep SVDD's autoencoder holds here too, which is
    also trained as there: the authors' example minimises the mean error of all values with a weight decay of 5e-4 for
    150 epochs, which the budget "paper" has. The paper's second linear layer for Fashion-MNIST is left out.
    """

    needs_ng = True

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        eta: float = 1.0,
        widths: tuple[int, ...] = (32, 64, 128),
        code: int = 128,
        pretraining_epochs: int = 350,
        epochs: int = 150,
        batch_size: int = 128,
        pretraining_rate: float = 1e-4,
        learning_rate: float = 1e-4,
        weight_decay: float = 5e-7,
    ):
        super().__init__(
            image_size, channels, "one-class", 0.1, widths, code, pretraining_epochs, epochs, batch_size,
            pretraining_rate, learning_rate, weight_decay,
        )  # fmt: skip
        positive(eta=eta)
        self.eta = eta

    def phases(self) -> Iterator[Phase]:
        """The autoencoder and the centre, of all images; then towards it, or away."""
        yield from self.learning()

    def loss(self, batch: Batch) -> Tensor:
        """The mean of the squared distances of OK images, and of eta over those of NG images (equation 7)."""
        distances = self.distances(batch.images)  # (B,)
        return torch.where(batch.labels == 1, self.eta / (distances + NEAR), distances).mean()

    def normalised(self, images: Tensor) -> Tensor:
        """`images` (B, C, H, W) as they are."""
        return images
