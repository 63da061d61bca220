"""Frames of files, cameras and streams: which come, what they are called, and what happens when they stop coming."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from parts import MODEL, inspector, picture, wait_for, write
from receivers import free_port

from okng.cli import app
from okng.errors import OkngError
from okng.line.outbox import Outbox
from okng.line.sources import Arrival, is_live, open_source
from okng.line.watch import Watch
from okng.store import Store

cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")

from okng.line.sources import video as module  # noqa: E402
from okng.line.sources.video import Video  # noqa: E402

FRAMES = 12


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.05)
    monkeypatch.setattr(module, "TICK", 0.02)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A video of 12 frames, of which 3, 6 and 9 are NG; lossless, so that they are what was written."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 10, (32, 32))
    assert writer.isOpened()
    for number in range(FRAMES):
        writer.write(np.ascontiguousarray(picture(number, number in (3, 6, 9))[:, :, ::-1]))
    writer.release()
    return path


def frames(source: Video, count: int, seconds: float = 10.0) -> list[Arrival]:
    found: list[Arrival] = []
    end = time.monotonic() + seconds
    for batch in source:
        found += batch
        if len(found) >= count:
            return found
        assert time.monotonic() < end
    return found


# Files


def test_each_nth_frame_of_a_file_comes_with_its_number_and_pixels(film: Path, said: list[str]) -> None:
    source = open_source(str(film), said.append, every=5)
    assert isinstance(source, Video) and source.total == 3
    found = [arrival for batch in source for arrival in batch]
    assert [arrival.name for arrival in found] == [f"{film}[frame {number}]" for number in (0, 5, 10)]
    for arrival, number in zip(found, (0, 5, 10), strict=True):
        difference = np.abs(np.asarray(arrival.image).astype(int) - picture(number))  # type: ignore[arg-type]
        assert difference.max() <= 2  # RGB, not BGR; the file's colours are YUV
    assert len({arrival.key for arrival in found}) == 3 and said == []


def test_a_file_is_gone_on_with_after_a_kill(film: Path, store: Store, said: list[str]) -> None:
    class Killed(Exception):
        pass

    def run(until: int) -> Watch:
        with Outbox(store, [], said.append) as outbox:
            loop = Watch(inspector(), MODEL, Video(str(film), said.append), store, outbox, said.append)

            def tick() -> None:
                if sum(loop.counts.values()) == until:
                    raise Killed

            loop.run(tick)
        return loop

    with pytest.raises(Killed):
        run(5)
    again = run(-1)
    assert (again.known, again.counts) == (5, {"OK": 5, "NG": 2})
    names = [str(record.path) for record in store.records.each()]
    assert names == [f"{film}[frame {number}]" for number in range(FRAMES)] and said == []


def test_a_damaged_file_is_said(film: Path, tmp_path: Path, said: list[str]) -> None:
    whole = film.read_bytes()
    cut = write(tmp_path / "cut.avi", whole[: len(whole) // 2])
    found = [arrival for batch in Video(str(cut), said.append) for arrival in batch]
    assert 0 < len(found) < FRAMES
    assert said == [f"{cut} ends after {len(found)} of {FRAMES} frames: it is damaged, or still being written"]
    junk = write(tmp_path / "junk.mp4", b"junk" * 1000)
    with pytest.raises(OkngError, match="is no video that can be read"):
        list(Video(str(junk), said.append))


def test_inspect_judges_a_video(model: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--every", "3", "--csv", str(tmp_path / "all.csv"), "--overlays", str(tmp_path / "maps"), "--json"]
    app(["inspect", str(model), str(film), *asked, "--report", str(tmp_path / "report")], standalone_mode=False)
    told, errors = capsys.readouterr()
    found = json.loads(told)
    assert [image["verdict"] for image in found["images"]] == ["OK", "NG", "NG", "NG"]
    assert (found["complete"], found["total"]) == (True, 4)
    with (tmp_path / "all.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f"{film}[frame {number}]" for number in (0, 3, 6, 9)]
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 4
    assert "film.avi[frame 9]" in (tmp_path / "report/report.html").read_text()
    assert "wrote 4 of 4 overlays" in errors


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["{film}", "other.png"], "is a video; inspect it by itself"),
        (["{film}", "--every", "0"], "every is 1 or more"),
        (["other.png", "--every", "2"], "--every is about the frames"),
        (["none.mp4"], "does not exist; give a video file"),
        (["camera:99"], "camera:99 gives no image"),
        (["rtsp://me:secret@127.0.0.1:1/line"], "rtsp://127.0.0.1:1/line gives no image"),
    ],
)
def test_mistakes_are_one_line(model: Path, film: Path, words: list[str], answer: str) -> None:
    with pytest.raises(OkngError) as caught:
        app(["inspect", str(model), *[word.replace("{film}", str(film)) for word in words]], standalone_mode=False)
    assert answer in str(caught.value) and "\n" not in str(caught.value)


# Cameras


class Camera:
    """What OpenCV gives, of a camera whose plug is `plugged` or pulled."""

    plugged = True
    rate = 200.0
    opened = 0

    def __init__(self) -> None:
        type(self).opened += 1

    def isOpened(self) -> bool:
        return self.plugged

    def grab(self) -> bool:
        time.sleep(1 / self.rate)
        return self.plugged

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, picture(1)[:, :, ::-1]

    def get(self, what: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[Camera]:
    class One(Camera):
        pass

    monkeypatch.setattr(module, "capture", lambda place: One())
    return One


def test_a_camera_that_is_unplugged_is_found_again(camera: type[Camera], said: list[str]) -> None:
    source = Video("camera:0", said.append)
    iterator = iter(source)
    found = next(batch for batch in iterator if batch)
    assert found[0].name.startswith("camera:0[frame 0 20") and found[0].key is None
    camera.plugged = False
    wait_for(lambda: said)
    assert said == ["camera:0 gives no image; it is tried again until it does"]
    opened = camera.opened
    wait_for(lambda: camera.opened > opened + 2)
    assert len(said) == 1  # each try is not
    camera.plugged = True
    wait_for(lambda: len(said) == 2)
    assert said[1].startswith("camera:0 gives images again, after")
    before = int(found[0].name.split()[1])
    assert any(int(batch[0].name.split()[1]) > before for batch in iterator if batch)  # numbers go on
    source.close()


def test_the_newest_frame_is_judged_and_the_others_are_counted(camera: type[Camera], said: list[str]) -> None:
    source = Video("camera:0", said.append, every=2)
    iterator = iter(source)
    numbers = []
    for batch in iterator:
        numbers += [int(arrival.name.split()[1]) for arrival in batch]
        if len(numbers) == 5:
            break
        time.sleep(0.06)  # a slow model
    source.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "okng-video"]
    assert all(number % 2 == 0 for number in numbers) and numbers[-1] > 20
    assert said and "frames came faster than they could be judged and were left out" in said[0]


def test_every_kind_of_live_source_is_known() -> None:
    assert is_live("camera:0") and is_live("rtsp://cam/1") and is_live("http://cam/mjpeg")
    assert not is_live("camera") and not is_live("film.mp4") and not is_live("rtsp")


# RTSP


@contextmanager
def rtsp(port: int) -> Iterator[subprocess.Popen[str]]:
    """A server of GStreamer's on `port`, or the test is skipped."""
    python = "/usr/bin/python3"
    if not Path(python).exists():
        pytest.skip("no system Python with GStreamer: apt-get install gir1.2-gst-rtsp-server-1.0")
    command = [python, str(Path(__file__).with_name("rtsp_server.py")), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        if server.stdout.readline() != "listening\n":
            why = server.stderr.read().strip().splitlines()[-1]
            pytest.skip(f"no RTSP server ({why}): apt-get install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good")
        try:
            yield server
        finally:
            server.terminate()


def test_a_stream_is_judged_and_found_again_when_its_server_was_gone(
    store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 3.0)
    port = free_port()
    source = Video(f"rtsp://127.0.0.1:{port}/line", said.append, every=3)
    with Outbox(store, [], said.append) as outbox:
        loop = Watch(inspector(), MODEL, source, store, outbox, said.append)
        running = threading.Thread(target=loop.run, args=(lambda: None,))
        running.start()
        try:
            wait_for(lambda: said)  # there is no server yet
            with rtsp(port):
                wait_for(lambda: sum(loop.counts.values()) >= 3, 20)
            wait_for(lambda: len([line for line in said if "gives no image" in line]) == 2, 20)
            before = sum(loop.counts.values())
            with rtsp(port):
                wait_for(lambda: sum(loop.counts.values()) >= before + 3, 20)
        finally:
            source.close()
            running.join(10)
    assert len([line for line in said if "gives images again" in line]) == 2
    numbers = [int(str(record.path).partition("[frame ")[2].split()[0]) for record in store.records.each()]
    assert numbers == sorted(numbers) and all(number % 3 == 0 for number in numbers)
    (height, width) = next((record.height, record.width) for record in store.records.each())
    assert (height, width) == (64, 64)


def test_the_extra_is_named_where_opencv_is_missing(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "okng.line.sources.video")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(OkngError, match=r"\[serve,video\]"):
        open_source(str(film), print)
