"""Frames of a video file, of a camera or of a stream, by OpenCV."""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from okng.checks import at_least
from okng.errors import OkngError, missing_extra
from okng.inspection.reading.images import fingerprint
from okng.line.names import shown, without_password
from okng.line.sources import Arrival, Say, is_live

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what fails is said here, once, in words
try:
    import cv2
except ModuleNotFoundError as error:
    raise missing_extra("opencv-python-headless", "serve,video") from error

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

TIMEOUT = 10.0  # seconds without an answer after which a stream is lost
LONGEST = 30.0  # seconds between tries to reach it again
TICK, LEAVE = 0.2, 3.0  # seconds to wait for a frame, and for the thread that reads them to end


class Capture(Protocol):
    """What OpenCV's `VideoCapture` is used for."""

    def isOpened(self) -> bool:
        """Whether there is something to read."""

    def grab(self) -> bool:
        """Go on to the next frame; False where there is none."""

    def retrieve(self) -> tuple[bool, Any]:
        """Whether the frame could be decoded, and the frame, BGR (H, W, 3)."""

    def get(self, what: int) -> float:
        """A property."""

    def release(self) -> None:
        """Let go of it."""


def capture(place: str) -> Capture:
    """Open a video file, camera:NUMBER, or the URL of a stream."""
    if place.startswith("camera:"):
        return cv2.VideoCapture(int(place.removeprefix("camera:")))
    patience = int(TIMEOUT * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience]
    return cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)


class Video:
    """Each `every`-th frame of `place`: a video file, camera:0, or a stream such as rtsp://….

    Frames of a file are named video.mp4[frame 120], counted from 0, and come all; a file that was read before is gone
    on with, as the store knows its frames. A camera does not wait: frames that nobody had time for are dropped, so that
    the newest is judged, and counted. Its frames have the time in their name, as their number begins anew
    at each start. A camera or a stream that is lost is looked for again, after 1 s, 2 s, … up to half a minute.
    """

    def __init__(self, place: str, say: Say, every: int = 1):
        at_least(1, every=every)
        self.live = is_live(place)
        self.place, self.say, self.every = place if self.live else str(Path(place).expanduser()), say, every
        self.name = without_password(place) if self.live else shown(Path(self.place).absolute())
        self.dropped = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="okng-video", daemon=True)
        self._frames: queue.Queue[tuple[str, np.ndarray]] = queue.Queue(1)
        if not self.live and not Path(self.place).is_file():
            raise OkngError(f"{place} does not exist; give a video file, camera:0 or rtsp://…")

    def check(self) -> None:
        """`OkngError` for a camera or stream that gives nothing now, for somebody who waits for it."""
        found = capture(self.place)
        try:
            if not (found.isOpened() and found.grab()):
                raise OkngError(f"{self.name} gives no image; see to its name, its cable and that nobody else has it")
        finally:
            found.release()

    @property
    def total(self) -> int | None:
        """How many frames a file says that it will give; None for what has no end."""
        if self.live:
            return None
        found = capture(self.place)
        try:
            return max(0, math.ceil(found.get(cv2.CAP_PROP_FRAME_COUNT) / self.every))
        finally:
            found.release()

    def __iter__(self) -> Iterator[list[Arrival]]:
        if not self.live:
            yield from self._file(Path(self.place))
            return
        self._thread.start()
        while not self._closed.is_set():
            try:
                name, frame = self._frames.get(timeout=TICK)
            except queue.Empty:
                yield []
            else:
                yield [Arrival(name, frame, fingerprint(frame))]

    def done(self, arrival: Arrival, verdict: str) -> None:
        """Nothing becomes of a frame."""

    def failed(self, arrival: Arrival, why: str) -> bool:
        """It is left out."""
        self.say(f"skipped: {arrival.name}: {why}")
        return True

    def close(self) -> None:
        """Let go of the camera, and say what was too much."""
        self._closed.set()
        if self._thread.is_alive():  # the program's end inside OpenCV would be a crash
            self._thread.join(LEAVE)
        if self.dropped:
            self.say(f"{self.name}: {self.dropped} frames came faster than they could be judged and were left out")

    def _file(self, path: Path) -> Iterator[list[Arrival]]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        found = capture(str(path))
        number = 0
        try:
            if not found.isOpened():
                raise OkngError(f"{path} is no video that can be read; see whether it is whole")
            while not self._closed.is_set() and found.grab():
                if number % self.every == 0:
                    frame = _rgb(found)
                    if frame is not None:
                        name = f"{self.name}[frame {number}]"
                        yield [Arrival(name, frame, fingerprint(frame), f"{digest} {name}")]
                number += 1
            promised = int(found.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            found.release()
        if number < promised and not self._closed.is_set():
            self.say(f"{self.name} ends after {number} of {promised} frames: it is damaged, or still being written")
        if not number:
            raise OkngError(f"{path} has no frame that can be read; see whether it is whole")

    def _watch(self) -> None:
        """Read a camera for ever, in a thread of its own: it gives frames whether somebody has time for them or not."""
        number, tries, lost = 0, 0, 0.0
        while not self._closed.is_set():
            found = capture(self.place)
            with suppress(cv2.error):
                while not self._closed.is_set() and found.isOpened() and found.grab():
                    if tries:
                        self.say(f"{self.name} gives images again, after {time.monotonic() - lost:.0f} s")
                        tries = 0
                    frame = _rgb(found) if number % self.every == 0 else None
                    if frame is not None:
                        self._offer(frame, number)
                    number += 1
            found.release()
            if self._closed.is_set():
                return
            if not tries:
                lost = time.monotonic()
                self.say(f"{self.name} gives no image; it is tried again until it does")
            self._closed.wait(min(LONGEST, 2.0**tries))
            tries = min(tries + 1, 10)

    def _offer(self, frame: np.ndarray, number: int) -> None:
        """Put the newest frame in the place of one that nobody took."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        with suppress(queue.Empty):
            self._frames.get_nowait()
            self.dropped += 1
        self._frames.put((f"{self.name}[frame {number} {now}]", frame))


def _rgb(found: Capture) -> np.ndarray | None:
    """The frame at hand, uint8 RGB (H, W, 3), or grey (H, W); None where it is damaged."""
    whole, frame = found.retrieve()
    if not whole or frame is None:
        return None
    return np.ascontiguousarray(frame[:, :, ::-1]) if frame.ndim == 3 else frame
