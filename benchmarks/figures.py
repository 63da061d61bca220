"""Draw results/peers.csv: how many times faster okng is than anomalib, median against median of interleaved runs.

    python benchmarks/figures.py

Writes docs/peers.svg, and prints the same as a table in Markdown.
"""

from __future__ import annotations

import html
import math
import statistics
from collections import defaultdict
from pathlib import Path

from okng.benchmark.rows import read_rows

ROOT = Path(__file__).parents[1]
INK, PALE, RULE, BAR = "#1f2937", "#6b7280", "#e5e7eb", "#b45309"
LEFT, WIDTH, ROW = 410, 400, 30

Medians = dict[tuple[str, str, str, str], float]


def medians() -> Medians:
    """The median of each (benchmark, case, library, figure) over its runs."""
    values = defaultdict(list)
    for row in read_rows(ROOT / "results" / "peers.csv"):
        values[row["benchmark"], row["case"], row["library"], row["figure"]].append(float(row["value"]))
    return {key: statistics.median(several) for key, several in values.items()}


def pairs(found: Medians) -> list[tuple[str, float, float, str]]:
    """What is compared: a label, anomalib's figure, okng's, their unit."""
    rows = []
    for benchmark, case, library, figure in found:
        if benchmark == "fit" and library == "anomalib" and figure == "seconds":
            rows.append(
                (
                    f"fit {case.replace('efficientnet_lite0', 'Lite0').replace('magnetic_tile', 'magnetic tile')}",
                    found["fit", case, library, figure],
                    found["fit", case, "okng", figure],
                    "s",
                )
            )
    rows.sort(key=lambda row: row[1] / row[2], reverse=True)
    ours = found.get(("inspect", "openvino f32", "okng", "ms_single"))
    theirs = "engine.predict and exported"
    if ours is not None:
        for figure, name in (("ms_predict", "its engine.predict"), ("ms_exported", "its exported OpenVINO model")):
            rows.append((f"inspect one image, {name}", found["inspect", theirs, "anomalib", figure], ours, "ms"))
    for library in ("anomalib", "adeval"):
        if ("aupro", "50 x 1024²", library, "seconds") in found:
            each = [found["aupro", "50 x 1024²", name, "seconds"] for name in (library, "okng")]
            rows.append((f"AUPRO of 50 maps of 1024², {library}", *each, "s"))
    for figure, name in (("help_s", "--help"), ("import_to_train_s", "import all that training needs")):
        if ("start", "seconds", "anomalib", figure) in found:
            each = [found["start", "seconds", library, figure] for library in ("anomalib", "okng")]
            rows.append((name, *each, "s"))
    return rows


def short(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def draw(rows: list[tuple[str, float, float, str]]) -> str:
    """Bars on a logarithmic axis, one a row."""
    top = 10 ** math.ceil(math.log10(max(theirs / ours for _, theirs, ours, _ in rows)))
    height, width = 74 + ROW * len(rows) + 26, LEFT + WIDTH + 210

    def x(factor: float) -> float:
        return round(LEFT + WIDTH * math.log10(max(factor, 1.0)) / math.log10(top), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="26" font-size="15">How many times faster okng is than anomalib 2.7.0, or than adeval</text>',
        f'<text x="16" y="46" fill="{PALE}">same images, backbone, weights and bank size, in turns, on one machine; '
        "no bar: not faster</text>",
    ]
    for power in range(round(math.log10(top)) + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at}" y1="62" x2="{at}" y2="{height - 26}" stroke="{RULE}"/>')
        parts.append(f'<text x="{at}" y="{height - 10}" fill="{PALE}" text-anchor="middle">{10**power} ×</text>')
    for number, (name, theirs, ours, unit) in enumerate(rows):
        y = 70 + ROW * number
        bar = f'<rect x="{LEFT}" y="{y}" width="{x(theirs / ours) - LEFT:.1f}" height="18" fill="{BAR}"/>'
        said = f"{theirs / ours:.2g} ×  ({short(theirs)} against {short(ours)} {unit})"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{html.escape(name)}</text>')
        parts += [bar, f'<text x="{x(theirs / ours) + 6}" y="{y + 13}">{said}</text>']
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Draw and print."""
    found = medians()
    rows = pairs(found)
    (ROOT / "docs" / "peers.svg").write_text(draw(rows), encoding="utf-8")
    print("| | the other | okng | factor |\n|---|---|---|---|")
    for name, theirs, ours, unit in rows:
        print(f"| {name} | {short(theirs)} {unit} | {short(ours)} {unit} | {theirs / ours:.2g} |")
    print()
    for (benchmark, case, library, figure), value in found.items():
        if benchmark != "fit" or figure != "seconds":
            print(f"{benchmark}, {case}, {library}, {figure}: {value:.4g}")


if __name__ == "__main__":
    main()
