"""Grad-CAM: how much each place of a feature map raises a score."""

from __future__ import annotations

import torch
from torch import Tensor


def grad_cam(score: Tensor, features: Tensor, create_graph: bool = False) -> Tensor:
    """The signed map (B, h, w) of `features` (B, C, h, w) for `score` (B,), which was computed from them.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017:
    each channel is weighted by the mean of the score's gradient over all places. The paper shows the positive part,
    `.relu()` of what is returned. The score of an image must not depend on the other images of the batch. With
    `create_graph` the map can be part of a loss: its gradient flows through the weights too.
    """
    (gradient,) = torch.autograd.grad(score.sum(), features, create_graph=create_graph, retain_graph=True)
    weights = gradient.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    return (weights * features).sum(1)  # (B, h, w)
