"""DAGM 2007: artificial textures, some with a defect (Wieler, Hahn, DAGM 2007's competition).

A class is `Train/` and `Test/` with images, in each of which `Label/<stem>_label.PNG` covers the defect of
`<stem>.PNG` with an ellipse; an image without one has no defect.
"""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.folder import no_images
from okng.errors import OkngError
from okng.inspection.reading.files import find_images

PARTS = ("Train", "Test")


def has_dagm_layout(folder: Path) -> bool:
    """Whether `folder` is one class of DAGM 2007."""
    return any((folder / part / "Label").is_dir() for part in PARTS)


def open_dagm(folder: Path) -> Dataset:
    """One class: trains on the images of `Train/` without a defect, tests on all of `Test/`."""
    parts = {}
    for part in PARTS:
        if not (folder / part).is_dir():
            raise OkngError(f"{folder} lacks {part}/ beside the other part of the class; put it there")
        parts[part] = _samples(folder / part)
        if not parts[part]:
            raise no_images(folder / part)
    return Dataset(
        name=folder.resolve().name,
        layout="dagm",
        protocol="The native split: Train/ without its defective images for training, Test/ for testing; masks are "
        "ellipses around the defects.",
        train=tuple(sample for sample in parts["Train"] if sample.label == OK),
        test=tuple(parts["Test"]),
        ng=tuple(sample for sample in parts["Train"] if sample.label == NG),
    )


def _samples(part: Path) -> list[Sample]:
    labels = part / "Label"
    masks = {mask.stem: mask for mask in find_images(labels)} if labels.is_dir() else {}
    found = []
    for image in find_images(part):
        if image.parent != part:
            continue
        mask = masks.get(f"{image.stem}_label")
        found.append(Sample(image, OK if mask is None else NG, "good" if mask is None else "defect", mask))
    return found
