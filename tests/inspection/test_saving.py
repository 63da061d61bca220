"""A model file takes another's place without anyone's work being lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.saving import save_beside, save_changed, save_over, state_before, state_of
from okng.inspection.verdict.calibration import Calibration

ROOT = Path(__file__).parents[2]


class Text:
    """An engine whose model file is its text."""

    def __init__(self, text: str, seconds: float = 0.0):
        self.text, self.seconds = text, seconds

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        return np.zeros(len(pixels)), None

    def write(self, path: Path, manifest: object, arrays: object) -> None:
        if self.seconds:
            print("writing", flush=True)
        time.sleep(self.seconds)
        path.write_text(self.text)


def model(text: str, seconds: float = 0.0) -> Inspector:
    return Inspector(Text(text, seconds), Preprocess("L", 8), Calibration.fit(np.arange(9.0), None, "split", 0.1), {})


def write(path: str, text: str, seconds: float, over: bool = False) -> None:
    """In another process: it says so when it is about to write, and takes so many seconds."""
    there = Path(path)
    if over:
        save_over(model(text, seconds), there, state_of(there) or "")
    else:
        save_beside(model(text, seconds), there)


def test_an_existing_model_is_kept_and_so_is_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "parts.okng"
    kept = [save_beside(model(text), path) for text in ("good", "bad", "worse", "worse")]
    names = [None if k is None else k.name for k in kept]
    assert names == [None, "parts.okng.bak", "parts.okng.bak2", "parts.okng.bak3"]
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert texts == {
        "parts.okng": "worse",
        "parts.okng.bak": "good",
        "parts.okng.bak2": "bad",
        "parts.okng.bak3": "worse",
    }
    assert save_beside(model("worse"), path) == path.with_name("parts.okng.bak3")  # the same again is kept once
    assert save_beside(model("new"), path, force=True) is None and len(list(tmp_path.iterdir())) == 4


def test_of_two_updates_at_the_same_time_none_is_lost(tmp_path: Path) -> None:
    """One is saved, the other is told, though both are at the check at once."""
    path = tmp_path / "parts.okng"
    path.write_text("old")
    read, refused = state_of(path), []
    assert read is not None

    def update(text: str) -> None:
        try:
            save_over(model(text, seconds=0.3), path, read)
        except OkngError as error:
            refused.append((text, str(error)))

    threads = [threading.Thread(target=update, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((loser, message),) = refused
    assert path.read_text() == ({"one", "two"} - {loser}).pop()
    assert "changed by another command" in message and "run this one again" in message
    assert [file.name for file in tmp_path.iterdir()] == ["parts.okng"]


def test_a_lock_that_a_killed_process_left_holds_nobody_up(tmp_path: Path) -> None:
    """Nor is it taken from one that lives, however long it takes."""
    path = tmp_path / "parts.okng"
    code = "import sys; from tests.inspection.test_saving import write; write(sys.argv[1], sys.argv[2], 20)"
    with subprocess.Popen([sys.executable, "-c", code, str(path), "never"], text=True, stdout=-1, cwd=ROOT) as other:
        assert other.stdout is not None and other.stdout.readline() == "writing\n"
        ours = threading.Thread(target=save_beside, args=(model("new"), path))
        ours.start()
        ours.join(0.5)
        waited = ours.is_alive() and not path.exists()
        other.kill()
    ours.join(20)
    assert waited and path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["parts.okng"]
    (tmp_path / ".parts.okng.lock").touch()  # by whatever else
    save_beside(model("new"), path, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["parts.okng"]


def test_of_two_updates_by_processes_none_is_lost(tmp_path: Path) -> None:
    """The second begins while the first one writes, so it waits, and then sees that the file is another."""
    path = tmp_path / "parts.okng"
    path.write_text("old")
    code = "import sys; from tests.inspection.test_saving import write; write(sys.argv[1], sys.argv[2], 1, over=True)"
    with subprocess.Popen([sys.executable, "-c", code, str(path), "one"], text=True, stdout=-1, cwd=ROOT) as first:
        assert first.stdout is not None and first.stdout.readline() == "writing\n"
        read = state_of(path)
        assert read is not None and path.read_text() == "old"
        with pytest.raises(OkngError, match=r"parts.okng was changed by another command while this one worked"):
            save_over(model("two"), path, read)
    assert first.returncode == 0 and path.read_text() == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["parts.okng"]


def test_a_change_goes_over_the_model_only_if_nobody_else_has_changed_it(tmp_path: Path) -> None:
    path, copy = tmp_path / "parts.okng", tmp_path / "copy.okng"
    path.write_text("old")
    before = state_before(path)
    path.write_text("of an update")
    for output in (None, path, tmp_path / "." / "parts.okng"):
        with pytest.raises(OkngError, match="changed by another command"):
            save_changed(model("new"), path, output, before)
    assert path.read_text() == "of an update"
    assert save_changed(model("new"), path, copy, before) == copy and copy.read_text() == "new"  # takes nobody's place
    assert save_changed(model("new"), path, None, state_before(path)) == path and path.read_text() == "new"
    assert state_before(tmp_path) is state_before(tmp_path / "none.okng") is None


def test_a_link_and_what_it_leads_to_have_one_lock(tmp_path: Path) -> None:
    path, link = tmp_path / "v7.okng", tmp_path / "current.okng"
    path.write_text("old")
    link.symlink_to(path.name)
    read, refused = state_of(path), []
    assert read is not None

    def update(where: Path, text: str) -> None:
        try:
            save_over(model(text, seconds=0.3), where, read)
        except OkngError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=update, args=each) for each in ((path, "one"), (link, "two"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1 and "changed by another command" in refused[0]


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OkngError, match="can't be written"):
        save_beside(model("new"), tmp_path / "file" / "parts.okng")
