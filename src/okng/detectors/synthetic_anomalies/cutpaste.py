"""CutPaste."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn

from okng.checks import at_least, positive, typed
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.images.windows import windows_in_blocks
from okng.nn.vectors.covariance import ledoit_wolf, whitening_of

STRIDE = 32  # of the last features
MOMENTUM, WEIGHT_DECAY = 0.9, 3e-5
AREA, ASPECT = (0.02, 0.15), (0.3, 3.3)  # of a pasted rectangle, of the image's
SCAR_WIDTH, SCAR_HEIGHT, SCAR_TURN = (2, 16), (10, 25), 45  # px where the image's shorter side has 256, and degrees
JITTER = 0.1  # of brightness, contrast, saturation and hue
DRAWN, TOGETHER = 32, 64  # patches of an OK image for the density, and of any that pass through the network at once


class CutPaste(Detector):
    """A network learns whether a piece of an image was cut out and pasted elsewhere; odd is far from its OK features.

    Li, Sohn, Yoon, Pfister, "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021.
    After the training, the score is the Mahalanobis distance of an image's averaged last features, those before the
    projection head, from the OK images'. There is no map: where a score comes from is asked of Grad-CAM (`okng
    explain`). With `patch` the same is learnt and judged of patches, which says where: each patch's
    distance is spread over its pixels by a Gaussian, and the image's score is the map's maximum.

    `backbone`, `weights`: the network, which by default begins with random weights, as in the paper; with "imagenet"
    or a file it begins trained. `variant`: what is told from an OK image, "cutpaste", a rectangle of 2 to 15 % of it;
    "scar", a small thin one that is turned by up to 45°; "3-way", both, each as a class of its own. `head`: widths of
    the layers between the features and the classes, in training only. `head_first`: so many epochs at the beginning
    teach the head alone, for a backbone that begins trained. `epochs`, `batch_size`, `learning_rate`: of stochastic
    gradient descent with momentum 0.9, its rate falling as half a cosine; each image of a batch gives two or three
    views. `training_steps`: after how many batches training ends, in place of `epochs`. `patch`: the side of patches in
    px, a multiple of 32 such as 64, 0 for whole images. `patch_step`: how far apart those begin that are judged, a
    divisor of 32; at 4 an image of 256 px is 2,401 patches of 64 px.

    Deliberately otherwise: the paper does not say how far it shifts images at random, so they are not shifted; colours
    are jittered as in the paper, the image's and the pasted piece's. A scar's size belongs to 256 px and shrinks and
    grows with what is learnt, the image or, with `patch`, the patch. An epoch is one pass; the paper's is 256 batches
    whatever the set, so that its 256 are 65,536 steps. The covariance is shrunk as Ledoit and Wolf do, for a hundred
    images give no other of 512 values. Of patches the density is that of 32 of each OK image, wherever they lie, and
    the Gaussian that spreads their distances deviates by a quarter of a side: what the paper has there could not be
    checked.
    """

    pretrained = True
    mean: Tensor
    whitening: Tensor

    def __init__(
        self,
        backbone: str = "resnet18",
        weights: str = "none",
        variant: Literal["cutpaste", "scar", "3-way"] = "3-way",
        head: tuple[int, ...] = (512, 128),
        head_first: int = 0,
        epochs: int = 256,
        batch_size: int = 32,
        learning_rate: float = 0.03,
        training_steps: int | None = None,
        patch: int = 0,
        patch_step: int = 4,
    ):
        super().__init__()
        at_least(0, head_first=head_first)
        at_least(1, epochs=epochs, batch_size=batch_size, training_steps=training_steps)
        positive(learning_rate=learning_rate)
        if any(width < 1 for width in head):
            raise OkngError(f"head is widths of 1 or more, such as 512,128, not {typed(head)}")
        if patch < 0 or patch % STRIDE:
            raise OkngError(f"patch is a multiple of {STRIDE} px such as 64, or 0 for whole images, not {patch}")
        if patch_step < 1 or STRIDE % patch_step:
            raise OkngError(f"patch_step divides {STRIDE}, such as 4, not {patch_step}")
        self.patch, self.patch_step = patch, patch_step
        self.backbone = Backbone(backbone, (STRIDE,), weights)
        self.variant, self.head_first, self.epochs = variant, head_first, epochs
        self.batch_size, self.learning_rate, self.training_steps = batch_size, learning_rate, training_steps
        (features,) = self.backbone.channels
        layers: list[nn.Module] = []
        for inner, outer in zip([features, *head], head, strict=False):
            layers += [nn.Linear(inner, outer, bias=False), nn.BatchNorm1d(outer), nn.ReLU()]
        classes = 3 if variant == "3-way" else 2
        self.head = nn.Sequential(*layers, nn.Linear([features, *head][-1], classes))
        self.register_buffer("mean", torch.zeros(features))  # (D,), of OK images
        self.register_buffer("whitening", torch.eye(features))  # (D, D)

    @property
    def multiple(self) -> int:
        """The features' stride, so that their grid divides the input."""
        return STRIDE

    def phases(self) -> Iterator[Phase]:
        """Learn to tell views apart, the head alone first if asked; then the density of OK images."""
        if self.head_first:
            self.backbone.requires_grad_(False)
            yield self.telling("head", self.head_first, [self.head])
            self.backbone.requires_grad_(True)
        yield self.telling("telling", self.epochs, [self.backbone, self.head], self.training_steps)
        seen: list[Tensor] = []

        def finish() -> None:
            vectors = torch.cat(seen)  # (N, D)
            self.mean = vectors.double().mean(0).to(vectors)
            self.whitening = whitening_of(ledoit_wolf(vectors)).to(vectors)

        def visit(batch: Batch) -> None:
            images = batch.images
            if self.patch:
                images = torch.cat([self.cropped(image) for image in images for _ in range(DRAWN)])
            seen.extend(self.embed(some).to(self.mean) for some in images.split(TOGETHER))

        yield Collect("density", visit, finish)

    def cropped(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A patch (1, C, patch, patch) from anywhere in `image` (C, H, W)."""
        if min(image.shape[1:]) < self.patch:
            raise OkngError(f"patch is at most the images' shorter side, {min(image.shape[1:])} px, not {self.patch}")
        return cut(image, self.patch, self.patch, generator)[None]

    def telling(self, name: str, epochs: int, trains: list[nn.Module], steps: int | None = None) -> Train:
        """A phase in which `trains` learn which view is which."""
        parameters = [parameter for module in trains for parameter in module.parameters()]
        optimizer = torch.optim.SGD(parameters, self.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY)
        update = Update(self.loss, optimizer, schedule=lambda share: (1 + math.cos(math.pi * share)) / 2)
        return Train(name, [update], epochs, trains, self.batch_size, steps=steps, augment=self.augment)

    def augment(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        """`image` (C, H, W) with its colours jittered, and the same with something pasted, once for each class.

        Or a patch of it.
        """
        image = jittered(self.cropped(image, generator)[0] if self.patch else image, generator)
        made = {"cutpaste": [cut_paste], "scar": [scar], "3-way": [cut_paste, scar]}[self.variant]
        return [image, *(paste(image, generator) for paste in made)]

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of which view each is, all in one batch for the normalisation."""
        which = torch.arange(len(batch.views), device=batch.images.device).repeat_interleave(
            len(batch.images)
        )  # (v*B,)
        with torch.set_grad_enabled(self.backbone.training):  # else only the head learns
            embedded = self.embed(torch.cat(batch.views))  # (v*B, D)
        return F.cross_entropy(self.head(embedded), which)

    def embed(self, images: Tensor) -> Tensor:
        """The averaged last features (B, D) of `images` (B, 3, H, W)."""
        (features,) = self.backbone(images)  # (B, D, h, w)
        averaged: Tensor = features.mean((2, 3))
        return averaged

    def distances(self, images: Tensor) -> Tensor:
        """The Mahalanobis distances (B,) of `images` (B, 3, H, W) from the OK images' features."""
        deviations = self.embed(images) - self.mean  # (B, D)
        distances: Tensor = torch.linalg.vector_norm(deviations @ self.whitening.T, dim=1)
        return distances

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): the distance, or of patches the maximum of `map` (B, H, W), their distances spread out."""
        if not self.patch:
            return Scores(self.distances(images))
        h, w = ((side - self.patch) // self.patch_step + 1 for side in images.shape[2:])
        blocks = windows_in_blocks(images, self.patch, self.patch_step, TOGETHER)
        anomaly = self.spread(torch.cat([self.distances(block) for block in blocks]).view(-1, h, w))
        return Scores(anomaly.amax((1, 2)), anomaly)

    def spread(self, distances: Tensor) -> Tensor:
        """For each pixel (B, H, W) the mean of the `distances` (B, h, w) of the patches over it, by how near it is to
        their middles: the weights are a Gaussian's.
        """
        from_middle = torch.arange(self.patch, device=distances.device) - (self.patch - 1) / 2
        line = torch.exp(-0.5 * (from_middle / (self.patch / 4)).square())
        weights = (line[:, None] * line)[None, None].to(distances)  # (1, 1, patch, patch)
        covering = F.conv_transpose2d(torch.ones_like(distances)[:, None], weights, stride=self.patch_step)
        return (F.conv_transpose2d(distances[:, None], weights, stride=self.patch_step) / covering)[:, 0]


def cut_paste(image: Tensor, generator: torch.Generator) -> Tensor:
    """`image` (C, H, W) with a rectangle of it, its colours jittered, pasted at another place."""
    _, height, width = image.shape
    area, aspect = between(*AREA, generator), math.exp(between(math.log(ASPECT[0]), math.log(ASPECT[1]), generator))
    h, w = round(height * math.sqrt(area * aspect)), round(width * math.sqrt(area / aspect))
    return pasted(image, jittered(cut(image, max(1, h), max(1, w), generator), generator), generator)


def scar(image: Tensor, generator: torch.Generator) -> Tensor:
    """`image` (C, H, W) with a small upright rectangle of it, its colours jittered, turned, pasted at another place.

    Its size belongs to a shorter side of 256 px, that of `image`, which may be a patch.
    """
    scale = min(image.shape[1:]) / 256
    h, w = (max(1, round(scale * between(*sides, generator))) for sides in (SCAR_HEIGHT, SCAR_WIDTH))
    piece = jittered(cut(image, h, w, generator), generator)
    marked = torch.cat([piece, torch.ones(1, h, w)])  # (C + 1, h, w): what is not of the piece becomes 0
    turned = TF.rotate(marked, between(-SCAR_TURN, SCAR_TURN, generator), expand=True)  # its bounding box
    return pasted(image, turned[:-1], generator, turned[-1] > 0)


def cut(image: Tensor, h: int, w: int, generator: torch.Generator | None) -> Tensor:
    """A piece (C, h, w) of `image` (C, H, W) from anywhere in it."""
    top, left = place(image, h, w, generator)
    return image[:, top : top + h, left : left + w]


def pasted(image: Tensor, piece: Tensor, generator: torch.Generator, where: Tensor | None = None) -> Tensor:
    """`image` (C, H, W) with `piece` (C, h, w) anywhere in it; of the piece only the part `where`, bool (h, w)."""
    h, w = piece.shape[1:]
    top, left = place(image, h, w, generator)
    made = image.clone()
    spot = made[:, top : top + h, left : left + w]
    spot.copy_(piece if where is None else torch.where(where, piece, spot))
    return made


def place(image: Tensor, h: int, w: int, generator: torch.Generator | None) -> tuple[int, int]:
    """Row and column where a piece (h, w) begins that lies within `image` (C, H, W)."""
    top, left = (
        int(torch.randint(whole - part + 1, (), generator=generator))
        for whole, part in zip(image.shape[1:], (h, w), strict=True)
    )
    return top, left


def jittered(image: Tensor, generator: torch.Generator) -> Tensor:
    """`image` (C, H, W) in [0, 1] with its brightness, contrast, saturation and hue changed by up to a tenth."""
    light, contrast, saturation, hue = (between(-JITTER, JITTER, generator) for _ in range(4))
    image = TF.adjust_contrast(TF.adjust_brightness(image, 1 + light), 1 + contrast)
    changed: Tensor = TF.adjust_hue(TF.adjust_saturation(image, 1 + saturation), hue)
    return changed


def between(low: float, high: float, generator: torch.Generator) -> float:
    """A draw from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))
