"""No line that a person is told to type can fail for what it names: extras, verbs, scripts and options exist."""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import re
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from okng.cli import SAID_ELSEWHERE, app
from okng.detectors.cards import cards
from okng.errors import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "Makefile"]
TEXTS += sorted(path for kind in ("*.py", "*.toml") for path in (ROOT / "src").rglob(kind))
IN_GIT = (ROOT / ".git").exists()
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout if IN_GIT else ""
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def told(pattern: str) -> list[tuple[str, str]]:
    """(file, what the pattern's group holds) of every place in what people read."""
    return [
        (str(path.relative_to(ROOT)), found[1])
        for path in TEXTS
        for found in re.finditer(pattern, path.read_text(), re.MULTILINE)
    ]


def test_every_install_line_works_from_a_clone() -> None:
    """`.`, an extra of it, a wheel made of it, or packages that okng itself depends on."""
    lines = told(r"pip install((?: +(?:'[^'\n]*'|[\w.:/=-]+))+)")
    assert len(lines) > 10
    named = [dependency for extra in PROJECT["optional-dependencies"].values() for dependency in extra]
    known = {re.split(r"[><=]", name)[0] for name in [*named, *PROJECT["dependencies"]]} | {"torchvision"}
    for where, line in lines:
        for word in re.findall(r"'[^']*'|\S+", line):
            if word.startswith("-") or word in ("https://download.pytorch.org/whl/cpu", "'.[{extra}]'"):
                continue
            local = re.fullmatch(r"'?(?:\.|okng-[^ ]*\.whl)(?:\[([a-z,]+)\])?'?", word)
            assert local is not None or word in known, f"{where}: pip install {line}"
            if local is not None and local[1]:
                assert set(local[1].split(",")) <= PROJECT["optional-dependencies"].keys(), f"{where}: {line}"


def test_what_errors_tell_to_install_exists() -> None:
    assert {extra for extras in EXTRAS.values() for extra in extras.split(",")} <= PROJECT[
        "optional-dependencies"
    ].keys()
    assert told(r"(okng\[)") == [] and told(r"(pip install[^\n]* okng)\b(?!-)") == []


def test_each_extra_is_installed_by_the_script_that_does_so_for_real() -> None:
    spec = importlib.util.spec_from_file_location("extras", ROOT / "benchmarks" / "extras.py")
    assert spec is not None and spec.loader is not None
    extras = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extras)
    together = ",".join([*extras.LIGHT, *extras.WITH_TORCH]).strip(",")
    assert set(together.split(",")) == PROJECT["optional-dependencies"].keys()


def test_every_command_line_names_verbs_and_options_that_exist() -> None:
    lines = told(r"(?:^ {4,}|^ *\$ |`|run: |next: )okng ([a-z][^`\n\"';]*)")
    assert len(lines) > 40
    for where, line in lines:
        verb, _, rest = line.partition(" ")
        if where.endswith("architecture.md") and verb not in VERBS:
            pytest.fail(f"{where}: okng {line}")
        assert_runs(where, verb, rest.partition("#")[0])


def assert_runs(where: str, verb: str, rest: str) -> None:
    assert verb in VERBS, f"{where}: okng {verb}"
    options = {option for parameter in VERBS[verb].params for option in parameter.opts} | {"--help", "-h"}
    for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest):
        assert option in options, f"{where}: okng {verb} {rest}"


def test_every_row_of_results_names_a_command_that_can_be_run() -> None:
    """A script that nobody committed once stood beside 132 rows."""
    found = {}
    for path in sorted((ROOT / "results").rglob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            found |= {row["command"]: str(path.relative_to(ROOT)) for row in csv.DictReader(file)}
    assert len(found) > 100 and "" not in found
    for command, where in found.items():
        program, _, rest = command.partition(" ")
        if program == "okng":
            verb, _, rest = rest.partition(" ")
            assert_runs(where, verb, rest)
        elif program == "python":
            assert_is_a_script(where, rest)
        else:
            assert program == "mutmut", f"{where}: {command}"  # a package that the extra `mutants` brings


def test_every_script_that_is_named_exists() -> None:
    lines = told(r"python (benchmarks/[^\n`\"]+)")
    assert len(lines) > 5
    for where, line in lines:
        assert_is_a_script(where, line.partition("#")[0])


def test_every_script_takes_from_okng_what_is_there() -> None:
    """Within functions too, which run by hand only: one asked for weights by a name that they no longer had."""
    taken = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "okng":
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    taken.append(name.name)
                    found = hasattr(module, name.name)
                    found = found or (hasattr(module, "__path__") and find_spec(f"{node.module}.{name.name}"))
                    assert found, f"{path.name}: {node.module} has no {name.name}"
    assert len(taken) > 50


def assert_is_a_script(where: str, line: str) -> None:
    """It lies in the tree and in git, its source knows the options, and it or one beside it what follows --only."""
    script, _, rest = line.partition(" ")
    assert (ROOT / script).is_file(), f"{where}: python {line}"
    assert script in TRACKED.split() or not IN_GIT, f"{where}: {script} is not in git"
    source = (ROOT / script).read_text()
    for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
        assert f'"{option}"' in source, f"{where}: python {line}"
    beside = [(ROOT / script).with_name(f"{name}.py") for name in re.findall(r"^import (\w+)", source, re.MULTILINE)]
    known = "".join([source, *(path.read_text() for path in beside if path.is_file())])
    for name in re.findall(r"--only ([a-z][a-z0-9_-]*)(?!\S)", rest):
        assert f'"{name}"' in known, f"{where}: python {line}"


def test_verbs_of_other_tools_lead_to_ours() -> None:
    assert set(SAID_ELSEWHERE.values()) <= VERBS.keys() and not SAID_ELSEWHERE.keys() & VERBS.keys()


def test_one_option_is_one_thing_in_every_verb() -> None:
    """The same words behind --device, --seed, --json and the like; and one spelling for the file or folder written."""
    for option in ("--device", "--contamination", "--normal", "--protocol", "--abnormal", "--detector", "--engine"):
        helps = {
            (parameter.help or "").removesuffix(" As in training.")
            for verb in VERBS.values()
            for parameter in verb.params
            if option in parameter.opts
        }
        assert len(helps) == 1, (option, helps)
    for verb in VERBS.values():
        for parameter in verb.params:
            assert ("-o" in parameter.opts) == ("--output" in parameter.opts), verb.name


def test_the_readme_has_a_row_for_every_detector() -> None:
    """Once each, and whether it says where as its card does; fifteen were missing once."""
    table = (ROOT / "README.md").read_text().partition("\n## Detectors\n")[2].partition("\n## ")[0]
    where: list[tuple[str, bool | None]] = []
    for row in re.findall(r"^\| (`.*) \|$", table, re.MULTILINE):
        cells = row.split(" | ")
        for name in re.findall(r"`(\w+)`", cells[0]):
            spoken = cells[-1] == "yes" or (cells[-1].startswith("all but") and f"`{name}`" not in cells[-1])
            where.append((name, cards()[name].localizes if cells[-1].startswith("with ") else spoken))
    assert sorted(where) == sorted((name, card.localizes) for name, card in cards().items())
