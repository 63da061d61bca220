"""DRAEM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.images.perlin import perlin_mask
from okng.nn.images.ssim import dssim_map
from okng.nn.images.textures import altered, procedural_texture
from okng.nn.networks import pooled_unet
from okng.nn.networks.pooled_unet import PooledUNet
from okng.nn.networks.sizes import pad_to_grid
from okng.nn.networks.sspcab import PREDICTION, SSPCAB

HALVINGS = 5  # down to the discriminative network's coarsest level
SPOILT = 0.5  # the share of images that get an anomaly
FAINTEST = 0.8  # up to which an anomaly's texture is transparent
TURN = 90  # degrees

double = partial(pooled_unet.double, normalisation=nn.BatchNorm2d)
enlarging = partial(pooled_unet.enlarging, normalisation=nn.BatchNorm2d)


class DRAEM(Detector):
    """A network wipes foreign textures off images; another says where, by the image before and after.

    Zavrtanik, Kristan, Skočaj, "DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface Anomaly
    Detection", ICCV 2021. Anomalies are blots of Perlin noise in which another texture lies over the OK image; half of
    the images stay as they are. The reconstructive network learns the clean image, by its squared error and SSIM, and
    the discriminative one the blots, by the focal loss.

    `image_size` (h, w) and `channels` (1 or 3) of the input; its sides are padded to multiples of 32. `width`,
    `discriminator_width`: channels of the two networks' first levels. `window`: the side of the square over which the
    map is averaged before the image's score is its maximum, in px, odd; the paper's belongs to 256 px. `turned`: the
    share of OK images that are turned by up to 90° before they are learnt, in [0, 1]; where parts always lie alike, 0
    leaves a turned one odd. `sspcab`: whether the reconstructive network's innermost level is a block that predicts
    features from those around them, with a loss of its own (SSPCAB; Ristea et al., CVPR 2022). `epochs`, `batch_size`,
    `learning_rate`: of Adam; the rate falls to a fifth after 80 % and again after 90 % of the steps.

    Textures are auxiliary images (`okng.fit(..., auxiliary=FOLDER)`, such as DTD, as in the paper). Without any they
    are drawn by `nn/images/textures.py`, which is this library's makeshift. Either way three of ten changes alter them.

    Deliberately otherwise: blots' cells are 8 px or more, as they are at 256 px. The last batch of an epoch is left out
    where it is not full. SSIM mirrors the image at its border, where the authors' code pads zeros, and takes values to
    lie in [0, 1], where theirs doubles the range while the restored image falls below -0.5.
    """

    fixed_size = True
    takes_auxiliary = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        width: int = 128,
        discriminator_width: int = 64,
        window: int = 21,
        turned: float = 0.3,
        sspcab: bool = False,
        epochs: int = 700,
        batch_size: int = 8,
        learning_rate: float = 1e-4,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, width=width, discriminator_width=discriminator_width, epochs=epochs)
        at_least(2, batch_size=batch_size)  # one small image alone has no variance to normalise by
        positive(learning_rate=learning_rate)
        if window < 1 or window % 2 == 0:
            raise OkngError(f"window is an odd number such as 21, not {window}")
        if not 0 <= turned <= 1:
            raise OkngError(f"turned is a share from 0 to 1, not {turned}")
        self.window, self.turned = window, turned
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        w = width
        self.encoder = nn.Sequential(
            double(channels, w, w), nn.MaxPool2d(2),
            double(w, 2 * w, 2 * w), nn.MaxPool2d(2),
            double(2 * w, 4 * w, 4 * w), nn.MaxPool2d(2),
            double(4 * w, 8 * w, 8 * w), nn.MaxPool2d(2),
        )  # fmt: skip
        self.innermost = SSPCAB(8 * w) if sspcab else double(8 * w, 8 * w, 8 * w)
        self.decoder = nn.Sequential(
            enlarging(8 * w, 8 * w), double(8 * w, 8 * w, 4 * w),
            enlarging(4 * w, 4 * w), double(4 * w, 4 * w, 2 * w),
            enlarging(2 * w, 2 * w), double(2 * w, 2 * w, w),
            enlarging(w, w), double(w, w, w), nn.Conv2d(w, channels, 3, padding=1),
        )  # fmt: skip
        v = discriminator_width
        self.discriminator = PooledUNet(
            2 * channels, [v, 2 * v, 4 * v, 8 * v, 8 * v, 8 * v], [8 * v, 4 * v, 2 * v, v, v], 2, nn.BatchNorm2d
        )
        self.apply(start)

    def phases(self) -> Iterator[Phase]:
        """Both networks at once, on anomalies that are made anew each time."""
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        yield Train(
            "restoring and telling",
            [Update(self.loss, optimizer, schedule=lambda share: 0.2 ** ((share >= 0.8) + (share >= 0.9)))],
            self.epochs,
            trains=[self],
            batch_size=self.batch_size,
            augment=self.augment,
            drop_last=True,
        )

    def augment(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What an anomaly of `image` (C, H, W) is made of.

        The image itself (C, H, W), which may be turned; where the anomaly is, bool (1, H, W); a drawn texture
        (C, H, W); and how much of the image shines through it (1, 1, 1), in [0, 0.8).
        """
        turn, angle, spoil, through = torch.rand(4, generator=generator).tolist()
        if turn < self.turned:
            image = TF.rotate(image, TURN * (2 * angle - 1), TF.InterpolationMode.BILINEAR)
        c, h, w = image.shape
        mask = perlin_mask((h, w), generator)[None] if spoil < SPOILT else torch.zeros(1, h, w, dtype=torch.bool)
        texture = altered(procedural_texture(c, (h, w), generator), generator)
        return image, mask, texture, torch.full((1, 1, 1), FAINTEST * through)

    def spoilt(self, batch: Batch) -> Tensor:
        """The clean images with their anomalies, (B, C, H, W)."""
        clean, mask, texture, through = batch.views
        if batch.auxiliary is not None:
            texture = torch.stack([altered(each) for each in batch.auxiliary])
        return torch.where(mask, torch.lerp(texture, clean, through.expand_as(clean)), clean)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Of the restored images, "L2" and "SSIM"; of the map, the "focal" loss (Lin et al., ICCV 2017, gamma 2).

        With SSPCAB also how far its prediction is from what it was given.
        """
        clean, mask, _, _ = batch.views
        spoilt = self.spoilt(batch)
        features = self.encoder(pad_to_grid(spoilt, HALVINGS))  # (B, 8w, H'/16, W'/16)
        inner = self.innermost(features)
        restored = self.cut(self.decoder(inner), clean)  # (B, C, H, W)
        surprise = F.cross_entropy(
            self.told(restored, spoilt), mask[:, 0].long(), reduction="none"
        )  # (B, H, W), -log p
        losses = {
            "L2": F.mse_loss(restored, clean),
            "SSIM": 2 * dssim_map(restored, clean).mean(),
            "focal": ((1 - torch.exp(-surprise)).square() * surprise).mean(),
        }
        if isinstance(self.innermost, SSPCAB):
            losses["prediction"] = PREDICTION * F.mse_loss(inner, features)
        return losses

    def restore(self, images: Tensor) -> Tensor:
        """`images` (B, C, H, W) without what is odd in them; values may leave [0, 1]."""
        return self.cut(self.decoder(self.innermost(self.encoder(pad_to_grid(images, HALVINGS)))), images)

    def told(self, restored: Tensor, images: Tensor) -> Tensor:
        """Logits of OK and of odd, (B, 2, H, W), for each pixel of `images` (B, C, H, W) and what was made of them."""
        return self.cut(self.discriminator(pad_to_grid(torch.cat([restored, images], 1), HALVINGS)), images)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W), how likely each pixel is odd, in [0, 1]; `image` (B,) the highest mean of a window."""
        odd = self.told(self.restore(images), images).softmax(1)[:, 1:]  # (B, 1, H, W)
        averaged = F.avg_pool2d(odd, self.window, stride=1, padding=self.window // 2)  # (B, 1, H, W)
        return Scores(averaged.amax((1, 2, 3)), odd[:, 0])

    @staticmethod
    def cut(maps: Tensor, like: Tensor) -> Tensor:
        """`maps` (B, C, H', W') without the padding that `like` (B, C, H, W) was given."""
        return maps[:, :, : like.shape[2], : like.shape[3]]


def start(layer: nn.Module) -> None:
    """The authors' first weights, N(0, 0.02²) of a convolution and N(1, 0.02²) of a normalisation."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1, 0.02)
