"""Multiresolution Knowledge Distillation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive, typed
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.rectified import is_rectified
from okng.nn.images.blur import gaussian_blur

OPENED = 3  # pixels: what is narrower in the map is taken out


class MKD(Detector):
    """A much narrower network learns direction and size of a pretrained one's activations; where they differ is odd.

    Salehi, Sadjadi, Baselizadeh, Rohban, Rabiee, "Multiresolution Knowledge Distillation for Anomaly Detection", CVPR
    2021. All of a level's map is one vector, so it judges images as wholes; where is told by the score's gradient.

    `backbone`, `strides`, `weights`: the source and where its features are taken; a critical level is what a pool of
    2 × 2 leaves of them, so that vgg16 at 2, 4, 8 and 16 gives the paper's second to fifth pool. `width`: channels of
    the cloner, except where it has to give as many as a level of the source has. `magnitude_weight`: lambda, of the
    squared error beside 1 - cosine; the authors take 0.01, for MVTec AD 0.5. `sigma`: of the Gaussian that smooths the
    map, in pixels of the input. `epochs`, `batch_size`, `learning_rate`: of Adam; the authors train 50 epochs on MNIST,
    200 on CIFAR-10, 600 on MVTec AD.

    The cloner is VGG-16 with fewer channels: 16, 16, pool, 16, 128, pool, 16, 16, 256, pool, and so on for the paper's
    source; the score leaves out the finest level, which is only learnt.

    Deliberately otherwise: of any other source the cloner is a VGG too, with as many halvings as the source has down
    to its coarsest level and as many channels as that where a level is compared; where the source's features do not end
    in a ReLU, neither do its levels, and these have a bias. Images are normalised as the source wants them; the authors
    do not where they learn MVTec AD. The map is opened in grey, 3 × 3, which opens each threshold's mask alike. As it
    takes a gradient, and one graph has none, nothing is exported.
    """

    pretrained = True
    exportable = False  # the map takes a gradient

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (2, 4, 8, 16),
        weights: str = "imagenet",
        width: int = 16,
        magnitude_weight: float = 0.01,
        sigma: float = 4.0,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        at_least(1, width=width, epochs=epochs, batch_size=batch_size)
        at_least(0, magnitude_weight=magnitude_weight)
        positive(sigma=sigma, learning_rate=learning_rate)
        self.source = freeze(Backbone(backbone, strides, weights))
        self.strides, channels = self.source.strides, dict(zip(self.source.strides, self.source.channels, strict=True))
        self.magnitude_weight, self.sigma = magnitude_weight, sigma
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        rectified = is_rectified(self.source)
        self.cloner = nn.ModuleList()
        stride, given = 1, 3
        while stride <= max(self.strides):
            level = channels.pop(stride, width)
            narrow = 1 if stride <= 2 else 2  # convolutions before the last, as VGG-16 has them
            linear = stride in self.strides and not rectified
            self.cloner.append(Block(given, width, narrow, level, linear))
            stride, given = 2 * stride, level
        if channels:
            raise OkngError(f"each of strides is a power of 2, such as 2, 4, 8 and 16, not {typed(strides)}")

    @property
    def multiple(self) -> int:
        """Twice the coarsest stride, that of the last pool, so that every grid divides the input."""
        return 2 * max(self.strides)

    def phases(self) -> Iterator[Phase]:
        """Train the cloner; the source's levels are computed once per image."""
        optimizer = torch.optim.Adam(self.cloner.parameters(), self.learning_rate)
        yield Train(
            "cloner",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=[self.cloner],
            batch_size=self.batch_size,
            prepare=self.critical,
        )

    def critical(self, images: Tensor) -> list[Tensor]:
        """The source's levels of `images` (B, 3, H, W), each (B, C_s, H / 2s, W / 2s)."""
        return [F.max_pool2d(features, 2) for features in self.source(images)]

    def clone(self, images: Tensor) -> list[Tensor]:
        """The cloner's levels, each (B, C_s, H / 2s, W / 2s)."""
        features = (images - self.source.mean) / self.source.std
        levels = []
        for i, block in enumerate(self.cloner):
            features = F.max_pool2d(block(features), 2)  # (B, C, H / 2**(i + 1), W / 2**(i + 1))
            if 2**i in self.strides:
                levels.append(features)
        return levels

    def differences(self, wanted: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Of two maps (B, C, h, w) the direction's, 1 - cosine in [0, 2], and the magnitude's, mean square: (B,)."""
        direction = 1 - F.cosine_similarity(wanted.flatten(1), found.flatten(1))
        return direction, self.magnitude_weight * (wanted - found).square().mean((1, 2, 3))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Direction and magnitude, each summed over all levels."""
        pairs = zip(batch.prepared, self.clone(batch.images), strict=True)
        directions, magnitudes = zip(*[self.differences(*pair) for pair in pairs], strict=True)
        return {"direction": torch.stack(directions).mean(1).sum(), "magnitude": torch.stack(magnitudes).mean(1).sum()}

    def oddness(self, images: Tensor) -> Tensor:
        """The loss of each image without its finest level, unless that is the only one: (B,)."""
        pairs = list(zip(self.critical(images), self.clone(images), strict=True))[-max(1, len(self.strides) - 1) :]
        differences = [difference for pair in pairs for difference in self.differences(*pair)]
        return torch.stack(differences).sum(0)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,), >= 0; `map` (B, H, W), >= 0: how steeply it rises with each pixel, smoothed and opened."""
        asked = torch.is_grad_enabled()  # for the score's gradient, too
        with torch.enable_grad():
            images = images if images.requires_grad else images.detach().requires_grad_()
            odd = self.oddness(images)
            (gradient,) = torch.autograd.grad(odd.sum(), images, retain_graph=asked)  # (B, 3, H, W)
        steepness = gaussian_blur(gradient.abs().sum(1), self.sigma)  # (B, H, W)
        return Scores(odd if asked else odd.detach(), opened(steepness))


class Block(nn.Module):
    """3 × 3 convolutions: `narrow` ones of `width` channels with batch normalization, then one without, of `wanted`.

    A ReLU follows each, but not the last where it is `linear`, which has a bias instead.
    """

    def __init__(self, given: int, width: int, narrow: int, wanted: int, linear: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(narrow):
            layers.append(nn.Conv2d(width if i else given, width, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.Conv2d(width, wanted, 3, padding=1, bias=linear))
        self.layers = nn.Sequential(*layers, *([] if linear else [nn.ReLU()]))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, wanted, h, w) of `features` (B, given, h, w)."""
        given: Tensor = self.layers(features)
        return given


def opened(maps: Tensor) -> Tensor:
    """Maps (B, h, w) after a morphological opening: no peak narrower than `OPENED` stays. Same shape."""
    eroded = -F.max_pool2d(-maps[:, None], OPENED, 1, OPENED // 2)
    return F.max_pool2d(eroded, OPENED, 1, OPENED // 2)[:, 0]
