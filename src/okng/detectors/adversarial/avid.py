"""AVID."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.learning.adversarial import bounded, frozen
from okng.nn.networks.pooled_unet import PooledUNet
from okng.nn.networks.sizes import pad_to_grid

HALVINGS = 4  # of the inpainter
SIDE = 4  # of the square over whose mean an image is judged, in pixels
LIMIT = 1e4  # of a squared error of judgements, which should be 0 or 1


class AVID(Detector):
    """One network removes what is irregular, another judges every patch; odd is what both find so.

    Sabokrou, Pourreza, Fayyaz, Entezari, Fathy, Gall, Adeli, "AVID: Adversarial Visual Irregularity Detection", ACCV
    2018.

    The inpainter, a U-Net, learns to make of a noisy OK image one that the detector takes for an OK one; the detector,
    a fully convolutional network, learns for every patch whether it is of an OK image or of the inpainter. They learn
    together. The inpainter alone also changes some of what is OK, the detector alone is unsure; a place is odd where
    the inpainter changes the image and the detector doubts it.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `width`: channels of the inpainter's first level, 64
    in the authors' code. `detector_width`: channels of the detector's first layers, 96 there; the later ones have
    8/3, 16/3 and 32/3 times as many. `stride`: how far apart in pixels what the detector's first layer sees is, 4
    for the 224 px of the authors; a patch has 11 + 10 · `stride` pixels a side and the next one is 4 · `stride`
    away. `noise`: standard deviation of what is added to the inpainter's input in training, in images that range
    over [-1, 1] and are cut there. `reconstruction_weight`: of the squared error of what the inpainter makes; at 0
    the copies become like the images through the detector alone. `epochs`, `batch_size`, `learning_rate`: of Adam
    with both betas 0.9, for inpainter and detector. For thousands of 28 × 28 images `width=8, detector_width=12,
    stride=1, noise=0.2, reconstruction_weight=1.0, epochs=3, learning_rate=1e-3` take a few minutes.

    The map is the inpainter's absolute change, the mean over channels, times the detector's doubt; `image` is its
    highest mean over 4 × 4 pixels.

    Deliberately otherwise: the paper could not be checked; layers, losses, rates and noise are those of the authors'
    code, for grey images. Their code judges an image by the lowest cell of what the inpainter made of it, noise
    included, and the paper cuts both maps at thresholds; here the detector judges the image, no noise is added to what
    is scored, and the product of both maps needs no threshold. Noise is drawn anew for either network's step, and lies
    over the images that the step takes for OK, which theirs draws apart. Images are padded by repeating the border, so
    that the detector judges that too; each of its cells is put where the middle of its patch lies. The detector's
    weights begin by He's rule but for the last layer's: by PyTorch's it says the same of everything, which takes more
    steps to unlearn than a small training set has.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        channels: int = 3,
        width: int = 64,
        detector_width: int = 96,
        stride: int = 4,
        noise: float = 0.8,
        reconstruction_weight: float = 0.0,
        epochs: int = 40,
        batch_size: int = 16,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        check_input(image_size, channels, smallest=max(16, 2 * stride))  # or there is no cell
        at_least(1, width=width, detector_width=detector_width, stride=stride, epochs=epochs, batch_size=batch_size)
        at_least(0, noise=noise, reconstruction_weight=reconstruction_weight)
        positive(learning_rate=learning_rate)
        self.stride, self.noise, self.reconstruction_weight = stride, noise, reconstruction_weight
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        w = width
        self.inpainter = PooledUNet(
            channels, [w, 2 * w, 4 * w, 4 * w, w], [4 * w, w, w, w], channels, nn.BatchNorm2d, refining=False
        )
        self.detector = nn.Sequential(*judging(channels, detector_width, stride))
        for layer in self.detector[:-1]:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def phases(self) -> Iterator[Phase]:
        """On every batch the detector takes a step, then the inpainter."""
        judge, make = (
            torch.optim.Adam(net.parameters(), self.learning_rate, betas=(0.9, 0.9))
            for net in (self.detector, self.inpainter)
        )
        updates = [Update(self.detector_loss, judge), Update(self.inpainter_loss, make)]
        yield Train("avid", updates, self.epochs, trains=[self], batch_size=self.batch_size)

    def judge(self, images: Tensor) -> Tensor:
        """Judgements (B, h, w) of the cells of `images` (B, C, H, W) in [-1, 1]; h is H / (4 · stride), rounded.

        They learn to be 1 where the image is OK and 0 where the inpainter made it.
        """
        before, after = 5 + 3 * self.stride, 6 + 5 * self.stride  # a patch's half less half a cell, and its half
        padded = F.pad(images, (before, after, before, after), mode="replicate")
        judgements: Tensor = self.detector(padded)  # (B, 1, h, w)
        return judgements[:, 0]

    def copies(self, images: Tensor) -> Tensor:
        """What the inpainter makes of `images` (B, C, H, W) in [-1, 1]."""
        height, width = images.shape[2:]
        made: Tensor = self.inpainter(pad_to_grid(images, HALVINGS))  # (B, C, padded H, padded W)
        return made[:, :, :height, :width]

    def inpaint(self, images: Tensor) -> Tensor:
        """What it makes of them after noise is added."""
        return self.copies((images + self.noise * torch.randn_like(images)).clamp(-1, 1))

    def detector_loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far the cells are from 1 on OK images, and from 0 on what the inpainter made of them; squared."""
        images = batch.images * 2 - 1
        with torch.no_grad():
            made = self.inpaint(images)
        ok, inpainted = (self.judge(images) - 1).square().mean(), self.judge(made).square().mean()
        return bounded({"ok": ok, "inpainted": inpainted}, LIMIT)

    def inpainter_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What it makes should look OK to the detector, and where it is so weighted be like the image."""
        images = batch.images * 2 - 1
        made = self.inpaint(images)
        with frozen(self.detector):
            losses = bounded({"deceived": (self.judge(made) - 1).square().mean()}, LIMIT)
        return {**losses, "copies": self.reconstruction_weight * (made - images).square().mean()}

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of `images` in [0, 1], for each pixel: what the inpainter changes, and how far the detector doubts it.

        Both (B, H, W): the first in [-1, 1]'s unit, the second in [0, 1], where judgements of 1 and -1 are its ends.
        """
        images = images * 2 - 1
        changes = (images - self.copies(images)).abs().mean(1)  # (B, H, W)
        doubts = (1 - self.judge(images)).div(2).clamp(0, 1)  # (B, h, w)
        return changes, in_place(doubts, 4 * self.stride, images.shape[2], images.shape[3])

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W), the product of both; `image` (B,) its highest mean over 4 × 4 pixels."""
        changes, doubts = self.maps(images)
        odd = changes * doubts  # (B, H, W)
        return Scores(F.avg_pool2d(odd[:, None], SIDE, stride=1).amax((1, 2, 3)), odd)


def in_place(cells: Tensor, apart: int, height: int, width: int) -> Tensor:
    """`cells` (B, h, w), each at the pixel in the middle of what it saw, and what lies between: (B, height, width).

    `apart`: pixels from one middle to the next; the first is half of that from the border.
    """
    spread = [apart * (count - 1) + 1 for count in cells.shape[1:]]  # from the first middle to the last
    between = F.interpolate(cells[:, None], spread, mode="bilinear", align_corners=True)
    around = F.pad(between, (apart // 2, apart) * 2, mode="replicate")
    return around[:, 0, :height, :width]


def judging(channels: int, width: int, stride: int) -> list[nn.Module]:
    """The detector's layers, without padding: with a stride of 4 an image of 224 px gives a map of 11 × 11."""
    widths = [channels, width, width, width, width, width, width]
    widths += [width * 8 // 3, width * 16 // 3, width * 32 // 3, width * 32 // 3]
    sides = [(11, stride), (1, 1), (1, 1), (3, 2), (1, 1), (1, 1), (5, 2), (1, 1), (1, 1), (1, 1)]  # kernels, strides
    layers: list[nn.Module] = []
    for inner, outer, (side, step) in zip(widths, widths[1:], sides, strict=False):
        layers += [nn.Conv2d(inner, outer, side, step), nn.ReLU()]
    return [*layers, nn.Conv2d(widths[-1], 1, 1, bias=False)]
