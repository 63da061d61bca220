"""What is kept of an image beside its record."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from stores import inspection

from okng.inspection.overlay import heat_range
from okng.inspection.verdict.calibration import Calibration
from okng.store.pictures import heat, kept, thumbnail

PEAKS = np.linspace(1, 2, 99)
CALIBRATION = Calibration.fit(PEAKS, PEAKS, "split", 0.05)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_thumbnail_has_the_proportions_of_the_image(channels: int, mode: str) -> None:
    pixels = np.zeros((64, 64, channels), np.uint8)
    pixels[:, 32:] = 255  # right half
    small = Image.open(io.BytesIO(thumbnail(pixels, (400, 800))))
    assert (small.size, small.mode) == ((160, 80), mode)
    shown = np.asarray(small.convert("L"))
    assert shown[:, :70].max() < 20 and shown[:, 90:].min() > 235
    assert Image.open(io.BytesIO(thumbnail(pixels, (28, 28)))).size == (28, 28)
    grey = np.repeat(pixels[:, :, :1], 3, 2)
    assert thumbnail(grey, (400, 800), grey=True) == thumbnail(grey[:, :, :1], (400, 800))


def test_heat_is_black_where_it_begins_and_white_where_it_is_full() -> None:
    low, high = heat_range(CALIBRATION)
    odd = np.full((200, 100), low, np.float32)
    odd[:100] = (low + high) / 2
    odd[:50] = high + 1
    levels = np.asarray(Image.open(io.BytesIO(heat(replace(inspection(), map=odd), (low, high)) or b"")))
    assert levels.shape == (96, 48)
    assert levels[5, 5] == 255 and abs(int(levels[36, 5]) - 128) <= 1 and levels[90, 5] == 0
    assert heat(inspection(), (low, high)) is None and heat(replace(inspection(), map=odd), None) is None


def test_which_images_are_kept() -> None:
    fine, border, ng = (inspection(s, p_value=p) for s, p in ((1.0, 0.5), (1.9, 0.1), (3.0, 0.01)))
    for keep, expected in (("all", [True] * 3), ("odd", [False, True, True]), ("none", [False] * 3)):
        assert [kept(keep, one, CALIBRATION) for one in (fine, border, ng)] == expected
