"""A model file takes another's place without anyone's work being lost."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from okng.errors import OkngError
from okng.inspection.calibration import Calibration
from okng.inspection.images import Preprocess
from okng.inspection.inspector import Inspector
from okng.training.saving import STALE, save_beside, save_over, state_of


class Text:
    """An engine whose model file is its text."""

    def __init__(self, text: str, seconds: float = 0.0):
        self.text, self.seconds = text, seconds

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, None]:
        return np.zeros(len(pixels)), None

    def write(self, path: Path, manifest: object, arrays: object) -> None:
        time.sleep(self.seconds)
        path.write_text(self.text)


def model(text: str, seconds: float = 0.0) -> Inspector:
    return Inspector(Text(text, seconds), Preprocess("L", 8), Calibration.fit(np.arange(9.0), None, "split", 0.1), {})


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


def test_a_lock_that_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / ".parts.okng.lock"
    lock.touch()
    os.utime(lock, (time.time() - STALE - 1,) * 2)
    save_beside(model("new"), tmp_path / "parts.okng")
    assert [file.name for file in tmp_path.iterdir()] == ["parts.okng"]


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OkngError, match="can't be written"):
        save_beside(model("new"), tmp_path / "file" / "parts.okng")
