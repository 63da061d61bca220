"""The pages walked through for real: each command and example runs, in order, on parts that are drawn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.mark.slow
def test_the_site_is_built_strictly_and_reads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site needs '.[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=told, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    loaded = [
        (page.name, address)
        for page in tmp_path.rglob("*.html")
        for address in re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', page.read_text())
        if "canonical" not in address
    ]
    assert loaded == []
