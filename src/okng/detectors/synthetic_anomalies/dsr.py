"""DSR."""

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
from okng.nn.images.textures import procedural_texture
from okng.nn.learning.adversarial import judging_only
from okng.nn.learning.focal import focal_loss
from okng.nn.learning.processes import processes
from okng.nn.networks import pooled_unet
from okng.nn.networks.pooled_unet import PooledUNet
from okng.nn.networks.strided import start_awake

DECAY = 0.99  # of a codebook's averages
COMMITMENT = 0.25  # the weight of how far features are from their codes
COPIES = 10  # the weight of a squared error of images
SELDOM = 0.5  # vectors of a batch; a code that on average fewer choose begins anew
NEAREST = 20  # one in so many codes is too near a feature to stand for an anomaly
WEAKEST = 0.2  # the least share of the codes, from the nearest on, that an anomaly is drawn from
SPOILT = 0.5  # the share of images that get an anomaly
FAINTEST = 0.8  # up to which a smudge is transparent
TURN = 90  # degrees
FOCUS = 2  # gamma of the focal loss

Pair = tuple[Tensor, Tensor]

double = partial(pooled_unet.double, normalisation=nn.InstanceNorm2d)
enlarging = partial(pooled_unet.enlarging, normalisation=nn.InstanceNorm2d)


class DSR(Detector):
    """An image is written in learnt codes; anomalies are wrong codes, which one decoder shows and another repairs.

    Zavrtanik, Kristan, Skočaj, "DSR - A Dual Subspace Re-Projection Network for Surface Anomaly Detection", ECCV 2022.
    First a general model learns to copy any image by way of two codebooks, VQ-VAE-2's (Razavi, van den Oord, Vinyals,
    NeurIPS 2019), and stays as it is. Then codes of OK images are swapped for others within blots of Perlin noise: the
    further down the list of the nearest ones, the stronger the anomaly. Two networks bring the codes back to those of
    OK images, a decoder makes the OK image of them, and a detector learns where that differs from what the general
    decoder shows. Last a second U-Net, taught by smudges on images, makes the map finer.

    `image_size` (h, w) of the input, multiples of 32 from 64 on, and its `channels` (1 or 3). `width`: channels of the
    general model and of the decoder's residual layers. `code`: how many numbers are a code, and channels of the first
    level of the networks that restrict them. `codes`: how many each codebook has, 20 or more. `detector_width`:
    channels of the two U-Nets' first levels and of the decoder's narrowest layer. `window`: the side of the square over
    which the detector's map is averaged before the image's score is its maximum, in px, odd; the paper's belongs to
    256 px. `turned`: the share of OK images that are turned by up to 90° before they are learnt, in [0, 1]; where parts
    always lie alike, 0 leaves a turned one odd. `general_epochs`: of the general model. `epochs`: of what restores and
    tells; the last network has half as many. `general_steps`, `training_steps`: after how many batches each ends, in
    place of its epochs. `batch_size`, `learning_rate`: of Adam for all; the rate falls to a tenth after 80 % of the
    steps, and of the last network to a fifth after 80 % and again after 90 %.

    The paper's general model is one of ImageNet. With auxiliary images (`okng.fit(..., auxiliary=FOLDER)`) it learns
    these alone, as many as there are OK ones in an epoch. Without any it learns the OK images and drawn textures
    (`nn/images/textures.py`), this library's makeshift: it has to write what is odd, too, or both decoders show it OK.

    Deliberately otherwise: how the paper's general model was trained could not be checked, so its loss weighs a copy's
    error as the next phase does, by 10, and its rate is that one's. Codebooks begin as features of the first batch, and
    a code that hardly any feature chooses begins anew as one of them: dead codes would be anomalies that look like
    nothing. Averages are not smoothed, which that makes needless. Weights of the general model and the decoder start at
    He's scale, without which narrow ones stay at the mean image for long; the authors have N(0, 0.02²) for the decoder
    and the detector, here PyTorch's for the detector. Blots' cells are 8 px or more, as they are at 256 px. As many
    images are turned for the smudges as before, where the authors' code turns three of ten instead of four. There the
    last network's rate never falls, for it stops before the epochs at which it would; here it falls at those shares of
    its own steps. As in that code, the image's score is of the detector's map, and the finer one only localises.
    """

    fixed_size = True
    takes_auxiliary = True
    multiple = 32  # what the lower codes' restriction divides the input by

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 3,
        width: int = 128,
        code: int = 128,
        codes: int = 4096,
        detector_width: int = 64,
        window: int = 21,
        turned: float = 0.4,
        general_epochs: int = 100,
        epochs: int = 100,
        batch_size: int = 8,
        learning_rate: float = 2e-4,
        general_steps: int | None = None,
        training_steps: int | None = None,
    ):
        super().__init__()
        check_input(image_size, channels, smallest=64)
        if any(side % self.multiple for side in image_size):
            raise OkngError(f"both sides of image_size are multiples of {self.multiple} such as 256, not {image_size}")
        at_least(2, width=width)
        at_least(1, code=code, detector_width=detector_width, general_epochs=general_epochs, epochs=epochs)
        at_least(1, batch_size=batch_size, general_steps=general_steps, training_steps=training_steps)
        at_least(NEAREST, codes=codes)
        positive(learning_rate=learning_rate)
        if window < 1 or window % 2 == 0:
            raise OkngError(f"window is an odd number such as 21, not {window}")
        if not 0 <= turned <= 1:
            raise OkngError(f"turned is a share from 0 to 1, not {turned}")
        self.window, self.turned = window, turned
        self.general_epochs, self.epochs = general_epochs, epochs
        self.general_steps, self.training_steps = general_steps, training_steps
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.general = GeneralModel(channels, width, code, codes)
        self.restrict_high, self.restrict_low = Restriction(code), Restriction(code)
        self.decoder = ObjectDecoder(2 * code, width, detector_width, channels)
        self.detector, self.refiner = unet(2 * channels, detector_width), unet(2 * channels + 2, detector_width)
        start_awake(self.general, self.decoder)

    def phases(self) -> Iterator[Phase]:
        """The general model; what restores and tells, by swapped codes; the finer map, by smudges."""
        yield Train(
            "general model",
            [Update(self.copying, self.adam(self.general))],
            self.general_epochs,
            trains=[self.general],
            batch_size=self.batch_size,
            steps=self.general_steps,
            after_step=self.general.follow,
            augment=self.with_texture,
        )
        told = [self.restrict_high, self.restrict_low, self.decoder, self.detector]
        yield Train(
            "restoring and telling",
            [Update(self.telling, self.adam(*told), schedule=lambda share: 0.1 if share >= 0.8 else 1.0)],
            self.epochs,
            trains=told,
            batch_size=self.batch_size,
            steps=self.training_steps,
            augment=self.with_swap,
        )
        yield Train(
            "finer map",
            [
                Update(
                    self.refining,
                    self.adam(self.refiner),
                    schedule=lambda share: 0.2 ** ((share >= 0.8) + (share >= 0.9)),
                )
            ],
            -(-self.epochs // 2),
            trains=[self.refiner],
            batch_size=self.batch_size,
            steps=None if self.training_steps is None else -(-self.training_steps // 2),
            augment=self.with_smudge,
        )

    def adam(self, *modules: nn.Module) -> torch.optim.Adam:
        """Of these modules' weights."""
        return torch.optim.Adam([p for module in modules for p in module.parameters()], self.learning_rate)

    def with_texture(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`image` (C, H, W), which may be turned, and a drawn texture of its shape."""
        c, h, w = image.shape
        return self.lying(image, generator), procedural_texture(c, (h, w), generator)

    def with_swap(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The image (C, H, W), which may be turned, and where its codes are to be swapped, bool (1, H, W).

        And three numbers: from which share of the codes higher and lower ones are drawn, in [0.2, 1), and one in [0, 1)
        that says of which level: of both below a half, of the lower one below three quarters, else of the higher one.
        """
        high, low, level = torch.rand(3, generator=generator)
        strengths = WEAKEST + (1 - WEAKEST) * torch.stack([high, low])
        return self.lying(image, generator), blot(image, generator), torch.cat([strengths, level[None]])

    def with_smudge(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The image (C, H, W), which may be turned; the same with a blot of one colour; where, bool (1, H, W)."""
        image = self.lying(image, generator)
        mask = blot(image, generator)
        colour = torch.rand(len(image), 1, 1, generator=generator)
        through = FAINTEST * torch.rand(1, 1, 1, generator=generator)
        smudged = torch.where(mask, torch.lerp(colour, image, through.expand_as(image)), image)
        return image, smudged, mask

    def lying(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """`image` (C, H, W) as it is or turned."""
        turn, angle = torch.rand(2, generator=generator).tolist()
        if turn >= self.turned:
            return image
        turned: Tensor = TF.rotate(image, TURN * (2 * angle - 1), TF.InterpolationMode.BILINEAR)
        return turned

    def copying(self, batch: Batch) -> dict[str, Tensor]:
        """The squared error of the general model's copies, and how far features are from the codes that they choose."""
        images = torch.cat(batch.views) if batch.auxiliary is None else batch.auxiliary  # (2 B or B, C, H, W)
        copies, features, codes = self.general(images)
        apart = [F.mse_loss(f, c.detach()) for f, c in zip(features, codes, strict=True)]
        return {"copies": COPIES * F.mse_loss(copies, images), "commitment": COMMITMENT * (apart[0] + apart[1])}

    def telling(self, batch: Batch) -> dict[str, Tensor]:
        """How far restored features are from the clean codes at both levels, and their image from the clean one.

        And the detector's focal loss, of which no gradient reaches what restores.
        """
        clean, mask, drawn = batch.views
        with torch.no_grad():
            swapped, wanted, odd = self.swapped(clean, mask, drawn)
            shown = self.general.decode(*swapped)  # (B, C, H, W)
        with judging_only(self.general):
            features, restored = self.restore(*swapped)
        told = self.told(restored.detach(), shown)
        return {
            "high": F.mse_loss(features[0], wanted[0]),
            "low": F.mse_loss(features[1], wanted[1]),
            "image": COPIES * F.mse_loss(restored, clean),
            "focal": focal_loss(told[:, 1:] - told[:, :1], odd, FOCUS).mean(),
        }

    def refining(self, batch: Batch) -> Tensor:
        """The focal loss of the finer map."""
        _, smudged, mask = batch.views
        with torch.no_grad():
            restored, shown = self.both(smudged)
            odd = self.told(restored, shown).softmax(1)
        finer = self.refiner(torch.cat([restored, shown, odd], 1))  # (B, 2, H, W)
        return focal_loss(finer[:, 1:] - finer[:, :1], mask, FOCUS).mean()

    def swapped(self, images: Tensor, mask: Tensor, drawn: Tensor) -> tuple[Pair, Pair, Tensor]:
        """Codes of clean `images` (B, C, H, W) with others where `mask` (B, 1, H, W) is; `drawn` (B, 3): `with_swap`.

        Codes come in pairs, the higher (B, D, H / 4, W / 4) and the lower (B, D, H / 8, W / 8): those with anomalies,
        and the clean ones. The third is where an image is odd then, bool (B, 1, H, W), in whole cells of the coarser
        level that was changed.
        """
        general, level = self.general, drawn[:, 2].view(-1, 1, 1, 1)
        in_low, in_high = level < 0.75, (level < 0.5) | (level >= 0.75)  # (B, 1, 1, 1)
        at_high, at_low = (F.max_pool2d(mask.float(), side).bool() for side in (4, 8))  # (B, 1, H / 4, W / 4), …
        fine = general.fine(images)  # (B, width, H / 4, W / 4)
        features = general.to_low(general.coarse(fine))  # (B, D, H / 8, W / 8)
        clean_low = general.low.nearest(features)
        low = general.low.swapped(features, at_low & in_low, drawn[:, 1])
        clean_high = general.high.nearest(general.joined(fine, clean_low))
        high = general.high.swapped(general.joined(fine, low), at_high & in_high, drawn[:, 0])
        high = torch.where(in_high, high, clean_high)
        cells = [F.interpolate(at.float(), mask.shape[2:]).bool() for at in (at_low, at_high)]  # (B, 1, H, W) each
        return (high, low), (clean_high, clean_low), torch.where(in_low, cells[0], cells[1])

    def restore(self, high: Tensor, low: Tensor) -> tuple[Pair, Tensor]:
        """Of codes the features of OK ones, in their shapes, and the OK image (B, C, H, W) of their nearest codes."""
        features = self.restrict_high(high), self.restrict_low(low)
        codes = self.general.high(features[0]), self.general.low(features[1])
        return features, self.decoder(self.general.side_by_side(*codes))

    def both(self, images: Tensor) -> Pair:
        """What the object's and the general decoder show of `images` (B, C, H, W), in their shape each."""
        shown, _, codes = self.general(images)
        return self.restore(*codes)[1], shown

    def told(self, restored: Tensor, shown: Tensor) -> Tensor:
        """Logits of OK and of odd, (B, 2, H, W), for what the two decoders show."""
        logits: Tensor = self.detector(torch.cat([restored, shown], 1))
        return logits

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W), how likely each pixel is odd, in [0, 1]; `image` (B,) the highest mean of a window."""
        restored, shown = self.both(images)
        odd = self.told(restored, shown).softmax(1)  # (B, 2, H, W)
        averaged = F.avg_pool2d(odd[:, 1:], self.window, stride=1, padding=self.window // 2)  # (B, 1, H, W)
        finer = self.refiner(torch.cat([restored, shown, odd], 1)).softmax(1)  # (B, 2, H, W)
        return Scores(averaged.amax((1, 2, 3)), finer[:, 1])


class Codebook(nn.Module):
    """`count` codes of `size` numbers, each the moving mean of the features that choose it as their nearest."""

    rows: Tensor
    chosen: Tensor
    sums: Tensor

    def __init__(self, count: int, size: int):
        super().__init__()
        self.register_buffer("rows", torch.randn(count, size))
        self.register_buffer("chosen", torch.zeros(count))  # by how many features of a batch, on average
        self.register_buffer("sums", torch.zeros(count, size))  # of these features

    def distances(self, vectors: Tensor) -> Tensor:
        """Squared distances (N, K) of `vectors` (N, D) to all codes, but for a number of each vector's own."""
        with torch.autocast(vectors.device.type, enabled=False):  # in half precision others would be the nearest
            return self.rows.square().sum(1) - 2 * vectors.float() @ self.rows.T

    def nearest(self, features: Tensor) -> Tensor:
        """The code nearest to each of `features` (B, D, h, w), in their place."""
        index = self.distances(features.movedim(1, 3).flatten(0, 2)).argmin(1)  # (B*h*w,)
        codes: Tensor = self.rows[index].unflatten(0, (-1, *features.shape[2:]))  # (B, h, w, D)
        return codes.movedim(3, 1)

    def forward(self, features: Tensor) -> Tensor:
        """The same; gradients go straight through to `features`."""
        return features + (self.nearest(features) - features).detach()

    def swapped(self, features: Tensor, mask: Tensor, strength: Tensor) -> Tensor:
        """`nearest`, but where `mask` (B, 1, h, w) is, any code from the nearest twentieth on up to a share `strength`.

        `strength` (B,): of all codes, by their distance to the feature; each is as likely as any other.
        """
        codes = self.nearest(features).movedim(1, 3).contiguous()  # (B, h, w, D)
        at = mask[:, 0]  # (B, h, w)
        vectors = features.movedim(1, 3)[at]  # (M, D)
        count = len(self.rows)
        most = (strength[:, None, None].expand_as(at)[at] * count).long() + 1  # (M,), as many nearest codes
        least = count // NEAREST
        share = torch.rand(len(most)).to(most.device)
        rank = least + (share * (most.clamp_max(count - 1) - least)).long()  # (M,)
        order = self.distances(vectors).argsort(1)  # (M, K)
        codes[at] = self.rows[order.gather(1, rank[:, None])[:, 0]]
        return codes.movedim(3, 1)

    def follow(self, features: Tensor) -> None:
        """Move every code to the mean of what chose it, of late and in `features` (B, D, h, w).

        Where processes have parts of a batch, in those of all; they take turns with the codes that begin anew.
        """
        us = processes()
        vectors = features.movedim(1, 3).flatten(0, 2).float()  # (N, D)
        index = self.distances(vectors).argmin(1)  # (N,)
        decay = DECAY / us.count  # each adds its part of the averages, which all have alike
        us.add(self.chosen.mul_(decay).add_(torch.bincount(index, minlength=len(self.rows)), alpha=1 - DECAY))
        us.add(self.sums.mul_(decay).index_add_(0, index, vectors, alpha=1 - DECAY))
        seldom = self.chosen < SELDOM  # (K,), all of them at first
        drawn = torch.randint(len(vectors), (int(seldom.sum()),)).to(index.device)  # (S,)
        if len(drawn):
            anew, ours = torch.zeros_like(vectors[drawn]), slice(us.number, None, us.count)
            anew[ours] = vectors[drawn[ours]]
            self.sums[seldom], self.chosen[seldom] = us.add(anew), 1.0
        self.rows.copy_(self.sums / self.chosen[:, None])


class GeneralModel(nn.Module):
    """VQ-VAE-2 of two levels: an image as codes for its cells of 4 px, which go by codes for its cells of 8 px.

    `high` is the codebook of the finer cells, `low` that of the coarser ones, which are found first.
    """

    def __init__(self, channels: int, width: int, code: int, codes: int):
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(channels, width // 2, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(width // 2, width, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1), *residuals(width),
        )  # fmt: skip
        self.coarse = nn.Sequential(
            nn.Conv2d(width, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), *residuals(width)
        )
        self.to_high, self.to_low = nn.Conv2d(width + code, code, 1), nn.Conv2d(width, code, 1)
        self.high, self.low = Codebook(codes, code), Codebook(codes, code)
        self.enlarge = nn.ConvTranspose2d(code, code, 4, 2, 1)
        self.decoder = nn.Sequential(nn.Conv2d(2 * code, width, 3, 1, 1), *residuals(width), *to_image(width, channels))
        self.met: list[tuple[Codebook, Tensor]] = []  # in the latest training step

    def forward(self, images: Tensor) -> tuple[Tensor, Pair, Pair]:
        """Copies of `images` (B, C, H, W), their features and the codes of these, higher and lower ones each.

        Higher ones are (B, D, H / 4, W / 4), lower ones (B, D, H / 8, W / 8).
        """
        fine = self.fine(images)  # (B, width, H / 4, W / 4)
        lower = self.to_low(self.coarse(fine))
        low = self.low(lower)
        higher = self.joined(fine, low)
        high = self.high(higher)
        if self.training:
            self.met = [(self.high, higher.detach()), (self.low, lower.detach())]
        return self.decode(high, low), (higher, lower), (high, low)

    def follow(self) -> None:
        """Move both codebooks by the features of the latest step."""
        for codebook, features in self.met:
            codebook.follow(features)
        self.met = []

    def joined(self, fine: Tensor, low: Tensor) -> Tensor:
        """The higher features, of the image's own (B, width, H / 4, W / 4) and its lower codes."""
        features: Tensor = self.to_high(torch.cat([fine, self.enlarge(low)], 1))
        return features

    def side_by_side(self, high: Tensor, low: Tensor) -> Tensor:
        """What a decoder takes, (B, 2 D, H / 4, W / 4): the lower codes, enlarged, and the higher ones."""
        return torch.cat([self.enlarge(low), high], 1)

    def decode(self, high: Tensor, low: Tensor) -> Tensor:
        """The image (B, C, H, W) that codes stand for; values may leave [0, 1]."""
        shown: Tensor = self.decoder(self.side_by_side(high, low))
        return shown


class Residual(nn.Module):
    """Rectified features and what two convolutions, 3 × 3 to half the channels and 1 × 1 back, add to them."""

    def __init__(self, width: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, 1, 1, bias=False), nn.ReLU(),
            nn.Conv2d(width // 2, width, 1, bias=False),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, h, w) → the same shape."""
        active = F.relu(features)
        added: Tensor = active + self.path(active)
        return added


class Restriction(nn.Sequential):
    """Codes (B, D, h, w) → features of OK ones, in their shape: down twice and up again, with no way around."""

    def __init__(self, code: int):
        super().__init__(
            double(code, code, code), nn.MaxPool2d(2),
            double(code, 2 * code, 2 * code), nn.MaxPool2d(2),
            double(2 * code, 4 * code, 4 * code),
            enlarging(4 * code, 2 * code), double(2 * code, 2 * code, 2 * code),
            enlarging(2 * code, code), double(code, code, code), nn.Conv2d(code, code, 3, 1, 1),
        )  # fmt: skip


class ObjectDecoder(nn.Sequential):
    """Both levels' codes, side by side (B, inner, h, w) → the OK image (B, channels, 4 h, 4 w)."""

    def __init__(self, inner: int, width: int, narrow: int, channels: int):
        super().__init__(
            double(inner, inner, 2 * inner), nn.MaxPool2d(2),
            double(2 * inner, 2 * inner, 4 * inner), nn.MaxPool2d(2),
            nn.Conv2d(4 * inner, narrow, 1),
            nn.ConvTranspose2d(narrow, narrow, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(narrow, narrow, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(narrow, width, 3, 1, 1), *residuals(width), *to_image(width, channels),
        )  # fmt: skip


def blot(image: Tensor, generator: torch.Generator) -> Tensor:
    """Where an anomaly of `image` (C, H, W) is to be, bool (1, H, W): nowhere in half of the cases."""
    spoil = float(torch.rand((), generator=generator)) < SPOILT
    h, w = image.shape[1:]
    return perlin_mask((h, w), generator)[None] if spoil else torch.zeros(1, h, w, dtype=torch.bool)


def residuals(width: int) -> list[nn.Module]:
    """Two residual layers and a rectifier."""
    return [Residual(width), Residual(width), nn.ReLU()]


def to_image(width: int, channels: int) -> list[nn.Module]:
    """(B, width, h, w) → (B, channels, 4 h, 4 w)."""
    return [
        nn.ConvTranspose2d(width, width // 2, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width // 2, channels, 4, 2, 1)
    ]  # fmt: skip


def unet(channels: int, width: int) -> PooledUNet:
    """(B, channels, H, W) → logits of OK and of odd, (B, 2, H, W): three halvings."""
    return PooledUNet(
        channels, [width, 2 * width, 4 * width, 4 * width], [4 * width, 2 * width, width], 2, nn.InstanceNorm2d
    )
