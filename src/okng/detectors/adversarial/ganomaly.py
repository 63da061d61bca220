"""GANomaly: encoder, decoder, encoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.learning.adversarial import bounded, frozen
from okng.nn.networks.dcgan import LIMIT, Discriminator, Generator, start
from okng.nn.networks.dcgan_encoder import Encoder

BETAS = (0.5, 0.999)
WON = 1e-5  # nats; a discriminator with less to learn begins anew


class GANomaly(Detector):
    """An image is encoded, decoded and encoded again; it is odd when the two codes differ.

    Akcay, Atapour-Abarghouei, Breckon, "GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training", ACCV
    2018 (arXiv 1805.06725).

    The generator is an encoder, a decoder, and a second encoder with weights of its own that finds the code of the
    copy. It learns by three losses: that the discriminator's features of the copy are those of the image, that the
    copy is the image, and that its code is the image's. The discriminator learns to tell images from copies.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `code`: how many numbers a code has. `width`: channels at
    half the sides; they double as the sides halve, up to eight times. `adversarial_weight`, `copy_weight` and
    `code_weight`: of the three losses. `epochs`, `batch_size`, `learning_rate`: of Adam with betas 0.5 and 0.999, for
    generator and discriminator. For thousands of 28 × 28 images `code=64, width=32, epochs=8` take about two minutes.

    Deliberately otherwise: batch normalisation is scored with its running statistics, where the authors' code takes
    those of the test batch, so that a score there depends on the images beside it. Nothing is scaled to [0, 1] over a
    test set, and the last epoch counts, where that code keeps the epoch with the best test figure. The score is the
    paper's, the mean absolute difference of the codes; the authors' code has the squared one. The paper has no map:
    here it is the absolute residual of the copy. The discriminator steps on copies of the generator that has just
    stepped, where that code keeps those from before. The depth follows the size, as in `gan`, and there channels double
    without end. The encoders' first layer, the decoder's last and both of the discriminator have a bias.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        code: int = 100,
        width: int = 64,
        adversarial_weight: float = 1.0,
        copy_weight: float = 50.0,
        code_weight: float = 1.0,
        epochs: int = 15,
        batch_size: int = 64,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, width=width, epochs=epochs, batch_size=batch_size)
        at_least(0, adversarial_weight=adversarial_weight, copy_weight=copy_weight, code_weight=code_weight)
        positive(learning_rate=learning_rate)
        self.adversarial_weight, self.copy_weight, self.code_weight = adversarial_weight, copy_weight, code_weight
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.encoder = Encoder(image_size, channels, code, width)
        self.decoder = Generator(image_size, channels, code, width)
        self.second_encoder = Encoder(image_size, channels, code, width)
        self.discriminator = Discriminator(image_size, channels, width)

    def phases(self) -> Iterator[Phase]:
        """On every batch the generator takes a step, then the discriminator."""
        own = list(self.discriminator.parameters())
        others = [p for net in (self.encoder, self.decoder, self.second_encoder) for p in net.parameters()]
        updates = [
            Update(self.generator_loss, torch.optim.Adam(others, self.learning_rate, BETAS)),
            Update(self.discriminator_loss, torch.optim.Adam(own, self.learning_rate, BETAS)),
        ]
        yield Train("ganomaly", updates, self.epochs, [self], self.batch_size, after_step=self.begin_anew_if_won)

    def generate(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (B, code) of `images` in [-1, 1], their copies (B, C, H, W), and the copies' codes (B, code)."""
        codes = self.encoder(images)
        copies = self.decoder(codes)
        return codes, copies, self.second_encoder(copies)

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Features, copies and codes, weighed."""
        images = 2 * batch.images - 1
        codes, copies, again = self.generate(images)
        with frozen(self.discriminator):
            features = F.mse_loss(self.discriminator.look(copies), self.discriminator.look(images))
        return {
            "features": self.adversarial_weight * features,
            "copies": self.copy_weight * F.l1_loss(copies, images),
            "codes": self.code_weight * F.mse_loss(again, codes),
        }

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean of its two cross-entropies: images are real, copies are not."""
        images = 2 * batch.images - 1
        with torch.no_grad():
            copies = self.decoder(self.encoder(images))  # (B, C, H, W)
        real, copied = self.discriminator(images), self.discriminator(copies)  # (B,)
        losses = {"real": F.softplus(-real).mean() / 2, "copied": F.softplus(copied).mean() / 2}
        self.left = torch.stack([*losses.values()]).sum().detach()
        return bounded(losses, LIMIT)

    def begin_anew_if_won(self) -> None:
        """New random weights for a discriminator that tells everything, whose features teach nothing any more."""
        if float(self.left) < WON:
            for layer in self.discriminator.modules():
                if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                    layer.reset_parameters()
            self.discriminator.apply(start)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the codes' mean absolute difference; `map` (B, H, W) the copy's, over the channels."""
        images = 2 * images - 1
        codes, copies, again = self.generate(images)
        return Scores((codes - again).abs().mean(1), (images - copies).abs().mean(1))
