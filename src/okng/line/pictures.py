"""What is kept of an image beside its record: a small picture always, the file itself by choice."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from okng.inspection.calibration import Calibration
from okng.inspection.formats import Encoded
from okng.inspection.images import Preprocess, Source
from okng.inspection.result import Inspection

KEEP = ("all", "ng", "none")
SIDE = 320  # px, of a thumbnail's longer side
BORDERLINE = 2  # times the false-alarm rate: the p-value up to which an OK image is kept with the NG ones


def thumbnail(image: Source, preprocess: Preprocess) -> bytes:
    """A small JPEG, upright; deep samples are shown as the model sees them."""
    picture = replace(preprocess, mode="RGB").decode(image)
    picture.thumbnail((SIDE, SIDE))
    return _encoded(picture, "JPEG", quality=80)


def is_kept(which: str, inspection: Inspection, calibration: Calibration) -> bool:
    """Whether the image itself is kept: "all", "ng" (NG and borderline ones), or "none"."""
    borderline = inspection.p_value <= BORDERLINE * calibration.false_alarm_rate
    return which == "all" or (which == "ng" and (inspection.is_ng or borderline))


def file_of(image: Source) -> bytes:
    """The image as a file's bytes: as it came, pixels as PNG."""
    if isinstance(image, Encoded):
        return image.content
    assert isinstance(image, np.ndarray)
    return _encoded(Image.fromarray(image), "PNG", compress_level=1)


def _encoded(picture: Image.Image, kind: str, **how: int) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **how)
    return content.getvalue()
