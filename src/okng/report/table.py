"""All images of a report, line by line: a CSV file, and the same for the page's table."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path
from typing import Any

from okng.detectors.cards import cards
from okng.inspection.calibration import Calibration
from okng.inspection.inspector import Inspector
from okng.inspection.outputs import COLUMNS, csv_line, table_row
from okng.inspection.result import Inspection
from okng.report.words import distance

ROWS = 20_000  # that the page holds; a browser takes them in a moment


class Table:
    """One line per image, as `COLUMNS`, and the label and the kind where they are known; some 100 bytes each."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._labelled = False

    def add(self, inspection: Inspection, label: int | None, kind: str) -> None:
        """Append one result."""
        self._labelled = self._labelled or label is not None or bool(kind)
        self._lines.append(csv_line([*table_row(inspection), {0: "OK", 1: "NG"}.get(label, ""), kind]))  # type: ignore[arg-type]

    def as_csv(self) -> bytes:
        """The CSV file; without labels in the last two columns there are none."""
        if self._labelled:
            return b"".join([csv_line([*COLUMNS, "label", "kind"]), *self._lines])
        return b"".join([csv_line(COLUMNS), *(line.removesuffix(b",,\r\n") + b"\r\n" for line in self._lines)])

    def for_page(self, calibration: Calibration) -> dict[str, Any]:
        """What the page's table shows: the `ROWS` oddest images, in the order of inspection.

        A row is [number, path below "root", score, p-value, distance, called NG, regions, label, kind]; paths are
        absolute, empty for pixels that have no file.
        """
        text = b"".join(self._lines).decode()
        rows: list[list[Any]] = []
        for number, (path, score, p, verdict, regions, *_, label, kind) in enumerate(
            csv.reader(io.StringIO(text, newline="")), 1
        ):
            far = distance(float(score), calibration)
            rows.append([
                number, path and str(Path(path).absolute()), float(f"{float(score):.6g}"), float(f"{float(p):.4g}"),
                None if far is None else round(far, 2), int(verdict == "NG"), int(regions), label, kind,
            ])  # fmt: skip
        rows = sorted(sorted(rows, key=lambda row: -row[2])[:ROWS])
        root = ""
        with contextlib.suppress(ValueError):  # no images, pixels without a file, drives of Windows
            root = os.path.commonpath([Path(row[1]).parent for row in rows]).rstrip(os.sep) + os.sep
        for row in rows:
            row[1] = row[1].removeprefix(root)
        kinds = sorted({row[8] for row in rows} - {""})
        smallest = float(f"{calibration.smallest_rate:.4g}")
        return {"root": root, "rows": rows, "kinds": kinds, "smallest": smallest}


def learning_command(model: Path | None, inspector: Inspector) -> list[str] | None:
    """The words before the images of a command that learns them; None where this model can't, or has no file."""
    card = cards().get(inspector.manifest.get("detector", {}).get("name", ""))
    if model is None or card is None or not card.updates:
        return None
    source = model if model.suffix != ".onnx" else model.with_suffix(".okng")
    return ["okng", "train", "--update", str(source.absolute())] if source.exists() else None
