"""The pages of a comparison: one per data set, and one of ranks over several."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from okng.comparing.drawing import scatter, span
from okng.comparing.table import FIGURES, Row
from okng.detectors.catalogue import find
from okng.inspection.model_file import write_atomically
from okng.report.language import Translate, translator
from okng.report.page import page
from okng.training.progress import duration

if TYPE_CHECKING:
    from okng.comparing.comparison import Compared, Comparison


def write_page(compared: Compared, command: str, language: str) -> None:
    """Write the page of one data set, whole or not at all: the best first, what is not measured last."""
    t = translator(language)
    rows = sorted(compared.rows, key=_order)
    done = [row for row in rows if row.each]
    has_ng = compared.counts["ng"] > 0 and compared.counts["ok"] > 0
    best = next((row for row in done if row.figures["image_auroc"].best), None)
    html = page(
        "comparison.html",
        t("title.compare", data=compared.name),
        None,
        language,
        compared=compared,
        columns=[name for name in FIGURES if any(_defined(row, name) for row in done)],
        lines=[_line(row, t) for row in rows],
        done=done,
        best=best,
        alike=[row for row in done if row.figures["image_auroc"].alike and row is not best],
        seeds=max((len(row.each) for row in done), default=0),
        has_ng=has_ng,
        spent=duration(sum(one["seconds"] for row in done for one in row.each)),
        planted=_planted(done, t),
        drawing=scatter([_point(row) for row in done if _drawable(row)]),
        shown=_shown(compared, done),
        ran_on=_ran_on(done),
        stopped=[row for row in done if row.stops],
        command=command,
    )
    write_atomically(compared.page, html)


def write_ranks(path: Path, comparison: Comparison, language: str) -> None:
    """Write the page of ranks over data sets, which leads to the others."""
    ranks = comparison.ranks
    order = [] if ranks is None else sorted(range(len(comparison.ranked)), key=lambda i: ranks.average[i])
    best = float(ranks.average.min()) if ranks is not None else math.nan
    lines = [
        {
            "name": comparison.ranked[i],
            "average": float(ranks.average[i]),
            "each": [float(rank) for rank in ranks.ranks[:, i]],
            "alike": float(ranks.average[i]) - best <= ranks.difference + 1e-9,
        }
        for i in order
        if ranks is not None
    ]
    labelled = [compared for compared in comparison.sets if compared.counts["ng"]]
    html = page(
        "ranks.html",
        translator(language)("title.ranks", n=len(comparison.sets)),
        None,
        language,
        comparison=comparison,
        ranks=ranks,
        lines=lines,
        labelled=labelled,
        links=[(compared.name, compared.page.name, len([row for row in compared.rows if row.each])) for compared in
               comparison.sets],
    )  # fmt: skip
    write_atomically(path, html)


def as_text(compared: Compared) -> list[str]:
    """The table for a terminal: ≈ is what can't be told from the best."""
    names = [name for name in FIGURES if any(_defined(row, name) for row in compared.rows)]
    titles = [FIGURES[name] for name in names]
    wide = max([len(row.method.name) for row in compared.rows] + [8]) + 2
    lines = [f"{compared.name}: {compared.protocol}"]
    lines.append(" " * wide + "".join(f"{title:>14}" for title in titles) + f"{'fit':>10}{'ms/image':>10}")
    for row in compared.rows:
        if not row.each:
            lines.append(f"{row.method.name:<{wide}}{row.reason}")
            continue
        cells = "".join(f"{_cell(row, name):>14}" for name in names)
        time = f"{duration(row.costs['seconds'] or 0):>10}{row.costs['milliseconds'] or math.nan:>10.1f}"
        lines.append(f"{row.method.name:<{wide}}{cells}{time}" + (f"  {row.reason}" if row.reason else ""))
    if len(ran_on := _ran_on(compared.rows)) > 1:
        lines.append(f"times do not compare: fits ran on {'; '.join(ran_on)}")
    lines.append("* the best, ≈ not distinguishable from it (paired tests at 5 %, corrected for the number of methods)")
    return lines


def _ran_on(rows: list[Row]) -> list[str]:
    """All that their fits ran on."""
    return sorted({name for row in rows for name in row.ran_on})


def _order(row: Row) -> tuple[bool, float]:
    value = row.figures["image_auroc"].value
    return not row.each, 0.0 if math.isnan(value) else -value


def _cell(row: Row, name: str) -> str:
    figure = row.figures[name]
    if math.isnan(figure.value):
        return "–"
    mark = "*" if figure.best else "≈" if figure.alike else " "
    return f"{figure.value:.3f} {mark}"


def _defined(row: Row, name: str) -> bool:
    return not math.isnan(row.figures[name].value)


def _line(row: Row, t: Translate) -> dict[str, Any]:
    """What the table shows of a method beside its figures."""
    costs = row.costs
    return {
        "row": row,
        "idea": find(row.method.detector).idea,
        "cells": [
            (costs["seconds"], duration(costs["seconds"] or 0)),
            (costs["milliseconds"], span(costs["milliseconds"] or 0)),
            (costs["file_bytes"], size(costs["file_bytes"])),
            (costs["fit_memory"], size(costs["fit_memory"])),
            (costs["inspect_memory"], size(costs["inspect_memory"])),
        ],
        "arguments": ", ".join(f"{key} = {value}" for key, value in row.method.arguments.items())
        or t("compare.defaults"),
    }


def size(count: float | None) -> str:
    """Bytes as a person reads them: "850 kB", "21 MB", "1.4 GB"."""
    if count is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 100 * factor else f"{count / factor:.0f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _drawable(row: Row) -> bool:
    return _defined(row, "image_auroc") and bool(row.costs["milliseconds"])


def _point(row: Row) -> tuple[str, float, float, float, float, bool]:
    figure = row.figures["image_auroc"]
    low, high = (figure.value if math.isnan(end) else end for end in (figure.low, figure.high))
    return row.method.name, row.costs["milliseconds"] or 1.0, figure.value, low, high, figure.alike


def _shown(compared: Compared, done: list[Row]) -> list[dict[str, Any]]:
    """The images that every method is shown on, each with the original as the first method that read it kept it."""
    found = []
    for key in compared.shown:
        pictures = {row.method.name: row.pictures[key] for row in done if key in row.pictures}
        if pictures:
            found.append({**next(iter(pictures.values())), "of": pictures})
    return found


def _planted(done: list[Row], t: Translate) -> dict[str, Any] | None:
    """From which size on each method finds each kind of planted defect; None where none were planted."""
    measured = [row for row in done if "found" in row.planted]
    if not measured:
        return None
    kinds = list(measured[0].planted["smallest_found"])
    lines = []
    for row in measured:
        found = row.planted["smallest_found"]
        sizes = [(found.get(kind), _from(found.get(kind), row.planted["curves"].get(kind), t)) for kind in kinds]
        lines.append({"name": row.method.name, "found": row.planted["found"], "sizes": sizes})
    return {
        "kinds": kinds,
        "lines": lines,
        "side": measured[0].planted["side_px"],
        "plants": measured[0].planted["plants"],
    }


def _from(size: float | None, curve: dict[str, Any] | None, t: Translate) -> str:
    """The size in words: "12 px", "below 4 px", "not reached"."""
    if curve is None or size is None:
        return "–"
    return f"{size:.3g} px" if size > 0 else t("find.below", size=f"{curve['points'][0]['size']:.3g}")
