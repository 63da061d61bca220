"""IDX files, the format of MNIST and Fashion-MNIST.

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

from okng.datasets.base import Sample
from okng.datasets.protocols import Classes
from okng.errors import OkngError


def has_idx_files(folder: Path) -> bool:
    """Whether `folder` holds the training images of an MNIST-style set."""
    return _find(folder, "train-images", 3) is not None


def read_idx(folder: Path) -> Classes:
    """`train-images-idx3-ubyte` and its three companions, plain or `.gz`; images are uint8 (H, W).

    Raises `OkngError` for a file that is missing, damaged or no IDX file.
    """
    train, test = _read_split(folder, "train"), _read_split(folder, "t10k")
    # The names in natural order, whatever class comes first in the file.
    return Classes(folder, "idx", tuple(sorted(train, key=lambda sample: int(sample.kind))), test)


def _read_split(folder: Path, split: str) -> tuple[Sample, ...]:
    """The samples of "train" or "t10k", of which there are N images (N, H, W) and N labels (N,), both uint8."""
    images, labels = _read(folder, f"{split}-images", 3), _read(folder, f"{split}-labels", 1)
    if len(images) != len(labels):
        raise OkngError(f"{folder} has {len(images)} {split} images but {len(labels)} labels; get both again")
    return tuple(Sample(image, kind=str(label)) for image, label in zip(images, labels, strict=True))


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
