"""How long `okng list` takes with sixty methods, beside what starts any such program: `import typer, rich`.

    python benchmarks/sixty_cards.py

In a copy of okng whose cards and rows of results are doubled, under other names, until there are sixty methods. Both
are run in turns; processor seconds are what the process itself took, however busy the machine. Writes results/list.csv.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from okng.benchmark.rows import read_rows, write_rows
from okng.detectors.cards import cards

ROOT = Path(__file__).parents[1]
METHODS, RUNS = 60, 9
FIELDS = ("figure", "value", "methods", "runs", "command", "versions", "machine", "date")


def main() -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as folder:
        source = copy_with(METHODS, Path(folder))
        commands = {
            "list": [sys.executable, "-m", "okng", "list"],
            "imports": [sys.executable, "-c", "import typer, rich"],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for run in range(RUNS + 1):  # the first one writes Python's caches
            for name, command in commands.items():
                measured, printed = seconds_of(command, source)
                assert name == "imports" or len(re.findall(r"^[ *] \w+ ", printed, re.MULTILINE)) >= METHODS, printed
                if run:
                    taken[name].append(measured)
    wall, processor = ({name: float(np.median([each[i] for each in taken[name]])) for name in taken} for i in (0, 1))
    figures = {
        "list, s": wall["list"], "imports, s": wall["imports"], "ratio": wall["list"] / wall["imports"],
        "list, processor s": processor["list"], "imports, processor s": processor["imports"],
        "processor ratio": processor["list"] / processor["imports"],
    }  # fmt: skip
    common = {
        "methods": METHODS, "runs": RUNS, "command": "python benchmarks/sixty_cards.py",
        "versions": f"Python {platform.python_version()}", "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
    }  # fmt: skip
    rows = [{"figure": name, "value": f"{value:.3g}", **common} for name, value in figures.items()]
    write_rows(ROOT / "results" / "list.csv", FIELDS, rows)
    print(figures)


def copy_with(methods: int, folder: Path) -> Path:
    """okng with so many methods below `folder`; the folder that PYTHONPATH names."""
    shutil.copytree(ROOT / "src" / "okng", folder / "src" / "okng", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "results", folder / "results")
    names = [*cards()][: methods - len(cards())]
    assert len(cards()) + len(names) == methods
    for path in (folder / "src" / "okng" / "detectors").glob("*/cards.toml"):
        text = path.read_text(encoding="utf-8")
        entries = re.split(r"^(?=\[\w+\]$)", text, flags=re.MULTILINE)[1:]
        for entry in entries:
            name = re.match(r"\[(\w+)\]", entry)
            if name is not None and name[1] in names:
                text += "\n" + re.sub(rf"^\[{name[1]}(?=[\].])", f"[{name[1]}_again", entry, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")
    for path in (folder / "results").rglob("*.csv"):
        rows = read_rows(path)
        again = [{**row, "detector": f"{row['detector']}_again"} for row in rows if row.get("detector") in names]
        for row in again:
            if row.get("experiment", "").endswith(f"-{row['detector'].removesuffix('_again')}"):
                row["experiment"] += "_again"
        if again:
            write_rows(path, rows[0], [*rows, *again])
    return folder / "src"


def seconds_of(command: list[str], source: Path) -> tuple[tuple[float, float], str]:
    """Wall and processor time of one command, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    settings = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=settings)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), done.stdout


if __name__ == "__main__":
    main()
