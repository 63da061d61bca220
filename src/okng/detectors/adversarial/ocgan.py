"""OCGAN."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.networks.one_class_gan import OneClassGAN

BETAS = (0.5, 0.999)  # of Adam


class OCGAN(Detector):
    """Every point of a bounded cube of codes is made to decode to an OK image, so an odd image has no code to be
    rebuilt from.

    Perera, Nallapati, Xiang, "OCGAN: One-class Novelty Detection Using GANs with Constrained Latent
    Representations", CVPR 2019.

    Four parts: a denoising autoencoder whose codes a tanh bounds; a latent discriminator that makes the codes of
    OK images fill the cube evenly; a visual discriminator that makes what random codes decode to look OK; and a
    weak classifier of rebuilt OK images against decoded random codes, which the mining of informative negatives
    follows to those codes that decode worst, so that these are what the visual discriminator corrects.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `code`: how many numbers an image becomes.
    `width`: channels of the encoder's first layer and the decoder's last but one; they double as the sides
    halve. `visual_width`, `classifier_width`: the same of the visual discriminator and the classifier. `noise`:
    standard deviation of what is added to the encoder's input, in images that range over [-1, 1]. `dropout`:
    before the decoder's last layer. `reconstruction_weight`, `latent_weight`, `visual_weight`: of the three
    losses of encoder and decoder; with the last two at 0 this is a denoising autoencoder. `mining_steps`,
    `mining_rate`: gradient steps from a random code, and their size; with 0 steps the codes stay random.
    `warm_up`: the share of the epochs before mining begins. `epochs`, `batch_size`, `learning_rate`: of Adam.
    The defaults are the paper's, or its authors' code's. With `reconstruction_weight` 10 and few epochs the other
    two losses take over: on a digit, unseen OK images had 1.8 times the error of the autoencoder alone; with 100
    it was 1.2 times, and the codes were as even. For thousands of 28 × 28 or 32 × 32 images `width=32,
    classifier_width=16, dropout=0.0, reconstruction_weight=100.0, epochs=12, batch_size=32, learning_rate=1e-3`
    take a few minutes.

    Deliberately otherwise: any image size works, with as many halvings as leave a grid of at least 4 (three at
    61 px, the paper's network; two at 28 and 32), and for its unpadded layers an image is continued to the right
    and below by its last pixels. A code is bounded by tanh as in the paper, not by the leaky rectifier of the
    authors' code, and both discriminators end in a logit. That code weighs the latent loss ten times as much and takes
    half of the squared error, and it mines by one step of size 2. Mining starts evenly in the cube and descends each
    point's own loss, so the batch does not change its steps. A network sees both kinds of its images in one
    batch, whose statistics the normalisation then keeps for scoring; networks that only judge are in eval mode.
    Noise is drawn anew for each batch. Adam begins anew with mining. All OK images teach and the last epoch is
    kept; the authors keep the epoch with the least error on a tenth of them.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (61, 61),
        channels: int = 3,
        code: int = 16,
        width: int = 64,
        visual_width: int = 12,
        classifier_width: int = 64,
        noise: float = 0.2,
        dropout: float = 0.5,
        reconstruction_weight: float = 10.0,
        latent_weight: float = 1.0,
        visual_weight: float = 1.0,
        mining_steps: int = 5,
        mining_rate: float = 1.0,
        warm_up: float = 0.75,
        epochs: int = 201,
        batch_size: int = 512,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        check(epochs, batch_size, learning_rate, warm_up, mining_steps)
        self.mining_steps, self.learning_rate = mining_steps, learning_rate
        self.epochs, self.warm_up_epochs, self.batch_size = epochs, round(warm_up * (epochs - 1)), batch_size
        self.gan = OneClassGAN(
            image_size, channels, code, width, visual_width, classifier_width, noise, dropout,
            reconstruction_weight, latent_weight, visual_weight, mining_rate,
        )  # fmt: skip

    def phases(self) -> Iterator[Phase]:
        """Warm up on random codes, then mine for those that decode worst."""
        if self.warm_up_epochs:
            yield self.training_phase("ocgan: random codes", self.warm_up_epochs, mining_steps=0)
        yield self.training_phase("ocgan: mined codes", self.epochs - self.warm_up_epochs, self.mining_steps)

    def training_phase(self, name: str, epochs: int, mining_steps: int) -> Train:
        """On each batch first the three networks that judge, then encoder and decoder."""

        def critics(batch: Batch) -> dict[str, Tensor]:
            return self.gan.critic_losses(2 * batch.images - 1)

        def generator(batch: Batch) -> dict[str, Tensor]:
            losses, _ = self.gan.generator_losses(2 * batch.images - 1, mining_steps)
            return losses

        judging = torch.optim.Adam(self.gan.critic_parameters(), self.learning_rate, BETAS)
        making = torch.optim.Adam(self.gan.generator_parameters(), self.learning_rate, BETAS)
        return Train(name, [Update(critics, judging), Update(generator, making)], epochs, [self.gan], self.batch_size)

    def forward(self, images: Tensor) -> Scores:
        """Squared errors of the copies: `map` (B, H, W) the mean over channels, `image` (B,) over all."""
        errors = self.gan.errors(images)  # (B, H, W)
        return Scores(errors.mean((1, 2)), errors)


def check(epochs: int, batch_size: int, learning_rate: float, warm_up: float, mining_steps: int) -> None:
    """The ranges of what says how long and how fast to learn."""
    at_least(1, epochs=epochs, batch_size=batch_size)
    at_least(0, mining_steps=mining_steps)
    positive(learning_rate=learning_rate)
    if not 0 <= warm_up <= 1:
        raise OkngError(f"warm_up is a share of the epochs, 0 to 1, not {warm_up}")
