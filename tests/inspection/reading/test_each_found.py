from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from okng.errors import OkngError, OkngWarning
from okng.inspection.reading import files
from okng.inspection.reading.files import each_found, find_images, natural_order


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


def test_a_link_that_cannot_be_followed_is_left_out_alone(tmp_path: Path) -> None:
    """The rest of its folder is inspected; one that leads nowhere is not worth a word."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    (tmp_path / "b" / "gone.png").symlink_to("nothing.png")
    expected = [tmp_path / "a" / "1.png", tmp_path / "b" / "1.png"]
    assert find_images(tmp_path, strict=True) == expected
    (tmp_path / "b" / "0.png").symlink_to("0.png")
    with pytest.warns(OkngWarning, match=r"^skipped: cannot read .*0\.png \(.*\); check where it leads") as told:
        assert find_images(tmp_path) == expected
    assert len(told) == 1
    with pytest.raises(OkngError, match=r"cannot read .*0\.png"):
        find_images(tmp_path, strict=True)


def test_what_is_moved_below_while_others_are_looked_at_comes_once(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "ng/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = []
    for path in each_found(tmp_path):
        found.append(path.name)
        if path.parent.name == "a":
            shutil.move(path, tmp_path / "ng")
    assert found == ["1.png", "2.png", "0.png"]
