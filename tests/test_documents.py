"""No line that a person is told to type can fail for what it names: extras, verbs and options exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from okng.cli import SAID_ELSEWHERE, app
from okng.errors import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "Makefile"]
TEXTS += sorted((ROOT / "src").rglob("*.py"))
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


def test_every_command_line_names_verbs_and_options_that_exist() -> None:
    lines = told(r"(?:^    |^ *\$ |`|run: |next: )okng ([a-z][^`\n\"';]*)")
    assert len(lines) > 40
    for where, line in lines:
        verb, _, rest = line.partition(" ")
        if where.endswith("architecture.md") and verb not in VERBS:
            pytest.fail(f"{where}: okng {line}")
        assert verb in VERBS, f"{where}: okng {line}"
        options = {option for parameter in VERBS[verb].params for option in parameter.opts} | {"--help", "-h"}
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest.partition("#")[0]):
            assert option in options, f"{where}: okng {line}"


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
