"""Pictures with an upright side, for methods that learn how pictures were turned and shifted."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from okng.detectors.base import Detector
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 16
Fitted = TypeVar("Fitted", bound=Detector)


def upright(count: int, seed: int, turned: bool = False) -> Tensor:
    """(count, 1, SIDE, SIDE) in [0, 1]: an F before a slope, a little different each time; `turned` are other things.

    Those have as much light, but their bars lie elsewhere: a mirrored F that is upside down, before the same slope.
    """
    rng = np.random.default_rng(seed)
    made = np.zeros((count, SIDE, SIDE))
    for picture in made:
        top, left = rng.integers(2, 5), rng.integers(3, 6)
        letter = np.zeros((9, 7))
        letter[:, :2], letter[:2], letter[4:6, :5] = 1, 1, 1
        if turned:
            letter = letter[::-1, ::-1]
        picture[top : top + 9, left : left + 7] = 0.55 * letter
        picture += np.linspace(0.1, 0.3, SIDE)[:, None] + rng.normal(0, 0.03, picture.shape)
    return torch.from_numpy(np.round(made.clip(0, 1) * 255) / 255)[:, None].float()


def learn(detector: Fitted, images: Tensor, seed: int = 0) -> Fitted:
    """`detector`, fitted to grey `images` (N, 1, H, W) in [0, 1]."""
    pixels = [np.asarray(image[0] * 255).round().astype(np.uint8) for image in images]
    data = TrainingImages(pixels, Preprocess("L", tuple(images.shape[2:]), detector.multiple))
    run_phases(detector, data, seed=seed, device="cpu")
    return detector
