"""Files a person asked for: a table of results, overlays of heatmaps. A part never goes by the name of the whole."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import short_name, write_atomically
from okng.inspection.overlay import heat_range, overlay
from okng.inspection.reading.files import OVERLAYS_MARK, find_images
from okng.inspection.reading.images import UnreadableImage
from okng.inspection.storage.urls import url_of
from okng.inspection.verdict.result import Inspection

COLUMNS = ("path", "score", "p_value", "verdict", "regions", "left", "top", "right", "bottom", "reasons", "product")
VERDICTS = ("OK", "NG")


class Stream(Protocol):
    """What lines are written to."""

    def write(self, data: bytes, /) -> Any:
        """Take `data`."""

    def flush(self) -> Any:
        """Hand on what was taken."""


def partial_name(path: Path) -> Path:
    """The name of what is not complete: r.partial.csv for r.csv."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def is_stream(path: Path) -> bool:
    """Whether `path` is a device or a pipe, which takes what comes and can't be replaced."""
    return str(path).startswith("/dev/") or (path.exists() and not path.is_file() and not path.is_dir())


def table_row(inspection: Inspection) -> list[Any]:
    """One result as the values of `COLUMNS`; the box is that of the strongest region, or empty."""
    box = [round(side, 1) for side in inspection.regions[0].box] if inspection.regions else [""] * 4
    judged = [inspection.path, repr(inspection.score), f"{inspection.p_value:.6f}", inspection.verdict]
    return [*judged, len(inspection.regions), *box, "; ".join(inspection.reasons), inspection.product or ""]


def csv_line(values: Any) -> bytes:
    """`values` as one line of a CSV file; of a file name that is no Unicode the odd bytes are escaped."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow(values)
    return text.getvalue().encode(errors="backslashreplace")


class CsvFile:
    """One line per image: path, score, p_value, verdict, the box of the strongest region, why, and the product.

    It grows as NAME.partial.csv beside `path` and takes its name when it is complete; until then an older file stays. A
    device or a pipe is written directly, and so is `stream`. What can't be written ends the file, not the run: `error`
    says why, and `rows` how many images there are in it. For a URL of storage it grows on this machine.
    """

    def __init__(self, path: Path, stream: Stream | None = None):
        self.path, self.rows, self.error = path, 0, ""
        self._opened = contextlib.ExitStack()
        self._far = url_of(path) is not None
        if self._far:
            folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="okng-"))
            self._growing = Path(folder) / path.name
        else:
            self._growing = path if stream is not None or is_stream(path) else partial_name(path)
        self._handed = stream is not None
        self._whole = 0  # bytes of whole lines
        try:
            if stream is None:
                self._growing.parent.mkdir(parents=True, exist_ok=True)
                stream = self._opened.enter_context(self._growing.open("wb"))
            self._stream: Stream = stream
        except OSError as error:
            raise OkngError(f"{self._growing} can't be written: {error.strerror or error}") from error
        self._write(COLUMNS)

    def add(self, inspection: Inspection) -> None:
        """Append one result."""
        self.rows += self._write(table_row(inspection))

    def close(self, complete: bool) -> Path | None:
        """Where the lines are now: under their own name if all went well and they are `complete`; None for no file."""
        if self._far:
            return self._put(complete and not self.error)
        with contextlib.suppress(OSError):  # what is left in the buffer can't be written either
            self._opened.close()
        if self._growing == self.path:
            return self.path
        try:
            if complete and not self.error:
                self._growing.replace(self.path)
                return self.path
            os.truncate(self._growing, self._whole)
        except OSError as error:
            self.error = self.error or error.strerror or str(error)
        if not self.rows:
            self._growing.unlink(missing_ok=True)
        return self._growing if self.rows else None

    def _put(self, whole: bool) -> Path | None:
        """Bring what has grown here to storage; the path there, None where there is nothing."""
        target = self.path if whole else partial_name(self.path)
        with self._opened:
            if not whole and not self.rows:
                return None
            try:
                write_atomically(target, self._growing.read_bytes()[: self._whole])
            except OkngError as error:
                self.error = str(error)
                return None
        return target

    def _write(self, values: Any) -> bool:
        """Whether the line is in the file."""
        if self.error:
            return False
        line = csv_line(values)
        try:
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            if self._handed and isinstance(error, BrokenPipeError):
                raise  # the reader left, and standard output is all there is: see `Lines`
            self.error = error.strerror or str(error)
            return False
        self._whole += len(line)
        return True


class Overlays:
    """Heatmaps over images, FOLDER/VERDICT/NAME-DIGITS.png, where the digits are drawn from the image's path.

    So an image has one name in every run, and lies under one verdict: its picture of an earlier run under the other one
    is removed, and nothing else. The folder is marked, and okng leaves it out when it looks for images; a folder that
    holds other images is refused. `written` counts; `failed` names what could not be drawn or written, and why.
    """

    def __init__(self, folder: Path, inspector: Inspector):
        self.folder, self.inspector = folder, inspector
        self.written = 0
        self.failed: list[str] = []
        if not (folder / OVERLAYS_MARK).exists() and folder.is_dir() and find_images(folder):
            raise OkngError(f"{folder} holds images that are no overlays of okng's; choose another folder for overlays")

    def add(
        self, inspection: Inspection, heat: tuple[float, float] | None = None, image: np.ndarray | None = None
    ) -> Path | None:
        """Draw and write one; None where that failed, or for pixels that have no file.

        `heat`: where colour begins and where it is full, by default `heat_range` of the calibration. `image`: the
        pixels that were inspected, where `inspection.path` is the name of no file.
        """
        if inspection.path is None:
            return None
        digits = hashlib.sha256(os.fsencode(url_of(inspection.path) or Path(inspection.path).resolve())).hexdigest()[:8]
        name = f"{short_name(Path(inspection.path).stem, 200)}-{digits}.png"
        target = self.folder / inspection.verdict / name
        try:
            picture = replace(self.inspector.preprocess, mode="RGB").decode(inspection.path if image is None else image)
            content = io.BytesIO()
            low, high = heat or heat_range(self.inspector.calibrations[inspection.product])
            overlay(picture, inspection, low, high, self.inspector.rules).save(content, "PNG")
            mark = self.folder / OVERLAYS_MARK
            if not mark.exists():
                write_atomically(mark, b"Drawn by okng, which takes nothing here for an image.\n")
            write_atomically(target, content.getvalue())
            for other in VERDICTS:
                stale = self.folder / other / name
                if other != inspection.verdict and stale.exists():
                    stale.unlink()
        except (UnreadableImage, OkngError, OSError) as error:
            self.failed.append(f"no overlay of {inspection.path}: {error}")
            return None
        self.written += 1
        return target
