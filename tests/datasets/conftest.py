from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def save_images():
    """A function that writes a grey image of `size` (width, height) for each name and returns the folder."""

    def save(folder: Path, names, size=(8, 6)):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("L", size, 128).save(folder / name)
        return folder

    return save


@pytest.fixture
def mvtec(tmp_path, save_images):
    """A category `bolt` with one kind of defect, of whose three images one has no mask."""
    root = tmp_path / "bolt"
    save_images(root / "train/good", ["000.png", "001.png"])
    save_images(root / "test/good", ["000.png"])
    save_images(root / "test/crack", ["000.png", "001.jpg", "002.png"])
    save_images(root / "ground_truth/crack", ["000_mask.png", "001.png", "777_mask.png"])
    return root


@pytest.fixture
def split_classes(tmp_path, save_images):
    """The tree of CIFAR-10: train/<class> and test/<class>."""
    root = tmp_path / "pets"
    for split, count in (("train", 3), ("test", 2)):
        for kind in ("cat", "dog"):
            save_images(root / split / kind, [f"{i}.png" for i in range(count)])
    return root


@pytest.fixture
def classes(tmp_path, save_images):
    """The tree of COIL-20: one folder per class and no split."""
    for kind in ("obj1", "obj2", "obj10"):
        save_images(tmp_path / "coil" / kind, [f"{i}.png" for i in range(10)])
    return tmp_path / "coil"


@pytest.fixture
def put(tmp_path):
    """A function that writes photographs, or masks where a name starts with "+" (marks) or "-" (marks nothing)."""
    rng = np.random.default_rng(0)

    def write(*names):
        for name in names:
            path = tmp_path / name.lstrip("+-")
            path.parent.mkdir(parents=True, exist_ok=True)
            if name[0] in "+-":
                pixels = np.zeros((32, 32), np.uint8)
                pixels[8:20, 8:20] = 255 * (name[0] == "+")
            else:
                pixels = rng.integers(0, 256, (32, 32), np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path

    return write
