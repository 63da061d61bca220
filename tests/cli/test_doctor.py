"""`okng doctor` runs what it says works, and names what to type for what is missing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from okng import cli
from okng.cli import app, doctor
from okng.errors import OkngError, broken_package, of_two_builds


def found(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    return result.exit_code, {one["what"]: one for one in json.loads(result.stdout)["findings"]}


def test_what_is_installed_here_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the extras one: importing all takes seconds."""
    monkeypatch.setattr(doctor, "PURPOSES", {"train": doctor.PURPOSES["train"]})
    code, said = found()
    assert code == 0
    for what in ("okng", "train", "engine torch", "device cpu"):
        assert said[what]["state"] == "works", said[what]


def test_it_knows_every_extra_that_a_user_installs() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    asked = {extra for together in doctor.PURPOSES for extra in together.split(",")}
    assert extras - asked == {"docs", "dev", "dist", "mutants"}  # of those who develop okng
    assert asked <= extras


def test_it_tells_nobody_of_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported as it is, it reports each import to a server; and an engine is known by its module, not by its package's
    name, as onnxruntime also comes in others."""
    script = (
        "import sys; from okng.cli import doctor; doctor.of_extra('openvino');"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    _, said = found()
    for name in ("openvino", "onnxruntime"):
        assert said[f"engine {name}"]["said"] == sys.modules[name].__version__


def test_a_package_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    there, few = doctor.there, ("openvino", "serve,mqtt")
    monkeypatch.setattr(doctor, "PURPOSES", {extra: doctor.PURPOSES[extra] for extra in few})
    monkeypatch.setattr(doctor, "there", lambda package: package not in ("openvino", "paho.mqtt") and there(package))
    code, said = found()
    assert code == 0 and "engine openvino" not in said
    assert said["openvino"]["state"] == "missing" and "'.[openvino]'" in said["openvino"]["remedy"]
    assert "'.[serve,mqtt]'" in said["serve,mqtt"]["remedy"]


def test_an_engine_that_does_not_run_is_broken_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OkngError("no such instruction\nand more")

    monkeypatch.setattr(doctor, "run_torch", fails)
    code, said = found()
    assert code == 1 and said["engine torch"]["state"] == "broken"
    assert said["engine torch"]["said"] == "no such instruction"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "pip uninstall torch torchvision"),
        (ImportError("libGL.so.1: cannot open shared object file", name="cv2"), "cv2 can't be imported (libGL.so.1"),
    ],
)
def test_a_package_that_is_broken_is_one_line_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    """PyTorch for CPUs beside a torchvision from elsewhere was a traceback, and the remedy changed nothing."""

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("okng: ") and words in said[0]
    monkeypatch.setattr(importlib, "import_module", fails)
    broken = doctor.of_extra("serve,mqtt")
    assert broken.state == "broken" and (of_two_builds(error) == ("two builds" in broken.remedy))


def test_errors_of_okng_itself_keep_their_traceback() -> None:
    for error in (RuntimeError("shapes differ"), ImportError("cannot import name 'a' from 'okng.b'", name="okng.b")):
        assert broken_package(error) is None
    assert broken_package(ModuleNotFoundError("No module named 'cv2'", name="cv2")) is None


def test_on_a_bare_line_it_says_so_without_torch() -> None:
    """Where importing torch or an engine raises, as on a box that has the base alone."""
    code = (
        "import sys\n"
        "for name in ('torch', 'openvino', 'onnxruntime'): sys.modules[name] = None\n"
        "sys.argv = ['okng', 'doctor']\n"
        "from okng.cli import doctor, main\n"
        "doctor.there = lambda package: False\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nothing here can judge an image yet" in done.stdout and "device" not in done.stdout


def test_the_shell_completes_verbs_and_options() -> None:
    """As bash asks for it; by `python -m okng`, too, the program is called okng."""
    environment = {"_OKNG_COMPLETE": "complete_bash", "COMP_WORDS": "okng train --pre", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "okng"], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["--preset", "--precision"]
