"""GLASS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import local_average, on_finest_grid
from okng.nn.images.blur import gaussian_blur
from okng.nn.images.perlin import perlin_mask
from okng.nn.images.textures import altered, procedural_texture
from okng.nn.learning.focal import focal_loss
from okng.nn.networks.discriminator import projection_and_discriminator

EVERY = 5  # steps of ascent, after which features are brought back into the shell
WITHIN = 0.75  # the share of OK features that lie closer to their centre than the shell
HARD = 0.5  # the share of cells of spoilt images that is left out as told already
FOCUS = 2  # gamma of the focal loss
THROUGH = (0.5, 0.1, 0.2, 0.8)  # how much of an image shines through: mean, deviation, least, most
SIDE, BLUR, LOUD, DENSE, WIDE, MANY = 289, 39, 8.5, 0.21, 12, 60  # of the spectrum: px, px, log, share, px, points


class GLASS(Detector):
    """A discriminator between OK patches and two kinds of made-up ones: near ones in feature space, far ones in images.

    Chen, Luo, Lv, Zhang, "A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial Anomaly Detection
    and Localization", ECCV 2024. Near anomalies are OK features with noise that climb the discriminator's loss, so that
    it finds them ever harder, and are kept in a shell around where OK features are. Far ones are patches of images with
    a foreign texture in blots. Features are PatchCore's, projected by one linear layer.

    `image_size` (h, w) of the input. `backbone`, `strides`, `weights`: the frozen network and where its features are
    taken (the paper: wide_resnet50_2 at 8 and 16). `neighbourhood`: side of the square over which features are averaged
    around each position, odd. `hidden`: how many features the discriminator has between its layers. `hypothesis`: what
    the shell lies around: "manifold", each OK feature; "hypersphere", the mean OK feature of each position; "auto"
    judges by the spectrum of the mean OK image. `noise`: standard deviation of the noise in each projected feature;
    `steps` of ascent, each `ascent` long; `shell`: the shell's least and greatest distance to an OK feature, where that
    is its hypothesis; these lengths belong to the scale of wide_resnet50_2's features. `epochs`, `batch_size`: of the
    training, in passes over all images and in images. `learning_rate`: of the projection, `discriminator_rate` of the
    discriminator. `sigma`: of the Gaussian that smooths the map, in pixels of the input.

    Textures are auxiliary images (`okng.fit(..., auxiliary=FOLDER)`, such as DTD, as in the paper). Without any they
    are drawn by `nn/images/textures.py`, which is this library's makeshift. Either way three changes of ten alter them,
    DRAEM's.

    Deliberately otherwise: the changes of textures are DRAEM's, the authors' nine are others. The last epoch counts,
    where the authors' code keeps the one that is best on the test set. Blots are not confined to a foreground. The mean
    of projected features is the projection of the mean, for the layer is linear, so it is taken at every step instead
    of every epoch. Features are averaged per channel rather than pooled to a fixed width. Both networks go by AdamW,
    where the projection's weights decayed within Adam. The image's score is a logit, whose order is that of the
    authors' likelihood and which does not saturate.
    """

    fixed_size = True
    pretrained = True
    takes_auxiliary = True
    centre: Tensor
    sphere: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (288, 288),
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        weights: str = "imagenet",
        neighbourhood: int = 3,
        hidden: int = 1024,
        hypothesis: Literal["auto", "manifold", "hypersphere"] = "auto",
        noise: float = 0.015,
        steps: int = 20,
        ascent: float = 0.001,
        shell: tuple[float, float] = (0.5, 1.0),
        epochs: int = 640,
        batch_size: int = 8,
        learning_rate: float = 1e-4,
        discriminator_rate: float = 2e-4,
        sigma: float = 4.0,
    ):
        super().__init__()
        check_input(image_size, 3)
        at_least(1, hidden=hidden, epochs=epochs, batch_size=batch_size)
        at_least(0, steps=steps)
        positive(noise=noise, ascent=ascent, sigma=sigma)
        positive(learning_rate=learning_rate, discriminator_rate=discriminator_rate)
        if neighbourhood < 1 or neighbourhood % 2 == 0:
            raise OkngError(f"neighbourhood is an odd number such as 3, not {neighbourhood}")
        if not 0 < shell[0] <= shell[1]:
            raise OkngError(f"shell is the least and the greatest distance, above 0 and in order, not {shell}")
        self.backbone = freeze(Backbone(backbone, strides, weights))
        self.neighbourhood, self.noise, self.steps, self.ascent = neighbourhood, noise, steps, ascent
        self.hypothesis, self.shell, self.sigma = hypothesis, shell, sigma
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.discriminator_rate = learning_rate, discriminator_rate
        d = sum(self.backbone.channels)
        self.projection, self.discriminator = projection_and_discriminator(d, hidden)
        h, w = (side // min(self.backbone.strides) for side in image_size)
        self.register_buffer("centre", torch.zeros(h, w, d))  # the mean patch of each position
        self.register_buffer("sphere", torch.tensor(hypothesis == "hypersphere"))

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """The mean patch of each position and the mean image, which chooses the hypothesis; then both networks."""
        patches, images, count = torch.zeros(()), torch.zeros(()), 0

        def visit(batch: Batch) -> None:
            nonlocal patches, images, count
            patches = patches + self.patches(batch.images).sum(0).cpu().double()  # (h, w, d)
            images = images + batch.images.sum(0).cpu().double()  # (3, H, W)
            count += len(batch.images)

        def finish() -> None:
            self.centre = (patches / count).to(self.centre)
            if self.hypothesis == "auto":
                self.sphere = torch.tensor(is_sphere((images / count).float())).to(self.sphere)

        yield Collect("centre", visit, finish)
        optimizer = torch.optim.AdamW(
            [
                {"params": self.projection.parameters(), "lr": self.learning_rate, "weight_decay": 1e-5},
                {"params": self.discriminator.parameters(), "lr": self.discriminator_rate, "weight_decay": 1e-2},
            ]
        )
        yield Train(
            "discriminator",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=[self.projection, self.discriminator],
            batch_size=self.batch_size,
            prepare=self.patches,
            augment=self.augment,
        )

    def augment(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What spoils `image` (3, H, W): where, bool (1, H, W), never nowhere; a texture (3, H, W).

        And the share of the image that shines through, (1, 1, 1).
        """
        c, h, w = image.shape
        mask = torch.zeros(1, h, w, dtype=torch.bool)
        while not mask.any():
            first, second = (perlin_mask((h, w), generator)[None] for _ in range(2))
            mask = (first, first | second, first & second)[int(torch.randint(3, (), generator=generator))]
        mean, deviation, least, most = THROUGH
        through = (mean + deviation * torch.randn(1, 1, 1, generator=generator)).clamp(least, most)
        return mask, altered(procedural_texture(c, (h, w), generator), generator), through

    def spoilt(self, batch: Batch) -> Tensor:
        """The images with a texture in their blots, (B, 3, H, W)."""
        mask, texture, through = batch.views
        if batch.auxiliary is not None:
            texture = torch.stack([altered(each) for each in batch.auxiliary])
        return torch.where(mask, torch.lerp(texture, batch.images, through.expand_as(texture)), batch.images)

    def patches(self, images: Tensor) -> Tensor:
        """Patch descriptors (B, h, w, d) of `images` (B, 3, H, W)."""
        features = [local_average(f, self.neighbourhood) for f in self.backbone(images)]
        return on_finest_grid(features).permute(0, 2, 3, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of OK patches and near anomalies; the focal loss of the harder half of spoilt cells."""
        with torch.no_grad():
            spoilt = self.patches(self.spoilt(batch))  # (B, h, w, d)
        odd = F.max_pool2d(batch.views[0].float(), min(self.backbone.strides))[:, 0].bool().flatten()  # (B*h*w,)
        ok, far = (self.projection(patches.flatten(0, 2)) for patches in (batch.prepared[0], spoilt))  # (B*h*w, d)
        around, (least, most) = ok, self.shell
        if self.sphere:
            around = self.projection(self.centre.flatten(0, 1)).detach().repeat(len(spoilt), 1)  # (B*h*w, d)
            usual = torch.cat([(far - around)[~odd], ok - around]).detach().norm(dim=1)
            least = float(usual.quantile(WITHIN))
            most = 2 * least
            far = torch.where(odd[:, None], around + within(far - around, 2 * least, 4 * least), far)
        near = self.climbed(ok, around, least, most)
        told_ok, told_near = self.discriminator(torch.cat([ok, near])).squeeze(1).chunk(2)  # (B*h*w,) each
        return {
            "OK": F.softplus(told_ok).mean(),
            "near": F.softplus(-told_near).mean(),
            "far": hardest(self.discriminator(far).squeeze(1), odd),
        }

    def climbed(self, ok: Tensor, around: Tensor, least: float, most: float) -> Tensor:
        """`ok` (N, d) with noise, after steps up the loss of what the discriminator has to find odd: (N, d).

        After every fifth step their distances to `around` (N, d) are made from `least` to `most`.
        """
        near = ok + self.noise * torch.randn_like(ok)
        for step in range(1, self.steps + 1):
            here = near.detach().requires_grad_()
            told = self.discriminator(torch.cat([ok.detach(), here]))[len(ok) :]  # normalised with the OK ones
            (up,) = torch.autograd.grad(F.softplus(-told).sum(), here)
            near = near + self.ascent * F.normalize(up, dim=1)
            if step % EVERY == 0:
                near = around + within(near - around, least, most)
        return near

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the highest logit of a patch; `map` (B, h, w) how likely each is odd, in [0, 1], smoothed."""
        patches = self.patches(images)  # (B, h, w, d)
        told = self.discriminator(self.projection(patches.flatten(0, 2))).view(patches.shape[:3])  # (B, h, w)
        return Scores(told.amax((1, 2)), gaussian_blur(told.sigmoid(), self.sigma / min(self.backbone.strides)))


def within(offsets: Tensor, least: float, most: float) -> Tensor:
    """`offsets` (N, d) in their directions, with lengths from `least` to `most`."""
    lengths = offsets.norm(dim=1, keepdim=True)
    brought: Tensor = offsets * (lengths.clamp(least, most) / lengths.clamp_min(1e-10))
    return brought


def hardest(told: Tensor, odd: Tensor) -> Tensor:
    """The focal loss of the logits `told` (N,) whose squared error against `odd` (N,) is the median or more."""
    error = (told.detach().sigmoid() - odd.float()).square()
    hard = error >= error.quantile(HARD)
    return focal_loss(told[hard], odd[hard], FOCUS).mean()


def is_sphere(image: Tensor) -> bool:
    """Whether the mean OK image (3, H, W) in [0, 1] speaks for the hypersphere: an object, whose spectrum is dense.

    As the authors' code judges: of the blurred grey image at 289 px the frequencies whose magnitude is above exp(8.5)
    fill more than 0.21 of the rectangle or the circle that they reach, reach beyond 12 and are more than 60.
    """
    grey = 255 * TF.rgb_to_grayscale(image)[None]  # (1, 1, H, W)
    grey = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", align_corners=False)
    blurred = F.avg_pool2d(F.pad(grey, [BLUR // 2] * 4, mode="reflect"), BLUR, stride=1)[0, 0]  # (SIDE, SIDE)
    spectrum = torch.fft.fftshift(torch.fft.fft2(blurred)).abs().log()
    y, x = (axis - SIDE // 2 for axis in torch.nonzero(spectrum > LOUD, as_tuple=True))
    if len(y) <= MANY:
        return False
    radius = float(torch.hypot(y.float(), x.float()).max())
    places = torch.arange(-SIDE, SIDE + 1).float()
    circle = int((torch.hypot(places[:, None], places[None]) <= radius).sum())
    rectangle = 4 * max(1, int(y.abs().max())) * max(1, int(x.abs().max()))
    return max(len(y) / rectangle, len(y) / circle) > DENSE and radius > WIDE
