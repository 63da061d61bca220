from __future__ import annotations

import random
from pathlib import Path

import pytest

from okng.errors import OkngWarning
from okng.inspection import files
from okng.inspection.files import each_found, find_images, natural_order


def test_files_of_a_large_folder_are_in_natural_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted part by part and held as bytes; names that are no Unicode or end a line are names, too."""
    names = [f"{i}.png" for i in range(30)] + [
        "01.png",
        "a\nb.png",
        "부품 7.png",
        "부품 10.png",
        "x\udcff.jpg",
        "B2.PNG",
    ]
    random.Random(0).shuffle(names)
    for name in names:
        (tmp_path / name).touch()
    for hidden in ("._1.png", "notes.txt"):
        (tmp_path / hidden).touch()
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "inner.png").touch()
    (tmp_path / "10.heap.npy").touch()
    expected = [tmp_path / name for name in sorted(names, key=natural_order)] + [tmp_path / "9" / "inner.png"]
    with pytest.warns(OkngWarning, match="npy 1"):
        assert find_images(tmp_path) == expected
    monkeypatch.setattr(files, "SORTED_AT_ONCE", 4)
    with pytest.warns(OkngWarning, match="npy 1"):
        assert list(each_found(tmp_path)) == expected
