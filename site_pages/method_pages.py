"""A page for each method, made of its card, its docstring, its tests and what was measured."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from okng.benchmark.code import is_older
from okng.benchmark.figures import in_short, measured, on_gpu, published
from okng.checks import typed
from okng.detectors.cards import Card, cards
from okng.detectors.catalogue import DEFAULT, detector_class, explanations, parameters

ROOT = Path(__file__).parents[1]
SETS = {"transistor": "transistor", "magnetic_tile": "magnetic tile", "elpv/mono": "mono", "elpv/poly": "poly"}
ACCURACY = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
FINDS = {"defects": "defects", "classes": "other kinds of pictures", "both": "defects and other kinds of pictures"}
STRIP = (
    "Learnt from 60 OK images {how} (`python benchmarks/strips.py`). One image shows what a heatmap looks like, not "
    "how good a method is. The third picture is what a report shows: without colour on the defect it is a miss. "
    "Image of MVTec AD, CC BY-NC-SA 4.0, and so is this picture."
)
HEAD = """# Methods

{count} methods, one interface. Each page says what the method's idea is, which property tells it from a toy, what was
published and what okng measured, what it costs, what its arguments mean, and where it differs from the paper.
Not sure which one? Read [Choose a method](../guides/choose-a-method.md).
"""


def pages() -> dict[str, str]:
    """The text of each method's page and of their list, by address."""
    return {"methods/index.md": index()} | {f"methods/{name}.md": page(name) for name in cards()}


def nav() -> list[dict[str, list[dict[str, str]]]]:
    """The pages as mkdocs takes them, a section for each family, the newest method last."""
    return [
        {family.capitalize(): [{cards()[name].title: f"methods/{name}.md"} for name in names]}
        for family, names in families().items()
    ]


def families() -> dict[str, list[str]]:
    """Names by family, both in order."""
    found: dict[str, list[str]] = {}
    for name, card in sorted(cards().items(), key=lambda item: (item[1].family, item[1].year or 0, item[0])):
        found.setdefault(card.family, []).append(name)
    return found


def index() -> str:
    """All methods with their idea, family by family."""
    parts = [HEAD.format(count=len(cards()))]
    for family, names in families().items():
        rows = [f"| [{cards()[name].title}]({name}.md) | {cards()[name].idea} |" for name in names]
        parts.append(f"## {family.capitalize()}\n\n| method | idea |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def page(name: str) -> str:
    """The page of the method called `name`."""
    card, text = cards()[name], inspect.getdoc(detector_class(name)) or ""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    otherwise = [paragraph for paragraph in paragraphs if paragraph.startswith("Deliberately otherwise")]
    idea = [p for p in paragraphs if p not in otherwise and not re.match(r"`\w+`.*?: ", p)]
    return "\n\n".join(
        part
        for part in (
            f"# {card.title}",
            card.idea,
            facts(name, card),
            f"    okng train {source(card)} -d {name}{' --ng parts/ng' if needs_ng(name) else ''}",
            "## The idea",
            *idea,
            strip(name, card),
            "## The property",
            proof(name),
            "## Published and measured",
            figures(name),
            "## Cost",
            cost(name),
            "## Arguments",
            arguments(name),
            "## What differs from the paper",
            *otherwise,
            f"The budget `paper` leaves out: {' '.join(card.left_out.split())}." if card.left_out else "",
        )
        if part
    ).rstrip() + ("\n" if otherwise or card.left_out else "\n\nNothing that is known.\n")


def strip(name: str, card: Card) -> str:
    """What it makes of one image, where `python benchmarks/strips.py` drew that."""
    if not (ROOT / "docs" / "images" / "methods" / f"{name}.webp").exists():
        return ""
    words = (
        f"A transistor with a damaged case; the map of {card.title} from its own middle value to its highest; the same "
        "from where OK images end; and the labelled mask"
    )
    one_pass = detector_class(name).collects_only
    how = "at 160 px, with its defaults otherwise" if one_pass else "with its arguments for a CPU, a fifth held out"
    return f"![{words}](../images/methods/{name}.webp)\n\n*{words}. {STRIP.format(how=how)}*"


def source(card: Card) -> str:
    """What it learns from, as it is typed: a method of other classes is best tried on a data set of classes."""
    return "mnist --normal 3" if card.finds == "classes" else "parts/ok"


def needs_ng(name: str) -> bool:
    """Whether it can't do without NG images."""
    return detector_class(name).needs_ng


def facts(name: str, card: Card) -> str:
    """A table of what decides whether a person can use it."""
    kind = detector_class(name)
    rows = {
        "name": f"`{name}`" + (" (the default)" if name == DEFAULT else ""),
        "family": card.family,
        "paper": f"{card.paper}, {card.year}" if card.paper else "",
        "good for": card.good_for,
        "finds": FINDS[card.finds] if card.finds else "",
        "says where": "yes" if card.localizes else "no, whole images only",
        "learns from": card.labels,
        "pretrained network": "yes" if kind.pretrained else "no",
        "learns more OK images later": "yes, `okng train --update`" if card.updates else "no, fit again",
        "export to ONNX": "yes" if kind.exportable else "no",
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {cell(value)} |" for key, value in rows.items() if value)


def proof(name: str) -> str:
    """What its tests show: their headline, and what each is called."""
    path = test_of(name)
    if path is None:
        return "Only the [rules that every method keeps](../architecture.md#2-the-contract-of-a-detector) are tested."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = " ".join((ast.get_docstring(tree) or "").split())
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    where = path.relative_to(ROOT).as_posix()
    lines = [f"- {test.removeprefix('test_').replace('_', ' ')}" for test in tests]
    head = f"{said}\n\n" if said else ""
    return f"{head}[Its tests](../../{where}) show that\n\n" + "\n".join(lines)


@cache
def test_of(name: str) -> Path | None:
    """The file of its tests: called after it, or the one that speaks of its class most."""
    kind, found = detector_class(name).__name__, sorted((ROOT / "tests" / "detectors").rglob("test_*.py"))
    own = [path for path in found if path.stem == f"test_{name}"]
    said = {path: len(re.findall(rf"\b{kind}\b", path.read_text(encoding="utf-8"))) for path in found}
    best = max(said, key=lambda path: said[path])
    return own[0] if own else best if said[best] > 1 else None


def figures(name: str) -> str:
    """Two tables of rows that are alike but for the metric: published and measured."""
    parts = []
    for title, rows in (("published", published(name)), ("measured", measured(name))):
        if not rows:
            parts.append(
                f"Nothing {title} yet that okng could print." if title == "measured" else "No published figure."
            )
            continue
        lines = [f"| {title} | " + " | ".join(ACCURACY.values()) + " | how |", "|---" * (len(ACCURACY) + 2) + "|"]
        shown = [row for row in in_short(rows) if row["metric"] in ACCURACY]
        for (data, how), several in itertools.groupby(shown, described):
            value = {row["metric"]: told(row, title) for row in several}
            cells = [value.get(metric, "") for metric in ACCURACY]
            lines.append(f"| {cell(data)} | " + " | ".join(cells) + f" | {cell(how)} |")
        if title == "measured":
            divided = dict.fromkeys((row["dataset"], row["protocol"]) for row in shown)
            lines += ["", *(f"- {data}: {protocol}" for data, protocol in divided if protocol)]
        parts.append("\n".join(lines))
    parts.append("‡ by other code of the method than today's; it may differ now." if "‡" in "".join(parts) else "")
    return "\n\n".join(part for part in parts if part)


def described(row: dict[str, str]) -> tuple[str, str]:
    """What several metrics share: the images, and how the figures were had."""
    if "command" not in row:
        return row["dataset"], f"{row['protocol']}; {row['source']}"
    given = row.get("arguments", "") if not row.get("budget") else ""
    given = re.sub(r"[{}]|(?<!\w)'|'(?!\w)", "", given).replace(": ", "=") if given != "defaults" else ""
    return row["dataset"], f"{given}; `{row['source']}`".removeprefix("; ")


def told(row: dict[str, str], title: str) -> str:
    """A figure, marked where it is not of the present code."""
    return row["value"] + "‡" * (title == "measured" and is_older(row))


def cost(name: str) -> str:
    """Seconds of a fit and milliseconds of an image, on each set where it was measured on a CPU."""
    rows = [row for row in measured(name) if row["metric"] in ("fit_seconds", "ms_per_image") and not on_gpu(row)]
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["dataset"], {}).setdefault(row["metric"], f"{float(row['value']):.3g}")
    if not found:
        return "Not measured by itself yet; `okng list` has the time of its fits in tables, where there are some."
    lines = ["| images | fit, s | an image, ms |", "|---|---|---|"]
    lines += [
        f"| {data} | {one.get('fit_seconds', '–')} | {one.get('ms_per_image', '–')} |" for data, one in found.items()
    ]
    return "\n".join(
        [*lines, "", "One CPU core, with its arguments for a CPU. Other programs ran besides: upper bounds."]
    )


def arguments(name: str) -> str:
    """What its constructor takes, as -p does, and what the budgets give it."""
    said = explanations(name)
    lines = ["| `-p` | default | |", "|---|---|---|"]
    for key, parameter in parameters(name).items():
        if key not in ("image_size", "channels"):
            default = "" if parameter.default is parameter.empty else f"`{typed(parameter.default)}`"
            lines.append(f"| `{key}` | {cell(default)} | {cell(said.get(key, ''))} |")
    budgets = {budget: given for budget, given in cards()[name].arguments.items() if budget != "contract"}
    spelt = [f"- `{budget}`: {spoken(given)}" for budget, given in budgets.items()]
    where = "They are given by `--budget cpu`, small or large by the size of the images, and `--budget paper`:"
    return "\n".join(lines if len(lines) > 2 else ["It has none."]) + f"\n\n{where}\n\n" + "\n".join(spelt)


def spoken(given: dict[str, Any]) -> str:
    """Arguments as they are typed."""
    return ", ".join(f"`{key}={typed(value)}`" for key, value in given.items()) or "the defaults"


def cell(text: str) -> str:
    """Text that can stand in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def side_by_side() -> str:
    """Every method that was measured on photographs: accuracy on four sets, and what it costs."""
    lines = ["| method | " + " | ".join([*SETS.values(), "fit, s", "an image, ms", "where"]) + " |", "|---" * 8 + "|"]
    rows = []
    for name, card in cards().items():
        own = measured(name)
        best = {data: value(own, data, "image_auroc") for data in SETS}
        if any(best.values()):
            costs = [value(own, "transistor", metric, "{:.3g}") or "–" for metric in ("fit_seconds", "ms_per_image")]
            found = [best[data] or "–" for data in SETS]
            where = "yes" if card.localizes else "no"
            cells = [f"[{card.title}](../methods/{name}.md)", *found, *costs, where]
            rows.append((best["transistor"] or "", "| " + " | ".join(cells) + " |"))
    return "\n".join([*lines, *(row for _, row in sorted(rows, reverse=True))])


def value(rows: list[dict[str, str]], data: str, metric: str, spelt: str = "{:.3f}") -> str:
    """The figure of a set by the defaults or the budget for a CPU, blank where none was measured."""
    own = [r for r in rows if r["dataset"] == data and r["metric"] == metric and "ImageNet's" not in r["arguments"]]
    if metric != "image_auroc":
        own = [row for row in own if not on_gpu(row)]
    return spelt.format(float(min(own, key=is_older)["value"])) if own else ""


TABLES: dict[str, Callable[[], str]] = {"<!-- made: methods side by side -->": side_by_side}
