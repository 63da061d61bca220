"""Grad-CAM of a fitted detector: which places of a convolution's output raise an image's score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from okng.detectors.base import Detector
from okng.detectors.engine import TorchEngine, full_float32
from okng.errors import OkngError, nearest_names
from okng.inspection.inspector import Inspector
from okng.nn.networks.grad_cam import grad_cam


def explainer(inspector: Inspector, layer: str | None = None) -> Inspector:
    """The same inspector with Grad-CAM maps (h, w) >= 0 instead of the detector's own, and without regions.

    `layer`: the name of a convolution, transposed or not; by default the last one that was run, that the score depends
    on, and whose output has places but no more of them than the image. A map's range is its own: maps of different
    images don't compare. It is zero where no place raises the score, and that may be everywhere: channels are weighed
    by the score's mean gradient, and where the score asks for less of what they see, no place raises it.
    """
    if not isinstance(inspector.engine, TorchEngine):
        raise OkngError("an exported model has no gradients; give the .okng file it was exported from")
    if inspector.rules.masks:
        raise OkngError(
            "Grad-CAM explains the score of the whole image, and this model's is that of its zones; "
            "take them out first: okng rules MODEL --clear -o whole.okng"
        )
    engine = GradCAMEngine(inspector.engine.detector, layer, str(inspector.engine.device))
    calibration = replace(inspector.calibration, peaks=None, pixel_threshold=None)
    manifest = {name: value for name, value in inspector.manifest.items() if name != "rules"}  # there are no regions
    return Inspector(engine, inspector.preprocess, calibration, manifest)


class GradCAMEngine:
    """Scores uint8 pixels with `detector` and explains the scores; `layer` is known after the first image."""

    def __init__(self, detector: Detector, layer: str | None, device: str = "cpu"):
        self.detector, self.layer, self.device = detector.eval(), layer, torch.device(device)
        self.convolutions = {
            name: module
            for name, module in detector.named_modules()
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        }
        if not self.convolutions:
            raise OkngError(f"{detector.name} has no convolution, so Grad-CAM can't explain it")
        if layer is not None and layer not in self.convolutions:
            raise OkngError(f"{detector.name} has no convolution {layer!r}; {nearest_names(layer, self.convolutions)}")

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Raw scores (B,) and Grad-CAM maps (B, h, w) of uint8 `pixels` (B, H, W, C)."""
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255  # (B, C, H, W)
        # One by one: gradients take memory, and of several images each convolution might be run several times.
        with full_float32(self.device):
            explained = [self.explain(image[None]) for image in images]
        scores, maps = zip(*explained, strict=True)
        return torch.cat(scores).cpu().numpy(), torch.cat(maps).cpu().numpy()

    def write(self, path: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Explanations are no model."""
        raise OkngError("explanations can't be saved as a model")

    def explain(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The score (1,) and the map (1, h, w) of one `image` (1, C, H, W)."""
        outputs: list[tuple[str, Tensor]] = []  # in the order in which the convolutions were run

        def remember(name: str) -> Any:
            return lambda module, given, output: outputs.append((name, output))

        hooks = [module.register_forward_hook(remember(name)) for name, module in self.convolutions.items()]
        try:
            with torch.enable_grad():  # the pixels too: frozen networks pass no gradient on otherwise
                score: Tensor = self.detector(image.requires_grad_()).image  # (1,)
        finally:
            for hook in hooks:
                hook.remove()
        for name, features in reversed(outputs if score.requires_grad else []):
            usable = features.ndim == 4 and len(features) == 1 and 1 < features[0, 0].numel() <= image[0, 0].numel()
            if usable and self.layer in (None, name) and _reaches(score, features):
                self.layer = name
                return score.detach(), grad_cam(score, features).relu().detach()
        named = "a convolution" if self.layer is None else self.layer
        raise OkngError(f"{self.detector.name}'s score has no gradient from {named}, so Grad-CAM can't explain it")


def _reaches(score: Tensor, features: Tensor) -> bool:
    """Whether `score` was computed from `features` in a way that has a gradient."""
    if not features.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(score.sum(), features, retain_graph=True, allow_unused=True)
    return gradient is not None
