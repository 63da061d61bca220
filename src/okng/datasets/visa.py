"""VisA as downloaded (Zou et al., SPot-the-Difference, ECCV 2022).

An object, such as `candle/`, has `Data/Images/Normal/`, `Data/Images/Anomaly/` and `Data/Masks/Anomaly/<stem>.png`.
`split_csv/1cls.csv` beside the objects says what is for training, in columns object, split, label, image and mask.
"""

from __future__ import annotations

import csv
from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.folder import no_images
from okng.datasets.masks import match_masks, one_or_several
from okng.datasets.protocols import split_by_seed
from okng.errors import OkngError
from okng.inspection.reading.files import find_images

SPLIT = Path("split_csv", "1cls.csv")


def has_visa_layout(folder: Path) -> bool:
    """Whether `folder` is one object of VisA."""
    return all((folder / "Data" / "Images" / label).is_dir() for label in ("Normal", "Anomaly"))


def open_visa(folder: Path, seed: int) -> Dataset:
    """One object, divided by `split_csv/1cls.csv`, or by `seed` where that is missing.

    Raises `OkngError` for a split that can't be read, names no image of the object, or names one that is missing.
    """
    split = folder.resolve().parent / SPLIT
    if split.is_file():
        train, test = _by_csv(folder, split)
        protocol = f"The native split, {SPLIT.as_posix()}: train for training, test for testing."
    else:
        train, test = _by_seed(folder, seed)
        protocol = (
            f"80/20 by seed {seed}, for want of {SPLIT.as_posix()}: 80 % of Normal/ for training; the rest and all of "
            "Anomaly/ for testing."
        )
    return Dataset(folder.resolve().name, "visa", protocol, train, test)


def _by_csv(folder: Path, split: Path) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    root, name = split.parent.parent, folder.resolve().name
    parts: dict[str, list[Sample]] = {"train": [], "test": []}
    try:
        with split.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                if row["object"] != name:
                    continue
                mask = root / row["mask"] if row["mask"] else None
                label = OK if row["label"] == "normal" else NG
                parts[row["split"]].append(Sample(root / row["image"], label, row["label"], mask))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise OkngError(f"{split} can't be read as VisA's split ({error!r}); get the file again") from error
    ng = sum(sample.label == NG for sample in parts["train"])
    if not parts["train"] or ng:
        raise OkngError(f"{split} has {ng or 'no'} {'NG' if ng else name} images for training; take VisA's own file")
    for sample in (*parts["train"], *parts["test"]):
        for file_ in (sample.image, sample.mask):
            if isinstance(file_, Path) and not file_.is_file():
                raise OkngError(f"{file_} is missing but named in {split}; put it there")
    return tuple(parts["train"]), tuple(parts["test"])


def _by_seed(folder: Path, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    images, truth = folder / "Data" / "Images", folder / "Data" / "Masks" / "Anomaly"
    normal, anomaly = find_images(images / "Normal"), find_images(images / "Anomaly")
    if not normal:
        raise no_images(images / "Normal")
    found = find_images(truth) if truth.is_dir() else []
    masks = match_masks([(image.name, image) for image in anomaly], [(mask.name, mask) for mask in found])
    train, rest = split_by_seed([Sample(image, OK, "normal") for image in normal], seed)
    ng = tuple(Sample(image, NG, "anomaly", one_or_several(masks.get(image, ()))) for image in anomaly)
    return train, rest + ng
