"""Write docs/methods.md: every method on the same sets, as results/methods.csv has it."""

from __future__ import annotations

import statistics
from pathlib import Path

from okng.benchmark.code import is_older
from okng.benchmark.figures import published
from okng.benchmark.rows import read_rows
from okng.detectors.cards import cards

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
ACCURACY = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
COSTS = {"fit_seconds": "fit, s", "ms_per_image": "ms an image"}
MARKS = {" ¹": "-shot", " ²": "best epoch by the test set"}  # by words of the protocol
HEAD = """# Every method on the same images

MVTec AD's transistor (a copy of 320 px), magnetic tile, and the solar cells of ELPV, monocrystalline and
polycrystalline ones: each method with its arguments for photographs on a CPU, which stand in the `cards.toml` of its
[family](../src/okng/detectors), the offline backbone where it takes one, and a fifth of the OK images held out for the
threshold. No figure is the best of several, and no epoch was chosen on a test set. Of several seeds the mean, with the
deviation where there are three or more. Published is the mean over MVTec AD's fifteen classes that the source in
[published.csv](../src/okng/benchmark/published.csv) prints: another backbone or a larger one, longer training and other
images, so it is no target, but says what the method can do. ¹: of one OK image each, or of a few. ²: the best epoch by
the test set was taken, so it is too high. Times are seconds and milliseconds of one core; they
include what other programs on the machine cost it, and where a GPU did the fit there are none. ‡: by other code of the
detector than today's.

The rows, with arguments, command, digest of the code and date, are in [results/methods.csv](../results/methods.csv);
`python benchmarks/methods.py DATA` measures what is missing and writes this page.
"""


def page() -> str:
    """The page as Markdown: a table for each set that was measured on."""
    rows, parts = read_rows(ROOT / "results" / "methods.csv"), [HEAD]
    for dataset, protocol in dict.fromkeys((r["dataset"], r["protocol"]) for r in rows):
        here = [r for r in rows if r["dataset"] == dataset]
        shown = {**ACCURACY, **COSTS}
        columns = [metric for metric in shown if any(r["metric"] == metric for r in here)]
        lines = ["| | " + " | ".join([*(shown[metric] for metric in columns), "published"]) + " |"]
        lines.append("|---" * (len(columns) + 2) + "|")
        for detector, card in cards().items():
            own = [r for r in here if r["detector"] == detector]
            if own:
                cells = [cell([r for r in own if r["metric"] == metric]) for metric in columns]
                older = "‡" * any(is_older(r) for r in own)
                lines.append(f"| {card.title}{older} | " + " | ".join([*cells, of_the_paper(detector)]) + " |")
        parts.append(f"## {dataset}\n\n{protocol}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def cell(rows: list[dict[str, str]]) -> str:
    """The mean over seeds, and of three or more their deviation."""
    values = [float(r["value"]) for r in rows]
    if not values:
        return "–"
    if rows[0]["metric"] in COSTS:
        found = statistics.median(values)
        return f"{found:.0f}" if found >= 1000 else f"{found:.3g}"
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 2 else mean


def of_the_paper(detector: str) -> str:
    """Its image AUROC, pixel AUROC and AUPRO on MVTec AD, as printed of the first of its settings."""
    means = [r for r in published(detector) if r["dataset"].startswith("MVTec AD mean")]
    found = {r["metric"]: r["value"] for r in means if r["protocol"] == means[0]["protocol"]}
    marks = "".join(mark for mark, words in MARKS.items() if found and words in means[0]["protocol"])
    return " / ".join(found.get(metric, "–") for metric in ACCURACY) + marks if found else "–"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
