"""AVID."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.nn.adversarial import bounded, frozen
from okng.nn.dcgan import LIMIT
from okng.nn.unet import UNet

SLOPE = 0.2  # of the leaky rectifier below zero
CELL = 4  # pixels from one cell of the detector's map to the next
BEFORE, AFTER = 8, 11  # padding, with which the first cell's middle is pixel 2 and the last one's at the border
MIDDLE = 2


class AVID(Detector):
    """One network removes what is irregular, another judges every patch; odd is what both find so.

    Sabokrou, Pourreza, Fayyaz, Entezari, Fathy, Gall, Adeli, "AVID: Adversarial Visual Irregularity Detection", ACCV
    2018.

    The inpainter, a U-Net, learns to make of a noisy OK image one that the detector takes for an OK one; the detector,
    a fully convolutional network, learns for every patch whether it is of an OK image or of the inpainter. They learn
    together. The inpainter alone also changes some of what is OK, the detector alone is unsure; a place is odd where
    the inpainter changes the image and the detector doubts it.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `width`: channels of the inpainter's first layer; they
    double as the sides halve, up to eight times. `levels`: how often they halve. `detector_width`: channels of the
    detector's first layers, 96 in a public implementation; the later ones have 8/3, 16/3 and 32/3 times as many.
    `noise`: standard deviation of what is added to the inpainter's input in training, in images that range over
    [-1, 1]. `reconstruction_weight`: of the squared error of what the inpainter makes, which is 0 in a public
    implementation: there the copies become like the images through the detector alone. `epochs`, `batch_size`: of the
    training. `learning_rate`, `detector_rate`: of Adam for the inpainter and for the detector. For thousands of
    28 × 28 images `width=16, levels=3, detector_width=12, noise=0.2, reconstruction_weight=1.0, epochs=3,
    learning_rate=1e-3, detector_rate=2e-3` take a few minutes.

    The map is the inpainter's absolute change, the mean over channels, times the probability that the detector gives
    against the place; `image` is its highest mean over a patch of 4 × 4 pixels.

    Deliberately otherwise: the paper could not be checked; layers, rates and noise are those of a public implementation
    for 64 px. The authors' code, for grey images of 224 px, has the same detector with a first stride of 4, without
    normalisation and with rectifiers that don't leak; an inpainter that pools and resizes, without an activation at the
    end; squared losses, both rates 2e-4, and far more noise, `noise=0.8` here. The paper cuts both maps at thresholds
    and takes what lies above both; their product needs none. Images are padded by repeating the border, so that the
    detector judges that too; each of its cells is put where the middle of its patch lies. The U-Net is that of strided
    convolutions, `nn.unet`. The losses are the usual ones of a GAN that do not saturate, the public implementation
    squares its probabilities.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        channels: int = 3,
        width: int = 64,
        levels: int = 4,
        detector_width: int = 96,
        noise: float = 0.003,
        reconstruction_weight: float = 0.0,
        epochs: int = 20,
        batch_size: int = 16,
        learning_rate: float = 2e-4,
        detector_rate: float = 1e-5,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, width=width, levels=levels, detector_width=detector_width, epochs=epochs, batch_size=batch_size)
        at_least(0, noise=noise, reconstruction_weight=reconstruction_weight)
        positive(learning_rate=learning_rate, detector_rate=detector_rate)
        self.noise, self.reconstruction_weight = noise, reconstruction_weight
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.detector_rate = learning_rate, detector_rate
        self.inpainter = nn.Sequential(UNet(channels, channels, width, levels), nn.Tanh())
        self.detector = nn.Sequential(*judging(channels, detector_width))

    def phases(self) -> Iterator[Phase]:
        """On every batch the detector takes a step, then the inpainter."""
        updates = [
            Update(self.detector_loss, torch.optim.Adam(self.detector.parameters(), self.detector_rate)),
            Update(self.inpainter_loss, torch.optim.Adam(self.inpainter.parameters(), self.learning_rate)),
        ]
        yield Train("avid", updates, self.epochs, trains=[self], batch_size=self.batch_size)

    def judge(self, images: Tensor) -> Tensor:
        """Logits (B, h, w) of being OK, for each cell of `images` (B, C, H, W) in [-1, 1]; h is H / 4, rounded."""
        logits: Tensor = self.detector(F.pad(images, (BEFORE, AFTER, BEFORE, AFTER), mode="replicate"))  # (B, 1, h, w)
        return logits[:, 0]

    def inpaint(self, images: Tensor) -> Tensor:
        """What becomes of `images` (B, C, H, W) in [-1, 1] after noise is added to them."""
        made: Tensor = self.inpainter(images + self.noise * torch.randn_like(images))
        return made

    def detector_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropies of all cells: of OK images, and of what the inpainter made of them."""
        images = batch.images * 2 - 1
        with torch.no_grad():
            made = self.inpaint(images)
        ok, inpainted = F.softplus(-self.judge(images)).mean(), F.softplus(self.judge(made)).mean()
        return bounded({"ok": ok, "inpainted": inpainted}, LIMIT)

    def inpainter_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What it makes should look OK to the detector, and where it is so weighted be like the image."""
        images = batch.images * 2 - 1
        made = self.inpaint(images)
        with frozen(self.detector):
            losses = bounded({"deceived": F.softplus(-self.judge(made)).mean()}, LIMIT)
        return {**losses, "copies": self.reconstruction_weight * (made - images).square().mean()}

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of `images` in [0, 1], for each pixel: what the inpainter changes, and how far the detector doubts it.

        Both (B, H, W): the first from 0 to 2, the second in [0, 1].
        """
        images = images * 2 - 1
        changes = (images - self.inpainter(images)).abs().mean(1)  # (B, H, W)
        return changes, in_place(self.judge(images).neg().sigmoid(), images.shape[2], images.shape[3])

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W), the product of both; `image` (B,) its highest mean over 4 × 4 pixels."""
        changes, doubts = self.maps(images)
        odd = changes * doubts  # (B, H, W)
        return Scores(F.avg_pool2d(odd[:, None], CELL, stride=1).amax((1, 2, 3)), odd)


def in_place(cells: Tensor, height: int, width: int) -> Tensor:
    """`cells` (B, h, w), each at the pixel in the middle of what it saw, and what lies between: (B, height, width)."""
    spread = [CELL * (count - 1) + 1 for count in cells.shape[1:]]  # from the first middle to the last
    between = F.interpolate(cells[:, None], spread, mode="bilinear", align_corners=True)
    around = F.pad(between, (MIDDLE, CELL - MIDDLE, MIDDLE, CELL - MIDDLE), mode="replicate")
    return around[:, 0, :height, :width]


def judging(channels: int, width: int) -> list[nn.Module]:
    """The detector's layers: no padding, two of stride 2, patches of 21 × 21 pixels: 64 px give a map of 11 × 11."""
    widths = [channels, width, width, width, width, width, width]
    widths += [width * 8 // 3, width * 16 // 3, width * 32 // 3, width * 32 // 3]
    sides = [(11, 1), (1, 1), (1, 1), (3, 2), (1, 1), (1, 1), (5, 2), (1, 1), (1, 1), (1, 1)]  # of kernels, and strides
    layers: list[nn.Module] = []
    for inner, outer, (side, stride) in zip(widths, widths[1:], sides, strict=False):
        layers += [nn.Conv2d(inner, outer, side, stride, bias=not layers)]
        layers += [nn.BatchNorm2d(outer)] if len(layers) > 1 else []
        layers += [nn.LeakyReLU(SLOPE)]
    return [*layers, nn.Conv2d(widths[-1], 1, 1)]
