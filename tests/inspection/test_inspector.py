"""How many images the engine is handed at once."""

from __future__ import annotations

import numpy as np
import pytest

from okng.inspection.calibration import Calibration
from okng.inspection.images import Preprocess
from okng.inspection.inspector import Inspector


class Counting:
    """An engine that notes the size of each batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        self.batches.append(len(pixels))
        return np.zeros(len(pixels)), None


@pytest.mark.parametrize(
    ("size", "asked", "batches"),
    [
        ((28, 28), None, [64, 64, 2]),
        (128, None, [32] * 4 + [2]),
        ((600, 500), None, [8] * 16 + [2]),
        (28, 1, [1] * 130),
    ],
)
def test_small_inputs_go_in_larger_batches(size: int | tuple[int, int], asked: int | None, batches: list[int]) -> None:
    engine = Counting()
    inspector = Inspector(engine, Preprocess("L", size), Calibration.fit(np.ones(9), None, "split", 0.5), {})  # type: ignore[arg-type]
    images = np.zeros((130, 8, 8), np.uint8)
    assert [inspection.index for inspection in inspector.inspect(images, asked)] == list(range(130))
    assert engine.batches == batches
