"""Files that are whole or say that they are not."""

from __future__ import annotations

import errno
import os
import resource
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.outputs import CsvFile, Overlays
from okng.inspection.reading.files import find_images
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.result import Inspection

PEAKS = np.arange(1.0, 40.0)
INSPECTOR = Inspector(None, Preprocess("RGB", 64), Calibration.fit(PEAKS, PEAKS, "split", 0.05), {})  # type: ignore[arg-type]


def judged(path: Path | str | None, verdict: str = "NG") -> Inspection:
    return Inspection(0, None if path is None else str(path), 5.0, 0.1, verdict, (8, 8), np.ones((2, 2)), (), {})


def a_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def test_an_older_csv_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("older")
    table = CsvFile(path)
    table.add(judged("a.png"))
    assert path.read_text() == "older"
    assert len((tmp_path / "r.partial.csv").read_text().splitlines()) == 2  # it can be followed as it grows
    assert table.close(complete=False) == tmp_path / "r.partial.csv"
    assert path.read_text() == "older"
    table = CsvFile(path)
    table.add(judged("b.png"))
    table.add(judged(b"caf\xe9.png".decode("utf-8", "surrogateescape")))
    assert table.close(complete=True) == path
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["path", "b.png", "caf\\udce9.png"]
    assert [file.name for file in tmp_path.iterdir()] == ["r.csv"]


def test_a_stop_before_the_first_image_leaves_nothing(tmp_path: Path) -> None:
    assert CsvFile(tmp_path / "r.csv").close(complete=False) is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_csv_after_a_whole_line(tmp_path: Path) -> None:
    table = CsvFile(tmp_path / "r.csv")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for i in range(50):
            table.add(judged(f"{i:050}.png"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    table.add(judged("later.png"))  # the disk has room again, but a gap would go unseen
    assert table.error == os.strerror(errno.EFBIG) and 0 < table.rows < 20
    assert table.close(complete=True) == tmp_path / "r.partial.csv"
    lines = (tmp_path / "r.partial.csv").read_text().splitlines()
    assert len(lines) == 1 + table.rows and all(line.count(",") == 10 for line in lines)
    assert not (tmp_path / "r.csv").exists()


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    table = CsvFile(tmp_path / "pipe")
    table.add(judged("a.png"))
    assert table.close(complete=True) == tmp_path / "pipe"
    reader.join()
    assert read[0].splitlines()[1].startswith("a.png,5.0,")
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OkngError, match=r"r\.partial\.csv can't be written"):
        CsvFile(tmp_path / "file" / "r.csv")


def overlays_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix().rsplit("-", 1)[0] for path in folder.rglob("*.png")}


def test_one_image_lies_in_one_place(tmp_path: Path) -> None:
    """Under its last verdict, in whatever order images come; what a person put there is left alone."""
    one, two = a_picture(tmp_path / "a" / "0.png"), a_picture(tmp_path / "b" / "0.png")
    drawn = Overlays(tmp_path / "maps", INSPECTOR)
    drawn.add(judged(one, "NG"))
    drawn.add(judged(two, "NG"))
    assert len(list((tmp_path / "maps" / "NG").iterdir())) == 2  # one name, two images
    own = a_picture(tmp_path / "maps" / "NG" / "0.png")
    again = Overlays(tmp_path / "maps", INSPECTOR)
    again.add(judged(two, "NG"))
    again.add(judged(tmp_path / "b" / ".." / "a" / "0.png", "OK"))  # the same file by another way
    assert len(list((tmp_path / "maps" / "OK").iterdir())) == 1
    assert len(list((tmp_path / "maps" / "NG").iterdir())) == 2 and own.exists()
    assert again.written == 2 and again.failed == []


def test_an_image_in_storage_has_one_name_wherever_okng_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for verdict, place in (("NG", tmp_path / "one"), ("OK", tmp_path / "two")):
        place.mkdir()
        monkeypatch.chdir(place)
        far = Inspection(**{**vars(judged(None, verdict)), "path": "s3://bucket/parts/0.png"})
        Overlays(tmp_path / "maps", INSPECTOR).add(far, image=np.zeros((8, 8, 3), np.uint8))
    assert overlays_in(tmp_path / "maps") == {"OK/0"}


def test_overlays_are_not_taken_for_images(tmp_path: Path) -> None:
    picture = a_picture(tmp_path / "parts" / "0.png")
    Overlays(tmp_path / "parts" / "maps", INSPECTOR).add(judged(picture))
    assert len(list((tmp_path / "parts").rglob("*.png"))) == 2
    assert find_images(tmp_path / "parts") == [picture]
    Overlays(tmp_path / "parts" / "maps", INSPECTOR)  # and the folder is known again
    for folder in (tmp_path / "parts", tmp_path):
        with pytest.raises(OkngError, match="holds images that are no overlays of okng's; choose another folder"):
            Overlays(folder, INSPECTOR)


def test_an_overlay_that_fails_is_named_and_the_next_one_is_drawn(tmp_path: Path) -> None:
    gone, there = tmp_path / "gone.png", a_picture(tmp_path / "there.png")
    drawn = Overlays(tmp_path / "maps", INSPECTOR)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "NG").touch()  # no folder
    assert drawn.add(judged(there, "NG")) is None
    assert drawn.add(judged(gone, "OK")) is None
    assert drawn.add(judged(there, "OK")) is not None
    assert drawn.add(judged(None)) is None  # pixels have no name
    assert drawn.written == 1 and len(drawn.failed) == 2
    assert drawn.failed[0].startswith(f"no overlay of {there}: ") and f"{gone}" in drawn.failed[1]
    assert overlays_in(tmp_path / "maps") == {"OK/there"}


@pytest.mark.parametrize("stem", ["n" * 250, "é" * 125, "部" * 83])
def test_the_longest_names_have_overlays(tmp_path: Path, stem: str) -> None:
    drawn = Overlays(tmp_path / "maps", INSPECTOR)
    assert drawn.add(judged(a_picture(tmp_path / f"{stem}.png"))) is not None, drawn.failed


def test_the_longest_names_have_a_csv(tmp_path: Path) -> None:
    from okng.inspection.model_file import remove, write_atomically

    path: Any = tmp_path / ("n" * 251 + ".csv")
    write_atomically(path, b"whole")
    leftover = tmp_path / f".{path.name[:240]}.0123abcd"
    leftover.touch()
    remove(path)
    assert list(tmp_path.iterdir()) == []
