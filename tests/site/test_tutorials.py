"""The tutorials: each runs whole on real images, and its page has the script's present code and pictures."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from okng.errors import OkngWarning

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tutorials", ROOT / "benchmarks" / "tutorials.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_its_page_has_its_present_code(script: Path, maker: ModuleType) -> None:
    page = script.with_suffix(".md").read_text()
    rest = page
    for kind, text in maker.cells(script.read_text()):
        shown = text if kind == "markdown" else f"```python\n{text}\n```"
        assert shown in rest, f"run python benchmarks/tutorials.py --only {script.stem}: {text[:80]}"
        rest = rest.partition(shown)[2]
        for name, words in maker.saved(text) if kind == "code" else ():
            assert f"![{words}]({name})" in rest
            assert 1_000 < (FOLDER / name).stat().st_size <= maker.LARGEST
    assert page.count("```text") > 3  # what it printed


def test_a_cell_is_text_or_code_and_shows_what_it_drew(maker: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "one.py"
    script.write_text(
        '# %% [markdown]\n# # One\n#\n# Words.\n\n# %%\nx = 1  # one\n\n# %%\np.save("a-b.webp")  # A thing\n'
    )
    assert maker.cells(script.read_text()) == [
        ("markdown", "# One\n\nWords."), ("code", "x = 1  # one"), ("code", 'p.save("a-b.webp")  # A thing'),
    ]  # fmt: skip
    page = maker.page(script, lambda code: ("1\n" if "x" in code else "", maker.saved(code)))
    assert "x = 1  # one\n```\n\n```text\n1\n```" in page and page.count("```text") == 1
    assert "![A thing](a-b.webp)" in page


@pytest.mark.real_data
@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_it_runs_on_a_few_real_images(
    script: Path, tmp_path: Path, maker: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script.stem == "solar_cells" and find_spec("elpv_dataset") is None:
        pytest.skip("no solar cells; pip install '.[demo]'")
    arguments = [str(fashion())] if script.stem == "clothes" else []
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "quick"])
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OkngWarning)  # images shrink so far that defects vanish
        runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.count("AUROC") >= 2
    for name, _ in maker.saved(script.read_text()):
        assert (tmp_path / name).stat().st_size > 1_000


def fashion() -> Path:
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("no clothes; apt install dataset-fashion-mnist")
    return folder
