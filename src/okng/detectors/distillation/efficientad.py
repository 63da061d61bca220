"""EfficientAD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update, freeze
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import local_average, mean_of_highest, on_finest_grid
from okng.nn.images.augmentation import Augmentation, view
from okng.nn.images.textures import procedural_texture
from okng.nn.vectors.moments import Moments

HARD = 1e-3  # the share of the student's errors that it learns from
LOW, HIGH = 0.9, 0.995  # quantiles of a map on OK images that are held back: they become 0 and 0.1
CUT = 4  # cells at each border of the map that a network without padding has nothing to say of
CROPS = Augmentation(crop=(0.25, 1.0), jitter=(0.2, 0.2, 0.2, 0.0), grey=0.1)  # of OK images, for the teacher
# Of each network its convolutions: kernel, how many times `width` it gives (0: as many as it describes by), pooled.
LAYERS = {
    "S": ((4, 1, True), (4, 2, True), (3, 2, False), (4, 0, False)),
    "M": ((4, 2, True), (4, 4, True), (1, 4, False), (3, 4, False), (4, 0, False), (1, 0, False)),
}


class EfficientAD(Detector):
    """A small network of patches learns a backbone's features; a student learns it on OK images, and errs on others.

    Batzner, Heckler, König, "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024.
    The student also learns what an autoencoder makes of the image as a whole, with that one's faults: where these two
    differ a part is missing, doubled or out of place though each patch looks OK.

    `network`: of the patches, "S" or "M". `width`: channels of its first layer, in M half of them. `descriptor`: how
    many numbers describe a patch, at most as many as the backbone has. `code`: channels of the autoencoder and of its
    code. `backbone`, `strides`, `weights`: what the teacher learns from, on images of twice the size, the finest stride
    8 (the paper: wide_resnet101_2 at 8 and 16). `teacher_epochs`, `teacher_batch_size`, `teacher_learning_rate`: of
    Adam for the teacher; `teacher_steps`: after how many batches that ends, in place of `teacher_epochs`. `epochs`,
    `batch_size`, `learning_rate`: of Adam for student and autoencoder, whose rate falls to a tenth for the last
    twentieth; `training_steps`: after how many batches that ends, in place of `epochs`. `image_size`: (h, w).

    The defaults are for a processor. The paper has 128 for `width`, 384 for `descriptor`, 64 for `code`, images of 256
    px, 60,000 steps of the teacher and 70,000 of the student. With auxiliary images, the paper's ImageNet, the teacher
    learns from these alone, and the student is kept from copying it on them.

    Deliberately otherwise: levels of the backbone are joined before their channels are averaged, so that a level counts
    by how many it has. Without auxiliary images the teacher learns from crops of the OK images and from drawn textures,
    and the student's penalty is on such textures. The teacher learns without padding, from the features of the
    positions that it has then. With auxiliary images, as many as there are OK ones, it learns from crops of them,
    jittered a little where the authors make some grey, and the student's penalty is on whole ones. Features are
    averaged over neighbours first, and normalised by what the teacher learns from. A fifth of the OK images, not a
    tenth, normalises the maps; the student has not learnt it, the teacher has.
    """

    fixed_size = True
    pretrained = True
    takes_auxiliary = True
    feature_mean: Tensor
    feature_deviation: Tensor
    mean: Tensor
    deviation: Tensor
    usual: Tensor

    def __init__(
        self,
        network: Literal["S", "M"] = "S",
        width: int = 32,
        descriptor: int = 384,
        code: int = 32,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (8, 16),
        weights: str = "imagenet",
        teacher_epochs: int = 20,
        teacher_batch_size: int = 16,
        teacher_learning_rate: float = 1e-4,
        epochs: int = 100,
        batch_size: int = 1,
        learning_rate: float = 1e-4,
        teacher_steps: int | None = None,
        training_steps: int | None = None,
        image_size: tuple[int, int] = (128, 128),
    ):
        super().__init__()
        at_least(1, width=width, descriptor=descriptor, batch_size=batch_size, teacher_batch_size=teacher_batch_size)
        at_least(1, teacher_epochs=teacher_epochs, teacher_steps=teacher_steps)
        at_least(1, epochs=epochs, training_steps=training_steps)
        at_least(2, code=code)
        positive(teacher_learning_rate=teacher_learning_rate, learning_rate=learning_rate)
        check_input(image_size, 3, smallest=64)
        self.backbone = freeze(Backbone(backbone, strides, weights))
        d = self.descriptor = min(descriptor, sum(self.backbone.channels))
        self.teacher_epochs, self.teacher_steps = teacher_epochs, teacher_steps
        self.teacher_batch_size, self.teacher_learning_rate = teacher_batch_size, teacher_learning_rate
        self.epochs, self.training_steps = epochs, training_steps
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.teacher = PatchDescription(network, width, d)
        self.student = PatchDescription(network, width, 2 * d)  # like the teacher, then like the autoencoder
        self.autoencoder = Autoencoder(code, d, image_size)
        self.register_buffer("feature_mean", torch.zeros(d, 1, 1))  # of the backbone's features
        self.register_buffer("feature_deviation", torch.ones(d, 1, 1))
        self.register_buffer("mean", torch.zeros(d, 1, 1))  # of the teacher's descriptions of OK images
        self.register_buffer("deviation", torch.ones(d, 1, 1))
        self.register_buffer("usual", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))  # LOW and HIGH of either map

    @property
    def multiple(self) -> int:
        """What the autoencoder divides the input by."""
        return 32

    def phases(self) -> Iterator[Phase]:
        """What is usual of the features; the teacher; of its descriptions; student and autoencoder; their maps."""
        features, described = Moments(), Moments()
        yield Collect("features", lambda batch: features.add(rows(self.shown(batch))), lambda: self.take(features))
        yield Train(
            "teacher",
            [Update(self.teaching, adam(self.teacher_learning_rate, self.teacher))],
            self.teacher_epochs,
            trains=[self.teacher],
            batch_size=self.teacher_batch_size,
            steps=self.teacher_steps,
            augment=for_the_teacher,
        )
        yield Collect(
            "descriptions",
            lambda batch: described.add(rows(self.teacher(self.normalised(batch.images)))),
            lambda: self.take(described, of="mean", and_of="deviation"),
        )
        yield Train(
            "student and autoencoder",
            [Update(self.learning, adam(self.learning_rate, self.student, self.autoencoder), schedule=late_tenth)],
            self.epochs,
            trains=[self.student, self.autoencoder],
            batch_size=self.batch_size,
            steps=self.training_steps,
            augment=for_the_student,
            holds_back=True,
        )
        yield self.usual_maps()

    def take(self, found: Moments, of: str = "feature_mean", and_of: str = "feature_deviation") -> None:
        """Keep a mean and a deviation, (d,), in the buffers of these names."""
        mean, deviation = found.result()
        getattr(self, of).copy_(mean.view(-1, 1, 1))
        getattr(self, and_of).copy_(deviation.clamp_min(1e-6).view(-1, 1, 1))

    def usual_maps(self) -> Collect:
        """The quantiles of both maps on images that were held back."""
        seen: list[tuple[Tensor, Tensor]] = []

        def finish() -> None:
            for i, maps in enumerate(zip(*seen, strict=True)):
                values = torch.cat([m.flatten() for m in maps]).float().cpu()
                # NumPy's, for torch's quantile takes 16 million.
                self.usual[i] = torch.from_numpy(np.quantile(values.numpy(), [LOW, HIGH]))

        return Collect("maps", lambda batch: seen.append(self.maps(batch.images)), finish, held_back=True)

    def normalised(self, images: Tensor) -> Tensor:
        """`images` (B, 3, H, W) as the backbone has them."""
        return (images - self.backbone.mean) / self.backbone.std

    def features(self, images: Tensor) -> Tensor:
        """Of `images` (B, 3, H, W), enlarged twice, the backbone's features (B, d, H / 4, W / 4)."""
        enlarged = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
        found = on_finest_grid([local_average(f, 3) for f in self.backbone(enlarged)])  # (B, sum of C, H / 4, W / 4)
        pooled = F.adaptive_avg_pool1d(found.flatten(2).transpose(1, 2), self.descriptor)  # (B, h*w, d)
        apart: Tensor = pooled.transpose(1, 2).unflatten(2, found.shape[2:])
        return apart

    def shown(self, batch: Batch) -> Tensor:
        """The features (B, d, H / 4, W / 4) of what the teacher is to learn from: auxiliary images where there are."""
        return self.features(batch.images if batch.auxiliary is None else batch.auxiliary)

    def teaching(self, batch: Batch) -> Tensor:
        """The teacher's mean squared distance to the backbone's features, normalised by channel."""
        images = torch.cat(batch.views)  # (2 B, 3, H, W)
        if batch.auxiliary is not None:
            images = view(batch.auxiliary, torch.stack([CROPS.draw() for _ in batch.auxiliary]).to(batch.images))
        with torch.no_grad():
            wanted = (self.features(images) - self.feature_mean) / self.feature_deviation
            wanted = wanted[:, :, CUT:-CUT, CUT:-CUT]  # (B, d, h, w)
        return F.mse_loss(self.teacher(self.normalised(images)), wanted)

    def learning(self, batch: Batch) -> dict[str, Tensor]:
        """The student's hardest errors, its penalty, the autoencoder's error, and the student's of that one."""
        jittered, texture = map(self.normalised, batch.views)
        images, d = self.normalised(batch.images), self.descriptor
        with torch.no_grad():
            taught, taught_jittered = self.taught(images), self.taught(jittered)  # (B, d, h, w)
        beside = texture if batch.auxiliary is None else self.normalised(batch.auxiliary)
        errors = (taught - self.student(images)[:, :d]).square()
        restored = self.autoencoder(jittered)
        return {
            "student": mean_of_highest(errors, HARD).mean(),
            "penalty": self.student(beside)[:, :d].square().mean(),
            "autoencoder": (taught_jittered - restored).square().mean(),
            "student of the autoencoder": (restored - self.student(jittered)[:, d:]).square().mean(),
        }

    def taught(self, normalised: Tensor) -> Tensor:
        """The teacher's descriptions (B, d, h, w), each channel in deviations from its mean on OK images."""
        described: Tensor = (self.teacher(normalised) - self.mean) / self.deviation
        return described

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """How far the student is from the teacher and from the autoencoder, each (B, h, w): means over channels."""
        normalised = self.normalised(images)
        return self.apart(normalised, self.student(normalised))

    def apart(self, normalised: Tensor, studied: Tensor) -> tuple[Tensor, Tensor]:
        """The same of `normalised` images and what the student makes of them, `studied` (B, 2 d, h, w)."""
        d = self.descriptor
        local = (self.taught(normalised) - studied[:, :d]).square().mean(1)
        return local, (self.autoencoder(normalised) - studied[:, d:]).square().mean(1)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H / 4, W / 4): the mean of both, 0 where it is usual of OK images and 0.1 where rare.

        `image` (B,) its maximum.
        """
        anomaly = self.together(self.maps(images))  # (B, h, w)
        return Scores(anomaly.amax((1, 2)), F.pad(anomaly, [CUT] * 4))

    def together(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        """The mean of both `maps` (B, h, w), each 0 where it is usual of OK images and 0.1 where rare."""
        anomaly = torch.zeros_like(maps[0][:, :1, :1])
        for found, (low, high) in zip(maps, self.usual, strict=True):
            anomaly = anomaly + 0.05 * (found - low) / (high - low).clamp_min(1e-8)  # (B, h, w)
        return anomaly


class PatchDescription(nn.Sequential):
    """PDN: of images (B, 3, H, W) descriptions (B, d, H / 4 - 8, W / 4 - 8), each of 33 × 33 px; no padding."""

    def __init__(self, network: str, width: int, d: int):
        layers: list[nn.Module] = []
        given = 3
        for kernel, times, pool in LAYERS[network]:
            wanted = times * width or d
            layers += [nn.Conv2d(given, wanted, kernel), nn.ReLU()]
            layers += [nn.AvgPool2d(2)] if pool else []
            given = wanted
        super().__init__(*layers[:-1])


class Autoencoder(nn.Sequential):
    """Of images (B, 3, H, W) descriptions (B, d, H / 4 - 8, W / 4 - 8), by way of a code of one vector."""

    def __init__(self, code: int, d: int, image_size: tuple[int, int]):
        h, w = image_size
        layers: list[nn.Module] = []
        given = 3
        for wanted in (code // 2, code // 2, code, code, code):
            layers += [nn.Conv2d(given, wanted, 4, stride=2, padding=1), nn.ReLU()]
            given = wanted
        layers.append(nn.Conv2d(code, code, (h // 32, w // 32)))  # (B, code, 1, 1)
        for share, less in ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1)):  # of 256 px: 3, 8, 15, 32, 63, 127
            size = max(h // share - less, 1), max(w // share - less, 1)
            layers += [nn.Upsample(size, mode="bilinear"), nn.Conv2d(code, code, 4, padding=2), nn.ReLU()]
            layers.append(nn.Dropout(0.2))
        layers += [nn.Upsample((h // 4 - 2 * CUT, w // 4 - 2 * CUT), mode="bilinear")]
        super().__init__(*layers, nn.Conv2d(code, code, 3, padding=1), nn.ReLU(), nn.Conv2d(code, d, 3, padding=1))


def rows(described: Tensor) -> Tensor:
    """(B, d, h, w) as (B*h*w, d)."""
    return described.movedim(1, 3).flatten(0, 2)


def adam(learning_rate: float, *modules: nn.Module) -> torch.optim.Adam:
    """The paper's, for all networks."""
    return torch.optim.Adam([p for m in modules for p in m.parameters()], learning_rate, weight_decay=1e-5)


def late_tenth(share: float) -> float:
    """The factor of the rate: a tenth for the last twentieth of the steps."""
    return 1.0 if share < 0.95 else 0.1


def for_the_teacher(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A crop of `image` (3, H, W) brought to its size, and a drawn texture."""
    return view(image[None], CROPS.draw(generator)[None])[0], drawn_texture(image, generator)


def for_the_student(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`image` (3, H, W) with another brightness, contrast or saturation, by up to a fifth, and a drawn texture."""
    which, drawn = torch.rand(2, generator=generator).tolist()
    change = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)[int(3 * which)]
    return change(image, 0.8 + 0.4 * drawn), drawn_texture(image, generator)


def drawn_texture(image: Tensor, generator: torch.Generator) -> Tensor:
    """A texture of the shape of `image`."""
    return procedural_texture(len(image), (image.shape[1], image.shape[2]), generator)
