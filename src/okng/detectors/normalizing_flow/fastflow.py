"""FastFlow."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive, typed
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.features.patches import on_finest_grid
from okng.nn.flows.convolutional_flow import PositionAffine, subnet
from okng.nn.flows.coupling import Flow, Permutation, Sequence, all_in_one, surprise


class FastFlow(Detector):
    """Flows of small convolutions learn how probable each place of a feature map is on OK images.

    Yu, Zheng, Wang, Li, Wu, Zhao, Wu, "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing
    Flows", arXiv 2111.07677, 2021.

    `image_size` (h, w) of the input. `backbone`, `strides`, `weights`: the frozen network and where its features are
    taken, each stride with a flow of its own (the paper's convolutional ones: resnet18 and wide_resnet50_2, at 4, 8 and
    16). `flow_steps`: couplings of each flow. `kernels`: the sides of their convolutions, in turn (the paper: 3 and 1,
    for resnet18 3 alone). `ratio`: channels between the two convolutions of a coupling, as a share of those it sees.
    `clamp`: no coupling scales by more than e to that power. `epochs`, `batch_size`, `learning_rate`,
    `weight_decay`: of Adam.

    Of each stride all values of an image are first brought to mean 0 and variance 1 and then scaled and shifted, each
    by numbers of its own: the LayerNorm that the paper does not mention and that public implementations need.

    Deliberately otherwise: that scale is part of the flow, its logarithm counts in the likelihood. Where it does not,
    the loss falls without end as the scale goes to 0. The map is the negative logarithm of the paper's probability,
    which has the same order and tells very odd places apart; it is on the grid of the finest stride.
    """

    fixed_size = True
    pretrained = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        backbone: str = "efficientnet_lite0",
        strides: tuple[int, ...] = (4, 8, 16),
        weights: str = "imagenet",
        flow_steps: int = 8,
        kernels: tuple[int, ...] = (3, 1),
        ratio: float = 1.0,
        clamp: float = 2.0,
        epochs: int = 500,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-5,
    ):
        super().__init__()
        check_input(image_size, channels=3)
        at_least(1, flow_steps=flow_steps, epochs=epochs, batch_size=batch_size)
        at_least(0, weight_decay=weight_decay)
        positive(ratio=ratio, clamp=clamp, learning_rate=learning_rate)
        if not kernels or any(side < 1 or side % 2 == 0 for side in kernels):
            raise OkngError(f"kernels are odd sides such as 3 and 1, not {typed(kernels)}")
        self.backbone = freeze(Backbone(backbone, strides, weights))
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

        def step(channels: int, number: int) -> Flow:
            side = kernels[number % len(kernels)]
            return all_in_one(channels, lambda seen, given: subnet(seen, given, ratio, side), clamp, Permutation)

        self.flows = nn.ModuleList()
        for channels, stride in zip(self.backbone.channels, self.backbone.strides, strict=True):
            h, w = (-(-pixels // stride) for pixels in image_size)
            steps = [step(channels, number) for number in range(flow_steps)]
            self.flows.append(Sequence(PositionAffine(channels, h, w), *steps))

    @property
    def multiple(self) -> int:
        """The coarsest stride, so that every grid divides the input."""
        return max(self.backbone.strides)

    def phases(self) -> Iterator[Phase]:
        """Raise the likelihood of OK images' features, which are computed once per image."""
        optimizer = torch.optim.Adam(self.flows.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        yield Train(
            "flows",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=[self.flows],
            batch_size=self.batch_size,
            prepare=self.normalised,
        )

    def normalised(self, images: Tensor) -> list[Tensor]:
        """Features (B, C_s, h_s, w_s) of mean 0 and variance 1 over all values of an image."""
        normalised = []
        for features in self.backbone(images):  # written out, as a graph takes no `layer_norm` of sizes it has to ask
            centred = features - features.mean((1, 2, 3), keepdim=True)
            normalised.append(centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt())
        return normalised

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """-log p of the features of each stride in nats, the mean over images; not divided by their number."""
        pairs = zip(self.backbone.strides, self.flows, batch.prepared, strict=True)
        return {f"stride {stride}": surprise(*flow(features)).mean() for stride, flow, features in pairs}

    def forward(self, images: Tensor) -> Scores:
        """`map` (B, h, w), 0 and up, on the grid of the finest stride; `image` (B,) its maximum."""
        probabilities = []
        for flow, features in zip(self.flows, self.normalised(images), strict=True):
            z, _ = flow(features)  # (B, C_s, h_s, w_s)
            probabilities.append((-0.5 * z.square().mean(1, keepdim=True)).exp())  # (B, 1, h_s, w_s) in (0, 1]
        anomaly = -on_finest_grid(probabilities).mean(1).clamp_min(1e-30).log()  # (B, h, w)
        return Scores(anomaly.amax((1, 2)), anomaly)
