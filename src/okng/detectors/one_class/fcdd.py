"""FCDD."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive, typed
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.images.contrast import UnitRange, contrast_normalised

SLOPE, EPSILON = 0.01, 1e-4  # of the leaky rectifiers below zero; in the batch normalisation's variance
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
LAST = 0.05  # the learning rate's factor in the end: 0.985 for each of 200 epochs
SPOILT = 0.5  # the share of images in whose place an anomaly is learnt
TINY = 1e-31
SIDES, MOST, FAINTEST, SOFT = (8, 54), 6, 0.3, 3.0  # of a piece of confetti: px of 224, how many, contrast, px


class FCDD(Detector):
    """A fully convolutional network whose output, cell by cell, is how odd what the cell sees is.

    Liznerski, Ruff, Vandermeulen, Franks, Kloft, Müller, "Explainable Deep One-Class Classification", ICLR 2021. The
    output φ of each cell becomes A = √(φ² + 1) - 1. With a the mean of A, OK images count by a and anomalies by
    -log(1 - exp(-a)). In the place of each second image an anomaly is learnt: one of the auxiliary images
    (`okng.fit(..., auxiliary=FOLDER)`), or without any the image itself with confetti on it. The score is a; the map
    lays a Gaussian around the middle of each cell's receptive field, as wide as that at most.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `backbone`, `weights`, `stride`: the frozen network whose
    features at the stride are looked at; "none" for a network that is trained from the start. `widths`: channels of the
    layers that are trained, 3×3 behind a backbone, and else 5×5, each of which halves the sides; a 1×1 layer follows.
    `sigma`: the Gaussian's standard deviation, px; the paper's is 12 for 224 px, 1.2 for 28 and 32. `masks`: whether
    confetti is learnt pixel by pixel, as odd where it lies and as OK around it, which auxiliary images can't be.
    `epochs`, `batch_size`, `learning_rate`: of stochastic gradient descent with Nesterov's momentum 0.9; the rate falls
    to a twentieth.

    Deliberately otherwise: the paper freezes VGG-11 up to stride 8 and goes on training its next two layers; here two
    layers begin at random behind any backbone, and see its own normalisation instead of the paper's, which the network
    without a backbone sees. Of that all 5×5 layers are normalised and rectified, in the authors' for Fashion-MNIST not
    the last. Confetti makes images darker too. Images are neither cropped nor jittered. The map's Gaussians are laid by
    a product on either side, which gives what a transposed convolution does. A receptive field with even sides has its
    middle between two pixels; the authors' code gives both the middle's value, so that its Gaussians are half a pixel
    wider, and a quarter as high.
    """

    fixed_size = True
    takes_auxiliary = True
    down: Tensor
    across: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        channels: int = 3,
        backbone: str = "efficientnet_lite0",
        weights: str = "imagenet",
        stride: int = 8,
        widths: tuple[int, ...] = (512, 512),
        sigma: float = 12.0,
        masks: bool = False,
        epochs: int = 200,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, stride=stride, epochs=epochs, batch_size=batch_size)
        positive(sigma=sigma, learning_rate=learning_rate)
        alone = backbone == "none"
        if not widths or min(widths) < 1 or (alone and min(image_size) < 2 ** len(widths)):
            raise OkngError(f"widths are channels, 1 or more, of layers that fit into the image, not {typed(widths)}")
        self.sigma, self.masks = sigma, masks
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.range = UnitRange()
        self.backbone = None if alone else freeze(Backbone(backbone, (stride,), weights))
        inner = channels if self.backbone is None else self.backbone.channels[0]
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(inner, width, 5 if alone else 3, padding=2 if alone else 1)]
            layers += [nn.BatchNorm2d(width, EPSILON), nn.LeakyReLU(SLOPE)]
            layers += [nn.MaxPool2d(2)] if alone else []
            inner = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(inner, 1, 1))
        jump = 2 ** len(widths) if self.backbone is None else stride
        before = [] if self.backbone is None else sliding(self.backbone)
        size, _, middle = receptive_field([*before, *sliding(self.layers)], jump)
        for name, side in zip(("down", "across"), image_size, strict=True):
            self.register_buffer(name, gaussians(side, jump, size, middle, sigma), persistent=False)

    @property
    def multiple(self) -> int:
        """The backbone's stride, so that its grid divides the input."""
        return 1 if self.backbone is None else self.backbone.strides[0]

    def phases(self) -> Iterator[Phase]:
        """The range of the images, for a network without a backbone; then to tell OK images from anomalies."""
        if self.backbone is None:
            extremes: list[Tensor] = []

            def visit(batch: Batch) -> None:
                extremes.append(torch.stack(contrast_normalised(batch.images).aminmax()))  # (2,)

            yield Collect("range", visit, lambda: self.range.learn(torch.stack(extremes), torch.stack(extremes)))
        descent = torch.optim.SGD(
            self.layers.parameters(), self.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        update = Update(self.loss, descent, schedule=lambda share: LAST**share)
        yield Train("telling", [update], self.epochs, [self.layers], self.batch_size, augment=confetti)

    def loss(self, batch: Batch) -> Tensor:
        """The hypersphere classifier's loss (equations 3 and 4), or with masks that of equation 5."""
        anomalies, where = batch.views  # (B, C, H, W), (B, 1, H, W) bool
        if batch.auxiliary is not None:
            anomalies, where = batch.auxiliary, torch.ones_like(where)
        odd = torch.rand(len(anomalies), device=anomalies.device) < SPOILT  # (B,)
        heat = self.heat(torch.where(odd[:, None, None, None], anomalies, batch.images))  # (B, h, w)
        if not self.masks:
            mean = heat.mean((1, 2))  # (B,)
            return torch.where(odd, surprise(mean), mean).mean()
        drawn, mask = self.enlarged(heat), where[:, 0] & odd[:, None, None]  # (B, H, W)
        ok, ng = (drawn * ~mask).mean((1, 2)), (drawn * mask).mean((1, 2))  # (B,)
        return (ok + torch.where(mask.any(2).any(1), surprise(ng), torch.zeros_like(ng))).mean()

    def heat(self, images: Tensor) -> Tensor:
        """A of each cell, (B, h, w), of `images` (B, C, H, W)."""
        if self.backbone is None:
            seen = self.range(contrast_normalised(images))
        else:
            (seen,) = self.backbone(images.expand(-1, 3, -1, -1))  # (B, C', h, w)
        squared = self.layers(seen)[:, 0].square()  # (B, h, w)
        odd: Tensor = squared / ((squared + 1).sqrt() + 1)
        return odd  # √(φ² + 1) - 1, to the last digit of small ones too

    def enlarged(self, heat: Tensor) -> Tensor:
        """Gaussians around the cells' middles, as high as `heat` (B, h, w), summed: (B, H, W)."""
        return self.down @ heat @ self.across.T

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,), the mean of A; `map` (B, H, W), A enlarged."""
        heat = self.heat(images)
        return Scores(heat.mean((1, 2)), self.enlarged(heat))


def surprise(mean: Tensor) -> Tensor:
    """-log(1 - exp(-a)): how little an anomaly's a is like one."""
    return -torch.log(-torch.expm1(-mean) + TINY)


def sliding(module: nn.Module) -> Iterator[tuple[int, int, float]]:
    """Kernel, stride and padding in front of each layer of `module` that slides over the image, in order.

    Shortcuts that halve the sides on their way around other layers are left out. A TensorFlow layer pads by what its
    kernel needs, more of it behind.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (
                int(side[0] if isinstance(side, tuple) else side)  # type: ignore[arg-type]
                for side in (layer.kernel_size, layer.stride, layer.padding)
            )
            if "downsample" not in name or kernel > 1:
                yield kernel, stride, max(0, kernel - stride) // 2 if type(layer).__name__.endswith("Same") else padding


def receptive_field(layers: Iterable[tuple[int, int, float]], most: int) -> tuple[int, int, float]:
    """Of (kernel, stride, padding) in order: how many px a cell sees, how many lie between cells, the first's middle.

    Middles are places of px, from 0 on. The layers end where one would leave more than `most` px between cells.
    """
    size, jump, middle = 1, 1, 0.0
    for kernel, stride, padding in layers:
        if jump * stride > most:
            break
        middle += ((kernel - 1) / 2 - padding) * jump
        size += (kernel - 1) * jump
        jump *= stride
    return size, jump, middle


def gaussians(side: int, jump: int, size: int, middle: float, sigma: float) -> Tensor:
    """One Gaussian of height 1 for each cell of a `side`, cut off where its receptive field ends, (side, cells)."""
    middles = middle + jump * torch.arange(max(1, side // jump))  # (cells,)
    apart = torch.arange(side)[:, None] - middles  # (side, cells)
    return torch.exp(-apart.square() / (2 * sigma**2)) * (apart.abs() <= size / 2)


def confetti(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`image` (C, H, W) with up to six turned rectangles that are brighter or darker, and where they are, (1, H, W).

    Sides are 8 to 54 px of 224; half of the pieces are grey, the others of one colour; edges are soft.
    """
    c, h, w = image.shape
    scale = min(h, w) / 224
    y, x = torch.arange(h)[:, None], torch.arange(w)[None]
    spoilt, where = image, torch.zeros(1, h, w, dtype=torch.bool)
    for _ in range(1 + int(torch.randint(MOST, (), generator=generator))):
        top, left, first, second, turn, soft, dark, grey = torch.rand(8, generator=generator).tolist()
        colour = torch.rand(c, 1, 1, generator=generator)
        colour = FAINTEST + (1 - FAINTEST) * (colour[:1].expand(c, 1, 1) if grey < 0.5 else colour)
        halves = [scale * (SIDES[0] + each * (SIDES[1] - SIDES[0])) / 2 for each in (first, second)]
        right, below = x - left * (w - 1), y - top * (h - 1)
        sin, cos = math.sin(math.pi * turn), math.cos(math.pi * turn)
        along, beside = (cos * right + sin * below).abs(), (cos * below - sin * right).abs()  # (h, w)
        edge = max(0.25, soft * SOFT * scale)
        inside = torch.sigmoid((halves[0] - along) / edge) * torch.sigmoid((halves[1] - beside) / edge)  # (h, w)
        spoilt = (spoilt + (-1 if dark < 0.5 else 1) * colour * inside).clamp(0, 1)
        where = where | (inside > 0.5)
    return spoilt, where
