"""Convolutional autoencoder with a squared error."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.networks.sspcab import prediction_of, with_block
from okng.nn.networks.strided import strided_coders


class Autoencoder(Detector):
    """What a bottleneck that has only met OK images cannot copy is odd.

    Masci, Meier, Cireşan, Schmidhuber, "Stacked Convolutional Auto-Encoders for Hierarchical Feature
    Extraction", ICANN 2011; as a detector, the L2 baseline of Bergmann, Löwe, Fauser, Sattlegger, Steger,
    "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to Autoencoders", 2019.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `code`: how many numbers an image is squeezed
    into. With too many anything can be copied: the loss goes on falling while defects disappear. `width`:
    channels after the first layer; they double as the sides halve. `epochs`, `batch_size`, `learning_rate`:
    of Adam. `training_steps`: after how many batches training ends, in place of `epochs`. `sspcab`: whether a
    block before the code predicts features from those around them, with a loss of its own (SSPCAB; Ristea et
    al., CVPR 2022). The defaults are the 2019 paper's for textures of 128 to 256 px (code 500 for objects). For
    thousands of 28 × 28 images `code=32, epochs=10, batch_size=32, learning_rate=1e-3` take a minute or so.

    Deliberately otherwise: one strided 3×3 layer per halving without the paper's layers in between, down to a shorter
    side of at most 4; weights drawn by `nn.networks.strided.start_awake`, without which deep networks stay at the mean
    image for many epochs; no weight decay and no augmentation. As in the paper there are no normalisation layers and no
    shortcuts around the code, and a sigmoid ends in the range of the images.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        code: int = 100,
        width: int = 16,
        epochs: int = 200,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        training_steps: int | None = None,
        sspcab: bool = False,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, width=width, epochs=epochs, batch_size=batch_size, training_steps=training_steps)
        positive(learning_rate=learning_rate)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.training_steps = training_steps
        encoder, decoder = strided_coders(image_size, channels, code, width)
        self.encoder = with_block(encoder, 2) if sspcab else encoder
        self.decoder = nn.Sequential(*decoder, nn.Sigmoid())

    def phases(self) -> Iterator[Phase]:
        """Learn to copy OK images through the code."""
        update = Update(self.loss, torch.optim.Adam(self.parameters(), self.learning_rate))
        yield Train("autoencoder", [update], self.epochs, [self], self.batch_size, steps=self.training_steps)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean squared error of the copies, which is the mean score, and with SSPCAB its prediction's."""
        return self.losses(batch.images, batch.images)

    def losses(self, seen: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Of the copies of `seen` as copies of `wanted`, both (B, C, H, W)."""
        return {"loss": self.errors(seen, wanted).mean((1, 2)).mean(), **prediction_of(self.encoder, seen)}

    def errors(self, seen: Tensor, wanted: Tensor) -> Tensor:
        """Squared errors of the copies of `seen` as copies of `wanted`, means over channels: (B, H, W)."""
        copies: Tensor = self.decoder(self.encoder(seen))  # (B, C, H, W)
        return (copies - wanted).square().mean(1)

    def forward(self, images: Tensor) -> Scores:
        """Squared errors of the copies: `map` (B, H, W) the mean over channels, `image` (B,) over all."""
        errors = self.errors(images, images)
        return Scores(errors.mean((1, 2)), errors)
