"""Finding image files, for the line and the lab alike."""

from __future__ import annotations

import os
import re
from pathlib import Path

from okng.errors import OkngError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif")


def find_images(folder: Path) -> list[Path]:
    """All image files in `folder`, then those of each folder in it; an empty list where there are none.

    Names are in natural order (`2.png` before `10.png`). Hidden files and folders (`._x.png`,
    `.ipynb_checkpoints`) are left out. Linked folders are followed, but no folder is visited twice. Raises
    `OkngError` for a folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = Path(root).resolve()
        if real in seen:  # a link back up, or two links to one place
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_order)
        found += [Path(root, name) for name in sorted(filter(is_image, names), key=natural_order)]
    return found


def is_image(name: str) -> bool:
    """Whether a file of this name is an image: not hidden, one of `IMAGE_SUFFIXES` in either case."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, without hidden ones, in natural order; errors as in `find_images`."""
    _, names, _ = next(os.walk(folder, onerror=_refuse))
    return [folder / name for name in sorted(names, key=natural_order) if not name.startswith(".")]


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that reads digits as numbers; the plain text decides between `1.png` and `01.png`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _refuse(error: OSError) -> None:
    raise OkngError(f"cannot read folder {error.filename} ({error.strerror}); check its path and permissions")
