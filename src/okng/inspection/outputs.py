"""Files a person asked for: a table of results, overlays of heatmaps."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_atomically
from okng.inspection.overlay import heat_range, overlay
from okng.inspection.result import Inspection


class CsvFile:
    """One line per image: path, score, p_value, verdict, and the box of the strongest region; whole or not at all."""

    def __init__(self, path: Path):
        self.path = path
        self._text = io.StringIO(newline="")
        self._rows = csv.writer(self._text)
        self._rows.writerow(["path", "score", "p_value", "verdict", "regions", "left", "top", "right", "bottom"])

    def add(self, inspection: Inspection) -> None:
        """Append one result."""
        box = [round(side, 1) for side in inspection.regions[0].box] if inspection.regions else [""] * 4
        judged = [inspection.path, repr(inspection.score), f"{inspection.p_value:.6f}", inspection.verdict]
        self._rows.writerow([*judged, len(inspection.regions), *box])

    def close(self) -> Path:
        """Write the file."""
        write_atomically(self.path, self._text.getvalue().encode(errors="backslashreplace"))
        return self.path


def save_overlay(
    folder: Path, inspection: Inspection, inspector: Inspector, heat: tuple[float, float] | None = None
) -> Path | None:
    """Write the heatmap over the image as `folder`/VERDICT/<number>-<name>.png; None without a map or a file.

    The number is the image's place among those given: two folders may hold files of one name. `heat`: where colour
    begins and where it is full, by default `heat_range` of the calibration.
    """
    if inspection.map is None or inspection.path is None:
        return None
    target = folder / inspection.verdict / f"{inspection.index:06}-{Path(inspection.path).stem}.png"
    picture = replace(inspector.preprocess, mode="RGB").decode(inspection.path)
    content = io.BytesIO()
    overlay(picture, inspection, *(heat or heat_range(inspector.calibration))).save(content, "PNG")
    write_atomically(target, content.getvalue())
    return target
