"""`okng watch` does everything once: over restarts, kills, a store that fails, images that can't be read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parts import MODEL, inspector, picture, png, wait_for, write
from PIL import Image

from okng.cli import app
from okng.errors import OkngError
from okng.line.outbox import Outbox
from okng.line.sources import Arrival, folder
from okng.line.sources.folder import Folder
from okng.line.watch import Watch
from okng.store import Store, StoreError
from okng.store.retention import Retention


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "TICK", 0.02)
    monkeypatch.setattr(folder, "PATIENCE", 0.2)
    monkeypatch.setattr(folder, "AGAIN", 0.2)
    monkeypatch.setattr("okng.line.watch.RETRY", 0.05)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return (tmp_path / "in").resolve()


class Enough(Exception):
    """Ends a watch as a kill does: at any point, with nothing done after it."""


def watch(store: Store, place: Path, said: list[str], until: Any, then: str = "leave", **how: Any) -> Watch:
    """Watch a folder until `until(loop)` is true."""
    with Outbox(store, [], said.append) as outbox:
        loop = Watch(inspector(), MODEL, Folder(place, said.append, then, 0.02), store, outbox, said.append, **how)
        end = time.monotonic() + 10

        def tick() -> None:
            assert time.monotonic() < end
            if until(loop):
                raise Enough

        with pytest.raises(Enough):
            loop.run(tick)
    return loop


def records(store: Store) -> list[tuple[str, str]]:
    return [(Path(str(record.path)).name, record.verdict) for record in store.records.each()]


def test_verdicts_are_those_of_inspect(store: Store, place: Path, said: list[str]) -> None:
    for number in range(20):
        write(place / f"{number}.png", png(number, number % 3 == 0))
    watch(store, place, said, lambda loop: sum(loop.counts.values()) == 20)
    found = {str(record.path): record for record in store.records.each()}
    for wanted in inspector().inspect(place):
        kept = found.pop(str(wanted.path))
        assert (kept.score, kept.p_value, kept.verdict) == (wanted.score, wanted.p_value, wanted.verdict)
        assert [region["box"] for region in kept.details["regions"]] == [list(r.box) for r in wanted.regions]
    assert not found and said == []


def test_a_restart_does_nothing_twice_and_a_new_model_does_all_again(
    store: Store, place: Path, said: list[str]
) -> None:
    for number in range(3):
        write(place / f"{number}.png", png(number))
    watch(store, place, said, lambda loop: loop.counts["OK"] == 3)
    write(place / "3.png", png(3, ng=True))
    again = watch(store, place, said, lambda loop: loop.counts["NG"] == 1)
    assert again.known == 3 and again.counts == {"OK": 0, "NG": 1} and len(records(store)) == 4
    with Outbox(store, [], said.append) as outbox:
        other = replace(MODEL, name="other")
        loop = Watch(inspector(), other, Folder(place, said.append, settle=0.02), store, outbox, said.append)

        def tick() -> None:
            if sum(loop.counts.values()) == 4:
                raise Enough

        with pytest.raises(Enough):
            loop.run(tick)
    assert len(records(store)) == 8


def test_what_was_recorded_before_a_kill_is_only_moved_after_it(
    store: Store, place: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place / "1.png", png(1, ng=True))

    def killed(*_: object) -> None:
        raise Enough

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "done", killed)
        watch(store, place, said, lambda loop: False, "move")
    assert records(store) == [("1.png", "NG")] and (place / "1.png").exists()
    again = watch(store, place, said, lambda loop: loop.known == 1, "move")
    assert records(store) == [("1.png", "NG")] and (place / "NG" / "1.png").exists() and again.counts["NG"] == 0


def test_what_is_no_image_is_said_once_and_put_aside(store: Store, place: Path, said: list[str]) -> None:
    write(place / "bad.png", b"junk")
    write(place / "good.png", png(1))
    pages = [Image.fromarray(picture(number)) for number in range(3)]
    pages[0].save(place / "scan.tif", save_all=True, append_images=pages[1:])
    loop = watch(store, place, said, lambda loop: loop.unread == 1 and loop.counts["OK"] == 4, "move")
    assert [line for line in said if "bad.png" in line] == said and "holds no image" in said[0] and loop.unread == 1
    assert (place / "failed/bad.png").exists() and (place / "OK/scan.tif").exists()
    assert sorted(name for name, _ in records(store)) == ["good.png", "scan.tif[0]", "scan.tif[1]", "scan.tif[2]"]


def test_damaged_pages_stop_neither_the_others_nor_the_watch(store: Store, place: Path, said: list[str]) -> None:
    pages = [Image.fromarray(picture(number)) for number in range(4)]
    scan = write(place / "scan.tif", b"")
    pages[0].save(scan, save_all=True, append_images=pages[1:], compression="tiff_deflate")
    content = bytearray(scan.read_bytes())
    with Image.open(scan) as whole:
        for page in (0, 1):
            whole.seek(page)
            for start, size in zip(whole.tag_v2[273], whole.tag_v2[279], strict=True):  # type: ignore[attr-defined]
                content[start : start + size] = bytes(size)
    write(scan, bytes(content))
    write(place / "z.png", png(5))
    loop = watch(store, place, said, lambda loop: loop.unread and loop.counts["OK"] == 3, "move")
    assert sorted(name for name, _ in records(store)) == ["scan.tif[2]", "scan.tif[3]", "z.png"]
    assert len(said) == 1 and said[0].startswith(f"skipped: {scan}: ") and loop.unread == 1
    assert (place / "failed/scan.tif").exists()


@pytest.mark.parametrize("failure", ["is no number", "out of memory"])
def test_an_image_that_the_detector_fails_at_stops_no_other(
    store: Store, place: Path, said: list[str], failure: str
) -> None:
    for number in range(4):
        write(place / f"{number}.png", png(number, number == 2))
    engine = inspector().engine

    def failing(pixels: np.ndarray) -> Any:
        scores, maps = engine(pixels)
        if scores.max() > 200 and failure == "out of memory":
            raise RuntimeError("out of memory\n  in node 7")
        return np.where(scores > 200, np.nan, scores), maps

    with Outbox(store, [], said.append) as outbox:
        sick = inspector()
        sick.engine = failing  # type: ignore[assignment]
        loop = Watch(sick, MODEL, Folder(place, said.append, "move", 0.02), store, outbox, said.append)

        def tick() -> None:
            if loop.unread:
                raise Enough

        with pytest.raises(Enough):
            loop.run(tick)
    assert records(store) == [("0.png", "OK"), ("1.png", "OK"), ("3.png", "OK")]
    assert len(said) == 1 and failure in said[0] and "\n" not in said[0] and (place / "failed/2.png").exists()


def test_an_engine_that_fails_at_everything_ends_the_watch(store: Store, place: Path, said: list[str]) -> None:
    """Or all that the line makes would be put aside as failed, and nobody would start it again."""
    for number in range(6):
        write(place / f"{number}.png", png(number))

    def broken(pixels: np.ndarray) -> Any:
        raise RuntimeError("CUDA error: device lost")

    with Outbox(store, [], said.append) as outbox:
        sick = inspector()
        sick.engine = broken  # type: ignore[assignment]
        loop = Watch(sick, MODEL, Folder(place, said.append, "move", 0.02), store, outbox, said.append)
        with pytest.raises(OkngError, match=r"fails at image after image \(CUDA error: device lost\)"):
            loop.run(lambda: None)
    assert records(store) == [] and len(list(place.glob("*.png"))) >= 4  # they are there for the next start


def failing(real: Any, times: int, why: str) -> Any:
    """The same as `real`, but for the first `times` calls, at which the store can't be used."""
    calls: list[object] = []

    def tried(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) <= times:
            raise StoreError(why)
        return real(*arguments, **named)

    return tried


def test_a_store_that_is_full_is_waited_for(
    store: Store, place: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.records, "with_key", failing(store.records.with_key, 2, "the store is locked"))
    monkeypatch.setattr(store, "record", failing(store.record, 3, "the store is full"))
    write(place / "1.png", png(1))
    watch(store, place, said, lambda loop: loop.counts["OK"] == 1)
    assert said == ["the store is locked; waiting", "the store is full; waiting"] and len(records(store)) == 1


def test_a_store_that_can_not_be_cleared_now_is_waited_for(
    model: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def cleared(self: Retention, *limits: float | None) -> None:
        asked.append(limits)
        raise StoreError("the store is locked") if len(asked) < 3 else Enough

    monkeypatch.setattr(Retention, "keep", cleared)
    words = ["watch", str(model), str(place), "--store", str(tmp_path / "store"), "--keep-days", "7"]
    with pytest.raises(Enough):
        app(words, standalone_mode=False)
    assert asked == 3 * [(7.0, None)] and capsys.readouterr().err.count("the store is locked; waiting") == 1


@pytest.mark.parametrize(("keep", "wanted"), [("none", []), ("odd", ["2.png"]), ("all", ["0.png", "1.png", "2.png"])])
def test_the_images_asked_for_are_kept(
    store: Store, place: Path, said: list[str], keep: str, wanted: list[str]
) -> None:
    for number in range(3):
        write(place / f"{number}.png", png(number, number == 2))
    watch(store, place, said, lambda loop: sum(loop.counts.values()) == 3, keep=keep)
    kept = [record for record in store.records.each() if record.has_image]
    assert [Path(str(record.path)).name for record in kept] == wanted
    for record in kept:
        assert store.records.image(record.id) == Path(str(record.path)).read_bytes()
    small, hot = store.records.thumbnail(1), store.records.heat(1)
    assert small is not None and small.startswith(b"\xff\xd8") and hot is not None


def test_warnings_are_said_once_not_for_every_image(store: Store, place: Path, said: list[str]) -> None:
    dark = inspector()
    dark.manifest["learnt_images"] = {
        "height": [32, 32], "width": [32, 32], "aspect": [1, 1], "brightness": [100, 110], "grey": [False],
        "white": [255], "format": ["PNG"],
    }  # fmt: skip

    class One:
        name = "one"

        def __iter__(self) -> Iterator[list[Arrival]]:
            for number in range(50):
                yield [Arrival(str(number), picture(number), "d")]

        def done(self, arrival: Arrival, verdict: str) -> None: ...
        def failed(self, arrival: Arrival, why: str) -> bool: ...  # type: ignore[empty-body]
        def close(self) -> None: ...

    with Outbox(store, [], said.append) as outbox:
        Watch(dark, MODEL, One(), store, outbox, said.append).run(lambda: None)
    assert len(said) == 1 and "brightness" in said[0]
    assert len(records(store)) == 50  # without keys all are new


# The program


PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background
from okng.cli import main
main()
"""


def start(model: Path, place: Path, store: Path, *more: str) -> subprocess.Popen[str]:
    how = ["--settle", "0.02", "--threads", "1", "--engine", "onnxruntime"]
    words = ["watch", model, place, "--store", store, *how, *more]
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program_prints_json_lines_and_ends_cleanly(model: Path, place: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(place / f"{number}.png", png(number, number == 1))
    more = ["--to", "jsonl", "--to", f"copy:{tmp_path / 'sorted'}"]
    with start(model, place, tmp_path / "store", *more) as running:
        assert running.stdout is not None
        lines = [json.loads(running.stdout.readline()) for _ in range(3)]
        write(place / "3.png", png(3))
        lines.append(json.loads(running.stdout.readline()))
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
    assert running.returncode == 130 and errors.splitlines()[-2:] == [
        "3 OK, 1 NG",
        "okng: stopped; nothing is left half-written",
    ]
    assert [(Path(line["path"]).name, line["verdict"]) for line in lines] == [
        ("0.png", "OK"), ("1.png", "NG"), ("2.png", "OK"), ("3.png", "OK"),
    ]  # fmt: skip
    assert len(list((tmp_path / "sorted/OK").iterdir())) == 3


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        (["--to", "copy:{in}/sorted"], "lies in the folder that is watched"),
        (["--to", "copy:{tmp}/s", "--then", "move"], "add: --keep-images all"),
        (["--keep-images", "some"], "--keep-images is all, odd or none"),
        (["--to", "jsonl", "--to", "jsonl"], "jsonl is given twice"),
        (["--keep-days", "-1"], "keep_days is above 0, not -1"),
        (["--keep-gb", "0"], "keep_gb is above 0, not 0"),
    ],
)
def test_mistakes_are_said_before_anything_is_watched(
    model: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], answer: str
) -> None:
    monkeypatch.setattr(Watch, "run", lambda *_: pytest.fail("it watches"))
    told = [text.replace("{in}", str(place)).replace("{tmp}", str(tmp_path)) for text in more]
    with pytest.raises(OkngError) as caught:
        app(["watch", str(model), str(place), "--store", str(tmp_path / "store"), *told], standalone_mode=False)
    assert answer in str(caught.value) and "\n" not in str(caught.value)


def test_kill_9_at_any_moment_loses_nothing_and_does_nothing_twice(model: Path, place: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    for number in range(60):
        write(ready / f"{number}.png", png(number, number % 5 == 0))
    more = ["--then", "move", "--to", f"csv:{tmp_path / 'all.csv'}"]
    for turn in range(4):
        for number in range(15 * turn, 15 * turn + 15):
            shutil.move(ready / f"{number}.png", place)
        with start(model, place, tmp_path / "store", *more) as running:
            if turn < 3:
                wait_for(lambda: len(list(place.glob("*/*.png"))) > 15 * turn + 4, 20)  # noqa: B023
                os.kill(running.pid, signal.SIGKILL)
            else:
                wait_for(lambda: not list(place.glob("*.png")), 20)
                running.send_signal(signal.SIGINT)
            running.communicate(timeout=20)
    store = Store.open(tmp_path / "store")
    found = [(Path(str(record.path)).name, record.verdict) for record in store.records.each()]
    assert sorted(found) == sorted((f"{number}.png", "NG" if number % 5 == 0 else "OK") for number in range(60))
    assert store.deliveries.waiting() == {}
    store.close()
    told = [line.split(",") for line in (tmp_path / "all.csv").read_text().splitlines()[1:]]
    assert [int(line[0]) for line in told] == sorted({int(line[0]) for line in told}) and len(told) == 60
    moved = {(path.name, path.parent.name) for path in place.glob("*/*.png")}
    assert moved == set(found)
