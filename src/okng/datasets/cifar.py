"""CIFAR-10 and CIFAR-100 as their authors give them: Python pickles of a dictionary (Krizhevsky, 2009).

A pickle can run any code of whoever wrote it. These are read by an unpickler that knows three names and runs none of
NumPy's own code: an array is taken down as its shape, type and bytes and made afterwards.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from okng.datasets.base import Sample
from okng.datasets.protocols import Classes
from okng.errors import OkngError

# The files of the training part, of the test part, the names of the classes and where they are kept.
CIFAR_10 = (tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", b"label_names", b"labels")
CIFAR_100 = (("train",), "test", "meta", b"fine_label_names", b"fine_labels")


def has_cifar_files(folder: Path) -> bool:
    """Whether `folder` holds the Python batches of CIFAR-10 or CIFAR-100."""
    return (folder / "data_batch_1").is_file() or all((folder / name).is_file() for name in ("train", "test", "meta"))


def read_cifar(folder: Path) -> Classes:
    """`data_batch_1` … `data_batch_5`, `test_batch` and `batches.meta`, or `train`, `test` and `meta`.

    Images are uint8 (32, 32, 3); CIFAR-100's classes are the hundred fine ones. Raises `OkngError` for a file that is
    missing or damaged, or that asks for anything but arrays, texts, numbers, lists and dictionaries.
    """
    parts, test, meta, names_key, labels_key = CIFAR_10 if (folder / "data_batch_1").is_file() else CIFAR_100
    names = _texts(_field(folder / meta, _load(folder / meta), names_key), folder / meta)
    train = [sample for part in parts for sample in _samples(folder / part, labels_key, names)]
    train.sort(key=lambda sample: names.index(sample.kind))  # so that classes are named in the set's own order
    return Classes(folder, "cifar", tuple(train), tuple(_samples(folder / test, labels_key, names)))


def _samples(path: Path, labels_key: bytes, names: list[str]) -> list[Sample]:
    content = _load(path)
    data, labels = _field(path, content, b"data"), _field(path, content, labels_key)
    pixels = data.pixels() if isinstance(data, _Array) else None  # (N, 3072): all red, all green, all blue values
    if pixels is None or pixels.shape[1:] != (3072,) or not isinstance(labels, list) or len(labels) != len(pixels):
        raise OkngError(f"{path} holds no 32 × 32 images with a label each; get the file again")
    if not all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        raise OkngError(f"{path} has labels without a name in its meta file; get both again")
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))  # (N, 32, 32, 3)
    return [Sample(image, kind=names[label]) for image, label in zip(images, labels, strict=True)]


def _texts(values: Any, path: Path) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, bytes | str) for value in values):
        raise OkngError(f"{path} holds no names of classes; get the file again")
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]


def _field(path: Path, content: Any, key: bytes) -> Any:
    """`content[key]`; keys are bytes in the authors' files, which Python 2 wrote, and texts in newer copies."""
    for name in (key, key.decode()):
        if isinstance(content, dict) and name in content:
            return content[name]
    raise OkngError(f"{path} has no {key.decode()}; it is no CIFAR file: get it again")


def _load(path: Path) -> Any:
    if not path.is_file():
        raise OkngError(f"{path.parent} lacks {path.name}; put it beside the others")
    try:
        return _Restricted(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OkngError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OkngError(f"{path} cannot be read ({reason}); get the file again") from error


class _Array:
    """Takes down what NumPy's `_reconstruct` and `__setstate__` would be given."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> np.ndarray | None:
        """The array, if it is one of uint8."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            return None
        _, shape, kind, fortran, content = self.state
        plain = isinstance(kind, _Type) and kind.name in (b"u1", "u1") and isinstance(content, bytes)
        sides = isinstance(shape, tuple) and all(isinstance(side, int) and side >= 0 for side in shape)
        if not plain or not sides or math.prod(shape) != len(content):
            return None
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Type:
    """Takes down the name of an array's type."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and fields, of which uint8 has none."""


class _Restricted(pickle.Unpickler):
    """Builds nothing but numbers, texts, lists, tuples, dictionaries and the two classes above."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the three names of an array in a pickle; any other name is refused."""
        match module, name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return _Array
            case "numpy", "dtype":
                return _Type
            case "numpy", "ndarray":
                return "ndarray"  # only ever an argument of `_reconstruct`
        raise OkngError(f"a CIFAR file holds arrays and labels only, this one asks for {module}.{name}: don't trust it")
