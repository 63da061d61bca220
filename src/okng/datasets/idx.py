"""IDX files, the format of MNIST and Fashion-MNIST, read as one-vs-rest.

The format: two zero bytes, a byte for the type (8 is uint8), a byte for the number of dimensions, each
dimension as a big-endian 32-bit number, then the values (LeCun, Cortes, Burges: the MNIST database).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.datasets.protocols import check_normal
from okng.errors import OkngError


def has_idx_files(folder: Path) -> bool:
    """Whether `folder` holds the training images of an MNIST-style set."""
    return _find(folder, "train-images", 3) is not None


def open_idx(folder: Path, normal: str | None) -> Dataset:
    """`train-images-idx3-ubyte` and its three companions, plain or `.gz`, on their native split.

    Trains on class `normal` ("3") of the training images and tests on all test images, where every other
    class is NG: the protocol of Deep SVDD (Ruff et al., ICML 2018, section 4). Images are uint8 (H, W).
    Raises `OkngError` for a file that is missing, damaged or no IDX file, and unless `normal` is a class.
    """
    train_images, train_labels = _read_split(folder, "train")
    test_images, test_labels = _read_split(folder, "t10k")
    normal = check_normal(normal, [str(label) for label in np.unique(train_labels)], folder)
    protocol = (
        f"One-vs-rest on the native split: class {normal} of the training images is for training, all test "
        f"images for testing, where every class but {normal} is NG."
    )
    return Dataset(
        name=folder.resolve().name,
        layout="idx",
        protocol=protocol,
        train=tuple(Sample(image, OK, normal) for image in train_images[train_labels == int(normal)]),
        test=tuple(
            Sample(image, OK if label == int(normal) else NG, str(label))
            for image, label in zip(test_images, test_labels, strict=True)
        ),
    )


def _read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) and labels (N,) of "train" or "t10k", both uint8."""
    images = _read(folder, f"{split}-images", 3)
    labels = _read(folder, f"{split}-labels", 1)
    if len(images) != len(labels):
        raise OkngError(f"{folder} has {len(images)} {split} images but {len(labels)} labels; get both again")
    return images, labels


def _find(folder: Path, stem: str, dimensions: int) -> Path | None:
    """The file `<stem>-idx<dimensions>-ubyte`, plain before `.gz`; some copies have a dot after the stem."""
    names = [f"{stem}{dash}idx{dimensions}-ubyte{end}" for end in ("", ".gz") for dash in ("-", ".")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    path = _find(folder, stem, dimensions)
    if path is None:
        raise OkngError(f"{folder} lacks {stem}-idx{dimensions}-ubyte (or .gz); put it beside the others")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise OkngError(f"{path} cannot be read ({error}); get the file again") from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, 8, dimensions)):
        raise OkngError(f"{path} is no IDX file of uint8 values in {dimensions} dimensions; get the file again")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise OkngError(f"{path} is truncated or damaged: its size is not what its header says; get it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
