"""SALAD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.detectors.distillation.efficientad import CUT, EfficientAD, late_tenth
from okng.errors import OkngError
from okng.nn.learning.focal import focal_loss
from okng.nn.networks.compositions import CompositionNet, corrupted
from okng.nn.vectors.covariance import ledoit_wolf, whitening_of
from okng.nn.vectors.kmeans import assigned, kmeans
from okng.nn.vectors.moments import Moments

CELLS = 128  # of an image's features, drawn at random, to be clustered
POOL = 64  # compositions that pieces are taken from
FLOORS = (0.01, 0.1)  # the least deviation of the maxima and of the distances: few images may lie close by chance
STEEP = 50.0  # of the softmax that tells the kind of a pixel: engines that differ by rounding must not differ by a kind


class SALAD(Detector):
    """A map of which kind of part is where is repaired, and odd is what the repair changes; beside EfficientAD.

    Fučka, Zavrtanik, Skočaj, "SALAD - Semantics-Aware Logical Anomaly Detection", ICCV 2025. A composition is an image
    in which each pixel is a kind of part. On OK images' compositions, corrupted, an autoencoder learns to repair them
    and a second network to find, beside the repair, what was corrupted. EfficientAD looks at how all looks, and of its
    student's descriptions the mean over the image and over each kind of part has a Gaussian.

    `parts`: how many kinds there are beside the background. `scale`: how many pixels of the image a pixel of its
    composition has along a side, 1, 2 or 4. `composition_width`: channels of the first level of the networks of
    compositions, a multiple of 8; the autoencoder has twice as many. `segmentation_epochs`: of AdamW for the network
    that tells kinds of parts, in batches of 8. `composition_rate`: of Adam for autoencoder and finder. All others are
    EfficientAD's. `network`: "S" or "M". `width`, `descriptor`, `code`: its channels. `backbone`, `strides`, `weights`:
    what its teacher learns from, and kinds of parts are told by. `teacher_epochs`, `teacher_batch_size`,
    `teacher_learning_rate`, `teacher_steps`: of its teacher. `epochs`, `batch_size`, `learning_rate`,
    `training_steps`: of its student and autoencoder, and of the networks of compositions, which learn beside them.
    `image_size`: (h, w).

    The defaults are for a processor, those of the compositions but for `scale` the paper's. The paper has EfficientAD's
    others, 1 for `scale`, and learns 70,000 steps.

    Deliberately otherwise: what stands in for the paper's masks of SAM-HQ and clusters of DINO are clusters of the
    features that EfficientAD's teacher learns from, of the offline backbone by default. They are of all pixels, where
    the paper's are of a foreground; the one that most of the border belongs to is the background, and outlines are as
    coarse as the features. All kinds count alike in the losses; in the authors' code one, the second, counts five or
    six times, and the softmax of a softmax is one here. The overlap (dice) is of a whole batch and of likelihoods as
    they are, where theirs squares them and takes each composition by itself. Odd in a corrupted composition is what was
    changed, where the authors' code takes all that then hangs together with it. The kinds of an image to judge are a
    steep softmax, where the networks learn from one kind a pixel. Pieces are of the first 64 compositions. The networks
    halve by pooling and double by enlarging, and normalise by 8 groups. A description belongs to the kind in the middle
    of its patch. All networks of compositions have residual blocks. Maxima are of the maps as they are; theirs are
    enlarged to the image first. A fifth of the OK images tells what is usual of each term, and its deviation
    counts as 0.01 (maxima) or 0.1 (distances) at least. EfficientAD is as it is in okng.
    """

    fixed_size = True
    pretrained = True
    takes_auxiliary = True
    centres: Tensor
    pool: Tensor
    usual: Tensor
    means: Tensor
    whitenings: Tensor

    def __init__(
        self,
        parts: int = 5,
        scale: int = 4,
        composition_width: int = 64,
        segmentation_epochs: int = 10,
        composition_rate: float = 1e-5,
        network: Literal["S", "M"] = "M",
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
        at_least(1, parts=parts, segmentation_epochs=segmentation_epochs)
        positive(composition_rate=composition_rate)
        if scale not in (1, 2, 4):
            raise OkngError(f"scale is 1, 2 or 4, not {scale}")
        if composition_width < 8 or composition_width % 8:
            raise OkngError(f"composition_width is a multiple of 8, not {composition_width}")
        self.appearance = EfficientAD(
            network, width, descriptor, code, backbone, strides, weights, teacher_epochs, teacher_batch_size,
            teacher_learning_rate, epochs, batch_size, learning_rate, teacher_steps, training_steps, image_size,
        )  # fmt: skip
        self.scale, self.kinds = scale, parts + 1
        self.segmentation_epochs, self.composition_rate = segmentation_epochs, composition_rate
        k, d = self.kinds, self.appearance.descriptor
        self.segmenter = CompositionNet(3, k, composition_width, joined=True)
        self.repairer = CompositionNet(k, k, 2 * composition_width, joined=False)
        self.finder = CompositionNet(2 * k, 1, composition_width, joined=True)
        self.register_buffer("centres", torch.zeros(k, d))  # of the clusters, the background's first
        self.register_buffer("pool", torch.zeros(0, dtype=torch.uint8))  # (n, h, w), fitting sizes it
        self.register_buffer("means", torch.zeros(k + 1, d))  # of the descriptions of an image, and of each kind
        self.register_buffer("whitenings", torch.zeros(k + 1, d, d))
        self.register_buffer("usual", torch.tensor([[0.0, 1.0]]).repeat(k + 3, 1))  # mean and deviation of each term

    @property
    def multiple(self) -> int:
        """What EfficientAD's autoencoder divides the input by, and so do the networks of compositions, or by less."""
        return self.appearance.multiple

    def phases(self) -> Iterator[Phase]:
        """EfficientAD's teacher; the kinds of parts; its student beside the compositions; what is usual of all that."""
        features, teacher, descriptions, student, maps = self.appearance.phases()
        yield from (features, teacher, descriptions, self.clusters())
        yield Train(
            "segmentation",
            [Update(self.segmenting, torch.optim.AdamW(self.segmenter.parameters(), 5e-4))],
            self.segmentation_epochs,
            trains=[self.segmenter],
            batch_size=8,
            prepare=self.kind_by_features,
        )
        yield self.compositions()
        networks = [self.repairer, self.finder]
        adam = torch.optim.Adam([p for n in networks for p in n.parameters()], self.composition_rate, weight_decay=1e-5)
        assert isinstance(student, Train)
        yield replace(
            student,
            name="student, autoencoder and compositions",
            updates=[*student.updates, Update(self.composing, adam, schedule=late_tenth)],
            trains=[*student.trains, *networks],
            prepare=self.kind,
        )
        yield maps
        yield self.gaussians()
        yield self.usual_terms()

    def clusters(self) -> Collect:
        """The kinds of parts: clusters of features, the background's first."""
        drawn: list[Tensor] = []
        border: list[Tensor] = []

        def visit(batch: Batch) -> None:
            features = self.features(batch.images)  # (B, d, h, w)
            edge = torch.ones_like(features[0, 0], dtype=torch.bool)
            edge[1:-1, 1:-1] = False
            border.append(features[:, :, edge].transpose(1, 2).flatten(0, 1))
            cells = features.flatten(2).transpose(1, 2)  # (B, h*w, d)
            drawn.extend(of_one[torch.randperm(len(of_one))[:CELLS].to(of_one.device)] for of_one in cells)

        def finish() -> None:
            centres = kmeans(torch.cat(drawn), self.kinds)
            votes = assigned(torch.cat(border), centres)[1].bincount(minlength=len(centres))
            order = votes.argsort(descending=True)
            self.centres.copy_(centres[order[:1]])  # where the features are too few for so many
            self.centres[: len(order)] = centres[order]

        return Collect("kinds of parts", visit, finish)

    def features(self, images: Tensor) -> Tensor:
        """EfficientAD's features (B, d, H / 4, W / 4) of its backbone, each channel in deviations from its mean."""
        a = self.appearance
        return (a.features(images) - a.feature_mean) / a.feature_deviation

    def kind_by_features(self, images: Tensor) -> Tensor:
        """The kind of part, 0 the background, at each pixel of the compositions of `images`: uint8 (B, h, w)."""
        size = [side // self.scale for side in images.shape[2:]]
        features = F.interpolate(self.features(images), size, mode="bilinear", align_corners=False)  # (B, d, h, w)
        index = assigned(features.movedim(1, 3).flatten(0, 2), self.centres)[1]  # (B*h*w,)
        return index.view(len(images), *size).to(torch.uint8)

    def kind_logits(self, images: Tensor) -> Tensor:
        """The same as the segmenter has it, for `images` (B, 3, H, W): logits (B, K, h, w)."""
        normalised = self.appearance.normalised(images)
        logits: Tensor = self.segmenter(F.avg_pool2d(normalised, self.scale))
        return logits

    def kind(self, images: Tensor) -> Tensor:
        """The segmenter's kinds of parts of `images`: uint8 (B, h, w)."""
        return self.kind_logits(images).argmax(1).to(torch.uint8)

    def segmenting(self, batch: Batch) -> Tensor:
        """The segmenter's cross-entropy."""
        return F.cross_entropy(self.kind_logits(batch.images), batch.prepared[0].long())

    def compositions(self) -> Collect:
        """Some compositions, of which pieces are taken."""
        kept: list[Tensor] = []

        def visit(batch: Batch) -> None:
            kept.extend(self.kind(batch.images)[: POOL - len(kept)])

        def finish() -> None:
            self.pool = torch.stack(kept)

        return Collect("compositions", visit, finish)

    def composing(self, batch: Batch) -> dict[str, Tensor]:
        """What the repairer misses of clean compositions, and the finder of what was corrupted; half are clean."""
        clean = batch.prepared[0].cpu().numpy()  # (B, h, w)
        others = self.pool[torch.randint(len(self.pool), (len(clean),))].cpu().numpy()
        spoilt = [corrupted(one, other, self.kinds) for one, other in zip(clean, others, strict=True)]
        given, wanted = (
            torch.from_numpy(np.concatenate([these, clean])).to(batch.images.device) for these in (spoilt, clean)
        )  # (2 B, h, w): corrupted ones, then clean ones
        changed = given != wanted
        logits, found = self.repaired(self.one_hot(given))
        truth = self.one_hot(wanted)  # (2 B, K, h, w)
        log_likelihoods = logits.log_softmax(1)
        likelihoods = log_likelihoods.exp()
        surprise = -(truth * log_likelihoods).sum(1)  # (2 B, h, w)
        met = (truth * likelihoods).sum((0, 2, 3))  # (K,)
        dice = 1 - (2 * met + 1) / (truth.sum((0, 2, 3)) + likelihoods.sum((0, 2, 3)) + 1)
        alpha = torch.where(changed, 0.25, 0.75)
        return {
            "focal": ((-torch.expm1(-surprise)).square() * surprise).mean(),
            "dice": dice.mean(),
            "found": 5 * (alpha * focal_loss(found, changed, 2)).mean(),
            "distance": (found.sigmoid() - changed.float()).abs().mean(),
        }

    def one_hot(self, kinds: Tensor) -> Tensor:
        """Of `kinds` (B, h, w) float (B, K, h, w)."""
        return F.one_hot(kinds.long(), self.kinds).movedim(3, 1).float()

    def repaired(self, compositions: Tensor) -> tuple[Tensor, Tensor]:
        """Of `compositions` (B, K, h, w) the repair, in logits of the same shape, and the finder's logits (B, h, w)."""
        logits = self.repairer(compositions)
        found: Tensor = self.finder(torch.cat([compositions, logits.softmax(1)], 1))
        return logits, found[:, 0]

    def gaussians(self) -> Collect:
        """The Gaussians of mean descriptions."""
        seen: list[Tensor] = []

        def finish() -> None:
            for i, vectors in enumerate(torch.cat(seen).unbind(1)):  # (N, d)
                self.means[i] = vectors.mean(0)
                self.whitenings[i] = whitening_of(ledoit_wolf(vectors))

        return Collect("descriptions of parts", lambda b: seen.append(self.seen(b.images)[2]), finish, learnt=True)

    def usual_terms(self) -> Collect:
        """Mean and deviation of each term of the score, on images that were held back."""
        moments = Moments()

        def finish() -> None:
            mean, deviation = moments.result()  # (K + 3,)
            maxima, distances = deviation[:2].clamp_min(FLOORS[0]), deviation[2:].clamp_min(FLOORS[1])
            self.usual.copy_(torch.stack([mean, torch.cat([maxima, distances])], 1))

        return Collect("terms", lambda b: moments.add(self.terms(*self.seen(b.images))), finish, held_back=True)

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """EfficientAD's map (B, H / 4, W / 4), the finder's (B, h, w), and mean descriptions (B, 1 + K, d)."""
        a, d = self.appearance, self.appearance.descriptor
        normalised = a.normalised(images)
        studied = a.student(normalised)  # (B, 2 d, h', w')
        anomaly = a.together(a.apart(normalised, studied))  # (B, h', w')
        composition = (STEEP * self.kind_logits(images)).softmax(1)  # (B, K, h, w)
        shares = F.avg_pool2d(composition, 4 // self.scale)[:, :, CUT:-CUT, CUT:-CUT]  # (B, K, h', w')
        shares = torch.cat([torch.ones_like(shares[:, :1]), shares], 1).flatten(2)  # (B, 1 + K, h' w')
        described = shares @ studied[:, :d].flatten(2).transpose(1, 2)  # (B, 1 + K, d)
        described = described / shares.sum(2, keepdim=True).clamp_min(1e-6)
        return F.pad(anomaly, [CUT] * 4), self.repaired(composition)[1].sigmoid(), described

    def terms(self, appearance: Tensor, composition: Tensor, described: Tensor) -> Tensor:
        """What the score is made of (B, K + 3): both maxima, the distances of the descriptions."""
        apart = (described - self.means).transpose(0, 1) @ self.whitenings.transpose(1, 2)  # (1 + K, B, d)
        distances = torch.linalg.vector_norm(apart, dim=2).T  # (B, 1 + K)
        return torch.cat([appearance.amax((1, 2))[:, None], composition.amax((1, 2))[:, None], distances], 1)

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H / 4, W / 4): EfficientAD's and the finder's, each in deviations of its maximum on OK images.

        `image` (B,): both maxima and the distance of the image's description so, and the mean of that of the parts'.
        """
        appearance, composition, described = self.seen(images)
        mean, deviation = self.usual.unbind(1)
        odd = (self.terms(appearance, composition, described) - mean) / deviation  # (B, K + 3)
        anomaly = (appearance - mean[0]) / deviation[0]
        found = F.max_pool2d(composition[:, None], 4 // self.scale)[:, 0]  # (B, H / 4, W / 4)
        return Scores(odd[:, :3].sum(1) + odd[:, 3:].mean(1), anomaly + (found - mean[1]) / deviation[1])
