"""Style distillation: SDN, and OE-SDN with outlier exposure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.detectors.reconstruction.autoencoder import Autoencoder
from okng.errors import OkngError
from okng.nn.images import auxiliary as aux
from okng.nn.images.ssim import dssim_map
from okng.nn.networks.rnan import RNAN

Auxiliary = Literal[
    "adversarial_noise",
    "gaussian_blur",
    "gaussian_noise",
    "horizontal_flip",
    "reconstruction",
    "rotation",
    "shearing",
    "svd_blur",
    "vertical_flip",
]
FROM_IMAGES: dict[str, Callable[[Tensor], Tensor]] = {  # the others need the teacher
    "gaussian_blur": aux.gaussian_blurred,
    "gaussian_noise": aux.gaussian_noise,
    "horizontal_flip": aux.horizontal_flip,
    "rotation": aux.rotated,
    "shearing": aux.sheared,
    "svd_blur": aux.svd_blurred,
    "vertical_flip": aux.vertical_flip,
}


class SDN(Detector):
    """A network without bottleneck learns how an autoencoder blurs OK images; where the two differ is odd.

    Chung, Park, Keum, Ki, Kang, "Unsupervised Anomaly Detection Using Style Distillation", IEEE Access 2020;
    its network: Zhang, Li, Li, Zhong, Fu, "Residual Non-local Attention Networks for Image Restoration", ICLR
    2019. An autoencoder loses detail on OK images too, which hides small defects in its errors. The second
    network, which could copy anything, is taught to lose the same detail: on OK images the two agree, while
    on NG ones the autoencoder also changes the content.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `score`: what an image is judged by, "difference" of the
    two networks or "teacher", the autoencoder's own error in the same distance; then the second network is not trained.
    The autoencoder is the same to the bit either way. `code`, `width`: the autoencoder's, as in
    `autoencoder`; `teacher_epochs`, `teacher_batch_size`, `teacher_learning_rate`: of Adam for it. `filters`:
    of every layer of the second network; `groups`: its attention groups, 2 or more, of which the first and
    the last see the whole image, on a grid of at most `attention_grid` positions a side; `epochs`,
    `batch_size`, `learning_rate`: of Adam for it. For thousands of 28 to 32 px images
    `code=32, teacher_epochs=20, teacher_batch_size=32, teacher_learning_rate=1e-3, filters=16, groups=2,
    attention_grid=16, epochs=5, learning_rate=1e-3` take a few minutes. With the default groups an image of
    256 px takes 2.5 GB while the network learns: lower `size`, `groups` and `batch_size` together.

    Deliberately otherwise: 32 filters, the losses and the order of training are the paper's; groups, batch size
    and learning rate are those of the network's own paper, the autoencoder is okng's with the same distance as
    its loss, and epochs are a choice. A CPU's values have 16 filters, and two groups, which are the two that
    see the whole image: of the local groups in between, eight by default, there are none. The second
    network starts as the identity, from where the blur is near. Beyond `attention_grid` the keys of the non-local
    attention are pooled, and its weights sum to one over them, as that paper's formula has it.
    """

    fixed_size = True

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        score: Literal["difference", "teacher"] = "difference",
        code: int = 100,
        width: int = 16,
        teacher_epochs: int = 200,
        teacher_batch_size: int = 128,
        teacher_learning_rate: float = 2e-4,
        filters: int = 32,
        groups: int = 10,
        attention_grid: int = 32,
        epochs: int = 100,
        batch_size: int = 16,
        learning_rate: float = 1e-4,
    ):
        super().__init__()
        at_least(1, teacher_epochs=teacher_epochs, teacher_batch_size=teacher_batch_size)
        at_least(1, filters=filters, attention_grid=attention_grid, epochs=epochs, batch_size=batch_size)
        at_least(2, groups=groups)  # the first and the last of the network
        positive(teacher_learning_rate=teacher_learning_rate, learning_rate=learning_rate)
        self.score = score
        self.teacher = Autoencoder(image_size, channels, code, width)
        self.student = RNAN(channels, filters, groups, attention_grid)
        for parameter in self.student.tail.parameters():
            nn.init.zeros_(parameter)  # it starts by copying, whose distance to the autoencoder is the latter's error
        self.teacher_epochs, self.teacher_batch_size = teacher_epochs, teacher_batch_size
        self.epochs, self.batch_size = epochs, batch_size
        self.teacher_learning_rate, self.learning_rate = teacher_learning_rate, learning_rate

    def phases(self) -> Iterator[Phase]:
        """Train the autoencoder, then the student, if it is asked, on its copies, which are made once per image."""
        adam = torch.optim.Adam(self.teacher.parameters(), self.teacher_learning_rate)
        teaching = Update(lambda batch: distance(batch.images, self.teach(batch.images)).mean(), adam)
        yield Train("autoencoder", [teaching], self.teacher_epochs, [self.teacher], self.teacher_batch_size)
        if self.score == "teacher":
            return
        learning = Update(self.loss, torch.optim.Adam(self.student.parameters(), self.learning_rate))
        yield Train("student", [learning], self.epochs, [self.student], self.batch_size, prepare=self.teach)

    def teach(self, images: Tensor) -> Tensor:
        """The autoencoder's copies (B, C, H, W) of `images`."""
        copies: Tensor = self.teacher.decoder(self.teacher.encoder(images))
        return copies

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """How far the student is from the autoencoder on OK images."""
        (copies,) = batch.prepared
        return {"distillation": distance(self.student(batch.images), copies).mean()}

    def forward(self, images: Tensor) -> Scores:
        """How far student, or image, and autoencoder are apart: `map` (B, H, W), `image` (B,) its mean."""
        asked = images if self.score == "teacher" else self.student(images)  # (B, C, H, W)
        differences = distance(asked, self.teach(images))  # (B, H, W)
        return Scores(differences.mean((1, 2)), differences)


class OESDN(SDN):
    """A network learns how an autoencoder blurs OK images and to leave all others alone; where the two differ is odd.

    Chung, Park, Keum, Ki, Kang, "Unsupervised Anomaly Detection Using Style Distillation", IEEE Access 2020.
    SDN's student can learn by heart what the autoencoder makes of everything, and then agrees with it on NG
    images too. Here it also has to copy auxiliary images, made of the OK ones, as they are.

    `auxiliary`: how these are made; "rotation" is the paper's best. `outlier_weight`: lambda, the share of
    their loss; at 0 this is SDN. `image_size`, `channels`, `code`, `width`, `teacher_epochs`,
    `teacher_batch_size`, `teacher_learning_rate`, `filters`, `groups`, `attention_grid`, `epochs`,
    `batch_size`, `learning_rate`: as in `sdn`, where there are values for small images too. An epoch takes
    twice as long.

    Deliberately otherwise: as in `sdn`. An auxiliary image is made anew for each OK image of each batch. The
    kinds are table 3's, how strong they are is a choice: quarter turns, shears of up to half the height,
    blur by a twentieth of the shorter side or by an eighth of the singular values, noise of 0.1; the
    adversarial noise is one step of 0.1 that raises the distance between image and copy. A rotation is no
    outlier where parts lie in all directions: take another kind there.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        auxiliary: Auxiliary = "rotation",
        outlier_weight: float = 0.5,
        code: int = 100,
        width: int = 16,
        teacher_epochs: int = 200,
        teacher_batch_size: int = 128,
        teacher_learning_rate: float = 2e-4,
        filters: int = 32,
        groups: int = 10,
        attention_grid: int = 32,
        epochs: int = 100,
        batch_size: int = 16,
        learning_rate: float = 1e-4,
    ):
        if not 0 <= outlier_weight < 1:
            raise OkngError(f"outlier_weight is 0 or more and below 1, such as 0.5, not {outlier_weight}")
        super().__init__(
            image_size,
            channels,
            "difference",
            code,
            width,
            teacher_epochs,
            teacher_batch_size,
            teacher_learning_rate,
            filters,
            groups,
            attention_grid,
            epochs,
            batch_size,
            learning_rate,
        )
        self.auxiliary, self.outlier_weight = auxiliary, outlier_weight

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """(1 - lambda) · how far from the autoencoder on OK images + lambda · how far from copying auxiliary ones."""
        distillation = super().loss(batch)["distillation"]
        outliers = self.outliers(batch)
        exposure = distance(self.student(outliers), outliers).mean()
        return {
            "distillation": (1 - self.outlier_weight) * distillation,
            "exposure": self.outlier_weight * exposure,
        }

    def outliers(self, batch: Batch) -> Tensor:
        """An auxiliary image of each image of the batch: (B, C, H, W)."""
        if self.auxiliary == "reconstruction":
            return batch.prepared[0]
        if self.auxiliary == "adversarial_noise":
            return aux.adversarial_noise(batch.images, lambda images: distance(images, self.teach(images)).sum())
        return FROM_IMAGES[self.auxiliary](batch.images)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The paper's d at each pixel, structural dissimilarity + squared difference, means over channels: (B, H, W)."""
    return (dssim_map(a, b) + (a - b).square()).mean(1)
