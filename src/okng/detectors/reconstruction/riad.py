"""RIAD: reconstruction by inpainting."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.images.ssim import dssim_map
from okng.nn.networks.unet import UNet

SCALES = 4  # at which gradients are compared
CONSTANT = 0.0026  # of their similarity, where both are flat
FALL = 250 / 300  # the share of the training after which the learning rate is a tenth


class RIAD(Detector):
    """Every part of an image is guessed from the rest of it; where gradients differ from the guess, it is odd.

    Zavrtanik, Kristan, Skočaj, "Reconstruction by Inpainting for Visual Anomaly Detection", Pattern Recognition 112,
    2021 (107706).

    An image is divided into square cells, the cells at random into some disjoint sets. Each set is deleted once, a
    U-Net guesses it from what remains, and the guesses of all sets make an image no pixel of which was seen when it
    was guessed. It learns by the sum of the squared error, the multi-scale gradient magnitude similarity (MSGMS) and
    the structural similarity (SSIM) of such images. The map is the dissimilarity of the gradients, averaged over
    several sides of the cells and smoothed; the score its highest value.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `cells`: sides of the cells in pixels; in training each
    batch draws one, in scoring the map is the mean over all. `sets`: into how many the cells are divided. `width`:
    channels of the U-Net's first level. `levels`: how often it halves the sides. `gradient_weight` and
    `structure_weight`: of MSGMS and SSIM in the loss, beside the squared error. `window`: side of the mean filter over
    the map, an odd number. `epochs`, `batch_size`, `learning_rate`, `weight_decay`: of Adam; the rate falls to a tenth
    after five sixths of the epochs. A fifth of the images is held back and the epoch where their loss was lowest stays.
    For thousands of 28 × 28 images `cells=(2,4,7), width=8, levels=3, window=5, epochs=8, batch_size=32,
    learning_rate=2e-3` take about a minute.

    Deliberately otherwise: the paper stops when twenty epochs brought nothing; here all of them are run. Gradients are
    of the mean of the channels, by Prewitt's kernels, whose border is repeated, and without the median filter that
    others put before them. SSIM meets the image mirrored at its border. In training all sets are one batch, by which
    the normalisation goes. A deleted cell is black; others have images in [-1, 1], and it grey. The divisions that
    score are drawn once and stored, the same for all images. Side and kind of the smoothing, the U-Net's output without
    an activation and its padding could not be checked.
    """

    fixed_size = True
    divisions: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        cells: tuple[int, ...] = (2, 4, 8, 16),
        sets: int = 3,
        width: int = 64,
        levels: int = 5,
        gradient_weight: float = 1.0,
        structure_weight: float = 1.0,
        window: int = 21,
        epochs: int = 300,
        batch_size: int = 4,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-5,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, width=width, levels=levels, epochs=epochs, batch_size=batch_size)
        at_least(2, sets=sets)
        at_least(0, gradient_weight=gradient_weight, structure_weight=structure_weight, weight_decay=weight_decay)
        positive(learning_rate=learning_rate)
        if not cells or min(cells) < 1 or any(-(-image_size[0] // k) * -(-image_size[1] // k) < sets for k in cells):
            raise OkngError(f"cells is sides of which an image has {sets} or more, such as 2,4,8, not {cells}")
        if window < 1 or window % 2 == 0:
            raise OkngError(f"window is an odd number of pixels, such as 21, not {window}")
        self.image_size, self.cells, self.sets, self.window = image_size, cells, sets, window
        self.gradient_weight, self.structure_weight = gradient_weight, structure_weight
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.net = UNet(channels, channels, width, levels, slope=0.0)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("divisions", torch.stack([self.divided(side, generator) for side in cells]))

    def phases(self) -> Iterator[Phase]:
        """Learn to guess deleted parts of OK images."""
        optimizer = torch.optim.Adam(self.net.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        update = Update(self.loss, optimizer, schedule=lambda share: 1.0 if share < FALL else 0.1)
        yield Train("riad", [update], self.epochs, [self.net], self.batch_size, validate=self.total)

    def total(self, batch: Batch) -> Tensor:
        """All of the loss, in one number."""
        return torch.stack([*self.loss(batch).values()]).sum()

    def divided(self, side: int, generator: torch.Generator | None = None) -> Tensor:
        """A random division of the cells of this `side`: which pixels are in each set, (sets, 1, H, W) bool.

        Every pixel is in one set, and sets differ by one cell at most.
        """
        height, width = self.image_size
        h, w = -(-height // side), -(-width // side)
        numbers = (torch.randperm(h * w, generator=generator) % self.sets).view(h, w)
        pixels = numbers.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]  # (H, W)
        return (pixels == torch.arange(self.sets)[:, None, None])[:, None]

    def guessed(self, images: Tensor, division: Tensor) -> Tensor:
        """Images (B, C, H, W) put together of what is guessed of each set of a `division` (sets, 1, H, W)."""
        deleted = division[:, None].to(images)  # (sets, 1, 1, H, W)
        seen = images * (1 - deleted)  # (sets, B, C, H, W)
        guesses = self.net(seen.flatten(0, 1)).reshape(self.sets, -1, *images.shape[1:])  # (sets, B, C, H, W)
        together: Tensor = (guesses * deleted).sum(0)
        return together

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far guesses by a new division are from OK images."""
        images = batch.images
        side = self.cells[int(torch.randint(len(self.cells), ()))]
        guesses = self.guessed(images, self.divided(side).to(images.device))
        differing = torch.stack([1 - scale.mean() for scale in similarities(images, guesses)]).mean()
        return {
            "error": F.mse_loss(guesses, images),
            "gradients": self.gradient_weight * differing,
            "structure": self.structure_weight * 2 * dssim_map(images, guesses).mean(),
        }

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W) one minus MSGMS, the mean over the cells' sides, smoothed; `image` (B,) its highest value."""
        maps = []
        for division in self.divisions:
            scales = similarities(images, self.guessed(images, division))  # (B, 1, h_s, w_s) each
            full = [F.interpolate(s, self.image_size, mode="bilinear", align_corners=False) for s in scales]
            maps.append(1 - torch.stack(full).mean(0))  # (B, 1, H, W)
        odd = torch.stack(maps).mean(0)  # (B, 1, H, W)
        smooth = F.avg_pool2d(odd, self.window, 1, self.window // 2, count_include_pad=False)[:, 0]  # (B, H, W)
        return Scores(smooth.amax((1, 2)), smooth)


def similarities(a: Tensor, b: Tensor) -> list[Tensor]:
    """Gradient magnitude similarity of `a` and `b` (B, C, H, W) at each scale, (B, 1, h, w) in (0, 1], 1 where equal.

    Xue, Zhang, Mou, Bovik, "Gradient Magnitude Similarity Deviation", IEEE TIP 2014:
    (2 g_a g_b + c) / (g_a² + g_b² + c).
    """
    scales = []
    a, b = a.mean(1, keepdim=True), b.mean(1, keepdim=True)  # (B, 1, H, W)
    for scale in range(SCALES):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        one, other = magnitudes(a), magnitudes(b)
        # Written by what is missing to 1, so that small differences keep their digits.
        scales.append(1 - (one - other).square() / (one.square() + other.square() + CONSTANT))
    return scales


def magnitudes(images: Tensor) -> Tensor:
    """Of the gradients by Prewitt's kernels, (B, 1, h, w) of (B, 1, h, w)."""
    across = torch.tensor([[1.0, 0.0, -1.0]] * 3).to(images) / 3
    kernels = torch.stack([across, across.T])[:, None]  # (2, 1, 3, 3)
    slopes = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernels)  # (B, 2, h, w)
    return (slopes.square().sum(1, keepdim=True) + 1e-12).sqrt()  # where it is flat the root has a gradient, too
