"""The losses of a training, epoch by epoch: a page of curves, or a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from okng.inspection.inspector import Inspector
from okng.inspection.model_file import write_atomically
from okng.report.charts import learning
from okng.report.page import page
from okng.report.settings import settings

VALIDATION = "validation"


def write_curves(path: Path, title: str, inspector: Inspector, language: str = "en") -> Path:
    """Write the `history` of a manifest as the page or, where `path` ends in .csv, the table; return `path`."""
    phases = by_phase(inspector.manifest["history"])
    if path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["phase", "name", "epoch", "loss", "mean"])
        for number, (name, losses) in enumerate(phases, 1):
            for loss, means in losses.items():
                writer.writerows([number, name, epoch, loss, mean] for epoch, mean in means)
        write_atomically(path, text.getvalue().encode())
        return path
    drawn = [
        (name, [(loss, learning(means, loss == VALIDATION, language)) for loss, means in losses.items()])
        for name, losses in phases
    ]
    content = {"phases": drawn, "validated": any(VALIDATION in losses for _, losses in phases)}
    described = settings(inspector, {}, language)
    write_atomically(path, page("curves.html", title, inspector, language, settings=described, **content))
    return path


def by_phase(history: list[dict[str, Any]]) -> list[tuple[str, dict[str, list[tuple[int, float]]]]]:
    """Each phase's name and, of each of its losses and its validation, (epoch, mean) in order."""
    phases: list[tuple[str, dict[str, list[tuple[int, float]]]]] = []
    epoch = 0
    for row in history:
        if not phases or phases[-1][0] != row["phase"] or row["epoch"] <= epoch:
            phases.append((row["phase"], {}))
        epoch = row["epoch"]
        means = row["losses"] | ({VALIDATION: row["validation"]} if "validation" in row else {})
        for name, mean in means.items():
            phases[-1][1].setdefault(name, []).append((epoch, mean))
    return phases
