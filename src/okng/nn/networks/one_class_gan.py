"""OCGAN's five networks and their losses, for every detector that is built on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.errors import OkngError
from okng.nn.learning.adversarial import judging_only

SLOPE = 0.2  # of the leaky rectifiers below zero
KERNEL = 5
LATENT_WIDTHS = (128, 64, 32, 16)  # of the latent discriminator


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
