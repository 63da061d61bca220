"""What the classical methods are tested with: vectors of known laws, and detectors that learn them as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from okng.detectors.catalogue import create
from okng.detectors.classical.vectors import VectorDetector


def drawn(count: int, seed: int = 0, values: int = 6) -> Tensor:
    """Vectors (count, values) that vary unlike and are skewed to either side."""
    normal = torch.randn(count, values, generator=torch.Generator().manual_seed(seed))
    bent = normal + 0.5 * normal.square() * torch.linspace(-1, 1, values).sign()
    return bent * torch.linspace(0.3, 2, values)


def learnt(name: str, vectors: Tensor, **arguments: Any) -> VectorDetector:
    """A detector that has learnt `vectors` as they are."""
    torch.manual_seed(0)
    detector = create(name, **arguments)
    assert isinstance(detector, VectorDetector)
    detector.learn(vectors)
    return detector


def scored(detector: VectorDetector, vectors: Tensor) -> Tensor:
    """Scores (B,) float64 of `vectors`, by what `detector` keeps in float32, reckoned in float64."""
    found: Tensor = detector.double().score(vectors.double())
    detector.float()
    return found
