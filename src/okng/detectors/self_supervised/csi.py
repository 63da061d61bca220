"""CSI: contrasting shifted instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Collect, Detector, Phase, Scores, Train, Update
from okng.nn.images.augmentation import DRAWN, Augmentation, view
from okng.nn.images.geometric import Transformations
from okng.nn.learning.contrastive import nt_xent
from okng.nn.learning.schedules import cosine
from okng.nn.networks.residual import ResNet

TEMPERATURE, PROJECTED = 0.5, 128  # of the loss; numbers that it compares
MOMENTUM, WEIGHT_DECAY, TRUST = 0.9, 1e-6, 1e-3
WARM_UP, START = 10, 0.1  # epochs, a tenth of all at most, in which the rate rises from that share of it
MIRRORED = 0.5
LEARNING, JUDGING = Augmentation(crop=(0.08, 1), mirrored=0), Augmentation(crop=(0.54, 0.54), mirrored=0)


class CSI(Detector):
    """Contrastive learning in which turned copies of an image are other instances; odd is unlike all OK images.

    Tack, Mo, Jeong, Shin, "CSI: Novelty Detection via Contrastive Learning on Distributionally Shifted Instances",
    NeurIPS 2020. The shifts are the four quarter turns: of an image they are negatives of each other, and a head learns
    to name them. The score is of two parts for each turn: the largest cosine to an OK image turned alike, times the
    length of the projected features; and the head's logit of the right turn. Each is weighed by its mean over OK
    images, and all features are means over several views. There is no map.

    `image_size` (h, w) and `channels` (1 or 3) of the input. `blocks` of the network's groups and its `width`: 2, 2, 2,
    2 and 64 are ResNet-18. `views`: of an image and each turn of it that a score averages over. `epochs`, `batch_size`:
    images, of each of which a batch has eight views, two of each turn. `learning_rate`: of LARS (momentum 0.9), rising
    over 10 epochs and falling as half a cosine.

    Deliberately otherwise: logits are weighed by the mean of their sizes, without signs. Of OK images that look alike
    in all turns they lie around 0; divided by their mean, which may be below 0, they called OK images odd. Where all
    are above 0 it is the same number. A view is cropped before its colours are changed, and these in a fixed order,
    brightness first, as torchvision changes them; the authors' code does it by hue, saturation and value, turns the hue
    by 255/360 of what it asks for, and takes contrast about each channel's own mean. A crop that would leave the image
    is cut at its border instead of being drawn again. The warm-up is a tenth of a training of less than 100 epochs. The
    views of a score are drawn once for all images. Quarter turns of an oblong image are resized to its shape.
    """

    fixed_size = True
    mirror: Tensor
    drawn: Tensor
    memory: Tensor
    norms: Tensor
    logits: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        views: int = 10,
        epochs: int = 1000,
        batch_size: int = 128,
        learning_rate: float = 1.0,
    ):
        super().__init__()
        check_input(image_size, channels)
        at_least(1, views=views, epochs=epochs, batch_size=batch_size)
        positive(learning_rate=learning_rate)
        self.views, self.epochs, self.batch_size, self.learning_rate = views, epochs, batch_size, learning_rate
        self.shifts = Transformations(image_size)
        turns = len(self.shifts)  # K
        self.network = ResNet(channels, blocks, width)
        features = self.network.features
        self.projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, PROJECTED))
        self.head = nn.Linear(features, turns)
        self.register_buffer("mirror", torch.zeros(views))  # whether a view that scores is mirrored, 0 or 1
        self.register_buffer("drawn", torch.zeros(views, turns, len(DRAWN)))  # what else is drawn of it
        self.register_buffer("memory", torch.zeros(turns, 0, PROJECTED))  # (K, N, D) of length 1, of OK images
        self.register_buffer("norms", torch.ones(turns))  # (K,), the mean length of what is projected
        self.register_buffer("logits", torch.ones(turns))  # (K,), the mean size of the right turn's logit

    def phases(self) -> Iterator[Phase]:
        """Contrast and name turned images; then draw the views that score, and what OK images are in them."""
        trains = [self.network, self.projection, self.head]
        parameters = [parameter for module in trains for parameter in module.parameters()]
        optimizer = LARS(parameters, self.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY)
        schedule = partial(cosine, warm_up=min(0.1, WARM_UP / self.epochs), start=START)
        update = Update(self.loss, optimizer, schedule=schedule)
        yield Train("contrasting", [update], self.epochs, trains, self.batch_size, augment=self.augment)
        drawn = [self.draw(JUDGING) for _ in range(self.views)]
        self.mirror.copy_(torch.stack([mirror for mirror, _ in drawn]))
        self.drawn.copy_(torch.stack([numbers for _, numbers in drawn]))
        seen: list[tuple[Tensor, Tensor]] = []

        def finish() -> None:
            projected, logits = (torch.cat(parts) for parts in zip(*seen, strict=True))  # (N, K, D), (N, K)
            self.memory = F.normalize(projected, dim=2).transpose(0, 1).contiguous().to(self.memory)
            self.norms = torch.linalg.vector_norm(projected, dim=2).mean(0).to(self.norms)
            self.logits = logits.abs().mean(0).to(self.logits)

        yield Collect("OK images", lambda batch: seen.append(self.ensemble(batch.images)), finish)

    def draw(self, augmentation: Augmentation, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What a view is drawn by: whether it is mirrored, before the turns, (), and the rest for each turn, (K, _)."""
        mirror = (torch.rand((), generator=generator) < MIRRORED).float()
        return mirror, torch.stack([augmentation.draw(generator) for _ in range(len(self.shifts))])

    def augment(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        """What the two views of an image are drawn by, mirroring (2,) and the rest (2, K, _)."""
        pairs = [self.draw(LEARNING, generator) for _ in range(2)]
        return [torch.stack(parts) for parts in zip(*pairs, strict=True)]

    def shifted(self, images: Tensor, mirror: Tensor, drawn: Tensor) -> Tensor:
        """A view of all turns of `images` (B, C, H, W) by `mirror` (B,), `drawn` (B, K, _): (B*K, C, H, W).

        Mirrored first: a mirrored quarter turn is the three-quarter turn of the mirrored image.
        """
        mirror = mirror[:, None, None, None]
        turned = self.shifts(images * (1 - mirror) + images.flip(3) * mirror)  # (B, K, C, H, W)
        return view(turned.flatten(0, 1), drawn.flatten(0, 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """NT-Xent of the views of all turned images, each turn an instance of its own; cross-entropy of the turn."""
        mirror, drawn = batch.views  # (B, 2), (B, 2, K, _)
        pair = [self.shifted(batch.images, mirror[:, i], drawn[:, i]) for i in range(2)]
        features = self.network(torch.cat(pair) * 2 - 1)  # (2*B*K, F)
        which = torch.arange(len(self.shifts), device=features.device).repeat(2 * len(batch.images))
        first, second = self.projection(features).chunk(2)  # (B*K, D) each
        return {
            "contrast": nt_xent(first, second, TEMPERATURE),
            "turn": F.cross_entropy(self.head(features), which),
        }

    def ensemble(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the views: what is projected of each turn, (B, K, D), and the logit of the right turn, (B, K)."""
        count, turns = len(self.mirror), len(self.shifts)
        many = images[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)  # (B*V, C, H, W)
        repeat = torch.zeros_like(images[:, :1, 0, 0])  # (B, 1), so that an exported graph takes any batch
        mirror = (repeat + self.mirror).flatten()  # (B*V,)
        drawn = (repeat[:, :, None, None] + self.drawn).flatten(0, 1)  # (B*V, K, _)
        features = self.network(self.shifted(many, mirror, drawn) * 2 - 1)  # (B*V*K, F)
        projected = self.projection(features).view(-1, count, turns, PROJECTED).mean(1)
        logits = self.head(features).view(-1, count, turns, turns).mean(1)  # (B, K, K)
        return projected, logits.diagonal(dim1=1, dim2=2)

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,): minus the mean over turns of both parts, each divided by its mean over OK images."""
        if not torch.onnx.is_in_onnx_export() and len(images) > 1:  # image by image, which bounds the space
            return Scores(torch.cat([self(image).image for image in images.split(1)]))
        projected, logits = self.ensemble(images)  # (B, K, D), (B, K)
        # Turn by turn: of a product of all turns at once OpenVINO 2026.4 mistakes the batch for the turns.
        each = [(mine @ learnt.T).amax(1) for mine, learnt in zip(projected.unbind(1), self.memory, strict=True)]
        alike = torch.stack(each, 1)  # (B, K): the largest cosine times the length
        return Scores(-(alike / self.norms + logits / self.logits).mean(1))


class LARS(torch.optim.SGD):
    """Stochastic gradient descent in which each tensor's gradient is as long as a share of the tensor itself.

    You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017, with the share 0.001. A gradient or
    tensor of length 0 leaves the gradient as it is. The length is that of gradient and weight decay together, where the
    paper adds both lengths: at CSI's decay of 1e-6 the same to a thousandth.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, by gradients that weight decay is part of."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                ratio = TRUST * torch.linalg.vector_norm(parameter) / torch.linalg.vector_norm(gradient)
                parameter.grad = gradient * torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0)
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0  # it is in the gradients
        loss = super().step(closure)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        return loss
