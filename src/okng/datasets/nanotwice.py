"""NanoTWICE: electron micrographs of nanofibres (Carrera et al., IEEE Trans. Industrial Informatics 13, 2017).

`Normal/` holds 5 images, `Anomalous/images/` 40 with defects and `Anomalous/gt/<stem>_gt.png` their masks.
"""

from __future__ import annotations

from pathlib import Path

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.folder import no_images
from okng.inspection.reading.files import find_images


def has_nanotwice_layout(folder: Path) -> bool:
    """Whether `folder` is NanoTWICE."""
    return (folder / "Normal").is_dir() and (folder / "Anomalous" / "images").is_dir()


def open_nanotwice(folder: Path) -> Dataset:
    """Trains on `Normal/`, tests on `Anomalous/images/`, which are all NG: only pixel figures are defined."""
    normal, anomalous = find_images(folder / "Normal"), find_images(folder / "Anomalous" / "images")
    for images, part in ((normal, "Normal"), (anomalous, "Anomalous/images")):
        if not images:
            raise no_images(folder / part)
    truth = folder / "Anomalous" / "gt"
    masks = {mask.stem: mask for mask in find_images(truth)} if truth.is_dir() else {}
    return Dataset(
        name=folder.resolve().name,
        layout="nanotwice",
        protocol="The native split: Normal/ for training, Anomalous/images/ for testing, all of them NG.",
        train=tuple(Sample(image, OK, "normal") for image in normal),
        test=tuple(
            Sample(image, NG, "anomalous", masks.get(f"{image.stem}_gt") or masks.get(image.stem))
            for image in anomalous
        ),
    )
