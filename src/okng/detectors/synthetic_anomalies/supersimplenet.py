"""SuperSimpleNet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import local_average
from okng.nn.images.blur import gaussian_blur
from okng.nn.images.perlin import perlin_noise
from okng.nn.learning.focal import focal_loss

MARGIN = 0.5  # beyond which no cell is pushed any further
FOCUS = 4  # gamma of the focal losses
EMPTY = 0.5  # the share of copies that stay clean
FINEST = 5  # the exponent of the most cells of Perlin noise along a side
WINDOW = 5  # of the classification head


class SuperSimpleNet(Detector):
    """Noise in blots of the features of OK images: one head learns to say where it is, another whether there is any.

    Rolih, Fučka, Skočaj, "SuperSimpleNet: Unifying Unsupervised and Supervised Learning for Fast and Reliable Surface
    Defect Detection", ICPR 2024. SimpleNet made steady: its noise lies in blots of Perlin noise, its features on a
    finer grid, and the image's score is learnt by a head that sees the features and the map.

    `backbone`, `strides`, `weights`: the frozen network and where its features are taken (the paper: wide_resnet50_2 at
    8 and 16). `enlarge`: how many times finer than the finest features the grid is. `hidden`: how many features the
    segmentation head has between its layers, `kernels` how many the classification head. `noise`: standard deviation of
    the noise in each adapted feature; 0.015 belongs to the scale of wide_resnet50_2's features. `threshold`: above
    which Perlin noise, of -1 to 1, is a blot; the paper: 0.2 for MVTec AD, 0.6 for blots that are few and small.
    `epochs`, `batch_size`: of the training, in passes over all images and in images, of each of which two copies are
    learnt. `learning_rate`: of the adaptor, `head_rate` of both heads; they fall to 0.4 after 80 % of the steps and to
    0.16 after 90 %. `sigma`: of the Gaussian that smooths the map, in pixels of the input.

    Deliberately otherwise: the image's score is the head's logit, whose order is that of its sigmoid and which does not
    saturate. Perlin noise is drawn on the grid itself, not enlarged from a power of two, and its cells are 2 grid cells
    or more, as they are at the paper's size. The map is smoothed on the grid, before any enlargement.
    """

    pretrained = True
    supervised = False  # whether the classification head may change the map

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        weights: str = "imagenet",
        enlarge: int = 2,
        hidden: int = 1024,
        kernels: int = 128,
        noise: float = 0.015,
        threshold: float = 0.2,
        epochs: int = 300,
        batch_size: int = 32,
        learning_rate: float = 1e-4,
        head_rate: float = 2e-4,
        sigma: float = 4.0,
    ):
        super().__init__()
        at_least(1, enlarge=enlarge, hidden=hidden, kernels=kernels, epochs=epochs, batch_size=batch_size)
        positive(noise=noise, learning_rate=learning_rate, head_rate=head_rate, sigma=sigma)
        if not 0 <= threshold < 1:
            raise OkngError(f"threshold is from 0 to below 1, not {threshold}")
        self.backbone = freeze(Backbone(backbone, strides, weights))
        self.enlarge, self.noise, self.threshold, self.sigma = enlarge, noise, threshold, sigma
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.head_rate = learning_rate, head_rate
        d = sum(self.backbone.channels)
        self.adaptor = nn.Conv2d(d, d, 1)
        self.segmentation = nn.Sequential(
            nn.Conv2d(d, hidden, 1), nn.BatchNorm2d(hidden), nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1, bias=False)
        )
        self.classification = nn.Sequential(
            nn.Conv2d(d + 1, kernels, WINDOW, padding=WINDOW // 2), nn.BatchNorm2d(kernels), nn.ReLU()
        )
        self.verdict = nn.Linear(2 * kernels + 2, 1)
        for layer in [self.adaptor, *self.segmentation, *self.classification, self.verdict]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(layer.weight)

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Train adaptor and heads together; the backbone's features are computed once per image."""
        heads = nn.ModuleList([self.segmentation, self.classification, self.verdict])
        optimizer = torch.optim.AdamW(
            [
                {"params": self.adaptor.parameters(), "lr": self.learning_rate, "weight_decay": 1e-2},
                {"params": heads.parameters(), "lr": self.head_rate, "weight_decay": 1e-5},
            ]
        )
        update = Update(
            self.loss,
            optimizer,
            schedule=lambda share: 0.4 ** ((share >= 0.8) + (share >= 0.9)),
            clip=1.0 if self.supervised else None,
        )
        yield Train(
            "adaptor and heads", [update], self.epochs, [self.adaptor, heads], self.batch_size, prepare=self.backbone
        )

    def adapted(self, features: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        """The backbone's `features` on the finer grid, averaged over 3 × 3 cells and adapted: (B, d, h, w)."""
        h, w = (self.enlarge * side for side in features[0].shape[-2:])
        finer = [F.interpolate(f, (h, w), mode="bilinear", align_corners=True) for f in features]
        adapted: Tensor = self.adaptor(local_average(torch.cat(finer, 1), 3))
        return adapted

    def told(self, adapted: Tensor) -> tuple[Tensor, Tensor]:
        """What the heads say of `adapted` (B, d, h, w): the map (B, 1, h, w), and logits (B,) of being odd."""
        where = self.segmentation(adapted)  # (B, 1, h, w)
        seen = where if self.supervised else where.detach()
        windows = self.classification(torch.cat([adapted, seen], 1))  # (B, kernels, h, w)
        pooled = [each(part) for part in (windows, seen) for each in (highest, mean)]
        return where, self.verdict(torch.cat(pooled, 1))[:, 0]

    def blots(self, grid: tuple[int, int]) -> Tensor:
        """Where one copy has noise, 0 or 1, (1, h, w): where Perlin noise is above the threshold, or nowhere."""
        if float(torch.rand(())) < EMPTY:
            return torch.zeros(1, *grid)
        most = [max(0, min(FINEST, (side // 2).bit_length() - 1)) for side in grid]
        rows, columns = (2 ** int(torch.randint(each + 1, ())) for each in most)
        return (perlin_noise(grid, (rows, columns)) > self.threshold).float()[None]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far cells of either kind are from the margin, each a mean; and the focal losses of both heads.

        NG images get no noise and are odd as images; where they are odd nobody says, so their cells don't count.
        """
        clean = self.adapted(batch.prepared).repeat(2, 1, 1, 1)  # (2B, d, h, w)
        ng = batch.labels.repeat(2).bool()  # (2B,)
        ok = ~ng[:, None, None, None]  # (2B, 1, 1, 1)
        noisy = torch.stack([self.blots((clean.shape[2], clean.shape[3])) for _ in clean]).to(clean) * ok
        where, whether = self.told(clean + self.noise * torch.randn_like(clean) * noisy)
        fine = ok * (1 - noisy)  # (2B, 1, h, w)
        return {
            "OK": over(F.relu(MARGIN + where), fine),
            "noisy": over(F.relu(MARGIN - where), noisy),
            "map": over(focal_loss(where, noisy, FOCUS), ok.expand_as(where)),
            "image": focal_loss(whether, noisy.amax((1, 2, 3)) + ng, FOCUS).mean(),
        }

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the classification head's logit; `map` (B, h, w) of the segmentation head, smoothed."""
        where, whether = self.told(self.adapted(self.backbone(images)))
        return Scores(whether, gaussian_blur(where[:, 0], self.sigma * self.enlarge / min(self.backbone.strides)))


class SuperSimpleNetW(SuperSimpleNet):
    """As `SuperSimpleNet`, told some NG images: the classification head learns them, and moves the map too.

    Rolih, Fučka, Skočaj, as above, and their "No Label Left Behind", 2025, where images are labelled and their defects
    not marked: such an image counts for the classification head alone, whose gradient passes through the map.

    `backbone`, `strides`, `weights`, `enlarge`, `hidden`, `kernels`, `noise`, `threshold`, `epochs`, `batch_size`,
    `learning_rate`, `head_rate`, `sigma`: as in `SuperSimpleNet`. The norm of the gradient is at most 1.

    Deliberately otherwise: as `SuperSimpleNet`; the classification head sees adapted features, the second paper's those
    of the backbone; masks of NG images are not used, images are not mirrored, for a mirrored part can be NG, and NG
    images get no noise.
    """

    needs_ng = True
    supervised = True


def highest(maps: Tensor) -> Tensor:
    """Of `maps` (B, C, h, w): (B, C)."""
    return maps.amax((2, 3))


def mean(maps: Tensor) -> Tensor:
    """Of `maps` (B, C, h, w): (B, C)."""
    return maps.mean((2, 3))


def over(losses: Tensor, counted: Tensor) -> Tensor:
    """The mean of `losses` (B, 1, h, w) where `counted` (B, 1, h, w) is 1; 0 where it never is."""
    return (losses * counted).sum() / counted.sum().clamp_min(1)
