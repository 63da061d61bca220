"""Uninformed Students."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive, typed
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.vectors.moments import Moments

PATCHES, TEACHING = 8, 8  # patches of an image, images of a batch: 64 patches
SIDE = 64  # pixels: what patches are enlarged to for the backbone
# Of each receptive field its convolutions: kernel, how many times `width` it gives (0: a descriptor), pooled by 2.
LAYERS = {
    17: ((6, 1, False), (5, 2, False), (5, 2, False), (4, 0, False)),
    33: ((5, 1, True), (5, 2, True), (2, 2, False), (4, 0, False)),
    65: ((5, 1, True), (5, 1, True), (5, 1, True), (4, 2, False), (1, 0, False)),
}


class UninformedStudents(Detector):
    """Students learn on OK images what a teacher says of each patch; odd is where they are wrong, or disagree.

    Bergmann, Fauser, Sattlegger, Steger, "Uninformed Students: Student-Teacher Anomaly Detection with Discriminative
    Latent Embeddings", CVPR 2020. The teacher is a small network of patches that has learnt from a backbone; it and the
    students are run on all patches of an image at once.

    `backbone`, `stride`, `weights`: what the teacher learns from, and where its features are taken and averaged (the
    paper: resnet18 at 32). `receptive_fields`: sides of the patches in pixels, any of 17, 33 and 65, each with a
    teacher and students of its own; the maps are averaged. `students`: how many a teacher has. `width`, `descriptor`:
    channels of the first layer and of the last. `teacher_epochs`, `teacher_learning_rate`: of Adam for the teachers,
    with 64 patches of 8 images in a batch. `teacher_steps`: after how many batches their training ends, in place of
    `teacher_epochs`. `epochs`, `batch_size`, `learning_rate`: of Adam for the students.

    The defaults are for a processor. The paper has all three receptive fields, 128 for `width` and `descriptor`, and
    50,000 teacher steps. With auxiliary images the teachers learn from these alone, as the paper's do from ImageNet.

    Deliberately otherwise: without auxiliary images the teachers learn from patches of the OK images, of a quarter to a
    sixteenth of an image's shorter side, which is the paper's range. The backbone sees patches enlarged to 64 px. A
    student's step takes every second, fourth or eighth position each way, as far as its network pools, from a place
    drawn anew, which on average are all of them. What is usual of the two parts of the map is measured on the OK images
    that were learnt, at such positions; the paper has images of its own for that. Beyond the border the outermost
    pixels are repeated.
    """

    pretrained = True
    takes_auxiliary = True
    mean: Tensor
    deviation: Tensor
    usual: Tensor

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        stride: int = 32,
        weights: str = "imagenet",
        receptive_fields: tuple[int, ...] = (33,),
        students: int = 3,
        width: int = 32,
        descriptor: int = 64,
        teacher_epochs: int = 20,
        teacher_learning_rate: float = 2e-4,
        epochs: int = 100,
        batch_size: int = 1,
        learning_rate: float = 1e-4,
        teacher_steps: int | None = None,
    ):
        super().__init__()
        at_least(1, students=students, width=width, epochs=epochs, batch_size=batch_size)
        at_least(1, teacher_epochs=teacher_epochs, teacher_steps=teacher_steps)
        at_least(2, descriptor=descriptor)
        positive(teacher_learning_rate=teacher_learning_rate, learning_rate=learning_rate)
        if not receptive_fields or len({*receptive_fields} & {*LAYERS}) < len(receptive_fields):
            raise OkngError(
                f"receptive_fields is one or more of 17, 33 and 65, each once, not {typed(receptive_fields)}"
            )
        self.backbone = freeze(Backbone(backbone, (stride,), weights))
        self.receptive_fields = receptive_fields
        self.teacher_epochs, self.teacher_steps = teacher_epochs, teacher_steps
        self.teacher_learning_rate, self.learning_rate = teacher_learning_rate, learning_rate
        self.epochs, self.batch_size = epochs, batch_size
        self.teachers = nn.ModuleList(PatchNetwork(field, width, descriptor) for field in receptive_fields)
        channels = self.backbone.channels[0]
        self.decoders = nn.ModuleList(nn.Linear(descriptor, channels) for _ in receptive_fields)
        self.students = nn.ModuleList(
            nn.ModuleList(PatchNetwork(field, width, descriptor) for _ in range(students)) for field in receptive_fields
        )
        fields = len(receptive_fields)
        self.register_buffer("mean", torch.zeros(fields, descriptor))  # of the teachers' descriptors of OK images
        self.register_buffer("deviation", torch.ones(fields, descriptor))
        self.register_buffer("usual", torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(fields, 2, 2).clone())
        # of error and variance, side by side, the mean and the deviation over places in OK images

    def phases(self) -> Iterator[Phase]:
        """For each receptive field: the teacher, what is usual of its descriptors, the students, what is of theirs."""
        for i, field in enumerate(self.receptive_fields):
            taught = nn.ModuleList([self.teachers[i], self.decoders[i]])
            yield Train(
                f"teacher of {field} px",
                [Update(partial(self.teaching, i), adam(taught, self.teacher_learning_rate))],
                self.teacher_epochs,
                trains=[taught],
                batch_size=TEACHING,
                steps=self.teacher_steps,
                augment=partial(cut, side=field),
            )
            yield self.descriptors(i)
            yield Train(
                f"students of {field} px",
                [Update(partial(self.learning, i), adam(self.students[i], self.learning_rate))],
                self.epochs,
                trains=[self.students[i]],
                batch_size=self.batch_size,
            )
            yield self.parts(i)

    def networks(self, i: int) -> tuple[PatchNetwork, list[PatchNetwork]]:
        """Teacher `i` and its students."""
        return cast(PatchNetwork, self.teachers[i]), list(cast(Iterable[PatchNetwork], self.students[i]))

    def descriptors(self, i: int) -> Collect:
        """What is usual of the descriptors of teacher `i`, channel by channel."""
        moments = Moments()

        def visit(batch: Batch) -> None:
            described = self.networks(i)[0].spaced(self.padded(i, batch.images))  # (B, d, h, w)
            moments.add(described.movedim(1, 3).flatten(0, 2))

        def finish() -> None:
            mean, deviation = moments.result()
            self.mean[i], self.deviation[i] = mean, deviation.clamp_min(1e-6)

        return Collect(f"descriptors of {self.receptive_fields[i]} px", visit, finish)

    def parts(self, i: int) -> Collect:
        """What is usual of the error and of the variance of students `i`."""
        moments = Moments()

        def visit(batch: Batch) -> None:
            error, variance = self.compare(i, self.padded(i, batch.images), spaced=True)
            moments.add(torch.stack([error.flatten(), variance.flatten()], 1))

        def finish() -> None:
            mean, deviation = moments.result()
            self.usual[i] = torch.stack([mean, deviation.clamp_min(1e-6)])

        return Collect(f"scores of {self.receptive_fields[i]} px", visit, finish)

    def padded(self, i: int, images: Tensor) -> Tensor:
        """`images` (B, 3, H, W), normalised, with a border so that a network `i` has an output for each pixel."""
        before = self.receptive_fields[i] // 2
        after = self.networks(i)[0].reach - 1 - before
        normalised = (images - self.backbone.mean) / self.backbone.std
        return F.pad(normalised, (before, after, before, after), mode="replicate")

    def teaching(self, i: int, batch: Batch) -> dict[str, Tensor]:
        """How far teacher `i` is from the backbone's features of patches, and how much its channels say the same."""
        field = self.receptive_fields[i]
        views = batch.views[0]
        if batch.auxiliary is not None:
            views = torch.stack([cut(image, side=field) for image in batch.auxiliary])
        patches = views.flatten(0, 1)  # (N, 3, p, p)
        with torch.no_grad():
            enlarged = F.interpolate(patches, (SIDE, SIDE), mode="bilinear", align_corners=False)
            wanted = self.backbone(enlarged)[0].mean((2, 3))  # (N, C)
        normalised = (patches - self.backbone.mean) / self.backbone.std
        described = self.networks(i)[0].spaced(normalised)[:, :, 0, 0]  # (N, d)
        distillation = (self.decoders[i](described) - wanted).square().sum(1).mean()
        return {"distillation": distillation, "compactness": compactness(described)}

    def learning(self, i: int, batch: Batch) -> dict[str, Tensor]:
        """Each student's squared distance to what is unusual of the teacher, the mean over a grid of places."""
        teacher, students = self.networks(i)
        down, right = (int(torch.randint(min(teacher.spacing, side), ())) for side in batch.images.shape[2:])
        images = self.padded(i, batch.images)[:, :, down:, right:]
        with torch.no_grad():
            wanted = self.unusual(i, teacher.spaced(images))  # (B, d, h, w)
        found = [student.spaced(images) for student in students]
        return {f"student {k + 1}": (s - wanted).square().sum(1).mean() for k, s in enumerate(found)}

    def unusual(self, i: int, described: Tensor) -> Tensor:
        """Descriptors (B, d, h, w) of teacher `i` in deviations from their mean."""
        return (described - self.mean[i].view(-1, 1, 1)) / self.deviation[i].view(-1, 1, 1)

    def compare(self, i: int, padded: Tensor, spaced: bool = False) -> tuple[Tensor, Tensor]:
        """The error of the students' mean and their variance, each (B, h, w) and >= 0, of `padded` images."""
        teacher, pupils = self.networks(i)
        taught, *found = [n.spaced(padded) if spaced else n(padded) for n in (teacher, *pupils)]  # (B, d, h, w)
        students = torch.stack(found)  # (M, B, d, h, w)
        mean = students.mean(0)
        error = (mean - self.unusual(i, taught)).square().sum(1)
        return error, (students - mean).square().mean(0).sum(1)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W): error and variance in deviations from what is usual, about 0; `image` (B,) its maximum."""
        anomaly = torch.zeros_like(images[:, 0])
        for i in range(len(self.receptive_fields)):
            for part, mean, deviation in zip(self.compare(i, self.padded(i, images)), *self.usual[i], strict=True):
                anomaly = anomaly + (part - mean) / deviation / len(self.receptive_fields)
        return Scores(anomaly.amax((1, 2)), anomaly)


class PatchNetwork(nn.Module):
    """A network of patches without padding: one descriptor of (3, p, p), or of each patch of an image.

    `reach`: the side of what a descriptor depends on, p or a little less, where a pool leaves a last row out.
    `spacing`: how far the patches lie apart that it describes if its pools are strided.
    """

    def __init__(self, field: int, width: int, descriptor: int):
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.pools = [pool for _, _, pool in LAYERS[field]]
        self.reach, self.spacing, given = 1, 1, 3
        for kernel, wide, pool in LAYERS[field]:
            wanted = wide * width or descriptor
            self.convolutions.append(nn.Conv2d(given, wanted, kernel, dilation=self.spacing))
            self.reach += (kernel - 1) * self.spacing + pool * self.spacing
            self.spacing, given = self.spacing * (1 + pool), wanted

    def forward(self, images: Tensor) -> Tensor:
        """Descriptors (B, d, H - reach + 1, W - reach + 1) of all patches of `images` (B, 3, H, W).

        In place of a stride of 2, what follows a pool is spread twice as far.
        """
        features, spread = images, 1
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            features = self.bent(convolution(features), convolution)
            if pool:
                features, spread = F.max_pool2d(features, 2, stride=1, dilation=spread), 2 * spread
        return features

    def spaced(self, images: Tensor) -> Tensor:
        """Every `spacing`-th of the descriptors, each way: those of one patch where there is one."""
        features = images
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            features = self.bent(F.conv2d(features, convolution.weight, convolution.bias), convolution)  # type: ignore[arg-type]
            if pool:
                features = F.max_pool2d(features, 2)
        return features

    def bent(self, features: Tensor, convolution: nn.Module) -> Tensor:
        """Behind all convolutions but the last a leaky ReLU."""
        return features if convolution is self.convolutions[-1] else F.leaky_relu(features, 5e-3)


def adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """The paper's, for either kind of network."""
    return torch.optim.Adam(module.parameters(), learning_rate, weight_decay=1e-5)


def cut(image: Tensor, generator: torch.Generator | None = None, side: int = 33) -> Tensor:
    """Squares at random places of `image` (C, H, W), each of its own size, scaled: (PATCHES, C, side, side).

    As if the image's shorter side had been scaled to 4 to 16 times `side`, as the paper does it.
    """
    drawn = torch.rand(3, PATCHES, generator=generator).to(image)
    h, w = image.shape[1:]
    cut_out = min(h, w) / (4 + 12 * drawn[0])  # pixels
    across, down = cut_out / w, cut_out / h  # shares of the sides
    none = torch.zeros_like(across)
    rows = [
        torch.stack([across, none, (2 * drawn[1] - 1) * (1 - across)], 1),
        torch.stack([none, down, (2 * drawn[2] - 1) * (1 - down)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [PATCHES, len(image), side, side], align_corners=False)
    return F.grid_sample(image.expand(PATCHES, -1, -1, -1), grid, padding_mode="border", align_corners=False)


def compactness(described: Tensor) -> Tensor:
    """The sum of the correlations of different channels of descriptors (N, d) over a batch, from -d to d * (d - 1).

    Not of their sizes: as the paper has it, channels that are opposed count as compact.
    """
    centred = described - described.mean(0)
    scaled = F.normalize(centred, dim=0)  # (N, d), each channel of length 1
    correlations = scaled.T @ scaled  # (d, d)
    return correlations.sum() - correlations.diagonal().sum()
