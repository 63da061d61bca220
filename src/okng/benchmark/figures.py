"""The figures papers print and the figures we measured, for cards and tables."""

from __future__ import annotations

import csv
from pathlib import Path

PUBLISHED = Path(__file__).with_name("published.csv")


def published(detector: str) -> list[dict[str, str]]:
    """What was printed of `detector`: rows of dataset, protocol, metric, value, source."""
    return [row for row in _read(PUBLISHED) if row["detector"] == detector]


def measured(detector: str) -> list[dict[str, str]]:
    """What okng measured of `detector`, as recorded in results/: the same columns, source = the command.

    A figure that several tables share, or that was left blank, stands there once or not at all.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for path in sorted(_results().rglob("*.csv")):
        for row in _read(path):
            if row.get("detector") == detector and row.get("value") and "metric" in row:
                settings = tuple(row.get(key, "") for key in ("arguments", "seed", "experiment"))
                figure = (row["dataset"], row["protocol"], row["metric"], *settings)
                found.setdefault(figure, {**row, "source": row["command"]})
    return list(found.values())


def _results() -> Path:
    """In an installed package results/ lies inside it, in a checkout beside src/."""
    packaged = Path(__file__).parents[1] / "results"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "results"


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
