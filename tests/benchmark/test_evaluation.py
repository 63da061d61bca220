from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from okng.benchmark import evaluation
from okng.datasets import NG, OK, Sample
from okng.inspection.result import Inspection


def figures_of(count: int, folder: Path) -> tuple[float, float, str]:
    rng = np.random.default_rng(0)
    pixels = evaluation._Pixels()
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 3:6] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for i in range(count):
        heat = rng.random((8, 8)).astype(np.float32)
        if i % 2:
            heat += mask / 510
        sample = Sample(mask, NG if i % 2 else OK, mask=folder / "mask.png" if i % 2 else None)
        pixels.add(sample, Inspection(i, None, 1.0, 1.0, "", (8, 8), heat, (), {}))
    return pixels.compute()


def test_many_pixels_are_counted_and_how_exactly_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *exact, note = figures_of(6, tmp_path)
    assert note == ""
    monkeypatch.setattr(evaluation, "EXACT_PIXELS", 4 * 64)
    *counted, note = figures_of(6, tmp_path)
    assert counted == pytest.approx(exact, abs=1e-3)
    assert note.startswith("of 384 pixels, counted in bins: exact to ") and 0 < float(note.split()[-1]) < 0.1
