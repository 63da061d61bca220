"""UniNet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.nn.features.backbones import Backbone
from okng.nn.features.rectified import is_rectified
from okng.nn.images.blur import gaussian_blur
from okng.nn.networks.reverse import BOTTLENECK_FROM, Embedding, Stage, halvings_between

ALIKE, CONTRAST = 0.7, 0.3  # weights of the cosines and of the cross-entropy of positions; the margin has 1
LEAST = 3e-5  # the smallest share of the map that the image's score is the mean of


class UniNet(Detector):
    """Reverse distillation from two teachers, one frozen and one that slowly learns the product; either is restored.

    Wei, Jiang, Xu, "UniNet: A Contrastive Learning-guided Unified Framework with Feature Selection for Anomaly
    Detection", CVPR 2025. What is restored from one teacher's features is compared with the other teacher, and has to
    be more like the teacher at its own position than at any other.

    `backbone`, `strides`, `weights`: both teachers and where their features are taken, each stride the one before or
    that times a power of 2 (the paper: wide_resnet50_2 at 4, 8 and 16). `temperature`: of the contrast between
    positions; the authors take 0.1 for some products. `selection`: whether restored features are weighed by where the
    teacher's are strong, while learning; the authors leave it out for MVTec's transistor. `sigma`: of the Gaussian that
    smooths the map for the image's score, in pixels of the input. `epochs`, `batch_size`, `learning_rate`: of AdamW;
    `target_learning_rate`: of the teacher that learns; `training_steps`: after how many batches that ends, in place of
    `epochs`.

    Deliberately otherwise: the last epoch counts, where the authors keep the one that is best on the test set. The
    embedding is Reverse Distillation's, without their second branch of convolutions. The learning teacher's batch
    normalization stays as it was trained; in the authors' code its statistics become those of the product. How much is
    selected is learnt for each channel, as the paper writes it; in the authors' code it stays 1. Convolutions begin as
    PyTorch makes them, where the authors draw all but the transposed ones by He's rule. A short last batch of an epoch
    is left out.
    """

    pretrained = True

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        temperature: float = 2.0,
        selection: bool = True,
        sigma: float = 4.0,
        epochs: int = 100,
        batch_size: int = 8,
        learning_rate: float = 5e-3,
        target_learning_rate: float = 1e-6,
        training_steps: int | None = None,
    ):
        super().__init__()
        at_least(1, epochs=epochs, training_steps=training_steps)
        at_least(2, batch_size=batch_size)  # of one image, the embedding of the smallest is one vector, and no batch
        positive(temperature=temperature, sigma=sigma)
        positive(learning_rate=learning_rate, target_learning_rate=target_learning_rate)
        self.source = freeze(Backbone(backbone, strides, weights))
        self.target = Backbone(backbone, strides, "none").eval()
        self.target.load_state_dict(self.source.state_dict())
        self.temperature, self.selection, self.sigma = temperature, selection, sigma
        self.epochs, self.training_steps, self.batch_size = epochs, training_steps, batch_size
        self.learning_rate, self.target_learning_rate = learning_rate, target_learning_rate
        self.rectified = is_rectified(self.source)
        channels, self.strides = self.source.channels, self.source.strides
        between = [halvings_between(fine, coarse) for fine, coarse in pairwise(self.strides)]
        self.embedding = Embedding(channels, between)
        wide = channels[0] >= BOTTLENECK_FROM
        sizes = zip([2 * channels[-1], *channels[:0:-1]], channels[::-1], [1, *between[::-1]], strict=True)
        depths = [3, 4, *[6] * len(channels)] if wide else [2] * len(channels)
        self.decoder = nn.ModuleList(
            Stage(wide, given, wanted, depth, doublings, "double")
            for (given, wanted, doublings), depth in zip(sizes, depths, strict=False)
        )
        self.chosen = nn.ParameterList(torch.zeros(c) for c in channels)  # how much is selected, see `selected`

    @property
    def multiple(self) -> int:
        """Twice the coarsest stride, that of the embedding, so that every grid divides the input."""
        return 2 * max(self.strides)

    def phases(self) -> Iterator[Phase]:
        """Train embedding, decoder and selection, and slowly one teacher; the other's features are computed once."""
        students = [self.embedding, self.decoder, self.chosen]
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for module in students for p in module.parameters()], "lr": self.learning_rate},
                {"params": self.target.parameters(), "lr": self.target_learning_rate},
            ],
            weight_decay=1e-5,
        )
        yield Train(
            "decoder and target teacher",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=students,
            batch_size=self.batch_size,
            prepare=self.source,
            steps=self.training_steps,
            drop_last=True,
        )

    def pairs(self, source: list[Tensor] | tuple[Tensor, ...], images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What is to be restored and what was, (B, C_s, h_s, w_s) each, for each level and either teacher.

        What was restored from the target teacher's features stands beside the `source` teacher's, and the other way.
        """
        target = self.target(images)
        both = [torch.cat(each) for each in zip(target, source, strict=True)]  # (2 B, C_s, h_s, w_s)
        entering, restored = self.embedding(both), []
        for stage in self.decoder:
            features = stage(entering)  # (2 B, C_s, h_s, w_s)
            entering = features.relu()
            restored.append(entering if self.rectified else features)
        found = []
        for taught, learnt, made in zip(source, target, restored[::-1], strict=True):
            of_target, of_source = made.chunk(2)
            found += [(taught, of_target), (learnt, of_source)]
        return found

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """For each level and teacher: cosines, cross-entropy of positions, and a margin."""
        total: dict[str, Tensor] = {"alike": torch.zeros((), device=batch.images.device)}
        total |= {"contrast": total["alike"], "margin": total["alike"]}
        for i, (wanted, restored) in enumerate(self.pairs(batch.prepared, batch.images)):
            if self.selection:
                restored = selected(wanted, restored, self.chosen[i // 2])
            total["alike"] = total["alike"] + ALIKE * (1 - F.cosine_similarity(wanted, restored)).mean()
            own = own_position(wanted, restored, self.temperature)  # (B, h*w)
            total["contrast"] = total["contrast"] - CONTRAST * own.mean()
            total["margin"] = total["margin"] + (1 - own.exp()).mean()
        return total

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, H, W): 1 - cosine, summed over levels and teachers; `image` (B,) of its highest places.

        The surer the levels are that there is something, the larger the share of the smoothed map that is averaged.
        """
        odd, peaks = images.new_zeros(()), []
        for wanted, restored in self.pairs(self.source(images), images):
            level = 1 - F.cosine_similarity(wanted, restored)[:, None]  # (B, 1, h_s, w_s)
            peaks.append(level.amax((1, 2, 3)))
            odd = odd + F.interpolate(level, images.shape[2:], mode="bilinear", align_corners=True)  # (B, 1, H, W)
        anomaly = odd[:, 0]
        return Scores(mean_of_top(gaussian_blur(anomaly, self.sigma), torch.stack(peaks, 1)), anomaly)


def selected(wanted: Tensor, restored: Tensor, chosen: Tensor) -> Tensor:
    """`restored` features (B, C, h, w), weighed in each channel by where the teacher's, `wanted`, are strong.

    By their softmax over positions, times their mean plus a threshold in (0.5, 1] that is learnt, of `chosen` (C,).
    """
    weights = wanted.flatten(2).softmax(2).view_as(wanted)
    threshold = (chosen.sigmoid() + 0.5).clamp(max=1).view(-1, 1, 1)
    return restored * weights * (threshold + wanted.mean((2, 3), keepdim=True))


def own_position(wanted: Tensor, restored: Tensor, temperature: float) -> Tensor:
    """The logarithm of how much each restored feature is more like the teacher's at its own position: (B, h*w).

    The softmax over all the teacher's positions of the cosines, divided by `temperature`.
    """
    taught, made = (F.normalize(maps.flatten(2), dim=1) for maps in (wanted, restored))  # (B, C, h*w)
    cosines = made.transpose(1, 2) @ taught / temperature  # (B, h*w of the restored, h*w of the teacher)
    return cosines.log_softmax(2).diagonal(dim1=1, dim2=2)


def mean_of_top(maps: Tensor, peaks: Tensor) -> Tensor:
    """The mean of the highest of `maps` (B, H, W), of a hundredth of them times the mean outstanding peak: (B,).

    Of `peaks` (B, L) those stand out whose softmax is at least the mean.
    """
    outstanding = (peaks.softmax(1) >= 1 / peaks.shape[1]).to(peaks)
    share = (0.01 * (peaks * outstanding).sum(1) / outstanding.sum(1).clamp_min(1)).clamp_min(LEAST)  # (B,)
    flat = maps.flatten(1).sort(1, descending=True).values  # (B, H*W)
    places = torch.ones_like(flat[0]).cumsum(0)  # 1, 2, ...
    count = (share * places[-1]).floor().clamp_min(1)[:, None]  # (B, 1)
    top: Tensor = (flat * (places <= count)).sum(1) / count[:, 0]
    return top
