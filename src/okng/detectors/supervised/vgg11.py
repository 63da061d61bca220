"""VGG-11 as a classifier of OK and NG."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.checks import at_least, check_input, positive
from okng.detectors.base import Batch, Detector, Phase, Scores, Train, Update
from okng.errors import OkngError
from okng.nn.features.backbones import Backbone

LAYERS = (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M")  # multiples of the width; M halves the sides
STRIDE = 32  # of the last features
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class VGG11(Detector):
    """A classifier taught with labelled OK and NG images: the supervised baseline, which knows only the NG it met.

    Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015; as a
    detector under class imbalance, the first experiment of the OCGAN slides of Sogang University's Vision and Display
    System Lab. The loss is not weighted: with few images of one kind the classifier calls them by the other's name,
    which is what the experiment shows. The order of the scores suffers less than their signs, so the threshold that is
    calibrated on held-out OK images mends part of it.

    `image_size` (h, w) and `channels` (1 or 3) of the input; sides below 32 get a black frame. `weights`: "none"
    (random), "imagenet", or a file of weights in torchvision's names; what is not random is tuned on. `width`: channels
    of the first layer, 64 in the paper. `epochs`, `batch_size`, `learning_rate`, `momentum`, `weight_decay`: of
    stochastic gradient descent. For thousands of images of 28 to 32 px on a CPU: `width=32, epochs=5, batch_size=64,
    learning_rate=0.02`.

    Deliberately otherwise: batch normalisation, and a mean over the places with one linear layer instead of three, as
    is common at 32 px, where the images of the experiment were; from random weights eleven plain layers hardly learn.
    The learning rate stays as it is, the paper divides it by ten when the accuracy on validation images stands still;
    no dropout, and no augmentation, since a mirrored part can be NG. The slides name no settings at all.
    """

    fixed_size = True
    needs_ng = True

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        weights: str = "none",
        width: int = 64,
        epochs: int = 74,
        batch_size: int = 256,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ):
        super().__init__()
        check_input(image_size, channels, smallest=8)
        at_least(1, width=width, epochs=epochs, batch_size=batch_size)
        at_least(0, weight_decay=weight_decay)
        positive(learning_rate=learning_rate)
        if weights != "none" and width != 64:
            raise OkngError(f"vgg11: trained weights are of width 64, not {width}; leave out width, or weights")
        if not 0 <= momentum < 1:
            raise OkngError(f"vgg11: momentum is 0 or more and below 1, such as 0.9, not {momentum}")
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.momentum, self.weight_decay = momentum, weight_decay
        layers: list[nn.Module] = []
        inner = 3
        for layer in LAYERS:
            if isinstance(layer, str):
                layers += [nn.MaxPool2d(2)]
            else:
                layers += [nn.Conv2d(inner, layer * width, 3, padding=1), nn.BatchNorm2d(layer * width), nn.ReLU()]
                inner = layer * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inner, 2)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if weights != "none":
            self.features.load_state_dict(_trained(list(self.features.state_dict()), weights))

    def phases(self) -> Iterator[Phase]:
        """Learn to tell OK from NG."""
        optimizer = torch.optim.SGD(
            self.parameters(), self.learning_rate, self.momentum, weight_decay=self.weight_decay
        )
        yield Train("classifier", [Update(self.loss, optimizer)], self.epochs, [self], self.batch_size)

    def loss(self, batch: Batch) -> Tensor:
        """The cross-entropy, every image counting the same."""
        return F.cross_entropy(self.logits(batch.images), batch.labels)

    def logits(self, images: Tensor) -> Tensor:
        """Of OK and NG (B, 2)."""
        (h, w), rgb = images.shape[-2:], images.expand(-1, 3, -1, -1)  # (B, 3, h, w)
        top, left = max(0, STRIDE - h), max(0, STRIDE - w)
        framed = F.pad(rgb, (left // 2, left - left // 2, top // 2, top - top // 2))  # (B, 3, h, w), both 32 or more
        features = self.features((framed - self.mean) / self.std)  # (B, 8 width, h / 32, w / 32)
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits

    def forward(self, images: Tensor) -> Scores:
        """`image` (B,) the logarithm of P(NG) / P(OK); no map."""
        logits = self.logits(images)
        return Scores(logits[:, 1] - logits[:, 0])


def _trained(names: list[str], weights: str) -> dict[str, Tensor]:
    """The tensors of timm's VGG-11 with batch normalisation under our `names`, which are in the same order."""
    try:
        state = Backbone("vgg11_bn", (STRIDE,), weights).net.state_dict()
    except OkngError as error:
        if weights != "imagenet":
            raise
        raise OkngError(
            "vgg11: the ImageNet weights can't be downloaded; give weights=FILE that you copied here, or weights=none"
        ) from error
    return dict(zip(names, state.values(), strict=True))
