"""Files of figures: CSV with a header, read whole and written whole or not at all."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from okng.errors import OkngError


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file of figures, none where there is no file; `OkngError` for one that is no text."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except ValueError as error:
        raise OkngError(f"{path} is not a table in UTF-8; move it away") from error


def write_rows(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Put `rows` into the file in place of what it held; a column that a row lacks is empty."""
    from okng.inspection.model_file import write_atomically  # it brings NumPy, which reading does without

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def json_ready(value: Any) -> Any:
    """`value` with NaN and infinities as None, which JSON has."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
