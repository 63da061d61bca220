"""Write docs/tables.md: the tables of `okng reproduce` with what was measured so far, published beside measured."""

from __future__ import annotations

import tomllib
from ast import literal_eval
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
from scipy.stats import spearmanr

from okng.benchmark.beside import NAMES, Line, mean_of
from okng.benchmark.code import is_older
from okng.benchmark.reproduce import Job, Outcome, standing
from okng.benchmark.rows import read_rows
from okng.benchmark.tables import FOLDERS, TABLES, Block, Table

AT_HAND = {"MVTec AD": ("transistor",), "ShanghaiTech Campus": (), "COCO crops": ()}  # of the sets; all of the others
ROOT = Path(__file__).parents[1]
WHY = tomllib.loads(Path(__file__).with_name("tables_why.toml").read_text("utf-8"))
FAR = 0.03  # from what is published; what lies behind such a difference is said
PAGE = ROOT / "docs" / "tables.md"
ONE_CLASS = "[one_class.csv](../results/one_class.csv), [means](benchmarks.md#one-class-of-digits-and-clothes)"
HEAD = """# Published tables, run again

Each cell is *measured*, or *measured (published)* where a figure is printed; a dash is a cell that was not run, and
what is missing is said below, with why: the images were not at hand, the time was not, or the figure stands
elsewhere; what a cell takes is the median of those that were run, on a machine with other work. `okng reproduce TABLE
DATA` goes on where this page ends. The budget is `cpu`, minutes per fit on one core with the arguments in the
`cards.toml` of each [family](../src/okng/detectors); what is published was got with larger networks and longer
training.

- † with other arguments than today's.
- ‡ by other code of the detector than today's, or before that was noted; run again, it may differ.

Most figures on CIFAR-10 and magnetic tile, where some images are near copies of others, are of before 25 November 2026,
when okng began to keep such on one side of the split: the tenth of the OK images that was not learnt was another one.

One seed, the last epoch. No figure here was chosen among several by its test labels; what was known of test figures
when the arguments were chosen is in [choices.md](choices.md). CIFAR-10 is a copy whose images were stored as JPEG
between, and MVTec AD's transistor one of 320 px where the original has 1024: published figures are of the originals. A
mean is over the cells that were run, both figures over the same ones; where all were, the published one is as printed.
Where only a mean is printed, of more classes than were run, it says of how many.
The difference is the mean of what was measured less that of what is published, over the cells that have both.
The rows, with arguments, command, digest of the code and date, are in [results/](../results);
`python benchmarks/tables_page.py` writes this page.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for table in TABLES.values():
        outcomes = standing(table, ROOT / "results")
        blocks = [
            matrix(table, block, outcomes) + explained(table, block, outcomes) + missing(table, block, outcomes)
            for block in table.blocks
        ]
        parts.append(f"## {table.name}\n\n{table.title}.\n")
        if table.notes():
            parts.append("\n".join(f"- {note}" for note in table.notes()) + "\n")
        parts += blocks
        if table.name == "oe-sdn/table1":
            parts += curves()
        if table.name == "oe-sdn/table3":
            parts.append(order(table, table.blocks[1], outcomes))
        if table.name == "ocgan/mnist":
            parts.append(widths())
        if table.name == "coco-masks":
            parts.append(made())
    return "\n".join(parts)


def made() -> str:
    """The same question asked of a set that is made here."""
    rows = read_rows(ROOT / "results" / "made_coco.csv")
    seeds = sorted({int(row["seed"]) for row in rows})
    which = f"seeds {seeds[0]} to {seeds[-1]}"
    lines = [f"In its place {rows[0]['dataset']}, by `benchmarks/made_coco.py`, {which}, mean ± standard error:", ""]
    lines += ["| | test accuracy after the last epoch | first epoch with 80 % or more |", "|---|---|---|"]
    found: dict[tuple[str, str], np.ndarray] = {}  # (seeds,) of a version's figure
    for version in ("original", "masked"):
        for metric in ("accuracy", "epochs_to_80"):
            here = {
                int(r["seed"]): r["value"] for r in rows if r["metric"] == metric and r["experiment"].endswith(version)
            }
            found[version, metric] = np.array([float(here[seed]) for seed in seeds])
        lines.append(
            f"| VGG11, a quarter of its width, {version} | {with_error(found[version, 'accuracy'], 3)} | "
            f"{with_error(found[version, 'epochs_to_80'], 1)} |"
        )
    sooner = found["original", "epochs_to_80"] - found["masked", "epochs_to_80"]
    higher = found["masked", "accuracy"] - found["original", "accuracy"]
    lines += [
        "",
        f"Of {len(seeds)} seeds the masked version is there sooner with {(sooner > 0).sum()} and later with "
        f"{(sooner < 0).sum()}, by {with_error(sooner, 1)} epochs, seed by seed. After the last epoch its accuracy is "
        f"higher by {with_error(higher, 3)}.",
        "",
        "So on this set masked images are learnt faster, as the slides say of COCO. Each seed has about 80 test "
        "images: views that were also learnt, at other angles and on other grounds. No ground has to do with its "
        "object. A first set, of twice as many upright scenes, told nothing, for both versions learnt it in two "
        "epochs. This one was made harder until the original version took longer, with a seed that is not among these.",
        "",
    ]
    return "\n".join(lines)


def with_error(values: np.ndarray, digits: int) -> str:
    """The mean of `values` (n,) and its standard error."""
    error = values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def order(table: Table, block: Block, outcomes: list[Outcome]) -> str:
    """Whether the auxiliary sets come in the printed order, over the classes that were run with all of them."""
    values = {
        (o.cell.method, o.cell.kind): o.value
        for o in outcomes
        if o.cell.dataset == block.dataset and o.value is not None
    }
    classes = [kind for kind in block.classes if all((method, kind) in values for method in block.methods)]
    measured = {method: float(np.mean([values[method, kind] for kind in classes])) for method in block.methods}
    printed = {method: float(table.printed(block, method, "mean")) for method in block.methods}
    alike = float(spearmanr(list(printed.values()), list(measured.values())).statistic)
    there, here = (sorted(means, key=lambda method: -means[method])[:2] for means in (printed, measured))
    return (
        f"{block.dataset}, means over {', '.join(classes)}, against the printed ones over all ten: the two best are "
        f"{' and '.join(here)}, in print {' and '.join(there)}; the rank correlation over {len(printed)} rows "
        f"is {alike:.2f}. One seed.\n"
    )


def curves() -> list[str]:
    """SDN and OE-SDN by the epochs of their student, class by class."""
    rows = read_rows(ROOT / "results" / "oe-sdn" / "curve.csv")
    each = dict.fromkeys((row["set"], row["class"]) for row in rows)
    return [curve([row for row in rows if (row["set"], row["class"]) == one]) for one in each]


def curve(rows: list[dict[str, str]]) -> str:
    """The rows of one class."""
    epochs = sorted({int(row["student_epochs"]) for row in rows})
    names = {
        "image_auroc": "AUROC, other classes against it",
        "turned_auroc": "AUROC, held-out images of it turned against upright",
        "distance_share": "student to autoencoder, as a share of the autoencoder's error, held out",
    }
    rate = f"at a learning rate of {rows[0]['learning_rate']}"
    what = f"{rows[0]['set']}, {rows[0]['class']}"
    lines = [f"{what}, by the epochs of the student, {rate} (`{rows[0]['command']}`):", ""]
    lines += ["| | | " + " | ".join(map(str, epochs)) + " |", "|" + "---|" * (len(epochs) + 2)]
    for key, name in names.items():
        for detector in ("sdn", "oe_sdn"):
            values = [f"{float(row[key]):.3f}" for row in rows if row["detector"] == detector]
            lines.append(f"| {name} | `{detector}` | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def matrix(table: Table, block: Block, outcomes: list[Outcome]) -> str:
    """A row per method and a column per class that was run; nothing where none was."""
    here = [o for o in outcomes if (o.cell.dataset, o.cell.metric) == (block.dataset, block.metric)]
    values = {(o.cell.method, o.cell.kind): o.value for o in here}
    marks = {(o.cell.method, o.cell.kind): mark(table, o) for o in here}
    methods = [method for method in block.methods if any(method == name for name, _ in values)]
    classes = [kind for kind in block.classes if any(kind == name for _, name in values)]
    if not methods:
        return ""
    mean = ["mean"] if len(classes) > 1 else []
    protocol = "the native split" if block.protocol == FOLDERS else block.protocol
    apart = differences(table, block, outcomes)
    more = [*mean, *(["difference"] if apart else [])]
    lines = [f"**{block.dataset}**, {protocol}, {NAMES[block.metric]}:", ""]
    lines += ["| | " + " | ".join([*classes, *more]) + " |", "|" + "---|" * (len(classes) + len(more) + 1)]
    for method in methods:
        run = [Line(kind, table.printed(block, method, kind), values.get((method, kind))) for kind in classes]
        cells = [cell(line) + marks.get((method, line.name), "") for line in run]
        if mean:
            measured = [line for line in run if line.measured is not None]
            line, some = mean_of(measured, "mean"), f" of {len(measured)}"
            if len(measured) == len(block.classes):
                line, some = replace(line, printed=table.printed(block, method, "mean") or line.printed), ""
            elif measured and not line.printed and (whole := table.printed(block, method, "mean")):
                some += f" ({whole} of {len(block.classes)})"
            worst = "".join(sign for sign in "†‡" if any(sign in marks.get((method, k), "") for k in classes))
            cells.append(cell(line) + worst + some)
        if apart:
            cells.append(f"{apart[method]:+.3f}" if method in apart else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def differences(table: Table, block: Block, outcomes: list[Outcome]) -> dict[str, float]:
    """Of each method what was measured less what is published: the mean over the cells that have both figures.

    Where only a mean is printed it is compared with that of all classes, if all were run.
    """
    here = [o for o in outcomes if (o.cell.dataset, o.cell.metric) == (block.dataset, block.metric)]
    found = {}
    for method in block.methods:
        run = {o.cell.kind: o.value for o in here if o.cell.method == method and o.value is not None}
        both = [value - float(p) for kind, value in run.items() if (p := table.printed(block, method, kind))]
        mean = table.printed(block, method, "mean")
        if both:
            found[method] = float(np.mean(both))
        elif mean and len(run) == len(block.classes):
            found[method] = float(np.mean(list(run.values()))) - float(mean)
    return found


def explained(table: Table, block: Block, outcomes: list[Outcome]) -> str:
    """What lies behind the differences that are `FAR`: a line for each method; nothing where there is none."""
    far = [method for method, apart in differences(table, block, outcomes).items() if round(abs(apart), 3) >= FAR]
    lines = []
    for method in far:
        detector = table.runs[method].detector
        if block.dataset not in WHY.get(detector, {}):
            raise SystemExit(f"say in benchmarks/tables_why.toml what lies behind {detector} on {block.dataset}")
        lines.append(f"- {method}: {WHY[detector][block.dataset]}")
    return "\n".join(["", f"What lies behind a difference of {FAR} or more:", "", *lines, ""]) if lines else ""


def widths() -> str:
    """A kernel density by the width of its Gaussians."""
    rows = [row for row in read_rows(ROOT / "results" / "measured.csv") if row["experiment"] == "kde-bandwidth"]
    wide = [literal_eval(row["arguments"])["bandwidth"] for row in rows]
    lines = [
        "KDE, MNIST, mean of ten digits, by the bandwidth (`python benchmarks/measure.py DATA --only kde-bandwidth`):"
    ]
    lines += ["", "| | " + " | ".join("chosen" if width is None else f"{width:g}" for width in wide) + " |"]
    lines += ["|" + "---|" * (len(rows) + 1)]
    lines += ["| image AUROC | " + " | ".join(f"{float(row['value']):.3f}" for row in rows) + " |"]
    return "\n".join([*lines, ""])


def missing(table: Table, block: Block, outcomes: list[Outcome]) -> str:
    """Which cells of a block have no figure, and why: a line for each reason; nothing where all have one."""
    there = AT_HAND.get(block.dataset, block.classes)
    lines = []
    if away := [kind for kind in block.classes if kind not in there]:
        lines.append(f"- {', '.join(away) if there else 'all of it'}: no images at hand")
    reasons: dict[str, list[str]] = {}
    for method in block.methods:
        fits = [o for o in outcomes if o.cell.method == method]
        run = {o.cell.kind for o in fits if (o.cell.dataset, o.cell.metric) == (block.dataset, block.metric)}
        if left := [kind for kind in there if kind not in run]:
            on = "" if left == list(there) else " on " + ", ".join(left)
            time = time_of(fits)
            if {(table.runs[method].detector, f"{block.dataset} {kind}") for kind in left} <= of_one_class():
                time = f"measured with all images learnt, where here a tenth is held out: {ONE_CLASS}"
            reasons.setdefault(f"{on}: {time}", []).append(method)
    lines += [f"- {'; '.join(methods)}{why}" for why, methods in reasons.items()]
    head = ["", f"Without a figure, {block.dataset}, {NAMES[block.metric]}:", ""]
    return "\n".join([*head, *lines, ""]) if lines else ""


def time_of(fits: list[Outcome]) -> str:
    """What a cell takes, as far as some were run: of one core, or of a GPU if none was run on a core."""
    core = [o for o in fits if o.row["machine"].split(", ")[2:] in ([], ["no GPU"])]
    if not fits:
        return "not begun"
    minutes = max(1, round(median(float(o.row["seconds"]) for o in core or fits) / 60))
    return f"{minutes} min of {'one core' if core else 'a GPU that others shared'} a cell"


@cache
def of_one_class() -> set[tuple[str, str]]:
    """The detectors, and the set and class, that `benchmarks/one_class.py` measured as `--budget cpu` has them."""
    rows = read_rows(ROOT / "results" / "one_class.csv")
    return {(row["detector"], row["dataset"]) for row in rows if row["budget"] == "cpu"}


def mark(table: Table, outcome: Outcome) -> str:
    """Whether a figure is of earlier arguments or of earlier code."""
    job = Job(outcome.cell, table.runs[outcome.cell.method], table.name, "cpu", 0)
    return "†" * (outcome.row["arguments"] != job.settings) + "‡" * is_older(outcome.row)


def cell(line: Line) -> str:
    """Three digits, and the published figure behind them: of a class as printed."""
    if line.measured is None:
        return "–"
    printed = f"{float(line.printed):.3f}" if line.mean and line.printed else line.printed
    return f"{line.measured:.3f} ({printed})" if printed else f"{line.measured:.3f}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
