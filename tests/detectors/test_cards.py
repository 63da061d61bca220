"""Cards: each entry can be used, a wrong one is one line, and a method is added by what CONTRIBUTING.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.conftest import documented

import okng
from okng.detectors import cards as module
from okng.detectors.cards import cards, read_cards
from okng.detectors.catalogue import create, parameters
from okng.errors import OkngError

ROOT = Path(__file__).parents[2]
PACKAGE = Path(okng.__file__).parent


@pytest.mark.parametrize("name", cards())
def test_an_entry_names_arguments_that_there_are_and_fit(name: str) -> None:
    for run, given in cards()[name].arguments.items():
        own = {key: value for key, value in given.items() if key != "size"}
        assert {*own} <= {*parameters(name)}, run
        assert run != "contract" or own == given, "the tests' own images have one size"
        if "backbone" not in own:  # the paper's has weights that are not on every machine
            create(name, **own | ({"weights": "none"} if "weights" in parameters(name) else {}))


def test_families_are_folders_and_names_are_in_order() -> None:
    assert [*cards()] == sorted(cards())
    assert cards()["padim"].family == "feature matching"
    assert cards()["padim"].target == "feature_matching.padim:PaDiM"
    assert cards()["padim"].arguments["paper"]["size"] == (224, 224)  # as constructors take it
    folders = {path.parent.name for path in (PACKAGE / "detectors").glob("*/__init__.py")}
    assert {card.family.replace(" ", "_") for card in cards().values()} == folders


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('idea = "', 'idae = "', "mean: idae is no key; did you mean idea"),
        ('paper = "Nobody, nowhere"\n', "", "mean: paper is missing"),
        ("year = 2026", 'year = "2026"', "mean: year takes a whole number, not '2026'"),
        ("localizes = true", "localizes = 1", "mean: localizes takes true or false, not 1"),
        ('finds = "both"', 'finds = "bugs"', "mean: finds takes one of defects, classes, both, not 'bugs'"),
        ("contract = {}", "contract = 3", "mean: arguments: contract takes { name = value, ... }, not 3"),
        ("contract = {}", "", "mean: arguments: contract is missing"),
        ("cpu-small", "cpu-smal", "mean: arguments: cpu-smal is no key; did you mean cpu-small"),
        ("[mean.arguments]", "[men.arguments]", "mean: arguments is missing"),
        ("[mean]", "", "target belongs to no method; an entry begins with the method's [name]"),
        ("year = 2026", "year = ", "Invalid value (at line 5, column 8)"),
    ],
)
def test_a_wrong_entry_is_one_line_that_names_file_method_and_key(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "cards.toml"
    path.write_text(documented("toml"))
    assert read_cards(path)["mean"].title == "Mean image"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(OkngError, match=re.escape(f"{path}: {said}")) as raised:
        read_cards(path)
    assert "\n" not in str(raised.value)


def test_two_families_can_not_have_a_method_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "cards.py"))
    for family in ("first_kind", "second_kind"):
        (tmp_path / family).mkdir()
        (tmp_path / family / "cards.toml").write_text(documented("toml"))
    with pytest.raises(OkngError, match=r"second_kind/cards.toml: mean: the family first kind has a method of this"):
        cards.__wrapped__()


def test_a_method_is_added_by_the_three_places_that_contributing_names(tmp_path: Path) -> None:
    """In a copy of the project: code, entry and test, all as they are shown; then the tool knows it as its own."""
    for folder in ("src/okng", "tests/contract"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "CONTRIBUTING.md", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    family = tmp_path / "src/okng/detectors/feature_matching"
    (family / "mean.py").write_text(documented("python"))
    with (family / "cards.toml").open("a") as entries:
        entries.write(documented("toml"))
    own = tmp_path / "tests/detectors/feature_matching/test_mean.py"
    own.parent.mkdir(parents=True)
    own.write_text(
        "from okng.detectors.cards import cards\nfrom okng.detectors.catalogue import create, parameters\n\n\n"
        "def test_its_own():\n    assert create('mean', epsilon=0.5).epsilon == 0.5\n"
        "    assert [*parameters('mean')] == ['epsilon']\n"
        "    assert (cards()['mean'].family, cards()['mean'].finds) == ('feature matching', 'both')\n"
    )
    chosen = ["-k", "mean and not example", "tests/contract/test_rules.py", str(own)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
    )
    rules = done.stdout + done.stderr
    assert done.returncode == 0 and re.search(r"\b\d\d passed", rules), rules
    assert not re.search("failed|skipped", rules), rules
