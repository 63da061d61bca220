"""One folder per class: one class is normal, all others are anomalies (one-vs-rest)."""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.folder import no_images
from okng.datasets.protocols import check_normal, split_by_seed
from okng.errors import OkngError
from okng.inspection.files import find_images, is_image, subfolders


def open_split_classes(folder: Path, normal: str | None) -> Dataset:
    """The tree `train/<class>/…` and `test/<class>/…` with its native split.

    Trains on class `normal` of `train/` and tests on all of `test/`, where every other class is NG: the
    protocol of Deep SVDD (Ruff et al., ICML 2018, section 4) on CIFAR-10. Raises `OkngError` unless `normal`
    is a class of `train/`.
    """
    train, test = images_by_class(folder / "train"), images_by_class(folder / "test")
    if not train:
        raise no_images(folder / "train")
    normal = check_normal(normal, train, folder)
    protocol = (
        f"One-vs-rest on the native split: class {normal} of train/ is for training, all of test/ for "
        f"testing, where every class but {normal} is NG."
    )
    return Dataset(
        name=folder.resolve().name,
        layout="classes",
        protocol=protocol,
        train=tuple(Sample(image, OK, normal) for image in train[normal]),
        test=_one_vs_rest(test, normal),
    )


def open_classes(folder: Path, normal: str, seed: int) -> Dataset:
    """The tree `<class>/…` without a split of its own: `seed` draws 80 % of class `normal` for training.

    The other 20 % and all images of all other classes are for testing. Figures do not compare with those of
    a native split. Raises `OkngError` unless `normal` is a class with at least two images.
    """
    classes = images_by_class(folder)
    if not classes:
        raise no_images(folder)
    normal = check_normal(normal, classes, folder)
    if len(classes[normal]) < 2:
        raise OkngError(f"class {normal} of {folder} has one image; an 80/20 split takes two or more: add some")
    train, rest = split_by_seed([Sample(image, OK, normal) for image in classes.pop(normal)], seed)
    protocol = (
        f"One-vs-rest, 80/20 by seed {seed}: 80 % of class {normal} is for training; the other 20 % (OK) and "
        "all other classes (NG) are for testing."
    )
    return Dataset(folder.resolve().name, "classes", protocol, train, rest + _one_vs_rest(classes, normal))


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """The images of each folder in `folder`, by its name; folders without images are left out.

    Raises `OkngError` for images beside the class folders: nobody said what class they are.
    """
    loose = sum(is_image(path.name) for path in folder.iterdir())
    if loose:
        raise OkngError(f"{folder} has images outside its class folders ({loose}); move them into one, say good/")
    return {path.name: images for path in subfolders(folder) if (images := find_images(path))}


def _one_vs_rest(classes: dict[str, list[Path]], normal: str) -> tuple[Sample, ...]:
    return tuple(
        Sample(image, OK if kind == normal else NG, kind) for kind, images in classes.items() for image in images
    )
