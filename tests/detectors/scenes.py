"""Made-up images for properties that only training shows: small, varied, and no two alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages

SIDE = 16


def rings(count: int, seed: int = 0) -> np.ndarray:
    """OK: a bright ring on black, its place, radii, slant and thickness drawn anew, as those of a written zero.

    uint8 (count, SIDE, SIDE).
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        down, right = y - rng.uniform(6.5, 8.5), x - rng.uniform(6.5, 8.5)
        angle = rng.uniform(-0.6, 0.6)
        along, across = down * np.cos(angle) - right * np.sin(angle), down * np.sin(angle) + right * np.cos(angle)
        distance = np.hypot(along / rng.uniform(4, 6), across / rng.uniform(2.5, 4.5)) - 1
        made.append(np.exp(-((distance / rng.uniform(0.2, 0.35)) ** 2)))
    return (255 * np.stack(made)).astype(np.uint8)


def crosses(count: int, seed: int = 0) -> np.ndarray:
    """NG: two bright bars that cross, as varied. uint8 (count, SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        down, right = y - rng.uniform(6.5, 8.5), x - rng.uniform(6.5, 8.5)
        inside = np.hypot(down, right) < rng.uniform(5, 7)
        first = rng.uniform(0, np.pi)
        width = rng.uniform(0.8, 1.3)
        bars = [np.exp(-(((down * np.cos(a) + right * np.sin(a)) / width) ** 2)) for a in (first, first + np.pi / 2)]
        made.append(inside * np.maximum(*bars))
    return (255 * np.stack(made)).astype(np.uint8)


def source(ok: np.ndarray, ng: np.ndarray | None = None) -> TrainingImages:
    """What a detector learns from."""
    odd = [] if ng is None else list(ng)
    labels = [0] * len(ok) + [1] * len(odd)
    return TrainingImages([*ok, *odd], Preprocess("L", (SIDE, SIDE)), labels=labels)


def tensor(images: np.ndarray) -> Tensor:
    """(count, 1, SIDE, SIDE) in [0, 1]."""
    return torch.from_numpy(images)[:, None] / 255


def discs(count: int, seed: int = 0) -> np.ndarray:
    """OK, coloured and for pretrained networks: a disc on a striped ground, a little different each time.

    uint8 (count, 64, 64, 3).
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    made = []
    for _ in range(count):
        stripes = 110 + 25 * np.sin(x / 3 + rng.uniform(0, 0.5))
        disc = np.hypot(x - 32 + rng.uniform(-1, 1), y - 32 + rng.uniform(-1, 1)) < 18
        image = np.where(disc, 200, stripes)[..., None] * np.array([1.0, 0.9, 0.8])
        made.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return np.stack(made)


def textures(count: int, seed: int = 0) -> np.ndarray:
    """Uint8 (count, 64, 64, 3): stripes of a random phase, with noise."""
    rng = np.random.default_rng(seed)
    waves = 110 + 60 * np.sin(np.arange(64) / 3 + rng.uniform(0, 6, (count, 1)))  # (count, 64)
    noisy = waves[:, None, :, None] + rng.normal(0, 10, (count, 64, 64, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def in_colour(pixels: np.ndarray) -> Tensor:
    """Uint8 (N, H, W, 3) as a detector takes them, (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def boards(count: int, fault: str = "", seed: int = 0) -> np.ndarray:
    """OK: a board with a disc and a square side by side, a bar below the disc, and a free quarter, flipped anyhow.

    `fault`: a part is "missing", the free quarter has a "doubled" one, or two are "swapped". All that is seen of a part
    and around it, wherever it lies, is on OK boards too: only the four quarters together are odd. Places vary by up to
    a pixel. uint8 (count, 64, 64, 3).
    """
    rng = np.random.default_rng(seed)
    colours = np.array([[200, 60, 60], [60, 180, 80], [70, 90, 210]])
    y, x = np.mgrid[:32, :32] - 15.5
    made = []
    for i in range(count):
        placed = [0, 1, 2, None]  # of each quarter the part
        if fault == "missing":
            placed[i % 3] = None
        elif fault == "doubled":
            placed[3] = i % 3
        elif fault == "swapped":
            placed[i % 3], placed[(i + 1) % 3] = placed[(i + 1) % 3], placed[i % 3]
        quarters = np.array(placed, dtype=object).reshape(2, 2)[:: rng.choice([1, -1]), :: rng.choice([1, -1])]
        image = np.full((64, 64, 3), 120.0)
        for row, column in np.ndindex(2, 2):
            down, right = y - rng.uniform(-1, 1), x - rng.uniform(-1, 1)
            part = quarters[row, column]
            if part is not None:
                inside = (
                    np.hypot(down, right) < 6,
                    np.maximum(abs(down), abs(right)) < 5,
                    abs(down) + abs(right) / 3 < 3,
                )
                image[32 * row : 32 * row + 32, 32 * column : 32 * column + 32][inside[part]] = colours[part]
        made.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    return np.stack(made)
