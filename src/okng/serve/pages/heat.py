"""The picture of a record with its heat and regions, drawn when it is looked at from what was kept."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from okng.inspection.overlay import overlay
from okng.inspection.verdict.regions import Region
from okng.inspection.verdict.result import Inspection

SMALL, ENLARGED = 128, 256  # pixels of the longer side: a smaller picture is enlarged, so that outlines have room


def drawn(picture: Image.Image, heat: bytes, size: tuple[int, int], regions: list[dict[str, Any]]) -> Image.Image:
    """`picture` as the report draws it, with the `heat` of `store.pictures`; `size` is the image's (height, width)."""
    with Image.open(io.BytesIO(heat)) as grey:
        levels = np.asarray(grey.convert("L"), np.float32) / 255  # (h, w)
    enlarge = max(1, ENLARGED // max(picture.size)) if max(picture.size) <= SMALL else 1
    canvas = picture.convert("RGB").resize(
        (picture.width * enlarge, picture.height * enlarge), Image.Resampling.NEAREST
    )
    names = Region.__dataclass_fields__
    found = tuple(Region(**{key: value for key, value in one.items() if key in names}) for one in regions)
    return overlay(canvas, Inspection(0, None, 0.0, 1.0, "OK", size, levels, found, {}), 0.0, 1.0)


def encoded(picture: Image.Image) -> tuple[bytes, str]:
    """The file and its type: PNG where JPEG would smear pixels that are seen one by one."""
    kind = "png" if max(picture.size) <= ENLARGED else "jpeg"
    content = io.BytesIO()
    picture.convert("RGB").save(content, kind, **({"quality": 88} if kind == "jpeg" else {}))
    return content.getvalue(), f"image/{kind}"
