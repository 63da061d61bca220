"""The layout of MVTec AD (Bergmann et al., CVPR 2019): `train/good`, `test/<kind>`, `ground_truth/<kind>`."""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.class_folders import images_by_class
from okng.datasets.folder import no_images
from okng.errors import OkngError
from okng.inspection.files import find_images, subfolders

GOOD_KINDS = ("good", "ok", "normal")


def is_good(kind: str) -> bool:
    """Whether a folder's name says that its images are OK."""
    return kind.lower() in GOOD_KINDS


def has_mvtec_layout(folder: Path) -> bool:
    """Whether `folder/train` holds one folder, of good images."""
    kinds = subfolders(folder / "train")
    return len(kinds) == 1 and is_good(kinds[0].name)


def open_mvtec(folder: Path, normal: str | None) -> Dataset:
    """One category: trains on `train/good`, tests on `test/`, where every kind but good, ok or normal is NG.

    The mask of `test/<kind>/<stem>.*` is `ground_truth/<kind>/<stem>_mask.*` or `<stem>.*`; an NG sample may
    lack it. The layout itself says what is OK, so `normal` is left out or names the good folder. Raises
    `OkngError` for any other `normal` and for a `train/good` without images.
    """
    train, test = images_by_class(folder / "train"), images_by_class(folder / "test")
    if not train:
        raise no_images(folder / "train")
    ((good, images),) = train.items()
    if normal not in (None, good):
        raise OkngError(f"{folder} has train/{good} as its OK images (MVTec AD); leave normal={normal!r} out")
    return Dataset(
        name=folder.resolve().name,
        layout="mvtec",
        protocol=f"The native split: train/{good} for training, test/ for testing, where all but good is NG.",
        train=tuple(Sample(image, OK, good) for image in images),
        test=tuple(sample for kind, images in test.items() for sample in _test_samples(folder, kind, images)),
    )


def _test_samples(folder: Path, kind: str, images: list[Path]) -> list[Sample]:
    if is_good(kind):
        return [Sample(image, OK, kind) for image in images]
    truth = folder / "ground_truth" / kind
    masks = {_stem(mask, truth): mask for mask in find_images(truth)} if truth.is_dir() else {}
    stems = [_stem(image, folder / "test" / kind) for image in images]
    return [
        Sample(image, NG, kind, masks.get(f"{stem}_mask") or masks.get(stem))
        for image, stem in zip(images, stems, strict=True)
    ]


def _stem(path: Path, folder: Path) -> str:
    """The path inside `folder` without the suffix, as images and masks often differ in it."""
    return path.relative_to(folder).with_suffix("").as_posix()
