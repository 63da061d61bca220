"""All images of a report, line by line: a CSV file, and the same for the page's table."""

from __future__ import annotations

import contextlib
import csv
import heapq
import io
import os
import tempfile
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from okng.detectors.cards import cards
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.outputs import COLUMNS, csv_line, table_row
from okng.inspection.storage.urls import url_of
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.result import Inspection
from okng.report.words import distance

IN_MEMORY = 1 << 20  # bytes
ROWS = 20_000  # that the page holds; a browser takes them in a moment


class Table:
    """One line per image, as `COLUMNS`, and the label and the kind where they are known.

    They lie in memory up to `IN_MEMORY` bytes, then in a file without a name.
    """

    def __init__(self) -> None:
        self._lines = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="okng-report-")  # noqa: SIM115
        self._labelled = False

    def add(self, inspection: Inspection, label: int | None, kind: str) -> None:
        """Append one result; `OkngError` where the disk has no room."""
        self._labelled = self._labelled or label is not None or bool(kind)
        try:
            self._lines.write(csv_line([*table_row(inspection), {0: "OK", 1: "NG"}.get(label, ""), kind]))  # type: ignore[arg-type]
        except OSError as error:
            raise _no_room(error) from error

    def as_csv(self) -> Iterator[bytes]:
        """The CSV file, line by line; without labels in the last two columns there are none. Errors as in `add`."""
        columns = len(COLUMNS) + 2 * self._labelled
        yield csv_line([*COLUMNS, "label", "kind"][:columns])
        for row in self._rows():
            yield csv_line(row[:columns])

    def for_page(self, calibration: Calibration) -> dict[str, Any]:
        """What the page's table shows: the `ROWS` oddest images, in the order of inspection.

        A row is [number, path below "root", score, p-value, distance, called NG, regions, label, kind]; paths are
        absolute or URLs, empty for pixels that have no file.
        """
        rows: list[list[Any]] = []
        numbered = ((float(f"{float(row[1]):.6g}"), number, row) for number, row in enumerate(self._rows(), 1))
        for rounded, number, row in heapq.nlargest(ROWS, numbered, key=itemgetter(0)):
            path, score, p, verdict, regions, *_, label, kind = row
            far = distance(float(score), calibration)
            rows.append([
                number, path and (url_of(path) or str(Path(path).absolute())), rounded, float(f"{float(p):.4g}"),
                None if far is None else round(far, 2), int(verdict == "NG"), int(regions), label, kind,
            ])  # fmt: skip
        rows.sort()
        root = ""
        with contextlib.suppress(ValueError):  # no images, pixels without a file, drives of Windows
            if not any(url_of(row[1]) for row in rows):
                root = os.path.commonpath([Path(row[1]).parent for row in rows]).rstrip(os.sep) + os.sep
        for row in rows:
            row[1] = row[1].removeprefix(root)
        kinds = sorted({row[8] for row in rows} - {""})
        smallest = float(f"{calibration.smallest_rate:.4g}")
        return {"root": root, "rows": rows, "kinds": kinds, "smallest": smallest}

    def _rows(self) -> Iterator[list[str]]:
        """The lines as they were added."""
        try:
            self._lines.seek(0)  # which writes the last of them
        except OSError as error:
            raise _no_room(error) from error
        text = io.TextIOWrapper(self._lines, "utf-8", newline="")  # type: ignore[type-var]
        try:
            yield from csv.reader(text)
        finally:
            text.detach()  # it would close the file
            self._lines.seek(0, os.SEEK_END)


def _no_room(error: OSError) -> OkngError:
    return OkngError(
        f"{tempfile.gettempdir()} has no room for the lines of the report ({error.strerror}): set TMPDIR to a folder "
        "that has"
    )


def learning_command(model: Path | None, inspector: Inspector) -> list[str] | None:
    """The words before the images of a command that learns them; None where this model can't, or has no file."""
    card = cards().get(inspector.manifest.get("detector", {}).get("name", ""))
    if model is None or card is None or not card.updates:
        return None
    source = model if model.suffix != ".onnx" else model.with_suffix(".okng")
    return ["okng", "train", "--update", str(source.absolute())] if source.exists() else None
