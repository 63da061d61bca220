import gzip
import struct

import numpy as np
import pytest

from okng.datasets import NG, OK, open_dataset
from okng.errors import OkngError


def idx_bytes(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """MNIST in small: 12 training and 6 test images of classes 0, 1 and 2, each filled with its number."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for split, count in (("train", 12), ("t10k", 6)):
        images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 28, 28))
        labels = (np.arange(count) % 3).astype(np.uint8)
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def test_one_vs_rest_on_the_native_split(idx_folder):
    dataset = open_dataset(idx_folder, normal="1")
    assert (dataset.name, dataset.layout) == ("digits", "idx")
    # Each image is filled with its number; class 1 are the images 1, 4, 7 and 10.
    assert [sample.image[0, 0] for sample in dataset.train] == [1, 4, 7, 10]
    assert {(s.image.shape, s.image.dtype, s.label, s.kind) for s in dataset.train} == {
        ((28, 28), np.dtype(np.uint8), OK, "1")
    }
    assert [sample.label for sample in dataset.test] == [NG, OK, NG, NG, OK, NG]
    assert [sample.kind for sample in dataset.test] == ["0", "1", "2", "0", "1", "2"]
    assert "native split" in dataset.protocol


def test_names_with_a_dot(idx_folder):
    for path in list(idx_folder.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(open_dataset(idx_folder, normal="2").train) == 4


@pytest.mark.parametrize(("normal", "message"), [(None, "which one is normal: 0, 1, 2"), ("7", "known are 0, 1, 2")])
def test_the_class_must_be_named(idx_folder, normal, message):
    with pytest.raises(OkngError, match=message):
        open_dataset(idx_folder, normal=normal)


GOOD = idx_bytes(np.zeros(12, dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file"),
        (GOOD[:6], "is no IDX file"),
        (b"PK" + GOOD[2:], "is no IDX file"),
        (idx_bytes(np.zeros((12, 1), dtype=np.uint8)), "is no IDX file"),
        (GOOD[:-1], "truncated or damaged"),
        (GOOD + b"0", "truncated or damaged"),
        (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "truncated or damaged"),
        (idx_bytes(np.zeros(11, dtype=np.uint8)), "12 train images but 11 labels"),
        (None, "lacks train-labels-idx1-ubyte"),
    ],
)
def test_a_damaged_file_is_one_clear_line(idx_folder, content, message):
    labels = idx_folder / "train-labels-idx1-ubyte"
    labels.unlink()
    if content is not None:
        labels.write_bytes(content)
    with pytest.raises(OkngError, match=message):
        open_dataset(idx_folder, normal="1")


@pytest.mark.parametrize("damage", [lambda b: b[:-12], lambda b: b[:40] + b"\0\0\0\0" + b[44:], lambda b: b"x"])
def test_a_damaged_gz_file_is_one_clear_line(idx_folder, damage):
    images = idx_folder / "train-images-idx3-ubyte.gz"
    noise = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    images.write_bytes(damage(gzip.compress(idx_bytes(noise))))
    with pytest.raises(OkngError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        open_dataset(idx_folder, normal="1")
