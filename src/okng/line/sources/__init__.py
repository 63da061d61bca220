"""What brings images: a folder that is watched, a video, a camera, or what another package brings.

A source is an iterable of lists of `Arrival`s. An empty list says that there is nothing just now; the end of the
iteration, that there will be nothing more. Of each arrival it is told what became of it: `done` or `failed`.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from okng.errors import OkngError, nearest_names
from okng.inspection.reading.images import Source as Image

ENTRY_POINTS = "okng.sources"
STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".mjpeg")

Say = Callable[[str], None]
"""Takes a line for the person."""


@dataclass(frozen=True)
class Arrival:
    """One image that a source brought.

    `name`: what people call it, the file's path, scan.tif[3], or video.mp4[frame 120]. `digest`: of its content. `key`:
    the same for the same image of the same source, after a restart too; None for what never comes twice, such as a
    camera's frames.
    """

    name: str
    image: Image
    digest: str
    key: str | None = None


class Source(Protocol):
    """What brings images."""

    name: str

    def __iter__(self) -> Iterator[list[Arrival]]:
        """What has arrived, again and again; [] where nothing has within a fraction of a second."""

    def done(self, arrival: Arrival, verdict: str) -> None:
        """`arrival` has its verdict, "OK" or "NG", and is in the store."""

    def failed(self, arrival: Arrival, why: str) -> bool:
        """`arrival` can't be read as an image, or judged; whether that is the end of it, and it will not come again."""

    def close(self) -> None:
        """Let go of folders and cameras."""


def is_video(text: str) -> bool:
    """Whether `text` names a video file, a camera or a stream."""
    return is_live(text) or text.lower().endswith(VIDEOS)


def is_live(text: str) -> bool:
    """Whether `text` names a camera or a stream, which has no end."""
    return re.fullmatch(r"camera:\d+", text) is not None or (
        text.partition("://")[0].lower() in STREAMS and "://" in text
    )


def open_source(text: str, say: Say, every: int = 1, then: str = "leave", settle: float = 0.5) -> Source:
    """The source that `text` names: FOLDER, video.mp4, camera:0, rtsp://…, or NAME:ANYTHING of an entry point.

    `every`: of a video each n-th frame. `then`: what becomes of a folder's files, "leave", "move" or "tag". `settle`:
    seconds for which a folder's file must not have changed before it is taken for whole.
    """
    if is_video(text):
        if then != "leave":
            raise OkngError("--then is about the files of a folder; leave it out for a video or a camera")
        from okng.line.sources.video import Video

        return Video(text, say, every)
    if every != 1:
        raise OkngError("--every is about the frames of a video or a camera; leave it out for a folder")
    folder = Path(text).expanduser()
    if folder.is_dir():
        from okng.line.sources.folder import Folder

        return Folder(folder, say, then, settle)
    kind, colon, where = text.partition(":")
    points = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if colon and kind in points:
        made: Source = from_outside(points[kind], where, say)
        return made
    if folder.exists():
        raise OkngError(f"{text} is neither a folder nor a video ({', '.join(VIDEOS)}); for images: okng inspect")
    if colon and re.fullmatch(r"\w{2,}", kind):
        known = nearest_names(kind, ["camera", *STREAMS, *points])
        raise OkngError(f"there is no source {kind!r}; {known}")
    raise OkngError(f"{text} does not exist; give a folder, a video file, camera:0 or rtsp://…")


def from_outside(point: importlib.metadata.EntryPoint, where: str, say: Say) -> Any:
    """What an installed package's entry point makes of the text behind its name; `OkngError` for what it raises."""
    try:
        return point.load()(where, say)
    except OkngError:
        raise
    except Exception as error:
        raise OkngError(f"{point.name} of {point.value} can't be opened: {error}") from error
