"""The pictures on a card: a thumbnail, and its heatmap with the regions and, where there is one, the mask."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from okng.datasets.base import Mask
from okng.datasets.masks import read_mask
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.overlay import MASK, heat_range, outline, overlay
from okng.inspection.reading.images import Source, UnreadableImage
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.regions import regions_above
from okng.inspection.verdict.result import NO_RULES, Inspection
from okng.inspection.verdict.rules import Rules
from okng.report.language import Translate
from okng.report.shortlist import Kept

THUMBNAIL = 480  # pixels of the longer side
SMALL = 128  # up to this long a side, pixels are shown as they are, and JPEG would smear them


def pictures(kept: Kept, inspector: Inspector, t: Translate) -> dict[str, Any]:
    """The original and its heatmap as data URIs; None for what there is not."""
    inspection = kept.inspection
    pixels, reason = kept.pixels, t("card.not_kept")
    if pixels is None and inspection.path is not None:
        try:
            pixels = thumbnail(inspector, inspection.path, inspection.size)
        except UnreadableImage:
            reason = t("card.not_read")
    if pixels is None:
        return {"original": None, "heatmap": None, "small": False, "reason": reason, "mask": False}
    return drawn(pixels, inspection, inspector.calibration, kept.mask, inspector.rules)


def drawn(
    pixels: np.ndarray,
    inspection: Inspection,
    calibration: Calibration,
    outlined: Mask | np.ndarray | None = None,
    rules: Rules = NO_RULES,
) -> dict[str, Any]:
    """A thumbnail, uint8 (h, w, 3), and its heatmap as `calibration` colours it, with the mask `outlined` and zones."""
    image = Image.fromarray(pixels)
    small = max(image.size) <= SMALL
    heatmap, mask = None, None
    if inspection.map is not None and calibration.peaks is not None:
        enlarge = max(1, THUMBNAIL // 2 // max(image.size)) if small else 1  # room for outlines
        canvas = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
        heat = overlay(canvas, inspection, *heat_range(calibration), rules)
        mask = None if outlined is None else mask_outlines(outlined, heat.size, inspection.size)
        if mask is not None:
            outline(heat, mask, inspection.size, MASK)
        heatmap = _data_uri(heat)
    return {"original": _data_uri(image), "heatmap": heatmap, "small": small, "reason": "", "mask": mask is not None}


def thumbnail(inspector: Inspector, source: Source, size: tuple[int, int], side: int = THUMBNAIL) -> np.ndarray:
    """The image in colour, uint8 (h, w, 3), its longer side at most `side`; `size` is its own."""
    scale = min(1.0, side / max(size))
    shape = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return replace(inspector.preprocess, mode="RGB", size=shape).load(source)[0]


def mask_outlines(
    mask: Mask | np.ndarray, drawn: tuple[int, int], size: tuple[int, int]
) -> list[list[tuple[float, float]]] | None:
    """The outlines of a mask as seen at the size `drawn` (width, height), in pixels of the image; None if unreadable.

    The mask is a file, or bool (H, W). `size` is the image's (height, width).
    """
    try:
        inside = mask if isinstance(mask, np.ndarray) else read_mask(mask)  # (H, W)
    except OkngError:
        return None
    width, height = (min(sides) for sides in zip(drawn, inside.shape[::-1], strict=True))
    seen = Image.fromarray(inside.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return [region.contour for region in regions_above(np.asarray(seen), 0.5, size)]


def _data_uri(image: Image.Image) -> str:
    """PNG for small images, which JPEG would smear, else JPEG."""
    kind = "png" if max(image.size) <= SMALL else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
