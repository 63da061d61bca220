"""One folder per class, with or without a split into `train/` and `test/`."""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import Sample
from okng.datasets.folder import no_images
from okng.datasets.masks import is_mask_folder
from okng.datasets.ok_images import part_images
from okng.datasets.protocols import Classes
from okng.errors import OkngError
from okng.inspection.reading.files import find_images, is_image, subfolders


def read_split_classes(folder: Path) -> Classes:
    """The tree `train/<class>/…` and `test/<class>/…`."""
    train, test = _samples(folder / "train"), _samples(folder / "test")
    if not train:
        raise no_images(folder / "train")
    return Classes(folder, "classes", train, test)


def read_classes(folder: Path) -> Classes:
    """The tree `<class>/…`, which has no split of its own."""
    samples = _samples(folder)
    if not samples:
        raise no_images(folder)
    return Classes(folder, "classes", samples, None)


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """The images of each folder in `folder`, by its name; folders without images are left out, and so are masks.

    Raises `OkngError` for images beside the class folders: nobody said what class they are.
    """
    loose = sum(is_image(path.name) for path in folder.iterdir())
    if loose:
        raise OkngError(f"{folder} has images outside its class folders ({loose}); move them into one, say good/")
    inside = {path.name: find_images(path) for path in subfolders(folder)}
    return {
        name: images
        for name, found in inside.items()
        if not is_mask_folder(name, found) and (images := part_images(folder / name)[0])
    }


def _samples(folder: Path) -> tuple[Sample, ...]:
    return tuple(Sample(image, kind=kind) for kind, images in images_by_class(folder).items() for image in images)
