"""Whether a network's features end in a ReLU, which a network that copies them has to know."""

from __future__ import annotations

import torch

from okng.nn.features.backbones import Backbone


def is_rectified(backbone: Backbone) -> bool:
    """Whether features of `backbone`, in eval mode, are never below 0, as behind a ReLU: seen by running it once."""
    side = 2 * max(backbone.strides)
    noise = torch.sin(1e4 * torch.arange(3.0 * side * side)).square()  # draws nothing, and is the same everywhere
    with torch.no_grad():
        return all(bool((features >= 0).all()) for features in backbone(noise.view(1, 3, side, side)))
