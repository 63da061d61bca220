"""A table's figures as people read them: published beside measured, in text and as a drawing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from okng.benchmark.reproduce import Outcome
from okng.benchmark.tables import Block, Table

WIDE = 5  # methods side by side in text
NAMES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "accuracy": "accuracy",
    "accuracy_ok": "accuracy on OK images",
    "epochs_to_80": "epochs to an accuracy of 80 %",
}


@dataclass(frozen=True)
class Line:
    """A class, or a mean over classes: `printed` as published, `measured` by okng, each where there is one."""

    name: str
    printed: str
    measured: float | None
    mean: bool = False

    @property
    def values(self) -> list[float]:
        """Its figures, none to two."""
        printed = [float(self.printed)] if self.printed else []
        return printed if self.measured is None else [*printed, self.measured]


def columns(table: Table, block: Block, outcomes: Sequence[Outcome]) -> dict[str, list[Line]]:
    """For each method that was asked for, its classes and then its means, recomputed.

    A mean is the printed one as printed, and beside it the mean of what was measured if that is all of its classes.
    Where it is not, a line of its own has both means over the classes that were measured.
    """
    found: dict[str, list[Line]] = {}
    for method in block.methods:
        here = [
            outcome
            for outcome in outcomes
            if (outcome.cell.dataset, outcome.cell.metric, outcome.cell.method) == (block.dataset, block.metric, method)
        ]
        if not here:
            continue
        values = {outcome.cell.kind: outcome.value for outcome in here}
        lines = [Line(o.cell.kind, o.cell.printed, o.value) for o in here]
        for name, classes in block.means.items():
            all_lines = [Line(kind, table.printed(block, method, kind), values.get(kind)) for kind in classes]
            measured = [line for line in all_lines if line.measured is not None]
            lines.append(Line(f"{name}, as printed", table.printed(block, method, name), None, mean=True))
            lines.append(mean_of(all_lines, f"{name}, recomputed"))
            if 1 < len(measured) < len(classes):
                lines.append(mean_of(measured, f"{name} of the {len(measured)} measured"))
        found[method] = lines
    return found


def mean_of(lines: Sequence[Line], name: str) -> Line:
    """The means of `lines`, published and measured, each where all of them have such a figure."""
    printed = [float(line.printed) for line in lines if line.printed]
    measured = [line.measured for line in lines if line.measured is not None]
    published = f"{sum(printed) / len(printed):.4f}" if len(printed) == len(lines) else ""
    return Line(name, published, sum(measured) / len(measured) if len(measured) == len(lines) else None, mean=True)


def as_text(table: Table, outcomes: Sequence[Outcome]) -> list[str]:
    """The lines to print: each block, published | measured, then why cells are blank and what the table's notes say."""
    lines = [table.title, "published | measured; blank is not printed, or not measured for a reason below"]
    for block in table.blocks:
        found = columns(table, block, outcomes)
        for first in range(0, len(found), WIDE):
            part = dict(list(found.items())[first : first + WIDE])
            names = list(dict.fromkeys(line.name for column in part.values() for line in column))
            lines += ["", f"{block.dataset}, {block.protocol}: {NAMES[block.metric]}"]
            lines.append(
                f"{'':<24}" + "".join(f"{method if len(method) < 20 else method[:18] + '…':>21}" for method in part)
            )
            for name in names:
                row = f"{name:<24}"
                for column in part.values():
                    line = next((line for line in column if line.name == name), Line(name, "", None))
                    measured = "" if line.measured is None else _figure(block.metric, line.measured)
                    row += f"{line.printed:>13} | {measured:<5}" if line.printed or measured else " " * 21
                lines.append(row.rstrip())
    blank: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.value is None:
            blank.setdefault(outcome.reason, []).append(outcome)
    if blank:
        lines += ["", "blank"]
        lines += [f"  {len(cells):>4} cells: {reason}" for reason, cells in blank.items()]
    if notes := table.notes():
        lines += ["", "notes", *(f"  {note}" for note in notes)]
    return lines


def _figure(metric: str, value: float) -> str:
    return f"{value:.0f}" if metric == "epochs_to_80" else f"{value:.3f}"


# --- the drawing: one strip per method that was measured, one column per class ---

STRIP, COLUMN, LEFT, TOP = 96, 58, 230, 74
INK, PALE, RULE, ACCENT = "#1f2937", "#6b7280", "#e5e7eb", "#b45309"


def as_svg(table: Table, outcomes: Sequence[Outcome]) -> str:
    """A drawing of what was measured: a ring where a figure was published, a dot where it was measured.

    Methods of the same data set and metric have the same axis.
    """
    strips = [
        (block, method, [line for line in lines if _drawn(line)])
        for block in table.blocks
        for method, lines in columns(table, block, outcomes).items()
        if any(line.measured is not None for line in lines)
    ]
    figures: dict[tuple[str, str], list[float]] = {}
    for block, _, lines in strips:
        figures.setdefault((block.dataset, block.metric), []).extend(v for line in lines for v in line.values)
    width = LEFT + COLUMN * max((len(lines) for _, _, lines in strips), default=0) + 20
    width = max(width, 32 + 8 * len(table.title))
    height = TOP + (STRIP + 34) * max(1, len(strips))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(16, 24, table.title, size=14),
        f'<circle cx="22" cy="44" r="4.5" fill="none" stroke="{PALE}" stroke-width="1.5"/>',
        _text(32, 48, "published"),
        f'<circle cx="112" cy="44" r="4.5" fill="{ACCENT}"/>',
        _text(122, 48, "measured by okng"),
    ]
    if not strips:
        parts.append(_text(16, TOP + 20, "nothing has been measured yet"))
    for number, (block, method, lines) in enumerate(strips):
        parts += _strip(block, method, lines, _axis(figures[block.dataset, block.metric]), TOP + number * (STRIP + 34))
    return "\n".join([*parts, "</svg>", ""])


def _drawn(line: Line) -> bool:
    return bool(line.values) and not line.name.endswith("as printed")


def _strip(block: Block, method: str, lines: list[Line], axis: tuple[float, float], top: float) -> list[str]:
    low, high = axis

    def height(value: float) -> float:
        return round(top + 8 + (STRIP - 16) * (high - value) / (high - low), 1)

    parts = [_text(16, top + 30, method, size=13), _text(16, top + 46, block.dataset, PALE)]
    parts.append(_text(16, top + 61, NAMES[block.metric], PALE))
    right = LEFT + COLUMN * len(lines)
    for tick in (low, (low + high) / 2, high):
        y = height(tick)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="{RULE}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:.4g}", PALE, anchor="end"))
    for place, line in enumerate(lines):
        x = LEFT + COLUMN * (place + 0.5)
        name = line.name.replace(", recomputed", "").replace(" of the ", " of ").replace(" measured", "")
        parts.append(_text(x, top + STRIP + 12, name, INK if line.mean else PALE, anchor="middle", size=10))
        printed = float(line.printed) if line.printed else None
        if printed is not None and line.measured is not None:
            ends = f'y1="{height(printed)}" x2="{x}" y2="{height(line.measured)}"'
            parts.append(f'<line x1="{x}" {ends} stroke="{PALE}" stroke-dasharray="2 2"/>')
        said = f"{name}: published {line.printed or 'nothing'}, measured "
        said += "nothing" if line.measured is None else f"{line.measured:.4g}"
        title = f"<title>{html.escape(said)}</title>"
        if printed is not None:
            ring = f'fill="none" stroke="{PALE}" stroke-width="1.5"'
            parts.append(f'<circle cx="{x}" cy="{height(printed)}" r="4.5" {ring}>{title}</circle>')
        if line.measured is not None:
            parts.append(f'<circle cx="{x}" cy="{height(line.measured)}" r="4" fill="{ACCENT}">{title}</circle>')
    return parts


def _axis(figures: list[float]) -> tuple[float, float]:
    """Round ends around the figures: tenths for shares, tens for anything larger."""
    low, high = min(figures), max(figures)
    step = 0.1 if high <= 1 else 10.0
    bottom, top = step * (low // step), step * (high // step + 1)
    return round(bottom, 6), round(min(top, 1.0) if high <= 1 else top, 6)


def _text(x: float, y: float, words: str, fill: str = INK, anchor: str = "start", size: int = 11) -> str:
    attributes = f'x="{x}" y="{y}" fill="{fill}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {attributes}>{html.escape(words)}</text>"
