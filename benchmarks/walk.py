"""The walk: what the site promises a newcomer, done for real in a new clone, by the commands of its pages alone.

    python benchmarks/walk.py FOLDER

FOLDER becomes the newcomer's: a clone of what is committed, its environment with PyTorch's usual build, and beside it a
box at the line with an environment of its own, which reaches no package index. Each command stands on the page that its
step names, as it is typed here (a test checks it), and pages are opened in Chromium. Writes results/walk.csv: of each
step the words there are to read, seconds, seconds of processors, and what came of it. 7 GB; half an hour on two cores.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import re
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import okng
from okng.benchmark.rows import read_rows, write_rows

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "walk.csv"
COUNTED = ("words", "seconds", "processor_seconds")
COLUMNS = ("step", "page", *COUNTED, "result", "command", "seed", "versions", "machine", "date")
CHROMIUM = "/usr/bin/chromium"
ODD = ["003.png", "006.png", "009.png", "012.png"]  # of the twelve new parts those with a defect, as Start says


@dataclass(frozen=True)
class Step:
    """`typed` in the clone, or on the box, as it stands on `page`, a file; `look` asserts and says what came of it."""

    goal: str
    page: str
    typed: tuple[str, ...]
    look: Callable[[Path, str], str]
    box: bool = False
    before: Callable[[Path], None] = lambda clone: None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    clone = folder / "okng"
    rows: list[dict[str, Any]] = []
    if clone.exists():  # what was stopped goes on
        rows += read_rows(RESULTS)
    else:
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    for step in STEPS[len(rows) :]:
        begun, spent = time.monotonic(), processor()
        step.before(clone)
        said = "".join(typed(line, folder / "box" if step.box else clone, offline=step.box) for line in step.typed)
        result = step.look(clone, said)
        read = step.page in [row["page"] for row in rows]
        words = 0 if read else len((ROOT / step.page).read_text(encoding="utf-8").split())
        seconds, spent = time.monotonic() - begun, processor() - spent
        took = {"seconds": f"{seconds:.0f}", "processor_seconds": f"{spent:.0f}"}
        rows.append({"step": step.goal, "page": step.page, "words": words, **took, "result": result})
        print(f"{seconds:6.0f} s {spent:6.0f} s  {step.goal}: {result}", flush=True)
        write(rows)


def processor() -> float:
    """Seconds that processors have worked for the commands so far: other programs do not change them much."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def typed(line: str, where: Path, offline: bool) -> str:
    """What `line` prints, typed in a shell in `where` whose environment, once there is one, is active."""
    told = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if offline:
        told |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/"}
        told = {key: value for key, value in told.items() if key not in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")}
    active = ". .venv/bin/activate && " if (where / ".venv").exists() else ""
    done = subprocess.run(
        ["bash", "-c", active + line], cwd=where, env=told, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{line}\n{done.stdout[-3000:]}")
    return done.stdout


def in_browser(page: Path, look: Callable[[Any], str]) -> str:
    """What `look` sees of a page that Chromium opens from the disk."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = browser.new_page()
        window.goto(page.as_uri())
        seen = look(window)
        browser.close()
    return seen


def thresholds(said: str) -> str:
    """What each line says that tells the threshold, up to how it was had."""
    lines = [line for line in said.splitlines() if line.startswith("threshold ")]
    assert lines, said
    return ", then ".join(line.partition(" expected,")[0] for line in lines)


def installed(clone: Path, said: str) -> str:
    works = [line[9:27].strip() for line in said.splitlines() if line.startswith("works")]
    assert {"train", "train,export", "engine torch", "engine openvino"} <= {*works}, said
    return f"`okng doctor` finds nothing broken and {', '.join(one for one in works if 'engine' in one)}"


def drawn(clone: Path, said: str) -> str:
    counts = [len(list((clone / folder).iterdir())) for folder in ("parts/ok", "parts/ng", "new")]
    assert counts == [80, 10, 12]
    return "80 good parts, 10 with a defect, 12 new ones"


def learnt(clone: Path, said: str) -> str:
    assert "about 5% false alarms or fewer" in said, said
    shown = in_browser(clone / "look/training.html", lambda window: str(window.locator("article.card").count()))
    assert int(shown) > 0
    return f"{thresholds(said)}; the page shows the {shown} oddest images"


def report_read(clone: Path, said: str) -> str:
    """The oddest images of the report, as a person reads it: those with a defect come first."""

    def look(window: Any) -> str:
        heads = [head.inner_text() for head in window.locator("article.card h3").all()]
        names = [re.search(r"\d+\.png", head) for head in heads]
        assert sorted(name[0] for name in names[: len(ODD)] if name) == ODD, heads
        assert window.locator("article.card").first.locator("img").count() == 2  # the image and its heatmap
        called = window.locator(".tile.ng b").inner_text()
        return f"{called} of 12 NG; the four with a defect are the oddest four, each with a heatmap"

    return in_browser(clone / "report/report.html", look)


def fewer(clone: Path, said: str) -> str:
    return thresholds(said)


def taught(clone: Path, said: str) -> str:
    """The command that the report shows once "really OK" is ticked is the one that was typed but for the image."""

    def look(window: Any) -> str:
        window.locator(".card .really-ok").last.check()
        return str(window.locator("#learn textarea").input_value())

    command = in_browser(clone / "report/report.html", look)
    assert re.fullmatch(r"okng train --update \S*parts\.okng \S*new/\d+\.png", command), command
    return f"the report's own command is `{command.replace(f'{clone}/', '')}`; {thresholds(said)}"


def packed(clone: Path, said: str) -> str:
    box = (clone / "box").rename(clone.parent / "box")
    subprocess.run(["cp", "-r", clone / "new", clone / "parts.onnx", box], check=True)
    wheels = list(box.glob("*.whl"))
    return f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 2**20:.0f} MB, to carry to the box"


def on_box(clone: Path, said: str) -> str:
    (packages,) = (clone.parent / "box/.venv/lib").glob("python*/site-packages")
    assert not (packages / "torch").exists()
    here = typed("okng inspect parts.okng new --json", clone, offline=False)
    there = typed("okng inspect parts.onnx new --json", clone.parent / "box", offline=True)
    verdicts, expected = ([one["verdict"] for one in images(text)] for text in (there, here))
    assert verdicts == expected, (verdicts, expected)
    brought = [one for one in packages.iterdir() if not one.name.startswith(("pip", "setuptools", "pkg_resources"))]
    size = sum(file.lstat().st_blocks * 512 for one in brought for file in one.rglob("*")) / 2**20
    return f"without PyTorch and without a network, {size:.0f} MB; the same twelve verdicts"


def images(said: str) -> list[dict[str, Any]]:
    return list(json.loads(next(line for line in said.splitlines() if line.startswith("{")))["images"])


def compared(clone: Path, said: str) -> str:
    def look(window: Any) -> str:
        shown = window.locator("body").inner_text()
        assert all(name in shown.lower() for name in ("padim", "mahalanobis", "subspace")), shown[:2000]
        return str(window.locator("h1").inner_text())

    title = in_browser(clone / "comparison/parts.html", look)
    with (clone / "comparison/parts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [f"{row['method']} {float(row['image_auroc']):.3f}" for row in rows]
    return f"{title}: image AUROC {', '.join(found)}"


def written(clone: Path) -> None:
    """The files of a new method, as the page shows them."""
    text = (clone / "CONTRIBUTING.md").read_text(encoding="utf-8")
    family = clone / "src/okng/detectors/classical"
    for language, file in (("python", family / "mean.py"), ("toml", family / "cards.toml")):
        (shown,) = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(("\n" if language == "toml" else "") + textwrap.dedent(shown))


def added(clone: Path, said: str) -> str:
    passed = re.search(r"\d+ passed", said)
    assert passed is not None, said
    return f"clean by ruff and mypy, {passed[0]} of the contract; {thresholds(said)}"


STEPS = (
    Step(
        "Install",
        "docs/start.md",
        (
            "python3 -m venv .venv && . .venv/bin/activate",
            "pip install '.[train,export]'",
            "okng doctor",
        ),
        installed,
    ),
    Step("Get images", "docs/start.md", ("python benchmarks/draw_parts.py",), drawn),
    Step("Train", "docs/start.md", ("okng train parts/ok -o parts.okng --report look",), learnt),
    Step("Read the report", "docs/start.md", ("okng inspect parts.okng new --report report",), report_read),
    Step(
        "Lower false alarms: a lower rate",
        "docs/guides/threshold.md",
        ("okng threshold parts.okng", "okng threshold parts.okng --false-alarm-rate 0.02"),
        fewer,
    ),
    Step(
        "Lower false alarms: teach an image",
        "docs/guides/false-alarms.md",
        ("okng train --update parts.okng new/001.png -o parts-2.okng",),
        taught,
    ),
    Step(
        "Pack it for an edge box",
        "docs/guides/edge.md",
        ("okng export parts.okng", "pip wheel -w box '.[openvino]'"),
        packed,
    ),
    Step(
        "Run it on the edge box",
        "docs/guides/edge.md",
        (
            "python3 -m venv .venv && . .venv/bin/activate",
            "pip install --no-index --find-links . 'okng-0.1.0-py3-none-any.whl[openvino]'",
            "okng doctor",
            "okng inspect parts.onnx new",
        ),
        on_box,
        box=True,
    ),
    Step(
        "Compare three methods",
        "docs/guides/compare.md",
        ("okng compare parts --normal ok -d padim,mahalanobis,subspace_ad --time-limit 60m -o comparison",),
        compared,
    ),
    Step(
        "Add a detector",
        "CONTRIBUTING.md",
        ("make lint", "pytest tests/contract -k mean", "okng train parts/ok -d mean -o mean.okng"),
        added,
        before=written,
    ),
)


def write(rows: list[dict[str, Any]]) -> None:
    """The table of results."""
    same = {
        "command": "python benchmarks/walk.py FOLDER",
        "seed": 0,
        "versions": f"okng {okng.__version__}, Python {platform.python_version()}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }
    write_rows(RESULTS, COLUMNS, [{**same, **row} for row in rows])


if __name__ == "__main__":
    main()
