"""CAVGA, without NG images and with a few of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.learning.adversarial import frozen
from okng.nn.networks.gaussian import divergence, sample
from okng.nn.networks.grad_cam import grad_cam

HALVINGS = 4  # at most, as in DCGAN
GRID = 3  # the latent variable keeps at least so many places on a side
SLOPE = 0.2  # of the leaky rectifier below zero


class CAVGAu(Detector):
    """A variational autoencoder learns to attend to all of an OK image; what it does not attend to is odd.

    Venkataramanan, Peng, Singh, Mahalanobis, "Attention Guided Anomaly Localization in Images", ECCV 2020, the variant
    without NG images. The latent variable keeps its places; a discriminator makes the copies sharp; and the attention,
    Grad-CAM of the latent mean over the encoder's last features, is pushed to cover the image (attention expansion).

    `image_size` (h, w) and `channels` (1 or 3) of the input. `width`: channels after the first layer; they double as
    the sides halve. `latent`: channels of the latent variable. `adversarial_weight` and `attention_weight`: of those
    losses beside that of the variational autoencoder, which is a sum over an image as in the paper. `epochs`,
    `batch_size`, `learning_rate`: of Adam, with momentum 0.5 as in DCGAN. On a CPU, `width=16,
    attention_weight=0.1, learning_rate=1e-3`, with `latent=16, batch_size=64, epochs=10` for thousands of images of 28
    to 32 px and `latent=64, epochs=60` for hundreds of 64 px. In some hundred steps the paper's attention weight moves
    nothing; ten times the one given here saturates the attention.

    Deliberately otherwise: the networks are DCGAN's, as in the paper's CAVGA-D, but start from random weights, the
    paper's from weights trained on faces. From random ones the attention differs much by seed: whether a defect lies
    outside it is not sure. Size, `latent`, `epochs`, `batch_size` and `learning_rate` of the paper could not be
    checked. Where it is silent: the copies' error is the cross-entropy, the autoencoder's adversarial loss is the one
    that does not saturate, and Grad-CAM explains the sum of the latent means by the encoder's last layer before its
    rectifier; after it all is linear, and every image would have the same weights. The attention lies in [0, 1] by a
    sigmoid, as a summary of the paper says; here it is that of the signed Grad-CAM, for that of its positive part is
    never below one half. `image` is the mean absolute error of the copy, the paper's pixel-wise difference; the paper
    brings it to [0, 1] over the test set.
    """

    fixed_size = True
    exportable = False

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        width: int = 64,
        latent: int = 128,
        adversarial_weight: float = 1.0,
        attention_weight: float = 0.01,
        epochs: int = 150,
        batch_size: int = 16,
        learning_rate: float = 1e-4,
    ):
        super().__init__()
        check_input(image_size, channels, smallest=2 * GRID)
        at_least(1, width=width, latent=latent, epochs=epochs, batch_size=batch_size)
        at_least(0, adversarial_weight=adversarial_weight, attention_weight=attention_weight)
        positive(learning_rate=learning_rate)
        self.adversarial_weight, self.attention_weight = adversarial_weight, attention_weight
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        sides = [image_size]
        while min(sides[-1]) // 2 >= GRID and len(sides) <= HALVINGS:
            sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
        widths = [channels, *(width * 2**i for i in range(len(sides) - 1))]
        self.grid, top = sides[-1], widths[-1]
        *before, activation = _down(widths)
        self.encoder, self.activation = nn.Sequential(*before), activation
        self.mean, self.log_variance = nn.Conv2d(top, latent, 1), nn.Conv2d(top, latent, 1)
        up: list[nn.Module] = [nn.Conv2d(latent, top, 1), nn.BatchNorm2d(top), nn.ReLU()]
        for i in reversed(range(1, len(sides))):
            odd = (sides[i - 1][0] % 2, sides[i - 1][1] % 2)  # the side lost a row or a column when it was halved
            up += [nn.ConvTranspose2d(widths[i], widths[i - 1], 4, stride=2, padding=1, output_padding=odd)]
            up += [nn.BatchNorm2d(widths[i - 1]), nn.ReLU()] if i > 1 else []
        self.decoder = nn.Sequential(*up)  # its outputs are the copies' logits
        self.discriminator = nn.Sequential(_down(widths), nn.Conv2d(top, 1, self.grid), nn.Flatten(0))

    def phases(self) -> Iterator[Phase]:
        """On every batch the discriminator takes a step, then the autoencoder."""
        own = list(self.discriminator.parameters())
        others = [p for name, p in self.named_parameters() if not name.startswith("discriminator.")]
        updates = [
            Update(self.discriminator_loss, torch.optim.Adam(own, self.learning_rate, (0.5, 0.999))),
            Update(self.loss, torch.optim.Adam(others, self.learning_rate, (0.5, 0.999))),
        ]
        yield Train("cavga", updates, self.epochs, trains=[self], batch_size=self.batch_size)

    def discriminator_loss(self, batch: Batch) -> Tensor:
        """Tell OK images from their copies; it sees no NG images."""
        ok = batch.labels == 0  # (B,), n of them
        if not ok.any():
            return 0 * next(self.discriminator.parameters()).sum()  # nothing to learn from
        with torch.no_grad():
            z = sample(*self.distribution(self.encoder(batch.images)))  # (B, latent, h, w)
            copies = self.decoder(z[ok]).sigmoid()  # (n, C, H, W)
        real, false = self.discriminator(batch.images[ok]), self.discriminator(copies)  # (n,)
        return (F.softplus(-real) + F.softplus(false)).mean()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Copy OK images, deceive the discriminator, attend to everything."""
        features = self.encoder(batch.images)  # (B, top, h, w)
        mean, log_variance = self.distribution(features)  # (B, latent, h, w) each
        z = sample(mean, log_variance)  # (B, latent, h, w)
        losses = self.guidance(features, z, batch)
        ok = batch.labels == 0  # (B,), n of them
        if not ok.any():
            return losses
        logits = self.decoder(z[ok])  # (n, C, H, W)
        errors = F.binary_cross_entropy_with_logits(logits, batch.images[ok], reduction="none")  # (n, C, H, W)
        with frozen(self.discriminator):
            deceived = F.softplus(-self.discriminator(logits.sigmoid())).mean()
        return {
            "copies": errors.flatten(1).sum(1).mean(),
            "divergence": divergence(mean[ok], log_variance[ok]).mean(),
            "adversarial": self.adversarial_weight * deceived,
            **losses,
        }

    def guidance(self, features: Tensor, z: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Attention expansion: the share of the image that is not attended to."""
        return {"attention": self.attention_weight * (1 - self.attention(features, create_graph=True)).mean()}

    def distribution(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The latent variable's mean and log-variance, (B, latent, h, w) each, of the encoder's `features`."""
        active = self.activation(features)  # (B, top, h, w)
        return self.mean(active), self.log_variance(active)

    def attention(self, features: Tensor, create_graph: bool = False) -> Tensor:
        """How far each place of the encoder's `features` (B, top, h, w) is attended to, (B, h, w) in [0, 1]."""
        mean, _ = self.distribution(features)  # (B, latent, h, w)
        score = mean.flatten(1).sum(1)  # (B,)
        return grad_cam(score, features, create_graph).sigmoid()

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the mean absolute error of the copy; `map` (B, h, w) one minus the attention, on the grid."""
        features = self.encoder(images)  # (B, top, h, w)
        mean, _ = self.distribution(features)  # (B, latent, h, w)
        copies = self.decoder(mean).sigmoid()  # (B, C, H, W)
        with torch.enable_grad():  # scoring runs without gradients; Grad-CAM needs that of the last layers
            attention = self.attention(features.detach().requires_grad_())  # (B, h, w)
        return Scores((copies - images).abs().flatten(1).mean(1), 1 - attention.detach())


class CAVGAw(CAVGAu):
    """As `CAVGAu`, taught by a few NG images without masks what to look away from.

    The weakly supervised variant of the same paper. A classifier of OK and NG on the latent variable gives two
    attention maps of every OK image, Grad-CAM of either class. On OK images that are classified as OK, that of OK
    is pushed to cover the image and that of NG to vanish (complementary guided attention).

    `image_size`, `channels`, `width`, `latent`, `adversarial_weight`, `attention_weight`, `epochs`, `batch_size`,
    `learning_rate`: as in `CAVGAu`. `classification_weight`: of the classifier's cross-entropy; where it is not below
    `attention_weight`, the two attentions hardly part. On a CPU as there, with `attention_weight=10.0,
    classification_weight=1.0`, which keeps the paper's ratio.

    Deliberately otherwise: as `CAVGAu`; and only OK images are copied and shown to the discriminator: a detector that
    learns to copy defects would no longer be surprised by them. Of NG images learns the classifier, and through it the
    encoder, whose batch normalisation sees them too.
    """

    needs_ng = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        width: int = 64,
        latent: int = 128,
        adversarial_weight: float = 1.0,
        attention_weight: float = 0.01,
        classification_weight: float = 0.001,
        epochs: int = 150,
        batch_size: int = 16,
        learning_rate: float = 1e-4,
    ):
        super().__init__(
            image_size, channels, width, latent, adversarial_weight, attention_weight, epochs, batch_size, learning_rate
        )
        at_least(0, classification_weight=classification_weight)
        self.classification_weight = classification_weight
        h, w = self.grid
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(latent * h * w, 2))

    def guidance(self, features: Tensor, z: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The classifier's loss, and complementary guided attention on OK images that it calls OK."""
        logits = self.classifier(z)  # (B, 2): OK and NG
        ok, ng = (grad_cam(logits[:, c], features, create_graph=True).sigmoid() for c in (0, 1))  # (B, h, w) each
        seen = (batch.labels == 0) & (logits[:, 0] > logits[:, 1])  # (B,)
        complementary = (1 - ok + ng).mean((1, 2)) * seen  # (B,)
        return {
            "classification": self.classification_weight * F.cross_entropy(logits, batch.labels),
            "attention": self.attention_weight * complementary.mean(),
        }

    def attention(self, features: Tensor, create_graph: bool = False) -> Tensor:
        """How far each place of `features` (B, top, h, w) speaks for OK, (B, h, w) in [0, 1]."""
        mean, _ = self.distribution(features)  # (B, latent, h, w)
        return grad_cam(self.classifier(mean)[:, 0], features, create_graph).sigmoid()


def _down(widths: list[int]) -> nn.Sequential:
    """DCGAN's discriminator without its last layer: every layer halves the sides."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(inner, outer, 4, stride=2, padding=1, bias=i == 0)]
        layers += [nn.BatchNorm2d(outer)] if i else []
        layers += [nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)
