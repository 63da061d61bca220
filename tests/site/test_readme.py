"""README and the Korean pages: every command and example is run, in one small project, or says here why it is not."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

import pytest
from tests.site.steps import DOCS, ROOT, steps, why_not

from okng import cli

PAGES = (*sorted(ROOT.glob("README*.md")), *sorted((DOCS / "ko").glob("*.md")))
NOT_HERE = {  # what a command has: why it isn't run in a test
    r"^python3 -m venv": "makes an environment, as benchmarks/walk.py does",
    r"^pip ": "installs from the network, as benchmarks/walk.py and benchmarks/extras.py do",
    r"^python benchmarks/draw_parts.py": "the project's own parts are drawn by it",
    r"^okng serve": "serves until it is stopped: tests/site/test_walk.py does",
    r"^curl ": "asks that server: tests/serve/test_examples.py asks the same route",
    r"^okng watch": "watches until it is stopped: tests/site/test_walk.py does",
    r"^okng compare": "a process for each fit and judgement: tests/site/test_walk.py does",
}
SMALLER = {"okng sensitivity": " --plants 2 --kinds scratch"}  # the same on less
STEPS = dict.fromkeys(step for page in PAGES for step in steps(page))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small parts, a file of defaults that keeps fits small, and OK images that no model has learnt."""
    folder = tmp_path_factory.mktemp("project")
    spec = importlib.util.spec_from_file_location("draw_parts", ROOT / "benchmarks" / "draw_parts.py")
    assert spec is not None and spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    drawing.draw_parts(folder, side=64, ok=60)
    (folder / "parts" / "new").symlink_to(folder / "new")
    (folder / "images").symlink_to(folder / "new")
    (folder / "okng.toml").write_text('[train]\nsize = 64\ndevice = "cpu"\n')
    return folder


def test_every_command_is_run_or_has_a_reason() -> None:
    run = [step for step in STEPS if not why_not(*step, NOT_HERE)]
    assert len(run) > 15 and {"sh", "python"} == {kind for kind, _ in run}
    for pattern, why in NOT_HERE.items():
        assert any(why_not(*step, {pattern: why}) for step in STEPS), f"no command has {pattern}"


@pytest.mark.slow  # some forty commands; test_documents.py parses them in the suite
def test_each_does_what_it_says(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr("okng.planted.measure.PLANTS", (1, 1))  # the same defects, fewer of them
    monkeypatch.setattr("okng.planted.measure.LADDER", (0.06, 0.24))
    for kind, step in sorted(STEPS, key=stage):
        if why_not(kind, step, NOT_HERE):
            continue
        if kind == "python":
            exec(compile(step, "example", "exec"), {})
            continue
        words = shlex.split(step + next((more for start, more in SMALLER.items() if step.startswith(start)), ""))
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert ended.value.code == 0, f"{step}\n{said.out[-1000:]}{said.err[-1000:]}"


def stage(step: tuple[str, str]) -> int:
    """What makes a model comes before what takes one; within a stage the order of the pages."""
    order = ("okng doctor", "okng train parts", "okng export")
    return next((place for place, start in enumerate(order) if step[1].startswith(start)), len(order))
