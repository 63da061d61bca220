"""okng.toml: it gives defaults, the command line goes before it, and what it has wrong is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from okng import cli
from okng.cli import project
from okng.errors import OkngError


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["okng", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_gives_defaults_and_the_command_line_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "okng.toml").write_text('[train]\nseed = 7\ndetector = "none_such"\n[inspect]\nfail-on-ng = true\n')
    assert run(monkeypatch, "train", "parts") == 1
    said = capsys.readouterr().err
    assert "none_such" in said and "okng.toml: seed 7, detector none_such" in said
    assert run(monkeypatch, "train", "parts", "-d", "also_none") == 1
    assert "also_none" in capsys.readouterr().err
    assert run(monkeypatch, "list") == 0  # a verb without a table
    assert "okng.toml" not in capsys.readouterr().err


def test_defaults_of_a_fit_are_none_of_an_update(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "okng.toml").write_text('[train]\nsize = 64\nreport = "look"\nseed = 99999999999999\n')
    for words in (["--update", "none.okng", "parts"], ["parts", "--update", "none.okng"]):
        assert run(monkeypatch, "train", *words) == 1
        assert "an update keeps" not in (said := capsys.readouterr().err) and "--report" not in said
    assert run(monkeypatch, "train", "parts", "--update", "none.okng", "--size", "64") == 1
    assert "an update keeps" in capsys.readouterr().err


def test_what_reaches_far_is_said_by_a_file_that_a_person_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "okng.toml").write_text('[inspect]\nray = "ray://elsewhere:10001"\n')
    assert run(monkeypatch, "inspect", "none.okng", "parts") == 1
    assert "okng --config okng.toml inspect" in capsys.readouterr().err
    assert run(monkeypatch, "--config", "okng.toml", "inspect", "none.okng", "parts") == 1
    assert "none.okng" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "far"),
    [
        ('[watch]\nstore = "postgresql://elsewhere/line"', True),
        ('[inspect]\nreport = "s3://bucket/report"', True),
        ('[inspect]\ncsv = "~/.bashrc"', True),
        ('[train]\noutput = "/etc/parts.okng"', True),
        ('[train]\noutput = "..\\\\parts.okng"', True),
        ('[rules]\noutput = "a/../../parts.okng"', True),
        ('[serve]\nfolder = ["images", "C:\\\\"]', True),
        ('[serve]\nhost = "0.0.0.0"', True),
        ('[serve]\nadd_token = "mine"', True),
        ('[serve]\nfolder = ["images"]\nstore = "line.db"', False),
        ('[train]\noutput = "models/parts.okng"\nparameter = ["backbone=timm:resnet18"]', False),
        ('[inspect]\ncsv = "-"\nreport = "reports/today..html"', False),
        ("[train]\ngroup-by = '\\d+'", False),
        ("[train]\ngroup_by = '/(lot)/'", False),
    ],
)
def test_a_file_that_lies_there_says_nothing_that_leads_out_of_its_folder(folder: Path, text: str, far: bool) -> None:
    import typer

    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    (folder / "okng.toml").write_text(text)
    assert project.defaults(folder / "okng.toml", verbs)  # named
    if far:
        with pytest.raises(OkngError, match="only from a file that you name"):
            project.defaults(folder / "okng.toml", verbs, named=False)
    else:
        assert project.defaults(folder / "okng.toml", verbs, named=False)


def test_help_and_doctor_say_what_was_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "okng.toml").write_text("[train]\nseed = 77\n")
    monkeypatch.setattr("okng.cli.doctor.PURPOSES", {})
    monkeypatch.setattr("okng.cli.doctor.there", lambda package: False)
    run(monkeypatch, "doctor")
    assert "defaults for train: seed" in capsys.readouterr().out
    run(monkeypatch, "train", "--help")
    assert "77" in capsys.readouterr().out


def test_every_kind_of_value_is_taken(folder: Path) -> None:
    import typer

    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    (folder / "x.toml").write_text(
        '[train]\nparameter = ["coreset=0.05"]\nsize = 384\nfalse_alarm_rate = 0.02\nforce = true\n'
        'output = "~/a.okng"\n[watch]\nto = ["csv:verdicts.csv"]\n'
    )
    found = project.defaults(folder / "x.toml", verbs)
    assert found["train"] == {
        "parameter": ["coreset=0.05"], "size": 384, "false_alarm_rate": 0.02, "force": True,
        "output": str(Path.home() / "a.okng"),
    }  # fmt: skip
    assert found["watch"] == {"to": ["csv:verdicts.csv"]}


def test_config_names_another_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "okng.toml").write_text("[train]\nseed = 1\n")
    (folder / "line2.toml").write_text('[train]\ndetector = "of_line_2"\n')
    assert run(monkeypatch, "--config", "line2.toml", "train", "parts") == 1
    said = capsys.readouterr().err
    assert "of_line_2" in said and "seed" not in said
    assert run(monkeypatch, "--config", "none.toml", "train", "parts") == 1
    assert "none.toml can't be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[trian]\nseed = 1", "no verb [trian]; did you mean train"),
        ("[train]\nsise = 1", "train has no option 'sise'; did you mean size"),
        ("seed = 1", "put it below the verb"),
        ("[train\n", "is no TOML"),
        ("[train]\nseed = [1]", "seed of [train] is one value"),
        ("[train]\nparameter = 'x=1'", "parameter of [train] is a list"),
        ("[inspect]\nstrict = 'yes'", "strict of [inspect] is true or false"),
        ("[train]\nseed = true", "seed of [train] is no switch"),
        ("[train]\nsource = 'parts'", "train has no option 'source'"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, line: str
) -> None:
    (folder / "okng.toml").write_text(text)
    assert run(monkeypatch, "train", "parts") == 1
    said = capsys.readouterr().err
    assert line in said and said.startswith("okng: okng.toml") and said.count("\n") == 1
