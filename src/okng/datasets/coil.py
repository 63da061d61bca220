"""COIL-20 and COIL-100 as downloaded: all images in one folder, `obj7__35.png` (Nene, Nayar, Murase, 1996)."""

from __future__ import annotations

import re
from pathlib import Path

from okng.datasets.base import Sample
from okng.datasets.protocols import Classes
from okng.inspection.reading.files import find_images

NAME = re.compile(r"(obj\d+)__\d+")  # the object and the view, counted or in degrees


def has_coil_files(folder: Path) -> bool:
    """Whether the images directly in `folder` are named as COIL's are."""
    return any(NAME.fullmatch(path.stem) for path in folder.glob("obj*__*.*"))


def read_coil(folder: Path) -> Classes:
    """The objects obj1, obj2, …; the set has no split of its own."""
    found = ((NAME.fullmatch(path.stem), path) for path in find_images(folder))
    return Classes(folder, "coil", tuple(Sample(path, kind=match[1]) for match, path in found if match), None)
