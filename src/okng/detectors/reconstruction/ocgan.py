"""OCGAN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.detectors.checks import at_least, check_input, positive
from okng.errors import OkngError

SLOPE = 0.2  # of the leaky rectifiers below zero
BETAS = (0.5, 0.999)  # of Adam
KERNEL = 5
LATENT_WIDTHS = (128, 64, 32, 16)  # of the latent discriminator


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
    authors' code, and both discriminators end in a logit. Mining starts evenly in the cube and descends each
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


class OneClassGAN(nn.Module):
    """The five networks of OCGAN and their losses. Its images are in [-1, 1]."""

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int,
        code: int,
        width: int,
        visual_width: int,
        classifier_width: int,
        noise: float,
        dropout: float,
        reconstruction_weight: float,
        latent_weight: float,
        visual_weight: float,
        mining_rate: float,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, code=code, width=width, visual_width=visual_width, classifier_width=classifier_width)
        at_least(0, noise=noise, latent_weight=latent_weight, visual_weight=visual_weight)
        positive(reconstruction_weight=reconstruction_weight, mining_rate=mining_rate)
        if not 0 <= dropout < 1:
            raise OkngError(f"dropout is 0 or more and below 1, such as 0.5, not {dropout}")
        self.code, self.noise, self.mining_rate = code, noise, mining_rate
        self.weights = (reconstruction_weight, latent_weight, visual_weight)
        self.encoder = nn.Sequential(Contraction(image_size, channels, width, code), nn.Tanh())
        self.decoder = Decoder(image_size, channels, width, code, dropout)
        self.latent_discriminator = latent_discriminator(code)
        self.visual_discriminator = Contraction(image_size, channels, visual_width, 1)
        self.classifier = Contraction(image_size, channels, classifier_width, 1)

    def critic_parameters(self) -> list[nn.Parameter]:
        """Of the networks that judge."""
        judges = (self.latent_discriminator, self.visual_discriminator, self.classifier)
        return [parameter for judge in judges for parameter in judge.parameters()]

    def generator_parameters(self) -> list[nn.Parameter]:
        """Of encoder and decoder."""
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    def reset(self) -> None:
        """New random weights for all five networks, and no statistics of images any more."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()

    def noisy(self, images: Tensor) -> Tensor:
        """What the encoder sees in training."""
        return images + self.noise * torch.randn_like(images)

    def random_codes(self, count: int, like: Tensor) -> Tensor:
        """Codes (count, code), even in (-1, 1)."""
        return 2 * torch.rand(count, self.code, device=like.device) - 1

    def critic_losses(self, images: Tensor) -> dict[str, Tensor]:
        """Classifier: rebuilt OK images against decoded random codes. Discriminators: real against made."""
        with torch.no_grad():
            codes = self.encoder(self.noisy(images))  # (B, code)
            random = self.random_codes(len(images), images)  # (B, code)
            rebuilt, made = self.decoder(torch.cat([codes, random])).chunk(2)  # (B, C, H, W) each
        return {
            "classifier": tell_apart(self.classifier, rebuilt, made),
            "latent discriminator": tell_apart(self.latent_discriminator, random, codes),
            "visual discriminator": tell_apart(self.visual_discriminator, images, made),
        }

    def generator_losses(self, images: Tensor, mining_steps: int) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of encoder and decoder, and the mined codes (B, code)."""
        mined = self.mine(self.random_codes(len(images), images), mining_steps)  # (B, code)
        codes = self.encoder(self.noisy(images))  # (B, code)
        rebuilt, made = self.decoder(torch.cat([codes, mined])).chunk(2)  # (B, C, H, W) each
        with judging_only(self.latent_discriminator, self.visual_discriminator):
            even, real = self.latent_discriminator(codes), self.visual_discriminator(made)  # (B, 1) each
        losses = (F.mse_loss(rebuilt, images), cross_entropy(even, 1), cross_entropy(real, 1))
        named = zip(("reconstruction", "latent", "visual"), self.weights, losses, strict=True)
        return {name: weight * loss for name, weight, loss in named}, mined

    def mine(self, codes: Tensor, steps: int) -> Tensor:
        """Move `codes` (B, code) inside the cube to where the classifier says most surely: not a rebuilt image."""
        points = torch.atanh(codes.clamp(-1 + 1e-6, 1 - 1e-6))
        with judging_only(self.decoder, self.classifier):
            for _ in range(steps):
                points.requires_grad_()
                told = self.classifier(self.decoder(points.tanh()))  # (B, 1)
                (slope,) = torch.autograd.grad(cross_entropy(told, 0, "sum"), points)
                points = (points - self.mining_rate * slope).detach()
        return points.tanh()

    def errors(self, images: Tensor) -> Tensor:
        """Squared errors (B, H, W) of the copies of `images` (B, C, H, W); these and the errors are in [0, 1]."""
        copies: Tensor = self.decoder(self.encoder(2 * images - 1))  # (B, C, H, W) in [-1, 1]
        return ((copies + 1) / 2 - images).square().mean(1)


def cross_entropy(logits: Tensor, truth: int, reduction: str = "mean") -> Tensor:
    """Binary cross-entropy of `logits` that should all say `truth`."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth), reduction=reduction)


def tell_apart(judge: nn.Module, ones: Tensor, zeros: Tensor) -> Tensor:
    """Mean cross-entropy of a `judge` that should say 1 and 0, of both in one batch."""
    told_ones, told_zeros = judge(torch.cat([ones, zeros])).chunk(2)
    return (cross_entropy(told_ones, 1) + cross_entropy(told_zeros, 0)) / 2


@contextmanager
def judging_only(*modules: nn.Module) -> Iterator[None]:
    """For a while `modules` are in eval mode and take no gradients; gradients still pass through them."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    learning = [p for module in modules for p in module.parameters() if p.requires_grad]
    for module in modules:
        module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
        for parameter in learning:
            parameter.requires_grad_(True)


def frame(image_size: tuple[int, int]) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """How often unpadded layers of stride 2 halve an image, the grid that is left, and the frame they fit exactly.

    Each takes a side of 2h + 3 to h, so a frame of n halvings is 2ⁿ(grid + 3) - 3.
    """
    n = 1
    while (min(image_size) + 3) / 2 ** (n + 1) > 6:
        n += 1
    grid = tuple(-(-(side + 3) // 2**n) - 3 for side in image_size)
    return n, (grid[0], grid[1]), (2**n * (grid[0] + 3) - 3, 2**n * (grid[1] + 3) - 3)


class Contraction(nn.Module):
    """Strided layers from an image to `outputs` numbers: encoder, visual discriminator, classifier."""

    def __init__(self, image_size: tuple[int, int], channels: int, width: int, outputs: int):
        super().__init__()
        halvings, grid, (h, w) = frame(image_size)
        self.more = (0, w - image_size[1], 0, h - image_size[0])  # left, right, above, below
        layers: list[nn.Module] = [nn.Conv2d(channels, width, KERNEL, stride=2), nn.LeakyReLU(SLOPE)]
        for _ in range(halvings - 1):
            layers += [nn.Conv2d(width, 2 * width, KERNEL, stride=2), nn.BatchNorm2d(2 * width), nn.LeakyReLU(SLOPE)]
            width *= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, outputs, grid), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        """(B, outputs) of `images` (B, C, H, W)."""
        return self.layers(F.pad(images, self.more, mode="replicate"))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Transposed layers from a code to an image in [-1, 1]."""

    def __init__(self, image_size: tuple[int, int], channels: int, width: int, code: int, dropout: float):
        super().__init__()
        halvings, grid, _ = frame(image_size)
        self.image_size = image_size
        self.widths = [width * 2**i for i in reversed(range(halvings))]  # of the feature layers, coarse to fine
        first = nn.ConvTranspose2d(code, self.widths[0], grid)
        later = [
            nn.ConvTranspose2d(inner, outer, KERNEL, stride=2)
            for inner, outer in zip(self.widths, self.widths[1:], strict=False)
        ]
        self.blocks = nn.ModuleList(
            nn.Sequential(layer, nn.BatchNorm2d(outer), nn.ReLU())
            for layer, outer in zip([first, *later], self.widths, strict=True)
        )
        last = nn.ConvTranspose2d(width, channels, KERNEL, stride=2)
        self.last = nn.Sequential(nn.Dropout(dropout), last, nn.Tanh())

    def features(self, codes: Tensor) -> list[Tensor]:
        """The feature layers, coarse to fine, each (B, widths[i], h_i, w_i), of `codes` (B, code)."""
        layers, values = [], codes[:, :, None, None]  # (B, code, 1, 1)
        for block in self.blocks:
            values = block(values)
            layers.append(values)
        return layers

    def image(self, features: list[Tensor]) -> Tensor:
        """Images (B, C, H, W) from the feature layers; what goes beyond their right and lower edge is cut off."""
        height, width = self.image_size
        return self.last(features[-1])[..., :height, :width]  # type: ignore[no-any-return]

    def forward(self, codes: Tensor) -> Tensor:
        """Images (B, C, H, W) of `codes` (B, code)."""
        return self.image(self.features(codes))


def latent_discriminator(code: int) -> nn.Sequential:
    """Fully connected, from a code to one logit: is it drawn evenly from the cube?"""
    layers: list[nn.Module] = []
    for outer in LATENT_WIDTHS:
        layers += [nn.Linear(code, outer), nn.ReLU()]
        code = outer
    return nn.Sequential(*layers, nn.Linear(code, 1))
