"""DifferNet."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update, freeze
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone
from okng.nn.flows.coupling import AffineCoupling, Permutation, Sequence, surprise
from okng.nn.images.blur import gaussian_blur

TOGETHER = 8  # turned images that pass through the network at once when an image is scored


class DifferNet(Detector):
    """A flow learns how probable an image's features, averaged over places, are at several scales and all angles.

    Rudolph, Wandt, Rosenhahn, "Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing Flows", WACV
    2021. It learns from as few as 16 images.

    `backbone`, `stride`, `weights`: the frozen network and where its features are taken (the paper: AlexNet's last
    convolution, which is no choice here). `scales`: how often the image is looked at, each time at half the side.
    `blocks`: of the flow, each a permutation and two couplings. `hidden`: width of the couplings' networks, of four
    layers. `clamp`: no coupling scales by more than e to that power. `training_rotations`: by random angles, of each
    image in each epoch. `test_rotations`: of an image that is scored. `epochs`, `batch_size`, `learning_rate`: of Adam.

    The map is a picture rather than a measure: how much each pixel's colours, one by one, change the loss, by their
    gradients, which are turned back, smoothed, and averaged without their signs.

    Deliberately otherwise: the angles at which an image is scored are spread evenly over the circle, in the paper they
    are random; so a score is the same every time. They begin half a step from upright: in an upright image no pixel is
    lost and no corner black, which is odd to a flow that learnt turned ones. As in the authors' code, what a rotation
    brings in from outside is black, and the volume belongs to the loss and not to the score.
    """

    pretrained = True
    exportable = False  # the map takes gradients

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        stride: int = 32,
        weights: str = "imagenet",
        scales: int = 3,
        blocks: int = 8,
        hidden: int = 2048,
        clamp: float = 3.0,
        training_rotations: int = 4,
        test_rotations: int = 64,
        epochs: int = 192,
        batch_size: int = 24,
        learning_rate: float = 2e-4,
    ):
        super().__init__()
        at_least(1, scales=scales, blocks=blocks, hidden=hidden, epochs=epochs, batch_size=batch_size)
        at_least(1, training_rotations=training_rotations, test_rotations=test_rotations)
        positive(clamp=clamp, learning_rate=learning_rate)
        self.backbone = freeze(Backbone(backbone, (stride,), weights))
        self.scales, self.training_rotations, self.test_rotations = scales, training_rotations, test_rotations
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        dimensions = scales * self.backbone.channels[0]

        def coupling(first: bool) -> AffineCoupling:
            active = dimensions - dimensions // 2 if first else dimensions // 2
            return AffineCoupling(dimensions, subnet(dimensions - active, 2 * active, hidden), clamp, "atan", first)

        steps = [(Permutation(dimensions), coupling(first=True), coupling(first=False)) for _ in range(blocks)]
        self.flow = Sequence(*[flow for step in steps for flow in step])

    @property
    def multiple(self) -> int:
        """The stride, so that the grid divides the input."""
        return self.backbone.strides[0]

    def phases(self) -> Iterator[Phase]:
        """Raise the likelihood of OK images, turned anew in each epoch."""
        optimizer = torch.optim.Adam(
            self.flow.parameters(), self.learning_rate, betas=(0.8, 0.8), eps=1e-4, weight_decay=1e-5
        )
        yield Train(
            "flow",
            [Update(self.loss, optimizer)],
            self.epochs,
            trains=[self.flow],
            batch_size=self.batch_size,
            augment=self.turn,
        )

    def turn(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """`image` (C, H, W) by random angles: (training_rotations, C, H, W)."""
        angles = 2 * math.pi * torch.rand(self.training_rotations, generator=generator)
        return rotated(image.expand(len(angles), -1, -1, -1), angles)

    def pooled(self, images: Tensor) -> Tensor:
        """Features of `images` (N, 3, H, W), averaged over places, scale after scale: (N, D)."""
        found = []
        for halvings in range(self.scales):
            (features,) = self.backbone(images[:, :, :: 2**halvings, :: 2**halvings])  # (N, C, h, w)
            found.append(features.mean((2, 3)))
        return torch.cat(found, 1)

    def loss(self, batch: Batch) -> Tensor:
        """-log p of the turned images' features, the mean over images, in nats per dimension."""
        if max(batch.images.shape[2:]) < self.multiple * 2 ** (self.scales - 1):
            raise OkngError(
                f"scales: {self.scales} are too many for images of {max(batch.images.shape[2:])} px, of which the last "
                f"sees less than a stride of {self.multiple}; take fewer, or larger images (size, --size)"
            )
        with torch.no_grad():
            features = self.pooled(batch.views[0].flatten(0, 1))  # (B * training_rotations, D)
        return surprise(*self.flow(features)).mean() / features.shape[1]

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,), the mean of z² over dimensions and angles, about 1 for OK images; `map` (B, H, W)."""
        count = len(images)
        image, gradients = images.new_zeros(count), torch.zeros_like(images[:, 0])
        angles = 2 * math.pi * (torch.arange(self.test_rotations, device=images.device) + 0.5) / self.test_rotations
        for some in angles.split(max(1, TOGETHER // count)):
            with torch.enable_grad():
                upright = images.detach().repeat(len(some), 1, 1, 1).requires_grad_()  # (some * B, 3, H, W)
                turned = rotated(upright, some.repeat_interleave(count))
                z, volume = self.flow(self.pooled(turned))  # (some * B, D)
                loss = surprise(z, volume).sum() / z.shape[1]
                (gradient,) = torch.autograd.grad(loss, upright)  # (some * B, 3, H, W), not turned
            smooth = gaussian_blur(gradient.flatten(0, 1), 3.0).view_as(gradient).abs().mean(1)  # (some * B, H, W)
            image += z.detach().square().mean(1).view(-1, count).sum(0)
            gradients += smooth.view(-1, *gradients.shape).sum(0)
        return Scores(image / self.test_rotations, (gradients / self.test_rotations).square())


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """`images` (N, C, H, W) turned about their middles by `angles` (N,), in radians; black comes in from outside.

    Each pixel is the nearest one's, not a mixture: that would smooth images at all angles but the right ones.
    """
    h, w = images.shape[2:]
    cos, sin, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = [torch.stack([cos, -sin * h / w, none], 1), torch.stack([sin * w / h, cos, none], 1)]  # in halves of a side
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)  # (N, H, W, 2)
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)


def subnet(seen: int, given: int, hidden: int) -> nn.Module:
    """Four linear layers with ReLU between."""
    return nn.Sequential(
        nn.Linear(seen, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, given),
    )  # fmt: skip
