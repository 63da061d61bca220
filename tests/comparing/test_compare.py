"""A comparison from end to end, on small images: what it writes, what it survives, how it goes on."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.test_cli import okng as command_line
from tests.cli.test_cli import one_line
from tests.comparing.methods import Beside, Broken, Colour, Greedy, Killed, Late, Mean
from tests.contract.conftest import pictures
from tests.report.test_report import Page

import okng
from okng.comparing import child, comparison, runs
from okng.comparing.child import fit, peak_memory
from okng.comparing.comparison import Comparison, _methods, _ranks, of_family
from okng.comparing.page import as_text, write_page, write_ranks
from okng.comparing.runs import MAY_PASS, Method, Result, Run
from okng.comparing.sets import comparable
from okng.datasets import OK, Dataset, Sample
from okng.detectors.catalogue import detector_class
from okng.errors import OkngError
from okng.training.progress import Narrator


def parts(root: Path, more: int = 0) -> Path:
    """A data set in the MVTec AD layout, with masks."""
    for folder, count, seed, defect in [
        ("train/good", 14 + more, 1, False), ("test/good", 6, 2, False), ("test/cut", 5, 3, True)
    ]:  # fmt: skip
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(pictures(count, seed, defect)):
            Image.fromarray(image).save(root / folder / f"{i:02}.png")
    (root / "ground_truth" / "cut").mkdir(parents=True, exist_ok=True)
    for i, (image, sound) in enumerate(zip(pictures(5, 3, True), pictures(5, 3, False), strict=True)):
        mask = (np.abs(image.astype(int) - sound).max(2) > 20).astype(np.uint8) * 255
        Image.fromarray(mask).save(root / "ground_truth" / "cut" / f"{i:02}_mask.png")
    return root


def table(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a CSV file by method, without what no two runs share."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    taken = ("seconds", "milliseconds", "fit_memory", "inspect_memory", "ran_on")
    return {row["method"]: {key: value for key, value in row.items() if key not in taken} for row in rows}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """The data set, the folder of results, and what was found: methods that work and methods that don't."""
    root = tmp_path_factory.mktemp("compared")
    ballast = np.ones(60_000_000)  # 480 MB here, which a child must not count
    asked = [Mean, Colour, Broken, Killed, "vgg11", Greedy]
    found = okng.compare(parts(root / "parts"), asked, output=root / "out", device="cpu")
    assert (peak_memory() or 0) > ballast.nbytes
    return root / "parts", root / "out", found


def test_every_figure_is_that_of_evaluate(compared: tuple[Path, Path, Any]) -> None:
    data, out, found = compared
    row = found.sets[0].rows[0]
    alone = okng.fit(data / "train" / "good", Mean, device="cpu")
    figures = okng.evaluate(alone, data)
    for name, figure in row.figures.items():
        assert figure.value == pytest.approx(figures[name], abs=1e-6), name
    alone.save(out / "alone.okng")
    assert row.costs["file_bytes"] == pytest.approx((out / "alone.okng").stat().st_size, abs=200)
    assert row.costs["seconds"] > 0 and 0 < row.costs["milliseconds"] < 5000


def test_memory_is_the_childs_own(compared: tuple[Path, Path, Any]) -> None:
    mean, *_, greedy = (row.costs for row in compared[2].sets[0].rows)
    assert greedy["fit_memory"] > mean["fit_memory"] + 200e6
    assert abs(greedy["inspect_memory"] - mean["inspect_memory"]) < 100e6
    assert mean["fit_memory"] < (peak_memory() or 0) - 300e6


def test_one_that_fails_says_why_in_its_row_and_takes_no_other_along(compared: tuple[Path, Path, Any]) -> None:
    _, out, found = compared
    mean, colour, broken, killed, vgg11, _ = found.sets[0].rows
    assert mean.each and colour.each and not mean.reason
    assert broken.reason == "ZeroDivisionError: a mistake of two lines"
    assert killed.reason.startswith("its process was ended by signal 9 during the fit: for lack of memory")
    assert "learns from some NG images" in vgg11.reason and not vgg11.each
    rows = table(out / "parts.csv")
    assert [row["reason"] for row in rows.values()] == [row.reason for row in found.sets[0].rows]
    page = (out / "parts.html").read_text()
    assert all(row.reason in page for row in (broken, killed, vgg11))


def test_what_is_told_apart_and_what_is_not(compared: tuple[Path, Path, Any]) -> None:
    mean, colour, *_ = compared[2].sets[0].rows
    figure = mean.figures["image_auroc"]
    assert figure.best and figure.value == 1.0 and figure.low < 0.7  # five NG images prove little
    other = colour.figures["image_auroc"]
    assert not other.best and other.low < other.value < other.high
    assert other.alike == (other.p > 0.05)
    assert mean.figures["pixel_auroc"].low < mean.figures["pixel_auroc"].value
    assert np.isnan(colour.figures["pixel_auroc"].value) and "no map" in colour.notes["pixel_auroc"]


def test_files_hold_the_same_figures(compared: tuple[Path, Path, Any]) -> None:
    _, out, found = compared
    content = json.loads((out / "parts.json").read_text())
    row, written = found.sets[0].rows[1], content["methods"][1]
    assert written["figures"]["image_auroc"]["value"] == row.figures["image_auroc"].value
    assert written["figures"]["aupro"]["value"] is None
    assert table(out / "parts.csv")[row.method.name]["caught"] == f"{row.figures['caught'].value:.4f}"
    assert found.to_json()["sets"][0]["methods"][1] == written
    shown = repr(found).splitlines()
    assert shown[2].startswith("Mean ") and "1.000 *" in shown[2] and "ZeroDivisionError" in shown[4]
    left = [
        path.name for path in (out / "runs").iterdir() if path.suffixes[-2:-1] == [".clock"] or ".partial" in path.name
    ]
    assert [name.partition("-")[0] for name in left] == ["tests.comparing.methods.Killed"]  # which may go on


def test_a_fit_that_failed_leaves_its_reason_alone(tmp_path: Path) -> None:
    data, out = parts(tmp_path / "parts"), tmp_path / "out"
    (row,) = okng.compare(data, [Late], output=out, device="cpu").sets[0].rows
    assert row.reason == "ZeroDivisionError: a late mistake"
    assert not [*(out / "runs").iterdir()]


@pytest.mark.parametrize(
    ("error", "code", "left"),
    [
        (ZeroDivisionError("a mistake"), 1, []),
        (OkngError("loss is no number"), 1, []),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), MAY_PASS, [".partial.0"]),
        (torch.OutOfMemoryError("CUDA out of memory"), MAY_PASS, [".partial.0"]),
    ],
)
def test_what_may_pass_goes_on(
    error: Exception, code: int, left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of learning before a disk was full are not lost, whatever was said of it."""
    said = OkngError("the fit failed")
    said.__cause__ = error
    assert child._code(error) == child._code(said) == code
    data = Dataset("none", "", "", (), ())
    run = Run(Method("Mean", "knn"), data, "", (), False, 0, 0.05, "cpu", tmp_path)
    run.file(".partial.0").touch()

    def ended(words: list[str], **_: Any) -> Any:
        run.file(".failed").write_text("why")
        return nullcontext(SimpleNamespace(stdin=io.BytesIO(), wait=lambda: code))

    monkeypatch.setattr(runs.subprocess, "Popen", ended)
    assert run.measure(Narrator(quiet=True)).failure == "why"
    assert [path.name.removeprefix(run.stem.name) for path in tmp_path.iterdir()] == left


def test_times_of_other_machines_are_told_apart(compared: tuple[Path, Path, Any], tmp_path: Path) -> None:
    """As when a comparison goes on with a cluster: figures go together, times do not."""
    _, out, found = compared
    with (out / "parts.csv").open(newline="") as file:
        ran_on = {row["method"]: row["ran_on"] for row in csv.DictReader(file)}
    assert "no GPU, threads: " in ran_on["Mean"] and ran_on["Mean"] == ran_on["Colour"] and not ran_on["Broken"]
    assert "times do not compare" not in repr(found)
    assert "Times do not compare" not in (out / "parts.html").read_text("utf-8")
    rows = [replace(row, ran_on=["a GPU"]) if row.method.name == "Colour" else row for row in found.sets[0].rows]
    mixed = replace(found.sets[0], rows=rows, page=tmp_path / "parts.html")
    assert f"times do not compare: fits ran on {ran_on['Mean']}; a GPU" in as_text(mixed)
    write_page(mixed, "okng compare", "en")
    assert f"{ran_on['Mean']}; a GPU." in mixed.page.read_text("utf-8")


def test_the_page_shows_the_same_six_images_of_every_method(compared: tuple[Path, Path, Any]) -> None:
    _, out, found = compared
    shown, (mean, colour, *_) = found.sets[0].shown, found.sets[0].rows
    assert len(shown) == 6 and set(mean.pictures) == set(colour.pictures) == set(shown)
    assert [mean.pictures[key]["label"] for key in shown] == ["NG"] * 4 + ["OK"] * 2
    page = (out / "parts.html").read_text()
    assert page.count('alt="Heatmap of') == 12 and page.count("no map</div>") == 6
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_the_page_in_korean(compared: tuple[Path, Path, Any], tmp_path: Path) -> None:
    _, _, found = compared
    page, ranks = replace(found.sets[0], page=tmp_path / "parts.html"), tmp_path / "ranks.html"
    write_page(page, "okng compare", "ko")
    write_ranks(ranks, found, "ko")
    said = Page(page.page.read_text("utf-8"))
    assert "같은 이미지를 방법마다" in said.text and "구별되지 않" in said.text
    for english in ("Take any", "false alarm", "Learnt from", "How to read", "Original", "95% interval"):
        assert english not in said.text, english
    assert "아직 순위가 없습니다" in ranks.read_text("utf-8")


def test_nothing_is_measured_twice_until_it_changes(
    compared: tuple[Path, Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, _ = compared
    kept = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    again = okng.compare(data, [Mean, Colour], output=out, device="cpu", time_limit="0s")
    assert not again.left and {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == kept
    for change in (
        {"detectors": [(Mean, {"blur": 0.1})]},
        {"detectors": [Mean], "seeds": 2},
        {"detectors": [Mean], "false_alarm_rate": 0.1},
    ):
        left = okng.compare(data, output=out, device="cpu", time_limit="0s", **change).left
        assert len(left) == 1, change
    with monkeypatch.context() as other:
        other.setattr(Method, "code", property(lambda _: "of another version"))
        assert len(okng.compare(data, [Mean], output=out, device="cpu", time_limit="0s").left) == 1
    parts(data, more=1)
    changed = okng.compare(data, [Mean, Colour], output=out, device="cpu", time_limit="0s")
    assert changed.left == [f"parts: {row.method.name}, seed 0" for row in changed.sets[0].rows]
    assert [row.reason for row in changed.sets[0].rows] == ["no time left"] * 2
    assert "had no time left" in (out / "parts.html").read_text()


def test_what_numpy_counts_with_and_a_damaged_file(tmp_path: Path) -> None:
    """The same run as with Python's own numbers, which is measured again where its arrays are not whole."""
    data, out = parts(tmp_path / "parts"), tmp_path / "out"
    (method,) = _methods([(Mean, {"blur": np.float64(0.125)})])
    assert method.arguments == {"blur": 0.125} and type(method.arguments["blur"]) is float
    with pytest.raises(OkngError, match="blur is a finite number"):
        okng.compare(data, [(Mean, {"blur": np.float32("nan")})], output=out, device="cpu")
    asked = [(Mean, {"blur": np.float32(0.125)})]
    assert not okng.compare(data, asked, output=out, device="cpu").left
    (arrays,) = (out / "runs").glob("*.npz")
    for whole in (arrays.read_bytes()[:-40], b"PK\x03\x04", b""):
        arrays.write_bytes(whole)
        assert len(okng.compare(data, asked, output=out, device="cpu", time_limit="0s").left) == 1


def test_ok_images_alone_tell_of_false_alarms_and_costs(tmp_path: Path) -> None:
    for i, image in enumerate(pictures(30, 1)):
        (tmp_path / "ok").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "ok" / f"{i:02}.png")
    found = okng.compare(tmp_path / "ok", Mean, output=tmp_path / "out", device="cpu").sets[0]
    (row,) = found.rows
    assert found.held_back and (row.n_ok, row.n_ng, found.counts["train"]) == (6, 0, 24)
    figure = row.figures["measured_false_alarm_rate"]
    assert figure.low <= figure.value <= figure.high and np.isnan(row.figures["image_auroc"].value)
    assert row.planted["images"] == 6 and 0 < row.planted["found"] < 1
    page = (tmp_path / "out" / "ok.html").read_text()
    assert (
        "There are OK images only" in page
        and "Planted defects, which are not real ones" in page
        and "Image AUROC" not in page
    )


def test_several_sets_are_ranked(compared: tuple[Path, Path, Any], tmp_path: Path) -> None:
    (one,) = compared[2].sets
    (tmp_path / "two.html").touch()
    two = replace(one, name="two", page=tmp_path / "two.html")
    alone = replace(one, name="only OK", counts={**one.counts, "ng": 0})
    names, ranks = _ranks([one, two, alone])
    assert names == [one.rows[0].method.name, one.rows[1].method.name, one.rows[5].method.name] and ranks is not None
    assert ranks.average.tolist() == [1.5, 3.0, 1.5]  # Greedy is Mean
    write_ranks(tmp_path / "ranks.html", Comparison([one, two, alone], names, ranks, "okng compare one two"), "en")
    page = (tmp_path / "ranks.html").read_text()
    assert "Nemenyi" in page and 'href="two.html"' in page and page.count("<circle") == 3
    assert _ranks([one, alone])[1] is None
    write_ranks(tmp_path / "ranks.html", Comparison([one, alone], [], None, ""), "en")
    assert "There is no ranking yet" in (tmp_path / "ranks.html").read_text()


PROGRAM = """
import sys
import okng
from tests.comparing.methods import Colour, Mean
okng.compare(sys.argv[1], [(Colour, {"epochs": 12, "pause": 0.1}), Mean], output=sys.argv[2], device="cpu", seeds=2)
"""


def run_killed(data: Path, out: Path, moments: list[float]) -> int:
    """Run the program, killed at `moments`, seconds after each beginning, until it ends; how often it was killed."""
    killed = 0
    for moment in [*moments, None]:
        program = subprocess.Popen([sys.executable, "-c", PROGRAM, data, out], cwd=Path(__file__).parents[2])
        try:
            assert program.wait(moment) == 0
            return killed
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGKILL)  # the one that a person sees, and no child of it
            program.wait()
            killed += 1
    return killed


def test_nothing_goes_on_when_the_parent_is_killed(tmp_path: Path) -> None:
    data = parts(tmp_path / "parts")
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, data, tmp_path / "out"], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("runs/*.partial*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(OkngError, match="another comparison is at work"):
        okng.compare(data, [(Colour, {"epochs": 12, "pause": 0.1})], output=tmp_path / "out", device="cpu")
    program.kill()
    program.wait()
    time.sleep(1.0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").iterdir()}
    time.sleep(1.5)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").iterdir()}


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_table(tmp_path: Path) -> None:
    data = parts(tmp_path / "parts")
    assert run_killed(data, tmp_path / "whole", []) == 0
    chance = random.Random(0)
    killed = run_killed(data, tmp_path / "killed", [chance.uniform(3, 20) for _ in range(8)])
    assert killed >= 3
    assert table(tmp_path / "killed" / "parts.csv") == table(tmp_path / "whole" / "parts.csv")
    left = [path.name for path in (tmp_path / "killed" / "runs").iterdir() if path.suffix not in (".json", ".npz")]
    assert not left


def test_a_training_image_that_cant_be_read_costs_no_method_its_row(tmp_path: Path) -> None:
    """Arguments are chosen by the sizes of the others, as a fit skips it; without any the set is named."""
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"torn")
    samples = tuple(Sample(image, OK) for image in pictures(6, 1))

    def begun(*train: Sample) -> comparison._Set:
        given = comparable(Dataset("parts", "", "", train, samples[:2]), Narrator(quiet=True))
        return comparison._Set(given, "parts", [Method("knn", "knn")], "cpu", tmp_path, 0.05, ())

    damaged = begun(Sample(torn, OK), *samples[2:])
    assert damaged.reasons == {} and damaged.methods == begun(*samples[2:]).methods
    with pytest.raises(OkngError, match=r"parts: there is no readable image .* bring at least 2 OK images"):
        begun()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    data = parts(tmp_path / "parts")
    for words, said in [
        (["-d", "patchcor"], "did you mean patchcore"),
        (["-d", "patchcore", "--family", "distillation"], "not both"),
        (["--family", "distilation"], "did you mean distillation"),
        (["--time-limit", "soon"], "such as 60m, 2h or 90s"),
        (["--budget", "huge"], "cpu or paper"),
        (["--false-alarm-rate", "1.5"], "lies between 0 and 1"),
    ]:
        assert said in one_line(command_line("compare", data, "-o", tmp_path / "out", *words)), words
    assert not (tmp_path / "out").exists()


def test_the_command_line_prints_the_table_and_what_is_left(tmp_path: Path) -> None:
    data = parts(tmp_path / "parts")
    words = ["compare", data, "-d", "PaDiM,stfpm", "--time-limit", "0s", "-o", tmp_path / "out"]
    done = command_line(*words)
    assert done.returncode == 0 and "no time left" in done.stdout and "padim" in done.stdout
    assert "2 fits had no time left" in done.stderr and "the same command goes on" in done.stderr
    told = json.loads(command_line(*words, "--json").stdout)
    assert [method["method"] for method in told["sets"][0]["methods"]] == ["padim", "stfpm"]
    assert told["command"].startswith("okng compare") and len(told["sets"][0]["left"]) == 2


def test_auxiliary_images_go_to_those_that_can_use_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And other ones beside the same data are another run."""
    begun: list[Run] = []

    def not_now(run: Run, tell: Narrator) -> Result:
        begun.append(run)
        return Result(run, {"failure": "not now"}, {})

    monkeypatch.setattr(Run, "measure", not_now)
    data, folder = parts(tmp_path / "parts"), tmp_path / "textures"
    folder.mkdir()
    for i, image in enumerate(pictures(3, seed=9)):
        Image.fromarray(image).save(folder / f"{i}.png")
    settings: dict[str, Any] = {"output": tmp_path / "out", "device": "cpu"}
    okng.compare(data, [Mean, Beside], auxiliary=folder, **settings)
    okng.compare(data, [Beside], auxiliary=list(pictures(2, seed=9)), **settings)
    okng.compare(data, [Mean, Beside], **settings)
    assert [len(run.auxiliary) for run in begun] == [0, 3, 2, 0, 0]
    assert begun[0].identity == begun[3].identity and len({str(run.stem) for run in begun}) == 4
    begun[1].folder.mkdir(parents=True)
    fit(begun[1], Narrator(quiet=True))
    assert json.loads(begun[1].file(".fit.json").read_text())["provenance"]["auxiliary_images"] == 3
    with pytest.raises(OkngError, match="none of these detectors uses auxiliary images"):
        okng.compare(data, [Mean], auxiliary=folder, **settings)
    words = ["compare", data, "-d", "padim", "--auxiliary", folder, "-o", tmp_path / "out"]
    assert "none of these detectors uses auxiliary images" in one_line(command_line(*words))


def test_the_quickest_come_first_whatever_their_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that train nothing, then by the time that `okng list` prints."""
    times = {"stfpm": 3.0, "draem": 2.0, "padim": 50.0, "vgg11": 4.0}
    monkeypatch.setattr(comparison, "headlines", lambda: {name: {"seconds": s} for name, s in times.items()})
    names = [method.name for method in _methods(None)]
    collecting = sum(detector_class(name).collects_only for name in names)
    assert {"padim", "spade", "mahalanobis"} <= {*names[:collecting]} and names[0] == "padim"
    assert names[collecting : collecting + 3] == ["draem", "stfpm", "vgg11"]
    assert of_family("distillation")[0] == "stfpm"


def test_names_and_families_are_understood() -> None:
    names = [method.name for method in _methods(None)]
    assert names.index("padim") < names.index("anogan") and len(names) == len(set(names))
    assert [m.name for m in _methods(["PatchCore", ("patchcore", {"coreset": 0.1}), "patchcore"])] == [
        "patchcore", "patchcore (coreset=0.1)"
    ]  # fmt: skip
    assert set(of_family("Feature-Matching")) >= {"patchcore", "padim"}
    with pytest.raises(OkngError, match="at least one"):
        okng.compare([])
