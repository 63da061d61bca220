"""The pages walked through for real: each command and example runs, in order, on parts that are drawn."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.site.conftest import DESK, PHONE, faults

ROOT = Path(__file__).parents[2]
GUIDES = (
    "start", "guides/first-inspection", "guides/choose-a-method", "guides/few-images", "guides/large-images",
    "guides/several-products", "guides/threshold", "guides/false-alarms", "guides/edge", "guides/compare",
    "guides/reproduce", "reference/file-format",
)  # fmt: skip
# What needs more than a folder of parts: data sets to download, solar cells for two minutes, a processor with bf16.
ELSEWHERE = ("okng reproduce", "okng demo", "okng export parts.okng -o quick.onnx --precision bf16")
# The same command on less, so that all of it takes minutes.
SMALLER = {
    "--plants 5": "--plants 5 --kinds scratch",
    "padim,mahalanobis,subspace_ad": "mahalanobis,subspace_ad",
    "--tile 128 --overlap 16": "--tile 64 --overlap 8",
}
TYPED: set[str] = set()  # what guides share is typed once


def steps(page: str) -> list[tuple[str, str]]:
    """("sh", a line) and ("python", an example), in the order of the page."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    found = re.finditer(r"^ {4,}(okng [^\n]*)$|^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [("sh", step[1]) if step[1] else ("python", step[2]) for step in found]


def test_the_measured_walk_typed_what_the_pages_say() -> None:
    """Each command of benchmarks/walk.py stands on its page, and the table has its steps."""
    spec = importlib.util.spec_from_file_location("walk", ROOT / "benchmarks" / "walk.py")
    assert spec is not None and spec.loader is not None
    sys.modules["walk"] = walked = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walked)
    for step in walked.STEPS:
        lines = [line.strip() for line in (ROOT / step.page).read_text().splitlines()]
        assert [line for line in step.typed if line not in lines] == [], step.page
    with (ROOT / "results" / "walk.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [step.goal for step in walked.STEPS]


@pytest.mark.slow
@pytest.mark.xdist_group("walk")
@pytest.mark.parametrize("page", GUIDES)
def test_a_person_can_do_what_the_page_says(page: str, walked: Path) -> None:
    for kind, step in steps(page):
        if step.startswith(ELSEWHERE) or step in TYPED:
            continue
        TYPED.add(step)
        for whole, part in SMALLER.items():
            step = step.replace(whole, part)
        typed = re.sub(r"^okng", f"'{sys.executable}' -m okng", step)
        command = ["sh", "-c", typed] if kind == "sh" else [sys.executable, "-c", step]
        done = subprocess.run(command, cwd=walked, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{page}: {step}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.xdist_group("walk")
@pytest.mark.parametrize(("look", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_what_okng_wrote_meanwhile_is_for_everybody(
    browser: Any, axe: str, walked: Path, look: dict[str, Any], scheme: str
) -> None:
    """The report, the pages of training and sensitivity, and a comparison, by axe."""
    pages = [walked / page for page in ("report/report.html", "look/training.html", "comparison/parts.html")]
    window = browser.new_page(color_scheme=scheme, **look)
    for page in [*pages, walked / "look" / "sensitivity.html"]:
        window.goto(page.as_uri())
        assert faults(window, axe) == [], page


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small parts, the rules that a guide shows, and a model such as the guides begin with."""
    folder = tmp_path_factory.mktemp("walk")
    draw = [sys.executable, ROOT / "benchmarks" / "draw_parts.py", "--side", "96", "--ok", "60", "--into", folder]
    subprocess.run(draw, check=True)
    for lot, image in enumerate(sorted((folder / "parts" / "ok").iterdir())):
        image.rename(image.with_name(f"lot{lot // 2}-{image.name}"))
    for turn, into in enumerate(("screw/ok", "nut/ok", "line/new/screw", "line/new/nut"), 1):  # other parts than those
        (folder / into).mkdir(parents=True)
        for image in sorted((folder / "parts" / "ok").iterdir())[::4]:
            with Image.open(image) as opened:
                opened.rotate(35 * turn).save(folder / into / image.name)
    (folder / "rules.json").write_text('{"rules": [{"name": "dust", "verdict": "OK", "max_area": 20}]}')
    train = [sys.executable, "-m", "okng", "train", "parts/ok", "-o", "parts.okng"]
    subprocess.run(train, cwd=folder, check=True)
    subprocess.run([*train[:3], "export", "parts.okng"], cwd=folder, check=True)
    return folder
