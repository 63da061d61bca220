"""The pictures that are kept beside a record: a thumbnail, how odd each place is, and by choice the image itself."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.result import Inspection, upsample

SIDE, CELLS = 160, 96  # of the longer side: pixels of a thumbnail, cells of a map
KEEP = ("all", "odd", "none")
BORDER = 2  # times the false-alarm rate: an image with a p-value up to that is borderline


def thumbnail(pixels: np.ndarray, size: tuple[int, int], grey: bool = False) -> bytes:
    """A JPEG of a few kilobytes of what the detector saw, `pixels` (h, w, C), in the proportions of `size` (h, w).

    `grey`: all channels are the same, so one is enough.
    """
    scale = min(1.0, SIDE / max(size))
    image = Image.fromarray(pixels[:, :, 0] if grey or pixels.shape[2] == 1 else pixels)
    small = image.resize((max(1, round(size[1] * scale)), max(1, round(size[0] * scale))), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()


def heat(inspection: Inspection, shown: tuple[float, float] | None) -> bytes | None:
    """The map as a small grey PNG, black where heat begins to show and white where it is full; None without a map.

    `shown`: both scores, see `overlay.heat_range`; None where the model says of no place how odd it is.
    """
    if inspection.map is None or shown is None:
        return None
    low, high = shown
    h, w = inspection.map.shape
    scale = min(1.0, CELLS / max(h, w))
    enlarged = upsample(inspection.map, (max(1, round(h * scale)), max(1, round(w * scale))))
    levels = np.clip((enlarged - low) / max(high - low, 1e-30), 0, 1)  # (h, w) in [0, 1]
    content = io.BytesIO()
    Image.fromarray((levels * 255).round().astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def kept(keep: str, inspection: Inspection, calibration: Calibration) -> bool:
    """Whether the image itself is kept: "all", "odd" for NG and borderline ones, or "none"."""
    border = BORDER * max(calibration.false_alarm_rate, calibration.smallest_rate)
    return keep == "all" or (keep == "odd" and (inspection.is_ng or inspection.p_value <= border))
