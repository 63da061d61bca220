"""The figures papers print and the figures we measured, for cards and tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from okng.benchmark.code import is_older
from okng.benchmark.rows import read_rows

DIGITS = 10
PUBLISHED = Path(__file__).with_name("published.csv")


def published(detector: str) -> list[dict[str, str]]:
    """What was printed of `detector`: rows of dataset, protocol, metric, value, source."""
    return [row for row in read_rows(PUBLISHED) if row["detector"] == detector]


def measured(detector: str) -> list[dict[str, str]]:
    """What okng measured of `detector`, as recorded in results/: the same columns, source = the command.

    A figure that several tables share, or that was left blank, stands there once or not at all.
    """
    rows = [row for path in sorted(_results().rglob("*.csv")) for row in read_rows(path)]
    own = [row for row in rows if row.get("detector") == detector and row.get("value") and "metric" in row]
    return [{**row, "source": row["command"]} for row in standing(own).values()]


def identity(row: dict[str, str]) -> tuple[str, ...]:
    """What makes two rows the same measurement, whichever tables they stand in."""
    protocol = row["protocol"].partition(", labelled NG")[0]
    settings = tuple(row.get(key, "") for key in ("arguments", "budget", "seed", "experiment"))
    return (row["detector"], row["dataset"], protocol, row["metric"], *settings)


def standing(rows: Iterable[dict[str, str]]) -> dict[tuple[str, ...], dict[str, str]]:
    """Of each measurement the row that counts: one of the present code before any other, then the newest.

    Rows that are alike in both stand in their order; a test refuses results/ where such differ in the figure.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        other = found.setdefault(identity(row), row)
        alike = row.get("code", "") == other.get("code", "")  # nothing to ask: a digest takes a while
        if (not alike and is_older(row), other["date"]) < (not alike and is_older(other), row["date"]):
            found[identity(row)] = row
    return found


def in_short(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """`rows` with the classes of one data set, measured by the same table's command, as one row: their mean.

    Where a command wrote a row of the mean itself, its classes are left out.
    """
    told = {(row["source"], row["metric"]) for row in rows if " mean of " in row["dataset"]}
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for number, row in enumerate(rows):
        if (row["source"], row["metric"]) in told and " mean of " not in row["dataset"]:
            continue
        kind = row.get("class", "")
        whole = row["dataset"].removesuffix(f" {kind}")
        key: tuple[str, ...] = (
            (whole, row["protocol"], row["metric"], row["arguments"], row["seed"]) if kind else (str(number),)
        )
        groups.setdefault(key, []).append(row)
    short = []
    for key, members in groups.items():
        if len(members) == 1:
            short += members
            continue
        first, kinds = members[0], ",".join(row["class"] for row in members)
        mean = sum(float(row["value"]) for row in members) / len(members)
        command = first["source"].replace(f"--classes {first['class']} ", f"--classes {kinds} ")
        name = f"{key[0]} mean of {len(members)}"
        code = next((row for row in members if is_older(row)), first).get("code", "")
        whole_row = {"dataset": name, "value": f"{mean:.4f}", "class": kinds, "source": command, "code": code}
        short.append({**first, **whole_row})
    return short


def headlines() -> dict[str, dict[str, Any]]:
    """One measured image AUROC for each detector, for a list of all: "dataset", "image_auroc" and "seconds".

    On MVTec AD's transistor where the method is measured there by itself, the mean of its seeds; else the mean of
    MNIST's ten digits, each against the rest, or of so many of them as are measured. `seconds` is one fit with its test
    on a CPU, None where a GPU made the figure. The row of each measurement is `standing`'s; of several arguments those
    count that have the most digits, then those that a table prints under the detector's own name (its teacher alone is
    SDN's, too, but not it), then those of the present code, then the newest.
    """
    alone: dict[str, list[dict[str, str]]] = {}
    digits: dict[str, dict[str, dict[str, dict[str, str]]]] = {}  # by detector, arguments and digit
    rows = [row for path in sorted(_results().rglob("*.csv")) for row in read_rows(path)]
    found = standing(row for row in rows if row.get("metric") == "image_auroc" and row.get("value")).values()
    for row in _present_code_first(row for row in found if _is_alone(row) or _is_of_digits(row)):
        name = row["detector"]
        if _is_alone(row):
            own = alone.setdefault(name, [])
            if not own or (row["arguments"], row.get("code")) == (own[0]["arguments"], own[0].get("code")):
                own.append(row)  # of another seed
        else:
            digits.setdefault(name, {}).setdefault(row["arguments"], {})[row["dataset"]] = row

    def order(rows: dict[str, dict[str, str]]) -> tuple[int, bool]:
        named = [row["method"].lower().replace("-", "_") == row["detector"] for row in rows.values()]
        return len(rows), all(named)

    all_ten = {name: max(found.values(), key=order) for name, found in digits.items()}
    said = {name: "digits" if len(found) == DIGITS else f"{len(found)} digits" for name, found in all_ten.items()}
    headlines = {name: _headline(said[name], [*found.values()]) for name, found in all_ten.items()}
    return headlines | {name: _headline("transistor", own) for name, own in alone.items()}


def on_gpu(row: dict[str, str]) -> bool:
    """Whether a GPU made the figure, so that its seconds say nothing of a CPU."""
    machine = row.get("machine", "").split(", ")  # cores, processor and, of newer rows, the GPU
    return len(machine) > 2 and machine[2] != "no GPU"


def _is_alone(row: dict[str, str]) -> bool:
    """Whether a row is of transistor, by benchmarks/measure.py or benchmarks/default.py."""
    own = (f"transistor-{row['detector']}", "transistor-default")
    return row.get("experiment") in own and row["arguments"] != "ImageNet's mean and deviation"


def _is_of_digits(row: dict[str, str]) -> bool:
    return row["dataset"].startswith("MNIST ") and row.get("budget") == "cpu"


def _present_code_first(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """`rows` by the present code of their detector first, the newest of either first.

    A detector whose rows are all of one code is not asked for its present code's digest, which takes a while.
    """
    rows = list(rows)
    codes: dict[str, set[str]] = {}
    for row in rows:
        codes.setdefault(row["detector"], set()).add(row.get("code", ""))
    several = {detector for detector, found in codes.items() if len(found) > 1}
    return sorted(
        rows, key=lambda row: (row["detector"] not in several or not is_older(row), row["date"]), reverse=True
    )


def _headline(dataset: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    figure = sum(float(row["value"]) for row in rows) / len(rows)
    times = [float(row["seconds"]) for row in rows if not on_gpu(row)]
    return {"dataset": dataset, "image_auroc": figure, "seconds": round(sum(times) / len(times), 1) if times else None}


def _results() -> Path:
    """In an installed package results/ lies inside it, in a checkout beside src/."""
    packaged = Path(__file__).parents[1] / "results"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "results"
