"""A plain folder of images, all of them OK."""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import OK, Dataset, Sample
from okng.datasets.ok_images import ok_images
from okng.errors import OkngError
from okng.inspection.reading.files import IMAGE_SUFFIXES


def open_folder(folder: Path) -> Dataset:
    """Every image in `folder` and below as a training sample, but for what `ok_images` leaves out.

    The kind is the name of the first folder on the way to the image, so that a table shows what was swept in.
    Raises `OkngError` for a folder that is empty or holds no images, or of which it isn't sure that all is OK.
    """
    images, said = ok_images(folder)
    if not images:
        raise no_images(folder)
    name = folder.resolve().name
    train = []
    for image in images:
        way = image.relative_to(folder).parts
        train.append(Sample(image, OK, kind=way[0] if len(way) > 1 else name))
    protocol = f"All images are for training and taken as OK; there is no test set. {said}".strip()
    return Dataset(name, "folder", protocol, tuple(train), ())


def no_images(folder: Path) -> OkngError:
    """The error for a folder that is empty or holds no images."""
    if not any(folder.iterdir()):
        return OkngError(f"{folder} is empty; put images of OK parts into it")
    known = ", ".join(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
    return OkngError(f"{folder} holds no images; give a folder with files of type {known}")
