"""A block that predicts what it does not see: SSPCAB."""

from __future__ import annotations

from itertools import product

import torch.nn.functional as F
from torch import Tensor, nn

PREDICTION = 0.1  # the weight of the block's own loss


class SSPCAB(nn.Module):
    """Predict each place of a feature map from the four corners around it, then weigh the channels; shapes stay.

    Ristea, Madan, Ionescu, Nasrollahi, Khan, Moeslund, Shah, "Self-Supervised Predictive Convolutional Attentive Block
    for Anomaly Detection", CVPR 2022. A kernel k' × k' looks at each of the four diagonal corners, d places away from
    the one in the middle, which is masked; zeros lie beyond the border. Their sum is rectified, and a squeeze-and-
    excitation gate weighs its channels. A loss of its own, which the network around it adds with the weight 0.1, is the
    mean squared error of what comes out to what goes in.

    `kernel`: k' and `dilation`: d, both 1 in the paper's best; `reduction`: of the channels, in the gate.
    """

    def __init__(self, channels: int, kernel: int = 1, dilation: int = 1, reduction: int = 8):
        super().__init__()
        self.border, self.apart = kernel + dilation, kernel + 2 * dilation + 1
        self.corners = nn.ModuleList(nn.Conv2d(channels, channels, kernel) for _ in range(4))
        hidden = max(1, channels // reduction)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def predicted(self, features: Tensor) -> Tensor:
        """What the corners around each place of `features` (B, C, h, w) say of it, (B, C, h, w), 0 or more."""
        padded = F.pad(features, [self.border] * 4)  # (B, C, h + 2p, w + 2p)
        sides = slice(None, -self.apart), slice(self.apart, None)  # before a place and after it
        seen = [
            corner(padded[:, :, rows, columns])
            for corner, (rows, columns) in zip(self.corners, product(sides, repeat=2), strict=True)
        ]
        return F.relu(seen[0] + seen[1] + seen[2] + seen[3])

    def forward(self, features: Tensor) -> Tensor:
        """`features` (B, C, h, w) as predicted, their channels weighed."""
        predicted = self.predicted(features)
        weights: Tensor = self.gate(predicted.mean((2, 3)))  # (B, C)
        return predicted * weights[:, :, None, None]


def with_block(encoder: nn.Sequential, last: int) -> nn.Sequential:
    """`encoder` with the block before its `last` layers, which make a code of a feature map.

    The channels are those of the last convolution before it.
    """
    before, after = encoder[:-last], encoder[-last:]
    channels = next(layer.out_channels for layer in reversed(before) if isinstance(layer, nn.Conv2d))
    return nn.Sequential(*before, SSPCAB(channels), *after)


def prediction_of(encoder: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    """The loss of the block in `encoder` on `images` (B, C, H, W), weighed, by its name; nothing without a block."""
    place = next((i for i, layer in enumerate(encoder) if isinstance(layer, SSPCAB)), None)
    if place is None:
        return {}
    features = encoder[:place](images)  # (B, C', h, w)
    return {"prediction": PREDICTION * F.mse_loss(encoder[place](features), features)}
