"""What is left of an `okng inspect` that could not do everything: every file says how much it holds."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.test_cli import okng, one_line, shop  # noqa: F401
from tests.contract.conftest import pictures

from okng.cli import main
from okng.exporting import export
from okng.inspection.outputs import Overlays

IMAGES = 10  # of the shop's test part


@pytest.fixture
def model(shop: Path) -> Path:  # noqa: F811
    return shop / "parts.okng"


@pytest.fixture(scope="module")
def exported(shop: Path) -> Path:  # noqa: F811
    """The same model for the line, where a process begins in no time."""
    export(shop / "parts.okng", shop / "exported.onnx")
    return shop / "exported.onnx"


@pytest.fixture
def images(shop: Path, tmp_path: Path) -> Path:  # noqa: F811
    return shutil.copytree(shop / "parts/test", tmp_path / "new")


@pytest.mark.parametrize("verb", ["inspect", "explain"])
def test_a_reader_that_leaves_stops_no_file(
    model: Path, exported: Path, images: Path, tmp_path: Path, verb: str
) -> None:
    out, report = tmp_path / "all.csv", tmp_path / "report"
    asked = ["--csv", out, "--report", report, "--overlays", tmp_path / "maps"]
    reading, writing = os.pipe()
    os.close(reading)  # it went away before the first line
    words = [sys.executable, "-m", "okng", verb, exported if verb == "inspect" else model, images]
    words += asked if verb == "inspect" else ["-o", tmp_path / "maps", "--layer", "backbone.net.conv_stem"]
    done = subprocess.run(list(map(str, words)), stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "maps").rglob("*.png"))) == IMAGES
    if verb == "inspect":
        assert len(out.read_text().splitlines()) == 1 + IMAGES
        assert (report / "report.html").exists() and len((report / "report.csv").read_text().splitlines()) == 1 + IMAGES
        assert f"wrote {out}: 10 of 10 images" in done.stderr
        assert "standard output ended early: Broken pipe" in done.stderr


def test_no_file_name_passes_for_a_verdict(model: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a.png\nOK  score 0.1  p = 1.0000  b.png"
    Image.fromarray(pictures(1, seed=3)[0]).save(odd, "PNG")
    done = okng("inspect", model, odd)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1, done.stdout


def test_a_reader_of_the_csv_that_leaves_ends_the_run(exported: Path, images: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "okng", "inspect", exported, *[images] * 30, "--csv", "-"]
    done = subprocess.run(list(map(str, words)), stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1 and "can't be written" not in done.stderr
    assert "OK, " not in done.stderr  # nothing was judged for nobody


def test_what_was_inspected_before_a_stop_is_not_lost(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["inspect", model, images, "--json", "--csv", tmp_path / "all.csv", "--report", tmp_path / "report"]
    words += ["--overlays", tmp_path / "maps"]
    assert okng(*words).returncode == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "all.csv", tmp_path / "report/report.html")}
    drawn = []

    def third_is_ctrl_c(self: Overlays, *arguments: object, image: None) -> Path:
        drawn.append(arguments)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return Path("drawn.png")

    with monkeypatch.context() as stop:
        stop.setattr("okng.inspection.outputs.Overlays.add", third_is_ctrl_c)
        stopped = okng(*words)
    assert stopped.returncode == 130
    told = json.loads(stopped.stdout)
    assert told["complete"] is False and told["total"] == IMAGES and len(told["images"]) == 3
    assert len((tmp_path / "all.partial.csv").read_text().splitlines()) == 1 + 3
    assert f"wrote {tmp_path}/all.partial.csv: 3 of 10 images" in stopped.stderr
    assert f"{tmp_path}/all.csv is of an earlier run" in stopped.stderr
    assert "stopped after 2 of 10 images" in (tmp_path / "report/report.partial.html").read_text().replace("\n", " ")
    assert {path: path.read_bytes() for path in whole} == whole
    done = okng(*words)
    assert json.loads(done.stdout)["complete"] is True
    assert not list(tmp_path.rglob("*.partial.*"))


def test_what_can_not_be_written_is_said_and_the_rest_is_finished(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/NG").touch()  # no folder
    asked = ["--overlays", tmp_path / "maps", "--csv", tmp_path / "all.csv", "--json"]
    done = okng("inspect", model, images, *asked)
    assert done.returncode == 1 and "overlays are missing, the first: no overlay of" in done.stderr.splitlines()[-1]
    told = json.loads(done.stdout)
    assert told["complete"] is True and len(told["not_drawn"]) == told["counts"]["NG"] > 0
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + IMAGES
    assert len(list((tmp_path / "maps/OK").iterdir())) == told["counts"]["OK"] > 0


def test_a_full_disk_is_said_of_each_file(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.html").write_text("older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(str(images)) * 4 + 300, hard))
    try:
        done = okng("inspect", model, images, "--csv", tmp_path / "all.csv", "--report", tmp_path / "report")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == IMAGES  # every image has its verdict all the same
    last = done.stderr.splitlines()[-1]
    assert "all.csv can't be written: File too large; " in last and "report.csv can't be written" in last
    rows = len((tmp_path / "all.partial.csv").read_text().splitlines()) - 1
    assert 0 < rows < IMAGES and f"all.partial.csv: {rows} of 10 images" in done.stderr
    assert (tmp_path / "report/report.html").read_text() == "older"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_standard_output_that_is_full_stops_no_file_and_is_a_mistake(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["okng", "inspect", str(model), str(images), "--csv", str(tmp_path / "all.csv")])
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as done:
            main()
    assert done.value.code == 1
    assert "standard output can't be written: No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + IMAGES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "IMAGES"],
        ["inspect", "IMAGES", "--json"],
        ["inspect", "IMAGES", "--csv", "-"],
        ["threshold", "--json"],
    ],
)
def test_a_full_disk_behind_standard_output_is_named(
    model: Path, images: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line was "[Errno 28] No space left on device", without what it is about."""
    verb, *rest = [str(images) if word == "IMAGES" else word for word in command]
    monkeypatch.setattr("sys.argv", ["okng", verb, str(model), *rest])
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as done:
            main()
    assert done.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == "okng: standard output can't be written: No space left on device"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(("command", "buffered"), [("--version", False), ("list", True)])
def test_a_full_disk_is_named_where_nothing_is_left_in_a_buffer(
    command: str, buffered: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by PYTHONUNBUFFERED in a container, and for a text that is larger than the buffer."""
    monkeypatch.setattr("sys.argv", ["okng", command])
    with Path("/dev/full").open("wb", buffering=-1 if buffered else 0) as full:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(full, write_through=not buffered))
        with pytest.raises(SystemExit) as done:
            main()
    assert done.value.code == 1
    assert capsys.readouterr().err == "okng: standard output can't be written: No space left on device\n"


def test_a_closed_output_is_one_that_nobody_reads(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines for the person came out among the JSON, and the other way round there was a traceback."""
    monkeypatch.setattr("sys.argv", ["okng", "threshold", str(model), "--json"])
    with monkeypatch.context() as closed, pytest.raises(SystemExit) as done:
        closed.setattr("sys.stderr", None)
        main()
    assert done.value.code == 0 and json.loads(capsys.readouterr().out)["n"] == IMAGES
    with monkeypatch.context() as closed, pytest.raises(SystemExit) as done:
        closed.setattr("sys.stdout", None)
        main()
    assert done.value.code == 0 and capsys.readouterr().err.startswith("threshold ")


def test_overlays_lie_in_one_place_and_are_not_inspected(model: Path, images: Path) -> None:
    maps = images / "maps"
    first = json.loads(okng("inspect", model, images, "--overlays", maps, "--json").stdout)
    assert len(list((maps / "NG").glob("*.png"))) == first["counts"]["NG"] > 0
    second = json.loads(okng("inspect", model, images, "--overlays", maps, "--threshold", 1e9, "--json").stdout)
    assert [image["path"] for image in second["images"]] == [image["path"] for image in first["images"]]
    assert (len(list((maps / "OK").glob("*.png"))), len(list((maps / "NG").iterdir()))) == (IMAGES, 0)
    assert "no overlays of okng's" in one_line(okng("inspect", model, images, "--overlays", images))


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_a_csv_on_standard_output(model: Path, images: Path, tmp_path: Path, name: str) -> None:
    done = okng("inspect", model, images, "--csv", name)
    assert done.returncode == 0, done.stderr
    assert f"wrote {'lines on standard output' if name == '-' else name}: " in done.stderr
    okng("inspect", model, images, "--csv", tmp_path / "all.csv")
    assert list(csv.reader(io.StringIO(done.stdout))) == list(csv.reader((tmp_path / "all.csv").open(newline="")))


def test_an_exit_code_for_scripts(model: Path, images: Path, tmp_path: Path) -> None:
    assert okng("inspect", model, images).returncode == 0
    assert okng("inspect", model, images, "--fail-on-ng").returncode == 3
    assert okng("inspect", model, images / "good", "--threshold", 1e9, "--fail-on-ng").returncode == 0
    (images / "good/00.png").write_text("no image")
    assert okng("inspect", model, images / "good", "--threshold", 1e9, "--fail-on-ng").returncode == 3


def test_a_region_in_an_ok_image_is_explained_and_the_smallest_p_is_a_bound(model: Path, images: Path) -> None:
    done = okng("inspect", model, images / "cut", "--threshold", 1e9)
    assert all("region" in line and line.endswith(", the image is still OK") for line in done.stdout.splitlines())
    assert all("  p <= 0.091  " in line for line in done.stdout.splitlines())


def test_messages_name_the_option(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for asked, words in [
        (["--csv", tmp_path], "give --csv a file such as"),
        (["--csv", tmp_path / "file/r.csv"], "choose another --csv"),
        (["--report", tmp_path / "file"], "choose another --report"),
        (["--overlays", tmp_path / "file"], "choose another --overlays"),
        (["--csv", "-", "--json"], "both want standard output"),
    ]:
        assert words in one_line(okng("inspect", model, images, *asked)), asked


def test_a_stopped_evaluation_keeps_what_was_judged(
    shop: Path,  # noqa: F811
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def second_is_ctrl_c(*arguments: object) -> None:
        judged.append(arguments)
        if len(judged) == 2:
            raise KeyboardInterrupt

    judged: list[object] = []
    monkeypatch.setattr("okng.benchmark.evaluation._Pixels.add", second_is_ctrl_c)
    stopped = okng("evaluate", model, shop / "parts", "--report", tmp_path, "--json")
    assert stopped.returncode == 130 and stopped.stdout == ""
    assert f"wrote {tmp_path}/report.partial.html: 1 of 10 images, no figures" in stopped.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.partial.csv", "report.partial.html"]


def test_a_stopped_explanation_tells_what_was_explained(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Overlays.add
    drawn: list[object] = []

    def third_is_ctrl_c(self: Overlays, *arguments: object) -> object:
        drawn.append(arguments)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("okng.inspection.outputs.Overlays.add", third_is_ctrl_c)
    stopped = okng("explain", model, images, "-o", tmp_path / "maps", "--json")
    told = json.loads(stopped.stdout)
    assert stopped.returncode == 130 and told["complete"] is False and told["total"] == IMAGES
    assert [Path(image["overlay"]).exists() for image in told["images"]] == [True, True]


def test_several_false_alarms_are_learnt_by_one_command(model: Path, images: Path, tmp_path: Path) -> None:
    """The command that the report's ticks make."""
    several = sorted((images / "good").iterdir())[:3]
    done = okng("train", "--update", model, *several, "-o", tmp_path / "new.okng", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provenance"]["updates"][-1]["images"] == 3
    assert "only --update takes several" in one_line(okng("train", *several, "-o", tmp_path / "other.okng"))


def test_a_long_name_has_an_overlay(model: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    Image.fromarray(pictures(1, 5)[0]).save(tmp_path / "new" / f"{'n' * 246}.png")
    done = okng("inspect", model, tmp_path / "new", "--overlays", tmp_path / "maps")
    assert done.returncode == 0 and len(list((tmp_path / "maps").rglob("*.png"))) == 1, done.stderr
